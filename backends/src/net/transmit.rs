//! Frames from the guest.
//!
//! Slots are taken from the ring one by one, each as a private copy, and put together to a [`Packet`] that is safe to
//! copy, or a refusal. All packets of a round are copied in one batch.
//!
//! Invariants:
//! - Every slot that was taken is answered exactly once.
//! - A round takes one ring full of slots at most.
//! - Whoever is not told of the next frame has promised to look by itself ([`Pace`]).

use alloc::vec;
use alloc::vec::Vec;

use pv_abi::io::netif::{
    NETIF_RSP_DROPPED, NETIF_RSP_ERROR, NETIF_RSP_NULL, NETIF_RSP_OKAY, NETTXF_EXTRA_INFO, NETTXF_MORE_DATA,
    NetifTxRequest, NetifTxResponse, XEN_NETIF_EXTRA_TYPE_MAX,
};
use pv_bus::checksum::ChecksumError;
use pv_bus::net::{Checksum, EXTRA_BYTES, Extra, Frame, MAX_SLOTS, MIN_FRAME_BYTES, Oversize};
use pv_bus::refusal::{Refusals, Rule};
use pv_bus::ring::{BackRing, RingBroken};
use pv_bus::segment::{self, MIN_SEGMENT_BYTES};
use pv_bus::{DomId, GrantCopy, GrantRef, Hal, PAGE_SIZE, Port};
use zerocopy::IntoBytes;

use super::groups::Groups;
use super::port::NetPort;
use super::{Counters, rules};

pub(super) struct Transmit<H: Hal> {
    pub(super) ring: BackRing<H::Mapping, NetifTxRequest, NetifTxResponse>,
    pub(super) port: Port,
    pub(super) peer: DomId,
    pub(super) pace: Pace,
}

/// Frames that come closer together than this come in a row.
const CLOSE_NS: u64 = 400_000;

/// When the ring is looked at. A guest that sends one frame has it noticed at once; one that sends many in a row is not
/// asked to tell of each: the ring is looked at after a pause, and what has gathered is taken together.
#[derive(Default)]
pub(super) struct Pace {
    /// How long a pause is; 0 for none.
    pub(super) pause_ns: u64,
    /// When frames were found last.
    found_ns: u64,
    /// When to look again.
    pub(super) next_look_ns: Option<u64>,
}

impl Pace {
    /// Takes note of what a round has found; says whether the guest is to tell of its next frame.
    fn after_round(&mut self, now_ns: u64, found: usize) -> bool {
        let close = now_ns.saturating_sub(self.found_ns) < CLOSE_NS;
        if found > 0 {
            self.found_ns = now_ns;
            let pauses = self.pause_ns > 0 && (close || found > 1);
            self.next_look_ns = pauses.then_some(now_ns + self.pause_ns);
        } else if self.next_look_ns.is_some_and(|at| now_ns >= at) {
            self.next_look_ns = None;
        }
        self.next_look_ns.is_none()
    }
}

/// The front end broke a rule that leaves no way to go on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Fatal {
    Ring(RingBroken),
    Rule(Rule, u64),
}

/// Bytes within one granted page.
struct Piece {
    grant: GrantRef,
    offset: usize,
    len_bytes: usize,
}

/// The slots of one frame.
#[derive(Default)]
struct Slots {
    data: Vec<NetifTxRequest>,
    /// Ids to be answered, and whether the slot held extra information.
    ids: Vec<(u16, bool)>,
    extras: Vec<Extra>,
}

/// A frame that is safe to copy.
struct Packet {
    ids: Vec<(u16, bool)>,
    pieces: Vec<Piece>,
    bytes: Vec<u8>,
    checksum: Checksum,
    oversize: Option<Oversize>,
    failed: Option<GrantRef>,
}

