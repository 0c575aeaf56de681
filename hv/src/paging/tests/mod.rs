//! What guests may and may not do to page tables.

mod hostile;
mod preemption;
mod refusals;
mod scan;
mod updates;
mod write_fault;

use pv_abi::xen::{DOMID_SELF, MmuUpdate, MmuextOp};
use pv_abi::{DomId, Mfn};
use zerocopy::{FromZeros, Immutable, IntoBytes};

use super::entry::{self, PRESENT, USER, WRITABLE};
use crate::call::Call;
use crate::fake::{Bed, FakeMachine, Guest};
use crate::frames::{self, PageType};
use crate::hardware::Machine;
use crate::refusal::Refusal;
use crate::registers::Registers;

/// A hypercall's handler.
type Handler = fn(&mut Call<'_, FakeMachine>, [u64; 5]) -> Result<u64, Refusal>;

/// Makes a hypercall and gives what its handler gave; one that is interrupted goes on.
fn call(bed: &Bed, guest: &mut Guest, handler: Handler, arguments: [u64; 5]) -> Result<u64, Refusal> {
    guest.handled(bed, handler, arguments)
}

/// Makes a hypercall whose first argument is a list of one request.
fn request<T: IntoBytes + Immutable>(
    bed: &Bed,
    guest: &mut Guest,
    handler: Handler,
    request: &T,
    foreign: u64,
) -> Result<u64, Refusal> {
    let place = guest.address(0);
    guest.write(bed, place, request);
    call(bed, guest, handler, [place, 1, 0, foreign, 0])
}

fn mmu_update(bed: &Bed, guest: &mut Guest, ptr: u64, val: u64) -> Result<u64, Refusal> {
    request(bed, guest, super::mmu_update, &MmuUpdate { ptr, val }, DOMID_SELF.into())
}

fn extended(bed: &Bed, guest: &mut Guest, cmd: u32, arg1: u64, arg2: u64) -> Result<u64, Refusal> {
    let mut operation = MmuextOp::new_zeroed();
    (operation.cmd, operation.arg1, operation.arg2) = (cmd, arg1, arg2);
    request(bed, guest, super::mmuext_op, &operation, DOMID_SELF.into())
}

fn va_mapping(bed: &Bed, guest: &mut Guest, address: u64, value: u64) -> Result<u64, Refusal> {
    call(bed, guest, super::update_va_mapping, [address, value, 0, 0, 0])
}

/// The machine address of an entry.
const fn place(table: Mfn, index: u64) -> u64 {
    table.0 << 12 | index << 3
}

/// An entry as a guest writes it.
const fn to(mfn: Mfn, flags: u64) -> u64 {
    mfn.0 << 12 | PRESENT | flags
}

/// A frame of the guest that is mapped nowhere.
fn spare(bed: &Bed, guest: &Guest) -> Mfn {
    frames::allocate_domain_frame(&bed.hv, &guest.domain).expect("a free frame")
}

fn type_of(bed: &Bed, mfn: Mfn) -> (PageType, u32) {
    let word = bed.hv.frames.record(mfn).type_word();
    (word.kind(), word.count())
}

fn count_of(bed: &Bed, mfn: Mfn) -> u32 {
    bed.hv.frames.record(mfn).count_word().count()
}

/// A tree of four spare frames, not checked yet: L4, L3, L2, L1; `leaf` is its L1 entry 0.
fn tree(bed: &Bed, guest: &Guest, leaf: u64) -> [Mfn; 4] {
    let tables = [(); 4].map(|()| spare(bed, guest));
    for pair in tables.windows(2) {
        bed.hv.machine.write_word(pair[0], 0, to(pair[1], WRITABLE | USER));
    }
    bed.hv.machine.write_word(tables[3], 0, leaf);
    tables
}

/// Destroys a guest's memory and checks that all of it is free again.
fn destroy(bed: &Bed, mut guest: Guest) {
    let machine = &bed.hv.machine;
    while !super::drop_root(&bed.hv, &mut guest.running.state) {}
    while !frames::relinquish(&bed.hv, &guest.domain) {}
    assert_eq!(guest.domain.memory.lock().total, 0);
    for mfn in (0..machine.frame_count()).map(Mfn) {
        let word = bed.hv.frames.record(mfn).count_word();
        let owned = word.count() != 0 && word.owner() == guest.domain.id;
        assert!(!owned || word.has(frames::CountWord::SHARED), "frame {mfn} is still {:?}'s", guest.domain.id);
    }
}

/// Whose frame it is.
fn owner(bed: &Bed, mfn: Mfn) -> Option<DomId> {
    frames::owner(&bed.hv, mfn.into())
}

#[test]
fn a_guest_of_the_test_bed_keeps_all_invariants() {
    let bed = Bed::new(64);
    let guest = bed.guest(1, 4);
    scan::check(&bed, &[&guest]);
    assert_eq!(type_of(&bed, guest.tables[3]), (PageType::L1, 1));
    assert_eq!(entry::index(1, Guest::BASE), 1);
    destroy(&bed, guest);
}
