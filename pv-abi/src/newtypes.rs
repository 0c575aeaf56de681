//! One type per number space, so that a frame number of one kind cannot be passed for another.
//!
//! The wire structs keep plain integers (what a guest wrote is not yet a number of anything); these types are for what
//! has been read out of them.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Declares newtypes over an integer.
macro_rules! newtypes {
    ($( $(#[$meta:meta])* pub struct $name:ident($inner:ty), $format:literal; )*) => { $(
        $(#[$meta])*
        #[derive(
            Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default,
            FromBytes, IntoBytes, Immutable, KnownLayout,
        )]
        #[repr(transparent)]
        pub struct $name(pub $inner);

        impl core::fmt::Display for $name {
            fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
                write!(f, $format, self.0)
            }
        }

        impl From<$inner> for $name {
            fn from(value: $inner) -> Self {
                $name(value)
            }
        }

        impl From<$name> for $inner {
            fn from(value: $name) -> Self {
                value.0
            }
        }
    )* };
}

newtypes! {
    /// A pseudo-physical frame number: a domain's own, contiguous numbering of its memory, in pages of 4 KiB.
    pub struct Pfn(u64), "{:#x}";
    /// A machine frame number: a page of 4 KiB of the real machine.
    pub struct Mfn(u64), "{:#x}";
    /// A machine address in bytes.
    pub struct MachineAddr(u64), "{:#x}";
    /// A domain's number; the numbers from [`DomId::FIRST_RESERVED`] on have a special meaning.
    pub struct DomId(u16), "d{}";
    /// The number of an event channel within one domain; 0 is never valid.
    pub struct Port(u32), "{}";
    /// The index of an entry in a domain's grant table.
    pub struct GrantRef(u32), "{}";
    /// The number of a virtual CPU within its domain.
    pub struct VcpuId(u32), "v{}";
}

/// Bytes in a page.
pub const PAGE_SIZE: usize = 4096;

/// log2 of [`PAGE_SIZE`].
pub const PAGE_SHIFT: u32 = 12;

impl Mfn {
    /// The address of the frame's first byte.
    pub const fn address(self) -> MachineAddr {
        MachineAddr(self.0 << PAGE_SHIFT)
    }
}

impl MachineAddr {
    /// The frame that holds the byte.
    pub const fn mfn(self) -> Mfn {
        Mfn(self.0 >> PAGE_SHIFT)
    }

    /// The byte's offset in its frame.
    pub const fn page_offset(self) -> usize {
        (self.0 & (PAGE_SIZE as u64 - 1)) as usize
    }
}

impl DomId {
    /// The first domain, which has control of the machine.
    pub const DOM0: DomId = DomId(0);
    /// The smallest number with a special meaning.
    pub const FIRST_RESERVED: DomId = DomId(crate::xen::DOMID_FIRST_RESERVED);
    /// The calling domain.
    pub const SELF: DomId = DomId(crate::xen::DOMID_SELF);
    /// The owner of memory-mapped I/O.
    pub const IO: DomId = DomId(crate::xen::DOMID_IO);
    /// The hypervisor as the owner of pages it shares.
    pub const XEN: DomId = DomId(crate::xen::DOMID_XEN);
    /// The owner of shared copy-on-write pages.
    pub const COW: DomId = DomId(crate::xen::DOMID_COW);
    /// No domain.
    pub const INVALID: DomId = DomId(crate::xen::DOMID_INVALID);
    /// The idle domain.
    pub const IDLE: DomId = DomId(crate::xen::DOMID_IDLE);

    /// Whether the number can belong to an ordinary domain.
    pub const fn is_ordinary(self) -> bool {
        self.0 < crate::xen::DOMID_FIRST_RESERVED
    }
}
