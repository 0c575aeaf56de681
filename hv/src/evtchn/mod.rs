//! Event channels: one bit from somebody to a domain.
//!
//! A *port* is a number in a domain; it is free, or one end of a channel ([`State`]). Sending sets the far port
//! *pending* in the bitmap of its domain's `shared_info`; if the port is not masked there, the port's word is selected
//! in the `vcpu_info` of the vCPU it notifies, and that vCPU's *upcall* is pending. This is Xen's 2-level ABI, with which
//! a domain begins; from its first `init_control` on, what is pending stands in queues instead ([`fifo`]).
//!
//! Invariants:
//! - an interdomain port's far end is an interdomain port that names it back, until one of the two is closed; then the
//!   other is unbound and may be bound again by the same domain;
//! - of each virtual interrupt, a vCPU has at most one port (a global one: the domain has at most one);
//! - the tables change under the lock of [`crate::domain::Domain::events`]; where two domains change, the lock of the
//!   lower domain number is taken first. An event is sent under the sender's lock alone: the sender's port holds all
//!   that is needed to reach the far end, and whoever moves the far end to another vCPU updates it there. A domain's
//!   queues have a lock of their own, taken last;
//! - words that guests write too are changed by atomic operations on single bits, and nothing but bits is believed.
//!
//! Xen: `public/event_channel.h`, `public/xen.h` (`shared_info`).

mod bind;
mod deliver;
mod fifo;
mod fifo_control;
pub(crate) mod own;
mod table;
#[cfg(test)]
mod tests;

use alloc::sync::Arc;

use pv_abi::DomId;
use pv_abi::errno::Errno;
use pv_abi::event_channel::{
    EVTCHNOP_ALLOC_UNBOUND, EVTCHNOP_BIND_INTERDOMAIN, EVTCHNOP_BIND_IPI, EVTCHNOP_BIND_PIRQ, EVTCHNOP_BIND_VCPU,
    EVTCHNOP_BIND_VIRQ, EVTCHNOP_CLOSE, EVTCHNOP_EXPAND_ARRAY, EVTCHNOP_INIT_CONTROL, EVTCHNOP_RESET, EVTCHNOP_SEND,
    EVTCHNOP_SET_PRIORITY, EVTCHNOP_STATUS, EVTCHNOP_UNMASK, EvtchnAllocUnbound, EvtchnBindInterdomain, EvtchnBindIpi,
    EvtchnBindPirq, EvtchnBindVcpu, EvtchnBindVirq, EvtchnClose, EvtchnExpandArray, EvtchnInitControl, EvtchnReset,
    EvtchnSend, EvtchnSetPriority, EvtchnStatus, EvtchnUnmask,
};

pub use bind::{
    alloc_unbound, bind_interdomain, bind_ipi, bind_pirq, bind_vcpu, bind_virq, close, close_all, close_some,
    relinquish, status,
};
pub(crate) use deliver::try_send;
pub use deliver::{
    is_pending, raise_global_virq, raise_virq, select_everything, send, set_pending, unmask, upcall_due,
};
pub use fifo::Fifo;
pub use fifo_control::{expand_array, init_control, set_priority};
pub use table::{Channel, EventChannels, MAX_PORTS, State};

use crate::Hypervisor;
use crate::call::Call;
use crate::domain::{Domain, Running};
use crate::hardware::Machine;
use crate::refusal::{Evidence, Refusal};
use crate::registers::Registers;
use crate::rules;

/// Does what a hypercall asks where that is to send on a port that can: the most frequent one of all goes no further.
/// Where it gives false, nothing has happened.
#[inline]
pub(crate) fn send_at_once<M: Machine>(hv: &Hypervisor<M>, running: &mut Running, registers: &mut Registers) -> bool {
    let mut port = [0; 4];
    let sent = registers.rdi as u32 == EVTCHNOP_SEND
        && hv.machine.copy_from_guest(registers.rsi, &mut port).is_ok()
        && try_send(hv, &running.vcpu.domain, u32::from_le_bytes(port));
    if sent {
        let state = &mut running.state;
        state.recent.push(registers.rax, registers.rdi, registers.rsi);
        registers.rax = 0;
    }
    sent
}

/// `event_channel_op(cmd, arg)`.
///
/// # Errors
/// Those of the operation; `ENOSYS` for one that does not exist.
#[inline]
pub fn event_channel_op<M: Machine>(call: &mut Call<'_, M>, args: [u64; 5]) -> Result<u64, Refusal> {
    let [operation, argument, ..] = args;
    match operation as u32 {
        EVTCHNOP_SEND => {
            let request: EvtchnSend = call.read(argument)?;
            send(call.hv, call.domain(), request.port).map(|()| 0)
        }
        EVTCHNOP_ALLOC_UNBOUND => offer(call, argument),
        EVTCHNOP_CLOSE => {
            let request: EvtchnClose = call.read(argument)?;
            close(call.hv, call.domain(), request.port).map(|()| 0)
        }
        other => other_operation(call, other, argument),
    }
}

