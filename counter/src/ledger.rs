//! What is counted.
//!
//! Invariants:
//! - every instruction is counted for exactly one [`Place`];
//! - the hypervisor's instructions of a window are divided among the entries: the parts add up to the whole.
//!
//! A guest with hardware assistance always stops at one place of the hypervisor. What stopped it is its last instruction,
//! where that is of a kind at which hypervisors stop guests; else an interrupt, if the hypervisor returned from one before
//! it let the guest go on; else an access to memory, or the end of a time in which the guest took no interrupts.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::instruction::{Kind, Mark};
use crate::place::Place;

const PLACES: usize = Place::ALL.len();
const KINDS: usize = Kind::ALL.len();
/// Hypercall numbers are below this.
const HYPERCALLS: u64 = 64;

/// The counters that QEMU adds to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Counters {
    pub(crate) instructions: [u64; PLACES],
    pub(crate) kinds: [[u64; KINDS]; PLACES],
}

impl Counters {
    pub(crate) const ZERO: Self = Self { instructions: [0; PLACES], kinds: [[0; KINDS]; PLACES] };

    fn since(&self, start: &Self) -> Self {
        Self {
            instructions: std::array::from_fn(|place| self.instructions[place] - start.instructions[place]),
            kinds: std::array::from_fn(|place| {
                std::array::from_fn(|kind| self.kinds[place][kind] - start.kinds[place][kind])
            }),
        }
    }
}

/// A run of instructions that QEMU translated together.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Block {
    pub(crate) place: Place,
    pub(crate) address: u64,
    /// Its last instruction calls what is below: `syscall`, `vmmcall`.
    pub(crate) calls: bool,
}

/// A way into the hypervisor or the kernel.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct Way {
    to_hypervisor: bool,
    from: usize,
    address: u64,
    hypercall: Option<u64>,
    cause: Option<&'static str>,
}

/// How often, and what it took.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
struct Taken {
    count: u64,
    instructions: u64,
}

/// One way in, as it is written down.
#[derive(Serialize, PartialEq, Eq, Debug)]
pub(crate) struct Entry {
    /// `hypervisor` or `kernel`.
    to: &'static str,
    /// Whose code was left.
    from: &'static str,
    /// The first instruction there.
    address: u64,
    /// The hypercall's number, where the guest's kernel made one.
    hypercall: Option<u64>,
    /// What stopped a guest with hardware assistance.
    cause: Option<&'static str>,
    count: u64,
    /// What was executed there until it was left again.
    instructions: u64,
}

/// A window, as it is written down.
#[derive(Serialize, PartialEq, Eq, Debug)]
pub(crate) struct Record {
    window: u8,
    instructions: BTreeMap<&'static str, u64>,
    kinds: BTreeMap<&'static str, BTreeMap<&'static str, u64>>,
    entries: Vec<Entry>,
}

/// Instructions of the guest.
fn guests(counters: &Counters) -> u64 {
    counters.instructions[Place::User as usize] + counters.instructions[Place::Kernel as usize]
}

/// Whoever was left runs with hardware assistance: the hypervisor has let such a guest run, and dom0 is none.
fn is_assisted(left: Place, counters: &Counters) -> bool {
    matches!(left, Place::User | Place::Kernel) && counters.kinds[Place::Hypervisor as usize][Kind::Vmrun as usize] > 0
}

/// In its stay the hypervisor returned from an interrupt of its own; the return to dom0 is none.
fn took_interrupt(to: Place, stay: &Counters) -> bool {
    let [irets, sysrets] = [Kind::Iret, Kind::Sysret].map(|kind| stay.kinds[Place::Hypervisor as usize][kind as usize]);
    let left_by_iret = u64::from(!matches!(to, Place::User | Place::Kernel) && sysrets == 0);
    irets > left_by_iret
}

/// What goes on.
pub(crate) struct Ledger {
    last: Block,
    /// How the hypervisor was entered, and the counters then.
    inside: Option<(Way, Counters)>,
    /// The guest's last instruction at which a hypervisor may stop it, and how many the guest had executed before.
    stop: Option<(Kind, u64)>,
    /// The hypercall that the guest's kernel has counted and not made yet.
    pending: Option<u64>,
    /// The one it made last.
    made: Option<u64>,
    ways: BTreeMap<Way, Taken>,
    window: Option<(u8, Counters)>,
}

impl Ledger {
    pub(crate) fn new() -> Self {
        Self {
            last: Block { place: Place::Other, address: 0, calls: false },
            inside: None,
            stop: None,
            pending: None,
            made: None,
            ways: BTreeMap::new(),
            window: None,
        }
    }

    /// The guest's kernel counts a hypercall, which it is about to make.
    pub(crate) fn on_hypercall_counted(&mut self, number: u64) {
        self.pending = (number < HYPERCALLS).then_some(number);
    }

