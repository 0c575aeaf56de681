//! Uses the CPU for so many milliseconds (1000 by default) without a system call but the clock's.
#![no_std]
#![no_main]

mod sys;

fn main(arguments: &str) -> i32 {
    let milliseconds: i64 = arguments.trim().parse().unwrap_or(1000);
    let end = sys::call(sys::abi::TIME, 0, 0, 0) + milliseconds * 1_000_000;
    let mut turns = 0_u64;
    while sys::call(sys::abi::TIME, 0, 0, 0) < end {
        for _ in 0..10_000 {
            core::hint::black_box(turns);
        }
        turns += 1;
    }
    say!("spin: {turns} turns in {milliseconds} ms");
    0
}
