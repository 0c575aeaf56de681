//! Counts whose instructions a workload takes, from outside of the machine.
//!
//! QEMU loads this library as a plugin of its translator (`-plugin libcounter.so,…`). Nothing in the machine changes: no
//! counter costs a guest an instruction, and a hypervisor without counters of its own (Xen as Debian ships it) is counted
//! like ours. `cargo xtask compare` uses it.
//!
//! A guest marks a window with two instructions that do nothing, a long `nop` with a number in its displacement
//! ([`instruction::Mark`]). For each window the plugin writes a line of JSON ([`ledger::Record`]): the instructions of each
//! [`place::Place`], privileged instructions by kind, and each way into the hypervisor with what it took there.
//!
//! | file | holds |
//! |---|---|
//! | `instruction` | which instructions are privileged or serializing, and the marks |
//! | `place` | whose code a page holds: by its address, and by comparing it with the kernels' files |
//! | `ledger` | what is counted; no QEMU in it |
//! | `qemu` | the plugin interface (QEMU `include/qemu/qemu-plugin.h`, version 1) |
//!
//! It counts one CPU. An instruction that faults and is tried again counts twice, as does each round of a `rep`.
#![cfg_attr(test, allow(dead_code, reason = "a test has no QEMU around it"))]

mod instruction;
mod ledger;
mod place;
#[cfg(not(test))]
mod qemu;
