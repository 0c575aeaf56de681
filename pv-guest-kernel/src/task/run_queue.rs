//! Which thread runs next: round robin over all CPUs, with sleepers by deadline on the CPU they went to sleep on.
//!
//! One ready queue serves every CPU: whoever has waited longest goes first, wherever a CPU comes free. The few CPUs of a
//! guest gain more from that than from queues of their own, which have to be balanced.
//!
//! Invariants:
//! - a thread is in at most one place: ready, sleeping, or neither (running, or waiting without a deadline);
//! - a CPU's earliest deadline is known without a search, and only its own timer is set for it.

use alloc::collections::{BTreeSet, VecDeque};

use crate::cpus::MAX_CPUS;

/// How long a thread runs while another one is ready.
pub const SLICE_NS: u64 = 10_000_000;

/// The ready and the sleeping threads, by an id `T`.
#[derive(Debug)]
pub struct RunQueue<T> {
    ready: VecDeque<T>,
    sleeping: [BTreeSet<(u64, T)>; MAX_CPUS],
}

impl<T: Copy + Ord> RunQueue<T> {
    /// Nobody is ready.
    #[must_use]
    pub const fn new() -> Self {
        Self { ready: VecDeque::new(), sleeping: [const { BTreeSet::new() }; MAX_CPUS] }
    }

    /// `thread` can run; it goes to the end of the queue.
    pub fn make_ready(&mut self, thread: T) {
        debug_assert!(!self.ready.contains(&thread), "made ready twice");
        self.ready.push_back(thread);
    }

    /// `thread` is to be woken at `deadline_ns` by `cpu`.
    pub fn sleep_until(&mut self, cpu: usize, thread: T, deadline_ns: u64) {
        self.sleeping[cpu].insert((deadline_ns, thread));
    }

    /// `thread` was woken before its deadline.
    pub fn cancel_sleep(&mut self, cpu: usize, thread: T, deadline_ns: u64) {
        self.sleeping[cpu].remove(&(deadline_ns, thread));
    }

    /// Takes the first sleeper of `cpu` whose time has come.
    pub fn pop_expired(&mut self, cpu: usize, now_ns: u64) -> Option<T> {
        let first = *self.sleeping[cpu].first()?;
        if first.0 > now_ns {
            return None;
        }
        self.sleeping[cpu].remove(&first);
        Some(first.1)
    }

    /// `cpu` goes away: another one wakes its sleepers. Returns them.
    pub fn move_sleepers(&mut self, cpu: usize, to: usize) -> impl Iterator<Item = T> + use<T> {
        let moved = core::mem::take(&mut self.sleeping[cpu]);
        self.sleeping[to].extend(moved.iter().copied());
        moved.into_iter().map(|(_, thread)| thread)
    }

    /// Takes the thread that has waited longest.
    pub fn pop_ready(&mut self) -> Option<T> {
        self.ready.pop_front()
    }

    /// True when a thread waits for a CPU.
    #[must_use]
    pub fn has_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    /// How many threads wait for a CPU.
    #[must_use]
    pub fn ready(&self) -> usize {
        self.ready.len()
    }

    /// When the timer of `cpu` must fire next: at its first deadline, or at the end of the slice if the turn may end
    /// there (`in_turns`).
    #[must_use]
    pub fn next_timer(&self, cpu: usize, now_ns: u64, in_turns: bool) -> Option<u64> {
        let slice_end = in_turns.then(|| now_ns + SLICE_NS);
        let deadline = self.sleeping[cpu].first().map(|(deadline, _)| *deadline);
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
    use std::vec::Vec;

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
        queue.sleep_until(0, 1, 300);
        queue.sleep_until(0, 2, 100);
        queue.sleep_until(0, 3, 200);
        assert_eq!(queue.pop_expired(0, 99), None);
        assert_eq!(queue.pop_expired(0, 250), Some(2));
        assert_eq!(queue.pop_expired(0, 250), Some(3));
        assert_eq!(queue.pop_expired(0, 250), None);
    }

    #[test]
    fn a_cancelled_sleep_never_fires() {
        let mut queue = RunQueue::new();
        queue.sleep_until(0, 1, 100);
        queue.cancel_sleep(0, 1, 100);
        assert_eq!(queue.pop_expired(0, u64::MAX), None);
    }

    #[test]
    fn the_timer_is_off_when_nobody_needs_it() {
        let mut queue = RunQueue::new();
        assert_eq!(queue.next_timer(0, 5, false), None);
        queue.sleep_until(0, 1, SLICE_NS * 9);
        assert_eq!(queue.next_timer(0, 5, false), Some(SLICE_NS * 9));
        assert_eq!(queue.next_timer(0, 5, true), Some(5 + SLICE_NS));
    }

    #[test]
    fn a_cpu_wakes_its_own_sleepers_and_those_it_inherited() {
        let mut queue = RunQueue::new();
        queue.sleep_until(0, 1, 100);
        queue.sleep_until(1, 2, 50);
        assert_eq!(queue.pop_expired(0, 70), None);
        assert_eq!(queue.next_timer(1, 0, false), Some(50));
        assert_eq!(queue.move_sleepers(1, 0).collect::<Vec<_>>(), [2]);
        assert_eq!(queue.next_timer(1, 0, false), None);
        assert_eq!(queue.pop_expired(0, 70), Some(2));
    }
}
