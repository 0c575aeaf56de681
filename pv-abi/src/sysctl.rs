//! Control of the machine, for the toolstack: what it has, which domains there are, what the hypervisor printed.
//!
//! `HYPERVISOR_sysctl(op)`: `op` is the address of a [`Sysctl`], a frame of command and version with the command's own struct
//! in its last 128 bytes. The call returns 0 or a negated errno; "out" fields are written back into the same struct. A
//! caller whose version differs is refused with `EACCES`.
//!
//! The structs are in submodules by what they are about and are all re-exported here. Live patching, cache monitoring and
//! the fixed time table have numbers here but no structs.
//!
//! Xen: `public/sysctl.h`.

pub(crate) mod cpu;
pub(crate) mod machine;
pub(crate) mod trace;

use crate::layout::{constants, structs};
use crate::payload::payload;

pub use cpu::*;
pub use machine::*;
pub use trace::*;

constants! {
    header "sysctl.h";
    /// What [`Sysctl::interface_version`] must be.
    pub const XEN_SYSCTL_INTERFACE_VERSION: u32 = 0x15;

    /// Reads what the hypervisor printed; see [`SysctlReadconsole`].
    pub const XEN_SYSCTL_READCONSOLE [XEN_SYSCTL_readconsole]: u32 = 1;
    /// Trace buffers; see [`SysctlTbufOp`].
    pub const XEN_SYSCTL_TBUF_OP [XEN_SYSCTL_tbuf_op]: u32 = 2;
    /// Tells what the machine has; see [`SysctlPhysinfo`].
    pub const XEN_SYSCTL_PHYSINFO [XEN_SYSCTL_physinfo]: u32 = 3;
    /// Tells which scheduler is the default; see [`SysctlSchedId`].
    pub const XEN_SYSCTL_SCHED_ID [XEN_SYSCTL_sched_id]: u32 = 4;
    /// Counters; see [`SysctlPerfcOp`].
    pub const XEN_SYSCTL_PERFC_OP [XEN_SYSCTL_perfc_op]: u32 = 5;
    /// Tells about domains; see [`SysctlGetdomaininfolist`].
    pub const XEN_SYSCTL_GETDOMAININFOLIST [XEN_SYSCTL_getdomaininfolist]: u32 = 6;
    /// Types keys at the hypervisor's console; see [`SysctlDebugKeys`].
    pub const XEN_SYSCTL_DEBUG_KEYS [XEN_SYSCTL_debug_keys]: u32 = 7;
    /// Tells how long CPUs were idle; see [`SysctlGetcpuinfo`].
    pub const XEN_SYSCTL_GETCPUINFO [XEN_SYSCTL_getcpuinfo]: u32 = 8;
    /// Tells how much memory is free; see [`SysctlAvailheap`].
    pub const XEN_SYSCTL_AVAILHEAP [XEN_SYSCTL_availheap]: u32 = 9;
    /// Tells the use of power states; see [`SysctlGetPmstat`].
    pub const XEN_SYSCTL_GET_PMSTAT [XEN_SYSCTL_get_pmstat]: u32 = 10;
    /// Brings CPUs up and down; see [`SysctlCpuHotplug`].
    pub const XEN_SYSCTL_CPU_HOTPLUG [XEN_SYSCTL_cpu_hotplug]: u32 = 11;
    /// Power; see [`SysctlPmOp`].
    pub const XEN_SYSCTL_PM_OP [XEN_SYSCTL_pm_op]: u32 = 12;
    /// Takes pages out of use; see [`SysctlPageOfflineOp`].
    pub const XEN_SYSCTL_PAGE_OFFLINE_OP [XEN_SYSCTL_page_offline_op]: u32 = 14;
    /// Cost of locks; see [`SysctlLockprofOp`].
    pub const XEN_SYSCTL_LOCKPROF_OP [XEN_SYSCTL_lockprof_op]: u32 = 15;
    /// Tells where the CPUs are; see [`SysctlCputopoinfo`].
    pub const XEN_SYSCTL_CPUTOPOINFO [XEN_SYSCTL_cputopoinfo]: u32 = 16;
    /// Tells about NUMA nodes; see [`SysctlNumainfo`].
    pub const XEN_SYSCTL_NUMAINFO [XEN_SYSCTL_numainfo]: u32 = 17;
    /// Pools of CPUs; see [`SysctlCpupoolOp`].
    pub const XEN_SYSCTL_CPUPOOL_OP [XEN_SYSCTL_cpupool_op]: u32 = 18;
    /// Parameters of schedulers; see [`SysctlSchedulerOp`].
    pub const XEN_SYSCTL_SCHEDULER_OP [XEN_SYSCTL_scheduler_op]: u32 = 19;
    /// Coverage data; see [`SysctlCoverageOp`].
    pub const XEN_SYSCTL_COVERAGE_OP [XEN_SYSCTL_coverage_op]: u32 = 20;
    /// Cache monitoring.
    pub const XEN_SYSCTL_PSR_CMT_OP [XEN_SYSCTL_psr_cmt_op]: u32 = 21;
    /// Tells where devices are; see [`SysctlPcitopoinfo`].
    pub const XEN_SYSCTL_PCITOPOINFO [XEN_SYSCTL_pcitopoinfo]: u32 = 22;
    /// Division of caches.
    pub const XEN_SYSCTL_PSR_ALLOC [XEN_SYSCTL_psr_alloc]: u32 = 23;
    /// Tells which features can be hidden; see [`SysctlCpuLevellingCaps`].
    pub const XEN_SYSCTL_GET_CPU_LEVELLING_CAPS [XEN_SYSCTL_get_cpu_levelling_caps]: u32 = 25;
    /// Tells feature words; see [`SysctlCpuFeatureset`].
    pub const XEN_SYSCTL_GET_CPU_FEATURESET [XEN_SYSCTL_get_cpu_featureset]: u32 = 26;
    /// Live patches.
    pub const XEN_SYSCTL_LIVEPATCH_OP [XEN_SYSCTL_livepatch_op]: u32 = 27;
    /// Tells a CPUID and MSR policy; see [`SysctlCpuPolicy`].
    pub const XEN_SYSCTL_GET_CPU_POLICY [XEN_SYSCTL_get_cpu_policy]: u32 = 29;
}

