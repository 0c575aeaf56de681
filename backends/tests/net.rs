//! The real network front end against the real network back end.
#![allow(clippy::unwrap_used, reason = "a failed step is a failed test")]

mod common;

use backends::net::NetBack;
use backends::net::bridge::Bridge;
use common::net::{NetPair, frame};
use frontends::net::{NetFront, Options, Status, TransmitError};
use proptest::prelude::*;
use pv_bus::loopback::Leaks;
use pv_bus::net::{Checksum, Frame};
use pv_bus::{Clock, DomId, Loopback, Store, checksum};

/// A UDP datagram in IPv4 in Ethernet, its checksum wrong.
fn datagram(len: usize) -> Vec<u8> {
    let mut bytes = frame(42 + len, 3);
    bytes[12..14].copy_from_slice(&[8, 0]);
    bytes[14] = 0x45;
    bytes[16..18].copy_from_slice(&((28 + len) as u16).to_be_bytes());
    bytes[20..22].copy_from_slice(&[0, 0]);
    bytes[23] = 17;
    bytes[38..40].copy_from_slice(&((8 + len) as u16).to_be_bytes());
    bytes
}

#[test]
fn a_card_connects_and_says_what_it_can() {
    let mut pair = NetPair::connected();
    assert_eq!(pair.front().mac(), [0, 0x16, 0x3e, 0, 0, 1]);
    assert_eq!(pair.front().mtu(), 1500);
    assert!(pair.front().has_carrier());
    for (key, value) in [("request-rx-copy", "1"), ("feature-rx-notify", "1"), ("feature-sg", "1"), ("state", "4")] {
        assert_eq!(pair.guest.get(&format!("device/vif/0/{key}")), value, "{key}");
    }
    let (transmit, receive) = pair.front().ports().next().unwrap();
    assert_ne!(transmit, receive);
    assert_eq!(pair.guest.get("device/vif/0/event-channel-rx"), receive.0.to_string());
}

#[test]
fn frames_of_every_length_pass_both_ways() {
    for split in [true, false] {
        let mut pair = NetPair::cold();
        pair.options.split_event_channels = split;
        let mut pair = pair.started();
        let lengths = [14, 60, 1514, 4095, 4096, 4097, 9000, 20_000, 65_535];
        for len in lengths {
            let sent = frame(len, 1);
            pair.front.as_mut().unwrap().transmit(&mut pair.guest, &sent, Checksum::InFrame).unwrap();
            pair.settle();
            assert!(pair.wire.from_guest.pop_front().unwrap().bytes == sent, "{len}");
            pair.wire.to_guest.push_back(Frame::new(frame(len, 2)));
            pair.settle();
            assert!(pair.receive().unwrap().bytes == frame(len, 2), "{len}");
        }
        assert_eq!(pair.back().refusals().iter().count(), 0);
        let counters = pair.back().counters();
        let all = lengths.iter().sum::<usize>() as u64;
        assert_eq!((counters.from_guest_bytes, counters.to_guest_bytes), (all, all));
    }
}

#[test]
fn a_frame_without_a_header_is_not_sent() {
    let mut pair = NetPair::connected();
    let front = pair.front.as_mut().unwrap();
    assert_eq!(front.transmit(&mut pair.guest, &[0; 13], Checksum::InFrame), Err(TransmitError::BadLength));
    assert_eq!(front.transmit(&mut pair.guest, &[0; 65_536], Checksum::InFrame), Err(TransmitError::BadLength));
}

#[test]
fn a_guest_that_sends_many_frames_is_not_asked_to_tell_of_each() {
    const PAUSE_NS: u64 = 100_000;
    let mut pair = NetPair::cold();
    pair.pause_ns = PAUSE_NS;
    let mut pair = pair.started();
    let send = |pair: &mut NetPair, count: u8| {
        let front = pair.front.as_mut().unwrap();
        (0..count).for_each(|seed| front.queue(&mut pair.guest, &frame(60, seed), Checksum::InFrame).unwrap());
        front.kick(&mut pair.guest);
        pair.settle();
        std::mem::take(&mut pair.wire.from_guest).len()
    };
    pair.service.advance_ns(1_000_000_000);
    assert_eq!((send(&mut pair, 1), pair.back().next_look_ns()), (1, None), "a single frame is told of");
    assert_eq!(send(&mut pair, 2), 2);
    let look_ns = pair.back().next_look_ns().unwrap();
    assert_eq!(send(&mut pair, 3), 0, "they gather");
    pair.service.advance_ns(PAUSE_NS);
    assert_eq!(pair.service.now_ns(), look_ns);
    pair.poll_back();
    assert_eq!(std::mem::take(&mut pair.wire.from_guest).len(), 3);
    assert_eq!(pair.back().next_look_ns(), Some(look_ns + PAUSE_NS));
    pair.service.advance_ns(PAUSE_NS);
    pair.poll_back();
    assert_eq!(send(&mut pair, 1), 1, "after a pause without frames each is told of again");
}

