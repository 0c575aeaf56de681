//! Channels with the hypervisor at one end: it asks, another domain answers.
//!
//! The port is one of the domain that the question is about, but not its to close or send on; whom it is offered to binds
//! it as any other. Xen: `alloc_unbound_xen_event_channel` (a port with a consumer in Xen).

use alloc::sync::Arc;

use pv_abi::DomId;
use pv_abi::errno::Errno;
use pv_abi::event_channel::{EVTCHNSTAT_INTERDOMAIN, EVTCHNSTAT_UNBOUND, EvtchnStatus};
use spin::MutexGuard;

use super::bind::Pair;
use super::deliver::{clear_pending, make_pending, set_pending};
use super::table::{Channel, EventChannels, State};
use crate::domain::Domain;
use crate::hardware::Machine;
use crate::refusal::{Evidence, Refusal};
use crate::{Hypervisor, hvm, rules};

/// An end of such a channel.
#[derive(Clone)]
pub enum End {
    /// The hypervisor's own, by which it asks a domain.
    Asks {
        /// Who may bind it.
        remote: DomId,
        /// Who has, and its port.
        far: Option<(Arc<Domain>, u32)>,
    },
    /// The far end of such a port.
    Answers {
        /// The domain that the questions are about.
        domain: Arc<Domain>,
        /// The port by which they come.
        port: u32,
    },
}

impl End {
    /// Its name in logs.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Asks { .. } => "the hypervisor's",
            Self::Answers { .. } => "to the hypervisor",
        }
    }

    /// What `EVTCHNOP_status` says of it.
    pub(super) fn status(&self, answer: &mut EvtchnStatus) -> u32 {
        match self {
            Self::Asks { remote, far: None } => {
                answer.u[0] = remote.0.into();
                EVTCHNSTAT_UNBOUND
            }
            Self::Asks { far: Some((domain, port)), .. } | Self::Answers { domain, port } => {
                answer.u = [domain.id.0.into(), *port];
                EVTCHNSTAT_INTERDOMAIN
            }
        }
    }
}

/// A new port of `domain` by which the hypervisor asks `remote`, for one of its vCPUs.
///
/// # Errors
/// `ENOSPC`, `ENOMEM`.
pub(crate) fn open<M: Machine>(hv: &Hypervisor<M>, domain: &Domain, remote: DomId, vcpu: u32) -> Result<u32, Refusal> {
    domain.events.lock().allocate(hv, domain, State::Own(End::Asks { remote, far: None }), vcpu)
}

/// Notifies whoever has bound a port of [`open`].
pub(crate) fn ask<M: Machine>(hv: &Hypervisor<M>, domain: &Domain, port: u32) {
    let far = match domain.events.lock().get(port) {
        Some(Channel { state: State::Own(End::Asks { far, .. }), .. }) => far.clone(),
        _ => None,
    };
    if let Some((far, port)) = far {
        set_pending(hv, &far, port);
    }
}

/// Ends a port of [`open`]; its far end is unbound then.
pub(crate) fn end<M: Machine>(hv: &Hypervisor<M>, domain: &Domain, port: u32) {
    let far = match domain.events.lock().get(port) {
        Some(Channel { state: State::Own(End::Asks { far, .. }), .. }) => far.clone(),
        _ => return,
    };
    let ended = match &far {
        None => (domain.events.lock().free(port), None),
        Some((far, far_port)) => {
            let mut pair = Pair::lock(domain, far);
            let own = pair.first().free(port);
            let answers = |channel: &&mut Channel| matches!(channel.state, State::Own(End::Answers { .. }));
            let other = pair.second().get_mut(*far_port).filter(answers);
            let unbound = State::Unbound { remote: domain.id };
            (own, other.map(|channel| core::mem::replace(&mut channel.state, unbound)))
        }
    };
    clear_pending(hv, domain, port);
    // The last of these may be the last to know a domain: it goes away with no lock held.
    drop(ended);
}

/// Binds a port that was offered by [`open`], where it is one; the new port is pending at once.
pub(super) fn bind<M: Machine>(
    hv: &Hypervisor<M>,
    local: &Arc<Domain>,
    remote: &Arc<Domain>,
    remote_port: u32,
    pair: &mut Pair<'_>,
) -> Result<u32, Refusal> {
    let end = End::Answers { domain: remote.clone(), port: remote_port };
    let port = pair.first().allocate(hv, local, State::Own(end), 0)?;
    if let Some(Channel { state: State::Own(End::Asks { far, .. }), .. }) = pair.second().get_mut(remote_port) {
        *far = Some((local.clone(), port));
    }
    make_pending(hv, local, 0, port);
    Ok(port)
}

/// Whether a port is offered to a domain by [`open`].
pub(super) fn is_offered(state: &State, to: DomId) -> bool {
    matches!(state, State::Own(End::Asks { remote, far: None }) if *remote == to)
}

/// Sends on a port that is none between domains: nobody hears that of an unbound one, the hypervisor that of the end that
/// answers; false for any other.
#[cold]
#[inline(never)]
pub(super) fn send<M: Machine>(hv: &Hypervisor<M>, events: MutexGuard<'_, EventChannels>, port: u32) -> bool {
    let (domain, port) = match events.get(port).map(|channel| &channel.state) {
        Some(State::Unbound { .. }) => return true,
        Some(State::Own(End::Answers { domain, port })) => (domain.clone(), *port),
        _ => return false,
    };
    drop(events);
    hvm::ioreq::on_answer(hv, &domain, port);
    true
}

/// Closes the end that answers; the other may be bound again. False where the port has changed meanwhile.
///
/// # Errors
/// `EINVAL` for the end that is the hypervisor's.
pub(super) fn close<M: Machine>(
    hv: &Hypervisor<M>,
    (domain, events): (&Domain, MutexGuard<'_, EventChannels>),
    port: u32,
) -> Result<bool, Refusal> {
    let asking = match events.get(port).map(|channel| &channel.state) {
        Some(State::Own(End::Answers { domain, .. })) => domain.clone(),
        other => {
            let evidence = Evidence::Port { port, state: other.map_or("closed", State::name) };
            return Err(Refusal::errno(Errno::Inval, rules::evtchn::HYPERVISORS).with(evidence));
        }
    };
    drop(events);
    let mut pair = Pair::lock(domain, &asking);
    let far_port = match pair.first().get(port) {
        Some(Channel { state: State::Own(End::Answers { domain: now, port }), .. }) if Arc::ptr_eq(now, &asking) => {
            *port
        }
        _ => return Ok(false),
    };
    let near = pair.first().free(port);
    let far = match pair.second().get_mut(far_port) {
        Some(Channel { state: State::Own(End::Asks { far, .. }), .. }) => far.take(),
        _ => None,
    };
    clear_pending(hv, domain, port);
    drop(pair);
    drop((near, far));
    Ok(true)
}
