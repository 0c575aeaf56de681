//! What is asked about domains with hardware assistance: the state of their vCPUs, and the memory for their map.
//!
//! Source: Xen's `public/domctl.h`.

use alloc::sync::Arc;

use pv_abi::domctl::{self as abi, Domctl};
use pv_abi::errno::Errno;

use super::{Answer, rule};
use crate::call::Call;
use crate::domain::Domain;
use crate::hardware::Machine;
use crate::hvm;
use crate::refusal::{Evidence, Refusal};
use crate::rules::hvm as hvm_rule;

/// Flags that such a domain has besides.
pub(super) const FLAGS: u32 = abi::XEN_DOMCTL_CDF_HVM | abi::XEN_DOMCTL_CDF_HAP;

/// The devices that a domain with hardware assistance is to have; none for a PV domain.
///
/// # Errors
/// `EINVAL` without the hardware, `EOPNOTSUPP` for other sets of devices than there are.
pub(super) fn devices<M: Machine>(
    call: &Call<'_, M>,
    request: &abi::DomctlCreatedomain,
) -> Result<Option<hvm::Devices>, Refusal> {
    if request.flags & abi::XEN_DOMCTL_CDF_HVM == 0 {
        return Ok(None);
    }
    if !call.hv.machine.has_hvm() {
        return Err(Refusal::errno(Errno::Inval, hvm_rule::NO_HARDWARE).with(Evidence::Value(request.flags.into())));
    }
    let flags = request.arch.emulation_flags;
    let none = || Refusal::errno(Errno::OpNotSupp, hvm_rule::EMULATION).with(Evidence::Value(flags.into()));
    hvm::Devices::of(flags).map(Some).ok_or_else(none)
}

/// Does one of these operations.
pub(super) fn operate<M: Machine>(
    call: &mut Call<'_, M>,
    domain: &Arc<Domain>,
    frame: &mut Domctl,
) -> Result<Answer, Refusal> {
    match frame.cmd {
        abi::XEN_DOMCTL_SETHVMCONTEXT => {
            hvm::set_context(call, domain, &frame.payload())?;
            return Ok(Answer::Done);
        }
        abi::XEN_DOMCTL_GETHVMCONTEXT => {
            let mut request: abi::DomctlHvmcontext = frame.payload();
            request.size = hvm::get_context(call, domain, &request)?;
            frame.set_payload(&request);
        }
        abi::XEN_DOMCTL_GETHVMCONTEXT_PARTIAL => {
            let mut request: abi::DomctlHvmcontextPartial = frame.payload();
            request.bufsz = hvm::get_context_record(call, domain, &request)?;
            frame.set_payload(&request);
        }
        abi::XEN_DOMCTL_SHADOW_OP => {
            let shadow: abi::DomctlShadowOp = frame.payload();
            if domain.hvm.is_none() || shadow.op != abi::XEN_DOMCTL_SHADOW_OP_SET_ALLOCATION {
                return Err(Refusal::errno(Errno::Inval, rule::LOG_DIRTY).with(Evidence::Value(shadow.op.into())));
            }
            hvm::set_pool(domain, u64::from(shadow.mb) << 20)?;
            return Ok(Answer::Done);
        }
        abi::XEN_DOMCTL_SET_PAGING_MEMPOOL_SIZE => {
            let pool: abi::DomctlPagingMempool = frame.payload();
            hvm::set_pool(domain, pool.size)?;
            return Ok(Answer::Done);
        }
        _ => frame.set_payload(&abi::DomctlPagingMempool { size: hvm::pool(domain)? }),
    }
    Ok(Answer::Changed)
}
