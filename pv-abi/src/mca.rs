//! Machine checks: what the hardware reports as broken.
//!
//! `HYPERVISOR_mca(op)`, number [`HYPERVISOR_ARCH_0`](crate::xen::HYPERVISOR_ARCH_0): `op` is the address of an [`Mc`], a frame
//! of command and version with the command's own struct behind them. The first domain is told by
//! [`VIRQ_ARCH_0`](crate::xen::VIRQ_ARCH_0), others by their handler of machine checks.
//!
//! Telemetry is an [`McInfo`]: `mi_nentries` records in a row, each beginning with an [`McinfoCommon`] that tells its type and
//! its size in bytes.
//!
//! Xen: `public/arch-x86/xen-mca.h`.

use crate::layout::{constants, structs};
use crate::payload::payload;
use crate::xen::CtlBitmap;

constants! {
    header "arch-x86/xen-mca.h";
    /// What [`Mc::interface_version`] must be.
    pub const XEN_MCA_INTERFACE_VERSION: u32 = 0x01ec_c003;
    /// Reads telemetry; see [`McFetch`].
    pub const XEN_MC_FETCH [XEN_MC_fetch]: u32 = 1;
    /// Tells a domain; see [`McNotifydomain`].
    pub const XEN_MC_NOTIFYDOMAIN [XEN_MC_notifydomain]: u32 = 2;
    /// Tells about CPUs; see [`McPhyscpuinfo`].
    pub const XEN_MC_PHYSCPUINFO [XEN_MC_physcpuinfo]: u32 = 3;
    /// Puts values into registers, for tests; see [`McMsrinject`].
    pub const XEN_MC_MSRINJECT [XEN_MC_msrinject]: u32 = 4;
    /// Raises a machine check, for tests; see [`McMceinject`].
    pub const XEN_MC_MCEINJECT [XEN_MC_mceinject]: u32 = 5;
    /// Raises a machine check on some CPUs, for tests; see [`McInjectV2`].
    pub const XEN_MC_INJECT_V2 [XEN_MC_inject_v2]: u32 = 6;

    /// `fetch`, in: what was corrected.
    pub const XEN_MC_NONURGENT: u32 = 1;
    /// `fetch`, in: what was not.
    pub const XEN_MC_URGENT: u32 = 2;
    /// `fetch`, in: an earlier one is done with.
    pub const XEN_MC_ACK: u32 = 4;
    /// Out: done.
    pub const XEN_MC_OK: u32 = 0;
    /// Out: could not be fetched.
    pub const XEN_MC_FETCHFAILED: u32 = 1;
    /// Out: there was nothing.
    pub const XEN_MC_NODATA: u32 = 2;
    /// Out: there is something newer.
    pub const XEN_MC_NOMATCH: u32 = 4;
    /// Out: the domain has no handler.
    pub const XEN_MC_CANNOTHANDLE: u32 = 8;
    /// Out: the domain could not be told.
    pub const XEN_MC_NOTDELIVERED: u32 = 16;
    /// No vCPU.
    pub const XEN_MC_VCPUID_INVALID: u16 = 0xffff;

    /// A record: [`McinfoGlobal`].
    pub const MC_TYPE_GLOBAL: u16 = 0;
    /// A record: [`McinfoBank`].
    pub const MC_TYPE_BANK: u16 = 1;
    /// A record: [`McinfoExtended`].
    pub const MC_TYPE_EXTENDED: u16 = 2;
    /// A record: [`McinfoRecovery`].
    pub const MC_TYPE_RECOVERY: u16 = 3;
    /// Flag: was corrected.
    pub const MC_FLAG_CORRECTABLE: u32 = 1 << 0;
    /// Flag: was not corrected.
    pub const MC_FLAG_UNCORRECTABLE: u32 = 1 << 1;
    /// Flag: can be recovered from.
    pub const MC_FLAG_RECOVERABLE: u32 = 1 << 2;
    /// Flag: found by looking.
    pub const MC_FLAG_POLLED: u32 = 1 << 3;
    /// Flag: found at start.
    pub const MC_FLAG_RESET: u32 = 1 << 4;
    /// Flag: by interrupt.
    pub const MC_FLAG_CMCI: u32 = 1 << 5;
    /// Flag: by exception.
    pub const MC_FLAG_MCE: u32 = 1 << 6;
    /// Recovery: done.
    pub const REC_ACTION_RECOVERED: u8 = 1 << 0;
    /// Recovery: nothing was done.
    pub const REC_ACTION_NONE: u8 = 1 << 1;
    /// Recovery: needs a reset.
    pub const REC_ACTION_NEED_RESET: u8 = 1 << 2;
    /// Recovery: a page was taken out of use.
    pub const MC_ACTION_PAGE_OFFLINE: u8 = 1 << 0;
    /// Recovery: a CPU was taken out of use.
    pub const MC_ACTION_CPU_OFFLINE: u8 = 1 << 1;
    /// Recovery: a part of the cache was taken out of use.
    pub const MC_ACTION_CACHE_SHRINK: u8 = 1 << 2;
    /// Bytes of a page for the hypercall.
    pub const MCINFO_HYPERCALLSIZE: usize = 1024;
    /// Bytes of telemetry.
    pub const MCINFO_MAXSIZE: usize = 768;
    /// Not all fitted.
    pub const MCINFO_FLAGS_UNCOMPLETE: u32 = 1;
    /// Feature words of a CPU.
    pub const MC_NCAPS: usize = 7;
    /// Feature word: leaf 1, EDX.
    pub const MC_CAPS_STD_EDX: usize = 0;
    /// Feature word: leaf 8000_0001, EDX.
    pub const MC_CAPS_AMD_EDX: usize = 1;
    /// Feature word: leaf 8086_0001.
    pub const MC_CAPS_TM: usize = 2;
    /// Feature word: a kernel's own.
    pub const MC_CAPS_LINUX: usize = 3;
    /// Feature word: leaf 1, ECX.
    pub const MC_CAPS_STD_ECX: usize = 4;
    /// Feature word: leaf C000_0001.
    pub const MC_CAPS_VIA: usize = 5;
    /// Feature word: leaf 8000_0001, ECX.
    pub const MC_CAPS_AMD_ECX: usize = 6;
    /// Registers of one `msrinject`.
    pub const MC_MSRINJ_MAXMSRS: usize = 8;
    /// `msrinject`: the values are shown, not written.
    pub const MC_MSRINJ_F_INTERPOSE: u32 = 1;
    /// `msrinject`: the address is a guest's.
    pub const MC_MSRINJ_F_GPADDR: u32 = 2;
    /// `inject_v2`: mask of the kind.
    pub const XEN_MC_INJECT_TYPE_MASK: u32 = 7;
    /// `inject_v2`: an exception.
    pub const XEN_MC_INJECT_TYPE_MCE: u32 = 0;
    /// `inject_v2`: an interrupt.
    pub const XEN_MC_INJECT_TYPE_CMCI: u32 = 1;
    /// `inject_v2`: an exception on one CPU.
    pub const XEN_MC_INJECT_TYPE_LMCE: u32 = 2;
    /// `inject_v2`: on all CPUs.
    pub const XEN_MC_INJECT_CPU_BROADCAST: u32 = 8;
}

structs! {
    header "arch-x86/xen-mca.h";

    /// How each record begins.
    pub struct McinfoCommon ["struct mcinfo_common"] {
        /// `MC_TYPE_*`.
        pub type_ ["type"]: u16,
        /// Bytes of the record.
        pub size: u16,
    }

    /// A record of a CPU.
    pub struct McinfoGlobal ["struct mcinfo_global"] {
        /// Type and size.
        pub common: McinfoCommon,
        /// The domain that ran.
        pub mc_domid: u16,
        /// Its vCPU.
        pub mc_vcpuid: u16,
        /// Socket.
        pub mc_socketid: u32,
        /// Core.
        pub mc_coreid: u16,
        /// Thread.
        pub mc_core_threadid: u16,
        /// Local APIC.
        pub mc_apicid: u32,
        /// `MC_FLAG_*`.
        pub mc_flags: u32,
        /// Global status register.
        pub mc_gstatus: u64,
    }

    /// A record of a bank of registers.
    pub struct McinfoBank ["struct mcinfo_bank"] {
        /// Type and size.
        pub common: McinfoCommon,
        /// Which bank.
        pub mc_bank: u16,
        /// The domain whose the address is.
        pub mc_domid: u16,
        /// Status register.
        pub mc_status: u64,
        /// Address register.
        pub mc_addr: u64,
        /// Miscellaneous register.
        pub mc_misc: u64,
        /// Second control register.
        pub mc_ctrl2: u64,
        /// Time stamp.
        pub mc_tsc: u64,
    }

    /// A register.
    pub struct McinfoMsr ["struct mcinfo_msr"] {
        /// Number.
        pub reg: u64,
        /// Value.
        pub value: u64,
    }

    /// A record of more registers.
    pub struct McinfoExtended ["struct mcinfo_extended"] {
        /// Type and size.
        pub common: McinfoCommon,
        /// How many of them count.
        pub mc_msrs: u32,
        /// The registers.
        pub mc_msr: [McinfoMsr; 32],
    }

    /// A page out of use.
    pub struct PageOfflineAction ["struct page_offline_action"] {
        /// Machine frame.
        pub mfn: u64,
        /// `PG_OFFLINE_*`.
        pub status: u64,
    }

    /// A CPU out of use.
    pub struct CpuOfflineAction ["struct cpu_offline_action"] {
        /// Socket.
        pub mc_socketid: u32,
        /// Core.
        pub mc_coreid: u16,
        /// Thread.
        pub mc_core_threadid: u16,
    }

    /// A record of what was done. `u` is [`PageOfflineAction`] or [`CpuOfflineAction`].
    #[repr(align(8))]
    pub struct McinfoRecovery ["struct mcinfo_recovery"] {
        /// Type and size.
        pub common: McinfoCommon,
        /// Which bank.
        pub mc_bank: u16,
        /// `REC_ACTION_*`.
        pub action_flags: u8,
        /// `MC_ACTION_*`.
        pub action_types: u8,
        /// By type.
        pub u ["action_info"]: [u8; 16],
    }

    /// Telemetry.
    pub struct McInfo ["struct mc_info"] {
        /// Number of records.
        pub mi_nentries: u32,
        /// 0 or [`MCINFO_FLAGS_UNCOMPLETE`].
        pub flags: u32,
        /// The records.
        pub mi_data: [u64; 95],
    }

    /// A CPU.
    pub struct McinfoLogicalCpu ["struct mcinfo_logical_cpu"] {
        /// Number.
        pub mc_cpunr: u32,
        /// Socket.
        pub mc_chipid: u32,
        /// Core.
        pub mc_coreid: u16,
        /// Thread.
        pub mc_threadid: u16,
        /// Local APIC.
        pub mc_apicid: u32,
        /// Cluster.
        pub mc_clusterid: u32,
        /// Cores of the socket.
        pub mc_ncores: u32,
        /// Those that are up.
        pub mc_ncores_active: u32,
        /// Threads of the core.
        pub mc_nthreads: u32,
        /// The highest CPUID leaf.
        pub mc_cpuid_level: i32,
        /// Family.
        pub mc_family: u32,
        /// Maker, as a number.
        pub mc_vendor: u32,
        /// Model.
        pub mc_model: u32,
        /// Stepping.
        pub mc_step: u32,
        /// Maker.
        pub mc_vendorid: [u8; 16],
        /// Name.
        pub mc_brandid: [u8; 64],
        /// Feature words, `MC_CAPS_*`.
        pub mc_cpu_caps: [u32; 7],
        /// Cache in KiB.
        pub mc_cache_size: u32,
        /// Bytes of a cache line.
        pub mc_cache_alignment: u32,
        /// How many registers count.
        pub mc_nmsrvals: i32,
        /// Padding.
        pub _pad0: u32,
        /// Registers.
        pub mc_msrvalues: [McinfoMsr; 8],
    }

    /// `XEN_MC_fetch`: telemetry.
    pub struct McFetch ["struct xen_mc_fetch"] {
        /// In and out: `XEN_MC_*`.
        pub flags: u32,
        /// Zero.
        pub _pad0: u32,
        /// Out: names it. In: what is done with.
        pub fetch_id: u64,
        /// In: address of an [`McInfo`].
        pub data: u64,
    }

    /// `XEN_MC_notifydomain`: whom to tell.
    pub struct McNotifydomain ["struct xen_mc_notifydomain"] {
        /// In: the domain.
        pub mc_domid: u16,
        /// In: its vCPU.
        pub mc_vcpuid: u16,
        /// Out: `XEN_MC_*`.
        pub flags: u32,
    }

    /// `XEN_MC_physcpuinfo`: CPUs.
    pub struct McPhyscpuinfo ["struct xen_mc_physcpuinfo"] {
        /// In: room. Out: number.
        pub ncpus: u32,
        /// Zero.
        pub _pad0: u32,
        /// In: address of [`McinfoLogicalCpu`]s; 0 asks for their number.
        pub info: u64,
    }

    /// `XEN_MC_msrinject`: values for registers.
    pub struct McMsrinject ["struct xen_mc_msrinject"] {
        /// In: the CPU.
        pub mcinj_cpunr: u32,
        /// In: `MC_MSRINJ_F_*`.
        pub mcinj_flags: u32,
        /// In: how many of them count.
        pub mcinj_count: u32,
        /// In: the domain whose the address is.
        pub mcinj_domid: u16,
        /// Zero.
        pub _pad0: u16,
        /// In: the registers.
        pub mcinj_msr: [McinfoMsr; 8],
    }

    /// `XEN_MC_mceinject`: where to raise a machine check.
    pub struct McMceinject ["struct xen_mc_mceinject"] {
        /// In: the CPU.
        pub mceinj_cpunr: u32,
    }

    /// `XEN_MC_inject_v2`: where to raise a machine check.
    pub struct McInjectV2 ["struct xen_mc_inject_v2"] {
        /// In: `XEN_MC_INJECT_*`.
        pub flags: u32,
        /// Padding.
        pub _pad0: u32,
        /// In: CPUs.
        pub cpumap: CtlBitmap,
    }

    /// The frame of every operation.
    #[repr(align(8))]
    pub struct Mc ["struct xen_mc"] {
        /// In: `XEN_MC_*`.
        pub cmd: u32,
        /// In: [`XEN_MCA_INTERFACE_VERSION`].
        pub interface_version: u32,
        /// The command's own struct, in its first bytes.
        pub u: [u8; 144],
    }
}

payload!(McinfoRecovery, 16);
payload!(Mc, 144);
