//! The devices that a domain with emulated ones has inside the hypervisor, as all of it reaches them.
//!
//! They are one [`Chipset`] behind a lock. Under it also the timer for what they do next is set (it is the first vCPU's),
//! and what they send goes to local APICs at once; what asks the first vCPU for an 8259's interrupt is noted beside, where
//! each entry into the guest looks.
//!
//! Lock order: the chipset before timers and run queues.
//!
//! Source: Xen: public/arch-x86/xen.h (`XEN_X86_EMU_*`); Intel MultiProcessor Specification 1.4 §3.6.2 (virtual wire).

use alloc::boxed::Box;
use alloc::sync::Arc;
use core::sync::atomic::{AtomicBool, Ordering};

use pv_abi::arch::{XEN_X86_EMU_ALL, XEN_X86_EMU_LAPIC, XEN_X86_EMU_VPCI};
use spin::Mutex;

use super::devices::chipset::Chipset;
use super::devices::ioapic::{BASE, Message};
use super::{HvmDomain, Inbox, apic};
use crate::domain::{Domain, Vcpu};
use crate::hardware::Machine;
use crate::{Hypervisor, sched, time};

/// Bytes of the I/O APIC's page.
const BYTES: u64 = 0x1000;

/// What is emulated inside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Devices {
    /// Local APICs alone, as PVH guests have them.
    Apics,
    /// The chipset too.
    All,
}

impl Devices {
    /// Those that a toolstack asks for: there are two sets.
    pub(crate) const fn of(flags: u32) -> Option<Self> {
        match flags {
            XEN_X86_EMU_LAPIC => Some(Self::Apics),
            flags if flags == XEN_X86_EMU_ALL & !XEN_X86_EMU_VPCI => Some(Self::All),
            _ => None,
        }
    }
}

/// The chipset, and what others look at without its lock.
#[derive(Debug)]
pub(super) struct Platform {
    state: Mutex<State>,
    /// The 8259s ask for an interrupt.
    asks: AtomicBool,
    /// The I/O APIC lets the 8259s' interrupts through.
    passes: AtomicBool,
}

#[derive(Debug)]
struct State {
    chipset: Chipset,
    /// When the timer is set to.
    next: Option<u64>,
}

/// Where messages of devices go.
pub(super) type Send<'a> = &'a mut dyn FnMut(Message);

impl Platform {
    /// After a reset; the clock shows the machine's time.
    pub(super) fn new<M: Machine>(hv: &Hypervisor<M>) -> Box<Self> {
        let (now, (seconds, nanoseconds)) = (hv.machine.now(), time::wallclock(hv));
        let shown = seconds.saturating_mul(1_000_000_000).saturating_add(nanoseconds.into()).saturating_add(now);
        let state = State { chipset: Chipset::new(shown, now), next: None };
        Box::new(Self { state: Mutex::new(state), asks: AtomicBool::new(false), passes: AtomicBool::new(false) })
    }
}

fn of(domain: &Domain) -> Option<&Platform> {
    domain.hvm.as_ref()?.platform.as_deref()
}

/// Does something with a domain's chipset, if it has one.
pub(super) fn with<M: Machine, R>(
    hv: &Hypervisor<M>,
    domain: &Domain,
    work: impl FnOnce(&mut Chipset, u64, &mut Send<'_>) -> R,
) -> Option<R> {
    let platform = of(domain)?;
    let first = domain.vcpus.get()?.first()?;
    let mut state = platform.state.lock();
    let mut send = |message| apic::send(hv, domain, message);
    let mut send: Send<'_> = &mut send;
    let result = work(&mut state.chipset, hv.machine.now(), &mut send);
    let next = state.chipset.next_ns();
    if next != state.next {
        state.next = next;
        time::set_chipset(hv, first, next);
    }
    platform.passes.store(state.chipset.ioapic().passes_pic(), Ordering::Relaxed);
    let asks = state.chipset.pic_asks();
    let asked = platform.asks.swap(asks, Ordering::SeqCst);
    drop(state);
    let inbox = first.inbox.as_deref()?;
    if asks && !asked && takes_pic(platform, inbox) {
        sched::notify(hv, first);
    }
    Some(result)
}

fn takes_pic(platform: &Platform, inbox: &Inbox) -> bool {
    inbox.takes_pic() || platform.passes.load(Ordering::Relaxed)
}

/// Whether an interrupt of the 8259s waits for a vCPU: they are wired to the first.
pub(super) fn pic_waits(hvm: &HvmDomain, vcpu: &Vcpu, inbox: &Inbox) -> bool {
    let Some(platform) = hvm.platform.as_deref().filter(|_| vcpu.id.0 == 0) else {
        return false;
    };
    platform.asks.load(Ordering::SeqCst) && takes_pic(platform, inbox)
}

/// Takes the 8259s' interrupt.
pub(super) fn acknowledge<M: Machine>(hv: &Hypervisor<M>, domain: &Domain) -> Option<u8> {
    with(hv, domain, |chipset, _, _| chipset.acknowledge())
}

/// What a domain's devices do by themselves is due.
pub(crate) fn on_timer<M: Machine>(hv: &Hypervisor<M>, first: &Arc<Vcpu>) {
    with(hv, &first.domain, |chipset, now, send| chipset.advance(now, send));
}

/// A local APIC ended the interrupt of a level.
pub(super) fn ended<M: Machine>(hv: &Hypervisor<M>, domain: &Domain, vector: u8) {
    with(hv, domain, |chipset, _, send| chipset.ioapic().end(vector, send));
}

/// The offset in the I/O APIC's page, where a domain has one there.
pub(super) fn ioapic_offset(domain: &Domain, physical: u64) -> Option<u16> {
    (of(domain).is_some() && (BASE..BASE + BYTES).contains(&physical)).then(|| (physical - BASE) as u16)
}

/// Whether a domain has the devices of a PC: what nobody emulates floats then.
pub(super) fn is_whole(domain: &Domain) -> bool {
    of(domain).is_some()
}
