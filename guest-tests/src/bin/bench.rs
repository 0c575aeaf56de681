//! Counts instructions per operation, from the guest and back.
//!
//! It runs under `-icount shift=5`, where each instruction lasts 32 ns and the time-stamp counter counts nanoseconds. Each
//! operation is measured in batches; the cheapest batch is the one that no timer interrupted. What a loop of nothing
//! costs is taken off.
#![no_std]
#![no_main]
#![expect(unsafe_code, reason = "privileged instructions are what is measured")]

use core::arch::asm;
use core::cell::UnsafeCell;
use core::mem::MaybeUninit;
use core::sync::atomic::{AtomicU64, Ordering};

use guest_tests::child::{self, Child, domctl};
use guest_tests::{
    A, D, P, Page, RW, Shared, TrapFrame, entry_address, guest_test, hypercall, map_shared_info, on_trap, operation,
    say, skip_invalid_opcodes, tsc, update_va_mapping, write_at,
};
use pv_abi::domctl::{DomctlCreatedomain, DomctlMaxMem, XEN_DOMCTL_MAX_MEM};
use pv_abi::event_channel::{
    EVTCHNOP_ALLOC_UNBOUND, EVTCHNOP_BIND_INTERDOMAIN, EVTCHNOP_BIND_VIRQ, EVTCHNOP_CLOSE, EVTCHNOP_RESET,
    EVTCHNOP_SEND, EvtchnAllocUnbound, EvtchnBindInterdomain, EvtchnBindVirq, EvtchnClose, EvtchnReset, EvtchnSend,
};
use pv_abi::grant_table::{GNTST_OKAY, GNTTABOP_SET_VERSION, GNTTABOP_SETUP_TABLE, GnttabSetVersion, GnttabSetupTable};
use pv_abi::memory::{
    MemoryExchange, MemoryReservation, XENMEM_DECREASE_RESERVATION, XENMEM_EXCHANGE, XENMEM_INCREASE_RESERVATION,
    XENMEM_POPULATE_PHYSMAP,
};
use pv_abi::sched::{SCHEDOP_YIELD, SHUTDOWN_CRASH};
use pv_abi::vcpu::{VCPUOP_SET_SINGLESHOT_TIMER, VCPUOP_STOP_PERIODIC_TIMER, VcpuSetSingleshotTimer};
use pv_abi::xen::{
    DOMID_SELF, HYPERVISOR_EVENT_CHANNEL_OP, HYPERVISOR_GRANT_TABLE_OP, HYPERVISOR_MEMORY_OP, HYPERVISOR_MMU_UPDATE,
    HYPERVISOR_MMUEXT_OP, HYPERVISOR_MULTICALL, HYPERVISOR_SCHED_OP, HYPERVISOR_UPDATE_VA_MAPPING, HYPERVISOR_VCPU_OP,
    HYPERVISOR_XEN_VERSION, MMUEXT_PIN_L1_TABLE, MMUEXT_UNPIN_TABLE, MmuUpdate, MmuextOp, MulticallEntry,
};

guest_test!(bench);

const TICKS_PER_INSTRUCTION: u64 = 32;
const BATCHES: u32 = 40;
const INVLPG: u64 = 2;

static TARGET: Page = Page::new();

/// The instructions of one `operation`, with `calls` of them a batch.
#[inline(always)]
fn count(calls: u64, mut operation: impl FnMut()) -> u64 {
    let mut best = u64::MAX;
    for _ in 0..BATCHES {
        let start = tsc();
        for _ in 0..calls {
            operation();
        }
        best = best.min(tsc() - start);
    }
    best / TICKS_PER_INSTRUCTION
}

#[inline(always)]
fn measure(name: &str, operation: impl FnMut()) {
    const CALLS: u64 = 16;
    let loop_alone = count(CALLS, || {
        // SAFETY: An empty block keeps the loop from being optimised away.
        unsafe { asm!("", options(nomem, nostack)) }
    });
    let total = count(CALLS, operation);
    say!("bench: {name} {}", (total - loop_alone + CALLS / 2) / CALLS);
}

fn bench() {
    measure("xen_version", || {
        hypercall(HYPERVISOR_XEN_VERSION, [0; 5]);
    });
    events();
    multicall();
    mappings();
    instructions();
    measure("yield", || {
        hypercall(HYPERVISOR_SCHED_OP, [u64::from(SCHEDOP_YIELD), 0, 0, 0, 0]);
    });
    latencies();
    say!("bench: done");
}

