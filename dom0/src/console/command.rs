//! What can be typed at the prompt or sent by the host: the verbs of `xl`, as far as they make sense for PV guests.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use super::verbs::{VERBS, Verb};
use super::words;
use crate::toolstack::cpus::CpuSet;

/// A command. Guests are named as they were typed: by name or by number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Shows the domains, or one.
    List(Option<String>, Format),
    /// Starts a guest from its description.
    Create {
        /// Its description.
        file: String,
        /// It is left paused.
        paused: bool,
        /// Its console is attached to.
        console: bool,
    },
    /// Gives the terminal to a guest.
    Console(String),
    /// Holds a guest.
    Pause(String),
    /// Lets a guest run on.
    Unpause(String),
    /// Asks guests to end or to begin anew.
    Stop {
        /// The guest, or none for all.
        guest: Option<String>,
        /// What is written to `control/shutdown`.
        how: &'static str,
        /// The command ends when they have.
        wait: bool,
    },
    /// Ends a guest at once.
    Destroy(String),
    /// Gives a guest another name.
    Rename(String, String),
    /// Suspends a guest and lets it go on.
    SuspendCancel(String),
    /// Gives a guest a disk.
    BlockAttach(String, String),
    /// Takes a disk from a guest, by its name or number; at once where so asked.
    BlockDetach(String, String, bool),
    /// Shows a guest's disks.
    BlockList(String),
    /// Gives a guest a network interface.
    NetworkAttach(String, String),
    /// Takes a network interface from a guest, by its number or address; at once where so asked.
    NetworkDetach(String, String, bool),
    /// Shows a guest's network interfaces.
    NetworkList(String),
    /// Ends the back end of a device, `vbd` or `vif` with its number, as a crash would, and starts another one.
    BackendRestart(String, String, u32),
    /// Shows virtual CPUs.
    VcpuList(Option<String>),
    /// Asks a guest to use this many virtual CPUs.
    VcpuSet(String, u32),
    /// Says where a virtual CPU (or each) may run, and likes to.
    VcpuPin(String, Option<u32>, Option<CpuSet>, Option<CpuSet>),
    /// Asks a guest to have this many KiB.
    MemSet(String, u64),
    /// Bounds the KiB that a guest may have.
    MemMax(String, u64),
    /// Shows what the domains use.
    Top(Format),
    /// Shows the hypervisor's messages; forgets them where so asked.
    Dmesg(bool),
    /// Shows what the machine and the hypervisor are.
    Info,
    /// Shows how long domains have run.
    Uptime(Option<String>),
    /// Shows a guest's number.
    Domid(String),
    /// Shows a guest's name.
    Domname(String),
    /// Sends a guest's kernel a letter.
    Sysrq(String, String),
    /// Sends a virtual CPU a non-maskable interrupt.
    Nmi(String, u32),
    /// Sends the hypervisor keys.
    DebugKeys(String),
    /// Shows the store.
    StoreList(String),
    /// Shows a node of the store.
    StoreRead(String),
    /// Writes a node of the store.
    StoreWrite(String, String),
    /// Removes a node of the store and what is below.
    StoreRemove(String),
    /// Powers the machine off.
    Poweroff,
    /// Shows this list.
    Help,
}

/// How a table is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// With xl's columns.
    Columns,
    /// As JSON.
    Json,
}

/// What follows a verb.
#[derive(Debug)]
pub(super) struct Arguments {
    flags: Vec<String>,
    words: Vec<String>,
}

impl Arguments {
    pub(super) fn has(&self, flag: &str) -> bool {
        self.flags.iter().any(|given| given == flag)
    }

    pub(super) fn format(&self) -> Format {
        if self.has("--json") { Format::Json } else { Format::Columns }
    }

    pub(super) fn text(&self, place: usize) -> String {
        self.maybe(place).unwrap_or_default()
    }

    pub(super) fn maybe(&self, place: usize) -> Option<String> {
        self.words.get(place).cloned()
    }

    pub(super) fn number(&self, place: usize) -> Result<u32, String> {
        let text = self.text(place);
        text.parse().map_err(|_| format!("\"{text}\" is no number: write for example 1"))
    }

    /// The words from `place` on, in one.
    pub(super) fn rest(&self, place: usize) -> String {
        self.words.get(place..).unwrap_or_default().join(",")
    }
}

/// Reads a line; an empty one is no command.
///
/// # Errors
/// One line that names what is wrong and the cure.
pub fn parse(line: &str) -> Result<Option<Command>, String> {
    let mut line = words::split(line)?.into_iter().skip_while(|word| word == "xl");
    let Some(name) = line.next() else {
        return Ok(None);
    };
    let verb = VERBS.iter().find(|verb| verb.name == name);
    let verb = verb.ok_or_else(|| format!("unknown command \"{name}\": type help"))?;
    let (flags, words): (Vec<_>, Vec<_>) = line.partition(|word| word.starts_with('-') && word.len() > 1);
    if let Some(unknown) = flags.iter().find(|flag| !verb.flags.contains(&flag.as_str())) {
        return Err(format!("\"{unknown}\" is not known: write {}", verb.usage()));
    }
    if words.len() > verb.most {
        return Err(format!("\"{}\" is too much: write {}", words[verb.most], verb.usage()));
    }
    if words.len() < verb.least {
        return Err(format!("something is missing: write {}", verb.usage()));
    }
    (verb.make)(&Arguments { flags, words }).map(Some)
}

