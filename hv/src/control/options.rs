//! The command line's options, by Xen's names.
//!
//! An option is `name`, `name=value` or, for a switch, `no-name`; they are parted by spaces. Unlike Xen, which passes
//! over what it does not know, an unknown option or a value that cannot be read is an error: a mistyped `dom0_mem` would
//! otherwise show as a dom0 with the wrong size much later. Source: Xen's `docs/misc/xen-command-line`.

use core::fmt;

use arrayvec::ArrayString;
use log::LevelFilter;
use pv_abi::DomId;
use pv_abi::xen::XEN_LEGACY_MAX_VCPUS;

/// Bytes of command line that `XENVER_commandline` shows.
const SHOWN: usize = 1024;

/// The names that [`Options::parse`] knows, for the message about one that it does not.
const NAMES: &str = "com1, console, dom0_max_vcpus, dom0_mem, guest_loglvl, loglvl, maxcpus, noreboot, nosmp, smap";

/// An option that cannot be followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadOption<'a> {
    /// There is no such option.
    Unknown(&'a str),
    /// There is, but its value makes no sense; with what it may be.
    Value(&'a str, &'static str),
}

impl fmt::Display for BadOption<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown(option) => {
                write!(f, "unknown option \"{option}\" on the hypervisor's command line: remove it; known are {NAMES}")
            }
            Self::Value(option, may_be) => {
                write!(f, "option \"{option}\" cannot be read: write {may_be}")
            }
        }
    }
}

/// An amount of memory: so much, or all but so much.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Amount {
    /// So many bytes.
    Bytes(u64),
    /// All that there is but so many bytes.
    AllBut(u64),
}

impl Amount {
    /// The amount in frames, of this many that are free.
    #[must_use]
    pub const fn frames_of(self, available: u64) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes >> 12,
            Self::AllBut(bytes) => available.saturating_sub(bytes >> 12),
        }
    }
}

/// How much memory dom0 gets (`dom0_mem`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Dom0Memory {
    /// What it is built with; all but a reserve where not given.
    pub initial: Option<Amount>,
    /// It gets no less than this.
    pub min: Option<Amount>,
    /// It may not grow beyond this.
    pub max: Option<Amount>,
}

/// How many vCPUs dom0 gets (`dom0_max_vcpus`): as many as there are CPUs, but not fewer or more than these.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dom0Vcpus {
    /// Not fewer.
    pub min: u32,
    /// Not more.
    pub max: u32,
}

impl Dom0Vcpus {
    /// How many that are on a machine of so many CPUs.
    #[must_use]
    pub fn of(self, cpus: u32) -> u32 {
        cpus.max(self.min).min(self.max).clamp(1, XEN_LEGACY_MAX_VCPUS)
    }
}

/// The first serial port's line (`com1`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SerialLine {
    /// Bits a second; `None` for what the firmware left.
    pub baud: Option<u32>,
    /// Data bits, 5 to 8.
    pub data_bits: u8,
    /// `n`, `o`, `e`, `m` or `s`.
    pub parity: u8,
    /// Stop bits, 1 or 2.
    pub stop_bits: u8,
}

/// The command line's options.
#[derive(Clone, Debug)]
pub struct Options {
    /// The serial port's line.
    pub com1: SerialLine,
    /// Whether the serial port is a console at all.
    pub console_on_serial: bool,
    /// How much memory dom0 gets.
    pub dom0_memory: Dom0Memory,
    /// What of the hypervisor's own messages is printed.
    pub log_level: LevelFilter,
    /// What of the messages about guests is printed.
    pub guest_log_level: LevelFilter,
    /// How many vCPUs dom0 gets.
    pub dom0_vcpus: Dom0Vcpus,
    /// How many CPUs are started at most.
    pub max_cpus: u32,
    /// What of them is printed however many there are; the rest is cut to so many a second.
    pub guest_log_always: LevelFilter,
    /// Stop rather than start again, when dom0 asks for a reboot or crashes.
    pub no_reboot: bool,
    /// Whether the hypervisor may not reach guests' pages by accident (SMAP); where not given, if the CPU does it well.
    pub smap: Option<bool>,
    /// The line as it was given, cut to what `XENVER_commandline` shows.
    pub command_line: ArrayString<SHOWN>,
    /// The hypervisor binary's build id; empty where it has none.
    pub build_id: &'static [u8],
}

