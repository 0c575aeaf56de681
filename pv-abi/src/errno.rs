//! Error numbers, as hypercalls return them (negated).
//!
//! Xen: `public/errno.h`. `EINTR` and `ERESTART` are Xen's own: a guest that sees one of them has found a bug.

use crate::layout::constants;

/// Declares the enum and its conversions from one list of rows.
macro_rules! errno {
    ($( $(#[$meta:meta])* $variant:ident = $value:literal, $c:literal; )*) => {
        /// Why a hypercall was refused.
        ///
        /// ```
        /// use pv_abi::errno::Errno;
        /// assert_eq!(Errno::Inval.as_return(), -22);
        /// assert_eq!(Errno::result_of(-1), Err(Errno::Perm));
        /// assert_eq!(Errno::result_of(3), Ok(3));
        /// ```
        ///
        /// Xen: `public/errno.h`.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        #[repr(i32)]
        pub enum Errno {
            $( $(#[$meta])* $variant = $value, )*
        }

        impl Errno {
            /// Every error, in the order of the numbers.
            pub const ALL: &'static [Errno] = &[ $( Errno::$variant, )* ];

            /// The error with this number, if the ABI has one.
            pub const fn from_raw(number: i32) -> Option<Errno> {
                match number {
                    $( $value => Some(Errno::$variant), )*
                    _ => None,
                }
            }

            /// The name as C and xenstore spell it: `EINVAL`.
            pub const fn name(self) -> &'static str {
                match self {
                    $( Errno::$variant => $c, )*
                }
            }

            /// The error with this C name; xenstore sends errors by name.
            pub fn from_name(name: &str) -> Option<Errno> {
                match name {
                    $( $c => Some(Errno::$variant), )*
                    _ => None,
                }
            }
        }
    };
}

errno! {
    /// Operation not permitted.
    Perm = 1, "EPERM";
    /// No such object.
    NoEnt = 2, "ENOENT";
    /// No such domain or vCPU.
    Srch = 3, "ESRCH";
    /// Interrupted; Xen's own, never seen by a guest.
    Intr = 4, "EINTR";
    /// I/O error.
    Io = 5, "EIO";
    /// No such device or address.
    Nxio = 6, "ENXIO";
    /// Argument list too long.
    TooBig = 7, "E2BIG";
    /// Not an executable.
    NoExec = 8, "ENOEXEC";
    /// Bad file number.
    Badf = 9, "EBADF";
    /// No child.
    Child = 10, "ECHILD";
    /// Try again.
    Again = 11, "EAGAIN";
    /// Out of memory.
    NoMem = 12, "ENOMEM";
    /// Access denied.
    Access = 13, "EACCES";
    /// Bad address: an argument could not be read or written.
    Fault = 14, "EFAULT";
    /// In use.
    Busy = 16, "EBUSY";
    /// Exists already.
    Exist = 17, "EEXIST";
    /// Crosses a boundary between devices.
    Xdev = 18, "EXDEV";
    /// No such device.
    NoDev = 19, "ENODEV";
    /// Not a directory.
    NotDir = 20, "ENOTDIR";
    /// Is a directory.
    IsDir = 21, "EISDIR";
    /// Invalid argument.
    Inval = 22, "EINVAL";
    /// Table full.
    NFile = 23, "ENFILE";
    /// Too many open.
    MFile = 24, "EMFILE";
    /// No space left.
    NoSpc = 28, "ENOSPC";
    /// Read-only.
    RoFs = 30, "EROFS";
    /// Too many links.
    MLink = 31, "EMLINK";
    /// Out of the function's domain.
    Dom = 33, "EDOM";
    /// Result out of range.
    Range = 34, "ERANGE";
    /// Would deadlock.
    Deadlk = 35, "EDEADLK";
    /// Name too long.
    NameTooLong = 36, "ENAMETOOLONG";
    /// No locks left.
    NoLck = 37, "ENOLCK";
    /// No such hypercall or sub-operation.
    NoSys = 38, "ENOSYS";
    /// Not empty.
    NotEmpty = 39, "ENOTEMPTY";
    /// No data.
    NoData = 61, "ENODATA";
    /// Timer expired.
    Time = 62, "ETIME";
    /// Not a valid message.
    BadMsg = 74, "EBADMSG";
    /// Value too large for its type.
    Overflow = 75, "EOVERFLOW";
    /// Illegal byte sequence.
    IlSeq = 84, "EILSEQ";
    /// To be restarted; Xen's own, never seen by a guest.
    Restart = 85, "ERESTART";
    /// Not a socket.
    NotSock = 88, "ENOTSOCK";
    /// Message too long.
    MsgSize = 90, "EMSGSIZE";
    /// Operation not supported.
    OpNotSupp = 95, "EOPNOTSUPP";
    /// Address in use.
    AddrInUse = 98, "EADDRINUSE";
    /// Address not available.
    AddrNotAvail = 99, "EADDRNOTAVAIL";
    /// No buffer space.
    NoBufs = 105, "ENOBUFS";
    /// Already connected.
    IsConn = 106, "EISCONN";
    /// Not connected.
    NotConn = 107, "ENOTCONN";
    /// Timed out.
    TimedOut = 110, "ETIMEDOUT";
    /// Connection refused.
    ConnRefused = 111, "ECONNREFUSED";
}

impl Errno {
    /// Another name of [`Errno::Again`].
    pub const WOULD_BLOCK: Errno = Errno::Again;

    /// The number, positive.
    pub const fn number(self) -> i32 {
        self as i32
    }

    /// What a hypercall returns for it: the number negated.
    pub const fn as_return(self) -> i64 {
        -(self as i32 as i64)
    }

    /// Splits a hypercall's return value into success and error.
    ///
    /// # Errors
    /// The error whose negated number `value` is; a negative number the ABI does not know becomes [`Errno::Inval`].
    pub const fn result_of(value: i64) -> Result<u64, Errno> {
        if value >= 0 {
            return Ok(value as u64);
        }
        if value < -4095 {
            return Err(Errno::Inval);
        }
        match Errno::from_raw(-(value as i32)) {
            Some(errno) => Err(errno),
            None => Err(Errno::Inval),
        }
    }
}

impl core::fmt::Display for Errno {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(self.name())
    }
}

impl core::error::Error for Errno {}

constants! {
    header "errno.h";
    /// Operation not permitted.
    pub const XEN_EPERM: i32 = Errno::Perm as i32;
    /// No such object.
    pub const XEN_ENOENT: i32 = Errno::NoEnt as i32;
    /// No such domain or vCPU.
    pub const XEN_ESRCH: i32 = Errno::Srch as i32;
    /// I/O error.
    pub const XEN_EIO: i32 = Errno::Io as i32;
    /// No such device or address.
    pub const XEN_ENXIO: i32 = Errno::Nxio as i32;
    /// Argument list too long.
    pub const XEN_E2BIG: i32 = Errno::TooBig as i32;
    /// Not an executable.
    pub const XEN_ENOEXEC: i32 = Errno::NoExec as i32;
    /// Bad file number.
    pub const XEN_EBADF: i32 = Errno::Badf as i32;
    /// No child.
    pub const XEN_ECHILD: i32 = Errno::Child as i32;
    /// Try again.
    pub const XEN_EAGAIN: i32 = Errno::Again as i32;
    /// Another name of `EAGAIN`.
    pub const XEN_EWOULDBLOCK: i32 = 11;
    /// Out of memory.
    pub const XEN_ENOMEM: i32 = Errno::NoMem as i32;
    /// Access denied.
    pub const XEN_EACCES: i32 = Errno::Access as i32;
    /// Bad address: an argument could not be read or written.
    pub const XEN_EFAULT: i32 = Errno::Fault as i32;
    /// In use.
    pub const XEN_EBUSY: i32 = Errno::Busy as i32;
    /// Exists already.
    pub const XEN_EEXIST: i32 = Errno::Exist as i32;
    /// Crosses a boundary between devices.
    pub const XEN_EXDEV: i32 = Errno::Xdev as i32;
    /// No such device.
    pub const XEN_ENODEV: i32 = Errno::NoDev as i32;
    /// Not a directory.
    pub const XEN_ENOTDIR: i32 = Errno::NotDir as i32;
    /// Is a directory.
    pub const XEN_EISDIR: i32 = Errno::IsDir as i32;
    /// Invalid argument.
    pub const XEN_EINVAL: i32 = Errno::Inval as i32;
    /// Table full.
    pub const XEN_ENFILE: i32 = Errno::NFile as i32;
    /// Too many open.
    pub const XEN_EMFILE: i32 = Errno::MFile as i32;
    /// No space left.
    pub const XEN_ENOSPC: i32 = Errno::NoSpc as i32;
    /// Read-only.
    pub const XEN_EROFS: i32 = Errno::RoFs as i32;
    /// Too many links.
    pub const XEN_EMLINK: i32 = Errno::MLink as i32;
    /// Out of the function's domain.
    pub const XEN_EDOM: i32 = Errno::Dom as i32;
    /// Result out of range.
    pub const XEN_ERANGE: i32 = Errno::Range as i32;
    /// Would deadlock.
    pub const XEN_EDEADLK: i32 = Errno::Deadlk as i32;
    /// Another name of `EDEADLK`.
    pub const XEN_EDEADLOCK: i32 = 35;
    /// Name too long.
    pub const XEN_ENAMETOOLONG: i32 = Errno::NameTooLong as i32;
    /// No locks left.
    pub const XEN_ENOLCK: i32 = Errno::NoLck as i32;
    /// No such hypercall or sub-operation.
    pub const XEN_ENOSYS: i32 = Errno::NoSys as i32;
    /// Not empty.
    pub const XEN_ENOTEMPTY: i32 = Errno::NotEmpty as i32;
    /// No data.
    pub const XEN_ENODATA: i32 = Errno::NoData as i32;
    /// Timer expired.
    pub const XEN_ETIME: i32 = Errno::Time as i32;
    /// Not a valid message.
    pub const XEN_EBADMSG: i32 = Errno::BadMsg as i32;
    /// Value too large for its type.
    pub const XEN_EOVERFLOW: i32 = Errno::Overflow as i32;
    /// Illegal byte sequence.
    pub const XEN_EILSEQ: i32 = Errno::IlSeq as i32;
    /// Not a socket.
    pub const XEN_ENOTSOCK: i32 = Errno::NotSock as i32;
    /// Message too long.
    pub const XEN_EMSGSIZE: i32 = Errno::MsgSize as i32;
    /// Operation not supported.
    pub const XEN_EOPNOTSUPP: i32 = Errno::OpNotSupp as i32;
    /// Address in use.
    pub const XEN_EADDRINUSE: i32 = Errno::AddrInUse as i32;
    /// Address not available.
    pub const XEN_EADDRNOTAVAIL: i32 = Errno::AddrNotAvail as i32;
    /// No buffer space.
    pub const XEN_ENOBUFS: i32 = Errno::NoBufs as i32;
    /// Already connected.
    pub const XEN_EISCONN: i32 = Errno::IsConn as i32;
    /// Not connected.
    pub const XEN_ENOTCONN: i32 = Errno::NotConn as i32;
    /// Timed out.
    pub const XEN_ETIMEDOUT: i32 = Errno::TimedOut as i32;
    /// Connection refused.
    pub const XEN_ECONNREFUSED: i32 = Errno::ConnRefused as i32;
}
