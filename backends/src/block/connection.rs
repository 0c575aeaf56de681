//! The rings of a connection, and how their requests are answered.
//!
//! Invariants:
//! - A request taken from a ring has a [`Ticket`] and is answered exactly once.
//! - The requests of a ring are answered in the order in which they were taken, whatever the order in which they were
//!   done. So the ring alone says what is unanswered, namely what lies between its last response and its last request,
//!   and a back end that takes the ring over from one that died loses nothing.

use alloc::collections::VecDeque;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use pv_bus::block::{PROTOCOL, Request, RequestSlot, Response, ResponseSlot, status};
use pv_bus::refusal::Rule;
use pv_bus::ring::{BackRing, RingBroken};
use pv_bus::xenbus::Link;
use pv_bus::{DomId, GrantRef, Hal, Port, StoreError};

use super::transfer::Mapped;
use super::{Options, rules};

/// Names a request that was taken from a ring.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Ticket {
    queue: usize,
    number: u64,
}

/// A request that has no response on the ring.
struct Open {
    id: u64,
    operation: u8,
    /// What its response will say, once it is known.
    code: Option<i16>,
}

struct Queue<H: Hal> {
    ring: BackRing<H::Mapping, RequestSlot, ResponseSlot>,
    port: Port,
    /// Oldest first.
    open: VecDeque<Open>,
    /// The number of the oldest.
    first: u64,
}

/// A front end's rings and pages.
pub(super) struct Connection<H: Hal> {
    queues: Vec<Queue<H>>,
    pub(super) mapped: Mapped<H::Mapping>,
    pub(super) peer: DomId,
}

impl<H: Hal> Connection<H> {
    /// Joins the rings that the front end describes.
    pub(super) fn open(hal: &mut H, link: &Link, options: &Options) -> Result<Self, (Rule, String)> {
        let protocol = link.read_peer_text(hal, "protocol").unwrap_or_else(|_| PROTOCOL.into());
        if protocol != PROTOCOL {
            return Err((rules::PROTOCOL_UNKNOWN, crate::shared::quoted(&protocol)));
        }
        let count = crate::shared::queue_count(hal, link, options.max_queues)
            .map_err(|found| (rules::CONNECT_QUEUES, found))?;
        let order = ring_order(hal, link, options)?;
        let persistent = options.persistent && link.peer_has(hal, "feature-persistent");
        let mut connection =
            Self { queues: Vec::new(), mapped: Mapped::new(persistent, count as usize), peer: link.peer() };
        for number in 0..count {
            let folder = crate::shared::queue_folder(count, number);
            match Queue::open(hal, link, &folder, order) {
                Ok(queue) => connection.queues.push(queue),
                Err(refused) => {
                    connection.end(hal);
                    return Err(refused);
                }
            }
        }
        Ok(connection)
    }

    /// The event channels, one a ring.
    pub(super) fn ports(&self) -> impl Iterator<Item = Port> {
        self.queues.iter().map(|queue| queue.port)
    }

    /// Takes up to a ring full of requests from each ring.
    pub(super) fn take_all(&mut self) -> Result<Vec<(Ticket, Request)>, RingBroken> {
        let mut taken = Vec::new();
        for (queue, rings) in self.queues.iter_mut().enumerate() {
            for _ in 0..rings.ring.entries() {
                let Some((number, request)) = rings.take()? else { break };
                taken.push((Ticket { queue, number }, request));
            }
        }
        Ok(taken)
    }

    /// Answers a request; the front end sees it after [`publish`](Self::publish).
    pub(super) fn answer(&mut self, ticket: Ticket, code: i16) {
        if let Some(queue) = self.queues.get_mut(ticket.queue) {
            queue.answer(ticket.number, code);
        }
    }

    /// Shows the front end all answers and tells it where it wants to be told.
    pub(super) fn publish(&mut self, hal: &mut H) {
        for queue in &mut self.queues {
            if queue.ring.publish() {
                hal.notify(queue.port);
            }
        }
    }

    /// Asks to be woken by the next request. True when one is there already.
    pub(super) fn rearm(&mut self) -> Result<bool, RingBroken> {
        let mut any = false;
        for queue in &mut self.queues {
            any |= queue.ring.rearm()?;
        }
        Ok(any)
    }

    /// Whether every request is answered.
    pub(super) fn is_idle(&self) -> bool {
        self.queues.iter().all(|queue| queue.open.is_empty() && queue.ring.unconsumed().unwrap_or(0) == 0)
    }

