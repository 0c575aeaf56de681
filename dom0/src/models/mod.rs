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
