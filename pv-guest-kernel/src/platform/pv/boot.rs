//! From Xen's entry to the portable kernel.
//!
//! What Xen or a domain builder leaves (`public/xen.h`, "start-of-day memory layout"): the image, start_info, the p2m list and
//! the initial page tables lie one after the other from pfn 0 on and are mapped at VIRT_BASE; the tables are pinned and mapped
//! read-only; events are masked. From there:
//! 1. GS is pointed to the first vCPU's own data; shared_info takes the place of a page of the image, and vcpu_info moves
//!    out of it; traps and callbacks are registered;
//! 2. the direct map is built, table by table, each filled while it is an ordinary page and then handed to Xen;
//! 3. what the initial tables map beyond the image is unmapped, so that each frame has one kernel address, and the image gets
//!    its protection: text is never writable, data never executable.
#![expect(unsafe_code, reason = "the first instructions of the kernel")]

use alloc::vec::Vec;
use core::ops::Range;

use pv_abi::memory::{MachphysMapping, XENMEM_MACHPHYS_MAPPING};
use pv_abi::xen::{self, StartFlags, StartInfo};

use super::{RingPage, clock, console, cpus, events, hypercall, p2m, paging, percpu, shared, traps};
use crate::boot::{Handover, find_free};
use crate::mm::entry::index_at;
use crate::mm::frames::FRAMES;
use crate::mm::{DIRECT_MAP, Entry, EntryFlags, EntryUpdate, IMAGE_BASE, PAGE_SIZE, Pfn, direct};

unsafe extern "C" {
    /// Where Xen enters.
    pub fn pv_entry();
    static image_start: u8;
    static text_end: u8;
    static rodata_end: u8;
    static image_end: u8;
}

/// The image's borders as addresses.
fn borders() -> [usize; 4] {
    let symbols = [&raw const image_start, &raw const text_end, &raw const rodata_end, &raw const image_end];
    symbols.map(|symbol| symbol as usize)
}

/// Called by `pv_entry`.
#[unsafe(no_mangle)]
extern "C" fn pv_main(start_info: *const StartInfo) -> ! {
    // SAFETY: `entry.s` passes what Xen passed.
    unsafe { shared::keep_start_info(start_info) };
    let info = shared::start_info();
    p2m::init(info.mfn_list as usize, info.nr_pages, machine_frames());
    percpu::init_first();
    shared::map_shared_info();
    crate::platform::select_pv();
    events::init();
    percpu::register(0).expect("vcpu_info can be moved");
    traps::init();
    let layout = Layout::of(&info);
    build_direct_map(&info, &layout);
    console::init();
    seed_heap(&layout);
    clean_up_initial_map(&info);
    give_frames(&layout);
    p2m::publish();
    crate::mm::kernel_map::init();
    super::grants::init();
    clock::init();
    cpus::init_first();
    crate::boot::finish(handover(&info), console::start)
}

/// Where things are, in pfns.
struct Layout {
    frames: u64,
    /// Everything that must not be given to the allocator; the last one is the first heap.
    reserved: [Range<u64>; 9],
    /// Page tables: their direct-map entries are read-only.
    initial_tables: Range<u64>,
    /// Frames that become the direct map's own tables: first those below the image, then others.
    low_tables: Range<u64>,
    high_tables: Range<u64>,
    image: Range<u64>,
}

fn pfn_of_addr(addr: u64) -> u64 {
    (addr - IMAGE_BASE as u64) >> 12
}

fn pages(bytes: u64) -> u64 {
    bytes.div_ceil(PAGE_SIZE as u64)
}

/// Tables a direct map of `frames` frames needs: one L3, an L2 for each GiB, an L1 for each 2 MiB.
fn tables_needed(frames: u64) -> u64 {
    1 + frames.div_ceil(512 * 512) + frames.div_ceil(512)
}

impl Layout {
    fn of(info: &StartInfo) -> Self {
        let frames = info.nr_pages;
        let [start, _, _, end] = borders().map(|addr| pfn_of_addr(addr as u64));
        let tables_first = pfn_of_addr(info.pt_base);
        let initial_tables = tables_first..tables_first + info.nr_pt_frames;
        let list_first = pfn_of_addr(info.mfn_list);
        let list = list_first..list_first + pages(frames * 8);
        // Below the image lie 1 MiB of frames that the initial tables map and nothing uses. Frame 0 stays out of use.
        let wanted = tables_needed(frames);
        let low_tables = 1..(1 + wanted).min(start);
        let ring = |ring: Option<RingPage>| match ring.and_then(|ring| p2m::pfn_of(ring.mfn)) {
            Some(pfn) => pfn.0..pfn.0 + 1,
            None => 0..0,
        };
        let mut reserved = [
            start..end,
            initial_tables.clone(),
            low_tables.clone(),
            list,
            ramdisk_frames(info),
            ring(shared::console_ring()),
            ring(shared::store_ring()),
            0..0,
            0..0,
        ];
        let high_tables = find_free(&reserved, end, wanted - (low_tables.end - low_tables.start));
        reserved[7] = high_tables.clone();
        let heap_pages = pages(frames * 3 + FIRST_HEAP_BYTES);
        reserved[8] = find_free(&reserved, high_tables.end, heap_pages);
        Self { frames, reserved, initial_tables, low_tables, high_tables, image: start..end }
    }

