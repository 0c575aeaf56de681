//! What is in a guest's address space without being memory: the local APIC's registers.
//!
//! The instruction that used the address is read and carried out, if it moves four bytes between a register (or a number)
//! and that address. Source: Intel SDM 3 §10.4.1.

use super::{apic, walk};
use crate::Hypervisor;
use crate::decode::{self, Instruction};
use crate::domain::Running;
use crate::hardware::Machine;
use crate::refusal::{Evidence, Refusal};
use crate::registers::Registers;
use crate::rules::hvm as rule;

/// Bytes of the page of registers.
const BYTES: u64 = 0x1000;

/// Carries out the instruction that used `physical`, where nothing is mapped.
///
/// # Errors
/// Ends the domain where nothing is there, or the instruction is none that is carried out.
pub(super) fn carry_out<M: Machine>(
    hv: &Hypervisor<M>,
    running: &mut Running,
    registers: &mut Registers,
    physical: u64,
) -> Result<(), Refusal> {
    let nothing = || Refusal::crash(rule::NOTHING_THERE).with(Evidence::Value(physical));
    let is_apic = running.state.assisted.as_deref().is_some_and(|own| own.apic.is_in_memory());
    if !is_apic || !(apic::PLACE..apic::PLACE + BYTES).contains(&physical) {
        return Err(nothing());
    }
    let unknown = || Refusal::crash(rule::APIC_INSTRUCTION).with(Evidence::Value(registers.rip));
    let is_long = running.state.hvm.as_deref().is_some_and(super::Vmcb::is_long);
    let fetched = walk::fetch(hv, running, registers.rip);
    let instruction = Instruction::decode_move(fetched.bytes()).filter(|_| is_long).ok_or_else(unknown)?;
    let offset = (physical - apic::PLACE) as u32;
    match instruction.opcode {
        // A register that there is not reads as 0, and what is written to one is lost.
        0x8b | 0xa1 => {
            let value = apic::read(hv, running, offset).unwrap_or(0);
            let register = instruction.modrm.map_or(0, |modrm| modrm.register);
            decode::set_register(registers, register, 4, false, value.into());
        }
        0x89 | 0xa3 => {
            let register = instruction.modrm.map_or(0, |modrm| modrm.register);
            let _ = apic::write(hv, running, offset, decode::get_register(registers, register) as u32);
        }
        _ => {
            let _ = apic::write(hv, running, offset, instruction.immediate as u32);
        }
    }
    registers.rip = registers.rip.wrapping_add(instruction.length.into());
    if let Some(block) = running.state.hvm.as_deref_mut() {
        block.interrupt_shadow = 0;
    }
    Ok(())
}
