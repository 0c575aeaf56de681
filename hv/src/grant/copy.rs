//! Copying from and to granted frames.

use alloc::sync::Arc;
use core::mem::offset_of;
use core::ops::Range;

use pv_abi::Mfn;
use pv_abi::grant_table::{
    GNTCOPY_DEST_GREF, GNTCOPY_SOURCE_GREF, GNTST_BAD_COPY_ARG, GNTST_GENERAL_ERROR, GNTST_PERMISSION_DENIED,
    GnttabCopy, GnttabCopyPtr,
};
use pv_abi::xen::DOMID_SELF;

use super::pin::Held;
use super::{Batch, domain_of, pin, status};
use crate::Hypervisor;
use crate::call::Call;
use crate::domain::Domain;
use crate::frames;
use crate::hardware::Machine;
use crate::refusal::{Evidence, Refusal};
use crate::rules::grant as rule;

/// `GNTTABOP_copy`, on each element of a batch; only the status is written back.
pub(super) fn copy_batch<M: Machine>(call: &mut Call<'_, M>, batch: &Batch) -> Result<u64, Refusal> {
    for index in 0..batch.count {
        let request: GnttabCopy = call.read_element(batch.array, index.into())?;
        let outcome = copy(call, &request);
        let source = u64::from(request.source.domid) << 32 | request.source.u & 0xffff_ffff;
        let dest = u64::from(request.dest.domid) << 32 | request.dest.u & 0xffff_ffff;
        let size = u64::from(request.flags) << 32 | u64::from(request.len);
        let answer = status(call, [batch.operation.into(), source, dest, size, 0], outcome);
        let place = batch.array + u64::from(index) * size_of::<GnttabCopy>() as u64;
        call.write(place + offset_of!(GnttabCopy, status) as u64, &answer)?;
        batch.pause_after::<M, GnttabCopy>(call, index)?;
    }
    Ok(0)
}

/// One side of a copy, held until [`Side::release`].
enum Side {
    /// A frame of the caller.
    Own(Mfn),
    /// What an entry of the granter gives.
    Granted(Arc<Domain>, u32, Held),
}

impl Side {
    fn hold<M: Machine>(
        call: &Call<'_, M>,
        pointer: &GnttabCopyPtr,
        by_reference: bool,
        writable: bool,
    ) -> Result<Self, Refusal> {
        if by_reference {
            let granter = domain_of(call, pointer.domid)?;
            let reference = pointer.u as u32;
            let held = pin::pin_for_copy(call.hv, &granter, reference, call.domain().id, writable)?;
            return Ok(Self::Granted(granter, reference, held));
        }
        if pointer.domid != DOMID_SELF {
            let evidence = Evidence::Value(pointer.domid.into());
            return Err(Refusal::status(GNTST_PERMISSION_DENIED, rule::COPY_BY_FRAME).with(evidence));
        }
        pin::hold_own(call.hv, call.domain(), pointer.u, writable).map(Self::Own)
    }

    /// Passes a range of bytes that the copy may use.
    fn check(&self, bytes: Range<usize>) -> Result<Mfn, Refusal> {
        let held = match self {
            Self::Own(mfn) => return Ok(*mfn),
            Self::Granted(.., held) => held,
        };
        if held.bytes.start <= bytes.start && bytes.end <= held.bytes.end {
            return Ok(held.mfn);
        }
        let evidence = Evidence::Limit { asked: bytes.end as u64, limit: held.bytes.end as u64 };
        Err(Refusal::status(GNTST_GENERAL_ERROR, rule::COPY_PART).with(evidence))
    }

    fn release<M: Machine>(self, hv: &Hypervisor<M>, writable: bool) {
        match self {
            Self::Granted(granter, reference, held) => pin::unpin_after_copy(hv, &granter, reference, &held, writable),
            Self::Own(mfn) if writable => frames::put_typed(hv, mfn),
            Self::Own(mfn) => frames::put(hv, mfn),
        }
    }
}

fn copy<M: Machine>(call: &Call<'_, M>, request: &GnttabCopy) -> Result<(), Refusal> {
    let len = usize::from(request.len);
    for offset in [request.source.offset, request.dest.offset] {
        let end = usize::from(offset) + len;
        if end > 4096 {
            let evidence = Evidence::Limit { asked: end as u64, limit: 4096 };
            return Err(Refusal::status(GNTST_BAD_COPY_ARG, rule::COPY_RANGE).with(evidence));
        }
    }
    let source = Side::hold(call, &request.source, request.flags & GNTCOPY_SOURCE_GREF != 0, false)?;
    let dest = match Side::hold(call, &request.dest, request.flags & GNTCOPY_DEST_GREF != 0, true) {
        Ok(dest) => dest,
        Err(refusal) => {
            source.release(call.hv, false);
            return Err(refusal);
        }
    };
    let (to, from) = (usize::from(request.dest.offset), usize::from(request.source.offset));
    let checked = source.check(from..from + len).and_then(|source| Ok((source, dest.check(to..to + len)?)));
    let outcome = checked.map(|(source, dest)| call.hv.machine.copy_bytes(dest, to, source, from, len));
    dest.release(call.hv, true);
    source.release(call.hv, false);
    outcome
}
