//! Making a domain, its limits and what it tells about itself.
//!
//! Xen: `public/domctl.h`.

use crate::arch::ArchDomainconfig;
use crate::layout::{constants, structs};

constants! {
    header "domctl.h";
    /// `createdomain`: an HVM domain, not a PV one.
    pub const XEN_DOMCTL_CDF_HVM [XEN_DOMCTL_CDF_hvm]: u32 = 1 << 0;
    /// `createdomain`: paging by hardware where there is.
    pub const XEN_DOMCTL_CDF_HAP [XEN_DOMCTL_CDF_hap]: u32 = 1 << 1;
    /// `createdomain`: memory is checked after sleep, by the trusted boot.
    pub const XEN_DOMCTL_CDF_S3_INTEGRITY [XEN_DOMCTL_CDF_s3_integrity]: u32 = 1 << 2;
    /// `createdomain`: no out-of-sync shadow tables.
    pub const XEN_DOMCTL_CDF_OOS_OFF [XEN_DOMCTL_CDF_oos_off]: u32 = 1 << 3;
    /// `createdomain`: the domain of xenstore.
    pub const XEN_DOMCTL_CDF_XS_DOMAIN [XEN_DOMCTL_CDF_xs_domain]: u32 = 1 << 4;
    /// `createdomain`: may get devices behind an IOMMU.
    pub const XEN_DOMCTL_CDF_IOMMU [XEN_DOMCTL_CDF_iommu]: u32 = 1 << 5;
    /// `createdomain`: hardware virtualization inside.
    pub const XEN_DOMCTL_CDF_NESTED_VIRT [XEN_DOMCTL_CDF_nested_virt]: u32 = 1 << 6;
    /// `createdomain`: performance counters.
    pub const XEN_DOMCTL_CDF_VPMU [XEN_DOMCTL_CDF_vpmu]: u32 = 1 << 7;
    /// The highest flag of `createdomain`.
    pub const XEN_DOMCTL_CDF_MAX: u32 = XEN_DOMCTL_CDF_VPMU;
    /// `createdomain`: the IOMMU's tables are not shared with the CPU's.
    pub const XEN_DOMCTL_IOMMU_NO_SHAREPT [XEN_DOMCTL_IOMMU_no_sharept]: u32 = 1;
    /// The highest IOMMU option of `createdomain`.
    pub const XEN_DOMCTL_IOMMU_MAX: u32 = XEN_DOMCTL_IOMMU_NO_SHAREPT;
    /// `createdomain`: mask of the highest grant-table version in `grant_opts`.
    pub const XEN_DOMCTL_GRANT_VERSION_MASK [XEN_DOMCTL_GRANT_version_mask]: u32 = 0xf;

    /// `getdomaininfo`: being destroyed.
    pub const XEN_DOMINF_DYING [XEN_DOMINF_dying]: u32 = 1 << 0;
    /// `getdomaininfo`: an HVM domain.
    pub const XEN_DOMINF_HVM_GUEST [XEN_DOMINF_hvm_guest]: u32 = 1 << 1;
    /// `getdomaininfo`: has shut down; the reason is in the flags too.
    pub const XEN_DOMINF_SHUTDOWN [XEN_DOMINF_shutdown]: u32 = 1 << 2;
    /// `getdomaininfo`: paused by tools.
    pub const XEN_DOMINF_PAUSED [XEN_DOMINF_paused]: u32 = 1 << 3;
    /// `getdomaininfo`: all vCPUs wait for events.
    pub const XEN_DOMINF_BLOCKED [XEN_DOMINF_blocked]: u32 = 1 << 4;
    /// `getdomaininfo`: a vCPU is on a CPU.
    pub const XEN_DOMINF_RUNNING [XEN_DOMINF_running]: u32 = 1 << 5;
    /// `getdomaininfo`: being debugged.
    pub const XEN_DOMINF_DEBUGGED [XEN_DOMINF_debugged]: u32 = 1 << 6;
    /// `getdomaininfo`: the domain of xenstore.
    pub const XEN_DOMINF_XS_DOMAIN [XEN_DOMINF_xs_domain]: u32 = 1 << 7;
    /// `getdomaininfo`: paging by hardware.
    pub const XEN_DOMINF_HAP [XEN_DOMINF_hap]: u32 = 1 << 8;
    /// `getdomaininfo`: mask of the shutdown reason, after the shift.
    pub const XEN_DOMINF_SHUTDOWNMASK [XEN_DOMINF_shutdownmask]: u32 = 255;
    /// `getdomaininfo`: where the shutdown reason is in the flags.
    pub const XEN_DOMINF_SHUTDOWNSHIFT [XEN_DOMINF_shutdownshift]: u32 = 16;
    /// `getdomaininfo`: no vCPU yet.
    pub const XEN_INVALID_MAX_VCPU_ID: u32 = !0;

    /// `sendtrigger`: a non-maskable interrupt.
    pub const XEN_DOMCTL_SENDTRIGGER_NMI: u32 = 0;
    /// `sendtrigger`: a reset.
    pub const XEN_DOMCTL_SENDTRIGGER_RESET: u32 = 1;
    /// `sendtrigger`: an INIT.
    pub const XEN_DOMCTL_SENDTRIGGER_INIT: u32 = 2;
    /// `sendtrigger`: the power button.
    pub const XEN_DOMCTL_SENDTRIGGER_POWER: u32 = 3;
    /// `sendtrigger`: the sleep button.
    pub const XEN_DOMCTL_SENDTRIGGER_SLEEP: u32 = 4;
    /// A CPUID input that a leaf does not have.
    pub const XEN_CPUID_INPUT_UNUSED: u32 = 0xffff_ffff;
}

