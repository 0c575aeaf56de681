//! Peers that write anything anywhere: nothing panics, nothing runs for ever, nothing outside the granted pages is
//! touched, and an honest peer that comes after them is served.
#![allow(
    clippy::unwrap_used,
    clippy::too_many_lines,
    reason = "a failed step is a failed test"
)]

mod common;

use std::sync::atomic::Ordering;

use backends::Progress;
use backends::block::rules as block_rules;
use backends::net::rules as net_rules;
use common::net::NetPair;
use common::{DiskPair, SharedDisk};
use frontends::block::{Operation, Status};
use proptest::prelude::*;
use pv_bus::block::{Body, MAX_INDIRECT_PAGES, Request, Segment, op};
use pv_bus::loopback::{LoopbackMapping, LoopbackPage};
use pv_bus::net::{Checksum, Frame};
use pv_bus::refusal::Rule;
use pv_bus::{
    Access, DomId, Events, GrantRef, Grants, Loopback, Memory, Port, SharedPage, Store, Transaction,
};

const SERVICE: DomId = DomId(0);

/// A guest that plays a front end by hand.
struct Attacker {
    guest: Loopback,
    ring: LoopbackPage,
    ring_grant: GrantRef,
    port: Port,
    writable: LoopbackPage,
    writable_grant: GrantRef,
    read_only: LoopbackPage,
    read_only_grant: GrantRef,
    /// Granted to somebody else.
    foreign: LoopbackPage,
    foreign_grant: GrantRef,
}

impl Attacker {
    fn new(guest: &Loopback) -> Self {
        let mut guest = guest.handle();
        let mut page = |peer, access, fill| {
            let page = guest.alloc_page().unwrap();
            page.fill(0, 4096, fill);
            let grant = guest.grant_access(peer, &page, access).unwrap();
            (page, grant)
        };
        let (ring, ring_grant) = page(SERVICE, Access::ReadWrite, 0);
        let (writable, writable_grant) = page(SERVICE, Access::ReadWrite, 0x77);
        let (read_only, read_only_grant) = page(SERVICE, Access::ReadOnly, 0x55);
        let (foreign, foreign_grant) = page(DomId(9), Access::ReadWrite, 0x66);
        let port = guest.alloc_unbound(SERVICE).unwrap();
        Self {
            guest,
            ring,
            ring_grant,
            port,
            writable,
            writable_grant,
            read_only,
            read_only_grant,
            foreign,
            foreign_grant,
        }
    }

    fn grants(&self) -> [u32; 6] {
        [
            self.writable_grant.0,
            self.read_only_grant.0,
            self.foreign_grant.0,
            self.ring_grant.0,
            0,
            u32::MAX,
        ]
    }

    fn put(&mut self, path: &str, value: impl std::fmt::Display) {
        self.guest.put(path, value);
    }

    fn assert_untouched(&self) {
        for (page, fill) in [(&self.read_only, 0x55), (&self.foreign, 0x66)] {
            let mut bytes = vec![0; 4096];
            page.read(0, &mut bytes);
            assert!(bytes.iter().all(|byte| *byte == fill));
        }
        let _ = &self.writable;
    }
}

fn attacked_disk(sectors: usize) -> (DiskPair, Attacker) {
    let mut pair = DiskPair::cold(SharedDisk::new(vec![0x11; sectors * 512]));
    let mut attacker = Attacker::new(&pair.guest);
    let front = pair.front_path.clone();
    attacker.put(&format!("{front}/ring-ref"), attacker.ring_grant.0);
    attacker.put(&format!("{front}/event-channel"), attacker.port.0);
    attacker.put(&format!("{front}/protocol"), "x86_64-abi");
    pair.start_back();
    attacker.put(&format!("{front}/state"), 3);
    pair.settle();
    assert!(pair.back().is_connected());
    (pair, attacker)
}

/// Lets the back end work; it must come to rest.
fn rest(pair: &mut DiskPair) {
    for _ in 0..64 {
        pair.pump();
        let back = pair.back.as_mut().unwrap();
        if back.poll(&mut pair.service) == Progress::Idle {
            return;
        }
    }
    panic!("the back end never comes to rest");
}

