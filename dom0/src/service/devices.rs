//! The devices this domain has: finding them, and being told when they have something.
//!
//! A device raises its interrupt line. Firmware may name a line that never fires; a device that is found to have
//! finished something without it is looked at by the clock from then on.

use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU64, Ordering};

use dom0::ids::DomId;
use dom0::toolstack::config::GuestConfig;
use dom0::toolstack::control::GuestKind;
use dom0::xenstore::LocalStore;
use pv_bus::Store;
use pv_guest_kernel::platform::pv::hal::PvHal;
use pv_guest_kernel::task::{self, Signal};
use pv_guest_kernel::time::now_ns;
use virtio_drivers::transport::DeviceType;

use super::Service;
use super::creation::Brought;
use super::disks::Disks;
use super::emulated::Boards;
use super::networks::Networks;
use crate::machine::disk::VirtioDisk;
use crate::machine::interrupt::Line;
use crate::machine::net::VirtioCard;
use crate::machine::pci;
use crate::machine::port::VirtioPort;

/// What the back ends run on.
pub(super) type DriverHal = PvHal<LocalStore>;

/// How often devices are looked at: without interrupts, while it is not known whether they come, and when they do.
const POLL_NS: u64 = 1_000_000;
const PROBE_NS: u64 = 50_000_000;
const WATCH_NS: u64 = 1_000_000_000;

/// Looks at which a device has finished something and its line has not fired, until the line is given up.
const PATIENCE: u32 = 3;

/// All devices and back ends.
#[derive(Default)]
pub(super) struct Devices {
    pub(super) disks: Disks,
    pub(super) networks: Networks,
    pub(super) boards: Boards,
    /// The line of the control channel.
    pub(super) port: Option<VirtioPort>,
    lines: Vec<Line>,
    clock: Arc<Clock>,
    /// Looks at which something was found without an interrupt, in a row.
    missed: u32,
}

/// Looks at the devices by the clock.
struct Clock {
    interval_ns: AtomicU64,
    ticked: Signal,
}

impl Default for Clock {
    fn default() -> Self {
        Self { interval_ns: AtomicU64::new(PROBE_NS), ticked: Signal::new() }
    }
}

impl Devices {
    /// Finds and starts the devices of this machine.
    pub(super) fn find(signal: &Arc<Signal>) -> Result<Self, String> {
        let mut devices = Self::default();
        let found = pci::virtio_devices()?;
        let any = !found.is_empty();
        for device in found {
            devices.listen(device.line, signal);
            match device.kind {
                DeviceType::Block => devices.disks.add(VirtioDisk::new(device.transport)),
                DeviceType::Network => devices.networks.add(VirtioCard::new(device.transport)),
                DeviceType::Console => match VirtioPort::new(device.transport) {
                    Ok(port) => devices.port = Some(port),
                    Err(error) => log::warn!("the control channel's port does not start: {error}"),
                },
                kind => log::info!("virtio device of kind {kind:?} is not used"),
            }
        }
        if any {
            devices.clock.clone().start(signal.clone());
        }
        Ok(devices)
    }

    fn listen(&mut self, line: Option<u32>, signal: &Arc<Signal>) {
        let Some(gsi) = line else {
            return self.give_up("a device has no interrupt line");
        };
        if self.lines.iter().any(|known| known.gsi == gsi) {
            return;
        }
        match Line::listen(gsi, signal) {
            Ok(line) => self.lines.push(line),
            Err(errno) => self.give_up(&alloc::format!("interrupt line {gsi} cannot be had ({errno:?})")),
        }
    }

    fn give_up(&self, why: &str) {
        log::warn!("{why}: devices are looked at every millisecond");
        self.clock.interval_ns.store(POLL_NS, Ordering::Relaxed);
    }

    /// Lets every back end do what it can; says whether one has more to do.
    pub(super) fn turn(&mut self, hal: &mut DriverHal) -> bool {
        let mut busy = false;
        while let Some(event) = hal.next_watch_event() {
            busy = true;
            let _ = self.disks.on_watch(hal, &event) || self.networks.on_watch(&event);
        }
        let fired: Vec<usize> = (0..self.lines.len()).filter(|index| self.lines[*index].take()).collect();
        if fired.is_empty() {
            self.look_by_the_clock();
        } else {
            self.disks.virtio().chain(self.boards.virtio()).for_each(VirtioDisk::acknowledge);
            self.networks.cards().for_each(VirtioCard::acknowledge);
            self.port.iter_mut().for_each(VirtioPort::acknowledge);
            self.lines_work();
        }
        busy |= self.disks.turn(hal);
        busy |= self.networks.turn(hal);
        busy |= self.boards.turn(&mut self.networks, now_ns());
        for index in fired {
            self.lines[index].done();
        }
        busy
    }

    fn lines_work(&mut self) {
        self.missed = 0;
        if self.clock.interval_ns.load(Ordering::Relaxed) == PROBE_NS {
            self.clock.interval_ns.store(WATCH_NS, Ordering::Relaxed);
        }
    }

    fn look_by_the_clock(&mut self) {
        if !self.clock.ticked.take() || self.clock.interval_ns.load(Ordering::Relaxed) == POLL_NS {
            return;
        }
        let finished = self.disks.virtio().chain(self.boards.virtio()).any(|disk| disk.has_finished())
            || self.networks.cards().any(|card| card.has_finished())
            || self.port.as_ref().is_some_and(VirtioPort::has_finished);
        self.missed = if finished { self.missed + 1 } else { self.missed };
        if self.missed >= PATIENCE {
            self.give_up("interrupts do not come");
        }
    }

    /// Takes every device from a guest.
    pub(super) fn detach(&mut self, hal: &mut DriverHal, domain: DomId) {
        self.disks.detach(hal, domain);
        self.networks.detach(hal, domain);
        self.boards.detach(domain, &mut self.disks, &mut self.networks);
    }
}

impl Clock {
    fn start(self: Arc<Self>, signal: Arc<Signal>) {
        task::spawn("devices".to_string(), move || {
            loop {
                task::sleep_ns(self.interval_ns.load(Ordering::Relaxed));
                self.ticked.raise();
                signal.raise();
            }
        });
    }
}

impl Service {
    /// Lends a guest the devices its description names.
    pub(super) fn attach_devices(
        &mut self,
        domain: DomId,
        config: &GuestConfig,
        brought: &Brought,
    ) -> Result<(), String> {
        let file = |path: &str| brought.get(path, &self.ramdisk);
        if config.kind == GuestKind::Hvm {
            let Devices { disks, networks, boards, .. } = &mut self.devices;
            return boards.attach(domain, config, (disks, networks), &self.signal, file);
        }
        for disk in &config.disks {
            self.devices.disks.attach(&mut self.hal, domain, disk, file)?;
        }
        for (index, vif) in (0..).zip(&config.vifs) {
            self.devices.networks.attach(&mut self.hal, domain, index, vif)?;
        }
        Ok(())
    }
}
