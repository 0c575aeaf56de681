//! Interrupts of devices: messages that a device sends, and lines that two domains want.
//!
//! The machine has QEMU's `edu` at 00:05.0, which has MSI and raises it on demand, and a virtio device with MSI-X at
//! 00:06.0.
#![no_std]
#![no_main]
#![expect(unsafe_code, reason = "ports and a device's registers are reached with instructions of their own")]

use core::arch::asm;

use guest_tests::child::{Child, domctl};
use guest_tests::errno::{EBUSY, EEXIST, EINVAL, ENODEV, ENOSPC, ENXIO, EOPNOTSUPP, EPERM};
use guest_tests::{P, Page, RW, Shared, about, differs, expect, guest_test, map_shared_info, operation, say};
use pv_abi::domctl::{DomctlIrqPermission, XEN_DOMCTL_IRQ_PERMISSION};
use pv_abi::event_channel::{BIND_PIRQ_WILL_SHARE, EVTCHNOP_BIND_PIRQ, EVTCHNOP_CLOSE, EvtchnBindPirq, EvtchnClose};
use pv_abi::physdev::{
    MAP_PIRQ_TYPE_GSI, MAP_PIRQ_TYPE_MSI, MAP_PIRQ_TYPE_MULTI_MSI, PHYSDEVOP_EOI, PHYSDEVOP_GET_FREE_PIRQ,
    PHYSDEVOP_MAP_PIRQ, PHYSDEVOP_PCI_DEVICE_ADD, PHYSDEVOP_PREPARE_MSIX, PHYSDEVOP_RELEASE_MSIX,
    PHYSDEVOP_RESTORE_MSI, PHYSDEVOP_SET_IOPL, PHYSDEVOP_SETUP_GSI, PHYSDEVOP_UNMAP_PIRQ, PhysdevEoi,
    PhysdevGetFreePirq, PhysdevMapPirq, PhysdevPciDevice, PhysdevPciDeviceAdd, PhysdevRestoreMsi, PhysdevSetIopl,
    PhysdevSetupGsi, PhysdevUnmapPirq,
};
use pv_abi::xen::{DOMID_SELF, HYPERVISOR_EVENT_CHANNEL_OP, HYPERVISOR_PHYSDEV_OP};

guest_test!(devices);

/// Device and function of what sends MSI.
const EDU: u8 = 5 << 3;
/// Device and function of what sends MSI-X.
const VIRTIO: u8 = 6 << 3;
/// A slot that is empty.
const NOBODY: u8 = 0x1f << 3;
const MSI: u8 = 5;
const MSI_X: u8 = 0x11;
/// The message is on; in the upper half of the first word of MSI's capability.
const ENABLE: u32 = 1 << 16;
const COMMAND: u8 = 4;
const MEMORY: u32 = 1 << 1;
const BUS_MASTER: u32 = 1 << 2;
/// Registers of the device that raises interrupts on demand.
const RAISE: u64 = 0x60;
const ACKNOWLEDGE: u64 = 0x64;
const UNCACHED: u64 = 1 << 4;
const CHILD: u16 = 5;
/// A line that nothing uses.
const LINE: i32 = 20;
/// The line of the first serial port.
const CONSOLE: i32 = 4;

static REGISTERS: Page = Page::new();

fn devices() {
    let shared = map_shared_info();
    expect("I/O privilege is given", op(PHYSDEVOP_SET_IOPL, PhysdevSetIopl { iopl: 1 }), 0);
    expect("the devices are there", (config(EDU, 0), config(VIRTIO, 0) & 0xffff), (0x11e8_1234, 0x1af4));
    about("PHYSDEVOP_pci_device_add");
    for devfn in [EDU, VIRTIO] {
        let added = op(PHYSDEVOP_PCI_DEVICE_ADD, PhysdevPciDeviceAdd { devfn, ..Default::default() });
        expect("a device is announced", added, 0);
    }
    messages(shared);
    tables();
    lines();
    numbers();
}

fn op<T>(command: u32, mut argument: T) -> i64 {
    operation(HYPERVISOR_PHYSDEV_OP, command, &mut argument)
}

