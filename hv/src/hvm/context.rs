//! A vCPU's state as toolstacks pass it: records of the saved state of a domain.
//!
//! A toolstack starts a vCPU with one; all of it is checked before any of it is taken. Records of devices that there are
//! none of are passed over. Source: Xen's public/hvm/save.h, public/arch-x86/hvm/save.h; AMD APM 2 §15.5.1.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::Ordering;

use pv_abi::VcpuId;
use pv_abi::domctl::{DomctlHvmcontext, DomctlHvmcontextPartial};
use pv_abi::errno::Errno;
use pv_abi::hvm::{
    HVM_FILE_MAGIC, HVM_FILE_VERSION, HVM_SAVE_CODE_CPU, HVM_SAVE_CODE_END, HVM_SAVE_CODE_HEADER, HVM_SAVE_CODE_MTRR,
    HvmHwCpu, HvmHwMtrr, HvmSaveDescriptor, HvmSaveHeader, XEN_X86_FPU_INITIALISED,
};
use zerocopy::{FromBytes, IntoBytes};

use super::types::MemoryTypes;
use super::vmcb::{EFER_LMA, EFER_SVME, Segment, Vmcb};
use crate::call::Call;
use crate::domain::{Domain, Vcpu, VcpuState, stopped};
use crate::hardware::Machine;
use crate::refusal::{Evidence, Refusal};
use crate::registers::{ENTRY_ASSISTED, Registers, flags};
use crate::rules::{control as control_rule, hvm as rule};

/// The most bytes of state that are read.
const MOST_BYTES: u32 = 1 << 16;
const CR0_PE: u64 = 1;
const CR0_PG: u64 = 1 << 31;
/// Bits of CR0 that there are.
const CR0_VALID: u64 = 0xe005_003f;
/// Bits of CR4 that a guest may start with: all up to SMAP but VMXE, SMXE and the one between.
const CR4_VALID: u64 = 0x37_0fff;
/// EFER: `syscall`, long mode (enabled, active), no-execute.
const EFER_VALID: u64 = 0xd01;
const DESCRIPTOR_BYTES: usize = size_of::<HvmSaveDescriptor>();

fn bad(value: u64) -> Refusal {
    Refusal::errno(Errno::Inval, rule::CONTEXT).with(Evidence::Value(value))
}

/// `XEN_DOMCTL_sethvmcontext`.
///
/// # Errors
/// `EINVAL` for a domain of another kind, or records that are not what they should be; `EBUSY` for a vCPU that runs.
pub(crate) fn set<M: Machine>(
    call: &Call<'_, M>,
    domain: &Arc<Domain>,
    request: &DomctlHvmcontext,
) -> Result<(), Refusal> {
    if domain.hvm.is_none() {
        return Err(Refusal::errno(Errno::Inval, rule::NOT_HVM).with(Evidence::Value(domain.id.0.into())));
    }
    if request.size > MOST_BYTES {
        return Err(bad(request.size.into()));
    }
    let mut state = alloc::vec![0; request.size as usize];
    call.read_bytes(request.buffer, &mut state)?;
    let mut checked = Vec::new();
    for (instance, record) in records(&state)? {
        let vcpu = domain.vcpu(VcpuId(instance.into())).ok_or_else(|| bad(instance.into()))?;
        match &record {
            Record::Cpu(cpu) => check(cpu)?,
            Record::Types(types) => {
                MemoryTypes::of(types).ok_or_else(|| bad(types.msr_mtrr_def_type))?;
            }
        }
        checked.push((vcpu, record));
    }
    checked.into_iter().try_for_each(|(vcpu, record)| apply(vcpu, &record))
}

/// What a record says of a vCPU.
enum Record {
    Cpu(alloc::boxed::Box<HvmHwCpu>),
    Types(alloc::boxed::Box<HvmHwMtrr>),
}

