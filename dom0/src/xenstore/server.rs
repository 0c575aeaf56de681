//! The server: sessions, the tree, and what each request does.
//!
//! A request comes in as a [`Message`]; its reply and the watch events it causes go into the sessions' outboxes, the
//! reply first. Connecting a domain's page is not the server's business: it hands an [`Order`] to whoever runs it.

use alloc::collections::BTreeMap;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use super::path::Location;
use super::session::Session;
use super::transaction::{Private, Transaction};
use super::tree::{self, Caller, Change, Tree, View};
use super::watch::Watch;
use super::wire::{self, Kind, Message, PAYLOAD_MAX};
use super::{Path, Permissions, Quota, StoreError};
use crate::ids::DomId;

/// Names a session. A guest's is its domain; dom0's own parts have further ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ConnectionId {
    /// The guest with this number.
    Domain(DomId),
    /// A part of dom0 itself.
    Local(u32),
}

/// What the server wants done outside itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Map the store page of `domain` and bind to its `port`.
    Connect {
        /// The domain.
        domain: DomId,
        /// Frame of the page, as the request gave it.
        frame: u64,
        /// The domain's event channel for the store.
        port: u32,
    },
    /// Unmap the page of `domain` and close the port.
    Disconnect {
        /// The domain.
        domain: DomId,
    },
}

/// The store.
#[derive(Debug)]
pub struct Server {
    tree: Tree,
    quota: Quota,
    sessions: BTreeMap<ConnectionId, Session>,
    introduced: Vec<DomId>,
    orders: Vec<Order>,
    next_transaction: u32,
}

impl Server {
    /// An empty store.
    pub fn new(quota: Quota) -> Self {
        Self {
            tree: Tree::new(quota),
            quota,
            sessions: BTreeMap::new(),
            introduced: Vec::new(),
            orders: Vec::new(),
            next_transaction: 1,
        }
    }

    /// Opens a session.
    pub fn connect(&mut self, id: ConnectionId) {
        let domain = match id {
            ConnectionId::Domain(domain) => domain,
            ConnectionId::Local(_) => DomId(0),
        };
        self.sessions.insert(id, Session::new(Caller::domain(domain)));
    }

    /// Closes a session; what it had open is dropped.
    pub fn disconnect(&mut self, id: ConnectionId) {
        self.sessions.remove(&id);
    }

    /// The session, to take its messages.
    pub fn session(&mut self, id: ConnectionId) -> Option<&mut Session> {
        self.sessions.get_mut(&id)
    }

    /// Whether more requests of this session may be read: not while it lets much wait.
    pub fn accepts(&self, id: ConnectionId) -> bool {
        self.sessions.get(&id).is_some_and(|session| session.waiting_bytes() < self.quota.waiting_bytes)
    }

    /// What has to be done outside.
    pub fn take_orders(&mut self) -> Vec<Order> {
        core::mem::take(&mut self.orders)
    }

    /// The tree, for inspection.
    pub fn tree(&self) -> &Tree {
        &self.tree
    }

    /// Domains that were introduced and not released.
    pub fn introduced(&self) -> &[DomId] {
        &self.introduced
    }

    /// Carries out one request of a session.
    pub fn handle(&mut self, id: ConnectionId, request: &Message) {
        if !self.sessions.contains_key(&id) {
            return;
        }
        let mut effects = Effects::default();
        let answer = match self.perform(id, request, &mut effects) {
            Ok(payload) if payload.len() > PAYLOAD_MAX => request.refusal(StoreError::TooBig),
            Ok(payload) => request.reply(payload),
            Err(error) => request.refusal(error),
        };
        if let Some(session) = self.sessions.get_mut(&id) {
            session.reply(answer);
        }
        self.publish(id, effects);
    }

    /// Tells every watcher that a domain stopped or went away (`@releaseDomain`).
    pub fn announce_released(&mut self) {
        self.tell_occasion(&Location::Released);
    }

