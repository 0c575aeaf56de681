//! The file system on the disk: FAT, by the crate `embedded-sdmmc`.
//!
//! The disk is mounted at `/disk` for the length of one operation: nothing is cached between two, and what an operation wrote
//! is flushed when it returns. New names are 8.3, as the crate writes no long ones; long names that are there are found.

use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::ops::ControlFlow;

use embedded_sdmmc::{
    Block, BlockCount, BlockDevice, BlockIdx, DirEntry, Error, LfnBuffer, Mode, RawDirectory, ShortFileName,
    TimeSource, Timestamp, VolumeIdx, VolumeManager,
};

use crate::disk::{self, DiskError, SECTOR_BYTES};

/// Where the disk's file system is.
pub(crate) const MOUNT_POINT: &str = "/disk";

/// Sectors read or written at a time.
const BATCH_SECTORS: usize = 64;

/// Why a file operation failed.
pub(crate) type FileError = Error<DiskError>;

/// One name in a directory.
#[derive(Clone, Debug)]
pub(crate) struct Listing {
    pub(crate) name: String,
    pub(crate) is_directory: bool,
    pub(crate) len_bytes: u32,
}

/// The disk as the file system sees it. A disk that is one big file system without a partition table is shown with one in
/// front.
struct Sectors {
    /// Sectors that are not on the disk: the partition table made up for it.
    shift: u32,
    count: u32,
}

impl Sectors {
    fn open() -> Result<Self, DiskError> {
        let sectors = disk::sectors()?;
        let mut first = [0; SECTOR_BYTES];
        disk::read(0, &mut first)?;
        Ok(Self { shift: u32::from(is_boot_sector(&first)), count: u32::try_from(sectors).unwrap_or(u32::MAX) })
    }

    /// A partition table with one partition: everything behind it.
    fn made_up_table(&self) -> Block {
        let mut table = Block::new();
        let entry = &mut table.contents[446..462];
        entry[4] = 0x0c;
        entry[8..12].copy_from_slice(&self.shift.to_le_bytes());
        entry[12..16].copy_from_slice(&self.count.to_le_bytes());
        table.contents[510..].copy_from_slice(&[0x55, 0xaa]);
        table
    }
}

/// A FAT boot sector starts with a jump and names its sector size; a partition table does neither.
fn is_boot_sector(sector: &[u8]) -> bool {
    matches!(sector[0], 0xeb | 0xe9) && sector[11..13] == [0, 2] && sector[16] != 0
}

impl BlockDevice for Sectors {
    type Error = DiskError;

    fn read(&self, blocks: &mut [Block], start: BlockIdx) -> Result<(), DiskError> {
        let mut first = start.0;
        let in_front = self.shift.saturating_sub(first).min(blocks.len() as u32);
        let (tables, blocks) = blocks.split_at_mut(in_front as usize);
        tables.fill(self.made_up_table());
        first += in_front;
        let mut sector = u64::from(first - self.shift);
        for batch in blocks.chunks_mut(BATCH_SECTORS) {
            let mut bytes = alloc::vec![0; batch.len() * SECTOR_BYTES];
            disk::read(sector, &mut bytes)?;
            for (block, bytes) in batch.iter_mut().zip(bytes.chunks(SECTOR_BYTES)) {
                block.contents.copy_from_slice(bytes);
            }
            sector += batch.len() as u64;
        }
        Ok(())
    }

    fn write(&self, blocks: &[Block], start: BlockIdx) -> Result<(), DiskError> {
        let mut sector = u64::from(start.0.saturating_sub(self.shift));
        for batch in blocks.chunks(BATCH_SECTORS) {
            let bytes: Vec<u8> = batch.iter().flat_map(|block| block.contents).collect();
            disk::write(sector, &bytes)?;
            sector += batch.len() as u64;
        }
        Ok(())
    }

    fn num_blocks(&self) -> Result<BlockCount, DiskError> {
        Ok(BlockCount(self.count + self.shift))
    }
}

/// The time that new files get.
struct WallClock;

impl TimeSource for WallClock {
    fn get_timestamp(&self) -> Timestamp {
        let seconds = pv_guest_kernel::time::wall_clock_ns() / 1_000_000_000;
        let (days, in_day) = (seconds / 86_400, seconds % 86_400);
        let (year, month, day) = civil_date(days);
        Timestamp {
            year_since_1970: (year - 1970) as u8,
            zero_indexed_month: month as u8,
            zero_indexed_day: day as u8,
            hours: (in_day / 3600) as u8,
            minutes: (in_day / 60 % 60) as u8,
            seconds: (in_day % 60) as u8,
        }
    }
}

