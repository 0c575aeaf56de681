//! Keeps the threads, switches between them, and programs the timer.
//!
//! One CPU. A switch happens with interrupts off: in [`wait`], in [`yield_now`], or at the end of an interrupt when the
//! running thread has used its slice ([`on_interrupt_end`]). The thread that runs after a switch finishes it
//! ([`finish_switch`]): a thread that died cannot free the stack it stands on.

use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::run_queue::RunQueue;
use super::thread::{State, Thread, ThreadId};
use crate::sync::{IrqGuard, IrqLock};
use crate::{platform, time};

/// Everything the scheduler knows.
struct Scheduler {
    threads: BTreeMap<ThreadId, Arc<Thread>>,
    queue: RunQueue<ThreadId>,
    current: Option<Arc<Thread>>,
    idle: Option<Arc<Thread>>,
    /// The thread that was switched away from last and is dead.
    buried: Option<Arc<Thread>>,
    /// When the current thread got the CPU.
    since_ns: u64,
    /// What the timer is set to.
    timer_ns: u64,
}

static SCHEDULER: IrqLock<Scheduler> = IrqLock::new(Scheduler {
    threads: BTreeMap::new(),
    queue: RunQueue::new(),
    current: None,
    idle: None,
    buried: None,
    since_ns: 0,
    timer_ns: u64::MAX,
});

static NEED_SWITCH: AtomicBool = AtomicBool::new(false);
static NEXT_ID: AtomicU64 = AtomicU64::new(1);
static SWITCHES: AtomicU64 = AtomicU64::new(0);

/// How often the CPU went from one thread to another.
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
    SCHEDULER.lock().current.clone().expect("threads have started")
}

/// All threads, by number.
#[must_use]
pub fn threads() -> Vec<Arc<Thread>> {
    SCHEDULER.lock().threads.values().cloned().collect()
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
    let mut scheduler = SCHEDULER.lock();
    scheduler.threads.insert(thread.id, thread.clone());
    scheduler.queue.make_ready(thread.id);
    scheduler.arm_timer();
    thread
}

fn new_thread(name: String, stack_pages: usize, body: super::thread::Body) -> Arc<Thread> {
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
        saved_sp: first_sp.into(),
        body: IrqLock::new(Some(body)),
        process: IrqLock::new(None),
        user_frame: IrqLock::new(None),
        #[cfg(target_os = "none")]
        stack,
        user_root: AtomicU64::new(0),
    })
}

impl Scheduler {
    /// The next thread to run; the current one stays if it can and nobody else is ready.
    fn choose(&mut self) -> Arc<Thread> {
        let next = self.queue.pop_ready();
        next.and_then(|id| self.threads.get(&id).cloned())
            .or_else(|| self.idle.clone())
            .expect("there is an idle thread")
    }

    fn arm_timer(&mut self) {
        let now = time::now_ns();
        let Some(wanted) = self.queue.next_timer(now) else {
            return;
        };
        // A timer that fires early does no harm; one that fires late does.
        if wanted < self.timer_ns || self.timer_ns <= now {
            self.timer_ns = wanted;
            platform::current().set_timer(wanted);
        }
    }

    fn wake(&mut self, thread: &Arc<Thread>) {
        let mut state = thread.state.lock();
        if let State::Waiting { deadline_ns } = *state {
            if let Some(deadline) = deadline_ns {
                self.queue.cancel_sleep(thread.id, deadline);
            }
            *state = State::Runnable;
            self.queue.make_ready(thread.id);
            NEED_SWITCH.store(true, Ordering::Relaxed);
        }
    }

    fn wake_expired(&mut self, now_ns: u64) {
        while let Some(id) = self.queue.pop_expired(now_ns) {
            if let Some(thread) = self.threads.get(&id).cloned() {
                self.wake(&thread);
            }
        }
    }

    fn is_idle(&self, thread: &Arc<Thread>) -> bool {
        self.idle.as_ref().is_some_and(|idle| Arc::ptr_eq(idle, thread))
    }
}

/// Makes a waiting thread ready; does nothing to any other.
pub fn wake(thread: &Arc<Thread>) {
    SCHEDULER.lock().wake(thread);
}

/// Gives up the CPU until [`wake`] or the deadline. Interrupts are off, and stay off; the caller has put itself where a
/// waker finds it.
pub(super) fn wait(deadline_ns: Option<u64>) {
    {
        let mut scheduler = SCHEDULER.lock();
        let me = scheduler.current.clone().expect("threads have started");
        *me.state.lock() = State::Waiting { deadline_ns };
        if let Some(deadline) = deadline_ns {
            scheduler.queue.sleep_until(me.id, deadline);
        }
    }
    switch();
}

