//! Control of domains, for the toolstack: make, fill, start, pause, ask about and destroy them.
//!
//! `HYPERVISOR_domctl(op)`: `op` is the address of a [`Domctl`], a frame of command, version and domain with the command's own
//! struct in its last 128 bytes. The call returns 0 or a negated errno, a few commands a positive count; "out" fields are
//! written back into the same struct. A caller whose version differs is refused with `EACCES`.
//!
//! The structs are in submodules by what they are about and are all re-exported here.
//!
//! Xen: `public/domctl.h`.

pub(crate) mod device;
pub(crate) mod domain;
pub(crate) mod hvm;
pub(crate) mod memory;
pub(crate) mod monitor;
pub(crate) mod schedule;
pub(crate) mod vcpu;

use crate::layout::{constants, structs};
use crate::payload::payload;

pub use device::*;
pub use domain::*;
pub use hvm::*;
pub use memory::*;
pub use monitor::*;
pub use schedule::*;
pub use vcpu::*;

constants! {
    header "domctl.h";
    /// What [`Domctl::interface_version`] must be.
    pub const XEN_DOMCTL_INTERFACE_VERSION: u32 = 0x15;

    /// Makes a domain, paused and empty; see [`DomctlCreatedomain`]. The frame's `domain` is the wish and the answer.
    pub const XEN_DOMCTL_CREATEDOMAIN [XEN_DOMCTL_createdomain]: u32 = 1;
    /// Kills a domain and frees what it had; to be called again while it answers `EAGAIN`.
    pub const XEN_DOMCTL_DESTROYDOMAIN [XEN_DOMCTL_destroydomain]: u32 = 2;
    /// Pauses a domain; pauses by tools do not nest.
    pub const XEN_DOMCTL_PAUSEDOMAIN [XEN_DOMCTL_pausedomain]: u32 = 3;
    /// Undoes a pause.
    pub const XEN_DOMCTL_UNPAUSEDOMAIN [XEN_DOMCTL_unpausedomain]: u32 = 4;
    /// Tells about a domain, or the next one that exists; see [`DomctlGetdomaininfo`].
    pub const XEN_DOMCTL_GETDOMAININFO [XEN_DOMCTL_getdomaininfo]: u32 = 5;
    /// Sets where a vCPU may run; see [`DomctlVcpuaffinity`].
    pub const XEN_DOMCTL_SETVCPUAFFINITY [XEN_DOMCTL_setvcpuaffinity]: u32 = 9;
    /// Shadow page tables and the log of dirty pages; see [`DomctlShadowOp`].
    pub const XEN_DOMCTL_SHADOW_OP [XEN_DOMCTL_shadow_op]: u32 = 10;
    /// Sets how much memory a domain may have; see [`DomctlMaxMem`].
    pub const XEN_DOMCTL_MAX_MEM [XEN_DOMCTL_max_mem]: u32 = 11;
    /// Sets a vCPU's whole state; see [`DomctlVcpucontext`].
    pub const XEN_DOMCTL_SETVCPUCONTEXT [XEN_DOMCTL_setvcpucontext]: u32 = 12;
    /// Reads a vCPU's whole state; see [`DomctlVcpucontext`].
    pub const XEN_DOMCTL_GETVCPUCONTEXT [XEN_DOMCTL_getvcpucontext]: u32 = 13;
    /// Tells what a vCPU does; see [`DomctlGetvcpuinfo`].
    pub const XEN_DOMCTL_GETVCPUINFO [XEN_DOMCTL_getvcpuinfo]: u32 = 14;
    /// Allocates the vCPUs; see [`DomctlMaxVcpus`].
    pub const XEN_DOMCTL_MAX_VCPUS [XEN_DOMCTL_max_vcpus]: u32 = 15;
    /// Reads or sets scheduling parameters; see [`DomctlSchedulerOp`].
    pub const XEN_DOMCTL_SCHEDULER_OP [XEN_DOMCTL_scheduler_op]: u32 = 16;
    /// Sets the domain's UUID; see [`DomctlSetdomainhandle`].
    pub const XEN_DOMCTL_SETDOMAINHANDLE [XEN_DOMCTL_setdomainhandle]: u32 = 17;
    /// Marks the domain as debugged; see [`DomctlSetdebugging`].
    pub const XEN_DOMCTL_SETDEBUGGING [XEN_DOMCTL_setdebugging]: u32 = 18;
    /// Allows or denies an interrupt; see [`DomctlIrqPermission`].
    pub const XEN_DOMCTL_IRQ_PERMISSION [XEN_DOMCTL_irq_permission]: u32 = 19;
    /// Allows or denies device memory; see [`DomctlIomemPermission`].
    pub const XEN_DOMCTL_IOMEM_PERMISSION [XEN_DOMCTL_iomem_permission]: u32 = 20;
    /// Allows or denies I/O ports; see [`DomctlIoportPermission`].
    pub const XEN_DOMCTL_IOPORT_PERMISSION [XEN_DOMCTL_ioport_permission]: u32 = 21;
    /// Fills a frame with the hypercall page; see [`DomctlHypercallInit`].
    pub const XEN_DOMCTL_HYPERCALL_INIT [XEN_DOMCTL_hypercall_init]: u32 = 22;
    /// Moves the domain's wall clock; see [`DomctlSettimeoffset`].
    pub const XEN_DOMCTL_SETTIMEOFFSET [XEN_DOMCTL_settimeoffset]: u32 = 24;
    /// Tells where a vCPU may run; see [`DomctlVcpuaffinity`].
    pub const XEN_DOMCTL_GETVCPUAFFINITY [XEN_DOMCTL_getvcpuaffinity]: u32 = 25;
    /// PowerPC only.
    pub const XEN_DOMCTL_REAL_MODE_AREA [XEN_DOMCTL_real_mode_area]: u32 = 26;
    /// Lets a domain that has suspended run on.
    pub const XEN_DOMCTL_RESUMEDOMAIN [XEN_DOMCTL_resumedomain]: u32 = 27;
    /// Sends an NMI, a reset, a button press; see [`DomctlSendtrigger`].
    pub const XEN_DOMCTL_SENDTRIGGER [XEN_DOMCTL_sendtrigger]: u32 = 28;
    /// Notifies a port when the domain suspends; see [`DomctlSubscribe`].
    pub const XEN_DOMCTL_SUBSCRIBE [XEN_DOMCTL_subscribe]: u32 = 29;
    /// Reads an HVM domain's state; see [`DomctlHvmcontext`].
    pub const XEN_DOMCTL_GETHVMCONTEXT [XEN_DOMCTL_gethvmcontext]: u32 = 33;
    /// Sets an HVM domain's state; see [`DomctlHvmcontext`].
    pub const XEN_DOMCTL_SETHVMCONTEXT [XEN_DOMCTL_sethvmcontext]: u32 = 34;
    /// Makes an empty PV domain 32 or 64 bits wide; see [`DomctlAddressSize`].
    pub const XEN_DOMCTL_SET_ADDRESS_SIZE [XEN_DOMCTL_set_address_size]: u32 = 35;
    /// Tells a PV domain's width; see [`DomctlAddressSize`].
    pub const XEN_DOMCTL_GET_ADDRESS_SIZE [XEN_DOMCTL_get_address_size]: u32 = 36;
    /// Gives a device away; see [`DomctlAssignDevice`].
    pub const XEN_DOMCTL_ASSIGN_DEVICE [XEN_DOMCTL_assign_device]: u32 = 37;
    /// Passes an interrupt to an HVM domain; see [`DomctlBindPtIrq`].
    pub const XEN_DOMCTL_BIND_PT_IRQ [XEN_DOMCTL_bind_pt_irq]: u32 = 38;
    /// Puts device memory into a domain's map; see [`DomctlMemoryMapping`].
    pub const XEN_DOMCTL_MEMORY_MAPPING [XEN_DOMCTL_memory_mapping]: u32 = 39;
    /// Puts I/O ports into a domain's map; see [`DomctlIoportMapping`].
    pub const XEN_DOMCTL_IOPORT_MAPPING [XEN_DOMCTL_ioport_mapping]: u32 = 40;
    /// Sets the 32-bit entries of a vCPU; see [`DomctlExtVcpucontext`].
    pub const XEN_DOMCTL_SET_EXT_VCPUCONTEXT [XEN_DOMCTL_set_ext_vcpucontext]: u32 = 42;
    /// Reads the 32-bit entries of a vCPU; see [`DomctlExtVcpucontext`].
    pub const XEN_DOMCTL_GET_EXT_VCPUCONTEXT [XEN_DOMCTL_get_ext_vcpucontext]: u32 = 43;
    /// IA-64 only.
    pub const XEN_DOMCTL_SET_OPT_FEATURE [XEN_DOMCTL_set_opt_feature]: u32 = 44;
    /// Tells whether a device could be given away; see [`DomctlAssignDevice`].
    pub const XEN_DOMCTL_TEST_ASSIGN_DEVICE [XEN_DOMCTL_test_assign_device]: u32 = 45;
    /// Lets a domain act for another; see [`DomctlSetTarget`].
    pub const XEN_DOMCTL_SET_TARGET [XEN_DOMCTL_set_target]: u32 = 46;
    /// Takes a device back; see [`DomctlAssignDevice`].
    pub const XEN_DOMCTL_DEASSIGN_DEVICE [XEN_DOMCTL_deassign_device]: u32 = 47;
    /// Takes an interrupt back; see [`DomctlBindPtIrq`].
    pub const XEN_DOMCTL_UNBIND_PT_IRQ [XEN_DOMCTL_unbind_pt_irq]: u32 = 48;
    /// Tells which devices go together; see [`DomctlGetDeviceGroup`].
    pub const XEN_DOMCTL_GET_DEVICE_GROUP [XEN_DOMCTL_get_device_group]: u32 = 50;
    /// Single steps; see [`DomctlDebugOp`].
    pub const XEN_DOMCTL_DEBUG_OP [XEN_DOMCTL_debug_op]: u32 = 54;
    /// Reads one record of an HVM domain's state; see [`DomctlHvmcontextPartial`].
    pub const XEN_DOMCTL_GETHVMCONTEXT_PARTIAL [XEN_DOMCTL_gethvmcontext_partial]: u32 = 55;
    /// Rings of memory events; see [`DomctlVmEventOp`].
    pub const XEN_DOMCTL_VM_EVENT_OP [XEN_DOMCTL_vm_event_op]: u32 = 56;
    /// Page sharing; see [`DomctlMemSharingOp`].
    pub const XEN_DOMCTL_MEM_SHARING_OP [XEN_DOMCTL_mem_sharing_op]: u32 = 57;
    /// Tells how the time-stamp counter behaves; see [`DomctlTscInfo`].
    pub const XEN_DOMCTL_GETTSCINFO [XEN_DOMCTL_gettscinfo]: u32 = 59;
    /// Sets how the time-stamp counter behaves; see [`DomctlTscInfo`].
    pub const XEN_DOMCTL_SETTSCINFO [XEN_DOMCTL_settscinfo]: u32 = 60;
    /// Tells the types of frames; see [`DomctlGetpageframeinfo3`].
    pub const XEN_DOMCTL_GETPAGEFRAMEINFO3 [XEN_DOMCTL_getpageframeinfo3]: u32 = 61;
    /// Sets a vCPU's extended FPU state; see [`DomctlVcpuextstate`].
    pub const XEN_DOMCTL_SETVCPUEXTSTATE [XEN_DOMCTL_setvcpuextstate]: u32 = 62;
    /// Reads a vCPU's extended FPU state; see [`DomctlVcpuextstate`].
    pub const XEN_DOMCTL_GETVCPUEXTSTATE [XEN_DOMCTL_getvcpuextstate]: u32 = 63;
    /// Whether accesses wait for a listener; see [`DomctlSetAccessRequired`].
    pub const XEN_DOMCTL_SET_ACCESS_REQUIRED [XEN_DOMCTL_set_access_required]: u32 = 64;
    /// Checks the maps against each other; see [`DomctlAuditP2m`].
    pub const XEN_DOMCTL_AUDIT_P2M [XEN_DOMCTL_audit_p2m]: u32 = 65;
    /// Sends a global virtual interrupt to the domain; see [`DomctlSetVirqHandler`].
    pub const XEN_DOMCTL_SET_VIRQ_HANDLER [XEN_DOMCTL_set_virq_handler]: u32 = 66;
    /// Marks a page as broken; see [`DomctlSetBrokenPageP2m`].
    pub const XEN_DOMCTL_SET_BROKEN_PAGE_P2M [XEN_DOMCTL_set_broken_page_p2m]: u32 = 67;
    /// Sets a domain's NUMA nodes; see [`DomctlNodeaffinity`].
    pub const XEN_DOMCTL_SETNODEAFFINITY [XEN_DOMCTL_setnodeaffinity]: u32 = 68;
    /// Tells a domain's NUMA nodes; see [`DomctlNodeaffinity`].
    pub const XEN_DOMCTL_GETNODEAFFINITY [XEN_DOMCTL_getnodeaffinity]: u32 = 69;
    /// Flushes caches of a domain's pages; see [`DomctlCacheflush`].
    pub const XEN_DOMCTL_CACHEFLUSH [XEN_DOMCTL_cacheflush]: u32 = 71;
    /// Reads a vCPU's MSRs; see [`DomctlVcpuMsrs`].
    pub const XEN_DOMCTL_GET_VCPU_MSRS [XEN_DOMCTL_get_vcpu_msrs]: u32 = 72;
    /// Sets a vCPU's MSRs; see [`DomctlVcpuMsrs`].
    pub const XEN_DOMCTL_SET_VCPU_MSRS [XEN_DOMCTL_set_vcpu_msrs]: u32 = 73;
    /// Sets the virtual NUMA topology; see [`DomctlVnuma`].
    pub const XEN_DOMCTL_SETVNUMAINFO [XEN_DOMCTL_setvnumainfo]: u32 = 74;
    /// Monitors cache use; see [`DomctlPsrCmtOp`].
    pub const XEN_DOMCTL_PSR_CMT_OP [XEN_DOMCTL_psr_cmt_op]: u32 = 75;
    /// Chooses the events that a monitor sees; see [`DomctlMonitorOp`].
    pub const XEN_DOMCTL_MONITOR_OP [XEN_DOMCTL_monitor_op]: u32 = 77;
    /// Divides the caches; see [`DomctlPsrAlloc`].
    pub const XEN_DOMCTL_PSR_ALLOC [XEN_DOMCTL_psr_alloc]: u32 = 78;
    /// Makes a domain as new but for its memory; to be called again while it answers `EAGAIN`.
    pub const XEN_DOMCTL_SOFT_RESET [XEN_DOMCTL_soft_reset]: u32 = 79;
    /// An emulated serial port; see [`DomctlVuartOp`]. Arm only.
    pub const XEN_DOMCTL_VUART_OP [XEN_DOMCTL_vuart_op]: u32 = 81;
    /// Reads the CPUID and MSR policy; see [`DomctlCpuPolicy`].
    pub const XEN_DOMCTL_GET_CPU_POLICY [XEN_DOMCTL_get_cpu_policy]: u32 = 82;
    /// Sets the CPUID and MSR policy; see [`DomctlCpuPolicy`].
    pub const XEN_DOMCTL_SET_CPU_POLICY [XEN_DOMCTL_set_cpu_policy]: u32 = 83;
    /// Traces a vCPU by hardware; see [`DomctlVmtraceOp`].
    pub const XEN_DOMCTL_VMTRACE_OP [XEN_DOMCTL_vmtrace_op]: u32 = 84;
    /// Tells the size of a domain's pool for page tables; see [`DomctlPagingMempool`].
    pub const XEN_DOMCTL_GET_PAGING_MEMPOOL_SIZE [XEN_DOMCTL_get_paging_mempool_size]: u32 = 85;
    /// Sets the size of a domain's pool for page tables; see [`DomctlPagingMempool`].
    pub const XEN_DOMCTL_SET_PAGING_MEMPOOL_SIZE [XEN_DOMCTL_set_paging_mempool_size]: u32 = 86;
    /// A debugger reads or writes memory; see [`DomctlGdbsxMemio`].
    pub const XEN_DOMCTL_GDBSX_GUESTMEMIO [XEN_DOMCTL_gdbsx_guestmemio]: u32 = 1000;
    /// A debugger pauses a vCPU; see [`DomctlGdbsxPauseunpVcpu`].
    pub const XEN_DOMCTL_GDBSX_PAUSEVCPU [XEN_DOMCTL_gdbsx_pausevcpu]: u32 = 1001;
    /// A debugger lets a vCPU run on; see [`DomctlGdbsxPauseunpVcpu`].
    pub const XEN_DOMCTL_GDBSX_UNPAUSEVCPU [XEN_DOMCTL_gdbsx_unpausevcpu]: u32 = 1002;
    /// A debugger asks why the domain stands; see [`DomctlGdbsxDomstatus`].
    pub const XEN_DOMCTL_GDBSX_DOMSTATUS [XEN_DOMCTL_gdbsx_domstatus]: u32 = 1003;
}

structs! {
    header "domctl.h";

    /// The frame of every operation.
    #[repr(align(8))]
    pub struct Domctl ["struct xen_domctl"] {
        /// In: `XEN_DOMCTL_*`.
        pub cmd: u32,
        /// In: [`XEN_DOMCTL_INTERFACE_VERSION`].
        pub interface_version: u32,
        /// In: which domain. Out: for some commands, which it was.
        pub domain: u16,
        /// Padding.
        pub _pad0: [u16; 3],
        /// The command's own struct, in its first bytes.
        pub u: [u8; 128],
    }
}

payload!(Domctl, 128);

impl Domctl {
    /// A command without a struct of its own.
    pub fn new(cmd: u32, domain: u16) -> Domctl {
        Domctl { cmd, interface_version: XEN_DOMCTL_INTERFACE_VERSION, domain, ..Domctl::default() }
    }

    /// A command with its own struct.
    pub fn with<T: zerocopy::IntoBytes + zerocopy::Immutable>(cmd: u32, domain: u16, payload: &T) -> Domctl {
        let mut operation = Domctl::new(cmd, domain);
        operation.set_payload(payload);
        operation
    }
}
