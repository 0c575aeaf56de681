//! CPUID and model-specific registers, as guests with hardware assistance see them.
//!
//! CPUID is a PV guest's, with what such a guest can use besides: its own page tables. Registers that hold a guest's own
//! state are in its [`Vmcb`](super::Vmcb) and mostly reached without an exit; the few others are here, and all the rest
//! raise #GP. Source: abi-needs of Xen 4.17, §4; AMD APM 2 §15.11, appendix A; Xen: public/arch-x86/cpuid.h.

use pv_abi::cpuid::{XEN_HVM_CPUID_DOMID_PRESENT, XEN_HVM_CPUID_UPCALL_VECTOR, XEN_HVM_CPUID_VCPU_ID_PRESENT};
use pv_abi::hypercall_page;

use super::vmcb::{EFER_LMA, EFER_SVME};
use super::{apic, walk};
use crate::Hypervisor;
use crate::domain::{Running, VcpuState};
use crate::hardware::{CpuidResult, Machine};
use crate::registers::Registers;
use crate::traps::cpuid as pv;

/// CPUID.1:EDX besides a PV guest's: virtual 8086 mode, page sizes, memory types by range and page, global pages.
const LEAF_1_EDX: u32 = 1 << 1 | 1 << 3 | 1 << 12 | 1 << 13 | 1 << 17;
/// CPUID.1:EDX: machine checks, which there are none of.
const MACHINE_CHECKS: u32 = 1 << 7 | 1 << 14;
/// CPUID.1:EDX: a local APIC.
const APIC: u32 = 1 << 9;
/// CPUID.1:ECX of the APIC: x2APIC mode, a timer that waits for a value of the time-stamp counter.
const APIC_MODES: u32 = 1 << 21 | 1 << 24;
/// CPUID.1:ECX: XSAVE is switched on.
const OSXSAVE: u32 = 1 << 27;
/// CPUID.7:EBX besides a PV guest's: FSGSBASE, SMEP.
const LEAF_7_EBX: u32 = 1 << 0 | 1 << 7;
/// CPUID.8000_0001:EDX besides a PV guest's: page sizes, global pages, 1 GiB pages.
const EXTENDED_EDX: u32 = 1 << 3 | 1 << 13 | 1 << 17 | 1 << 26;

const CR4_OSXSAVE: u64 = 1 << 18;

/// A leaf as guests with hardware assistance may see it at most.
pub(crate) fn visible_leaf<M: Machine>(machine: &M, leaf: u32, subleaf: u32) -> CpuidResult {
    widened(machine, leaf, subleaf, pv::visible_leaf(machine, leaf, subleaf))
}

/// What is in a leaf, for a guest that has what PV guests have not.
fn widened<M: Machine>(machine: &M, leaf: u32, subleaf: u32, of_pv: CpuidResult) -> CpuidResult {
    let mut result = of_pv;
    let host = || machine.cpuid(leaf, subleaf);
    match leaf {
        1 => {
            result.ecx |= APIC_MODES;
            result.edx = (result.edx | host().edx & LEAF_1_EDX) & !MACHINE_CHECKS | APIC;
        }
        7 if subleaf == 0 => result.ebx |= host().ebx & LEAF_7_EBX,
        0x8000_0001 => result.edx = (result.edx | host().edx & EXTENDED_EDX) & !MACHINE_CHECKS | APIC,
        _ => {}
    }
    result
}

