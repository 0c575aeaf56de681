//! Exceptions and system calls, the same on every platform.

use alloc::sync::Arc;
use core::ops::ControlFlow;

use crate::platform::frame::{TrapFrame, VECTOR_PAGE_FAULT, VECTOR_SYSCALL};
use crate::syscall::abi;
use crate::task::scheduler;
use crate::{platform, process, syscall};

/// An exception or a system call. `fault_addr` is the address of a page fault. Interrupts are off, before and after.
pub(crate) fn on_trap(frame: &mut TrapFrame, fault_addr: usize) {
    if !frame.from_user() {
        panic!("exception in the kernel, address {fault_addr:#x}\n{frame:?}");
    }
    let process = scheduler::current_process().expect("user mode belongs to a process");
    platform::current().interrupts_enable();
    let outcome = match frame.vector {
        VECTOR_SYSCALL => syscall::on_syscall(&process, frame),
        VECTOR_PAGE_FAULT => process::on_page_fault(&process, fault_addr, frame.error),
        vector => {
            log::info!("{process:?}: exception {vector} at {:#x}", frame.rip);
            ControlFlow::Break(abi::STATUS_KILLED + abi::REASON_ILLEGAL)
        }
    };
    match outcome {
        ControlFlow::Continue(()) => before_user(process),
        ControlFlow::Break(status) => process::exit(process, status),
    }
}

/// A killed process goes no further.
fn before_user(process: Arc<process::Process>) {
    if process.is_killed() {
        process::exit(process, abi::STATUS_KILLED + abi::REASON_KILL);
    }
    drop(process);
    platform::current().interrupts_disable();
}

/// An interrupt came while user mode ran, and has been handled.
pub(crate) fn after_user_interrupt() {
    if let Some(process) = scheduler::current_process() {
        before_user(process);
    }
}
