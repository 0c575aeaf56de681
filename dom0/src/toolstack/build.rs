//! Makes a domain from a kernel.
//!
//! The order is that of Xen's own toolstack: create, virtual CPUs, memory limit, counter, memory map, ports, memory, image, page tables, pin,
//! shared page, grants, virtual CPU. If a step fails, the domain that was begun is taken down again.

use alloc::borrow::Cow;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt;
use core::ops::Range;

use pv_abi::arch::{FLAT_KERNEL_CS, FLAT_KERNEL_SS, VGCF_IN_KERNEL, VGCF_ONLINE, VcpuGuestContext, xen_pfn_to_cr3};
use pv_abi::memory::{E820_RAM, E820Entry};
use pv_abi::xen::{MAX_GUEST_CMDLINE, SIF_MOD_START_PFN, SIF_VIRT_P2M_4TOOLS, START_INFO_MAGIC, StartInfo};
use pv_abi::{Mfn, Pfn};
use zerocopy::{FromZeros, IntoBytes};

use super::control::{Control, ControlError, Creation, GuestKind, GuestMemory, TscMode};
use super::image::{self, Kernel};
use super::layout::{Layout, PAGE};
use super::{pvh, unpack};
use crate::ids::{DomId, Port};

/// KiB a guest may have above its memory, for what the hypervisor counts with it.
pub const SLACK_KIB: u64 = 1024;
/// Frames populated or written in one step.
const STEP_FRAMES: usize = 512;
/// Offset of `evtchn_upcall_mask` in each of the 32 entries of 64 bytes that the shared page begins with.
const UPCALL_MASK: usize = 1;
const VCPU_INFO_BYTES: usize = 64;
const LEGACY_VCPUS: usize = 32;

/// What the builder is given.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// The kernel file as it is.
    pub kernel: &'a [u8],
    /// The ramdisk file.
    pub ramdisk: Option<&'a [u8]>,
    /// The kernel's command line.
    pub command_line: &'a str,
    /// Memory at the start, in MiB.
    pub memory_mib: u64,
    /// Memory it may grow to, in MiB.
    pub maxmem_mib: u64,
    /// Virtual CPUs that there are; the store says which of them are on line.
    pub max_vcpus: u32,
    /// What it is made as.
    pub kind: GuestKind,
    /// Its time-stamp counter.
    pub tsc: TscMode,
    /// A number that names it for ever.
    pub handle: [u8; 16],
    /// The domain that serves its store and console.
    pub server: DomId,
}

/// A domain that was built and waits, paused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Built {
    /// Its number.
    pub domain: DomId,
    /// Frame of its store page.
    pub store_frame: Mfn,
    /// Its port for the store.
    pub store_port: Port,
    /// Frame of its console page.
    pub console_frame: Mfn,
    /// Its port for the console.
    pub console_port: Port,
}

/// Why a domain was not built: one line, with the cure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BuildError {
    /// The kernel, the ramdisk or their sizes.
    Image(String),
    /// The hypervisor refused.
    Control(ControlError),
}

impl fmt::Display for BuildError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Image(problem) => out.write_str(problem),
            Self::Control(error) => error.fmt(out),
        }
    }
}

impl core::error::Error for BuildError {}

impl From<ControlError> for BuildError {
    fn from(error: ControlError) -> Self {
        Self::Control(error)
    }
}

