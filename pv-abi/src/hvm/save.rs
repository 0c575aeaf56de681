//! The saved state of a domain with hardware assistance: records, each behind a descriptor.
//!
//! A state begins with a [`HvmSaveHeader`], has a [`HvmHwCpu`] for each vCPU, and ends with an empty record of type
//! [`HVM_SAVE_CODE_END`].
//!
//! Xen: `public/hvm/save.h`, `public/arch-x86/hvm/save.h`.

use crate::layout::{constants, structs};

/// Type of the last record, which is empty.
pub const HVM_SAVE_CODE_END: u16 = 0;
/// Type of a record that holds a [`HvmSaveHeader`].
pub const HVM_SAVE_CODE_HEADER: u16 = 1;
/// Type of a record that holds a [`HvmHwCpu`]; its instance is the vCPU.
pub const HVM_SAVE_CODE_CPU: u16 = 2;

/// Type of a record that holds a [`HvmHwMtrr`]; its instance is the vCPU.
pub const HVM_SAVE_CODE_MTRR: u16 = 14;

constants! {
    header "hvm/save.h";
    /// [`HvmSaveHeader::magic`].
    pub const HVM_FILE_MAGIC: u32 = 0x5438_1286;
    /// [`HvmSaveHeader::version`].
    pub const HVM_FILE_VERSION: u32 = 1;
    /// In [`HvmHwCpu::flags`]: the floating-point registers mean something.
    pub const XEN_X86_FPU_INITIALISED: u32 = 1 << 0;
}

