//! A new guest's page tables: which pages they take, and what each of them holds.
//!
//! Invariants
//! - every level uses 4 KiB pages;
//! - a page that is a table is mapped read-only, every other page read-write;
//! - entries above the last level allow user access, as the hypervisor would make them anyway.

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::collections::BTreeSet;

use super::layout::PAGE;

const PRESENT: u64 = 1;
const WRITE: u64 = 1 << 1;
const USER: u64 = 1 << 2;
const ACCESSED: u64 = 1 << 5;
const DIRTY: u64 = 1 << 6;
const LEAF_READ_ONLY: u64 = PRESENT | ACCESSED;
const LEAF: u64 = LEAF_READ_ONLY | WRITE;
const TABLE: u64 = PRESENT | WRITE | USER | ACCESSED | DIRTY;

/// Names a table: its level (4 is the root) and the addresses it serves, shifted so that each table has one number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct TableName {
    /// 1 to 4.
    pub level: u8,
    /// The address bits above those that the table resolves.
    pub region: u64,
}

impl TableName {
    fn serving(level: u8, va: u64) -> Self {
        let bits = 12 + 9 * u32::from(level);
        Self { level, region: (va & 0xffff_ffff_ffff) >> bits }
    }
}

/// Which frame each table takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TablePages {
    frames: BTreeMap<TableName, u64>,
    root: u64,
}

/// How many tables map `pages` pages from `va` on, with the root.
pub fn needed(va: u64, pages: u64) -> u64 {
    let mut next = 0;
    let mut tables = TablePages::new(&mut next);
    tables.add(va, pages, &mut next);
    next
}

impl TablePages {
    /// The root alone, in the next frame.
    pub fn new(next: &mut u64) -> Self {
        let root = *next;
        *next += 1;
        Self { frames: BTreeMap::from([(TableName::serving(4, 0), root)]), root }
    }

    /// Adds what maps `pages` pages from `va` on, in the order L3, L2, L1. Returns the number of new tables.
    pub fn add(&mut self, va: u64, pages: u64, next: &mut u64) -> u64 {
        let before = *next;
        for level in [3, 2, 1] {
            let size = 1_u64 << (12 + 9 * u32::from(level));
            let mut at = va & !(size - 1);
            let last = va + pages * PAGE - 1;
            while pages > 0 && at <= last {
                self.frames.entry(TableName::serving(level, at)).or_insert_with(|| {
                    *next += 1;
                    *next - 1
                });
                match at.checked_add(size) {
                    Some(following) => at = following,
                    None => break,
                }
            }
        }
        *next - before
    }

    /// The root's frame.
    pub fn root(&self) -> u64 {
        self.root
    }

    /// How many tables there are.
    pub fn count(&self) -> u64 {
        self.frames.len() as u64
    }

    /// All tables with their frames.
    pub fn pages(&self) -> impl Iterator<Item = (TableName, u64)> + '_ {
        self.frames.iter().map(|(name, pfn)| (*name, *pfn))
    }

    /// Fills the tables so that each range of `mappings` (address, first frame, pages) is mapped, and gives each to
    /// `store`. `machine` is the machine frame behind a guest's frame.
    ///
    /// # Errors
    /// The first error of `store`.
    pub fn fill<E>(
        &self,
        mappings: &[(u64, u64, u64)],
        machine: impl Fn(u64) -> u64,
        mut store: impl FnMut(u64, &[u64; 512]) -> Result<(), E>,
    ) -> Result<(), E> {
        let read_only: BTreeSet<u64> = self.frames.values().copied().collect();
        for (name, frame) in self.pages() {
            let mut entries = Box::new([0_u64; 512]);
            if name.level == 1 {
                mappings.iter().for_each(|mapping| fill_leaves(&mut entries, name, *mapping, &read_only, &machine));
            } else {
                self.fill_table(&mut entries, name, &machine);
            }
            store(frame, &entries)?;
        }
        Ok(())
    }

    fn fill_table(&self, entries: &mut [u64; 512], name: TableName, machine: &impl Fn(u64) -> u64) {
        for (index, entry) in (0..).zip(entries.iter_mut()) {
            let below = TableName { level: name.level - 1, region: name.region << 9 | index };
            if let Some(pfn) = self.frames.get(&below) {
                *entry = machine(*pfn) << 12 | TABLE;
            }
        }
    }
}

fn fill_leaves(
    entries: &mut [u64; 512],
    name: TableName,
    (va, first, pages): (u64, u64, u64),
    read_only: &BTreeSet<u64>,
    machine: &impl Fn(u64) -> u64,
) {
    let first_page = (va & 0xffff_ffff_ffff) >> 12;
    for (index, entry) in (0..).zip(entries.iter_mut()) {
        let page = name.region << 9 | index;
        let Some(offset) = page.checked_sub(first_page).filter(|offset| *offset < pages) else {
            continue;
        };
        let pfn = first + offset;
        let flags = if read_only.contains(&pfn) { LEAF_READ_ONLY } else { LEAF };
        *entry = machine(pfn) << 12 | flags;
    }
}
