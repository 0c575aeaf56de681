//! The nodes, and what can be done to them, alike inside and outside a transaction.
//!
//! An operation works on a [`View`]: the live tree, or a transaction's private picture of it. It checks, changes, and
//! lists what it changed, so that the caller can tell the watchers at the right time.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use crate::ids::DomId;

use super::{Access, Path, Permissions, Quota, StoreError};

/// Who asks: a domain and, for a device model, the domain it acts for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Caller {
    /// The domain at the other end of the connection.
    pub domain: DomId,
    /// A second domain whose rights the caller also has (`XS_SET_TARGET`).
    pub target: Option<DomId>,
}

impl Caller {
    /// A caller with the rights of `domain` alone.
    pub fn domain(domain: DomId) -> Self {
        Self { domain, target: None }
    }

    /// Whether this is the privileged domain.
    pub fn is_privileged(self) -> bool {
        self.domain == DomId(0)
    }

    /// Whether permissions let this caller read.
    pub fn reads(self, perms: &Permissions) -> bool {
        self.any(|domain| perms.for_domain(domain).reads())
    }

    /// Whether permissions let this caller write.
    pub fn writes(self, perms: &Permissions) -> bool {
        self.any(|domain| perms.for_domain(domain).writes())
    }

    /// Whether this caller counts as the node's owner.
    pub fn owns(self, perms: &Permissions) -> bool {
        self.any(|domain| perms.owner == domain)
    }

    fn any(self, test: impl Fn(DomId) -> bool) -> bool {
        self.is_privileged() || test(self.domain) || self.target.is_some_and(test)
    }
}

/// One node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// The value, any bytes.
    pub value: Vec<u8>,
    /// Names of the nodes directly below.
    pub children: BTreeSet<String>,
    /// Who may do what.
    pub perms: Permissions,
    /// Number of the last change; never used twice.
    pub generation: u64,
}

impl Node {
    fn new(perms: Permissions) -> Self {
        Self { value: Vec::new(), children: BTreeSet::new(), perms, generation: 0 }
    }

    fn bytes(&self) -> usize {
        self.value.len() + self.children.iter().map(|name| name.len() + 1).sum::<usize>()
    }
}

/// Something that happened to a node, for the watchers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The node.
    pub path: Path,
    /// The permissions by which watchers may learn of it: the node's own, or its last ones when it is gone.
    pub perms: Permissions,
    /// The node went away together with one above it: only watches on exactly this node are told.
    pub exact: bool,
}

/// A picture of the tree that operations read and change.
pub trait View {
    /// The node at `path`.
    fn get(&mut self, path: &Path) -> Result<Option<Node>, StoreError>;
    /// Replaces or removes the node at `path`.
    ///
    /// # Errors
    /// `ENOSPC`: a quota of the node's owner would be exceeded.
    fn put(&mut self, path: &Path, node: Option<Node>) -> Result<(), StoreError>;
    /// The limits in force.
    fn quota(&self) -> &Quota;
}

/// The live tree.
#[derive(Clone, Debug)]
pub struct Tree {
    nodes: BTreeMap<Path, Node>,
    owned: BTreeMap<DomId, usize>,
    generation: u64,
    quota: Quota,
}

impl Tree {
    /// An empty tree: the root, owned by dom0 and readable by no other.
    pub fn new(quota: Quota) -> Self {
        let mut nodes = BTreeMap::new();
        nodes.insert(Path::root(), Node::new(Permissions::private(DomId(0))));
        Self { nodes, owned: BTreeMap::from([(DomId(0), 1)]), generation: 0, quota }
    }

    /// The generation of the node at `path`, or none where there is no node.
    pub fn generation_of(&self, path: &Path) -> Option<u64> {
        self.nodes.get(path).map(|node| node.generation)
    }

    /// The node at `path`, unchecked and uncopied.
    pub fn peek(&self, path: &Path) -> Option<&Node> {
        self.nodes.get(path)
    }

    /// How many nodes `domain` owns.
    pub fn owned_by(&self, domain: DomId) -> usize {
        self.owned.get(&domain).copied().unwrap_or(0)
    }

    /// All paths in order, for inspection.
    pub fn paths(&self) -> impl Iterator<Item = &Path> {
        self.nodes.keys()
    }

    /// Whether `domain` may own `extra` more nodes.
    pub fn has_room(&self, domain: DomId, extra: usize) -> bool {
        domain == DomId(0) || self.owned_by(domain) + extra <= self.quota.nodes
    }

