//! Clocks and timers.
//!
//! *System time* is nanoseconds since the machine started, [`Machine::now`]; all timers are absolute in it. Each CPU has
//! one queue of vCPUs, each at most once, by when the earliest of the vCPU's timers is due; an entry may be early (its
//! timer was stopped or moved), then it is put where it belongs. What a guest reads without asking — its time page, its
//! wall clock, its runstate area — is written in [`clock`].
//!
//! Invariants:
//! - the machine's deadline is never later than the first entry of the queue and the end of the running slice;
//! - a periodic timer ticks only while its vCPU runs; a tick that was due meanwhile comes, once, when it runs again.

pub mod clock;
mod queue;
mod runstate;
#[cfg(test)]
mod tests;

use alloc::sync::Arc;
use alloc::vec::Vec;

use pv_abi::xen::VIRQ_TIMER;
use spin::Mutex;

pub use clock::{set_wallclock, update_guest_clock, update_wallclock, wallclock, write_time_page};
pub use runstate::Runstate;

use crate::domain::Vcpu;
use crate::hardware::Machine;
use crate::{Hypervisor, evtchn, hvm, sched};

/// How often a new vCPU gets `VIRQ_TIMER` until it says otherwise (Xen: 100 Hz).
const DEFAULT_PERIOD_NS: u64 = 10_000_000;

/// Vcpus whose timers are handled before other work gets a chance.
const AT_ONCE: usize = 32;

/// Watchdogs of a domain.
pub const WATCHDOGS: usize = 2;

/// What is due when, on all CPUs.
pub struct Timers {
    cpus: Vec<Mutex<queue::Queue>>,
    /// Seconds and nanoseconds since 1970 at system time zero, once dom0 has set them.
    wall: Mutex<Option<(u64, u32)>>,
}

impl Default for Timers {
    /// For one CPU.
    fn default() -> Self {
        Self::new(1)
    }
}

impl Timers {
    /// Queues for this many CPUs.
    #[must_use]
    pub fn new(cpus: u32) -> Self {
        Self { cpus: (0..cpus.max(1)).map(|_| Mutex::default()).collect(), wall: Mutex::default() }
    }
}

/// A vCPU's timers. Those of its domain's watchdogs are vCPU 0's.
#[derive(Debug)]
pub struct VcpuTimers {
    /// When the single-shot timer is due.
    single: Option<u64>,
    /// The periodic timer's period, 0 while it is stopped.
    period: u64,
    /// When the periodic timer is due, while the vCPU runs.
    next_tick: u64,
    /// Whether the vCPU runs, so that its periodic timer ticks.
    ticking: bool,
    /// When a poll gives up.
    poll: Option<u64>,
    /// When a watchdog expires.
    watchdogs: [Option<u64>; WATCHDOGS],
    /// When the timer of its local APIC runs out, and in how many nanoseconds again; 0 for once.
    apic: Option<u64>,
    apic_period: u64,
    /// When its domain's chipset does something; vCPU 0's.
    chipset: Option<u64>,
    /// The queue that has an entry for this vCPU, and when it is due there.
    entry: Option<(u32, u64)>,
    /// What of the time page was published.
    clock: clock::Published,
}

impl Default for VcpuTimers {
    fn default() -> Self {
        Self {
            single: None,
            period: DEFAULT_PERIOD_NS,
            next_tick: 0,
            ticking: false,
            poll: None,
            watchdogs: [None; WATCHDOGS],
            apic: None,
            apic_period: 0,
            chipset: None,
            entry: None,
            clock: clock::Published::default(),
        }
    }
}

/// What of a vCPU's timers is due.
#[derive(Clone, Copy, Default)]
struct Due {
    timer: bool,
    poll: bool,
    watchdog: bool,
    apic: bool,
    chipset: bool,
}

fn take_due(timer: &mut Option<u64>, now: u64) -> bool {
    timer.take_if(|at| *at <= now).is_some()
}

impl VcpuTimers {
    fn tick(&self) -> Option<u64> {
        (self.ticking && self.period != 0).then_some(self.next_tick)
    }

    fn earliest(&self) -> Option<u64> {
        [self.single, self.tick(), self.poll, self.watchdogs[0], self.watchdogs[1], self.apic, self.chipset]
            .into_iter()
            .flatten()
            .min()
    }

    fn take_due(&mut self, now: u64) -> Due {
        let mut due = Due { timer: take_due(&mut self.single, now), ..Due::default() };
        if self.tick().is_some_and(|at| at <= now) {
            due.timer = true;
            self.next_tick = next_tick(self.next_tick, self.period, now);
        }
        due.poll = take_due(&mut self.poll, now);
        for watchdog in &mut self.watchdogs {
            due.watchdog |= take_due(watchdog, now);
        }
        due.chipset = take_due(&mut self.chipset, now);
        if let Some(last) = self.apic.take_if(|at| *at <= now) {
            due.apic = true;
            self.apic = (self.apic_period != 0).then(|| next_tick(last, self.apic_period, now));
        }
        due
    }
}

/// The first multiple of `period` after `last` that lies ahead of `now`.
fn next_tick(last: u64, period: u64, now: u64) -> u64 {
    last.saturating_add(((now.saturating_sub(last)) / period + 1).saturating_mul(period))
}

/// Changes a vCPU's timers and sees that what is earliest then is waited for.
fn change<M: Machine>(hv: &Hypervisor<M>, vcpu: &Arc<Vcpu>, change: impl FnOnce(&mut VcpuTimers)) {
    let mut timers = vcpu.timers.lock();
    change(&mut timers);
    queue::enter(hv, vcpu, &mut timers);
}

