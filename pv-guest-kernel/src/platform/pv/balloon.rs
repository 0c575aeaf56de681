//! Ballooning: a domain gives memory back to Xen, and gets it again.
//!
//! Frames that nothing uses leave: their direct-map entry is cleared everywhere, the p2m list says that nothing is
//! behind the pfn, then Xen takes the machine frame. The pfn stays taken in the frame allocator; growing gives it a machine
//! frame again. A domain grows to what it was started with and no further: its p2m list and its direct map end there.
//!
//! Source: Xen `public/memory.h` (`XENMEM_decrease_reservation`, `XENMEM_populate_physmap`), `docs/misc/xenstore-paths.pandoc`
//! (`memory/target`).
#![expect(unsafe_code, reason = "takes the memory behind addresses away")]

use alloc::vec::Vec;

use pv_abi::Mfn;
use pv_abi::errno::Errno;
use pv_abi::memory::{MemoryReservation, XENMEM_DECREASE_RESERVATION, XENMEM_POPULATE_PHYSMAP};
use pv_abi::xen::{self, MulticallEntry};

use super::{hypercall, p2m, paging};
use crate::mm::frames::FRAMES;
use crate::mm::{Entry, EntryFlags, Pfn, direct};
use crate::sync::SleepLock;

/// Frames moved in one hypercall.
const BATCH: usize = 32;
/// Free frames that are never given away: 4 MiB.
const RESERVE: usize = 1024;

/// The pfns that have no memory now.
static OUT: SleepLock<Vec<Pfn>> = SleepLock::new(Vec::new());

/// Pages the domain has, as far as this kernel moves them.
#[must_use]
pub fn pages() -> u64 {
    p2m::frames() - OUT.lock().len() as u64
}

/// Brings the domain as close to `target` pages as it can; returns the pages it has then.
pub fn set_target(target: u64) -> u64 {
    let mut out = OUT.lock();
    let all = p2m::frames();
    loop {
        let now = all - out.len() as u64;
        let moved = if now > target {
            give(&mut out, (now - target).min(BATCH as u64) as usize)
        } else {
            take(&mut out, (target - now).min(BATCH as u64) as usize)
        };
        if moved == 0 {
            return now;
        }
    }
}

fn reservation(operation: u32, frames: &mut [u64]) -> Result<usize, Errno> {
    let mut argument = MemoryReservation {
        extent_start: frames.as_mut_ptr() as u64,
        nr_extents: frames.len() as u64,
        domid: xen::DOMID_SELF,
        ..MemoryReservation::default()
    };
    // SAFETY: the frames given are mapped nowhere; those got are not mapped yet. Xen reads and writes `frames`.
    let done = unsafe { hypercall::operation(xen::HYPERVISOR_MEMORY_OP, operation, &mut argument) }?;
    Ok(done as usize)
}

/// Writes the direct-map entries of frames, one word each, on all vCPUs.
fn set_direct(entries: impl Iterator<Item = (Pfn, u64)>) {
    if !crate::platform::is_pv() {
        // With hardware assistance the addresses stay, and lead nowhere.
        return;
    }
    let mut calls = [MulticallEntry::default(); BATCH];
    let mut used = 0;
    for (call, (pfn, bits)) in calls.iter_mut().zip(entries) {
        call.op = xen::HYPERVISOR_UPDATE_VA_MAPPING;
        call.args = [direct(pfn) as u64, bits, paging::everywhere(), 0, 0, 0];
        used += 1;
    }
    paging::multicall(&mut calls[..used]);
}

fn map(frames: &[(Pfn, Mfn)]) {
    set_direct(frames.iter().map(|(pfn, mfn)| {
        p2m::set(*pfn, *mfn);
        (*pfn, Entry::new(*pfn, EntryFlags::KERNEL_DATA).bits_with_frame(mfn.0))
    }));
}

/// Gives up to `count` free frames to Xen; returns how many.
fn give(out: &mut Vec<Pfn>, count: usize) -> usize {
    let taken: Vec<Pfn> = {
        let mut frames = FRAMES.lock();
        let spare = frames.free().saturating_sub(RESERVE);
        (0..count.min(spare)).map_while(|_| frames.alloc()).collect()
    };
    if taken.is_empty() {
        return 0;
    }
    let frames: Vec<(Pfn, Mfn)> = taken.iter().map(|pfn| (*pfn, p2m::mfn_of(*pfn))).collect();
    set_direct(taken.iter().map(|pfn| (*pfn, 0)));
    taken.iter().for_each(|pfn| p2m::set(*pfn, Mfn(p2m::INVALID)));
    let mut list: Vec<u64> = frames.iter().map(|(_, mfn)| mfn.0).collect();
    let given = reservation(XENMEM_DECREASE_RESERVATION, &mut list).unwrap_or(0).min(frames.len());
    out.extend(&taken[..given]);
    if given < frames.len() {
        log::warn!("xen took {given} of {} frames", frames.len());
        map(&frames[given..]);
        put_back(&frames[given..]);
    }
    given
}

/// Gets memory for up to `count` of the pfns that have none; returns how many got some.
fn take(out: &mut Vec<Pfn>, count: usize) -> usize {
    let first = out.len() - count.min(out.len());
    let mut list: Vec<u64> = out[first..].iter().map(|pfn| pfn.0).collect();
    if list.is_empty() {
        return 0;
    }
    // Xen fills the list from its start: pfn in, machine frame out. Fewer than asked for is an answer, not an error.
    let got = reservation(XENMEM_POPULATE_PHYSMAP, &mut list).unwrap_or(0).min(list.len());
    let frames: Vec<(Pfn, Mfn)> = out.drain(first..first + got).zip(list.into_iter().map(Mfn)).collect();
    map(&frames);
    put_back(&frames);
    got
}

fn put_back(frames: &[(Pfn, Mfn)]) {
    let mut free = FRAMES.lock();
    frames.iter().for_each(|(pfn, _)| free.release(*pfn));
}
