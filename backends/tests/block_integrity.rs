//! Whatever the variant, the order in which the device finishes, and the moments at which back ends die: what was
//! acknowledged is on the disk, and what was flushed survives a loss of power.
#![allow(clippy::unwrap_used, reason = "a failed step is a failed test")]

mod common;

use common::{DiskPair, SharedDisk};
use frontends::block::{Operation, Status};
use proptest::prelude::*;

const SLOTS: usize = 24;
const SLOT_SECTORS: usize = 96;
const DISK_BYTES: usize = SLOTS * SLOT_SECTORS * 512;

/// One thing that happens to the disk. Writes of one batch go to different slots.
#[derive(Clone, Debug)]
enum Step {
    Batch(Vec<Write>),
    Finish(Vec<usize>),
    BackDies { power_fails: bool },
    FrontIsReplaced,
    Flush,
    Barrier(Write),
    Discard { slot: usize, sectors: usize },
    Check,
}

#[derive(Clone, Debug)]
struct Write {
    slot: usize,
    start: usize,
    sectors: usize,
    seed: u8,
}

impl Write {
    fn sector(&self) -> u64 {
        (self.slot * SLOT_SECTORS + self.start) as u64
    }

    fn data(&self) -> Vec<u8> {
        (0..self.sectors * 512).map(|at| (at as u8).wrapping_mul(17) ^ self.seed ^ ((at >> 9) as u8)).collect()
    }

    fn apply(&self, model: &mut [u8]) {
        let at = self.sector() as usize * 512;
        model[at..at + self.sectors * 512].copy_from_slice(&self.data());
    }
}

fn write() -> impl Strategy<Value = Write> {
    (0..SLOTS, 0..SLOT_SECTORS, 1..=SLOT_SECTORS, any::<u8>()).prop_map(|(slot, start, sectors, seed)| Write {
        slot,
        start,
        sectors: sectors.min(SLOT_SECTORS - start),
        seed,
    })
}

fn batch() -> impl Strategy<Value = Vec<Write>> {
    prop::collection::vec(write(), 1..12).prop_map(|mut writes| {
        writes.sort_by_key(|write| write.slot);
        writes.dedup_by_key(|write| write.slot);
        writes
    })
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => batch().prop_map(Step::Batch),
        4 => prop::collection::vec(0..8_usize, 0..12).prop_map(Step::Finish),
        2 => Just(Step::BackDies { power_fails: false }),
        1 => Just(Step::BackDies { power_fails: true }),
        1 => Just(Step::FrontIsReplaced),
        2 => Just(Step::Flush),
        1 => write().prop_map(Step::Barrier),
        1 => (0..SLOTS, 1..SLOT_SECTORS).prop_map(|(slot, sectors)| Step::Discard { slot, sectors }),
        2 => Just(Step::Check),
    ]
}

struct Run {
    pair: DiskPair,
    model: Vec<u8>,
    /// What is durable for sure.
    durable: Vec<u8>,
}

impl Run {
    /// Lets everything finish; every answer must be a success.
    fn finish_all(&mut self) {
        self.pair.settle();
        for _ in 0..10_000 {
            if self.pair.front().outstanding() == 0 {
                break;
            }
            self.pair.disk.run(0);
            self.pair.poll_back();
            self.pair.settle();
        }
        assert_eq!(self.pair.front().outstanding(), 0);
        while let Some((_, result)) = self.pair.take() {
            assert!(result.is_ok());
        }
    }

    fn flush(&mut self) {
        self.pair.submit(Operation::Flush);
        self.finish_all();
        self.durable.clone_from(&self.model);
        assert!(self.pair.disk.medium() == self.durable, "a flush left something behind");
    }

    fn step(&mut self, step: &Step) {
        match step {
            Step::Batch(writes) => {
                self.finish_all();
                for write in writes {
                    self.pair.submit(Operation::Write { sector: write.sector(), data: &write.data() });
                    write.apply(&mut self.model);
                }
                self.pair.settle();
            }
            Step::Finish(order) => {
                for index in order {
                    self.pair.disk.run(*index);
                    self.pair.poll_back();
                    self.pair.settle();
                }
            }
            Step::BackDies { power_fails } => self.back_dies(*power_fails),
            Step::FrontIsReplaced => {
                self.finish_all();
                self.pair.front = None;
                self.pair.guest.crash();
                self.pair.start_front();
                self.pair.settle();
                self.pair.poll_back();
                self.pair.settle();
                assert_eq!(self.pair.front().status(), Status::Ready);
            }
            Step::Flush => self.flush(),
            Step::Barrier(write) => {
                self.finish_all();
                self.pair.submit(Operation::WriteBarrier { sector: write.sector(), data: &write.data() });
                write.apply(&mut self.model);
                self.finish_all();
                self.durable.clone_from(&self.model);
                assert!(self.pair.disk.medium() == self.durable, "a barrier left something behind");
            }
            Step::Discard { slot, sectors } => {
                self.finish_all();
                let sector = slot * SLOT_SECTORS;
                let operation = Operation::Discard { sector: sector as u64, sectors: *sectors as u64, secure: false };
                self.pair.submit(operation);
                self.model[sector * 512..(sector + sectors) * 512].fill(0);
                self.finish_all();
            }
            Step::Check => self.check(),
        }
    }

    fn back_dies(&mut self, power_fails: bool) {
        if power_fails {
            // Only what was flushed is promised, so nothing else may be under way.
            self.flush();
        }
        self.pair.kill_back();
        if power_fails {
            self.pair.disk.inner.borrow_mut().disk.lose_power();
        }
        self.pair.start_back();
        self.pair.settle();
        assert_eq!(self.pair.front().status(), Status::Ready);
        assert_eq!(self.pair.front().pages_held_by_peer(), 0);
    }

    fn check(&mut self) {
        self.finish_all();
        self.pair.submit(Operation::Read { sector: 0, len_bytes: DISK_BYTES });
        self.pair.settle();
        while self.pair.front().outstanding() > 0 {
            self.pair.disk.run(0);
            self.pair.poll_back();
            self.pair.settle();
        }
        let (_, read) = self.pair.take().unwrap();
        assert!(read.unwrap() == self.model);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn nothing_acknowledged_is_lost(
        steps in prop::collection::vec(step(), 1..30),
        persistent: [bool; 2],
        max_segments in prop::sample::select(vec![1_usize, 11, 20, 64, 512]),
        max_indirect_segments in prop::sample::select(vec![0_usize, 16, 256]),
        order in 0..5_u32,
        queues in 1..4_u32,
        room in 1..40_usize,
    ) {
        let disk = SharedDisk::new(vec![0; DISK_BYTES]).manual();
        disk.inner.borrow_mut().room = room;
        let mut pair = DiskPair::cold(disk);
        pair.front_options.persistent = persistent[0];
        pair.back_options.persistent = persistent[1];
        pair.front_options.max_segments = max_segments;
        pair.back_options.max_indirect_segments = max_indirect_segments;
        pair.front_options.max_ring_order = order;
        pair.front_options.max_queues = queues;
        let model = vec![0; DISK_BYTES];
        let mut run = Run { pair: pair.started(), durable: model.clone(), model };
        for step in &steps {
            run.step(step);
        }
        run.check();
        run.flush();
        let mut pair = run.pair;
        pair.front.take().unwrap().release(&mut pair.guest);
        pair.back.take().unwrap().release(&mut pair.service);
        prop_assert_eq!(pair.service.leaks(), pv_bus::loopback::Leaks::default());
    }
}
