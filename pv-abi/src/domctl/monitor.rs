//! Watching a domain from outside: memory events, monitors, cache use, hardware traces.
//!
//! Xen: `public/domctl.h`.

use crate::layout::{constants, structs};
use crate::payload::payload;

constants! {
    header "domctl.h";
    /// `vm_event_op`: sets the ring up.
    pub const XEN_VM_EVENT_ENABLE: u32 = 0;
    /// `vm_event_op`: takes the ring down.
    pub const XEN_VM_EVENT_DISABLE: u32 = 1;
    /// `vm_event_op`: there are answers in the ring.
    pub const XEN_VM_EVENT_RESUME: u32 = 2;
    /// `vm_event_op`: tells the version of the records.
    pub const XEN_VM_EVENT_GET_VERSION: u32 = 3;
    /// `vm_event_op`, ring: paging.
    pub const XEN_DOMCTL_VM_EVENT_OP_PAGING: u32 = 1;
    /// `vm_event_op`, ring: monitor.
    pub const XEN_DOMCTL_VM_EVENT_OP_MONITOR: u32 = 2;
    /// `vm_event_op`, ring: sharing.
    pub const XEN_DOMCTL_VM_EVENT_OP_SHARING: u32 = 3;

    /// `psr_cmt_op`: ends.
    pub const XEN_DOMCTL_PSR_CMT_OP_DETACH: u32 = 0;
    /// `psr_cmt_op`: begins.
    pub const XEN_DOMCTL_PSR_CMT_OP_ATTACH: u32 = 1;
    /// `psr_cmt_op`: tells the number under which it counts.
    pub const XEN_DOMCTL_PSR_CMT_OP_QUERY_RMID: u32 = 2;

    /// `monitor_op`: switches an event on.
    pub const XEN_DOMCTL_MONITOR_OP_ENABLE: u32 = 0;
    /// `monitor_op`: switches an event off.
    pub const XEN_DOMCTL_MONITOR_OP_DISABLE: u32 = 1;
    /// `monitor_op`: tells which events there are.
    pub const XEN_DOMCTL_MONITOR_OP_GET_CAPABILITIES: u32 = 2;
    /// `monitor_op`: one event for each repetition of a string instruction.
    pub const XEN_DOMCTL_MONITOR_OP_EMULATE_EACH_REP: u32 = 3;
    /// `monitor_op`: the monitor may set registers.
    pub const XEN_DOMCTL_MONITOR_OP_CONTROL_REGISTERS: u32 = 4;
    /// `monitor_op`, event: a write of a control register.
    pub const XEN_DOMCTL_MONITOR_EVENT_WRITE_CTRLREG: u32 = 0;
    /// `monitor_op`, event: a write of an MSR.
    pub const XEN_DOMCTL_MONITOR_EVENT_MOV_TO_MSR: u32 = 1;
    /// `monitor_op`, event: a single step.
    pub const XEN_DOMCTL_MONITOR_EVENT_SINGLESTEP: u32 = 2;
    /// `monitor_op`, event: a breakpoint.
    pub const XEN_DOMCTL_MONITOR_EVENT_SOFTWARE_BREAKPOINT: u32 = 3;
    /// `monitor_op`, event: the guest asks for one.
    pub const XEN_DOMCTL_MONITOR_EVENT_GUEST_REQUEST: u32 = 4;
    /// `monitor_op`, event: a debug exception.
    pub const XEN_DOMCTL_MONITOR_EVENT_DEBUG_EXCEPTION: u32 = 5;
    /// `monitor_op`, event: CPUID.
    pub const XEN_DOMCTL_MONITOR_EVENT_CPUID: u32 = 6;
    /// `monitor_op`, event: a privileged call.
    pub const XEN_DOMCTL_MONITOR_EVENT_PRIVILEGED_CALL: u32 = 7;
    /// `monitor_op`, event: an interrupt.
    pub const XEN_DOMCTL_MONITOR_EVENT_INTERRUPT: u32 = 8;
    /// `monitor_op`, event: an access to a descriptor table's register.
    pub const XEN_DOMCTL_MONITOR_EVENT_DESC_ACCESS: u32 = 9;
    /// `monitor_op`, event: an instruction that cannot be emulated.
    pub const XEN_DOMCTL_MONITOR_EVENT_EMUL_UNIMPLEMENTED: u32 = 10;
    /// `monitor_op`, event: a page fault inside the guest.
    pub const XEN_DOMCTL_MONITOR_EVENT_INGUEST_PAGEFAULT: u32 = 11;
    /// `monitor_op`, event: any exit.
    pub const XEN_DOMCTL_MONITOR_EVENT_VMEXIT: u32 = 12;

    /// `psr_alloc`: sets a share of the level-3 cache.
    pub const XEN_DOMCTL_PSR_SET_L3_CBM: u32 = 0;
    /// `psr_alloc`: tells a share of the level-3 cache.
    pub const XEN_DOMCTL_PSR_GET_L3_CBM: u32 = 1;
    /// `psr_alloc`: sets a share of the level-3 cache, for code.
    pub const XEN_DOMCTL_PSR_SET_L3_CODE: u32 = 2;
    /// `psr_alloc`: sets a share of the level-3 cache, for data.
    pub const XEN_DOMCTL_PSR_SET_L3_DATA: u32 = 3;
    /// `psr_alloc`: tells a share of the level-3 cache, for code.
    pub const XEN_DOMCTL_PSR_GET_L3_CODE: u32 = 4;
    /// `psr_alloc`: tells a share of the level-3 cache, for data.
    pub const XEN_DOMCTL_PSR_GET_L3_DATA: u32 = 5;
    /// `psr_alloc`: sets a share of the level-2 cache.
    pub const XEN_DOMCTL_PSR_SET_L2_CBM: u32 = 6;
    /// `psr_alloc`: tells a share of the level-2 cache.
    pub const XEN_DOMCTL_PSR_GET_L2_CBM: u32 = 7;
    /// `psr_alloc`: sets the throttle of memory bandwidth.
    pub const XEN_DOMCTL_PSR_SET_MBA_THRTL: u32 = 8;
    /// `psr_alloc`: tells the throttle of memory bandwidth.
    pub const XEN_DOMCTL_PSR_GET_MBA_THRTL: u32 = 9;

    /// `vuart_op`: sets it up.
    pub const XEN_DOMCTL_VUART_OP_INIT: u32 = 0;
    /// `vuart_op`: the one type.
    pub const XEN_DOMCTL_VUART_TYPE_VPL011: u32 = 0;

    /// `vmtrace_op`: on.
    pub const XEN_DOMCTL_VMTRACE_ENABLE [XEN_DOMCTL_vmtrace_enable]: u32 = 1;
    /// `vmtrace_op`: off.
    pub const XEN_DOMCTL_VMTRACE_DISABLE [XEN_DOMCTL_vmtrace_disable]: u32 = 2;
    /// `vmtrace_op`: forgets what there was, then on.
    pub const XEN_DOMCTL_VMTRACE_RESET_AND_ENABLE [XEN_DOMCTL_vmtrace_reset_and_enable]: u32 = 3;
    /// `vmtrace_op`: tells how far the trace is.
    pub const XEN_DOMCTL_VMTRACE_OUTPUT_POSITION [XEN_DOMCTL_vmtrace_output_position]: u32 = 4;
    /// `vmtrace_op`: tells an option.
    pub const XEN_DOMCTL_VMTRACE_GET_OPTION [XEN_DOMCTL_vmtrace_get_option]: u32 = 5;
    /// `vmtrace_op`: sets an option.
    pub const XEN_DOMCTL_VMTRACE_SET_OPTION [XEN_DOMCTL_vmtrace_set_option]: u32 = 6;
}

