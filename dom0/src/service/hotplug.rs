//! Devices that come and go while their guest runs.
//!
//! The toolstack's commands call these, with a domain that [`Service`] knows:
//! - [`Service::block_attach`] and [`Service::network_attach`] describe a device in the store and start its back end. They
//!   return at once; the guest's front end connects when it has seen the description.
//! - [`Service::block_detach`] and [`Service::network_detach`] ask the guest to let go and return at once. When it has,
//!   or after ten seconds without its consent, the device and its description go: [`Service::has_disk`] and
//!   [`Service::has_vif`] say when. What the guest had asked of a disk that is taken away by force is answered with
//!   errors.
//! - [`Service::block_list`] and [`Service::network_list`] read what `xl block-list` and `xl network-list` show.
//! - [`Service::restart_backend`] ends a device's back end as a crash would, and starts another one.
//!
//! A device that was attached is part of the guest's description from then on (it comes back when the guest reboots),
//! and one that was detached is not.
//!
//! Source: Xen `public/io/xenbus.h`, `xl(1)`.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use dom0::ids::DomId;
use dom0::toolstack::device::{Disk, ParsedVif};
use dom0::toolstack::nodes::{self, DevicePaths, Entry};
use dom0::toolstack::report::DeviceRow;
use pv_bus::{Store, StoreError, Transaction};
use pv_guest_kernel::task;
use pv_guest_kernel::time::{SECOND_NS, now_ns};

use super::Service;
use super::creation::Brought;

/// How long a guest may take to let go of a device.
const PATIENCE_NS: u64 = 10 * SECOND_NS;

/// A device that its guest was asked to give back.
#[derive(Clone, Copy, Debug)]
pub(super) struct Leaving {
    until_ns: u64,
}

impl Leaving {
    /// Whether the device can go: the guest has closed it, or its time is over.
    pub(super) fn is_over(self, now_ns: u64, closed: bool) -> bool {
        closed || now_ns >= self.until_ns
    }
}

impl Service {
    /// Lends a running guest one more disk; what was brought for it stays with the guest.
    ///
    /// # Errors
    /// One line that names the cure; nothing is left of the disk.
    pub(super) fn block_attach(&mut self, domain: DomId, disk: Disk, brought: Brought) -> Result<(), String> {
        self.check_hears(domain)?;
        if self.has_disk(domain, disk.number) {
            return Err(format!("the guest has a disk {}: choose another vdev=", disk.vdev));
        }
        self.describe(&nodes::disk(domain, &disk))?;
        let file = |path: &str| brought.get(path, &self.ramdisk);
        if let Err(problem) = self.devices.disks.attach(&mut self.hal, domain, &disk, file) {
            self.forget(domain, "vbd", disk.number);
            return Err(problem);
        }
        if let Some(guest) = self.guests.get_mut(&domain) {
            guest.config.disks.push(disk);
            guest.brought.0.extend(brought.0);
        }
        Ok(())
    }

    /// Asks a running guest to give a disk back, and takes it when it has, or by force at once or after ten seconds.
    ///
    /// # Errors
    /// The guest has no such disk.
    pub(super) fn block_detach(&mut self, domain: DomId, number: u32, force: bool) -> Result<(), String> {
        self.set_offline(domain, "vbd", number);
        let leaving = self.leaving(force);
        match self.devices.disks.begin_detach(&mut self.hal, domain, number, leaving) {
            true => Ok(()),
            false => Err(format!("the guest has no disk {number}: block-list shows those it has")),
        }
    }

    /// Whether a guest has this disk, one that is being detached included.
    pub(super) fn has_disk(&self, domain: DomId, number: u32) -> bool {
        self.devices.disks.has(domain, number)
    }

    /// A guest's disks as the store describes them.
    pub(super) fn block_list(&mut self, domain: DomId) -> Vec<DeviceRow> {
        self.rows(domain, "vbd", &["ring-ref"])
    }

    /// Plugs one more network interface into a running guest and gives its place.
    ///
    /// # Errors
    /// One line that names the cure; nothing is left of the interface.
    pub(super) fn network_attach(&mut self, domain: DomId, vif: ParsedVif) -> Result<u32, String> {
        self.check_hears(domain)?;
        let guest = self.guests.get(&domain).ok_or_else(|| format!("there is no guest {}", domain.0))?;
        let index = (0..).find(|index| !self.has_vif(domain, *index)).unwrap_or(0);
        let vif = vif.with_default_mac(&guest.config.name, index as usize);
        self.describe(&nodes::vif(domain, index, &vif))?;
        if let Err(problem) = self.devices.networks.attach(&mut self.hal, domain, index, &vif) {
            self.forget(domain, "vif", index);
            return Err(problem);
        }
        if let Some(guest) = self.guests.get_mut(&domain) {
            guest.config.vifs.push(vif);
        }
        Ok(index)
    }

    /// Asks a running guest to give a network interface back, and unplugs it when it has, or by force at once or after
    /// ten seconds.
    ///
    /// # Errors
    /// The guest has no such interface.
    pub(super) fn network_detach(&mut self, domain: DomId, index: u32, force: bool) -> Result<(), String> {
        self.set_offline(domain, "vif", index);
        let leaving = self.leaving(force);
        match self.devices.networks.begin_detach(&mut self.hal, domain, index, leaving) {
            true => Ok(()),
            false => Err(format!("the guest has no interface {index}: network-list shows those it has")),
        }
    }

