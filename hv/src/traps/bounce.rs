//! Entering the guest kernel: the frame on its stack, the switch to kernel mode, where it goes on.
//!
//! From the new stack pointer up lie rcx, r11, an error code where the exception has one, rip, cs, rflags, rsp, ss. The
//! word of cs also holds the event mask as it was, in bits 32 to 39, and its privilege bits are zero for an entry from
//! kernel mode, so that the guest sees where it came from. rflags shows the mask as its interrupt flag. Events are masked
//! afterwards where the entry says so. A frame that cannot be pushed crashes the domain: there is nowhere left to report
//! it to. Source: abi-needs of Xen 4.17, §3.4; Xen's public headers `arch-x86/xen-x86_64.h`.

use core::sync::atomic::Ordering;

use pv_abi::arch::{FLAT_KERNEL_CS, FLAT_KERNEL_SS, HYPERVISOR_VIRT_END, HYPERVISOR_VIRT_START};
use pv_abi::xen::VMASST_TYPE_ARCHITECTURAL_IOPL;

use crate::Hypervisor;
use crate::control;
use crate::domain::{Callback, Running};
use crate::hardware::Machine;
use crate::refusal::{Evidence, Refusal};
use crate::registers::{ENTRY_SYSCALL, Registers, flags};
use crate::rules::{Rule, traps as rule};

/// Offset of `evtchn_upcall_mask` in `vcpu_info`.
pub(super) const UPCALL_MASK: usize = 1;
/// What an entry clears in rflags.
const CLEARED: u64 = flags::AC | flags::VM | flags::RF | flags::NT | flags::TF;

/// Where the guest kernel is entered.
#[derive(Clone, Copy)]
pub(super) struct Entry {
    /// The handler; zero crashes the domain.
    pub(super) address: u64,
    /// Mask events.
    pub(super) masks_events: bool,
    /// The error code to push.
    pub(super) error_code: Option<u32>,
}

impl From<Callback> for Entry {
    #[inline]
    fn from(callback: Callback) -> Self {
        Self { address: callback.address, masks_events: callback.masks_events, error_code: None }
    }
}

/// Enters the guest kernel; where that cannot be, crashes the domain and says that `none` was broken for a missing
/// handler.
#[inline(always)]
pub(super) fn enter<M: Machine>(
    hv: &Hypervisor<M>,
    running: &mut Running,
    registers: &mut Registers,
    entry: Entry,
    none: Rule,
) {
    if entry.address == 0 {
        return fail(hv, running, registers, Refusal::crash(none));
    }
    if let Err(refusal) = push(hv, running, registers, entry) {
        fail(hv, running, registers, refusal);
    }
}

#[cold]
fn fail<M: Machine>(hv: &Hypervisor<M>, running: &mut Running, registers: &mut Registers, refusal: Refusal) {
    control::crash(hv, running, registers, &refusal);
}

/// Makes the guest run its kernel; gives the stack the kernel continues on, and what its cs showed.
#[inline]
fn to_kernel<M: Machine>(hv: &Hypervisor<M>, running: &mut Running, registers: &Registers) -> (u64, u64) {
    let state = &mut *running.state;
    if state.kernel_mode {
        return (registers.rsp, registers.cs & 0xfffc);
    }
    state.kernel_mode = true;
    hv.machine.toggle_mode(state);
    (state.kernel_sp, registers.cs & 0xffff)
}

/// Takes the event mask, and sets it where the entry masks events.
#[inline]
fn take_mask<M: Machine>(hv: &Hypervisor<M>, running: &Running, masks_events: bool) -> u8 {
    let (frame, offset) = running.vcpu.info_place();
    if masks_events {
        hv.machine.swap_byte(frame, offset + UPCALL_MASK, 1)
    } else {
        hv.machine.read_byte(frame, offset + UPCALL_MASK)
    }
}

