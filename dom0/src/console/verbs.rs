//! The table of commands: a row each.

use alloc::string::{String, ToString};

use super::command::{Arguments, Command, memory_kib};
use crate::toolstack::cpus::CpuSet;

/// A command's name and how it is read.
pub(super) struct Verb {
    pub(super) name: &'static str,
    pub(super) arguments: &'static str,
    pub(super) help: &'static str,
    pub(super) flags: &'static [&'static str],
    pub(super) least: usize,
    pub(super) most: usize,
    pub(super) make: fn(&Arguments) -> Result<Command, String>,
}

const fn verb(
    name: &'static str,
    arguments: &'static str,
    help: &'static str,
    words: (usize, usize),
    make: fn(&Arguments) -> Result<Command, String>,
) -> Verb {
    Verb { name, arguments, help, flags: &[], least: words.0, most: words.1, make }
}

impl Verb {
    const fn with(self, flags: &'static [&'static str]) -> Self {
        Self { flags, ..self }
    }
}

/// Words that a device's description may be spread over.
const MANY: usize = 16;

pub(super) const VERBS: [Verb; 37] = [
    verb("list", "[--json] [GUEST]", "show the domains", (0, 1), |given| {
        Ok(Command::List(given.maybe(0), given.format()))
    })
    .with(&["--json"]),
    verb("create", "[-p] [-c] FILE", "start the guest that FILE or /guests/FILE.toml describes", (1, 1), create)
        .with(&["-p", "-c"]),
    verb("console", "GUEST", "give it the terminal; Ctrl-] takes it back", (1, 1), |given| {
        Ok(Command::Console(given.text(0)))
    }),
    verb("pause", "GUEST", "hold it", (1, 1), |given| Ok(Command::Pause(given.text(0)))),
    verb("unpause", "GUEST", "let it run on", (1, 1), |given| Ok(Command::Unpause(given.text(0)))),
    verb("shutdown", "[-w] -a|GUEST", "ask it, or all, to power off", (0, 1), |given| stop(given, "poweroff"))
        .with(&["-a", "-w"]),
    verb("reboot", "[-w] -a|GUEST", "ask it, or all, to reboot", (0, 1), |given| stop(given, "reboot"))
        .with(&["-a", "-w"]),
    verb("destroy", "GUEST", "end it at once", (1, 1), |given| Ok(Command::Destroy(given.text(0)))),
    verb("rename", "GUEST NAME", "give it another name", (2, 2), |given| {
        Ok(Command::Rename(given.text(0), given.text(1)))
    }),
    verb("suspend-cancel", "GUEST", "suspend it and let it go on where it was", (1, 1), |given| {
        Ok(Command::SuspendCancel(given.text(0)))
    }),
    verb("block-attach", "GUEST DISK", "give it a disk, described as in its file", (2, MANY), |given| {
        Ok(Command::BlockAttach(given.text(0), given.rest(1)))
    }),
    verb("block-detach", "[--force] GUEST DISK", "take the disk with this name or number from it", (2, 2), |given| {
        Ok(Command::BlockDetach(given.text(0), given.text(1), given.has("--force")))
    })
    .with(&["--force"]),
    verb("block-list", "GUEST", "show its disks", (1, 1), |given| Ok(Command::BlockList(given.text(0)))),
    verb(
        "network-attach",
        "GUEST [VIF]",
        "give it a network interface, described as in its file",
        (1, MANY),
        |given| Ok(Command::NetworkAttach(given.text(0), given.rest(1))),
    ),
    verb(
        "network-detach",
        "[--force] GUEST VIF",
        "take the interface with this number or address from it",
        (2, 2),
        |given| Ok(Command::NetworkDetach(given.text(0), given.text(1), given.has("--force"))),
    )
    .with(&["--force"]),
    verb("network-list", "GUEST", "show its network interfaces", (1, 1), |given| {
        Ok(Command::NetworkList(given.text(0)))
    }),
    verb("backend-restart", "GUEST vbd|vif NUMBER", "end a device's back end and start another one", (3, 3), |given| {
        Ok(Command::BackendRestart(given.text(0), given.text(1), given.number(2)?))
    }),
    verb("vcpu-list", "[GUEST]", "show virtual CPUs", (0, 1), |given| Ok(Command::VcpuList(given.maybe(0)))),
    verb("vcpu-set", "GUEST COUNT", "ask it to use so many virtual CPUs", (2, 2), |given| {
        Ok(Command::VcpuSet(given.text(0), given.number(1)?))
    }),
    verb("vcpu-pin", "GUEST VCPU|all CPUS [CPUS]", "say where it may run, and where it likes to", (3, 4), pin),
    verb("mem-set", "GUEST MEMORY", "ask it to have so much memory, in MiB or with a unit", (2, 2), |given| {
        Ok(Command::MemSet(given.text(0), memory_kib(&given.text(1))?))
    }),
    verb("mem-max", "GUEST MEMORY", "bound the memory that it may have", (2, 2), |given| {
        Ok(Command::MemMax(given.text(0), memory_kib(&given.text(1))?))
    }),
    verb("top", "[--json]", "show what the domains use, measured for a second", (0, 0), |given| {
        Ok(Command::Top(given.format()))
    })
    .with(&["--json"]),
    verb("dmesg", "[-c]", "show the hypervisor's messages; -c forgets them", (0, 0), |given| {
        Ok(Command::Dmesg(given.has("-c")))
    })
    .with(&["-c"]),
    verb("info", "", "show what the machine and the hypervisor are", (0, 0), |_| Ok(Command::Info)),
    verb("uptime", "[GUEST]", "show how long domains have run", (0, 1), |given| Ok(Command::Uptime(given.maybe(0)))),
    verb("domid", "NAME", "show its number", (1, 1), |given| Ok(Command::Domid(given.text(0)))),
    verb("domname", "NUMBER", "show its name", (1, 1), |given| Ok(Command::Domname(given.text(0)))),
    verb("sysrq", "GUEST LETTER", "send its kernel a letter, as the key SysRq does", (2, 2), sysrq),
    verb("trigger", "GUEST nmi [VCPU]", "send it a non-maskable interrupt", (2, 3), trigger),
    verb("debug-keys", "KEYS", "send the hypervisor keys; h tells which there are", (1, 1), |given| {
        Ok(Command::DebugKeys(given.text(0)))
    }),
    verb("xenstore-ls", "[PATH]", "show the store from PATH on", (0, 1), |given| {
        Ok(Command::StoreList(given.maybe(0).unwrap_or_else(|| "/".to_string())))
    }),
    verb("xenstore-read", "PATH", "show a node of the store", (1, 1), |given| Ok(Command::StoreRead(given.text(0)))),
    verb("xenstore-write", "PATH VALUE", "write a node of the store", (2, 2), |given| {
        Ok(Command::StoreWrite(given.text(0), given.text(1)))
    }),
    verb("xenstore-rm", "PATH", "remove a node of the store and what is below", (1, 1), |given| {
        Ok(Command::StoreRemove(given.text(0)))
    }),
    verb("poweroff", "", "end all guests and power the machine off", (0, 0), |_| Ok(Command::Poweroff)),
    verb("help", "", "show this", (0, 0), |_| Ok(Command::Help)),
];

