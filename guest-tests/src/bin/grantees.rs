//! Grants between two domains: what one uses of another's, how often, through a third entry, and after its end.
//!
//! The first domain makes a second one and maps its grant table as a toolstack does, so it writes both tables.
#![no_std]
#![no_main]
#![expect(unsafe_code, reason = "grant tables are memory that the hypervisor writes")]

use core::cell::UnsafeCell;
use core::sync::atomic::{AtomicU64, Ordering};

use guest_tests::child::{Child, info, usual};
use guest_tests::errno::{EINVAL, ENOSYS, EOPNOTSUPP, EPERM, ESRCH};
use guest_tests::{A, D, P, Page, RW, about, differs, expect, guest_test, hypercall, mfn_of, read_at, say, start_info};
use guest_tests::{entry_address, update_va_mapping, write_at};
use pv_abi::domctl::DomctlCreatedomain;
use pv_abi::grant_table::{
    GNTCOPY_DEST_GREF, GNTCOPY_SOURCE_GREF, GNTMAP_CONTAINS_PTE, GNTMAP_DEVICE_MAP, GNTMAP_HOST_MAP, GNTMAP_READONLY,
    GNTST_BAD_DEV_ADDR, GNTST_BAD_DOMAIN, GNTST_BAD_GNTREF, GNTST_BAD_PAGE, GNTST_GENERAL_ERROR, GNTST_NO_SPACE,
    GNTST_OKAY, GNTST_PERMISSION_DENIED, GNTTAB_CACHE_CLEAN, GNTTAB_CACHE_INVAL, GNTTAB_CACHE_SOURCE_GREF,
    GNTTABOP_CACHE_FLUSH, GNTTABOP_COPY, GNTTABOP_GET_VERSION, GNTTABOP_MAP_GRANT_REF, GNTTABOP_QUERY_SIZE,
    GNTTABOP_SET_VERSION, GNTTABOP_SETUP_TABLE, GNTTABOP_TRANSFER, GNTTABOP_UNMAP_AND_REPLACE,
    GNTTABOP_UNMAP_GRANT_REF, GnttabCacheFlush, GnttabCopy, GnttabGetVersion, GnttabMapGrantRef, GnttabSetVersion,
    GnttabSetupTable, GnttabTransfer, GnttabUnmapAndReplace, GnttabUnmapGrantRef,
};
use pv_abi::memory::{MemAcquireResource, XENMEM_ACQUIRE_RESOURCE};
use pv_abi::xen::{DOMID_SELF, HYPERVISOR_GRANT_TABLE_OP, HYPERVISOR_MEMORY_OP};

guest_test!(grantees);

/// The second domain's number.
const CHILD: u16 = 5;
/// The first domain's number.
const OWN: u16 = 0;
const PERMIT: u64 = 1;
const TRANSITIVE: u64 = 3;
const INVLPG: u64 = 2;

static TABLE: Page = Page::new();
static CHILDS_TABLE: Page = Page::new();
static GRANTED: Page = Page::new();
static WINDOW: Page = Page::new();
static SECOND_WINDOW: Page = Page::new();
static COPIED: Page = Page::new();

/// How many uses are tried at once.
const BATCH: usize = 512;
/// Uses of one entry, and one more.
const USES: usize = 65_536;

struct Batch<T, const SIZE: usize>(UnsafeCell<[T; SIZE]>);
// SAFETY: A guest test has one vCPU.
unsafe impl<T, const SIZE: usize> Sync for Batch<T, SIZE> {}

impl<T, const SIZE: usize> Batch<T, SIZE> {
    /// The elements; one user at a time.
    #[expect(clippy::mut_from_ref, reason = "a guest test has one vCPU, and no two functions use a batch at once")]
    fn get(&self) -> &mut [T; SIZE] {
        // SAFETY: One vCPU, and no two functions use a batch at once.
        unsafe { &mut *self.0.get() }
    }
}

