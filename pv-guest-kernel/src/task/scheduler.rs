//! Keeps the threads, gives each CPU one of them, and programs the timers.
//!
//! A switch happens with interrupts off: in [`wait`], in [`yield_now`], or at the end of an interrupt when the running
//! thread is to give way ([`on_interrupt_end`]). To leave and to choose who comes next is one step under one lock
//! ([`Scheduler::turn`]). The stacks are switched after that, without the lock; meanwhile the thread that left may have
//! been chosen by another CPU, which waits until its registers are on its stack ([`Thread::on_cpu`]). The thread that runs
//! after a switch finishes it ([`finish_switch`]): a thread that died cannot free the stack it stands on.
//!
//! Invariants:
//! - a CPU waits only for one that made its choice earlier, so none waits in a circle: whoever chose a thread found it in
//!   the queue, where it was put by a CPU that had chosen before;
//! - a wake-up is never lost: one that comes while its thread still runs lets the thread's next [`wait`] return at once.

use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

#[cfg(target_os = "none")]
pub(crate) use self::idle::{ask_to_leave, join, prepare_cpu};
use super::run_queue::{RunQueue, SLICE_NS};
use super::thread::{Body, State, Thread, ThreadId};
use crate::cpus::{self, CpuSet, MAX_CPUS};
use crate::mm::Pfn;
use crate::platform::fpu::FpuState;
use crate::process::Process;
use crate::sync::{IrqGuard, IrqLock, Spin};
use crate::{platform, time};

#[cfg(target_os = "none")]
mod idle;

/// What the scheduler knows of a CPU.
struct Cpu {
    idle: Option<Arc<Thread>>,
    /// When the current thread got the CPU.
    since_ns: u64,
    /// What the timer is set to.
    timer_ns: u64,
}

/// Everything the scheduler knows.
struct Scheduler {
    threads: BTreeMap<ThreadId, Arc<Thread>>,
    queue: RunQueue<ThreadId>,
    cpus: [Cpu; MAX_CPUS],
    /// CPUs with nothing to do, which nobody has called yet.
    idle: CpuSet,
    /// CPUs that take no more threads.
    leaving: CpuSet,
}

static SCHEDULER: IrqLock<Scheduler> = IrqLock::new(Scheduler {
    threads: BTreeMap::new(),
    queue: RunQueue::new(),
    cpus: [const { Cpu { idle: None, since_ns: 0, timer_ns: u64::MAX } }; MAX_CPUS],
    idle: CpuSet::EMPTY,
    leaving: CpuSet::EMPTY,
});

/// What a CPU alone changes; others look at it now and then.
struct Slot {
    current: Option<Arc<Thread>>,
    /// The thread that was switched away from last, until its registers are known to be saved.
    left: Option<Arc<Thread>>,
}

static SLOTS: [IrqLock<Slot>; MAX_CPUS] = [const { IrqLock::new(Slot { current: None, left: None }) }; MAX_CPUS];
/// The CPU is to look for another thread at the end of the interrupt.
static NEED_SWITCH: [AtomicBool; MAX_CPUS] = [const { AtomicBool::new(false) }; MAX_CPUS];
static NEXT_ID: AtomicU64 = AtomicU64::new(1);
static SWITCHES: AtomicU64 = AtomicU64::new(0);
static CALLS_HEARD: AtomicU64 = AtomicU64::new(0);

/// How often a CPU went from one thread to another.
#[must_use]
pub fn switches() -> u64 {
    SWITCHES.load(Ordering::Relaxed)
}

/// The running thread.
///
/// # Panics
/// Before the scheduler has started.
#[must_use]
pub fn current() -> Arc<Thread> {
    let _irq = IrqGuard::new();
    SLOTS[cpus::current()].lock().current.clone().expect("threads have started")
}

/// The process of the running thread, for whoever has interrupts off: each system call asks.
pub(crate) fn current_process() -> Option<Arc<Process>> {
    let slot = SLOTS[cpus::current()].lock_masked();
    slot.current.as_ref()?.process.lock_masked().clone()
}

/// All threads, by number.
#[must_use]
pub fn threads() -> Vec<Arc<Thread>> {
    SCHEDULER.lock().threads.values().cloned().collect()
}

/// Nanoseconds that `cpu` has been idle, without the current turn.
#[must_use]
pub fn idle_ns(cpu: usize) -> u64 {
    let scheduler = SCHEDULER.lock();
    scheduler.cpus[cpu].idle.as_ref().map_or(0, |idle| idle.cpu_ns.load(Ordering::Relaxed))
}

/// Pages of a thread's kernel stack, if it asks for nothing else.
const STACK_PAGES: usize = 16;

/// Starts a thread that runs `body` and ends.
pub fn spawn(name: impl Into<String>, body: impl FnOnce() + Send + 'static) -> Arc<Thread> {
    spawn_with_stack(name, STACK_PAGES, body)
}

