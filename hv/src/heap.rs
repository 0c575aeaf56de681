//! Heap memory that may not be there: what a guest makes the hypervisor keep is refused, not assumed.
//!
//! What is small and soon gone again (a report, a list of a few frames) is not asked for in this way; for that a reserve is
//! left.

use alloc::boxed::Box;
use alloc::vec::Vec;

/// Bytes that are left for what cannot be refused.
const RESERVE: usize = 128 << 10;

/// An array on the heap, made element by element; `None` where there is no memory for it.
#[must_use]
pub(crate) fn try_array<T, const N: usize>(make: impl FnMut(usize) -> T) -> Option<Box<[T; N]>> {
    let mut elements = Vec::new();
    elements.try_reserve_exact(N).ok()?;
    Vec::<u8>::new().try_reserve_exact(RESERVE).ok()?;
    elements.extend((0..N).map(make));
    elements.into_boxed_slice().try_into().ok()
}
