//! What past advisories did, tried again.
//!
//! Each check is an attempt to get a writable mapping of what must not be written, or to make the hypervisor act on what
//! changed under it. It passes where the attempt is refused, with the errno that Xen gives, and the guest lives on.
#![no_std]
#![no_main]

use guest_tests::{
    A, D, P, Page, RW, US, about, attempt, entry_address, expect, guest_test, hypercall, mfn_of, mmu_update,
    mmu_update_as, mmuext, start_info, update_va_mapping, va_of, write_at,
};
use pv_abi::xen::{
    DOMID_SELF, HYPERVISOR_MMU_UPDATE, HYPERVISOR_SET_GDT, HYPERVISOR_UPDATE_DESCRIPTOR, MMUEXT_PIN_L1_TABLE,
    MMUEXT_PIN_L2_TABLE, MMUEXT_PIN_L3_TABLE, MMUEXT_PIN_L4_TABLE, MMUEXT_SET_LDT, MMUEXT_UNPIN_TABLE,
};

guest_test!(attacks);

const EINVAL: i64 = -22;
const EBUSY: i64 = -16;
const INVLPG: u64 = 2;
const PSE: u64 = 1 << 7;

static TABLE: Page = Page::new();
static DATA: Page = Page::new();
static GDT: Page = Page::new();

fn attacks() {
    writable_page_table();
    type_confusion();
    recursion();
    superpages();
    hypervisor_slots();
    descriptors();
    wraps();
    stale_translations();
    local_descriptors();
}

/// A page table may be mapped, but not writable.
fn writable_page_table() {
    about("update_va_mapping");
    let root = mfn_of(start_info().pt_base);
    let va = DATA.va();
    let mapping = |mfn: u64, flags: u64| update_va_mapping(va, mfn << 12 | flags, INVLPG);
    expect("the root table cannot be mapped writable", mapping(root, P | RW | A | D), EBUSY);
    expect("the root table can be mapped read-only", mapping(root, P | A), 0);
    expect("a write through that mapping faults", write_at(va, 0).map_err(|trap| trap.vector), Err(14));
    let l1 = entry_address(va) >> 12;
    expect("an L1 table cannot be mapped writable", mapping(l1, P | RW | A | D), EBUSY);
    expect(
        "an L1 table cannot be made writable by mmu_update",
        mmu_update(entry_address(va), l1 << 12 | P | RW),
        EBUSY,
    );
    expect("the data page comes back", mapping(DATA.mfn(), P | RW | A | D), 0);
}

/// A frame that is one kind of table is not another (XSA-148, XSA-240 and what they share).
fn type_confusion() {
    about("MMUEXT_PIN_L1_TABLE MMUEXT_PIN_L2_TABLE MMUEXT_PIN_L3_TABLE MMUEXT_PIN_L4_TABLE MMUEXT_UNPIN_TABLE");
    let (va, mfn) = (TABLE.va(), TABLE.mfn());
    let readonly = mfn << 12 | P | A;
    expect("a table is made read-only", update_va_mapping(va, readonly, INVLPG), 0);
    expect("an empty table is pinned as L1", mmuext(MMUEXT_PIN_L1_TABLE, mfn, 0), 0);
    expect("a pinned L1 is not pinned as L2", mmuext(MMUEXT_PIN_L2_TABLE, mfn, 0), EINVAL);
    expect("a pinned L1 is not pinned as L3", mmuext(MMUEXT_PIN_L3_TABLE, mfn, 0), EINVAL);
    expect("a pinned L1 is not pinned as L4", mmuext(MMUEXT_PIN_L4_TABLE, mfn, 0), EINVAL);
    expect("a pinned L1 is not pinned twice", mmuext(MMUEXT_PIN_L1_TABLE, mfn, 0), EINVAL);
    expect("a pinned table cannot be mapped writable", update_va_mapping(va, readonly | RW, INVLPG), EBUSY);
    let entry = DATA.mfn() << 12 | P | RW | A | D;
    expect("a pinned table takes an entry", mmu_update(mfn << 12, entry), 0);
    expect(
        "an entry that maps the table itself writable is refused",
        mmu_update((mfn << 12) + 8, readonly | RW),
        EBUSY,
    );
    expect("an entry that maps the table itself read-only is taken", mmu_update((mfn << 12) + 8, readonly), 0);
    expect("the table is unpinned", mmuext(MMUEXT_UNPIN_TABLE, mfn, 0), 0);
    expect("it is not unpinned twice", mmuext(MMUEXT_UNPIN_TABLE, mfn, 0), EINVAL);
    expect("an unpinned table can be mapped writable", update_va_mapping(va, readonly | RW, INVLPG), 0);
    expect("and written", write_at(va, 0), Ok(()));
    expect("and written further on", write_at(va + 8, 0), Ok(()));
}