/// How late a timer's upcall may come while the guest keeps the hypervisor busy, in instructions: the longest that
/// interrupts are off, plus the way from the interrupt to the guest.
fn latencies() {
    let shared = map_shared_info();
    let mut virq = EvtchnBindVirq::default();
    operation(HYPERVISOR_EVENT_CHANNEL_OP, EVTCHNOP_BIND_VIRQ, &mut virq);
    shared.set_mask(virq.port, false);
    hypercall(HYPERVISOR_VCPU_OP, [u64::from(VCPUOP_STOP_PERIODIC_TIMER), 0, 0, 0, 0]);
    on_trap(note_upcall);

    let entry = entry_address(TARGET.va());
    let value = TARGET.mfn() << 12 | P | RW | A | D;
    let updates = LONG.mmu_updates(|index| MmuUpdate { ptr: entry, val: value & !(RW * (index as u64 & 1)) });
    latency(shared, virq.port, "mmu_update of 8192", || {
        hypercall(HYPERVISOR_MMU_UPDATE, [updates, LONG_UPDATES as u64, 0, u64::from(DOMID_SELF), 0]);
    });
    let calls = LONG.calls(|index| MulticallEntry {
        op: HYPERVISOR_UPDATE_VA_MAPPING,
        args: [TARGET.va(), value & !(RW * (index as u64 & 1)), INVLPG, 0, 0, 0],
        ..MulticallEntry::default()
    });
    latency(shared, virq.port, "multicall of 2048 mappings", || {
        hypercall(HYPERVISOR_MULTICALL, [calls, LONG_CALLS as u64, 0, 0, 0]);
    });
    let table = TABLE.va();
    for index in 0..512 {
        let _ = write_at(table + index * 8, TARGET.mfn() << 12 | P | A);
    }
    update_va_mapping(table, TABLE.mfn() << 12 | P | A, INVLPG);
    let pins = LONG.pins(|index| MmuextOp {
        cmd: if index & 1 == 0 { MMUEXT_PIN_L1_TABLE } else { MMUEXT_UNPIN_TABLE },
        arg1: TABLE.mfn(),
        ..MmuextOp::default()
    });
    latency(shared, virq.port, "pin and unpin of a full table, 64 times", || {
        hypercall(HYPERVISOR_MMUEXT_OP, [pins, LONG_PINS as u64, 0, u64::from(DOMID_SELF), 0]);
    });
    memory_latencies(shared, virq.port);
    grant_latency(shared, virq.port);
    domain_latencies(shared, virq.port);
}

/// Entries of another form for a table as large as it may be.
fn grant_latency(shared: Shared, port: u32) {
    const FRAMES: usize = 64;
    let mut list = [0_u64; FRAMES];
    let mut table = GnttabSetupTable {
        dom: DOMID_SELF,
        nr_frames: FRAMES as u32,
        frame_list: list.as_mut_ptr() as u64,
        ..Default::default()
    };
    let result = hypercall(HYPERVISOR_GRANT_TABLE_OP, [GNTTABOP_SETUP_TABLE.into(), address(&mut table), 1, 0, 0]);
    assert!((result, table.status) == (0, GNTST_OKAY), "setup_table: {result}, {}", table.status);
    latency(shared, port, "set_version of a table of 64 frames, to 2 and back", || {
        for version in [2, 1] {
            let mut asked = GnttabSetVersion { version };
            let arguments = [GNTTABOP_SET_VERSION.into(), address(&mut asked), 1, 0, 0];
            let result = hypercall(HYPERVISOR_GRANT_TABLE_OP, arguments);
            assert!((result, asked.version) == (0, version), "set_version {version}: {result}");
        }
    });
}

/// Domains that come and go.
fn domain_latencies(shared: Shared, port: u32) {
    const NUMBER: u16 = 7;
    latency(shared, port, "making and destroying a domain with 2048 frames and 1000 ports", || {
        let config = DomctlCreatedomain { max_evtchn_port: 1023, ..child::usual() };
        let Some(child) = Child::made_as(NUMBER, config) else {
            panic!("a domain cannot be made");
        };
        let limit = domctl(XEN_DOMCTL_MAX_MEM, NUMBER, &mut DomctlMaxMem { max_memkb: 9216 });
        let mut more = MemoryReservation {
            domid: NUMBER,
            extent_start: LONG.fill(FRAMES_OF_CHILD, |n| 100 + n as u64),
            nr_extents: FRAMES_OF_CHILD as u64,
            ..Default::default()
        };
        memory_op(XENMEM_POPULATE_PHYSMAP, &mut more, FRAMES_OF_CHILD as i64);
        for _ in 0..1000 {
            let mut unbound = EvtchnAllocUnbound { dom: NUMBER, remote_dom: DOMID_SELF, ..Default::default() };
            operation(HYPERVISOR_EVENT_CHANNEL_OP, EVTCHNOP_ALLOC_UNBOUND, &mut unbound);
        }
        let reset = operation(HYPERVISOR_EVENT_CHANNEL_OP, EVTCHNOP_RESET, &mut EvtchnReset { dom: NUMBER });
        let gone = child.destroy();
        assert!((limit, reset, gone) == (0, 0, 0), "{limit}, {reset}, {gone}");
    });
    latency(shared, port, "the crash of a domain, and its report", || {
        let Some(child) = Child::new(NUMBER) else {
            panic!("a domain cannot be made");
        };
        child.start();
        let answer = child.call(child::CRASH, [0; 5]);
        assert!(answer.is_none() && child.end() == Some(SHUTDOWN_CRASH), "it did not crash: {answer:?}");
        child.destroy();
    });
}

