//! The back end of a disk.
//!
//! Serves one front end from one [`BlockDevice`]. Offers flush and barrier where the device can flush, discard where it
//! can discard, indirect requests, persistent grants, several rings, and rings of several pages.
//!
//! Invariants:
//! - A request is taken from the ring as a private copy, becomes a checked job or a refusal, and is answered exactly
//!   once.
//! - One call of [`BlockBack::poll`] takes a few rings full of requests at most.
//! - A connection is made only when the device has finished everything of the one before.
//! - A front end that closes while requests are on its rings gets their answers before the rings are left.
//!
//! Source: Xen `public/io/blkif.h`.

mod connection;
mod device;
pub mod memory;
mod request;
pub mod rules;
mod transfer;
mod work;

use alloc::format;
use alloc::vec::Vec;

use pv_bus::block::{VDISK_CDROM, VDISK_READONLY};
use pv_bus::refusal::{Refusals, Rule};
use pv_bus::ring::RingBroken;
use pv_bus::xenbus::{BackStep, Intent, Link, LinkError, Phase, Side, XenbusState, back_step};
use pv_bus::{Hal, Port, StoreError, Transaction, WatchEvent, store};

use connection::Connection;
pub use device::{BlockDevice, DeviceCompletion, DeviceError, DeviceOperation, DiscardSupport, Geometry, Tag};
use request::{Descriptors, Job, Limits, Work};
use transfer::{Direction, Transfer};
use work::Jobs;

use crate::Progress;

/// Steps of the handshake, and rounds of work, that one call takes at most.
const MAX_STEPS: usize = 8;
const MAX_ROUNDS: usize = 4;

/// What the owner of a back end chooses.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Options {
    /// Offer up to this many rings, at least one.
    pub max_queues: u32,
    /// Offer rings of up to 2 to this power pages.
    pub max_ring_order: u32,
    /// Offer indirect requests of up to this many segments; 0 offers none.
    pub max_indirect_segments: usize,
    /// Offer to keep pages mapped.
    pub persistent: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self { max_queues: 4, max_ring_order: 4, max_indirect_segments: 256, persistent: true }
    }
}

/// What a front end has asked for so far, and kept the rules.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Counters {
    /// Requests to read.
    pub reads: u64,
    /// Requests to write.
    pub writes: u64,
    /// Sectors of 512 bytes of those to read.
    pub read_sectors: u64,
    /// Sectors of 512 bytes of those to write.
    pub written_sectors: u64,
    /// How often a request had to wait for a buffer.
    pub waits: u64,
}

impl Counters {
    fn count(&mut self, job: &Job) {
        let sectors = (job.len_bytes / pv_bus::block::SECTOR_BYTES) as u64;
        match job.work {
            Work::Read => {
                self.reads += 1;
                self.read_sectors += sectors;
            }
            Work::Write | Work::Barrier => {
                self.writes += 1;
                self.written_sectors += sectors;
            }
            Work::Flush | Work::Discard { .. } => {}
        }
    }
}

/// The back end of one disk.
pub struct BlockBack<H: Hal, D: BlockDevice> {
    link: Link,
    options: Options,
    device: D,
    connection: Option<Connection<H>>,
    jobs: Jobs<D::Buffer>,
    refusals: Refusals,
    counters: Counters,
    read_only: bool,
    progress: Progress,
}

impl<H: Hal, D: BlockDevice> BlockBack<H, D> {
    /// Opens the device whose directory is `path`, for instance `/local/domain/0/backend/vbd/3/51712`.
    ///
    /// # Errors
    /// [`LinkError`] when the toolstack has not made such a device.
    pub fn open(hal: &mut H, path: &str, device: D, options: Options) -> Result<Self, LinkError> {
        let link = Link::open(hal, Side::Back, path)?;
        let mode = store::read_text(hal, Transaction::NONE, &store::join(path, "mode"));
        let refusals = Refusals::new(path);
        let read_only = mode.is_ok_and(|mode| mode == "r");
        let mut back = Self {
            link,
            options,
            device,
            connection: None,
            jobs: Jobs::new(),
            refusals,
            counters: Counters::default(),
            read_only,
            progress: Progress::Idle,
        };
        back.poll(hal);
        Ok(back)
    }

