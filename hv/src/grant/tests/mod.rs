//! What grants do, one behaviour a test.

mod copying;
mod model;
mod version;
mod version_model;

use alloc::vec::Vec;

use pv_abi::grant_table::*;
use pv_abi::xen::HYPERVISOR_GRANT_TABLE_OP as CALL;

use super::*;
use crate::fake::{Bed, Event, Guest, broken_rules};
use crate::frames::PageType;
use crate::hardware::GuestFault;

/// Frames that each guest has: 0 for arguments, 1 and up to grant or to map over.
const FRAMES: usize = 12;

fn guests() -> (Bed, Guest, Guest) {
    broken_rules();
    let bed = Bed::new(256);
    let (a, b) = (bed.guest(0, FRAMES), bed.guest(1, FRAMES));
    for guest in [&a, &b] {
        assert!(frame(&bed.hv, &guest.domain, 0).is_ok_and(|mfn| mfn.is_some()));
    }
    (bed, a, b)
}

/// Writes an entry of a guest's table, as the guest would.
fn grant(bed: &Bed, granter: &Guest, reference: u32, flags: u16, to: u16, mfn: Mfn) {
    let place = granter.domain.grants.lock().entry(reference).expect("an entry of its table");
    bed.hv.machine.write_word(place.mfn, place.word, u64::from(flags) | u64::from(to) << 16 | mfn.0 << 32);
}

fn flags(bed: &Bed, granter: &Guest, reference: u32) -> u16 {
    let place = granter.domain.grants.lock().entry(reference).expect("an entry of its table");
    place.read(&bed.hv.machine).flags()
}

/// Maps over the mapper's frame `over`.
fn map(bed: &Bed, mapper: &mut Guest, over: usize, granter: u16, reference: u32, flags: u32) -> GnttabMapGrantRef {
    let host_addr = mapper.address(over);
    let mut request = GnttabMapGrantRef { host_addr, flags, ref_: reference, dom: granter, ..Default::default() };
    assert_eq!(mapper.call_with(bed, CALL, GNTTABOP_MAP_GRANT_REF, &mut request), 0);
    request
}

fn unmap(bed: &Bed, mapper: &mut Guest, over: usize, handle: u32) -> i16 {
    let mut request = GnttabUnmapGrantRef { host_addr: mapper.address(over), handle, ..Default::default() };
    assert_eq!(mapper.call_with(bed, CALL, GNTTABOP_UNMAP_GRANT_REF, &mut request), 0);
    request.status
}

fn references(bed: &Bed, mfn: Mfn) -> (u32, u32) {
    let record = bed.hv.frames.record(mfn);
    (record.count_word().count(), record.type_word().count())
}

#[test]
fn a_granted_frame_is_shared_and_unmapped_without_a_trace() {
    let (bed, mut a, b) = guests();
    let mfn = b.frames[3];
    let before = references(&bed, mfn);
    grant(&bed, &b, 8, GTF_PERMIT_ACCESS, 0, mfn);
    let mapped = map(&bed, &mut a, 2, 1, 8, GNTMAP_HOST_MAP);
    assert_eq!((mapped.status, mapped.dev_bus_addr), (GNTST_OKAY, mfn.0 << 12));
    assert_eq!(flags(&bed, &b, 8), GTF_PERMIT_ACCESS | GTF_READING | GTF_WRITING);
    a.write(&bed, a.address(2), &0x1234_u64);
    assert_eq!(b.read::<u64>(&bed, b.address(3)), 0x1234);
    assert_eq!(unmap(&bed, &mut a, 2, mapped.handle), GNTST_OKAY);
    assert_eq!(flags(&bed, &b, 8), GTF_PERMIT_ACCESS);
    assert_eq!(references(&bed, mfn), before);
    a.enter(&bed);
    let address = a.address(2);
    assert_eq!(bed.hv.machine.copy_from_guest(address, &mut [0]), Err(GuestFault(address)));
    assert_eq!(unmap(&bed, &mut a, 2, mapped.handle), GNTST_BAD_HANDLE);
    assert_eq!(broken_rules(), ["GNT-12"]);
}

