//! Taking all frames from a domain that is going away.

use pv_abi::Mfn;

use super::{TypeWord, drop_allocation, put};
use crate::Hypervisor;
use crate::domain::Domain;
use crate::hardware::Machine;
use crate::paging::{self, Work};

/// Takes all frames from a domain that is being destroyed: pins end, page tables are taken apart, and what nobody else
/// uses is freed. A frame that another domain still maps is nobody's from now on, and freed when that ends.
///
/// Call it after the domain's vCPUs let go of their tables, again and again until it says true; each call does a bounded
/// piece of work.
pub fn relinquish<M: Machine>(hv: &Hypervisor<M>, domain: &Domain) -> bool {
    close(hv, domain);
    while let Some(mfn) = first(hv, domain) {
        let taken_apart = end_type(hv, mfn);
        if taken_apart {
            domain.memory.lock().unlink(&hv.frames, mfn);
            hv.frames.record(mfn).disown();
            drop_allocation(hv, mfn);
        }
        put(hv, mfn);
        if !taken_apart {
            return false;
        }
        if hv.machine.interrupt_waiting() {
            return domain.memory.lock().first().is_none();
        }
    }
    true
}

/// No frame is added any more, and none is promised.
fn close<M: Machine>(hv: &Hypervisor<M>, domain: &Domain) {
    let mut memory = domain.memory.lock();
    memory.closed = true;
    let claimed = core::mem::take(&mut memory.claimed);
    if claimed != 0 {
        hv.allocator.lock().claimed -= claimed;
    }
}

/// One of the domain's frames, with a reference. A frame that another CPU is just freeing is taken off the list here.
fn first<M: Machine>(hv: &Hypervisor<M>, domain: &Domain) -> Option<Mfn> {
    let mut memory = domain.memory.lock();
    loop {
        let mfn = memory.first()?;
        if hv.frames.record(mfn).get(domain.id) {
            return Some(mfn);
        }
        memory.unlink(&hv.frames, mfn);
    }
}

/// Ends the guest's pin and a half-done check; false where work is left.
fn end_type<M: Machine>(hv: &Hypervisor<M>, mfn: Mfn) -> bool {
    let record = hv.frames.record(mfn);
    if record.unpin() && paging::put_table(hv, mfn, &mut Work::preemptible()).is_err() {
        return false;
    }
    !record.type_word().has(TypeWord::PARTIAL) || paging::finish_partial(hv, mfn, &mut Work::preemptible()).is_ok()
}
