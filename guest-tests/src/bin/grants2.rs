//! Grant tables of version 2: entries of 16 bytes, status words apart, parts of pages, grants that are passed on.
//!
//! The domain grants to itself, so one domain sees both ends; what is passed on needs another domain and is refused here.
#![no_std]
#![no_main]
#![expect(unsafe_code, reason = "the grant table is memory that the hypervisor writes")]

use core::sync::atomic::{AtomicU16, AtomicU64, Ordering};

use guest_tests::{A, D, P, Page, RW, about, expect, guest_test, hypercall, read_at, update_va_mapping, write_at};
use pv_abi::grant_table::{
    GNTTABOP_COPY, GNTTABOP_GET_STATUS_FRAMES, GNTTABOP_GET_VERSION, GNTTABOP_MAP_GRANT_REF, GNTTABOP_QUERY_SIZE,
    GNTTABOP_SET_VERSION, GNTTABOP_SETUP_TABLE, GNTTABOP_SWAP_GRANT_REF, GNTTABOP_UNMAP_GRANT_REF, GnttabCopy,
    GnttabGetStatusFrames, GnttabGetVersion, GnttabMapGrantRef, GnttabQuerySize, GnttabSetVersion, GnttabSetupTable,
    GnttabSwapGrantRef, GnttabUnmapGrantRef,
};
use pv_abi::xen::{DOMID_SELF, HYPERVISOR_GRANT_TABLE_OP};

guest_test!(grants2);

const OKAY: i16 = 0;
const GENERAL_ERROR: i16 = -1;
const BAD_REFERENCE: i16 = -3;
const BAD_PAGE: i16 = -9;
const BAD_COPY: i16 = -10;
const EAGAIN: i16 = -12;
const ESRCH: i64 = -3;
const EBUSY: i64 = -16;
const EINVAL: i64 = -22;
const ERANGE: i64 = -34;
const HOST_MAP: u32 = 2;
const READ_ONLY_MAP: u32 = 4;
const PERMIT: u64 = 1;
const TRANSITIVE: u64 = 3;
const READ_ONLY: u64 = 4;
const SUB_PAGE: u64 = 1 << 8;
const READING: u16 = 8;
const WRITING: u16 = 16;
const SOURCE_GREF: u16 = 1;
const DEST_GREF: u16 = 2;
const INVLPG: u64 = 2;
/// The first domain's number.
const OWN: u16 = 0;
/// A reserved entry, which a change of version keeps.
const KEPT: u32 = 1;

static TABLE: Page = Page::new();
static STATUS: Page = Page::new();
static GRANTED: Page = Page::new();
static WINDOW: Page = Page::new();
static SECOND_WINDOW: Page = Page::new();
static COPIED: Page = Page::new();

fn grants2() {
    set_up();
    first_version();
    to_version_two();
    mapping();
    refusals();
    parts();
    passing_on();
    tampering();
    swaps();
    growing();
    to_version_one();
    back_and_forth();
}

fn op<T>(command: u32, operation: &mut T) -> i64 {
    hypercall(HYPERVISOR_GRANT_TABLE_OP, [u64::from(command), core::ptr::from_mut(operation) as u64, 1, 0, 0])
}

/// Asks for a version; the answer, and the version that there is.
fn ask_version(version: u32) -> (i64, u32) {
    let mut request = GnttabSetVersion { version };
    (op(GNTTABOP_SET_VERSION, &mut request), request.version)
}

fn status_frames(nr_frames: u32) -> (i64, i16, [u64; 2]) {
    let mut frames = [0_u64; 2];
    let mut request = GnttabGetStatusFrames {
        dom: DOMID_SELF,
        nr_frames,
        frame_list: frames.as_mut_ptr() as u64,
        ..Default::default()
    };
    (op(GNTTABOP_GET_STATUS_FRAMES, &mut request), request.status, frames)
}

fn setup(nr_frames: u32) -> (i16, u64) {
    let mut frames = [0_u64; 16];
    let frame_list = frames.as_mut_ptr() as u64;
    let mut request = GnttabSetupTable { dom: DOMID_SELF, nr_frames, frame_list, ..Default::default() };
    op(GNTTABOP_SETUP_TABLE, &mut request);
    (request.status, frames[0])
}

