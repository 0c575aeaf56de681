//! Guest mode: AMD SVM with nested paging.
//!
//! A vCPU's block ([`Vmcb`]) lies in its state, on the heap. Every CPU has two pages of its own: where it saves itself
//! (the CPU's own format), and a block with what `vmload` brings back. All guests have the maps of I/O ports and
//! model-specific registers in common: every port stops them, and every register but those that `vmload` and `vmsave`
//! switch. Each vCPU has an address-space number of the CPU it runs on ([`hvm::asid`]); all are given anew when this CPU's
//! own translations are forgotten.
//!
//! Source: AMD APM 2 §15.4 to §15.16, §15.25, §15.30.

use core::arch::x86_64::__cpuid;
use core::arch::{asm, global_asm};
use core::mem::offset_of;
use core::sync::atomic::Ordering;

use alloc::boxed::Box;
use hv::Hypervisor;
use hv::domain::VcpuState;
use hv::entry::Next;
use hv::hvm::asid::{Numbers, Tag};
use hv::hvm::{self, Vmcb};
use hv::registers::Registers;
use hv::sched;
use spin::Once;

use super::cpu::Cpu;
use super::fixup::{read_msr, write_msr};
use super::hardware::Hardware;
use super::layout::{DIRECT_MAP, IMAGE_BASE, PAGE};
use super::vectors::msr;
use super::{debug, fpu};

global_asm!(
    include_str!("svm.s"),
    R_RBX = const offset_of!(Registers, rbx),
    R_RBP = const offset_of!(Registers, rbp),
    R_RCX = const offset_of!(Registers, rcx),
    R_RDX = const offset_of!(Registers, rdx),
    R_RSI = const offset_of!(Registers, rsi),
    R_RDI = const offset_of!(Registers, rdi),
    R_R8 = const offset_of!(Registers, r8),
    R_R9 = const offset_of!(Registers, r9),
    R_R10 = const offset_of!(Registers, r10),
    R_R11 = const offset_of!(Registers, r11),
    R_R12 = const offset_of!(Registers, r12),
    R_R13 = const offset_of!(Registers, r13),
    R_R14 = const offset_of!(Registers, r14),
    R_R15 = const offset_of!(Registers, r15),
);

unsafe extern "C" {
    fn svm_enter(registers: *mut Registers, block: u64, own_block: u64);
}

/// `VM_CR`, and its bit by which the firmware turned SVM off.
const VM_CR: u32 = 0xc001_0114;
const VM_CR_DISABLED: u64 = 1 << 4;
/// `VM_HSAVE_PA`: where the CPU saves itself.
const SAVE_AREA: u32 = 0xc001_0117;
const EFER_SVME: u64 = 1 << 12;

/// Registers that stop no guest: what `vmload` and `vmsave` switch.
const OWN_REGISTERS: [u32; 10] = [
    msr::SYSENTER_CS,
    msr::SYSENTER_ESP,
    msr::SYSENTER_EIP,
    msr::STAR,
    msr::LSTAR,
    msr::CSTAR,
    msr::SYSCALL_MASK,
    msr::FS_BASE,
    msr::GS_BASE,
    msr::KERNEL_GS_BASE,
];

#[repr(C, align(4096))]
struct Pages<const COUNT: usize>([[u8; PAGE as usize]; COUNT]);

/// Physical addresses of the maps of I/O ports and of registers; there are none where the first CPU has no SVM.
static MAPS: Once<(u64, u64)> = Once::new();

/// Pages that stay, filled. They are too large for a stack.
fn pages<const COUNT: usize>(fill: u8) -> &'static mut Pages<COUNT> {
    let mut pages = Box::<Pages<COUNT>>::new_uninit();
    // SAFETY: the box has room for one.
    unsafe { core::ptr::write_bytes(pages.as_mut_ptr(), fill, 1) };
    // SAFETY: all of it was written, and any bytes are pages.
    Box::leak(unsafe { pages.assume_init() })
}

/// Whether guests can run in guest mode.
pub(crate) fn is_on() -> bool {
    MAPS.get().is_some()
}

/// The physical address of something on the heap.
fn physical<T>(place: &T) -> u64 {
    let address = core::ptr::from_ref(place) as u64;
    address - if address >= DIRECT_MAP { DIRECT_MAP } else { IMAGE_BASE }
}

