//! Exchanging frames for others: of another order, or below an address that a device can reach.
//!
//! The exchange goes chunk by chunk, a chunk being the smallest number of frames that is whole blocks on both sides. New
//! frames are taken first, then the old ones are taken from the domain: none of them may be in use, by mappings or as a
//! table. Then the old ones are freed, and the new ones are handed over. A chunk can be large, so it may stop after each
//! few frames; what it holds waits with the vCPU. Xen: `XENMEM_exchange`.

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;

use pv_abi::errno::Errno;
use pv_abi::memory::{MemoryExchange, MemoryReservation};
use pv_abi::{DomId, Mfn};

use super::MAX_ORDER;
use super::reservation::{below, no_block};
use crate::Hypervisor;
use crate::call::Call;
use crate::domain::{Domain, VcpuState};
use crate::frames::{self, Block, ClaimedMfn, NoBlock};
use crate::hardware::Machine;
use crate::paging::entry::is_guest_address;
use crate::refusal::{Evidence, Refusal};
use crate::rules::{core as core_rules, memory as rules};

/// How many frames are dealt with between two questions whether to stop.
const STEP: usize = 16;

/// What is exchanged as a whole or not at all.
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
    let outcome = checked(&asked).map_err(Stop::Refused).and_then(|chunk| run(call, argument, &mut asked, chunk));
    if !matches!(outcome, Err(Stop::Interrupted)) {
        abandon_exchange(call.hv, &mut call.running.state);
    }
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

fn run<M: Machine>(
    call: &mut Call<'_, M>,
    argument: u64,
    asked: &mut MemoryExchange,
    chunk: Chunk,
) -> Result<(), Stop> {
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
        one(call, &domain, (argument, index), asked, chunk, block)?;
    }
    asked.nr_exchanged = asked.in_.nr_extents;
    Ok(())
}

/// A chunk that is being exchanged, or that stopped half-way.
pub struct Exchanging {
    /// The operation's argument, and which chunk of it.
    what: (u64, u64),
    domain: Arc<Domain>,
    /// Blocks that come out, which are nobody's before they are handed over.
    new: Vec<Mfn>,
    order: u32,
    /// Frames that went in, which are nobody's.
    old: Vec<Mfn>,
    /// All that is to go in and to come out is there: from here on the exchange takes place.
    complete: bool,
    /// How many blocks were handed over, and whether the guest could be told of all of them.
    handed: usize,
    told: Result<(), Refusal>,
}

/// Exchanges one chunk, or goes on with it where it was stopped.
fn one<M: Machine>(
    call: &mut Call<'_, M>,
    domain: &Arc<Domain>,
    what: (u64, u64),
    asked: &MemoryExchange,
    chunk: Chunk,
    block: Block,
) -> Result<(), Stop> {
    let resumes =
        |left: &Exchanging| left.what == what && left.order == block.order && Arc::ptr_eq(&left.domain, domain);
    if !call.running.state.exchanging.as_deref().is_some_and(resumes) {
        abandon_exchange(call.hv, &mut call.running.state);
    }
    let mut work = call.running.state.exchanging.take().unwrap_or_else(|| Exchanging::new(what, domain, block));
    let outcome = work.go_on(call, asked, chunk, block);
    if outcome.is_err() {
        call.running.state.exchanging = Some(work);
    }
    outcome
}

/// Gives up a chunk that stopped half-way, if there is one: what was taken goes back where it was.
pub fn abandon_exchange<M: Machine>(hv: &Hypervisor<M>, state: &mut VcpuState) {
    let Some(left) = state.exchanging.take() else {
        return;
    };
    left.new.iter().skip(left.handed).for_each(|mfn| frames::free_block(hv, *mfn, left.order));
    left.old.iter().for_each(|mfn| frames::give_back(hv, &left.domain, *mfn));
}

