//! What a kernel says about itself: Xen's ELF notes, or the older `__xen_guest` text.
//!
//! Notes are looked for in the note segments, then in the note sections, then as text. Words: *virtual base* is where
//! the guest's frame 0 is mapped at the start; *physical offset* is what the file's physical addresses begin at.
//!
//! Source: Xen `public/elfnote.h`.

use alloc::format;
use alloc::string::String;

use elf::ElfBytes;
use elf::abi::{PT_NOTE, SHT_NOTE};
use elf::endian::LittleEndian;

use super::control::GuestKind;

/// The name all of Xen's notes carry.
const XEN: &[u8] = b"Xen\0";

/// What the builder needs of the notes.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Notes {
    /// First instruction.
    pub entry: Option<u64>,
    /// Where frame 0 is mapped.
    pub virt_base: u64,
    /// Physical address in the file that stands for frame 0.
    pub paddr_offset: Option<u64>,
    /// Where the kernel wants its list of machine frames.
    pub init_p2m: Option<u64>,
    /// Address of the page to fill with hypercall stubs.
    pub hypercall_page: Option<u64>,
    /// The kernel finds its ramdisk by frame number, so that it need not be mapped.
    pub mod_start_pfn: bool,
    /// Features the kernel cannot do without (`!name`).
    pub required_features: String,
    /// The kernel's name for itself.
    pub guest_os: String,
    loader: String,
    xen_version: String,
    legacy: bool,
    /// Where it can be entered without paging, as a PVH guest is: a physical address.
    pub phys_entry: Option<u64>,
}

/// Features a kernel may require: what every hypervisor with Xen's interface gives a PV guest or a kernel lives without.
const GIVEN_FEATURES: [&str; 8] = [
    "writable_page_tables",
    "writable_descriptor_tables",
    "auto_translated_physmap",
    "supervisor_mode_kernel",
    "pae_pgdir_above_4gb",
    "mmu_pt_update_preserve_ad",
    "gnttab_map_avail_bits",
    "dom0",
];

impl Notes {
    /// Reads the notes of a kernel.
    ///
    /// # Errors
    /// One phrase: there are none, or they ask for what is not there.
    pub fn read(file: &ElfBytes<'_, LittleEndian>, kind: GuestKind) -> Result<Self, String> {
        let mut notes = Self::default();
        let found = notes.take_segments(file) || notes.take_sections(file) || notes.take_legacy(file);
        if !found && kind != GuestKind::Hvm {
            return Err("it has no Xen ELF notes: build it with Xen PV support (Linux: CONFIG_XEN_PV=y)".into());
        }
        match kind {
            GuestKind::Pv => notes.check()?,
            GuestKind::Pvh => notes.check_pvh()?,
            // Other protocols may start it.
            GuestKind::Hvm => {}
        }
        Ok(notes)
    }

    /// The physical address that stands for the guest's frame 0.
    pub fn paddr_base(&self) -> u64 {
        self.paddr_offset.unwrap_or(if self.legacy { self.virt_base } else { 0 })
    }

    fn take_segments(&mut self, file: &ElfBytes<'_, LittleEndian>) -> bool {
        let segments = file.segments().into_iter().flatten().filter(|segment| segment.p_type == PT_NOTE);
        let data = segments.filter_map(|segment| file.segment_data(&segment).ok());
        data.map(|bytes| self.take_all(bytes)).filter(|found| *found).count() > 0
    }

    fn take_sections(&mut self, file: &ElfBytes<'_, LittleEndian>) -> bool {
        let sections = file.section_headers().into_iter().flatten().filter(|section| section.sh_type == SHT_NOTE);
        let data = sections.filter_map(|section| file.section_data(&section).ok());
        data.map(|(bytes, _)| self.take_all(bytes)).filter(|found| *found).count() > 0
    }

    fn take_legacy(&mut self, file: &ElfBytes<'_, LittleEndian>) -> bool {
        let Ok(Some(section)) = file.section_header_by_name("__xen_guest") else {
            return false;
        };
        let Ok((bytes, _)) = file.section_data(&section) else {
            return false;
        };
        let text = bytes.split(|byte| *byte == 0).next().unwrap_or(&[]);
        let Ok(text) = core::str::from_utf8(text) else {
            return false;
        };
        self.legacy = true;
        text.split(',').filter_map(|pair| pair.split_once('=')).for_each(|(key, value)| self.take_text(key, value));
        true
    }