/// Lets the other ready threads run first.
pub fn yield_now() {
    let _irq = IrqGuard::new();
    {
        let mut scheduler = SCHEDULER.lock();
        let now = time::now_ns();
        scheduler.wake_expired(now);
        NEED_SWITCH.store(false, Ordering::Relaxed);
        if !scheduler.queue.has_ready() {
            scheduler.arm_timer();
            return;
        }
        let me = scheduler.current.clone().expect("threads have started");
        if !scheduler.is_idle(&me) {
            scheduler.queue.make_ready(me.id);
        }
    }
    switch();
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
    {
        let mut scheduler = SCHEDULER.lock();
        let me = scheduler.current.clone().expect("threads have started");
        *me.state.lock() = State::Dead;
        scheduler.threads.remove(&me.id);
    }
    switch();
    unreachable!("a dead thread ran");
}

/// Gives the CPU to the next thread. Interrupts are off; the current thread has been put where it belongs.
fn switch() {
    let Some((prev_sp, next_sp)) = SCHEDULER.lock().turn_to_next() else {
        return;
    };
    SWITCHES.fetch_add(1, Ordering::Relaxed);
    platform_switch(prev_sp, next_sp);
    finish_switch();
}

impl Scheduler {
    /// Makes the next thread the current one; returns where the old stack pointer goes and what the new one is, or
    /// `None` when the current thread goes on.
    fn turn_to_next(&mut self) -> Option<(*mut usize, usize)> {
        let next = self.choose();
        let prev = self.current.clone().expect("threads have started");
        if Arc::ptr_eq(&prev, &next) {
            return None;
        }
        let now = time::now_ns();
        let used = now.saturating_sub(self.since_ns);
        prev.cpu_ns.fetch_add(used, Ordering::Relaxed);
        self.since_ns = now;
        if let Some(root) = next.user_root() {
            platform::current().prepare_user(next.stack_top(), Some(root));
        }
        let stack_pointers = (prev.saved_sp.as_ptr(), next.saved_sp.load(Ordering::Relaxed));
        if *prev.state.lock() == State::Dead {
            self.buried = Some(prev);
        }
        self.current = Some(next);
        self.arm_timer();
        Some(stack_pointers)
    }
}

#[cfg(target_os = "none")]
fn platform_switch(prev_sp: *mut usize, next_sp: usize) {
    platform::switch::switch(prev_sp, next_sp);
}

#[cfg(not(target_os = "none"))]
fn platform_switch(_prev_sp: *mut usize, _next_sp: usize) {
    unreachable!("a host has no kernel threads");
}

/// Runs on the new thread's stack: frees the one that died.
fn finish_switch() {
    let dead = SCHEDULER.lock().buried.take();
    drop(dead);
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

/// The timer fired.
pub(crate) fn on_timer() {
    let mut scheduler = SCHEDULER.lock();
    let now = time::now_ns();
    scheduler.timer_ns = u64::MAX;
    scheduler.wake_expired(now);
    if scheduler.queue.has_ready() && now.saturating_sub(scheduler.since_ns) >= super::run_queue::SLICE_NS {
        NEED_SWITCH.store(true, Ordering::Relaxed);
    }
    scheduler.arm_timer();
}

/// The last thing an interrupt does before it returns to code that had interrupts on.
pub(crate) fn on_interrupt_end() {
    if NEED_SWITCH.swap(false, Ordering::Relaxed) && SCHEDULER.lock().current.is_some() {
        yield_now();
    }
}

/// The running thread goes to user mode in `root` from now on, or, with `None`, never again.
pub fn set_user_root(root: Option<crate::mm::Pfn>) {
    let _irq = IrqGuard::new();
    let me = current();
    me.user_root.store(root.map_or(0, |root| root.0), Ordering::Relaxed);
    platform::current().prepare_user(me.stack_top(), root);
}

/// Starts the first thread with `body`; the stack this is called on is left behind.
#[cfg(target_os = "none")]
pub(crate) fn start(body: impl FnOnce() + Send + 'static) -> ! {
    let idle = new_thread("idle".into(), STACK_PAGES, alloc::boxed::Box::new(idle_loop));
    let main = new_thread("main".into(), STACK_PAGES, alloc::boxed::Box::new(body));
    let first_sp = main.saved_sp.load(Ordering::Relaxed);
    {
        let mut scheduler = SCHEDULER.lock();
        scheduler.threads.insert(idle.id, idle.clone());
        scheduler.threads.insert(main.id, main.clone());
        scheduler.idle = Some(idle);
        scheduler.current = Some(main);
        scheduler.since_ns = time::now_ns();
    }
    let mut left_behind = 0;
    platform_switch(&raw mut left_behind, first_sp);
    unreachable!("the boot stack ran again")
}

#[cfg(target_os = "none")]
fn idle_loop() {
    loop {
        let _irq = IrqGuard::new();
        yield_now();
        platform::current().wait_for_interrupt();
    }
}
