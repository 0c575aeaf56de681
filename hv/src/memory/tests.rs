//! What guests may and may not do with their memory.

mod exchange;

use pv_abi::Mfn;
use pv_abi::memory::{
    AddToPhysmap, E820Entry, ForeignMemoryMap, MachphysMapping, MemAcquireResource, MemoryExchange, MemoryMap,
    MemoryReservation, RemoveFromPhysmap, ReservedDeviceMemoryMap, xenmemf_address_bits,
};
use pv_abi::xen::DOMID_SELF;
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes};

use super::*;
use crate::fake::{Bed, Guest};
use crate::frames::{self, ClaimedMfn};
use crate::rules::Rule;

/// Where lists are, from the address of the argument.
const LIST: u64 = 1024;

fn call(bed: &Bed, guest: &mut Guest, command: u32, argument: u64) -> Result<u64, Refusal> {
    guest.handled(bed, memory_op, [command.into(), argument, 0, 0, 0])
}

fn with<T: IntoBytes + FromBytes + Immutable>(
    bed: &Bed,
    guest: &mut Guest,
    command: u32,
    value: &mut T,
) -> Result<u64, Refusal> {
    let place = guest.address(0);
    guest.write(bed, place, value);
    let result = call(bed, guest, command, place);
    *value = guest.read(bed, place);
    result
}

/// A list operation on these elements; they are what is in the list afterwards.
fn adjust(bed: &Bed, guest: &mut Guest, command: u32, order: u32, list: &mut [u64]) -> Result<u64, Refusal> {
    let place = guest.address(0) + LIST;
    guest.write(bed, place, list);
    let mut asked = MemoryReservation::new_zeroed();
    (asked.extent_start, asked.nr_extents, asked.extent_order) = (place, list.len() as u64, order);
    asked.domid = DOMID_SELF;
    let result = with(bed, guest, command, &mut asked);
    for (index, element) in list.iter_mut().enumerate() {
        *element = guest.read(bed, place + index as u64 * 8);
    }
    result
}

#[track_caller]
fn refused(result: Result<u64, Refusal>, errno: Errno, rule: Rule) {
    let refusal = result.expect_err("to be refused");
    assert_eq!((refusal.as_errno(), refusal.rule), (Some(errno), rule), "{refusal:x?}");
}

/// How many elements of a list were done.
#[track_caller]
fn done(result: Result<u64, Refusal>, expected: u64) {
    assert_eq!(result, Ok(expected));
}

fn total(guest: &Guest) -> u64 {
    guest.domain.memory.lock().total
}

#[test]
fn a_balloon_goes_down_and_up() {
    let bed = Bed::new(64);
    let mut guest = bed.guest(1, 3);
    let before = total(&guest);
    let mut list = [10, 11, 12];
    done(adjust(&bed, &mut guest, XENMEM_POPULATE_PHYSMAP, 0, &mut list), 3);
    assert_eq!(total(&guest), before + 3);
    for (mfn, pfn) in list.iter().zip(10..) {
        assert_eq!(bed.hv.machine.m2p(Mfn(*mfn)), pfn);
        assert_eq!(frames::owner(&bed.hv, ClaimedMfn(*mfn)), Some(guest.domain.id));
    }
    done(adjust(&bed, &mut guest, XENMEM_DECREASE_RESERVATION, 0, &mut list), 3);
    assert_eq!(total(&guest), before);
}

#[test]
fn a_frame_given_back_while_mapped_stays_until_it_is_unmapped() {
    let bed = Bed::new(64);
    let mut guest = bed.guest(1, 3);
    let before = total(&guest);
    let mfn = guest.frames[2];
    done(adjust(&bed, &mut guest, XENMEM_DECREASE_RESERVATION, 0, &mut [mfn.0]), 1);
    assert_eq!(total(&guest), before);
    let unmap = [guest.address(2), 0, 0, 0, 0];
    assert_eq!(guest.call(&bed, pv_abi::xen::HYPERVISOR_UPDATE_VA_MAPPING, unmap), 0);
    assert_eq!(total(&guest), before - 1);
}

#[test]
fn blocks_are_in_one_piece() {
    let bed = Bed::new(128);
    let mut guest = bed.guest(1, 3);
    let mut list = [0x40];
    done(adjust(&bed, &mut guest, XENMEM_POPULATE_PHYSMAP, 4, &mut list), 1);
    assert_eq!(list[0] % 16, 0);
    assert_eq!(bed.hv.machine.m2p(Mfn(list[0] + 15)), 0x4f);
    done(adjust(&bed, &mut guest, XENMEM_DECREASE_RESERVATION, 4, &mut list), 1);
    let mut list = [0, 0];
    done(adjust(&bed, &mut guest, XENMEM_INCREASE_RESERVATION, 3, &mut list), 2);
    assert!(list.iter().all(|first| first % 8 == 0 && *first != 0));
}

