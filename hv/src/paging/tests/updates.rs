//! What works.

use pv_abi::xen::{
    MMU_MACHPHYS_UPDATE, MMU_PT_UPDATE_PRESERVE_AD, MMUEXT_CLEAR_PAGE, MMUEXT_COPY_PAGE, MMUEXT_INVLPG_ALL,
    MMUEXT_INVLPG_LOCAL, MMUEXT_NEW_BASEPTR, MMUEXT_NEW_USER_BASEPTR, MMUEXT_PIN_L1_TABLE, MMUEXT_PIN_L4_TABLE,
    MMUEXT_SET_LDT, MMUEXT_TLB_FLUSH_ALL, MMUEXT_TLB_FLUSH_LOCAL, MMUEXT_TLB_FLUSH_MULTI, MMUEXT_UNPIN_TABLE, UVMF_ALL,
    UVMF_INVLPG, UVMF_TLB_FLUSH,
};

use super::entry::{ACCESSED, DIRTY, GLOBAL, GUEST_KERNEL, NO_EXECUTE};
use super::*;
use crate::fake::Event;
use crate::hardware::Flush;
use crate::paging::{GrantPlace, create_grant_mapping, destroy_grant_mapping, map_ldt_page, walk};

fn entry_of(bed: &Bed, guest: &Guest, address: u64) -> u64 {
    walk(&bed.hv, guest.running.state.kernel_root.unwrap(), address).expect("an L1 table").2
}

#[test]
fn a_mapping_holds_a_reference_and_a_writable_one_a_type() {
    let bed = Bed::new(64);
    let mut guest = bed.guest(1, 3);
    let mfn = spare(&bed, &guest);
    let address = Guest::BASE + 0x10_000;
    va_mapping(&bed, &mut guest, address, to(mfn, WRITABLE)).unwrap();
    assert_eq!(count_of(&bed, mfn), 2);
    assert_eq!(type_of(&bed, mfn), (PageType::Writable, 1));
    assert_eq!(entry_of(&bed, &guest, address), to(mfn, WRITABLE | USER | GUEST_KERNEL));
    va_mapping(&bed, &mut guest, address, to(mfn, USER)).unwrap();
    assert_eq!((count_of(&bed, mfn), type_of(&bed, mfn).1), (2, 0));
    assert_eq!(entry_of(&bed, &guest, address), to(mfn, USER | GLOBAL));
    va_mapping(&bed, &mut guest, address, 0).unwrap();
    assert_eq!(count_of(&bed, mfn), 1);
    scan::check(&bed, &[&guest]);
}

#[test]
fn the_same_value_again_changes_nothing() {
    let bed = Bed::new(64);
    let mut guest = bed.guest(1, 3);
    let address = guest.address(1);
    let value = entry_of(&bed, &guest, address);
    bed.hv.machine.remember_writes(true);
    bed.hv.machine.take_events();
    va_mapping(&bed, &mut guest, address, value).unwrap();
    assert!(!bed.hv.machine.take_events().iter().any(|event| matches!(event, Event::Write(..))));
    scan::check(&bed, &[&guest]);
}

#[test]
fn marks_of_the_cpu_are_kept_where_asked() {
    let bed = Bed::new(64);
    let mut guest = bed.guest(1, 3);
    let l1 = guest.tables[3];
    let value = to(guest.frames[1], WRITABLE | USER);
    bed.hv.machine.fetch_or_word(l1, 2, ACCESSED | DIRTY);
    mmu_update(&bed, &mut guest, place(l1, 2) | MMU_PT_UPDATE_PRESERVE_AD, value | NO_EXECUTE).unwrap();
    assert_eq!(bed.hv.machine.read_word(l1, 2), value | NO_EXECUTE | GLOBAL | ACCESSED | DIRTY);
    mmu_update(&bed, &mut guest, place(l1, 2), value).unwrap();
    assert_eq!(bed.hv.machine.read_word(l1, 2), value | GLOBAL);
}

