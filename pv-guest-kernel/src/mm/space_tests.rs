//! Address spaces on a memory that remembers: each write to a table is checked as Xen would check it.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::vec;
use std::vec::Vec;

use super::*;
use crate::mm::frames::FrameAllocator;

/// Frames, tables, and the rule that a frame is a table or mapped writable, never both.
#[derive(Default)]
struct Memory {
    frames: FrameAllocator,
    bytes: HashMap<Pfn, Vec<u8>>,
    tables: HashMap<Pfn, Vec<Entry>>,
}

#[derive(Clone)]
struct FakeMmu(Rc<RefCell<Memory>>);

impl FakeMmu {
    fn new(frames: usize) -> Self {
        let mut memory = Memory::default();
        memory.frames.resize(frames);
        memory.frames.add(Pfn(0), Pfn(frames as u64));
        Self(Rc::new(RefCell::new(memory)))
    }

    fn free(&self) -> usize {
        self.0.borrow().frames.free()
    }

    /// How many entries of all tables map `pfn` writable.
    fn writable_mappings(&self, pfn: Pfn) -> usize {
        let memory = self.0.borrow();
        let entries = memory.tables.values().flatten();
        entries
            .filter(|entry| {
                entry.is_present()
                    && entry.pfn == pfn
                    && entry.flags.contains(EntryFlags::WRITABLE)
                    && !memory.tables.contains_key(&entry.pfn)
            })
            .count()
    }
}

impl Mmu for FakeMmu {
    fn alloc_frame(&self) -> Option<Pfn> {
        let mut memory = self.0.borrow_mut();
        let pfn = memory.frames.alloc()?;
        memory.bytes.insert(pfn, vec![0; PAGE_SIZE]);
        Some(pfn)
    }
    fn share_frame(&self, pfn: Pfn) -> bool {
        self.0.borrow_mut().frames.share(pfn).is_ok()
    }
    fn release_frame(&self, pfn: Pfn) {
        if self.frame_users(pfn) == 1 {
            assert_eq!(self.writable_mappings(pfn), 0, "freed while mapped");
        }
        self.0.borrow_mut().frames.release(pfn);
    }
    fn frame_users(&self, pfn: Pfn) -> u16 {
        self.0.borrow().frames.users(pfn)
    }
    fn read_frame(&self, pfn: Pfn, offset: usize, into: &mut [u8]) {
        into.copy_from_slice(&self.0.borrow().bytes[&pfn][offset..offset + into.len()]);
    }
    fn write_frame(&self, pfn: Pfn, offset: usize, from: &[u8]) {
        let mut memory = self.0.borrow_mut();
        let bytes = memory.bytes.get_mut(&pfn).expect("a frame in use");
        bytes[offset..offset + from.len()].copy_from_slice(from);
    }
    fn copy_frame(&self, from: Pfn, to: Pfn) {
        let mut memory = self.0.borrow_mut();
        let bytes = memory.bytes[&from].clone();
        memory.bytes.insert(to, bytes);
    }
    fn read_entry(&self, table: Pfn, index: usize) -> Entry {
        self.0.borrow().tables[&table][index]
    }
    fn write_entries(&self, updates: &[EntryUpdate]) {
        for update in updates {
            let mut memory = self.0.borrow_mut();
            let is_table = memory.tables.contains_key(&update.entry.pfn);
            let writable = update.entry.flags.contains(EntryFlags::WRITABLE);
            let user_page = update.entry.flags.contains(EntryFlags::COPY_ON_WRITE);
            assert!(!(user_page && (writable || is_table)), "{update:?}");
            memory.tables.get_mut(&update.table).expect("a table")[update.index] = update.entry;
        }
        for update in updates {
            let pfn = update.entry.pfn;
            let writers = self.writable_mappings(pfn);
            assert!(writers <= 1 || !update.entry.is_present(), "{pfn} has {writers} writers");
        }
    }
    fn make_table(&self, table: Pfn, _level: u8) {
        assert_eq!(self.writable_mappings(table), 0, "a writable page table");
        let empty = vec![Entry::ABSENT; 512];
        self.0.borrow_mut().tables.insert(table, empty);
    }
    fn retire_tables(&self, tables: &[(Pfn, u8)]) {
        for (table, _) in tables {
            self.0.borrow_mut().tables.remove(table);
        }
    }
    fn flush(&self, _root: Pfn, _addr: Option<usize>) {}
}

const HEAP: usize = 0x40_0000;

fn zeros(pages: usize) -> Region {
    Region { end: HEAP + pages * PAGE_SIZE, writable: true, executable: false, backing: Backing::Zeros }
}

fn read_u8(space: &mut AddressSpace<FakeMmu>, addr: usize) -> Result<u8, Fault> {
    let mut byte = [0];
    space.read(addr, &mut byte).map(|()| byte[0])
}

#[test]
fn a_region_costs_nothing_until_it_is_touched() {
    let mmu = FakeMmu::new(64);
    let mut space = AddressSpace::new(mmu.clone()).expect("memory");
    space.map(HEAP, zeros(1000)).expect("room");
    assert_eq!(space.usage().resident, 0);
    space.write(HEAP + 5 * PAGE_SIZE + 7, b"x").expect("room");
    assert_eq!(space.usage(), Usage { resident: 1, tables: 4 });
}

