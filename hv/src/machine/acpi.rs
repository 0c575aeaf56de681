//! What the firmware's tables say of interrupt controllers and of power.
//!
//! Only tables whose checksum is right are read, and a field past the end of its table is zero; so a damaged table
//! makes hardware missing, never a fault.
//!
//! Source: ACPI 6.5 §5.2.5 (root), §5.2.9 (fixed description), §5.2.12 (MADT), §7.4.2 (`\_S5`); PCI Firmware 3.3 (MCFG).

use alloc::vec::Vec;

use hv::hardware::LineMode;

use super::multiboot::{long, word};

/// An I/O APIC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct IoApicEntry {
    /// Its registers.
    pub(crate) address: u64,
    /// The global system interrupt of its first input.
    pub(crate) first_gsi: u32,
}

/// An interrupt of the ISA bus that is wired otherwise than one to one, edge-triggered, active high.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Override {
    /// The ISA interrupt.
    pub(crate) isa: u8,
    /// Where it arrives.
    pub(crate) gsi: u32,
    /// How.
    pub(crate) mode: LineMode,
}

/// How the machine is switched off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PowerOff {
    /// The PM1a control port.
    pub(crate) port_a: u16,
    /// The PM1b control port, 0 where there is none.
    pub(crate) port_b: u16,
    /// The sleep types of `\_S5` for the two.
    pub(crate) types: (u8, u8),
}

/// How the machine is reset: an I/O port and what to write there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Reset {
    /// The port.
    pub(crate) port: u16,
    /// The value.
    pub(crate) value: u8,
}

/// What was found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Acpi {
    /// Physical address of the root pointer.
    pub(crate) root: Option<u64>,
    /// Physical address of the local APICs' registers.
    pub(crate) local_apic: Option<u64>,
    /// The processors that may be used: their local APIC's id, and ACPI's own number.
    pub(crate) processors: Vec<[u8; 2]>,
    /// I/O APICs.
    pub(crate) io_apics: Vec<IoApicEntry>,
    /// ISA interrupts that are wired otherwise.
    pub(crate) overrides: Vec<Override>,
    /// PCI configuration space: address, segment, first and last bus.
    pub(crate) pci: Vec<(u64, u16, u8, u8)>,
    /// How to switch off.
    pub(crate) power_off: Option<PowerOff>,
    /// How to reset.
    pub(crate) reset: Option<Reset>,
}

/// Gives up to `length` bytes of physical memory.
pub(crate) type Memory<'a> = &'a dyn Fn(u64, usize) -> &'static [u8];

/// Bytes of a table's header.
const HEADER: usize = 36;

/// Reads the tables; `root` is a copy of the root pointer if the boot loader gave one.
pub(crate) fn read(root: Option<&[u8]>, memory: Memory<'_>) -> Acpi {
    let mut acpi = Acpi::default();
    let found = search(memory);
    let Some((address, root)) = found.or(root.map(|bytes| (0, bytes))) else {
        return acpi;
    };
    acpi.root = Some(address).filter(|&address| address != 0);
    let extended = root.get(15).is_some_and(|&revision| revision >= 2) && long(root, 24) != 0;
    let (list, width) = if extended { (long(root, 24), 8) } else { (word(root, 16).into(), 4) };
    let Some(list) = table(memory, list) else {
        return acpi;
    };
    for entry in list[HEADER..].chunks_exact(width) {
        let address = if width == 8 { long(entry, 0) } else { word(entry, 0).into() };
        let Some(table) = table(memory, address) else {
            continue;
        };
        match &table[..4] {
            b"APIC" => read_madt(&mut acpi, table),
            b"FACP" => read_fadt(&mut acpi, table, memory),
            b"MCFG" => read_mcfg(&mut acpi, table),
            _ => {}
        }
    }
    acpi
}

