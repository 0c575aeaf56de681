//! The machine: boot, entry code, page tables, descriptor tables, interrupt controllers, time, console.
//!
//! This is the only part of the hypervisor that may do what the compiler cannot check. Nothing here decides what a
//! guest may do.
//!
//! | file | what |
//! |---|---|
//! | `boot.s`, [`boot`], [`start`] | from the boot loader to the first guest |
//! | [`multiboot`], [`acpi`] | what the boot loader and the firmware say |
//! | [`layout`], [`mapping`], [`heap`] | the hypervisor's address space and memory |
//! | [`cpu`], [`vectors`] | a CPU's stacks, descriptor tables, gates |
//! | [`smp`] | the other CPUs: starting them, having them do something |
//! | `entry.s`, [`entry`] | the ways in and out |
//! | [`context`], [`fpu`], [`debug`] | what of a vCPU is in the CPU |
//! | `svm.s`, [`svm`] | guest mode |
//! | [`strings`] | what the CPU says of itself and emulators do not keep |
//! | [`fixup`], [`smap`] | instructions that may fault and say so; guests' pages out of reach |
//! | [`apic`], [`interrupts`], [`clock`], [`serial`], [`port`], [`power`] | devices |
//! | [`hardware`] | the library's `Machine` |
//! | [`messages`], [`panic`] | what is said, and the end |
#![expect(unsafe_code, reason = "the CPU is reached only through instructions the compiler cannot check")]

mod acpi;
mod apic;
mod boot;
mod clock;
mod context;
mod cpu;
mod debug;
mod entry;
mod fixup;
mod fpu;
mod hardware;
mod heap;
mod interrupts;
mod layout;
mod mapping;
mod messages;
mod multiboot;
mod panic;
mod port;
mod power;
mod serial;
mod smap;
mod smp;
mod start;
mod strings;
mod svm;
mod vectors;
