//! Waiting for events: block, poll, and being woken.

use alloc::sync::Arc;
use core::sync::atomic::Ordering;

use pv_abi::errno::Errno;
use pv_abi::sched::SchedPoll;

use super::{interrupt, queue, wake};
use crate::call::Call;
use crate::domain::{Domain, Vcpu, stopped, work};
use crate::hardware::Machine;
use crate::refusal::{Evidence, Refusal};
use crate::{Hypervisor, evtchn, rules, time};

/// [`super::VcpuSchedule::polled`]: any port ends the poll.
pub(super) const ANY_PORT: u32 = u32::MAX;

/// Ports that are polled together.
const MAX_POLLED: u32 = 128;

/// What an event ends.
const WAITS: u32 = stopped::BLOCKED | stopped::POLLING;

/// `SCHEDOP_block`: unmasks events and waits for one, unless one is pending.
///
/// A sender sets the event first and looks then whether the vCPU waits; the vCPU says first that it waits and looks then
/// for events: whichever comes second sees the other.
pub fn block<M: Machine>(hv: &Hypervisor<M>, vcpu: &Vcpu) {
    let (frame, offset) = vcpu.info_place();
    hv.machine.fetch_and_word(frame, offset / 8, !0xff00);
    vcpu.stopped.fetch_or(stopped::BLOCKED, Ordering::SeqCst);
    if evtchn::upcall_due(hv, vcpu) {
        vcpu.stopped.fetch_and(!stopped::BLOCKED, Ordering::SeqCst);
    } else {
        vcpu.raise(work::RESCHEDULE);
    }
}

/// Tells a vCPU that something became pending for it.
#[inline]
pub fn notify<M: Machine>(hv: &Hypervisor<M>, vcpu: &Vcpu) {
    if vcpu.stopped.load(Ordering::SeqCst) & WAITS != 0 {
        unblock(hv, vcpu);
    } else {
        queue::kick(hv, vcpu);
    }
}

/// Ends a vCPU's waiting for events.
pub fn unblock<M: Machine>(hv: &Hypervisor<M>, vcpu: &Vcpu) {
    let before = vcpu.stopped.fetch_and(!WAITS, Ordering::SeqCst);
    if before & stopped::POLLING != 0 {
        vcpu.domain.polling.fetch_sub(1, Ordering::SeqCst);
    }
    if before & WAITS != 0 {
        wake(hv, vcpu);
    }
}

/// Wakes the vCPUs of a domain that poll a port.
#[cold]
pub fn wake_pollers<M: Machine>(hv: &Hypervisor<M>, domain: &Domain, port: u32) {
    for vcpu in domain.vcpus.get().into_iter().flatten() {
        let polled = vcpu.schedule.polled.load(Ordering::SeqCst);
        if vcpu.stopped.load(Ordering::SeqCst) & stopped::POLLING != 0 && (polled == ANY_PORT || polled == port) {
            unblock(hv, vcpu);
        }
    }
}

/// A poll gives up.
pub(crate) fn poll_timed_out<M: Machine>(hv: &Hypervisor<M>, vcpu: &Vcpu) {
    if vcpu.stopped.load(Ordering::SeqCst) & stopped::POLLING != 0 {
        unblock(hv, vcpu);
    }
}

/// `SCHEDOP_poll`: waits until one of some ports is pending, an upcall is due, or the time is over; masks stay as they
/// are.
///
/// # Errors
/// `EINVAL` for too many ports or one that does not exist, `EFAULT`.
pub(super) fn poll<M: Machine>(call: &mut Call<'_, M>, argument: u64) -> Result<u64, Refusal> {
    let request: SchedPoll = call.read(argument)?;
    if request.nr_ports > MAX_POLLED {
        let evidence = Evidence::Limit { asked: request.nr_ports.into(), limit: MAX_POLLED.into() };
        return Err(Refusal::errno(Errno::Inval, rules::sched::POLL_COUNT).with(evidence));
    }
    let vcpu = call.running.vcpu.clone();
    // One port alone is known before anybody sees the poll, so that no other port ends it. A bad address is refused below.
    let one = if request.nr_ports == 1 { call.read_element(request.ports, 0).ok() } else { None };
    vcpu.schedule.polled.store(one.unwrap_or(ANY_PORT), Ordering::SeqCst);
    vcpu.domain.polling.fetch_add(1, Ordering::SeqCst);
    vcpu.stopped.fetch_or(stopped::POLLING, Ordering::SeqCst);
    match waits(call, &vcpu, &request) {
        Ok(true) => {
            time::set_poll(call.hv, &vcpu, (request.timeout != 0).then_some(request.timeout));
            vcpu.raise(work::RESCHEDULE);
            Ok(0)
        }
        not_yet => {
            unblock(call.hv, &vcpu);
            not_yet.map(|_| 0)
        }
    }
}

/// Whether a poll that has begun has to wait.
fn waits<M: Machine>(call: &Call<'_, M>, vcpu: &Arc<Vcpu>, request: &SchedPoll) -> Result<bool, Refusal> {
    if evtchn::upcall_due(call.hv, vcpu) {
        return Ok(false);
    }
    for index in 0..request.nr_ports {
        let port: u32 = call.read_element(request.ports, index.into())?;
        if evtchn::is_pending(call.hv, &vcpu.domain, port)? {
            return Ok(false);
        }
    }
    Ok(request.timeout == 0 || request.timeout > call.hv.machine.now())
}

/// Takes a vCPU down: it does not run until it is brought up again.
pub(super) fn take_down<M: Machine>(hv: &Hypervisor<M>, vcpu: &Vcpu) {
    vcpu.stopped.fetch_or(stopped::DOWN, Ordering::SeqCst);
    interrupt(hv, vcpu);
}

/// Brings a vCPU up.
pub(super) fn bring_up<M: Machine>(hv: &Hypervisor<M>, vcpu: &Vcpu) {
    if vcpu.stopped.fetch_and(!stopped::DOWN, Ordering::SeqCst) & stopped::DOWN != 0 {
        wake(hv, vcpu);
    }
}
