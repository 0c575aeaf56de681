//! Guest descriptions: a TOML file whose keys are those of `xl.cfg`.
//!
//! ```toml
//! name = "demo"
//! kernel = "/boot/demo"
//! memory = 64
//! disk = ["format=raw, vdev=xvda, access=rw, target=/dev/vda"]
//! vif = ["mac=00:16:3e:00:00:01, bridge=xenbr0"]
//! on_reboot = "restart"
//! ```
//! Whatever is wrong is one line that names the file, the line, the thing and the cure.
//!
//! Source: Xen `xl.cfg(5)`.

use alloc::borrow::ToOwned;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt;
use core::ops::Range;

use toml::de::{DeTable, DeValue};

use super::control::{GuestKind, TscMode};
use super::cpus::CpuSet;
use super::device::{Disk, Vif};

/// What to do when a guest stops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Remove it.
    Destroy,
    /// Remove it and start it anew.
    Restart,
    /// Keep it as it is, for inspection.
    Preserve,
}

/// One guest as its file describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GuestConfig {
    /// Its name, unique among the guests.
    pub name: String,
    /// What it is made as.
    pub kind: GuestKind,
    /// File with its kernel.
    pub kernel: String,
    /// File with its ramdisk.
    pub ramdisk: Option<String>,
    /// Its kernel's command line.
    pub extra: String,
    /// Memory at the start, in MiB.
    pub memory_mib: u64,
    /// Memory it may grow to, in MiB.
    pub maxmem_mib: u64,
    /// Virtual CPUs at the start.
    pub vcpus: u32,
    /// Virtual CPUs that there are.
    pub max_vcpus: u32,
    /// Where they may run.
    pub cpus: CpuSet,
    /// Its time-stamp counter.
    pub tsc: TscMode,
    /// Disks.
    pub disks: Vec<Disk>,
    /// Network interfaces.
    pub vifs: Vec<Vif>,
    /// When it powers off.
    pub on_poweroff: Action,
    /// When it reboots.
    pub on_reboot: Action,
    /// When it crashes.
    pub on_crash: Action,
    /// When its watchdog runs out.
    pub on_watchdog: Action,
}

/// What is wrong with a description.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    file: String,
    line: Option<usize>,
    problem: String,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            Some(line) => write!(out, "{}:{line}: {}", self.file, self.problem),
            None => write!(out, "{}: {}", self.file, self.problem),
        }
    }
}

impl core::error::Error for ConfigError {}

const KEYS: [&str; 17] = [
    "name",
    "type",
    "kernel",
    "ramdisk",
    "extra",
    "memory",
    "maxmem",
    "vcpus",
    "maxvcpus",
    "cpus",
    "tsc_mode",
    "disk",
    "vif",
    "on_poweroff",
    "on_reboot",
    "on_crash",
    "on_watchdog",
];

const DEFAULT_MEMORY_MIB: u64 = 64;
/// Most virtual CPUs that the shared page has a place for.
const MAX_VCPUS: u64 = 32;

