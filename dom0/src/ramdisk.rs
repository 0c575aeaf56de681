//! The files that came with this domain: a cpio archive in the "newc" form, packed with gzip or not.
//!
//! Source: Linux `Documentation/driver-api/early-userspace/buffer-format.rst`.

use alloc::borrow::Cow;
use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::{String, ToString};

use crate::toolstack::unpack;

const HEADER_BYTES: usize = 110;
/// Fields are eight hexadecimal digits; these are their places.
const FIELD_MODE: usize = 1;
const FIELD_SIZE: usize = 6;
const FIELD_NAME_SIZE: usize = 11;
const MODE_KIND: u32 = 0o170_000;
const MODE_FILE: u32 = 0o100_000;

/// The files of an archive by absolute name.
#[derive(Clone, Debug, Default)]
pub struct Ramdisk<'a> {
    files: BTreeMap<String, &'a [u8]>,
}

impl<'a> Ramdisk<'a> {
    /// Unpacks an archive that may be packed with gzip.
    ///
    /// # Errors
    /// One line: the packing is damaged or not known.
    pub fn unpack(bytes: &[u8]) -> Result<Cow<'_, [u8]>, String> {
        unpack::unpack(bytes).map_err(|error| format!("the ramdisk cannot be read: {error}"))
    }

    /// Lists the files of an archive.
    ///
    /// # Errors
    /// One line: it is no archive, or it is cut off.
    pub fn parse(archive: &'a [u8]) -> Result<Self, String> {
        let mut files = BTreeMap::new();
        let mut rest = archive;
        loop {
            let padding = rest.iter().take_while(|byte| **byte == 0).count();
            rest = &rest[padding..];
            if rest.is_empty() {
                return Ok(Self { files });
            }
            let (entry, after) = Entry::read(rest).ok_or_else(|| {
                let at = archive.len() - rest.len();
                format!("the ramdisk is damaged at byte {at}: make it with find | cpio -o -H newc")
            })?;
            if entry.mode & MODE_KIND == MODE_FILE {
                files.insert(absolute(entry.name), entry.bytes);
            }
            rest = after;
        }
    }

    /// The content of a file, by absolute or relative name.
    pub fn file(&self, name: &str) -> Option<&'a [u8]> {
        self.files.get(&absolute(name)).copied()
    }

    /// The files directly in a folder, in order of their names.
    pub fn folder<'s>(&'s self, folder: &'s str) -> impl Iterator<Item = (&'s str, &'a [u8])> {
        let inside = move |name: &str| {
            name.strip_prefix(folder).and_then(|rest| rest.strip_prefix('/')).is_some_and(|rest| !rest.contains('/'))
        };
        self.files.iter().filter(move |(name, _)| inside(name)).map(|(name, bytes)| (name.as_str(), *bytes))
    }

    /// The names of all files.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.files.keys().map(String::as_str)
    }
}

fn absolute(name: &str) -> String {
    let name = name.trim_start_matches("./").trim_start_matches('/');
    format!("/{name}").to_string()
}

struct Entry<'a> {
    name: &'a str,
    mode: u32,
    bytes: &'a [u8],
}

impl<'a> Entry<'a> {
    fn read(archive: &'a [u8]) -> Option<(Self, &'a [u8])> {
        let header = archive.get(..HEADER_BYTES)?;
        if !matches!(&header[..6], b"070701" | b"070702") {
            return None;
        }
        let field = |place: usize| {
            let digits = core::str::from_utf8(&header[6 + place * 8..14 + place * 8]).ok()?;
            u32::from_str_radix(digits, 16).ok()
        };
        let name_end = HEADER_BYTES.checked_add(field(FIELD_NAME_SIZE)? as usize)?;
        let name = archive.get(HEADER_BYTES..name_end)?.strip_suffix(&[0])?;
        let start = name_end.next_multiple_of(4);
        let end = start.checked_add(field(FIELD_SIZE)? as usize)?;
        let bytes = archive.get(start..end)?;
        let name = core::str::from_utf8(name).ok()?;
        let after = if name == "TRAILER!!!" { archive.len() } else { end.next_multiple_of(4).min(archive.len()) };
        Some((Self { name, mode: field(FIELD_MODE)?, bytes }, &archive[after..]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec::Vec;

    fn archive(files: &[(&str, u32, &[u8])]) -> Vec<u8> {
        let mut out = Vec::new();
        for (name, mode, bytes) in files.iter().copied().chain([("TRAILER!!!", 0, b"".as_slice())]) {
            let fields = [0, mode, 0, 0, 1, 0, bytes.len() as u32, 0, 0, 0, 0, name.len() as u32 + 1, 0];
            out.extend(b"070701");
            fields.iter().for_each(|field| out.extend(format!("{field:08x}").bytes()));
            out.extend(name.bytes());
            out.push(0);
            out.resize(out.len().next_multiple_of(4), 0);
            out.extend(bytes);
            out.resize(out.len().next_multiple_of(4), 0);
        }
        out
    }

    #[test]
    fn files_are_found_by_name_and_by_folder() {
        let bytes = archive(&[
            ("guests", 0o40755, b""),
            ("guests/b.toml", 0o100_644, b"bb"),
            ("./guests/a.toml", 0o100_644, b"a"),
            ("boot/demo", 0o100_755, b"ELF"),
        ]);
        let ramdisk = Ramdisk::parse(&bytes).expect("good");
        assert_eq!(ramdisk.file("/boot/demo"), Some(b"ELF".as_slice()));
        assert_eq!(ramdisk.file("boot/none"), None);
        let guests: Vec<_> = ramdisk.folder("/guests").collect();
        assert_eq!(guests, [("/guests/a.toml", b"a".as_slice()), ("/guests/b.toml", b"bb".as_slice())]);
    }

    #[test]
    fn an_archive_that_is_cut_off_is_named_so() {
        let bytes = archive(&[("a", 0o100_644, &[7; 100])]);
        let line = Ramdisk::parse(&bytes[..150]).expect_err("cut off");
        assert!(line.contains("damaged at byte 0"), "{line}");
        assert!(Ramdisk::parse(b"not an archive at all").is_err());
        assert!(Ramdisk::parse(&[]).expect("empty").names().next().is_none());
    }
}
