//! Who wants to be told, and about what.

use alloc::string::String;
use alloc::vec::Vec;

use super::path::Location;
use super::tree::{Caller, Change};
use super::{Path, StoreError};

/// One registered watch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Watch {
    /// What it looks at.
    pub at: Location,
    /// The name as the client gave it; events use the same spelling.
    pub spelled: String,
    /// The client's own mark, returned as it came.
    pub token: String,
}

impl Watch {
    /// The path an event of this watch names for a change at `path`, if the watch covers it.
    pub fn names(&self, change: &Change) -> Option<String> {
        let Location::Node(watched) = &self.at else {
            return None;
        };
        let covered = if change.exact { change.path == *watched } else { change.path.is_within(watched) };
        covered.then(|| self.spell(watched, &change.path))
    }

    /// A path under the watched one, in the client's spelling: relative if the watch was.
    fn spell(&self, watched: &Path, path: &Path) -> String {
        let below = if watched.is_root() { path.as_str() } else { &path.as_str()[watched.as_str().len()..] };
        if watched.is_root() { String::from(below) } else { alloc::format!("{}{below}", self.spelled) }
    }
}

/// The watches of one connection.
#[derive(Clone, Debug, Default)]
pub struct WatchList(Vec<Watch>);

impl WatchList {
    /// Registers a watch.
    ///
    /// # Errors
    /// `EEXIST`: the same place and token again. `ENOSPC`: `limit` is reached.
    pub fn add(&mut self, watch: Watch, limit: Option<usize>) -> Result<(), StoreError> {
        if self.0.iter().any(|known| known.at == watch.at && known.token == watch.token) {
            return Err(StoreError::Exists);
        }
        if limit.is_some_and(|limit| self.0.len() >= limit) {
            return Err(StoreError::NoSpace);
        }
        self.0.push(watch);
        Ok(())
    }

    /// Ends a watch.
    ///
    /// # Errors
    /// `ENOENT`: there is none with this place and token.
    pub fn remove(&mut self, at: &Location, token: &str) -> Result<(), StoreError> {
        let found = self.0.iter().position(|watch| watch.at == *at && watch.token == token);
        self.0.remove(found.ok_or(StoreError::NoEntry)?);
        Ok(())
    }

    /// Ends all watches.
    pub fn clear(&mut self) {
        self.0.clear();
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The events that `change` causes for `caller`: pairs of path and token.
    pub fn events(&self, caller: Caller, change: &Change) -> Vec<(String, String)> {
        if !caller.reads(&change.perms) {
            return Vec::new();
        }
        let named = |watch: &Watch| Some((watch.names(change)?, watch.token.clone()));
        self.0.iter().filter_map(named).collect()
    }

    /// The events of an occasion.
    pub fn occasion(&self, occasion: &Location) -> Vec<(String, String)> {
        let told = self.0.iter().filter(|watch| watch.at == *occasion);
        told.map(|watch| (watch.spelled.clone(), watch.token.clone())).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::DomId;
    use crate::xenstore::Permissions;

    fn watch(name: &str) -> Watch {
        let at = Location::resolve(name, DomId(2)).expect("a good name");
        Watch { at, spelled: name.into(), token: "t".into() }
    }

    fn change(name: &str, exact: bool) -> Change {
        let path = Path::resolve(name, DomId(2)).expect("a good name");
        Change { path, perms: Permissions::private(DomId(2)), exact }
    }

    #[test]
    fn a_relative_watch_hears_relative_names() {
        let told = watch("device").names(&change("/local/domain/2/device/vbd/0", false));
        assert_eq!(told.as_deref(), Some("device/vbd/0"));
    }

    #[test]
    fn a_watch_on_the_root_hears_whole_names() {
        assert_eq!(watch("/").names(&change("/a/b", false)).as_deref(), Some("/a/b"));
    }

    #[test]
    fn a_watch_above_a_removed_subtree_hears_of_it_once() {
        assert!(watch("/a").names(&change("/a/b", true)).is_none());
        assert!(watch("/a/b").names(&change("/a/b", true)).is_some());
    }

    #[test]
    fn a_caller_that_may_not_read_a_node_hears_nothing() {
        let mut list = WatchList::default();
        list.add(watch("/a"), None).expect("room");
        assert!(list.events(Caller::domain(DomId(5)), &change("/a", false)).is_empty());
        assert_eq!(list.events(Caller::domain(DomId(2)), &change("/a", false)).len(), 1);
    }
}
