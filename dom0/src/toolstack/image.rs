//! A guest's kernel: checked, cut into the pieces that go to memory.
//!
//! Pieces go where their physical address says; virtual addresses may lie (Linux has a segment at 0).

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt;

use elf::ElfBytes;
use elf::abi::{EM_X86_64, ET_DYN, ET_EXEC, PT_LOAD};
use elf::endian::LittleEndian;
use elf::file::Class;

use super::control::GuestKind;
use super::notes::Notes;

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
    pub fn parse(bytes: &'a [u8], kind: GuestKind) -> Result<Self, ImageError> {
        let file = ElfBytes::<LittleEndian>::minimal_parse(bytes).map_err(|error| elf_error(bytes, &error))?;
        let header = &file.ehdr;
        if header.class != Class::ELF64 || header.e_machine != EM_X86_64 || !matches!(header.e_type, ET_EXEC | ET_DYN) {
            return Err(ImageError("it is no 64-bit x86 program: only 64-bit kernels can be started".into()));
        }
        let notes = Notes::read(&file, kind).map_err(ImageError)?;
        // Without paging all addresses are physical.
        let (paddr_base, virt_base) = match kind {
            GuestKind::Pv => (notes.paddr_base(), notes.virt_base),
            GuestKind::Pvh | GuestKind::Hvm => (0, 0),
        };
        let pieces = pieces(&file, paddr_base)?;
        let start = pieces.iter().map(|piece| piece.start).min();
        let end = pieces.iter().map(|piece| piece.start + piece.len).max();
        let (Some(start), Some(end)) = (start, end) else {
            return Err(ImageError("it has nothing to load: its ELF header lists no PT_LOAD segment".into()));
        };
        let entry = match kind {
            GuestKind::Pv => notes.entry.unwrap_or(header.e_entry),
            GuestKind::Pvh => notes.phys_entry.unwrap_or(header.e_entry),
            // Linux's own entry is that of its file.
            GuestKind::Hvm if notes.guest_os == "linux" => header.e_entry,
            GuestKind::Hvm => notes.phys_entry.ok_or_else(no_protocol)?,
        };
        if !(start..=end).contains(&entry.wrapping_sub(virt_base)) {
            return Err(ImageError(format!("its entry {entry:#x} is outside of the image: check its ELF notes")));
        }
        Ok(Self { pieces, start, end, entry, notes })
    }
}

fn no_protocol() -> ImageError {
    ImageError("it has no entry for a start without firmware: build it with PVH support (Linux: CONFIG_PVH=y)".into())
}

fn elf_error(bytes: &[u8], error: &elf::parse::ParseError) -> ImageError {
    let what = if bytes.get(..4) == Some(b"\x7fELF") {
        format!("its ELF header is damaged or cut off ({error}): copy the file again")
    } else {
        "it is no ELF image, packed or not, and no bzImage: name a kernel with Xen PV support".to_string()
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
