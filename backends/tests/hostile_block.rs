//! Disk peers that write anything anywhere: nothing panics, nothing runs for ever, nothing outside the granted
//! pages is touched, and an honest peer that comes after them is served.
#![allow(clippy::unwrap_used, clippy::too_many_lines, reason = "a failed step is a failed test")]

mod common;

use std::sync::atomic::Ordering;

use backends::Progress;
use backends::block::rules as block_rules;
use common::attacker::{Attacker, GRANTS, attack, ring_of};
use common::{DiskPair, SharedDisk};
use frontends::block::{Operation, Status};
use proptest::prelude::*;
use pv_bus::block::{Body, MAX_INDIRECT_PAGES, Request, Segment, op};
use pv_bus::refusal::Rule;
use pv_bus::{GrantRef, SharedPage, Store, Transaction};

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
    assert_eq!(attacker.ring.load_u32(8, Ordering::SeqCst), number + 1, "every request is answered");
    let mut response = [0; 16];
    attacker.ring.read(slot, &mut response);
    assert_eq!(response[..8], request.id.to_le_bytes());
    i16::from_le_bytes([response[10], response[11]])
}

fn direct(operation: u8, count: u8, sector: u64, segment: Segment) -> Request {
    let body = Body::Direct { operation, count, segments: [segment; 11] };
    Request { id: 0xdead_0000 + u64::from(operation), sector, body }
}

fn indirect(operation: u8, count: u16, sector: u64, page: GrantRef) -> Request {
    Request { id: 0xbeef, sector, body: Body::Indirect { operation, count, pages: [page; MAX_INDIRECT_PAGES] } }
}

#[test]
fn each_block_rule_refuses_by_its_name() {
    let (mut pair, attacker) = attacked_disk(100);
    let good = Segment { grant: attacker.writable_grant, first: 0, last: 7 };
    let at = |first, last| Segment { grant: attacker.writable_grant, first, last };
    let of = |grant| Segment { grant, first: 0, last: 0 };
    let discard = |sector, sectors| Request { id: 1, sector, body: Body::Discard { flag: 0, sectors } };
    let page = attacker.writable_grant;
    let cases: Vec<(Rule, Request, i16)> = vec![
        (block_rules::OPERATION_UNKNOWN, direct(4, 1, 0, good), -2),
        (block_rules::OPERATION_UNKNOWN, direct(0xff, 1, 0, good), -2),
        (block_rules::SEGMENT_COUNT, direct(op::READ, 0, 0, good), -1),
        (block_rules::SEGMENT_COUNT, direct(op::WRITE, 12, 0, good), -1),
        (block_rules::SEGMENT_COUNT, direct(op::WRITE, 255, 0, good), -1),
        (block_rules::SEGMENT_LAST, direct(op::READ, 1, 0, at(0, 8)), -1),
        (block_rules::SEGMENT_LAST, direct(op::READ, 1, 0, at(255, 255)), -1),
        (block_rules::SEGMENT_BACKWARDS, direct(op::READ, 1, 0, at(5, 4)), -1),
        (block_rules::SECTOR_RANGE, direct(op::READ, 1, 93, good), -1),
        (block_rules::SECTOR_RANGE, direct(op::WRITE, 1, u64::MAX, good), -1),
        (block_rules::SECTOR_RANGE, direct(op::WRITE, 1, u64::MAX - 7, good), -1),
        (block_rules::SECTOR_RANGE, discard(1, u64::MAX), -1),
        (block_rules::SECTOR_RANGE, discard(101, 0), -1),
        (block_rules::DATA_GRANT, direct(op::READ, 1, 0, of(attacker.read_only_grant)), -1),
        (block_rules::DATA_GRANT, direct(op::WRITE, 1, 0, of(attacker.foreign_grant)), -1),
        (block_rules::DATA_GRANT, direct(op::WRITE, 1, 0, of(GrantRef(u32::MAX))), -1),
        (block_rules::INDIRECT_OPERATION, indirect(op::DISCARD, 1, 0, page), -1),
        (block_rules::INDIRECT_OPERATION, indirect(op::INDIRECT, 1, 0, page), -1),
        (block_rules::SEGMENT_COUNT, indirect(op::READ, 0, 0, page), -1),
        (block_rules::SEGMENT_COUNT, indirect(op::READ, 257, 0, page), -1),
        (block_rules::SEGMENT_COUNT, indirect(op::READ, u16::MAX, 0, page), -1),
        (block_rules::INDIRECT_GRANT, indirect(op::READ, 1, 0, attacker.foreign_grant), -1),
        (block_rules::SEGMENT_LAST, indirect(op::READ, 1, 0, page), -1),
    ];
    for (number, (rule, request, status)) in cases.iter().enumerate() {
        let before = pair.back().refusals().count(*rule);
        assert_eq!(ask(&mut pair, &attacker, number as u32, request), *status, "{}", rule.name);
        assert_eq!(pair.back().refusals().count(*rule), before + 1, "{}", rule.name);
    }
    let number = cases.len() as u32;
    assert_eq!(ask(&mut pair, &attacker, number, &direct(op::READ, 1, 0, good)), 0, "a good one is still served");
    attacker.assert_untouched();
}

