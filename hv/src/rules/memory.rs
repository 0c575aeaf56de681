//! Rules of the room `memory`.

crate::rules! {
    CLAIM = "MEM-01", "A claim must be larger than what the domain has, within its maximum, and the only one", "Xen: XENMEM_claim_pages, -EINVAL";
    NO_MEMORY = "MEM-02", "So much memory must be free and promised to nobody", "Xen: -ENOMEM";
}
