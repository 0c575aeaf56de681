//! The x86-64 part of the ABI: registers, exception handlers, the initial state of a vCPU, selectors, the address map.
//!
//! Xen: `public/arch-x86/xen.h`, `public/arch-x86/xen-x86_64.h`.

use crate::layout::{constants, structs};

/// The bytes before `cpuid` that make a PV guest's `cpuid` trap to the hypervisor: `ud2a; .ascii "xen"`.
///
/// Xen: `XEN_EMULATE_PREFIX` in `public/arch-x86/xen.h`.
pub const XEN_EMULATE_PREFIX: [u8; 5] = [0x0f, 0x0b, 0x78, 0x65, 0x6e];

constants! {
    header "arch-x86/xen.h";

    /// First page of the descriptor table that belongs to the hypervisor.
    pub const FIRST_RESERVED_GDT_PAGE: u32 = 14;
    /// First byte of the descriptor table that belongs to the hypervisor.
    pub const FIRST_RESERVED_GDT_BYTE: u32 = FIRST_RESERVED_GDT_PAGE * 4096;
    /// First entry of the descriptor table that belongs to the hypervisor.
    pub const FIRST_RESERVED_GDT_ENTRY: u32 = FIRST_RESERVED_GDT_BYTE / 8;

    /// In [`VcpuGuestContext::flags`]: the FPU state is valid.
    pub const VGCF_I387_VALID [VGCF_i387_valid]: u64 = 1 << 0;
    /// In [`VcpuGuestContext::flags`]: the vCPU is in kernel mode.
    pub const VGCF_IN_KERNEL [VGCF_in_kernel]: u64 = 1 << 2;
    /// In [`VcpuGuestContext::flags`]: the failsafe callback is entered with events masked.
    pub const VGCF_FAILSAFE_DISABLES_EVENTS [VGCF_failsafe_disables_events]: u64 = 1 << 3;
    /// In [`VcpuGuestContext::flags`]: the syscall callback is entered with events masked.
    pub const VGCF_SYSCALL_DISABLES_EVENTS [VGCF_syscall_disables_events]: u64 = 1 << 4;
    /// In [`VcpuGuestContext::flags`]: the vCPU runs.
    pub const VGCF_ONLINE [VGCF_online]: u64 = 1 << 5;
    /// In [`IretContext::flags`]: rcx and r11 need not be restored, the kernel was entered by `syscall`.
    pub const VGCF_IN_SYSCALL [VGCF_in_syscall]: u64 = 1 << 8;

    /// Selector of a flat 32-bit code segment for ring 3.
    pub const FLAT_RING3_CS32: u16 = 0xe023;
    /// Selector of a flat 64-bit code segment for ring 3.
    pub const FLAT_RING3_CS64: u16 = 0xe033;
    /// Selector of a flat 32-bit data segment for ring 3.
    pub const FLAT_RING3_DS32: u16 = 0xe02b;
    /// The null selector, which serves as 64-bit data segment.
    pub const FLAT_RING3_DS64: u16 = 0;
    /// Selector of a flat 32-bit stack segment for ring 3.
    pub const FLAT_RING3_SS32: u16 = 0xe02b;
    /// Selector of a flat stack segment for 64-bit code in ring 3.
    pub const FLAT_RING3_SS64: u16 = 0xe02b;
    /// Data selector of a 64-bit PV kernel.
    pub const FLAT_KERNEL_DS64: u16 = FLAT_RING3_DS64;
    /// Data selector of a 32-bit PV kernel.
    pub const FLAT_KERNEL_DS32: u16 = FLAT_RING3_DS32;
    /// Data selector of the PV kernel.
    pub const FLAT_KERNEL_DS: u16 = FLAT_KERNEL_DS64;
    /// Code selector of a 64-bit PV kernel.
    pub const FLAT_KERNEL_CS64: u16 = FLAT_RING3_CS64;
    /// Code selector of a 32-bit PV kernel.
    pub const FLAT_KERNEL_CS32: u16 = FLAT_RING3_CS32;
    /// Code selector of the PV kernel.
    pub const FLAT_KERNEL_CS: u16 = FLAT_KERNEL_CS64;
    /// Stack selector of a 64-bit PV kernel.
    pub const FLAT_KERNEL_SS64: u16 = FLAT_RING3_SS64;
    /// Stack selector of a 32-bit PV kernel.
    pub const FLAT_KERNEL_SS32: u16 = FLAT_RING3_SS32;
    /// Stack selector of the PV kernel.
    pub const FLAT_KERNEL_SS: u16 = FLAT_KERNEL_SS64;
    /// Data selector of a 64-bit user.
    pub const FLAT_USER_DS64: u16 = FLAT_RING3_DS64;
    /// Data selector of a 32-bit user.
    pub const FLAT_USER_DS32: u16 = FLAT_RING3_DS32;
    /// Data selector of the user.
    pub const FLAT_USER_DS: u16 = FLAT_USER_DS64;
    /// Code selector of a 64-bit user.
    pub const FLAT_USER_CS64: u16 = FLAT_RING3_CS64;
    /// Code selector of a 32-bit user.
    pub const FLAT_USER_CS32: u16 = FLAT_RING3_CS32;
    /// Code selector of the user.
    pub const FLAT_USER_CS: u16 = FLAT_USER_CS64;
    /// Stack selector of a 64-bit user.
    pub const FLAT_USER_SS64: u16 = FLAT_RING3_SS64;
    /// Stack selector of a 32-bit user.
    pub const FLAT_USER_SS32: u16 = FLAT_RING3_SS32;
    /// Stack selector of the user.
    pub const FLAT_USER_SS: u16 = FLAT_USER_SS64;

    /// First address of the hypervisor's hole (L4 slot 256).
    pub const HYPERVISOR_VIRT_START: u64 = 0xffff_8000_0000_0000;
    /// Address after the hypervisor's hole (L4 slot 272).
    pub const HYPERVISOR_VIRT_END: u64 = 0xffff_8800_0000_0000;
    /// First address of the machine-to-physical table: one `u64` for each machine frame, read-only.
    pub const MACH2PHYS_VIRT_START: u64 = 0xffff_8000_0000_0000;
    /// Address after the room for the machine-to-physical table.
    pub const MACH2PHYS_VIRT_END: u64 = 0xffff_8040_0000_0000;
    /// Number of entries for which the machine-to-physical table has room.
    pub const MACH2PHYS_NR_ENTRIES: u64 = (MACH2PHYS_VIRT_END - MACH2PHYS_VIRT_START) >> 3;

    /// `set_segment_base`: FS base.
    pub const SEGBASE_FS: u32 = 0;
    /// `set_segment_base`: GS base of user mode.
    pub const SEGBASE_GS_USER: u32 = 1;
    /// `set_segment_base`: GS base of kernel mode.
    pub const SEGBASE_GS_KERNEL: u32 = 2;
    /// `set_segment_base`: loads the selector of user mode's GS (and the base with it).
    pub const SEGBASE_GS_USER_SEL: u32 = 3;

    /// [`CpuidLeaf::subleaf`] of a leaf that has none.
    pub const XEN_CPUID_NO_SUBLEAF: u32 = 0xffff_ffff;
    /// I/O port of the HVM debug console.
    pub const XEN_HVM_DEBUGCONS_IOPORT: u16 = 0xe9;

    /// Emulate a local APIC.
    pub const XEN_X86_EMU_LAPIC: u32 = 1 << 0;
    /// Emulate an HPET.
    pub const XEN_X86_EMU_HPET: u32 = 1 << 1;
    /// Emulate ACPI power management.
    pub const XEN_X86_EMU_PM: u32 = 1 << 2;
    /// Emulate a real-time clock.
    pub const XEN_X86_EMU_RTC: u32 = 1 << 3;
    /// Emulate an IOAPIC.
    pub const XEN_X86_EMU_IOAPIC: u32 = 1 << 4;
    /// Emulate a PIC.
    pub const XEN_X86_EMU_PIC: u32 = 1 << 5;
    /// Emulate VGA.
    pub const XEN_X86_EMU_VGA: u32 = 1 << 6;
    /// Emulate an IOMMU.
    pub const XEN_X86_EMU_IOMMU: u32 = 1 << 7;
    /// Emulate a PIT; the only one a PV domain may have.
    pub const XEN_X86_EMU_PIT: u32 = 1 << 8;
    /// Route physical interrupts over event channels.
    pub const XEN_X86_EMU_USE_PIRQ: u32 = 1 << 9;
    /// Emulate PCI configuration space in the hypervisor.
    pub const XEN_X86_EMU_VPCI: u32 = 1 << 10;
    /// All of these.
    pub const XEN_X86_EMU_ALL: u32 = (1 << 11) - 1;
    /// In [`ArchDomainconfig::misc_flags`]: unknown MSRs read as zero and ignore writes.
    pub const XEN_X86_MSR_RELAXED: u32 = 1 << 0;
    /// The largest flag of `misc_flags`.
    pub const XEN_X86_MISC_FLAGS_MAX: u32 = XEN_X86_MSR_RELAXED;
}

