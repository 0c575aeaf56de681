//! dom0's memory while it is built: which machine frame is which frame of the domain.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::ops::Range;

use pv_abi::Mfn;

use super::BuildError;
use crate::Hypervisor;
use crate::domain::Domain;
use crate::frames::{self, Block, MAX_ORDER};
use crate::hardware::Machine;

/// The domain's frames, in runs that are in one piece in the machine.
pub(super) struct Memory {
    /// First frame of the domain, first machine frame, how many; in order.
    runs: Vec<(u64, Mfn, u64)>,
    frames: u64,
}

impl Memory {
    /// Takes `frames` frames for the domain; those of the ramdisk are the machine's frames that hold it already.
    pub(super) fn allocate<M: Machine>(
        hv: &Hypervisor<M>,
        domain: &Arc<Domain>,
        frames: u64,
        ramdisk: (u64, Range<u64>),
    ) -> Result<Self, BuildError> {
        let mut memory = Self { runs: Vec::new(), frames };
        let (place, machine) = ramdisk;
        let count = machine.end - machine.start;
        memory.fill(hv, domain, 0..place)?;
        if count > 0 {
            for mfn in machine.clone() {
                frames::give_back(hv, domain, Mfn(mfn));
            }
            memory.runs.push((place, Mfn(machine.start), count));
        }
        memory.fill(hv, domain, place + count..frames)?;
        memory.name_all(hv);
        Ok(memory)
    }

    /// Takes free frames for a range of the domain's, in as large pieces as there are.
    fn fill<M: Machine>(
        &mut self,
        hv: &Hypervisor<M>,
        domain: &Arc<Domain>,
        range: Range<u64>,
    ) -> Result<(), BuildError> {
        let mut next = range.start;
        let mut largest = MAX_ORDER;
        while next < range.end {
            let order = (range.end - next).ilog2().min(largest);
            let block = Block { order, keep_contents: true, ..Block::default() };
            match frames::allocate_domain_block(hv, domain, block) {
                Ok(first) => {
                    self.runs.push((next, first, 1 << order));
                    next += 1 << order;
                }
                Err(_) if order == 0 => {
                    return Err(BuildError::NoMemory { frames: range.end - next });
                }
                Err(_) => largest = order - 1,
            }
        }
        Ok(())
    }

    /// Tells the machine-to-physical table.
    fn name_all<M: Machine>(&self, hv: &Hypervisor<M>) {
        for (first, mfn, count) in &self.runs {
            for n in 0..*count {
                hv.machine.set_m2p(Mfn(mfn.0 + n), first + n);
            }
        }
    }

    /// The machine's frame that is this frame of the domain.
    ///
    /// # Panics
    /// Past the domain's last frame: the layout does not go there.
    pub(super) fn mfn(&self, pfn: u64) -> Mfn {
        assert!(pfn < self.frames, "frame {pfn:#x} of a domain that has {:#x}", self.frames);
        let place = self.runs.partition_point(|run| run.0 <= pfn) - 1;
        let (first, mfn, _) = self.runs[place];
        Mfn(mfn.0 + (pfn - first))
    }

    /// Clears frames.
    pub(super) fn clear<M: Machine>(&self, hv: &Hypervisor<M>, range: Range<u64>) {
        for pfn in range {
            hv.machine.clear_frame(self.mfn(pfn));
        }
    }

    /// Copies bytes to an address of the domain, counted from its frame 0.
    pub(super) fn write<M: Machine>(&self, hv: &Hypervisor<M>, address: u64, bytes: &[u8]) {
        let mut done = 0;
        while done < bytes.len() {
            let at = address + done as u64;
            let offset = (at & 0xfff) as usize;
            let here = (4096 - offset).min(bytes.len() - done);
            hv.machine.write_bytes(self.mfn(at >> 12), offset, &bytes[done..done + here]);
            done += here;
        }
    }

    /// Writes the list of frames: the machine frame of each of the domain's, 8 bytes each.
    pub(super) fn write_list<M: Machine>(&self, hv: &Hypervisor<M>, list: u64) {
        for (first, mfn, count) in &self.runs {
            for n in 0..*count {
                let index = first + n;
                hv.machine.write_word(self.mfn(list + index / 512), (index % 512) as usize, mfn.0 + n);
            }
        }
    }
}
