//! The real block front end against the real block back end.

#![allow(clippy::unwrap_used, clippy::too_many_lines, reason = "a failed step is a failed test")]

mod common;

use common::{DiskPair, SharedDisk};
use frontends::block::{BlockError, Operation, Status, SubmitError};
use pv_bus::loopback::Leaks;

fn content(sectors: usize) -> Vec<u8> {
    (0..sectors * 512).map(|at| (at / 512 * 7 + at % 512) as u8).collect()
}

fn pattern(len: usize, seed: u8) -> Vec<u8> {
    (0..len).map(|at| (at as u8).wrapping_mul(31).wrapping_add(seed)).collect()
}

#[test]
fn a_disk_is_described_as_its_device_is() {
    let mut pair = DiskPair::connected(SharedDisk::new(content(100)));
    let device = *pair.front().device().unwrap();
    assert_eq!(device.sectors, 100);
    assert_eq!(device.sector_size_bytes, 512);
    assert!(!device.read_only);
    assert!(device.discard.is_some());
    assert_eq!(pair.guest.get(&format!("{}/protocol", pair.front_path)), "x86_64-abi");
    assert_eq!(pair.guest.get(&format!("{}/state", pair.front_path)), "4");
    assert_eq!(pair.guest.get(&format!("{}/state", pair.back_path)), "4");
}

#[test]
fn what_is_read_is_what_is_on_the_disk() {
    let expected = content(5000);
    let mut pair = DiskPair::connected(SharedDisk::new(expected.clone()));
    for (sector, sectors) in [(0, 1), (7, 8), (3, 87), (0, 88), (0, 89), (100, 512), (1000, 2048), (4999, 1)] {
        let read = pair.call(Operation::Read { sector, len_bytes: sectors * 512 }).unwrap();
        let at = sector as usize * 512;
        assert!(read == expected[at..at + sectors * 512], "{sector}+{sectors}");
    }
}

#[test]
fn what_is_written_is_read_back_in_every_variant() {
    for persistent in [false, true] {
        for back_persistent in [false, true] {
            for max_segments in [1, 11, 12, 64, 256] {
                for order in [0, 2, 4] {
                    let mut pair = DiskPair::cold(SharedDisk::new(vec![0; 4096 * 512]));
                    pair.front_options.persistent = persistent;
                    pair.front_options.max_segments = max_segments;
                    pair.front_options.max_ring_order = order;
                    pair.back_options.persistent = back_persistent;
                    let mut pair = pair.started();
                    let data = pattern(900 * 512, max_segments as u8);
                    pair.call(Operation::Write { sector: 5, data: &data }).unwrap();
                    let read = pair.call(Operation::Read { sector: 5, len_bytes: data.len() }).unwrap();
                    assert!(read == data);
                    pair.call(Operation::Flush).unwrap();
                    assert!(pair.disk.medium()[5 * 512..905 * 512] == data);
                }
            }
        }
    }
}

#[test]
fn a_back_end_without_extras_is_enough() {
    let mut pair = DiskPair::cold(SharedDisk::new(content(4096)));
    pair.back_options =
        backends::block::Options { max_queues: 1, max_ring_order: 0, max_indirect_segments: 0, persistent: false };
    let mut pair = pair.started();
    let read = pair.call(Operation::Read { sector: 0, len_bytes: 2000 * 512 }).unwrap();
    assert!(read == content(4096)[..2000 * 512]);
}

#[test]
fn several_rings_carry_the_requests_of_one_disk() {
    for (order, persistent) in [(0, true), (2, false)] {
        let mut pair = DiskPair::cold(SharedDisk::new(content(4096)));
        pair.front_options.max_queues = 3;
        pair.front_options.max_ring_order = order;
        pair.front_options.persistent = persistent;
        let mut pair = pair.started();
        let front = pair.front_path.clone();
        assert_eq!(pair.guest.get(&format!("{}/multi-queue-max-queues", pair.back_path)), "4");
        assert_eq!(pair.guest.get(&format!("{front}/multi-queue-num-queues")), "3");
        let ports: std::collections::BTreeSet<_> =
            (0..3).map(|queue| pair.guest.get(&format!("{front}/queue-{queue}/event-channel"))).collect();
        assert_eq!(ports.len(), 3);
        assert_eq!(pair.guest.get(&format!("{front}/event-channel")), "", "nothing beside the queues' own");
        let read = pair.call(Operation::Read { sector: 0, len_bytes: 2000 * 512 }).unwrap();
        assert!(read == content(4096)[..2000 * 512]);
        let data = pattern(900 * 512, 3);
        pair.call(Operation::Write { sector: 5, data: &data }).unwrap();
        pair.call(Operation::Flush).unwrap();
        assert!(pair.disk.medium()[5 * 512..905 * 512] == data);
        pair.kill_back();
        pair.start_back();
        pair.settle();
        assert!(pair.call(Operation::Read { sector: 5, len_bytes: data.len() }).unwrap() == data);
    }
}

