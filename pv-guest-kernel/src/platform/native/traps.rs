//! Descriptor tables, the `syscall` instruction, and the two interrupt controllers (PICs).

use core::arch::global_asm;
use core::sync::atomic::{AtomicU16, AtomicUsize, Ordering};

use spin::Once;
use x86_64::VirtAddr;
use x86_64::instructions::port::Port;
use x86_64::instructions::segmentation::{CS, SS, Segment};
use x86_64::instructions::tables::load_tss;
use x86_64::registers::control::Cr2;
use x86_64::registers::model_specific::{LStar, SFMask, Star};
use x86_64::registers::rflags::RFlags;
use x86_64::structures::gdt::{Descriptor, GlobalDescriptorTable, SegmentSelector};
use x86_64::structures::idt::InterruptDescriptorTable;
use x86_64::structures::tss::TaskStateSegment;

use super::{apic, lines};
use crate::platform::TrapFrame;
use crate::task::scheduler;

global_asm!(
    include_str!("../registers.s"),
    include_str!("entry.s"),
    ".purgem SAVE_REGISTERS",
    ".purgem RESTORE_REGISTERS",
);

unsafe extern "C" {
    static native_exception_entries: [u64; 20];
    static native_interrupt_entries: [u64; 17];
    static native_kernel_sp: AtomicUsize;
    fn native_syscall();
    fn native_enter_frame(frame: *const TrapFrame) -> !;
}

/// User code segment; `sysret` derives it from STAR, entry.s knows it too.
pub(super) const USER_CODE: u16 = 0x23;
/// User data segment.
pub(super) const USER_DATA: u16 = 0x1b;

/// First vector of the interrupt lines; the one by which events come to a domain.
pub(in crate::platform) const FIRST_LINE: u8 = 32;
pub(super) const LINES: u8 = 16;
const TIMER_LINE: u8 = 0;
const SERIAL_LINE: u8 = 4;
/// Which of the TSS's extra stacks NMI and double fault use.
const SPARE_STACK: u16 = 0;
const SPARE_STACK_BYTES: usize = 16 << 10;

static TSS: Once<TaskStateSegment> = Once::new();
static GDT: Once<GlobalDescriptorTable> = Once::new();
static IDT: Once<InterruptDescriptorTable> = Once::new();