structs! {
    header "arch-x86/xen.h";

    /// One exception handler. A list of them ends with an `address` of 0.
    pub struct TrapInfo ["struct trap_info"] {
        /// Exception or interrupt vector.
        pub vector: u8,
        /// Bits 0 and 1: least privileged ring that may raise it by `int`; bit 2: enter with events masked.
        pub flags: u8,
        /// Code selector of the handler.
        pub cs: u16,
        /// Padding.
        pub _pad0: u32,
        /// Address of the handler.
        pub address: u64,
    }

    /// The registers of a vCPU.
    pub struct CpuUserRegs ["struct cpu_user_regs"] {
        /// General register.
        pub r15: u64,
        /// General register.
        pub r14: u64,
        /// General register.
        pub r13: u64,
        /// General register.
        pub r12: u64,
        /// General register.
        pub rbp: u64,
        /// General register.
        pub rbx: u64,
        /// General register.
        pub r11: u64,
        /// General register.
        pub r10: u64,
        /// General register.
        pub r9: u64,
        /// General register.
        pub r8: u64,
        /// General register.
        pub rax: u64,
        /// General register.
        pub rcx: u64,
        /// General register.
        pub rdx: u64,
        /// General register.
        pub rsi: u64,
        /// General register.
        pub rdi: u64,
        /// Error code of the exception; the hypervisor's own.
        pub error_code: u32,
        /// Vector of the exception; the hypervisor's own.
        pub entry_vector: u32,
        /// Instruction pointer.
        pub rip: u64,
        /// Code selector.
        pub cs: u16,
        /// Padding.
        pub _pad0: u16,
        /// The vCPU's `evtchn_upcall_mask` at the time.
        pub saved_upcall_mask: u8,
        /// Padding.
        pub _pad1: [u8; 3],
        /// Flags; bit 9 is the event mask negated.
        pub rflags: u64,
        /// Stack pointer.
        pub rsp: u64,
        /// Stack selector.
        pub ss: u16,
        /// Padding.
        pub _pad2: [u16; 3],
        /// Data selector.
        pub es: u16,
        /// Padding.
        pub _pad3: [u16; 3],
        /// Data selector.
        pub ds: u16,
        /// Padding.
        pub _pad4: [u16; 3],
        /// Data selector.
        pub fs: u16,
        /// Padding.
        pub _pad5: [u16; 3],
        /// Data selector.
        pub gs: u16,
        /// Padding.
        pub _pad6: [u16; 3],
    }

    /// What `iret` takes from the stack.
    pub struct IretContext ["struct iret_context"] {
        /// Restored.
        pub rax: u64,
        /// Restored unless `VGCF_IN_SYSCALL`.
        pub r11: u64,
        /// Restored unless `VGCF_IN_SYSCALL`.
        pub rcx: u64,
        /// 0 or `VGCF_IN_SYSCALL`.
        pub flags: u64,
        /// Where to go on.
        pub rip: u64,
        /// Code selector; its low bits say whether to user (3) or kernel mode.
        pub cs: u64,
        /// Flags; bit 9 becomes the event mask negated.
        pub rflags: u64,
        /// Stack pointer.
        pub rsp: u64,
        /// Stack selector.
        pub ss: u64,
    }

    /// The whole state of a vCPU, to start, save or restore it.
    pub struct VcpuGuestContext ["struct vcpu_guest_context"] {
        /// FPU state in the format of `fxsave64`.
        pub fpu_ctxt: [u8; 512],
        /// `VGCF_*`.
        pub flags: u64,
        /// Registers.
        pub user_regs: CpuUserRegs,
        /// Exception handlers by vector.
        pub trap_ctxt: [TrapInfo; 256],
        /// LDT address.
        pub ldt_base: u64,
        /// LDT entries.
        pub ldt_ents: u64,
        /// Machine frames of the GDT.
        pub gdt_frames: [u64; 16],
        /// GDT entries.
        pub gdt_ents: u64,
        /// Stack selector for entries from user mode.
        pub kernel_ss: u64,
        /// Stack pointer for entries from user mode.
        pub kernel_sp: u64,
        /// CR0 to CR7; CR1 holds the user's CR3, 0 for none.
        pub ctrlreg: [u64; 8],
        /// DR0 to DR7; DR4 and DR5 hold emulated I/O breakpoints.
        pub debugreg: [u64; 8],
        /// Event callback.
        pub event_callback_eip: u64,
        /// Failsafe callback.
        pub failsafe_callback_eip: u64,
        /// Syscall callback.
        pub syscall_callback_eip: u64,
        /// Enabled `VMASST_TYPE_*`, a bit each.
        pub vm_assist: u64,
        /// FS base.
        pub fs_base: u64,
        /// GS base of kernel mode.
        pub gs_base_kernel: u64,
        /// GS base of user mode.
        pub gs_base_user: u64,
    }

    /// The x86 part of `vcpu_info`.
    pub struct ArchVcpuInfo ["struct arch_vcpu_info"] {
        /// Address of the last page fault. Hypervisor writes, guest may.
        pub cr2: u64,
        /// Zero.
        pub pad: u64,
    }

    /// The x86 part of the shared page. The guest writes all but `nmi_reason`, for tools to read.
    pub struct ArchSharedInfo ["struct arch_shared_info"] {
        /// Number of entries in the guest's list of machine frames.
        pub max_pfn: u64,
        /// Machine frame of the root of the lists; all-ones where only `p2m_vaddr` is valid.
        pub pfn_to_mfn_frame_list_list: u64,
        /// `XEN_NMIREASON_*`. Hypervisor writes.
        pub nmi_reason: u64,
        /// CR3 under which `p2m_vaddr` is valid; 0 where there is none.
        pub p2m_cr3: u64,
        /// Address of the list of machine frames.
        pub p2m_vaddr: u64,
        /// Odd while the tables that map the list change.
        pub p2m_generation: u64,
    }

    /// The x86 part of `createdomain`.
    pub struct ArchDomainconfig ["struct xen_arch_domainconfig"] {
        /// `XEN_X86_EMU_*`.
        pub emulation_flags: u32,
        /// `XEN_X86_MSR_RELAXED`.
        pub misc_flags: u32,
    }

    /// One leaf of a CPUID policy.
    pub struct CpuidLeaf ["struct xen_cpuid_leaf"] {
        /// EAX in.
        pub leaf: u32,
        /// ECX in, or [`XEN_CPUID_NO_SUBLEAF`].
        pub subleaf: u32,
        /// EAX out.
        pub a: u32,
        /// EBX out.
        pub b: u32,
        /// ECX out.
        pub c: u32,
        /// EDX out.
        pub d: u32,
    }

    /// One MSR of a policy.
    pub struct MsrEntry ["struct xen_msr_entry"] {
        /// Number.
        pub idx: u32,
        /// Zero.
        pub flags: u32,
        /// Value.
        pub val: u64,
    }
}

/// `CR3` of a table in machine frame `mfn`, as `ctrlreg[3]` and the emulated register hold it.
///
/// Xen: `xen_pfn_to_cr3` in `public/arch-x86/xen-x86_64.h`.
pub const fn xen_pfn_to_cr3(mfn: u64) -> u64 {
    mfn << 12
}

/// The reverse of [`xen_pfn_to_cr3`].
///
/// Xen: `xen_cr3_to_pfn` in `public/arch-x86/xen-x86_64.h`.
pub const fn xen_cr3_to_pfn(cr3: u64) -> u64 {
    cr3 >> 12
}

impl TrapInfo {
    /// A handler: `dpl` is the least privileged ring (0 to 3) that may raise it by `int`.
    pub const fn new(vector: u8, dpl: u8, mask_events: bool, cs: u16, address: u64) -> TrapInfo {
        TrapInfo { vector, flags: dpl & 3 | (mask_events as u8) << 2, cs, _pad0: 0, address }
    }

    /// The least privileged ring that may raise it by `int`.
    pub const fn dpl(&self) -> u8 {
        self.flags & 3
    }

    /// Whether it is entered with events masked.
    pub const fn masks_events(&self) -> bool {
        self.flags & 4 != 0
    }
}
