//! The ring's indices: full and empty rings, wrap-around, notifications, and peers that lie.

use std::sync::atomic::Ordering;

use pv_abi::io::ring::{
    Back, BadIndex, Front, SRING_HEADER_SIZE, SringHeaderAtomic, bytes_free, bytes_waiting, capacity, has_unconsumed,
    must_notify, runs, slot, slot_offset, unconsumed,
};

/// A ring of four entries in which `count` requests were made and answered.
fn pair_after(count: u32) -> (SringHeaderAtomic, Front, Back) {
    let shared = SringHeaderAtomic::default();
    let (mut front, mut back) = (Front::new(4), Back::new(4));
    for _ in 0..count {
        round_trip(&shared, &mut front, &mut back);
    }
    (shared, front, back)
}

/// One request there, one response back.
fn round_trip(shared: &SringHeaderAtomic, front: &mut Front, back: &mut Back) {
    let sent = front.next_request().expect("there is room");
    front.push_requests(shared);
    assert_eq!(back.unconsumed_requests(shared), Ok(1));
    assert_eq!(back.take_request(), sent);
    let answered = back.next_response();
    back.push_responses(shared);
    assert_eq!(front.unconsumed_responses(shared), Ok(1));
    assert_eq!(front.take_response(), answered);
}

#[test]
fn a_full_ring_takes_no_request() {
    let (shared, mut front, _) = pair_after(0);
    let slots: Vec<_> = std::iter::from_fn(|| front.next_request()).collect();
    assert_eq!(slots, [0, 1, 2, 3]);
    assert_eq!(front.free_requests(), 0);
    front.push_requests(&shared);
    assert_eq!(shared.req_prod.load(Ordering::Relaxed), 4);
}

#[test]
fn a_request_is_free_again_only_when_its_response_was_taken() {
    let (shared, mut front, mut back) = pair_after(0);
    while front.next_request().is_some() {}
    front.push_requests(&shared);
    back.take_request();
    back.next_response();
    back.push_responses(&shared);
    assert_eq!(front.next_request(), None);
    front.take_response();
    assert_eq!(front.next_request(), Some(0));
}

#[test]
fn slots_repeat_after_the_rings_size() {
    let (shared, mut front, mut back) = pair_after(6);
    assert_eq!(front.next_request(), Some(2));
    front.push_requests(&shared);
    assert_eq!(back.take_request(), 2);
}

#[test]
fn a_back_end_can_take_over_near_the_indices_end() {
    let shared = SringHeaderAtomic::default();
    let mut back = Back::attach(4, u32::MAX - 1);
    shared.req_prod.store(1, Ordering::Relaxed);
    assert_eq!(back.unconsumed_requests(&shared), Ok(3));
    assert_eq!([back.take_request(), back.take_request(), back.take_request()], [2, 3, 0]);
    assert_eq!(back.outstanding(), 3);
}

#[test]
fn requests_that_exceed_the_ring_are_refused() {
    let (shared, _, back) = pair_after(0);
    shared.req_prod.store(5, Ordering::Relaxed);
    assert_eq!(back.unconsumed_requests(&shared), Err(BadIndex { published: 5, consumed: 0 }));
}

#[test]
fn requests_over_those_not_yet_answered_are_refused() {
    let (shared, _, mut back) = pair_after(0);
    shared.req_prod.store(4, Ordering::Relaxed);
    assert_eq!(back.unconsumed_requests(&shared), Ok(4));
    back.take_request();
    shared.req_prod.store(5, Ordering::Relaxed);
    assert!(back.unconsumed_requests(&shared).is_err());
    back.next_response();
    assert_eq!(back.unconsumed_requests(&shared), Ok(4));
}

#[test]
fn an_index_that_went_back_is_refused() {
    let (shared, front, back) = pair_after(3);
    shared.req_prod.store(2, Ordering::Relaxed);
    shared.rsp_prod.store(2, Ordering::Relaxed);
    assert!(back.unconsumed_requests(&shared).is_err());
    assert!(front.unconsumed_responses(&shared).is_err());
}

#[test]
fn responses_without_requests_are_refused() {
    let (shared, mut front, _) = pair_after(0);
    front.next_request();
    front.push_requests(&shared);
    shared.rsp_prod.store(2, Ordering::Relaxed);
    assert_eq!(front.unconsumed_responses(&shared), Err(BadIndex { published: 2, consumed: 0 }));
}

