//! Grant tables.

use pv_abi::errno::Errno;

use crate::call::Call;
use crate::hardware::Machine;
use crate::refusal::Refusal;
use crate::rules;
/// `grant_table_op`.
///
/// # Errors
/// `ENOSYS` for an operation that is not implemented.
pub fn grant_table_op<M: Machine>(_call: &mut Call<'_, M>, _args: [u64; 5]) -> Result<u64, Refusal> {
    Err(Refusal::errno(Errno::NoSys, rules::core::UNKNOWN_OPERATION))
}
/// A domain's grant table and what it has mapped of others'.
#[derive(Debug, Default)]
pub struct GrantTable;
