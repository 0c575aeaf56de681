//! The core of the ABI: hypercall numbers, domain numbers, virtual interrupts, page-table and TLB operations, multicalls,
//! and the two pages that describe a domain to itself ([`SharedInfo`], [`StartInfo`]).
//!
//! Xen: `public/xen.h`.

pub(crate) mod shared;
pub(crate) mod start;

use crate::layout::{constants, structs};

pub use shared::{
    SharedInfo, SharedInfoAtomic, VcpuInfo, VcpuInfoAtomic, VcpuTimeInfo, VcpuTimeInfoAtomic, XEN_LEGACY_MAX_VCPUS,
    XEN_PVCLOCK_GUEST_STOPPED, XEN_PVCLOCK_TSC_STABLE_BIT,
};
pub use start::{
    Dom0VgaConsoleInfo, MAX_GUEST_CMDLINE, MultibootModList, SIF_INITDOMAIN, SIF_MOD_START_PFN, SIF_MULTIBOOT_MOD,
    SIF_PM_MASK, SIF_PRIVILEGED, SIF_VIRT_P2M_4TOOLS, START_INFO_MAGIC, StartFlags, StartInfo, VgaTextMode3,
    VgaVesaLfb, XEN_VGATYPE_EFI_LFB, XEN_VGATYPE_TEXT_MODE_3, XEN_VGATYPE_VESA_LFB,
};

