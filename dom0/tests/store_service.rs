//! The store as a guest reaches it: over its page, next to the parts of dom0 that use the store directly.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::atomic::Ordering;

use dom0::ids::DomId;
use dom0::xenstore::service::STORE_GRANT;
use dom0::xenstore::wire::{Assembler, Kind, Message};
use dom0::xenstore::{LocalStore, Permissions, Quota, Server, StoreService};
use pv_bus::loopback::{LoopbackMapping, LoopbackPage};
use pv_bus::{
    Access, EventError, Events, GrantCopy, GrantError, GrantRef, Grants, Loopback, Memory, OutOfMemory, Port,
    SharedPage, Store, StoreError, Transaction,
};

const GUEST: DomId = DomId(1);

/// The service domain. The reserved grant of a guest is in the loopback whatever grant it made first.
struct Host {
    inner: Loopback,
    store_grant: GrantRef,
}

impl Memory for Host {
    type Page = LoopbackPage;

    fn alloc_page(&mut self) -> Result<LoopbackPage, OutOfMemory> {
        self.inner.alloc_page()
    }

    fn free_page(&mut self, page: LoopbackPage) {
        self.inner.free_page(page);
    }
}

impl Grants for Host {
    type Mapping = LoopbackMapping;

    fn grant_access(&mut self, peer: DomId, page: &LoopbackPage, access: Access) -> Result<GrantRef, GrantError> {
        self.inner.grant_access(peer, page, access)
    }

    fn end_access(&mut self, grant: GrantRef) -> Result<(), GrantError> {
        self.inner.end_access(grant)
    }

    fn map_grants(
        &mut self,
        peer: DomId,
        access: Access,
        grants: &[GrantRef],
        mapped: &mut Vec<Result<LoopbackMapping, GrantError>>,
    ) {
        assert_eq!(grants, [STORE_GRANT]);
        self.inner.map_grants(peer, access, &[self.store_grant], mapped);
    }

    fn unmap_grants(&mut self, mappings: &mut Vec<LoopbackMapping>) {
        self.inner.unmap_grants(mappings);
    }

    fn copy_grants(&mut self, peer: DomId, batch: &mut [GrantCopy<'_>]) {
        self.inner.copy_grants(peer, batch);
    }
}

impl Events for Host {
    fn alloc_unbound(&mut self, remote: DomId) -> Result<Port, EventError> {
        self.inner.alloc_unbound(remote)
    }

    fn bind_interdomain(&mut self, remote: DomId, port: Port) -> Result<Port, EventError> {
        self.inner.bind_interdomain(remote, port)
    }

    fn notify(&mut self, port: Port) {
        self.inner.notify(port);
    }

    fn unmask(&mut self, port: Port) {
        self.inner.unmask(port);
    }

    fn close(&mut self, port: Port) {
        self.inner.close(port);
    }
}

/// A guest with a store page, and the domain that serves it.
struct World {
    /// Held, since what a domain gave goes when it does.
    _guest: Loopback,
    page: LoopbackPage,
    host: Host,
    service: StoreService<LoopbackMapping>,
    toolstack: LocalStore,
    drivers: LocalStore,
    answers: Assembler,
}

impl World {
    fn new() -> Self {
        let (mut guest, host) = Loopback::pair();
        let page = guest.alloc_page().expect("a page");
        let store_grant = guest.grant_access(DomId(0), &page, Access::ReadWrite).expect("a grant");
        let host = Host { inner: host, store_grant };
        let Port(port) = guest.alloc_unbound(DomId(0)).expect("a port");
        let server = Rc::new(RefCell::new(Server::new(Quota::default())));
        let mut toolstack = LocalStore::connect(server.clone(), 1);
        let drivers = LocalStore::connect(server.clone(), 0);
        let home = "/local/domain/1";
        toolstack.mkdir(Transaction::NONE, home).expect("made");
        toolstack.set_permissions(Transaction::NONE, home, &Permissions::private(GUEST)).expect("set");
        toolstack.introduce(GUEST, 0x1234, port).expect("introduced");
        let service = StoreService::new(server);
        let mut world = Self { _guest: guest, page, host, service, toolstack, drivers, answers: Assembler::default() };
        world.serve();
        world
    }

    fn serve(&mut self) {
        while self.service.turn(&mut self.host) {}
    }

    /// Writes to the request ring what fits, as a guest does.
    fn send(&mut self, bytes: &[u8]) -> usize {
        let (cons, prod) = (self.page.load_u32(2048, Ordering::SeqCst), self.page.load_u32(2052, Ordering::SeqCst));
        let count = bytes.len().min(1024 - prod.wrapping_sub(cons) as usize);
        for (at, byte) in (0..).zip(&bytes[..count]) {
            self.page.write(prod.wrapping_add(at) as usize % 1024, &[*byte]);
        }
        self.page.store_u32(2052, prod.wrapping_add(count as u32), Ordering::SeqCst);
        count
    }

