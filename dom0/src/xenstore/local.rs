//! The store for the parts of this domain itself: the same requests, without a ring.
//!
//! It also serves the split drivers here: it is a [`pv_bus::Store`].

use alloc::collections::{BTreeMap, VecDeque};
use alloc::format;
use alloc::rc::Rc;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::cell::RefCell;

use pv_bus::{Store, StoreError, Transaction, WatchEvent, WatchId};

use super::wire::{self, Kind, Message};
use super::{ConnectionId, Permissions, Server};
use crate::ids::DomId;

/// A client inside this domain.
#[derive(Debug)]
pub struct LocalStore {
    server: Rc<RefCell<Server>>,
    id: ConnectionId,
    watches: BTreeMap<WatchId, String>,
    events: VecDeque<WatchEvent>,
    next_watch: u64,
}

impl LocalStore {
    /// Opens session `number` of this domain.
    pub fn connect(server: Rc<RefCell<Server>>, number: u32) -> Self {
        let id = ConnectionId::Local(number);
        server.borrow_mut().connect(id);
        Self { server, id, watches: BTreeMap::new(), events: VecDeque::new(), next_watch: 1 }
    }

    /// Reads a node as text, or none if it cannot be read.
    pub fn text(&mut self, path: &str) -> Option<String> {
        String::from_utf8(self.read(Transaction::NONE, path).ok()?).ok()
    }

    /// Replaces a node's permissions.
    ///
    /// # Errors
    /// The store's answer.
    pub fn set_permissions(
        &mut self,
        transaction: Transaction,
        path: &str,
        perms: &Permissions,
    ) -> Result<(), StoreError> {
        let mut payload = format!("{path}\0").into_bytes();
        perms.encode(&mut payload);
        self.ask(transaction, Kind::SetPerms, payload).map(drop)
    }

    /// Connects a domain (`XS_INTRODUCE`).
    ///
    /// # Errors
    /// The store's answer.
    pub fn introduce(&mut self, domain: DomId, frame: u64, port: u32) -> Result<(), StoreError> {
        let payload = format!("{}\0{frame}\0{port}\0", domain.0).into_bytes();
        self.ask(Transaction::NONE, Kind::Introduce, payload).map(drop)
    }

    /// Disconnects a domain (`XS_RELEASE`).
    ///
    /// # Errors
    /// The store's answer.
    pub fn release(&mut self, domain: DomId) -> Result<(), StoreError> {
        let payload = format!("{}\0", domain.0).into_bytes();
        self.ask(Transaction::NONE, Kind::Release, payload).map(drop)
    }

    /// Says that a domain which suspended goes on (`XS_RESUME`).
    ///
    /// # Errors
    /// The store's answer.
    pub fn resume(&mut self, domain: DomId) -> Result<(), StoreError> {
        let payload = format!("{}\0", domain.0).into_bytes();
        self.ask(Transaction::NONE, Kind::Resume, payload).map(drop)
    }

    /// The tree from `path` on, one line a node, as `xenstore-ls -f` shows it.
    pub fn listing(&mut self, path: &str) -> Result<String, StoreError> {
        let mut out = String::new();
        let mut todo = alloc::vec![path.to_string()];
        while let Some(at) = todo.pop() {
            let value = self.read(Transaction::NONE, &at)?;
            out.push_str(&format!("{at} = \"{}\"\n", String::from_utf8_lossy(&value).escape_debug()));
            let children = self.directory(Transaction::NONE, &at)?;
            let stem = if at == "/" { "" } else { at.as_str() };
            todo.extend(children.iter().rev().map(|name| format!("{stem}/{name}")));
        }
        Ok(out.trim_end().to_string())
    }

