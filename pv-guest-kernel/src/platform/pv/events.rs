//! Event channels, 2-level: what interrupts are here.
//!
//! Words used: a *port* is this domain's handle of one channel. It is *pending* when something was sent, *masked* while
//! nothing shall be delivered. A handler runs with events masked, in the middle of whatever the CPU was doing: it wakes a
//! thread or does very little.
//!
//! Invariants:
//! - a port delivers only while it has a handler, or once [`unmask`] was called for it;
//! - one vCPU delivers it, the one that Xen tells of it.
//!
//! Source: Xen `public/event_channel.h`; the bitmaps are in `shared_info`.
#![expect(unsafe_code, reason = "event-channel hypercalls")]

use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use core::sync::atomic::{AtomicU64, Ordering};

use pv_abi::errno::Errno;
use pv_abi::event_channel as evtchn;
use pv_abi::xen;
use pv_abi::{DomId, Port};

use super::{hypercall, shared};
use crate::cpus::{self, MAX_CPUS};
use crate::sync::IrqLock;
use crate::task::Signal;

/// What happens when a port fires.
#[derive(Clone)]
enum Handler {
    Raise(Arc<Signal>),
    Call(Arc<dyn Fn() + Send + Sync>),
}

static HANDLERS: IrqLock<BTreeMap<Port, Handler>> = IrqLock::new(BTreeMap::new());
static DELIVERED: AtomicU64 = AtomicU64::new(0);
static UPCALLS: AtomicU64 = AtomicU64::new(0);

/// How many upcalls came, and how many events were delivered in them.
#[must_use]
pub fn counts() -> (u64, u64) {
    (UPCALLS.load(Ordering::Relaxed), DELIVERED.load(Ordering::Relaxed))
}

/// The ports that each vCPU delivers. Xen tells one vCPU of a port, but the bits of a word are seen by all.
static MINE: [[AtomicU64; WORDS]; MAX_CPUS] = [const { [const { AtomicU64::new(0) }; WORDS] }; MAX_CPUS];
const WORDS: usize = 64;

/// `port` is delivered by `cpu` and no other.
fn set_owner(port: Port, cpu: usize) {
    let (word, bit) = bit(port);
    for (other, mine) in MINE.iter().enumerate() {
        match other == cpu {
            true => mine[word].fetch_or(bit, Ordering::SeqCst),
            false => mine[word].fetch_and(!bit, Ordering::SeqCst),
        };
    }
}

/// Masks every port: from here on a port delivers when it is asked to. The first vCPU delivers them all.
pub(in crate::platform) fn init() {
    for word in &shared::shared_info().evtchn_mask {
        word.store(u64::MAX, Ordering::Relaxed);
    }
    for (cpu, words) in MINE.iter().enumerate() {
        let mine = if cpu == 0 { u64::MAX } else { 0 };
        words.iter().for_each(|word| word.store(mine, Ordering::Relaxed));
    }
    // What there was before was the event channels of another domain.
    let handlers = core::mem::take(&mut *HANDLERS.lock());
    drop(handlers);
}

fn operation<T>(command: u32, argument: &mut T) -> Result<(), Errno> {
    // SAFETY: each caller passes the struct of its command.
    unsafe { hypercall::operation(xen::HYPERVISOR_EVENT_CHANNEL_OP, command, argument) }.map(|_| ())
}

/// Makes a port that `remote` may bind to.
///
/// # Errors
/// `ENOSPC` when no port is free; `ESRCH` when there is no such domain.
pub fn alloc_unbound(remote: DomId) -> Result<Port, Errno> {
    alloc_unbound_for(DomId(xen::DOMID_SELF), remote)
}