#[test]
fn a_read_only_mapping_cannot_be_written_and_says_only_reading() {
    let (bed, mut a, b) = guests();
    grant(&bed, &b, 8, GTF_PERMIT_ACCESS | GTF_READONLY, 0, b.frames[3]);
    let mapped = map(&bed, &mut a, 2, 1, 8, GNTMAP_HOST_MAP | GNTMAP_READONLY);
    assert_eq!(mapped.status, GNTST_OKAY);
    assert_eq!(flags(&bed, &b, 8), GTF_PERMIT_ACCESS | GTF_READONLY | GTF_READING);
    a.enter(&bed);
    assert!(bed.hv.machine.copy_to_guest(a.address(2), &[1]).is_err());
    assert_eq!(unmap(&bed, &mut a, 2, mapped.handle), GNTST_OKAY);
}

#[test]
fn the_writing_bit_goes_with_the_last_writer_and_the_reading_bit_with_the_last_user() {
    let (bed, mut a, b) = guests();
    grant(&bed, &b, 8, GTF_PERMIT_ACCESS, 0, b.frames[3]);
    let reader = map(&bed, &mut a, 2, 1, 8, GNTMAP_HOST_MAP | GNTMAP_READONLY);
    let first = map(&bed, &mut a, 3, 1, 8, GNTMAP_HOST_MAP);
    let second = map(&bed, &mut a, 4, 1, 8, GNTMAP_HOST_MAP);
    let hypervisor_bits = |bed: &Bed| flags(bed, &b, 8) & (GTF_READING | GTF_WRITING);
    unmap(&bed, &mut a, 3, first.handle);
    assert_eq!(hypervisor_bits(&bed), GTF_READING | GTF_WRITING);
    unmap(&bed, &mut a, 4, second.handle);
    assert_eq!(hypervisor_bits(&bed), GTF_READING);
    unmap(&bed, &mut a, 2, reader.handle);
    assert_eq!(hypervisor_bits(&bed), 0);
}

#[test]
fn an_entry_in_use_keeps_meaning_what_it_meant() {
    let (bed, mut a, b) = guests();
    grant(&bed, &b, 8, GTF_PERMIT_ACCESS, 0, b.frames[3]);
    let first = map(&bed, &mut a, 2, 1, 8, GNTMAP_HOST_MAP);
    grant(&bed, &b, 8, GTF_PERMIT_ACCESS | GTF_READING | GTF_WRITING, 0, b.frames[4]);
    let second = map(&bed, &mut a, 3, 1, 8, GNTMAP_HOST_MAP);
    assert_eq!(second.dev_bus_addr, b.frames[3].0 << 12);
    assert_eq!(unmap(&bed, &mut a, 2, first.handle), GNTST_OKAY);
    assert_eq!(unmap(&bed, &mut a, 3, second.handle), GNTST_OKAY);
}

#[test]
fn a_mapping_for_devices_gives_the_address_and_holds_the_frame() {
    let (bed, mut a, b) = guests();
    let mfn = b.frames[3];
    let before = references(&bed, mfn);
    grant(&bed, &b, 8, GTF_PERMIT_ACCESS, 0, mfn);
    let mapped = map(&bed, &mut a, 2, 1, 8, GNTMAP_DEVICE_MAP | GNTMAP_HOST_MAP);
    assert_eq!(unmap(&bed, &mut a, 2, mapped.handle), GNTST_OKAY);
    assert_ne!(flags(&bed, &b, 8) & GTF_WRITING, 0, "the devices' mapping is left");
    let mut request = GnttabUnmapGrantRef { dev_bus_addr: 0x5000, handle: mapped.handle, ..Default::default() };
    a.call_with(&bed, CALL, GNTTABOP_UNMAP_GRANT_REF, &mut request);
    assert_eq!(request.status, GNTST_BAD_DEV_ADDR);
    request.dev_bus_addr = mfn.0 << 12;
    a.call_with(&bed, CALL, GNTTABOP_UNMAP_GRANT_REF, &mut request);
    assert_eq!(request.status, GNTST_OKAY);
    assert_eq!(flags(&bed, &b, 8), GTF_PERMIT_ACCESS);
    assert_eq!(references(&bed, mfn), before);
    assert_eq!(broken_rules(), ["GNT-13"]);
}

