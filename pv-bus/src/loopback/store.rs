//! The xenstore of the in-memory world: a tree, watches, and transactions that fail when anything else changed.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use super::{Loopback, World};
use crate::StoreError;
use crate::hal::{Store, Transaction, WatchEvent, WatchId};
use pv_abi::DomId;

const NODE_LIMIT_BYTES: usize = 2048;

type Nodes = BTreeMap<String, Vec<u8>>;

#[derive(Default)]
pub(super) struct StoreTree {
    nodes: Nodes,
    /// Counts changes; a transaction remembers where it began.
    generation: u64,
    transactions: BTreeMap<u32, OpenTransaction>,
    next_transaction: u32,
    next_watch: u64,
}

struct OpenTransaction {
    nodes: Nodes,
    began: u64,
    changed: Vec<String>,
}

pub(super) struct Watch {
    id: WatchId,
    /// Absolute.
    path: String,
    /// What the watcher called it, so that it is told in its own words.
    given: String,
}

fn absolute(id: DomId, path: &str) -> Result<String, StoreError> {
    let malformed = path.is_empty() || path.ends_with('/') || path.contains("//");
    if malformed || path.len() > 3072 {
        return Err(StoreError::Invalid);
    }
    if path.starts_with('/') { Ok(path.into()) } else { Ok(format!("/local/domain/{}/{path}", id.0)) }
}

fn is_below(path: &str, ancestor: &str) -> bool {
    path.strip_prefix(ancestor).is_some_and(|rest| rest.starts_with('/'))
}

fn parents(path: &str) -> impl Iterator<Item = &str> {
    path.match_indices('/').map(|(at, _)| &path[..at]).filter(|parent| !parent.is_empty())
}

impl StoreTree {
    fn nodes(&self, transaction: Transaction) -> Result<&Nodes, StoreError> {
        if transaction == Transaction::NONE {
            return Ok(&self.nodes);
        }
        self.transactions.get(&transaction.0).map(|open| &open.nodes).ok_or(StoreError::NoEntry)
    }

    fn change(&mut self, transaction: Transaction, path: &str) -> Result<&mut Nodes, StoreError> {
        if transaction == Transaction::NONE {
            self.generation += 1;
            return Ok(&mut self.nodes);
        }
        let open = self.transactions.get_mut(&transaction.0).ok_or(StoreError::NoEntry)?;
        open.changed.push(path.into());
        Ok(&mut open.nodes)
    }

    fn put(&mut self, transaction: Transaction, path: &str, value: &[u8]) -> Result<(), StoreError> {
        let nodes = self.change(transaction, path)?;
        for parent in parents(path) {
            nodes.entry(parent.into()).or_default();
        }
        nodes.insert(path.into(), value.to_vec());
        Ok(())
    }

    fn remove(&mut self, transaction: Transaction, path: &str) -> Result<(), StoreError> {
        let nodes = self.change(transaction, path)?;
        if !nodes.contains_key(path) {
            let parent = path.rsplit_once('/').map_or("", |(parent, _)| parent);
            return if nodes.contains_key(parent) { Ok(()) } else { Err(StoreError::NoEntry) };
        }
        nodes.retain(|node, _| node != path && !is_below(node, path));
        Ok(())
    }

    fn children(&self, transaction: Transaction, path: &str) -> Result<Vec<String>, StoreError> {
        let nodes = self.nodes(transaction)?;
        if !nodes.contains_key(path) {
            return Err(StoreError::NoEntry);
        }
        let below = nodes.keys().filter(|node| is_below(node, path));
        let names: BTreeSet<&str> = below.filter_map(|node| node[path.len() + 1..].split('/').next()).collect();
        Ok(names.into_iter().map(ToString::to_string).collect())
    }

    fn start(&mut self) -> Transaction {
        self.next_transaction += 1;
        let open = OpenTransaction { nodes: self.nodes.clone(), began: self.generation, changed: Vec::new() };
        self.transactions.insert(self.next_transaction, open);
        Transaction(self.next_transaction)
    }

