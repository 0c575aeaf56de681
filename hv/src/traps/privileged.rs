//! Privileged instructions of a guest, emulated.
//!
//! They raise #GP with error code 0 in ring 3. Exactly these are emulated: port I/O, `clts`, `wbinvd`, moves of control
//! and debug registers, `rdmsr` and `wrmsr`, `rdtsc` and `rdtscp`, `cpuid`, `xsetbv`, `cli` and `sti`. All but port I/O,
//! `cli`, `sti` and `cpuid` are the guest kernel's alone. What is not emulated goes to the guest as the #GP it was.
//! Source: abi-needs of Xen 4.17, §3.1 and §3.6; AMD APM 3.

use super::{cpuid, descriptors, msr, ports, processor};
use crate::Hypervisor;
use crate::decode::privileged::{Operation, decode};
use crate::decode::{LONGEST, get_register, register_mut};
use crate::domain::Running;
use crate::hardware::Machine;
use crate::paging;
use crate::registers::Registers;

/// CR0.TS.
const CR0_TS: u64 = 1 << 3;
/// CR0 as a guest sees it, but for TS: paging, alignment mask, write protection, numeric errors, extension type, monitor
/// coprocessor, protection.
const CR0_FIXED: u64 = 0x8005_0033;
/// CR4.TSD.
const CR4_TSD: u64 = 1 << 2;
/// CR4.OSXSAVE.
pub(super) const CR4_OSXSAVE: u64 = 1 << 18;
/// CR4 as a guest sees it whatever it does: PAE, machine checks, OSFXSR, OSXMMEXCPT.
const CR4_FIXED: u64 = 1 << 5 | 1 << 6 | 1 << 9 | 1 << 10;
/// Reads the instruction at the guest's instruction pointer: as many bytes as there are.
fn fetch<M: Machine>(hv: &Hypervisor<M>, at: u64, bytes: &mut [u8; LONGEST]) -> usize {
    let to_page_end = 4096 - (at & 0xfff) as usize;
    let first = to_page_end.min(LONGEST);
    if hv.machine.copy_from_guest(at, &mut bytes[..first]).is_err() {
        return 0;
    }
    if first < LONGEST && hv.machine.copy_from_guest(at.wrapping_add(first as u64), &mut bytes[first..]).is_ok() {
        return LONGEST;
    }
    first
}

/// Emulates the instruction that raised #GP; says whether it did. Where not, the #GP is the guest's.
pub(super) fn emulate<M: Machine>(hv: &Hypervisor<M>, running: &mut Running, registers: &mut Registers) -> bool {
    let (long_mode, base) = match registers.cs as u16 {
        pv_abi::arch::FLAT_KERNEL_CS => (true, 0),
        selector => descriptors::code_segment(hv, &running.state, selector),
    };
    let mut bytes = [0; LONGEST];
    let base = if long_mode { 0 } else { base };
    let len = fetch(hv, registers.rip.wrapping_add(base), &mut bytes);
    let Some(instruction) = decode(&bytes[..len], long_mode) else {
        return false;
    };
    let Some(step) = perform(hv, running, registers, instruction.operation) else {
        return false;
    };
    if step == Step::Next {
        registers.rip = registers.rip.wrapping_add(instruction.length.into());
    }
    true
}

/// What comes after an emulated instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// The next instruction.
    Next,
    /// The same again: it goes on, or a fault was injected in its place.
    Again,
}

/// Does what an instruction says; none where the guest may not.
fn perform<M: Machine>(
    hv: &Hypervisor<M>,
    running: &mut Running,
    registers: &mut Registers,
    operation: Operation,
) -> Option<Step> {
    match operation {
        Operation::In { port, bytes } => {
            let port = port.map_or(registers.rdx as u16, u16::from);
            let value = ports::input(hv, running, port, bytes)?;
            ports::merge(&mut registers.rax, bytes, value);
        }
        Operation::Out { port, bytes } => {
            let port = port.map_or(registers.rdx as u16, u16::from);
            ports::output(hv, running, port, bytes, registers.rax as u32)?;
        }
        Operation::String(string) => return ports::string(hv, running, registers, string),
        Operation::InterruptFlag => ports::may_input_output(running).then_some(())?,
        Operation::Cpuid => cpuid::execute(hv, running, registers, false),
        _ if !running.state.kernel_mode => return None,
        kernel_only => return perform_for_kernel(hv, running, registers, kernel_only),
    }
    Some(Step::Next)
}

