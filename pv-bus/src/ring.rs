//! The ring: requests one way, responses back, in pages both sides can write.
//!
//! Words used:
//! - *front*: the side that puts requests in and takes responses out; *back*: the other one.
//! - *index*: free-running 32-bit counters; slot = index modulo the number of entries, a power of two.
//! - *event index*: where the reader wants to be woken; the writer notifies when it passes it.
//!
//! Invariants:
//! - Each side keeps its indices in private memory. The shared words it owns are only ever stored to; the words of the
//!   peer are loaded, checked against the private ones, and never kept.
//! - A peer cannot be ahead by more than the ring holds. If its index says so it is broken: every later call answers
//!   [`RingBroken`], and the owner closes the connection.
//! - An entry is copied out whole before anyone looks at it.
//! - The back never takes a request while all slots are occupied by requests it has not answered, so its responses
//!   cannot overwrite what it has yet to read.
//!
//! Source: Xen `public/io/ring.h`.

use alloc::vec::Vec;
use core::fmt;
use core::marker::PhantomData;
use core::sync::atomic::{Ordering, fence};

use zerocopy::{FromBytes, Immutable, IntoBytes};

use crate::{PAGE_SIZE, SharedPage};

/// Byte offsets of the shared words; entries start after them.
const REQ_PROD: usize = 0;
const REQ_EVENT: usize = 4;
const RSP_PROD: usize = 8;
const RSP_EVENT: usize = 12;
const ENTRIES: usize = 64;

/// What lies in a ring slot: plain bytes with a fixed layout.
pub trait Entry: FromBytes + IntoBytes + Immutable {}

impl<T: FromBytes + IntoBytes + Immutable> Entry for T {}

/// The peer published an index that no working peer can have.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RingBroken {
    /// What the peer's shared index said.
    pub shared: u32,
    /// This side's own index at that moment.
    pub private: u32,
    /// How many entries the ring has.
    pub entries: u32,
}

impl fmt::Display for RingBroken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ahead = self.shared.wrapping_sub(self.private);
        write!(
            f,
            "the peer's index {:#x} is {ahead} ahead of {:#x} in a ring of {}",
            self.shared, self.private, self.entries
        )
    }
}

/// How many entries of `entry_bytes` a ring of `pages` pages has: the largest power of two that fits.
#[must_use]
pub fn entries_in(pages: usize, entry_bytes: usize) -> u32 {
    let fit = (pages * PAGE_SIZE).saturating_sub(ENTRIES) / entry_bytes.max(1);
    let whole = u32::try_from(fit).unwrap_or(u32::MAX);
    if whole == 0 { 0 } else { 1 << whole.ilog2() }
}

/// The shared memory of a ring: one page or several that count as one stretch.
struct RingMemory<P> {
    pages: Vec<P>,
    entries: u32,
    slot_bytes: usize,
}

impl<P: SharedPage> RingMemory<P> {
    fn new(pages: Vec<P>, slot_bytes: usize) -> Self {
        let entries = entries_in(pages.len(), slot_bytes);
        assert!(entries > 0, "a ring needs a page");
        Self { pages, entries, slot_bytes }
    }

    fn load(&self, word: usize) -> u32 {
        self.pages[0].load_u32(word, Ordering::Acquire)
    }

    fn store(&self, word: usize, value: u32) {
        self.pages[0].store_u32(word, value, Ordering::Release);
    }

    fn offset_of(&self, index: u32) -> usize {
        ENTRIES + (index & (self.entries - 1)) as usize * self.slot_bytes
    }

    fn read_entry<T: Entry>(&self, index: u32) -> T {
        let mut entry = T::new_zeroed();
        let bytes = entry.as_mut_bytes();
        let (page, at, first) = self.split(index, bytes.len());
        self.pages[page].read_once(at, &mut bytes[..first]);
        if first < bytes.len() {
            self.pages[page + 1].read_once(0, &mut bytes[first..]);
        }
        entry
    }

    fn write_entry<T: Entry>(&self, index: u32, entry: &T) {
        let bytes = entry.as_bytes();
        let (page, at, first) = self.split(index, bytes.len());
        self.pages[page].write(at, &bytes[..first]);
        if first < bytes.len() {
            self.pages[page + 1].write(0, &bytes[first..]);
        }
    }

