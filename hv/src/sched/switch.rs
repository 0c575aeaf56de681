//! From one vCPU to another.

use alloc::boxed::Box;
use alloc::sync::Arc;
use core::sync::atomic::Ordering;

use log::error;

use super::{placement, queue};
use crate::Hypervisor;
use crate::domain::{Domain, Running, Vcpu, VcpuState, stopped, work};
use crate::entry::{self, Next};
use crate::hardware::{CpuSet, Machine};
use crate::registers::Registers;
use crate::{time, traps};

/// Chooses who runs, switches to it (waiting in the machine while nobody can), and leaves its registers in `registers`,
/// ready to go on: what is due was delivered.
///
/// `slot` holds the vCPU that ran until now, if any (its registers in `registers`), and afterwards the chosen one.
#[inline(always)]
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
        if !is_in(slot, &next) && !replace(hv, slot, registers, next) {
            continue;
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

/// Takes up who was chosen; `false` where its state is not at hand. The state of whoever ran is put where others find it
/// only when its tables are loaded here no more: from then on they may go away.
fn replace<M: Machine>(
    hv: &Hypervisor<M>,
    slot: &mut Option<Running>,
    registers: &mut Registers,
    next: Arc<Vcpu>,
) -> bool {
    let before = save(hv, slot, registers);
    let state = next.state.lock().take();
    let taken = state.is_some();
    match state {
        Some(state) => take_up(hv, slot, registers, next, state),
        None => {
            error!("d{}v{}: chosen to run, but its state is elsewhere", next.domain.id.0, next.id.0);
            next.stopped.fetch_or(stopped::DOWN, Ordering::SeqCst);
            queue::abandon(hv, &next);
            leave(hv);
        }
    }
    put_down(hv, before);
    taken
}

/// Takes whoever ran out of the CPU.
fn save<M: Machine>(hv: &Hypervisor<M>, slot: &mut Option<Running>, registers: &Registers) -> Option<Running> {
    let mut running = slot.take()?;
    time::clock::update_runstate_area(hv, &running);
    running.state.registers = *registers;
    hv.machine.save_context(&mut running.state);
    Some(running)
}

/// Puts the state of whoever ran where others find it.
fn put_down<M: Machine>(hv: &Hypervisor<M>, before: Option<Running>) {
    if let Some(Running { vcpu, state }) = before {
        *vcpu.state.lock() = Some(state);
        placement::settled(hv, &vcpu);
    }
}

fn take_up<M: Machine>(
    hv: &Hypervisor<M>,
    slot: &mut Option<Running>,
    registers: &mut Registers,
    vcpu: Arc<Vcpu>,
    mut state: Box<VcpuState>,
) {
    *registers = state.registers;
    let here = hv.machine.cpu();
    vcpu.domain.loaded.fetch_or(CpuSet::of(here).0, Ordering::SeqCst);
    let selectors = hv.frames.clock().enters_guest(here, || hv.machine.load_context(&mut state));
    left(hv, Some(&vcpu.domain));
    let running = slot.insert(Running { vcpu, state });
    if selectors.is_err() {
        let wanted = running.state.segments;
        traps::enter_failsafe(hv, running, registers, [wanted.ds, wanted.es, wanted.fs, wanted.gs]);
    }
}

/// Leaves the guests' address spaces.
fn leave<M: Machine>(hv: &Hypervisor<M>) {
    hv.machine.leave_guest();
    hv.frames.clock().left_guests(hv.machine.cpu());
    left(hv, None);
}

/// This CPU has another domain's address space loaded than before, or none's: it holds no translations of the old one.
fn left<M: Machine>(hv: &Hypervisor<M>, now: Option<&Arc<Domain>>) {
    let here = hv.machine.cpu();
    let mut loaded = hv.scheduler.cpu(here).loaded.lock();
    if let Some(before) = loaded.take_if(|before| now.is_none_or(|now| !Arc::ptr_eq(before, now))) {
        before.loaded.fetch_and(!CpuSet::of(here).0, Ordering::SeqCst);
    }
    if loaded.is_none() {
        *loaded = now.cloned();
    }
}

/// Waits for something to do. Whoever ran last and waits for an event stays in its slot, loaded.
fn idle<M: Machine>(hv: &Hypervisor<M>, slot: &mut Option<Running>, registers: &Registers) {
    const WAITS: u32 = stopped::BLOCKED | stopped::POLLING;
    let only_waits = slot.as_ref().is_some_and(|running| {
        let why = running.vcpu.stopped.load(Ordering::Acquire);
        why & WAITS != 0
            && why & stopped::DOWN == 0
            && running.vcpu.domain.pause_count.load(Ordering::Acquire) == 0
            && running.vcpu.schedule.allowed().contains(hv.machine.cpu())
    });
    if !only_waits {
        let before = save(hv, slot, registers);
        leave(hv);
        put_down(hv, before);
    }
    time::program(hv);
    hv.machine.wait_for_interrupt();
    time::run_due(hv);
}
