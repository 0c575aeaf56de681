//! Exercises every system call and says what does not work. Exit status 0 when everything does.
#![no_std]
#![no_main]

mod sys;

use sys::{abi, call};

const PAGE: usize = 4096;

fn main(_arguments: &str) -> i32 {
    let checks: [(&str, fn() -> bool); 9] = [
        ("demand paging", demand_paging),
        ("brk", brk),
        ("fork copies on write", fork_copies),
        ("wait returns the status", wait_status),
        ("a bad access ends the process alone", bad_access),
        ("text is not writable, data not executable", protection),
        ("kill", kill),
        ("sleep and time", sleep),
        ("exec", exec),
    ];
    let mut failed = 0;
    for (name, check) in checks {
        let good = check();
        say!("selftest: {name}: {}", if good { "ok" } else { "FAILED" });
        failed += i32::from(!good);
    }
    failed
}

fn resident() -> i64 {
    call(abi::USAGE, 0, 0, 0) >> 32
}

fn map(len: usize) -> *mut u8 {
    call(abi::MMAP, len as u64, 1, 0) as *mut u8
}

fn poke(addr: *mut u8, value: u8) {
    // SAFETY: callers pass addresses of their own, or want the fault.
    unsafe { addr.write_volatile(value) }
}

fn peek(addr: *const u8) -> u8 {
    // SAFETY: callers pass addresses of their own, or want the fault.
    unsafe { addr.read_volatile() }
}

fn demand_paging() -> bool {
    let before = resident();
    let area = map(64 * PAGE);
    let none = resident() == before;
    for page in [0, 17, 63] {
        poke(area.wrapping_add(page * PAGE), 1);
    }
    let three = resident() == before + 3;
    let zero = peek(area.wrapping_add(5 * PAGE + 9)) == 0;
    let gone = call(abi::MUNMAP, area as u64, (64 * PAGE) as u64, 0) == 0 && resident() == before;
    none && three && zero && gone
}

fn brk() -> bool {
    let start = call(abi::BRK, 0, 0, 0) as usize;
    let end = start + 5 * PAGE;
    if call(abi::BRK, end as u64, 0, 0) as usize != end {
        return false;
    }
    poke((end - 1) as *mut u8, 7);
    let good = peek((end - 1) as *const u8) == 7;
    good && call(abi::BRK, start as u64, 0, 0) as usize == start
}

/// Runs `child` in a child process and returns how it ended.
fn in_child(child: impl FnOnce() -> i32) -> i32 {
    let pid = call(abi::FORK, 0, 0, 0);
    if pid == 0 {
        sys::exit(child());
    }
    let mut status = -1_i32;
    let ended = call(abi::WAIT, pid as u64, &raw mut status as u64, 0);
    if ended == pid { status } else { -2 }
}

fn fork_copies() -> bool {
    let area = map(8 * PAGE);
    for page in 0..8 {
        poke(area.wrapping_add(page * PAGE), page as u8);
    }
    let status = in_child(|| {
        let same = (0..8).all(|page| peek(area.wrapping_add(page * PAGE)) == page as u8);
        for page in 0..8 {
            poke(area.wrapping_add(page * PAGE), 99);
        }
        i32::from(!same)
    });
    status == 0 && (0..8).all(|page| peek(area.wrapping_add(page * PAGE)) == page as u8)
}

fn wait_status() -> bool {
    let parent = call(abi::GETPID, 0, 0, 0);
    let status = in_child(|| i32::from(call(abi::GETPPID, 0, 0, 0) == parent) + 41);
    status == 42 && call(abi::WAIT, 0, 0, 0) == -abi::ECHILD
}

fn bad_access() -> bool {
    let null = in_child(|| i32::from(peek(core::ptr::null())));
    let kernel = in_child(|| i32::from(peek(0xffff_ffff_8010_0000_usize as *const u8)));
    let hypervisor = in_child(|| i32::from(peek(0xffff_8300_0000_0000_usize as *const u8)));
    let expected = abi::STATUS_KILLED + abi::REASON_FAULT;
    [null, kernel, hypervisor] == [expected; 3] && call(abi::WRITE, 1, 8, 5) == -abi::EFAULT
}

fn protection() -> bool {
    let expected = abi::STATUS_KILLED + abi::REASON_FAULT;
    let text = in_child(|| {
        poke(main as *const () as *mut u8, 0x90);
        0
    });
    let data = in_child(|| {
        let area = map(PAGE);
        poke(area, 0xc3);
        // SAFETY: never returns: the page is not executable.
        let run: extern "C" fn() = unsafe { core::mem::transmute(area) };
        run();
        0
    });
    text == expected && data == expected
}

fn kill() -> bool {
    let pid = call(abi::FORK, 0, 0, 0);
    if pid == 0 {
        loop {
            core::hint::spin_loop();
        }
    }
    call(abi::SLEEP, 30_000_000, 0, 0);
    let killed = call(abi::KILL, pid as u64, 0, 0) == 0;
    let mut status = 0_i32;
    let ended = call(abi::WAIT, pid as u64, &raw mut status as u64, 0) == pid;
    killed && ended && status == abi::STATUS_KILLED + abi::REASON_KILL
}

fn sleep() -> bool {
    let before = call(abi::TIME, 0, 0, 0);
    call(abi::SLEEP, 20_000_000, 0, 0);
    let slept = call(abi::TIME, 0, 0, 0) - before;
    (20_000_000..2_000_000_000).contains(&slept)
}

fn exec() -> bool {
    let name = "hello";
    in_child(|| {
        call(abi::EXEC, name.as_ptr() as u64, name.len() as u64, 0);
        1
    }) == 0
}