/// Starts the single-shot timer, or stops it. One that is due already raises the timer interrupt at once.
pub fn set_single<M: Machine>(hv: &Hypervisor<M>, vcpu: &Arc<Vcpu>, at: Option<u64>) {
    if at.is_some_and(|at| at <= hv.machine.now()) {
        change(hv, vcpu, |timers| timers.single = None);
        evtchn::raise_virq(hv, vcpu, VIRQ_TIMER);
    } else {
        change(hv, vcpu, |timers| timers.single = at);
    }
}

/// Starts the periodic timer, or stops it where `period` is 0.
pub fn set_periodic<M: Machine>(hv: &Hypervisor<M>, vcpu: &Arc<Vcpu>, period: u64) {
    let now = hv.machine.now();
    change(hv, vcpu, |timers| {
        timers.period = period;
        timers.next_tick = now.saturating_add(period);
    });
}

/// Says when a poll gives up, if ever.
pub(crate) fn set_poll<M: Machine>(hv: &Hypervisor<M>, vcpu: &Arc<Vcpu>, at: Option<u64>) {
    change(hv, vcpu, |timers| timers.poll = at);
}

/// Starts a watchdog that is not in use; gives its index.
pub(crate) fn start_watchdog<M: Machine>(hv: &Hypervisor<M>, first: &Arc<Vcpu>, at: u64) -> Option<usize> {
    let mut started = None;
    change(hv, first, |timers| {
        started = timers.watchdogs.iter().position(Option::is_none);
        if let Some(index) = started {
            timers.watchdogs[index] = Some(at);
        }
    });
    started
}

/// Moves a watchdog that is in use, or stops it; `false` where it is not in use.
pub(crate) fn move_watchdog<M: Machine>(hv: &Hypervisor<M>, first: &Arc<Vcpu>, index: usize, at: Option<u64>) -> bool {
    let mut in_use = false;
    change(hv, first, |timers| {
        in_use = timers.watchdogs[index].is_some();
        if in_use {
            timers.watchdogs[index] = at;
        }
    });
    in_use
}

/// The shortest time after which the timer of a local APIC runs out again.
pub(crate) const SHORTEST_APIC_PERIOD_NS: u64 = 100_000;

/// Says when the timer of a vCPU's local APIC runs out, and in how many nanoseconds again (0: not).
pub(crate) fn set_apic<M: Machine>(hv: &Hypervisor<M>, vcpu: &Arc<Vcpu>, at: Option<u64>, period: u64) {
    change(hv, vcpu, |timers| (timers.apic, timers.apic_period) = (at, period));
}

/// Says when the chipset of a vCPU's domain does something.
pub(crate) fn set_chipset<M: Machine>(hv: &Hypervisor<M>, first: &Arc<Vcpu>, at: Option<u64>) {
    change(hv, first, |timers| timers.chipset = at);
}

/// A vCPU starts to run: its periodic timer ticks, and a tick it has missed comes now.
pub(crate) fn starts_running<M: Machine>(hv: &Hypervisor<M>, vcpu: &Arc<Vcpu>) {
    let mut timers = vcpu.timers.lock();
    timers.ticking = true;
    if timers.period == 0 {
        return;
    }
    let now = hv.machine.now();
    let missed = timers.next_tick <= now;
    if missed {
        timers.next_tick = next_tick(timers.next_tick, timers.period, now);
    }
    queue::enter(hv, vcpu, &mut timers);
    drop(timers);
    if missed {
        evtchn::raise_virq(hv, vcpu, VIRQ_TIMER);
    }
}

/// A vCPU stops running: its periodic timer does not tick.
pub(crate) fn stops_running(vcpu: &Vcpu) {
    vcpu.timers.lock().ticking = false;
}

/// A vCPU goes away: nothing waits for its timers any more.
pub(crate) fn forget<M: Machine>(hv: &Hypervisor<M>, vcpu: &Vcpu) {
    let mut timers = vcpu.timers.lock();
    queue::leave(hv, vcpu, &mut timers);
    *timers = VcpuTimers { period: 0, ..VcpuTimers::default() };
}

/// Does what is due on this CPU, and asks for the next timer interrupt.
pub fn on_timer<M: Machine>(hv: &Hypervisor<M>) {
    let now = hv.machine.now();
    queue::fired(hv);
    for _ in 0..AT_ONCE {
        let Some(vcpu) = queue::take(hv, now) else {
            break;
        };
        expire(hv, &vcpu, now);
    }
    sched::end_slice(hv, now);
    program(hv);
}

fn expire<M: Machine>(hv: &Hypervisor<M>, vcpu: &Arc<Vcpu>, now: u64) {
    let mut timers = vcpu.timers.lock();
    timers.entry = None;
    let due = timers.take_due(now);
    queue::enter(hv, vcpu, &mut timers);
    drop(timers);
    if due.timer {
        evtchn::raise_virq(hv, vcpu, VIRQ_TIMER);
    }
    if due.poll {
        sched::poll_timed_out(hv, vcpu);
    }
    if due.apic {
        hvm::on_apic_timer(hv, vcpu);
    }
    if due.chipset {
        hvm::on_chipset_timer(hv, vcpu);
    }
    if due.watchdog {
        sched::shutdown(hv, &vcpu.domain, pv_abi::sched::SHUTDOWN_WATCHDOG);
    }
}

/// Does what is due on this CPU, if anything is.
pub(crate) fn run_due<M: Machine>(hv: &Hypervisor<M>) {
    if queue::is_due(hv) {
        on_timer(hv);
    }
}

/// Asks the machine for an interrupt when the next thing is due on this CPU.
pub(crate) fn program<M: Machine>(hv: &Hypervisor<M>) {
    queue::program(hv);
}
