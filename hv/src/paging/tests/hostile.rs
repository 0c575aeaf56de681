//! Random operations of two hostile guests: after each, the counts of all frames are what a scan of all tables finds,
//! and no table maps what it must not.

use proptest::prelude::*;
use pv_abi::memory::{MemoryReservation, XENMEM_DECREASE_RESERVATION, XENMEM_POPULATE_PHYSMAP};
use pv_abi::xen::{
    HYPERVISOR_MEMORY_OP, MMUEXT_CLEAR_PAGE, MMUEXT_COPY_PAGE, MMUEXT_NEW_BASEPTR, MMUEXT_NEW_USER_BASEPTR,
    MMUEXT_PIN_L1_TABLE, MMUEXT_UNPIN_TABLE,
};

use super::*;

/// Frames of each guest that operations are about, besides its own tables.
const POOL: usize = 10;

#[derive(Clone, Debug)]
enum Operation {
    /// An entry of a frame, by the checked way.
    Update { table: usize, index: u64, value: Value, keep_marks: bool },
    /// A word of a frame, written through a writable mapping, where there is one.
    Write { frame: usize, index: u64, value: Value },
    /// An L1 entry of the tables in use, by address.
    Mapping { slot: u64, value: Value },
    Pin { level: u32, frame: usize },
    Unpin { frame: usize },
    Root { frame: usize },
    UserRoot { frame: Option<usize> },
    Clear { frame: usize },
    Copy { to: usize, from: usize },
    Give { frame: usize },
    Take,
    /// From now on, interrupts wait after so many questions.
    Interrupts(Option<u32>),
}

#[derive(Clone, Debug)]
enum Value {
    Nothing,
    /// To a frame of the pool.
    Own { frame: usize, flags: u64 },
    /// To a table of the guest's initial tree.
    Table { level: usize, flags: u64 },
    /// To a frame of the other guest.
    Foreign { frame: usize, flags: u64 },
    Any(u64),
}

fn flags() -> impl Strategy<Value = u64> {
    prop_oneof![
        4 => Just(USER | WRITABLE),
        4 => Just(USER),
        2 => Just(WRITABLE),
        1 => Just(0),
        1 => Just(USER | entry::LARGE),
        1 => Just(USER | entry::GUEST_KERNEL),
        1 => Just(USER | entry::PCD),
    ]
}

fn value() -> impl Strategy<Value = Value> {
    prop_oneof![
        2 => Just(Value::Nothing),
        8 => (0..POOL, flags()).prop_map(|(frame, flags)| Value::Own { frame, flags }),
        2 => (0..4_usize, flags()).prop_map(|(level, flags)| Value::Table { level, flags }),
        1 => (0..POOL, flags()).prop_map(|(frame, flags)| Value::Foreign { frame, flags }),
        1 => any::<u64>().prop_map(Value::Any),
    ]
}

fn index() -> impl Strategy<Value = u64> {
    prop_oneof![6 => 2..6_u64, 1 => Just(256), 1 => Just(271), 1 => Just(511)]
}

fn operation() -> impl Strategy<Value = Operation> {
    prop_oneof![
        6 => (0..POOL + 4, index(), value(), any::<bool>())
            .prop_map(|(table, index, value, keep_marks)| Operation::Update { table, index, value, keep_marks }),
        6 => (0..POOL, index(), value()).prop_map(|(frame, index, value)| Operation::Write { frame, index, value }),
        4 => (2..12_u64, value()).prop_map(|(slot, value)| Operation::Mapping { slot, value }),
        6 => (0..4_u32, 0..POOL).prop_map(|(level, frame)| Operation::Pin { level, frame }),
        3 => (0..POOL).prop_map(|frame| Operation::Unpin { frame }),
        2 => (0..POOL).prop_map(|frame| Operation::Root { frame }),
        2 => proptest::option::of(0..POOL).prop_map(|frame| Operation::UserRoot { frame }),
        1 => (0..POOL).prop_map(|frame| Operation::Clear { frame }),
        1 => (0..POOL, 0..POOL).prop_map(|(to, from)| Operation::Copy { to, from }),
        1 => (0..POOL).prop_map(|frame| Operation::Give { frame }),
        1 => Just(Operation::Take),
        1 => proptest::option::of(0..40_u32).prop_map(Operation::Interrupts),
    ]
}

struct Hostile {
    guest: Guest,
    pool: Vec<Mfn>,
    /// The root through which arguments are passed; it stays whatever the guest does.
    safe: Mfn,
}

impl Hostile {
    fn new(bed: &Bed, id: u16) -> Self {
        let guest = bed.guest(id, 1);
        let pool = (0..POOL).map(|_| spare(bed, &guest)).collect();
        let safe = guest.tables[0];
        Self { guest, pool, safe }
    }

    fn value(&self, value: &Value, other: &[Mfn]) -> u64 {
        match *value {
            Value::Nothing => 0,
            Value::Own { frame, flags } => to(self.pool[frame], flags),
            Value::Table { level, flags } => to(self.guest.tables[level], flags),
            Value::Foreign { frame, flags } => to(other[frame], flags),
            Value::Any(any) => any,
        }
    }

