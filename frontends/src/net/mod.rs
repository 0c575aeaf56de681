//! The front end of a network card.
//!
//! Frames are sent with [`NetFront::transmit`] and taken with [`NetFront::receive`]; [`RxToken`] and [`TxToken`] are the
//! same in the shape that smoltcp's `phy` asks for. With several queues each flow has one of them.
//!
//! Invariants:
//! - Nothing is lost silently: frames that could not be sent or arrived broken are counted.
//! - Frames on the rings when a connection ends are lost, as on a wire that was pulled.
//! - The back end sees pages of this driver only.
//!
//! Source: Xen `public/io/netif.h`.

mod connection;
mod receive;
mod tokens;
mod transmit;

use alloc::collections::VecDeque;
use core::fmt;

use pv_bus::net::{Checksum, Frame};
use pv_bus::ring::RingBroken;
use pv_bus::xenbus::{FrontStep, Intent, Link, LinkError, Phase, Side, XenbusState, front_step};
use pv_bus::{Hal, Port, StoreError, Transaction, WatchEvent, WatchId, store};

use crate::graveyard::Graveyard;
use connection::Connection;

pub use crate::status::Status;
pub use tokens::{RxToken, TxToken};
pub use transmit::TransmitError;

/// Steps of the handshake that one call takes at most.
const MAX_STEPS: usize = 8;

/// What the owner of a front end chooses.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Options {
    /// Use one event channel for each direction, if the back end can.
    pub split_event_channels: bool,
    /// Let the back end send frames whose checksum is blank (it saves the sender the sum).
    pub accept_blank_checksums: bool,
    /// Fill in blank checksums before handing frames out, for stacks that check every frame.
    pub complete_checksums: bool,
    /// Let the back end send oversize frames, if blank checksums are accepted, too, and there are pages for them: 19 a queue.
    pub accept_oversize: bool,
    /// Use at most this many queues, if the back end knows several; at least one.
    pub max_queues: u32,
    /// Pages of each queue that wait for frames, at most 256. With less than 18 no frame is longer than a page.
    pub receive_pages: usize,
    /// Pages of each queue for frames that are being sent, at most 256.
    pub transmit_pages: usize,
    /// Frames that are kept for [`NetFront::receive`]; more wait in the ring.
    pub receive_queue: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            split_event_channels: true,
            accept_blank_checksums: true,
            complete_checksums: true,
            accept_oversize: true,
            max_queues: 1,
            receive_pages: 128,
            transmit_pages: 128,
            receive_queue: 256,
        }
    }
}

/// What happened so far.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Counters {
    /// Frames that came in whole.
    pub received: u64,
    /// Frames that came in broken, and were dropped.
    pub receive_errors: u64,
    /// Ring slots that the back end took.
    pub transmitted_slots: u64,
    /// Ring slots that the back end refused or dropped.
    pub transmit_errors: u64,
}

/// What the back end did that no back end may do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Violation {
    Ring(RingBroken),
    TransmitId(u16),
    ReceiveId(u16),
    ReceiveLength { offset: u16, len: i16 },
    EndlessFrame,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ring(broken) => write!(f, "net.back.ring_index: {broken}"),
            Self::TransmitId(id) => write!(f, "net.back.transmit_id: a response to {id}, which is not on the ring"),
            Self::ReceiveId(id) => {
                write!(f, "net.back.receive_id: a response to {id}, out of order")
            }
            Self::ReceiveLength { offset, len } => {
                write!(f, "net.back.receive_length: {len} bytes at {offset} are more than a page")
            }
            Self::EndlessFrame => f.write_str("net.back.endless_frame: a frame of more than 65535 bytes"),
        }
    }
}

/// The front end of one network card.
pub struct NetFront<H: Hal> {
    link: Link,
    options: Options,
    mac: [u8; 6],
    mtu: usize,
    carrier: bool,
    /// Fires when the back end says something of the wire.
    carrier_watch: Option<WatchId>,
    connection: Option<Connection<H>>,
    grave: Graveyard<H::Page>,
    received: VecDeque<Frame>,
    counters: Counters,
}

impl<H: Hal> NetFront<H> {
    /// Opens the card whose directory is `path`, for instance `device/vif/0`.
    ///
    /// # Errors
    /// [`LinkError`] when the toolstack has not made such a device, or gave it no `mac`.
    pub fn open(hal: &mut H, path: &str, options: Options) -> Result<Self, LinkError> {
        let key = store::join(path, "mac");
        let text = store::read_text(hal, Transaction::NONE, &key);
        let mac = text.and_then(|text| parse_mac(&text).ok_or(StoreError::Invalid));
        let mac = mac.map_err(|error| LinkError { key, error })?;
        let mtu = store::read_number_or(hal, &store::join(path, "mtu"), 1500);
        let link = Link::open(hal, Side::Front, path)?;
        let mut front = Self {
            link,
            options,
            mac,
            mtu,
            carrier: true,
            carrier_watch: None,
            connection: None,
            grave: Graveyard::new(),
            received: VecDeque::new(),
            counters: Counters::default(),
        };
        let carrier = store::join(front.link.peer_path(), "carrier");
        front.carrier_watch = hal.watch(&carrier).ok();
        front.poll(hal);
        Ok(front)
    }

