//! The console: a ring shared with the console daemon, or, for the first domain, Xen's own.
//!
//! The ring is the protocol of Xen `public/io/console.h`: 1 KiB in, 2 KiB out, and an event channel.
#![expect(
    unsafe_code,
    reason = "a ring shared with another domain, and console_io"
)]

use core::sync::atomic::{AtomicPtr, AtomicU8, AtomicU32, Ordering};

use pv_abi::xen;

use super::{RingPage, events, hypercall, p2m, shared};
use crate::mm::direct;

const IN_BYTES: u32 = 1024;
const OUT_BYTES: u32 = 2048;

/// The layout of `struct xencons_interface`.
#[repr(C)]
struct Ring {
    /// Written by the daemon.
    input: [AtomicU8; IN_BYTES as usize],
    /// Written by this kernel.
    output: [AtomicU8; OUT_BYTES as usize],
    /// Written by this kernel.
    in_cons: AtomicU32,
    /// Written by the daemon.
    in_prod: AtomicU32,
    /// Written by the daemon.
    out_cons: AtomicU32,
    /// Written by this kernel.
    out_prod: AtomicU32,
}

static RING: AtomicPtr<Ring> = AtomicPtr::new(core::ptr::null_mut());

fn ring() -> Option<&'static Ring> {
    // SAFETY: `init` stored the direct-map address of a page that Xen keeps for this purpose; all fields are atomic.
    unsafe { RING.load(Ordering::Relaxed).as_ref() }
}

/// Finds the ring once the direct map is there.
pub(super) fn init() {
    let page = shared::console_ring().and_then(|ring| p2m::pfn_of(ring.mfn));
    if let Some(pfn) = page {
        RING.store(direct(pfn) as *mut Ring, Ordering::Relaxed);
    }
}

/// Listens for input, once events work.
pub(super) fn start() {
    let port = match shared::console_ring() {
        Some(RingPage { port, .. }) => Some(port),
        None => events::bind_virq(xen::VIRQ_CONSOLE).ok(),
    };
    if let Some(port) = port {
        events::on(port, crate::console::on_input);
    }
    crate::console::on_input();
}

pub(super) fn write(bytes: &[u8]) {
    match ring() {
        None => {
            console_io(xen::CONSOLEIO_WRITE, bytes.as_ptr() as u64, bytes.len());
        }
        Some(ring) => {
            let mut rest = bytes;
            while !rest.is_empty() {
                rest = &rest[put(ring, rest)..];
                notify();
            }
        }
    }
}

/// Puts what fits into the ring.
fn put(ring: &Ring, bytes: &[u8]) -> usize {
    let consumed = ring.out_cons.load(Ordering::Acquire);
    let produced = ring.out_prod.load(Ordering::Relaxed);
    let room = OUT_BYTES.saturating_sub(produced.wrapping_sub(consumed)) as usize;
    if room == 0 {
        wait_for_room();
    }
    let count = room.min(bytes.len());
    for (step, byte) in bytes[..count].iter().enumerate() {
        let at = produced.wrapping_add(step as u32) % OUT_BYTES;
        ring.output[at as usize].store(*byte, Ordering::Relaxed);
    }
    ring.out_prod
        .store(produced.wrapping_add(count as u32), Ordering::Release);
    count
}

/// The daemon has not read yet: let other domains run. A console without a reader must not stop the kernel for ever, but
/// must not lose text to a slow one either.
fn wait_for_room() {
    let args = [u64::from(pv_abi::sched::SCHEDOP_YIELD), 0, 0, 0, 0];
    // SAFETY: no memory is involved.
    unsafe { hypercall::raw(xen::HYPERVISOR_SCHED_OP, args) };
}

fn notify() {
    if let Some(RingPage { port, .. }) = shared::console_ring() {
        let _ = events::notify(port);
    }
}

/// Waits until the daemon has read everything, for at most a second: the last words of a domain.
pub(super) fn drain() {
    let Some(ring) = ring() else { return };
    let deadline = super::clock::now_ns() + 1_000_000_000;
    while ring.out_cons.load(Ordering::Acquire) != ring.out_prod.load(Ordering::Relaxed)
        && super::clock::now_ns() < deadline
    {
        wait_for_room();
    }
}

pub(super) fn read(into: &mut [u8]) -> usize {
    match ring() {
        None => console_io(xen::CONSOLEIO_READ, into.as_mut_ptr() as u64, into.len()),
        Some(ring) => take(ring, into),
    }
}

fn take(ring: &Ring, into: &mut [u8]) -> usize {
    let produced = ring.in_prod.load(Ordering::Acquire);
    let consumed = ring.in_cons.load(Ordering::Relaxed);
    let waiting = produced.wrapping_sub(consumed).min(IN_BYTES) as usize;
    let count = waiting.min(into.len());
    for (step, byte) in into[..count].iter_mut().enumerate() {
        let at = consumed.wrapping_add(step as u32) % IN_BYTES;
        *byte = ring.input[at as usize].load(Ordering::Relaxed);
    }
    if count > 0 {
        ring.in_cons
            .store(consumed.wrapping_add(count as u32), Ordering::Release);
        notify();
    }
    count
}

/// Xen's own console. Domains other than the first are refused; their early words are lost.
fn console_io(command: u32, addr: u64, len: usize) -> usize {
    let args = [u64::from(command), len as u64, addr, 0, 0];
    // SAFETY: Xen reads or writes `len` bytes at `addr`, a slice of the caller.
    let result = unsafe { hypercall::call(xen::HYPERVISOR_CONSOLE_IO, args) };
    result.map_or(0, |count| (count as usize).min(len))
}
