//! Tables of version 2, and going from one version to the other.

use super::copying::{copy, side};
use super::*;

/// Asks for a version; the answer, and the version that there is.
fn ask_version(bed: &Bed, guest: &mut Guest, version: u32) -> (i64, u32) {
    let mut request = GnttabSetVersion { version };
    (guest.call_with(bed, CALL, GNTTABOP_SET_VERSION, &mut request), request.version)
}

/// Three guests with tables of a frame, of version 2.
fn guests_of_version_two() -> (Bed, Guest, Guest, Guest) {
    let (bed, mut a, mut b) = guests();
    let mut c = bed.guest(2, FRAMES);
    assert!(frame(&bed.hv, &c.domain, 0).is_ok_and(|mfn| mfn.is_some()));
    for guest in [&mut a, &mut b, &mut c] {
        assert_eq!(ask_version(&bed, guest, 2), (0, 2));
    }
    (bed, a, b, c)
}

/// Writes both words of an entry, the first one last.
fn write(bed: &Bed, granter: &Guest, reference: u32, first: u64, second: u64) {
    let place = granter.domain.grants.lock().entry(reference).expect("an entry of its table");
    bed.hv.machine.write_word(place.mfn, place.word + 1, second);
    bed.hv.machine.write_word(place.mfn, place.word, first);
}

const fn header(flags: u16, to: u16) -> u64 {
    flags as u64 | (to as u64) << 16
}

pub(super) fn grant_page(bed: &Bed, granter: &Guest, reference: u32, flags: u16, to: u16, mfn: Mfn) {
    write(bed, granter, reference, header(flags, to), mfn.0);
}

fn grant_part(bed: &Bed, granter: &Guest, reference: u32, to: u16, mfn: Mfn, (start, length): (u16, u16)) {
    let part = u64::from(start) << 32 | u64::from(length) << 48;
    write(bed, granter, reference, header(GTF_PERMIT_ACCESS | GTF_SUB_PAGE, to) | part, mfn.0);
}

fn pass_on(bed: &Bed, granter: &Guest, reference: u32, to: u16, (domain, gref): (u16, u32)) {
    write(bed, granter, reference, header(GTF_TRANSITIVE, to) | u64::from(domain) << 32, gref.into());
}

pub(super) fn bits(bed: &Bed, granter: &Guest, reference: u32) -> u16 {
    granter.domain.grants.lock().entry(reference).expect("an entry of its table").bits.read(&bed.hv.machine)
}

fn status_frames(bed: &Bed, guest: &mut Guest, nr_frames: u32) -> (i16, [u64; 2]) {
    let frame_list = guest.address(1);
    let mut request = GnttabGetStatusFrames { dom: DOMID_SELF, nr_frames, frame_list, ..Default::default() };
    guest.call_with(bed, CALL, GNTTABOP_GET_STATUS_FRAMES, &mut request);
    (request.status, guest.read(bed, frame_list))
}

#[test]
fn a_table_of_version_two_keeps_the_hypervisors_bits_apart() {
    let (bed, mut a, b, _c) = guests_of_version_two();
    let before = references(&bed, b.frames[3]);
    grant_page(&bed, &b, 255, GTF_PERMIT_ACCESS, 0, b.frames[3]);
    let mapped = map(&bed, &mut a, 2, 1, 255, GNTMAP_HOST_MAP);
    assert_eq!((mapped.status, mapped.dev_bus_addr), (GNTST_OKAY, b.frames[3].0 << 12));
    assert_eq!((flags(&bed, &b, 255), bits(&bed, &b, 255)), (GTF_PERMIT_ACCESS, GTF_READING | GTF_WRITING));
    let reader = map(&bed, &mut a, 3, 1, 255, GNTMAP_HOST_MAP | GNTMAP_READONLY);
    assert_eq!(unmap(&bed, &mut a, 2, mapped.handle), GNTST_OKAY);
    assert_eq!(bits(&bed, &b, 255), GTF_READING);
    assert_eq!(unmap(&bed, &mut a, 3, reader.handle), GNTST_OKAY);
    assert_eq!((bits(&bed, &b, 255), references(&bed, b.frames[3])), (0, before));
    assert_eq!(map(&bed, &mut a, 2, 1, 256, GNTMAP_HOST_MAP).status, GNTST_BAD_GNTREF, "half as many entries");
    assert_eq!(broken_rules(), ["GNT-05"]);
}

