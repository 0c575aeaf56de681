//! What a device model may ask for the domain whose devices it emulates.
//!
//! `HYPERVISOR_dm_op(domain, count, buffers*)`: `buffers` is an array of [`DmOpBuf`], the first of which holds a [`DmOp`];
//! others hold what an operation says. All return 0 or a negated errno; "out" fields are written back.
//!
//! Xen: `public/hvm/dm_op.h`.

use zerocopy::{FromBytes, Immutable, IntoBytes};

use crate::layout::{constants, structs};

constants! {
    header "hvm/dm_op.h";
    /// Makes a server of I/O requests; see [`DmOpCreateIoreqServer`].
    pub const XEN_DMOP_CREATE_IOREQ_SERVER [XEN_DMOP_create_ioreq_server]: u32 = 1;
    /// Tells where a server's requests are; see [`DmOpGetIoreqServerInfo`].
    pub const XEN_DMOP_GET_IOREQ_SERVER_INFO [XEN_DMOP_get_ioreq_server_info]: u32 = 2;
    /// Gives a server a range; see [`DmOpIoreqServerRange`].
    pub const XEN_DMOP_MAP_IO_RANGE_TO_IOREQ_SERVER [XEN_DMOP_map_io_range_to_ioreq_server]: u32 = 3;
    /// Takes a range from a server; see [`DmOpIoreqServerRange`].
    pub const XEN_DMOP_UNMAP_IO_RANGE_FROM_IOREQ_SERVER [XEN_DMOP_unmap_io_range_from_ioreq_server]: u32 = 4;
    /// Switches a server on or off; see [`DmOpSetIoreqServerState`].
    pub const XEN_DMOP_SET_IOREQ_SERVER_STATE [XEN_DMOP_set_ioreq_server_state]: u32 = 5;
    /// Ends a server; see [`DmOpDestroyIoreqServer`].
    pub const XEN_DMOP_DESTROY_IOREQ_SERVER [XEN_DMOP_destroy_ioreq_server]: u32 = 6;
    /// Tells which frames of a screen changed.
    pub const XEN_DMOP_TRACK_DIRTY_VRAM [XEN_DMOP_track_dirty_vram]: u32 = 7;
    /// Sets a pin of a PCI device; see [`DmOpSetPciIntxLevel`].
    pub const XEN_DMOP_SET_PCI_INTX_LEVEL [XEN_DMOP_set_pci_intx_level]: u32 = 8;
    /// Sets a line of the ISA bus; see [`DmOpSetIsaIrqLevel`].
    pub const XEN_DMOP_SET_ISA_IRQ_LEVEL [XEN_DMOP_set_isa_irq_level]: u32 = 9;
    /// Routes a PCI link to a line of the ISA bus; see [`DmOpSetPciLinkRoute`].
    pub const XEN_DMOP_SET_PCI_LINK_ROUTE [XEN_DMOP_set_pci_link_route]: u32 = 10;
    /// Tells that the device model wrote to memory.
    pub const XEN_DMOP_MODIFIED_MEMORY [XEN_DMOP_modified_memory]: u32 = 11;
    /// Says what frames are.
    pub const XEN_DMOP_SET_MEM_TYPE [XEN_DMOP_set_mem_type]: u32 = 12;
    /// Delivers an exception or interrupt to a vCPU.
    pub const XEN_DMOP_INJECT_EVENT [XEN_DMOP_inject_event]: u32 = 13;
    /// Delivers a message-signalled interrupt; see [`DmOpInjectMsi`].
    pub const XEN_DMOP_INJECT_MSI [XEN_DMOP_inject_msi]: u32 = 14;
    /// Gives a server accesses to frames of a type.
    pub const XEN_DMOP_MAP_MEM_TYPE_TO_IOREQ_SERVER [XEN_DMOP_map_mem_type_to_ioreq_server]: u32 = 15;
    /// Shuts the domain down; see [`DmOpRemoteShutdown`].
    pub const XEN_DMOP_REMOTE_SHUTDOWN [XEN_DMOP_remote_shutdown]: u32 = 16;
    /// Moves frames.
    pub const XEN_DMOP_RELOCATE_MEMORY [XEN_DMOP_relocate_memory]: u32 = 17;
    /// Says how frames are cached.
    pub const XEN_DMOP_PIN_MEMORY_CACHEATTR [XEN_DMOP_pin_memory_cacheattr]: u32 = 18;
    /// Tells how many vCPUs there are; see [`DmOpNrVcpus`].
    pub const XEN_DMOP_NR_VCPUS [XEN_DMOP_nr_vcpus]: u32 = 20;

    /// [`DmOpGetIoreqServerInfo::flags`]: no frames of the guest are wanted for the requests.
    pub const XEN_DMOP_NO_GFNS [XEN_DMOP_no_gfns]: u16 = 1;
    /// [`DmOpIoreqServerRange::type_`]: I/O ports.
    pub const XEN_DMOP_IO_RANGE_PORT: u32 = 0;
    /// [`DmOpIoreqServerRange::type_`]: physical addresses.
    pub const XEN_DMOP_IO_RANGE_MEMORY: u32 = 1;
    /// [`DmOpIoreqServerRange::type_`]: configuration spaces, as segment, bus, device and function (16, 8, 5, 3 bits).
    pub const XEN_DMOP_IO_RANGE_PCI: u32 = 2;
}

