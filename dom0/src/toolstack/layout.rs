//! Where everything lies in a new guest's memory.
//!
//! In frames from 0 on: (unused) · kernel · ramdisk, if it has to be mapped · frame list, if the kernel names no place
//! for it · start info · store page · console page · page tables · boot stack · padding to at least 512 KiB and a
//! multiple of 4 MiB; that much is mapped from the virtual base on. Behind it, unmapped: the ramdisk and the frame
//! list of a kernel that can find them by frame number.
//!
//! Source: Xen `public/xen.h`, "Start-of-day memory layout".

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::ops::Range;

use pv_abi::arch::HYPERVISOR_VIRT_END;

use super::image::Kernel;
use super::tables::{self, TablePages};

/// Bytes of a page.
pub const PAGE: u64 = 4096;
const PADDING: u64 = 512 << 10;
const MAPPED_MULTIPLE: u64 = 4 << 20;

/// The guest's ramdisk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RamdiskPlace {
    /// First frame.
    pub pfn: u64,
    /// Length in bytes.
    pub len: u64,
    /// Whether the kernel looks for it by frame rather than by address.
    pub by_frame: bool,
}

/// The list that tells a guest which machine frame is behind each of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FrameListPlace {
    /// First frame of the list.
    pub pfn: u64,
    /// Frames of the list itself.
    pub pages: u64,
    /// Where it is mapped.
    pub va: u64,
    /// Frames of the list and the page tables that map it, where it has a place of its own.
    pub own_region: Option<u64>,
}

/// Where everything lies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    /// Frames the guest has.
    pub pages: u64,
    /// Where frame 0 is mapped.
    pub virt_base: u64,
    /// Frames of the kernel image.
    pub kernel: Range<u64>,
    /// The ramdisk.
    pub ramdisk: Option<RamdiskPlace>,
    /// The frame list.
    pub frame_list: FrameListPlace,
    /// Frame of the start info.
    pub start_info: u64,
    /// Frame of the store page.
    pub store: u64,
    /// Frame of the console page.
    pub console: u64,
    /// Frame of the boot stack.
    pub stack: u64,
    /// The page tables.
    pub tables: TablePages,
    /// How many of them lie in the start mapping: all but those of a frame list with a place of its own.
    pub mapped_tables: u64,
    /// Frames mapped from the virtual base on.
    pub mapped: u64,
}

impl Layout {
    /// Places a kernel and a ramdisk of `ramdisk_len` bytes in `pages` frames.
    ///
    /// # Errors
    /// One phrase with the cure: they do not fit.
    pub fn plan(kernel: &Kernel<'_>, ramdisk_len: Option<u64>, pages: u64) -> Result<Self, String> {
        let virt_base = kernel.notes.virt_base;
        check_place(kernel, pages)?;
        let mut next = Cursor(kernel.end.div_ceil(PAGE));
        let kernel_frames = kernel.start / PAGE..next.0;
        let by_frame = kernel.notes.mod_start_pfn;
        let mut ramdisk = None;
        if let Some(len) = ramdisk_len.filter(|_| !by_frame) {
            ramdisk = Some(RamdiskPlace { pfn: next.take(len.div_ceil(PAGE)), len, by_frame });
        }
        let list_pages = (pages * 8).div_ceil(PAGE);
        let list_inside = kernel.notes.init_p2m.is_none().then(|| {
            let pfn = next.take(list_pages);
            FrameListPlace { pfn, pages: list_pages, va: virt_base + pfn * PAGE, own_region: None }
        });
        let start_info = next.take(1);
        let store = next.take(1);
        let console = next.take(1);
        let (mut tables, mapped) = mapped_tables(virt_base, next.0, pages);
        let mapped_tables = next.take_counted(tables.count());
        let stack = next.take(1);
        if let Some(len) = ramdisk_len.filter(|_| by_frame) {
            next.0 = next.0.max(mapped);
            ramdisk = Some(RamdiskPlace { pfn: next.take(len.div_ceil(PAGE)), len, by_frame });
        }
        let frame_list = match (list_inside, kernel.notes.init_p2m) {
            (None, Some(va)) => {
                next.0 = next.0.max(mapped);
                let pfn = next.take(list_pages);
                let own_tables = tables.add(va, list_pages, &mut next.0);
                FrameListPlace { pfn, pages: list_pages, va, own_region: Some(list_pages + own_tables) }
            }
            (Some(inside), _) => inside,
            (None, None) => {
                return Err("the kernel's notes name no place for its frame list".into());
            }
        };
        if next.0 > pages {
            return Err(too_large(next.0, pages));
        }
        Ok(Self {
            pages,
            virt_base,
            kernel: kernel_frames,
            ramdisk,
            frame_list,
            start_info,
            store,
            console,
            stack,
            tables,
            mapped_tables,
            mapped,
        })
    }

