# The page that the hypervisor fills with its stubs, 32 bytes a hypercall.

    .section .text.pvh_stubs, "ax"
    .balign 4096
    .global pvh_stubs
pvh_stubs:
    .skip   4096
