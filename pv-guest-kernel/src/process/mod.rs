//! Processes: a thread that runs user mode in an address space of its own.
//!
//! Invariants:
//! - a process is in the table from its start until its parent has waited for it (or has ended itself);
//! - its address space is gone before its status can be seen: what it used is free then;
//! - a killed process ends at its next step back to user mode; if it sleeps in a system call, it is woken.

mod image;
mod programs;
mod table;

use alloc::string::{String, ToString};
use alloc::sync::Arc;
use core::fmt;
use core::ops::ControlFlow;
use core::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use crate::mm::mmu::KernelMmu;
use crate::mm::space::{AddressSpace, Backing, Fault, Region, Touch, Usage};
use crate::platform::TrapFrame;
use crate::platform::fpu::FpuState;
use crate::sync::{IrqLock, SleepLock};
use crate::syscall::abi;
use crate::task::{self, Thread, WaitQueue, scheduler};

pub use image::LoadError;
pub use programs::names as program_names;
pub use table::{find, list};

/// The number of a process.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Pid(pub u64);

impl fmt::Display for Pid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// Top of the stack of every process.
const STACK_TOP: usize = 0x7fff_f000_0000;
/// How far a stack may grow.
const STACK_BYTES: usize = 1 << 20;

/// A process.
pub struct Process {
    /// Its number.
    pub pid: Pid,
    /// Who waits for it; `None` for one the kernel started.
    parent: IrqLock<Option<Pid>>,
    name: IrqLock<String>,
    space: SleepLock<Option<AddressSpace<KernelMmu>>>,
    /// Start of the heap region.
    heap: AtomicUsize,
    killed: AtomicBool,
    thread: IrqLock<Option<Arc<Thread>>>,
    status: IrqLock<Option<i32>>,
    /// Woken when a child ends, and when this process is killed.
    pub(crate) changed: WaitQueue,
}

impl fmt::Debug for Process {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "process {} ({})", self.pid, self.name())
    }
}

impl Process {
    fn new(parent: Option<Pid>, name: &str, space: AddressSpace<KernelMmu>, heap: usize) -> Arc<Self> {
        table::insert(|pid| Self {
            pid,
            parent: IrqLock::new(parent),
            name: IrqLock::new(name.to_string()),
            space: SleepLock::new(Some(space)),
            heap: heap.into(),
            killed: false.into(),
            thread: IrqLock::new(None),
            status: IrqLock::new(None),
            changed: WaitQueue::new(),
        })
    }

    /// What it runs.
    #[must_use]
    pub fn name(&self) -> String {
        self.name.lock().clone()
    }

    /// Its parent, if it has one.
    #[must_use]
    pub fn parent(&self) -> Option<Pid> {
        *self.parent.lock()
    }

    /// How it ended, if it has.
    #[must_use]
    pub fn status(&self) -> Option<i32> {
        *self.status.lock()
    }

    /// True when it is to end.
    #[must_use]
    pub fn is_killed(&self) -> bool {
        self.killed.load(Ordering::Relaxed)
    }

    /// The memory it uses.
    #[must_use]
    pub fn usage(&self) -> Usage {
        self.with_space(|space| Ok(space.usage())).unwrap_or_default()
    }

    /// Nanoseconds its thread has used.
    #[must_use]
    pub fn cpu_ns(&self) -> u64 {
        let thread = self.thread.lock().clone();
        thread.map_or(0, |thread| thread.cpu_ns.load(Ordering::Relaxed))
    }

    /// The CPU its thread runs on, or ran on last.
    #[must_use]
    pub fn cpu(&self) -> usize {
        self.thread.lock().as_ref().map_or(0, |thread| thread.cpu())
    }

    /// Does something with the address space.
    ///
    /// # Errors
    /// Whatever `action` returns; [`Fault::Unmapped`] when the process has ended.
    pub fn with_space<R>(
        &self,
        action: impl FnOnce(&mut AddressSpace<KernelMmu>) -> Result<R, Fault>,
    ) -> Result<R, Fault> {
        action(self.space.lock().as_mut().ok_or(Fault::Unmapped)?)
    }

    /// Start of the heap.
    pub(crate) fn heap(&self) -> usize {
        self.heap.load(Ordering::Relaxed)
    }

    /// Asks the process to end.
    pub fn kill(&self) {
        self.killed.store(true, Ordering::Relaxed);
        self.changed.wake_all();
        let thread = self.thread.lock().clone();
        if let Some(thread) = thread {
            scheduler::wake(&thread);
        }
    }

    /// Sleeps until it has ended, and forgets it: for processes that the kernel started.
    pub fn wait(&self) -> i32 {
        self.changed.wait_until(|| self.status().is_some());
        table::remove(self.pid);
        self.status().unwrap_or_default()
    }
}

