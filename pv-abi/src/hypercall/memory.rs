//! Memory reservations and grants.

use super::raw::{address_mut, call2, call3};
use crate::errno::Errno;
use crate::grant_table::{
    GNTTABOP_COPY, GNTTABOP_MAP_GRANT_REF, GNTTABOP_QUERY_SIZE, GNTTABOP_SETUP_TABLE, GNTTABOP_SWAP_GRANT_REF,
    GNTTABOP_UNMAP_GRANT_REF, GnttabCopy, GnttabMapGrantRef, GnttabQuerySize, GnttabSetupTable, GnttabSwapGrantRef,
    GnttabUnmapGrantRef,
};
use crate::memory::{
    MachphysMapping, MemoryDomain, MemoryExchange, MemoryReservation, XENMEM_CURRENT_RESERVATION,
    XENMEM_DECREASE_RESERVATION, XENMEM_EXCHANGE, XENMEM_INCREASE_RESERVATION, XENMEM_MACHPHYS_MAPPING,
    XENMEM_MAXIMUM_RAM_PAGE, XENMEM_MAXIMUM_RESERVATION, XENMEM_POPULATE_PHYSMAP,
};
use crate::xen::{HYPERVISOR_GRANT_TABLE_OP, HYPERVISOR_MEMORY_OP};
use crate::{DomId, GrantRef};

/// Performs a `XENMEM_*` with its argument; returns what it returned.
///
/// # Errors
/// Those of the operation.
///
/// # Safety
/// The argument is what the command takes, and pages the domain loses are in no use.
pub unsafe fn memory_op<T>(command: u32, argument: &mut T) -> Result<u64, Errno> {
    // SAFETY: passed on to the caller.
    unsafe { call2(HYPERVISOR_MEMORY_OP, command.into(), address_mut(argument)) }
}

/// Where the machine-to-physical table is.
///
/// # Errors
/// None from Xen.
pub fn machphys_mapping() -> Result<MachphysMapping, Errno> {
    let mut out = MachphysMapping::default();
    // SAFETY: the command fills this struct.
    unsafe { memory_op(XENMEM_MACHPHYS_MAPPING, &mut out) }.map(|_| out)
}

/// The highest machine frame.
///
/// # Errors
/// None from Xen.
pub fn maximum_ram_page() -> Result<u64, Errno> {
    // SAFETY: the command has no argument and changes nothing.
    unsafe { memory_op(XENMEM_MAXIMUM_RAM_PAGE, &mut ()) }
}

/// The number of pages a domain has.
///
/// # Errors
/// `Srch`: no such domain. `Perm`: not for this caller.
pub fn current_reservation(domid: DomId) -> Result<u64, Errno> {
    // SAFETY: the command reads its argument and changes nothing.
    unsafe { memory_op(XENMEM_CURRENT_RESERVATION, &mut MemoryDomain { domid: domid.0 }) }
}

/// The number of pages a domain may have.
///
/// # Errors
/// `Srch`: no such domain. `Perm`: not for this caller.
pub fn maximum_reservation(domid: DomId) -> Result<u64, Errno> {
    // SAFETY: the command reads its argument and changes nothing.
    unsafe { memory_op(XENMEM_MAXIMUM_RESERVATION, &mut MemoryDomain { domid: domid.0 }) }
}

/// Gets memory for the frames of a list, and writes the machine frames into it. Returns how many extents were done.
///
/// # Errors
/// Those of the arguments; too little memory only makes the number smaller.
///
/// # Safety
/// `extent_start` is the address of a list of `nr_extents` frames, which may be written.
pub unsafe fn populate_physmap(reservation: &mut MemoryReservation) -> Result<u64, Errno> {
    // SAFETY: passed on to the caller.
    unsafe { memory_op(XENMEM_POPULATE_PHYSMAP, reservation) }
}

/// Gets memory, and writes the machine frames into the list. Returns how many extents were done.
///
/// # Errors
/// Those of the arguments.
///
/// # Safety
/// As [`populate_physmap`].
pub unsafe fn increase_reservation(reservation: &mut MemoryReservation) -> Result<u64, Errno> {
    // SAFETY: passed on to the caller.
    unsafe { memory_op(XENMEM_INCREASE_RESERVATION, reservation) }
}

/// Gives memory back. Returns how many extents were done.
///
/// # Errors
/// Those of the arguments.
///
/// # Safety
/// `extent_start` is the address of a list of `nr_extents` frames, and nothing uses them.
pub unsafe fn decrease_reservation(reservation: &mut MemoryReservation) -> Result<u64, Errno> {
    // SAFETY: passed on to the caller.
    unsafe { memory_op(XENMEM_DECREASE_RESERVATION, reservation) }
}

