//! Frames on their way out.
//!
//! Every slot that is in use has a page of this driver, granted for reading. Pages keep their grants as long as the
//! connection lasts: the back end sees nothing in them but frames that were sent to it.
//!
//! Invariant: a slot's page is written only while the slot is free, and a slot becomes free only by the response with
//! its id.

use alloc::vec::Vec;

use pv_abi::io::netif::{
    NETIF_RSP_NULL, NETIF_RSP_OKAY, NETTXF_EXTRA_INFO, NETTXF_MORE_DATA, NetifTxRequest, NetifTxResponse,
};
use pv_bus::net::{Checksum, EXTRA_BYTES, Extra, MAX_FRAME_BYTES, MAX_SLOTS, MIN_FRAME_BYTES, Oversize};
use pv_bus::ring::FrontRing;
use pv_bus::{Access, DomId, GrantRef, Hal, PAGE_SIZE, Port, SharedPage};
use zerocopy::{FromZeros, IntoBytes};

use super::{Counters, Violation};
use crate::graveyard::Graveyard;

/// Why a frame was not sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TransmitError {
    /// No back end is connected.
    NotReady,
    /// The ring is full, or there is no page: try again after the next event.
    Full,
    /// Shorter than an Ethernet header, or longer than the back end takes.
    BadLength,
    /// A blank checksum of what is neither TCP nor UDP, or an oversize frame that is no TCP segment with a blank checksum.
    NotTransport,
}

impl core::fmt::Display for TransmitError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            Self::NotReady => "the network card is not connected",
            Self::Full => "the transmit ring is full",
            Self::BadLength => "no frame has this length",
            Self::NotTransport => "the frame is not the TCP or UDP packet that it is said to be",
        })
    }
}

struct Slot<P> {
    page: P,
    grant: GrantRef,
    busy: bool,
}

pub(super) struct Transmit<H: Hal> {
    ring: FrontRing<H::Page, NetifTxRequest, NetifTxResponse>,
    grants: Vec<GrantRef>,
    slots: Vec<Slot<H::Page>>,
    free: Vec<u16>,
    limit: usize,
    /// Slots of extra information on the ring.
    extras: u32,
    pub(super) port: Port,
    peer: DomId,
    scatter_gather: bool,
}

impl<H: Hal> Transmit<H> {
    pub(super) fn new(
        pages: Vec<H::Page>,
        grants: Vec<GrantRef>,
        port: Port,
        peer: DomId,
        limit: usize,
        scatter_gather: bool,
    ) -> Self {
        let ring = FrontRing::new(pages);
        let limit = limit.clamp(1, ring.entries() as usize);
        Self { ring, grants, slots: Vec::new(), free: Vec::new(), limit, extras: 0, port, peer, scatter_gather }
    }

    pub(super) fn ring_grant(&self) -> GrantRef {
        self.grants[0]
    }

    /// The longest frame that can be sent.
    pub(super) fn max_frame_bytes(&self) -> usize {
        if self.scatter_gather {
            (MAX_SLOTS * PAGE_SIZE).min(MAX_FRAME_BYTES).min(self.limit * PAGE_SIZE)
        } else {
            PAGE_SIZE
        }
    }

    /// How many slots with a page are free or can be made; one more would hold extra information.
    pub(super) fn room(&self) -> usize {
        let can_be_made = self.limit - self.slots.len();
        (self.free.len() + can_be_made).min((self.ring.free() as usize).saturating_sub(1))
    }

    /// Puts a frame on the ring; [`publish`](Self::publish) shows it.
    pub(super) fn send(
        &mut self,
        hal: &mut H,
        frame: &[u8],
        checksum: Checksum,
        oversize: Option<Oversize>,
    ) -> Result<(), TransmitError> {
        if frame.len() < MIN_FRAME_BYTES || frame.len() > self.max_frame_bytes() {
            return Err(TransmitError::BadLength);
        }
        let count = frame.len().div_ceil(PAGE_SIZE);
        if self.room() < count {
            return Err(TransmitError::Full);
        }
        let ids = self.take_slots(hal, count).ok_or(TransmitError::Full)?;
        for (number, (id, piece)) in ids.iter().zip(frame.chunks(PAGE_SIZE)).enumerate() {
            let slot = &mut self.slots[usize::from(*id)];
            slot.page.write(0, piece);
            slot.busy = true;
            let mut flags = if number + 1 < count { NETTXF_MORE_DATA } else { 0 };
            let mut size = piece.len();
            if number == 0 {
                flags |= checksum.transmit_flags() | if oversize.is_some() { NETTXF_EXTRA_INFO } else { 0 };
                size = frame.len();
            }
            let gref = slot.grant.0;
            self.push(&NetifTxRequest { gref, offset: 0, flags, id: *id, size: size as u16 });
            if let Some(oversize) = oversize.filter(|_| number == 0) {
                let mut extra = NetifTxRequest::new_zeroed();
                extra.as_mut_bytes()[..EXTRA_BYTES].copy_from_slice(&Extra::Oversize(oversize).encode());
                self.push(&extra);
                self.extras += 1;
            }
        }
        Ok(())
    }

    fn push(&mut self, request: &NetifTxRequest) {
        let pushed = self.ring.push(request);
        assert!(pushed, "there was room for all slots");
    }

    /// Takes `count` free slots, makes some if need be; all of them or none.
    fn take_slots(&mut self, hal: &mut H, count: usize) -> Option<Vec<u16>> {
        while self.free.len() < count {
            let page = hal.alloc_page().ok()?;
            let grant = match hal.grant_access(self.peer, &page, Access::ReadOnly) {
                Ok(grant) => grant,
                Err(_) => {
                    hal.free_page(page);
                    return None;
                }
            };
            self.free.push(self.slots.len() as u16);
            self.slots.push(Slot { page, grant, busy: false });
        }
        Some(self.free.split_off(self.free.len() - count))
    }

    pub(super) fn publish(&mut self, hal: &mut H) {
        if self.ring.publish() {
            hal.notify(self.port);
        }
    }

    /// Takes the responses that are there.
    pub(super) fn collect(&mut self, counters: &mut Counters) -> Result<(), Violation> {
        loop {
            while let Some(response) = self.ring.take().map_err(Violation::Ring)? {
                self.complete(&response, counters)?;
            }
            if !self.ring.rearm().map_err(Violation::Ring)? {
                return Ok(());
            }
        }
    }

    fn complete(&mut self, response: &NetifTxResponse, counters: &mut Counters) -> Result<(), Violation> {
        if response.status == NETIF_RSP_NULL {
            // The answer to a slot of extra information, which has no id.
            self.extras = self.extras.checked_sub(1).ok_or(Violation::TransmitId(response.id))?;
            return Ok(());
        }
        let slot = self.slots.get_mut(usize::from(response.id)).filter(|slot| slot.busy);
        let slot = slot.ok_or(Violation::TransmitId(response.id))?;
        slot.busy = false;
        self.free.push(response.id);
        if response.status == NETIF_RSP_OKAY {
            counters.transmitted_slots += 1;
        } else {
            counters.transmit_errors += 1;
        }
        Ok(())
    }

    pub(super) fn end(self, hal: &mut H, grave: &mut Graveyard<H::Page>) {
        for slot in self.slots {
            grave.bury(hal, slot.grant, slot.page);
        }
        crate::shared::unshare_pages(hal, grave, self.ring.into_pages(), self.grants);
    }
}
