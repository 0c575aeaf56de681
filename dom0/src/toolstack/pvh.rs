//! Makes a guest with hardware assistance (PVH, HVM) from a kernel.
//!
//! Its memory begins at 0 and has a hole below 4 GiB, in which lie the pages of its store and console and its ACPI tables;
//! on a PC's board there is another one below 1 MiB. The kernel is where its segments say; behind it come the ramdisk and
//! what the kernel is told ([`HvmStartInfo`], list of modules, memory map, command line). It starts in 32-bit mode without
//! paging. Linux on a PC's board is started by its own protocol ([`linux`]).
//!
//! Source: Xen `public/arch-x86/hvm/start_info.h`, `docs/misc/pvh.pandoc`, `public/hvm/params.h`, `public/hvm/save.h`.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::ops::Range;

use pv_abi::hvm::{
    HVM_FILE_MAGIC, HVM_FILE_VERSION, HVM_PARAM_ACPI_IOPORTS_LOCATION, HVM_PARAM_CONSOLE_EVTCHN, HVM_PARAM_CONSOLE_PFN,
    HVM_PARAM_STORE_EVTCHN, HVM_PARAM_STORE_PFN, HVM_SAVE_CODE_CPU, HVM_SAVE_CODE_END, HVM_SAVE_CODE_HEADER,
    HVM_SAVE_CODE_MTRR, HvmHwCpu, HvmHwMtrr, HvmMemmapTableEntry, HvmModlistEntry, HvmSaveDescriptor, HvmSaveHeader,
    HvmStartInfo, XEN_HVM_START_MAGIC_VALUE,
};
use pv_abi::memory::{E820_ACPI, E820_RAM, E820_RESERVED, E820Entry};
use pv_abi::{Mfn, Pfn};
use zerocopy::{FromZeros, IntoBytes};

use super::build::{BuildError, Built, Request, SLACK_KIB, Site, to_index};
use super::control::{Control, ControlError, GuestKind, GuestMemory};
use super::firmware::Tables;
use super::image::Kernel;
use super::layout::PAGE;
use super::linux;
use crate::ids::DomId;

/// Frames below the hole.
const LOW_FRAMES: u64 = 0xf_0000;
/// The first frame above it.
const HIGH_START: u64 = 0x10_0000;
/// What a PC has below 1 MiB beside memory: the display's, and firmware.
const PC_HOLE: Range<u64> = 0xa0..0x100;
/// The ACPI tables.
const TABLES: u64 = 0xfc00_8000;
/// Frames of special pages (Xen: X86_HVM_END_SPECIAL_REGION, eight of them), and the two that there are.
const SPECIAL: Range<u64> = 0xf_eff8..0xf_f000;
const STORE: u64 = 0xf_effc;
const CONSOLE: u64 = 0xf_efff;
/// Where the grant table is while its first entries are written.
const SCRATCH: u64 = 0xf_eff7;
/// Memory set aside for the tables of a guest: so much for each virtual CPU, and a 128th of its own, in KiB.
const TABLES_KIB_OF_VCPU: u64 = 1024;

/// How a kernel is started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Protocol {
    Pvh,
    Linux,
}

/// Where everything lies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    protocol: Protocol,
    /// Frames with memory, in order.
    ram: Vec<Range<u64>>,
    /// Frames with memory below the hole, and what is between them.
    low: u64,
    kernel: Range<u64>,
    /// First byte of the ramdisk.
    ramdisk: Option<u64>,
    /// First byte of what the kernel is told.
    start_info: u64,
    told: Vec<u8>,
    tables: Tables,
}

