# The kernel of a PVH guest: what is copied to guest frame 0x100 (1 MiB) and entered there in 32-bit mode without paging.
#
# Memory below: 0x101000 to 0x103fff tables, 0x104000 results, 0x105000 shared info, 0x106000 hypercall page, 0x107000
# arguments, 0x108000 stack. Each result is a quadword; what they are is in pvh.rs.

    .section .rodata.pvh, "a", @progbits
    .balign 4096
    .globl pvh_kernel, pvh_kernel_end
    .code32
pvh_kernel:
    jmp pvh_start
    .balign 16                          # 0x100010: the global table
    .quad 0
    .quad 0x00af9b000000ffff
    .short 15                           # 0x100020: its pointer
    .long 0x100010
    .balign 16
    .short 0x33 * 16 - 1                # 0x100030: the interrupt table's pointer
    .quad 0x100040
    .balign 16                          # 0x100040: the interrupt table
    .skip 13 * 16
    .short pvh_protection - pvh_kernel, 8, 0x8e00, 0x10
    .quad 0
    .skip (0x30 - 14) * 16
    .short pvh_upcall - pvh_kernel, 8, 0x8e00, 0x10
    .quad 0
    .short pvh_interrupt - pvh_kernel, 8, 0x8e00, 0x10
    .quad 0
    .short pvh_own_upcall - pvh_kernel, 8, 0x8e00, 0x10
    .quad 0
pvh_start:
    mov ebp, ebx                        # start info
    mov esp, 0x109000
    # One GiB one to one, by 2 MiB pages.
    mov edi, 0x101000
    mov dword ptr [edi], 0x102003
    mov edi, 0x102000
    mov dword ptr [edi], 0x103003
    mov edi, 0x103000
    mov eax, 0x83
    mov ecx, 8
1:  mov [edi], eax
    add eax, 0x200000
    add edi, 8
    dec ecx
    jnz 1b
    mov eax, 0x40000000                 # before paging, in 32-bit mode
    cpuid
    mov dword ptr [0x104000], ebx
    mov dword ptr [0x104004], ecx
    mov eax, cr4
    or eax, 0x20
    mov cr4, eax
    mov eax, 0x101000
    mov cr3, eax
    mov ecx, 0xc0000080
    rdmsr
    or eax, 0x100
    wrmsr
    mov eax, cr0
    or eax, 0x80000001
    mov cr0, eax
    lgdt [0x100020]
    .byte 0xea
    .long 0x100000 + (pvh_long - pvh_kernel)
    .short 8

    .code64
