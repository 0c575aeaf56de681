//! The system calls that are measured, and what they need.
#![expect(unsafe_code, reason = "system calls are reached through C functions that the compiler cannot check")]

use std::ffi::CString;
use std::fmt;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

/// Bytes of a page.
const PAGE: usize = 4096;

/// A system call that failed.
#[derive(Debug)]
pub(crate) struct Failure {
    call: &'static str,
    error: io::Error,
}

impl fmt::Display for Failure {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}: {}", self.call, self.error)
    }
}

/// What a C function returned, where it is not negative.
fn checked<T: PartialOrd + Default>(call: &'static str, value: T) -> Result<T, Failure> {
    if value < T::default() { Err(Failure { call, error: io::Error::last_os_error() }) } else { Ok(value) }
}

/// The time-stamp counter.
pub(crate) fn time_stamp() -> u64 {
    // SAFETY: the instruction has no precondition on x86-64, and Linux lets programs read the counter.
    unsafe { core::arch::x86_64::_rdtsc() }
}

/// Asks for the parent's number: about the least that Linux can be asked.
pub(crate) fn parent() {
    // SAFETY: this call takes no argument and cannot fail.
    unsafe { libc::syscall(libc::SYS_getppid) };
}

/// Lets programs that are started from now on lie at fixed addresses; whether Linux does so.
pub(crate) fn fix_addresses() -> bool {
    // SAFETY: this changes nothing of the running program.
    unsafe { libc::personality(libc::ADDR_NO_RANDOMIZE as libc::c_ulong) >= 0 }
}

/// Ends this process without any farewell.
pub(crate) fn exit(status: i32) -> ! {
    // SAFETY: ending at once is what is wanted; nothing of this process is needed any more.
    unsafe { libc::_exit(status) }
}

/// A child that is waited for.
pub(crate) struct Child(libc::pid_t);

/// Starts a child that does `body` and ends with the status that it gives.
pub(crate) fn fork(body: impl FnOnce() -> i32) -> Result<Child, Failure> {
    // SAFETY: this program has one thread, so the child finds no lock held by another.
    let number = checked("fork", unsafe { libc::fork() })?;
    if number == 0 {
        exit(body());
    }
    Ok(Child(number))
}

impl Child {
    /// Waits until it has ended.
    pub(crate) fn wait(self) -> Result<(), Failure> {
        let mut status = 0;
        // SAFETY: `status` is a valid place for the status.
        checked("waitpid", unsafe { libc::waitpid(self.0, &raw mut status, 0) })?;
        if status == 0 {
            Ok(())
        } else {
            Err(Failure { call: "child", error: io::Error::other("ended with an error") })
        }
    }
}

/// Becomes this program again with one argument; gives a status where that fails.
pub(crate) fn run_self(argument: &str) -> i32 {
    let (path, Ok(argument)) = (c"/proc/self/exe", CString::new(argument)) else { return 1 };
    let arguments = [path.as_ptr(), argument.as_ptr(), std::ptr::null()];
    // SAFETY: `path` and each argument end with a zero byte, the list with a null pointer, and all live until the call returns.
    unsafe { libc::execv(path.as_ptr(), arguments.as_ptr()) };
    1
}

/// A pipe through which tokens go.
pub(crate) struct Pipe {
    reader: OwnedFd,
    writer: OwnedFd,
}

impl Pipe {
    pub(crate) fn new() -> Result<Self, Failure> {
        let mut ends = [0; 2];
        // SAFETY: `ends` has room for the two numbers.
        checked("pipe", unsafe { libc::pipe(ends.as_mut_ptr()) })?;
        Ok(Self { reader: own(ends[0]), writer: own(ends[1]) })
    }

    /// Puts a token in.
    pub(crate) fn put(&self) -> Result<(), Failure> {
        // SAFETY: the token is one byte long, as the call is told.
        checked("write", unsafe { libc::write(self.writer.as_raw_fd(), [0_u8].as_ptr().cast(), 1) }).map(drop)
    }

    /// Takes a token out, waiting for it.
    pub(crate) fn take(&self) -> Result<(), Failure> {
        let mut token = [0_u8];
        // SAFETY: the token has room for one byte, as the call is told.
        checked("read", unsafe { libc::read(self.reader.as_raw_fd(), token.as_mut_ptr().cast(), 1) }).map(drop)
    }
}

/// Takes over a descriptor that a call has just given.
fn own(descriptor: libc::c_int) -> OwnedFd {
    // SAFETY: a call that succeeded gave this number to this program and to nobody else in it.
    unsafe { OwnedFd::from_raw_fd(descriptor) }
}

/// A file of so many pages, all in memory.
pub(crate) fn memory_file(pages: usize) -> Result<OwnedFd, Failure> {
    // SAFETY: the name ends with a zero byte.
    let file = own(checked("memfd_create", unsafe { libc::memfd_create(c"pages".as_ptr(), 0) })?);
    for _ in 0..pages {
        let page = [1_u8; PAGE];
        // SAFETY: `page` is as long as the call is told.
        checked("write", unsafe { libc::write(file.as_raw_fd(), page.as_ptr().cast(), PAGE) })?;
    }
    Ok(file)
}

/// A file in this program's address space.
pub(crate) struct Mapping {
    start: *mut u8,
    pages: usize,
}

impl Mapping {
    /// Maps the first pages of a file so that writes reach it.
    pub(crate) fn shared(file: &OwnedFd, pages: usize) -> Result<Self, Failure> {
        let access = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: Linux chooses a place where nothing else lies.
        let start =
            unsafe { libc::mmap(std::ptr::null_mut(), pages * PAGE, access, libc::MAP_SHARED, file.as_raw_fd(), 0) };
        if start == libc::MAP_FAILED {
            return Err(Failure { call: "mmap", error: io::Error::last_os_error() });
        }
        Ok(Self { start: start.cast(), pages })
    }

    /// Writes to one of its pages.
    pub(crate) fn touch(&mut self, page: usize) {
        assert!(page < self.pages, "the mapping ends before page {page}");
        // SAFETY: the byte lies in this mapping, as was just checked.
        let place = unsafe { self.start.add(page * PAGE) };
        // SAFETY: `place` is mapped writable until this is dropped, and nobody else writes there.
        unsafe { place.write_volatile(2) };
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: this is the range that was mapped, and no pointer into it outlives the mapping.
        unsafe { libc::munmap(self.start.cast(), self.pages * PAGE) };
    }
}
