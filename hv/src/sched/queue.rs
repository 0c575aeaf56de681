//! Run queues.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering};

use pv_abi::vcpu::{RUNSTATE_BLOCKED, RUNSTATE_OFFLINE, RUNSTATE_RUNNABLE, RUNSTATE_RUNNING};
use spin::{Mutex, MutexGuard};

use super::placement;
use crate::Hypervisor;
use crate::domain::{Domain, Vcpu, stopped, work};
use crate::hardware::{CpuId, CpuSet, Machine};

/// How long a vCPU runs while others wait. Short, for the others may hold what it waits for: a kernel that spins on a lock
/// whose holder was preempted spins no longer than this and [`WAKE_CREDIT_NS`].
pub(super) const SLICE_NS: u64 = 1_000_000;
/// How far behind the others a vCPU may be when it wakes, in virtual time of the usual weight.
pub(super) const WAKE_CREDIT_NS: u64 = 1_000_000;
/// How often a CPU hands one who has used up its slice to another CPU, at most.
const HAND_OVER_NS: u64 = 10_000_000;
/// How far behind the running vCPU one must be that wakes, to take its place at once.
const PREEMPT_NS: u64 = 100_000;
/// The weight at which virtual time is time.
const USUAL_WEIGHT: u64 = 256;
/// [`Cpu::slice_end`]: no slice ends, nobody waits.
const NO_END: u64 = u64::MAX;

/// Where a vCPU is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Place {
    /// It does not want to run.
    Out,
    /// It waits in the run queue of its CPU.
    Waiting,
    /// Its CPU runs it.
    Running,
}

/// A vCPU's place in its run queue.
#[derive(Debug)]
pub struct VcpuSchedule {
    /// Its virtual time.
    virtual_ns: AtomicU64,
    /// Its [`Place`]; changes under the lock of its CPU's queue.
    place: AtomicU8,
    /// It lets others go first, once.
    yields: AtomicBool,
    /// It belongs to a CPU.
    member: AtomicBool,
    /// One more than the CPU it is pinned to; 0 for none.
    pub(super) pinned: AtomicU32,
    /// CPUs it may run on, as its toolstack said.
    pub(super) hard: AtomicU64,
    /// CPUs it likes to run on.
    pub(super) soft: AtomicU64,
    /// The port it polls, or [`super::wait::ANY_PORT`].
    pub(super) polled: AtomicU32,
}

impl Default for VcpuSchedule {
    fn default() -> Self {
        Self {
            virtual_ns: AtomicU64::new(0),
            place: AtomicU8::new(Place::Out as u8),
            yields: AtomicBool::new(false),
            member: AtomicBool::new(false),
            pinned: AtomicU32::new(0),
            hard: AtomicU64::new(u64::MAX),
            soft: AtomicU64::new(u64::MAX),
            polled: AtomicU32::new(0),
        }
    }
}

impl VcpuSchedule {
    pub(super) fn place(&self) -> Place {
        match self.place.load(Ordering::Acquire) {
            0 => Place::Out,
            1 => Place::Waiting,
            _ => Place::Running,
        }
    }

    fn set_place(&self, place: Place) {
        self.place.store(place as u8, Ordering::Release);
    }

    /// The CPU it is pinned to.
    pub(super) fn pinned_to(&self) -> Option<u32> {
        self.pinned.load(Ordering::Relaxed).checked_sub(1)
    }

    /// The CPUs it may run on now.
    #[inline]
    pub(super) fn allowed(&self) -> CpuSet {
        self.pinned_to().map_or(CpuSet(self.hard.load(Ordering::Relaxed)), |cpu| CpuSet::of(CpuId(cpu)))
    }

    fn virtual_ns(&self) -> u64 {
        self.virtual_ns.load(Ordering::Relaxed)
    }

    fn set_virtual_ns(&self, ns: u64) {
        self.virtual_ns.store(ns, Ordering::Relaxed);
    }
}

/// All run queues.
pub struct Scheduler {
    pub(super) cpus: Vec<Cpu>,
    /// CPUs on which nobody runs.
    pub(super) idle: AtomicU64,
}

