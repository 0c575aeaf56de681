//! Which CPU a vCPU waits on.
//!
//! A vCPU that wakes goes to an idle CPU that it likes, may use, or has just used, in this order; else it waits where it
//! was. A CPU with nobody to run takes who waits elsewhere. Who has used up its slice is handed to the CPU with the least
//! work, unless that had more to do then than this one has now: so with more vCPUs than CPUs each gets its share in turn.
//! Only a vCPU moves whose state is at hand, not in the CPU that ran it last.

use alloc::sync::Arc;
use core::sync::atomic::Ordering;

use super::queue::{self, Cpu, Place, RunQueue};
use crate::Hypervisor;
use crate::domain::Vcpu;
use crate::hardware::{CpuId, CpuSet, Machine};

/// Where a vCPU should wait whose CPU is `own`.
pub(super) fn place<M: Machine>(hv: &Hypervisor<M>, vcpu: &Vcpu, own: CpuId) -> CpuId {
    let count = hv.scheduler.cpus.len();
    if count == 1 {
        return own;
    }
    let allowed = vcpu.schedule.allowed() & CpuSet::first(count as u32);
    let liked = allowed & CpuSet(vcpu.schedule.soft.load(Ordering::Relaxed));
    let idle = idle(hv);
    if (liked & idle).contains(own) || !is_movable(vcpu) {
        return own;
    }
    let best = [liked & idle, allowed & idle, liked, allowed].into_iter().find(|set| !set.is_empty());
    match best {
        Some(set) if !set.contains(own) => least_loaded(hv, set).unwrap_or(own),
        _ => own,
    }
}

fn idle<M: Machine>(hv: &Hypervisor<M>) -> CpuSet {
    CpuSet(hv.scheduler.idle.load(Ordering::SeqCst))
}

fn load<M: Machine>(hv: &Hypervisor<M>, cpu: CpuId) -> u64 {
    hv.scheduler.cpu(cpu).load.load(Ordering::Relaxed)
}

fn least_loaded<M: Machine>(hv: &Hypervisor<M>, among: CpuSet) -> Option<CpuId> {
    among.iter().min_by_key(|cpu| load(hv, *cpu))
}

/// Whether its state is at hand.
fn is_movable(vcpu: &Vcpu) -> bool {
    vcpu.state.try_lock().is_some_and(|state| state.is_some())
}

/// Takes somebody from another CPU's queue.
pub(super) fn steal<M: Machine>(hv: &Hypervisor<M>) -> Option<Arc<Vcpu>> {
    let here = hv.machine.cpu();
    for (id, cpu) in hv.scheduler.cpus.iter().enumerate() {
        if id == here.0 as usize || cpu.waiting.load(Ordering::SeqCst) == 0 {
            continue;
        }
        let mut queue = cpu.queue.lock();
        let usable = |vcpu: &Arc<Vcpu>| vcpu.schedule.allowed().contains(here) && is_movable(vcpu);
        if let Some(index) = queue.waiting.iter().rposition(usable) {
            return Some(take(cpu, &mut queue, index, here));
        }
    }
    None
}

fn take(cpu: &Cpu, queue: &mut RunQueue, index: usize, to: CpuId) -> Arc<Vcpu> {
    let vcpu = queue.remove(index);
    cpu.publish(queue);
    vcpu.cpu.store(to.0, Ordering::SeqCst);
    vcpu
}

/// The state of a vCPU is at hand again, after it ran here: it may wait elsewhere from now on.
pub(super) fn settled<M: Machine>(hv: &Hypervisor<M>, vcpu: &Vcpu) {
    let slice_ended = hv.scheduler.cpu(hv.machine.cpu()).slice_ended.swap(false, Ordering::Relaxed);
    match vcpu.schedule.place() {
        // It left because it may not run here, or was woken and has left since.
        Place::Out => super::wake(hv, vcpu),
        Place::Waiting if hv.scheduler.cpus.len() > 1 => hand_over(hv, vcpu, slice_ended),
        _ => {}
    }
}

/// Hands one who waits in this CPU's queue to the CPU with the least work, where that is idle, or the slice has ended and
/// the work is evened out.
fn hand_over<M: Machine>(hv: &Hypervisor<M>, vcpu: &Vcpu, slice_ended: bool) {
    let here = hv.machine.cpu();
    let others = CpuSet::first(hv.scheduler.cpus.len() as u32).without(here) & vcpu.schedule.allowed();
    let (cpu, id, mut queue) = hv.scheduler.home(vcpu);
    let own_load = cpu.load.load(Ordering::Relaxed);
    let evens = |other: &CpuId| match load(hv, *other) {
        0 => true,
        work => slice_ended && work + queue::weight(vcpu) <= own_load,
    };
    let index = queue.waiting.iter().position(|waiting| core::ptr::eq(&**waiting, vcpu));
    let (Some(to), Some(index)) = (least_loaded(hv, others).filter(evens), index) else { return };
    if id != here.0 || !is_movable(vcpu) {
        return;
    }
    let vcpu = take(cpu, &mut queue, index, to);
    drop(queue);
    let (other, now) = (hv.scheduler.cpu(to), hv.machine.now());
    let mut queue = other.queue.lock();
    queue.charge(now);
    queue.insert_moved(vcpu.clone());
    queue::announce(hv, other, to, queue, &vcpu, now);
}

/// Sets the CPUs that a vCPU may run on and likes to run on; one that is elsewhere goes there soon.
pub fn set_affinity<M: Machine>(hv: &Hypervisor<M>, vcpu: &Vcpu, hard: CpuSet, soft: CpuSet) {
    vcpu.schedule.hard.store(hard.0, Ordering::Relaxed);
    vcpu.schedule.soft.store(soft.0, Ordering::Relaxed);
    let (cpu, id, mut queue) = hv.scheduler.home(vcpu);
    if vcpu.schedule.allowed().contains(CpuId(id)) {
        return;
    }
    queue.waiting.retain(|other| !core::ptr::eq(&**other, vcpu));
    if vcpu.schedule.place() == Place::Waiting {
        queue::leave(vcpu);
        cpu.publish(&queue);
    }
    drop(queue);
    super::wake(hv, vcpu);
    super::interrupt(hv, vcpu);
}

/// The CPUs that a vCPU may run on and likes to run on.
#[must_use]
pub fn affinity(vcpu: &Vcpu) -> (CpuSet, CpuSet) {
    let [hard, soft] = [&vcpu.schedule.hard, &vcpu.schedule.soft].map(|set| CpuSet(set.load(Ordering::Relaxed)));
    (hard, soft)
}
