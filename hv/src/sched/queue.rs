//! Run queues.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering};

use pv_abi::vcpu::{RUNSTATE_BLOCKED, RUNSTATE_OFFLINE, RUNSTATE_RUNNABLE, RUNSTATE_RUNNING};
use spin::{Mutex, MutexGuard};

use crate::Hypervisor;
use crate::domain::{Vcpu, stopped, work};
use crate::hardware::{CpuId, Machine};

/// How long a vCPU runs while others wait.
pub(super) const SLICE_NS: u64 = 10_000_000;
/// How far behind the others a vCPU may be when it wakes, in virtual time of the usual weight.
pub(super) const WAKE_CREDIT_NS: u64 = 5_000_000;
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
#[derive(Debug, Default)]
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
    pinned: AtomicU32,
    /// The port it polls, or [`super::wait::ANY_PORT`].
    pub(super) polled: AtomicU32,
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

    fn virtual_ns(&self) -> u64 {
        self.virtual_ns.load(Ordering::Relaxed)
    }

    fn set_virtual_ns(&self, ns: u64) {
        self.virtual_ns.store(ns, Ordering::Relaxed);
    }
}

/// All run queues.
pub struct Scheduler {
    cpus: Vec<Cpu>,
}

#[derive(Default)]
struct Cpu {
    queue: Mutex<RunQueue>,
    /// How many wait in the queue.
    waiting: AtomicU32,
    /// When the running slice ends.
    slice_end: AtomicU64,
    /// Nobody runs.
    idle: AtomicBool,
    /// How many vCPUs belong here.
    members: AtomicU32,
}

#[derive(Default)]
struct RunQueue {
    /// Who waits: furthest behind last; of equals, who came first is last.
    waiting: Vec<Arc<Vcpu>>,
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
        Self { cpus }
    }

    fn cpu(&self, id: CpuId) -> &Cpu {
        &self.cpus[id.0 as usize]
    }

    /// The queue that a vCPU belongs to, locked, and its CPU.
    fn home(&self, vcpu: &Vcpu) -> (&Cpu, u32, MutexGuard<'_, RunQueue>) {
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
    fn count_waiting(&self, queue: &RunQueue) {
        self.waiting.store(queue.waiting.len() as u32, Ordering::Release);
    }
}

