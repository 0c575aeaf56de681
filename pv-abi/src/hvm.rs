//! What guests with hardware assistance meet: parameters, operations, the page that a PVH kernel starts with.
//!
//! `HYPERVISOR_hvm_op(cmd, arg)`: `cmd` is an `HVMOP_*`, `arg` the address of its struct. All return 0 or a negated errno;
//! "out" fields are written back into the same struct.
//!
//! Xen: `public/hvm/hvm_op.h`, `public/hvm/params.h`, `public/hvm/save.h`, `public/arch-x86/hvm/start_info.h`.

pub mod dm_op;
pub mod ioreq;
pub(crate) mod params;
pub(crate) mod save;
pub(crate) mod start_info;

use crate::layout::{constants, structs};

pub use params::*;
pub use save::*;
pub use start_info::*;

constants! {
    header "hvm/hvm_op.h";
    /// Sets a parameter; see [`HvmParam`].
    pub const HVMOP_SET_PARAM [HVMOP_set_param]: u32 = 0;
    /// Reads a parameter; see [`HvmParam`].
    pub const HVMOP_GET_PARAM [HVMOP_get_param]: u32 = 1;
    /// Flushes the TLB of all vCPUs. No argument.
    pub const HVMOP_FLUSH_TLBS [HVMOP_flush_tlbs]: u32 = 5;
    /// Tells that a page table is going; see [`HvmPagetableDying`].
    pub const HVMOP_PAGETABLE_DYING [HVMOP_pagetable_dying]: u32 = 9;
    /// Tells the system time; see [`HvmGetTime`].
    pub const HVMOP_GET_TIME [HVMOP_get_time]: u32 = 10;
    /// Writes a trace record; see [`HvmXentrace`].
    pub const HVMOP_XENTRACE [HVMOP_xentrace]: u32 = 11;
    /// Gone; `XENMEM_access_op` instead.
    pub const HVMOP_SET_MEM_ACCESS [HVMOP_set_mem_access]: u32 = 12;
    /// Gone; `XENMEM_access_op` instead.
    pub const HVMOP_GET_MEM_ACCESS [HVMOP_get_mem_access]: u32 = 13;
    /// Tells what a guest frame is; see [`HvmGetMemType`].
    pub const HVMOP_GET_MEM_TYPE [HVMOP_get_mem_type]: u32 = 15;
    /// Sets the vector of a vCPU's upcalls; see [`HvmEvtchnUpcallVector`].
    pub const HVMOP_SET_EVTCHN_UPCALL_VECTOR [HVMOP_set_evtchn_upcall_vector]: u32 = 23;
    /// Asks for a memory event. No argument.
    pub const HVMOP_GUEST_REQUEST_VM_EVENT [HVMOP_guest_request_vm_event]: u32 = 24;
    /// Alternative maps of guest frames.
    pub const HVMOP_ALTP2M [HVMOP_altp2m]: u32 = 25;
    /// Version of [`HVMOP_ALTP2M`].
    pub const HVMOP_ALTP2M_INTERFACE_VERSION: u32 = 1;

    /// A frame of memory.
    pub const HVMMEM_RAM_RW [HVMMEM_ram_rw]: u16 = 0;
    /// A frame of memory; writes are dropped.
    pub const HVMMEM_RAM_RO [HVMMEM_ram_ro]: u16 = 1;
    /// A frame that the device model answers for.
    pub const HVMMEM_MMIO_DM [HVMMEM_mmio_dm]: u16 = 2;
    /// Not used.
    pub const HVMMEM_UNUSED [HVMMEM_unused]: u16 = 3;
    /// A frame whose writes go to a server of I/O requests.
    pub const HVMMEM_IOREQ_SERVER [HVMMEM_ioreq_server]: u16 = 4;
    /// A server of I/O requests: none are buffered.
    pub const HVM_IOREQSRV_BUFIOREQ_OFF: u8 = 0;
    /// A server of I/O requests: buffered ones, the pointers apart.
    pub const HVM_IOREQSRV_BUFIOREQ_LEGACY: u8 = 1;
    /// A server of I/O requests: buffered ones, the pointers as one word.
    pub const HVM_IOREQSRV_BUFIOREQ_ATOMIC: u8 = 2;
}

structs! {
    header "hvm/hvm_op.h";

    /// `HVMOP_{set,get}_param`: a parameter of a domain.
    pub struct HvmParam ["struct xen_hvm_param"] {
        /// In: the domain.
        pub domid: u16,
        /// Zero.
        pub pad: u16,
        /// In: `HVM_PARAM_*`.
        pub index: u32,
        /// In or out: value.
        pub value: u64,
    }

    /// `HVMOP_pagetable_dying`: a page table.
    pub struct HvmPagetableDying ["struct xen_hvm_pagetable_dying"] {
        /// In: the domain.
        pub domid: u16,
        /// Zero.
        pub pad: [u16; 3],
        /// In: guest-physical address of the top level.
        pub gpa: u64,
    }

    /// `HVMOP_get_time`: the system time.
    pub struct HvmGetTime ["struct xen_hvm_get_time"] {
        /// Out: nanoseconds since the machine started.
        pub now: u64,
    }

    /// `HVMOP_xentrace`: a trace record.
    pub struct HvmXentrace ["struct xen_hvm_xentrace"] {
        /// In: which event.
        pub event: u16,
        /// In: bytes of data.
        pub extra_bytes: u16,
        /// In: data.
        pub extra: [u8; 28],
    }

    /// `HVMOP_get_mem_type`: a guest frame.
    pub struct HvmGetMemType ["struct xen_hvm_get_mem_type"] {
        /// In: the domain.
        pub domid: u16,
        /// Out: `HVMMEM_*`.
        pub mem_type: u16,
        /// Zero.
        pub pad: [u16; 2],
        /// In: the frame.
        pub pfn: u64,
    }

    /// `HVMOP_set_evtchn_upcall_vector`: a vCPU's vector.
    pub struct HvmEvtchnUpcallVector ["struct xen_hvm_evtchn_upcall_vector"] {
        /// In: the vCPU, by its number for ACPI.
        pub vcpu: u32,
        /// In: the vector; 0 for the domain's own way.
        pub vector: u8,
        /// Padding.
        pub _pad0: [u8; 3],
    }
}
