//! What is known about one frame, and how its counts change.
//!
//! A record is two words and a little more, all atomic; there is no lock on a frame.
//!
//! - The **count word** holds the owner and the number of references in one word, so that "is this domain's" and "one
//!   more reference" are one compare-and-exchange: an owner never changes under a reference.
//! - The **type word** holds what the frame is used as, how many users rely on that, and how far a page table's check
//!   came. A type changes only while nobody relies on it.
//!
//! Invariants:
//! - whoever holds a type reference holds a reference as well;
//! - a frame with references is not on a free list; a frame without is nobody's;
//! - `VALIDATED` unset with a type count of one means that exactly one CPU is checking or taking apart this table,
//!   unless `PARTIAL` is set;
//! - `PARTIAL` means that nobody is: the first [`TypeWord::prefix`] entries hold references, and one type reference and
//!   one reference belong to that state itself. Whoever asks for the type next goes on from there.
//!
//! Source of the model: Xen's documented page-type rules (public/xen.h, `mmu_update`; "page frame" in its interface
//! manual).

use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use pv_abi::DomId;

/// What a frame is used as; the names are Xen's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum PageType {
    /// Nothing that needs care.
    None = 0,
    /// A level-1 page table.
    L1 = 1,
    /// A level-2 page table.
    L2 = 2,
    /// A level-3 page table.
    L3 = 3,
    /// A level-4 page table.
    L4 = 4,
    /// Part of a global or local descriptor table.
    Descriptor = 5,
    /// Mapped writable somewhere.
    Writable = 6,
    /// The hypervisor's own, shown read-only.
    Shared = 7,
}

impl PageType {
    /// The type of a page table of this level, 1 to 4.
    #[must_use]
    pub const fn table(level: u8) -> Self {
        match level {
            1 => Self::L1,
            2 => Self::L2,
            3 => Self::L3,
            _ => Self::L4,
        }
    }

    /// The level of the page table that a frame of this type is.
    #[must_use]
    pub const fn level(self) -> Option<u8> {
        match self {
            Self::L1 | Self::L2 | Self::L3 | Self::L4 => Some(self as u8),
            _ => None,
        }
    }

    /// Whether the contents of a frame of this type are checked.
    #[must_use]
    pub(crate) const fn is_checked(self) -> bool {
        matches!(self, Self::L1 | Self::L2 | Self::L3 | Self::L4 | Self::Descriptor)
    }

    const fn from_bits(bits: u64) -> Self {
        match bits & 7 {
            1 => Self::L1,
            2 => Self::L2,
            3 => Self::L3,
            4 => Self::L4,
            5 => Self::Descriptor,
            6 => Self::Writable,
            7 => Self::Shared,
            _ => Self::None,
        }
    }
}

/// Owner of a frame that is the hypervisor's own, free, or of a domain that is gone.
pub const NOBODY: DomId = DomId(0xffff);

/// A frame's owner and references.
///
/// Bits 0–31: references; bits 32–47: owner; then the flags.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CountWord(pub u64);

impl CountWord {
    /// One of the references says that the owner has the frame at all; giving the frame back drops it.
    pub const ALLOCATED: u64 = 1 << 63;
    /// The hypervisor's memory that the owner may map: not the owner's to give away.
    pub const SHARED: u64 = 1 << 62;
    /// The frame is on its owner's list until its last reference is gone.
    pub const LISTED: u64 = 1 << 61;
    /// More references than this are refused.
    pub const MOST: u32 = 0x7fff_ffff;

    /// A word with this owner, count and flags.
    #[must_use]
    pub const fn new(owner: DomId, count: u32, flags: u64) -> Self {
        Self((owner.0 as u64) << 32 | count as u64 | flags)
    }

    /// How many references there are.
    #[must_use]
    pub const fn count(self) -> u32 {
        self.0 as u32
    }

    /// Whose the frame is; meaningless at a count of zero.
    #[must_use]
    pub const fn owner(self) -> DomId {
        DomId((self.0 >> 32) as u16)
    }

    /// Whether a flag is set.
    #[must_use]
    pub const fn has(self, flag: u64) -> bool {
        self.0 & flag != 0
    }
}

