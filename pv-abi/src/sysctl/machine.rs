//! What the machine has: CPUs, memory, NUMA nodes, devices.
//!
//! Xen: `public/sysctl.h`.

use crate::layout::{constants, structs};

constants! {
    header "sysctl.h";
    /// `physinfo`: HVM guests can run.
    pub const XEN_SYSCTL_PHYSCAP_HVM [XEN_SYSCTL_PHYSCAP_hvm]: u32 = 1 << 0;
    /// `physinfo`: PV guests can run.
    pub const XEN_SYSCTL_PHYSCAP_PV [XEN_SYSCTL_PHYSCAP_pv]: u32 = 1 << 1;
    /// `physinfo`: devices can be given away behind an IOMMU.
    pub const XEN_SYSCTL_PHYSCAP_DIRECTIO [XEN_SYSCTL_PHYSCAP_directio]: u32 = 1 << 2;
    /// `physinfo`: paging by hardware.
    pub const XEN_SYSCTL_PHYSCAP_HAP [XEN_SYSCTL_PHYSCAP_hap]: u32 = 1 << 3;
    /// `physinfo`: shadow paging.
    pub const XEN_SYSCTL_PHYSCAP_SHADOW [XEN_SYSCTL_PHYSCAP_shadow]: u32 = 1 << 4;
    /// `physinfo`: the IOMMU can use the CPU's tables.
    pub const XEN_SYSCTL_PHYSCAP_IOMMU_HAP_PT_SHARE [XEN_SYSCTL_PHYSCAP_iommu_hap_pt_share]: u32 = 1 << 5;
    /// `physinfo`: hardware traces.
    pub const XEN_SYSCTL_PHYSCAP_VMTRACE [XEN_SYSCTL_PHYSCAP_vmtrace]: u32 = 1 << 6;
    /// `physinfo`: performance counters for guests.
    pub const XEN_SYSCTL_PHYSCAP_VPMU [XEN_SYSCTL_PHYSCAP_vpmu]: u32 = 1 << 7;
    /// `physinfo`: grant tables of version 1.
    pub const XEN_SYSCTL_PHYSCAP_GNTTAB_V1 [XEN_SYSCTL_PHYSCAP_gnttab_v1]: u32 = 1 << 8;
    /// `physinfo`: grant tables of version 2.
    pub const XEN_SYSCTL_PHYSCAP_GNTTAB_V2 [XEN_SYSCTL_PHYSCAP_gnttab_v2]: u32 = 1 << 9;
    /// The highest capability of `physinfo`.
    pub const XEN_SYSCTL_PHYSCAP_MAX: u32 = XEN_SYSCTL_PHYSCAP_GNTTAB_V2;

    /// `cputopoinfo`: no such core.
    pub const XEN_INVALID_CORE_ID: u32 = !0;
    /// `cputopoinfo`: no such socket.
    pub const XEN_INVALID_SOCKET_ID: u32 = !0;
    /// `cputopoinfo`, `pcitopoinfo`: no such node.
    pub const XEN_INVALID_NODE_ID: u32 = !0;
    /// `numainfo`: no such node; 32 bits in a 64-bit field.
    pub const XEN_INVALID_MEM_SZ: u32 = !0;
    /// `numainfo`: no such distance.
    pub const XEN_INVALID_NODE_DIST: u32 = !0;
    /// `pcitopoinfo`: no such device.
    pub const XEN_INVALID_DEV: u32 = XEN_INVALID_NODE_ID - 1;

    /// `page_offline_op`: takes pages out of use.
    pub const SYSCTL_PAGE_OFFLINE [sysctl_page_offline]: u32 = 1;
    /// `page_offline_op`: takes pages back into use.
    pub const SYSCTL_PAGE_ONLINE [sysctl_page_online]: u32 = 2;
    /// `page_offline_op`: asks.
    pub const SYSCTL_QUERY_PAGE_OFFLINE [sysctl_query_page_offline]: u32 = 3;
    /// `page_offline_op`: mask of the result.
    pub const PG_OFFLINE_STATUS_MASK: u64 = 0xff;
    /// `page_offline_op`: not done.
    pub const PG_OFFLINE_INVALID: u64 = 1 << 0;
    /// `page_offline_op`: out of use.
    pub const PG_OFFLINE_OFFLINED: u64 = 1 << 1;
    /// `page_offline_op`: out of use once it is free.
    pub const PG_OFFLINE_PENDING: u64 = 1 << 2;
    /// `page_offline_op`: failed.
    pub const PG_OFFLINE_FAILED: u64 = 1 << 3;
    /// `page_offline_op`: to be asked again.
    pub const PG_OFFLINE_AGAIN: u64 = 1 << 4;
    /// `page_offline_op`, query: out of use.
    pub const PG_OFFLINE_STATUS_OFFLINED: u64 = 1 << 1;
    /// `page_offline_op`, query: in use.
    pub const PG_OFFLINE_STATUS_ONLINE: u64 = 1 << 2;
    /// `page_offline_op`, query: out of use once it is free.
    pub const PG_OFFLINE_STATUS_OFFLINE_PENDING: u64 = 1 << 3;
    /// `page_offline_op`, query: broken.
    pub const PG_OFFLINE_STATUS_BROKEN: u64 = 1 << 4;
    /// `page_offline_op`: mask of what else there is.
    pub const PG_OFFLINE_MISC_MASK: u64 = 0xff << 4;
    /// `page_offline_op`: the hypervisor's.
    pub const PG_OFFLINE_XENPAGE: u64 = 1 << 8;
    /// `page_offline_op`: the first domain's.
    pub const PG_OFFLINE_DOM0PAGE: u64 = 1 << 9;
    /// `page_offline_op`: nobody's.
    pub const PG_OFFLINE_ANONYMOUS: u64 = 1 << 10;
    /// `page_offline_op`: no memory.
    pub const PG_OFFLINE_NOT_CONV_RAM: u64 = 1 << 11;
    /// `page_offline_op`: a domain's; which is in the upper bits.
    pub const PG_OFFLINE_OWNED: u64 = 1 << 12;
    /// `page_offline_op`: broken.
    pub const PG_OFFLINE_BROKEN: u64 = 1 << 13;
    /// `page_offline_op`: where the owner is.
    pub const PG_OFFLINE_OWNER_SHIFT: u32 = 16;
}

