//! The domain builder against a hypervisor that remembers: what a guest finds when it starts, and what is left when
//! building fails.

#[path = "builder/assisted.rs"]
mod assisted;

use std::collections::{BTreeMap, BTreeSet};

use dom0::ids::{DomId, Port};
use dom0::toolstack::build::{BuildError, Built, Request, build};
use dom0::toolstack::control::{Control, ControlError, Creation, DomainInfo, GuestKind, GuestMemory, TscMode};
use proptest::prelude::*;
use pv_abi::arch::VcpuGuestContext;
use pv_abi::memory::E820Entry;
use pv_abi::xen::StartInfo;
use pv_abi::{Mfn, Pfn};
use zerocopy::FromBytes;

const SHARED_INFO: Mfn = Mfn(0x77);
const GRANT_FRAME: Mfn = Mfn(0x78);

#[derive(Default)]
struct FakeXen {
    memory: BTreeMap<u64, Vec<u8>>,
    alive: BTreeSet<u16>,
    frames: Vec<Mfn>,
    pinned: Option<Mfn>,
    vcpu: Option<Box<VcpuGuestContext>>,
    parameters: BTreeMap<u32, u64>,
    map: Vec<E820Entry>,
    /// Where the grant table is seen, with hardware assistance.
    grants_at: Option<Pfn>,
    records: Vec<u8>,
    hypercall_page: Option<Mfn>,
    next_port: u32,
    calls: u32,
    kind: GuestKind,
    fail_at: Option<u32>,
}

impl FakeXen {
    fn call(&mut self, operation: &'static str) -> Result<(), ControlError> {
        self.calls += 1;
        if Some(self.calls) == self.fail_at {
            return Err(ControlError { operation, errno: 12 });
        }
        Ok(())
    }

    fn page(&self, mfn: u64) -> Vec<u8> {
        self.memory.get(&mfn).cloned().unwrap_or_else(|| vec![0xcc; 4096])
    }

    fn entry(&self, table: u64, index: u64) -> u64 {
        let at = index as usize * 8;
        u64::from_le_bytes(self.page(table)[at..at + 8].try_into().expect("eight bytes"))
    }

    /// Walks the guest's tables as a CPU would: the frame and whether it may be written.
    fn walk(&self, va: u64) -> Option<(u64, bool)> {
        let mut table = self.vcpu.as_ref().expect("a vcpu").ctrlreg[3] >> 12;
        let mut writable = true;
        for level in (1..=4).rev() {
            let entry = self.entry(table, va >> (3 + 9 * level) & 511);
            if entry & 1 == 0 {
                return None;
            }
            assert_eq!(entry & 0x80, 0, "no large pages");
            writable &= entry & 2 != 0;
            table = entry >> 12 & 0xff_ffff_ffff;
        }
        Some((table, writable))
    }

    fn read(&self, va: u64, len: usize) -> Vec<u8> {
        let (mut at, mut bytes) = (va, Vec::new());
        while bytes.len() < len {
            let (mfn, _) = self.walk(at).expect("mapped");
            let offset = at as usize & 4095;
            let count = (4096 - offset).min(len - bytes.len());
            bytes.extend(&self.page(mfn)[offset..offset + count]);
            at += count as u64;
        }
        bytes
    }
}

impl GuestMemory for FakeXen {
    fn write(&mut self, _: DomId, frames: &[Mfn], offset: usize, bytes: &[u8]) -> Result<(), ControlError> {
        self.call("map")?;
        assert!(offset + bytes.len() <= frames.len() * 4096, "a write stays within its frames");
        assert!(self.pinned.is_none() || frames.iter().all(|mfn| *mfn == SHARED_INFO || *mfn == GRANT_FRAME));
        for (at, byte) in (offset..).zip(bytes) {
            let page = self.memory.entry(frames[at / 4096].0).or_insert_with(|| vec![0xcc; 4096]);
            page[at % 4096] = *byte;
        }
        Ok(())
    }

