//! What Linux's own operations cost inside a guest, in counted instructions.
//!
//! One static program that runs in the same Linux on each hypervisor. Under QEMU's `-icount shift=5` an instruction lasts
//! 32 ns of virtual time and the time-stamp counter counts nanoseconds, so a difference of two readings over 32 is a number
//! of instructions: those of the program, of Linux and of the hypervisor together. The operations are lmbench's. Each is
//! measured in batches, and the median batch counts, so that a timer's tick in one of them does not.
//!
//! Prints `linux-bench: OPERATION INSTRUCTIONS` a line, then `linux-bench: done`.

mod operations;
mod system;

use operations::{ALL, Operation};
use system::{Failure, time_stamp};

/// Nanoseconds of virtual time an instruction.
const INSTRUCTION_NS: u64 = 32;
/// How many batches; odd, so that there is one in the middle.
const BATCHES: usize = 11;
/// The argument with which the program starts itself only to leave again.
const LEAVE: &str = "leave";

fn main() {
    if std::env::args().nth(1).is_some_and(|argument| argument == LEAVE) {
        system::exit(0);
    }
    for operation in &ALL {
        match measure(operation) {
            Ok(instructions) => println!("linux-bench: {} {instructions}", operation.name),
            Err(failure) => println!("linux-bench: {}: {failure}", operation.name),
        }
    }
    println!("linux-bench: done");
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
