//! The host's end of dom0's control channel.
//!
//! A running system listens on a socket in a folder of its own; `target/xtask/run/NAME` holds the socket's path. One
//! client at a time is served, the next one waits.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result, bail};
use dom0::channel::frame::Decoder;
use dom0::channel::message::{Message, PIECE_MAX, Session};

use crate::artifacts;

fn names_folder() -> Result<PathBuf> {
    let folder = artifacts::work_folder()?.join("run");
    std::fs::create_dir_all(&folder).with_context(|| format!("{} cannot be made", folder.display()))?;
    Ok(folder)
}

/// A running system that can be found by its name; it is forgotten when this is dropped.
pub(crate) struct Registered(PathBuf);

impl Registered {
    /// Says under `name` that a system listens at `socket`.
    pub(crate) fn new(name: &str, socket: &Path) -> Result<Self> {
        let path = names_folder()?.join(name);
        std::fs::write(&path, socket.display().to_string())
            .with_context(|| format!("{} cannot be written", path.display()))?;
        Ok(Self(path))
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// The line to a system.
pub(crate) struct Client {
    stream: UnixStream,
    session: Session,
    decoder: Decoder,
    heard: std::collections::VecDeque<Message>,
}

impl Client {
    /// Connects to the system with this name, or to the one that was started last.
    pub(crate) fn find(name: Option<&str>) -> Result<Self> {
        let folder = names_folder()?;
        let mut systems: Vec<(SystemTime, PathBuf)> = Vec::new();
        for entry in std::fs::read_dir(&folder)?.filter_map(Result::ok) {
            systems.push((entry.metadata()?.modified()?, entry.path()));
        }
        systems.sort();
        systems.retain(|(_, path)| name.is_none_or(|name| path.file_name().is_some_and(|file| file == name)));
        for (_, path) in systems.iter().rev() {
            let socket = std::fs::read_to_string(path)?;
            match Self::connect(Path::new(&socket)) {
                Ok(client) => return Ok(client),
                // Its machine ended without a word.
                Err(_) => drop(std::fs::remove_file(path)),
            }
        }
        match name {
            Some(name) => bail!("no system \"{name}\" runs; leave --system out for the newest"),
            None => bail!("no system runs; start one with cargo xtask run"),
        }
    }

    /// Connects to the system that listens at this socket.
    pub(crate) fn connect(socket: &Path) -> Result<Self> {
        let stream = UnixStream::connect(socket).with_context(|| format!("nothing listens at {}", socket.display()))?;
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let session = Session((now.as_nanos() as u32).rotate_left(16) ^ std::process::id());
        Ok(Self { stream, session, decoder: Decoder::default(), heard: std::collections::VecDeque::new() })
    }

    /// Says something.
    pub(crate) fn say(&mut self, message: &Message) -> Result<()> {
        let mut frame = Vec::new();
        message.encode(self.session, &mut frame);
        self.stream.write_all(&frame).context("the system went away")
    }

    /// Sends a file under this name.
    pub(crate) fn bring(&mut self, name: &str, bytes: &[u8]) -> Result<()> {
        let pieces = bytes.chunks(PIECE_MAX - name.len().min(1024)).map(<[u8]>::to_vec);
        for piece in pieces.chain(bytes.is_empty().then(Vec::new)) {
            self.say(&Message::File { name: name.to_owned(), piece })?;
        }
        Ok(())
    }

    /// Another handle of the same line, to say things from elsewhere.
    pub(crate) fn speaker(&self) -> Result<Self> {
        let stream = self.stream.try_clone()?;
        Ok(Self {
            stream,
            session: self.session,
            decoder: Decoder::default(),
            heard: std::collections::VecDeque::new(),
        })
    }

    /// Waits for what is said to this client; none when the time is over.
    pub(crate) fn hear(&mut self, until: Instant) -> Result<Option<Message>> {
        loop {
            if let Some(message) = self.heard.pop_front() {
                return Ok(Some(message));
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(None);
            }
            self.stream.set_read_timeout(Some(left.max(Duration::from_millis(1))))?;
            let mut bytes = [0; 16 * 1024];
            let count = match self.stream.read(&mut bytes) {
                Ok(0) => bail!("the system ended"),
                Ok(count) => count,
                Err(error) if matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut) => {
                    return Ok(None);
                }
                Err(error) => return Err(error).context("the system went away"),
            };
            let frames = self.decoder.take(&bytes[..count]);
            let messages = frames.iter().filter_map(|frame| Message::decode(frame));
            self.heard.extend(messages.filter(|(session, _)| *session == self.session).map(|(_, message)| message));
        }
    }

    /// Has a line carried out; gives its output, its status and why it failed.
    pub(crate) fn request(&mut self, line: &str, limit: Duration) -> Result<(String, u8, String)> {
        self.say(&Message::Request(line.to_owned()))?;
        let until = Instant::now() + limit;
        let mut output = Vec::new();
        loop {
            match self.hear(until)? {
                Some(Message::Output(bytes)) => output.extend(bytes),
                Some(Message::Done { status, problem }) => {
                    return Ok((String::from_utf8_lossy(&output).into_owned(), status, problem));
                }
                Some(_) => {}
                None => bail!(
                    "\"{line}\" was not done in {} s: dom0 is busy, or another ctl has the channel",
                    limit.as_secs()
                ),
            }
        }
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        let _ = self.stream.flush();
    }
}
