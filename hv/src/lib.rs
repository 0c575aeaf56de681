//! What a hypercall means.
//!
//! This library decides everything a guest can reach, in safe code that runs in host tests; the binary beside it
//! (`main.rs`, `machine/`) is the CPU. A hypercall goes one way: the machine's entry code calls
//! [`entry::on_hypercall`], [`hypercall`] decodes its arguments, the room that owns the state decides, and the result
//! goes back in `rax`.
//!
//! | room | what is decided there |
//! |---|---|
//! | [`hardware`] | the seam: all that the library asks of a machine |
//! | [`entry`] | the ways into the hypervisor, and what is due before a guest goes on |
//! | [`hypercall`] | the table of hypercalls: decode, call, encode |
//! | [`rules`], [`refusal`] | every check, numbered; what a refused guest gets and what the log says |
//! | [`domain`] | domains and their vCPUs |
//! | [`frames`] | machine frames: owner, reference and type counts; the allocator |
//! | [`memory`] | what a guest may ask about its memory: give, take, exchange, map |
//! | [`paging`] | page tables that guests write and the hypervisor checks |
//! | [`decode`] | the few instructions that are carried out for guests |
//! | [`evtchn`] | event channels |
//! | [`grant`] | grant tables |
//! | [`orders`] | what one CPU has others do at once |
//! | [`sched`], [`time`] | who runs, until when; clocks and timers |
//! | [`hvm`] | guests with hardware assistance: nested paging, exits |
//! | [`traps`] | exceptions to the guest, emulated instructions, CPUID, descriptors |
//! | [`control`] | what a toolstack and dom0 may ask; how dom0 is built |
//!
//! Words: a *frame* is 4 KiB of machine memory, an [`pv_abi::Mfn`] is its number; a *domain* is a guest; the *current*
//! vCPU is the one whose hypercall or fault is being handled.
//!
//! Lock order, outermost first: domain table, lifecycle of a domain, grant table (lower domain id first), event channels
//! (lower domain id first), event queues, run queue, timers, physical map of a domain, memory of a domain, frame
//! allocator, console. Frames themselves have no lock: their counts change by compare-and-exchange.
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

extern crate alloc;

pub mod call;
pub mod control;
pub mod decode;
pub mod domain;
pub mod entry;
pub mod evtchn;
pub mod frames;
pub mod grant;
pub mod hardware;
mod heap;
pub mod hvm;
pub mod hypercall;
pub mod hypervisor;
pub mod memory;
pub mod orders;
pub mod paging;
pub mod refusal;
pub mod registers;
pub mod rules;
pub mod sched;
pub mod time;
pub mod traps;

#[cfg(any(test, feature = "fake"))]
pub mod fake;

pub use call::Call;
pub use hardware::Machine;
pub use hypervisor::Hypervisor;
pub use refusal::Refusal;