    /// The card's address.
    #[must_use]
    pub fn mac(&self) -> [u8; 6] {
        self.mac
    }

    /// Bytes of payload that a frame carries at most.
    #[must_use]
    pub fn mtu(&self) -> usize {
        self.mtu
    }

    /// How the card is.
    #[must_use]
    pub fn status(&self) -> Status {
        Status::of(self.link.phase(), false)
    }

    /// Whether there is a wire: the back end is connected and says so.
    #[must_use]
    pub fn has_carrier(&self) -> bool {
        self.carrier && self.link.phase() == Phase::Established
    }

    /// What happened so far.
    #[must_use]
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// The event channels (transmit, receive) of each queue. The two may be one.
    pub fn ports(&self) -> impl Iterator<Item = (Port, Port)> {
        self.connection.iter().flat_map(Connection::ports)
    }

    /// Pages that a back end still uses although their connection ended.
    #[must_use]
    pub fn pages_held_by_peer(&self) -> usize {
        self.grave.len()
    }

    /// Takes note of a store event. True when it was this driver's; it has been acted on then.
    pub fn on_watch(&mut self, hal: &mut H, event: &WatchEvent) -> bool {
        if self.carrier_watch == Some(event.watch) {
            self.carrier = self.link.read_peer_or(hal, "carrier", 1_u32) != 0;
            return true;
        }
        let mine = self.link.on_watch(event);
        if mine {
            self.poll(hal);
        }
        mine
    }

    /// Acts on an event. True when the port is this driver's.
    pub fn on_event(&mut self, hal: &mut H, port: Port) -> bool {
        let mine = self.ports().any(|(transmit, receive)| port == transmit || port == receive);
        if mine {
            self.poll(hal);
        }
        mine
    }

    /// Does all that can be done now: the handshake, responses, posting pages.
    pub fn poll(&mut self, hal: &mut H) {
        self.grave.retry(hal);
        self.link.refresh(hal);
        for _ in 0..MAX_STEPS {
            let step = front_step(self.link.phase(), self.link.intent(), self.link.peer_state());
            if !self.take_step(hal, step) {
                break;
            }
        }
    }

    /// Whether a frame of the largest size for this MTU can be sent now.
    #[must_use]
    pub fn can_transmit(&self) -> bool {
        let wanted = (self.mtu + 18).div_ceil(pv_bus::PAGE_SIZE);
        let connection = self.connection.as_ref().filter(|_| self.link.phase() == Phase::Established);
        connection.is_some_and(|connection| connection.room() >= wanted)
    }

    /// The longest frame that can be sent, while connected.
    #[must_use]
    pub fn max_frame_bytes(&self) -> Option<usize> {
        self.connection.as_ref().map(|connection| connection.max_frame_bytes())
    }

    /// Sends a frame: the back end is told at once.
    ///
    /// # Errors
    /// [`TransmitError`]; nothing was sent then.
    pub fn transmit(&mut self, hal: &mut H, frame: &[u8], checksum: Checksum) -> Result<(), TransmitError> {
        self.queue(hal, frame, checksum)?;
        self.kick(hal);
        Ok(())
    }

    /// Puts a frame on the ring without telling the back end; [`kick`](Self::kick) does.
    ///
    /// # Errors
    /// [`TransmitError`]; nothing was sent then.
    pub fn queue(&mut self, hal: &mut H, frame: &[u8], checksum: Checksum) -> Result<(), TransmitError> {
        self.established()?.send(hal, frame, checksum)
    }

    /// As [`queue`](Self::queue), and takes oversize frames: they go to the back end whole if it takes such, else in pieces.
    ///
    /// # Errors
    /// [`TransmitError`]; nothing was sent then.
    pub fn queue_frame(&mut self, hal: &mut H, frame: Frame) -> Result<(), TransmitError> {
        self.established()?.send_frame(hal, frame)
    }

    fn established(&mut self) -> Result<&mut Connection<H>, TransmitError> {
        let connection = self.connection.as_mut().filter(|_| self.link.phase() == Phase::Established);
        connection.ok_or(TransmitError::NotReady)
    }

