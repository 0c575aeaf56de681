//! Random operations of two hostile guests: after each, the counts of all frames are what a scan of all tables finds,
//! and no table maps what it must not.

use core::sync::atomic::Ordering;

use proptest::prelude::*;
use pv_abi::memory::{MemoryReservation, XENMEM_DECREASE_RESERVATION, XENMEM_POPULATE_PHYSMAP};
use pv_abi::xen::{
    HYPERVISOR_MEMORY_OP, MMUEXT_CLEAR_PAGE, MMUEXT_COPY_PAGE, MMUEXT_NEW_BASEPTR, MMUEXT_NEW_USER_BASEPTR,
    MMUEXT_PIN_L1_TABLE, MMUEXT_UNPIN_TABLE, VMASST_TYPE_WRITABLE_PAGETABLES,
};

use super::*;
use crate::paging::{GrantPlace, create_grant_mapping, destroy_grant_mapping};

/// Frames of each guest that operations are about, besides its own tables.
const POOL: usize = 10;

#[derive(Clone, Debug)]
enum Operation {
    /// An entry of a frame, by the checked way.
    Update {
        table: usize,
        index: u64,
        value: Value,
        keep_marks: bool,
    },
    /// A word of a frame, written through a writable mapping, where there is one.
    Write {
        frame: usize,
        index: u64,
        value: Value,
    },
    /// An L1 entry of the tables in use, by address.
    Mapping {
        slot: u64,
        value: Value,
    },
    Pin {
        level: u32,
        frame: usize,
    },
    Unpin {
        frame: usize,
    },
    Root {
        frame: usize,
    },
    UserRoot {
        frame: Option<usize>,
    },
    Clear {
        frame: usize,
    },
    Copy {
        to: usize,
        from: usize,
    },
    Give {
        frame: usize,
    },
    Take,
    /// From now on, interrupts wait after so many questions.
    Interrupts(Option<u32>),
    /// Writes to the guest's L1 table through a read-only mapping, by this code.
    Emulated {
        code: Vec<u8>,
        index: u64,
        value: Value,
    },
    /// Maps a frame of the other guest by a grant, at an address or by an entry.
    Grant {
        frame: usize,
        slot: u64,
        by_entry: bool,
        readonly: bool,
    },
    /// Unmaps it, or tries to.
    Ungrant {
        frame: usize,
        slot: u64,
        by_entry: bool,
        readonly: bool,
        replace: Option<u64>,
    },
    /// Maps a frame of the other guest by naming it: for the privileged.
    Foreign {
        frame: usize,
        slot: u64,
        flags: u64,
    },
}

#[derive(Clone, Debug)]
enum Value {
    Nothing,
    /// To a frame of the pool.
    Own {
        frame: usize,
        flags: u64,
    },
    /// To a table of the guest's initial tree.
    Table {
        level: usize,
        flags: u64,
    },
    /// To a frame of the other guest.
    Foreign {
        frame: usize,
        flags: u64,
    },
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
        3 => (code(), 2..12_u64, value()).prop_map(|(code, index, value)| Operation::Emulated { code, index, value }),
        3 => (0..POOL, 2..12_u64, any::<bool>(), any::<bool>())
            .prop_map(|(frame, slot, by_entry, readonly)| Operation::Grant { frame, slot, by_entry, readonly }),
        3 => (0..POOL, 2..12_u64, any::<bool>(), any::<bool>(), proptest::option::of(2..12_u64)).prop_map(
            |(frame, slot, by_entry, readonly, replace)| Operation::Ungrant { frame, slot, by_entry, readonly, replace }
        ),
        2 => (0..POOL, 2..12_u64, flags()).prop_map(|(frame, slot, flags)| Operation::Foreign { frame, slot, flags }),
    ]
}

/// Instructions that write to the address in rdi, mostly.
fn code() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        Just(vec![0x48, 0x89, 0x37]),
        Just(vec![0x48, 0x87, 0x37]),
        Just(vec![0x89, 0x37]),
        Just(vec![0xf0, 0x48, 0x0f, 0xb1, 0x37]),
        Just(vec![0xf0, 0x80, 0x27, 0xfd]),
        Just(vec![0xf0, 0x48, 0x0f, 0xba, 0x2f, 1]),
        Just(vec![0xf0, 0x48, 0x0f, 0xba, 0x37, 0]),
        Just(vec![0x48, 0xab]),
        prop::collection::vec(any::<u8>(), 1..8),
    ]
}

