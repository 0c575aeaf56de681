//! Devices, and the operations of a toolstack.

use super::raw::{address_mut, call1, call2, call3};
use crate::DomId;
use crate::domctl::Domctl;
use crate::errno::Errno;
use crate::hvm::dm_op::{DmOp, DmOpBuf};
use crate::physdev::{PHYSDEVOP_SET_IOPL, PhysdevSetIopl};
use crate::platform::PlatformOp;
use crate::sysctl::Sysctl;
use crate::xen::{
    HYPERVISOR_DM_OP, HYPERVISOR_DOMCTL, HYPERVISOR_HVM_OP, HYPERVISOR_MULTICALL, HYPERVISOR_PHYSDEV_OP,
    HYPERVISOR_PLATFORM_OP, HYPERVISOR_SYSCTL, MulticallEntry,
};

/// Performs a `PHYSDEVOP_*` with its argument.
///
/// # Errors
/// Those of the operation.
///
/// # Safety
/// The argument is what the command takes, and what the device then does is allowed.
pub unsafe fn physdev_op<T>(command: u32, argument: &mut T) -> Result<u64, Errno> {
    // SAFETY: passed on to the caller.
    unsafe { call2(HYPERVISOR_PHYSDEV_OP, command.into(), address_mut(argument)) }
}

/// Sets the I/O privilege level: 1 lets the kernel reach the ports it may, 3 user mode too.
///
/// # Errors
/// `Inval`: more than 3.
pub fn physdev_set_iopl(iopl: u32) -> Result<(), Errno> {
    // SAFETY: the command reads its argument; a privilege level changes no memory.
    unsafe { physdev_op(PHYSDEVOP_SET_IOPL, &mut PhysdevSetIopl { iopl }) }.map(drop)
}

/// Performs a domain-control operation.
///
/// # Errors
/// Those of the operation; `Access`: the interface version is not the hypervisor's.
///
/// # Safety
/// Addresses in the payload are of memory that may be written as the operation says.
pub unsafe fn domctl(operation: &mut Domctl) -> Result<u64, Errno> {
    // SAFETY: passed on to the caller.
    unsafe { call1(HYPERVISOR_DOMCTL, address_mut(operation)) }
}

/// Performs a system-control operation.
///
/// # Errors
/// Those of the operation; `Access`: the interface version is not the hypervisor's.
///
/// # Safety
/// Addresses in the payload are of memory that may be written as the operation says.
pub unsafe fn sysctl(operation: &mut Sysctl) -> Result<u64, Errno> {
    // SAFETY: passed on to the caller.
    unsafe { call1(HYPERVISOR_SYSCTL, address_mut(operation)) }
}

/// Performs a platform operation.
///
/// # Errors
/// Those of the operation; `Access`: the interface version is not the hypervisor's.
///
/// # Safety
/// Addresses in the payload are of memory that may be written as the operation says.
pub unsafe fn platform_op(operation: &mut PlatformOp) -> Result<u64, Errno> {
    // SAFETY: passed on to the caller.
    unsafe { call1(HYPERVISOR_PLATFORM_OP, address_mut(operation)) }
}

/// Performs an `HVMOP_*` with its argument.
///
/// # Errors
/// Those of the operation.
///
/// # Safety
/// The argument is what the command takes.
pub unsafe fn hvm_op<T>(command: u32, argument: &mut T) -> Result<u64, Errno> {
    // SAFETY: passed on to the caller.
    unsafe { call2(HYPERVISOR_HVM_OP, command.into(), address_mut(argument)) }
}

/// Performs an operation of a device model for a domain.
///
/// # Errors
/// Those of the operation.
pub fn dm_op(domain: DomId, operation: &mut DmOp) -> Result<u64, Errno> {
    let mut buffer = DmOpBuf { h: address_mut(operation), size: size_of::<DmOp>() as u64 };
    // SAFETY: the hypervisor reads the buffer and reads and writes the operation, which both live until it returns; other
    // buffers are not given.
    unsafe { call3(HYPERVISOR_DM_OP, domain.0.into(), 1, address_mut(&mut buffer)) }
}

/// Performs several calls in one; each entry then holds its own result.
///
/// # Errors
/// `Inval` or `Fault`: the array cannot be accessed. The calls' own errors are in the entries.
///
/// # Safety
/// That of each call.
pub unsafe fn multicall(calls: &mut [MulticallEntry]) -> Result<(), Errno> {
    let (count, at) = (calls.len() as u64, address_mut(calls));
    // SAFETY: passed on to the caller.
    unsafe { call2(HYPERVISOR_MULTICALL, at, count) }.map(drop)
}