constants! {
    header "xen.h";

    /// Registers the table of exception handlers: `set_trap_table(traps*)`.
    pub const HYPERVISOR_SET_TRAP_TABLE [__HYPERVISOR_set_trap_table]: u64 = 0;
    /// Changes page-table entries: `mmu_update(requests*, count, done*, foreign domain)`.
    pub const HYPERVISOR_MMU_UPDATE [__HYPERVISOR_mmu_update]: u64 = 1;
    /// Installs a descriptor table: `set_gdt(frames*, entries)`.
    pub const HYPERVISOR_SET_GDT [__HYPERVISOR_set_gdt]: u64 = 2;
    /// Sets the stack for entries from user mode: `stack_switch(ss, sp)`.
    pub const HYPERVISOR_STACK_SWITCH [__HYPERVISOR_stack_switch]: u64 = 3;
    /// Registers the event, failsafe and syscall entries: `set_callbacks(event, failsafe, syscall)`.
    pub const HYPERVISOR_SET_CALLBACKS [__HYPERVISOR_set_callbacks]: u64 = 4;
    /// Sets or clears CR0.TS: `fpu_taskswitch(set)`.
    pub const HYPERVISOR_FPU_TASKSWITCH [__HYPERVISOR_fpu_taskswitch]: u64 = 5;
    /// The retired form of `sched_op`: `sched_op_compat(cmd, argument)`.
    pub const HYPERVISOR_SCHED_OP_COMPAT [__HYPERVISOR_sched_op_compat]: u64 = 6;
    /// Controls the machine, for the first domain: `platform_op(op*)`.
    pub const HYPERVISOR_PLATFORM_OP [__HYPERVISOR_platform_op]: u64 = 7;
    /// Writes a debug register: `set_debugreg(number, value)`.
    pub const HYPERVISOR_SET_DEBUGREG [__HYPERVISOR_set_debugreg]: u64 = 8;
    /// Reads a debug register: `get_debugreg(number)`.
    pub const HYPERVISOR_GET_DEBUGREG [__HYPERVISOR_get_debugreg]: u64 = 9;
    /// Changes one descriptor: `update_descriptor(machine address, descriptor)`.
    pub const HYPERVISOR_UPDATE_DESCRIPTOR [__HYPERVISOR_update_descriptor]: u64 = 10;
    /// Memory reservation and maps: `memory_op(cmd, argument*)`.
    pub const HYPERVISOR_MEMORY_OP [__HYPERVISOR_memory_op]: u64 = 12;
    /// Several hypercalls in one: `multicall(entries*, count)`.
    pub const HYPERVISOR_MULTICALL [__HYPERVISOR_multicall]: u64 = 13;
    /// Changes the L1 entry of an address: `update_va_mapping(address, entry, flags)`.
    pub const HYPERVISOR_UPDATE_VA_MAPPING [__HYPERVISOR_update_va_mapping]: u64 = 14;
    /// Arms the vCPU's timer: `set_timer_op(absolute system time in ns)`.
    pub const HYPERVISOR_SET_TIMER_OP [__HYPERVISOR_set_timer_op]: u64 = 15;
    /// The retired form of `event_channel_op`: `event_channel_op_compat(op*)`.
    pub const HYPERVISOR_EVENT_CHANNEL_OP_COMPAT [__HYPERVISOR_event_channel_op_compat]: u64 = 16;
    /// What the hypervisor is: `xen_version(cmd, argument*)`.
    pub const HYPERVISOR_XEN_VERSION [__HYPERVISOR_xen_version]: u64 = 17;
    /// The emergency console: `console_io(cmd, count, buffer*)`.
    pub const HYPERVISOR_CONSOLE_IO [__HYPERVISOR_console_io]: u64 = 18;
    /// The retired form of `physdev_op`: `physdev_op_compat(op*)`.
    pub const HYPERVISOR_PHYSDEV_OP_COMPAT [__HYPERVISOR_physdev_op_compat]: u64 = 19;
    /// Grant tables: `grant_table_op(cmd, array*, count)`.
    pub const HYPERVISOR_GRANT_TABLE_OP [__HYPERVISOR_grant_table_op]: u64 = 20;
    /// Switches emulation aids on and off: `vm_assist(cmd, type)`.
    pub const HYPERVISOR_VM_ASSIST [__HYPERVISOR_vm_assist]: u64 = 21;
    /// As `update_va_mapping`, with pages of another domain: `…(address, entry, flags, domain)`.
    pub const HYPERVISOR_UPDATE_VA_MAPPING_OTHERDOMAIN [__HYPERVISOR_update_va_mapping_otherdomain]: u64 = 22;
    /// Returns from a handler with the frame on the stack; does not return to its caller.
    pub const HYPERVISOR_IRET [__HYPERVISOR_iret]: u64 = 23;
    /// Virtual CPUs: `vcpu_op(cmd, vcpu, argument*)`.
    pub const HYPERVISOR_VCPU_OP [__HYPERVISOR_vcpu_op]: u64 = 24;
    /// Sets FS or GS base: `set_segment_base(which, base)`.
    pub const HYPERVISOR_SET_SEGMENT_BASE [__HYPERVISOR_set_segment_base]: u64 = 25;
    /// Pins tables, flushes, switches tables: `mmuext_op(ops*, count, done*, foreign domain)`.
    pub const HYPERVISOR_MMUEXT_OP [__HYPERVISOR_mmuext_op]: u64 = 26;
    /// The security module: `xsm_op(op*)`.
    pub const HYPERVISOR_XSM_OP [__HYPERVISOR_xsm_op]: u64 = 27;
    /// Non-maskable interrupts: `nmi_op(cmd, argument*)`.
    pub const HYPERVISOR_NMI_OP [__HYPERVISOR_nmi_op]: u64 = 28;
    /// Yield, block, shut down, poll: `sched_op(cmd, argument*)`.
    pub const HYPERVISOR_SCHED_OP [__HYPERVISOR_sched_op]: u64 = 29;
    /// Registers entries by type: `callback_op(cmd, argument*)`.
    pub const HYPERVISOR_CALLBACK_OP [__HYPERVISOR_callback_op]: u64 = 30;
    /// Profiling: `xenoprof_op(cmd, argument*)`.
    pub const HYPERVISOR_XENOPROF_OP [__HYPERVISOR_xenoprof_op]: u64 = 31;
    /// Event channels: `event_channel_op(cmd, argument*)`.
    pub const HYPERVISOR_EVENT_CHANNEL_OP [__HYPERVISOR_event_channel_op]: u64 = 32;
    /// Physical devices: `physdev_op(cmd, argument*)`.
    pub const HYPERVISOR_PHYSDEV_OP [__HYPERVISOR_physdev_op]: u64 = 33;
    /// HVM control: `hvm_op(cmd, argument*)`.
    pub const HYPERVISOR_HVM_OP [__HYPERVISOR_hvm_op]: u64 = 34;
    /// System control, for the toolstack: `sysctl(op*)`.
    pub const HYPERVISOR_SYSCTL [__HYPERVISOR_sysctl]: u64 = 35;
    /// Domain control, for the toolstack: `domctl(op*)`.
    pub const HYPERVISOR_DOMCTL [__HYPERVISOR_domctl]: u64 = 36;
    /// Crash kernels: `kexec_op(cmd, argument*)`.
    pub const HYPERVISOR_KEXEC_OP [__HYPERVISOR_kexec_op]: u64 = 37;
    /// Transcendent memory, gone since 4.13: always `ENOSYS`.
    pub const HYPERVISOR_TMEM_OP [__HYPERVISOR_tmem_op]: u64 = 38;
    /// Argo messages: `argo_op(cmd, …)`.
    pub const HYPERVISOR_ARGO_OP [__HYPERVISOR_argo_op]: u64 = 39;
    /// Performance counters: `xenpmu_op(cmd, argument*)`.
    pub const HYPERVISOR_XENPMU_OP [__HYPERVISOR_xenpmu_op]: u64 = 40;
    /// Device models: `dm_op(domain, count, buffers*)`.
    pub const HYPERVISOR_DM_OP [__HYPERVISOR_dm_op]: u64 = 41;
    /// The hypervisor's file system of settings: `hypfs_op(cmd, …)`.
    pub const HYPERVISOR_HYPFS_OP [__HYPERVISOR_hypfs_op]: u64 = 42;
    /// First of the numbers an architecture defines; on x86 `mca`.
    pub const HYPERVISOR_ARCH_0 [__HYPERVISOR_arch_0]: u64 = 48;
    /// On x86 the continuation of shadow operations (`paging_domctl_cont`), not for callers.
    pub const HYPERVISOR_ARCH_1 [__HYPERVISOR_arch_1]: u64 = 49;
    /// Not used on x86.
    pub const HYPERVISOR_ARCH_2 [__HYPERVISOR_arch_2]: u64 = 50;
    /// Not used on x86.
    pub const HYPERVISOR_ARCH_3 [__HYPERVISOR_arch_3]: u64 = 51;
    /// Not used on x86.
    pub const HYPERVISOR_ARCH_4 [__HYPERVISOR_arch_4]: u64 = 52;
    /// Not used on x86.
    pub const HYPERVISOR_ARCH_5 [__HYPERVISOR_arch_5]: u64 = 53;
    /// Not used on x86.
    pub const HYPERVISOR_ARCH_6 [__HYPERVISOR_arch_6]: u64 = 54;
    /// Not used on x86.
    pub const HYPERVISOR_ARCH_7 [__HYPERVISOR_arch_7]: u64 = 55;

    /// The timer of a vCPU has fired. One for each vCPU.
    pub const VIRQ_TIMER: u32 = 0;
    /// Asks the guest to print its state. One for each vCPU.
    pub const VIRQ_DEBUG: u32 = 1;
    /// Input for the emergency console. Global, for the first domain.
    pub const VIRQ_CONSOLE: u32 = 2;
    /// A domain changed its state (shut down, crashed, was destroyed). Global, for the first domain.
    pub const VIRQ_DOM_EXC: u32 = 3;
    /// Trace buffers hold records. Global.
    pub const VIRQ_TBUF: u32 = 4;
    /// A domain paused for its debugger. Global.
    pub const VIRQ_DEBUGGER: u32 = 6;
    /// Profiling samples. One for each vCPU.
    pub const VIRQ_XENOPROF: u32 = 7;
    /// Bytes arrived in the hypervisor's console ring. Global.
    pub const VIRQ_CON_RING: u32 = 8;
    /// A physical CPU changed its state. Global.
    pub const VIRQ_PCPU_STATE: u32 = 9;
    /// Memory events. Global.
    pub const VIRQ_MEM_EVENT: u32 = 10;
    /// Argo messages. One for each vCPU.
    pub const VIRQ_ARGO: u32 = 11;
    /// The hypervisor runs low on memory. Global.
    pub const VIRQ_ENOMEM: u32 = 12;
    /// Performance counters. One for each vCPU.
    pub const VIRQ_XENPMU: u32 = 13;
    /// First of the interrupts an architecture defines; on x86 machine checks (`VIRQ_MCA`).
    pub const VIRQ_ARCH_0: u32 = 16;
    /// Not used on x86.
    pub const VIRQ_ARCH_1: u32 = 17;
    /// Not used on x86.
    pub const VIRQ_ARCH_2: u32 = 18;
    /// Not used on x86.
    pub const VIRQ_ARCH_3: u32 = 19;
    /// Not used on x86.
    pub const VIRQ_ARCH_4: u32 = 20;
    /// Not used on x86.
    pub const VIRQ_ARCH_5: u32 = 21;
    /// Not used on x86.
    pub const VIRQ_ARCH_6: u32 = 22;
    /// Not used on x86.
    pub const VIRQ_ARCH_7: u32 = 23;
    /// Number of virtual interrupts.
    pub const NR_VIRQS: u32 = 24;

    /// `mmu_update`, low bits of `ptr`: a checked write of a page-table entry.
    pub const MMU_NORMAL_PT_UPDATE: u64 = 0;
    /// `mmu_update`, low bits of `ptr`: sets the machine-to-physical entry of the frame in `ptr` to `val`.
    pub const MMU_MACHPHYS_UPDATE: u64 = 1;
    /// `mmu_update`, low bits of `ptr`: as a normal write, but keeps the accessed and dirty bits of the old entry.
    pub const MMU_PT_UPDATE_PRESERVE_AD: u64 = 2;
    /// `mmu_update`, low bits of `ptr`: as a normal write, but the frame in `val` is not translated.
    pub const MMU_PT_UPDATE_NO_TRANSLATE: u64 = 3;

    /// Pins a frame as an L1 table (`arg1`: frame).
    pub const MMUEXT_PIN_L1_TABLE: u32 = 0;
    /// Pins a frame as an L2 table (`arg1`: frame).
    pub const MMUEXT_PIN_L2_TABLE: u32 = 1;
    /// Pins a frame as an L3 table (`arg1`: frame).
    pub const MMUEXT_PIN_L3_TABLE: u32 = 2;
    /// Pins a frame as an L4 table (`arg1`: frame).
    pub const MMUEXT_PIN_L4_TABLE: u32 = 3;
    /// Takes the pin away again (`arg1`: frame).
    pub const MMUEXT_UNPIN_TABLE: u32 = 4;
    /// Switches the kernel's page table (`arg1`: frame of an L4).
    pub const MMUEXT_NEW_BASEPTR: u32 = 5;
    /// Flushes this vCPU's TLB.
    pub const MMUEXT_TLB_FLUSH_LOCAL: u32 = 6;
    /// Flushes one address on this vCPU (`arg1`: address).
    pub const MMUEXT_INVLPG_LOCAL: u32 = 7;
    /// Flushes the TLB of some vCPUs (`arg2`: address of a bitmap of vCPUs).
    pub const MMUEXT_TLB_FLUSH_MULTI: u32 = 8;
    /// Flushes one address on some vCPUs (`arg1`: address; `arg2`: address of a bitmap of vCPUs).
    pub const MMUEXT_INVLPG_MULTI: u32 = 9;
    /// Flushes the TLB of all vCPUs.
    pub const MMUEXT_TLB_FLUSH_ALL: u32 = 10;
    /// Flushes one address on all vCPUs (`arg1`: address).
    pub const MMUEXT_INVLPG_ALL: u32 = 11;
    /// Writes the caches back; needs access to a device.
    pub const MMUEXT_FLUSH_CACHE: u32 = 12;
    /// Sets the LDT (`arg1`: address, page-aligned; `arg2`: entries).
    pub const MMUEXT_SET_LDT: u32 = 13;
    /// Switches the user's page table (`arg1`: frame of an L4, or 0 for none).
    pub const MMUEXT_NEW_USER_BASEPTR: u32 = 15;
    /// Fills a frame with zeros (`arg1`: frame).
    pub const MMUEXT_CLEAR_PAGE: u32 = 16;
    /// Copies a frame (`arg1`: destination frame; `arg2`: source frame).
    pub const MMUEXT_COPY_PAGE: u32 = 17;
    /// Writes the caches of all CPUs back; needs access to a device.
    pub const MMUEXT_FLUSH_CACHE_GLOBAL: u32 = 18;
    /// Marks a frame as part of a superpage; Xen 4.17 answers `EOPNOTSUPP`.
    pub const MMUEXT_MARK_SUPER: u32 = 19;
    /// The reverse of [`MMUEXT_MARK_SUPER`].
    pub const MMUEXT_UNMARK_SUPER: u32 = 20;

    /// `update_va_mapping`: no flush.
    pub const UVMF_NONE: u64 = 0;
    /// `update_va_mapping`: flush the whole TLB.
    pub const UVMF_TLB_FLUSH: u64 = 1;
    /// `update_va_mapping`: flush this address only.
    pub const UVMF_INVLPG: u64 = 2;
    /// Mask of the kind of flush.
    pub const UVMF_FLUSHTYPE_MASK: u64 = 3;
    /// Flush on the vCPUs of a bitmap, whose address is in the other bits.
    pub const UVMF_MULTI: u64 = 0;
    /// Flush on this vCPU.
    pub const UVMF_LOCAL: u64 = 0;
    /// Flush on all vCPUs.
    pub const UVMF_ALL: u64 = 1 << 2;

    /// `console_io`: writes `count` bytes.
    pub const CONSOLEIO_WRITE [CONSOLEIO_write]: u32 = 0;
    /// `console_io`: reads up to `count` bytes; returns how many.
    pub const CONSOLEIO_READ [CONSOLEIO_read]: u32 = 1;

    /// `vm_assist`: switches an aid on.
    pub const VMASST_CMD_ENABLE [VMASST_CMD_enable]: u32 = 0;
    /// `vm_assist`: switches an aid off.
    pub const VMASST_CMD_DISABLE [VMASST_CMD_disable]: u32 = 1;
    /// Emulates 4 GiB segments; 32-bit guests.
    pub const VMASST_TYPE_4GB_SEGMENTS [VMASST_TYPE_4gb_segments]: u32 = 0;
    /// Tells the guest of each such emulation; 32-bit guests.
    pub const VMASST_TYPE_4GB_SEGMENTS_NOTIFY [VMASST_TYPE_4gb_segments_notify]: u32 = 1;
    /// Emulates direct writes to L1 tables.
    pub const VMASST_TYPE_WRITABLE_PAGETABLES [VMASST_TYPE_writable_pagetables]: u32 = 2;
    /// Page directories above 4 GiB; 32-bit guests.
    pub const VMASST_TYPE_PAE_EXTENDED_CR3 [VMASST_TYPE_pae_extended_cr3]: u32 = 3;
    /// Keeps IOPL in the guest's flags as hardware would.
    pub const VMASST_TYPE_ARCHITECTURAL_IOPL [VMASST_TYPE_architectural_iopl]: u32 = 4;
    /// Sets `XEN_RUNSTATE_UPDATE` while a run-state area is being written.
    pub const VMASST_TYPE_RUNSTATE_UPDATE_FLAG [VMASST_TYPE_runstate_update_flag]: u32 = 5;
    /// Keeps the machine-to-physical table out of the user's page table.
    pub const VMASST_TYPE_M2P_STRICT [VMASST_TYPE_m2p_strict]: u32 = 32;

    /// The smallest domain number with a special meaning.
    pub const DOMID_FIRST_RESERVED: u16 = 0x7ff0;
    /// The calling domain.
    pub const DOMID_SELF: u16 = 0x7ff0;
    /// The owner of memory-mapped I/O: lets a privileged domain map it.
    pub const DOMID_IO: u16 = 0x7ff1;
    /// The hypervisor as the owner of pages it shares.
    pub const DOMID_XEN: u16 = 0x7ff2;
    /// The owner of shared copy-on-write pages.
    pub const DOMID_COW: u16 = 0x7ff3;
    /// No domain.
    pub const DOMID_INVALID: u16 = 0x7ff4;
    /// The idle domain.
    pub const DOMID_IDLE: u16 = 0x7fff;
    /// Mask of a domain number where it shares a word.
    pub const DOMID_MASK: u16 = 0x7fff;
}

