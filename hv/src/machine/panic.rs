//! The end: what happened, where, and how it came there.
//!
//! A backtrace is made by looking on the stack for addresses that follow a call instruction. That costs the running
//! hypervisor nothing, unlike frame pointers; now and then it shows a call that had already returned. Names come from
//! the image's own symbol table, which was loaded with it (link.ld).

use core::fmt::{self, Write};
use core::ops::Range;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use elf::ElfBytes;
use elf::endian::LittleEndian;
use hv::registers::Registers;
use rustc_demangle::demangle;
use x86_64::registers::control::{Cr2, Cr3};

use super::hardware::CONSOLE;
use super::layout::{CPU_BLOCK, CPU_BLOCKS, CPU_DATA, IMAGE_BASE, PAGE, STACKS};
use super::serial::Unlocked;
use super::{power, smp};

/// Where the image's file is mapped and how long it is; 0 until that is known.
static IMAGE: [AtomicU64; 2] = [AtomicU64::new(0), AtomicU64::new(0)];
static REBOOT: AtomicBool = AtomicBool::new(true);
/// The block of the CPU that panics, or its first stack's; 0 for none.
static PANICKING: AtomicU64 = AtomicU64::new(0);

/// How many calls are shown.
const DEPTH: usize = 32;

/// Says where the image's file is mapped.
pub(crate) fn set_image(address: u64, len: u64) {
    IMAGE[0].store(address, Ordering::Relaxed);
    IMAGE[1].store(len, Ordering::Relaxed);
}

/// Whether the machine starts again after a panic (`noreboot`).
pub(crate) fn set_reboot(reboot: bool) {
    REBOOT.store(reboot, Ordering::Relaxed);
}

/// An address in the hypervisor, with the name of the function around it.
struct Place(u64);

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#018x}", self.0)?;
        match symbol(self.0) {
            Some((name, offset)) => write!(f, " {:#}+{offset:#x}", demangle(name)),
            None => Ok(()),
        }
    }
}

fn symbol(address: u64) -> Option<(&'static str, u64)> {
    let (start, len) = (IMAGE[0].load(Ordering::Relaxed), IMAGE[1].load(Ordering::Relaxed));
    if start == 0 {
        return None;
    }
    // SAFETY: the file was loaded there whole and its memory is never given away.
    let bytes = unsafe { core::slice::from_raw_parts(start as *const u8, len as usize) };
    let file = ElfBytes::<LittleEndian>::minimal_parse(bytes).ok()?;
    let (symbols, names) = file.symbol_table().ok()??;
    let (name, value) = symbols
        .iter()
        .filter(|symbol| symbol.st_symtype() == elf::abi::STT_FUNC || symbol.st_symtype() == elf::abi::STT_NOTYPE)
        .filter(|symbol| symbol.st_value <= address && symbol.st_value >= IMAGE_BASE)
        .max_by_key(|symbol| symbol.st_value)
        .map(|symbol| (symbol.st_name, symbol.st_value))?;
    Some((names.get(name as usize).ok()?, address - value))
}

fn text() -> Range<u64> {
    unsafe extern "C" {
        static image_text: u8;
        static image_rodata: u8;
    }
    (&raw const image_text as u64)..(&raw const image_rodata as u64)
}

/// What is left of the stack that `rsp` points into.
fn stack(rsp: u64) -> Range<u64> {
    let block = rsp & !(CPU_BLOCK - 1);
    if block < CPU_BLOCKS {
        return rsp..rsp;
    }
    let (page, offset) = ((rsp - block) / PAGE, block + CPU_DATA);
    STACKS
        .into_iter()
        .find(|&(first, pages)| (first..first + pages).contains(&page))
        .map_or(offset..offset, |(first, pages)| rsp..block + (first + pages) * PAGE)
}