/// The root pointer lies on a 16-byte border between 0xe0000 and 0xfffff, or in the first KiB of the extended BIOS data.
fn search(memory: Memory<'_>) -> Option<(u64, &'static [u8])> {
    let extended = u64::from(word(memory(0x40e, 4), 0) & 0xffff) << 4;
    let places = [(0xe_0000, 0x2_0000), (extended, 0x400)];
    places.into_iter().filter(|&(start, _)| start >= 0x8_0000).find_map(|(start, length)| {
        let area = memory(start, length);
        (0..area.len().saturating_sub(36)).step_by(16).find_map(|at| {
            let root = &area[at..at + 36];
            (root.starts_with(b"RSD PTR ") && adds_up(&root[..20])).then_some((start + at as u64, root))
        })
    })
}

fn table(memory: Memory<'_>, address: u64) -> Option<&'static [u8]> {
    if address == 0 {
        return None;
    }
    let length = word(memory(address, HEADER), 4) as usize;
    let table = memory(address, length.min(1 << 20));
    (table.len() >= HEADER && table.len() == length && adds_up(table)).then_some(table)
}

fn adds_up(bytes: &[u8]) -> bool {
    bytes.iter().fold(0_u8, |sum, &byte| sum.wrapping_add(byte)) == 0
}

fn read_madt(acpi: &mut Acpi, table: &[u8]) {
    acpi.local_apic = Some(word(table, HEADER).into());
    let mut entries = table.get(HEADER + 8..).unwrap_or(&[]);
    while let [kind, length, ..] = *entries {
        let Some(entry) = entries.get(..usize::from(length)).filter(|entry| entry.len() >= 8) else {
            break;
        };
        match kind {
            0 if word(entry, 4) & 3 != 0 => acpi.processors.push([entry[3], entry[2]]),
            1 => acpi.io_apics.push(IoApicEntry { address: word(entry, 4).into(), first_gsi: word(entry, 8) }),
            2 if entry.len() >= 10 => acpi.overrides.push(Override {
                isa: entry[3],
                gsi: word(entry, 4),
                mode: LineMode { low: entry[8] & 3 == 3, level: entry[8] >> 2 & 3 == 3 },
            }),
            5 => acpi.local_apic = Some(long(entry, 4)),
            _ => {}
        }
        entries = &entries[usize::from(length)..];
    }
}

fn read_mcfg(acpi: &mut Acpi, table: &[u8]) {
    for entry in table.get(HEADER + 8..).unwrap_or(&[]).chunks_exact(16) {
        acpi.pci.push((long(entry, 0), u16::from_le_bytes([entry[8], entry[9]]), entry[10], entry[11]));
    }
}

fn read_fadt(acpi: &mut Acpi, table: &[u8], memory: Memory<'_>) {
    let extended = long(table, 140);
    let description = if extended != 0 { extended } else { word(table, 40).into() };
    let types = self::table(memory, description).and_then(sleep_types);
    let (port_a, port_b) = (word(table, 64) as u16, word(table, 68) as u16);
    if let (Some(types), true) = (types, port_a != 0) {
        acpi.power_off = Some(PowerOff { port_a, port_b, types });
    }
    // The reset register, where the flag says there is one and it is an I/O port.
    if word(table, 112) & 1 << 10 != 0 && table.get(116) == Some(&1) {
        acpi.reset = Some(Reset { port: word(table, 120) as u16, value: table.get(128).copied().unwrap_or(0) });
    }
}

/// The package `\_S5`: `08 _S5_ 12 length count`, then numbers as a byte with or without prefix 0x0a.
fn sleep_types(code: &[u8]) -> Option<(u8, u8)> {
    let at = code.windows(5).position(|five| five[..4] == *b"_S5_" && five[4] == 0x12)?;
    let length_bytes = usize::from(*code.get(at + 5)? >> 6) + 1;
    let mut numbers = code.get(at + 5 + length_bytes + 1..)?;
    let mut next = || {
        let value = if numbers.first()? == &0x0a {
            numbers = &numbers[1..];
            *numbers.first()?
        } else {
            // ZeroOp is 0, OneOp is 1.
            *numbers.first()?
        };
        numbers = &numbers[1..];
        Some(value)
    };
    Some((next()?, next().unwrap_or(0)))
}
