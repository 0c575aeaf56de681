//! Exchanging frames for others: of another order, or below an address that a device can reach.
//!
//! The exchange goes chunk by chunk, a chunk being the smallest number of frames that is whole blocks on both sides. New
//! frames are taken first, then the old ones are taken from the domain: none of them may be in use, by mappings or as a
//! table. Xen: `XENMEM_exchange`.

use alloc::vec::Vec;

use pv_abi::errno::Errno;
use pv_abi::memory::{MemoryExchange, MemoryReservation};
use pv_abi::{DomId, Mfn};

use super::MAX_ORDER;
use super::reservation::{below, no_block};
use crate::Hypervisor;
use crate::call::Call;
use crate::domain::Domain;
use crate::frames::{self, Block, ClaimedMfn, NoBlock};
use crate::hardware::Machine;
use crate::paging::entry::is_guest_address;
use crate::refusal::{Evidence, Refusal};
use crate::rules::{core as core_rules, memory as rules};

/// What is exchanged in one step.
#[derive(Clone, Copy, Debug)]
struct Chunk {
    /// Blocks that go in, as a power of two.
    in_order: u32,
    /// Blocks that come out, as a power of two.
    out_order: u32,
}

/// Why a chunk was not exchanged.
enum Stop {
    Interrupted,
    Refused(Refusal),
}

/// `XENMEM_exchange`. How much is done stands in the argument.
///
/// # Errors
/// `EFAULT`, `EPERM` for a block too large or another domain, `EINVAL` for lists that do not match or a frame that is
/// not the domain's or in use, `ESRCH`, `ENOMEM`.
pub(super) fn exchange<M: Machine>(call: &mut Call<'_, M>, args: [u64; 5]) -> Result<u64, Refusal> {
    let argument = args[1];
    let mut asked: MemoryExchange = call.read(argument)?;
    let outcome = checked(&asked).map_err(Stop::Refused).and_then(|chunk| run(call, &mut asked, chunk));
    call.write(argument + core::mem::offset_of!(MemoryExchange, nr_exchanged) as u64, &asked.nr_exchanged)?;
    match outcome {
        Ok(()) => Ok(0),
        Err(Stop::Interrupted) => Err(call.again(args)),
        Err(Stop::Refused(refusal)) => Err(refusal),
    }
}

fn checked(asked: &MemoryExchange) -> Result<Chunk, Refusal> {
    let (give, take) = (&asked.in_, &asked.out);
    let order = give.extent_order.max(take.extent_order);
    if order > MAX_ORDER {
        let evidence = Evidence::Limit { asked: order.into(), limit: MAX_ORDER.into() };
        return Err(Refusal::errno(Errno::Perm, rules::ORDER).with(evidence));
    }
    let frames = |list: &MemoryReservation| {
        let fits = u64::MAX >> list.extent_order >= list.nr_extents;
        fits.then(|| list.nr_extents << list.extent_order)
    };
    let same_size = matches!((frames(give), frames(take)), (Some(given), Some(taken)) if given == taken);
    if asked.nr_exchanged > give.nr_extents || give.domid != take.domid || !same_size {
        return Err(Refusal::errno(Errno::Inval, rules::EXCHANGE_LISTS).with(Evidence::Value(asked.nr_exchanged)));
    }
    for list in [give, take] {
        if !is_guest_address(list.extent_start) {
            let evidence = Evidence::Value(list.extent_start);
            return Err(Refusal::errno(Errno::Fault, core_rules::GUEST_MEMORY).with(evidence));
        }
    }
    Ok(Chunk {
        in_order: take.extent_order.saturating_sub(give.extent_order),
        out_order: give.extent_order.saturating_sub(take.extent_order),
    })
}

