//! Rules of the rooms `frames` and `paging`.

crate::rules! {
    FRAME_OWNER = "MMU-01", "The frame must exist and belong to the domain that is said to own it",
        "Xen: get_page of the frame table";
    TYPE_CONFLICT = "MMU-02", "A frame is a page table, a descriptor page or mapped writable: never two of them at once",
        "Xen: page types, public/xen.h mmu_update";
    DESCRIPTOR = "MMU-03", "A descriptor page holds only code and data segments, call gates to guest code, and absent entries",
        "Xen: set_gdt, update_descriptor";
    ENTRY_BITS = "MMU-04", "An entry may not have PSE, PAT, PCD, PWT or GLOBAL (GLOBAL in L1 only; caching bits only with a device), nor NX where the CPU lacks it",
        "Xen: public/xen.h, PTE flags of PV guests";
    SUPERPAGE = "MMU-05", "Large pages are not available to PV guests", "Xen: superpages of PV guests were removed";
    HYPERVISOR_SLOT = "MMU-06", "Slots 256 to 271 of an L4 table are the hypervisor's", "Xen: public/arch-x86/xen-x86_64.h, HYPERVISOR_VIRT_START";
    LINEAR = "MMU-07", "A page table may not be an entry of a table of its own level", "Xen: pv-linear-pt is off (XSA-240)";
    L1_TARGET = "MMU-08", "An L1 entry may point only to a frame of the domain named as its owner, writable only where the frame is no page table or descriptor page",
        "Xen: get_page_from_l1e, -EBUSY";
    DEVICE_MEMORY = "MMU-09", "Memory-mapped I/O may be mapped only by a domain with access to it", "Xen: iomem_caps, -EPERM";
    CACHE_OF_SHARED = "MMU-10", "A frame shared by the hypervisor is mapped with normal caching only", "Xen: get_page_from_l1e, -EACCES";
    FOREIGN = "MMU-11", "Only a privileged domain may name another domain", "Xen: XSM_TARGET, -EPERM";
    FOREIGN_SELF = "MMU-12", "A domain names itself as DOMID_SELF, and another one only if it exists", "Xen: get_pg_owner, -ESRCH";
    FOREIGN_TABLE = "MMU-13", "Only L1 entries may point to frames of a domain other than the table's", "Xen: do_mmu_update, -EINVAL";
    UPDATE_COMMAND = "MMU-14", "The low bits of ptr name an update that exists", "Xen: public/xen.h, MMU_*";
    M2P_FOREIGN = "MMU-15", "The machine-to-physical table is updated with the page tables' owner being the caller", "Xen: MMU_MACHPHYS_UPDATE, -EPERM";
    NO_L1 = "MMU-16", "The address must be the guest's and have an L1 table", "Xen: update_va_mapping, -EINVAL";
    EXTENDED_COMMAND = "MMU-17", "The command must be one of MMUEXT_*", "Xen: public/xen.h, MMUEXT_*";
    EXTENDED_FOREIGN = "MMU-18", "This command works on the caller's own tables only", "Xen: do_mmuext_op, -EPERM";
    ALREADY_PINNED = "MMU-19", "A table can be pinned once", "Xen: MMUEXT_PIN_L1_TABLE, -EINVAL";
    NOT_PINNED = "MMU-20", "Only a pinned table can be unpinned", "Xen: MMUEXT_UNPIN_TABLE, -EINVAL";
    CACHE_FLUSH = "MMU-21", "Only a domain with a device may flush caches", "Xen: MMUEXT_FLUSH_CACHE, -EACCES";
    LDT = "MMU-22", "A local descriptor table has at most 8192 entries and starts at a page of the guest's", "Xen: MMUEXT_SET_LDT, -EINVAL";
    NO_SUPERPAGE_MARKS = "MMU-23", "Superpages cannot be marked", "Xen 4.17: MMUEXT_MARK_SUPER, -EOPNOTSUPP";
    VCPU_BITMAP = "MMU-24", "The bitmap of vCPUs must be readable", "Xen: vcpumask_to_pcpumask";
    GRANT_PLACE = "MMU-25", "A grant is mapped at an 8-byte aligned entry of an L1 table of the caller, or at an address of the caller that has an L1 table",
        "Xen: GNTMAP_contains_pte, GNTST_general_error";
    GRANT_ENTRY = "MMU-26", "The entry must still map the granted frame", "Xen: unmap_grant_ref, GNTST_general_error";
}
