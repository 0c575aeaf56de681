//! I/O ports of a guest: what is used there is a device's inside, or asked of whoever emulates it.
//!
//! Where nobody does, reads float and writes are lost. Configuration spaces are reached by two ports, of which the first
//! is the hypervisor's, so that each function can have a server of its own. What a string instruction moves is asked for
//! as far as one page of memory has room for it, by its address: the device model moves it.
//!
//! Source: AMD APM 2 §15.10.2; PCI Local Bus 2.2 §3.2.2.3.2; Xen: public/hvm/ioreq.h.

use core::sync::atomic::Ordering;

use pv_abi::hvm::ioreq::{IOREQ_TYPE_PCI_CONFIG, IOREQ_TYPE_PIO, Ioreq, STATE_IORESP_READY};

use super::ioreq::{self, Kind, Range};
use super::mmio::{self, Pending};
use super::vmcb::CODE_32;
use super::walk::{self, How};
use super::{HvmDomain, exit, platform};
use crate::Hypervisor;
use crate::decode::Segment;
use crate::decode::moves::PortString;
use crate::domain::Running;
use crate::hardware::Machine;
use crate::refusal::{Evidence, Refusal};
use crate::registers::{Registers, flags};
use crate::rules::hvm as rule;

const CONFIG_ADDRESS: u16 = 0xcf8;
const CONFIG_DATA: u16 = 0xcfc;
/// The address means a configuration space.
const CONFIG_ON: u32 = 1 << 31;
const PAGE: u64 = 4096;

/// An access to ports.
#[derive(Clone, Copy, Debug)]
pub(super) struct Access {
    port: u16,
    /// 1, 2 or 4 bytes.
    size: u8,
    input: bool,
}

/// A string instruction, as far as it is done at once.
#[derive(Clone, Copy, Debug)]
pub(super) struct Strings {
    code: PortString,
    access: Access,
    /// Where the first element is, for the guest and in its memory.
    at: u64,
    physical: u64,
    /// How many elements.
    count: u64,
    down: bool,
    /// The only one lies in two pages: its value is asked for.
    by_value: bool,
}

/// What a vCPU has asked.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked {
    pub(super) server: u16,
    pub(super) then: Then,
}

/// What is left to do with the answer.
#[derive(Clone, Copy, Debug)]
pub(super) enum Then {
    /// An access to ports.
    Port(Access),
    /// A string instruction.
    Strings(Strings),
    /// An instruction on memory.
    Memory(Pending),
}

/// A guest used ports; `info` is what the CPU says of that, and where the next instruction is.
///
/// # Errors
/// Ends the domain for a string instruction that cannot be read, or whose memory is not there.
pub(super) fn access<M: Machine>(
    hv: &Hypervisor<M>,
    running: &mut Running,
    registers: &mut Registers,
    (info, next): (u64, u64),
) -> Result<(), Refusal> {
    const INPUT: u64 = 1;
    const STRING: u64 = 1 << 2;
    let access = Access { port: (info >> 16) as u16, size: (info >> 4 & 7) as u8, input: info & INPUT != 0 };
    if info & STRING != 0 {
        return string(hv, running, registers, access);
    }
    registers.rip = next;
    if let Some(block) = running.state.hvm.as_deref_mut() {
        block.interrupt_shadow = 0;
    }
    if let Some(data) = inside(hv, running, access, registers.rax) {
        put(registers, access, data);
        return Ok(());
    }
    let request = Ioreq { data: registers.rax & mask(access), count: 1, ..Ioreq::default() };
    match (ask(hv, running, access, request), running.state.assisted.as_deref_mut()) {
        (Some(server), Some(own)) => own.asked = Some(Asked { server, then: Then::Port(access) }),
        _ => put(registers, access, u32::MAX),
    }
    Ok(())
}

fn mask(access: Access) -> u64 {
    u64::MAX >> (64 - 8 * u64::from(access.size))
}

/// Does an access to a device inside; what was read, or none where there is no such device.
fn inside<M: Machine>(hv: &Hypervisor<M>, running: &Running, access: Access, data: u64) -> Option<u32> {
    let Access { port, size, input } = access;
    platform::with(hv, &running.vcpu.domain, |chipset, now, send| {
        if input {
            return chipset.read(port, size, now, send);
        }
        chipset.write(port, size, data as u32, now, send).then_some(0)
    })?
}

/// Asks the server that has these ports, if any; its number.
fn ask<M: Machine>(hv: &Hypervisor<M>, running: &Running, access: Access, request: Ioreq) -> Option<u16> {
    let hvm = running.vcpu.domain.hvm.as_ref()?;
    let Access { port, size, input } = access;
    if port == CONFIG_ADDRESS && size == 4 && !input && !request.data_is_ptr() {
        hvm.pci_address.store(request.data as u32, Ordering::Relaxed);
    }
    let (kind, range, addr, type_) = meant(hvm, port, size.into());
    let server = hvm.servers.lock().find(kind, range)?;
    let (is_ptr, down) = (request.data_is_ptr(), request.goes_down());
    let request = Ioreq { addr, size: size.into(), type_, ..request }.with_flags(input, is_ptr, down);
    ioreq::ask(hv, hvm, &running.vcpu, server, request).then_some(server)
}

