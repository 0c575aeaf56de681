//! A vCPU's whole state, as toolstacks and kernels pass it: `vcpu_guest_context`.
//!
//! `VCPUOP_initialise` and `XEN_DOMCTL_setvcpucontext` start a vCPU with one. All of it is checked before any of it is
//! taken: addresses are canonical, segments have privilege 3, tables are the domain's own frames and of the right type,
//! rflags have the interrupt flag and no I/O privilege. A vCPU that has a context already may get another with the same
//! tables only. Source: Xen's `public/arch-x86/xen.h`; abi-needs of Xen 4.17, §1.4 and §2.5.

use alloc::boxed::Box;
use core::sync::atomic::Ordering;

use pv_abi::arch::{
    CpuUserRegs, TrapInfo, VGCF_FAILSAFE_DISABLES_EVENTS, VGCF_I387_VALID, VGCF_IN_KERNEL, VGCF_ONLINE,
    VGCF_SYSCALL_DISABLES_EVENTS, VcpuGuestContext, xen_cr3_to_pfn, xen_pfn_to_cr3,
};
use pv_abi::errno::Errno;
use pv_abi::{DomId, Mfn};
use zerocopy::FromZeros;

use super::{Callback, Callbacks, Gdt, Ldt, Segments, TrapGate, Vcpu, VcpuState, stopped};
use crate::Hypervisor;
use crate::frames::ClaimedMfn;
use crate::hardware::Machine;
use crate::paging;
use crate::refusal::{Evidence, Refusal};
use crate::registers::{ENTRY_FULL, Registers, flags};
use crate::rules::control as rule;
use crate::traps::{self, descriptors, is_canonical, privileged, processor};

/// Entries of a local descriptor table at most.
const MAX_LDT_ENTRIES: u64 = 8192;

/// Gives a vCPU that does not run a context.
///
/// # Errors
/// `EINVAL` for a context that cannot be, `EOPNOTSUPP` for other tables than it has, `EBUSY` where it runs, `EPERM` for
/// a forbidden breakpoint; may ask to be called again.
pub fn apply<M: Machine>(hv: &Hypervisor<M>, vcpu: &Vcpu, context: &VcpuGuestContext) -> Result<(), Refusal> {
    if vcpu.domain.hvm.is_some() {
        return Err(Refusal::errno(Errno::Inval, crate::rules::hvm::NO_PV_CONTEXT));
    }
    check(context)?;
    let debug = checked_debug(context)?;
    let traps = checked_traps(&context.trap_ctxt)?;
    let mut slot = vcpu.state.lock();
    let state = slot.as_deref_mut().ok_or_else(|| running(vcpu))?;
    if vcpu.initialised.load(Ordering::Acquire) {
        same_tables(state, context)?;
    } else {
        take_tables(hv, vcpu.domain.id, state, context)?;
    }
    state.traps = traps;
    state.debug = debug;
    take_plain(hv, state, context);
    if vcpu.id.0 == 0 && !vcpu.initialised.load(Ordering::Acquire) {
        vcpu.domain.assists.store(processor::valid_assists(context.vm_assist), Ordering::Relaxed);
    }
    drop(slot);
    vcpu.initialised.store(true, Ordering::Release);
    if context.flags & VGCF_ONLINE != 0 {
        vcpu.stopped.fetch_and(!stopped::DOWN, Ordering::AcqRel);
    }
    Ok(())
}

#[cold]
fn running(vcpu: &Vcpu) -> Refusal {
    Refusal::errno(Errno::Busy, rule::VCPU_RUNS).with(Evidence::Value(vcpu.id.0.into()))
}

#[cold]
fn bad(value: u64) -> Refusal {
    Refusal::errno(Errno::Inval, rule::CONTEXT).with(Evidence::Value(value))
}

/// What can be checked without looking at frames.
fn check(context: &VcpuGuestContext) -> Result<(), Refusal> {
    let addresses = [
        context.user_regs.rip,
        context.user_regs.rsp,
        context.kernel_sp,
        context.event_callback_eip,
        context.failsafe_callback_eip,
        context.syscall_callback_eip,
        context.fs_base,
        context.gs_base_kernel,
        context.gs_base_user,
        context.ldt_base,
    ];
    if let Some(address) = addresses.into_iter().find(|address| !is_canonical(*address)) {
        return Err(bad(address));
    }
    if context.ldt_ents > MAX_LDT_ENTRIES || context.ldt_ents != 0 && context.ldt_base & 0xfff != 0 {
        return Err(bad(context.ldt_ents));
    }
    if context.flags & VGCF_IN_KERNEL == 0 && context.ctrlreg[1] == 0 {
        return Err(bad(context.flags));
    }
    Ok(())
}

fn checked_debug(context: &VcpuGuestContext) -> Result<[u64; 8], Refusal> {
    let mut debug = VcpuState::default().debug;
    for index in [0, 1, 2, 3, 6, 7] {
        let checked = processor::checked_debug_value(index, context.debugreg[index], context.ctrlreg[4])?;
        debug[index] = checked.loaded;
        if index == 7 {
            debug[5] = checked.io;
        }
    }
    Ok(debug)
}