/// Reads the description in `text`; `file` names it in errors.
///
/// # Errors
/// The first thing that is wrong.
pub fn parse(file: &str, text: &str) -> Result<GuestConfig, ConfigError> {
    let source = Source { file, text };
    let table = DeTable::parse(text).map_err(|error| source.syntax(&error))?;
    let table = Keys { source: &source, table: table.get_ref() };
    table.check_names()?;
    let name = table.text("name")?.ok_or_else(|| table.missing("name", "demo"))?;
    let memory_mib = table.number("memory", 4, 1 << 24)?.unwrap_or(DEFAULT_MEMORY_MIB);
    let maxmem_mib = table.number("maxmem", 4, 1 << 24)?.unwrap_or(memory_mib);
    if maxmem_mib < memory_mib {
        let problem = format!("maxmem = {maxmem_mib} is less than memory = {memory_mib}: raise maxmem or leave it out");
        return Err(source.whole(problem));
    }
    let vifs = table.items("vif", Vif::parse)?;
    let vifs = vifs.into_iter().enumerate().map(|(index, vif)| vif.with_default_mac(&name, index)).collect();
    let (vcpus, max_vcpus) = table.vcpus()?;
    Ok(GuestConfig {
        kind: table.chosen("type", GuestKind::parse)?.unwrap_or_default(),
        kernel: table.text("kernel")?.ok_or_else(|| table.missing("kernel", "/boot/demo"))?,
        ramdisk: table.text("ramdisk")?,
        extra: table.text("extra")?.unwrap_or_default(),
        memory_mib,
        maxmem_mib,
        vcpus,
        max_vcpus,
        cpus: table.chosen("cpus", CpuSet::parse)?.unwrap_or(CpuSet::ALL),
        tsc: table.chosen("tsc_mode", tsc_mode)?.unwrap_or_default(),
        disks: table.items("disk", Disk::parse)?,
        vifs,
        on_poweroff: table.chosen("on_poweroff", action)?.unwrap_or(Action::Destroy),
        on_reboot: table.chosen("on_reboot", action)?.unwrap_or(Action::Restart),
        on_crash: table.chosen("on_crash", action)?.unwrap_or(Action::Destroy),
        on_watchdog: table.chosen("on_watchdog", action)?.unwrap_or(Action::Destroy),
        name,
    })
}

struct Source<'a> {
    file: &'a str,
    text: &'a str,
}

impl Source<'_> {
    fn at(&self, span: Range<usize>, problem: String) -> ConfigError {
        let before = self.text.get(..span.start).unwrap_or("");
        let line = Some(before.matches('\n').count() + 1);
        ConfigError { file: self.file.to_owned(), line, problem }
    }

    fn whole(&self, problem: String) -> ConfigError {
        ConfigError { file: self.file.to_owned(), line: None, problem }
    }

    fn syntax(&self, error: &toml::de::Error) -> ConfigError {
        let message = error.message().lines().collect::<Vec<_>>().join(", ");
        let problem = format!("not valid TOML: {message}");
        match error.span() {
            Some(span) => self.at(span, problem),
            None => self.whole(problem),
        }
    }
}

struct Keys<'a, 'i> {
    source: &'a Source<'a>,
    table: &'a DeTable<'i>,
}

impl Keys<'_, '_> {
    fn check_names(&self) -> Result<(), ConfigError> {
        let unknown = self.table.iter().find(|(key, _)| !KEYS.contains(&key.get_ref().as_ref()));
        let Some((key, _)) = unknown else {
            return Ok(());
        };
        let name = key.get_ref();
        let cure = match closest(name) {
            Some(known) => format!("did you mean \"{known}\"?"),
            None => format!("known keys are {}", KEYS.join(", ")),
        };
        Err(self.source.at(key.span(), format!("unknown key \"{name}\": {cure}")))
    }

    fn missing(&self, key: &str, example: &str) -> ConfigError {
        self.source.whole(format!("the key \"{key}\" is missing: add {key} = \"{example}\""))
    }

    fn find<T>(
        &self,
        key: &str,
        wanted: &str,
        read: impl FnOnce(&DeValue<'_>) -> Option<T>,
    ) -> Result<Option<T>, ConfigError> {
        let Some(value) = self.table.get(key) else {
            return Ok(None);
        };
        let found = read(value.get_ref()).ok_or_else(|| self.wrong_type(key, value, wanted));
        found.map(Some)
    }

    fn text(&self, key: &str) -> Result<Option<String>, ConfigError> {
        self.find(key, "\"text\"", |value| value.as_str().map(ToString::to_string))
    }

    fn number(&self, key: &str, least: u64, most: u64) -> Result<Option<u64>, ConfigError> {
        let number = self.find(key, "a number", |value| match value {
            DeValue::Integer(number) => i128::from_str_radix(number.as_str(), number.radix()).ok(),
            _ => None,
        })?;
        let Some(number) = number else {
            return Ok(None);
        };
        match u64::try_from(number) {
            Ok(fits) if (least..=most).contains(&fits) => Ok(Some(fits)),
            _ => {
                let problem = format!("{key} = {number} is out of range: it may be {least} to {most}");
                Err(self.source.at(self.table[key].span(), problem))
            }
        }
    }

    fn items<T>(&self, key: &str, read: impl Fn(&str) -> Result<T, String>) -> Result<Vec<T>, ConfigError> {
        let wanted = "[\"…\", \"…\"], a list of texts";
        let Some(value) = self.table.get(key) else {
            return Ok(Vec::new());
        };
        let list = value.get_ref().as_array();
        let list = list.ok_or_else(|| self.wrong_type(key, value, wanted))?;
        let item = |item: &toml::Spanned<DeValue<'_>>| {
            let text = item.get_ref().as_str();
            let text = text.ok_or_else(|| self.wrong_type(key, item, wanted))?;
            read(text).map_err(|problem| self.source.at(item.span(), format!("{key} \"{text}\": {problem}")))
        };
        list.iter().map(item).collect()
    }

