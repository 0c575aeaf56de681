//! The back end of a network card.
//!
//! Serves one front end between its rings and a [`NetPort`]. Offers scatter-gather, blank checksums in both directions,
//! and split event channels; receiving is by copy.
//!
//! Source: Xen `public/io/netif.h`.

pub mod bridge;
mod port;
mod receive;
pub mod rules;
mod transmit;

use alloc::format;
use alloc::string::String;

use pv_bus::refusal::{Refusals, Rule};
use pv_bus::ring::BackRing;
use pv_bus::xenbus::{BackStep, Intent, Link, LinkError, Phase, Side, XenbusState, back_step};
use pv_bus::{GrantRef, Hal, Port, StoreError, WatchEvent, store};

pub use port::NetPort;
use receive::Receive;
use transmit::{Fatal, Transmit};

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
    /// Frames of the guest, or for it, that broke a rule.
    pub refused: u64,
    /// Frames that were dropped for want of room, or because this guest cannot take them.
    pub dropped: u64,
}

struct Connection<H: Hal> {
    transmit: Transmit<H>,
    receive: Receive<H>,
}

/// The back end of one network card.
pub struct NetBack<H: Hal> {
    link: Link,
    connection: Option<Connection<H>>,
    refusals: Refusals,
    counters: Counters,
    carrier: bool,
}

impl<H: Hal> NetBack<H> {
    /// Opens the device whose directory is `path`, for instance `/local/domain/0/backend/vif/3/0`.
    ///
    /// # Errors
    /// [`LinkError`] when the toolstack has not made such a device.
    pub fn open(hal: &mut H, path: &str) -> Result<Self, LinkError> {
        let link = Link::open(hal, Side::Back, path)?;
        Ok(Self { link, connection: None, refusals: Refusals::new(path), counters: Counters::default(), carrier: true })
    }

    /// The event channels (transmit, receive), while there are any. They may be one.
    #[must_use]
    pub fn ports(&self) -> Option<(Port, Port)> {
        self.connection.as_ref().map(|connection| (connection.transmit.port, connection.receive.port))
    }

    /// Whether this event channel is this driver's.
    #[must_use]
    pub fn owns(&self, port: Port) -> bool {
        self.ports().is_some_and(|(transmit, receive)| port == transmit || port == receive)
    }

    /// Whether a front end is connected.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        self.connection.is_some()
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
                BackStep::Serve => return self.serve(hal, port),
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
            ("feature-gso-tcpv4", false),
            ("feature-gso-tcpv6", false),
            ("feature-multicast-control", false),
            ("carrier", self.carrier),
        ];
        store::transaction(hal, |hal, open| {
            flags.iter().try_for_each(|(key, value)| self.link.write(hal, open, key, u32::from(*value)))
        })
    }

    fn connect(&mut self, hal: &mut H) {
        match self.try_connect(hal) {
            Ok(connection) => {
                let (transmit, receive) = (connection.transmit.port, connection.receive.port);
                self.connection = Some(connection);
                self.link.enter(hal, Phase::Established, XenbusState::Connected);
                // A predecessor may have died between an answer and its notification.
                hal.unmask(transmit);
                hal.notify(transmit);
                if receive != transmit {
                    hal.unmask(receive);
                    hal.notify(receive);
                }
            }
            Err((rule, what)) => {
                self.refuse(hal, rule, &what);
                self.link.enter(hal, Phase::Closed, XenbusState::Closed);
            }
        }
    }

    fn try_connect(&self, hal: &mut H) -> Result<Connection<H>, (Rule, String)> {
        let link = &self.link;
        if !link.peer_has(hal, "request-rx-copy") {
            return Err((rules::CONNECT_RX_COPY, "request-rx-copy is not 1".into()));
        }
        let queues: u32 = link.read_peer_or(hal, "multi-queue-num-queues", 1);
        if queues != 1 {
            return Err((rules::CONNECT_QUEUES, format!("{queues}")));
        }
        let transmit_ref = self.number(hal, "tx-ring-ref")?;
        let receive_ref = self.number(hal, "rx-ring-ref")?;
        let remote = self.remote_ports(hal)?;
        let grants = [GrantRef(transmit_ref), GrantRef(receive_ref)];
        let mut pages = crate::shared::map_all(hal, link.peer(), &grants)
            .map_err(|(grant, error)| (rules::RING_GRANT, format!("grant {grant}: {error}")))?;
        let (transmit_port, receive_port) = match bind(hal, link, remote) {
            Ok(ports) => ports,
            Err(failure) => {
                hal.unmap_grants(&mut pages);
                return Err(failure);
            }
        };
        let receive_pages = pages.split_off(1);
        let transmit = Transmit { ring: BackRing::attach(pages), port: transmit_port, peer: link.peer() };
        let receive = Receive {
            ring: BackRing::attach(receive_pages),
            port: receive_port,
            peer: link.peer(),
            scatter_gather: link.peer_has(hal, "feature-sg"),
            accepts_blank_checksums: !link.peer_has(hal, "feature-no-csum-offload"),
            held: None,
        };
        Ok(Connection { transmit, receive })
    }

    fn number(&self, hal: &mut H, key: &str) -> Result<u32, (Rule, String)> {
        self.link.read_peer(hal, key).map_err(|error| (rules::CONNECT_KEYS, format!("{key}: {error}")))
    }

    /// The guest's ports: one for each direction, or one for both.
    fn remote_ports(&self, hal: &mut H) -> Result<(Port, Option<Port>), (Rule, String)> {
        match self.number(hal, "event-channel-tx") {
            Ok(transmit) => Ok((Port(transmit), Some(Port(self.number(hal, "event-channel-rx")?)))),
            Err(_) => Ok((Port(self.number(hal, "event-channel")?), None)),
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
        let Some(Connection { transmit, receive }) = &mut self.connection else {
            return Ok(false);
        };
        let sent = transmit.round(hal, port, &mut self.refusals, &mut self.counters)?;
        let received = receive.round(hal, port, &mut self.refusals, &mut self.counters).map_err(Fatal::Ring)?;
        Ok(sent || received)
    }

    fn disconnect_and_close(&mut self, hal: &mut H) {
        self.disconnect(hal);
        self.link.enter(hal, Phase::Closed, XenbusState::Closed);
    }

    fn disconnect(&mut self, hal: &mut H) {
        let Some(Connection { transmit, receive }) = self.connection.take() else {
            return;
        };
        hal.close(transmit.port);
        if receive.port != transmit.port {
            hal.close(receive.port);
        }
        hal.unmap_grants(&mut transmit.ring.into_pages());
        hal.unmap_grants(&mut receive.ring.into_pages());
    }
}

/// Binds the guest's port or ports.
fn bind<H: Hal>(hal: &mut H, link: &Link, remote: (Port, Option<Port>)) -> Result<(Port, Port), (Rule, String)> {
    let refused = |port: Port, error| (rules::EVENT_CHANNEL, format!("port {port}: {error}"));
    let transmit = hal.bind_interdomain(link.peer(), remote.0).map_err(|error| refused(remote.0, error))?;
    let Some(remote_receive) = remote.1 else {
        return Ok((transmit, transmit));
    };
    match hal.bind_interdomain(link.peer(), remote_receive) {
        Ok(receive) => Ok((transmit, receive)),
        Err(error) => {
            hal.close(transmit);
            Err(refused(remote_receive, error))
        }
    }
}
