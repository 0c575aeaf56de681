//! Taking memory and giving it back.
//!
//! A domain takes blocks (`increase_reservation`, `populate_physmap`) up to its maximum and gives frames back
//! (`decrease_reservation`); a frame that is given back is free once nothing maps it. These operations return how many
//! blocks were done and never an error.

use pv_abi::errno::Errno;
use pv_abi::memory::{
    MemoryReservation, XENMEM_DECREASE_RESERVATION, XENMEM_POPULATE_PHYSMAP, XENMEMF_POPULATE_ON_DEMAND,
    xenmemf_get_address_bits,
};
use pv_abi::xen::HYPERVISOR_MEMORY_OP;
use pv_abi::{DomId, Mfn};

use super::{EXTENT_SHIFT, MAX_ORDER};
use crate::Hypervisor;
use crate::call::Call;
use crate::domain::Domain;
use crate::frames::{self, Block, ClaimedMfn, NoBlock};
use crate::hardware::Machine;
use crate::hvm;
use crate::hypercall::explain;
use crate::paging::entry::is_guest_address;
use crate::refusal::{Evidence, Refusal};
use crate::rules::{core as core_rules, memory as rules};

/// How many frames of a block are given back between two questions whether to stop.
const GIVE_STEP: u64 = 16;

/// A block that is given back in part: the operation that gives it goes on behind these frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Given {
    /// The operation's argument.
    argument: u64,
    /// Which element of its list.
    index: u64,
    /// How many frames of the block are given.
    frames: u64,
}

/// Why a list was not done to its end.
enum Stop {
    Interrupted,
    Refused(Refusal),
}