#[derive(Default)]
pub(super) struct Cpu {
    pub(super) queue: Mutex<RunQueue>,
    /// How many wait in the queue.
    pub(super) waiting: AtomicU32,
    /// The weights of those who run or wait here, together.
    pub(super) load: AtomicU64,
    /// When the running slice ends.
    slice_end: AtomicU64,
    /// One has ended, and whoever ran has not been put down since; not more often than [`HAND_OVER_NS`].
    pub(super) slice_ended: AtomicBool,
    /// When that was.
    hand_over_at: AtomicU64,
    /// How many vCPUs belong here.
    members: AtomicU32,
    /// How long nobody ran, until `idle_since` or until now.
    idle_ns: AtomicU64,
    /// Since when nobody runs; 0 while somebody does.
    idle_since: AtomicU64,
    /// Whose address space is loaded; the CPU's own.
    pub(super) loaded: Mutex<Option<Arc<Domain>>>,
}

#[derive(Default)]
pub(super) struct RunQueue {
    /// Who waits: furthest behind last; of equals, who came first is last.
    pub(super) waiting: Vec<Arc<Vcpu>>,
    running: Option<Running>,
    /// The virtual time of whoever is furthest behind of those who want to run, never going back.
    clock: u64,
}

struct Running {
    vcpu: Arc<Vcpu>,
    /// Until when its virtual time is accounted.
    since: u64,
}

impl Default for Scheduler {
    /// For one CPU.
    fn default() -> Self {
        Self::new(1)
    }
}

impl Scheduler {
    /// Run queues for this many CPUs.
    #[must_use]
    pub fn new(cpus: u32) -> Self {
        let cpus: Vec<Cpu> = (0..cpus.max(1)).map(|_| Cpu::default()).collect();
        cpus.iter().for_each(|cpu| cpu.slice_end.store(NO_END, Ordering::Relaxed));
        Self { cpus, idle: AtomicU64::new(0) }
    }

    pub(super) fn cpu(&self, id: CpuId) -> &Cpu {
        &self.cpus[id.0 as usize]
    }

    /// The queue that a vCPU belongs to, locked, and its CPU.
    pub(super) fn home(&self, vcpu: &Vcpu) -> (&Cpu, u32, MutexGuard<'_, RunQueue>) {
        loop {
            let id = vcpu.cpu.load(Ordering::Acquire);
            let cpu = &self.cpus[id as usize];
            let queue = cpu.queue.lock();
            if vcpu.cpu.load(Ordering::Acquire) == id {
                return (cpu, id, queue);
            }
        }
    }
}

impl Cpu {
    /// Says for other CPUs to see how many wait in its queue, and how much work that is.
    pub(super) fn publish(&self, queue: &RunQueue) {
        self.waiting.store(queue.waiting.len() as u32, Ordering::SeqCst);
        let running = queue.running.iter().map(|running| &running.vcpu);
        self.load.store(queue.waiting.iter().chain(running).map(|vcpu| weight(vcpu)).sum(), Ordering::Relaxed);
    }

    /// Accounts whether somebody runs here.
    fn set_idle(&self, idle: bool, now: u64) {
        let since = self.idle_since.swap(if idle { now.max(1) } else { 0 }, Ordering::Relaxed);
        if since != 0 {
            self.idle_ns.fetch_add(now.saturating_sub(since), Ordering::Relaxed);
        }
    }
}

/// A vCPU's share of its CPU.
pub(super) fn weight(vcpu: &Vcpu) -> u64 {
    u64::from(vcpu.domain.weight.load(Ordering::Relaxed)).max(1)
}

/// How long a CPU was idle, in nanoseconds.
#[must_use]
pub fn idle_time<M: Machine>(hv: &Hypervisor<M>, cpu: CpuId) -> u64 {
    let cpu = hv.scheduler.cpu(cpu);
    let now = hv.machine.now();
    let since = cpu.idle_since.load(Ordering::Relaxed);
    cpu.idle_ns.load(Ordering::Relaxed) + if since == 0 { 0 } else { now.saturating_sub(since) }
}

impl RunQueue {
    /// Accounts what the running vCPU has used.
    pub(super) fn charge(&mut self, now: u64) {
        if let Some(running) = &mut self.running {
            let used = now.saturating_sub(running.since).saturating_mul(USUAL_WEIGHT) / weight(&running.vcpu);
            let schedule = &running.vcpu.schedule;
            let virtual_ns = schedule.virtual_ns().saturating_add(used);
            schedule.set_virtual_ns(virtual_ns);
            running.since = now;
            let behind = self.waiting.last().map_or(virtual_ns, |behind| behind.schedule.virtual_ns());
            self.clock = self.clock.max(virtual_ns.min(behind));
        }
    }

