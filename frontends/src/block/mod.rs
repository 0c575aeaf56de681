//! The front end of a disk.
//!
//! A caller submits an [`Operation`], gets a [`RequestId`], and later takes the [`Completion`]. Requests of any size
//! are taken; they go over the ring in parts.
//!
//! Invariants:
//! - A request that has not been answered is never lost: its data stays in this driver's pages until then, and a new
//!   connection sends it again, in the order of submission.
//! - A flush covers every write that was submitted before it.
//! - The back end sees pages of this driver only, and only for as long as a request lasts (or, with persistent grants,
//!   for as long as both want).
//!
//! Source: Xen `public/io/blkif.h`.

mod buffers;
mod connection;
mod device;
mod requests;

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use pv_bus::block::{PROTOCOL, SECTOR_BYTES};
use pv_bus::ring::FrontRing;
use pv_bus::xenbus::{FrontStep, Intent, Link, LinkError, Phase, Side, XenbusState, front_step};
use pv_bus::{Hal, PAGE_SIZE, Port, SharedPage, StoreError, WatchEvent, store};

use crate::graveyard::Graveyard;
use crate::shared::ignore_missing;
use buffers::{Buffer, Pool};
use connection::{Connection, Queue, Violation};
use device::Features;
use requests::{Kind, Pending, Requests};

pub use crate::status::Status;
pub use device::{Device, Discard, Options};
pub use requests::{BlockError, Completion, Data, Operation, RequestId};

/// Steps of the handshake that one call takes at most.
const MAX_STEPS: usize = 8;

/// Why a request was not taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SubmitError {
    /// No back end has described the device yet, or it is gone.
    NotReady,
    /// The sectors are not all on the device.
    OutOfRange,
    /// The length is zero or not a multiple of the sector size, or the start is not.
    Misaligned,
    /// More data than this driver has pages for.
    TooLarge,
    /// All pages are in use; try again after the next completion.
    Busy,
    /// The device cannot be written.
    ReadOnly,
    /// The back end does not offer this operation.
    NotSupported,
}

impl core::fmt::Display for SubmitError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            Self::NotReady => "the disk is not connected",
            Self::OutOfRange => "beyond the end of the disk",
            Self::Misaligned => "not a whole number of sectors",
            Self::TooLarge => "more data than one request can carry",
            Self::Busy => "all pages of the driver are in use",
            Self::ReadOnly => "the disk cannot be written",
            Self::NotSupported => "the back end does not offer this",
        })
    }
}

/// What outlives a connection.
struct Core<H: Hal> {
    pool: Pool<H::Page>,
    grave: Graveyard<H::Page>,
    requests: Requests<H::Page>,
}

/// The front end of one disk.
pub struct BlockFront<H: Hal> {
    link: Link,
    options: Options,
    handle: u16,
    core: Core<H>,
    connection: Option<Connection<H>>,
    device: Option<Device>,
    paused: bool,
}

impl<H: Hal> BlockFront<H> {
    /// Opens the disk whose directory is `path`, for instance `device/vbd/51712`.
    ///
    /// # Errors
    /// [`LinkError`] when the toolstack has not made such a device.
    pub fn open(hal: &mut H, path: &str, options: Options) -> Result<Self, LinkError> {
        let link = Link::open(hal, Side::Front, path)?;
        let key = store::join(path, "virtual-device");
        let number: u32 = store::read_number_or(hal, &key, 0);
        let core = Core { pool: Pool::new(options.max_pages), grave: Graveyard::new(), requests: Requests::new() };
        let mut front = Self {
            link,
            options,
            handle: (number & 0xffff) as u16,
            core,
            connection: None,
            device: None,
            paused: false,
        };
        front.poll(hal);
        Ok(front)
    }

    /// The device, once a back end has described it.
    #[must_use]
    pub fn device(&self) -> Option<&Device> {
        self.device.as_ref()
    }

    /// How the disk is.
    #[must_use]
    pub fn status(&self) -> Status {
        Status::of(self.link.phase(), self.paused)
    }

    /// Whether this event channel is this driver's.
    #[must_use]
    pub fn owns(&self, port: Port) -> bool {
        self.connection.as_ref().is_some_and(|connection| connection.queues.iter().any(|queue| queue.port == port))
    }

    /// Requests that have no answer yet.
    #[must_use]
    pub fn outstanding(&self) -> usize {
        self.core.requests.outstanding()
    }

