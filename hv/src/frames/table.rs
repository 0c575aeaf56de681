//! The frame table: a record for each machine frame, and when each CPU last forgot its translations.

use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use pv_abi::Mfn;

use super::{ClaimedMfn, Frame};
use crate::Hypervisor;
use crate::hardware::{CpuId, CpuSet, Flush, MAX_CPUS, Machine};

/// What each machine frame is.
#[derive(Debug, Default)]
pub struct FrameTable {
    frames: &'static [Frame],
    clock: FlushClock,
}

/// When each CPU last forgot all translations.
///
/// A frame remembers when it was last mapped somewhere (its stamp). Before it is used as something else, or by someone
/// else, every CPU that may still hold translations of it must have forgotten them since.
///
/// - The time goes up by one when a flush begins, and each CPU that took part has that time afterwards: so a CPU's time is
///   later than a stamp only if its flush began after the stamp was taken, and the entry was gone before that.
/// - A CPU on which no guest's address space is loaded holds no translations: loading one forgets all.
/// - Times are compared over half of their range. No CPU with an address space loaded is further behind: each
///   [`SWEEP`] ticks all of them flush.
#[derive(Debug)]
pub struct FlushClock {
    now: AtomicU32,
    flushed: [AtomicU32; MAX_CPUS],
    /// CPUs on which a guest's address space is loaded.
    loaded: AtomicU64,
}

/// Ticks after which all CPUs flush.
const SWEEP: u32 = 1 << 30;

impl Default for FlushClock {
    fn default() -> Self {
        Self::starting_at(1)
    }
}

impl FlushClock {
    const fn starting_at(now: u32) -> Self {
        Self { now: AtomicU32::new(now), flushed: [const { AtomicU32::new(0) }; MAX_CPUS], loaded: AtomicU64::new(0) }
    }

    /// The time, to stamp a frame with.
    #[inline]
    pub(super) fn now(&self) -> u32 {
        self.now.load(Ordering::SeqCst)
    }

    /// The CPUs that may still hold translations made before this stamp.
    #[inline]
    pub(super) fn stale(&self, stamp: u32) -> CpuSet {
        let forgot = |cpu: &CpuId| self.flushed[cpu.0 as usize].load(Ordering::Acquire).wrapping_sub(stamp) as i32 > 0;
        self.loaded().iter().filter(|cpu| !forgot(cpu)).collect()
    }

    /// The time at which the last of the CPUs with a guest's address space forgot its translations: a frame with a stamp
    /// before it is cached by none. `None` where there is no such CPU.
    pub(super) fn oldest(&self) -> Option<u32> {
        let now = self.now();
        let times = self.loaded().iter().map(|cpu| self.flushed[cpu.0 as usize].load(Ordering::Acquire));
        times.max_by_key(|time| now.wrapping_sub(*time))
    }

    fn loaded(&self) -> CpuSet {
        CpuSet(self.loaded.load(Ordering::SeqCst))
    }

    fn tick(&self) -> u32 {
        self.now.fetch_add(1, Ordering::SeqCst).wrapping_add(1)
    }

    fn set_flushed(&self, cpu: CpuId, at: u32) {
        self.flushed[cpu.0 as usize].store(at, Ordering::Release);
    }

    /// A CPU loads a guest's address space, by `load`, which forgets all translations of what was loaded before.
    pub(crate) fn enters_guest<T>(&self, cpu: CpuId, load: impl FnOnce() -> T) -> T {
        self.loaded.fetch_or(CpuSet::of(cpu).0, Ordering::SeqCst);
        let at = self.now();
        let result = load();
        self.set_flushed(cpu, at);
        result
    }

    /// A CPU has left the guests' address spaces.
    pub(crate) fn left_guests(&self, cpu: CpuId) {
        self.loaded.fetch_and(!CpuSet::of(cpu).0, Ordering::SeqCst);
    }
}

impl FrameTable {
    /// A table with these records, frame 0 first.
    #[must_use]
    pub const fn new(frames: &'static [Frame]) -> Self {
        Self { frames, clock: FlushClock::starting_at(1) }
    }