    /// Takes who waits at a place of the queue, to let it wait on another CPU: its virtual time is what it is ahead of this
    /// queue's.
    pub(super) fn remove(&mut self, index: usize) -> Arc<Vcpu> {
        let vcpu = self.waiting.remove(index);
        vcpu.schedule.set_virtual_ns(vcpu.schedule.virtual_ns().wrapping_sub(self.clock));
        vcpu
    }

    /// Lets one wait here that was [removed](Self::remove) from another queue.
    pub(super) fn insert_moved(&mut self, vcpu: Arc<Vcpu>) {
        let ahead = vcpu.schedule.virtual_ns().cast_signed();
        vcpu.schedule.set_virtual_ns(self.clock.saturating_add_signed(ahead));
        self.insert(vcpu);
    }

    /// Lets a vCPU wait.
    fn insert(&mut self, vcpu: Arc<Vcpu>) {
        vcpu.schedule.set_place(Place::Waiting);
        let virtual_ns = vcpu.schedule.virtual_ns();
        let place = self.waiting.partition_point(|other| other.schedule.virtual_ns() > virtual_ns);
        self.waiting.insert(place, vcpu);
    }

    /// Takes who is furthest behind and runnable.
    fn take(&mut self) -> Option<Arc<Vcpu>> {
        while let Some(vcpu) = self.waiting.pop() {
            if vcpu.is_runnable() {
                return Some(vcpu);
            }
            leave(&vcpu);
        }
        None
    }
}

/// The state that a vCPU is in which does not run.
fn resting_state(vcpu: &Vcpu) -> i32 {
    let why = vcpu.stopped.load(Ordering::Acquire);
    if why & (stopped::BLOCKED | stopped::POLLING | stopped::ASKING) != 0 {
        RUNSTATE_BLOCKED
    } else if vcpu.is_runnable() {
        RUNSTATE_RUNNABLE
    } else {
        RUNSTATE_OFFLINE
    }
}

/// A vCPU that was chosen cannot run here after all.
pub(super) fn abandon<M: Machine>(hv: &Hypervisor<M>, vcpu: &Vcpu) {
    let mut queue = hv.scheduler.cpu(hv.machine.cpu()).queue.lock();
    queue.running = None;
    leave(vcpu);
}

/// A vCPU does not want to run.
pub(super) fn leave(vcpu: &Vcpu) {
    vcpu.schedule.set_place(Place::Out);
}

/// Who ran, and who runs now.
pub(super) struct Choice {
    pub(super) before: Option<Arc<Vcpu>>,
    pub(super) next: Option<Arc<Vcpu>>,
}

impl Choice {
    /// Whether the same goes on.
    pub(super) fn is_same(&self) -> bool {
        match (&self.before, &self.next) {
            (Some(before), Some(next)) => Arc::ptr_eq(before, next),
            (None, None) => true,
            _ => false,
        }
    }
}

/// Chooses who runs on this CPU.
pub(super) fn choose<M: Machine>(hv: &Hypervisor<M>) -> Choice {
    let now = hv.machine.now();
    let here = hv.machine.cpu();
    let cpu = hv.scheduler.cpu(here);
    let mut queue = cpu.queue.lock();
    queue.charge(now);
    let before = queue.running.take().map(|running| running.vcpu);
    if let Some(before) = &before {
        put_back(&mut queue, before, here);
    }
    let mut next = queue.take();
    if next.is_none() && hv.scheduler.cpus.len() > 1 {
        // Idle first, then looking: whoever lets somebody wait elsewhere sees the one, or is seen.
        hv.scheduler.idle.fetch_or(CpuSet::of(here).0, Ordering::SeqCst);
        cpu.publish(&queue);
        drop(queue);
        let stolen = placement::steal(hv);
        queue = cpu.queue.lock();
        // Somebody may have been woken here meanwhile; then both wait.
        if let Some(stolen) = stolen {
            queue.insert_moved(stolen);
        }
        next = queue.take();
    }
    if let Some(next) = &next {
        next.schedule.set_place(Place::Running);
        queue.clock = queue.clock.max(next.schedule.virtual_ns());
        queue.running = Some(Running { vcpu: next.clone(), since: now });
        if CpuSet(hv.scheduler.idle.load(Ordering::Relaxed)).contains(here) {
            hv.scheduler.idle.fetch_and(!CpuSet::of(here).0, Ordering::SeqCst);
        }
    } else {
        hv.scheduler.idle.fetch_or(CpuSet::of(here).0, Ordering::SeqCst);
    }
    cpu.set_idle(next.is_none(), now);
    cpu.publish(&queue);
    start_slice(cpu, &queue, now);
    let choice = Choice { before, next };
    if !choice.is_same() {
        account_states(&choice, now);
    }
    choice
}

