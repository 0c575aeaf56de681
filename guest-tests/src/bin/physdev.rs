//! Interrupts, ports and devices of the first domain (`physdev_op`).
#![no_std]
#![no_main]

use guest_tests::errno::{EBUSY, EEXIST, EFAULT, EINVAL, ENODEV, ENOSYS, EPERM, ESRCH};
use guest_tests::{
    HYPERVISOR_ADDRESS, Page, Trap, about, attempt, expect, guest_test, hypercall, mfn_of, operation, start_info,
};
use pv_abi::event_channel::{EVTCHNOP_BIND_PIRQ, EVTCHNOP_CLOSE, EvtchnBindPirq, EvtchnClose};
use pv_abi::physdev::{
    MAP_PIRQ_TYPE_GSI, MAP_PIRQ_TYPE_MSI, PHYSDEVOP_ALLOC_IRQ_VECTOR, PHYSDEVOP_APIC_READ, PHYSDEVOP_APIC_WRITE,
    PHYSDEVOP_DBGP_OP, PHYSDEVOP_EOI, PHYSDEVOP_GET_FREE_PIRQ, PHYSDEVOP_IRQ_STATUS_QUERY, PHYSDEVOP_MANAGE_PCI_ADD,
    PHYSDEVOP_MANAGE_PCI_ADD_EXT, PHYSDEVOP_MANAGE_PCI_REMOVE, PHYSDEVOP_MAP_PIRQ, PHYSDEVOP_PCI_DEVICE_ADD,
    PHYSDEVOP_PCI_DEVICE_REMOVE, PHYSDEVOP_PCI_MMCFG_RESERVED, PHYSDEVOP_PIRQ_EOI_GMFN_V1, PHYSDEVOP_PIRQ_EOI_GMFN_V2,
    PHYSDEVOP_PREPARE_MSIX, PHYSDEVOP_RELEASE_MSIX, PHYSDEVOP_RESTORE_MSI, PHYSDEVOP_RESTORE_MSI_EXT,
    PHYSDEVOP_SET_IOBITMAP, PHYSDEVOP_SET_IOPL, PHYSDEVOP_SETUP_GSI, PHYSDEVOP_UNMAP_PIRQ, PhysdevApic, PhysdevDbgpOp,
    PhysdevEoi, PhysdevGetFreePirq, PhysdevIrq, PhysdevIrqStatusQuery, PhysdevManagePci, PhysdevManagePciExt,
    PhysdevMapPirq, PhysdevPciDevice, PhysdevPciDeviceAdd, PhysdevPciMmcfgReserved, PhysdevPirqEoiGmfn,
    PhysdevRestoreMsi, PhysdevSetIobitmap, PhysdevSetIopl, PhysdevSetupGsi, PhysdevUnmapPirq,
};
use pv_abi::xen::{DOMID_SELF, HYPERVISOR_EVENT_CHANNEL_OP, HYPERVISOR_PHYSDEV_OP};

guest_test!(physdev);

const GP: Option<Trap> = Some(Trap { vector: 13, error_code: 0 });
const IO_APIC: u64 = 0xfec0_0000;
static MAP: Page = Page::new();
/// One bit a port; a zero bit allows it.
static PORTS: Page = Page::new();

fn physdev() {
    ports();
    lines();
    status();
    apic();
    devices();
}

fn op<T>(command: u32, mut argument: T) -> i64 {
    operation(HYPERVISOR_PHYSDEV_OP, command, &mut argument)
}

fn at(command: u32, address: u64) -> i64 {
    hypercall(HYPERVISOR_PHYSDEV_OP, [command.into(), address, 0, 0, 0])
}

fn read_port(port: u16) -> Option<Trap> {
    attempt!("in al, dx"; in("dx") port, out("al") _)
}

