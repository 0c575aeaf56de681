//! What of a vCPU is in the CPU besides its general registers: tables, segments and their bases, FPU, debug registers.
//!
//! The guest's GS stays loaded while the hypervisor works: the base in use is the CPU's GS base, the one of the guest's
//! other mode is in the kernel-GS-base register, and a change of mode is a `swapgs`.
//!
//! Source: AMD APM 2 §4.5.3 (bases), §13.1 (debug registers); Xen: public/arch-x86/xen-x86_64.h (`SEGBASE_*`).

use core::arch::asm;

use hv::Hypervisor;
use hv::domain::{Running, Segments, VcpuState};
use hv::hardware::BadSelector;
use pv_abi::Mfn;
use pv_abi::arch::{SEGBASE_FS, SEGBASE_GS_KERNEL, SEGBASE_GS_USER};
use x86_64::registers::control::{Cr0, Cr0Flags, Cr3, Cr3Flags, Cr4, Cr4Flags};
use x86_64::structures::paging::PhysFrame;
use x86_64::{PhysAddr, VirtAddr};

use super::cpu::Cpu;
use super::fixup::{Segment, load_segment, read_msr, write_msr};
use super::hardware::Hardware;
use super::layout::{LDT_WINDOW, PAGE};
use super::vectors::msr;
use super::{debug, fpu};

/// Bits of CR4 that a guest controls.
const GUEST_CR4: Cr4Flags = Cr4Flags::TIMESTAMP_DISABLE.union(Cr4Flags::DEBUGGING_EXTENSIONS).union(Cr4Flags::FSGSBASE);

/// Saves what of `state` is in the CPU.
pub(crate) fn save(state: &mut VcpuState) {
    state.segments = read_segments(state.kernel_mode);
    fpu::save(&mut state.fpu);
    state.fpu_loaded = false;
    let cpu = Cpu::current();
    if cpu.debugging.get() {
        for index in [0, 1, 2, 3, 6, 7] {
            state.debug[index] = debug::read(index);
        }
        debug::write(7, debug::DR7_OFF);
        cpu.debugging.set(false);
    }
}

/// Loads all of `state` but the general registers.
pub(crate) fn load(state: &mut VcpuState) -> Result<(), BadSelector> {
    let cpu = Cpu::current();
    cpu.kernel_mode.set(state.kernel_mode);
    if let Some(root) = if state.kernel_mode { state.kernel_root } else { state.user_root } {
        load_root(root);
    }
    load_gdt(state);
    reset_ldt(state.ldt.entries);
    for (page, frame) in state.ldt.mapped.iter().enumerate() {
        cpu.set_window(16 + page, *frame);
    }
    set_guest_cr4(state.cr4);
    fpu::load(&mut state.fpu, state.xcr0);
    state.fpu_loaded = true;
    set_task_switched(state.task_switched);
    if state.debug[7] & 0xff != 0 {
        for index in [0, 1, 2, 3, 6, 7] {
            debug::write(index, state.debug[index]);
        }
        cpu.debugging.set(true);
    }
    load_segments(state.kernel_mode, &state.segments)
}

fn read_segments(kernel_mode: bool) -> Segments {
    let (ds, es, fs, gs): (u64, u64, u64, u64);
    // SAFETY: reads selectors.
    unsafe {
        asm!("mov {}, ds", "mov {}, es", "mov {}, fs", "mov {}, gs", out(reg) ds, out(reg) es, out(reg) fs, out(reg) gs,
            options(nomem, nostack, preserves_flags));
    }
    let [fs_base, gs_base_kernel, gs_base_user] = bases(kernel_mode);
    Segments { ds: ds as u16, es: es as u16, fs: fs as u16, gs: gs as u16, fs_base, gs_base_kernel, gs_base_user }
}

fn load_segments(kernel_mode: bool, segments: &Segments) -> Result<(), BadSelector> {
    let mut good = load_segment(Segment::Ds, segments.ds);
    good &= load_segment(Segment::Es, segments.es);
    good &= load_segment(Segment::Fs, segments.fs);
    good &= load_segment(Segment::Gs, segments.gs);
    // Loading a selector changed its segment's base.
    let _ = write_msr(msr::FS_BASE, segments.fs_base);
    let gs = (segments.gs_base_kernel, segments.gs_base_user);
    let (active, other) = if kernel_mode { gs } else { (gs.1, gs.0) };
    let _ = write_msr(msr::GS_BASE, active);
    let _ = write_msr(msr::KERNEL_GS_BASE, other);
    if good { Ok(()) } else { Err(BadSelector) }
}

/// The base of FS, of GS in guest-kernel mode, of GS in guest-user mode.
pub(crate) fn bases(kernel_mode: bool) -> [u64; 3] {
    let [fs, active, other] =
        [msr::FS_BASE, msr::GS_BASE, msr::KERNEL_GS_BASE].map(|register| read_msr(register).unwrap_or(0));
    if kernel_mode { [fs, active, other] } else { [fs, other, active] }
}