/// Executes `cpuid` for the guest.
pub(super) fn cpuid<M: Machine>(hv: &Hypervisor<M>, running: &Running, registers: &mut Registers) {
    let (leaf, subleaf) = (registers.rax as u32, registers.rcx as u32);
    let mut result = pv::guest_cpuid(hv, running, leaf, subleaf, false);
    if running.vcpu.domain.settings.lock().cpu_policy.is_empty() {
        result = widened(&hv.machine, leaf, subleaf, result);
    }
    if leaf == 1 {
        let cr4 = running.state.hvm.as_ref().map_or(0, |vmcb| vmcb.cr4);
        let has_xsave = result.ecx & pv::XSAVE != 0 && cr4 & CR4_OSXSAVE != 0;
        result.ecx = result.ecx & !OSXSAVE | if has_xsave { OSXSAVE } else { 0 };
        result.ebx = result.ebx & 0x00ff_ffff | apic::identifier(running.vcpu.id.0) << 24;
    }
    if leaf == pv::BASE + 2 {
        result.ecx = 0;
    } else if leaf == pv::BASE + 4 {
        result.eax = XEN_HVM_CPUID_VCPU_ID_PRESENT | XEN_HVM_CPUID_DOMID_PRESENT | XEN_HVM_CPUID_UPCALL_VECTOR;
        (result.ebx, result.ecx) = (running.vcpu.id.0, running.vcpu.domain.id.0.into());
    } else if leaf == pv::BASE + 5 {
        result.ebx = 0;
    }
    registers.rax = result.eax.into();
    registers.rbx = result.ebx.into();
    registers.rcx = result.ecx.into();
    registers.rdx = result.edx.into();
}

mod msr {
    pub(super) const TSC: u32 = 0x10;
    pub(super) const APIC_BASE: u32 = 0x1b;
    /// The first of the x2APIC's, one for each 16 bytes of the registers in memory; and the last.
    pub(super) const X2APIC: u32 = 0x800;
    pub(super) const X2APIC_LAST: u32 = 0x83f;
    pub(super) const X2APIC_COMMAND: u32 = 0x830;
    pub(super) const DEADLINE: u32 = 0x6e0;
    /// AMD's SYSCFG, HWCR, interrupt-pending message and DE_CFG: nothing of them is on, but that LFENCE serializes.
    pub(super) const SYSTEM: u32 = 0xc001_0010;
    pub(super) const HARDWARE: u32 = 0xc001_0015;
    pub(super) const PENDING_MESSAGE: u32 = 0xc001_0055;
    pub(super) const DECODE: u32 = 0xc001_1029;
    pub(super) const MICROCODE: u32 = 0x8b;
    pub(super) const PAT: u32 = 0x277;
    /// The one that makes a hypercall page (CPUID leaf 0x40000002).
    pub(super) const HYPERCALL_PAGE: u32 = 0x4000_0000;
    pub(super) const EFER: u32 = 0xc000_0080;
}

/// EFER: `syscall`, long mode, no-execute.
const EFER_OWN: u64 = 1 | 1 << 8 | 1 << 11;
/// CR0: paging is on.
const CR0_PG: u64 = 1 << 31;

/// `rdmsr`; `None` for #GP.
pub(super) fn read_msr<M: Machine>(hv: &Hypervisor<M>, running: &mut Running, registers: &mut Registers) -> Option<()> {
    const LFENCE_SERIALIZES: u64 = 2;
    let index = registers.rcx as u32;
    if let msr::X2APIC..=msr::X2APIC_LAST = index {
        return read_x2apic(hv, running, registers, index);
    }
    let vmcb = running.state.hvm.as_deref().filter(|vmcb| vmcb.privilege == 0)?;
    let own = running.state.assisted.as_deref()?;
    let value = match index {
        msr::APIC_BASE => own.apic.base(),
        msr::DEADLINE => apic::deadline(hv, running),
        msr::SYSTEM | msr::HARDWARE | msr::PENDING_MESSAGE => 0,
        msr::DECODE => LFENCE_SERIALIZES,
        msr::TSC => hv.machine.tsc().wrapping_add(vmcb.tsc_offset),
        msr::MICROCODE => 0,
        msr::PAT => vmcb.page_attributes,
        msr::EFER => vmcb.efer & !EFER_SVME,
        other => own.types.read(other)?,
    };
    (registers.rax, registers.rdx) = (value & 0xffff_ffff, value >> 32);
    Some(())
}