/// What an access to a port means.
fn meant(hvm: &HvmDomain, port: u16, bytes: u64) -> (Kind, Range, u64, u8) {
    let address = hvm.pci_address.load(Ordering::Relaxed);
    if port & !3 == CONFIG_DATA && address & CONFIG_ON != 0 {
        let function = u64::from(address >> 8 & 0xffff);
        let offset = address & 0xfc | u32::from(port & 3);
        let range = Range { first: function, last: function };
        return (Kind::Configuration, range, function << 32 | u64::from(offset), IOREQ_TYPE_PCI_CONFIG);
    }
    let first = u64::from(port);
    (Kind::Ports, Range { first, last: first + bytes - 1 }, first, IOREQ_TYPE_PIO)
}

/// `ins`, `outs`, as far as one page of memory.
fn string<M: Machine>(
    hv: &Hypervisor<M>,
    running: &mut Running,
    registers: &mut Registers,
    access: Access,
) -> Result<(), Refusal> {
    let unknown = Refusal::crash(rule::STRING_IO).with(Evidence::Value(access.port.into()));
    let block = running.state.hvm.as_deref().ok_or(unknown)?;
    let is_long = block.is_long();
    if !is_long && block.cs.attributes & CODE_32 == 0 {
        return Err(unknown);
    }
    let fetched = walk::fetch(hv, running, exit::code_address(block, registers));
    let code = PortString::decode(fetched.bytes(), is_long).filter(|code| code.input == access.input).ok_or(unknown)?;
    let wanted = code.count(registers);
    if wanted == 0 {
        code.go_on(registers, access.size, 0);
        return Ok(());
    }
    let segment = if access.input { Segment::Es } else { code.segment };
    let at = mmio::linear(block, segment, code.place(registers));
    let how = How { write: access.input, user: mmio::is_user(running) };
    let physical = match walk::physical(hv, running, at, how) {
        Ok(physical) => physical,
        Err(miss) => return mmio::missed(running, miss),
    };
    let (size, offset, down) = (u64::from(access.size), physical % PAGE, registers.rflags & flags::DF != 0);
    let by_value = offset + size > PAGE;
    let room = if down { offset / size + 1 } else { (PAGE - offset) / size };
    let count = if by_value { 1 } else { wanted.min(room) };
    let strings = Strings { code, access, at, physical, count, down, by_value };
    start(hv, running, registers, strings)
}

fn start<M: Machine>(
    hv: &Hypervisor<M>,
    running: &mut Running,
    registers: &mut Registers,
    strings: Strings,
) -> Result<(), Refusal> {
    let Strings { access, at, physical, count, down, by_value, .. } = strings;
    let user = mmio::is_user(running);
    let data = if by_value && !access.input {
        match walk::load(hv, running, (at, access.size), user) {
            Ok(value) => value,
            Err(miss) => return mmio::missed(running, miss),
        }
    } else {
        physical
    };
    let request =
        Ioreq { data: if by_value && access.input { 0 } else { data }, count: count as u32, ..Ioreq::default() };
    let request = request.with_flags(access.input, !by_value, down);
    match (ask(hv, running, access, request), running.state.assisted.as_deref_mut()) {
        (Some(server), Some(own)) => {
            own.asked = Some(Asked { server, then: Then::Strings(strings) });
            Ok(())
        }
        _ => by_element(hv, running, registers, strings),
    }
}

/// Does the accesses of a string to a device inside, or to none.
fn by_element<M: Machine>(
    hv: &Hypervisor<M>,
    running: &mut Running,
    registers: &mut Registers,
    strings: Strings,
) -> Result<(), Refusal> {
    let Strings { code, access, at, count, down, .. } = strings;
    let (user, size) = (mmio::is_user(running), u64::from(access.size));
    for n in 0..count {
        let step = n * size;
        let here = (if down { at.wrapping_sub(step) } else { at.wrapping_add(step) }, access.size);
        let moved = if access.input {
            let data = inside(hv, running, access, 0).unwrap_or(u32::MAX);
            walk::store(hv, running, here, user, data.into())
        } else {
            walk::load(hv, running, here, user).map(|value| {
                let _ = inside(hv, running, access, value);
            })
        };
        if let Err(miss) = moved {
            code.go_on(registers, access.size, n);
            return mmio::missed(running, miss);
        }
    }
    code.go_on(registers, access.size, count);
    Ok(())
}

/// Takes the answer to what the vCPU asked, before it goes on; it may ask again.
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
        Some(answer) if answer.state() == STATE_IORESP_READY => answer.data,
        Some(answer) => return Err(Refusal::crash(rule::ANSWER).with(Evidence::Value(answer.state().into()))),
        None => u64::MAX,
    };
    match asked.then {
        Then::Port(access) => put(registers, access, data as u32),
        Then::Strings(strings) => return string_done(hv, running, registers, strings, data),
        Then::Memory(pending) => return mmio::answered(hv, running, registers, pending, data),
    }
    Ok(())
}

fn string_done<M: Machine>(
    hv: &Hypervisor<M>,
    running: &mut Running,
    registers: &mut Registers,
    strings: Strings,
    data: u64,
) -> Result<(), Refusal> {
    let Strings { code, access, at, count, by_value, .. } = strings;
    if by_value
        && access.input
        && let Err(miss) = walk::store(hv, running, (at, access.size), mmio::is_user(running), data)
    {
        return mmio::missed(running, miss);
    }
    code.go_on(registers, access.size, count);
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