impl Default for Options {
    fn default() -> Self {
        Self {
            com1: SerialLine { baud: Some(115_200), data_bits: 8, parity: b'n', stop_bits: 1 },
            console_on_serial: true,
            dom0_memory: Dom0Memory::default(),
            log_level: LevelFilter::Info,
            guest_log_level: LevelFilter::Warn,
            dom0_vcpus: Dom0Vcpus { min: 1, max: u32::MAX },
            max_cpus: u32::MAX,
            guest_log_always: LevelFilter::Off,
            no_reboot: false,
            smap: None,
            command_line: ArrayString::new_const(),
            build_id: &[],
        }
    }
}

impl Options {
    /// Reads a command line, without the image's name.
    ///
    /// # Errors
    /// The first option that is unknown or has a value that cannot be read.
    pub fn parse(line: &str) -> Result<Self, BadOption<'_>> {
        let mut options = Self::default();
        for option in line.split_ascii_whitespace() {
            options.take(option)?;
        }
        let mut shown = line.trim();
        while shown.len() >= SHOWN {
            let cut = shown.char_indices().next_back().map_or(0, |(at, _)| at);
            shown = &shown[..cut];
        }
        options.command_line.push_str(shown);
        Ok(options)
    }

    fn take<'a>(&mut self, option: &'a str) -> Result<(), BadOption<'a>> {
        let (name, value) = option.split_once('=').unwrap_or((option, ""));
        let bad = |may_be| BadOption::Value(option, may_be);
        match name {
            "console" => {
                self.console_on_serial =
                    console(value).ok_or_else(|| bad("console=com1, console=none, or several with commas"))?;
            }
            "com1" => {
                self.com1 = serial_line(value).ok_or_else(|| bad("com1=<baud>,8n1, for example com1=115200,8n1"))?;
            }
            "dom0_mem" => {
                self.dom0_memory = dom0_memory(value)
                    .ok_or_else(|| bad("dom0_mem=<size>, for example dom0_mem=256M or dom0_mem=min:64M,max:1G,256M"))?;
            }
            "loglvl" => {
                (_, self.log_level) =
                    levels(value).ok_or_else(|| bad("loglvl=none, error, warning, info, debug or all"))?;
            }
            "guest_loglvl" => {
                (self.guest_log_always, self.guest_log_level) = levels(value).ok_or_else(|| {
                    bad("guest_loglvl=none, error, warning, info, debug or all, or two of them: always/limited")
                })?;
            }
            "dom0_max_vcpus" => {
                self.dom0_vcpus = dom0_vcpus(value)
                    .ok_or_else(|| bad("dom0_max_vcpus=<number>, or dom0_max_vcpus=<at least>-<at most>"))?;
            }
            "maxcpus" => {
                self.max_cpus =
                    value.parse().ok().filter(|cpus| *cpus > 0).ok_or_else(|| bad("maxcpus=<number>, 1 or more"))?;
            }
            "nosmp" => self.max_cpus = 1,
            "noreboot" => self.no_reboot = switch(value).ok_or_else(|| bad("noreboot, or noreboot=no"))?,
            "no-noreboot" => self.no_reboot = false,
            "smap" => self.smap = Some(switch(value).ok_or_else(|| bad("smap, or smap=no"))?),
            "no-smap" => self.smap = Some(false),
            _ => return Err(BadOption::Unknown(option)),
        }
        Ok(())
    }

    /// Whether refusals of this domain are printed (`guest_loglvl`).
    #[must_use]
    #[inline]
    pub fn explains(&self, _domain: DomId) -> bool {
        self.guest_log_level >= LevelFilter::Warn
    }

    /// Whether only so many refusals a second are printed.
    #[must_use]
    pub fn limits_refusals(&self) -> bool {
        self.guest_log_always < LevelFilter::Warn
    }

    /// Whether a domain that is not dom0 may write to the hypervisor's console.
    #[must_use]
    pub fn prints_guests(&self) -> bool {
        self.guest_log_level >= LevelFilter::Debug
    }
}

