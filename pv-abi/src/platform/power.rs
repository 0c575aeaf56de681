//! Sleep, frequencies and idle states.
//!
//! Xen: `public/platform.h`.

use crate::layout::{constants, structs};
use crate::payload::payload;

constants! {
    header "platform.h";
    /// `enter_acpi_sleep`: the values are sleep types of the hardware-reduced model.
    pub const XENPF_ACPI_SLEEP_EXTENDED: u32 = 1;
    /// A CPU has idle states.
    pub const XEN_PROCESSOR_PM_CX: u32 = 1;
    /// A CPU has performance states.
    pub const XEN_PROCESSOR_PM_PX: u32 = 2;
    /// A CPU has throttling states.
    pub const XEN_PROCESSOR_PM_TX: u32 = 4;
    /// `set_processor_pminfo`: idle states.
    pub const XEN_PM_CX: u32 = 0;
    /// `set_processor_pminfo`: performance states.
    pub const XEN_PM_PX: u32 = 1;
    /// `set_processor_pminfo`: throttling states.
    pub const XEN_PM_TX: u32 = 2;
    /// `set_processor_pminfo`: what the kernel can do, for ACPI's `_PDC`.
    pub const XEN_PM_PDC: u32 = 3;
    /// Performance: the registers are valid.
    pub const XEN_PX_PCT: u32 = 1;
    /// Performance: the states are valid.
    pub const XEN_PX_PSS: u32 = 2;
    /// Performance: the limit is valid.
    pub const XEN_PX_PPC: u32 = 4;
    /// Performance: the dependencies are valid.
    pub const XEN_PX_PSD: u32 = 8;
    /// CPUs that depend on each other: the hardware coordinates.
    pub const XEN_CPUPERF_SHARED_TYPE_HW: u32 = 1;
    /// CPUs that depend on each other: all must be set.
    pub const XEN_CPUPERF_SHARED_TYPE_ALL: u32 = 2;
    /// CPUs that depend on each other: any may be set.
    pub const XEN_CPUPERF_SHARED_TYPE_ANY: u32 = 3;
}