/// A frame's type, its users, and how far it is checked.
///
/// Bits 0–31: type count; bits 32–34: type; then the flags; bits 48–57: entries checked, while partial. With a count of
/// zero only the type says something: what translations of the frame may still be cached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TypeWord(pub u64);

impl TypeWord {
    /// The contents were checked.
    pub const VALIDATED: u64 = 1 << 40;
    /// One type reference and one reference are the guest's pin.
    pub const PINNED: u64 = 1 << 41;
    /// Checked in part; see the module's invariants.
    pub const PARTIAL: u64 = 1 << 42;
    /// A free frame is all zero.
    pub const CLEAN: u64 = 1 << 43;
    /// Another domain than the owner had a writable mapping since the frame got its type.
    pub const FOREIGN: u64 = 1 << 44;
    /// More users than this are refused.
    pub const MOST: u32 = 0x7fff_ffff;
    const PREFIX_SHIFT: u32 = 48;

    const fn new(kind: PageType, count: u32, flags: u64) -> Self {
        Self((kind as u64) << 32 | count as u64 | flags)
    }

    /// How many rely on the type.
    #[must_use]
    pub const fn count(self) -> u32 {
        self.0 as u32
    }

    /// The type; with a count of zero, what it was last.
    #[must_use]
    pub const fn kind(self) -> PageType {
        PageType::from_bits(self.0 >> 32)
    }

    /// Whether a flag is set.
    #[must_use]
    pub const fn has(self, flag: u64) -> bool {
        self.0 & flag != 0
    }

    /// Whether it is this type, checked, and somebody relies on that.
    #[inline]
    const fn is_in_use(self, kind: PageType) -> bool {
        const KIND: u64 = 7 << 32;
        self.0 & (KIND | Self::VALIDATED) == Self::new(kind, 0, Self::VALIDATED).0 && self.count() != 0
    }

    /// How many entries, from the first, hold references, while partial.
    #[must_use]
    pub const fn prefix(self) -> usize {
        (self.0 >> Self::PREFIX_SHIFT) as usize & 0x3ff
    }
}

/// What asking for a type gave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub(crate) enum Acquired {
    /// The caller holds a type reference.
    Ready,
    /// The caller holds the only type reference of an unchecked frame, and must check it from entry `from` on.
    Check {
        /// Entries before this one hold references already.
        from: usize,
        /// The frame was partial: its state's own reference passes to the caller.
        resumed: bool,
    },
    /// The caller holds the only type reference, unchecked, of a frame that was used as something else: translations by
    /// that may still be cached, and nobody else gets the type before the caller has had them forgotten.
    Changed {
        /// Other domains than the owner had writable mappings.
        foreign: bool,
    },
    /// It is used as something else, or by too many.
    Conflict,
    /// Another CPU is just checking it, taking it apart, or waiting for translations to be forgotten.
    Busy,
}

/// What giving a type back came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub(crate) enum Released {
    /// Nothing more to do.
    Done,
    /// It was the last: the caller must take the table of this level apart, then call [`Frame::forget_type`].
    TakeApart(u8),
}

/// What is known about one frame.
#[derive(Debug)]
#[repr(C, align(32))]
pub struct Frame {
    count: AtomicU64,
    type_word: AtomicU64,
    /// When translations of this frame may last have been cached, in ticks of [`super::FlushClock`].
    stamp: AtomicU32,
    /// Next frame of the list this frame is on.
    pub(super) next: AtomicU32,
    /// Previous frame of the list this frame is on.
    pub(super) previous: AtomicU32,
    /// What list this frame is on: `1 + order` on the first frame of a free block, [`LISTED`] on a domain's list, else 0.
    pub(super) list: AtomicU32,
}

/// Not a frame: the end of a list.
pub(super) const END: u32 = u32::MAX;

/// [`Frame::list`] of a frame that is on its owner's list.
pub(super) const LISTED: u32 = u32::MAX;

impl Default for Frame {
    fn default() -> Self {
        Self::new()
    }
}

