//! Commands: who gives them, and which part carries them out.
//!
//! Most are answered at once. What takes time becomes a [`Job`](super::jobs::Job), so that guests are served meanwhile.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use dom0::console::command::{self, Command, Format};
use dom0::ids::DomId;
use dom0::toolstack::control::Control;
use dom0::toolstack::cpus::CpuSet;
use dom0::toolstack::device::{Disk, Vif};
use pv_bus::{Store, StoreError, Transaction};

use super::Service;
use super::creation::{Brought, Plan};
use super::jobs::Wait;
use crate::machine::queries;

/// Who gives a command and reads its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Client {
    /// The prompt on the terminal.
    Prompt,
    /// The host, over the control channel.
    Host,
}

/// What came of a command.
pub(super) enum Answer {
    /// It is done, and this is what it says.
    Now(String),
    /// It is done when this has happened.
    Later(Wait),
}

/// What a command came to: an answer, or one line that says why not.
pub(super) type Outcome = Result<Answer, String>;

fn done<E: ToString>(result: Result<(), E>) -> Outcome {
    result.map(|()| Answer::Now(String::new())).map_err(|error| error.to_string())
}

fn said<E: ToString>(result: Result<String, E>) -> Outcome {
    result.map(Answer::Now).map_err(|error| error.to_string())
}

fn about(path: String) -> impl FnOnce(StoreError) -> String {
    move |error| format!("{path}: {error}")
}

/// A guest's text without what would steer the terminal.
fn printable(value: Vec<u8>) -> String {
    let shown = |letter: char| if letter.is_control() { letter.escape_default().to_string() } else { letter.into() };
    String::from_utf8_lossy(&value).chars().map(shown).collect()
}

impl Service {
    /// Carries out a line.
    pub(super) fn command(&mut self, client: Client, line: &str) {
        let outcome = match command::parse(line) {
            Ok(Some(command)) => self.carry_out(client, command),
            Ok(None) => Ok(Answer::Now(String::new())),
            Err(problem) => Err(problem),
        };
        match outcome {
            Ok(Answer::Later(wait)) => self.begin(client, wait),
            Ok(Answer::Now(text)) => self.answer(client, Ok(text)),
            Err(problem) => self.answer(client, Err(problem)),
        }
    }

    /// Gives a command's answer to whoever gave the command.
    pub(super) fn answer(&mut self, client: Client, answer: Result<String, String>) {
        match client {
            Client::Host => self.answer_host(answer),
            Client::Prompt => {
                let text = answer.unwrap_or_else(|problem| problem);
                if !text.is_empty() {
                    self.terminal.say(&text);
                }
            }
        }
    }

    fn carry_out(&mut self, client: Client, command: Command) -> Outcome {
        match command {
            Command::List(guest, format) => said(self.show_domains(guest, format)),
            Command::Create { file, paused, console } => self.create_named(client, &file, paused, console),
            Command::Console(guest) => self.with(&guest, |service, domain| Ok(service.give_console(client, domain))),
            Command::Pause(guest) => self.with(&guest, |service, domain| done(service.xen.pause(domain))),
            Command::Unpause(guest) => self.with(&guest, |service, domain| done(service.xen.unpause(domain))),
            Command::Stop { guest, how, wait } => self.stop(guest, how, wait),
            Command::Destroy(guest) => self.with(&guest, |service, domain| done(service.destroy(domain))),
            Command::Rename(guest, name) => self.with(&guest, |service, domain| done(service.rename(domain, &name))),
            Command::SuspendCancel(guest) => self.with(&guest, Self::suspend),
            Command::BlockAttach(guest, disk) => {
                self.with(&guest, |service, domain| service.add_disk(client, domain, &disk))
            }
            Command::BlockDetach(guest, disk, force) => {
                self.with(&guest, |service, domain| service.take_disk(domain, &disk, force))
            }
            Command::BlockList(guest) => self.with(&guest, |service, domain| said(service.show_disks(domain))),
            Command::NetworkAttach(guest, vif) => {
                self.with(&guest, |service, domain| service.add_interface(domain, &vif))
            }
            Command::NetworkDetach(guest, vif, force) => {
                self.with(&guest, |service, domain| service.take_interface(domain, &vif, force))
            }
            Command::NetworkList(guest) => self.with(&guest, |service, domain| said(service.show_interfaces(domain))),
            Command::BackendRestart(guest, kind, number) => {
                self.with(&guest, |service, domain| done(service.restart_backend(domain, &kind, number)))
            }
            Command::VcpuList(guest) => said(self.show_vcpus(guest)),
            Command::VcpuSet(guest, count) => {
                self.with(&guest, |service, domain| done(service.set_vcpus(domain, count)))
            }
            Command::VcpuPin(guest, vcpu, hard, soft) => self.pin(&guest, vcpu, hard, soft),
            Command::MemSet(guest, kib) => self.with(&guest, |service, domain| done(service.set_memory(domain, kib))),
            Command::MemMax(guest, kib) => {
                self.with(&guest, |service, domain| done(service.xen.set_max_memory(domain, kib)))
            }
            Command::Top(format) => Ok(self.measure(format)),
            Command::Dmesg(clear) => said(self.xen.messages(clear).map(|text| text.trim_end().to_string())),
            Command::Info => said(queries::info()),
            Command::Uptime(guest) => said(self.show_uptime(guest)),
            Command::Domid(name) => self.find_any(&name).map(|row| Answer::Now(row.info.domain.0.to_string())),
            Command::Domname(number) => self.find_any(&number).map(|row| Answer::Now(row.name)),
            Command::Sysrq(guest, letter) => {
                self.with(&guest, |service, domain| done(service.write_control(domain, "sysrq", &letter)))
            }
            Command::Nmi(guest, vcpu) => self.with(&guest, |service, domain| done(service.xen.send_nmi(domain, vcpu))),
            Command::DebugKeys(keys) => done(queries::debug_keys(&keys)),
            Command::StoreList(path) => said(self.names.listing(&path).map_err(about(path))),
            Command::StoreRead(path) => {
                said(self.names.read(Transaction::NONE, &path).map(printable).map_err(about(path)))
            }
            Command::StoreWrite(path, value) => {
                done(self.names.write(Transaction::NONE, &path, value.as_bytes()).map_err(about(path)))
            }
            Command::StoreRemove(path) => done(self.names.rm(Transaction::NONE, &path).map_err(about(path))),
            Command::Poweroff => Ok(self.power_off()),
            Command::Help => Ok(Answer::Now(command::help())),
        }
    }

