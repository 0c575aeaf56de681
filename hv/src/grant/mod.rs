//! Grant tables: a domain lets another one use some of its frames.
//!
//! The *granter* writes entries into frames it shares with the hypervisor; an entry says to whom, which frame, and
//! whether for writing. The one it is granted to *maps* it (and holds a *handle* for the mapping) or has the hypervisor
//! *copy*. While an entry is in use it is *pinned*: the hypervisor's bits in it (reading, writing) are set, so the
//! granter knows, and the frame stays what it is. A table has one of two [`Version`]s; with version 2 an entry may also
//! grant a part of a frame, or pass on what another domain granted ([`entry`]), both for copies only.
//!
//! Invariants:
//! - an entry of version 1 is read once, as one word, and pinned by exchanging exactly that word; one of version 2 is
//!   read again after its bits were set, and must still permit what is asked. What was read is what is used, also by all
//!   later uses of the same pinned entry;
//! - the reading bit of an entry is set just while somebody has it pinned, the writing bit just while for writing;
//! - each pin holds a reference on the frame, and for writing a type reference; a mapping in a page table holds its own.
//!   So a frame outlives its granter as long as it is mapped, and cannot become a page table;
//! - no two domains' tables are locked at once, and no reference is put under a table's lock.
//!
//! Source: `public/grant_table.h`.

mod copy;
mod entry;
mod map;
mod pin;
mod table;
#[cfg(test)]
mod tests;
mod version;

use alloc::sync::Arc;

use pv_abi::errno::Errno;
use pv_abi::grant_table::{
    GNTST_BAD_DOMAIN, GNTST_BAD_GNTREF, GNTST_BAD_PAGE, GNTST_EAGAIN, GNTST_GENERAL_ERROR, GNTST_OKAY,
    GNTST_PERMISSION_DENIED, GNTTAB_CACHE_CLEAN, GNTTAB_CACHE_INVAL, GNTTABOP_CACHE_FLUSH, GNTTABOP_COPY,
    GNTTABOP_GET_STATUS_FRAMES, GNTTABOP_GET_VERSION, GNTTABOP_MAP_GRANT_REF, GNTTABOP_QUERY_SIZE,
    GNTTABOP_SET_VERSION, GNTTABOP_SETUP_TABLE, GNTTABOP_SWAP_GRANT_REF, GNTTABOP_TRANSFER, GNTTABOP_UNMAP_AND_REPLACE,
    GNTTABOP_UNMAP_GRANT_REF, GnttabCacheFlush, GnttabGetStatusFrames, GnttabGetVersion, GnttabQuerySize,
    GnttabSetVersion, GnttabSetupTable, GnttabSwapGrantRef, GnttabTransfer,
};
use pv_abi::xen::{DOMID_SELF, HYPERVISOR_GRANT_TABLE_OP};
use pv_abi::{DomId, Mfn};
use zerocopy::{FromBytes, Immutable, IntoBytes};

pub use table::{GrantTable, Version, frame, relinquish, status_frame};

use crate::call::Call;
use crate::domain::Domain;
use crate::frames::{self, ClaimedMfn};
use crate::hardware::Machine;
use crate::refusal::{Consequence, Evidence, Refusal};
use crate::rules::grant as rule;
use crate::{hypercall, rules};

/// `grant_table_op(cmd, array, count)`.
///
/// # Errors
/// `EINVAL` for a count out of range, `EFAULT`, `ENOSYS` for an operation that does not exist; all that concerns one
/// operation of a batch is in its own status.
pub fn grant_table_op<M: Machine>(call: &mut Call<'_, M>, args: [u64; 5]) -> Result<u64, Refusal> {
    let [operation, array, count, ..] = args;
    let batch = Batch { operation: operation as u32, array, count: count as u32 };
    if batch.count > i32::MAX as u32 {
        return Err(Refusal::errno(Errno::Inval, rule::COUNT_RANGE).with(Evidence::Value(count)));
    }
    match batch.operation {
        GNTTABOP_MAP_GRANT_REF => batch.run(call, map::map),
        GNTTABOP_UNMAP_GRANT_REF => map::unmap_batch(call, &batch, map::unmap),
        GNTTABOP_UNMAP_AND_REPLACE => map::unmap_batch(call, &batch, map::unmap_and_replace),
        GNTTABOP_COPY => copy::copy_batch(call, &batch),
        GNTTABOP_TRANSFER => batch.run(call, transfer),
        GNTTABOP_SWAP_GRANT_REF => batch.run(call, swap),
        GNTTABOP_CACHE_FLUSH => batch.run_or_fail(call, cache_flush),
        GNTTABOP_SETUP_TABLE => setup_table(call, &batch),
        GNTTABOP_QUERY_SIZE => query_size(call, &batch),
        GNTTABOP_SET_VERSION => set_version(call, &batch),
        GNTTABOP_GET_VERSION => get_version(call, &batch),
        GNTTABOP_GET_STATUS_FRAMES => status_frames(call, &batch),
        // The upper bits are where Xen notes how far it got with an operation that has parts.
        beyond => {
            let errno = if beyond >> 12 == 0 { Errno::NoSys } else { Errno::Inval };
            Err(Refusal::errno(errno, rules::core::UNKNOWN_OPERATION).with(Evidence::Value(operation)))
        }
    }
}