#[test]
fn responses_to_requests_not_yet_published_are_refused() {
    let (shared, mut front, _) = pair_after(0);
    front.next_request();
    shared.rsp_prod.store(1, Ordering::Relaxed);
    assert!(front.unconsumed_responses(&shared).is_err());
}

#[test]
#[should_panic(expected = "a response without a request")]
fn a_response_without_a_request_panics() {
    Back::new(4).next_response();
}

#[test]
fn a_peer_is_notified_once_for_what_it_waits_for() {
    let (shared, mut front, _) = pair_after(0);
    front.next_request();
    assert!(front.push_requests(&shared));
    front.next_request();
    assert!(!front.push_requests(&shared), "the back end has not asked again");
}

#[test]
fn the_final_check_asks_for_the_next_notification() {
    let (shared, mut front, back) = pair_after(1);
    assert_eq!(back.final_check(&shared), Ok(0));
    assert_eq!(shared.req_event.load(Ordering::Relaxed), 2);
    front.next_request();
    assert!(front.push_requests(&shared));
    assert_eq!(back.final_check(&shared), Ok(1));
    assert_eq!(front.final_check(&shared), Ok(0));
    assert_eq!(shared.rsp_event.load(Ordering::Relaxed), 2);
}

#[test]
fn nothing_pushed_notifies_nobody() {
    for event in [0, 1, 7, u32::MAX] {
        assert!(!must_notify(5, 5, event));
    }
}

#[test]
fn a_push_notifies_when_it_passes_the_event_even_at_the_wrap() {
    assert!(must_notify(u32::MAX, 0, 0));
    assert!(must_notify(u32::MAX - 2, 2, 1));
    assert!(!must_notify(u32::MAX - 2, 2, 3));
    assert!(!must_notify(u32::MAX - 2, 2, u32::MAX - 2));
}

#[test]
fn a_reset_ring_is_as_new() {
    let (shared, ..) = pair_after(3);
    shared.pvt[0].store(9, Ordering::Relaxed);
    shared.reset();
    let words = [&shared.req_prod, &shared.req_event, &shared.rsp_prod, &shared.rsp_event];
    assert_eq!(words.map(|word| word.load(Ordering::Relaxed)), [0, 1, 0, 1]);
    assert_eq!(shared.pvt[0].load(Ordering::Relaxed), 0);
}

#[test]
fn a_ring_holds_a_power_of_two_of_entries() {
    assert_eq!(capacity(4096, 112), 32);
    assert_eq!(capacity(4096 * 2, 112), 64);
    assert_eq!(capacity(4096, 8), 256);
    assert_eq!(capacity(SRING_HEADER_SIZE + 7, 8), 0);
    assert_eq!(capacity(10, 8), 0);
}

#[test]
fn entries_follow_the_head() {
    assert_eq!(slot_offset(0, 112), 64);
    assert_eq!(slot_offset(slot(33, 32), 112), 64 + 112);
}

#[test]
fn counts_survive_the_wrap() {
    assert_eq!(unconsumed(2, u32::MAX), 3);
    assert!(has_unconsumed(0, u32::MAX));
    assert!(!has_unconsumed(7, 7));
}

#[test]
fn bytes_lie_in_at_most_two_runs() {
    assert_eq!(runs(0, 10, 1024), [(0, 10), (0, 0)]);
    assert_eq!(runs(1020, 10, 1024), [(1020, 4), (0, 6)]);
    assert_eq!(runs(u32::MAX, 3, 1024), [(1023, 1), (0, 2)]);
    assert_eq!(runs(5, 9999, 1024), [(5, 1019), (0, 5)]);
}

#[test]
fn byte_indices_too_far_apart_are_refused() {
    assert_eq!(bytes_waiting(10, 4, 1024), Ok(6));
    assert_eq!(bytes_free(10, 4, 1024), Ok(1018));
    assert_eq!(bytes_free(1024, 0, 1024), Ok(0));
    assert_eq!(bytes_waiting(1025, 0, 1024), Err(BadIndex { published: 1025, consumed: 0 }));
    assert!(bytes_free(3, 4, 1024).is_err());
}

#[test]
fn a_bad_index_says_which() {
    let bad = BadIndex { published: 9, consumed: 2 };
    assert_eq!(bad.to_string(), "the peer's ring index 9 is impossible after 2");
}