/// As [`spawn`], with a stack of `stack_pages` pages.
pub fn spawn_with_stack(
    name: impl Into<String>,
    stack_pages: usize,
    body: impl FnOnce() + Send + 'static,
) -> Arc<Thread> {
    let thread = new_thread(name.into(), stack_pages, alloc::boxed::Box::new(body));
    admit(&thread);
    thread
}

/// Makes a thread that does not run before it is [admitted](admit).
pub(crate) fn create(name: impl Into<String>, body: impl FnOnce() + Send + 'static) -> Arc<Thread> {
    new_thread(name.into(), STACK_PAGES, alloc::boxed::Box::new(body))
}

/// Lets a new thread run.
pub(crate) fn admit(thread: &Arc<Thread>) {
    let mut scheduler = SCHEDULER.lock();
    scheduler.threads.insert(thread.id, thread.clone());
    scheduler.make_ready(thread.id);
}

fn new_thread(name: String, stack_pages: usize, body: Body) -> Arc<Thread> {
    let id = ThreadId(NEXT_ID.fetch_add(1, Ordering::Relaxed));
    #[cfg(target_os = "none")]
    let stack = super::stack::KernelStack::new(stack_pages);
    #[cfg(not(target_os = "none"))]
    let _ = stack_pages;
    #[cfg(target_os = "none")]
    let first_sp = platform::switch::prepare(stack.top());
    #[cfg(not(target_os = "none"))]
    let first_sp = 0;
    Arc::new(Thread {
        id,
        name,
        cpu_ns: AtomicU64::new(0),
        done: Arc::default(),
        state: IrqLock::new(State::Runnable),
        woken: AtomicBool::new(false),
        cpu: 0.into(),
        on_cpu: AtomicBool::new(false),
        saved_sp: first_sp.into(),
        body: IrqLock::new(Some(body)),
        process: IrqLock::new(None),
        user_frame: IrqLock::new(None),
        #[cfg(target_os = "none")]
        stack,
        user_root: AtomicU64::new(0),
        fpu: IrqLock::new(FpuState::INITIAL),
    })
}

/// Why a thread leaves its CPU.
#[derive(Clone, Copy)]
enum Leave {
    /// Others first.
    Yield,
    /// Until woken, or until the deadline.
    Wait { deadline_ns: Option<u64> },
    /// For ever.
    Exit,
}

/// A choice that was made: from which stack to which.
struct Turn {
    next: Arc<Thread>,
    prev_sp: *mut usize,
}

impl Scheduler {
    /// Puts a thread into the queue and sees to it that a CPU takes it.
    fn make_ready(&mut self, id: ThreadId) {
        self.queue.make_ready(id);
        let here = cpus::current();
        let for_me = self.idle.contains(here) && self.queue.ready() == 1;
        let helper = if for_me { Some(here) } else { CpuSet(self.idle.0 & !CpuSet::only(here).0).first() };
        let cpu = helper.unwrap_or(here);
        self.idle.remove(cpu);
        NEED_SWITCH[cpu].store(true, Ordering::Release);
        if cpu != here {
            platform::current().kick(cpu);
        } else if helper.is_none() {
            self.arm_timer(here);
        }
    }

    fn arm_timer(&mut self, cpu: usize) {
        let now = time::now_ns();
        // Another CPU may put a thread into the queue at any time; with one CPU there is an interrupt or a call first.
        let in_turns = self.queue.has_ready() || (cpus::online().len() > 1 && !self.is_idle(cpu));
        let Some(wanted) = self.queue.next_timer(cpu, now, in_turns) else {
            return;
        };
        // A timer that fires early does no harm; one that fires late does.
        let timer_ns = &mut self.cpus[cpu].timer_ns;
        if wanted < *timer_ns || *timer_ns <= now {
            *timer_ns = wanted;
            platform::current().set_timer(wanted);
        }
    }

    fn wake(&mut self, thread: &Arc<Thread>) {
        let mut state = thread.state.lock();
        match *state {
            State::Waiting { deadline_ns } => {
                if let Some(deadline) = deadline_ns {
                    self.queue.cancel_sleep(thread.cpu(), thread.id, deadline);
                }
                *state = State::Runnable;
                self.make_ready(thread.id);
            }
            State::Runnable => thread.woken.store(true, Ordering::Relaxed),
            State::Dead => {}
        }
    }

    fn wake_expired(&mut self, cpu: usize, now_ns: u64) {
        while let Some(id) = self.queue.pop_expired(cpu, now_ns) {
            if let Some(thread) = self.threads.get(&id).cloned() {
                self.wake(&thread);
            }
        }
    }

