//! Switching off and starting again.
//!
//! Source: ACPI 6.5 §4.8.3.2 (PM1 control), §4.8.3.6 (reset); 8042 data sheet.

use core::fmt::Write;

use spin::Once;
use x86_64::instructions::{hlt, interrupts};

use super::acpi::{Acpi, PowerOff, Reset};
use super::port;

static WAYS: Once<(Option<PowerOff>, Option<Reset>)> = Once::new();

/// QEMU's `isa-debug-exit`, where the machine has one: ends QEMU with a failure.
const DEBUG_EXIT: u16 = 0xf4;
/// What is written there after a panic; QEMU's status is twice this plus one.
const PANIC_STATUS: u32 = 0x10;
/// SLP_EN of PM1 control.
const SLEEP: u16 = 1 << 13;

/// Remembers how this machine is switched off and reset.
pub(crate) fn prepare(acpi: &Acpi) {
    WAYS.call_once(|| (acpi.power_off, acpi.reset));
}

/// Stops for ever.
pub(crate) fn halt() -> ! {
    loop {
        interrupts::disable();
        hlt();
    }
}

/// Switches off.
pub(crate) fn off() -> ! {
    if let Some((Some(way), _)) = WAYS.get() {
        port::write16(way.port_a, u16::from(way.types.0) << 10 | SLEEP);
        if way.port_b != 0 {
            port::write16(way.port_b, u16::from(way.types.1) << 10 | SLEEP);
        }
    }
    port::write32(DEBUG_EXIT, 0);
    halt()
}

/// Starts again: by the register that ACPI names, the chipset's, the keyboard controller's, and by a fault without a
/// handler.
pub(crate) fn reboot() -> ! {
    if let Some((_, Some(way))) = WAYS.get() {
        port::write8(way.port, way.value);
        wait();
    }
    port::write8(0xcf9, 0x06);
    wait();
    port::write8(0x64, 0xfe);
    wait();
    let nothing = x86_64::structures::DescriptorTablePointer { limit: 0, base: x86_64::VirtAddr::zero() };
    // SAFETY: the next exception is meant to end this machine's work.
    unsafe { x86_64::instructions::tables::lidt(&nothing) };
    interrupts::int3();
    halt()
}

fn wait() {
    for _ in 0..100_000 {
        // A read of this port takes about a microsecond.
        port::read8(0x80);
    }
}

/// What follows a panic.
pub(crate) fn after_panic(out: &mut impl Write, reboots: bool) -> ! {
    port::write32(DEBUG_EXIT, PANIC_STATUS);
    if !reboots {
        let _ = writeln!(out, "(hv) Stopped, as noreboot asks.");
        halt()
    }
    let _ = writeln!(out, "(hv) Starting again in five seconds.");
    for _ in 0..50 {
        wait();
    }
    reboot()
}

/// Ends a start that failed; where a harness watches, QEMU ends with status 1.
pub(crate) fn give_up() -> ! {
    port::write32(DEBUG_EXIT, 0);
    halt()
}
