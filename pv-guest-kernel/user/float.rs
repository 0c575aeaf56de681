//! Four processes keep values of their own in all vector registers for so many milliseconds (300 by default), and look after
//! them while the kernel goes from one to the other. Exit status: how many saw a register change.
#![no_std]
#![no_main]

mod sys;

use core::arch::asm;

use sys::{abi, call};

const CHILDREN: u64 = 3;

fn main(arguments: &str) -> i32 {
    let milliseconds: i64 = arguments.trim().parse().unwrap_or(300);
    // A child goes on with its parent's registers.
    fill(7);
    let mut children = [0_i64; CHILDREN as usize];
    for (number, child) in children.iter_mut().enumerate() {
        *child = call(abi::FORK, 0, 0, 0);
        if *child == 0 {
            sys::exit(i32::from(!holds(7)) + keep(0x1000 * (number as u64 + 1), milliseconds));
        }
    }
    let mut failed = i32::from(!holds(7)) + keep(0x9000, milliseconds);
    for child in children {
        let mut status = 1_i32;
        call(abi::WAIT, child as u64, &raw mut status as u64, 0);
        failed += status;
    }
    say!("float: {failed} of {} processes lost a register", CHILDREN + 1);
    failed
}

/// Keeps values in the registers; 1 when one changes.
fn keep(seed: u64, milliseconds: i64) -> i32 {
    let end = call(abi::TIME, 0, 0, 0) + milliseconds * 1_000_000;
    fill(seed);
    while call(abi::TIME, 0, 0, 0) < end {
        for turn in 0..10_000 {
            core::hint::black_box(turn);
        }
        if !holds(seed) {
            return 1;
        }
    }
    0
}

fn mode(seed: u64) -> u32 {
    0x1f80 | (seed as u32 >> 12 & 3) << 13
}

/// Register n gets `seed` + n in both halves, and the rounding mode follows from `seed`.
fn fill(seed: u64) {
    let mode = mode(seed);
    // SAFETY: this program is compiled without vector registers; they are this function's.
    unsafe {
        asm!(
            "ldmxcsr [{mode}]",
            ".irp reg,0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15",
            "movq xmm\\reg, {value}",
            "punpcklqdq xmm\\reg, xmm\\reg",
            "add {value}, 1",
            ".endr",
            mode = in(reg) &mode, value = inout(reg) seed => _, options(nostack),
        );
    }
}

/// True while the registers are as [`fill`] left them.
fn holds(seed: u64) -> bool {
    let mut values = [0_u64; 32];
    let mut now = 0_u32;
    // SAFETY: writes 16 times 16 bytes to `values` and 4 to `now`.
    unsafe {
        asm!(
            "stmxcsr [{now}]",
            ".irp reg,0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15",
            "movdqu [{at} + 16 * \\reg], xmm\\reg",
            ".endr",
            now = in(reg) &raw mut now, at = in(reg) values.as_mut_ptr(), options(nostack),
        );
    }
    let good = (0..32).all(|half| values[half] == seed + half as u64 / 2);
    good && now & 0xffc0 == mode(seed)
}
