//! The operations, one function each: does it `count` times and says how many nanoseconds that took.

use crate::system::{self, Failure, Mapping, Pipe};
use crate::{LEAVE, timed};

/// Something to measure.
pub(crate) struct Operation {
    /// Its name in the table.
    pub(crate) name: &'static str,
    /// How often a batch does it.
    pub(crate) count: u32,
    /// Does it so often.
    pub(crate) run: fn(u32) -> Result<u64, Failure>,
}

/// All, in the order of the table.
pub(crate) const ALL: [Operation; 7] = [
    Operation { name: "null system call", count: 1000, run: null_call },
    Operation { name: "fork and exit", count: 10, run: fork_exit },
    Operation { name: "fork and exec", count: 5, run: fork_exec },
    Operation { name: "page fault", count: 256, run: page_fault },
    Operation { name: "mmap", count: 10, run: mmap },
    Operation { name: "context switch", count: 200, run: context_switch },
    Operation { name: "pipe latency", count: 200, run: pipe_latency },
];

/// Pages of the file that is mapped.
const FILE_PAGES: usize = 256;

fn null_call(count: u32) -> Result<u64, Failure> {
    timed(|| {
        for _ in 0..count {
            system::parent();
        }
        Ok(())
    })
}

fn fork_exit(count: u32) -> Result<u64, Failure> {
    timed(|| (0..count).try_for_each(|_| system::fork(|| 0)?.wait()))
}

fn fork_exec(count: u32) -> Result<u64, Failure> {
    timed(|| (0..count).try_for_each(|_| system::fork(|| system::run_self(LEAVE))?.wait()))
}

/// Writes to pages of a shared file that are in memory but not yet mapped: a fault a page, none of them cleared or copied.
fn page_fault(count: u32) -> Result<u64, Failure> {
    let file = system::memory_file(FILE_PAGES)?;
    let mut mapping = Mapping::shared(&file, FILE_PAGES)?;
    timed(|| {
        (0..count as usize).for_each(|page| mapping.touch(page));
        Ok(())
    })
}

/// Maps a file of 1 MiB, touches every fourth page, takes it away again.
fn mmap(count: u32) -> Result<u64, Failure> {
    let file = system::memory_file(FILE_PAGES)?;
    timed(|| {
        for _ in 0..count {
            let mut mapping = Mapping::shared(&file, FILE_PAGES)?;
            (0..FILE_PAGES).step_by(4).for_each(|page| mapping.touch(page));
        }
        Ok(())
    })
}

/// A token goes round two processes: two switches, and the writing and reading of two pipes, which is taken off.
fn context_switch(count: u32) -> Result<u64, Failure> {
    let round = pipe_latency(count)?;
    let pipe = Pipe::new()?;
    let alone = timed(|| {
        for _ in 0..2 * count {
            pipe.put()?;
            pipe.take()?;
        }
        Ok(())
    })?;
    Ok(round.saturating_sub(alone) / 2)
}

/// A token goes from one process to another and back.
fn pipe_latency(count: u32) -> Result<u64, Failure> {
    let (there, back) = (Pipe::new()?, Pipe::new()?);
    let echo = || (0..=count).try_for_each(|_| there.take().and_then(|()| back.put())).map_or(1, |()| 0);
    let child = system::fork(echo)?;
    let round = || there.put().and_then(|()| back.take());
    round()?;
    let time = timed(|| (0..count).try_for_each(|_| round()))?;
    child.wait()?;
    Ok(time)
}