fn grantees() {
    let version_one = DomctlCreatedomain { grant_opts: 1, ..usual() };
    let Some(child) = Child::made_as(CHILD, version_one) else {
        say!("guest-test: a domain is made: FAILED it was refused");
        return;
    };
    child.start();
    tables(&child);
    arguments();
    places();
    replacing();
    flushing(child.frames[7]);
    transfers(&child);
    copies();
    in_use(&child);
    uses();
    limits(&child);
    versions(&child);
    let _ = update_va_mapping(CHILDS_TABLE.va(), 0, INVLPG);
    expect("the domain is destroyed with all of its mappings", child.destroy(), 0);
    expect("none of which is left", word(&TABLE, 100).load(Ordering::SeqCst) & 0x18, 0);
    passing_on();
    ending();
}

fn op<T>(command: u32, operation: &mut T) -> i64 {
    hypercall(HYPERVISOR_GRANT_TABLE_OP, [command.into(), core::ptr::from_mut(operation) as u64, 1, 0, 0])
}

fn word(page: &Page, index: u32) -> &AtomicU64 {
    // SAFETY: A frame of a table is mapped at the page, and its words are shared with the hypervisor.
    unsafe { &*((page.va() + u64::from(index) * 8) as *const AtomicU64) }
}

/// Fills an entry of version 1 of a table.
fn grant(table: &Page, reference: u32, domain: u16, mfn: u64) {
    word(table, reference).store(PERMIT | u64::from(domain) << 16 | mfn << 32, Ordering::SeqCst);
}

fn request(domain: u16, reference: u32, address: u64, flags: u32) -> GnttabMapGrantRef {
    GnttabMapGrantRef { host_addr: address, flags, ref_: reference, dom: domain, ..Default::default() }
}

fn map(domain: u16, reference: u32, address: u64, flags: u32) -> GnttabMapGrantRef {
    let mut request = request(domain, reference, address, flags);
    op(GNTTABOP_MAP_GRANT_REF, &mut request);
    request
}

fn unmap(address: u64, device: u64, handle: u32) -> i16 {
    let mut request = GnttabUnmapGrantRef { host_addr: address, dev_bus_addr: device, handle, ..Default::default() };
    op(GNTTABOP_UNMAP_GRANT_REF, &mut request);
    request.status
}

/// The first frame of a domain's grant table, as its toolstack gets it.
fn frame_of_table(number: u16) -> (i64, u64) {
    let mut frames = [0_u64; 1];
    let mut asked = MemAcquireResource {
        domid: number,
        type_: 1,
        nr_frames: 1,
        frame_list: frames.as_mut_ptr() as u64,
        ..Default::default()
    };
    (guest_tests::operation(HYPERVISOR_MEMORY_OP, XENMEM_ACQUIRE_RESOURCE, &mut asked), frames[0])
}

fn tables(child: &Child) {
    about("GNTTABOP_setup_table");
    let mut frames = [0_u64; 1];
    let frame_list = frames.as_mut_ptr() as u64;
    let mut setup = GnttabSetupTable { dom: DOMID_SELF, nr_frames: 1, frame_list, ..Default::default() };
    expect("a table is set up", (op(GNTTABOP_SETUP_TABLE, &mut setup), setup.status), (0, GNTST_OKAY));
    expect("and mapped", update_va_mapping(TABLE.va(), frames[0] << 12 | P | RW | A | D, INVLPG), 0);
    about("XENMEM_acquire_resource");
    let (result, frame) = frame_of_table(child.number);
    expect("the toolstack is told the frame of another's", (result, frame != 0), (0, true));
    expect("and maps it", child.map_at(CHILDS_TABLE.va(), frame), 0);
    let mut asked = MemAcquireResource { domid: child.number, type_: 1, ..Default::default() };
    let size = guest_tests::operation(HYPERVISOR_MEMORY_OP, XENMEM_ACQUIRE_RESOURCE, &mut asked);
    expect("it is told how many there can be", (size, asked.nr_frames), (0, 4));
    let mut asked = MemAcquireResource { domid: child.number, type_: 1, id: 1, ..Default::default() };
    let size = guest_tests::operation(HYPERVISOR_MEMORY_OP, XENMEM_ACQUIRE_RESOURCE, &mut asked);
    expect("there can be one status frame", (size, asked.nr_frames), (0, 1));
    let mut frames = [0_u64; 1];
    let frame_list = frames.as_mut_ptr() as u64;
    let status = MemAcquireResource { domid: child.number, type_: 1, id: 1, nr_frames: 1, frame_list, ..asked };
    let none = guest_tests::operation(HYPERVISOR_MEMORY_OP, XENMEM_ACQUIRE_RESOURCE, &mut { status });
    expect("but version 1 has none", none, EINVAL);
    let other = |type_: u16, id: u32| {
        let mut asked = MemAcquireResource { domid: CHILD, type_, id, ..Default::default() };
        guest_tests::operation(HYPERVISOR_MEMORY_OP, XENMEM_ACQUIRE_RESOURCE, &mut asked)
    };
    expect("there is no third kind of grant-table frame", other(1, 2), EINVAL);
    differs("there is no resource 99", other(99, 0), EINVAL, 0);
}