#[test]
fn a_mapping_can_be_made_by_the_address_of_its_entry() {
    let (bed, mut a, b) = guests();
    grant(&bed, &b, 8, GTF_PERMIT_ACCESS, 0, b.frames[3]);
    let host_addr = (a.tables[3].0 << 12) + 3 * 8;
    let flags = GNTMAP_HOST_MAP | GNTMAP_CONTAINS_PTE;
    let mut request = GnttabMapGrantRef { host_addr, flags, ref_: 8, dom: 1, ..Default::default() };
    a.call_with(&bed, CALL, GNTTABOP_MAP_GRANT_REF, &mut request);
    assert_eq!(request.status, GNTST_OKAY);
    a.write(&bed, a.address(2), &77_u32);
    assert_eq!(b.read::<u32>(&bed, b.address(3)), 77);
    bed.hv.machine.take_events();
    let mut undo = GnttabUnmapGrantRef { host_addr, handle: request.handle, ..Default::default() };
    a.call_with(&bed, CALL, GNTTABOP_UNMAP_GRANT_REF, &mut undo);
    assert_eq!(undo.status, GNTST_OKAY);
    assert!(bed.hv.machine.take_events().iter().any(|event| matches!(event, Event::Flush(_))));
}

#[test]
fn unmap_and_replace_moves_what_is_mapped_elsewhere() {
    let (bed, mut a, b) = guests();
    grant(&bed, &b, 8, GTF_PERMIT_ACCESS, 0, b.frames[3]);
    let mapped = map(&bed, &mut a, 2, 1, 8, GNTMAP_HOST_MAP);
    a.write(&bed, a.address(5), &55_u64);
    let mut request = GnttabUnmapAndReplace {
        host_addr: a.address(2),
        new_addr: a.address(5),
        handle: mapped.handle,
        ..Default::default()
    };
    a.call_with(&bed, CALL, GNTTABOP_UNMAP_AND_REPLACE, &mut request);
    assert_eq!(request.status, GNTST_OKAY);
    assert_eq!(a.read::<u64>(&bed, a.address(2)), 55);
    assert!(bed.hv.machine.copy_from_guest(a.address(5), &mut [0]).is_err());
}

#[test]
fn each_refused_mapping_says_why_and_leaves_nothing() {
    let (bed, mut a, b) = guests();
    let mfn = b.frames[3];
    let before = references(&bed, mfn);
    grant(&bed, &b, 8, GTF_PERMIT_ACCESS, 2, mfn);
    grant(&bed, &b, 9, GTF_PERMIT_ACCESS | GTF_READONLY, 0, mfn);
    grant(&bed, &b, 10, GTF_ACCEPT_TRANSFER, 0, mfn);
    grant(&bed, &b, 11, GTF_PERMIT_ACCESS, 0, Mfn(0xffff_ffff));
    grant(&bed, &b, 12, GTF_PERMIT_ACCESS, 0, a.frames[3]);
    grant(&bed, &b, 13, GTF_PERMIT_ACCESS, 0, b.tables[3]);
    grant(&bed, &b, 14, GTF_PERMIT_ACCESS, 0, mfn);
    let mut status = |dom, reference, flags| map(&bed, &mut a, 2, dom, reference, flags).status;
    let host = GNTMAP_HOST_MAP;
    assert_eq!(status(1, 8, 0), GNTST_BAD_GNTREF);
    assert_eq!(status(9, 8, host), GNTST_BAD_DOMAIN);
    assert_eq!(status(1, 512, host), GNTST_BAD_GNTREF);
    assert_eq!(status(1, 8, host), GNTST_GENERAL_ERROR, "granted to another");
    assert_eq!(status(1, 9, host), GNTST_GENERAL_ERROR, "granted for reading");
    assert_eq!(status(1, 10, host), GNTST_GENERAL_ERROR, "not for access");
    assert_eq!(status(1, 11, host), GNTST_BAD_PAGE, "no such frame");
    assert_eq!(status(1, 12, host), GNTST_BAD_PAGE, "not the granter's");
    assert_eq!(status(1, 13, host), GNTST_GENERAL_ERROR, "a page table");
    assert_eq!(status(1, 13, host | GNTMAP_READONLY), GNTST_OKAY, "which may be read");
    let mut request =
        GnttabMapGrantRef { host_addr: 0x40_0000_0000, flags: host, ref_: 14, dom: 1, ..Default::default() };
    a.call_with(&bed, CALL, GNTTABOP_MAP_GRANT_REF, &mut request);
    assert_eq!(request.status, GNTST_GENERAL_ERROR, "there is no table for that address");
    assert_eq!(references(&bed, mfn), before);
    assert!(
        (8..15).filter(|reference| *reference != 13).all(|reference| flags(&bed, &b, reference) & GTF_READING == 0)
    );
    b.domain.lifecycle.lock().dying = true;
    assert_eq!(map(&bed, &mut a, 3, 1, 14, host).status, GNTST_GENERAL_ERROR);
    assert_eq!(
        broken_rules(),
        ["GNT-02", "GNT-03", "GNT-05", "GNT-06", "GNT-07", "GNT-06", "GNT-10", "GNT-10", "GNT-11", "MMU-25", "GNT-27"]
    );
}