impl Plan {
    /// Places a kernel and what belongs to it.
    ///
    /// # Errors
    /// One phrase with the cure: they do not fit.
    pub fn new(kernel: &Kernel<'_>, request: &Request<'_>) -> Result<Self, String> {
        let pages = (request.memory_mib << 20) / PAGE;
        let is_pc = request.kind == GuestKind::Hvm;
        let low = pages.min(LOW_FRAMES);
        let high = HIGH_START..HIGH_START + pages - low;
        let below = if is_pc { alloc::vec![0..PC_HOLE.start, PC_HOLE.end..low] } else { alloc::vec![0..low] };
        let ram = below.into_iter().chain([high]).filter(|range| range.start < range.end).collect();
        let tables =
            if is_pc { Tables::of_pc(TABLES, request.max_vcpus) } else { Tables::new(TABLES, request.max_vcpus) };
        let protocol = if is_pc && kernel.notes.guest_os == "linux" { Protocol::Linux } else { Protocol::Pvh };
        let mut end = kernel.end.next_multiple_of(PAGE);
        let kernel = kernel.start / PAGE..end / PAGE;
        if is_pc && kernel.start < PC_HOLE.end {
            return Err("its image begins below 1 MiB, where a PC has its display: link it higher".into());
        }
        let ramdisk = request.ramdisk.map(|bytes| {
            let at = end;
            end = (end + bytes.len() as u64).next_multiple_of(PAGE);
            at
        });
        let mut plan = Self { protocol, ram, low, kernel, ramdisk, start_info: end, told: Vec::new(), tables };
        plan.told = match protocol {
            Protocol::Pvh => plan.tell(request),
            Protocol::Linux => plan.tell_linux(request),
        };
        let needed = (end + plan.told.len() as u64).div_ceil(PAGE);
        if needed > low {
            let mib = |frames: u64| (frames * PAGE).div_ceil(1 << 20);
            return Err(format!(
                "kernel and ramdisk need {} MiB, the guest has {} below 4 GiB: set memory = {} or more",
                mib(needed),
                mib(low),
                mib(needed).next_multiple_of(4)
            ));
        }
        Ok(plan)
    }

    /// What is where in the guest's memory.
    fn map(&self) -> Vec<E820Entry> {
        let frames = |range: &Range<u64>, type_| E820Entry {
            addr: range.start * PAGE,
            size: (range.end - range.start) * PAGE,
            type_,
        };
        let mut entries: Vec<_> = self.ram.iter().map(|range| frames(range, E820_RAM)).collect();
        entries.extend([frames(&self.table_frames(), E820_ACPI), frames(&SPECIAL, E820_RESERVED)]);
        if self.ram.len() > 1 && self.ram[0].end == PC_HOLE.start {
            entries.push(frames(&PC_HOLE, E820_RESERVED));
        }
        entries.sort_by_key(|entry| entry.addr);
        entries
    }

    fn table_frames(&self) -> Range<u64> {
        TABLES / PAGE..(TABLES + self.tables.bytes.len() as u64).div_ceil(PAGE)
    }

    /// The start info, and behind it what it points to.
    fn tell(&self, request: &Request<'_>) -> Vec<u8> {
        let map = self.map();
        let modules = u32::from(self.ramdisk.is_some());
        let module_list = self.start_info + size_of::<HvmStartInfo>() as u64;
        let memory_map = module_list + u64::from(modules) * size_of::<HvmModlistEntry>() as u64;
        let command_line = memory_map + (map.len() * size_of::<HvmMemmapTableEntry>()) as u64;
        let info = HvmStartInfo {
            magic: XEN_HVM_START_MAGIC_VALUE,
            version: 1,
            flags: 0,
            nr_modules: modules,
            modlist_paddr: if modules == 0 { 0 } else { module_list },
            cmdline_paddr: command_line,
            rsdp_paddr: self.tables.start,
            memmap_paddr: memory_map,
            memmap_entries: map.len() as u32,
            reserved: 0,
        };
        let mut out = info.as_bytes().to_vec();
        if let (Some(paddr), Some(bytes)) = (self.ramdisk, request.ramdisk) {
            let module = HvmModlistEntry { paddr, size: bytes.len() as u64, cmdline_paddr: 0, reserved: 0 };
            out.extend(module.as_bytes());
        }
        for E820Entry { addr, size, type_ } in map {
            // The types are those of E820.
            out.extend(HvmMemmapTableEntry { addr, size, type_, reserved: 0 }.as_bytes());
        }
        out.extend(request.command_line.as_bytes());
        out.push(0);
        out
    }
}

