//! What a client of the store may rely on, and what a guest may not do.

use dom0::ids::DomId;
use dom0::xenstore::server::Order;
use dom0::xenstore::wire::{Kind, Message};
use dom0::xenstore::{ConnectionId, Quota, Server};

const DOM0: ConnectionId = ConnectionId::Local(0);
const GUEST: ConnectionId = ConnectionId::Domain(DomId(5));

struct Store(Server);

impl Store {
    /// A store with a guest 5 that owns its home.
    fn new() -> Self {
        let mut store = Self(Server::new(Quota::default()));
        store.0.connect(DOM0);
        store.ok(DOM0, Kind::Introduce, "5\x00100\x003\0");
        store.ok(DOM0, Kind::Mkdir, "/local/domain/5\0");
        store.ok(DOM0, Kind::SetPerms, "/local/domain/5\0n5\0");
        store
    }

    fn ask_in(&mut self, id: ConnectionId, transaction: u32, kind: Kind, payload: &str) -> (Vec<Message>, Message) {
        let request = Message { kind: kind as u32, request_id: 9, transaction, payload: payload.as_bytes().to_vec() };
        self.0.handle(id, &request);
        let mut messages = self.0.session(id).expect("connected").take_all();
        let at = messages.iter().position(|message| message.kind != Kind::WatchEvent as u32).expect("a reply");
        let reply = messages.remove(at);
        (messages, reply)
    }

    fn ok(&mut self, id: ConnectionId, kind: Kind, payload: &str) -> String {
        let (_, reply) = self.ask_in(id, 0, kind, payload);
        assert_eq!(reply.kind, kind as u32, "{payload:?}: {:?}", String::from_utf8_lossy(&reply.payload));
        String::from_utf8(reply.payload).expect("text")
    }

    fn refused(&mut self, id: ConnectionId, kind: Kind, payload: &str) -> String {
        let (_, reply) = self.ask_in(id, 0, kind, payload);
        assert_eq!(reply.kind, Kind::Error as u32, "{payload:?}");
        String::from_utf8(reply.payload).expect("text").trim_end_matches('\0').to_string()
    }

    fn events(&mut self, id: ConnectionId) -> Vec<String> {
        let messages = self.0.session(id).expect("connected").take_all();
        messages.into_iter().map(|message| String::from_utf8(message.payload).expect("text")).collect()
    }
}

#[test]
fn a_guest_owns_its_home_and_sees_no_other() {
    let mut store = Store::new();
    store.ok(DOM0, Kind::Write, "/secret/key\0value");
    store.ok(GUEST, Kind::Write, "device/x\0hello");
    assert_eq!(store.ok(GUEST, Kind::Read, "/local/domain/5/device/x\0"), "hello");
    assert_eq!(store.refused(GUEST, Kind::Read, "/secret/key\0"), "EACCES");
    assert_eq!(store.refused(GUEST, Kind::Read, "/secret/none\0"), "EACCES");
    assert_eq!(store.refused(GUEST, Kind::Read, "device/none\0"), "ENOENT");
    assert_eq!(store.refused(GUEST, Kind::Write, "/local/domain/6/x\0y"), "EACCES");
    assert_eq!(store.refused(GUEST, Kind::Rm, "/\0"), "EINVAL");
}

#[test]
fn a_guest_may_read_what_it_is_named_for_and_not_write_it() {
    let mut store = Store::new();
    store.ok(DOM0, Kind::Write, "/backend/state\x002");
    store.ok(DOM0, Kind::SetPerms, "/backend/state\0n0\0r5\0");
    assert_eq!(store.ok(GUEST, Kind::Read, "/backend/state\0"), "2");
    assert_eq!(store.refused(GUEST, Kind::Write, "/backend/state\x004"), "EACCES");
    assert_eq!(store.refused(GUEST, Kind::SetPerms, "/backend/state\0n5\0"), "EACCES");
    assert_eq!(store.ok(GUEST, Kind::GetPerms, "/backend/state\0"), "n0\0r5\0");
}

#[test]
fn a_guest_cannot_give_its_nodes_away() {
    let mut store = Store::new();
    store.ok(GUEST, Kind::Write, "x\0y");
    assert_eq!(store.refused(GUEST, Kind::SetPerms, "x\0n0\0"), "EPERM");
    assert_eq!(store.refused(GUEST, Kind::SetPerms, "x\0n5\0r0\0r1\0r2\0r3\0r4\0"), "ENOSPC");
}