    fn wrong_type(&self, key: &str, value: &toml::Spanned<DeValue<'_>>, wanted: &str) -> ConfigError {
        let kind = value.get_ref().type_str();
        let problem = format!("{key} is of type {kind}: write {key} = {wanted}");
        self.source.at(value.span(), problem)
    }

    fn vcpus(&self) -> Result<(u32, u32), ConfigError> {
        let number = |key| Ok(self.number(key, 1, MAX_VCPUS)?.and_then(|number| u32::try_from(number).ok()));
        let most = number("maxvcpus")?;
        let vcpus = number("vcpus")?.or(most).unwrap_or(1);
        match most {
            Some(most) if most < vcpus => {
                let problem = format!("maxvcpus = {most} is less than vcpus = {vcpus}: raise maxvcpus or leave it out");
                Err(self.source.whole(problem))
            }
            most => Ok((vcpus, most.unwrap_or(vcpus))),
        }
    }

    fn chosen<T>(&self, key: &str, read: impl Fn(&str) -> Result<T, String>) -> Result<Option<T>, ConfigError> {
        let Some(text) = self.text(key)? else {
            return Ok(None);
        };
        let problem = |problem| self.source.at(self.table[key].span(), format!("{key} = {problem}"));
        read(&text).map(Some).map_err(problem)
    }
}

fn action(text: &str) -> Result<Action, String> {
    match text {
        "destroy" => Ok(Action::Destroy),
        "restart" => Ok(Action::Restart),
        "preserve" => Ok(Action::Preserve),
        _ => Err(format!("\"{text}\" is not known: write \"destroy\", \"restart\" or \"preserve\"")),
    }
}

fn tsc_mode(text: &str) -> Result<TscMode, String> {
    match text {
        "default" => Ok(TscMode::Default),
        "always_emulate" => Ok(TscMode::AlwaysEmulate),
        "native" => Ok(TscMode::Native),
        _ => Err(format!("\"{text}\" is not known: write \"default\", \"always_emulate\" or \"native\"")),
    }
}

/// The known key that differs from `name` in at most two letters.
fn closest(name: &str) -> Option<&'static str> {
    let best = KEYS.iter().map(|known| (distance(name, known), *known)).min()?;
    (best.0 <= 2).then_some(best.1)
}

