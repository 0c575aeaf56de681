//! Physical devices: interrupts, I/O privileges, PCI.
//!
//! `HYPERVISOR_physdev_op(cmd, arg)`: `cmd` is a `PHYSDEVOP_*`, `arg` the address of its struct. A *pirq* is a domain's
//! number for a physical interrupt; a *GSI* is the machine's number for an interrupt line.
//!
//! Xen: `public/physdev.h`.

use crate::layout::{constants, structs};

constants! {
    header "physdev.h";
    /// The pirq has been dealt with; see [`PhysdevEoi`].
    pub const PHYSDEVOP_EOI [PHYSDEVOP_eoi]: u32 = 12;
    /// Registers a page of "needs end-of-interrupt" bits, first form; see [`PhysdevPirqEoiGmfn`].
    pub const PHYSDEVOP_PIRQ_EOI_GMFN_V1 [PHYSDEVOP_pirq_eoi_gmfn_v1]: u32 = 17;
    /// Registers that page without the automatic unmasking of the first form.
    pub const PHYSDEVOP_PIRQ_EOI_GMFN_V2 [PHYSDEVOP_pirq_eoi_gmfn_v2]: u32 = 28;
    /// The second form.
    pub const PHYSDEVOP_PIRQ_EOI_GMFN [PHYSDEVOP_pirq_eoi_gmfn]: u32 = PHYSDEVOP_PIRQ_EOI_GMFN_V2;
    /// Tells the state of a pirq; see [`PhysdevIrqStatusQuery`].
    pub const PHYSDEVOP_IRQ_STATUS_QUERY [PHYSDEVOP_irq_status_query]: u32 = 5;
    /// In [`PhysdevIrqStatusQuery::flags`]: `PHYSDEVOP_EOI` is needed.
    pub const XENIRQSTAT_NEEDS_EOI [XENIRQSTAT_needs_eoi]: u32 = 1 << 0;
    /// In [`PhysdevIrqStatusQuery::flags`]: other domains share it.
    pub const XENIRQSTAT_SHARED [XENIRQSTAT_shared]: u32 = 1 << 1;
    /// Sets the I/O privilege level; see [`PhysdevSetIopl`].
    pub const PHYSDEVOP_SET_IOPL [PHYSDEVOP_set_iopl]: u32 = 6;
    /// Sets the user's I/O permission bitmap; see [`PhysdevSetIobitmap`].
    pub const PHYSDEVOP_SET_IOBITMAP [PHYSDEVOP_set_iobitmap]: u32 = 7;
    /// Reads an IOAPIC register; see [`PhysdevApic`].
    pub const PHYSDEVOP_APIC_READ [PHYSDEVOP_apic_read]: u32 = 8;
    /// Writes an IOAPIC register; see [`PhysdevApic`].
    pub const PHYSDEVOP_APIC_WRITE [PHYSDEVOP_apic_write]: u32 = 9;
    /// Allocates a vector for a GSI; see [`PhysdevIrq`].
    pub const PHYSDEVOP_ALLOC_IRQ_VECTOR [PHYSDEVOP_alloc_irq_vector]: u32 = 10;
    /// Frees it; does nothing.
    pub const PHYSDEVOP_FREE_IRQ_VECTOR [PHYSDEVOP_free_irq_vector]: u32 = 11;
    /// Makes an interrupt a pirq; see [`PhysdevMapPirq`].
    pub const PHYSDEVOP_MAP_PIRQ [PHYSDEVOP_map_pirq]: u32 = 13;
    /// The reverse; see [`PhysdevUnmapPirq`].
    pub const PHYSDEVOP_UNMAP_PIRQ [PHYSDEVOP_unmap_pirq]: u32 = 14;
    /// A PCI device is there; see [`PhysdevManagePci`].
    pub const PHYSDEVOP_MANAGE_PCI_ADD [PHYSDEVOP_manage_pci_add]: u32 = 15;
    /// A PCI device is gone; see [`PhysdevManagePci`].
    pub const PHYSDEVOP_MANAGE_PCI_REMOVE [PHYSDEVOP_manage_pci_remove]: u32 = 16;
    /// Restores a device's MSI after a sleep; see [`PhysdevRestoreMsi`].
    pub const PHYSDEVOP_RESTORE_MSI [PHYSDEVOP_restore_msi]: u32 = 19;
    /// A PCI device with extended or virtual functions is there; see [`PhysdevManagePciExt`].
    pub const PHYSDEVOP_MANAGE_PCI_ADD_EXT [PHYSDEVOP_manage_pci_add_ext]: u32 = 20;
    /// Sets trigger and polarity of a GSI; see [`PhysdevSetupGsi`].
    pub const PHYSDEVOP_SETUP_GSI [PHYSDEVOP_setup_gsi]: u32 = 21;
    /// Finds a free pirq; see [`PhysdevGetFreePirq`].
    pub const PHYSDEVOP_GET_FREE_PIRQ [PHYSDEVOP_get_free_pirq]: u32 = 23;
    /// An MMCONFIG area is (not) reserved in the ACPI tables; see [`PhysdevPciMmcfgReserved`].
    pub const PHYSDEVOP_PCI_MMCFG_RESERVED [PHYSDEVOP_pci_mmcfg_reserved]: u32 = 24;
    /// In [`PhysdevPciMmcfgReserved::flags`]: it is.
    pub const XEN_PCI_MMCFG_RESERVED: u32 = 1;
    /// A PCI device is there; see [`PhysdevPciDeviceAdd`].
    pub const PHYSDEVOP_PCI_DEVICE_ADD [PHYSDEVOP_pci_device_add]: u32 = 25;
    /// A PCI device is gone; see [`PhysdevPciDevice`].
    pub const PHYSDEVOP_PCI_DEVICE_REMOVE [PHYSDEVOP_pci_device_remove]: u32 = 26;
    /// Restores a device's MSI after a sleep; see [`PhysdevPciDevice`].
    pub const PHYSDEVOP_RESTORE_MSI_EXT [PHYSDEVOP_restore_msi_ext]: u32 = 27;
    /// A USB debug port is reset; see [`PhysdevDbgpOp`].
    pub const PHYSDEVOP_DBGP_OP [PHYSDEVOP_dbgp_op]: u32 = 29;
    /// Reserves a device's MSI-X table for another domain; see [`PhysdevPciDevice`].
    pub const PHYSDEVOP_PREPARE_MSIX [PHYSDEVOP_prepare_msix]: u32 = 30;
    /// The reverse; see [`PhysdevPciDevice`].
    pub const PHYSDEVOP_RELEASE_MSIX [PHYSDEVOP_release_msix]: u32 = 31;
    /// The retired form of `PHYSDEVOP_EOI`.
    pub const PHYSDEVOP_IRQ_UNMASK_NOTIFY: u32 = 4;

    /// [`PhysdevMapPirq::type_`]: one MSI.
    pub const MAP_PIRQ_TYPE_MSI: i32 = 0;
    /// [`PhysdevMapPirq::type_`]: a GSI.
    pub const MAP_PIRQ_TYPE_GSI: i32 = 1;
    /// [`PhysdevMapPirq::type_`]: unknown.
    pub const MAP_PIRQ_TYPE_UNKNOWN: i32 = 2;
    /// [`PhysdevMapPirq::type_`]: one MSI, with the PCI segment in the upper half of `bus`.
    pub const MAP_PIRQ_TYPE_MSI_SEG: i32 = 3;
    /// [`PhysdevMapPirq::type_`]: `entry_nr` MSIs in a row.
    pub const MAP_PIRQ_TYPE_MULTI_MSI: i32 = 4;

    /// [`PhysdevPciDeviceAdd::flags`]: an extended function.
    pub const XEN_PCI_DEV_EXTFN: u32 = 1;
    /// [`PhysdevPciDeviceAdd::flags`]: a virtual function.
    pub const XEN_PCI_DEV_VIRTFN: u32 = 2;
    /// [`PhysdevPciDeviceAdd::flags`]: a word with the proximity domain follows the struct.
    pub const XEN_PCI_DEV_PXM: u32 = 4;

    /// [`PhysdevDbgpOp::op`]: the reset is about to happen.
    pub const PHYSDEVOP_DBGP_RESET_PREPARE: u8 = 1;
    /// [`PhysdevDbgpOp::op`]: it has happened.
    pub const PHYSDEVOP_DBGP_RESET_DONE: u8 = 2;
    /// [`PhysdevDbgpOp::bus`]: unknown.
    pub const PHYSDEVOP_DBGP_BUS_UNKNOWN: u8 = 0;
    /// [`PhysdevDbgpOp::bus`]: PCI.
    pub const PHYSDEVOP_DBGP_BUS_PCI: u8 = 1;
}

