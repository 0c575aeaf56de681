//! Frames on their way in.
//!
//! Pages of this driver are posted in order, and the responses come in the same order: the n-th response is for the
//! n-th page. (Extra information overlays a response's id, so the order is all there is.)
//!
//! Invariants:
//! - What arrived is copied out of the page once, and then only the copy is looked at.
//! - A frame that says it goes on beyond what the rings can carry is dropped, and the connection with it.

use alloc::collections::VecDeque;
use alloc::vec;
use alloc::vec::Vec;

use pv_abi::io::netif::{NETRXF_EXTRA_INFO, NETRXF_GSO_PREFIX, NETRXF_MORE_DATA, NetifRxRequest, NetifRxResponse};
use pv_bus::net::{Checksum, Extra, Frame, MAX_FRAME_BYTES, MIN_FRAME_BYTES, Oversize};
use pv_bus::ring::FrontRing;
use pv_bus::{Access, DomId, GrantRef, Hal, PAGE_SIZE, Port, SharedPage};

use super::{Counters, Violation};
use crate::graveyard::Graveyard;

/// A page that waits for a frame, or for being posted again.
struct Buffer<P> {
    page: P,
    grant: GrantRef,
}

/// A frame of which not all slots have come.
struct Partial {
    bytes: Vec<u8>,
    checksum: Checksum,
    oversize: Option<Oversize>,
    failed: bool,
}

pub(super) struct Receive<H: Hal> {
    ring: FrontRing<H::Page, NetifRxRequest, NetifRxResponse>,
    grants: Vec<GrantRef>,
    posted: VecDeque<Buffer<H::Page>>,
    free: Vec<Buffer<H::Page>>,
    limit: usize,
    /// Counts posted pages; the id is this modulo the ring size.
    next_id: u32,
    /// Counts responses.
    next_response: u32,
    partial: Option<Partial>,
    /// The next response is extra information.
    expect_extra: bool,
    /// After the extra information, the frame goes on.
    more_after_extra: bool,
    pub(super) port: Port,
    peer: DomId,
}

impl<H: Hal> Receive<H> {
    pub(super) fn new(pages: Vec<H::Page>, grants: Vec<GrantRef>, port: Port, peer: DomId, limit: usize) -> Self {
        let ring = FrontRing::new(pages);
        let limit = limit.clamp(1, ring.entries() as usize);
        Self {
            ring,
            grants,
            posted: VecDeque::new(),
            free: Vec::new(),
            limit,
            next_id: 0,
            next_response: 0,
            partial: None,
            expect_extra: false,
            more_after_extra: false,
            port,
            peer,
        }
    }

    pub(super) fn ring_grant(&self) -> GrantRef {
        self.grants[0]
    }

    fn id_of(&self, count: u32) -> u16 {
        (count & (self.ring.entries() - 1)) as u16
    }

    /// Posts pages until as many as wanted wait for frames.
    pub(super) fn post(&mut self, hal: &mut H) {
        while self.posted.len() < self.limit && self.ring.free() > 0 {
            let Some(buffer) = self.free.pop().or_else(|| self.make(hal)) else {
                break;
            };
            let request = NetifRxRequest { id: self.id_of(self.next_id), pad: 0, gref: buffer.grant.0 };
            let pushed = self.ring.push(&request);
            assert!(pushed, "there was room");
            self.next_id = self.next_id.wrapping_add(1);
            self.posted.push_back(buffer);
        }
        if self.ring.publish() {
            hal.notify(self.port);
        }
    }

    fn make(&mut self, hal: &mut H) -> Option<Buffer<H::Page>> {
        let page = hal.alloc_page().ok()?;
        match hal.grant_access(self.peer, &page, Access::ReadWrite) {
            Ok(grant) => Some(Buffer { page, grant }),
            Err(_) => {
                hal.free_page(page);
                None
            }
        }
    }

