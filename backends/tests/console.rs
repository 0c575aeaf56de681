//! The real console front end against the real console back end, and against a guest that lies.
#![allow(clippy::unwrap_used, reason = "a failed step is a failed test")]

use std::sync::atomic::Ordering;

use backends::console::{ConsoleBack, rules};
use frontends::console::ConsoleFront;
use proptest::prelude::*;
use pv_bus::loopback::{LoopbackMapping, LoopbackPage};
use pv_bus::{Access, Events, Grants, Loopback, Memory, SharedPage};

struct Pair {
    guest: Loopback,
    service: Loopback,
    front: ConsoleFront<LoopbackPage>,
    back: ConsoleBack<LoopbackMapping>,
}

/// A console whose four indices start at this value.
fn pair(start: u32) -> Pair {
    let (mut guest, mut service) = Loopback::pair();
    let page = guest.alloc_page().unwrap();
    for word in 0..4 {
        page.store_u32(3072 + word * 4, start, Ordering::SeqCst);
    }
    let grant = guest.grant_access(service.id(), &page, Access::ReadWrite).unwrap();
    let port = guest.alloc_unbound(service.id()).unwrap();
    let mut mapped = Vec::new();
    service.map_grants(guest.id(), Access::ReadWrite, &[grant], &mut mapped);
    let other = service.bind_interdomain(guest.id(), port).unwrap();
    guest.unmask(port);
    service.unmask(other);
    let back = ConsoleBack::new(mapped.remove(0).unwrap(), other, "guest 1");
    Pair { guest, service, front: ConsoleFront::new(page, port), back }
}

#[test]
fn output_arrives_and_the_drained_guest_is_told() {
    let mut pair = pair(0);
    pair.service.take_event();
    assert_eq!(pair.front.write(&mut pair.guest, b"hello"), 5);
    assert_eq!(pair.service.take_event(), Some(pair.back.port()));
    let mut seen = b"> ".to_vec();
    assert_eq!(pair.back.drain(&mut pair.service, &mut seen), 5);
    assert_eq!(seen, b"> hello");
    assert_eq!(pair.guest.take_event(), Some(pair.front.port()));
    assert!(pair.front.is_drained());
}

#[test]
fn a_full_ring_takes_no_more_and_loses_nothing() {
    let mut pair = pair(u32::MAX - 100);
    let text: Vec<u8> = (0..5000_u32).map(|at| at as u8).collect();
    assert_eq!(pair.front.write(&mut pair.guest, &text), 2048);
    assert_eq!(pair.front.write(&mut pair.guest, &text[2048..]), 0);
    let mut seen = Vec::new();
    pair.back.drain(&mut pair.service, &mut seen);
    assert_eq!(pair.front.write(&mut pair.guest, &text[2048..]), 2048);
    pair.back.drain(&mut pair.service, &mut seen);
    assert!(seen == text[..4096]);
}

#[test]
fn typing_arrives() {
    let mut pair = pair(7);
    assert_eq!(pair.back.feed(&mut pair.service, &[b'x'; 2000]), 1024);
    let mut into = [0; 100];
    assert_eq!(pair.front.read(&mut pair.guest, &mut into), 100);
    assert_eq!(into, [b'x'; 100]);
    assert_eq!(pair.back.feed(&mut pair.service, &[b'y'; 2000]), 100);
}

#[test]
fn a_guest_whose_index_lies_is_refused_by_name_and_then_heard_again() {
    let mut pair = pair(0);
    let page = pair.front.into_page();
    let mut seen = Vec::new();
    for lie in [2049, u32::MAX, 1 << 31] {
        page.store_u32(3084, lie, Ordering::SeqCst);
        assert_eq!(pair.back.drain(&mut pair.service, &mut seen), 0);
        page.store_u32(3084, 0, Ordering::SeqCst);
        pair.back.drain(&mut pair.service, &mut seen);
    }
    assert!(pair.back.refusals().count(rules::OUTPUT_OVERRUN) >= 3);
    page.store_u32(3072, 5000, Ordering::SeqCst);
    assert_eq!(pair.back.feed(&mut pair.service, b"x"), 0);
    assert_eq!(pair.back.refusals().count(rules::INPUT_OVERRUN), 1);
    let prod = page.load_u32(3080, Ordering::SeqCst);
    page.store_u32(3084, prod, Ordering::SeqCst);
    let mut front = ConsoleFront::new(page, pair.back.port());
    assert_eq!(front.write(&mut pair.guest, b"back"), 4);
    seen.clear();
    pair.back.drain(&mut pair.service, &mut seen);
    assert_eq!(seen, b"back");
}

proptest! {
    #[test]
    fn any_mix_of_writing_and_draining_keeps_every_byte(
        start: u32,
        chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..3000), 0..20),
    ) {
        let mut pair = pair(start);
        let mut seen = Vec::new();
        for chunk in &chunks {
            let mut rest = chunk.as_slice();
            while !rest.is_empty() {
                let written = pair.front.write(&mut pair.guest, rest);
                rest = &rest[written..];
                if written == 0 {
                    pair.back.drain(&mut pair.service, &mut seen);
                }
            }
        }
        pair.back.drain(&mut pair.service, &mut seen);
        prop_assert_eq!(seen, chunks.concat());
    }

    #[test]
    fn no_page_content_makes_either_end_panic_or_take_more_than_a_ring(
        words in prop::array::uniform4(any::<u32>()),
        again in prop::array::uniform4(any::<u32>()),
    ) {
        let mut pair = pair(words[0]);
        let page = pair.front.into_page();
        for round in [words, again] {
            for (number, word) in round.iter().enumerate() {
                page.store_u32(3072 + number * 4, *word, Ordering::SeqCst);
            }
            let mut seen = Vec::new();
            prop_assert!(pair.back.drain(&mut pair.service, &mut seen) <= 2048);
            prop_assert!(pair.back.feed(&mut pair.service, &[1; 4000]) <= 1024);
        }
    }
}