#[test]
fn an_entry_that_keeps_changing_is_not_taken() {
    let (bed, mut a, b) = guests();
    grant(&bed, &b, 8, GTF_PERMIT_ACCESS, 0, b.frames[3]);
    let place = b.domain.grants.lock().entry(8).expect("an entry");
    bed.hv.machine.disturb(place.mfn, place.word, GTF_PWT.into(), 4);
    let mapped = map(&bed, &mut a, 2, 1, 8, GNTMAP_HOST_MAP);
    assert_eq!(mapped.status, GNTST_OKAY, "it was still in time");
    unmap(&bed, &mut a, 2, mapped.handle);
    bed.hv.machine.disturb(place.mfn, place.word, GTF_PWT.into(), 5);
    assert_eq!(map(&bed, &mut a, 2, 1, 8, GNTMAP_HOST_MAP).status, GNTST_GENERAL_ERROR);
    assert_eq!(flags(&bed, &b, 8) & GTF_READING, 0);
    assert_eq!(broken_rules(), ["GNT-08"]);
}

#[test]
fn an_entry_in_use_by_one_domain_is_not_taken_by_another() {
    let (bed, mut a, b) = guests();
    let mut c = bed.guest(2, 4);
    grant(&bed, &b, 8, GTF_PERMIT_ACCESS, 0, b.frames[3]);
    let first = map(&bed, &mut a, 2, 1, 8, GNTMAP_HOST_MAP);
    grant(&bed, &b, 8, GTF_PERMIT_ACCESS, 2, b.frames[4]);
    let second = map(&bed, &mut c, 2, 1, 8, GNTMAP_HOST_MAP);
    assert_eq!((first.status, second.status), (GNTST_OKAY, GNTST_GENERAL_ERROR));
    assert_eq!(broken_rules(), ["GNT-09"]);
}

#[test]
fn mappings_are_limited_and_handles_used_again() {
    let (bed, mut a, b) = guests();
    *a.domain.grants.lock() = GrantTable::new(4, 1);
    grant(&bed, &b, 8, GTF_PERMIT_ACCESS, 0, b.frames[3]);
    let device = GNTMAP_DEVICE_MAP | GNTMAP_READONLY;
    let handles: Vec<u32> = (0..256).map(|_| map(&bed, &mut a, 2, 1, 8, device).handle).collect();
    assert_eq!(map(&bed, &mut a, 2, 1, 8, device).status, GNTST_NO_SPACE);
    let dev_bus_addr = b.frames[3].0 << 12;
    let mut request = GnttabUnmapGrantRef { dev_bus_addr, handle: handles[100], ..Default::default() };
    a.call_with(&bed, CALL, GNTTABOP_UNMAP_GRANT_REF, &mut request);
    let again = map(&bed, &mut a, 2, 1, 8, device);
    assert_eq!((again.status, again.handle), (GNTST_OKAY, 100));
    assert_eq!(broken_rules(), ["GNT-04"]);
}

#[test]
fn a_frame_outlives_its_granter_while_it_is_mapped() {
    let (bed, mut a, b) = guests();
    let mfn = b.frames[3];
    grant(&bed, &b, 8, GTF_PERMIT_ACCESS, 0, mfn);
    let mapped = map(&bed, &mut a, 2, 1, 8, GNTMAP_HOST_MAP);
    b.domain.lifecycle.lock().dying = true;
    while !relinquish(&bed.hv, &b.domain) {}
    a.write(&bed, a.address(2), &1_u8);
    assert_eq!(unmap(&bed, &mut a, 2, mapped.handle), GNTST_OKAY);
    assert_eq!(b.domain.grants.lock().pinned_count(), 0);
}

