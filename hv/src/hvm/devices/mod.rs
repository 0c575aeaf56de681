//! The devices of a guest with emulated ones that the hypervisor keeps inside, as Xen does: what interrupts pass through
//! and what tells the time. The others are in a domain of their own, behind requests.
//!
//! Each is a state and what a read, a write, a line and the time do to it; none knows another, [`chipset`] puts them
//! together. A time is in ns of the guest's own clock and never goes back; a device that may do something by itself says
//! when.

pub mod chipset;
pub mod ioapic;
pub mod pic;
pub mod pit;
pub mod pm;
pub mod rtc;
