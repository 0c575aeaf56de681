//! Why something was refused, and what follows.
//!
//! A check that fails makes a [`Refusal`]: the consequence (an errno, a crash, another try), the [`Rule`] that was
//! broken, and the state of what was in the way. One wrapper ([`crate::hypercall::dispatch`]) applies it and one place
//! prints it ([`crate::rules::report`]).

use pv_abi::errno::Errno;
use pv_abi::{DomId, Mfn};

use crate::rules::{Row, Rule};

/// What stands for a rule where nothing was refused: an operation stopped at a safe point and goes on when the guest
/// executes it again. It is never told.
const CONTINUED: Rule = Rule(&Row { id: "", sentence: "", source: "Xen: hypercall continuations" });

/// What a refusal does to the one who asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Consequence {
    /// The hypercall returns this errno.
    Errno(Errno),
    /// One operation of a batch says this in its own status field (`GNTST_*`).
    Status(i16),
    /// The hypercall is executed again by the guest; its arguments already say how far it came.
    Continue,
    /// The domain is crashed.
    Crash,
}

/// The state of what was in the way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Evidence {
    /// The rule says it all.
    #[default]
    None,
    /// One number that the rule's sentence speaks of.
    Value(u64),
    /// A number that was asked for, and what it may be at most.
    Limit {
        /// What was asked for.
        asked: u64,
        /// The largest that is allowed.
        limit: u64,
    },
    /// A frame as the frame table knew it.
    Frame {
        /// The frame.
        mfn: Mfn,
        /// Its owner, or none for a free or unknown frame.
        owner: Option<DomId>,
        /// Raw reference count word.
        count: u64,
        /// Raw type word (type, type count, flags).
        type_info: u64,
    },
    /// An event-channel port and its state's name.
    Port {
        /// The port.
        port: u32,
        /// What it was.
        state: &'static str,
    },
    /// A grant entry as it was read.
    Grant {
        /// The grant reference.
        reference: u32,
        /// Its flags.
        flags: u16,
        /// The domain it is granted to.
        granted_to: u16,
    },
    /// A page-table entry.
    Entry {
        /// The entry's value.
        value: u64,
        /// The level of the table it is in, 1 to 4.
        level: u8,
    },
}

/// A refused operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub struct Refusal {
    /// What it does to the one who asked.
    pub consequence: Consequence,
    /// The rule that was broken.
    pub rule: Rule,
    /// What was in the way.
    pub evidence: Evidence,
}

impl Refusal {
    /// The hypercall returns `errno` because of `rule`.
    #[cold]
    pub const fn errno(errno: Errno, rule: Rule) -> Self {
        Self { consequence: Consequence::Errno(errno), rule, evidence: Evidence::None }
    }

    /// One operation of a batch has this status because of `rule`.
    #[cold]
    pub const fn status(status: i16, rule: Rule) -> Self {
        Self { consequence: Consequence::Status(status), rule, evidence: Evidence::None }
    }

    /// The domain is crashed because of `rule`.
    #[cold]
    pub const fn crash(rule: Rule) -> Self {
        Self { consequence: Consequence::Crash, rule, evidence: Evidence::None }
    }

    /// The hypercall goes on after other work was given a chance (Xen's continuation).
    #[cold]
    pub const fn again() -> Self {
        Self { consequence: Consequence::Continue, rule: CONTINUED, evidence: Evidence::None }
    }

    /// Adds what was in the way.
    #[cold]
    pub const fn with(mut self, evidence: Evidence) -> Self {
        self.evidence = evidence;
        self
    }

    /// The errno, where that is the consequence.
    #[must_use]
    pub const fn as_errno(&self) -> Option<Errno> {
        match self.consequence {
            Consequence::Errno(errno) => Some(errno),
            _ => None,
        }
    }
}