#[test]
fn a_list_is_done_as_far_as_it_can_be() {
    let bed = Bed::new(64);
    let mut guest = bed.guest(1, 3);
    let most = total(&guest) + 2;
    guest.domain.memory.lock().max = most;
    done(adjust(&bed, &mut guest, XENMEM_POPULATE_PHYSMAP, 0, &mut [1, 2, 3, 4]), 2);
    let other = bed.guest(2, 3);
    let mut list = [guest.frames[2].0, other.frames[0].0, guest.frames[1].0];
    done(adjust(&bed, &mut guest, XENMEM_DECREASE_RESERVATION, 0, &mut list), 1);
    done(adjust(&bed, &mut guest, XENMEM_POPULATE_PHYSMAP, 10, &mut [1]), 0);
    done(call(&bed, &mut guest, XENMEM_POPULATE_PHYSMAP, 1 << 46), 0);
}

#[test]
fn an_interrupted_list_goes_on_where_it_was() {
    let bed = Bed::new(128);
    let mut guest = bed.guest(1, 3);
    let mut list: Vec<u64> = (100..140).collect();
    bed.hv.machine.interrupt_after(Some(0));
    done(adjust(&bed, &mut guest, XENMEM_POPULATE_PHYSMAP, 0, &mut list), 40);
    assert_eq!(guest.continued, 39);
    assert!(list.iter().zip(100..).all(|(mfn, pfn)| bed.hv.machine.m2p(Mfn(*mfn)) == pfn));
}

#[test]
fn a_large_block_is_given_back_in_steps() {
    let bed = Bed::new(128);
    let mut guest = bed.guest(1, 3);
    let before = total(&guest);
    let mut list = [0, 0x100];
    done(adjust(&bed, &mut guest, XENMEM_INCREASE_RESERVATION, 5, &mut list), 2);
    bed.hv.machine.interrupt_after(Some(0));
    guest.continued = 0;
    done(adjust(&bed, &mut guest, XENMEM_DECREASE_RESERVATION, 5, &mut list), 2);
    assert_eq!((total(&guest), guest.continued), (before, 3), "in the middle of each block and between them");
    assert_eq!(guest.running.state.given, None);
}

#[test]
fn an_operation_that_is_never_continued_refuses_progress() {
    let bed = Bed::new(64);
    let mut guest = bed.guest(1, 3);
    refused(call(&bed, &mut guest, XENMEM_EXCHANGE | 1 << 6, 0), Errno::Inval, rules::NOT_CONTINUED);
}

#[test]
fn reservations_are_told() {
    let bed = Bed::new(64);
    let mut guest = bed.guest(1, 3);
    let mut own = MemoryDomain { domid: DOMID_SELF };
    assert_eq!(with(&bed, &mut guest, XENMEM_CURRENT_RESERVATION, &mut own), Ok(total(&guest)));
    assert_eq!(with(&bed, &mut guest, XENMEM_MAXIMUM_RESERVATION, &mut own), Ok(64));
    assert_eq!(with(&bed, &mut guest, XENMEM_MAXIMUM_GPFN, &mut own), Ok(0));
    bed.hv.machine.write_word(guest.domain.shared_info, SHARED_MAX_PFN / 8, 100);
    assert_eq!(with(&bed, &mut guest, XENMEM_MAXIMUM_GPFN, &mut own), Ok(99));
    assert_eq!(call(&bed, &mut guest, XENMEM_MAXIMUM_RAM_PAGE, 0), Ok(64));
    let mut other = MemoryDomain { domid: 7 };
    refused(with(&bed, &mut guest, XENMEM_CURRENT_RESERVATION, &mut other), Errno::Perm, core_rules::PRIVILEGED);
    let mut dom0 = bed.guest(0, 3);
    refused(with(&bed, &mut dom0, XENMEM_CURRENT_RESERVATION, &mut other), Errno::Srch, core_rules::NO_SUCH_DOMAIN);
    other.domid = 1;
    assert_eq!(with(&bed, &mut dom0, XENMEM_CURRENT_RESERVATION, &mut other), Ok(total(&guest)));
}

#[test]
fn a_toolstack_gives_memory_to_another_domain() {
    let bed = Bed::new(128);
    let mut dom0 = bed.guest(0, 3);
    let guest = bed.guest(1, 3);
    let before = total(&guest);
    let place = dom0.address(0) + LIST;
    dom0.write(&bed, place, &[5_u64, 6]);
    let mut asked = MemoryReservation::new_zeroed();
    (asked.extent_start, asked.nr_extents, asked.domid) = (place, 2, 1);
    assert_eq!(with(&bed, &mut dom0, XENMEM_POPULATE_PHYSMAP, &mut asked), Ok(2));
    assert_eq!(total(&guest), before + 2);
}