/// Builds a domain and leaves it paused.
///
/// # Errors
/// What is wrong with the request, or the hypervisor's refusal. Nothing is left of the domain.
pub fn build<C: Control + GuestMemory>(control: &mut C, request: &Request<'_>) -> Result<Built, BuildError> {
    let unpacked = unpack(request.kernel)?;
    let kernel = Kernel::parse(&unpacked, request.kind).map_err(kernel_problem)?;
    let pages = request.memory_mib << 20 >> 12;
    let ramdisk_len = request.ramdisk.map(|bytes| bytes.len() as u64);
    if request.command_line.len() >= MAX_GUEST_CMDLINE {
        let len = request.command_line.len();
        return Err(BuildError::Image(format!(
            "extra has {len} bytes, a guest's command line has room for 1023: shorten it"
        )));
    }
    match request.kind {
        GuestKind::Pv => {
            let layout = Layout::plan(&kernel, ramdisk_len, pages).map_err(BuildError::Image)?;
            on_site(control, request, |site| site.raise(&kernel, &layout, request))
        }
        GuestKind::Pvh | GuestKind::Hvm => {
            let plan = pvh::Plan::new(&kernel, request).map_err(BuildError::Image)?;
            on_site(control, request, |site| site.raise_pvh(&kernel, &plan, request))
        }
    }
}

/// Creates a domain and has it built; takes it down where that fails.
fn on_site<C: Control + GuestMemory>(
    control: &mut C,
    request: &Request<'_>,
    raise: impl FnOnce(&mut Site<'_, C>) -> Result<Built, BuildError>,
) -> Result<Built, BuildError> {
    let creation = Creation { handle: request.handle, max_vcpus: request.max_vcpus, kind: request.kind };
    let domain = control.create(&creation)?;
    let mut site = Site { control, domain, finished: false };
    let built = raise(&mut site)?;
    site.finished = true;
    Ok(built)
}

/// Unpacks a kernel file; an ELF image is left as it is.
///
/// # Errors
/// A packing that is not known, or that is damaged.
pub fn unpack(file: &[u8]) -> Result<Cow<'_, [u8]>, BuildError> {
    unpack::unpack(file).map_err(kernel_problem)
}

fn kernel_problem(error: image::ImageError) -> BuildError {
    BuildError::Image(format!("the kernel cannot be started: {error}"))
}

/// A domain under construction; leaving early takes it down.
pub(super) struct Site<'a, C: Control + GuestMemory> {
    pub(super) control: &'a mut C,
    pub(super) domain: DomId,
    finished: bool,
}

impl<C: Control + GuestMemory> Drop for Site<'_, C> {
    fn drop(&mut self) {
        if self.finished {
            return;
        }
        if let Err(error) = self.control.destroy(self.domain) {
            log::warn!("domain {}: half built and not taken down: {error}", self.domain.0);
        }
    }
}

