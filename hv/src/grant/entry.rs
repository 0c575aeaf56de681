//! Entries, and what they grant.
//!
//! An entry of version 1 is one word: flags, domain, frame. One of version 2 is two words, and the hypervisor's bits in
//! it (reading, writing) stand apart, in the *status frames*.

use pv_abi::grant_table::{
    GNTST_GENERAL_ERROR, GTF_PERMIT_ACCESS, GTF_READONLY, GTF_SUB_PAGE, GTF_TRANSITIVE, GTF_TYPE_MASK,
};
use pv_abi::{DomId, Mfn};

use super::table::Version;
use crate::hardware::Machine;
use crate::refusal::{Evidence, Refusal};
use crate::rules::{Rule, grant as rule};

/// What an entry is to be used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    Map,
    Copy,
}

/// What an entry grants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Granted {
    /// A frame.
    Page(Mfn),
    /// Some bytes of a frame, for copies.
    Part { mfn: Mfn, start: u16, length: u16 },
    /// What another domain's entry grants to the granter, for copies.
    Through { domain: DomId, reference: u32 },
}

/// A 16-bit field of a frame that the guest shares, reached by its word.
#[derive(Clone, Copy, Debug)]
pub(super) struct Field {
    pub(super) mfn: Mfn,
    pub(super) word: usize,
    pub(super) shift: usize,
}

impl Field {
    pub(super) fn read<M: Machine>(self, machine: &M) -> u16 {
        (machine.read_word(self.mfn, self.word) >> self.shift) as u16
    }

    pub(super) fn set<M: Machine>(self, machine: &M, bits: u16) {
        machine.fetch_or_word(self.mfn, self.word, u64::from(bits) << self.shift);
    }

    pub(super) fn clear<M: Machine>(self, machine: &M, bits: u16) {
        machine.fetch_and_word(self.mfn, self.word, !(u64::from(bits) << self.shift));
    }
}

/// Where an entry lies.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    pub(super) version: Version,
    /// The frame and the first word.
    pub(super) mfn: Mfn,
    pub(super) word: usize,
    /// Where the hypervisor's bits are.
    pub(super) bits: Field,
}

impl Place {
    pub(super) fn read<M: Machine>(self, machine: &M) -> Header {
        Header(machine.read_word(self.mfn, self.word))
    }

    /// What the entry grants whose first word is `header`.
    pub(super) fn granted<M: Machine>(self, machine: &M, header: Header) -> Granted {
        if self.version == Version::One {
            return Granted::Page(Mfn(header.0 >> 32));
        }
        let second = machine.read_word(self.mfn, self.word + 1);
        let [low, high] = [(header.0 >> 32) as u16, (header.0 >> 48) as u16];
        if header.flags() & GTF_TYPE_MASK == GTF_TRANSITIVE {
            Granted::Through { domain: DomId(low), reference: second as u32 }
        } else if header.flags() & GTF_SUB_PAGE != 0 {
            Granted::Part { mfn: Mfn(second), start: low, length: high }
        } else {
            Granted::Page(Mfn(second))
        }
    }
}

/// The first word of an entry: flags, domain, and 32 bits more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header(pub(super) u64);

impl Header {
    pub(super) const fn flags(self) -> u16 {
        self.0 as u16
    }

    const fn granted_to(self) -> DomId {
        DomId((self.0 >> 16) as u16)
    }

    pub(super) const fn refuse(self, reference: u32, rule: Rule) -> Refusal {
        let evidence = Evidence::Grant { reference, flags: self.flags(), granted_to: self.granted_to().0 };
        Refusal::status(GNTST_GENERAL_ERROR, rule).with(evidence)
    }

    /// Passes an entry that permits `by` what is asked.
    pub(super) fn check(
        self,
        version: Version,
        reference: u32,
        by: DomId,
        writable: bool,
        purpose: Purpose,
    ) -> Result<(), Refusal> {
        let permits = match purpose {
            Purpose::Map => self.flags() & (GTF_TYPE_MASK | GTF_SUB_PAGE) == GTF_PERMIT_ACCESS,
            Purpose::Copy => match self.flags() & GTF_TYPE_MASK {
                GTF_PERMIT_ACCESS => true,
                GTF_TRANSITIVE => version == Version::Two,
                _ => false,
            },
        };
        if !permits || self.granted_to() != by {
            return Err(self.refuse(reference, rule::NOT_GRANTED));
        }
        if writable && self.flags() & GTF_READONLY != 0 {
            return Err(self.refuse(reference, rule::READ_ONLY));
        }
        Ok(())
    }
}