fn select(devfn: u8, register: u8) {
    let value = 1 << 31 | u32::from(devfn) << 8 | u32::from(register & !3);
    // SAFETY: The port selects a register of PCI configuration space.
    unsafe { asm!("out dx, eax", in("dx") 0xcf8_u16, in("eax") value) };
}

fn config(devfn: u8, register: u8) -> u32 {
    select(devfn, register);
    let value: u32;
    // SAFETY: The port reads the register that was selected.
    unsafe { asm!("in eax, dx", in("dx") 0xcfc_u16, out("eax") value) };
    value
}

fn set_config(devfn: u8, register: u8, value: u32) {
    select(devfn, register);
    // SAFETY: The port writes the register that was selected, of a device that only this test uses.
    unsafe { asm!("out dx, eax", in("dx") 0xcfc_u16, in("eax") value) };
}

/// A message of a device, by its table where one is given; what the hypervisor says, and the number that it has.
fn map(kind: i32, devfn: u8, entry_nr: i32, table_base: u64) -> (i64, i32) {
    let mut wanted = PhysdevMapPirq {
        domid: DOMID_SELF,
        type_: kind,
        index: -1,
        pirq: -1,
        devfn: devfn.into(),
        entry_nr,
        table_base,
        ..Default::default()
    };
    (operation(HYPERVISOR_PHYSDEV_OP, PHYSDEVOP_MAP_PIRQ, &mut wanted), wanted.pirq)
}

fn unmap(pirq: i32) -> i64 {
    op(PHYSDEVOP_UNMAP_PIRQ, PhysdevUnmapPirq { domid: DOMID_SELF, pirq, ..Default::default() })
}

fn bind(pirq: i32, flags: u32) -> (i64, u32) {
    let mut bind = EvtchnBindPirq { pirq: pirq.cast_unsigned(), flags, ..Default::default() };
    (operation(HYPERVISOR_EVENT_CHANNEL_OP, EVTCHNOP_BIND_PIRQ, &mut bind), bind.port)
}

fn close(port: u32) -> i64 {
    operation(HYPERVISOR_EVENT_CHANNEL_OP, EVTCHNOP_CLOSE, &mut EvtchnClose { port })
}

fn write_register(register: u64, value: u32) {
    let place = (REGISTERS.va() + register) as *mut u32;
    // SAFETY: The device's registers are mapped there.
    unsafe { place.write_volatile(value) };
}

/// Raises the device's interrupt, and waits a while; whether the port became pending.
fn comes(shared: Shared, pirq: i32, port: u32) -> bool {
    shared.clear(port);
    write_register(RAISE, 1);
    let came = (0..100_000).any(|_| shared.is_pending(port));
    write_register(ACKNOWLEDGE, 1);
    shared.clear(port);
    op(PHYSDEVOP_EOI, PhysdevEoi { irq: pirq.cast_unsigned() });
    came
}

