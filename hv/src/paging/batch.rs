//! `mmu_update` and `mmuext_op` run lists of requests in the same way: one after the other, until one is refused.
//!
//! The guest may be interrupted between two requests, and within one. Then the hypercall is executed again with the rest
//! of the list: `count` has bit 31 set, and the word at `done` says how many were done before. Where only taking an old
//! table apart is left, the list is null and the result waits in the last argument.
//! Xen: `MMU_UPDATE_PREEMPTED`.

use pv_abi::errno::Errno;
use pv_abi::xen::MMU_UPDATE_PREEMPTED;
use zerocopy::{FromBytes, IntoBytes};

use super::entry::is_guest_address;
use super::table::{Stop, Work, finish_unfinished};
use crate::call::Call;
use crate::hardware::Machine;
use crate::refusal::{Consequence, Refusal};

/// What was left of an old table is taken apart first.
pub(super) fn finish_left<M: Machine>(call: &mut Call<'_, M>, args: [u64; 5]) -> Result<(), Refusal> {
    let Some(unfinished) = call.running.state.unfinished.take() else {
        return Ok(());
    };
    let mut work = Work::preemptible();
    let outcome = finish_unfinished(call.hv, unfinished, &mut work);
    call.running.state.unfinished = work.unfinished;
    if outcome.is_err() { Err(call.again(args)) } else { Ok(()) }
}

/// Runs a list: `prepare` makes of the last argument what all requests share, `step` does one request.
///
/// # Errors
/// What `prepare` or the first failing request gave.
pub(super) fn run<M, T, C>(
    call: &mut Call<'_, M>,
    args: [u64; 5],
    number: u64,
    prepare: impl FnOnce(&Call<'_, M>, u32) -> Result<C, Refusal>,
    mut step: impl FnMut(&mut Call<'_, M>, &C, T, &mut Work) -> Result<(), Stop>,
) -> Result<u64, Refusal>
where
    M: Machine,
    T: FromBytes + IntoBytes,
{
    let [requests, count, done_at, foreign, unused] = args;
    finish_left(call, args)?;
    let mut count = count as u32;
    if count == MMU_UPDATE_PREEMPTED && requests == 0 {
        return Ok(i64::from(foreign as i32).cast_unsigned());
    }
    let mut before = 0;
    if count & MMU_UPDATE_PREEMPTED != 0 {
        count &= !MMU_UPDATE_PREEMPTED;
        if done_at != 0 {
            before = call.read::<u32>(done_at).unwrap_or(0);
        }
    }
    if !is_guest_address(requests) {
        return Err(call.fault(requests));
    }
    let shared = prepare(call, foreign as u32)?;
    let mut work = Work::preemptible();
    let mut outcome = Ok(());
    let mut index = 0;
    while index < count {
        if work.unfinished.is_some() || (index != 0 && call.should_stop()) {
            outcome = Err(Stop::Interrupted);
            break;
        }
        let result = match call.read_element::<T>(requests, index.into()) {
            Ok(request) => step(call, &shared, request, &mut work),
            Err(refusal) => Err(refusal.into()),
        };
        if let Err(stop) = result {
            outcome = Err(stop);
            break;
        }
        index += 1;
    }
    if done_at != 0 {
        // Xen, too, does not say so where this fails.
        let _ = call.write(done_at, &before.wrapping_add(index));
    }
    call.running.state.unfinished = work.unfinished;
    match outcome {
        Err(Stop::Interrupted) => {
            let rest = requests.wrapping_add(u64::from(index) * size_of::<T>() as u64);
            let left = u64::from((count - index) | MMU_UPDATE_PREEMPTED);
            Err(call.again([rest, left, done_at, foreign, unused]))
        }
        _ if call.running.state.unfinished.is_none() => match outcome {
            Err(Stop::Refused(refusal)) => Err(refusal),
            _ => Ok(0),
        },
        _ => Err(result_waits(call, args, number, outcome)),
    }
}

/// All requests are done or one was refused, but an old table is still to be taken apart: the result travels in the last
/// argument until that is done.
#[cold]
fn result_waits<M: Machine>(call: &mut Call<'_, M>, args: [u64; 5], number: u64, outcome: Result<(), Stop>) -> Refusal {
    let result = match outcome {
        Err(Stop::Refused(refusal)) => {
            crate::hypercall::explain(call.hv, call.running, number, args, &refusal);
            match refusal.consequence {
                Consequence::Errno(errno) => errno,
                _ => Errno::Inval,
            }
            .as_return()
        }
        _ => 0,
    };
    call.again([0, MMU_UPDATE_PREEMPTED.into(), 0, u64::from(result as u32), args[4]])
}
