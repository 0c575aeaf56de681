//! Parameters of a domain with hardware assistance.
//!
//! Xen: `public/hvm/params.h`.

use crate::layout::constants;

constants! {
    header "hvm/params.h";
    /// How events reach the guest: `HVM_PARAM_CALLBACK_TYPE_*` in bits 63 to 56, the rest by type.
    pub const HVM_PARAM_CALLBACK_IRQ: u32 = 0;
    /// Where the type is in [`HVM_PARAM_CALLBACK_IRQ`].
    pub const HVM_PARAM_CALLBACK_IRQ_TYPE_MASK: u64 = 0xff00_0000_0000_0000;
    /// By the interrupt line in the low bits; 0 for none.
    pub const HVM_PARAM_CALLBACK_TYPE_GSI: u64 = 0;
    /// By a PCI pin: domain, bus, device and pin in the low bits.
    pub const HVM_PARAM_CALLBACK_TYPE_PCI_INTX: u64 = 1;
    /// By the vector in the low bits.
    pub const HVM_PARAM_CALLBACK_TYPE_VECTOR: u64 = 2;
    /// Frame of the ring to xenstore.
    pub const HVM_PARAM_STORE_PFN: u32 = 1;
    /// Port of the ring to xenstore.
    pub const HVM_PARAM_STORE_EVTCHN: u32 = 2;
    /// Physical-address extension is allowed.
    pub const HVM_PARAM_PAE_ENABLED: u32 = 4;
    /// Frame of I/O requests.
    pub const HVM_PARAM_IOREQ_PFN: u32 = 5;
    /// Frame of buffered I/O requests.
    pub const HVM_PARAM_BUFIOREQ_PFN: u32 = 6;
    /// Leaves and MSRs of another hypervisor: `HVMPV_*`.
    pub const HVM_PARAM_VIRIDIAN: u32 = 9;
    /// How timers make up for lost time: `HVMPTM_*`.
    pub const HVM_PARAM_TIMER_MODE: u32 = 10;
    /// There is an HPET.
    pub const HVM_PARAM_HPET_ENABLED: u32 = 11;
    /// Frame of the one-to-one page table that some CPUs need.
    pub const HVM_PARAM_IDENT_PT: u32 = 12;
    /// Domain of the device model.
    pub const HVM_PARAM_DM_DOMAIN: u32 = 13;
    /// The sleep state: 0 or 3.
    pub const HVM_PARAM_ACPI_S_STATE: u32 = 14;
    /// Address of the task state that some CPUs need.
    pub const HVM_PARAM_VM86_TSS: u32 = 15;
    /// Periodic timers are brought into line.
    pub const HVM_PARAM_VPT_ALIGN: u32 = 16;
    /// Frame of the console's ring.
    pub const HVM_PARAM_CONSOLE_PFN: u32 = 17;
    /// Port of the console's ring.
    pub const HVM_PARAM_CONSOLE_EVTCHN: u32 = 18;
    /// Where ACPI's ports are: 0 or 1.
    pub const HVM_PARAM_ACPI_IOPORTS_LOCATION: u32 = 19;
    /// Gone.
    pub const HVM_PARAM_MEMORY_EVENT_CR0: u32 = 20;
    /// Gone.
    pub const HVM_PARAM_MEMORY_EVENT_CR3: u32 = 21;
    /// Gone.
    pub const HVM_PARAM_MEMORY_EVENT_CR4: u32 = 22;
    /// Gone.
    pub const HVM_PARAM_MEMORY_EVENT_INT3: u32 = 23;
    /// Hardware virtualization inside.
    pub const HVM_PARAM_NESTEDHVM: u32 = 24;
    /// Gone.
    pub const HVM_PARAM_MEMORY_EVENT_SINGLE_STEP: u32 = 25;
    /// Port of buffered I/O requests.
    pub const HVM_PARAM_BUFIOREQ_EVTCHN: u32 = 26;
    /// Frame of the paging ring.
    pub const HVM_PARAM_PAGING_RING_PFN: u32 = 27;
    /// Frame of the monitor's ring.
    pub const HVM_PARAM_MONITOR_RING_PFN: u32 = 28;
    /// Frame of the sharing ring.
    pub const HVM_PARAM_SHARING_RING_PFN: u32 = 29;
    /// Gone.
    pub const HVM_PARAM_MEMORY_EVENT_MSR: u32 = 30;
    /// `SHUTDOWN_*` that a triple fault means.
    pub const HVM_PARAM_TRIPLE_FAULT_REASON: u32 = 31;
    /// First frame for servers of I/O requests.
    pub const HVM_PARAM_IOREQ_SERVER_PFN: u32 = 32;
    /// Number of frames for servers of I/O requests.
    pub const HVM_PARAM_NR_IOREQ_SERVER_PAGES: u32 = 33;
    /// Address of the generation identifier.
    pub const HVM_PARAM_VM_GENERATION_ID_ADDR: u32 = 34;
    /// Alternative maps of guest frames: `XEN_ALTP2M_*`.
    pub const HVM_PARAM_ALTP2M: u32 = 35;
    /// Width of FPU instruction pointers: 8, 4 or 0 bytes.
    pub const HVM_PARAM_X87_FIP_WIDTH: u32 = 36;
    /// As [`HVM_PARAM_VM86_TSS`], with the size in the upper half.
    pub const HVM_PARAM_VM86_TSS_SIZED: u32 = 37;
    /// Machine-check capabilities: [`XEN_HVM_MCA_CAP_LMCE`].
    pub const HVM_PARAM_MCA_CAP: u32 = 38;
    /// Number of parameters.
    pub const HVM_NR_PARAMS: u32 = 39;

    /// Another hypervisor: its basic part and its frequencies.
    pub const HVMPV_BASE_FREQ [HVMPV_base_freq]: u64 = 1 << 0;
    /// Another hypervisor: not its frequencies.
    pub const HVMPV_NO_FREQ [HVMPV_no_freq]: u64 = 1 << 1;
    /// Another hypervisor: its reference counter.
    pub const HVMPV_TIME_REF_COUNT [HVMPV_time_ref_count]: u64 = 1 << 2;
    /// Another hypervisor: its page of time.
    pub const HVMPV_REFERENCE_TSC [HVMPV_reference_tsc]: u64 = 1 << 3;
    /// Another hypervisor: its remote flush.
    pub const HVMPV_HCALL_REMOTE_TLB_FLUSH [HVMPV_hcall_remote_tlb_flush]: u64 = 1 << 4;
    /// Another hypervisor: its help for the local APIC.
    pub const HVMPV_APIC_ASSIST [HVMPV_apic_assist]: u64 = 1 << 5;
    /// Another hypervisor: its crash report.
    pub const HVMPV_CRASH_CTL [HVMPV_crash_ctl]: u64 = 1 << 6;
    /// Another hypervisor: its interrupt controller.
    pub const HVMPV_SYNIC [HVMPV_synic]: u64 = 1 << 7;
    /// Another hypervisor: its timers.
    pub const HVMPV_STIMER [HVMPV_stimer]: u64 = 1 << 8;
    /// Another hypervisor: its interrupts between vCPUs.
    pub const HVMPV_HCALL_IPI [HVMPV_hcall_ipi]: u64 = 1 << 9;
    /// Another hypervisor: its longer masks of vCPUs.
    pub const HVMPV_EX_PROCESSOR_MASKS [HVMPV_ex_processor_masks]: u64 = 1 << 10;
    /// Another hypervisor: without its limit of vCPUs.
    pub const HVMPV_NO_VP_LIMIT [HVMPV_no_vp_limit]: u64 = 1 << 11;
    /// Another hypervisor: its new vCPUs.
    pub const HVMPV_CPU_HOTPLUG [HVMPV_cpu_hotplug]: u64 = 1 << 12;
    /// All parts of another hypervisor that there are.
    pub const HVMPV_FEATURE_MASK [HVMPV_feature_mask]: u64 = 0x1fff;

    /// Timers: time stands still while the vCPU does not run.
    pub const HVMPTM_DELAY_FOR_MISSED_TICKS [HVMPTM_delay_for_missed_ticks]: u64 = 0;
    /// Timers: time goes on, lost ticks come late.
    pub const HVMPTM_NO_DELAY_FOR_MISSED_TICKS [HVMPTM_no_delay_for_missed_ticks]: u64 = 1;
    /// Timers: time goes on, lost ticks are dropped.
    pub const HVMPTM_NO_MISSED_TICKS_PENDING [HVMPTM_no_missed_ticks_pending]: u64 = 2;
    /// Timers: time goes on, lost ticks become one.
    pub const HVMPTM_ONE_MISSED_TICK_PENDING [HVMPTM_one_missed_tick_pending]: u64 = 3;

    /// Alternative maps: none.
    pub const XEN_ALTP2M_DISABLED [XEN_ALTP2M_disabled]: u64 = 0;
    /// Alternative maps: used by the guest and by tools.
    pub const XEN_ALTP2M_MIXED [XEN_ALTP2M_mixed]: u64 = 1;
    /// Alternative maps: used by tools.
    pub const XEN_ALTP2M_EXTERNAL [XEN_ALTP2M_external]: u64 = 2;
    /// Alternative maps: the guest may ask for notices.
    pub const XEN_ALTP2M_LIMITED [XEN_ALTP2M_limited]: u64 = 3;
    /// Machine checks can go to one CPU.
    pub const XEN_HVM_MCA_CAP_LMCE: u64 = 1 << 0;
    /// All machine-check capabilities that there are.
    pub const XEN_HVM_MCA_CAP_MASK: u64 = XEN_HVM_MCA_CAP_LMCE;
}

/// [`HVM_PARAM_CALLBACK_IRQ`] for upcalls by `vector`.
pub const fn callback_via_vector(vector: u8) -> u64 {
    HVM_PARAM_CALLBACK_TYPE_VECTOR << 56 | vector as u64
}
