//! The shell's commands: one row each.

mod disk;
mod machine;
mod net;
mod smp;
mod system;

pub(crate) use system::{show_memory, show_threads};

use pv_guest_kernel::shell::Command;

/// Everything that can be typed.
pub(crate) static COMMANDS: &[Command] = &[
    Command { name: "ls", usage: "[PATH]", about: "list a directory; the disk is /disk", run: disk::ls },
    Command { name: "cat", usage: "PATH…", about: "print files", run: disk::cat },
    Command {
        name: "write", usage: "PATH TEXT…", about: "make a file with a line of text, durably", run: disk::write
    },
    Command { name: "fetch", usage: "URL", about: "print a page (http://host:port/path)", run: net::fetch },
    Command { name: "ping", usage: "HOST [COUNT]", about: "ask a host for an echo", run: net::ping },
    Command { name: "ifconfig", usage: "", about: "the network card and its addresses", run: net::ifconfig },
    Command { name: "ps", usage: "", about: "threads and processes", run: system::ps },
    Command { name: "top", usage: "", about: "counters: switches, memory, hypercalls, events", run: system::top },
    Command { name: "smp", usage: "[MILLISECONDS]", about: "run a thread on each CPU at the same time", run: smp::smp },
    Command { name: "cpu", usage: "[N online|offline]", about: "the CPUs; take one up or down", run: smp::cpu },
    Command { name: "memory", usage: "[MIB]", about: "memory of the domain; gives or takes some", run: system::memory },
    Command {
        name: "suspend",
        usage: "",
        about: "stop until the toolstack lets the domain go on",
        run: machine::suspend,
    },
    Command { name: "uptime", usage: "", about: "time since the start, and time of day", run: system::uptime },
    Command {
        name: "run",
        usage: "PROGRAM [ARGS…] [&]",
        about: "run a user program; & does not wait",
        run: system::run,
    },
    Command { name: "kill", usage: "PID", about: "end a process", run: system::kill },
    Command { name: "sleep", usage: "SECONDS", about: "wait", run: system::sleep },
    Command { name: "echo", usage: "TEXT…", about: "print text", run: system::echo },
    Command {
        name: "events",
        usage: "[COUNT]",
        about: "send events to this domain itself, and time them",
        run: system::send_events,
    },
    Command {
        name: "bench",
        usage: "[SCALE [PART [URL [DOMAIN]]]]",
        about: "the workloads of a comparison",
        run: crate::bench::bench,
    },
    Command {
        name: "pong",
        usage: "DOMAIN",
        about: "answer another domain's events, which its bench sends",
        run: crate::bench::pong,
    },
    Command { name: "loglevel", usage: "LEVEL", about: "error, warn, info, debug or trace", run: system::loglevel },
    Command { name: "reboot", usage: "", about: "start again", run: machine::reboot },
    Command { name: "poweroff", usage: "", about: "end the machine", run: machine::poweroff },
    Command {
        name: "crash",
        usage: "[panic|null|text]",
        about: "end the kernel by a mistake, to see what is said of it",
        run: machine::crash,
    },
];