#[test]
fn a_word_of_a_plain_frame_is_written_plainly() {
    let bed = Bed::new(64);
    let mut guest = bed.guest(1, 3);
    let mfn = guest.frames[2];
    mmu_update(&bed, &mut guest, place(mfn, 7), 0xdead_beef_0bad_f00d).unwrap();
    assert_eq!(bed.hv.machine.read_word(mfn, 7), 0xdead_beef_0bad_f00d);
    scan::check(&bed, &[&guest]);
}

#[test]
fn the_m2p_is_told() {
    let bed = Bed::new(64);
    let mut guest = bed.guest(1, 3);
    let mfn = guest.frames[1];
    mmu_update(&bed, &mut guest, place(mfn, 0) | MMU_MACHPHYS_UPDATE, 0x1234).unwrap();
    assert_eq!(bed.hv.machine.m2p(mfn), 0x1234);
}

#[test]
fn no_requests_are_no_error_and_done_counts() {
    let bed = Bed::new(64);
    let mut guest = bed.guest(1, 3);
    let list = guest.address(0);
    let done = list + 2048;
    assert_eq!(call(&bed, &mut guest, crate::paging::mmu_update, [list, 0, 0, DOMID_SELF.into(), 0]), Ok(0));
    let good = MmuUpdate { ptr: place(guest.frames[1], 0), val: 1 };
    let bad = MmuUpdate { ptr: place(Mfn(1 << 30), 0), val: 1 };
    guest.write(&bed, list, &[good, good, bad, good]);
    let result = call(&bed, &mut guest, crate::paging::mmu_update, [list, 4, done, DOMID_SELF.into(), 0]);
    assert!(result.is_err());
    assert_eq!(guest.read::<u32>(&bed, done), 2);
}

#[test]
fn a_table_is_pinned_and_unpinned() {
    let bed = Bed::new(64);
    let mut guest = bed.guest(1, 3);
    let leaf = guest.frames[1];
    let tables = tree(&bed, &guest, to(leaf, WRITABLE));
    extended(&bed, &mut guest, MMUEXT_PIN_L4_TABLE, tables[0].0, 0).unwrap();
    assert_eq!(type_of(&bed, tables[0]), (PageType::L4, 1));
    assert_eq!(type_of(&bed, tables[3]), (PageType::L1, 1));
    assert_eq!(type_of(&bed, leaf), (PageType::Writable, 2));
    scan::check(&bed, &[&guest]);
    extended(&bed, &mut guest, MMUEXT_UNPIN_TABLE, tables[0].0, 0).unwrap();
    assert!(tables.iter().all(|table| type_of(&bed, *table).1 == 0 && count_of(&bed, *table) == 1));
    scan::check(&bed, &[&guest]);
}

#[test]
fn a_pinned_table_survives_its_last_mapping() {
    let bed = Bed::new(64);
    let mut guest = bed.guest(1, 3);
    let tables = tree(&bed, &guest, 0);
    extended(&bed, &mut guest, MMUEXT_PIN_L1_TABLE, tables[3].0, 0).unwrap();
    extended(&bed, &mut guest, MMUEXT_PIN_L4_TABLE, tables[0].0, 0).unwrap();
    extended(&bed, &mut guest, MMUEXT_UNPIN_TABLE, tables[0].0, 0).unwrap();
    assert_eq!(type_of(&bed, tables[3]), (PageType::L1, 1));
    scan::check(&bed, &[&guest]);
}

#[test]
fn a_root_in_use_stays_a_table_without_its_pin() {
    let bed = Bed::new(64);
    let mut guest = bed.guest(1, 3);
    let [old, ..] = guest.tables;
    extended(&bed, &mut guest, MMUEXT_UNPIN_TABLE, old.0, 0).unwrap();
    assert_eq!(type_of(&bed, old), (PageType::L4, 1));
    scan::check(&bed, &[&guest]);
    destroy(&bed, guest);
}

