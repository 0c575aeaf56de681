//! The extended page-table operations (`mmuext_op`), foreign frames, and lists of updates.
#![no_std]
#![no_main]

use guest_tests::errno::{EBUSY, EFAULT, EINVAL, ENOSYS, EOPNOTSUPP, EPERM, ESRCH};
use guest_tests::{
    A, D, HYPERVISOR_ADDRESS, NON_CANONICAL, P, Page, RW, US, about, differs, entry_address, entry_of, expect,
    guest_test, hypercall, mfn_of, mmu_update, mmu_update_as, mmuext, read_at, start_info, update_va_mapping, write_at,
};
use pv_abi::xen::{
    DOMID_IO, DOMID_SELF, DOMID_XEN, HYPERVISOR_MMU_UPDATE, HYPERVISOR_MMUEXT_OP, HYPERVISOR_UPDATE_VA_MAPPING,
    HYPERVISOR_UPDATE_VA_MAPPING_OTHERDOMAIN, MMU_PT_UPDATE_NO_TRANSLATE, MMU_PT_UPDATE_PRESERVE_AD, MMUEXT_CLEAR_PAGE,
    MMUEXT_COPY_PAGE, MMUEXT_FLUSH_CACHE, MMUEXT_FLUSH_CACHE_GLOBAL, MMUEXT_INVLPG_ALL, MMUEXT_INVLPG_LOCAL,
    MMUEXT_INVLPG_MULTI, MMUEXT_MARK_SUPER, MMUEXT_NEW_BASEPTR, MMUEXT_NEW_USER_BASEPTR, MMUEXT_PIN_L1_TABLE,
    MMUEXT_PIN_L4_TABLE, MMUEXT_SET_LDT, MMUEXT_TLB_FLUSH_ALL, MMUEXT_TLB_FLUSH_LOCAL, MMUEXT_TLB_FLUSH_MULTI,
    MMUEXT_UNMARK_SUPER, MMUEXT_UNPIN_TABLE, MmuUpdate, MmuextOp,
};

guest_test!(mmuext_operations);

const INVLPG: u64 = 2;
const RWAD: u64 = P | RW | A | D;
const NOBODY: u64 = 77;
const NO_FRAME: u64 = 0xff_ffff_ffff;

static FIRST: Page = Page::new();
static SECOND: Page = Page::new();
static ROOT: Page = Page::new();
static TABLE: Page = Page::new();

fn mmuext_operations() {
    flushes();
    pages();
    roots();
    marks();
    foreign();
    lists();
    entries();
    mappings();
}

/// A stale translation shows a change that was made without a flush; a flush must end that.
fn flushes() {
    let (va, first, second) = (FIRST.va(), FIRST.mfn() << 12 | RWAD, SECOND.mfn() << 12 | RWAD);
    let _ = (write_at(va, 1), write_at(SECOND.va(), 2));
    let vcpus = 1_u64;
    let bitmap = &raw const vcpus as u64;
    for (name, command, address, bitmap) in [
        ("MMUEXT_TLB_FLUSH_LOCAL", MMUEXT_TLB_FLUSH_LOCAL, 0, 0),
        ("MMUEXT_INVLPG_LOCAL", MMUEXT_INVLPG_LOCAL, va, 0),
        ("MMUEXT_TLB_FLUSH_MULTI", MMUEXT_TLB_FLUSH_MULTI, 0, bitmap),
        ("MMUEXT_INVLPG_MULTI", MMUEXT_INVLPG_MULTI, va, bitmap),
        ("MMUEXT_TLB_FLUSH_ALL", MMUEXT_TLB_FLUSH_ALL, 0, 0),
        ("MMUEXT_INVLPG_ALL", MMUEXT_INVLPG_ALL, va, 0),
    ] {
        about(name);
        let _ = read_at(va);
        update_va_mapping(va, second, 0);
        expect("a flush is done", mmuext(command, address, bitmap), 0);
        expect("then a changed entry is seen", read_at(va), Ok(2));
        update_va_mapping(va, first, INVLPG);
    }
    about("MMUEXT_INVLPG_LOCAL");
    expect("an address of the hypervisor's is passed over", mmuext(MMUEXT_INVLPG_LOCAL, HYPERVISOR_ADDRESS, 0), 0);
    expect("so is one that is not canonical", mmuext(MMUEXT_INVLPG_LOCAL, NON_CANONICAL, 0), 0);
    about("MMUEXT_TLB_FLUSH_MULTI");
    let bad = mmuext(MMUEXT_TLB_FLUSH_MULTI, 0, HYPERVISOR_ADDRESS);
    expect("a bitmap in the hypervisor is EINVAL", bad, EINVAL);
    about("MMUEXT_INVLPG_MULTI");
    let bad = mmuext(MMUEXT_INVLPG_MULTI, va, HYPERVISOR_ADDRESS);
    expect("a bitmap in the hypervisor is EINVAL here", bad, EINVAL);
    about("MMUEXT_FLUSH_CACHE");
    expect("the first domain flushes the caches", mmuext(MMUEXT_FLUSH_CACHE, 0, 0), 0);
    about("MMUEXT_FLUSH_CACHE_GLOBAL");
    expect("everywhere, too", mmuext(MMUEXT_FLUSH_CACHE_GLOBAL, 0, 0), 0);
}

