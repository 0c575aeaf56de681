//! Several changes as one.
//!
//! A transaction keeps its own copy of each node it has touched and the generation the node had then. It commits when
//! every one of those generations is still the live one; otherwise its owner is told `EAGAIN` and starts again. So
//! what a committed transaction saw was true at the moment of the commit.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use super::tree::{Change, Node, Tree, View};
use super::{Path, Quota, StoreError};

#[derive(Clone, Debug)]
struct Touched {
    /// The live generation when the node was first looked at; none where there was no node.
    seen: Option<u64>,
    now: Option<Node>,
    changed: bool,
}

/// One open transaction.
#[derive(Clone, Debug, Default)]
pub struct Transaction {
    touched: BTreeMap<Path, Touched>,
    changes: Vec<Change>,
}

impl Transaction {
    /// A transaction that has touched nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Keeps changes until the commit, when the watchers are told.
    pub fn remember(&mut self, changes: Vec<Change>) {
        self.changes.extend(changes);
    }

    /// Makes the changes real.
    ///
    /// # Errors
    /// `EAGAIN`: a node that was looked at has changed since. `ENOSPC`: an owner's quota would be exceeded.
    pub fn commit(self, tree: &mut Tree) -> Result<Vec<Change>, StoreError> {
        let stale = self.touched.iter().any(|(path, touched)| tree.generation_of(path) != touched.seen);
        if stale {
            return Err(StoreError::Again);
        }
        self.check_room(tree)?;
        for (path, touched) in self.touched.into_iter().filter(|(_, touched)| touched.changed) {
            tree.replace(&path, touched.now);
        }
        Ok(self.changes)
    }

    /// Refuses a commit that would leave an owner above its quota, before anything is changed.
    fn check_room(&self, tree: &Tree) -> Result<(), StoreError> {
        let mut growth: BTreeMap<_, isize> = BTreeMap::new();
        for (path, touched) in self.touched.iter().filter(|(_, touched)| touched.changed) {
            if let Some(old) = tree.peek(path) {
                *growth.entry(old.perms.owner).or_insert(0) -= 1;
            }
            if let Some(new) = &touched.now {
                *growth.entry(new.perms.owner).or_insert(0) += 1;
            }
        }
        let over = growth.iter().any(|(owner, extra)| *extra > 0 && !tree.has_room(*owner, extra.unsigned_abs()));
        if over { Err(StoreError::NoSpace) } else { Ok(()) }
    }
}

/// A transaction's picture of the tree.
pub struct Private<'a> {
    /// The live tree, only read.
    pub tree: &'a Tree,
    /// What the transaction has touched.
    pub transaction: &'a mut Transaction,
    /// Whether the limit on touched nodes applies.
    pub limited: bool,
}

impl Private<'_> {
    fn touch(&mut self, path: &Path) -> Result<&mut Touched, StoreError> {
        let full = self.limited && self.transaction.touched.len() >= self.tree.quota().transaction_nodes;
        if full && !self.transaction.touched.contains_key(path) {
            return Err(StoreError::NoSpace);
        }
        Ok(self.transaction.touched.entry(path.clone()).or_insert_with(|| {
            let now = self.tree.peek(path).cloned();
            Touched { seen: now.as_ref().map(|node| node.generation), now, changed: false }
        }))
    }
}

impl View for Private<'_> {
    fn get(&mut self, path: &Path) -> Result<Option<Node>, StoreError> {
        Ok(self.touch(path)?.now.clone())
    }

    fn put(&mut self, path: &Path, node: Option<Node>) -> Result<(), StoreError> {
        let touched = self.touch(path)?;
        touched.now = node;
        touched.changed = true;
        Ok(())
    }

    fn quota(&self) -> &Quota {
        self.tree.quota()
    }
}
