//! How the machine is switched off, as its ACPI tables say.
//!
//! The hypervisor switches off when it is told the values for the power registers; they are in the package `\_S5_` of
//! the DSDT. Only that package is looked for, by its name: nothing is interpreted.
//!
//! Source: ACPI 6.5 §5.2.5 (RSDP), §5.2.9 (FADT), §7.4.2 (`_Sx`), §20.2 (AML).

use alloc::vec::Vec;

/// Where the root pointer may be, in machine addresses.
pub const ROOT_AREA: core::ops::Range<u64> = 0xe_0000..0x10_0000;

const HEADER_BYTES: usize = 36;
/// No table of a real machine is larger.
const TABLE_MAX: usize = 4 << 20;
const SLEEP_ENABLE: u16 = 1 << 13;

/// Reads machine memory; none where it cannot be reached.
pub trait Memory {
    /// `len` bytes from `start` on.
    fn read(&mut self, start: u64, len: usize) -> Option<Vec<u8>>;
}

/// What to write to the two power registers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PowerOff {
    /// For PM1a control.
    pub a: u16,
    /// For PM1b control; 0 where there is none.
    pub b: u16,
}

/// Finds out how the machine is switched off.
pub fn power_off(memory: &mut impl Memory) -> Option<PowerOff> {
    let area = memory.read(ROOT_AREA.start, usize::try_from(ROOT_AREA.end - ROOT_AREA.start).ok()?)?;
    let fadt = tables(memory, &area)?.into_iter().find(|table| table.starts_with(b"FACP"))?;
    let long = number(&fadt, 140, 8).filter(|address| *address != 0);
    let dsdt = table(memory, long.or_else(|| number(&fadt, 40, 4))?)?;
    let (a, b) = sleep_types(&dsdt)?;
    let has_b = number(&fadt, 68, 4).is_some_and(|register| register != 0);
    let value = |kind: u8| u16::from(kind) << 10 | SLEEP_ENABLE;
    Some(PowerOff { a: value(a), b: if has_b { value(b) } else { 0 } })
}

/// The tables that the root pointer leads to.
fn tables(memory: &mut impl Memory, area: &[u8]) -> Option<Vec<Vec<u8>>> {
    let root = area.chunks(16).position(|chunk| chunk.starts_with(b"RSD PTR "))?;
    let pointer = area.get(root * 16..)?;
    let extended = number(pointer, 24, 8).filter(|address| pointer.get(15) >= Some(&2) && *address != 0);
    let (list, entry_bytes) = match extended {
        Some(address) => (address, 8),
        None => (number(pointer, 16, 4)?, 4),
    };
    let list = table(memory, list)?;
    let entries = list.get(HEADER_BYTES..)?.chunks_exact(entry_bytes);
    Some(entries.filter_map(|entry| table(memory, number(entry, 0, entry_bytes)?)).collect())
}

fn table(memory: &mut impl Memory, start: u64) -> Option<Vec<u8>> {
    let len = usize::try_from(number(&memory.read(start, 8)?, 4, 4)?).ok()?;
    (HEADER_BYTES..TABLE_MAX).contains(&len).then(|| memory.read(start, len))?
}

fn number(bytes: &[u8], at: usize, len: usize) -> Option<u64> {
    let bytes = bytes.get(at..at.checked_add(len)?)?;
    Some(bytes.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte)))
}

/// The first two elements of the package `_S5_`.
fn sleep_types(dsdt: &[u8]) -> Option<(u8, u8)> {
    const PACKAGE: u8 = 0x12;
    let names = dsdt.windows(5).enumerate();
    let (found, _) = names.into_iter().find(|(_, window)| *window == [b'_', b'S', b'5', b'_', PACKAGE])?;
    let package = dsdt.get(found + 5..)?;
    // The length takes one byte and as many more as its upper two bits say; one byte counts the elements.
    let elements = package.get(usize::from(package.first()? >> 6) + 2..)?;
    let (a, rest) = byte(elements)?;
    Some((a, byte(rest)?.0))
}

/// A small constant and what follows.
fn byte(aml: &[u8]) -> Option<(u8, &[u8])> {
    match aml {
        [0x0a, value, rest @ ..] => Some((*value, rest)),
        [value @ (0 | 1), rest @ ..] => Some((*value, rest)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    struct Machine(BTreeMap<u64, Vec<u8>>);

    impl Memory for Machine {
        fn read(&mut self, start: u64, len: usize) -> Option<Vec<u8>> {
            let (base, bytes) = self.0.range(..=start).next_back()?;
            let offset = usize::try_from(start - base).ok()?;
            bytes.get(offset..offset + len).map(<[u8]>::to_vec)
        }
    }

    fn with_header(name: &[u8; 4], body: &[u8]) -> Vec<u8> {
        let mut table = name.to_vec();
        table.extend((HEADER_BYTES as u32 + body.len() as u32).to_le_bytes());
        table.resize(HEADER_BYTES, 0);
        table.extend(body);
        table
    }

    fn machine(aml: &[u8]) -> Machine {
        let mut root = std::vec![0; 0x2_0000];
        root[0x100..0x108].copy_from_slice(b"RSD PTR ");
        root[0x110..0x114].copy_from_slice(&0x1000_u32.to_le_bytes());
        let mut fadt = std::vec![0; 80];
        fadt[4..8].copy_from_slice(&0x3000_u32.to_le_bytes());
        Machine(BTreeMap::from([
            (ROOT_AREA.start, root),
            (0x1000, with_header(b"RSDT", &0x2000_u32.to_le_bytes())),
            (0x2000, with_header(b"FACP", &fadt)),
            (0x3000, with_header(b"DSDT", aml)),
        ]))
    }

    #[test]
    fn the_sleep_type_comes_from_the_package_s5() {
        let aml = [b"junk\x08_S5_\x12\x0a\x04\x0a\x05\x01\x00\x00".as_slice(), b"more"].concat();
        assert_eq!(power_off(&mut machine(&aml)), Some(PowerOff { a: 5 << 10 | SLEEP_ENABLE, b: 0 }));
    }

    #[test]
    fn tables_that_are_missing_or_cut_off_give_nothing() {
        assert_eq!(power_off(&mut machine(b"no such package")), None);
        assert_eq!(power_off(&mut machine(b"\x08_S5_\x12")), None);
        let mut broken = machine(b"\x08_S5_\x12\x06\x04\x00\x00\x00\x00");
        broken.0.remove(&0x3000);
        assert_eq!(power_off(&mut broken), None);
        assert_eq!(power_off(&mut Machine(BTreeMap::new())), None);
    }
}
