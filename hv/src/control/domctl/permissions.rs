//! Giving a domain ports, device memory and interrupts, and taking them back.

use pv_abi::domctl::{DomctlIomemPermission, DomctlIoportPermission, DomctlIrqPermission};
use pv_abi::errno::Errno;

use super::Answer;
use crate::call::Call;
use crate::control::permissions::{Permissions, Ranges};
use crate::domain::Domain;
use crate::hardware::Machine;
use crate::refusal::{Evidence, Refusal};
use crate::rules::control as rule;

/// The highest frame of device memory: addresses have 52 bits.
const LAST_FRAME: u64 = (1 << 40) - 1;

/// `XEN_DOMCTL_irq_permission`.
pub(super) fn interrupt<M: Machine>(
    call: &Call<'_, M>,
    domain: &Domain,
    request: &DomctlIrqPermission,
) -> Result<Answer, Refusal> {
    let line = u64::from(request.pirq);
    let last = u64::from(call.hv.machine.line_count()) - 1;
    change(call, domain, |set| &mut set.interrupts, (line, 1, last), request.allow_access != 0)
}

/// `XEN_DOMCTL_iomem_permission`.
pub(super) fn memory<M: Machine>(
    call: &Call<'_, M>,
    domain: &Domain,
    request: &DomctlIomemPermission,
) -> Result<Answer, Refusal> {
    let range = (request.first_mfn, request.nr_mfns, LAST_FRAME);
    change(call, domain, |set| &mut set.memory, range, request.allow_access != 0)
}

/// `XEN_DOMCTL_ioport_permission`.
pub(super) fn ports<M: Machine>(
    call: &Call<'_, M>,
    domain: &Domain,
    request: &DomctlIoportPermission,
) -> Result<Answer, Refusal> {
    let range = (request.first_port.into(), request.nr_ports.into(), 0xffff);
    change(call, domain, |set| &mut set.ports, range, request.allow_access != 0)
}

/// Changes one of the sets by `count` numbers from `first` on, none above `highest`.
fn change<M: Machine>(
    call: &Call<'_, M>,
    domain: &Domain,
    which: impl Fn(&mut Permissions) -> &mut Ranges,
    (first, count, highest): (u64, u64, u64),
    allow: bool,
) -> Result<Answer, Refusal> {
    let last =
        first.checked_add(count).and_then(|end| end.checked_sub(1)).filter(|last| (first..=highest).contains(last));
    let Some(last) = last else {
        return Err(Refusal::errno(Errno::Inval, rule::PERMISSION_RANGE).with(Evidence::Value(first)));
    };
    if !which(&mut call.domain().permissions.lock()).contains(first, last) {
        return Err(Refusal::errno(Errno::Perm, rule::PERMISSION_OWN).with(Evidence::Value(first)));
    }
    let mut permissions = domain.permissions.lock();
    let set = which(&mut permissions);
    if allow {
        set.add(first, last);
    } else {
        set.remove(first, last);
    }
    Ok(Answer::Done)
}
