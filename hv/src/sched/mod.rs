//! Who runs, until when.
//!
//! Each CPU has a run queue. A vCPU has a *virtual time*, which goes on while it runs, the slower the larger its domain's
//! weight; whoever is furthest behind runs next, for a slice at most while others wait. So CPU time is shared by weight
//! among those who want it. A vCPU that wakes is set forward to at most [`queue::WAKE_CREDIT_NS`] behind the others: it
//! gets the CPU soon, and cannot save up. When nobody is runnable the CPU halts in the machine; the address space of
//! whoever ran last stays loaded, so that waking it again costs little.
//!
//! Invariants:
//! - a vCPU is in one place ([`queue::Place`]): running, waiting in the run queue of its CPU, or neither; places change
//!   under that queue's lock;
//! - whoever makes a vCPU stop sets [`work::RESCHEDULE`] for it, and whoever takes the last reason away calls [`wake`];
//! - a vCPU that is chosen has its state in [`Vcpu::state`], or in the slot of the CPU that chose it.
//!
//! Source: `public/sched.h`, `public/vcpu.h`; weighted sharing by virtual time as in BVT (Duda, Cheriton, SOSP'99).

mod operations;
mod placement;
mod queue;
mod shutdown;
mod switch;
mod vcpu_op;
mod wait;

#[cfg(test)]
mod tests;

use alloc::sync::Arc;
use core::sync::atomic::Ordering;

use pv_abi::vcpu::VcpuRunstateInfo;

pub use operations::{sched_op, sched_op_compat, set_timer_op};
pub use placement::{affinity, set_affinity};
pub use queue::{Scheduler, VcpuSchedule, idle_time};
pub(crate) use queue::{end_slice, slice_end};
pub use shutdown::{resume, shutdown};
pub use switch::switch;
pub(crate) use vcpu_op::down;
pub use vcpu_op::{register_vcpu_info, vcpu_op};
pub(crate) use wait::poll_timed_out;
pub use wait::{block, notify, unblock, wake_pollers};

use crate::Hypervisor;
use crate::domain::{Domain, Vcpu, work};
use crate::hardware::Machine;
use crate::time;

/// Whether another vCPU than this one should run now.
#[must_use]
pub fn should_switch<M: Machine>(hv: &Hypervisor<M>, current: &Vcpu) -> bool {
    queue::should_switch(hv, current)
}

/// Makes a vCPU known to the scheduler, on the CPU that has fewest.
pub fn add_vcpu<M: Machine>(hv: &Hypervisor<M>, vcpu: &Arc<Vcpu>) {
    queue::add(hv, vcpu);
    vcpu.runstate.lock().begin(hv.machine.now());
}

/// Lets the scheduler forget a vCPU, which does not run and will not.
pub fn remove_vcpu<M: Machine>(hv: &Hypervisor<M>, vcpu: &Vcpu) {
    queue::remove(hv, vcpu);
    time::forget(hv, vcpu);
}

/// Lets a vCPU run that nothing keeps from running; nothing where something does, or it runs.
pub fn wake<M: Machine>(hv: &Hypervisor<M>, vcpu: &Vcpu) {
    if vcpu.is_runnable()
        && let Some(vcpu) = vcpu.domain.vcpu(vcpu.id)
    {
        queue::wake(hv, vcpu);
    }
}

/// Keeps a domain's vCPUs from running, once more. They stop before they next return to the guest.
pub fn pause<M: Machine>(hv: &Hypervisor<M>, domain: &Domain) {
    domain.pause_count.fetch_add(1, Ordering::AcqRel);
    for vcpu in domain.vcpus.get().into_iter().flatten() {
        interrupt(hv, vcpu);
    }
}

/// Comes back when no CPU has a vCPU's state any more, of a domain that was paused and is not the caller's, or that goes
/// away. Its CPU was told, and waits for nobody; a machine of one CPU has nobody else to run it.
pub fn wait_until_stopped<M: Machine>(hv: &Hypervisor<M>, vcpu: &Vcpu) {
    while hv.machine.cpu_count() > 1 && vcpu.state.lock().is_none() && !vcpu.domain.is_dying() {
        core::hint::spin_loop();
    }
}

/// Takes one [`pause`] back.
pub fn unpause<M: Machine>(hv: &Hypervisor<M>, domain: &Domain) {
    if domain.pause_count.fetch_sub(1, Ordering::AcqRel) == 1 {
        for vcpu in domain.vcpus.get().into_iter().flatten() {
            wake(hv, vcpu);
        }
    }
}

/// Lets a vCPU's CPU look again whether it may go on.
pub(crate) fn interrupt<M: Machine>(hv: &Hypervisor<M>, vcpu: &Vcpu) {
    vcpu.raise(work::RESCHEDULE);
    queue::kick(hv, vcpu);
}

/// Makes a non-maskable interrupt due for a vCPU.
pub fn kick_for_nmi<M: Machine>(hv: &Hypervisor<M>, vcpu: &Vcpu) {
    vcpu.nmi_pending.store(1, Ordering::SeqCst);
    vcpu.raise(work::NMI);
    notify(hv, vcpu);
}

/// How long a vCPU has run, in nanoseconds.
#[must_use]
pub fn cpu_time<M: Machine>(hv: &Hypervisor<M>, vcpu: &Vcpu) -> u64 {
    runstate(hv, vcpu).time[pv_abi::vcpu::RUNSTATE_RUNNING as usize]
}

/// How long a vCPU was in which state, until now.
#[must_use]
pub fn runstate<M: Machine>(hv: &Hypervisor<M>, vcpu: &Vcpu) -> VcpuRunstateInfo {
    vcpu.runstate.lock().at(hv.machine.now())
}