/// rflags as the frame shows them.
#[inline]
fn shown_flags(running: &Running, rflags: u64, mask: u8) -> u64 {
    let mut shown = rflags & !(flags::IF | flags::IOPL);
    if mask == 0 {
        shown |= flags::IF;
    }
    if running.vcpu.domain.assists.load(Ordering::Relaxed) & 1 << VMASST_TYPE_ARCHITECTURAL_IOPL != 0 {
        shown |= u64::from(running.state.iopl) << 12;
    }
    shown
}

#[inline(always)]
fn push<M: Machine>(
    hv: &Hypervisor<M>,
    running: &mut Running,
    registers: &mut Registers,
    entry: Entry,
) -> Result<(), Refusal> {
    let (stack, cs) = to_kernel(hv, running, registers);
    let mask = take_mask(hv, running, entry.masks_events);
    let rflags = shown_flags(running, registers.rflags, mask);
    let cs = cs | u64::from(mask) << 32;
    let top = stack & !15;
    let place = match entry.error_code {
        None => {
            let frame = [registers.rcx, registers.r11, registers.rip, cs, rflags, registers.rsp, registers.ss & 0xffff];
            put(hv, top, &frame)?
        }
        Some(code) => {
            let frame = [
                registers.rcx,
                registers.r11,
                code.into(),
                registers.rip,
                cs,
                rflags,
                registers.rsp,
                registers.ss & 0xffff,
            ];
            put(hv, top, &frame)?
        }
    };
    go(registers, place, entry.address);
    Ok(())
}

/// Pushes a frame; gives the stack pointer below it.
#[inline]
fn put<M: Machine, const WORDS: usize>(hv: &Hypervisor<M>, top: u64, frame: &[u64; WORDS]) -> Result<u64, Refusal> {
    use zerocopy::IntoBytes;
    let place = top.wrapping_sub(size_of::<[u64; WORDS]>() as u64);
    match hv.machine.copy_to_guest(place, frame.as_bytes()) {
        Ok(()) => Ok(place),
        Err(fault) => Err(not_pushed(place, fault.0)),
    }
}

#[cold]
fn not_pushed(place: u64, fault: u64) -> Refusal {
    if (HYPERVISOR_VIRT_START..HYPERVISOR_VIRT_END).contains(&place) {
        return Refusal::crash(rule::STACK_IN_HYPERVISOR).with(Evidence::Value(place));
    }
    Refusal::crash(rule::FRAME_PUSH).with(Evidence::Value(fault))
}

/// Makes the guest go on in kernel mode at `address`. rcx and r11 are on its stack, so `sysret` may take them.
#[inline]
fn go(registers: &mut Registers, stack: u64, address: u64) {
    registers.rsp = stack;
    registers.rip = address;
    registers.cs = FLAT_KERNEL_CS.into();
    registers.ss = FLAT_KERNEL_SS.into();
    registers.rflags &= !CLEARED;
    registers.entry_vector = ENTRY_SYSCALL;
}

/// Enters the failsafe callback after a segment register could not be loaded: the frame also holds ds, es, fs and gs as
/// they should have been, between r11 and rip.
pub fn enter_failsafe<M: Machine>(
    hv: &Hypervisor<M>,
    running: &mut Running,
    registers: &mut Registers,
    wanted: [u16; 4],
) {
    let callback = running.state.callbacks.failsafe;
    if callback.address == 0 {
        return fail(hv, running, registers, Refusal::crash(rule::BAD_SELECTOR));
    }
    let (stack, cs) = to_kernel(hv, running, registers);
    let mask = take_mask(hv, running, callback.masks_events);
    let rflags = shown_flags(running, registers.rflags, mask);
    let [ds, es, fs, gs] = wanted.map(u64::from);
    let frame = [
        registers.rcx,
        registers.r11,
        ds,
        es,
        fs,
        gs,
        registers.rip,
        cs | u64::from(mask) << 32,
        rflags,
        registers.rsp,
        registers.ss & 0xffff,
    ];
    match put(hv, stack & !15, &frame) {
        Ok(place) => go(registers, place, callback.address),
        Err(refusal) => fail(hv, running, registers, refusal),
    }
}
