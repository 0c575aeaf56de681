//! One connection to a back end: the rings, their event channels, and what is on the rings.
//!
//! Parts of requests go to the rings in turn.
//!
//! Invariants:
//! - With several rings, a barrier goes out when every older change has its response, and nothing goes out before its
//!   own: what is on different rings has no order.
//! - A response is believed only if its id is that of a part that is on the ring now, and its operation that part's.
//!   An id carries the slot of the part and a count that never repeats within a connection.
//! - Pages that were granted for a part are taken back only after its response.

use alloc::vec::Vec;
use core::fmt;

use pv_bus::block::{
    Body, MAX_DIRECT_SEGMENTS, MAX_INDIRECT_PAGES, Request, RequestSlot, Response, ResponseSlot, SECTORS_PER_PAGE,
    SEGMENT_BYTES, SEGMENTS_PER_INDIRECT_PAGE, Segment, op, status,
};
use pv_bus::ring::{FrontRing, RingBroken};
use pv_bus::{Access, DomId, GrantRef, Hal, Port, SharedPage};

use super::Core;
use super::buffers::Buffer;
use super::device::Features;
use super::requests::{BlockError, Kind, Pending, RequestId};

/// A piece of a request that is on the ring.
struct Part<P> {
    wire_id: u64,
    operation: u8,
    request: RequestId,
    indirect: Vec<Buffer<P>>,
}

/// What the back end did that no back end may do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Violation {
    Ring(RingBroken),
    UnknownId(u64),
    WrongOperation { id: u64, said: u8 },
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ring(broken) => write!(f, "block.back.ring_index: {broken}"),
            Self::UnknownId(id) => write!(f, "block.back.unknown_id: a response to {id:#x}, which was not asked"),
            Self::WrongOperation { id, said } => {
                write!(f, "block.back.wrong_operation: the response to {id:#x} says operation {said}")
            }
        }
    }
}

/// One ring.
pub(super) struct Queue<H: Hal> {
    ring: FrontRing<H::Page, RequestSlot, ResponseSlot>,
    pub(super) grants: Vec<GrantRef>,
    pub(super) port: Port,
    parts: Vec<Option<Part<H::Page>>>,
    free: Vec<u16>,
    next_count: u64,
}

pub(super) struct Connection<H: Hal> {
    pub(super) queues: Vec<Queue<H>>,
    /// Whose turn it is to get a part.
    turn: usize,
    peer: DomId,
    handle: u16,
    pub(super) features: Features,
}

/// Whether something is wanted of the ring.
enum Sent {
    Part,
    NotNow,
}

impl<H: Hal> Queue<H> {
    pub(super) fn new(ring: FrontRing<H::Page, RequestSlot, ResponseSlot>, grants: Vec<GrantRef>, port: Port) -> Self {
        let entries = u16::try_from(ring.entries()).unwrap_or(u16::MAX);
        Self {
            parts: (0..entries).map(|_| None).collect(),
            free: (0..entries).rev().collect(),
            ring,
            grants,
            port,
            next_count: 1,
        }
    }

    fn has_room(&self) -> bool {
        self.ring.free() > 0 && !self.free.is_empty()
    }

    /// The part that a response is to.
    fn part_of(&mut self, response: &Response) -> Result<Part<H::Page>, Violation> {
        let slot = (response.id & 0xffff) as u16;
        let entry = self.parts.get_mut(usize::from(slot)).ok_or(Violation::UnknownId(response.id))?;
        match entry {
            Some(part) if part.wire_id != response.id => {
                return Err(Violation::UnknownId(response.id));
            }
            Some(part) if part.operation != response.operation => {
                return Err(Violation::WrongOperation { id: response.id, said: response.operation });
            }
            _ => {}
        }
        let part = entry.take().ok_or(Violation::UnknownId(response.id))?;
        self.free.push(slot);
        Ok(part)
    }
}

impl<H: Hal> Connection<H> {
    pub(super) fn new(queues: Vec<Queue<H>>, peer: DomId, handle: u16) -> Self {
        Self { queues, turn: 0, peer, handle, features: Features::default() }
    }

    /// How many parts are on the rings.
    pub(super) fn in_flight(&self) -> usize {
        self.queues.iter().map(|queue| queue.parts.len() - queue.free.len()).sum()
    }

    /// Takes all responses that are there, then sends what fits. Again, until nothing moves.
    pub(super) fn process(&mut self, hal: &mut H, core: &mut Core<H>, may_send: bool) -> Result<(), Violation> {
        loop {
            for queue in 0..self.queues.len() {
                while let Some(slot) = self.queues[queue].ring.take().map_err(Violation::Ring)? {
                    let response = Response::decode(&slot);
                    let part = self.queues[queue].part_of(&response)?;
                    self.complete(hal, core, part, response.status);
                }
            }
            if may_send {
                self.send_all(hal, core);
            }
            let mut more = false;
            for queue in &mut self.queues {
                more |= queue.ring.rearm().map_err(Violation::Ring)?;
            }
            if !more {
                return Ok(());
            }
        }
    }