/// Whoever ran waits again, or leaves. One that may not run here leaves too; it is woken when its state has been put down.
fn put_back(queue: &mut RunQueue, before: &Arc<Vcpu>, here: CpuId) {
    if !before.is_runnable() || !before.schedule.allowed().contains(here) {
        return leave(before);
    }
    if before.schedule.yields.swap(false, Ordering::Relaxed)
        && let Some(behind) = queue.waiting.last()
    {
        let after = behind.schedule.virtual_ns().saturating_add(1);
        before.schedule.set_virtual_ns(before.schedule.virtual_ns().max(after));
    }
    queue.insert(before.clone());
}

fn account_states(choice: &Choice, now: u64) {
    if let Some(before) = &choice.before {
        before.runstate.lock().enter(resting_state(before), now);
    }
    if let Some(next) = &choice.next {
        next.runstate.lock().enter(RUNSTATE_RUNNING, now);
    }
}

pub(super) fn start_slice(cpu: &Cpu, queue: &RunQueue, now: u64) {
    let slices = queue.running.is_some() && !queue.waiting.is_empty();
    cpu.slice_end.store(if slices { now.saturating_add(SLICE_NS) } else { NO_END }, Ordering::Relaxed);
}

/// Whether somebody waits who is behind the running vCPU, or it has let others go first.
pub(super) fn should_switch<M: Machine>(hv: &Hypervisor<M>, current: &Vcpu) -> bool {
    let here = hv.machine.cpu();
    let cpu = hv.scheduler.cpu(here);
    if !current.schedule.allowed().contains(here) {
        return true;
    }
    if cpu.waiting.load(Ordering::Acquire) == 0 {
        current.schedule.yields.store(false, Ordering::Relaxed);
        return false;
    }
    let now = hv.machine.now();
    let mut queue = cpu.queue.lock();
    queue.charge(now);
    let Some(behind) = queue.waiting.last() else {
        return false;
    };
    let switches =
        current.schedule.yields.load(Ordering::Relaxed) || behind.schedule.virtual_ns() < current.schedule.virtual_ns();
    if !switches {
        start_slice(cpu, &queue, now);
    }
    switches
}

/// Whether anybody waits on this CPU.
#[inline]
pub(super) fn anybody_waits<M: Machine>(hv: &Hypervisor<M>) -> bool {
    hv.scheduler.cpu(hv.machine.cpu()).waiting.load(Ordering::Acquire) != 0
}

/// The running vCPU lets others go first, once.
#[cold]
pub(super) fn let_others_go(current: &Vcpu) {
    current.schedule.yields.store(true, Ordering::Relaxed);
    current.raise(work::RESCHEDULE);
}

/// Lets a runnable vCPU wait for its turn, unless it does or runs.
pub(super) fn wake<M: Machine>(hv: &Hypervisor<M>, vcpu: &Arc<Vcpu>) {
    let now = hv.machine.now();
    let (mut cpu, mut id, mut queue) = hv.scheduler.home(vcpu);
    if vcpu.schedule.place() != Place::Out {
        return;
    }
    let better = placement::place(hv, vcpu, CpuId(id)).0;
    if better != id {
        let ahead = vcpu.schedule.virtual_ns().wrapping_sub(queue.clock).cast_signed();
        vcpu.schedule.set_virtual_ns(0);
        vcpu.cpu.store(better, Ordering::SeqCst);
        drop(queue);
        (cpu, id, queue) = hv.scheduler.home(vcpu);
        if vcpu.schedule.place() != Place::Out {
            return;
        }
        vcpu.schedule.set_virtual_ns(queue.clock.saturating_add_signed(ahead));
    }
    vcpu.runstate.lock().enter(RUNSTATE_RUNNABLE, now);
    queue.charge(now);
    let earliest = queue.clock.saturating_sub(WAKE_CREDIT_NS);
    vcpu.schedule.set_virtual_ns(vcpu.schedule.virtual_ns().max(earliest));
    queue.insert(vcpu.clone());
    announce(hv, cpu, CpuId(id), queue, vcpu, now);
}