impl<C: Control + GuestMemory> Site<'_, C> {
    fn raise(&mut self, kernel: &Kernel<'_>, layout: &Layout, request: &Request<'_>) -> Result<Built, BuildError> {
        let domain = self.domain;
        self.control.set_max_vcpus(domain, request.max_vcpus)?;
        self.control.set_max_memory(domain, request.memory_mib * 1024 + SLACK_KIB)?;
        self.control.set_tsc(domain, request.tsc)?;
        let map = E820Entry { addr: 0, size: request.maxmem_mib << 20, type_: E820_RAM };
        self.control.set_memory_map(domain, &[map])?;
        let store_port = self.control.alloc_unbound(domain, request.server)?;
        let console_port = self.control.alloc_unbound(domain, request.server)?;
        let frames = self.populate(0, layout.pages)?;
        let frame = |pfn: u64| frames[to_index(pfn)];
        let built = Built {
            domain,
            store_frame: frame(layout.store),
            store_port,
            console_frame: frame(layout.console),
            console_port,
        };
        self.load(kernel, layout.kernel.clone(), &frames)?;
        if let (Some(place), Some(bytes)) = (&layout.ramdisk, request.ramdisk) {
            self.copy(&frames[to_index(place.pfn)..], bytes)?;
        }
        self.write_frame_list(layout, &frames)?;
        self.control.clear(domain, &[built.store_frame, built.console_frame, frame(layout.stack)])?;
        let shared_info = self.control.info(domain)?.shared_info;
        let start = start_info(layout, request.command_line, &built, shared_info);
        self.control.write(domain, &[frame(layout.start_info)], 0, &start)?;
        self.write_tables(layout, &frames)?;
        self.control.pin_root_table(domain, frame(layout.tables.root()))?;
        if let Some(va) = kernel.notes.hypercall_page {
            let pfn = va.wrapping_sub(layout.virt_base) / PAGE;
            let page = frames.get(to_index(pfn)).ok_or_else(|| {
                BuildError::Image("its hypercall page is outside of its memory: check its ELF notes".to_string())
            })?;
            self.control.fill_hypercall_page(domain, *page)?;
        }
        self.mask_events(shared_info)?;
        let table = self.control.grant_frame(domain)?;
        self.grant_rings(table, &built, request.server)?;
        let context = first_vcpu(kernel, layout, frame(layout.tables.root()));
        self.control.set_vcpu(domain, &context)?;
        Ok(built)
    }

    /// Gives it memory for `pages` guest frames from `first` on.
    pub(super) fn populate(&mut self, first: u64, pages: u64) -> Result<Vec<Mfn>, ControlError> {
        let mut frames = Vec::with_capacity(to_index(pages));
        while (frames.len() as u64) < pages {
            let done = frames.len() as u64;
            let count = (pages - done).min(STEP_FRAMES as u64);
            frames.extend(self.control.populate(self.domain, Pfn(first + done), count)?);
        }
        Ok(frames)
    }

    /// Loads the kernel, whose image takes the guest frames `image`.
    pub(super) fn load(&mut self, kernel: &Kernel<'_>, image: Range<u64>, frames: &[Mfn]) -> Result<(), ControlError> {
        let image = &frames[to_index(image.start)..to_index(image.end)];
        for step in image.chunks(STEP_FRAMES) {
            self.control.clear(self.domain, step)?;
        }
        for piece in &kernel.pieces {
            let frames = &frames[to_index(piece.start / PAGE)..];
            self.copy_at(frames, to_index(piece.start % PAGE), piece.bytes)?;
        }
        Ok(())
    }

    pub(super) fn copy(&mut self, frames: &[Mfn], bytes: &[u8]) -> Result<(), ControlError> {
        self.copy_at(frames, 0, bytes)
    }

    pub(super) fn copy_at(&mut self, frames: &[Mfn], offset: usize, bytes: &[u8]) -> Result<(), ControlError> {
        let page = to_index(PAGE);
        let mut done = 0;
        while done < bytes.len() {
            let at = offset + done;
            let count = (STEP_FRAMES * page - at % page).min(bytes.len() - done);
            let last = (at + count).div_ceil(page);
            self.control.write(self.domain, &frames[at / page..last], at % page, &bytes[done..done + count])?;
            done += count;
        }
        Ok(())
    }

    fn write_frame_list(&mut self, layout: &Layout, frames: &[Mfn]) -> Result<(), ControlError> {
        let list: Vec<u8> = frames.iter().flat_map(|mfn| mfn.0.to_le_bytes()).collect();
        let place = to_index(layout.frame_list.pfn);
        let list_frames = &frames[place..place + to_index(layout.frame_list.pages)];
        self.copy(list_frames, &list)?;
        let full = list.len() % to_index(PAGE);
        if full == 0 {
            return Ok(());
        }
        // Entries behind the last frame say that there is none.
        let rest = alloc::vec![0xff; to_index(PAGE) - full];
        self.control.write(self.domain, &list_frames[list_frames.len() - 1..], full, &rest)
    }

    fn write_tables(&mut self, layout: &Layout, frames: &[Mfn]) -> Result<(), ControlError> {
        let list = &layout.frame_list;
        let mut mappings = alloc::vec![(layout.virt_base, 0, layout.mapped)];
        mappings.extend(list.own_region.map(|_| (list.va, list.pfn, list.pages)));
        let machine = |pfn: u64| frames[to_index(pfn)].0;
        layout.tables.fill(&mappings, machine, |pfn, entries| {
            self.control.write(self.domain, &[frames[to_index(pfn)]], 0, entries.as_bytes())
        })
    }

    /// Empties the shared page and masks events for every virtual CPU until the guest allows them.
    fn mask_events(&mut self, shared_info: Mfn) -> Result<(), ControlError> {
        let mut page = alloc::vec![0_u8; to_index(PAGE)];
        for vcpu in 0..LEGACY_VCPUS {
            page[vcpu * VCPU_INFO_BYTES + UPCALL_MASK] = 1;
        }
        self.control.write(self.domain, &[shared_info], 0, &page)
    }

    /// Writes the two reserved grants by which the server maps the console and the store page.
    pub(super) fn grant_rings(&mut self, table: Mfn, built: &Built, server: DomId) -> Result<(), ControlError> {
        let mut entries = [0_u8; 16];
        for (entry, frame) in entries.chunks_exact_mut(8).zip([built.console_frame, built.store_frame]) {
            // A version 1 entry: flags (permit access), the domain, the frame.
            entry[..2].copy_from_slice(&1_u16.to_le_bytes());
            entry[2..4].copy_from_slice(&server.0.to_le_bytes());
            entry[4..].copy_from_slice(&u32::try_from(frame.0).unwrap_or(0).to_le_bytes());
        }
        self.control.write(self.domain, &[table], 0, &entries)
    }
}

