//! Starts Linux by its own protocol, at the 64-bit entry of the unpacked kernel.
//!
//! Behind one another lie page tables that show the first 4 GiB where they are, a page of parameters, and the command line.
//! The kernel gets the parameters' address in rsi.
//!
//! Source: Linux `Documentation/arch/x86/boot.rst`, `zero-page.rst`.

use alloc::vec::Vec;
use core::ops::Range;

use pv_abi::hvm::HvmHwCpu;
use pv_abi::memory::E820Entry;

use super::build::to_index;
use super::layout::PAGE;
use super::pvh::long_cpu;

/// Pages of the tables: one of each upper level, and one for each GiB.
const TABLE_PAGES: u64 = 2 + GIBS;
const GIBS: u64 = 4;
const PARAMETERS: u64 = TABLE_PAGES * PAGE;
const COMMAND_LINE: u64 = PARAMETERS + PAGE;

/// Places in the page of parameters.
mod place {
    pub(super) const TABLES: usize = 0x070;
    pub(super) const RAMDISK_HIGH: [usize; 2] = [0x0c0, 0x0c4];
    pub(super) const MEMORY_COUNT: usize = 0x1e8;
    pub(super) const SIGNATURE: usize = 0x1fe;
    pub(super) const MAGIC: usize = 0x202;
    pub(super) const VERSION: usize = 0x206;
    pub(super) const LOADER: usize = 0x210;
    pub(super) const FLAGS: usize = 0x211;
    pub(super) const RAMDISK: [usize; 2] = [0x218, 0x21c];
    pub(super) const COMMAND_LINE: usize = 0x228;
    pub(super) const ALIGNMENT: usize = 0x230;
    pub(super) const COMMAND_LINE_BYTES: usize = 0x238;
    pub(super) const MEMORY: usize = 0x2d0;
}

/// Version 2.15 of the protocol; a loader without a number; the kernel lies at 1 MiB or above.
const VERSION: u16 = 0x020f;
const LOADER: u8 = 0xff;
const LOADED_HIGH: u8 = 1;
/// What the kernel's place is a multiple of.
const ALIGNMENT: u32 = 0x20_0000;
const COMMAND_LINE_BYTES: u32 = 2047;
/// Entries of the memory map that fit.
const MEMORY_MAX: usize = 128;

/// What Linux is told.
#[derive(Clone, Debug)]
pub(super) struct Told<'a> {
    pub(super) command_line: &'a str,
    /// Bytes; empty without one.
    pub(super) ramdisk: Range<u64>,
    pub(super) memory: &'a [E820Entry],
    /// The ACPI tables' root.
    pub(super) tables: u64,
}

impl Told<'_> {
    /// Everything as it is to lie at an address.
    pub(super) fn at(&self, address: u64) -> Vec<u8> {
        let mut out = alloc::vec![0; to_index(COMMAND_LINE)];
        write_tables(&mut out, address);
        self.write_parameters(&mut out[to_index(PARAMETERS)..], address);
        out.extend(self.command_line.as_bytes());
        out.push(0);
        out
    }

    fn write_parameters(&self, page: &mut [u8], address: u64) {
        let mut put = |at: usize, bytes: &[u8]| page[at..at + bytes.len()].copy_from_slice(bytes);
        put(place::TABLES, &self.tables.to_le_bytes());
        put(place::SIGNATURE, &[0x55, 0xaa]);
        put(place::MAGIC, b"HdrS");
        put(place::VERSION, &VERSION.to_le_bytes());
        put(place::LOADER, &[LOADER]);
        put(place::FLAGS, &[LOADED_HIGH]);
        put(place::ALIGNMENT, &ALIGNMENT.to_le_bytes());
        put(place::COMMAND_LINE, &((address + COMMAND_LINE) as u32).to_le_bytes());
        put(place::COMMAND_LINE_BYTES, &COMMAND_LINE_BYTES.to_le_bytes());
        let ramdisk = [self.ramdisk.start, self.ramdisk.end - self.ramdisk.start];
        for (value, (low, high)) in ramdisk.into_iter().zip(place::RAMDISK.into_iter().zip(place::RAMDISK_HIGH)) {
            put(low, &(value as u32).to_le_bytes());
            put(high, &((value >> 32) as u32).to_le_bytes());
        }
        let entries = self.memory.iter().take(MEMORY_MAX);
        put(place::MEMORY_COUNT, &[entries.len() as u8]);
        for (index, entry) in entries.enumerate() {
            let bytes = entry.to_bytes();
            put(place::MEMORY + index * bytes.len(), &bytes);
        }
    }
}

/// Tables of 2 MiB pages, each of which shows what is at its own address.
fn write_tables(out: &mut [u8], address: u64) {
    /// Present, writable; a page at a level above the last.
    const TABLE: u64 = 3;
    const LARGE: u64 = 1 << 7;
    let mut put = |page: u64, index: u64, entry: u64| {
        out[to_index(page * PAGE + index * 8)..][..8].copy_from_slice(&entry.to_le_bytes());
    };
    put(0, 0, (address + PAGE) | TABLE);
    for gib in 0..GIBS {
        put(1, gib, (address + (2 + gib) * PAGE) | TABLE);
        (0..512).for_each(|index| put(2 + gib, index, gib << 30 | index << 21 | TABLE | LARGE));
    }
}

/// The first virtual CPU, where everything lies at `address`.
pub(super) fn first_vcpu(entry: u64, address: u64) -> HvmHwCpu {
    HvmHwCpu { rsi: address + PARAMETERS, ..long_cpu(entry, address) }
}
