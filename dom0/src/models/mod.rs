//! Models of devices, for guests that know no paravirtual ones: a serial port, a channel of ATA disks, a network card; the
//! [`board`] that puts them together, and what an [`access`] of a guest is to it.
//!
//! A model is a state and what a read, a write and the outside do to it; none knows where it is or who asks. What a guest
//! writes is hostile: no value and no sequence makes a model use more than its memory, or take longer than what is moved.

pub mod access;
pub mod ata;
pub mod board;
pub mod ne2000;
pub mod pci;
pub mod uart;

/// The memory of the guest whose devices are emulated.
pub trait Memory {
    /// Copies bytes out of it; false where there is not memory for all of them.
    fn read(&mut self, at: u64, into: &mut [u8]) -> bool;

    /// Copies bytes to it; false where there is not memory for all of them.
    fn write(&mut self, at: u64, from: &[u8]) -> bool;
}

#[cfg(test)]
mod fake {
    use std::vec::Vec;

    use super::Memory;

    /// Memory from 0 on.
    pub(super) struct Flat(pub(super) Vec<u8>);

    impl Flat {
        fn range(&self, at: u64, len: usize) -> Option<core::ops::Range<usize>> {
            let start = usize::try_from(at).ok()?;
            let end = start.checked_add(len)?;
            (end <= self.0.len()).then_some(start..end)
        }
    }

    impl Memory for Flat {
        fn read(&mut self, at: u64, into: &mut [u8]) -> bool {
            let range = self.range(at, into.len());
            range.is_some_and(|range| {
                into.copy_from_slice(&self.0[range]);
                true
            })
        }

        fn write(&mut self, at: u64, from: &[u8]) -> bool {
            let range = self.range(at, from.len());
            range.is_some_and(|range| {
                self.0[range].copy_from_slice(from);
                true
            })
        }
    }

    /// A guest whose memory is nowhere.
    pub(super) struct NoMemory;

    impl Memory for NoMemory {
        fn read(&mut self, _: u64, _: &mut [u8]) -> bool {
            false
        }

        fn write(&mut self, _: u64, _: &[u8]) -> bool {
            false
        }
    }
}
