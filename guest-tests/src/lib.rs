//! What every guest test stands on: the way in, traps, hypercalls, verdicts.
//!
//! A guest test is a kernel of one file. It runs as the first domain of a hypervisor, checks one behaviour from outside,
//! and says for each check what it saw, on the console: `guest-test: NAME: ok`, or `guest-test: NAME: FAILED why`, and
//! at the end `guest-test: done`. The same ELF runs on hv and on real Xen, so no expectation is this project's invention.
#![no_std]
#![cfg(target_os = "none")]
#![expect(unsafe_code, reason = "a guest test is a kernel: entry, traps and hypercalls are instructions")]

pub mod assisted;
pub mod child;
pub mod errno;
mod memory;
mod runtime;
mod shared;
mod together;
mod traps;
mod vcpus;

pub use memory::*;
pub use runtime::*;
pub use shared::*;
pub use together::*;
pub use traps::*;
pub use vcpus::*;
