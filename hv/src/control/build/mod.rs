//! Building dom0: the one domain that the hypervisor makes by itself.
//!
//! Its kernel is an ELF file with Xen's notes, its ramdisk the frames that the loader put it in; it gets memory by
//! `dom0_mem`, page tables that are checked and pinned like any guest's, `start_info`, and one vCPU at the kernel's
//! entry. Whatever is wrong with what it is built from is one line, and nothing is left running. Source: abi-needs of
//! Xen 4.17, §1; Xen's `public/xen.h` (`struct start_info`), `public/elfnote.h`.

mod layout;
mod memory;
mod notes;
mod tables;
#[cfg(test)]
mod tests;

use alloc::boxed::Box;
use alloc::sync::Arc;
use core::fmt;
use core::ops::Range;
use core::sync::atomic::Ordering;

use elf::ElfBytes;
use elf::endian::LittleEndian;
use pv_abi::arch::{FLAT_KERNEL_CS, FLAT_KERNEL_SS};
use pv_abi::xen::{
    MAX_GUEST_CMDLINE, SIF_INITDOMAIN, SIF_MOD_START_PFN, SIF_PRIVILEGED, START_INFO_MAGIC, StartInfo,
    VMASST_TYPE_PAE_EXTENDED_CR3,
};
use pv_abi::{DomId, VcpuId, hypercall_page};
use zerocopy::{FromZeros, IntoBytes};

use self::layout::{Layout, Wishes};
use self::memory::Memory;
use self::notes::Notes;
use self::tables::Tables;
use crate::Hypervisor;
use crate::domain::{Domain, DomainConfig, add_vcpus, stopped};
use crate::frames::ClaimedMfn;
use crate::hardware::Machine;
use crate::paging;
use crate::refusal::Refusal;
use crate::registers::{ENTRY_FULL, Registers, flags};
use crate::{sched, time};

/// What the hypervisor keeps where the command line does not say how much dom0 gets, in frames: 128 MiB or a sixteenth.
const RESERVE: u64 = 128 << 8;

/// dom0's ramdisk: whole frames that hold it, which become dom0's.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ramdisk {
    /// The frames.
    pub frames: Range<u64>,
    /// How many bytes of them.
    pub len: u64,
}

/// What dom0 is built from.
#[derive(Clone, Debug)]
pub struct Dom0<'a> {
    /// The kernel's file.
    pub kernel: &'a [u8],
    /// Its command line.
    pub command_line: &'a str,
    /// Its ramdisk.
    pub ramdisk: Option<Ramdisk>,
}

/// Why dom0 could not be built.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BuildError {
    /// There is no kernel, or it is empty.
    NoKernel,
    /// It is compressed, by this.
    Compressed(&'static str),
    /// It is not an ELF file that can be loaded; what is wrong.
    NotLoadable(&'static str),
    /// It has no notes of Xen.
    NoNotes,
    /// Its notes are for another version of the ABI.
    WrongVersion,
    /// Its notes ask for a loader of its own.
    WrongLoader,
    /// An address in its notes lies outside of it; which.
    OutOfKernel(&'static str),
    /// It does not fit into its memory, in frames.
    TooLarge {
        /// What it takes.
        needs: u64,
        /// What it has.
        has: u64,
    },
    /// So many frames of memory are missing.
    NoMemory {
        /// How many.
        frames: u64,
    },
    /// A domain could not be made, or its tables did not pass.
    Refused(Refusal),
}

impl From<Refusal> for BuildError {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl fmt::Display for BuildError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mebibytes = |frames: &u64| (frames * 4096).div_ceil(1 << 20);
        match self {
            Self::NoKernel => f.write_str(
                "no dom0 kernel: give it as the first module (QEMU: -initrd \"KERNEL arguments,RAMDISK\", GRUB: module)",
            ),
            Self::Compressed(how) => {
                write!(f, "dom0's kernel is {how}: unpack it to its ELF file first (scripts/extract-vmlinux for Linux)")
            }
            Self::NotLoadable(why) => write!(f, "dom0's kernel is no 64-bit ELF file that can be loaded: {why}"),
            Self::NoNotes => f.write_str("dom0's kernel has no Xen ELF notes: build it as a Xen PV guest"),
            Self::WrongVersion => f.write_str("dom0's kernel is not for xen-3.0: its XEN_VERSION note must say so"),
            Self::WrongLoader => {
                f.write_str("dom0's kernel needs a loader of its own: its LOADER note must say \"generic\"")
            }
            Self::OutOfKernel(what) => write!(f, "dom0's kernel has a {what} note that points outside of it"),
            Self::TooLarge { needs, has } => write!(
                f,
                "dom0's kernel and ramdisk need {} MiB but dom0 has {} MiB: raise dom0_mem",
                mebibytes(needs),
                mebibytes(has)
            ),
            Self::NoMemory { frames } => write!(
                f,
                "{} MiB of memory are missing for dom0: lower dom0_mem or give the machine more",
                mebibytes(frames)
            ),
            Self::Refused(refusal) => write!(f, "dom0 cannot be built: {}", refusal.rule),
        }
    }
}

/// A kernel's segments, in bytes from the domain's frame 0.
struct Image<'a> {
    file: ElfBytes<'a, LittleEndian>,
    notes: Notes,
    /// The last byte's end.
    end: u64,
}