#[test]
fn thousands_of_frames_arrive_in_order() {
    let mut pair = NetPair::connected();
    let (mut sent, mut got) = (0_u32, 0_u32);
    while got < 3000 {
        let front = pair.front.as_mut().unwrap();
        while sent < 3000 && front.can_transmit() {
            let mut bytes = frame(60 + (sent as usize * 7) % 3000, 0);
            bytes[20..24].copy_from_slice(&sent.to_le_bytes());
            front.queue(&mut pair.guest, &bytes, Checksum::InFrame).unwrap();
            sent += 1;
        }
        front.kick(&mut pair.guest);
        pair.settle();
        for frame in std::mem::take(&mut pair.wire.from_guest) {
            assert_eq!(frame.bytes[20..24], got.to_le_bytes());
            got += 1;
        }
    }
    let mut taken = 0_u32;
    for number in 0..3000_u32 {
        let mut bytes = frame(60 + (number as usize * 11) % 6000, 0);
        bytes[20..24].copy_from_slice(&number.to_le_bytes());
        pair.wire.to_guest.push_back(Frame::new(bytes));
    }
    while taken < 3000 {
        pair.settle();
        while let Some(frame) = pair.receive() {
            assert_eq!(frame.bytes[20..24], taken.to_le_bytes());
            taken += 1;
        }
    }
    assert_eq!(pair.front().counters().received, 3000);
}

#[test]
fn a_full_transmit_ring_says_so_and_recovers() {
    let mut pair = NetPair::connected();
    let front = pair.front.as_mut().unwrap();
    let mut sent = 0;
    while front.queue(&mut pair.guest, &frame(60, 0), Checksum::InFrame).is_ok() {
        sent += 1;
    }
    assert_eq!(sent, Options::default().transmit_pages);
    assert!(!front.can_transmit());
    front.kick(&mut pair.guest);
    pair.settle();
    assert!(pair.front().can_transmit());
    assert_eq!(pair.wire.from_guest.len(), sent);
}

#[test]
fn a_blank_checksum_is_filled_in_where_the_next_hop_wants_it() {
    for accepts_blank in [true, false] {
        let mut pair = NetPair::connected();
        pair.wire.accepts_blank = accepts_blank;
        pair.front.as_mut().unwrap().transmit(&mut pair.guest, &datagram(100), Checksum::Blank).unwrap();
        pair.settle();
        let arrived = pair.wire.from_guest.pop_front().unwrap();
        assert_eq!(arrived.checksum == Checksum::Blank, accepts_blank);
        assert_eq!(checksum::is_right(&arrived.bytes), !accepts_blank);
    }
}

#[test]
fn a_guest_gets_blank_checksums_only_if_it_takes_them() {
    for (accept, complete, arrives_blank) in [(true, false, true), (true, true, false), (false, false, false)] {
        let mut pair = NetPair::cold();
        pair.options.accept_blank_checksums = accept;
        pair.options.complete_checksums = complete;
        let mut pair = pair.started();
        pair.wire.to_guest.push_back(Frame { bytes: datagram(50), checksum: Checksum::Blank, oversize: None });
        pair.settle();
        let arrived = pair.receive().unwrap();
        assert_eq!(arrived.checksum == Checksum::Blank, arrives_blank);
        assert_eq!(checksum::is_right(&arrived.bytes), !arrives_blank);
    }
}

#[test]
fn a_blank_checksum_that_cannot_be_filled_in_is_refused_by_name() {
    let mut pair = NetPair::connected();
    pair.wire.accepts_blank = false;
    pair.front.as_mut().unwrap().transmit(&mut pair.guest, &frame(100, 0), Checksum::Blank).unwrap();
    pair.settle();
    assert!(pair.wire.from_guest.is_empty());
    assert_eq!(pair.back().refusals().count(backends::net::rules::TX_CHECKSUM), 1);
    assert_eq!(pair.front().counters().transmit_errors, 1);
}