structs! {
    header "physdev.h";

    /// `PHYSDEVOP_eoi`.
    pub struct PhysdevEoi ["struct physdev_eoi"] {
        /// In: the pirq.
        pub irq: u32,
    }

    /// `PHYSDEVOP_pirq_eoi_gmfn_*`.
    pub struct PhysdevPirqEoiGmfn ["struct physdev_pirq_eoi_gmfn"] {
        /// In: the page's frame; it holds one bit for each pirq.
        pub gmfn: u64,
    }

    /// `PHYSDEVOP_irq_status_query`.
    pub struct PhysdevIrqStatusQuery ["struct physdev_irq_status_query"] {
        /// In: the pirq.
        pub irq: u32,
        /// Out: `XENIRQSTAT_*`.
        pub flags: u32,
    }

    /// `PHYSDEVOP_set_iopl`.
    pub struct PhysdevSetIopl ["struct physdev_set_iopl"] {
        /// In: 1 lets the kernel, 3 the user too reach all ports the domain may.
        pub iopl: u32,
    }

    /// `PHYSDEVOP_set_iobitmap`.
    pub struct PhysdevSetIobitmap ["struct physdev_set_iobitmap"] {
        /// In: address of the bits; a set bit forbids.
        pub bitmap: u64,
        /// In: number of bits.
        pub nr_ports: u32,
        /// Padding.
        pub _pad0: u32,
    }

    /// `PHYSDEVOP_apic_read`, `PHYSDEVOP_apic_write`.
    pub struct PhysdevApic ["struct physdev_apic"] {
        /// In: the IOAPIC's machine address.
        pub apic_physbase: u64,
        /// In: the register.
        pub reg: u32,
        /// In or out: its value.
        pub value: u32,
    }

    /// `PHYSDEVOP_alloc_irq_vector`.
    pub struct PhysdevIrq ["struct physdev_irq"] {
        /// In: the GSI.
        pub irq: u32,
        /// Out: the vector.
        pub vector: u32,
    }

    /// `PHYSDEVOP_map_pirq`.
    pub struct PhysdevMapPirq ["struct physdev_map_pirq"] {
        /// In: the domain.
        pub domid: u16,
        /// Padding.
        pub _pad0: u16,
        /// In: `MAP_PIRQ_TYPE_*`.
        pub type_ ["type"]: i32,
        /// In: the GSI; not used for MSI.
        pub index: i32,
        /// In: the pirq wanted, or negative for any. Out: the pirq.
        pub pirq: i32,
        /// In: the device's bus (and segment).
        pub bus: i32,
        /// In: the device's number × 8 + function.
        pub devfn: i32,
        /// In: which entry of MSI-X; number of vectors for multi-MSI, also out.
        pub entry_nr: i32,
        /// Padding.
        pub _pad1: u32,
        /// In: machine address of the MSI-X table, 0 for MSI.
        pub table_base: u64,
    }

    /// `PHYSDEVOP_unmap_pirq`.
    pub struct PhysdevUnmapPirq ["struct physdev_unmap_pirq"] {
        /// In: the domain.
        pub domid: u16,
        /// Padding.
        pub _pad0: u16,
        /// In: the pirq.
        pub pirq: i32,
    }

    /// `PHYSDEVOP_manage_pci_add`, `PHYSDEVOP_manage_pci_remove`.
    pub struct PhysdevManagePci ["struct physdev_manage_pci"] {
        /// In: bus.
        pub bus: u8,
        /// In: device × 8 + function.
        pub devfn: u8,
    }

    /// `PHYSDEVOP_restore_msi`.
    pub struct PhysdevRestoreMsi ["struct physdev_restore_msi"] {
        /// In: bus.
        pub bus: u8,
        /// In: device × 8 + function.
        pub devfn: u8,
    }

    /// `PHYSDEVOP_manage_pci_add_ext`.
    pub struct PhysdevManagePciExt ["struct physdev_manage_pci_ext"] {
        /// In: bus.
        pub bus: u8,
        /// In: device × 8 + function.
        pub devfn: u8,
        /// Padding.
        pub _pad0: u16,
        /// In: an extended function.
        pub is_extfn: u32,
        /// In: a virtual function.
        pub is_virtfn: u32,
        /// In: bus of the physical function.
        pub physfn_bus ["physfn.bus"]: u8,
        /// In: its device × 8 + function.
        pub physfn_devfn ["physfn.devfn"]: u8,
        /// Padding.
        pub _pad1: u16,
    }

    /// The argument of the retired hypercall `physdev_op_compat`: command and payload in one.
    pub struct PhysdevOp ["struct physdev_op"] {
        /// In: `PHYSDEVOP_*`.
        pub cmd: u32,
        /// Padding.
        pub _pad0: u32,
        /// In and out: the struct of the command.
        pub u: [u64; 2],
    }

    /// `PHYSDEVOP_setup_gsi`.
    pub struct PhysdevSetupGsi ["struct physdev_setup_gsi"] {
        /// In: the GSI.
        pub gsi: i32,
        /// In: 0 edge, 1 level.
        pub triggering: u8,
        /// In: 0 active high, 1 active low.
        pub polarity: u8,
        /// Padding.
        pub _pad0: u16,
    }

    /// `PHYSDEVOP_get_free_pirq`.
    pub struct PhysdevGetFreePirq ["struct physdev_get_free_pirq"] {
        /// In: `MAP_PIRQ_TYPE_*`.
        pub type_ ["type"]: i32,
        /// Out: the pirq.
        pub pirq: u32,
    }

    /// `PHYSDEVOP_pci_mmcfg_reserved`.
    pub struct PhysdevPciMmcfgReserved ["struct physdev_pci_mmcfg_reserved"] {
        /// In: the area's address.
        pub address: u64,
        /// In: PCI segment.
        pub segment: u16,
        /// In: first bus.
        pub start_bus: u8,
        /// In: last bus.
        pub end_bus: u8,
        /// In: 0 or [`XEN_PCI_MMCFG_RESERVED`].
        pub flags: u32,
    }

    /// `PHYSDEVOP_pci_device_add`; with `XEN_PCI_DEV_PXM` a `u32` follows.
    pub struct PhysdevPciDeviceAdd ["struct physdev_pci_device_add"] {
        /// In: PCI segment.
        pub seg: u16,
        /// In: bus.
        pub bus: u8,
        /// In: device × 8 + function.
        pub devfn: u8,
        /// In: `XEN_PCI_DEV_*`.
        pub flags: u32,
        /// In: bus of the physical function.
        pub physfn_bus ["physfn.bus"]: u8,
        /// In: its device × 8 + function.
        pub physfn_devfn ["physfn.devfn"]: u8,
        /// Padding.
        pub _pad0: u16,
    }

    /// A PCI device; the argument of several commands.
    pub struct PhysdevPciDevice ["struct physdev_pci_device"] {
        /// In: PCI segment.
        pub seg: u16,
        /// In: bus.
        pub bus: u8,
        /// In: device × 8 + function.
        pub devfn: u8,
    }

    /// `PHYSDEVOP_dbgp_op`.
    pub struct PhysdevDbgpOp ["struct physdev_dbgp_op"] {
        /// In: `PHYSDEVOP_DBGP_RESET_*`.
        pub op: u8,
        /// In: `PHYSDEVOP_DBGP_BUS_*`.
        pub bus: u8,
        /// In: the port's device, for PCI.
        pub pci ["u.pci"]: PhysdevPciDevice,
    }
}