    /// A block starts.
    pub(crate) fn on_block(&mut self, block: &Block, counters: &Counters) {
        let left = std::mem::replace(&mut self.last, *block);
        if left.place == block.place {
            return;
        }
        if block.place == Place::Hypervisor {
            let calls = left.place == Place::Kernel && left.calls;
            let hypercall = if calls { self.take_hypercall() } else { None };
            let cause = self.stopped_at(left.place, counters);
            let way = Way { to_hypervisor: true, from: left.place as usize, address: block.address, hypercall, cause };
            self.inside = Some((way, *counters));
        } else if left.place == Place::Hypervisor {
            self.leave(block.place, counters);
        } else if block.place == Place::Kernel && left.place == Place::User {
            let from = left.place as usize;
            let way = Way { to_hypervisor: false, from, address: block.address, hypercall: None, cause: None };
            self.ways.entry(way).or_default().count += 1;
        }
    }

    /// The number of the hypercall that is made. One that was interrupted is made again without being counted.
    fn take_hypercall(&mut self) -> Option<u64> {
        self.made = self.pending.take().or(self.made);
        self.made
    }

    /// An instruction of the guest's at which a hypervisor may stop it is about to be executed.
    pub(crate) fn on_possible_stop(&mut self, kind: Kind, counters: &Counters) {
        self.stop = Some((kind, guests(counters)));
    }

