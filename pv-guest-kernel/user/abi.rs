// The system-call interface: included by the kernel and by every user program, so that both agree.
//
// `syscall`: number in rax, arguments in rdi, rsi, rdx; result in rax, a negated error number below zero. rcx and r11 are
// lost to the instruction.

macro_rules! calls {
    ($($(#[$doc:meta])* $name:ident = $number:literal;)*) => {
        $( $(#[$doc])* pub const $name: u64 = $number; )*

        /// The name of each call, for `ps` and for messages.
        pub const CALL_NAMES: &[(u64, &str)] = &[ $( ($number, stringify!($name)), )* ];
    };
}

calls! {
    /// `exit(status)`: ends the process.
    EXIT = 0;
    /// `write(fd, address, length)`: 1 and 2 are the console. Returns the bytes written.
    WRITE = 1;
    /// `read(fd, address, length)`: 0 is the console. Sleeps until there is a byte; returns the bytes read.
    READ = 2;
    /// `getpid()`.
    GETPID = 3;
    /// `fork()`: 0 in the child, the child's pid in the parent.
    FORK = 4;
    /// `wait(pid, address of an i32)`: sleeps until the child (0: any) has ended; its status goes to the address; returns its pid.
    WAIT = 5;
    /// `mmap(length, writable)`: a range of zeros; returns its address.
    MMAP = 6;
    /// `munmap(address, length)`.
    MUNMAP = 7;
    /// `brk(end)`: moves the end of the heap; returns it. 0 only asks.
    BRK = 8;
    /// `sleep(nanoseconds)`.
    SLEEP = 9;
    /// `yield()`.
    YIELD = 10;
    /// `time()`: nanoseconds since the start.
    TIME = 11;
    /// `kill(pid)`.
    KILL = 12;
    /// `exec(name address, name length)`: becomes another program.
    EXEC = 13;
    /// `getppid()`.
    GETPPID = 14;
    /// `usage()`: resident pages << 32 | page tables.
    USAGE = 15;
    /// `entries()`: how many entries of page tables the kernel has written for processes since its start.
    ENTRIES = 16;
}

/// Errors, as Linux numbers them.
pub const ENOENT: i64 = 2;
/// No such process.
pub const ESRCH: i64 = 3;
/// Interrupted: the process is being killed.
pub const EINTR: i64 = 4;
/// Not an executable.
pub const ENOEXEC: i64 = 8;
/// Not an open file.
pub const EBADF: i64 = 9;
/// No child to wait for.
pub const ECHILD: i64 = 10;
/// No memory.
pub const ENOMEM: i64 = 12;
/// An address the process may not use.
pub const EFAULT: i64 = 14;
/// An argument that makes no sense.
pub const EINVAL: i64 = 22;
/// No such call.
pub const ENOSYS: i64 = 38;

/// Exit status of a process that was ended: this plus the reason.
pub const STATUS_KILLED: i32 = 128;
/// Killed by another process.
pub const REASON_KILL: i32 = 9;
/// Touched what it may not.
pub const REASON_FAULT: i32 = 11;
/// Executed what is no instruction for it.
pub const REASON_ILLEGAL: i32 = 4;