    fn complete(&mut self, hal: &mut H, core: &mut Core<H>, part: Part<H::Page>, code: i16) {
        let keep_grants = self.features.persistent;
        for buffer in part.indirect {
            core.pool.give_back(hal, &mut core.grave, buffer, keep_grants);
        }
        let error = self.error_of(part.operation, code);
        if let Some(request) = core.requests.get_mut(part.request) {
            request.parts_out -= 1;
            if let Some(error) = error {
                request.result = Err(error);
            }
        }
        core.requests.settle(part.request);
    }

    fn error_of(&mut self, operation: u8, code: i16) -> Option<BlockError> {
        match code {
            status::OKAY => None,
            status::NOT_SUPPORTED => {
                self.features.without(operation);
                Some(BlockError::NotSupported)
            }
            _ => Some(BlockError::Device),
        }
    }

    fn send_all(&mut self, hal: &mut H, core: &mut Core<H>) {
        while self.find_room() {
            match self.send_next(hal, core) {
                Sent::Part => {}
                Sent::NotNow => break,
            }
        }
        for queue in &mut self.queues {
            if queue.ring.publish() {
                hal.notify(queue.port);
            }
        }
    }

    /// Gives the turn to the next ring with room; false when there is none.
    fn find_room(&mut self) -> bool {
        let count = self.queues.len();
        let next = (1..=count).map(|step| (self.turn + step) % count).find(|queue| self.queues[*queue].has_room());
        self.turn = next.unwrap_or(self.turn);
        next.is_some()
    }

    fn send_next(&mut self, hal: &mut H, core: &mut Core<H>) -> Sent {
        let Some((id, request)) = core.requests.next_unsent() else {
            return Sent::NotNow;
        };
        if request.result.is_err() || request.sent == request.units() {
            core.requests.all_sent(id);
            core.requests.settle(id);
            return Sent::Part;
        }
        if self.queues.len() > 1 {
            let is_barrier = request.kind == Kind::Barrier && request.sent == 0;
            if core.requests.barrier_before(id) || (is_barrier && core.requests.changes_before(id)) {
                return Sent::NotNow;
            }
        }
        let Some(request) = core.requests.get_mut(id) else {
            return Sent::NotNow;
        };
        match request.kind {
            Kind::Flush => self.send_flush(core, id),
            Kind::Discard { secure } => {
                let (sector, sectors) = (request.sector, request.sectors);
                let body = Body::Discard { flag: u8::from(secure), sectors };
                self.push(core, id, op::DISCARD, sector, body, Vec::new(), 1)
            }
            Kind::Read => self.send_data(hal, core, id, op::READ),
            Kind::Write => self.send_data(hal, core, id, op::WRITE),
            Kind::Barrier => self.send_data(hal, core, id, op::WRITE_BARRIER),
        }
    }

    /// A flush waits until every older change has its response: only those are sure to be covered by it.
    fn send_flush(&mut self, core: &mut Core<H>, id: RequestId) -> Sent {
        if core.requests.changes_before(id) {
            return Sent::NotNow;
        }
        let operation = match self.features {
            Features { flush: true, .. } => op::FLUSH,
            Features { barrier: true, .. } => op::WRITE_BARRIER,
            _ => {
                // The device has no volatile cache: what it answered is durable.
                if let Some(request) = core.requests.get_mut(id) {
                    request.sent = request.units();
                }
                core.requests.settle(id);
                return Sent::Part;
            }
        };
        let body = Body::Direct { operation, count: 0, segments: [Segment::NONE; MAX_DIRECT_SEGMENTS] };
        self.push(core, id, operation, 0, body, Vec::new(), 1)
    }

    /// Sends as much of the request as one part can carry.
    fn send_data(&mut self, hal: &mut H, core: &mut Core<H>, id: RequestId, operation: u8) -> Sent {
        let Some(request) = core.requests.get_mut(id) else {
            return Sent::NotNow;
        };
        let first = request.sent;
        let left = request.buffers.len() - first;
        let access = match operation {
            op::READ => Access::ReadWrite,
            _ if self.features.persistent => Access::ReadWrite,
            _ => Access::ReadOnly,
        };
        let may_be_indirect = left > MAX_DIRECT_SEGMENTS && operation != op::WRITE_BARRIER;
        let most = if may_be_indirect { self.features.max_segments } else { MAX_DIRECT_SEGMENTS };
        let segments = match segments_of(hal, request, first, left.min(most), self.peer, access) {
            Ok(segments) => segments,
            Err(error) => {
                log::warn!("block.front.no_grant: {error}");
                return Sent::NotNow;
            }
        };
        let sector = request.sector + first as u64 * u64::from(SECTORS_PER_PAGE);
        let described = self.describe(hal, core, operation, &segments);
        self.push(core, id, operation, sector, described.body, described.pages, described.count)
    }

