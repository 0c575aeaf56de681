//! The hypervisor's heap: a part taken while booting, and free frames as more is needed.

use core::alloc::Layout;

use hv::frames;
use spin::Mutex;
use talc::TalcLock;
use talc::base::Talc;
use talc::base::binning::Binning;
use talc::source::Source;

use super::cpu::direct;
use super::layout::PAGE;
use super::messages;

/// The order of a block that the heap grows by: 2 MiB.
const STEP: u32 = 9;

/// The heap.
#[global_allocator]
pub(crate) static ALLOCATOR: TalcLock<Mutex<()>, FreeFrames> = TalcLock::new(FreeFrames);

/// Makes the heap grow by free frames, which it keeps.
#[derive(Debug)]
pub(crate) struct FreeFrames;

// SAFETY: taking frames allocates nothing on the heap.
unsafe impl Source for FreeFrames {
    fn acquire<B: Binning>(heap: &mut Talc<Self, B>, layout: Layout) -> Result<(), ()> {
        let hv = messages::hypervisor().ok_or(())?;
        let pages = (layout.size() + layout.align()).div_ceil(PAGE as usize) + 1;
        let order = pages.next_power_of_two().trailing_zeros().max(STEP);
        let first = frames::allocate_for_heap(hv, order).ok_or(())?;
        // SAFETY: the frames are the hypervisor's from now on, and all RAM is mapped.
        unsafe { heap.claim(direct(first) as *mut u8, (PAGE as usize) << order) }.map(|_| ()).ok_or(())
    }
}