/// The vCPUs' records of a state, by number.
fn records(mut state: &[u8]) -> Result<Vec<(u16, Record)>, Refusal> {
    let mut cpus = Vec::new();
    let mut has_header = false;
    loop {
        let (descriptor, rest) = HvmSaveDescriptor::read_from_prefix(state).map_err(|_| bad(state.len() as u64))?;
        if descriptor.typecode == HVM_SAVE_CODE_END {
            return if has_header { Ok(cpus) } else { Err(bad(0)) };
        }
        let length = descriptor.length as usize;
        let record = rest.get(..length).ok_or_else(|| bad(descriptor.length.into()))?;
        state = &rest[length..];
        match descriptor.typecode {
            HVM_SAVE_CODE_HEADER => {
                let header = HvmSaveHeader::read_from_bytes(record).map_err(|_| bad(length as u64))?;
                has_header = header.magic == HVM_FILE_MAGIC && header.version == HVM_FILE_VERSION;
            }
            HVM_SAVE_CODE_CPU => {
                let cpu = HvmHwCpu::read_from_bytes(record).map_err(|_| bad(length as u64))?;
                cpus.push((descriptor.instance, Record::Cpu(cpu.into())));
            }
            HVM_SAVE_CODE_MTRR => {
                let types = HvmHwMtrr::read_from_bytes(record).map_err(|_| bad(length as u64))?;
                cpus.push((descriptor.instance, Record::Types(types.into())));
            }
            _ => {}
        }
    }
}

/// Refuses what the CPU would not run.
fn check(cpu: &HvmHwCpu) -> Result<(), Refusal> {
    let refuse = |value| Err(Refusal::errno(Errno::Inval, rule::CONTEXT_STATE).with(Evidence::Value(value)));
    let paging = cpu.cr0 & CR0_PG != 0;
    let long = cpu.msr_efer & EFER_LMA != 0;
    if cpu.cr0 & !CR0_VALID != 0 || paging && cpu.cr0 & CR0_PE == 0 {
        return refuse(cpu.cr0);
    }
    if cpu.cr4 & !CR4_VALID != 0 || long && cpu.cr4 & 1 << 5 == 0 {
        return refuse(cpu.cr4);
    }
    let enabled = cpu.msr_efer & 1 << 8 != 0;
    if cpu.msr_efer & !EFER_VALID != 0 || long != (enabled && paging) {
        return refuse(cpu.msr_efer);
    }
    if cpu.cr3 >> 52 != 0 || cpu.dr6 >> 32 != 0 || cpu.dr7 >> 32 != 0 {
        return refuse(cpu.cr3);
    }
    Ok(())
}

fn apply(vcpu: &Vcpu, record: &Record) -> Result<(), Refusal> {
    let mut slot = vcpu.state.lock();
    let running = || Refusal::errno(Errno::Busy, control_rule::VCPU_RUNS).with(Evidence::Value(vcpu.id.0.into()));
    let state = slot.as_deref_mut().ok_or_else(running)?;
    match record {
        Record::Cpu(cpu) => take(state, cpu),
        Record::Types(types) => {
            take_types(state, types);
            return Ok(());
        }
    }
    drop(slot);
    vcpu.initialised.store(true, Ordering::Release);
    vcpu.stopped.fetch_and(!stopped::DOWN, Ordering::AcqRel);
    Ok(())
}