structs! {
    header "domctl.h";

    /// `XEN_DOMCTL_createdomain`: what the domain shall be.
    pub struct DomctlCreatedomain ["struct xen_domctl_createdomain"] {
        /// In: security label.
        pub ssidref: u32,
        /// In: UUID.
        pub handle: [u8; 16],
        /// In: `XEN_DOMCTL_CDF_*`.
        pub flags: u32,
        /// In: `XEN_DOMCTL_IOMMU_*`.
        pub iommu_opts: u32,
        /// In: number of vCPUs.
        pub max_vcpus: u32,
        /// In: the highest event-channel port.
        pub max_evtchn_port: u32,
        /// In: pages of grant table; negative for the default.
        pub max_grant_frames: i32,
        /// In: pages of the table of foreign mappings; negative for the default.
        pub max_maptrack_frames: i32,
        /// In: the highest grant-table version, in the low four bits.
        pub grant_opts: u32,
        /// In: bytes of trace buffer for each vCPU; 0 for none.
        pub vmtrace_size: u32,
        /// In: CPU pool.
        pub cpupool_id: u32,
        /// In: the x86 part.
        pub arch: ArchDomainconfig,
    }

    /// `XEN_DOMCTL_getdomaininfo`, and an element of `XEN_SYSCTL_getdomaininfolist`: what a domain is.
    pub struct DomctlGetdomaininfo ["struct xen_domctl_getdomaininfo"] {
        /// Out: its number.
        pub domain: u16,
        /// Zero.
        pub pad1: u16,
        /// Out: `XEN_DOMINF_*`.
        pub flags: u32,
        /// Out: pages it has.
        pub tot_pages: u64,
        /// Out: pages it may have.
        pub max_pages: u64,
        /// Out: pages claimed and not yet had.
        pub outstanding_pages: u64,
        /// Out: pages shared copy-on-write.
        pub shr_pages: u64,
        /// Out: pages paged out.
        pub paged_pages: u64,
        /// Out: frame of the shared page.
        pub shared_info_frame: u64,
        /// Out: nanoseconds on CPUs, all vCPUs together.
        pub cpu_time: u64,
        /// Out: vCPUs that are up.
        pub nr_online_vcpus: u32,
        /// Out: the highest vCPU number, or [`XEN_INVALID_MAX_VCPU_ID`].
        pub max_vcpu_id: u32,
        /// Out: security label.
        pub ssidref: u32,
        /// Out: UUID.
        pub handle: [u8; 16],
        /// Out: CPU pool.
        pub cpupool: u32,
        /// Out: width of its physical addresses, in bits.
        pub gpaddr_bits: u8,
        /// Zero.
        pub pad2: [u8; 7],
        /// Out: the x86 part it was made with.
        pub arch_config: ArchDomainconfig,
    }

    /// `XEN_DOMCTL_max_mem`: the limit of memory.
    pub struct DomctlMaxMem ["struct xen_domctl_max_mem"] {
        /// In: KiB.
        pub max_memkb: u64,
    }

    /// `XEN_DOMCTL_max_vcpus`: the number of vCPUs.
    pub struct DomctlMaxVcpus ["struct xen_domctl_max_vcpus"] {
        /// In: as in `createdomain`.
        pub max: u32,
    }

    /// `XEN_DOMCTL_setdomainhandle`: the UUID.
    pub struct DomctlSetdomainhandle ["struct xen_domctl_setdomainhandle"] {
        /// In: UUID.
        pub handle: [u8; 16],
    }

    /// `XEN_DOMCTL_setdebugging`: whether a debugger is there.
    pub struct DomctlSetdebugging ["struct xen_domctl_setdebugging"] {
        /// In: not 0 for yes.
        pub enable: u8,
    }

    /// `XEN_DOMCTL_hypercall_init`: where the hypercall page goes.
    pub struct DomctlHypercallInit ["struct xen_domctl_hypercall_init"] {
        /// In: frame, a machine frame for PV.
        pub gmfn: u64,
    }

    /// `XEN_DOMCTL_settimeoffset`: the wall clock.
    pub struct DomctlSettimeoffset ["struct xen_domctl_settimeoffset"] {
        /// In: seconds ahead of UTC.
        pub time_offset_seconds: i64,
    }

    /// `XEN_DOMCTL_{set,get}_address_size`: the width of a PV domain.
    pub struct DomctlAddressSize ["struct xen_domctl_address_size"] {
        /// In or out: 32 or 64 bits.
        pub size: u32,
    }

    /// `XEN_DOMCTL_sendtrigger`: what to send.
    pub struct DomctlSendtrigger ["struct xen_domctl_sendtrigger"] {
        /// In: `XEN_DOMCTL_SENDTRIGGER_*`.
        pub trigger: u32,
        /// In: the vCPU.
        pub vcpu: u32,
    }

    /// `XEN_DOMCTL_set_target`: whom the domain acts for.
    pub struct DomctlSetTarget ["struct xen_domctl_set_target"] {
        /// In: that domain.
        pub target: u16,
    }

    /// `XEN_DOMCTL_subscribe`: what to notify of a suspend.
    pub struct DomctlSubscribe ["struct xen_domctl_subscribe"] {
        /// In: port of the caller.
        pub port: u32,
    }

    /// `XEN_DOMCTL_{get,set}_cpu_policy`: what CPUID and MSRs tell the domain.
    pub struct DomctlCpuPolicy ["struct xen_domctl_cpu_policy"] {
        /// In: room or number of leaves. Out: number.
        pub nr_leaves: u32,
        /// In: room or number of MSRs. Out: number.
        pub nr_msrs: u32,
        /// Address of [`CpuidLeaf`](crate::arch::CpuidLeaf)s.
        pub leaves: u64,
        /// Address of [`MsrEntry`](crate::arch::MsrEntry)s.
        pub msrs: u64,
        /// Out of a failed set: the leaf in the way.
        pub err_leaf: u32,
        /// Out of a failed set: its subleaf.
        pub err_subleaf: u32,
        /// Out of a failed set: the MSR in the way.
        pub err_msr: u32,
        /// Padding.
        pub _pad0: u32,
    }

    /// `XEN_DOMCTL_{get,set}tscinfo`: the time-stamp counter.
    pub struct DomctlTscInfo ["struct xen_domctl_tsc_info"] {
        /// How it behaves: 0 default, 1 always emulated, 2 never.
        pub tsc_mode: u32,
        /// Frequency that the guest was told, in kHz.
        pub gtsc_khz: u32,
        /// Counts up with each restore.
        pub incarnation: u32,
        /// Zero.
        pub pad: u32,
        /// Nanoseconds since the domain's boot.
        pub elapsed_nsec: u64,
    }

    /// `XEN_DOMCTL_set_virq_handler`: which interrupt the domain gets.
    pub struct DomctlSetVirqHandler ["struct xen_domctl_set_virq_handler"] {
        /// In: a global `VIRQ_*`.
        pub virq: u32,
    }
}

