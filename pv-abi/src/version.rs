//! What the hypervisor is.
//!
//! `HYPERVISOR_xen_version(cmd, arg)`: `cmd` is a `XENVER_*`, `arg` the address of what it fills.
//!
//! Xen: `public/version.h`.

use crate::layout::{constants, structs};

constants! {
    header "version.h";
    /// Returns the version: major × 65536 + minor. No argument.
    pub const XENVER_VERSION [XENVER_version]: u32 = 0;
    /// Fills 16 bytes of text: the rest of the version.
    pub const XENVER_EXTRAVERSION [XENVER_extraversion]: u32 = 1;
    /// Fills a [`CompileInfo`].
    pub const XENVER_COMPILE_INFO [XENVER_compile_info]: u32 = 2;
    /// Fills 1024 bytes of text: the kinds of guests it runs, `xen-3.0-x86_64` …
    pub const XENVER_CAPABILITIES [XENVER_capabilities]: u32 = 3;
    /// Fills 64 bytes of text: the source's revision.
    pub const XENVER_CHANGESET [XENVER_changeset]: u32 = 4;
    /// Fills a [`PlatformParameters`].
    pub const XENVER_PLATFORM_PARAMETERS [XENVER_platform_parameters]: u32 = 5;
    /// Fills a [`FeatureInfo`].
    pub const XENVER_GET_FEATURES [XENVER_get_features]: u32 = 6;
    /// Returns the size of a page in bytes. No argument.
    pub const XENVER_PAGESIZE [XENVER_pagesize]: u32 = 7;
    /// Fills 16 bytes: the caller's UUID.
    pub const XENVER_GUEST_HANDLE [XENVER_guest_handle]: u32 = 8;
    /// Fills 1024 bytes of text: the hypervisor's command line.
    pub const XENVER_COMMANDLINE [XENVER_commandline]: u32 = 9;
    /// Fills a [`BuildId`] and the bytes after it; returns their number.
    pub const XENVER_BUILD_ID [XENVER_build_id]: u32 = 10;
    /// Bytes of `XENVER_EXTRAVERSION`.
    pub const XEN_EXTRAVERSION_LEN: usize = 16;
    /// Bytes of `XENVER_CAPABILITIES`.
    pub const XEN_CAPABILITIES_INFO_LEN: usize = 1024;
    /// Bytes of `XENVER_CHANGESET`.
    pub const XEN_CHANGESET_INFO_LEN: usize = 64;
}

/// Bytes of `XENVER_COMMANDLINE`.
pub const XEN_COMMANDLINE_LEN: usize = 1024;

structs! {
    header "version.h";

    /// `XENVER_compile_info`: who built it, where, with what. Texts end in zero.
    pub struct CompileInfo ["struct xen_compile_info"] {
        /// Compiler.
        pub compiler: [u8; 64],
        /// User.
        pub compile_by: [u8; 16],
        /// Host or domain.
        pub compile_domain: [u8; 32],
        /// Date.
        pub compile_date: [u8; 32],
    }

    /// `XENVER_platform_parameters`: the address map.
    pub struct PlatformParameters ["struct xen_platform_parameters"] {
        /// Out: first address of the hypervisor's hole.
        pub virt_start: u64,
    }

    /// `XENVER_get_features`: 32 of the `XENFEAT_*`.
    pub struct FeatureInfo ["struct xen_feature_info"] {
        /// In: which 32; see [`XENFEAT_NR_SUBMAPS`](crate::features::XENFEAT_NR_SUBMAPS).
        pub submap_idx: u32,
        /// Out: a bit each.
        pub submap: u32,
    }

    /// `XENVER_build_id`: the head of a variable number of bytes.
    pub struct BuildId ["struct xen_build_id"] {
        /// In: bytes of room that follow.
        pub len: u32,
    }
}
