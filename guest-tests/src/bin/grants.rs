//! Grant tables: what a domain gives to one, the one can use, and no more.
//!
//! The domain grants to itself, so one domain sees both ends.
#![no_std]
#![no_main]
#![expect(unsafe_code, reason = "the grant table is memory that the hypervisor writes")]

use core::sync::atomic::{AtomicU32, Ordering};

use guest_tests::{A, D, P, Page, RW, about, expect, guest_test, hypercall, read_at, update_va_mapping, write_at};
use pv_abi::grant_table::{
    GNTTABOP_COPY, GNTTABOP_MAP_GRANT_REF, GNTTABOP_QUERY_SIZE, GNTTABOP_SETUP_TABLE, GNTTABOP_UNMAP_GRANT_REF,
    GnttabCopy, GnttabMapGrantRef, GnttabQuerySize, GnttabSetupTable, GnttabUnmapGrantRef,
};
use pv_abi::xen::{DOMID_SELF, HYPERVISOR_GRANT_TABLE_OP, HYPERVISOR_XEN_VERSION};

guest_test!(grants);

const OKAY: i16 = 0;
const BAD_DOMAIN: i16 = -2;
const BAD_REFERENCE: i16 = -3;
const BAD_HANDLE: i16 = -4;
const BAD_COPY: i16 = -10;
const HOST_MAP: u32 = 2;
const READ_ONLY_MAP: u32 = 4;
const PERMIT: u16 = 1;
const READ_ONLY: u16 = 4;
const READING: u16 = 8;
const WRITING: u16 = 16;
const SOURCE_GREF: u16 = 1;
const INVLPG: u64 = 2;

static TABLE: Page = Page::new();
static GRANTED: Page = Page::new();
static WINDOW: Page = Page::new();
static COPIED: Page = Page::new();

/// The two words of an entry: flags and domain, frame.
fn entry(reference: u32) -> &'static [AtomicU32; 2] {
    let place = TABLE.va() + u64::from(reference) * 8;
    // SAFETY: The table's first page is mapped at TABLE, and its words are shared with the hypervisor.
    unsafe { &*(place as *const [AtomicU32; 2]) }
}

fn flags(reference: u32) -> u16 {
    entry(reference)[0].load(Ordering::SeqCst) as u16
}

/// Fills an entry; the flags are written last, as the protocol wants.
fn grant(reference: u32, domain: u16, mfn: u64, flags: u16) {
    let [flags_and_domain, frame] = entry(reference);
    frame.store(mfn as u32, Ordering::SeqCst);
    flags_and_domain.store(u32::from(domain) << 16 | u32::from(flags), Ordering::SeqCst);
}

fn op<T>(command: u32, operation: &mut T) -> i64 {
    hypercall(HYPERVISOR_GRANT_TABLE_OP, [u64::from(command), core::ptr::from_mut(operation) as u64, 1, 0, 0])
}

fn map(reference: u32, address: u64, flags: u32) -> GnttabMapGrantRef {
    let mut request =
        GnttabMapGrantRef { host_addr: address, flags, ref_: reference, dom: own(), ..Default::default() };
    expect("the map operation itself is no error", op(GNTTABOP_MAP_GRANT_REF, &mut request), 0);
    request
}

fn unmap(address: u64, handle: u32) -> i16 {
    let mut request = GnttabUnmapGrantRef { host_addr: address, handle, ..Default::default() };
    op(GNTTABOP_UNMAP_GRANT_REF, &mut request);
    request.status
}

/// The domain's own number: the first domain is 0.
fn own() -> u16 {
    0
}

fn grants() {
    set_up();
    mapping();
    refusals();
    copies();
}

fn set_up() {
    about("GNTTABOP_query_size");
    let mut size = GnttabQuerySize { dom: DOMID_SELF, ..Default::default() };
    expect("the size is asked", op(GNTTABOP_QUERY_SIZE, &mut size), 0);
    expect("64 frames at most", (size.status, size.max_nr_frames), (OKAY, 64));
    let mut frames = [0_u64; 1];
    let mut setup = GnttabSetupTable {
        dom: DOMID_SELF,
        nr_frames: 1,
        frame_list: frames.as_mut_ptr() as u64,
        ..Default::default()
    };
    about("GNTTABOP_setup_table");
    expect("the table is set up", op(GNTTABOP_SETUP_TABLE, &mut setup), 0);
    expect("with one frame", (setup.status, frames[0] != 0), (OKAY, true));
    let result = update_va_mapping(TABLE.va(), frames[0] << 12 | P | RW | A | D, INVLPG);
    expect("its frame can be mapped", result, 0);
    hypercall(HYPERVISOR_XEN_VERSION, [0; 5]);
}

