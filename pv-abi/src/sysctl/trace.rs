//! What the hypervisor says and counts: console, trace buffers, counters, locks, coverage.
//!
//! Xen: `public/sysctl.h`.

use crate::layout::{constants, structs};
use crate::xen::CtlBitmap;

constants! {
    header "sysctl.h";
    /// `tbuf_op`: tells where the buffers are.
    pub const XEN_SYSCTL_TBUFOP_GET_INFO [XEN_SYSCTL_TBUFOP_get_info]: u32 = 0;
    /// `tbuf_op`: chooses CPUs.
    pub const XEN_SYSCTL_TBUFOP_SET_CPU_MASK [XEN_SYSCTL_TBUFOP_set_cpu_mask]: u32 = 1;
    /// `tbuf_op`: chooses events.
    pub const XEN_SYSCTL_TBUFOP_SET_EVT_MASK [XEN_SYSCTL_TBUFOP_set_evt_mask]: u32 = 2;
    /// `tbuf_op`: sets the size.
    pub const XEN_SYSCTL_TBUFOP_SET_SIZE [XEN_SYSCTL_TBUFOP_set_size]: u32 = 3;
    /// `tbuf_op`: on.
    pub const XEN_SYSCTL_TBUFOP_ENABLE [XEN_SYSCTL_TBUFOP_enable]: u32 = 4;
    /// `tbuf_op`: off.
    pub const XEN_SYSCTL_TBUFOP_DISABLE [XEN_SYSCTL_TBUFOP_disable]: u32 = 5;
    /// `perfc_op`: sets all to zero.
    pub const XEN_SYSCTL_PERFCOP_RESET [XEN_SYSCTL_PERFCOP_reset]: u32 = 1;
    /// `perfc_op`: reads.
    pub const XEN_SYSCTL_PERFCOP_QUERY [XEN_SYSCTL_PERFCOP_query]: u32 = 2;
    /// `lockprof_op`: sets all to zero.
    pub const XEN_SYSCTL_LOCKPROF_RESET [XEN_SYSCTL_LOCKPROF_reset]: u32 = 1;
    /// `lockprof_op`: reads.
    pub const XEN_SYSCTL_LOCKPROF_QUERY [XEN_SYSCTL_LOCKPROF_query]: u32 = 2;
    /// A lock that is there once.
    pub const LOCKPROF_TYPE_GLOBAL: u32 = 0;
    /// A lock of each domain.
    pub const LOCKPROF_TYPE_PERDOM: u32 = 1;
    /// Number of types of locks.
    pub const LOCKPROF_TYPE_N: u32 = 2;
    /// First word of coverage data.
    pub const XEN_GCOV_FORMAT_MAGIC: u32 = 0x5843_4f56;
    /// `coverage_op`: tells the size.
    pub const XEN_SYSCTL_COVERAGE_GET_SIZE [XEN_SYSCTL_COVERAGE_get_size]: u32 = 0;
    /// `coverage_op`: reads.
    pub const XEN_SYSCTL_COVERAGE_READ [XEN_SYSCTL_COVERAGE_read]: u32 = 1;
    /// `coverage_op`: sets all to zero.
    pub const XEN_SYSCTL_COVERAGE_RESET [XEN_SYSCTL_COVERAGE_reset]: u32 = 2;
}

structs! {
    header "sysctl.h";

    /// `XEN_SYSCTL_readconsole`: what the hypervisor printed.
    pub struct SysctlReadconsole ["struct xen_sysctl_readconsole"] {
        /// In: not 0 clears what was read.
        pub clear: u8,
        /// In: not 0 begins at `index`.
        pub incremental: u8,
        /// Zero.
        pub pad0: u8,
        /// Zero.
        pub pad1: u8,
        /// In: where to begin. Out: where to go on.
        pub index: u32,
        /// In: address of the buffer.
        pub buffer: u64,
        /// In: bytes of it. Out: bytes written.
        pub count: u32,
        /// Padding.
        pub _pad0: u32,
    }

    /// `XEN_SYSCTL_tbuf_op`: trace buffers.
    pub struct SysctlTbufOp ["struct xen_sysctl_tbuf_op"] {
        /// In: `XEN_SYSCTL_TBUFOP_*`.
        pub cmd: u32,
        /// Padding.
        pub _pad0: u32,
        /// In: CPUs.
        pub cpu_mask: CtlBitmap,
        /// In and out: events.
        pub evt_mask: u32,
        /// Padding.
        pub _pad1: u32,
        /// Out: first machine frame.
        pub buffer_mfn: u64,
        /// In and out: pages of a CPU's buffer; out of a query, bytes of the first part.
        pub size: u32,
        /// Padding.
        pub _pad2: u32,
    }

    /// The name of a counter.
    pub struct SysctlPerfcDesc ["struct xen_sysctl_perfc_desc"] {
        /// Zero-terminated.
        pub name: [u8; 80],
        /// Number of its values.
        pub nr_vals: u32,
    }

    /// `XEN_SYSCTL_perfc_op`: counters.
    pub struct SysctlPerfcOp ["struct xen_sysctl_perfc_op"] {
        /// In: `XEN_SYSCTL_PERFCOP_*`.
        pub cmd: u32,
        /// Out: number of counters.
        pub nr_counters: u32,
        /// Out: number of values.
        pub nr_vals: u32,
        /// Padding.
        pub _pad0: u32,
        /// In: address of [`SysctlPerfcDesc`]s, or 0.
        pub desc: u64,
        /// In: address of values (`u32`), or 0.
        pub val: u64,
    }

    /// `XEN_SYSCTL_debug_keys`: keys as if typed at the hypervisor's console.
    pub struct SysctlDebugKeys ["struct xen_sysctl_debug_keys"] {
        /// In: their address.
        pub keys: u64,
        /// In: their number.
        pub nr_keys: u32,
        /// Padding.
        pub _pad0: u32,
    }

    /// What a lock cost.
    pub struct SysctlLockprofData ["struct xen_sysctl_lockprof_data"] {
        /// Zero-terminated; `%d` stands for the index.
        pub name: [u8; 40],
        /// `LOCKPROF_TYPE_*`.
        pub type_ ["type"]: i32,
        /// Which.
        pub idx: i32,
        /// Times taken.
        pub lock_cnt: u64,
        /// Times waited for.
        pub block_cnt: u64,
        /// Nanoseconds held.
        pub lock_time: u64,
        /// Nanoseconds waited for.
        pub block_time: u64,
    }

    /// `XEN_SYSCTL_lockprof_op`: locks.
    pub struct SysctlLockprofOp ["struct xen_sysctl_lockprof_op"] {
        /// In: `XEN_SYSCTL_LOCKPROF_*`.
        pub cmd: u32,
        /// In: room.
        pub max_elem: u32,
        /// Out: number.
        pub nr_elem: u32,
        /// Padding.
        pub _pad0: u32,
        /// Out: nanoseconds of measurement.
        pub time: u64,
        /// In: address of [`SysctlLockprofData`]s, or 0.
        pub data: u64,
    }

    /// `XEN_SYSCTL_coverage_op`: coverage data.
    pub struct SysctlCoverageOp ["struct xen_sysctl_coverage_op"] {
        /// In: `XEN_SYSCTL_COVERAGE_*`.
        pub cmd: u32,
        /// In and out: bytes.
        pub size: u32,
        /// In: address of the buffer.
        pub buffer: u64,
    }
}
