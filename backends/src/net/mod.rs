//! The back end of a network card.
//!
//! Serves one front end between its rings and a [`NetPort`]. Offers scatter-gather, blank checksums and oversize frames
//! in both directions, several queues, control of multicast, and split event channels; receiving is by copy.
//!
//! Frames to a guest with several queues are spread by flow: what belongs together stays in order.
//!
//! Source: Xen `public/io/netif.h`.

pub mod bridge;
mod connection;
mod groups;
mod port;
mod receive;
pub mod rules;
mod transmit;

use alloc::format;

use pv_bus::refusal::{Refusals, Rule};
use pv_bus::xenbus::{BackStep, Intent, Link, LinkError, Phase, Side, XenbusState, back_step};
use pv_bus::{Hal, Port, StoreError, WatchEvent, store};

use connection::Connection;
pub use port::NetPort;
use transmit::Fatal;

use crate::Progress;

/// Steps of the handshake, and rounds of work, that one call takes at most.
const MAX_STEPS: usize = 8;
const MAX_ROUNDS: usize = 2;
/// Frames that one call throws away while no guest is connected.
const MAX_DISCARDED: usize = 1024;

/// What happened so far.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Counters {
    /// Frames that the guest sent.
    pub from_guest: u64,
    /// Frames that the guest got.
    pub to_guest: u64,
    /// Bytes of what the guest sent.
    pub from_guest_bytes: u64,
    /// Bytes of what the guest got.
    pub to_guest_bytes: u64,
    /// Frames of the guest, or for it, that broke a rule.
    pub refused: u64,
    /// Frames that were dropped for want of room, or because this guest cannot take them.
    pub dropped: u64,
}

/// The back end of one network card.
pub struct NetBack<H: Hal> {
    link: Link,
    connection: Option<Connection<H>>,
    refusals: Refusals,
    counters: Counters,
    carrier: bool,
    max_queues: u32,
    pause_ns: u64,
    next_look_ns: Option<u64>,
}

impl<H: Hal> NetBack<H> {
    /// Opens the device whose directory is `path`, for instance `/local/domain/0/backend/vif/3/0`, and offers up to
    /// `max_queues` queues, at least one.
    ///
    /// # Errors
    /// [`LinkError`] when the toolstack has not made such a device.
    pub fn open(hal: &mut H, path: &str, max_queues: u32) -> Result<Self, LinkError> {
        let link = Link::open(hal, Side::Back, path)?;
        let refusals = Refusals::new(path);
        Ok(Self {
            link,
            connection: None,
            refusals,
            counters: Counters::default(),
            carrier: true,
            max_queues,
            pause_ns: 0,
            next_look_ns: None,
        })
    }

    /// From the next connection on, a guest that sends many frames in a row is not asked to tell of each: its rings are looked
    /// at with pauses so long. Call [`poll`](Self::poll) at [`next_look_ns`](Self::next_look_ns) then.
    #[must_use]
    pub fn with_pauses(self, pause_ns: u64) -> Self {
        Self { pause_ns, ..self }
    }

    /// When [`poll`](Self::poll) is to be called though no event channel fires.
    #[must_use]
    pub fn next_look_ns(&self) -> Option<u64> {
        self.next_look_ns
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

    /// Whether frames of the guest may wait on its rings for want of room in the port: call [`poll`](Self::poll) when it
    /// has some again.
    #[must_use]
    pub fn is_held_up(&self) -> bool {
        self.connection.as_ref().is_some_and(|connection| connection.held_up)
    }

    /// Whether the device is closed: its directory may be removed.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.link.phase() == Phase::Closed
    }

    /// What was refused so far.
    #[must_use]
    pub fn refusals(&self) -> &Refusals {
        &self.refusals
    }

    /// What happened so far.
    #[must_use]
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// Takes note of a store event. True when it was this driver's: [`poll`](Self::poll) acts on it.
    pub fn on_watch(&mut self, event: &WatchEvent) -> bool {
        self.link.on_watch(event)
    }

    /// Tells the guest whether there is a wire.
    pub fn set_carrier(&mut self, hal: &mut H, carrier: bool) {
        self.carrier = carrier;
        if let Err(error) = self.link.write(hal, pv_bus::Transaction::NONE, "carrier", u32::from(carrier)) {
            log::warn!("{}: store.carrier_not_written: {error}", self.link.path());
        }
    }