structs! {
    header "domctl.h";

    /// `XEN_DOMCTL_vm_event_op`: a ring of memory events.
    pub struct DomctlVmEventOp ["struct xen_domctl_vm_event_op"] {
        /// In: `XEN_VM_EVENT_*`.
        pub op: u32,
        /// In: `XEN_DOMCTL_VM_EVENT_OP_*`.
        pub mode: u32,
        /// Out: the ring's port, or the version.
        pub u: u32,
    }

    /// `XEN_DOMCTL_set_access_required`: accesses without a listener.
    pub struct DomctlSetAccessRequired ["struct xen_domctl_set_access_required"] {
        /// In: not 0 makes them wait; else they go on with all rights.
        pub access_required: u8,
    }

    /// `XEN_DOMCTL_psr_cmt_op`: counting cache use.
    pub struct DomctlPsrCmtOp ["struct xen_domctl_psr_cmt_op"] {
        /// In: `XEN_DOMCTL_PSR_CMT_OP_*`.
        pub cmd: u32,
        /// Out: the number.
        pub data: u32,
    }

    /// Options of writes to control registers.
    pub struct DomctlMonitorOpMovToCr ["struct xen_domctl_monitor_op.u.mov_to_cr"] {
        /// In: which register.
        pub index: u8,
        /// In: the vCPU waits.
        pub sync: u8,
        /// In: only where the value changes.
        pub onchangeonly: u8,
        /// Zero.
        pub pad1: u8,
        /// Zero.
        pub pad2: u32,
        /// In: bits that do not count.
        pub bitmask: u64,
    }

    /// Options of writes to MSRs.
    pub struct DomctlMonitorOpMovToMsr ["struct xen_domctl_monitor_op.u.mov_to_msr"] {
        /// In: which.
        pub msr: u32,
        /// In: only where the value changes.
        pub onchangeonly: u8,
        /// Padding.
        pub _pad0: [u8; 3],
    }

    /// Options of the guest's own requests.
    pub struct DomctlMonitorOpGuestRequest ["struct xen_domctl_monitor_op.u.guest_request"] {
        /// In: the vCPU waits.
        pub sync: u8,
        /// In: user mode may ask.
        pub allow_userspace: u8,
    }

    /// `XEN_DOMCTL_monitor_op`: an event. `u` is [`DomctlMonitorOpMovToCr`], [`DomctlMonitorOpMovToMsr`],
    /// [`DomctlMonitorOpGuestRequest`], or whether the vCPU waits (`u8`).
    #[repr(align(8))]
    pub struct DomctlMonitorOp ["struct xen_domctl_monitor_op"] {
        /// In: `XEN_DOMCTL_MONITOR_OP_*`.
        pub op: u32,
        /// In: `XEN_DOMCTL_MONITOR_EVENT_*`. Out of a query: a bit each.
        pub event: u32,
        /// In: options.
        pub u: [u8; 16],
    }

    /// `XEN_DOMCTL_psr_alloc`: a share of a cache.
    pub struct DomctlPsrAlloc ["struct xen_domctl_psr_alloc"] {
        /// In: `XEN_DOMCTL_PSR_*`.
        pub cmd: u32,
        /// In: socket.
        pub target: u32,
        /// In or out: the share.
        pub data: u64,
    }

    /// `XEN_DOMCTL_vuart_op`: an emulated serial port.
    pub struct DomctlVuartOp ["struct xen_domctl_vuart_op"] {
        /// In: [`XEN_DOMCTL_VUART_OP_INIT`].
        pub cmd: u32,
        /// In: [`XEN_DOMCTL_VUART_TYPE_VPL011`].
        pub type_ ["type"]: u32,
        /// In: frame of the ring.
        pub gfn: u64,
        /// In: domain of the console's back end.
        pub console_domid: u16,
        /// Zero.
        pub pad: [u8; 2],
        /// Out: the back end's port.
        pub evtchn: u32,
    }

    /// `XEN_DOMCTL_vmtrace_op`: a hardware trace.
    pub struct DomctlVmtraceOp ["struct xen_domctl_vmtrace_op"] {
        /// In: `XEN_DOMCTL_VMTRACE_*`.
        pub cmd: u32,
        /// In: the vCPU.
        pub vcpu: u32,
        /// In: which option.
        pub key: u64,
        /// In or out: position or value.
        pub value: u64,
    }
}

payload!(DomctlMonitorOp, 16);
