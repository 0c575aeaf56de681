//! Each rule fires.

use pv_abi::MachineAddr;
use pv_abi::errno::Errno;
use pv_abi::xen::{
    DOMID_IO, MMU_MACHPHYS_UPDATE, MMUEXT_CLEAR_PAGE, MMUEXT_FLUSH_CACHE, MMUEXT_INVLPG_MULTI, MMUEXT_MARK_SUPER,
    MMUEXT_NEW_BASEPTR, MMUEXT_PIN_L1_TABLE, MMUEXT_PIN_L2_TABLE, MMUEXT_PIN_L4_TABLE, MMUEXT_SET_LDT,
    MMUEXT_TLB_FLUSH_ALL, MMUEXT_UNPIN_TABLE, UVMF_INVLPG,
};

use super::entry::{LARGE, PCD, PWT};
use super::*;
use crate::paging::{GrantPlace, create_grant_mapping, destroy_grant_mapping};
use crate::rules::Rule;
use crate::rules::paging as rules;

#[track_caller]
fn refused<T: core::fmt::Debug>(result: Result<T, Refusal>, errno: Errno, rule: Rule) {
    let refusal = result.expect_err("to be refused");
    assert_eq!((refusal.as_errno(), refusal.rule), (Some(errno), rule), "{refusal:x?}");
}

fn scene() -> (Bed, Guest, Guest) {
    let bed = Bed::new(128);
    let guest = bed.guest(1, 4);
    let other = bed.guest(2, 4);
    (bed, guest, other)
}

#[test]
fn a_frame_of_another_is_no_table_of_mine() {
    let (bed, mut guest, other) = scene();
    refused(extended(&bed, &mut guest, MMUEXT_PIN_L4_TABLE, other.tables[0].0, 0), Errno::Inval, rules::FRAME_OWNER);
    refused(extended(&bed, &mut guest, MMUEXT_PIN_L1_TABLE, 1 << 50, 0), Errno::Inval, rules::FRAME_OWNER);
    let tables = tree(&bed, &guest, 0);
    bed.hv.machine.write_word(tables[2], 1, to(other.tables[3], USER));
    refused(extended(&bed, &mut guest, MMUEXT_PIN_L4_TABLE, tables[0].0, 0), Errno::Inval, rules::FRAME_OWNER);
    scan::check(&bed, &[&guest, &other]);
    assert!(tables.iter().all(|table| type_of(&bed, *table).1 == 0));
}

#[test]
fn a_writable_frame_is_no_table() {
    let (bed, mut guest, other) = scene();
    let frame = guest.frames[1].0;
    refused(extended(&bed, &mut guest, MMUEXT_PIN_L1_TABLE, frame, 0), Errno::Inval, rules::TYPE_CONFLICT);
    let table = guest.tables[3].0;
    refused(extended(&bed, &mut guest, MMUEXT_CLEAR_PAGE, table, 0), Errno::Inval, rules::TYPE_CONFLICT);
    scan::check(&bed, &[&guest, &other]);
}

#[test]
fn a_page_table_is_never_mapped_writable() {
    let (bed, mut guest, other) = scene();
    for table in guest.tables {
        refused(va_mapping(&bed, &mut guest, 0x20_000, to(table, WRITABLE)), Errno::Busy, rules::L1_TARGET);
        va_mapping(&bed, &mut guest, 0x20_000, to(table, USER)).expect("read-only it may be");
        refused(va_mapping(&bed, &mut guest, 0x20_000, to(table, WRITABLE | USER)), Errno::Busy, rules::L1_TARGET);
    }
    refused(va_mapping(&bed, &mut guest, 0x20_000, to(other.frames[0], 0)), Errno::Busy, rules::L1_TARGET);
    refused(va_mapping(&bed, &mut guest, 0x20_000, to(Mfn(0), 0)), Errno::Busy, rules::L1_TARGET);
    scan::check(&bed, &[&guest, &other]);
}

#[test]
fn a_table_that_maps_itself_writable_is_refused_whole() {
    let (bed, mut guest, other) = scene();
    let tables = tree(&bed, &guest, 0);
    bed.hv.machine.write_word(tables[3], 5, to(tables[3], WRITABLE));
    refused(extended(&bed, &mut guest, MMUEXT_PIN_L4_TABLE, tables[0].0, 0), Errno::Busy, rules::L1_TARGET);
    scan::check(&bed, &[&guest, &other]);
}