impl RunQueue {
    /// Accounts what the running vCPU has used.
    fn charge(&mut self, now: u64) {
        if let Some(running) = &mut self.running {
            let weight = u64::from(running.vcpu.domain.weight.load(Ordering::Relaxed)).max(1);
            let used = now.saturating_sub(running.since).saturating_mul(USUAL_WEIGHT) / weight;
            let schedule = &running.vcpu.schedule;
            let virtual_ns = schedule.virtual_ns().saturating_add(used);
            schedule.set_virtual_ns(virtual_ns);
            running.since = now;
            let behind = self.waiting.last().map_or(virtual_ns, |behind| behind.schedule.virtual_ns());
            self.clock = self.clock.max(virtual_ns.min(behind));
        }
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
    if why & (stopped::BLOCKED | stopped::POLLING) != 0 {
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
fn leave(vcpu: &Vcpu) {
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
    let cpu = hv.scheduler.cpu(hv.machine.cpu());
    let mut queue = cpu.queue.lock();
    queue.charge(now);
    let before = queue.running.take().map(|running| running.vcpu);
    if let Some(before) = &before {
        put_back(&mut queue, before, hv.machine.cpu());
    }
    let mut next = queue.take();
    if next.is_none() && hv.scheduler.cpus.len() > 1 {
        drop(queue);
        let stolen = steal(hv);
        queue = cpu.queue.lock();
        // Somebody may have been woken here meanwhile; then both wait.
        if let Some(stolen) = stolen {
            let ns = stolen.schedule.virtual_ns().max(queue.clock);
            stolen.schedule.set_virtual_ns(ns);
            queue.insert(stolen);
        }
        next = queue.take();
    }
    if let Some(next) = &next {
        next.schedule.set_place(Place::Running);
        queue.clock = queue.clock.max(next.schedule.virtual_ns());
        queue.running = Some(Running { vcpu: next.clone(), since: now });
    }
    cpu.idle.store(next.is_none(), Ordering::SeqCst);
    cpu.count_waiting(&queue);
    start_slice(cpu, &queue, now);
    let choice = Choice { before, next };
    if !choice.is_same() {
        account_states(&choice, now);
    }
    choice
}

/// Whoever ran waits again, or leaves. One that belongs on another CPU leaves too; it is woken there when its state has
/// been put down.
fn put_back(queue: &mut RunQueue, before: &Arc<Vcpu>, here: CpuId) {
    if let Some(other) = before.schedule.pinned_to().filter(|cpu| *cpu != here.0) {
        before.cpu.store(other, Ordering::Release);
        return leave(before);
    }
    if !before.is_runnable() {
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

fn start_slice(cpu: &Cpu, queue: &RunQueue, now: u64) {
    let slices = queue.running.is_some() && !queue.waiting.is_empty();
    cpu.slice_end.store(if slices { now.saturating_add(SLICE_NS) } else { NO_END }, Ordering::Relaxed);
}

/// Takes somebody from another CPU's queue, whose state is at hand.
fn steal<M: Machine>(hv: &Hypervisor<M>) -> Option<Arc<Vcpu>> {
    let here = hv.machine.cpu();
    for (id, cpu) in hv.scheduler.cpus.iter().enumerate() {
        if id == here.0 as usize || cpu.waiting.load(Ordering::Acquire) == 0 {
            continue;
        }
        let mut queue = cpu.queue.lock();
        let found = queue.waiting.iter().rposition(|vcpu| is_movable(vcpu));
        if let Some(index) = found {
            let vcpu = queue.waiting.remove(index);
            cpu.count_waiting(&queue);
            vcpu.cpu.store(here.0, Ordering::Release);
            return Some(vcpu);
        }
    }
    None
}

fn is_movable(vcpu: &Vcpu) -> bool {
    vcpu.schedule.pinned_to().is_none() && vcpu.state.try_lock().is_some_and(|state| state.is_some())
}

/// Whether somebody waits who is behind the running vCPU, or it has let others go first.
pub(super) fn should_switch<M: Machine>(hv: &Hypervisor<M>, current: &Vcpu) -> bool {
    let here = hv.machine.cpu();
    let cpu = hv.scheduler.cpu(here);
    if current.schedule.pinned_to().is_some_and(|cpu| cpu != here.0) {
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
    if let Some(better) = idle_cpu(hv, vcpu, cpu) {
        vcpu.cpu.store(better, Ordering::Release);
        drop(queue);
        (cpu, id, queue) = hv.scheduler.home(vcpu);
        if vcpu.schedule.place() != Place::Out {
            return;
        }
    }
    vcpu.runstate.lock().enter(RUNSTATE_RUNNABLE, now);
    queue.charge(now);
    let earliest = queue.clock.saturating_sub(WAKE_CREDIT_NS);
    vcpu.schedule.set_virtual_ns(vcpu.schedule.virtual_ns().max(earliest));
    queue.insert(vcpu.clone());
    cpu.count_waiting(&queue);
    let preempts = match &queue.running {
        None => true,
        Some(running) => {
            if cpu.slice_end.load(Ordering::Relaxed) == NO_END {
                start_slice(cpu, &queue, now);
            }
            let behind = vcpu.schedule.virtual_ns().saturating_add(PREEMPT_NS);
            let preempts = behind < running.vcpu.schedule.virtual_ns();
            if preempts {
                running.vcpu.raise(work::RESCHEDULE);
            }
            preempts
        }
    };
    drop(queue);
    if id != hv.machine.cpu().0 {
        hv.machine.interrupt_cpu(CpuId(id));
    } else if !preempts {
        crate::time::program(hv);
    }
}

/// A CPU that has nothing to do, for a vCPU that would have to wait on its own.
fn idle_cpu<M: Machine>(hv: &Hypervisor<M>, vcpu: &Vcpu, own: &Cpu) -> Option<u32> {
    if hv.scheduler.cpus.len() == 1 || own.idle.load(Ordering::SeqCst) || !is_movable(vcpu) {
        return None;
    }
    let found = hv.scheduler.cpus.iter().position(|cpu| cpu.idle.load(Ordering::SeqCst));
    found.map(|id| id as u32)
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
    cpu.count_waiting(&queue);
    if vcpu.schedule.member.swap(false, Ordering::Relaxed) {
        cpu.members.fetch_sub(1, Ordering::Relaxed);
    }
    if vcpu.schedule.place() == Place::Waiting {
        leave(vcpu);
    }
}
