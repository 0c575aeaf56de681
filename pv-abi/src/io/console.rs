//! The console: two rings of bytes in a page, and an event channel.
//!
//! Xen: `public/io/console.h`.

use core::mem::offset_of;
use core::sync::atomic::{AtomicU8, AtomicU32};

use crate::layout::{atomics, structs};

/// Bytes of the ring toward the guest.
pub const IN_RING_SIZE: usize = 1024;

/// Bytes of the ring from the guest.
pub const OUT_RING_SIZE: usize = 2048;

structs! {
    header "io/console.h";

    /// The page's content. Indices run freely; a byte's place is its index modulo the ring's size.
    pub struct XenconsInterface ["struct xencons_interface"] {
        /// Toward the guest.
        pub in_ ["in"]: [u8; IN_RING_SIZE],
        /// From the guest.
        pub out: [u8; OUT_RING_SIZE],
        /// Guest writes.
        pub in_cons: u32,
        /// Back end writes.
        pub in_prod: u32,
        /// Back end writes.
        pub out_cons: u32,
        /// Guest writes.
        pub out_prod: u32,
    }
}

/// [`XenconsInterface`] with atomic fields.
///
/// Xen: `struct xencons_interface` in `public/io/console.h`.
#[repr(C)]
#[derive(Debug)]
pub struct XenconsInterfaceAtomic {
    /// Back end writes between `in_prod` and `in_cons`.
    pub in_: [AtomicU8; IN_RING_SIZE],
    /// Guest writes between `out_prod` and `out_cons`.
    pub out: [AtomicU8; OUT_RING_SIZE],
    /// Guest writes.
    pub in_cons: AtomicU32,
    /// Back end writes.
    pub in_prod: AtomicU32,
    /// Back end writes.
    pub out_cons: AtomicU32,
    /// Guest writes.
    pub out_prod: AtomicU32,
}

impl Default for XenconsInterfaceAtomic {
    /// Two empty rings.
    fn default() -> Self {
        XenconsInterfaceAtomic {
            in_: [const { AtomicU8::new(0) }; IN_RING_SIZE],
            out: [const { AtomicU8::new(0) }; OUT_RING_SIZE],
            in_cons: AtomicU32::new(0),
            in_prod: AtomicU32::new(0),
            out_cons: AtomicU32::new(0),
            out_prod: AtomicU32::new(0),
        }
    }
}

atomics! {
    XenconsInterfaceAtomic ["struct xencons_interface"] { in_, out, in_cons, in_prod, out_cons, out_prod }
}

const _: () = {
    assert!(size_of::<XenconsInterface>() == size_of::<XenconsInterfaceAtomic>());
    assert!(offset_of!(XenconsInterface, out) == offset_of!(XenconsInterfaceAtomic, out));
    assert!(offset_of!(XenconsInterface, in_cons) == offset_of!(XenconsInterfaceAtomic, in_cons));
    assert!(offset_of!(XenconsInterface, in_prod) == offset_of!(XenconsInterfaceAtomic, in_prod));
    assert!(offset_of!(XenconsInterface, out_cons) == offset_of!(XenconsInterfaceAtomic, out_cons));
    assert!(offset_of!(XenconsInterface, out_prod) == offset_of!(XenconsInterfaceAtomic, out_prod));
};
