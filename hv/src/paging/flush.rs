//! Forgetting translations for a guest.

use pv_abi::errno::Errno;

use crate::call::Call;
use crate::frames::flush_all;
use crate::hardware::{Flush, Machine};
use crate::refusal::{Evidence, Refusal};
use crate::rules::paging as rules;

/// Where a guest wants translations to be forgotten.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Where {
    /// On the calling vCPU's CPU.
    Here,
    /// On all CPUs of the domain.
    Everywhere,
    /// On the CPUs of the vCPUs in a bitmap at this address.
    Bitmap(u64),
}

/// Forgets.
///
/// # Errors
/// `EFAULT` for a bitmap that cannot be read.
#[inline]
pub(super) fn flush<M: Machine>(call: &Call<'_, M>, what: Flush, place: Where) -> Result<(), Refusal> {
    match place {
        Where::Here => flush_here(call, what),
        Where::Everywhere => everywhere(call, what),
        Where::Bitmap(address) if names_any(call, address)? => everywhere(call, what),
        Where::Bitmap(_) => {}
    }
    Ok(())
}

/// Forgets translations on the calling vCPU's CPU.
#[inline]
pub(super) fn flush_here<M: Machine>(call: &Call<'_, M>, what: Flush) {
    match what {
        Flush::All if call.hv.machine.cpu_count() == 1 => flush_all(call.hv),
        _ => call.hv.machine.flush_tlb(what),
    }
}

fn everywhere<M: Machine>(call: &Call<'_, M>, what: Flush) {
    match what {
        Flush::All => flush_all(call.hv),
        Flush::Page(_) => call.hv.machine.flush_tlb_everywhere(what),
    }
}

/// Whether a bitmap names a vCPU that the domain has.
fn names_any<M: Machine>(call: &Call<'_, M>, address: u64) -> Result<bool, Refusal> {
    let count = call.domain().vcpus.get().map_or(0, alloc::vec::Vec::len);
    for word in 0..count.div_ceil(64) {
        let bits: u64 = call
            .read_element(address, word as u64)
            .map_err(|_| Refusal::errno(Errno::Fault, rules::VCPU_BITMAP).with(Evidence::Value(address)))?;
        let valid = count - word * 64;
        let mask = if valid >= 64 { u64::MAX } else { (1 << valid) - 1 };
        if bits & mask != 0 {
            return Ok(true);
        }
    }
    Ok(false)
}
