//! The real network front end with several queues and oversize frames, against the real back end and against others.
#![allow(clippy::unwrap_used, reason = "a failed step is a failed test")]

mod common;

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

use common::attacker::ring_of;
use common::net::{NetPair, PIECES, frame, oversize, tcp};
use frontends::net::{Status, TransmitError};
use proptest::prelude::*;
use pv_bus::loopback::Leaks;
use pv_bus::net::{Checksum, Frame, Oversize};
use pv_bus::{SharedPage, checksum};

fn connected(queues: u32) -> NetPair {
    let mut pair = NetPair::cold();
    pair.options.max_queues = queues;
    pair.wire.accepts_oversize = true;
    pair.started()
}

/// Both halves, where the back end says something else of itself than it is.
fn with_back_end_that_says(key: &str, value: &str) -> NetPair {
    let mut pair = NetPair::cold();
    pair.start_back();
    pair.poll_back();
    pair.service.put(&format!("{}/{key}", pair.back_path), value);
    pair.start_front();
    pair.settle();
    assert_eq!(pair.front().status(), Status::Ready);
    pair
}

fn send(pair: &mut NetPair, frame: Frame) -> Result<(), TransmitError> {
    let front = pair.front.as_mut().unwrap();
    front.queue_frame(&mut pair.guest, frame)?;
    front.kick(&mut pair.guest);
    pair.settle();
    Ok(())
}

#[test]
fn a_card_uses_as_many_queues_as_both_sides_can() {
    for (wanted, used) in [(1, 1), (3, 3), (9, 4)] {
        let mut pair = connected(wanted);
        assert_eq!(pair.front().ports().count(), used);
        let count = pair.guest.get("device/vif/0/multi-queue-num-queues");
        assert_eq!(count, if used == 1 { String::new() } else { used.to_string() });
        let last = if used == 1 { String::new() } else { format!("queue-{}/", used - 1) };
        for key in ["tx-ring-ref", "rx-ring-ref", "event-channel-tx", "event-channel-rx"] {
            assert!(pair.guest.get(&format!("device/vif/0/{last}{key}")).parse::<u32>().is_ok(), "{last}{key}");
        }
    }
}

#[test]
fn a_number_of_queues_that_is_none_means_one() {
    for value in ["0", "x", "-1", "4294967296"] {
        let mut pair = NetPair::cold();
        pair.options.max_queues = 4;
        pair.start_back();
        pair.poll_back();
        pair.service.put(&format!("{}/multi-queue-max-queues", pair.back_path), value);
        pair.start_front();
        pair.settle();
        assert_eq!((pair.front().status(), pair.front().ports().count()), (Status::Ready, 1), "{value}");
    }
}

#[test]
fn a_front_end_that_wants_more_queues_than_are_served_is_closed_by_the_back_end() {
    let mut pair = NetPair::cold();
    pair.options.max_queues = 8;
    pair.start_back();
    pair.poll_back();
    pair.service.put(&format!("{}/multi-queue-max-queues", pair.back_path), u32::MAX);
    pair.start_front();
    assert_eq!(pair.front().ports().count(), 8, "no more than its owner allows");
    pair.settle();
    assert!(!pair.back().is_connected());
    assert_eq!(pair.back().refusals().count(backends::net::rules::CONNECT_QUEUES), 1);
}

#[test]
fn flows_are_spread_over_queues_and_each_stays_in_order() {
    let mut pair = connected(3);
    for round in 0..4 {
        for port in 0..12 {
            let front = pair.front.as_mut().unwrap();
            front.queue(&mut pair.guest, &tcp(port, 100 + round), Checksum::Blank).unwrap();
            pair.wire.to_guest.push_back(Frame::new(tcp(port, 100 + round)));
        }
    }
    let used = |pair: &mut NetPair, key: &str| {
        let rings = (0..3).map(|queue| format!("device/vif/0/queue-{queue}/{key}"));
        let rings: Vec<_> = rings.map(|path| ring_of(&mut pair.service, &mut pair.guest, &path)).collect();
        rings.iter().filter(|ring| ring.load_u32(8, Ordering::SeqCst) > 0).count()
    };
    pair.front.as_mut().unwrap().kick(&mut pair.guest);
    pair.settle();
    let sent: Vec<_> = pair.wire.from_guest.drain(..).collect();
    let got: Vec<_> = std::iter::from_fn(|| pair.receive()).collect();
    for frames in [sent, got] {
        let mut seen = BTreeMap::<u8, Vec<usize>>::new();
        frames.iter().for_each(|frame| seen.entry(frame.bytes[35]).or_default().push(frame.bytes.len() - 154));
        assert_eq!(seen.len(), 12);
        assert!(seen.values().all(|rounds| *rounds == [0, 1, 2, 3]), "{seen:?}");
    }
    assert!(used(&mut pair, "tx-ring-ref") > 1 && used(&mut pair, "rx-ring-ref") > 1);
}

