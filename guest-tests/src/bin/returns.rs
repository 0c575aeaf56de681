//! What happens when the hypervisor cannot go where a guest wants to.
//!
//! `iret` takes a frame that the guest wrote, and `syscall` can be the last instruction of the lower half. The way back
//! then faults in the hypervisor, at its highest privilege; it must become the guest's fault and nothing else
//! (Xen: XSA-7).
#![no_std]
#![no_main]
#![expect(unsafe_code, reason = "leaving the hypervisor badly is what is tested")]

use core::arch::asm;
use core::sync::atomic::{AtomicU64, Ordering};

use guest_tests::{
    A, P, Page, RW, Trap, TrapFrame, US, about, attempt, expect, guest_test, mmu_update, mmuext, on_trap, say,
    start_info, update_va_mapping,
};
use pv_abi::xen::{HYPERVISOR_IRET, HYPERVISOR_XEN_VERSION, MMUEXT_SET_LDT};

guest_test!(returns);

/// As `iret` wants it: privilege 3 would mean guest-user mode.
const KERNEL_CS: u64 = 0xe030;
const KERNEL_SS: u64 = 0xe02b;
const INVLPG: u64 = 2;
/// The last two bytes of the lower half.
const LAST_SYSCALL: u64 = 0x7fff_ffff_fffe;

/// Where to go on after the trap, and with which stack; zero where no trap is expected.
static RESUME: AtomicU64 = AtomicU64::new(0);
static STACK: AtomicU64 = AtomicU64::new(0);
/// The trap: vector, error code, rip.
static SEEN: [AtomicU64; 3] = [const { AtomicU64::new(0) }; 3];

static TABLES: [Page; 3] = [const { Page::new() }; 3];
static CODE: Page = Page::new();
static LOCAL: Page = Page::new();

fn recover(frame: &mut TrapFrame) -> bool {
    let resume = RESUME.swap(0, Ordering::Relaxed);
    if resume == 0 {
        return false;
    }
    for (seen, value) in SEEN.iter().zip([frame.vector, frame.error_code, frame.rip]) {
        seen.store(value, Ordering::Relaxed);
    }
    frame.rip = resume;
    frame.cs = KERNEL_CS;
    frame.ss = KERNEL_SS;
    frame.rsp = STACK.load(Ordering::Relaxed);
    true
}

fn seen() -> [u64; 3] {
    SEEN.each_ref().map(|seen| seen.swap(u64::MAX, Ordering::Relaxed))
}

fn returns() {
    on_trap(recover);
    about("iret");
    let good = here();
    expect("iret goes where its frame says", iret(good, KERNEL_CS, KERNEL_SS), [u64::MAX; 3]);
    let unmapped = 0x7000_0000_0000;
    expect("iret to nothing is a page fault there", iret(unmapped, KERNEL_CS, KERNEL_SS), [14, 0x10, unmapped]);
    let bad = 0x8000_0000_0000_0000;
    expect(
        "iret to an address that is not canonical is a general-protection fault there",
        iret(bad, KERNEL_CS, KERNEL_SS),
        [13, 0, bad],
    );
    expect(
        "iret to a code selector without a descriptor faults with it",
        iret(good, 0x30, KERNEL_SS),
        [13, 0x30, good],
    );
    expect(
        "iret to a data selector as code faults with it",
        iret(good, KERNEL_SS & !3, KERNEL_SS),
        [13, KERNEL_SS & !3, good],
    );
    expect(
        "iret to a stack selector without a descriptor faults with it",
        iret(good, KERNEL_CS, 0x43),
        [13, 0x40, good],
    );
    expect(
        "iret to a local table's selector without such a table faults with it",
        iret(good, 0x34, KERNEL_SS),
        [13, 0x34, good],
    );
    local_table(good);
    end_of_lower_half();
}

/// An address that goes on after the `iret` of [`iret`].
fn here() -> u64 {
    // SAFETY: No frame: the next call only fills in where it goes on.
    unsafe { leave(0, 0) };
    SEEN[2].swap(u64::MAX, Ordering::Relaxed)
}

/// The hypercall `iret` to there; gives the trap, or all ones where there was none.
fn iret(rip: u64, cs: u64, ss: u64) -> [u64; 3] {
    seen();
    // rax, r11, rcx, flags, rip, cs, rflags, rsp, ss; the stack pointer is filled in below.
    let mut frame = [0, 0, 0, 0, rip, cs, 0x202, 0, ss];
    // SAFETY: The frame leads on in `leave`, or to a trap that does.
    unsafe { leave(frame.as_mut_ptr() as u64, HYPERVISOR_IRET) };
    RESUME.store(0, Ordering::Relaxed);
    seen()
}