    /// The record of a frame that is known to exist.
    #[inline]
    #[must_use]
    pub fn record(&self, mfn: Mfn) -> &'static Frame {
        &self.frames[mfn.0 as usize]
    }

    /// The record of a frame that a guest named, if there is one.
    #[inline]
    #[must_use]
    pub fn find(&self, claimed: ClaimedMfn) -> Option<&'static Frame> {
        self.frames.get(usize::try_from(claimed.0).ok()?)
    }

    /// How many records there are.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.frames.len()
    }

    /// Whether there are none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }

    /// When each CPU last forgot its translations.
    #[inline]
    pub(crate) const fn clock(&self) -> &FlushClock {
        &self.clock
    }

    /// The time, to stamp a frame with.
    #[inline]
    pub(crate) fn now(&self) -> u32 {
        self.clock.now()
    }
}

/// Makes CPUs forget all translations.
#[cold]
pub(crate) fn flush<M: Machine>(hv: &Hypervisor<M>, cpus: CpuSet) {
    let clock = hv.frames.clock();
    let at = clock.tick();
    let cpus = if at.is_multiple_of(SWEEP) { cpus | clock.loaded() } else { cpus };
    hv.machine.flush_tlb_on(cpus, Flush::All);
    cpus.iter().for_each(|cpu| clock.set_flushed(cpu, at));
}

/// Makes all CPUs that have a guest's address space loaded forget all translations.
pub fn flush_all<M: Machine>(hv: &Hypervisor<M>) {
    flush(hv, hv.frames.clock().loaded());
}

#[cfg(test)]
mod tests {
    use super::*;

    const HERE: CpuId = CpuId(0);
    const THERE: CpuId = CpuId(1);

    fn loaded(now: u32) -> FlushClock {
        let clock = FlushClock::starting_at(now);
        clock.enters_guest(HERE, || ());
        clock.enters_guest(THERE, || ());
        clock
    }

    #[test]
    fn a_flush_counts_only_if_it_began_after_the_stamp() {
        let clock = loaded(1);
        let before = clock.now();
        let flush = clock.tick();
        let within = clock.now();
        assert_eq!(clock.stale(before), CpuSet(3));
        clock.set_flushed(HERE, flush);
        assert_eq!(clock.stale(before), CpuSet::of(THERE));
        assert_eq!(clock.stale(within), CpuSet(3));
    }

    #[test]
    fn the_oldest_flush_is_before_none_that_is_stale() {
        let clock = FlushClock::starting_at(u32::MAX);
        assert_eq!(clock.oldest(), None);
        let clock = loaded(u32::MAX);
        let flush = clock.tick();
        clock.set_flushed(HERE, flush);
        assert_eq!(clock.oldest(), Some(u32::MAX));
        clock.set_flushed(THERE, flush);
        assert_eq!(clock.oldest(), Some(flush));
    }

    #[test]
    fn two_flushes_at_once_count_each_from_its_own_beginning() {
        let clock = loaded(1);
        let before = clock.now();
        let (first, second) = (clock.tick(), clock.tick());
        let within = clock.now();
        clock.set_flushed(HERE, second);
        clock.set_flushed(HERE, first);
        assert!(!clock.stale(before).contains(HERE));
        assert!(clock.stale(within).contains(HERE));
    }

    #[test]
    fn a_cpu_without_a_guest_holds_nothing() {
        let clock = loaded(1);
        clock.left_guests(THERE);
        assert_eq!(clock.stale(clock.now()), CpuSet::of(HERE));
        let stamp = clock.now();
        clock.tick();
        clock.enters_guest(THERE, || ());
        assert!(!clock.stale(stamp).contains(THERE), "loading it forgot all");
    }

    #[test]
    fn the_clock_may_wrap() {
        let clock = loaded(u32::MAX);
        let stamp = clock.now();
        let flush = clock.tick();
        assert_eq!(clock.stale(stamp), CpuSet(3));
        clock.set_flushed(HERE, flush);
        clock.set_flushed(THERE, flush);
        assert!(clock.stale(stamp).is_empty());
    }
}
