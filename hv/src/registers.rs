//! A guest's registers as the entry code saves them.
//!
//! The order is that of `cpu_user_regs` (Xen: public/arch-x86/xen-x86_64.h), so that the callee-saved ones, which a
//! fast hypercall leaves in the CPU, lie lowest.

/// General registers, what the CPU pushed, and what the stub said about why.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
#[allow(missing_docs, reason = "a register's name is its documentation")]
pub struct Registers {
    pub r15: u64,
    pub r14: u64,
    pub r13: u64,
    pub r12: u64,
    pub rbp: u64,
    pub rbx: u64,
    pub r11: u64,
    pub r10: u64,
    pub r9: u64,
    pub r8: u64,
    pub rax: u64,
    pub rcx: u64,
    pub rdx: u64,
    pub rsi: u64,
    pub rdi: u64,
    /// The error code the CPU pushed, or zero.
    pub error_code: u32,
    /// The vector, or one of the `ENTRY_*` values for what has none.
    pub entry_vector: u32,
    pub rip: u64,
    pub cs: u64,
    pub rflags: u64,
    pub rsp: u64,
    pub ss: u64,
}

/// Entered by `syscall`: `rcx` and `r11` are the guest's only as copies of `rip` and `rflags`, and there is no error code.
pub const ENTRY_SYSCALL: u32 = u32::MAX;
/// The registers must be restored by `iretq`: they no longer are what `syscall` saved.
pub const ENTRY_FULL: u32 = 0x101;

/// The registers are those of a vCPU with hardware assistance: it is entered by another way.
pub const ENTRY_ASSISTED: u32 = 0x102;

/// Flags of `rflags` that the hypervisor looks at (AMD APM 2 §3.1.6).
pub mod flags {
    #![allow(missing_docs, reason = "the architecture's names")]
    pub const TF: u64 = 1 << 8;
    pub const IF: u64 = 1 << 9;
    pub const DF: u64 = 1 << 10;
    pub const IOPL: u64 = 3 << 12;
    pub const NT: u64 = 1 << 14;
    pub const RF: u64 = 1 << 16;
    pub const VM: u64 = 1 << 17;
    pub const AC: u64 = 1 << 18;
    pub const VIF: u64 = 1 << 19;
    pub const VIP: u64 = 1 << 20;
    pub const ALWAYS: u64 = 1 << 1;
}

impl Registers {
    /// The five arguments of a hypercall, in order.
    #[must_use]
    pub const fn hypercall_arguments(&self) -> [u64; 5] {
        [self.rdi, self.rsi, self.rdx, self.r10, self.r8]
    }
}
