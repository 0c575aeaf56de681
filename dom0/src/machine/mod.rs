//! What the service domain runs on: hypercalls, mapped memory, devices.
//!
//! [`control`] is Xen's control interface. A virtio device is found by [`pci`], its memory comes from [`dma`], its
//! interrupt through [`interrupt`]; [`disk`] and [`net`] drive virtio disks
//! and network cards. [`power`] switches the machine off.

pub(crate) mod control;
pub(crate) mod disk;
pub(crate) mod dma;
pub(crate) mod interrupt;
pub(crate) mod net;
pub(crate) mod pci;
pub(crate) mod power;