    /// Takes what has come into `frames`, while there are fewer than `most`.
    pub(super) fn collect(
        &mut self,
        frames: &mut VecDeque<Frame>,
        most: usize,
        counters: &mut Counters,
    ) -> Result<(), Violation> {
        loop {
            while frames.len() < most {
                let Some(response) = self.ring.take().map_err(Violation::Ring)? else {
                    break;
                };
                if let Some(frame) = self.accept(&response, counters)? {
                    frames.push_back(frame);
                }
            }
            if frames.len() >= most || !self.ring.rearm().map_err(Violation::Ring)? {
                return Ok(());
            }
        }
    }

    /// The frame that is whole with this response, if one is.
    fn accept(&mut self, response: &NetifRxResponse, counters: &mut Counters) -> Result<Option<Frame>, Violation> {
        let expected = self.id_of(self.next_response);
        self.next_response = self.next_response.wrapping_add(1);
        let buffer = self.posted.pop_front().ok_or(Violation::ReceiveId(response.id))?;
        let accepted = if self.expect_extra {
            Ok(self.accept_extra(response))
        } else if response.id == expected {
            self.accept_piece(response, &buffer)
        } else {
            Err(Violation::ReceiveId(response.id))
        };
        self.free.push(buffer);
        Ok(accepted?.and_then(|partial| finish(partial, counters)))
    }

    /// Extra information says that the frame is oversize; any other says what this driver did not ask for.
    fn accept_extra(&mut self, response: &NetifRxResponse) -> Option<Partial> {
        let (extra, follows) = Extra::decode(zerocopy::transmute!(*response));
        self.expect_extra = follows;
        if let (Some(partial), Extra::Oversize(oversize)) = (&mut self.partial, extra) {
            partial.oversize = Some(oversize);
        }
        if self.expect_extra || self.more_after_extra { None } else { self.partial.take() }
    }

    fn accept_piece(
        &mut self,
        response: &NetifRxResponse,
        buffer: &Buffer<H::Page>,
    ) -> Result<Option<Partial>, Violation> {
        let flags = response.flags;
        let mut partial = self.partial.take().unwrap_or(Partial {
            bytes: Vec::new(),
            checksum: Checksum::from_receive_flags(flags),
            oversize: None,
            failed: false,
        });
        match usize::try_from(response.status) {
            Err(_) => partial.failed = true,
            Ok(len_bytes) => {
                let offset = usize::from(response.offset);
                if offset + len_bytes > PAGE_SIZE {
                    return Err(Violation::ReceiveLength { offset: response.offset, len: response.status });
                }
                if partial.bytes.len() + len_bytes > MAX_FRAME_BYTES {
                    return Err(Violation::EndlessFrame);
                }
                let mut piece = vec![0; len_bytes];
                buffer.page.read_once(offset, &mut piece);
                if partial.bytes.is_empty() { partial.bytes = piece } else { partial.bytes.append(&mut piece) }
            }
        }
        partial.failed |= flags & NETRXF_GSO_PREFIX != 0;
        let more = flags & NETRXF_MORE_DATA != 0;
        if flags & NETRXF_EXTRA_INFO != 0 {
            self.expect_extra = true;
            self.more_after_extra = more;
            self.partial = Some(partial);
            return Ok(None);
        }
        if more {
            self.partial = Some(partial);
            return Ok(None);
        }
        Ok(Some(partial))
    }

    pub(super) fn end(self, hal: &mut H, grave: &mut Graveyard<H::Page>) {
        for buffer in self.posted.into_iter().chain(self.free) {
            grave.bury(hal, buffer.grant, buffer.page);
        }
        crate::shared::unshare_pages(hal, grave, self.ring.into_pages(), self.grants);
    }
}

fn finish(partial: Partial, counters: &mut Counters) -> Option<Frame> {
    if partial.failed || partial.bytes.len() < MIN_FRAME_BYTES {
        counters.receive_errors += 1;
        return None;
    }
    counters.received += 1;
    Some(Frame { bytes: partial.bytes, checksum: partial.checksum, oversize: partial.oversize })
}