/// Turns guest mode on, where this CPU has it.
pub(crate) fn start() {
    let has = |leaf: u32, bits: fn(core::arch::x86_64::CpuidResult) -> u32, bit: u32| {
        __cpuid(0x8000_0000).eax >= leaf && bits(__cpuid(leaf)) & 1 << bit != 0
    };
    let has_svm = has(0x8000_0001, |leaf| leaf.ecx, 2) && has(0x8000_000a, |leaf| leaf.edx, 0);
    let is_off = read_msr(VM_CR).is_some_and(|value| value & VM_CR_DISABLED != 0);
    let Some(efer) = read_msr(msr::EFER).filter(|_| has_svm && !is_off) else {
        return;
    };
    let area = &*pages::<2>(0);
    let own_block = physical(area) + PAGE;
    if write_msr(msr::EFER, efer | EFER_SVME).is_none() || write_msr(SAVE_AREA, physical(area)).is_none() {
        return;
    }
    // SAFETY: SVM is on, and the page is this CPU's for ever.
    unsafe { asm!("vmsave rax", in("rax") own_block, options(nostack, preserves_flags)) };
    Cpu::current().own_block.set(own_block);
    Cpu::current().numbers.set(Numbers::new(__cpuid(0x8000_000a).ebx));
    MAPS.call_once(make_maps);
}

fn make_maps() -> (u64, u64) {
    let ports = &*pages::<3>(0xff);
    let registers = pages::<2>(0xff);
    for register in OWN_REGISTERS {
        // Two bits a register: 0x0000_0000 to 0x1fff first, then 0xc000_0000 to 0xc000_1fff.
        let bit = (register as usize & 0x1fff) * 2 + if register < 0xc000_0000 { 0 } else { 0x800 * 8 };
        registers.0[bit / 8 / PAGE as usize][bit / 8 % PAGE as usize] &= !(3 << (bit % 8));
    }
    (physical(ports), physical(&*registers))
}

/// Takes what is in the CPU of a vCPU that stops running here.
pub(crate) fn save(state: &mut VcpuState) {
    fpu::save(&mut state.fpu);
    state.fpu_loaded = false;
    for index in 0..4 {
        state.debug[index] = debug::read(index);
        debug::write(index, 0);
    }
}

/// Loads what `vmrun` does not: the hypervisor's own root table is loaded.
pub(crate) fn load(state: &mut VcpuState) {
    fpu::load(&mut state.fpu, state.xcr0);
    state.fpu_loaded = true;
    for index in 0..4 {
        debug::write(index, state.debug[index]);
    }
    if let (Some(block), Some(maps)) = (state.hvm.as_deref_mut(), MAPS.get()) {
        (block.io_map, block.msr_map) = *maps;
    }
}

/// Runs guests in guest mode, as long as the scheduler chooses such.
#[cold]
#[inline(never)]
pub(crate) fn run_guests(registers: &mut Registers) {
    let cpu = Cpu::current();
    let Some(hv) = cpu.hv() else {
        return;
    };
    while let Some(running) = cpu.running()
        && running.state.hvm.is_some()
    {
        if hvm::before_entry(hv, running, registers) == Next::Switch {
            switch(hv, cpu, registers);
            continue;
        }
        if let VcpuState { hvm: Some(block), assisted: Some(own), .. } = &mut *running.state {
            let changes = running.vcpu.domain.hvm.as_ref().map_or(0, |hvm| hvm.changes.load(Ordering::SeqCst));
            run(cpu, block, (&mut own.tag, changes), registers);
        }
        if hvm::on_exit(hv, running, registers) == Next::Switch {
            switch(hv, cpu, registers);
        }
    }
}

/// [`sched::switch`], apart from the one that is part of a PV guest's way.
#[inline(never)]
fn switch(hv: &Hypervisor<Hardware>, cpu: &Cpu, registers: &mut Registers) {
    sched::switch(hv, cpu.running(), registers);
}

/// Lets a guest go on until it stops.
fn run(cpu: &Cpu, block: &mut Vmcb, (tag, changes): (&mut Tag, u64), registers: &mut Registers) {
    block.take(registers);
    // SAFETY: nothing interrupts from here on, so that no order to forget translations is missed; `svm_enter` ends it.
    unsafe { asm!("clgi", options(nostack, preserves_flags)) };
    let mut numbers = cpu.numbers.get();
    if cpu.forget_guests.replace(false) {
        numbers.forget();
    }
    let (number, forget) = numbers.of(cpu.id, changes, tag);
    cpu.numbers.set(numbers);
    (block.asid, block.tlb_control) = (number, forget.into());
    let block_at = physical(block);
    // SAFETY: the block is a guest's, whose memory is its physical map; the CPU's own was saved by `start`.
    unsafe { svm_enter(registers, block_at, cpu.own_block.get()) };
    block.give(registers);
}
