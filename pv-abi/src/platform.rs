//! Control of the platform, for the first domain's kernel: the wall clock, firmware, sleep, power, physical CPUs.
//!
//! `HYPERVISOR_platform_op(op)`: `op` is the address of a [`PlatformOp`], a frame of command and version with the command's own
//! struct in its last 128 bytes. The call returns 0 or a negated errno, `resource_op` a count; "out" fields are written back
//! into the same struct. A caller whose version differs is refused with `EACCES`.
//!
//! The structs of firmware and power are in submodules and re-exported here.
//!
//! Xen: `public/platform.h`.

pub(crate) mod firmware;
pub(crate) mod power;

use crate::layout::{constants, structs};
use crate::payload::payload;

pub use firmware::*;
pub use power::*;

constants! {
    header "platform.h";
    /// What [`PlatformOp::interface_version`] must be.
    pub const XENPF_INTERFACE_VERSION: u32 = 0x0300_0001;

    /// Sets the wall clock; see [`XenpfSettime32`].
    pub const XENPF_SETTIME32 [XENPF_settime32]: u32 = 17;
    /// Sets the type of a memory range; see [`XenpfAddMemtype`].
    pub const XENPF_ADD_MEMTYPE [XENPF_add_memtype]: u32 = 31;
    /// Forgets the type of a memory range; see [`XenpfDelMemtype`].
    pub const XENPF_DEL_MEMTYPE [XENPF_del_memtype]: u32 = 32;
    /// Tells the type of a memory range; see [`XenpfReadMemtype`].
    pub const XENPF_READ_MEMTYPE [XENPF_read_memtype]: u32 = 33;
    /// Loads microcode; see [`XenpfMicrocodeUpdate`].
    pub const XENPF_MICROCODE_UPDATE [XENPF_microcode_update]: u32 = 35;
    /// Tells of a quirk of the platform; see [`XenpfPlatformQuirk`].
    pub const XENPF_PLATFORM_QUIRK [XENPF_platform_quirk]: u32 = 39;
    /// Tells a CPU's model; see [`XenpfPcpuVersion`].
    pub const XENPF_GET_CPU_VERSION [XENPF_get_cpu_version]: u32 = 48;
    /// Calls EFI; see [`XenpfEfiRuntimeCall`].
    pub const XENPF_EFI_RUNTIME_CALL [XENPF_efi_runtime_call]: u32 = 49;
    /// Tells what the firmware said at boot; see [`XenpfFirmwareInfo`].
    pub const XENPF_FIRMWARE_INFO [XENPF_firmware_info]: u32 = 50;
    /// Puts the machine to sleep; see [`XenpfEnterAcpiSleep`].
    pub const XENPF_ENTER_ACPI_SLEEP [XENPF_enter_acpi_sleep]: u32 = 51;
    /// Tells of a CPU's new frequency; see [`XenpfChangeFreq`].
    pub const XENPF_CHANGE_FREQ [XENPF_change_freq]: u32 = 52;
    /// Tells how long CPUs were idle; see [`XenpfGetidletime`].
    pub const XENPF_GETIDLETIME [XENPF_getidletime]: u32 = 53;
    /// Tells of power states that ACPI describes; see [`XenpfSetProcessorPminfo`].
    pub const XENPF_SET_PROCESSOR_PMINFO [XENPF_set_processor_pminfo]: u32 = 54;
    /// Tells about a CPU; see [`XenpfPcpuinfo`].
    pub const XENPF_GET_CPUINFO [XENPF_get_cpuinfo]: u32 = 55;
    /// Brings a CPU up; see [`XenpfCpuOl`].
    pub const XENPF_CPU_ONLINE [XENPF_cpu_online]: u32 = 56;
    /// Takes a CPU down; see [`XenpfCpuOl`].
    pub const XENPF_CPU_OFFLINE [XENPF_cpu_offline]: u32 = 57;
    /// Tells of a new CPU; see [`XenpfCpuHotadd`].
    pub const XENPF_CPU_HOTADD [XENPF_cpu_hotadd]: u32 = 58;
    /// Tells of new memory; see [`XenpfMemHotadd`].
    pub const XENPF_MEM_HOTADD [XENPF_mem_hotadd]: u32 = 59;
    /// Parks cores; see [`XenpfCoreParking`].
    pub const XENPF_CORE_PARKING [XENPF_core_parking]: u32 = 60;
    /// Reads and writes MSRs; see [`XenpfResourceOp`].
    pub const XENPF_RESOURCE_OP [XENPF_resource_op]: u32 = 61;
    /// Sets the wall clock; see [`XenpfSettime64`].
    pub const XENPF_SETTIME64 [XENPF_settime64]: u32 = 62;
    /// Tells a symbol of the hypervisor; see [`XenpfSymdata`].
    pub const XENPF_GET_SYMBOL [XENPF_get_symbol]: u32 = 63;

    /// Quirk: interrupts may go to any CPU.
    pub const QUIRK_NOIRQBALANCING: u32 = 1;
    /// Quirk: the IOAPIC forgets which register was chosen.
    pub const QUIRK_IOAPIC_BAD_REGSEL: u32 = 2;
    /// Quirk: the IOAPIC keeps which register was chosen.
    pub const QUIRK_IOAPIC_GOOD_REGSEL: u32 = 3;
    /// `resource_op`: reads an MSR.
    pub const XEN_RESOURCE_OP_MSR_READ: u32 = 0;
    /// `resource_op`: writes an MSR.
    pub const XEN_RESOURCE_OP_MSR_WRITE: u32 = 1;
    /// `get_cpuinfo`: is up.
    pub const XEN_PCPU_FLAGS_ONLINE: u32 = 1;
    /// `get_cpuinfo`: is not there.
    pub const XEN_PCPU_FLAGS_INVALID: u32 = 2;
    /// `core_parking`: sets.
    pub const XEN_CORE_PARKING_SET: u32 = 1;
    /// `core_parking`: tells.
    pub const XEN_CORE_PARKING_GET: u32 = 2;
}

