# What the kernel tells the domain builder (Xen public/elfnote.h). One row per note.

    .section .note.Xen, "a", @note
.macro NOTE type, kind, value:vararg
    .balign 4
    .long   2f - 1f, 4f - 3f, \type
1:  .asciz  "Xen"
2:  .balign 4
3:  \kind   \value
4:  .balign 4
.endm

    NOTE 6,  .asciz, "xenolith"                 # GUEST_OS
    NOTE 7,  .asciz, "0.1"                      # GUEST_VERSION
    NOTE 5,  .asciz, "xen-3.0"                  # XEN_VERSION
    NOTE 8,  .asciz, "generic"                  # LOADER
    NOTE 3,  .quad, 0xffffffff80000000          # VIRT_BASE
    NOTE 4,  .quad, 0                           # PADDR_OFFSET
    NOTE 1,  .quad, pv_entry                    # ENTRY
    NOTE 9,  .asciz, "yes"                      # PAE_MODE
    NOTE 10, .asciz, "pae_pgdir_above_4gb"      # FEATURES
    NOTE 17, .quad, 0x800                       # SUPPORTED_FEATURES: dom0
    NOTE 13, .quad, 1, 1                        # L1_MFN_VALID: mask, value
    NOTE 14, .long, 1                           # SUSPEND_CANCEL: a suspend may end with 1, "go on here"
    NOTE 16, .long, 1                           # MOD_START_PFN: the ramdisk may stay unmapped
    NOTE 12, .quad, 0xffff800000000000          # HV_START_LOW
    NOTE 18, .long, native_entry - 0xffffffff80000000    # PHYS32_ENTRY: QEMU's -kernel takes it on a bare machine
