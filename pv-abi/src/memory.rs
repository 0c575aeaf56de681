//! Memory of domains: how much they have, where it is, and the maps of it.
//!
//! `HYPERVISOR_memory_op(cmd, arg)`: `cmd` is a `XENMEM_*`, `arg` the address of its struct. A command that works on a list
//! returns how many elements it did; when preempted, the number of those done stands in the upper bits of `cmd`.
//!
//! Frames are a PV domain's machine frames but where "pseudo-physical" is said.
//!
//! Xen: `public/memory.h`.

use crate::layout::{constants, structs};
use crate::physdev::PhysdevPciDevice;

constants! {
    header "memory.h";
    /// Gets more memory; see [`MemoryReservation`]. Returns the number of extents done.
    pub const XENMEM_INCREASE_RESERVATION [XENMEM_increase_reservation]: u32 = 0;
    /// Gives memory back; see [`MemoryReservation`]. Returns the number of extents done.
    pub const XENMEM_DECREASE_RESERVATION [XENMEM_decrease_reservation]: u32 = 1;
    /// Returns the highest machine frame. No argument.
    pub const XENMEM_MAXIMUM_RAM_PAGE [XENMEM_maximum_ram_page]: u32 = 2;
    /// Returns the number of pages a domain has; see [`MemoryDomain`].
    pub const XENMEM_CURRENT_RESERVATION [XENMEM_current_reservation]: u32 = 3;
    /// Returns the number of pages a domain may have; see [`MemoryDomain`].
    pub const XENMEM_MAXIMUM_RESERVATION [XENMEM_maximum_reservation]: u32 = 4;
    /// Lists the frames of the machine-to-physical table, 2 MiB each; see [`MachphysMfnList`].
    pub const XENMEM_MACHPHYS_MFN_LIST [XENMEM_machphys_mfn_list]: u32 = 5;
    /// Gets memory for given pseudo-physical frames; see [`MemoryReservation`]. Returns the number of extents done.
    pub const XENMEM_POPULATE_PHYSMAP [XENMEM_populate_physmap]: u32 = 6;
    /// Puts something at a guest frame of a translated domain; see [`AddToPhysmap`].
    pub const XENMEM_ADD_TO_PHYSMAP [XENMEM_add_to_physmap]: u32 = 7;
    /// Tells the caller's memory map; see [`MemoryMap`].
    pub const XENMEM_MEMORY_MAP [XENMEM_memory_map]: u32 = 9;
    /// Tells the machine's memory map; see [`MemoryMap`]. For the first domain.
    pub const XENMEM_MACHINE_MEMORY_MAP [XENMEM_machine_memory_map]: u32 = 10;
    /// Exchanges memory for other memory, for example of a lower address; see [`MemoryExchange`].
    pub const XENMEM_EXCHANGE [XENMEM_exchange]: u32 = 11;
    /// Tells where the machine-to-physical table is; see [`MachphysMapping`].
    pub const XENMEM_MACHPHYS_MAPPING [XENMEM_machphys_mapping]: u32 = 12;
    /// Sets a domain's memory map; see [`ForeignMemoryMap`].
    pub const XENMEM_SET_MEMORY_MAP [XENMEM_set_memory_map]: u32 = 13;
    /// Returns a domain's highest guest frame; see [`MemoryDomain`].
    pub const XENMEM_MAXIMUM_GPFN [XENMEM_maximum_gpfn]: u32 = 14;
    /// Takes something away from a guest frame of a translated domain; see [`RemoveFromPhysmap`].
    pub const XENMEM_REMOVE_FROM_PHYSMAP [XENMEM_remove_from_physmap]: u32 = 15;
    /// Sets the target of populate-on-demand; see [`PodTarget`].
    pub const XENMEM_SET_POD_TARGET [XENMEM_set_pod_target]: u32 = 16;
    /// Tells the state of populate-on-demand; see [`PodTarget`].
    pub const XENMEM_GET_POD_TARGET [XENMEM_get_pod_target]: u32 = 17;
    /// Returns the number of pages that sharing has freed. No argument.
    pub const XENMEM_GET_SHARING_FREED_PAGES [XENMEM_get_sharing_freed_pages]: u32 = 18;
    /// Returns the number of shared pages. No argument.
    pub const XENMEM_GET_SHARING_SHARED_PAGES [XENMEM_get_sharing_shared_pages]: u32 = 19;
    /// Pages a guest's frame out or in; see [`MemPagingOp`].
    pub const XENMEM_PAGING_OP [XENMEM_paging_op]: u32 = 20;
    /// Reads or sets access rights of guest frames; see [`MemAccessOp`].
    pub const XENMEM_ACCESS_OP [XENMEM_access_op]: u32 = 21;
    /// Shares pages between guests; see [`MemSharingOp`].
    pub const XENMEM_SHARING_OP [XENMEM_sharing_op]: u32 = 22;
    /// As [`XENMEM_ADD_TO_PHYSMAP`], for many; see [`AddToPhysmapBatch`].
    pub const XENMEM_ADD_TO_PHYSMAP_BATCH [XENMEM_add_to_physmap_batch]: u32 = 23;
    /// Claims pages for a domain to be built; see [`MemoryReservation`] (`nr_extents` pages, order 0).
    pub const XENMEM_CLAIM_PAGES [XENMEM_claim_pages]: u32 = 24;
    /// As [`XENMEM_MACHPHYS_MFN_LIST`], for 32-bit guests.
    pub const XENMEM_MACHPHYS_COMPAT_MFN_LIST [XENMEM_machphys_compat_mfn_list]: u32 = 25;
    /// Tells the virtual NUMA topology; see [`VnumaTopologyInfo`].
    pub const XENMEM_GET_VNUMAINFO [XENMEM_get_vnumainfo]: u32 = 26;
    /// Lists memory that devices reserve; see [`ReservedDeviceMemoryMap`].
    pub const XENMEM_RESERVED_DEVICE_MEMORY_MAP [XENMEM_reserved_device_memory_map]: u32 = 27;
    /// Tells the frames of something the hypervisor keeps for a domain; see [`MemAcquireResource`].
    pub const XENMEM_ACQUIRE_RESOURCE [XENMEM_acquire_resource]: u32 = 28;

    /// [`MemoryReservation::mem_flags`]: populate on demand.
    pub const XENMEMF_POPULATE_ON_DEMAND [XENMEMF_populate_on_demand]: u32 = 1 << 16;
    /// [`MemoryReservation::mem_flags`]: only from the node asked for.
    pub const XENMEMF_EXACT_NODE_REQUEST [XENMEMF_exact_node_request]: u32 = 1 << 17;
    /// [`MemoryReservation::mem_flags`]: the node is a virtual one.
    pub const XENMEMF_VNODE [XENMEMF_vnode]: u32 = 1 << 18;

    /// [`AddToPhysmap::space`]: the shared page.
    pub const XENMAPSPACE_SHARED_INFO [XENMAPSPACE_shared_info]: u32 = 0;
    /// [`AddToPhysmap::space`]: a frame of the grant table.
    pub const XENMAPSPACE_GRANT_TABLE [XENMAPSPACE_grant_table]: u32 = 1;
    /// [`AddToPhysmap::space`]: another guest frame.
    pub const XENMAPSPACE_GMFN [XENMAPSPACE_gmfn]: u32 = 2;
    /// [`AddToPhysmap::space`]: a range of guest frames; not for batches.
    pub const XENMAPSPACE_GMFN_RANGE [XENMAPSPACE_gmfn_range]: u32 = 3;
    /// [`AddToPhysmap::space`]: a frame of another domain; batches only.
    pub const XENMAPSPACE_GMFN_FOREIGN [XENMAPSPACE_gmfn_foreign]: u32 = 4;
    /// [`AddToPhysmap::space`]: a device's memory; Arm only.
    pub const XENMAPSPACE_DEV_MMIO [XENMAPSPACE_dev_mmio]: u32 = 5;
    /// In [`AddToPhysmap::idx`] with [`XENMAPSPACE_GRANT_TABLE`]: a frame of the status words.
    pub const XENMAPIDX_GRANT_TABLE_STATUS [XENMAPIDX_grant_table_status]: u64 = 0x8000_0000;

    /// [`MemPagingOp::op`]: marks a frame to be paged out.
    pub const XENMEM_PAGING_OP_NOMINATE [XENMEM_paging_op_nominate]: u8 = 0;
    /// [`MemPagingOp::op`]: pages it out.
    pub const XENMEM_PAGING_OP_EVICT [XENMEM_paging_op_evict]: u8 = 1;
    /// [`MemPagingOp::op`]: pages it in.
    pub const XENMEM_PAGING_OP_PREP [XENMEM_paging_op_prep]: u8 = 2;
    /// [`MemAccessOp::op`]: sets.
    pub const XENMEM_ACCESS_OP_SET_ACCESS [XENMEM_access_op_set_access]: u8 = 0;
    /// [`MemAccessOp::op`]: reads.
    pub const XENMEM_ACCESS_OP_GET_ACCESS [XENMEM_access_op_get_access]: u8 = 1;
    /// [`MemAccessOp::op`]: sets for a list.
    pub const XENMEM_ACCESS_OP_SET_ACCESS_MULTI [XENMEM_access_op_set_access_multi]: u8 = 4;
    /// [`MemAccessOp::access`]: none.
    pub const XENMEM_ACCESS_N [XENMEM_access_n]: u8 = 0;
    /// [`MemAccessOp::access`]: read.
    pub const XENMEM_ACCESS_R [XENMEM_access_r]: u8 = 1;
    /// [`MemAccessOp::access`]: write.
    pub const XENMEM_ACCESS_W [XENMEM_access_w]: u8 = 2;
    /// [`MemAccessOp::access`]: read, write.
    pub const XENMEM_ACCESS_RW [XENMEM_access_rw]: u8 = 3;
    /// [`MemAccessOp::access`]: execute.
    pub const XENMEM_ACCESS_X [XENMEM_access_x]: u8 = 4;
    /// [`MemAccessOp::access`]: read, execute.
    pub const XENMEM_ACCESS_RX [XENMEM_access_rx]: u8 = 5;
    /// [`MemAccessOp::access`]: write, execute.
    pub const XENMEM_ACCESS_WX [XENMEM_access_wx]: u8 = 6;
    /// [`MemAccessOp::access`]: all.
    pub const XENMEM_ACCESS_RWX [XENMEM_access_rwx]: u8 = 7;
    /// [`MemAccessOp::access`]: read, execute, and after a write read, write.
    pub const XENMEM_ACCESS_RX2RW [XENMEM_access_rx2rw]: u8 = 8;
    /// [`MemAccessOp::access`]: all, the first access is reported.
    pub const XENMEM_ACCESS_N2RWX [XENMEM_access_n2rwx]: u8 = 9;
    /// [`MemAccessOp::access`]: what the domain has by default.
    pub const XENMEM_ACCESS_DEFAULT [XENMEM_access_default]: u8 = 10;

    /// [`MemSharingOp::op`]: marks a frame to be shared.
    pub const XENMEM_SHARING_OP_NOMINATE_GFN [XENMEM_sharing_op_nominate_gfn]: u8 = 0;
    /// [`MemSharingOp::op`]: marks a grant to be shared.
    pub const XENMEM_SHARING_OP_NOMINATE_GREF [XENMEM_sharing_op_nominate_gref]: u8 = 1;
    /// [`MemSharingOp::op`]: shares two.
    pub const XENMEM_SHARING_OP_SHARE [XENMEM_sharing_op_share]: u8 = 2;
    /// [`MemSharingOp::op`]: prints a guest frame.
    pub const XENMEM_SHARING_OP_DEBUG_GFN [XENMEM_sharing_op_debug_gfn]: u8 = 3;
    /// [`MemSharingOp::op`]: prints a machine frame.
    pub const XENMEM_SHARING_OP_DEBUG_MFN [XENMEM_sharing_op_debug_mfn]: u8 = 4;
    /// [`MemSharingOp::op`]: prints a grant.
    pub const XENMEM_SHARING_OP_DEBUG_GREF [XENMEM_sharing_op_debug_gref]: u8 = 5;
    /// [`MemSharingOp::op`]: puts a shared page at a guest frame.
    pub const XENMEM_SHARING_OP_ADD_PHYSMAP [XENMEM_sharing_op_add_physmap]: u8 = 6;
    /// [`MemSharingOp::op`]: checks the books.
    pub const XENMEM_SHARING_OP_AUDIT [XENMEM_sharing_op_audit]: u8 = 7;
    /// [`MemSharingOp::op`]: shares ranges.
    pub const XENMEM_SHARING_OP_RANGE_SHARE [XENMEM_sharing_op_range_share]: u8 = 8;
    /// [`MemSharingOp::op`]: makes a domain the copy of another.
    pub const XENMEM_SHARING_OP_FORK [XENMEM_sharing_op_fork]: u8 = 9;
    /// [`MemSharingOp::op`]: resets such a copy.
    pub const XENMEM_SHARING_OP_FORK_RESET [XENMEM_sharing_op_fork_reset]: u8 = 10;
    /// Result of sharing: the source's handle is stale.
    pub const XENMEM_SHARING_OP_S_HANDLE_INVALID: i32 = -10;
    /// Result of sharing: the client's handle is stale.
    pub const XENMEM_SHARING_OP_C_HANDLE_INVALID: i32 = -9;
    /// In a frame field of [`MemSharingOp`]: it is a grant reference.
    pub const XENMEM_SHARING_OP_FIELD_IS_GREF_FLAG: u64 = 1 << 62;
    /// Fork: allow a domain with an IOMMU.
    pub const XENMEM_FORK_WITH_IOMMU_ALLOWED: u16 = 1 << 0;
    /// Fork: keep interrupts from the copy.
    pub const XENMEM_FORK_BLOCK_INTERRUPTS: u16 = 1 << 1;
    /// Fork: reset the state.
    pub const XENMEM_FORK_RESET_STATE: u16 = 1 << 2;
    /// Fork: reset the memory.
    pub const XENMEM_FORK_RESET_MEMORY: u16 = 1 << 3;

    /// [`ReservedDeviceMemoryMap::flags`]: of all devices.
    pub const XENMEM_RDM_ALL: u32 = 1;
    /// [`MemAcquireResource::type_`]: pages of an I/O request server.
    pub const XENMEM_RESOURCE_IOREQ_SERVER [XENMEM_resource_ioreq_server]: u16 = 0;
    /// [`MemAcquireResource::type_`]: pages of the grant table.
    pub const XENMEM_RESOURCE_GRANT_TABLE [XENMEM_resource_grant_table]: u16 = 1;
    /// [`MemAcquireResource::type_`]: a trace buffer.
    pub const XENMEM_RESOURCE_VMTRACE_BUF [XENMEM_resource_vmtrace_buf]: u16 = 2;
    /// [`MemAcquireResource::id`]: the grant entries.
    pub const XENMEM_RESOURCE_GRANT_TABLE_ID_SHARED [XENMEM_resource_grant_table_id_shared]: u32 = 0;
    /// [`MemAcquireResource::id`]: the status words.
    pub const XENMEM_RESOURCE_GRANT_TABLE_ID_STATUS [XENMEM_resource_grant_table_id_status]: u32 = 1;
    /// [`MemAcquireResource::frame`]: the buffered requests.
    pub const XENMEM_RESOURCE_IOREQ_SERVER_FRAME_BUFIOREQ [XENMEM_resource_ioreq_server_frame_bufioreq]: u64 = 0;
}

