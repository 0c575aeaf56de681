//! Bytes of frames, through the direct map.
//!
//! No reference to a frame's content is made: another domain or a user process may change it at any moment.
#![expect(unsafe_code, reason = "the direct map is raw memory")]

use super::{PAGE_SIZE, Pfn, direct};

/// Fills a frame with zeros.
pub fn zero(pfn: Pfn) {
    if cfg!(not(target_os = "none")) {
        return;
    }
    // SAFETY: the direct map covers every frame of this domain; the caller owns `pfn`.
    unsafe { core::ptr::write_bytes(direct(pfn) as *mut u8, 0, PAGE_SIZE) }
}

/// Copies bytes out of the frames from `first` on.
pub fn copy_out(first: Pfn, offset: usize, into: &mut [u8]) {
    let from = (direct(first) + offset) as *const u8;
    // SAFETY: the direct map covers the caller's frames; `into` is kernel memory of its own.
    unsafe { core::ptr::copy_nonoverlapping(from, into.as_mut_ptr(), into.len()) }
}

/// Copies bytes into the frames from `first` on.
pub fn copy_in(first: Pfn, offset: usize, from: &[u8]) {
    let to = (direct(first) + offset) as *mut u8;
    // SAFETY: the direct map covers the caller's frames; `from` is kernel memory of its own.
    unsafe { core::ptr::copy_nonoverlapping(from.as_ptr(), to, from.len()) }
}

/// Copies one frame to another.
pub fn copy_frame(from: Pfn, to: Pfn) {
    // SAFETY: two different frames of the direct map, both the caller's.
    unsafe {
        core::ptr::copy_nonoverlapping(direct(from) as *const u8, direct(to) as *mut u8, PAGE_SIZE);
    }
}

/// Reads one 64-bit word of a frame.
#[must_use]
pub fn read_u64(pfn: Pfn, index: usize) -> u64 {
    assert!(index < PAGE_SIZE / 8, "word {index} of a page");
    let word = (direct(pfn) + index * 8) as *const u64;
    // SAFETY: within the frame, aligned.
    unsafe { word.read_volatile() }
}

/// Writes one 64-bit word of a frame.
pub fn write_u64(pfn: Pfn, index: usize, value: u64) {
    assert!(index < PAGE_SIZE / 8, "word {index} of a page");
    let word = (direct(pfn) + index * 8) as *mut u64;
    // SAFETY: within the frame, aligned; the caller owns the frame.
    unsafe { word.write_volatile(value) }
}
