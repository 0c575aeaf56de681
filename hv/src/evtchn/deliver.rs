//! Making ports pending, and vCPUs look.

use alloc::sync::Arc;
use core::mem::offset_of;
use core::sync::atomic::Ordering;

use pv_abi::errno::Errno;
use pv_abi::xen::{NR_VIRQS, SharedInfo};
use pv_abi::{DomId, VcpuId};

use super::own;
use super::table::{State, out_of_range};
use crate::Hypervisor;
use crate::domain::{Domain, Vcpu};
use crate::hardware::Machine;
use crate::refusal::{Evidence, Refusal};
use crate::{rules, sched};

/// Word of `shared_info` where the pending bits start.
pub(super) const PENDING: usize = offset_of!(SharedInfo, evtchn_pending) / 8;
/// Word of `shared_info` where the mask bits start.
const MASK: usize = offset_of!(SharedInfo, evtchn_mask) / 8;
/// Word of `vcpu_info` that selects words of pending bits.
const SELECTOR: usize = 1;

/// Whether an event is pending for a vCPU that has not masked events.
///
/// Asked before every return to a guest: one word of `vcpu_info` holds both bytes, the mask in the upper.
#[inline]
#[must_use]
pub fn upcall_due<M: Machine>(hv: &Hypervisor<M>, vcpu: &Vcpu) -> bool {
    let (frame, offset) = vcpu.info_place();
    let both = hv.machine.read_word(frame, offset / 8) as u16;
    // The lower byte is not zero and the upper is.
    both.wrapping_sub(1) < 0xff
}

/// `EVTCHNOP_send`: makes the far end of a channel pending, or the port itself for an IPI. An event on an unbound port
/// is lost.
///
/// # Errors
/// `EINVAL` for any other port.
pub fn send<M: Machine>(hv: &Hypervisor<M>, domain: &Domain, port: u32) -> Result<(), Refusal> {
    if try_send(hv, domain, port) {
        return Ok(());
    }
    let events = domain.events.lock();
    events.channel(port).and_then(|channel| Err(not_sendable(port, &channel.state)))
}

/// [`send`]; false for a port on which nothing is sent.
#[inline]
pub(crate) fn try_send<M: Machine>(hv: &Hypervisor<M>, domain: &Domain, port: u32) -> bool {
    let events = domain.events.lock();
    let Some(channel) = events.get(port) else {
        return false;
    };
    if let State::Interdomain { domain, port, vcpu } = &channel.state {
        make_pending(hv, domain, *vcpu, *port);
        return true;
    }
    if let State::Ipi = channel.state {
        make_pending(hv, domain, channel.vcpu, port);
        return true;
    }
    own::send(hv, events, port)
}

#[cold]
fn not_sendable(port: u32, state: &State) -> Refusal {
    Refusal::errno(Errno::Inval, rules::evtchn::NOT_SENDABLE).with(Evidence::Port { port, state: state.name() })
}

/// Sets a port pending and tells `vcpu`, unless it was pending or is masked.
///
/// All that it calls it calls last, so that it saves no registers.
#[inline(never)]
pub(super) fn make_pending<M: Machine>(hv: &Hypervisor<M>, domain: &Domain, vcpu: u32, port: u32) {
    if domain.fifo.is_on() {
        return queue(hv, domain, vcpu, port);
    }
    let (shared, word, bit) = (domain.shared_info, port as usize / 64, port % 64);
    if hv.machine.fetch_or_word(shared, PENDING + word, 1 << bit) >> bit & 1 != 0 {
        return;
    }
    let is_masked = hv.machine.read_word(shared, MASK + word) >> bit & 1 != 0;
    let vcpu = if is_masked { None } else { select(hv, domain, vcpu, word) };
    if vcpu.is_some() || domain.polling.load(Ordering::SeqCst) != 0 {
        tell(hv, domain, vcpu, port);
    }
}

/// [`make_pending`] in the FIFO ABI.
#[inline(never)]
fn queue<M: Machine>(hv: &Hypervisor<M>, domain: &Domain, vcpu: u32, port: u32) {
    let Some(outcome) = domain.fifo.queues().map(|mut queues| queues.set_pending(&hv.machine, vcpu, port)) else {
        return;
    };
    let vcpu = if outcome.is_ready { raise_upcall(hv, domain, vcpu) } else { None };
    if outcome.is_new {
        tell(hv, domain, vcpu, port);
    } else if let Some(vcpu) = vcpu {
        sched::notify(hv, vcpu);
    }
}

/// Tells a vCPU that an upcall is due, and those who poll the port. Apart, so that a port that is masked costs no more
/// than its bit.
#[inline(never)]
fn tell<M: Machine>(hv: &Hypervisor<M>, domain: &Domain, vcpu: Option<&Arc<Vcpu>>, port: u32) {
    if let Some(vcpu) = vcpu {
        sched::notify(hv, vcpu);
    }
    if domain.polling.load(Ordering::SeqCst) != 0 {
        sched::wake_pollers(hv, domain, port);
    }
}

