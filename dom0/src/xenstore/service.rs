//! Runs the server for guests: their pages, their event channels, and the bytes on the way.
//!
//! A guest that breaks the protocol is told so in its page and not listened to any more; the others go on.

use alloc::collections::BTreeMap;
use alloc::rc::Rc;
use alloc::vec::Vec;
use core::cell::RefCell;

use pv_bus::{Access, Events, GrantRef, Grants, Port, SharedPage};

use super::ring::{RingFault, StoreRing};
use super::server::Order;
use super::wire::Assembler;
use super::{ConnectionId, Server};
use crate::ids::DomId;

/// The grant by which every domain offers its store page (`GNTTAB_RESERVED_XENSTORE`).
pub const STORE_GRANT: GrantRef = GrantRef(1);

/// Requests carried out for one guest before the next has its turn.
const REQUESTS_A_TURN: usize = 16;
/// Bytes taken from a ring at once.
const RECEIVE_BYTES: usize = 1024;

struct Guest<P> {
    ring: StoreRing<P>,
    port: Port,
    incoming: Assembler,
    outgoing: Vec<u8>,
    faulted: bool,
}

/// The server's side of all guests.
pub struct StoreService<P> {
    server: Rc<RefCell<Server>>,
    guests: BTreeMap<DomId, Guest<P>>,
}

impl<P: SharedPage> StoreService<P> {
    /// A service without guests.
    pub fn new(server: Rc<RefCell<Server>>) -> Self {
        Self { server, guests: BTreeMap::new() }
    }

    /// Does what can be done now; says whether anything was done.
    pub fn turn<H: Grants<Mapping = P> + Events>(&mut self, hal: &mut H) -> bool {
        let orders = self.server.borrow_mut().take_orders();
        let mut busy = !orders.is_empty();
        for order in orders {
            match order {
                Order::Connect { domain, port, .. } => self.connect(hal, domain, Port(port)),
                Order::Disconnect { domain } => self.disconnect(hal, domain),
            }
        }
        for (domain, guest) in &mut self.guests {
            busy |= serve(&self.server, *domain, guest, hal);
        }
        busy
    }

    fn connect<H: Grants<Mapping = P> + Events>(&mut self, hal: &mut H, domain: DomId, port: Port) {
        self.disconnect(hal, domain);
        let mut mapped = Vec::new();
        hal.map_grants(domain, Access::ReadWrite, &[STORE_GRANT], &mut mapped);
        let page = match mapped.pop() {
            Some(Ok(page)) => page,
            Some(Err(error)) => {
                return log::warn!("xenstore: domain {}: its store page cannot be mapped: {error}", domain.0);
            }
            None => return,
        };
        let port = match hal.bind_interdomain(domain, port) {
            Ok(port) => port,
            Err(error) => {
                log::warn!("xenstore: domain {}: its port {} cannot be bound: {error}", domain.0, port.0);
                return hal.unmap_grants(&mut alloc::vec![page]);
            }
        };
        let ring = StoreRing::attach(page);
        ring.set_connected();
        hal.unmask(port);
        hal.notify(port);
        let guest = Guest { ring, port, incoming: Assembler::default(), outgoing: Vec::new(), faulted: false };
        self.guests.insert(domain, guest);
    }

    fn disconnect<H: Grants<Mapping = P> + Events>(&mut self, hal: &mut H, domain: DomId) {
        if let Some(guest) = self.guests.remove(&domain) {
            hal.close(guest.port);
            hal.unmap_grants(&mut alloc::vec![guest.ring.into_page()]);
        }
    }
}

/// One turn of one guest.
fn serve<P: SharedPage, H: Events>(
    server: &Rc<RefCell<Server>>,
    domain: DomId,
    guest: &mut Guest<P>,
    hal: &mut H,
) -> bool {
    if guest.ring.wants_reconnect() {
        guest.ring.reconnect();
        guest.incoming = Assembler::default();
        guest.outgoing.clear();
        guest.faulted = false;
        if let Some(session) = server.borrow_mut().session(ConnectionId::Domain(domain)) {
            session.reset();
        }
        hal.notify(guest.port);
    }
    if guest.faulted {
        return false;
    }
    match exchange(server, domain, guest) {
        Ok(moved) => {
            if moved {
                hal.notify(guest.port);
            }
            moved
        }
        Err(fault) => {
            log::warn!("xenstore: domain {}: {fault:?}, it is not listened to any more", domain.0);
            guest.ring.report(fault);
            guest.faulted = true;
            hal.notify(guest.port);
            true
        }
    }
}

/// Moves bytes in both directions and carries out whole requests; says whether anything moved.
fn exchange<P: SharedPage>(
    server: &Rc<RefCell<Server>>,
    domain: DomId,
    guest: &mut Guest<P>,
) -> Result<bool, RingFault> {
    let id = ConnectionId::Domain(domain);
    let mut moved = false;
    let mut server = server.borrow_mut();
    if server.accepts(id) {
        let mut bytes = Vec::new();
        moved |= guest.ring.receive(&mut bytes, RECEIVE_BYTES)? > 0;
        guest.incoming.push(&bytes);
        for _ in 0..REQUESTS_A_TURN {
            let Some(request) = guest.incoming.next_message().map_err(|_| RingFault::Protocol)? else {
                break;
            };
            server.handle(id, &request);
            moved = true;
        }
    }
    loop {
        if guest.outgoing.is_empty() {
            let Some(message) = server.session(id).and_then(super::session::Session::take) else {
                return Ok(moved);
            };
            message.encode(&mut guest.outgoing);
        }
        let sent = guest.ring.send(&guest.outgoing)?;
        guest.outgoing.drain(..sent);
        moved |= sent > 0;
        if !guest.outgoing.is_empty() {
            return Ok(moved);
        }
    }
}
