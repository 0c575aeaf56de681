//! What a CPU does when there is nothing to do: it sleeps, or, when it was asked to leave, goes down.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::Ordering;

use super::{NEED_SWITCH, SCHEDULER, SLOTS, STACK_PAGES, new_thread, yield_now};
use crate::cpus;
use crate::sync::IrqGuard;
use crate::task::Thread;
use crate::{platform, time};

/// The idle thread of a CPU; made at the first call.
pub(super) fn thread(cpu: usize) -> Arc<Thread> {
    let known = SCHEDULER.lock().cpus[cpu].idle.clone();
    known.unwrap_or_else(|| {
        let name = alloc::format!("idle/{cpu}");
        let idle = new_thread(name, STACK_PAGES, alloc::boxed::Box::new(rest));
        idle.cpu.store(cpu, Ordering::Relaxed);
        let mut scheduler = SCHEDULER.lock();
        scheduler.threads.insert(idle.id, idle.clone());
        scheduler.cpus[cpu].idle = Some(idle.clone());
        idle
    })
}

/// Prepares for a CPU that will start with [`join`]: the top of the stack it starts on.
pub(crate) fn prepare_cpu(cpu: usize) -> usize {
    let idle = thread(cpu);
    idle.on_cpu.store(true, Ordering::Relaxed);
    let mut scheduler = SCHEDULER.lock();
    scheduler.leaving.remove(cpu);
    scheduler.cpus[cpu].timer_ns = u64::MAX;
    scheduler.cpus[cpu].since_ns = time::now_ns();
    SLOTS[cpu].lock().current = Some(idle.clone());
    idle.stack_top()
}

/// A CPU that starts becomes its idle thread, on whose stack it is. Interrupts are off.
pub(crate) fn join() -> ! {
    cpus::set_online(cpus::current(), true);
    platform::current().interrupts_enable();
    rest();
    unreachable!("a CPU does not end")
}

/// `cpu` is to take no more threads; it goes down when it has given up the one it has.
pub(crate) fn ask_to_leave(cpu: usize) {
    {
        let mut scheduler = SCHEDULER.lock();
        scheduler.leaving.insert(cpu);
        scheduler.idle.remove(cpu);
    }
    platform::current().kick(cpu);
}

/// Gives the sleepers of a CPU that goes down to the first one. Says whether this CPU is to go down.
fn hand_over(cpu: usize) -> bool {
    let mut scheduler = SCHEDULER.lock();
    if !scheduler.leaving.contains(cpu) {
        return false;
    }
    let moved: Vec<_> = scheduler.queue.move_sleepers(cpu, 0).collect();
    for id in moved {
        if let Some(thread) = scheduler.threads.get(&id) {
            thread.cpu.store(0, Ordering::Relaxed);
        }
    }
    if scheduler.queue.has_ready() {
        scheduler.call_another(cpu);
    }
    // The first CPU sets its timer for what it inherited.
    NEED_SWITCH[0].store(true, Ordering::Release);
    platform::current().kick(0);
    true
}

fn rest() {
    loop {
        let _irq = IrqGuard::new();
        yield_now();
        let cpu = cpus::current();
        if hand_over(cpu) {
            platform::current().cpu_down();
        } else {
            platform::current().wait_for_interrupt();
        }
    }
}