#[test]
fn a_status_word_that_the_granter_changes_is_not_believed() {
    let (bed, mut a, b, _c) = guests_of_version_two();
    grant_page(&bed, &b, 8, GTF_PERMIT_ACCESS, 0, b.frames[3]);
    let mapped = map(&bed, &mut a, 2, 1, 8, GNTMAP_HOST_MAP);
    let place = b.domain.grants.lock().entry(8).unwrap();
    bed.hv.machine.write_word(place.bits.mfn, place.bits.word, 0);
    assert_eq!(b.domain.grants.lock().pinned_count(), 1);
    bed.hv.machine.write_word(place.bits.mfn, place.bits.word, u64::MAX);
    assert_eq!(unmap(&bed, &mut a, 2, mapped.handle), GNTST_OKAY);
    assert_eq!(bits(&bed, &b, 8), !(GTF_READING | GTF_WRITING), "only the hypervisor's bits are touched");
    assert_eq!(bed.hv.machine.read_word(place.bits.mfn, place.bits.word) >> 16, u64::MAX >> 16);
}

#[test]
fn a_part_of_a_page_is_copied_and_not_mapped() {
    let (bed, mut a, b, _c) = guests_of_version_two();
    grant_part(&bed, &b, 8, 0, b.frames[3], (100, 50));
    b.write(&bed, b.address(3) + 100, b"inside");
    let own = side(a.frames[2].0, DOMID_SELF, 0);
    let mut from = |offset, len| copy(&bed, &mut a, side(8, 1, offset), own, len, GNTCOPY_SOURCE_GREF);
    assert_eq!(from(100, 50), GNTST_OKAY);
    assert_eq!(from(99, 6), GNTST_GENERAL_ERROR);
    assert_eq!(from(145, 6), GNTST_GENERAL_ERROR);
    assert_eq!(&a.read::<[u8; 6]>(&bed, a.address(2)), b"inside");
    assert_eq!(map(&bed, &mut a, 4, 1, 8, GNTMAP_HOST_MAP).status, GNTST_GENERAL_ERROR);
    grant_part(&bed, &b, 9, 0, b.frames[3], (4000, 65_535));
    assert_eq!(copy(&bed, &mut a, own, side(9, 1, 4000), 96, GNTCOPY_DEST_GREF), GNTST_OKAY);
    assert_eq!(copy(&bed, &mut a, own, side(9, 1, 4000), 97, GNTCOPY_DEST_GREF), GNTST_BAD_COPY_ARG);
    assert_eq!((bits(&bed, &b, 8), bits(&bed, &b, 9)), (0, 0));
    assert_eq!(references(&bed, b.frames[3]), references(&bed, b.frames[5]));
    assert_eq!(broken_rules(), ["GNT-28", "GNT-28", "GNT-06", "GNT-19"]);
}

#[test]
fn what_is_granted_to_one_can_be_passed_on_for_copies() {
    let (bed, mut a, b, c) = guests_of_version_two();
    grant_page(&bed, &c, 20, GTF_PERMIT_ACCESS, 1, c.frames[3]);
    pass_on(&bed, &b, 8, 0, (2, 20));
    c.write(&bed, c.address(3), b"from afar");
    let own = side(a.frames[2].0, DOMID_SELF, 0);
    assert_eq!(copy(&bed, &mut a, side(8, 1, 0), own, 9, GNTCOPY_SOURCE_GREF), GNTST_OKAY);
    assert_eq!(&a.read::<[u8; 9]>(&bed, a.address(2)), b"from afar");
    a.write(&bed, a.address(2), b"back");
    assert_eq!(copy(&bed, &mut a, own, side(8, 1, 64), 4, GNTCOPY_DEST_GREF), GNTST_OKAY);
    assert_eq!(&c.read::<[u8; 4]>(&bed, c.address(3) + 64), b"back");
    grant_part(&bed, &c, 21, 1, c.frames[3], (8, 8));
    pass_on(&bed, &b, 9, 0, (2, 21));
    let mut part = |offset| copy(&bed, &mut a, side(9, 1, offset), own, 8, GNTCOPY_SOURCE_GREF);
    assert_eq!((part(8), part(9)), (GNTST_OKAY, GNTST_GENERAL_ERROR));
    assert_eq!(map(&bed, &mut a, 4, 1, 8, GNTMAP_HOST_MAP).status, GNTST_GENERAL_ERROR, "not for mappings");
    assert_eq!([8, 9].map(|reference| bits(&bed, &b, reference)), [0, 0]);
    assert_eq!([20, 21].map(|reference| bits(&bed, &c, reference)), [0, 0]);
    assert_eq!(references(&bed, c.frames[3]), references(&bed, c.frames[5]));
}

