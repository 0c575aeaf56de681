//! The tables' part for a guest with the devices of [`Board`](crate::models::board::Board) and those of the hypervisor.
//!
//! Device D's pin P raises the I/O APIC's input 16 + ((4 D + D / 8 + P) mod 32), and by the links the line that the board
//! routes link (D + P) mod 4 to; a method says which holds, by what the kernel has told of itself.
//!
//! Source: ACPI 5.0 §5.2.9, §5.2.12, §6.2.12; Xen `docs/misc/hvm-emulated-unplug.pandoc`, `tools/libacpi` for the numbers.

use alloc::vec::Vec;

use super::aml;
use crate::models::board::{CARD, LINES};

const IO_APIC: u32 = 0xfec0_0000;
const IO_APIC_ID: u8 = 1;
/// Port of the power-management timer.
const TIMER: u16 = 0xb008;
/// The interrupt of the system controller.
const SYSTEM_LINE: u8 = 9;

/// The table of fixed hardware, with what a PC has: devices at their old places, a timer, a clock.
pub(super) fn fixed(mut table: Vec<u8>) -> Vec<u8> {
    let mut put = |at: usize, bytes: &[u8]| table[at..at + bytes.len()].copy_from_slice(bytes);
    put(76, &u32::from(TIMER).to_le_bytes());
    put(91, &[4]);
    // No general events: their registers, and how many bytes they have.
    put(80, &[0; 4]);
    put(92, &[0]);
    put(220, &[0; 12]);
    // Devices at their old places, but no display.
    put(109, &(1_u16 | 1 << 2).to_le_bytes());
    put(208, &[1, 32, 0, 0]);
    put(212, &u64::from(TIMER).to_le_bytes());
    table
}

/// The table of interrupt controllers, with a PC's others.
pub(super) fn interrupts(mut table: Vec<u8>) -> Vec<u8> {
    // There are two 8259s.
    table[40] |= 1;
    table.extend([1, 12, IO_APIC_ID, 0]);
    table.extend(IO_APIC.to_le_bytes());
    table.extend(0_u32.to_le_bytes());
    // The timer's line is the second input; the system controller's is level-triggered, active high.
    for (line, input, flags) in [(0, 2_u32, 0_u16), (SYSTEM_LINE, SYSTEM_LINE.into(), 0xd)] {
        table.extend([2, 10, 0, line]);
        table.extend(input.to_le_bytes());
        table.extend(flags.to_le_bytes());
    }
    table
}

/// Which of the controllers the kernel uses: 0 for the 8259s.
const MODE: &[u8] = b"MODE";

/// The devices.
pub(super) fn devices() -> Vec<u8> {
    let off: Vec<_> = (0..4).map(|_| aml::number(0)).collect();
    let terms = [
        aml::name(b"\\_S5_", &aml::package(&off)),
        aml::name(b"MODE", &aml::number(0)),
        aml::method(b"\\_PIC", 1, &[aml::keep_argument(MODE)]),
        aml::scope(b"\\_SB_", &[aml::device(b"PCI0", &host_bridge())]),
    ];
    terms.concat()
}

fn host_bridge() -> Vec<Vec<u8>> {
    let behind = [
        aml::buses(0, 0),
        aml::ports(0xcf8, 8),
        aml::port_window(0, 0xcf7),
        aml::port_window(0xd00, 0xffff),
        aml::memory_window(0xf000_0000, 0xfbff_ffff),
    ];
    alloc::vec![
        aml::name(b"_HID", &aml::kind(b"PNP0A03")),
        aml::name(b"_UID", &aml::number(0)),
        aml::name(b"_BBN", &aml::number(0)),
        aml::name(b"_CRS", &aml::resources(&behind)),
        aml::name(b"PINS", &routes(input)),
        aml::name(b"LINK", &routes(linked_line)),
        aml::method(b"_PRT", 0, &[aml::when(MODE, &[aml::give(b"PINS")]), aml::give(b"LINK")]),
        aml::device(b"ISA_", &isa()),
    ]
}

/// What is on the old bus.
fn isa() -> Vec<Vec<u8>> {
    let serial = [
        aml::name(b"_HID", &aml::kind(b"PNP0501")),
        aml::name(b"_UID", &aml::number(1)),
        aml::name(b"_CRS", &aml::resources(&[aml::ports(0x3f8, 8), aml::line(4)])),
    ];
    let clock = [
        aml::name(b"_HID", &aml::kind(b"PNP0B00")),
        aml::name(b"_CRS", &aml::resources(&[aml::ports(0x70, 2), aml::line(8)])),
    ];
    alloc::vec![
        aml::name(b"_ADR", &aml::number(0x0001_0000)),
        aml::device(b"COM1", &serial),
        aml::device(b"RTC_", &clock),
    ]
}

/// Where the pins of the network card lead.
fn routes(target: fn(u32) -> u32) -> Vec<u8> {
    let device = u32::from(CARD.device) << 16 | 0xffff;
    let entry = |pin| aml::package(&[aml::number(device), aml::number(pin), aml::number(0), aml::number(target(pin))]);
    aml::package(&(0..4).map(entry).collect::<Vec<_>>())
}

/// The I/O APIC's input.
fn input(pin: u32) -> u32 {
    let device = u32::from(CARD.device);
    16 + ((device * 4 + device / 8 + pin) & 31)
}

/// The 8259s' line.
fn linked_line(pin: u32) -> u32 {
    LINES[(u32::from(CARD.device) + pin) as usize & 3].into()
}
