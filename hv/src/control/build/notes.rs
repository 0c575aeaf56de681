//! What a kernel's ELF notes say about how to start it.
//!
//! Notes stand in `PT_NOTE` segments, or in note sections, or (in kernels older than ELF notes) in a section
//! `__xen_guest` as text. Source: Xen's `public/elfnote.h`; abi-needs of Xen 4.17, §1.1.

use elf::ElfBytes;
use elf::endian::LittleEndian;
use elf::note::Note;
use pv_abi::elfnote as note;

use super::BuildError;

/// What a kernel says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Notes {
    /// Where to enter; the ELF header's entry where not said.
    pub(super) entry: Option<u64>,
    /// A page to fill with hypercall stubs.
    pub(super) hypercall_page: Option<u64>,
    /// The virtual address of the first frame.
    pub(super) virt_base: u64,
    /// What to take from a segment's physical address; the base where the kernel uses the old text.
    pub(super) paddr_offset: u64,
    /// Where it wants its list of frames.
    pub(super) init_p2m: Option<u64>,
    /// Its ramdisk may stay unmapped.
    pub(super) module_unmapped: bool,
    /// Its root tables may lie above 4 GiB; all may on x86-64, but the kernel is told what it said.
    pub(super) extended_cr3: bool,
    /// It says that it is for a Xen of version 3.0's ABI.
    version_fits: bool,
    /// It says that any loader will do, or that it is Linux.
    loader_fits: bool,
    /// There was any note at all.
    any: bool,
}

type File<'a> = ElfBytes<'a, LittleEndian>;

impl Notes {
    /// Reads a kernel's notes.
    ///
    /// # Errors
    /// [`BuildError::NoNotes`], [`BuildError::WrongVersion`], [`BuildError::WrongLoader`].
    pub(super) fn read(file: &File<'_>) -> Result<Self, BuildError> {
        let mut notes = Self::default();
        notes.take_segments(file);
        if !notes.any {
            notes.take_sections(file);
        }
        if !notes.any {
            notes.take_text(file);
        }
        match () {
            () if !notes.any => Err(BuildError::NoNotes),
            () if !notes.version_fits => Err(BuildError::WrongVersion),
            () if !notes.loader_fits => Err(BuildError::WrongLoader),
            () => Ok(notes),
        }
    }

    fn take_segments(&mut self, file: &File<'_>) {
        let Some(segments) = file.segments() else {
            return;
        };
        for segment in segments.iter().filter(|segment| segment.p_type == elf::abi::PT_NOTE) {
            // A segment's data is looked at with 4-byte alignment, as the notes of kernels have whatever it says.
            let segment = elf::segment::ProgramHeader { p_align: 4, ..segment };
            for one in file.segment_data_as_notes(&segment).into_iter().flatten() {
                self.take_note(&one);
            }
        }
    }

    fn take_sections(&mut self, file: &File<'_>) {
        let Some(sections) = file.section_headers() else {
            return;
        };
        for section in sections.iter().filter(|section| section.sh_type == elf::abi::SHT_NOTE) {
            let section = elf::section::SectionHeader { sh_addralign: 4, ..section };
            for one in file.section_data_as_notes(&section).into_iter().flatten() {
                self.take_note(&one);
            }
        }
    }

    fn take_note(&mut self, one: &Note<'_>) {
        let Note::Unknown(any) = one else { return };
        if any.name.strip_suffix(b"\0").unwrap_or(any.name) != b"Xen" {
            return;
        }
        self.any = true;
        let number = number(any.desc);
        let text = any.desc.split(|byte| *byte == 0).next().unwrap_or_default();
        match any.n_type as u32 {
            note::XEN_ELFNOTE_ENTRY => self.entry = number,
            note::XEN_ELFNOTE_HYPERCALL_PAGE => self.hypercall_page = number,
            note::XEN_ELFNOTE_VIRT_BASE => self.virt_base = number.unwrap_or(0),
            note::XEN_ELFNOTE_PADDR_OFFSET => self.paddr_offset = number.unwrap_or(0),
            note::XEN_ELFNOTE_INIT_P2M => self.init_p2m = number,
            note::XEN_ELFNOTE_MOD_START_PFN => self.module_unmapped = number == Some(1),
            note::XEN_ELFNOTE_PAE_MODE => self.extended_cr3 = text == b"yes",
            note::XEN_ELFNOTE_XEN_VERSION => self.version_fits = text.starts_with(b"xen-3.0"),
            note::XEN_ELFNOTE_LOADER => self.loader_fits |= text == b"generic",
            note::XEN_ELFNOTE_GUEST_OS => self.loader_fits |= text == b"linux",
            _ => {}
        }
    }

    /// The older form: `KEY=value,KEY=value` with addresses in hexadecimal, ended by a zero byte.
    fn take_text(&mut self, file: &File<'_>) {
        let Ok(Some(section)) = file.section_header_by_name("__xen_guest") else {
            return;
        };
        let Ok((data, _)) = file.section_data(&section) else {
            return;
        };
        let text = data.split(|byte| *byte == 0).next().unwrap_or_default();
        let Ok(text) = core::str::from_utf8(text) else {
            return;
        };
        let mut hypercall_page = None;
        let mut paddr_offset = None;
        for (key, value) in text.split(',').filter_map(|pair| pair.split_once('=')) {
            self.any = true;
            let number = value.strip_prefix("0x").and_then(|digits| u64::from_str_radix(digits, 16).ok());
            match key {
                "LOADER" => self.loader_fits |= value == "generic",
                "GUEST_OS" => self.loader_fits |= value == "linux",
                "XEN_VER" => self.version_fits = value.starts_with("xen-3.0"),
                "VIRT_BASE" => self.virt_base = number.unwrap_or(0),
                "VIRT_ENTRY" => self.entry = number,
                "ELF_PADDR_OFFSET" => paddr_offset = number,
                "HYPERCALL_PAGE" => hypercall_page = number,
                _ => {}
            }
        }
        self.paddr_offset = paddr_offset.unwrap_or(self.virt_base);
        self.hypercall_page = hypercall_page.map(|page| self.virt_base.wrapping_add(page << 12));
    }
}

/// A number of 1, 2, 4 or 8 bytes.
fn number(bytes: &[u8]) -> Option<u64> {
    match bytes.len() {
        1 | 2 | 4 | 8 => Some(bytes.iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte))),
        _ => None,
    }
}
