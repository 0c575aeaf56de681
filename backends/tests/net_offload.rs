//! Oversize frames, several queues and multicast control, with a front end played by hand as Linux's does.
#![allow(clippy::unwrap_used, reason = "a failed step is a failed test")]

mod common;

use std::collections::BTreeMap;

use backends::net::rules;
use common::attacker::SERVICE;
use common::net::{NetPair, PIECES, oversize, tcp};
use pv_abi::io::netif::{NetifRxRequest, NetifRxResponse, NetifTxRequest, NetifTxResponse};
use pv_bus::loopback::LoopbackPage;
use pv_bus::net::{Extra, Frame};
use pv_bus::ring::FrontRing;
use pv_bus::{Access, Events, GrantRef, Grants, Loopback, Memory, SharedPage};
use zerocopy::{FromBytes, IntoBytes};

const EXTRA: u16 = 8;
const MORE: u16 = 4;

struct HandQueue {
    transmit: FrontRing<LoopbackPage, NetifTxRequest, NetifTxResponse>,
    receive: FrontRing<LoopbackPage, NetifRxRequest, NetifRxResponse>,
    posted: BTreeMap<u16, LoopbackPage>,
}

/// A front end whose slots the test writes.
struct Hand {
    pair: NetPair,
    queues: Vec<HandQueue>,
    data: LoopbackPage,
    data_grant: GrantRef,
}

fn shared(guest: &mut Loopback) -> (LoopbackPage, GrantRef) {
    let page = guest.alloc_page().unwrap();
    let grant = guest.grant_access(SERVICE, &page, Access::ReadWrite).unwrap();
    (page, grant)
}

impl Hand {
    fn connected(count: usize, keys: &[(&str, u32)]) -> Self {
        let mut pair = NetPair::cold();
        let front = pair.front_path.clone();
        let (data, data_grant) = shared(&mut pair.guest);
        let mut queues = Vec::new();
        for number in 0..count {
            let folder = if count == 1 { front.clone() } else { format!("{front}/queue-{number}") };
            let (transmit, transmit_grant) = shared(&mut pair.guest);
            let (receive, receive_grant) = shared(&mut pair.guest);
            let port = pair.guest.alloc_unbound(SERVICE).unwrap();
            pair.guest.put(&format!("{folder}/tx-ring-ref"), transmit_grant.0);
            pair.guest.put(&format!("{folder}/rx-ring-ref"), receive_grant.0);
            pair.guest.put(&format!("{folder}/event-channel"), port.0);
            let (transmit, receive) = (FrontRing::new(vec![transmit]), FrontRing::new(vec![receive]));
            let mut queue = HandQueue { transmit, receive, posted: BTreeMap::new() };
            for id in 0..64 {
                let (page, grant) = shared(&mut pair.guest);
                assert!(queue.receive.push(&NetifRxRequest { id, pad: 0, gref: grant.0 }));
                queue.posted.insert(id, page);
            }
            let _ = queue.receive.publish();
            queues.push(queue);
        }
        if count > 1 {
            pair.guest.put(&format!("{front}/multi-queue-num-queues"), count);
        }
        for (key, value) in [("request-rx-copy", 1), ("feature-sg", 1)].iter().chain(keys) {
            pair.guest.put(&format!("{front}/{key}"), value);
        }
        pair.start_back();
        pair.guest.put(&format!("{front}/state"), 4);
        pair.settle();
        assert!(pair.back().is_connected());
        Self { pair, queues, data, data_grant }
    }

    /// Sends one page of data with extra information; gives the status of the first slot.
    fn send(&mut self, queue: usize, bytes: &[u8], flags: u16, extra: Option<Extra>) -> i16 {
        self.data.write(0, bytes);
        let transmit = &mut self.queues[queue].transmit;
        let flags = flags | if extra.is_some() { EXTRA } else { 0 };
        let slot = NetifTxRequest { gref: self.data_grant.0, offset: 0, flags, id: 1, size: bytes.len() as u16 };
        assert!(transmit.push(&slot));
        if let Some(extra) = extra {
            let mut slot = NetifTxRequest { gref: 0, offset: 0, flags: 0, id: 0, size: 0 };
            slot.as_mut_bytes()[..8].copy_from_slice(&extra.encode());
            assert!(transmit.push(&slot));
        }
        let _ = transmit.publish();
        self.pair.poll_back();
        let transmit = &mut self.queues[queue].transmit;
        let status = transmit.take().unwrap().unwrap().status;
        if extra.is_some() {
            assert_eq!(transmit.take().unwrap().unwrap().status, 1, "NETIF_RSP_NULL");
        }
        status
    }

    /// Takes a frame with its extra information off a queue.
    fn receive(&mut self, queue: usize) -> Option<(Vec<u8>, Option<Extra>)> {
        let HandQueue { receive, posted, .. } = &mut self.queues[queue];
        let mut response = receive.take().unwrap()?;
        let mut bytes = Vec::new();
        let mut extra = None;
        loop {
            let mut piece = vec![0; usize::try_from(response.status).unwrap()];
            posted[&response.id].read(usize::from(response.offset), &mut piece);
            bytes.append(&mut piece);
            if response.flags & EXTRA != 0 {
                let slot = receive.take().unwrap().unwrap();
                extra = Some(Extra::decode(slot.as_bytes().try_into().unwrap()).0);
            }
            if response.flags & MORE == 0 {
                return Some((bytes, extra));
            }
            response = receive.take().unwrap().unwrap();
        }
    }
}

