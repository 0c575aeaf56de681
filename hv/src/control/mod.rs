//! What a toolstack and dom0 may ask; how dom0 is built.

use pv_abi::errno::Errno;

use crate::call::Call;
use crate::hardware::Machine;
use crate::refusal::Refusal;
use crate::rules;
use crate::Hypervisor;
use crate::domain::Running;
use crate::registers::Registers;

pub mod console;
pub mod options;
pub mod permissions;
pub mod physdev;

/// The privileged domain's choices for a domain.
#[derive(Debug, Default)]
pub struct Settings;

/// `platform_op`.
///
/// # Errors
/// `ENOSYS` for an operation that is not implemented.
pub fn platform_op<M: Machine>(_call: &mut Call<'_, M>, _args: [u64; 5]) -> Result<u64, Refusal> {
    Err(Refusal::errno(Errno::NoSys, rules::core::UNKNOWN_OPERATION))
}
/// `xen_version`.
///
/// # Errors
/// `ENOSYS` for an operation that is not implemented.
pub fn xen_version<M: Machine>(_call: &mut Call<'_, M>, _args: [u64; 5]) -> Result<u64, Refusal> {
    Err(Refusal::errno(Errno::NoSys, rules::core::UNKNOWN_OPERATION))
}
/// `console_io`.
///
/// # Errors
/// `ENOSYS` for an operation that is not implemented.
pub fn console_io<M: Machine>(_call: &mut Call<'_, M>, _args: [u64; 5]) -> Result<u64, Refusal> {
    Err(Refusal::errno(Errno::NoSys, rules::core::UNKNOWN_OPERATION))
}
/// `physdev_op`.
///
/// # Errors
/// `ENOSYS` for an operation that is not implemented.
pub fn physdev_op<M: Machine>(_call: &mut Call<'_, M>, _args: [u64; 5]) -> Result<u64, Refusal> {
    Err(Refusal::errno(Errno::NoSys, rules::core::UNKNOWN_OPERATION))
}
/// `sysctl`.
///
/// # Errors
/// `ENOSYS` for an operation that is not implemented.
pub fn sysctl<M: Machine>(_call: &mut Call<'_, M>, _args: [u64; 5]) -> Result<u64, Refusal> {
    Err(Refusal::errno(Errno::NoSys, rules::core::UNKNOWN_OPERATION))
}
/// `domctl`.
///
/// # Errors
/// `ENOSYS` for an operation that is not implemented.
pub fn domctl<M: Machine>(_call: &mut Call<'_, M>, _args: [u64; 5]) -> Result<u64, Refusal> {
    Err(Refusal::errno(Errno::NoSys, rules::core::UNKNOWN_OPERATION))
}
/// Crashes the calling domain alone: prints its registers, the reason and its last hypercalls; its toolstack is told.
pub fn crash<M: Machine>(_hv: &Hypervisor<M>, _running: &mut Running, _registers: &mut Registers, _refusal: &Refusal) {}

/// Whether the calling vCPU may not go on now (its domain shut down or paused, it blocked).
#[must_use]
pub fn must_stop<M: Machine>(call: &Call<'_, M>) -> bool {
    !call.vcpu().is_runnable()
}