    fn publish(&mut self, id: ConnectionId, effects: Effects) {
        if let Some((path, token)) = effects.first_fire
            && let Some(session) = self.sessions.get_mut(&id)
        {
            session.tell(Message::watch_event(&path, &token), None);
        }
        for change in &effects.changes {
            self.tell_change(change);
        }
        for occasion in &effects.occasions {
            self.tell_occasion(occasion);
        }
    }

    fn tell_change(&mut self, change: &Change) {
        for session in self.sessions.values_mut() {
            let limit = limit_for(session.caller, self.quota.waiting_bytes);
            for (path, token) in session.watches.events(session.caller, change) {
                session.tell(Message::watch_event(&path, &token), limit);
            }
        }
    }

    fn tell_occasion(&mut self, occasion: &Location) {
        for session in self.sessions.values_mut().filter(|session| session.caller.is_privileged()) {
            for (path, token) in session.watches.occasion(occasion) {
                session.tell(Message::watch_event(&path, &token), None);
            }
        }
    }

    fn perform(&mut self, id: ConnectionId, request: &Message, effects: &mut Effects) -> Result<Vec<u8>, StoreError> {
        let kind = Kind::from_number(request.kind).ok_or(StoreError::NotImplemented)?;
        let call = Call { id, transaction: request.transaction, payload: &request.payload };
        match kind {
            Kind::Directory => self.directory(call),
            Kind::DirectoryPart => self.directory_part(call),
            Kind::Read => self.read(call),
            Kind::GetPerms => self.get_perms(call),
            Kind::Write => self.write(call, effects),
            Kind::Mkdir => self.mkdir(call, effects),
            Kind::Rm => self.rm(call, effects),
            Kind::SetPerms => self.set_perms(call, effects),
            Kind::Watch => self.watch(call, effects),
            Kind::Unwatch => self.unwatch(call),
            Kind::ResetWatches => self.reset_watches(call),
            Kind::TransactionStart => self.transaction_start(call),
            Kind::TransactionEnd => self.transaction_end(call, effects),
            Kind::GetDomainPath => get_domain_path(call),
            Kind::IsDomainIntroduced => self.is_introduced(call),
            Kind::Introduce => self.introduce(call, effects),
            Kind::Release => self.release(call, effects),
            Kind::Resume => self.resume(call),
            Kind::SetTarget => self.set_target(call),
            Kind::Control => self.control(call),
            Kind::WatchEvent | Kind::Error => Err(StoreError::NotImplemented),
        }
    }

    fn caller(&self, id: ConnectionId) -> Result<Caller, StoreError> {
        self.sessions.get(&id).map(|session| session.caller).ok_or(StoreError::Io)
    }

    /// Runs `operation` on the tree or on the picture of the request's transaction.
    fn on_view<R>(
        &mut self,
        call: Call<'_>,
        operation: impl FnOnce(&mut dyn View, Caller, &mut Vec<Change>) -> Result<R, StoreError>,
    ) -> Result<(R, Vec<Change>), StoreError> {
        let caller = self.caller(call.id)?;
        let mut changes = Vec::new();
        if call.transaction == 0 {
            let result = operation(&mut self.tree, caller, &mut changes)?;
            return Ok((result, changes));
        }
        let session = self.sessions.get_mut(&call.id).ok_or(StoreError::Io)?;
        let transaction = session.transactions.get_mut(&call.transaction).ok_or(StoreError::NoEntry)?;
        let limited = !caller.is_privileged();
        let mut view = Private { tree: &self.tree, transaction, limited };
        let result = operation(&mut view, caller, &mut changes)?;
        transaction.remember(changes);
        Ok((result, Vec::new()))
    }

    fn node(&mut self, call: Call<'_>, path: &Path) -> Result<tree::Node, StoreError> {
        self.on_view(call, |view, caller, _| tree::fetch(view, caller, path, Caller::reads)).map(|(node, _)| node)
    }

    fn path(&self, call: Call<'_>, name: &str) -> Result<Path, StoreError> {
        Path::resolve(name, self.caller(call.id)?.domain)
    }

