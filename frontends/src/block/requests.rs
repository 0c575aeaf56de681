//! What callers asked for and have not been answered.
//!
//! A request stays here, with its data, from the call that made it until its owner has taken the answer. So a new
//! connection can send it again.

use alloc::collections::{BTreeMap, VecDeque};
use alloc::vec::Vec;
use core::fmt;

use pv_bus::block::{SECTOR_BYTES, SECTORS_PER_PAGE};
use pv_bus::{Hal, PAGE_SIZE, SharedPage};

use super::buffers::Buffer;

/// The number of a request; later requests have larger numbers.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
pub struct RequestId(pub u64);

/// What a caller asks of a disk. Sectors are 512 bytes.
#[derive(Clone, Copy, Debug)]
pub enum Operation<'a> {
    /// Read this many bytes.
    Read {
        /// First sector.
        sector: u64,
        /// How much.
        len_bytes: usize,
    },
    /// Write these bytes.
    Write {
        /// First sector.
        sector: u64,
        /// The data.
        data: &'a [u8],
    },
    /// Write these bytes after all that was asked before, and before all that is asked later.
    WriteBarrier {
        /// First sector.
        sector: u64,
        /// The data.
        data: &'a [u8],
    },
    /// Make everything durable that was asked to be written before.
    Flush,
    /// Forget the contents of these sectors.
    Discard {
        /// First sector.
        sector: u64,
        /// How many.
        sectors: u64,
        /// The contents must not be recoverable.
        secure: bool,
    },
}

/// Why a request failed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BlockError {
    /// The back end reported an error of the device.
    Device,
    /// The back end does not know the operation.
    NotSupported,
    /// The device went away for good.
    Gone,
}

impl fmt::Display for BlockError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Device => "the device reported an error",
            Self::NotSupported => "the back end does not support this operation",
            Self::Gone => "the device is gone",
        })
    }
}

/// The answer to a request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Completion {
    /// Which request.
    pub id: RequestId,
    /// How it ended.
    pub result: Result<(), BlockError>,
}

/// What a read brought; empty for anything else.
pub struct Data<'a, P> {
    buffers: &'a [Buffer<P>],
    len_bytes: usize,
}

