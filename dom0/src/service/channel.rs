//! The host's end of the toolstack: requests come over the control channel, answers go back.
//!
//! One session at a time: who opens another one ends the one before, whose client has gone.

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

use dom0::channel::frame::Decoder;
use dom0::channel::message::{FILES_MAX, Message, PIECE_MAX, Session};
use dom0::console::multiplexer::ESCAPE;
use dom0::ids::DomId;
use pv_guest_kernel::task;
use pv_guest_kernel::time::now_ns;

use super::Service;
use super::commands::Client;
use super::creation::Brought;

/// Console output that may wait for the host; what comes on top is dropped, the guest is not held up.
const OUTPUT_MAX: usize = 256 << 10;

/// How long a host that does not read may keep the machine from its end.
const LAST_WORDS_NS: u64 = 1_000_000_000;

/// The control channel, and who is on it.
#[derive(Default)]
pub(super) struct Channel {
    decoder: Decoder,
    session: Option<Session>,
    /// A request is being carried out.
    busy: bool,
    /// Files that the session brought so far, by name.
    files: BTreeMap<String, Vec<u8>>,
    /// Why the files cannot be kept.
    refused: Option<String>,
    console: Option<DomId>,
}

impl Channel {
    /// Takes the files that were brought.
    pub(super) fn take_files(&mut self) -> Brought {
        Brought(core::mem::take(&mut self.files).into_iter().map(|(name, bytes)| (name, Arc::new(bytes))).collect())
    }

    /// Whether the session has this guest's console.
    pub(super) fn has_console(&self, domain: DomId) -> bool {
        self.console == Some(domain)
    }

    fn open(&mut self, session: Session) {
        if self.session != Some(session) {
            *self = Self { decoder: core::mem::take(&mut self.decoder), session: Some(session), ..Self::default() };
        }
    }

    fn bring(&mut self, name: String, piece: &[u8]) {
        let all = self.files.values().map(Vec::len).sum::<usize>() + piece.len();
        if all > FILES_MAX {
            let most = FILES_MAX >> 20;
            self.refused = Some(format!("the files are larger than {most} MiB together: give smaller ones"));
        }
        if self.refused.is_some() {
            self.files.clear();
            return;
        }
        let file = self.files.entry(name).or_default();
        match file.try_reserve(piece.len()) {
            Ok(()) => file.extend_from_slice(piece),
            Err(_) => {
                let mib = all >> 20;
                self.refused = Some(format!("dom0 has no memory for {mib} MiB of files: raise dom0_mem="));
            }
        }
    }
}

impl Service {
    /// Hears what the host says; says whether it said anything.
    pub(super) fn serve_channel(&mut self) -> bool {
        let Some(port) = self.devices.port.as_mut() else {
            return false;
        };
        port.flush();
        let bytes = port.take();
        for frame in self.channel.decoder.take(&bytes) {
            if let Some((session, message)) = Message::decode(&frame) {
                self.hear(session, message);
            }
        }
        !bytes.is_empty()
    }

    /// Lets the host take the last answer, since the machine's end takes with it what still lies in the channel.
    pub(super) fn finish_channel(&mut self) {
        let until = now_ns() + LAST_WORDS_NS;
        while self.devices.port.as_mut().is_some_and(|port| port.is_sending()) && now_ns() < until {
            task::sleep_ns(LAST_WORDS_NS / 1000);
        }
    }

    fn hear(&mut self, session: Session, message: Message) {
        if self.channel.session != Some(session) {
            self.jobs.retain(|job| job.client != Client::Host);
            self.channel.open(session);
        }
        match message {
            Message::File { name, piece } => self.channel.bring(name, &piece),
            Message::Keys(keys) => self.type_from_host(&keys),
            Message::Leave => {
                self.jobs.retain(|job| job.client != Client::Host);
                self.channel.open(Session(!session.0));
            }
            Message::Request(_) if self.channel.refused.is_some() => {
                let problem = self.channel.refused.take().unwrap_or_default();
                self.tell(&Message::Done { status: 1, problem });
            }
            Message::Request(_) if self.channel.busy => {
                self.tell(&Message::Done { status: 1, problem: "the request before is not done yet".into() });
            }
            Message::Request(line) => {
                self.channel.busy = true;
                self.command(Client::Host, &line);
            }
            Message::Output(_) | Message::Done { .. } => {}
        }
    }

    fn type_from_host(&mut self, keys: &[u8]) {
        let Some(domain) = self.channel.console else {
            return;
        };
        let end = keys.iter().position(|key| *key == ESCAPE);
        self.type_to(domain, &keys[..end.unwrap_or(keys.len())]);
        if end.is_some() {
            self.channel.console = None;
        }
    }

    /// Gives the session a guest's console, and what it wrote meanwhile.
    pub(super) fn attach_host(&mut self, domain: DomId) {
        self.channel.console = Some(domain);
        let kept = self.terminal.multiplexer.take_kept(domain);
        self.tell_output(&kept);
    }

    /// Passes a guest's output on, if the session has its console.
    pub(super) fn pass_to_host(&mut self, domain: DomId, text: &[u8]) {
        let waiting = self.devices.port.as_ref().map_or(0, |port| port.waiting());
        if self.channel.console == Some(domain) && waiting < OUTPUT_MAX {
            self.tell_output(text);
        }
    }

    /// Ends a request of the host's.
    pub(super) fn answer_host(&mut self, answer: Result<String, String>) {
        self.channel.busy = false;
        self.channel.console = None;
        let message = match answer {
            Ok(text) => {
                if !text.is_empty() {
                    self.tell_output(format!("{text}\n").as_bytes());
                }
                Message::Done { status: 0, problem: String::new() }
            }
            Err(problem) => Message::Done { status: 1, problem },
        };
        self.tell(&message);
    }

    fn tell_output(&mut self, text: &[u8]) {
        for piece in text.chunks(PIECE_MAX) {
            self.tell(&Message::Output(piece.to_vec()));
        }
    }

    fn tell(&mut self, message: &Message) {
        if let (Some(port), Some(session)) = (self.devices.port.as_mut(), self.channel.session) {
            let mut frame = Vec::new();
            message.encode(session, &mut frame);
            port.send(&frame);
        }
    }
}
