# The ways into the hypervisor and out of it.
#
# Each way in makes a `Registers` (registers.rs) on the stack of its CPU and calls one Rust function with its address.
# GS stays the guest's: what belongs to a CPU is found from the stack pointer (cpu.rs), so there is no moment at which
# the wrong GS could be used. Interrupts are off throughout.
#
# Offsets of fields ({{R_…}}) and addresses in a CPU's block come from Rust.

.macro SAVE_GENERAL
    push rdi
    push rsi
    push rdx
    push rcx
    push rax
    push r8
    push r9
    push r10
    push r11
    push rbx
    push rbp
    push r12
    push r13
    push r14
    push r15
.endm

.macro SAVE_PRESERVED
    mov [rsp + {R_RBX}], rbx
    mov [rsp + {R_RBP}], rbp
    mov [rsp + {R_R12}], r12
    mov [rsp + {R_R13}], r13
    mov [rsp + {R_R14}], r14
    mov [rsp + {R_R15}], r15
.endm

.macro RESTORE_GENERAL
    pop r15
    pop r14
    pop r13
    pop r12
    pop rbp
    pop rbx
    pop r11
    pop r10
    pop r9
    pop r8
    pop rax
    pop rcx
    pop rdx
    pop rsi
    pop rdi
    add rsp, 8                              # error code and vector
.endm

# Copies the frame that rax points to in the CPU's data to the top of the main stack, which is empty, 16-byte aligned.
.macro TO_MAIN_STACK
    lea rsp, [rax - {CPU_RAISED} - {SYSCALL_TO_CPU}]
    mov rsi, rax
    mov rdi, rsp
    mov ecx, {FRAME_WORDS}
    rep movsq
.endm

.section .text.entry, "ax"

# `syscall` from 64-bit mode, after the CPU's stub (cpu.rs) put rax into its place of the frame, the guest's rsp into
# rax and the top of the frame into rsp. The frame is 16-byte aligned.
#
# First a hypercall whose answer needs no work is looked for; that and the way back use none of rbx, rbp, r12 to r15.
.balign 64
.global entry_syscall
entry_syscall:
    push {GUEST_STACK}
    push rax
    push r11
    push {GUEST_CODE64}
    push rcx
    push -1                                 # no error code; ENTRY_SYSCALL
    push rdi
    push rsi
    push rdx
    push rcx
    lea rsp, [rsp - 8]                      # rax
    push r8
    push r9
    push r10
    push r11
    sub rsp, 48                             # rbx, rbp, r12 to r15
    cmp byte ptr [rsp + {SYSCALL_TO_CPU} + {CPU_KERNEL_MODE}], 0
    je 2f
    mov rdi, rsp
    lea rsi, [rsp + {SYSCALL_TO_CPU}]
    call immediate_entry
    test al, al
    jnz 3f
    SAVE_PRESERVED
    mov rdi, rsp
    lea rsi, [rsp + {SYSCALL_TO_CPU}]
    call hypercall_entry

# Back by `sysret`, if the frame still is as `syscall` made it: then rcx and r11 are the guest's only as rip and rflags,
# and Rust has kept rbx, rbp and r12 to r15. `sysret` to an address that is not canonical faults in ring 0 on Intel.
1:  cmp dword ptr [rsp + {R_ENTRY_VECTOR}], -1
    jne guest_return
    mov rax, [rsp + {R_RIP}]
    sar rax, 47
    inc rax
    cmp rax, 1
    ja guest_return
3:  mov rcx, [rsp + {R_RIP}]
    mov rax, rcx                            # after an immediate call rip may be one past the lower half, and no worse
    shl rax, 17
    jz 4f
    mov r10, [rsp + {R_R10}]
    mov r9, [rsp + {R_R9}]
    mov r8, [rsp + {R_R8}]
    mov rax, [rsp + {R_RAX}]
    mov rdx, [rsp + {R_RDX}]
    mov rsi, [rsp + {R_RSI}]
    mov rdi, [rsp + {R_RDI}]
    mov r11, [rsp + {R_RFLAGS}]
    mov rsp, [rsp + {R_RSP}]
    sysretq
2:  SAVE_PRESERVED
    mov rdi, rsp
    lea rsi, [rsp + {SYSCALL_TO_CPU}]
    call system_call_entry
    jmp 1b
4:  SAVE_PRESERVED
    jmp guest_return

# `syscall` from 32-bit mode: as above.
.balign 16
.global entry_syscall32
entry_syscall32:
    push {GUEST_STACK}
    push rax
    push r11
    push {GUEST_CODE32}
    push rcx
    push -1
    push rdi
    push rsi
    push rdx
    push rcx
    lea rsp, [rsp - 8]
    push r8
    push r9
    push r10
    push r11
    push rbx
    push rbp
    push r12
    push r13
    push r14
    push r15
    mov rdi, rsp
    lea rsi, [rsp + {SYSCALL_TO_CPU}]
    call system_call32_entry
    jmp 1b