    fn clear(&mut self, _: DomId, frames: &[Mfn]) -> Result<(), ControlError> {
        self.call("clear")?;
        self.memory.extend(frames.iter().map(|mfn| (mfn.0, vec![0; 4096])));
        Ok(())
    }
}

impl Control for FakeXen {
    fn create(&mut self, creation: &Creation) -> Result<DomId, ControlError> {
        self.call("create")?;
        assert_eq!(creation.max_vcpus, 1);
        self.kind = creation.kind;
        self.alive.insert(5);
        Ok(DomId(5))
    }

    fn set_max_vcpus(&mut self, _: DomId, _: u32) -> Result<(), ControlError> {
        self.call("max vcpus")
    }

    fn set_max_memory(&mut self, _: DomId, _: u64) -> Result<(), ControlError> {
        self.call("max memory")
    }

    fn set_tsc(&mut self, _: DomId, _: TscMode) -> Result<(), ControlError> {
        self.call("tsc")
    }

    fn set_memory_map(&mut self, _: DomId, map: &[E820Entry]) -> Result<(), ControlError> {
        self.map = map.to_vec();
        self.call("memory map")
    }

    fn set_paging_memory(&mut self, _: DomId, mib: u32) -> Result<(), ControlError> {
        assert_ne!(mib, 0);
        self.call("memory for tables")
    }

    fn set_parameter(&mut self, _: DomId, index: u32, value: u64) -> Result<(), ControlError> {
        self.parameters.insert(index, value);
        self.call("parameter")
    }

    fn hide_hypervisor(&mut self, _: DomId) -> Result<(), ControlError> {
        assert_eq!(self.kind, GuestKind::Hvm);
        self.call("policy")
    }

    fn put_grant_table(&mut self, _: DomId, frame: Pfn) -> Result<(), ControlError> {
        self.grants_at = Some(frame);
        self.call("put grant table")
    }

    fn clear_frame(&mut self, _: DomId, frame: Pfn) -> Result<(), ControlError> {
        assert_eq!(self.grants_at.take(), Some(frame));
        self.call("clear frame")
    }

    fn set_hvm_context(&mut self, _: DomId, records: &[u8]) -> Result<(), ControlError> {
        self.records = records.to_vec();
        self.call("hvm context")
    }

    fn populate(&mut self, _: DomId, first: Pfn, count: u64) -> Result<Vec<Mfn>, ControlError> {
        self.call("populate")?;
        if self.kind.is_assisted() {
            let new: Vec<Mfn> = (first.0..first.0 + count).map(Mfn).collect();
            assert!(new.iter().all(|frame| !self.frames.contains(frame)), "each guest frame once");
            self.frames.extend(&new);
            return Ok(new);
        }
        assert_eq!(first.0, self.frames.len() as u64);
        // Scattered, and each frame once.
        let new: Vec<Mfn> = (first.0..first.0 + count).map(|pfn| Mfn(0x1000 + pfn * 7919 % 1_000_003)).collect();
        self.frames.extend(&new);
        Ok(new)
    }

    fn pin_root_table(&mut self, _: DomId, root: Mfn) -> Result<(), ControlError> {
        self.call("pin")?;
        self.pinned = Some(root);
        Ok(())
    }

    fn fill_hypercall_page(&mut self, _: DomId, frame: Mfn) -> Result<(), ControlError> {
        self.call("hypercall page")?;
        self.hypercall_page = Some(frame);
        Ok(())
    }

    fn alloc_unbound(&mut self, _: DomId, remote: DomId) -> Result<Port, ControlError> {
        self.call("alloc unbound")?;
        assert_eq!(remote, DomId(0));
        self.next_port += 1;
        Ok(Port(self.next_port))
    }

    fn grant_frame(&mut self, _: DomId) -> Result<Mfn, ControlError> {
        self.call("grant frame")?;
        Ok(GRANT_FRAME)
    }