/// The bits of a command in `cmd`; those above hold the progress of a preempted call.
pub const MEMOP_CMD_MASK: u32 = (1 << 6) - 1;

structs! {
    header "memory.h";

    /// What to get or give back: `nr_extents` runs of 2^`extent_order` pages.
    pub struct MemoryReservation ["struct xen_memory_reservation"] {
        /// In and out: address of a list of first frames (`u64`), one an extent. Populate: in pseudo-physical, out machine.
        pub extent_start: u64,
        /// In: number of extents.
        pub nr_extents: u64,
        /// In: log2 of the pages in an extent.
        pub extent_order: u32,
        /// In: bits 0–7 largest address in bits (0: any), bits 8–15 node + 1, and `XENMEMF_*`.
        pub mem_flags: u32,
        /// In: the domain.
        pub domid: u16,
        /// Padding.
        pub _pad0: [u16; 3],
    }

    /// `XENMEM_exchange`: what is given for what.
    pub struct MemoryExchange ["struct xen_memory_exchange"] {
        /// In: what is given.
        pub in_ ["in"]: MemoryReservation,
        /// In: what is got; its list becomes the machine frames.
        pub out: MemoryReservation,
        /// In: 0. Out: number of input extents done.
        pub nr_exchanged: u64,
    }

    /// The argument of commands that only name a domain.
    pub struct MemoryDomain ["struct xen_memory_domain"] {
        /// In: the domain.
        pub domid: u16,
    }

    /// `XENMEM_machphys_mfn_list`: the frames of the machine-to-physical table.
    pub struct MachphysMfnList ["struct xen_machphys_mfn_list"] {
        /// In: room in the list.
        pub max_extents: u32,
        /// Padding.
        pub _pad0: u32,
        /// In: address of a list of `u64`. Out: first frames of extents of 2 MiB, in it.
        pub extent_start: u64,
        /// Out: number of extents.
        pub nr_extents: u32,
        /// Padding.
        pub _pad1: u32,
    }

    /// `XENMEM_machphys_mapping`: where the machine-to-physical table is.
    pub struct MachphysMapping ["struct xen_machphys_mapping"] {
        /// Out: first address.
        pub v_start: u64,
        /// Out: address after it.
        pub v_end: u64,
        /// Out: the highest machine frame.
        pub max_mfn: u64,
    }

    /// `XENMEM_add_to_physmap`: what to put where.
    pub struct AddToPhysmap ["struct xen_add_to_physmap"] {
        /// In: the domain.
        pub domid: u16,
        /// In: number of pages of a range.
        pub size: u16,
        /// In: `XENMAPSPACE_*`.
        pub space: u32,
        /// In: index in that space.
        pub idx: u64,
        /// In: guest frame.
        pub gpfn: u64,
    }

    /// `XENMEM_add_to_physmap_batch`: many of one space.
    pub struct AddToPhysmapBatch ["struct xen_add_to_physmap_batch"] {
        /// In: the domain.
        pub domid: u16,
        /// In: `XENMAPSPACE_*`.
        pub space: u16,
        /// In: number of elements.
        pub size: u16,
        /// In: the foreign domain, else 0.
        pub u: u16,
        /// In: address of indices (`u64`).
        pub idxs: u64,
        /// In: address of guest frames (`u64`).
        pub gpfns: u64,
        /// Out: address of errors (`i32`).
        pub errs: u64,
    }

    /// `XENMEM_remove_from_physmap`: what to take away.
    pub struct RemoveFromPhysmap ["struct xen_remove_from_physmap"] {
        /// In: the domain.
        pub domid: u16,
        /// Padding.
        pub _pad0: [u16; 3],
        /// In: guest frame.
        pub gpfn: u64,
    }

    /// `XENMEM_memory_map`, `XENMEM_machine_memory_map`: a memory map in the form of the BIOS call E820.
    pub struct MemoryMap ["struct xen_memory_map"] {
        /// In: room in the buffer. Out: number of [`E820Entry`].
        pub nr_entries: u32,
        /// Padding.
        pub _pad0: u32,
        /// In: address of the buffer.
        pub buffer: u64,
    }

    /// `XENMEM_set_memory_map`: whose map, and what.
    pub struct ForeignMemoryMap ["struct xen_foreign_memory_map"] {
        /// In: the domain.
        pub domid: u16,
        /// Padding.
        pub _pad0: [u16; 3],
        /// In: the map.
        pub map: MemoryMap,
    }

    /// `XENMEM_{set,get}_pod_target`: populate-on-demand.
    pub struct PodTarget ["struct xen_pod_target"] {
        /// In: target in pages.
        pub target_pages: u64,
        /// Out: pages in all.
        pub tot_pages: u64,
        /// Out: pages in the cache.
        pub pod_cache_pages: u64,
        /// Out: entries not populated.
        pub pod_entries: u64,
        /// In: the domain.
        pub domid: u16,
        /// Padding.
        pub _pad0: [u16; 3],
    }

    /// `XENMEM_paging_op`: paging a guest's frame.
    pub struct MemPagingOp ["struct xen_mem_paging_op"] {
        /// In: `XENMEM_PAGING_OP_*`.
        pub op: u8,
        /// Padding.
        pub _pad0: u8,
        /// In: the domain.
        pub domain: u16,
        /// Padding.
        pub _pad1: u32,
        /// In: address of the page's content, or 0.
        pub buffer: u64,
        /// In: guest frame.
        pub gfn: u64,
    }

    /// `XENMEM_access_op`: access rights of guest frames.
    pub struct MemAccessOp ["struct xen_mem_access_op"] {
        /// In: `XENMEM_ACCESS_OP_*`.
        pub op: u8,
        /// In or out: `XENMEM_ACCESS_*`.
        pub access: u8,
        /// In: the domain.
        pub domid: u16,
        /// In: number of frames.
        pub nr: u32,
        /// In: first frame; all-ones for the default.
        pub pfn: u64,
        /// In: address of frames (`u64`).
        pub pfn_list: u64,
        /// In: address of rights (`u8`).
        pub access_list: u64,
    }

    /// `XENMEM_sharing_op`: sharing of pages. `u` depends on the operation.
    pub struct MemSharingOp ["struct xen_mem_sharing_op"] {
        /// In: `XENMEM_SHARING_OP_*`.
        pub op: u8,
        /// Padding.
        pub _pad0: u8,
        /// In: the domain.
        pub domain: u16,
        /// Padding.
        pub _pad1: u32,
        /// In and out: [`MemSharingOpNominate`], [`MemSharingOpShare`], [`MemSharingOpRange`], [`MemSharingOpDebug`] or
        /// [`MemSharingOpFork`].
        pub u: [u64; 5],
    }

    /// Marks a frame or a grant.
    pub struct MemSharingOpNominate ["struct mem_sharing_op_nominate"] {
        /// In: guest frame, or grant reference (32 bits).
        pub u: u64,
        /// Out: names it.
        pub handle: u64,
    }

    /// Shares two pages.
    pub struct MemSharingOpShare ["struct mem_sharing_op_share"] {
        /// In: the source's frame.
        pub source_gfn: u64,
        /// In: the source's handle.
        pub source_handle: u64,
        /// In: the client's frame.
        pub client_gfn: u64,
        /// In: the client's handle.
        pub client_handle: u64,
        /// In: the client.
        pub client_domain: u16,
        /// Padding.
        pub _pad0: [u16; 3],
    }

    /// Shares a range of frames.
    pub struct MemSharingOpRange ["struct mem_sharing_op_range"] {
        /// In: first frame.
        pub first_gfn: u64,
        /// In: last frame.
        pub last_gfn: u64,
        /// The hypervisor's own; 0 at first.
        pub opaque: u64,
        /// In: the client.
        pub client_domain: u16,
        /// Padding.
        pub _pad0: [u16; 3],
    }

    /// Prints a page.
    pub struct MemSharingOpDebug ["struct mem_sharing_op_debug"] {
        /// In: guest frame, machine frame or grant reference.
        pub u: u64,
    }

    /// Makes a domain the copy of another.
    pub struct MemSharingOpFork ["struct mem_sharing_op_fork"] {
        /// In: the original.
        pub parent_domain: u16,
        /// In: `XENMEM_FORK_*`.
        pub flags: u16,
        /// Zero.
        pub pad: u32,
    }

    /// Memory that a device reserves.
    pub struct ReservedDeviceMemory ["struct xen_reserved_device_memory"] {
        /// First frame.
        pub start_pfn: u64,
        /// Number of pages.
        pub nr_pages: u64,
    }

    /// `XENMEM_reserved_device_memory_map`: memory that devices reserve.
    pub struct ReservedDeviceMemoryMap ["struct xen_reserved_device_memory_map"] {
        /// In: 0 or [`XENMEM_RDM_ALL`].
        pub flags: u32,
        /// In: room in the buffer. Out: number of [`ReservedDeviceMemory`].
        pub nr_entries: u32,
        /// In: address of the buffer.
        pub buffer: u64,
        /// In: the device.
        pub dev: PhysdevPciDevice,
        /// Padding.
        pub _pad0: u32,
    }

    /// `XENMEM_acquire_resource`: frames of something the hypervisor keeps for a domain.
    pub struct MemAcquireResource ["struct xen_mem_acquire_resource"] {
        /// In: the domain.
        pub domid: u16,
        /// In: `XENMEM_RESOURCE_*`.
        pub type_ ["type"]: u16,
        /// In: which one of that type.
        pub id: u32,
        /// In: number of frames; 0 asks. Out: how many there are, when asked.
        pub nr_frames: u32,
        /// Zero.
        pub pad: u32,
        /// In: first frame of the resource.
        pub frame: u64,
        /// In and out: address of a list of frames (`u64`): filled for PV callers, mapped at for translated ones.
        pub frame_list: u64,
    }

    /// A range of a virtual NUMA node.
    pub struct Vmemrange ["struct xen_vmemrange"] {
        /// First byte.
        pub start: u64,
        /// Byte after it.
        pub end: u64,
        /// Zero.
        pub flags: u32,
        /// Virtual node.
        pub nid: u32,
    }

    /// `XENMEM_get_vnumainfo`: the virtual NUMA topology.
    pub struct VnumaTopologyInfo ["struct xen_vnuma_topology_info"] {
        /// In: the domain.
        pub domid: u16,
        /// Zero.
        pub pad: u16,
        /// In: room. Out: number of virtual nodes.
        pub nr_vnodes: u32,
        /// In: room. Out: number of vCPUs.
        pub nr_vcpus: u32,
        /// In: room. Out: number of ranges.
        pub nr_vmemranges: u32,
        /// In: address of distances (`u32`), a square.
        pub vdistance: u64,
        /// In: address of each vCPU's node (`u32`).
        pub vcpu_to_vnode: u64,
        /// In: address of [`Vmemrange`]s.
        pub vmemrange: u64,
    }
}