    fn read(&mut self, call: Call<'_>) -> Result<Vec<u8>, StoreError> {
        let [name] = wire::exactly(call.payload)?;
        let path = self.path(call, name)?;
        self.node(call, &path).map(|node| node.value)
    }

    fn directory(&mut self, call: Call<'_>) -> Result<Vec<u8>, StoreError> {
        let [name] = wire::exactly(call.payload)?;
        let path = self.path(call, name)?;
        self.node(call, &path).map(|node| names(&node))
    }

    /// A part of a long listing: the generation, then names from a byte offset on, an empty name at the end.
    fn directory_part(&mut self, call: Call<'_>) -> Result<Vec<u8>, StoreError> {
        let [name, offset] = wire::exactly(call.payload)?;
        let path = self.path(call, name)?;
        let offset: usize = offset.parse().map_err(|_| StoreError::Invalid)?;
        let node = self.node(call, &path)?;
        let all = names(&node);
        let rest = all.get(offset..).ok_or(StoreError::Invalid)?;
        let mut payload = alloc::format!("{}\0", node.generation).into_bytes();
        let room = PAYLOAD_MAX - payload.len() - 1;
        if rest.len() <= room {
            payload.extend_from_slice(rest);
            payload.push(0);
        } else {
            let cut = rest[..room].iter().rposition(|byte| *byte == 0).map_or(0, |last| last + 1);
            payload.extend_from_slice(&rest[..cut]);
        }
        Ok(payload)
    }

    fn get_perms(&mut self, call: Call<'_>) -> Result<Vec<u8>, StoreError> {
        let [name] = wire::exactly(call.payload)?;
        let path = self.path(call, name)?;
        let node = self.node(call, &path)?;
        let mut payload = Vec::new();
        node.perms.encode(&mut payload);
        Ok(payload)
    }

    fn write(&mut self, call: Call<'_>, effects: &mut Effects) -> Result<Vec<u8>, StoreError> {
        let (name, value) = wire::string_and_rest(call.payload)?;
        let path = self.path(call, name)?;
        self.change(call, effects, |view, caller, changes| tree::write(view, caller, &path, value, changes))
    }

    fn mkdir(&mut self, call: Call<'_>, effects: &mut Effects) -> Result<Vec<u8>, StoreError> {
        let [name] = wire::exactly(call.payload)?;
        let path = self.path(call, name)?;
        self.change(call, effects, |view, caller, changes| tree::mkdir(view, caller, &path, changes))
    }

    fn rm(&mut self, call: Call<'_>, effects: &mut Effects) -> Result<Vec<u8>, StoreError> {
        let [name] = wire::exactly(call.payload)?;
        let path = self.path(call, name)?;
        self.change(call, effects, |view, caller, changes| tree::remove(view, caller, &path, changes))
    }

    fn set_perms(&mut self, call: Call<'_>, effects: &mut Effects) -> Result<Vec<u8>, StoreError> {
        let parts = wire::strings(call.payload)?;
        let (name, entries) = parts.split_first().ok_or(StoreError::Invalid)?;
        let path = self.path(call, name)?;
        let perms = Permissions::decode(entries.iter().copied())?;
        self.change(call, effects, |view, caller, changes| tree::set_permissions(view, caller, &path, perms, changes))
    }

    fn change(
        &mut self,
        call: Call<'_>,
        effects: &mut Effects,
        operation: impl FnOnce(&mut dyn View, Caller, &mut Vec<Change>) -> Result<(), StoreError>,
    ) -> Result<Vec<u8>, StoreError> {
        let ((), changes) = self.on_view(call, operation)?;
        effects.changes.extend(changes);
        Ok(done())
    }

