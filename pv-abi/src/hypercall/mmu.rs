//! Page tables and the TLB.

use super::raw::{address, address_mut, call3, call4};
use crate::DomId;
use crate::errno::Errno;
use crate::xen::{
    HYPERVISOR_MMU_UPDATE, HYPERVISOR_MMUEXT_OP, HYPERVISOR_UPDATE_VA_MAPPING,
    HYPERVISOR_UPDATE_VA_MAPPING_OTHERDOMAIN, MMUEXT_INVLPG_LOCAL, MMUEXT_TLB_FLUSH_LOCAL, MmuUpdate, MmuextOp,
};

/// The last argument of `mmu_update`: who owns the frames that entries name, and whose tables are changed.
fn foreign(frames: DomId, tables: Option<DomId>) -> u64 {
    let high = tables.map_or(0, |domid| u64::from(domid.0) + 1);
    u64::from(frames.0) | high << 16
}

/// Changes page-table entries; `domid` owns the frames they name. Returns how many were done, which is all of them.
///
/// # Errors
/// That of the first request which failed; those before it are done.
///
/// # Safety
/// The mappings that result keep every promise Rust code relies on.
pub unsafe fn mmu_update(requests: &[MmuUpdate], domid: DomId) -> Result<u64, Errno> {
    // SAFETY: passed on to the caller.
    unsafe { mmu_update_for(requests, domid, None) }
}

/// As [`mmu_update`], on the tables of another domain.
///
/// # Errors
/// As [`mmu_update`].
///
/// # Safety
/// As [`mmu_update`].
pub unsafe fn mmu_update_for(requests: &[MmuUpdate], frames: DomId, tables: Option<DomId>) -> Result<u64, Errno> {
    let mut done = 0u32;
    let (at, count, out) = (address(requests), requests.len() as u64, address_mut(&mut done));
    // SAFETY: the call reads `requests` and writes `done`; the caller answers for the mappings.
    unsafe { call4(HYPERVISOR_MMU_UPDATE, at, count, out, foreign(frames, tables)) }.map(|_| done.into())
}

/// Changes the L1 entry of an address; `flags` are `UVMF_*`.
///
/// # Errors
/// `Inval`: no L1 table there, or an entry that is not allowed.
///
/// # Safety
/// As [`mmu_update`].
pub unsafe fn update_va_mapping(va: u64, entry: u64, flags: u64) -> Result<(), Errno> {
    // SAFETY: the caller answers for the mapping.
    unsafe { call3(HYPERVISOR_UPDATE_VA_MAPPING, va, entry, flags) }.map(drop)
}

/// As [`update_va_mapping`], where `domid` owns the frame.
///
/// # Errors
/// As [`update_va_mapping`]; `Perm`: the frame is not for this domain.
///
/// # Safety
/// As [`mmu_update`].
pub unsafe fn update_va_mapping_otherdomain(va: u64, entry: u64, flags: u64, domid: DomId) -> Result<(), Errno> {
    // SAFETY: the caller answers for the mapping.
    unsafe { call4(HYPERVISOR_UPDATE_VA_MAPPING_OTHERDOMAIN, va, entry, flags, domid.0.into()) }.map(drop)
}

/// Pins, switches, flushes. Returns how many were done, which is all of them.
///
/// # Errors
/// That of the first operation which failed; those before it are done.
///
/// # Safety
/// As [`mmu_update`].
pub unsafe fn mmuext_op(operations: &[MmuextOp], domid: DomId) -> Result<u64, Errno> {
    let mut done = 0u32;
    let (at, count, out) = (address(operations), operations.len() as u64, address_mut(&mut done));
    // SAFETY: the call reads `operations` and writes `done`; the caller answers for the mappings.
    unsafe { call4(HYPERVISOR_MMUEXT_OP, at, count, out, domid.0.into()) }.map(|_| done.into())
}

/// Flushes this vCPU's TLB.
///
/// # Errors
/// None from Xen.
pub fn tlb_flush_local() -> Result<(), Errno> {
    let operation = MmuextOp { cmd: MMUEXT_TLB_FLUSH_LOCAL, ..Default::default() };
    // SAFETY: a flush changes no mapping.
    unsafe { mmuext_op(&[operation], DomId::SELF) }.map(drop)
}

/// Flushes one address on this vCPU.
///
/// # Errors
/// None from Xen.
pub fn invlpg_local(va: u64) -> Result<(), Errno> {
    let operation = MmuextOp { cmd: MMUEXT_INVLPG_LOCAL, arg1: va, ..Default::default() };
    // SAFETY: a flush changes no mapping.
    unsafe { mmuext_op(&[operation], DomId::SELF) }.map(drop)
}
