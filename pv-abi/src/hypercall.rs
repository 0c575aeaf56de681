//! The guest's side of the hypercalls: the `syscall` instruction, and one function for each call.
//!
//! A 64-bit PV kernel calls the hypervisor by `syscall`: number in rax, arguments in rdi, rsi, rdx, r10, r8, result in rax.
//! rcx and r11 are lost to the instruction, and Xen may change the registers of the arguments. An event may be delivered
//! before the next instruction, on the current stack.
//!
//! Functions are safe where the call cannot change memory that Rust knows of, beyond what it is given by reference. The
//! others are `unsafe` and say what the caller owes. All return the value, or the error it stands for.
//!
//! These work in kernel mode of a PV guest only; anywhere else `syscall` means something else. That is the one thing the
//! safe functions take for granted, so a crate with the feature `hypercall` belongs into a PV kernel.

// UNSAFETY: the hypervisor is reached only through an instruction, and what it does to memory follows from arguments that
// the compiler cannot check.
#![allow(unsafe_code, reason = "this module is the system-call instruction and what follows from it")]

mod calls;
mod raw;

pub use calls::*;
pub use raw::{raw0, raw1, raw2, raw3, raw4, raw5};
