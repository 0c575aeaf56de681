//! The tables a vCPU runs on.
//!
//! A vCPU's kernel root and user root each hold a reference and a type reference on their L4 table, so a table in use
//! stays one until the vCPU uses another.

use pv_abi::{DomId, Mfn};

use super::ldt::drop_ldt;
use super::table::{Stop, Work, finish_unfinished, get_table, put_table};
use crate::Hypervisor;
use crate::domain::{Domain, Running, VcpuState};
use crate::frames::{ClaimedMfn, not_owned};
use crate::hardware::Machine;
use crate::refusal::Refusal;

/// Gives a vCPU a user root, or none, in place of the one it had. It is not loaded here.
///
/// # Errors
/// As [`change_kernel_root`].
pub(super) fn change_user_root<M: Machine>(
    hv: &Hypervisor<M>,
    running: &mut Running,
    claimed: Option<ClaimedMfn>,
    work: &mut Work,
) -> Result<(), Stop> {
    let state = &mut running.state;
    if state.user_root.map(ClaimedMfn::from) == claimed {
        return Ok(());
    }
    let new = match claimed {
        Some(claimed) => Some(get_table(hv, claimed, 4, &running.vcpu.domain, work)?),
        None => None,
    };
    if let Some(old) = core::mem::replace(&mut state.user_root, new) {
        // What is left of the old table is in `work`.
        let _ = put_table(hv, old, work);
    }
    Ok(())
}

/// Takes its tables from a vCPU that no CPU runs or has loaded: root tables and what was left of older ones. False where
/// work is left: call again.
pub fn drop_root<M: Machine>(hv: &Hypervisor<M>, state: &mut VcpuState) -> bool {
    loop {
        let mut work = Work::preemptible();
        if let Some(unfinished) = state.unfinished.take() {
            let _ = finish_unfinished(hv, unfinished, &mut work);
        } else if let Some(root) = state.user_root.take().or_else(|| state.kernel_root.take()) {
            let _ = put_table(hv, root, &mut work);
        } else {
            return true;
        }
        state.unfinished = work.unfinished;
        if hv.machine.interrupt_waiting() {
            return state.unfinished.is_none() && state.user_root.is_none() && state.kernel_root.is_none();
        }
    }
}

/// Takes a reference and a type reference on a root table of a domain: for a vCPU that is given its context.
///
/// # Errors
/// `EINVAL` where the frame is not the domain's or cannot be an L4 table; another try where the check is to go on later.
pub fn get_root<M: Machine>(hv: &Hypervisor<M>, claimed: ClaimedMfn, owner: DomId) -> Result<Mfn, Refusal> {
    let domain = hv.domains.get(owner).ok_or_else(|| not_owned(hv, claimed))?;
    match get_table(hv, claimed, 4, &domain, &mut Work::preemptible()) {
        Ok(mfn) => Ok(mfn),
        Err(Stop::Interrupted) => Err(Refusal::again()),
        Err(Stop::Refused(refusal)) => Err(refusal),
    }
}

/// Gives back what [`get_root`] took.
pub fn put_root<M: Machine>(hv: &Hypervisor<M>, root: Mfn) {
    let _ = put_table(hv, root, &mut Work::whole());
}

/// Gives the running vCPU another kernel root and loads it: the new one is loaded before the old one may stop being a
/// table. The same root again forgets translations.
///
/// # Errors
/// `EINVAL` where the frame is not the domain's or cannot be an L4 table. [`Stop::Interrupted`] where the new table's
/// check is to go on later.
pub(super) fn change_kernel_root<M: Machine>(
    hv: &Hypervisor<M>,
    running: &mut Running,
    claimed: ClaimedMfn,
    work: &mut Work,
) -> Result<(), Stop> {
    let state = &mut running.state;
    if let Some(root) = state.kernel_root.filter(|root| claimed == (*root).into()) {
        hv.machine.load_root(root);
        return Ok(());
    }
    let new = get_table(hv, claimed, 4, &running.vcpu.domain, work)?;
    drop_ldt(hv, state);
    let old = state.kernel_root.replace(new);
    hv.machine.load_root(new);
    if let Some(old) = old {
        // What is left of the old table is in `work`.
        let _ = put_table(hv, old, work);
    }
    Ok(())
}

/// Carries out a guest kernel's write to CR3.
///
/// # Errors
/// `EINVAL` where the frame is not the domain's or cannot be an L4 table.
pub fn load_guest_root<M: Machine>(hv: &Hypervisor<M>, running: &mut Running, frame: u64) -> Result<(), Refusal> {
    match change_kernel_root(hv, running, ClaimedMfn(frame), &mut Work::whole()) {
        Ok(()) => Ok(()),
        Err(Stop::Interrupted) => Err(Refusal::again()),
        Err(Stop::Refused(refusal)) => Err(refusal),
    }
}

/// Pins an L4 table for the domain, as `MMUEXT_PIN_L4_TABLE` does: for the builder of the first domain.
///
/// # Errors
/// What the check of the tables gave.
pub fn pin_initial<M: Machine>(hv: &Hypervisor<M>, domain: &Domain, l4: Mfn) -> Result<(), Refusal> {
    match get_table(hv, l4.into(), 4, domain, &mut Work::whole()) {
        Ok(mfn) => {
            let fresh = hv.frames.record(mfn).pin();
            debug_assert!(fresh, "the first domain's table was pinned before");
            Ok(())
        }
        Err(Stop::Refused(refusal)) => Err(refusal),
        Err(Stop::Interrupted) => Err(Refusal::again()),
    }
}