#[test]
fn grants_that_are_passed_on_in_circles_lead_nowhere() {
    let (bed, mut a, b, c) = guests_of_version_two();
    let own = side(a.frames[2].0, DOMID_SELF, 0);
    pass_on(&bed, &b, 8, 0, (1, 8));
    pass_on(&bed, &b, 9, 0, (77, 8));
    pass_on(&bed, &b, 10, 0, (2, 20));
    pass_on(&bed, &c, 20, 1, (1, 10));
    grant_page(&bed, &c, 21, GTF_PERMIT_ACCESS, 0, c.frames[3]);
    pass_on(&bed, &b, 11, 0, (2, 21));
    pass_on(&bed, &b, 12, 0, (2, 9999));
    let mut read = |reference| copy(&bed, &mut a, side(reference, 1, 0), own, 9, GNTCOPY_SOURCE_GREF);
    assert_eq!(read(8), GNTST_GENERAL_ERROR, "to itself");
    assert_eq!(read(9), GNTST_GENERAL_ERROR, "to nobody");
    assert_eq!(read(10), GNTST_GENERAL_ERROR, "twice, and back");
    assert_eq!(read(11), GNTST_GENERAL_ERROR, "what was granted to another");
    assert_eq!(read(12), GNTST_BAD_GNTREF, "what is no entry");
    assert!((8..13).all(|reference| bits(&bed, &b, reference) == 0));
    assert_eq!((bits(&bed, &c, 20), bits(&bed, &c, 21)), (0, 0));
    assert_eq!([&b, &c].map(|guest| guest.domain.grants.lock().pinned_count()), [0, 0]);
    assert_eq!(broken_rules(), ["GNT-29", "GNT-30", "GNT-31", "GNT-06", "GNT-05"]);
}

#[test]
fn an_entry_that_is_ended_while_its_bits_are_set_is_not_taken() {
    let (bed, mut a, b, _c) = guests_of_version_two();
    grant_page(&bed, &b, 8, GTF_PERMIT_ACCESS | GTF_READONLY, 0, b.frames[3]);
    assert_eq!(map(&bed, &mut a, 2, 1, 8, GNTMAP_HOST_MAP).status, GNTST_GENERAL_ERROR);
    grant_page(&bed, &b, 8, GTF_PERMIT_ACCESS, 2, b.frames[3]);
    assert_eq!(map(&bed, &mut a, 2, 1, 8, GNTMAP_HOST_MAP).status, GNTST_GENERAL_ERROR);
    assert_eq!(bits(&bed, &b, 8), 0);
    assert_eq!(broken_rules(), ["GNT-07", "GNT-06"]);
}

#[test]
fn the_reserved_entries_survive_a_change_of_version() {
    let (bed, mut a, mut b) = guests();
    grant(&bed, &b, 1, GTF_PERMIT_ACCESS, 0, b.frames[3]);
    grant(&bed, &b, 9, GTF_PERMIT_ACCESS, 0, b.frames[4]);
    let mapped = map(&bed, &mut a, 2, 1, 1, GNTMAP_HOST_MAP);
    assert_eq!(ask_version(&bed, &mut b, 2), (0, 2));
    assert_eq!((flags(&bed, &b, 1), bits(&bed, &b, 1)), (GTF_PERMIT_ACCESS, GTF_READING | GTF_WRITING));
    assert_eq!(flags(&bed, &b, 9), 0, "all others are gone");
    let again = map(&bed, &mut a, 3, 1, 1, GNTMAP_HOST_MAP);
    assert_eq!(again.dev_bus_addr, b.frames[3].0 << 12);
    assert_eq!(ask_version(&bed, &mut b, 1), (0, 1));
    assert_eq!(flags(&bed, &b, 1), GTF_PERMIT_ACCESS | GTF_READING | GTF_WRITING);
    assert_eq!(unmap(&bed, &mut a, 2, mapped.handle), GNTST_OKAY);
    assert_eq!(unmap(&bed, &mut a, 3, again.handle), GNTST_OKAY);
    assert_eq!(flags(&bed, &b, 1), GTF_PERMIT_ACCESS);
}

