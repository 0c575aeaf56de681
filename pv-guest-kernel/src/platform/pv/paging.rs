//! Page tables that Xen checks.
//!
//! What changes against a PC, and why:
//! - an entry holds a *machine* frame: pfn → mfn when written, mfn → pfn when read;
//! - a page table may be read but not written: each change is an `mmu_update`, which Xen validates, and many go in one call;
//! - a frame becomes a page table only when no writable mapping of it is left, so its direct-map entry is made read-only
//!   first ([`make_table`]), and writable again when nothing uses it as a table ([`retire_tables`]);
//! - a top-level table is pinned: Xen validates the whole tree once and keeps it so until it is unpinned;
//! - several vCPUs cache translations: a flush names those that may have one (`…_MULTI`, `…_ALL`).
//!
//! Invariants:
//! - a process's tables are changed only by the thread that runs in them, or before it runs; so no other vCPU loads them
//!   while a flush of theirs is being made;
//! - such a hypercall ends on the vCPU on which it began: Xen may break off a long one, return to the kernel so that it is made
//!   again, and keep the rest of a table that is being taken apart *with the vCPU*. So events are masked from its begin to its
//!   end, or the thread might be moved in between and the table stay one;
//! - each vCPU's block says which user table Xen has loaded for it ([`percpu::Block::user_root`]).
//!
//! Source: Xen `public/xen.h` (`HYPERVISOR_mmu_update`, `mmuext_op`, `update_va_mapping`).
#![expect(unsafe_code, reason = "changes mappings")]

use core::sync::atomic::{AtomicU64, Ordering};

use pv_abi::errno::Errno;
use pv_abi::xen::{self, MmuUpdate, MmuextOp, MulticallEntry};
use pv_abi::{DomId, Mfn};

use super::{hypercall, p2m, percpu};
use crate::cpus::{CpuSet, online};
use crate::mm::{Entry, EntryFlags, EntryUpdate, Pfn, direct, phys};
use crate::sync::{IrqGuard, Spin};

/// Entries changed in one hypercall.
const BATCH: usize = 64;

static KERNEL_ROOT: AtomicU64 = AtomicU64::new(0);

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
    let _here = IrqGuard::new();
    // SAFETY: callers change page-table entries of mappings they own.
    unsafe { hypercall::call(xen::HYPERVISOR_MMU_UPDATE, args) }.map(|_| ())
}

/// Pins, unpins, loads and flushes.
pub(super) fn mmuext(operations: &[MmuextOp]) -> Result<(), Errno> {
    let args = [operations.as_ptr() as u64, operations.len() as u64, 0, u64::from(xen::DOMID_SELF), 0];
    let _here = IrqGuard::new();
    // SAFETY: callers name tables they own.
    unsafe { hypercall::call(xen::HYPERVISOR_MMUEXT_OP, args) }.map(|_| ())
}

pub(super) const fn ext(cmd: u32, arg1: u64) -> MmuextOp {
    MmuextOp { cmd, _pad0: 0, arg1, arg2: 0 }
}

/// Changes the last-level entry of a kernel address.
pub(super) fn update_va_mapping(addr: usize, bits: u64, flags: u64) -> Result<(), Errno> {
    let args = [addr as u64, bits, flags, 0, 0];
    let _here = IrqGuard::new();
    // SAFETY: callers change mappings they own.
    unsafe { hypercall::call(xen::HYPERVISOR_UPDATE_VA_MAPPING, args) }.map(|_| ())
}

/// Makes the direct-map entry of a frame read-only, or writable again.
fn protect(pfn: Pfn, flags: EntryFlags) {
    let bits = machine_bits(Entry::new(pfn, flags));
    // A vCPU that still knows the frame as writable does no harm: Xen sees to it before the frame becomes a table.
    update_va_mapping(direct(pfn), bits, xen::UVMF_INVLPG)
        .unwrap_or_else(|errno| panic!("cannot make frame {pfn} {flags:?}: {errno:?}"));
}

/// How to change a kernel address that other vCPUs may have a translation of.
pub(super) fn everywhere() -> u64 {
    if online().len() == 1 { xen::UVMF_INVLPG } else { xen::UVMF_INVLPG | xen::UVMF_ALL }
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
                args: [direct(*table) as u64, bits, everywhere(), 0, 0, 0],
            };
        }
        multicall(&mut calls[..chunk.len()]);
    }
}

fn unload_and_unpin(root: Pfn) {
    unload_everywhere(root);
    mmuext(&[ext(xen::MMUEXT_UNPIN_TABLE, p2m::mfn_of(root).0)])
        .unwrap_or_else(|errno| panic!("cannot unpin page table {root}: {errno:?}"));
}

