//! Non-maskable interrupts of the first domain.
//!
//! `HYPERVISOR_nmi_op(cmd, arg)`.
//!
//! Xen: `public/nmi.h`.

use crate::layout::{constants, structs};

constants! {
    header "nmi.h";
    /// In `nmi_reason` of the shared page: an I/O channel check.
    pub const XEN_NMIREASON_IO_ERROR [XEN_NMIREASON_io_error]: u64 = 1 << 0;
    /// In `nmi_reason` of the shared page: a PCI system error.
    pub const XEN_NMIREASON_PCI_SERR [XEN_NMIREASON_pci_serr]: u64 = 1 << 1;
    /// In `nmi_reason` of the shared page: unknown.
    pub const XEN_NMIREASON_UNKNOWN [XEN_NMIREASON_unknown]: u64 = 1 << 2;
    /// Registers a handler; see [`XennmiCallback`].
    pub const XENNMI_REGISTER_CALLBACK [XENNMI_register_callback]: u32 = 0;
    /// Takes the handler away. No argument.
    pub const XENNMI_UNREGISTER_CALLBACK [XENNMI_unregister_callback]: u32 = 1;
}

structs! {
    header "nmi.h";

    /// `XENNMI_register_callback`: the handler.
    pub struct XennmiCallback ["struct xennmi_callback"] {
        /// In: its address.
        pub handler_address: u64,
        /// Zero.
        pub pad: u64,
    }
}
