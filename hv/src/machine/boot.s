# The first instructions: from the boot loader's 32-bit mode to 64-bit Rust.
#
# All of this is linked where it is loaded. Paging starts with the first 4 GiB mapped one to one, and the image mapped
# where it is linked; both are given up when the hypervisor has built its own tables.
#
# Sources: Multiboot 0.6.96 §3.1, Multiboot2 2.0 §3.1, AMD APM 2 §14.8.

.section .boot.header, "aw"
.balign 8
multiboot1:
    .long 0x1badb002
    .long 0x00010003                        # modules on page borders, memory map, addresses below
    .long -(0x1badb002 + 0x00010003)
    .long multiboot1
    .long load_start
    .long 0                                 # load the whole file
    .long 0                                 # zeroed data is in the file
    .long boot_entry
.balign 8
multiboot2:
    .long 0xe85250d6
    .long 0
    .long multiboot2_end - multiboot2
    .long -(0xe85250d6 + (multiboot2_end - multiboot2))
    .short 2, 0                             # addresses
    .long 24
    .long multiboot2, load_start, 0, 0
    .short 3, 0                             # entry
    .long 12
    .long boot_entry
    .balign 8
    .short 6, 0                             # modules on page borders
    .long 8
    .short 0, 0
    .long 8
multiboot2_end:

.section .boot.text, "awx"
.code32
.global boot_entry
boot_entry:
    cli
    cld
    mov esp, offset boot_stack_low
    mov edi, eax                            # the loader's magic, first argument of boot_start
    mov esi, ebx                            # its information, second argument
    mov eax, 0x80000001
    cpuid
    bt edx, 29
    jnc no_long_mode
    mov ebp, edx

    mov ecx, 2048                           # 4 GiB in pages of 2 MiB
    mov ebx, offset boot_l2
    mov eax, 0x83
1:  mov [ebx], eax
    add eax, 0x200000
    add ebx, 8
    loop 1b
    mov ebx, offset boot_l3
    mov eax, offset boot_l2 + 3
    mov ecx, 4
2:  mov [ebx], eax
    add eax, 4096
    add ebx, 8
    loop 2b
    mov eax, offset boot_l2 + 3
    mov [boot_l3_image + 322 * 8], eax      # the image's GiB is physical GiB 0
    mov eax, offset boot_l3 + 3
    mov [boot_l4], eax
    mov eax, offset boot_l3_image + 3
    mov [boot_l4 + 261 * 8], eax

    mov eax, offset boot_l4
    mov cr3, eax
    mov eax, cr4
    or eax, 0xa0                            # physical address extension, global pages
    mov cr4, eax
    mov ecx, 0xc0000080
    rdmsr
    or eax, 0x900                           # long mode, no-execute
    wrmsr
    mov eax, 0x80050033                     # paging, write protection, numeric errors
    mov cr0, eax
    lgdt [boot_gdt_pointer]
    ljmp 8, offset boot_long_mode

no_long_mode:
    mov ebx, offset no_long_mode_text
3:  mov al, [ebx]
    test al, al
    jz 4f
    mov edx, 0x3f8
    out dx, al
    inc ebx
    jmp 3b
4:  hlt
    jmp 4b

.code64
boot_long_mode:
    xor eax, eax
    mov ds, eax
    mov es, eax
    mov ss, eax
    mov fs, eax
    mov gs, eax
    movabs rsp, offset boot_stack_top
    movabs rax, offset boot_start
    xor ebp, ebp
    call rax
    ud2

# Another processor: what is copied to a page below 1 MiB, where it starts in real mode with cs:ip at the page. It goes
# to 64-bit mode in one step, on the tables that the first one started with.
.code16
.global other_cpu_start
other_cpu_start:
    cli
    mov ax, cs
    mov ds, ax
    mov eax, 0xa0
    mov cr4, eax
    mov eax, offset boot_l4
    mov cr3, eax
    mov ecx, 0xc0000080
    rdmsr
    or eax, 0x900
    wrmsr
    .byte 0x0f, 0x01, 0x16                  # lgdt, at an offset in the page
    .short other_cpu_gdt - other_cpu_start
    mov eax, 0x80050033
    mov cr0, eax
    .byte 0x66, 0xea                        # far jump
    .long other_cpu_long_mode
    .short 8
other_cpu_gdt:
    .short 15
    .long boot_gdt                          # below 16 MiB
.global other_cpu_end
other_cpu_end:

# It goes on only with the number that waits for it: one that comes too late stops here.
.code64
other_cpu_long_mode:
    xor eax, eax
    mov ds, eax
    mov es, eax
    mov ss, eax
    mov fs, eax
    mov gs, eax
    movabs rsp, offset boot_stack_top
    movabs rbx, offset OTHER_CPU_NUMBER
    xchg eax, [rbx]
    test eax, eax
    jz 5f
    mov edi, eax
    movabs rax, offset other_cpu
    xor ebp, ebp
    call rax
5:  hlt
    jmp 5b

.section .boot.data, "aw"
no_long_mode_text:
    .asciz "Xenolith hv needs a 64-bit processor (long mode).\r\n"
.balign 8
boot_gdt:
    .quad 0
    .quad 0x00af9a000000ffff                # 64-bit code
boot_gdt_pointer:
    .short 15
    .long boot_gdt
.balign 4096
boot_l4: .skip 4096
boot_l3: .skip 4096
boot_l3_image: .skip 4096
boot_l2: .skip 16384
    .skip 256
boot_stack_low:
