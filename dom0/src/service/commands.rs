//! Commands: who gives them, and which part carries them out.
//!
//! Most are answered at once. What takes time becomes a [`Job`](super::jobs::Job), so that guests are served meanwhile.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use dom0::console::command::{self, Command, Format};
use dom0::ids::DomId;
use dom0::toolstack::control::Control;
use dom0::toolstack::device::{Disk, Vif};
use pv_bus::{Store, StoreError, Transaction};

use super::Service;
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
            Command::Create { file, paused, console } => self.create_named(client, &file, paused, console),
            Command::Console(guest) => self.find(&guest).map(|domain| self.give_console(client, domain)),
            Command::Stop { guest, how, wait } => self.stop(guest, how, wait),
            Command::Pause(guest) => self.find(&guest).and_then(|domain| done(self.xen.pause(domain))),
            Command::Unpause(guest) => self.find(&guest).and_then(|domain| done(self.xen.unpause(domain))),
            Command::Destroy(guest) => self.find(&guest).map(|domain| {
                self.remove(domain);
                Answer::Now(String::new())
            }),
            Command::Rename(guest, name) => self.find(&guest).and_then(|domain| done(self.rename(domain, &name))),
            Command::SuspendCancel(guest) => self.find(&guest).and_then(|domain| self.suspend(domain)),
            Command::VcpuSet(guest, count) => self.find(&guest).and_then(|domain| done(self.set_vcpus(domain, count))),
            Command::MemSet(guest, kib) => self.find(&guest).and_then(|domain| done(self.set_memory(domain, kib))),
            Command::MemMax(guest, kib) => {
                self.find(&guest).and_then(|domain| done(self.xen.set_max_memory(domain, kib)))
            }
            Command::Sysrq(guest, letter) => {
                self.find(&guest).and_then(|domain| done(self.write_control(domain, "sysrq", &letter)))
            }
            Command::Poweroff => {
                let domains: Vec<DomId> = self.guests.keys().copied().collect();
                domains.into_iter().for_each(|domain| drop(self.remove(domain)));
                self.done = true;
                Ok(Answer::Now(String::new()))
            }
            Command::Help => Ok(Answer::Now(command::help())),
            other => self.carry_out_on_devices(other),
        }
    }

    fn carry_out_on_devices(&mut self, command: Command) -> Outcome {
        match command {
            Command::BlockAttach(guest, disk) => self.find(&guest).and_then(|domain| {
                let disk = Disk::parse(&disk).map_err(|problem| format!("disk \"{disk}\": {problem}"))?;
                done(self.block_attach(domain, disk))
            }),
            Command::BlockDetach(guest, disk, force) => self.find(&guest).and_then(|domain| {
                let number = self.disk_number(domain, &disk)?;
                self.block_detach(domain, number, force)?;
                Ok(Answer::Later(Wait::DiskGone(domain, number)))
            }),
            Command::NetworkAttach(guest, vif) => self.find(&guest).and_then(|domain| {
                let vif = Vif::parse(&vif).map_err(|problem| format!("vif \"{vif}\": {problem}"))?;
                done(self.network_attach(domain, vif).map(drop))
            }),
            Command::NetworkDetach(guest, vif, force) => self.find(&guest).and_then(|domain| {
                let index = self.interface_number(domain, &vif)?;
                self.network_detach(domain, index, force)?;
                Ok(Answer::Later(Wait::InterfaceGone(domain, index)))
            }),
            Command::BackendRestart(guest, kind, number) => {
                self.find(&guest).and_then(|domain| done(self.restart_backend(domain, &kind, number)))
            }
            other => self.show(other),
        }
    }

    /// Carries out what looks at things, or reaches the hypervisor or the store alone.
    fn show(&mut self, command: Command) -> Outcome {
        match command {
            Command::List(guest, format) => said(self.show_domains(guest, format)),
            Command::BlockList(guest) => said(self.show_disks(&guest)),
            Command::NetworkList(guest) => said(self.show_interfaces(&guest)),
            Command::VcpuList(guest) => said(self.show_vcpus(guest)),
            Command::Uptime(guest) => said(self.show_uptime(guest)),
            Command::Top(format) => Ok(self.measure(format)),
            Command::VcpuPin(guest, vcpu, hard, soft) => {
                let info = self.find_any(&guest)?.info;
                let vcpus = vcpu.map_or(0..=info.max_vcpu, |vcpu| vcpu..=vcpu);
                let mut vcpus = vcpus.into_iter();
                done(vcpus.try_for_each(|vcpu| self.xen.pin(info.domain, vcpu, hard, soft)))
            }
            Command::Nmi(guest, vcpu) => self.find(&guest).and_then(|domain| done(self.xen.send_nmi(domain, vcpu))),
            Command::DebugKeys(keys) => done(queries::debug_keys(&keys)),
            Command::Dmesg(clear) => said(self.xen.messages(clear).map(|text| text.trim_end().to_string())),
            Command::Info => said(queries::info()),
            Command::Domid(name) => self.find_any(&name).map(|row| Answer::Now(row.info.domain.0.to_string())),
            Command::Domname(number) => self.find_any(&number).map(|row| Answer::Now(row.name)),
            other => self.reach_store(other),
        }
    }

    fn reach_store(&mut self, command: Command) -> Outcome {
        let about = |path: String| move |error: StoreError| format!("{path}: {error}");
        match command {
            Command::StoreList(path) => said(self.names.listing(&path).map_err(about(path))),
            Command::StoreRead(path) => {
                let value = self.names.read(Transaction::NONE, &path).map_err(about(path));
                said(value.map(|value| String::from_utf8_lossy(&value).into_owned()))
            }
            Command::StoreWrite(path, value) => {
                done(self.names.write(Transaction::NONE, &path, value.as_bytes()).map_err(about(path)))
            }
            Command::StoreRemove(path) => done(self.names.rm(Transaction::NONE, &path).map_err(about(path))),
            other => Err(format!("{other:?} is carried out by no part")),
        }
    }

    fn create_named(&mut self, client: Client, file: &str, paused: bool, console: bool) -> Outcome {
        let brought = if client == Client::Host { self.channel.take_files() } else { Default::default() };
        let paths = [file.to_string(), format!("/guests/{file}.toml"), format!("/guests/{file}")];
        let found = paths.iter().find_map(|path| Some((path, brought.get(path, &self.ramdisk)?)));
        let (path, bytes) =
            found.ok_or_else(|| format!("{file} is not in the ramdisk: it may be a path or a name under /guests"))?;
        let text = String::from_utf8_lossy(bytes).into_owned();
        let domain = self.create(path, &text, brought, paused)?;
        Ok(if console { self.give_console(client, domain) } else { Answer::Now(String::new()) })
    }

    fn give_console(&mut self, client: Client, domain: DomId) -> Answer {
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
        Ok(if wait { Answer::Later(Wait::Gone(domains)) } else { Answer::Now(String::new()) })
    }

    fn measure(&mut self, format: Format) -> Answer {
        let before = self.xen.domains().iter().map(|info| (info.domain, info.cpu_time_ns)).collect();
        Answer::Later(Wait::measured(before, format))
    }
}