/// One request by hand; gives the status of the response.
fn ask(pair: &mut DiskPair, attacker: &Attacker, number: u32, request: &Request) -> i16 {
    let slot = 64 + (number as usize % 32) * 112;
    attacker.ring.write(slot, &request.encode(0));
    attacker.ring.store_u32(0, number + 1, Ordering::SeqCst);
    rest(pair);
    assert_eq!(
        attacker.ring.load_u32(8, Ordering::SeqCst),
        number + 1,
        "every request is answered"
    );
    let mut response = [0; 16];
    attacker.ring.read(slot, &mut response);
    assert_eq!(response[..8], request.id.to_le_bytes());
    i16::from_le_bytes([response[10], response[11]])
}

fn direct(operation: u8, count: u8, sector: u64, segment: Segment) -> Request {
    let body = Body::Direct {
        operation,
        count,
        segments: [segment; 11],
    };
    Request {
        id: 0xdead_0000 + u64::from(operation),
        sector,
        body,
    }
}

fn indirect(operation: u8, count: u16, sector: u64, page: GrantRef) -> Request {
    Request {
        id: 0xbeef,
        sector,
        body: Body::Indirect {
            operation,
            count,
            pages: [page; MAX_INDIRECT_PAGES],
        },
    }
}

#[test]
fn each_block_rule_refuses_by_its_name() {
    let (mut pair, attacker) = attacked_disk(100);
    let good = Segment {
        grant: attacker.writable_grant,
        first: 0,
        last: 7,
    };
    let at = |first, last| Segment {
        grant: attacker.writable_grant,
        first,
        last,
    };
    let of = |grant| Segment {
        grant,
        first: 0,
        last: 0,
    };
    let discard = |sector, sectors| Request {
        id: 1,
        sector,
        body: Body::Discard { flag: 0, sectors },
    };
    let page = attacker.writable_grant;
    let cases: Vec<(Rule, Request, i16)> = vec![
        (block_rules::OPERATION_UNKNOWN, direct(4, 1, 0, good), -2),
        (block_rules::OPERATION_UNKNOWN, direct(0xff, 1, 0, good), -2),
        (block_rules::SEGMENT_COUNT, direct(op::READ, 0, 0, good), -1),
        (
            block_rules::SEGMENT_COUNT,
            direct(op::WRITE, 12, 0, good),
            -1,
        ),
        (
            block_rules::SEGMENT_COUNT,
            direct(op::WRITE, 255, 0, good),
            -1,
        ),
        (
            block_rules::SEGMENT_LAST,
            direct(op::READ, 1, 0, at(0, 8)),
            -1,
        ),
        (
            block_rules::SEGMENT_LAST,
            direct(op::READ, 1, 0, at(255, 255)),
            -1,
        ),
        (
            block_rules::SEGMENT_BACKWARDS,
            direct(op::READ, 1, 0, at(5, 4)),
            -1,
        ),
        (block_rules::SECTOR_RANGE, direct(op::READ, 1, 93, good), -1),
        (
            block_rules::SECTOR_RANGE,
            direct(op::WRITE, 1, u64::MAX, good),
            -1,
        ),
        (
            block_rules::SECTOR_RANGE,
            direct(op::WRITE, 1, u64::MAX - 7, good),
            -1,
        ),
        (block_rules::SECTOR_RANGE, discard(1, u64::MAX), -1),
        (block_rules::SECTOR_RANGE, discard(101, 0), -1),
        (
            block_rules::DATA_GRANT,
            direct(op::READ, 1, 0, of(attacker.read_only_grant)),
            -1,
        ),
        (
            block_rules::DATA_GRANT,
            direct(op::WRITE, 1, 0, of(attacker.foreign_grant)),
            -1,
        ),
        (
            block_rules::DATA_GRANT,
            direct(op::WRITE, 1, 0, of(GrantRef(u32::MAX))),
            -1,
        ),
        (
            block_rules::INDIRECT_OPERATION,
            indirect(op::DISCARD, 1, 0, page),
            -1,
        ),
        (
            block_rules::INDIRECT_OPERATION,
            indirect(op::INDIRECT, 1, 0, page),
            -1,
        ),
        (
            block_rules::SEGMENT_COUNT,
            indirect(op::READ, 0, 0, page),
            -1,
        ),
        (
            block_rules::SEGMENT_COUNT,
            indirect(op::READ, 257, 0, page),
            -1,
        ),
        (
            block_rules::SEGMENT_COUNT,
            indirect(op::READ, u16::MAX, 0, page),
            -1,
        ),
        (
            block_rules::INDIRECT_GRANT,
            indirect(op::READ, 1, 0, attacker.foreign_grant),
            -1,
        ),
        (
            block_rules::SEGMENT_LAST,
            indirect(op::READ, 1, 0, page),
            -1,
        ),
    ];
    for (number, (rule, request, status)) in cases.iter().enumerate() {
        let before = pair.back().refusals().count(*rule);
        assert_eq!(
            ask(&mut pair, &attacker, number as u32, request),
            *status,
            "{}",
            rule.name
        );
        assert_eq!(
            pair.back().refusals().count(*rule),
            before + 1,
            "{}",
            rule.name
        );
    }
    let number = cases.len() as u32;
    assert_eq!(
        ask(&mut pair, &attacker, number, &direct(op::READ, 1, 0, good)),
        0,
        "a good one is still served"
    );
    attacker.assert_untouched();
}