/// An amount of memory as `xl` reads it, in KiB; a bare number is in MiB.
pub(super) fn memory_kib(text: &str) -> Result<u64, String> {
    let wrong = || format!("\"{text}\" is no amount of memory: write for example 128, 128m or 1g");
    let digits = text.trim_end_matches(|letter: char| letter.is_ascii_alphabetic());
    let number: u64 = digits.parse().map_err(|_| wrong())?;
    let kib = match text[digits.len()..].to_ascii_lowercase().as_str() {
        "b" => Some(number >> 10),
        "k" | "kb" => Some(number),
        "" | "m" | "mb" => number.checked_mul(1 << 10),
        "g" | "gb" => number.checked_mul(1 << 20),
        "t" | "tb" => number.checked_mul(1 << 30),
        _ => None,
    };
    kib.filter(|kib| *kib > 0 && *kib < 1 << 42).ok_or_else(wrong)
}

/// The list of commands.
pub fn help() -> String {
    let lines = VERBS.iter().map(|verb| match verb.usage() {
        usage if usage.len() < 32 => format!("{usage:<32} {}\n", verb.help),
        usage => format!("{usage}\n{:<32} {}\n", "", verb.help),
    });
    lines.collect::<String>().trim_end().to_string()
}

impl Verb {
    fn usage(&self) -> String {
        format!("{} {}", self.name, self.arguments).trim_end().to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verbs_are_read_with_and_without_xl() {
        assert_eq!(parse("xl list"), Ok(Some(Command::List(None, Format::Columns))));
        assert_eq!(parse("  console demo "), Ok(Some(Command::Console("demo".into()))));
        assert_eq!(parse("xenstore-ls"), Ok(Some(Command::StoreList("/".into()))));
        assert_eq!(parse(""), Ok(None));
    }

    #[test]
    fn flags_may_stand_anywhere_behind_the_verb() {
        let stop = Command::Stop { guest: Some("demo".into()), how: "poweroff", wait: true };
        assert_eq!(parse("shutdown -w demo"), Ok(Some(stop.clone())));
        assert_eq!(parse("shutdown demo -w"), Ok(Some(stop)));
        let all = Command::Stop { guest: None, how: "reboot", wait: false };
        assert_eq!(parse("reboot -a"), Ok(Some(all)));
        assert_eq!(parse("list --json"), Ok(Some(Command::List(None, Format::Json))));
        let create = Command::Create { file: "-".into(), paused: true, console: false };
        assert_eq!(parse("create -p -"), Ok(Some(create)));
    }

    #[test]
    fn mistakes_are_one_line_with_the_cure() {
        for (line, problem) in [
            ("lst", "unknown command \"lst\": type help"),
            ("destroy", "something is missing: write destroy GUEST"),
            ("pause a b", "\"b\" is too much: write pause GUEST"),
            ("dmesg -x", "\"-x\" is not known: write dmesg [-c]"),
            ("shutdown", "name a guest, or all with -a"),
            ("vcpu-set a many", "\"many\" is no number: write for example 1"),
            ("mem-set a 1x", "\"1x\" is no amount of memory: write for example 128, 128m or 1g"),
            ("trigger a power", "\"power\" is nothing that a PV guest can be sent: write nmi"),
            ("console 'a", "a quote ' has no end: close it"),
        ] {
            assert_eq!(parse(line), Err(problem.into()), "{line}");
        }
    }

    #[test]
    fn a_device_may_be_written_in_one_word_or_in_several() {
        let disk = "format=raw,vdev=xvdb,target=/dev/vdb".to_string();
        let wanted = Ok(Some(Command::BlockAttach("a".into(), disk.clone())));
        assert_eq!(parse(&format!("block-attach a {disk}")), wanted);
        assert_eq!(parse("block-attach a format=raw vdev=xvdb target=/dev/vdb"), wanted);
    }

    #[test]
    fn memory_has_units() {
        assert_eq!([memory_kib("64"), memory_kib("64m"), memory_kib("65536k")], [Ok(65536), Ok(65536), Ok(65536)]);
        assert_eq!(memory_kib("1G"), Ok(1 << 20));
        assert!(memory_kib("99999999999999999t").is_err() && memory_kib("").is_err() && memory_kib("0").is_err());
    }

    #[test]
    fn help_names_every_verb() {
        let help = help();
        assert!(VERBS.iter().all(|verb| help.lines().any(|line| line.starts_with(verb.name))));
    }
}