impl Plan {
    /// What Linux's own protocol passes.
    fn tell_linux(&self, request: &Request<'_>) -> Vec<u8> {
        let ramdisk = request.ramdisk.map_or(0..0, |bytes| {
            let start = self.ramdisk.unwrap_or(0);
            start..start + bytes.len() as u64
        });
        let told =
            linux::Told { command_line: request.command_line, ramdisk, memory: &self.map(), tables: self.tables.start };
        told.at(self.start_info)
    }

    /// The records with the first virtual CPU.
    fn first_vcpu(&self, entry: u64) -> Vec<u8> {
        let cpu = match self.protocol {
            Protocol::Pvh => flat_cpu(entry, self.start_info),
            Protocol::Linux => linux::first_vcpu(entry, self.start_info),
        };
        records(&cpu)
    }
}

impl<C: Control + GuestMemory> Site<'_, C> {
    /// Builds a guest with hardware assistance.
    pub(super) fn raise_pvh(
        &mut self,
        kernel: &Kernel<'_>,
        plan: &Plan,
        request: &Request<'_>,
    ) -> Result<Built, BuildError> {
        let domain = self.domain;
        self.control.set_max_vcpus(domain, request.max_vcpus)?;
        let tables_kib = u64::from(request.max_vcpus) * TABLES_KIB_OF_VCPU + request.maxmem_mib * 1024 / 128;
        self.control.set_paging_memory(domain, tables_kib.div_ceil(1024) as u32)?;
        self.control.set_max_memory(domain, request.memory_mib * 1024 + SLACK_KIB)?;
        self.control.set_tsc(domain, request.tsc)?;
        self.control.set_memory_map(domain, &plan.map())?;
        let store_port = self.control.alloc_unbound(domain, request.server)?;
        let console_port = self.control.alloc_unbound(domain, request.server)?;
        let built = Built { domain, store_frame: Mfn(STORE), store_port, console_frame: Mfn(CONSOLE), console_port };
        if request.kind == GuestKind::Hvm {
            self.control.set_parameter(domain, HVM_PARAM_ACPI_IOPORTS_LOCATION, 1)?;
            self.control.hide_hypervisor(domain)?;
        }
        for range in &plan.ram {
            self.populate(range.start, range.end - range.start)?;
        }
        // Frames are named as the guest sees them.
        let frames: Vec<Mfn> = (0..plan.low).map(Mfn).collect();
        for frame in [STORE, CONSOLE] {
            self.populate(frame, 1)?;
        }
        let tables = plan.table_frames();
        let table_frames = self.populate(tables.start, tables.end - tables.start)?;
        self.control.clear(domain, &[built.store_frame, built.console_frame])?;
        self.copy_at(&table_frames, to_index(plan.tables.start % PAGE), &plan.tables.bytes)?;
        self.load(kernel, plan.kernel.clone(), &frames)?;
        if let (Some(at), Some(bytes)) = (plan.ramdisk, request.ramdisk) {
            self.copy(&frames[to_index(at / PAGE)..], bytes)?;
        }
        self.copy(&frames[to_index(plan.start_info / PAGE)..], &plan.told)?;
        self.tell_parameters(&built)?;
        self.grant_rings_apart(&built, request.server)?;
        self.control.set_hvm_context(domain, &plan.first_vcpu(kernel.entry))?;
        Ok(built)
    }

    fn tell_parameters(&mut self, built: &Built) -> Result<(), ControlError> {
        let parameters = [
            (HVM_PARAM_STORE_PFN, built.store_frame.0),
            (HVM_PARAM_STORE_EVTCHN, built.store_port.0.into()),
            (HVM_PARAM_CONSOLE_PFN, built.console_frame.0),
            (HVM_PARAM_CONSOLE_EVTCHN, built.console_port.0.into()),
        ];
        parameters.into_iter().try_for_each(|(index, value)| self.control.set_parameter(self.domain, index, value))
    }

    /// Writes the reserved grants of a guest that sees its grant table only where it puts it.
    fn grant_rings_apart(&mut self, built: &Built, server: DomId) -> Result<(), ControlError> {
        self.control.put_grant_table(self.domain, Pfn(SCRATCH))?;
        self.grant_rings(Mfn(SCRATCH), built, server)?;
        self.control.clear_frame(self.domain, Pfn(SCRATCH))
    }
}