    fn watch(&mut self, call: Call<'_>, effects: &mut Effects) -> Result<Vec<u8>, StoreError> {
        let [name, token] = wire::exactly(call.payload)?;
        let caller = self.caller(call.id)?;
        let at = Location::resolve(name, caller.domain)?;
        if !matches!(at, Location::Node(_)) && !caller.is_privileged() {
            return Err(StoreError::Access);
        }
        let limit = limit_for(caller, self.quota.watches);
        let session = self.sessions.get_mut(&call.id).ok_or(StoreError::Io)?;
        session.watches.add(Watch { at, spelled: name.to_string(), token: token.to_string() }, limit)?;
        effects.first_fire = Some((name.to_string(), token.to_string()));
        Ok(done())
    }

    fn unwatch(&mut self, call: Call<'_>) -> Result<Vec<u8>, StoreError> {
        let [name, token] = wire::exactly(call.payload)?;
        let session = self.sessions.get_mut(&call.id).ok_or(StoreError::Io)?;
        let at = Location::resolve(name, session.caller.domain)?;
        session.watches.remove(&at, token)?;
        Ok(done())
    }

    fn reset_watches(&mut self, call: Call<'_>) -> Result<Vec<u8>, StoreError> {
        let session = self.sessions.get_mut(&call.id).ok_or(StoreError::Io)?;
        session.reset();
        Ok(done())
    }

    fn transaction_start(&mut self, call: Call<'_>) -> Result<Vec<u8>, StoreError> {
        if call.transaction != 0 {
            return Err(StoreError::Busy);
        }
        let caller = self.caller(call.id)?;
        let limit = limit_for(caller, self.quota.transactions);
        let number = self.fresh_transaction(call.id);
        let session = self.sessions.get_mut(&call.id).ok_or(StoreError::Io)?;
        if limit.is_some_and(|limit| session.transactions.len() >= limit) {
            return Err(StoreError::NoSpace);
        }
        session.transactions.insert(number, Transaction::new());
        Ok(alloc::format!("{number}\0").into_bytes())
    }

    fn fresh_transaction(&mut self, id: ConnectionId) -> u32 {
        loop {
            let number = self.next_transaction;
            self.next_transaction = self.next_transaction.wrapping_add(1).max(1);
            let taken = self.sessions.get(&id).is_some_and(|session| session.transactions.contains_key(&number));
            if !taken {
                return number;
            }
        }
    }

    fn transaction_end(&mut self, call: Call<'_>, effects: &mut Effects) -> Result<Vec<u8>, StoreError> {
        let [verdict] = wire::exactly(call.payload)?;
        let commit = match verdict {
            "T" => true,
            "F" => false,
            _ => return Err(StoreError::Invalid),
        };
        let session = self.sessions.get_mut(&call.id).ok_or(StoreError::Io)?;
        let transaction = session.transactions.remove(&call.transaction).ok_or(StoreError::NoEntry)?;
        if commit {
            effects.changes.extend(transaction.commit(&mut self.tree)?);
        }
        Ok(done())
    }

    fn is_introduced(&self, call: Call<'_>) -> Result<Vec<u8>, StoreError> {
        let [domain] = wire::exactly(call.payload)?;
        let known = self.introduced.contains(&domain_id(domain)?) || domain == "0";
        Ok(if known { b"T\0".to_vec() } else { b"F\0".to_vec() })
    }

    fn introduce(&mut self, call: Call<'_>, effects: &mut Effects) -> Result<Vec<u8>, StoreError> {
        self.privileged(call.id)?;
        let [domain, frame, port] = wire::exactly(call.payload)?;
        let domain = domain_id(domain)?;
        let frame = frame.parse().map_err(|_| StoreError::Invalid)?;
        let port = port.parse().map_err(|_| StoreError::Invalid)?;
        if domain == DomId(0) {
            return Err(StoreError::Invalid);
        }
        if let Some(session) = self.sessions.get_mut(&ConnectionId::Domain(domain)) {
            session.reset();
        } else {
            self.connect(ConnectionId::Domain(domain));
        }
        if !self.introduced.contains(&domain) {
            self.introduced.push(domain);
            effects.occasions.push(Location::Introduced);
        }
        self.orders.push(Order::Connect { domain, frame, port });
        Ok(done())
    }

