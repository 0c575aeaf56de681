//! Models of devices, for guests that know no paravirtual ones: a serial port, a channel of ATA disks, a network card;
//! and the [`board`] that puts them together.
//!
//! A model is a state and what a read, a write and the outside do to it; none knows where it is or who asks. What a guest
//! writes is hostile: no value and no sequence makes a model use more than its memory, or take longer than what is moved.

pub mod ata;
pub mod board;
pub mod ne2000;
pub mod pci;
pub mod uart;
