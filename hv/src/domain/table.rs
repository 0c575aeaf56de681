//! Which domains there are.

use alloc::sync::Arc;
use alloc::vec::Vec;

use hashbrown::HashMap;
use pv_abi::DomId;
use spin::RwLock;

use super::Domain;

/// All domains by number.
#[derive(Default)]
pub struct DomainTable {
    domains: RwLock<HashMap<u16, Arc<Domain>>>,
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

    /// All domains from number `first` on, in order of their numbers.
    #[must_use]
    pub fn from(&self, first: DomId) -> Vec<Arc<Domain>> {
        let mut all: Vec<_> = self.domains.read().values().filter(|domain| domain.id >= first).cloned().collect();
        all.sort_by_key(|domain| domain.id);
        all
    }
}