fn start_info(layout: &Layout, command_line: &str, built: &Built, shared_info: Mfn) -> Vec<u8> {
    let mut start = StartInfo::new_zeroed();
    start.magic[..START_INFO_MAGIC.len()].copy_from_slice(START_INFO_MAGIC);
    start.nr_pages = layout.pages;
    start.shared_info = shared_info.0 << 12;
    start.flags = SIF_VIRT_P2M_4TOOLS;
    start.store_mfn = built.store_frame.0;
    start.store_evtchn = built.store_port.0;
    start.console_domu_mfn = built.console_frame.0;
    start.console_domu_evtchn = built.console_port.0;
    start.pt_base = layout.va(layout.tables.root());
    start.nr_pt_frames = layout.mapped_tables;
    start.mfn_list = layout.frame_list.va;
    if let Some(count) = layout.frame_list.own_region {
        start.first_p2m_pfn = layout.frame_list.pfn;
        start.nr_p2m_frames = count;
    }
    if let Some(place) = &layout.ramdisk {
        start.mod_start = if place.by_frame { place.pfn } else { layout.va(place.pfn) };
        start.mod_len = place.len;
        start.flags |= if place.by_frame { SIF_MOD_START_PFN } else { 0 };
    }
    start.cmd_line[..command_line.len()].copy_from_slice(command_line.as_bytes());
    let mut page = start.as_bytes().to_vec();
    page.resize(to_index(PAGE), 0);
    page
}

fn first_vcpu(kernel: &Kernel<'_>, layout: &Layout, root: Mfn) -> VcpuGuestContext {
    let mut context = VcpuGuestContext::new_zeroed();
    let regs = &mut context.user_regs;
    regs.rip = kernel.entry;
    regs.rsp = layout.stack_top();
    regs.rsi = layout.va(layout.start_info);
    regs.rflags = 1 << 9;
    regs.cs = FLAT_KERNEL_CS;
    regs.ss = FLAT_KERNEL_SS;
    context.kernel_ss = u64::from(FLAT_KERNEL_SS);
    context.kernel_sp = layout.stack_top();
    context.flags = VGCF_IN_KERNEL | VGCF_ONLINE;
    context.ctrlreg[3] = xen_pfn_to_cr3(root.0);
    // The control and status words a processor has after reset.
    context.fpu_ctxt[..2].copy_from_slice(&0x037f_u16.to_le_bytes());
    context.fpu_ctxt[24..28].copy_from_slice(&0x1f80_u32.to_le_bytes());
    context
}

/// Frame numbers and sizes of one guest fit the address space of the builder.
pub(super) fn to_index(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}