#[test]
fn a_guest_without_pages_gets_its_frames_when_it_has_some() {
    let mut pair = NetPair::cold();
    pair.options.receive_pages = 4;
    pair.options.receive_queue = 2;
    let mut pair = pair.started();
    for number in 0..40 {
        pair.wire.to_guest.push_back(Frame::new(frame(100 + number, 0)));
    }
    let mut got = 0;
    while got < 40 {
        pair.settle();
        while let Some(arrived) = pair.receive() {
            assert_eq!(arrived.bytes.len(), 100 + got);
            got += 1;
        }
    }
}

#[test]
fn a_back_end_that_comes_back_takes_the_rings_over_and_sends_what_was_on_them() {
    let mut pair = NetPair::connected();
    pair.front.as_mut().unwrap().transmit(&mut pair.guest, &frame(60, 1), Checksum::InFrame).unwrap();
    pair.kill_back();
    pair.start_back();
    pair.poll_back();
    pair.settle();
    assert_eq!(pair.front().status(), Status::Ready);
    assert_eq!(pair.front().pages_held_by_peer(), 0);
    pair.front.as_mut().unwrap().transmit(&mut pair.guest, &frame(60, 2), Checksum::InFrame).unwrap();
    pair.settle();
    for seed in [1, 2] {
        assert!(pair.wire.from_guest.pop_front().unwrap().bytes == frame(60, seed));
    }
    pair.wire.to_guest.push_back(Frame::new(frame(60, 3)));
    pair.settle();
    assert!(pair.receive().unwrap().bytes == frame(60, 3));
}

#[test]
fn a_replaced_front_end_connects_again() {
    let mut pair = NetPair::connected();
    pair.front = None;
    pair.guest.crash();
    pair.start_front();
    pair.settle();
    assert_eq!(pair.front().status(), Status::Ready);
}

#[test]
fn closing_either_side_leaves_nothing_behind() {
    for front_first in [true, false] {
        let mut pair = NetPair::connected();
        pair.front.as_mut().unwrap().transmit(&mut pair.guest, &frame(60, 1), Checksum::InFrame).unwrap();
        pair.settle();
        if front_first {
            pair.front.as_mut().unwrap().close(&mut pair.guest);
        } else {
            pair.back.as_mut().unwrap().close(&mut pair.service, &mut pair.wire);
        }
        pair.settle();
        assert_eq!(pair.front().status(), Status::Closed);
        assert!(!pair.back().is_connected());
        pair.front.take().unwrap().release(&mut pair.guest);
        pair.back.take().unwrap().release(&mut pair.service);
        assert_eq!(pair.guest.leaks(), Leaks::default());
        assert_eq!(pair.service.leaks(), Leaks::default());
    }
}

#[test]
fn a_pulled_wire_is_seen() {
    let mut pair = NetPair::connected();
    pair.back.as_mut().unwrap().set_carrier(&mut pair.service, false);
    pair.settle();
    assert!(!pair.front().has_carrier());
    pair.back.as_mut().unwrap().set_carrier(&mut pair.service, true);
    pair.settle();
    assert!(pair.front().has_carrier());
}

#[test]
fn tokens_answer_what_they_received() {
    let mut pair = NetPair::connected();
    pair.wire.to_guest.push_back(Frame::new(frame(80, 5)));
    pair.settle();
    let front = pair.front.as_mut().unwrap();
    let (received, answer) = front.receive_tokens(&mut pair.guest).unwrap();
    let bytes = received.consume(<[u8]>::to_vec);
    answer.consume(bytes.len(), |into| into.copy_from_slice(&bytes));
    assert!(front.receive_tokens(&mut pair.guest).is_none());
    front.transmit_token(&mut pair.guest).unwrap().consume(20, |into| into.fill(9));
    pair.settle();
    assert!(pair.wire.from_guest.pop_front().unwrap().bytes == frame(80, 5));
    assert_eq!(pair.wire.from_guest.pop_front().unwrap().bytes, [9; 20]);
}