#[test]
fn rules_of_the_device_refuse_by_their_name() {
    type Change = fn(&mut backends::block::Geometry);
    let cases: [(Rule, Change, u8, u64, i16); 5] = [
        (
            block_rules::WRITE_READ_ONLY,
            |device| device.read_only = true,
            op::WRITE,
            0,
            -1,
        ),
        (
            block_rules::OPERATION_NOT_OFFERED,
            |device| device.can_flush = false,
            op::WRITE_BARRIER,
            0,
            -2,
        ),
        (
            block_rules::OPERATION_NOT_OFFERED,
            |device| device.can_flush = false,
            op::FLUSH,
            0,
            -2,
        ),
        (
            block_rules::SECTOR_ALIGNMENT,
            |device| device.sector_size_bytes = 4096,
            op::WRITE,
            1,
            -1,
        ),
        (block_rules::NO_BUFFER, |_| {}, op::WRITE, 0, -1),
    ];
    for (rule, change, operation, sector, status) in cases {
        let (mut pair, attacker) = attacked_disk(4096);
        let mut geometry = backends::block::BlockDevice::geometry(&pair.disk);
        change(&mut geometry);
        pair.disk.inner.borrow_mut().geometry = Some(geometry);
        pair.disk.inner.borrow_mut().no_buffers = rule == block_rules::NO_BUFFER;
        let segment = Segment {
            grant: attacker.writable_grant,
            first: 0,
            last: 7,
        };
        assert_eq!(
            ask(
                &mut pair,
                &attacker,
                0,
                &direct(operation, 1, sector, segment)
            ),
            status,
            "{}",
            rule.name
        );
        assert_eq!(pair.back().refusals().count(rule), 1, "{}", rule.name);
    }
    let (mut pair, attacker) = attacked_disk(100);
    let mut geometry = backends::block::BlockDevice::geometry(&pair.disk);
    geometry.discard = None;
    pair.disk.inner.borrow_mut().geometry = Some(geometry);
    let discard = Request {
        id: 1,
        sector: 0,
        body: Body::Discard {
            flag: 0,
            sectors: 1,
        },
    };
    assert_eq!(ask(&mut pair, &attacker, 0, &discard), -2);
}

#[test]
fn a_ring_that_is_too_far_ahead_is_left() {
    for lie in [33, 1 << 31, u32::MAX] {
        let (mut pair, attacker) = attacked_disk(100);
        attacker.ring.store_u32(0, lie, Ordering::SeqCst);
        rest(&mut pair);
        assert!(!pair.back().is_connected());
        assert_eq!(pair.back().refusals().count(block_rules::RING_OVERRUN), 1);
        assert_eq!(pair.service.leaks().mappings, 0);
        let path = format!("{}/state", pair.back_path);
        assert_eq!(pair.service.get(&path), "6");
    }
}

