//! Random operations against a model of entries and mappings.

use alloc::vec::Vec;
use std::collections::BTreeMap;

use proptest::prelude::*;

use super::copying::{copy, side};
use super::*;

#[derive(Clone, Debug)]
enum Step {
    Grant { reference: u32, flags: u16, frame: usize },
    Map { over: usize, reference: u32, readonly: bool },
    Unmap { nth: usize },
    Copy { reference: u32, out: bool },
}

fn step() -> impl Strategy<Value = Step> {
    let reference = || 8..12_u32;
    prop_oneof![
        2 => (reference(), prop::sample::select(alloc::vec![0, GTF_PERMIT_ACCESS, GTF_PERMIT_ACCESS | GTF_READONLY]), 3..6_usize)
            .prop_map(|(reference, flags, frame)| Step::Grant { reference, flags, frame }),
        4 => (1..8_usize, reference(), any::<bool>())
            .prop_map(|(over, reference, readonly)| Step::Map { over, reference, readonly }),
        3 => (0..8_usize).prop_map(|nth| Step::Unmap { nth }),
        1 => (reference(), any::<bool>()).prop_map(|(reference, out)| Step::Copy { reference, out }),
    ]
}

/// A mapping that should exist.
struct Mapped {
    handle: u32,
    over: usize,
    reference: u32,
    frame: usize,
    readonly: bool,
}

/// What the entries say, and who uses them.
#[derive(Default)]
struct World {
    entries: BTreeMap<u32, (u16, usize)>,
    mapped: Vec<Mapped>,
}

impl World {
    fn users(&self, reference: u32) -> (usize, usize) {
        let of = |readonly| {
            self.mapped.iter().filter(|mapped| mapped.reference == reference && mapped.readonly == readonly).count()
        };
        (of(true), of(false))
    }

    fn allows(&self, reference: u32, readonly: bool) -> bool {
        self.entries
            .get(&reference)
            .is_some_and(|(flags, _)| flags & GTF_PERMIT_ACCESS != 0 && (readonly || flags & GTF_READONLY == 0))
    }
}

fn play(bed: &Bed, a: &mut Guest, b: &Guest, world: &mut World, step: &Step) {
    match *step {
        Step::Grant { reference, flags, frame } => {
            if world.users(reference) == (0, 0) {
                grant(bed, b, reference, flags, 0, b.frames[frame]);
                world.entries.insert(reference, (flags, frame));
            }
        }
        Step::Map { over, reference, readonly } => {
            if world.mapped.iter().any(|mapped| mapped.over == over) {
                return;
            }
            let mode = GNTMAP_HOST_MAP | if readonly { GNTMAP_READONLY } else { 0 };
            let answer = map(bed, a, over, 1, reference, mode);
            assert_eq!(answer.status == GNTST_OKAY, world.allows(reference, readonly));
            if answer.status == GNTST_OKAY {
                let frame = world.entries[&reference].1;
                world.mapped.push(Mapped { handle: answer.handle, over, reference, frame, readonly });
            }
        }
        Step::Unmap { nth } => {
            if nth < world.mapped.len() {
                let mapped = world.mapped.swap_remove(nth);
                assert_eq!(unmap(bed, a, mapped.over, mapped.handle), GNTST_OKAY);
            }
        }
        Step::Copy { reference, out } => {
            let own = side(a.frames[9].0, DOMID_SELF, 0);
            let granted = side(reference.into(), 1, 0);
            let status = match out {
                true => copy(bed, a, own, granted, 8, GNTCOPY_DEST_GREF),
                false => copy(bed, a, granted, own, 8, GNTCOPY_SOURCE_GREF),
            };
            assert_eq!(status == GNTST_OKAY, world.allows(reference, !out));
        }
    }
}

fn check(bed: &Bed, b: &Guest, world: &World) {
    for (reference, (granted, _)) in &world.entries {
        let (readers, writers) = world.users(*reference);
        let reading = if readers + writers > 0 { GTF_READING } else { 0 };
        let writing = if writers > 0 { GTF_WRITING } else { 0 };
        assert_eq!(flags(bed, b, *reference), granted | reading | writing);
    }
    for frame in 3..6 {
        let of = |mapped: &&Mapped| mapped.frame == frame;
        let users = world.mapped.iter().filter(of).count() as u32;
        let writers = world.mapped.iter().filter(of).filter(|mapped| !mapped.readonly).count() as u32;
        let untouched = references(bed, b.frames[7]);
        let expected = (untouched.0 + 2 * users, untouched.1 + 2 * writers);
        assert_eq!(references(bed, b.frames[frame]), expected, "a pin's and an entry's for each use");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]
    #[test]
    fn grants_behave_as_the_model_says(steps in prop::collection::vec(step(), 1..30)) {
        let (bed, mut a, b) = guests();
        let mut world = World::default();
        for step in &steps {
            play(&bed, &mut a, &b, &mut world, step);
            check(&bed, &b, &world);
        }
        while !relinquish(&bed.hv, &a.domain) {}
        world.mapped.clear();
        for reference in world.entries.keys() {
            prop_assert_eq!(flags(&bed, &b, *reference) & (GTF_READING | GTF_WRITING), 0);
        }
    }
}