/// The number of letters to insert, remove or replace.
fn distance(from: &str, to: &str) -> usize {
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (i, a) in from.bytes().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, b) in to.bytes().enumerate() {
            let replaced = diagonal + usize::from(a != b);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[to.len()]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::toolstack::device::DiskTarget;

    const GOOD: &str = r#"
name = "demo"
kernel = "/boot/demo"
extra = "console=hvc0"
memory = 128
vcpus = 1
disk = ["format=raw, vdev=xvda, access=rw, target=/dev/vda"]
vif = ["mac=00:16:3e:01:02:03, bridge=xenbr0", ""]
on_crash = "preserve"
"#;

    fn error(text: &str) -> String {
        parse("guests/a.toml", text).expect_err("a mistake").to_string()
    }

    #[test]
    fn a_description_with_xls_keys_is_read_whole() {
        let guest = parse("a.toml", GOOD).expect("good");
        assert_eq!((guest.name.as_str(), guest.memory_mib, guest.maxmem_mib), ("demo", 128, 128));
        assert_eq!(guest.disks[0].target, DiskTarget::Physical("/dev/vda".into()));
        assert_eq!(guest.vifs[0].mac.to_string(), "00:16:3e:01:02:03");
        assert_ne!(guest.vifs[1].mac, guest.vifs[0].mac);
        assert_eq!((guest.on_reboot, guest.on_crash), (Action::Restart, Action::Preserve));
    }

    #[test]
    fn a_guest_is_of_one_of_three_kinds() {
        let kind = |key: &str| parse("a", &format!("name = \"a\"\nkernel = \"k\"\n{key}")).expect("good").kind;
        let cases = [("", GuestKind::Pv), ("type = \"pvh\"", GuestKind::Pvh), ("type = \"hvm\"", GuestKind::Hvm)];
        for (key, expected) in cases {
            assert_eq!(kind(key), expected, "{key}");
        }
    }

    #[test]
    fn virtual_cpus_may_be_held_back() {
        let count = |keys: &str| {
            let guest = parse("a", &format!("name = \"a\"\nkernel = \"k\"\n{keys}")).expect("good");
            (guest.vcpus, guest.max_vcpus)
        };
        let cases =
            [("", (1, 1)), ("vcpus = 2", (2, 2)), ("vcpus = 2\nmaxvcpus = 4", (2, 4)), ("maxvcpus = 3", (3, 3))];
        for (keys, counts) in cases {
            assert_eq!(count(keys), counts, "{keys}");
        }
    }

    #[test]
    fn an_unknown_key_is_named_with_its_line_and_the_likely_one() {
        let text = "name = \"a\"\nkernel = \"k\"\nmemry = 64\n";
        assert_eq!(error(text), "guests/a.toml:3: unknown key \"memry\": did you mean \"memory\"?");
    }

    #[test]
    fn a_wrong_type_is_named_with_what_to_write() {
        let text = "name = \"a\"\nkernel = \"k\"\nmemory = \"64\"\n";
        assert_eq!(error(text), "guests/a.toml:3: memory is of type string: write memory = a number");
        assert!(error("name = \"a\"\nkernel = \"k\"\ndisk = \"x\"").contains("disk is of type string"));
        assert!(error("name = \"a\"\nkernel = \"k\"\ndisk = [1]").contains("disk is of type integer"));
    }

    #[test]
    fn a_missing_key_and_a_number_out_of_range_are_named() {
        assert_eq!(error("name = \"a\""), "guests/a.toml: the key \"kernel\" is missing: add kernel = \"/boot/demo\"");
        assert!(error("name = \"a\"\nkernel = \"k\"\nvcpus = 0").contains("vcpus = 0 is out of range"));
        assert!(error("name = \"a\"\nkernel = \"k\"\nmemory = -1").contains("out of range"));
        assert!(error("name = \"a\"\nkernel = \"k\"\nmemory = 64\nmaxmem = 32").contains("raise maxmem"));
        assert!(error("name = \"a\"\nkernel = \"k\"\non_crash = \"pray\"").contains("\"preserve\""));
        assert!(error("name = \"a\"\nkernel = \"k\"\nvcpus = 2\nmaxvcpus = 1").contains("raise maxvcpus"));
        assert!(error("name = \"a\"\nkernel = \"k\"\ntype = \"hwm\"").contains("\"hvm\""));
        assert!(error("name = \"a\"\nkernel = \"k\"\ntsc_mode = \"slow\"").contains("\"native\""));
        assert!(error("name = \"a\"\nkernel = \"k\"\ncpus = \"none\"").contains("names no CPUs"));
    }

    #[test]
    fn what_is_not_toml_is_one_line() {
        let line = error("name = \n");
        assert!(line.starts_with("guests/a.toml:1: not valid TOML"), "{line}");
        assert!(!line.contains('\n'));
    }
}
