//! From the boot loader to the portable kernel.
//!
//! The loader leaves a memory map and a start-info structure (PVH protocol). `entry.s` has turned on paging with 2 MiB pages
//! over the first GiB; here the kernel builds its own tables: a direct map of all memory, and the image with each part
//! protected as it should be.

use alloc::vec::Vec;
use core::arch::x86_64::__cpuid;
use core::ops::Range;

use x86_64::registers::control::{Cr4, Cr4Flags};

use super::{clock, console, paging, traps};
use crate::boot::Handover;
use crate::mm::entry::index_at;
use crate::mm::frames::FRAMES;
use crate::mm::{DIRECT_MAP, Entry, EntryFlags, EntryUpdate, IMAGE_BASE, PAGE_SIZE, Pfn, direct, phys};

unsafe extern "C" {
    /// Where QEMU's `-kernel` enters, in 32-bit mode.
    pub fn native_entry();
    static image_start: u8;
    static text_end: u8;
    static rodata_end: u8;
    static image_end: u8;
}

/// `struct hvm_start_info`.
#[repr(C)]
#[derive(Clone, Copy)]
struct HvmStartInfo {
    magic: u32,
    version: u32,
    flags: u32,
    nr_modules: u32,
    modlist_paddr: u64,
    cmdline_paddr: u64,
    rsdp_paddr: u64,
    memmap_paddr: u64,
    memmap_entries: u32,
    reserved: u32,
}

/// `struct hvm_modlist_entry`.
#[repr(C)]
#[derive(Clone, Copy)]
struct Module {
    paddr: u64,
    size: u64,
    cmdline_paddr: u64,
    reserved: u64,
}

/// `struct hvm_memmap_table_entry`.
#[repr(C)]
#[derive(Clone, Copy)]
struct MemoryRange {
    addr: u64,
    size: u64,
    kind: u32,
    reserved: u32,
}

const START_MAGIC: u32 = 0x336e_c578;
/// Memory map: RAM.
const RAM: u32 = 1;
/// Below are the firmware's tables and the loader's notes.
const LOW_MEMORY_FRAMES: u64 = 0x100;
const FRAMES_PER_LARGE_PAGE: u64 = 512;
const GIB_FRAMES: u64 = 512 * 512;
/// What the boot tables reach.
const BOOT_MAP_FRAMES: u64 = GIB_FRAMES;
/// The heap starts with this much beside the frame allocator's own tables.
const FIRST_HEAP_BYTES: u64 = 1 << 20;
/// Page size bit of a level-2 entry.
const LARGE: u64 = 1 << 7;

/// A copy of something in physical memory.
fn load<T: Copy>(paddr: u64) -> T {
    // SAFETY: the loader's structures lie in the first GiB, which the boot tables map, and any bits are a valid `T` here.
    unsafe { ((DIRECT_MAP as u64 + paddr) as *const T).read_unaligned() }
}

fn pages(bytes: u64) -> u64 {
    bytes.div_ceil(PAGE_SIZE as u64)
}

/// Called by `native_entry`.
#[unsafe(no_mangle)]
extern "C" fn native_main(start_info: u32) -> ! {
    console::init();
    crate::platform::select_native();
    let info: HvmStartInfo = load(start_info.into());
    assert_eq!(info.magic, START_MAGIC, "not started by the PVH protocol");
    refuse_hypervisor();
    let ram = ram_of(&info);
    let layout = Layout::of(&info, ram);
    traps::init();
    clock::init();
    build_tables(&layout);
    seed_heap(&layout);
    give_frames(&layout);
    protect_cpu();
    crate::mm::kernel_map::init();
    crate::boot::finish(handover(&info), || {})
}

/// The PVH entry is Xen's way into hardware-assisted guests as well; this platform drives a PC and needs one.
fn refuse_hypervisor() {
    let leaf = __cpuid(0x4000_0000);
    let name = [leaf.ebx, leaf.ecx, leaf.edx].map(u32::to_le_bytes);
    let is_xen = name.as_flattened() == b"XenVMMXenVMM";
    assert!(!is_xen, "a PVH guest of Xen has no PC to drive: start this kernel as a PV guest");
}