fn word(page: &Page, index: u32) -> &AtomicU64 {
    // SAFETY: A frame of the table is mapped at the page, and its words are shared with the hypervisor.
    unsafe { &*((page.va() + u64::from(index) * 8) as *const AtomicU64) }
}

fn bits(reference: u32) -> &'static AtomicU16 {
    // SAFETY: The first status frame is mapped at STATUS, and its words are shared with the hypervisor.
    unsafe { &*((STATUS.va() + u64::from(reference) * 2) as *const AtomicU16) }
}

fn used(reference: u32) -> u16 {
    bits(reference).load(Ordering::SeqCst)
}

/// An entry of version 1.
fn grant_one(reference: u32, domain: u16, mfn: u64, flags: u64) {
    word(&TABLE, reference).store(flags | u64::from(domain) << 16 | mfn << 32, Ordering::SeqCst);
}

/// Fills an entry of version 2; the flags are written last.
fn grant(reference: u32, first: u64, second: u64) {
    word(&TABLE, reference * 2 + 1).store(second, Ordering::SeqCst);
    word(&TABLE, reference * 2).store(first, Ordering::SeqCst);
}

fn first_word(reference: u32) -> u64 {
    word(&TABLE, reference * 2).load(Ordering::SeqCst)
}

const fn to(domain: u16) -> u64 {
    (domain as u64) << 16
}

const fn part(start: u64, length: u64) -> u64 {
    PERMIT | SUB_PAGE | start << 32 | length << 48
}

fn map(reference: u32, address: u64, flags: u32) -> GnttabMapGrantRef {
    let mut request = GnttabMapGrantRef { host_addr: address, flags, ref_: reference, dom: OWN, ..Default::default() };
    op(GNTTABOP_MAP_GRANT_REF, &mut request);
    request
}

fn unmap(address: u64, handle: u32) -> i16 {
    let mut request = GnttabUnmapGrantRef { host_addr: address, handle, ..Default::default() };
    op(GNTTABOP_UNMAP_GRANT_REF, &mut request);
    request.status
}

fn show(page: &Page, mfn: u64) -> i64 {
    update_va_mapping(page.va(), mfn << 12 | P | RW | A | D, INVLPG)
}

/// Copies from or to an entry, at an offset.
fn copy(reference: u32, offset: u16, len: u16, out: bool) -> i16 {
    let mut copy = GnttabCopy { len, flags: if out { DEST_GREF } else { SOURCE_GREF }, ..Default::default() };
    let (granted, own) = if out { (&mut copy.dest, &mut copy.source) } else { (&mut copy.source, &mut copy.dest) };
    (granted.domid, granted.u, granted.offset) = (OWN, reference.into(), offset);
    (own.domid, own.u) = (DOMID_SELF, COPIED.mfn());
    op(GNTTABOP_COPY, &mut copy);
    copy.status
}

fn set_up() {
    about("GNTTABOP_query_size GNTTABOP_setup_table");
    let mut size = GnttabQuerySize { dom: DOMID_SELF, ..Default::default() };
    op(GNTTABOP_QUERY_SIZE, &mut size);
    expect("a table begins with one frame", size.nr_frames, 1);
    let (status, mfn) = setup(1);
    expect("the table is set up", (status, show(&TABLE, mfn)), (OKAY, 0));
}

fn first_version() {
    about("GNTTABOP_set_version GNTTABOP_get_version GNTTABOP_get_status_frames");
    let version = |dom| {
        let mut request = GnttabGetVersion { dom, ..Default::default() };
        (op(GNTTABOP_GET_VERSION, &mut request), request.version)
    };
    expect("the version is 1", version(DOMID_SELF), (0, 1));
    expect("a domain that is not has no version", version(77).0, ESRCH);
    expect("there is no version 3", ask_version(3), (EINVAL, 1));
    expect("there is no version 0", ask_version(0), (EINVAL, 1));
    expect("version 1 is chosen", ask_version(1), (0, 1));
    expect("no status frames are asked for", status_frames(0).1, OKAY);
    expect("there are no status frames", status_frames(1).1, GENERAL_ERROR);
    grant_one(KEPT, OWN, GRANTED.mfn(), PERMIT);
    grant_one(9, OWN, GRANTED.mfn(), PERMIT);
    let mapped = map(9, WINDOW.va(), HOST_MAP);
    expect("a grant is mapped", mapped.status, OKAY);
    expect("the version stays while a grant is in use", ask_version(2), (EBUSY, 1));
    expect("the grant is unmapped", unmap(WINDOW.va(), mapped.handle), OKAY);
}