#[test]
fn a_bad_descriptor_keeps_a_page_from_the_descriptor_table() {
    let (bed, guest, _) = scene();
    let mfn = spare(&bed, &guest);
    bed.hv.machine.write_word(mfn, 9, 1 << 47 | 0xb << 40);
    let taken = frames::get_typed(&bed.hv, mfn.into(), guest.domain.id, PageType::Descriptor);
    refused(taken, Errno::Inval, rules::DESCRIPTOR);
    assert_eq!((count_of(&bed, mfn), type_of(&bed, mfn).1), (1, 0));
}

#[test]
fn forbidden_bits_are_refused_at_every_level() {
    let (bed, mut guest, other) = scene();
    let mfn = spare(&bed, &guest);
    for bit in [PWT, PCD, entry::PAT] {
        refused(va_mapping(&bed, &mut guest, 0x20_000, to(mfn, bit)), Errno::Inval, rules::ENTRY_BITS);
    }
    for level in 0..3 {
        let table = guest.tables[level];
        for bit in [PWT, PCD, entry::GLOBAL] {
            let result = mmu_update(&bed, &mut guest, place(table, 7), to(mfn, bit));
            refused(result, Errno::Inval, rules::ENTRY_BITS);
        }
        let result = mmu_update(&bed, &mut guest, place(table, 7), to(mfn, LARGE));
        refused(result, Errno::Inval, rules::SUPERPAGE);
    }
    scan::check(&bed, &[&guest, &other]);
}

#[test]
fn the_hypervisors_slots_are_left_alone() {
    let (bed, mut guest, other) = scene();
    let [l4, l3, ..] = guest.tables;
    for slot in [256, 263, 271] {
        for value in [0, to(l3, USER)] {
            refused(mmu_update(&bed, &mut guest, place(l4, slot), value), Errno::Inval, rules::HYPERVISOR_SLOT);
        }
    }
    mmu_update(&bed, &mut guest, place(l4, 255), to(l3, USER)).unwrap();
    mmu_update(&bed, &mut guest, place(l4, 272), to(l3, USER)).unwrap();
    scan::check(&bed, &[&guest, &other]);
}

#[test]
fn what_a_guest_puts_into_the_hypervisors_slots_is_overwritten() {
    let (bed, mut guest, other) = scene();
    let tables = tree(&bed, &guest, 0);
    bed.hv.machine.write_word(tables[0], 260, to(other.tables[1], WRITABLE | USER));
    extended(&bed, &mut guest, MMUEXT_PIN_L4_TABLE, tables[0].0, 0).unwrap();
    scan::check(&bed, &[&guest, &other]);
}

#[test]
fn tables_do_not_point_to_their_own_level() {
    let (bed, mut guest, other) = scene();
    let [l4, l3, l2, _] = guest.tables;
    for (table, target) in [(l4, l4), (l3, l3), (l2, l2)] {
        refused(mmu_update(&bed, &mut guest, place(table, 9), to(target, USER)), Errno::Inval, rules::LINEAR);
    }
    refused(mmu_update(&bed, &mut guest, place(l4, 9), to(l2, USER)), Errno::Inval, rules::TYPE_CONFLICT);
    scan::check(&bed, &[&guest, &other]);
}

#[test]
fn device_memory_needs_permission() {
    let (bed, mut guest, _) = scene();
    let device = to(Mfn(0xfeb00), 0);
    refused(va_mapping(&bed, &mut guest, 0x20_000, device), Errno::Perm, rules::DEVICE_MEMORY);
    let nothing = to(Mfn((1 << 40) - 1), 0);
    refused(va_mapping(&bed, &mut guest, 0x20_000, nothing), Errno::Inval, rules::DEVICE_MEMORY);
    let update = MmuUpdate { ptr: place(guest.tables[3], 20), val: device };
    let result = request(&bed, &mut guest, crate::paging::mmu_update, &update, DOMID_IO.into());
    refused(result, Errno::Perm, rules::DEVICE_MEMORY);
}

