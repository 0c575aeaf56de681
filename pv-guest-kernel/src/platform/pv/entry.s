# How the CPU comes into the kernel as a Xen PV guest, and how it leaves.
#
# Every way in ends with a TrapFrame on the stack and `pv_trap(frame)`; every way out goes through `pv_return`.
# Xen's bounce frame, from rsp upwards: rcx, r11, [error code], rip, cs, rflags, rsp, ss
# (Xen public/arch-x86/xen.h and xen-x86_64.h). Popping rcx and r11 leaves what a CPU would have pushed.

    .section .text.entry, "ax"
    .global pv_entry
pv_entry:                                   # rsi = start_info; Xen masks events and gives a one-page stack
    cld
    lea     rsp, [rip + boot_stack_top]
    mov     rdi, rsi
    xor     ebp, ebp
    call    pv_main
    ud2

    .global pv_cpu_entry
pv_cpu_entry:                               # a further vCPU, on its own stack; GS is set, events are masked
    cld
    xor     ebp, ebp
    call    pv_cpu_main
    ud2

    .text
.macro TRAP vector
    .global pv_trap_\vector
pv_trap_\vector:
    pop     rcx
    pop     r11
    push    0                               # no error code
    push    \vector
    jmp     pv_trap_common
.endm

.macro TRAP_WITH_ERROR vector
    .global pv_trap_\vector
pv_trap_\vector:
    pop     rcx
    pop     r11
    push    \vector
    jmp     pv_trap_common
.endm

    TRAP 0
    TRAP 1
    TRAP 2
    TRAP 3
    TRAP 4
    TRAP 5
    TRAP 6
    TRAP 7
    TRAP_WITH_ERROR 8
    TRAP_WITH_ERROR 10
    TRAP_WITH_ERROR 11
    TRAP_WITH_ERROR 12
    TRAP_WITH_ERROR 13
    TRAP_WITH_ERROR 14
    TRAP 16
    TRAP_WITH_ERROR 17
    TRAP 18
    TRAP 19

    .global pv_syscall
pv_syscall:                                 # a user process executed `syscall`
    pop     rcx
    pop     r11
    push    0
    push    0x101
    jmp     pv_trap_common

    .global pv_failsafe
pv_failsafe:                                # Xen could not load ds, es, fs or gs: the frame has them, nothing can go on
    ud2

    .global pv_event
pv_event:                                   # an event is pending and was not masked; it is masked now
    pop     rcx
    pop     r11
    # Between unmasking and iretq all registers are the interrupted context's already and the old frame is still on
    # the stack: drop the new frame, or a flood of events would grow the stack by one frame each.
    cmp     qword ptr [rsp], offset pv_critical_start
    jb      1f
    cmp     qword ptr [rsp], offset pv_critical_end
    jae     1f
    mov     rsp, [rsp + 24]
    and     byte ptr [rsp + 8], 0xfc
1:  push    0
    push    0x100

pv_trap_common:
    SAVE_REGISTERS
    mov     rdi, rsp
    call    pv_trap

    .global pv_return
pv_return:
    RESTORE_REGISTERS
    add     rsp, 16                         # vector and error code
    test    byte ptr [rsp + 8], 3
    jnz     pv_return_to_user
    or      byte ptr [rsp + 8], 3           # the kernel's own code segment, as the CPU knows it
    test    dword ptr [rsp + 16], 0x200     # did the interrupted code have events unmasked?
    jz      1f
    mov     byte ptr gs:[1], 0              # this vCPU's vcpu_info: the mask, and whether something is pending
pv_critical_start:
    cmp     byte ptr gs:[0], 0
    jne     2f
1:  iretq
2:  mov     byte ptr gs:[1], 1
pv_critical_end:
    and     byte ptr [rsp + 8], 0xfc
    push    r11
    push    rcx
    jmp     pv_event

pv_return_to_user:                          # only Xen can switch to the user's page tables: iret hypercall
    push    0                               # flags
    push    rcx
    push    r11
    push    rax
    lock inc qword ptr [rip + pv_iret_count]
    mov     eax, 23
    syscall
    ud2

    # enter_frame(frame in rdi): leaves through a TrapFrame that was prepared by hand.
    .global pv_enter_frame
pv_enter_frame:
    mov     rsp, rdi
    jmp     pv_return

    .section .bss.page, "aw", @nobits
    .balign 4096
    .global shared_info_page
shared_info_page:
    .skip   4096

    .section .bss, "aw", @nobits
    .balign 16
    .global pv_iret_count
pv_iret_count:                              # how often the iret hypercall was made
    .skip   16
boot_stack:
    .skip   65536
    .global boot_stack_top
boot_stack_top:
