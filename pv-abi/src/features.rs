//! Feature bits, as `XENVER_get_features` reports and the ELF notes demand them.
//!
//! The constants are bit numbers; [`Features`] is the first submap as flags.
//!
//! Xen: `public/features.h`.

use crate::layout::constants;

constants! {
    header "features.h";
    /// Page tables may be written directly.
    pub const XENFEAT_WRITABLE_PAGE_TABLES [XENFEAT_writable_page_tables]: u32 = 0;
    /// Descriptor tables may be written directly.
    pub const XENFEAT_WRITABLE_DESCRIPTOR_TABLES [XENFEAT_writable_descriptor_tables]: u32 = 1;
    /// The guest's frame numbers are translated by the hypervisor.
    pub const XENFEAT_AUTO_TRANSLATED_PHYSMAP [XENFEAT_auto_translated_physmap]: u32 = 2;
    /// The guest's kernel runs in ring 0.
    pub const XENFEAT_SUPERVISOR_MODE_KERNEL [XENFEAT_supervisor_mode_kernel]: u32 = 3;
    /// 32-bit page directories may lie above 4 GiB.
    pub const XENFEAT_PAE_PGDIR_ABOVE_4GB [XENFEAT_pae_pgdir_above_4gb]: u32 = 4;
    /// `MMU_PT_UPDATE_PRESERVE_AD` is there.
    pub const XENFEAT_MMU_PT_UPDATE_PRESERVE_AD [XENFEAT_mmu_pt_update_preserve_ad]: u32 = 5;
    /// `MMUEXT_CLEAR_PAGE` and `MMUEXT_COPY_PAGE` are there.
    pub const XENFEAT_HIGHMEM_ASSIST [XENFEAT_highmem_assist]: u32 = 6;
    /// `GNTTABOP_map_grant_ref` honours the bits for the guest's own use.
    pub const XENFEAT_GNTTAB_MAP_AVAIL_BITS [XENFEAT_gnttab_map_avail_bits]: u32 = 7;
    /// HVM: events can arrive by a vector.
    pub const XENFEAT_HVM_CALLBACK_VECTOR [XENFEAT_hvm_callback_vector]: u32 = 8;
    /// HVM: the PV clock is safe to use.
    pub const XENFEAT_HVM_SAFE_PVCLOCK [XENFEAT_hvm_safe_pvclock]: u32 = 9;
    /// HVM: physical interrupts over event channels.
    pub const XENFEAT_HVM_PIRQS [XENFEAT_hvm_pirqs]: u32 = 10;
    /// The domain is the first one; in a kernel's notes: it can be.
    pub const XENFEAT_DOM0 [XENFEAT_dom0]: u32 = 11;
    /// `XENMEMF_vnode` is there.
    pub const XENFEAT_MEMORY_OP_VNODE_SUPPORTED [XENFEAT_memory_op_vnode_supported]: u32 = 13;
    /// Arm only.
    pub const XENFEAT_ARM_SMCCC_SUPPORTED [XENFEAT_ARM_SMCCC_supported]: u32 = 14;
    /// PVH: the ACPI root pointer may lie anywhere.
    pub const XENFEAT_LINUX_RSDP_UNRESTRICTED [XENFEAT_linux_rsdp_unrestricted]: u32 = 15;
    /// The guest's frames are not the machine's.
    pub const XENFEAT_NOT_DIRECT_MAPPED [XENFEAT_not_direct_mapped]: u32 = 16;
    /// The guest's frames are the machine's.
    pub const XENFEAT_DIRECT_MAPPED [XENFEAT_direct_mapped]: u32 = 17;
    /// Number of submaps.
    pub const XENFEAT_NR_SUBMAPS: u32 = 1;
}

bitflags::bitflags! {
    /// Submap 0 of the features.
    ///
    /// Xen: `XENFEAT_*` in `public/features.h`.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
    pub struct Features: u32 {
        /// Page tables may be written directly.
        const WRITABLE_PAGE_TABLES = 1 << XENFEAT_WRITABLE_PAGE_TABLES;
        /// Descriptor tables may be written directly.
        const WRITABLE_DESCRIPTOR_TABLES = 1 << XENFEAT_WRITABLE_DESCRIPTOR_TABLES;
        /// The guest's frame numbers are translated by the hypervisor.
        const AUTO_TRANSLATED_PHYSMAP = 1 << XENFEAT_AUTO_TRANSLATED_PHYSMAP;
        /// The guest's kernel runs in ring 0.
        const SUPERVISOR_MODE_KERNEL = 1 << XENFEAT_SUPERVISOR_MODE_KERNEL;
        /// 32-bit page directories may lie above 4 GiB.
        const PAE_PGDIR_ABOVE_4GB = 1 << XENFEAT_PAE_PGDIR_ABOVE_4GB;
        /// `MMU_PT_UPDATE_PRESERVE_AD` is there.
        const MMU_PT_UPDATE_PRESERVE_AD = 1 << XENFEAT_MMU_PT_UPDATE_PRESERVE_AD;
        /// `MMUEXT_CLEAR_PAGE` and `MMUEXT_COPY_PAGE` are there.
        const HIGHMEM_ASSIST = 1 << XENFEAT_HIGHMEM_ASSIST;
        /// Mappings of grants honour the bits for the guest's own use.
        const GNTTAB_MAP_AVAIL_BITS = 1 << XENFEAT_GNTTAB_MAP_AVAIL_BITS;
        /// HVM: events can arrive by a vector.
        const HVM_CALLBACK_VECTOR = 1 << XENFEAT_HVM_CALLBACK_VECTOR;
        /// HVM: the PV clock is safe to use.
        const HVM_SAFE_PVCLOCK = 1 << XENFEAT_HVM_SAFE_PVCLOCK;
        /// HVM: physical interrupts over event channels.
        const HVM_PIRQS = 1 << XENFEAT_HVM_PIRQS;
        /// The domain is the first one.
        const DOM0 = 1 << XENFEAT_DOM0;
        /// `XENMEMF_vnode` is there.
        const MEMORY_OP_VNODE_SUPPORTED = 1 << XENFEAT_MEMORY_OP_VNODE_SUPPORTED;
        /// PVH: the ACPI root pointer may lie anywhere.
        const LINUX_RSDP_UNRESTRICTED = 1 << XENFEAT_LINUX_RSDP_UNRESTRICTED;
        /// The guest's frames are not the machine's.
        const NOT_DIRECT_MAPPED = 1 << XENFEAT_NOT_DIRECT_MAPPED;
        /// The guest's frames are the machine's.
        const DIRECT_MAPPED = 1 << XENFEAT_DIRECT_MAPPED;
    }
}

/// The bit number of a feature by the name it has in the string note `FEATURES`, without a leading `!`.
///
/// ```
/// assert_eq!(pv_abi::features::bit_by_name("pae_pgdir_above_4gb"), Some(4));
/// ```
pub fn bit_by_name(name: &str) -> Option<u32> {
    CONSTANTS
        .iter()
        .filter(|constant| constant.c_name != "XENFEAT_NR_SUBMAPS")
        .find(|constant| constant.c_name.strip_prefix("XENFEAT_") == Some(name))
        .and_then(|constant| u32::try_from(constant.value).ok())
}