/// A root table in its own slot, for which the hypervisor must be built (XSA-240).
fn recursion() {
    about("MMU_NORMAL_PT_UPDATE");
    let root = start_info().pt_base;
    let mfn = mfn_of(root);
    let slot = (mfn << 12) + 300 * 8;
    expect(
        "a root table in its own slot, writable, is refused",
        mmu_update(slot, mfn << 12 | P | RW | US | A | D),
        EINVAL,
    );
    expect(
        "an L1 table in a root slot is refused",
        mmu_update(slot, entry_address(DATA.va()) & !0xfff | P | RW | US),
        EINVAL,
    );
    expect("a data page in a root slot is refused", mmu_update(slot, DATA.mfn() << 12 | P | RW | US), EINVAL);
}

/// A large page would map what was never checked (XSA-148).
fn superpages() {
    about("MMU_NORMAL_PT_UPDATE");
    let root = va_of(mfn_of(start_info().pt_base));
    // The third-level table that maps the image, found through the boot tables.
    let l4_index = (DATA.va() >> 39) & 511;
    let l3 = guest_tests::read_at(root + l4_index * 8).unwrap_or(0) >> 12 & 0xff_ffff_ffff;
    let l3_index = (DATA.va() >> 30) & 511;
    let l2 = guest_tests::read_at(va_of(l3) + l3_index * 8).unwrap_or(0) >> 12 & 0xff_ffff_ffff;
    let large = P | RW | US | PSE | A | D;
    expect("a 2 MiB page is refused", mmu_update((l2 << 12) + 500 * 8, large), EINVAL);
    expect("a 1 GiB page is refused", mmu_update((l3 << 12) + 8, large), EINVAL);
    expect(
        "a large page in the root is refused",
        mmu_update((mfn_of(start_info().pt_base) << 12) + 300 * 8, large),
        EINVAL,
    );
}

/// The hypervisor's slots of a root table are the hypervisor's.
fn hypervisor_slots() {
    about("MMU_NORMAL_PT_UPDATE");
    let root = mfn_of(start_info().pt_base) << 12;
    for (name, slot) in [
        ("the first hypervisor slot is refused", 256),
        ("the hypervisor's text slot is refused", 261),
        ("the last hypervisor slot is refused", 271),
    ] {
        expect(name, mmu_update(root + slot * 8, 0), EINVAL);
    }
    let va = 0xffff_8300_0000_0000;
    expect(
        "a mapping in the hypervisor's range is refused",
        update_va_mapping(va, DATA.mfn() << 12 | P | RW, 0),
        EINVAL,
    );
}

/// Descriptors through which a guest could become the hypervisor.
fn descriptors() {
    about("set_gdt update_descriptor");
    let (va, mfn) = (GDT.va(), GDT.mfn());
    let entry = mfn << 12 | P | RW | A | D;
    let interrupt_gate = 0x0000_8e00_0000_0000_u64;
    let _ = write_at(va + 8, interrupt_gate);
    expect("a descriptor page is made read-only", update_va_mapping(va, entry & !RW, INVLPG), 0);
    let frames = [mfn];
    let set_gdt = || hypercall(HYPERVISOR_SET_GDT, [frames.as_ptr() as u64, 16, 0, 0, 0]);
    expect("a table with an interrupt gate is refused", set_gdt(), EINVAL);
    expect("the page is writable again", update_va_mapping(va, entry, INVLPG), 0);
    let _ = write_at(va + 8, 0x00af_9b00_0000_ffff);
    expect("the page is read-only again", update_va_mapping(va, entry & !RW, INVLPG), 0);
    expect("a table with a kernel code segment is taken", set_gdt(), 0);
    expect(
        "its privilege was lowered to the guest's",
        guest_tests::read_at(va + 8).map(|entry| entry >> 45 & 3),
        Ok(3),
    );
    expect("a table in use cannot be mapped writable", update_va_mapping(va, entry, INVLPG), EBUSY);
    let update = |value: u64| hypercall(HYPERVISOR_UPDATE_DESCRIPTOR, [(mfn << 12) + 16, value, 0, 0, 0]);
    expect("a data segment is taken", update(0x00cf_f300_0000_ffff), 0);
    expect("a task-state segment is refused", update(0x0000_8900_0000_0067), EINVAL);
    expect("a local table's descriptor is refused", update(0x0000_8200_0000_0067), EINVAL);
    expect("an interrupt gate is refused", update(interrupt_gate), EINVAL);
    expect("a call gate to the hypervisor's code is refused", update(0x0000_8c00_e008_0000), EINVAL);
    expect("the table is given back", hypercall(HYPERVISOR_SET_GDT, [0, 0, 0, 0, 0]), 0);
    expect("then it can be mapped writable", update_va_mapping(va, entry, INVLPG), 0);
}