fn to_version_two() {
    about("GNTTABOP_set_version GNTTABOP_get_status_frames");
    let mapped = map(KEPT, WINDOW.va(), HOST_MAP);
    expect("a reserved grant is mapped", mapped.status, OKAY);
    expect("version 2 is chosen while it is", ask_version(2), (0, 2));
    expect("version 2 is chosen again", ask_version(2), (0, 2));
    expect("the reserved entry has its flags", first_word(KEPT), PERMIT | to(OWN));
    expect("and its frame", word(&TABLE, KEPT * 2 + 1).load(Ordering::SeqCst), GRANTED.mfn());
    expect("all others are gone", (first_word(9), first_word(4), word(&TABLE, 9).load(Ordering::SeqCst)), (0, 0, 0));
    let (result, status, frames) = status_frames(1);
    expect("there is a status frame", (result, status, frames[0] != 0), (0, OKAY, true));
    expect("but no second one", status_frames(2).1, GENERAL_ERROR);
    expect("it can be mapped", show(&STATUS, frames[0]), 0);
    expect("the reserved entry's use is in it", used(KEPT), READING | WRITING);
    expect("the reserved grant is unmapped", unmap(WINDOW.va(), mapped.handle), OKAY);
    expect("and no longer in use", (first_word(KEPT), used(KEPT)), (PERMIT | to(OWN), 0));
}

fn mapping() {
    about("GNTTABOP_map_grant_ref GNTTABOP_unmap_grant_ref");
    grant(200, PERMIT | to(OWN), GRANTED.mfn());
    let _ = write_at(GRANTED.va(), 0x1122);
    let mapped = map(200, WINDOW.va(), HOST_MAP);
    expect("a grant of version 2 is mapped", (mapped.status, read_at(WINDOW.va())), (OKAY, Ok(0x1122)));
    expect("its entry is as it was", first_word(200), PERMIT | to(OWN));
    expect("its status says that it is used", used(200), READING | WRITING);
    let reader = map(200, SECOND_WINDOW.va(), HOST_MAP | READ_ONLY_MAP);
    expect("it is mapped again", reader.status, OKAY);
    expect("version 1 is not chosen meanwhile", ask_version(1), (EBUSY, 2));
    expect("the writer is unmapped", unmap(WINDOW.va(), mapped.handle), OKAY);
    expect("then it is only read", used(200), READING);
    expect("the reader is unmapped", unmap(SECOND_WINDOW.va(), reader.handle), OKAY);
    expect("then it is not used", used(200), 0);
}

fn refusals() {
    about("GNTTABOP_map_grant_ref");
    let status = |first, second| {
        grant(20, first, second);
        map(20, WINDOW.va(), HOST_MAP).status
    };
    expect("a read-only grant is not mapped writable", status(PERMIT | READ_ONLY | to(OWN), GRANTED.mfn()), -1);
    expect("another's grant is not mapped", status(PERMIT | to(77), GRANTED.mfn()), GENERAL_ERROR);
    expect("an empty entry is not mapped", status(0, 0), GENERAL_ERROR);
    expect("a frame that is not is not mapped", status(PERMIT | to(OWN), 1 << 40), BAD_PAGE);
    expect("a frame of the hypervisor is not mapped", status(PERMIT | to(OWN), 0), BAD_PAGE);
    expect("none of them is in use", used(20), 0);
    expect("there are 256 entries in a frame", map(256, WINDOW.va(), HOST_MAP).status, BAD_REFERENCE);
}