fn arguments() {
    about("GNTTABOP_map_grant_ref");
    let count =
        |count: u64| hypercall(HYPERVISOR_GRANT_TABLE_OP, [GNTTABOP_MAP_GRANT_REF.into(), GRANTED.va(), count, 0, 0]);
    expect("2^31 operations are EINVAL", count(1 << 31), EINVAL);
    expect("2^32 operations are none", count(1 << 32), 0);
    about("GNTTABOP_set_version GNTTABOP_get_version GNTTABOP_setup_table");
    let two = |command: u32| hypercall(HYPERVISOR_GRANT_TABLE_OP, [command.into(), COPIED.va(), 2, 0, 0]);
    expect("two tables at once are EINVAL", two(GNTTABOP_SETUP_TABLE), EINVAL);
    expect("two sizes are", two(GNTTABOP_QUERY_SIZE), EINVAL);
    expect("two versions are not looked at", two(GNTTABOP_SET_VERSION), EINVAL);
    let _ = write_at(COPIED.va(), 1);
    expect("only the first is", two(GNTTABOP_SET_VERSION), 0);
    let mut version = GnttabGetVersion { dom: OWN, ..Default::default() };
    expect("a version is asked for by number", (op(GNTTABOP_GET_VERSION, &mut version), version.version), (0, 1));
    expect("a domain that is not has none, whichever comes behind it", two(GNTTABOP_GET_VERSION), ESRCH);
    about("GNTTABOP_map_grant_ref");
    grant(&TABLE, 8, OWN, GRANTED.mfn());
    expect("a mapping for nobody is refused", map(OWN, 8, WINDOW.va(), 0).status, GNTST_BAD_GNTREF);
    grant(&TABLE, 9, OWN, mfn_of(start_info().pt_base));
    expect(
        "a page table is not mapped writable",
        map(OWN, 9, WINDOW.va(), GNTMAP_HOST_MAP).status,
        GNTST_GENERAL_ERROR,
    );
    let reader = map(OWN, 9, WINDOW.va(), GNTMAP_HOST_MAP | GNTMAP_READONLY);
    expect("but read-only", (reader.status, unmap(WINDOW.va(), 0, reader.handle)), (GNTST_OKAY, GNTST_OKAY));
    let device = map(OWN, 8, 0, GNTMAP_DEVICE_MAP);
    let address = GRANTED.mfn() << 12;
    expect("a mapping for a device has an address", (device.status, device.dev_bus_addr), (GNTST_OKAY, address));
    about("GNTTABOP_unmap_grant_ref");
    expect("another's is refused", unmap(0, address + 4096, device.handle), GNTST_BAD_DEV_ADDR);
    expect("its own is unmapped", unmap(0, address, device.handle), GNTST_OKAY);
}