    /// Removes a domain's traces: the nodes it owns and its entries in others' permissions.
    pub fn forget_domain(&mut self, domain: DomId) -> Vec<Change> {
        let owned: Vec<Path> =
            self.nodes.iter().filter(|(_, node)| node.perms.owner == domain).map(|(path, _)| path.clone()).collect();
        let mut changes = Vec::new();
        for path in owned {
            if self.nodes.contains_key(&path) && remove(self, Caller::domain(DomId(0)), &path, &mut changes).is_err() {
                log::warn!("xenstore: {path} of domain {} could not be removed", domain.0);
            }
        }
        for node in self.nodes.values_mut() {
            if node.perms.forget(domain) {
                self.generation += 1;
                node.generation = self.generation;
            }
        }
        changes
    }

    /// Replaces or removes the node at `path` whatever the quotas say: the caller has checked them.
    pub(super) fn replace(&mut self, path: &Path, node: Option<Node>) {
        if let Some(old) = self.nodes.remove(path) {
            self.charge(old.perms.owner, false);
        }
        let Some(mut new) = node else { return };
        self.generation += 1;
        new.generation = self.generation;
        self.charge(new.perms.owner, true);
        self.nodes.insert(path.clone(), new);
    }

    fn charge(&mut self, owner: DomId, up: bool) {
        let count = self.owned.entry(owner).or_insert(0);
        *count = if up { *count + 1 } else { count.saturating_sub(1) };
        if *count == 0 {
            self.owned.remove(&owner);
        }
    }
}

impl View for Tree {
    fn get(&mut self, path: &Path) -> Result<Option<Node>, StoreError> {
        Ok(self.nodes.get(path).cloned())
    }

    fn put(&mut self, path: &Path, node: Option<Node>) -> Result<(), StoreError> {
        let old_owner = self.nodes.get(path).map(|old| old.perms.owner);
        if let Some(new) = &node
            && old_owner != Some(new.perms.owner)
            && !self.has_room(new.perms.owner, 1)
        {
            return Err(StoreError::NoSpace);
        }
        self.replace(path, node);
        Ok(())
    }

    fn quota(&self) -> &Quota {
        &self.quota
    }
}

/// Reads the node at `path` if `allowed` lets the caller have it.
///
/// # Errors
/// `ENOENT`: no such node, and the caller may know. `EACCES`: it may not.
pub fn fetch<V: View + ?Sized>(
    view: &mut V,
    caller: Caller,
    path: &Path,
    allowed: impl Fn(Caller, &Permissions) -> bool,
) -> Result<Node, StoreError> {
    match view.get(path)? {
        Some(node) if allowed(caller, &node.perms) => Ok(node),
        Some(_) => Err(StoreError::Access),
        None => Err(absent(view, caller, path)?),
    }
}

/// `ENOENT` where the caller may read the nearest node above, else `EACCES`.
fn absent<V: View + ?Sized>(view: &mut V, caller: Caller, path: &Path) -> Result<StoreError, StoreError> {
    let above = nearest_above(view, path)?.1;
    Ok(if caller.reads(&above.perms) { StoreError::NoEntry } else { StoreError::Access })
}

fn nearest_above<V: View + ?Sized>(view: &mut V, path: &Path) -> Result<(Path, Node), StoreError> {
    let mut at = path.parent();
    while let Some(above) = at {
        if let Some(node) = view.get(&above)? {
            return Ok((above, node));
        }
        at = above.parent();
    }
    Err(StoreError::NoEntry)
}

/// Sets the value of a node, making it and the nodes above it where they are missing.
///
/// # Errors
/// `EACCES`: the caller may not write the node, or the nearest existing one above. `ENOSPC`: too large, or a quota.
pub fn write<V: View + ?Sized>(
    view: &mut V,
    caller: Caller,
    path: &Path,
    value: &[u8],
    changes: &mut Vec<Change>,
) -> Result<(), StoreError> {
    let mut node = match view.get(path)? {
        Some(node) if caller.writes(&node.perms) => node,
        Some(_) => return Err(StoreError::Access),
        None => create(view, caller, path)?,
    };
    node.value = value.to_vec();
    fits(view, caller, &node)?;
    changes.push(Change { path: path.clone(), perms: node.perms.clone(), exact: false });
    view.put(path, Some(node))
}