fn parts() {
    about("GNTTABOP_copy");
    grant(30, part(100, 50) | to(OWN), GRANTED.mfn());
    let _ = write_at(GRANTED.va() + 104, 0x77);
    expect("a part of a page is copied", copy(30, 104, 8, false), OKAY);
    expect("its bytes arrive", read_at(COPIED.va()), Ok(0x77));
    expect("all of the part is copied", copy(30, 100, 50, false), OKAY);
    expect("what is before it is not", copy(30, 99, 8, false), GENERAL_ERROR);
    expect("what is behind it is not", copy(30, 145, 6, false), GENERAL_ERROR);
    expect("a part is written", copy(30, 120, 8, true), OKAY);
    expect("but not beyond it", copy(30, 148, 8, true), GENERAL_ERROR);
    expect("a part is not mapped", map(30, WINDOW.va(), HOST_MAP | READ_ONLY_MAP).status, GENERAL_ERROR);
    grant(31, part(4000, 65_535) | to(OWN), GRANTED.mfn());
    expect("a part that leaves its page is copied in it", copy(31, 4000, 96, false), OKAY);
    expect("and not beyond it", copy(31, 4000, 97, false), BAD_COPY);
    grant(32, part(65_535, 65_535) | to(OWN), GRANTED.mfn());
    expect("a part outside its page is nothing", copy(32, 0, 8, false), GENERAL_ERROR);
    grant(33, part(10, 0) | to(OWN), GRANTED.mfn());
    expect("nothing of an empty part is copied", copy(33, 10, 0, false), OKAY);
    expect("an empty part has no byte", copy(33, 10, 1, false), GENERAL_ERROR);
    expect("none of them is in use", [30, 31, 32, 33].map(used), [0; 4]);
}

fn passing_on() {
    about("GNTTABOP_copy");
    grant(40, TRANSITIVE | to(OWN) | u64::from(OWN) << 32, 40);
    expect("what a domain passes on to itself is not copied", copy(40, 0, 8, false), GENERAL_ERROR);
    grant(41, TRANSITIVE | to(OWN) | 77 << 32, 8);
    expect("what a domain that is not granted is not copied", copy(41, 0, 8, false), GENERAL_ERROR);
    expect("nor written", copy(41, 0, 8, true), GENERAL_ERROR);
    expect("what is passed on is not mapped", map(41, WINDOW.va(), HOST_MAP).status, GENERAL_ERROR);
    expect("none of them is in use", [40, 41].map(used), [0; 2]);
}

/// The status words are the guest's to write, and the hypervisor believes its own count.
fn tampering() {
    about("GNTTABOP_map_grant_ref GNTTABOP_unmap_grant_ref");
    grant(50, PERMIT | to(OWN), GRANTED.mfn());
    let mapped = map(50, WINDOW.va(), HOST_MAP);
    bits(50).store(0, Ordering::SeqCst);
    word(&TABLE, 100).store(0, Ordering::SeqCst);
    expect("version 1 is not chosen though nothing seems in use", ask_version(1), (EBUSY, 2));
    expect("the mapping is still there", write_at(WINDOW.va(), 9), Ok(()));
    bits(50).store(0xffff, Ordering::SeqCst);
    expect("it is unmapped", unmap(WINDOW.va(), mapped.handle), OKAY);
    expect("only the hypervisor's bits are cleared", used(50), !(READING | WRITING));
    bits(51).store(READING | WRITING, Ordering::SeqCst);
    grant(51, PERMIT | to(OWN), GRANTED.mfn());
    let mapped = map(51, WINDOW.va(), HOST_MAP | READ_ONLY_MAP);
    expect("a grant that seems in use is mapped", mapped.status, OKAY);
    expect("and unmapped", unmap(WINDOW.va(), mapped.handle), OKAY);
    expect("then a bit that was never set is left", used(51), WRITING);
    bits(50).store(0, Ordering::SeqCst);
    bits(51).store(0, Ordering::SeqCst);
}

