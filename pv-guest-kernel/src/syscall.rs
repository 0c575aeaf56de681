//! System calls: what user programs ask of the kernel.
//!
//! One function each; the numbers and their meaning are in `user/abi.rs`, which programs include too. A result below zero is
//! a negated error number.

use alloc::sync::Arc;
use alloc::vec;
use core::ops::ControlFlow;

use crate::console;
use crate::mm::mmu;
use crate::mm::space::Fault;
use crate::platform::TrapFrame;
use crate::process::{self, LoadError, Pid, Process};
use crate::{task, time};

/// The numbers, which user programs include too.
#[path = "../user/abi.rs"]
pub mod abi;

/// The most one `read` or `write` moves.
const CHUNK_BYTES: usize = 4096;

/// Runs the system call in `frame` and leaves its result there; breaks with the status of a process that ends.
pub(crate) fn on_syscall(process: &Arc<Process>, frame: &mut TrapFrame) -> ControlFlow<i32> {
    let (a, b) = (frame.rdi, frame.rsi);
    let result = match frame.rax {
        abi::EXIT => return ControlFlow::Break(a as i32),
        abi::WRITE => write(process, a, b as usize, frame.rdx as usize),
        abi::READ => read(process, a, b as usize, frame.rdx as usize),
        abi::GETPID => Ok(process.pid.0),
        abi::GETPPID => Ok(process.parent().map_or(0, |pid| pid.0)),
        abi::FORK => process::fork(process, frame).map(|pid| pid.0).map_err(errno),
        abi::WAIT => wait(process, a, b as usize),
        abi::MMAP => mapped(process.with_space(|space| space.map_anywhere(a as usize, b != 0))),
        abi::MUNMAP => done(process.with_space(|space| space.unmap(a as usize, b as usize))),
        abi::BRK => brk(process, a as usize),
        abi::SLEEP => sleep(process, a),
        abi::YIELD => {
            task::yield_now();
            Ok(0)
        }
        abi::TIME => Ok(time::now_ns()),
        abi::KILL => kill(Pid(a)),
        abi::EXEC => match exec(process, a as usize, b as usize, frame) {
            Ok(()) => return ControlFlow::Continue(()),
            Err(error) => Err(error),
        },
        abi::USAGE => {
            let usage = process.usage();
            Ok((usage.resident as u64) << 32 | usage.tables as u64)
        }
        abi::ENTRIES => Ok(mmu::entries_written()),
        _ => Err(-abi::ENOSYS),
    };
    frame.rax = result.unwrap_or_else(|error| error as u64);
    ControlFlow::Continue(())
}

fn errno(fault: Fault) -> i64 {
    match fault {
        Fault::OutOfMemory => -abi::ENOMEM,
        Fault::BadRange => -abi::EINVAL,
        Fault::Unmapped | Fault::Forbidden => -abi::EFAULT,
    }
}

fn done(result: Result<(), Fault>) -> Result<u64, i64> {
    result.map(|()| 0).map_err(errno)
}

fn mapped(result: Result<usize, Fault>) -> Result<u64, i64> {
    result.map(|addr| addr as u64).map_err(errno)
}

fn write(process: &Process, fd: u64, addr: usize, len: usize) -> Result<u64, i64> {
    if fd != 1 && fd != 2 {
        return Err(-abi::EBADF);
    }
    let mut bytes = vec![0; len.min(CHUNK_BYTES)];
    process.with_space(|space| space.read(addr, &mut bytes)).map_err(errno)?;
    console::write_bytes(&bytes);
    Ok(bytes.len() as u64)
}

fn read(process: &Process, fd: u64, addr: usize, len: usize) -> Result<u64, i64> {
    if fd != 0 {
        return Err(-abi::EBADF);
    }
    let mut bytes = vec![0; len.min(CHUNK_BYTES)];
    let count = console::read_bytes(&mut bytes, || process.is_killed());
    if count == 0 && len > 0 {
        return Err(-abi::EINTR);
    }
    process.with_space(|space| space.write(addr, &bytes[..count])).map_err(errno)?;
    Ok(count as u64)
}

fn wait(process: &Process, pid: u64, status_addr: usize) -> Result<u64, i64> {
    let wanted = (pid != 0).then_some(Pid(pid));
    let (pid, status) = process::wait_for_child(process, wanted)?;
    if status_addr != 0 {
        process.with_space(|space| space.write(status_addr, &status.to_le_bytes())).map_err(errno)?;
    }
    Ok(pid.0)
}

fn brk(process: &Process, end: usize) -> Result<u64, i64> {
    let heap = process.heap();
    if end == 0 {
        return mapped(process.with_space(|space| space.end_of(heap)));
    }
    mapped(process.with_space(|space| space.set_end(heap, end).and_then(|()| space.end_of(heap))))
}

fn sleep(process: &Process, duration_ns: u64) -> Result<u64, i64> {
    let deadline = time::now_ns().saturating_add(duration_ns);
    let killed = process.changed.wait_until_deadline(Some(deadline), || process.is_killed());
    if killed { Err(-abi::EINTR) } else { Ok(0) }
}

fn kill(pid: Pid) -> Result<u64, i64> {
    let process = process::find(pid).ok_or(-abi::ESRCH)?;
    process.kill();
    Ok(0)
}

fn exec(process: &Arc<Process>, addr: usize, len: usize, frame: &mut TrapFrame) -> Result<(), i64> {
    let mut name = [0; 64];
    let name = name.get_mut(..len).ok_or(-abi::EINVAL)?;
    process.with_space(|space| space.read(addr, name)).map_err(errno)?;
    let name = core::str::from_utf8(name).map_err(|_| -abi::EINVAL)?;
    process::exec(process, name, frame).map_err(|error| match error {
        LoadError::NotFound => -abi::ENOENT,
        LoadError::NotExecutable => -abi::ENOEXEC,
        LoadError::BadLayout(fault) => errno(fault),
        LoadError::TooManyArguments => -abi::EINVAL,
    })
}