    /// The paths that changed.
    fn end(&mut self, transaction: Transaction, commit: bool) -> Result<Vec<String>, StoreError> {
        let open = self.transactions.remove(&transaction.0).ok_or(StoreError::NoEntry)?;
        if !commit {
            return Ok(Vec::new());
        }
        if open.began != self.generation {
            return Err(StoreError::Again);
        }
        self.generation += 1;
        self.nodes = open.nodes;
        Ok(open.changed)
    }
}

impl World {
    fn fire(&mut self, changed: &str) {
        for domain in self.domains.values_mut() {
            for watch in &domain.watches {
                if let Some(path) = watch.told_of(changed) {
                    domain.watch_events.push_back(WatchEvent { watch: watch.id, path });
                }
            }
        }
    }
}

impl Watch {
    /// What the watcher hears of a change, if anything. Removing a parent of the watched node concerns it too.
    fn told_of(&self, changed: &str) -> Option<String> {
        if changed == self.path || is_below(&self.path, changed) {
            return Some(self.given.clone());
        }
        is_below(changed, &self.path).then(|| format!("{}{}", self.given, &changed[self.path.len()..]))
    }
}

impl Store for Loopback {
    fn read(&mut self, transaction: Transaction, path: &str) -> Result<Vec<u8>, StoreError> {
        let path = absolute(self.id, path)?;
        let world = self.world.borrow();
        world.store.nodes(transaction)?.get(&path).cloned().ok_or(StoreError::NoEntry)
    }

    fn write(&mut self, transaction: Transaction, path: &str, value: &[u8]) -> Result<(), StoreError> {
        if value.len() > NODE_LIMIT_BYTES {
            return Err(StoreError::NoSpace);
        }
        let path = absolute(self.id, path)?;
        let mut world = self.world.borrow_mut();
        world.store.put(transaction, &path, value)?;
        if transaction == Transaction::NONE {
            world.fire(&path);
        }
        Ok(())
    }

    fn mkdir(&mut self, transaction: Transaction, path: &str) -> Result<(), StoreError> {
        match self.read(transaction, path) {
            Err(StoreError::NoEntry) => self.write(transaction, path, b""),
            other => other.map(|_| ()),
        }
    }

    fn rm(&mut self, transaction: Transaction, path: &str) -> Result<(), StoreError> {
        let path = absolute(self.id, path)?;
        let mut world = self.world.borrow_mut();
        world.store.remove(transaction, &path)?;
        if transaction == Transaction::NONE {
            world.fire(&path);
        }
        Ok(())
    }

    fn directory(&mut self, transaction: Transaction, path: &str) -> Result<Vec<String>, StoreError> {
        let path = absolute(self.id, path)?;
        self.world.borrow().store.children(transaction, &path)
    }

    fn transaction_start(&mut self) -> Result<Transaction, StoreError> {
        Ok(self.world.borrow_mut().store.start())
    }

    fn transaction_end(&mut self, transaction: Transaction, commit: bool) -> Result<(), StoreError> {
        let mut world = self.world.borrow_mut();
        for path in world.store.end(transaction, commit)? {
            world.fire(&path);
        }
        Ok(())
    }

    fn watch(&mut self, path: &str) -> Result<WatchId, StoreError> {
        let absolute = absolute(self.id, path)?;
        let mut world = self.world.borrow_mut();
        world.store.next_watch += 1;
        let id = WatchId(world.store.next_watch);
        let domain = world.domain(self.id);
        domain.watches.push(Watch { id, path: absolute, given: path.into() });
        domain.watch_events.push_back(WatchEvent { watch: id, path: path.into() });
        Ok(id)
    }

    fn unwatch(&mut self, watch: WatchId) {
        let mut domain = self.domain_mut();
        domain.watches.retain(|each| each.id != watch);
        domain.watch_events.retain(|event| event.watch != watch);
    }

    fn next_watch_event(&mut self) -> Option<WatchEvent> {
        self.domain_mut().watch_events.pop_front()
    }
}