#[test]
fn an_oversize_frame_goes_whole_to_a_back_end_that_takes_such_and_else_in_pieces() {
    for len in [1, 1000, 2500, 60_000] {
        let mut pair = connected(2);
        send(&mut pair, oversize(7, len)).unwrap();
        assert_eq!(pair.wire.from_guest.drain(..).collect::<Vec<_>>(), [oversize(7, len)]);
        assert_eq!(pair.front().counters().transmit_errors, 0);

        for key in ["feature-gso-tcpv4", "feature-sg"] {
            let mut pair = with_back_end_that_says(key, "0");
            send(&mut pair, oversize(7, len)).unwrap();
            let frames: Vec<_> = pair.wire.from_guest.drain(..).collect();
            assert_eq!(frames.len(), len.div_ceil(1000));
            assert!(frames.iter().all(|frame| frame.oversize.is_none() && checksum::is_right(&frame.bytes)));
            let data: Vec<u8> = frames.iter().flat_map(|frame| frame.bytes[54..].to_vec()).collect();
            assert!(data == oversize(7, len).bytes[54..]);
        }
    }
}

#[test]
fn an_oversize_frame_comes_whole_if_its_owner_takes_such_and_else_in_pieces() {
    for (accept, pages, whole) in [(true, 128, true), (true, 18, false), (false, 128, false)] {
        let mut pair = NetPair::cold();
        pair.options.accept_oversize = accept;
        pair.options.receive_pages = pages;
        pair.options.complete_checksums = false;
        let mut pair = pair.started();
        pair.wire.to_guest.push_back(oversize(7, 60_000));
        pair.settle();
        let frames: Vec<_> = std::iter::from_fn(|| {
            pair.settle();
            pair.receive()
        })
        .collect();
        if whole {
            assert_eq!(frames, [oversize(7, 60_000)]);
        }
        assert_eq!(frames.len(), if whole { 1 } else { 60 });
        let data: Vec<u8> = frames.iter().flat_map(|frame| frame.bytes[54..].to_vec()).collect();
        assert!(data == oversize(7, 60_000).bytes[54..]);
    }
}

#[test]
fn a_card_with_too_few_pages_for_the_longest_frame_is_sent_none_that_waits_for_ever() {
    let mut pair = NetPair::cold();
    pair.options.receive_pages = 4;
    let mut pair = pair.started();
    assert_eq!(pair.guest.get("device/vif/0/feature-sg"), "0");
    for len in [60, 65_535, 4096] {
        pair.wire.to_guest.push_back(Frame::new(frame(len, 1)));
    }
    pair.settle();
    let got: Vec<_> = std::iter::from_fn(|| pair.receive()).map(|frame| frame.bytes.len()).collect();
    assert_eq!(got, [60, 4096]);
}

#[test]
fn a_blank_checksum_is_filled_in_for_a_back_end_that_takes_none() {
    let mut pair = with_back_end_that_says("feature-no-csum-offload", "1");
    send(&mut pair, Frame { checksum: Checksum::Blank, ..Frame::new(tcp(1, 500)) }).unwrap();
    let arrived = pair.wire.from_guest.pop_front().unwrap();
    assert!(arrived.checksum == Checksum::Validated && checksum::is_right(&arrived.bytes));
    let nonsense = Frame { checksum: Checksum::Blank, ..Frame::new(frame(80, 1)) };
    assert_eq!(send(&mut pair, nonsense), Err(TransmitError::NotTransport));
}

#[test]
fn what_cannot_be_cut_is_not_sent_as_oversize() {
    let mut pair = connected(1);
    let summed = Frame { checksum: Checksum::InFrame, ..oversize(1, 3000) };
    let too_fine = Frame { oversize: Some(Oversize { segment_bytes: 47, ..PIECES }), ..oversize(1, 3000) };
    for frame in [summed, too_fine] {
        assert_eq!(send(&mut pair, frame), Err(TransmitError::NotTransport));
    }
    let mut pair = with_back_end_that_says("feature-gso-tcpv4", "0");
    let no_segment = Frame { bytes: frame(3000, 1), ..oversize(1, 3000) };
    assert_eq!(send(&mut pair, no_segment), Err(TransmitError::NotTransport));
    assert!(pair.wire.from_guest.is_empty());
}