/// Whether the page-attribute table can have this value.
pub(super) fn is_page_attributes(value: u64) -> bool {
    value.to_le_bytes().iter().all(|kind| matches!(kind, 0 | 1 | 4..=7))
}

/// `wrmsr`; `None` for #GP.
pub(super) fn write_msr<M: Machine>(hv: &Hypervisor<M>, running: &mut Running, registers: &Registers) -> Option<()> {
    let value = registers.rdx << 32 | registers.rax & 0xffff_ffff;
    let index = registers.rcx as u32;
    let inbox = running.vcpu.inbox.as_deref()?;
    let VcpuState { hvm: Some(vmcb), assisted: Some(own), .. } = &mut *running.state else {
        return None;
    };
    if vmcb.privilege != 0 {
        return None;
    }
    match index {
        msr::APIC_BASE => own.apic.set_base(inbox, value)?,
        msr::X2APIC..=msr::X2APIC_LAST => return write_x2apic(hv, running, index, value),
        msr::DEADLINE => apic::set_deadline(hv, running, value),
        msr::MICROCODE => {}
        msr::PAT if is_page_attributes(value) => vmcb.page_attributes = value,
        msr::EFER => vmcb.efer = new_efer(vmcb.cr0, vmcb.efer, value)?,
        msr::HYPERCALL_PAGE => return fill_hypercall_page(hv, running, value),
        other => own.types.write(other, value)?,
    }
    Some(())
}

fn is_x2apic(running: &Running) -> bool {
    let privileged = running.state.hvm.as_deref().is_some_and(|vmcb| vmcb.privilege == 0);
    privileged && running.state.assisted.as_deref().is_some_and(|own| own.apic.is_x2apic())
}

fn read_x2apic<M: Machine>(
    hv: &Hypervisor<M>,
    running: &mut Running,
    registers: &mut Registers,
    index: u32,
) -> Option<()> {
    let offset = (index - msr::X2APIC) << 4;
    let low = apic::read(hv, running, offset).filter(|_| is_x2apic(running))?;
    let high = if index == msr::X2APIC_COMMAND { apic::read(hv, running, offset + 0x10)? } else { 0 };
    (registers.rax, registers.rdx) = (low.into(), high.into());
    Some(())
}

fn write_x2apic<M: Machine>(hv: &Hypervisor<M>, running: &mut Running, index: u32, value: u64) -> Option<()> {
    if !is_x2apic(running) {
        return None;
    }
    if index == msr::X2APIC_COMMAND {
        apic::write_command(hv, running, value);
        return Some(());
    }
    let low = u32::try_from(value).ok()?;
    apic::write(hv, running, (index - msr::X2APIC) << 4, low).ok()
}

/// EFER as it becomes: long mode is not changed while paging is on, and whether it is active is the CPU's to say.
fn new_efer(cr0: u64, old: u64, value: u64) -> Option<u64> {
    const LME: u64 = 1 << 8;
    let changes_mode = cr0 & CR0_PG != 0 && (old ^ value) & LME != 0;
    if value & !(EFER_OWN | EFER_LMA) != 0 || changes_mode {
        return None;
    }
    Some(value & EFER_OWN | old & EFER_LMA | EFER_SVME)
}

/// Fills a page of the guest's with hypercall stubs (Xen: the low bits say which page, and there is one).
fn fill_hypercall_page<M: Machine>(hv: &Hypervisor<M>, running: &Running, value: u64) -> Option<()> {
    const VMMCALL: [u8; 3] = [0x0f, 0x01, 0xd9];
    if value & 0xfff != 0 {
        return None;
    }
    let frame = walk::hold(hv, &running.vcpu.domain, value >> 12)?;
    let mut stubs = alloc::boxed::Box::new([0; 4096]);
    hypercall_page::fill_by(&mut stubs, VMMCALL);
    hv.machine.write_bytes(frame.mfn, 0, &*stubs);
    Some(())
}