    /// The page and offset where an entry starts, and how many of its bytes lie in that page.
    fn split(&self, index: u32, len_bytes: usize) -> (usize, usize, usize) {
        let offset = self.offset_of(index);
        let at = offset % PAGE_SIZE;
        (offset / PAGE_SIZE, at, len_bytes.min(PAGE_SIZE - at))
    }
}

/// The larger of the two entry types decides the size of a slot.
fn slot_bytes<Q, R>() -> usize {
    size_of::<Q>().max(size_of::<R>())
}

/// The front half of a ring: puts requests `Q`, takes responses `R`.
pub struct FrontRing<P, Q, R> {
    memory: RingMemory<P>,
    /// Requests written, published or not.
    req_prod: u32,
    /// Requests the back was told of.
    req_published: u32,
    rsp_cons: u32,
    types: PhantomData<(Q, R)>,
}

impl<P: SharedPage, Q: Entry, R: Entry> FrontRing<P, Q, R> {
    /// Makes an empty ring in `pages`.
    #[must_use]
    pub fn new(pages: Vec<P>) -> Self {
        let memory = RingMemory::new(pages, slot_bytes::<Q, R>());
        memory.pages[0].fill(0, ENTRIES, 0);
        memory.store(REQ_EVENT, 1);
        memory.store(RSP_EVENT, 1);
        Self { memory, req_prod: 0, req_published: 0, rsp_cons: 0, types: PhantomData }
    }

    /// How many entries the ring has.
    #[must_use]
    pub fn entries(&self) -> u32 {
        self.memory.entries
    }

    /// How many requests can be put in now.
    #[must_use]
    pub fn free(&self) -> u32 {
        self.memory.entries - self.req_prod.wrapping_sub(self.rsp_cons)
    }

    /// Puts a request in; the back sees it after [`publish`](Self::publish). False when the ring is full.
    #[must_use]
    pub fn push(&mut self, request: &Q) -> bool {
        if self.free() == 0 {
            return false;
        }
        self.memory.write_entry(self.req_prod, request);
        self.req_prod = self.req_prod.wrapping_add(1);
        true
    }

    /// Shows the back all requests put in so far. True when it must be notified.
    #[must_use]
    pub fn publish(&mut self) -> bool {
        let old = self.req_published;
        if old == self.req_prod {
            return false;
        }
        self.req_published = self.req_prod;
        self.memory.store(REQ_PROD, self.req_prod);
        fence(Ordering::SeqCst);
        let wanted = self.memory.load(REQ_EVENT);
        self.req_prod.wrapping_sub(wanted) < self.req_prod.wrapping_sub(old)
    }

    /// Takes the next response.
    ///
    /// # Errors
    /// [`RingBroken`] when the back claims responses to requests that were never made.
    pub fn take(&mut self) -> Result<Option<R>, RingBroken> {
        if self.unconsumed()? == 0 {
            return Ok(None);
        }
        let response = self.memory.read_entry(self.rsp_cons);
        self.rsp_cons = self.rsp_cons.wrapping_add(1);
        Ok(Some(response))
    }

    fn unconsumed(&self) -> Result<u32, RingBroken> {
        let shared = self.memory.load(RSP_PROD);
        let waiting = shared.wrapping_sub(self.rsp_cons);
        if waiting > self.req_published.wrapping_sub(self.rsp_cons) {
            return Err(RingBroken { shared, private: self.rsp_cons, entries: self.memory.entries });
        }
        Ok(waiting)
    }

    /// Asks to be woken by the next response. True when one is there already: take it instead of sleeping.
    ///
    /// # Errors
    /// As [`take`](Self::take).
    pub fn rearm(&mut self) -> Result<bool, RingBroken> {
        self.memory.store(RSP_EVENT, self.rsp_cons.wrapping_add(1));
        fence(Ordering::SeqCst);
        self.unconsumed().map(|waiting| waiting > 0)
    }

    /// Gives the pages back when the connection has ended.
    #[must_use]
    pub fn into_pages(self) -> Vec<P> {
        self.memory.pages
    }
}

/// The back half of a ring: takes requests `Q`, puts responses `R`.
pub struct BackRing<P, Q, R> {
    memory: RingMemory<P>,
    req_cons: u32,
    /// Responses written, published or not.
    rsp_prod: u32,
    /// Responses the front was told of.
    rsp_published: u32,
    types: PhantomData<(Q, R)>,
}

impl<P: SharedPage, Q: Entry, R: Entry> BackRing<P, Q, R> {
    /// Joins a ring that the front made. Requests that no back end has answered yet are still to be taken.
    #[must_use]
    pub fn attach(pages: Vec<P>) -> Self {
        let memory = RingMemory::new(pages, slot_bytes::<Q, R>());
        let start = memory.load(RSP_PROD);
        Self { memory, req_cons: start, rsp_prod: start, rsp_published: start, types: PhantomData }
    }

    /// How many entries the ring has.
    #[must_use]
    pub fn entries(&self) -> u32 {
        self.memory.entries
    }

    /// Requests taken and not answered yet.
    #[must_use]
    pub fn in_flight(&self) -> u32 {
        self.req_cons.wrapping_sub(self.rsp_prod)
    }

    /// Requests that can be taken now.
    ///
    /// # Errors
    /// [`RingBroken`] when the front claims more requests than the ring holds.
    pub fn unconsumed(&self) -> Result<u32, RingBroken> {
        let shared = self.memory.load(REQ_PROD);
        if shared.wrapping_sub(self.rsp_prod) > self.memory.entries
            || shared.wrapping_sub(self.req_cons) > self.memory.entries
        {
            return Err(RingBroken { shared, private: self.req_cons, entries: self.memory.entries });
        }
        // Not beyond the unanswered ones, and not beyond the ring: so what waits fits beside what is in flight.
        Ok(shared.wrapping_sub(self.req_cons))
    }

    /// Takes the next request, as a private copy.
    ///
    /// # Errors
    /// As [`unconsumed`](Self::unconsumed).
    pub fn take(&mut self) -> Result<Option<Q>, RingBroken> {
        if self.unconsumed()? == 0 {
            return Ok(None);
        }
        let request = self.memory.read_entry(self.req_cons);
        self.req_cons = self.req_cons.wrapping_add(1);
        Ok(Some(request))
    }

    /// Puts the response to a taken request in; the front sees it after [`publish`](Self::publish).
    ///
    /// False, and nothing is written, when every taken request has its response already.
    #[must_use]
    pub fn push(&mut self, response: &R) -> bool {
        if self.in_flight() == 0 {
            return false;
        }
        self.memory.write_entry(self.rsp_prod, response);
        self.rsp_prod = self.rsp_prod.wrapping_add(1);
        true
    }

    /// Shows the front all responses put in so far. True when it must be notified.
    #[must_use]
    pub fn publish(&mut self) -> bool {
        let old = self.rsp_published;
        if old == self.rsp_prod {
            return false;
        }
        self.rsp_published = self.rsp_prod;
        self.memory.store(RSP_PROD, self.rsp_prod);
        fence(Ordering::SeqCst);
        let wanted = self.memory.load(RSP_EVENT);
        self.rsp_prod.wrapping_sub(wanted) < self.rsp_prod.wrapping_sub(old)
    }

    /// Asks to be woken by the next request. True when one is there already: take it instead of sleeping.
    ///
    /// # Errors
    /// As [`unconsumed`](Self::unconsumed).
    pub fn rearm(&mut self) -> Result<bool, RingBroken> {
        self.rearm_after(1)
    }

    /// As [`rearm`](Self::rearm), but to be woken only when `count` more requests are there.
    ///
    /// # Errors
    /// As [`unconsumed`](Self::unconsumed).
    pub fn rearm_after(&mut self, count: u32) -> Result<bool, RingBroken> {
        self.memory.store(REQ_EVENT, self.req_cons.wrapping_add(count.max(1)));
        fence(Ordering::SeqCst);
        self.unconsumed().map(|waiting| waiting >= count.max(1))
    }

    /// Gives the pages back when the connection has ended.
    #[must_use]
    pub fn into_pages(self) -> Vec<P> {
        self.memory.pages
    }
}