/// Takes a checked state. The time-stamp counter stays the machine's, by which the time page counts.
fn take(state: &mut VcpuState, cpu: &HvmHwCpu) {
    let Some(vmcb) = state.hvm.as_deref_mut() else {
        return;
    };
    let segment = |selector: u32, attributes: u32, limit, base| Segment {
        selector: selector as u16,
        attributes: attributes as u16,
        limit,
        base,
    };
    vmcb.cs = segment(cpu.cs_sel, cpu.cs_arbytes, cpu.cs_limit, cpu.cs_base);
    vmcb.ds = segment(cpu.ds_sel, cpu.ds_arbytes, cpu.ds_limit, cpu.ds_base);
    vmcb.es = segment(cpu.es_sel, cpu.es_arbytes, cpu.es_limit, cpu.es_base);
    vmcb.fs = segment(cpu.fs_sel, cpu.fs_arbytes, cpu.fs_limit, cpu.fs_base);
    vmcb.gs = segment(cpu.gs_sel, cpu.gs_arbytes, cpu.gs_limit, cpu.gs_base);
    vmcb.ss = segment(cpu.ss_sel, cpu.ss_arbytes, cpu.ss_limit, cpu.ss_base);
    vmcb.tr = segment(cpu.tr_sel, cpu.tr_arbytes, cpu.tr_limit, cpu.tr_base);
    vmcb.ldtr = segment(cpu.ldtr_sel, cpu.ldtr_arbytes, cpu.ldtr_limit, cpu.ldtr_base);
    vmcb.gdtr = segment(0, 0, cpu.gdtr_limit, cpu.gdtr_base);
    vmcb.idtr = segment(0, 0, cpu.idtr_limit, cpu.idtr_base);
    vmcb.privilege = (cpu.ss_arbytes >> 5 & 3) as u8;
    (vmcb.cr0, vmcb.cr2, vmcb.cr3, vmcb.cr4) = (cpu.cr0 | 0x10, cpu.cr2, cpu.cr3, cpu.cr4);
    (vmcb.dr6, vmcb.dr7) = (cpu.dr6 | 0xffff_0ff0, cpu.dr7 | 0x400);
    vmcb.efer = cpu.msr_efer | EFER_SVME;
    (vmcb.star, vmcb.lstar, vmcb.cstar) = (cpu.msr_star, cpu.msr_lstar, cpu.msr_cstar);
    (vmcb.syscall_mask, vmcb.kernel_gs_base) = (cpu.msr_syscall_mask, cpu.shadow_gs);
    (vmcb.sysenter_cs, vmcb.sysenter_esp, vmcb.sysenter_eip) = (cpu.sysenter_cs, cpu.sysenter_esp, cpu.sysenter_eip);
    state.debug[..4].copy_from_slice(&[cpu.dr0, cpu.dr1, cpu.dr2, cpu.dr3]);
    if let Some(own) = state.assisted.as_deref_mut() {
        own.tag = super::asid::Tag::default();
    }
    state.registers = registers(cpu);
    if cpu.flags & XEN_X86_FPU_INITIALISED != 0 {
        state.take_legacy_fpu(&cpu.fpu_regs);
    }
}

fn take_types(state: &mut VcpuState, record: &HvmHwMtrr) {
    if let (Some(vmcb), Some(own)) = (state.hvm.as_deref_mut(), state.assisted.as_deref_mut()) {
        vmcb.page_attributes = record.msr_pat_cr;
        own.types = MemoryTypes::of(record).unwrap_or_default();
    }
}

fn registers(cpu: &HvmHwCpu) -> Registers {
    Registers {
        r15: cpu.r15,
        r14: cpu.r14,
        r13: cpu.r13,
        r12: cpu.r12,
        rbp: cpu.rbp,
        rbx: cpu.rbx,
        r11: cpu.r11,
        r10: cpu.r10,
        r9: cpu.r9,
        r8: cpu.r8,
        rax: cpu.rax,
        rcx: cpu.rcx,
        rdx: cpu.rdx,
        rsi: cpu.rsi,
        rdi: cpu.rdi,
        rip: cpu.rip,
        entry_vector: ENTRY_ASSISTED,
        cs: cpu.cs_sel.into(),
        rflags: cpu.rflags | flags::ALWAYS,
        rsp: cpu.rsp,
        ss: cpu.ss_sel.into(),
        ..Registers::default()
    }
}

