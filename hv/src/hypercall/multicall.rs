//! Several hypercalls in one.
//!
//! Entries are done in order; one that fails has its errno as result and the rest go on. Between entries a long batch
//! stops and goes on later, and one whose entry left guest-kernel mode ends there (Xen: XSA-213).

use pv_abi::errno::Errno;
use pv_abi::xen::{HYPERVISOR_IRET, HYPERVISOR_MULTICALL, MulticallEntry};

use super::{explain, handle};
use crate::call::Call;
use crate::control;
use crate::hardware::Machine;
use crate::refusal::{Consequence, Refusal};
use crate::rules;

/// Byte offset of `result` in an entry.
const RESULT_OFFSET: u64 = core::mem::offset_of!(MulticallEntry, result) as u64;

/// `multicall(entries, count)`.
///
/// # Errors
/// `EFAULT` where the array is not readable or a result not writable, `EINVAL` for a multicall in a multicall.
pub(super) fn multicall<M: Machine>(call: &mut Call<'_, M>, args: [u64; 5]) -> Result<u64, Refusal> {
    let [entries, count, ..] = args;
    if call.in_multicall {
        return Err(Refusal::errno(Errno::Inval, rules::core::MULTICALL_NESTED));
    }
    call.in_multicall = true;
    for index in 0..u64::from(count as u32) {
        if index > 0 && call.should_stop() {
            let done = index * size_of::<MulticallEntry>() as u64;
            return Err(call.again([entries.wrapping_add(done), count - index, 0, 0, 0]));
        }
        let entry: MulticallEntry = call.read_element(entries, index)?;
        let arguments = [entry.args[0], entry.args[1], entry.args[2], entry.args[3], entry.args[4]];
        let place = entries + index * size_of::<MulticallEntry>() as u64;
        let result = match one(call, entry.op, arguments) {
            Ok(value) => value,
            Err(refusal) => match refusal.consequence {
                Consequence::Errno(errno) => {
                    explain(call.hv, call.running, entry.op, arguments, &refusal);
                    errno.as_return().cast_unsigned()
                }
                Consequence::Status(status) => i64::from(status).cast_unsigned(),
                Consequence::Continue => return Err(stopped_within(call, place, count - index)?),
                Consequence::Crash => return Err(refusal),
            },
        };
        if entry.op == HYPERVISOR_IRET || !call.running.state.kernel_mode {
            return Ok(0);
        }
        call.write(place + RESULT_OFFSET, &result)?;
        if control::must_stop(call) {
            let done = place + size_of::<MulticallEntry>() as u64;
            return if index + 1 == u64::from(count as u32) {
                Ok(0)
            } else {
                Err(call.again([done, count - index - 1, 0, 0, 0]))
            };
        }
    }
    Ok(0)
}

fn one<M: Machine>(call: &mut Call<'_, M>, number: u64, arguments: [u64; 5]) -> Result<u64, Refusal> {
    if number == HYPERVISOR_MULTICALL {
        return Err(Refusal::errno(Errno::Inval, rules::core::MULTICALL_NESTED));
    }
    handle(call, number, arguments)
}

/// An entry stopped in its middle: its arguments in the array say how far it came, and the whole goes on from it.
fn stopped_within<M: Machine>(call: &mut Call<'_, M>, place: u64, left: u64) -> Result<Refusal, Refusal> {
    if let Some(next) = call.next_arguments {
        call.write(place + core::mem::offset_of!(MulticallEntry, args) as u64, &next)?;
    }
    Ok(call.again([place, left, 0, 0, 0]))
}