#[test]
fn a_barrier_keeps_its_place_among_several_rings() {
    let disk = SharedDisk::new(vec![0; 100 * 512]).manual();
    let mut pair = DiskPair::cold(disk.clone());
    pair.front_options.max_queues = 4;
    let mut pair = pair.started();
    let data = pattern(512, 1);
    for sector in 1..4 {
        pair.submit(Operation::Write { sector, data: &data });
    }
    pair.submit(Operation::WriteBarrier { sector: 4, data: &data });
    pair.submit(Operation::Write { sector: 5, data: &data });
    for _ in 0..10 {
        pair.settle();
        while disk.waiting() > 0 && disk.run(disk.waiting() - 1) {}
        pair.poll_back();
    }
    pair.settle();
    let mut log = disk.log();
    log[..3].sort();
    assert_eq!(log, ["write 1+1", "write 2+1", "write 3+1", "flush", "write 4+1", "flush", "write 5+1"]);
    assert_eq!(std::iter::from_fn(|| pair.take()).count(), 5);
}

#[test]
fn requests_that_cannot_be_are_not_taken() {
    let mut pair = DiskPair::connected(SharedDisk::new(content(100)));
    let guest = &mut pair.guest;
    let front = pair.front.as_mut().unwrap();
    let mut refused = |operation| front.submit(guest, operation).unwrap_err();
    assert_eq!(refused(Operation::Read { sector: 99, len_bytes: 1024 }), SubmitError::OutOfRange);
    assert_eq!(refused(Operation::Read { sector: u64::MAX, len_bytes: 1024 }), SubmitError::OutOfRange);
    assert_eq!(refused(Operation::Read { sector: 0, len_bytes: 0 }), SubmitError::Misaligned);
    assert_eq!(refused(Operation::Write { sector: 0, data: &[1; 100] }), SubmitError::Misaligned);
    assert_eq!(refused(Operation::Discard { sector: 90, sectors: 11, secure: false }), SubmitError::OutOfRange);
    assert_eq!(refused(Operation::Discard { sector: 0, sectors: 1, secure: true }), SubmitError::NotSupported);
}

#[test]
fn a_disk_whose_mode_is_r_is_not_written() {
    let mut pair = DiskPair::cold(SharedDisk::new(content(100)));
    let path = format!("{}/mode", pair.back_path);
    pair.service.put(&path, "r");
    let mut pair = pair.started();
    assert!(pair.front().device().unwrap().read_only);
    let refused = pair.front.as_mut().unwrap().submit(&mut pair.guest, Operation::Write { sector: 0, data: &[0; 512] });
    assert_eq!(refused, Err(SubmitError::ReadOnly));
}

#[test]
fn a_flush_covers_every_write_submitted_before_it() {
    let disk = SharedDisk::new(vec![0; 100 * 512]).manual();
    let mut pair = DiskPair::connected(disk.clone());
    let data = pattern(512, 1);
    pair.submit(Operation::Write { sector: 1, data: &data });
    pair.submit(Operation::Write { sector: 2, data: &data });
    let flush = pair.submit(Operation::Flush);
    pair.settle();
    assert_eq!(disk.waiting(), 2, "the flush waits for the writes");
    disk.run(1);
    pair.poll_back();
    pair.settle();
    assert_eq!(disk.waiting(), 1);
    disk.run(0);
    pair.poll_back();
    pair.settle();
    assert_eq!(disk.waiting(), 1, "now it is there");
    disk.run(0);
    pair.poll_back();
    pair.settle();
    assert_eq!(disk.log(), ["write 2+1", "write 1+1", "flush"]);
    let last = std::iter::from_fn(|| pair.take()).last().unwrap();
    assert_eq!(last.0, flush);
    assert!(disk.medium()[512..1024] == data);
}

