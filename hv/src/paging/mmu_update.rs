//! `mmu_update`: a list of changes to page-table entries, each named by its machine address.
//!
//! Xen: public/xen.h, `HYPERVISOR_mmu_update`.

use alloc::sync::Arc;

use pv_abi::errno::Errno;
use pv_abi::xen::{
    DOMID_SELF, HYPERVISOR_MMU_UPDATE, MMU_MACHPHYS_UPDATE, MMU_NORMAL_PT_UPDATE, MMU_PT_UPDATE_NO_TRANSLATE,
    MMU_PT_UPDATE_PRESERVE_AD, MMU_UPDATE_PREEMPTED, MmuUpdate,
};
use pv_abi::{DomId, Mfn};

use super::batch;
use super::entry::is_guest_address;
use super::foreign::{PageOwner, privileged};
use super::leaf::{Place, update_l1};
use super::table::{Owners, Stop, Work, put_table};
use super::upper::update_upper;
use super::walk::{HeldL1, is_alone};
use crate::Hypervisor;
use crate::call::Call;
use crate::domain::Domain;
use crate::frames::{self, ClaimedMfn, PageType, TypeWord};
use crate::hardware::Machine;
use crate::refusal::{Evidence, Refusal};
use crate::rules::{core as core_rules, paging as rules};

/// What all requests of a list share.
struct Shared {
    /// The domain whose tables are changed, where that is not the caller.
    table_owner: Option<Arc<Domain>>,
    page_owner: PageOwner,
}

/// `mmu_update(requests, count, done, foreigndom)`.
///
/// # Errors
/// `ESRCH` for a domain that does not exist, `EPERM` for one the caller may not name, `EINVAL` for a frame, type or
/// entry that is not allowed, `EBUSY` for an L1 entry to a frame in use, `ENOSYS` for an unknown update.
pub fn mmu_update<M: Machine>(call: &mut Call<'_, M>, args: [u64; 5]) -> Result<u64, Refusal> {
    let [requests, count, done_at, foreign, unused] = args;
    let (count, own) = (count as u32, foreign as u32 == u32::from(DOMID_SELF));
    // A list whose count of what is done is to be told, or that went before, takes the long way.
    let plain = own && done_at == 0 && call.running.state.unfinished.is_none() && is_guest_address(requests);
    let done = match count {
        1 if plain => u32::from(own_l1_entry(call.hv, call.domain(), requests)),
        2..MMU_UPDATE_PREEMPTED if plain => own_l1_entries(call, requests, count),
        _ => 0,
    };
    if done != 0 && done == count {
        return Ok(0);
    }
    let rest = requests.wrapping_add(u64::from(done) * size_of::<MmuUpdate>() as u64);
    run_list(call, [rest, u64::from(count - done), done_at, foreign, unused])
}

/// Carries out a list of any requests. A function of its own, so that those who need no more than [`own_l1_entry`] do not
/// pay for its stack.
#[inline(never)]
fn run_list<M: Machine>(call: &mut Call<'_, M>, args: [u64; 5]) -> Result<u64, Refusal> {
    batch::run(call, args, HYPERVISOR_MMU_UPDATE, prepare, one)
}

/// Carries out the requests with which a list begins that are as most are ([`own_l1_entry`]); gives how many.
#[inline(never)]
fn own_l1_entries<M: Machine>(call: &Call<'_, M>, requests: u64, count: u32) -> u32 {
    let mut place = requests;
    let mut done = 0;
    while done < count && (done == 0 || !call.should_stop()) && own_l1_entry(call.hv, call.domain(), place) {
        place = place.wrapping_add(size_of::<MmuUpdate>() as u64);
        done += 1;
    }
    done
}

/// Carries out the request at `place` if it is as most are: an entry of the caller's own L1 table, for a frame of its own.
/// Where it gives false, there is more to it, or it is refused, and nothing is done.
#[inline(always)]
fn own_l1_entry<M: Machine>(hv: &Hypervisor<M>, domain: &Domain, place: u64) -> bool {
    let Ok(request) = hv.machine.read_from_guest::<MmuUpdate>(place) else { return false };
    let keep_marks = request.ptr & 7 == MMU_PT_UPDATE_PRESERVE_AD;
    if !keep_marks && request.ptr & 7 != MMU_NORMAL_PT_UPDATE {
        return false;
    }
    let place = Place { table: Mfn(request.ptr >> 12), index: (request.ptr & 0xfff) as usize / 8 };
    let update = |place| update_l1(hv, place, request.val, keep_marks, Owners::of(domain)).is_ok();
    if is_alone(hv) {
        return HeldL1::is_held(hv, place, domain.id) && update(place);
    }
    HeldL1::hold(hv, place, domain.id).is_some_and(|held| update(held.place))
}

