//! Rules of the way in: hypercall numbers, guest memory, privilege.

crate::rules! {
    UNKNOWN_HYPERCALL = "HYP-02", "The hypercall number must be one that this hypervisor implements",
        "Xen: public/xen.h, __HYPERVISOR_*";
    UNKNOWN_OPERATION = "HYP-03", "The sub-operation must be one that this hypervisor implements",
        "Xen: public headers";
    GUEST_MEMORY = "HYP-04", "A pointer argument must be mapped, of the guest's part of the address space, and writable where a result goes",
        "Xen: -EFAULT of copy_from_guest and copy_to_guest";
    NO_SUCH_DOMAIN = "HYP-08", "The domain must exist and not be going away", "Xen: -ESRCH of rcu_lock_domain_by_id";
    PRIVILEGED = "HYP-05", "Only a privileged domain may do this", "Xen: XSM default policy";
    MULTICALL_NESTED = "HYP-06", "A multicall may not hold a multicall", "Xen: do_multicall";
}
