//! Writes to page tables that are carried out for a guest.

use core::sync::atomic::Ordering;

use pv_abi::xen::VMASST_TYPE_WRITABLE_PAGETABLES;

use super::entry::{ACCESSED, DIRTY, GLOBAL};
use super::*;
use crate::entry::Exception;
use crate::paging::on_write_fault;
use crate::registers::flags;

/// A guest whose L1 table is mapped read-only; its address.
fn scene() -> (Bed, Guest, u64) {
    let bed = Bed::new(64);
    let mut guest = bed.guest(1, 4);
    let window = Guest::BASE + 0x20_000;
    let l1 = guest.tables[3];
    va_mapping(&bed, &mut guest, window, to(l1, USER)).unwrap();
    guest.domain.assists.store(1 << VMASST_TYPE_WRITABLE_PAGETABLES, Ordering::Relaxed);
    (bed, guest, window)
}

/// Lets the guest execute `code` with these registers and fault at `address`.
fn execute(bed: &Bed, guest: &mut Guest, code: &[u8], registers: &mut Registers, address: u64) -> bool {
    let place = guest.address(0);
    guest.write(bed, place, code);
    registers.rip = place;
    let exception = Exception { vector: 14, error_code: 7, address };
    let done = on_write_fault(&bed.hv, &mut guest.running, registers, exception);
    scan::check(bed, &[&*guest]);
    done
}

const SLOT: u64 = 40;

#[test]
fn mov_writes_an_entry() {
    let (bed, mut guest, window) = scene();
    let value = to(guest.frames[1], WRITABLE | USER);
    let mut registers = Registers { rdi: window + SLOT * 8, rsi: value, ..Registers::default() };
    assert!(execute(&bed, &mut guest, &[0x48, 0x89, 0x37], &mut registers, window + SLOT * 8));
    assert_eq!(bed.hv.machine.read_word(guest.tables[3], SLOT as usize), value | GLOBAL);
    assert_eq!(registers.rip, guest.address(0) + 3);
}

#[test]
fn without_the_assist_the_fault_is_the_guests() {
    let (bed, mut guest, window) = scene();
    guest.domain.assists.store(0, Ordering::Relaxed);
    let mut registers = Registers { rdi: window, ..Registers::default() };
    assert!(!execute(&bed, &mut guest, &[0x48, 0x89, 0x37], &mut registers, window));
}

#[test]
fn a_write_that_breaks_a_rule_stays_a_fault() {
    let (bed, mut guest, window) = scene();
    let value = to(guest.tables[3], WRITABLE | USER);
    let mut registers = Registers { rdi: window + SLOT * 8, rsi: value, ..Registers::default() };
    assert!(!execute(&bed, &mut guest, &[0x48, 0x89, 0x37], &mut registers, window + SLOT * 8));
    assert_eq!(bed.hv.machine.read_word(guest.tables[3], SLOT as usize), 0);
}

#[test]
fn xchg_gives_the_old_entry_with_the_cpus_marks() {
    let (bed, mut guest, window) = scene();
    bed.hv.machine.fetch_or_word(guest.tables[3], 2, ACCESSED | DIRTY);
    let old = bed.hv.machine.read_word(guest.tables[3], 2);
    let mut registers = Registers { rdi: window, rax: 0, ..Registers::default() };
    // xchg %rax,0x10(%rdi)
    assert!(execute(&bed, &mut guest, &[0x48, 0x87, 0x47, 0x10], &mut registers, window + 0x10));
    assert_eq!(registers.rax, old);
    assert_eq!(bed.hv.machine.read_word(guest.tables[3], 2), 0);
}

#[test]
fn lock_and_of_a_byte_write_protects() {
    let (bed, mut guest, window) = scene();
    let mfn = guest.frames[1];
    let mut registers = Registers { rbx: window + 0x10, ..Registers::default() };
    // lock andb $0xfd,(%rbx)
    assert!(execute(&bed, &mut guest, &[0xf0, 0x80, 0x23, 0xfd], &mut registers, window + 0x10));
    assert_eq!(bed.hv.machine.read_word(guest.tables[3], 2) & WRITABLE, 0);
    assert_eq!(type_of(&bed, mfn).1, 0);
}