/// `mmu_update` and `mmuext_op`: the bit of `count` with which a preempted call marks its continuation.
///
/// Xen: `MMU_UPDATE_PREEMPTED`, the hypervisor's own, seen by a guest that decodes its own registers.
pub const MMU_UPDATE_PREEMPTED: u32 = 1 << 31;

structs! {
    header "xen.h";

    /// One request of `mmu_update`.
    pub struct MmuUpdate ["struct mmu_update"] {
        /// Machine address of the entry, with `MMU_*` in the two low bits.
        pub ptr: u64,
        /// The new entry; for `MMU_MACHPHYS_UPDATE` the pseudo-physical frame number.
        pub val: u64,
    }

    /// One request of `mmuext_op`. Which arguments count depends on `cmd`.
    pub struct MmuextOp ["struct mmuext_op"] {
        /// `MMUEXT_*`.
        pub cmd: u32,
        /// Padding.
        pub _pad0: u32,
        /// A machine frame number or an address.
        pub arg1: u64,
        /// A number of entries (32 bits), the address of a bitmap of vCPUs, or a machine frame number.
        pub arg2: u64,
    }

    /// One call of a multicall.
    pub struct MulticallEntry ["struct multicall_entry"] {
        /// In: `HYPERVISOR_*`.
        pub op: u64,
        /// Out: what the call returned.
        pub result: u64,
        /// In: its arguments.
        pub args: [u64; 6],
    }

    /// A bitmap of any length in the caller's memory.
    pub struct CtlBitmap ["struct xenctl_bitmap"] {
        /// Address of the bytes; bit 0 of byte 0 is number 0.
        pub bitmap: u64,
        /// Length in bits.
        pub nr_bits: u32,
        /// Padding.
        pub _pad0: u32,
    }

    /// A UUID in the order in which it is written.
    pub struct Uuid ["xen_uuid_t"] {
        /// The bytes.
        pub a: [u8; 16],
    }
}

