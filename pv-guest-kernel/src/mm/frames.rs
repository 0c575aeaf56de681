//! Who uses which frame.
//!
//! One bit per frame says "free", one 16-bit count per frame says how often it is used. A frame that several page tables
//! share (copy-on-write) has a count above one and returns to the free ones when the count reaches zero.
//!
//! Invariants:
//! - free bit set ⇔ count 0 and the frame was given to the allocator;
//! - a count never wraps: [`FrameAllocator::share`] refuses at the maximum.

use alloc::vec::Vec;

use super::{PAGE_SIZE, Pfn, direct, phys};
use crate::sync::IrqLock;

/// Count of a frame that is not the allocator's to give: holes, the kernel image, device memory.
const NOT_OURS: u16 = u16::MAX;

/// The frames of this domain or machine.
#[derive(Debug, Default)]
pub struct FrameAllocator {
    /// A set bit is a free frame.
    free_bits: Vec<u64>,
    counts: Vec<u16>,
    free: usize,
    /// Where the next search starts, in words.
    hint: usize,
}

impl FrameAllocator {
    /// No frames.
    #[must_use]
    pub const fn new() -> Self {
        Self { free_bits: Vec::new(), counts: Vec::new(), free: 0, hint: 0 }
    }

    /// Bookkeeping for frames 0 to `count`, none of them free yet.
    pub fn resize(&mut self, count: usize) {
        self.free_bits.resize(count.div_ceil(64), 0);
        self.counts.resize(count, NOT_OURS);
    }

    /// Gives frames `first..end` to the allocator.
    pub fn add(&mut self, first: Pfn, end: Pfn) {
        for pfn in first.0..end.0.min(self.counts.len() as u64) {
            let pfn = pfn as usize;
            if self.counts[pfn] == NOT_OURS {
                self.counts[pfn] = 0;
                self.set_free(pfn);
            }
        }
    }

    fn set_free(&mut self, pfn: usize) {
        self.free_bits[pfn / 64] |= 1 << (pfn % 64);
        self.free += 1;
    }

    fn take(&mut self, pfn: usize) {
        self.free_bits[pfn / 64] &= !(1 << (pfn % 64));
        self.counts[pfn] = 1;
        self.free -= 1;
    }

    /// Takes one frame; its count is 1, its content is whatever it was.
    pub fn alloc(&mut self) -> Option<Pfn> {
        let words = self.free_bits.len();
        for step in 0..words {
            let word = (self.hint + step) % words;
            if self.free_bits[word] != 0 {
                let pfn = word * 64 + self.free_bits[word].trailing_zeros() as usize;
                self.hint = word;
                self.take(pfn);
                return Some(Pfn(pfn as u64));
            }
        }
        None
    }

    /// Takes `count` frames in a row, the first a multiple of `align` (a power of two).
    pub fn alloc_contiguous(&mut self, count: usize, align: usize) -> Option<Pfn> {
        if count == 1 && align <= 1 {
            return self.alloc();
        }
        // From the top, so that single frames, taken from the bottom, leave long runs alone.
        let mut end = self.counts.len();
        while let Some(lowest) = end.checked_sub(count) {
            let first = lowest & !(align - 1);
            match (first..first + count).rev().find(|pfn| !self.is_free(*pfn)) {
                None => {
                    (first..first + count).for_each(|pfn| self.take(pfn));
                    return Some(Pfn(first as u64));
                }
                Some(taken) => end = taken,
            }
        }
        None
    }

    fn is_free(&self, pfn: usize) -> bool {
        self.free_bits[pfn / 64] >> (pfn % 64) & 1 != 0
    }

    /// Counts one more user of a frame in use.
    ///
    /// # Errors
    /// `TooManyUsers` when the count is at its maximum; the caller copies the frame instead.
    pub fn share(&mut self, pfn: Pfn) -> Result<(), TooManyUsers> {
        let count = &mut self.counts[pfn.0 as usize];
        debug_assert!(*count != 0, "sharing a free frame");
        if *count >= NOT_OURS - 1 {
            return Err(TooManyUsers);
        }
        *count += 1;
        Ok(())
    }

    /// How many use a frame; 0 when it is free.
    #[must_use]
    pub fn users(&self, pfn: Pfn) -> u16 {
        self.counts.get(pfn.0 as usize).copied().unwrap_or(NOT_OURS)
    }

    /// One user less; the last one frees the frame. Frames that were never the allocator's stay out of it.
    pub fn release(&mut self, pfn: Pfn) {
        let index = pfn.0 as usize;
        match self.counts[index] {
            NOT_OURS => {}
            0 => debug_assert!(false, "frame {index:#x} freed twice"),
            1 => {
                self.counts[index] = 0;
                self.set_free(index);
            }
            _ => self.counts[index] -= 1,
        }
    }

