//! Rules of the room `traps`.

crate::rules! {
    NO_HANDLER = "TRP-01", "An exception needs a handler in the trap table, or there is nowhere to go on",
        "Xen: set_trap_table";
    NO_EVENT_CALLBACK = "TRP-02", "A guest that unmasks events needs an event callback", "Xen: callback_op, set_callbacks";
    FRAME_PUSH = "TRP-03", "The kernel stack must be mapped and writable where an entry's frame is pushed",
        "Xen: bounce frame; domain crash on a faulting push";
    IRET_FRAME = "TRP-04", "The frame of iret must be readable at the stack pointer", "Xen: HYPERVISOR_iret";
    IRET_TO_USER_WITHOUT_TABLES = "TRP-05", "iret to user mode needs a user root table (MMUEXT_NEW_USER_BASEPTR)",
        "Xen: HYPERVISOR_iret";
    NON_CANONICAL = "TRP-06", "An address or a segment base must be canonical", "Xen: callback_op, set_trap_table, set_segment_base";
    CALLBACK_TYPE = "TRP-07", "The callback type must be one that this hypervisor knows", "Xen: public/callback.h";
    CALLBACK_STAYS = "TRP-08", "Only the NMI callback can be unregistered", "Xen: callback_op";
    SEGMENT_BASE_WHICH = "TRP-09", "The segment base must be one of FS, user GS, kernel GS, user GS selector",
        "Xen: public/arch-x86/xen-x86_64.h, SEGBASE_*";
    GDT_TOO_LONG = "TRP-10", "A descriptor table has at most 7168 entries: frames 14 and 15 are the hypervisor's",
        "Xen: public/arch-x86/xen.h, FIRST_RESERVED_GDT_ENTRY";
    GDT_FRAME = "TRP-11", "A frame of the descriptor table must be the domain's own, hold only allowed descriptors and not be mapped writable",
        "Xen: set_gdt, type seg_desc_page";
    DESCRIPTOR_PLACE = "TRP-12", "A descriptor is updated at an 8-byte aligned machine address in a frame of the domain",
        "Xen: update_descriptor";
    DESCRIPTOR_KIND = "TRP-13", "A present descriptor must be code, data, or a call gate to a guest code selector",
        "Xen: update_descriptor";
    ASSIST_TYPE = "TRP-14", "The assist must be one that a 64-bit PV guest has", "Xen: vm_assist, VMASST_TYPE_*";
    DEBUG_REGISTER_NUMBER = "TRP-15", "The debug register must be 0 to 3, 6 or 7, or 4 or 5 without CR4.DE", "AMD APM 2 §13.1.1";
    BREAKPOINT_ADDRESS = "TRP-16", "A breakpoint may not lie in the hypervisor's part of the address space",
        "Xen: set_debugreg, -EPERM (XSA-444)";
    DEBUG_RESERVED = "TRP-17", "The upper half of DR6 and DR7 must be zero", "AMD APM 2 §13.1.1";
    DEBUG_CONTROL = "TRP-18", "DR7 may not set general detect, nor break on I/O without CR4.DE", "Xen: set_debugreg, -EPERM";
    BAD_SELECTOR = "TRP-19", "A segment that cannot be loaded needs a failsafe callback", "Xen: failsafe callback";
    STACK_IN_HYPERVISOR = "TRP-20", "The kernel stack may not lie in the hypervisor's part of the address space",
        "Xen: bounce frame";
    NMI_COMMAND = "TRP-21", "The NMI operation must register or unregister a callback", "Xen: public/nmi.h";
}