/// An operation to be done on each element of an array.
struct Batch {
    operation: u32,
    array: u64,
    count: u32,
}

impl Batch {
    /// Does the operation on each element, telling each how it went.
    fn run<M, T>(&self, call: &mut Call<'_, M>, one: impl Fn(&mut Call<'_, M>, &mut T)) -> Result<u64, Refusal>
    where
        M: Machine,
        T: FromBytes + IntoBytes + Immutable,
    {
        for index in 0..self.count {
            let mut element: T = call.read_element(self.array, index.into())?;
            one(call, &mut element);
            call.write_element(self.array, index.into(), &element)?;
            self.pause_after::<M, T>(call, index)?;
        }
        Ok(0)
    }

    /// Does the operation on each element until one fails.
    fn run_or_fail<M, T>(
        &self,
        call: &mut Call<'_, M>,
        one: impl Fn(&mut Call<'_, M>, &T) -> Result<(), Refusal>,
    ) -> Result<u64, Refusal>
    where
        M: Machine,
        T: FromBytes + IntoBytes,
    {
        for index in 0..self.count {
            let element: T = call.read_element(self.array, index.into())?;
            one(call, &element)?;
            self.pause_after::<M, T>(call, index)?;
        }
        Ok(0)
    }

    /// Stops after element `index` where others wait and there is more to do.
    fn pause_after<M: Machine, T>(&self, call: &mut Call<'_, M>, index: u32) -> Result<(), Refusal> {
        let done = index + 1;
        if done == self.count || !call.should_stop() {
            return Ok(());
        }
        let rest = self.array.wrapping_add(u64::from(done) * size_of::<T>() as u64);
        Err(call.again([self.operation.into(), rest, (self.count - done).into(), 0, 0]))
    }

    /// The one element of an operation that takes no more.
    fn single<M: Machine, T: FromBytes + IntoBytes>(&self, call: &Call<'_, M>) -> Result<T, Refusal> {
        if self.count != 1 {
            let evidence = Evidence::Limit { asked: self.count.into(), limit: 1 };
            return Err(Refusal::errno(Errno::Inval, rule::COUNT_RANGE).with(evidence));
        }
        call.read(self.array)
    }
}

/// The status that a refusal means for an operation of a batch; says why.
fn status<M: Machine>(call: &Call<'_, M>, arguments: [u64; 5], outcome: Result<(), Refusal>) -> i16 {
    match outcome {
        Ok(()) => GNTST_OKAY,
        Err(refusal) => refused_status(call, arguments, &refusal),
    }
}

#[cold]
fn refused_status<M: Machine>(call: &Call<'_, M>, arguments: [u64; 5], refusal: &Refusal) -> i16 {
    hypercall::explain(call.hv, call.running, HYPERVISOR_GRANT_TABLE_OP, arguments, refusal);
    match refusal.consequence {
        Consequence::Status(status) => status,
        _ => GNTST_GENERAL_ERROR,
    }
}

/// Another room's refusal as the status of an operation.
#[cold]
fn with_status(refusal: &Refusal, status: i16) -> Refusal {
    Refusal::status(status, refusal.rule).with(refusal.evidence)
}

/// The domain that an operation names.
fn domain_of<M: Machine>(call: &Call<'_, M>, named: u16) -> Result<Arc<Domain>, Refusal> {
    if named == DOMID_SELF || named == call.domain().id.0 {
        return Ok(call.running.vcpu.domain.clone());
    }
    call.hv.domains.get(DomId(named)).ok_or_else(|| no_such_domain(named))
}

