use super::*;
use crate::fake::{Bed, Event};
use crate::hardware::Flush;

fn flushes(bed: &Bed) -> usize {
    bed.hv.machine.take_events().iter().filter(|event| **event == Event::Flush(Flush::All)).count()
}

#[test]
fn a_frame_is_freed_with_its_last_reference_and_cleared() {
    let bed = Bed::new(32);
    let domain = bed.domain(1, 1);
    let before = bed.hv.allocator.lock().free_count();
    let mfn = allocate_domain_frame(&bed.hv, &domain).unwrap();
    bed.hv.machine.write_word(mfn, 3, 42);
    bed.hv.machine.set_m2p(mfn, 7);
    assert_eq!(get(&bed.hv, mfn.into(), domain.id), Ok(mfn));
    assert!(drop_allocation(&bed.hv, mfn));
    assert!(!drop_allocation(&bed.hv, mfn), "only once");
    assert_eq!((domain.memory.lock().total, owner(&bed.hv, mfn.into())), (1, Some(domain.id)));
    put(&bed.hv, mfn);
    assert_eq!((domain.memory.lock().total, owner(&bed.hv, mfn.into())), (0, None));
    assert_eq!((bed.hv.machine.read_word(mfn, 3), bed.hv.machine.m2p(mfn)), (0, INVALID_M2P));
    assert_eq!(bed.hv.allocator.lock().free_count(), before);
}

#[test]
fn a_freed_frame_is_given_out_only_after_a_flush_and_one_flush_is_enough() {
    let bed = Bed::new(32);
    let domain = bed.domain(1, 1);
    let frames: Vec<_> = (0..4).map(|_| allocate_domain_frame(&bed.hv, &domain).unwrap()).collect();
    flush_all(&bed.hv);
    flushes(&bed);
    assert!(frames.iter().all(|mfn| drop_allocation(&bed.hv, *mfn)));
    assert_eq!(flushes(&bed), 0);
    for _ in 0..4 {
        allocate_domain_frame(&bed.hv, &domain).unwrap();
    }
    assert_eq!(flushes(&bed), 1);
}

#[test]
fn a_maximum_is_kept() {
    let bed = Bed::new(32);
    let domain = bed.domain(1, 1);
    domain.memory.lock().max = 2;
    assert!(allocate_domain_frame(&bed.hv, &domain).is_some());
    let block = Block { order: 1, ..Block::default() };
    assert_eq!(allocate_domain_block(&bed.hv, &domain, block), Err(NoBlock::Maximum));
    assert!(allocate_domain_frame(&bed.hv, &domain).is_some());
    assert!(allocate_domain_frame(&bed.hv, &domain).is_none());
}

#[test]
fn a_shared_frame_outlives_its_release_while_it_is_mapped() {
    let bed = Bed::new(32);
    let domain = bed.domain(1, 1);
    let mfn = allocate_shared(&bed.hv, &domain).unwrap();
    assert_eq!(get_typed(&bed.hv, mfn.into(), domain.id, PageType::Writable), Ok(mfn));
    assert!(get_typed(&bed.hv, mfn.into(), domain.id, PageType::Descriptor).is_err());
    free_shared(&bed.hv, mfn);
    assert!(get(&bed.hv, mfn.into(), domain.id).is_err());
    assert_eq!(bed.hv.frames.record(mfn).count_word().count(), 1);
    let free = bed.hv.allocator.lock().free_count();
    put_typed(&bed.hv, mfn);
    assert_eq!(bed.hv.allocator.lock().free_count(), free + 1);
}

#[test]
fn what_is_shared_read_only_is_never_writable() {
    let bed = Bed::new(32);
    let xen = DomId(pv_abi::xen::DOMID_XEN);
    let mfn = allocate(&bed.hv, 0).unwrap();
    share(&bed.hv, mfn, xen, PageType::Shared);
    assert_eq!(get(&bed.hv, mfn.into(), xen), Ok(mfn));
    assert!(get_typed(&bed.hv, mfn.into(), xen, PageType::Writable).is_err());
}