/// Sets a base, or loads GS's selector for user mode.
pub(crate) fn set_base(state: &VcpuState, which: u32, value: u64) {
    let register = match which {
        SEGBASE_FS => msr::FS_BASE,
        SEGBASE_GS_KERNEL if state.kernel_mode => msr::GS_BASE,
        SEGBASE_GS_USER if !state.kernel_mode => msr::GS_BASE,
        SEGBASE_GS_KERNEL | SEGBASE_GS_USER => msr::KERNEL_GS_BASE,
        _ => return load_user_gs(state.kernel_mode, value as u16),
    };
    // The library let only canonical addresses pass.
    let _ = write_msr(register, value);
}

fn load_user_gs(kernel_mode: bool, selector: u16) {
    let swap = || {
        if kernel_mode {
            // SAFETY: both bases are the guest's; it is undone below.
            unsafe { asm!("swapgs", options(nostack, nomem, preserves_flags)) };
        }
    };
    swap();
    load_segment(Segment::Gs, selector);
    swap();
}

/// The guest goes from kernel to user mode or back: `state.kernel_mode` is what it is now.
#[inline]
pub(crate) fn toggle_mode(state: &VcpuState) {
    Cpu::current().kernel_mode.set(state.kernel_mode);
    // SAFETY: both bases are the guest's, and it changes to its other mode.
    unsafe { asm!("swapgs", options(nostack, nomem, preserves_flags)) };
    if let Some(root) = if state.kernel_mode { state.kernel_root } else { state.user_root } {
        write_root(root);
    }
}

/// Loads a root table and forgets every translation of the old one.
pub(crate) fn load_root(root: Mfn) {
    // A guest's user pages are marked global, to survive its own changes of mode; they must not survive this.
    let flags = Cr4::read_raw();
    // SAFETY: without global pages the hypervisor's own are looked up anew.
    unsafe { Cr4::write_raw(flags & !Cr4Flags::PAGE_GLOBAL.bits()) };
    write_root(root);
    // SAFETY: as it was.
    unsafe { Cr4::write_raw(flags) };
}

fn write_root(root: Mfn) {
    let frame = PhysFrame::containing_address(PhysAddr::new(root.0 << 12));
    // SAFETY: every L4 table carries the hypervisor's slots (`Machine::fill_hypervisor_slots`).
    unsafe { Cr3::write(frame, Cr3Flags::empty()) };
}

/// Maps the guest's part of the global table.
pub(crate) fn load_gdt(state: &VcpuState) {
    let cpu = Cpu::current();
    let used = usize::from(state.gdt.frame_count);
    for (page, frame) in state.gdt.frames.iter().enumerate() {
        cpu.set_window(page, (page < used).then_some(*frame));
    }
}

/// Takes the local table's pages away and sets its length.
pub(crate) fn reset_ldt(entries: u32) {
    let cpu = Cpu::current();
    for page in 0..16 {
        cpu.set_window(16 + page, None);
    }
    cpu.set_local_table(entries);
}

/// The CPU looked for a descriptor in the window of the local table: whether it is there now.
pub(crate) fn on_window_fault(hv: &Hypervisor<Hardware>, running: &mut Running, address: u64) -> bool {
    let start = Cpu::windows(Cpu::current().id) + LDT_WINDOW;
    let page = address.wrapping_sub(start) / PAGE;
    page < 16 && hv::paging::map_ldt_page(hv, running, page as usize)
}

/// Lets the guest's next floating-point instruction trap, or not.
pub(crate) fn set_task_switched(on: bool) {
    // SAFETY: the hypervisor uses no floating point.
    unsafe { Cr0::update(|flags| flags.set(Cr0Flags::TASK_SWITCHED, on)) };
}

/// Loads the guest's bits of CR4.
pub(crate) fn set_guest_cr4(value: u64) {
    let cpu = Cpu::current();
    let wanted = Cr4Flags::from_bits_truncate(value) & GUEST_CR4;
    if cpu.guest_cr4.get() != wanted.bits() {
        // SAFETY: the bits change nothing for the hypervisor, which never reads the counter with `rdtsc` disabled: that
        // holds for ring 3 only.
        unsafe { Cr4::update(|flags| *flags = flags.difference(GUEST_CR4) | wanted) };
        cpu.guest_cr4.set(wanted.bits());
    }
}

/// Forgets the translation of one address in the loaded address space.
pub(crate) fn flush_page(address: u64) {
    x86_64::instructions::tlb::flush(VirtAddr::new_truncate(address));
}

/// Forgets every translation, global ones too, and those of guest mode before it is entered again.
pub(crate) fn flush_all() {
    Cpu::current().forget_guests.set(true);
    let flags = Cr4::read_raw();
    // SAFETY: as in `load_root`.
    unsafe { Cr4::write_raw(flags ^ Cr4Flags::PAGE_GLOBAL.bits()) };
    // SAFETY: as it was.
    unsafe { Cr4::write_raw(flags) };
}