fn pages() {
    let (first, second) = (FIRST.mfn(), SECOND.mfn());
    about("MMUEXT_CLEAR_PAGE");
    let _ = write_at(FIRST.va() + 8, 7);
    expect("a frame is cleared", mmuext(MMUEXT_CLEAR_PAGE, first, 0), 0);
    expect("it is empty then", read_at(FIRST.va() + 8), Ok(0));
    expect("no frame is EINVAL to clear", mmuext(MMUEXT_CLEAR_PAGE, NO_FRAME, 0), EINVAL);
    expect("the hypervisor's frame is EINVAL to clear", mmuext(MMUEXT_CLEAR_PAGE, 0, 0), EINVAL);
    let root = mfn_of(start_info().pt_base);
    expect("a page table is not cleared", mmuext(MMUEXT_CLEAR_PAGE, root, 0), EINVAL);
    about("MMUEXT_COPY_PAGE");
    let _ = write_at(SECOND.va() + 16, 9);
    expect("a frame is copied", mmuext(MMUEXT_COPY_PAGE, first, second), 0);
    expect("it holds the same then", read_at(FIRST.va() + 16), Ok(9));
    expect("nothing is copied to no frame", mmuext(MMUEXT_COPY_PAGE, NO_FRAME, second), EINVAL);
    expect("nothing is copied from no frame", mmuext(MMUEXT_COPY_PAGE, first, NO_FRAME), EINVAL);
    expect("nothing is copied over a page table", mmuext(MMUEXT_COPY_PAGE, root, second), EINVAL);
    expect("a page table is copied", mmuext(MMUEXT_COPY_PAGE, first, root), 0);
}

/// A copy of the root table becomes a root of its own, and the one that the vCPU runs on.
fn roots() {
    let boot = mfn_of(start_info().pt_base);
    for index in 0..512 {
        let entry = read_at(start_info().pt_base + index * 8).unwrap_or(0);
        let hypervisors = (256..272).contains(&index);
        let _ = write_at(ROOT.va() + index * 8, if hypervisors { 0 } else { entry });
    }
    let readonly = ROOT.mfn() << 12 | P | A;
    expect("a table is made read-only", update_va_mapping(ROOT.va(), readonly, INVLPG), 0);
    about("MMUEXT_PIN_L4_TABLE");
    expect("a root table is pinned", mmuext(MMUEXT_PIN_L4_TABLE, ROOT.mfn(), 0), 0);
    about("MMUEXT_NEW_BASEPTR");
    expect("a root table is used", mmuext(MMUEXT_NEW_BASEPTR, ROOT.mfn(), 0), 0);
    expect("memory is as it was", read_at(FIRST.va()), read_at(guest_tests::va_of(FIRST.mfn())));
    expect("the hypervisor's slots are filled in", read_at(0xffff_8000_0000_0000).is_ok(), true);
    expect("the same table again is no error", mmuext(MMUEXT_NEW_BASEPTR, ROOT.mfn(), 0), 0);
    expect("no frame is EINVAL as root", mmuext(MMUEXT_NEW_BASEPTR, NO_FRAME, 0), EINVAL);
    expect("frame 0 is EINVAL as root", mmuext(MMUEXT_NEW_BASEPTR, 0, 0), EINVAL);
    expect("a data frame is EINVAL as root", mmuext(MMUEXT_NEW_BASEPTR, FIRST.mfn(), 0), EINVAL);
    about("MMUEXT_NEW_USER_BASEPTR");
    expect("a root table is used for user mode", mmuext(MMUEXT_NEW_USER_BASEPTR, boot, 0), 0);
    expect("none is used for user mode", mmuext(MMUEXT_NEW_USER_BASEPTR, 0, 0), 0);
    expect("a data frame is EINVAL for user mode", mmuext(MMUEXT_NEW_USER_BASEPTR, FIRST.mfn(), 0), EINVAL);
    expect("no frame is EINVAL for user mode", mmuext(MMUEXT_NEW_USER_BASEPTR, NO_FRAME, 0), EINVAL);
    about("MMUEXT_UNPIN_TABLE");
    expect("the root in use is unpinned", mmuext(MMUEXT_UNPIN_TABLE, ROOT.mfn(), 0), 0);
    let writable = update_va_mapping(ROOT.va(), readonly | RW, INVLPG);
    expect("but stays a table while it is in use", writable, EBUSY);
    about("MMUEXT_NEW_BASEPTR");
    expect("the boot table is used again", mmuext(MMUEXT_NEW_BASEPTR, boot, 0), 0);
    expect("then the other is a frame like others", update_va_mapping(ROOT.va(), readonly | RW, INVLPG), 0);
}

