//! From one kernel stack to another. The same on every platform: nothing privileged is in it.
#![expect(unsafe_code, reason = "a stack switch cannot be said in Rust")]

use core::arch::global_asm;

global_asm!(
    "
    .text
switch_stacks:                      # rdi = where to keep the old stack pointer, rsi = the new one
    push    rbx
    push    rbp
    push    r12
    push    r13
    push    r14
    push    r15
    mov     [rdi], rsp
    mov     rsp, rsi
    pop     r15
    pop     r14
    pop     r13
    pop     r12
    pop     rbp
    pop     rbx
    ret
thread_trampoline:                  # first return of a new thread
    and     rsp, -16
    call    {start}
    ud2
    ",
    start = sym thread_start,
);

unsafe extern "C" {
    fn switch_stacks(prev_sp: *mut usize, next_sp: usize);
    fn thread_trampoline();
}

extern "C" fn thread_start() -> ! {
    crate::task::scheduler::thread_start()
}

/// Registers a switch pops, the return address, and a word that keeps the stack aligned.
const FIRST_FRAME_WORDS: usize = 8;
const RETURN_ADDRESS: usize = 6;

/// Prepares an empty stack so that switching to it starts a thread; returns its stack pointer.
pub(crate) fn prepare(stack_top: usize) -> usize {
    let sp = stack_top - FIRST_FRAME_WORDS * 8;
    for word in 0..FIRST_FRAME_WORDS {
        let value = if word == RETURN_ADDRESS { thread_trampoline as *const () as usize } else { 0 };
        // SAFETY: the top of a mapped stack that nobody runs on yet.
        unsafe { ((sp + word * 8) as *mut usize).write(value) };
    }
    sp
}

/// Runs the thread whose stack pointer is `next_sp`; returns when someone switches back to this one.
pub(crate) fn switch(prev_sp: *mut usize, next_sp: usize) {
    // SAFETY: the scheduler took both from threads that exist, with interrupts off; `next_sp` was left by `prepare` or by
    // an earlier switch.
    unsafe { switch_stacks(prev_sp, next_sp) }
}
