//! Network peers that write anything anywhere: nothing panics, nothing runs for ever, nothing outside the granted
//! pages is touched, and an honest peer that comes after them is served.
#![allow(clippy::unwrap_used, clippy::too_many_lines, reason = "a failed step is a failed test")]

mod common;

use std::sync::atomic::Ordering;

use backends::net::rules as net_rules;
use common::attacker::{Attack, Attacker, GRANTS, SERVICE, attack, ring_of};
use common::net::{NetPair, oversize};
use proptest::prelude::*;
use pv_bus::net::{Checksum, Frame};
use pv_bus::refusal::Rule;
use pv_bus::{Access, Events, Grants, Memory, SharedPage, Store, Transaction};

const NET_KEYS: &[&str] = &[
    "tx-ring-ref",
    "rx-ring-ref",
    "event-channel",
    "event-channel-tx",
    "event-channel-rx",
    "request-rx-copy",
    "feature-sg",
    "feature-gso-tcpv4",
    "request-multicast-control",
    "ctrl-ring-ref",
    "multi-queue-num-queues",
    "state",
];

/// One thing a hostile guest does to the rings of a network card.
#[derive(Clone, Debug)]
enum NetAttack {
    Transmit { gref: u32, offset: u16, flags: u16, id: u16, size: u16 },
    Post { id: u16, gref: u32 },
    ReceivePublish(u32),
    Incoming(usize),
    Any(Attack),
}