/// Offers a port of the caller, or, for a privileged caller, of another domain.
fn offer<M: Machine>(call: &mut Call<'_, M>, argument: u64) -> Result<u64, Refusal> {
    let mut request: EvtchnAllocUnbound = call.read(argument)?;
    let remote = own_id(call, request.remote_dom);
    request.port = if request.dom == pv_abi::xen::DOMID_SELF {
        alloc_unbound(call.hv, call.domain(), remote)?
    } else {
        alloc_unbound(call.hv, &*target(call, request.dom)?, remote)?
    };
    call.write(argument, &request).map(|()| 0)
}

/// All operations that are not done often, apart so that the others stay small.
#[inline(never)]
fn other_operation<M: Machine>(call: &mut Call<'_, M>, operation: u32, argument: u64) -> Result<u64, Refusal> {
    match operation {
        EVTCHNOP_BIND_INTERDOMAIN => {
            let mut request: EvtchnBindInterdomain = call.read(argument)?;
            let remote = remote(call, request.remote_dom)?;
            let local = &call.running.vcpu.domain;
            request.local_port = bind_interdomain(call.hv, local, &remote, request.remote_port)?;
            call.write(argument, &request).map(|()| 0)
        }
        EVTCHNOP_BIND_VIRQ => {
            let mut request: EvtchnBindVirq = call.read(argument)?;
            request.port = bind_virq(call.hv, call.domain(), request.virq, request.vcpu)?;
            call.write(argument, &request).map(|()| 0)
        }
        EVTCHNOP_BIND_IPI => {
            let mut request: EvtchnBindIpi = call.read(argument)?;
            request.port = bind_ipi(call.hv, call.domain(), request.vcpu)?;
            call.write(argument, &request).map(|()| 0)
        }
        EVTCHNOP_BIND_PIRQ => {
            let mut request: EvtchnBindPirq = call.read(argument)?;
            request.port = bind_pirq(call.hv, call.domain(), request.pirq, request.flags)?;
            call.write(argument, &request).map(|()| 0)
        }
        EVTCHNOP_STATUS => {
            let mut request: EvtchnStatus = call.read(argument)?;
            let domain = target(call, request.dom)?;
            status(&domain, &mut request)?;
            call.write(argument, &request).map(|()| 0)
        }
        EVTCHNOP_BIND_VCPU => {
            let request: EvtchnBindVcpu = call.read(argument)?;
            bind_vcpu(call.domain(), request.port, request.vcpu).map(|()| 0)
        }
        EVTCHNOP_UNMASK => {
            let request: EvtchnUnmask = call.read(argument)?;
            unmask(call.hv, call.domain(), request.port).map(|()| 0)
        }
        EVTCHNOP_RESET => reset(call, argument),
        EVTCHNOP_INIT_CONTROL => {
            let mut request: EvtchnInitControl = call.read(argument)?;
            init_control(call.hv, call.domain(), &mut request)?;
            call.write(argument, &request).map(|()| 0)
        }
        EVTCHNOP_EXPAND_ARRAY => {
            let request: EvtchnExpandArray = call.read(argument)?;
            expand_array(call.hv, call.domain(), request.array_gfn).map(|()| 0)
        }
        EVTCHNOP_SET_PRIORITY => {
            let request: EvtchnSetPriority = call.read(argument)?;
            set_priority(call.domain(), &request).map(|()| 0)
        }
        _ => Err(unknown(operation)),
    }
}

#[cold]
fn unknown(operation: u32) -> Refusal {
    Refusal::errno(Errno::NoSys, rules::core::UNKNOWN_OPERATION).with(Evidence::Value(operation.into()))
}

/// Closes all ports of a domain, stopping where others wait, and goes back to the 2-level ABI.
fn reset<M: Machine>(call: &mut Call<'_, M>, argument: u64) -> Result<u64, Refusal> {
    let request: EvtchnReset = call.read(argument)?;
    let domain = target(call, request.dom)?;
    if domain.id != call.domain().id && !domain.lifecycle.lock().paused_by_control {
        return Err(
            Refusal::errno(Errno::Inval, rules::evtchn::RESET_RUNNING).with(Evidence::Value(domain.id.0.into()))
        );
    }
    while !close_some(call.hv, &domain) {
        if call.should_stop() {
            return Err(call.again([EVTCHNOP_RESET.into(), argument, 0, 0, 0]));
        }
    }
    fifo_control::leave(call.hv, &domain).map(|()| 0)
}

/// The domain that an argument names and that the caller may control.
fn target<M: Machine>(call: &Call<'_, M>, named: u16) -> Result<Arc<Domain>, Refusal> {
    let domain = remote(call, named)?;
    if domain.id != call.domain().id {
        call.privileged()?;
    }
    Ok(domain)
}

/// The domain that an argument names.
fn remote<M: Machine>(call: &Call<'_, M>, named: u16) -> Result<Arc<Domain>, Refusal> {
    let id = own_id(call, named);
    if id == call.domain().id {
        return Ok(call.running.vcpu.domain.clone());
    }
    let found = call.hv.domains.get(id);
    found.ok_or_else(|| Refusal::errno(Errno::Srch, rules::core::NO_SUCH_DOMAIN).with(Evidence::Value(named.into())))
}

/// The number that an argument means: `DOMID_SELF` is the caller.
fn own_id<M: Machine>(call: &Call<'_, M>, named: u16) -> DomId {
    if named == pv_abi::xen::DOMID_SELF { call.domain().id } else { DomId(named) }
}
