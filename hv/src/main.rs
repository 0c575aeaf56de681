//! The hypervisor: the machine beneath the library.
//!
//! All of it is in [`machine`]; what a guest may do is decided in the library (`hv`).
#![no_std]
#![no_main]

extern crate alloc;

mod machine;
