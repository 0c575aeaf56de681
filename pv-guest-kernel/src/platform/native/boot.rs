//! From the boot loader to the portable kernel.
//!
//! The loader leaves a memory map and a start-info structure (PVH protocol). `entry.s` has turned on paging with 2 MiB pages
//! over the first GiB; here the kernel builds its own tables: a direct map of all memory, and the image with each part
//! protected as it should be.

use alloc::vec::Vec;
use core::arch::x86_64::__cpuid;
use core::ops::Range;

use pv_abi::hvm::{
    HvmMemmapTableEntry, HvmModlistEntry, HvmStartInfo, XEN_HVM_MEMMAP_TYPE_RAM, XEN_HVM_START_MAGIC_VALUE,
};
use x86_64::registers::control::{Cr4, Cr4Flags};

use super::{apic, clock, console, paging, traps};
use crate::boot::{Handover, find_free};
use crate::mm::entry::index_at;
use crate::mm::frames::FRAMES;
use crate::mm::{DIRECT_MAP, Entry, EntryFlags, EntryUpdate, IMAGE_BASE, PAGE_SIZE, Pfn, direct, phys};
use crate::platform::pvh;

unsafe extern "C" {
    /// Where QEMU's `-kernel` enters, in 32-bit mode.
    pub fn native_entry();
    static image_start: u8;
    static text_end: u8;
    static rodata_end: u8;
    static image_end: u8;
}

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
    // The PVH entry is Xen's way into hardware-assisted guests as well; this platform drives a PC.
    if let Some(below) = pvh::find_hypervisor() {
        pvh::boot::main(&below, start_info.into());
    }
    console::init();
    crate::platform::select_native();
    let info = start_info_at(start_info.into());
    let layout = Layout::of(&info, start_info.into(), &[]);
    traps::init();
    traps::start_pics();
    clock::init();
    set_up_memory(&layout);
    apic::init();
    crate::boot::finish(handover(&info), || {})
}

/// What the loader left.
pub(in crate::platform) fn start_info_at(paddr: u64) -> HvmStartInfo {
    let info: HvmStartInfo = load(paddr);
    assert_eq!(info.magic, XEN_HVM_START_MAGIC_VALUE, "not started by the PVH protocol");
    info
}

/// Page tables, heap and frame allocator.
pub(in crate::platform) fn set_up_memory(layout: &Layout) {
    build_tables(layout);
    seed_heap(layout);
    give_frames(layout);
    protect_cpu();
    crate::mm::kernel_map::init();
}

fn ram_of(info: &HvmStartInfo) -> [Range<u64>; MAX_RANGES] {
    let mut ram = [const { 0..0 }; MAX_RANGES];
    let entries = (0..u64::from(info.memmap_entries))
        .map(|entry| load::<HvmMemmapTableEntry>(info.memmap_paddr + entry * size_of::<HvmMemmapTableEntry>() as u64))
        .filter(|range| range.type_ == XEN_HVM_MEMMAP_TYPE_RAM);
    for (place, range) in ram.iter_mut().zip(entries) {
        *place = pages(range.addr)..(range.addr + range.size) >> 12;
    }
    ram
}

/// Ranges of RAM that are used; a PC has two or three.
const MAX_RANGES: usize = 16;

/// Where things are, in frames.
pub(in crate::platform) struct Layout {
    pub(in crate::platform) ram: [Range<u64>; MAX_RANGES],
    /// First frame above all RAM.
    end: u64,
    image: Range<u64>,
    /// Frames for the kernel's page tables.
    tables: Range<u64>,
    heap: Range<u64>,
    ramdisk: Range<u64>,
    /// What the loader wrote for the kernel: start info, list of modules, memory map, command line.
    notes: [Range<u64>; 4],
    /// Frames beyond the RAM that are mapped too.
    special: [u64; MAX_SPECIAL],
}

/// Frames beyond the RAM that a hypervisor gives.
pub(in crate::platform) const MAX_SPECIAL: usize = 2;

/// The image's borders as addresses.
fn borders() -> [usize; 4] {
    [&raw const image_start, &raw const text_end, &raw const rodata_end, &raw const image_end]
        .map(|symbol| symbol as usize)
}