#[test]
fn a_barrier_is_durable_between_what_came_before_and_what_comes_after() {
    let disk = SharedDisk::new(vec![0; 100 * 512]).manual();
    let mut pair = DiskPair::connected(disk.clone());
    let data = pattern(512, 1);
    pair.submit(Operation::Write { sector: 1, data: &data });
    pair.submit(Operation::WriteBarrier { sector: 2, data: &data });
    pair.submit(Operation::Write { sector: 3, data: &data });
    for _ in 0..10 {
        pair.settle();
        disk.run(0);
        pair.poll_back();
    }
    pair.settle();
    assert_eq!(disk.log(), ["write 1+1", "flush", "write 2+1", "flush", "write 3+1"]);
    assert_eq!(std::iter::from_fn(|| pair.take()).count(), 3);
}

#[test]
fn a_device_without_a_cache_is_flushed_by_doing_nothing() {
    let disk = SharedDisk::new(vec![0; 100 * 512]);
    let mut geometry = backends::block::BlockDevice::geometry(&disk);
    geometry.can_flush = false;
    disk.inner.borrow_mut().geometry = Some(geometry);
    let mut pair = DiskPair::connected(disk.clone());
    pair.call(Operation::Flush).unwrap();
    assert!(disk.log().is_empty());
    let refused =
        pair.front.as_mut().unwrap().submit(&mut pair.guest, Operation::WriteBarrier { sector: 0, data: &[0; 512] });
    assert_eq!(refused, Err(SubmitError::NotSupported));
}

#[test]
fn discarded_sectors_are_forgotten() {
    let mut pair = DiskPair::connected(SharedDisk::new(content(100)));
    pair.call(Operation::Discard { sector: 10, sectors: 20, secure: false }).unwrap();
    let read = pair.call(Operation::Read { sector: 9, len_bytes: 22 * 512 }).unwrap();
    assert!(read[..512] == content(100)[9 * 512..10 * 512]);
    assert!(read[512..21 * 512].iter().all(|byte| *byte == 0));
    assert!(read[21 * 512..] == content(100)[30 * 512..31 * 512]);
}

#[test]
fn a_device_with_large_sectors_gets_whole_ones() {
    let disk = SharedDisk::new(content(80));
    let mut geometry = backends::block::BlockDevice::geometry(&disk);
    geometry.sector_size_bytes = 4096;
    geometry.physical_sector_size_bytes = 4096;
    disk.inner.borrow_mut().geometry = Some(geometry);
    let mut pair = DiskPair::connected(disk);
    let refused = pair.front.as_mut().unwrap().submit(&mut pair.guest, Operation::Read { sector: 1, len_bytes: 4096 });
    assert_eq!(refused, Err(SubmitError::Misaligned));
    assert!(pair.call(Operation::Read { sector: 8, len_bytes: 8192 }).unwrap() == content(80)[4096..12288]);
}

#[test]
fn more_requests_than_the_ring_holds_are_all_answered() {
    let disk = SharedDisk::new(content(4096)).manual();
    disk.inner.borrow_mut().room = 5;
    let mut pair = DiskPair::connected(disk.clone());
    let expected = content(4096);
    let ids: Vec<_> = (0..200).map(|sector| pair.submit(Operation::Read { sector, len_bytes: 512 })).collect();
    let mut answered = Vec::new();
    for turn in 0..2000 {
        pair.settle();
        disk.run(turn % 3);
        disk.run(0);
        pair.poll_back();
        while let Some((id, data)) = pair.take() {
            let sector = ids.iter().position(|each| *each == id).unwrap();
            assert!(data.unwrap() == expected[sector * 512..(sector + 1) * 512]);
            answered.push(id);
        }
        if answered.len() == ids.len() {
            break;
        }
    }
    answered.sort_unstable();
    assert_eq!(answered, ids);
    assert_eq!(disk.inner.borrow().buffers_out, 0);
}

#[test]
fn a_driver_without_memory_says_busy_and_goes_on() {
    let mut pair = DiskPair::connected(SharedDisk::new(content(4096)));
    let held = pair.guest.leaks().pages;
    pair.guest.limit_pages(held + 20);
    let front = pair.front.as_mut().unwrap();
    let refused = front.submit(&mut pair.guest, Operation::Read { sector: 0, len_bytes: 21 * 4096 });
    assert_eq!(refused, Err(SubmitError::Busy));
    // Twenty segments want a page of segments that is not to be had: they go in two parts without one.
    let read = pair.call(Operation::Read { sector: 0, len_bytes: 20 * 4096 }).unwrap();
    assert!(read == content(4096)[..20 * 4096]);
}

