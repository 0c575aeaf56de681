//! Rules of the room `memory`.

crate::rules! {
    CLAIM = "MEM-01", "A claim must be larger than what the domain has, within its maximum, and the only one", "Xen: XENMEM_claim_pages, -EINVAL";
    NO_MEMORY = "MEM-02", "So much memory must be free, in one piece, and promised to nobody", "Xen: -ENOMEM";
    MAXIMUM = "MEM-03", "A domain may not own more than its maximum", "Xen: XEN_DOMCTL_max_mem";
    DYING = "MEM-04", "A domain that is being taken apart gets no memory", "Xen: assign_pages";
    ORDER = "MEM-05", "A block may have at most 2^9 frames, and at most 2^7 in an exchange by a domain that is not privileged", "Xen: option memop-max-order";
    LIST_LENGTH = "MEM-06", "A list must be short enough for its progress to fit into the command", "Xen: MEMOP_EXTENT_SHIFT";
    ADDRESS_BITS = "MEM-07", "An address has more bits than the offset in a page", "Xen: XENMEMF_address_bits, -EINVAL";
    ON_DEMAND = "MEM-08", "PV domains have no memory on demand", "Xen: XENMEM_set_pod_target, -EINVAL";
    NOT_CONTINUED = "MEM-09", "This operation is never continued, so its command has no upper bits", "Xen: do_memory_op, -EINVAL";
    NO_PHYSMAP = "MEM-10", "PV domains have no physical map to add to or remove from", "Xen: XENMEM_add_to_physmap, -EACCES";
    NO_NODES = "MEM-11", "The domain has no virtual memory nodes", "Xen: XENMEM_get_vnumainfo, -EOPNOTSUPP";
    EXCHANGE_LISTS = "MEM-12", "Both lists of an exchange name the same domain and as many frames", "Xen: XENMEM_exchange, -EINVAL";
    IN_USE = "MEM-13", "A frame that is exchanged must be in no other use: not mapped, no table, not shared", "Xen: XENMEM_exchange, steal_page, -EINVAL";
    NO_MAP = "MEM-14", "The toolstack made no memory map for this domain", "Xen: XENMEM_memory_map, -ENOSYS";
    MAP_LENGTH = "MEM-15", "A memory map has at most 128 entries", "Xen: XENMEM_set_memory_map, -EINVAL";
    RESERVED_FLAGS = "MEM-16", "The only flag is XENMEM_RDM_ALL", "Xen: XENMEM_reserved_device_memory_map, -EINVAL";
    RESOURCE = "MEM-17", "The domain must have the resource", "Xen: XENMEM_acquire_resource, -EINVAL";
    RESOURCE_RANGE = "MEM-18", "The frames asked for must be of the resource, and the padding zero", "Xen: XENMEM_acquire_resource, -EINVAL";
    MACHINE_MAP = "MEM-20", "The buffer must hold the whole map of the machine", "Xen: XENMEM_machine_memory_map, -EINVAL";
    RESOURCE_SELF = "MEM-19", "A resource is acquired from another domain", "Xen: rcu_lock_remote_domain_by_id, -EPERM";
}
