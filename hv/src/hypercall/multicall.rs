//! Several hypercalls in one.
//!
//! Entries are done in order; one that fails has its errno as result and the rest go on. Between entries a long batch
//! stops and goes on later, and one whose entry left guest-kernel mode ends there (Xen: XSA-213).

use pv_abi::errno::Errno;
use pv_abi::xen::{HYPERVISOR_IRET, MulticallEntry};
use zerocopy::IntoBytes;

use super::{explain, handle, immediate};
use crate::call::Call;
use crate::hardware::Machine;
use crate::refusal::{Consequence, Refusal};
use crate::{control, hvm, paging, rules};

/// Byte offset of `result` in an entry.
const RESULT_OFFSET: u64 = core::mem::offset_of!(MulticallEntry, result) as u64;

/// `multicall(entries, count)`.
///
/// # Errors
/// `EFAULT` where the array is not readable or a result not writable, `EINVAL` for a multicall in a multicall.
pub(super) fn multicall<M: Machine>(call: &mut Call<'_, M>, args: [u64; 5]) -> Result<u64, Refusal> {
    if call.in_multicall {
        return Err(Refusal::errno(Errno::Inval, rules::core::MULTICALL_NESTED));
    }
    call.in_multicall = true;
    entries::<M, false>(call, args)
}

/// [`multicall`] of a guest with hardware assistance, apart, so that others do not pay.
///
/// # Errors
/// As [`multicall`].
#[inline(never)]
pub(super) fn assisted<M: Machine>(call: &mut Call<'_, M>, args: [u64; 5]) -> Result<u64, Refusal> {
    call.in_multicall = true;
    entries::<M, true>(call, args)
}

/// Does the entries; `HVM`: of a guest with hardware assistance, which may not make all hypercalls.
#[inline(always)]
fn entries<M: Machine, const HVM: bool>(call: &mut Call<'_, M>, args: [u64; 5]) -> Result<u64, Refusal> {
    let [entries, count, ..] = args;
    if !HVM && !paging::entry::is_guest_address(entries) {
        return Err(call.fault(entries));
    }
    let count = u64::from(count as u32);
    let mut entry = MulticallEntry::default();
    for index in 0..count {
        if index > 0 && call.should_stop() {
            let done = index * size_of::<MulticallEntry>() as u64;
            return Err(call.again([entries.wrapping_add(done), count - index, 0, 0, 0]));
        }
        let place = entries.wrapping_add(index * size_of::<MulticallEntry>() as u64);
        read::<M, HVM>(call, place, entry.as_mut_bytes())?;
        let result = match immediate(entry.op, entry.args[0]) {
            Some(answer) => answer,
            None if HVM && !hvm::may_call(entry.op) => Errno::NoSys.as_return().cast_unsigned(),
            None => match one(call, &entry) {
                Ok(result) => result,
                Err(refusal) if refusal.consequence == Consequence::Continue => {
                    return Err(stopped_within(call, place, count - index)?);
                }
                Err(refusal) => return Err(refusal),
            },
        };
        if entry.op == HYPERVISOR_IRET || !call.running.state.kernel_mode {
            return Ok(result);
        }
        call.write(place.wrapping_add(RESULT_OFFSET), &result)?;
        if control::must_stop(call) {
            let next = place.wrapping_add(size_of::<MulticallEntry>() as u64);
            return if index + 1 == count { Ok(0) } else { Err(call.again([next, count - index - 1, 0, 0, 0])) };
        }
    }
    Ok(0)
}

/// [`Call::read_bytes`], which for a PV guest need not remember what to try otherwise.
#[inline(always)]
fn read<M: Machine, const HVM: bool>(call: &Call<'_, M>, from: u64, into: &mut [u8]) -> Result<(), Refusal> {
    if HVM {
        return call.read_bytes(from, into);
    }
    call.hv.machine.copy_from_guest(from, into).map_err(|fault| call.fault(fault.0))
}

/// Does one entry; gives what goes into its `result`, unless the whole is to stop.
#[inline(never)]
fn one<M: Machine>(call: &mut Call<'_, M>, entry: &MulticallEntry) -> Result<u64, Refusal> {
    let [a, b, c, d, e, _] = entry.args;
    handle(call, entry.op, [a, b, c, d, e]).or_else(|refusal| answer_of(call, entry, refusal))
}

#[cold]
fn answer_of<M: Machine>(call: &Call<'_, M>, entry: &MulticallEntry, refusal: Refusal) -> Result<u64, Refusal> {
    let answer = match refusal.consequence {
        Consequence::Errno(errno) => errno.as_return(),
        Consequence::Status(status) => status.into(),
        Consequence::Continue | Consequence::Crash => return Err(refusal),
    };
    let [a, b, c, d, e, _] = entry.args;
    explain(call.hv, call.running, entry.op, [a, b, c, d, e], &refusal);
    Ok(answer.cast_unsigned())
}

/// An entry stopped in its middle: its arguments in the array say how far it came, and the whole goes on from it.
fn stopped_within<M: Machine>(call: &mut Call<'_, M>, place: u64, left: u64) -> Result<Refusal, Refusal> {
    if let Some(next) = call.next_arguments {
        call.write(place + core::mem::offset_of!(MulticallEntry, args) as u64, &next)?;
    }
    Ok(call.again([place, left, 0, 0, 0]))
}
