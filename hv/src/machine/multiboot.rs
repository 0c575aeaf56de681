//! What the boot loader says: command line, memory map, modules.
//!
//! Both versions of Multiboot are read, each into the same [`BootInformation`], through a function that gives bytes of
//! physical memory; nothing here touches memory by itself. A number that leads nowhere gives nothing rather than a
//! fault: the slice is short.
//!
//! Sources: Multiboot 0.6.96 §3.3, Multiboot2 2.0 §3.6.

use alloc::string::String;
use alloc::vec::Vec;

use hv::control::options::without_image_name;

/// A range of physical memory and what it is: an E820 type, 1 for usable RAM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct MemoryRange {
    /// First byte.
    pub(crate) start: u64,
    /// Length in bytes.
    pub(crate) length: u64,
    /// E820 type.
    pub(crate) kind: u32,
}

impl MemoryRange {
    /// Usable RAM.
    pub(crate) const RAM: u32 = 1;

    /// One past the last byte.
    pub(crate) const fn end(&self) -> u64 {
        self.start.saturating_add(self.length)
    }
}

/// A file that the boot loader put in memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Module {
    /// First byte, physical.
    pub(crate) start: u64,
    /// One past the last byte.
    pub(crate) end: u64,
    /// Its arguments, without its name.
    pub(crate) arguments: String,
}

/// What the boot loader says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct BootInformation {
    /// The command line, without the image's name.
    pub(crate) command_line: String,
    /// The memory map, as the firmware gave it.
    pub(crate) memory: Vec<MemoryRange>,
    /// Modules in the order they were named.
    pub(crate) modules: Vec<Module>,
    /// The root of the ACPI tables, where the loader copied it.
    pub(crate) acpi_root: Option<Vec<u8>>,
}

/// Gives up to `length` bytes of physical memory.
pub(crate) type Physical<'a> = &'a dyn Fn(u64, usize) -> &'static [u8];

/// What `eax` holds when a loader of the first version starts us.
const MAGIC_1: u32 = 0x2bad_b002;
/// What `eax` holds when a loader of the second version starts us.
const MAGIC_2: u32 = 0x36d7_6289;

/// Reads the loader's information; `None` if the loader is not one of Multiboot.
pub(crate) fn read(magic: u32, address: u32, physical: Physical<'_>) -> Option<BootInformation> {
    match magic {
        MAGIC_1 => Some(read_first(u64::from(address), physical)),
        MAGIC_2 => Some(read_second(u64::from(address), physical)),
        _ => None,
    }
}

fn read_first(address: u64, physical: Physical<'_>) -> BootInformation {
    let header = physical(address, 116);
    let flags = word(header, 0);
    let loader = if flags & 1 << 9 != 0 { text(physical, word(header, 64)) } else { String::new() };
    let line = |address| {
        if address == 0 { String::new() } else { arguments(&text(physical, address), &loader) }
    };
    let command_line = if flags & 1 << 2 != 0 { line(word(header, 16)) } else { String::new() };
    let mut information = BootInformation { command_line, ..BootInformation::default() };
    if flags & 1 << 3 != 0 {
        let (count, list) = (word(header, 20).min(64), u64::from(word(header, 24)));
        for index in 0..u64::from(count) {
            let entry = physical(list + index * 16, 16);
            information.modules.push(Module {
                start: word(entry, 0).into(),
                end: word(entry, 4).into(),
                arguments: line(word(entry, 8)),
            });
        }
    }
    if flags & 1 << 6 != 0 {
        let map = physical(word(header, 48).into(), word(header, 44) as usize);
        information.memory = memory_map_first(map);
    }
    information
}

fn memory_map_first(mut map: &[u8]) -> Vec<MemoryRange> {
    let mut ranges = Vec::new();
    while map.len() >= 24 {
        ranges.push(MemoryRange { start: long(map, 4), length: long(map, 12), kind: word(map, 20) });
        let size = word(map, 0) as usize + 4;
        map = map.get(size..).unwrap_or(&[]);
    }
    ranges
}

fn read_second(address: u64, physical: Physical<'_>) -> BootInformation {
    let size = word(physical(address, 8), 0) as usize;
    let mut tags = physical(address, size).get(8..).unwrap_or(&[]);
    let mut information = BootInformation::default();
    while tags.len() >= 8 {
        let (kind, length) = (word(tags, 0), word(tags, 4) as usize);
        let Some(tag) = tags.get(8..length) else {
            break;
        };
        match kind {
            0 => break,
            1 => information.command_line = string(tag),
            3 => information.modules.push(Module {
                start: word(tag, 0).into(),
                end: word(tag, 4).into(),
                arguments: string(tag.get(8..).unwrap_or(&[])),
            }),
            6 => information.memory = memory_map_second(tag),
            14 | 15 => information.acpi_root = Some(tag.to_vec()),
            _ => {}
        }
        tags = tags.get(length.next_multiple_of(8)..).unwrap_or(&[]);
    }
    information
}

fn memory_map_second(tag: &[u8]) -> Vec<MemoryRange> {
    let size = (word(tag, 0) as usize).max(24);
    tag.get(8..)
        .unwrap_or(&[])
        .chunks_exact(size)
        .map(|entry| MemoryRange { start: long(entry, 0), length: long(entry, 8), kind: word(entry, 16) })
        .collect()
}

fn arguments(line: &str, loader: &str) -> String {
    String::from(without_image_name(line, loader))
}

fn text(physical: Physical<'_>, address: u32) -> String {
    string(physical(address.into(), 4096))
}

fn string(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|&byte| byte == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end]).into_owned()
}

/// The 32-bit number at `offset`, or zero past the end.
pub(crate) fn word(bytes: &[u8], offset: usize) -> u32 {
    bytes.get(offset..offset + 4).and_then(|four| four.try_into().ok()).map_or(0, u32::from_le_bytes)
}

/// The 64-bit number at `offset`, or zero past the end.
pub(crate) fn long(bytes: &[u8], offset: usize) -> u64 {
    bytes.get(offset..offset + 8).and_then(|eight| eight.try_into().ok()).map_or(0, u64::from_le_bytes)
}