#[test]
fn a_version_is_changed_only_where_nothing_is_lost() {
    let (bed, mut a, mut b) = guests();
    assert_eq!(ask_version(&bed, &mut b, 3), (Errno::Inval.as_return(), 1));
    assert_eq!(ask_version(&bed, &mut b, 1), (0, 1));
    grant(&bed, &b, 8, GTF_PERMIT_ACCESS, 0, b.frames[3]);
    let mapped = map(&bed, &mut a, 2, 1, 8, GNTMAP_HOST_MAP);
    assert_eq!(ask_version(&bed, &mut b, 2), (Errno::Busy.as_return(), 1));
    assert_eq!(unmap(&bed, &mut a, 2, mapped.handle), GNTST_OKAY);
    assert_eq!(ask_version(&bed, &mut b, 2), (0, 2));
    pass_on(&bed, &b, 7, 0, (2, 1));
    assert_eq!(ask_version(&bed, &mut b, 1), (Errno::Range.as_return(), 2));
    grant_page(&bed, &b, 7, GTF_PERMIT_ACCESS, 0, Mfn(1 << 32));
    assert_eq!(ask_version(&bed, &mut b, 1), (Errno::Range.as_return(), 2));
    write(&bed, &b, 7, 0, 0);
    let (okay, [status, _]) = status_frames(&bed, &mut b, 1);
    let held = frames::get_typed(&bed.hv, ClaimedMfn(status), b.domain.id, PageType::Writable);
    assert_eq!((okay, held), (GNTST_OKAY, Ok(Mfn(status))), "as a mapping holds it");
    assert_eq!(ask_version(&bed, &mut b, 1), (Errno::Busy.as_return(), 2));
    frames::put_typed(&bed.hv, Mfn(status));
    assert_eq!(ask_version(&bed, &mut b, 1), (0, 1));
    let lost = frames::get_typed(&bed.hv, ClaimedMfn(status), b.domain.id, PageType::Writable);
    assert!(lost.is_err(), "the status frame is no longer the domain's");
    let limited = GrantTable::new(4, 4).with_max_version(Version::One);
    *b.domain.grants.lock() = limited;
    assert_eq!(ask_version(&bed, &mut b, 2), (Errno::NoSys.as_return(), 1));
    assert_eq!(broken_rules(), ["GNT-16", "GNT-32", "GNT-33", "GNT-33", "GNT-34", "GNT-17"]);
}

#[test]
fn there_is_no_version_two_without_memory_for_its_status_words() {
    let (bed, _a, mut b) = guests();
    let mut taken = Vec::new();
    while let Some(mfn) = frames::allocate(&bed.hv, 0) {
        taken.push(mfn);
    }
    assert_eq!(ask_version(&bed, &mut b, 2), (Errno::NoMem.as_return(), 1));
    frames::free(&bed.hv, taken[0], 0);
    assert_eq!(ask_version(&bed, &mut b, 2), (0, 2));
    assert_eq!(broken_rules(), ["GNT-35"]);
}

#[test]
fn status_frames_come_with_the_table() {
    let (bed, mut a, mut b) = guests();
    assert_eq!(status_frames(&bed, &mut b, 0).0, GNTST_OKAY);
    assert_eq!(status_frames(&bed, &mut b, 1).0, GNTST_GENERAL_ERROR);
    assert_eq!(status_frame(&bed.hv, &b.domain, 0), Ok(None));
    let mut asked = GnttabGetVersion { dom: 1, ..Default::default() };
    assert_eq!(a.call_with(&bed, CALL, GNTTABOP_GET_VERSION, &mut asked), 0);
    assert_eq!(asked.version, 1);
    assert_eq!(ask_version(&bed, &mut b, 2), (0, 2));
    assert_eq!(a.call_with(&bed, CALL, GNTTABOP_GET_VERSION, &mut asked), 0);
    assert_eq!(asked.version, 2);
    assert_eq!(status_frames(&bed, &mut b, 2).0, GNTST_GENERAL_ERROR, "one is enough for the table");
    assert!(frame(&bed.hv, &b.domain, 8).is_ok_and(|mfn| mfn.is_some()));
    let (okay, [first, second]) = status_frames(&bed, &mut b, 2);
    assert_eq!((okay, first != second), (GNTST_OKAY, true));
    assert_eq!(status_frame(&bed.hv, &b.domain, 1), Ok(Some(Mfn(second))));
    assert_eq!(b.domain.grants.lock().max_status_size(), 8);
    assert!(status_frame(&bed.hv, &b.domain, 2).is_ok_and(|mfn| mfn.is_some()), "it grows to have it");
    assert_eq!(b.domain.grants.lock().size(), 24);
    assert_eq!(status_frame(&bed.hv, &b.domain, 8), Ok(None));
    while !relinquish(&bed.hv, &b.domain) {}
    assert_eq!(bed.hv.frames.record(Mfn(first)).count_word().count(), 0);
    assert_eq!(broken_rules(), ["GNT-18", "GNT-18"]);
}

