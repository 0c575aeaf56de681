//! What the prompt's commands do.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use dom0::console::command::{self, Command};
use dom0::ids::DomId;
use dom0::toolstack::control::Control;
use dom0::toolstack::lifecycle::{self, ListRow};

use super::Service;

impl Service {
    /// Carries out a line typed at the prompt.
    pub(super) fn command(&mut self, line: &str) {
        let done = match command::parse(line) {
            Ok(Some(command)) => self.carry_out(command),
            Ok(None) => Ok(String::new()),
            Err(problem) => Err(problem),
        };
        let text = done.unwrap_or_else(|problem| problem);
        if !text.is_empty() {
            self.terminal.say(&text);
        }
    }

    fn carry_out(&mut self, command: Command) -> Result<String, String> {
        match command {
            Command::List => Ok(self.list()),
            Command::Create(name) => self.create_named(&name).map(|_| String::new()),
            Command::Console(name) => self.with(&name, |service, domain| {
                service.attach(domain);
                Ok(())
            }),
            Command::Pause(name) => self.with(&name, |service, domain| control(service.xen.pause(domain))),
            Command::Unpause(name) => self.with(&name, |service, domain| control(service.xen.unpause(domain))),
            Command::Shutdown(name) => self.with(&name, |service, domain| service.ask(domain, "poweroff")),
            Command::Reboot(name) => self.with(&name, |service, domain| service.ask(domain, "reboot")),
            Command::Destroy(name) => self.with(&name, |service, domain| {
                service.remove(domain);
                Ok(())
            }),
            Command::Dmesg => {
                self.xen.messages().map(|text| text.trim_end().to_string()).map_err(|error| error.to_string())
            }
            Command::Info => Ok(crate::machine::control::version()),
            Command::StoreList(path) => self.names.listing(&path).map_err(|error| format!("{path}: {error}")),
            Command::Poweroff => {
                let domains: Vec<DomId> = self.guests.keys().copied().collect();
                domains.into_iter().for_each(|domain| drop(self.remove(domain)));
                self.done = true;
                Ok(String::new())
            }
            Command::Help => Ok(command::help()),
        }
    }

    fn create_named(&mut self, name: &str) -> Result<DomId, String> {
        let paths = [name.to_string(), format!("/guests/{name}.toml"), format!("/guests/{name}")];
        let found = paths.iter().find_map(|path| Some((path, self.ramdisk.file(path)?)));
        let (path, bytes) =
            found.ok_or_else(|| format!("{name} is not in the ramdisk: it may be a path or a name under /guests"))?;
        let text = String::from_utf8_lossy(bytes).into_owned();
        self.create(path, &text, false)
    }

    fn with(
        &mut self,
        name: &str,
        action: impl FnOnce(&mut Self, DomId) -> Result<(), String>,
    ) -> Result<String, String> {
        let domain = self.find(name)?;
        action(self, domain).map(|()| String::new())
    }

    fn find(&self, name: &str) -> Result<DomId, String> {
        let number = name.parse().ok().map(DomId);
        let found = self.guests.iter().find(|(domain, guest)| guest.config.name == name || Some(**domain) == number);
        let known: Vec<&str> = self.guests.values().map(|guest| guest.config.name.as_str()).collect();
        found.map(|(domain, _)| *domain).ok_or_else(|| {
            if known.is_empty() {
                format!("there is no guest \"{name}\": none runs")
            } else {
                format!("there is no guest \"{name}\": running are {}", known.join(", "))
            }
        })
    }

    fn list(&mut self) -> String {
        let rows: Vec<ListRow> = self
            .xen
            .domains()
            .into_iter()
            .map(|info| {
                let name = self.names.text(&format!("/local/domain/{}/name", info.domain.0));
                ListRow { name: name.unwrap_or_else(|| "(null)".to_string()), info }
            })
            .collect();
        lifecycle::list(&rows)
    }
}

fn control(result: Result<(), dom0::toolstack::control::ControlError>) -> Result<(), String> {
    result.map_err(|error| error.to_string())
}
