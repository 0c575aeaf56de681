//! What a toolstack asks about the machine.

use crate::layout::structs;

structs! {
    header "sysctl.h";

    /// The frame of every operation.
    pub struct Sysctl ["struct xen_sysctl"] {
        /// In: `XEN_SYSCTL_*`.
        pub cmd: u32,
        /// In: `XEN_SYSCTL_INTERFACE_VERSION`.
        pub interface_version: u32,
        /// The operation's own struct, in its first bytes.
        pub u: [u8; 128],
    }
}