/// Gives memory back and gets other memory for it.
///
/// # Errors
/// Those of the arguments; `NoMem`.
///
/// # Safety
/// As [`decrease_reservation`] and [`populate_physmap`].
pub unsafe fn memory_exchange(exchange: &mut MemoryExchange) -> Result<u64, Errno> {
    // SAFETY: passed on to the caller.
    unsafe { memory_op(XENMEM_EXCHANGE, exchange) }
}

/// Performs a `GNTTABOP_*` on each element, which then holds its own status.
///
/// # Errors
/// `NoSys`: no such command. `Fault`: the array cannot be accessed.
///
/// # Safety
/// `T` is what the command takes, and the mappings and copies that result keep every promise Rust code relies on.
pub unsafe fn grant_table_op<T>(command: u32, operations: &mut [T]) -> Result<(), Errno> {
    let (count, at) = (operations.len() as u64, address_mut(operations));
    // SAFETY: passed on to the caller.
    unsafe { call3(HYPERVISOR_GRANT_TABLE_OP, command.into(), at, count) }.map(drop)
}

/// Maps granted pages.
///
/// # Errors
/// As [`grant_table_op`].
///
/// # Safety
/// What is mapped at each address may be replaced, and is treated as memory that others change.
pub unsafe fn grant_map(operations: &mut [GnttabMapGrantRef]) -> Result<(), Errno> {
    // SAFETY: the struct belongs to the command; the caller answers for the mappings.
    unsafe { grant_table_op(GNTTABOP_MAP_GRANT_REF, operations) }
}

/// Unmaps granted pages.
///
/// # Errors
/// As [`grant_table_op`].
///
/// # Safety
/// Nothing refers to the mappings.
pub unsafe fn grant_unmap(operations: &mut [GnttabUnmapGrantRef]) -> Result<(), Errno> {
    // SAFETY: the struct belongs to the command; the caller answers for the mappings.
    unsafe { grant_table_op(GNTTABOP_UNMAP_GRANT_REF, operations) }
}

/// Copies between pages.
///
/// # Errors
/// As [`grant_table_op`].
///
/// # Safety
/// Own frames among the destinations may be written.
pub unsafe fn grant_copy(operations: &mut [GnttabCopy]) -> Result<(), Errno> {
    // SAFETY: the struct belongs to the command; the caller answers for the destinations.
    unsafe { grant_table_op(GNTTABOP_COPY, operations) }
}

/// Makes the table as large as `frames` and fills them in; returns `GNTST_*`.
///
/// # Errors
/// As [`grant_table_op`].
pub fn grant_setup_table(frames: &mut [u64]) -> Result<i16, Errno> {
    let nr_frames = u32::try_from(frames.len()).map_err(|_| Errno::Inval)?;
    let mut operation =
        GnttabSetupTable { dom: DomId::SELF.0, nr_frames, frame_list: address_mut(frames), ..Default::default() };
    // SAFETY: the command writes its argument and `nr_frames` words of `frames`.
    unsafe { grant_table_op(GNTTABOP_SETUP_TABLE, core::slice::from_mut(&mut operation)) }?;
    Ok(operation.status)
}

/// How large the table is and may become.
///
/// # Errors
/// As [`grant_table_op`].
pub fn grant_query_size(domid: DomId) -> Result<GnttabQuerySize, Errno> {
    let mut operation = GnttabQuerySize { dom: domid.0, ..Default::default() };
    // SAFETY: the command writes nothing but its argument.
    unsafe { grant_table_op(GNTTABOP_QUERY_SIZE, core::slice::from_mut(&mut operation)) }?;
    Ok(operation)
}

/// Exchanges the contents of two of one's own entries; returns `GNTST_*`.
///
/// # Errors
/// As [`grant_table_op`].
///
/// # Safety
/// Whoever keeps track of the table knows.
pub unsafe fn grant_swap(a: GrantRef, b: GrantRef) -> Result<i16, Errno> {
    let mut operation = GnttabSwapGrantRef { ref_a: a.0, ref_b: b.0, ..Default::default() };
    // SAFETY: the struct belongs to the command.
    unsafe { grant_table_op(GNTTABOP_SWAP_GRANT_REF, core::slice::from_mut(&mut operation)) }?;
    Ok(operation.status)
}