    /// Makes a hypercall with its arguments passed through the safe root; an interrupted one goes on at once.
    fn call(&mut self, bed: &Bed, handler: Handler, list: &[u8], mut arguments: [u64; 5]) {
        bed.hv.machine.load_root(self.safe);
        bed.hv.machine.copy_to_guest(self.guest.address(0), list).expect("the page of arguments");
        loop {
            bed.hv.machine.load_root(self.safe);
            let mut registers = Registers::default();
            let running = &mut self.guest.running;
            let mut call =
                Call { hv: &bed.hv, running, registers: &mut registers, next_arguments: None, in_multicall: false };
            match handler(&mut call, arguments) {
                Err(refusal) if refusal == Refusal::again() => arguments = call.next_arguments.expect("arguments"),
                _ => return,
            }
        }
    }

    fn extended(&mut self, bed: &Bed, cmd: u32, arg1: u64, arg2: u64) {
        let mut operation = MmuextOp::new_zeroed();
        (operation.cmd, operation.arg1, operation.arg2) = (cmd, arg1, arg2);
        let list = self.guest.address(0);
        self.call(bed, crate::paging::mmuext_op, operation.as_bytes(), [list, 1, 0, DOMID_SELF.into(), 0]);
    }

    fn memory(&mut self, bed: &Bed, command: u32, frame: u64) {
        let list = self.guest.address(0);
        let mut asked = MemoryReservation::new_zeroed();
        (asked.extent_start, asked.nr_extents, asked.domid) = (list + 64, 1, DOMID_SELF);
        let mut bytes = [0; 72];
        bytes[..size_of::<MemoryReservation>()].copy_from_slice(asked.as_bytes());
        bytes[64..].copy_from_slice(&frame.to_le_bytes());
        self.call(bed, crate::memory::memory_op, &bytes, [command.into(), list, 0, 0, 0]);
    }

    fn run(&mut self, bed: &Bed, operation: &Operation, other: &[Mfn]) {
        let list = self.guest.address(0);
        match operation {
            Operation::Update { table, index, value, keep_marks } => {
                let table = self.pool.get(*table).copied().unwrap_or_else(|| self.guest.tables[table % 4]);
                let ptr = place(table, *index) | if *keep_marks { 2 } else { 0 };
                // The mapping of the arguments stays; slot 0 and 1 are never named.
                let update = MmuUpdate { ptr, val: self.value(value, other) };
                self.call(bed, crate::paging::mmu_update, update.as_bytes(), [list, 1, 0, DOMID_SELF.into(), 0]);
            }
            Operation::Write { frame, index, value } => {
                let mfn = self.pool[*frame];
                let (kind, users) = type_of(bed, mfn);
                let mine = owner(bed, mfn) == Some(self.guest.domain.id);
                if mine && (users == 0 || kind == PageType::Writable) {
                    bed.hv.machine.write_word(mfn, *index as usize, self.value(value, other));
                }
            }
            Operation::Mapping { slot, value } => {
                let value = self.value(value, other);
                self.call(bed, crate::paging::update_va_mapping, &[], [slot << 12, value, 0, 0, 0]);
            }
            Operation::Pin { level, frame } => self.extended(bed, MMUEXT_PIN_L1_TABLE + level, self.pool[*frame].0, 0),
            Operation::Unpin { frame } => self.extended(bed, MMUEXT_UNPIN_TABLE, self.pool[*frame].0, 0),
            Operation::Root { frame } => self.extended(bed, MMUEXT_NEW_BASEPTR, self.pool[*frame].0, 0),
            Operation::UserRoot { frame } => {
                let root = frame.map_or(0, |frame| self.pool[frame].0);
                self.extended(bed, MMUEXT_NEW_USER_BASEPTR, root, 0);
            }
            Operation::Clear { frame } => self.extended(bed, MMUEXT_CLEAR_PAGE, self.pool[*frame].0, 0),
            Operation::Copy { to, from } => {
                self.extended(bed, MMUEXT_COPY_PAGE, self.pool[*to].0, self.pool[*from].0);
            }
            Operation::Give { frame } => self.memory(bed, XENMEM_DECREASE_RESERVATION, self.pool[*frame].0),
            Operation::Take => {
                self.memory(bed, XENMEM_POPULATE_PHYSMAP, 5);
                let mut bytes = [0; 8];
                bed.hv.machine.load_root(self.safe);
                bed.hv.machine.copy_from_guest(list + 64, &mut bytes).expect("the page of arguments");
                let taken = Mfn(u64::from_le_bytes(bytes));
                if owner(bed, taken) == Some(self.guest.domain.id) {
                    self.pool.rotate_left(1);
                    *self.pool.last_mut().expect("a pool") = taken;
                }
            }
            Operation::Interrupts(after) => bed.hv.machine.interrupt_after(*after),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn two_hostile_guests_break_no_invariant(steps in prop::collection::vec((any::<bool>(), operation()), 1..120)) {
        assert_eq!(HYPERVISOR_MEMORY_OP, 12);
        let bed = Bed::new(64);
        let mut guests = [Hostile::new(&bed, 1), Hostile::new(&bed, 2)];
        for (second, step) in &steps {
            let [first, other] = &mut guests;
            let (guest, other) = if *second { (other, first) } else { (first, other) };
            guest.run(&bed, step, &other.pool);
            scan::check(&bed, &[&guests[0].guest, &guests[1].guest]);
        }
        let [first, second] = guests;
        destroy(&bed, first.guest);
        destroy(&bed, second.guest);
        let free = bed.hv.allocator.lock().free_count();
        // Frame 0 and the two shared pages are all that is left.
        prop_assert_eq!(free, 64 - 3);
    }
}