structs! {
    header "hvm/save.h";

    /// What stands before a record.
    pub struct HvmSaveDescriptor ["struct hvm_save_descriptor"] {
        /// `HVM_SAVE_CODE_*`.
        pub typecode: u16,
        /// Which of that type.
        pub instance: u16,
        /// Bytes of the record, without this.
        pub length: u32,
    }

    /// The first record.
    pub struct HvmSaveHeader ["struct hvm_save_header"] {
        /// [`HVM_FILE_MAGIC`].
        pub magic: u32,
        /// [`HVM_FILE_VERSION`].
        pub version: u32,
        /// Version of the hypervisor that saved it.
        pub changeset: u64,
        /// CPUID.1:EAX where it was saved.
        pub cpuid: u32,
        /// Frequency of the guest's time-stamp counter, in kHz.
        pub gtsc_khz: u32,
    }

    /// A vCPU's memory types.
    pub struct HvmHwMtrr ["struct hvm_hw_mtrr"] {
        /// The page-attribute table.
        pub msr_pat_cr: u64,
        /// Variable ranges: base and mask of each.
        pub msr_mtrr_var: [u64; 16],
        /// Fixed ranges.
        pub msr_mtrr_fixed: [u64; 11],
        /// What there is of them.
        pub msr_mtrr_cap: u64,
        /// The type of all other memory.
        pub msr_mtrr_def_type: u64,
    }

    /// A vCPU's processor.
    pub struct HvmHwCpu ["struct hvm_hw_cpu"] {
        /// Floating-point registers, as `fxsave` has them.
        pub fpu_regs: [u8; 512],
        /// `rax`.
        pub rax: u64,
        /// `rbx`.
        pub rbx: u64,
        /// `rcx`.
        pub rcx: u64,
        /// `rdx`.
        pub rdx: u64,
        /// `rbp`.
        pub rbp: u64,
        /// `rsi`.
        pub rsi: u64,
        /// `rdi`.
        pub rdi: u64,
        /// `rsp`.
        pub rsp: u64,
        /// `r8`.
        pub r8: u64,
        /// `r9`.
        pub r9: u64,
        /// `r10`.
        pub r10: u64,
        /// `r11`.
        pub r11: u64,
        /// `r12`.
        pub r12: u64,
        /// `r13`.
        pub r13: u64,
        /// `r14`.
        pub r14: u64,
        /// `r15`.
        pub r15: u64,
        /// `rip`.
        pub rip: u64,
        /// `rflags`.
        pub rflags: u64,
        /// CR0.
        pub cr0: u64,
        /// CR2.
        pub cr2: u64,
        /// CR3.
        pub cr3: u64,
        /// CR4.
        pub cr4: u64,
        /// DR0.
        pub dr0: u64,
        /// DR1.
        pub dr1: u64,
        /// DR2.
        pub dr2: u64,
        /// DR3.
        pub dr3: u64,
        /// DR6.
        pub dr6: u64,
        /// DR7.
        pub dr7: u64,
        /// Selector of CS.
        pub cs_sel: u32,
        /// Selector of DS.
        pub ds_sel: u32,
        /// Selector of ES.
        pub es_sel: u32,
        /// Selector of FS.
        pub fs_sel: u32,
        /// Selector of GS.
        pub gs_sel: u32,
        /// Selector of SS.
        pub ss_sel: u32,
        /// Selector of the task state.
        pub tr_sel: u32,
        /// Selector of the local descriptor table.
        pub ldtr_sel: u32,
        /// Limit of CS.
        pub cs_limit: u32,
        /// Limit of DS.
        pub ds_limit: u32,
        /// Limit of ES.
        pub es_limit: u32,
        /// Limit of FS.
        pub fs_limit: u32,
        /// Limit of GS.
        pub gs_limit: u32,
        /// Limit of SS.
        pub ss_limit: u32,
        /// Limit of the task state.
        pub tr_limit: u32,
        /// Limit of the local descriptor table.
        pub ldtr_limit: u32,
        /// Limit of the interrupt descriptor table.
        pub idtr_limit: u32,
        /// Limit of the global descriptor table.
        pub gdtr_limit: u32,
        /// Base of CS.
        pub cs_base: u64,
        /// Base of DS.
        pub ds_base: u64,
        /// Base of ES.
        pub es_base: u64,
        /// Base of FS.
        pub fs_base: u64,
        /// Base of GS.
        pub gs_base: u64,
        /// Base of SS.
        pub ss_base: u64,
        /// Base of the task state.
        pub tr_base: u64,
        /// Base of the local descriptor table.
        pub ldtr_base: u64,
        /// Base of the interrupt descriptor table.
        pub idtr_base: u64,
        /// Base of the global descriptor table.
        pub gdtr_base: u64,
        /// Attributes of CS: bits 40 to 47 and 52 to 55 of a descriptor, together.
        pub cs_arbytes: u32,
        /// Attributes of DS.
        pub ds_arbytes: u32,
        /// Attributes of ES.
        pub es_arbytes: u32,
        /// Attributes of FS.
        pub fs_arbytes: u32,
        /// Attributes of GS.
        pub gs_arbytes: u32,
        /// Attributes of SS.
        pub ss_arbytes: u32,
        /// Attributes of the task state.
        pub tr_arbytes: u32,
        /// Attributes of the local descriptor table.
        pub ldtr_arbytes: u32,
        /// `SYSENTER_CS`.
        pub sysenter_cs: u64,
        /// `SYSENTER_ESP`.
        pub sysenter_esp: u64,
        /// `SYSENTER_EIP`.
        pub sysenter_eip: u64,
        /// `KERNEL_GS_BASE`.
        pub shadow_gs: u64,
        /// Not used.
        pub msr_flags: u64,
        /// `LSTAR`.
        pub msr_lstar: u64,
        /// `STAR`.
        pub msr_star: u64,
        /// `CSTAR`.
        pub msr_cstar: u64,
        /// `SFMASK`.
        pub msr_syscall_mask: u64,
        /// `EFER`.
        pub msr_efer: u64,
        /// `TSC_AUX`.
        pub msr_tsc_aux: u64,
        /// What the guest's time-stamp counter is.
        pub tsc: u64,
        /// An event that is being delivered: vector, type in bits 8 to 10, bit 11 for an error code, bit 31 for valid.
        pub pending_event: u32,
        /// Its error code.
        pub error_code: u32,
        /// [`XEN_X86_FPU_INITIALISED`].
        pub flags: u32,
        /// Zero.
        pub pad0: u32,
    }
}
