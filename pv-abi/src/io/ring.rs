//! The ring that two domains share: requests one way, responses the other, in the same slots.
//!
//! Words used: an *index* counts entries since the ring was made and runs freely through `u32`; the *slot* of an index is its
//! remainder by the ring's size, a power of two. Each side keeps its own indices in private and only publishes them: what
//! stands in shared memory may change at any time and is checked when it is read.
//!
//! - The front end produces requests up to `req_prod` and consumes responses up to `rsp_prod`.
//! - The back end consumes requests and produces responses, each into a slot whose request it has consumed.
//! - A side that wants to be told writes the index it waits for to the `…_event` of the other's products; the producer
//!   notifies when its new index passes that one ([`must_notify`]).
//!
//! This file decides; it does not touch entries. Copying one in or out of its slot is the caller's, who has the memory.
//!
//! ```
//! use pv_abi::io::ring::{Back, Front, SringHeaderAtomic};
//!
//! let shared = SringHeaderAtomic::default();
//! let (mut front, mut back) = (Front::new(32), Back::new(32));
//! let slot = front.next_request().unwrap();
//! assert_eq!(slot, 0);
//! assert!(front.push_requests(&shared), "the back end waits for the first request");
//! assert_eq!(back.unconsumed_requests(&shared), Ok(1));
//! assert_eq!(back.take_request(), 0);
//! let slot = back.next_response();
//! assert_eq!(slot, 0);
//! assert!(back.push_responses(&shared));
//! assert_eq!(front.unconsumed_responses(&shared), Ok(1));
//! assert_eq!(front.take_response(), 0);
//! ```
//!
//! Xen: `public/io/ring.h`.

use core::sync::atomic::{AtomicU8, AtomicU32, Ordering, fence};

use crate::layout::{atomics, structs};

structs! {
    header "io/ring.h";

    /// The head of a shared ring; the entries follow at offset 64.
    pub struct SringHeader ["struct pv_abi_bare_sring"] {
        /// Index after the last request. Front end writes.
        pub req_prod: u32,
        /// Notify the back end when `req_prod` reaches this. Back end writes.
        pub req_event: u32,
        /// Index after the last response. Back end writes.
        pub rsp_prod: u32,
        /// Notify the front end when `rsp_prod` reaches this. Front end writes.
        pub rsp_event: u32,
        /// For the protocol's own use.
        pub pvt: [u8; 4],
        /// Padding.
        pub _pad0: [u8; 44],
    }
}

/// Offset of the first entry, in bytes.
pub const SRING_HEADER_SIZE: usize = size_of::<SringHeader>();

/// [`SringHeader`] with atomic fields.
///
/// Xen: `DEFINE_RING_TYPES` in `public/io/ring.h`.
#[repr(C)]
#[derive(Debug)]
pub struct SringHeaderAtomic {
    /// Front end writes.
    pub req_prod: AtomicU32,
    /// Back end writes.
    pub req_event: AtomicU32,
    /// Back end writes.
    pub rsp_prod: AtomicU32,
    /// Front end writes.
    pub rsp_event: AtomicU32,
    /// For the protocol's own use.
    pub pvt: [AtomicU8; 4],
    /// Padding.
    pub _pad0: [AtomicU8; 44],
}

atomics! {
    SringHeaderAtomic ["struct pv_abi_bare_sring"] { req_prod, req_event, rsp_prod, rsp_event, pvt }
}

const _: () = {
    use core::mem::offset_of;
    assert!(size_of::<SringHeader>() == size_of::<SringHeaderAtomic>());
    assert!(offset_of!(SringHeader, req_event) == offset_of!(SringHeaderAtomic, req_event));
    assert!(offset_of!(SringHeader, rsp_prod) == offset_of!(SringHeaderAtomic, rsp_prod));
    assert!(offset_of!(SringHeader, rsp_event) == offset_of!(SringHeaderAtomic, rsp_event));
};

impl Default for SringHeaderAtomic {
    /// An empty ring whose both sides wait for the first entry.
    fn default() -> Self {
        SringHeaderAtomic {
            req_prod: AtomicU32::new(0),
            req_event: AtomicU32::new(1),
            rsp_prod: AtomicU32::new(0),
            rsp_event: AtomicU32::new(1),
            pvt: [const { AtomicU8::new(0) }; 4],
            _pad0: [const { AtomicU8::new(0) }; 44],
        }
    }
}

impl SringHeaderAtomic {
    /// Makes it an empty ring whose both sides wait for the first entry.
    pub fn reset(&self) {
        self.req_prod.store(0, Ordering::Relaxed);
        self.rsp_prod.store(0, Ordering::Relaxed);
        self.req_event.store(1, Ordering::Relaxed);
        self.rsp_event.store(1, Ordering::Relaxed);
        for byte in self.pvt.iter().chain(&self._pad0) {
            byte.store(0, Ordering::Relaxed);
        }
    }
}