    fn is_idle(&self, cpu: usize) -> bool {
        let slot = SLOTS[cpu].lock();
        match (&self.cpus[cpu].idle, &slot.current) {
            (Some(idle), Some(current)) => Arc::ptr_eq(idle, current),
            _ => false,
        }
    }

    /// Takes the current thread of `cpu` to where it belongs and chooses the next one. `None`: it goes on.
    fn turn(&mut self, cpu: usize, leave: Leave) -> Option<Turn> {
        let prev = SLOTS[cpu].lock().current.clone().expect("threads have started");
        let now = time::now_ns();
        if !self.leave(cpu, &prev, leave, now) {
            self.arm_timer(cpu);
            return None;
        }
        let next = self.choose(cpu);
        self.idle.remove(cpu);
        if self.cpus[cpu].idle.as_ref().is_some_and(|idle| Arc::ptr_eq(idle, &next)) && !self.leaving.contains(cpu) {
            self.idle.insert(cpu);
        }
        if Arc::ptr_eq(&prev, &next) {
            self.arm_timer(cpu);
            return None;
        }
        let used = now.saturating_sub(self.cpus[cpu].since_ns);
        prev.cpu_ns.fetch_add(used, Ordering::Relaxed);
        self.cpus[cpu].since_ns = now;
        next.cpu.store(cpu, Ordering::Relaxed);
        if prev.user_root().is_some() {
            prev.fpu.lock().save();
        }
        let prev_sp = prev.saved_sp.as_ptr();
        {
            let mut slot = SLOTS[cpu].lock();
            slot.current = Some(next.clone());
            slot.left = Some(prev);
        }
        self.arm_timer(cpu);
        Some(Turn { next, prev_sp })
    }

    /// Puts `me` where `leave` says; false when it goes on.
    fn leave(&mut self, cpu: usize, me: &Arc<Thread>, leave: Leave, now_ns: u64) -> bool {
        match leave {
            Leave::Yield => {
                self.wake_expired(cpu, now_ns);
                NEED_SWITCH[cpu].store(false, Ordering::Relaxed);
                let leaving = self.leaving.contains(cpu);
                if self.is_idle(cpu) {
                    // Chosen again, if there is nobody else.
                    return true;
                }
                if !leaving && !self.queue.has_ready() {
                    return false;
                }
                self.queue.make_ready(me.id);
                if leaving {
                    self.call_another(cpu);
                }
            }
            Leave::Wait { deadline_ns } => {
                if me.woken.swap(false, Ordering::Relaxed) {
                    return false;
                }
                *me.state.lock() = State::Waiting { deadline_ns };
                if let Some(deadline) = deadline_ns {
                    self.queue.sleep_until(cpu, me.id, deadline);
                }
            }
            Leave::Exit => {
                *me.state.lock() = State::Dead;
                self.threads.remove(&me.id);
            }
        }
        true
    }

    /// `cpu` leaves a thread in the queue that it will not take itself.
    fn call_another(&mut self, cpu: usize) {
        if let Some(helper) = CpuSet(self.idle.0 & !CpuSet::only(cpu).0).first() {
            self.idle.remove(helper);
            NEED_SWITCH[helper].store(true, Ordering::Release);
            platform::current().kick(helper);
        }
    }

    fn choose(&mut self, cpu: usize) -> Arc<Thread> {
        let next = if self.leaving.contains(cpu) { None } else { self.queue.pop_ready() };
        next.and_then(|id| self.threads.get(&id).cloned())
            .or_else(|| self.cpus[cpu].idle.clone())
            .expect("there is an idle thread")
    }
}

/// Makes a waiting thread ready. One that does not wait yet finds that it was woken when it wants to.
pub fn wake(thread: &Arc<Thread>) {
    SCHEDULER.lock().wake(thread);
}

/// Gives up the CPU until [`wake`] or the deadline; may return early. Interrupts are off, and stay off; the caller has put
/// itself where a waker finds it.
pub(super) fn wait(deadline_ns: Option<u64>) {
    switch(Leave::Wait { deadline_ns });
}

/// Lets the other ready threads run first.
pub fn yield_now() {
    let _irq = IrqGuard::new();
    switch(Leave::Yield);
}

/// Sleeps for `duration_ns`.
pub fn sleep_ns(duration_ns: u64) {
    sleep_until(time::now_ns() + duration_ns);
}

/// Sleeps until `deadline_ns` on the clock of [`time::now_ns`].
pub fn sleep_until(deadline_ns: u64) {
    let _irq = IrqGuard::new();
    while time::now_ns() < deadline_ns {
        wait(Some(deadline_ns));
    }
}

/// Ends the running thread.
pub fn exit() -> ! {
    let _irq = IrqGuard::new();
    current().done.raise();
    switch(Leave::Exit);
    unreachable!("a dead thread ran");
}

