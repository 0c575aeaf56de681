//! What holds for every hypercall, and for several in one.

use pv_abi::errno::Errno;
use pv_abi::xen::{
    HYPERVISOR_EVENT_CHANNEL_OP, HYPERVISOR_MULTICALL, HYPERVISOR_SCHED_OP, HYPERVISOR_SYSCTL, HYPERVISOR_XEN_VERSION,
    MulticallEntry,
};

use crate::fake::{Bed, Guest, broken_rules};

const NULL: MulticallEntry = entry(HYPERVISOR_XEN_VERSION, [0; 6]);
/// The version that `xen_version(0)` answers.
const VERSION: u64 = 0x4_0011;

const fn entry(op: u64, args: [u64; 6]) -> MulticallEntry {
    MulticallEntry { op, result: 0xdead, args }
}

fn bed() -> (Bed, Guest) {
    let bed = Bed::new(256);
    let guest = bed.guest(1, 8);
    guest.enter(&bed);
    broken_rules();
    (bed, guest)
}

/// Makes a multicall of these entries; gives its result and the entries' results.
fn multicall<const N: usize>(bed: &Bed, guest: &mut Guest, entries: [MulticallEntry; N]) -> (i64, [u64; N]) {
    let place = guest.address(0);
    for (index, entry) in entries.iter().enumerate() {
        guest.write(bed, place + index as u64 * 64, entry);
    }
    let result = guest.call(bed, HYPERVISOR_MULTICALL, [place, N as u64, 0, 0, 0]);
    let results = core::array::from_fn(|index| guest.read::<MulticallEntry>(bed, place + index as u64 * 64).result);
    (result, results)
}

fn fired(rule: &str) -> bool {
    broken_rules().iter().any(|id| id == rule)
}

#[test]
fn an_unknown_number_is_refused_by_rule_hyp_02() {
    let (bed, mut guest) = bed();
    for number in [11, 63, u64::MAX] {
        assert_eq!(guest.call(&bed, number, [0; 5]), Errno::NoSys.as_return());
        assert!(fired("HYP-02"));
    }
}

#[test]
fn an_unknown_operation_is_refused_by_rule_hyp_03() {
    let (bed, mut guest) = bed();
    assert_eq!(guest.call(&bed, HYPERVISOR_SCHED_OP, [99, 0, 0, 0, 0]), Errno::NoSys.as_return());
    assert!(fired("HYP-03"));
}

#[test]
fn memory_that_is_not_the_guests_is_refused_by_rule_hyp_04() {
    let (bed, mut guest) = bed();
    for address in [0, 0xffff_8300_0000_0000, u64::MAX - 3, 1 << 63] {
        assert_eq!(guest.call(&bed, HYPERVISOR_XEN_VERSION, [1, address, 0, 0, 0]), Errno::Fault.as_return());
        assert!(fired("HYP-04"));
        assert_eq!(guest.call(&bed, HYPERVISOR_MULTICALL, [address, 1, 0, 0, 0]), Errno::Fault.as_return());
        assert!(fired("HYP-04"));
    }
}

#[test]
fn what_only_dom0_may_do_is_refused_by_rule_hyp_05() {
    let (bed, mut guest) = bed();
    assert_eq!(guest.call(&bed, HYPERVISOR_SYSCTL, [guest.address(0), 0, 0, 0, 0]), Errno::Perm.as_return());
    assert!(fired("HYP-05"));
}

#[test]
fn each_entry_has_a_result_of_its_own() {
    let (bed, mut guest) = bed();
    let unknown = entry(63, [0; 6]);
    let (result, results) = multicall(&bed, &mut guest, [NULL, unknown, NULL]);
    assert_eq!(result, 0);
    assert_eq!(results, [VERSION, Errno::NoSys.as_return().cast_unsigned(), VERSION]);
}

#[test]
fn a_multicall_in_a_multicall_is_refused_by_rule_hyp_06() {
    let (bed, mut guest) = bed();
    let place = guest.address(0);
    let nested = entry(HYPERVISOR_MULTICALL, [place, 1, 0, 0, 0, 0]);
    let (result, results) = multicall(&bed, &mut guest, [nested, NULL]);
    assert_eq!((result, results), (0, [Errno::Inval.as_return().cast_unsigned(), VERSION]));
    assert!(fired("HYP-06"));
}

#[test]
fn a_long_multicall_stops_and_goes_on_where_it_stopped() {
    let (bed, mut guest) = bed();
    for calls in 1..6 {
        bed.hv.machine.interrupt_after(Some(calls));
        let (result, results) = multicall(&bed, &mut guest, [NULL; 40]);
        bed.hv.machine.interrupt_after(None);
        assert_eq!((result, results), (0, [VERSION; 40]));
    }
}

#[test]
fn a_multicall_of_nothing_is_nothing() {
    let (bed, mut guest) = bed();
    assert_eq!(guest.call(&bed, HYPERVISOR_MULTICALL, [0; 5]), 0);
    let of_the_hypervisor = guest.call(&bed, HYPERVISOR_MULTICALL, [0xffff_8300_0000_0000, 0, 0, 0, 0]);
    assert_eq!(of_the_hypervisor, Errno::Fault.as_return());
}

#[test]
fn a_multicall_at_the_end_of_the_address_space_is_refused() {
    let (bed, mut guest) = bed();
    let result = guest.call(&bed, HYPERVISOR_MULTICALL, [u64::MAX - 63, u64::from(u32::MAX), 0, 0, 0]);
    assert_eq!(result, Errno::Fault.as_return());
}

#[test]
fn an_entry_that_faults_leaves_the_others_alone() {
    let (bed, mut guest) = bed();
    let faulting = entry(HYPERVISOR_EVENT_CHANNEL_OP, [4, 0xffff_8300_0000_0000, 0, 0, 0, 0]);
    let (result, results) = multicall(&bed, &mut guest, [faulting, NULL]);
    assert_eq!((result, results), (0, [Errno::Fault.as_return().cast_unsigned(), VERSION]));
}
