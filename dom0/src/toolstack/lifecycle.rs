//! What happens when guests stop.

use super::config::{Action, GuestConfig};
use super::control::StopReason;

/// The action a guest's description asks for when it stops for `reason`.
pub fn action(config: &GuestConfig, reason: StopReason) -> Action {
    match reason {
        StopReason::Poweroff | StopReason::Suspend => config.on_poweroff,
        StopReason::Reboot => config.on_reboot,
        StopReason::Crash | StopReason::Other(_) => config.on_crash,
        StopReason::Watchdog => config.on_watchdog,
    }
}