/// Makes a port in `domain` that `remote` may bind to. For another domain only with privilege.
///
/// # Errors
/// `EPERM` without privilege; as [`alloc_unbound`].
pub fn alloc_unbound_for(domain: DomId, remote: DomId) -> Result<Port, Errno> {
    let mut argument = evtchn::EvtchnAllocUnbound { dom: domain.0, remote_dom: remote.0, port: 0 };
    operation(evtchn::EVTCHNOP_ALLOC_UNBOUND, &mut argument)?;
    Ok(Port(argument.port))
}

/// Connects a new port to a port that `remote` made for this domain.
///
/// # Errors
/// `EINVAL` when `remote_port` is not waiting for this domain; `ESRCH`, `ENOSPC`.
pub fn bind_interdomain(remote: DomId, remote_port: Port) -> Result<Port, Errno> {
    let mut argument =
        evtchn::EvtchnBindInterdomain { remote_dom: remote.0, _pad0: 0, remote_port: remote_port.0, local_port: 0 };
    operation(evtchn::EVTCHNOP_BIND_INTERDOMAIN, &mut argument)?;
    Ok(Port(argument.local_port))
}

/// A port for a virtual interrupt (`pv_abi::xen::VIRQ_*`).
///
/// # Errors
/// `EEXIST` when it is bound already; `EINVAL` for a number that does not exist.
pub fn bind_virq(virq: u32) -> Result<Port, Errno> {
    bind_virq_on(virq, 0)
}

/// As [`bind_virq`], for one that each vCPU has of its own.
///
/// # Errors
/// As [`bind_virq`]; `ENOENT` for a vCPU that does not exist.
pub fn bind_virq_on(virq: u32, cpu: usize) -> Result<Port, Errno> {
    let mut argument = evtchn::EvtchnBindVirq { virq, vcpu: cpu as u32, port: 0 };
    operation(evtchn::EVTCHNOP_BIND_VIRQ, &mut argument)?;
    set_owner(Port(argument.port), cpu);
    Ok(Port(argument.port))
}

/// A port by which vCPUs of this domain call `cpu`: whoever [notifies](notify) it makes it pending there.
///
/// # Errors
/// `ENOSPC`; `ENOENT` for a vCPU that does not exist.
pub fn bind_ipi(cpu: usize) -> Result<Port, Errno> {
    let mut argument = evtchn::EvtchnBindIpi { vcpu: cpu as u32, port: 0 };
    operation(evtchn::EVTCHNOP_BIND_IPI, &mut argument)?;
    set_owner(Port(argument.port), cpu);
    Ok(Port(argument.port))
}

/// A port for a physical interrupt; `share` when its line may be shared.
///
/// # Errors
/// `EPERM` when this domain has no access to it.
pub fn bind_pirq(pirq: u32, share: bool) -> Result<Port, Errno> {
    let flags = if share { evtchn::BIND_PIRQ_WILL_SHARE } else { 0 };
    let mut argument = evtchn::EvtchnBindPirq { pirq, flags, port: 0 };
    operation(evtchn::EVTCHNOP_BIND_PIRQ, &mut argument)?;
    Ok(Port(argument.port))
}

/// Makes the other end of `port` pending. An unbound port swallows it.
///
/// # Errors
/// `EINVAL` for a port that cannot send.
pub fn notify(port: Port) -> Result<(), Errno> {
    operation(evtchn::EVTCHNOP_SEND, &mut evtchn::EvtchnSend { port: port.0 })
}

/// Closes `port` and forgets its handler.
///
/// # Errors
/// `EINVAL` for a port that is not open.
pub fn close(port: Port) -> Result<(), Errno> {
    mask(port);
    let handler = HANDLERS.lock().remove(&port);
    drop(handler);
    set_owner(port, 0);
    operation(evtchn::EVTCHNOP_CLOSE, &mut evtchn::EvtchnClose { port: port.0 })
}

/// What a port of `domain` is bound to.
///
/// # Errors
/// `EPERM` for another domain without privilege; `EINVAL` for a port that does not exist.
pub fn status(domain: DomId, port: Port) -> Result<evtchn::EvtchnStatus, Errno> {
    let mut argument = evtchn::EvtchnStatus { dom: domain.0, port: port.0, ..evtchn::EvtchnStatus::default() };
    operation(evtchn::EVTCHNOP_STATUS, &mut argument)?;
    Ok(argument)
}

