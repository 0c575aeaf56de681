//! A guest's console: the page it writes its text to and reads its keys from.
//!
//! The guest can write every byte of the page at any moment. Its indices are read once and checked; text that it claims
//! beyond the ring's length is skipped, the rest goes on.
//!
//! Source: Xen `public/io/console.h`.

use alloc::collections::VecDeque;
use alloc::vec::Vec;
use core::sync::atomic::Ordering;

use pv_bus::{Access, Events, GrantRef, Grants, Port, SharedPage};

use crate::ids::DomId;

/// The grant by which every domain offers its console page (`GNTTAB_RESERVED_CONSOLE`).
pub const CONSOLE_GRANT: GrantRef = GrantRef(0);

const INPUT: usize = 0;
const INPUT_BYTES: usize = 1024;
const OUTPUT: usize = 1024;
const OUTPUT_BYTES: usize = 2048;
const IN_CONS: usize = 3072;
const IN_PROD: usize = 3076;
const OUT_CONS: usize = 3080;
const OUT_PROD: usize = 3084;

/// Keys that may wait for a guest that does not read.
const WAITING_KEYS: usize = 4096;

/// This domain's side of a guest's console.
#[derive(Debug)]
pub struct GuestConsole<P> {
    page: P,
    port: Port,
    out_cons: u32,
    in_prod: u32,
    keys: VecDeque<u8>,
}

impl<P: SharedPage> GuestConsole<P> {
    /// Maps a guest's console page and binds to its port.
    ///
    /// # Errors
    /// One phrase: what could not be mapped or bound.
    pub fn attach<H: Grants<Mapping = P> + Events>(
        hal: &mut H,
        domain: DomId,
        port: Port,
    ) -> Result<Self, alloc::string::String> {
        let mut mapped = Vec::new();
        hal.map_grants(domain, Access::ReadWrite, &[CONSOLE_GRANT], &mut mapped);
        let page = match mapped.pop() {
            Some(Ok(page)) => page,
            Some(Err(error)) => {
                return Err(alloc::format!("its console page cannot be mapped: {error}"));
            }
            None => return Err("its console page cannot be mapped".into()),
        };
        let port = match hal.bind_interdomain(domain, port) {
            Ok(port) => port,
            Err(error) => {
                hal.unmap_grants(&mut alloc::vec![page]);
                return Err(alloc::format!("its console port cannot be bound: {error}"));
            }
        };
        hal.unmask(port);
        Ok(Self::on_page(page, port))
    }

    /// Takes up a page where it stands.
    pub fn on_page(page: P, port: Port) -> Self {
        let out_cons = page.load_u32(OUT_CONS, Ordering::Acquire);
        let in_prod = page.load_u32(IN_PROD, Ordering::Acquire);
        Self {
            page,
            port,
            out_cons,
            in_prod,
            keys: VecDeque::new(),
        }
    }

    /// Unmaps the page and closes the port.
    pub fn detach<H: Grants<Mapping = P> + Events>(self, hal: &mut H) {
        hal.close(self.port);
        hal.unmap_grants(&mut alloc::vec![self.page]);
    }

    /// Queues keys for the guest; when too many wait, the newest are dropped.
    pub fn type_in(&mut self, keys: &[u8]) {
        let room = WAITING_KEYS.saturating_sub(self.keys.len()).min(keys.len());
        self.keys.extend(&keys[..room]);
    }

    /// Takes what the guest has written and gives it what was typed.
    pub fn turn<H: Events>(&mut self, hal: &mut H) -> Vec<u8> {
        let text = self.take_text();
        if self.give_keys() || !text.is_empty() {
            hal.notify(self.port);
        }
        text
    }

    fn take_text(&mut self) -> Vec<u8> {
        let produced = self.page.load_u32(OUT_PROD, Ordering::Acquire);
        let claimed = produced.wrapping_sub(self.out_cons) as usize;
        let mut text = Vec::new();
        if claimed <= OUTPUT_BYTES {
            text.resize(claimed, 0);
            let at = self.out_cons as usize % OUTPUT_BYTES;
            let (head, tail) = text.split_at_mut(claimed.min(OUTPUT_BYTES - at));
            self.page.read(OUTPUT + at, head);
            self.page.read(OUTPUT, tail);
        }
        if claimed > 0 {
            self.out_cons = produced;
            self.page.store_u32(OUT_CONS, produced, Ordering::Release);
        }
        text
    }

    fn give_keys(&mut self) -> bool {
        let consumed = self.page.load_u32(IN_CONS, Ordering::Acquire);
        let unread = self.in_prod.wrapping_sub(consumed) as usize;
        let room = INPUT_BYTES.saturating_sub(unread);
        let count = room.min(self.keys.len());
        for key in self.keys.drain(..count) {
            self.page
                .write(INPUT + self.in_prod as usize % INPUT_BYTES, &[key]);
            self.in_prod = self.in_prod.wrapping_add(1);
        }
        if count > 0 {
            self.page
                .store_u32(IN_PROD, self.in_prod, Ordering::Release);
        }
        count > 0
    }
}