#[test]
fn a_resized_disk_has_its_new_size() {
    let disk = SharedDisk::new(content(200));
    let mut geometry = backends::block::BlockDevice::geometry(&disk);
    geometry.sectors = 100;
    disk.inner.borrow_mut().geometry = Some(geometry);
    let mut pair = DiskPair::connected(disk.clone());
    assert_eq!(pair.front().device().unwrap().sectors, 100);
    geometry.sectors = 200;
    disk.inner.borrow_mut().geometry = Some(geometry);
    pair.back.as_mut().unwrap().resize(&mut pair.service);
    pair.settle();
    assert_eq!(pair.front().device().unwrap().sectors, 200);
    assert_eq!(pair.front().status(), Status::Ready);
}

#[test]
fn a_reconfiguring_back_end_pauses_the_front() {
    let mut pair = DiskPair::connected(SharedDisk::new(content(200)));
    let state = format!("{}/state", pair.back_path);
    pair.service.put(&state, 7);
    pair.settle();
    assert_eq!(pair.front().status(), Status::Paused);
    pair.submit(Operation::Read { sector: 0, len_bytes: 512 });
    pair.service.put(&state, 8);
    pair.settle();
    assert_eq!(pair.front().status(), Status::Ready);
    assert!(pair.take().unwrap().1.is_ok());
}

#[test]
fn closing_either_side_finishes_what_is_under_way_and_leaves_nothing_behind() {
    for front_first in [true, false] {
        let disk = SharedDisk::new(content(100)).manual();
        let mut pair = DiskPair::connected(disk.clone());
        pair.submit(Operation::Read { sector: 3, len_bytes: 512 });
        pair.settle();
        if front_first {
            pair.front.as_mut().unwrap().close(&mut pair.guest);
        } else {
            pair.back.as_mut().unwrap().close(&mut pair.service);
        }
        pair.settle();
        disk.run_all();
        pair.poll_back();
        pair.settle();
        let (_, data) = pair.take().unwrap();
        assert!(data.unwrap() == content(100)[3 * 512..4 * 512]);
        assert_eq!(pair.front().status(), Status::Closed);
        assert!(!pair.back().is_connected());
        pair.front.take().unwrap().release(&mut pair.guest);
        pair.back.take().unwrap().release(&mut pair.service);
        assert_eq!(pair.guest.leaks(), Leaks::default());
        assert_eq!(pair.service.leaks(), Leaks::default());
    }
}

#[test]
fn a_removed_device_fails_what_was_asked_of_it() {
    let disk = SharedDisk::new(content(100)).manual();
    let mut pair = DiskPair::connected(disk);
    pair.submit(Operation::Read { sector: 3, len_bytes: 512 });
    pair.settle();
    pair.kill_back();
    let path = pair.back_path.clone();
    pv_bus::Store::rm(&mut pair.service, pv_bus::Transaction::NONE, &path).unwrap();
    pair.settle();
    assert_eq!(pair.take().unwrap().1, Err(BlockError::Gone));
}

#[test]
fn a_back_end_that_dies_and_comes_back_loses_nothing() {
    for persistent in [false, true] {
        let disk = SharedDisk::new(vec![0; 4096 * 512]).manual();
        let mut pair = DiskPair::cold(disk.clone());
        pair.front_options.persistent = persistent;
        let mut pair = pair.started();
        let data = pattern(300 * 512, 9);
        pair.submit(Operation::Write { sector: 0, data: &data });
        pair.submit(Operation::Write { sector: 500, data: &data });
        pair.submit(Operation::Read { sector: 0, len_bytes: 512 });
        pair.settle();
        disk.run(1);
        pair.poll_back();
        pair.settle();
        pair.kill_back();
        pair.start_back();
        disk.inner.borrow_mut().manual = false;
        disk.run_all();
        pair.poll_back();
        pair.settle();
        assert_eq!(pair.front().status(), Status::Ready);
        let answers: Vec<_> = std::iter::from_fn(|| pair.take()).collect();
        assert_eq!(answers.len(), 3);
        assert!(answers.iter().all(|(_, result)| result.is_ok()));
        pair.call(Operation::Flush).unwrap();
        assert!(disk.medium()[..300 * 512] == data);
        assert!(disk.medium()[500 * 512..800 * 512] == data);
        assert_eq!(pair.front().pages_held_by_peer(), 0);
    }
}