    /// Pages that a back end still uses although their connection ended.
    #[must_use]
    pub fn pages_held_by_peer(&self) -> usize {
        self.core.grave.len()
    }

    /// Takes note of a store event. True when it was this driver's; it has been acted on then.
    pub fn on_watch(&mut self, hal: &mut H, event: &WatchEvent) -> bool {
        let mine = self.link.on_watch(event);
        if mine {
            self.poll(hal);
        }
        mine
    }

    /// Acts on an event. True when the port is this driver's.
    pub fn on_event(&mut self, hal: &mut H, port: Port) -> bool {
        let mine = self.owns(port);
        if mine {
            self.poll(hal);
        }
        mine
    }

    /// Does all that can be done now: the handshake, responses, and sending.
    pub fn poll(&mut self, hal: &mut H) {
        self.core.grave.retry(hal);
        let mut looked = self.link.refresh(hal);
        for _ in 0..MAX_STEPS {
            let step = front_step(self.link.phase(), self.link.intent(), self.link.peer_state());
            if !self.take_step(hal, step, looked) {
                break;
            }
            looked = false;
        }
    }

    /// Takes a request. It goes to the back end with the next [`poll`](Self::poll) or [`kick`](Self::kick).
    ///
    /// # Errors
    /// [`SubmitError`]; nothing has happened then.
    pub fn submit(&mut self, hal: &mut H, operation: Operation<'_>) -> Result<RequestId, SubmitError> {
        let device = self.device.ok_or(SubmitError::NotReady)?;
        if self.link.intent() == Intent::Leave {
            return Err(SubmitError::NotReady);
        }
        match operation {
            Operation::Read { sector, len_bytes } => self.submit_data(hal, &device, Kind::Read, sector, len_bytes, &[]),
            Operation::Write { sector, data } => self.submit_data(hal, &device, Kind::Write, sector, data.len(), data),
            Operation::WriteBarrier { sector, data } => {
                self.check_barrier()?;
                self.submit_data(hal, &device, Kind::Barrier, sector, data.len(), data)
            }
            Operation::Flush => Ok(self.add(Kind::Flush, 0, 0, Vec::new())),
            Operation::Discard { sector, sectors, secure } => {
                let discard = device.discard.ok_or(SubmitError::NotSupported)?;
                if secure && !discard.secure {
                    return Err(SubmitError::NotSupported);
                }
                check_writable(&device)?;
                check_range(&device, sector, sectors)?;
                Ok(self.add(Kind::Discard { secure }, sector, sectors, Vec::new()))
            }
        }
    }

    /// Sends what was submitted, and takes responses that are there.
    pub fn kick(&mut self, hal: &mut H) {
        if self.link.phase() == Phase::Established {
            self.process(hal, true);
        }
    }