    /// The address at which the start mapping has a frame.
    pub fn va(&self, pfn: u64) -> u64 {
        self.virt_base + pfn * PAGE
    }

    /// The stack pointer the guest starts with.
    pub fn stack_top(&self) -> u64 {
        self.va(self.stack + 1)
    }

    /// All ranges of frames that something lies in, for checks.
    pub fn used(&self) -> Vec<(&'static str, Range<u64>)> {
        let one = |name, pfn: u64| (name, pfn..pfn + 1);
        let mut used = alloc::vec![
            ("kernel", self.kernel.clone()),
            ("frame list", self.frame_list.pfn..self.frame_list.pfn + self.frame_list.pages),
            one("start info", self.start_info),
            one("store", self.store),
            one("console", self.console),
            one("stack", self.stack),
        ];
        used.extend(self.ramdisk.as_ref().map(|place| ("ramdisk", place.pfn..place.pfn + place.len.div_ceil(PAGE))));
        used.extend(self.tables.pages().map(|(_, pfn)| one("page table", pfn)));
        used
    }
}

struct Cursor(u64);

impl Cursor {
    fn take(&mut self, pages: u64) -> u64 {
        let at = self.0;
        self.0 += pages;
        at
    }

    fn take_counted(&mut self, pages: u64) -> u64 {
        self.0 += pages;
        pages
    }
}

/// The page tables that map everything up to and with themselves, the stack and the padding; they begin at `first`.
fn mapped_tables(virt_base: u64, first: u64, pages: u64) -> (TablePages, u64) {
    let mut count = 0;
    loop {
        // One more frame for the stack.
        let end = virt_base + (first + count + 1) * PAGE + PADDING;
        let end = end.checked_next_multiple_of(MAPPED_MULTIPLE).unwrap_or(end);
        let mapped = ((end - virt_base) / PAGE).min(pages.max(first + count + 1));
        let needed = tables::needed(virt_base, mapped);
        if needed <= count {
            let mut next = first;
            let mut tables = TablePages::new(&mut next);
            tables.add(virt_base, mapped, &mut next);
            return (tables, mapped);
        }
        count = needed;
    }
}

/// Refuses addresses that no table could map, so that nothing below has to think of them.
fn check_place(kernel: &Kernel<'_>, pages: u64) -> Result<(), String> {
    let virt_base = kernel.notes.virt_base;
    let room = (pages + kernel.end / PAGE) * PAGE * 2 + MAPPED_MULTIPLE * 2;
    if kernel.end / PAGE >= pages {
        return Err(too_large(kernel.end / PAGE + 1, pages));
    }
    let reserved = (1 << 47..HYPERVISOR_VIRT_END).contains(&virt_base);
    if !virt_base.is_multiple_of(PAGE) || reserved || virt_base.checked_add(pages.min(1 << 19) * PAGE - 1).is_none() {
        return Err(format!(
            "the kernel wants to be mapped at {virt_base:#x}, which is not free: check its note VIRT_BASE"
        ));
    }
    match kernel.notes.init_p2m {
        Some(va) if va.checked_add(room).is_none() => {
            Err(format!("the kernel wants its frame list at {va:#x}: check its note INIT_P2M"))
        }
        _ => Ok(()),
    }
}

fn too_large(needed: u64, pages: u64) -> String {
    let mib = |pages: u64| (pages * PAGE).div_ceil(1 << 20);
    format!(
        "kernel and ramdisk need {} MiB, the guest has {}: set memory = {} or more",
        mib(needed),
        mib(pages),
        mib(needed).next_multiple_of(4)
    )
}
