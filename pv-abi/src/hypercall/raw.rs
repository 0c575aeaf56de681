//! The instruction, for each number of arguments.

use core::arch::asm;

use crate::errno::Errno;

/// Declares one function a number of arguments.
macro_rules! raw {
    ($( $(#[$meta:meta])* fn $name:ident($($arg:ident in $register:tt),*); )*) => { $(
        $(#[$meta])*
        ///
        /// # Safety
        /// The caller runs in kernel mode of a PV guest, and whatever the call does to memory is what the caller may do.
        #[inline]
        pub unsafe fn $name(number: u64 $(, $arg: u64)*) -> i64 {
            let result: i64;
            // The stack is left to the compiler's default: an event may push a frame right below the stack pointer.
            // SAFETY: the registers that the call may change are named; what it does in memory the caller answers for.
            unsafe {
                asm!(
                    "syscall",
                    inlateout("rax") number => result,
                    $( inlateout($register) $arg => _, )*
                    lateout("rcx") _,
                    lateout("r11") _,
                );
            }
            result
        }
    )* };
}

raw! {
    /// Calls `number` without arguments.
    fn raw0();
    /// Calls `number` with one argument.
    fn raw1(a in "rdi");
    /// Calls `number` with two arguments.
    fn raw2(a in "rdi", b in "rsi");
    /// Calls `number` with three arguments.
    fn raw3(a in "rdi", b in "rsi", c in "rdx");
    /// Calls `number` with four arguments.
    fn raw4(a in "rdi", b in "rsi", c in "rdx", d in "r10");
    /// Calls `number` with five arguments.
    fn raw5(a in "rdi", b in "rsi", c in "rdx", d in "r10", e in "r8");
}

/// The address the hypervisor is told of a value it reads.
pub(super) fn address<T: ?Sized>(value: &T) -> u64 {
    core::ptr::from_ref(value).cast::<u8>().expose_provenance() as u64
}

/// The address the hypervisor is told of a value it also writes.
pub(super) fn address_mut<T: ?Sized>(value: &mut T) -> u64 {
    core::ptr::from_mut(value).cast::<u8>().expose_provenance() as u64
}

/// Calls with two arguments and splits the result.
///
/// # Safety
/// As [`raw2`].
pub(super) unsafe fn call2(number: u64, a: u64, b: u64) -> Result<u64, Errno> {
    // SAFETY: passed on to the caller.
    Errno::result_of(unsafe { raw2(number, a, b) })
}

/// Calls with three arguments and splits the result.
///
/// # Safety
/// As [`raw3`].
pub(super) unsafe fn call3(number: u64, a: u64, b: u64, c: u64) -> Result<u64, Errno> {
    // SAFETY: passed on to the caller.
    Errno::result_of(unsafe { raw3(number, a, b, c) })
}

/// Calls with one argument and splits the result.
///
/// # Safety
/// As [`raw1`].
pub(super) unsafe fn call1(number: u64, a: u64) -> Result<u64, Errno> {
    // SAFETY: passed on to the caller.
    Errno::result_of(unsafe { raw1(number, a) })
}

/// Calls with four arguments and splits the result.
///
/// # Safety
/// As [`raw4`].
pub(super) unsafe fn call4(number: u64, a: u64, b: u64, c: u64, d: u64) -> Result<u64, Errno> {
    // SAFETY: passed on to the caller.
    Errno::result_of(unsafe { raw4(number, a, b, c, d) })
}
