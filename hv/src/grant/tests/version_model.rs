//! Random changes of version while entries are used, against a model of what is in use.

use alloc::vec::Vec;

use proptest::prelude::*;

use super::version::{bits, grant_page};
use super::*;

#[derive(Clone, Debug)]
enum Step {
    Grant { reference: u32 },
    Map { over: usize, reference: u32 },
    Unmap { nth: usize },
    Version(u32),
    Scribble { word: usize, value: u64 },
    ScribbleStatus { word: usize, value: u64 },
}

fn step() -> impl Strategy<Value = Step> {
    let reference = || 6..10_u32;
    prop_oneof![
        4 => reference().prop_map(|reference| Step::Grant { reference }),
        4 => (1..8_usize, reference()).prop_map(|(over, reference)| Step::Map { over, reference }),
        3 => (0..4_usize).prop_map(|nth| Step::Unmap { nth }),
        3 => (1..3_u32).prop_map(Step::Version),
        1 => (0..20_usize, any::<u64>()).prop_map(|(word, value)| Step::Scribble { word, value }),
        1 => (0..4_usize, any::<u64>()).prop_map(|(word, value)| Step::ScribbleStatus { word, value }),
    ]
}

/// A mapping that should exist: its handle, where, and of which entry.
type Mapped = (u32, usize, u32);

fn play(bed: &Bed, a: &mut Guest, b: &mut Guest, mapped: &mut Vec<Mapped>, step: &Step) {
    let version = b.domain.grants.lock().version();
    match *step {
        Step::Grant { reference } => {
            let mfn = b.frames[3];
            match version {
                Version::One => grant(bed, b, reference, GTF_PERMIT_ACCESS, 0, mfn),
                Version::Two => grant_page(bed, b, reference, GTF_PERMIT_ACCESS, 0, mfn),
            }
        }
        Step::Map { over, reference } => {
            if mapped.iter().all(|(_, taken, _)| *taken != over) {
                let answer = map(bed, a, over, 1, reference, GNTMAP_HOST_MAP);
                if answer.status == GNTST_OKAY {
                    mapped.push((answer.handle, over, reference));
                }
            }
        }
        Step::Unmap { nth } => {
            if nth < mapped.len() {
                let (handle, over, reference) = mapped.swap_remove(nth);
                assert_eq!(unmap(bed, a, over, handle), GNTST_OKAY);
                let is_unused = mapped.iter().all(|(_, _, used)| *used != reference);
                assert!(!is_unused || bits(bed, b, reference) & (GTF_READING | GTF_WRITING) == 0);
            }
        }
        Step::Version(wanted) => {
            let mut request = GnttabSetVersion { version: wanted };
            let result = b.call_with(bed, CALL, GNTTABOP_SET_VERSION, &mut request);
            let is_used = mapped.iter().any(|(_, _, reference)| *reference >= 8);
            if wanted != version.number() && is_used {
                assert_eq!((result, request.version), (Errno::Busy.as_return(), version.number()));
            }
            assert_eq!(b.domain.grants.lock().version().number(), request.version);
            assert_eq!(b.domain.grants.lock().status.len(), request.version as usize - 1);
        }
        Step::Scribble { word, value } => {
            let mfn = b.domain.grants.lock().frame(0).unwrap();
            bed.hv.machine.write_word(mfn, word, value);
        }
        Step::ScribbleStatus { word, value } => {
            let status = b.domain.grants.lock().status.first().copied();
            if let Some(mfn) = status {
                bed.hv.machine.write_word(mfn, word, value);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]
    #[test]
    fn no_change_of_version_loses_what_is_in_use(steps in prop::collection::vec(step(), 1..40)) {
        let (bed, mut a, mut b) = guests();
        let mut mapped = Vec::new();
        let before = references(&bed, b.frames[3]);
        for step in &steps {
            play(&bed, &mut a, &mut b, &mut mapped, step);
        }
        for (handle, over, _) in mapped {
            prop_assert_eq!(unmap(&bed, &mut a, over, handle), GNTST_OKAY);
        }
        prop_assert_eq!(b.domain.grants.lock().pinned_count(), 0);
        prop_assert_eq!(references(&bed, b.frames[3]), before);
    }
}