fn net_attack() -> impl Strategy<Value = NetAttack> {
    let gref = || prop_oneof![4 => Just(GRANTS[0]), 2 => prop::sample::select(GRANTS.to_vec()), 1 => any::<u32>()];
    let offset = || prop_oneof![3 => Just(0_u16), 2 => 0..4097_u16, 1 => any::<u16>()];
    let flags = prop_oneof![6 => Just(0_u16), 4 => 0..16_u16, 1 => any::<u16>()];
    prop_oneof![
        10 => (gref(), offset(), flags, any::<u16>(), offset())
            .prop_map(|(gref, offset, flags, id, size)| NetAttack::Transmit { gref, offset, flags, id, size }),
        6 => (any::<u16>(), gref()).prop_map(|(id, gref)| NetAttack::Post { id, gref }),
        1 => (0..300_u32).prop_map(NetAttack::ReceivePublish),
        4 => (14..9000_usize).prop_map(NetAttack::Incoming),
        3 => attack(NET_KEYS).prop_map(NetAttack::Any),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn no_network_front_end_harms_its_back_end(attacks in prop::collection::vec(net_attack(), 1..80), split: bool) {
        let mut pair = NetPair::cold();
        pair.wire.limit = Some(50);
        let mut attacker = Attacker::new(&pair.guest);
        let receive_ring = pair.guest.alloc_page().unwrap();
        let receive_grant = pair.guest.grant_access(SERVICE, &receive_ring, Access::ReadWrite).unwrap();
        let front = pair.front_path.clone();
        attacker.put(&format!("{front}/tx-ring-ref"), attacker.ring_grant.0);
        attacker.put(&format!("{front}/rx-ring-ref"), receive_grant.0);
        attacker.put(&format!("{front}/request-rx-copy"), 1);
        attacker.put(&format!("{front}/feature-sg"), 1);
        if split {
            let second = pair.guest.alloc_unbound(SERVICE).unwrap();
            attacker.put(&format!("{front}/event-channel-tx"), attacker.port.0);
            attacker.put(&format!("{front}/event-channel-rx"), second.0);
        } else {
            attacker.put(&format!("{front}/event-channel"), attacker.port.0);
        }
        pair.start_back();
        attacker.put(&format!("{front}/state"), 4);
        pair.settle();
        pair.poll_back();
        pair.settle();
        prop_assert!(pair.back().is_connected());
        let (mut transmit, mut receive) = (0_u32, 0_u32);
        for attack in &attacks {
            match attack {
                NetAttack::Transmit { gref, offset, flags, id, size } => {
                    let at = 64 + (transmit as usize % 256) * 12;
                    attacker.ring.write(at, &gref.to_le_bytes());
                    for (word, value) in [offset, flags, id, size].into_iter().enumerate() {
                        attacker.ring.write(at + 4 + word * 2, &value.to_le_bytes());
                    }
                    transmit = transmit.wrapping_add(1);
                    attacker.ring.store_u32(0, transmit, Ordering::SeqCst);
                }
                NetAttack::Post { id, gref } => {
                    let at = 64 + (receive as usize % 256) * 8;
                    receive_ring.write(at, &id.to_le_bytes());
                    receive_ring.write(at + 4, &gref.to_le_bytes());
                    receive = receive.wrapping_add(1);
                    receive_ring.store_u32(0, receive, Ordering::SeqCst);
                }
                NetAttack::ReceivePublish(count) => {
                    receive = receive.wrapping_add(*count);
                    receive_ring.store_u32(0, receive, Ordering::SeqCst);
                }
                NetAttack::Incoming(len) => pair.wire.to_guest.push_back(Frame::new(vec![3; *len])),
                NetAttack::Any(attack) => attacker.commit(&front, attack, &mut transmit),
            }
            pair.settle();
            pair.poll_back();
        }
        attacker.assert_untouched();
        for frame in &pair.wire.from_guest {
            prop_assert!((14..=65_535).contains(&frame.bytes.len()));
        }
        honest_card_works(pair);
    }

    #[test]
    fn no_network_back_end_harms_its_front_end(
        responses in prop::collection::vec((any::<bool>(), any::<[u16; 4]>(), 0..3_u32), 1..40),
    ) {
        let mut pair = NetPair::connected();
        let transmit = ring_of(&mut pair.service, &mut pair.guest, &format!("{}/tx-ring-ref", pair.front_path));
        let receive = ring_of(&mut pair.service, &mut pair.guest, &format!("{}/rx-ring-ref", pair.front_path));
        for _ in 0..10 {
            pair.front.as_mut().unwrap().queue(&mut pair.guest, &[1; 100], Checksum::InFrame).unwrap();
        }
        pair.front.as_mut().unwrap().queue_frame(&mut pair.guest, oversize(1, 9000)).unwrap();
        pair.front.as_mut().unwrap().kick(&mut pair.guest);
        let mut produced = [0_u32; 2];
        for (to_receive, words, publish) in responses {
            let (ring, size, produced) =
                if to_receive { (&receive, 8, &mut produced[0]) } else { (&transmit, 12, &mut produced[1]) };
            let at = 64 + (*produced as usize % 256) * size;
            let plausible = [*produced as u16, words[1] % 5000, words[2] % 32, words[3] % 5000];
            for (number, word) in plausible.iter().enumerate() {
                ring.write(at + number * 2, &word.to_le_bytes());
            }
            *produced = produced.wrapping_add(publish);
            ring.store_u32(8, *produced, Ordering::SeqCst);
            pair.front.as_mut().unwrap().poll(&mut pair.guest);
            while let Some(frame) = pair.receive() {
                prop_assert!((14..=65_535).contains(&frame.bytes.len()));
            }
        }
    }
}

fn honest_card_works(mut pair: NetPair) {
    pair.back.take().unwrap().release(&mut pair.service);
    assert_eq!(pair.service.leaks(), pv_bus::loopback::Leaks::default());
    pair.service.rm(Transaction::NONE, &pair.front_path).unwrap();
    pair.service.rm(Transaction::NONE, &pair.back_path).unwrap();
    let (guest, service) = (pair.guest.id(), pair.service.id());
    let (front, _) = pair.service.create_device(guest, service, "vif", 0);
    pair.service.put(&format!("{front}/mac"), "00:16:3e:00:00:01");
    pair.wire.from_guest.clear();
    let mut pair = pair.started();
    pair.front.as_mut().unwrap().transmit(&mut pair.guest, &[5; 60], Checksum::InFrame).unwrap();
    pair.settle();
    assert_eq!(pair.wire.from_guest.pop_front().unwrap().bytes, [5; 60]);
}

/// A transmit slot by hand.
fn transmit_slot(attacker: &Attacker, number: usize, gref: u32, offset: u16, flags: u16, size: u16) {
    let at = 64 + number * 12;
    attacker.ring.write(at, &gref.to_le_bytes());
    for (word, value) in [offset, flags, number as u16, size].into_iter().enumerate() {
        attacker.ring.write(at + 4 + word * 2, &value.to_le_bytes());
    }
}

#[test]
fn each_transmit_rule_refuses_by_its_name() {
    const MORE: u16 = 4;
    const EXTRA: u16 = 8;
    const BLANK: u16 = 1;
    let good = GRANTS[0];
    let extra = |kind: u8| u32::from(kind);
    type Slot = (u32, u16, u16, u16);
    let cases: Vec<(Rule, Vec<Slot>, bool)> = vec![
        (net_rules::TX_SIZE, vec![(good, 0, 0, 13)], false),
        (net_rules::TX_SIZE, vec![(good, 0, MORE, 100), (good, 0, 0, 101)], false),
        (net_rules::TX_PAGE, vec![(good, 4000, 0, 100)], false),
        (net_rules::TX_PAGE, vec![(good, u16::MAX, 0, u16::MAX)], false),
        (net_rules::TX_PAGE, vec![(good, 0, MORE, 8000), (good, 1, 0, 4096)], false),
        (
            net_rules::TX_SLOTS,
            [vec![(good, 0, MORE, 190); 1], vec![(good, 0, MORE, 10); 17], vec![(good, 0, 0, 10)]].concat(),
            false,
        ),
        (net_rules::TX_GRANT, vec![(GRANTS[2], 0, 0, 100)], false),
        (net_rules::TX_GRANT, vec![(good, 0, MORE, 200), (u32::MAX, 0, 0, 100)], false),
        (net_rules::TX_EXTRA_NOT_OFFERED, vec![(good, 0, EXTRA, 100), (extra(4), 0, 0, 0)], false),
        (net_rules::TX_EXTRA_NOT_OFFERED, vec![(good, 0, EXTRA, 100), (extra(1), 3, 0, 0)], false),
        (net_rules::TX_OVERSIZE, vec![(good, 0, EXTRA | BLANK, 100), (extra(1) | 47 << 16, 1, 0, 0)], false),
        (net_rules::TX_OVERSIZE, vec![(good, 0, EXTRA, 100), (extra(1) | 1000 << 16, 1, 0, 0)], false),
        (net_rules::TX_OVERSIZE, vec![(good, 0, EXTRA | BLANK, 100), (extra(1) | 1000 << 16, 2, 0, 0)], false),
        (net_rules::MULTICAST_FULL, vec![(good, 0, EXTRA, 100), (extra(2) | 0x5e00 << 16, 0, 0, 0)], false),
        (net_rules::TX_EXTRA_TYPE, vec![(good, 0, EXTRA, 100), (extra(0), 0, 0, 0)], true),
        (net_rules::TX_EXTRA_TYPE, vec![(good, 0, EXTRA, 100), (extra(5), 0, 0, 0)], true),
        (net_rules::TX_UNFINISHED, vec![(good, 0, MORE, 100)], true),
        (net_rules::TX_UNFINISHED, vec![(good, 0, EXTRA, 100)], true),
    ];
    for (rule, slots, fatal) in cases {
        let mut pair = NetPair::cold();
        let mut attacker = Attacker::new(&pair.guest);
        let receive_ring = pair.guest.alloc_page().unwrap();
        let receive_grant = pair.guest.grant_access(SERVICE, &receive_ring, Access::ReadWrite).unwrap();
        let front = pair.front_path.clone();
        attacker.put(&format!("{front}/tx-ring-ref"), attacker.ring_grant.0);
        attacker.put(&format!("{front}/rx-ring-ref"), receive_grant.0);
        attacker.put(&format!("{front}/request-rx-copy"), 1);
        attacker.put(&format!("{front}/event-channel"), attacker.port.0);
        pair.start_back();
        attacker.put(&format!("{front}/state"), 4);
        pair.settle();
        for (number, (gref, offset, flags, size)) in slots.iter().enumerate() {
            transmit_slot(&attacker, number, *gref, *offset, *flags, *size);
        }
        attacker.ring.store_u32(0, slots.len() as u32, Ordering::SeqCst);
        pair.poll_back();
        assert_eq!(pair.back().refusals().count(rule), 1, "{} {slots:?}", rule.name);
        assert_eq!(pair.back().is_connected(), !fatal, "{}", rule.name);
        assert!(pair.wire.from_guest.is_empty());
        if !fatal {
            assert_eq!(attacker.ring.load_u32(8, Ordering::SeqCst), slots.len() as u32, "every slot is answered");
        }
    }
}

#[test]
fn a_page_that_cannot_be_written_gets_no_frame() {
    let mut pair = NetPair::cold();
    let mut attacker = Attacker::new(&pair.guest);
    let front = pair.front_path.clone();
    let transmit_ring = pair.guest.alloc_page().unwrap();
    let transmit_grant = pair.guest.grant_access(SERVICE, &transmit_ring, Access::ReadWrite).unwrap();
    attacker.put(&format!("{front}/tx-ring-ref"), transmit_grant.0);
    attacker.put(&format!("{front}/rx-ring-ref"), attacker.ring_grant.0);
    attacker.put(&format!("{front}/request-rx-copy"), 1);
    attacker.put(&format!("{front}/event-channel"), attacker.port.0);
    pair.start_back();
    attacker.put(&format!("{front}/state"), 4);
    pair.settle();
    attacker.ring.write(64, &[0, 0, 0, 0]);
    attacker.ring.write(68, &attacker.read_only_grant.0.to_le_bytes());
    attacker.ring.store_u32(0, 1, Ordering::SeqCst);
    pair.wire.to_guest.push_back(Frame::new(vec![1; 100]));
    pair.poll_back();
    assert_eq!(pair.back().refusals().count(net_rules::RX_GRANT), 1);
    attacker.assert_untouched();
}

#[test]
fn network_keys_that_make_no_connection_are_refused_by_name() {
    let cases = [
        (net_rules::CONNECT_RX_COPY, "request-rx-copy", "0"),
        (net_rules::CONNECT_QUEUES, "multi-queue-num-queues", "5"),
        (net_rules::CONNECT_QUEUES, "multi-queue-num-queues", "0"),
        (net_rules::CONNECT_KEYS, "multi-queue-num-queues", "2"),
        (net_rules::CONNECT_KEYS, "rx-ring-ref", "x"),
        (net_rules::CONNECT_KEYS, "event-channel", ""),
        (net_rules::RING_GRANT, "tx-ring-ref", "77"),
        (net_rules::EVENT_CHANNEL, "event-channel", "77"),
    ];
    for (rule, key, value) in cases {
        let mut pair = NetPair::cold();
        let mut attacker = Attacker::new(&pair.guest);
        let front = pair.front_path.clone();
        attacker.put(&format!("{front}/tx-ring-ref"), attacker.ring_grant.0);
        attacker.put(&format!("{front}/rx-ring-ref"), attacker.ring_grant.0);
        attacker.put(&format!("{front}/request-rx-copy"), 1);
        attacker.put(&format!("{front}/event-channel"), attacker.port.0);
        attacker.put(&format!("{front}/{key}"), value);
        pair.start_back();
        attacker.put(&format!("{front}/state"), 4);
        pair.settle();
        assert_eq!(pair.back().refusals().count(rule), 1, "{key}={value}");
        assert_eq!((pair.service.leaks().mappings, pair.service.leaks().ports), (0, 0));
    }
}

#[test]
fn a_network_ring_that_is_too_far_ahead_is_left() {
    let mut pair = NetPair::connected();
    let ring = ring_of(&mut pair.service, &mut pair.guest, &format!("{}/rx-ring-ref", pair.front_path));
    ring.store_u32(0, 5000, Ordering::SeqCst);
    pair.wire.to_guest.push_back(Frame::new(vec![1; 100]));
    pair.poll_back();
    assert!(!pair.back().is_connected());
    assert_eq!(pair.back().refusals().count(net_rules::RING_OVERRUN), 1);
}
