//! The ELF notes with which a kernel says how it wants to be loaded.
//!
//! They stand in a `PT_NOTE` segment under the name `Xen`. A number is 4 or 8 bytes, by the length of the note; a text ends
//! in zero.
//!
//! Xen: `public/elfnote.h`.

use crate::layout::constants;

/// The name field of each note, with its terminating zero.
pub const NOTE_NAME: &[u8; 4] = b"Xen\0";

constants! {
    header "elfnote.h";
    /// Text `NAME=VALUE`.
    pub const XEN_ELFNOTE_INFO: u32 = 0;
    /// Number: the address of the PV entry.
    pub const XEN_ELFNOTE_ENTRY: u32 = 1;
    /// Number: the address of the page to fill with hypercall stubs.
    pub const XEN_ELFNOTE_HYPERCALL_PAGE: u32 = 2;
    /// Number: the address at which pseudo-physical address 0 is mapped; 0 by default.
    pub const XEN_ELFNOTE_VIRT_BASE: u32 = 3;
    /// Number: what to subtract from the ELF's physical addresses; 0 by default.
    pub const XEN_ELFNOTE_PADDR_OFFSET: u32 = 4;
    /// Text: the interface, `xen-3.0`.
    pub const XEN_ELFNOTE_XEN_VERSION: u32 = 5;
    /// Text: the operating system.
    pub const XEN_ELFNOTE_GUEST_OS: u32 = 6;
    /// Text: its version.
    pub const XEN_ELFNOTE_GUEST_VERSION: u32 = 7;
    /// Text: the loader it expects, `generic`.
    pub const XEN_ELFNOTE_LOADER: u32 = 8;
    /// Text: `yes`, `no` or `bimodal`; 32-bit kernels.
    pub const XEN_ELFNOTE_PAE_MODE: u32 = 9;
    /// Text: names of features separated by `|`; one with `!` before it is required.
    pub const XEN_ELFNOTE_FEATURES: u32 = 10;
    /// Text `yes` or `no`: whether to load the symbol table.
    pub const XEN_ELFNOTE_BSD_SYMTAB: u32 = 11;
    /// Number: the lowest address at which the hypervisor's hole may begin.
    pub const XEN_ELFNOTE_HV_START_LOW: u32 = 12;
    /// Pairs of mask and value that tell which L1 entries hold machine frames.
    pub const XEN_ELFNOTE_L1_MFN_VALID: u32 = 13;
    /// Number: whether a suspend may be cancelled.
    pub const XEN_ELFNOTE_SUSPEND_CANCEL: u32 = 14;
    /// Number: the address at which the list of machine frames shall be mapped.
    pub const XEN_ELFNOTE_INIT_P2M: u32 = 15;
    /// Number: whether the module may stay unmapped, named by its frame.
    pub const XEN_ELFNOTE_MOD_START_PFN: u32 = 16;
    /// Number: the features the kernel supports, a bit each.
    pub const XEN_ELFNOTE_SUPPORTED_FEATURES: u32 = 17;
    /// Number: the physical address of the PVH entry.
    pub const XEN_ELFNOTE_PHYS32_ENTRY: u32 = 18;
    /// The largest number of a loader's note.
    pub const XEN_ELFNOTE_MAX: u32 = XEN_ELFNOTE_PHYS32_ENTRY;
    /// Crash dumps: the system.
    pub const XEN_ELFNOTE_CRASH_INFO: u32 = 0x100_0001;
    /// Crash dumps: registers of a CPU.
    pub const XEN_ELFNOTE_CRASH_REGS: u32 = 0x100_0002;
    /// Domain dumps: marks the file.
    pub const XEN_ELFNOTE_DUMPCORE_NONE: u32 = 0x200_0000;
    /// Domain dumps: the header.
    pub const XEN_ELFNOTE_DUMPCORE_HEADER: u32 = 0x200_0001;
    /// Domain dumps: the hypervisor.
    pub const XEN_ELFNOTE_DUMPCORE_XEN_VERSION: u32 = 0x200_0002;
    /// Domain dumps: the version of the format.
    pub const XEN_ELFNOTE_DUMPCORE_FORMAT_VERSION: u32 = 0x200_0003;
}
