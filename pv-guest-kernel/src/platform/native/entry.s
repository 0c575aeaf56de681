# How a PC comes into the kernel, and how it leaves.
#
# Entry: the PVH boot protocol, which QEMU's -kernel speaks when it finds the PHYS32_ENTRY note: 32-bit protected mode, no
# paging, flat segments, ebx = physical address of hvm_start_info (Xen public/arch-x86/hvm/start_info.h).

    .set    VIRT, 0xffffffff80000000

    .section .text.entry, "ax"
    .code32
    .global native_entry
native_entry:
    cld
    mov     esp, offset boot_stack_top - VIRT
    # One table of 2 MiB pages for the first GiB, seen at 0, at the direct map and at -2 GiB.
    mov     edi, offset native_boot_l2 - VIRT
    mov     eax, 0x83
    xor     ecx, ecx
1:  mov     [edi + ecx * 8], eax
    add     eax, 0x200000
    inc     ecx
    cmp     ecx, 512
    jne     1b
    mov     eax, offset native_boot_l2 - VIRT + 3
    mov     [native_boot_l3 - VIRT], eax
    mov     [native_boot_l3_high - VIRT + 510 * 8], eax
    mov     eax, offset native_boot_l3 - VIRT + 3
    mov     [native_boot_l4 - VIRT], eax
    mov     [native_boot_l4 - VIRT + 273 * 8], eax
    mov     eax, offset native_boot_l3_high - VIRT + 3
    mov     [native_boot_l4 - VIRT + 511 * 8], eax
    mov     eax, offset native_boot_l4 - VIRT
    mov     cr3, eax
    mov     eax, cr4
    or      eax, 0x620                      # PAE; fxsave, and exceptions of vector instructions
    mov     cr4, eax
    mov     ecx, 0xc0000080                 # EFER
    rdmsr
    or      eax, 0x901                      # NXE, LME, SCE
    wrmsr
    mov     eax, cr0
    and     al, 0xfb                        # no emulation of floating point
    or      eax, 0x80010003                 # PG, WP, MP, PE
    mov     cr0, eax
    lgdt    [native_boot_gdt_pointer - VIRT]
    push    8
    mov     eax, offset native_long - VIRT
    push    eax
    retf
    .code64
native_long:
    mov     rax, offset native_high
    jmp     rax
native_high:
    lea     rsp, [rip + boot_stack_top]
    xor     eax, eax
    mov     ds, eax
    mov     es, eax
    mov     ss, eax
    mov     fs, eax
    mov     gs, eax
    mov     edi, ebx
    xor     ebp, ebp
    call    native_main
    ud2

    .section .rodata
    .balign 8
native_boot_gdt:
    .quad   0, 0x00af9a000000ffff
native_boot_gdt_pointer:
    .word   15
    .long   native_boot_gdt - VIRT

    .section .bss.page, "aw", @nobits
    .balign 4096
native_boot_l4:
    .skip   4096
native_boot_l3:
    .skip   4096
native_boot_l3_high:
    .skip   4096
native_boot_l2:
    .skip   4096

    .text
.macro NATIVE_TRAP vector
native_trap_\vector:
    push    0
    push    \vector
    jmp     native_trap_common
.endm

.macro NATIVE_TRAP_WITH_ERROR vector
native_trap_\vector:
    push    \vector
    jmp     native_trap_common
.endm

    NATIVE_TRAP 0
    NATIVE_TRAP 1
    NATIVE_TRAP 2
    NATIVE_TRAP 3
    NATIVE_TRAP 4
    NATIVE_TRAP 5
    NATIVE_TRAP 6
    NATIVE_TRAP 7
    NATIVE_TRAP_WITH_ERROR 8
    NATIVE_TRAP_WITH_ERROR 10
    NATIVE_TRAP_WITH_ERROR 11
    NATIVE_TRAP_WITH_ERROR 12
    NATIVE_TRAP_WITH_ERROR 13
    NATIVE_TRAP_WITH_ERROR 14
    NATIVE_TRAP 16
    NATIVE_TRAP_WITH_ERROR 17
    NATIVE_TRAP 18
    NATIVE_TRAP 19
    # Interrupts of the two PICs.
    NATIVE_TRAP 32
    NATIVE_TRAP 33
    NATIVE_TRAP 34
    NATIVE_TRAP 35
    NATIVE_TRAP 36
    NATIVE_TRAP 37
    NATIVE_TRAP 38
    NATIVE_TRAP 39
    NATIVE_TRAP 40
    NATIVE_TRAP 41
    NATIVE_TRAP 42
    NATIVE_TRAP 43
    NATIVE_TRAP 44
    NATIVE_TRAP 45
    NATIVE_TRAP 46
    NATIVE_TRAP 47
    # A call through the local APIC.
    NATIVE_TRAP 48

    .section .rodata
    .balign 8
    .global native_exception_entries        # by vector; 0 where there is none
native_exception_entries:
    .quad   native_trap_0, native_trap_1, native_trap_2, native_trap_3, native_trap_4, native_trap_5, native_trap_6
    .quad   native_trap_7, native_trap_8, 0, native_trap_10, native_trap_11, native_trap_12, native_trap_13
    .quad   native_trap_14, 0, native_trap_16, native_trap_17, native_trap_18, native_trap_19
    .global native_interrupt_entries        # by interrupt line; the call comes last
native_interrupt_entries:
    .quad   native_trap_32, native_trap_33, native_trap_34, native_trap_35, native_trap_36, native_trap_37
    .quad   native_trap_38, native_trap_39, native_trap_40, native_trap_41, native_trap_42, native_trap_43
    .quad   native_trap_44, native_trap_45, native_trap_46, native_trap_47, native_trap_48

    .text
    # Kernel and user mode have a GS base of their own (on a PC both are 0).
native_trap_common:
    test    byte ptr [rsp + 24], 3          # the code segment
    jz      native_save
    swapgs
    jmp     native_save

    .global native_syscall
native_syscall:                             # a user process executed `syscall`; rcx = rip, r11 = rflags, IF is clear
    swapgs
    mov     [rip + native_user_sp], rsp
    mov     rsp, [rip + native_kernel_sp]
    push    0x1b                            # user stack segment
    push    [rip + native_user_sp]
    push    r11
    push    0x23                            # user code segment
    push    rcx
    push    0
    push    0x101

native_save:
    SAVE_REGISTERS
    mov     rdi, rsp
    call    native_trap

    .global native_return
native_return:
    cmp     qword ptr [rsp + 15 * 8], 0x101
    je      native_sysret
    RESTORE_REGISTERS
    add     rsp, 16                         # vector and error code
    test    byte ptr [rsp + 8], 3
    jz      1f
    swapgs
1:  iretq

    # The frame of a system call has a user address as its rip (the kernel put it there), so sysret cannot fault.
native_sysret:
    RESTORE_REGISTERS
    add     rsp, 16
    mov     rcx, [rsp]
    mov     r11, [rsp + 16]
    mov     rsp, [rsp + 24]
    swapgs
    sysretq

    # enter_frame(frame in rdi): leaves through a TrapFrame that was prepared by hand.
    .global native_enter_frame
native_enter_frame:
    mov     rsp, rdi
    jmp     native_return

    .section .bss, "aw", @nobits
    .balign 16
native_user_sp:
    .skip   8
    .global native_kernel_sp
native_kernel_sp:
    .skip   8
