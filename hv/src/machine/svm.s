# Into a guest with hardware assistance and back.
#
# From `clgi` (the caller's) to `stgi` nothing interrupts. What waits by then is taken between `stgi` and `cli`: physical
# interrupts, which ended the guest's run, and orders of other CPUs.
#
# Source: AMD APM 2 §15.5, §15.6, §15.17.

.section .text.svm, "ax"
.balign 16
.global svm_enter
svm_enter:                                  # rdi: registers; rsi, rdx: physical addresses of the guest's and the CPU's block
    push rbx
    push rbp
    push r12
    push r13
    push r14
    push r15
    push rdx
    push rdi
    mov rax, rsi
    mov rbx, [rdi + {R_RBX}]
    mov rbp, [rdi + {R_RBP}]
    mov rcx, [rdi + {R_RCX}]
    mov rdx, [rdi + {R_RDX}]
    mov rsi, [rdi + {R_RSI}]
    mov r8, [rdi + {R_R8}]
    mov r9, [rdi + {R_R9}]
    mov r10, [rdi + {R_R10}]
    mov r11, [rdi + {R_R11}]
    mov r12, [rdi + {R_R12}]
    mov r13, [rdi + {R_R13}]
    mov r14, [rdi + {R_R14}]
    mov r15, [rdi + {R_R15}]
    mov rdi, [rdi + {R_RDI}]
    sti                                     # physical interrupts stop the guest, whatever its own flag is
    vmload rax
    vmrun rax
    vmsave rax
    push rdi
    mov rdi, [rsp + 8]
    mov [rdi + {R_RBX}], rbx
    mov [rdi + {R_RBP}], rbp
    mov [rdi + {R_RCX}], rcx
    mov [rdi + {R_RDX}], rdx
    mov [rdi + {R_RSI}], rsi
    mov [rdi + {R_R8}], r8
    mov [rdi + {R_R9}], r9
    mov [rdi + {R_R10}], r10
    mov [rdi + {R_R11}], r11
    mov [rdi + {R_R12}], r12
    mov [rdi + {R_R13}], r13
    mov [rdi + {R_R14}], r14
    mov [rdi + {R_R15}], r15
    pop rax
    mov [rdi + {R_RDI}], rax
    mov rax, [rsp + 8]
    vmload rax
    stgi
    nop
    cli
    add rsp, 16
    pop r15
    pop r14
    pop r13
    pop r12
    pop rbp
    pop rbx
    ret
