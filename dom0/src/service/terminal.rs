//! The physical console: keys in, text out.

use alloc::collections::VecDeque;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

use dom0::console::line::{Edit, LineEditor};
use dom0::console::multiplexer::{Focus, Input, Multiplexer};
use dom0::ids::DomId;
use pv_guest_kernel::console;
use pv_guest_kernel::sync::IrqLock;
use pv_guest_kernel::task::{self, Signal};

use super::Service;
use super::commands::Client;

const PROMPT: &str = "dom0> ";

static KEYS: IrqLock<VecDeque<u8>> = IrqLock::new(VecDeque::new());

/// The terminal and who has it.
pub(super) struct Terminal {
    pub(super) multiplexer: Multiplexer,
    editor: LineEditor,
    /// The cursor is behind a prompt that was shown.
    prompted: bool,
    /// The last byte shown ended a line.
    line_start: bool,
}

impl Terminal {
    /// Listens for keys; each raises `signal`.
    pub(super) fn start(signal: &Arc<Signal>) -> Self {
        let signal = signal.clone();
        task::spawn(String::from("terminal"), move || {
            loop {
                let key = console::read_byte();
                KEYS.lock().push_back(key);
                signal.raise();
            }
        });
        Self { multiplexer: Multiplexer::default(), editor: LineEditor::default(), prompted: false, line_start: true }
    }

    /// Shows a message of this domain on a line of its own.
    pub(super) fn say(&mut self, text: &str) {
        self.start_line();
        self.show(text.as_bytes());
        self.show(b"\n");
    }

    /// Ends a half-written line, or takes the prompt away.
    pub(super) fn start_line(&mut self) {
        if self.prompted {
            console::write_raw(b"\r\x1b[K");
            self.prompted = false;
        } else if !self.line_start {
            console::write_raw(b"\r\n");
        }
        self.line_start = true;
    }

    /// Shows the prompt if it is due.
    pub(super) fn prompt(&mut self) {
        if self.multiplexer.focus() == Focus::Prompt && !self.prompted {
            self.start_line();
            console::write_raw(PROMPT.as_bytes());
            console::write_raw(self.editor.text().as_bytes());
            self.prompted = true;
            self.line_start = false;
        }
    }

    /// Shows a guest's bytes as they are.
    pub(super) fn pass(&mut self, bytes: &[u8]) {
        if let Some(last) = bytes.last() {
            console::write_raw(bytes);
            self.line_start = *last == b'\n';
        }
    }

    /// Ends with a whole line.
    pub(super) fn leave(&mut self) {
        self.start_line();
    }

    fn show(&mut self, bytes: &[u8]) {
        if let Some(last) = bytes.last() {
            console::write_bytes(bytes);
            self.line_start = *last == b'\n';
        }
    }

    /// Edits the line at the prompt; returns the lines that are whole.
    fn edit(&mut self, keys: &[u8]) -> Vec<String> {
        let mut lines = Vec::new();
        for key in keys {
            match self.editor.key(*key) {
                Some(Edit::Echo(bytes)) => console::write_raw(&bytes),
                Some(Edit::Line(line)) => {
                    console::write_raw(b"\r\n");
                    self.prompted = false;
                    self.line_start = true;
                    lines.push(line);
                }
                None => {}
            }
        }
        lines
    }
}

impl Service {
    /// Takes what was typed to where it belongs.
    pub(super) fn serve_terminal(&mut self) -> bool {
        let keys: Vec<u8> = KEYS.lock().drain(..).collect();
        for input in self.terminal.multiplexer.input(&keys) {
            match input {
                Input::Guest(domain, keys) => self.type_to(domain, &keys),
                Input::Detached(_) => self.terminal.prompt(),
                Input::Prompt(keys) => {
                    self.terminal.prompt();
                    for line in self.terminal.edit(&keys) {
                        self.command(Client::Prompt, &line);
                    }
                }
            }
        }
        self.terminal.prompt();
        !keys.is_empty()
    }

    /// Gives the terminal to a guest.
    pub(super) fn attach(&mut self, domain: DomId) {
        let Some(kept) = self.terminal.multiplexer.attach(domain) else {
            return;
        };
        self.terminal.start_line();
        self.terminal.pass(&kept);
    }
}