    /// Answers everything with an error.
    pub(super) fn fail_all(&mut self, hal: &mut H) {
        // A broken ring has nobody who could read an answer.
        let _ = self.take_all();
        for queue in &mut self.queues {
            queue.open.iter_mut().filter(|open| open.code.is_none()).for_each(|open| open.code = Some(status::ERROR));
            queue.flush();
        }
        self.publish(hal);
    }

    /// Leaves the rings.
    pub(super) fn end(self, hal: &mut H) {
        let mut pages = Vec::new();
        for queue in self.queues {
            hal.close(queue.port);
            pages.append(&mut queue.ring.into_pages());
        }
        hal.unmap_grants(&mut pages);
        self.mapped.end(hal);
    }
}

impl<H: Hal> Queue<H> {
    fn open(hal: &mut H, link: &Link, folder: &str, order: Option<u32>) -> Result<Self, (Rule, String)> {
        let grants = ring_grants(hal, link, folder, order)?;
        let remote = number(hal, link, &format!("{folder}event-channel"))?;
        let mut pages = crate::shared::map_all(hal, link.peer(), &grants)
            .map_err(|(grant, error)| (rules::RING_GRANT, format!("grant {grant}: {error}")))?;
        match hal.bind_interdomain(link.peer(), Port(remote)) {
            Ok(port) => Ok(Self { ring: BackRing::attach(pages), port, open: VecDeque::new(), first: 0 }),
            Err(error) => {
                hal.unmap_grants(&mut pages);
                Err((rules::EVENT_CHANNEL, format!("port {remote}: {error}")))
            }
        }
    }

    fn take(&mut self) -> Result<Option<(u64, Request)>, RingBroken> {
        let Some(slot) = self.ring.take()? else {
            return Ok(None);
        };
        let request = Request::decode(&slot);
        let number = self.first + self.open.len() as u64;
        self.open.push_back(Open { id: request.id, operation: request.operation(), code: None });
        Ok(Some((number, request)))
    }

    fn answer(&mut self, number: u64, code: i16) {
        let place = number.checked_sub(self.first).and_then(|place| usize::try_from(place).ok());
        match place.and_then(|place| self.open.get_mut(place)) {
            Some(open) => open.code = Some(code),
            None => log::error!("block.back.response_without_request: {number}"),
        }
        self.flush();
    }

    /// Puts the responses on the ring that no older request holds up.
    fn flush(&mut self) {
        while let Some(Open { id, operation, code: Some(status) }) = self.open.front() {
            let response = Response { id: *id, operation: *operation, status: *status };
            if !self.ring.push(&response.encode()) {
                log::error!("block.back.response_without_request: {id:#x}");
            }
            self.open.pop_front();
            self.first += 1;
        }
    }
}

fn number<H: Hal>(hal: &mut H, link: &Link, key: &str) -> Result<u32, (Rule, String)> {
    link.read_peer(hal, key).map_err(|error| (rules::RING_KEYS, format!("{key}: {error}")))
}

/// How many pages each ring has, as a power of two; none when the front end says nothing of it.
fn ring_order<H: Hal>(hal: &mut H, link: &Link, options: &Options) -> Result<Option<u32>, (Rule, String)> {
    match link.read_peer::<H, u32>(hal, "ring-page-order") {
        Ok(order) if order <= options.max_ring_order => Ok(Some(order)),
        Ok(order) => Err((rules::RING_ORDER, format!("{order}"))),
        Err(StoreError::NoEntry) => Ok(None),
        Err(error) => Err((rules::RING_ORDER, format!("{error}"))),
    }
}

fn ring_grants<H: Hal>(
    hal: &mut H,
    link: &Link,
    folder: &str,
    order: Option<u32>,
) -> Result<Vec<GrantRef>, (Rule, String)> {
    let mut read = |key: &str| number(hal, link, &format!("{folder}{key}")).map(GrantRef);
    match order {
        None => Ok(alloc::vec![read("ring-ref")?]),
        // Linux keeps to the name of a ring of one page; others count from 0 even then.
        Some(0) => read("ring-ref").or_else(|_| read("ring-ref0")).map(|grant| alloc::vec![grant]),
        Some(order) => (0..1_u32 << order).map(|page| read(&format!("ring-ref{page}"))).collect(),
    }
}