#[test]
fn privileged_requests_are_refused_to_guests() {
    let mut store = Store::new();
    for (kind, payload) in [
        (Kind::Introduce, "6\x001\x001\0"),
        (Kind::Release, "5\0"),
        (Kind::SetTarget, "5\x000\0"),
        (Kind::Control, "help\0"),
        (Kind::Resume, "5\0"),
    ] {
        assert_eq!(store.refused(GUEST, kind, payload), "EACCES", "{kind:?}");
    }
    assert_eq!(store.refused(GUEST, Kind::Watch, "@releaseDomain\0t\0"), "EACCES");
}

#[test]
fn a_watch_fires_at_once_and_then_for_the_node_and_all_below_it() {
    let mut store = Store::new();
    let (events, reply) = store.ask_in(GUEST, 0, Kind::Watch, "device\0tok\0");
    assert_eq!(reply.payload, b"OK\0");
    assert_eq!(events[0].payload, b"device\0tok\0");
    store.ok(DOM0, Kind::Write, "/local/domain/5/device/vbd/state\x001");
    assert_eq!(store.events(GUEST), ["device/vbd/state\0tok\0"]);
    store.ok(DOM0, Kind::Rm, "/local/domain/5/device\0");
    assert_eq!(store.events(GUEST), ["device\0tok\0"]);
    store.ok(GUEST, Kind::Unwatch, "device\0tok\0");
    store.ok(DOM0, Kind::Write, "/local/domain/5/device\0x");
    assert!(store.events(GUEST).is_empty());
    assert_eq!(store.refused(GUEST, Kind::Unwatch, "device\0tok\0"), "ENOENT");
}

#[test]
fn the_same_watch_twice_is_refused() {
    let mut store = Store::new();
    store.ok(GUEST, Kind::Watch, "a\0t\0");
    assert_eq!(store.refused(GUEST, Kind::Watch, "a\0t\0"), "EEXIST");
    store.ok(GUEST, Kind::Watch, "a\0other\0");
    store.ok(GUEST, Kind::ResetWatches, "\0");
    store.ok(GUEST, Kind::Watch, "a\0t\0");
}

#[test]
fn changes_in_a_transaction_are_told_at_its_commit_and_not_at_all_when_it_is_dropped() {
    let mut store = Store::new();
    store.ok(DOM0, Kind::Watch, "/local/domain/5\0t\0");
    store.events(DOM0);
    for (verdict, expected) in [("F\0", 0), ("T\0", 1)] {
        let number: u32 =
            store.ok(GUEST, Kind::TransactionStart, "\0").trim_end_matches('\0').parse().expect("a number");
        store.ask_in(GUEST, number, Kind::Write, "k\0v");
        assert!(store.events(DOM0).is_empty());
        assert_eq!(store.refused(DOM0, Kind::Read, "/local/domain/5/k\0"), "ENOENT");
        let (_, reply) = store.ask_in(GUEST, number, Kind::TransactionEnd, verdict);
        assert_eq!(reply.payload, b"OK\0");
        assert_eq!(store.events(DOM0).len(), expected);
    }
    assert_eq!(store.ok(DOM0, Kind::Read, "/local/domain/5/k\0"), "v");
}

#[test]
fn the_second_of_two_conflicting_transactions_is_told_to_start_again() {
    let mut store = Store::new();
    store.ok(GUEST, Kind::Write, "count\x000");
    let mut begin =
        || -> u32 { store.ok(GUEST, Kind::TransactionStart, "\0").trim_end_matches('\0').parse().expect("a number") };
    let (one, two) = (begin(), begin());
    for (number, value) in [(one, "count\x001"), (two, "count\x002")] {
        store.ask_in(GUEST, number, Kind::Read, "count\0");
        store.ask_in(GUEST, number, Kind::Write, value);
    }
    let (_, first) = store.ask_in(GUEST, one, Kind::TransactionEnd, "T\0");
    let (_, second) = store.ask_in(GUEST, two, Kind::TransactionEnd, "T\0");
    assert_eq!(first.payload, b"OK\0");
    assert_eq!(second.payload, b"EAGAIN\0");
    assert_eq!(store.ok(GUEST, Kind::Read, "count\0"), "1");
}