/// Whether a call instruction ends at `address`: `e8` and four bytes, or `ff` with an operand.
fn follows_call(address: u64) -> bool {
    let text = text();
    if !text.contains(&address) || address < text.start + 7 {
        return false;
    }
    // SAFETY: the seven bytes are code, which may be read.
    let before = unsafe { ((address - 7) as *const [u8; 7]).read() };
    before[2] == 0xe8 || (2..=7).any(|len| before[7 - len] == 0xff && before[8 - len] >> 3 & 7 == 2)
}

fn backtrace(out: &mut impl Write, rsp: u64) {
    let words = stack(rsp.next_multiple_of(8)).step_by(8);
    let calls = words
        // SAFETY: the range is of a mapped stack, whose words were all written or zeroed.
        .map(|place| unsafe { (place as *const u64).read_volatile() })
        .filter(|&address| follows_call(address));
    for address in calls.take(DEPTH) {
        let _ = writeln!(out, "(hv)   {}", Place(address));
    }
}

/// A panic begins: all other CPUs stop. One that panics at the same time, or while it says why, stops as well.
fn begin(out: &mut impl Write, rsp: u64) {
    let own = (rsp & !(CPU_BLOCK - 1)).max(1);
    match PANICKING.compare_exchange(0, own, Ordering::AcqRel, Ordering::Acquire) {
        Ok(_) => {
            CONSOLE.finish();
            smp::stop_others();
        }
        Err(first) => {
            if first == own {
                let _ = writeln!(out, "(hv) and again while saying so.");
            }
            power::halt()
        }
    }
}

/// Ends the machine's work because of an exception in the hypervisor.
pub(crate) fn exception(registers: &Registers) -> ! {
    let mut out = Unlocked(&CONSOLE);
    begin(&mut out, registers.rsp);
    let _ = writeln!(
        out,
        "\n(hv) Panic: exception {} in the hypervisor, error code {:#x}, at {}",
        registers.entry_vector,
        registers.error_code,
        Place(registers.rip)
    );
    let _ = writeln!(out, "(hv) cr2 {:#018x}  cr3 {:#018x}", Cr2::read_raw(), Cr3::read_raw().0.start_address());
    let r = registers;
    let _ = writeln!(out, "(hv) rax {:#018x}  rbx {:#018x}  rcx {:#018x}  rdx {:#018x}", r.rax, r.rbx, r.rcx, r.rdx);
    let _ = writeln!(out, "(hv) rsi {:#018x}  rdi {:#018x}  rbp {:#018x}  rsp {:#018x}", r.rsi, r.rdi, r.rbp, r.rsp);
    let _ = writeln!(out, "(hv) r8  {:#018x}  r9  {:#018x}  r10 {:#018x}  r11 {:#018x}", r.r8, r.r9, r.r10, r.r11);
    let _ = writeln!(out, "(hv) r12 {:#018x}  r13 {:#018x}  r14 {:#018x}  r15 {:#018x}", r.r12, r.r13, r.r14, r.r15);
    let _ = writeln!(out, "(hv) cs {:#x}  ss {:#x}  rflags {:#x}", r.cs, r.ss, r.rflags);
    end(&mut out, registers.rsp)
}

fn end(out: &mut impl Write, rsp: u64) -> ! {
    let _ = writeln!(out, "(hv) Called from:");
    backtrace(out, rsp);
    power::after_panic(out, REBOOT.load(Ordering::Relaxed))
}

#[panic_handler]
fn on_panic(info: &core::panic::PanicInfo<'_>) -> ! {
    x86_64::instructions::interrupts::disable();
    let rsp: u64;
    // SAFETY: reads the stack pointer.
    unsafe { core::arch::asm!("mov {}, rsp", out(reg) rsp, options(nomem, nostack, preserves_flags)) };
    let mut out = Unlocked(&CONSOLE);
    begin(&mut out, rsp);
    let _ = writeln!(out, "\n(hv) Panic: {info}");
    end(&mut out, rsp)
}