    fn is_reserved(&self, pfn: u64) -> bool {
        self.reserved.iter().any(|range| range.contains(&pfn))
    }

    /// What the direct map may do with a frame.
    fn direct_flags(&self, pfn: u64) -> EntryFlags {
        let read_only = [&self.initial_tables, &self.low_tables, &self.image];
        if read_only.iter().any(|range| range.contains(&pfn)) {
            EntryFlags::KERNEL_READ_ONLY
        } else {
            EntryFlags::KERNEL_DATA
        }
    }
}

/// How many machine frames Xen's m2p table covers.
fn machine_frames() -> u64 {
    let mut mapping = MachphysMapping::default();
    // SAFETY: the struct of this operation.
    let result = unsafe { hypercall::operation(xen::HYPERVISOR_MEMORY_OP, XENMEM_MACHPHYS_MAPPING, &mut mapping) };
    match result {
        Ok(_) => mapping.max_mfn + 1,
        Err(_) => pv_abi::arch::MACH2PHYS_NR_ENTRIES,
    }
}

fn ramdisk_frames(info: &StartInfo) -> Range<u64> {
    if info.mod_len == 0 {
        return 0..0;
    }
    let flags = StartFlags::from_bits_truncate(info.flags);
    let first = if flags.contains(StartFlags::MOD_START_PFN) { info.mod_start } else { pfn_of_addr(info.mod_start) };
    first..first + pages(info.mod_len)
}

fn build_direct_map(info: &StartInfo, layout: &Layout) {
    let root = Pfn(pfn_of_addr(info.pt_base));
    paging::set_kernel_root(root);
    let mut tables = MapTables { low: layout.low_tables.clone(), high: layout.high_tables.clone() };
    let l3 = tables.take(|_| 0);
    link(root, index_at(DIRECT_MAP, 4), l3);
    for gigabyte in 0..layout.frames.div_ceil(512 * 512) {
        let l2 = tables.take(|_| 0);
        link(l3, gigabyte as usize, l2);
        let first = gigabyte * 512 * 512;
        let chunks = (layout.frames - first).div_ceil(512).min(512);
        for chunk in 0..chunks {
            let first = first + chunk * 512;
            let l1 = tables.take(|index| direct_bits(layout, first + index as u64));
            link(l2, chunk as usize, l1);
        }
    }
    let list = direct(Pfn(pfn_of_addr(info.mfn_list)));
    p2m::init(list, layout.frames, machine_frames());
}

fn direct_bits(layout: &Layout, pfn: u64) -> u64 {
    p2m::try_mfn_of(Pfn(pfn)).map_or(0, |mfn| Entry::new(Pfn(pfn), layout.direct_flags(pfn)).bits_with_frame(mfn.0))
}

/// Links `table` into `parent`; Xen validates it as it gains its type.
fn link(parent: Pfn, index: usize, table: Pfn) {
    let entry = Entry::new(table, EntryFlags::TABLE);
    paging::write_entries(&[EntryUpdate { table: parent, index, entry }]);
}

/// Frames for the direct map's tables. The low ones are mapped at VIRT_BASE; when they run out, the part of the direct map
/// that is already there reaches the high ones.
struct MapTables {
    low: Range<u64>,
    high: Range<u64>,
}

impl MapTables {
    /// A frame filled with `entry(index)`, without a writable mapping.
    fn take(&mut self, entry: impl Fn(usize) -> u64) -> Pfn {
        if let Some(pfn) = self.low.next() {
            let alias = IMAGE_BASE + pfn as usize * PAGE_SIZE;
            fill(alias, entry);
            paging::update_va_mapping(alias, 0, xen::UVMF_INVLPG).expect("an alias can be unmapped");
            return Pfn(pfn);
        }
        let pfn = Pfn(self.high.next().expect("a frame for each table was counted"));
        fill(direct(pfn), entry);
        // The initial tables map a few MiB behind the image; where they do not reach, there is nothing to unmap.
        let alias = IMAGE_BASE + pfn.0 as usize * PAGE_SIZE;
        let _ = paging::update_va_mapping(alias, 0, xen::UVMF_INVLPG);
        paging::make_table(pfn, 1);
        pfn
    }
}