structs! {
    header "platform.h";

    /// `XENPF_enter_acpi_sleep`: how to sleep.
    pub struct XenpfEnterAcpiSleep ["struct xenpf_enter_acpi_sleep"] {
        /// In: value of PM1a control, or sleep type A.
        pub val_a: u16,
        /// In: value of PM1b control, or sleep type B.
        pub val_b: u16,
        /// In: n of Sn; 5 is off.
        pub sleep_state: u32,
        /// In: 0 or [`XENPF_ACPI_SLEEP_EXTENDED`].
        pub flags: u32,
    }

    /// `XENPF_change_freq`: a CPU's frequency.
    pub struct XenpfChangeFreq ["struct xenpf_change_freq"] {
        /// Zero.
        pub flags: u32,
        /// In: the CPU.
        pub cpu: u32,
        /// In: Hz.
        pub freq: u64,
    }

    /// `XENPF_getidletime`: idle times.
    pub struct XenpfGetidletime ["struct xenpf_getidletime"] {
        /// In: address of a bitmap of CPUs. Out: those of them that exist.
        pub cpumap_bitmap: u64,
        /// In: bits of it.
        pub cpumap_nr_cpus: u32,
        /// Padding.
        pub _pad0: u32,
        /// In: address of nanoseconds by CPU (`u64`).
        pub idletime: u64,
        /// Out: system time at which it was so.
        pub now: u64,
    }

    /// A register as ACPI describes it.
    pub struct PowerRegister ["struct xen_power_register"] {
        /// Address space.
        pub space_id: u32,
        /// Width in bits.
        pub bit_width: u32,
        /// First bit.
        pub bit_offset: u32,
        /// Access size.
        pub access_size: u32,
        /// Address.
        pub address: u64,
    }

    /// CPUs whose idle states depend on each other.
    pub struct ProcessorCsd ["struct xen_processor_csd"] {
        /// Which group.
        pub domain: u32,
        /// How they are coordinated.
        pub coord_type: u32,
        /// How many CPUs it has.
        pub num: u32,
    }

    /// An idle state.
    pub struct ProcessorCx ["struct xen_processor_cx"] {
        /// How it is entered.
        pub reg: PowerRegister,
        /// n of Cn.
        pub type_ ["type"]: u8,
        /// Padding.
        pub _pad0: [u8; 3],
        /// Worst latency in microseconds.
        pub latency: u32,
        /// Power in milliwatts.
        pub power: u32,
        /// Number of dependencies.
        pub dpcnt: u32,
        /// Address of [`ProcessorCsd`]s, or 0.
        pub dp: u64,
    }

    /// Idle states of a CPU.
    pub struct ProcessorPower ["struct xen_processor_power"] {
        /// Their number.
        pub count: u32,
        /// A bit each: bus-master control, bus-master check, `_CST`, set up, bus-master reload.
        pub flags: u32,
        /// Address of [`ProcessorCx`]s.
        pub states: u64,
    }

    /// A register of performance states, as ACPI describes it.
    pub struct PctRegister ["struct xen_pct_register"] {
        /// ACPI's tag.
        pub descriptor: u8,
        /// Padding.
        pub _pad0: u8,
        /// ACPI's length.
        pub length: u16,
        /// Address space.
        pub space_id: u8,
        /// Width in bits.
        pub bit_width: u8,
        /// First bit.
        pub bit_offset: u8,
        /// Zero.
        pub reserved: u8,
        /// Address.
        pub address: u64,
    }

    /// A performance state.
    pub struct ProcessorPx ["struct xen_processor_px"] {
        /// MHz.
        pub core_frequency: u64,
        /// Milliwatts.
        pub power: u64,
        /// Microseconds to enter it.
        pub transition_latency: u64,
        /// Microseconds without bus masters.
        pub bus_master_latency: u64,
        /// What to write.
        pub control: u64,
        /// What to read then.
        pub status: u64,
    }

    /// CPUs whose performance states depend on each other.
    pub struct PsdPackage ["struct xen_psd_package"] {
        /// ACPI's number of entries.
        pub num_entries: u64,
        /// ACPI's revision.
        pub revision: u64,
        /// Which group.
        pub domain: u64,
        /// How they are coordinated.
        pub coord_type: u64,
        /// How many CPUs it has.
        pub num_processors: u64,
    }

    /// Performance states of a CPU.
    pub struct ProcessorPerformance ["struct xen_processor_performance"] {
        /// `XEN_PX_*`.
        pub flags: u32,
        /// The highest state that may be used.
        pub platform_limit: u32,
        /// Where to write.
        pub control_register: PctRegister,
        /// Where to read.
        pub status_register: PctRegister,
        /// Number of states.
        pub state_count: u32,
        /// Padding.
        pub _pad0: u32,
        /// Address of [`ProcessorPx`]s.
        pub states: u64,
        /// Dependencies.
        pub domain_info: PsdPackage,
        /// `XEN_CPUPERF_SHARED_TYPE_*`.
        pub shared_type: u32,
        /// Padding.
        pub _pad1: u32,
    }

    /// `XENPF_set_processor_pminfo`: power states of a CPU. `u` is [`ProcessorPower`], [`ProcessorPerformance`], or the
    /// address of ACPI's `_PDC` words (`u64`).
    #[repr(align(8))]
    pub struct XenpfSetProcessorPminfo ["struct xenpf_set_processor_pminfo"] {
        /// In: the CPU's number for ACPI.
        pub id: u32,
        /// In: `XEN_PM_*`.
        pub type_ ["type"]: u32,
        /// In: the states.
        pub u: [u8; 104],
    }
}

payload!(XenpfSetProcessorPminfo, 104);
