//! Why an operation of the [`Hal`](crate::Hal) did not happen.
//!
//! Source: Xen `public/grant_table.h` (`GNTST_*`), `public/io/xs_wire.h` (`xsd_errors`), `public/errno.h`.

use core::fmt;

/// There is no free page.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct OutOfMemory;

impl fmt::Display for OutOfMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("no free page")
    }
}

/// Why a grant operation failed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum GrantError {
    /// This domain's grant table has no free entry.
    NoFreeEntry,
    /// The peer still uses the page.
    InUse,
    /// The hypervisor's answer, a `GNTST_*` code below zero.
    Status(i16),
}

impl GrantError {
    /// The name Xen's header gives the answer.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::NoFreeEntry => "no free grant entry",
            Self::InUse => "grant in use by the peer",
            Self::Status(status) => grant_status_name(status),
        }
    }
}

fn grant_status_name(status: i16) -> &'static str {
    match status {
        0 => "GNTST_okay",
        -1 => "GNTST_general_error",
        -2 => "GNTST_bad_domain",
        -3 => "GNTST_bad_gntref",
        -4 => "GNTST_bad_handle",
        -5 => "GNTST_bad_virt_addr",
        -6 => "GNTST_bad_dev_addr",
        -7 => "GNTST_no_device_space",
        -8 => "GNTST_permission_denied",
        -9 => "GNTST_bad_page",
        -10 => "GNTST_bad_copy_arg",
        -11 => "GNTST_address_too_big",
        -12 => "GNTST_eagain",
        -13 => "GNTST_no_space",
        _ => "unknown grant status",
    }
}

impl fmt::Display for GrantError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Why an event channel could not be made or bound: the errno of the hypercall (positive).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct EventError(pub i32);

impl fmt::Display for EventError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "event channel operation failed with errno {}", self.0)
    }
}

/// The store's refusal. On the wire it is the *name* of an errno.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum StoreError {
    /// `EINVAL`: a malformed path or request.
    Invalid,
    /// `EACCES`: no permission.
    Access,
    /// `EEXIST`.
    Exists,
    /// `EISDIR`.
    IsDirectory,
    /// `ENOENT`: no such node, watch or transaction.
    NoEntry,
    /// `ENOMEM`.
    NoMemory,
    /// `ENOSPC`: a quota is used up.
    NoSpace,
    /// `EIO`, or an answer that does not fit its request.
    Io,
    /// `ENOTEMPTY`.
    NotEmpty,
    /// `ENOSYS`.
    NotImplemented,
    /// `EROFS`.
    ReadOnly,
    /// `EBUSY`: too many transactions.
    Busy,
    /// `EAGAIN`: the transaction met another change.
    Again,
    /// `EISCONN`.
    IsConnected,
    /// `E2BIG`: the payload is over 4096 bytes.
    TooBig,
    /// `EPERM`.
    NotPermitted,
    /// `EQUOTA`.
    Quota,
}

/// Wire name of each error; one row each.
const STORE_ERRORS: [(StoreError, &str); 17] = [
    (StoreError::Invalid, "EINVAL"),
    (StoreError::Access, "EACCES"),
    (StoreError::Exists, "EEXIST"),
    (StoreError::IsDirectory, "EISDIR"),
    (StoreError::NoEntry, "ENOENT"),
    (StoreError::NoMemory, "ENOMEM"),
    (StoreError::NoSpace, "ENOSPC"),
    (StoreError::Io, "EIO"),
    (StoreError::NotEmpty, "ENOTEMPTY"),
    (StoreError::NotImplemented, "ENOSYS"),
    (StoreError::ReadOnly, "EROFS"),
    (StoreError::Busy, "EBUSY"),
    (StoreError::Again, "EAGAIN"),
    (StoreError::IsConnected, "EISCONN"),
    (StoreError::TooBig, "E2BIG"),
    (StoreError::NotPermitted, "EPERM"),
    (StoreError::Quota, "EQUOTA"),
];

impl StoreError {
    /// The error with this name on the wire; a name nobody knows is [`StoreError::Io`].
    #[must_use]
    pub fn from_wire(name: &str) -> Self {
        let row = STORE_ERRORS.iter().find(|(_, wire)| *wire == name);
        row.map_or(Self::Io, |(error, _)| *error)
    }

    /// The name on the wire.
    #[must_use]
    pub fn wire_name(self) -> &'static str {
        let row = STORE_ERRORS.iter().find(|(error, _)| *error == self);
        row.map_or("EIO", |(_, wire)| wire)
    }
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.wire_name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_store_error_survives_the_wire() {
        for (error, name) in STORE_ERRORS {
            assert_eq!(StoreError::from_wire(name), error);
            assert_eq!(error.wire_name(), name);
        }
        assert_eq!(StoreError::from_wire("EWHAT"), StoreError::Io);
    }
}