fn run<M: Machine>(call: &Call<'_, M>, asked: &mut MemoryExchange, chunk: Chunk) -> Result<(), Stop> {
    if asked.nr_exchanged == asked.in_.nr_extents {
        return Ok(());
    }
    let domain = call.target(DomId(asked.in_.domid)).map_err(Stop::Refused)?;
    if domain.hvm.is_some() {
        return Err(Stop::Refused(Refusal::errno(Errno::OpNotSupp, crate::rules::hvm::NO_EXCHANGE)));
    }
    let below = below(call.hv, asked.out.mem_flags).map_err(|refusal| {
        // No frame has so few address bits; here that is no more than there being none (Xen: -ENOMEM).
        Stop::Refused(Refusal::errno(Errno::NoMem, refusal.rule).with(refusal.evidence))
    })?;
    let order = asked.out.extent_order;
    let block = Block { order, below, replaces: true, preemptible: true, ..Block::default() };
    let first = asked.nr_exchanged >> chunk.in_order;
    for index in first..asked.in_.nr_extents >> chunk.in_order {
        asked.nr_exchanged = index << chunk.in_order;
        if index != first && call.should_stop() {
            return Err(Stop::Interrupted);
        }
        one(call, &domain, asked, chunk, block, index)?;
    }
    asked.nr_exchanged = asked.in_.nr_extents;
    Ok(())
}

/// Frames that undo what was taken when they are dropped half-way.
struct Taken<'a, M: Machine> {
    hv: &'a Hypervisor<M>,
    domain: &'a Domain,
    new: Vec<Mfn>,
    order: u32,
    old: Vec<Mfn>,
}

impl<M: Machine> Drop for Taken<'_, M> {
    fn drop(&mut self) {
        self.new.iter().for_each(|mfn| frames::free_block(self.hv, *mfn, self.order));
        self.old.iter().for_each(|mfn| frames::give_back(self.hv, self.domain, *mfn));
    }
}

/// Exchanges one chunk.
fn one<M: Machine>(
    call: &Call<'_, M>,
    domain: &Domain,
    asked: &MemoryExchange,
    chunk: Chunk,
    block: Block,
    index: u64,
) -> Result<(), Stop> {
    let hv = call.hv;
    let mut taken = Taken { hv, domain, new: Vec::new(), order: block.order, old: Vec::new() };
    for _ in 0..1 << chunk.out_order {
        match frames::take_block(hv, domain, block) {
            Ok(mfn) => taken.new.push(mfn),
            Err(NoBlock::Interrupted) => return Err(Stop::Interrupted),
            Err(why) => return Err(Stop::Refused(no_block(hv, domain, block, why))),
        }
    }
    for n in 0..1 << chunk.in_order {
        let place = (index << chunk.in_order) + n;
        let first: u64 = call.read_element(asked.in_.extent_start, place).map_err(Stop::Refused)?;
        for k in 0..1 << asked.in_.extent_order {
            let mfn = steal(hv, domain, ClaimedMfn(first.wrapping_add(k))).map_err(Stop::Refused)?;
            taken.old.push(mfn);
        }
    }
    taken.old.drain(..).for_each(|mfn| frames::free_stolen(hv, mfn));
    let new = core::mem::take(&mut taken.new);
    hand_over(call, domain, asked, block, index << chunk.out_order, &new).map_err(Stop::Refused)
}

fn steal<M: Machine>(hv: &Hypervisor<M>, domain: &Domain, claimed: ClaimedMfn) -> Result<Mfn, Refusal> {
    let mfn = frames::get(hv, claimed, domain.id)?;
    if frames::steal(hv, domain, mfn) {
        return Ok(mfn);
    }
    let refusal = Refusal::errno(Errno::Inval, rules::IN_USE).with(frames::evidence(hv, claimed));
    frames::put(hv, mfn);
    Err(refusal)
}

/// Makes the new blocks the domain's and tells it which they are.
fn hand_over<M: Machine>(
    call: &Call<'_, M>,
    domain: &Domain,
    asked: &MemoryExchange,
    block: Block,
    place: u64,
    new: &[Mfn],
) -> Result<(), Refusal> {
    let mut outcome = Ok(());
    for (n, mfn) in new.iter().enumerate() {
        if !frames::adopt(call.hv, domain, *mfn, block) {
            frames::free_block(call.hv, *mfn, block.order);
            continue;
        }
        let told = tell(call, asked.out.extent_start, place + n as u64, *mfn, block.order);
        outcome = outcome.and(told);
    }
    outcome
}

fn tell<M: Machine>(call: &Call<'_, M>, list: u64, index: u64, mfn: Mfn, order: u32) -> Result<(), Refusal> {
    let pfn: u64 = call.read_element(list, index)?;
    for n in 0..1 << order {
        call.hv.machine.set_m2p(Mfn(mfn.0 + n), pfn.wrapping_add(n));
    }
    call.write_element(list, index, &mfn.0)
}
