//! A domain's grant table, and what it has mapped of others'.

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;

use hashbrown::HashMap;
use pv_abi::grant_table::{GNTST_GENERAL_ERROR, GNTST_NO_SPACE, GTF_READING, GTF_WRITING};
use pv_abi::{DomId, Mfn};

use super::entry::{Field, Granted, Place};
use super::pin;
use crate::Hypervisor;
use crate::domain::Domain;
use crate::frames;
use crate::hardware::Machine;
use crate::heap::try_array;
use crate::refusal::{Evidence, Refusal};
use crate::rules::grant as rule;

/// The form of a table's entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Version {
    /// A word each, with frames of 32 bits.
    One,
    /// Two words each, and a status word apart.
    Two,
}

impl Version {
    /// As the ABI counts them.
    #[must_use]
    pub const fn number(self) -> u32 {
        match self {
            Self::One => 1,
            Self::Two => 2,
        }
    }

    /// Entries in a frame.
    const fn entries(self) -> u32 {
        match self {
            Self::One => 512,
            Self::Two => 256,
        }
    }
}

/// Entries whose status words are in one frame.
const STATUS_WORDS: u32 = 2048;

/// Frames of entries of version 2 for each status frame.
pub(super) const FRAMES_PER_STATUS: u32 = STATUS_WORDS / Version::Two.entries();

/// Mappings that a maptrack frame stands for: Xen's record of one is 16 bytes.
const MAPPINGS_PER_FRAME: u32 = 256;

/// Mappings that are allocated together, and released together when a domain goes.
const CHUNK: usize = 64;

/// Chunks of mappings that are looked at to find one by its frame.
const LOOKED_AT: usize = 64;

/// An entry that is pinned.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pinned {
    /// By whom.
    pub(super) by: DomId,
    /// What the entry granted when it was pinned first.
    pub(super) granted: Granted,
    /// How often, for reading.
    pub(super) readers: u32,
    /// How often, for writing.
    pub(super) writers: u32,
}

/// A mapping of another domain's grant.
#[derive(Clone, Copy, Debug)]
pub(super) struct Mapping {
    /// Who granted.
    pub(super) granter: DomId,
    /// The entry.
    pub(super) reference: u32,
    /// The frame.
    pub(super) mfn: Mfn,
    /// Only for reading.
    pub(super) readonly: bool,
    /// Whether the CPU's mapping was asked for by the address of its page-table entry.
    pub(super) by_entry: bool,
    /// Whether there is a mapping for the CPU.
    pub(super) host: bool,
    /// Whether there is one for devices.
    pub(super) device: bool,
    /// How many are removing part of it at this moment.
    pub(super) claims: u32,
}

#[derive(Clone, Copy, Debug)]
enum Slot {
    /// Free; the next free one.
    Free(u32),
    /// Given out, and not yet a mapping.
    Reserved,
    Used(Mapping),
}

/// The end of the list of free handles.
const NONE: u32 = u32::MAX;

/// A domain's grant table and what it has mapped of others'.
pub struct GrantTable {
    pub(super) version: Version,
    pub(super) max_version: Version,
    pub(super) frames: Vec<Mfn>,
    /// How many of the frames, the first ones, hold entries; the others are to be cleared before they do.
    pub(super) cleared: u32,
    /// The status words of version 2; none in version 1.
    pub(super) status: Vec<Mfn>,
    max_frames: u32,
    pinned: HashMap<u32, Pinned>,
    #[expect(clippy::vec_box, reason = "a table that grows moves pointers, not mappings")]
    mappings: Vec<Box<[Slot; CHUNK]>>,
    first_free: u32,
    max_mappings: u32,
    /// Where releasing all mappings goes on.
    next_to_release: u32,
}

impl Default for GrantTable {
    /// With Xen's default limits.
    fn default() -> Self {
        Self::new(64, 1024)
    }
}

impl GrantTable {
    /// An empty table that may grow to `max_frames` frames, and `max_maptrack_frames` times 256 mappings.
    #[must_use]
    pub fn new(max_frames: u32, max_maptrack_frames: u32) -> Self {
        Self {
            version: Version::One,
            max_version: Version::Two,
            frames: Vec::new(),
            cleared: 0,
            status: Vec::new(),
            max_frames,
            pinned: HashMap::new(),
            mappings: Vec::new(),
            first_free: NONE,
            max_mappings: max_maptrack_frames.saturating_mul(MAPPINGS_PER_FRAME),
            next_to_release: 0,
        }
    }

    /// Lets the domain choose no version above this.
    #[must_use]
    pub fn with_max_version(self, max_version: Version) -> Self {
        Self { max_version, ..self }
    }

    /// The form of its entries.
    #[must_use]
    pub const fn version(&self) -> Version {
        self.version
    }

    /// How many frames the table has.
    #[must_use]
    pub fn size(&self) -> u32 {
        self.cleared
    }

    /// How many frames it may have.
    #[must_use]
    pub const fn max_size(&self) -> u32 {
        self.max_frames
    }

    /// How many frames its status words may have, in version 2.
    #[must_use]
    pub const fn max_status_size(&self) -> u32 {
        self.max_frames.div_ceil(FRAMES_PER_STATUS)
    }