/// The command line after the image's name, which multiboot loaders other than GRUB 2 put first.
#[must_use]
pub fn without_image_name<'a>(line: &'a str, loader: &str) -> &'a str {
    let line = line.trim_start();
    if loader.starts_with("GRUB 2") {
        return line;
    }
    line.split_once(|c: char| c.is_ascii_whitespace()).map_or("", |(_, rest)| rest.trim_start())
}

fn console(value: &str) -> Option<bool> {
    let mut serial = false;
    for one in value.split(',') {
        match one {
            "com1" => serial = true,
            "none" | "vga" | "" => {}
            _ => return None,
        }
    }
    (!value.is_empty()).then_some(serial)
}

fn serial_line(value: &str) -> Option<SerialLine> {
    let mut parts = value.split(',');
    let baud = match parts.next()? {
        "auto" => None,
        number => Some(number.parse().ok().filter(|baud| (50..=921_600).contains(baud))?),
    };
    let frame = parts.next().unwrap_or("8n1").as_bytes();
    let &[bits @ b'5'..=b'8', parity @ (b'n' | b'o' | b'e' | b'm' | b's'), stop @ b'1'..=b'2'] = frame else {
        return None;
    };
    Some(SerialLine { baud, data_bits: bits - b'0', parity, stop_bits: stop - b'0' })
}

fn dom0_memory(value: &str) -> Option<Dom0Memory> {
    let mut memory = Dom0Memory::default();
    for part in value.split(',') {
        let (field, amount) = match part.split_once(':') {
            Some(("min", amount)) => (&mut memory.min, amount),
            Some(("max", amount)) => (&mut memory.max, amount),
            Some(_) => return None,
            None => (&mut memory.initial, part),
        };
        *field = Some(size(amount)?);
    }
    Some(memory)
}

/// A number, or the least and the most with a dash between; either may be left out.
fn dom0_vcpus(value: &str) -> Option<Dom0Vcpus> {
    let number = |text: &str, usual| if text.is_empty() { Some(usual) } else { text.parse().ok().filter(|n| *n > 0) };
    let (min, max) = value.split_once('-').unwrap_or((value, value));
    let vcpus = Dom0Vcpus { min: number(min, 1)?, max: number(max, u32::MAX)? };
    (value.len() > 1 || number(value, 0)? > 0).then_some(vcpus).filter(|vcpus| vcpus.min <= vcpus.max)
}

/// A size: a number with an optional unit, in KiB without one; a leading `-` makes it all but that.
fn size(text: &str) -> Option<Amount> {
    let (negative, text) = text.strip_prefix('-').map_or((false, text), |rest| (true, rest));
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let shift = match &text[digits.len()..] {
        "B" | "b" => 0,
        "" | "K" | "k" => 10,
        "M" | "m" => 20,
        "G" | "g" => 30,
        "T" | "t" => 40,
        _ => return None,
    };
    let bytes = digits.parse::<u64>().ok()?.checked_mul(1 << shift)?;
    (bytes > 0).then_some(if negative { Amount::AllBut(bytes) } else { Amount::Bytes(bytes) })
}

/// Levels, as Xen's `always/limited`: what is printed always, and what at a limited rate. One alone is both.
fn levels(value: &str) -> Option<(LevelFilter, LevelFilter)> {
    let one = |name| {
        Some(match name {
            "none" => LevelFilter::Off,
            "error" => LevelFilter::Error,
            "warning" => LevelFilter::Warn,
            "info" => LevelFilter::Info,
            "debug" => LevelFilter::Debug,
            "all" => LevelFilter::Trace,
            _ => return None,
        })
    };
    let (always, limited) = value.split_once('/').unwrap_or((value, value));
    let always = one(always)?;
    Some((always, always.max(one(limited)?)))
}

