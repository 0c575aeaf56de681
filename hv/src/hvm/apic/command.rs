//! The interrupt command register: interrupts to other vCPUs, and how they are started.
//!
//! Source: Intel SDM 3 §10.6, §10.12.9, §8.4 (INIT, start-up).

use alloc::sync::Arc;
use core::sync::atomic::Ordering;

use super::{FIRST_VECTOR, Inbox, Parts, identifier, parts, request, x2apic_logical};
use crate::domain::{Domain, Running, Vcpu, stopped};
use crate::hardware::Machine;
use crate::hvm::asid::Tag;
use crate::hvm::devices::ioapic::Message;
use crate::hvm::{Vmcb, vmcb};
use crate::registers::Registers;
use crate::{Hypervisor, sched};

/// Delivery modes.
mod mode {
    pub(super) const LOWEST: u64 = 1;
    pub(super) const NMI: u64 = 4;
    pub(super) const INIT: u64 = 5;
    pub(super) const START: u64 = 6;
}

/// The interrupt is a level's.
const LEVEL: u64 = 1 << 15;

/// Writes the whole register, as x2APIC mode has it.
pub(in crate::hvm) fn write_command<M: Machine>(hv: &Hypervisor<M>, running: &mut Running, command: u64) {
    if let Some(Parts { vcpu, inbox, apic }) = parts(running) {
        apic.command = command;
        write(hv, vcpu, inbox, command, true);
    }
}

/// Carries out what a vCPU wrote: only devices request levels.
pub(super) fn write<M: Machine>(hv: &Hypervisor<M>, from: &Arc<Vcpu>, own: &Inbox, command: u64, x2apic: bool) {
    carry_out(hv, from, own, command & !LEVEL, x2apic);
}

/// Sends a message of a device, by the address and the data that say to whom and what (Intel SDM 3 §10.11).
pub(in crate::hvm) fn message<M: Machine>(hv: &Hypervisor<M>, domain: &Domain, address: u64, data: u32) {
    let (destination, logical) = (address >> 12 & 0xff, address >> 2 & 1);
    from_device(hv, domain, destination << 56 | logical << 11 | u64::from(data & 0x7ff));
}

/// Sends a message of the I/O APIC.
pub(in crate::hvm) fn send<M: Machine>(hv: &Hypervisor<M>, domain: &Domain, message: Message) {
    let Message { vector, mode, logical, destination, level } = message;
    let command = u64::from(destination) << 56 | u64::from(logical) << 11 | u64::from(mode) << 8 | u64::from(vector);
    from_device(hv, domain, command | if level { LEVEL } else { 0 });
}

fn from_device<M: Machine>(hv: &Hypervisor<M>, domain: &Domain, command: u64) {
    let first = domain.vcpus.get().and_then(|vcpus| vcpus.first());
    if let Some((first, own)) = first.and_then(|first| Some((first, first.inbox.as_deref()?))) {
        carry_out(hv, first, own, command, false);
    }
}

/// Whether a destination means a vCPU.
fn means(inbox: &Inbox, vcpu: u32, command: u64, x2apic: bool) -> bool {
    const LOGICAL: u64 = 1 << 11;
    let (destination, everybody) =
        if x2apic { ((command >> 32) as u32, u32::MAX) } else { ((command >> 56) as u32, 0xff) };
    if destination == everybody {
        return true;
    }
    if command & LOGICAL == 0 {
        return destination == identifier(vcpu);
    }
    if x2apic {
        let own = x2apic_logical(vcpu);
        return own >> 16 == destination >> 16 && own & destination & 0xffff != 0;
    }
    let own = inbox.logical.load(Ordering::Relaxed) >> 24;
    if inbox.is_cluster.load(Ordering::Relaxed) {
        own >> 4 == destination >> 4 && own & destination & 15 != 0
    } else {
        own & destination != 0
    }
}

/// Carries a command out.
fn carry_out<M: Machine>(hv: &Hypervisor<M>, from: &Arc<Vcpu>, own: &Inbox, command: u64, x2apic: bool) {
    let (vector, mode, shorthand) = (command as u8, command >> 8 & 7, command >> 18 & 3);
    if shorthand == 1 {
        return deliver(hv, (from, from, own), mode, vector, command);
    }
    for vcpu in from.domain.vcpus.get().into_iter().flatten() {
        let Some(inbox) = vcpu.inbox.as_deref() else {
            continue;
        };
        let chosen = match shorthand {
            2 => true,
            3 => !Arc::ptr_eq(vcpu, from),
            _ => means(inbox, vcpu.id.0, command, x2apic),
        };
        if chosen {
            deliver(hv, (from, vcpu, inbox), mode, vector, command);
        }
        if chosen && mode == mode::LOWEST {
            return;
        }
    }
}

fn deliver<M: Machine>(
    hv: &Hypervisor<M>,
    (from, to, inbox): (&Arc<Vcpu>, &Arc<Vcpu>, &Inbox),
    mode: u64,
    vector: u8,
    command: u64,
) {
    /// For INIT: "assert", where its absence with this bit clear is the older "de-assert", which does nothing.
    const ASSERT: u64 = 1 << 14;
    match mode {
        0 | mode::LOWEST if vector >= FIRST_VECTOR => {
            inbox.set_level(vector, command & LEVEL != 0);
            request(hv, to, inbox, vector);
        }
        mode::NMI => sched::kick_for_nmi(hv, to),
        mode::INIT if command & ASSERT != 0 && !Arc::ptr_eq(from, to) => {
            to.stopped.fetch_or(stopped::DOWN, Ordering::SeqCst);
            inbox.clear();
            inbox.waits.store(true, Ordering::SeqCst);
            sched::interrupt(hv, to);
        }
        mode::START if inbox.waits.swap(false, Ordering::SeqCst) => start(hv, to, vector),
        _ => {}
    }
}

/// Starts a vCPU that was reset, in real mode at page `page`. It is left as it is while a CPU still has its state, which the
/// one that reset it was told to put down: whoever starts it asks twice.
fn start<M: Machine>(hv: &Hypervisor<M>, vcpu: &Arc<Vcpu>, page: u8) {
    let mut slot = vcpu.state.lock();
    let Some(state) = slot.as_deref_mut() else {
        if let Some(inbox) = vcpu.inbox.as_deref() {
            inbox.waits.store(true, Ordering::SeqCst);
        }
        return;
    };
    let Some(block) = state.hvm.as_deref_mut() else {
        return;
    };
    *block = Vmcb::new(block.nested_root);
    block.cs = vmcb::Segment { selector: u16::from(page) << 8, base: u64::from(page) << 12, ..block.cs };
    if let Some(own) = state.assisted.as_deref_mut() {
        own.apic.reset(vcpu.id.0);
        own.tag = Tag::default();
    }
    state.registers = Registers {
        rip: 0,
        rflags: crate::registers::flags::ALWAYS,
        entry_vector: crate::registers::ENTRY_ASSISTED,
        ..Registers::default()
    };
    drop(slot);
    vcpu.initialised.store(true, Ordering::Release);
    if vcpu.stopped.fetch_and(!stopped::DOWN, Ordering::SeqCst) & stopped::DOWN != 0 {
        sched::wake(hv, vcpu);
    }
}