/// Writes the 512 entries of a table that is still an ordinary page.
fn fill(table: usize, entry: impl Fn(usize) -> u64) {
    for index in 0..512 {
        let place = (table + index * 8) as *mut u64;
        // SAFETY: `table` is a mapped frame that nothing else uses.
        unsafe { place.write(entry(index)) };
    }
}

/// Bytes one last-level table maps.
const TABLE_SPAN: usize = 512 * PAGE_SIZE;

/// Unmaps what the initial tables map besides the image, and gives the image its protection.
fn clean_up_initial_map(info: &StartInfo) {
    let root = Pfn(pfn_of_addr(info.pt_base));
    let image = borders()[0]..borders()[3];
    let mut table_addr = IMAGE_BASE;
    // The last GiB below the top may be mapped too when a domain builder was given a large ramdisk.
    while table_addr != 0 {
        if let Some((l2, l1)) = last_tables(root, table_addr) {
            let overlaps = table_addr < image.end && table_addr + (TABLE_SPAN - 1) >= image.start;
            if overlaps {
                protect_table(l1, table_addr, &image);
            } else {
                paging::write_entries(&[EntryUpdate {
                    table: l2,
                    index: index_at(table_addr, 2),
                    entry: Entry::ABSENT,
                }]);
            }
        }
        table_addr = table_addr.wrapping_add(TABLE_SPAN);
    }
    paging::mmuext(&[paging::ext(xen::MMUEXT_TLB_FLUSH_LOCAL, 0)]).expect("a flush cannot fail");
}

/// The tables of level 2 and 1 that map `addr`, if there are.
fn last_tables(root: Pfn, addr: usize) -> Option<(Pfn, Pfn)> {
    let step = |table: Pfn, level: u8| {
        let entry = paging::read_entry(table, index_at(addr, level));
        entry.is_present().then_some(entry.pfn)
    };
    let l3 = step(root, 4)?;
    let l2 = step(l3, 3)?;
    Some((l2, step(l2, 2)?))
}

/// Sets each entry of one last-level table of the initial map to what it shall be.
fn protect_table(l1: Pfn, table_addr: usize, image: &Range<usize>) {
    let [_, text, constants, _] = borders();
    let mut updates = Vec::with_capacity(512);
    for index in 0..512 {
        let addr = table_addr + index * PAGE_SIZE;
        let old = paging::read_entry(l1, index);
        if !old.is_present() || addr == shared::shared_info_addr() {
            continue;
        }
        let entry = if !image.contains(&addr) {
            Entry::ABSENT
        } else if addr < text {
            Entry::new(old.pfn, EntryFlags::KERNEL_TEXT)
        } else if addr < constants {
            Entry::new(old.pfn, EntryFlags::KERNEL_READ_ONLY)
        } else {
            Entry::new(old.pfn, EntryFlags::KERNEL_DATA)
        };
        updates.push(EntryUpdate { table: l1, index, entry });
    }
    paging::write_entries(&updates);
}

/// The heap starts with this much beside the frame allocator's own tables.
const FIRST_HEAP_BYTES: u64 = 1 << 20;

/// Gives the heap its first frames and all other frames to the allocator.
fn give_frames(layout: &Layout) {
    let mut frames = FRAMES.lock();
    frames.resize(layout.frames as usize);
    let mut run = 0..0;
    for pfn in 0..=layout.frames {
        let usable = pfn < layout.frames && pfn != 0 && !layout.is_reserved(pfn) && p2m::try_mfn_of(Pfn(pfn)).is_some();
        if usable && run.is_empty() {
            run.start = pfn;
        }
        if usable {
            run.end = pfn + 1;
        } else if !run.is_empty() {
            frames.add(Pfn(run.start), Pfn(run.end));
            run = 0..0;
        }
    }
}

/// Seeds the heap from frames behind everything that is in use; they are reserved in `layout`.
fn seed_heap(layout: &Layout) {
    let [.., heap] = &layout.reserved;
    let bytes = (heap.end - heap.start) as usize * PAGE_SIZE;
    // SAFETY: `Layout::of` chose frames that nothing else uses; the direct map has them.
    unsafe { crate::mm::seed_heap(direct(Pfn(heap.start)), bytes) };
}

fn handover(info: &StartInfo) -> Handover {
    let frames = ramdisk_frames(info);
    let start = direct(Pfn(frames.start)) as *const u8;
    let ramdisk: &'static [u8] = if info.mod_len == 0 {
        &[]
    } else {
        // SAFETY: the frames are reserved for ever and nothing writes to them.
        unsafe { core::slice::from_raw_parts(start, info.mod_len as usize) }
    };
    let text = info.command_line().to_vec().leak();
    Handover { command_line: core::str::from_utf8(text).unwrap_or(""), ramdisk }
}
