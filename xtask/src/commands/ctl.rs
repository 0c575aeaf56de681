//! `cargo xtask ctl`: dom0's toolstack commands, from the host.

use std::io::{IsTerminal, Read, Write};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::Args;
use dom0::channel::message::{FILES_MAX, Message};
use dom0::console::command::{self, Command};
use dom0::console::multiplexer::ESCAPE;
use dom0::console::words;
use dom0::toolstack::config;
use dom0::toolstack::device::{Disk, DiskTarget};

use crate::control::Client;

/// How long a guest's console must be quiet, when nothing more is typed, until it is left.
const QUIET: Duration = Duration::from_secs(1);

#[derive(Args)]
pub(crate) struct Options {
    /// The running system, as `cargo xtask run --name` called it; without it the one that was started last
    #[arg(long)]
    system: Option<String>,
    /// Print list and top as JSON
    #[arg(long)]
    json: bool,
    /// Seconds after which a command is given up
    #[arg(long, default_value_t = 120)]
    timeout: u64,
    /// A command of xl's, as dom0's own prompt takes it; `help` lists them. `create` also takes a file of the host's, or
    /// - for standard input; its kernel, its ramdisk and the files of its disks may lie beside it, as may that of `block-attach` here
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
    command: Vec<String>,
}

/// Has the command carried out, prints its output alone, gives its status.
pub(crate) fn run(options: &Options) -> Result<u8> {
    let mut client = Client::find(options.system.as_deref())?;
    let mut command = options.command.clone();
    if options.json {
        command.push("--json".to_owned());
    }
    if command[0] == "create" {
        bring_files(&mut client, &mut command)?;
    }
    let line: Vec<String> = command.iter().map(|word| words::quote(word)).collect();
    if let Ok(Some(Command::BlockAttach(_, disk))) = command::parse(&line.join(" "))
        && let Ok(disk) = Disk::parse(&disk)
    {
        bring(&mut client, Path::new("."), image_of(&disk))?;
    }
    let attaches = command[0] == "console" || command[0] == "create" && command.iter().any(|word| word == "-c");
    let limit = if attaches { Duration::from_secs(365 * 86_400) } else { Duration::from_secs(options.timeout) };
    client.say(&Message::Request(line.join(" ")))?;
    let attached = if attaches { Some(Attached::begin(&client)?) } else { None };
    let until = Instant::now() + limit;
    loop {
        let quiet = Instant::now() + QUIET;
        match client.hear(quiet.min(until))? {
            Some(Message::Output(bytes)) => {
                let mut out = std::io::stdout();
                out.write_all(&bytes)?;
                out.flush()?;
            }
            Some(Message::Done { status, problem }) => {
                if !problem.is_empty() {
                    eprintln!("{problem}");
                }
                return Ok(status);
            }
            Some(_) => {}
            None if Instant::now() >= until => {
                bail!("it was not done in {} s: dom0 is busy, or another ctl has the channel", options.timeout)
            }
            // Nothing more is typed, and the guest has said what it had to say: the console is left.
            None if attached.as_ref().is_some_and(Attached::is_over) => client.say(&Message::Keys(vec![ESCAPE]))?,
            None => {}
        }
    }
}

/// Sends the description that `create` names, and the files that it names, as far as they are the host's.
fn bring_files(client: &mut Client, command: &mut [String]) -> Result<()> {
    let Some(name) = command[1..].iter_mut().find(|word| *word == "-" || !word.starts_with('-')) else {
        return Ok(());
    };
    let (text, folder) = if name == "-" {
        let mut text = String::new();
        std::io::stdin().read_to_string(&mut text).context("standard input cannot be read")?;
        *name = "stdin".to_owned();
        (text, PathBuf::from("."))
    } else if Path::new(name).is_file() {
        let folder = Path::new(name).parent().unwrap_or(Path::new(".")).to_owned();
        (std::fs::read_to_string(&name).with_context(|| format!("{name} cannot be read"))?, folder)
    } else {
        // It may be a file of dom0's.
        return Ok(());
    };
    client.bring(name, text.as_bytes())?;
    // What is wrong with the description is said by dom0.
    let Ok(guest) = config::parse(name, &text) else {
        return Ok(());
    };
    let images = guest.disks.iter().flat_map(image_of);
    let files = [Some(guest.kernel.as_str()), guest.ramdisk.as_deref()].into_iter().flatten();
    bring(client, &folder, files.chain(images))
}

/// The file behind a disk, where it is one.
fn image_of(disk: &Disk) -> Option<&str> {
    match &disk.target {
        DiskTarget::File(path) => Some(path),
        DiskTarget::Physical(_) => None,
    }
}

/// Sends those of these files that lie in the host's folder, under the names that they are given by.
fn bring<'a>(client: &mut Client, folder: &Path, files: impl IntoIterator<Item = &'a str>) -> Result<()> {
    let found: Vec<(&str, PathBuf)> = files.into_iter().map(|file| (file, folder.join(file))).collect();
    let mut left = FILES_MAX as u64;
    for (file, path) in found.into_iter().filter(|(_, path)| path.is_file()) {
        let len = std::fs::metadata(&path).with_context(|| format!("{} cannot be read", path.display()))?.len();
        left = left.checked_sub(len).with_context(|| {
            let most = FILES_MAX >> 20;
            format!(
                "{}: the channel takes files of {most} MiB together: lend a larger disk as /dev/vdX",
                path.display()
            )
        })?;
        let bytes = std::fs::read(&path).with_context(|| format!("{} cannot be read", path.display()))?;
        client.bring(file, &bytes)?;
    }
    Ok(())
}

/// A guest's console on this terminal. The terminal passes every key on, until this is dropped.
struct Attached {
    is_terminal: bool,
    over: Arc<AtomicBool>,
}

impl Attached {
    /// Passes keys to the guest until the end of standard input.
    fn begin(client: &Client) -> Result<Self> {
        let mut speaker = client.speaker()?;
        let over = Arc::new(AtomicBool::new(false));
        let attached = Self { is_terminal: std::io::stdin().is_terminal(), over: over.clone() };
        if attached.is_terminal {
            stty(&["raw", "-echo"])?;
        }
        std::thread::spawn(move || {
            let mut keys = [0; 1024];
            while let Ok(count @ 1..) = std::io::stdin().read(&mut keys) {
                if speaker.say(&Message::Keys(keys[..count].to_vec())).is_err() {
                    return;
                }
            }
            over.store(true, Ordering::Relaxed);
        });
        Ok(attached)
    }

    fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }
}

impl Drop for Attached {
    fn drop(&mut self) {
        if self.is_terminal {
            let _ = stty(&["sane"]);
        }
    }
}

fn stty(arguments: &[&str]) -> Result<()> {
    let status = std::process::Command::new("stty").args(arguments).stdin(Stdio::inherit()).status();
    if status.context("stty cannot be started")?.success() { Ok(()) } else { bail!("stty refused {arguments:?}") }
}