/// An entry of a memory map in the form of the BIOS call E820; packed to 20 bytes.
///
/// Xen: `struct e820entry` as `XENMEM_memory_map` describes it in `public/memory.h`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct E820Entry {
    /// First byte.
    pub addr: u64,
    /// Number of bytes.
    pub size: u64,
    /// `E820_*`.
    pub type_: u32,
}

/// Memory to use.
pub const E820_RAM: u32 = 1;
/// Memory not to use.
pub const E820_RESERVED: u32 = 2;
/// ACPI tables; memory to use once read.
pub const E820_ACPI: u32 = 3;
/// ACPI memory to keep.
pub const E820_NVS: u32 = 4;
/// Faulty memory.
pub const E820_UNUSABLE: u32 = 5;

impl E820Entry {
    /// Bytes of an entry on the wire.
    pub const WIRE_SIZE: usize = 20;

    /// The entry as it is on the wire.
    pub fn to_bytes(self) -> [u8; Self::WIRE_SIZE] {
        let mut out = [0; Self::WIRE_SIZE];
        out[..8].copy_from_slice(&self.addr.to_le_bytes());
        out[8..16].copy_from_slice(&self.size.to_le_bytes());
        out[16..].copy_from_slice(&self.type_.to_le_bytes());
        out
    }

