//! Virtual CPUs: bringing them up and down, their timers, and the areas of memory in which they are told things.
//!
//! `HYPERVISOR_vcpu_op(cmd, vcpu, arg)`: `cmd` is a `VCPUOP_*`, `arg` the address of its struct where it has one.
//!
//! Xen: `public/vcpu.h`.

use crate::layout::{constants, structs};

constants! {
    header "vcpu.h";
    /// Gives a vCPU its first state, a [`VcpuGuestContext`](crate::arch::VcpuGuestContext); only once.
    pub const VCPUOP_INITIALISE [VCPUOP_initialise]: u32 = 0;
    /// Lets a vCPU run. No argument.
    pub const VCPUOP_UP [VCPUOP_up]: u32 = 1;
    /// Stops a vCPU. No argument.
    pub const VCPUOP_DOWN [VCPUOP_down]: u32 = 2;
    /// Returns 1 where the vCPU is up. No argument.
    pub const VCPUOP_IS_UP [VCPUOP_is_up]: u32 = 3;
    /// Returns a [`VcpuRunstateInfo`].
    pub const VCPUOP_GET_RUNSTATE_INFO [VCPUOP_get_runstate_info]: u32 = 4;
    /// Registers memory that is kept up to date with a [`VcpuRunstateInfo`].
    pub const VCPUOP_REGISTER_RUNSTATE_MEMORY_AREA [VCPUOP_register_runstate_memory_area]: u32 = 5;
    /// Sets the periodic timer; see [`VcpuSetPeriodicTimer`].
    pub const VCPUOP_SET_PERIODIC_TIMER [VCPUOP_set_periodic_timer]: u32 = 6;
    /// Stops the periodic timer. No argument.
    pub const VCPUOP_STOP_PERIODIC_TIMER [VCPUOP_stop_periodic_timer]: u32 = 7;
    /// Sets the single-shot timer; see [`VcpuSetSingleshotTimer`].
    pub const VCPUOP_SET_SINGLESHOT_TIMER [VCPUOP_set_singleshot_timer]: u32 = 8;
    /// Stops the single-shot timer. No argument.
    pub const VCPUOP_STOP_SINGLESHOT_TIMER [VCPUOP_stop_singleshot_timer]: u32 = 9;
    /// Moves the `vcpu_info` to memory of the guest; see [`VcpuRegisterVcpuInfo`]. Only once.
    pub const VCPUOP_REGISTER_VCPU_INFO [VCPUOP_register_vcpu_info]: u32 = 10;
    /// Sends an NMI. No argument.
    pub const VCPUOP_SEND_NMI [VCPUOP_send_nmi]: u32 = 11;
    /// Tells the ids of the physical CPU of a pinned vCPU; see [`VcpuGetPhysid`].
    pub const VCPUOP_GET_PHYSID [VCPUOP_get_physid]: u32 = 12;
    /// Registers memory that is kept up to date with a [`VcpuTimeInfo`](crate::xen::VcpuTimeInfo).
    pub const VCPUOP_REGISTER_VCPU_TIME_MEMORY_AREA [VCPUOP_register_vcpu_time_memory_area]: u32 = 13;

    /// In [`VcpuRunstateInfo::state_entry_time`]: the area is being written (with `VMASST_TYPE_RUNSTATE_UPDATE_FLAG`).
    pub const XEN_RUNSTATE_UPDATE: u64 = 1 << 63;
    /// The vCPU is running.
    pub const RUNSTATE_RUNNING [RUNSTATE_running]: i32 = 0;
    /// The vCPU could run but waits for a CPU.
    pub const RUNSTATE_RUNNABLE [RUNSTATE_runnable]: i32 = 1;
    /// The vCPU sleeps.
    pub const RUNSTATE_BLOCKED [RUNSTATE_blocked]: i32 = 2;
    /// The vCPU is down or its domain paused.
    pub const RUNSTATE_OFFLINE [RUNSTATE_offline]: i32 = 3;
    /// [`VcpuSetSingleshotTimer::flags`]: refuse a time in the past with `ETIME`.
    pub const VCPU_SSHOTTMR_FUTURE [VCPU_SSHOTTMR_future]: u32 = 1;
}

structs! {
    header "vcpu.h";

    /// What a vCPU has done with its time. The hypervisor writes it.
    pub struct VcpuRunstateInfo ["struct vcpu_runstate_info"] {
        /// `RUNSTATE_*`.
        pub state: i32,
        /// Padding.
        pub _pad0: u32,
        /// System time at which it entered that state, in ns; bit 63 see [`XEN_RUNSTATE_UPDATE`].
        pub state_entry_time: u64,
        /// ns spent in each state.
        pub time: [u64; 4],
    }

    /// `VCPUOP_register_runstate_memory_area`: where.
    pub struct VcpuRegisterRunstateMemoryArea ["struct vcpu_register_runstate_memory_area"] {
        /// In: the guest's address of the area.
        pub addr ["addr.p"]: u64,
    }

    /// `VCPUOP_set_periodic_timer`: how often.
    pub struct VcpuSetPeriodicTimer ["struct vcpu_set_periodic_timer"] {
        /// In: ns between two `VIRQ_TIMER`, at least 1 ms.
        pub period_ns: u64,
    }

    /// `VCPUOP_set_singleshot_timer`: when.
    pub struct VcpuSetSingleshotTimer ["struct vcpu_set_singleshot_timer"] {
        /// In: absolute system time in ns.
        pub timeout_abs_ns: u64,
        /// In: 0 or [`VCPU_SSHOTTMR_FUTURE`].
        pub flags: u32,
        /// Padding.
        pub _pad0: u32,
    }

    /// `VCPUOP_register_vcpu_info`: where. The area must not cross a page.
    pub struct VcpuRegisterVcpuInfo ["struct vcpu_register_vcpu_info"] {
        /// In: the frame (PV: machine frame).
        pub mfn: u64,
        /// In: offset in it, in bytes.
        pub offset: u32,
        /// Zero.
        pub rsvd: u32,
    }

    /// `VCPUOP_get_physid`: the physical CPU.
    pub struct VcpuGetPhysid ["struct vcpu_get_physid"] {
        /// Out: APIC id in the low, ACPI id in the high word.
        pub phys_id: u64,
    }

    /// `VCPUOP_register_vcpu_time_memory_area`: where.
    pub struct VcpuRegisterTimeMemoryArea ["struct vcpu_register_time_memory_area"] {
        /// In: the guest's address of the area.
        pub addr ["addr.p"]: u64,
    }
}