/// Linux's front end takes any state but `Connected` for the end of its disk, so it must see no other.
#[test]
fn a_back_end_takes_over_from_one_that_died_without_a_word() {
    let disk = SharedDisk::new(content(100)).manual();
    let mut pair = DiskPair::connected(disk.clone());
    let ids: Vec<_> = (0..4).map(|sector| pair.submit(Operation::Read { sector, len_bytes: 512 })).collect();
    pair.settle();
    disk.run(2);
    disk.run(0);
    pair.poll_back();
    pair.settle();
    assert_eq!(pair.take().unwrap().0, ids[0], "answers keep the order of the ring");
    assert!(pair.take().is_none());
    pair.kill_back();
    disk.inner.borrow_mut().busy = true;
    pair.start_back();
    pair.settle();
    assert!(!pair.back().is_connected(), "the device still has something of the predecessor");
    disk.inner.borrow_mut().busy = false;
    pair.poll_back();
    assert_eq!(pair.guest.get(&format!("{}/state", pair.front_path)), "4");
    assert_eq!(pair.guest.get(&format!("{}/state", pair.back_path)), "4");
    disk.run_all();
    pair.poll_back();
    pair.settle();
    let answered: Vec<_> = std::iter::from_fn(|| pair.take()).map(|(id, data)| (id, data.is_ok())).collect();
    assert_eq!(answered, [(ids[1], true), (ids[2], true), (ids[3], true)]);
    assert_eq!(disk.log(), ["read 2+1", "read 0+1", "read 1+1", "read 2+1", "read 3+1"]);
}

#[test]
fn a_disk_that_is_taken_away_by_force_answers_with_errors() {
    let disk = SharedDisk::new(content(100)).manual();
    let mut pair = DiskPair::connected(disk);
    for sector in 0..40 {
        pair.submit(Operation::Read { sector, len_bytes: 512 });
    }
    pair.settle();
    pair.back.as_mut().unwrap().abort(&mut pair.service);
    pair.settle();
    let answers: Vec<_> = std::iter::from_fn(|| pair.take()).collect();
    assert_eq!(answers.len(), 32);
    assert!(answers.iter().all(|(_, result)| *result == Err(BlockError::Device)));
    pair.back.take().unwrap().release(&mut pair.service);
    let path = pair.back_path.clone();
    pv_bus::Store::rm(&mut pair.service, pv_bus::Transaction::NONE, &path).unwrap();
    pair.settle();
    let answers: Vec<_> = std::iter::from_fn(|| pair.take()).collect();
    assert_eq!(answers.len(), 8, "what was not on the ring");
    assert!(answers.iter().all(|(_, result)| *result == Err(BlockError::Gone)));
}

#[test]
fn a_disk_that_came_to_a_new_host_sends_again_what_had_no_answer() {
    for persistent in [false, true] {
        let disk = SharedDisk::new(vec![0; 4096 * 512]).manual();
        let mut pair = DiskPair::cold(disk.clone());
        pair.front_options.persistent = persistent;
        let mut pair = pair.started();
        let data = pattern(300 * 512, 5);
        pair.submit(Operation::Write { sector: 0, data: &data });
        pair.submit(Operation::Read { sector: 0, len_bytes: 512 });
        pair.settle();
        pair.kill_back();
        for path in [pair.front_path.clone(), pair.back_path.clone()] {
            pair.service.put(&format!("{path}/state"), 1);
        }
        pair.front.as_mut().expect("it runs").resume(&mut pair.guest).expect("the device is there too");
        pair.start_back();
        disk.inner.borrow_mut().manual = false;
        pair.settle();
        assert_eq!(pair.front().status(), Status::Ready);
        let answers: Vec<_> = std::iter::from_fn(|| pair.take()).collect();
        assert_eq!(answers.len(), 2);
        assert!(answers.iter().all(|(_, result)| result.is_ok()));
        pair.call(Operation::Flush).unwrap();
        assert!(disk.medium()[..300 * 512] == data);
        assert_eq!(pair.front().pages_held_by_peer(), 0);
    }
}