#[test]
fn what_a_dying_domain_had_mapped_is_released() {
    let (bed, mut a, b) = guests();
    for reference in 8..11 {
        grant(&bed, &b, reference, GTF_PERMIT_ACCESS, 0, b.frames[reference as usize - 5]);
        let over = reference as usize - 6;
        assert_eq!(map(&bed, &mut a, over, 1, reference, GNTMAP_HOST_MAP).status, GNTST_OKAY);
    }
    let mut steps = 0;
    while !relinquish(&bed.hv, &a.domain) {
        steps += 1;
    }
    assert!(steps >= 2, "{steps}");
    assert_eq!(b.domain.grants.lock().pinned_count(), 0);
    assert!((8..11).all(|reference| flags(&bed, &b, reference) == GTF_PERMIT_ACCESS));
    let held = references(&bed, b.frames[3]);
    assert_eq!(held, (3, 2), "the entry in the page table is left: owner, its own mapping, the other's");
}

#[test]
fn a_batch_stops_and_goes_on() {
    let (bed, mut a, b) = guests();
    let place = a.address(0);
    for n in 0..4_u32 {
        grant(&bed, &b, 8 + n, GTF_PERMIT_ACCESS, 0, b.frames[3 + n as usize]);
        let host_addr = a.address(2 + n as usize);
        let request =
            GnttabMapGrantRef { host_addr, flags: GNTMAP_HOST_MAP, ref_: 8 + n, dom: 1, ..Default::default() };
        a.write(&bed, place + u64::from(n) * 32, &request);
    }
    bed.hv.machine.interrupt_after(Some(0));
    assert_eq!(a.call(&bed, CALL, [GNTTABOP_MAP_GRANT_REF.into(), place, 4, 0, 0]), 0);
    assert_eq!(a.continued, 3);
    let handles: Vec<u32> = (0..4).map(|n| a.read::<GnttabMapGrantRef>(&bed, place + n * 32).handle).collect();
    assert_eq!(handles, [0, 1, 2, 3]);
}

#[test]
fn a_table_grows_when_it_is_set_up_and_no_further_than_it_may() {
    let (bed, mut a, mut b) = guests();
    *b.domain.grants.lock() = GrantTable::new(3, 1);
    let mut request =
        GnttabSetupTable { dom: DOMID_SELF, nr_frames: 3, frame_list: b.address(1), ..Default::default() };
    bed.hv.machine.interrupt_after(Some(0));
    assert_eq!(b.call_with(&bed, CALL, GNTTABOP_SETUP_TABLE, &mut request), 0);
    assert_eq!((request.status, b.continued), (GNTST_OKAY, 3));
    let frames: [u64; 3] = b.read(&bed, b.address(1));
    assert_eq!(Some(Mfn(frames[2])), b.domain.grants.lock().frame(2));
    request.nr_frames = 4;
    b.call_with(&bed, CALL, GNTTABOP_SETUP_TABLE, &mut request);
    assert_eq!(request.status, GNTST_GENERAL_ERROR);
    assert_eq!(frame(&bed.hv, &b.domain, 3), Ok(None));
    let mut size = GnttabQuerySize { dom: 1, ..Default::default() };
    a.call_with(&bed, CALL, GNTTABOP_QUERY_SIZE, &mut size);
    assert_eq!((size.status, size.nr_frames, size.max_nr_frames), (GNTST_OKAY, 3, 3));
    size.dom = 0;
    b.call_with(&bed, CALL, GNTTABOP_QUERY_SIZE, &mut size);
    assert_eq!(size.status, GNTST_PERMISSION_DENIED);
    size.dom = 5;
    b.call_with(&bed, CALL, GNTTABOP_QUERY_SIZE, &mut size);
    assert_eq!(size.status, GNTST_BAD_DOMAIN);
    assert_eq!(broken_rules(), ["GNT-15", "GNT-14", "GNT-03"]);
}

#[test]
fn what_is_no_operation_is_refused() {
    let (bed, _a, mut b) = guests();
    assert_eq!(b.call(&bed, CALL, [GNTTABOP_DUMP_TABLE.into(), 0, 1, 0, 0]), Errno::NoSys.as_return());
    assert_eq!(b.call(&bed, CALL, [GNTTABOP_QUERY_SIZE.into(), 0, 2, 0, 0]), Errno::Inval.as_return());
    assert_eq!(b.call(&bed, CALL, [GNTTABOP_COPY.into(), 0, 1 << 31, 0, 0]), Errno::Inval.as_return());
    assert_eq!(broken_rules(), ["HYP-03", "GNT-01", "GNT-01"]);
}

