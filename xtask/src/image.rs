//! Disk images and ramdisks, made and read on the host.
//!
//! A disk has one FAT partition behind a master boot record (what cameras and firmware write); a ramdisk is a `newc`
//! cpio archive.

use std::fs::{File, OpenOptions};
use std::io::{Cursor, Read, Seek, SeekFrom, Write};
use std::path::Path;

use anyhow::{Context, Result, bail};
use fatfs::{FileSystem, FormatVolumeOptions, FsOptions};

const SECTOR_BYTES: u64 = 512;
/// Where the partition starts, in bytes: 1 MiB, as every partitioning tool aligns.
const PARTITION_START: u64 = 1 << 20;
const PARTITION_BYTES: u64 = 63 << 20;
/// Partition type of FAT16 with LBA addresses.
const TYPE_FAT16_LBA: u8 = 0x0e;

/// Makes a disk image that holds `files` in its root folder.
pub(crate) fn make_disk(path: &Path, files: &[(&str, &[u8])]) -> Result<()> {
    let mut volume = Cursor::new(vec![0; usize::try_from(PARTITION_BYTES)?]);
    let options = FormatVolumeOptions::new().volume_label(*b"XENOLITH   ").fat_type(fatfs::FatType::Fat16);
    fatfs::format_volume(&mut volume, options).context("the file system cannot be made")?;
    volume.rewind()?;
    {
        let file_system = FileSystem::new(&mut volume, FsOptions::new())?;
        for (name, content) in files {
            file_system.root_dir().create_file(name)?.write_all(content)?;
        }
    }
    let mut image = File::create(path).with_context(|| format!("{} cannot be made", path.display()))?;
    image.set_len(PARTITION_START + PARTITION_BYTES)?;
    image.write_all(&boot_record())?;
    image.seek(SeekFrom::Start(PARTITION_START))?;
    image.write_all(volume.get_ref())?;
    Ok(())
}

fn boot_record() -> [u8; SECTOR_BYTES as usize] {
    let mut record = [0; SECTOR_BYTES as usize];
    let start = (PARTITION_START / SECTOR_BYTES) as u32;
    let count = (PARTITION_BYTES / SECTOR_BYTES) as u32;
    let entry = &mut record[446..462];
    entry[1..4].copy_from_slice(&[0xfe, 0xff, 0xff]);
    entry[4] = TYPE_FAT16_LBA;
    entry[5..8].copy_from_slice(&[0xfe, 0xff, 0xff]);
    entry[8..12].copy_from_slice(&start.to_le_bytes());
    entry[12..16].copy_from_slice(&count.to_le_bytes());
    record[510..].copy_from_slice(&[0x55, 0xaa]);
    record
}

/// Reads a file of the root folder of an image that [`make_disk`] made and a guest may have changed since.
pub(crate) fn read_from_disk(path: &Path, name: &str) -> Result<Vec<u8>> {
    let mut image = OpenOptions::new().read(true).open(path)?;
    image.seek(SeekFrom::Start(PARTITION_START))?;
    let mut volume = Vec::new();
    image.read_to_end(&mut volume)?;
    let file_system = FileSystem::new(Cursor::new(volume), FsOptions::new()).context("the file system is damaged")?;
    let mut content = Vec::new();
    file_system
        .root_dir()
        .open_file(name)
        .with_context(|| format!("{} has no file {name}", path.display()))?
        .read_to_end(&mut content)?;
    Ok(content)
}

/// The mode of a file.
pub(crate) const FILE: u32 = 0o100_644;
/// The mode of a program.
pub(crate) const PROGRAM: u32 = 0o100_755;
/// The mode of a folder.
pub(crate) const FOLDER: u32 = 0o040_755;

/// The mode of a symbolic link, whose content is where it leads.
pub(crate) const LINK: u32 = 0o120_777;

/// Makes a ramdisk of `files` (path without the leading slash, content).
pub(crate) fn make_ramdisk(files: &[(String, Vec<u8>)]) -> Result<Vec<u8>> {
    let entries: Vec<_> = files.iter().map(|(name, content)| (name.clone(), FILE, content.clone())).collect();
    make_archive(&entries)
}

/// Makes a `newc` archive of entries (path without the leading slash, mode, content).
pub(crate) fn make_archive(entries: &[(String, u32, Vec<u8>)]) -> Result<Vec<u8>> {
    let mut archive = Vec::new();
    for (inode, (name, mode, content)) in (1..).zip(entries) {
        let Ok(len) = u32::try_from(content.len()) else { bail!("{name} is too large for a ramdisk") };
        let builder = cpio::newc::Builder::new(name).ino(inode).nlink(1).mode(*mode);
        let mut writer = builder.write(&mut archive, len);
        writer.write_all(content)?;
        writer.finish()?;
    }
    cpio::newc::trailer(&mut archive)?;
    Ok(archive)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_put_on_a_disk_is_read_back() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("disk.img");
        make_disk(&path, &[("hello.txt", b"hello")]).expect("a disk");
        assert_eq!(read_from_disk(&path, "hello.txt").expect("the file"), b"hello");
        assert!(read_from_disk(&path, "other.txt").is_err());
    }
}
