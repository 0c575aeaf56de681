//! The kernel heap: `talc` over frames of the direct map, growing on demand.
#![expect(unsafe_code, reason = "an allocator hands out raw memory")]

use core::alloc::Layout;

use talc::TalcLock;
use talc::base::Talc;
use talc::base::binning::Binning;
use talc::source::Source;

use super::{PAGE_SIZE, direct};
use crate::mm::frames::FRAMES;
use crate::sync::RawIrqLock;

/// The heap grows by at least this much.
const STEP_PAGES: usize = 256;

/// Gets frames for the heap.
#[derive(Debug)]
struct FrameSource;

// SAFETY: `acquire` takes frames from the frame allocator, whose own memory was reserved at boot and does not grow; it
// never calls the heap.
unsafe impl Source for FrameSource {
    fn acquire<B: Binning>(talc: &mut Talc<Self, B>, layout: Layout) -> Result<(), ()> {
        let wanted = (layout.size() + layout.align() + PAGE_SIZE).div_ceil(PAGE_SIZE);
        let mut frames = FRAMES.lock();
        let grown = [wanted.max(STEP_PAGES), wanted]
            .into_iter()
            .find_map(|pages| Some((frames.alloc_contiguous(pages, 1)?, pages)));
        drop(frames);
        let (first, pages) = grown.ok_or(())?;
        // SAFETY: these frames are the heap's from now on, and the direct map reaches them.
        let claimed = unsafe { talc.claim(direct(first) as *mut u8, pages * PAGE_SIZE) };
        claimed.map(|_| ()).ok_or(())
    }
}

#[global_allocator]
static HEAP: TalcLock<RawIrqLock, FrameSource> = TalcLock::new(FrameSource);

/// Gives the heap its first memory, before there is a frame allocator to ask.
///
/// # Safety
/// `len` bytes from `start` are mapped, writable and used by nothing else, for ever.
pub(crate) unsafe fn seed(start: usize, len: usize) {
    // SAFETY: the caller's promise.
    unsafe { HEAP.lock().claim(start as *mut u8, len) };
}

/// Bytes of the heap that nobody has.
pub(super) fn available_bytes() -> usize {
    HEAP.lock().counters().available_bytes
}