/// Where a grant is mapped: an address, or an entry of a table.
fn places() {
    about("GNTTABOP_map_grant_ref GNTTABOP_unmap_grant_ref");
    let entry = entry_address(WINDOW.va());
    let by_entry = |address: u64| map(OWN, 8, address, GNTMAP_HOST_MAP | GNTMAP_CONTAINS_PTE);
    let mapped = by_entry(entry);
    expect("a grant is mapped by its entry's address", (mapped.status, read_at(WINDOW.va())), (GNTST_OKAY, Ok(0)));
    let other = entry_address(COPIED.va());
    expect("by another entry it is not unmapped", unmap(other, 0, mapped.handle), GNTST_GENERAL_ERROR);
    expect("by its own it is", unmap(entry, 0, mapped.handle), GNTST_OKAY);
    expect("an entry that is not aligned is refused", by_entry(entry + 4).status, GNTST_GENERAL_ERROR);
    expect("an entry in a page of data is refused", by_entry(COPIED.mfn() << 12).status, GNTST_GENERAL_ERROR);
    let root = mfn_of(start_info().pt_base) << 12;
    expect("an entry of the root table is refused", by_entry(root).status, GNTST_GENERAL_ERROR);
    expect("an entry where nothing is is refused", by_entry(1 << 50).status, GNTST_GENERAL_ERROR);
    let nowhere = map(OWN, 8, 0x1000_0000_0000, GNTMAP_HOST_MAP);
    expect("an address without a table is refused", nowhere.status, GNTST_GENERAL_ERROR);
    let mapped = map(OWN, 8, WINDOW.va(), GNTMAP_HOST_MAP);
    expect("a mapping is replaced by its user", update_va_mapping(WINDOW.va(), 0, INVLPG), 0);
    expect("then it is not unmapped", unmap(WINDOW.va(), 0, mapped.handle), GNTST_GENERAL_ERROR);
    expect("until it is what it was", update_va_mapping(WINDOW.va(), GRANTED.mfn() << 12 | P | RW | A | D, INVLPG), 0);
    expect("then it is", unmap(WINDOW.va(), 0, mapped.handle), GNTST_OKAY);
}

fn replacing() {
    about("GNTTABOP_unmap_and_replace");
    let replace = |address: u64, new_addr: u64, handle: u32| {
        let mut request = GnttabUnmapAndReplace { host_addr: address, new_addr, handle, ..Default::default() };
        (op(GNTTABOP_UNMAP_AND_REPLACE, &mut request), request.status)
    };
    let _ = (write_at(GRANTED.va(), 11), write_at(SECOND_WINDOW.va(), 22));
    let mapped = map(OWN, 8, WINDOW.va(), GNTMAP_HOST_MAP);
    expect("a grant is mapped", read_at(WINDOW.va()), Ok(11));
    let nowhere = replace(WINDOW.va(), 0x1000_0000_0000, mapped.handle);
    expect("it is not replaced by what has no table", nowhere, (0, GNTST_GENERAL_ERROR));
    expect("a wrong handle is refused", replace(WINDOW.va(), SECOND_WINDOW.va(), mapped.handle + 9).1 < 0, true);
    let done = replace(WINDOW.va(), SECOND_WINDOW.va(), mapped.handle);
    expect("it is replaced by another page", done, (0, GNTST_OKAY));
    expect("which is seen there", read_at(WINDOW.va()), Ok(22));
    expect("and not where it was", read_at(SECOND_WINDOW.va()).map_err(|trap| trap.vector), Err(14));
    expect("the entry is not in use", word(&TABLE, 8).load(Ordering::SeqCst) & 0x18, 0);
    let back = |page: &Page, of: &Page| update_va_mapping(page.va(), of.mfn() << 12 | P | RW | A | D, INVLPG);
    expect("all is put back", (back(&WINDOW, &WINDOW), back(&SECOND_WINDOW, &SECOND_WINDOW)), (0, 0));
}

