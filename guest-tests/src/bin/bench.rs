//! Counts instructions per operation, from the guest and back.
//!
//! It runs under `-icount shift=5`, where each instruction lasts 32 ns and the time-stamp counter counts nanoseconds. Each
//! operation is measured in batches; the cheapest batch is the one that no timer interrupted. What a loop of nothing
//! costs is taken off.
#![no_std]
#![no_main]
#![expect(unsafe_code, reason = "privileged instructions are what is measured")]

use core::arch::asm;
use core::sync::atomic::{AtomicU64, Ordering};

use guest_tests::{
    A, D, P, Page, RW, guest_test, hypercall, map_shared_info, operation, say,
    skip_invalid_opcodes, tsc, update_va_mapping,
};
use pv_abi::event_channel::{
    EVTCHNOP_ALLOC_UNBOUND, EVTCHNOP_BIND_INTERDOMAIN, EVTCHNOP_CLOSE, EVTCHNOP_SEND,
    EvtchnAllocUnbound, EvtchnBindInterdomain, EvtchnClose, EvtchnSend,
};
use pv_abi::sched::SCHEDOP_YIELD;
use pv_abi::xen::{
    DOMID_SELF, HYPERVISOR_EVENT_CHANNEL_OP, HYPERVISOR_MULTICALL, HYPERVISOR_SCHED_OP,
    HYPERVISOR_XEN_VERSION, MulticallEntry,
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
    say!("bench: done");
}

fn events() {
    let mut unbound = EvtchnAllocUnbound {
        dom: DOMID_SELF,
        remote_dom: DOMID_SELF,
        ..Default::default()
    };
    operation(
        HYPERVISOR_EVENT_CHANNEL_OP,
        EVTCHNOP_ALLOC_UNBOUND,
        &mut unbound,
    );
    let mut bound = EvtchnBindInterdomain {
        remote_dom: DOMID_SELF,
        remote_port: unbound.port,
        ..Default::default()
    };
    operation(
        HYPERVISOR_EVENT_CHANNEL_OP,
        EVTCHNOP_BIND_INTERDOMAIN,
        &mut bound,
    );
    mask(unbound.port);
    mask(bound.local_port);
    let mut send = EvtchnSend {
        port: bound.local_port,
    };
    measure("evtchn_send", || {
        operation(HYPERVISOR_EVENT_CHANNEL_OP, EVTCHNOP_SEND, &mut send);
    });
    measure("evtchn_alloc_close", || {
        let mut unbound = EvtchnAllocUnbound {
            dom: DOMID_SELF,
            remote_dom: DOMID_SELF,
            ..Default::default()
        };
        operation(
            HYPERVISOR_EVENT_CHANNEL_OP,
            EVTCHNOP_ALLOC_UNBOUND,
            &mut unbound,
        );
        let mut close = EvtchnClose { port: unbound.port };
        operation(HYPERVISOR_EVENT_CHANNEL_OP, EVTCHNOP_CLOSE, &mut close);
    });
}

fn mask(port: u32) {
    let shared = map_shared_info();
    // SAFETY: The page was just mapped; the word is shared with the hypervisor, so it is changed atomically.
    let word = unsafe { AtomicU64::from_ptr(&raw mut (*shared).evtchn_mask[port as usize / 64]) };
    word.fetch_or(1 << (port % 64), Ordering::SeqCst);
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