fn marks() {
    about("MMUEXT_MARK_SUPER");
    expect("superpages are not marked", mmuext(MMUEXT_MARK_SUPER, FIRST.mfn(), 0), EOPNOTSUPP);
    about("MMUEXT_UNMARK_SUPER");
    expect("nor unmarked", mmuext(MMUEXT_UNMARK_SUPER, FIRST.mfn(), 0), EOPNOTSUPP);
    about("MMUEXT_SET_LDT");
    expect("a local table of 8193 entries is EINVAL", mmuext(MMUEXT_SET_LDT, FIRST.va(), 8193), EINVAL);
    expect("one within a page is EINVAL", mmuext(MMUEXT_SET_LDT, FIRST.va() + 8, 1), EINVAL);
    expect("one in the hypervisor is EINVAL", mmuext(MMUEXT_SET_LDT, HYPERVISOR_ADDRESS, 1), EINVAL);
    expect("one that ends in the hypervisor is taken", mmuext(MMUEXT_SET_LDT, 0x7fff_ffff_f000, 8192), 0);
    expect("one of no entries is no error", mmuext(MMUEXT_SET_LDT, FIRST.va() + 8, 0), 0);
    about("mmuext_op");
    expect("command 14 is ENOSYS", mmuext(14, 0, 0), ENOSYS);
    expect("command 21 is ENOSYS", mmuext(21, 0, 0), ENOSYS);
}

fn ext_as(command: u32, first: u64, domain: u64) -> i64 {
    let operation = MmuextOp { cmd: command, arg1: first, ..MmuextOp::default() };
    hypercall(HYPERVISOR_MMUEXT_OP, [&raw const operation as u64, 1, 0, domain, 0])
}

