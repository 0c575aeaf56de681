//! A machine whose memory is ordinary memory, for host tests.
//!
//! [`FakeMachine`] does what the seam asks and remembers it: console output, forgotten translations, deadlines, port and
//! register accesses, and (when asked to) each write to memory in order. Guest virtual addresses are translated by
//! really walking the root table that is loaded, with its present, writable and user bits. [`Bed`] is a hypervisor on
//! such a machine, with helpers that tests of all rooms share.

mod bed;
mod event;
mod machine;
#[cfg(test)]
mod refusals;

pub use bed::{Bed, Guest};
pub use event::Event;
pub use machine::{FakeMachine, entry};
#[cfg(test)]
pub use refusals::broken_rules;