    /// Tells the back end of queued frames.
    pub fn kick(&mut self, hal: &mut H) {
        if let Some(connection) = &mut self.connection {
            connection.publish_frames(hal);
        }
    }

    /// Takes the next frame that came in. Take until there is none: only then does the next frame cause an event.
    pub fn receive(&mut self, hal: &mut H) -> Option<Frame> {
        if self.received.is_empty() {
            self.process(hal);
        }
        self.received.pop_front()
    }

    /// The domain has come to a new host: the back end is another one. Frames that were on their way are lost, as frames may be.
    ///
    /// # Errors
    /// [`LinkError`] when there is no such card there.
    pub fn resume(&mut self, hal: &mut H) -> Result<(), LinkError> {
        self.disconnect(hal);
        self.grave.retry(hal);
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
        self.grave.retry(hal);
        if let Some(watch) = self.carrier_watch {
            hal.unwatch(watch);
        }
        self.link.release(hal);
    }

    /// Takes one step of the handshake. False when there is nothing more to do now.
    fn take_step(&mut self, hal: &mut H, step: FrontStep) -> bool {
        match step {
            FrontStep::Wait => {
                self.process(hal);
                return false;
            }
            FrontStep::Offer => return self.offer(hal),
            FrontStep::Connect => self.link.advance(Phase::Established),
            FrontStep::Serve | FrontStep::Pause => {
                self.process(hal);
                return false;
            }
            FrontStep::Finish => {
                self.process(hal);
                self.disconnect(hal);
                let asked = self.link.peer_state() == XenbusState::Closing;
                match asked {
                    true => self.link.enter(hal, Phase::Closed, XenbusState::Closed),
                    false => self.link.enter(hal, Phase::Leaving, XenbusState::Closing),
                }
            }
            FrontStep::Disconnect => {
                self.disconnect(hal);
                self.link.enter(hal, Phase::Closed, XenbusState::Closed);
            }
            FrontStep::Evict => self.link.set_intent(Intent::Restart),
            FrontStep::Enter(phase) => self.link.enter(hal, phase, phase.front_state(true)),
        }
        true
    }

    fn offer(&mut self, hal: &mut H) -> bool {
        if !self.link.peer_has(hal, "feature-rx-copy") {
            self.link.report(hal, format_args!("net.front.no_rx_copy: the back end cannot copy received frames"));
            return false;
        }
        match Connection::open(hal, &mut self.grave, &self.link, &self.options) {
            Ok(connection) => {
                self.connection = Some(connection);
                self.link.enter(hal, Phase::Offered, XenbusState::Connected);
                true
            }
            Err(reason) => {
                self.link.report(hal, format_args!("net.front.no_offer: {reason}"));
                false
            }
        }
    }

    fn process(&mut self, hal: &mut H) {
        let Some(connection) = &mut self.connection else {
            return;
        };
        let before = self.received.len();
        let most = self.options.receive_queue.max(1);
        let collected = connection.process(hal, &mut self.received, most, &mut self.counters);
        if self.options.complete_checksums {
            self.received.iter_mut().skip(before).for_each(complete);
        }
        if let Err(violation) = collected {
            self.break_off(hal, violation);
        }
    }

    fn break_off(&mut self, hal: &mut H, violation: Violation) {
        self.link.report(hal, format_args!("{violation}"));
        self.disconnect(hal);
        self.link.set_intent(Intent::Leave);
        self.link.enter(hal, Phase::Closed, XenbusState::Closed);
    }

    fn disconnect(&mut self, hal: &mut H) {
        if let Some(connection) = self.connection.take() {
            connection.end(hal, &mut self.grave);
        }
    }
}

/// A frame whose checksum cannot be filled in is handed out as it is: the stack will drop it.
fn complete(frame: &mut Frame) {
    if let Err(error) = frame.complete_checksum() {
        log::debug!("net.front.blank_checksum: {error}");
    }
}

fn parse_mac(text: &str) -> Option<[u8; 6]> {
    let mut mac = [0; 6];
    let mut parts = text.trim().split(':');
    for byte in &mut mac {
        *byte = u8::from_str_radix(parts.next()?, 16).ok()?;
    }
    parts.next().is_none().then_some(mac)
}

#[cfg(test)]
mod tests {
    use super::parse_mac;

    #[test]
    fn an_address_has_six_bytes() {
        assert_eq!(parse_mac("00:16:3e:12:34:Ab"), Some([0, 0x16, 0x3e, 0x12, 0x34, 0xab]));
        for wrong in ["", "00:16:3e:12:34", "00:16:3e:12:34:56:78", "00:16:3e:12:34:zz", "0016:3e:12:34:56"] {
            assert_eq!(parse_mac(wrong), None, "{wrong}");
        }
    }
}