#[test]
fn an_unpinned_table_becomes_a_root_and_the_old_one_is_free_again() {
    let bed = Bed::new(64);
    let mut guest = bed.guest(1, 3);
    let [old, l3, ..] = guest.tables;
    let new = spare(&bed, &guest);
    bed.hv.machine.write_word(new, 0, to(l3, WRITABLE | USER));
    extended(&bed, &mut guest, MMUEXT_NEW_BASEPTR, new.0, 0).unwrap();
    assert_eq!(bed.hv.machine.root(), Some(new));
    extended(&bed, &mut guest, MMUEXT_UNPIN_TABLE, old.0, 0).unwrap();
    assert_eq!(type_of(&bed, old).1, 0);
    assert_eq!(type_of(&bed, new), (PageType::L4, 1));
    guest.tables[0] = new;
    scan::check(&bed, &[&guest]);
}

#[test]
fn a_user_root_comes_and_goes() {
    let bed = Bed::new(64);
    let mut guest = bed.guest(1, 3);
    let tables = tree(&bed, &guest, 0);
    extended(&bed, &mut guest, MMUEXT_NEW_USER_BASEPTR, tables[0].0, 0).unwrap();
    assert_eq!(guest.running.state.user_root, Some(tables[0]));
    scan::check(&bed, &[&guest]);
    extended(&bed, &mut guest, MMUEXT_NEW_USER_BASEPTR, 0, 0).unwrap();
    assert_eq!(type_of(&bed, tables[0]).1, 0);
    scan::check(&bed, &[&guest]);
}

#[test]
fn an_upper_entry_changes_its_table() {
    let bed = Bed::new(64);
    let mut guest = bed.guest(1, 3);
    let l2 = guest.tables[2];
    let new = spare(&bed, &guest);
    mmu_update(&bed, &mut guest, place(l2, 3), to(new, WRITABLE)).unwrap();
    assert_eq!(type_of(&bed, new), (PageType::L1, 1));
    assert_eq!(bed.hv.machine.read_word(l2, 3), to(new, WRITABLE | USER));
    mmu_update(&bed, &mut guest, place(l2, 3), to(new, NO_EXECUTE)).unwrap();
    scan::check(&bed, &[&guest]);
    mmu_update(&bed, &mut guest, place(l2, 3), 0).unwrap();
    assert_eq!(type_of(&bed, new).1, 0);
    scan::check(&bed, &[&guest]);
}

#[test]
fn flushes_reach_the_machine() {
    let bed = Bed::new(64);
    let mut guest = bed.guest(1, 3);
    let address = guest.address(1);
    let value = entry_of(&bed, &guest, address);
    let mut flushes = |run: &mut dyn FnMut(&Bed, &mut Guest)| {
        bed.hv.machine.take_events();
        run(&bed, &mut guest);
        let events = bed.hv.machine.take_events();
        events
            .into_iter()
            .filter_map(|event| if let Event::Flush(what) = event { Some(what) } else { None })
            .collect::<Vec<_>>()
    };
    let mut operation = |cmd, arg1| {
        flushes(&mut |bed, guest| {
            let bitmap = guest.address(2);
            extended(bed, guest, cmd, arg1, bitmap).unwrap();
        })
    };
    assert_eq!(operation(MMUEXT_TLB_FLUSH_LOCAL, 0), [Flush::All]);
    assert_eq!(operation(MMUEXT_TLB_FLUSH_ALL, 0), [Flush::All]);
    assert_eq!(operation(MMUEXT_INVLPG_LOCAL, address), [Flush::Page(address)]);
    assert_eq!(operation(MMUEXT_INVLPG_ALL, address), [Flush::Page(address)]);
    assert_eq!(operation(MMUEXT_INVLPG_LOCAL, 0xffff_8000_0000_0000), []);
    assert_eq!(operation(MMUEXT_TLB_FLUSH_MULTI, 0), []);
    let mut mapping = |flags| {
        let update = crate::paging::update_va_mapping;
        flushes(&mut |bed, guest| {
            call(bed, guest, update, [address, value, flags, 0, 0]).unwrap();
        })
    };
    assert_eq!(mapping(UVMF_TLB_FLUSH), [Flush::All]);
    assert_eq!(mapping(UVMF_INVLPG), [Flush::Page(address)]);
    assert_eq!(mapping(UVMF_INVLPG | UVMF_ALL), [Flush::Page(address)]);
    assert_eq!(mapping(0), []);
}

