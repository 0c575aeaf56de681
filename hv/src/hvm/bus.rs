//! Addresses that have no memory: the registers of devices inside, and requests to device models for all others.
//!
//! Source: Intel SDM 3 §10.4.1; Intel 82093AA data sheet; Xen: public/hvm/ioreq.h (`IOREQ_TYPE_COPY`).

use pv_abi::hvm::ioreq::{IOREQ_TYPE_COPY, Ioreq};

use super::ioreq::{self, Kind, Range};
use super::{apic, platform};
use crate::Hypervisor;
use crate::domain::Running;
use crate::hardware::Machine;
use crate::refusal::{Evidence, Refusal};
use crate::rules::hvm as rule;

/// Bytes of the local APIC's page.
const APIC_BYTES: u64 = 0x1000;

/// What an access comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// It is done; what was read.
    Now(u64),
    /// This server is asked.
    Asked(u16),
}

/// Whose registers are at an address.
enum Owner {
    Apic(u32),
    IoApic(u16),
    Server(u16),
    Nobody,
}

fn owner(running: &Running, physical: u64, bytes: u8) -> Result<Owner, Refusal> {
    let domain = &running.vcpu.domain;
    let in_memory = running.state.assisted.as_deref().is_some_and(|own| own.apic.is_in_memory());
    if in_memory && (apic::PLACE..apic::PLACE + APIC_BYTES).contains(&physical) {
        return Ok(Owner::Apic((physical - apic::PLACE) as u32));
    }
    if let Some(offset) = platform::ioapic_offset(domain, physical) {
        return Ok(Owner::IoApic(offset));
    }
    let last = physical.saturating_add(u64::from(bytes) - 1);
    let range = Range { first: physical, last };
    match domain.hvm.as_ref().and_then(|hvm| hvm.servers.lock().find(Kind::Memory, range)) {
        Some(server) => Ok(Owner::Server(server)),
        None if platform::is_whole(domain) => Ok(Owner::Nobody),
        None => Err(Refusal::crash(rule::NOTHING_THERE).with(Evidence::Value(physical))),
    }
}

/// Refuses an address that nobody emulates, where that does not float.
pub(super) fn check(running: &Running, physical: u64) -> Result<(), Refusal> {
    owner(running, physical, 1).map(drop)
}

/// Refuses what is not within one register of four bytes.
fn within(physical: u64, bytes: u8) -> Result<(), Refusal> {
    if physical % 4 + u64::from(bytes) <= 4 {
        return Ok(());
    }
    Err(Refusal::crash(rule::APIC_INSTRUCTION).with(Evidence::Value(physical)))
}

/// Reads.
///
/// # Errors
/// Ends a domain without a chipset where nothing is there, and any for more than a register of an APIC.
pub(super) fn read<M: Machine>(
    hv: &Hypervisor<M>,
    running: &mut Running,
    physical: u64,
    bytes: u8,
) -> Result<Outcome, Refusal> {
    let part = |register: u32| {
        within(physical, bytes)?;
        Ok(Outcome::Now(u64::from(register) >> (physical % 4 * 8)))
    };
    match owner(running, physical, bytes)? {
        // A register that there is not reads as 0.
        Owner::Apic(offset) => part(apic::read(hv, running, offset & !3).unwrap_or(0)),
        Owner::IoApic(offset) => {
            let domain = &running.vcpu.domain;
            part(platform::with(hv, domain, |chipset, _, _| chipset.ioapic().read(offset & !3)).unwrap_or(0))
        }
        Owner::Server(server) => Ok(ask(hv, running, server, (physical, bytes), None)),
        Owner::Nobody => Ok(Outcome::Now(u64::MAX)),
    }
}

/// Writes.
///
/// # Errors
/// As [`read`]; also for a part of a register of an APIC.
pub(super) fn write<M: Machine>(
    hv: &Hypervisor<M>,
    running: &mut Running,
    physical: u64,
    bytes: u8,
    value: u64,
) -> Result<Outcome, Refusal> {
    match owner(running, physical, bytes)? {
        Owner::Apic(_) | Owner::IoApic(_) if bytes != 4 => {
            return Err(Refusal::crash(rule::APIC_INSTRUCTION).with(Evidence::Value(physical)));
        }
        Owner::Apic(offset) => {
            within(physical, bytes)?;
            // What is written to a register that there is not is lost.
            let _ = apic::write(hv, running, offset, value as u32);
        }
        Owner::IoApic(offset) => {
            within(physical, bytes)?;
            let domain = &running.vcpu.domain;
            platform::with(hv, domain, |chipset, _, send| chipset.ioapic().write(offset, value as u32, send));
        }
        Owner::Server(server) => return Ok(ask(hv, running, server, (physical, bytes), Some(value))),
        Owner::Nobody => {}
    }
    Ok(Outcome::Now(0))
}

fn ask<M: Machine>(
    hv: &Hypervisor<M>,
    running: &Running,
    server: u16,
    (addr, bytes): (u64, u8),
    value: Option<u64>,
) -> Outcome {
    let data = value.unwrap_or(0) & (u64::MAX >> (64 - 8 * u32::from(bytes)));
    let request = Ioreq { addr, data, count: 1, size: bytes.into(), type_: IOREQ_TYPE_COPY, ..Ioreq::default() };
    let request = request.with_flags(value.is_none(), false, false);
    let hvm = running.vcpu.domain.hvm.as_ref();
    match hvm.filter(|hvm| ioreq::ask(hv, hvm, &running.vcpu, server, request)) {
        Some(_) => Outcome::Asked(server),
        None => Outcome::Now(u64::MAX),
    }
}
