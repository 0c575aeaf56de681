//! Giving up the CPU, and stopping a domain.
//!
//! `HYPERVISOR_sched_op(cmd, arg)`: `cmd` is a `SCHEDOP_*`, `arg` the address of its struct where it has one.
//!
//! Xen: `public/sched.h`.

use crate::layout::{constants, structs};

constants! {
    header "sched.h";
    /// Lets another vCPU run. No argument.
    pub const SCHEDOP_YIELD [SCHEDOP_yield]: u32 = 0;
    /// Unmasks events and sleeps until one is pending. No argument.
    pub const SCHEDOP_BLOCK [SCHEDOP_block]: u32 = 1;
    /// Stops the domain; see [`SchedShutdown`]. Does not return, but after a resumed suspend.
    pub const SCHEDOP_SHUTDOWN [SCHEDOP_shutdown]: u32 = 2;
    /// Sleeps until one of some ports is pending or time is up; see [`SchedPoll`].
    pub const SCHEDOP_POLL [SCHEDOP_poll]: u32 = 3;
    /// Stops another domain; see [`SchedRemoteShutdown`]. For the toolstack.
    pub const SCHEDOP_REMOTE_SHUTDOWN [SCHEDOP_remote_shutdown]: u32 = 4;
    /// Records why the domain is going to stop; see [`SchedShutdown`].
    pub const SCHEDOP_SHUTDOWN_CODE [SCHEDOP_shutdown_code]: u32 = 5;
    /// Sets up, kicks or stops a watchdog; see [`SchedWatchdog`].
    pub const SCHEDOP_WATCHDOG [SCHEDOP_watchdog]: u32 = 6;
    /// Pins the vCPU to a physical CPU; see [`SchedPinOverride`]. For the first domain.
    pub const SCHEDOP_PIN_OVERRIDE [SCHEDOP_pin_override]: u32 = 7;

    /// The domain exited normally: clean up and destroy.
    pub const SHUTDOWN_POWEROFF [SHUTDOWN_poweroff]: u32 = 0;
    /// Clean up, destroy and start anew.
    pub const SHUTDOWN_REBOOT [SHUTDOWN_reboot]: u32 = 1;
    /// Clean up, save, destroy.
    pub const SHUTDOWN_SUSPEND [SHUTDOWN_suspend]: u32 = 2;
    /// The domain crashed.
    pub const SHUTDOWN_CRASH [SHUTDOWN_crash]: u32 = 3;
    /// Its watchdog expired.
    pub const SHUTDOWN_WATCHDOG [SHUTDOWN_watchdog]: u32 = 4;
    /// Reset the domain's state without destroying it.
    pub const SHUTDOWN_SOFT_RESET [SHUTDOWN_soft_reset]: u32 = 5;
    /// The largest reason.
    pub const SHUTDOWN_MAX: u32 = 5;
}

structs! {
    header "sched.h";

    /// `SCHEDOP_shutdown`, `SCHEDOP_shutdown_code`: why.
    pub struct SchedShutdown ["struct sched_shutdown"] {
        /// In: `SHUTDOWN_*`.
        pub reason: u32,
    }

    /// `SCHEDOP_poll`: what to wait for.
    pub struct SchedPoll ["struct sched_poll"] {
        /// In: address of an array of ports (`u32`).
        pub ports: u64,
        /// In: number of ports, at most 128.
        pub nr_ports: u32,
        /// Padding.
        pub _pad0: u32,
        /// In: absolute system time in ns; 0 for no limit.
        pub timeout: u64,
    }

    /// `SCHEDOP_remote_shutdown`: whom to stop, and why.
    pub struct SchedRemoteShutdown ["struct sched_remote_shutdown"] {
        /// In: the domain.
        pub domain_id: u16,
        /// Padding.
        pub _pad0: u16,
        /// In: `SHUTDOWN_*`.
        pub reason: u32,
    }

    /// `SCHEDOP_watchdog`: one of a domain's two watchdogs.
    pub struct SchedWatchdog ["struct sched_watchdog"] {
        /// In: 0 for a new one, whose number is returned; else its number.
        pub id: u32,
        /// In: seconds until it expires; 0 stops it.
        pub timeout: u32,
    }

    /// `SCHEDOP_pin_override`: where the vCPU shall run.
    pub struct SchedPinOverride ["struct sched_pin_override"] {
        /// In: the physical CPU; negative gives the old affinity back.
        pub pcpu: i32,
    }
}

/// Why a domain stopped.
///
/// Xen: `SHUTDOWN_*` in `public/sched.h`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum ShutdownReason {
    /// It exited normally.
    Poweroff = SHUTDOWN_POWEROFF,
    /// It wants to start anew.
    Reboot = SHUTDOWN_REBOOT,
    /// It wants to be saved.
    Suspend = SHUTDOWN_SUSPEND,
    /// It crashed.
    Crash = SHUTDOWN_CRASH,
    /// Its watchdog expired.
    Watchdog = SHUTDOWN_WATCHDOG,
    /// It wants its state reset.
    SoftReset = SHUTDOWN_SOFT_RESET,
}

impl ShutdownReason {
    /// The reason with this number, if there is one.
    pub const fn from_raw(reason: u32) -> Option<ShutdownReason> {
        Some(match reason {
            SHUTDOWN_POWEROFF => ShutdownReason::Poweroff,
            SHUTDOWN_REBOOT => ShutdownReason::Reboot,
            SHUTDOWN_SUSPEND => ShutdownReason::Suspend,
            SHUTDOWN_CRASH => ShutdownReason::Crash,
            SHUTDOWN_WATCHDOG => ShutdownReason::Watchdog,
            SHUTDOWN_SOFT_RESET => ShutdownReason::SoftReset,
            _ => return None,
        })
    }
}