impl<'a> Image<'a> {
    fn read(bytes: &'a [u8]) -> Result<Self, BuildError> {
        recognise(bytes)?;
        let file = ElfBytes::<LittleEndian>::minimal_parse(bytes)
            .map_err(|_| BuildError::NotLoadable("its headers are damaged or cut off"))?;
        if file.ehdr.class != elf::file::Class::ELF64 || file.ehdr.e_machine != elf::abi::EM_X86_64 {
            return Err(BuildError::NotLoadable("it is for another processor"));
        }
        let notes = Notes::read(&file)?;
        let mut image = Self { file, notes, end: 0 };
        let mut end = 0;
        image.each_segment(|start, len, data| {
            end = end.max(start + len);
            if data.len() as u64 > len {
                Err(BuildError::NotLoadable("a segment is longer in the file"))
            } else {
                Ok(())
            }
        })?;
        if end == 0 {
            return Err(BuildError::NotLoadable("it has nothing to load"));
        }
        image.end = end;
        image.check()?;
        Ok(image)
    }

    /// Calls `each` with start, length and contents of each segment; by physical address, for the virtual one of a
    /// per-CPU segment is zero.
    fn each_segment(
        &self,
        mut each: impl FnMut(u64, u64, &'a [u8]) -> Result<(), BuildError>,
    ) -> Result<(), BuildError> {
        let segments = self.file.segments().ok_or(BuildError::NotLoadable("it has no program headers"))?;
        for segment in segments.iter().filter(|segment| segment.p_type == elf::abi::PT_LOAD && segment.p_memsz > 0) {
            let start = segment
                .p_paddr
                .checked_sub(self.notes.paddr_offset)
                .ok_or(BuildError::NotLoadable("a segment lies below PADDR_OFFSET"))?;
            let fits = start.checked_add(segment.p_memsz).is_some_and(|end| end < 1 << 40);
            let data = self.file.segment_data(&segment).ok().filter(|_| fits);
            let data = data.ok_or(BuildError::NotLoadable("a segment is cut off or lies too high"))?;
            each(start, segment.p_memsz, data)?;
        }
        Ok(())
    }

    /// The addresses that the notes name must lie in the kernel.
    fn check(&self) -> Result<(), BuildError> {
        let base = self.notes.virt_base;
        let inside = |address: u64| address.checked_sub(base).is_some_and(|offset| offset < self.end);
        if base & 0xfff != 0 || base.checked_add(self.end).is_none() {
            return Err(BuildError::OutOfKernel("VIRT_BASE"));
        }
        if !inside(self.entry()) {
            return Err(BuildError::OutOfKernel("ENTRY"));
        }
        if self.notes.hypercall_page.is_some_and(|page| page & 0xfff != 0 || !inside(page)) {
            return Err(BuildError::OutOfKernel("HYPERCALL_PAGE"));
        }
        Ok(())
    }

    fn entry(&self) -> u64 {
        self.notes.entry.unwrap_or(self.file.ehdr.e_entry)
    }

    /// Where the list of frames is wanted, where that can be: page-aligned and below the kernel.
    fn init_p2m(&self) -> Option<u64> {
        self.notes.init_p2m.filter(|address| address & 0xfff == 0 && *address < self.notes.virt_base)
    }

    fn load<M: Machine>(&self, hv: &Hypervisor<M>, memory: &Memory) -> Result<(), BuildError> {
        self.each_segment(|start, _, data| {
            memory.write(hv, start, data);
            Ok(())
        })?;
        if let Some(page) = self.notes.hypercall_page {
            let mut stubs = Box::new([0; 4096]);
            hypercall_page::fill(&mut stubs);
            memory.write(hv, page - self.notes.virt_base, &*stubs);
        }
        Ok(())
    }
}

/// Tells what a file is that is not plain ELF.
fn recognise(bytes: &[u8]) -> Result<(), BuildError> {
    let starts = |magic: &[u8]| bytes.starts_with(magic);
    match () {
        () if bytes.is_empty() => Err(BuildError::NoKernel),
        () if bytes.get(0x202..0x206) == Some(b"HdrS") => Err(BuildError::Compressed("a bzImage")),
        () if starts(b"\x1f\x8b") => Err(BuildError::Compressed("gzip'd")),
        () if starts(b"\xfd7zXZ") => Err(BuildError::Compressed("packed with xz")),
        () if starts(b"\x28\xb5\x2f\xfd") => Err(BuildError::Compressed("packed with zstd")),
        () if !starts(b"\x7fELF") => Err(BuildError::NotLoadable("it does not start with the ELF magic")),
        () => Ok(()),
    }
}

/// Builds dom0: a domain with memory, kernel, tables and one vCPU, which runs once it is [`start`]ed.
///
/// # Errors
/// [`BuildError`]; no domain is left then.
pub fn build_dom0<M: Machine>(hv: &Hypervisor<M>, from: &Dom0<'_>) -> Result<Arc<Domain>, BuildError> {
    let image = Image::read(from.kernel)?;
    let ramdisk = from.ramdisk.clone().unwrap_or_default();
    let frames = memory_size(hv, &ramdisk);
    let layout = Layout::new(&Wishes {
        base: image.notes.virt_base,
        kernel_end: image.end.div_ceil(4096),
        ramdisk: ramdisk.frames.end - ramdisk.frames.start,
        ramdisk_unmapped: image.notes.module_unmapped,
        init_p2m: image.init_p2m(),
        frames,
    })?;
    let config = DomainConfig { privileged: true, ..DomainConfig::default() };
    let domain = Domain::new(hv, DomId::DOM0, config)?;
    match fill(hv, &domain, &image, &layout, &ramdisk, from.command_line) {
        Ok(()) => Ok(domain),
        Err(error) => {
            hv.domains.remove(domain.id);
            Err(error)
        }
    }
}

/// How many frames dom0 gets, with those of its ramdisk.
fn memory_size<M: Machine>(hv: &Hypervisor<M>, ramdisk: &Ramdisk) -> u64 {
    let wishes = hv.options.dom0_memory;
    let available = hv.allocator.lock().free_count() + (ramdisk.frames.end - ramdisk.frames.start);
    let all_but_reserve = available.saturating_sub(RESERVE.min(available / 16));
    let wanted = wishes.initial.map_or(all_but_reserve, |amount| amount.frames_of(available));
    let least = wishes.min.map_or(0, |amount| amount.frames_of(available));
    let most = wishes.max.map_or(u64::MAX, |amount| amount.frames_of(available));
    wanted.max(least).min(most)
}

fn fill<M: Machine>(
    hv: &Hypervisor<M>,
    domain: &Arc<Domain>,
    image: &Image<'_>,
    layout: &Layout,
    ramdisk: &Ramdisk,
    command_line: &str,
) -> Result<(), BuildError> {
    domain.memory.lock().max = most_frames(hv);
    domain.assists.store(u64::from(image.notes.extended_cr3) << VMASST_TYPE_PAE_EXTENDED_CR3, Ordering::Relaxed);
    let memory = Memory::allocate(hv, domain, layout.frames, (layout.ramdisk.0, ramdisk.frames.clone()))?;
    memory.clear(hv, 0..if layout.ramdisk.0 < layout.mapped { layout.ramdisk.0 } else { layout.mapped });
    memory.clear(hv, layout.start_info..layout.mapped);
    memory.clear(hv, layout.p2m.0..layout.p2m.0 + layout.p2m.1);
    image.load(hv, &memory)?;
    memory.write_list(hv, layout.p2m.0);
    map_all(hv, &memory, image, layout);
    let info = start_info(domain, image, layout, ramdisk, command_line);
    memory.write(hv, layout.start_info << 12, info.as_bytes());
    let root = memory.mfn(layout.tables.0);
    paging::pin_initial(hv, domain, root)?;
    add_vcpus(hv, domain, hv.options.dom0_vcpus.of(hv.machine.cpu_count()))?;
    prepare_vcpu(hv, domain, image, layout, ClaimedMfn::from(root))
}

/// How many frames dom0 may grow to.
fn most_frames<M: Machine>(hv: &Hypervisor<M>) -> u64 {
    let available = hv.machine.frame_count();
    hv.options.dom0_memory.max.map_or(u64::from(u32::MAX), |amount| amount.frames_of(available))
}

fn map_all<M: Machine>(hv: &Hypervisor<M>, memory: &Memory, image: &Image<'_>, layout: &Layout) {
    let tables = Tables { hv, memory, root: layout.tables.0 };
    let read_only = layout.tables.0..layout.tables.0 + layout.tables.1;
    let mut pool = layout.tables.0 + 1..layout.tables.0 + layout.tables.1;
    tables.map(image.notes.virt_base, 0..layout.mapped, &mut pool, &read_only);
    if let Some(list) = image.init_p2m() {
        let data = layout.p2m.0..layout.p2m.0 + layout.p2m_data;
        let mut pool = data.end..layout.p2m.0 + layout.p2m.1;
        tables.map(list, data, &mut pool, &read_only);
    }
}

fn start_info(
    domain: &Domain,
    image: &Image<'_>,
    layout: &Layout,
    ramdisk: &Ramdisk,
    command_line: &str,
) -> Box<StartInfo> {
    let base = image.notes.virt_base;
    let address = |pfn: u64| base + (pfn << 12);
    let mut info = Box::new(StartInfo::new_zeroed());
    info.magic[..START_INFO_MAGIC.len()].copy_from_slice(START_INFO_MAGIC);
    info.nr_pages = layout.frames;
    info.shared_info = domain.shared_info.0 << 12;
    info.flags = SIF_PRIVILEGED | SIF_INITDOMAIN;
    info.pt_base = address(layout.tables.0);
    info.nr_pt_frames = layout.tables.1;
    info.mfn_list = address(layout.p2m.0);
    if let Some(list) = image.init_p2m() {
        info.mfn_list = list;
        info.first_p2m_pfn = layout.p2m.0;
        info.nr_p2m_frames = layout.p2m.1;
    }
    if ramdisk.len > 0 {
        let unmapped = image.notes.module_unmapped;
        info.mod_start = if unmapped { layout.ramdisk.0 } else { address(layout.ramdisk.0) };
        info.mod_len = ramdisk.len;
        info.flags |= if unmapped { SIF_MOD_START_PFN } else { 0 };
    }
    let text = command_line.as_bytes();
    let len = text.len().min(MAX_GUEST_CMDLINE - 1);
    info.cmd_line[..len].copy_from_slice(&text[..len]);
    info
}

fn prepare_vcpu<M: Machine>(
    hv: &Hypervisor<M>,
    domain: &Arc<Domain>,
    image: &Image<'_>,
    layout: &Layout,
    root: ClaimedMfn,
) -> Result<(), BuildError> {
    let base = image.notes.virt_base;
    let stack = base + ((layout.stack + 1) << 12);
    let Some(vcpu) = domain.vcpu(VcpuId(0)) else {
        return Err(BuildError::NoKernel);
    };
    let mut slot = vcpu.state.lock();
    let Some(state) = slot.as_deref_mut() else {
        return Err(BuildError::NoKernel);
    };
    state.kernel_root = Some(paging::get_root(hv, root, domain.id)?);
    state.registers = Registers {
        rip: image.entry(),
        rsp: stack,
        rsi: base + (layout.start_info << 12),
        cs: FLAT_KERNEL_CS.into(),
        ss: FLAT_KERNEL_SS.into(),
        rflags: flags::IF | flags::ALWAYS,
        entry_vector: ENTRY_FULL,
        ..Registers::default()
    };
    state.kernel_ss = FLAT_KERNEL_SS.into();
    state.kernel_sp = stack;
    drop(slot);
    time::update_wallclock(hv, domain);
    time::write_time_page(hv, vcpu);
    vcpu.initialised.store(true, Ordering::Release);
    vcpu.stopped.fetch_and(!stopped::DOWN, Ordering::AcqRel);
    Ok(())
}

/// Lets a domain run that was built.
pub fn start<M: Machine>(hv: &Hypervisor<M>, domain: &Domain) {
    domain.lifecycle.lock().paused_by_control = false;
    sched::unpause(hv, domain);
}
