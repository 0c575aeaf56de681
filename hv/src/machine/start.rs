//! The second step of the start: on the hypervisor's own page tables and the boot CPU's stack.
//!
//! The CPU's features and the devices are turned on, the library's [`Hypervisor`] is put together, dom0 is built and
//! entered.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::arch::x86_64::{__cpuid, __cpuid_count};
use core::ops::Range;

use hv::control::options::Options;
use hv::control::{self, Dom0, Ramdisk};
use hv::domain::DomainTable;
use hv::frames::{self, Allocator, Frame, FrameTable, PageType};
use hv::hardware::Machine;
use hv::{Hypervisor, sched};
use log::info;
use pv_abi::{DomId, Mfn};

use spin::Mutex;
use x86_64::registers::control::{Cr4, Cr4Flags};

use super::acpi::Acpi;
use super::apic::{self, IoApics, LocalApic};
use super::boot::{Devices, HEAP, PREPARED, Prepared, fail};
use super::clock::Clock;
use super::cpu::Cpu;
use super::hardware::{CONSOLE, Hardware, bytes};
use super::heap::ALLOCATOR;
use super::layout::{DIRECT_MAP, PAGE};
use super::multiboot::{MemoryRange, Module};
use super::vectors::msr;
use super::{entry, fixup, fpu, messages, smap, smp, strings, svm};

/// The interrupt of the first serial line on the ISA bus.
const COM1_ISA: u8 = 4;
/// The cacheability of the eight page attributes, as Xen sets it and guests expect: WB, WT, UC-, UC, WC, WP, UC, UC.
const PAGE_ATTRIBUTES: u64 = 0x0000_0501_0007_0406;

/// Goes on where [`super::boot`] ended.
pub(crate) extern "C" fn on_own_stack() -> ! {
    let Some(mut prepared) = PREPARED.lock().take() else { fail("the start went wrong") };
    prepared.memory.moved_to(DIRECT_MAP);
    let heap = (DIRECT_MAP + prepared.heap) as *mut u8;
    // SAFETY: the range was taken for this and is mapped with all RAM.
    unsafe { ALLOCATOR.lock().claim(heap, HEAP as usize) };
    turn_on_features();
    let modules = core::mem::take(&mut prepared.information.modules);
    let hv = put_together(prepared);
    smp::release(hv);
    start_dom0(hv, &modules);
    entry::enter_first_guest(hv)
}

/// Turns on what all CPUs use.
pub(super) fn turn_on_features() {
    let mut flags = Cr4Flags::PHYSICAL_ADDRESS_EXTENSION | Cr4Flags::PAGE_GLOBAL | Cr4Flags::MACHINE_CHECK_EXCEPTION;
    flags |= Cr4Flags::OSFXSR | Cr4Flags::OSXMMEXCPT_ENABLE;
    if __cpuid(0).eax >= 7 && __cpuid_count(7, 0).ebx & 1 << 7 != 0 {
        flags |= Cr4Flags::SUPERVISOR_MODE_EXECUTION_PROTECTION;
    }
    if smap::is_on() {
        flags |= Cr4Flags::SUPERVISOR_MODE_ACCESS_PREVENTION;
    }
    // SAFETY: paging stays as it is; the hypervisor executes nothing of guests' pages.
    unsafe { Cr4::write(flags) };
    let _ = fixup::write_msr(msr::PAT, PAGE_ATTRIBUTES);
    if let Some(features) = fixup::read_msr(msr::EFER) {
        // `syscall`, no-execute.
        let _ = fixup::write_msr(msr::EFER, features | 1 | 1 << 11);
    }
    fpu::start();
    svm::start();
}