struct Hostile {
    guest: Guest,
    pool: Vec<Mfn>,
    /// The root through which arguments are passed; it stays whatever the guest does.
    safe: Mfn,
    /// Frames of the other guest that were ever mapped by a grant.
    granted: Vec<Mfn>,
}

impl Hostile {
    fn new(bed: &Bed, id: u16) -> Self {
        let guest = bed.guest(id, 1);
        let pool = (0..POOL).map(|_| spare(bed, &guest)).collect();
        let safe = guest.tables[0];
        guest.domain.assists.store(1 << VMASST_TYPE_WRITABLE_PAGETABLES, Ordering::Relaxed);
        Self { guest, pool, safe, granted: Vec::new() }
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

    fn grant_place(&self, slot: u64, by_entry: bool) -> GrantPlace {
        if by_entry {
            GrantPlace::Pte(pv_abi::MachineAddr(place(self.guest.tables[3], slot)))
        } else {
            GrantPlace::Va(slot << 12)
        }
    }

    /// Executes `code` with rdi at entry `index` of a read-only mapping of the safe tree's L1 table.
    fn emulated(&mut self, bed: &Bed, code: &[u8], index: u64, value: u64) {
        const WINDOW: u64 = 500;
        let l1 = self.guest.tables[3];
        self.call(
            bed,
            crate::paging::mmu_update,
            MmuUpdate { ptr: place(l1, WINDOW), val: to(l1, USER) }.as_bytes(),
            [self.guest.address(0), 1, 0, DOMID_SELF.into(), 0],
        );
        bed.hv.machine.load_root(self.safe);
        let rip = self.guest.address(0);
        bed.hv.machine.copy_to_guest(rip, code).expect("the page of arguments");
        let address = (WINDOW << 12) + index * 8;
        let mut registers = Registers { rdi: address, rsi: value, rax: value, rcx: 1, rip, ..Registers::default() };
        let exception = crate::entry::Exception { vector: 14, error_code: 7, address };
        crate::paging::on_write_fault(&bed.hv, &mut self.guest.running, &mut registers, exception);
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
            Operation::Emulated { code, index, value } => {
                let value = self.value(value, other);
                self.emulated(bed, code, *index, value);
            }
            Operation::Grant { frame, slot, by_entry, readonly } => {
                let frame = other[*frame];
                if owner(bed, frame).is_some_and(|owner| owner != self.guest.domain.id) {
                    frames::get_again(&bed.hv, frame);
                    let place = self.grant_place(*slot, *by_entry);
                    let _ = create_grant_mapping(&bed.hv, &self.guest.running, place, frame, *readonly, 0);
                    frames::put(&bed.hv, frame);
                    self.granted.push(frame);
                }
            }
            Operation::Ungrant { frame, slot, by_entry, readonly, replace } => {
                let place = self.grant_place(*slot, *by_entry);
                let replace = replace.map(|slot| slot << 12);
                let _ = destroy_grant_mapping(&bed.hv, &self.guest.running, place, other[*frame], *readonly, replace);
            }
            Operation::Foreign { frame, slot, flags } => {
                let ptr = place(self.guest.tables[3], *slot);
                let update = MmuUpdate { ptr, val: to(other[*frame], *flags) };
                let named = 3 - u64::from(self.guest.domain.id.0);
                self.call(bed, crate::paging::mmu_update, update.as_bytes(), [list, 1, 0, named, 0]);
            }
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
            let granted: Vec<Mfn> = guests.iter().flat_map(|guest| guest.granted.iter().copied()).collect();
            scan::check_with_grants(&bed, &[&guests[0].guest, &guests[1].guest], &granted);
        }
        let [first, second] = guests;
        destroy(&bed, first.guest);
        let granted: Vec<Mfn> = second.granted.clone();
        scan::check_with_grants(&bed, &[&second.guest], &granted);
        destroy(&bed, second.guest);
        let free = bed.hv.allocator.lock().free_count();
        // Frame 0 and the two shared pages are all that is left.
        prop_assert_eq!(free, 64 - 3);
    }
}
