//! What a toolstack asks about domains.

use crate::layout::structs;

structs! {
    header "domctl.h";

    /// The frame of every operation.
    pub struct Domctl ["struct xen_domctl"] {
        /// In: `XEN_DOMCTL_*`.
        pub cmd: u32,
        /// In: `XEN_DOMCTL_INTERFACE_VERSION`.
        pub interface_version: u32,
        /// In: which domain.
        pub domain: u16,
        /// Padding.
        pub _pad0: [u16; 3],
        /// The operation's own struct, in its first bytes.
        pub u: [u8; 128],
    }
}