impl Layout {
    /// Finds room for the kernel's tables and heap. `start_info` is where `info` lies; frames of `special` are mapped as RAM is.
    pub(in crate::platform) fn of(info: &HvmStartInfo, start_info: u64, special: &[u64]) -> Self {
        let ram = ram_of(info);
        let [start, _, _, end] = borders().map(|addr| ((addr - IMAGE_BASE) >> 12) as u64);
        let frames = ram.iter().map(|range| range.end).max().unwrap_or(0);
        let ramdisk = ramdisk_of(info).map_or(0..0, |module| module.paddr >> 12..pages(module.paddr + module.size));
        // Top, direct-map and image levels, and the last-level tables under the image at both its addresses.
        let large_pages = pages_of_large(&(start..end)) * 2;
        // Each frame far from the others takes a table of either level.
        let tables = 4 + frames.div_ceil(GIB_FRAMES) + large_pages + 2 * special.len() as u64;
        let heap = pages(frames * 3 + FIRST_HEAP_BYTES);
        let notes = notes_of(info, start_info);
        let [info_frames, modules, map, text] = notes.clone();
        let taken = [ramdisk.clone(), info_frames, modules, map, text];
        let Range { start: first, end: last } = find_free(&taken, end, tables + heap);
        let fits = ram.iter().any(|range| range.start <= first && last <= range.end);
        assert!(fits && last <= BOOT_MAP_FRAMES, "no memory behind the kernel image");
        let mapped = frames.next_multiple_of(FRAMES_PER_LARGE_PAGE);
        let mut far = [0; MAX_SPECIAL];
        far.iter_mut().zip(special.iter().filter(|pfn| **pfn >= mapped)).for_each(|(place, pfn)| *place = *pfn);
        Self {
            ram,
            end: frames,
            image: start..end,
            tables: first..first + tables,
            heap: first + tables..last,
            ramdisk,
            notes,
            special: far,
        }
    }

    fn is_used(&self, frame: u64) -> bool {
        let used = [&self.image, &self.tables, &self.heap, &self.ramdisk];
        frame < LOW_MEMORY_FRAMES || used.into_iter().chain(&self.notes).any(|range| range.contains(&frame))
    }
}

/// The frames of what the loader wrote.
fn notes_of(info: &HvmStartInfo, start_info: u64) -> [Range<u64>; 4] {
    let range = |paddr: u64, bytes: usize| match paddr {
        0 => 0..0,
        _ => paddr >> 12..pages(paddr + bytes as u64),
    };
    [
        range(start_info, size_of::<HvmStartInfo>()),
        range(info.modlist_paddr, info.nr_modules as usize * size_of::<HvmModlistEntry>()),
        range(info.memmap_paddr, info.memmap_entries as usize * size_of::<HvmMemmapTableEntry>()),
        range(info.cmdline_paddr, command_line_bytes(info.cmdline_paddr)),
    ]
}

/// Large pages that frames touch.
fn pages_of_large(frames: &Range<u64>) -> u64 {
    frames.end.div_ceil(FRAMES_PER_LARGE_PAGE) - frames.start / FRAMES_PER_LARGE_PAGE
}

fn ramdisk_of(info: &HvmStartInfo) -> Option<HvmModlistEntry> {
    (info.nr_modules > 0).then(|| load::<HvmModlistEntry>(info.modlist_paddr))
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
    for pfn in layout.special.into_iter().filter(|pfn| *pfn != 0) {
        tables.map(root, direct(Pfn(pfn)), Entry::new(Pfn(pfn), EntryFlags::KERNEL_DATA));
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

pub(in crate::platform) fn handover(info: &HvmStartInfo) -> Handover {
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
    (0..command_line_bytes(paddr) as u64).map(|offset| load::<u8>(paddr + offset)).collect()
}

fn command_line_bytes(paddr: u64) -> usize {
    if paddr == 0 {
        return 0;
    }
    (0..PAGE_SIZE as u64).take_while(|offset| load::<u8>(paddr + offset) != 0).count()
}