    /// Whether this event channel is this driver's.
    #[must_use]
    pub fn owns(&self, port: Port) -> bool {
        self.connection.as_ref().is_some_and(|connection| connection.ports().any(|own| own == port))
    }

    /// Whether a front end is connected.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        self.connection.is_some()
    }

    /// Whether the device is closed and nothing is under way: its directory may be removed.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.link.phase() == Phase::Closed && self.jobs.drained()
    }

    /// What was refused so far.
    #[must_use]
    pub fn refusals(&self) -> &Refusals {
        &self.refusals
    }

    /// What was asked for so far.
    #[must_use]
    pub fn counters(&self) -> Counters {
        Counters { waits: self.jobs.waits(), ..self.counters }
    }

    /// The device.
    pub fn device_mut(&mut self) -> &mut D {
        &mut self.device
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

    /// Does what can be done now: the handshake, requests, and what the device has finished. Call it again soon when it
    /// answers [`Progress::More`], and whenever the device has finished something.
    pub fn poll(&mut self, hal: &mut H) -> Progress {
        self.progress = self.advance(hal);
        self.progress
    }

    /// Whether the last call stopped with work left: [`poll`](Self::poll) should be called soon.
    #[must_use]
    pub fn has_more(&self) -> bool {
        self.progress == Progress::More
    }

    fn advance(&mut self, hal: &mut H) -> Progress {
        self.link.refresh(hal);
        for _ in 0..MAX_STEPS {
            let step = back_step(self.link.phase(), self.link.intent(), self.link.peer_state());
            match self.take_step(hal, step) {
                Next::Step => {}
                Next::Done(progress) => return progress,
            }
        }
        Progress::More
    }

    /// Starts to close the device for good. [`is_closed`](Self::is_closed) says when it is done.
    pub fn close(&mut self, hal: &mut H) {
        self.link.set_intent(Intent::Leave);
        self.poll(hal);
    }

    /// Tells the front end that the device's geometry has changed.
    pub fn resize(&mut self, hal: &mut H) {
        if self.link.phase() != Phase::Established {
            return;
        }
        self.link.announce(hal, XenbusState::Reconfiguring);
        if let Err(error) = self.publish_device(hal) {
            log::warn!("{}: block.back.not_published: {error}", self.link.path());
        }
        self.link.announce(hal, XenbusState::Reconfigured);
        self.link.announce(hal, XenbusState::Connected);
    }

    /// This half's directory in the store.
    #[must_use]
    pub fn path(&self) -> &str {
        self.link.path()
    }

    /// Closes the device for good at once, whatever the front end does. What it has asked for is answered with errors.
    pub fn abort(&mut self, hal: &mut H) {
        self.link.set_intent(Intent::Leave);
        if let Some(connection) = &mut self.connection {
            connection.fail_all(hal);
        }
        self.disconnect(hal);
        self.link.enter(hal, Phase::Closed, XenbusState::Closed);
    }

    /// Gives the device and everything else back. What the device had not finished stays unanswered.
    pub fn release(mut self, hal: &mut H) -> D {
        self.disconnect(hal);
        self.link.release(hal);
        self.device
    }

    fn geometry(&self) -> Geometry {
        let geometry = self.device.geometry();
        Geometry { read_only: geometry.read_only || self.read_only, ..geometry }
    }

    fn limits(&self) -> Limits {
        Limits { geometry: self.geometry(), max_indirect_segments: self.max_indirect_segments() }
    }

    fn max_indirect_segments(&self) -> usize {
        let pages = self.device.geometry().max_transfer_bytes / pv_bus::PAGE_SIZE;
        self.options.max_indirect_segments.min(pages).min(256)
    }

    fn take_step(&mut self, hal: &mut H, step: BackStep) -> Next {
        match step {
            BackStep::Wait => {
                // Operations of a connection that ended may still come back.
                self.jobs.finish(hal, &mut self.device, None, &mut self.refusals);
                return Next::Done(Progress::Idle);
            }
            BackStep::Publish | BackStep::Connect if !self.is_quiet(hal) => return Next::Done(Progress::Idle),
            BackStep::Publish => return self.publish(hal),
            BackStep::Connect => self.connect(hal),
            BackStep::Serve => return Next::Done(self.serve(hal)),
            BackStep::Disconnect => {
                if self.link.peer_state() == XenbusState::Closed && self.has_unanswered() {
                    let progress = self.serve(hal);
                    if self.has_unanswered() {
                        return Next::Done(progress);
                    }
                }
                self.disconnect(hal);
                self.link.enter(hal, Phase::Closed, XenbusState::Closed);
            }
            BackStep::Enter(phase) => self.link.enter(hal, phase, phase.back_state()),
        }
        Next::Step
    }

    /// Whether the device has finished what was asked of it before there was this connection.
    fn is_quiet(&mut self, hal: &mut H) -> bool {
        self.jobs.finish(hal, &mut self.device, None, &mut self.refusals);
        self.jobs.drained() && self.device.is_quiet()
    }

    fn has_unanswered(&self) -> bool {
        self.connection.as_ref().is_some_and(|connection| !connection.is_idle())
    }

    fn publish(&mut self, hal: &mut H) -> Next {
        match self.publish_features(hal) {
            Ok(()) => {
                self.link.enter(hal, Phase::Offered, XenbusState::InitWait);
                Next::Step
            }
            Err(error) => {
                log::warn!("{}: block.back.not_published: {error}", self.link.path());
                Next::Done(Progress::Idle)
            }
        }
    }

    fn publish_features(&self, hal: &mut H) -> Result<(), StoreError> {
        let geometry = self.geometry();
        let indirect = self.max_indirect_segments();
        let link = &self.link;
        store::transaction(hal, |hal, open| {
            let flags = [
                ("feature-flush-cache", geometry.can_flush),
                ("feature-barrier", geometry.can_flush),
                ("feature-persistent", self.options.persistent),
                ("feature-discard", geometry.discard.is_some()),
            ];
            for (key, value) in flags {
                link.write(hal, open, key, u32::from(value))?;
            }
            if let Some(discard) = geometry.discard {
                link.write(hal, open, "discard-granularity", discard.granularity_bytes)?;
                link.write(hal, open, "discard-alignment", discard.alignment_bytes)?;
                link.write(hal, open, "discard-secure", u32::from(discard.secure))?;
            }
            if indirect > 0 {
                link.write(hal, open, "feature-max-indirect-segments", indirect)?;
            }
            link.write(hal, open, "multi-queue-max-queues", self.options.max_queues.max(1))?;
            link.write(hal, open, "max-ring-page-order", self.options.max_ring_order)
        })
    }

    fn publish_device(&self, hal: &mut H) -> Result<(), StoreError> {
        let geometry = self.geometry();
        let read_only = if geometry.read_only { VDISK_READONLY } else { 0 };
        let cdrom = if geometry.cdrom { VDISK_CDROM } else { 0 };
        let link = &self.link;
        store::transaction(hal, |hal, open| {
            link.write(hal, open, "sectors", geometry.sectors)?;
            link.write(hal, open, "sector-size", geometry.sector_size_bytes)?;
            link.write(hal, open, "physical-sector-size", geometry.physical_sector_size_bytes)?;
            link.write(hal, open, "info", read_only | cdrom)
        })
    }

    fn connect(&mut self, hal: &mut H) {
        let connected = Connection::open(hal, &self.link, &self.options);
        let published = connected.and_then(|connection| {
            self.connection = Some(connection);
            self.publish_device(hal).map_err(|error| (rules::RING_KEYS, format!("store: {error}")))
        });
        match published {
            Ok(()) => {
                self.link.enter(hal, Phase::Established, XenbusState::Connected);
                for port in self.connection.iter().flat_map(Connection::ports) {
                    hal.unmask(port);
                    // A predecessor may have died between an answer and its notification.
                    hal.notify(port);
                }
            }
            Err((rule, what)) => {
                self.refuse(hal, rule, &what);
                self.disconnect(hal);
                self.link.enter(hal, Phase::Closed, XenbusState::Closed);
            }
        }
    }

    fn refuse(&mut self, hal: &mut H, rule: Rule, what: &str) {
        self.refusals.refuse(hal.now_ns(), rule, format_args!("{what}"));
        self.link.report(hal, format_args!("{}: {} ({what})", rule.name, rule.sentence));
    }

    /// Requests in, responses out, for a bounded while.
    fn serve(&mut self, hal: &mut H) -> Progress {
        for _ in 0..MAX_ROUNDS {
            match self.round(hal) {
                Ok(true) => {}
                Ok(false) => return Progress::Idle,
                Err(broken) => {
                    self.refuse(hal, rules::RING_OVERRUN, &format!("{broken}"));
                    self.disconnect(hal);
                    self.link.enter(hal, Phase::Closed, XenbusState::Closed);
                    return Progress::Idle;
                }
            }
        }
        Progress::More
    }

    /// One round. True when another one would find something to do.
    fn round(&mut self, hal: &mut H) -> Result<bool, RingBroken> {
        let limits = self.limits();
        let Some(connection) = &mut self.connection else {
            return Ok(false);
        };
        let finished = self.jobs.finish(hal, &mut self.device, Some(connection), &mut self.refusals);
        take_requests(hal, &limits, connection, &mut self.jobs, (&mut self.refusals, &mut self.counters))?;
        let started = self.jobs.start(hal, &mut self.device, connection, &mut self.refusals);
        connection.publish(hal);
        Ok(connection.rearm()? || finished || started)
    }

    fn disconnect(&mut self, hal: &mut H) {
        self.jobs.abandon(&mut self.device);
        if let Some(connection) = self.connection.take() {
            connection.end(hal);
        }
    }
}