structs! {
    header "hvm/dm_op.h";

    /// A buffer.
    pub struct DmOpBuf ["struct xen_dm_op_buf"] {
        /// Its address.
        pub h: u64,
        /// Its length in bytes.
        pub size: u64,
    }

    /// An operation.
    pub struct DmOp ["struct xen_dm_op"] {
        /// `XEN_DMOP_*`.
        pub op: u32,
        /// Zero.
        pub pad: u32,
        /// The operation's own struct; see [`DmOp::payload`].
        pub u: [u64; 3],
    }

    /// A new server.
    pub struct DmOpCreateIoreqServer ["struct xen_dm_op_create_ioreq_server"] {
        /// In: `HVM_IOREQSRV_BUFIOREQ_*`.
        pub handle_bufioreq: u8,
        /// Zero.
        pub pad: [u8; 3],
        /// Out: its number.
        pub id: u16,
    }

    /// Where a server's requests are.
    pub struct DmOpGetIoreqServerInfo ["struct xen_dm_op_get_ioreq_server_info"] {
        /// In: which server.
        pub id: u16,
        /// In: `XEN_DMOP_NO_GFNS` or 0.
        pub flags: u16,
        /// Out: the port for buffered requests.
        pub bufioreq_port: u32,
        /// Out: the guest frame of the requests.
        pub ioreq_gfn: u64,
        /// Out: the guest frame of buffered requests.
        pub bufioreq_gfn: u64,
    }

    /// A range of addresses, both ends included.
    pub struct DmOpIoreqServerRange ["struct xen_dm_op_ioreq_server_range"] {
        /// In: which server.
        pub id: u16,
        /// Zero.
        pub pad: u16,
        /// In: `XEN_DMOP_IO_RANGE_*`.
        pub type_ ["type"]: u32,
        /// In: first address.
        pub start: u64,
        /// In: last address.
        pub end: u64,
    }

    /// A server's state.
    pub struct DmOpSetIoreqServerState ["struct xen_dm_op_set_ioreq_server_state"] {
        /// In: which server.
        pub id: u16,
        /// In: whether it answers.
        pub enabled: u8,
        /// Zero.
        pub pad: u8,
    }

    /// A server that ends.
    pub struct DmOpDestroyIoreqServer ["struct xen_dm_op_destroy_ioreq_server"] {
        /// In: which server.
        pub id: u16,
        /// Zero.
        pub pad: u16,
    }

    /// The level of a pin of a PCI device.
    pub struct DmOpSetPciIntxLevel ["struct xen_dm_op_set_pci_intx_level"] {
        /// In: segment; 0.
        pub domain: u16,
        /// In: bus; 0.
        pub bus: u8,
        /// In: device.
        pub device: u8,
        /// In: 0 to 3 for A to D.
        pub intx: u8,
        /// In: 0 or 1.
        pub level: u8,
    }

    /// The level of a line of the ISA bus.
    pub struct DmOpSetIsaIrqLevel ["struct xen_dm_op_set_isa_irq_level"] {
        /// In: 0 to 15.
        pub isa_irq: u8,
        /// In: 0 or 1.
        pub level: u8,
    }

    /// Where a PCI link leads.
    pub struct DmOpSetPciLinkRoute ["struct xen_dm_op_set_pci_link_route"] {
        /// In: 0 to 3.
        pub link: u8,
        /// In: 1 to 15, or 0 for nowhere.
        pub isa_irq: u8,
    }

    /// A message-signalled interrupt.
    pub struct DmOpInjectMsi ["struct xen_dm_op_inject_msi"] {
        /// In: the lower half of its data.
        pub data: u32,
        /// Zero.
        pub pad: u32,
        /// In: its address.
        pub addr: u64,
    }

    /// A shutdown.
    pub struct DmOpRemoteShutdown ["struct xen_dm_op_remote_shutdown"] {
        /// In: `SHUTDOWN_*`.
        pub reason: u32,
    }

    /// A number of vCPUs.
    pub struct DmOpNrVcpus ["struct xen_dm_op_nr_vcpus"] {
        /// Out: how many.
        pub vcpus: u32,
    }
}

