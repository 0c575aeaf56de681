//! The in-memory world enforces what the hypervisor and the store enforce.

use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;

use super::*;
use crate::hal::{Access, Events, GrantCopy, Grants, Memory};
use crate::ring::{BackRing, FrontRing, entries_in};
use crate::store::transaction;
use crate::{GrantError, SharedPage, StoreError};
use core::sync::atomic::Ordering;
use pv_abi::GrantRef;

fn map_one(domain: &mut Loopback, peer: DomId, access: Access, grant: GrantRef) -> Result<LoopbackMapping, GrantError> {
    let mut mapped = Vec::new();
    domain.map_grants(peer, access, &[grant], &mut mapped);
    mapped.remove(0)
}

#[test]
fn a_granted_page_is_the_same_page_on_both_sides() {
    let (mut front, mut back) = Loopback::pair();
    let page = front.alloc_page().unwrap();
    let grant = front.grant_access(back.id(), &page, Access::ReadWrite).unwrap();
    let mapping = map_one(&mut back, front.id(), Access::ReadWrite, grant).unwrap();
    page.write(100, b"hello");
    let mut seen = [0; 5];
    mapping.read(100, &mut seen);
    assert_eq!(&seen, b"hello");
    mapping.store_u32(8, 7, Ordering::Release);
    assert_eq!(page.load_u32(8, Ordering::Acquire), 7);
    assert_eq!(page.compare_exchange_u32(8, 6, 9), Err(7));
    assert_eq!(page.compare_exchange_u32(8, 7, 9), Ok(7));
}

#[test]
fn a_mapped_grant_does_not_end_and_an_ended_one_is_not_mapped() {
    let (mut front, mut back) = Loopback::pair();
    let page = front.alloc_page().unwrap();
    let grant = front.grant_access(back.id(), &page, Access::ReadWrite).unwrap();
    let mapping = map_one(&mut back, front.id(), Access::ReadOnly, grant).unwrap();
    assert_eq!(front.end_access(grant), Err(GrantError::InUse));
    back.unmap_grants(&mut vec![mapping]);
    assert_eq!(front.end_access(grant), Ok(()));
    assert!(map_one(&mut back, front.id(), Access::ReadOnly, grant).is_err());
    front.free_page(page);
    assert_eq!(front.leaks(), Leaks::default());
    assert_eq!(back.leaks(), Leaks::default());
}

#[test]
fn a_read_only_grant_is_not_mapped_or_copied_for_writing() {
    let (mut front, mut back) = Loopback::pair();
    let page = front.alloc_page().unwrap();
    let grant = front.grant_access(back.id(), &page, Access::ReadOnly).unwrap();
    assert!(map_one(&mut back, front.id(), Access::ReadWrite, grant).is_err());
    let mut batch = [GrantCopy::to_peer(grant, 0, b"x")];
    back.copy_grants(front.id(), &mut batch);
    assert!(batch[0].result.is_err());
    let mut byte = [1];
    let mut batch = [GrantCopy::from_peer(grant, 4095, &mut byte)];
    back.copy_grants(front.id(), &mut batch);
    assert_eq!(batch[0].result, Ok(()));
    assert_eq!(byte, [0]);
}

#[test]
#[should_panic(expected = "page fault")]
fn writing_a_read_only_mapping_faults() {
    let (mut front, mut back) = Loopback::pair();
    let page = front.alloc_page().unwrap();
    let grant = front.grant_access(back.id(), &page, Access::ReadOnly).unwrap();
    map_one(&mut back, front.id(), Access::ReadOnly, grant).unwrap().write(0, b"x");
}

#[test]
#[should_panic(expected = "freed while it is granted")]
fn freeing_a_granted_page_is_noticed() {
    let (mut front, back) = Loopback::pair();
    let page = front.alloc_page().unwrap();
    front.grant_access(back.id(), &page, Access::ReadOnly).unwrap();
    front.free_page(page);
}

#[test]
fn a_copy_beyond_the_page_is_refused() {
    let (mut front, mut back) = Loopback::pair();
    let page = front.alloc_page().unwrap();
    let grant = front.grant_access(back.id(), &page, Access::ReadWrite).unwrap();
    for offset in [4095, 4096, usize::MAX] {
        let mut batch = [GrantCopy::to_peer(grant, offset, b"xy")];
        back.copy_grants(front.id(), &mut batch);
        assert!(batch[0].result.is_err(), "{offset}");
    }
}

#[test]
fn a_third_domain_cannot_use_a_grant() {
    let mut domains = Loopback::domains(&[DomId(1), DomId(0), DomId(2)]);
    let page = domains[0].alloc_page().unwrap();
    let grant = domains[0].grant_access(DomId(0), &page, Access::ReadWrite).unwrap();
    assert!(map_one(&mut domains[2], DomId(1), Access::ReadOnly, grant).is_err());
}

#[test]
fn a_masked_port_delivers_when_it_is_unmasked() {
    let (mut front, mut back) = Loopback::pair();
    let port = front.alloc_unbound(back.id()).unwrap();
    let other = back.bind_interdomain(front.id(), port).unwrap();
    back.notify(other);
    assert_eq!(front.take_event(), None);
    front.unmask(port);
    assert_eq!(front.take_event(), Some(port));
    assert_eq!(front.take_event(), None);
    back.close(other);
    assert!(back.bind_interdomain(DomId(9), port).is_err());
    assert!(back.bind_interdomain(front.id(), port).is_ok(), "a port whose other end closed can be bound again");
}