fn checked_traps(list: &[TrapInfo; 256]) -> Result<Box<[TrapGate; 256]>, Refusal> {
    let mut gates = Box::new([TrapGate::default(); 256]);
    for (place, trap) in gates.iter_mut().zip(list) {
        *place = traps::gate(trap).map_err(|_| bad(trap.address))?;
    }
    Ok(gates)
}

/// A vCPU that has tables keeps them: changing them is for its guest.
fn same_tables(state: &VcpuState, context: &VcpuGuestContext) -> Result<(), Refusal> {
    let mut now = VcpuGuestContext::new_zeroed();
    give_tables(state, &mut now);
    let same = now.ctrlreg[3] == context.ctrlreg[3]
        && (now.ctrlreg[1] == context.ctrlreg[1] || context.flags & VGCF_IN_KERNEL != 0 && context.ctrlreg[1] == 0)
        && now.gdt_ents == context.gdt_ents
        && now.gdt_frames[..usize::from(state.gdt.frame_count)]
            == context.gdt_frames[..usize::from(state.gdt.frame_count)]
        && now.ldt_ents == context.ldt_ents
        && (now.ldt_ents == 0 || now.ldt_base == context.ldt_base);
    if same { Ok(()) } else { Err(Refusal::errno(Errno::OpNotSupp, rule::CONTEXT_TABLES)) }
}

/// Takes the root tables and the descriptor table; where one fails, none is kept.
fn take_tables<M: Machine>(
    hv: &Hypervisor<M>,
    owner: DomId,
    state: &mut VcpuState,
    context: &VcpuGuestContext,
) -> Result<(), Refusal> {
    let entries = u32::try_from(context.gdt_ents).map_err(|_| bad(context.gdt_ents))?;
    let count = descriptors::frames_of(entries)?;
    let kernel = get_root(hv, owner, context.ctrlreg[3])?;
    let rest = take_user_root_and_gdt(hv, owner, context, &context.gdt_frames[..count]);
    match rest {
        Ok((user, gdt)) => {
            state.kernel_root = Some(kernel);
            state.user_root = user;
            state.gdt = gdt;
            state.ldt = Ldt { base: context.ldt_base, entries: context.ldt_ents as u32, ..Ldt::default() };
            Ok(())
        }
        Err(refusal) => {
            paging::put_root(hv, kernel);
            Err(refusal)
        }
    }
}

fn get_root<M: Machine>(hv: &Hypervisor<M>, owner: DomId, cr3: u64) -> Result<Mfn, Refusal> {
    paging::get_root(hv, ClaimedMfn(xen_cr3_to_pfn(cr3)), owner)
}

fn take_user_root_and_gdt<M: Machine>(
    hv: &Hypervisor<M>,
    owner: DomId,
    context: &VcpuGuestContext,
    frames: &[u64],
) -> Result<(Option<Mfn>, Gdt), Refusal> {
    let user = if context.ctrlreg[1] == 0 { None } else { Some(get_root(hv, owner, context.ctrlreg[1])?) };
    match descriptors::take(hv, owner, frames, context.gdt_ents as u32) {
        Ok(gdt) => Ok((user, gdt)),
        Err(refusal) => {
            if let Some(user) = user {
                paging::put_root(hv, user);
            }
            Err(refusal)
        }
    }
}

/// Takes what cannot fail.
fn take_plain<M: Machine>(hv: &Hypervisor<M>, state: &mut VcpuState, context: &VcpuGuestContext) {
    let masks = |bit| context.flags & bit != 0;
    state.kernel_mode = masks(VGCF_IN_KERNEL);
    state.registers = registers(&context.user_regs);
    state.iopl = (context.user_regs.rflags >> 12 & 3) as u8;
    state.segments = Segments {
        ds: context.user_regs.ds,
        es: context.user_regs.es,
        fs: context.user_regs.fs,
        gs: context.user_regs.gs,
        fs_base: context.fs_base,
        gs_base_kernel: context.gs_base_kernel,
        gs_base_user: context.gs_base_user,
    };
    state.callbacks = Callbacks {
        event: Callback { address: context.event_callback_eip, masks_events: true },
        failsafe: Callback {
            address: context.failsafe_callback_eip,
            masks_events: masks(VGCF_FAILSAFE_DISABLES_EVENTS),
        },
        syscall: Callback { address: context.syscall_callback_eip, masks_events: masks(VGCF_SYSCALL_DISABLES_EVENTS) },
        ..state.callbacks
    };
    state.kernel_ss = context.kernel_ss & 0xffff | 3;
    state.kernel_sp = context.kernel_sp;
    state.task_switched = context.ctrlreg[0] & 1 << 3 != 0;
    state.cr4 = privileged::allowed_cr4(&hv.machine, context.ctrlreg[4]);
    if masks(VGCF_I387_VALID) {
        state.take_legacy_fpu(&context.fpu_ctxt);
    }
}

