//! What Linux's own operations cost inside a guest, in counted instructions.
//!
//! One static program that runs in the same Linux on each hypervisor. Under QEMU's `-icount shift=5` an instruction lasts
//! 32 ns of virtual time and the time-stamp counter counts nanoseconds, so a difference of two readings over 32 is a number
//! of instructions: those of the program, of Linux and of the hypervisor together. The operations are lmbench's. Each is
//! measured in batches, and the median batch counts, so that a timer's tick in one of them does not.
//!
//! Prints `linux-bench: OPERATION INSTRUCTIONS` a line, then `linux-bench: done`. With `time NAME AMOUNT PROGRAM …` it runs
//! the program instead and prints `linux-bench: NAME RATE`, the amount a second of real time. With `boot` it prints
//! `linux-bench: first process NS`, nanoseconds since the hypervisor's start.

mod boot;
mod operations;
mod system;

use std::process::Command;
use std::time::Instant;

use operations::{ALL, Operation};
use system::{Failure, time_stamp};

/// Nanoseconds of virtual time an instruction.
const INSTRUCTION_NS: u64 = 32;
/// How many batches; odd, so that there is one in the middle.
const BATCHES: usize = 11;
/// The argument with which the program starts itself only to leave again.
const LEAVE: &str = "leave";
/// The argument with which it starts itself to measure.
const MEASURE: &str = "measure";

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.as_slice() {
        [leave] if leave == LEAVE => system::exit(0),
        [boot] if boot == "boot" => return say_boot(),
        // Where things lie in memory decides how many page tables they take: it is to be the same in each run.
        [] if system::fix_addresses() => system::exit(system::run_self(MEASURE)),
        [time, name, amount, program, rest @ ..] if time == "time" => return rate(name, amount, program, rest),
        _ => {}
    }
    for operation in &ALL {
        match measure(operation) {
            Ok(instructions) => println!("linux-bench: {} {instructions}", operation.name),
            Err(failure) => println!("linux-bench: {}: {failure}", operation.name),
        }
    }
    println!("linux-bench: done");
}

fn say_boot() {
    match boot::first_process_ns() {
        Ok(ns) => println!("linux-bench: first process {ns}"),
        Err(error) => println!("linux-bench: first process: {error}"),
    }
}

/// Runs a program and says how much of `amount` it did a second.
fn rate(name: &str, amount: &str, program: &str, arguments: &[String]) {
    let start = Instant::now();
    let done = Command::new(program).args(arguments).status().is_ok_and(|status| status.success());
    let seconds = start.elapsed().as_secs_f64();
    match amount.parse::<f64>() {
        Ok(amount) if done => println!("linux-bench: {name} {:.2}", amount / seconds),
        _ => system::exit(1),
    }
}

/// Instructions an operation takes, the median over the batches; the first round warms caches and is not counted.
fn measure(operation: &Operation) -> Result<u64, Failure> {
    (operation.run)(operation.count)?;
    let mut batches = [0; BATCHES];
    for batch in &mut batches {
        *batch = (operation.run)(operation.count)? / INSTRUCTION_NS / u64::from(operation.count);
    }
    batches.sort_unstable();
    Ok(batches[BATCHES / 2])
}

/// Runs this and says how many nanoseconds went by.
fn timed(body: impl FnOnce() -> Result<(), Failure>) -> Result<u64, Failure> {
    let start = time_stamp();
    body()?;
    Ok(time_stamp() - start)
}