#[test]
fn a_front_end_that_is_replaced_connects_again() {
    let mut pair = DiskPair::connected(SharedDisk::new(content(100)));
    pair.front = None;
    pair.guest.crash();
    pair.start_front();
    pair.settle();
    assert_eq!(pair.front().status(), Status::Ready);
    assert!(pair.call(Operation::Read { sector: 0, len_bytes: 512 }).unwrap() == content(100)[..512]);
}

#[test]
fn the_halves_may_start_in_any_order() {
    for back_first in [true, false] {
        let mut pair = DiskPair::cold(SharedDisk::new(content(100)));
        for turn in 0..2 {
            if (turn == 0) == back_first {
                pair.start_back()
            } else {
                pair.start_front()
            }
            pair.settle();
        }
        assert_eq!(pair.front().status(), Status::Ready);
    }
}

#[test]
fn a_batch_of_requests_costs_few_notifications() {
    let mut pair = DiskPair::connected(SharedDisk::new(content(100)));
    let before = pair.guest.notifications() + pair.service.notifications();
    let front = pair.front.as_mut().unwrap();
    for sector in 0..30 {
        front.submit(&mut pair.guest, Operation::Read { sector, len_bytes: 512 }).unwrap();
    }
    front.kick(&mut pair.guest);
    pair.settle();
    assert_eq!(std::iter::from_fn(|| pair.take()).count(), 30);
    let after = pair.guest.notifications() + pair.service.notifications();
    assert!(after - before <= 3, "{}", after - before);
}

#[test]
fn an_old_write_cannot_land_on_top_of_a_new_one() {
    let disk = SharedDisk::new(vec![0; 100 * 512]).manual();
    let mut pair = DiskPair::connected(disk.clone());
    pair.submit(Operation::Write { sector: 5, data: &[1; 512] });
    pair.settle();
    pair.front = None;
    pair.guest.crash();
    pair.start_front();
    pair.settle();
    assert_ne!(pair.front().status(), Status::Ready, "the device still has the old write");
    disk.run(0);
    pair.poll_back();
    pair.settle();
    assert_eq!(pair.front().status(), Status::Ready);
    disk.inner.borrow_mut().manual = false;
    pair.call(Operation::Write { sector: 5, data: &[2; 512] }).unwrap();
    pair.call(Operation::Flush).unwrap();
    assert_eq!(disk.medium()[5 * 512], 2);
    assert_eq!(disk.inner.borrow().buffers_out, 0);
}

/// The order and the keys of Linux's blkback: features only when it connects, `info` as a number of bits.
#[test]
fn a_front_end_connects_to_a_back_end_that_does_as_linux_does() {
    let mut pair = DiskPair::cold(SharedDisk::new(content(100)));
    pair.start_front();
    let (front, back) = (pair.front_path.clone(), pair.back_path.clone());
    pair.service.put(&format!("{back}/max-ring-page-order"), 4);
    pair.service.put(&format!("{back}/feature-persistent"), 1);
    pair.service.put(&format!("{back}/state"), 2);
    pair.settle();
    assert_eq!(pair.guest.get(&format!("{front}/state")), "3");
    for key in ["ring-ref", "event-channel"] {
        assert!(pair.guest.get(&format!("{front}/{key}")).parse::<u32>().is_ok(), "{key}");
    }
    assert_eq!(pair.guest.get(&format!("{front}/protocol")), "x86_64-abi");
    assert_eq!(pair.guest.get(&format!("{front}/feature-persistent")), "1");
    assert_eq!(pair.guest.get(&format!("{front}/ring-page-order")), "", "not written for one page");
    for (key, value) in [("feature-flush-cache", 1), ("sectors", 2048), ("info", 4), ("sector-size", 512)] {
        pair.service.put(&format!("{back}/{key}"), value);
    }
    pair.service.put(&format!("{back}/state"), 4);
    pair.settle();
    assert_eq!(pair.guest.get(&format!("{front}/state")), "4");
    let device = *pair.front().device().unwrap();
    assert_eq!((device.sectors, device.read_only, device.discard), (2048, true, None));
    pair.service.put(&format!("{back}/state"), 5);
    pair.settle();
    assert_eq!(pair.guest.get(&format!("{front}/state")), "6");
}
