//! Free frames, in blocks of powers of two.
//!
//! A free block of order `n` is 2ⁿ frames whose number is a multiple of 2ⁿ. The lists run through the frame records, so
//! giving and taking allocates nothing. Memory below 4 GiB is kept apart and used last: devices with 32-bit addresses
//! need it.
//!
//! Invariants: the first record of each free block has `list == 1 + order`, all other records have another value; no
//! free block's buddy is a free block of the same order.

use core::sync::atomic::Ordering;

use pv_abi::Mfn;

use super::record::END;
use super::{ClaimedMfn, FrameTable};

/// The largest order.
pub const MAX_ORDER: u32 = 18;

const ORDERS: usize = MAX_ORDER as usize + 1;
const ZONES: usize = 2;
/// The first frame above 4 GiB.
const HIGH: u64 = 1 << 20;
/// How many blocks of each order are looked at for one below a limit within 4 GiB.
const LOOK: usize = 64;

/// Free frames.
#[derive(Debug)]
pub struct Allocator {
    heads: [[u32; ORDERS]; ZONES],
    free: u64,
    /// Free frames that are promised to domains (`XENMEM_claim_pages`).
    pub(super) claimed: u64,
}

impl Default for Allocator {
    fn default() -> Self {
        Self::new()
    }
}

const fn zone(mfn: u64) -> usize {
    (mfn >= HIGH) as usize
}

impl Allocator {
    /// With no frames.
    #[must_use]
    pub const fn new() -> Self {
        Self { heads: [[END; ORDERS]; ZONES], free: 0, claimed: 0 }
    }

    /// How many frames are free.
    #[must_use]
    pub const fn free_count(&self) -> u64 {
        self.free
    }

    /// How many frames are free and promised to nobody.
    #[must_use]
    pub const fn unclaimed_count(&self) -> u64 {
        self.free.saturating_sub(self.claimed)
    }

    /// Adds frames that were in no use.
    pub fn add_range(&mut self, table: &FrameTable, frames: core::ops::Range<u64>) {
        let mut next = frames.start;
        while next < frames.end {
            let fits = (frames.end - next).ilog2();
            let order = fits.min(next.trailing_zeros()).min(MAX_ORDER);
            self.free(table, Mfn(next), order);
            next += 1 << order;
        }
    }

    /// Takes a block of 2^`order` frames.
    #[must_use]
    pub fn allocate(&mut self, table: &FrameTable, order: u32) -> Option<Mfn> {
        if order > MAX_ORDER {
            return None;
        }
        for zone in (0..ZONES).rev() {
            for have in order..=MAX_ORDER {
                let head = self.heads[zone][have as usize];
                if head != END {
                    return Some(self.take(table, head, have, order));
                }
            }
        }
        None
    }

    /// Takes a block of 2^`order` frames that lies below frame `limit`.
    #[must_use]
    pub fn allocate_below(&mut self, table: &FrameTable, order: u32, limit: u64) -> Option<Mfn> {
        if limit >= table.len() as u64 {
            return self.allocate(table, order);
        }
        if order > MAX_ORDER {
            return None;
        }
        for zone in (0..ZONES).rev() {
            for have in order..=MAX_ORDER {
                if let Some(block) = self.look_below(table, zone, have, 1 << order, limit) {
                    return Some(self.take(table, block, have, order));
                }
            }
        }
        None
    }

    fn look_below(&self, table: &FrameTable, zone: usize, have: u32, frames: u64, limit: u64) -> Option<u32> {
        let mut block = self.heads[zone][have as usize];
        for _ in 0..LOOK {
            if block == END {
                return None;
            }
            if u64::from(block) + frames <= limit {
                return Some(block);
            }
            block = table.record(Mfn(block.into())).next.load(Ordering::Relaxed);
        }
        None
    }

    /// Gives a block of 2^`order` frames back.
    pub fn free(&mut self, table: &FrameTable, mfn: Mfn, order: u32) {
        self.free += 1 << order;
        let (mut block, mut order) = (mfn.0, order);
        while order < MAX_ORDER {
            let buddy = block ^ (1 << order);
            let is_free =
                table.find(ClaimedMfn(buddy)).is_some_and(|record| record.list.load(Ordering::Relaxed) == 1 + order);
            if !is_free {
                break;
            }
            self.unlink(table, buddy as u32, order);
            block &= !(1 << order);
            order += 1;
        }
        self.link(table, block as u32, order);
    }