#[test]
fn a_child_sees_what_was_there_and_not_what_comes() {
    let mmu = FakeMmu::new(64);
    let mut parent = AddressSpace::new(mmu.clone()).expect("memory");
    parent.map(HEAP, zeros(4)).expect("room");
    parent.write(HEAP, b"a").expect("room");
    let mut child = parent.fork(mmu.clone()).expect("memory");
    parent.write(HEAP, b"p").expect("room");
    child.write(HEAP + 1, b"c").expect("room");
    assert_eq!(read_u8(&mut child, HEAP), Ok(b'a'));
    assert_eq!(read_u8(&mut parent, HEAP), Ok(b'p'));
    assert_eq!(read_u8(&mut parent, HEAP + 1), Ok(0));
}

#[test]
fn the_last_user_of_a_frame_writes_without_a_copy() {
    let mmu = FakeMmu::new(64);
    let mut parent = AddressSpace::new(mmu.clone()).expect("memory");
    parent.map(HEAP, zeros(1)).expect("room");
    parent.write(HEAP, b"a").expect("room");
    drop(parent.fork(mmu.clone()).expect("memory"));
    let free = mmu.free();
    parent.write(HEAP, b"b").expect("room");
    assert_eq!(mmu.free(), free);
}

#[test]
fn all_frames_come_back_when_spaces_end() {
    let mmu = FakeMmu::new(128);
    let before = mmu.free();
    let mut parent = AddressSpace::new(mmu.clone()).expect("memory");
    parent.map(HEAP, zeros(8)).expect("room");
    parent.write(HEAP, &[1; 5 * PAGE_SIZE]).expect("room");
    let mut child = parent.fork(mmu.clone()).expect("memory");
    child.write(HEAP + PAGE_SIZE, b"c").expect("room");
    drop(parent);
    drop(child);
    assert_eq!(mmu.free(), before);
}

#[test]
fn a_read_only_page_is_not_written() {
    let mmu = FakeMmu::new(64);
    let mut space = AddressSpace::new(mmu).expect("memory");
    let region = Region { writable: false, backing: Backing::Image { bytes: b"text", offset: 0 }, ..zeros(1) };
    space.map(HEAP, region).expect("room");
    assert_eq!(read_u8(&mut space, HEAP + 2), Ok(b'x'));
    assert_eq!(space.write(HEAP, b"y"), Err(Fault::Forbidden));
    assert_eq!(space.fault(HEAP, Touch::Execute), Err(Fault::Forbidden));
    assert_eq!(read_u8(&mut space, HEAP + PAGE_SIZE), Err(Fault::Unmapped));
}

#[test]
fn unmapping_the_middle_leaves_both_ends() {
    let mmu = FakeMmu::new(64);
    let mut space = AddressSpace::new(mmu.clone()).expect("memory");
    static IMAGE: [u8; 3 * PAGE_SIZE] = {
        let mut image = [1; 3 * PAGE_SIZE];
        image[2 * PAGE_SIZE] = 3;
        image
    };
    let region = Region { backing: Backing::Image { bytes: &IMAGE, offset: 0 }, ..zeros(3) };
    space.map(HEAP, region).expect("room");
    space.write(HEAP + PAGE_SIZE, b"m").expect("room");
    space.unmap(HEAP + PAGE_SIZE, PAGE_SIZE).expect("a good range");
    assert_eq!(read_u8(&mut space, HEAP), Ok(1));
    assert_eq!(read_u8(&mut space, HEAP + PAGE_SIZE), Err(Fault::Unmapped));
    assert_eq!(read_u8(&mut space, HEAP + 2 * PAGE_SIZE), Ok(3));
}

#[test]
fn regions_never_overlap() {
    let mmu = FakeMmu::new(64);
    let mut space = AddressSpace::new(mmu).expect("memory");
    space.map(HEAP, zeros(4)).expect("room");
    assert_eq!(space.map(HEAP + PAGE_SIZE, zeros(8)), Err(Fault::BadRange));
    assert_eq!(space.map(0, zeros(1)), Err(Fault::BadRange));
    let first = space.map_anywhere(PAGE_SIZE * 2, true).expect("room");
    let second = space.map_anywhere(1, true).expect("room");
    assert_eq!(second, first + 2 * PAGE_SIZE);
    assert_eq!(space.map_anywhere(0, true), Err(Fault::BadRange));
}

#[test]
fn without_memory_a_touch_fails_and_nothing_breaks() {
    let mmu = FakeMmu::new(6);
    let mut space = AddressSpace::new(mmu.clone()).expect("memory");
    space.map(HEAP, zeros(8)).expect("room");
    assert_eq!(space.write(HEAP, &[7; 8 * PAGE_SIZE]), Err(Fault::OutOfMemory));
    assert_eq!(read_u8(&mut space, HEAP), Ok(7));
    drop(space);
    assert_eq!(mmu.free(), 6);
}