fn prepare<M: Machine>(call: &Call<'_, M>, foreign: u32) -> Result<Shared, Refusal> {
    let table_owner = match foreign >> 16 {
        0 => None,
        id => Some(table_owner(call, DomId((id - 1) as u16))?).filter(|domain| domain.id != call.domain().id),
    };
    let page_owner = PageOwner::named(call, foreign as u16)?;
    Ok(Shared { table_owner, page_owner })
}

#[cold]
fn table_owner<M: Machine>(call: &Call<'_, M>, id: DomId) -> Result<Arc<Domain>, Refusal> {
    let found = call.hv.domains.get(id);
    found.ok_or_else(|| Refusal::errno(Errno::Srch, core_rules::NO_SUCH_DOMAIN).with(Evidence::Value(id.0.into())))
}

fn one<M: Machine>(call: &mut Call<'_, M>, shared: &Shared, request: MmuUpdate, work: &mut Work) -> Result<(), Stop> {
    shared.page_owner.permitted(call)?;
    let command = request.ptr & 7;
    match command {
        MMU_NORMAL_PT_UPDATE | MMU_PT_UPDATE_PRESERVE_AD | MMU_PT_UPDATE_NO_TRANSLATE => {
            write_entry(call, shared, request, work)
        }
        MMU_MACHPHYS_UPDATE => Ok(set_m2p(call, shared, request)?),
        _ => Err(Refusal::errno(Errno::NoSys, rules::UPDATE_COMMAND).with(Evidence::Value(command)).into()),
    }
}

fn set_m2p<M: Machine>(call: &Call<'_, M>, shared: &Shared, request: MmuUpdate) -> Result<(), Refusal> {
    if shared.table_owner.is_some() {
        return Err(Refusal::errno(Errno::Perm, rules::M2P_FOREIGN));
    }
    let owner = shared.page_owner.with_table(call.domain(), call.domain()).page;
    let mfn = frames::get(call.hv, ClaimedMfn(request.ptr >> 12), owner)?;
    call.hv.machine.set_m2p(mfn, request.val);
    frames::put(call.hv, mfn);
    Ok(())
}

fn write_entry<M: Machine>(
    call: &Call<'_, M>,
    shared: &Shared,
    request: MmuUpdate,
    work: &mut Work,
) -> Result<(), Stop> {
    let (command, address, value) = (request.ptr & 7, request.ptr & !7, request.val);
    let keep_marks = command == MMU_PT_UPDATE_PRESERVE_AD;
    if shared.table_owner.is_some() {
        privileged(call)?;
    }
    let caller = call.domain();
    let table_domain = shared.table_owner.as_deref().unwrap_or(caller);
    let owners = shared.page_owner.with_table(caller, table_domain);
    let mfn = frames::get(call.hv, ClaimedMfn(address >> 12), table_domain.id)?;
    let place = Place { table: mfn, index: (address as usize & 0xfff) / 8 };
    let seen = call.hv.frames.record(mfn).type_word();
    match seen.kind().level().filter(|_| seen.count() != 0 && seen.has(TypeWord::VALIDATED)) {
        Some(level) => {
            // Frames of a resource (`XENMEM_acquire_resource`) are named by the machine's numbers.
            let named = command != MMU_PT_UPDATE_NO_TRANSLATE;
            let value = if named { shared.page_owner.machine_entry(call.hv, value) } else { value };
            if level > 1 && !shared.page_owner.is(caller, table_domain) {
                frames::put(call.hv, mfn);
                return Err(Refusal::errno(Errno::Inval, rules::FOREIGN_TABLE).into());
            }
            write_table(call.hv, place, level, value, keep_marks, owners, work)
        }
        None => Ok(write_plain(call.hv, place, value)?),
    }
}

/// Writes an entry of a frame that was a table of this level a moment ago; the reference to it is given back.
fn write_table<M: Machine>(
    hv: &Hypervisor<M>,
    place: Place,
    level: u8,
    value: u64,
    keep_marks: bool,
    owners: Owners<'_>,
    work: &mut Work,
) -> Result<(), Stop> {
    if !hv.frames.record(place.table).acquire_type_in_use(PageType::table(level)) {
        frames::put(hv, place.table);
        return Err(Stop::Interrupted);
    }
    let outcome = match level {
        1 => update_l1(hv, place, value, keep_marks, owners).map_err(Stop::Refused),
        _ => update_upper(hv, place, level, value, keep_marks, owners, work),
    };
    // Where ours was the last use of the table, what is left of it is in `work`.
    let _ = put_table(hv, place.table, work);
    outcome
}

/// Writes a word of a frame that is no table; the reference to it is given back.
fn write_plain<M: Machine>(hv: &Hypervisor<M>, place: Place, value: u64) -> Result<(), Refusal> {
    if let Err(refusal) = frames::take_type(hv, place.table, PageType::Writable) {
        frames::put(hv, place.table);
        return Err(refusal);
    }
    hv.machine.write_word(place.table, place.index, value);
    frames::put_typed(hv, place.table);
    Ok(())
}