fn switch(value: &str) -> Option<bool> {
    match value {
        "" | "yes" | "on" | "true" | "enable" | "1" => Some(true),
        "no" | "off" | "false" | "disable" | "0" => Some(false),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_usual_line_is_read() {
        let options = Options::parse("console=com1 com1=115200,8n1 dom0_mem=512M loglvl=all noreboot").unwrap();
        assert_eq!(options.dom0_memory.initial, Some(Amount::Bytes(512 << 20)));
        assert_eq!(options.log_level, LevelFilter::Trace);
        assert!(options.no_reboot && options.console_on_serial);
        assert!(options.command_line.starts_with("console=com1"));
    }

    #[test]
    fn an_unknown_option_is_named_with_the_cure() {
        let error = Options::parse("console=com1 dom0_men=1G").unwrap_err();
        assert_eq!(error, BadOption::Unknown("dom0_men=1G"));
        let text = std::format!("{error}");
        assert!(text.contains("dom0_men") && text.contains("dom0_mem") && !text.contains('\n'));
    }

    #[test]
    fn a_value_that_cannot_be_read_is_named_with_an_example() {
        for line in ["dom0_mem=lots", "com1=fast", "loglvl=loud", "noreboot=maybe", "console=", "dom0_mem=0M"] {
            assert!(matches!(Options::parse(line), Err(BadOption::Value(..))), "{line}");
        }
    }

    #[test]
    fn a_level_alone_has_no_limit_and_the_second_of_two_has() {
        let limits = |line| Options::parse(line).unwrap().limits_refusals();
        assert!(limits("") && limits("guest_loglvl=none/all") && limits("guest_loglvl=error/warning"));
        assert!(!limits("guest_loglvl=all") && !limits("guest_loglvl=warning/debug"));
    }

    #[test]
    fn sizes_have_units_and_signs_as_in_xen() {
        assert_eq!(size("524288"), Some(Amount::Bytes(512 << 20)));
        assert_eq!(size("-128M"), Some(Amount::AllBut(128 << 20)));
        let memory = dom0_memory("min:64M,max:1G,-256M").unwrap();
        assert_eq!(memory.max, Some(Amount::Bytes(1 << 30)));
        assert_eq!(memory.initial.unwrap().frames_of(1 << 18), (1 << 18) - (1 << 16));
        assert_eq!(size("99999999999999T"), None);
    }

    #[test]
    fn dom0_gets_as_many_vcpus_as_there_are_cpus_unless_told() {
        let vcpus = |line: &str, cpus| Options::parse(line).ok().map(|options| options.dom0_vcpus.of(cpus));
        assert_eq!(vcpus("", 8), Some(8));
        assert_eq!(vcpus("", 64), Some(32));
        assert_eq!(vcpus("dom0_max_vcpus=4", 1), Some(4));
        assert_eq!(vcpus("dom0_max_vcpus=2-4", 8), Some(4));
        assert_eq!(vcpus("dom0_max_vcpus=2-", 1), Some(2));
        assert_eq!(vcpus("dom0_max_vcpus=-2", 8), Some(2));
        for bad in ["dom0_max_vcpus=", "dom0_max_vcpus=0", "dom0_max_vcpus=4-2", "dom0_max_vcpus=-", "maxcpus=0"] {
            assert_eq!(vcpus(bad, 1), None, "{bad}");
        }
        assert_eq!(Options::parse("nosmp").unwrap().max_cpus, 1);
        assert_eq!(Options::parse("maxcpus=3").unwrap().max_cpus, 3);
    }

    #[test]
    fn the_image_name_is_left_out_unless_the_loader_did() {
        assert_eq!(without_image_name("/boot/hv console=com1", "qemu"), "console=com1");
        assert_eq!(without_image_name("console=com1", "GRUB 2.06"), "console=com1");
        assert_eq!(without_image_name("/boot/hv", ""), "");
    }

    #[test]
    fn a_long_line_is_cut_for_showing() {
        let line = "noreboot ".repeat(200);
        assert!(Options::parse(&line).unwrap().command_line.len() < SHOWN);
    }
}