    fn set_vcpu(&mut self, _: DomId, context: &VcpuGuestContext) -> Result<(), ControlError> {
        self.call("set vcpu")?;
        self.vcpu = Some(Box::new(*context));
        Ok(())
    }

    fn info(&mut self, domain: DomId) -> Result<DomainInfo, ControlError> {
        self.call("info")?;
        Ok(DomainInfo {
            domain,
            dying: false,
            stopped: None,
            paused: true,
            blocked: false,
            running: false,
            pages: self.frames.len() as u64,
            max_pages: self.frames.len() as u64,
            vcpus: 1,
            max_vcpu: 0,
            shared_info: SHARED_INFO,
            cpu_time_ns: 0,
        })
    }

    fn pause(&mut self, _: DomId) -> Result<(), ControlError> {
        Ok(())
    }

    fn unpause(&mut self, _: DomId) -> Result<(), ControlError> {
        Ok(())
    }

    fn destroy(&mut self, domain: DomId) -> Result<(), ControlError> {
        self.alive.remove(&domain.0);
        Ok(())
    }
}

/// Writes an ELF64 image: one loaded segment and a note segment.
struct Elf {
    machine: u16,
    paddr: u64,
    code: Vec<u8>,
    memsz: u64,
    notes: Vec<u8>,
}

impl Elf {
    fn new() -> Self {
        let mut elf = Self {
            machine: 62,
            paddr: 0x10_0000,
            code: b"the kernel's code".to_vec(),
            memsz: 0x5800,
            notes: Vec::new(),
        };
        elf.note(6, b"test\0");
        elf.note(8, b"generic\0");
        elf.note(5, b"xen-3.0\0");
        elf.note(3, &0xffff_ffff_8000_0000_u64.to_le_bytes());
        elf.note(1, &0xffff_ffff_8010_0004_u64.to_le_bytes());
        elf
    }

    fn with_places_by_frame() -> Self {
        let mut elf = Self::new();
        elf.note(15, &0x80_0000_0000_u64.to_le_bytes());
        elf.note(16, &1_u32.to_le_bytes());
        elf
    }

    fn note(&mut self, kind: u32, value: &[u8]) {
        for word in [4, value.len() as u32, kind] {
            self.notes.extend(word.to_le_bytes());
        }
        self.notes.extend(b"Xen\0");
        self.notes.extend(value);
        self.notes.resize(self.notes.len().next_multiple_of(4), 0);
    }

    fn bytes(&self) -> Vec<u8> {
        let mut out = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
        let halves = |out: &mut Vec<u8>, list: &[u16]| list.iter().for_each(|half| out.extend(half.to_le_bytes()));
        let words = |out: &mut Vec<u8>, list: &[u64]| list.iter().for_each(|word| out.extend(word.to_le_bytes()));
        halves(&mut out, &[2, self.machine, 1, 0]);
        words(&mut out, &[self.paddr, 64, 0]);
        halves(&mut out, &[0, 0, 64, 56, 2, 0, 0, 0]);
        let code_at = 64 + 2 * 56;
        let notes_at = code_at + self.code.len() as u64;
        for (kind, at, paddr, filesz, memsz) in [
            (1_u32, code_at, self.paddr, self.code.len() as u64, self.memsz),
            (4, notes_at, 0, self.notes.len() as u64, self.notes.len() as u64),
        ] {
            halves(&mut out, &[kind as u16, 0, 7, 0]);
            words(&mut out, &[at, 0, paddr, filesz, memsz, 4]);
        }
        out.extend(&self.code);
        out.extend(&self.notes);
        out
    }
}

