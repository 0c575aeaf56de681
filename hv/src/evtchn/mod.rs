//! Event channels.

use pv_abi::errno::Errno;

use crate::call::Call;
use crate::hardware::Machine;
use crate::refusal::Refusal;
use crate::rules;
use crate::Hypervisor;
use crate::domain::Vcpu;

/// `event_channel_op`.
///
/// # Errors
/// `ENOSYS` for an operation that is not implemented.
pub fn event_channel_op<M: Machine>(_call: &mut Call<'_, M>, _args: [u64; 5]) -> Result<u64, Refusal> {
    Err(Refusal::errno(Errno::NoSys, rules::core::UNKNOWN_OPERATION))
}
/// A domain's event channels.
#[derive(Debug, Default)]
pub struct EventChannels;

/// Whether an event is pending for a vCPU that has not masked events.
#[inline]
#[must_use]
pub fn upcall_due<M: Machine>(_hv: &Hypervisor<M>, _vcpu: &Vcpu) -> bool {
    false
}