impl<H: Hal> Transmit<H> {
    /// Takes a round of frames to `port`. True when there was something.
    pub(super) fn round(
        &mut self,
        hal: &mut H,
        port: &mut impl NetPort,
        groups: &mut Groups,
        refusals: &mut Refusals,
        counters: &mut Counters,
    ) -> Result<bool, Fatal> {
        let mut packets = Vec::new();
        let mut left = self.ring.entries();
        while left > 0 {
            let before = self.ring.in_flight();
            let Some(slots) = self.take_slots()? else {
                break;
            };
            left = left.saturating_sub(self.ring.in_flight() - before);
            match groups.change(&slots.extras) {
                // What asks for a group is no frame.
                Ok(true) => {
                    self.answer(&slots.ids, NETIF_RSP_OKAY);
                    continue;
                }
                Ok(false) => {}
                Err((rule, value)) => {
                    refusals.refuse(hal.now_ns(), rule, format_args!("value {value:#x}"));
                    self.answer(&slots.ids, NETIF_RSP_ERROR);
                    continue;
                }
            }
            match check(&slots) {
                Ok(packet) => packets.push(packet),
                Err((rule, value)) => {
                    refusals.refuse(hal.now_ns(), rule, format_args!("value {value:#x}"));
                    counters.refused += 1;
                    self.answer(&slots.ids, NETIF_RSP_ERROR);
                }
            }
        }
        let found = packets.len();
        self.copy(hal, &mut packets);
        for packet in packets {
            self.deliver(hal, port, refusals, counters, packet);
        }
        if self.ring.publish() {
            hal.notify(self.port);
        }
        if !self.pace.after_round(hal.now_ns(), found) {
            return Ok(false);
        }
        Ok(self.ring.rearm().map_err(Fatal::Ring)? || found > 0)
    }

    /// All slots of the next frame.
    fn take_slots(&mut self) -> Result<Option<Slots>, Fatal> {
        let Some(first) = self.ring.take().map_err(Fatal::Ring)? else {
            return Ok(None);
        };
        let mut slots = Slots::default();
        let mut more = first.flags & NETTXF_MORE_DATA != 0;
        let mut extra = first.flags & NETTXF_EXTRA_INFO != 0;
        slots.ids.push((first.id, false));
        slots.data.push(first);
        while extra {
            let slot = self.take_next()?;
            let bytes = slot.as_bytes().first_chunk::<EXTRA_BYTES>().copied().unwrap_or_default();
            if bytes[0] == 0 || bytes[0] >= XEN_NETIF_EXTRA_TYPE_MAX {
                return Err(Fatal::Rule(rules::TX_EXTRA_TYPE, u64::from(bytes[0])));
            }
            let (decoded, follows) = Extra::decode(bytes);
            slots.extras.push(decoded);
            slots.ids.push((slot.id, true));
            extra = follows;
        }
        while more {
            let slot = self.take_next()?;
            more = slot.flags & NETTXF_MORE_DATA != 0;
            slots.ids.push((slot.id, false));
            slots.data.push(slot);
        }
        Ok(Some(slots))
    }

    fn take_next(&mut self) -> Result<NetifTxRequest, Fatal> {
        let slot = self.ring.take().map_err(Fatal::Ring)?;
        slot.ok_or(Fatal::Rule(rules::TX_UNFINISHED, u64::from(self.ring.in_flight())))
    }

    fn copy(&mut self, hal: &mut H, packets: &mut [Packet]) {
        let mut batch = Vec::new();
        let mut owners = Vec::new();
        for (owner, packet) in packets.iter_mut().enumerate() {
            let mut rest = packet.bytes.as_mut_slice();
            for piece in &packet.pieces {
                let (into, after) = rest.split_at_mut(piece.len_bytes);
                rest = after;
                batch.push(GrantCopy::from_peer(piece.grant, piece.offset, into));
                owners.push(owner);
            }
        }
        if batch.is_empty() {
            return;
        }
        hal.copy_grants(self.peer, &mut batch);
        let results: Vec<_> = batch.iter().map(|copy| (copy.grant, copy.result)).collect();
        for (owner, (grant, result)) in owners.into_iter().zip(results) {
            if result.is_err() {
                packets[owner].failed.get_or_insert(grant);
            }
        }
    }