fn request<'a>(kernel: &'a [u8], ramdisk: Option<&'a [u8]>, memory_mib: u64) -> Request<'a> {
    Request {
        kernel,
        ramdisk,
        command_line: "console=hvc0 exec=ls",
        memory_mib,
        maxmem_mib: memory_mib,
        max_vcpus: 1,
        kind: GuestKind::Pv,
        tsc: TscMode::Default,
        handle: [7; 16],
        server: DomId(0),
    }
}

fn good(elf: &Elf, ramdisk: Option<&[u8]>, memory_mib: u64) -> (FakeXen, Built) {
    let mut xen = FakeXen::default();
    let built = build(&mut xen, &request(&elf.bytes(), ramdisk, memory_mib)).expect("a good kernel");
    (xen, built)
}

fn refusal(kernel: &[u8], memory_mib: u64) -> String {
    let mut xen = FakeXen::default();
    let error = build(&mut xen, &request(kernel, None, memory_mib)).expect_err("a bad kernel");
    assert!(xen.alive.is_empty() && xen.calls == 0, "nothing was begun");
    let line = error.to_string();
    assert!(!line.contains('\n'));
    line
}

/// Everything a guest relies on when it starts.
fn check_contract(xen: &FakeXen, built: &Built, elf: &Elf, ramdisk: Option<&[u8]>) {
    let vcpu = xen.vcpu.as_ref().expect("a vcpu");
    let start_va = vcpu.user_regs.rsi;
    let start = StartInfo::read_from_bytes(&xen.read(start_va, size_of::<StartInfo>())).expect("its size");
    assert_eq!(&start.magic[..15], b"xen-3.0-x86_64\0");
    assert_eq!(start.nr_pages, xen.frames.len() as u64);
    assert_eq!(start.shared_info, SHARED_INFO.0 << 12);
    assert_eq!((Mfn(start.store_mfn), start.store_evtchn), (built.store_frame, built.store_port.0));
    assert_eq!((Mfn(start.console_domu_mfn), start.console_domu_evtchn), (built.console_frame, built.console_port.0));
    assert!(start.cmd_line.starts_with(b"console=hvc0 exec=ls\0"));
    assert_eq!(xen.pinned.map(|mfn| mfn.0 << 12), Some(vcpu.ctrlreg[3]));
    assert_eq!(xen.walk(start.pt_base).map(|(mfn, _)| Mfn(mfn)), xen.pinned);
    // The boot stack is mapped and writable.
    assert_eq!(vcpu.user_regs.rsp, vcpu.kernel_sp);
    assert!(xen.walk(vcpu.kernel_sp - 8).expect("mapped").1);
    // The frame list says what the hypervisor gave.
    let list: Vec<u64> = xen
        .read(start.mfn_list, xen.frames.len() * 8)
        .chunks(8)
        .map(|entry| u64::from_le_bytes(entry.try_into().expect("eight")))
        .collect();
    assert_eq!(list, xen.frames.iter().map(|mfn| mfn.0).collect::<Vec<_>>());
    // The kernel is where its segment says, followed by zeros.
    let kernel_va = 0xffff_ffff_8000_0000 + elf.paddr;
    assert_eq!(xen.read(kernel_va, elf.code.len()), elf.code);
    assert!(xen.read(kernel_va + elf.code.len() as u64, 64).iter().all(|byte| *byte == 0));
    // Tables are read-only and in order from the root on; the rest of the start mapping is writable.
    for at in 0..start.nr_pt_frames {
        let (_, writable) = xen.walk(start.pt_base + at * 4096).expect("mapped");
        assert!(!writable, "table {at}");
    }
    assert!(xen.walk(start.pt_base + start.nr_pt_frames * 4096).expect("mapped").1);
    assert!(xen.walk(vcpu.kernel_sp + (512 << 10) - 4096).is_some() || start.nr_pages < 512, "padding is mapped");
    // Only its own frames are mapped, each at most where it belongs.
    let grants = xen.page(GRANT_FRAME.0);
    assert_eq!(&grants[..4], &[1, 0, 0, 0]);
    assert_eq!(&grants[4..8], &(built.console_frame.0 as u32).to_le_bytes());
    assert_eq!(&grants[12..16], &(built.store_frame.0 as u32).to_le_bytes());
    let shared = xen.page(SHARED_INFO.0);
    assert!((0..32).all(|vcpu| shared[vcpu * 64] == 0 && shared[vcpu * 64 + 1] == 1));
    for frame in [built.store_frame, built.console_frame] {
        assert!(xen.page(frame.0).iter().all(|byte| *byte == 0));
    }
    let Some(ramdisk) = ramdisk else {
        assert_eq!((start.mod_start, start.mod_len), (0, 0));
        return;
    };
    assert_eq!(start.mod_len, ramdisk.len() as u64);
    if start.flags & 8 != 0 {
        let pages = &xen.frames[start.mod_start as usize..];
        let bytes: Vec<u8> = pages.iter().take(ramdisk.len().div_ceil(4096)).flat_map(|mfn| xen.page(mfn.0)).collect();
        assert_eq!(&bytes[..ramdisk.len()], ramdisk);
    } else {
        assert_eq!(xen.read(start.mod_start, ramdisk.len()), ramdisk);
    }
}