    /// The instruction that stopped the guest, if it has hardware assistance and one did.
    fn stopped_at(&self, left: Place, counters: &Counters) -> Option<&'static str> {
        let (kind, before) = self.stop?;
        (is_assisted(left, counters) && guests(counters) == before + 1).then(|| kind.name())
    }

    fn leave(&mut self, to: Place, counters: &Counters) {
        if let Some((mut way, at)) = self.inside.take() {
            let stay = counters.since(&at);
            let left = Place::ALL[way.from].0;
            if is_assisted(left, &at) && way.hypercall.is_none() && way.cause.is_none() {
                way.cause = Some(if took_interrupt(to, &stay) { "interrupt" } else { "memory_or_interrupt_window" });
            }
            let taken = self.ways.entry(way).or_default();
            taken.count += 1;
            taken.instructions += stay.instructions[Place::Hypervisor as usize];
        }
    }

    /// The guest marks a border. A record is what a window's end gives.
    pub(crate) fn on_mark(&mut self, mark: Mark, counters: &Counters) -> Option<Record> {
        match mark {
            Mark::Begin(window) => {
                self.ways.clear();
                self.window = Some((window, *counters));
                None
            }
            Mark::End(window) => {
                let (begun, start) = self.window.take()?;
                (begun == window).then(|| self.record(window, &counters.since(&start)))
            }
        }
    }

    fn record(&self, window: u8, counters: &Counters) -> Record {
        let kinds = |place: Place| {
            let counts = &counters.kinds[place as usize];
            Kind::ALL
                .iter()
                .map(|(kind, name)| (*name, counts[*kind as usize]))
                .filter(|(_, count)| *count > 0)
                .collect()
        };
        let entry = |(way, taken): (&Way, &Taken)| Entry {
            to: if way.to_hypervisor { "hypervisor" } else { "kernel" },
            from: Place::ALL[way.from].1,
            address: way.address,
            hypercall: way.hypercall,
            cause: way.cause,
            count: taken.count,
            instructions: taken.instructions,
        };
        Record {
            window,
            instructions: Place::ALL
                .iter()
                .map(|(place, name)| (*name, counters.instructions[*place as usize]))
                .collect(),
            kinds: Place::ALL.iter().map(|(place, name)| (*name, kinds(*place))).collect(),
            entries: self.ways.iter().map(entry).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A machine of which only the counters are there.
    struct Machine {
        ledger: Ledger,
        counters: Counters,
    }

    impl Machine {
        fn run(&mut self, place: Place, address: u64, instructions: u64, calls: bool) {
            self.ledger.on_block(&Block { place, address, calls }, &self.counters);
            self.counters.instructions[place as usize] += instructions;
        }

        fn mark(&mut self, mark: Mark) -> Option<Record> {
            self.ledger.on_mark(mark, &self.counters)
        }
    }

    fn machine() -> Machine {
        Machine { ledger: Ledger::new(), counters: Counters::ZERO }
    }

    #[test]
    fn a_hypercall_is_told_by_the_number_that_was_counted_before() {
        let mut machine = machine();
        machine.run(Place::Kernel, 1, 5, false);
        machine.mark(Mark::Begin(3));
        machine.ledger.on_hypercall_counted(17);
        machine.run(Place::Kernel, 2, 5, true);
        machine.run(Place::Hypervisor, 0x100, 40, false);
        machine.run(Place::Hypervisor, 0x200, 2, false);
        machine.run(Place::Kernel, 3, 1, false);
        let record = machine.mark(Mark::End(3)).expect("a record");
        assert_eq!(record.instructions["kernel"], 6);
        assert_eq!(record.instructions["hypervisor"], 42);
        let [entry] = &record.entries[..] else { panic!("{:?}", record.entries) };
        assert_eq!((entry.hypercall, entry.address, entry.count, entry.instructions), (Some(17), 0x100, 1, 42));
    }

    #[test]
    fn an_interrupt_before_the_call_is_no_hypercall() {
        let mut machine = machine();
        machine.run(Place::Kernel, 1, 5, false);
        machine.mark(Mark::Begin(0));
        machine.ledger.on_hypercall_counted(17);
        machine.run(Place::Kernel, 2, 1, false);
        machine.run(Place::Hypervisor, 0x300, 9, false);
        machine.run(Place::Kernel, 3, 1, true);
        machine.run(Place::Hypervisor, 0x100, 4, false);
        machine.run(Place::Kernel, 4, 1, false);
        let record = machine.mark(Mark::End(0)).expect("a record");
        let ways: Vec<_> = record.entries.iter().map(|entry| (entry.address, entry.hypercall)).collect();
        assert_eq!(ways, [(0x100, Some(17)), (0x300, None)]);
    }

    #[test]
    fn a_hypercall_that_is_continued_keeps_its_number() {
        let mut machine = machine();
        machine.run(Place::Kernel, 1, 5, false);
        machine.mark(Mark::Begin(0));
        machine.ledger.on_hypercall_counted(26);
        for _ in 0..3 {
            machine.run(Place::Kernel, 2, 1, true);
            machine.run(Place::Hypervisor, 0x100, 9, false);
        }
        machine.run(Place::Kernel, 3, 1, false);
        let record = machine.mark(Mark::End(0)).expect("a record");
        let ways: Vec<_> = record.entries.iter().map(|entry| (entry.hypercall, entry.count)).collect();
        assert_eq!(ways, [(Some(26), 3)]);
    }

    #[test]
    fn the_entries_add_up_to_the_hypervisors_instructions() {
        let mut machine = machine();
        machine.run(Place::User, 1, 1, false);
        machine.mark(Mark::Begin(9));
        for round in 0..10_u64 {
            machine.run(Place::Hypervisor, 0x100 + round % 3, round, false);
            machine.run(if round % 2 == 0 { Place::Kernel } else { Place::Service }, 5, 1, false);
        }
        let record = machine.mark(Mark::End(9)).expect("a record");
        let sum: u64 = record.entries.iter().map(|entry| entry.instructions).sum();
        assert_eq!(sum, record.instructions["hypervisor"]);
    }

    impl Machine {
        fn count(&mut self, place: Place, kind: Kind) {
            self.counters.kinds[place as usize][kind as usize] += 1;
        }

        /// The guest goes on, executes an instruction of this kind as its last, and the hypervisor stops it.
        fn stop_at(&mut self, kind: Option<Kind>) {
            self.count(Place::Hypervisor, Kind::Vmrun);
            self.run(Place::Kernel, 2, 3, false);
            if let Some(kind) = kind {
                self.ledger.on_possible_stop(kind, &self.counters);
            }
            self.counters.instructions[Place::Kernel as usize] += 1;
            self.run(Place::Hypervisor, 0x500, 20, false);
        }
    }

    #[test]
    fn what_stopped_a_guest_with_hardware_assistance_is_told_apart() {
        let mut machine = machine();
        machine.run(Place::Hypervisor, 0x500, 1, false);
        machine.count(Place::Hypervisor, Kind::Vmrun);
        machine.mark(Mark::Begin(2));
        machine.stop_at(Some(Kind::Cpuid));
        machine.stop_at(None);
        machine.count(Place::Hypervisor, Kind::Iret);
        machine.stop_at(None);
        // An instruction that stopped nobody is no cause of a later stop.
        machine.run(Place::Kernel, 2, 3, false);
        machine.ledger.on_possible_stop(Kind::Wrmsr, &machine.counters);
        machine.run(Place::Kernel, 3, 3, false);
        machine.run(Place::Hypervisor, 0x500, 20, false);
        machine.run(Place::Kernel, 3, 1, false);
        let record = machine.mark(Mark::End(2)).expect("a record");
        let causes: Vec<_> = record.entries.iter().map(|entry| (entry.cause, entry.count)).collect();
        let expected = [(Some("cpuid"), 1), (Some("interrupt"), 1), (Some("memory_or_interrupt_window"), 2)];
        assert_eq!(causes[..3], expected);
    }

    #[test]
    fn a_natively_made_system_call_is_an_entry_to_the_kernel() {
        let mut machine = machine();
        machine.run(Place::User, 1, 1, true);
        machine.mark(Mark::Begin(1));
        machine.run(Place::Kernel, 0x10, 50, false);
        machine.run(Place::User, 2, 1, false);
        let record = machine.mark(Mark::End(1)).expect("a record");
        assert_eq!((record.entries[0].to, record.entries[0].from, record.entries[0].count), ("kernel", "user", 1));
    }

    #[test]
    fn an_end_without_its_beginning_gives_nothing() {
        let mut machine = machine();
        assert!(machine.mark(Mark::End(1)).is_none());
        machine.mark(Mark::Begin(1));
        assert!(machine.mark(Mark::End(2)).is_none());
    }
}
