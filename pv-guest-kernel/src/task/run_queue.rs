//! Which thread runs next: round robin, with sleepers by deadline.
//!
//! Invariants:
//! - a thread is in at most one place: ready, sleeping, or neither (running, or waiting without a deadline);
//! - the earliest deadline is known without a search.

use alloc::collections::{BTreeSet, VecDeque};

/// How long a thread runs while another one is ready.
pub const SLICE_NS: u64 = 10_000_000;

/// The ready and the sleeping threads, by an id `T`.
#[derive(Debug)]
pub struct RunQueue<T> {
    ready: VecDeque<T>,
    sleeping: BTreeSet<(u64, T)>,
}

impl<T: Copy + Ord> RunQueue<T> {
    /// Nobody is ready.
    #[must_use]
    pub const fn new() -> Self {
        Self { ready: VecDeque::new(), sleeping: BTreeSet::new() }
    }

    /// `thread` can run; it goes to the end of the queue.
    pub fn make_ready(&mut self, thread: T) {
        debug_assert!(!self.ready.contains(&thread), "made ready twice");
        self.ready.push_back(thread);
    }

    /// `thread` is to be woken at `deadline_ns`.
    pub fn sleep_until(&mut self, thread: T, deadline_ns: u64) {
        self.sleeping.insert((deadline_ns, thread));
    }

    /// `thread` was woken before its deadline.
    pub fn cancel_sleep(&mut self, thread: T, deadline_ns: u64) {
        self.sleeping.remove(&(deadline_ns, thread));
    }

    /// Takes the first sleeper whose time has come.
    pub fn pop_expired(&mut self, now_ns: u64) -> Option<T> {
        let first = *self.sleeping.first()?;
        if first.0 > now_ns {
            return None;
        }
        self.sleeping.remove(&first);
        Some(first.1)
    }

    /// Takes the thread that has waited longest.
    pub fn pop_ready(&mut self) -> Option<T> {
        self.ready.pop_front()
    }

    /// True when a thread waits for the CPU.
    #[must_use]
    pub fn has_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    /// When the timer must fire next: at the first deadline, or at the end of the slice if someone else is ready.
    #[must_use]
    pub fn next_timer(&self, now_ns: u64) -> Option<u64> {
        let slice_end = self.has_ready().then(|| now_ns + SLICE_NS);
        let deadline = self.sleeping.first().map(|(deadline, _)| *deadline);
        [slice_end, deadline].into_iter().flatten().min()
    }
}

impl<T: Copy + Ord> Default for RunQueue<T> {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_take_turns() {
        let mut queue = RunQueue::new();
        queue.make_ready(1);
        queue.make_ready(2);
        let first = queue.pop_ready().expect("two are ready");
        queue.make_ready(first);
        assert_eq!(queue.pop_ready(), Some(2));
        assert_eq!(queue.pop_ready(), Some(1));
        assert_eq!(queue.pop_ready(), None);
    }

    #[test]
    fn sleepers_wake_in_the_order_of_their_deadlines() {
        let mut queue = RunQueue::new();
        queue.sleep_until(1, 300);
        queue.sleep_until(2, 100);
        queue.sleep_until(3, 200);
        assert_eq!(queue.pop_expired(99), None);
        assert_eq!(queue.pop_expired(250), Some(2));
        assert_eq!(queue.pop_expired(250), Some(3));
        assert_eq!(queue.pop_expired(250), None);
    }

    #[test]
    fn a_cancelled_sleep_never_fires() {
        let mut queue = RunQueue::new();
        queue.sleep_until(1, 100);
        queue.cancel_sleep(1, 100);
        assert_eq!(queue.pop_expired(u64::MAX), None);
    }

    #[test]
    fn the_timer_is_off_when_nobody_needs_it() {
        let mut queue = RunQueue::new();
        assert_eq!(queue.next_timer(5), None);
        queue.sleep_until(1, SLICE_NS * 9);
        assert_eq!(queue.next_timer(5), Some(SLICE_NS * 9));
        queue.make_ready(2);
        assert_eq!(queue.next_timer(5), Some(5 + SLICE_NS));
    }
}
