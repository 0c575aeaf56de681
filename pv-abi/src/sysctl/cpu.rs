//! The machine's CPUs: pools, schedulers, power, what CPUID tells.
//!
//! Xen: `public/sysctl.h`.

use crate::layout::{constants, structs};
use crate::payload::payload;
use crate::xen::CtlBitmap;

constants! {
    header "sysctl.h";
    /// `cpupool_op`: makes a pool.
    pub const XEN_SYSCTL_CPUPOOL_OP_CREATE: u32 = 1;
    /// `cpupool_op`: destroys a pool.
    pub const XEN_SYSCTL_CPUPOOL_OP_DESTROY: u32 = 2;
    /// `cpupool_op`: tells about a pool, or the next one that exists.
    pub const XEN_SYSCTL_CPUPOOL_OP_INFO: u32 = 3;
    /// `cpupool_op`: adds a CPU.
    pub const XEN_SYSCTL_CPUPOOL_OP_ADDCPU: u32 = 4;
    /// `cpupool_op`: removes a CPU.
    pub const XEN_SYSCTL_CPUPOOL_OP_RMCPU: u32 = 5;
    /// `cpupool_op`: moves a domain.
    pub const XEN_SYSCTL_CPUPOOL_OP_MOVEDOMAIN: u32 = 6;
    /// `cpupool_op`: tells which CPUs are in no pool.
    pub const XEN_SYSCTL_CPUPOOL_OP_FREEINFO: u32 = 7;
    /// `cpupool_op`: any pool, any CPU.
    pub const XEN_SYSCTL_CPUPOOL_PAR_ANY: u32 = 0xffff_ffff;

    /// `scheduler_op`: sets.
    pub const XEN_SYSCTL_SCHEDOP_PUTINFO [XEN_SYSCTL_SCHEDOP_putinfo]: u32 = 0;
    /// `scheduler_op`: tells.
    pub const XEN_SYSCTL_SCHEDOP_GETINFO [XEN_SYSCTL_SCHEDOP_getinfo]: u32 = 1;
    /// The longest least run, in microseconds.
    pub const XEN_SYSCTL_SCHED_RATELIMIT_MAX: u32 = 500_000;
    /// The shortest least run, in microseconds.
    pub const XEN_SYSCTL_SCHED_RATELIMIT_MIN: u32 = 100;
    /// The longest time slice, in milliseconds.
    pub const XEN_SYSCTL_CSCHED_TSLICE_MAX: u32 = 1000;
    /// The shortest time slice, in milliseconds.
    pub const XEN_SYSCTL_CSCHED_TSLICE_MIN: u32 = 1;
    /// The longest time that a cache counts as warm, in microseconds.
    pub const XEN_SYSCTL_CSCHED_MGR_DLY_MAX_US: u32 = 100_000;
    /// Domains of a fixed time table.
    pub const ARINC653_MAX_DOMAINS_PER_SCHEDULE: u32 = 64;

    /// `cpu_hotplug`: brings a CPU up.
    pub const XEN_SYSCTL_CPU_HOTPLUG_ONLINE: u32 = 0;
    /// `cpu_hotplug`: takes a CPU down.
    pub const XEN_SYSCTL_CPU_HOTPLUG_OFFLINE: u32 = 1;
    /// `cpu_hotplug`: brings all second threads up.
    pub const XEN_SYSCTL_CPU_HOTPLUG_SMT_ENABLE: u32 = 2;
    /// `cpu_hotplug`: takes all second threads down.
    pub const XEN_SYSCTL_CPU_HOTPLUG_SMT_DISABLE: u32 = 3;

    /// `get_pmstat`: mask of the kind.
    pub const PMSTAT_CATEGORY_MASK: u32 = 0xf0;
    /// `get_pmstat`: performance states.
    pub const PMSTAT_PX: u32 = 0x10;
    /// `get_pmstat`: idle states.
    pub const PMSTAT_CX: u32 = 0x20;
    /// `get_pmstat`: number of performance states.
    pub const PMSTAT_GET_MAX_PX [PMSTAT_get_max_px]: u32 = 0x11;
    /// `get_pmstat`: use of performance states.
    pub const PMSTAT_GET_PXSTAT [PMSTAT_get_pxstat]: u32 = 0x12;
    /// `get_pmstat`: forgets the use of performance states.
    pub const PMSTAT_RESET_PXSTAT [PMSTAT_reset_pxstat]: u32 = 0x13;
    /// `get_pmstat`: number of idle states.
    pub const PMSTAT_GET_MAX_CX [PMSTAT_get_max_cx]: u32 = 0x21;
    /// `get_pmstat`: use of idle states.
    pub const PMSTAT_GET_CXSTAT [PMSTAT_get_cxstat]: u32 = 0x22;
    /// `get_pmstat`: forgets the use of idle states.
    pub const PMSTAT_RESET_CXSTAT [PMSTAT_reset_cxstat]: u32 = 0x23;

    /// `pm_op`: mask of the kind.
    pub const PM_PARA_CATEGORY_MASK: u32 = 0xf0;
    /// `pm_op`: frequencies.
    pub const CPUFREQ_PARA: u32 = 0x10;
    /// `pm_op`: tells all about frequencies.
    pub const GET_CPUFREQ_PARA: u32 = 0x11;
    /// `pm_op`: chooses a governor.
    pub const SET_CPUFREQ_GOV: u32 = 0x12;
    /// `pm_op`: sets a parameter; see [`SetCpufreqPara`].
    pub const SET_CPUFREQ_PARA: u32 = 0x13;
    /// `pm_op`: tells the average frequency.
    pub const GET_CPUFREQ_AVGFREQ: u32 = 0x14;
    /// `pm_op`: whether scheduling saves power.
    pub const XEN_SYSCTL_PM_OP_SET_SCHED_OPT_SMT [XEN_SYSCTL_pm_op_set_sched_opt_smt]: u32 = 0x21;
    /// `pm_op`: tells the deepest idle state.
    pub const XEN_SYSCTL_PM_OP_GET_MAX_CSTATE [XEN_SYSCTL_pm_op_get_max_cstate]: u32 = 0x22;
    /// `pm_op`: sets the deepest idle state.
    pub const XEN_SYSCTL_PM_OP_SET_MAX_CSTATE [XEN_SYSCTL_pm_op_set_max_cstate]: u32 = 0x23;
    /// `pm_op`: sets how long a cache counts as warm.
    pub const XEN_SYSCTL_PM_OP_SET_VCPU_MIGRATION_DELAY [XEN_SYSCTL_pm_op_set_vcpu_migration_delay]: u32 = 0x24;
    /// `pm_op`: tells how long a cache counts as warm.
    pub const XEN_SYSCTL_PM_OP_GET_VCPU_MIGRATION_DELAY [XEN_SYSCTL_pm_op_get_vcpu_migration_delay]: u32 = 0x25;
    /// `pm_op`: turbo on.
    pub const XEN_SYSCTL_PM_OP_ENABLE_TURBO [XEN_SYSCTL_pm_op_enable_turbo]: u32 = 0x26;
    /// `pm_op`: turbo off.
    pub const XEN_SYSCTL_PM_OP_DISABLE_TURBO [XEN_SYSCTL_pm_op_disable_turbo]: u32 = 0x27;
    /// `pm_op`: no limit of idle states.
    pub const XEN_SYSCTL_CX_UNLIMITED: u32 = 0xffff_ffff;
    /// Bytes of a governor's name.
    pub const CPUFREQ_NAME_LEN: usize = 16;
    /// `set_para`: the highest frequency.
    pub const SCALING_MAX_FREQ: u32 = 1;
    /// `set_para`: the lowest frequency.
    pub const SCALING_MIN_FREQ: u32 = 2;
    /// `set_para`: the frequency.
    pub const SCALING_SETSPEED: u32 = 3;
    /// `set_para`: how often the governor looks.
    pub const SAMPLING_RATE: u32 = 4;
    /// `set_para`: from which load the governor goes up.
    pub const UP_THRESHOLD: u32 = 5;

    /// `get_cpu_levelling_caps`: CPUID can be made to fault.
    pub const XEN_SYSCTL_CPU_LEVELCAP_FAULTING [XEN_SYSCTL_CPU_LEVELCAP_faulting]: u32 = 1 << 0;
    /// `get_cpu_levelling_caps`: leaf 1, ECX can be masked.
    pub const XEN_SYSCTL_CPU_LEVELCAP_ECX [XEN_SYSCTL_CPU_LEVELCAP_ecx]: u32 = 1 << 1;
    /// `get_cpu_levelling_caps`: leaf 1, EDX can be masked.
    pub const XEN_SYSCTL_CPU_LEVELCAP_EDX [XEN_SYSCTL_CPU_LEVELCAP_edx]: u32 = 1 << 2;
    /// `get_cpu_levelling_caps`: leaf 8000_0001, ECX can be masked.
    pub const XEN_SYSCTL_CPU_LEVELCAP_EXTD_ECX [XEN_SYSCTL_CPU_LEVELCAP_extd_ecx]: u32 = 1 << 3;
    /// `get_cpu_levelling_caps`: leaf 8000_0001, EDX can be masked.
    pub const XEN_SYSCTL_CPU_LEVELCAP_EXTD_EDX [XEN_SYSCTL_CPU_LEVELCAP_extd_edx]: u32 = 1 << 4;
    /// `get_cpu_levelling_caps`: leaf D, subleaf 1, EAX can be masked.
    pub const XEN_SYSCTL_CPU_LEVELCAP_XSAVE_EAX [XEN_SYSCTL_CPU_LEVELCAP_xsave_eax]: u32 = 1 << 5;
    /// `get_cpu_levelling_caps`: leaf 6, ECX can be masked.
    pub const XEN_SYSCTL_CPU_LEVELCAP_THERMAL_ECX [XEN_SYSCTL_CPU_LEVELCAP_thermal_ecx]: u32 = 1 << 6;
    /// `get_cpu_levelling_caps`: leaf 7, EAX can be masked.
    pub const XEN_SYSCTL_CPU_LEVELCAP_L7S0_EAX [XEN_SYSCTL_CPU_LEVELCAP_l7s0_eax]: u32 = 1 << 7;
    /// `get_cpu_levelling_caps`: leaf 7, EBX can be masked.
    pub const XEN_SYSCTL_CPU_LEVELCAP_L7S0_EBX [XEN_SYSCTL_CPU_LEVELCAP_l7s0_ebx]: u32 = 1 << 8;

    /// `get_cpu_featureset`: what the CPU says.
    pub const XEN_SYSCTL_CPU_FEATURESET_RAW [XEN_SYSCTL_cpu_featureset_raw]: u32 = 0;
    /// `get_cpu_featureset`: what the hypervisor uses.
    pub const XEN_SYSCTL_CPU_FEATURESET_HOST [XEN_SYSCTL_cpu_featureset_host]: u32 = 1;
    /// `get_cpu_featureset`: what PV guests get.
    pub const XEN_SYSCTL_CPU_FEATURESET_PV [XEN_SYSCTL_cpu_featureset_pv]: u32 = 2;
    /// `get_cpu_featureset`: what HVM guests get.
    pub const XEN_SYSCTL_CPU_FEATURESET_HVM [XEN_SYSCTL_cpu_featureset_hvm]: u32 = 3;
    /// `get_cpu_featureset`: what PV guests may get.
    pub const XEN_SYSCTL_CPU_FEATURESET_PV_MAX [XEN_SYSCTL_cpu_featureset_pv_max]: u32 = 4;
    /// `get_cpu_featureset`: what HVM guests may get.
    pub const XEN_SYSCTL_CPU_FEATURESET_HVM_MAX [XEN_SYSCTL_cpu_featureset_hvm_max]: u32 = 5;

    /// `get_cpu_policy`: what the CPU says.
    pub const XEN_SYSCTL_CPU_POLICY_RAW [XEN_SYSCTL_cpu_policy_raw]: u32 = 0;
    /// `get_cpu_policy`: what the hypervisor uses.
    pub const XEN_SYSCTL_CPU_POLICY_HOST [XEN_SYSCTL_cpu_policy_host]: u32 = 1;
    /// `get_cpu_policy`: what PV guests may get.
    pub const XEN_SYSCTL_CPU_POLICY_PV_MAX [XEN_SYSCTL_cpu_policy_pv_max]: u32 = 2;
    /// `get_cpu_policy`: what HVM guests may get.
    pub const XEN_SYSCTL_CPU_POLICY_HVM_MAX [XEN_SYSCTL_cpu_policy_hvm_max]: u32 = 3;
    /// `get_cpu_policy`: what PV guests get.
    pub const XEN_SYSCTL_CPU_POLICY_PV_DEFAULT [XEN_SYSCTL_cpu_policy_pv_default]: u32 = 4;
    /// `get_cpu_policy`: what HVM guests get.
    pub const XEN_SYSCTL_CPU_POLICY_HVM_DEFAULT [XEN_SYSCTL_cpu_policy_hvm_default]: u32 = 5;
}