#[test]
fn keys_that_make_no_connection_are_refused_by_name() {
    let cases = [
        (block_rules::PROTOCOL_UNKNOWN, "protocol", "x86_32-abi"),
        (block_rules::RING_KEYS, "ring-ref", "many"),
        (block_rules::RING_KEYS, "event-channel", "-1"),
        (block_rules::RING_GRANT, "ring-ref", "4000000000"),
        (block_rules::EVENT_CHANNEL, "event-channel", "4000000000"),
        (block_rules::RING_ORDER, "ring-page-order", "5"),
        (block_rules::RING_ORDER, "ring-page-order", "4294967295"),
        (block_rules::RING_KEYS, "ring-page-order", "4"),
    ];
    for (rule, key, value) in cases {
        let mut pair = DiskPair::cold(SharedDisk::new(vec![0; 51200]));
        let mut attacker = Attacker::new(&pair.guest);
        let front = pair.front_path.clone();
        attacker.put(&format!("{front}/ring-ref"), attacker.ring_grant.0);
        attacker.put(&format!("{front}/event-channel"), attacker.port.0);
        attacker.put(&format!("{front}/{key}"), value);
        pair.start_back();
        attacker.put(&format!("{front}/state"), 3);
        pair.settle();
        assert!(!pair.back().is_connected());
        assert_eq!(pair.back().refusals().count(rule), 1, "{key}={value}");
        assert_eq!(pair.service.leaks().mappings, 0);
        assert_eq!(pair.service.leaks().ports, 0);
    }
}

fn hostile_segment(grants: [u32; 6]) -> impl Strategy<Value = Segment> {
    let grant = prop_oneof![3 => Just(grants[0]), 4 => prop::sample::select(grants.to_vec()), 1 => any::<u32>()];
    let sector = || prop_oneof![4 => 0..8_u8, 1 => any::<u8>()];
    (grant, sector(), sector()).prop_map(|(grant, first, last)| Segment {
        grant: GrantRef(grant),
        first,
        last,
    })
}

fn hostile_request(grants: [u32; 6]) -> impl Strategy<Value = Request> {
    let sector = || prop_oneof![4 => 0..200_u64, 1 => any::<u64>()];
    let operation = || prop_oneof![6 => 0..7_u8, 1 => any::<u8>()];
    let page = move || prop::sample::select(grants.to_vec());
    let body = prop_oneof![
        (
            operation(),
            prop_oneof![4 => 0..13_u8, 1 => any::<u8>()],
            prop::collection::vec(hostile_segment(grants), 11)
        )
            .prop_map(|(operation, count, segments)| Body::Direct {
                operation,
                count,
                segments: segments.try_into().unwrap(),
            }),
        (
            operation(),
            prop_oneof![4 => 0..300_u16, 1 => any::<u16>()],
            prop::collection::vec(page(), 8)
        )
            .prop_map(|(operation, count, pages)| Body::Indirect {
                operation,
                count,
                pages: std::array::from_fn(|page| GrantRef(pages[page])),
            }),
        (any::<u8>(), sector()).prop_map(|(flag, sectors)| Body::Discard { flag, sectors }),
    ];
    (any::<u64>(), sector(), body).prop_map(|(id, sector, body)| Request { id, sector, body })
}

/// One thing a hostile guest does.
#[derive(Clone, Debug)]
enum Attack {
    Request(Request),
    Bytes { at: usize, bytes: Vec<u8> },
    Word { at: usize, value: u32 },
    Publish(u32),
    Key { key: &'static str, value: String },
    State(u32),
    Notify,
    EndGrant(usize),
    ClosePort,
}

/// The grants of an [`Attacker`] in a new world are always these.
const GRANTS: [u32; 6] = [9, 10, 11, 8, 0, u32::MAX];

fn attack(keys: &'static [&'static str]) -> impl Strategy<Value = Attack> {
    prop_oneof![
        12 => hostile_request(GRANTS).prop_map(Attack::Request),
        2 => (64..4080_usize, prop::collection::vec(any::<u8>(), 16)).prop_map(|(at, bytes)| Attack::Bytes { at, bytes }),
        1 => (0..16_usize, any::<u32>()).prop_map(|(word, value)| Attack::Word { at: word * 4, value }),
        4 => (0..40_u32).prop_map(Attack::Publish),
        1 => (prop::sample::select(keys), prop_oneof!["[0-9]{1,10}", "\\PC{0,12}"])
            .prop_map(|(key, value)| Attack::Key { key, value }),
        1 => (0..10_u32).prop_map(Attack::State),
        2 => Just(Attack::Notify),
        1 => (0..4_usize).prop_map(Attack::EndGrant),
        1 => Just(Attack::ClosePort),
    ]
}

