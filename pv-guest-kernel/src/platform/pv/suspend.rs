//! Suspend: the domain stops at a place that it chose, and goes on there, in this domain or in another one.
//!
//! `SCHEDOP_shutdown` with the reason *suspend* returns twice over: 1 when the toolstack thought better of it and nothing has
//! changed, 0 when memory and registers were put into a new domain. There everything that Xen keeps for a domain is new
//! (shared_info, event channels, the grant table, the placement of vcpu_info, the clock) and everything that lies in memory
//! is as it was (the p2m list and the page tables with the new machine frames put in by the toolstack).
//!
//! Invariants when the domain stops:
//! - one vCPU is up, and its events are masked;
//! - no request to xenstore is unanswered;
//! - no page table names a frame that is not in the p2m list: shared_info and the grant table are unmapped;
//! - start_info lies in a page that the third argument names, with pfns where it had machine frames: the toolstack
//!   finds the page by that argument and puts machine frames in again.
//!
//! Source: Xen `public/sched.h`, `docs/specs/libxc-migration-stream.pandoc`.
#![expect(unsafe_code, reason = "what memory means changes in the middle of this")]

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU64, Ordering};

use pv_abi::errno::Errno;
use pv_abi::sched::{SCHEDOP_SHUTDOWN, SHUTDOWN_SUSPEND, SchedShutdown};
use pv_abi::xen::{self, StartInfo};
use zerocopy::IntoBytes;

use super::{clock, console, cpus, events, grants, hypercall, p2m, percpu, shared, store};
use crate::mm::frames::Pages;
use crate::sync::{IrqGuard, IrqLock, SleepLock};
use crate::task::{Signal, scheduler};

/// How a suspend ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// It was cancelled: nothing has changed but the time.
    Cancelled,
    /// This is a new domain, with new peers.
    Resumed,
}

static LIFE: AtomicU64 = AtomicU64::new(0);
static LISTENERS: IrqLock<Vec<Arc<Signal>>> = IrqLock::new(Vec::new());
static TURN: SleepLock<()> = SleepLock::new(());

/// How often this kernel has come to a new domain. What was told another domain or Xen before is void.
#[must_use]
pub fn life() -> u64 {
    LIFE.load(Ordering::Acquire)
}

/// Raises `signal` each time this kernel has come to a new domain.
pub fn on_resume(signal: &Arc<Signal>) {
    LISTENERS.lock().push(signal.clone());
}

/// Suspends the domain, and returns when it goes on. Front ends need not be stopped before: in a new domain they are told
/// ([`on_resume`]) and connect anew.
///
/// # Errors
/// Xen's errno; the domain goes on then. `ENOMEM` without a page for start_info, `EOPNOTSUPP` with hardware assistance.
pub fn suspend() -> Result<Outcome, Errno> {
    if !crate::platform::is_pv() {
        return Err(Errno::OpNotSupp);
    }
    let _turn = TURN.lock();
    let page = Pages::alloc(1).ok_or(Errno::NoMem)?;
    let others: Vec<_> = crate::cpus::online().iter().filter(|cpu| *cpu != 0).collect();
    let stopped = others.iter().try_for_each(|cpu| cpus::stop(*cpu));
    let outcome = stopped.and_then(|()| {
        let _quiet = store::quiesce();
        stop(&page)
    });
    for cpu in others {
        if let Err(errno) = cpus::start(cpu) {
            log::error!("vcpu {cpu} does not come back: {errno:?}");
        }
    }
    if outcome == Ok(Outcome::Resumed) {
        LIFE.fetch_add(1, Ordering::AcqRel);
        store::watch_again();
        LISTENERS.lock().iter().for_each(|signal| signal.raise());
    }
    outcome
}

/// Stops the domain, with `page` for start_info.
fn stop(page: &Pages) -> Result<Outcome, Errno> {
    let _irq = IrqGuard::new();
    console::drain();
    page.write(0, for_the_tools(shared::start_info()).as_bytes());
    grants::unmap_table();
    shared::unmap_shared_info();
    let mut argument = SchedShutdown { reason: SHUTDOWN_SUSPEND };
    let start_info = p2m::mfn_of(page.first()).0;
    let args = [u64::from(SCHEDOP_SHUTDOWN), core::ptr::from_mut(&mut argument) as u64, start_info, 0, 0];
    // SAFETY: what would be wrong in another domain is unmapped; the rest is put right below.
    let result = unsafe { hypercall::call(xen::HYPERVISOR_SCHED_OP, args) };
    let outcome = match result {
        Ok(0) => Ok(Outcome::Resumed),
        Ok(_) => Ok(Outcome::Cancelled),
        Err(errno) => Err(errno),
    };
    if outcome == Ok(Outcome::Resumed) {
        settle_in(page);
    } else {
        shared::map_shared_info();
        grants::map_table();
    }
    scheduler::on_timer();
    outcome
}

/// start_info as the toolstack wants to find it: rings by pfn.
fn for_the_tools(mut info: StartInfo) -> StartInfo {
    let pfn_of = |mfn: u64| p2m::pfn_of(pv_abi::Mfn(mfn)).map_or(0, |pfn| pfn.0);
    info.store_mfn = pfn_of(info.store_mfn);
    info.console_domu_mfn = pfn_of(info.console_domu_mfn);
    info
}

/// Gets from Xen, anew, what this kernel had from it. Events are masked.
fn settle_in(page: &Pages) {
    // SAFETY: the toolstack wrote start_info to this page, which is mapped.
    unsafe { shared::keep_start_info(page.addr() as *const StartInfo) };
    shared::map_shared_info();
    events::init();
    percpu::register(0).expect("vcpu_info can be moved");
    p2m::publish();
    grants::map_table();
    clock::settle_in();
    cpus::settle_in();
    console::settle_in();
    store::settle_in();
}
