//! What a PVH kernel finds at the address in EBX when it starts, in 32-bit mode without paging.
//!
//! All addresses are physical. A kernel offers the entry by the note
//! [`XEN_ELFNOTE_PHYS32_ENTRY`](crate::elfnote::XEN_ELFNOTE_PHYS32_ENTRY).
//!
//! Xen: `public/arch-x86/hvm/start_info.h`.

use crate::layout::{constants, structs};

constants! {
    header "arch-x86/hvm/start_info.h";
    /// [`HvmStartInfo::magic`]: `xEn3` with bit 7 of the `E` set.
    pub const XEN_HVM_START_MAGIC_VALUE: u32 = 0x336e_c578;
    /// Memory to use.
    pub const XEN_HVM_MEMMAP_TYPE_RAM: u32 = 1;
    /// Memory not to use.
    pub const XEN_HVM_MEMMAP_TYPE_RESERVED: u32 = 2;
    /// ACPI tables; memory to use once read.
    pub const XEN_HVM_MEMMAP_TYPE_ACPI: u32 = 3;
    /// ACPI memory to keep.
    pub const XEN_HVM_MEMMAP_TYPE_NVS: u32 = 4;
    /// Faulty memory.
    pub const XEN_HVM_MEMMAP_TYPE_UNUSABLE: u32 = 5;
    /// Memory that is switched off.
    pub const XEN_HVM_MEMMAP_TYPE_DISABLED: u32 = 6;
    /// Memory that keeps its content.
    pub const XEN_HVM_MEMMAP_TYPE_PMEM: u32 = 7;
}

structs! {
    header "arch-x86/hvm/start_info.h";

    /// What a PVH kernel starts with.
    pub struct HvmStartInfo ["struct hvm_start_info"] {
        /// [`XEN_HVM_START_MAGIC_VALUE`].
        pub magic: u32,
        /// 0, or 1 where there is a memory map.
        pub version: u32,
        /// `SIF_*`.
        pub flags: u32,
        /// Number of modules.
        pub nr_modules: u32,
        /// Address of [`HvmModlistEntry`]s.
        pub modlist_paddr: u64,
        /// Address of the command line, zero-terminated; 0 for none.
        pub cmdline_paddr: u64,
        /// Address of ACPI's root pointer.
        pub rsdp_paddr: u64,
        /// Address of [`HvmMemmapTableEntry`]s. From version 1 on.
        pub memmap_paddr: u64,
        /// Their number; 0 for no map. From version 1 on.
        pub memmap_entries: u32,
        /// Zero. From version 1 on.
        pub reserved: u32,
    }

    /// A module.
    pub struct HvmModlistEntry ["struct hvm_modlist_entry"] {
        /// Address.
        pub paddr: u64,
        /// Bytes.
        pub size: u64,
        /// Address of its command line, zero-terminated; 0 for none.
        pub cmdline_paddr: u64,
        /// Zero.
        pub reserved: u64,
    }

    /// A region of the memory map.
    pub struct HvmMemmapTableEntry ["struct hvm_memmap_table_entry"] {
        /// First byte.
        pub addr: u64,
        /// Number of bytes.
        pub size: u64,
        /// `XEN_HVM_MEMMAP_TYPE_*`.
        pub type_ ["type"]: u32,
        /// Zero.
        pub reserved: u32,
    }
}
