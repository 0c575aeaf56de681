//! Exceptions and system calls, the same on every platform.

use crate::platform::TrapFrame;

/// An exception or a system call. `fault_addr` is the address of a page fault.
pub(crate) fn on_trap(frame: &mut TrapFrame, fault_addr: usize) {
    panic!("exception in the kernel, address {fault_addr:#x}\n{frame:?}")
}
