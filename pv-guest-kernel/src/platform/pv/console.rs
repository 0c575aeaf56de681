//! The console: a ring shared with the console daemon, or, for the first domain, Xen's own.
//!
//! The ring is the protocol of Xen `public/io/console.h`: 1 KiB in, 2 KiB out, and an event channel.
#![expect(unsafe_code, reason = "a ring shared with another domain, and console_io")]

use core::sync::atomic::{AtomicBool, AtomicPtr, AtomicU8, AtomicU32, Ordering};

use pv_abi::{Port, xen};

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
/// The ring's event channel.
static PORT: AtomicU32 = AtomicU32::new(0);

fn ring() -> Option<&'static Ring> {
    // SAFETY: `init` stored the direct-map address of a page that Xen keeps for this purpose; all fields are atomic.
    unsafe { RING.load(Ordering::Relaxed).as_ref() }
}

/// Finds the ring once the direct map is there.
pub(in crate::platform) fn init() {
    let Some(given) = shared::console_ring() else {
        return;
    };
    PORT.store(given.port.0, Ordering::Relaxed);
    if let Some(pfn) = p2m::pfn_of(given.mfn) {
        RING.store(direct(pfn) as *mut Ring, Ordering::Relaxed);
    }
}

/// In a new domain: the ring is the same page, the event channel another one.
pub(super) fn settle_in() {
    init();
    start();
}

/// Listens for input, once events work.
pub(in crate::platform) fn start() {
    let port = match shared::console_ring() {
        Some(RingPage { port, .. }) => Some(port),
        None => events::bind_virq(xen::VIRQ_CONSOLE).ok(),
    };
    if let Some(port) = port {
        events::on(port, crate::console::on_input);
    }
    crate::console::on_input();
}

pub(in crate::platform) fn console_write(bytes: &[u8]) {
    match ring() {
        None => {
            console_io(xen::CONSOLEIO_WRITE, bytes.as_ptr() as u64, bytes.len());
        }
        Some(ring) => write_to_ring(ring, bytes),
    }
}

/// A reader that takes nothing for this long is not there.
const PATIENCE_NS: u64 = 10_000_000_000;

/// True when the reader has been given up: text is dropped until it reads again.
static GIVEN_UP: AtomicBool = AtomicBool::new(false);

/// Writes everything. A slow reader loses nothing; one that is not there must not stop the kernel for ever.
fn write_to_ring(ring: &Ring, bytes: &[u8]) {
    let mut rest = bytes;
    let mut deadline = None;
    while !rest.is_empty() {
        let count = put(ring, rest);
        if count > 0 {
            rest = &rest[count..];
            GIVEN_UP.store(false, Ordering::Relaxed);
            deadline = None;
            notify();
            continue;
        }
        let now = super::clock::now_ns();
        if GIVEN_UP.load(Ordering::Relaxed) || now > *deadline.get_or_insert(now + PATIENCE_NS) {
            GIVEN_UP.store(true, Ordering::Relaxed);
            return;
        }
        let_others_run();
    }
}

/// Puts what fits into the ring; returns how much that was.
fn put(ring: &Ring, bytes: &[u8]) -> usize {
    let consumed = ring.out_cons.load(Ordering::Acquire);
    let produced = ring.out_prod.load(Ordering::Relaxed);
    let room = OUT_BYTES.saturating_sub(produced.wrapping_sub(consumed)) as usize;
    let count = room.min(bytes.len());
    for (step, byte) in bytes[..count].iter().enumerate() {
        let at = produced.wrapping_add(step as u32) % OUT_BYTES;
        ring.output[at as usize].store(*byte, Ordering::Relaxed);
    }
    ring.out_prod.store(produced.wrapping_add(count as u32), Ordering::Release);
    count
}

fn let_others_run() {
    let args = [u64::from(pv_abi::sched::SCHEDOP_YIELD), 0, 0, 0, 0];
    // SAFETY: no memory is involved.
    unsafe { hypercall::raw(xen::HYPERVISOR_SCHED_OP, args) };
}

fn notify() {
    let _ = events::notify(Port(PORT.load(Ordering::Relaxed)));
}

/// Waits until the daemon has read everything, for at most a second: the last words of a domain.
pub(in crate::platform) fn drain() {
    let Some(ring) = ring() else { return };
    let deadline = super::clock::now_ns() + 1_000_000_000;
    while ring.out_cons.load(Ordering::Acquire) != ring.out_prod.load(Ordering::Relaxed)
        && super::clock::now_ns() < deadline
    {
        let_others_run();
    }
}

pub(in crate::platform) fn console_read(into: &mut [u8]) -> usize {
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
        ring.in_cons.store(consumed.wrapping_add(count as u32), Ordering::Release);
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