structs! {
    header "sysctl.h";

    /// `XEN_SYSCTL_getdomaininfolist`: what domains there are.
    pub struct SysctlGetdomaininfolist ["struct xen_sysctl_getdomaininfolist"] {
        /// In: the lowest number.
        pub first_domain: u16,
        /// Padding.
        pub _pad0: u16,
        /// In: room.
        pub max_domains: u32,
        /// In: address of [`DomctlGetdomaininfo`](crate::domctl::DomctlGetdomaininfo)s.
        pub buffer: u64,
        /// Out: number.
        pub num_domains: u32,
        /// Padding.
        pub _pad1: u32,
    }

    /// The frame of every operation.
    #[repr(align(8))]
    pub struct Sysctl ["struct xen_sysctl"] {
        /// In: `XEN_SYSCTL_*`.
        pub cmd: u32,
        /// In: [`XEN_SYSCTL_INTERFACE_VERSION`].
        pub interface_version: u32,
        /// The command's own struct, in its first bytes.
        pub u: [u8; 128],
    }
}

payload!(Sysctl, 128);

impl Sysctl {
    /// A command without a struct of its own, or with one of zeros.
    pub fn new(cmd: u32) -> Sysctl {
        Sysctl { cmd, interface_version: XEN_SYSCTL_INTERFACE_VERSION, ..Sysctl::default() }
    }

    /// A command with its own struct.
    pub fn with<T: zerocopy::IntoBytes + zerocopy::Immutable>(cmd: u32, payload: &T) -> Sysctl {
        let mut operation = Sysctl::new(cmd);
        operation.set_payload(payload);
        operation
    }
}
