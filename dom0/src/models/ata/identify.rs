//! What a disk says of itself. Source: ATA/ATAPI-6 §8.15, table 26.

use backends::block::BlockDevice;

use super::{Drive, SECTOR_BYTES};

/// The most sectors between interrupts.
pub(super) const MOST_MULTIPLE: u8 = 16;
const SECTORS_28: u64 = 0x0fff_ffff;

/// Cylinders, heads and sectors of a track that every disk of a size shows.
fn usual_geometry(sectors: u64) -> (u16, u16, u16) {
    let (heads, track) = (16, 63);
    ((sectors / u64::from(heads * track)).clamp(1, 16_383) as u16, heads, track)
}

/// A text, padded with blanks, the first character in the upper half of a word.
fn text(words: &mut [u16], text: &str) {
    let mut bytes = text.bytes().chain(core::iter::repeat(b' '));
    for word in words {
        *word = u16::from_be_bytes([bytes.next().unwrap_or(b' '), bytes.next().unwrap_or(b' ')]);
    }
}

/// The 512 bytes.
pub(super) fn identify<D: BlockDevice>(drive: &Drive<D>) -> [u8; SECTOR_BYTES] {
    let sectors = drive.sectors();
    let (cylinders, heads, track) = usual_geometry(sectors);
    let per_cylinder = u64::from(drive.heads) * u64::from(drive.track);
    let current_cylinders = (sectors / per_cylinder.max(1)).min(0xffff) as u16;
    let reached = (u64::from(current_cylinders) * per_cylinder) as u32;
    let of_28 = sectors.min(SECTORS_28) as u32;

    let mut words = [0_u16; 256];
    let mut set = |at: usize, values: &[u16]| words[at..at + values.len()].copy_from_slice(values);
    // A disk that is fixed.
    set(0, &[0x0040, cylinders]);
    set(3, &[heads]);
    set(6, &[track]);
    set(47, &[0x8000 | u16::from(MOST_MULTIPLE)]);
    // Block numbers, IORDY, and a bus master.
    set(49, &[0x0b00, 0x4000]);
    // Words 54 to 58 and 64 to 70 hold.
    set(53, &[3, current_cylinders, drive.heads.into(), drive.track.into(), reached as u16, (reached >> 16) as u16]);
    set(59, &[if drive.multiple > 0 { 0x0100 | u16::from(drive.multiple) } else { 0 }]);
    set(60, &[of_28 as u16, (of_28 >> 16) as u16]);
    // Modes 0 to 2 of the bus master, and the one that is set; 3 and 4 of programmed I/O; 120 ns a word.
    set(63, &[0x0007 | 0x0100 << drive.mode, 3, 120, 120, 120, 120]);
    // ATA-3 to ATA-6.
    set(80, &[0x0078, 0]);
    // A write cache, NOP; flushes, 48-bit numbers. Then the same: what is on.
    let cache = if drive.caches { 0x20 } else { 0 };
    set(82, &[0x4020, 0x7400, 0x4000, 0x4000 | cache, 0x3400, 0x4000]);
    set(93, &[0x6001]);
    let [a, b, c, d] = [0, 16, 32, 48].map(|shift| (sectors >> shift) as u16);
    set(100, &[a, b, c, d]);
    let per_physical = (drive.physical_sector_bytes() / SECTOR_BYTES as u32).max(1).ilog2();
    if per_physical > 0 {
        set(106, &[0x6000 | per_physical as u16]);
    }
    text(&mut words[10..20], &drive.serial);
    text(&mut words[23..27], "1");
    text(&mut words[27..47], "Xenolith disk");
    bytes(&words)
}

fn bytes(words: &[u16; 256]) -> [u8; SECTOR_BYTES] {
    let mut bytes = [0; SECTOR_BYTES];
    for (pair, word) in bytes.chunks_mut(2).zip(words) {
        pair.copy_from_slice(&word.to_le_bytes());
    }
    bytes
}