impl From<Refusal> for Stop {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

/// `XENMEM_increase_reservation`, `XENMEM_decrease_reservation`, `XENMEM_populate_physmap`: how many blocks are done.
pub(super) fn adjust<M: Machine>(
    call: &mut Call<'_, M>,
    args: [u64; 5],
    command: u32,
    before: u64,
) -> Result<u64, Refusal> {
    let mut done = before;
    match run(call, args[1], command, &mut done) {
        Ok(()) => Ok(done),
        Err(Stop::Interrupted) => {
            let [_, argument, rest @ ..] = args;
            let command = u64::from(command) | done << EXTENT_SHIFT;
            Err(call.again([command, argument, rest[0], rest[1], rest[2]]))
        }
        Err(Stop::Refused(refusal)) => {
            explain(call.hv, call.running, HYPERVISOR_MEMORY_OP, args, &refusal);
            Ok(done)
        }
    }
}

fn run<M: Machine>(call: &mut Call<'_, M>, argument: u64, command: u32, done: &mut u64) -> Result<(), Stop> {
    let asked: MemoryReservation = call.read(argument)?;
    if asked.nr_extents > u64::from(u32::MAX >> EXTENT_SHIFT) {
        return Err(too_many(asked.nr_extents, u64::from(u32::MAX >> EXTENT_SHIFT)).into());
    }
    if *done >= asked.nr_extents {
        return Ok(());
    }
    if !is_guest_address(asked.extent_start) {
        return Err(call.fault(asked.extent_start).into());
    }
    let domain = call.target(DomId(asked.domid))?;
    let block = block_of(call.hv, &asked, &domain)?;
    let begin = *done;
    while *done < asked.nr_extents {
        if *done != begin && call.should_stop() {
            return Err(Stop::Interrupted);
        }
        match command {
            XENMEM_DECREASE_RESERVATION => give(call, &domain, &asked, argument, *done)?,
            XENMEM_POPULATE_PHYSMAP => populate(call, &domain, &asked, block, *done)?,
            _ => increase(call, &domain, &asked, block, *done)?,
        }
        *done += 1;
    }
    Ok(())
}

#[cold]
fn too_many(asked: u64, limit: u64) -> Refusal {
    Refusal::errno(Errno::Inval, rules::LIST_LENGTH).with(Evidence::Limit { asked, limit })
}

/// What block each element asks for.
pub(super) fn block_of<M: Machine>(
    hv: &Hypervisor<M>,
    asked: &MemoryReservation,
    domain: &Domain,
) -> Result<Block, Refusal> {
    // With hardware assistance a block of 2 MiB is one entry of the tables.
    let most = if domain.hvm.is_some() { hvm::physmap::LARGE_ORDER } else { MAX_ORDER };
    if asked.extent_order > most {
        let evidence = Evidence::Limit { asked: asked.extent_order.into(), limit: most.into() };
        return Err(Refusal::errno(Errno::Perm, rules::ORDER).with(evidence));
    }
    if asked.mem_flags & XENMEMF_POPULATE_ON_DEMAND != 0 {
        return Err(Refusal::errno(Errno::Inval, rules::ON_DEMAND));
    }
    let below = below(hv, asked.mem_flags)?;
    Ok(Block { order: asked.extent_order, below, preemptible: true, ..Block::default() })
}

/// The frame that a block must lie below, by the width of addresses that is asked for.
pub(super) fn below<M: Machine>(hv: &Hypervisor<M>, mem_flags: u32) -> Result<Option<u64>, Refusal> {
    match xenmemf_get_address_bits(mem_flags) {
        0 => Ok(None),
        bits @ 1..=12 => Err(Refusal::errno(Errno::Inval, rules::ADDRESS_BITS).with(Evidence::Value(bits.into()))),
        bits => Ok(1_u64.checked_shl(bits - 12).filter(|limit| *limit < hv.machine.frame_count())),
    }
}

fn take<M: Machine>(hv: &Hypervisor<M>, domain: &Domain, block: Block) -> Result<Mfn, Stop> {
    frames::allocate_domain_block(hv, domain, block).map_err(|why| match why {
        NoBlock::Interrupted => Stop::Interrupted,
        why => no_block(hv, domain, block, why).into(),
    })
}

#[cold]
pub(super) fn no_block<M: Machine>(hv: &Hypervisor<M>, domain: &Domain, block: Block, why: NoBlock) -> Refusal {
    let frames = 1 << block.order;
    let (rule, evidence) = match why {
        NoBlock::Maximum => {
            let memory = domain.memory.lock();
            (rules::MAXIMUM, Evidence::Limit { asked: memory.total + frames, limit: memory.max })
        }
        NoBlock::Dying => (rules::DYING, Evidence::Value(domain.id.0.into())),
        NoBlock::Memory | NoBlock::Interrupted => {
            (rules::NO_MEMORY, Evidence::Limit { asked: frames, limit: hv.allocator.lock().unclaimed_count() })
        }
    };
    Refusal::errno(Errno::NoMem, rule).with(evidence)
}

fn increase<M: Machine>(
    call: &Call<'_, M>,
    domain: &Domain,
    asked: &MemoryReservation,
    block: Block,
    index: u64,
) -> Result<(), Stop> {
    let mfn = take(call.hv, domain, block)?;
    if asked.extent_start != 0 && domain.hvm.is_none() {
        call.write_element(asked.extent_start, index, &mfn.0)?;
    }
    Ok(())
}

fn populate<M: Machine>(
    call: &Call<'_, M>,
    domain: &Domain,
    asked: &MemoryReservation,
    block: Block,
    index: u64,
) -> Result<(), Stop> {
    let pfn: u64 = call.read_element(asked.extent_start, index)?;
    if domain.hvm.is_some() {
        hvm::memory::check_block(pfn, block.order)?;
    }
    let mfn = take(call.hv, domain, block)?;
    if let Some(hvm) = &domain.hvm {
        return Ok(hvm::memory::populate(call.hv, domain, hvm, (pfn, block.order), mfn)?);
    }
    for n in 0..1 << block.order {
        call.hv.machine.set_m2p(Mfn(mfn.0 + n), pfn.wrapping_add(n));
    }
    call.write_element(asked.extent_start, index, &mfn.0)?;
    Ok(())
}

/// Gives a block back, frame by frame; frames given before one that is refused stay given.
fn give<M: Machine>(
    call: &mut Call<'_, M>,
    domain: &Domain,
    asked: &MemoryReservation,
    argument: u64,
    index: u64,
) -> Result<(), Stop> {
    let first: u64 = call.read_element(asked.extent_start, index)?;
    let resumed = call.state().given.take().filter(|given| (given.argument, given.index) == (argument, index));
    let begin = resumed.map_or(0, |given| given.frames);
    for n in begin..1 << asked.extent_order {
        if n != begin && n.is_multiple_of(GIVE_STEP) && call.should_stop() {
            call.state().given = Some(Given { argument, index, frames: n });
            return Err(Stop::Interrupted);
        }
        if let Some(hvm) = &domain.hvm {
            hvm::memory::give(call.hv, domain, hvm, first.wrapping_add(n))?;
            continue;
        }
        let mfn = frames::get(call.hv, ClaimedMfn(first.wrapping_add(n)), domain.id)?;
        call.hv.machine.set_m2p(mfn, frames::INVALID_M2P);
        frames::drop_allocation(call.hv, mfn);
        frames::put(call.hv, mfn);
    }
    Ok(())
}

/// `XENMEM_claim_pages`.
///
/// # Errors
/// `EINVAL` for a list or an order, a claim that cannot be, or a domain that there is not (`DOMID_SELF` names none);
/// `EPERM` unless privileged; `ENOMEM`.
pub(super) fn claim<M: Machine>(call: &Call<'_, M>, argument: u64) -> Result<u64, Refusal> {
    let asked: MemoryReservation = call.read(argument)?;
    if asked.extent_order != 0 || asked.mem_flags != 0 || asked.extent_start != 0 {
        return Err(Refusal::errno(Errno::Inval, rules::CLAIM));
    }
    let named = DomId(asked.domid);
    let domain = call.hv.domains.get(named).ok_or_else(|| {
        Refusal::errno(Errno::Inval, core_rules::NO_SUCH_DOMAIN).with(Evidence::Value(named.0.into()))
    })?;
    call.privileged()?;
    frames::claim(call.hv, &domain, asked.nr_extents)?;
    Ok(0)
}
