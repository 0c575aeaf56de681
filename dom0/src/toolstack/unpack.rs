//! Packed kernels: gzip, xz, zstd and lz4, bare or inside a Linux bzImage.
//!
//! Invariant: what a small file makes of itself is bounded, and every buffer whose size the file decides is asked for
//! before it is taken, so that a kernel too large for this domain is an error and not its end.
//!
//! Source: Linux `Documentation/arch/x86/boot.rst`; RFC 1952; RFC 8878 §3.1.1.1; LZ4 "legacy frame" format.

use alloc::borrow::Cow;
use alloc::format;
use alloc::vec::Vec;

use super::image::ImageError;

/// Most bytes an unpacked kernel may have.
const UNPACKED_MAX: usize = 256 << 20;
/// How far back an xz file may reach at most; Linux's own reach 128 MiB.
const XZ_REACH_MAX: usize = 192 << 20;
/// Bytes that one step unpacks.
const STEP_BYTES: usize = 1 << 16;
/// Most bytes that a block of lz4's legacy format unpacks to.
const LZ4_BLOCK_MAX: usize = 8 << 20;

/// Unpacks a kernel file to the ELF image in it.
///
/// # Errors
/// A packing that is not known, or that is damaged.
pub fn unpack(file: &[u8]) -> Result<Cow<'_, [u8]>, ImageError> {
    unpack_within(file, UNPACKED_MAX)
}

/// The same, for at most so many unpacked bytes.
///
/// # Errors
/// As [`unpack`].
pub fn unpack_within(file: &[u8], most: usize) -> Result<Cow<'_, [u8]>, ImageError> {
    let inside = bzimage_payload(file)?;
    let payload = inside.unwrap_or(file);
    let out = Unpacked::with_room(inside.and_then(length_behind), most)?;
    match payload {
        [0x1f, 0x8b, ..] => gunzip(payload, out).map(Cow::Owned),
        [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => unxz(payload, out).map(Cow::Owned),
        [0x28, 0xb5, 0x2f, 0xfd, ..] => unzstd(payload, out).map(Cow::Owned),
        [0x02, 0x21, 0x4c, 0x18, blocks @ ..] => unlz4(blocks, out).map(Cow::Owned),
        [b'B', b'Z', b'h', ..] => Err(unknown("bzip2")),
        [0x5d, 0, 0, ..] => Err(unknown("lzma")),
        [0x89, b'L', b'Z', b'O', ..] => Err(unknown("lzo")),
        _ => Ok(Cow::Borrowed(payload)),
    }
}

fn unknown(packing: &str) -> ImageError {
    ImageError(format!(
        "it is packed with {packing}: pack it with gzip, xz, zstd or lz4, or give the unpacked ELF image"
    ))
}

fn damaged(packing: &str) -> ImageError {
    ImageError(format!("its {packing} data is damaged or cut off: copy the file again"))
}

fn too_large(most: usize) -> ImageError {
    ImageError(format!("it unpacks to more than {} MiB: give a smaller one", most >> 20))
}

/// Makes sure that so many bytes can be had.
fn room(bytes: usize) -> Result<(), ImageError> {
    let mut probe = Vec::<u8>::new();
    probe.try_reserve_exact(bytes).map_err(|_| no_room(bytes))
}

fn no_room(bytes: usize) -> ImageError {
    ImageError(format!("unpacking it takes {} MiB that dom0 does not have: raise dom0_mem=", bytes.div_ceil(1 << 20)))
}

/// What has been unpacked so far.
struct Unpacked {
    bytes: Vec<u8>,
    most: usize,
}

impl Unpacked {
    /// With room for so many bytes, where it is known, so that nothing is moved while it grows.
    fn with_room(len: Option<usize>, most: usize) -> Result<Self, ImageError> {
        let mut bytes = Vec::new();
        let len = len.filter(|len| *len <= most).unwrap_or(0);
        bytes.try_reserve_exact(len).map_err(|_| no_room(len))?;
        Ok(Self { bytes, most })
    }

    fn add(&mut self, bytes: &[u8]) -> Result<(), ImageError> {
        if self.bytes.len() + bytes.len() > self.most {
            return Err(too_large(self.most));
        }
        self.bytes.try_reserve(bytes.len()).map_err(|_| no_room(2 * self.bytes.len()))?;
        self.bytes.extend_from_slice(bytes);
        Ok(())
    }
}

