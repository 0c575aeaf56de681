//! The queues of a connection, each of a ring for either direction.
//!
//! Frames of one flow take one queue, so that they stay in order; those that come are taken from all queues in turn.

use alloc::borrow::Cow;
use alloc::collections::VecDeque;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use pv_bus::net::{Checksum, Frame, MAX_SLOTS, Oversize, flow};
use pv_bus::segment::{self, MIN_SEGMENT_BYTES};
use pv_bus::xenbus::Link;
use pv_bus::{Hal, PAGE_SIZE, Port, Store, StoreError, Transaction, store};

use super::receive::Receive;
use super::transmit::Transmit;
use super::{Counters, Options, TransmitError, Violation};
use crate::graveyard::Graveyard;
use crate::shared::{ignore_missing, queue_folder, share_pages, write_queue_count};

/// What a back end takes, and how it wants to be told.
#[derive(Clone, Copy, Debug)]
pub(super) struct Takes {
    pub(super) scatter_gather: bool,
    split_event_channels: bool,
    queues: u32,
    /// Frames whose checksum is blank, over IPv4 and over IPv6.
    blank_checksums: [bool; 2],
    /// Oversize ones, over IPv4 and over IPv6.
    oversize: [bool; 2],
}

impl Takes {
    /// Reads what the back end offers.
    pub(super) fn read<S: Store>(store: &mut S, link: &Link) -> Self {
        let mut has = |key: &str| link.peer_has(store, key);
        let scatter_gather = has("feature-sg");
        Self {
            scatter_gather,
            split_event_channels: has("feature-split-event-channels"),
            blank_checksums: [!has("feature-no-csum-offload"), has("feature-ipv6-csum-offload")],
            oversize: ["feature-gso-tcpv4", "feature-gso-tcpv6"].map(|key| scatter_gather && has(key)),
            queues: link.read_peer_or(store, "multi-queue-max-queues", 1),
        }
    }
}

struct Queue<H: Hal> {
    transmit: Transmit<H>,
    receive: Receive<H>,
}

/// The queues that a back end serves.
pub(super) struct Connection<H: Hal> {
    queues: Vec<Queue<H>>,
    takes: Takes,
    /// The queue whose frames are taken first.
    turn: usize,
}

impl<H: Hal> Connection<H> {
    /// Makes the queues that both sides can, shows them in the store, and lets their event channels fire.
    pub(super) fn open(
        hal: &mut H,
        grave: &mut Graveyard<H::Page>,
        link: &Link,
        options: &Options,
    ) -> Result<Self, String> {
        let takes = Takes::read(hal, link);
        let mut connection = Self { queues: Vec::new(), takes, turn: 0 };
        for _ in 0..takes.queues.min(options.max_queues).max(1) {
            match Queue::make(hal, grave, link, options, takes) {
                Ok(queue) => connection.queues.push(queue),
                Err(reason) => {
                    connection.end(hal, grave);
                    return Err(reason);
                }
            }
        }
        if let Err(error) = connection.publish(hal, link, options) {
            connection.end(hal, grave);
            return Err(format!("store: {error}"));
        }
        for (transmit, receive) in connection.ports() {
            hal.unmask(transmit);
            if receive != transmit {
                hal.unmask(receive);
            }
        }
        Ok(connection)
    }

    /// The event channels (transmit, receive) of each queue. The two may be one.
    pub(super) fn ports(&self) -> impl Iterator<Item = (Port, Port)> {
        self.queues.iter().map(|queue| (queue.transmit.port, queue.receive.port))
    }

    /// Slots that are free on every queue.
    pub(super) fn room(&self) -> usize {
        self.queues.iter().map(|queue| queue.transmit.room()).min().unwrap_or(0)
    }

    /// The longest frame that can be sent.
    pub(super) fn max_frame_bytes(&self) -> usize {
        self.queues.iter().map(|queue| queue.transmit.max_frame_bytes()).min().unwrap_or(0)
    }

    /// Puts a frame on the ring of its flow; [`publish_frames`](Self::publish_frames) shows it.
    pub(super) fn send(&mut self, hal: &mut H, bytes: &[u8], checksum: Checksum) -> Result<(), TransmitError> {
        let mut bytes = Cow::Borrowed(bytes);
        let mut checksum = checksum;
        if checksum == Checksum::Blank && !self.takes.blank_checksums[usize::from(is_ipv6(&bytes))] {
            pv_bus::checksum::complete(bytes.to_mut()).map_err(|_| TransmitError::NotTransport)?;
            checksum = Checksum::Validated;
        }
        self.queue_of(&bytes).send(hal, &bytes, checksum, None)
    }

    /// As [`send`](Self::send); cuts an oversize frame for a back end that takes none.
    pub(super) fn send_frame(&mut self, hal: &mut H, frame: Frame) -> Result<(), TransmitError> {
        let Some(oversize) = frame.oversize else {
            return self.send(hal, &frame.bytes, frame.checksum);
        };
        if frame.checksum != Checksum::Blank || oversize.segment_bytes < MIN_SEGMENT_BYTES {
            return Err(TransmitError::NotTransport);
        }
        if self.takes_oversize(oversize) && frame.bytes.len() <= self.max_frame_bytes() {
            return self.queue_of(&frame.bytes).send(hal, &frame.bytes, Checksum::Blank, Some(oversize));
        }
        let pieces = segment::cut(frame).map_err(|_| TransmitError::NotTransport)?;
        let slots = pieces.iter().map(|piece| piece.bytes.len().div_ceil(PAGE_SIZE)).sum();
        let longest = pieces.iter().map(|piece| piece.bytes.len()).max().unwrap_or(0);
        let most = self.max_frame_bytes();
        // Flags and numbers apart, the pieces have one header: all go to one queue.
        let queue = self.queue_of(&pieces[0].bytes);
        match (longest > most, queue.room() < slots) {
            (true, _) => Err(TransmitError::BadLength),
            (_, true) => Err(TransmitError::Full),
            _ => pieces.iter().try_for_each(|piece| queue.send(hal, &piece.bytes, piece.checksum, None)),
        }
    }