/// Blocks of memory, got, given back and exchanged.
fn memory_latencies(shared: Shared, port: u32) {
    let mut block = [0_u64; 1];
    let mut got = reservation(&mut block, 8);
    latency(shared, port, "getting and giving back a block of 256 frames", || {
        memory_op(XENMEM_POPULATE_PHYSMAP, &mut got, 1);
        memory_op(XENMEM_DECREASE_RESERVATION, &mut got, 1);
    });
    let mut frames = [0_u64; 256];
    let mut singles = reservation(&mut frames, 0);
    memory_op(XENMEM_INCREASE_RESERVATION, &mut singles, 256);
    let whole = reservation(&mut block, 8);
    latency(shared, port, "exchanging 256 frames for a block and back", || {
        for (in_, out) in [(singles, whole), (whole, singles)] {
            let mut exchange = MemoryExchange { in_, out, nr_exchanged: 0 };
            memory_op(XENMEM_EXCHANGE, &mut exchange, 0);
            assert!(exchange.nr_exchanged == in_.nr_extents, "exchanged {}", exchange.nr_exchanged);
        }
    });
}

/// An operation that is refused is not what is to be measured.
fn memory_op<T>(command: u32, argument: &mut T, expected: i64) {
    let result = hypercall(HYPERVISOR_MEMORY_OP, [command.into(), address(argument), 0, 0, 0]);
    assert!(result == expected, "memory_op {command}: {result}");
}

fn reservation(list: &mut [u64], order: u32) -> MemoryReservation {
    MemoryReservation {
        extent_start: list.as_mut_ptr() as u64,
        nr_extents: list.len() as u64,
        extent_order: order,
        domid: DOMID_SELF,
        ..Default::default()
    }
}

fn address<T>(value: &mut T) -> u64 {
    core::ptr::from_mut(value) as u64
}

/// How many moments an operation is interrupted at.
const LATENCY_STEPS: u64 = 61;
const LONG_UPDATES: usize = 8192;
const LONG_CALLS: usize = 2048;
const LONG_PINS: usize = 128;
const FRAMES_OF_CHILD: usize = 2040;
static TABLE: Page = Page::new();
static UPCALL_AT: AtomicU64 = AtomicU64::new(0);

/// Room for the arguments of a long operation.
#[repr(align(4096))]
struct Long(UnsafeCell<[u8; 128 * 1024]>);
// SAFETY: One vCPU, and the hypervisor touches it only during a hypercall.
unsafe impl Sync for Long {}
static LONG: Long = Long(UnsafeCell::new([0; 128 * 1024]));

impl Long {
    fn fill<T>(&self, count: usize, mut element: impl FnMut(usize) -> T) -> u64 {
        assert!(count * size_of::<T>() <= 128 * 1024, "too long");
        let place = self.0.get().cast::<T>();
        // SAFETY: The room is aligned, large enough, never empty of valid bytes, and nothing else refers to it.
        let elements = unsafe { core::slice::from_raw_parts_mut(place.cast::<MaybeUninit<T>>(), count) };
        for (index, place) in elements.iter_mut().enumerate() {
            place.write(element(index));
        }
        place as u64
    }

    fn mmu_updates(&self, element: impl FnMut(usize) -> MmuUpdate) -> u64 {
        self.fill(LONG_UPDATES, element)
    }

    fn calls(&self, element: impl FnMut(usize) -> MulticallEntry) -> u64 {
        self.fill(LONG_CALLS, element)
    }

    fn pins(&self, element: impl FnMut(usize) -> MmuextOp) -> u64 {
        self.fill(LONG_PINS, element)
    }
}

fn note_upcall(frame: &mut TrapFrame) -> bool {
    if frame.vector == 256 {
        UPCALL_AT.store(tsc(), Ordering::Relaxed);
        return true;
    }
    false
}

