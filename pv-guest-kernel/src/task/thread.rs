//! A thread: a kernel stack, a place to keep its stack pointer, and what it waits for.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::sync::Arc;
use core::fmt;
use core::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use super::wait::Signal;
use crate::platform::TrapFrame;
use crate::platform::fpu::FpuState;
use crate::process::Process;
use crate::sync::IrqLock;

/// The number of a thread; never used twice.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ThreadId(pub u64);

impl fmt::Display for ThreadId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// What a thread is doing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum State {
    /// On the CPU, or in the run queue.
    Runnable,
    /// Waiting to be woken, at the latest at `deadline_ns`.
    Waiting {
        /// When it is woken in any case.
        deadline_ns: Option<u64>,
    },
    /// Will not run again.
    Dead,
}

/// What a new thread does.
pub(super) type Body = Box<dyn FnOnce() + Send>;

/// A thread of the kernel; a user process is such a thread that also goes to user mode.
pub struct Thread {
    /// Its number.
    pub id: ThreadId,
    /// What it is called in `ps`.
    pub name: String,
    /// Nanoseconds on the CPU so far, without the current turn.
    pub cpu_ns: AtomicU64,
    /// Raised when the thread has ended.
    pub done: Arc<Signal>,
    pub(super) state: IrqLock<State>,
    /// It was woken while it ran: its next wait returns at once. Written under the scheduler's lock.
    pub(super) woken: AtomicBool,
    /// The CPU it runs on, ran on last, or sleeps on. Written under the scheduler's lock.
    pub(super) cpu: AtomicUsize,
    /// A CPU stands on its stack.
    pub(super) on_cpu: AtomicBool,
    /// Stack pointer while another thread runs.
    pub(super) saved_sp: AtomicUsize,
    pub(super) body: IrqLock<Option<Body>>,
    /// The process it runs in user mode, if any.
    pub process: IrqLock<Option<Arc<Process>>>,
    /// Where it enters user mode once its body has returned.
    pub(crate) user_frame: IrqLock<Option<TrapFrame>>,
    #[cfg(target_os = "none")]
    pub(super) stack: super::stack::KernelStack,
    /// Top-level page table of its process in user mode; 0 for none.
    pub(super) user_root: AtomicU64,
    /// Its user mode's floating-point registers while another thread runs.
    pub(super) fpu: IrqLock<FpuState>,
}

impl Thread {
    /// What the thread is doing.
    #[must_use]
    pub fn state(&self) -> State {
        *self.state.lock()
    }

    /// The CPU it runs on, or ran on last.
    #[must_use]
    pub fn cpu(&self) -> usize {
        self.cpu.load(Ordering::Relaxed)
    }

    /// True while a CPU runs it.
    #[must_use]
    pub fn is_running(&self) -> bool {
        self.on_cpu.load(Ordering::Relaxed)
    }

    /// Sleeps until the thread has ended.
    pub fn join(&self) {
        self.done.wait_keep();
    }

    /// The address above its kernel stack.
    pub(super) fn stack_top(&self) -> usize {
        #[cfg(target_os = "none")]
        return self.stack.top();
        #[cfg(not(target_os = "none"))]
        0
    }

    /// Top-level page table of its process in user mode.
    pub(crate) fn user_root(&self) -> Option<crate::mm::Pfn> {
        match self.user_root.load(Ordering::Relaxed) {
            0 => None,
            pfn => Some(crate::mm::Pfn(pfn)),
        }
    }
}

impl fmt::Debug for Thread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "thread {} ({})", self.id, self.name)
    }
}
