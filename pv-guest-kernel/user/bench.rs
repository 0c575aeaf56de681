//! The workloads of `cargo xtask compare` that a user program can be: each runs once unmeasured, then [`ROUNDS`] times
//! between marks, so that one of them is without what the rest of the machine does now and then. A line for each:
//! `bench: WINDOW NAME OPERATIONS NANOSECONDS ENTRIES`, where the last is how many entries of page tables the kernel wrote.
//! The argument multiplies the operations.
#![no_std]
#![no_main]

#[path = "mark.rs"]
mod mark;
mod sys;

use core::hint::black_box;

use sys::{abi, call};

const PAGE: usize = 4096;
const ROUNDS: usize = 3;
const SETTLE_NS: u64 = 5_000_000;

fn main(arguments: &str) -> i32 {
    let scale: u64 = arguments.trim().parse().unwrap_or(1);
    measure::<1>("null_syscall", 500 * scale, |times| repeat(times, || call(abi::GETPID, 0, 0, 0) > 0));
    page_fault(scale);
    measure::<3>("mmap_munmap_1mib", 4 * scale, |times| repeat(times, map_and_unmap));
    measure::<4>("fork_exit", 8 * scale, |times| repeat(times, || in_child(|| 0) == 0));
    measure::<5>("fork_exec", 8 * scale, |times| repeat(times, || in_child(|| exec("nothing")) == 0));
    switch::<6>("context_switch_2", 2, 100 * scale);
    switch::<7>("context_switch_16", 16, 20 * scale);
    measure::<8>("timer_interrupt", 40 * scale, |times| repeat(times, || call(abi::SLEEP, 200_000, 0, 0) == 0));
    walks(scale);
    measure::<11>("arithmetic", 20_000 * scale, arithmetic);
    measure::<12>("compile_mix", scale, |times| repeat(times, || in_child(|| exec("mix")) == 0));
    0
}

/// Runs `body`, which says whether all went well, without and with marks around it.
fn measure<const WINDOW: u8>(name: &str, operations: u64, mut body: impl FnMut(u64) -> bool) {
    let warm = body(operations.div_ceil(4));
    for _ in 0..ROUNDS {
        measure_once::<WINDOW>(name, operations, || warm && body(operations));
    }
}

fn measure_once<const WINDOW: u8>(name: &str, operations: u64, body: impl FnOnce() -> bool) {
    // What the line before has left to do elsewhere is done by then.
    call(abi::SLEEP, SETTLE_NS, 0, 0);
    let entries = call(abi::ENTRIES, 0, 0, 0);
    let start = call(abi::TIME, 0, 0, 0);
    mark::begin::<WINDOW>();
    let good = body();
    mark::end::<WINDOW>();
    let took = call(abi::TIME, 0, 0, 0) - start;
    let entries = call(abi::ENTRIES, 0, 0, 0) - entries;
    if good {
        say!("bench: {WINDOW} {name} {operations} {took} {entries}");
    } else {
        say!("bench: {WINDOW} {name} failed");
    }
}

fn repeat(times: u64, mut operation: impl FnMut() -> bool) -> bool {
    (0..times).all(|_| operation())
}

fn map(len: usize) -> Option<*mut u8> {
    let addr = call(abi::MMAP, len as u64, 1, 0);
    (addr > 0).then_some(addr as *mut u8)
}

fn unmap(area: *mut u8, len: usize) -> bool {
    call(abi::MUNMAP, area as u64, len as u64, 0) == 0
}

/// Writes to the first byte of each page.
fn touch(area: *mut u8, pages: usize) -> bool {
    for page in 0..pages {
        // SAFETY: callers pass an area of so many pages that they have mapped.
        unsafe { area.add(page * PAGE).write_volatile(1) };
    }
    true
}

/// First touches of mapped pages.
fn page_fault(scale: u64) {
    let pages = 128 * scale as usize;
    for round in 0..=ROUNDS {
        let Some(area) = map(pages * PAGE) else { return };
        if round > 0 {
            measure_once::<2>("page_fault", pages as u64, || touch(area, pages));
        } else {
            touch(area, pages);
        }
        unmap(area, pages * PAGE);
    }
}

fn map_and_unmap() -> bool {
    const MIB: usize = 1 << 20;
    map(MIB).is_some_and(|area| touch(area, MIB / PAGE) && unmap(area, MIB))
}

/// Runs `child` in a child process; how it ended.
fn in_child(child: impl FnOnce() -> i32) -> i32 {
    let pid = call(abi::FORK, 0, 0, 0);
    if pid == 0 {
        sys::exit(child());
    }
    let mut status = -1_i32;
    let ended = call(abi::WAIT, pid as u64, &raw mut status as u64, 0);
    if pid > 0 && ended == pid { status } else { -2 }
}

fn exec(program: &str) -> i32 {
    call(abi::EXEC, program.as_ptr() as u64, program.len() as u64, 0);
    1
}

/// So many processes give way to each other in a circle.
fn switch<const WINDOW: u8>(name: &str, processes: usize, rounds: u64) {
    let mut children = [0_i64; 15];
    let children = &mut children[..processes - 1];
    for child in children.iter_mut() {
        *child = call(abi::FORK, 0, 0, 0);
        if *child == 0 {
            loop {
                call(abi::YIELD, 0, 0, 0);
            }
        }
    }
    // All have written to their stacks before it starts.
    repeat(4, || call(abi::YIELD, 0, 0, 0) == 0);
    let operations = rounds * processes as u64;
    for _ in 0..ROUNDS {
        measure_once::<WINDOW>(name, operations, || repeat(rounds, || call(abi::YIELD, 0, 0, 0) == 0));
    }
    for child in children {
        call(abi::KILL, *child as u64, 0, 0);
        call(abi::WAIT, *child as u64, 0, 0);
    }
}

/// Reads a word of each page in turn: pages that a TLB holds, and many more than it holds.
fn walks(scale: u64) {
    const PAGES: usize = 2048;
    let Some(area) = map(PAGES * PAGE) else { return };
    touch(area, PAGES);
    let accesses = 4096 * scale;
    measure::<9>("walk_few_misses", accesses, |times| walk(area, 16, times));
    measure::<10>("walk_many_misses", accesses, |times| walk(area, PAGES, times));
    unmap(area, PAGES * PAGE);
}

fn walk(area: *mut u8, pages: usize, accesses: u64) -> bool {
    let mut sum = 0_u64;
    for access in 0..accesses as usize {
        // Another line of the cache in each page, so that the TLB is what is short.
        let offset = access % pages * PAGE + access % 61 * 64;
        // SAFETY: inside an area of `pages` pages at least.
        sum += u64::from(unsafe { area.add(offset).read_volatile() });
    }
    sum <= accesses
}

fn arithmetic(times: u64) -> bool {
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    for round in 0..times {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(round);
        state ^= state >> 33;
    }
    black_box(state) != 0
}