    fn release(&mut self, call: Call<'_>, effects: &mut Effects) -> Result<Vec<u8>, StoreError> {
        self.privileged(call.id)?;
        let domain = self.known_domain(call.payload)?;
        self.introduced.retain(|known| *known != domain);
        self.disconnect(ConnectionId::Domain(domain));
        effects.changes.extend(self.tree.forget_domain(domain));
        effects.occasions.push(Location::Released);
        self.orders.push(Order::Disconnect { domain });
        Ok(done())
    }

    fn resume(&mut self, call: Call<'_>) -> Result<Vec<u8>, StoreError> {
        self.privileged(call.id)?;
        self.known_domain(call.payload)?;
        Ok(done())
    }

    fn set_target(&mut self, call: Call<'_>) -> Result<Vec<u8>, StoreError> {
        self.privileged(call.id)?;
        let [domain, target] = wire::exactly(call.payload)?;
        let (domain, target) = (domain_id(domain)?, domain_id(target)?);
        let session = self.sessions.get_mut(&ConnectionId::Domain(domain)).ok_or(StoreError::NoEntry)?;
        session.caller.target = Some(target);
        Ok(done())
    }

    fn control(&self, call: Call<'_>) -> Result<Vec<u8>, StoreError> {
        self.privileged(call.id)?;
        match wire::strings(call.payload)?.as_slice() {
            ["help"] => Ok(b"check\nhelp\nquota\n\0".to_vec()),
            ["check"] => self.check(),
            ["quota"] => Ok(alloc::format!("{:?}\0", self.quota).into_bytes()),
            _ => Err(StoreError::Invalid),
        }
    }

    /// Looks for a node that its parent does not list, or the reverse.
    fn check(&self) -> Result<Vec<u8>, StoreError> {
        let lists = |path: &Path| {
            path.parent()
                .is_none_or(|above| self.tree.peek(&above).is_some_and(|parent| parent.children.contains(path.name())))
        };
        let lost: Vec<String> = self.tree.paths().filter(|path| !lists(path)).map(Path::to_string).collect();
        Ok(if lost.is_empty() { done() } else { alloc::format!("{}\0", lost.join("\n")).into_bytes() })
    }

    fn privileged(&self, id: ConnectionId) -> Result<(), StoreError> {
        if self.caller(id)?.is_privileged() { Ok(()) } else { Err(StoreError::Access) }
    }

    fn known_domain(&self, payload: &[u8]) -> Result<DomId, StoreError> {
        let [domain] = wire::exactly(payload)?;
        let domain = domain_id(domain)?;
        if self.introduced.contains(&domain) { Ok(domain) } else { Err(StoreError::NoEntry) }
    }
}

/// A request on its way through the server.
#[derive(Clone, Copy)]
struct Call<'a> {
    id: ConnectionId,
    transaction: u32,
    payload: &'a [u8],
}

/// What a request causes beyond its reply.
#[derive(Default)]
struct Effects {
    first_fire: Option<(String, String)>,
    changes: Vec<Change>,
    occasions: Vec<Location>,
}

fn done() -> Vec<u8> {
    b"OK\0".to_vec()
}

fn limit_for(caller: Caller, limit: usize) -> Option<usize> {
    (!caller.is_privileged()).then_some(limit)
}

fn names(node: &tree::Node) -> Vec<u8> {
    let mut out = Vec::new();
    for name in &node.children {
        out.extend_from_slice(name.as_bytes());
        out.push(0);
    }
    out
}

fn domain_id(text: &str) -> Result<DomId, StoreError> {
    text.parse().map(DomId).map_err(|_| StoreError::Invalid)
}

fn get_domain_path(call: Call<'_>) -> Result<Vec<u8>, StoreError> {
    let [domain] = wire::exactly(call.payload)?;
    Ok(alloc::format!("{}\0", Path::home(domain_id(domain)?)).into_bytes())
}
