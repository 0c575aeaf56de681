//! Page tables that Xen checks.
//!
//! What changes against a PC, and why:
//! - an entry holds a *machine* frame: pfn → mfn when written, mfn → pfn when read;
//! - a page table may be read but not written: each change is an `mmu_update`, which Xen validates, and many go in one call;
//! - a frame becomes a page table only when no writable mapping of it is left, so its direct-map entry is made read-only
//!   first ([`make_table`]), and writable again when nothing uses it as a table ([`retire_tables`]);
//! - a top-level table is pinned: Xen validates the whole tree once and keeps it so until it is unpinned.
//!
//! Source: Xen `public/xen.h` (`HYPERVISOR_mmu_update`, `mmuext_op`, `update_va_mapping`).
#![expect(unsafe_code, reason = "changes mappings")]

use core::sync::atomic::{AtomicU64, Ordering};

use pv_abi::errno::Errno;
use pv_abi::xen::{self, MmuUpdate, MmuextOp, MulticallEntry};
use pv_abi::{DomId, Mfn};

use super::{hypercall, p2m};
use crate::mm::{Entry, EntryFlags, EntryUpdate, Pfn, direct, phys};

/// Entries changed in one hypercall.
const BATCH: usize = 64;

/// The entry bits Xen or the CPU may use for themselves; they do not come back to the portable kernel.
static KERNEL_ROOT: AtomicU64 = AtomicU64::new(0);
/// The user top-level table that Xen was told last; 0 for none.
static USER_ROOT: AtomicU64 = AtomicU64::new(0);

pub(super) fn set_kernel_root(root: Pfn) {
    KERNEL_ROOT.store(root.0, Ordering::Relaxed);
}

pub(super) fn kernel_root() -> Pfn {
    Pfn(KERNEL_ROOT.load(Ordering::Relaxed))
}

/// An entry with its machine frame.
fn machine_bits(entry: Entry) -> u64 {
    if entry.is_present() { entry.bits_with_frame(p2m::mfn_of(entry.pfn).0) } else { 0 }
}

pub(super) fn read_entry(table: Pfn, index: usize) -> Entry {
    let bits = phys::read_u64(table, index);
    let flags = Entry::flags_in(bits);
    if !flags.contains(EntryFlags::PRESENT) {
        return Entry::ABSENT;
    }
    match p2m::pfn_of(Mfn(Entry::frame_in(bits))) {
        Some(pfn) => Entry::new(pfn, flags),
        None => Entry::new(Pfn(p2m::INVALID), flags),
    }
}

/// The machine address of a table's entry.
pub(super) fn entry_address(table: Pfn, index: usize) -> u64 {
    (p2m::mfn_of(table).0 << 12) | (index as u64 * 8)
}

pub(super) fn write_entries(updates: &[EntryUpdate]) {
    let mut requests = [MmuUpdate::default(); BATCH];
    for chunk in updates.chunks(BATCH) {
        for (request, update) in requests.iter_mut().zip(chunk) {
            let address = entry_address(update.table, update.index);
            *request = MmuUpdate::normal(address, machine_bits(update.entry));
        }
        mmu_update(&requests[..chunk.len()], DomId(xen::DOMID_SELF)).unwrap_or_else(|errno| refused(chunk, errno));
    }
}

#[cold]
fn refused(chunk: &[EntryUpdate], errno: Errno) -> ! {
    panic!("xen refused page-table updates with {errno:?}; the first is {:?}", chunk[0]);
}

/// Changes page-table entries; the frames named in them belong to `owner`.
///
/// # Errors
/// The errno; the updates before the refused one have taken effect.
pub(super) fn mmu_update(requests: &[MmuUpdate], owner: DomId) -> Result<(), Errno> {
    let args = [requests.as_ptr() as u64, requests.len() as u64, 0, u64::from(owner.0), 0];
    // SAFETY: callers change page-table entries of mappings they own.
    unsafe { hypercall::call(xen::HYPERVISOR_MMU_UPDATE, args) }.map(|_| ())
}

/// Pins, unpins, loads and flushes.
pub(super) fn mmuext(operations: &[MmuextOp]) -> Result<(), Errno> {
    let args = [operations.as_ptr() as u64, operations.len() as u64, 0, u64::from(xen::DOMID_SELF), 0];
    // SAFETY: callers name tables they own.
    unsafe { hypercall::call(xen::HYPERVISOR_MMUEXT_OP, args) }.map(|_| ())
}

pub(super) const fn ext(cmd: u32, arg1: u64) -> MmuextOp {
    MmuextOp { cmd, _pad0: 0, arg1, arg2: 0 }
}

