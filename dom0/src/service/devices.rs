//! The devices this domain has, and the back ends that lend them to guests.

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;

use backends::block::memory::MemoryDisk;
use backends::block::{BlockBack, Options};
use backends::net::NetBack;
use backends::net::bridge::{Bridge, PortId};
use dom0::ids::DomId;
use dom0::toolstack::config::GuestConfig;
use dom0::toolstack::device::{DEFAULT_BRIDGE, Disk, DiskTarget, Vif};
use dom0::toolstack::nodes::DevicePaths;
use dom0::xenstore::LocalStore;
use pv_bus::Store;
use pv_bus::net::Frame;
use pv_guest_kernel::platform::pv::hal::PvHal;
use pv_guest_kernel::task::{self, Signal};
use virtio_drivers::transport::DeviceType;

use super::Service;
use super::medium::Medium;
use crate::machine::disk::VirtioDisk;
use crate::machine::interrupt::Line;
use crate::machine::net::VirtioCard;
use crate::machine::pci;

type DriverHal = PvHal<LocalStore>;

/// How often devices are looked at whose interrupt cannot be had.
const POLL_NS: u64 = 1_000_000;

/// Frames that wait for a guest or a card.
const FRAMES_WAITING: usize = 512;
/// Frames taken from a card in one turn.
const FRAMES_A_TURN: usize = 64;

struct DiskBack {
    domain: DomId,
    back: BlockBack<DriverHal, Medium>,
}

struct NetworkBack {
    domain: DomId,
    back: NetBack<DriverHal>,
    bridge: usize,
    port: PortId,
    /// Frames that this guest had no room for when it had its turn.
    left_waiting: usize,
}

/// A bridge and the card that it is on.
struct Network {
    name: String,
    bridge: Bridge,
    card: Option<(VirtioCard, PortId)>,
}

impl Network {
    fn new(name: String) -> Self {
        Self {
            name,
            bridge: Bridge::new(),
            card: None,
        }
    }

    fn plug(&mut self, card: VirtioCard) {
        let port = self.bridge.add_port(FRAMES_WAITING, false);
        self.card = Some((card, port));
    }

    /// Moves frames from the card to the bridge; says whether there may be more.
    fn take_from_card(&mut self, now_ns: u64) -> bool {
        let Some((card, port)) = &mut self.card else {
            return false;
        };
        for _ in 0..FRAMES_A_TURN {
            let Some(frame) = card.take() else {
                card.commit();
                return false;
            };
            self.bridge.send(*port, Frame::new(frame), now_ns);
        }
        card.commit();
        true
    }

    /// Moves frames from the bridge to the card. What does not fit waits for the card's next interrupt.
    fn give_to_card(&mut self) {
        let Some((card, port)) = &mut self.card else {
            return;
        };
        while card.can_send() {
            let Some(frame) = self.bridge.take(*port) else {
                break;
            };
            card.send(&frame.bytes);
        }
        card.commit();
    }
}

/// All devices and back ends.
#[derive(Default)]
pub(super) struct Devices {
    /// Virtio disks that no guest has, by name.
    disks: BTreeMap<String, Box<VirtioDisk>>,
    networks: Vec<Network>,
    lines: Vec<Line>,
    disk_backs: Vec<DiskBack>,
    network_backs: Vec<NetworkBack>,
}

impl Devices {
    /// Finds and starts the devices of this machine.
    pub(super) fn find(signal: &Arc<Signal>) -> Result<Self, String> {
        let mut devices = Self::default();
        devices
            .networks
            .push(Network::new(DEFAULT_BRIDGE.to_string()));
        let mut cards = 0;
        let mut polled = false;
        for device in pci::virtio_devices()? {
            polled |= !devices.listen(device.line, signal);
            match device.kind {
                DeviceType::Block => devices.add_disk(VirtioDisk::new(device.transport)),
                DeviceType::Network => {
                    devices.add_card(cards, VirtioCard::new(device.transport));
                    cards += 1;
                }
                kind => log::info!("virtio device of kind {kind:?} is not used"),
            }
        }
        if polled {
            poll(signal);
        }
        Ok(devices)
    }

