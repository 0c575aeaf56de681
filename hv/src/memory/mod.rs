//! What a guest may ask about its memory: take, give, exchange, and the maps of it.
//!
//! `memory_op(command, argument)`: the command's low six bits say what; the rest says how many elements of a list were
//! done when the operation stopped before, so that it goes on there. A list operation returns how many elements were
//! done, and that is all a guest learns of a refusal; the log says more. Xen: public/memory.h.

mod exchange;
mod maps;
mod reservation;
mod resource;

use alloc::sync::Arc;

use pv_abi::DomId;
use pv_abi::errno::Errno;
use pv_abi::memory::{
    MEMOP_CMD_MASK, MemoryDomain, PodTarget, XENMEM_ACQUIRE_RESOURCE, XENMEM_ADD_TO_PHYSMAP,
    XENMEM_ADD_TO_PHYSMAP_BATCH, XENMEM_CLAIM_PAGES, XENMEM_CURRENT_RESERVATION, XENMEM_DECREASE_RESERVATION,
    XENMEM_EXCHANGE, XENMEM_GET_POD_TARGET, XENMEM_GET_SHARING_FREED_PAGES, XENMEM_GET_SHARING_SHARED_PAGES,
    XENMEM_GET_VNUMAINFO, XENMEM_INCREASE_RESERVATION, XENMEM_MACHINE_MEMORY_MAP, XENMEM_MACHPHYS_MAPPING,
    XENMEM_MACHPHYS_MFN_LIST, XENMEM_MAXIMUM_GPFN, XENMEM_MAXIMUM_RAM_PAGE, XENMEM_MAXIMUM_RESERVATION,
    XENMEM_MEMORY_MAP, XENMEM_POPULATE_PHYSMAP, XENMEM_REMOVE_FROM_PHYSMAP, XENMEM_RESERVED_DEVICE_MEMORY_MAP,
    XENMEM_SET_MEMORY_MAP, XENMEM_SET_POD_TARGET,
};

use crate::call::Call;
use crate::domain::Domain;
use crate::hardware::Machine;
use crate::hvm;
use crate::refusal::{Evidence, Refusal};
use crate::rules::{core as core_rules, memory as rules};

/// Where in the command the number of elements done stands.
const EXTENT_SHIFT: u32 = 6;
/// The largest order of a block that anybody may ask for (Xen: option `memop-max-order`): one is dealt with in one step,
/// which is not to take long.
const MAX_ORDER: u32 = 8;
/// Byte of `arch.max_pfn` in the shared page.
const SHARED_MAX_PFN: usize = 3088;

pub use exchange::{Exchanging, abandon_exchange};
pub use reservation::Given;

/// `memory_op(command, argument)`.
///
/// # Errors
/// Per command; `ENOSYS` for one that is not implemented.
pub fn memory_op<M: Machine>(call: &mut Call<'_, M>, args: [u64; 5]) -> Result<u64, Refusal> {
    let command = args[0] as u32 & MEMOP_CMD_MASK;
    let done = args[0] >> EXTENT_SHIFT & (u64::from(u32::MAX) >> EXTENT_SHIFT);
    match command {
        XENMEM_INCREASE_RESERVATION | XENMEM_DECREASE_RESERVATION | XENMEM_POPULATE_PHYSMAP => {
            reservation::adjust(call, args, command, done)
        }
        XENMEM_ACQUIRE_RESOURCE => resource::acquire(call, args, done),
        XENMEM_ADD_TO_PHYSMAP | XENMEM_ADD_TO_PHYSMAP_BATCH => hvm::memory::add(call, args, done),
        _ if done != 0 => Err(Refusal::errno(Errno::Inval, rules::NOT_CONTINUED).with(Evidence::Value(done))),
        XENMEM_EXCHANGE => exchange::exchange(call, args),
        XENMEM_MAXIMUM_RAM_PAGE => Ok(call.hv.machine.frame_count()),
        XENMEM_CURRENT_RESERVATION => Ok(of_named(call, args[1])?.memory.lock().total),
        XENMEM_MAXIMUM_RESERVATION => Ok(of_named(call, args[1])?.memory.lock().max),
        XENMEM_MAXIMUM_GPFN => {
            let domain = of_named(call, args[1])?;
            if let Some(hvm) = &domain.hvm {
                return Ok(hvm.map.lock().highest());
            }
            let count = call.hv.machine.read_word(domain.shared_info, SHARED_MAX_PFN / 8);
            Ok(count.max(1) - 1)
        }
        XENMEM_MACHPHYS_MAPPING => maps::machphys_mapping(call, args[1]),
        XENMEM_MACHPHYS_MFN_LIST => maps::machphys_list(call, args[1]),
        XENMEM_MEMORY_MAP => maps::memory_map(call, args[1]),
        XENMEM_MACHINE_MEMORY_MAP => maps::machine_memory_map(call, args[1]),
        XENMEM_SET_MEMORY_MAP => maps::set_memory_map(call, args[1]),
        XENMEM_RESERVED_DEVICE_MEMORY_MAP => maps::reserved_device_memory(call, args[1]),
        XENMEM_REMOVE_FROM_PHYSMAP => hvm::memory::remove(call, args[1]),
        XENMEM_CLAIM_PAGES => reservation::claim(call, args[1]),
        XENMEM_SET_POD_TARGET | XENMEM_GET_POD_TARGET => refuse_on_demand(call, args[1]),
        XENMEM_GET_SHARING_FREED_PAGES | XENMEM_GET_SHARING_SHARED_PAGES => Ok(0),
        XENMEM_GET_VNUMAINFO => Err(Refusal::errno(Errno::OpNotSupp, rules::NO_NODES)),
        _ => Err(unknown(command)),
    }
}

#[cold]
fn unknown(command: u32) -> Refusal {
    Refusal::errno(Errno::NoSys, core_rules::UNKNOWN_OPERATION).with(Evidence::Value(command.into()))
}

/// The domain that an argument's first field names.
fn of_named<M: Machine>(call: &Call<'_, M>, argument: u64) -> Result<Arc<Domain>, Refusal> {
    let named: MemoryDomain = call.read(argument)?;
    call.target(DomId(named.domid))
}

/// PV domains have no memory on demand.
fn refuse_on_demand<M: Machine>(call: &Call<'_, M>, argument: u64) -> Result<u64, Refusal> {
    let target: PodTarget = call.read(argument)?;
    call.target(DomId(target.domid))?;
    Err(Refusal::errno(Errno::Inval, rules::ON_DEMAND))
}

#[cfg(test)]
mod tests;
