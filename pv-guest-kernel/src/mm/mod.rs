//! Memory: frames, the heap, kernel addresses, and the address spaces of processes.
//!
//! Words used:
//! - *frame*: 4 KiB of memory, named by its [`Pfn`]. On Xen a pfn is pseudo-physical: the kernel's own dense numbering.
//!   Only `platform::pv` knows machine frames.
//! - *direct map*: the kernel addresses at which every frame can be reached, [`DIRECT_MAP`] + pfn × 4096.
//! - *mapping area*: kernel addresses from [`MAPPING_AREA`] on, given out by [`ranges`] for stacks, foreign pages, devices.

pub mod entry;
pub mod frames;
#[cfg(target_os = "none")]
mod heap;
#[cfg(target_os = "none")]
pub mod kernel_map;
pub mod mmu;
pub mod phys;
pub mod ranges;
pub mod space;

#[cfg(target_os = "none")]
pub(crate) use heap::seed as seed_heap;

pub use entry::{Entry, EntryFlags, EntryUpdate};
pub use pv_abi::Pfn;

/// Bytes in a frame.
pub const PAGE_SIZE: usize = 4096;
/// Where the direct map starts: top-level slot 273, as slots 256 to 271 are the hypervisor's.
pub const DIRECT_MAP: usize = 0xffff_8880_0000_0000;
/// Where the mapping area starts: top-level slot 402.
pub const MAPPING_AREA: usize = 0xffff_c900_0000_0000;
/// Bytes in the mapping area.
pub const MAPPING_AREA_BYTES: usize = 64 << 30;
/// Where the kernel image is linked.
pub const IMAGE_BASE: usize = 0xffff_ffff_8000_0000;

/// The direct-map address of a frame.
#[must_use]
pub const fn direct(pfn: Pfn) -> usize {
    DIRECT_MAP + ((pfn.0 as usize) << 12)
}

/// The frame behind an address of the direct map or the kernel image; `None` for any other address.
#[must_use]
pub fn frame_of(addr: usize) -> Option<Pfn> {
    if addr >= IMAGE_BASE {
        return Some(Pfn(((addr - IMAGE_BASE) >> 12) as u64));
    }
    let offset = addr.checked_sub(DIRECT_MAP)?;
    (addr < MAPPING_AREA).then_some(Pfn((offset >> 12) as u64))
}

/// The frame behind any mapped kernel address.
#[cfg(target_os = "none")]
#[must_use]
pub fn translate(addr: usize) -> Option<Pfn> {
    if (MAPPING_AREA..IMAGE_BASE).contains(&addr) { kernel_map::frame_at(addr) } else { frame_of(addr) }
}

/// Bytes that nobody has: free frames, and what is free of the heap, which keeps its frames.
#[cfg(target_os = "none")]
#[must_use]
pub fn available_bytes() -> usize {
    let frames = frames::FRAMES.lock().free();
    frames * PAGE_SIZE + heap::available_bytes()
}
