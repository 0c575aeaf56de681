//! A small but real kernel, and its port to Xen's paravirtual interface.
//!
//! The portable kernel ([`mm`], [`task`], [`process`], [`syscall`], [`console`], [`time`]) asks one [`platform::Platform`]
//! for what only a machine or a hypervisor can do. There are three: `platform::native`, the PC the kernel was written for,
//! `platform::pv`, Xen, and `platform::pvh`, Xen with hardware assistance. One ELF image carries all entries; the entry
//! that was taken decides.
//!
//! A kernel binary is this library plus one function:
//! ```ignore
//! #![no_std]
//! #![no_main]
//! pv_guest_kernel::kernel_main!(main);
//! fn main() { pv_guest_kernel::println!("hello"); }
//! ```
//! and a `build.rs` that links with `kernel.ld` of this folder. `main` runs in the first thread, with the heap, threads,
//! timers, events and the console ready. When it returns the domain powers off.
//!
//! What a service domain or a front end uses: [`platform::pv`] (`start_info`, `events`, `grants`, `memory`, `foreign`,
//! `hypercall`, `hal`), [`task`] (threads, wait queues), [`time`], [`console`], [`mm::frames`], [`ramdisk`].
#![no_std]
#![cfg_attr(not(target_os = "none"), expect(dead_code, reason = "without a machine nothing enters the kernel"))]

extern crate alloc;
#[cfg(test)]
extern crate std;

pub mod boot;
pub mod console;
pub mod cpus;
pub mod fault;
#[cfg(target_os = "none")]
#[expect(unsafe_code, reason = "a mark is an instruction of its own")]
#[path = "../user/mark.rs"]
pub mod mark;
pub mod mm;
pub mod platform;
pub mod process;
pub mod shell;
pub mod sync;
pub mod syscall;
pub mod task;
pub mod time;
#[cfg(target_os = "none")]
mod trap;
pub mod url;

pub use boot::{command_line, ramdisk};

#[cfg(target_os = "none")]
mod panic;