#[test]
fn bit_operations_set_the_carry() {
    let (bed, mut guest, window) = scene();
    let mut registers = Registers { rdi: window, rax: 64 * 2 + 1, ..Registers::default() };
    // lock btr %rax,(%rdi): bit 1 of entry 2
    assert!(execute(&bed, &mut guest, &[0xf0, 0x48, 0x0f, 0xb3, 0x07], &mut registers, window + 0x10));
    assert_eq!((registers.rflags & 1, bed.hv.machine.read_word(guest.tables[3], 2) & WRITABLE), (1, 0));
    // lock btsq $6,0x10(%rdi)
    assert!(execute(&bed, &mut guest, &[0xf0, 0x48, 0x0f, 0xba, 0x6f, 0x10, 6], &mut registers, window + 0x10));
    assert_eq!((registers.rflags & 1, bed.hv.machine.read_word(guest.tables[3], 2) & DIRTY), (0, DIRTY));
}

#[test]
fn cmpxchg_writes_only_what_it_expects() {
    let (bed, mut guest, window) = scene();
    let old = bed.hv.machine.read_word(guest.tables[3], 2);
    let code = [0xf0, 0x48, 0x0f, 0xb1, 0x0f];
    let mut registers = Registers { rdi: window + 0x10, rax: 5, rcx: 0, ..Registers::default() };
    assert!(execute(&bed, &mut guest, &code, &mut registers, window + 0x10));
    assert_eq!((registers.rax, registers.rflags & 1 << 6), (old, 0));
    assert!(execute(&bed, &mut guest, &code, &mut registers, window + 0x10));
    assert_eq!(registers.rflags & 1 << 6, 1 << 6);
    assert_eq!(bed.hv.machine.read_word(guest.tables[3], 2), 0);
}

#[test]
fn the_halves_of_an_entry_are_written_one_after_the_other() {
    let (bed, mut guest, window) = scene();
    let value = to(guest.frames[1], USER);
    let mut registers = Registers { rdi: window + SLOT * 8 + 4, rsi: 1 << 31, ..Registers::default() };
    assert!(execute(&bed, &mut guest, &[0x89, 0x37], &mut registers, window + SLOT * 8 + 4));
    registers.rdi -= 4;
    registers.rsi = value;
    assert!(execute(&bed, &mut guest, &[0x89, 0x37], &mut registers, window + SLOT * 8));
    assert_eq!(bed.hv.machine.read_word(guest.tables[3], SLOT as usize), value | GLOBAL | 1 << 63);
}

#[test]
fn a_write_across_entries_stays_a_fault() {
    let (bed, mut guest, window) = scene();
    let mut registers = Registers { rdi: window + SLOT * 8 + 4, ..Registers::default() };
    assert!(!execute(&bed, &mut guest, &[0x48, 0x89, 0x37], &mut registers, window + SLOT * 8 + 4));
}

#[test]
fn a_string_store_goes_entry_by_entry() {
    let (bed, mut guest, window) = scene();
    let mut registers = Registers { rdi: window + SLOT * 8, rcx: 2, rflags: flags::ALWAYS, ..Registers::default() };
    let code = [0xf3, 0x48, 0xab];
    assert!(execute(&bed, &mut guest, &code, &mut registers, window + SLOT * 8));
    assert_eq!((registers.rcx, registers.rip, registers.rdi), (1, guest.address(0), window + SLOT * 8 + 8));
    assert!(execute(&bed, &mut guest, &code, &mut registers, window + SLOT * 8 + 8));
    assert_eq!((registers.rcx, registers.rip), (0, guest.address(0) + 3));
}

#[test]
fn only_l1_tables_are_written_so() {
    let (bed, mut guest, _) = scene();
    let window = Guest::BASE + 0x30_000;
    for table in [guest.tables[2], guest.tables[0], guest.frames[1]] {
        va_mapping(&bed, &mut guest, window, to(table, USER)).unwrap();
        let mut registers = Registers { rdi: window, ..Registers::default() };
        assert!(!execute(&bed, &mut guest, &[0x48, 0x89, 0x37], &mut registers, window));
    }
}

#[test]
fn a_fault_elsewhere_than_the_operand_is_not_carried_out() {
    let (bed, mut guest, window) = scene();
    let mut registers = Registers { rdi: window + SLOT * 8, ..Registers::default() };
    assert!(!execute(&bed, &mut guest, &[0x48, 0x89, 0x37], &mut registers, window + 8));
}