/// Attributes of flat segments: code of 32 bits and of 64, data; of a task state.
const CODE: u32 = 0xc9b;
const LONG_CODE: u32 = 0xa9b;
const DATA: u32 = 0xc93;
const TASK: u32 = 0x8b;

/// A virtual CPU in 32-bit mode without paging, that finds what it is told by its register ebx.
fn flat_cpu(entry: u64, start_info: u64) -> HvmHwCpu {
    let mut cpu = HvmHwCpu::new_zeroed();
    (cpu.rip, cpu.rbx) = (entry, start_info);
    (cpu.cr0, cpu.rflags) = (0x11, 2);
    (cpu.cs_limit, cpu.ds_limit, cpu.es_limit, cpu.ss_limit) = (u32::MAX, u32::MAX, u32::MAX, u32::MAX);
    (cpu.cs_arbytes, cpu.ds_arbytes, cpu.es_arbytes, cpu.ss_arbytes) = (CODE, DATA, DATA, DATA);
    (cpu.tr_limit, cpu.tr_arbytes) = (0x67, TASK);
    (cpu.dr6, cpu.dr7) = (0xffff_0ff0, 0x400);
    cpu
}

/// A virtual CPU in 64-bit mode by these tables.
pub(super) fn long_cpu(entry: u64, tables: u64) -> HvmHwCpu {
    let mut cpu = flat_cpu(entry, 0);
    cpu.cs_arbytes = LONG_CODE;
    // Paging and protection; wide entries; long mode, enabled and active.
    (cpu.cr0, cpu.cr3, cpu.cr4, cpu.msr_efer) = (0x8000_0011, tables, 1 << 5, 1 << 8 | 1 << 10);
    cpu
}

/// The records of a guest that starts by this virtual CPU, its memory cacheable.
fn records(cpu: &HvmHwCpu) -> Vec<u8> {
    /// MTRRs on, write-back where none says otherwise.
    const WRITE_BACK: u64 = 1 << 11 | 6;
    let mut types = HvmHwMtrr::new_zeroed();
    types.msr_pat_cr = 0x0007_0406_0007_0406;
    // Eight variable ranges, fixed ones, write-combining.
    types.msr_mtrr_cap = 0x508;
    types.msr_mtrr_def_type = WRITE_BACK;
    let header = HvmSaveHeader { magic: HVM_FILE_MAGIC, version: HVM_FILE_VERSION, ..HvmSaveHeader::new_zeroed() };
    let mut out = Vec::new();
    record(&mut out, HVM_SAVE_CODE_HEADER, header.as_bytes());
    record(&mut out, HVM_SAVE_CODE_CPU, cpu.as_bytes());
    record(&mut out, HVM_SAVE_CODE_MTRR, types.as_bytes());
    record(&mut out, HVM_SAVE_CODE_END, &[]);
    out
}

fn record(out: &mut Vec<u8>, typecode: u16, bytes: &[u8]) {
    out.extend(HvmSaveDescriptor { typecode, instance: 0, length: bytes.len() as u32 }.as_bytes());
    out.extend(bytes);
}