    /// The entry that these bytes are.
    pub fn from_bytes(bytes: &[u8; Self::WIRE_SIZE]) -> E820Entry {
        let word = |at: usize| {
            let mut word = [0; 8];
            word.copy_from_slice(&bytes[at..at + 8]);
            u64::from_le_bytes(word)
        };
        let [.., t0, t1, t2, t3] = *bytes;
        E820Entry { addr: word(0), size: word(8), type_: u32::from_le_bytes([t0, t1, t2, t3]) }
    }
}

/// `mem_flags`: addresses of at most `bits` bits; 0 for any.
///
/// Xen: `XENMEMF_address_bits` in `public/memory.h`.
pub const fn xenmemf_address_bits(bits: u32) -> u32 {
    bits
}

/// The address width in `mem_flags`.
///
/// Xen: `XENMEMF_get_address_bits` in `public/memory.h`.
pub const fn xenmemf_get_address_bits(mem_flags: u32) -> u32 {
    mem_flags & 0xff
}

/// `mem_flags`: preferably from this NUMA node.
///
/// Xen: `XENMEMF_node` in `public/memory.h`.
pub const fn xenmemf_node(node: u32) -> u32 {
    node.wrapping_add(1) << 8
}

/// The NUMA node in `mem_flags`; 255 for none.
///
/// Xen: `XENMEMF_get_node` in `public/memory.h`.
pub const fn xenmemf_get_node(mem_flags: u32) -> u32 {
    (mem_flags >> 8).wrapping_sub(1) & 0xff
}
