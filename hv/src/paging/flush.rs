//! Forgetting translations for a guest.

use pv_abi::errno::Errno;

use crate::call::Call;
use crate::frames;
use crate::hardware::{CpuId, CpuSet, Flush, Machine};
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
        Where::Everywhere => flush_on(call, what, call.domain().loaded()),
        Where::Bitmap(address) => flush_on(call, what, cpus_of(call, address)? & call.domain().loaded()),
    }
    Ok(())
}

/// Forgets translations on the calling vCPU's CPU.
#[inline]
pub(super) fn flush_here<M: Machine>(call: &Call<'_, M>, what: Flush) {
    match what {
        Flush::All => frames::flush(call.hv, CpuSet::of(call.hv.machine.cpu())),
        Flush::Page(_) => call.hv.machine.flush_tlb(what),
    }
}

fn flush_on<M: Machine>(call: &Call<'_, M>, what: Flush, cpus: CpuSet) {
    match what {
        _ if cpus.is_empty() => {}
        Flush::All => frames::flush(call.hv, cpus),
        Flush::Page(_) => call.hv.machine.flush_tlb_on(cpus, what),
    }
}

/// The CPUs of the vCPUs in a bitmap. One that moves at the same time forgets everything where it arrives.
fn cpus_of<M: Machine>(call: &Call<'_, M>, address: u64) -> Result<CpuSet, Refusal> {
    let vcpus = call.domain().vcpus.get().map_or(&[][..], |vcpus| vcpus);
    let mut cpus = CpuSet::default();
    for (word, vcpus) in vcpus.chunks(64).enumerate() {
        let bits: u64 = call
            .read_element(address, word as u64)
            .map_err(|_| Refusal::errno(Errno::Fault, rules::VCPU_BITMAP).with(Evidence::Value(address)))?;
        let named = vcpus.iter().enumerate().filter(|(index, _)| bits >> index & 1 != 0);
        cpus = cpus | named.map(|(_, vcpu)| CpuId(vcpu.cpu.load(core::sync::atomic::Ordering::SeqCst))).collect();
    }
    Ok(cpus)
}