/// Calls `handler` each time `port` fires, and lets it fire.
pub fn on(port: Port, handler: impl Fn() + Send + Sync + 'static) {
    set_handler(port, Handler::Call(Arc::new(handler)));
}

/// Raises `signal` each time `port` fires, and lets it fire. Many ports may share a signal.
pub fn raise(port: Port, signal: &Arc<Signal>) {
    set_handler(port, Handler::Raise(signal.clone()));
}

fn set_handler(port: Port, handler: Handler) {
    let old = HANDLERS.lock().insert(port, handler);
    drop(old);
    unmask(port);
}

fn bit(port: Port) -> (usize, u64) {
    ((port.0 / 64) as usize % WORDS, 1 << (port.0 % 64))
}

/// Keeps `port` from delivering; what is sent meanwhile stays pending.
pub fn mask(port: Port) {
    let (word, bit) = bit(port);
    shared::shared_info().evtchn_mask[word].fetch_or(bit, Ordering::SeqCst);
}

/// Lets `port` deliver; what is pending is delivered now.
pub fn unmask(port: Port) {
    let (word, bit) = bit(port);
    let shared = shared::shared_info();
    if shared.evtchn_pending[word].load(Ordering::SeqCst) & bit == 0 {
        shared.evtchn_mask[word].fetch_and(!bit, Ordering::SeqCst);
        // Something may have come between the look and the unmasking.
        if shared.evtchn_pending[word].load(Ordering::SeqCst) & bit == 0 {
            return;
        }
        shared.evtchn_mask[word].fetch_or(bit, Ordering::SeqCst);
    }
    // Only Xen can both unmask and set the selector words without a race.
    let result = operation(evtchn::EVTCHNOP_UNMASK, &mut evtchn::EvtchnUnmask { port: port.0 });
    if result.is_err() {
        shared.evtchn_mask[word].fetch_and(!bit, Ordering::SeqCst);
    }
}

/// True when something was sent and not delivered.
#[must_use]
pub fn is_pending(port: Port) -> bool {
    let (word, bit) = bit(port);
    shared::shared_info().evtchn_pending[word].load(Ordering::SeqCst) & bit != 0
}

/// Delivers everything that is pending and not masked. Called with events masked.
pub(in crate::platform) fn dispatch() {
    UPCALLS.fetch_add(1, Ordering::Relaxed);
    let vcpu = shared::vcpu();
    while vcpu.evtchn_upcall_pending.swap(0, Ordering::SeqCst) != 0 {
        let mut words = vcpu.evtchn_pending_sel.swap(0, Ordering::SeqCst);
        while words != 0 {
            let word = words.trailing_zeros() as usize;
            words &= words - 1;
            dispatch_word(word);
        }
    }
}

fn dispatch_word(word: usize) {
    let shared = shared::shared_info();
    let mine = &MINE[cpus::current()][word];
    loop {
        let open = mine.load(Ordering::SeqCst) & !shared.evtchn_mask[word].load(Ordering::SeqCst);
        let pending = shared.evtchn_pending[word].load(Ordering::SeqCst) & open;
        if pending == 0 {
            return;
        }
        let bit = pending.trailing_zeros();
        shared.evtchn_pending[word].fetch_and(!(1 << bit), Ordering::SeqCst);
        deliver(Port(word as u32 * 64 + bit));
    }
}

fn deliver(port: Port) {
    DELIVERED.fetch_add(1, Ordering::Relaxed);
    let handler = HANDLERS.lock().get(&port).cloned();
    match handler {
        Some(Handler::Raise(signal)) => signal.raise(),
        Some(Handler::Call(handler)) => handler(),
        None => mask(port),
    }
}
