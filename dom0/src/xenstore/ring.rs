//! The page between a domain and the server: two rings of 1024 bytes and four indices.
//!
//! The guest can write every byte of it at any moment. So an index is read once, checked against the server's own
//! index, and bytes are copied out before they mean anything. The server's own indices are kept here; the words in the
//! page are only stored to.
//!
//! Source: Xen `public/io/xs_wire.h` (`struct xenstore_domain_interface`).

use alloc::vec::Vec;
use core::sync::atomic::Ordering;

use pv_bus::SharedPage;

/// Bytes of one ring.
pub const RING_BYTES: usize = 1024;

const REQUESTS: usize = 0;
const REPLIES: usize = 1024;
const REQ_CONS: usize = 2048;
const REQ_PROD: usize = 2052;
const RSP_CONS: usize = 2056;
const RSP_PROD: usize = 2060;
const SERVER_FEATURES: usize = 2064;
const CONNECTION: usize = 2068;
const ERROR: usize = 2072;

/// The server understands a guest's wish to reconnect, and says what was wrong with a ring.
const FEATURES: u32 = 1 | 2;

/// What ended a connection, as the page tells the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum RingFault {
    /// Indices that are further apart than the ring is long.
    Indices = 2,
    /// A message longer than the protocol allows.
    Protocol = 3,
}

/// The server's side of one page.
#[derive(Debug)]
pub struct StoreRing<P> {
    page: P,
    req_cons: u32,
    rsp_prod: u32,
}

impl<P: SharedPage> StoreRing<P> {
    /// Takes up a page where it stands, so that a guest may have written before it was introduced.
    pub fn attach(page: P) -> Self {
        let req_cons = page.load_u32(REQ_CONS, Ordering::Acquire);
        let rsp_prod = page.load_u32(RSP_PROD, Ordering::Acquire);
        page.store_u32(SERVER_FEATURES, FEATURES, Ordering::Release);
        Self { page, req_cons, rsp_prod }
    }

    /// Copies what the guest has sent to the end of `into`, at most `limit` bytes. Returns how many.
    ///
    /// # Errors
    /// [`RingFault::Indices`]: the guest claims more than the ring holds.
    pub fn receive(&mut self, into: &mut Vec<u8>, limit: usize) -> Result<usize, RingFault> {
        let available = self.page.load_u32(REQ_PROD, Ordering::Acquire).wrapping_sub(self.req_cons) as usize;
        if available > RING_BYTES {
            return Err(RingFault::Indices);
        }
        let count = available.min(limit);
        let start = into.len();
        into.resize(start + count, 0);
        let (first, second) = split(self.req_cons, count);
        let (head, tail) = into[start..].split_at_mut(first);
        self.page.read(REQUESTS + offset(self.req_cons), head);
        self.page.read(REQUESTS, tail);
        debug_assert_eq!(tail.len(), second);
        self.req_cons = advance(self.req_cons, count);
        self.page.store_u32(REQ_CONS, self.req_cons, Ordering::Release);
        Ok(count)
    }

    /// Copies as much of `bytes` as there is room for to the guest. Returns how many.
    ///
    /// # Errors
    /// [`RingFault::Indices`]: the guest claims to have read more than was written.
    pub fn send(&mut self, bytes: &[u8]) -> Result<usize, RingFault> {
        let unread = self.rsp_prod.wrapping_sub(self.page.load_u32(RSP_CONS, Ordering::Acquire)) as usize;
        let room = RING_BYTES.checked_sub(unread).ok_or(RingFault::Indices)?;
        let count = room.min(bytes.len());
        let (first, _) = split(self.rsp_prod, count);
        self.page.write(REPLIES + offset(self.rsp_prod), &bytes[..first]);
        self.page.write(REPLIES, &bytes[first..count]);
        self.rsp_prod = advance(self.rsp_prod, count);
        self.page.store_u32(RSP_PROD, self.rsp_prod, Ordering::Release);
        Ok(count)
    }

    /// Tells the guest what was wrong with its ring.
    pub fn report(&self, fault: RingFault) {
        self.page.store_u32(ERROR, fault as u32, Ordering::Release);
    }

    /// Marks the connection as established.
    pub fn set_connected(&self) {
        self.page.store_u32(CONNECTION, 0, Ordering::Release);
    }

    /// Whether the guest has asked to start anew.
    pub fn wants_reconnect(&self) -> bool {
        self.page.load_u32(CONNECTION, Ordering::Acquire) == 1
    }

    /// Empties both rings and tells the guest that it is connected again.
    pub fn reconnect(&mut self) {
        self.req_cons = 0;
        self.rsp_prod = 0;
        for index in [REQ_CONS, REQ_PROD, RSP_CONS, RSP_PROD, ERROR] {
            self.page.store_u32(index, 0, Ordering::Release);
        }
        self.set_connected();
    }

    /// Gives the page back.
    pub fn into_page(self) -> P {
        self.page
    }
}

fn offset(index: u32) -> usize {
    index as usize % RING_BYTES
}

/// How many of `count` bytes from `index` on lie before the ring's end, and how many behind it.
fn split(index: u32, count: usize) -> (usize, usize) {
    let first = count.min(RING_BYTES - offset(index));
    (first, count - first)
}

fn advance(index: u32, count: usize) -> u32 {
    // A count is at most the ring's length, so it fits.
    index.wrapping_add(u32::try_from(count).unwrap_or(0))
}
