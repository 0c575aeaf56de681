//! The saved state of an HVM domain.
//!
//! Xen: `public/domctl.h`.

use crate::layout::{constants, structs};

constants! {
    header "domctl.h";
    /// Caching of a range: none.
    pub const XEN_DOMCTL_MEM_CACHEATTR_UC: u32 = 0;
    /// Caching of a range: writes are combined.
    pub const XEN_DOMCTL_MEM_CACHEATTR_WC: u32 = 1;
    /// Caching of a range: writes go through.
    pub const XEN_DOMCTL_MEM_CACHEATTR_WT: u32 = 4;
    /// Caching of a range: write-protected.
    pub const XEN_DOMCTL_MEM_CACHEATTR_WP: u32 = 5;
    /// Caching of a range: writes go back.
    pub const XEN_DOMCTL_MEM_CACHEATTR_WB: u32 = 6;
    /// Caching of a range: none, unless the memory-type registers say otherwise.
    pub const XEN_DOMCTL_MEM_CACHEATTR_UCM: u32 = 7;
    /// Caching of a range: no longer set.
    pub const XEN_DOMCTL_DELETE_MEM_CACHEATTR: u32 = !0;
}

structs! {
    header "domctl.h";

    /// `XEN_DOMCTL_{get,set}hvmcontext`: all records.
    pub struct DomctlHvmcontext ["struct xen_domctl_hvmcontext"] {
        /// In: bytes of the buffer. Out: bytes filled.
        pub size: u32,
        /// Padding.
        pub _pad0: u32,
        /// In: its address; 0 asks for the size.
        pub buffer: u64,
    }

    /// `XEN_DOMCTL_gethvmcontext_partial`: one record.
    pub struct DomctlHvmcontextPartial ["struct xen_domctl_hvmcontext_partial"] {
        /// In: type of the record.
        pub type_ ["type"]: u32,
        /// In: which of that type.
        pub instance: u32,
        /// In: bytes of the buffer. Out: bytes filled.
        pub bufsz: u64,
        /// In: its address; 0 asks for the size.
        pub buffer: u64,
    }
}
