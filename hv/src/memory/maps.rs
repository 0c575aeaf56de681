//! Maps of memory: the domain's, the machine's, and the machine-to-physical table.

use alloc::vec::Vec;

use pv_abi::DomId;
use pv_abi::arch::{MACH2PHYS_NR_ENTRIES, MACH2PHYS_VIRT_END, MACH2PHYS_VIRT_START};
use pv_abi::errno::Errno;
use pv_abi::memory::{
    E820Entry, ForeignMemoryMap, MachphysMapping, MachphysMfnList, MemoryMap, ReservedDeviceMemoryMap, XENMEM_RDM_ALL,
};

use crate::call::Call;
use crate::hardware::Machine;
use crate::refusal::{Evidence, Refusal};
use crate::rules::memory as rules;

/// The most entries that a domain's map may have (Xen: `E820MAX`).
const MOST_ENTRIES: u32 = 128;

/// `XENMEM_machphys_mapping`: where the machine-to-physical table is.
///
/// # Errors
/// `EFAULT`.
pub(super) fn machphys_mapping<M: Machine>(call: &Call<'_, M>, argument: u64) -> Result<u64, Refusal> {
    let entries = if call.domain().privileged { call.hv.machine.frame_count() } else { MACH2PHYS_NR_ENTRIES };
    let mapping = MachphysMapping { v_start: MACH2PHYS_VIRT_START, v_end: MACH2PHYS_VIRT_END, max_mfn: entries - 1 };
    call.write(argument, &mapping)?;
    Ok(0)
}

/// `XENMEM_machphys_mfn_list`: the frames of the machine-to-physical table, one for each 2 MiB of it.
///
/// # Errors
/// `EFAULT`.
pub(super) fn machphys_list<M: Machine>(call: &Call<'_, M>, argument: u64) -> Result<u64, Refusal> {
    let mut list: MachphysMfnList = call.read(argument)?;
    let mut count = 0;
    while count < list.max_extents
        && let Some(mfn) = call.hv.machine.m2p_extent(count as usize)
    {
        call.write_element(list.extent_start, count.into(), &mfn.0)?;
        count += 1;
    }
    list.nr_extents = count;
    call.write(argument, &list)?;
    Ok(0)
}

/// `XENMEM_memory_map`: the map that the toolstack made for the caller.
///
/// # Errors
/// `EFAULT`; `ENOSYS` where there is none.
pub(super) fn memory_map<M: Machine>(call: &Call<'_, M>, argument: u64) -> Result<u64, Refusal> {
    let asked: MemoryMap = call.read(argument)?;
    let map = call.domain().memory.lock().map.clone();
    if map.is_empty() {
        return Err(Refusal::errno(Errno::NoSys, rules::NO_MAP));
    }
    let fitting = map.len().min(asked.nr_entries as usize);
    write_entries(call, asked.buffer, &map[..fitting])?;
    call.write(argument, &MemoryMap { nr_entries: fitting as u32, ..asked })?;
    Ok(0)
}

/// `XENMEM_machine_memory_map`: the machine's map, for the domain that has the devices.
///
/// # Errors
/// `EPERM` unless privileged; `EINVAL` where the buffer is too small; `EFAULT`.
pub(super) fn machine_memory_map<M: Machine>(call: &Call<'_, M>, argument: u64) -> Result<u64, Refusal> {
    call.privileged()?;
    let asked: MemoryMap = call.read(argument)?;
    let mut map = Vec::new();
    while let Some((addr, size, type_)) = call.hv.machine.memory_map(map.len()) {
        map.push(E820Entry { addr, size, type_ });
    }
    if map.len() > asked.nr_entries as usize {
        let evidence = Evidence::Limit { asked: map.len() as u64, limit: asked.nr_entries.into() };
        return Err(Refusal::errno(Errno::Inval, rules::MACHINE_MAP).with(evidence));
    }
    write_entries(call, asked.buffer, &map)?;
    call.write(argument, &MemoryMap { nr_entries: map.len() as u32, ..asked })?;
    Ok(0)
}

/// `XENMEM_set_memory_map`: the toolstack makes a domain's map.
///
/// # Errors
/// `EFAULT`, `ESRCH`, `EPERM`; `EINVAL` for too many entries.
pub(super) fn set_memory_map<M: Machine>(call: &Call<'_, M>, argument: u64) -> Result<u64, Refusal> {
    let asked: ForeignMemoryMap = call.read(argument)?;
    if asked.map.nr_entries > MOST_ENTRIES {
        let evidence = Evidence::Limit { asked: asked.map.nr_entries.into(), limit: MOST_ENTRIES.into() };
        return Err(Refusal::errno(Errno::Inval, rules::MAP_LENGTH).with(evidence));
    }
    let domain = call.target(DomId(asked.domid))?;
    let mut map = Vec::with_capacity(asked.map.nr_entries as usize);
    for index in 0..asked.map.nr_entries {
        let bytes: [u8; E820Entry::WIRE_SIZE] = call.read_element(asked.map.buffer, index.into())?;
        map.push(E820Entry::from_bytes(&bytes));
    }
    domain.memory.lock().map = map;
    Ok(0)
}

/// `XENMEM_reserved_device_memory_map`: memory that devices must find at its place; without an IOMMU there is none.
///
/// # Errors
/// `EFAULT`; `EINVAL` for an unknown flag.
pub(super) fn reserved_device_memory<M: Machine>(call: &Call<'_, M>, argument: u64) -> Result<u64, Refusal> {
    let asked: ReservedDeviceMemoryMap = call.read(argument)?;
    if asked.flags & !XENMEM_RDM_ALL != 0 {
        return Err(Refusal::errno(Errno::Inval, rules::RESERVED_FLAGS).with(Evidence::Value(asked.flags.into())));
    }
    call.write(argument, &ReservedDeviceMemoryMap { nr_entries: 0, ..asked })?;
    Ok(0)
}

fn write_entries<M: Machine>(call: &Call<'_, M>, buffer: u64, map: &[E820Entry]) -> Result<(), Refusal> {
    for (index, entry) in map.iter().enumerate() {
        call.write_element(buffer, index as u64, &entry.to_bytes())?;
    }
    Ok(())
}