enum Next {
    Step,
    Done(Progress),
}

/// Takes up to a ring full of requests from each ring. What describes the indirect ones is read in one batch.
fn take_requests<H: Hal, B: AsRef<[u8]> + AsMut<[u8]>>(
    hal: &mut H,
    limits: &Limits,
    connection: &mut Connection<H>,
    jobs: &mut Jobs<B>,
    (refusals, counters): (&mut Refusals, &mut Counters),
) -> Result<(), RingBroken> {
    let taken = connection.take_all()?;
    let mut described: Vec<_> = taken.iter().map(|(_, request)| Descriptors::of(limits, request)).collect();
    let mut reads: Vec<_> = described
        .iter_mut()
        .flatten()
        .map(|of| Transfer { pieces: &of.pages, buffer: &mut of.bytes, direction: Direction::FromPeer, failed: None })
        .collect();
    connection.mapped.run(hal, connection.peer, &mut reads);
    let mut failures = reads.iter().map(|read| read.failed).collect::<Vec<_>>().into_iter();
    for ((ticket, request), described) in taken.into_iter().zip(described) {
        let described = described.map(|of| match failures.next().flatten() {
            None => Ok(of.bytes),
            Some((grant, _)) => Err(grant),
        });
        match request::check(limits, ticket, &request, described) {
            Ok(job) => {
                counters.count(&job);
                jobs.add(job);
            }
            Err(refused) => {
                let what = format_args!("request {:#x}, value {:#x}", request.id, refused.value);
                refusals.refuse(hal.now_ns(), refused.rule, what);
                connection.answer(ticket, refused.status());
            }
        }
    }
    Ok(())
}