    fn with(&mut self, guest: &str, action: impl FnOnce(&mut Self, DomId) -> Outcome) -> Outcome {
        let domain = self.find(guest)?;
        action(self, domain)
    }

    fn destroy(&mut self, domain: DomId) -> Result<(), String> {
        self.remove(domain).map(drop).ok_or_else(|| format!("there is no guest {}", domain.0))
    }

    fn power_off(&mut self) -> Answer {
        let domains: Vec<DomId> = self.guests.keys().copied().collect();
        domains.into_iter().for_each(|domain| drop(self.remove(domain)));
        self.done = true;
        Answer::Now(String::new())
    }

    fn add_disk(&mut self, client: Client, domain: DomId, text: &str) -> Outcome {
        let disk = Disk::parse(text).map_err(|problem| format!("disk \"{text}\": {problem}"))?;
        let brought = self.brought_by(client);
        done(self.block_attach(domain, disk, brought))
    }

    fn brought_by(&mut self, client: Client) -> Brought {
        if client == Client::Host { self.channel.take_files() } else { Brought::default() }
    }

    fn take_disk(&mut self, domain: DomId, disk: &str, force: bool) -> Outcome {
        let number = self.disk_number(domain, disk)?;
        self.block_detach(domain, number, force)?;
        Ok(Answer::Later(Wait::DiskGone(domain, number)))
    }

    fn add_interface(&mut self, domain: DomId, text: &str) -> Outcome {
        let vif = Vif::parse(text).map_err(|problem| format!("vif \"{text}\": {problem}"))?;
        done(self.network_attach(domain, vif).map(drop))
    }

    fn take_interface(&mut self, domain: DomId, vif: &str, force: bool) -> Outcome {
        let index = self.interface_number(domain, vif)?;
        self.network_detach(domain, index, force)?;
        Ok(Answer::Later(Wait::InterfaceGone(domain, index)))
    }

    fn pin(&mut self, guest: &str, vcpu: Option<u32>, hard: Option<CpuSet>, soft: Option<CpuSet>) -> Outcome {
        let info = self.find_any(guest)?.info;
        let mut vcpus = vcpu.map_or(0..=info.max_vcpu, |vcpu| vcpu..=vcpu);
        done(vcpus.try_for_each(|vcpu| self.xen.pin(info.domain, vcpu, hard, soft)))
    }

    fn create_named(&mut self, client: Client, file: &str, paused: bool, console: bool) -> Outcome {
        let brought = self.brought_by(client);
        let paths = [file.to_string(), format!("/guests/{file}.toml"), format!("/guests/{file}")];
        let found = paths.iter().find_map(|path| Some((path, brought.get(path, &self.ramdisk)?)));
        let (path, text) =
            found.ok_or_else(|| format!("{file} is not in the ramdisk: it may be a path or a name under /guests"))?;
        let plan = Plan::read(path, &String::from_utf8_lossy(text.as_ref()))?;
        self.create(Plan { brought, paused, ..plan }, console).map(Answer::Later)
    }

    pub(super) fn give_console(&mut self, client: Client, domain: DomId) -> Answer {
        if client == Client::Host {
            self.attach_host(domain);
            return Answer::Later(Wait::Console(domain));
        }
        self.attach(domain);
        Answer::Now(String::new())
    }

    fn stop(&mut self, guest: Option<String>, how: &'static str, wait: bool) -> Outcome {
        let domains = match guest {
            Some(guest) => alloc::vec![self.find(&guest)?],
            None => self.guests.keys().copied().collect(),
        };
        domains.iter().try_for_each(|domain| self.write_control(*domain, "shutdown", how))?;
        let guests = self.guests.iter().filter(|(domain, _)| domains.contains(domain));
        let guests = guests.map(|(domain, guest)| (*domain, guest.config.name.clone())).collect();
        Ok(if wait { Answer::Later(Wait::Gone(guests)) } else { Answer::Now(String::new()) })
    }

    fn measure(&mut self, format: Format) -> Answer {
        let before = self.xen.domains().iter().map(|info| (info.domain, info.cpu_time_ns)).collect();
        Answer::Later(Wait::measured(before, format))
    }
}
