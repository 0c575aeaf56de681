//! What the service domain runs on: hypercalls, mapped memory, devices.
//!
//! [`control`] is Xen's control interface as the builder needs it, [`queries`] the rest of it. A virtio device is found by
//! [`pci`], its memory comes from [`dma`], its interrupt through [`interrupt`], its queues are [`virtqueue`]s, some with
//! [`buffers`] of their own; [`disk`], [`net`] and [`port`] drive virtio disks, network cards and the serial port of the
//! control channel. [`power`] switches the machine off. What an emulated device needs of a guest is [`ioreq`] (its accesses
//! and interrupts) and [`view`] (its memory).

pub(crate) mod buffers;
pub(crate) mod control;
pub(crate) mod disk;
pub(crate) mod dma;
pub(crate) mod interrupt;
pub(crate) mod ioreq;
pub(crate) mod net;
pub(crate) mod pci;
pub(crate) mod port;
pub(crate) mod power;
pub(crate) mod queries;
pub(crate) mod view;
pub(crate) mod virtqueue;
