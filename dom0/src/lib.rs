//! The service domain: the store, the toolstack, the console and the back ends that guests live on.
//!
//! This library is what the service domain means; it runs on the host under `cargo test`. The binary beside it is what
//! it runs on: threads, hypercalls, mapped pages and virtio devices of the first domain.
//!
//! - [`xenstore`]: the tree through which domains find each other;
//! - [`toolstack`]: guest descriptions, kernels, building and watching domains;
//! - [`console`]: one terminal, several guests;
//! - [`channel`]: what the host says to the toolstack, and hears;
//! - [`models`]: devices for guests that know no paravirtual ones;
//! - [`ramdisk`]: the files that came with this domain;
//! - [`acpi`]: how the machine is switched off; [`virtio`]: when a queue's other end is told.
//!
//! Nothing here needs more of a hypervisor than Xen 4.17 offers.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;
#[cfg(test)]
extern crate std;

pub mod acpi;
pub mod channel;
pub mod console;
pub mod ids;
pub mod models;
pub mod ramdisk;
pub mod toolstack;
pub mod virtio;
pub mod xenstore;