structs! {
    header "sysctl.h";

    /// `XEN_SYSCTL_physinfo`: the machine as a whole.
    pub struct SysctlPhysinfo ["struct xen_sysctl_physinfo"] {
        /// Out: threads of a core.
        pub threads_per_core: u32,
        /// Out: cores of a socket.
        pub cores_per_socket: u32,
        /// Out: CPUs that are up.
        pub nr_cpus: u32,
        /// Out: the highest CPU number.
        pub max_cpu_id: u32,
        /// Out: NUMA nodes.
        pub nr_nodes: u32,
        /// Out: the highest node number.
        pub max_node_id: u32,
        /// Out: frequency of the CPU in kHz.
        pub cpu_khz: u32,
        /// Out: `XEN_SYSCTL_PHYSCAP_*`.
        pub capabilities: u32,
        /// Out: 0 on x86.
        pub arch_capabilities: u32,
        /// Zero.
        pub pad: u32,
        /// Out: pages of memory.
        pub total_pages: u64,
        /// Out: free ones.
        pub free_pages: u64,
        /// Out: ones to be cleared.
        pub scrub_pages: u64,
        /// Out: ones claimed and not yet had.
        pub outstanding_pages: u64,
        /// Out: the highest machine frame.
        pub max_mfn: u64,
        /// Out: feature words of CPUID.
        pub hw_cap: [u32; 8],
    }

    /// An element of `getcpuinfo`.
    pub struct SysctlCpuinfo ["struct xen_sysctl_cpuinfo"] {
        /// Nanoseconds the CPU was idle.
        pub idletime: u64,
    }

    /// `XEN_SYSCTL_getcpuinfo`: idle times.
    pub struct SysctlGetcpuinfo ["struct xen_sysctl_getcpuinfo"] {
        /// In: room.
        pub max_cpus: u32,
        /// Padding.
        pub _pad0: u32,
        /// In: address of [`SysctlCpuinfo`]s.
        pub info: u64,
        /// Out: number.
        pub nr_cpus: u32,
        /// Padding.
        pub _pad1: u32,
    }

    /// `XEN_SYSCTL_availheap`: free memory.
    pub struct SysctlAvailheap ["struct xen_sysctl_availheap"] {
        /// In: at least so many address bits; 0 for any.
        pub min_bitwidth: u32,
        /// In: at most so many address bits; 0 for any.
        pub max_bitwidth: u32,
        /// In: NUMA node; -1 for all.
        pub node: i32,
        /// Padding.
        pub _pad0: u32,
        /// Out: bytes.
        pub avail_bytes: u64,
    }

    /// An element of `cputopoinfo`.
    pub struct SysctlCputopo ["struct xen_sysctl_cputopo"] {
        /// Core in the socket.
        pub core: u32,
        /// Socket.
        pub socket: u32,
        /// NUMA node.
        pub node: u32,
    }

    /// `XEN_SYSCTL_cputopoinfo`: where the CPUs are.
    pub struct SysctlCputopoinfo ["struct xen_sysctl_cputopoinfo"] {
        /// In: room. Out: number.
        pub num_cpus: u32,
        /// Padding.
        pub _pad0: u32,
        /// In: address of [`SysctlCputopo`]s; 0 asks for the number.
        pub cputopo: u64,
    }

    /// An element of `numainfo`.
    pub struct SysctlMeminfo ["struct xen_sysctl_meminfo"] {
        /// Bytes of the node.
        pub memsize: u64,
        /// Free ones.
        pub memfree: u64,
    }

    /// `XEN_SYSCTL_numainfo`: NUMA nodes.
    pub struct SysctlNumainfo ["struct xen_sysctl_numainfo"] {
        /// In: room. Out: number.
        pub num_nodes: u32,
        /// Padding.
        pub _pad0: u32,
        /// In: address of [`SysctlMeminfo`]s, or 0.
        pub meminfo: u64,
        /// In: address of distances (`u32`), a square with the number that comes out as its side, or 0.
        pub distance: u64,
    }

    /// `XEN_SYSCTL_pcitopoinfo`: where the devices are.
    pub struct SysctlPcitopoinfo ["struct xen_sysctl_pcitopoinfo"] {
        /// In: number. Out: how many were done.
        pub num_devs: u32,
        /// Padding.
        pub _pad0: u32,
        /// In: address of [`PhysdevPciDevice`](crate::physdev::PhysdevPciDevice)s.
        pub devs: u64,
        /// In: address of nodes (`u32`).
        pub nodes: u64,
    }

    /// `XEN_SYSCTL_page_offline_op`: pages that are broken.
    pub struct SysctlPageOfflineOp ["struct xen_sysctl_page_offline_op"] {
        /// In: `SYSCTL_*_OFFLINE`.
        pub cmd: u32,
        /// In: first frame.
        pub start: u32,
        /// In: last frame.
        pub end: u32,
        /// Padding.
        pub _pad0: u32,
        /// In: address of results (`u32`): flags in the lower half, owner in the upper.
        pub status: u64,
    }
}