fn messages(shared: Shared) {
    about("PHYSDEVOP_map_pirq");
    let (result, pirq) = map(MAP_PIRQ_TYPE_MSI, EDU, 0, 0);
    expect("a device's message is mapped", (result, pirq > 0), (0, true));
    expect("two messages of a device are refused", map(MAP_PIRQ_TYPE_MULTI_MSI, VIRTIO, 2, 0).0, EOPNOTSUPP);
    expect("a device without messages has none", map(MAP_PIRQ_TYPE_MSI, 1 << 3, 0, 0).0, ENODEV);
    expect("nor has one that is not", map(MAP_PIRQ_TYPE_MSI, NOBODY, 0, 0).0, ENODEV);
    about("EVTCHNOP_bind_pirq");
    let (result, port) = bind(pirq, 0);
    expect("the message is bound", result, 0);
    shared.set_mask(port, true);
    let memory = u64::from(config(EDU, 0x10) & !0xf);
    set_config(EDU, COMMAND, config(EDU, COMMAND) | MEMORY | BUS_MASTER);
    let control = capability(EDU, MSI).unwrap_or(0);
    set_config(EDU, control, config(EDU, control) | ENABLE);
    let mapped = guest_tests::update_va_mapping(REGISTERS.va(), memory | P | RW | UNCACHED, 2);
    expect("the device's registers are mapped", mapped, 0);
    expect("its message arrives", comes(shared, pirq, port), true);
    expect("and again", comes(shared, pirq, port), true);
    about("PHYSDEVOP_restore_msi");
    let restored = op(PHYSDEVOP_RESTORE_MSI, PhysdevRestoreMsi { bus: 0, devfn: EDU });
    expect("its message is written anew", restored, 0);
    expect("and arrives", comes(shared, pirq, port), true);
    about("PHYSDEVOP_unmap_pirq");
    expect("its port is closed", close(port), 0);
    expect("then it does not arrive", comes(shared, pirq, port), false);
    about("PHYSDEVOP_map_pirq");
    let (result, second) = map(MAP_PIRQ_TYPE_MSI, EDU, 0, 0);
    differs("it is mapped once", result, EEXIST, 0);
    let _ = unmap(second);
    about("PHYSDEVOP_unmap_pirq");
    expect("it is unmapped", unmap(pirq), 0);
    about("PHYSDEVOP_map_pirq");
    let (result, pirq) = map(MAP_PIRQ_TYPE_MSI, EDU, 0, 0);
    expect("then it can be mapped again", (result, unmap(pirq)), (0, 0));
}

/// Where a capability of a device is.
fn capability(devfn: u8, wanted: u8) -> Option<u8> {
    let mut at = config(devfn, 0x34) as u8;
    while at != 0 {
        let head = config(devfn, at);
        if head as u8 == wanted {
            return Some(at);
        }
        at = (head >> 8) as u8;
    }
    None
}

/// Where the MSI-X table of a device is.
fn table_of(devfn: u8) -> Option<u64> {
    let place = config(devfn, capability(devfn, MSI_X)? + 4);
    let base = config(devfn, 0x10 + (place & 7) as u8 * 4);
    Some(u64::from(base & !0xf) + u64::from(place & !7))
}

fn tables() {
    about("PHYSDEVOP_prepare_msix");
    let device = PhysdevPciDevice { devfn: VIRTIO, ..Default::default() };
    expect("a device with a table of messages is prepared", op(PHYSDEVOP_PREPARE_MSIX, device), 0);
    about("PHYSDEVOP_map_pirq");
    let table = table_of(VIRTIO).unwrap_or(0);
    let entry = |index: i32| map(MAP_PIRQ_TYPE_MSI, VIRTIO, index, table);
    expect("an entry beyond the table is refused", entry(2047).0, EINVAL);
    expect("entry -1 is refused", entry(-1).0, EINVAL);
    let command = config(VIRTIO, COMMAND);
    set_config(VIRTIO, COMMAND, command & !MEMORY);
    expect("an entry is refused while the device's memory is off", entry(0).0, ENXIO);
    set_config(VIRTIO, COMMAND, command | MEMORY);
    let (result, pirq) = entry(0);
    expect("an entry is mapped", (result, pirq > 0), (0, true));
    let (result, second) = entry(0);
    differs("once", result, EEXIST, 0);
    let _ = unmap(second);
    let (result, other) = entry(1);
    expect("another entry is, too", (result, other > 0 && other != pirq), (0, true));
    expect("both are unmapped", (unmap(pirq), unmap(other)), (0, 0));
    about("PHYSDEVOP_release_msix");
    expect("the device is released", op(PHYSDEVOP_RELEASE_MSIX, device), 0);
}

fn map_line(domid: u16, index: i32, pirq: i32) -> i64 {
    let wanted = PhysdevMapPirq { domid, type_: MAP_PIRQ_TYPE_GSI, index, pirq, ..Default::default() };
    op(PHYSDEVOP_MAP_PIRQ, wanted)
}