    /// Does what can be done now: the handshake, frames from the guest, frames from `port`. Call it when one of its
    /// event channels fired, when its watch fired, and when `port` has something; and again soon when it answers
    /// [`Progress::More`].
    pub fn poll(&mut self, hal: &mut H, port: &mut impl NetPort) -> Progress {
        self.next_look_ns = None;
        self.link.refresh(hal);
        for _ in 0..MAX_STEPS {
            match back_step(self.link.phase(), self.link.intent(), self.link.peer_state()) {
                BackStep::Wait => {
                    self.discard(port);
                    return Progress::Idle;
                }
                BackStep::Publish => {
                    if !self.publish(hal) {
                        return Progress::Idle;
                    }
                }
                BackStep::Connect => self.connect(hal),
                BackStep::Serve => {
                    let progress = self.serve(hal, port);
                    self.next_look_ns = self.connection.as_ref().and_then(Connection::next_look_ns);
                    return progress;
                }
                BackStep::Disconnect => self.disconnect_and_close(hal),
                BackStep::Enter(phase) => self.link.enter(hal, phase, phase.back_state()),
            }
        }
        Progress::More
    }

    /// Starts to close the device for good. [`is_closed`](Self::is_closed) says when it is done.
    pub fn close(&mut self, hal: &mut H, port: &mut impl NetPort) {
        self.link.set_intent(Intent::Leave);
        self.poll(hal, port);
    }

    /// Gives everything back.
    pub fn release(mut self, hal: &mut H) {
        self.disconnect(hal);
        self.link.release(hal);
    }

    /// Nobody is there to take frames: they are lost, as on a wire that was pulled.
    fn discard(&mut self, port: &mut impl NetPort) {
        for _ in 0..MAX_DISCARDED {
            if port.receive().is_none() {
                break;
            }
            self.counters.dropped += 1;
        }
    }

    fn publish(&mut self, hal: &mut H) -> bool {
        match self.publish_features(hal) {
            Ok(()) => {
                self.link.enter(hal, Phase::Offered, XenbusState::InitWait);
                true
            }
            Err(error) => {
                log::warn!("{}: net.back.not_published: {error}", self.link.path());
                false
            }
        }
    }

    fn publish_features(&self, hal: &mut H) -> Result<(), StoreError> {
        let flags = [
            ("feature-rx-copy", true),
            ("feature-rx-flip", false),
            ("feature-sg", true),
            ("feature-split-event-channels", true),
            ("feature-no-csum-offload", false),
            ("feature-ipv6-csum-offload", true),
            ("feature-gso-tcpv4", true),
            ("feature-gso-tcpv6", true),
            ("feature-multicast-control", true),
            ("feature-ctrl-ring", false),
            ("carrier", self.carrier),
        ];
        store::transaction(hal, |hal, open| {
            self.link.write(hal, open, "multi-queue-max-queues", self.max_queues.max(1))?;
            flags.iter().try_for_each(|(key, value)| self.link.write(hal, open, key, u32::from(*value)))
        })
    }

    fn connect(&mut self, hal: &mut H) {
        if self.link.read_peer_text(hal, "ctrl-ring-ref").is_ok() {
            self.refuse(hal, rules::CONTROL_RING, "ctrl-ring-ref is not read");
        }
        match Connection::open(hal, &self.link, self.max_queues, self.pause_ns) {
            Ok(connection) => {
                self.link.enter(hal, Phase::Established, XenbusState::Connected);
                for port in connection.ports() {
                    hal.unmask(port);
                    // A predecessor may have died between an answer and its notification.
                    hal.notify(port);
                }
                self.connection = Some(connection);
            }
            Err((rule, what)) => {
                self.refuse(hal, rule, &what);
                self.link.enter(hal, Phase::Closed, XenbusState::Closed);
            }
        }
    }

    fn refuse(&mut self, hal: &mut H, rule: Rule, what: &str) {
        self.refusals.refuse(hal.now_ns(), rule, format_args!("{what}"));
        self.link.report(hal, format_args!("{}: {} ({what})", rule.name, rule.sentence));
    }

    fn serve(&mut self, hal: &mut H, port: &mut impl NetPort) -> Progress {
        for _ in 0..MAX_ROUNDS {
            match self.round(hal, port) {
                Ok(true) => {}
                Ok(false) => return Progress::Idle,
                Err(fatal) => {
                    match fatal {
                        Fatal::Ring(broken) => self.refuse(hal, rules::RING_OVERRUN, &format!("{broken}")),
                        Fatal::Rule(rule, value) => self.refuse(hal, rule, &format!("value {value:#x}")),
                    }
                    self.disconnect_and_close(hal);
                    return Progress::Idle;
                }
            }
        }
        Progress::More
    }

    fn round(&mut self, hal: &mut H, port: &mut impl NetPort) -> Result<bool, Fatal> {
        match &mut self.connection {
            Some(connection) => connection.round(hal, port, &mut self.refusals, &mut self.counters),
            None => Ok(false),
        }
    }

    fn disconnect_and_close(&mut self, hal: &mut H) {
        self.disconnect(hal);
        self.link.enter(hal, Phase::Closed, XenbusState::Closed);
    }

    fn disconnect(&mut self, hal: &mut H) {
        if let Some(connection) = self.connection.take() {
            connection.end(hal);
        }
    }
}
