//! The CPUID leaves in which a guest finds the hypervisor.
//!
//! They begin at 0x4000_0000, or at 0x4000_0100 for an HVM guest that is also shown the leaves of another hypervisor; a
//! guest looks at each multiple of 0x100 up to 0x4000_ff00 for the signature ([`is_signature`]). By offset from there:
//!
//! | leaf | EAX | EBX | ECX | EDX |
//! |---|---|---|---|---|
//! | 0 | highest leaf | signature | signature | signature |
//! | 1 | version, major in the upper half | 0 | 0 | 0 |
//! | 2 | hypercall pages | first MSR | `XEN_CPUID_FEAT1_*` | 0 |
//! | 3, 0 | bit 0 emulated TSC, 1 reliable, 2 RDTSCP | mode | kHz | incarnation |
//! | 3, 1 | TSC offset, low | high | multiplier | shift |
//! | 3, 2 | kHz of the machine | 0 | 0 | 0 |
//! | 4 | `XEN_HVM_CPUID_*` | vCPU | domain | 0 |
//! | 5 | highest subleaf | width of machine addresses | 0 | 0 |
//!
//! A PV kernel sees them through the forced-emulation prefix
//! ([`XEN_EMULATE_PREFIX`](crate::arch::XEN_EMULATE_PREFIX)), as plain `cpuid` does not trap.
//!
//! Xen: `public/arch-x86/cpuid.h`.

use crate::layout::constants;

constants! {
    header "arch-x86/cpuid.h";
    /// The first leaf, where no other hypervisor is shown.
    pub const XEN_CPUID_FIRST_LEAF: u32 = 0x4000_0000;
    /// Leaf 0, EBX: `XenV`.
    pub const XEN_CPUID_SIGNATURE_EBX: u32 = 0x566e_6558;
    /// Leaf 0, ECX: `MMXe`.
    pub const XEN_CPUID_SIGNATURE_ECX: u32 = 0x6558_4d4d;
    /// Leaf 0, EDX: `nVMM`.
    pub const XEN_CPUID_SIGNATURE_EDX: u32 = 0x4d4d_566e;
    /// Leaf 2, ECX: page-table updates can keep accessed and dirty bits.
    pub const XEN_CPUID_FEAT1_MMU_PT_UPDATE_PRESERVE_AD: u32 = 1 << 0;
    /// Leaf 4, EAX: hardware assists accesses to the local APIC.
    pub const XEN_HVM_CPUID_APIC_ACCESS_VIRT: u32 = 1 << 0;
    /// Leaf 4, EAX: hardware assists accesses to the x2APIC.
    pub const XEN_HVM_CPUID_X2APIC_VIRT: u32 = 1 << 1;
    /// Leaf 4, EAX: foreign mappings are in the IOMMU too.
    pub const XEN_HVM_CPUID_IOMMU_MAPPINGS: u32 = 1 << 2;
    /// Leaf 4, EAX: EBX is the number of the vCPU.
    pub const XEN_HVM_CPUID_VCPU_ID_PRESENT: u32 = 1 << 3;
    /// Leaf 4, EAX: ECX is the number of the domain.
    pub const XEN_HVM_CPUID_DOMID_PRESENT: u32 = 1 << 4;
    /// Leaf 4, EAX: interrupts can name APICs of 15 bits.
    pub const XEN_HVM_CPUID_EXT_DEST_ID: u32 = 1 << 5;
    /// Leaf 4, EAX: upcalls by a vector of each vCPU work.
    pub const XEN_HVM_CPUID_UPCALL_VECTOR: u32 = 1 << 6;
    /// Leaf 5, EBX: width of machine addresses in bits.
    pub const XEN_CPUID_MACHINE_ADDRESS_WIDTH_MASK: u32 = 0xff;
    /// The highest leaf there is.
    pub const XEN_CPUID_MAX_NUM_LEAVES: u32 = 5;
}

/// Bit of leaf 1, ECX that says that there is a hypervisor at all.
///
/// AMD APM 3, CPUID function 1.
pub const CPUID_1_ECX_HYPERVISOR: u32 = 1 << 31;

/// The leaf at offset `i`, where no other hypervisor is shown.
///
/// Xen: `XEN_CPUID_LEAF` in `public/arch-x86/cpuid.h`.
pub const fn xen_cpuid_leaf(i: u32) -> u32 {
    XEN_CPUID_FIRST_LEAF + i
}

/// Whether EBX, ECX and EDX of a leaf 0 spell `XenVMMXenVMM`.
pub const fn is_signature(ebx: u32, ecx: u32, edx: u32) -> bool {
    ebx == XEN_CPUID_SIGNATURE_EBX && ecx == XEN_CPUID_SIGNATURE_ECX && edx == XEN_CPUID_SIGNATURE_EDX
}
