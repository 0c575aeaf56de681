//! What a guest may ask about its memory.

use pv_abi::errno::Errno;

use crate::call::Call;
use crate::hardware::Machine;
use crate::refusal::Refusal;
use crate::rules;
/// `memory_op`.
///
/// # Errors
/// `ENOSYS` for an operation that is not implemented.
pub fn memory_op<M: Machine>(_call: &mut Call<'_, M>, _args: [u64; 5]) -> Result<u64, Refusal> {
    Err(Refusal::errno(Errno::NoSys, rules::core::UNKNOWN_OPERATION))
}