#[test]
fn the_m2p_is_where_it_always_is() {
    let bed = Bed::new(64);
    let mut guest = bed.guest(1, 3);
    let mut mapping = MachphysMapping::new_zeroed();
    assert_eq!(with(&bed, &mut guest, XENMEM_MACHPHYS_MAPPING, &mut mapping), Ok(0));
    assert_eq!((mapping.v_start, mapping.v_end), (0xffff_8000_0000_0000, 0xffff_8040_0000_0000));
    assert_eq!(mapping.max_mfn, (1 << 35) - 1);
    let mut dom0 = bed.guest(0, 3);
    assert_eq!(with(&bed, &mut dom0, XENMEM_MACHPHYS_MAPPING, &mut mapping), Ok(0));
    assert_eq!(mapping.max_mfn, 63);
}

#[test]
fn a_memory_map_is_what_the_toolstack_made_it() {
    let bed = Bed::new(128);
    let mut dom0 = bed.guest(0, 3);
    let mut guest = bed.guest(1, 3);
    let mut asked = MemoryMap::new_zeroed();
    (asked.nr_entries, asked.buffer) = (8, guest.address(1));
    refused(with(&bed, &mut guest, XENMEM_MEMORY_MAP, &mut asked), Errno::NoSys, rules::NO_MAP);
    let entry = E820Entry { addr: 0, size: 0x1234_5000, type_: 1 };
    let list = dom0.address(1);
    dom0.write(&bed, list, &entry.to_bytes());
    let mut given = ForeignMemoryMap::new_zeroed();
    (given.domid, given.map.nr_entries, given.map.buffer) = (1, 1, list);
    assert_eq!(with(&bed, &mut dom0, XENMEM_SET_MEMORY_MAP, &mut given), Ok(0));
    assert_eq!(with(&bed, &mut guest, XENMEM_MEMORY_MAP, &mut asked), Ok(0));
    assert_eq!(asked.nr_entries, 1);
    assert_eq!(E820Entry::from_bytes(&guest.read(&bed, guest.address(1))), entry);
    given.map.nr_entries = 129;
    refused(with(&bed, &mut dom0, XENMEM_SET_MEMORY_MAP, &mut given), Errno::Inval, rules::MAP_LENGTH);
    refused(with(&bed, &mut guest, XENMEM_MACHINE_MEMORY_MAP, &mut asked), Errno::Perm, core_rules::PRIVILEGED);
    (asked.nr_entries, asked.buffer) = (8, list);
    assert_eq!(with(&bed, &mut dom0, XENMEM_MACHINE_MEMORY_MAP, &mut asked), Ok(0));
    assert_eq!(asked.nr_entries, 1);
    asked.nr_entries = 0;
    refused(with(&bed, &mut dom0, XENMEM_MACHINE_MEMORY_MAP, &mut asked), Errno::Inval, rules::MACHINE_MAP);
    assert_eq!(E820Entry::from_bytes(&dom0.read(&bed, list)).size, 128 << 12);
}

#[test]
fn a_claim_is_for_toolstacks() {
    let bed = Bed::new(128);
    let mut dom0 = bed.guest(0, 3);
    let mut guest = bed.guest(1, 3);
    let mut asked = MemoryReservation::new_zeroed();
    (asked.nr_extents, asked.domid) = (20, 1);
    refused(with(&bed, &mut guest, XENMEM_CLAIM_PAGES, &mut asked), Errno::Perm, core_rules::PRIVILEGED);
    assert_eq!(with(&bed, &mut dom0, XENMEM_CLAIM_PAGES, &mut asked), Ok(0));
    let claimed = guest.domain.memory.lock().claimed;
    assert_eq!(claimed, 20 - total(&guest));
    asked.extent_order = 1;
    refused(with(&bed, &mut dom0, XENMEM_CLAIM_PAGES, &mut asked), Errno::Inval, rules::CLAIM);
}