#[test]
fn what_the_hypervisor_shares_is_cached_as_usual() {
    let bed = Bed::new(128);
    let mut dom0 = bed.guest(0, 3);
    let shared = dom0.domain.shared_info;
    va_mapping(&bed, &mut dom0, 0x20_000, to(shared, WRITABLE)).unwrap();
    refused(va_mapping(&bed, &mut dom0, 0x21_000, to(shared, PCD)), Errno::Access, rules::CACHE_OF_SHARED);
    scan::check(&bed, &[&dom0]);
}

#[test]
fn only_the_privileged_name_another_domain() {
    let (bed, mut guest, other) = scene();
    let update = MmuUpdate { ptr: place(guest.tables[3], 20), val: to(other.frames[0], 0) };
    refused(request(&bed, &mut guest, crate::paging::mmu_update, &update, 2), Errno::Perm, rules::FOREIGN);
    let update = MmuUpdate { ptr: place(other.tables[3], 20), val: 0 };
    let result = request(&bed, &mut guest, crate::paging::mmu_update, &update, 3 << 16 | u64::from(DOMID_SELF));
    refused(result, Errno::Perm, rules::FOREIGN);
    refused(request(&bed, &mut guest, crate::paging::mmuext_op, &update, 2), Errno::Perm, rules::FOREIGN);
    let mapping = call(&bed, &mut guest, crate::paging::update_va_mapping_otherdomain, [0x20_000, 0, 0, 2, 0]);
    refused(mapping, Errno::Perm, rules::FOREIGN);
}

#[test]
fn a_domain_does_not_name_itself_by_number_nor_one_that_is_not() {
    let (bed, mut guest, _) = scene();
    let update = MmuUpdate { ptr: 0, val: 0 };
    for named in [1, 77, 0x7ff4] {
        let result = request(&bed, &mut guest, crate::paging::mmu_update, &update, named);
        refused(result, Errno::Srch, rules::FOREIGN_SELF);
    }
}

#[test]
fn upper_tables_point_to_their_owners_frames_only() {
    let bed = Bed::new(128);
    let mut dom0 = bed.guest(0, 3);
    let guest = bed.guest(1, 3);
    let update = MmuUpdate { ptr: place(dom0.tables[2], 20), val: to(guest.tables[3], USER) };
    refused(request(&bed, &mut dom0, crate::paging::mmu_update, &update, 1), Errno::Inval, rules::FOREIGN_TABLE);
    scan::check(&bed, &[&dom0, &guest]);
}

#[test]
fn unknown_updates_and_commands_do_not_exist() {
    let (bed, mut guest, _) = scene();
    refused(mmu_update(&bed, &mut guest, 5, 0), Errno::NoSys, rules::UPDATE_COMMAND);
    refused(extended(&bed, &mut guest, 14, 0, 0), Errno::NoSys, rules::EXTENDED_COMMAND);
    refused(extended(&bed, &mut guest, 99, 0, 0), Errno::NoSys, rules::EXTENDED_COMMAND);
    refused(extended(&bed, &mut guest, MMUEXT_MARK_SUPER, 0, 0), Errno::OpNotSupp, rules::NO_SUPERPAGE_MARKS);
}

#[test]
fn the_m2p_is_not_updated_for_foreign_tables() {
    let bed = Bed::new(128);
    let mut dom0 = bed.guest(0, 3);
    let guest = bed.guest(1, 3);
    let update = MmuUpdate { ptr: place(guest.frames[0], 0) | MMU_MACHPHYS_UPDATE, val: 5 };
    refused(request(&bed, &mut dom0, crate::paging::mmu_update, &update, 2 << 16 | 1), Errno::Perm, rules::M2P_FOREIGN);
    assert_eq!(request(&bed, &mut dom0, crate::paging::mmu_update, &update, 1), Ok(0));
}

#[test]
fn an_address_without_an_l1_table_has_no_mapping() {
    let (bed, mut guest, _) = scene();
    for address in [1 << 30, 1 << 40, 0xffff_8000_0000_0000, 0xffff_8280_0000_0000, 1 << 47] {
        refused(va_mapping(&bed, &mut guest, address, 0), Errno::Inval, rules::NO_L1);
    }
}