#[test]
fn rules_of_the_device_refuse_by_their_name() {
    type Change = fn(&mut backends::block::Geometry);
    let cases: [(Rule, Change, u8, u64, i16); 5] = [
        (block_rules::WRITE_READ_ONLY, |device| device.read_only = true, op::WRITE, 0, -1),
        (block_rules::OPERATION_NOT_OFFERED, |device| device.can_flush = false, op::WRITE_BARRIER, 0, -2),
        (block_rules::OPERATION_NOT_OFFERED, |device| device.can_flush = false, op::FLUSH, 0, -2),
        (block_rules::SECTOR_ALIGNMENT, |device| device.sector_size_bytes = 4096, op::WRITE, 1, -1),
        (block_rules::NO_BUFFER, |_| {}, op::WRITE, 0, -1),
    ];
    for (rule, change, operation, sector, status) in cases {
        let (mut pair, attacker) = attacked_disk(4096);
        let mut geometry = backends::block::BlockDevice::geometry(&pair.disk);
        change(&mut geometry);
        pair.disk.inner.borrow_mut().geometry = Some(geometry);
        pair.disk.inner.borrow_mut().no_buffers = rule == block_rules::NO_BUFFER;
        let segment = Segment { grant: attacker.writable_grant, first: 0, last: 7 };
        assert_eq!(ask(&mut pair, &attacker, 0, &direct(operation, 1, sector, segment)), status, "{}", rule.name);
        assert_eq!(pair.back().refusals().count(rule), 1, "{}", rule.name);
    }
    let (mut pair, attacker) = attacked_disk(100);
    let mut geometry = backends::block::BlockDevice::geometry(&pair.disk);
    geometry.discard = None;
    pair.disk.inner.borrow_mut().geometry = Some(geometry);
    let discard = Request { id: 1, sector: 0, body: Body::Discard { flag: 0, sectors: 1 } };
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
        (block_rules::CONNECT_QUEUES, "multi-queue-num-queues", "0"),
        (block_rules::CONNECT_QUEUES, "multi-queue-num-queues", "5"),
        (block_rules::CONNECT_QUEUES, "multi-queue-num-queues", "4294967296"),
        (block_rules::RING_KEYS, "multi-queue-num-queues", "2"),
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

const BLOCK_KEYS: &[&str] = &[
    "ring-ref",
    "ring-ref0",
    "ring-page-order",
    "event-channel",
    "protocol",
    "feature-persistent",
    "state",
    "multi-queue-num-queues",
];

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
}

/// The toolstack takes the hostile device away and makes a good one; the same service domain serves it.
fn honest_disk_works(mut pair: DiskPair) {
    let disk = pair.back.take().unwrap().release(&mut pair.service);
    assert_eq!(pair.service.leaks(), pv_bus::loopback::Leaks::default());
    assert_eq!(disk.inner.borrow().buffers_out, 0);
    pair.service.rm(Transaction::NONE, &pair.front_path).unwrap();
    pair.service.rm(Transaction::NONE, &pair.back_path).unwrap();
    let (guest, service) = (pair.guest.id(), pair.service.id());
    pair.service.create_device(guest, service, "vbd", 51712);
    let mut pair = pair.started();
    pair.call(Operation::Write { sector: 7, data: &[0x42; 1024] }).unwrap();
    assert_eq!(pair.call(Operation::Read { sector: 8, len_bytes: 512 }).unwrap(), [0x42; 512]);
}