/// The process of the running thread.
#[must_use]
pub fn current() -> Option<Arc<Process>> {
    scheduler::current().process.lock().clone()
}

/// Starts a program; nobody but the kernel waits for it.
///
/// # Errors
/// [`LoadError`].
pub fn start(program: &str, arguments: &str) -> Result<Arc<Process>, LoadError> {
    let loaded = image::load(program, arguments)?;
    let process = Process::new(None, program, loaded.space, loaded.heap);
    let frame = loaded.frame;
    run(&process, frame, FpuState::INITIAL);
    Ok(process)
}

/// Gives the process its thread, which starts in user mode with `frame`.
fn run(process: &Arc<Process>, frame: TrapFrame, fpu: FpuState) {
    let owner = process.clone();
    let thread = scheduler::create(process.name(), move || {
        let root = owner.space.lock().as_ref().map(AddressSpace::root);
        let me = scheduler::current();
        *me.process.lock() = Some(owner);
        *me.user_frame.lock() = Some(frame);
        scheduler::set_user(root.map(|root| (root, fpu)));
    });
    *process.thread.lock() = Some(thread.clone());
    scheduler::admit(&thread);
}

/// `fork`: a second process that goes on where this one is, with 0 as the result.
pub(crate) fn fork(parent: &Arc<Process>, frame: &TrapFrame) -> Result<Pid, Fault> {
    let space = parent.with_space(|space| space.fork(KernelMmu))?;
    let child = Process::new(Some(parent.pid), &parent.name(), space, parent.heap());
    run(&child, TrapFrame { rax: 0, ..*frame }, scheduler::fpu());
    Ok(child.pid)
}

/// `exec`: replaces the running process's program; on success `frame` starts the new one.
pub(crate) fn exec(process: &Arc<Process>, program: &str, frame: &mut TrapFrame) -> Result<(), LoadError> {
    let loaded = image::load(program, "")?;
    let old = process.space.lock().replace(loaded.space);
    let root = process.space.lock().as_ref().map(AddressSpace::root);
    scheduler::set_user(root.map(|root| (root, FpuState::INITIAL)));
    drop(old);
    process.heap.store(loaded.heap, Ordering::Relaxed);
    *process.name.lock() = program.to_string();
    *frame = loaded.frame;
    Ok(())
}

/// Ends the running process. It takes the caller's share of the process with it, as the caller never runs again.
pub(crate) fn exit(process: Arc<Process>, status: i32) -> ! {
    scheduler::set_user(None);
    let space = process.space.lock().take();
    drop(space);
    *process.thread.lock() = None;
    *scheduler::current().process.lock() = None;
    table::adopt_children_of(process.pid);
    *process.status.lock() = Some(status);
    process.changed.wake_all();
    table::wake_parent(&process);
    drop(process);
    task::exit()
}

/// `wait`: sleeps until a child (a given one, or any) has ended; returns it and its status. `None`: no such child, or killed.
pub(crate) fn wait_for_child(parent: &Process, wanted: Option<Pid>) -> Result<(Pid, i32), i64> {
    let mut outcome = Err(-abi::ECHILD);
    parent.changed.wait_until(|| {
        outcome = match table::ended_child(parent.pid, wanted) {
            table::Child::Ended(pid, status) => Ok((pid, status)),
            table::Child::None => Err(-abi::ECHILD),
            table::Child::Running if parent.is_killed() => Err(-abi::EINTR),
            table::Child::Running => return false,
        };
        true
    });
    let (pid, status) = outcome?;
    table::remove(pid);
    Ok((pid, status))
}

/// A user program faulted: makes the page resident, or says with which status the process ends.
pub(crate) fn on_page_fault(process: &Arc<Process>, addr: usize, error: u64) -> ControlFlow<i32> {
    let touch = match error {
        error if error & 0x10 != 0 => Touch::Execute,
        error if error & 2 != 0 => Touch::Write,
        _ => Touch::Read,
    };
    let result = process.with_space(|space| space.fault(addr, touch));
    match result {
        Ok(()) => ControlFlow::Continue(()),
        Err(fault) => {
            log::info!("{process:?}: {touch:?} of {addr:#x}: {fault:?}");
            ControlFlow::Break(abi::STATUS_KILLED + abi::REASON_FAULT)
        }
    }
}

/// The region a new process's stack lies in.
fn stack_region() -> (usize, Region) {
    let region = Region { end: STACK_TOP, writable: true, executable: false, backing: Backing::Zeros };
    (STACK_TOP - STACK_BYTES, region)
}