#[test]
fn pieces_go_all_or_none() {
    let mut pair = with_back_end_that_says("feature-gso-tcpv4", "0");
    let front = pair.front.as_mut().unwrap();
    for _ in 0..100 {
        front.queue(&mut pair.guest, &frame(60, 0), Checksum::InFrame).unwrap();
    }
    assert_eq!(front.queue_frame(&mut pair.guest, oversize(1, 60_000)), Err(TransmitError::Full));
    front.kick(&mut pair.guest);
    pair.settle();
    assert_eq!(pair.wire.from_guest.len(), 100);
    send(&mut pair, oversize(1, 60_000)).unwrap();
    assert_eq!(pair.wire.from_guest.len(), 160);
}

#[test]
fn several_queues_are_taken_over_by_the_next_back_end_with_what_is_on_them() {
    let mut pair = connected(3);
    for port in 0..12 {
        pair.front.as_mut().unwrap().queue_frame(&mut pair.guest, oversize(port, 5000)).unwrap();
    }
    pair.front.as_mut().unwrap().kick(&mut pair.guest);
    pair.kill_back();
    pair.start_back();
    pair.poll_back();
    pair.settle();
    assert_eq!((pair.front().status(), pair.front().ports().count()), (Status::Ready, 3));
    assert_eq!(pair.wire.from_guest.len(), 12);
    pair.wire.to_guest.extend((0..12).map(|port| Frame::new(tcp(port, 60))));
    pair.settle();
    assert_eq!(std::iter::from_fn(|| pair.receive()).count(), 12);
}

#[test]
fn several_queues_leave_nothing_behind() {
    let mut pair = connected(4);
    send(&mut pair, oversize(1, 30_000)).unwrap();
    pair.front.as_mut().unwrap().close(&mut pair.guest);
    pair.settle();
    assert_eq!(pair.front().status(), Status::Closed);
    pair.front.take().unwrap().release(&mut pair.guest);
    pair.back.take().unwrap().release(&mut pair.service);
    assert_eq!((pair.guest.leaks(), pair.service.leaks()), (Leaks::default(), Leaks::default()));
}

#[test]
fn an_answer_to_extra_information_that_was_never_sent_ends_the_connection() {
    const NULL: [u8; 4] = [0, 0, 1, 0];
    let mut pair = connected(1);
    let ring = ring_of(&mut pair.service, &mut pair.guest, "device/vif/0/tx-ring-ref");
    let front = pair.front.as_mut().unwrap();
    front.queue_frame(&mut pair.guest, oversize(1, 3000)).unwrap();
    front.kick(&mut pair.guest);
    for (slot, connected) in [(0_u32, true), (1, false)] {
        ring.write(64 + slot as usize * 12, &NULL);
        ring.store_u32(8, slot + 1, Ordering::SeqCst);
        pair.front.as_mut().unwrap().poll(&mut pair.guest);
        assert_eq!(pair.front().status() == Status::Ready, connected, "{slot}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn all_traffic_arrives_whatever_its_kind_and_the_number_of_queues(
        out in prop::collection::vec((any::<u8>(), 1_usize..30_000, any::<bool>()), 0..40),
        into in prop::collection::vec((any::<u8>(), 1_usize..30_000, any::<bool>()), 0..40),
        queues in 1_u32..6,
        whole: bool,
    ) {
        let make = |(port, len, long): &(u8, usize, bool)| match long {
            true => oversize(*port, *len),
            false => Frame { checksum: Checksum::Blank, ..Frame::new(tcp(*port, *len)) },
        };
        let mut pair = NetPair::cold();
        pair.options.max_queues = queues;
        pair.options.complete_checksums = false;
        pair.wire.accepts_oversize = whole;
        let mut pair = pair.started();
        let mut arrived = Vec::new();
        for one in &out {
            while pair.front.as_mut().unwrap().queue_frame(&mut pair.guest, make(one)) == Err(TransmitError::Full) {
                pair.front.as_mut().unwrap().kick(&mut pair.guest);
                pair.settle();
            }
        }
        pair.front.as_mut().unwrap().kick(&mut pair.guest);
        for one in &into {
            pair.wire.to_guest.push_back(make(one));
            pair.settle();
            arrived.extend(std::iter::from_fn(|| pair.receive()));
        }
        pair.settle();
        let sorted = |mut frames: Vec<Vec<u8>>| {
            frames.sort();
            frames
        };
        let all = |list: &[(u8, usize, bool)]| sorted(list.iter().map(|one| make(one).bytes).collect());
        prop_assert!(sorted(arrived.into_iter().map(|frame| frame.bytes).collect()) == all(&into));
        let sent: Vec<_> = pair.wire.from_guest.drain(..).map(|frame| frame.bytes).collect();
        if whole {
            prop_assert!(sorted(sent) == all(&out));
        } else {
            let data: usize = sent.iter().map(|bytes| bytes.len() - 54).sum();
            prop_assert_eq!(data, out.iter().map(|(_, len, _)| len).sum::<usize>());
        }
        prop_assert_eq!(pair.back().refusals().iter().count(), 0);
    }
}