pvh_long:
    xor eax, eax
    mov ss, eax
    mov ds, eax
    mov es, eax
    mov [0x104008], rbp
    lidt [0x100030]
    # EFER as it is seen.
    mov ecx, 0xc0000080
    rdmsr
    mov [0x104010], rax
    # xen_version by vmmcall.
    mov eax, 17
    xor edi, edi
    xor esi, esi
    vmmcall
    mov [0x104018], rax
    # The hypercall page, and features by it.
    mov ecx, 0x40000000
    mov eax, 0x106000
    xor edx, edx
    wrmsr
    mov edi, 6
    mov esi, 0x107000
    mov qword ptr [0x107000], 0
    mov rax, 0x106000 + 17 * 32
    call rax
    mov [0x104020], rax
    mov eax, [0x107004]
    mov [0x104028], rax
    # A hypercall about page tables.
    mov eax, 1
    xor edi, edi
    vmmcall
    mov [0x104030], rax
    # The shared page at 0x105000.
    mov word ptr [0x107000], 0x7ff0
    mov word ptr [0x107002], 0
    mov dword ptr [0x107004], 0
    mov qword ptr [0x107008], 0
    mov qword ptr [0x107010], 0x105
    mov eax, 12
    mov edi, 7
    mov esi, 0x107000
    vmmcall
    mov [0x104038], rax
    # Upcalls by vector 0x30.
    mov dword ptr [0x107000], 0x7ff0
    mov dword ptr [0x107004], 0
    mov rax, 0x0200000000000030
    mov [0x107008], rax
    mov eax, 34
    mov edi, 0
    mov esi, 0x107000
    vmmcall
    mov [0x104040], rax
    # An event to itself: bind_ipi, send, with interrupts off; it comes when they are on.
    mov dword ptr [0x107000], 0
    mov dword ptr [0x107004], 0
    mov eax, 32
    mov edi, 7
    mov esi, 0x107000
    vmmcall
    mov [0x104048], rax
    mov eax, [0x107004]
    mov [0x104118], eax
    mov [0x107000], eax
    mov eax, 32
    mov edi, 4
    mov esi, 0x107000
    vmmcall
    mov [0x104050], rax
    mov rax, [0x104100]
    mov [0x104058], rax                 # upcalls so far: none
    sti
    nop
    nop
    cli
    mov rax, [0x104100]
    mov [0x104060], rax                 # one
    # A timer in 10 ms, and sleep.
    mov dword ptr [0x107000], 0         # VIRQ_TIMER
    mov dword ptr [0x107004], 0         # vCPU 0
    mov eax, 32
    mov edi, 1
    mov esi, 0x107000
    vmmcall
    mov [0x104068], rax
    mov rdi, [0x105000 + 32 + 16]       # vcpu_time_info.system_time
    add rdi, 10000000
    mov eax, 15
    vmmcall
    mov [0x104070], rax
    sti
    hlt
    cli
    mov rax, [0x104100]
    mov [0x104078], rax                 # more than one
    # A register that is not there.
    mov ecx, 0x1234
    rdmsr
    mov rax, [0x104108]
    mov [0x104080], rax                 # protection faults
    # An I/O port that is not there.
    mov eax, 0
    in al, 0x60
    mov [0x104088], rax
    # A physical address without memory is given back, and taken again.
    mov rax, 0x107100
    mov [0x107000], rax
    mov qword ptr [0x107008], 1
    mov qword ptr [0x107010], 0
    mov word ptr [0x107018], 0x7ff0
    mov qword ptr [0x107100], 0x110
    mov eax, 12
    mov edi, 1
    mov esi, 0x107000
    vmmcall
    mov [0x104090], rax
    mov eax, 12
    mov edi, 6
    mov esi, 0x107000
    vmmcall
    mov [0x104098], rax
    mov rax, [0x110000]
    mov [0x1040a0], rax                 # zeroed
    # The local APIC: its base, its version as it is in memory, which is seen at 14 MiB.
    mov ecx, 0x1b
    rdmsr
    mov [0x1040a8], rax
    mov eax, 0xfee00093
    mov [0x103038], rax
    mov rax, cr3
    mov cr3, rax
    mov eax, [0xe00030]
    mov [0x1040b0], rax
    # x2APIC mode, and an interrupt to itself by vector 0x31.
    mov ecx, 0x1b
    rdmsr
    or eax, 0x400
    wrmsr
    mov ecx, 0x803
    rdmsr
    mov [0x1040b8], rax
    mov ecx, 0x80f
    mov eax, 0x1ff
    xor edx, edx
    wrmsr
    mov ecx, 0x83f
    mov eax, 0x31
    wrmsr
    mov rax, [0x104110]
    mov [0x1040c0], rax                 # none with interrupts off
    sti
    nop
    nop
    cli
    mov rax, [0x104110]
    mov [0x1040c8], rax                 # one
    # Upcalls no more by vector 0x30, but by 0x32 through the local APIC.
    mov dword ptr [0x107000], 0x7ff0
    mov dword ptr [0x107004], 0
    mov qword ptr [0x107008], 0
    mov eax, 34
    mov edi, 0
    mov esi, 0x107000
    vmmcall
    mov dword ptr [0x107000], 0
    mov dword ptr [0x107004], 0x32
    mov eax, 34
    mov edi, 23
    mov esi, 0x107000
    vmmcall
    mov [0x1040d0], rax
    mov eax, [0x104118]
    mov [0x107000], eax
    mov eax, 32
    mov edi, 4
    mov esi, 0x107000
    vmmcall
    sti
    nop
    nop
    cli
    mov rax, [0x104120]
    mov [0x1040d8], rax                 # one
    # Off, with reason 0.
    mov dword ptr [0x107000], 0
    mov eax, 29
    mov edi, 2
    mov esi, 0x107000
    vmmcall
2:  hlt
    jmp 2b

pvh_upcall:
    push rax
    mov byte ptr [0x105000], 0          # evtchn_upcall_pending
    mov qword ptr [0x105008], 0         # evtchn_pending_sel
    mov qword ptr [0x105000 + 2048], 0  # evtchn_pending[0]
    inc qword ptr [0x104100]
    pop rax
    iretq

pvh_interrupt:
    inc qword ptr [0x104110]
    jmp pvh_end_of_interrupt

pvh_own_upcall:
    mov byte ptr [0x105000], 0
    mov qword ptr [0x105008], 0
    mov qword ptr [0x105000 + 2048], 0
    inc qword ptr [0x104120]
pvh_end_of_interrupt:
    push rax
    push rcx
    push rdx
    mov ecx, 0x80b
    xor eax, eax
    xor edx, edx
    wrmsr
    pop rdx
    pop rcx
    pop rax
    iretq

pvh_protection:
    inc qword ptr [0x104108]
    add rsp, 8                          # error code
    add qword ptr [rsp], 2
    iretq

pvh_kernel_end:
