# The kernel of an HVM guest: what is copied to guest frame 0x100 (1 MiB) and entered there in 32-bit mode without paging.
#
# Memory below: 0x101000 to 0x103fff tables, 0x104000 results, 0x106000 what strings move, 0x109000 the stack's end. The
# devices' registers are seen from 8 MiB on, 2 MiB each. Each result is a quadword; what they are is in hvm.rs.

    .section .rodata.hvm, "a", @progbits
    .balign 4096
    .globl hvm_kernel, hvm_kernel_end
    .code32
hvm_kernel:
    jmp hvm_start
    .balign 16                          # 0x100010: the global table
    .quad 0
    .quad 0x00af9b000000ffff
    .short 15                           # 0x100020: its pointer
    .long 0x100010
    .balign 16
    .short 0x42 * 16 - 1                # 0x100030: the interrupt table's pointer
    .quad 0x100040
    .balign 16                          # 0x100040: the interrupt table
    .skip 14 * 16
    .short hvm_page_fault - hvm_kernel, 8, 0x8e00, 0x10
    .quad 0
    .skip (0x30 - 15) * 16
    .short hvm_timer - hvm_kernel, 8, 0x8e00, 0x10          # 0x30: the timer, by the 8259
    .quad 0
    .skip 3 * 16
    .short hvm_line - hvm_kernel, 8, 0x8e00, 0x10           # 0x34: line 4, by the 8259
    .quad 0
    .skip 11 * 16
    .short hvm_ioapic_timer - hvm_kernel, 8, 0x8e00, 0x10   # 0x40: the timer, by the I/O APIC
    .quad 0
    .short hvm_pin - hvm_kernel, 8, 0x8e00, 0x10            # 0x41: a PCI pin
    .quad 0
hvm_start:
    mov esp, 0x109000
    mov edi, 0x101000
    mov dword ptr [edi], 0x102003
    mov edi, 0x102000
    mov dword ptr [edi], 0x103003
    mov edi, 0x103000
    mov dword ptr [edi], 0x83
    mov dword ptr [edi + 0x20], 0xf0000083      # 8 MiB: a device model's
    mov dword ptr [edi + 0x28], 0xe0000083      # 10 MiB: nobody's
    mov dword ptr [edi + 0x30], 0xfec00093      # 12 MiB: the I/O APIC
    mov dword ptr [edi + 0x38], 0xfee00093      # 14 MiB: the local APIC
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
    .long 0x100000 + (hvm_long - hvm_kernel)
    .short 8

    .code64
hvm_long:
    xor eax, eax
    mov ss, eax
    mov ds, eax
    mov es, eax
    lidt [0x100030]
    cld
    # A device model's ports.
    mov dx, 0x1230
    in al, dx
    mov [0x104000], rax
    xor eax, eax
    in eax, dx
    mov [0x104008], rax
    # A string of four words, and one out.
    mov ecx, 4
    mov edi, 0x106000
    mov edx, 0x1232
    rep insw
    mov [0x104010], rcx
    mov rax, [0x106000]
    mov [0x104018], rax
    mov ecx, 3
    mov esi, 0x106000
    rep outsb
    mov [0x104020], rsi
    # A string to where there are no tables.
    mov edi, 0x40000000
    insb
    mov rax, [0x104110]
    mov [0x104028], rax
    # A port of nobody's.
    xor eax, eax
    mov dx, 0x999
    in al, dx
    mov [0x104030], rax
    # Registers in memory.
    mov eax, [0x800010]
    mov [0x104038], rax
    or dword ptr [0x800010], 1
    mov eax, [0x800010]
    mov [0x104040], rax
    movzx eax, byte ptr [0x800013]
    mov [0x104048], rax
    mov eax, 0x77777777
    mov edi, 0x800020
    mov ecx, 2
    rep stosd
    mov [0x104050], rdi
    mov esi, 0x800020
    mov edi, 0x106100
    mov ecx, 2
    rep movsd
    mov rax, [0x106100]
    mov [0x104058], rax
    test dword ptr [0x800020], 0x1
    setnz al
    movzx eax, al
    mov [0x104060], rax
    # An address of nobody's.
    mov eax, [0xa00000]
    mov [0x104068], rax
    # The 8259s, line 4 open; the local APIC passes their interrupts.
    mov al, 0x11
    out 0x20, al
    out 0xa0, al
    mov al, 0x30
    out 0x21, al
    mov al, 0x38
    out 0xa1, al
    mov al, 4
    out 0x21, al
    mov al, 2
    out 0xa1, al
    mov al, 1
    out 0x21, al
    out 0xa1, al
    mov al, 0xef
    out 0x21, al
    mov al, 0xff
    out 0xa1, al
    xor eax, eax
    in al, 0x21
    mov [0x104070], rax
    mov dword ptr [0xe000f0], 0x1ff
    mov dword ptr [0xe00350], 0x700
    mov dx, 0x1231                      # the device model raises line 4
    mov al, 1
    out dx, al
    nop
    mov rax, [0x104100]
    mov [0x104078], rax                 # none with interrupts off
    sti
    nop
    nop
    cli
    mov rax, [0x104100]
    mov [0x104080], rax                 # one
    # The timer, 100 times a second: by the 8259, then by the I/O APIC.
    mov al, 0x34
    out 0x43, al
    mov al, 0x9c
    out 0x40, al
    mov al, 0x2e
    out 0x40, al
    mov al, 0xfe
    out 0x21, al
