//! A domain's frames: their types, the log of dirty ones, shared and broken ones, NUMA.
//!
//! Xen: `public/domctl.h`.

use crate::layout::{constants, structs};

constants! {
    header "domctl.h";
    /// `getpageframeinfo3`: where the type is in an element.
    pub const XEN_DOMCTL_PFINFO_LTAB_SHIFT: u32 = 28;
    /// `getpageframeinfo3`: no table.
    pub const XEN_DOMCTL_PFINFO_NOTAB: u32 = 0;
    /// `getpageframeinfo3`: an L1 table.
    pub const XEN_DOMCTL_PFINFO_L1TAB: u32 = 1 << 28;
    /// `getpageframeinfo3`: an L2 table.
    pub const XEN_DOMCTL_PFINFO_L2TAB: u32 = 2 << 28;
    /// `getpageframeinfo3`: an L3 table.
    pub const XEN_DOMCTL_PFINFO_L3TAB: u32 = 3 << 28;
    /// `getpageframeinfo3`: an L4 table.
    pub const XEN_DOMCTL_PFINFO_L4TAB: u32 = 4 << 28;
    /// `getpageframeinfo3`: mask of the level.
    pub const XEN_DOMCTL_PFINFO_LTABTYPE_MASK: u32 = 7 << 28;
    /// `getpageframeinfo3`: a table that is pinned.
    pub const XEN_DOMCTL_PFINFO_LPINTAB: u32 = 1 << 31;
    /// `getpageframeinfo3`: no such frame.
    pub const XEN_DOMCTL_PFINFO_XTAB: u32 = 0xf << 28;
    /// `getpageframeinfo3`: a frame without content.
    pub const XEN_DOMCTL_PFINFO_XALLOC: u32 = 0xe << 28;
    /// `getpageframeinfo3`: a broken frame.
    pub const XEN_DOMCTL_PFINFO_BROKEN: u32 = 0xd << 28;
    /// `getpageframeinfo3`: mask of the type.
    pub const XEN_DOMCTL_PFINFO_LTAB_MASK: u32 = 0xf << 28;

    /// `shadow_op`: switches off.
    pub const XEN_DOMCTL_SHADOW_OP_OFF: u32 = 0;
    /// `shadow_op`: switches on, with `XEN_DOMCTL_SHADOW_ENABLE_*`.
    pub const XEN_DOMCTL_SHADOW_OP_ENABLE: u32 = 32;
    /// `shadow_op`: fetches the log of dirty pages and clears it.
    pub const XEN_DOMCTL_SHADOW_OP_CLEAN: u32 = 11;
    /// `shadow_op`: fetches the log of dirty pages.
    pub const XEN_DOMCTL_SHADOW_OP_PEEK: u32 = 12;
    /// `shadow_op`: tells the pool's size.
    pub const XEN_DOMCTL_SHADOW_OP_GET_ALLOCATION: u32 = 30;
    /// `shadow_op`: sets the pool's size.
    pub const XEN_DOMCTL_SHADOW_OP_SET_ALLOCATION: u32 = 31;
    /// `shadow_op`: switches on without a mode.
    pub const XEN_DOMCTL_SHADOW_OP_ENABLE_TEST: u32 = 1;
    /// `shadow_op`: switches on with the log of dirty pages.
    pub const XEN_DOMCTL_SHADOW_OP_ENABLE_LOGDIRTY: u32 = 2;
    /// Mode: the guest need not tell of its page tables.
    pub const XEN_DOMCTL_SHADOW_ENABLE_REFCOUNT: u32 = 1 << 1;
    /// Mode: writes are logged.
    pub const XEN_DOMCTL_SHADOW_ENABLE_LOG_DIRTY: u32 = 1 << 2;
    /// Mode: the guest does not see machine frames.
    pub const XEN_DOMCTL_SHADOW_ENABLE_TRANSLATE: u32 = 1 << 3;
    /// Mode: the hypervisor is not in the guest's address space.
    pub const XEN_DOMCTL_SHADOW_ENABLE_EXTERNAL: u32 = 1 << 4;
    /// `CLEAN`, `PEEK`: with the pages that the hypervisor itself writes.
    pub const XEN_DOMCTL_SHADOW_LOGDIRTY_FINAL: u32 = 1 << 0;

    /// `mem_sharing_op`: on and off.
    pub const XEN_DOMCTL_MEM_SHARING_CONTROL: u32 = 0;
}