/// `XEN_DOMCTL_gethvmcontext`: the state of all vCPUs; with a null buffer, how long it is. Gives the bytes.
///
/// # Errors
/// `EINVAL` for a domain of another kind, `ENOSPC` for a buffer that is too short, `EBUSY` for a vCPU that runs, `EFAULT`.
pub(crate) fn get<M: Machine>(
    call: &Call<'_, M>,
    domain: &Arc<Domain>,
    request: &DomctlHvmcontext,
) -> Result<u32, Refusal> {
    if domain.hvm.is_none() {
        return Err(Refusal::errno(Errno::Inval, rule::NOT_HVM).with(Evidence::Value(domain.id.0.into())));
    }
    let vcpus = domain.vcpus.get().map_or(&[][..], |vcpus| &vcpus[..]);
    let fixed = 2 * DESCRIPTOR_BYTES + size_of::<HvmSaveHeader>();
    let of_vcpu = 2 * DESCRIPTOR_BYTES + size_of::<HvmHwCpu>() + size_of::<HvmHwMtrr>();
    let length = fixed + vcpus.len() * of_vcpu;
    if request.buffer == 0 {
        return Ok(length as u32);
    }
    if (request.size as usize) < length {
        return Err(Refusal::errno(Errno::NoSpc, rule::CONTEXT).with(Evidence::Value(length as u64)));
    }
    let mut out = Vec::with_capacity(length);
    push(&mut out, HVM_SAVE_CODE_HEADER, 0, header(call).as_bytes());
    for typecode in [HVM_SAVE_CODE_CPU, HVM_SAVE_CODE_MTRR] {
        for vcpu in vcpus {
            push(&mut out, typecode, vcpu.id.0 as u16, &record_of(call, vcpu, typecode)?);
        }
    }
    push(&mut out, HVM_SAVE_CODE_END, 0, &[]);
    call.write(request.buffer, &out[..])?;
    Ok(out.len() as u32)
}

/// `XEN_DOMCTL_gethvmcontext_partial`: one record; with a null buffer, how long it is. Gives the bytes.
///
/// # Errors
/// `EINVAL` for a domain of another kind, or a type that there is not; `ENOENT` for a vCPU that there is not, `ENOSPC`,
/// `EBUSY`, `EFAULT`.
pub(crate) fn get_one<M: Machine>(
    call: &Call<'_, M>,
    domain: &Arc<Domain>,
    request: &DomctlHvmcontextPartial,
) -> Result<u64, Refusal> {
    if domain.hvm.is_none() {
        return Err(Refusal::errno(Errno::Inval, rule::NOT_HVM).with(Evidence::Value(domain.id.0.into())));
    }
    let record = match request.type_ as u16 {
        _ if request.type_ > u16::MAX.into() => return Err(bad(request.type_.into())),
        HVM_SAVE_CODE_HEADER => header(call).as_bytes().to_vec(),
        typecode @ (HVM_SAVE_CODE_CPU | HVM_SAVE_CODE_MTRR) => {
            let missing = || Refusal::errno(Errno::NoEnt, rule::CONTEXT).with(Evidence::Value(request.instance.into()));
            record_of(call, domain.vcpu(VcpuId(request.instance)).ok_or_else(missing)?, typecode)?
        }
        other => return Err(bad(other.into())),
    };
    if request.buffer != 0 {
        if request.bufsz < record.len() as u64 {
            return Err(Refusal::errno(Errno::NoSpc, rule::CONTEXT).with(Evidence::Value(record.len() as u64)));
        }
        call.write(request.buffer, &record[..])?;
    }
    Ok(record.len() as u64)
}

fn header<M: Machine>(call: &Call<'_, M>) -> HvmSaveHeader {
    HvmSaveHeader {
        magic: HVM_FILE_MAGIC,
        version: HVM_FILE_VERSION,
        changeset: 0,
        cpuid: call.hv.machine.cpuid(1, 0).eax,
        gtsc_khz: call.hv.machine.time_scale().khz,
    }
}

/// The record of a vCPU's processor, or of its memory types.
fn record_of<M: Machine>(call: &Call<'_, M>, vcpu: &Vcpu, typecode: u16) -> Result<Vec<u8>, Refusal> {
    let slot = vcpu.state.lock();
    let running = || Refusal::errno(Errno::Busy, control_rule::VCPU_RUNS).with(Evidence::Value(vcpu.id.0.into()));
    let state = slot.as_deref().ok_or_else(running)?;
    if typecode == HVM_SAVE_CODE_CPU {
        return Ok(give(state, call.hv.machine.tsc()).as_bytes().to_vec());
    }
    let attributes = state.hvm.as_deref().map_or(0, |vmcb| vmcb.page_attributes);
    let types = state.assisted.as_deref().map(|own| own.types.record(attributes));
    Ok(types.unwrap_or_default().as_bytes().to_vec())
}

