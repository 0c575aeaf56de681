//! Guests' consoles: their text to the terminal, keys to them.

use alloc::collections::VecDeque;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use backends::console::ConsoleBack;
use dom0::ids::{DomId, Port};
use dom0::xenstore::LocalStore;
use pv_bus::{Access, Events, GrantRef, Grants};
use pv_guest_kernel::platform::pv::hal::{PeerPage, PvHal};

use super::Service;
use super::emulated::Boards;

/// The grant by which every domain offers its console page (`GNTTAB_RESERVED_CONSOLE`).
const CONSOLE_GRANT: GrantRef = GrantRef(0);
/// Keys that may wait for a guest that does not read.
const KEYS_WAITING: usize = 4096;

/// A guest's console and the keys that wait for it.
pub(super) struct GuestConsole {
    /// The back end; without one it is the guest's emulated serial port.
    back: Option<ConsoleBack<PeerPage>>,
    keys: VecDeque<u8>,
}

impl GuestConsole {
    /// The serial port of a guest with emulated devices.
    pub(super) fn serial() -> Self {
        Self { back: None, keys: VecDeque::new() }
    }

    /// Maps a guest's console page and binds to its port.
    pub(super) fn attach(hal: &mut PvHal<LocalStore>, domain: DomId, port: Port, name: &str) -> Result<Self, String> {
        let mut mapped = Vec::new();
        hal.map_grants(domain, Access::ReadWrite, &[CONSOLE_GRANT], &mut mapped);
        let page = match mapped.pop() {
            Some(Ok(page)) => page,
            Some(Err(error)) => return Err(format!("its console page cannot be mapped: {error}")),
            None => return Err("its console page cannot be mapped".into()),
        };
        match hal.bind_interdomain(domain, port) {
            Ok(port) => {
                hal.unmask(port);
                Ok(Self { back: Some(ConsoleBack::new(page, port, name)), keys: VecDeque::new() })
            }
            Err(error) => {
                hal.unmap_grants(&mut alloc::vec![page]);
                Err(format!("its console port cannot be bound: {error}"))
            }
        }
    }

    /// Closes the port and unmaps the page.
    pub(super) fn detach(self, hal: &mut PvHal<LocalStore>) {
        if let Some(back) = self.back {
            hal.close(back.port());
            hal.unmap_grants(&mut alloc::vec![back.into_page()]);
        }
    }

    /// Queues keys; when too many wait, the newest are dropped.
    fn type_in(&mut self, keys: &[u8]) {
        let room = KEYS_WAITING.saturating_sub(self.keys.len()).min(keys.len());
        self.keys.extend(&keys[..room]);
    }

    /// Takes what the guest has written and gives it what was typed.
    fn turn(&mut self, hal: &mut PvHal<LocalStore>, domain: DomId, boards: &mut Boards) -> Vec<u8> {
        let Some(back) = &mut self.back else {
            return boards.console(domain, &mut self.keys);
        };
        let mut text = Vec::new();
        back.drain(hal, &mut text);
        if !self.keys.is_empty() {
            let fed = back.feed(hal, self.keys.make_contiguous());
            self.keys.drain(..fed);
        }
        text
    }
}

impl Service {
    /// Queues keys for a guest.
    pub(super) fn type_to(&mut self, domain: DomId, keys: &[u8]) {
        if let Some(guest) = self.guests.get_mut(&domain) {
            guest.console.type_in(keys);
        }
    }

    /// Moves guests' text to the terminal and the host, and keys to guests.
    pub(super) fn serve_consoles(&mut self) -> bool {
        let mut texts = Vec::new();
        for (domain, guest) in &mut self.guests {
            let text = guest.console.turn(&mut self.hal, *domain, &mut self.devices.boards);
            if !text.is_empty() {
                texts.push((*domain, text));
            }
        }
        for (domain, text) in &texts {
            if self.terminal.multiplexer.output(*domain, text) {
                self.terminal.pass(text);
            }
            self.pass_to_host(*domain, text);
        }
        !texts.is_empty()
    }
}
