//! xenstore on the wire: messages of a header and up to 4 KiB, over two rings of bytes in a page.
//!
//! Xen: `public/io/xs_wire.h`.

use core::mem::offset_of;
use core::sync::atomic::{AtomicU8, AtomicU32};

use crate::layout::{atomics, constants, structs};

constants! {
    header "io/xs_wire.h";
    /// Commands to the server itself; formerly `XS_DEBUG`.
    pub const XS_CONTROL: u32 = 0;
    /// Lists children.
    pub const XS_DIRECTORY: u32 = 1;
    /// Reads a node.
    pub const XS_READ: u32 = 2;
    /// Reads permissions.
    pub const XS_GET_PERMS: u32 = 3;
    /// Sets a watch: path, token.
    pub const XS_WATCH: u32 = 4;
    /// Removes a watch: path, token.
    pub const XS_UNWATCH: u32 = 5;
    /// Begins a transaction.
    pub const XS_TRANSACTION_START: u32 = 6;
    /// Ends a transaction: `T` commits, `F` drops it.
    pub const XS_TRANSACTION_END: u32 = 7;
    /// A domain is there: number, frame, port.
    pub const XS_INTRODUCE: u32 = 8;
    /// A domain is gone: number.
    pub const XS_RELEASE: u32 = 9;
    /// Tells a domain's home: number.
    pub const XS_GET_DOMAIN_PATH: u32 = 10;
    /// Writes a node: path, then the value without a zero.
    pub const XS_WRITE: u32 = 11;
    /// Creates an empty node.
    pub const XS_MKDIR: u32 = 12;
    /// Removes a node and all below it.
    pub const XS_RM: u32 = 13;
    /// Sets permissions: path, then one text each.
    pub const XS_SET_PERMS: u32 = 14;
    /// From the server: a watch fired: path, token.
    pub const XS_WATCH_EVENT: u32 = 15;
    /// From the server: the request failed; the payload is the error's name.
    pub const XS_ERROR: u32 = 16;
    /// Tells whether a domain was introduced: `T` or `F`.
    pub const XS_IS_DOMAIN_INTRODUCED: u32 = 17;
    /// Clears a domain's "shut down" mark: number.
    pub const XS_RESUME: u32 = 18;
    /// Gives a domain the permissions of another: numbers.
    pub const XS_SET_TARGET: u32 = 19;
    /// Removes all watches of the caller.
    pub const XS_RESET_WATCHES: u32 = 21;
    /// Lists part of the children: path, offset.
    pub const XS_DIRECTORY_PART: u32 = 22;
    /// Number of types.
    pub const XS_TYPE_COUNT: u32 = 23;
    /// No type.
    pub const XS_INVALID: u32 = 0xffff;
    /// The place of the path in a watch event.
    pub const XS_WATCH_PATH: u32 = 0;
    /// The place of the token in a watch event.
    pub const XS_WATCH_TOKEN: u32 = 1;
    /// Bytes of each ring.
    pub const XENSTORE_RING_SIZE: usize = 1024;
    /// Bytes a message may carry.
    pub const XENSTORE_PAYLOAD_MAX: usize = 4096;
    /// Characters of an absolute path.
    pub const XENSTORE_ABS_PATH_MAX: usize = 3072;
    /// Characters of a relative path.
    pub const XENSTORE_REL_PATH_MAX: usize = 2048;
    /// In `server_features`: the connection can be set up anew.
    pub const XENSTORE_SERVER_FEATURE_RECONNECTION: u32 = 1;
    /// In `server_features`: `error` is used.
    pub const XENSTORE_SERVER_FEATURE_ERROR: u32 = 2;
    /// In `connection`: connected.
    pub const XENSTORE_CONNECTED: u32 = 0;
    /// In `connection`: being set up anew.
    pub const XENSTORE_RECONNECT: u32 = 1;
    /// In `error`: none.
    pub const XENSTORE_ERROR_NONE: u32 = 0;
    /// In `error`: communication.
    pub const XENSTORE_ERROR_COMM: u32 = 1;
    /// In `error`: an index of a ring.
    pub const XENSTORE_ERROR_RINGIDX: u32 = 2;
    /// In `error`: the protocol.
    pub const XENSTORE_ERROR_PROTO: u32 = 3;
}

