//! The devices this domain has, and the back ends that lend them to guests.

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;

use backends::block::memory::MemoryDisk;
use backends::block::{
    BlockBack, BlockDevice, DeviceCompletion, DeviceOperation, Geometry, Options, Tag,
};
use dom0::ids::DomId;
use dom0::toolstack::config::GuestConfig;
use dom0::toolstack::device::{Disk, DiskTarget};
use dom0::toolstack::nodes::DevicePaths;
use dom0::xenstore::LocalStore;
use pv_bus::Store;
use pv_guest_kernel::platform::pv::hal::PvHal;
use pv_guest_kernel::task::{self, Signal};
use virtio_drivers::transport::DeviceType;

use super::Service;
use crate::machine::disk::{DiskBuffer, VirtioDisk};
use crate::machine::interrupt::Line;
use crate::machine::pci;

type DriverHal = PvHal<LocalStore>;

/// How often devices are looked at whose interrupt cannot be had.
const POLL_NS: u64 = 1_000_000;

/// What is behind a guest's disk.
pub(super) enum Medium {
    /// A virtio disk, by its name here.
    Virtio(String, VirtioDisk),
    /// A copy of a file of the ramdisk.
    Memory(MemoryDisk),
}

/// Memory for a request of either kind of disk.
pub(super) enum MediumBuffer {
    Virtio(DiskBuffer),
    Memory(Vec<u8>),
}

impl AsRef<[u8]> for MediumBuffer {
    fn as_ref(&self) -> &[u8] {
        match self {
            Self::Virtio(buffer) => buffer.as_ref(),
            Self::Memory(buffer) => buffer,
        }
    }
}

impl AsMut<[u8]> for MediumBuffer {
    fn as_mut(&mut self) -> &mut [u8] {
        match self {
            Self::Virtio(buffer) => buffer.as_mut(),
            Self::Memory(buffer) => buffer,
        }
    }
}

/// The operation with its buffer taken out of the common type; none if the buffer is of another disk.
fn operation_for<B>(
    operation: DeviceOperation<MediumBuffer>,
    unwrap: impl FnOnce(MediumBuffer) -> Option<B>,
) -> Option<DeviceOperation<B>> {
    Some(match operation {
        DeviceOperation::Read { sector, buffer } => DeviceOperation::Read {
            sector,
            buffer: unwrap(buffer)?,
        },
        DeviceOperation::Write { sector, buffer } => DeviceOperation::Write {
            sector,
            buffer: unwrap(buffer)?,
        },
        DeviceOperation::Flush => DeviceOperation::Flush,
        DeviceOperation::Discard {
            sector,
            sectors,
            secure,
        } => DeviceOperation::Discard {
            sector,
            sectors,
            secure,
        },
    })
}

fn completion_of<B>(
    completion: DeviceCompletion<B>,
    wrap: impl FnOnce(B) -> MediumBuffer,
) -> DeviceCompletion<MediumBuffer> {
    DeviceCompletion {
        tag: completion.tag,
        result: completion.result,
        buffer: completion.buffer.map(wrap),
    }
}

impl BlockDevice for Medium {
    type Buffer = MediumBuffer;

    fn geometry(&self) -> Geometry {
        match self {
            Self::Virtio(_, disk) => disk.geometry(),
            Self::Memory(disk) => disk.geometry(),
        }
    }

    fn take_buffer(&mut self, len_bytes: usize) -> Option<MediumBuffer> {
        match self {
            Self::Virtio(_, disk) => disk.take_buffer(len_bytes).map(MediumBuffer::Virtio),
            Self::Memory(disk) => disk.take_buffer(len_bytes).map(MediumBuffer::Memory),
        }
    }

    fn give_back(&mut self, buffer: MediumBuffer) {
        match (self, buffer) {
            (Self::Virtio(_, disk), MediumBuffer::Virtio(buffer)) => disk.give_back(buffer),
            (Self::Memory(disk), MediumBuffer::Memory(buffer)) => disk.give_back(buffer),
            _ => {}
        }
    }

    fn can_submit(&self) -> bool {
        match self {
            Self::Virtio(_, disk) => disk.can_submit(),
            Self::Memory(disk) => disk.can_submit(),
        }
    }

    fn submit(&mut self, tag: Tag, operation: DeviceOperation<MediumBuffer>) {
        match self {
            Self::Virtio(_, disk) => {
                let unwrap = |buffer| match buffer {
                    MediumBuffer::Virtio(buffer) => Some(buffer),
                    MediumBuffer::Memory(_) => None,
                };
                operation_for(operation, unwrap)
                    .into_iter()
                    .for_each(|operation| disk.submit(tag, operation));
            }
            Self::Memory(disk) => {
                let unwrap = |buffer| match buffer {
                    MediumBuffer::Memory(buffer) => Some(buffer),
                    MediumBuffer::Virtio(_) => None,
                };
                operation_for(operation, unwrap)
                    .into_iter()
                    .for_each(|operation| disk.submit(tag, operation));
            }
        }
    }

    fn commit(&mut self) {
        match self {
            Self::Virtio(_, disk) => disk.commit(),
            Self::Memory(disk) => disk.commit(),
        }
    }

    fn next_completion(&mut self) -> Option<DeviceCompletion<MediumBuffer>> {
        match self {
            Self::Virtio(_, disk) => disk
                .next_completion()
                .map(|done| completion_of(done, MediumBuffer::Virtio)),
            Self::Memory(disk) => disk
                .next_completion()
                .map(|done| completion_of(done, MediumBuffer::Memory)),
        }
    }
}

struct DiskBack {
    domain: DomId,
    back: BlockBack<DriverHal, Medium>,
}

/// All devices and back ends.
#[derive(Default)]
pub(super) struct Devices {
    /// Virtio disks that no guest has, by name.
    disks: BTreeMap<String, VirtioDisk>,
    lines: Vec<Line>,
    disk_backs: Vec<DiskBack>,
}

impl Devices {
    /// Finds and starts the devices of this machine.
    pub(super) fn find(signal: &Arc<Signal>) -> Result<Self, String> {
        let mut devices = Self::default();
        let mut polled = false;
        for device in pci::virtio_devices()? {
            polled |= !devices.listen(device.line, signal);
            match device.kind {
                DeviceType::Block => devices.add_disk(VirtioDisk::new(device.transport)),
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
            Ok(disk) => drop(self.disks.insert(format!("/dev/vd{letter}"), disk)),
            Err(error) => log::warn!("/dev/vd{letter}: the virtio disk does not start: {error}"),
        }
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
            let _ = self
                .disk_backs
                .iter_mut()
                .any(|disk| disk.back.on_watch(hal, &event));
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
        fired.iter().for_each(|index| self.lines[*index].done());
        busy
    }

    fn acknowledge(&mut self) {
        self.disks.values_mut().for_each(VirtioDisk::acknowledge);
        for disk in &mut self.disk_backs {
            if let Medium::Virtio(_, disk) = disk.back.device_mut() {
                disk.acknowledge();
            }
        }
    }

    /// Takes every device from a guest.
    pub(super) fn detach(&mut self, hal: &mut DriverHal, domain: DomId) {
        let (gone, kept): (Vec<_>, Vec<_>) = core::mem::take(&mut self.disk_backs)
            .into_iter()
            .partition(|disk| disk.domain == domain);
        self.disk_backs = kept;
        for disk in gone {
            if let Medium::Virtio(name, disk) = disk.back.release(hal) {
                self.disks.insert(name, disk);
            }
        }
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
