//! Opening and closing ports.

use alloc::sync::Arc;

use pv_abi::errno::Errno;
use pv_abi::event_channel::{
    BIND_PIRQ_WILL_SHARE, EVTCHNSTAT_CLOSED, EVTCHNSTAT_INTERDOMAIN, EVTCHNSTAT_IPI, EVTCHNSTAT_PIRQ,
    EVTCHNSTAT_UNBOUND, EVTCHNSTAT_VIRQ, EvtchnStatus,
};
use pv_abi::xen::{NR_VIRQS, VIRQ_DEBUG, VIRQ_TIMER, VIRQ_XENOPROF, VIRQ_XENPMU};
use pv_abi::{DomId, VcpuId};
use spin::MutexGuard;

use super::deliver::{clear_pending, clear_pending_bit, make_pending};
use super::fifo_control;
use super::own;
use super::table::{CHUNK, Channel, EventChannels, State, out_of_range};
use crate::Hypervisor;
use crate::control::physdev;
use crate::domain::Domain;
use crate::hardware::Machine;
use crate::refusal::{Evidence, Refusal};
use crate::rules;

/// The event channels of two domains, which may be the same, locked in the order of their numbers.
pub(super) struct Pair<'a> {
    lower: MutexGuard<'a, EventChannels>,
    higher: Option<MutexGuard<'a, EventChannels>>,
    first_is_lower: bool,
}

impl<'a> Pair<'a> {
    pub(super) fn lock(first: &'a Domain, second: &'a Domain) -> Self {
        let first_is_lower = first.id <= second.id;
        let (lower, higher) = if first_is_lower { (first, second) } else { (second, first) };
        let guard = lower.events.lock();
        Self { lower: guard, higher: (first.id != second.id).then(|| higher.events.lock()), first_is_lower }
    }

    pub(super) fn first(&mut self) -> &mut EventChannels {
        match &mut self.higher {
            Some(higher) if !self.first_is_lower => higher,
            _ => &mut self.lower,
        }
    }

    pub(super) fn second(&mut self) -> &mut EventChannels {
        match &mut self.higher {
            Some(higher) if self.first_is_lower => higher,
            _ => &mut self.lower,
        }
    }
}

/// `EVTCHNOP_alloc_unbound`: a new port of `domain` that `remote` may bind.
///
/// # Errors
/// `ENOSPC`, `ENOMEM`.
pub fn alloc_unbound<M: Machine>(hv: &Hypervisor<M>, domain: &Domain, remote: DomId) -> Result<u32, Refusal> {
    domain.events.lock().allocate(hv, domain, State::Unbound { remote }, 0)
}

/// `EVTCHNOP_bind_interdomain`: a new port of `local` whose far end is `remote_port`, which must have been offered to it.
/// The new port is pending at once: an event may have been lost before it was bound.
///
/// # Errors
/// `EINVAL` where the remote port was not offered; `ENOSPC`, `ENOMEM`.
pub fn bind_interdomain<M: Machine>(
    hv: &Hypervisor<M>,
    local: &Arc<Domain>,
    remote: &Arc<Domain>,
    remote_port: u32,
) -> Result<u32, Refusal> {
    let mut pair = Pair::lock(local, remote);
    let offered = pair.second().channel(remote_port)?;
    let remote_vcpu = offered.vcpu;
    if own::is_offered(&offered.state, local.id) {
        return own::bind(hv, local, remote, remote_port, &mut pair);
    }
    if !matches!(offered.state, State::Unbound { remote } if remote == local.id) {
        let evidence = Evidence::Port { port: remote_port, state: offered.state.name() };
        return Err(Refusal::errno(Errno::Inval, rules::evtchn::NOT_OFFERED).with(evidence));
    }
    let near_end = State::Interdomain { domain: remote.clone(), port: remote_port, vcpu: remote_vcpu };
    let port = pair.first().allocate(hv, local, near_end, 0)?;
    if let Some(far) = pair.second().get_mut(remote_port) {
        far.state = State::Interdomain { domain: local.clone(), port, vcpu: 0 };
    }
    make_pending(hv, local, 0, port);
    Ok(port)
}

/// Whether a virtual interrupt is the machine's rather than a vCPU's (Xen: `public/xen.h`, the list of VIRQs).
const fn is_global(virq: u32) -> bool {
    !matches!(virq, VIRQ_TIMER | VIRQ_DEBUG | VIRQ_XENOPROF | VIRQ_XENPMU)
}