fn flushing(others: u64) {
    about("GNTTABOP_cache_flush");
    let flush = |a: u64, offset: u16, length: u16, flags: u32| {
        let mut request = GnttabCacheFlush { a, offset, length, op: flags };
        op(GNTTABOP_CACHE_FLUSH, &mut request)
    };
    let own = GRANTED.mfn() << 12;
    for (name, a, offset, length, flags) in [
        ("the cache of an own frame is written back", own, 0, 4096, GNTTAB_CACHE_CLEAN),
        ("nothing of it is", own, 0, 0, GNTTAB_CACHE_CLEAN),
        ("it is written back and dropped", own, 8, 8, GNTTAB_CACHE_CLEAN | GNTTAB_CACHE_INVAL),
        ("nothing is done with nothing", 1 << 50, 8, 0, GNTTAB_CACHE_CLEAN),
        ("nor without an operation", 1 << 50, 8, 8, 0),
    ] {
        expect(name, flush(a, offset, length, flags), 0);
    }
    for (name, a, offset, length, flags, errno) in [
        ("more than a page of it is refused", own, 1, 4096, GNTTAB_CACHE_CLEAN, EINVAL),
        ("so is what begins behind the page", own, 4096, 0, GNTTAB_CACHE_CLEAN, EINVAL),
        ("it is not just dropped", own, 8, 8, GNTTAB_CACHE_INVAL, EOPNOTSUPP),
        ("there is no operation 4", own, 8, 8, 4, EINVAL),
        ("nor on nothing", own, 8, 0, 4, EINVAL),
        ("a frame is not named by a reference", 8, 8, 8, GNTTAB_CACHE_SOURCE_GREF | GNTTAB_CACHE_CLEAN, EINVAL),
        ("a frame that is not is refused", 1 << 50, 8, 8, GNTTAB_CACHE_CLEAN, EINVAL),
        ("so is one of the hypervisor's", 0x20_0000, 8, 8, GNTTAB_CACHE_CLEAN, EPERM),
        ("so is one of another's", others << 12, 8, 8, GNTTAB_CACHE_CLEAN, EINVAL),
    ] {
        expect(name, flush(a, offset, length, flags), errno);
    }
}

fn transfers(child: &Child) {
    about("GNTTABOP_transfer");
    let transfer = |mfn: u64, domid: u16| {
        let mut request = GnttabTransfer { mfn, domid, ref_: 20, ..Default::default() };
        (op(GNTTABOP_TRANSFER, &mut request), request.status)
    };
    expect("a frame that is not is not given away", transfer(1 << 40, child.number), (0, GNTST_BAD_PAGE));
    expect("nor one of the hypervisor's", transfer(0x200, child.number), (0, GNTST_BAD_PAGE));
    expect("nor one that is mapped", transfer(GRANTED.mfn(), child.number), (0, GNTST_BAD_PAGE));
    expect("nor one of another's", transfer(child.frames[7], child.number), (0, GNTST_BAD_PAGE));
}

fn copies() {
    about("GNTTABOP_copy");
    let copy = |domain: u16, frame: u64, out: bool| {
        let mut copy = GnttabCopy { len: 8, ..Default::default() };
        let (one, other) = if out { (&mut copy.dest, &mut copy.source) } else { (&mut copy.source, &mut copy.dest) };
        (one.domid, one.u) = (domain, frame);
        (other.domid, other.u) = (DOMID_SELF, COPIED.mfn());
        op(GNTTABOP_COPY, &mut copy);
        copy.status
    };
    expect("a frame is named by its owner alone", copy(OWN, GRANTED.mfn(), false), GNTST_PERMISSION_DENIED);
    expect("another's frame is not", copy(CHILD, GRANTED.mfn(), false), GNTST_PERMISSION_DENIED);
    expect("a frame of its own is", copy(DOMID_SELF, GRANTED.mfn(), false), GNTST_OKAY);
    expect("the hypervisor's frame is no own one", copy(DOMID_SELF, 0x200, false), GNTST_BAD_PAGE);
    expect("nor to write", copy(DOMID_SELF, 0x200, true), GNTST_BAD_PAGE);
    expect("a frame that is not is none", copy(DOMID_SELF, 1 << 40, false), GNTST_BAD_PAGE);
    let table = mfn_of(start_info().pt_base);
    expect("a page table is read", copy(DOMID_SELF, table, false), GNTST_OKAY);
    expect("but not written", copy(DOMID_SELF, table, true), GNTST_GENERAL_ERROR);
}