/// A vCPU was put into a queue: its CPU gets to know what has to change.
pub(super) fn announce<M: Machine>(
    hv: &Hypervisor<M>,
    cpu: &Cpu,
    id: CpuId,
    queue: MutexGuard<'_, RunQueue>,
    vcpu: &Vcpu,
    now: u64,
) {
    cpu.publish(&queue);
    let (mut preempts, mut slices) = (true, false);
    if let Some(running) = &queue.running {
        slices = cpu.slice_end.load(Ordering::Relaxed) == NO_END;
        if slices {
            start_slice(cpu, &queue, now);
        }
        let behind = vcpu.schedule.virtual_ns().saturating_add(PREEMPT_NS);
        preempts = behind < running.vcpu.schedule.virtual_ns();
        if preempts {
            running.vcpu.raise(work::RESCHEDULE);
        }
    }
    drop(queue);
    if id != hv.machine.cpu() {
        if preempts || slices {
            hv.machine.interrupt_cpu(id);
        }
    } else if !preempts {
        crate::time::program(hv);
    }
}

/// Interrupts the CPU that runs a vCPU, if that is another one.
pub(super) fn kick<M: Machine>(hv: &Hypervisor<M>, vcpu: &Vcpu) {
    let cpu = vcpu.cpu.load(Ordering::Acquire);
    if cpu != hv.machine.cpu().0 {
        hv.machine.interrupt_cpu(CpuId(cpu));
    }
}

/// The running vCPU's slice has ended, if it has: somebody else may have to run.
pub(crate) fn end_slice<M: Machine>(hv: &Hypervisor<M>, now: u64) {
    let cpu = hv.scheduler.cpu(hv.machine.cpu());
    if cpu.slice_end.load(Ordering::Relaxed) > now {
        return;
    }
    let queue = cpu.queue.lock();
    start_slice(cpu, &queue, now);
    if let Some(running) = &queue.running {
        running.vcpu.raise(work::RESCHEDULE);
        if now.saturating_sub(cpu.hand_over_at.load(Ordering::Relaxed)) >= HAND_OVER_NS {
            cpu.hand_over_at.store(now, Ordering::Relaxed);
            cpu.slice_ended.store(true, Ordering::Relaxed);
        }
    }
}

/// When the slice that runs on this CPU ends.
pub(crate) fn slice_end<M: Machine>(hv: &Hypervisor<M>) -> Option<u64> {
    let end = hv.scheduler.cpu(hv.machine.cpu()).slice_end.load(Ordering::Relaxed);
    (end != NO_END).then_some(end)
}

/// Gives a new vCPU to the CPU that has fewest.
pub(super) fn add<M: Machine>(hv: &Hypervisor<M>, vcpu: &Arc<Vcpu>) {
    let cpus = hv.scheduler.cpus.iter().enumerate();
    if let Some((id, cpu)) = cpus.min_by_key(|(_, cpu)| cpu.members.load(Ordering::Relaxed)) {
        cpu.members.fetch_add(1, Ordering::Relaxed);
        vcpu.schedule.member.store(true, Ordering::Relaxed);
        vcpu.cpu.store(id as u32, Ordering::Release);
        vcpu.schedule.set_virtual_ns(cpu.queue.lock().clock);
    }
}

/// Pins the running vCPU to a CPU, where it runs from its next turn on, or lets it go where it will.
pub(super) fn pin(vcpu: &Vcpu, to: Option<u32>) {
    vcpu.schedule.pinned.store(to.map_or(0, |cpu| cpu + 1), Ordering::Relaxed);
    vcpu.raise(work::RESCHEDULE);
}

/// Forgets a vCPU, unless that has happened.
pub(super) fn remove<M: Machine>(hv: &Hypervisor<M>, vcpu: &Vcpu) {
    let (cpu, _, mut queue) = hv.scheduler.home(vcpu);
    queue.waiting.retain(|other| !core::ptr::eq(&**other, vcpu));
    cpu.publish(&queue);
    if vcpu.schedule.member.swap(false, Ordering::Relaxed) {
        cpu.members.fetch_sub(1, Ordering::Relaxed);
    }
    if vcpu.schedule.place() == Place::Waiting {
        leave(vcpu);
    }
}