/// `EVTCHNOP_bind_virq`: a new port of `domain` for a virtual interrupt.
///
/// # Errors
/// `EINVAL` where there is no such interrupt, or it is global and the vCPU is not 0; `ENOENT` where there is no such
/// vCPU; `EEXIST` where it is bound; `ENOSPC`, `ENOMEM`.
pub fn bind_virq<M: Machine>(hv: &Hypervisor<M>, domain: &Domain, virq: u32, vcpu: u32) -> Result<u32, Refusal> {
    if virq >= NR_VIRQS {
        let evidence = Evidence::Limit { asked: virq.into(), limit: u64::from(NR_VIRQS) - 1 };
        return Err(Refusal::errno(Errno::Inval, rules::evtchn::VIRQ_RANGE).with(evidence));
    }
    if is_global(virq) && vcpu != 0 {
        return Err(Refusal::errno(Errno::Inval, rules::evtchn::GLOBAL_VIRQ_VCPU).with(Evidence::Value(vcpu.into())));
    }
    existing_vcpu(domain, vcpu)?;
    let mut events = domain.events.lock();
    let bound = events.virq_port(vcpu, virq);
    if bound != 0 {
        let evidence = Evidence::Port { port: bound, state: "virtual interrupt" };
        return Err(Refusal::errno(Errno::Exist, rules::evtchn::VIRQ_BOUND).with(evidence));
    }
    let port = events.allocate(hv, domain, State::Virq(virq), vcpu)?;
    events.set_virq_port(vcpu, virq, port);
    Ok(port)
}

/// `EVTCHNOP_bind_ipi`: a new port of `domain` that notifies one of its vCPUs when any of them sends.
///
/// # Errors
/// `ENOENT` where there is no such vCPU; `ENOSPC`, `ENOMEM`.
pub fn bind_ipi<M: Machine>(hv: &Hypervisor<M>, domain: &Domain, vcpu: u32) -> Result<u32, Refusal> {
    existing_vcpu(domain, vcpu)?;
    domain.events.lock().allocate(hv, domain, State::Ipi, vcpu)
}

/// `EVTCHNOP_bind_pirq`: a new port of `domain` for a physical interrupt.
///
/// # Errors
/// Those of [`physdev::bind`] (`EINVAL`, `EPERM`, `EEXIST`, `EBUSY`); `ENOSPC`, `ENOMEM`.
pub fn bind_pirq<M: Machine>(hv: &Hypervisor<M>, domain: &Domain, pirq: u32, flags: u32) -> Result<u32, Refusal> {
    let port = domain.events.lock().allocate(hv, domain, State::Pirq(pirq), 0)?;
    let bound = physdev::bind(hv, domain, pirq, port, flags & BIND_PIRQ_WILL_SHARE != 0);
    bound.map(|()| port).inspect_err(|_| {
        domain.events.lock().free(port);
    })
}

/// `EVTCHNOP_bind_vcpu`: lets a port notify another vCPU.
///
/// # Errors
/// `ENOENT` where there is no such vCPU; `EINVAL` where there is no such port or it cannot be moved.
pub fn bind_vcpu(domain: &Domain, port: u32, vcpu: u32) -> Result<(), Refusal> {
    existing_vcpu(domain, vcpu)?;
    let mut events = domain.events.lock();
    let channel = events.get_mut(port).ok_or_else(|| out_of_range(port))?;
    let far = match &channel.state {
        State::Interdomain { domain, .. } => domain.clone(),
        State::Unbound { .. } | State::Pirq(_) | State::Own(own::End::Answers { .. }) => {
            channel.vcpu = vcpu;
            return Ok(());
        }
        State::Virq(virq) if is_global(*virq) => {
            channel.vcpu = vcpu;
            return Ok(());
        }
        other => {
            let evidence = Evidence::Port { port, state: other.name() };
            return Err(Refusal::errno(Errno::Inval, rules::evtchn::VCPU_FIXED).with(evidence));
        }
    };
    drop(events);
    move_interdomain(domain, &far, port, vcpu);
    Ok(())
}

/// Lets an interdomain port notify another vCPU, and tells the far end, unless it was closed meanwhile.
fn move_interdomain(domain: &Domain, far: &Arc<Domain>, port: u32, to: u32) {
    let mut pair = Pair::lock(domain, far);
    let Some(Channel { state: State::Interdomain { domain: now, port: far_port, .. }, vcpu }) =
        pair.first().get_mut(port)
    else {
        return;
    };
    if !Arc::ptr_eq(now, far) {
        return;
    }
    *vcpu = to;
    let far_port = *far_port;
    if let Some(Channel { state: State::Interdomain { vcpu, .. }, .. }) = pair.second().get_mut(far_port) {
        *vcpu = to;
    }
}

