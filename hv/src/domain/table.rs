//! Which domains there are.

use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU16, Ordering};

use pv_abi::DomId;
use spin::RwLock;

use super::Domain;

/// All domains by number.
#[derive(Default)]
pub struct DomainTable {
    domains: RwLock<BTreeMap<u16, Arc<Domain>>>,
    /// The number that was given out last.
    last: AtomicU16,
}

impl DomainTable {
    /// The domain with this number.
    #[must_use]
    pub fn get(&self, id: DomId) -> Option<Arc<Domain>> {
        self.domains.read().get(&id.0).cloned()
    }

    /// Adds a domain, unless its number is taken.
    #[must_use]
    pub fn insert(&self, domain: Arc<Domain>) -> bool {
        let mut domains = self.domains.write();
        let free = !domains.contains_key(&domain.id.0);
        if free {
            domains.insert(domain.id.0, domain);
        }
        free
    }

    /// Takes a domain out.
    pub fn remove(&self, id: DomId) -> Option<Arc<Domain>> {
        self.domains.write().remove(&id.0)
    }

    /// A number that no domain has, for a new one: numbers are used again only after all others were.
    #[must_use]
    pub fn free_number(&self) -> Option<DomId> {
        let domains = self.domains.read();
        let first = self.last.load(Ordering::Relaxed);
        let count = DomId::FIRST_RESERVED.0 - 1;
        let number = (0..count).map(|n| (first + n) % count + 1).find(|number| !domains.contains_key(number))?;
        self.last.store(number, Ordering::Relaxed);
        Some(DomId(number))
    }

    /// The domain with the lowest number that is at least `first`.
    #[must_use]
    pub fn first_from(&self, first: DomId) -> Option<Arc<Domain>> {
        self.domains.read().range(first.0..).next().map(|(_, domain)| domain.clone())
    }

    /// All domains from number `first` on, in order of their numbers.
    #[must_use]
    pub fn from(&self, first: DomId) -> Vec<Arc<Domain>> {
        self.domains.read().range(first.0..).map(|(_, domain)| domain.clone()).collect()
    }
}