/// Other domains are named only where they are, and only by who may.
fn foreign() {
    about("mmuext_op");
    expect("a domain that is not is ESRCH", ext_as(MMUEXT_CLEAR_PAGE, FIRST.mfn(), NOBODY), ESRCH);
    expect("the caller is not named by its number", ext_as(MMUEXT_CLEAR_PAGE, FIRST.mfn(), 0), ESRCH);
    let reserved = ext_as(MMUEXT_CLEAR_PAGE, 0, DOMID_IO.into());
    expect("device memory is no domain of tables", reserved < 0, true);
    let reserved = ext_as(MMUEXT_PIN_L1_TABLE, 0, DOMID_XEN.into());
    expect("nor is the hypervisor", reserved < 0, true);
    about("mmu_update");
    let (place, entry) = (entry_address(FIRST.va()), entry_of(FIRST.va()));
    expect("an update for a domain that is not is ESRCH", mmu_update_as(place, entry, NOBODY), ESRCH);
    expect(
        "an update in tables of a domain that is not is ESRCH",
        mmu_update_as(place, entry, 78 << 16 | 0x7ff0),
        ESRCH,
    );
    expect("the caller's own number is ESRCH", mmu_update_as(place, entry, 0), ESRCH);
    expect("the caller's own tables by its number are as its own", mmu_update_as(place, entry, 1 << 16 | 0x7ff0), 0);
    expect("an entry as it is needs no owner", mmu_update_as(place, entry, DOMID_IO.into()), 0);
    let entry = SECOND.mfn() << 12 | RWAD;
    expect("a frame of memory is not device memory", mmu_update_as(place, entry, DOMID_IO.into()), EBUSY);
    expect("a frame of the caller's is not the hypervisor's", mmu_update_as(place, entry, DOMID_XEN.into()), EBUSY);
    let root = mfn_of(start_info().pt_base) << 12;
    let upper = mmu_update_as(root, 0, DOMID_IO.into());
    expect("only the lowest tables name others' frames", upper, EINVAL);
    about("update_va_mapping_otherdomain");
    let other = |entry: u64, flags: u64, domain: u64| {
        hypercall(HYPERVISOR_UPDATE_VA_MAPPING_OTHERDOMAIN, [FIRST.va(), entry, flags, domain, 0])
    };
    expect("an own frame is mapped", other(FIRST.mfn() << 12 | RWAD, INVLPG, DOMID_SELF.into()), 0);
    expect("a frame of a domain that is not is ESRCH", other(FIRST.mfn() << 12 | RWAD, 0, NOBODY), ESRCH);
    expect("the caller by its number is ESRCH", other(FIRST.mfn() << 12 | RWAD, 0, 0), ESRCH);
    expect("memory is not mapped as device memory", other(SECOND.mfn() << 12 | RWAD, 0, DOMID_IO.into()), EBUSY);
    expect("device memory is mapped by the first domain", other(0xb_8000 | P | RW, INVLPG, DOMID_IO.into()), 0);
    expect("and is readable", read_at(FIRST.va()).is_ok(), true);
    expect("the page comes back", other(FIRST.mfn() << 12 | RWAD, INVLPG, DOMID_SELF.into()), 0);
    let bits = other(FIRST.mfn() << 12 | RWAD, HYPERVISOR_ADDRESS | 1, DOMID_SELF.into());
    expect("a bitmap of vCPUs in the hypervisor is EFAULT", bits, EFAULT);
}

fn lists() {
    about("mmu_update");
    let update = |address: u64, count: u64, done: u64| {
        hypercall(HYPERVISOR_MMU_UPDATE, [address, count, done, DOMID_SELF.into(), 0])
    };
    let (place, entry) = (entry_address(FIRST.va()), entry_of(FIRST.va()));
    let good = MmuUpdate { ptr: place, val: entry };
    let bad = MmuUpdate { ptr: NO_FRAME << 12, val: 0 };
    let requests = [good, good, bad, good];
    let mut count = 0_u32;
    let done = &raw mut count as u64;
    expect("a list stops where it fails", update(requests.as_ptr() as u64, 4, done), EINVAL);
    expect("how far it came is told", read_at(done).map(|word| word & 0xffff_ffff), Ok(2));
    expect("a whole list is done", update(requests.as_ptr() as u64, 2, done), 0);
    expect("that is told as well", read_at(done).map(|word| word & 0xffff_ffff), Ok(2));
    expect(
        "a place for it in the hypervisor is passed over",
        update(requests.as_ptr() as u64, 2, HYPERVISOR_ADDRESS),
        0,
    );
    expect("a list in the hypervisor is EFAULT", update(HYPERVISOR_ADDRESS, 1, 0), EFAULT);
    expect("an empty one as well", update(HYPERVISOR_ADDRESS, 0, 0), EFAULT);
    about("mmuext_op");
    let extended =
        |address: u64, count: u64| hypercall(HYPERVISOR_MMUEXT_OP, [address, count, 0, DOMID_SELF.into(), 0]);
    expect("a list of operations in the hypervisor is EFAULT", extended(HYPERVISOR_ADDRESS, 1), EFAULT);
    expect("an empty list of operations there is EFAULT", extended(HYPERVISOR_ADDRESS, 0), EFAULT);
    expect("an empty list of operations is no error", extended(0, 0), 0);
}

