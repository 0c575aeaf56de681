//! Frames to the guest.
//!
//! A frame is copied by the hypervisor into pages that the guest posted, in the order in which it posted them, and
//! answered in the same order: a guest may rely on that.
//!
//! Invariants:
//! - A frame is begun only when there are enough pages for all of it.
//! - At most one frame is held back for want of pages; the rest wait in the port, which drops what is too much.

use alloc::vec::Vec;

use pv_abi::io::netif::{NETIF_RSP_ERROR, NETRXF_MORE_DATA, NetifRxRequest, NetifRxResponse};
use pv_bus::net::{Frame, MAX_FRAME_BYTES};
use pv_bus::refusal::Refusals;
use pv_bus::ring::{BackRing, RingBroken};
use pv_bus::{DomId, GrantCopy, GrantRef, Hal, PAGE_SIZE, Port};

use super::port::NetPort;
use super::{Counters, rules};

pub(super) struct Receive<H: Hal> {
    pub(super) ring: BackRing<H::Mapping, NetifRxRequest, NetifRxResponse>,
    pub(super) port: Port,
    pub(super) peer: DomId,
    pub(super) scatter_gather: bool,
    pub(super) accepts_blank_checksums: bool,
    pub(super) held: Option<Frame>,
}

/// A frame and the pages it goes to.
struct Placed {
    frame: Frame,
    pages: Vec<NetifRxRequest>,
}

impl<H: Hal> Receive<H> {
    /// Gives a round of frames from `port` to the guest. True when there was something.
    pub(super) fn round(
        &mut self,
        hal: &mut H,
        port: &mut impl NetPort,
        refusals: &mut Refusals,
        counters: &mut Counters,
    ) -> Result<bool, RingBroken> {
        let mut placed = Vec::new();
        let mut left = self.ring.entries() as usize;
        while left > 0 {
            let Some(frame) = self.next_frame(port, counters) else {
                break;
            };
            let wanted = frame.bytes.len().div_ceil(PAGE_SIZE);
            if !self.has_pages(wanted)? {
                self.held = Some(frame);
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

    /// The next frame that this guest can take; what it cannot take is dropped.
    fn next_frame(&mut self, port: &mut impl NetPort, counters: &mut Counters) -> Option<Frame> {
        if let Some(frame) = self.held.take() {
            return Some(frame);
        }
        for _ in 0..self.ring.entries() {
            let mut frame = port.receive()?;
            let limit = if self.scatter_gather { MAX_FRAME_BYTES } else { PAGE_SIZE };
            let fits = !frame.bytes.is_empty() && frame.bytes.len() <= limit;
            if fits && (self.accepts_blank_checksums || frame.complete_checksum().is_ok()) {
                return Some(frame);
            }
            counters.dropped += 1;
        }
        None
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
        for Placed { frame, pages } in placed {
            for (page, piece) in pages.iter().zip(frame.bytes.chunks(PAGE_SIZE)) {
                batch.push(GrantCopy::to_peer(GrantRef(page.gref), 0, piece));
            }
        }
        hal.copy_grants(self.peer, &mut batch);
        let mut copies = batch.iter();
        for Placed { frame, pages } in placed {
            let mut whole = true;
            for (number, page) in pages.iter().enumerate() {
                let more = if number + 1 < pages.len() { NETRXF_MORE_DATA } else { 0 };
                let first = if number == 0 { frame.checksum.receive_flags() } else { 0 };
                let status = match copies.next() {
                    Some(GrantCopy { result: Ok(()), buffer, .. }) => buffer.len_bytes() as i16,
                    Some(GrantCopy { result: Err(error), grant, .. }) => {
                        refusals.refuse(hal.now_ns(), rules::RX_GRANT, format_args!("grant {grant}: {error}"));
                        whole = false;
                        NETIF_RSP_ERROR
                    }
                    None => NETIF_RSP_ERROR,
                };
                let response = NetifRxResponse { id: page.id, offset: 0, flags: first | more, status };
                if !self.ring.push(&response) {
                    log::error!("net.back.response_without_request: {}", page.id);
                }
            }
            counters.to_guest += u64::from(whole);
            counters.refused += u64::from(!whole);
        }
    }
}