#[test]
fn two_guests_talk_over_a_bridge() {
    let mut domains = Loopback::domains(&[DomId(0), DomId(1), DomId(2)]).into_iter();
    let mut service = domains.next().unwrap();
    let mut bridge = Bridge::new();
    let mut guests = Vec::new();
    for mut guest in domains {
        let (front_path, back_path) = service.create_device(guest.id(), DomId(0), "vif", 0);
        service.put(&format!("{front_path}/mac"), format!("00:16:3e:00:00:0{}", guest.id().0));
        let back = NetBack::open(&mut service, &back_path, 1).unwrap();
        let front = NetFront::open(&mut guest, &front_path, Options::default()).unwrap();
        guests.push((guest, front, back, bridge.add_port(64, true)));
    }
    let mut run = |guests: &mut Vec<(Loopback, NetFront<Loopback>, NetBack<Loopback>, _)>| {
        for _ in 0..20 {
            while let Some(event) = service.next_watch_event() {
                for (_, _, back, _) in guests.iter_mut() {
                    back.on_watch(&event);
                }
            }
            for (guest, front, back, port) in guests.iter_mut() {
                while let Some(event) = guest.next_watch_event() {
                    front.on_watch(guest, &event);
                }
                front.poll(guest);
                back.poll(&mut service, &mut bridge.handle(*port, 0));
            }
        }
    };
    run(&mut guests);
    let mut hello = frame(60, 0);
    hello[..6].fill(255);
    hello[6..12].copy_from_slice(&[0, 0x16, 0x3e, 0, 0, 1]);
    let (guest, front, ..) = &mut guests[0];
    front.transmit(guest, &hello, Checksum::InFrame).unwrap();
    run(&mut guests);
    let (guest, front, ..) = &mut guests[1];
    assert!(front.receive(guest).unwrap().bytes == hello);
    let mut answer = frame(5000, 0);
    answer[..6].copy_from_slice(&[0, 0x16, 0x3e, 0, 0, 1]);
    answer[6..12].copy_from_slice(&[0, 0x16, 0x3e, 0, 0, 2]);
    front.transmit(guest, &answer, Checksum::InFrame).unwrap();
    run(&mut guests);
    let (guest, front, ..) = &mut guests[0];
    assert!(front.receive(guest).unwrap().bytes == answer);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn any_traffic_arrives_as_it_was_sent(
        out in prop::collection::vec((14_usize..12_000, any::<u8>()), 0..40),
        into in prop::collection::vec((14_usize..12_000, any::<u8>()), 0..40),
        split: bool,
        pages in 18_usize..256,
    ) {
        let mut pair = NetPair::cold();
        pair.options.split_event_channels = split;
        pair.options.receive_pages = pages;
        let mut pair = pair.started();
        for (len, seed) in &into {
            pair.wire.to_guest.push_back(Frame::new(frame(*len, *seed)));
        }
        for (len, seed) in &out {
            while pair.front.as_mut().unwrap().transmit(&mut pair.guest, &frame(*len, *seed), Checksum::InFrame).is_err() {
                pair.settle();
            }
        }
        let mut arrived = Vec::new();
        for _ in 0..100 {
            pair.settle();
            arrived.extend(std::iter::from_fn(|| pair.receive()).map(|frame| frame.bytes));
        }
        prop_assert!(arrived.into_iter().eq(into.iter().map(|(len, seed)| frame(*len, *seed))));
        prop_assert!(pair.wire.from_guest.iter().map(|frame| frame.bytes.clone()).eq(out.iter().map(|(len, seed)| frame(*len, *seed))));
    }
}

/// The order and the keys of Linux's netback.
#[test]
fn a_front_end_connects_to_a_back_end_that_does_as_linux_does() {
    let mut pair = NetPair::cold();
    pair.start_front();
    let (front, back) = (pair.front_path.clone(), pair.back_path.clone());
    let keys = ["feature-sg", "feature-gso-tcpv4", "feature-rx-copy", "feature-split-event-channels"];
    for key in keys {
        pair.service.put(&format!("{back}/{key}"), 1);
    }
    pair.service.put(&format!("{back}/multi-queue-max-queues"), 8);
    pair.service.put(&format!("{back}/state"), 2);
    pair.settle();
    assert_eq!(pair.guest.get(&format!("{front}/state")), "4", "a network front end says so at once");
    for key in ["tx-ring-ref", "rx-ring-ref", "event-channel-tx", "event-channel-rx"] {
        assert!(pair.guest.get(&format!("{front}/{key}")).parse::<u32>().is_ok(), "{key}");
    }
    assert_eq!(pair.guest.get(&format!("{front}/multi-queue-num-queues")), "");
    pair.service.put(&format!("{back}/state"), 4);
    pair.settle();
    assert_eq!(pair.front().status(), Status::Ready);
    pair.service.put(&format!("{back}/state"), 5);
    pair.settle();
    assert_eq!(pair.guest.get(&format!("{front}/state")), "6");
}