#[test]
fn a_guest_finds_what_the_boot_contract_promises() {
    let ramdisk: Vec<u8> = (0..10_000_u32).map(|n| n as u8).collect();
    for elf in [Elf::new(), Elf::with_places_by_frame()] {
        for ramdisk in [None, Some(ramdisk.as_slice())] {
            let (xen, built) = good(&elf, ramdisk, 16);
            check_contract(&xen, &built, &elf, ramdisk);
            assert_eq!(xen.alive, BTreeSet::from([5]));
        }
    }
}

#[test]
fn a_frame_list_with_a_place_of_its_own_counts_its_tables() {
    let (xen, _) = good(&Elf::with_places_by_frame(), None, 16);
    let rsi = xen.vcpu.as_ref().expect("a vcpu").user_regs.rsi;
    let start = StartInfo::read_from_bytes(&xen.read(rsi, size_of::<StartInfo>())).expect("its size");
    assert_eq!(start.mfn_list, 0x80_0000_0000);
    // 16 MiB: 8 pages of list and one table of each level below the root.
    assert_eq!(start.nr_p2m_frames, 8 + 3);
    assert_ne!(start.flags & 16, 0);
}

#[test]
fn a_hypercall_page_is_filled_where_the_note_says() {
    let mut elf = Elf::new();
    elf.note(2, &0xffff_ffff_8010_1000_u64.to_le_bytes());
    let (xen, _) = good(&elf, None, 16);
    assert_eq!(xen.hypercall_page, Some(xen.frames[0x101]));
}

#[test]
fn whatever_step_fails_nothing_is_left_of_the_domain() {
    let elf = Elf::with_places_by_frame();
    let (whole, _) = good(&elf, Some(b"ramdisk"), 8);
    for step in 1..=whole.calls {
        let mut xen = FakeXen { fail_at: Some(step), ..FakeXen::default() };
        let error = build(&mut xen, &request(&elf.bytes(), Some(b"ramdisk"), 8)).expect_err("a step fails");
        assert!(matches!(error, BuildError::Control(_)), "{error}");
        assert!(xen.alive.is_empty(), "step {step}");
    }
}

#[test]
fn a_kernel_without_notes_is_named_so() {
    let elf = Elf { notes: Vec::new(), ..Elf::new() };
    assert!(refusal(&elf.bytes(), 16).contains("no Xen ELF notes"));
}

#[test]
fn a_kernel_without_a_pvh_entry_is_told_what_it_lacks() {
    let mut xen = FakeXen::default();
    let kernel = Elf::new().bytes();
    let request = Request { kind: GuestKind::Pvh, ..request(&kernel, None, 8) };
    let error = build(&mut xen, &request).expect_err("no entry").to_string();
    assert!(error.contains("no PVH entry") && xen.calls == 0, "{error}");
}