#[cold]
fn no_such_domain(named: u16) -> Refusal {
    Refusal::status(GNTST_BAD_DOMAIN, rule::NO_SUCH_DOMAIN).with(Evidence::Value(named.into()))
}

/// The domain whose table an operation names; another's only for a privileged caller.
fn table_of<M: Machine>(call: &Call<'_, M>, named: u16) -> Result<Arc<Domain>, Refusal> {
    let domain = domain_of(call, named)?;
    if domain.id != call.domain().id && !call.domain().privileged {
        return Err(Refusal::status(GNTST_PERMISSION_DENIED, rule::NOT_PRIVILEGED).with(Evidence::Value(named.into())));
    }
    Ok(domain)
}

/// Makes a table at least as large as asked and gives its frames.
fn setup_table<M: Machine>(call: &mut Call<'_, M>, batch: &Batch) -> Result<u64, Refusal> {
    let mut request: GnttabSetupTable = batch.single(call)?;
    let outcome = match table_of(call, request.dom) {
        Ok(domain) => grow(call, batch, &domain, request.nr_frames)?.map(|()| domain),
        Err(refusal) => Err(refusal),
    };
    if let Ok(domain) = &outcome {
        for index in 0..request.nr_frames {
            let mfn = domain.grants.lock().frame(index).unwrap_or(Mfn(0));
            call.write_element(request.frame_list, index.into(), &mfn.0)?;
        }
    }
    let arguments = [batch.operation.into(), request.dom.into(), request.nr_frames.into(), 0, 0];
    request.status = status(call, arguments, outcome.map(drop));
    call.write(batch.array, &request).map(|()| 0)
}

/// Grows a table; the outer error is that of the hypercall: it goes on later.
fn grow<M: Machine>(
    call: &mut Call<'_, M>,
    batch: &Batch,
    domain: &Domain,
    frames: u32,
) -> Result<Result<(), Refusal>, Refusal> {
    if let Err(refusal) = domain.grants.lock().check_size(frames) {
        return Ok(Err(refusal));
    }
    loop {
        let size = domain.grants.lock().size();
        if size >= frames {
            return Ok(Ok(()));
        }
        if let Err(refusal) = table::grow_by_one(call.hv, domain, size) {
            return Ok(Err(refusal));
        }
        if call.should_stop() {
            return Err(call.again([batch.operation.into(), batch.array, 1, 0, 0]));
        }
    }
}

fn query_size<M: Machine>(call: &mut Call<'_, M>, batch: &Batch) -> Result<u64, Refusal> {
    let mut request: GnttabQuerySize = batch.single(call)?;
    let outcome = table_of(call, request.dom).map(|domain| {
        // A table has a frame from the beginning, which nobody can tell before asking.
        let _ = frame(call.hv, &domain, 0);
        let table = domain.grants.lock();
        request.nr_frames = table.size();
        request.max_nr_frames = table.max_size();
    });
    request.status = status(call, [batch.operation.into(), request.dom.into(), 0, 0, 0], outcome);
    call.write(batch.array, &request).map(|()| 0)
}

/// Chooses the form of the caller's entries; tells the one that there is afterwards.
fn set_version<M: Machine>(call: &mut Call<'_, M>, batch: &Batch) -> Result<u64, Refusal> {
    let request: GnttabSetVersion = call.read(batch.array)?;
    let evidence = Evidence::Value(request.version.into());
    let outcome = match request.version {
        1 => version::switch(call.hv, call.domain(), Version::One),
        2 => version::switch(call.hv, call.domain(), Version::Two),
        _ => Err(Refusal::errno(Errno::Inval, rule::VERSION_RANGE).with(evidence)),
    };
    let domain = call.running.vcpu.domain.clone();
    let frames = domain.grants.lock().frames.len() as u32;
    // The frames are there: what can happen is that this goes on later.
    let _ = grow(call, batch, &domain, frames)?;
    if outcome != Err(Refusal::again()) {
        let version = domain.grants.lock().version().number();
        call.write(batch.array, &GnttabSetVersion { version })?;
    }
    outcome.map(|()| 0)
}

fn get_version<M: Machine>(call: &mut Call<'_, M>, batch: &Batch) -> Result<u64, Refusal> {
    let mut request: GnttabGetVersion = call.read(batch.array)?;
    let domain = call.target(DomId(request.dom))?;
    request.version = domain.grants.lock().version().number();
    call.write(batch.array, &request).map(|()| 0)
}