    fn take_text(&mut self, key: &str, value: &str) {
        let number = parse_number(value);
        match key {
            "LOADER" => self.loader = value.into(),
            "GUEST_OS" => self.guest_os = value.into(),
            "XEN_VER" => self.xen_version = value.into(),
            "VIRT_BASE" => self.virt_base = number.unwrap_or(0),
            "VIRT_ENTRY" => self.entry = number,
            "ELF_PADDR_OFFSET" => self.paddr_offset = number,
            // Given as a page number of the image.
            "HYPERCALL_PAGE" => self.hypercall_page = number.map(|page| self.virt_base.wrapping_add(page << 12)),
            "FEATURES" => self.required_features = value.into(),
            _ => {}
        }
    }

    /// Takes every note in `bytes`; whether one of them was Xen's.
    fn take_all(&mut self, bytes: &[u8]) -> bool {
        let mut rest = bytes;
        let mut found = false;
        while let Some((note, after)) = next_note(rest) {
            if note.name == XEN {
                self.take(note.kind, note.value);
                found = true;
            }
            rest = after;
        }
        found
    }

    fn take(&mut self, kind: u32, value: &[u8]) {
        let text = || String::from_utf8_lossy(value).trim_end_matches('\0').into();
        let number = || number(value);
        match kind {
            1 => self.entry = number(),
            2 => self.hypercall_page = number(),
            3 => self.virt_base = number().unwrap_or(0),
            4 => self.paddr_offset = number(),
            5 => self.xen_version = text(),
            6 => self.guest_os = text(),
            8 => self.loader = text(),
            10 => self.required_features = text(),
            15 => self.init_p2m = number(),
            16 => self.mod_start_pfn = number().is_some_and(|flag| flag & 1 != 0),
            18 => self.phys_entry = number(),
            _ => {}
        }
    }

    fn check_pvh(&self) -> Result<(), String> {
        match self.phys_entry {
            Some(_) => Ok(()),
            None => {
                Err("it has no PVH entry: build it with PVH support (Linux: CONFIG_PVH=y), or leave type = \"pvh\" \
                         out"
                .into())
            }
        }
    }

    fn check(&mut self) -> Result<(), String> {
        if self.phys_entry.is_some() && self.entry.is_none() && self.virt_base == 0 {
            return Err("its Xen ELF notes are those of a PVH guest alone: build it with Xen PV support (Linux: \
                        CONFIG_XEN_PV=y), or write type = \"pvh\""
                .into());
        }
        if self.loader != "generic" && self.guest_os != "linux" {
            return Err(format!("its note LOADER is \"{}\": only \"generic\" can be loaded", self.loader));
        }
        if !self.xen_version.is_empty() && !self.xen_version.starts_with("xen-3.0") {
            return Err(format!("its note XEN_VERSION is \"{}\": only xen-3.0 is served", self.xen_version));
        }
        let required = self.required_features.split('|').filter_map(|feature| feature.strip_prefix('!'));
        if let Some(unknown) = required.clone().find(|feature| !GIVEN_FEATURES.contains(feature)) {
            return Err(format!("it requires the feature \"{unknown}\", which PV guests do not have"));
        }
        let usable = |base: &u64| base.is_multiple_of(4096) && (self.virt_base == 0 || *base < self.virt_base);
        self.init_p2m = self.init_p2m.filter(usable);
        Ok(())
    }
}

struct Note<'a> {
    kind: u32,
    name: &'a [u8],
    value: &'a [u8],
}

/// The first note of `bytes` and what follows. Names and values are padded to 4 bytes, whatever the segment says.
fn next_note(bytes: &[u8]) -> Option<(Note<'_>, &[u8])> {
    let word = |at: usize| bytes.get(at..at + 4).and_then(number).and_then(|word| usize::try_from(word).ok());
    let (name_len, value_len, kind) = (word(0)?, word(4)?, word(8)?);
    let name = bytes.get(12..12_usize.checked_add(name_len)?)?;
    let value_at = 12 + name_len.checked_next_multiple_of(4)?;
    let value = bytes.get(value_at..value_at.checked_add(value_len)?)?;
    let after = value_at.checked_add(value_len.checked_next_multiple_of(4)?)?.min(bytes.len());
    Some((Note { kind: u32::try_from(kind).ok()?, name, value }, &bytes[after..]))
}

/// A little-endian number of 1 to 8 bytes.
fn number(bytes: &[u8]) -> Option<u64> {
    let short = (1..=8).contains(&bytes.len());
    short.then(|| bytes.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte)))
}

fn parse_number(text: &str) -> Option<u64> {
    match text.strip_prefix("0x") {
        Some(hex) => u64::from_str_radix(hex, 16).ok(),
        None => text.parse().ok(),
    }
}
