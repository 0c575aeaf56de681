//! Guests from their description to their end.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use dom0::console::multiplexer::Focus;
use dom0::ids::DomId;
use dom0::toolstack::build;
use dom0::toolstack::config::{Action, GuestConfig};
use dom0::toolstack::control::{Control, GuestKind, StopReason};
use dom0::toolstack::lifecycle;
use pv_bus::{Store, Transaction};
use pv_guest_kernel::boot;

use super::Service;
use super::commands::Client;
use super::consoles::GuestConsole;
use super::creation::{Brought, Plan};

/// Folder of the ramdisk with the descriptions of the guests to start.
const DESCRIPTIONS: &str = "/guests";
/// Word of this domain's command line: it stays when no guest runs any more.
const STAY: &str = "stay";
/// Option of it: the guest whose console has the terminal first, where several are started.
const ATTACH: &str = "attach";

/// A guest that was built here.
pub(super) struct Guest {
    pub(super) config: GuestConfig,
    pub(super) console: GuestConsole,
    pub(super) handle: String,
    /// Started with this domain: when the last of them has ended, this domain ends.
    pub(super) autostarted: bool,
    /// It stopped and is kept as it is.
    pub(super) preserved: bool,
    /// When it was built.
    pub(super) started_ns: u64,
    /// Files that its description names and the ramdisk does not hold.
    pub(super) brought: Brought,
}

impl Service {
    /// Starts the guests that the ramdisk describes, in order of their names.
    pub(super) fn start_guests(&mut self) {
        let wanted = boot::option("guest");
        let files: Vec<(String, String)> = self.ramdisk.folder(DESCRIPTIONS).filter_map(description).collect();
        let chosen = files.iter().filter(|(name, _)| wanted.as_ref().is_none_or(|wanted| names(name, wanted)));
        let chosen: Vec<_> = chosen.collect();
        if let Some(wanted) = wanted.as_ref().filter(|_| chosen.is_empty()) {
            let known: Vec<&str> = files.iter().map(|(name, _)| name.as_str()).collect();
            self.terminal.say(&format!("dom0: guest={wanted} names no guest: the ramdisk has {}", known.join(", ")));
        }
        let mut started = Vec::new();
        for (file, text) in chosen {
            match self.create_first(file, text) {
                Ok(domain) => started.push(domain),
                Err(problem) => self.terminal.say(&format!("dom0: {problem}")),
            }
        }
        self.started_any = !started.is_empty();
        if started.is_empty() && (wanted.is_some() || !files.is_empty()) {
            self.terminal.say("dom0: no guest could be started");
            self.done = !boot::has_flag(STAY);
        }
        if let Some(first) = self.terminals_guest(&started) {
            self.attach(first);
        }
    }

    /// Which of the guests that were started has the terminal first: the only one, or the one that is asked for.
    fn terminals_guest(&self, started: &[DomId]) -> Option<DomId> {
        if let [only] = started {
            return Some(*only);
        }
        let wanted = boot::option(ATTACH)?;
        started.iter().copied().find(|domain| self.guests.get(domain).is_some_and(|guest| guest.config.name == wanted))
    }

    /// Looks which guests have stopped and does what their descriptions ask for.
    pub(super) fn look_for_stopped(&mut self) {
        let known: Vec<DomId> = self.guests.keys().copied().collect();
        for domain in known {
            let stopped = match self.xen.info(domain) {
                Ok(info) => info.stopped.or(info.dying.then_some(StopReason::Crash)),
                Err(_) => Some(StopReason::Crash),
            };
            let kept = self.guests.get(&domain).is_some_and(|guest| guest.preserved);
            if stopped == Some(StopReason::Suspend) {
                self.guest_suspended(domain);
                continue;
            }
            if let Some(reason) = stopped.filter(|_| !kept) {
                self.guest_stopped(domain, reason);
            }
        }
    }

    /// A guest that suspended is kept until it is let go on.
    fn guest_suspended(&mut self, domain: DomId) {
        if let Some(guest) = self.guests.get_mut(&domain).filter(|guest| !guest.preserved) {
            guest.preserved = true;
            log::info!("guest {} has suspended", guest.config.name);
        }
    }

    fn guest_stopped(&mut self, domain: DomId, reason: StopReason) {
        self.serve_consoles();
        let Some(guest) = self.guests.get_mut(&domain) else {
            return;
        };
        let (name, action) = (guest.config.name.clone(), lifecycle::action(&guest.config, reason));
        self.terminal.say(&format!("dom0: guest {name}: {reason}"));
        if action == Action::Preserve {
            guest.preserved = true;
            self.server.borrow_mut().announce_released();
            return;
        }
        let attached = self.terminal.multiplexer.focus() == Focus::Guest(domain);
        let Some(plan) = self.remove(domain) else {
            return;
        };
        if action == Action::Restart {
            match self.create(plan, attached) {
                Ok(wait) => self.begin(Client::Prompt, wait),
                Err(problem) => self.terminal.say(&format!("dom0: {problem}")),
            }
        }
        self.end_if_last();
    }

    /// Ends this domain when none of the guests that it started by itself runs any more.
    pub(super) fn end_if_last(&mut self) {
        let runs = self.guests.values().any(|guest| guest.autostarted) || self.plans().any(|plan| plan.autostarted);
        self.done = self.started_any && !runs && !boot::has_flag(STAY);
    }