/// Does the operation with a timer that ends at moments spread over the time that it takes; the latest upcall counts.
fn latency(shared: Shared, port: u32, name: &str, mut operation: impl FnMut()) {
    let start = tsc();
    operation();
    let takes_ns = tsc() - start;
    let mut worst = 0;
    let mask = &shared.vcpu().evtchn_upcall_mask;
    for step in 1..=LATENCY_STEPS {
        let delay = takes_ns * step / LATENCY_STEPS;
        mask.store(0, Ordering::SeqCst);
        UPCALL_AT.store(0, Ordering::SeqCst);
        let start = tsc();
        let mut shot = VcpuSetSingleshotTimer { timeout_abs_ns: shared.now() + delay, ..Default::default() };
        let place = core::ptr::from_mut(&mut shot) as u64;
        hypercall(HYPERVISOR_VCPU_OP, [u64::from(VCPUOP_SET_SINGLESHOT_TIMER), 0, place, 0, 0]);
        operation();
        mask.store(1, Ordering::SeqCst);
        shared.clear(port);
        let at = UPCALL_AT.load(Ordering::SeqCst);
        if at != 0 {
            worst = worst.max((at - start).saturating_sub(delay) / TICKS_PER_INSTRUCTION);
        }
    }
    say!("latency: {worst} {name}");
}

fn events() {
    let mut unbound = EvtchnAllocUnbound { dom: DOMID_SELF, remote_dom: DOMID_SELF, ..Default::default() };
    operation(HYPERVISOR_EVENT_CHANNEL_OP, EVTCHNOP_ALLOC_UNBOUND, &mut unbound);
    let mut bound = EvtchnBindInterdomain { remote_dom: DOMID_SELF, remote_port: unbound.port, ..Default::default() };
    operation(HYPERVISOR_EVENT_CHANNEL_OP, EVTCHNOP_BIND_INTERDOMAIN, &mut bound);
    mask(unbound.port);
    mask(bound.local_port);
    let mut send = EvtchnSend { port: bound.local_port };
    measure("evtchn_send", || {
        operation(HYPERVISOR_EVENT_CHANNEL_OP, EVTCHNOP_SEND, &mut send);
    });
    measure("evtchn_alloc_close", || {
        let mut unbound = EvtchnAllocUnbound { dom: DOMID_SELF, remote_dom: DOMID_SELF, ..Default::default() };
        operation(HYPERVISOR_EVENT_CHANNEL_OP, EVTCHNOP_ALLOC_UNBOUND, &mut unbound);
        let mut close = EvtchnClose { port: unbound.port };
        operation(HYPERVISOR_EVENT_CHANNEL_OP, EVTCHNOP_CLOSE, &mut close);
    });
}

fn mask(port: u32) {
    map_shared_info().set_mask(port, true);
}

fn multicall() {
    let mut entries = [MulticallEntry::default(); 32];
    for entry in &mut entries {
        entry.op = HYPERVISOR_XEN_VERSION;
    }
    let place = entries.as_mut_ptr() as u64;
    measure("multicall_32", || {
        hypercall(HYPERVISOR_MULTICALL, [place, 32, 0, 0, 0]);
    });
}

fn mappings() {
    let va = TARGET.va();
    let writable = TARGET.mfn() << 12 | P | RW | A | D;
    let readonly = writable & !RW;
    let check = |result: i64| assert!(result == 0, "update_va_mapping: {result}");
    check(update_va_mapping(va, writable, INVLPG));
    measure("update_va_mapping_same", || {
        update_va_mapping(va, writable, INVLPG);
    });
    measure("update_va_mapping_ro_rw", || {
        update_va_mapping(va, readonly, INVLPG);
        update_va_mapping(va, writable, INVLPG);
    });
    check(update_va_mapping(va, 0, INVLPG));
    check(update_va_mapping(va, writable, INVLPG));
    measure("update_va_mapping_unmap_map", || {
        update_va_mapping(va, 0, INVLPG);
        update_va_mapping(va, writable, INVLPG);
    });
}

fn instructions() {
    measure("cpuid_forced", || {
        // SAFETY: The prefix makes the hypervisor emulate `cpuid`, which changes these four registers.
        unsafe {
            asm!(
                "push rbx", ".byte 0x0f, 0x0b, 0x78, 0x65, 0x6e, 0x0f, 0xa2", "pop rbx",
                inout("eax") 1 => _, inout("ecx") 0 => _, out("edx") _,
            );
        }
    });
    measure("cr0_read", || {
        // SAFETY: Reading CR0 from ring 3 is emulated.
        unsafe { asm!("mov {}, cr0", out(reg) _, options(nomem, nostack)) }
    });
    skip_invalid_opcodes();
    measure("ud_bounce_iret", || {
        // SAFETY: The handler that was just registered skips the instruction.
        unsafe { asm!("ud2", out("rcx") _, out("r11") _) }
    });
}
