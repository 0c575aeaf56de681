//! The process table.

use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU64, Ordering};

use super::{Pid, Process};
use crate::sync::IrqLock;

static PROCESSES: IrqLock<BTreeMap<Pid, Arc<Process>>> = IrqLock::new(BTreeMap::new());
static NEXT_PID: AtomicU64 = AtomicU64::new(1);

/// Adds the process that `make` makes with a new number.
pub(super) fn insert(make: impl FnOnce(Pid) -> Process) -> Arc<Process> {
    let pid = Pid(NEXT_PID.fetch_add(1, Ordering::Relaxed));
    let process = Arc::new(make(pid));
    PROCESSES.lock().insert(pid, process.clone());
    process
}

pub(super) fn remove(pid: Pid) {
    let gone = PROCESSES.lock().remove(&pid);
    drop(gone);
}

/// The process with this number.
#[must_use]
pub fn find(pid: Pid) -> Option<Arc<Process>> {
    PROCESSES.lock().get(&pid).cloned()
}

/// All processes, by number.
#[must_use]
pub fn list() -> Vec<Arc<Process>> {
    PROCESSES.lock().values().cloned().collect()
}

/// What is known of a parent's children.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Child {
    /// There is none.
    None,
    /// There is one, and it runs.
    Running,
    /// This one has ended with this status.
    Ended(Pid, i32),
}

/// An ended child of `parent`, the one called `wanted` or any.
pub(super) fn ended_child(parent: Pid, wanted: Option<Pid>) -> Child {
    let processes = PROCESSES.lock();
    let mut answer = Child::None;
    for child in processes.values() {
        if child.parent() != Some(parent) || wanted.is_some_and(|pid| pid != child.pid) {
            continue;
        }
        match child.status() {
            Some(status) => return Child::Ended(child.pid, status),
            None => answer = Child::Running,
        }
    }
    answer
}

/// The children of a process that ends have nobody to wait for them: those that have ended are forgotten, the others will
/// be when they end.
pub(super) fn adopt_children_of(parent: Pid) {
    for child in list() {
        if child.parent() == Some(parent) {
            *child.parent.lock() = Some(Pid(0));
            if child.status().is_some() {
                remove(child.pid);
            }
        }
    }
}

/// Tells the parent of a process that has ended; without one the process is forgotten (unless the kernel started it and
/// waits).
pub(super) fn wake_parent(process: &Process) {
    match process.parent() {
        None => {}
        Some(Pid(0)) => remove(process.pid),
        Some(parent) => {
            if let Some(parent) = find(parent) {
                parent.changed.wake_all();
            }
        }
    }
}