fn ram_of(info: &HvmStartInfo) -> [Range<u64>; MAX_RANGES] {
    let mut ram = [const { 0..0 }; MAX_RANGES];
    let entries = (0..u64::from(info.memmap_entries))
        .map(|entry| load::<MemoryRange>(info.memmap_paddr + entry * size_of::<MemoryRange>() as u64))
        .filter(|range| range.kind == RAM);
    for (place, range) in ram.iter_mut().zip(entries) {
        *place = pages(range.addr)..(range.addr + range.size) >> 12;
    }
    ram
}

/// Ranges of RAM that are used; a PC has two or three.
const MAX_RANGES: usize = 16;

/// Where things are, in frames.
struct Layout {
    ram: [Range<u64>; MAX_RANGES],
    /// First frame above all RAM.
    end: u64,
    image: Range<u64>,
    /// Frames for the kernel's page tables.
    tables: Range<u64>,
    heap: Range<u64>,
    ramdisk: Range<u64>,
}

/// The image's borders as addresses.
fn borders() -> [usize; 4] {
    [&raw const image_start, &raw const text_end, &raw const rodata_end, &raw const image_end]
        .map(|symbol| symbol as usize)
}

impl Layout {
    fn of(info: &HvmStartInfo, ram: [Range<u64>; MAX_RANGES]) -> Self {
        let [start, _, _, end] = borders().map(|addr| ((addr - IMAGE_BASE) >> 12) as u64);
        let frames = ram.iter().map(|range| range.end).max().unwrap_or(0);
        let ramdisk = ramdisk_of(info).map_or(0..0, |module| module.paddr >> 12..pages(module.paddr + module.size));
        // Top, direct-map and image levels, and the last-level tables under the image at both its addresses.
        let large_pages = pages_of_large(&(start..end)) * 2;
        let tables = 4 + frames.div_ceil(GIB_FRAMES) + large_pages;
        let heap = pages(frames * 3 + FIRST_HEAP_BYTES);
        let mut first = end;
        if first < ramdisk.end && ramdisk.start < first + tables + heap {
            first = ramdisk.end;
        }
        let last = first + tables + heap;
        let fits = ram.iter().any(|range| range.start <= first && last <= range.end);
        assert!(fits && last <= BOOT_MAP_FRAMES, "no memory behind the kernel image");
        Self { ram, end: frames, image: start..end, tables: first..first + tables, heap: first + tables..last, ramdisk }
    }

    fn is_used(&self, frame: u64) -> bool {
        let used = [&self.image, &self.tables, &self.heap, &self.ramdisk];
        frame < LOW_MEMORY_FRAMES || used.iter().any(|range| range.contains(&frame))
    }
}

/// Large pages that frames touch.
fn pages_of_large(frames: &Range<u64>) -> u64 {
    frames.end.div_ceil(FRAMES_PER_LARGE_PAGE) - frames.start / FRAMES_PER_LARGE_PAGE
}

fn ramdisk_of(info: &HvmStartInfo) -> Option<Module> {
    (info.nr_modules > 0).then(|| load::<Module>(info.modlist_paddr))
}

/// The kernel's own page tables, from a row of frames.
struct Tables {
    free: Range<u64>,
}

impl Tables {
    fn take(&mut self) -> Pfn {
        let pfn = Pfn(self.free.next().expect("page tables were counted"));
        phys::zero(pfn);
        pfn
    }

    /// The table below `table` at `index`; made if it is missing.
    fn below(&mut self, table: Pfn, index: usize) -> Pfn {
        let entry = paging::read_entry(table, index);
        if entry.is_present() {
            return entry.pfn;
        }
        let pfn = self.take();
        set(table, index, Entry::new(pfn, EntryFlags::TABLE));
        pfn
    }

    fn level2(&mut self, root: Pfn, addr: usize) -> Pfn {
        let l3 = self.below(root, index_at(addr, 4));
        self.below(l3, index_at(addr, 3))
    }

