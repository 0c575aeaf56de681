//! Kernel stacks: 64 KiB in the mapping area, with an unmapped page below. An overflow faults and does not corrupt.

use crate::mm::PAGE_SIZE;
use crate::mm::kernel_map::Mapping;

/// Pages of a kernel stack.
const STACK_PAGES: usize = 16;

/// A kernel stack.
#[derive(Debug)]
pub(super) struct KernelStack(Mapping);

impl KernelStack {
    /// Maps a new stack.
    ///
    /// # Panics
    /// When there is no memory for it: a kernel that cannot make a thread cannot go on.
    pub(super) fn new() -> Self {
        Self(Mapping::of_new_frames(STACK_PAGES).expect("memory for a kernel stack"))
    }

    /// The address above the stack.
    pub(super) fn top(&self) -> usize {
        self.0.addr() + STACK_PAGES * PAGE_SIZE
    }
}