impl Frame {
    /// The record of a frame that is the hypervisor's own or no memory: nobody's, and not free either. All zero, so
    /// zeroed memory is a table of such records.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            count: AtomicU64::new(0),
            type_word: AtomicU64::new(0),
            stamp: AtomicU32::new(0),
            next: AtomicU32::new(0),
            previous: AtomicU32::new(0),
            list: AtomicU32::new(0),
        }
    }

    /// Owner and references.
    #[inline]
    #[must_use]
    pub fn count_word(&self) -> CountWord {
        CountWord(self.count.load(Ordering::Relaxed))
    }

    /// Type and users.
    #[inline]
    #[must_use]
    pub fn type_word(&self) -> TypeWord {
        TypeWord(self.type_word.load(Ordering::Acquire))
    }

    /// Takes a reference, if the frame is `owner`'s.
    #[inline]
    #[must_use]
    pub(crate) fn get(&self, owner: DomId) -> bool {
        let mut word = self.count.load(Ordering::Relaxed);
        loop {
            let seen = CountWord(word);
            if seen.owner() != owner || seen.count() == 0 || seen.count() >= CountWord::MOST {
                return false;
            }
            match self.count.compare_exchange_weak(word, word + 1, Ordering::Acquire, Ordering::Relaxed) {
                Ok(_) => return true,
                Err(now) => word = now,
            }
        }
    }

    /// Takes one more reference to a frame of which the caller holds one. Guests reach at most [`CountWord::MOST`]
    /// references; these few above it are the hypervisor's.
    #[inline]
    pub(crate) fn hold(&self) {
        let before = CountWord(self.count.fetch_add(1, Ordering::Acquire));
        debug_assert_ne!(before.count(), 0);
    }

    /// Whether the frame is memory that somebody has. False for device memory and the hypervisor's own.
    #[inline]
    #[must_use]
    pub(crate) fn is_owned(&self) -> bool {
        self.count_word().count() != 0
    }

    /// Gives a reference back; the word as it was before. At a count of one, the caller just gave the last and must
    /// free the frame.
    #[inline]
    pub(crate) fn put(&self) -> CountWord {
        let before = CountWord(self.count.fetch_sub(1, Ordering::AcqRel));
        debug_assert_ne!(before.count(), 0, "a reference that was never taken");
        before
    }

    /// Makes a frame that nobody knows of `owner`'s, with this many references.
    pub(crate) fn assign(&self, owner: DomId, count: u32, flags: u64) {
        self.count.store(CountWord::new(owner, count, flags).0, Ordering::Release);
    }

    /// Clears a flag of the count word; whether it was set.
    #[must_use]
    pub(crate) fn clear_count_flag(&self, flag: u64) -> bool {
        self.count.fetch_and(!flag, Ordering::AcqRel) & flag != 0
    }

    /// Takes the frame from its owner: from now on nobody can take a reference; those there are remain.
    pub(crate) fn disown(&self) {
        self.count.fetch_or(u64::from(NOBODY.0) << 32, Ordering::AcqRel);
    }

    /// [`Frame::disown`] for a shared frame, if nobody holds a reference but the hypervisor; whether that was so.
    #[must_use]
    pub(crate) fn disown_unused(&self, owner: DomId) -> bool {
        let expected = CountWord::new(owner, 1, CountWord::SHARED).0;
        let nobodys = CountWord::new(NOBODY, 1, CountWord::SHARED).0;
        self.count.compare_exchange(expected, nobodys, Ordering::AcqRel, Ordering::Relaxed).is_ok()
    }

    /// Takes the frame out of the world, if the only references are the owner's own and one of the caller's.
    #[must_use]
    pub(crate) fn steal(&self, owner: DomId) -> bool {
        let expected = CountWord::new(owner, 2, CountWord::ALLOCATED | CountWord::LISTED).0;
        let nobodys = CountWord::new(NOBODY, 0, 0).0;
        self.count.compare_exchange(expected, nobodys, Ordering::AcqRel, Ordering::Relaxed).is_ok()
    }

    /// Takes a type reference for a writable mapping of a frame that was last used so; the caller holds a reference.
    /// False asks for [`Frame::acquire_type`].
    #[inline]
    #[must_use]
    pub(crate) fn acquire_writable_again(&self) -> bool {
        const WRITABLE: u64 = TypeWord::new(PageType::Writable, 0, TypeWord::VALIDATED).0;
        let word = self.type_word.load(Ordering::Acquire);
        word & !(TypeWord::MOST as u64) == WRITABLE
            && self.type_word.compare_exchange(word, word + 1, Ordering::AcqRel, Ordering::Relaxed).is_ok()
    }

    /// Gives a type reference of a writable mapping back, whose entry is gone. `now` is the flush clock, read after that.
    ///
    /// Each who gives one back stamps the frame before it counts down, so whoever finds the count at zero finds a stamp
    /// that is not before any of the entries went.
    #[inline]
    pub(crate) fn release_writable(&self, now: u32) {
        self.advance_stamp(now);
        let before = TypeWord(self.type_word.fetch_sub(1, Ordering::AcqRel));
        debug_assert_eq!(before.kind(), PageType::Writable);
        debug_assert_ne!(before.count(), 0, "a type reference that was never taken");
    }

    /// Stamps the frame, unless another CPU has just done so with a later time.
    #[inline]
    fn advance_stamp(&self, now: u32) {
        /// Ticks that pass at most while one stamps a frame.
        const JUST: u32 = 1 << 24;
        let mut seen = self.stamp.load(Ordering::Acquire);
        while seen.wrapping_sub(now) >= JUST {
            match self.stamp.compare_exchange_weak(seen, now, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => return,
                Err(current) => seen = current,
            }
        }
    }

    /// Another domain than the owner is about to map the frame writable; the caller holds a type reference for that.
    #[inline]
    pub(crate) fn set_foreign(&self) {
        if !self.type_word().has(TypeWord::FOREIGN) {
            self.type_word.fetch_or(TypeWord::FOREIGN, Ordering::AcqRel);
        }
    }

    /// Asks for a type reference. The caller holds a reference.
    #[inline]
    pub(crate) fn acquire_type(&self, kind: PageType) -> Acquired {
        let mut word = self.type_word.load(Ordering::Acquire);
        loop {
            let seen = TypeWord(word);
            let (next, result) = if seen.count() == 0 {
                if seen.kind() != kind && seen.kind() != PageType::None {
                    (TypeWord::new(kind, 1, 0).0, Acquired::Changed { foreign: seen.has(TypeWord::FOREIGN) })
                } else if !kind.is_checked() {
                    (TypeWord::new(kind, 1, TypeWord::VALIDATED | word & TypeWord::FOREIGN).0, Acquired::Ready)
                } else {
                    (TypeWord::new(kind, 1, 0).0, Acquired::Check { from: 0, resumed: false })
                }
            } else if seen.kind() != kind || seen.count() >= TypeWord::MOST {
                return Acquired::Conflict;
            } else if seen.has(TypeWord::VALIDATED) {
                (word + 1, Acquired::Ready)
            } else if seen.has(TypeWord::PARTIAL) {
                (TypeWord::new(kind, 1, 0).0, Acquired::Check { from: seen.prefix(), resumed: true })
            } else {
                return Acquired::Busy;
            };
            match self.type_word.compare_exchange_weak(word, next, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => return result,
                Err(now) => word = now,
            }
        }
    }

    /// Gives a type reference back. `now` is the flush clock, read after what needed the type was gone.
    #[inline]
    pub(crate) fn release_type(&self, now: u32) -> Released {
        self.advance_stamp(now);
        let mut word = self.type_word.load(Ordering::Relaxed);
        loop {
            let seen = TypeWord(word);
            debug_assert_ne!(seen.count(), 0, "a type reference that was never taken");
            let (next, result) = if seen.count() > 1 {
                (word - 1, Released::Done)
            } else if let Some(level) = seen.kind().level() {
                (TypeWord::new(seen.kind(), 1, 0).0, Released::TakeApart(level))
            } else {
                (TypeWord::new(seen.kind(), 0, word & (TypeWord::VALIDATED | TypeWord::FOREIGN)).0, Released::Done)
            };
            match self.type_word.compare_exchange_weak(word, next, Ordering::AcqRel, Ordering::Relaxed) {
                Ok(_) => return result,
                Err(current) => word = current,
            }
        }
    }

    /// Whether the frame is `owner`'s, and of a checked type that is in use.
    #[inline]
    #[must_use]
    pub(crate) fn is_in_use(&self, owner: DomId, kind: PageType) -> bool {
        let count = self.count_word();
        count.owner() == owner && count.count() != 0 && self.type_word().is_in_use(kind)
    }

    /// One more user of a type that is in use and checked; the caller proved nothing else.
    #[inline]
    #[must_use]
    pub(crate) fn acquire_type_in_use(&self, kind: PageType) -> bool {
        let mut word = self.type_word.load(Ordering::Acquire);
        loop {
            if !TypeWord(word).is_in_use(kind) || TypeWord(word).count() >= TypeWord::MOST {
                return false;
            }
            match self.type_word.compare_exchange_weak(word, word + 1, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => return true,
                Err(now) => word = now,
            }
        }
    }

    /// The check of this table, which only the caller works on, came to its end.
    pub(crate) fn set_validated(&self) {
        self.type_word.fetch_or(TypeWord::VALIDATED, Ordering::AcqRel);
    }

    /// Work on this table stops with the first `prefix` entries holding references.
    pub(crate) fn set_partial(&self, prefix: usize) {
        let kind = self.type_word().kind();
        let flags = TypeWord::PARTIAL | (prefix as u64) << TypeWord::PREFIX_SHIFT;
        self.type_word.store(TypeWord::new(kind, 1, flags).0, Ordering::Release);
    }

    /// Takes a partial table over, to take it apart: how many entries hold references.
    #[must_use]
    pub(crate) fn take_partial(&self, kind: PageType) -> Option<usize> {
        let word = self.type_word.load(Ordering::Acquire);
        let seen = TypeWord(word);
        if seen.kind() != kind || !seen.has(TypeWord::PARTIAL) {
            return None;
        }
        let next = TypeWord::new(kind, 1, 0).0;
        let taken = self.type_word.compare_exchange(word, next, Ordering::AcqRel, Ordering::Relaxed).is_ok();
        taken.then(|| seen.prefix())
    }

    /// Nobody uses the type any more; only the caller worked on the frame.
    pub(crate) fn forget_type(&self, now: u32) {
        self.stamp.store(now, Ordering::Release);
        let kind = self.type_word().kind();
        self.type_word.store(TypeWord::new(kind, 0, 0).0, Ordering::Release);
    }

    /// Sets the pin; whether it was not set.
    #[must_use]
    pub(crate) fn pin(&self) -> bool {
        self.type_word.fetch_or(TypeWord::PINNED, Ordering::AcqRel) & TypeWord::PINNED == 0
    }

    /// Takes the pin; whether it was set.
    #[must_use]
    pub(crate) fn unpin(&self) -> bool {
        self.type_word.fetch_and(!TypeWord::PINNED, Ordering::AcqRel) & TypeWord::PINNED != 0
    }

    /// When translations of this frame may last have been cached.
    pub(crate) fn stamp(&self) -> u32 {
        self.stamp.load(Ordering::Acquire)
    }

    /// Remembers when translations of this frame may last have been cached.
    pub(crate) fn set_stamp(&self, now: u32) {
        self.stamp.store(now, Ordering::Release);
    }

    /// Makes the type word that of a frame that was never used; with a type, of one that the hypervisor uses as that.
    pub(crate) fn reset_type(&self, kind: PageType) {
        let word = match kind {
            PageType::None => TypeWord(0),
            kind => TypeWord::new(kind, 1, TypeWord::VALIDATED),
        };
        self.type_word.store(word.0, Ordering::Release);
    }

    /// Whether the frame, which is free, is all zero.
    pub(super) fn is_clean(&self) -> bool {
        self.type_word().has(TypeWord::CLEAN)
    }

    /// The frame, which is about to be free or being given out, is all zero.
    pub(super) fn set_clean(&self) {
        self.type_word.store(TypeWord::CLEAN, Ordering::Release);
    }
}

const _: () = assert!(size_of::<Frame>() == 32);

#[cfg(test)]
mod tests;
