//! Every check, numbered.
//!
//! A rule is one row: a constant's name, its id, the sentence that a refused guest's author reads, and the source that
//! makes it a rule. The rows of one room stand in one file here; [`tables`] is all of them, and `docs/abi.md` is made
//! from it. An id is never used again for something else.

use ::core::fmt;

/// A numbered rule.
#[derive(Clone, Copy)]
pub struct Rule(pub &'static Row);

/// A rule's row in its table.
#[derive(Debug)]
pub struct Row {
    /// The id, for example `GNT-07`.
    pub id: &'static str,
    /// What must hold, as a sentence.
    pub sentence: &'static str,
    /// Where that is written.
    pub source: &'static str,
}

impl PartialEq for Rule {
    fn eq(&self, other: &Self) -> bool {
        self.0.id == other.0.id
    }
}
impl Eq for Rule {}

impl fmt::Debug for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.id)
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.0.id, self.0.sentence)
    }
}

/// Declares the rules of one room: `NAME = "ID", "sentence", "source";` a row.
#[macro_export]
macro_rules! rules {
    ($($name:ident = $id:literal, $sentence:literal, $source:literal;)*) => {
        $(
            #[doc = concat!($id, ": ", $sentence, " (", $source, ")")]
            pub const $name: $crate::rules::Rule = $crate::rules::Rule(&$crate::rules::Row {
                id: $id, sentence: $sentence, source: $source,
            });
        )*
        /// All of this file's rules, in order.
        pub const TABLE: &[$crate::rules::Rule] = &[$($name),*];
    };
}

pub mod control;
pub mod core;
pub mod evtchn;
pub mod grant;
pub mod hvm;
pub mod memory;
pub mod paging;
pub mod physdev;
pub mod sched;
pub mod traps;

mod report;
pub use report::{Limiter, admit, report};

/// All rules, a table a room.
#[must_use]
pub const fn tables() -> [&'static [Rule]; 10] {
    [
        core::TABLE,
        memory::TABLE,
        paging::TABLE,
        evtchn::TABLE,
        grant::TABLE,
        sched::TABLE,
        traps::TABLE,
        control::TABLE,
        physdev::TABLE,
        hvm::TABLE,
    ]
}

#[cfg(test)]
mod tests {
    #[test]
    fn no_two_rules_share_an_id() {
        let mut seen = std::collections::HashSet::new();
        for rule in super::tables().into_iter().flatten() {
            assert!(seen.insert(rule.0.id), "{} twice", rule.0.id);
        }
    }
}