/// Changes the last-level entry of a kernel address.
pub(super) fn update_va_mapping(addr: usize, bits: u64, flags: u64) -> Result<(), Errno> {
    let args = [addr as u64, bits, flags, 0, 0];
    // SAFETY: callers change mappings they own.
    unsafe { hypercall::call(xen::HYPERVISOR_UPDATE_VA_MAPPING, args) }.map(|_| ())
}

/// Makes the direct-map entry of a frame read-only, or writable again.
fn protect(pfn: Pfn, flags: EntryFlags) {
    let bits = machine_bits(Entry::new(pfn, flags));
    update_va_mapping(direct(pfn), bits, xen::UVMF_INVLPG)
        .unwrap_or_else(|errno| panic!("cannot make frame {pfn} {flags:?}: {errno:?}"));
}

pub(super) fn make_table(table: Pfn, level: u8) {
    protect(table, EntryFlags::KERNEL_READ_ONLY);
    if level == 4 {
        mmuext(&[ext(xen::MMUEXT_PIN_L4_TABLE, p2m::mfn_of(table).0)])
            .unwrap_or_else(|errno| panic!("cannot pin page table {table}: {errno:?}"));
    }
}

pub(super) fn retire_tables(tables: &[(Pfn, u8)]) {
    for (table, level) in tables {
        if *level == 4 {
            unload_and_unpin(*table);
        }
    }
    let mut calls = [MulticallEntry::default(); 32];
    for chunk in tables.chunks(calls.len()) {
        for (call, (table, _)) in calls.iter_mut().zip(chunk) {
            let bits = machine_bits(Entry::new(*table, EntryFlags::KERNEL_DATA));
            *call = MulticallEntry {
                op: xen::HYPERVISOR_UPDATE_VA_MAPPING,
                result: 0,
                args: [direct(*table) as u64, bits, xen::UVMF_INVLPG, 0, 0, 0],
            };
        }
        multicall(&mut calls[..chunk.len()]);
    }
}

fn unload_and_unpin(root: Pfn) {
    let unpin = ext(xen::MMUEXT_UNPIN_TABLE, p2m::mfn_of(root).0);
    let unload = ext(xen::MMUEXT_NEW_USER_BASEPTR, 0);
    let loaded = USER_ROOT.load(Ordering::Relaxed) == root.0;
    let result = if loaded {
        USER_ROOT.store(0, Ordering::Relaxed);
        mmuext(&[unload, unpin])
    } else {
        mmuext(&[unpin])
    };
    result.unwrap_or_else(|errno| panic!("cannot unpin page table {root}: {errno:?}"));
}

/// Several hypercalls in one.
///
/// # Panics
/// When one of them is refused.
pub(super) fn multicall(calls: &mut [MulticallEntry]) {
    let args = [calls.as_mut_ptr() as u64, calls.len() as u64, 0, 0, 0];
    // SAFETY: callers put in what they could have called one by one.
    let result = unsafe { hypercall::call(xen::HYPERVISOR_MULTICALL, args) };
    result.unwrap_or_else(|errno| panic!("multicall: {errno:?}"));
    for call in calls {
        hypercall::result(call.result as i64)
            .unwrap_or_else(|errno| panic!("hypercall {} in a multicall: {errno:?}", call.op));
    }
}

pub(super) fn flush_page(addr: usize) {
    let _ = mmuext(&[ext(xen::MMUEXT_INVLPG_LOCAL, addr as u64)]);
}

pub(super) fn flush_all() {
    let _ = mmuext(&[ext(xen::MMUEXT_TLB_FLUSH_LOCAL, 0)]);
}

/// User mode enters the kernel on `kernel_stack_top` from now on, and runs in `root`.
///
/// The kernel's own tables stay loaded: kernel and user mode have different top-level tables, and this kernel reaches
/// user memory through the direct map. User entries are global, so a new user root needs a full flush.
pub(super) fn prepare_user(kernel_stack_top: usize, root: Option<Pfn>) {
    let stack_switch = MulticallEntry {
        op: xen::HYPERVISOR_STACK_SWITCH,
        result: 0,
        args: [u64::from(pv_abi::arch::FLAT_KERNEL_SS), kernel_stack_top as u64, 0, 0, 0, 0],
    };
    let wanted = root.map_or(0, |root| root.0);
    if USER_ROOT.swap(wanted, Ordering::Relaxed) == wanted {
        multicall(&mut [stack_switch]);
        return;
    }
    let mfn = root.map_or(0, |root| p2m::mfn_of(root).0);
    let load = [ext(xen::MMUEXT_NEW_USER_BASEPTR, mfn), ext(xen::MMUEXT_TLB_FLUSH_LOCAL, 0)];
    let switch_tables = MulticallEntry {
        op: xen::HYPERVISOR_MMUEXT_OP,
        result: 0,
        args: [load.as_ptr() as u64, load.len() as u64, 0, u64::from(xen::DOMID_SELF), 0, 0],
    };
    multicall(&mut [stack_switch, switch_tables]);
}
