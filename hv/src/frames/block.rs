//! Blocks of frames for a domain.
//!
//! A block is taken from the free lists, cleared, and then made the domain's. Clearing many frames takes long; where it
//! has to stop, the block is free again with what was cleared marked so, and the next try goes on with it: the free
//! lists give the last block back first.

use pv_abi::Mfn;

use super::{CountWord, DomainMemory, MAX_ORDER, prepare};
use crate::Hypervisor;
use crate::domain::Domain;
use crate::hardware::Machine;

/// How many frames are cleared between two questions whether to stop.
const CLEAR_STEP: u64 = 16;

/// What is asked of a block of frames for a domain.
#[derive(Clone, Copy, Debug, Default)]
pub struct Block {
    /// It has 2^`order` frames.
    pub order: u32,
    /// It lies below this frame.
    pub below: Option<u64>,
    /// What was in it before the machine started may stay: only for the first domain.
    pub keep_contents: bool,
    /// The frames replace others of the domain, whose number was checked.
    pub replaces: bool,
    /// Clearing may stop when something else waits.
    pub preemptible: bool,
}

/// Why there is no block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoBlock {
    /// The domain may not own so much.
    Maximum,
    /// Not enough memory is free and unclaimed, or not in one piece.
    Memory,
    /// The domain is being taken apart.
    Dying,
    /// Something else waits: ask again.
    Interrupted,
}

/// Takes a free frame and makes it the domain's, all zero; `None` where memory or the domain's maximum is used up.
#[must_use]
pub fn allocate_domain_frame<M: Machine>(hv: &Hypervisor<M>, domain: &Domain) -> Option<Mfn> {
    allocate_domain_block(hv, domain, Block::default()).ok()
}

/// Takes 2^order frames in one piece and makes them the domain's.
///
/// # Errors
/// [`NoBlock`].
pub fn allocate_domain_block<M: Machine>(hv: &Hypervisor<M>, domain: &Domain, block: Block) -> Result<Mfn, NoBlock> {
    let first = take_block(hv, domain, block)?;
    if adopt(hv, domain, first, block) {
        return Ok(first);
    }
    free_block(hv, first, block.order);
    Err(NoBlock::Dying)
}

/// Takes 2^order free frames for a domain, all zero; they are nobody's.
///
/// # Errors
/// [`NoBlock`].
pub(crate) fn take_block<M: Machine>(hv: &Hypervisor<M>, domain: &Domain, block: Block) -> Result<Mfn, NoBlock> {
    let frames = 1_u64 << block.order.min(MAX_ORDER);
    let first = {
        let mut memory = domain.memory.lock();
        if memory.closed {
            return Err(NoBlock::Dying);
        }
        if !block.replaces && memory.total.saturating_add(frames) > memory.max {
            return Err(NoBlock::Maximum);
        }
        take_claimed(hv, &mut memory, block, frames).ok_or(NoBlock::Memory)?
    };
    if clean(hv, first, frames, block) {
        return Ok(first);
    }
    free_block(hv, first, block.order);
    Err(NoBlock::Interrupted)
}

/// Clears the frames of a block that are not clear; false where it stopped.
fn clean<M: Machine>(hv: &Hypervisor<M>, first: Mfn, frames: u64, block: Block) -> bool {
    let mut cleared = 0;
    // For all frames at once: a CPU that loads a guest from now on forgets all before.
    let mut forgotten = hv.frames.clock().oldest();
    for mfn in (first.0..first.0 + frames).map(Mfn) {
        let record = hv.frames.record(mfn);
        let was_clean = record.is_clean();
        if was_clean && forgotten.is_none_or(|time| time.wrapping_sub(record.stamp()).cast_signed() > 0) {
            continue;
        }
        let stops = cleared % CLEAR_STEP == 0 && cleared != 0 && !was_clean;
        if block.preemptible && stops && hv.machine.interrupt_waiting() {
            return false;
        }
        prepare(hv, mfn, !block.keep_contents);
        forgotten = hv.frames.clock().oldest();
        if was_clean || !block.keep_contents {
            record.set_clean();
        }
        cleared += u64::from(!was_clean);
    }
    true
}

/// Makes frames of [`take_block`] the domain's; false where the domain is being taken apart.
#[must_use]
pub(crate) fn adopt<M: Machine>(hv: &Hypervisor<M>, domain: &Domain, first: Mfn, block: Block) -> bool {
    let mut memory = domain.memory.lock();
    if memory.closed {
        return false;
    }
    for mfn in (0..1_u64 << block.order).map(|n| Mfn(first.0 + n)) {
        let record = hv.frames.record(mfn);
        record.reset_type(super::PageType::None);
        record.assign(domain.id, 1, CountWord::ALLOCATED | CountWord::LISTED);
    }
    memory.link(&hv.frames, first, 1 << block.order);
    true
}

/// Makes a frame that is on no list the domain's: one that it had before, or that holds what was loaded for it.
pub(crate) fn give_back<M: Machine>(hv: &Hypervisor<M>, domain: &Domain, mfn: Mfn) {
    if !adopt(hv, domain, mfn, Block::default()) {
        super::free_stolen(hv, mfn);
    }
}

/// Gives frames of [`take_block`] that nobody saw back.
pub(crate) fn free_block<M: Machine>(hv: &Hypervisor<M>, first: Mfn, order: u32) {
    hv.allocator.lock().free(&hv.frames, first, order);
}

/// Takes free frames for a domain, out of its claim first.
fn take_claimed<M: Machine>(hv: &Hypervisor<M>, memory: &mut DomainMemory, block: Block, frames: u64) -> Option<Mfn> {
    let mut allocator = hv.allocator.lock();
    if allocator.unclaimed_count() + memory.claimed < frames {
        return None;
    }
    let first = match block.below {
        Some(limit) => allocator.allocate_below(&hv.frames, block.order, limit)?,
        None => allocator.allocate(&hv.frames, block.order)?,
    };
    let claimed = memory.claimed.min(frames);
    memory.claimed -= claimed;
    allocator.claimed -= claimed;
    Some(first)
}
