//! The other CPUs: starting them, having them do something at once, stopping them.
//!
//! They are started one after the other, each with the number of its block. Started, a CPU waits with interrupts off until
//! there is a hypervisor, and then lets the scheduler choose. A CPU that does not come in time is left out; its number
//! was taken back, so it stops if it comes after all (boot.s).
//!
//! Orders and the end come by non-maskable interrupts ([`hv::orders`]).
//!
//! Source: Intel MP specification 1.4 §B.4, AMD APM 2 §16.5 (starting), §8.1.3 (non-maskable interrupts).

use core::arch::asm;
use core::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use hv::hardware::{CpuSet, Flush, Machine};
use hv::orders::{Order, Orders};
use hv::{Hypervisor, hardware::CpuId};
use log::warn;
use spin::Once;
use x86_64::PhysAddr;
use x86_64::instructions::hlt;
use x86_64::registers::control::{Cr3, Cr3Flags};
use x86_64::structures::paging::PhysFrame;

use super::apic::{LocalApic, Signal};
use super::clock::{self, Clock};
use super::cpu::{self, Cpu};
use super::hardware::Hardware;
use super::layout::{DIRECT_MAP, PAGE};
use super::multiboot::MemoryRange;
use super::{context, entry, power, start};

/// The number of the CPU that is being started; 0 for none.
#[unsafe(no_mangle)]
static OTHER_CPU_NUMBER: AtomicU32 = AtomicU32::new(0);
/// CPUs that are up.
static UP: AtomicU32 = AtomicU32::new(1);
/// CPUs that let the scheduler choose.
static AT_WORK: AtomicU32 = AtomicU32::new(1);
static STOPPED: AtomicBool = AtomicBool::new(false);
static ORDERS: Orders = Orders::new();
static LOCAL_APIC: Once<&'static LocalApic> = Once::new();
static COMMON: Once<Common> = Once::new();
static HV: Once<&'static Hypervisor<Hardware>> = Once::new();

/// What all CPUs start with.
struct Common {
    /// The hypervisor's root table.
    root: u64,
    /// Timer ticks of the local APIC a millisecond, where its count-down is used.
    apic_khz: Option<u32>,
    /// Where the entries of each CPU's windows are.
    windows: alloc::vec::Vec<u64>,
}

/// How long a CPU may take to come.
const PATIENCE_NS: u64 = 2_000_000_000;
/// Between the two parts of a start, and between its two tries.
const RESET_NS: u64 = 10_000_000;
const RETRY_NS: u64 = 200_000_000;
/// How often a new CPU compares its time-stamp counter with the first one's.
const COMPARISONS: u32 = 5_000;
/// Where a page for their first instructions is looked for.
const LOW_PAGES: core::ops::Range<u64> = 0x8000..0x9_0000;

/// Starts the CPUs of a list but the first, which this is; gives those that run.
pub(super) fn start_others(
    cpus: &[([u8; 2], u64)],
    root: u64,
    apic: &'static LocalApic,
    clock: &Clock,
    memory: &[MemoryRange],
) -> alloc::vec::Vec<[u8; 2]> {
    LOCAL_APIC.call_once(|| apic);
    let windows = cpus.iter().map(|cpu| cpu.1).collect();
    COMMON.call_once(|| Common { root, apic_khz: clock.apic_khz, windows });
    let mut running = alloc::vec![cpus[0].0];
    let is_ram = |page: &u64| {
        memory.iter().any(|range| range.kind == MemoryRange::RAM && range.start <= *page && page + PAGE <= range.end())
    };
    let Some(page) = LOW_PAGES.step_by(PAGE as usize).find(is_ram).filter(|_| cpus.len() > 1) else {
        return running;
    };
    copy_first_instructions(page);
    for &(ids, _) in &cpus[1..] {
        if start(apic, clock, ids[0], (page / PAGE) as u8, running.len() as u32) {
            running.push(ids);
        } else {
            warn!("the processor with APIC {} does not start", ids[0]);
        }
    }
    running
}

fn copy_first_instructions(page: u64) {
    unsafe extern "C" {
        static other_cpu_start: u8;
        static other_cpu_end: u8;
    }
    let [from, end] = [&raw const other_cpu_start, &raw const other_cpu_end].map(|symbol| DIRECT_MAP + symbol as u64);
    // SAFETY: both are mapped with all RAM; what the boot loader left in low memory was read, and no guest has it.
    unsafe { core::ptr::copy_nonoverlapping(from as *const u8, (DIRECT_MAP + page) as *mut u8, (end - from) as usize) };
}