    /// Listens to a device's line; false when it has to be polled instead.
    fn listen(&mut self, line: Option<u32>, signal: &Arc<Signal>) -> bool {
        let Some(gsi) = line else { return false };
        if self.lines.iter().any(|known| known.gsi == gsi) {
            return true;
        }
        match Line::listen(gsi, signal) {
            Ok(line) => self.lines.push(line),
            Err(errno) => {
                log::warn!(
                    "interrupt line {gsi} cannot be had ({errno:?}): its devices are looked at every millisecond"
                );
                return false;
            }
        }
        true
    }

    fn add_disk(&mut self, disk: Result<VirtioDisk, virtio_drivers::Error>) {
        let letter = char::from(b'a' + u8::try_from(self.disks.len()).unwrap_or(25).min(25));
        match disk {
            Ok(disk) => drop(
                self.disks
                    .insert(format!("/dev/vd{letter}"), Box::new(disk)),
            ),
            Err(error) => log::warn!("/dev/vd{letter}: the virtio disk does not start: {error}"),
        }
    }

    fn add_card(&mut self, number: usize, card: Result<VirtioCard, virtio_drivers::Error>) {
        let card = match card {
            Ok(card) => card,
            Err(error) => return log::warn!("network card {number} does not start: {error}"),
        };
        while self.networks.len() <= number {
            let name = format!("xenbr{}", self.networks.len());
            self.networks.push(Network::new(name));
        }
        self.networks[number].plug(card);
    }

    /// The names of the disks that no guest has.
    pub(super) fn free_disks(&self) -> Vec<&str> {
        self.disks.keys().map(String::as_str).collect()
    }

    /// Lets every back end do what it can; says whether one has more to do.
    pub(super) fn turn(&mut self, hal: &mut DriverHal) -> bool {
        let mut busy = false;
        while let Some(event) = hal.next_watch_event() {
            busy = true;
            let taken = self
                .disk_backs
                .iter_mut()
                .any(|disk| disk.back.on_watch(hal, &event));
            if !taken {
                let _ = self
                    .network_backs
                    .iter_mut()
                    .any(|network| network.back.on_watch(&event));
            }
        }
        let fired: Vec<usize> = (0..self.lines.len())
            .filter(|index| self.lines[*index].take())
            .collect();
        if !fired.is_empty() {
            self.acknowledge();
        }
        for disk in &mut self.disk_backs {
            busy |= disk.back.poll(hal) == backends::Progress::More;
        }
        busy |= self.move_frames(hal);
        for index in fired {
            self.lines[index].done();
        }
        busy
    }

    fn move_frames(&mut self, hal: &mut DriverHal) -> bool {
        let now_ns = pv_guest_kernel::time::now_ns();
        let mut busy = false;
        for network in &mut self.networks {
            busy |= network.take_from_card(now_ns);
        }
        for vif in &mut self.network_backs {
            let bridge = &mut self.networks[vif.bridge].bridge;
            let progress = vif.back.poll(hal, &mut bridge.handle(vif.port, now_ns));
            vif.left_waiting = bridge.waiting(vif.port);
            busy |= progress == backends::Progress::More;
        }
        self.networks.iter_mut().for_each(Network::give_to_card);
        busy | self.frames_wait()
    }

    /// Whether frames came for a guest after it had its turn.
    fn frames_wait(&self) -> bool {
        let waiting = |vif: &NetworkBack| self.networks[vif.bridge].bridge.waiting(vif.port);
        self.network_backs
            .iter()
            .any(|vif| waiting(vif) > vif.left_waiting)
    }

    fn acknowledge(&mut self) {
        let cards = self
            .networks
            .iter_mut()
            .filter_map(|network| network.card.as_mut());
        cards.for_each(|(card, _)| card.acknowledge());
        self.disks.values_mut().for_each(|disk| disk.acknowledge());
        for disk in &mut self.disk_backs {
            if let Medium::Virtio(_, disk) = disk.back.device_mut() {
                disk.acknowledge();
            }
        }
    }