bitflags::bitflags! {
    /// [`DomctlGetdomaininfo::flags`] without the shutdown reason.
    ///
    /// Xen: `XEN_DOMINF_*` in `public/domctl.h`.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
    pub struct DomainInfoFlags: u32 {
        /// Being destroyed.
        const DYING = XEN_DOMINF_DYING;
        /// An HVM domain.
        const HVM_GUEST = XEN_DOMINF_HVM_GUEST;
        /// Has shut down.
        const SHUTDOWN = XEN_DOMINF_SHUTDOWN;
        /// Paused by tools.
        const PAUSED = XEN_DOMINF_PAUSED;
        /// All vCPUs wait for events.
        const BLOCKED = XEN_DOMINF_BLOCKED;
        /// A vCPU is on a CPU.
        const RUNNING = XEN_DOMINF_RUNNING;
        /// Being debugged.
        const DEBUGGED = XEN_DOMINF_DEBUGGED;
        /// The domain of xenstore.
        const XS_DOMAIN = XEN_DOMINF_XS_DOMAIN;
        /// Paging by hardware.
        const HAP = XEN_DOMINF_HAP;
    }
}

impl DomctlGetdomaininfo {
    /// The flags without the shutdown reason.
    pub const fn state(&self) -> DomainInfoFlags {
        DomainInfoFlags::from_bits_truncate(self.flags)
    }

    /// `SHUTDOWN_*`, where the domain has shut down.
    pub const fn shutdown_reason(&self) -> Option<u32> {
        if self.flags & XEN_DOMINF_SHUTDOWN == 0 {
            return None;
        }
        Some(self.flags >> XEN_DOMINF_SHUTDOWNSHIFT & XEN_DOMINF_SHUTDOWNMASK)
    }

    /// Sets what [`state`](Self::state) and [`shutdown_reason`](Self::shutdown_reason) tell.
    pub const fn set_state(&mut self, state: DomainInfoFlags, shutdown_reason: u32) {
        self.flags = state.bits() | (shutdown_reason & XEN_DOMINF_SHUTDOWNMASK) << XEN_DOMINF_SHUTDOWNSHIFT;
    }
}