/// Makes an empty node where there is none.
///
/// # Errors
/// As [`write()`].
pub fn mkdir<V: View + ?Sized>(
    view: &mut V,
    caller: Caller,
    path: &Path,
    changes: &mut Vec<Change>,
) -> Result<(), StoreError> {
    match view.get(path)? {
        Some(node) if caller.writes(&node.perms) => Ok(()),
        Some(_) => Err(StoreError::Access),
        None => {
            let node = create(view, caller, path)?;
            changes.push(Change { path: path.clone(), perms: node.perms, exact: false });
            Ok(())
        }
    }
}

/// Makes the node and what is missing above it; new nodes take the permissions of the nearest one above.
fn create<V: View + ?Sized>(view: &mut V, caller: Caller, path: &Path) -> Result<Node, StoreError> {
    let (mut above, mut parent) = nearest_above(view, path)?;
    if !caller.writes(&parent.perms) {
        return Err(StoreError::Access);
    }
    let mut perms = parent.perms.clone();
    if !caller.is_privileged() {
        perms.owner = caller.domain;
    }
    let mut missing = Vec::new();
    let mut at = path.clone();
    while at != above {
        missing.push(at.name().to_string());
        at = at.parent().ok_or(StoreError::Invalid)?;
    }
    for name in missing.into_iter().rev() {
        parent.children.insert(name.clone());
        fits(view, caller, &parent)?;
        let child = above.child(&name);
        view.put(&child, Some(Node::new(perms.clone())))?;
        view.put(&above, Some(parent))?;
        parent = view.get(&child)?.ok_or(StoreError::Io)?;
        above = child;
    }
    Ok(parent)
}

fn fits<V: View + ?Sized>(view: &V, caller: Caller, node: &Node) -> Result<(), StoreError> {
    if !caller.is_privileged() && node.bytes() > view.quota().node_bytes {
        return Err(StoreError::NoSpace);
    }
    Ok(())
}

/// Removes a node and all below it. A node that is missing under one that exists is no error.
///
/// # Errors
/// `EINVAL`: the root. `EACCES`: the caller may not write the node. `ENOENT`: nor does the node above exist.
pub fn remove<V: View + ?Sized>(
    view: &mut V,
    caller: Caller,
    path: &Path,
    changes: &mut Vec<Change>,
) -> Result<(), StoreError> {
    let above = path.parent().ok_or(StoreError::Invalid)?;
    let node = match view.get(path)? {
        Some(node) if caller.writes(&node.perms) => node,
        Some(_) => return Err(StoreError::Access),
        None => return fetch(view, caller, &above, Caller::reads).map(|_| ()),
    };
    let mut parent = view.get(&above)?.ok_or(StoreError::Io)?;
    parent.children.remove(path.name());
    view.put(&above, Some(parent))?;
    changes.push(Change { path: path.clone(), perms: node.perms.clone(), exact: false });
    let mut doomed = alloc::vec![(path.clone(), node)];
    while let Some((at, node)) = doomed.pop() {
        view.put(&at, None)?;
        for name in &node.children {
            let child = at.child(name);
            if let Some(below) = view.get(&child)? {
                changes.push(Change { path: child.clone(), perms: below.perms.clone(), exact: true });
                doomed.push((child, below));
            }
        }
    }
    Ok(())
}

/// Replaces the permissions of a node.
///
/// # Errors
/// `EACCES`: the caller is not the owner. `EPERM`: an unprivileged caller would give the node away. `ENOSPC`: too many
/// entries, or the new owner's quota.
pub fn set_permissions<V: View + ?Sized>(
    view: &mut V,
    caller: Caller,
    path: &Path,
    perms: Permissions,
    changes: &mut Vec<Change>,
) -> Result<(), StoreError> {
    let mut node = fetch(view, caller, path, Caller::owns)?;
    if !caller.is_privileged() {
        if perms.owner != node.perms.owner {
            return Err(StoreError::NotPermitted);
        }
        if perms.entries() > view.quota().permissions {
            return Err(StoreError::NoSpace);
        }
    }
    node.perms = perms;
    changes.push(Change { path: path.clone(), perms: node.perms.clone(), exact: false });
    view.put(path, Some(node))
}

/// Permissions that let one guest read, as back-end nodes have them.
pub fn readable_by(domain: DomId) -> Permissions {
    Permissions::private(DomId(0)).allowing(domain, Access::Read)
}