    /// Puts the segments into the slot, or into pages of their own where they do not fit and such pages can be had.
    fn describe(&mut self, hal: &mut H, core: &mut Core<H>, operation: u8, segments: &[Segment]) -> Described<H::Page> {
        if segments.len() > MAX_DIRECT_SEGMENTS {
            let wanted = segments.len().div_ceil(SEGMENTS_PER_INDIRECT_PAGE);
            let pages = core.pool.take_many(hal, wanted);
            if let Some(described) = pages.and_then(|pages| self.indirect(hal, core, operation, segments, pages)) {
                return described;
            }
        }
        let count = segments.len().min(MAX_DIRECT_SEGMENTS);
        let mut in_slot = [Segment::NONE; MAX_DIRECT_SEGMENTS];
        in_slot[..count].copy_from_slice(&segments[..count]);
        let body = Body::Direct { operation, count: count as u8, segments: in_slot };
        Described { body, pages: Vec::new(), count }
    }

    fn indirect(
        &mut self,
        hal: &mut H,
        core: &mut Core<H>,
        operation: u8,
        segments: &[Segment],
        mut pages: Vec<Buffer<H::Page>>,
    ) -> Option<Described<H::Page>> {
        let access = if self.features.persistent { Access::ReadWrite } else { Access::ReadOnly };
        let mut grants = [GrantRef(0); MAX_INDIRECT_PAGES];
        let mut granted = true;
        for ((page, grant), described) in
            pages.iter_mut().zip(&mut grants).zip(segments.chunks(SEGMENTS_PER_INDIRECT_PAGE))
        {
            for (number, segment) in described.iter().enumerate() {
                page.page.write(number * SEGMENT_BYTES, &segment.encode());
            }
            match page.grant(hal, self.peer, access) {
                Ok(reference) => *grant = reference,
                Err(_) => granted = false,
            }
        }
        if !granted {
            for page in pages {
                core.pool.give_back(hal, &mut core.grave, page, self.features.persistent);
            }
            return None;
        }
        let body = Body::Indirect { operation, count: segments.len() as u16, pages: grants };
        Some(Described { body, pages, count: segments.len() })
    }

    #[expect(clippy::too_many_arguments, reason = "one part has this many sides, and this is the one place")]
    fn push(
        &mut self,
        core: &mut Core<H>,
        id: RequestId,
        operation: u8,
        sector: u64,
        body: Body,
        indirect: Vec<Buffer<H::Page>>,
        units: usize,
    ) -> Sent {
        let queue = &mut self.queues[self.turn];
        let Some(slot) = queue.free.pop() else {
            return Sent::NotNow;
        };
        let wire_id = queue.next_count << 16 | u64::from(slot);
        queue.next_count += 1;
        let pushed = queue.ring.push(&Request { id: wire_id, sector, body }.encode(self.handle));
        assert!(pushed, "there are as many slots as ring entries");
        queue.parts[usize::from(slot)] = Some(Part { wire_id, operation, request: id, indirect });
        if let Some(request) = core.requests.get_mut(id) {
            request.sent += units;
            request.parts_out += 1;
            if request.sent == request.units() {
                core.requests.all_sent(id);
            }
        }
        Sent::Part
    }

    /// Ends the connection. What was on the rings stays unanswered.
    pub(super) fn end(self, hal: &mut H, core: &mut Core<H>) {
        for mut queue in self.queues {
            hal.close(queue.port);
            for part in queue.parts.iter_mut().filter_map(Option::take) {
                for buffer in part.indirect {
                    core.pool.give_back(hal, &mut core.grave, buffer, self.features.persistent);
                }
            }
            crate::shared::unshare_pages(hal, &mut core.grave, queue.ring.into_pages(), queue.grants);
        }
    }
}

/// How the segments of a part are passed.
struct Described<P> {
    body: Body,
    pages: Vec<Buffer<P>>,
    count: usize,
}

fn segments_of<H: Hal>(
    hal: &mut H,
    request: &mut Pending<H::Page>,
    first: usize,
    count: usize,
    peer: DomId,
    access: Access,
) -> Result<Vec<Segment>, pv_bus::GrantError> {
    let mut segments = Vec::with_capacity(count);
    for buffer in first..first + count {
        let grant = request.buffers[buffer].grant(hal, peer, access)?;
        segments.push(Segment { grant, first: 0, last: request.sectors_in(buffer) - 1 });
    }
    Ok(segments)
}
