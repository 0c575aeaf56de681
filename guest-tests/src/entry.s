# Xen's notes (public/elfnote.h), the way in, and the ways in of traps.
    .section .note.Xen, "a", @note
    .macro note type:req, size:req
    .balign 4
    .long 4, \size, \type
    .asciz "Xen"
    .endm
    note 6, 11
    .asciz "guest-test"
    note 8, 8
    .asciz "generic"
    note 5, 8
    .asciz "xen-3.0"
    note 3, 8
    .quad 0xffffffff80000000
    note 4, 8
    .quad 0
    note 1, 8
    .quad guest_entry
    note 9, 4
    .asciz "yes"
    note 17, 4
    .long 1 << 11
    .balign 4

# start_info in rsi, events masked.
    .section .text.entry, "ax", @progbits
    .globl guest_entry
guest_entry:
    cld
    lea rsp, [rip + guest_stack_top]
    mov rdi, rsi
    call guest_start
    ud2

# The hypervisor pushed rcx, r11, [error code], rip, cs, rflags, rsp, ss (lowest first). A stub makes of that the end of
# a TrapFrame: vector, error code, rcx, r11, rip, cs, rflags, rsp, ss. rcx and r11 themselves are free by then.
    .macro stub vector:req, has_error:req
    .balign 32
    .if \has_error
    mov rcx, [rsp]
    mov r11, [rsp + 8]
    xchg r11, [rsp + 16]
    mov [rsp + 8], rcx
    mov [rsp], r11
    .else
    push 0
    .endif
    push \vector
    jmp trap_common
    .endm

    .balign 32
    .globl trap_stubs
trap_stubs:
    vector = 0
    .rept 32
    .if (vector == 8) || (vector == 10) || (vector == 11) || (vector == 12) || (vector == 13) || (vector == 14) || (vector == 17) || (vector == 21) || (vector == 29) || (vector == 30)
    stub vector, 1
    .else
    stub vector, 0
    .endif
    vector = vector + 1
    .endr

    .balign 32
    .globl event_callback
event_callback:
    stub 256, 0
    .balign 32
    .globl failsafe_callback
failsafe_callback:
    add rsp, 48                     # rcx, r11, ds, es, fs, gs: what is left has the shape of a frame without rcx, r11
    push 0
    push 0
    stub 257, 0
    .balign 32
    .globl syscall_callback
syscall_callback:
    stub 258, 0
    .balign 32
    .globl int80_stub
int80_stub:
    stub 128, 0

trap_common:
    cld
    push rax
    push rbx
    push rdx
    push rsi
    push rdi
    push rbp
    push r8
    push r9
    push r10
    push r12
    push r13
    push r14
    push r15
    mov rdi, rsp
    call guest_trap
    pop r15
    pop r14
    pop r13
    pop r12
    pop r10
    pop r9
    pop r8
    pop rbp
    pop rdi
    pop rsi
    pop rdx
    pop rbx
    pop rax
    add rsp, 16
    mov r11, [rsp + 8]
    mov qword ptr [rsp + 8], 0
    push r11
    push rax
    mov eax, 23
    syscall
    ud2

# The shortest #UD handler there is: skips the two bytes of ud2 and returns.
    .balign 32
    .globl skip_ud2
skip_ud2:
    mov r11, [rsp + 8]
    add qword ptr [rsp + 16], 2
    mov qword ptr [rsp + 8], 0
    push r11
    push rax
    mov eax, 23
    syscall

    .section .bss.pages, "aw", @nobits
    .balign 4096
    .skip 65536
guest_stack_top:
