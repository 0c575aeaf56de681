//! The CPUID policy of a domain, as a toolstack reads and sets it.

use alloc::vec::Vec;

use pv_abi::arch::{CpuidLeaf, MsrEntry};
use pv_abi::domctl::{Domctl, DomctlCpuPolicy, XEN_CPUID_INPUT_UNUSED};
use pv_abi::errno::Errno;

use super::Answer;
use crate::call::Call;
use crate::domain::Domain;
use crate::hardware::Machine;
use crate::refusal::{Evidence, Refusal};
use crate::rules::control as rule;
use crate::traps::policy;

/// Leaves that a policy has at most.
pub(crate) const MOST_LEAVES: u32 = 128;
/// Model-specific registers that a policy has at most.
pub(crate) const MOST_MSRS: u32 = 2;
/// The one that is shown: platform information, of which a guest has none.
const PLATFORM_INFORMATION: u32 = 0xce;

/// Writes leaves to a caller's buffer of `room` leaves, or says how large it should be; gives how many there are.
///
/// # Errors
/// `ENOBUFS` where they do not fit, `EFAULT`.
pub(crate) fn write_leaves<M: Machine>(
    call: &Call<'_, M>,
    leaves: &[CpuidLeaf],
    to: u64,
    room: u32,
) -> Result<u32, Refusal> {
    if to == 0 {
        return Ok(MOST_LEAVES);
    }
    let count = leaves.len() as u32;
    if count > room {
        return Err(too_small(room, count));
    }
    for (index, leaf) in leaves.iter().enumerate() {
        call.write_element(to, index as u64, leaf)?;
    }
    Ok(count)
}

/// Writes the policy's model-specific registers likewise.
pub(crate) fn write_msrs<M: Machine>(call: &Call<'_, M>, to: u64, room: u32) -> Result<u32, Refusal> {
    if to == 0 {
        return Ok(MOST_MSRS);
    }
    if room < 1 {
        return Err(too_small(room, 1));
    }
    call.write_element(to, 0, &MsrEntry { idx: PLATFORM_INFORMATION, flags: 0, val: 0 })?;
    Ok(1)
}

#[cold]
fn too_small(room: u32, count: u32) -> Refusal {
    let evidence = Evidence::Limit { asked: room.into(), limit: count.into() };
    Refusal::errno(Errno::NoBufs, rule::POLICY_SIZE).with(evidence)
}

/// `XEN_DOMCTL_get_cpu_policy`.
pub(super) fn get<M: Machine>(call: &Call<'_, M>, domain: &Domain, frame: &mut Domctl) -> Result<Answer, Refusal> {
    let mut request: DomctlCpuPolicy = frame.payload();
    let own: Vec<CpuidLeaf> = domain.settings.lock().cpu_policy.clone();
    let leaves = if own.is_empty() { policy::visible(&call.hv.machine, domain.hvm.is_some()) } else { own };
    request.nr_leaves = write_leaves(call, &leaves, request.leaves, request.nr_leaves)?;
    request.nr_msrs = write_msrs(call, request.msrs, request.nr_msrs)?;
    frame.set_payload(&request);
    Ok(Answer::Changed)
}

/// `XEN_DOMCTL_set_cpu_policy`: before the domain runs.
pub(super) fn set<M: Machine>(call: &mut Call<'_, M>, domain: &Domain, frame: &mut Domctl) -> Result<Answer, Refusal> {
    let request: DomctlCpuPolicy = frame.payload();
    if domain.settings.lock().started || domain.privileged {
        return Err(Refusal::errno(Errno::Exist, rule::POLICY_STAYS));
    }
    if request.nr_leaves > MOST_LEAVES || request.nr_msrs > MOST_MSRS {
        let evidence = Evidence::Limit { asked: request.nr_leaves.into(), limit: MOST_LEAVES.into() };
        return Err(Refusal::errno(Errno::TooBig, rule::POLICY_SIZE).with(evidence));
    }
    for index in 0..u64::from(request.nr_msrs) {
        let entry: MsrEntry = call.read_element(request.msrs, index)?;
        if entry.val != 0 || entry.flags != 0 {
            return Err(Refusal::errno(Errno::Inval, rule::POLICY_MSR).with(Evidence::Value(entry.idx.into())));
        }
    }
    let mut wanted = Vec::with_capacity(request.nr_leaves as usize);
    for index in 0..u64::from(request.nr_leaves) {
        wanted.push(call.read_element::<CpuidLeaf>(request.leaves, index)?);
    }
    let (policy, hypervisor_leaves) = policy::merged(&call.hv.machine, domain.hvm.is_some(), &wanted);
    let mut settings = domain.settings.lock();
    settings.cpu_policy = policy;
    settings.hypervisor_leaves = hypervisor_leaves;
    drop(settings);
    let answer = DomctlCpuPolicy {
        err_leaf: XEN_CPUID_INPUT_UNUSED,
        err_subleaf: XEN_CPUID_INPUT_UNUSED,
        err_msr: XEN_CPUID_INPUT_UNUSED,
        ..request
    };
    frame.set_payload(&answer);
    Ok(Answer::Changed)
}