/// Starts one CPU as number `number`; whether it came.
fn start(apic: &LocalApic, clock: &Clock, id: u8, page: u8, number: u32) -> bool {
    let wait = |ns| {
        let end = clock.now() + ns;
        while UP.load(Ordering::Acquire) == number && clock.now() < end {
            clock::compare_counters();
        }
    };
    OTHER_CPU_NUMBER.store(number, Ordering::Release);
    apic.send(id, Signal::Init);
    wait(RESET_NS);
    for patience in [RETRY_NS, PATIENCE_NS] {
        if UP.load(Ordering::Acquire) == number {
            apic.send(id, Signal::Start(page));
            wait(patience);
        }
    }
    // Who has taken its number is on its way.
    if OTHER_CPU_NUMBER.swap(0, Ordering::AcqRel) == 0 {
        while UP.load(Ordering::Acquire) == number {
            core::hint::spin_loop();
        }
        return true;
    }
    false
}

/// Another CPU's first function, on the stack that the first CPU has left.
#[unsafe(no_mangle)]
extern "C" fn other_cpu(number: u32) -> ! {
    let Some(common) = COMMON.get() else { power::halt() };
    let root = PhysFrame::containing_address(PhysAddr::new(common.root));
    // SAFETY: the tables map the image where it runs, with the stack in use.
    unsafe { Cr3::write(root, Cr3Flags::empty()) };
    let windows = (DIRECT_MAP + common.windows[number as usize]) as *mut u64;
    // SAFETY: the block was prepared with all others; this stack holds nothing that is needed.
    unsafe { cpu::enter_block(number, windows, on_own_stack) }
}

extern "C" fn on_own_stack() -> ! {
    start::turn_on_features();
    if let (Some(apic), Some(common)) = (LOCAL_APIC.get(), COMMON.get()) {
        apic.start();
        apic.start_timer(common.apic_khz);
    }
    (0..COMPARISONS).for_each(|_| clock::compare_counters());
    UP.fetch_add(1, Ordering::Release);
    let hv = loop {
        if let Some(hv) = HV.get() {
            break *hv;
        }
        hlt();
    };
    Cpu::current().set_hv(hv);
    AT_WORK.fetch_add(1, Ordering::Release);
    entry::enter_first_guest(hv)
}

/// There is a hypervisor: the other CPUs go to work.
pub(super) fn release(hv: &'static Hypervisor<Hardware>) {
    HV.call_once(|| hv);
    // A CPU that was just about to halt misses the first call.
    while AT_WORK.load(Ordering::Acquire) < hv.machine.cpu_count() {
        hv.machine.local_apic.alarm_others();
        let end = hv.machine.now() + 1_000_000;
        while AT_WORK.load(Ordering::Acquire) < hv.machine.cpu_count() && hv.machine.now() < end {
            core::hint::spin_loop();
        }
    }
}

/// Has CPUs carry out an order, this one perhaps among them.
pub(super) fn order(machine: &Hardware, cpus: CpuSet, order: Order) {
    let here = machine.cpu();
    let others = cpus.without(here);
    if !others.is_empty() {
        ORDERS.give(others, order, |CpuId(cpu)| {
            machine.local_apic.send(machine.processors[cpu as usize][0], Signal::Nmi)
        });
    }
    if cpus.contains(here) {
        carry_out(order);
    }
}

fn carry_out(order: Order) {
    match order {
        Order::Forget(Flush::Page(address)) => context::flush_page(address),
        Order::Forget(Flush::All) => context::flush_all(),
        // SAFETY: writes back what is written anyway.
        Order::WriteBack => unsafe { asm!("wbinvd", options(nostack, preserves_flags)) },
    }
}

/// A non-maskable interrupt came.
pub(super) fn follow_orders() {
    if STOPPED.load(Ordering::Acquire) {
        power::halt();
    }
    ORDERS.follow(CpuId(Cpu::current().id), carry_out);
}

/// Stops all other CPUs, for good.
pub(super) fn stop_others() {
    if let Some(apic) = LOCAL_APIC.get()
        && UP.load(Ordering::Acquire) > 1
    {
        STOPPED.store(true, Ordering::Release);
        apic.alarm_others();
    }
}