/// Configuration space of a function, as [`DmOpIoreqServerRange`] names it.
#[must_use]
pub const fn pci_sbdf(segment: u16, bus: u8, device: u8, function: u8) -> u32 {
    (segment as u32) << 16 | (bus as u32) << 8 | (device as u32 & 0x1f) << 3 | function as u32 & 7
}

impl DmOp {
    /// An operation with its own struct.
    #[must_use]
    pub fn new<T: IntoBytes + Immutable>(op: u32, payload: &T) -> Self {
        let mut operation = Self { op, ..Self::default() };
        operation.set_payload(payload);
        operation
    }

    /// The operation's own struct. One that is larger than the union does not compile.
    #[must_use]
    pub fn payload<T: FromBytes + IntoBytes>(&self) -> T {
        const { assert!(size_of::<T>() <= 24, "larger than the union") };
        let mut value = T::new_zeroed();
        value.as_mut_bytes().copy_from_slice(&self.u.as_bytes()[..size_of::<T>()]);
        value
    }

    /// Writes the operation's own struct; what it does not reach stays.
    pub fn set_payload<T: IntoBytes + Immutable>(&mut self, payload: &T) {
        const { assert!(size_of::<T>() <= 24, "larger than the union") };
        self.u.as_mut_bytes()[..size_of::<T>()].copy_from_slice(payload.as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_operation_keeps_its_struct() {
        let range =
            DmOpIoreqServerRange { id: 7, type_: XEN_DMOP_IO_RANGE_PCI, start: 1, end: u64::MAX, ..Default::default() };
        let mut operation = DmOp::new(XEN_DMOP_MAP_IO_RANGE_TO_IOREQ_SERVER, &range);
        assert_eq!(operation.payload::<DmOpIoreqServerRange>(), range);
        operation.set_payload(&DmOpSetIsaIrqLevel { isa_irq: 1, level: 2 });
        assert_eq!(operation.payload::<DmOpIoreqServerRange>().id, 0x0201);
        assert_eq!(operation.payload::<DmOpIoreqServerRange>().end, u64::MAX);
    }

    #[test]
    fn a_function_has_a_number() {
        assert_eq!(pci_sbdf(1, 2, 31, 7), 0x1_02ff);
    }
}
