//! Who has the terminal.
//!
//! It belongs to this domain's prompt or to one guest. A guest that has it reads every key but the escape key and its
//! output goes out byte for byte; a guest that has it not keeps its last output for the moment it gets the terminal.

use alloc::collections::{BTreeMap, VecDeque};
use alloc::vec::Vec;

use crate::ids::DomId;

/// `Ctrl-]`: gives the terminal back to the prompt.
pub const ESCAPE: u8 = 0x1d;

/// Bytes of output kept for a guest that does not have the terminal.
const KEPT_BYTES: usize = 16 * 1024;

/// Who has the terminal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Focus {
    /// This domain's prompt.
    Prompt,
    /// A guest.
    Guest(DomId),
}

/// Where a run of input goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// To the line editor.
    Prompt(Vec<u8>),
    /// To a guest.
    Guest(DomId, Vec<u8>),
    /// The terminal went back to the prompt.
    Detached(DomId),
}

/// Decides where bytes go.
#[derive(Debug)]
pub struct Multiplexer {
    focus: Focus,
    kept: BTreeMap<DomId, VecDeque<u8>>,
}

impl Default for Multiplexer {
    fn default() -> Self {
        Self { focus: Focus::Prompt, kept: BTreeMap::new() }
    }
}

impl Multiplexer {
    /// Who has the terminal.
    pub fn focus(&self) -> Focus {
        self.focus
    }

    /// Knows a guest from now on.
    pub fn add(&mut self, guest: DomId) {
        self.kept.entry(guest).or_default();
    }

    /// Forgets a guest. If it had the terminal, the prompt gets it.
    pub fn remove(&mut self, guest: DomId) {
        self.kept.remove(&guest);
        if self.focus == Focus::Guest(guest) {
            self.focus = Focus::Prompt;
        }
    }

    /// Gives the terminal to a guest; returns what it wrote meanwhile, or none if there is no such guest.
    pub fn attach(&mut self, guest: DomId) -> Option<Vec<u8>> {
        let kept = self.kept.get_mut(&guest)?;
        self.focus = Focus::Guest(guest);
        Some(kept.drain(..).collect())
    }

    /// Takes what a guest wrote while nobody had its console.
    pub fn take_kept(&mut self, guest: DomId) -> Vec<u8> {
        self.kept.get_mut(&guest).map(|kept| kept.drain(..).collect()).unwrap_or_default()
    }

    /// Gives the terminal to the prompt.
    pub fn detach(&mut self) {
        self.focus = Focus::Prompt;
    }

    /// Takes a guest's output; returns whether it goes to the terminal now.
    pub fn output(&mut self, guest: DomId, bytes: &[u8]) -> bool {
        if self.focus == Focus::Guest(guest) {
            return true;
        }
        if let Some(kept) = self.kept.get_mut(&guest) {
            kept.extend(bytes);
            let over = kept.len().saturating_sub(KEPT_BYTES);
            kept.drain(..over);
        }
        false
    }

    /// Cuts what was typed into runs by where they go.
    pub fn input(&mut self, bytes: &[u8]) -> Vec<Input> {
        let mut runs = Vec::new();
        let mut rest = bytes;
        while let Focus::Guest(guest) = self.focus {
            let end = rest.iter().position(|byte| *byte == ESCAPE);
            let run = &rest[..end.unwrap_or(rest.len())];
            if !run.is_empty() {
                runs.push(Input::Guest(guest, run.to_vec()));
            }
            let Some(end) = end else { return runs };
            self.focus = Focus::Prompt;
            runs.push(Input::Detached(guest));
            rest = &rest[end + 1..];
        }
        if !rest.is_empty() {
            runs.push(Input::Prompt(rest.to_vec()));
        }
        runs
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: DomId = DomId(1);
    const B: DomId = DomId(2);

    fn two() -> Multiplexer {
        let mut mux = Multiplexer::default();
        mux.add(A);
        mux.add(B);
        mux
    }

    #[test]
    fn only_the_attached_guest_writes_to_the_terminal_and_the_other_is_kept() {
        let mut mux = two();
        mux.attach(A);
        assert!(mux.output(A, b"\x1eexec-begin\n"));
        assert!(!mux.output(B, b"later"));
        assert_eq!(mux.attach(B), Some(b"later".to_vec()));
        assert_eq!(mux.attach(DomId(9)), None);
        assert_eq!(mux.focus(), Focus::Guest(B));
    }

    #[test]
    fn the_escape_key_returns_to_the_prompt_in_the_middle_of_a_run() {
        let mut mux = two();
        mux.attach(A);
        let runs = mux.input(b"ls\r\x1dlist\r");
        let expected = [Input::Guest(A, b"ls\r".to_vec()), Input::Detached(A), Input::Prompt(b"list\r".to_vec())];
        assert_eq!(runs, expected);
    }

    #[test]
    fn a_guest_that_ends_leaves_the_terminal_to_the_prompt() {
        let mut mux = two();
        mux.attach(A);
        mux.remove(A);
        assert_eq!(mux.focus(), Focus::Prompt);
        assert_eq!(mux.input(b"x"), [Input::Prompt(b"x".to_vec())]);
    }

    #[test]
    fn the_oldest_output_is_dropped_first() {
        let mut mux = two();
        mux.output(B, &[b'x'; KEPT_BYTES]);
        mux.output(B, b"end");
        let kept = mux.attach(B).expect("known");
        assert_eq!(kept.len(), KEPT_BYTES);
        assert!(kept.ends_with(b"xend"));
    }
}
