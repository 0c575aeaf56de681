//! Which CPUs a domain gets, and how much of them.
//!
//! Xen: `public/domctl.h`.

use crate::layout::{constants, structs};
use crate::payload::payload;
use crate::xen::CtlBitmap;

constants! {
    header "domctl.h";
    /// The hard affinity: where the vCPU may run.
    pub const XEN_VCPUAFFINITY_HARD: u32 = 1 << 0;
    /// The soft affinity: where it runs best.
    pub const XEN_VCPUAFFINITY_SOFT: u32 = 1 << 1;
    /// Undoes a pin that the guest asked for.
    pub const XEN_VCPUAFFINITY_FORCE: u32 = 1 << 2;

    /// The credit scheduler.
    pub const XEN_SCHEDULER_CREDIT: u32 = 5;
    /// The second credit scheduler.
    pub const XEN_SCHEDULER_CREDIT2: u32 = 6;
    /// A fixed time table, as avionics has it.
    pub const XEN_SCHEDULER_ARINC653: u32 = 7;
    /// Real-time servers by deadline.
    pub const XEN_SCHEDULER_RTDS: u32 = 8;
    /// A CPU for each vCPU.
    pub const XEN_SCHEDULER_NULL: u32 = 9;
    /// `rtds`: may run beyond its budget.
    pub const XEN_DOMCTL_SCHEDRT_EXTRA [XEN_DOMCTL_SCHEDRT_extra]: u32 = 1;
    /// `scheduler_op`: sets a domain's parameters.
    pub const XEN_DOMCTL_SCHEDOP_PUTINFO [XEN_DOMCTL_SCHEDOP_putinfo]: u32 = 0;
    /// `scheduler_op`: tells a domain's parameters.
    pub const XEN_DOMCTL_SCHEDOP_GETINFO [XEN_DOMCTL_SCHEDOP_getinfo]: u32 = 1;
    /// `scheduler_op`: sets parameters of vCPUs.
    pub const XEN_DOMCTL_SCHEDOP_PUTVCPUINFO [XEN_DOMCTL_SCHEDOP_putvcpuinfo]: u32 = 2;
    /// `scheduler_op`: tells parameters of vCPUs.
    pub const XEN_DOMCTL_SCHEDOP_GETVCPUINFO [XEN_DOMCTL_SCHEDOP_getvcpuinfo]: u32 = 3;
}

structs! {
    header "domctl.h";

    /// `XEN_DOMCTL_{set,get}nodeaffinity`: NUMA nodes.
    pub struct DomctlNodeaffinity ["struct xen_domctl_nodeaffinity"] {
        /// The nodes.
        pub nodemap: CtlBitmap,
    }

    /// `XEN_DOMCTL_{set,get}vcpuaffinity`: CPUs of a vCPU.
    pub struct DomctlVcpuaffinity ["struct xen_domctl_vcpuaffinity"] {
        /// In: the vCPU.
        pub vcpu: u32,
        /// In: `XEN_VCPUAFFINITY_*`.
        pub flags: u32,
        /// In of a set: CPUs. Out: those of them that it got.
        pub cpumap_hard: CtlBitmap,
        /// In of a set: CPUs. Out: those of them that it got.
        pub cpumap_soft: CtlBitmap,
    }

    /// Parameters of the credit scheduler.
    pub struct DomctlSchedCredit ["struct xen_domctl_sched_credit"] {
        /// Share against other domains; 256 is usual.
        pub weight: u16,
        /// Limit in hundredths of a CPU; 0 for none.
        pub cap: u16,
    }

    /// Parameters of the second credit scheduler.
    pub struct DomctlSchedCredit2 ["struct xen_domctl_sched_credit2"] {
        /// Share against other domains; 256 is usual.
        pub weight: u16,
        /// Limit in hundredths of a CPU; 0 for none.
        pub cap: u16,
    }

    /// Parameters of the real-time scheduler.
    pub struct DomctlSchedRtds ["struct xen_domctl_sched_rtds"] {
        /// Period in microseconds.
        pub period: u32,
        /// Time in each period, in microseconds.
        pub budget: u32,
        /// [`XEN_DOMCTL_SCHEDRT_EXTRA`].
        pub flags: u32,
    }

    /// Parameters of a vCPU. `u` is [`DomctlSchedCredit`], [`DomctlSchedCredit2`] or [`DomctlSchedRtds`].
    #[repr(align(4))]
    pub struct DomctlSchedparamVcpu ["struct xen_domctl_schedparam_vcpu"] {
        /// Parameters by scheduler.
        pub u: [u8; 12],
        /// The vCPU.
        pub vcpuid: u32,
    }

    /// Where [`DomctlSchedparamVcpu`]s are.
    pub struct DomctlSchedulerOpV ["struct xen_domctl_scheduler_op.u.v"] {
        /// In: their address.
        pub vcpus: u64,
        /// In: their number. Out: how many were done.
        pub nr_vcpus: u32,
        /// Zero.
        pub padding: u32,
    }

    /// `XEN_DOMCTL_scheduler_op`: parameters of a domain's scheduler. `u` is [`DomctlSchedCredit`],
    /// [`DomctlSchedCredit2`], [`DomctlSchedRtds`] or [`DomctlSchedulerOpV`].
    #[repr(align(8))]
    pub struct DomctlSchedulerOp ["struct xen_domctl_scheduler_op"] {
        /// In: `XEN_SCHEDULER_*`, as the domain's pool has it.
        pub sched_id: u32,
        /// In: `XEN_DOMCTL_SCHEDOP_*`.
        pub cmd: u32,
        /// Parameters by scheduler.
        pub u: [u8; 16],
    }
}

payload!(DomctlSchedparamVcpu, 12);
payload!(DomctlSchedulerOp, 16);
