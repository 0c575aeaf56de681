//! Saying no with a name.
//!
//! A back end checks what a front end wrote. Each check is a [`Rule`], declared once with a name and a sentence. What
//! breaks a rule is refused, counted, and logged with the rule, the sentence and the offending values.
//!
//! Invariant: a front end cannot flood the log. At most ten lines are written in a second; the next line that is
//! written says how many were left out.

use alloc::collections::BTreeMap;
use alloc::string::String;
use core::fmt;

const WINDOW_NS: u64 = 1_000_000_000;
const LINES_PER_WINDOW: u32 = 10;

/// Something a peer must not do.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
pub struct Rule {
    /// A short, stable name, for instance `block.segment.backwards`.
    pub name: &'static str,
    /// What holds for a working peer.
    pub sentence: &'static str,
}

/// Declares rules: `rules! { SEGMENT_BACKWARDS = "block.segment.backwards": "a segment ends where it starts or later"; }`
/// makes one constant each, and `ALL` of them.
#[macro_export]
macro_rules! rules {
    ($($constant:ident = $name:literal: $sentence:literal;)*) => {
        $(
            #[doc = $sentence]
            pub const $constant: $crate::refusal::Rule = $crate::refusal::Rule { name: $name, sentence: $sentence };
        )*

        /// Every rule of this table.
        pub const ALL: &[$crate::refusal::Rule] = &[$($constant),*];
    };
}

/// The refusals of one device.
#[derive(Debug)]
pub struct Refusals {
    device: String,
    counts: BTreeMap<Rule, u64>,
    window_start_ns: u64,
    lines: u32,
    left_out: u64,
}

impl Refusals {
    /// No refusals yet, for the device of this name.
    #[must_use]
    pub fn new(device: impl Into<String>) -> Self {
        Self { device: device.into(), counts: BTreeMap::new(), window_start_ns: 0, lines: 0, left_out: 0 }
    }

    /// Counts and logs one refusal.
    pub fn refuse(&mut self, now_ns: u64, rule: Rule, what: fmt::Arguments<'_>) {
        *self.counts.entry(rule).or_default() += 1;
        if now_ns.saturating_sub(self.window_start_ns) >= WINDOW_NS {
            self.window_start_ns = now_ns;
            self.lines = 0;
        }
        if self.lines >= LINES_PER_WINDOW {
            self.left_out += 1;
            return;
        }
        self.lines += 1;
        let left_out = core::mem::take(&mut self.left_out);
        if left_out > 0 {
            log::warn!("{}: {left_out} more refusals", self.device);
        }
        log::warn!("{}: {}: {} ({what})", self.device, rule.name, rule.sentence);
    }

    /// How often `rule` was broken.
    #[must_use]
    pub fn count(&self, rule: Rule) -> u64 {
        self.counts.get(&rule).copied().unwrap_or(0)
    }

    /// Every rule that was broken, and how often.
    pub fn iter(&self) -> impl Iterator<Item = (Rule, u64)> + '_ {
        self.counts.iter().map(|(rule, count)| (*rule, *count))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOO_LOUD: Rule = Rule { name: "test.too_loud", sentence: "a peer is quiet" };

    #[test]
    fn a_peer_cannot_flood_the_log_but_every_refusal_is_counted() {
        let mut refusals = Refusals::new("test");
        for _ in 0..1000 {
            refusals.refuse(5, TOO_LOUD, format_args!("very"));
        }
        assert_eq!(refusals.count(TOO_LOUD), 1000);
        assert_eq!(refusals.left_out, 990);
        refusals.refuse(5 + WINDOW_NS, TOO_LOUD, format_args!("again"));
        assert_eq!(refusals.left_out, 0);
        assert_eq!(refusals.iter().count(), 1);
    }
}
