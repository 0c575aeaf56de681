//! Heap memory that may not be there: what a guest makes the hypervisor keep is refused, not assumed.

use alloc::boxed::Box;
use alloc::vec::Vec;

/// An array on the heap, made element by element; `None` where there is no memory for it.
#[must_use]
pub(crate) fn try_array<T, const N: usize>(make: impl FnMut(usize) -> T) -> Option<Box<[T; N]>> {
    let mut elements = Vec::new();
    elements.try_reserve_exact(N).ok()?;
    elements.extend((0..N).map(make));
    elements.into_boxed_slice().try_into().ok()
}