/// The vCPUs for which `root` is the user table, even if user mode does not run there now.
fn users_of(root: Pfn) -> CpuSet {
    let mut users = CpuSet::EMPTY;
    for cpu in online().iter() {
        if percpu::block(cpu).user_root.load(Ordering::SeqCst) == root.0 {
            users.insert(cpu);
        }
    }
    users
}

/// A table that a vCPU has loaded stays a table whatever else lets go of it: each that has `root` is called and drops it.
/// None of them runs user mode in it, as its only thread is here and ends.
fn unload_everywhere(root: Pfn) {
    let irq = IrqGuard::new();
    let me = percpu::this();
    if me.user_root.load(Ordering::Relaxed) == root.0 {
        unload_user();
    }
    let called = users_of(root);
    for cpu in called.iter() {
        percpu::block(cpu).unload_wanted.store(1, Ordering::SeqCst);
        super::cpus::call(cpu);
    }
    let mut spin = Spin::default();
    while !users_of(root).is_empty() {
        // Another vCPU may wait for this one in the same way.
        unload_if_wanted();
        spin.once();
    }
    drop(irq);
}

/// This vCPU has no user table any more. Events are masked.
pub(super) fn unload_user() {
    let block = percpu::this();
    if block.user_root.load(Ordering::Relaxed) != 0 {
        mmuext(&[ext(xen::MMUEXT_NEW_USER_BASEPTR, 0)]).expect("a user table can be dropped");
        block.user_root.store(0, Ordering::SeqCst);
    }
}

/// Drops this vCPU's user table if another vCPU has asked for it, and its thread does not use it. Events are masked.
pub(super) fn unload_if_wanted() {
    let block = percpu::this();
    if block.unload_wanted.swap(0, Ordering::SeqCst) == 0 {
        return;
    }
    let mine = crate::task::scheduler::current().user_root().map_or(0, |root| root.0);
    if block.user_root.load(Ordering::Relaxed) != mine {
        unload_user();
    }
}

/// Several hypercalls in one.
///
/// # Panics
/// When one of them is refused.
pub(super) fn multicall(calls: &mut [MulticallEntry]) {
    let args = [calls.as_mut_ptr() as u64, calls.len() as u64, 0, 0, 0];
    let _here = IrqGuard::new();
    // SAFETY: callers put in what they could have called one by one.
    let result = unsafe { hypercall::call(xen::HYPERVISOR_MULTICALL, args) };
    result.unwrap_or_else(|errno| panic!("multicall: {errno:?}"));
    for call in calls {
        hypercall::result(call.result as i64)
            .unwrap_or_else(|errno| panic!("hypercall {} in a multicall: {errno:?}", call.op));
    }
}

/// Forgets the translation of a kernel address, on all vCPUs.
pub(super) fn flush_page(addr: usize) {
    let command = if online().len() == 1 { xen::MMUEXT_INVLPG_LOCAL } else { xen::MMUEXT_INVLPG_ALL };
    let _ = mmuext(&[ext(command, addr as u64)]);
}

/// Forgets all translations, on all vCPUs.
pub(super) fn flush_all() {
    let command = if online().len() == 1 { xen::MMUEXT_TLB_FLUSH_LOCAL } else { xen::MMUEXT_TLB_FLUSH_ALL };
    let _ = mmuext(&[ext(command, 0)]);
}

/// Forgets the translation of a user address (or, without one, of all) on the vCPUs that have `root` loaded. A vCPU that
/// loads it later flushes as it does.
pub(super) fn flush_user(root: Pfn, addr: Option<usize>) {
    let (local, multi, arg1) = match addr {
        Some(addr) => (xen::MMUEXT_INVLPG_LOCAL, xen::MMUEXT_INVLPG_MULTI, addr as u64),
        None => (xen::MMUEXT_TLB_FLUSH_LOCAL, xen::MMUEXT_TLB_FLUSH_MULTI, 0),
    };
    let _irq = IrqGuard::new();
    let users = users_of(root);
    let here = CpuSet::only(percpu::number());
    let result = if users == here {
        mmuext(&[ext(local, arg1)])
    } else if users.is_empty() {
        Ok(())
    } else {
        percpu::with_mask(users.0, |mask| mmuext(&[MmuextOp { cmd: multi, _pad0: 0, arg1, arg2: mask }]))
    };
    result.expect("a flush cannot fail");
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
    let _irq = IrqGuard::new();
    let loaded = &percpu::this().user_root;
    let wanted = root.map_or(0, |root| root.0);
    if loaded.load(Ordering::Relaxed) == wanted {
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
    // Not before: until now the old table was in use.
    loaded.store(wanted, Ordering::SeqCst);
}
