//! A page that two domains can write at the same time.
//!
//! Words used:
//! - *shared page*: 4 KiB of memory that a peer domain may read, and often write, at any moment.
//! - *index word*: an aligned 32-bit word in such a page, written by one side and read by the other.
//!
//! Invariants:
//! - No reference into the page is ever handed out. Bytes are copied in and out; words are loaded and stored whole.
//!   What a peer changes afterwards cannot change a value that was already read.
//! - Holding a [`SharedPage`] proves that the page is mapped: the handles are not `Clone`, and giving one back to the
//!   [`Hal`](crate::Hal) ends it.
//!
//! Source: Xen `public/io/ring.h` (`RING_COPY_REQUEST`: process a local copy only).

use core::sync::atomic::{Ordering, compiler_fence};

/// Bytes in a page. Grants and rings count in pages of this size on every architecture.
pub const PAGE_SIZE: usize = 4096;

/// Access to one page that a peer may be writing at the same time.
///
/// Offsets are in bytes from the start of the page. An access beyond [`PAGE_SIZE`], or an index word that is not
/// naturally aligned, is a mistake in the caller and panics: drivers check what a peer says *before* they come here.
///
/// Implementations should make `read` and `write` a plain `memcpy` and each word access one atomic instruction.
pub trait SharedPage {
    /// Copies `into.len()` bytes out of the page.
    fn read(&self, offset: usize, into: &mut [u8]);

    /// Copies `into.len()` bytes out of the page, for someone who will judge them.
    ///
    /// A compiler may look at the source of a plain copy again instead of at the copy. It may not do so past a fence:
    /// what is checked afterwards is what is used afterwards, whatever the peer writes in between.
    fn read_once(&self, offset: usize, into: &mut [u8]) {
        self.read(offset, into);
        compiler_fence(Ordering::SeqCst);
    }

    /// Copies `from` into the page.
    fn write(&self, offset: usize, from: &[u8]);

    /// Sets `len_bytes` bytes to `byte`.
    fn fill(&self, offset: usize, len_bytes: usize, byte: u8) {
        let block = [byte; 64];
        let end = offset + len_bytes;
        let mut at = offset;
        while at < end {
            let step = (end - at).min(block.len());
            self.write(at, &block[..step]);
            at += step;
        }
    }

    /// Loads a 32-bit word.
    fn load_u32(&self, offset: usize, order: Ordering) -> u32;

    /// Stores a 32-bit word.
    fn store_u32(&self, offset: usize, value: u32, order: Ordering);

    /// Replaces a 32-bit word if it still holds `current`; sequentially consistent.
    ///
    /// # Errors
    /// The value that was there instead.
    fn compare_exchange_u32(&self, offset: usize, current: u32, new: u32) -> Result<u32, u32>;

    /// Loads a 64-bit word.
    fn load_u64(&self, offset: usize, order: Ordering) -> u64;

    /// Stores a 64-bit word.
    fn store_u64(&self, offset: usize, value: u64, order: Ordering);

    /// Replaces a 64-bit word if it still holds `current`; sequentially consistent.
    ///
    /// # Errors
    /// The value that was there instead.
    fn compare_exchange_u64(&self, offset: usize, current: u64, new: u64) -> Result<u64, u64>;
}
