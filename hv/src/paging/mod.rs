//! Page tables that guests write and the hypervisor checks.

use pv_abi::errno::Errno;

use crate::call::Call;
use crate::hardware::Machine;
use crate::refusal::Refusal;
use crate::rules;
/// `mmu_update`.
///
/// # Errors
/// `ENOSYS` for an operation that is not implemented.
pub fn mmu_update<M: Machine>(_call: &mut Call<'_, M>, _args: [u64; 5]) -> Result<u64, Refusal> {
    Err(Refusal::errno(Errno::NoSys, rules::core::UNKNOWN_OPERATION))
}
/// `update_va_mapping`.
///
/// # Errors
/// `ENOSYS` for an operation that is not implemented.
pub fn update_va_mapping<M: Machine>(_call: &mut Call<'_, M>, _args: [u64; 5]) -> Result<u64, Refusal> {
    Err(Refusal::errno(Errno::NoSys, rules::core::UNKNOWN_OPERATION))
}
/// `update_va_mapping_otherdomain`.
///
/// # Errors
/// `ENOSYS` for an operation that is not implemented.
pub fn update_va_mapping_otherdomain<M: Machine>(_call: &mut Call<'_, M>, _args: [u64; 5]) -> Result<u64, Refusal> {
    Err(Refusal::errno(Errno::NoSys, rules::core::UNKNOWN_OPERATION))
}
/// `mmuext_op`.
///
/// # Errors
/// `ENOSYS` for an operation that is not implemented.
pub fn mmuext_op<M: Machine>(_call: &mut Call<'_, M>, _args: [u64; 5]) -> Result<u64, Refusal> {
    Err(Refusal::errno(Errno::NoSys, rules::core::UNKNOWN_OPERATION))
}
