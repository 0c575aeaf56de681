//! The registers of interrupted code, in the same layout on every platform.
//!
//! The entry assembly pushes them in this order; a changed field here is a changed `SAVE_REGISTERS` there.

/// Vector of an event upcall or device interrupt, beyond the CPU's own 256.
pub const VECTOR_EVENT: u64 = 0x100;
/// Vector of a system call.
pub const VECTOR_SYSCALL: u64 = 0x101;
/// Page fault.
pub const VECTOR_PAGE_FAULT: u64 = 14;

/// Registers saved on a kernel stack. The lowest address comes first.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
#[repr(C)]
#[expect(missing_docs, reason = "the fields are the registers of those names")]
pub struct TrapFrame {
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
    /// Which way in was taken: a CPU vector, [`VECTOR_EVENT`] or [`VECTOR_SYSCALL`].
    pub vector: u64,
    /// The CPU's error code, 0 where there is none.
    pub error: u64,
    pub rip: u64,
    pub cs: u64,
    pub rflags: u64,
    pub rsp: u64,
    pub ss: u64,
}

impl TrapFrame {
    /// Registers with which user mode starts, in these segments.
    #[must_use]
    pub fn for_user(entry: usize, stack: usize, code: u16, data: u16) -> Self {
        Self {
            rip: entry as u64,
            cs: code.into(),
            // Bit 1 is always set; IF: interrupts are on.
            rflags: 0x202,
            rsp: stack as u64,
            ss: data.into(),
            ..Self::default()
        }
    }

    /// True when user mode was interrupted.
    #[must_use]
    pub fn from_user(&self) -> bool {
        self.cs & 3 == 3
    }

    /// True when the interrupted code had interrupts on.
    #[must_use]
    pub fn interrupts_were_on(&self) -> bool {
        self.rflags & 0x200 != 0
    }
}

impl core::fmt::Debug for TrapFrame {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        writeln!(
            f,
            "vector {:#x} error {:#x} cs:rip {:#x}:{:#018x} ss:rsp {:#x}:{:#018x} rflags {:#x}",
            self.vector, self.error, self.cs, self.rip, self.ss, self.rsp, self.rflags
        )?;
        writeln!(f, "rax {:#018x} rbx {:#018x} rcx {:#018x} rdx {:#018x}", self.rax, self.rbx, self.rcx, self.rdx)?;
        writeln!(f, "rsi {:#018x} rdi {:#018x} rbp {:#018x} r8  {:#018x}", self.rsi, self.rdi, self.rbp, self.r8)?;
        writeln!(f, "r9  {:#018x} r10 {:#018x} r11 {:#018x} r12 {:#018x}", self.r9, self.r10, self.r11, self.r12)?;
        write!(f, "r13 {:#018x} r14 {:#018x} r15 {:#018x}", self.r13, self.r14, self.r15)
    }
}