fn ports() {
    about("PHYSDEVOP_set_iopl");
    expect("I/O privilege 4 is EINVAL", op(PHYSDEVOP_SET_IOPL, PhysdevSetIopl { iopl: 4 }), EINVAL);
    expect("without I/O privilege a port is refused", read_port(0x80), GP);
    expect("I/O privilege 1 is given", op(PHYSDEVOP_SET_IOPL, PhysdevSetIopl { iopl: 1 }), 0);
    expect("it is the kernel's", (read_port(0x80), attempt!("cli")), (None, None));
    expect("I/O privilege is taken back", op(PHYSDEVOP_SET_IOPL, PhysdevSetIopl { iopl: 0 }), 0);
    expect("then cli is refused", attempt!("cli"), GP);
    expect("from a bad address is EFAULT", at(PHYSDEVOP_SET_IOPL, HYPERVISOR_ADDRESS), EFAULT);
    about("PHYSDEVOP_set_iobitmap");
    let bitmap = |bitmap: u64, nr_ports: u32| {
        op(PHYSDEVOP_SET_IOBITMAP, PhysdevSetIobitmap { bitmap, nr_ports, ..Default::default() })
    };
    expect("a bitmap of 65,537 ports is EINVAL", bitmap(PORTS.va(), 65_537), EINVAL);
    expect("a bitmap is set", bitmap(PORTS.va(), 0x81), 0);
    expect("the port is then read", read_port(0x80), None);
    expect("what is beyond the bitmap is refused", read_port(0x88), GP);
    expect("a bitmap in the hypervisor is EINVAL", bitmap(HYPERVISOR_ADDRESS, 0x100), EINVAL);
    expect("the old one stays", read_port(0x80), None);
    expect("the bitmap is taken away", bitmap(0, 0), 0);
    expect("then the port is refused", read_port(0x80), GP);
}

fn map(kind: i32, index: i32, pirq: i32) -> (i64, i32) {
    let mut wanted = PhysdevMapPirq { domid: DOMID_SELF, type_: kind, index, pirq, ..Default::default() };
    (operation(HYPERVISOR_PHYSDEV_OP, PHYSDEVOP_MAP_PIRQ, &mut wanted), wanted.pirq)
}

fn bind(pirq: u32, flags: u32) -> (i64, u32) {
    let mut bind = EvtchnBindPirq { pirq, flags, ..Default::default() };
    (operation(HYPERVISOR_EVENT_CHANNEL_OP, EVTCHNOP_BIND_PIRQ, &mut bind), bind.port)
}

fn unmap(pirq: i32) -> i64 {
    op(PHYSDEVOP_UNMAP_PIRQ, PhysdevUnmapPirq { domid: DOMID_SELF, pirq, ..Default::default() })
}