fn create(given: &Arguments) -> Result<Command, String> {
    Ok(Command::Create { file: given.text(0), paused: given.has("-p"), console: given.has("-c") })
}

fn stop(given: &Arguments, how: &'static str) -> Result<Command, String> {
    let guest = given.maybe(0);
    if guest.is_some() == given.has("-a") {
        return Err("name a guest, or all with -a".to_string());
    }
    Ok(Command::Stop { guest, how, wait: given.has("-w") })
}

fn pin(given: &Arguments) -> Result<Command, String> {
    let vcpu = if given.text(1) == "all" { None } else { Some(given.number(1)?) };
    let cpus = |place: usize| match given.maybe(place).as_deref() {
        None | Some("-") => Ok(None),
        Some(text) => CpuSet::parse(text).map(Some),
    };
    let (hard, soft) = (cpus(2)?, cpus(3)?);
    if hard.is_none() && soft.is_none() {
        return Err("nothing would change: give the CPUs where it may run, or those that it likes".to_string());
    }
    Ok(Command::VcpuPin(given.text(0), vcpu, hard, soft))
}

fn sysrq(given: &Arguments) -> Result<Command, String> {
    let letter = given.text(1);
    match letter.as_bytes() {
        [one] if one.is_ascii_graphic() => Ok(Command::Sysrq(given.text(0), letter)),
        _ => Err(alloc::format!("\"{letter}\" is not one letter: write for example s")),
    }
}

fn trigger(given: &Arguments) -> Result<Command, String> {
    let what = given.text(1);
    if what != "nmi" {
        return Err(alloc::format!("\"{what}\" is nothing that a PV guest can be sent: write nmi"));
    }
    let vcpu = if given.maybe(2).is_some() { given.number(2)? } else { 0 };
    Ok(Command::Nmi(given.text(0), vcpu))
}
