//! Reading a machine's serial console while it runs.

use std::io::Read;
use std::process::{Child, Command};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// A running machine whose console is read line by line.
pub(crate) struct Console {
    child: Child,
    chunks: Receiver<Vec<u8>>,
    partial: Vec<u8>,
    lines: std::collections::VecDeque<String>,
    /// All that it printed.
    pub(crate) transcript: String,
    deadline: Instant,
}

/// What a machine did next.
pub(crate) enum Event {
    /// It printed a line (without its end).
    Line(String),
    /// It ended.
    Ended,
}

impl Console {
    /// Starts a machine that may run for `limit`.
    pub(crate) fn start(mut command: Command, limit: Duration) -> Result<Self> {
        let mut child = command.spawn().context("qemu-system-x86_64 cannot be started")?;
        let mut output = child.stdout.take().context("the console is not piped")?;
        let (sender, chunks) = channel();
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(count) = output.read(&mut buffer) {
                if count == 0 || sender.send(buffer[..count].to_vec()).is_err() {
                    return;
                }
            }
        });
        Ok(Self {
            child,
            chunks,
            partial: Vec::new(),
            lines: std::collections::VecDeque::new(),
            transcript: String::new(),
            deadline: Instant::now() + limit,
        })
    }

    /// Waits for the next line or the end.
    pub(crate) fn next(&mut self) -> Result<Event> {
        loop {
            if let Some(line) = self.lines.pop_front() {
                return Ok(Event::Line(line));
            }
            let left = self.deadline.saturating_duration_since(Instant::now());
            match self.chunks.recv_timeout(left) {
                Ok(chunk) => self.take(&chunk),
                Err(RecvTimeoutError::Disconnected) => {
                    if self.partial.is_empty() {
                        return Ok(Event::Ended);
                    }
                    self.take(b"\n");
                }
                Err(RecvTimeoutError::Timeout) => {
                    bail!("the machine did not get further in time; its console's end:\n{}", self.tail());
                }
            }
        }
    }

    fn take(&mut self, chunk: &[u8]) {
        for &byte in chunk {
            if byte == b'\n' {
                let line = String::from_utf8_lossy(&self.partial).trim_end_matches('\r').to_owned();
                self.partial.clear();
                self.transcript.push_str(&line);
                self.transcript.push('\n');
                self.lines.push_back(line);
            } else {
                self.partial.push(byte);
            }
        }
    }

    /// The last lines.
    pub(crate) fn tail(&self) -> String {
        let partial = String::from_utf8_lossy(&self.partial);
        let lines: Vec<&str> = self.transcript.lines().chain(std::iter::once(partial.as_ref())).collect();
        lines[lines.len().saturating_sub(30)..].join("\n")
    }

    /// The last lines of what has come until now.
    pub(crate) fn tail_now(&mut self) -> String {
        while let Ok(chunk) = self.chunks.try_recv() {
            self.take(&chunk);
        }
        self.tail()
    }

    /// The status with which it ended.
    pub(crate) fn status(&mut self) -> Result<Option<i32>> {
        Ok(self.child.wait()?.code())
    }

    /// What QEMU itself said on standard error, after it ended.
    pub(crate) fn complaint(&mut self) -> String {
        let mut text = String::new();
        if let Some(mut errors) = self.child.stderr.take() {
            let _ = errors.read_to_string(&mut text);
        }
        text.trim().to_owned()
    }

    /// Gives it `limit` to end by itself, then ends it.
    pub(crate) fn finish(&mut self, limit: Duration) {
        let until = Instant::now() + limit;
        while Instant::now() < until {
            if matches!(self.child.try_wait(), Ok(Some(_))) {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        self.kill();
    }

    /// Ends it at once, as a power cut would.
    pub(crate) fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Console {
    fn drop(&mut self) {
        self.kill();
    }
}