impl Attacker {
    fn commit(&mut self, front: &str, attack: &Attack, next: &mut u32) {
        match attack {
            Attack::Request(request) => {
                self.ring
                    .write(64 + (*next as usize % 32) * 112, &request.encode(51712));
                *next = next.wrapping_add(1);
                self.ring.store_u32(0, *next, Ordering::SeqCst);
            }
            Attack::Bytes { at, bytes } => self.ring.write(*at, bytes),
            Attack::Word { at, value } => self.ring.store_u32(*at, *value, Ordering::SeqCst),
            Attack::Publish(count) => {
                *next = next.wrapping_add(*count);
                self.ring.store_u32(0, *next, Ordering::SeqCst);
            }
            Attack::Key { key, value } => self.put(&format!("{front}/{key}"), value),
            Attack::State(state) => self.put(&format!("{front}/state"), state),
            Attack::Notify => self.guest.notify(self.port),
            Attack::EndGrant(which) => {
                let _ = self.guest.end_access(GrantRef(GRANTS[*which]));
            }
            Attack::ClosePort => self.guest.close(self.port),
        }
    }
}

const BLOCK_KEYS: &[&str] = &[
    "ring-ref",
    "ring-ref0",
    "ring-page-order",
    "event-channel",
    "protocol",
    "feature-persistent",
    "state",
];
const NET_KEYS: &[&str] = &[
    "tx-ring-ref",
    "rx-ring-ref",
    "event-channel",
    "event-channel-tx",
    "event-channel-rx",
    "request-rx-copy",
    "feature-sg",
    "multi-queue-num-queues",
    "state",
];