/// The peer published an index that cannot be: more is outstanding than the ring holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadIndex {
    /// What the peer published.
    pub published: u32,
    /// Our own consumer index.
    pub consumed: u32,
}

impl core::fmt::Display for BadIndex {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "the peer's ring index {} is impossible after {}", self.published, self.consumed)
    }
}

impl core::error::Error for BadIndex {}

/// Number of entries of `entry_size` bytes in a ring of `bytes`, a power of two.
///
/// ```
/// assert_eq!(pv_abi::io::ring::capacity(4096, 112), 32);
/// assert_eq!(pv_abi::io::ring::capacity(4096, 12), 256);
/// ```
pub const fn capacity(bytes: usize, entry_size: usize) -> u32 {
    let entries = bytes.saturating_sub(SRING_HEADER_SIZE) / entry_size;
    if entries == 0 { 0 } else { 1 << entries.ilog2() }
}

/// The slot of an index. `size` is a power of two.
pub const fn slot(index: u32, size: u32) -> u32 {
    index & (size - 1)
}

/// Offset of a slot from the start of the ring, in bytes.
pub const fn slot_offset(slot: u32, entry_size: usize) -> usize {
    SRING_HEADER_SIZE + slot as usize * entry_size
}

/// How many entries were produced and not consumed.
pub const fn unconsumed(produced: u32, consumed: u32) -> u32 {
    produced.wrapping_sub(consumed)
}

/// Whether an entry was produced and not consumed.
pub const fn has_unconsumed(produced: u32, consumed: u32) -> bool {
    produced != consumed
}

/// Whether a producer that goes from `old` to `new` passes `event`, so that the consumer wants to be told.
///
/// ```
/// use pv_abi::io::ring::must_notify;
/// assert!(must_notify(4, 5, 5));
/// assert!(!must_notify(4, 5, 6));
/// assert!(!must_notify(5, 5, 5));
/// assert!(must_notify(u32::MAX, 1, 0));
/// ```
pub const fn must_notify(old: u32, new: u32, event: u32) -> bool {
    new.wrapping_sub(event) < new.wrapping_sub(old)
}

/// Publishes a producer's index after its entries, and tells whether to notify.
fn publish(produced: &AtomicU32, event: &AtomicU32, old: u32, new: u32) -> bool {
    produced.store(new, Ordering::Release);
    // The index must be visible before `event` is read, or both sides could go to sleep.
    fence(Ordering::SeqCst);
    must_notify(old, new, event.load(Ordering::Relaxed))
}

/// The front end's private indices.
#[derive(Clone, Debug)]
pub struct Front {
    /// Index after the last request written.
    req_prod: u32,
    /// Index after the last request published.
    published: u32,
    /// Index after the last response read.
    rsp_cons: u32,
    /// Entries in the ring.
    size: u32,
}

impl Front {
    /// A front end of an empty ring of `size` entries, a power of two.
    pub const fn new(size: u32) -> Front {
        assert!(size.is_power_of_two());
        Front { req_prod: 0, published: 0, rsp_cons: 0, size }
    }

    /// Entries in the ring.
    pub const fn size(&self) -> u32 {
        self.size
    }

    /// How many requests can be written before the ring is full.
    pub const fn free_requests(&self) -> u32 {
        self.size - self.req_prod.wrapping_sub(self.rsp_cons)
    }

    /// The slot for the next request, which the caller then writes; `None` where the ring is full.
    pub fn next_request(&mut self) -> Option<u32> {
        if self.free_requests() == 0 {
            return None;
        }
        let slot = slot(self.req_prod, self.size);
        self.req_prod = self.req_prod.wrapping_add(1);
        Some(slot)
    }

    /// Publishes the requests written so far; `true` where the back end wants to be notified.
    pub fn push_requests(&mut self, shared: &SringHeaderAtomic) -> bool {
        let old = core::mem::replace(&mut self.published, self.req_prod);
        publish(&shared.req_prod, &shared.req_event, old, self.req_prod)
    }

    /// How many responses wait.
    ///
    /// # Errors
    /// The back end claims more responses than there are requests.
    pub fn unconsumed_responses(&self, shared: &SringHeaderAtomic) -> Result<u32, BadIndex> {
        let published = shared.rsp_prod.load(Ordering::Acquire);
        let waiting = unconsumed(published, self.rsp_cons);
        if waiting > unconsumed(self.published, self.rsp_cons) {
            return Err(BadIndex { published, consumed: self.rsp_cons });
        }
        Ok(waiting)
    }

    /// The slot of the next response, which the caller then copies out. To be called as often as responses wait.
    pub fn take_response(&mut self) -> u32 {
        let slot = slot(self.rsp_cons, self.size);
        self.rsp_cons = self.rsp_cons.wrapping_add(1);
        slot
    }

    /// Asks to be notified of the next response, and tells how many came meanwhile.
    ///
    /// # Errors
    /// As [`Front::unconsumed_responses`].
    pub fn final_check(&self, shared: &SringHeaderAtomic) -> Result<u32, BadIndex> {
        let waiting = self.unconsumed_responses(shared)?;
        if waiting > 0 {
            return Ok(waiting);
        }
        shared.rsp_event.store(self.rsp_cons.wrapping_add(1), Ordering::Relaxed);
        fence(Ordering::SeqCst);
        self.unconsumed_responses(shared)
    }
}

/// The back end's private indices.
#[derive(Clone, Debug)]
pub struct Back {
    /// Index after the last response written.
    rsp_prod: u32,
    /// Index after the last response published.
    published: u32,
    /// Index after the last request read.
    req_cons: u32,
    /// Entries in the ring.
    size: u32,
}

impl Back {
    /// A back end of an empty ring of `size` entries, a power of two.
    pub const fn new(size: u32) -> Back {
        Back::attach(size, 0)
    }

    /// A back end that takes over a ring in which `index` requests were made and answered.
    pub const fn attach(size: u32, index: u32) -> Back {
        assert!(size.is_power_of_two());
        Back { rsp_prod: index, published: index, req_cons: index, size }
    }

    /// Entries in the ring.
    pub const fn size(&self) -> u32 {
        self.size
    }

    /// How many requests were taken and not answered.
    pub const fn outstanding(&self) -> u32 {
        self.req_cons.wrapping_sub(self.rsp_prod)
    }

    /// How many requests wait.
    ///
    /// # Errors
    /// The front end claims more requests than the ring has room for.
    pub fn unconsumed_requests(&self, shared: &SringHeaderAtomic) -> Result<u32, BadIndex> {
        let published = shared.req_prod.load(Ordering::Acquire);
        let waiting = unconsumed(published, self.req_cons);
        if waiting > self.size - self.outstanding() {
            return Err(BadIndex { published, consumed: self.req_cons });
        }
        Ok(waiting)
    }

    /// The slot of the next request, which the caller then copies out. To be called as often as requests wait.
    pub fn take_request(&mut self) -> u32 {
        let slot = slot(self.req_cons, self.size);
        self.req_cons = self.req_cons.wrapping_add(1);
        slot
    }

    /// The slot for the next response, which the caller then writes.
    ///
    /// # Panics
    /// There is no request left to answer.
    pub fn next_response(&mut self) -> u32 {
        assert!(self.outstanding() > 0, "a response without a request");
        let slot = slot(self.rsp_prod, self.size);
        self.rsp_prod = self.rsp_prod.wrapping_add(1);
        slot
    }

    /// Publishes the responses written so far; `true` where the front end wants to be notified.
    pub fn push_responses(&mut self, shared: &SringHeaderAtomic) -> bool {
        let old = core::mem::replace(&mut self.published, self.rsp_prod);
        publish(&shared.rsp_prod, &shared.rsp_event, old, self.rsp_prod)
    }

    /// Asks to be notified of the next request, and tells how many came meanwhile.
    ///
    /// # Errors
    /// As [`Back::unconsumed_requests`].
    pub fn final_check(&self, shared: &SringHeaderAtomic) -> Result<u32, BadIndex> {
        let waiting = self.unconsumed_requests(shared)?;
        if waiting > 0 {
            return Ok(waiting);
        }
        shared.req_event.store(self.req_cons.wrapping_add(1), Ordering::Relaxed);
        fence(Ordering::SeqCst);
        self.unconsumed_requests(shared)
    }
}

/// Two runs of a ring of bytes: `(offset, length)` each, the second one empty unless the ring's end is crossed.
pub type Runs = [(usize, usize); 2];

/// Where `length` bytes from `index` on lie in a ring of `size` bytes, a power of two; at most `size` of them.
///
/// ```
/// assert_eq!(pv_abi::io::ring::runs(1020, 10, 1024), [(1020, 4), (0, 6)]);
/// ```
pub const fn runs(index: u32, length: usize, size: usize) -> Runs {
    let start = index as usize & (size - 1);
    let length = if length < size { length } else { size };
    let first = if length < size - start { length } else { size - start };
    [(start, first), (0, length - first)]
}

/// How many bytes wait in a ring of bytes.
///
/// # Errors
/// The indices are further apart than the ring is long.
pub const fn bytes_waiting(produced: u32, consumed: u32, size: usize) -> Result<usize, BadIndex> {
    let waiting = unconsumed(produced, consumed) as usize;
    if waiting > size {
        return Err(BadIndex { published: produced, consumed });
    }
    Ok(waiting)
}

/// How many bytes can be written to a ring of bytes.
///
/// # Errors
/// The indices are further apart than the ring is long.
pub const fn bytes_free(produced: u32, consumed: u32, size: usize) -> Result<usize, BadIndex> {
    match bytes_waiting(produced, consumed, size) {
        Ok(waiting) => Ok(size - waiting),
        Err(bad) => Err(bad),
    }
}
