//! dom0's first page tables.

use core::ops::Range;

use pv_abi::Mfn;

use super::memory::Memory;
use crate::Hypervisor;
use crate::hardware::Machine;

const PRESENT: u64 = 1 << 0;
const WRITABLE: u64 = 1 << 1;
const USER: u64 = 1 << 2;
const ACCESSED: u64 = 1 << 5;
const DIRTY: u64 = 1 << 6;
const FRAME: u64 = 0x000f_ffff_ffff_f000;
/// An entry of an upper level.
const UPPER: u64 = PRESENT | WRITABLE | USER | ACCESSED | DIRTY;
/// An entry that maps a frame: the hypervisor makes it one of the guest kernel when it checks the table.
const LEAF: u64 = PRESENT | WRITABLE | ACCESSED | DIRTY;

/// Page tables being built.
pub(super) struct Tables<'a, M: Machine> {
    pub(super) hv: &'a Hypervisor<M>,
    pub(super) memory: &'a Memory,
    /// The root, a frame of the domain.
    pub(super) root: u64,
}

impl<M: Machine> Tables<'_, M> {
    /// Maps frames from `first` on at `start`, with new tables taken from `pool`; frames in `read_only` cannot be
    /// written. The tables are linked so that each is used right after it was taken.
    pub(super) fn map(&self, start: u64, frames: Range<u64>, pool: &mut Range<u64>, read_only: &Range<u64>) {
        let mut table = (u64::MAX, Mfn(0));
        for (n, pfn) in frames.enumerate() {
            let address = start + ((n as u64) << 12);
            if address >> 21 != table.0 {
                table = (address >> 21, self.level_1(address, pool));
            }
            let leaf = if read_only.contains(&pfn) { LEAF & !WRITABLE } else { LEAF };
            let entry = self.memory.mfn(pfn).0 << 12 | leaf;
            self.hv.machine.write_word(table.1, (address >> 12 & 0x1ff) as usize, entry);
        }
    }

    /// The level-1 table of an address.
    fn level_1(&self, address: u64, pool: &mut Range<u64>) -> Mfn {
        let mut table = self.memory.mfn(self.root);
        for shift in [39, 30, 21] {
            let index = (address >> shift & 0x1ff) as usize;
            let entry = self.hv.machine.read_word(table, index);
            table = if entry & PRESENT != 0 {
                Mfn((entry & FRAME) >> 12)
            } else {
                let new = pool.next().map(|pfn| self.memory.mfn(pfn));
                let new = new.expect("the layout counted the tables");
                self.hv.machine.write_word(table, index, new.0 << 12 | UPPER);
                new
            };
        }
        table
    }
}