#[repr(align(16))]
struct Stack(#[expect(dead_code, reason = "only its address is used")] [u8; SPARE_STACK_BYTES]);

/// Loads all tables; interrupts stay off.
pub(in crate::platform) fn init() {
    let tss = TSS.call_once(task_state);
    let mut selectors = None;
    let gdt = GDT.call_once(|| {
        let mut gdt = GlobalDescriptorTable::new();
        let code = gdt.append(Descriptor::kernel_code_segment());
        let data = gdt.append(Descriptor::kernel_data_segment());
        gdt.append(Descriptor::user_data_segment());
        gdt.append(Descriptor::user_code_segment());
        selectors = Some((code, data, gdt.append(Descriptor::tss_segment(tss))));
        gdt
    });
    gdt.load();
    if let Some((code, data, task)) = selectors {
        load_selectors(code, data, task);
    }
    IDT.call_once(entries).load();
    enable_syscall();
}

fn load_selectors(code: SegmentSelector, data: SegmentSelector, task: SegmentSelector) {
    // SAFETY: the selector names the 64-bit kernel code segment of the GDT just loaded.
    unsafe { CS::set_reg(code) };
    // SAFETY: the selector names the kernel data segment of the GDT just loaded.
    unsafe { SS::set_reg(data) };
    // SAFETY: the selector names the TSS in the GDT just loaded.
    unsafe { load_tss(task) };
}

fn task_state() -> TaskStateSegment {
    static SPARE: Stack = Stack([0; SPARE_STACK_BYTES]);
    let mut tss = TaskStateSegment::new();
    let top = VirtAddr::from_ptr(&raw const SPARE) + SPARE_STACK_BYTES as u64;
    tss.interrupt_stack_table[usize::from(SPARE_STACK)] = top;
    tss
}

fn entries() -> InterruptDescriptorTable {
    let mut idt = InterruptDescriptorTable::new();
    // SAFETY: the table is constant.
    let entries = unsafe { &native_exception_entries };
    let at = |vector: usize| VirtAddr::new(entries[vector]);
    macro_rules! set {
        ($($field:ident $vector:literal),*) => {
            // SAFETY: each address is the entry of that vector in entry.s, which saves everything and returns by iretq.
            $( unsafe { idt.$field.set_handler_addr(at($vector)) }; )*
        };
    }
    set!(divide_error 0, debug 1, overflow 4, bound_range_exceeded 5, invalid_opcode 6, device_not_available 7,
        invalid_tss 10, segment_not_present 11, stack_segment_fault 12, general_protection_fault 13, page_fault 14,
        x87_floating_point 16, alignment_check 17, machine_check 18, simd_floating_point 19);
    // SAFETY: as above; user programs may raise a breakpoint.
    let breakpoint = unsafe { idt.breakpoint.set_handler_addr(at(3)) };
    breakpoint.set_privilege_level(x86_64::PrivilegeLevel::Ring3);
    // SAFETY: as above, on a stack of their own: they may come when the current one is unusable.
    let nmi = unsafe { idt.non_maskable_interrupt.set_handler_addr(at(2)) };
    // SAFETY: the stack exists and nothing else uses it.
    unsafe { nmi.set_stack_index(SPARE_STACK) };
    // SAFETY: as for the NMI.
    let double = unsafe { idt.double_fault.set_handler_addr(at(8)) };
    // SAFETY: as for the NMI.
    unsafe { double.set_stack_index(SPARE_STACK) };
    for line in 0..=LINES {
        // SAFETY: the table is constant.
        let entry = unsafe { native_interrupt_entries[usize::from(line)] };
        // SAFETY: the entry of that line, or of a call, in entry.s.
        unsafe { idt[FIRST_LINE + line].set_handler_addr(VirtAddr::new(entry)) };
    }
    idt
}

fn enable_syscall() {
    let selector = SegmentSelector;
    let written = Star::write(selector(USER_CODE), selector(USER_DATA), selector(0x08), selector(0x10));
    written.expect("the GDT is laid out for syscall and sysret");
    LStar::write(VirtAddr::from_ptr(native_syscall as *const ()));
    SFMask::write(RFlags::INTERRUPT_FLAG | RFlags::TRAP_FLAG | RFlags::DIRECTION_FLAG | RFlags::ALIGNMENT_CHECK);
}

fn write_port(port: u16, value: u8) {
    // SAFETY: called with the ports of the PICs only; they do not touch memory.
    unsafe { Port::new(port).write(value) }
}

/// The lines that are let through.
static OPEN: AtomicU16 = AtomicU16::new(1 << TIMER_LINE | 1 << CASCADE_LINE | 1 << SERIAL_LINE);
/// The second PIC is on this line of the first.
const CASCADE_LINE: u8 = 2;

/// Lets a line through, or holds it back: what comes meanwhile is not lost. Interrupts are off.
pub(super) fn set_open(line: u8, is_open: bool) {
    let open = match is_open {
        true => OPEN.fetch_or(1 << line, Ordering::Relaxed) | 1 << line,
        false => OPEN.fetch_and(!(1 << line), Ordering::Relaxed) & !(1 << line),
    };
    let [first, second] = (!open).to_le_bytes();
    if line < 8 { write_port(0x21, first) } else { write_port(0xa1, second) }
}

/// Moves the PICs' vectors to [`FIRST_LINE`] and lets the timer and the serial port through.
pub(super) fn start_pics() {
    let [first_closed, second_closed] = (!OPEN.load(Ordering::Relaxed)).to_le_bytes();
    let commands = [
        (0x20, 0x11), // begin, with four words
        (0xa0, 0x11),
        (0x21, FIRST_LINE),
        (0xa1, FIRST_LINE + 8),
        (0x21, 4), // the second one is on line 2
        (0xa1, 2),
        (0x21, 1), // 8086 mode
        (0xa1, 1),
        (0x21, first_closed),
        (0xa1, second_closed),
    ];
    for (port, value) in commands {
        write_port(port, value);
    }
}

/// The next entry from user mode lands on this stack.
pub(in crate::platform) fn set_kernel_stack(top: usize) {
    // SAFETY: entry.s keeps a word there for this purpose.
    unsafe { &native_kernel_sp }.store(top, Ordering::Relaxed);
    if let Some(tss) = TSS.get() {
        let rsp0 = (&raw const tss.privilege_stack_table[0]).cast_mut();
        // SAFETY: the CPU alone reads the field, on this one CPU, and not while kernel code runs; the TSS is in writable
        // memory as it holds no constant.
        unsafe { rsp0.write_unaligned(VirtAddr::new(top as u64)) };
    }
}

/// Called by `entry.s` with the registers of what was interrupted.
#[unsafe(no_mangle)]
extern "C" fn native_trap(frame: &mut TrapFrame) {
    let line = frame.vector.wrapping_sub(FIRST_LINE.into());
    if line > LINES.into() {
        let fault_addr = Cr2::read_raw() as usize;
        crate::trap::on_trap(frame, fault_addr);
        return;
    }
    if crate::platform::is_pvh() {
        crate::platform::pv::events::dispatch();
    } else {
        on_interrupt(line as u8);
    }
    scheduler::on_interrupt_end();
    if frame.from_user() {
        crate::trap::after_user_interrupt();
    }
}

fn on_interrupt(line: u8) {
    if FIRST_LINE + line == apic::CALL_VECTOR {
        apic::end_of_interrupt();
        scheduler::on_kick();
        return;
    }
    // End of interrupt first: the handler may switch to another thread.
    if line >= 8 {
        write_port(0xa0, 0x20);
    }
    write_port(0x20, 0x20);
    match line {
        TIMER_LINE => scheduler::on_timer(),
        SERIAL_LINE => crate::console::on_input(),
        _ => lines::on_interrupt(line),
    }
}

/// Registers with which user mode starts.
pub(in crate::platform) fn user_frame(entry: usize, stack: usize) -> TrapFrame {
    TrapFrame::for_user(entry, stack, USER_CODE, USER_DATA)
}

/// Goes on where `frame` says.
pub(in crate::platform) fn enter_user(frame: &TrapFrame) -> ! {
    // SAFETY: the frame was built for user mode; the stack it is copied from is left behind.
    unsafe { native_enter_frame(frame) }
}