    /// Hands the next answer to `take`, with the data if it is a read that succeeded.
    pub fn next_completion<R>(
        &mut self,
        hal: &mut H,
        take: impl FnOnce(Completion, Data<'_, H::Page>) -> R,
    ) -> Option<R> {
        let (id, request) = self.core.requests.take_done()?;
        let taken = take(Completion { id, result: request.result }, request.data());
        let keep_grants = self.connection.as_ref().is_some_and(|connection| connection.features.persistent);
        for buffer in request.buffers {
            self.core.pool.give_back(hal, &mut self.core.grave, buffer, keep_grants);
        }
        Some(taken)
    }

    /// The domain has come to a new host: the back end is another one, no grant holds any more, and what has no answer is sent
    /// again.
    ///
    /// # Errors
    /// [`LinkError`] when there is no such device there.
    pub fn resume(&mut self, hal: &mut H) -> Result<(), LinkError> {
        self.disconnect(hal);
        self.core.pool.end_grants(hal);
        self.core.requests.end_grants(hal);
        self.core.grave.retry(hal);
        self.link.reopen(hal)
    }

    /// Starts to close the device for good. [`status`](Self::status) says when it is done.
    pub fn close(&mut self, hal: &mut H) {
        self.link.set_intent(Intent::Leave);
        self.poll(hal);
    }

    /// Gives everything back. Pages that a back end still has mapped are lost to this domain.
    pub fn release(mut self, hal: &mut H) {
        self.disconnect(hal);
        self.core.requests.fail_all(BlockError::Gone);
        while self.next_completion(hal, |_, _| ()).is_some() {}
        self.core.pool.release(hal, &mut self.core.grave);
        self.core.grave.retry(hal);
        self.link.release(hal);
    }

    fn check_barrier(&self) -> Result<(), SubmitError> {
        match &self.connection {
            Some(connection) if !connection.features.barrier => Err(SubmitError::NotSupported),
            _ => Ok(()),
        }
    }

    fn submit_data(
        &mut self,
        hal: &mut H,
        device: &Device,
        kind: Kind,
        sector: u64,
        len_bytes: usize,
        data: &[u8],
    ) -> Result<RequestId, SubmitError> {
        if kind != Kind::Read {
            check_writable(device)?;
        }
        let unit = device.sector_size_bytes as usize;
        let start_is_aligned = sector.is_multiple_of((unit / SECTOR_BYTES) as u64);
        if len_bytes == 0 || !len_bytes.is_multiple_of(unit) || !start_is_aligned {
            return Err(SubmitError::Misaligned);
        }
        let sectors = (len_bytes / SECTOR_BYTES) as u64;
        check_range(device, sector, sectors)?;
        let pages = len_bytes.div_ceil(PAGE_SIZE);
        if pages > self.core.pool.limit() {
            return Err(SubmitError::TooLarge);
        }
        let buffers = self.core.pool.take_many(hal, pages).ok_or(SubmitError::Busy)?;
        for (buffer, chunk) in buffers.iter().zip(data.chunks(PAGE_SIZE)) {
            buffer.page.write(0, chunk);
        }
        Ok(self.add(kind, sector, sectors, buffers))
    }

    fn add(&mut self, kind: Kind, sector: u64, sectors: u64, buffers: Vec<Buffer<H::Page>>) -> RequestId {
        let request = Pending { kind, sector, sectors, buffers, sent: 0, parts_out: 0, result: Ok(()) };
        self.core.requests.add(request)
    }

    /// Takes one step of the handshake. False when there is nothing more to do now.
    fn take_step(&mut self, hal: &mut H, step: FrontStep, looked: bool) -> bool {
        match step {
            FrontStep::Wait => {
                self.give_up_if_removed();
                return false;
            }
            FrontStep::Offer => return self.offer(hal),
            FrontStep::Connect => self.connect(hal),
            FrontStep::Serve => {
                self.serve(hal, looked);
                return false;
            }
            FrontStep::Pause => {
                self.paused = true;
                self.process(hal, false);
                return false;
            }
            FrontStep::Finish => return self.finish(hal),
            FrontStep::Disconnect => {
                // A back end that closes at once may have answered first.
                self.process(hal, false);
                self.disconnect(hal);
                self.link.enter(hal, Phase::Closed, XenbusState::Closed);
            }
            FrontStep::Evict => self.link.set_intent(Intent::Restart),
            FrontStep::Enter(phase) => self.link.enter(hal, phase, phase.front_state(false)),
        }
        true
    }

    /// A device whose back end's directory is gone, or that was closed for good, answers nothing any more.
    fn give_up_if_removed(&mut self) {
        let removed = self.link.peer_state() == XenbusState::Unknown || self.link.intent() == Intent::Leave;
        if self.link.phase() == Phase::Closed && removed {
            self.core.requests.fail_all(BlockError::Gone);
        }
    }

    fn offer(&mut self, hal: &mut H) -> bool {
        match self.try_offer(hal) {
            Ok(connection) => {
                self.connection = Some(connection);
                self.link.enter(hal, Phase::Offered, XenbusState::Initialised);
                true
            }
            Err(reason) => {
                self.link.report(hal, format_args!("block.front.no_offer: {reason}"));
                false
            }
        }
    }

    fn try_offer(&mut self, hal: &mut H) -> Result<Connection<H>, String> {
        let order: u32 = self.link.read_peer_or(hal, "max-ring-page-order", 0);
        let order = order.min(self.options.max_ring_order).min(4);
        let count: u32 = self.link.read_peer_or(hal, "multi-queue-max-queues", 1);
        let count = count.min(self.options.max_queues).max(1);
        let mut connection = Connection::new(Vec::new(), self.link.peer(), self.handle);
        let mut made = Ok(());
        for _ in 0..count {
            made = made.and_then(|()| self.make_queue(hal, order).map(|queue| connection.queues.push(queue)));
        }
        let published =
            made.and_then(|()| self.publish(hal, &connection.queues, order).map_err(|error| format!("store: {error}")));
        if let Err(reason) = published {
            connection.end(hal, &mut self.core);
            return Err(reason);
        }
        connection.queues.iter().for_each(|queue| hal.unmask(queue.port));
        Ok(connection)
    }

    fn make_queue(&mut self, hal: &mut H, order: u32) -> Result<Queue<H>, String> {
        let peer = self.link.peer();
        let (pages, grants) = crate::shared::share_pages(hal, &mut self.core.grave, peer, 1 << order)
            .map_err(|error| format!("ring: {error}"))?;
        match hal.alloc_unbound(peer) {
            Ok(port) => Ok(Queue::new(FrontRing::new(pages), grants, port)),
            Err(error) => {
                crate::shared::unshare_pages(hal, &mut self.core.grave, pages, grants);
                Err(format!("{error}"))
            }
        }
    }

    fn publish(&self, hal: &mut H, queues: &[Queue<H>], order: u32) -> Result<(), StoreError> {
        store::transaction(hal, |hal, open| {
            let link = &self.link;
            let count = crate::shared::write_queue_count(hal, link, open, queues.len())?;
            if order == 0 {
                hal.rm(open, &store::join(link.path(), "ring-page-order")).or_else(ignore_missing)?;
            } else {
                link.write(hal, open, "ring-page-order", order)?;
            }
            for (number, queue) in queues.iter().enumerate() {
                let folder = crate::shared::queue_folder(count, number);
                for (page, grant) in queue.grants.iter().enumerate() {
                    let key = if order == 0 { "ring-ref".into() } else { format!("ring-ref{page}") };
                    link.write(hal, open, &format!("{folder}{key}"), grant.0)?;
                }
                link.write(hal, open, &format!("{folder}event-channel"), queue.port.0)?;
            }
            link.write(hal, open, "protocol", PROTOCOL)?;
            link.write(hal, open, "feature-persistent", u32::from(self.options.persistent))
        })
    }

    fn connect(&mut self, hal: &mut H) {
        match Device::read(hal, &self.link) {
            Ok(device) => {
                self.device = Some(device);
                let features = Features::agree(hal, &self.link, &self.options);
                if let Some(connection) = &mut self.connection {
                    connection.features = features;
                }
                self.paused = false;
                self.core.requests.resend_all();
                self.link.enter(hal, Phase::Established, XenbusState::Connected);
            }
            Err(error) => {
                self.link.report(hal, format_args!("block.front.bad_device: {error}"));
                self.link.set_intent(Intent::Leave);
            }
        }
    }

    fn serve(&mut self, hal: &mut H, looked: bool) {
        if looked {
            self.paused = false;
            match Device::read(hal, &self.link) {
                Ok(device) => self.device = Some(device),
                Err(error) => log::warn!("{}: block.front.bad_device: {error}", self.link.path()),
            }
        }
        self.process(hal, true);
    }

    /// True when everything on the ring was answered and the connection is closed.
    fn finish(&mut self, hal: &mut H) -> bool {
        self.process(hal, false);
        if self.connection.as_ref().is_some_and(|connection| connection.in_flight() > 0) {
            return false;
        }
        if self.link.phase() == Phase::Established {
            self.disconnect(hal);
            // A back end that asked for it has its answer at once; one that did not is asked first.
            let asked = self.link.peer_state() == XenbusState::Closing;
            let (phase, state) = match asked {
                true => (Phase::Closed, XenbusState::Closed),
                false => (Phase::Leaving, XenbusState::Closing),
            };
            self.link.enter(hal, phase, state);
        }
        true
    }

    fn process(&mut self, hal: &mut H, may_send: bool) {
        let Some(connection) = &mut self.connection else {
            return;
        };
        if let Err(violation) = connection.process(hal, &mut self.core, may_send) {
            self.break_off(hal, violation);
        }
    }

    fn break_off(&mut self, hal: &mut H, violation: Violation) {
        self.link.report(hal, format_args!("{violation}"));
        self.disconnect(hal);
        self.link.set_intent(Intent::Leave);
        self.link.enter(hal, Phase::Closed, XenbusState::Closed);
        self.core.requests.fail_all(BlockError::Gone);
    }

    fn disconnect(&mut self, hal: &mut H) {
        if let Some(connection) = self.connection.take() {
            connection.end(hal, &mut self.core);
        }
    }
}

fn check_writable(device: &Device) -> Result<(), SubmitError> {
    if device.read_only { Err(SubmitError::ReadOnly) } else { Ok(()) }
}

fn check_range(device: &Device, sector: u64, sectors: u64) -> Result<(), SubmitError> {
    let end = sector.checked_add(sectors).ok_or(SubmitError::OutOfRange)?;
    if end > device.sectors { Err(SubmitError::OutOfRange) } else { Ok(()) }
}
