//! Guests from their description to their end.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use dom0::console::multiplexer::Focus;
use dom0::ids::{DomId, Port};
use dom0::toolstack::build::{self, Built, Request};
use dom0::toolstack::config::{self, Action, GuestConfig};
use dom0::toolstack::control::{Control, StopReason};
use dom0::toolstack::lifecycle;
use dom0::toolstack::nodes::{self, Entry};
use pv_bus::{Store, StoreError, Transaction};
use pv_guest_kernel::boot;

use super::Service;
use super::consoles::GuestConsole;

/// Folder of the ramdisk with the descriptions of the guests to start.
const DESCRIPTIONS: &str = "/guests";

/// A guest that was built here.
pub(super) struct Guest {
    pub(super) config: GuestConfig,
    pub(super) console: GuestConsole,
    handle: String,
    /// Started with this domain: when the last of them has ended, this domain ends.
    autostarted: bool,
    /// It stopped and is kept as it is.
    preserved: bool,
}

/// What is left of a guest that was taken down.
pub(super) struct Ended {
    config: GuestConfig,
    autostarted: bool,
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
            match self.create(file, text, true) {
                Ok(domain) => started.push(domain),
                Err(problem) => self.terminal.say(&format!("dom0: {problem}")),
            }
        }
        self.started_any = !started.is_empty();
        if started.is_empty() && (wanted.is_some() || !files.is_empty()) {
            self.terminal.say("dom0: no guest could be started");
            self.done = true;
        }
        if let [only] = started.as_slice() {
            self.attach(*only);
        }
    }

    /// Starts the guest that the file describes.
    ///
    /// # Errors
    /// One line; nothing is left of the guest.
    pub(super) fn create(&mut self, file: &str, text: &str, autostarted: bool) -> Result<DomId, String> {
        let mut config = config::parse(file, text).map_err(|error| error.to_string())?;
        if let Some(commands) = boot::option("exec").filter(|_| autostarted) {
            config.extra = format!("{} exec=\"{commands}\"", config.extra).trim().to_string();
        }
        if self.guests.values().any(|guest| guest.config.name == config.name) {
            return Err(format!(
                "{file}: a guest named \"{}\" runs already: destroy it or choose another name",
                config.name
            ));
        }
        self.create_from(config, autostarted)
    }

    fn create_from(&mut self, config: GuestConfig, autostarted: bool) -> Result<DomId, String> {
        let about = |problem: String| format!("guest {}: {problem}", config.name);
        let missing = |what: &str, path: &str| {
            about(format!("the {what} {path} is not in the ramdisk: add it or correct {what} ="))
        };
        let kernel = self.ramdisk.file(&config.kernel).ok_or_else(|| missing("kernel", &config.kernel))?;
        let ramdisk = match &config.ramdisk {
            Some(path) => Some(self.ramdisk.file(path).ok_or_else(|| missing("ramdisk", path))?),
            None => None,
        };
        self.created += 1;
        let handle = handle(self.created);
        let request = Request {
            kernel,
            ramdisk,
            command_line: &config.extra,
            memory_mib: config.memory_mib,
            maxmem_mib: config.maxmem_mib,
            vcpus: config.vcpus,
            handle,
            server: DomId(0),
        };
        let built = build::build(&mut self.xen, &request).map_err(|error| about(error.to_string()))?;
        let handle = handle_text(&handle);
        match self.connect(&config, &built, &handle) {
            Ok(console) => {
                let guest = Guest { config, console, handle, autostarted, preserved: false };
                self.guests.insert(built.domain, guest);
                self.terminal.multiplexer.add(built.domain);
                Ok(built.domain)
            }
            Err(problem) => {
                let problem = about(problem);
                self.take_down(built.domain, &handle);
                Err(problem)
            }
        }
    }

    /// Connects a domain that was built, and lets it run.
    fn connect(&mut self, config: &GuestConfig, built: &Built, handle: &str) -> Result<GuestConsole, String> {
        let domain = built.domain;
        let mut entries = nodes::home(config, built, handle);
        entries.extend(config.disks.iter().flat_map(|disk| nodes::disk(domain, disk)));
        entries.extend((0..).zip(&config.vifs).flat_map(|(index, vif)| nodes::vif(domain, index, vif)));
        self.write_nodes(&entries).map_err(|error| format!("its store entries were refused: {error}"))?;
        self.names
            .introduce(domain, built.store_frame.0, built.store_port.0)
            .map_err(|error| format!("the store does not take it: {error}"))?;
        self.attach_devices(domain, config)?;
        let port = Port(built.console_port.0);
        let console = GuestConsole::attach(&mut self.hal, domain, port, &config.name)?;
        match self.xen.unpause(domain) {
            Ok(()) => Ok(console),
            Err(error) => {
                console.detach(&mut self.hal);
                Err(error.to_string())
            }
        }
    }

    pub(super) fn write_nodes(&mut self, entries: &[Entry]) -> Result<(), StoreError> {
        pv_bus::store::transaction(&mut self.names, |store, transaction| {
            for entry in entries {
                store.write(transaction, &entry.path, entry.value.as_bytes())?;
                if let Some(perms) = &entry.perms {
                    store.set_permissions(transaction, &entry.path, perms)?;
                }
            }
            Ok(())
        })
    }

    /// Looks which guests have stopped and does what their descriptions ask for.
    pub(super) fn look_for_stopped(&mut self) {
        let known: Vec<DomId> = self.guests.keys().copied().collect();
        let mut released = false;
        for domain in known {
            let stopped = match self.xen.info(domain) {
                Ok(info) => info.stopped.or(info.dying.then_some(StopReason::Crash)),
                Err(_) => Some(StopReason::Crash),
            };
            let kept = self.guests.get(&domain).is_some_and(|guest| guest.preserved);
            if let Some(reason) = stopped.filter(|_| !kept) {
                self.guest_stopped(domain, reason);
                released = true;
            }
        }
        if released {
            self.server.borrow_mut().announce_released();
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
            return;
        }
        let attached = self.terminal.multiplexer.focus() == Focus::Guest(domain);
        let Some(ended) = self.remove(domain) else {
            return;
        };
        if action == Action::Restart {
            match self.create_from(ended.config, ended.autostarted) {
                Ok(domain) if attached => self.attach(domain),
                Ok(_) => {}
                Err(problem) => self.terminal.say(&format!("dom0: {problem}")),
            }
        }
        self.end_if_last();
    }

    /// Ends this domain when none of the guests that it started by itself runs any more.
    fn end_if_last(&mut self) {
        let runs = self.guests.values().any(|guest| guest.autostarted);
        self.done = self.started_any && !runs;
    }

    /// Takes a guest down at once.
    pub(super) fn remove(&mut self, domain: DomId) -> Option<Ended> {
        let guest = self.guests.remove(&domain)?;
        self.terminal.multiplexer.remove(domain);
        guest.console.detach(&mut self.hal);
        self.take_down(domain, &guest.handle);
        Some(Ended { config: guest.config, autostarted: guest.autostarted })
    }

    fn take_down(&mut self, domain: DomId, handle: &str) {
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

    /// Asks a guest to do something with itself: `poweroff`, `reboot`.
    pub(super) fn ask(&mut self, domain: DomId, what: &str) -> Result<(), String> {
        let path = format!("/local/domain/{}/control/shutdown", domain.0);
        self.names.write(Transaction::NONE, &path, what.as_bytes()).map_err(|error| error.to_string())
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

/// A handle that no other guest of this machine's run has.
fn handle(number: u64) -> [u8; 16] {
    let mut handle = [0; 16];
    handle[..8].copy_from_slice(&pv_guest_kernel::time::wall_clock_ns().to_be_bytes());
    handle[8..].copy_from_slice(&number.to_be_bytes());
    handle
}

fn handle_text(handle: &[u8; 16]) -> String {
    let digits: String = handle.iter().map(|byte| format!("{byte:02x}")).collect();
    [&digits[..8], &digits[8..12], &digits[12..16], &digits[16..20], &digits[20..]].join("-")
}
