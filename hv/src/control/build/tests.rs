//! dom0 is built on a fake machine from a kernel made here.

use core::sync::atomic::Ordering;

use pv_abi::Mfn;
use pv_abi::elfnote as note;
use zerocopy::FromBytes;

use super::*;
use crate::control::options::Options;
use crate::fake::{Bed, entry};

const BASE: u64 = 0xffff_ffff_8000_0000;
const KERNEL_AT: u64 = 0x10_0000;
const ENTRY: u64 = BASE + KERNEL_AT + 0x40;
const LIST: u64 = 0x80_0000_0000;

/// An ELF file with one segment of this code and notes.
fn kernel(notes: &[(u32, Vec<u8>)], code: &[u8]) -> Vec<u8> {
    let mut table = Vec::new();
    for (kind, value) in notes {
        table.extend(4_u32.to_le_bytes());
        table.extend((value.len() as u32).to_le_bytes());
        table.extend(kind.to_le_bytes());
        table.extend(b"Xen\0");
        table.extend(value);
        table.resize(table.len().next_multiple_of(4), 0);
    }
    let (code_at, notes_at) = (0x1000, 0x400);
    let mut file = vec![0; code_at];
    file[..8].copy_from_slice(b"\x7fELF\x02\x01\x01\x00");
    let mut put = |at: usize, bytes: &[u8]| file[at..at + bytes.len()].copy_from_slice(bytes);
    put(16, &2_u16.to_le_bytes());
    put(18, &62_u16.to_le_bytes());
    put(20, &1_u32.to_le_bytes());
    put(24, &0xdead_u64.to_le_bytes());
    put(32, &64_u64.to_le_bytes());
    put(52, &64_u16.to_le_bytes());
    put(54, &56_u16.to_le_bytes());
    put(56, &2_u16.to_le_bytes());
    let segments: [(u32, u64, u64, u64, u64); 2] = [
        (1, code_at as u64, KERNEL_AT, code.len() as u64, 0x3000),
        (4, notes_at as u64, 0, table.len() as u64, table.len() as u64),
    ];
    for (n, (kind, offset, paddr, filesz, memsz)) in segments.into_iter().enumerate() {
        let at = 64 + n * 56;
        put(at, &kind.to_le_bytes());
        put(at + 8, &offset.to_le_bytes());
        put(at + 16, &0_u64.to_le_bytes());
        put(at + 24, &paddr.to_le_bytes());
        put(at + 32, &filesz.to_le_bytes());
        put(at + 40, &memsz.to_le_bytes());
        put(at + 48, &8_u64.to_le_bytes());
    }
    put(notes_at, &table);
    file.extend(code);
    file
}

fn word(value: u64) -> Vec<u8> {
    value.to_le_bytes().to_vec()
}

fn linux_notes() -> Vec<(u32, Vec<u8>)> {
    vec![
        (note::XEN_ELFNOTE_XEN_VERSION, b"xen-3.0\0".to_vec()),
        (note::XEN_ELFNOTE_LOADER, b"generic\0".to_vec()),
        (note::XEN_ELFNOTE_VIRT_BASE, word(BASE)),
        (note::XEN_ELFNOTE_ENTRY, word(ENTRY)),
        (note::XEN_ELFNOTE_INIT_P2M, word(LIST)),
        (note::XEN_ELFNOTE_MOD_START_PFN, word(1)),
        (note::XEN_ELFNOTE_HYPERCALL_PAGE, word(BASE + KERNEL_AT + 0x1000)),
    ]
}

fn bed(options: &str) -> Bed {
    let mut bed = Bed::new(4096);
    bed.hv.options = Options::parse(options).unwrap();
    bed
}

fn without(kind: u32) -> Vec<(u32, Vec<u8>)> {
    linux_notes().into_iter().filter(|note| note.0 != kind).collect()
}

fn built(bed: &Bed, file: &[u8], ramdisk: Option<Ramdisk>) -> Arc<Domain> {
    build_dom0(&bed.hv, &Dom0 { kernel: file, command_line: "console=hvc0", ramdisk }).unwrap()
}

/// Reads dom0's memory through its own tables.
fn read<T: FromBytes + IntoBytes>(bed: &Bed, address: u64) -> T {
    let mut value = T::new_zeroed();
    bed.hv.machine.copy_from_guest(address, value.as_mut_bytes()).unwrap();
    value
}

fn enter(bed: &Bed, domain: &Domain) -> (Registers, Mfn) {
    let vcpu = domain.vcpu(VcpuId(0)).unwrap();
    let slot = vcpu.state.lock();
    let state = slot.as_ref().unwrap();
    bed.hv.machine.load_root(state.kernel_root.unwrap());
    (state.registers, state.kernel_root.unwrap())
}

#[test]
fn a_kernel_finds_itself_its_start_info_and_its_stack() {
    let bed = bed("dom0_mem=12M");
    let domain = built(&bed, &kernel(&linux_notes(), b"code of the kernel"), None);
    let (registers, root) = enter(&bed, &domain);
    assert_eq!((registers.rip, registers.rflags), (ENTRY, flags::IF | flags::ALWAYS));
    assert_eq!(read::<[u8; 4]>(&bed, BASE + KERNEL_AT), *b"code");
    let stub: [u8; 14] = read(&bed, BASE + KERNEL_AT + 0x1000 + 17 * 32);
    assert_eq!(stub[..8], [0x51, 0x41, 0x53, 0xb8, 17, 0, 0, 0]);
    let info: Box<StartInfo> = Box::new(read(&bed, registers.rsi));
    assert!(info.has_magic());
    assert_eq!((info.nr_pages, info.flags), (12 << 8, SIF_PRIVILEGED | SIF_INITDOMAIN));
    assert_eq!(info.shared_info, domain.shared_info.0 << 12);
    assert_eq!(info.command_line(), b"console=hvc0");
    assert_eq!(info.mfn_list, LIST);
    let l4_frame: u64 = read(&bed, LIST + ((info.pt_base - BASE) >> 12) * 8);
    assert_eq!(Mfn(l4_frame), root);
    assert_eq!(registers.rsp, info.pt_base + (info.nr_pt_frames + 1) * 4096);
    assert_eq!(domain.memory.lock().total, 12 << 8);
}

#[test]
fn a_kernel_that_may_have_its_root_tables_anywhere_is_told_so() {
    let assists = |file: &[u8]| built(&bed("dom0_mem=12M"), file, None).assists.load(Ordering::Relaxed);
    let mut notes = linux_notes();
    assert_eq!(assists(&kernel(&notes, b"x")), 0);
    notes.push((note::XEN_ELFNOTE_PAE_MODE, b"yes\0".to_vec()));
    assert_eq!(assists(&kernel(&notes, b"x")), 1 << VMASST_TYPE_PAE_EXTENDED_CR3);
}

#[test]
fn the_list_of_frames_and_the_machines_table_agree() {
    let bed = bed("dom0_mem=12M");
    let domain = built(&bed, &kernel(&linux_notes(), b"x"), None);
    enter(&bed, &domain);
    for pfn in (0..12 << 8).step_by(97) {
        let mfn: u64 = read(&bed, LIST + pfn * 8);
        assert_eq!(bed.hv.machine.m2p(Mfn(mfn)), pfn);
    }
}

#[test]
fn page_tables_are_mapped_read_only_and_all_else_is_writable() {
    let bed = bed("dom0_mem=12M");
    let domain = built(&bed, &kernel(&linux_notes(), b"x"), None);
    let (registers, _) = enter(&bed, &domain);
    let info: Box<StartInfo> = Box::new(read(&bed, registers.rsi));
    for page in 0..info.nr_pt_frames {
        let address = info.pt_base + page * 4096;
        assert!(bed.hv.machine.translate(address, false).is_ok());
        assert!(bed.hv.machine.translate(address, true).is_err(), "{page}");
    }
    assert!(bed.hv.machine.translate(BASE, true).is_ok());
    assert!(bed.hv.machine.translate(registers.rsp - 8, true).is_ok());
    assert!(bed.hv.machine.translate(registers.rsp + (512 << 10), true).is_ok());
}

#[test]
fn the_ramdisk_keeps_its_frames() {
    let bed = bed("dom0_mem=12M");
    let first = crate::frames::allocate(&bed.hv, 2).unwrap();
    bed.hv.machine.write_bytes(first, 0, b"ramdisk");
    let ramdisk = Ramdisk { frames: first.0..first.0 + 3, len: 9000 };
    let domain = built(&bed, &kernel(&linux_notes(), b"x"), Some(ramdisk));
    let (registers, _) = enter(&bed, &domain);
    let info: Box<StartInfo> = Box::new(read(&bed, registers.rsi));
    assert_eq!((info.mod_len, info.flags & SIF_MOD_START_PFN), (9000, SIF_MOD_START_PFN));
    let mfn: u64 = read(&bed, LIST + info.mod_start * 8);
    assert_eq!(Mfn(mfn), first);
    assert_eq!(crate::frames::owner(&bed.hv, first.into()), Some(DomId::DOM0));
}

#[test]
fn a_kernel_without_wishes_has_ramdisk_and_list_mapped() {
    let bed = bed("dom0_mem=12M");
    let first = crate::frames::allocate(&bed.hv, 0).unwrap();
    bed.hv.machine.write_bytes(first, 0, b"ramdisk");
    let notes: Vec<_> = without(note::XEN_ELFNOTE_INIT_P2M)
        .into_iter()
        .filter(|note| note.0 != note::XEN_ELFNOTE_MOD_START_PFN)
        .collect();
    let ramdisk = Ramdisk { frames: first.0..first.0 + 1, len: 7 };
    let domain = built(&bed, &kernel(&notes, b"x"), Some(ramdisk));
    let (registers, _) = enter(&bed, &domain);
    let info: Box<StartInfo> = Box::new(read(&bed, registers.rsi));
    assert_eq!(read::<[u8; 7]>(&bed, info.mod_start), *b"ramdisk");
    let list: u64 = read(&bed, info.mfn_list + 8 * ((info.mod_start - BASE) >> 12));
    assert_eq!(Mfn(list), first);
}