#[test]
fn a_frame_is_not_given_away() {
    let (bed, mut a, b) = guests();
    let mfn = a.frames[4];
    let before = references(&bed, mfn);
    grant(&bed, &b, 8, GTF_ACCEPT_TRANSFER, 0, Mfn(0));
    let mut request = GnttabTransfer { mfn: mfn.0, domid: 1, ref_: 8, ..Default::default() };
    assert_eq!(a.call_with(&bed, CALL, GNTTABOP_TRANSFER, &mut request), 0);
    assert_eq!(request.status, GNTST_BAD_PAGE);
    assert_eq!((references(&bed, mfn), flags(&bed, &b, 8)), (before, GTF_ACCEPT_TRANSFER));
    assert_eq!(broken_rules(), ["GNT-22"]);
}

#[test]
fn entries_are_swapped_unless_they_are_in_use() {
    let (bed, mut a, mut b) = guests();
    grant(&bed, &b, 8, GTF_PERMIT_ACCESS, 0, b.frames[3]);
    grant(&bed, &b, 9, GTF_PERMIT_ACCESS | GTF_READONLY, 0, b.frames[4]);
    let swap = |b: &mut Guest, ref_a, ref_b| {
        let mut request = GnttabSwapGrantRef { ref_a, ref_b, ..Default::default() };
        b.call_with(&bed, CALL, GNTTABOP_SWAP_GRANT_REF, &mut request);
        request.status
    };
    assert_eq!(swap(&mut b, 8, 9), GNTST_OKAY);
    assert_eq!(flags(&bed, &b, 8), GTF_PERMIT_ACCESS | GTF_READONLY);
    assert_eq!(swap(&mut b, 8, 512), GNTST_BAD_GNTREF);
    let mapped = map(&bed, &mut a, 2, 1, 9, GNTMAP_HOST_MAP);
    assert_eq!(mapped.dev_bus_addr, b.frames[3].0 << 12);
    assert_eq!(swap(&mut b, 8, 9), GNTST_EAGAIN);
    assert_eq!(swap(&mut b, 9, 9), GNTST_OKAY);
    assert_eq!(broken_rules(), ["GNT-05", "GNT-23"]);
}

#[test]
fn caches_are_flushed_of_what_one_may_reach() {
    let (bed, mut a, b) = guests();
    let flush = |a: &mut Guest, mfn: Mfn, offset, length, op| {
        let mut request = GnttabCacheFlush { a: mfn.0 << 12, offset, length, op };
        a.call_with(&bed, CALL, GNTTABOP_CACHE_FLUSH, &mut request)
    };
    let (own, other) = (a.frames[2], b.frames[3]);
    let inval = Errno::Inval.as_return();
    assert_eq!(flush(&mut a, own, 0, 4096, GNTTAB_CACHE_CLEAN), 0);
    assert_eq!(flush(&mut a, own, 1, 4096, GNTTAB_CACHE_CLEAN), inval);
    assert_eq!(flush(&mut a, own, 0, 64, 8), inval);
    assert_eq!(flush(&mut a, own, 0, 64, GNTTAB_CACHE_INVAL), Errno::OpNotSupp.as_return());
    assert_eq!(flush(&mut a, other, 0, 64, GNTTAB_CACHE_CLEAN), inval);
    assert_eq!(flush(&mut a, Mfn(0), 0, 64, GNTTAB_CACHE_CLEAN), Errno::Perm.as_return());
    grant(&bed, &b, 8, GTF_PERMIT_ACCESS, 0, other);
    map(&bed, &mut a, 4, 1, 8, GNTMAP_HOST_MAP);
    assert_eq!(flush(&mut a, other, 0, 64, GNTTAB_CACHE_CLEAN), 0);
    assert_eq!(broken_rules(), ["GNT-24", "GNT-24", "GNT-25", "GNT-26", "GNT-26"]);
}

#[test]
fn a_granted_frame_stays_what_it_is() {
    let (bed, mut a, b) = guests();
    grant(&bed, &b, 8, GTF_PERMIT_ACCESS, 0, b.frames[3]);
    assert_eq!(map(&bed, &mut a, 2, 1, 8, GNTMAP_DEVICE_MAP).status, GNTST_OKAY);
    let writable = bed.hv.frames.record(b.frames[3]).type_word().count();
    assert_eq!(writable, 2, "its own mapping, and the grant's");
    let retyped = frames::get_typed(&bed.hv, b.frames[3].into(), b.domain.id, PageType::Descriptor);
    assert!(retyped.is_err());
}
