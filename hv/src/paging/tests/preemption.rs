//! Work that is interrupted goes on where it was, and what is abandoned half-way holds exactly what it should.

use pv_abi::xen::{MMUEXT_NEW_BASEPTR, MMUEXT_PIN_L4_TABLE, MMUEXT_UNPIN_TABLE};

use super::*;
use crate::frames::TypeWord;

/// A tree whose tables each have several entries: L4, two L3, four L2, eight L1 with 240 mappings each.
fn large_tree(bed: &Bed, guest: &Guest) -> Mfn {
    let root = spare(bed, guest);
    let mut above = vec![root];
    for _ in 0..3 {
        let mut below = Vec::new();
        for table in above {
            for index in [1, 300] {
                let child = spare(bed, guest);
                bed.hv.machine.write_word(table, index, to(child, WRITABLE | USER));
                below.push(child);
            }
        }
        above = below;
    }
    for table in above {
        for index in 0..240 {
            bed.hv.machine.write_word(table, index * 2, to(guest.frames[1], USER));
        }
    }
    root
}

fn step(bed: &Bed, guest: &mut Guest, arguments: [u64; 5]) -> Result<Result<u64, Refusal>, [u64; 5]> {
    guest.in_call(bed, |call| match crate::paging::mmuext_op(call, arguments) {
        Err(refusal) if refusal == Refusal::again() => Err(call.next_arguments.unwrap()),
        result => Ok(result),
    })
}

/// Runs one command in the smallest steps; after each, all invariants must hold.
fn run_in_steps(bed: &Bed, guest: &mut Guest, cmd: u32, mfn: Mfn) -> (Result<u64, Refusal>, usize) {
    let mut operation = MmuextOp::new_zeroed();
    (operation.cmd, operation.arg1) = (cmd, mfn.0);
    let list = guest.address(0);
    guest.write(bed, list, &operation);
    let mut arguments = [list, 1, 0, DOMID_SELF.into(), 0];
    bed.hv.machine.interrupt_after(Some(0));
    for steps in 0..100_000 {
        let outcome = step(bed, guest, arguments);
        scan::check(bed, &[&*guest]);
        match outcome {
            Ok(result) => {
                bed.hv.machine.interrupt_after(None);
                return (result, steps);
            }
            Err(next) => arguments = next,
        }
    }
    panic!("it never ends");
}

#[test]
fn a_pin_and_an_unpin_can_stop_anywhere() {
    let bed = Bed::new(96);
    let mut guest = bed.guest(1, 3);
    let root = large_tree(&bed, &guest);
    let (result, steps) = run_in_steps(&bed, &mut guest, MMUEXT_PIN_L4_TABLE, root);
    assert_eq!(result, Ok(0));
    assert!(steps > 50, "only {steps} steps");
    let (result, steps) = run_in_steps(&bed, &mut guest, MMUEXT_UNPIN_TABLE, root);
    assert_eq!(result, Ok(0));
    assert!(steps > 50, "only {steps} steps");
    assert_eq!(type_of(&bed, root).1, 0);
    destroy(&bed, guest);
}

#[test]
fn a_refused_tree_is_taken_apart_in_steps_and_the_refusal_is_not_lost() {
    let bed = Bed::new(96);
    let mut guest = bed.guest(1, 3);
    let root = large_tree(&bed, &guest);
    let last = (0..96).map(Mfn).filter(|mfn| bed.hv.machine.read_word(*mfn, 478) != 0).last().unwrap();
    bed.hv.machine.write_word(last, 510, to(guest.tables[0], WRITABLE));
    let (result, steps) = run_in_steps(&bed, &mut guest, MMUEXT_PIN_L4_TABLE, root);
    let errno = result.map(u64::cast_signed);
    assert_eq!(errno, Ok(-16), "EBUSY, after {steps} steps");
    assert_eq!(type_of(&bed, root).1, 0);
    assert_eq!(guest.running.state.unfinished, None);
}

#[test]
fn a_new_root_can_be_checked_in_steps() {
    let bed = Bed::new(96);
    let mut guest = bed.guest(1, 3);
    let root = large_tree(&bed, &guest);
    bed.hv.machine.write_word(root, 0, to(guest.tables[1], WRITABLE | USER));
    let (result, _) = run_in_steps(&bed, &mut guest, MMUEXT_NEW_BASEPTR, root);
    assert_eq!(result, Ok(0));
    assert_eq!(guest.running.state.kernel_root, Some(root));
}

#[test]
fn an_abandoned_pin_is_cleared_away_with_its_domain() {
    let bed = Bed::new(96);
    let mut guest = bed.guest(1, 3);
    let root = large_tree(&bed, &guest);
    let mut operation = MmuextOp::new_zeroed();
    (operation.cmd, operation.arg1) = (MMUEXT_PIN_L4_TABLE, root.0);
    let list = guest.address(0);
    for stops in 0..60 {
        guest.write(&bed, list, &operation);
        let mut arguments = [list, 1, 0, DOMID_SELF.into(), 0];
        bed.hv.machine.interrupt_after(Some(0));
        for _ in 0..stops {
            if let Err(next) = step(&bed, &mut guest, arguments) {
                arguments = next;
            }
        }
        if bed.hv.frames.record(root).type_word().has(TypeWord::PARTIAL) {
            break;
        }
        scan::check(&bed, &[&guest]);
    }
    assert!(bed.hv.frames.record(root).type_word().has(TypeWord::PARTIAL));
    bed.hv.machine.interrupt_after(Some(0));
    destroy(&bed, guest);
    assert_eq!(count_of(&bed, root), 0);
}

#[test]
fn a_list_stops_between_requests_and_counts_all() {
    let bed = Bed::new(64);
    let mut guest = bed.guest(1, 3);
    let list = guest.address(0);
    let done = list + 2048;
    let requests: Vec<MmuUpdate> = (0..20).map(|n| MmuUpdate { ptr: place(guest.frames[1], n), val: n + 1 }).collect();
    guest.write(&bed, list, requests.as_slice());
    bed.hv.machine.interrupt_after(Some(0));
    assert_eq!(call(&bed, &mut guest, crate::paging::mmu_update, [list, 20, done, DOMID_SELF.into(), 0]), Ok(0));
    assert_eq!(guest.read::<u32>(&bed, done), 20);
    assert_eq!(bed.hv.machine.read_word(guest.frames[1], 19), 20);
}
