//! What each interrupt vector leads to.

use hv::{Hypervisor, entry};

use super::hardware::Hardware;
use super::smp;
use super::vectors::{FIRST_LINE, FIRST_MESSAGE, KICK, LINES, MESSAGES, SPURIOUS, TIMER};

/// Handles an interrupt; the caller then looks what is due.
pub(crate) fn handle(hv: &Hypervisor<Hardware>, vector: u8) {
    match vector {
        TIMER => {
            hv.machine.local_apic.end_of_interrupt();
            entry::on_timer(hv);
        }
        KICK => {
            hv.machine.local_apic.end_of_interrupt();
            entry::on_kick(hv);
        }
        SPURIOUS => {}
        _ if in_range(vector, FIRST_LINE, LINES) => on_line(hv, u32::from(vector - FIRST_LINE)),
        _ if in_range(vector, FIRST_MESSAGE, MESSAGES) => {
            hv.machine.local_apic.end_of_interrupt();
            entry::on_message(hv, u32::from(vector - FIRST_MESSAGE));
        }
        _ => {
            hv.machine.local_apic.end_of_interrupt();
            log::warn!("interrupt {vector:#x} has no meaning");
        }
    }
}

const fn in_range(vector: u8, first: u8, count: u32) -> bool {
    vector >= first && ((vector - first) as u32) < count
}

fn on_line(hv: &Hypervisor<Hardware>, gsi: u32) {
    if hv.machine.console_line() == Some(gsi) {
        let has_input = hv.machine.console.on_interrupt();
        hv.machine.local_apic.end_of_interrupt();
        if has_input {
            entry::on_console_input(hv);
        }
        return;
    }
    // A level-triggered line is masked before the end of the interrupt, or it would come again at once; the guest's
    // acknowledgement unmasks it.
    entry::on_line(hv, gsi);
    hv.machine.local_apic.end_of_interrupt();
}

/// A non-maskable interrupt: what another CPU has this one do at once. Nothing that could be borrowed by the interrupted
/// code is used.
pub(crate) fn on_nmi() {
    smp::follow_orders();
}
