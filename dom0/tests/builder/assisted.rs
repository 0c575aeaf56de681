//! Guests with hardware assistance: what they find when they start, by Xen's protocol and by Linux's own.

use pv_abi::hvm::{
    HVM_PARAM_ACPI_IOPORTS_LOCATION, HVM_PARAM_CONSOLE_PFN, HVM_PARAM_STORE_EVTCHN, HVM_PARAM_STORE_PFN, HvmHwCpu,
    HvmMemmapTableEntry, HvmModlistEntry, HvmSaveDescriptor, HvmSaveHeader, HvmStartInfo,
};

use super::*;

fn physical(xen: &FakeXen, at: u64, len: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    for address in at..at + len as u64 {
        bytes.push(xen.page(address >> 12)[address as usize & 4095]);
    }
    bytes
}

fn structure<T: FromBytes>(xen: &FakeXen, at: u64) -> T {
    T::read_from_bytes(&physical(xen, at, size_of::<T>())).expect("its size")
}

#[test]
fn a_guest_with_hardware_assistance_finds_what_its_boot_contract_promises() {
    let mut elf = Elf::new();
    elf.note(18, &0x10_0008_u32.to_le_bytes());
    let (kernel, ramdisk) = (elf.bytes(), vec![0x5a; 5000]);
    let request = Request { kind: GuestKind::Pvh, ..request(&kernel, Some(&ramdisk), 16) };
    let mut xen = FakeXen::default();
    let built = build(&mut xen, &request).expect("a good kernel");
    assert_eq!(physical(&xen, elf.paddr, elf.code.len()), elf.code);
    let cpu_at = size_of::<HvmSaveDescriptor>() * 2 + size_of::<HvmSaveHeader>();
    let (cpu, _) = HvmHwCpu::read_from_prefix(&xen.records[cpu_at..]).expect("a vCPU");
    assert_eq!((cpu.rip, cpu.cr0 & 0x8000_0001, cpu.cs_limit), (0x10_0008, 1, u32::MAX));
    let info: HvmStartInfo = structure(&xen, cpu.rbx);
    assert_eq!((info.magic, info.version, info.nr_modules), (0x336e_c578, 1, 1));
    assert_eq!(physical(&xen, info.cmdline_paddr, 21), b"console=hvc0 exec=ls\0");
    let module: HvmModlistEntry = structure(&xen, info.modlist_paddr);
    assert_eq!(physical(&xen, module.paddr, module.size as usize), ramdisk);
    assert_eq!(physical(&xen, info.rsdp_paddr, 8), b"RSD PTR ");
    let first: HvmMemmapTableEntry = structure(&xen, info.memmap_paddr);
    assert_eq!((first.addr, first.size, first.type_), (0, 16 << 20, 1));
    assert_eq!(info.memmap_entries as usize, xen.map.len());
    // No two things share a byte of memory, and the tables and special pages are not for use.
    for (place, one) in xen.map.iter().enumerate() {
        assert!(xen.map[place + 1..].iter().all(|other| other.addr >= one.addr + one.size));
    }
    assert_eq!(xen.parameters[&HVM_PARAM_STORE_PFN], built.store_frame.0);
    assert_eq!(xen.parameters[&HVM_PARAM_STORE_EVTCHN], built.store_port.0.into());
    assert_eq!(xen.parameters[&HVM_PARAM_CONSOLE_PFN], built.console_frame.0);
    assert_eq!(xen.grants_at, None, "the grant table is nowhere until the guest puts it somewhere");
}

#[test]
fn whatever_step_fails_nothing_is_left_of_a_guest_with_hardware_assistance() {
    let mut elf = Elf::new();
    elf.note(18, &0x10_0008_u32.to_le_bytes());
    let kernel = elf.bytes();
    for kind in [GuestKind::Pvh, GuestKind::Hvm] {
        let asked = Request { kind, ..request(&kernel, None, 8) };
        let mut good = FakeXen::default();
        build(&mut good, &asked).expect("a good kernel");
        for step in 1..=good.calls {
            let mut xen = FakeXen { fail_at: Some(step), ..FakeXen::default() };
            let error = build(&mut xen, &asked).expect_err("a step fails");
            assert!(matches!(error, BuildError::Control(_)) && xen.alive.is_empty(), "{kind:?}, step {step}");
        }
    }
}

fn vcpu(xen: &FakeXen) -> HvmHwCpu {
    let at = size_of::<HvmSaveDescriptor>() * 2 + size_of::<HvmSaveHeader>();
    HvmHwCpu::read_from_prefix(&xen.records[at..]).expect("a vCPU").0
}

fn assert_map_has_the_hole_of_a_pc(xen: &FakeXen) {
    let ram: Vec<_> = xen.map.iter().filter(|entry| entry.type_ == 1).map(|entry| (entry.addr, entry.size)).collect();
    assert_eq!(ram, [(0, 0xa_0000), (0x10_0000, 15 << 20)]);
    assert!(xen.frames.iter().all(|frame| !(0xa0..0x100).contains(&frame.0)), "no memory where the display is");
    assert!(xen.map.windows(2).all(|pair| pair[0].addr + pair[0].size <= pair[1].addr), "in order");
}

#[test]
fn a_kernel_with_an_entry_without_paging_finds_a_pc() {
    let mut elf = Elf::new();
    elf.note(18, &0x10_0008_u32.to_le_bytes());
    let kernel = elf.bytes();
    let request = Request { kind: GuestKind::Hvm, ..request(&kernel, None, 16) };
    let mut xen = FakeXen::default();
    build(&mut xen, &request).expect("a good kernel");
    assert_map_has_the_hole_of_a_pc(&xen);
    let cpu = vcpu(&xen);
    let info: HvmStartInfo = structure(&xen, cpu.rbx);
    assert_eq!((cpu.rip, info.magic), (0x10_0008, 0x336e_c578));
    assert_eq!(xen.parameters[&HVM_PARAM_ACPI_IOPORTS_LOCATION], 1);
    let tables = physical(&xen, info.rsdp_paddr, 4096);
    assert!(tables.windows(4).any(|name| name == b"PCI0"));
}

#[test]
fn linux_on_a_pc_is_started_by_its_own_protocol() {
    let mut elf = Elf { notes: Vec::new(), ..Elf::new() };
    elf.note(6, b"linux\0");
    elf.note(18, &0x10_0008_u32.to_le_bytes());
    let (kernel, ramdisk) = (elf.bytes(), vec![0x5a; 5000]);
    let request = Request { kind: GuestKind::Hvm, ..request(&kernel, Some(&ramdisk), 16) };
    let mut xen = FakeXen::default();
    build(&mut xen, &request).expect("a good kernel");
    assert_map_has_the_hole_of_a_pc(&xen);
    let cpu = vcpu(&xen);
    // In 64-bit mode at the file's own entry, with everything below 4 GiB where it is.
    assert_eq!((cpu.rip, cpu.cr0 >> 31, cpu.msr_efer, cpu.cs_arbytes >> 9 & 1), (0x10_0000, 1, 0x500, 1));
    let entry = |table: u64, index: u64| structure::<[u8; 8]>(&xen, table + index * 8).map(u64::from);
    let word = |table: u64, index: u64| entry(table, index).iter().rev().fold(0, |word, byte| word << 8 | byte);
    for address in [0x10_0000_u64, 0x7fff_ffff, 0xfee0_0000] {
        let below = |table: u64, shift: u32| word(table & !0xfff, address >> shift & 511);
        let leaf = below(below(below(cpu.cr3, 39), 30), 21);
        assert_eq!((leaf & !0xfff, leaf & 0x81), (address & !0x1f_ffff, 0x81));
    }
    let parameters = physical(&xen, cpu.rsi, 4096);
    let at = |place: usize| u32::from_le_bytes(parameters[place..place + 4].try_into().expect("four"));
    assert_eq!((&parameters[0x1fe..0x200], &parameters[0x202..0x206]), (&[0x55, 0xaa][..], &b"HdrS"[..]));
    assert_eq!(physical(&xen, at(0x228).into(), 21), b"console=hvc0 exec=ls\0");
    assert_eq!(physical(&xen, at(0x218).into(), at(0x21c) as usize), ramdisk);
    assert_eq!(physical(&xen, at(0x070).into(), 8), b"RSD PTR ");
    assert_eq!(usize::from(parameters[0x1e8]), xen.map.len());
    assert_eq!(parameters[0x2d0..][..20], xen.map[0].to_bytes());
}

#[test]
fn a_kernel_that_no_protocol_starts_is_told_what_it_lacks() {
    let mut xen = FakeXen::default();
    let kernel = Elf::new().bytes();
    let request = Request { kind: GuestKind::Hvm, ..request(&kernel, None, 8) };
    let error = build(&mut xen, &request).expect_err("no entry").to_string();
    assert!(error.contains("CONFIG_PVH=y") && xen.calls == 0, "{error}");
    let mut low = Elf { paddr: 0x1000, ..Elf::new() };
    low.note(18, &0x1000_u32.to_le_bytes());
    let kernel = low.bytes();
    let request = Request { kernel: &kernel, ..request };
    let error = build(&mut xen, &request).expect_err("below 1 MiB").to_string();
    assert!(error.contains("below 1 MiB") && xen.calls == 0, "{error}");
}