fn push(out: &mut Vec<u8>, typecode: u16, instance: u16, record: &[u8]) {
    let descriptor = HvmSaveDescriptor { typecode, instance, length: record.len() as u32 };
    out.extend_from_slice(descriptor.as_bytes());
    out.extend_from_slice(record);
}

fn give(state: &VcpuState, tsc: u64) -> HvmHwCpu {
    let mut cpu = HvmHwCpu::default();
    if let Some(vmcb) = state.hvm.as_deref() {
        give_block(&mut cpu, vmcb, tsc);
    }
    let r = &state.registers;
    (cpu.rax, cpu.rbx, cpu.rcx, cpu.rdx) = (r.rax, r.rbx, r.rcx, r.rdx);
    (cpu.rbp, cpu.rsi, cpu.rdi, cpu.rsp) = (r.rbp, r.rsi, r.rdi, r.rsp);
    (cpu.r8, cpu.r9, cpu.r10, cpu.r11) = (r.r8, r.r9, r.r10, r.r11);
    (cpu.r12, cpu.r13, cpu.r14, cpu.r15) = (r.r12, r.r13, r.r14, r.r15);
    (cpu.rip, cpu.rflags) = (r.rip, r.rflags);
    [cpu.dr0, cpu.dr1, cpu.dr2, cpu.dr3] = [state.debug[0], state.debug[1], state.debug[2], state.debug[3]];
    cpu.fpu_regs.copy_from_slice(&state.fpu.0[..512]);
    cpu.flags = XEN_X86_FPU_INITIALISED;
    cpu
}

fn give_block(cpu: &mut HvmHwCpu, vmcb: &Vmcb, tsc: u64) {
    let parts = |segment: Segment| (segment.selector.into(), segment.attributes.into(), segment.limit, segment.base);
    (cpu.cs_sel, cpu.cs_arbytes, cpu.cs_limit, cpu.cs_base) = parts(vmcb.cs);
    (cpu.ds_sel, cpu.ds_arbytes, cpu.ds_limit, cpu.ds_base) = parts(vmcb.ds);
    (cpu.es_sel, cpu.es_arbytes, cpu.es_limit, cpu.es_base) = parts(vmcb.es);
    (cpu.fs_sel, cpu.fs_arbytes, cpu.fs_limit, cpu.fs_base) = parts(vmcb.fs);
    (cpu.gs_sel, cpu.gs_arbytes, cpu.gs_limit, cpu.gs_base) = parts(vmcb.gs);
    (cpu.ss_sel, cpu.ss_arbytes, cpu.ss_limit, cpu.ss_base) = parts(vmcb.ss);
    (cpu.tr_sel, cpu.tr_arbytes, cpu.tr_limit, cpu.tr_base) = parts(vmcb.tr);
    (cpu.ldtr_sel, cpu.ldtr_arbytes, cpu.ldtr_limit, cpu.ldtr_base) = parts(vmcb.ldtr);
    (cpu.gdtr_limit, cpu.gdtr_base) = (vmcb.gdtr.limit, vmcb.gdtr.base);
    (cpu.idtr_limit, cpu.idtr_base) = (vmcb.idtr.limit, vmcb.idtr.base);
    (cpu.cr0, cpu.cr2, cpu.cr3, cpu.cr4) = (vmcb.cr0, vmcb.cr2, vmcb.cr3, vmcb.cr4);
    (cpu.dr6, cpu.dr7, cpu.msr_efer) = (vmcb.dr6, vmcb.dr7, vmcb.efer & !EFER_SVME);
    (cpu.msr_star, cpu.msr_lstar, cpu.msr_cstar) = (vmcb.star, vmcb.lstar, vmcb.cstar);
    (cpu.msr_syscall_mask, cpu.shadow_gs) = (vmcb.syscall_mask, vmcb.kernel_gs_base);
    (cpu.sysenter_cs, cpu.sysenter_esp, cpu.sysenter_eip) = (vmcb.sysenter_cs, vmcb.sysenter_esp, vmcb.sysenter_eip);
    cpu.tsc = tsc.wrapping_add(vmcb.tsc_offset);
}