/// A guest's registers as the entry code restores them.
fn registers(from: &CpuUserRegs) -> Registers {
    Registers {
        r15: from.r15,
        r14: from.r14,
        r13: from.r13,
        r12: from.r12,
        rbp: from.rbp,
        rbx: from.rbx,
        r11: from.r11,
        r10: from.r10,
        r9: from.r9,
        r8: from.r8,
        rax: from.rax,
        rcx: from.rcx,
        rdx: from.rdx,
        rsi: from.rsi,
        rdi: from.rdi,
        error_code: 0,
        entry_vector: ENTRY_FULL,
        rip: from.rip,
        cs: u64::from(from.cs) | 3,
        rflags: from.rflags & 0x3f_ffff & !(flags::IOPL | flags::VM) | flags::IF | flags::ALWAYS,
        rsp: from.rsp,
        ss: u64::from(from.ss) | 3,
    }
}

fn give_tables(state: &VcpuState, context: &mut VcpuGuestContext) {
    let cr3 = |root: Option<Mfn>| root.map_or(0, |mfn| xen_pfn_to_cr3(mfn.0));
    context.ctrlreg[1] = cr3(state.user_root);
    context.ctrlreg[3] = cr3(state.kernel_root);
    context.gdt_ents = state.gdt.entries.into();
    let Gdt { frames, frame_count, .. } = &state.gdt;
    for (place, mfn) in context.gdt_frames.iter_mut().zip(&frames[..usize::from(*frame_count)]) {
        *place = mfn.0;
    }
    context.ldt_base = state.ldt.base;
    context.ldt_ents = state.ldt.entries.into();
}

/// The context of a vCPU that does not run.
///
/// # Errors
/// `EBUSY` where it runs.
pub fn describe(vcpu: &Vcpu) -> Result<Box<VcpuGuestContext>, Refusal> {
    let slot = vcpu.state.lock();
    let state = slot.as_deref().ok_or_else(|| running(vcpu))?;
    let mut context = Box::new(VcpuGuestContext::new_zeroed());
    let set = |on, bit| if on { bit } else { 0 };
    context.flags = VGCF_I387_VALID
        | set(state.kernel_mode, VGCF_IN_KERNEL)
        | set(state.callbacks.failsafe.masks_events, VGCF_FAILSAFE_DISABLES_EVENTS)
        | set(state.callbacks.syscall.masks_events, VGCF_SYSCALL_DISABLES_EVENTS)
        | set(vcpu.stopped.load(Ordering::Acquire) & stopped::DOWN == 0, VGCF_ONLINE);
    context.fpu_ctxt.copy_from_slice(&state.fpu.0[..512]);
    context.user_regs = user_registers(state);
    give_traps(state, &mut context.trap_ctxt);
    give_tables(state, &mut context);
    context.kernel_ss = state.kernel_ss;
    context.kernel_sp = state.kernel_sp;
    context.ctrlreg[0] = privileged::guest_cr0(state.task_switched);
    context.ctrlreg[4] = privileged::guest_cr4(state.cr4);
    context.debugreg[..4].copy_from_slice(&state.debug[..4]);
    context.debugreg[6] = state.debug[6];
    context.debugreg[7] = state.debug[7] | state.debug[5];
    context.event_callback_eip = state.callbacks.event.address;
    context.failsafe_callback_eip = state.callbacks.failsafe.address;
    context.syscall_callback_eip = state.callbacks.syscall.address;
    context.vm_assist = vcpu.domain.assists.load(Ordering::Relaxed);
    context.fs_base = state.segments.fs_base;
    context.gs_base_kernel = state.segments.gs_base_kernel;
    context.gs_base_user = state.segments.gs_base_user;
    Ok(context)
}

fn give_traps(state: &VcpuState, list: &mut [TrapInfo; 256]) {
    for (vector, (place, gate)) in list.iter_mut().zip(state.traps.iter()).enumerate() {
        place.vector = vector as u8;
        place.flags = gate.flags;
        place.cs = gate.cs;
        place.address = gate.address;
    }
}

/// The registers as a toolstack sees them: the I/O privilege is the guest's, and cs of a kernel has no privilege bits.
fn user_registers(state: &VcpuState) -> CpuUserRegs {
    let from = &state.registers;
    let mut to = CpuUserRegs::new_zeroed();
    to.r15 = from.r15;
    to.r14 = from.r14;
    to.r13 = from.r13;
    to.r12 = from.r12;
    to.rbp = from.rbp;
    to.rbx = from.rbx;
    to.r11 = from.r11;
    to.r10 = from.r10;
    to.r9 = from.r9;
    to.r8 = from.r8;
    to.rax = from.rax;
    to.rcx = from.rcx;
    to.rdx = from.rdx;
    to.rsi = from.rsi;
    to.rdi = from.rdi;
    to.rip = from.rip;
    to.cs = from.cs as u16;
    to.rflags = from.rflags | u64::from(state.iopl) << 12;
    to.rsp = from.rsp;
    to.ss = from.ss as u16;
    to.ds = state.segments.ds;
    to.es = state.segments.es;
    to.fs = state.segments.fs;
    to.gs = state.segments.gs;
    to
}
