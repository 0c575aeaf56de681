//! The store against a model: a map of names to values, and transactions that run at one instant.

use std::collections::BTreeMap;

use dom0::ids::DomId;
use dom0::xenstore::wire::{Kind, Message};
use dom0::xenstore::{ConnectionId, Quota, Server};
use proptest::prelude::*;

const ME: ConnectionId = ConnectionId::Local(0);
const OTHER: ConnectionId = ConnectionId::Local(1);

#[derive(Clone, Debug)]
enum Op {
    Read(String),
    Write(String, Vec<u8>),
    Mkdir(String),
    Rm(String),
    Directory(String),
}

type Answer = Result<Vec<u8>, String>;

/// The tree as the specification has it: a node exists with all above it.
#[derive(Clone, Debug, Default)]
struct Model(BTreeMap<String, Vec<u8>>);

impl Model {
    fn make(&mut self, path: &str) {
        let mut at = String::new();
        for part in path[1..].split('/') {
            at = format!("{at}/{part}");
            self.0.entry(at.clone()).or_default();
        }
    }

    fn parent_exists(&self, path: &str) -> bool {
        let cut = path.rfind('/').unwrap_or(0);
        cut == 0 || self.0.contains_key(&path[..cut])
    }

    fn apply(&mut self, op: &Op) -> Answer {
        let ok = || Ok(b"OK\0".to_vec());
        let none = || Err("ENOENT".to_string());
        match op {
            Op::Read(path) => self.0.get(path).cloned().map_or_else(none, Ok),
            Op::Write(path, value) => {
                self.make(path);
                self.0.insert(path.clone(), value.clone());
                ok()
            }
            Op::Mkdir(path) => {
                self.make(path);
                ok()
            }
            Op::Rm(path) if self.0.contains_key(path) || self.parent_exists(path) => {
                let below = format!("{path}/");
                self.0.retain(|name, _| name != path && !name.starts_with(&below));
                ok()
            }
            Op::Rm(_) => none(),
            Op::Directory(path) if !self.0.contains_key(path) => none(),
            Op::Directory(path) => Ok(self.children(path)),
        }
    }

    fn children(&self, path: &str) -> Vec<u8> {
        let below = format!("{path}/");
        let names = self.0.keys().filter_map(|name| name.strip_prefix(&below));
        names.filter(|name| !name.contains('/')).flat_map(|name| format!("{name}\0").into_bytes()).collect()
    }
}

fn message(transaction: u32, op: &Op) -> Message {
    let (kind, payload) = match op {
        Op::Read(path) => (Kind::Read, format!("{path}\0").into_bytes()),
        Op::Mkdir(path) => (Kind::Mkdir, format!("{path}\0").into_bytes()),
        Op::Rm(path) => (Kind::Rm, format!("{path}\0").into_bytes()),
        Op::Directory(path) => (Kind::Directory, format!("{path}\0").into_bytes()),
        Op::Write(path, value) => {
            let mut payload = format!("{path}\0").into_bytes();
            payload.extend_from_slice(value);
            (Kind::Write, payload)
        }
    };
    Message { kind: kind as u32, request_id: 7, transaction, payload }
}

fn ask(server: &mut Server, id: ConnectionId, request: &Message) -> Answer {
    server.handle(id, request);
    let reply = server.session(id).expect("connected").take().expect("a reply");
    assert_eq!(reply.request_id, request.request_id);
    assert_eq!(reply.transaction, request.transaction);
    if reply.kind == Kind::Error as u32 {
        let name = String::from_utf8(reply.payload).expect("a name");
        return Err(name.trim_end_matches('\0').to_string());
    }
    assert_eq!(reply.kind, request.kind);
    Ok(reply.payload)
}

fn start(server: &mut Server, id: ConnectionId) -> u32 {
    let request = Message { kind: Kind::TransactionStart as u32, request_id: 1, transaction: 0, payload: vec![0] };
    let number = ask(server, id, &request).expect("a transaction");
    std::str::from_utf8(&number).expect("text").trim_end_matches('\0').parse().expect("a number")
}

fn end(server: &mut Server, id: ConnectionId, transaction: u32) -> Answer {
    let request = Message { kind: Kind::TransactionEnd as u32, request_id: 2, transaction, payload: b"T\0".to_vec() };
    ask(server, id, &request)
}

fn server() -> Server {
    let mut server = Server::new(Quota::default());
    server.connect(ME);
    server.connect(OTHER);
    server
}

fn path() -> impl Strategy<Value = String> {
    prop::collection::vec(prop::sample::select(vec!["a", "b", "c"]), 1..4)
        .prop_map(|parts| format!("/{}", parts.join("/")))
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        path().prop_map(Op::Read),
        (path(), prop::collection::vec(any::<u8>(), 0..6)).prop_map(|(path, value)| Op::Write(path, value)),
        path().prop_map(Op::Mkdir),
        path().prop_map(Op::Rm),
        path().prop_map(Op::Directory),
    ]
}

proptest! {
    #[test]
    fn every_answer_is_the_models_answer(ops in prop::collection::vec(op(), 0..60)) {
        let (mut server, mut model) = (server(), Model::default());
        for op in &ops {
            prop_assert_eq!(ask(&mut server, ME, &message(0, op)), model.apply(op), "{:?}", op);
        }
    }

    #[test]
    fn a_transaction_that_commits_could_have_run_at_the_moment_of_its_commit(
        before in prop::collection::vec(op(), 0..10),
        steps in prop::collection::vec((any::<bool>(), op()), 0..20),
    ) {
        let (mut server, mut model) = (server(), Model::default());
        for op in &before {
            prop_assert_eq!(ask(&mut server, ME, &message(0, op)), model.apply(op));
        }
        let transaction = start(&mut server, ME);
        let mut inside = Vec::new();
        for (mine, op) in steps {
            if mine {
                let answer = ask(&mut server, ME, &message(transaction, &op));
                inside.push((op, answer));
            } else {
                prop_assert_eq!(ask(&mut server, OTHER, &message(0, &op)), model.apply(&op));
            }
        }
        match end(&mut server, ME, transaction) {
            Ok(_) => for (op, answer) in inside {
                prop_assert_eq!(answer, model.apply(&op), "{:?}", op);
            },
            Err(name) => prop_assert_eq!(name, "EAGAIN"),
        }
        for name in ["/a", "/a/b", "/b", "/c", "/c/c/c"] {
            let read = Op::Read(name.to_string());
            prop_assert_eq!(ask(&mut server, OTHER, &message(0, &read)), model.apply(&read));
        }
    }

    #[test]
    fn no_payload_of_a_guest_stops_the_server_or_gets_past_its_quota(
        requests in prop::collection::vec((0_u32..25, 0_u32..3, prop::collection::vec(any::<u8>(), 0..40)), 0..60),
    ) {
        let mut server = server();
        let guest = ConnectionId::Domain(DomId(5));
        server.connect(guest);
        for (kind, transaction, payload) in requests {
            server.handle(guest, &Message { kind, request_id: 0, transaction, payload });
            server.session(guest).expect("still there").take_all();
        }
        prop_assert_eq!(server.tree().owned_by(DomId(5)), 0);
        prop_assert!(server.take_orders().is_empty());
    }
}