/// What the second domain gets for a mapping of the first's entry.
fn map_in(child: &Child, reference: u32, address: u64, flags: u32) -> (Option<i64>, i16) {
    child.put(&request(OWN, reference, address, flags));
    let result = child.call(HYPERVISOR_GRANT_TABLE_OP, [GNTTABOP_MAP_GRANT_REF.into(), child.argument(), 1, 0, 0]);
    let answer = read_at(child.argument_here() + 16).unwrap_or(0);
    (result, (answer >> 16) as u16 as i16)
}

fn in_use(child: &Child) {
    about("GNTTABOP_map_grant_ref");
    let window = child.page(7);
    grant(&TABLE, 10, CHILD, GRANTED.mfn());
    let mapped = map_in(child, 10, window, GNTMAP_HOST_MAP);
    expect("another domain maps what it was granted", mapped, (Some(0), GNTST_OKAY));
    expect("its entry says so", word(&TABLE, 10).load(Ordering::SeqCst) & 0x18, 0x18);
    grant(&TABLE, 10, OWN, GRANTED.mfn());
    let stolen = map(OWN, 10, WINDOW.va(), GNTMAP_HOST_MAP).status;
    expect("what one uses another cannot, though it was granted anew", stolen, GNTST_GENERAL_ERROR);
    grant(&TABLE, 11, OWN, GRANTED.mfn());
    let others = map_in(child, 11, window, GNTMAP_HOST_MAP);
    expect("what was granted to another is refused", others, (Some(0), GNTST_GENERAL_ERROR));
    grant(&CHILDS_TABLE, 8, OWN, child.frames[7]);
    let back = map(CHILD, 8, WINDOW.va(), GNTMAP_HOST_MAP);
    expect("a grant of its is mapped here", back.status, GNTST_OKAY);
    expect("and unmapped", unmap(WINDOW.va(), 0, back.handle), GNTST_OKAY);
    grant(&CHILDS_TABLE, 9, OWN, GRANTED.mfn());
    let foreign = map(CHILD, 9, WINDOW.va(), GNTMAP_HOST_MAP).status;
    expect("it grants no frame of another's", foreign, GNTST_BAD_PAGE);
    grant(&CHILDS_TABLE, 10, OWN, child.frames[3]);
    let table = map(CHILD, 10, WINDOW.va(), GNTMAP_HOST_MAP).status;
    expect("nor a page table for writing", table, GNTST_GENERAL_ERROR);
}

static MAPS: Batch<GnttabMapGrantRef, BATCH> = Batch(UnsafeCell::new([EMPTY_MAP; BATCH]));
static UNMAPS: Batch<GnttabUnmapGrantRef, BATCH> = Batch(UnsafeCell::new([EMPTY_UNMAP; BATCH]));
static HANDLES: Batch<u32, { USES + BATCH }> = Batch(UnsafeCell::new([0; USES + BATCH]));
const EMPTY_MAP: GnttabMapGrantRef =
    GnttabMapGrantRef { host_addr: 0, flags: 0, ref_: 0, dom: 0, status: 0, handle: 0, dev_bus_addr: 0 };
const EMPTY_UNMAP: GnttabUnmapGrantRef =
    GnttabUnmapGrantRef { host_addr: 0, dev_bus_addr: 0, handle: 0, status: 0, _pad0: 0 };

/// Uses an entry as often as it goes; how often that was, and what the first refusal said.
fn use_often(reference: u32) -> (usize, i16) {
    let (batch, handles) = (MAPS.get(), HANDLES.get());
    let mut done = 0;
    while done <= USES {
        batch.fill(request(OWN, reference, 0, GNTMAP_DEVICE_MAP | GNTMAP_READONLY));
        hypercall(
            HYPERVISOR_GRANT_TABLE_OP,
            [GNTTABOP_MAP_GRANT_REF.into(), batch.as_ptr() as u64, BATCH as u64, 0, 0],
        );
        for used in batch.iter() {
            if used.status != GNTST_OKAY {
                return (done, used.status);
            }
            handles[done] = used.handle;
            done += 1;
        }
    }
    (done, GNTST_OKAY)
}