fn perform_for_kernel<M: Machine>(
    hv: &Hypervisor<M>,
    running: &mut Running,
    registers: &mut Registers,
    operation: Operation,
) -> Option<Step> {
    match operation {
        Operation::ReadControl { control, general } => {
            *register_mut(registers, general) = read_control(hv, running, control)?;
        }
        Operation::WriteControl { control, general } => {
            let value = get_register(registers, general);
            write_control(hv, running, control, value)?;
        }
        Operation::ReadDebug { debug, general } => {
            *register_mut(registers, general) = processor::debug_register(&hv.machine, running, debug.into()).ok()?;
        }
        Operation::WriteDebug { debug, general } => {
            let value = get_register(registers, general);
            processor::set_debug_register(&hv.machine, running, debug.into(), value).ok()?;
        }
        Operation::ReadMsr => set_pair(registers, msr::read(hv, running, registers.rcx as u32)?),
        Operation::WriteMsr => msr::write(hv, running, registers.rcx as u32, pair(registers))?,
        Operation::ReadTsc { with_id } => {
            set_pair(registers, hv.machine.tsc());
            if with_id {
                registers.rcx = 0;
            }
        }
        Operation::ClearTaskSwitched => processor::set_task_switched(&hv.machine, &mut running.state, false),
        Operation::SetXcr => set_xcr(hv, running, registers.rcx as u32, pair(registers))?,
        Operation::WriteBack => {}
        _ => return None,
    }
    Some(Step::Next)
}

/// edx:eax.
const fn pair(registers: &Registers) -> u64 {
    registers.rdx << 32 | registers.rax & 0xffff_ffff
}

const fn set_pair(registers: &mut Registers, value: u64) {
    registers.rax = value & 0xffff_ffff;
    registers.rdx = value >> 32;
}

/// CR0 as the guest sees it.
pub(crate) const fn guest_cr0(task_switched: bool) -> u64 {
    CR0_FIXED | if task_switched { CR0_TS } else { 0 }
}

/// CR4 as the guest sees it.
pub(crate) const fn guest_cr4(chosen: u64) -> u64 {
    CR4_FIXED | chosen
}

fn read_control<M: Machine>(hv: &Hypervisor<M>, running: &Running, control: u8) -> Option<u64> {
    let state = &running.state;
    Some(match control {
        0 => guest_cr0(state.task_switched),
        2 => {
            let (frame, offset) = running.vcpu.info_place();
            hv.machine.read_word(frame, (offset + 16) / 8)
        }
        3 => pv_abi::arch::xen_pfn_to_cr3(state.kernel_root?.0),
        4 => guest_cr4(state.cr4),
        _ => return None,
    })
}

fn write_control<M: Machine>(hv: &Hypervisor<M>, running: &mut Running, control: u8, value: u64) -> Option<()> {
    match control {
        0 => {
            if (value ^ guest_cr0(running.state.task_switched)) & !CR0_TS != 0 {
                return None;
            }
            processor::set_task_switched(&hv.machine, &mut running.state, value & CR0_TS != 0);
        }
        2 => {
            let (frame, offset) = running.vcpu.info_place();
            hv.machine.write_word(frame, (offset + 16) / 8, value);
        }
        3 => paging::load_guest_root(hv, running, pv_abi::arch::xen_cr3_to_pfn(value)).ok()?,
        4 => {
            running.state.cr4 = allowed_cr4(&hv.machine, value);
            hv.machine.set_guest_cr4(running.state.cr4);
        }
        _ => return None,
    }
    Some(())
}

/// What of CR4 a guest may set: TSD and DE, and OSXSAVE where XSAVE is shown.
pub(crate) fn allowed_cr4<M: Machine>(machine: &M, value: u64) -> u64 {
    let xsave = if machine.cpuid(1, 0).ecx & cpuid::XSAVE != 0 { CR4_OSXSAVE } else { 0 };
    value & (CR4_TSD | processor::CR4_DE | xsave)
}

/// `xsetbv`: XCR0 may hold what the policy shows, in combinations that the CPU accepts.
fn set_xcr<M: Machine>(hv: &Hypervisor<M>, running: &mut Running, index: u32, value: u64) -> Option<()> {
    if index != 0 || running.state.cr4 & CR4_OSXSAVE == 0 || !valid_xcr0(value, cpuid::xcr0_mask(&hv.machine)) {
        return None;
    }
    running.state.xcr0 = value;
    hv.machine.set_xcr0(value);
    Some(())
}

/// Whether a guest may have this XCR0, of these components (AMD APM 2 §11.5.2).
pub(crate) const fn valid_xcr0(value: u64, mask: u64) -> bool {
    const SSE: u64 = 1 << 1;
    const AVX: u64 = 1 << 2;
    const AVX512: u64 = 0xe0;
    let wide = value & AVX512;
    value & 1 != 0
        && value & !mask == 0
        && (value & AVX == 0 || value & SSE != 0)
        && (wide == 0 || wide == AVX512 && value & AVX != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn xcr0_needs_x87_and_whole_groups() {
        assert!(valid_xcr0(1, 0xe7) && valid_xcr0(7, 0xe7) && valid_xcr0(0xe7, 0xe7));
        for bad in [0, 2, 5, 0x27, 0x107] {
            assert!(!valid_xcr0(bad, 0xe7), "{bad:#x}");
        }
        assert!(!valid_xcr0(7, 3));
    }
}