#[test]
fn some_commands_are_for_the_caller_only() {
    let bed = Bed::new(128);
    let mut dom0 = bed.guest(0, 3);
    let _guest = bed.guest(1, 3);
    for cmd in [MMUEXT_NEW_BASEPTR, MMUEXT_TLB_FLUSH_ALL, MMUEXT_SET_LDT] {
        let mut operation = MmuextOp::new_zeroed();
        operation.cmd = cmd;
        let result = request(&bed, &mut dom0, crate::paging::mmuext_op, &operation, 1);
        refused(result, Errno::Perm, rules::EXTENDED_FOREIGN);
    }
}

#[test]
fn pins_do_not_count() {
    let (bed, mut guest, other) = scene();
    let l4 = guest.tables[0].0;
    refused(extended(&bed, &mut guest, MMUEXT_PIN_L4_TABLE, l4, 0), Errno::Inval, rules::ALREADY_PINNED);
    let l1 = guest.tables[3].0;
    refused(extended(&bed, &mut guest, MMUEXT_UNPIN_TABLE, l1, 0), Errno::Inval, rules::NOT_PINNED);
    refused(extended(&bed, &mut guest, MMUEXT_PIN_L2_TABLE, l1, 0), Errno::Inval, rules::TYPE_CONFLICT);
    scan::check(&bed, &[&guest, &other]);
}

#[test]
fn caches_are_for_those_with_devices() {
    let (bed, mut guest, _) = scene();
    refused(extended(&bed, &mut guest, MMUEXT_FLUSH_CACHE, 0, 0), Errno::Access, rules::CACHE_FLUSH);
    let mut dom0 = bed.guest(0, 3);
    extended(&bed, &mut dom0, MMUEXT_FLUSH_CACHE, 0, 0).unwrap();
}

#[test]
fn a_local_descriptor_table_starts_at_a_page_and_ends_in_time() {
    let (bed, mut guest, _) = scene();
    for (address, entries) in [(0x1000, 8193), (0x1008, 1), (0xffff_8000_0000_0000, 1)] {
        refused(extended(&bed, &mut guest, MMUEXT_SET_LDT, address, entries), Errno::Inval, rules::LDT);
    }
}

#[test]
fn a_bitmap_of_vcpus_must_be_readable() {
    let (bed, mut guest, _) = scene();
    refused(extended(&bed, &mut guest, MMUEXT_INVLPG_MULTI, 0x1000, 1 << 46), Errno::Inval, rules::VCPU_BITMAP);
    let flags = 1 << 46 | UVMF_INVLPG;
    let result = call(&bed, &mut guest, crate::paging::update_va_mapping, [0x20_000, 0, flags, 0, 0]);
    refused(result, Errno::Fault, rules::VCPU_BITMAP);
}

#[test]
fn a_grant_is_mapped_in_an_l1_table_of_the_caller() {
    let (bed, guest, other) = scene();
    let frame = other.frames[1];
    let places = [
        GrantPlace::Va(1 << 40),
        GrantPlace::Pte(MachineAddr(place(guest.tables[2], 3))),
        GrantPlace::Pte(MachineAddr(place(other.tables[3], 3))),
        GrantPlace::Pte(MachineAddr(place(guest.tables[3], 3) + 4)),
        GrantPlace::Pte(MachineAddr(!7)),
    ];
    for place in places {
        let result = create_grant_mapping(&bed.hv, &guest.running, place, frame, true, 0);
        refused(result, Errno::Inval, rules::GRANT_PLACE);
    }
    let table = other.tables[3];
    let result = create_grant_mapping(&bed.hv, &guest.running, GrantPlace::Va(0x20_000), table, false, 0);
    refused(result, Errno::Inval, rules::TYPE_CONFLICT);
    scan::check(&bed, &[&guest, &other]);
}

#[test]
fn only_what_a_grant_mapped_is_unmapped() {
    let (bed, guest, other) = scene();
    let place = GrantPlace::Va(guest.address(1));
    let result = destroy_grant_mapping(&bed.hv, &guest.running, place, other.frames[1], true, None);
    refused(result, Errno::Inval, rules::GRANT_ENTRY);
    scan::check(&bed, &[&guest, &other]);
}
