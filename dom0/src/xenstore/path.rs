//! Names of nodes: absolute inside the server, absolute or relative on the wire.
//!
//! A relative name belongs to the caller's home, `/local/domain/<id>`. Two names that begin with `@` are no nodes but
//! occasions a caller can watch for.

use alloc::string::{String, ToString};
use core::fmt;

use crate::ids::DomId;

use super::StoreError;

/// Longest absolute name, in bytes (`XENSTORE_ABS_PATH_MAX`).
pub const ABSOLUTE_MAX: usize = 3072;
/// Longest relative name, in bytes (`XENSTORE_REL_PATH_MAX`).
pub const RELATIVE_MAX: usize = 2048;
/// Deepest node; it bounds the work of one request.
pub const DEPTH_MAX: usize = 64;

/// The absolute, checked name of a node: `/` or `/a/b`, never a trailing slash, never an empty part.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Path(String);

impl Path {
    /// The root, `/`.
    pub fn root() -> Self {
        Self("/".to_string())
    }

    /// The home of a domain, `/local/domain/<id>`.
    pub fn home(domain: DomId) -> Self {
        Self(alloc::format!("/local/domain/{}", domain.0))
    }

    /// Checks `name` and makes it absolute, taking a relative name from the home of `caller`.
    ///
    /// # Errors
    /// `EINVAL`: an empty part, a trailing slash, a character outside `A–Z a–z 0–9 - _ @ /`, or too long.
    pub fn resolve(name: &str, caller: DomId) -> Result<Self, StoreError> {
        if name == "/" {
            return Ok(Self::root());
        }
        let relative = !name.starts_with('/');
        let limit = if relative { RELATIVE_MAX } else { ABSOLUTE_MAX };
        let parts = name.strip_prefix('/').unwrap_or(name);
        if name.len() > limit || !parts.split('/').all(is_part) {
            return Err(StoreError::Invalid);
        }
        let path =
            if relative { Self(alloc::format!("{}/{name}", Self::home(caller))) } else { Self(name.to_string()) };
        if path.depth() > DEPTH_MAX {
            return Err(StoreError::Invalid);
        }
        Ok(path)
    }

    /// The node above, or none for the root.
    pub fn parent(&self) -> Option<Self> {
        match self.0.rfind('/') {
            Some(0) if self.0.len() > 1 => Some(Self::root()),
            Some(0) | None => None,
            Some(cut) => Some(Self(self.0[..cut].to_string())),
        }
    }

    /// The last part; empty for the root.
    pub fn name(&self) -> &str {
        self.0.rsplit('/').next().unwrap_or("")
    }

    /// The node `name` under this one. `name` is a part that was checked before.
    pub fn child(&self, name: &str) -> Self {
        if self.is_root() { Self(alloc::format!("/{name}")) } else { Self(alloc::format!("{}/{name}", self.0)) }
    }

    /// Whether this is `other` or lies below it.
    pub fn is_within(&self, other: &Self) -> bool {
        other.is_root()
            || self.0.strip_prefix(other.0.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }

    /// Whether this is the root.
    pub fn is_root(&self) -> bool {
        self.0.len() == 1
    }

    /// The number of parts.
    pub fn depth(&self) -> usize {
        if self.is_root() { 0 } else { self.0.matches('/').count() }
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Path {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.0)
    }
}

/// What a watch looks at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Location {
    /// A node and everything below it.
    Node(Path),
    /// A domain was introduced (`@introduceDomain`).
    Introduced,
    /// A domain went away or stopped (`@releaseDomain`).
    Released,
}

impl Location {
    /// Reads what a watch request names.
    ///
    /// # Errors
    /// `EINVAL`: an unknown `@` name or a name that is no path.
    pub fn resolve(name: &str, caller: DomId) -> Result<Self, StoreError> {
        match name {
            "@introduceDomain" => Ok(Self::Introduced),
            "@releaseDomain" => Ok(Self::Released),
            _ if name.starts_with('@') => Err(StoreError::Invalid),
            _ => Path::resolve(name, caller).map(Self::Node),
        }
    }
}

fn is_part(part: &str) -> bool {
    !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'@'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(name: &str) -> Path {
        Path::resolve(name, DomId(3)).expect("a good path")
    }

    #[test]
    fn a_relative_name_belongs_to_the_callers_home() {
        assert_eq!(path("device/vbd").as_str(), "/local/domain/3/device/vbd");
    }

    #[test]
    fn names_with_empty_parts_or_foreign_characters_are_refused() {
        for name in ["", "//", "/a/", "/a//b", "a/", "/a b", "/a.b", "/é"] {
            assert_eq!(Path::resolve(name, DomId(0)), Err(StoreError::Invalid), "{name:?}");
        }
    }

    #[test]
    fn a_parent_is_one_part_shorter_and_the_root_has_none() {
        assert_eq!(path("/a/b").parent(), Some(path("/a")));
        assert_eq!(path("/a").parent(), Some(Path::root()));
        assert_eq!(Path::root().parent(), None);
    }

    #[test]
    fn a_node_is_within_its_ancestors_but_not_within_a_longer_name() {
        assert!(path("/a/b").is_within(&path("/a")));
        assert!(path("/a").is_within(&Path::root()));
        assert!(!path("/ab").is_within(&path("/a")));
    }

    #[test]
    fn only_the_two_occasions_may_begin_with_an_at_sign() {
        assert_eq!(Location::resolve("@introduceDomain", DomId(1)), Ok(Location::Introduced));
        assert_eq!(Location::resolve("@other", DomId(1)), Err(StoreError::Invalid));
    }
}