/// Year, month and day (both from 0) of a day since 1970.
fn civil_date(days: u64) -> (u64, u64, u64) {
    let is_leap = |year: u64| (year.is_multiple_of(4) && !year.is_multiple_of(100)) || year.is_multiple_of(400);
    let (mut year, mut left) = (1970, days);
    while left >= 365 + u64::from(is_leap(year)) {
        left -= 365 + u64::from(is_leap(year));
        year += 1;
    }
    let february = 28 + u64::from(is_leap(year));
    let lengths = [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    for (month, length) in lengths.into_iter().enumerate() {
        if left < length {
            return (year, month as u64, left);
        }
        left -= length;
    }
    (year, 11, 30)
}

type Volumes = VolumeManager<Sectors, WallClock>;

/// Mounts the disk, opens the directory that `path` lies in, and runs `action` with it and the last name.
fn in_directory<R>(
    path: &str,
    action: impl FnOnce(&Volumes, RawDirectory, &str) -> Result<R, FileError>,
) -> Result<R, FileError> {
    let sectors = Sectors::open().map_err(Error::DeviceError)?;
    let volumes = Volumes::new(sectors, WallClock);
    let volume = volumes.open_raw_volume(VolumeIdx(0))?;
    let mut directory = volumes.open_root_dir(volume)?;
    let mut parts = path.split('/').filter(|part| !part.is_empty()).peekable();
    let mut last = "";
    while let Some(part) = parts.next() {
        if parts.peek().is_none() {
            last = part;
            break;
        }
        directory = enter(&volumes, directory, part)?;
    }
    let result = action(&volumes, directory, last);
    volumes.close_dir(directory)?;
    volumes.close_volume(volume)?;
    result
}

fn enter(volumes: &Volumes, directory: RawDirectory, name: &str) -> Result<RawDirectory, FileError> {
    let short = find(volumes, directory, name)?.ok_or(Error::NotFound)?.name;
    let inner = volumes.open_dir(directory, short)?;
    volumes.close_dir(directory)?;
    Ok(inner)
}

/// The entry with a long or short name, without regard to case.
fn find(volumes: &Volumes, directory: RawDirectory, name: &str) -> Result<Option<DirEntry>, FileError> {
    let mut found = None;
    each(volumes, directory, |entry, long| {
        let same = long.is_some_and(|long| long.eq_ignore_ascii_case(name))
            || entry.name.to_string().eq_ignore_ascii_case(name);
        if same {
            found = Some(entry.clone());
        }
    })?;
    Ok(found)
}

fn each(
    volumes: &Volumes,
    directory: RawDirectory,
    mut look: impl FnMut(&DirEntry, Option<&str>),
) -> Result<(), FileError> {
    let mut storage = [0; 780];
    let mut buffer = LfnBuffer::new(&mut storage);
    volumes.iterate_dir_lfn(directory, &mut buffer, |entry, long| {
        if !entry.attributes.is_volume() {
            look(entry, long);
        }
        ControlFlow::Continue(())
    })
}

/// What is in the directory `path` (below the mount point).
///
/// # Errors
/// [`FileError`].
pub(crate) fn list(path: &str) -> Result<Vec<Listing>, FileError> {
    let mut listings = Vec::new();
    in_directory(path, |volumes, directory, last| {
        let directory = match last {
            "" => directory,
            name => {
                let entry = find(volumes, directory, name)?.ok_or(Error::NotFound)?;
                volumes.open_dir(directory, entry.name)?
            }
        };
        let result = each(volumes, directory, |entry, long| {
            let name = long.map_or_else(|| entry.name.to_string().to_lowercase(), String::from);
            listings.push(Listing { name, is_directory: entry.attributes.is_directory(), len_bytes: entry.size });
        });
        if last.is_empty() {
            return result;
        }
        volumes.close_dir(directory).and(result)
    })?;
    Ok(listings)
}

/// The content of a file.
///
/// # Errors
/// [`FileError`].
pub(crate) fn read(path: &str) -> Result<Vec<u8>, FileError> {
    in_directory(path, |volumes, directory, name| {
        let entry = find(volumes, directory, name)?.ok_or(Error::NotFound)?;
        let file = volumes.open_file_in_dir(directory, entry.name, Mode::ReadOnly)?;
        let mut bytes = alloc::vec![0; entry.size as usize];
        let mut done = 0;
        let mut result = Ok(());
        while done < bytes.len() && result.is_ok() {
            result = volumes.read(file, &mut bytes[done..]).map(|count| {
                done += count.max(1);
            });
        }
        volumes.close_file(file)?;
        result.map(|()| bytes)
    })
}

/// Makes a file with this content, or replaces what is in it. It is durable when this returns.
///
/// # Errors
/// [`FileError`].
pub(crate) fn write(path: &str, content: &[u8]) -> Result<(), FileError> {
    in_directory(path, |volumes, directory, name| {
        let short = match find(volumes, directory, name)? {
            Some(entry) => entry.name,
            None => ShortFileName::create_from_str(name).map_err(Error::FilenameError)?,
        };
        let file = volumes.open_file_in_dir(directory, short, Mode::ReadWriteCreateOrTruncate)?;
        let written = volumes.write(file, content);
        volumes.close_file(file)?;
        written
    })?;
    disk::flush().map_err(Error::DeviceError)
}
