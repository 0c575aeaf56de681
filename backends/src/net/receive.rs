//! Frames to the guest.
//!
//! A frame is copied by the hypervisor into pages that the guest posted, in the order in which it posted them, and
//! answered in the same order: a guest may rely on that.
//!
//! Invariants:
//! - A frame is begun only when there are enough pages for all of it.
//! - A bounded number of frames waits for pages; the rest wait in the port, which drops what is too much.

use alloc::collections::VecDeque;
use alloc::vec::Vec;

use pv_abi::io::netif::{
    NETIF_RSP_ERROR, NETIF_RSP_OKAY, NETRXF_EXTRA_INFO, NETRXF_MORE_DATA, NetifRxRequest, NetifRxResponse,
};
use pv_bus::net::{Extra, Frame, MAX_FRAME_BYTES};
use pv_bus::refusal::Refusals;
use pv_bus::ring::{BackRing, RingBroken};
use pv_bus::{DomId, GrantCopy, GrantRef, Hal, PAGE_SIZE, Port, segment};
use zerocopy::FromBytes;

use super::{Counters, rules};

/// Frames that wait for the pages of one queue.
const MAX_WAITING: usize = 64;

pub(super) struct Receive<H: Hal> {
    pub(super) ring: BackRing<H::Mapping, NetifRxRequest, NetifRxResponse>,
    pub(super) port: Port,
    pub(super) peer: DomId,
    pub(super) takes: Takes,
    pub(super) waiting: VecDeque<Frame>,
}

/// What kinds of frames a front end takes.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Takes {
    pub(super) scatter_gather: bool,
    pub(super) blank_checksums: bool,
    /// Oversize ones, over IPv4 and over IPv6.
    pub(super) oversize: [bool; 2],
}

/// A frame and the pages it goes to.
struct Placed {
    frame: Frame,
    pages: Vec<NetifRxRequest>,
}

impl<H: Hal> Receive<H> {
    /// Whether there is room for another frame.
    pub(super) fn has_room(&self) -> bool {
        self.waiting.len() < MAX_WAITING
    }

    /// Takes a frame in, in a form that this guest can take; drops it if there is none.
    pub(super) fn add(&mut self, mut frame: Frame, counters: &mut Counters) {
        if let Some(oversize) = frame.oversize {
            if !self.takes.scatter_gather || !self.takes.oversize[usize::from(oversize.ipv6)] {
                match segment::cut(frame) {
                    Ok(frames) => frames.into_iter().for_each(|frame| self.add(frame, counters)),
                    Err(_) => counters.dropped += 1,
                }
                return;
            }
        } else if !self.takes.blank_checksums && frame.complete_checksum().is_err() {
            counters.dropped += 1;
            return;
        }
        let limit = if self.takes.scatter_gather { MAX_FRAME_BYTES } else { PAGE_SIZE };
        if frame.bytes.is_empty() || frame.bytes.len() > limit {
            counters.dropped += 1;
        } else {
            self.waiting.push_back(frame);
        }
    }

    /// Gives a round of frames to the guest. True when there was something.
    pub(super) fn round(
        &mut self,
        hal: &mut H,
        refusals: &mut Refusals,
        counters: &mut Counters,
    ) -> Result<bool, RingBroken> {
        let mut placed = Vec::new();
        let mut left = self.ring.entries() as usize;
        while left > 0 {
            let Some(frame) = self.waiting.pop_front() else {
                break;
            };
            let wanted = frame.bytes.len().div_ceil(PAGE_SIZE) + usize::from(frame.oversize.is_some());
            if !self.has_pages(wanted)? {
                self.waiting.push_front(frame);
                break;
            }
            placed.push(self.place(frame, wanted)?);
            left = left.saturating_sub(wanted);
        }
        if placed.is_empty() {
            return Ok(false);
        }
        self.copy(hal, refusals, counters, &placed);
        if self.ring.publish() {
            hal.notify(self.port);
        }
        Ok(true)
    }

    /// Whether so many pages are posted. If not, the guest is asked to say when they are.
    fn has_pages(&mut self, wanted: usize) -> Result<bool, RingBroken> {
        if self.ring.unconsumed()? as usize >= wanted {
            return Ok(true);
        }
        self.ring.rearm_after(u32::try_from(wanted).unwrap_or(u32::MAX))
    }

    fn place(&mut self, frame: Frame, wanted: usize) -> Result<Placed, RingBroken> {
        let mut pages = Vec::with_capacity(wanted);
        for _ in 0..wanted {
            pages.extend(self.ring.take()?);
        }
        Ok(Placed { frame, pages })
    }

    fn copy(&mut self, hal: &mut H, refusals: &mut Refusals, counters: &mut Counters, placed: &[Placed]) {
        let mut batch = Vec::new();
        for placed in placed {
            for (page, piece) in placed.data_pages().zip(placed.frame.bytes.chunks(PAGE_SIZE)) {
                batch.push(GrantCopy::to_peer(GrantRef(page.gref), 0, piece));
            }
        }
        hal.copy_grants(self.peer, &mut batch);
        let mut copies = batch.iter();
        for placed in placed {
            let mut whole = true;
            let mut statuses = Vec::with_capacity(placed.pages.len());
            for _ in placed.data_pages() {
                statuses.push(match copies.next() {
                    Some(GrantCopy { result: Ok(()), buffer, .. }) => buffer.len_bytes() as i16,
                    Some(GrantCopy { result: Err(error), grant, .. }) => {
                        refusals.refuse(hal.now_ns(), rules::RX_GRANT, format_args!("grant {grant}: {error}"));
                        whole = false;
                        NETIF_RSP_ERROR
                    }
                    None => NETIF_RSP_ERROR,
                });
            }
            self.answer(placed, &statuses);
            counters.to_guest += u64::from(whole);
            counters.to_guest_bytes += if whole { placed.frame.bytes.len() as u64 } else { 0 };
            counters.refused += u64::from(!whole);
        }
    }

    /// One response a page; extra information takes the place after the first.
    fn answer(&mut self, placed: &Placed, statuses: &[i16]) {
        let last = statuses.len().saturating_sub(1);
        let mut responses = Vec::with_capacity(placed.pages.len());
        for (number, (page, status)) in placed.data_pages().zip(statuses).enumerate() {
            let mut flags = if number < last { NETRXF_MORE_DATA } else { 0 };
            if number == 0 {
                flags |= placed.frame.checksum.receive_flags();
                flags |= if placed.frame.oversize.is_some() { NETRXF_EXTRA_INFO } else { 0 };
            }
            responses.push(NetifRxResponse { id: page.id, offset: 0, flags, status: *status });
            if let Some(oversize) = placed.frame.oversize.filter(|_| number == 0) {
                let extra = Extra::Oversize(oversize).encode();
                let fallback = NetifRxResponse { id: 0, offset: 0, flags: 0, status: NETIF_RSP_OKAY };
                responses.push(NetifRxResponse::read_from_bytes(&extra).unwrap_or(fallback));
            }
        }
        for response in &responses {
            if !self.ring.push(response) {
                log::error!("net.back.response_without_request: {}", response.id);
            }
        }
    }
}

impl Placed {
    /// The pages that data goes to: the second is given for extra information, where there is any.
    fn data_pages(&self) -> impl Iterator<Item = &NetifRxRequest> {
        let extra = self.frame.oversize.is_some();
        self.pages.iter().enumerate().filter(move |(number, _)| !extra || *number != 1).map(|(_, page)| page)
    }
}