fn entries() {
    let place = entry_address(FIRST.va());
    let entry = FIRST.mfn() << 12 | RWAD;
    about("MMU_PT_UPDATE_PRESERVE_AD");
    let _ = write_at(FIRST.va(), 1);
    let kept = mmu_update(place | MMU_PT_UPDATE_PRESERVE_AD, FIRST.mfn() << 12 | P | RW);
    expect("an entry is written that keeps its marks", kept, 0);
    expect("it has them", entry_of(FIRST.va()) & (A | D), A | D);
    about("MMU_PT_UPDATE_NO_TRANSLATE");
    expect("a frame is written as it is", mmu_update(place | MMU_PT_UPDATE_NO_TRANSLATE, entry), 0);
    about("MMU_NORMAL_PT_UPDATE");
    expect("an entry is written", mmu_update(place, entry), 0);
    expect("a word of a data frame is written", mmu_update((SECOND.mfn() << 12) + 8, 0x1234), 0);
    expect("and read", read_at(SECOND.va() + 8), Ok(0x1234));
    for (name, bit) in [
        ("the mark of an attribute table is what the first domain may use", 7),
        ("a global page's mark is taken in the lowest tables", 8),
        ("write-through without a device is what the first domain may", 3),
        ("a frame beyond all is EPERM", 51),
        ("bit 62 is the guest's", 62),
    ] {
        let result = mmu_update(place, entry | 1 << bit);
        let expected = if bit == 51 { EPERM } else { 0 };
        expect(name, result, expected);
    }
    expect("the entry comes back", mmu_update(place, entry), 0);
    expect("a table of data is made read-only", update_va_mapping(TABLE.va(), TABLE.mfn() << 12 | P | A, INVLPG), 0);
    let l2 = l2_slot();
    let upper = TABLE.mfn() << 12 | P | RW | US | A | D;
    expect("a new table is taken", mmu_update(l2, upper), 0);
    expect("a table's entry may not be global", mmu_update(l2, upper | 1 << 8), EINVAL);
    expect("nor a large page", mmu_update(l2, upper | 1 << 7), EINVAL);
    expect("nor have a caching of its own", mmu_update(l2, upper | 1 << 4), EINVAL);
    expect("a misaligned update is EINVAL or ENOSYS", matches!(mmu_update(l2 + 4, upper), EINVAL | ENOSYS), true);
    expect("the table is taken out", mmu_update(l2, 0), 0);
    expect("it is a data frame again", update_va_mapping(TABLE.va(), TABLE.mfn() << 12 | RWAD, INVLPG), 0);
}

/// A free slot of the second-level table that maps the image.
fn l2_slot() -> u64 {
    let va = FIRST.va();
    let mut table = mfn_of(start_info().pt_base);
    for level in [3, 2] {
        let index = (va >> (12 + 9 * level)) & 511;
        table = read_at(guest_tests::va_of(table) + index * 8).unwrap_or(0) >> 12 & 0xff_ffff_ffff;
    }
    (table << 12) + 500 * 8
}

fn mappings() {
    about("update_va_mapping");
    let entry = FIRST.mfn() << 12 | RWAD;
    let map = |flags: u64| hypercall(HYPERVISOR_UPDATE_VA_MAPPING, [FIRST.va(), entry, flags, 0, 0]);
    let vcpus = [1_u64];
    let bitmap = vcpus.as_ptr() as u64;
    expect("without a flush", map(0), 0);
    expect("with a flush of all here", map(1), 0);
    expect("with a flush of the page here", map(2), 0);
    expect("with a flush of all everywhere", map(1 | 4), 0);
    expect("with a flush of the page everywhere", map(2 | 4), 0);
    expect("with a flush of all on some vCPUs", map(bitmap | 1), 0);
    expect("with a flush of the page on some vCPUs", map(bitmap | 2), 0);
    expect("flush 3 is none", map(3), 0);
    expect("a bitmap in the hypervisor is EFAULT to flush by", map(HYPERVISOR_ADDRESS | 2), EFAULT);
    expect("but the entry is written", read_at(FIRST.va()).is_ok(), true);
    let mmio = |entry: u64| hypercall(HYPERVISOR_UPDATE_VA_MAPPING, [FIRST.va(), entry, INVLPG, 0, 0]);
    expect("the first domain maps a device", mmio(0xb_8000 | P | RW), 0);
    expect("but not the local APIC", mmio(0xfee0_0000 | P | RW), EPERM);
    differs("nor the I/O APIC, which Xen maps read-only", mmio(0xfec0_0000 | P | RW), EPERM, 0);
    expect("the hypervisor's own memory is not mapped", mmio(0x20_0000 | P) < 0, true);
    expect("the page comes back to its address", mmio(entry), 0);
}
