//! Kernel stacks: 64 KiB, or as much as a thread asks for, in the mapping area, with an unmapped page below. An overflow
//! faults and does not corrupt.

use crate::mm::PAGE_SIZE;
use crate::mm::kernel_map::Mapping;

/// A kernel stack.
#[derive(Debug)]
pub(super) struct KernelStack {
    /// Unmapped when the stack is dropped.
    _pages: Mapping,
    top: usize,
}

impl KernelStack {
    /// Maps a new stack of `pages` pages.
    ///
    /// # Panics
    /// When there is no memory for it: a kernel that cannot make a thread cannot go on.
    pub(super) fn new(pages: usize) -> Self {
        let mapping = Mapping::of_new_frames(pages).expect("memory for a kernel stack");
        let top = mapping.addr() + pages * PAGE_SIZE;
        Self { _pages: mapping, top }
    }

    /// The address above the stack.
    pub(super) fn top(&self) -> usize {
        self.top
    }
}