/// Ends the first `count` uses; how many of them ended.
fn end_uses(address: u64, count: usize) -> usize {
    let (batch, handles) = (UNMAPS.get(), HANDLES.get());
    let mut ended = 0;
    for first in (0..count).step_by(BATCH) {
        for (unmap, handle) in batch.iter_mut().zip(&handles[first..]) {
            let handle = *handle;
            *unmap = GnttabUnmapGrantRef { dev_bus_addr: address, handle, ..Default::default() };
        }
        let size = BATCH.min(count - first) as u64;
        let array = batch.as_ptr() as u64;
        hypercall(HYPERVISOR_GRANT_TABLE_OP, [GNTTABOP_UNMAP_GRANT_REF.into(), array, size, 0, 0]);
        ended += batch[..size as usize].iter().filter(|unmap| unmap.status == GNTST_OKAY).count();
    }
    ended
}

fn uses() {
    about("GNTTABOP_map_grant_ref");
    grant(&TABLE, 12, OWN, GRANTED.mfn());
    let (done, status) = use_often(12);
    differs("an entry is used often", done, 65_535, 128);
    expect("not more often", status, GNTST_GENERAL_ERROR);
    about("GNTTABOP_unmap_grant_ref");
    expect("all uses are ended", end_uses(GRANTED.mfn() << 12, done), done);
    expect("then it is not in use", word(&TABLE, 12).load(Ordering::SeqCst) & 0x18, 0);
}

fn limits(child: &Child) {
    about("GNTTABOP_map_grant_ref");
    (100..120).for_each(|reference| grant(&TABLE, reference, CHILD, GRANTED.mfn()));
    let mut done = 0;
    let last = loop {
        let (_, status) = map_in(child, 100 + done / 100, 0, GNTMAP_DEVICE_MAP | GNTMAP_READONLY);
        if status != GNTST_OKAY || done > 2000 {
            break status;
        }
        done += 1;
    };
    // It has one mapping more, of before.
    differs("four frames of mappings are 1,024", done + 1, 1024, 1023);
    expect("there is no room for more", last, GNTST_NO_SPACE);
}

fn versions(child: &Child) {
    about("GNTTABOP_set_version");
    child.put(&GnttabSetVersion { version: 2 });
    let result = child.call(HYPERVISOR_GRANT_TABLE_OP, [GNTTABOP_SET_VERSION.into(), child.argument(), 1, 0, 0]);
    expect("a domain that may have version 1 alone gets no other", result, Some(ENOSYS));
}

/// Fills an entry of version 2 of a table.
fn grant_two(table: &Page, reference: u32, first: u64, second: u64) {
    word(table, reference * 2 + 1).store(second, Ordering::SeqCst);
    word(table, reference * 2).store(first, Ordering::SeqCst);
}

fn copy_of(domain: u16, reference: u32, out: bool) -> i16 {
    let mut copy =
        GnttabCopy { len: 8, flags: if out { GNTCOPY_DEST_GREF } else { GNTCOPY_SOURCE_GREF }, ..Default::default() };
    let (one, other) = if out { (&mut copy.dest, &mut copy.source) } else { (&mut copy.source, &mut copy.dest) };
    (one.domid, one.u) = (domain, reference.into());
    (other.domid, other.u) = (DOMID_SELF, COPIED.mfn());
    op(GNTTABOP_COPY, &mut copy);
    copy.status
}

