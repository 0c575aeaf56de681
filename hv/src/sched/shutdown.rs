//! A domain stops for good, or until its toolstack resumes it.

use log::info;
use pv_abi::sched::{SHUTDOWN_CRASH, SHUTDOWN_REBOOT, SHUTDOWN_SOFT_RESET, SHUTDOWN_SUSPEND, SHUTDOWN_WATCHDOG};
use pv_abi::xen::VIRQ_DOM_EXC;

use super::{pause, unpause};
use crate::Hypervisor;
use crate::domain::Domain;
use crate::hardware::Machine;
use crate::{control, evtchn};

/// Stops a domain with a reason (`SHUTDOWN_*`) and tells dom0; nothing where it has stopped. When dom0 itself stops, so
/// does the machine.
pub fn shutdown<M: Machine>(hv: &Hypervisor<M>, domain: &Domain, reason: u32) {
    let reason = {
        let mut lifecycle = domain.lifecycle.lock();
        if lifecycle.shutdown.is_some() {
            return;
        }
        let reason = lifecycle.latched.unwrap_or(reason);
        lifecycle.shutdown = Some(reason);
        reason
    };
    info!("d{}: {}", domain.id.0, reason_name(reason));
    control::on_shutdown(hv, domain, reason);
    pause(hv, domain);
    evtchn::raise_global_virq(hv, VIRQ_DOM_EXC);
}

/// Lets a domain go on that has stopped (`XEN_DOMCTL_resumedomain`); nothing where it has not.
pub fn resume<M: Machine>(hv: &Hypervisor<M>, domain: &Domain) {
    let stopped = {
        let mut lifecycle = domain.lifecycle.lock();
        lifecycle.latched = None;
        lifecycle.shutdown.take()
    };
    if stopped.is_some() {
        unpause(hv, domain);
    }
}

fn reason_name(reason: u32) -> &'static str {
    match reason {
        SHUTDOWN_REBOOT => "reboots",
        SHUTDOWN_SUSPEND => "suspends",
        SHUTDOWN_CRASH => "crashed",
        SHUTDOWN_WATCHDOG => "was stopped by its watchdog",
        SHUTDOWN_SOFT_RESET => "asks for a soft reset",
        _ => "powers off",
    }
}
