//! The frame table: a record for each machine frame, and when translations were last forgotten.

use core::sync::atomic::{AtomicU32, Ordering};

use pv_abi::Mfn;

use super::{ClaimedMfn, Frame};
use crate::Hypervisor;
use crate::hardware::{Flush, Machine};

/// What each machine frame is.
#[derive(Debug, Default)]
pub struct FrameTable {
    frames: &'static [Frame],
    clock: FlushClock,
}

/// Counts the times at which all CPUs forgot all translations.
///
/// A frame remembers when it was last mapped somewhere (its stamp). Before it is used as something else, or by someone
/// else, translations must have been forgotten since. The clock goes up by one when a flush begins and by one when it
/// ends: only a flush that began after the stamp was taken counts.
#[derive(Debug, Default)]
pub struct FlushClock(AtomicU32);

impl FlushClock {
    /// The time, to stamp a frame with.
    #[inline]
    pub(super) fn now(&self) -> u32 {
        self.0.load(Ordering::Acquire)
    }

    /// Whether translations made before this stamp may still be cached.
    #[inline]
    pub(super) fn is_fresh(&self, stamp: u32) -> bool {
        self.now().wrapping_sub(stamp) < 2 + (stamp & 1)
    }

    fn tick(&self) {
        self.0.fetch_add(1, Ordering::AcqRel);
    }
}

impl FrameTable {
    /// A table with these records; record `n` is that of machine frame `n`.
    #[must_use]
    pub const fn new(frames: &'static [Frame]) -> Self {
        Self { frames, clock: FlushClock(AtomicU32::new(0)) }
    }

    /// The record of a frame that is known to have one.
    #[inline]
    #[must_use]
    pub fn record(&self, mfn: Mfn) -> &'static Frame {
        &self.frames[mfn.0 as usize]
    }

    /// The record of a frame that may have none.
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

    /// When all translations were last forgotten.
    #[inline]
    pub(crate) const fn clock(&self) -> &FlushClock {
        &self.clock
    }

    /// The time, to stamp a frame with.
    #[inline]
    pub(crate) fn now(&self) -> u32 {
        self.clock.now()
    }

    /// Whether translations made before this stamp may still be cached.
    #[inline]
    pub(crate) fn is_fresh(&self, stamp: u32) -> bool {
        self.clock.is_fresh(stamp)
    }
}

/// Makes all CPUs forget all translations.
#[cold]
pub fn flush_all<M: Machine>(hv: &Hypervisor<M>) {
    hv.frames.clock().tick();
    hv.machine.flush_tlb_everywhere(Flush::All);
    hv.frames.clock().tick();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flush_counts_only_if_it_began_after_the_stamp() {
        let clock = FlushClock::default();
        let before = clock.now();
        assert!(clock.is_fresh(before));
        clock.tick();
        let within = clock.now();
        assert!(clock.is_fresh(before) && clock.is_fresh(within));
        clock.tick();
        assert!(!clock.is_fresh(before));
        assert!(clock.is_fresh(within));
        clock.tick();
        clock.tick();
        assert!(!clock.is_fresh(within));
    }

    #[test]
    fn the_clock_may_wrap() {
        let clock = FlushClock(AtomicU32::new(u32::MAX - 1));
        let stamp = clock.now();
        clock.tick();
        assert!(clock.is_fresh(stamp));
        clock.tick();
        assert!(!clock.is_fresh(stamp));
    }
}
