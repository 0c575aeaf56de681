//! Domains in one process: a [`Hal`](crate::Hal) for tests, fuzzers and benchmarks.
//!
//! `let (front, back) = Loopback::pair();` gives two domains that share a store, can grant each other pages and ring
//! each other. It enforces what the hypervisor enforces, and where a real machine would fault, it panics:
//! - a grant is only for the domain it names; a read-only one cannot be written;
//! - a grant that ended cannot be mapped or copied; one that is mapped cannot end;
//! - a page is not freed while it is granted.
//!
//! And it counts: [`Loopback::leaks`] says what a driver did not give back.

mod events;
mod grants;
mod store;

use alloc::collections::{BTreeMap, VecDeque};
use alloc::format;
use alloc::rc::Rc;
use alloc::string::String;
use alloc::vec::Vec;
use core::cell::{Ref, RefCell, RefMut};

pub use grants::{LoopbackMapping, LoopbackPage};

use crate::hal::{Clock, Store, Transaction, WatchEvent};
use crate::store::{join, write_value};
use crate::xenbus::XenbusState;
use events::Channel;
use grants::Grant;
use pv_abi::{DomId, Port};
use store::{StoreTree, Watch};

/// One domain of an in-memory world.
pub struct Loopback {
    id: DomId,
    world: Rc<RefCell<World>>,
}

#[derive(Default)]
struct World {
    domains: BTreeMap<DomId, Domain>,
    store: StoreTree,
    now_ns: u64,
}

#[derive(Default)]
struct Domain {
    pages: usize,
    page_limit: Option<usize>,
    mappings: usize,
    grants: BTreeMap<u32, Grant>,
    next_grant: u32,
    ports: BTreeMap<u32, Channel>,
    next_port: u32,
    pending: VecDeque<Port>,
    watches: Vec<Watch>,
    watch_events: VecDeque<WatchEvent>,
    notifications: u64,
}

/// What a domain holds at the moment.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Leaks {
    /// Pages taken and not freed.
    pub pages: usize,
    /// Grants made and not ended.
    pub grants: usize,
    /// Pages of peers that are mapped.
    pub mappings: usize,
    /// Event channels that are open.
    pub ports: usize,
    /// Watches.
    pub watches: usize,
}

impl Loopback {
    /// A guest (domain 1) and a service domain (domain 0).
    #[must_use]
    pub fn pair() -> (Self, Self) {
        let mut domains = Self::domains(&[DomId(1), DomId(0)]).into_iter();
        match (domains.next(), domains.next()) {
            (Some(front), Some(back)) => (front, back),
            _ => unreachable!("two were asked for"),
        }
    }

    /// As many domains as there are ids, all in one world.
    #[must_use]
    pub fn domains(ids: &[DomId]) -> Vec<Self> {
        let world = Rc::new(RefCell::new(World::default()));
        for id in ids {
            world.borrow_mut().domains.insert(*id, Domain { next_port: 1, next_grant: 8, ..Domain::default() });
        }
        ids.iter().map(|id| Self { id: *id, world: Rc::clone(&world) }).collect()
    }

    /// This domain's number.
    #[must_use]
    pub fn id(&self) -> DomId {
        self.id
    }

    /// Another handle on the same domain, as a second driver in it would use.
    #[must_use]
    pub fn handle(&self) -> Self {
        Self { id: self.id, world: Rc::clone(&self.world) }
    }

    /// Moves time on.
    pub fn advance_ns(&self, ns: u64) {
        self.world.borrow_mut().now_ns += ns;
    }

    /// From now on this domain has at most this many pages to share.
    pub fn limit_pages(&self, pages: usize) {
        self.domain_mut().page_limit = Some(pages);
    }

    /// The next event channel that fired and was not yet taken.
    pub fn take_event(&self) -> Option<Port> {
        self.domain_mut().pending.pop_front()
    }

    /// How often this domain has notified anyone.
    #[must_use]
    pub fn notifications(&self) -> u64 {
        self.domain().notifications
    }

    /// What this domain holds at the moment.
    #[must_use]
    pub fn leaks(&self) -> Leaks {
        let domain = self.domain();
        Leaks {
            pages: domain.pages,
            grants: domain.grants.len(),
            mappings: domain.mappings,
            ports: domain.ports.len(),
            watches: domain.watches.len(),
        }
    }

    /// What the hypervisor and the store do when a domain dies: mappings, ports and watches are gone. Its drivers must
    /// have been dropped; their handles mean nothing any more.
    pub fn crash(&self) {
        let mut world = self.world.borrow_mut();
        world.unmap_everything_of(self.id);
        world.close_everything_of(self.id);
        if let Some(domain) = world.domains.get_mut(&self.id) {
            domain.watches.clear();
            domain.watch_events.clear();
            domain.pending.clear();
        }
    }

    /// Does the toolstack's part: makes both directories of a device, each in state `Initialising`, and gives their
    /// paths, the front's first.
    pub fn create_device(&mut self, front: DomId, back: DomId, class: &str, handle: u32) -> (String, String) {
        let front_path = format!("/local/domain/{}/device/{class}/{handle}", front.0);
        let back_path = format!("/local/domain/{}/backend/{class}/{}/{handle}", back.0, front.0);
        self.put(&join(&front_path, "backend"), &back_path);
        self.put(&join(&front_path, "backend-id"), back.0);
        self.put(&join(&front_path, "state"), XenbusState::Initialising as u8);
        self.put(&join(&back_path, "frontend"), &front_path);
        self.put(&join(&back_path, "frontend-id"), front.0);
        self.put(&join(&back_path, "online"), 1);
        self.put(&join(&back_path, "state"), XenbusState::Initialising as u8);
        (front_path, back_path)
    }

    /// Writes a node of the store.
    pub fn put(&mut self, path: &str, value: impl core::fmt::Display) {
        if let Err(error) = write_value(self, Transaction::NONE, path, value) {
            panic!("{path}: {error}");
        }
    }

    /// Reads a node of the store as text; empty when it is not there.
    pub fn get(&mut self, path: &str) -> String {
        let value = self.read(Transaction::NONE, path).unwrap_or_default();
        String::from_utf8_lossy(&value).into_owned()
    }

    fn domain(&self) -> Ref<'_, Domain> {
        Ref::map(self.world.borrow(), |world| &world.domains[&self.id])
    }

    fn domain_mut(&self) -> RefMut<'_, Domain> {
        RefMut::map(self.world.borrow_mut(), |world| world.domain(self.id))
    }
}

impl World {
    /// A domain that was made with this world.
    fn domain(&mut self, id: DomId) -> &mut Domain {
        match self.domains.get_mut(&id) {
            Some(domain) => domain,
            None => panic!("no domain {id}"),
        }
    }
}

impl Clock for Loopback {
    fn now_ns(&self) -> u64 {
        self.world.borrow().now_ns
    }
}

#[cfg(test)]
mod tests;