    /// Free frames.
    #[must_use]
    pub fn free(&self) -> usize {
        self.free
    }

    /// Frames there are, with holes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.counts.len()
    }

    /// True before [`resize`](Self::resize).
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.counts.is_empty()
    }
}

/// A frame has as many users as can be counted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TooManyUsers;

/// The kernel's frames.
pub static FRAMES: IrqLock<FrameAllocator> = IrqLock::new(FrameAllocator::new());

/// Frames in a row that this value owns; they lie in the direct map and are freed when it is dropped.
///
/// Another domain that was granted such a frame may write to it: bytes are copied in and out, no reference is made.
#[derive(Debug)]
pub struct Pages {
    first: Pfn,
    count: usize,
}

impl Pages {
    /// Takes `count` zeroed frames in a row (of pfns: machine frames may be scattered).
    pub fn alloc(count: usize) -> Option<Self> {
        Self::alloc_aligned(count, 1)
    }

    /// As [`alloc`](Self::alloc), the first frame a multiple of `align` frames.
    pub fn alloc_aligned(count: usize, align: usize) -> Option<Self> {
        let first = FRAMES.lock().alloc_contiguous(count, align)?;
        for index in 0..count {
            phys::zero(Pfn(first.0 + index as u64));
        }
        Some(Self { first, count })
    }

    /// The first frame.
    #[must_use]
    pub fn first(&self) -> Pfn {
        self.first
    }

    /// Frame `index` of these.
    #[must_use]
    pub fn pfn(&self, index: usize) -> Pfn {
        assert!(index < self.count, "page {index} of {}", self.count);
        Pfn(self.first.0 + index as u64)
    }

    /// How many frames.
    #[must_use]
    pub fn count(&self) -> usize {
        self.count
    }

    /// How many bytes.
    #[must_use]
    pub fn len_bytes(&self) -> usize {
        self.count * PAGE_SIZE
    }

    /// Where the first byte is mapped.
    #[must_use]
    pub fn addr(&self) -> usize {
        direct(self.first)
    }

    /// Copies bytes out, from `offset` on.
    pub fn read(&self, offset: usize, into: &mut [u8]) {
        assert!(offset + into.len() <= self.len_bytes(), "read beyond the pages");
        phys::copy_out(self.first, offset, into);
    }

    /// Copies bytes in, from `offset` on.
    pub fn write(&self, offset: usize, from: &[u8]) {
        assert!(offset + from.len() <= self.len_bytes(), "write beyond the pages");
        phys::copy_in(self.first, offset, from);
    }

    /// Gives the frames away without freeing them.
    #[must_use]
    pub fn into_raw(self) -> (Pfn, usize) {
        let parts = (self.first, self.count);
        core::mem::forget(self);
        parts
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        let mut frames = FRAMES.lock();
        for index in 0..self.count {
            frames.release(Pfn(self.first.0 + index as u64));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_frames(count: usize) -> FrameAllocator {
        let mut frames = FrameAllocator::new();
        frames.resize(count);
        frames.add(Pfn(0), Pfn(count as u64));
        frames
    }

    #[test]
    fn a_shared_frame_is_free_after_its_last_user() {
        let mut frames = with_frames(8);
        let pfn = frames.alloc().expect("eight are free");
        frames.share(pfn).expect("one user so far");
        assert_eq!(frames.users(pfn), 2);
        frames.release(pfn);
        assert_eq!(frames.free(), 7);
        frames.release(pfn);
        assert_eq!(frames.free(), 8);
    }

    #[test]
    fn frames_that_were_not_given_are_never_handed_out() {
        let mut frames = FrameAllocator::new();
        frames.resize(128);
        frames.add(Pfn(64), Pfn(66));
        assert_eq!(frames.alloc(), Some(Pfn(64)));
        assert_eq!(frames.alloc(), Some(Pfn(65)));
        assert_eq!(frames.alloc(), None);
        frames.release(Pfn(3));
        assert_eq!(frames.alloc(), None);
    }

    #[test]
    fn a_run_is_aligned_and_skips_what_is_taken() {
        let mut frames = with_frames(64);
        let first = frames.alloc_contiguous(8, 8).expect("64 are free");
        assert_eq!(first, Pfn(56));
        assert_eq!(frames.alloc_contiguous(8, 8), Some(Pfn(48)));
        assert_eq!(frames.alloc_contiguous(64, 1), None);
        assert_eq!(frames.free(), 48);
    }

    #[test]
    fn a_full_count_refuses_another_user() {
        let mut frames = with_frames(1);
        let pfn = frames.alloc().expect("one is free");
        while frames.share(pfn).is_ok() {}
        assert_eq!(frames.users(pfn), u16::MAX - 1);
        assert_eq!(frames.share(pfn), Err(TooManyUsers));
    }
}