structs! {
    header "domctl.h";

    /// `XEN_DOMCTL_getpageframeinfo3`: types of frames.
    pub struct DomctlGetpageframeinfo3 ["struct xen_domctl_getpageframeinfo3"] {
        /// In: number of elements.
        pub num: u64,
        /// In: address of frames (`u64`). Out: the type of each, `XEN_DOMCTL_PFINFO_*`.
        pub array: u64,
    }

    /// Counts of the log of dirty pages.
    pub struct DomctlShadowOpStats ["struct xen_domctl_shadow_op_stats"] {
        /// Page faults.
        pub fault_count: u32,
        /// Dirty pages.
        pub dirty_count: u32,
    }

    /// `XEN_DOMCTL_shadow_op`: shadow page tables.
    pub struct DomctlShadowOp ["struct xen_domctl_shadow_op"] {
        /// In: `XEN_DOMCTL_SHADOW_OP_*`.
        pub op: u32,
        /// In: `XEN_DOMCTL_SHADOW_ENABLE_*` or `XEN_DOMCTL_SHADOW_LOGDIRTY_*`.
        pub mode: u32,
        /// In and out: MiB of the pool.
        pub mb: u32,
        /// Padding.
        pub _pad0: u32,
        /// In: address of a bitmap, or 0.
        pub dirty_bitmap: u64,
        /// In: pages the bitmap has room for. Out: pages it covers.
        pub pages: u64,
        /// Out: counts.
        pub stats: DomctlShadowOpStats,
    }

    /// `XEN_DOMCTL_mem_sharing_op`: page sharing.
    pub struct DomctlMemSharingOp ["struct xen_domctl_mem_sharing_op"] {
        /// In: [`XEN_DOMCTL_MEM_SHARING_CONTROL`].
        pub op: u8,
        /// In: not 0 for on.
        pub enable ["u.enable"]: u8,
    }

    /// `XEN_DOMCTL_audit_p2m`: what does not agree.
    pub struct DomctlAuditP2m ["struct xen_domctl_audit_p2m"] {
        /// Out: pages without a place in the guest.
        pub orphans: u64,
        /// Out: wrong entries by machine frame.
        pub m2p_bad: u64,
        /// Out: wrong entries by guest frame.
        pub p2m_bad: u64,
    }

    /// `XEN_DOMCTL_set_broken_page_p2m`: a broken page.
    pub struct DomctlSetBrokenPageP2m ["struct xen_domctl_set_broken_page_p2m"] {
        /// In: guest frame.
        pub pfn: u64,
    }

    /// `XEN_DOMCTL_cacheflush`: a range of frames.
    pub struct DomctlCacheflush ["struct xen_domctl_cacheflush"] {
        /// In: first frame.
        pub start_pfn: u64,
        /// In: number.
        pub nr_pfns: u64,
    }

    /// `XEN_DOMCTL_{get,set}_paging_mempool_size`: the pool for page tables.
    pub struct DomctlPagingMempool ["struct xen_domctl_paging_mempool"] {
        /// Bytes.
        pub size: u64,
    }

    /// `XEN_DOMCTL_setvnumainfo`: the virtual NUMA topology.
    pub struct DomctlVnuma ["struct xen_domctl_vnuma"] {
        /// In: number of virtual nodes.
        pub nr_vnodes: u32,
        /// In: number of ranges.
        pub nr_vmemranges: u32,
        /// In: number of vCPUs.
        pub nr_vcpus: u32,
        /// Zero.
        pub pad: u32,
        /// In: address of distances (`u32`), a square.
        pub vdistance: u64,
        /// In: address of each vCPU's node (`u32`).
        pub vcpu_to_vnode: u64,
        /// In: address of each node's node of the machine (`u32`).
        pub vnode_to_pnode: u64,
        /// In: address of [`Vmemrange`](crate::memory::Vmemrange)s.
        pub vmemrange: u64,
    }
}