fn lines() {
    about("PHYSDEVOP_setup_gsi");
    let set_up =
        |gsi: i32| op(PHYSDEVOP_SETUP_GSI, PhysdevSetupGsi { gsi, triggering: 1, polarity: 1, ..Default::default() });
    expect("a line is set up", set_up(20), 0);
    expect("a line is set up once", set_up(20), EEXIST);
    expect("a line beyond all is EINVAL", set_up(1000), EINVAL);
    expect("line -1 is EINVAL", set_up(-1), EINVAL);
    about("PHYSDEVOP_map_pirq");
    let (result, pirq) = map(MAP_PIRQ_TYPE_GSI, 20, 20);
    expect("a line is mapped where it is asked", (result, pirq), (0, 20));
    expect("and again", map(MAP_PIRQ_TYPE_GSI, 20, 20), (0, 20));
    expect("a line beyond all is not mapped", map(MAP_PIRQ_TYPE_GSI, 1000, -1).0, EINVAL);
    expect("an unknown kind is EINVAL", map(77, 0, -1).0, EINVAL);
    expect("a device that is not has no message", map(MAP_PIRQ_TYPE_MSI, -1, -1).0 < 0, true);
    let mut wanted = PhysdevMapPirq { domid: 77, type_: MAP_PIRQ_TYPE_GSI, index: 21, pirq: -1, ..Default::default() };
    let other = operation(HYPERVISOR_PHYSDEV_OP, PHYSDEVOP_MAP_PIRQ, &mut wanted);
    expect("a domain that is not maps nothing", other, ESRCH);
    about("EVTCHNOP_bind_pirq");
    let (result, port) = bind(20, 0);
    expect("a mapped interrupt is bound", result, 0);
    expect("once", bind(20, 0).0, EEXIST);
    expect("interrupt 200 is not mapped", bind(200, 0).0, EPERM);
    expect("interrupt 2^31 is none", bind(1 << 31, 0).0, EINVAL);
    about("PHYSDEVOP_eoi");
    expect("the end of an interrupt is told", op(PHYSDEVOP_EOI, PhysdevEoi { irq: 20 }), 0);
    expect("of one that is not mapped is EINVAL", op(PHYSDEVOP_EOI, PhysdevEoi { irq: 100_000 }), EINVAL);
    about("PHYSDEVOP_unmap_pirq");
    let closed = operation(HYPERVISOR_EVENT_CHANNEL_OP, EVTCHNOP_CLOSE, &mut EvtchnClose { port });
    expect("the interrupt's port is closed", closed, 0);
    expect("the interrupt is unmapped", unmap(20), 0);
    expect("once again is EINVAL", unmap(20), EINVAL);
    expect("interrupt -1 is EINVAL to unmap", unmap(-1), EINVAL);
    about("PHYSDEVOP_get_free_pirq");
    let mut free = PhysdevGetFreePirq { type_: MAP_PIRQ_TYPE_MSI, ..Default::default() };
    expect("a free number is told", operation(HYPERVISOR_PHYSDEV_OP, PHYSDEVOP_GET_FREE_PIRQ, &mut free), 0);
    about("PHYSDEVOP_alloc_irq_vector");
    let mut irq = PhysdevIrq { irq: 4, ..Default::default() };
    expect(
        "the vector of a line is its number",
        (operation(HYPERVISOR_PHYSDEV_OP, PHYSDEVOP_ALLOC_IRQ_VECTOR, &mut irq), irq.vector),
        (0, 4),
    );
    expect(
        "so has one beyond all",
        op(PHYSDEVOP_ALLOC_IRQ_VECTOR, PhysdevIrq { irq: 100_000, ..Default::default() }),
        0,
    );
}

fn status() {
    about("PHYSDEVOP_irq_status_query");
    let mut query = PhysdevIrqStatusQuery { irq: 5, ..Default::default() };
    let result = operation(HYPERVISOR_PHYSDEV_OP, PHYSDEVOP_IRQ_STATUS_QUERY, &mut query);
    expect("an interrupt's status is told", result, 0);
    expect("it needs an EOI", query.flags & 1, 1);
    expect(
        "an interrupt beyond all has no status",
        op(PHYSDEVOP_IRQ_STATUS_QUERY, PhysdevIrqStatusQuery { irq: 100_000, ..Default::default() }),
        EINVAL,
    );
    about("PHYSDEVOP_pirq_eoi_gmfn_v2");
    let page = |command: u32, gmfn: u64| op(command, PhysdevPirqEoiGmfn { gmfn });
    expect("no frame is EINVAL for the EOI map", page(PHYSDEVOP_PIRQ_EOI_GMFN_V2, 0xff_ffff_ffff), EINVAL);
    expect("a page table is EINVAL for it", page(PHYSDEVOP_PIRQ_EOI_GMFN_V2, mfn_of(start_info().pt_base)), EINVAL);
    expect("the EOI map is registered", page(PHYSDEVOP_PIRQ_EOI_GMFN_V2, MAP.mfn()), 0);
    expect("once", page(PHYSDEVOP_PIRQ_EOI_GMFN_V2, MAP.mfn()), EBUSY);
    about("PHYSDEVOP_pirq_eoi_gmfn_v1");
    expect("in one form or the other", page(PHYSDEVOP_PIRQ_EOI_GMFN_V1, MAP.mfn()), EBUSY);
}