#[test]
fn a_watch_fires_at_once_and_then_for_each_change_at_or_below() {
    let (mut front, mut back) = Loopback::pair();
    let watch = back.watch("/local/domain/1/device").unwrap();
    assert_eq!(back.next_watch_event().map(|event| event.watch), Some(watch));
    front.put("device/vbd/1/state", 1);
    let event = back.next_watch_event().unwrap();
    assert_eq!(event.path, "/local/domain/1/device/vbd/1/state");
    front.put("other", 1);
    assert_eq!(back.next_watch_event(), None);
    front.rm(Transaction::NONE, "device").unwrap();
    assert!(back.next_watch_event().is_some());
    back.unwatch(watch);
    front.put("device", 1);
    assert_eq!(back.next_watch_event(), None);
}

#[test]
fn a_transaction_takes_effect_at_once_or_is_retried() {
    let (mut front, mut back) = Loopback::pair();
    let mut attempts = 0;
    let result = transaction(&mut front, |front, open| {
        attempts += 1;
        front.write(open, "a", b"1")?;
        if attempts == 1 {
            back.put("/elsewhere", 5);
        }
        assert_eq!(back.get("/local/domain/1/a"), "");
        front.write(open, "b", b"2")
    });
    assert_eq!(result, Ok(()));
    assert_eq!(attempts, 2);
    assert_eq!(front.directory(Transaction::NONE, "/local/domain/1"), Ok(vec![String::from("a"), "b".into()]));
}

#[test]
fn a_transaction_that_never_takes_ends_with_eagain() {
    let (mut front, mut back) = Loopback::pair();
    let result = transaction(&mut front, |front, open| {
        back.put("/elsewhere", 5);
        front.write(open, "a", b"1")
    });
    assert_eq!(result, Err(StoreError::Again));
}

type TestFront = FrontRing<LoopbackPage, [u8; 24], [u8; 8]>;
type TestBack = BackRing<LoopbackMapping, [u8; 24], [u8; 8]>;

fn rings(pages: usize) -> (Loopback, Loopback, TestFront, TestBack) {
    let (mut front, mut back) = Loopback::pair();
    let own: Vec<_> = (0..pages).map(|_| front.alloc_page().unwrap()).collect();
    let grants: Vec<_> =
        own.iter().map(|page| front.grant_access(back.id(), page, Access::ReadWrite).unwrap()).collect();
    let front_ring = FrontRing::new(own);
    let mut mapped = Vec::new();
    back.map_grants(front.id(), Access::ReadWrite, &grants, &mut mapped);
    let back_ring = BackRing::attach(mapped.into_iter().map(Result::unwrap).collect());
    (front, back, front_ring, back_ring)
}

#[test]
fn rings_have_the_sizes_that_the_c_macros_give() {
    assert_eq!(entries_in(1, 112), 32);
    assert_eq!(entries_in(16, 112), 512);
    assert_eq!(entries_in(1, 12), 256);
    assert_eq!(entries_in(1, 8), 256);
    assert_eq!(entries_in(0, 8), 0);
}

#[test]
fn requests_and_responses_pass_through_rings_of_one_page_and_of_several() {
    for pages in [1, 2, 4] {
        let (_front, _back, mut front_ring, mut back_ring) = rings(pages);
        let entries = front_ring.entries();
        for round in 0..7_u64 {
            for number in 0..u64::from(entries) {
                let mut request = [0; 24];
                request[16..].copy_from_slice(&(round * 1000 + number).to_le_bytes());
                assert!(front_ring.push(&request));
            }
            assert!(!front_ring.push(&[0; 24]), "a full ring takes nothing");
            assert!(front_ring.publish());
            for number in 0..u64::from(entries) {
                let request = back_ring.take().unwrap().unwrap();
                assert_eq!(request[16..], (round * 1000 + number).to_le_bytes());
                assert!(back_ring.push(&number.to_le_bytes()));
            }
            assert_eq!(back_ring.rearm(), Ok(false));
            assert!(back_ring.publish());
            for number in 0..u64::from(entries) {
                assert_eq!(front_ring.take(), Ok(Some(number.to_le_bytes())));
            }
            assert_eq!(front_ring.rearm(), Ok(false));
        }
    }
}

#[test]
fn a_notification_is_asked_for_only_past_the_event_index() {
    let (_front, _back, mut front_ring, mut back_ring) = rings(1);
    assert!(front_ring.push(&[0; 24]));
    assert!(front_ring.publish(), "the first request wakes the back");
    assert!(front_ring.push(&[0; 24]));
    assert!(!front_ring.publish(), "the back is not asleep");
    assert!(back_ring.take().unwrap().is_some());
    assert_eq!(back_ring.rearm(), Ok(true), "one more is there");
    assert!(back_ring.take().unwrap().is_some());
    assert_eq!(back_ring.rearm(), Ok(false));
    assert!(front_ring.push(&[0; 24]));
    assert!(front_ring.publish());
}

#[test]
fn an_index_that_no_peer_can_have_breaks_the_ring_and_not_the_reader() {
    let (_front, _back, front_ring, mut back_ring) = rings(1);
    let pages = front_ring.into_pages();
    for lie in [300, u32::MAX, 1 << 31] {
        pages[0].store_u32(0, lie, Ordering::SeqCst);
        assert!(back_ring.take().is_err());
        assert!(back_ring.rearm().is_err());
    }
    let (_front, _back, mut front_ring, back_ring) = rings(1);
    let pages = back_ring.into_pages();
    for lie in [1, 300, u32::MAX] {
        pages[0].store_u32(8, lie, Ordering::SeqCst);
        assert!(front_ring.take().is_err(), "there is no request to respond to");
    }
}
