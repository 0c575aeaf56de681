//! All that there is one of.

use spin::Mutex;

use crate::domain::DomainTable;
use crate::frames::{Allocator, FrameTable};
use crate::hardware::Machine;
use crate::sched::Scheduler;
use crate::time::Timers;

/// The hypervisor: one machine and what is known about it.
pub struct Hypervisor<M: Machine> {
    /// The CPU and its board.
    pub machine: M,
    /// What each machine frame is.
    pub frames: FrameTable,
    /// Free frames.
    pub allocator: Mutex<Allocator>,
    /// All domains.
    pub domains: DomainTable,
    /// Who runs next.
    pub scheduler: Scheduler,
    /// What is due when.
    pub timers: Timers,
    /// Physical interrupts and who they go to.
    pub interrupts: crate::control::physdev::Interrupts,
    /// The console ring that `sysctl` readconsole shows, and who gets input.
    pub console: crate::control::console::Console,
    /// The command line's options.
    pub options: crate::control::options::Options,
}
