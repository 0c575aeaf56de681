//! From one vCPU to another.

use alloc::sync::Arc;
use core::sync::atomic::Ordering;

use log::error;

use super::queue;
use crate::Hypervisor;
use crate::domain::{Running, Vcpu, stopped, work};
use crate::entry::{self, Next};
use crate::hardware::Machine;
use crate::registers::Registers;
use crate::{time, traps};

/// Chooses who runs, switches to it (waiting in the machine while nobody can), and leaves its registers in `registers`,
/// ready to go on: what is due was delivered.
///
/// `slot` holds the vCPU that ran until now, if any (its registers in `registers`), and afterwards the chosen one.
pub fn switch<M: Machine>(hv: &Hypervisor<M>, slot: &mut Option<Running>, registers: &mut Registers) {
    loop {
        let choice = queue::choose(hv);
        if !choice.is_same()
            && let Some(before) = &choice.before
        {
            time::stops_running(before);
        }
        let Some(next) = choice.next else {
            idle(hv, slot, registers);
            continue;
        };
        let goes_on = choice.before.is_some_and(|before| Arc::ptr_eq(&before, &next));
        if !is_in(slot, &next) {
            put_down(hv, slot, registers);
            if !take_up(hv, slot, registers, next) {
                continue;
            }
        }
        let Some(running) = slot else {
            continue;
        };
        if !goes_on {
            time::starts_running(hv, &running.vcpu);
            running.vcpu.raise(work::TIME);
        }
        time::program(hv);
        if entry::before_return(hv, running, registers) == Next::Guest {
            return;
        }
    }
}

fn is_in(slot: &Option<Running>, vcpu: &Arc<Vcpu>) -> bool {
    slot.as_ref().is_some_and(|running| Arc::ptr_eq(&running.vcpu, vcpu))
}

/// Puts the state of whoever ran where others find it.
fn put_down<M: Machine>(hv: &Hypervisor<M>, slot: &mut Option<Running>, registers: &Registers) {
    let Some(mut running) = slot.take() else {
        return;
    };
    time::clock::update_runstate_area(hv, &running);
    running.state.registers = *registers;
    hv.machine.save_context(&mut running.state);
    *running.vcpu.state.lock() = Some(running.state);
    if running.vcpu.schedule.pinned_to().is_some() {
        super::wake(hv, &running.vcpu);
    }
}

/// Takes the state of whoever was chosen; `false` where it has none.
fn take_up<M: Machine>(
    hv: &Hypervisor<M>,
    slot: &mut Option<Running>,
    registers: &mut Registers,
    vcpu: Arc<Vcpu>,
) -> bool {
    let taken = vcpu.state.lock().take();
    let Some(mut state) = taken else {
        error!("d{}v{}: chosen to run, but its state is elsewhere", vcpu.domain.id.0, vcpu.id.0);
        vcpu.stopped.fetch_or(stopped::DOWN, Ordering::SeqCst);
        queue::abandon(hv, &vcpu);
        return false;
    };
    *registers = state.registers;
    let selectors = hv.machine.load_context(&mut state);
    let running = slot.insert(Running { vcpu, state });
    if selectors.is_err() {
        let wanted = running.state.segments;
        traps::enter_failsafe(hv, running, registers, [wanted.ds, wanted.es, wanted.fs, wanted.gs]);
    }
    true
}

/// Waits for something to do. Whoever ran last and only waits stays in its slot, loaded.
fn idle<M: Machine>(hv: &Hypervisor<M>, slot: &mut Option<Running>, registers: &Registers) {
    let only_waits = slot.as_ref().is_some_and(|running| {
        let stopped = running.vcpu.stopped.load(Ordering::Acquire);
        stopped & stopped::DOWN == 0 && running.vcpu.domain.pause_count.load(Ordering::Acquire) == 0
    });
    if !only_waits {
        put_down(hv, slot, registers);
        hv.machine.leave_guest();
    }
    time::program(hv);
    hv.machine.wait_for_interrupt();
    time::run_due(hv);
}
