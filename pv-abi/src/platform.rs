//! What dom0 asks about the platform.

use crate::layout::structs;

structs! {
    header "platform.h";

    /// The frame of every operation.
    pub struct PlatformOp ["struct xen_platform_op"] {
        /// In: `XENPF_*`.
        pub cmd: u32,
        /// In: `XENPF_INTERFACE_VERSION`.
        pub interface_version: u32,
        /// The operation's own struct, in its first bytes.
        pub u: [u8; 128],
    }
}