    fn map(&mut self, root: Pfn, addr: usize, entry: Entry) {
        let l2 = self.level2(root, addr);
        let l1 = self.below(l2, index_at(addr, 2));
        set(l1, index_at(addr, 1), entry);
    }

    fn map_large(&mut self, root: Pfn, addr: usize, pfn: u64) {
        let l2 = self.level2(root, addr);
        let bits = Entry::new(Pfn(pfn), EntryFlags::KERNEL_DATA).bits_with_frame(pfn);
        phys::write_u64(l2, index_at(addr, 2), bits | LARGE);
    }
}

fn set(table: Pfn, index: usize, entry: Entry) {
    paging::write_entries(&[EntryUpdate { table, index, entry }]);
}

fn build_tables(layout: &Layout) {
    let mut tables = Tables { free: layout.tables.clone() };
    let root = tables.take();
    for first in (0..layout.end).step_by(FRAMES_PER_LARGE_PAGE as usize) {
        let large = first..first + FRAMES_PER_LARGE_PAGE;
        if large.end <= layout.image.start || layout.image.end <= large.start {
            tables.map_large(root, direct(Pfn(first)), first);
            continue;
        }
        for pfn in large {
            let flags =
                if layout.image.contains(&pfn) { EntryFlags::KERNEL_READ_ONLY } else { EntryFlags::KERNEL_DATA };
            tables.map(root, direct(Pfn(pfn)), Entry::new(Pfn(pfn), flags));
        }
    }
    let [start, text, constants, end] = borders();
    for addr in (start..end).step_by(PAGE_SIZE) {
        let flags = match addr {
            addr if addr < text => EntryFlags::KERNEL_TEXT,
            addr if addr < constants => EntryFlags::KERNEL_READ_ONLY,
            _ => EntryFlags::KERNEL_DATA,
        };
        let pfn = Pfn(((addr - IMAGE_BASE) >> 12) as u64);
        tables.map(root, addr, Entry::new(pfn, flags));
    }
    paging::set_kernel_root(root);
    paging::load(root);
}

fn seed_heap(layout: &Layout) {
    let bytes = (layout.heap.end - layout.heap.start) as usize * PAGE_SIZE;
    // SAFETY: `Layout::of` chose frames that nothing else uses; the direct map has them.
    unsafe { crate::mm::seed_heap(direct(Pfn(layout.heap.start)), bytes) };
}

fn give_frames(layout: &Layout) {
    let mut frames = FRAMES.lock();
    frames.resize(layout.end as usize);
    for range in &layout.ram {
        for pfn in range.clone().filter(|pfn| !layout.is_used(*pfn)) {
            frames.add(Pfn(pfn), Pfn(pfn + 1));
        }
    }
}

/// The kernel never runs user code: where the CPU can enforce that, it shall.
fn protect_cpu() {
    let has_smep = __cpuid(7).ebx & 1 << 7 != 0;
    if has_smep {
        // SAFETY: no user page is executed in kernel mode, now or later.
        unsafe { Cr4::update(|flags| flags.insert(Cr4Flags::SUPERVISOR_MODE_EXECUTION_PROTECTION)) };
    }
}

fn handover(info: &HvmStartInfo) -> Handover {
    let ramdisk: &'static [u8] = ramdisk_of(info).map_or(&[], |module| {
        let start = (DIRECT_MAP as u64 + module.paddr) as *const u8;
        // SAFETY: the frames are reserved for ever and nothing writes to them.
        unsafe { core::slice::from_raw_parts(start, module.size as usize) }
    });
    let text = command_line(info.cmdline_paddr).leak();
    Handover { command_line: core::str::from_utf8(text).unwrap_or(""), ramdisk }
}

/// The loader's text, up to its NUL.
fn command_line(paddr: u64) -> Vec<u8> {
    if paddr == 0 {
        return Vec::new();
    }
    (0..PAGE_SIZE as u64).map(|offset| load::<u8>(paddr + offset)).take_while(|byte| *byte != 0).collect()
}
