//! The state of a domain's vCPUs, and how a debugger holds them.
//!
//! Xen: `public/domctl.h`.

use crate::layout::{constants, structs};

constants! {
    header "domctl.h";
    /// `debug_op`: no single steps.
    pub const XEN_DOMCTL_DEBUG_OP_SINGLE_STEP_OFF: u32 = 0;
    /// `debug_op`: single steps.
    pub const XEN_DOMCTL_DEBUG_OP_SINGLE_STEP_ON: u32 = 1;
}

structs! {
    header "domctl.h";

    /// `XEN_DOMCTL_{set,get}vcpucontext`: a vCPU's whole state.
    pub struct DomctlVcpucontext ["struct xen_domctl_vcpucontext"] {
        /// In: the vCPU.
        pub vcpu: u32,
        /// Padding.
        pub _pad0: u32,
        /// In: address of a [`VcpuGuestContext`](crate::arch::VcpuGuestContext).
        pub ctxt: u64,
    }

    /// `XEN_DOMCTL_getvcpuinfo`: what a vCPU does.
    pub struct DomctlGetvcpuinfo ["struct xen_domctl_getvcpuinfo"] {
        /// In: the vCPU.
        pub vcpu: u32,
        /// Out: is up.
        pub online: u8,
        /// Out: waits for an event.
        pub blocked: u8,
        /// Out: is on a CPU.
        pub running: u8,
        /// Padding.
        pub _pad0: u8,
        /// Out: nanoseconds on CPUs.
        pub cpu_time: u64,
        /// Out: on which CPU it is or was.
        pub cpu: u32,
        /// Padding.
        pub _pad1: u32,
    }

    /// `XEN_DOMCTL_{set,get}_ext_vcpucontext`: entries from 32-bit code, machine checks.
    pub struct DomctlExtVcpucontext ["struct xen_domctl_ext_vcpucontext"] {
        /// In: the vCPU.
        pub vcpu: u32,
        /// In of a set, out of a get: bytes of this struct.
        pub size: u32,
        /// `syscall` from 32-bit code: where to.
        pub syscall32_callback_eip: u64,
        /// `sysenter`: where to.
        pub sysenter_callback_eip: u64,
        /// `syscall` from 32-bit code: code selector.
        pub syscall32_callback_cs: u16,
        /// `sysenter`: code selector.
        pub sysenter_callback_cs: u16,
        /// `syscall` from 32-bit code: masks events.
        pub syscall32_disables_events: u8,
        /// `sysenter`: masks events.
        pub sysenter_disables_events: u8,
        /// Padding.
        pub _pad0: u16,
        /// Machine-check capabilities.
        pub mcg_cap: u64,
        /// `MC0_CTL2`.
        pub mci_ctl2_bank0 ["vmce.mci_ctl2_bank0"]: u64,
        /// `MC1_CTL2`.
        pub mci_ctl2_bank1 ["vmce.mci_ctl2_bank1"]: u64,
        /// Extended machine-check control.
        pub mcg_ext_ctl ["vmce.mcg_ext_ctl"]: u64,
    }

    /// `XEN_DOMCTL_{set,get}vcpuextstate`: FPU state as `xsave` has it.
    pub struct DomctlVcpuextstate ["struct xen_domctl_vcpuextstate"] {
        /// In: the vCPU.
        pub vcpu: u32,
        /// Padding.
        pub _pad0: u32,
        /// Out: the components that the state may hold.
        pub xfeature_mask: u64,
        /// In: bytes. Out of a get: bytes.
        pub size: u64,
        /// In: address: XCR0 in use, XCR0 ever used (`u64` each), then the `xsave` area; 0 asks for the size.
        pub buffer: u64,
    }

    /// An MSR of a vCPU.
    pub struct DomctlVcpuMsr ["struct xen_domctl_vcpu_msr"] {
        /// Number.
        pub index: u32,
        /// Zero.
        pub reserved: u32,
        /// Value.
        pub value: u64,
    }

    /// `XEN_DOMCTL_{set,get}_vcpu_msrs`: a vCPU's MSRs.
    pub struct DomctlVcpuMsrs ["struct xen_domctl_vcpu_msrs"] {
        /// In: the vCPU.
        pub vcpu: u32,
        /// In: room or number. Out of a get: number; out of a failed set: the element in the way.
        pub msr_count: u32,
        /// In: address of [`DomctlVcpuMsr`]s; 0 asks for their number.
        pub msrs: u64,
    }

    /// `XEN_DOMCTL_debug_op`: single steps.
    pub struct DomctlDebugOp ["struct xen_domctl_debug_op"] {
        /// In: `XEN_DOMCTL_DEBUG_OP_*`.
        pub op: u32,
        /// In: the vCPU.
        pub vcpu: u32,
    }

    /// `XEN_DOMCTL_gdbsx_guestmemio`: a debugger's access to memory.
    pub struct DomctlGdbsxMemio ["struct xen_domctl_gdbsx_memio"] {
        /// In: the kernel's level-3 entry, or 0.
        pub pgd3val: u64,
        /// In: address in the guest.
        pub gva: u64,
        /// In: address of the caller's buffer.
        pub uva: u64,
        /// In: bytes.
        pub len: u32,
        /// In: 0 reads, 1 writes.
        pub gwr: u8,
        /// Padding.
        pub _pad0: [u8; 3],
        /// Out: bytes not done.
        pub remain: u32,
        /// Padding.
        pub _pad1: u32,
    }

    /// `XEN_DOMCTL_gdbsx_{pause,unpause}vcpu`: which vCPU.
    pub struct DomctlGdbsxPauseunpVcpu ["struct xen_domctl_gdbsx_pauseunp_vcpu"] {
        /// In: the vCPU.
        pub vcpu: u32,
    }

    /// `XEN_DOMCTL_gdbsx_domstatus`: why the domain stands.
    pub struct DomctlGdbsxDomstatus ["struct xen_domctl_gdbsx_domstatus"] {
        /// Out: is paused.
        pub paused: u8,
        /// Padding.
        pub _pad0: [u8; 3],
        /// Out: the vCPU with an event, or all-ones.
        pub vcpu_id: u32,
        /// Out: that event.
        pub vcpu_ev: u32,
    }
}