/// Makes a hypercall with `rsp` at `frame` whose word 7 becomes the real stack pointer; with no frame, only says where
/// that goes on.
///
/// # Safety
/// The hypercall comes back to where that is, or to a trap.
#[inline(never)]
unsafe fn leave(frame: u64, number: u64) {
    // SAFETY: All that the way round may change is named; the stack pointer is the same afterwards.
    unsafe {
        asm!(
            "lea {scratch}, [rip + 2f]",
            "mov [{seen}], {scratch}",
            "test {frame}, {frame}",
            "jz 2f",
            "mov [{resume}], {scratch}",
            "mov [{stack}], rsp",
            "mov [{frame} + 56], rsp",
            "mov rsp, {frame}",
            "syscall",
            "2:",
            scratch = out(reg) _,
            seen = in(reg) if frame == 0 { SEEN[2].as_ptr() } else { (&raw const SPARE).cast_mut().cast() },
            frame = in(reg) frame,
            resume = in(reg) RESUME.as_ptr(),
            stack = in(reg) STACK.as_ptr(),
            inout("rax") number => _,
            out("rcx") _,
            out("r11") _,
        );
    }
}

static SPARE: AtomicU64 = AtomicU64::new(0);

/// Descriptors of a local table are looked up by the CPU when they are first used, in the hypervisor or in the guest.
fn local_table(good: u64) {
    const CODE: u64 = 0x00af_fb00_0000_ffff;
    const DATA: u64 = 0x00cf_f300_0000_ffff;
    about("MMUEXT_SET_LDT");
    let table = LOCAL.va() as *mut [u64; 2];
    // SAFETY: The page is the test's own.
    unsafe { table.write([CODE, DATA]) };
    let read_only = LOCAL.mfn() << 12 | P | US | A;
    expect("a descriptor page is made read-only", update_va_mapping(LOCAL.va(), read_only, INVLPG), 0);
    expect("a local table is set", mmuext(MMUEXT_SET_LDT, LOCAL.va(), 2), 0);
    expect("iret to code of the local table goes there", iret(good, 0x4, KERNEL_SS), [u64::MAX; 3]);
    expect("the table is set again", mmuext(MMUEXT_SET_LDT, LOCAL.va(), 2), 0);
    expect("data of the local table is loaded", attempt!("mov ds, {x:x}"; x = in(reg) 0xf_u64), None);
    let beyond = attempt!("mov ds, {x:x}"; x = in(reg) 0x17_u64);
    expect("what is beyond the table faults", beyond, Some(Trap { vector: 13, error_code: 0x14 }));
    expect("the null selector is loaded", attempt!("mov ds, {x:x}"; x = in(reg) 0_u64), None);
    expect("the table is taken away", mmuext(MMUEXT_SET_LDT, 0, 0), 0);
    let gone = attempt!("mov ds, {x:x}"; x = in(reg) 0xf_u64);
    expect("then its data is no more", gone, Some(Trap { vector: 13, error_code: 0xc }));
}

/// Maps a page at the end of the lower half whose last instruction is `syscall`, and executes that.
fn end_of_lower_half() {
    about("exceptions");
    let code = CODE.va();
    // SAFETY: The page is the test's own, and not executed yet.
    unsafe { ((code + 0xffe) as *mut [u8; 2]).write([0x0f, 0x05]) };
    let mut below = CODE.mfn() << 12 | P | US | A;
    for (level, table) in (1..).zip(&TABLES) {
        // SAFETY: The page is the test's own and no table yet.
        unsafe { ((table.va() + 511 * 8) as *mut u64).write(below) };
        let address = table.mfn() << 12;
        let read_only = update_va_mapping(table.va(), address | P | US | A, INVLPG);
        if read_only != 0 {
            say!("guest-test: table {level} read-only: FAILED saw {read_only}");
        }
        below = address | P | RW | US | A;
    }
    let root = guest_tests::mfn_of(start_info().pt_base) << 12;
    expect("tables for the end of the lower half are taken", mmu_update(root + 255 * 8, below), 0);
    let seen_here = execute_last();
    expect(
        "a hypercall at the end of the lower half comes back to a general-protection fault",
        seen_here,
        [13, 0, LAST_SYSCALL + 2],
    );
}

fn execute_last() -> [u64; 3] {
    seen();
    // SAFETY: A trap leads to the end of this block.
    unsafe {
        asm!(
            "lea {scratch}, [rip + 2f]",
            "mov [{resume}], {scratch}",
            "mov [{stack}], rsp",
            "jmp {target}",
            "2:",
            scratch = out(reg) _,
            resume = in(reg) RESUME.as_ptr(),
            stack = in(reg) STACK.as_ptr(),
            target = in(reg) LAST_SYSCALL,
            inout("rax") HYPERVISOR_XEN_VERSION => _,
            inout("rdi") 0_u64 => _,
            out("rcx") _,
            out("r11") _,
        );
    }
    seen()
}