/// The unpacked length, which Linux's build puts behind a payload.
fn length_behind(payload: &[u8]) -> Option<usize> {
    let (_, len) = payload.split_last_chunk::<4>()?;
    usize::try_from(u32::from_le_bytes(*len)).ok()
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

fn gunzip(packed: &[u8], mut out: Unpacked) -> Result<Vec<u8>, ImageError> {
    use miniz_oxide::inflate::stream::{InflateState, inflate};
    use miniz_oxide::{DataFormat, MZFlush, MZStatus};
    let mut body = gzip_body(packed).ok_or_else(|| damaged("gzip"))?;
    let mut state = InflateState::new_boxed(DataFormat::Raw);
    let mut step = alloc::vec![0; STEP_BYTES];
    loop {
        let done = inflate(&mut state, body, &mut step, MZFlush::None);
        out.add(&step[..done.bytes_written])?;
        body = &body[done.bytes_consumed..];
        match done.status {
            Ok(MZStatus::StreamEnd) => return Ok(out.bytes),
            Ok(_) if done.bytes_written + done.bytes_consumed > 0 => {}
            _ => return Err(damaged("gzip")),
        }
    }
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

fn unxz(packed: &[u8], mut out: Unpacked) -> Result<Vec<u8>, ImageError> {
    use lzma_rust2::{Read, XzReader};
    // What each block reaches back is taken at once, and the block says how far.
    let reach = (0..16).map(|halved| XZ_REACH_MAX >> halved).find(|reach| room(*reach).is_ok()).unwrap_or(0);
    let mut reader = XzReader::new_mem_limit(packed, false, (reach >> 10) as u32);
    let mut step = alloc::vec![0; STEP_BYTES];
    loop {
        match reader.read(&mut step).map_err(|error| xz_problem(&error, reach))? {
            0 => return Ok(out.bytes),
            count => out.add(&step[..count])?,
        }
    }
}

/// The library's error type is another one with its `std`, but both show this kind by its name.
fn xz_problem(error: &impl core::fmt::Debug, reach: usize) -> ImageError {
    if format!("{error:?}").contains("OutOfMemory") {
        let mib = reach >> 20;
        return ImageError(format!(
            "its xz data reaches back farther than the {mib} MiB that dom0 has: raise dom0_mem="
        ));
    }
    damaged("xz")
}

fn unzstd(packed: &[u8], mut out: Unpacked) -> Result<Vec<u8>, ImageError> {
    use ruzstd::decoding::StreamingDecoder;
    use ruzstd::io::Read;
    // The decoder takes its window at once.
    room(zstd_window(packed).ok_or_else(|| damaged("zstd"))?)?;
    let mut reader = StreamingDecoder::new(packed).map_err(|_| damaged("zstd"))?;
    let mut step = alloc::vec![0; STEP_BYTES];
    loop {
        match reader.read(&mut step).map_err(|_| damaged("zstd"))? {
            0 => return Ok(out.bytes),
            count => out.add(&step[..count])?,
        }
    }
}

/// How far back a zstd frame reaches, in bytes.
fn zstd_window(packed: &[u8]) -> Option<usize> {
    const SINGLE_SEGMENT: u8 = 1 << 5;
    let descriptor = *packed.get(4)?;
    if descriptor & SINGLE_SEGMENT == 0 {
        let window = *packed.get(5)?;
        let base = 1_usize.checked_shl(u32::from(10 + (window >> 3)))?;
        return Some(base + base / 8 * usize::from(window & 7));
    }
    let dictionary = [0, 1, 2, 4][usize::from(descriptor & 3)];
    let len = [1, 2, 4, 8][usize::from(descriptor >> 6)];
    let bytes = packed.get(5 + dictionary..5 + dictionary + len)?;
    let size = bytes.iter().rev().fold(0_u64, |size, byte| size << 8 | u64::from(*byte));
    usize::try_from(size).ok()
}

/// Unpacks the blocks of lz4's legacy frame. Linux puts the unpacked length behind the last one.
fn unlz4(mut blocks: &[u8], mut out: Unpacked) -> Result<Vec<u8>, ImageError> {
    let mut step = Vec::new();
    step.try_reserve_exact(LZ4_BLOCK_MAX).map_err(|_| no_room(LZ4_BLOCK_MAX))?;
    step.resize(LZ4_BLOCK_MAX, 0);
    while let Some((len, rest)) = blocks.split_first_chunk::<4>() {
        let len = u32::from_le_bytes(*len) as usize;
        if rest.is_empty() && len == out.bytes.len() {
            break;
        }
        let block = rest.get(..len).ok_or_else(|| damaged("lz4"))?;
        let count = lz4_flex::block::decompress_into(block, &mut step).map_err(|_| damaged("lz4"))?;
        out.add(&step[..count])?;
        blocks = &rest[len..];
    }
    if out.bytes.is_empty() { Err(damaged("lz4")) } else { Ok(out.bytes) }
}
