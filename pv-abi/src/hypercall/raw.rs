//! The instruction, for each number of arguments.

use core::arch::asm;

/// Declares one function a number of arguments.
macro_rules! raw {
    ($( $(#[$meta:meta])* fn $name:ident($($arg:ident in $register:literal),*); )*) => { $(
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
