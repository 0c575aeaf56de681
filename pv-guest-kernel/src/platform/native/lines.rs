//! Which device waits for which interrupt line of the PICs.
//!
//! A device keeps a line raised until its driver has seen to it, and the driver is a thread. So an interrupt holds its line
//! back and wakes the drivers; each lets it through again ([`rearm`]) when it has looked.

use spin::Once;

use super::traps;
use crate::sync::IrqGuard;
use crate::task::Signal;

/// What is raised when a line is. PCI devices may share one: all who wait for it look.
static WAITING: [[Once<&'static Signal>; SHARED]; traps::LINES as usize] =
    [const { [const { Once::new() }; SHARED] }; traps::LINES as usize];

/// Devices that may share a line.
const SHARED: usize = 4;

/// Raises `signal` at each interrupt of `line` from now on; false when there is no such line, or no room for the device.
pub(super) fn listen(line: u8, signal: &'static Signal) -> bool {
    let Some(places) = WAITING.get(usize::from(line)) else { return false };
    let Some(place) = places.iter().find(|place| place.get().is_none()) else { return false };
    place.call_once(|| signal);
    rearm(line);
    true
}

/// The driver has looked: the line may interrupt again.
pub(super) fn rearm(line: u8) {
    let _irq = IrqGuard::new();
    traps::set_open(line, true);
}

/// The line's interrupt came.
pub(super) fn on_interrupt(line: u8) {
    traps::set_open(line, false);
    for signal in WAITING[usize::from(line)].iter().filter_map(Once::get) {
        signal.raise();
    }
}
