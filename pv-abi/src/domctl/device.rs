//! What a domain may touch of the machine: interrupts, device memory, I/O ports, devices.
//!
//! Xen: `public/domctl.h`.

use crate::layout::{constants, structs};
use crate::payload::payload;

constants! {
    header "domctl.h";
    /// `assign_device`: a PCI device.
    pub const XEN_DOMCTL_DEV_PCI: u32 = 0;
    /// `assign_device`: a node of a device tree.
    pub const XEN_DOMCTL_DEV_DT: u32 = 1;
    /// `assign_device`: conflicts of reserved memory are let pass.
    pub const XEN_DOMCTL_DEV_RDM_RELAXED: u32 = 1;
    /// `memory_mapping`, `ioport_mapping`: adds.
    pub const DPCI_ADD_MAPPING: u32 = 1;
    /// `memory_mapping`, `ioport_mapping`: removes.
    pub const DPCI_REMOVE_MAPPING: u32 = 0;
    /// `bind_pt_irq`: a PCI pin.
    pub const PT_IRQ_TYPE_PCI: u32 = 0;
    /// `bind_pt_irq`: an ISA interrupt.
    pub const PT_IRQ_TYPE_ISA: u32 = 1;
    /// `bind_pt_irq`: a message.
    pub const PT_IRQ_TYPE_MSI: u32 = 2;
    /// `bind_pt_irq`: a message shown as a pin.
    pub const PT_IRQ_TYPE_MSI_TRANSLATE: u32 = 3;
    /// `bind_pt_irq`: Arm only.
    pub const PT_IRQ_TYPE_SPI: u32 = 4;
    /// `bind_pt_irq`, flags of a message: destination.
    pub const XEN_DOMCTL_VMSI_X86_DEST_ID_MASK: u32 = 0x0000ff;
    /// `bind_pt_irq`, flags of a message: redirection hint.
    pub const XEN_DOMCTL_VMSI_X86_RH_MASK: u32 = 0x000100;
    /// `bind_pt_irq`, flags of a message: destination mode.
    pub const XEN_DOMCTL_VMSI_X86_DM_MASK: u32 = 0x000200;
    /// `bind_pt_irq`, flags of a message: delivery mode.
    pub const XEN_DOMCTL_VMSI_X86_DELIV_MASK: u32 = 0x007000;
    /// `bind_pt_irq`, flags of a message: trigger mode.
    pub const XEN_DOMCTL_VMSI_X86_TRIG_MASK: u32 = 0x008000;
    /// `bind_pt_irq`, flags of a message: not masked.
    pub const XEN_DOMCTL_VMSI_X86_UNMASKED: u32 = 0x010000;
}

structs! {
    header "domctl.h";

    /// `XEN_DOMCTL_irq_permission`: an interrupt.
    pub struct DomctlIrqPermission ["struct xen_domctl_irq_permission"] {
        /// In: pirq of the caller.
        pub pirq: u32,
        /// In: 0 denies.
        pub allow_access: u8,
        /// Zero.
        pub pad: [u8; 3],
    }

    /// `XEN_DOMCTL_iomem_permission`: device memory.
    pub struct DomctlIomemPermission ["struct xen_domctl_iomem_permission"] {
        /// In: first machine frame.
        pub first_mfn: u64,
        /// In: number of frames.
        pub nr_mfns: u64,
        /// In: 0 denies.
        pub allow_access: u8,
        /// Padding.
        pub _pad0: [u8; 7],
    }

    /// `XEN_DOMCTL_ioport_permission`: I/O ports.
    pub struct DomctlIoportPermission ["struct xen_domctl_ioport_permission"] {
        /// In: first port.
        pub first_port: u32,
        /// In: number of ports.
        pub nr_ports: u32,
        /// In: 0 denies.
        pub allow_access: u8,
        /// Padding.
        pub _pad0: [u8; 3],
    }

    /// A device of a device tree.
    pub struct DomctlAssignDeviceDt ["struct xen_domctl_assign_device.u.dt"] {
        /// In: length of the path.
        pub size: u32,
        /// Padding.
        pub _pad0: u32,
        /// In: address of the path.
        pub path: u64,
    }

    /// `XEN_DOMCTL_{assign,test_assign,deassign}_device`: a device. `u` is segment, bus, device and function of a PCI
    /// device (`u32`), or [`DomctlAssignDeviceDt`].
    #[repr(align(8))]
    pub struct DomctlAssignDevice ["struct xen_domctl_assign_device"] {
        /// In: `XEN_DOMCTL_DEV_*`.
        pub dev: u32,
        /// In: 0 or [`XEN_DOMCTL_DEV_RDM_RELAXED`].
        pub flags: u32,
        /// In: which.
        pub u: [u8; 16],
    }

    /// `XEN_DOMCTL_get_device_group`: devices that go together.
    pub struct DomctlGetDeviceGroup ["struct xen_domctl_get_device_group"] {
        /// In: segment, bus, device and function.
        pub machine_sbdf: u32,
        /// In: room.
        pub max_sdevs: u32,
        /// Out: number.
        pub num_sdevs: u32,
        /// Padding.
        pub _pad0: u32,
        /// In: address of the answer (`u32` each).
        pub sdev_array: u64,
    }

    /// A PCI pin of an HVM domain.
    pub struct DomctlBindPtIrqPci ["struct xen_domctl_bind_pt_irq.u.pci"] {
        /// In: bus.
        pub bus: u8,
        /// In: device.
        pub device: u8,
        /// In: pin.
        pub intx: u8,
    }

    /// A message to an HVM domain.
    pub struct DomctlBindPtIrqMsi ["struct xen_domctl_bind_pt_irq.u.msi"] {
        /// In: vector.
        pub gvec: u8,
        /// Padding.
        pub _pad0: [u8; 3],
        /// In: `XEN_DOMCTL_VMSI_X86_*`.
        pub gflags: u32,
        /// In: address of the table in the guest.
        pub gtable: u64,
    }

    /// `XEN_DOMCTL_{bind,unbind}_pt_irq`: an interrupt for an HVM domain. `u` is the ISA interrupt (`u8`),
    /// [`DomctlBindPtIrqPci`] or [`DomctlBindPtIrqMsi`].
    #[repr(align(8))]
    pub struct DomctlBindPtIrq ["struct xen_domctl_bind_pt_irq"] {
        /// In: the machine's interrupt.
        pub machine_irq: u32,
        /// In: `PT_IRQ_TYPE_*`.
        pub irq_type: u32,
        /// In: where it goes.
        pub u: [u8; 16],
    }

    /// `XEN_DOMCTL_memory_mapping`: device memory in a domain's map.
    pub struct DomctlMemoryMapping ["struct xen_domctl_memory_mapping"] {
        /// In: first guest frame.
        pub first_gfn: u64,
        /// In: first machine frame.
        pub first_mfn: u64,
        /// In: number of frames.
        pub nr_mfns: u64,
        /// In: `DPCI_*_MAPPING`.
        pub add_mapping: u32,
        /// Zero.
        pub padding: u32,
    }

    /// `XEN_DOMCTL_ioport_mapping`: I/O ports in a domain's map.
    pub struct DomctlIoportMapping ["struct xen_domctl_ioport_mapping"] {
        /// In: first port of the guest.
        pub first_gport: u32,
        /// In: first port of the machine.
        pub first_mport: u32,
        /// In: number of ports.
        pub nr_ports: u32,
        /// In: `DPCI_*_MAPPING`.
        pub add_mapping: u32,
    }
}

payload!(DomctlAssignDevice, 16);
payload!(DomctlBindPtIrq, 16);
