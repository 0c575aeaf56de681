//! Writes the byte code by which ACPI tables describe devices.
//!
//! A function gives the bytes of one term; terms in terms are their bytes in a row.
//!
//! Source: ACPI 5.0 §20.2 (the encoding), §6.4 (resources).

use alloc::vec::Vec;

/// A number.
pub(super) fn number(value: u32) -> Vec<u8> {
    match value {
        0 | 1 => alloc::vec![value as u8],
        2..=0xff => alloc::vec![0x0a, value as u8],
        _ => [&[0x0c], &value.to_le_bytes()[..]].concat(),
    }
}

/// An identifier of a kind of device, such as `PNP0A03`.
pub(super) fn kind(id: &[u8; 7]) -> Vec<u8> {
    let letter = |at: usize| u32::from(id[at] - b'@') & 0x1f;
    let digits = id[3..].iter().fold(0, |value, digit| value << 4 | char::from(*digit).to_digit(16).unwrap_or(0));
    let value = letter(0) << 26 | letter(1) << 21 | letter(2) << 16 | digits;
    [&[0x0c], &value.to_be_bytes()[..]].concat()
}

/// A named value.
pub(super) fn name(name: &[u8], value: &[u8]) -> Vec<u8> {
    [&[0x08], name, value].concat()
}

/// A list of values.
pub(super) fn package(values: &[Vec<u8>]) -> Vec<u8> {
    counted(&[0x12], &[&[values.len() as u8][..], &values.concat()].concat())
}

/// A place for names.
pub(super) fn scope(name: &[u8], terms: &[Vec<u8>]) -> Vec<u8> {
    counted(&[0x10], &[name, &terms.concat()].concat())
}

/// A device.
pub(super) fn device(name: &[u8; 4], terms: &[Vec<u8>]) -> Vec<u8> {
    counted(&[0x5b, 0x82], &[name, &terms.concat()[..]].concat())
}

/// A method with so many arguments.
pub(super) fn method(name: &[u8], arguments: u8, terms: &[Vec<u8>]) -> Vec<u8> {
    counted(&[0x14], &[name, &[arguments], &terms.concat()[..]].concat())
}

/// Does something where a name's value is not zero.
pub(super) fn when(name: &[u8], terms: &[Vec<u8>]) -> Vec<u8> {
    counted(&[0xa0], &[name, &terms.concat()[..]].concat())
}

/// Ends a method with a value.
pub(super) fn give(name: &[u8]) -> Vec<u8> {
    [&[0xa4], name].concat()
}

/// Keeps a method's first argument.
pub(super) fn keep_argument(name: &[u8]) -> Vec<u8> {
    [&[0x70, 0x68], name].concat()
}

/// What a device uses.
pub(super) fn resources(all: &[Vec<u8>]) -> Vec<u8> {
    let list = [&all.concat()[..], &[0x79, 0]].concat();
    counted(&[0x11], &[number(list.len() as u32), list].concat())
}

/// A few I/O ports.
pub(super) fn ports(first: u16, count: u8) -> Vec<u8> {
    let [low, high] = first.to_le_bytes();
    alloc::vec![0x47, 1, low, high, low, high, 1, count]
}

/// A line of the interrupt controllers.
pub(super) fn line(number: u8) -> Vec<u8> {
    let [low, high] = (1_u16 << number).to_le_bytes();
    alloc::vec![0x22, low, high]
}

/// Numbers of buses behind a bridge, both ends included.
pub(super) fn buses(first: u16, last: u16) -> Vec<u8> {
    window(2, 0, first, last)
}

/// Ports behind a bridge.
pub(super) fn port_window(first: u16, last: u16) -> Vec<u8> {
    window(1, 3, first, last)
}

/// The ends of a window are fixed.
const FIXED: u8 = 0x0c;

fn window(kind: u8, flags: u8, first: u16, last: u16) -> Vec<u8> {
    let words = [0, first, last, 0, last - first + 1].map(u16::to_le_bytes);
    [&[0x88, 13, 0, kind, FIXED, flags], words.as_flattened()].concat()
}

/// Memory behind a bridge, that may be written.
pub(super) fn memory_window(first: u32, last: u32) -> Vec<u8> {
    let words = [0, first, last, 0, last - first + 1].map(u32::to_le_bytes);
    [&[0x87, 23, 0, 0, FIXED, 1], words.as_flattened()].concat()
}

/// A term with its length, which counts itself.
fn counted(code: &[u8], body: &[u8]) -> Vec<u8> {
    let length = match body.len() {
        short @ 0..63 => alloc::vec![short as u8 + 1],
        middle @ 63..4094 => {
            let length = middle + 2;
            alloc::vec![0x40 | (length & 0xf) as u8, (length >> 4) as u8]
        }
        long => {
            let length = long + 3;
            alloc::vec![0x80 | (length & 0xf) as u8, (length >> 4) as u8, (length >> 12) as u8]
        }
    };
    [code, &length, body].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn terms_have_the_bytes_of_the_specification() {
        assert_eq!(kind(b"PNP0A03"), [0x0c, 0x41, 0xd0, 0x0a, 0x03]);
        assert_eq!(name(b"_UID", &number(1)), *b"\x08_UID\x01");
        assert_eq!(package(&[number(0), number(0x20)]), [0x12, 5, 2, 0, 0x0a, 0x20]);
        assert_eq!(resources(&[line(4)]), [0x11, 8, 0x0a, 5, 0x22, 0x10, 0, 0x79, 0]);
        assert_eq!(method(b"\\_PIC", 1, &[keep_argument(b"MODE")])[..4], [0x14, 0x0d, 0x5c, b'_']);
    }

    #[test]
    fn a_long_term_has_a_longer_length() {
        assert_eq!(counted(&[1], &[0; 62])[..3], [1, 63, 0]);
        assert_eq!(counted(&[1], &[0; 63])[..4], [1, 0x41, 4, 0]);
        assert_eq!(counted(&[1], &[0; 4094])[..5], [1, 0x81, 0, 1, 0]);
    }
}
