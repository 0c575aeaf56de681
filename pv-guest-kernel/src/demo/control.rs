//! What a toolstack asks of a running guest, through nodes of its home in the store.
//!
//! | node | value | answer |
//! |---|---|---|
//! | `control/shutdown` | `poweroff`, `halt`, `reboot`, `suspend`, `crash` | the node is emptied, then it is done |
//! | `control/sysrq` | one letter | the node is emptied, then it is done |
//! | `memory/target` | KiB | memory is given to Xen or taken from it |
//! | `cpu/N/availability` | `online`, `offline` | vCPU N comes or goes |
//!
//! What of the first row is understood is announced by `control/feature-…` nodes.
//!
//! Source: Xen `docs/misc/xenstore-paths.pandoc`.

use alloc::format;
use alloc::string::{String, ToString};

use pv_abi::errno::Errno;
use pv_bus::{Store, StoreError, Transaction};
use pv_guest_kernel::platform::pv::{balloon, cpus, suspend};
use pv_guest_kernel::platform::{self, Shutdown};
use pv_guest_kernel::{println, task};

use crate::commands;
use crate::driver::{self, Hal};

const SHUTDOWN: &str = "control/shutdown";
const SYSRQ: &str = "control/sysrq";
const TARGET: &str = "memory/target";
const CPUS: &str = "cpu";
/// What [`SHUTDOWN`] may say.
const FEATURES: [&str; 3] = ["poweroff", "reboot", "suspend"];

/// Bytes of a page, in the unit of `memory/target`.
const PAGE_KIB: u64 = 4;

/// Starts the thread that watches the nodes.
pub(crate) fn start() {
    let Some(mut hal) = driver::connect() else {
        return;
    };
    for feature in FEATURES {
        let path = format!("control/feature-{feature}");
        if let Err(error) = hal.write(Transaction::NONE, &path, b"1") {
            log::info!("{path}: {error}");
        }
    }
    for node in [SHUTDOWN, SYSRQ, TARGET, CPUS] {
        if let Err(error) = hal.watch(node) {
            log::warn!("{node}: {error}: it will not be noticed");
        }
    }
    task::spawn("control", move || watch(&mut hal));
}

fn watch(hal: &mut Hal) {
    let signal = hal.signal();
    loop {
        while let Some(event) = hal.next_watch_event() {
            obey(hal, &event.path);
        }
        signal.wait();
    }
}

fn obey(hal: &mut Hal, path: &str) {
    match path {
        SHUTDOWN => shut_down(hal),
        SYSRQ => sysrq(hal),
        TARGET => follow_target(hal),
        CPUS => (1..cpus::count()).for_each(|cpu| follow_availability(hal, cpu)),
        _ => {
            let cpu = path.strip_prefix("cpu/").and_then(|rest| rest.strip_suffix("/availability"));
            if let Some(cpu) = cpu.and_then(|cpu| cpu.parse().ok()) {
                follow_availability(hal, cpu);
            }
        }
    }
}

/// What a node says; `None` when there is none.
fn read(hal: &mut Hal, path: &str) -> Option<String> {
    let bytes = hal.read(Transaction::NONE, path).ok()?;
    Some(String::from_utf8_lossy(&bytes).trim_end_matches('\0').to_string())
}

/// Empties a node: that it has been understood. The toolstack sees the empty node; without it, it is done all the same.
fn acknowledge(hal: &mut Hal, path: &str) {
    let emptied: Result<(), StoreError> = hal.write(Transaction::NONE, path, b"");
    if let Err(error) = emptied {
        log::warn!("{path}: {error}");
    }
}

fn shut_down(hal: &mut Hal) {
    let Some(word) = read(hal, SHUTDOWN).filter(|word| !word.is_empty()) else {
        return;
    };
    acknowledge(hal, SHUTDOWN);
    let how = match word.as_str() {
        "poweroff" | "halt" => Shutdown::PowerOff,
        "reboot" => Shutdown::Reboot,
        "crash" => Shutdown::Crash,
        "suspend" => return suspend_domain(),
        other => {
            log::warn!("{SHUTDOWN}: {other} is unknown");
            return;
        }
    };
    println!("shutdown from outside: {how:?}");
    platform::current().shutdown(how)
}

fn suspend_domain() {
    println!("suspend from outside");
    match suspend::suspend() {
        Ok(outcome) => println!("suspend: {outcome:?}"),
        Err(errno) => println!("suspend: {errno:?}"),
    }
}

/// One letter, as on the console of other kernels.
fn sysrq(hal: &mut Hal) {
    let Some(letter) = read(hal, SYSRQ).and_then(|text| text.chars().next()) else {
        return;
    };
    acknowledge(hal, SYSRQ);
    println!("sysrq: {letter}");
    match letter {
        'b' => platform::current().shutdown(Shutdown::Reboot),
        'o' => platform::current().shutdown(Shutdown::PowerOff),
        'c' => platform::current().shutdown(Shutdown::Crash),
        't' => commands::show_threads(),
        'm' => commands::show_memory(),
        '0'..='9' => log::set_max_level(level_of(letter)),
        _ => println!("b reboot, o off, c crash, t threads, m memory, 0 to 9 how much is logged"),
    }
}

/// The kernel logs of Linux have levels from 0 (emergencies) to 7 (debugging).
fn level_of(digit: char) -> log::LevelFilter {
    match digit {
        '0'..='3' => log::LevelFilter::Error,
        '4' => log::LevelFilter::Warn,
        '5' | '6' => log::LevelFilter::Info,
        '7' => log::LevelFilter::Debug,
        _ => log::LevelFilter::Trace,
    }
}

fn follow_target(hal: &mut Hal) {
    let Some(target_kib) = read(hal, TARGET).and_then(|text| text.parse::<u64>().ok()) else {
        return;
    };
    let (target, before) = (target_kib / PAGE_KIB, balloon::pages());
    let now = balloon::set_target(target);
    if now != before {
        println!("memory: {} MiB of {} asked for", now * PAGE_KIB / 1024, target_kib / 1024);
    }
}

fn follow_availability(hal: &mut Hal, cpu: usize) {
    let path = format!("cpu/{cpu}/availability");
    let done = match read(hal, &path).as_deref() {
        Some("online") => cpus::start(cpu),
        Some("offline") => cpus::stop(cpu),
        _ => return,
    };
    match done {
        Ok(()) | Err(Errno::NoEnt) => {}
        Err(errno) => log::warn!("{path}: {errno:?}"),
    }
}
