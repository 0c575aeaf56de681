//! The workloads of `cargo xtask compare`: what one kernel does, on each platform, between two marks.
//!
//! The program `user/bench.rs` does what a process can; here is what only a kernel can: hypercalls, interrupts to itself,
//! events, the disk and the network. Each prints a line as that program does, or `bench: WINDOW NAME - REASON` where the
//! platform has nothing to measure.

mod block;
mod events;
mod net;

pub(crate) use events::pong;

use alloc::string::{String, ToString};

use pv_guest_kernel::mm::mmu::entries_written;
use pv_guest_kernel::platform::{self, pv};
use pv_guest_kernel::task::{self, scheduler};
use pv_guest_kernel::time::{MILLISECOND_NS, now_ns};
use pv_guest_kernel::{mark, println, process};

/// How often each is measured, so that one time is without what the rest of the machine does now and then.
const ROUNDS: usize = 3;
/// Before a window: what the line before has left to do elsewhere is done by then.
const SETTLE_NS: u64 = 5 * MILLISECOND_NS;

/// What a workload did, or why it could not.
type Outcome = Result<(), String>;

/// `bench [SCALE [PART [URL [DOMAIN]]]]`: SCALE multiplies the operations; PART is `cpu`, `devices` or `all`; in DOMAIN
/// another guest runs `pong`.
pub(crate) fn bench(arguments: &[String]) -> i32 {
    let scale: u64 = arguments.first().and_then(|text| text.parse().ok()).unwrap_or(1);
    let part = arguments.get(1).map_or("all", String::as_str);
    let has_cpu = matches!(part, "cpu" | "all");
    let channel = has_cpu.then(|| events::channel(arguments.get(3).map(String::as_str)));
    println!("bench: ready");
    if let Some(channel) = channel {
        cpu(scale);
        events::bench(scale, &channel);
    }
    if matches!(part, "devices" | "all") {
        block::bench(scale);
        net::bench(scale, arguments.get(2).map(String::as_str));
    }
    println!("bench: done");
    0
}

fn cpu(scale: u64) {
    match process::start("bench", &scale.to_string()) {
        Ok(process) => {
            process.wait();
        }
        Err(error) => println!("bench: {error}"),
    }
    measure::<13>("hypercall", 500 * scale, hypercalls);
    measure::<23>("cpuid", 500 * scale, cpuids);
    measure::<14>("ipi", 200 * scale, calls);
}

/// Runs `body` for a quarter of the operations, then [`ROUNDS`] times for all of them between marks.
fn measure<const WINDOW: u8>(name: &str, operations: u64, mut body: impl FnMut(u64) -> Outcome) {
    let warm = body(operations.div_ceil(4));
    if let Err(reason) = warm {
        println!("bench: {WINDOW} {name} - {reason}");
        return;
    }
    for _ in 0..ROUNDS {
        measure_once::<WINDOW>(name, operations, &mut body);
    }
}

fn measure_once<const WINDOW: u8>(name: &str, operations: u64, body: &mut impl FnMut(u64) -> Outcome) {
    task::sleep_ns(SETTLE_NS);
    let entries = entries_written();
    let start = now_ns();
    mark::begin::<WINDOW>();
    let outcome = body(operations);
    mark::end::<WINDOW>();
    let took = now_ns() - start;
    let entries = entries_written() - entries;
    match outcome {
        Ok(()) => println!("bench: {WINDOW} {name} {operations} {took} {entries}"),
        Err(reason) => println!("bench: {WINDOW} {name} - {reason}"),
    }
}

/// The hypercall that does least.
fn hypercalls(times: u64) -> Outcome {
    if !platform::is_xen() {
        return Err("a bare machine has no hypervisor to call".to_string());
    }
    for _ in 0..times {
        core::hint::black_box(pv::hypercall::version());
    }
    Ok(())
}

/// The instruction itself, which a hypervisor with hardware assistance carries out; in ring 3 the CPU does.
fn cpuids(times: u64) -> Outcome {
    for _ in 0..times {
        core::hint::black_box(core::arch::x86_64::__cpuid(0));
    }
    Ok(())
}

/// Interrupts from this CPU to itself, each seen before the next.
fn calls(times: u64) -> Outcome {
    let platform = platform::current();
    let before = scheduler::calls_heard();
    for _ in 0..times {
        platform.kick(0);
    }
    let seen = scheduler::calls_heard() - before;
    if seen < times { Err(alloc::format!("{seen} of {times} interrupts came")) } else { Ok(()) }
}
