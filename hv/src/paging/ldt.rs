//! The local descriptor table: a window of 16 pages for each vCPU, filled page by page when it is used.
//!
//! The guest says where its table lies; the hypervisor maps a page into the window when the CPU faults on it, and types
//! the frame as a descriptor page for as long as it is there. Changing the table, or the tables that map it, empties the
//! window. Xen: `MMUEXT_SET_LDT`.

use pv_abi::errno::Errno;

use super::entry;
use super::walk::walk;
use crate::Hypervisor;
use crate::domain::{Running, VcpuState};
use crate::frames::{self, PageType};
use crate::hardware::Machine;
use crate::refusal::{Evidence, Refusal};
use crate::rules::paging as rules;

/// The most descriptors a table has.
const MOST: u32 = 8192;
/// Descriptors in a page.
const PER_PAGE: u32 = 512;

/// Says where the running vCPU's table lies.
///
/// # Errors
/// `EINVAL` for too many entries or an address that is no page of the guest's.
pub(super) fn set<M: Machine>(
    hv: &Hypervisor<M>,
    state: &mut VcpuState,
    address: u64,
    entries: u32,
) -> Result<(), Refusal> {
    let base = if entries == 0 { 0 } else { address };
    if entries > MOST || base & 0xfff != 0 || !entry::is_guest_address(base) {
        return Err(bad_arguments(base, entries));
    }
    if (state.ldt.base, state.ldt.entries) != (base, entries) {
        release_pages(hv, state);
        state.ldt.base = base;
        state.ldt.entries = entries;
        hv.machine.reset_ldt(entries);
    }
    Ok(())
}

#[cold]
fn bad_arguments(base: u64, entries: u32) -> Refusal {
    let evidence = if entries > MOST {
        Evidence::Limit { asked: entries.into(), limit: MOST.into() }
    } else {
        Evidence::Value(base)
    };
    Refusal::errno(Errno::Inval, rules::LDT).with(evidence)
}

/// Empties the window of the running vCPU.
pub fn drop_ldt<M: Machine>(hv: &Hypervisor<M>, state: &mut VcpuState) {
    if release_pages(hv, state) {
        hv.machine.reset_ldt(state.ldt.entries);
    }
}

/// Gives back the frames of the window; whether there were any. For a vCPU that runs nowhere, this is all.
pub fn release_pages<M: Machine>(hv: &Hypervisor<M>, state: &mut VcpuState) -> bool {
    let mut any = false;
    // Most have no table, and so no page of one in the window.
    if state.ldt.entries == 0 {
        return any;
    }
    for mfn in state.ldt.mapped.iter_mut().filter_map(Option::take) {
        frames::put_typed(hv, mfn);
        any = true;
    }
    any
}

/// Maps page `page` of the running vCPU's table into the window, after a fault there; whether it could.
pub fn map_ldt_page<M: Machine>(hv: &Hypervisor<M>, running: &mut Running, page: usize) -> bool {
    let state = &mut running.state;
    let Some(slot @ None) = state.ldt.mapped.get_mut(page) else {
        return false;
    };
    if page as u32 * PER_PAGE >= state.ldt.entries {
        return false;
    }
    let Some(root) = state.kernel_root else {
        return false;
    };
    let Some((_, _, seen)) = walk(hv, root, state.ldt.base.wrapping_add((page as u64) << 12)) else {
        return false;
    };
    if !entry::is_present(seen) {
        return false;
    }
    let owner = running.vcpu.domain.id;
    let Ok(mfn) = frames::get_typed(hv, entry::claimed(seen), owner, PageType::Descriptor) else {
        return false;
    };
    *slot = Some(mfn);
    hv.machine.map_ldt_page(page, mfn);
    true
}
