//! Taking a domain apart.
//!
//! In this order, for each step frees what the next one's objects are held by: vCPUs stop and let go of their tables;
//! event channels close; grants that it mapped of others are unmapped and its own table goes; physical interrupts go
//! back; page types end and frames are freed; its shared page goes. Each step is a bounded piece of work, and where an
//! interrupt waits the toolstack's hypercall goes on later. A frame that another domain still maps is freed when that
//! ends. Source: abi-needs of Xen 4.17, §7 (15).

use alloc::sync::Arc;
use alloc::vec::Vec;

use pv_abi::errno::Errno;
use pv_abi::xen::VIRQ_DOM_EXC;

use super::permissions::Permissions;
use super::physdev;
use crate::domain::{Domain, Vcpu};
use crate::evtchn::EventChannels;
use crate::grant::GrantTable;
use crate::hardware::Machine;
use crate::refusal::{Evidence, Refusal};
use crate::rules::control as rule;
use crate::traps::descriptors;
use crate::{Hypervisor, evtchn, frames, grant, hvm, memory, paging, sched};

/// Where the taking apart of a domain goes on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Step {
    /// It was not begun.
    #[default]
    Alive,
    /// vCPUs let go of their tables.
    Vcpus,
    /// Event channels close.
    Events,
    /// Grants end.
    Grants,
    /// The physical map goes.
    Map,
    /// Frames are freed.
    Frames,
    /// Nothing is left.
    Gone,
}

/// Takes a domain apart, until an interrupt waits.
///
/// # Errors
/// `EINVAL` for dom0; another try where work is left.
pub(crate) fn destroy<M: Machine>(hv: &Hypervisor<M>, domain: &Arc<Domain>) -> Result<(), Refusal> {
    if domain.privileged {
        return Err(Refusal::errno(Errno::Inval, rule::DESTROY_SELF).with(Evidence::Value(domain.id.0.into())));
    }
    loop {
        let step = domain.settings.lock().destroy_step;
        let done = match step {
            Step::Alive => {
                begin(hv, domain);
                true
            }
            Step::Vcpus => domain.vcpus.get().into_iter().flatten().all(|vcpu| drop_vcpu(hv, vcpu)),
            Step::Events => evtchn::relinquish(hv, domain),
            Step::Grants => grant::relinquish(hv, domain),
            Step::Map => hvm::relinquish(hv, domain),
            Step::Frames => frames::relinquish(hv, domain),
            Step::Gone => return Ok(()),
        };
        if done {
            advance(hv, domain, step);
        }
        if hv.machine.interrupt_waiting() && domain.settings.lock().destroy_step != Step::Gone {
            return Err(Refusal::again());
        }
    }
}

fn begin<M: Machine>(hv: &Hypervisor<M>, domain: &Domain) {
    domain.lifecycle.lock().dying = true;
    domain.events.lock().end();
    sched::pause(hv, domain);
    hvm::ioreq::end_all(hv, domain);
}

/// Takes its tables and its place in the scheduler from a vCPU; false where work is left.
fn drop_vcpu<M: Machine>(hv: &Hypervisor<M>, vcpu: &Arc<Vcpu>) -> bool {
    let mut slot = vcpu.state.lock();
    let Some(state) = slot.as_deref_mut() else {
        return false;
    };
    memory::abandon_exchange(hv, state);
    if !paging::drop_root(hv, state) {
        return false;
    }
    descriptors::drop_tables(hv, state);
    drop(slot);
    sched::remove_vcpu(hv, vcpu);
    let (info, _) = vcpu.info_place();
    if info != vcpu.domain.shared_info {
        vcpu.info.store(vcpu.domain.shared_info.0 << 12, core::sync::atomic::Ordering::Release);
        frames::put_typed(hv, info);
    }
    true
}

/// Frees what a domain holds in the hypervisor's own memory. Its vCPUs and it hold each other, so a few hundred bytes of
/// both stay; nothing leads to them any more.
fn empty(domain: &Domain) {
    for vcpu in domain.vcpus.get().into_iter().flatten() {
        *vcpu.state.lock() = None;
    }
    *domain.events.lock() = EventChannels::new(0);
    *domain.grants.lock() = GrantTable::new(0, 0);
    *domain.permissions.lock() = Permissions::default();
    domain.settings.lock().cpu_policy = Vec::new();
}

fn advance<M: Machine>(hv: &Hypervisor<M>, domain: &Arc<Domain>, step: Step) {
    let next = match step {
        Step::Alive => Step::Vcpus,
        Step::Vcpus => Step::Events,
        Step::Events => Step::Grants,
        Step::Grants => {
            physdev::release_all(hv, domain);
            Step::Map
        }
        Step::Map => Step::Frames,
        Step::Frames | Step::Gone => {
            frames::free_shared(hv, domain.shared_info);
            empty(domain);
            hv.domains.remove(domain.id);
            evtchn::raise_global_virq(hv, VIRQ_DOM_EXC);
            Step::Gone
        }
    };
    domain.settings.lock().destroy_step = next;
}