    /// Takes every device from a guest.
    pub(super) fn detach(&mut self, hal: &mut DriverHal, domain: DomId) {
        self.detach_vifs(hal, domain);
        let (gone, kept): (Vec<_>, Vec<_>) = core::mem::take(&mut self.disk_backs)
            .into_iter()
            .partition(|disk| disk.domain == domain);
        self.disk_backs = kept;
        for disk in gone {
            if let Medium::Virtio(name, mut disk) = disk.back.release(hal) {
                disk.hand_over();
                self.disks.insert(name, disk);
            }
        }
    }

    fn detach_vifs(&mut self, hal: &mut DriverHal, domain: DomId) {
        let (gone, kept): (Vec<_>, Vec<_>) = core::mem::take(&mut self.network_backs)
            .into_iter()
            .partition(|vif| vif.domain == domain);
        self.network_backs = kept;
        for vif in gone {
            self.networks[vif.bridge].bridge.remove_port(vif.port);
            vif.back.release(hal);
        }
    }

    fn attach_vif(
        &mut self,
        hal: &mut DriverHal,
        domain: DomId,
        index: u32,
        vif: &Vif,
    ) -> Result<(), String> {
        let bridge = self
            .networks
            .iter()
            .position(|network| network.name == vif.bridge)
            .ok_or_else(|| {
                let names: Vec<&str> = self
                    .networks
                    .iter()
                    .map(|network| network.name.as_str())
                    .collect();
                format!(
                    "vif {index}: there is no bridge {}: there are {}",
                    vif.bridge,
                    names.join(", ")
                )
            })?;
        let path = DevicePaths::new(domain, "vif", index).back;
        let back = NetBack::open(hal, &path).map_err(|error| format!("vif {index}: {error:?}"))?;
        let port = self.networks[bridge].bridge.add_port(FRAMES_WAITING, true);
        self.network_backs.push(NetworkBack {
            domain,
            back,
            bridge,
            port,
            left_waiting: 0,
        });
        Ok(())
    }

    fn attach_disk(
        &mut self,
        hal: &mut DriverHal,
        domain: DomId,
        disk: &Disk,
        medium: Medium,
    ) -> Result<(), String> {
        let path = DevicePaths::new(domain, "vbd", disk.number).back;
        let back = BlockBack::open(hal, &path, medium, Options::default())
            .map_err(|error| format!("disk {}: {error:?}", disk.vdev))?;
        self.disk_backs.push(DiskBack { domain, back });
        Ok(())
    }
}

/// Looks at all devices again and again, where interrupts cannot be had.
fn poll(signal: &Arc<Signal>) {
    let signal = signal.clone();
    task::spawn("poll".to_string(), move || {
        loop {
            task::sleep_ns(POLL_NS);
            signal.raise();
        }
    });
}

impl Service {
    /// Lends a guest the disks its description names.
    pub(super) fn attach_devices(
        &mut self,
        domain: DomId,
        config: &GuestConfig,
    ) -> Result<(), String> {
        for disk in &config.disks {
            let medium = self.medium(disk)?;
            self.devices
                .attach_disk(&mut self.hal, domain, disk, medium)?;
        }
        for (index, vif) in (0..).zip(&config.vifs) {
            self.devices.attach_vif(&mut self.hal, domain, index, vif)?;
        }
        Ok(())
    }

    fn medium(&mut self, disk: &Disk) -> Result<Medium, String> {
        match &disk.target {
            DiskTarget::Physical(name) => {
                let found = self.devices.disks.remove(name);
                found
                    .map(|found| Medium::Virtio(name.clone(), found))
                    .ok_or_else(|| {
                        let free = self.devices.free_disks();
                        let free = if free.is_empty() {
                            "none is free".to_string()
                        } else {
                            format!("free are {}", free.join(", "))
                        };
                        format!(
                            "disk {}: there is no {name}, or another guest has it: {free}",
                            disk.vdev
                        )
                    })
            }
            DiskTarget::File(path) => {
                let bytes = self.ramdisk.file(path).ok_or_else(|| {
                    format!(
                        "disk {}: {path} is not in the ramdisk: add it or correct target=",
                        disk.vdev
                    )
                })?;
                let memory = MemoryDisk::new(bytes.to_vec());
                Ok(Medium::Memory(if disk.writable {
                    memory
                } else {
                    memory.read_only()
                }))
            }
        }
    }
}