#[test]
fn a_large_table_is_cleared_frame_by_frame_where_something_waits() {
    let (bed, mut a, mut b) = guests();
    assert!(frame(&bed.hv, &b.domain, 3).is_ok_and(|mfn| mfn.is_some()));
    let frames = |guest: &Guest| (0..5).map(|n| guest.domain.grants.lock().frame(n)).collect::<Vec<_>>();
    let before = frames(&b);
    for reference in [7, 8, 511, 512, 2047] {
        grant(&bed, &b, reference, GTF_PERMIT_ACCESS, 0, b.frames[3]);
    }
    bed.hv.machine.interrupt_after(Some(0));
    for (version, other) in [(2, 1023), (1, 2047)] {
        b.continued = 0;
        assert_eq!(ask_version(&bed, &mut b, version), (0, version));
        assert_eq!((b.continued, frames(&b)), (3, before.clone()), "the same frames, one at a time");
        bed.hv.machine.interrupt_after(None);
        assert_eq!(map(&bed, &mut a, 2, 1, other, GNTMAP_HOST_MAP).status, GNTST_GENERAL_ERROR, "it grants nothing");
        let kept = map(&bed, &mut a, 2, 1, 7, GNTMAP_HOST_MAP);
        assert_eq!((kept.status, unmap(&bed, &mut a, 2, kept.handle)), (GNTST_OKAY, GNTST_OKAY));
        bed.hv.machine.interrupt_after(Some(0));
    }
    while !relinquish(&bed.hv, &b.domain) {}
    assert_eq!(bed.hv.frames.record(before[3].expect("a frame")).count_word().count(), 0);
}

#[test]
fn a_frame_that_is_not_cleared_yet_holds_no_entries() {
    let (bed, mut a, mut b) = guests();
    assert!(frame(&bed.hv, &b.domain, 1).is_ok_and(|mfn| mfn.is_some()));
    grant(&bed, &b, 512, GTF_PERMIT_ACCESS, 0, b.frames[3]);
    crate::grant::version::switch(&bed.hv, &b.domain, Version::Two).expect("nothing is in use");
    let early = map(&bed, &mut a, 2, 1, 256, GNTMAP_HOST_MAP);
    assert_eq!((early.status, b.domain.grants.lock().size()), (GNTST_BAD_GNTREF, 1));
    let asked = ask_version(&bed, &mut b, 2);
    assert_eq!((asked, b.domain.grants.lock().size()), ((0, 2), 2), "whoever asks next finishes it");
}

#[test]
fn entries_of_version_two_are_swapped_with_their_status() {
    let (bed, mut a, mut b, _c) = guests_of_version_two();
    grant_page(&bed, &b, 8, GTF_PERMIT_ACCESS, 0, b.frames[3]);
    grant_part(&bed, &b, 9, 0, b.frames[4], (1, 2));
    let place = b.domain.grants.lock().entry(8).unwrap();
    place.bits.set(&bed.hv.machine, 0x8000);
    let mut request = GnttabSwapGrantRef { ref_a: 8, ref_b: 9, ..Default::default() };
    b.call_with(&bed, CALL, GNTTABOP_SWAP_GRANT_REF, &mut request);
    assert_eq!(request.status, GNTST_OKAY);
    assert_eq!((bits(&bed, &b, 8), bits(&bed, &b, 9)), (0, 0x8000));
    assert_eq!(flags(&bed, &b, 8), GTF_PERMIT_ACCESS | GTF_SUB_PAGE);
    assert_eq!(map(&bed, &mut a, 2, 1, 9, GNTMAP_HOST_MAP).dev_bus_addr, b.frames[3].0 << 12);
}
