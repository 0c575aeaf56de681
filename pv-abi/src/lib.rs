#![doc = include_str!("../README.md")]
#![no_std]
#![cfg_attr(not(feature = "hypercall"), forbid(unsafe_code))]

pub mod arch;
pub mod callback;
pub mod cpuid;
pub mod domctl;
pub mod elfnote;
pub mod errno;
pub mod event_channel;
pub mod features;
pub mod grant_table;
pub mod hvm;
#[cfg(feature = "hypercall")]
pub mod hypercall;
pub mod hypercall_page;
pub mod io;
pub mod layout;
pub mod mca;
pub mod memory;
mod newtypes;
pub mod nmi;
mod payload;
pub mod physdev;
pub mod platform;
pub mod sched;
pub mod sysctl;
pub mod vcpu;
pub mod version;
pub mod xen;

pub use newtypes::{DomId, GrantRef, MachineAddr, Mfn, PAGE_SHIFT, PAGE_SIZE, Pfn, Port, VcpuId};