1:  sti
    hlt
    cli
    cmp qword ptr [0x104108], 2
    jb 1b
    mov al, 0xff
    out 0x21, al
    mov dword ptr [0xc00000], 1
    mov eax, [0xc00010]
    mov [0x104088], rax
    mov dword ptr [0xc00000], 0x15
    mov dword ptr [0xc00010], 0
    mov dword ptr [0xc00000], 0x14
    mov dword ptr [0xc00010], 0x40
2:  sti
    hlt
    cli
    cmp qword ptr [0x104118], 2
    jb 2b
    mov dword ptr [0xc00010], 0x10000
    # A pin of PCI device 3: input 28, a level, active low.
    mov dword ptr [0xc00000], 0x49
    mov dword ptr [0xc00010], 0
    mov dword ptr [0xc00000], 0x48
    mov dword ptr [0xc00010], 0xa041
    mov dx, 0x1231
    mov al, 2
    out dx, al
    sti
    nop
    nop
    cli
    mov rax, [0x104120]
    mov [0x104090], rax                 # one
    # The clock, and ACPI's timer.
    xor eax, eax
    mov al, 0x0d
    out 0x70, al
    in al, 0x71
    mov [0x104098], rax
    mov dx, 0xb008
    in eax, dx
    mov ebx, eax
    in eax, dx
    sub eax, ebx
    mov [0x1040a0], rax
    # Off, with reason 0.
    mov dword ptr [0x106200], 0
    mov eax, 29
    mov edi, 2
    mov esi, 0x106200
    vmmcall
3:  hlt
    jmp 3b

hvm_line:
    inc qword ptr [0x104100]
    push rax
    push rdx
    mov dx, 0x1231                      # the device model lowers it
    mov al, 0
    out dx, al
    mov al, 0x20
    out 0x20, al
    pop rdx
    pop rax
    iretq

hvm_timer:
    inc qword ptr [0x104108]
    push rax
    mov al, 0x20
    out 0x20, al
    pop rax
    iretq

hvm_ioapic_timer:
    inc qword ptr [0x104118]
    mov dword ptr [0xe000b0], 0
    iretq

hvm_pin:
    inc qword ptr [0x104120]
    push rax
    push rdx
    mov dx, 0x1231
    mov al, 3
    out dx, al
    mov dword ptr [0xe000b0], 0
    pop rdx
    pop rax
    iretq

hvm_page_fault:
    push rax
    mov rax, [rsp + 8]                  # error code
    shl rax, 32
    mov [0x104110], rax
    mov rax, cr2
    or [0x104110], rax
    pop rax
    add rsp, 8
    add qword ptr [rsp], 1              # behind `insb`
    iretq

hvm_kernel_end:
