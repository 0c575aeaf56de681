//! Gives out and takes back ranges of addresses: first fit, neighbours are joined.
//!
//! Invariants: free ranges do not overlap, do not touch, and are never empty.

use alloc::collections::BTreeMap;

/// The free part of an address range.
#[derive(Debug, Default)]
pub struct Ranges {
    /// Start → length, in bytes.
    free: BTreeMap<usize, usize>,
}

impl Ranges {
    /// Nothing is free.
    #[must_use]
    pub const fn new() -> Self {
        Self { free: BTreeMap::new() }
    }

    /// Takes `len` bytes from the lowest range that has them; returns their start.
    pub fn take(&mut self, len: usize) -> Option<usize> {
        let (start, have) = self.free.iter().find(|(_, have)| **have >= len).map(|(start, have)| (*start, *have))?;
        self.free.remove(&start);
        if have > len {
            self.free.insert(start + len, have - len);
        }
        Some(start)
    }

    /// Adds a range; it must not overlap a free one.
    pub fn give(&mut self, start: usize, len: usize) {
        if len == 0 {
            return;
        }
        let (mut start, mut len) = (start, len);
        if let Some((&before, &before_len)) = self.free.range(..start).next_back() {
            debug_assert!(before + before_len <= start, "range given back twice");
            if before + before_len == start {
                self.free.remove(&before);
                start = before;
                len += before_len;
            }
        }
        if let Some(after_len) = self.free.remove(&(start + len)) {
            len += after_len;
        }
        self.free.insert(start, len);
    }

    /// Bytes that are free.
    #[must_use]
    pub fn free_bytes(&self) -> usize {
        self.free.values().sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_given_back_in_any_order_become_one() {
        let mut ranges = Ranges::new();
        ranges.give(0x1000, 0x4000);
        let parts: [usize; 4] = core::array::from_fn(|_| ranges.take(0x1000).expect("there are four"));
        assert_eq!(ranges.take(1), None);
        for part in [parts[2], parts[0], parts[3], parts[1]] {
            ranges.give(part, 0x1000);
        }
        assert_eq!(ranges.take(0x4000), Some(0x1000));
    }

    #[test]
    fn a_range_too_small_is_passed_over() {
        let mut ranges = Ranges::new();
        ranges.give(0, 10);
        ranges.give(100, 50);
        assert_eq!(ranges.take(20), Some(100));
        assert_eq!(ranges.free_bytes(), 40);
    }
}