    fn ask(&mut self, transaction: Transaction, kind: Kind, payload: Vec<u8>) -> Result<Vec<u8>, StoreError> {
        let request = Message { kind: kind as u32, request_id: 0, transaction: transaction.0, payload };
        self.server.borrow_mut().handle(self.id, &request);
        let mut answer = None;
        self.collect(|message| answer = Some(message));
        let answer = answer.ok_or(StoreError::Io)?;
        if answer.kind == Kind::Error as u32 {
            let name = core::str::from_utf8(&answer.payload).unwrap_or("");
            return Err(StoreError::from_wire(name.trim_end_matches('\0')));
        }
        Ok(answer.payload)
    }

    /// Takes what the server has for this client: watch events are kept, a reply goes to `reply`.
    fn collect(&mut self, mut reply: impl FnMut(Message)) {
        let messages = match self.server.borrow_mut().session(self.id) {
            Some(session) => session.take_all(),
            None => Vec::new(),
        };
        for message in messages {
            if message.kind == Kind::WatchEvent as u32 {
                self.events.extend(event(&message));
            } else {
                reply(message);
            }
        }
    }

    fn on_path(&mut self, transaction: Transaction, kind: Kind, path: &str) -> Result<Vec<u8>, StoreError> {
        self.ask(transaction, kind, format!("{path}\0").into_bytes())
    }
}

fn event(message: &Message) -> Option<WatchEvent> {
    let [path, token] = wire::exactly(&message.payload).ok()?;
    Some(WatchEvent { watch: WatchId(token.parse().ok()?), path: path.to_string() })
}

impl Store for LocalStore {
    fn read(&mut self, transaction: Transaction, path: &str) -> Result<Vec<u8>, StoreError> {
        self.on_path(transaction, Kind::Read, path)
    }

    fn write(&mut self, transaction: Transaction, path: &str, value: &[u8]) -> Result<(), StoreError> {
        let mut payload = format!("{path}\0").into_bytes();
        payload.extend_from_slice(value);
        self.ask(transaction, Kind::Write, payload).map(drop)
    }

    fn mkdir(&mut self, transaction: Transaction, path: &str) -> Result<(), StoreError> {
        self.on_path(transaction, Kind::Mkdir, path).map(drop)
    }

    fn rm(&mut self, transaction: Transaction, path: &str) -> Result<(), StoreError> {
        self.on_path(transaction, Kind::Rm, path).map(drop)
    }

    fn directory(&mut self, transaction: Transaction, path: &str) -> Result<Vec<String>, StoreError> {
        let names = self.on_path(transaction, Kind::Directory, path)?;
        if names.is_empty() {
            return Ok(Vec::new());
        }
        Ok(wire::strings(&names)?.into_iter().map(ToString::to_string).collect())
    }

    fn transaction_start(&mut self) -> Result<Transaction, StoreError> {
        let number = self.ask(Transaction::NONE, Kind::TransactionStart, alloc::vec![0])?;
        let [number] = wire::exactly(&number)?;
        number.parse().map(Transaction).map_err(|_| StoreError::Io)
    }

    fn transaction_end(&mut self, transaction: Transaction, commit: bool) -> Result<(), StoreError> {
        let verdict: &[u8] = if commit { b"T\0" } else { b"F\0" };
        self.ask(transaction, Kind::TransactionEnd, verdict.to_vec()).map(drop)
    }

    fn watch(&mut self, path: &str) -> Result<WatchId, StoreError> {
        let id = WatchId(self.next_watch);
        self.next_watch += 1;
        self.ask(Transaction::NONE, Kind::Watch, format!("{path}\0{}\0", id.0).into_bytes())?;
        self.watches.insert(id, path.to_string());
        Ok(id)
    }

    fn unwatch(&mut self, watch: WatchId) {
        if let Some(path) = self.watches.remove(&watch) {
            let payload = format!("{path}\0{}\0", watch.0).into_bytes();
            if let Err(error) = self.ask(Transaction::NONE, Kind::Unwatch, payload) {
                log::warn!("xenstore: watch on {path} could not be ended: {error}");
            }
            self.events.retain(|event| event.watch != watch);
        }
    }

    fn next_watch_event(&mut self) -> Option<WatchEvent> {
        self.collect(|_| {});
        self.events.pop_front()
    }
}