structs! {
    header "platform.h";

    /// `XENPF_settime32`: the wall clock at a system time.
    pub struct XenpfSettime32 ["struct xenpf_settime32"] {
        /// In: seconds since 1970, UTC.
        pub secs: u32,
        /// In: nanoseconds beyond them.
        pub nsecs: u32,
        /// In: system time at which it is so, in nanoseconds.
        pub system_time: u64,
    }

    /// `XENPF_settime64`: the wall clock at a system time.
    pub struct XenpfSettime64 ["struct xenpf_settime64"] {
        /// In: seconds since 1970, UTC.
        pub secs: u64,
        /// In: nanoseconds beyond them.
        pub nsecs: u32,
        /// Zero.
        pub mbz: u32,
        /// In: system time at which it is so, in nanoseconds.
        pub system_time: u64,
    }

    /// `XENPF_add_memtype`: the type of a memory range.
    pub struct XenpfAddMemtype ["struct xenpf_add_memtype"] {
        /// In: first machine frame.
        pub mfn: u64,
        /// In: number of frames.
        pub nr_mfns: u64,
        /// In: type, as memory-type registers have it.
        pub type_ ["type"]: u32,
        /// Out: names it.
        pub handle: u32,
        /// Out: which register.
        pub reg: u32,
        /// Padding.
        pub _pad0: u32,
    }

    /// `XENPF_del_memtype`: the type of a memory range.
    pub struct XenpfDelMemtype ["struct xenpf_del_memtype"] {
        /// In: its name, or 0.
        pub handle: u32,
        /// In: which register.
        pub reg: u32,
    }

    /// `XENPF_read_memtype`: the type of a memory range.
    pub struct XenpfReadMemtype ["struct xenpf_read_memtype"] {
        /// In: which register.
        pub reg: u32,
        /// Padding.
        pub _pad0: u32,
        /// Out: first machine frame.
        pub mfn: u64,
        /// Out: number of frames.
        pub nr_mfns: u64,
        /// Out: type.
        pub type_ ["type"]: u32,
        /// Padding.
        pub _pad1: u32,
    }

    /// `XENPF_microcode_update`: microcode.
    pub struct XenpfMicrocodeUpdate ["struct xenpf_microcode_update"] {
        /// In: its address.
        pub data: u64,
        /// In: its bytes.
        pub length: u32,
        /// Padding.
        pub _pad0: u32,
    }

    /// `XENPF_platform_quirk`: a quirk.
    pub struct XenpfPlatformQuirk ["struct xenpf_platform_quirk"] {
        /// In: `QUIRK_*`.
        pub quirk_id: u32,
    }

    /// `XENPF_get_cpuinfo`: a CPU.
    pub struct XenpfPcpuinfo ["struct xenpf_pcpuinfo"] {
        /// In: its number.
        pub xen_cpuid: u32,
        /// Out: the highest number.
        pub max_present: u32,
        /// Out: `XEN_PCPU_FLAGS_*`.
        pub flags: u32,
        /// Out: number of its local APIC.
        pub apic_id: u32,
        /// Out: its number for ACPI.
        pub acpi_id: u32,
    }

    /// `XENPF_get_cpu_version`: a CPU's model.
    pub struct XenpfPcpuVersion ["struct xenpf_pcpu_version"] {
        /// In: its number.
        pub xen_cpuid: u32,
        /// Out: the highest number.
        pub max_present: u32,
        /// Out: its maker, without a terminating zero.
        pub vendor_id: [u8; 12],
        /// Out: family.
        pub family: u32,
        /// Out: model.
        pub model: u32,
        /// Out: stepping.
        pub stepping: u32,
    }

    /// `XENPF_cpu_{on,off}line`: a CPU.
    pub struct XenpfCpuOl ["struct xenpf_cpu_ol"] {
        /// In: its number.
        pub cpuid: u32,
    }

    /// `XENPF_cpu_hotadd`: a new CPU.
    pub struct XenpfCpuHotadd ["struct xenpf_cpu_hotadd"] {
        /// In: number of its local APIC.
        pub apic_id: u32,
        /// In: its number for ACPI.
        pub acpi_id: u32,
        /// In: its proximity domain.
        pub pxm: u32,
    }

    /// `XENPF_mem_hotadd`: new memory.
    pub struct XenpfMemHotadd ["struct xenpf_mem_hotadd"] {
        /// In: first frame.
        pub spfn: u64,
        /// In: frame after the last.
        pub epfn: u64,
        /// In: its proximity domain.
        pub pxm: u32,
        /// In: 0.
        pub flags: u32,
    }

    /// `XENPF_core_parking`: cores at rest.
    pub struct XenpfCoreParking ["struct xenpf_core_parking"] {
        /// In: `XEN_CORE_PARKING_*`.
        pub type_ ["type"]: u32,
        /// In or out: how many.
        pub idle_nums: u32,
    }

    /// One access of `resource_op`.
    pub struct XenpfResourceEntry ["struct xenpf_resource_entry"] {
        /// In: `XEN_RESOURCE_OP_*`. Out: the negated errno of the one that failed.
        pub u: u32,
        /// Zero.
        pub rsvd: u32,
        /// In: number of the MSR.
        pub idx: u64,
        /// In or out: value.
        pub val: u64,
    }

    /// `XENPF_resource_op`: accesses on one CPU.
    pub struct XenpfResourceOp ["struct xenpf_resource_op"] {
        /// In: their number.
        pub nr_entries: u32,
        /// In: the CPU.
        pub cpu: u32,
        /// In: address of [`XenpfResourceEntry`]s.
        pub entries: u64,
    }

    /// `XENPF_get_symbol`: a symbol.
    pub struct XenpfSymdata ["struct xenpf_symdata"] {
        /// In: bytes of the buffer. Out: length of the name.
        pub namelen: u32,
        /// In: which. Out: the next one; the same at the end.
        pub symnum: u32,
        /// In: address of the buffer.
        pub name: u64,
        /// Out: address.
        pub address: u64,
        /// Out: type, a letter as `nm` prints it.
        pub type_ ["type"]: u8,
        /// Padding.
        pub _pad0: [u8; 7],
    }

    /// The frame of every operation.
    #[repr(align(8))]
    pub struct PlatformOp ["struct xen_platform_op"] {
        /// In: `XENPF_*`.
        pub cmd: u32,
        /// In: [`XENPF_INTERFACE_VERSION`].
        pub interface_version: u32,
        /// The command's own struct, in its first bytes.
        pub u: [u8; 128],
    }
}

payload!(PlatformOp, 128);

impl PlatformOp {
    /// A command with a struct of zeros.
    pub fn new(cmd: u32) -> PlatformOp {
        PlatformOp { cmd, interface_version: XENPF_INTERFACE_VERSION, ..PlatformOp::default() }
    }

    /// A command with its own struct.
    pub fn with<T: zerocopy::IntoBytes + zerocopy::Immutable>(cmd: u32, payload: &T) -> PlatformOp {
        let mut operation = PlatformOp::new(cmd);
        operation.set_payload(payload);
        operation
    }
}