/// Makes a vCPU's upcall pending; the vCPU, where it was not.
#[inline]
fn raise_upcall<'a, M: Machine>(hv: &Hypervisor<M>, domain: &'a Domain, vcpu: u32) -> Option<&'a Arc<Vcpu>> {
    let vcpu = domain.vcpu(VcpuId(vcpu))?;
    let (frame, offset) = vcpu.info_place();
    (hv.machine.fetch_or_word(frame, offset / 8, 1) & 1 == 0).then_some(vcpu)
}

/// Makes a vCPU look at a word of pending bits; the vCPU, where its upcall was not pending.
#[inline]
fn select<'a, M: Machine>(hv: &Hypervisor<M>, domain: &'a Domain, vcpu: u32, word: usize) -> Option<&'a Arc<Vcpu>> {
    let vcpu = domain.vcpu(VcpuId(vcpu))?;
    let (frame, offset) = vcpu.info_place();
    let selected = hv.machine.fetch_or_word(frame, offset / 8 + SELECTOR, 1 << word);
    let is_first = selected & 1 << word == 0 && hv.machine.fetch_or_word(frame, offset / 8, 1) & 1 == 0;
    is_first.then_some(vcpu)
}

/// Makes a vCPU look at everything: after its `vcpu_info` moved, nothing may be lost.
pub fn select_everything<M: Machine>(hv: &Hypervisor<M>, vcpu: &Vcpu) {
    let (frame, offset) = vcpu.info_place();
    hv.machine.fetch_or_word(frame, offset / 8 + SELECTOR, u64::MAX);
    hv.machine.fetch_or_word(frame, offset / 8, 1);
    sched::notify(hv, vcpu);
}

/// Makes a pending port not pending: it is about to be something else.
pub(super) fn clear_pending<M: Machine>(hv: &Hypervisor<M>, domain: &Domain, port: u32) {
    match domain.fifo.queues() {
        Some(mut queues) => queues.clear_pending(&hv.machine, port),
        None => clear_pending_bit(hv, domain, port),
    }
}

/// [`clear_pending`] in the 2-level ABI.
#[inline]
pub(super) fn clear_pending_bit<M: Machine>(hv: &Hypervisor<M>, domain: &Domain, port: u32) {
    hv.machine.fetch_and_word(domain.shared_info, PENDING + port as usize / 64, !(1 << (port % 64)));
}

/// Whether a port is pending.
///
/// # Errors
/// `EINVAL` where the domain has no such port.
pub fn is_pending<M: Machine>(hv: &Hypervisor<M>, domain: &Domain, port: u32) -> Result<bool, Refusal> {
    if port >= domain.events.lock().size() {
        return Err(out_of_range(port));
    }
    if let Some(queues) = domain.fifo.queues() {
        return Ok(queues.is_pending(&hv.machine, port));
    }
    Ok(hv.machine.read_word(domain.shared_info, PENDING + port as usize / 64) >> (port % 64) & 1 != 0)
}

/// `EVTCHNOP_unmask`: takes a port's mask away; what was pending meanwhile is delivered.
///
/// # Errors
/// `EINVAL` where the domain has no such port.
pub fn unmask<M: Machine>(hv: &Hypervisor<M>, domain: &Domain, port: u32) -> Result<(), Refusal> {
    let events = domain.events.lock();
    let vcpu = events.channel(port)?.vcpu;
    if let Some(mut queues) = domain.fifo.queues() {
        let is_ready = queues.unmask(&hv.machine, vcpu, port);
        drop(queues);
        if is_ready && let Some(vcpu) = raise_upcall(hv, domain, vcpu) {
            sched::notify(hv, vcpu);
        }
        return Ok(());
    }
    let (word, bit) = (port as usize / 64, 1 << (port % 64));
    let was_masked = hv.machine.fetch_and_word(domain.shared_info, MASK + word, !bit) & bit != 0;
    if was_masked
        && hv.machine.read_word(domain.shared_info, PENDING + word) & bit != 0
        && let Some(vcpu) = select(hv, domain, vcpu, word)
    {
        sched::notify(hv, vcpu);
    }
    Ok(())
}

/// Sets a port of a domain pending, whatever it is; nothing where it is closed.
pub fn set_pending<M: Machine>(hv: &Hypervisor<M>, domain: &Domain, port: u32) {
    let events = domain.events.lock();
    if let Some(channel) = events.get(port)
        && !matches!(channel.state, State::Free | State::Reserved)
    {
        make_pending(hv, domain, channel.vcpu, port);
    }
}

/// Raises a virtual interrupt of one vCPU; nothing where it has not bound it.
pub fn raise_virq<M: Machine>(hv: &Hypervisor<M>, vcpu: &Vcpu, virq: u32) {
    debug_assert!(virq < NR_VIRQS, "a virtual interrupt that does not exist");
    let domain = &*vcpu.domain;
    let events = domain.events.lock();
    let port = events.virq_port(vcpu.id.0, virq);
    if port != 0
        && let Some(channel) = events.get(port)
    {
        make_pending(hv, domain, channel.vcpu, port);
    }
}

/// Raises a virtual interrupt that is for the whole machine: dom0 gets it.
pub fn raise_global_virq<M: Machine>(hv: &Hypervisor<M>, virq: u32) {
    if let Some(dom0) = hv.domains.get(DomId::DOM0)
        && let Some(vcpu) = dom0.vcpu(VcpuId(0))
    {
        raise_virq(hv, vcpu, virq);
    }
}
