//! Instructions that use addresses without memory: read again, carried out, one access at a time.
//!
//! The CPU says the address and whether it was written; the instruction says the rest. One that reads and then writes asks
//! twice; a string does one element and is executed again for the next. Where a device model is asked, what is left to do
//! waits in [`Pending`]. Source: AMD APM 2 §15.25.6.

use super::bus::{self, Outcome};
use super::ports::{Asked, Then};
use super::vmcb::CODE_32;
use super::walk::{self, How, Miss};
use super::{Vmcb, exit};
use crate::Hypervisor;
use crate::decode::Segment;
use crate::decode::moves::{Access, Use};
use crate::domain::Running;
use crate::hardware::Machine;
use crate::refusal::{Evidence, Refusal};
use crate::registers::Registers;
use crate::rules::hvm as rule;

/// Of a nested page fault: it was a write, an instruction was fetched, the guest's own tables were walked.
const WRITE: u64 = 1 << 1;
const FETCH: u64 = 1 << 4;
const TABLES: u64 = 1 << 33;
const PAGE_FAULT: u8 = 14;

/// An instruction that waits for a device model.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pending {
    access: Access,
    physical: u64,
    /// What is asked is a write, behind which nothing is left.
    is_last: bool,
}

/// Whether a vCPU executes a program, which reaches only its own pages.
pub(super) fn is_user(running: &Running) -> bool {
    running.state.hvm.as_deref().is_some_and(|block| block.privilege == 3)
}

/// The address of an offset in a segment: only two have a base in 64-bit code.
pub(super) fn linear(block: &Vmcb, segment: Segment, offset: u64) -> u64 {
    let (place, has_base) = match segment {
        Segment::Es => (&block.es, false),
        Segment::Cs => (&block.cs, false),
        Segment::Ss => (&block.ss, false),
        Segment::Ds => (&block.ds, false),
        Segment::Fs => (&block.fs, true),
        Segment::Gs => (&block.gs, true),
    };
    match (block.is_long(), has_base) {
        (true, false) => offset,
        (true, true) => place.base.wrapping_add(offset),
        (false, _) => place.base.wrapping_add(offset) & 0xffff_ffff,
    }
}

/// What the guest gets where its own tables lead nowhere.
///
/// # Errors
/// Ends the domain where not its tables are what is missing.
pub(super) fn missed(running: &mut Running, miss: Miss) -> Result<(), Refusal> {
    match (miss, running.state.hvm.as_deref_mut()) {
        (Miss::Fault(address, code), Some(block)) => {
            block.cr2 = address;
            block.raise(PAGE_FAULT, Some(code));
            Ok(())
        }
        (Miss::Nothing(frame), _) => Err(Refusal::crash(rule::NOTHING_THERE).with(Evidence::Value(frame << 12))),
        _ => Err(Refusal::crash(rule::PAGING_MODE)),
    }
}

/// Carries out the instruction that used `physical`, where nothing is mapped; `info` is what the CPU says of that.
///
/// # Errors
/// Ends the domain where nothing is there, or the instruction is none that is carried out.
pub(super) fn carry_out<M: Machine>(
    hv: &Hypervisor<M>,
    running: &mut Running,
    registers: &mut Registers,
    (info, physical): (u64, u64),
) -> Result<(), Refusal> {
    if info & (FETCH | TABLES) != 0 {
        return Err(Refusal::crash(rule::NOTHING_THERE).with(Evidence::Value(physical)));
    }
    let block = running.state.hvm.as_deref().ok_or_else(|| Refusal::crash(rule::NOT_HVM))?;
    let is_long = block.is_long();
    let fetched = walk::fetch(hv, running, exit::code_address(block, registers));
    let known = is_long || block.cs.attributes & CODE_32 != 0;
    let decoded = Access::decode(fetched.bytes(), is_long).filter(|_| known);
    let access = decoded.ok_or_else(|| {
        let unknown = Refusal::crash(rule::DEVICE_INSTRUCTION).with(Evidence::Value(physical));
        bus::check(running, physical).err().unwrap_or(unknown)
    })?;
    if access.is_nothing(registers) {
        return Ok(());
    }
    let pending = Pending { access, physical, is_last: false };
    if let Use::Copy(segment) = access.what {
        return copy(hv, running, registers, pending, (segment, info & WRITE != 0));
    }
    if access.reads() {
        let outcome = bus::read(hv, running, physical, access.bytes)?;
        return go_on(hv, running, registers, pending, outcome);
    }
    let value = access.stored(registers);
    store(hv, running, registers, pending, value)
}

/// One element of a string from memory to a device, or from a device to memory.
fn copy<M: Machine>(
    hv: &Hypervisor<M>,
    running: &mut Running,
    registers: &mut Registers,
    pending: Pending,
    (segment, to_device): (Segment, bool),
) -> Result<(), Refusal> {
    let (user, bytes) = (is_user(running), pending.access.bytes);
    let block = running.state.hvm.as_deref().ok_or_else(|| Refusal::crash(rule::NOT_HVM))?;
    if to_device {
        let from = linear(block, segment, pending.access.place(registers.rsi));
        return match walk::load(hv, running, (from, bytes), user) {
            Ok(value) => store(hv, running, registers, pending, value),
            Err(miss) => missed(running, miss),
        };
    }
    // A page fault comes before the device is read.
    let to = linear(block, Segment::Es, pending.access.place(registers.rdi));
    if let Err(miss) = walk::physical(hv, running, to, How { write: true, user }) {
        return missed(running, miss);
    }
    let outcome = bus::read(hv, running, pending.physical, bytes)?;
    go_on(hv, running, registers, pending, outcome)
}

fn store<M: Machine>(
    hv: &Hypervisor<M>,
    running: &mut Running,
    registers: &mut Registers,
    pending: Pending,
    value: u64,
) -> Result<(), Refusal> {
    let outcome = bus::write(hv, running, pending.physical, pending.access.bytes, value)?;
    go_on(hv, running, registers, Pending { is_last: true, ..pending }, outcome)
}

fn go_on<M: Machine>(
    hv: &Hypervisor<M>,
    running: &mut Running,
    registers: &mut Registers,
    pending: Pending,
    outcome: Outcome,
) -> Result<(), Refusal> {
    match outcome {
        Outcome::Now(data) => answered(hv, running, registers, pending, data),
        Outcome::Asked(server) => {
            if let Some(own) = running.state.assisted.as_deref_mut() {
                own.asked = Some(Asked { server, then: Then::Memory(pending) });
            }
            Ok(())
        }
    }
}

/// Goes on with an instruction whose access is answered.
///
/// # Errors
/// As [`carry_out`].
pub(super) fn answered<M: Machine>(
    hv: &Hypervisor<M>,
    running: &mut Running,
    registers: &mut Registers,
    pending: Pending,
    data: u64,
) -> Result<(), Refusal> {
    let Pending { access, is_last, .. } = pending;
    if !is_last {
        if let Use::Copy(_) = access.what {
            let block = running.state.hvm.as_deref().ok_or_else(|| Refusal::crash(rule::NOT_HVM))?;
            let to = linear(block, Segment::Es, access.place(registers.rdi));
            if let Err(miss) = walk::store(hv, running, (to, access.bytes), is_user(running), data) {
                return missed(running, miss);
            }
        } else if let Some(value) = access.take(registers, data) {
            return store(hv, running, registers, pending, value);
        }
    }
    access.go_on(registers);
    if let Some(block) = running.state.hvm.as_deref_mut() {
        block.interrupt_shadow = 0;
    }
    Ok(())
}