/// A line that two domains want.
fn lines() {
    about("PHYSDEVOP_map_pirq");
    let level = PhysdevSetupGsi { gsi: LINE, triggering: 1, polarity: 1, ..Default::default() };
    expect("a line is set up", op(PHYSDEVOP_SETUP_GSI, level), 0);
    expect("and mapped", map_line(DOMID_SELF, LINE, LINE), 0);
    expect("not with a number beyond all", map_line(DOMID_SELF, 21, 1 << 20), EINVAL);
    let Some(child) = Child::new(CHILD) else {
        say!("guest-test: a domain is made: FAILED it was refused");
        return;
    };
    child.start();
    let pirq = LINE.cast_unsigned();
    expect("it is mapped for another", map_line(CHILD, LINE, LINE), 0);
    about("EVTCHNOP_bind_pirq");
    let bind_there = |flags: u32| {
        let request = EvtchnBindPirq { pirq, flags, ..Default::default() };
        child.ask(HYPERVISOR_EVENT_CHANNEL_OP, EVTCHNOP_BIND_PIRQ, &request)
    };
    about("XEN_DOMCTL_irq_permission");
    let permission = |allow: u8| {
        let mut request = DomctlIrqPermission { pirq, allow_access: allow, ..Default::default() };
        domctl(XEN_DOMCTL_IRQ_PERMISSION, CHILD, &mut request)
    };
    expect("it is taken away", permission(0), 0);
    about("EVTCHNOP_bind_pirq");
    expect("then it may not have it", bind_there(0), Some(EPERM));
    about("XEN_DOMCTL_irq_permission");
    expect("it is given", permission(1), 0);
    about("EVTCHNOP_bind_pirq");
    let (result, port) = bind(LINE, 0);
    expect("one domain binds the line for itself", result, 0);
    expect("then no other does", bind_there(0), Some(EBUSY));
    expect("nor one that would share", bind_there(BIND_PIRQ_WILL_SHARE), Some(EBUSY));
    expect("it is closed", close(port), 0);
    let (result, port) = bind(LINE, BIND_PIRQ_WILL_SHARE);
    expect("one binds it to share", result, 0);
    expect("one that does not share is refused", bind_there(0), Some(EBUSY));
    expect("one that does is not", bind_there(BIND_PIRQ_WILL_SHARE), Some(0));
    expect("once", bind_there(BIND_PIRQ_WILL_SHARE), Some(EEXIST));
    expect("one lets it go", close(port), 0);
    expect("the other is destroyed", child.destroy(), 0);
    let (result, port) = bind(LINE, 0);
    expect("then one has it for itself", result, 0);
    about("PHYSDEVOP_unmap_pirq PHYSDEVOP_map_pirq");
    expect("the line is unmapped", (close(port), unmap(LINE)), (0, 0));
    expect("then it is not mapped again", map_line(DOMID_SELF, LINE, LINE), EPERM);
    about("EVTCHNOP_bind_pirq");
    expect("the console's line is mapped", map_line(DOMID_SELF, CONSOLE, CONSOLE), 0);
    expect("but it is the hypervisor's", bind(CONSOLE, 0).0, EBUSY);
}

/// Numbers for interrupts, until there are none.
fn numbers() {
    about("PHYSDEVOP_map_pirq");
    expect("a line is mapped", map_line(DOMID_SELF, LINE + 2, LINE + 2), 0);
    differs("a number is another line's", map_line(DOMID_SELF, LINE + 1, LINE + 2), EINVAL, 0);
    about("PHYSDEVOP_get_free_pirq");
    for (name, type_) in [("numbers for lines end", MAP_PIRQ_TYPE_GSI), ("so do others", MAP_PIRQ_TYPE_MSI)] {
        let mut last = 0;
        for _ in 0..10_000 {
            last = op(PHYSDEVOP_GET_FREE_PIRQ, PhysdevGetFreePirq { type_, ..Default::default() });
            if last != 0 {
                break;
            }
        }
        expect(name, last, ENOSPC);
    }
    about("PHYSDEVOP_map_pirq");
    expect("then no message is mapped", map(MAP_PIRQ_TYPE_MSI, EDU, 0, 0).0 < 0, true);
}
