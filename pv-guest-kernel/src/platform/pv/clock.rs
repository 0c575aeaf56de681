//! Time: a shared page and `rdtsc` instead of a timer chip, a hypercall instead of programming one.
//!
//! Xen writes, each time it schedules the vCPU, a pair (TSC, nanoseconds) and a scale into vcpu_info.time; the version is
//! odd while it writes. The wall clock in shared_info is the time of day at nanosecond 0 of that clock.
//!
//! Source: Xen `public/xen.h` (`struct vcpu_time_info`), `public/vcpu.h`.
#![expect(unsafe_code, reason = "reads the time-stamp counter and programs the timer")]

use core::arch::x86_64::_rdtsc;
use core::sync::atomic::{AtomicU64, Ordering, fence};

use pv_abi::errno::Errno;
use pv_abi::vcpu::{
    VCPUOP_SET_SINGLESHOT_TIMER, VCPUOP_STOP_PERIODIC_TIMER, VCPUOP_STOP_SINGLESHOT_TIMER, VcpuSetSingleshotTimer,
};
use pv_abi::xen::{self, VcpuTimeInfo};

use super::{events, hypercall, percpu, shared};
use crate::sync::IrqGuard;

static LATEST_NS: AtomicU64 = AtomicU64::new(0);
/// What a domain that came from elsewhere adds to Xen's clock, so that time goes on where it stood (modulo 2^64).
static OFFSET_NS: AtomicU64 = AtomicU64::new(0);

/// Nanoseconds since the hypervisor on which this kernel booted had started.
pub(in crate::platform) fn now_ns() -> u64 {
    let now = xen_ns().wrapping_add(OFFSET_NS.load(Ordering::Relaxed));
    LATEST_NS.fetch_max(now, Ordering::Relaxed).max(now)
}

/// Nanoseconds since this hypervisor started.
fn xen_ns() -> u64 {
    // The pair and the counter must be of the same vCPU.
    let _irq = IrqGuard::new();
    let time = &shared::vcpu().time;
    loop {
        let version = time.version.load(Ordering::Acquire);
        let copy = VcpuTimeInfo {
            version,
            tsc_timestamp: time.tsc_timestamp.load(Ordering::Relaxed),
            system_time: time.system_time.load(Ordering::Relaxed),
            tsc_to_system_mul: time.tsc_to_system_mul.load(Ordering::Relaxed),
            tsc_shift: time.tsc_shift.load(Ordering::Relaxed),
            ..VcpuTimeInfo::default()
        };
        // SAFETY: any ring may read the counter.
        let tsc = unsafe { _rdtsc() };
        fence(Ordering::Acquire);
        if version & 1 == 0 && time.version.load(Ordering::Relaxed) == version {
            return copy.system_time_at(tsc);
        }
    }
}

/// Nanoseconds since 1970.
pub(in crate::platform) fn wall_clock_ns() -> u64 {
    let shared = shared::shared_info();
    loop {
        let version = shared.wc_version.load(Ordering::Acquire);
        let seconds_low = u64::from(shared.wc_sec.load(Ordering::Relaxed));
        let seconds_high = u64::from(shared.wc_sec_hi.load(Ordering::Relaxed));
        let nanoseconds = u64::from(shared.wc_nsec.load(Ordering::Relaxed));
        fence(Ordering::Acquire);
        if version & 1 == 0 && shared.wc_version.load(Ordering::Relaxed) == version {
            let seconds = (seconds_high << 32) | seconds_low;
            return seconds * 1_000_000_000 + nanoseconds + xen_ns();
        }
    }
}

/// Timer interrupts come as VIRQ_TIMER, to each vCPU its own.
pub(in crate::platform) fn init() {
    stop_tick();
    bind_timer(0).expect("the timer has an event channel");
}

/// In a new domain: time goes on where it stood, by the clock there.
pub(super) fn settle_in() {
    let stood = LATEST_NS.load(Ordering::Relaxed);
    OFFSET_NS.store(stood.wrapping_sub(xen_ns()), Ordering::Relaxed);
    init();
}

/// Listens to the timer of a vCPU.
pub(super) fn bind_timer(cpu: usize) -> Result<(), Errno> {
    let port = events::bind_virq_on(xen::VIRQ_TIMER, cpu)?;
    events::on(port, crate::task::scheduler::on_timer);
    Ok(())
}

fn own_timer(operation: u32) {
    let args = [u64::from(operation), percpu::number() as u64, 0, 0, 0];
    // SAFETY: no memory is involved.
    let _ = unsafe { hypercall::call(xen::HYPERVISOR_VCPU_OP, args) };
}

/// Xen starts every vCPU with a 100 Hz tick; this kernel asks for what it needs.
pub(super) fn stop_tick() {
    own_timer(VCPUOP_STOP_PERIODIC_TIMER);
}

/// This vCPU gets no timer interrupt until it sets its timer again.
pub(super) fn stop_timer() {
    own_timer(VCPUOP_STOP_SINGLESHOT_TIMER);
}

/// One VIRQ_TIMER on this vCPU at `deadline_ns`; at once if that is past. Events are masked.
pub(in crate::platform) fn set_timer(deadline_ns: u64) {
    let timeout_abs_ns = deadline_ns.saturating_sub_signed(OFFSET_NS.load(Ordering::Relaxed).cast_signed());
    let timer = VcpuSetSingleshotTimer { timeout_abs_ns, flags: 0, _pad0: 0 };
    let cpu = percpu::number() as u64;
    let args = [u64::from(VCPUOP_SET_SINGLESHOT_TIMER), cpu, core::ptr::from_ref(&timer) as u64, 0, 0];
    // SAFETY: Xen reads the struct.
    let result = unsafe { hypercall::call(xen::HYPERVISOR_VCPU_OP, args) };
    if let Err(errno) = result {
        panic!("set_singleshot_timer: {errno:?}");
    }
}
