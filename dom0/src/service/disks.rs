//! Disks: the ones this domain has, and the back ends that lend them to guests.

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use backends::block::memory::MemoryDisk;
use backends::block::{BlockBack, Options};
use dom0::ids::DomId;
use dom0::toolstack::device::{self, Disk, DiskTarget};
use dom0::toolstack::nodes::DevicePaths;
use dom0::toolstack::report::BlockUse;
use pv_bus::WatchEvent;

use super::creation::File;
use super::devices::DriverHal;
use super::hotplug::Leaving;
use super::medium::Medium;
use crate::machine::disk::VirtioDisk;
use crate::machine::queries::machine;

struct DiskBack {
    domain: DomId,
    number: u32,
    back: BlockBack<DriverHal, Medium>,
    leaving: Option<Leaving>,
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

    /// Lends a guest a disk; `file` finds the file behind it, where it is one.
    pub(super) fn attach(
        &mut self,
        hal: &mut DriverHal,
        domain: DomId,
        disk: &Disk,
        file: impl Fn(&str) -> Option<File>,
    ) -> Result<(), String> {
        if self.has(domain, disk.number) {
            return Err(format!("disk {}: the guest has one of this name: choose another vdev=", disk.vdev));
        }
        let medium = self.take(disk, file)?;
        let back = open(hal, domain, disk.number, medium)?;
        self.backs.push(DiskBack { domain, number: disk.number, back, leaving: None });
        Ok(())
    }

    /// Whether a guest has this disk.
    pub(super) fn has(&self, domain: DomId, number: u32) -> bool {
        self.backs.iter().any(|disk| disk.domain == domain && disk.number == number)
    }

    /// What a guest has asked of the disks that it has.
    pub(super) fn asked_by(&self, domain: DomId) -> BlockUse {
        let counters = self.backs.iter().filter(|disk| disk.domain == domain).map(|disk| disk.back.counters());
        counters.fold(BlockUse::default(), |all, one| BlockUse {
            waits: all.waits + one.waits,
            requests: (all.requests.0 + one.reads, all.requests.1 + one.writes),
            sectors: (all.sectors.0 + one.read_sectors, all.sectors.1 + one.written_sectors),
        })
    }

    /// Asks a guest to give a disk back; false when it has none of this number.
    pub(super) fn begin_detach(&mut self, hal: &mut DriverHal, domain: DomId, number: u32, leaving: Leaving) -> bool {
        let found = self.backs.iter_mut().find(|disk| disk.domain == domain && disk.number == number);
        let Some(disk) = found else { return false };
        disk.leaving.get_or_insert(leaving);
        disk.back.close(hal);
        true
    }

    /// Takes the next disk back that its guest has let go of, or that it was asked for long enough ago.
    pub(super) fn take_detached(&mut self, hal: &mut DriverHal, now_ns: u64) -> Option<(DomId, u32)> {
        let left = |disk: &DiskBack| disk.leaving.is_some_and(|leaving| leaving.is_over(now_ns, disk.back.is_closed()));
        let mut disk = self.backs.swap_remove(self.backs.iter().position(left)?);
        if !disk.back.is_closed() {
            log::warn!("{}: the guest does not let go of it: it is taken away", disk.back.path());
            disk.back.abort(hal);
        }
        self.free_again(disk.back.release(hal));
        Some((disk.domain, disk.number))
    }

    /// Ends a back end without a word to its guest and starts another one in its place.
    pub(super) fn restart(&mut self, hal: &mut DriverHal, domain: DomId, number: u32) -> Result<(), String> {
        let found = self.backs.iter().position(|disk| disk.domain == domain && disk.number == number);
        let at = found.ok_or_else(|| format!("the guest has no disk {number}"))?;
        let mut medium = self.backs.swap_remove(at).back.release(hal);
        if let Medium::Virtio(_, disk) = &mut medium {
            disk.hand_over();
        }
        let back = open(hal, domain, number, medium)?;
        self.backs.push(DiskBack { domain, number, back, leaving: None });
        Ok(())
    }

    /// Takes what is behind a disk.
    ///
    /// # Errors
    /// One line: it is not there, or another guest has it.
    pub(super) fn take(&mut self, disk: &Disk, file: impl Fn(&str) -> Option<File>) -> Result<Medium, String> {
        self.medium(disk, file).map_err(|problem| format!("disk {}: {problem}", disk.vdev))
    }

    /// Takes back what was behind a disk.
    pub(super) fn free_again(&mut self, medium: Medium) {
        if let Medium::Virtio(name, mut disk) = medium {
            disk.hand_over();
            self.free.insert(name, disk);
        }
    }

    fn medium(&mut self, disk: &Disk, file: impl Fn(&str) -> Option<File>) -> Result<Medium, String> {
        match &disk.target {
            DiskTarget::Physical(name) => match self.free.remove(name) {
                Some(found) => Ok(Medium::Virtio(name.clone(), found)),
                None => Err(format!("there is no {name}, or another guest has it: {}", self.free_names())),
            },
            DiskTarget::File(path) => {
                let missing = || format!("{path} is neither in the ramdisk nor on the host: add it or correct target=");
                let file = file(path).ok_or_else(missing)?;
                device::check_image(path, file.as_ref())?;
                let memory = MemoryDisk::new(copy_of(path, file.as_ref())?);
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
            self.free_again(disk.back.release(hal));
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
        let lent = self.backs.iter_mut().filter_map(|disk| disk.back.device_mut().virtio_mut());
        self.free.values_mut().map(|disk| &mut **disk).chain(lent)
    }
}

/// The bytes of a disk that its guest may change.
fn copy_of(path: &str, bytes: &[u8]) -> Result<Vec<u8>, String> {
    let mut copy = Vec::new();
    let mib = bytes.len().div_ceil(1 << 20);
    copy.try_reserve_exact(bytes.len())
        .map_err(|_| format!("dom0 has no memory for the {mib} MiB of {path}: raise dom0_mem="))?;
    copy.extend_from_slice(bytes);
    Ok(copy)
}

fn open(
    hal: &mut DriverHal,
    domain: DomId,
    number: u32,
    medium: Medium,
) -> Result<BlockBack<DriverHal, Medium>, String> {
    let path = DevicePaths::new(domain, "vbd", number).back;
    // More queues than CPUs only make the guest's CPUs wait for each other.
    let usual = Options::default();
    let options = Options { max_queues: machine().map_or(1, |machine| machine.nr_cpus).min(usual.max_queues), ..usual };
    BlockBack::open(hal, &path, medium, options).map_err(|error| error.to_string())
}