    /// Whether a guest has this interface, one that is being detached included.
    pub(super) fn has_vif(&self, domain: DomId, index: u32) -> bool {
        self.devices.networks.has(domain, index)
    }

    /// A guest's network interfaces as the store describes them.
    pub(super) fn network_list(&mut self, domain: DomId) -> Vec<DeviceRow> {
        self.rows(domain, "vif", &["tx-ring-ref", "rx-ring-ref"])
    }

    /// Ends the back end of a disk (`vbd`) or an interface (`vif`) as a crash of it would, and starts another one.
    ///
    /// # Errors
    /// The guest has no such device.
    pub(super) fn restart_backend(&mut self, domain: DomId, kind: &str, number: u32) -> Result<(), String> {
        match kind {
            "vbd" => self.devices.disks.restart(&mut self.hal, domain, number),
            "vif" => self.devices.networks.restart(&mut self.hal, domain, number),
            _ => Err(format!("{kind} is no kind of device: write vbd or vif")),
        }
    }

    /// Takes away what guests have let go of; says whether there was something.
    pub(super) fn finish_detaching(&mut self) -> bool {
        let now_ns = now_ns();
        let mut any = false;
        while let Some((domain, number)) = self.devices.disks.take_detached(&mut self.hal, now_ns) {
            self.forget(domain, "vbd", number);
            if let Some(guest) = self.guests.get_mut(&domain) {
                guest.config.disks.retain(|disk| disk.number != number);
            }
            any = true;
        }
        while let Some((domain, index, mac)) = self.devices.networks.take_detached(&mut self.hal, now_ns) {
            self.forget(domain, "vif", index);
            if let Some(guest) = self.guests.get_mut(&domain) {
                guest.config.vifs.retain(|vif| vif.mac != mac);
            }
            any = true;
        }
        any
    }

    /// The time that a guest gets, and somebody who wakes this domain when it is over.
    fn leaving(&self, force: bool) -> Leaving {
        let patience_ns = if force { 0 } else { PATIENCE_NS };
        let signal = self.signal.clone();
        task::spawn("detaching".to_string(), move || {
            task::sleep_ns(patience_ns);
            signal.raise();
        });
        Leaving { until_ns: now_ns() + patience_ns }
    }

    fn describe(&mut self, entries: &[Entry]) -> Result<(), String> {
        self.write_nodes(entries).map_err(|error| format!("its store entries were refused: {error}"))
    }

    /// Removes what the store says of a device: the back end's half first, by which a front end knows that it is gone.
    fn forget(&mut self, domain: DomId, kind: &str, number: u32) {
        let paths = DevicePaths::new(domain, kind, number);
        for path in [paths.back, paths.front] {
            match self.names.rm(Transaction::NONE, &path) {
                Ok(()) | Err(StoreError::NoEntry) => {}
                Err(error) => log::warn!("{path} cannot be removed: {error}"),
            }
        }
    }

    /// Tells whoever looks that the device is not to come back.
    fn set_offline(&mut self, domain: DomId, kind: &str, number: u32) {
        let path = format!("{}/online", DevicePaths::new(domain, kind, number).back);
        if self.names.text(&path).is_some()
            && let Err(error) = self.names.write(Transaction::NONE, &path, b"0")
        {
            log::warn!("{path} stays: {error}");
        }
    }

    fn rows(&mut self, domain: DomId, kind: &str, rings: &[&str]) -> Vec<DeviceRow> {
        let folder = format!("/local/domain/{}/device/{kind}", domain.0);
        let names = self.names.directory(Transaction::NONE, &folder).unwrap_or_default();
        let mut numbers: Vec<u32> = names.iter().filter_map(|name| name.parse().ok()).collect();
        numbers.sort_unstable();
        numbers.into_iter().map(|number| self.row(domain, kind, number, rings)).collect()
    }

    fn row(&mut self, domain: DomId, kind: &str, number: u32, rings: &[&str]) -> DeviceRow {
        let DevicePaths { front, back } = DevicePaths::new(domain, kind, number);
        let first = |service: &mut Self, names: &[&str]| {
            let found = ["", "queue-0/"].iter().flat_map(|place| names.iter().map(move |name| (place, name)));
            let paths: Vec<String> = found.map(|(place, name)| format!("{front}/{place}{name}")).collect();
            paths.iter().find_map(|path| service.names.text(path)?.trim().parse().ok())
        };
        DeviceRow {
            number,
            front_domain: u32::from(domain.0),
            back_domain: first(self, &["backend-id"]).unwrap_or(0),
            state: first(self, &["state"]).unwrap_or(0),
            event_channel: first(self, &["event-channel", "event-channel-tx"]),
            ring_refs: rings.iter().filter_map(|ring| first(self, &[ring, &format!("{ring}0")])).collect(),
            // The guest's half says what the guest likes.
            mac: self.names.text(&format!("{back}/mac")),
            back_path: back,
        }
    }
}