    /// One of its frames.
    #[must_use]
    pub fn frame(&self, index: u32) -> Option<Mfn> {
        self.frames[..self.cleared as usize].get(index as usize).copied()
    }

    pub(super) fn check_size(&self, frames: u32) -> Result<(), Refusal> {
        if frames <= self.max_frames {
            return Ok(());
        }
        let evidence = Evidence::Limit { asked: frames.into(), limit: self.max_frames.into() };
        Err(Refusal::status(GNTST_GENERAL_ERROR, rule::TABLE_SIZE).with(evidence))
    }

    /// Where an entry lies.
    #[inline]
    pub(super) fn entry(&self, reference: u32) -> Option<Place> {
        let version = self.version;
        let mfn = self.frame(reference / version.entries())?;
        let index = (reference % version.entries()) as usize;
        if version == Version::One {
            return Some(Place { version, mfn, word: index, bits: Field { mfn, word: index, shift: 0 } });
        }
        let status = *self.status.get((reference / STATUS_WORDS) as usize)?;
        let place = (reference % STATUS_WORDS) as usize;
        let bits = Field { mfn: status, word: place / 4, shift: place % 4 * 16 };
        Some(Place { version, mfn, word: index * 2, bits })
    }

    pub(super) fn is_pinned(&self, reference: u32) -> bool {
        self.pinned.contains_key(&reference)
    }

    /// An entry from `first` on that is in use.
    pub(super) fn pinned_from(&self, first: u32) -> Option<u32> {
        self.pinned.keys().copied().find(|reference| *reference >= first)
    }

    pub(super) fn pinned(&self, reference: u32) -> Option<Pinned> {
        self.pinned.get(&reference).copied()
    }

    /// Makes sure that one more use can be counted.
    pub(super) fn make_room(&mut self) -> Result<(), Refusal> {
        let no_room = |_| Refusal::status(GNTST_GENERAL_ERROR, rule::NO_PIN_MEMORY);
        self.pinned.try_reserve(1).map_err(no_room)
    }

    /// Counts a use of an entry, the first of which is `first`.
    pub(super) fn count(&mut self, reference: u32, first: Pinned, writable: bool) {
        let pinned = self.pinned.entry(reference).or_insert(first);
        *(if writable { &mut pinned.writers } else { &mut pinned.readers }) += 1;
    }

    /// Counts a use less; gives those of the hypervisor's bits of the entry that nobody needs any more.
    pub(super) fn count_less(&mut self, reference: u32, writable: bool) -> u16 {
        let Some(pinned) = self.pinned.get_mut(&reference) else {
            return 0;
        };
        let count = if writable { &mut pinned.writers } else { &mut pinned.readers };
        *count = count.saturating_sub(1);
        let last_writer = if writable && pinned.writers == 0 { GTF_WRITING } else { 0 };
        if pinned.readers + pinned.writers != 0 {
            return last_writer;
        }
        self.pinned.remove(&reference);
        last_writer | GTF_READING
    }

    /// How many entries are pinned.
    #[must_use]
    pub fn pinned_count(&self) -> usize {
        self.pinned.len()
    }

    /// Whether the domain has a mapping of this frame. Looks at a bounded number of mappings; for a domain that has more
    /// the answer may be that it has.
    pub(super) fn has_mapped(&self, mfn: Mfn) -> bool {
        let is_it = |slot: &Slot| matches!(slot, Slot::Used(mapping) if mapping.mfn == mfn);
        let looked_at = &self.mappings[..self.mappings.len().min(LOOKED_AT)];
        looked_at.len() < self.mappings.len() || looked_at.iter().any(|chunk| chunk.iter().any(is_it))
    }

    fn slot(&mut self, handle: u32) -> Option<&mut Slot> {
        self.mappings.get_mut(handle as usize / CHUNK).map(|chunk| &mut chunk[handle as usize % CHUNK])
    }

    /// Takes a handle for a mapping to come.
    pub(super) fn reserve(&mut self) -> Result<u32, Refusal> {
        if self.first_free == NONE {
            self.add_mappings()?;
        }
        let handle = self.first_free;
        let next = match self.slot(handle) {
            Some(slot @ Slot::Free(_)) => core::mem::replace(slot, Slot::Reserved),
            _ => return Err(no_handle(self.max_mappings)),
        };
        if let Slot::Free(next) = next {
            self.first_free = next;
        }
        Ok(handle)
    }

    #[cold]
    fn add_mappings(&mut self) -> Result<(), Refusal> {
        let first = (self.mappings.len() * CHUNK) as u32;
        let room = self.max_mappings.saturating_sub(first);
        if room == 0 || self.mappings.try_reserve(1).is_err() {
            return Err(no_handle(self.max_mappings));
        }
        let chunk = try_array(|n| {
            let is_last = n == CHUNK - 1 || n as u32 + 1 == room;
            Slot::Free(if is_last { NONE } else { first + n as u32 + 1 })
        });
        self.mappings.push(chunk.ok_or_else(|| no_handle(self.max_mappings))?);
        self.first_free = first;
        Ok(())
    }