#[test]
fn what_pv_domains_do_not_have_is_refused_as_xen_does() {
    let bed = Bed::new(64);
    let mut guest = bed.guest(1, 3);
    let mut add = AddToPhysmap::new_zeroed();
    add.domid = DOMID_SELF;
    refused(with(&bed, &mut guest, XENMEM_ADD_TO_PHYSMAP, &mut add), Errno::Access, rules::NO_PHYSMAP);
    let mut remove = RemoveFromPhysmap::new_zeroed();
    remove.domid = DOMID_SELF;
    refused(with(&bed, &mut guest, XENMEM_REMOVE_FROM_PHYSMAP, &mut remove), Errno::Access, rules::NO_PHYSMAP);
    let mut target = PodTarget::new_zeroed();
    target.domid = DOMID_SELF;
    refused(with(&bed, &mut guest, XENMEM_GET_POD_TARGET, &mut target), Errno::Inval, rules::ON_DEMAND);
    refused(call(&bed, &mut guest, XENMEM_GET_VNUMAINFO, 0), Errno::OpNotSupp, rules::NO_NODES);
    refused(call(&bed, &mut guest, 63, 0), Errno::NoSys, core_rules::UNKNOWN_OPERATION);
    assert_eq!(call(&bed, &mut guest, XENMEM_GET_SHARING_SHARED_PAGES, 0), Ok(0));
    let mut reserved = ReservedDeviceMemoryMap::new_zeroed();
    assert_eq!(with(&bed, &mut guest, XENMEM_RESERVED_DEVICE_MEMORY_MAP, &mut reserved), Ok(0));
    reserved.flags = 2;
    let result = with(&bed, &mut guest, XENMEM_RESERVED_DEVICE_MEMORY_MAP, &mut reserved);
    refused(result, Errno::Inval, rules::RESERVED_FLAGS);
}

#[test]
fn a_toolstack_acquires_a_grant_table() {
    let bed = Bed::new(128);
    let mut dom0 = bed.guest(0, 3);
    let guest = bed.guest(1, 3);
    let mut asked = MemAcquireResource::new_zeroed();
    (asked.domid, asked.type_) = (1, 1);
    assert_eq!(with(&bed, &mut dom0, XENMEM_ACQUIRE_RESOURCE, &mut asked), Ok(0));
    assert_eq!(asked.nr_frames, guest.domain.grants.lock().max_size());
    let list = dom0.address(1);
    (asked.nr_frames, asked.frame_list) = (2, list);
    bed.hv.machine.interrupt_after(Some(0));
    assert_eq!(with(&bed, &mut dom0, XENMEM_ACQUIRE_RESOURCE, &mut asked), Ok(0));
    assert_eq!(guest.domain.grants.lock().frame(1), Some(Mfn(dom0.read(&bed, list + 8))));
    asked.frame = 1 << 32;
    refused(with(&bed, &mut dom0, XENMEM_ACQUIRE_RESOURCE, &mut asked), Errno::Inval, rules::RESOURCE_RANGE);
    (asked.frame, asked.type_) = (0, 0);
    refused(with(&bed, &mut dom0, XENMEM_ACQUIRE_RESOURCE, &mut asked), Errno::Inval, rules::RESOURCE);
    asked.domid = 0;
    refused(with(&bed, &mut dom0, XENMEM_ACQUIRE_RESOURCE, &mut asked), Errno::Perm, rules::RESOURCE_SELF);
}

#[test]
fn lists_that_are_refused_are_explained() {
    let bed = Bed::new(64);
    let mut guest = bed.guest(1, 3);
    guest.enter(&bed);
    let list = guest.address(0) + LIST;
    let reasons = [
        (MemoryReservation { nr_extents: 1 << 40, ..asked(list) }, rules::LIST_LENGTH),
        (MemoryReservation { extent_order: 10, ..asked(list) }, rules::ORDER),
        (MemoryReservation { mem_flags: 1 << 16, ..asked(list) }, rules::ON_DEMAND),
        (MemoryReservation { mem_flags: 5, ..asked(list) }, rules::ADDRESS_BITS),
    ];
    for (asked, rule) in reasons {
        let found = reservation::block_of(&bed.hv, &asked, &guest.domain).err().map(|refusal| refusal.rule);
        assert!(found == Some(rule) || asked.nr_extents > 1);
        guest.write(&bed, guest.address(0), &asked);
        let place = guest.address(0);
        done(call(&bed, &mut guest, XENMEM_POPULATE_PHYSMAP, place), 0);
    }
    guest.domain.memory.lock().closed = true;
    let block = frames::Block::default();
    let why = frames::allocate_domain_block(&bed.hv, &guest.domain, block).unwrap_err();
    assert_eq!(reservation::no_block(&bed.hv, &guest.domain, block, why).rule, rules::DYING);
    let why = frames::NoBlock::Maximum;
    assert_eq!(reservation::no_block(&bed.hv, &guest.domain, block, why).rule, rules::MAXIMUM);
}

fn asked(list: u64) -> MemoryReservation {
    let mut asked = MemoryReservation::new_zeroed();
    (asked.extent_start, asked.nr_extents, asked.domid) = (list, 1, DOMID_SELF);
    asked
}
