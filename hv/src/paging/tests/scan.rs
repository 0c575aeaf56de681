//! The check of all invariants: what the counts of every frame say must be what a scan of all tables finds.

use std::collections::HashMap;

use super::*;
use crate::frames::{CountWord, NOBODY, TypeWord};
use crate::paging::table::ENTRIES;

#[derive(Default, Debug, PartialEq, Eq, Clone, Copy)]
struct Found {
    references: u32,
    /// Mapped writable so many times.
    writable: u32,
    /// Used as a table of each level so many times.
    tables: [u32; 5],
}

/// Entries of a table that hold references.
fn prefix(word: TypeWord) -> usize {
    if word.has(TypeWord::VALIDATED) {
        ENTRIES
    } else if word.has(TypeWord::PARTIAL) {
        word.prefix()
    } else {
        0
    }
}

/// Checks every frame of the machine. `guests` are all guests there are.
pub(super) fn check(bed: &Bed, guests: &[&Guest]) {
    check_with_grants(bed, guests, &[]);
}

/// [`check`] where guests may map these frames of others, by grants.
pub(super) fn check_with_grants(bed: &Bed, guests: &[&Guest], granted: &[Mfn]) {
    let found = find(bed, guests, granted);
    for mfn in (0..bed.hv.machine.frame_count()).map(Mfn) {
        let record = bed.hv.frames.record(mfn);
        let (count, word) = (record.count_word(), record.type_word());
        let seen = found.get(&mfn).copied().unwrap_or_default();
        if count.count() == 0 {
            assert_eq!(seen, Found::default(), "free frame {mfn} is referenced");
            assert_eq!(word.count(), 0, "free frame {mfn} has a type");
            continue;
        }
        let own = own_references(count, word);
        assert_eq!(count.count(), seen.references + own.0, "references of {mfn}: {count:x?} {word:x?} {seen:?}");
        let used = match word.kind().level() {
            Some(level) => seen.tables[usize::from(level)],
            None if word.kind() == PageType::Writable => seen.writable,
            None => 0,
        };
        assert_eq!(word.count(), used + own.1, "type references of {mfn}: {count:x?} {word:x?} {seen:?}");
        let other: u32 = seen.writable + seen.tables.iter().sum::<u32>() - used;
        assert_eq!(other, 0, "{mfn} is used as two things at once: {word:x?} {seen:?}");
    }
}

/// What a frame's own state holds of its references and type references.
fn own_references(count: CountWord, word: TypeWord) -> (u32, u32) {
    let flag = |set: bool| u32::from(set);
    let pinned = flag(word.has(TypeWord::PINNED));
    let partial = flag(word.has(TypeWord::PARTIAL));
    let shared = flag(count.has(CountWord::SHARED) && count.owner() != NOBODY);
    (flag(count.has(CountWord::ALLOCATED)) + pinned + partial + shared, pinned + partial + shared)
}

fn find(bed: &Bed, guests: &[&Guest], granted: &[Mfn]) -> HashMap<Mfn, Found> {
    let mut found: HashMap<Mfn, Found> = HashMap::new();
    for guest in guests {
        let state = &guest.running.state;
        for root in [state.kernel_root, state.user_root].into_iter().flatten() {
            let root = found.entry(root).or_default();
            root.references += 1;
            root.tables[4] += 1;
        }
    }
    for table in (0..bed.hv.machine.frame_count()).map(Mfn) {
        let record = bed.hv.frames.record(table);
        let word = record.type_word();
        let Some(level) = word.kind().level().filter(|_| word.count() != 0) else {
            continue;
        };
        for index in 0..prefix(word) {
            let seen = bed.hv.machine.read_word(table, index);
            if level == 4 && entry::is_hypervisor_slot(index) {
                let theirs = bed.hv.machine.read_word(guests[0].tables[0], index);
                assert!(seen == theirs || !word.has(TypeWord::VALIDATED), "a hypervisor slot: {seen:#x}");
                continue;
            }
            if entry::is_present(seen) {
                note(bed, &mut found, granted, table, level, seen);
            }
        }
    }
    found
}

fn note(bed: &Bed, found: &mut HashMap<Mfn, Found>, granted: &[Mfn], table: Mfn, level: u8, seen: u64) {
    let target = entry::frame(seen);
    assert!(seen & USER != 0, "entry {seen:#x} was not adjusted");
    if target.0 >= bed.hv.machine.frame_count() {
        assert_eq!(level, 1, "a table that is no memory");
        return;
    }
    let mine = bed.hv.frames.record(table).count_word().owner();
    let theirs = bed.hv.frames.record(target).count_word().owner();
    let may_be_foreign = level == 1 && (mine == DomId(0) || theirs == NOBODY || granted.contains(&target));
    assert!(mine == theirs || mine == NOBODY || may_be_foreign, "{mine} maps a frame of {theirs}");
    let target = found.entry(target).or_default();
    target.references += 1;
    if level > 1 {
        target.tables[usize::from(level) - 1] += 1;
    } else if seen & WRITABLE != 0 {
        target.writable += 1;
    }
}