/// Sizes and addresses at the end of their range.
fn wraps() {
    about("MMU_NORMAL_PT_UPDATE");
    let huge = hypercall(HYPERVISOR_MMU_UPDATE, [u64::MAX - 7, 1, 0, u64::from(DOMID_SELF), 0]);
    expect("a request array at the end of the address space is EFAULT", huge, -14);
    let other = mmu_update_as(entry_address(DATA.va()), DATA.mfn() << 12 | P | RW, 77);
    expect("a domain that does not exist is ESRCH or EPERM", other == -3 || other == -1, true);
    let misaligned = mmu_update(entry_address(DATA.va()) + 4, DATA.mfn() << 12 | P);
    expect("a misaligned update is refused", misaligned < 0, true);
}

/// A translation that the CPU still remembers must not outlive what made it right (XSA-273 and before): a frame becomes
/// a table or goes away while a stale entry says that it is writable.
fn stale_translations() {
    about("MMUEXT_PIN_L1_TABLE");
    let (va, entry) = (DATA.va(), DATA.mfn() << 12 | P | RW | A | D);
    expect("a page is written", write_at(va, 0), Ok(()));
    expect("and unmapped without a flush", update_va_mapping(va, 0, 0), 0);
    expect("its frame becomes a table", mmuext(MMUEXT_PIN_L1_TABLE, DATA.mfn(), 0), 0);
    expect("which no stale translation writes", write_at(va, 1).map_err(|trap| trap.vector), Err(14));
    expect("the table is a frame again", mmuext(MMUEXT_UNPIN_TABLE, DATA.mfn(), 0), 0);
    expect("and comes back to its address", update_va_mapping(va, entry, INVLPG), 0);
    expect("the page is written again", write_at(va, 0), Ok(()));
    about("set_gdt");
    let mfn = DATA.mfn();
    expect("and unmapped without a flush again", update_va_mapping(va, 0, 0), 0);
    let frames = [mfn];
    let taken = hypercall(HYPERVISOR_SET_GDT, [frames.as_ptr() as u64, 1, 0, 0, 0]);
    expect("its frame becomes a table of descriptors", taken, 0);
    expect("which no stale translation writes either", write_at(va, 1).map_err(|trap| trap.vector), Err(14));
    expect("it is a frame again", hypercall(HYPERVISOR_SET_GDT, [0; 5]), 0);
    expect("and comes back", update_va_mapping(va, entry, INVLPG), 0);
}

/// A local descriptor table in a page that stays writable would let the guest write any descriptor it likes (XSA-286's
/// kin): the page is taken only when a descriptor is used, and only if nothing can write it.
fn local_descriptors() {
    about("MMUEXT_SET_LDT");
    let va = DATA.va();
    let _ = write_at(va, 0x0000_8c00_e008_0000);
    let _ = write_at(va + 8, 0x00cf_f300_0000_ffff);
    expect("a writable page is set as local table", mmuext(MMUEXT_SET_LDT, va, 2), 0);
    let load = || attempt!("mov es, {x:x}"; x = in(reg) 0xf_u64).map(|trap| trap.vector);
    expect("but its descriptors are not loaded", matches!(load(), Some(13 | 14)), true);
    let entry = DATA.mfn() << 12 | P | RW | A | D;
    expect("the page is made read-only", update_va_mapping(va, entry & !RW, INVLPG), 0);
    expect("then a gate to the hypervisor is in the way", matches!(load(), Some(13 | 14)), true);
    expect("the page is writable again", update_va_mapping(va, entry, INVLPG), 0);
    let _ = write_at(va, 0);
    expect("the page is read-only again", update_va_mapping(va, entry & !RW, INVLPG), 0);
    expect("without the gate a descriptor is loaded", load(), None);
    expect("then the page cannot be made writable", update_va_mapping(va, entry, INVLPG), EBUSY);
    expect("until the table is taken away", mmuext(MMUEXT_SET_LDT, 0, 0), 0);
    expect("no segment is loaded", attempt!("mov es, {x:x}"; x = in(reg) 0_u64), None);
    expect("the page is writable in the end", update_va_mapping(va, entry, INVLPG), 0);
}