    /// Takes free block `head` of order `have` off its list and gives all but its first 2^`want` frames back.
    fn take(&mut self, table: &FrameTable, head: u32, have: u32, want: u32) -> Mfn {
        self.unlink(table, head, have);
        for order in (want..have).rev() {
            self.link(table, head + (1 << order), order);
        }
        self.free -= 1 << want;
        Mfn(head.into())
    }

    fn link(&mut self, table: &FrameTable, block: u32, order: u32) {
        let head = &mut self.heads[zone(block.into())][order as usize];
        let record = table.record(Mfn(block.into()));
        record.list.store(1 + order, Ordering::Relaxed);
        record.previous.store(END, Ordering::Relaxed);
        record.next.store(*head, Ordering::Relaxed);
        if *head != END {
            table.record(Mfn((*head).into())).previous.store(block, Ordering::Relaxed);
        }
        *head = block;
    }

    fn unlink(&mut self, table: &FrameTable, block: u32, order: u32) {
        let record = table.record(Mfn(block.into()));
        let next = record.next.load(Ordering::Relaxed);
        let previous = record.previous.load(Ordering::Relaxed);
        record.list.store(0, Ordering::Relaxed);
        if next != END {
            table.record(Mfn(next.into())).previous.store(previous, Ordering::Relaxed);
        }
        if previous == END {
            self.heads[zone(block.into())][order as usize] = next;
        } else {
            table.record(Mfn(previous.into())).next.store(next, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frames::Frame;
    use proptest::prelude::*;

    fn table(frames: usize) -> FrameTable {
        FrameTable::new(Box::leak((0..frames).map(|_| Frame::new()).collect::<Vec<_>>().into_boxed_slice()))
    }

    #[test]
    fn what_was_split_grows_together_again() {
        let table = table(1024);
        let mut allocator = Allocator::new();
        allocator.add_range(&table, 0..1024);
        let frames: Vec<_> = (0..1024).map(|_| allocator.allocate(&table, 0).unwrap()).collect();
        assert_eq!(allocator.allocate(&table, 0), None);
        frames.iter().for_each(|frame| allocator.free(&table, *frame, 0));
        assert_eq!(allocator.free_count(), 1024);
        assert_eq!(allocator.allocate(&table, 10), Some(Mfn(0)));
    }

    #[test]
    fn a_limit_is_kept() {
        let table = table(256);
        let mut allocator = Allocator::new();
        allocator.add_range(&table, 16..256);
        let low = allocator.allocate_below(&table, 2, 32).unwrap();
        assert!(low.0 + 4 <= 32);
        assert_eq!(allocator.allocate_below(&table, 0, 16), None);
        assert_eq!(allocator.allocate_below(&table, 20, 1 << 30), None);
    }

    proptest! {
        #[test]
        fn blocks_never_overlap_and_nothing_is_lost(steps in prop::collection::vec((any::<bool>(), 0_u32..6), 1..200)) {
            let table = table(256);
            let mut allocator = Allocator::new();
            allocator.add_range(&table, 3..251);
            let mut held: Vec<(Mfn, u32)> = Vec::new();
            for (take, order) in steps {
                if take {
                    if let Some(block) = allocator.allocate(&table, order) {
                        prop_assert_eq!(block.0 % (1 << order), 0);
                        prop_assert!(block.0 >= 3 && block.0 + (1 << order) <= 251);
                        for (other, size) in &held {
                            prop_assert!(block.0 + (1 << order) <= other.0 || other.0 + (1 << size) <= block.0);
                        }
                        held.push((block, order));
                    }
                } else if !held.is_empty() {
                    let (block, order) = held.swap_remove(order as usize % held.len());
                    allocator.free(&table, block, order);
                }
                let used: u64 = held.iter().map(|(_, order)| 1_u64 << order).sum();
                prop_assert_eq!(allocator.free_count() + used, 248);
            }
        }
    }
}