bitflags::bitflags! {
    /// What `update_va_mapping` flushes and where; the other bits may hold the address of a bitmap of vCPUs.
    ///
    /// Xen: `UVMF_*` in `public/xen.h`.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
    pub struct UvmFlags: u64 {
        /// The whole TLB.
        const TLB_FLUSH = UVMF_TLB_FLUSH;
        /// The one address.
        const INVLPG = UVMF_INVLPG;
        /// On all vCPUs.
        const ALL = UVMF_ALL;
    }
}

impl MmuUpdate {
    /// A checked write of `entry` to the page-table entry at machine address `ptr` (a multiple of 8).
    pub const fn normal(ptr: u64, entry: u64) -> MmuUpdate {
        MmuUpdate { ptr: ptr | MMU_NORMAL_PT_UPDATE, val: entry }
    }

    /// The same where the entry's frame is the machine's even if its owner has frame numbers of its own.
    pub const fn no_translate(ptr: u64, entry: u64) -> MmuUpdate {
        MmuUpdate { ptr: ptr | MMU_PT_UPDATE_NO_TRANSLATE, val: entry }
    }

    /// The operation in the low bits of `ptr`.
    pub const fn command(&self) -> u64 {
        self.ptr & 3
    }

    /// The machine address without the operation.
    pub const fn address(&self) -> u64 {
        self.ptr & !3
    }
}
