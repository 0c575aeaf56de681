//! A guest kernel writes to one of its L1 tables: the write faults, is checked, and done.
//!
//! L1 tables are mapped read-only, and with the assist `writable_pagetables` a kernel may write to them all the same. The
//! instruction that faulted is decoded and carried out on one entry, with the entry checked like any other update. Every
//! form is carried out as one atomic change, with or without `lock`. What cannot be decoded, is not aligned, or would
//! break a rule stays a page fault, which the guest gets. Xen: `VMASST_TYPE_writable_pagetables`.

use core::sync::atomic::Ordering;

use pv_abi::xen::VMASST_TYPE_WRITABLE_PAGETABLES;

use super::entry::{self, is_present};
use super::leaf::{Place, try_update_l1};
use super::table::Owners;
use super::walk::{HeldL1, walk};
use crate::Hypervisor;
use crate::decode::{Instruction, LONGEST, Map, ModRm, Operand, Segment, get_register, read_register, set_register};
use crate::domain::Running;
use crate::entry::Exception;
use crate::hardware::Machine;
use crate::refusal::Refusal;
use crate::registers::Registers;

mod arithmetic;

use arithmetic::{Arithmetic, Outcome, operate};

/// Carries out the write of the guest kernel that faulted, if it goes to an L1 table of its own. Otherwise, false: the
/// fault is the guest's.
pub fn on_write_fault<M: Machine>(
    hv: &Hypervisor<M>,
    running: &mut Running,
    registers: &mut Registers,
    exception: Exception,
) -> bool {
    let domain = &running.vcpu.domain;
    if domain.assists.load(Ordering::Relaxed) & 1 << VMASST_TYPE_WRITABLE_PAGETABLES == 0 {
        return false;
    }
    let Some(root) = running.state.kernel_root else {
        return false;
    };
    let Some((_, _, mapping)) = walk(hv, root, exception.address) else {
        return false;
    };
    if !is_present(mapping) || mapping & entry::WRITABLE != 0 || hv.frames.find(entry::claimed(mapping)).is_none() {
        return false;
    }
    let place = Place { table: entry::frame(mapping), index: (exception.address & 0xfff) as usize / 8 };
    let Some(held) = HeldL1::hold(hv, place, domain.id) else {
        return false;
    };
    let Some(write) = Write::decode(hv, running, registers, exception.address) else {
        return false;
    };
    write.carry_out(hv, running, registers, held.place)
}

/// A write to part of an entry.
struct Write {
    instruction: Instruction,
    kind: Kind,
    /// Bytes of the operand.
    bytes: u8,
    /// Where the operand begins within the entry.
    offset: u8,
}

/// What is written.
#[derive(Clone, Copy)]
enum Kind {
    /// This value.
    Store(u64),
    /// This value; the old one goes into a register.
    Exchange { register: u8 },
    /// The result of an operation with this value.
    Arithmetic(Arithmetic, u64),
    /// The sum with a register; the old value goes into the register.
    ExchangeAdd { register: u8 },
    /// A register, if the accumulator holds the old value.
    CompareExchange { register: u8 },
    /// A string instruction: this value, at `rdi`; with a source at `rsi` where `moves`.
    StringStore { value: u64, moves: bool },
}

impl Write {
    fn decode<M: Machine>(hv: &Hypervisor<M>, running: &Running, registers: &Registers, fault: u64) -> Option<Self> {
        let mut code = [0; LONGEST];
        let fetched = fetch(hv, registers.rip, &mut code);
        let instruction = Instruction::decode(&code[..fetched])?;
        let (address, bytes, kind) = match instruction.modrm {
            Some(modrm) => memory_form(hv, running, registers, &instruction, modrm)?,
            None => string_form(hv, running, registers, &instruction)?,
        };
        let within = fault >= address && fault - address < bytes.into();
        let is_aligned = address.is_multiple_of(bytes.into());
        (within && is_aligned).then_some(Self { instruction, kind, bytes, offset: (address & 7) as u8 })
    }

    /// Does it; false where the new entry breaks a rule.
    fn carry_out<M: Machine>(
        &self,
        hv: &Hypervisor<M>,
        running: &Running,
        registers: &mut Registers,
        place: Place,
    ) -> bool {
        let domain = &running.vcpu.domain;
        let shift = u32::from(self.offset) * 8;
        let mask = mask(self.bytes);
        loop {
            let old = hv.machine.read_word(place.table, place.index);
            let before = old >> shift & mask;
            let outcome = self.outcome(registers, before);
            let done = match outcome.value {
                Some(value) => {
                    let new = old & !(mask << shift) | (value & mask) << shift;
                    match try_update_l1(hv, place, old, new, false, Owners::of(domain)) {
                        Ok(done) => done,
                        Err(refusal) => {
                            explain(hv, running, place, new, &refusal);
                            return false;
                        }
                    }
                }
                None => true,
            };
            if done {
                self.retire(registers, before, outcome);
                return true;
            }
        }
    }