    /// Takes a guest down at once; gives what it would be built from again.
    pub(super) fn remove(&mut self, domain: DomId) -> Option<Plan> {
        let guest = self.guests.remove(&domain)?;
        self.terminal.multiplexer.remove(domain);
        let Guest { config, console, handle, autostarted, brought, .. } = guest;
        console.detach(&mut self.hal);
        self.take_down(domain, &handle);
        self.server.borrow_mut().announce_released();
        Some(Plan { config, brought, autostarted, paused: false })
    }

    pub(super) fn take_down(&mut self, domain: DomId, handle: &str) {
        self.devices.detach(&mut self.hal, domain);
        if let Err(error) = self.names.release(domain) {
            log::debug!("xenstore: domain {}: {error}", domain.0);
        }
        for path in [
            format!("/local/domain/{}", domain.0),
            format!("/vm/{handle}"),
            format!("/local/domain/0/backend/vbd/{}", domain.0),
            format!("/local/domain/0/backend/vif/{}", domain.0),
        ] {
            if let Err(error) = self.names.rm(Transaction::NONE, &path) {
                log::debug!("xenstore: {path}: {error}");
            }
        }
        self.store.turn(&mut self.hal);
        if let Err(error) = self.xen.destroy(domain) {
            self.terminal.say(&format!("dom0: domain {}: {error}", domain.0));
        }
    }

    /// Writes a node by which a guest is asked for something: `shutdown`, `sysrq`.
    pub(super) fn write_control(&mut self, domain: DomId, node: &str, value: &str) -> Result<(), String> {
        self.check_hears(domain)?;
        let path = format!("/local/domain/{}/control/{node}", domain.0);
        self.names.write(Transaction::NONE, &path, value.as_bytes()).map_err(|error| format!("{path}: {error}"))
    }

    /// Whether a guest can be asked for something: one with emulated devices alone does not look into the store.
    ///
    /// # Errors
    /// One line with the cure.
    pub(super) fn check_hears(&self, domain: DomId) -> Result<(), String> {
        match self.guests.get(&domain) {
            Some(guest) if guest.config.kind == GuestKind::Hvm => Err(format!(
                "guest {} has emulated devices alone and is not asked through the store: use its console, or destroy it",
                guest.config.name
            )),
            _ => Ok(()),
        }
    }

    /// Gives a guest another name.
    pub(super) fn rename(&mut self, domain: DomId, name: &str) -> Result<(), String> {
        if self.guests.values().any(|guest| guest.config.name == name) {
            return Err(format!("a guest named \"{name}\" runs already: choose another name"));
        }
        let Some(guest) = self.guests.get_mut(&domain) else {
            return Err(format!("there is no guest {}", domain.0));
        };
        guest.config.name = name.to_string();
        for path in [format!("/local/domain/{}/name", domain.0), format!("/vm/{}/name", guest.handle)] {
            self.names.write(Transaction::NONE, &path, name.as_bytes()).map_err(|error| format!("{path}: {error}"))?;
        }
        Ok(())
    }

    /// Asks a guest to use so many of its virtual CPUs.
    pub(super) fn set_vcpus(&mut self, domain: DomId, count: u32) -> Result<(), String> {
        self.check_hears(domain)?;
        let most = self.guests.get(&domain).map_or(0, |guest| guest.config.max_vcpus);
        if !(1..=most).contains(&count) {
            return Err(format!("the guest can have 1 to {most} virtual CPUs: give it more with maxvcpus ="));
        }
        for vcpu in 0..most {
            let path = format!("/local/domain/{}/cpu/{vcpu}/availability", domain.0);
            let value = if vcpu < count { "online" } else { "offline" };
            // A node that says so already is left alone: whoever watches it would be woken for nothing.
            if self.names.text(&path).as_deref() != Some(value) {
                let written = self.names.write(Transaction::NONE, &path, value.as_bytes());
                written.map_err(|error| format!("{path}: {error}"))?;
            }
        }
        Ok(())
    }

    /// Asks a guest to have so much memory, and lets it.
    pub(super) fn set_memory(&mut self, domain: DomId, kib: u64) -> Result<(), String> {
        self.check_hears(domain)?;
        let most = self.guests.get(&domain).map_or(0, |guest| guest.config.maxmem_mib) * 1024;
        if kib > most {
            return Err(format!("the guest can have {} MiB at most: give it more with maxmem =", most / 1024));
        }
        self.xen.set_max_memory(domain, kib + build::SLACK_KIB).map_err(|error| error.to_string())?;
        let path = format!("/local/domain/{}/memory/target", domain.0);
        self.names.write(Transaction::NONE, &path, kib.to_string().as_bytes()).map_err(|error| error.to_string())
    }
}

/// The file's name and text, if it is a description.
fn description((name, bytes): (&str, &[u8])) -> Option<(String, String)> {
    let text = String::from_utf8_lossy(bytes).into_owned();
    name.ends_with(".toml").then(|| (name.to_string(), text))
}

/// Whether a file is the one that `wanted` names: its path, its name, or its name without the ending.
fn names(file: &str, wanted: &str) -> bool {
    let name = file.rsplit('/').next().unwrap_or(file);
    file == wanted || name == wanted || name.strip_suffix(".toml") == Some(wanted)
}