impl<P: SharedPage> Data<'_, P> {
    /// How many bytes there are.
    #[must_use]
    pub fn len_bytes(&self) -> usize {
        self.len_bytes
    }

    /// Copies `into.len()` bytes that start `offset` bytes into the data.
    ///
    /// # Panics
    /// When there are not that many.
    pub fn copy_to(&self, offset: usize, into: &mut [u8]) {
        assert!(offset + into.len() <= self.len_bytes, "the read was shorter than that");
        let mut done = 0;
        while done < into.len() {
            let at = offset + done;
            let step = (into.len() - done).min(PAGE_SIZE - at % PAGE_SIZE);
            self.buffers[at / PAGE_SIZE].page.read(at % PAGE_SIZE, &mut into[done..done + step]);
            done += step;
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    Read,
    Write,
    Barrier,
    Flush,
    Discard { secure: bool },
}

/// One request.
pub(super) struct Pending<P> {
    pub(super) kind: Kind,
    pub(super) sector: u64,
    pub(super) sectors: u64,
    pub(super) buffers: Vec<Buffer<P>>,
    /// How many of the buffers (or, without any, 1) were put on the ring.
    pub(super) sent: usize,
    /// Parts on the ring that have no response.
    pub(super) parts_out: usize,
    pub(super) result: Result<(), BlockError>,
}

impl<P> Pending<P> {
    /// How many units there are to send: one a buffer, and one for an operation without data.
    pub(super) fn units(&self) -> usize {
        self.buffers.len().max(1)
    }

    pub(super) fn changes_device(&self) -> bool {
        !matches!(self.kind, Kind::Read | Kind::Flush)
    }

    fn is_done(&self) -> bool {
        self.parts_out == 0 && (self.sent == self.units() || self.result.is_err())
    }

    /// How many sectors the buffer of this index carries.
    pub(super) fn sectors_in(&self, buffer: usize) -> u8 {
        let before = buffer as u64 * u64::from(SECTORS_PER_PAGE);
        let left = self.sectors.saturating_sub(before).min(u64::from(SECTORS_PER_PAGE));
        u8::try_from(left).unwrap_or(SECTORS_PER_PAGE)
    }
}

/// All requests that are not answered.
pub(super) struct Requests<P> {
    pending: BTreeMap<RequestId, Pending<P>>,
    /// Those with something left to send, oldest first.
    unsent: VecDeque<RequestId>,
    /// Those that are done.
    done: VecDeque<RequestId>,
    next: u64,
}

impl<P> Requests<P> {
    pub(super) fn new() -> Self {
        Self { pending: BTreeMap::new(), unsent: VecDeque::new(), done: VecDeque::new(), next: 1 }
    }

    pub(super) fn add(&mut self, request: Pending<P>) -> RequestId {
        let id = RequestId(self.next);
        self.next += 1;
        self.pending.insert(id, request);
        self.unsent.push_back(id);
        id
    }

    /// The oldest request with something left to send.
    pub(super) fn next_unsent(&mut self) -> Option<(RequestId, &mut Pending<P>)> {
        let id = *self.unsent.front()?;
        self.pending.get_mut(&id).map(|request| (id, request))
    }

    pub(super) fn get_mut(&mut self, id: RequestId) -> Option<&mut Pending<P>> {
        self.pending.get_mut(&id)
    }

    /// Takes note that a request has nothing left to send.
    pub(super) fn all_sent(&mut self, id: RequestId) {
        self.unsent.retain(|unsent| *unsent != id);
    }

    /// Moves a request to the answered ones if it is done.
    pub(super) fn settle(&mut self, id: RequestId) {
        if self.pending.get(&id).is_some_and(Pending::is_done) {
            self.all_sent(id);
            self.done.push_back(id);
        }
    }

    /// Whether a request older than `id` is still changing the device.
    pub(super) fn changes_before(&self, id: RequestId) -> bool {
        self.pending.range(..id).any(|(_, request)| request.changes_device() && !request.is_done())
    }

    /// Whether a barrier older than `id` has no answer.
    pub(super) fn barrier_before(&self, id: RequestId) -> bool {
        self.pending.range(..id).any(|(_, request)| request.kind == Kind::Barrier && !request.is_done())
    }

    /// Ends the grants of all pages of requests.
    pub(super) fn end_grants<H: Hal<Page = P>>(&mut self, hal: &mut H) {
        let buffers = self.pending.values_mut().flat_map(|request| &mut request.buffers);
        buffers.for_each(|buffer| buffer.end_grant(hal));
    }

    /// Everything that has no answer is to be sent again, oldest first.
    pub(super) fn resend_all(&mut self) {
        self.unsent.clear();
        for (id, request) in &mut self.pending {
            if !request.is_done() {
                request.sent = 0;
                request.parts_out = 0;
                request.result = Ok(());
                self.unsent.push_back(*id);
            }
        }
    }

    /// Everything that has no answer gets this one.
    pub(super) fn fail_all(&mut self, error: BlockError) {
        self.unsent.clear();
        for (id, request) in &mut self.pending {
            if !request.is_done() {
                request.sent = request.units();
                request.parts_out = 0;
                request.result = Err(error);
                self.done.push_back(*id);
            }
        }
    }

    /// How many requests have no answer.
    pub(super) fn outstanding(&self) -> usize {
        self.pending.len() - self.done.len()
    }

    /// Takes out the next answered request.
    pub(super) fn take_done(&mut self) -> Option<(RequestId, Pending<P>)> {
        let id = self.done.pop_front()?;
        self.pending.remove(&id).map(|request| (id, request))
    }
}

impl<P> Pending<P> {
    /// The data a successful read brought.
    pub(super) fn data(&self) -> Data<'_, P> {
        let read = self.kind == Kind::Read && self.result.is_ok();
        let len_bytes = if read { usize::try_from(self.sectors).unwrap_or(0) * SECTOR_BYTES } else { 0 };
        Data { buffers: &self.buffers, len_bytes }
    }
}