/// `EVTCHNOP_status`: what a port is.
///
/// # Errors
/// `EINVAL` where there is no such port.
pub fn status(domain: &Domain, answer: &mut EvtchnStatus) -> Result<(), Refusal> {
    let events = domain.events.lock();
    let channel = events.channel(answer.port)?;
    answer.vcpu = channel.vcpu;
    answer.status = match &channel.state {
        State::Free | State::Reserved => EVTCHNSTAT_CLOSED,
        State::Unbound { remote } => {
            answer.u[0] = remote.0.into();
            EVTCHNSTAT_UNBOUND
        }
        State::Interdomain { domain, port, .. } => {
            answer.u = [domain.id.0.into(), *port];
            EVTCHNSTAT_INTERDOMAIN
        }
        State::Pirq(pirq) => {
            answer.u[0] = *pirq;
            EVTCHNSTAT_PIRQ
        }
        State::Virq(virq) => {
            answer.u[0] = *virq;
            EVTCHNSTAT_VIRQ
        }
        State::Ipi => EVTCHNSTAT_IPI,
        State::Own(end) => end.status(answer),
    };
    Ok(())
}

/// `EVTCHNOP_close`: makes a port free. The far end of a channel becomes unbound, for the same domain to bind again.
///
/// # Errors
/// `EINVAL` where the port is not open.
#[inline]
pub fn close<M: Machine>(hv: &Hypervisor<M>, domain: &Domain, port: u32) -> Result<(), Refusal> {
    let mut events = domain.events.lock();
    if events.free_if_alone(port) {
        clear_pending_bit(hv, domain, port);
        return Ok(());
    }
    drop(events);
    close_connected(hv, domain, port)
}

/// Closes a port that something else knows too.
#[inline(never)]
fn close_connected<M: Machine>(hv: &Hypervisor<M>, domain: &Domain, port: u32) -> Result<(), Refusal> {
    loop {
        let mut events = domain.events.lock();
        let channel = events.channel(port)?;
        match &channel.state {
            State::Free | State::Reserved => {
                let evidence = Evidence::Port { port, state: channel.state.name() };
                return Err(Refusal::errno(Errno::Inval, rules::evtchn::NOT_OPEN).with(evidence));
            }
            State::Interdomain { domain: far, .. } => {
                let far = far.clone();
                drop(events);
                if close_interdomain(hv, domain, &far, port) {
                    return Ok(());
                }
            }
            State::Own(_) => {
                if own::close(hv, (domain, events), port)? {
                    return Ok(());
                }
            }
            _ => {
                let was = events.free(port);
                if let State::Virq(virq) = was {
                    events.forget_virq(virq, port);
                }
                clear_pending(hv, domain, port);
                drop(events);
                if let State::Pirq(pirq) = was {
                    physdev::unbind(hv, domain, pirq);
                }
                return Ok(());
            }
        }
    }
}

/// Closes one end of a channel whose other end is in `far`; `false` where that has changed meanwhile.
fn close_interdomain<M: Machine>(hv: &Hypervisor<M>, domain: &Domain, far: &Arc<Domain>, port: u32) -> bool {
    let mut pair = Pair::lock(domain, far);
    let far_port = match pair.first().get(port) {
        Some(Channel { state: State::Interdomain { domain: now, port, .. }, .. }) if Arc::ptr_eq(now, far) => *port,
        _ => return false,
    };
    let near_end = pair.first().free(port);
    let far_end = pair
        .second()
        .get_mut(far_port)
        .map(|channel| core::mem::replace(&mut channel.state, State::Unbound { remote: domain.id }));
    clear_pending(hv, domain, port);
    drop(pair);
    // The last of these may be the last to know a domain: it goes away with no lock held.
    drop((near_end, far_end));
    true
}

/// Closes up to 64 of a domain's ports and goes on from there when called again; `true` when none is left.
pub fn close_some<M: Machine>(hv: &Hypervisor<M>, domain: &Domain) -> bool {
    let (first, size) = {
        let mut events = domain.events.lock();
        let first = events.next_to_close;
        let size = events.size();
        let next = first + CHUNK as u32;
        events.next_to_close = if next < size { next } else { 0 };
        (first, size)
    };
    let end = (first + CHUNK as u32).min(size);
    for port in first..end {
        let _ = close(hv, domain, port);
    }
    end == size
}

/// Closes up to 64 ports of a domain that is being taken apart; `true` when none is left, nor a page of its queues.
pub fn relinquish<M: Machine>(hv: &Hypervisor<M>, domain: &Domain) -> bool {
    close_some(hv, domain) && fifo_control::leave(hv, domain).is_ok()
}

/// Closes all of a domain's ports.
pub fn close_all<M: Machine>(hv: &Hypervisor<M>, domain: &Domain) {
    while !close_some(hv, domain) {}
}

pub(super) fn existing_vcpu(domain: &Domain, vcpu: u32) -> Result<(), Refusal> {
    if domain.vcpu(VcpuId(vcpu)).is_some() {
        return Ok(());
    }
    Err(Refusal::errno(Errno::NoEnt, rules::evtchn::NO_SUCH_VCPU).with(Evidence::Value(vcpu.into())))
}