#[test]
fn dom0_runs_once_it_is_started() {
    let bed = bed("dom0_mem=12M");
    let domain = built(&bed, &kernel(&linux_notes(), b"x"), None);
    let vcpu = domain.vcpu(VcpuId(0)).unwrap();
    assert!(!vcpu.is_runnable());
    start(&bed.hv, &domain);
    assert!(vcpu.is_runnable() && vcpu.initialised.load(Ordering::Acquire));
    let mut slot = None;
    assert_eq!(bed.schedule(&mut slot).domain.id, DomId::DOM0);
    let time = bed.hv.machine.read_word(domain.shared_info, 32 / 8 + 3);
    assert_ne!(time as u32, 0, "the clock's multiplier is there before the first instruction");
}

#[test]
fn its_tables_are_pinned_and_counted() {
    let bed = bed("dom0_mem=12M");
    let domain = built(&bed, &kernel(&linux_notes(), b"x"), None);
    let (_, root) = enter(&bed, &domain);
    let word = bed.hv.frames.record(root).type_word();
    assert!(word.has(crate::frames::TypeWord::PINNED));
    let entry = bed.hv.machine.read_word(root, 511);
    assert_eq!(entry & entry::PRESENT, entry::PRESENT);
}

#[test]
fn each_fault_of_a_kernel_is_one_line_with_the_cure() {
    let good = kernel(&linux_notes(), b"x");
    let mut bzimage = vec![0; 0x300];
    bzimage[0x202..0x206].copy_from_slice(b"HdrS");
    let entry_outside: Vec<_> = without(note::XEN_ELFNOTE_ENTRY)
        .into_iter()
        .chain([(note::XEN_ELFNOTE_ENTRY, word(BASE + 0x5000_0000))])
        .collect();
    let mut other_machine = good.clone();
    other_machine[18] = 40;
    let cases: Vec<(Vec<u8>, BuildError)> = vec![
        (vec![], BuildError::NoKernel),
        (bzimage, BuildError::Compressed("a bzImage")),
        (b"\x1f\x8b\x08".to_vec(), BuildError::Compressed("gzip'd")),
        (b"#!/bin/sh".to_vec(), BuildError::NotLoadable("it does not start with the ELF magic")),
        (good[..40].to_vec(), BuildError::NotLoadable("its headers are damaged or cut off")),
        (good[..0x1000].to_vec(), BuildError::NotLoadable("a segment is cut off or lies too high")),
        (other_machine, BuildError::NotLoadable("it is for another processor")),
        (kernel(&[], b"x"), BuildError::NoNotes),
        (kernel(&without(note::XEN_ELFNOTE_XEN_VERSION), b"x"), BuildError::WrongVersion),
        (kernel(&without(note::XEN_ELFNOTE_LOADER), b"x"), BuildError::WrongLoader),
        (kernel(&entry_outside, b"x"), BuildError::OutOfKernel("ENTRY")),
    ];
    for (file, expected) in cases {
        let bed = bed("dom0_mem=12M");
        let free = bed.hv.allocator.lock().free_count();
        let from = Dom0 { kernel: &file, command_line: "", ramdisk: None };
        let error = build_dom0(&bed.hv, &from).map(|_| ()).unwrap_err();
        assert_eq!(error, expected);
        assert!(!std::format!("{error}").contains('\n'));
        assert!(bed.hv.domains.get(DomId::DOM0).is_none());
        assert_eq!(bed.hv.allocator.lock().free_count(), free);
    }
}

#[test]
fn a_kernel_that_is_too_large_is_told_with_both_sizes() {
    let bed = bed("dom0_mem=2M");
    let file = kernel(&linux_notes(), b"x");
    let error = build_dom0(&bed.hv, &Dom0 { kernel: &file, command_line: "", ramdisk: None }).map(|_| ()).unwrap_err();
    assert!(matches!(error, BuildError::TooLarge { has: 512, .. }), "{error:?}");
    assert!(std::format!("{error}").contains("dom0_mem"));
}

#[test]
fn memory_that_there_is_not_is_named() {
    let bed = bed("dom0_mem=64M");
    let file = kernel(&linux_notes(), b"x");
    let error = build_dom0(&bed.hv, &Dom0 { kernel: &file, command_line: "", ramdisk: None }).map(|_| ()).unwrap_err();
    assert!(matches!(error, BuildError::NoMemory { .. }), "{error:?}");
}

#[test]
fn without_an_option_dom0_gets_all_but_a_reserve() {
    let bed = bed("");
    let available = bed.hv.allocator.lock().free_count();
    assert_eq!(memory_size(&bed.hv, &Ramdisk::default()), available - available / 16);
}