    /// Makes a handle that was reserved a mapping, or changes one.
    pub(super) fn set_mapping(&mut self, handle: u32, mapping: Mapping) {
        if let Some(slot) = self.slot(handle) {
            *slot = Slot::Used(mapping);
        }
    }

    /// The mapping with this handle.
    pub(super) fn mapping(&mut self, handle: u32) -> Option<&mut Mapping> {
        match self.slot(handle)? {
            Slot::Used(mapping) => Some(mapping),
            _ => None,
        }
    }

    /// Gives a handle back.
    pub(super) fn release(&mut self, handle: u32) {
        let next = self.first_free;
        if let Some(slot) = self.slot(handle) {
            *slot = Slot::Free(next);
            self.first_free = handle;
        }
    }

    /// Takes the mappings of one chunk; `None` when there are no more.
    fn take_some(&mut self) -> Option<Vec<Mapping>> {
        let chunk = self.mappings.get_mut(self.next_to_release as usize)?;
        self.next_to_release += 1;
        let slots = chunk.iter_mut();
        let used = slots.filter_map(|slot| match core::mem::replace(slot, Slot::Reserved) {
            Slot::Used(mapping) => Some(mapping),
            _ => None,
        });
        let taken = used.collect();
        self.first_free = NONE;
        Some(taken)
    }
}

#[cold]
fn no_handle(limit: u32) -> Refusal {
    Refusal::status(GNTST_NO_SPACE, rule::NO_HANDLE).with(Evidence::Value(limit.into()))
}

/// Adds a frame to a table that has `size`, and before it the status frame that it needs. The frame may be one that the
/// table had before its version changed.
pub(super) fn grow_by_one<M: Machine>(hv: &Hypervisor<M>, domain: &Domain, size: u32) -> Result<(), Refusal> {
    if let mut table = domain.grants.lock()
        && let Some(mfn) = table.frames.get(size as usize).copied()
    {
        if table.cleared == size {
            hv.machine.clear_frame(mfn);
            table.cleared += 1;
        }
        return Ok(());
    }
    let no_memory = || Refusal::status(GNTST_GENERAL_ERROR, rule::TABLE_SIZE).with(Evidence::Value(size.into()));
    let mfn = frames::allocate_shared(hv, domain).ok_or_else(no_memory)?;
    let mut table = domain.grants.lock();
    let has_raced = table.size() != size;
    let status = (table.status.len() as u32) * FRAMES_PER_STATUS;
    let needs_status = table.version == Version::Two && status <= size;
    let list = if needs_status { &mut table.status } else { &mut table.frames };
    if !has_raced && list.try_reserve(1).is_ok() {
        list.push(mfn);
        table.cleared += u32::from(!needs_status);
        return Ok(());
    }
    drop(table);
    frames::free_shared(hv, mfn);
    if has_raced { Ok(()) } else { Err(no_memory()) }
}

/// A frame of a domain's table, which grows to have it; `None` where it may not or memory is used up.
///
/// # Errors
/// That of a call that goes on later: the table grew by some frames, and something else waits.
pub fn frame<M: Machine>(hv: &Hypervisor<M>, domain: &Domain, index: u32) -> Result<Option<Mfn>, Refusal> {
    let limit = domain.grants.lock().max_size();
    loop {
        let size = domain.grants.lock().size();
        if index < size || index >= limit || grow_by_one(hv, domain, size).is_err() {
            return Ok(domain.grants.lock().frame(index));
        }
        if size < index && hv.machine.interrupt_waiting() {
            return Err(Refusal::again());
        }
    }
}

/// A frame of the status words of a domain's table, which grows to have it; `None` in version 1, or where it may not or
/// memory is used up.
///
/// # Errors
/// As [`frame`].
pub fn status_frame<M: Machine>(hv: &Hypervisor<M>, domain: &Domain, index: u32) -> Result<Option<Mfn>, Refusal> {
    let at = || domain.grants.lock().status.get(index as usize).copied();
    if at().is_none() && domain.grants.lock().version == Version::Two {
        frame(hv, domain, index.saturating_mul(FRAMES_PER_STATUS).saturating_add(FRAMES_PER_STATUS - 1))?;
    }
    Ok(at())
}

/// Releases what a domain that is being taken apart has mapped of others', then its own table; `false` where there is
/// more to do.
///
/// Entries of page tables are not touched: they hold their own references and go with their tables. What others have
/// mapped of this domain stays until they unmap it.
pub fn relinquish<M: Machine>(hv: &Hypervisor<M>, domain: &Domain) -> bool {
    let taken = domain.grants.lock().take_some();
    if let Some(mappings) = taken {
        for mapping in mappings {
            let granter: Option<Arc<Domain>> = hv.domains.get(mapping.granter);
            pin::unpin(hv, granter.as_deref(), mapping.reference, mapping.mfn, !mapping.readonly);
        }
        return false;
    }
    let last = {
        let mut table = domain.grants.lock();
        table.cleared = 0;
        table.frames.pop().or_else(|| table.status.pop())
    };
    if let Some(mfn) = last {
        frames::free_shared(hv, mfn);
        return false;
    }
    true
}
