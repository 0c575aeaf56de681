//! The byte rings of a console page.
//!
//! A page holds two rings, `in` (1 KiB, towards the guest) and `out` (2 KiB, from the guest), and four free-running
//! indices. [`Producer`] and [`Consumer`] are the two ends of either ring; the guest's driver and the service domain's
//! are made of one each.
//!
//! Invariants:
//! - An end keeps its own index private; the shared word is only stored to. When an end takes over a page in use, it
//!   starts from the word that its predecessor left.
//! - The peer's index is checked: a ring never holds more than its size.
//!
//! Source: Xen `public/io/console.h`.

use core::fmt;
use core::mem::offset_of;
use core::sync::atomic::{Ordering, fence};

use pv_abi::io::console::{IN_RING_SIZE, OUT_RING_SIZE, XenconsInterface};

use crate::SharedPage;

/// Where a ring lies in its page.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Layout {
    data: usize,
    size: u32,
    cons: usize,
    prod: usize,
}

/// Towards the guest.
pub const IN: Layout = Layout {
    data: offset_of!(XenconsInterface, in_),
    size: IN_RING_SIZE as u32,
    cons: offset_of!(XenconsInterface, in_cons),
    prod: offset_of!(XenconsInterface, in_prod),
};

/// From the guest.
pub const OUT: Layout = Layout {
    data: offset_of!(XenconsInterface, out),
    size: OUT_RING_SIZE as u32,
    cons: offset_of!(XenconsInterface, out_cons),
    prod: offset_of!(XenconsInterface, out_prod),
};

/// The peer's index says that the ring holds more than it can.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Overrun {
    /// How much it would hold.
    pub held: u32,
    /// How much it can.
    pub size: u32,
}

impl fmt::Display for Overrun {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes in a ring of {}", self.held, self.size)
    }
}

/// How many bytes from `index` on lie in one piece, and where.
fn run(layout: &Layout, index: u32, len: u32) -> (usize, usize) {
    let at = index & (layout.size - 1);
    (layout.data + at as usize, len.min(layout.size - at) as usize)
}

/// The end that writes a ring.
#[derive(Debug)]
pub struct Producer {
    layout: Layout,
    prod: u32,
}

impl Producer {
    /// Takes over the writing end.
    pub fn attach(page: &impl SharedPage, layout: Layout) -> Self {
        Self { layout, prod: page.load_u32(layout.prod, Ordering::Relaxed) }
    }

    /// How many bytes fit now.
    ///
    /// # Errors
    /// [`Overrun`] when the peer's index is wrong.
    pub fn room(&self, page: &impl SharedPage) -> Result<usize, Overrun> {
        let held = self.prod.wrapping_sub(page.load_u32(self.layout.cons, Ordering::Acquire));
        match self.layout.size.checked_sub(held) {
            Some(room) => Ok(room as usize),
            None => Err(Overrun { held, size: self.layout.size }),
        }
    }

    /// Writes as much of `bytes` as fits and gives how much that was. The peer is to be notified if it was any.
    ///
    /// # Errors
    /// As [`room`](Self::room).
    pub fn write(&mut self, page: &impl SharedPage, bytes: &[u8]) -> Result<usize, Overrun> {
        let count = bytes.len().min(self.room(page)?);
        // What the peer has read must have been read before it is overwritten.
        fence(Ordering::SeqCst);
        let mut rest = &bytes[..count];
        while !rest.is_empty() {
            let (at, len) = run(&self.layout, self.prod, u32::try_from(rest.len()).unwrap_or(u32::MAX));
            page.write(at, &rest[..len]);
            rest = &rest[len..];
            self.prod = self.prod.wrapping_add(len as u32);
        }
        page.store_u32(self.layout.prod, self.prod, Ordering::Release);
        Ok(count)
    }
}

/// The end that reads a ring.
#[derive(Debug)]
pub struct Consumer {
    layout: Layout,
    cons: u32,
}

impl Consumer {
    /// Takes over the reading end.
    pub fn attach(page: &impl SharedPage, layout: Layout) -> Self {
        Self { layout, cons: page.load_u32(layout.cons, Ordering::Relaxed) }
    }

    /// How many bytes wait.
    ///
    /// # Errors
    /// [`Overrun`] when the peer's index is wrong.
    pub fn waiting(&self, page: &impl SharedPage) -> Result<usize, Overrun> {
        let held = page.load_u32(self.layout.prod, Ordering::Acquire).wrapping_sub(self.cons);
        if held > self.layout.size { Err(Overrun { held, size: self.layout.size }) } else { Ok(held as usize) }
    }

    /// Reads what waits, at most `into.len()` bytes, and gives how much that was. The peer is to be notified if it was
    /// any: it may wait for room.
    ///
    /// # Errors
    /// As [`waiting`](Self::waiting).
    pub fn read(&mut self, page: &impl SharedPage, into: &mut [u8]) -> Result<usize, Overrun> {
        let count = into.len().min(self.waiting(page)?);
        let mut rest = &mut into[..count];
        while !rest.is_empty() {
            let (at, len) = run(&self.layout, self.cons, u32::try_from(rest.len()).unwrap_or(u32::MAX));
            let (piece, after) = rest.split_at_mut(len);
            page.read_once(at, piece);
            rest = after;
            self.cons = self.cons.wrapping_add(len as u32);
        }
        page.store_u32(self.layout.cons, self.cons, Ordering::Release);
        Ok(count)
    }

    /// Throws away what waits, whatever the peer's index says, so that the two agree again.
    pub fn resynchronise(&mut self, page: &impl SharedPage) {
        self.cons = page.load_u32(self.layout.prod, Ordering::Acquire);
        page.store_u32(self.layout.cons, self.cons, Ordering::Release);
    }
}