    /// What becomes of the operand and the flags.
    fn outcome(&self, registers: &Registers, before: u64) -> Outcome {
        let source = |register| read_register(registers, register, self.bytes, self.instruction.prefixes.rex != 0);
        let flags = registers.rflags;
        match self.kind {
            Kind::Store(value) | Kind::StringStore { value, .. } => Outcome { value: Some(value), flags },
            Kind::Exchange { register } => Outcome { value: Some(source(register)), flags },
            Kind::Arithmetic(operation, value) => operate(operation, before, value, self.bytes, flags),
            Kind::ExchangeAdd { register } => operate(Arithmetic::Add, before, source(register), self.bytes, flags),
            Kind::CompareExchange { register } => {
                let accumulator = registers.rax & mask(self.bytes);
                let compared = operate(Arithmetic::Subtract, accumulator, before, self.bytes, flags);
                let value = (accumulator == before).then(|| source(register));
                Outcome { value, flags: compared.flags }
            }
        }
    }

    /// The instruction is done: registers, flags, next instruction.
    fn retire(&self, registers: &mut Registers, before: u64, outcome: Outcome) {
        let rex = self.instruction.prefixes.rex != 0;
        registers.rflags = outcome.flags;
        match self.kind {
            Kind::Exchange { register } | Kind::ExchangeAdd { register } => {
                set_register(registers, register, self.bytes, rex, before);
            }
            Kind::CompareExchange { .. } if outcome.value.is_none() => {
                set_register(registers, 0, self.bytes, true, before);
            }
            Kind::StringStore { moves, .. } => return self.retire_string(registers, moves),
            _ => {}
        }
        registers.rip = registers.rip.wrapping_add(self.instruction.length.into());
    }

    /// One step of a string instruction is done; with a repeat prefix the next step is the same instruction again.
    fn retire_string(&self, registers: &mut Registers, moves: bool) {
        let step = u64::from(self.bytes);
        let step = if registers.rflags & crate::registers::flags::DF == 0 { step } else { step.wrapping_neg() };
        registers.rdi = registers.rdi.wrapping_add(step);
        if moves {
            registers.rsi = registers.rsi.wrapping_add(step);
        }
        if self.instruction.prefixes.repeat {
            registers.rcx = registers.rcx.wrapping_sub(1);
            if registers.rcx != 0 {
                return;
            }
        }
        registers.rip = registers.rip.wrapping_add(self.instruction.length.into());
    }
}

/// The operand's address, its size, and what is done with it, for an instruction with a memory operand.
fn memory_form<M: Machine>(
    hv: &Hypervisor<M>,
    running: &Running,
    registers: &Registers,
    instruction: &Instruction,
    modrm: ModRm,
) -> Option<(u64, u8, Kind)> {
    let Operand::Memory(memory) = modrm.operand else {
        return None;
    };
    let (wide, kind) = kind_of(registers, instruction, modrm)?;
    let bytes = if wide { instruction.operand_bytes() } else { 1 };
    let offset = instruction.effective_address(&memory, registers);
    let mut address = offset.wrapping_add(segment_base(hv, running, instruction.segment(&memory)));
    let is_bit_string = instruction.map == Map::Secondary && instruction.opcode & 7 == 3;
    if is_bit_string {
        let number = sign_extend(get_register(registers, modrm.register), bytes);
        let operand = i64::from(bytes) * 8;
        address = address.wrapping_add((number.div_euclid(operand) * i64::from(bytes)).cast_unsigned());
    }
    Some((address, bytes, kind))
}

