//! Who may read and write a node.
//!
//! The first entry names the owner, who may do everything, and what all others may; the further entries name what one
//! domain may. On the wire an entry is a letter and a decimal domain: `r3`, `n0`.

use alloc::string::String;
use alloc::vec::Vec;

use crate::ids::DomId;

use super::StoreError;

/// What a domain may do with a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Nothing (`n`).
    None,
    /// Read (`r`).
    Read,
    /// Write (`w`).
    Write,
    /// Read and write (`b`).
    Both,
}

impl Access {
    /// Whether this covers reading.
    pub fn reads(self) -> bool {
        matches!(self, Self::Read | Self::Both)
    }

    /// Whether this covers writing.
    pub fn writes(self) -> bool {
        matches!(self, Self::Write | Self::Both)
    }

    fn letter(self) -> char {
        match self {
            Self::None => 'n',
            Self::Read => 'r',
            Self::Write => 'w',
            Self::Both => 'b',
        }
    }

    fn from_letter(letter: u8) -> Option<Self> {
        match letter {
            b'n' => Some(Self::None),
            b'r' => Some(Self::Read),
            b'w' => Some(Self::Write),
            b'b' => Some(Self::Both),
            _ => None,
        }
    }
}

/// The permissions of one node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Permissions {
    /// The domain that owns the node and is charged for it.
    pub owner: DomId,
    /// What a domain that is not named may do.
    pub others: Access,
    /// What named domains may do.
    pub named: Vec<(DomId, Access)>,
}

impl Permissions {
    /// Permissions of a node that `owner` has for itself.
    pub fn private(owner: DomId) -> Self {
        Self { owner, others: Access::None, named: Vec::new() }
    }

    /// Adds what `domain` may do.
    #[must_use]
    pub fn allowing(mut self, domain: DomId, access: Access) -> Self {
        self.named.push((domain, access));
        self
    }

    /// What `domain` may do; everything for the owner.
    pub fn for_domain(&self, domain: DomId) -> Access {
        if domain == self.owner {
            return Access::Both;
        }
        self.named.iter().find(|(named, _)| *named == domain).map_or(self.others, |(_, access)| *access)
    }

    /// The number of entries on the wire.
    pub fn entries(&self) -> usize {
        1 + self.named.len()
    }

    /// Forgets what `domain` may do. Its nodes are dealt with by the caller.
    pub fn forget(&mut self, domain: DomId) -> bool {
        let before = self.named.len();
        self.named.retain(|(named, _)| *named != domain);
        self.named.len() != before
    }

    /// Writes the entries as the wire has them, each ended by NUL.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let first = core::iter::once((self.owner, self.others));
        for (domain, access) in first.chain(self.named.iter().copied()) {
            let mut entry = String::new();
            entry.push(access.letter());
            entry.push_str(&alloc::format!("{}\0", domain.0));
            out.extend_from_slice(entry.as_bytes());
        }
    }

    /// Reads entries, the first naming the owner.
    ///
    /// # Errors
    /// `EINVAL`: no entry, an unknown letter, or a domain that is no number.
    pub fn decode<'a>(mut entries: impl Iterator<Item = &'a str>) -> Result<Self, StoreError> {
        let (owner, others) = entry(entries.next().ok_or(StoreError::Invalid)?)?;
        let named = entries.map(entry).collect::<Result<Vec<_>, _>>()?;
        Ok(Self { owner, others, named })
    }
}

fn entry(text: &str) -> Result<(DomId, Access), StoreError> {
    let letter = *text.as_bytes().first().ok_or(StoreError::Invalid)?;
    let access = Access::from_letter(letter).ok_or(StoreError::Invalid)?;
    let domain = text.get(1..).and_then(|id| id.parse().ok()).ok_or(StoreError::Invalid)?;
    Ok((DomId(domain), access))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_owner_may_do_everything_whatever_its_entry_says() {
        assert_eq!(Permissions::private(DomId(4)).for_domain(DomId(4)), Access::Both);
    }

    #[test]
    fn a_domain_that_is_not_named_gets_the_first_entrys_access() {
        let perms = Permissions::decode(["r0", "b7"].into_iter()).expect("good entries");
        assert_eq!(perms.for_domain(DomId(9)), Access::Read);
        assert_eq!(perms.for_domain(DomId(7)), Access::Both);
    }

    #[test]
    fn entries_survive_the_wire() {
        let perms = Permissions::private(DomId(0)).allowing(DomId(5), Access::Read);
        let mut bytes = Vec::new();
        perms.encode(&mut bytes);
        assert_eq!(bytes, b"n0\0r5\0");
    }

    #[test]
    fn entries_without_a_letter_or_a_number_are_refused() {
        for bad in ["", "x0", "r", "rx", "r-1", "r70000"] {
            assert!(Permissions::decode([bad].into_iter()).is_err(), "{bad:?}");
        }
    }
}
