//! A guest's kernel file: unpacked, checked, cut into the pieces that go to memory.
//!
//! Taken are ELF images, ELF images packed with gzip, and Linux bzImages whose payload is packed with gzip or xz.
//! Pieces go where their physical address says; virtual addresses may lie (Linux has a segment at 0).

use alloc::borrow::Cow;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt;

use elf::ElfBytes;
use elf::abi::{EM_X86_64, ET_DYN, ET_EXEC, PT_LOAD};
use elf::endian::LittleEndian;
use elf::file::Class;

use super::notes::Notes;

/// Most bytes an unpacked kernel may have; it bounds what a small file can make of itself.
const UNPACKED_MAX: usize = 256 << 20;

/// Why a kernel cannot be started: one phrase with the cure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageError(pub String);

impl fmt::Display for ImageError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.0)
    }
}

impl core::error::Error for ImageError {}

/// A piece of the kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece<'a> {
    /// Where it begins, in bytes from the guest's frame 0.
    pub start: u64,
    /// Its length in memory; what the file does not give is zero.
    pub len: u64,
    /// What the file gives.
    pub bytes: &'a [u8],
}

/// A kernel that can be loaded.
#[derive(Clone, Debug)]
pub struct Kernel<'a> {
    /// What goes to memory.
    pub pieces: Vec<Piece<'a>>,
    /// First byte, from the guest's frame 0.
    pub start: u64,
    /// Byte after the last one.
    pub end: u64,
    /// Address of the first instruction.
    pub entry: u64,
    /// What it says about itself.
    pub notes: Notes,
}

impl<'a> Kernel<'a> {
    /// Reads an unpacked kernel.
    ///
    /// # Errors
    /// What makes it unusable.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, ImageError> {
        let file = ElfBytes::<LittleEndian>::minimal_parse(bytes).map_err(|error| elf_error(bytes, &error))?;
        let header = &file.ehdr;
        if header.class != Class::ELF64 || header.e_machine != EM_X86_64 || !matches!(header.e_type, ET_EXEC | ET_DYN) {
            return Err(ImageError("it is no 64-bit x86 program: only 64-bit PV kernels can be started".into()));
        }
        let notes = Notes::read(&file).map_err(ImageError)?;
        let pieces = pieces(&file, notes.paddr_base())?;
        let start = pieces.iter().map(|piece| piece.start).min();
        let end = pieces.iter().map(|piece| piece.start + piece.len).max();
        let (Some(start), Some(end)) = (start, end) else {
            return Err(ImageError("it has nothing to load: its ELF header lists no PT_LOAD segment".into()));
        };
        let entry = notes.entry.unwrap_or(header.e_entry);
        if !(start..=end).contains(&entry.wrapping_sub(notes.virt_base)) {
            return Err(ImageError(format!("its entry {entry:#x} is outside of the image: check its ELF notes")));
        }
        Ok(Self { pieces, start, end, entry, notes })
    }
}

fn elf_error(bytes: &[u8], error: &elf::parse::ParseError) -> ImageError {
    let what = if bytes.get(..4) == Some(b"\x7fELF") {
        format!("its ELF header is damaged or cut off ({error}): copy the file again")
    } else {
        "it is no ELF image, gzip'd ELF image or bzImage: name a kernel with Xen PV support".to_string()
    };
    ImageError(what)
}

fn pieces<'a>(file: &ElfBytes<'a, LittleEndian>, base: u64) -> Result<Vec<Piece<'a>>, ImageError> {
    let segments = file.segments().into_iter().flatten();
    let loaded = segments.filter(|segment| segment.p_type == PT_LOAD && segment.p_memsz > 0);
    loaded
        .map(|segment| {
            let bytes = file
                .segment_data(&segment)
                .map_err(|_| ImageError("it is cut off: a segment ends behind the file, copy it again".into()))?;
            let start = segment.p_paddr.checked_sub(base);
            let end = start.and_then(|start| start.checked_add(segment.p_memsz)).filter(|end| *end < 1 << 40);
            match (start, end) {
                (Some(start), Some(_)) if segment.p_memsz >= segment.p_filesz => {
                    Ok(Piece { start, len: segment.p_memsz, bytes })
                }
                _ => Err(ImageError(format!(
                    "a segment at {:#x} cannot be placed: its ELF headers are wrong",
                    segment.p_paddr
                ))),
            }
        })
        .collect()
}