    fn deliver(
        &mut self,
        hal: &mut H,
        port: &mut impl NetPort,
        refusals: &mut Refusals,
        counters: &mut Counters,
        packet: Packet,
    ) {
        if let Some(grant) = packet.failed {
            refusals.refuse(hal.now_ns(), rules::TX_GRANT, format_args!("grant {grant}"));
            counters.refused += 1;
            return self.answer(&packet.ids, NETIF_RSP_ERROR);
        }
        let frame = Frame { bytes: packet.bytes, checksum: packet.checksum, oversize: packet.oversize };
        let frames = match fit(frame, port) {
            Ok(frames) => frames,
            Err((rule, error)) => {
                refusals.refuse(hal.now_ns(), rule, format_args!("{error}"));
                counters.refused += 1;
                return self.answer(&packet.ids, NETIF_RSP_ERROR);
            }
        };
        let mut taken = true;
        for frame in frames {
            counters.from_guest += 1;
            counters.from_guest_bytes += frame.bytes.len() as u64;
            let one = port.transmit(frame);
            counters.dropped += u64::from(!one);
            taken &= one;
        }
        self.answer(&packet.ids, if taken { NETIF_RSP_OKAY } else { NETIF_RSP_DROPPED });
    }

    fn answer(&mut self, ids: &[(u16, bool)], code: i16) {
        for (id, is_extra) in ids {
            let status = if *is_extra { NETIF_RSP_NULL } else { code };
            if !self.ring.push(&NetifTxResponse { id: *id, status }) {
                log::error!("net.back.response_without_request: {id}");
            }
        }
    }
}

/// The frame as the port takes it.
fn fit(mut frame: Frame, port: &impl NetPort) -> Result<Vec<Frame>, (Rule, ChecksumError)> {
    if !port.accepts_oversize() {
        return segment::cut(frame).map_err(|error| (rules::TX_OVERSIZE, error)).and_then(|mut frames| {
            if !port.accepts_blank_checksums() {
                frames
                    .iter_mut()
                    .try_for_each(Frame::complete_checksum)
                    .map_err(|error| (rules::TX_CHECKSUM, error))?;
            }
            Ok(frames)
        });
    }
    if !port.accepts_blank_checksums() {
        frame.complete_checksum().map_err(|error| (rules::TX_CHECKSUM, error))?;
    }
    Ok(vec![frame])
}

/// What extra information says of the frame.
fn oversize(slots: &Slots, first: &NetifTxRequest) -> Result<Option<Oversize>, (Rule, u64)> {
    match slots.extras[..] {
        [] => Ok(None),
        [Extra::Oversize(oversize)] => {
            let blank = Checksum::from_transmit_flags(first.flags) == Checksum::Blank;
            if oversize.segment_bytes < MIN_SEGMENT_BYTES || !blank {
                return Err((rules::TX_OVERSIZE, u64::from(oversize.segment_bytes)));
            }
            Ok(Some(oversize))
        }
        [extra, ..] => {
            let [kind, ..] = extra.encode();
            Err((rules::TX_EXTRA_NOT_OFFERED, u64::from(kind)))
        }
    }
}

fn check(slots: &Slots) -> Result<Packet, (Rule, u64)> {
    if slots.data.len() > MAX_SLOTS {
        return Err((rules::TX_SLOTS, slots.data.len() as u64));
    }
    let Some((first, rest)) = slots.data.split_first() else {
        return Err((rules::TX_SLOTS, 0));
    };
    let total = usize::from(first.size);
    let in_rest: usize = rest.iter().map(|slot| usize::from(slot.size)).sum();
    let in_first = total.checked_sub(in_rest).ok_or((rules::TX_SIZE, total as u64))?;
    if total < MIN_FRAME_BYTES {
        return Err((rules::TX_SIZE, total as u64));
    }
    let mut pieces = Vec::with_capacity(slots.data.len());
    let lengths = core::iter::once(in_first).chain(rest.iter().map(|slot| usize::from(slot.size)));
    for (slot, len_bytes) in slots.data.iter().zip(lengths) {
        let offset = usize::from(slot.offset);
        if offset + len_bytes > PAGE_SIZE {
            return Err((rules::TX_PAGE, (offset + len_bytes) as u64));
        }
        pieces.push(Piece { grant: GrantRef(slot.gref), offset, len_bytes });
    }
    let checksum = Checksum::from_transmit_flags(first.flags);
    let oversize = oversize(slots, first)?;
    Ok(Packet { ids: slots.ids.clone(), pieces, bytes: vec![0; total], checksum, oversize, failed: None })
}
