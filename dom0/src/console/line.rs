//! Edits one line at a terminal: echo, erase, and the lines typed before.

use alloc::string::String;
use alloc::vec::Vec;

const LINE_MAX: usize = 256;
const HISTORY_MAX: usize = 32;

/// What a key led to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Edit {
    /// Bytes to show.
    Echo(Vec<u8>),
    /// The line is whole.
    Line(String),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sequence {
    None,
    Escape,
    Bracket,
}

/// The line being typed.
#[derive(Debug)]
pub struct LineEditor {
    line: String,
    history: Vec<String>,
    recalled: usize,
    sequence: Sequence,
}

impl Default for LineEditor {
    fn default() -> Self {
        Self { line: String::new(), history: Vec::new(), recalled: 0, sequence: Sequence::None }
    }
}

impl LineEditor {
    /// What has been typed so far.
    pub fn text(&self) -> &str {
        &self.line
    }

    /// Takes one byte from the terminal.
    pub fn key(&mut self, byte: u8) -> Option<Edit> {
        match (self.sequence, byte) {
            (Sequence::Escape, b'[') => self.sequence = Sequence::Bracket,
            (Sequence::Bracket, letter) => {
                self.sequence = Sequence::None;
                return self.arrow(letter);
            }
            (Sequence::Escape, _) => self.sequence = Sequence::None,
            (Sequence::None, 0x1b) => self.sequence = Sequence::Escape,
            (Sequence::None, b'\r' | b'\n') => return Some(Edit::Line(self.finish())),
            (Sequence::None, 0x7f | 0x08) => {
                return self.line.pop().map(|_| Edit::Echo(b"\x08 \x08".to_vec()));
            }
            (Sequence::None, 0x03 | 0x15) => return Some(self.replace(String::new())),
            (Sequence::None, b' '..=b'~') if self.line.len() < LINE_MAX => {
                self.line.push(char::from(byte));
                return Some(Edit::Echo(alloc::vec![byte]));
            }
            (Sequence::None, _) => {}
        }
        None
    }

    fn arrow(&mut self, letter: u8) -> Option<Edit> {
        let wanted = match letter {
            b'A' => self.recalled.checked_sub(1)?,
            b'B' => (self.recalled + 1).min(self.history.len()),
            _ => return None,
        };
        self.recalled = wanted;
        let line = self.history.get(wanted).cloned().unwrap_or_default();
        Some(self.replace(line))
    }

    fn replace(&mut self, line: String) -> Edit {
        let mut echo = Vec::new();
        self.line.chars().for_each(|_| echo.extend(b"\x08 \x08"));
        echo.extend(line.as_bytes());
        self.line = line;
        Edit::Echo(echo)
    }

    fn finish(&mut self) -> String {
        let line = core::mem::take(&mut self.line);
        if !line.is_empty() && self.history.last() != Some(&line) {
            self.history.push(line.clone());
            let over = self.history.len().saturating_sub(HISTORY_MAX);
            self.history.drain(..over);
        }
        self.recalled = self.history.len();
        line
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn type_in(editor: &mut LineEditor, keys: &[u8]) -> Option<String> {
        keys.iter().filter_map(|key| editor.key(*key)).find_map(|edit| match edit {
            Edit::Line(line) => Some(line),
            Edit::Echo(_) => None,
        })
    }

    #[test]
    fn keys_make_a_line_and_erasing_takes_them_back() {
        let mut editor = LineEditor::default();
        assert_eq!(type_in(&mut editor, b"lisx\x7ft\r").as_deref(), Some("list"));
        assert_eq!(type_in(&mut editor, b"wrong\x15help\r").as_deref(), Some("help"));
    }

    #[test]
    fn arrows_recall_lines_typed_before() {
        let mut editor = LineEditor::default();
        type_in(&mut editor, b"one\rtwo\r");
        assert_eq!(type_in(&mut editor, b"\x1b[A\x1b[A\r").as_deref(), Some("one"));
        assert_eq!(type_in(&mut editor, b"\x1b[A\x1b[B\r").as_deref(), Some(""));
    }

    #[test]
    fn a_line_that_is_too_long_stops_growing() {
        let mut editor = LineEditor::default();
        let line = type_in(&mut editor, &[[b'x'; 400].as_slice(), b"\r"].concat()).expect("a line");
        assert_eq!(line.len(), LINE_MAX);
    }
}
