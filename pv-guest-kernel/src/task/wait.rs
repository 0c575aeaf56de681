//! Waiting for a condition, and the condition most drivers wait for.
//!
//! A waiter queues itself and looks at the condition once more before it sleeps. Whoever makes the condition true does so
//! before it looks for waiters: either the waiter sees the condition, or the waker sees the waiter. A wake-up between that
//! look and the sleep makes the sleep end at once (see [`scheduler`]), so none is lost, on however many CPUs.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use core::sync::atomic::{AtomicBool, Ordering};

use super::scheduler;
use super::thread::Thread;
use crate::sync::{IrqGuard, IrqLock};

/// Threads that wait for the same thing.
pub struct WaitQueue {
    waiters: IrqLock<Vec<Arc<Thread>>>,
}

impl WaitQueue {
    /// Nobody waits.
    #[must_use]
    pub const fn new() -> Self {
        Self { waiters: IrqLock::new(Vec::new()) }
    }

    /// Sleeps until `condition` is true. It is checked first, and after each wake-up, with interrupts off: keep it short.
    pub fn wait_until(&self, condition: impl FnMut() -> bool) {
        self.wait_until_deadline(None, condition);
    }

    /// As [`wait_until`](Self::wait_until), but no longer than `deadline_ns` (clock of [`crate::time::now_ns`]). Says
    /// whether the condition is true.
    pub fn wait_until_deadline(&self, deadline_ns: Option<u64>, mut condition: impl FnMut() -> bool) -> bool {
        let _irq = IrqGuard::new();
        if condition() {
            return true;
        }
        let me = scheduler::current();
        loop {
            if deadline_ns.is_some_and(|deadline| crate::time::now_ns() >= deadline) {
                return false;
            }
            self.waiters.lock().push(me.clone());
            let is_true = condition();
            if !is_true {
                scheduler::wait(deadline_ns);
            }
            self.waiters.lock().retain(|waiter| !Arc::ptr_eq(waiter, &me));
            if is_true || condition() {
                return true;
            }
        }
    }

    /// Wakes everybody who waits.
    pub fn wake_all(&self) {
        let waiters = core::mem::take(&mut *self.waiters.lock());
        for waiter in &waiters {
            scheduler::wake(waiter);
        }
    }

    /// Wakes whoever has waited longest. One that found the condition true by itself counts: it will wake the next.
    pub fn wake_one(&self) {
        let first = {
            let mut waiters = self.waiters.lock();
            (!waiters.is_empty()).then(|| waiters.remove(0))
        };
        if let Some(waiter) = first {
            scheduler::wake(&waiter);
        }
    }
}

impl Default for WaitQueue {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for WaitQueue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("WaitQueue")
    }
}

/// Something that happened and was not looked at yet: raised by an interrupt, taken by a thread. Raising twice is
/// raising once.
#[derive(Debug, Default)]
pub struct Signal {
    raised: AtomicBool,
    queue: WaitQueue,
}

impl Signal {
    /// Not raised.
    #[must_use]
    pub const fn new() -> Self {
        Self { raised: AtomicBool::new(false), queue: WaitQueue::new() }
    }

    /// Raises it and wakes those who wait. May be called by interrupt handlers.
    pub fn raise(&self) {
        self.raised.store(true, Ordering::Release);
        self.queue.wake_all();
    }

    /// Takes it: true if it was raised since it was last taken.
    pub fn take(&self) -> bool {
        self.raised.swap(false, Ordering::Acquire)
    }

    /// True while raised.
    #[must_use]
    pub fn is_raised(&self) -> bool {
        self.raised.load(Ordering::Acquire)
    }

    /// Sleeps until it is raised and takes it.
    pub fn wait(&self) {
        self.queue.wait_until(|| self.take());
    }

    /// As [`wait`](Self::wait), no longer than `deadline_ns` (`u64::MAX`: for ever); false when the time ran out.
    pub fn wait_until(&self, deadline_ns: u64) -> bool {
        let deadline = (deadline_ns != u64::MAX).then_some(deadline_ns);
        self.queue.wait_until_deadline(deadline, || self.take())
    }

    /// Sleeps until it is raised and leaves it so.
    pub fn wait_keep(&self) {
        self.queue.wait_until(|| self.is_raised());
    }
}
