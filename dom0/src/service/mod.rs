//! The service domain at work: the loop, and what it serves.

mod channel;
mod commands;
mod consoles;
mod creation;
mod devices;
mod disks;
mod emulated;
mod guests;
mod hotplug;
mod jobs;
mod medium;
mod networks;
mod reports;
mod terminal;

use alloc::collections::{BTreeMap, VecDeque};
use alloc::rc::Rc;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use core::cell::RefCell;

use dom0::ids::DomId;
use dom0::ramdisk::Ramdisk;
use dom0::xenstore::{LocalStore, Quota, Server, StoreService};
use pv_abi::xen::VIRQ_DOM_EXC;
use pv_guest_kernel::platform::pv::events;
use pv_guest_kernel::platform::pv::hal::{PeerPage, PvHal};
use pv_guest_kernel::println;
use pv_guest_kernel::task::Signal;
use pv_guest_kernel::time::now_ns;

use crate::machine::control::Xen;
use channel::Channel;
use devices::Devices;
use guests::Guest;
use jobs::Job;
use terminal::Terminal;

/// Sessions of the store that this domain's own parts have.
const DRIVERS: u32 = 0;
const TOOLSTACK: u32 = 1;

/// Everything this domain does.
pub(crate) struct Service {
    xen: Xen,
    signal: Arc<Signal>,
    /// Raised when a domain stopped or went away.
    stopped: Arc<Signal>,
    hal: PvHal<LocalStore>,
    store: StoreService<PeerPage>,
    names: LocalStore,
    server: Rc<RefCell<Server>>,
    ramdisk: Ramdisk<'static>,
    guests: BTreeMap<DomId, Guest>,
    devices: Devices,
    terminal: Terminal,
    channel: Channel,
    jobs: VecDeque<Job>,
    started_ns: u64,
    created: u64,
    /// A guest was started together with this domain.
    started_any: bool,
    done: bool,
}

impl Service {
    /// Starts the store, the terminal and the guests that the ramdisk describes.
    ///
    /// # Errors
    /// One line: what keeps this domain from serving.
    pub(crate) fn start() -> Result<Self, String> {
        if !pv_guest_kernel::platform::pv::is_initial_domain() {
            return Err("this is not the first domain: start it as the hypervisor's own kernel module".to_string());
        }
        let signal = Arc::new(Signal::new());
        let stopped = Arc::new(Signal::new());
        let server = Rc::new(RefCell::new(Server::new(Quota::default())));
        let drivers = LocalStore::connect(server.clone(), DRIVERS);
        let mut service = Self {
            xen: Xen,
            hal: PvHal::with_store(drivers, signal.clone()),
            store: StoreService::new(server.clone()),
            names: LocalStore::connect(server.clone(), TOOLSTACK),
            server,
            ramdisk: ramdisk()?,
            guests: BTreeMap::new(),
            devices: Devices::find(&signal)?,
            terminal: Terminal::start(&signal),
            channel: Channel::default(),
            jobs: VecDeque::new(),
            started_ns: now_ns(),
            created: 0,
            started_any: false,
            done: false,
            signal,
            stopped,
        };
        service.describe_myself()?;
        service.listen_for_stops()?;
        service.start_guests();
        Ok(service)
    }

    /// Serves until the last guest that was started by itself has ended.
    pub(crate) fn run(&mut self) {
        while !self.done {
            while self.turn() {}
            if !self.done {
                self.signal.wait_until(self.devices.networks.next_look_ns().unwrap_or(u64::MAX));
            }
        }
        self.finish_channel();
        self.terminal.leave();
        crate::machine::power::off();
    }

    /// Lets each part do what it can; says whether one of them did anything.
    fn turn(&mut self) -> bool {
        let mut busy = self.devices.turn(&mut self.hal);
        busy |= self.finish_detaching();
        busy |= self.store.turn(&mut self.hal);
        busy |= self.serve_consoles();
        busy |= self.serve_terminal();
        busy |= self.serve_channel();
        if self.stopped.take() {
            self.look_for_stopped();
            busy = true;
        }
        busy |= self.serve_jobs();
        busy && !self.done
    }

    fn describe_myself(&mut self) -> Result<(), String> {
        use pv_bus::{Store, Transaction};
        let nodes = [("name", "Domain-0"), ("domid", "0"), ("control/shutdown", "")];
        for (name, value) in nodes {
            let path = alloc::format!("/local/domain/0/{name}");
            self.names.write(Transaction::NONE, &path, value.as_bytes()).map_err(|error| error.to_string())?;
        }
        let folders = ["/tool/xenstored", "/vm", "/local/domain/0/backend/vbd", "/local/domain/0/backend/vif"];
        let mut folders = folders.into_iter();
        folders.try_for_each(|path| self.names.mkdir(Transaction::NONE, path)).map_err(|error| error.to_string())
    }

    fn listen_for_stops(&mut self) -> Result<(), String> {
        let port = events::bind_virq(VIRQ_DOM_EXC)
            .map_err(|errno| alloc::format!("the hypervisor does not report domains that stop: {errno:?}"))?;
        let (signal, stopped) = (self.signal.clone(), self.stopped.clone());
        events::on(port, move || {
            stopped.raise();
            signal.raise();
        });
        Ok(())
    }
}

/// Reads the ramdisk, which stays for ever.
fn ramdisk() -> Result<Ramdisk<'static>, String> {
    use alloc::borrow::Cow;
    let bytes = pv_guest_kernel::ramdisk();
    if bytes.is_empty() {
        println!("dom0: no ramdisk: guests can only come from one; give it as the second module");
    }
    let unpacked: &'static [u8] = match Ramdisk::unpack(bytes)? {
        Cow::Borrowed(bytes) => bytes,
        Cow::Owned(bytes) => bytes.leak(),
    };
    Ramdisk::parse(unpacked)
}