/// One thing a hostile guest does to the rings of a network card.
#[derive(Clone, Debug)]
enum NetAttack {
    Transmit {
        gref: u32,
        offset: u16,
        flags: u16,
        id: u16,
        size: u16,
    },
    Post {
        id: u16,
        gref: u32,
    },
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
    fn no_block_front_end_harms_its_back_end(
        attacks in prop::collection::vec(attack(BLOCK_KEYS), 1..60),
        persistent: bool,
        manual: bool,
    ) {
        let mut pair = DiskPair::cold(SharedDisk::new(vec![0x11; 100 * 512]));
        let mut attacker = Attacker::new(&pair.guest);
        prop_assert_eq!(attacker.grants(), GRANTS);
        let front = pair.front_path.clone();
        attacker.put(&format!("{front}/ring-ref"), attacker.ring_grant.0);
        attacker.put(&format!("{front}/event-channel"), attacker.port.0);
        attacker.put(&format!("{front}/feature-persistent"), u32::from(persistent));
        pair.disk.inner.borrow_mut().manual = manual;
        pair.start_back();
        attacker.put(&format!("{front}/state"), 3);
        rest(&mut pair);
        prop_assert!(pair.back().is_connected());
        let mut next = 0;
        for attack in &attacks {
            attacker.commit(&front, attack, &mut next);
            rest(&mut pair);
            pair.disk.run(0);
        }
        pair.disk.inner.borrow_mut().manual = false;
        pair.disk.run_all();
        rest(&mut pair);
        attacker.assert_untouched();
        honest_disk_works(pair);
    }

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
    fn no_block_back_end_harms_its_front_end(
        slots in prop::collection::vec((any::<bool>(), any::<u64>(), any::<u8>(), -3_i16..3, 0..4_u32), 1..40),
    ) {
        let mut pair = DiskPair::connected(SharedDisk::new(vec![0; 100 * 512]).manual());
        let ring = ring_of(&mut pair.service, &mut pair.guest, &format!("{}/ring-ref", pair.front_path));
        for sector in 0..20 {
            pair.submit(Operation::Write { sector, data: &[1; 512] });
        }
        let mut produced = 0_u32;
        for (real_id, id, operation, status, publish) in slots {
            let at = 64 + (produced as usize % 32) * 112;
            let mut first = [0; 8];
            ring.read(64 + 8, &mut first);
            let id = if real_id { u64::from_le_bytes(first) } else { id };
            let operation = if real_id { op::WRITE } else { operation };
            ring.write(at, &pv_bus::block::Response { id, operation, status }.encode());
            produced = produced.wrapping_add(publish);
            ring.store_u32(8, produced, Ordering::SeqCst);
            pair.front.as_mut().unwrap().poll(&mut pair.guest);
            while pair.take().is_some() {}
        }
        let front = pair.front();
        prop_assert!(front.status() == Status::Ready || front.outstanding() == 0, "a broken one answers everything");
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

/// Maps the ring whose grant is at this path once more, as a back end that the real one knows nothing of.
fn ring_of(service: &mut Loopback, guest: &mut Loopback, path: &str) -> LoopbackMapping {
    let grant = GrantRef(guest.get(path).parse().unwrap());
    let mut mapped = Vec::new();
    service.map_grants(guest.id(), Access::ReadWrite, &[grant], &mut mapped);
    mapped.remove(0).unwrap()
}

/// The toolstack takes the hostile device away and makes a good one; the same service domain serves it.
fn honest_disk_works(mut pair: DiskPair) {
    let disk = pair.back.take().unwrap().release(&mut pair.service);
    assert_eq!(pair.service.leaks(), pv_bus::loopback::Leaks::default());
    assert_eq!(disk.inner.borrow().buffers_out, 0);
    pair.service
        .rm(Transaction::NONE, &pair.front_path)
        .unwrap();
    pair.service.rm(Transaction::NONE, &pair.back_path).unwrap();
    let (guest, service) = (pair.guest.id(), pair.service.id());
    pair.service.create_device(guest, service, "vbd", 51712);
    let mut pair = pair.started();
    pair.call(Operation::Write {
        sector: 7,
        data: &[0x42; 1024],
    })
    .unwrap();
    assert_eq!(
        pair.call(Operation::Read {
            sector: 8,
            len_bytes: 512
        })
        .unwrap(),
        [0x42; 512]
    );
}

fn honest_card_works(mut pair: NetPair) {
    pair.back.take().unwrap().release(&mut pair.service);
    assert_eq!(pair.service.leaks(), pv_bus::loopback::Leaks::default());
    pair.service
        .rm(Transaction::NONE, &pair.front_path)
        .unwrap();
    pair.service.rm(Transaction::NONE, &pair.back_path).unwrap();
    let (guest, service) = (pair.guest.id(), pair.service.id());
    let (front, _) = pair.service.create_device(guest, service, "vif", 0);
    pair.service
        .put(&format!("{front}/mac"), "00:16:3e:00:00:01");
    pair.wire.from_guest.clear();
    let mut pair = pair.started();
    pair.front
        .as_mut()
        .unwrap()
        .transmit(&mut pair.guest, &[5; 60], Checksum::InFrame)
        .unwrap();
    pair.settle();
    assert_eq!(pair.wire.from_guest.pop_front().unwrap().bytes, [5; 60]);
}

/// A transmit slot by hand.
fn transmit_slot(
    attacker: &Attacker,
    number: usize,
    gref: u32,
    offset: u16,
    flags: u16,
    size: u16,
) {
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
    let good = GRANTS[0];
    let extra = |kind: u8| u32::from(kind);
    type Slot = (u32, u16, u16, u16);
    let cases: Vec<(Rule, Vec<Slot>, bool)> = vec![
        (net_rules::TX_SIZE, vec![(good, 0, 0, 13)], false),
        (
            net_rules::TX_SIZE,
            vec![(good, 0, MORE, 100), (good, 0, 0, 101)],
            false,
        ),
        (net_rules::TX_PAGE, vec![(good, 4000, 0, 100)], false),
        (
            net_rules::TX_PAGE,
            vec![(good, u16::MAX, 0, u16::MAX)],
            false,
        ),
        (
            net_rules::TX_PAGE,
            vec![(good, 0, MORE, 8000), (good, 1, 0, 4096)],
            false,
        ),
        (
            net_rules::TX_SLOTS,
            [
                vec![(good, 0, MORE, 190); 1],
                vec![(good, 0, MORE, 10); 17],
                vec![(good, 0, 0, 10)],
            ]
            .concat(),
            false,
        ),
        (net_rules::TX_GRANT, vec![(GRANTS[2], 0, 0, 100)], false),
        (
            net_rules::TX_GRANT,
            vec![(good, 0, MORE, 200), (u32::MAX, 0, 0, 100)],
            false,
        ),
        (
            net_rules::TX_EXTRA_NOT_OFFERED,
            vec![(good, 0, EXTRA, 100), (extra(1), 0, 0, 0)],
            false,
        ),
        (
            net_rules::TX_EXTRA_TYPE,
            vec![(good, 0, EXTRA, 100), (extra(0), 0, 0, 0)],
            true,
        ),
        (
            net_rules::TX_EXTRA_TYPE,
            vec![(good, 0, EXTRA, 100), (extra(5), 0, 0, 0)],
            true,
        ),
        (net_rules::TX_UNFINISHED, vec![(good, 0, MORE, 100)], true),
        (net_rules::TX_UNFINISHED, vec![(good, 0, EXTRA, 100)], true),
    ];
    for (rule, slots, fatal) in cases {
        let mut pair = NetPair::cold();
        let mut attacker = Attacker::new(&pair.guest);
        let receive_ring = pair.guest.alloc_page().unwrap();
        let receive_grant = pair
            .guest
            .grant_access(SERVICE, &receive_ring, Access::ReadWrite)
            .unwrap();
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
        attacker
            .ring
            .store_u32(0, slots.len() as u32, Ordering::SeqCst);
        pair.poll_back();
        assert_eq!(
            pair.back().refusals().count(rule),
            1,
            "{} {slots:?}",
            rule.name
        );
        assert_eq!(pair.back().is_connected(), !fatal, "{}", rule.name);
        assert!(pair.wire.from_guest.is_empty());
        if !fatal {
            assert_eq!(
                attacker.ring.load_u32(8, Ordering::SeqCst),
                slots.len() as u32,
                "every slot is answered"
            );
        }
    }
}

#[test]
fn a_page_that_cannot_be_written_gets_no_frame() {
    let mut pair = NetPair::cold();
    let mut attacker = Attacker::new(&pair.guest);
    let front = pair.front_path.clone();
    let transmit_ring = pair.guest.alloc_page().unwrap();
    let transmit_grant = pair
        .guest
        .grant_access(SERVICE, &transmit_ring, Access::ReadWrite)
        .unwrap();
    attacker.put(&format!("{front}/tx-ring-ref"), transmit_grant.0);
    attacker.put(&format!("{front}/rx-ring-ref"), attacker.ring_grant.0);
    attacker.put(&format!("{front}/request-rx-copy"), 1);
    attacker.put(&format!("{front}/event-channel"), attacker.port.0);
    pair.start_back();
    attacker.put(&format!("{front}/state"), 4);
    pair.settle();
    attacker.ring.write(64, &[0, 0, 0, 0]);
    attacker
        .ring
        .write(68, &attacker.read_only_grant.0.to_le_bytes());
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
        (net_rules::CONNECT_QUEUES, "multi-queue-num-queues", "2"),
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
        assert_eq!(
            (pair.service.leaks().mappings, pair.service.leaks().ports),
            (0, 0)
        );
    }
}

#[test]
fn a_network_ring_that_is_too_far_ahead_is_left() {
    let mut pair = NetPair::connected();
    let ring = ring_of(
        &mut pair.service,
        &mut pair.guest,
        &format!("{}/rx-ring-ref", pair.front_path),
    );
    ring.store_u32(0, 5000, Ordering::SeqCst);
    pair.wire.to_guest.push_back(Frame::new(vec![1; 100]));
    pair.poll_back();
    assert!(!pair.back().is_connected());
    assert_eq!(pair.back().refusals().count(net_rules::RING_OVERRUN), 1);
}
