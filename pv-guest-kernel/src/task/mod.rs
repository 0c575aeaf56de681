//! Threads, waiting, and who runs next.
//!
//! - [`run_queue`] decides (no machine in it, tested on a host);
//! - [`scheduler`] carries the decision out: it keeps the threads, switches stacks, and programs the timer;
//! - [`wait`] is how a thread waits for something: [`WaitQueue`] and [`Signal`].

pub mod run_queue;
pub mod scheduler;
#[cfg(target_os = "none")]
mod stack;
mod thread;
mod wait;

pub use scheduler::{exit, sleep_ns, sleep_until, spawn, spawn_with_stack, yield_now};
pub use thread::{State, Thread, ThreadId};
pub use wait::{Signal, WaitQueue};