    fn receive(&mut self) -> Vec<Message> {
        let (cons, prod) = (self.page.load_u32(2056, Ordering::SeqCst), self.page.load_u32(2060, Ordering::SeqCst));
        for at in 0..prod.wrapping_sub(cons) {
            let mut byte = [0];
            self.page.read(1024 + cons.wrapping_add(at) as usize % 1024, &mut byte);
            self.answers.push(&byte);
        }
        self.page.store_u32(2056, prod, Ordering::SeqCst);
        std::iter::from_fn(|| self.answers.next_message().expect("well formed")).collect()
    }

    /// Sends a request and serves until its answer is whole.
    fn ask(&mut self, kind: Kind, payload: &[u8]) -> Vec<Message> {
        let mut bytes = Vec::new();
        Message { kind: kind as u32, request_id: 5, transaction: 0, payload: payload.to_vec() }.encode(&mut bytes);
        let (mut sent, mut got) = (0, Vec::new());
        for _ in 0..100 {
            sent += self.send(&bytes[sent..]);
            self.serve();
            got.extend(self.receive());
            if got.iter().any(|message: &Message| message.kind != Kind::WatchEvent as u32) {
                break;
            }
        }
        got
    }
}

#[test]
fn a_request_larger_than_the_ring_and_an_answer_larger_than_the_ring_get_through() {
    let mut world = World::new();
    let value = vec![b'v'; 2000];
    let written = world.ask(Kind::Write, &[b"big\0".as_slice(), &value].concat());
    assert_eq!(written[0].payload, b"OK\0");
    let read = world.ask(Kind::Read, b"big\0");
    assert_eq!(read[0].payload, value);
    assert_eq!(world.toolstack.read(Transaction::NONE, "/local/domain/1/big"), Ok(value));
}

#[test]
fn a_change_made_here_reaches_a_guests_watch_and_the_reverse() {
    let mut world = World::new();
    assert_eq!(world.ask(Kind::Watch, b"device\0tok\0").len(), 2);
    world.toolstack.write(Transaction::NONE, "/local/domain/1/device/x", b"1").expect("written");
    world.serve();
    assert_eq!(world.receive()[0].payload, b"device/x\0tok\0");
    let watch = world.drivers.watch("/local/domain/1").expect("a watch");
    assert_eq!(world.drivers.next_watch_event().expect("fires at once").watch, watch);
    world.ask(Kind::Write, b"y\0z");
    assert_eq!(world.drivers.next_watch_event().expect("a change").path, "/local/domain/1/y");
    world.drivers.unwatch(watch);
    world.ask(Kind::Write, b"y\0w");
    assert_eq!(world.drivers.next_watch_event(), None);
}

#[test]
fn a_guest_that_breaks_the_protocol_is_told_and_not_heard_until_it_reconnects() {
    let mut world = World::new();
    let mut header = [0_u8; 16];
    header[12..].copy_from_slice(&100_000_u32.to_le_bytes());
    world.send(&header);
    world.serve();
    assert_eq!(world.page.load_u32(2072, Ordering::SeqCst), 3);
    assert!(world.ask(Kind::Read, b"x\0").is_empty());
    world.page.store_u32(2068, 1, Ordering::SeqCst);
    world.serve();
    assert_eq!(world.page.load_u32(2068, Ordering::SeqCst), 0);
    assert_eq!(world.ask(Kind::Read, b"x\0")[0].payload, b"ENOENT\0");
}

#[test]
fn releasing_a_domain_gives_its_page_and_port_back() {
    let mut world = World::new();
    assert_eq!((world.host.inner.leaks().mappings, world.host.inner.leaks().ports), (1, 1));
    world.toolstack.release(GUEST).expect("introduced before");
    world.serve();
    assert_eq!((world.host.inner.leaks().mappings, world.host.inner.leaks().ports), (0, 0));
    assert_eq!(world.toolstack.release(GUEST), Err(StoreError::NoEntry));
}

#[test]
fn a_local_transaction_conflicts_with_a_guests_write() {
    let mut world = World::new();
    let path = "/local/domain/1/n";
    world.toolstack.write(Transaction::NONE, path, b"0").expect("written");
    world.toolstack.set_permissions(Transaction::NONE, path, &Permissions::private(GUEST)).expect("set");
    let open = world.toolstack.transaction_start().expect("open");
    assert_eq!(world.toolstack.read(open, path), Ok(b"0".to_vec()));
    world.ask(Kind::Write, b"n\x001");
    world.toolstack.write(open, path, b"2").expect("in the transaction");
    assert_eq!(world.toolstack.transaction_end(open, true), Err(StoreError::Again));
    assert_eq!(world.toolstack.text(path).as_deref(), Some("1"));
    assert_eq!(world.toolstack.directory(Transaction::NONE, "/local/domain/1"), Ok(vec!["n".to_string()]));
    assert!(world.toolstack.listing("/local").expect("readable").contains("/local/domain/1/n = \"1\""));
}