fn mapping() {
    about("GNTTABOP_map_grant_ref GNTTABOP_unmap_grant_ref");
    let _ = write_at(GRANTED.va(), 0x1122_3344);
    grant(8, own(), GRANTED.mfn(), PERMIT);
    let mapped = map(8, WINDOW.va(), HOST_MAP);
    expect("a grant is mapped", mapped.status, OKAY);
    expect("its entry says that it is read and written", flags(8), PERMIT | READING | WRITING);
    expect("the frame is seen through the mapping", read_at(WINDOW.va()), Ok(0x1122_3344));
    expect("and written through it", write_at(WINDOW.va(), 5), Ok(()));
    expect("which the granter sees", read_at(GRANTED.va()), Ok(5));
    expect("a wrong handle is not unmapped", unmap(WINDOW.va(), mapped.handle + 77), BAD_HANDLE);
    expect("the grant is unmapped", unmap(WINDOW.va(), mapped.handle), OKAY);
    expect("its entry is as it was", flags(8), PERMIT);
    expect("its handle is gone", unmap(WINDOW.va(), mapped.handle), BAD_HANDLE);
    expect("the window is gone", read_at(WINDOW.va()).map_err(|trap| trap.vector), Err(14));
    grant(9, own(), GRANTED.mfn(), PERMIT | READ_ONLY);
    let mapped = map(9, WINDOW.va(), HOST_MAP | READ_ONLY_MAP);
    expect("a read-only grant is mapped read-only", mapped.status, OKAY);
    expect("its entry says that it is read", flags(9), PERMIT | READ_ONLY | READING);
    expect("a write through it faults", write_at(WINDOW.va(), 1).map_err(|trap| trap.vector), Err(14));
    expect("it is unmapped", unmap(WINDOW.va(), mapped.handle), OKAY);
}

fn refusals() {
    about("GNTTABOP_map_grant_ref");
    expect("a read-only grant is not mapped writable", map(9, WINDOW.va(), HOST_MAP).status, -1);
    expect("a reference that was not granted is bad", map(20, WINDOW.va(), HOST_MAP).status, -1);
    expect("a reference beyond the table is bad", map(100_000, WINDOW.va(), HOST_MAP).status, BAD_REFERENCE);
    grant(10, 77, GRANTED.mfn(), PERMIT);
    expect("another's grant is not mapped", map(10, WINDOW.va(), HOST_MAP).status, -1);
    expect("its entry is untouched", flags(10), PERMIT);
    let mut request = GnttabMapGrantRef { flags: HOST_MAP, ref_: 8, dom: 77, ..Default::default() };
    op(GNTTABOP_MAP_GRANT_REF, &mut request);
    expect("a domain that is not has no grants", request.status, BAD_DOMAIN);
}

fn copies() {
    about("GNTTABOP_copy");
    let _ = write_at(GRANTED.va() + 16, 0x77);
    let _ = write_at(COPIED.va(), 0);
    let mut copy = GnttabCopy::default();
    copy.source.domid = own();
    copy.source.u = 9;
    copy.source.offset = 16;
    copy.dest.domid = DOMID_SELF;
    copy.dest.u = COPIED.mfn();
    copy.len = 8;
    copy.flags = SOURCE_GREF;
    expect("a copy is done", (op(GNTTABOP_COPY, &mut copy), copy.status), (0, OKAY));
    expect("its bytes arrive", read_at(COPIED.va()), Ok(0x77));
    copy.source.offset = 4090;
    op(GNTTABOP_COPY, &mut copy);
    expect("a copy over a page's end is refused", copy.status, BAD_COPY);
    copy.source.offset = 0;
    copy.source.u = 10;
    op(GNTTABOP_COPY, &mut copy);
    expect("a copy of another's grant is refused", copy.status, -1);
}