/// Gives the frames of a table's status words.
fn status_frames<M: Machine>(call: &mut Call<'_, M>, batch: &Batch) -> Result<u64, Refusal> {
    let mut request: GnttabGetStatusFrames = batch.single(call)?;
    let outcome = table_of(call, request.dom).and_then(|domain| {
        let limit = domain.grants.lock().status.len() as u64;
        if u64::from(request.nr_frames) <= limit {
            return Ok(domain);
        }
        let evidence = Evidence::Limit { asked: request.nr_frames.into(), limit };
        Err(Refusal::status(GNTST_GENERAL_ERROR, rule::STATUS_SIZE).with(evidence))
    });
    if let Ok(domain) = &outcome {
        for index in 0..request.nr_frames {
            let mfn = domain.grants.lock().status.get(index as usize).copied().unwrap_or(Mfn(0));
            call.write_element(request.frame_list, index.into(), &mfn.0)?;
        }
    }
    request.status = status(call, [batch.operation.into(), request.dom.into(), 0, 0, 0], outcome.map(drop));
    call.write(batch.array, &request).map(|()| 0)
}

/// Refuses to give a frame away. This is the one status that says that the frame stays the caller's.
fn transfer<M: Machine>(call: &mut Call<'_, M>, request: &mut GnttabTransfer) {
    let refusal =
        Refusal::status(GNTST_BAD_PAGE, rule::NO_TRANSFER).with(frames::evidence(call.hv, ClaimedMfn(request.mfn)));
    let arguments = [GNTTABOP_TRANSFER.into(), request.mfn, request.domid.into(), request.ref_.into(), 0];
    request.status = refused_status(call, arguments, &refusal);
}

/// Swaps two entries of the caller's table that nobody uses.
fn swap<M: Machine>(call: &mut Call<'_, M>, request: &mut GnttabSwapGrantRef) {
    let outcome = swap_entries(call, request.ref_a, request.ref_b);
    let arguments = [GNTTABOP_SWAP_GRANT_REF.into(), request.ref_a.into(), request.ref_b.into(), 0, 0];
    request.status = status(call, arguments, outcome);
}

fn swap_entries<M: Machine>(call: &Call<'_, M>, a: u32, b: u32) -> Result<(), Refusal> {
    let table = call.domain().grants.lock();
    for reference in [a, b] {
        table.entry(reference).ok_or_else(|| reference_range(reference))?;
    }
    if a == b {
        return Ok(());
    }
    if let Some(used) = [a, b].into_iter().find(|reference| table.is_pinned(*reference)) {
        return Err(Refusal::status(GNTST_EAGAIN, rule::SWAP_IN_USE).with(Evidence::Value(used.into())));
    }
    version::swap(call.hv, &table, a, b);
    Ok(())
}

#[cold]
fn reference_range(reference: u32) -> Refusal {
    Refusal::status(GNTST_BAD_GNTREF, rule::REFERENCE_RANGE).with(Evidence::Value(reference.into()))
}

/// Cache maintenance: this architecture's caches are coherent with devices, so what is allowed is done already.
fn cache_flush<M: Machine>(call: &mut Call<'_, M>, request: &GnttabCacheFlush) -> Result<(), Refusal> {
    let end = u32::from(request.offset) + u32::from(request.length);
    let range =
        || Refusal::errno(Errno::Inval, rule::FLUSH_RANGE).with(Evidence::Limit { asked: end.into(), limit: 4096 });
    if end > 4096 || request.offset == 4096 || request.op & !(GNTTAB_CACHE_CLEAN | GNTTAB_CACHE_INVAL) != 0 {
        return Err(range());
    }
    if request.length == 0 || request.op == 0 {
        return Ok(());
    }
    let claimed = ClaimedMfn(request.a >> 12);
    if request.op == GNTTAB_CACHE_INVAL {
        let evidence = Evidence::Value(request.op.into());
        return Err(Refusal::errno(Errno::OpNotSupp, rule::FLUSH_OPERATION).with(evidence));
    }
    let refuse = |errno| Refusal::errno(errno, rule::FLUSH_FRAME).with(frames::evidence(call.hv, claimed));
    match frames::owner(call.hv, claimed) {
        Some(owner) if owner == call.domain().id => Ok(()),
        Some(_) if call.domain().grants.lock().has_mapped(Mfn(claimed.0)) => Ok(()),
        Some(_) => Err(refuse(Errno::Inval)),
        None if call.hv.frames.find(claimed).is_none() => Err(refuse(Errno::Inval)),
        None => Err(refuse(Errno::Perm)),
    }
}