#[test]
fn a_frame_that_was_writable_is_flushed_before_it_becomes_a_table() {
    let bed = Bed::new(64);
    let mut guest = bed.guest(1, 3);
    let address = guest.address(1);
    let mfn = guest.frames[1];
    va_mapping(&bed, &mut guest, address, to(mfn, USER)).unwrap();
    bed.hv.machine.take_events();
    extended(&bed, &mut guest, MMUEXT_PIN_L1_TABLE, mfn.0, 0).unwrap();
    assert!(bed.hv.machine.take_events().contains(&Event::Flush(Flush::All)));
    extended(&bed, &mut guest, MMUEXT_UNPIN_TABLE, mfn.0, 0).unwrap();
    bed.hv.machine.take_events();
    va_mapping(&bed, &mut guest, address, to(mfn, WRITABLE)).unwrap();
    assert!(bed.hv.machine.take_events().contains(&Event::Flush(Flush::All)), "and before it is writable again");
}

#[test]
fn pages_are_cleared_and_copied() {
    let bed = Bed::new(64);
    let mut guest = bed.guest(1, 3);
    let (from, to) = (guest.frames[1], guest.frames[2]);
    bed.hv.machine.write_word(from, 511, 77);
    extended(&bed, &mut guest, MMUEXT_COPY_PAGE, to.0, from.0).unwrap();
    assert_eq!(bed.hv.machine.read_word(to, 511), 77);
    extended(&bed, &mut guest, MMUEXT_CLEAR_PAGE, from.0, 0).unwrap();
    assert_eq!(bed.hv.machine.read_word(from, 511), 0);
    scan::check(&bed, &[&guest]);
}

#[test]
fn a_page_of_the_local_descriptor_table_is_typed_while_it_is_in_the_window() {
    let bed = Bed::new(64);
    let mut guest = bed.guest(1, 3);
    let (address, mfn) = (guest.address(1), guest.frames[1]);
    va_mapping(&bed, &mut guest, address, to(mfn, 0)).unwrap();
    extended(&bed, &mut guest, MMUEXT_SET_LDT, address, 16).unwrap();
    assert!(map_ldt_page(&bed.hv, &mut guest.running, 0));
    assert!(!map_ldt_page(&bed.hv, &mut guest.running, 1), "the table has no second page");
    assert_eq!(type_of(&bed, mfn), (PageType::Descriptor, 1));
    assert!(va_mapping(&bed, &mut guest, address, to(mfn, WRITABLE)).is_err());
    extended(&bed, &mut guest, MMUEXT_SET_LDT, 0, 0).unwrap();
    va_mapping(&bed, &mut guest, address, to(mfn, WRITABLE)).unwrap();
    scan::check(&bed, &[&guest]);
}

#[test]
fn a_privileged_domain_maps_a_foreign_frame() {
    let bed = Bed::new(128);
    let mut dom0 = bed.guest(0, 3);
    let guest = bed.guest(1, 3);
    let l1 = dom0.tables[3];
    let update = MmuUpdate { ptr: place(l1, 20), val: to(guest.frames[1], WRITABLE | USER) };
    assert_eq!(request(&bed, &mut dom0, crate::paging::mmu_update, &update, 1), Ok(0));
    assert_eq!(type_of(&bed, guest.frames[1]), (PageType::Writable, 2));
    scan::check(&bed, &[&dom0, &guest]);
    let frame = guest.frames[1];
    destroy(&bed, guest);
    assert_eq!((count_of(&bed, frame), owner(&bed, frame)), (1, None), "kept by the mapping alone");
    mmu_update(&bed, &mut dom0, place(l1, 20), 0).unwrap();
    assert_eq!(count_of(&bed, frame), 0);
}