#[test]
fn quotas_bound_nodes_watches_transactions_and_sizes() {
    let mut store = Store::new();
    let nodes = (0..2000).take_while(|n| {
        store.ask_in(GUEST, 0, Kind::Mkdir, &format!("d{}/n{n}\0", n / 100)).1.kind == Kind::Mkdir as u32
    });
    assert!((900..1000).contains(&nodes.count()));
    let watches = (0..500)
        .take_while(|n| store.ask_in(GUEST, 0, Kind::Watch, &format!("w{n}\0t\0")).1.kind == Kind::Watch as u32);
    assert_eq!(watches.count(), 128);
    let open = (0..50)
        .take_while(|_| store.ask_in(GUEST, 0, Kind::TransactionStart, "\0").1.kind == Kind::TransactionStart as u32);
    assert_eq!(open.count(), 10);
    let large = format!("d0\0{}", "x".repeat(2049));
    assert_eq!(store.refused(GUEST, Kind::Write, &large), "ENOSPC");
}

#[test]
fn a_guest_that_does_not_read_its_events_costs_a_bounded_amount() {
    let mut store = Store::new();
    for n in 0..100 {
        store.ok(GUEST, Kind::Watch, &format!("a\0{n:01000}\0"));
    }
    for n in 0..50 {
        store.ok(DOM0, Kind::Write, &format!("/local/domain/5/a/{n}\0x"));
    }
    let waiting = store.0.session(GUEST).expect("connected").waiting_bytes();
    assert!(waiting <= Quota::default().waiting_bytes, "{waiting}");
    assert!(waiting > 0);
}

#[test]
fn a_long_directory_is_read_in_parts_that_join_to_the_whole() {
    let mut store = Store::new();
    for n in 0..500 {
        store.ok(DOM0, Kind::Write, &format!("/long/a-rather-long-name-{n:03}\0x"));
    }
    assert_eq!(store.refused(DOM0, Kind::Directory, "/long\0"), "E2BIG");
    let (mut offset, mut whole) = (0, String::new());
    loop {
        let part = store.ok(DOM0, Kind::DirectoryPart, &format!("/long\0{offset}\0"));
        let names = part.split_once('\0').expect("a generation").1.to_string();
        match names.strip_suffix("\0\0") {
            Some(last) => {
                whole.push_str(last);
                break;
            }
            None => {
                offset += names.len();
                whole.push_str(&names);
            }
        }
    }
    assert_eq!(whole.split('\0').count(), 500);
}

#[test]
fn releasing_a_domain_removes_what_it_owned_and_tells_the_watchers() {
    let mut store = Store::new();
    store.ok(GUEST, Kind::Write, "x/y\0z");
    store.ok(DOM0, Kind::Write, "/shared\0v");
    store.ok(DOM0, Kind::SetPerms, "/shared\0n0\0r5\0");
    store.ok(DOM0, Kind::Watch, "@releaseDomain\0r\0");
    store.events(DOM0);
    assert_eq!(store.ok(DOM0, Kind::IsDomainIntroduced, "5\0"), "T\0");
    store.0.take_orders();
    let (events, _) = store.ask_in(DOM0, 0, Kind::Release, "5\0");
    assert_eq!(events[0].payload, b"@releaseDomain\0r\0");
    assert_eq!(store.0.take_orders(), [Order::Disconnect { domain: DomId(5) }]);
    assert_eq!(store.ok(DOM0, Kind::IsDomainIntroduced, "5\0"), "F\0");
    assert_eq!(store.refused(DOM0, Kind::Read, "/local/domain/5/x/y\0"), "ENOENT");
    assert_eq!(store.ok(DOM0, Kind::GetPerms, "/shared\0"), "n0\0");
    assert_eq!(store.0.tree().owned_by(DomId(5)), 0);
    assert_eq!(store.ok(DOM0, Kind::Control, "check\0"), "OK\0");
}

#[test]
fn an_unknown_request_is_enosys_and_a_closed_session_is_ignored() {
    let mut store = Store::new();
    let request = Message { kind: 77, request_id: 3, transaction: 0, payload: vec![] };
    store.0.handle(GUEST, &request);
    let reply = store.0.session(GUEST).expect("connected").take().expect("a reply");
    assert_eq!((reply.kind, reply.request_id, reply.payload.as_slice()), (16, 3, b"ENOSYS\0".as_slice()));
    store.0.handle(ConnectionId::Domain(DomId(99)), &request);
}