structs! {
    header "sysctl.h";

    /// `XEN_SYSCTL_sched_id`: the scheduler.
    pub struct SysctlSchedId ["struct xen_sysctl_sched_id"] {
        /// Out: `XEN_SCHEDULER_*`.
        pub sched_id: u32,
    }

    /// `XEN_SYSCTL_cpupool_op`: pools of CPUs.
    pub struct SysctlCpupoolOp ["struct xen_sysctl_cpupool_op"] {
        /// In: `XEN_SYSCTL_CPUPOOL_OP_*`.
        pub op: u32,
        /// In: the pool. Out: which it is.
        pub cpupool_id: u32,
        /// In of `CREATE`, out of `INFO`: `XEN_SCHEDULER_*`.
        pub sched_id: u32,
        /// In: the domain to move.
        pub domid: u32,
        /// In: the CPU to add or remove.
        pub cpu: u32,
        /// Out: number of domains.
        pub n_dom: u32,
        /// Out: CPUs.
        pub cpumap: CtlBitmap,
    }

    /// Parameters of the credit scheduler.
    pub struct SysctlCreditSchedule ["struct xen_sysctl_credit_schedule"] {
        /// Time slice in milliseconds.
        pub tslice_ms: u32,
        /// Least run in microseconds.
        pub ratelimit_us: u32,
        /// How long a cache counts as warm, in microseconds.
        pub vcpu_migr_delay_us: u32,
    }

    /// Parameters of the second credit scheduler.
    pub struct SysctlCredit2Schedule ["struct xen_sysctl_credit2_schedule"] {
        /// Least run in microseconds.
        pub ratelimit_us: u32,
    }

    /// `XEN_SYSCTL_scheduler_op`: parameters of a pool's scheduler. `u` is [`SysctlCreditSchedule`],
    /// [`SysctlCredit2Schedule`], or the address of a fixed time table (`u64`).
    #[repr(align(8))]
    pub struct SysctlSchedulerOp ["struct xen_sysctl_scheduler_op"] {
        /// In: the pool.
        pub cpupool_id: u32,
        /// In: `XEN_SCHEDULER_*`.
        pub sched_id: u32,
        /// In: `XEN_SYSCTL_SCHEDOP_*`.
        pub cmd: u32,
        /// Padding.
        pub _pad0: u32,
        /// Parameters by scheduler.
        pub u: [u8; 16],
    }

    /// `XEN_SYSCTL_cpu_hotplug`: CPUs up and down.
    pub struct SysctlCpuHotplug ["struct xen_sysctl_cpu_hotplug"] {
        /// In: the CPU.
        pub cpu: u32,
        /// In: `XEN_SYSCTL_CPU_HOTPLUG_*`.
        pub op: u32,
    }

    /// Use of a performance state.
    pub struct PmPxVal ["struct pm_px_val"] {
        /// Frequency in MHz.
        pub freq: u64,
        /// Nanoseconds in it.
        pub residency: u64,
        /// Times entered.
        pub count: u64,
    }

    /// Use of performance states.
    pub struct PmPxStat ["struct pm_px_stat"] {
        /// Number of states.
        pub total: u8,
        /// Number that may be used.
        pub usable: u8,
        /// The last one.
        pub last: u8,
        /// The current one.
        pub cur: u8,
        /// Padding.
        pub _pad0: u32,
        /// Address of transitions (`u64`), a square.
        pub trans_pt: u64,
        /// Address of [`PmPxVal`]s.
        pub pt: u64,
    }

    /// Use of idle states.
    pub struct PmCxStat ["struct pm_cx_stat"] {
        /// Number of states, with the running one.
        pub nr: u32,
        /// The last one.
        pub last: u32,
        /// Nanoseconds idle.
        pub idle_time: u64,
        /// Address of times entered (`u64`).
        pub triggers: u64,
        /// Address of nanoseconds in each (`u64`).
        pub residencies: u64,
        /// Number of the package's states.
        pub nr_pc: u32,
        /// Number of the core's states.
        pub nr_cc: u32,
        /// Address of residencies of the package (`u64`).
        pub pc: u64,
        /// Address of residencies of the core (`u64`).
        pub cc: u64,
    }

    /// `XEN_SYSCTL_get_pmstat`: use of power states. `u` is [`PmPxStat`] or [`PmCxStat`].
    #[repr(align(8))]
    pub struct SysctlGetPmstat ["struct xen_sysctl_get_pmstat"] {
        /// In: `PMSTAT_*`.
        pub type_ ["type"]: u32,
        /// In: the CPU.
        pub cpuid: u32,
        /// In and out: the use.
        pub u: [u8; 56],
    }

    /// Parameters of the governor of a fixed frequency.
    pub struct Userspace ["struct xen_userspace"] {
        /// The frequency in kHz.
        pub scaling_setspeed: u32,
    }

    /// Parameters of the governor by load.
    pub struct Ondemand ["struct xen_ondemand"] {
        /// The rarest it may look, in microseconds.
        pub sampling_rate_max: u32,
        /// The oftenest it may look, in microseconds.
        pub sampling_rate_min: u32,
        /// How often it looks, in microseconds.
        pub sampling_rate: u32,
        /// From which load it goes up, in percent.
        pub up_threshold: u32,
    }

    /// All about frequencies. `u` is [`Userspace`] or [`Ondemand`].
    #[repr(align(8))]
    pub struct GetCpufreqPara ["struct xen_get_cpufreq_para"] {
        /// In: room. Out: CPUs that change together.
        pub cpu_num: u32,
        /// In: room. Out: frequencies.
        pub freq_num: u32,
        /// In: room. Out: governors.
        pub gov_num: u32,
        /// Padding.
        pub _pad0: u32,
        /// In: address of CPUs (`u32`).
        pub affected_cpus: u64,
        /// In: address of frequencies (`u32`).
        pub scaling_available_frequencies: u64,
        /// In: address of names, 16 bytes each.
        pub scaling_available_governors: u64,
        /// Out: name of the driver.
        pub scaling_driver: [u8; 16],
        /// Out: frequency of the hardware, in kHz.
        pub cpuinfo_cur_freq: u32,
        /// Out: the highest one.
        pub cpuinfo_max_freq: u32,
        /// Out: the lowest one.
        pub cpuinfo_min_freq: u32,
        /// Out: frequency that was chosen, in kHz.
        pub scaling_cur_freq: u32,
        /// Out: name of the governor.
        pub scaling_governor: [u8; 16],
        /// Out: the highest frequency that may be chosen.
        pub scaling_max_freq: u32,
        /// Out: the lowest frequency that may be chosen.
        pub scaling_min_freq: u32,
        /// Out: parameters by governor.
        pub u: [u8; 16],
        /// Out: whether turbo is on.
        pub turbo_enabled: i32,
        /// Padding.
        pub _pad1: u32,
    }

    /// A governor.
    pub struct SetCpufreqGov ["struct xen_set_cpufreq_gov"] {
        /// In: its name.
        pub scaling_governor: [u8; 16],
    }

    /// A parameter of a governor.
    pub struct SetCpufreqPara ["struct xen_set_cpufreq_para"] {
        /// In: which.
        pub ctrl_type: u32,
        /// In: its value.
        pub ctrl_value: u32,
    }

    /// `XEN_SYSCTL_pm_op`: power. `u` is [`GetCpufreqPara`], [`SetCpufreqGov`], [`SetCpufreqPara`], a frequency (`u64`)
    /// or a number (`u32`).
    #[repr(align(8))]
    pub struct SysctlPmOp ["struct xen_sysctl_pm_op"] {
        /// In: `*_CPUFREQ_*`, `XEN_SYSCTL_PM_OP_*`.
        pub cmd: u32,
        /// In: the CPU.
        pub cpuid: u32,
        /// In and out: by command.
        pub u: [u8; 120],
    }

    /// `XEN_SYSCTL_get_cpu_levelling_caps`: which features can be hidden from PV guests.
    pub struct SysctlCpuLevellingCaps ["struct xen_sysctl_cpu_levelling_caps"] {
        /// Out: `XEN_SYSCTL_CPU_LEVELCAP_*`.
        pub caps: u32,
    }

    /// `XEN_SYSCTL_get_cpu_featureset`: feature words.
    pub struct SysctlCpuFeatureset ["struct xen_sysctl_cpu_featureset"] {
        /// In: `XEN_SYSCTL_CPU_FEATURESET_*`.
        pub index: u32,
        /// In: room. Out: number.
        pub nr_features: u32,
        /// In: address of words (`u32`); 0 asks for their number.
        pub features: u64,
    }

    /// `XEN_SYSCTL_get_cpu_policy`: a CPUID and MSR policy.
    pub struct SysctlCpuPolicy ["struct xen_sysctl_cpu_policy"] {
        /// In: `XEN_SYSCTL_CPU_POLICY_*`.
        pub index: u32,
        /// In: room. Out: number.
        pub nr_leaves: u32,
        /// In: room. Out: number.
        pub nr_msrs: u32,
        /// Zero.
        pub rsvd ["_rsvd"]: u32,
        /// In: address of [`CpuidLeaf`](crate::arch::CpuidLeaf)s; 0 asks for their number.
        pub leaves: u64,
        /// In: address of [`MsrEntry`](crate::arch::MsrEntry)s; 0 asks for their number.
        pub msrs: u64,
    }
}

payload!(SysctlSchedulerOp, 16);
payload!(SysctlGetPmstat, 56);
payload!(GetCpufreqPara, 16);
payload!(SysctlPmOp, 120);