fn swaps() {
    about("GNTTABOP_swap_grant_ref");
    grant(60, PERMIT | to(OWN), GRANTED.mfn());
    grant(61, PERMIT | READ_ONLY | to(77), 5);
    bits(60).store(0x8000, Ordering::SeqCst);
    let swap = |ref_a, ref_b| {
        let mut request = GnttabSwapGrantRef { ref_a, ref_b, ..Default::default() };
        op(GNTTABOP_SWAP_GRANT_REF, &mut request);
        request.status
    };
    expect("two entries are swapped", swap(60, 61), OKAY);
    let second = |reference: u32| word(&TABLE, reference * 2 + 1).load(Ordering::SeqCst);
    expect("with both words", (first_word(60), second(61)), (PERMIT | READ_ONLY | to(77), GRANTED.mfn()));
    expect("and their status", (used(60), used(61)), (0, 0x8000));
    let mapped = map(61, WINDOW.va(), HOST_MAP);
    expect("an entry in use is not swapped", swap(60, 61), EAGAIN);
    expect("an entry outside the table is not swapped", swap(60, 256), BAD_REFERENCE);
    unmap(WINDOW.va(), mapped.handle);
    bits(61).store(0, Ordering::SeqCst);
}

fn growing() {
    about("GNTTABOP_setup_table GNTTABOP_get_status_frames");
    expect("the table grows", setup(9).0, OKAY);
    expect("and its status words", status_frames(2).1, OKAY);
    expect("the first status frame stays", used(KEPT), 0);
    expect("an entry in the ninth frame is empty", map(9 * 256 - 1, WINDOW.va(), HOST_MAP).status, GENERAL_ERROR);
    expect("the table ends there", map(9 * 256, WINDOW.va(), HOST_MAP).status, BAD_REFERENCE);
}

fn to_version_one() {
    about("GNTTABOP_set_version");
    let frame = status_frames(1).2[0];
    expect("version 1 is not chosen while a status frame is mapped", ask_version(1), (EBUSY, 2));
    expect("the status words are still there", (used(KEPT), status_frames(2).1), (0, OKAY));
    expect("the status frame is unmapped", show(&STATUS, STATUS.mfn()), 0);
    grant(5, TRANSITIVE | to(OWN) | 77 << 32, 8);
    expect("a reserved entry that passes on keeps version 2", ask_version(1), (ERANGE, 2));
    grant(5, PERMIT | to(OWN), 1 << 32);
    expect("a reserved entry of a high frame does so, too", ask_version(1), (ERANGE, 2));
    grant(5, 0, 0);
    expect("version 1 is chosen", ask_version(1), (0, 1));
    let kept = word(&TABLE, KEPT).load(Ordering::SeqCst);
    expect("the reserved entry is kept", kept, PERMIT | to(OWN) | GRANTED.mfn() << 32);
    expect("all others are gone", word(&TABLE, 60 * 2).load(Ordering::SeqCst), 0);
    expect("the status frame cannot be mapped", show(&STATUS, frame), EBUSY);
    expect("there are no status frames", status_frames(1).1, GENERAL_ERROR);
    expect("there are 512 entries in a frame", map(9 * 512 - 1, WINDOW.va(), HOST_MAP).status, GENERAL_ERROR);
}

/// Changes the version while a reserved entry comes into use and out of it.
fn back_and_forth() {
    about("GNTTABOP_set_version");
    let mut failed = 0;
    for _ in 0..100 {
        let first = map(KEPT, WINDOW.va(), HOST_MAP);
        failed += u32::from(first.status != OKAY || ask_version(2) != (0, 2));
        let second = map(KEPT, SECOND_WINDOW.va(), HOST_MAP | READ_ONLY_MAP);
        failed += u32::from(second.status != OKAY || unmap(WINDOW.va(), first.handle) != OKAY);
        failed += u32::from(ask_version(1) != (0, 1) || unmap(SECOND_WINDOW.va(), second.handle) != OKAY);
    }
    expect("the version changes while a reserved entry is in use", failed, 0);
    let kept = word(&TABLE, KEPT).load(Ordering::SeqCst);
    expect("which is not in use in the end", kept, PERMIT | to(OWN) | GRANTED.mfn() << 32);
}