/// Unpacks a kernel file to the ELF image in it.
///
/// # Errors
/// A packing that is not known, or that is damaged.
pub fn unpack(file: &[u8]) -> Result<Cow<'_, [u8]>, ImageError> {
    let payload = bzimage_payload(file)?.unwrap_or(file);
    match payload {
        [0x1f, 0x8b, ..] => gunzip(payload).map(Cow::Owned),
        [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => unxz(payload).map(Cow::Owned),
        [0x28, 0xb5, 0x2f, 0xfd, ..] => Err(packing("zstd")),
        [0x02, 0x21, 0x4c, 0x18, ..] => Err(packing("lz4")),
        [b'B', b'Z', b'h', ..] => Err(packing("bzip2")),
        [0x5d, 0, 0, ..] => Err(packing("lzma")),
        [0x89, b'L', b'Z', b'O', ..] => Err(packing("lzo")),
        _ => Ok(Cow::Borrowed(payload)),
    }
}

fn packing(name: &str) -> ImageError {
    ImageError(format!("it is packed with {name}: pack it with gzip or xz, or give the unpacked ELF image"))
}

/// The packed kernel inside a Linux bzImage, or none if the file is none.
fn bzimage_payload(file: &[u8]) -> Result<Option<&[u8]>, ImageError> {
    if file.get(0x202..0x206) != Some(b"HdrS") {
        return Ok(None);
    }
    let word = |at: usize| {
        let bytes = file.get(at..at + 4)?;
        Some(u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]) as usize)
    };
    let cut_off = || ImageError("the bzImage is cut off: copy the file again".into());
    let setup_sectors = match file.get(0x1f1).copied().ok_or_else(cut_off)? {
        0 => 4,
        sectors => usize::from(sectors),
    };
    let (offset, length) = (word(0x248).ok_or_else(cut_off)?, word(0x24c).ok_or_else(cut_off)?);
    let start = (setup_sectors + 1) * 512 + offset;
    file.get(start..start + length).map(Some).ok_or_else(cut_off)
}

fn gunzip(packed: &[u8]) -> Result<Vec<u8>, ImageError> {
    let damaged = || ImageError("its gzip data is damaged or cut off: copy the file again".into());
    let body = gzip_body(packed).ok_or_else(damaged)?;
    miniz_oxide::inflate::decompress_to_vec_with_limit(body, UNPACKED_MAX).map_err(|_| damaged())
}

/// The deflate stream behind a gzip header (RFC 1952).
fn gzip_body(packed: &[u8]) -> Option<&[u8]> {
    const EXTRA: u8 = 4;
    const NAME: u8 = 8;
    const COMMENT: u8 = 16;
    const CHECK: u8 = 2;
    let flags = *packed.get(3)?;
    let mut rest = packed.get(10..)?;
    if flags & EXTRA != 0 {
        let len = usize::from(u16::from_le_bytes([*rest.first()?, *rest.get(1)?]));
        rest = rest.get(2 + len..)?;
    }
    for text in [NAME, COMMENT] {
        if flags & text != 0 {
            rest = rest.get(rest.iter().position(|byte| *byte == 0)? + 1..)?;
        }
    }
    if flags & CHECK != 0 {
        rest = rest.get(2..)?;
    }
    Some(rest)
}

fn unxz(packed: &[u8]) -> Result<Vec<u8>, ImageError> {
    use lzma_rust2::{Read, XzReader};
    let mut reader = XzReader::new(packed, false);
    let mut out = Vec::new();
    let mut chunk = alloc::vec![0; 1 << 16];
    loop {
        let count = reader
            .read(&mut chunk)
            .map_err(|_| ImageError("its xz data is damaged or cut off: copy the file again".into()))?;
        if count == 0 {
            return Ok(out);
        }
        if out.len() + count > UNPACKED_MAX {
            return Err(ImageError("it unpacks to more than 256 MiB: give a smaller kernel".into()));
        }
        out.extend_from_slice(&chunk[..count]);
    }
}