    fn takes_oversize(&self, oversize: Oversize) -> bool {
        self.takes.oversize[usize::from(oversize.ipv6)]
    }

    fn queue_of(&mut self, bytes: &[u8]) -> &mut Transmit<H> {
        let count = self.queues.len();
        &mut self.queues[flow(bytes) as usize % count].transmit
    }

    /// Tells the back end of the frames that were put on the rings.
    pub(super) fn publish_frames(&mut self, hal: &mut H) {
        self.queues.iter_mut().for_each(|queue| queue.transmit.publish(hal));
    }

    /// Takes responses and frames, while there are fewer than `most`, and posts the pages again.
    pub(super) fn process(
        &mut self,
        hal: &mut H,
        frames: &mut VecDeque<Frame>,
        most: usize,
        counters: &mut Counters,
    ) -> Result<(), Violation> {
        let count = self.queues.len();
        self.turn = (self.turn + 1) % count;
        for number in 0..count {
            let queue = &mut self.queues[(self.turn + number) % count];
            let collected =
                queue.transmit.collect(counters).and_then(|()| queue.receive.collect(frames, most, counters));
            queue.receive.post(hal);
            collected?;
        }
        Ok(())
    }

    /// Takes everything back.
    pub(super) fn end(self, hal: &mut H, grave: &mut Graveyard<H::Page>) {
        for Queue { transmit, receive } in self.queues {
            close_ports(hal, (transmit.port, receive.port));
            transmit.end(hal, grave);
            receive.end(hal, grave);
        }
    }

    fn publish(&self, hal: &mut H, link: &Link, options: &Options) -> Result<(), StoreError> {
        store::transaction(hal, |hal, open| {
            let count = write_queue_count(hal, link, open, self.queues.len())?;
            for (number, queue) in self.queues.iter().enumerate() {
                queue.publish(hal, link, open, &queue_folder(count, number))?;
            }
            let blank = options.accept_blank_checksums;
            // A frame that no queue has the pages for would wait for ever.
            let scatter_gather = options.receive_pages >= MAX_SLOTS;
            let oversize = options.accept_oversize && blank && options.receive_pages > MAX_SLOTS;
            let flags = [
                ("request-rx-copy", true),
                ("feature-rx-notify", true),
                ("feature-sg", scatter_gather),
                ("feature-no-csum-offload", !blank),
                ("feature-ipv6-csum-offload", blank),
                ("feature-gso-tcpv4", oversize),
                ("feature-gso-tcpv6", oversize),
            ];
            flags.iter().try_for_each(|(key, value)| link.write(hal, open, key, u32::from(*value)))
        })
    }
}

impl<H: Hal> Queue<H> {
    fn make(
        hal: &mut H,
        grave: &mut Graveyard<H::Page>,
        link: &Link,
        options: &Options,
        takes: Takes,
    ) -> Result<Self, String> {
        let peer = link.peer();
        let ports = open_ports(hal, link, options.split_event_channels && takes.split_event_channels)?;
        let shared = share_pages(hal, grave, peer, 2);
        let (mut pages, mut grants) = shared.map_err(|error| {
            close_ports(hal, ports);
            format!("ring: {error}")
        })?;
        let (receive_page, receive_grant) = (pages.split_off(1), grants.split_off(1));
        let transmit = Transmit::new(pages, grants, ports.0, peer, options.transmit_pages, takes.scatter_gather);
        let mut receive = Receive::new(receive_page, receive_grant, ports.1, peer, options.receive_pages);
        receive.post(hal);
        Ok(Self { transmit, receive })
    }

    fn publish(&self, hal: &mut H, link: &Link, open: Transaction, folder: &str) -> Result<(), StoreError> {
        let (transmit, receive) = (self.transmit.port, self.receive.port);
        link.write(hal, open, &format!("{folder}tx-ring-ref"), self.transmit.ring_grant().0)?;
        link.write(hal, open, &format!("{folder}rx-ring-ref"), self.receive.ring_grant().0)?;
        let (written, stale): (&[(&str, Port)], &[&str]) = if transmit == receive {
            (&[("event-channel", transmit)], &["event-channel-tx", "event-channel-rx"])
        } else {
            (&[("event-channel-tx", transmit), ("event-channel-rx", receive)], &["event-channel"])
        };
        for (key, port) in written {
            link.write(hal, open, &format!("{folder}{key}"), port.0)?;
        }
        for key in stale {
            hal.rm(open, &store::join(link.path(), &format!("{folder}{key}"))).or_else(ignore_missing)?;
        }
        Ok(())
    }
}

/// One event channel for both directions, or one for each.
fn open_ports<H: Hal>(hal: &mut H, link: &Link, split: bool) -> Result<(Port, Port), String> {
    let transmit = hal.alloc_unbound(link.peer()).map_err(|error| format!("{error}"))?;
    if !split {
        return Ok((transmit, transmit));
    }
    match hal.alloc_unbound(link.peer()) {
        Ok(receive) => Ok((transmit, receive)),
        Err(error) => {
            hal.close(transmit);
            Err(format!("{error}"))
        }
    }
}

fn close_ports<H: Hal>(hal: &mut H, (transmit, receive): (Port, Port)) {
    hal.close(transmit);
    if receive != transmit {
        hal.close(receive);
    }
}

fn is_ipv6(frame: &[u8]) -> bool {
    frame.get(12..14) == Some(&[0x86, 0xdd])
}