#[test]
fn an_oversize_frame_leaves_for_a_wire_in_pieces() {
    let mut hand = Hand::connected(1, &[]);
    assert_eq!(hand.pair.guest.get(&format!("{}/feature-gso-tcpv4", hand.pair.back_path)), "1");
    assert_eq!(hand.send(0, &tcp(1, 2500), 3, Some(Extra::Oversize(PIECES))), 0);
    let frames: Vec<_> = hand.pair.wire.from_guest.drain(..).collect();
    assert_eq!(frames.iter().map(|frame| frame.bytes.len()).collect::<Vec<_>>(), [1054, 1054, 554]);
    assert!(frames.iter().all(|frame| pv_bus::checksum::is_right(&frame.bytes)));
}

#[test]
fn an_oversize_frame_reaches_a_guest_whole_if_it_takes_such_and_else_in_pieces() {
    let frame = oversize(1, 9000);
    let mut hand = Hand::connected(1, &[("feature-gso-tcpv4", 1)]);
    hand.pair.wire.to_guest.push_back(frame.clone());
    hand.pair.poll_back();
    assert_eq!(hand.receive(0), Some((frame.bytes.clone(), Some(Extra::Oversize(PIECES)))));
    assert_eq!(hand.receive(0), None);
    let mut hand = Hand::connected(1, &[("feature-gso-tcpv6", 1)]);
    hand.pair.wire.to_guest.push_back(frame.clone());
    hand.pair.poll_back();
    let pieces: Vec<_> = std::iter::from_fn(|| hand.receive(0)).collect();
    assert_eq!(pieces.len(), 9);
    let data: Vec<u8> = pieces.iter().flat_map(|(bytes, _)| bytes[54..].to_vec()).collect();
    assert!(data == frame.bytes[54..]);
    assert!(pieces.iter().all(|(bytes, extra)| extra.is_none() && pv_bus::checksum::is_right(bytes)));
}

#[test]
fn flows_are_spread_over_queues_and_each_stays_in_order() {
    let mut hand = Hand::connected(3, &[]);
    assert_eq!(hand.pair.guest.get(&format!("{}/multi-queue-max-queues", hand.pair.back_path)), "4");
    for round in 0..4 {
        for port in 0..12 {
            hand.pair.wire.to_guest.push_back(Frame::new(tcp(port, 100 + round)));
        }
    }
    hand.pair.poll_back();
    let mut used = 0;
    let mut seen = BTreeMap::<u8, Vec<usize>>::new();
    for queue in 0..3 {
        let frames: Vec<_> = std::iter::from_fn(|| hand.receive(queue)).collect();
        used += usize::from(!frames.is_empty());
        for (bytes, _) in frames {
            seen.entry(bytes[35]).or_default().push(bytes.len() - 154);
        }
    }
    assert!(used > 1);
    assert_eq!(seen.len(), 12);
    assert!(seen.values().all(|rounds| *rounds == [0, 1, 2, 3]), "{seen:?}");
    for queue in 0..3 {
        assert_eq!(hand.send(queue, &tcp(queue as u8, 10), 3, None), 0);
    }
    assert_eq!(hand.pair.wire.from_guest.len(), 3);
}

#[test]
fn a_guest_that_controls_multicast_gets_the_groups_it_has_joined() {
    let to = |first: [u8; 6]| Frame::new([&first[..], &[0; 60][..]].concat());
    let (joined, other) = ([1, 0, 0x5e, 0, 0, 7], [1, 0, 0x5e, 0, 0, 8]);
    let mut hand = Hand::connected(1, &[("request-multicast-control", 1)]);
    assert_eq!(hand.send(0, &[0; 14], 0, Some(Extra::JoinGroup(joined))), 0);
    assert!(hand.pair.wire.from_guest.is_empty(), "asking for a group sends nothing");
    for frame in [to(joined), to(other), to([255; 6]), to([2; 6])] {
        hand.pair.wire.to_guest.push_back(frame);
    }
    hand.pair.poll_back();
    let first: Vec<u8> = std::iter::from_fn(|| hand.receive(0)).map(|(bytes, _)| bytes[5]).collect();
    assert_eq!(first, [7, 255, 2]);
    assert_eq!(hand.send(0, &[0; 14], 0, Some(Extra::LeaveGroup(joined))), 0);
    hand.pair.wire.to_guest.push_back(to(joined));
    hand.pair.poll_back();
    assert_eq!(hand.receive(0), None);
    for number in 0..65 {
        let status = hand.send(0, &[0; 14], 0, Some(Extra::JoinGroup([1, 0, 0, 0, 0, number])));
        assert_eq!(status, if number < 64 { 0 } else { -1 });
    }
    assert_eq!(hand.pair.back().refusals().count(rules::MULTICAST_FULL), 1);
}

#[test]
fn a_control_ring_is_refused_and_the_card_works_without() {
    let mut hand = Hand::connected(1, &[("ctrl-ring-ref", 8), ("event-channel-ctrl", 1)]);
    assert_eq!(hand.pair.guest.get(&format!("{}/feature-ctrl-ring", hand.pair.back_path)), "0");
    assert_eq!(hand.pair.back().refusals().count(rules::CONTROL_RING), 1);
    assert_eq!(hand.send(0, &tcp(1, 10), 3, None), 0);
}

#[test]
fn a_response_slot_is_as_large_as_extra_information() {
    assert!(NetifRxResponse::read_from_bytes(&Extra::Other(4).encode()).is_ok());
}