/// What an instruction with a memory operand does, and whether its operand is more than a byte.
fn kind_of(registers: &Registers, instruction: &Instruction, modrm: ModRm) -> Option<(bool, Kind)> {
    let opcode = instruction.opcode;
    let wide = opcode & 1 != 0;
    let bytes = if wide { instruction.operand_bytes() } else { 1 };
    let register = modrm.register;
    let source = || read_register(registers, register, bytes, instruction.prefixes.rex != 0);
    let immediate = instruction.immediate.cast_unsigned();
    let kind = match (instruction.map, opcode) {
        (Map::Primary, 0x00..=0x37) if opcode & 7 < 2 => Kind::Arithmetic(Arithmetic::numbered(opcode >> 3)?, source()),
        (Map::Primary, 0x80 | 0x81 | 0x83) => Kind::Arithmetic(Arithmetic::numbered(register & 7)?, immediate),
        (Map::Primary, 0x86 | 0x87) => Kind::Exchange { register },
        (Map::Primary, 0x88 | 0x89) => Kind::Store(source()),
        (Map::Primary, 0xc6 | 0xc7) if register & 7 == 0 => Kind::Store(immediate),
        (Map::Primary, 0xf6 | 0xf7) if register & 7 == 2 => Kind::Arithmetic(Arithmetic::Not, 0),
        (Map::Primary, 0xf6 | 0xf7) if register & 7 == 3 => Kind::Arithmetic(Arithmetic::Negate, 0),
        (Map::Primary, 0xfe | 0xff) if register & 7 == 0 => Kind::Arithmetic(Arithmetic::Increment, 1),
        (Map::Primary, 0xfe | 0xff) if register & 7 == 1 => Kind::Arithmetic(Arithmetic::Decrement, 1),
        (Map::Secondary, 0xb0 | 0xb1) => Kind::CompareExchange { register },
        (Map::Secondary, 0xc0 | 0xc1) => Kind::ExchangeAdd { register },
        (Map::Secondary, 0xab | 0xb3 | 0xbb) => {
            return Some((
                true,
                Kind::Arithmetic(Arithmetic::bit(opcode >> 3 & 3)?, get_register(registers, register)),
            ));
        }
        (Map::Secondary, 0xba) => {
            return Some((
                true,
                Kind::Arithmetic(Arithmetic::bit(register & 3).filter(|_| register & 4 != 0)?, immediate),
            ));
        }
        _ => return None,
    };
    Some((wide, kind))
}

/// The same for `stos` and `movs`.
fn string_form<M: Machine>(
    hv: &Hypervisor<M>,
    running: &Running,
    registers: &Registers,
    instruction: &Instruction,
) -> Option<(u64, u8, Kind)> {
    let moves = match (instruction.map, instruction.opcode) {
        (Map::Primary, 0xa4 | 0xa5) => true,
        (Map::Primary, 0xaa | 0xab) => false,
        _ => return None,
    };
    let repeats = instruction.prefixes.repeat || instruction.prefixes.repeat_not_equal;
    if instruction.prefixes.address || instruction.prefixes.repeat_not_equal || (repeats && registers.rcx == 0) {
        return None;
    }
    let bytes = if instruction.opcode & 1 != 0 { instruction.operand_bytes() } else { 1 };
    let value = if moves {
        let base = segment_base(hv, running, instruction.prefixes.segment.unwrap_or(Segment::Ds));
        let mut buffer = [0; 8];
        let part = &mut buffer[..usize::from(bytes)];
        hv.machine.copy_from_guest(registers.rsi.wrapping_add(base), part).ok()?;
        u64::from_le_bytes(buffer)
    } else {
        registers.rax
    };
    Some((registers.rdi, bytes, Kind::StringStore { value, moves }))
}

fn segment_base<M: Machine>(hv: &Hypervisor<M>, running: &Running, segment: Segment) -> u64 {
    match segment {
        Segment::Fs => hv.machine.segment_bases(&running.state)[0],
        Segment::Gs => hv.machine.segment_bases(&running.state)[1],
        _ => 0,
    }
}

/// Reads the instruction at `rip`; how many bytes could be read.
fn fetch<M: Machine>(hv: &Hypervisor<M>, rip: u64, into: &mut [u8; LONGEST]) -> usize {
    if hv.machine.copy_from_guest(rip, into).is_ok() {
        return LONGEST;
    }
    let here = (4096 - (rip & 0xfff) as usize).min(LONGEST);
    if hv.machine.copy_from_guest(rip, &mut into[..here]).is_ok() { here } else { 0 }
}

/// All ones in this many bytes.
const fn mask(bytes: u8) -> u64 {
    u64::MAX >> (64 - bytes as u32 * 8)
}

const fn sign_extend(value: u64, bytes: u8) -> i64 {
    let unused = 64 - bytes as u32 * 8;
    (value << unused).cast_signed() >> unused
}

/// Says why a write was refused; the guest gets a page fault and would never know.
#[cold]
fn explain<M: Machine>(hv: &Hypervisor<M>, running: &Running, place: Place, new: u64, refusal: &Refusal) {
    let domain = &running.vcpu.domain;
    if crate::rules::admit(hv, domain).is_some() {
        let arguments = [place.table.0 << 12 | (place.index as u64) << 3, new];
        crate::rules::report(domain.id, "write to a page table", &arguments, refusal);
    }
}
