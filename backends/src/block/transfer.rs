//! Moving data between a front end's pages and a device's buffers.
//!
//! Two ways: pages with persistent grants stay mapped and are copied by this CPU; all others are copied by the
//! hypervisor, in one batch for as many requests as there are.
//!
//! Invariant: at most [`MAX_MAPPED`] pages for each ring of a front end are mapped. Beyond that its pages are copied by the
//! hypervisor; persistent grants are a promise of the front, never a duty of the back.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use pv_bus::{Access, DomId, GrantCopy, GrantError, GrantRef, Hal, SharedPage};

use super::request::Piece;

/// What a ring of 32 requests with 32 segments and their descriptors can use, and some.
const MAX_MAPPED: usize = 1056;

/// The pages that stay mapped, if the front end wants that.
pub(super) struct Mapped<M> {
    pages: BTreeMap<GrantRef, M>,
    wanted: bool,
    limit: usize,
}

/// One request's data: where it is here, where it is there, and whether it arrived.
pub(super) struct Transfer<'a> {
    pub(super) pieces: &'a [Piece],
    pub(super) buffer: &'a mut [u8],
    pub(super) direction: Direction,
    pub(super) failed: Option<(GrantRef, GrantError)>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Direction {
    FromPeer,
    ToPeer,
}

impl<M: SharedPage> Mapped<M> {
    /// No pages yet, and room for those of so many rings.
    pub(super) fn new(wanted: bool, rings: usize) -> Self {
        Self { pages: BTreeMap::new(), wanted, limit: MAX_MAPPED * rings }
    }

    /// Does all transfers.
    pub(super) fn run<H: Hal<Mapping = M>>(&mut self, hal: &mut H, peer: DomId, transfers: &mut [Transfer<'_>]) {
        if self.wanted {
            self.map_missing(hal, peer, transfers);
        }
        let mut batch = Vec::new();
        let mut owners = Vec::new();
        for (owner, transfer) in transfers.iter_mut().enumerate() {
            let direction = transfer.direction;
            let mut rest = &mut *transfer.buffer;
            for piece in transfer.pieces {
                let (bytes, after) = rest.split_at_mut(piece.len_bytes);
                rest = after;
                match self.pages.get(&piece.grant) {
                    Some(page) => copy_mapped(page, piece, bytes, direction),
                    None => {
                        batch.push(hypervisor_copy(piece, bytes, direction));
                        owners.push(owner);
                    }
                }
            }
        }
        if batch.is_empty() {
            return;
        }
        hal.copy_grants(peer, &mut batch);
        let failed: Vec<_> = batch
            .iter()
            .zip(owners)
            .filter_map(|(copy, owner)| copy.result.err().map(|error| (owner, copy.grant, error)))
            .collect();
        for (owner, grant, error) in failed {
            transfers[owner].failed.get_or_insert((grant, error));
        }
    }

    fn map_missing<H: Hal<Mapping = M>>(&mut self, hal: &mut H, peer: DomId, transfers: &[Transfer<'_>]) {
        let mut missing: Vec<GrantRef> = transfers
            .iter()
            .flat_map(|transfer| transfer.pieces)
            .map(|piece| piece.grant)
            .filter(|grant| !self.pages.contains_key(grant))
            .collect();
        missing.sort_unstable();
        missing.dedup();
        missing.truncate(self.limit - self.pages.len());
        if missing.is_empty() {
            return;
        }
        let mut mapped = Vec::with_capacity(missing.len());
        hal.map_grants(peer, Access::ReadWrite, &missing, &mut mapped);
        for (grant, result) in missing.into_iter().zip(mapped) {
            // A page that cannot be mapped for writing is left to the hypervisor, which will say what is wrong with it.
            if let Ok(page) = result {
                self.pages.insert(grant, page);
            }
        }
    }

    /// Unmaps everything.
    pub(super) fn end<H: Hal<Mapping = M>>(self, hal: &mut H) {
        hal.unmap_grants(&mut self.pages.into_values().collect());
    }
}

fn copy_mapped<M: SharedPage>(page: &M, piece: &Piece, bytes: &mut [u8], direction: Direction) {
    match direction {
        Direction::FromPeer => page.read_once(piece.offset, bytes),
        Direction::ToPeer => page.write(piece.offset, bytes),
    }
}

fn hypervisor_copy<'a>(piece: &Piece, bytes: &'a mut [u8], direction: Direction) -> GrantCopy<'a> {
    match direction {
        Direction::FromPeer => GrantCopy::from_peer(piece.grant, piece.offset, bytes),
        Direction::ToPeer => GrantCopy::to_peer(piece.grant, piece.offset, bytes),
    }
}
