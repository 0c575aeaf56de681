//! The frames of one domain: how many, how many at most, and which.
//!
//! The list of a domain's frames runs through the frame records and is guarded by the domain's memory lock, as are the
//! numbers. A frame is on the list from the moment it is the domain's until its last reference is gone.

use alloc::vec::Vec;
use core::sync::atomic::Ordering;

use pv_abi::Mfn;
use pv_abi::memory::E820Entry;

use super::FrameTable;
use super::record::{END, LISTED};

/// Frames a domain owns and may own.
#[derive(Debug)]
pub struct DomainMemory {
    head: u32,
    /// How many it owns.
    pub total: u64,
    /// How many it may own.
    pub max: u64,
    /// How many free frames are promised to it (`XENMEM_claim_pages`).
    pub claimed: u64,
    /// It is being taken apart: no frame is added any more.
    pub closed: bool,
    /// The memory map it is shown (`XENMEM_set_memory_map`).
    pub map: Vec<E820Entry>,
}

impl Default for DomainMemory {
    /// No frames, and none allowed.
    fn default() -> Self {
        Self { head: END, total: 0, max: 0, claimed: 0, closed: false, map: Vec::new() }
    }
}

impl DomainMemory {
    /// No frames yet, and at most this many.
    #[must_use]
    pub fn with_max(max: u64) -> Self {
        Self { max, ..Self::default() }
    }

    /// One of its frames, if it has any.
    pub(super) const fn first(&self) -> Option<Mfn> {
        if self.head == END { None } else { Some(Mfn(self.head as u64)) }
    }

    /// Puts frames that follow each other on the list, which count from now on.
    pub(super) fn link(&mut self, table: &FrameTable, first: Mfn, count: u64) {
        let last = first.0 + count - 1;
        for mfn in first.0..=last {
            let record = table.record(Mfn(mfn));
            debug_assert_eq!(record.list.load(Ordering::Relaxed), 0);
            record.list.store(LISTED, Ordering::Relaxed);
            record.previous.store(if mfn == first.0 { END } else { mfn as u32 - 1 }, Ordering::Relaxed);
            record.next.store(if mfn == last { self.head } else { mfn as u32 + 1 }, Ordering::Relaxed);
        }
        if self.head != END {
            table.record(Mfn(self.head.into())).previous.store(last as u32, Ordering::Relaxed);
        }
        self.head = first.0 as u32;
        self.total += count;
    }

    /// Takes a frame off, unless it already is.
    pub(super) fn unlink(&mut self, table: &FrameTable, mfn: Mfn) {
        let record = table.record(mfn);
        if record.list.load(Ordering::Relaxed) != LISTED {
            return;
        }
        let next = record.next.load(Ordering::Relaxed);
        let previous = record.previous.load(Ordering::Relaxed);
        record.list.store(0, Ordering::Relaxed);
        if next != END {
            table.record(Mfn(next.into())).previous.store(previous, Ordering::Relaxed);
        }
        if previous == END {
            self.head = next;
        } else {
            table.record(Mfn(previous.into())).next.store(next, Ordering::Relaxed);
        }
        self.total -= 1;
    }
}