impl Exchanging {
    fn new(what: (u64, u64), domain: &Arc<Domain>, block: Block) -> Box<Self> {
        Box::new(Self {
            what,
            domain: domain.clone(),
            new: Vec::new(),
            order: block.order,
            old: Vec::new(),
            complete: false,
            handed: 0,
            told: Ok(()),
        })
    }

    fn go_on<M: Machine>(
        &mut self,
        call: &Call<'_, M>,
        asked: &MemoryExchange,
        chunk: Chunk,
        block: Block,
    ) -> Result<(), Stop> {
        if !self.complete {
            self.take_new(call, chunk, block)?;
            self.take_old(call, asked, chunk)?;
            self.complete = true;
        }
        self.free_old(call)?;
        self.hand_over(call, asked, chunk, block)?;
        self.told.map_err(Stop::Refused)
    }

    fn take_new<M: Machine>(&mut self, call: &Call<'_, M>, chunk: Chunk, block: Block) -> Result<(), Stop> {
        let from = self.new.len();
        for count in from..1 << chunk.out_order {
            stop_after(call, count - from)?;
            match frames::take_block(call.hv, &self.domain, block) {
                Ok(mfn) => self.new.push(mfn),
                Err(NoBlock::Interrupted) => return Err(Stop::Interrupted),
                Err(why) => return Err(Stop::Refused(no_block(call.hv, &self.domain, block, why))),
            }
        }
        Ok(())
    }

    fn take_old<M: Machine>(&mut self, call: &Call<'_, M>, asked: &MemoryExchange, chunk: Chunk) -> Result<(), Stop> {
        let order = asked.in_.extent_order;
        let first = self.what.1 << chunk.in_order;
        let from = self.old.len();
        for count in from..1 << (chunk.in_order + order) {
            stop_after(call, count - from)?;
            let (place, within) = (first + (count >> order) as u64, count as u64 & ((1 << order) - 1));
            let block: u64 = call.read_element(asked.in_.extent_start, place).map_err(Stop::Refused)?;
            let mfn = steal(call.hv, &self.domain, ClaimedMfn(block.wrapping_add(within))).map_err(Stop::Refused)?;
            self.old.push(mfn);
        }
        Ok(())
    }

    fn free_old<M: Machine>(&mut self, call: &Call<'_, M>) -> Result<(), Stop> {
        let from = self.old.len();
        while let Some(mfn) = self.old.last().copied() {
            stop_after(call, from - self.old.len())?;
            frames::free_stolen(call.hv, mfn);
            self.old.pop();
        }
        Ok(())
    }

    /// Makes the new blocks the domain's and tells it which they are.
    fn hand_over<M: Machine>(
        &mut self,
        call: &Call<'_, M>,
        asked: &MemoryExchange,
        chunk: Chunk,
        block: Block,
    ) -> Result<(), Stop> {
        let first = self.what.1 << chunk.out_order;
        let from = self.handed;
        while let Some(mfn) = self.new.get(self.handed).copied() {
            stop_after(call, (self.handed - from) << self.order)?;
            if frames::adopt(call.hv, &self.domain, mfn, block) {
                let place = first + self.handed as u64;
                let told = tell(call, asked.out.extent_start, place, mfn, block.order);
                self.told = self.told.and(told);
            } else {
                frames::free_block(call.hv, mfn, block.order);
            }
            self.handed += 1;
        }
        Ok(())
    }
}

/// Stops before the next frame, where so many are done, something else waits, and there are enough to have been worth it.
fn stop_after<M: Machine>(call: &Call<'_, M>, done: usize) -> Result<(), Stop> {
    if done != 0 && done.is_multiple_of(STEP) && call.should_stop() { Err(Stop::Interrupted) } else { Ok(()) }
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

fn tell<M: Machine>(call: &Call<'_, M>, list: u64, index: u64, mfn: Mfn, order: u32) -> Result<(), Refusal> {
    let pfn: u64 = call.read_element(list, index)?;
    for n in 0..1 << order {
        call.hv.machine.set_m2p(Mfn(mfn.0 + n), pfn.wrapping_add(n));
    }
    call.write_element(list, index, &mfn.0)
}