/// The second domain passes on what the first granted it, and the first copies it.
fn passing_on() {
    about("GNTTABOP_copy");
    let Some(child) = Child::made_as(CHILD, DomctlCreatedomain { grant_opts: 2, ..usual() }) else {
        say!("guest-test: a domain with version 2 is made: FAILED it was refused");
        return;
    };
    child.start();
    child.put(&GnttabSetVersion { version: 2 });
    let result = child.call(HYPERVISOR_GRANT_TABLE_OP, [GNTTABOP_SET_VERSION.into(), child.argument(), 1, 0, 0]);
    expect("a domain has version 2", result, Some(0));
    let (result, frame) = frame_of_table(CHILD);
    expect("its table is mapped", (result, child.map_at(CHILDS_TABLE.va(), frame)), (0, 0));
    expect("this domain, too", op(GNTTABOP_SET_VERSION, &mut GnttabSetVersion { version: 2 }), 0);
    let to = |domain: u16| u64::from(domain) << 16;
    grant_two(&TABLE, 20, PERMIT | to(CHILD), GRANTED.mfn());
    grant_two(&CHILDS_TABLE, 20, TRANSITIVE | to(OWN) | u64::from(OWN) << 32, 20);
    let _ = (write_at(GRANTED.va(), 77), write_at(COPIED.va(), 0));
    expect("what was granted is passed on", copy_of(CHILD, 20, false), GNTST_OKAY);
    expect("and copied", read_at(COPIED.va()), Ok(77));
    expect("and written", (write_at(COPIED.va(), 78), copy_of(CHILD, 20, true)), (Ok(()), GNTST_OKAY));
    expect("by who granted it first", read_at(GRANTED.va()), Ok(78));
    grant_two(&TABLE, 20, PERMIT | 4 | to(CHILD), GRANTED.mfn());
    expect("what was granted for reading is not written", copy_of(CHILD, 20, true), GNTST_GENERAL_ERROR);
    grant_two(&TABLE, 20, PERMIT | to(77), GRANTED.mfn());
    expect("what was granted to another is not passed on", copy_of(CHILD, 20, false), GNTST_GENERAL_ERROR);
    grant_two(&TABLE, 20, TRANSITIVE | to(CHILD) | u64::from(CHILD) << 32, 20);
    expect("what is passed on is not passed on again", copy_of(CHILD, 20, false), GNTST_GENERAL_ERROR);
    grant_two(&TABLE, 20, PERMIT | 1 << 8 | to(CHILD) | 100 << 32 | 8 << 48, GRANTED.mfn());
    expect("a part of a page is passed on as the part", copy_of(CHILD, 20, false), GNTST_GENERAL_ERROR);
    grant_two(&TABLE, 20, PERMIT | 1 << 8 | to(CHILD) | 8 << 48, GRANTED.mfn());
    expect("and copied where it is", copy_of(CHILD, 20, false), GNTST_OKAY);
    grant_two(&TABLE, 20, PERMIT | to(CHILD), mfn_of(start_info().pt_base));
    expect("a page table is not written through another", copy_of(CHILD, 20, true), GNTST_GENERAL_ERROR);
    let _ = update_va_mapping(CHILDS_TABLE.va(), 0, INVLPG);
    expect("the domain that passes on is destroyed", child.destroy(), 0);
    expect("then nothing is passed on", copy_of(CHILD, 20, false) < 0, true);
}

/// A domain ends while this one has mapped a grant of its.
fn ending() {
    about("GNTTABOP_map_grant_ref XEN_DOMCTL_destroydomain");
    let Some(child) = Child::new(6) else {
        say!("guest-test: a last domain is made: FAILED it was refused");
        return;
    };
    let (result, frame) = frame_of_table(6);
    expect("the table of a domain that never ran is mapped", (result, child.map_at(CHILDS_TABLE.va(), frame)), (0, 0));
    grant(&CHILDS_TABLE, 8, OWN, child.frames[7]);
    let mapped = map(6, 8, WINDOW.va(), GNTMAP_HOST_MAP);
    expect("a grant of its is mapped", (mapped.status, write_at(WINDOW.va(), 5)), (GNTST_OKAY, Ok(())));
    expect("it is destroyed", child.destroy(), 0);
    expect("what it granted is still there", read_at(WINDOW.va()), Ok(5));
    let again = map(6, 8, SECOND_WINDOW.va(), GNTMAP_HOST_MAP);
    differs("but it grants nothing any more", again.status, GNTST_BAD_DOMAIN, GNTST_OKAY);
    let _ = unmap(SECOND_WINDOW.va(), 0, again.handle);
    differs("it is gone, or dying", info(6).1.domain == 6 && info(6).1.flags & 1 != 0, false, true);
    expect("its table is unmapped", update_va_mapping(CHILDS_TABLE.va(), 0, INVLPG), 0);
    about("GNTTABOP_unmap_grant_ref");
    expect("its grant is unmapped", unmap(WINDOW.va(), 0, mapped.handle), GNTST_OKAY);
    expect("then it is no more", info(6).1.domain == 6, false);
}