/// Gives the CPU to the next thread, if there is one. Interrupts are off.
fn switch(leave: Leave) {
    let Some(turn) = SCHEDULER.lock().turn(cpus::current(), leave) else {
        return;
    };
    SWITCHES.fetch_add(1, Ordering::Relaxed);
    let next_sp = arrive(&turn.next);
    drop(turn.next);
    platform_switch(turn.prev_sp, next_sp);
    finish_switch();
}

/// Waits until `next` has left the CPU it was on, takes it, and prepares for its user mode; its stack pointer.
fn arrive(next: &Thread) -> usize {
    let mut spin = Spin::default();
    while next.on_cpu.load(Ordering::Acquire) {
        spin.once();
    }
    next.on_cpu.store(true, Ordering::Relaxed);
    if let Some(root) = next.user_root() {
        platform::current().prepare_user(next.stack_top(), Some(root));
        next.fpu.lock().load();
    }
    next.saved_sp.load(Ordering::Relaxed)
}

#[cfg(target_os = "none")]
fn platform_switch(prev_sp: *mut usize, next_sp: usize) {
    platform::switch::switch(prev_sp, next_sp);
}

#[cfg(not(target_os = "none"))]
fn platform_switch(_prev_sp: *mut usize, _next_sp: usize) {
    unreachable!("a host has no kernel threads");
}

/// Runs on the new thread's stack: lets go of the one that left, and frees it if it is dead.
fn finish_switch() {
    let left = SLOTS[cpus::current()].lock().left.take();
    if let Some(left) = left {
        left.on_cpu.store(false, Ordering::Release);
    }
}

/// Where a new thread starts.
#[cfg(target_os = "none")]
pub(crate) fn thread_start() -> ! {
    finish_switch();
    let body = current().body.lock().take();
    platform::current().interrupts_enable();
    if let Some(body) = body {
        body();
    }
    let user_frame = current().user_frame.lock().take();
    if let Some(frame) = user_frame {
        platform::current().interrupts_disable();
        platform::current().enter_user(&frame);
    }
    exit()
}

/// The timer of this CPU fired.
pub(crate) fn on_timer() {
    let mut scheduler = SCHEDULER.lock();
    let (cpu, now) = (cpus::current(), time::now_ns());
    scheduler.cpus[cpu].timer_ns = u64::MAX;
    scheduler.wake_expired(cpu, now);
    if scheduler.queue.has_ready() && now.saturating_sub(scheduler.cpus[cpu].since_ns) >= SLICE_NS {
        NEED_SWITCH[cpu].store(true, Ordering::Relaxed);
    }
    scheduler.arm_timer(cpu);
}

/// How many calls CPUs have heard.
#[must_use]
pub fn calls_heard() -> u64 {
    CALLS_HEARD.load(Ordering::Relaxed)
}

/// Another CPU calls: there is a thread for this one, or it is to leave.
pub(crate) fn on_kick() {
    CALLS_HEARD.fetch_add(1, Ordering::Relaxed);
    NEED_SWITCH[cpus::current()].store(true, Ordering::Relaxed);
}

/// The last thing an interrupt does before it returns to code that had interrupts on.
pub(crate) fn on_interrupt_end() {
    let cpu = cpus::current();
    if NEED_SWITCH[cpu].swap(false, Ordering::Acquire) && SLOTS[cpu].lock().current.is_some() {
        yield_now();
    }
}

/// The running thread goes to user mode in `root` from now on, with the floating-point registers `fpu`; or, with `None`,
/// never again.
pub(crate) fn set_user(user: Option<(Pfn, FpuState)>) {
    let _irq = IrqGuard::new();
    let me = current();
    let root = user.as_ref().map(|(root, _)| *root);
    me.user_root.store(root.map_or(0, |root| root.0), Ordering::Relaxed);
    platform::current().prepare_user(me.stack_top(), root);
    if let Some((_, fpu)) = user {
        fpu.load();
    }
}

/// The floating-point registers of the running thread's user mode.
pub(crate) fn fpu() -> FpuState {
    let mut state = FpuState::INITIAL;
    let _irq = IrqGuard::new();
    state.save();
    state
}

/// Starts the first thread with `body` on the first CPU; the stack this is called on is left behind.
#[cfg(target_os = "none")]
pub(crate) fn start(body: impl FnOnce() + Send + 'static) -> ! {
    idle::thread(0);
    let main = new_thread("main".into(), STACK_PAGES, alloc::boxed::Box::new(body));
    let first_sp = arrive(&main);
    {
        let mut scheduler = SCHEDULER.lock();
        scheduler.threads.insert(main.id, main.clone());
        scheduler.cpus[0].since_ns = time::now_ns();
        SLOTS[0].lock().current = Some(main);
    }
    let mut left_behind = 0;
    platform_switch(&raw mut left_behind, first_sp);
    unreachable!("the boot stack ran again")
}