#[test]
fn a_kernel_for_pvh_alone_is_named_so() {
    let mut elf = Elf { notes: Vec::new(), ..Elf::new() };
    elf.note(6, b"linux\0");
    elf.note(8, b"generic\0");
    elf.note(18, &0x10_0000_u32.to_le_bytes());
    assert!(refusal(&elf.bytes(), 16).contains("PVH guest alone"));
}

#[test]
fn a_kernel_too_large_for_its_memory_is_told_how_much_it_needs() {
    let elf = Elf { memsz: 30 << 20, ..Elf::new() };
    let line = refusal(&elf.bytes(), 16);
    assert!(line.contains("need 32 MiB") && line.contains("memory = 32"), "{line}");
    let line = refusal(&Elf { memsz: 1 << 39, ..Elf::new() }.bytes(), 16);
    assert!(line.contains("MiB"), "{line}");
}

#[test]
fn files_that_are_no_kernels_or_are_cut_off_are_named() {
    assert!(refusal(b"#!/bin/sh", 16).contains("no ELF image"));
    let whole = Elf::new().bytes();
    assert!(refusal(&whole[..100], 16).contains("cut off"));
    assert!(refusal(&whole[..180], 16).contains("Xen ELF notes"));
    let arm = Elf { machine: 183, ..Elf::new() };
    assert!(refusal(&arm.bytes(), 16).contains("64-bit x86"));
    assert!(refusal(&[0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0, 9, 9], 16).contains("gzip data is damaged"));
    assert!(refusal(b"BZh9", 16).contains("bzip2"));
}

#[test]
fn a_required_feature_that_pv_guests_lack_is_named() {
    let mut elf = Elf::new();
    elf.note(10, b"!hvm_callback_vector|pae_pgdir_above_4gb\0");
    assert!(refusal(&elf.bytes(), 16).contains("\"hvm_callback_vector\""));
}

#[test]
fn a_command_line_that_is_too_long_is_refused() {
    let elf = Elf::new().bytes();
    let long = "x".repeat(1024);
    let mut xen = FakeXen::default();
    let error = build(&mut xen, &Request { command_line: &long, ..request(&elf, None, 16) }).expect_err("too long");
    assert!(error.to_string().contains("1024 bytes"));
    assert_eq!(xen.calls, 0);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]
    #[test]
    fn the_contract_holds_for_any_size(
        memory_mib in 8_u64..64,
        code in 1_usize..20_000,
        bss in 0_u64..2_000_000,
        ramdisk in prop::option::of(0_usize..1_000_000),
        by_frame in any::<bool>(),
    ) {
        let mut elf = if by_frame { Elf::with_places_by_frame() } else { Elf::new() };
        elf.code = (0..code).map(|n| n as u8).collect();
        elf.memsz = code as u64 + 64 + bss;
        let ramdisk = ramdisk.map(|len| vec![0x5a; len]);
        let mut xen = FakeXen::default();
        if let Ok(built) = build(&mut xen, &request(&elf.bytes(), ramdisk.as_deref(), memory_mib)) {
            check_contract(&xen, &built, &elf, ramdisk.as_deref());
        }
    }

    #[test]
    fn no_damage_to_a_kernel_file_stops_the_builder(
        at in 0_usize..400,
        bytes in prop::collection::vec(any::<u8>(), 1..16),
    ) {
        let mut file = Elf::with_places_by_frame().bytes();
        let at = at.min(file.len());
        let end = (at + bytes.len()).min(file.len());
        file[at..end].copy_from_slice(&bytes[..end - at]);
        let mut xen = FakeXen::default();
        let alive = build(&mut xen, &request(&file, None, 8)).is_ok();
        prop_assert_eq!(!xen.alive.is_empty(), alive);
    }
}
