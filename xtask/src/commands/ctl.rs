//! `cargo xtask ctl`: dom0's toolstack commands, from the host.

use std::io::{IsTerminal, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::Args;
use dom0::channel::message::Message;
use dom0::console::words;
use dom0::toolstack::config;

use crate::control::Client;

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
    /// - for standard input; its kernel and its ramdisk may lie beside it
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
    let attaches = command[0] == "console" || command[0] == "create" && command.iter().any(|word| word == "-c");
    let limit = if attaches { Duration::from_secs(365 * 86_400) } else { Duration::from_secs(options.timeout) };
    client.say(&Message::Request(line.join(" ")))?;
    let _raw = if attaches { Some(attach(&client)?) } else { None };
    let until = Instant::now() + limit;
    loop {
        match client.hear(until)? {
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
            None => {
                bail!("it was not done in {} s: dom0 is busy, or another ctl has the channel", options.timeout)
            }
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
    for file in [Some(guest.kernel), guest.ramdisk].into_iter().flatten() {
        let path = folder.join(&file);
        if path.is_file() {
            let bytes = std::fs::read(&path).with_context(|| format!("{} cannot be read", path.display()))?;
            client.bring(&file, &bytes)?;
        }
    }
    Ok(())
}

/// The terminal passes every key on, until this is dropped.
struct Raw;

impl Drop for Raw {
    fn drop(&mut self) {
        let _ = stty(&["sane"]);
    }
}

fn stty(arguments: &[&str]) -> Result<()> {
    let status = Command::new("stty").args(arguments).stdin(Stdio::inherit()).status();
    if status.context("stty cannot be started")?.success() { Ok(()) } else { bail!("stty refused {arguments:?}") }
}

/// Passes keys to the guest's console until Ctrl-] or the end of standard input.
fn attach(client: &Client) -> Result<Option<Raw>> {
    let mut speaker = client.speaker()?;
    let raw = std::io::stdin().is_terminal().then(|| stty(&["raw", "-echo"]).map(|()| Raw)).transpose()?;
    std::thread::spawn(move || {
        let mut keys = [0; 1024];
        loop {
            let count = std::io::stdin().read(&mut keys).unwrap_or(0);
            // The end of the input leaves the console, as Ctrl-] does.
            let message = if count == 0 { vec![0x1d] } else { keys[..count].to_vec() };
            if speaker.say(&Message::Keys(message)).is_err() || count == 0 {
                return;
            }
        }
    });
    Ok(raw)
}
