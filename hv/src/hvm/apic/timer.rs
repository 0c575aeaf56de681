//! The local APIC's timer: once, again and again, or at a value of the time-stamp counter.
//!
//! It counts at 100 MHz, as Xen's does. Source: Intel SDM 3 §10.5.4.

use alloc::sync::Arc;
use core::sync::atomic::Ordering;

use super::{Apic, MASKED, Parts, parts, request};
use crate::domain::{Running, Vcpu};
use crate::hardware::Machine;
use crate::{Hypervisor, time};

/// Nanoseconds of a count.
const COUNT_NS: u64 = 10;

/// Modes, in the local vector.
const MODE: u32 = 3 << 17;
const PERIODIC: u32 = 1 << 17;
const DEADLINE: u32 = 2 << 17;

/// The timer's registers.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Timer {
    pub(super) initial: u32,
    pub(super) divide: u32,
    /// When it began to count, in system time.
    started: u64,
    is_periodic: bool,
    /// The time-stamp counter's value that it waits for.
    deadline: u64,
}

impl Timer {
    /// Nanoseconds of a count, as divided: 000 is 2, 110 is 128, 111 is 1.
    const fn count_ns(&self) -> u64 {
        let shift = ((self.divide & 3 | self.divide >> 1 & 4) + 1) & 7;
        COUNT_NS << shift
    }

    const fn length(&self) -> u64 {
        self.initial as u64 * self.count_ns()
    }

    /// The counts that are left.
    pub(super) fn current(&self, now: u64) -> u32 {
        let length = self.length();
        if length == 0 {
            return 0;
        }
        let passed = now.saturating_sub(self.started);
        let passed = if self.is_periodic { passed % length } else { passed.min(length) };
        ((length - passed) / self.count_ns()) as u32
    }
}

/// Writes the initial count, which starts the timer; 0 stops it.
pub(super) fn start<M: Machine>(hv: &Hypervisor<M>, vcpu: &Arc<Vcpu>, apic: &mut Apic, initial: u32) {
    let mode = apic.local[0] & MODE;
    if mode == DEADLINE {
        return;
    }
    let timer = &mut apic.timer;
    (timer.initial, timer.started, timer.is_periodic) = (initial, hv.machine.now(), mode == PERIODIC);
    let length = timer.length();
    let period = if timer.is_periodic { length.max(time::SHORTEST_APIC_PERIOD_NS) } else { 0 };
    let at = (initial != 0).then(|| timer.started.saturating_add(length));
    time::set_apic(hv, vcpu, at, period);
}

/// The timer's local vector was written: another mode stops it.
pub(super) fn mode_changed<M: Machine>(hv: &Hypervisor<M>, vcpu: &Arc<Vcpu>, apic: &mut Apic) {
    let is_deadline = apic.local[0] & MODE == DEADLINE;
    if is_deadline && apic.timer.initial != 0 || !is_deadline && apic.timer.deadline != 0 {
        (apic.timer.initial, apic.timer.deadline) = (0, 0);
        time::set_apic(hv, vcpu, None, 0);
    }
}

/// The register of the deadline.
pub(in crate::hvm) fn deadline<M: Machine>(hv: &Hypervisor<M>, running: &Running) -> u64 {
    let deadline = running.state.assisted.as_deref().map_or(0, |own| own.apic.timer.deadline);
    // It is zero again once it has passed.
    if deadline <= hv.machine.tsc() { 0 } else { deadline }
}

/// Writes the register of the deadline; nothing in another mode.
pub(in crate::hvm) fn set_deadline<M: Machine>(hv: &Hypervisor<M>, running: &mut Running, value: u64) {
    let Some(Parts { vcpu, apic, .. }) = parts(running) else {
        return;
    };
    if apic.local[0] & MODE != DEADLINE {
        return;
    }
    apic.timer.deadline = value;
    let ticks = value.saturating_sub(hv.machine.tsc());
    let ns = u128::from(ticks) * 1_000_000 / u128::from(hv.machine.time_scale().khz.max(1));
    let at = hv.machine.now().saturating_add(u64::try_from(ns).unwrap_or(u64::MAX));
    time::set_apic(hv, vcpu, (value != 0).then_some(at), 0);
}

/// A vCPU's timer ran out.
pub(crate) fn on_timer<M: Machine>(hv: &Hypervisor<M>, vcpu: &Arc<Vcpu>) {
    let Some(inbox) = vcpu.inbox.as_deref() else {
        return;
    };
    let local = inbox.timer.load(Ordering::Relaxed);
    if local & MASKED == 0 && local as u8 >= super::FIRST_VECTOR {
        request(hv, vcpu, inbox, local as u8);
    }
}
