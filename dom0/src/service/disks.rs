//! Disks: the ones this domain has, and the back ends that lend them to guests.

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use backends::block::memory::MemoryDisk;
use backends::block::{BlockBack, Options};
use dom0::ids::DomId;
use dom0::ramdisk::Ramdisk;
use dom0::toolstack::device::{Disk, DiskTarget};
use dom0::toolstack::nodes::DevicePaths;
use pv_bus::WatchEvent;

use super::devices::DriverHal;
use super::medium::Medium;
use crate::machine::disk::VirtioDisk;

struct DiskBack {
    domain: DomId,
    back: BlockBack<DriverHal, Medium>,
}

/// All disks.
#[derive(Default)]
pub(super) struct Disks {
    /// Virtio disks that no guest has, by name.
    free: BTreeMap<String, Box<VirtioDisk>>,
    backs: Vec<DiskBack>,
}

impl Disks {
    /// Takes a disk that was found.
    pub(super) fn add(&mut self, disk: Result<VirtioDisk, virtio_drivers::Error>) {
        let letter = char::from(b'a' + u8::try_from(self.free.len()).unwrap_or(25).min(25));
        let name = format!("/dev/vd{letter}");
        match disk {
            Ok(disk) => drop(self.free.insert(name, Box::new(disk))),
            Err(error) => log::warn!("{name}: the virtio disk does not start: {error}"),
        }
    }

    /// Lends a guest a disk.
    pub(super) fn attach(
        &mut self,
        hal: &mut DriverHal,
        domain: DomId,
        disk: &Disk,
        ramdisk: &Ramdisk<'_>,
    ) -> Result<(), String> {
        let medium = self.medium(disk, ramdisk).map_err(|problem| format!("disk {}: {problem}", disk.vdev))?;
        let path = DevicePaths::new(domain, "vbd", disk.number).back;
        let back = BlockBack::open(hal, &path, medium, Options::default())
            .map_err(|error| format!("disk {}: {error:?}", disk.vdev))?;
        self.backs.push(DiskBack { domain, back });
        Ok(())
    }

    fn medium(&mut self, disk: &Disk, ramdisk: &Ramdisk<'_>) -> Result<Medium, String> {
        match &disk.target {
            DiskTarget::Physical(name) => match self.free.remove(name) {
                Some(found) => Ok(Medium::Virtio(name.clone(), found)),
                None => Err(format!("there is no {name}, or another guest has it: {}", self.free_names())),
            },
            DiskTarget::File(path) => {
                let bytes = ramdisk.file(path);
                let bytes = bytes.ok_or_else(|| format!("{path} is not in the ramdisk: add it or correct target="))?;
                let memory = MemoryDisk::new(bytes.to_vec());
                Ok(Medium::Memory(if disk.writable { memory } else { memory.read_only() }))
            }
        }
    }

    fn free_names(&self) -> String {
        let names: Vec<&str> = self.free.keys().map(String::as_str).collect();
        if names.is_empty() { "none is free".to_string() } else { format!("free are {}", names.join(", ")) }
    }

    /// Takes a guest's disks back.
    pub(super) fn detach(&mut self, hal: &mut DriverHal, domain: DomId) {
        let (gone, kept): (Vec<_>, Vec<_>) =
            core::mem::take(&mut self.backs).into_iter().partition(|disk| disk.domain == domain);
        self.backs = kept;
        for disk in gone {
            if let Medium::Virtio(name, mut disk) = disk.back.release(hal) {
                disk.hand_over();
                self.free.insert(name, disk);
            }
        }
    }

    /// Hands a store event to the back end that it is for; says whether there is one.
    pub(super) fn on_watch(&mut self, hal: &mut DriverHal, event: &WatchEvent) -> bool {
        self.backs.iter_mut().any(|disk| disk.back.on_watch(hal, event))
    }

    /// Lets every back end do what it can; says whether one has more to do.
    pub(super) fn turn(&mut self, hal: &mut DriverHal) -> bool {
        let mut busy = false;
        for disk in &mut self.backs {
            busy |= disk.back.poll(hal) == backends::Progress::More;
        }
        busy
    }

    /// All virtio disks.
    pub(super) fn virtio(&mut self) -> impl Iterator<Item = &mut VirtioDisk> {
        let lent = self.backs.iter_mut().filter_map(|disk| match disk.back.device_mut() {
            Medium::Virtio(_, disk) => Some(&mut **disk),
            Medium::Memory(_) => None,
        });
        self.free.values_mut().map(|disk| &mut **disk).chain(lent)
    }
}