structs! {
    header "io/xs_wire.h";

    /// The header of each message.
    pub struct XsdSockmsg ["struct xsd_sockmsg"] {
        /// `XS_*`.
        pub type_ ["type"]: u32,
        /// Chosen by the client, echoed by the server.
        pub req_id: u32,
        /// The transaction, 0 for none; echoed.
        pub tx_id: u32,
        /// Bytes that follow.
        pub len: u32,
    }

    /// The page's content. Indices run freely; a byte's place is its index modulo 1024.
    pub struct XenstoreDomainInterface ["struct xenstore_domain_interface"] {
        /// Requests. Client writes.
        pub req: [u8; XENSTORE_RING_SIZE],
        /// Replies and watch events. Server writes.
        pub rsp: [u8; XENSTORE_RING_SIZE],
        /// Server writes.
        pub req_cons: u32,
        /// Client writes.
        pub req_prod: u32,
        /// Client writes.
        pub rsp_cons: u32,
        /// Server writes.
        pub rsp_prod: u32,
        /// `XENSTORE_SERVER_FEATURE_*`. Server writes.
        pub server_features: u32,
        /// `XENSTORE_CONNECTED`; a client that wants to start anew writes `XENSTORE_RECONNECT`.
        pub connection: u32,
        /// `XENSTORE_ERROR_*`. Server writes.
        pub error: u32,
    }
}

/// [`XenstoreDomainInterface`] with atomic fields.
///
/// Xen: `struct xenstore_domain_interface` in `public/io/xs_wire.h`.
#[repr(C)]
#[derive(Debug)]
pub struct XenstoreDomainInterfaceAtomic {
    /// Client writes between `req_prod` and `req_cons`.
    pub req: [AtomicU8; XENSTORE_RING_SIZE],
    /// Server writes between `rsp_prod` and `rsp_cons`.
    pub rsp: [AtomicU8; XENSTORE_RING_SIZE],
    /// Server writes.
    pub req_cons: AtomicU32,
    /// Client writes.
    pub req_prod: AtomicU32,
    /// Client writes.
    pub rsp_cons: AtomicU32,
    /// Server writes.
    pub rsp_prod: AtomicU32,
    /// Server writes.
    pub server_features: AtomicU32,
    /// Both write: client asks to start anew, server answers.
    pub connection: AtomicU32,
    /// Server writes.
    pub error: AtomicU32,
}

impl Default for XenstoreDomainInterfaceAtomic {
    /// Two empty rings, connected.
    fn default() -> Self {
        XenstoreDomainInterfaceAtomic {
            req: [const { AtomicU8::new(0) }; XENSTORE_RING_SIZE],
            rsp: [const { AtomicU8::new(0) }; XENSTORE_RING_SIZE],
            req_cons: AtomicU32::new(0),
            req_prod: AtomicU32::new(0),
            rsp_cons: AtomicU32::new(0),
            rsp_prod: AtomicU32::new(0),
            server_features: AtomicU32::new(0),
            connection: AtomicU32::new(0),
            error: AtomicU32::new(0),
        }
    }
}

atomics! {
    XenstoreDomainInterfaceAtomic ["struct xenstore_domain_interface"] {
        req, rsp, req_cons, req_prod, rsp_cons, rsp_prod, server_features, connection, error,
    }
}

const _: () = {
    type Plain = XenstoreDomainInterface;
    type Atomic = XenstoreDomainInterfaceAtomic;
    assert!(size_of::<Plain>() == size_of::<Atomic>());
    assert!(offset_of!(Plain, rsp) == offset_of!(Atomic, rsp));
    assert!(offset_of!(Plain, req_cons) == offset_of!(Atomic, req_cons));
    assert!(offset_of!(Plain, req_prod) == offset_of!(Atomic, req_prod));
    assert!(offset_of!(Plain, rsp_cons) == offset_of!(Atomic, rsp_cons));
    assert!(offset_of!(Plain, rsp_prod) == offset_of!(Atomic, rsp_prod));
    assert!(offset_of!(Plain, server_features) == offset_of!(Atomic, server_features));
    assert!(offset_of!(Plain, connection) == offset_of!(Atomic, connection));
    assert!(offset_of!(Plain, error) == offset_of!(Atomic, error));
};
