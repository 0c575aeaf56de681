//! A CPU's queue of vCPUs whose timers will be due, soonest last.

use alloc::sync::Arc;
use alloc::vec::Vec;

use super::VcpuTimers;
use crate::domain::Vcpu;
use crate::hardware::Machine;
use crate::{Hypervisor, sched};

struct Entry {
    at: u64,
    vcpu: Arc<Vcpu>,
}

/// One CPU's queue.
#[derive(Default)]
pub(super) struct Queue {
    entries: Vec<Entry>,
    /// The deadline that the machine knows.
    programmed: Option<u64>,
}

impl Queue {
    fn insert(&mut self, at: u64, vcpu: Arc<Vcpu>) {
        let place = self.entries.partition_point(|entry| entry.at > at);
        self.entries.insert(place, Entry { at, vcpu });
    }

    fn remove(&mut self, at: u64, vcpu: &Vcpu) {
        let first = self.entries.partition_point(|entry| entry.at > at);
        let same = self.entries[first..].iter().take_while(|entry| entry.at == at);
        let found = same.enumerate().find(|(_, entry)| core::ptr::eq(&*entry.vcpu, vcpu)).map(|(n, _)| n);
        if let Some(n) = found {
            self.entries.remove(first + n);
        }
    }

    fn first(&self) -> Option<u64> {
        self.entries.last().map(|entry| entry.at)
    }
}

/// Puts a vCPU where its earliest timer belongs, unless its entry is already there or earlier.
pub(super) fn enter<M: Machine>(hv: &Hypervisor<M>, vcpu: &Arc<Vcpu>, timers: &mut VcpuTimers) {
    let Some(at) = timers.earliest() else {
        return;
    };
    if timers.entry.is_some_and(|(_, early)| early <= at) {
        return;
    }
    leave(hv, vcpu, timers);
    let cpu = hv.machine.cpu().0;
    timers.entry = Some((cpu, at));
    let mut queue = hv.timers.cpus[cpu as usize].lock();
    queue.insert(at, vcpu.clone());
    if queue.programmed.is_none_or(|programmed| at < programmed) {
        queue.programmed = Some(at);
        hv.machine.set_deadline(Some(at));
    }
}

/// Takes a vCPU out of the queue it is in.
pub(super) fn leave<M: Machine>(hv: &Hypervisor<M>, vcpu: &Vcpu, timers: &mut VcpuTimers) {
    if let Some((cpu, at)) = timers.entry.take() {
        hv.timers.cpus[cpu as usize].lock().remove(at, vcpu);
    }
}

/// Takes the first vCPU whose entry is due on this CPU.
pub(super) fn take<M: Machine>(hv: &Hypervisor<M>, now: u64) -> Option<Arc<Vcpu>> {
    let mut queue = hv.timers.cpus[hv.machine.cpu().0 as usize].lock();
    queue.entries.pop_if(|entry| entry.at <= now).map(|entry| entry.vcpu)
}

/// Whether the deadline that the machine knows has passed.
pub(super) fn is_due<M: Machine>(hv: &Hypervisor<M>) -> bool {
    let programmed = hv.timers.cpus[hv.machine.cpu().0 as usize].lock().programmed;
    programmed.is_some_and(|at| at <= hv.machine.now())
}

/// The machine's deadline has passed.
pub(super) fn fired<M: Machine>(hv: &Hypervisor<M>) {
    hv.timers.cpus[hv.machine.cpu().0 as usize].lock().programmed = None;
}

/// Tells the machine the first deadline of this CPU.
pub(super) fn program<M: Machine>(hv: &Hypervisor<M>) {
    let slice_end = sched::slice_end(hv);
    let mut queue = hv.timers.cpus[hv.machine.cpu().0 as usize].lock();
    let next = [queue.first(), slice_end].into_iter().flatten().min();
    if queue.programmed != next {
        queue.programmed = next;
        hv.machine.set_deadline(next);
    }
}