#[test]
fn a_claim_keeps_others_from_the_memory() {
    let bed = Bed::new(32);
    let (first, second) = (bed.domain(1, 1), bed.domain(2, 1));
    let free = bed.hv.allocator.lock().free_count();
    claim(&bed.hv, &first, free - 2).unwrap();
    assert!(allocate_domain_frame(&bed.hv, &second).is_some());
    assert!(allocate_domain_frame(&bed.hv, &second).is_some());
    assert!(allocate_domain_frame(&bed.hv, &second).is_none());
    assert!(allocate(&bed.hv, 0).is_none());
    assert!(allocate_domain_frame(&bed.hv, &first).is_some());
    assert_eq!(first.memory.lock().claimed, free - 3);
    claim(&bed.hv, &first, 0).unwrap();
    assert!(allocate_domain_frame(&bed.hv, &second).is_some());
}

#[test]
fn a_claim_that_cannot_be_is_refused() {
    let bed = Bed::new(32);
    let domain = bed.domain(1, 1);
    let free = bed.hv.allocator.lock().free_count();
    let refused = |pages: u64| claim(&bed.hv, &domain, pages).expect_err("to be refused");
    domain.memory.lock().max = 1000;
    assert_eq!(refused(free + 1).rule, crate::rules::memory::NO_MEMORY);
    assert_eq!(refused(1001).rule, crate::rules::memory::CLAIM);
    claim(&bed.hv, &domain, 5).unwrap();
    assert_eq!(refused(6).rule, crate::rules::memory::CLAIM);
}

#[test]
fn clearing_a_large_block_can_stop_and_goes_on() {
    let bed = Bed::new(256);
    let domain = bed.domain(1, 1);
    let block = Block { order: 6, preemptible: true, ..Block::default() };
    for mfn in (1..256).map(Mfn) {
        bed.hv.machine.write_word(mfn, 1, 5);
    }
    bed.hv.machine.interrupt_after(Some(0));
    let mut stops = 0;
    let first = loop {
        match allocate_domain_block(&bed.hv, &domain, block) {
            Ok(first) => break first,
            Err(NoBlock::Interrupted) => stops += 1,
            Err(why) => panic!("{why:?}"),
        }
        assert!(stops < 10, "it makes progress");
    };
    assert!(stops > 0);
    assert!((0..64).all(|n| bed.hv.machine.read_word(Mfn(first.0 + n), 1) == 0));
}

#[test]
fn a_domain_that_is_taken_apart_gets_nothing_more() {
    let bed = Bed::new(64);
    let domain = bed.domain(1, 1);
    for _ in 0..10 {
        allocate_domain_frame(&bed.hv, &domain).unwrap();
    }
    let kept = allocate_domain_frame(&bed.hv, &domain).unwrap();
    get_again(&bed.hv, kept);
    claim(&bed.hv, &domain, 20).unwrap();
    bed.hv.machine.interrupt_after(Some(0));
    let mut calls = 1;
    while !relinquish(&bed.hv, &domain) {
        calls += 1;
    }
    assert!(calls > 5, "it stops where asked");
    assert_eq!((domain.memory.lock().total, bed.hv.allocator.lock().claimed), (0, 0));
    assert!(allocate_domain_frame(&bed.hv, &domain).is_none());
    assert_eq!(owner(&bed.hv, kept.into()), None);
    assert!(get(&bed.hv, kept.into(), domain.id).is_err());
    let free = bed.hv.allocator.lock().free_count();
    put(&bed.hv, kept);
    assert_eq!(bed.hv.allocator.lock().free_count(), free + 1);
}

#[test]
fn evidence_says_what_is_known() {
    let bed = Bed::new(32);
    let domain = bed.domain(1, 1);
    let mfn = allocate_domain_frame(&bed.hv, &domain).unwrap();
    assert!(matches!(evidence(&bed.hv, mfn.into()), Evidence::Frame { owner: Some(DomId(1)), .. }));
    assert!(matches!(evidence(&bed.hv, ClaimedMfn(1 << 40)), Evidence::Frame { owner: None, count: 0, .. }));
}
