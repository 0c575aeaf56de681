//! `sched_op`, its old form, and `set_timer_op`: decoding.

use pv_abi::DomId;
use pv_abi::errno::Errno;
use pv_abi::sched::{
    SCHEDOP_BLOCK, SCHEDOP_PIN_OVERRIDE, SCHEDOP_POLL, SCHEDOP_REMOTE_SHUTDOWN, SCHEDOP_SHUTDOWN,
    SCHEDOP_SHUTDOWN_CODE, SCHEDOP_WATCHDOG, SCHEDOP_YIELD, SHUTDOWN_CRASH, SchedPinOverride, SchedRemoteShutdown,
    SchedShutdown, SchedWatchdog,
};

use super::{queue, shutdown, wait};
use crate::call::Call;
use crate::hardware::Machine;
use crate::refusal::{Evidence, Refusal};
use crate::{control, rules, time};

/// `sched_op(cmd, arg)`.
///
/// # Errors
/// Those of the operation; `ENOSYS` for one that does not exist.
pub fn sched_op<M: Machine>(call: &mut Call<'_, M>, args: [u64; 5]) -> Result<u64, Refusal> {
    let [operation, argument, ..] = args;
    match operation as u32 {
        SCHEDOP_YIELD => Ok(yield_now(call)),
        SCHEDOP_BLOCK => Ok(block(call)),
        SCHEDOP_POLL => wait::poll(call, argument),
        SCHEDOP_SHUTDOWN => {
            let request: SchedShutdown = call.read(argument)?;
            if request.reason == SHUTDOWN_CRASH {
                control::report_guest_crash(call.hv, call.running, call.registers);
            }
            shutdown(call.hv, call.domain(), request.reason & 0xff);
            Ok(0)
        }
        SCHEDOP_SHUTDOWN_CODE => {
            let request: SchedShutdown = call.read(argument)?;
            let latched = &mut call.domain().lifecycle.lock().latched;
            *latched = latched.or(Some(request.reason & 0xff));
            Ok(0)
        }
        SCHEDOP_REMOTE_SHUTDOWN => remote_shutdown(call, argument),
        SCHEDOP_WATCHDOG => watchdog(call, argument),
        SCHEDOP_PIN_OVERRIDE => pin_override(call, argument),
        _ => Err(unknown(operation)),
    }
}

/// `sched_op_compat(cmd, arg)`: the form before Xen 3.0.2, where the argument is the reason itself.
///
/// # Errors
/// `ENOSYS` for other operations than yield, block and shutdown.
pub fn sched_op_compat<M: Machine>(call: &mut Call<'_, M>, args: [u64; 5]) -> Result<u64, Refusal> {
    let [operation, argument, ..] = args;
    match operation as u32 {
        SCHEDOP_YIELD => Ok(yield_now(call)),
        SCHEDOP_BLOCK => Ok(block(call)),
        SCHEDOP_SHUTDOWN => {
            shutdown(call.hv, call.domain(), argument as u32 & 0xff);
            Ok(0)
        }
        _ => Err(unknown(operation)),
    }
}

#[cold]
fn unknown(operation: u64) -> Refusal {
    Refusal::errno(Errno::NoSys, rules::core::UNKNOWN_OPERATION).with(Evidence::Value(operation))
}

#[inline]
fn yield_now<M: Machine>(call: &Call<'_, M>) -> u64 {
    if queue::anybody_waits(call.hv) {
        queue::let_others_go(call.vcpu());
    }
    0
}

fn block<M: Machine>(call: &Call<'_, M>) -> u64 {
    wait::block(call.hv, call.vcpu());
    0
}

fn remote_shutdown<M: Machine>(call: &Call<'_, M>, argument: u64) -> Result<u64, Refusal> {
    let request: SchedRemoteShutdown = call.read(argument)?;
    let named = DomId(request.domain_id);
    let domain = call.hv.domains.get(named).ok_or_else(|| {
        Refusal::errno(Errno::Srch, rules::core::NO_SUCH_DOMAIN).with(Evidence::Value(named.0.into()))
    })?;
    call.privileged()?;
    shutdown(call.hv, &domain, request.reason & 0xff);
    Ok(0)
}

/// Starts (`id` 0), moves, or stops (`timeout` 0) one of the domain's watchdogs; a new one's id is the result. A new one
/// without a timeout barks at once.
fn watchdog<M: Machine>(call: &Call<'_, M>, argument: u64) -> Result<u64, Refusal> {
    let SchedWatchdog { id, timeout } = call.read(argument)?;
    let at = call.hv.machine.now().saturating_add(u64::from(timeout) * 1_000_000_000);
    let refuse = |errno, rule| Err(Refusal::errno(errno, rule).with(Evidence::Value(id.into())));
    let Some(first) = call.domain().vcpu(pv_abi::VcpuId(0)) else {
        return refuse(Errno::Inval, rules::sched::WATCHDOG_UNKNOWN);
    };
    match id as usize {
        0 => match time::start_watchdog(call.hv, first, at) {
            Some(index) => Ok(index as u64 + 1),
            None => refuse(Errno::NoSpc, rules::sched::WATCHDOG_SPACE),
        },
        id if id <= time::WATCHDOGS && time::move_watchdog(call.hv, first, id - 1, (timeout != 0).then_some(at)) => {
            Ok(0)
        }
        _ => refuse(Errno::Inval, rules::sched::WATCHDOG_UNKNOWN),
    }
}

fn pin_override<M: Machine>(call: &Call<'_, M>, argument: u64) -> Result<u64, Refusal> {
    if call.domain().id != DomId::DOM0 {
        return Err(Refusal::errno(Errno::Perm, rules::sched::PIN_DOM0));
    }
    let request: SchedPinOverride = call.read(argument)?;
    let to = u32::try_from(request.pcpu).ok();
    if let Some(cpu) = to.filter(|cpu| *cpu >= call.hv.machine.cpu_count()) {
        return Err(Refusal::errno(Errno::Inval, rules::sched::PIN_CPU).with(Evidence::Value(cpu.into())));
    }
    let refused = match (call.vcpu().schedule.pinned_to(), to) {
        (Some(_), Some(_)) => Some((Errno::Busy, rules::sched::PINNED)),
        (None, None) => Some((Errno::Inval, rules::sched::UNPINNED)),
        _ => None,
    };
    if let Some((errno, rule)) = refused {
        return Err(Refusal::errno(errno, rule));
    }
    queue::pin(call.vcpu(), to);
    Ok(0)
}

/// A timer that is further ahead comes in [`FAR_TIMER_NS`]: old kernels computed such by mistake and wait for it (Xen:
/// `do_set_timer_op`).
const FARTHEST_NS: u64 = 1 << 50;
const FAR_TIMER_NS: u64 = 100_000_000;

/// `set_timer_op(timeout)`: one `VIRQ_TIMER` at this system time, in nanoseconds; 0 stops the timer.
///
/// # Errors
/// None.
pub fn set_timer_op<M: Machine>(call: &mut Call<'_, M>, args: [u64; 5]) -> Result<u64, Refusal> {
    let [timeout, ..] = args;
    let now = call.hv.machine.now();
    let at = match timeout {
        0 => None,
        far if far > now && far - now >= FARTHEST_NS => Some(now.saturating_add(FAR_TIMER_NS)),
        at => Some(at),
    };
    time::set_single(call.hv, &call.running.vcpu, at);
    Ok(0)
}