fn apic() {
    about("PHYSDEVOP_apic_read");
    let mut wanted = PhysdevApic { apic_physbase: IO_APIC, reg: 1, value: 0 };
    let result = operation(HYPERVISOR_PHYSDEV_OP, PHYSDEVOP_APIC_READ, &mut wanted);
    expect("the I/O APIC's version is read", result, 0);
    expect("with the number of its lines", wanted.value >> 16 & 0xff, 23);
    let mut wanted = PhysdevApic { apic_physbase: 0x1234_0000, reg: 1, value: 0 };
    let result = operation(HYPERVISOR_PHYSDEV_OP, PHYSDEVOP_APIC_READ, &mut wanted);
    expect("an I/O APIC that is not is EINVAL", result, EINVAL);
    about("PHYSDEVOP_apic_write");
    let wanted = PhysdevApic { apic_physbase: 0x1234_0000, reg: 1, value: 0 };
    expect("one that is not is not written", op(PHYSDEVOP_APIC_WRITE, wanted) < 0, true);
}

fn devices() {
    about("PHYSDEVOP_manage_pci_add");
    expect("a device is announced", op(PHYSDEVOP_MANAGE_PCI_ADD, PhysdevManagePci { bus: 0, devfn: 0 }), 0);
    about("PHYSDEVOP_manage_pci_remove");
    expect("and removed", op(PHYSDEVOP_MANAGE_PCI_REMOVE, PhysdevManagePci { bus: 0, devfn: 0 }), 0);
    about("PHYSDEVOP_manage_pci_add_ext");
    expect("it is announced in the longer form", op(PHYSDEVOP_MANAGE_PCI_ADD_EXT, PhysdevManagePciExt::default()), 0);
    about("PHYSDEVOP_pci_device_add");
    expect("it is announced in the newest form", op(PHYSDEVOP_PCI_DEVICE_ADD, PhysdevPciDeviceAdd::default()), 0);
    about("PHYSDEVOP_prepare_msix");
    let none = PhysdevPciDevice { devfn: 0xf8, ..Default::default() };
    expect("a device that is not is not prepared", op(PHYSDEVOP_PREPARE_MSIX, none), ENODEV);
    about("PHYSDEVOP_release_msix");
    expect("nor released", op(PHYSDEVOP_RELEASE_MSIX, none), ENODEV);
    about("PHYSDEVOP_restore_msi");
    expect("a device's messages are restored", op(PHYSDEVOP_RESTORE_MSI, PhysdevRestoreMsi { bus: 0, devfn: 0 }), 0);
    about("PHYSDEVOP_restore_msi_ext");
    expect("in the longer form, too", op(PHYSDEVOP_RESTORE_MSI_EXT, PhysdevPciDevice::default()), 0);
    about("PHYSDEVOP_pci_device_remove");
    expect("the device is removed", op(PHYSDEVOP_PCI_DEVICE_REMOVE, PhysdevPciDevice::default()), 0);
    let none = PhysdevPciDevice { seg: 9, ..Default::default() };
    expect("a device of a segment that is not is ENODEV", op(PHYSDEVOP_PCI_DEVICE_REMOVE, none), ENODEV);
    about("PHYSDEVOP_pci_mmcfg_reserved");
    let range = PhysdevPciMmcfgReserved { address: 0xb000_0000, end_bus: 255, ..Default::default() };
    expect("memory of PCI configuration is told", matches!(op(PHYSDEVOP_PCI_MMCFG_RESERVED, range), 0 | ENODEV), true);
    about("PHYSDEVOP_dbgp_op");
    expect(
        "without a debug port nothing is reset",
        op(PHYSDEVOP_DBGP_OP, PhysdevDbgpOp { op: 9, ..Default::default() }),
        0,
    );
    about("physdev_op");
    expect("operation 3 is ENOSYS", at(3, 0), ENOSYS);
    expect("operation 99 is ENOSYS", at(99, 0), ENOSYS);
    expect("an argument in the hypervisor is EFAULT", at(PHYSDEVOP_MAP_PIRQ, HYPERVISOR_ADDRESS), EFAULT);
}