#[test]
fn a_privileged_domain_writes_a_foreign_table() {
    let bed = Bed::new(128);
    let mut dom0 = bed.guest(0, 3);
    let guest = bed.guest(1, 3);
    let update = MmuUpdate { ptr: place(guest.tables[3], 20), val: to(guest.frames[1], USER) };
    assert_eq!(request(&bed, &mut dom0, crate::paging::mmu_update, &update, 2 << 16 | 1), Ok(0));
    scan::check(&bed, &[&dom0, &guest]);
}

#[test]
fn device_memory_is_mapped_uncached_and_counts_nothing() {
    let bed = Bed::new(128);
    let mut dom0 = bed.guest(0, 3);
    let device = Mfn(0xfeb00);
    let address = Guest::BASE + 0x10_000;
    va_mapping(&bed, &mut dom0, address, to(device, WRITABLE | USER)).unwrap();
    assert_eq!(entry_of(&bed, &dom0, address), to(device, WRITABLE | USER | GLOBAL | entry::PCD | entry::PWT));
    scan::check(&bed, &[&dom0]);
    va_mapping(&bed, &mut dom0, address, to(device, USER | entry::PCD)).unwrap();
    va_mapping(&bed, &mut dom0, address, 0).unwrap();
    scan::check(&bed, &[&dom0]);
}

#[test]
fn a_grant_is_mapped_by_address_and_by_entry_and_unmapped() {
    let bed = Bed::new(128);
    let mapper = bed.guest(1, 3);
    let granter = bed.guest(2, 3);
    let frame = granter.frames[1];
    let before = count_of(&bed, frame);
    let address = Guest::BASE + 0x10_000;
    let places = [GrantPlace::Va(address), GrantPlace::Pte(pv_abi::MachineAddr(place(mapper.tables[3], 30)))];
    for place in places {
        create_grant_mapping(&bed.hv, &mapper.running, place, frame, false, 1 << 3 | 5 << 16).unwrap();
    }
    assert_eq!(count_of(&bed, frame), before + 2);
    let seen = entry_of(&bed, &mapper, address);
    assert_eq!(seen & entry::AVAILABLE, 5 << 9);
    assert_eq!(seen & (GLOBAL | GUEST_KERNEL), GLOBAL);
    for place in places {
        assert!(destroy_grant_mapping(&bed.hv, &mapper.running, place, frame, true, None).is_err());
        destroy_grant_mapping(&bed.hv, &mapper.running, place, frame, false, None).unwrap();
    }
    assert_eq!(count_of(&bed, frame), before);
    scan::check(&bed, &[&mapper, &granter]);
}

#[test]
fn a_grant_is_replaced_by_another_mapping() {
    let bed = Bed::new(128);
    let mapper = bed.guest(1, 3);
    let granter = bed.guest(2, 3);
    let address = Guest::BASE + 0x10_000;
    let place = GrantPlace::Va(address);
    create_grant_mapping(&bed.hv, &mapper.running, place, granter.frames[1], true, 0).unwrap();
    let other = mapper.address(2);
    destroy_grant_mapping(&bed.hv, &mapper.running, place, granter.frames[1], true, Some(other)).unwrap();
    assert_eq!(entry::frame(entry_of(&bed, &mapper, address)), mapper.frames[2]);
    assert_eq!(entry_of(&bed, &mapper, other), 0);
    scan::check(&bed, &[&mapper, &granter]);
}
