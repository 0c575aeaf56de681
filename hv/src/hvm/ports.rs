//! I/O ports of a guest: what is used there is asked of whoever emulates it.
//!
//! Where nobody does, reads float and writes are lost. Configuration spaces are reached by two ports, of which the first
//! is the hypervisor's, so that each function can have a server of its own.
//!
//! Source: AMD APM 2 §15.10.2; PCI Local Bus 2.2 §3.2.2.3.2; Xen: public/hvm/ioreq.h.

use core::sync::atomic::Ordering;

use pv_abi::hvm::ioreq::{IOREQ_TYPE_PCI_CONFIG, IOREQ_TYPE_PIO, Ioreq, STATE_IORESP_READY};

use super::HvmDomain;
use super::ioreq::{self, Kind, Range};
use crate::Hypervisor;
use crate::domain::Running;
use crate::hardware::Machine;
use crate::refusal::{Evidence, Refusal};
use crate::registers::Registers;
use crate::rules::hvm as rule;

const CONFIG_ADDRESS: u16 = 0xcf8;
const CONFIG_DATA: u16 = 0xcfc;
/// The address means a configuration space.
const CONFIG_ON: u32 = 1 << 31;

/// An access to ports.
#[derive(Clone, Copy, Debug)]
struct Access {
    port: u16,
    /// 1, 2 or 4 bytes.
    size: u8,
    input: bool,
}

/// What a vCPU has asked.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked {
    server: u16,
    access: Access,
}

/// A guest used ports; `info` is what the CPU says of that, and where the next instruction is.
///
/// # Errors
/// Ends the domain for a string instruction.
pub(super) fn access<M: Machine>(
    hv: &Hypervisor<M>,
    running: &mut Running,
    registers: &mut Registers,
    (info, next): (u64, u64),
) -> Result<(), Refusal> {
    const INPUT: u64 = 1;
    const STRING: u64 = 1 << 2;
    if info & STRING != 0 {
        return Err(Refusal::crash(rule::STRING_IO).with(Evidence::Value(info >> 16)));
    }
    let access = Access { port: (info >> 16) as u16, size: (info >> 4 & 7) as u8, input: info & INPUT != 0 };
    registers.rip = next;
    if let Some(block) = running.state.hvm.as_deref_mut() {
        block.interrupt_shadow = 0;
    }
    let asked = running.vcpu.domain.hvm.as_ref().and_then(|hvm| ask(hv, hvm, running, registers.rax, access));
    match (asked, running.state.assisted.as_deref_mut()) {
        (Some(server), Some(own)) => own.asked = Some(Asked { server, access }),
        _ => put(registers, access, u32::MAX),
    }
    Ok(())
}

/// Asks the server that has these ports, if any; its number.
fn ask<M: Machine>(hv: &Hypervisor<M>, hvm: &HvmDomain, running: &Running, data: u64, access: Access) -> Option<u16> {
    let Access { port, size, input } = access;
    let bytes = u64::from(size);
    let data = data & (u64::MAX >> (64 - 8 * bytes));
    if port == CONFIG_ADDRESS && size == 4 && !input {
        hvm.pci_address.store(data as u32, Ordering::Relaxed);
    }
    let address = hvm.pci_address.load(Ordering::Relaxed);
    let is_config = port & !3 == CONFIG_DATA && address & CONFIG_ON != 0;
    let (kind, range, addr, type_) = if is_config {
        let function = u64::from(address >> 8 & 0xffff);
        let offset = address & 0xfc | u32::from(port & 3);
        let addr = function << 32 | u64::from(offset);
        (Kind::Configuration, Range { first: function, last: function }, addr, IOREQ_TYPE_PCI_CONFIG)
    } else {
        let first = u64::from(port);
        (Kind::Ports, Range { first, last: first + bytes - 1 }, first, IOREQ_TYPE_PIO)
    };
    let server = hvm.servers.lock().find(kind, range)?;
    let request = Ioreq { addr, data, count: 1, size: size.into(), type_, ..Ioreq::default() };
    ioreq::ask(hv, hvm, &running.vcpu, server, request.with_flags(input, false, false)).then_some(server)
}

/// Takes the answer to what the vCPU asked, before it goes on.
///
/// # Errors
/// Ends the domain where the place of the answer has none.
pub(super) fn complete<M: Machine>(
    hv: &Hypervisor<M>,
    running: &mut Running,
    registers: &mut Registers,
) -> Result<(), Refusal> {
    let Some(asked) = running.state.assisted.as_deref_mut().and_then(|own| own.asked.take()) else {
        return Ok(());
    };
    let hvm = running.vcpu.domain.hvm.as_ref();
    let data = match hvm.and_then(|hvm| ioreq::take_answer(hv, hvm, &running.vcpu, asked.server)) {
        Some(answer) if answer.state() == STATE_IORESP_READY => answer.data as u32,
        Some(answer) => return Err(Refusal::crash(rule::ANSWER).with(Evidence::Value(answer.state().into()))),
        None => u32::MAX,
    };
    put(registers, asked.access, data);
    Ok(())
}

/// Puts what was read where the instruction wants it.
fn put(registers: &mut Registers, access: Access, data: u32) {
    let data = u64::from(data);
    match (access.input, access.size) {
        (false, _) => {}
        (true, 1) => registers.rax = registers.rax & !0xff | data & 0xff,
        (true, 2) => registers.rax = registers.rax & !0xffff | data & 0xffff,
        (true, _) => registers.rax = data,
    }
}
