//! Stores to a page table that the hypervisor carries out, and those at its edges, which it leaves alone.
//!
//! With the assist for writable page tables a kernel stores to its L1 tables as if they were writable. The table lies
//! between two pages of data, so an operand can begin or end outside it; one that does changes neither side.
#![no_std]
#![no_main]

use guest_tests::{
    A, D, P, Page, RW, about, attempt, expect, guest_test, hypercall, mmuext, peek, update_va_mapping, write_at,
};
use pv_abi::xen::{
    HYPERVISOR_VM_ASSIST, MMUEXT_PIN_L1_TABLE, MMUEXT_UNPIN_TABLE, VMASST_CMD_ENABLE, VMASST_TYPE_WRITABLE_PAGETABLES,
};

guest_test!(writes);

const INVLPG: u64 = 2;
const PAGE: u64 = 4096;
/// What no entry points with: the lowest bit, present, is not set.
const VALUE: u64 = 0x0000_5566_7788_99aa;

/// Data, the table, data.
static PAGES: [Page; 3] = [const { Page::new() }; 3];
static SOURCE: [Page; 2] = [const { Page::new() }; 2];

fn writes() {
    about("VMASST_TYPE_writable_pagetables");
    let (table, frame) = (PAGES[1].va(), PAGES[1].mfn() << 12);
    let assist = [u64::from(VMASST_CMD_ENABLE), u64::from(VMASST_TYPE_WRITABLE_PAGETABLES), 0, 0, 0];
    expect("the assist is enabled", hypercall(HYPERVISOR_VM_ASSIST, assist), 0);
    expect("a page is made read-only", update_va_mapping(table, frame | P | A, INVLPG), 0);
    expect("a store to it faults", store8(table, 2), Some(14));
    expect("it becomes a table", mmuext(MMUEXT_PIN_L1_TABLE, PAGES[1].mfn(), 0), 0);
    sizes(table);
    edges(table);
    entries(table, frame);
    strings(table);
    expect("it is a table no longer", mmuext(MMUEXT_UNPIN_TABLE, PAGES[1].mfn(), 0), 0);
    expect("and written like any page", update_va_mapping(table, frame | P | RW | A | D, INVLPG), 0);
    expect("with whatever value", write_at(table, 1), Ok(()));
}

fn store8(address: u64, value: u64) -> Option<u64> {
    attempt!("mov [{a}], {v}"; a = in(reg) address, v = in(reg) value, options(nostack)).map(|trap| trap.vector)
}

fn store4(address: u64, value: u64) -> Option<u64> {
    attempt!("mov [{a}], {v:e}"; a = in(reg) address, v = in(reg) value, options(nostack)).map(|trap| trap.vector)
}

fn store2(address: u64, value: u64) -> Option<u64> {
    attempt!("mov [{a}], {v:x}"; a = in(reg) address, v = in(reg) value, options(nostack)).map(|trap| trap.vector)
}

fn store1(address: u64, value: u64) -> Option<u64> {
    attempt!("mov byte ptr [{a}], al"; a = in(reg) address, in("rax") value, options(nostack)).map(|trap| trap.vector)
}

/// Each size, where it is aligned.
fn sizes(table: u64) {
    expect("eight bytes are stored", (store8(table, VALUE), peek(table)), (None, VALUE));
    expect("four are", (store4(table + 4, 0x1234), peek(table)), (None, 0x0000_1234_7788_99aa));
    expect("two are", (store2(table + 2, 0x4321), peek(table)), (None, 0x0000_1234_4321_99aa));
    expect("one is", (store1(table + 1, 0x44), peek(table)), (None, 0x0000_1234_4321_44aa));
    let unchanged = (Some(14), 0x0000_1234_4321_44aa);
    expect("four that are not aligned fault", (store4(table + 2, 0), peek(table)), unchanged);
    expect("two that are not aligned fault", (store2(table + 3, 0), peek(table)), unchanged);
    let wide = attempt!("movups [{a}], xmm0"; a = in(reg) table, options(nostack)).map(|trap| trap.vector);
    expect("sixteen fault", (wide, peek(table)), unchanged);
    let exchanged = attempt!(
        "xchg rbx, {b}", "lock cmpxchg16b [{a}]", "xchg rbx, {b}";
        a = in(reg) table, b = inout(reg) 0_u64 => _, inout("rax") peek(table) => _, inout("rdx") peek(table + 8) => _,
        in("rcx") 0_u64, options(nostack)
    );
    expect("nor are sixteen exchanged", (exchanged.map(|trap| trap.vector), peek(table)), unchanged);
    expect("the entry is taken away", (store8(table, 0), peek(table)), (None, 0));
}

/// Operands that are not within one entry.
fn edges(table: u64) {
    let words = || [table - 8, table, table + 8, table + PAGE - 8, table + PAGE].map(peek);
    let before = words();
    let across = |address: u64| (store8(address, u64::MAX << 1), words());
    expect("a store across two entries faults and changes nothing", across(table + 4), (Some(14), before));
    expect("so does one that begins before the table", across(table - 4), (Some(14), before));
    expect("and one that ends behind it", across(table + PAGE - 4), (Some(14), before));
    expect("of four bytes, too", (store4(table - 2, !1), words()), (Some(14), before));
    expect("on either side", (store4(table + PAGE - 2, !1), words()), (Some(14), before));
}

/// Entries that are present are checked.
fn entries(table: u64, frame: u64) {
    let data = PAGES[2].mfn() << 12;
    // Flags that the hypervisor has a use for are its own.
    let entry = || peek(table + 16) & (0xff_ffff_ffff << 12 | P | RW);
    let store = |value: u64| (store8(table + 16, value), entry());
    expect("an entry to a page of data is stored", store(data | P | RW), (None, data | P | RW));
    expect("one that maps the table itself writable faults", store(frame | P | RW), (Some(14), data | P | RW));
    let parts = (store8(table + 16, frame | P), store1(table + 16, P | RW));
    expect("a table that is mapped read-only is not made writable by a byte", parts, (None, Some(14)));
    expect("it is still mapped read-only", entry(), frame | P);
    expect("the entry is taken away", store(0), (None, 0));
}

/// Strings that begin before the table, end behind it, or come from where nothing is.
fn strings(table: u64) {
    let left: u64;
    let trap = attempt!(
        "cld", "rep stosq";
        inout("rdi") table - 16 => _, inout("rcx") 516_u64 => left, in("rax") VALUE, options(nostack)
    );
    expect("a string goes through the table from one side to the other", (trap, left), (None, 0));
    let stored = (0..516).filter(|word| peek(table - 16 + word * 8) == VALUE).count();
    expect("each of its words is there", (stored, peek(table + PAGE + 16)), (516, 0));
    let source = SOURCE[1].va();
    expect("its last words are written", [1, 2].map(|word| write_at(source - word * 8, word * 2)), [Ok(()); 2]);
    expect("a page of the source is taken away", update_va_mapping(source, 0, INVLPG), 0);
    let left: u64;
    let trap = attempt!(
        "cld", "rep movsq";
        inout("rsi") source - 16 => _, inout("rdi") table => _, inout("rcx") 4_u64 => left, options(nostack)
    );
    expect("a string faults where its source ends", (trap.map(|trap| trap.vector), left), (Some(14), 2));
    let words = [0, 8, 16].map(|offset| peek(table + offset));
    expect("and is stored up to there", words, [4, 2, VALUE]);
    let entry = SOURCE[1].mfn() << 12 | P | RW | A | D;
    expect("the source is mapped again", update_va_mapping(source, entry, INVLPG), 0);
}