/// Starts the devices and makes the library's hypervisor of what there is.
fn put_together(prepared: Prepared) -> &'static Hypervisor<Hardware> {
    let Prepared { options, information, acpi, memory, frame_count, root, m2p, frame_table, devices, cpus, .. } =
        prepared;
    let table = (DIRECT_MAP + frame_table) as *const Frame;
    // SAFETY: zeroed memory is a table of frames that are nobody's, and this one is used for nothing else.
    let records = unsafe { core::slice::from_raw_parts(table, frame_count as usize) };
    let mut machine = start_devices(devices, &acpi);
    machine.frame_count = frame_count;
    machine.root = Mfn(root / PAGE);
    machine.m2p = (Mfn(m2p.start / PAGE), (m2p.end - m2p.start) / PAGE);
    machine.memory = information.memory;
    machine.processors = smp::start_others(&cpus, root, machine.local_apic, &machine.clock, &machine.memory);
    let cpus = machine.cpu_count();
    say_hello(&machine, &options);
    let hv: &'static Hypervisor<Hardware> = Box::leak(Box::new(Hypervisor {
        machine,
        frames: FrameTable::new(records),
        allocator: Mutex::new(Allocator::new()),
        domains: DomainTable::default(),
        scheduler: sched::Scheduler::new(cpus),
        timers: hv::time::Timers::new(cpus),
        interrupts: hv::control::physdev::Interrupts::default(),
        console: hv::control::console::Console::default(),
        options,
    }));
    Cpu::current().set_hv(hv);
    messages::record_in(hv);
    for range in memory.into_free() {
        frames::add_free(hv, range.start / PAGE..range.end / PAGE);
    }
    for frame in m2p.step_by(PAGE as usize) {
        frames::share(hv, Mfn(frame / PAGE), DomId::XEN, PageType::Shared);
    }
    hv
}

/// Builds dom0 from the modules: its kernel, then its ramdisk.
fn start_dom0(hv: &Hypervisor<Hardware>, modules: &[Module]) {
    let [kernel, rest @ ..] = modules else { fail("no kernel for dom0") };
    // SAFETY: the module is RAM that was taken for it, and is given up only below.
    let file = unsafe { bytes(kernel.start, kernel.end - kernel.start) };
    let ramdisk = rest.first().map(|module| Ramdisk { frames: frames_of(module), len: module.end - module.start });
    let dom0 = Dom0 { kernel: file, command_line: &kernel.arguments, ramdisk };
    match control::build_dom0(hv, &dom0) {
        Ok(domain) => control::start(hv, &domain),
        Err(error) => fail(error),
    }
    frames::add_free(hv, frames_of(kernel));
    info!("dom0 starts with {} free frames left for others", hv.allocator.lock().free_count());
}

fn frames_of(module: &Module) -> Range<u64> {
    module.start / PAGE..module.end.div_ceil(PAGE)
}

fn start_devices(devices: Devices, acpi: &Acpi) -> Hardware {
    apic::silence_old_controllers();
    let local_apic: &'static LocalApic = Box::leak(Box::new(LocalApic::new(devices.local_apic)));
    local_apic.start();
    Cpu::current().apic_id.set(local_apic.id());
    let clock = Clock::start(local_apic);
    local_apic.start_timer(clock.apic_khz);
    let io_apics = IoApics::new(devices.io_apics.into_iter());
    let (gsi, mode) = apic::isa_line(&acpi.overrides, COM1_ISA);
    let routed = io_apics.route(gsi, mode, local_apic.id());
    if routed {
        CONSOLE.enable_interrupt();
        io_apics.mask(gsi, false);
    }
    Hardware {
        frame_count: 0,
        root: Mfn(0),
        m2p: (Mfn(0), 0),
        memory: Vec::new(),
        own_registers: devices.own_registers,
        address_bits: if __cpuid(0x8000_0000).eax < 0x8000_0008 { 36 } else { __cpuid(0x8000_0008).eax & 0xff },
        intel: __cpuid(0).ebx == u32::from_le_bytes(*b"Genu"),
        fast_bytes: strings::bytes_are_as_fast_as_words(),
        clock,
        local_apic,
        processors: Vec::new(),
        io_apics,
        console: &CONSOLE,
        console_gsi: routed.then_some(gsi),
        device_window: Mutex::new(devices.window),
    }
}

fn say_hello(machine: &Hardware, options: &Options) {
    info!("Xenolith hv {}, a Xen 4.17 compatible hypervisor", env!("CARGO_PKG_VERSION"));
    info!("command line: {}", options.command_line);
    for range in &machine.memory {
        let kind = match range.kind {
            MemoryRange::RAM => "usable",
            3 => "ACPI tables",
            4 => "ACPI data",
            5 => "damaged",
            _ => "reserved",
        };
        info!("memory {:#014x}-{:#014x} {kind}", range.start, range.end());
    }
    let khz = machine.clock.scale().khz;
    let timer = machine.clock.apic_khz.map_or("deadline", |_| "count-down");
    info!("processors: {}, {}.{:03} MHz, timer by {timer}", machine.cpu_count(), khz / 1000, khz % 1000);
    info!("{} interrupt lines", machine.line_count());
}
