//! The names of layouts that a block front end may announce in its node `protocol`.
//!
//! Xen: `public/io/protocols.h`.

/// 32-bit x86.
pub const XEN_IO_PROTO_ABI_X86_32: &str = "x86_32-abi";
/// 64-bit x86.
pub const XEN_IO_PROTO_ABI_X86_64: &str = "x86_64-abi";
/// Arm.
pub const XEN_IO_PROTO_ABI_ARM: &str = "arm-abi";
/// This crate's.
pub const XEN_IO_PROTO_ABI_NATIVE: &str = XEN_IO_PROTO_ABI_X86_64;