# `sysenter`: the CPU says nothing about where it came from, and leaves NT and TF on. (Xen's frame: rip and rsp 0.)
.balign 16
.global entry_sysenter
entry_sysenter:
    push {GUEST_STACK}
    push 0
    push 2
    popfq
    push 0x202
    push 3
    push 0
    push 0
    mov dword ptr [rsp + 4], {ENTRY_FULL}
    SAVE_GENERAL
    mov rdi, rsp
    lea rsi, [rsp + {SYSCALL_TO_CPU}]
    call sysenter_entry
    jmp guest_return

# Back by `iretq`, whatever the frame says: it can only lead to ring 3 with interrupts on.
.balign 16
guest_return:
    or dword ptr [rsp + {R_CS}], 3
    or dword ptr [rsp + {R_SS}], 3
    and dword ptr [rsp + {R_RFLAGS}], {FLAGS_GUEST}
    or dword ptr [rsp + {R_RFLAGS}], 0x202
    RESTORE_GENERAL
.global guest_iret
guest_iret:
    iretq                                   # a fault here is the guest's: hypervisor_exception

# Exceptions and interrupts.
.balign 16
exception:
    SAVE_GENERAL
    cld
    CLAC
    mov rdi, rsp
    test byte ptr [rsp + {R_CS}], 3
    jz 3f
    lea rsi, [rsp + {EXCEPTION_TO_CPU}]
    sub rsp, 8                              # aligned to 16 bytes
    call guest_exception
    add rsp, 8
    jmp guest_return
3:  mov rbx, rsp
    and rsp, -16
    call hypervisor_exception
4:  test rax, rax
    jnz 5f
    mov rsp, rbx
    RESTORE_GENERAL
    iretq
5:  TO_MAIN_STACK                           # a guest's after all
    mov rax, rsp                            # the next non-maskable interrupt may come: `iretq` says so
    push {HV_STACK}
    push rax
    pushfq
    push {HV_CODE}
    lea rax, [rip + 6f]
    push rax
    iretq
6:  mov rdi, rsp
    lea rsi, [rsp + {SYSCALL_TO_CPU}]
    call guest_exception
    jmp guest_return

# The first guest on this CPU: rax as above.
.balign 16
.global guest_first
guest_first:
    TO_MAIN_STACK
    jmp guest_return

# Exceptions that have a stack of their own.
.balign 16
special_exception:
    SAVE_GENERAL
    cld
    CLAC
    CLAC
    mov rdi, rsp
    mov rbx, rsp
    and rsp, -16
    call special_exception_entry
    jmp 4b

# One row a vector, 16 bytes each: an error code where the CPU pushes none, the vector, the way on.
.macro ROW vector, has_error, way
    .balign 16
    .if \has_error == 0
    push 0
    .endif
    mov dword ptr [rsp + 4], \vector
    jmp \way
.endm
.balign 16
.global exception_rows
exception_rows:
    ROW 0, 0, exception                     # divide error
    ROW 1, 0, special_exception             # debug
    ROW 2, 0, special_exception             # non-maskable interrupt
    ROW 3, 0, exception                     # breakpoint
    ROW 4, 0, exception                     # overflow
    ROW 5, 0, exception                     # bound range
    ROW 6, 0, exception                     # invalid opcode
    ROW 7, 0, exception                     # device not available
    ROW 8, 1, special_exception             # double fault
    ROW 9, 0, exception                     # reserved
    ROW 10, 1, exception                    # invalid task state
    ROW 11, 1, exception                    # segment not present
    ROW 12, 1, exception                    # stack fault
    ROW 13, 1, exception                    # general protection
    ROW 14, 1, exception                    # page fault
    ROW 15, 0, exception                    # reserved
    ROW 16, 0, exception                    # floating point
    ROW 17, 1, exception                    # alignment check
    ROW 18, 0, special_exception            # machine check
    ROW 19, 0, exception                    # SIMD floating point
    ROW 20, 0, exception                    # virtualization
    ROW 21, 1, exception                    # control protection
    ROW 22, 0, exception                    # reserved
    ROW 23, 0, exception
    ROW 24, 0, exception
    ROW 25, 0, exception
    ROW 26, 0, exception
    ROW 27, 0, exception
    ROW 28, 0, exception                    # hypervisor injection
    ROW 29, 1, exception                    # VMM communication
    ROW 30, 1, exception                    # security
    ROW 31, 0, exception
    .altmacro
    .set vector, 32
    .rept 224
    ROW %vector, 0, exception
    .set vector, vector + 1
    .endr
    .noaltmacro
