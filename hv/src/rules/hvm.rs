//! Rules of the room `hvm`.

crate::rules! {
    NO_HARDWARE = "HVM-01", "Guests with hardware assistance need AMD SVM with nested paging", "Xen: XEN_DOMCTL_createdomain, -EINVAL without HVM";
    NOT_HVM = "HVM-02", "The domain named must be one with hardware assistance", "Xen: hvm_op, -EINVAL; XEN_DOMCTL_sethvmcontext, -EINVAL";
    HYPERCALL = "HVM-03", "A guest with hardware assistance has its own page and descriptor tables, so hypercalls about them are none of its", "Xen: hvm_hypercall_table, -ENOSYS";
    HYPERCALL_MODE = "HVM-04", "Hypercalls are made in 64-bit mode", "hv: no 32-bit hypercall ABI";
    PARAM = "HVM-05", "A parameter's number must be one that there is", "Xen: HVMOP_set_param, -EINVAL";
    PARAM_NOT_YOURS = "HVM-06", "This parameter is for the toolstack", "Xen: hvm_allow_set_param, hvm_allow_get_param, -EPERM";
    CALLBACK = "HVM-07", "Upcalls come by a vector from 16 on, or by an interrupt line, of which there is none", "Xen: hvm_set_callback_via, HVMOP_set_evtchn_upcall_vector, -EINVAL";
    GUEST_FRAME = "HVM-08", "A guest frame must have memory behind it", "Xen: XENMEM_decrease_reservation, XENMEM_remove_from_physmap";
    GUEST_FRAME_RANGE = "HVM-09", "A guest frame has a number below 2^36, and a block of frames is aligned to its size", "AMD APM 2 §15.25";
    TABLE_MEMORY = "HVM-10", "There must be memory for the tables that map the guest's, in its pool too", "Xen: p2m_alloc_ptp, -ENOMEM";
    MAP_SPACE = "HVM-11", "Only the shared page and frames of the grant table can be put at a guest frame", "Xen: XENMEM_add_to_physmap, -EINVAL";
    CONTEXT = "HVM-12", "A saved state has a header, then whole records of vCPUs that there are, then an end", "Xen: hvm_load, -EINVAL";
    CONTEXT_STATE = "HVM-13", "A vCPU's saved state must have registers that the CPU can have", "Xen: hvm_load_cpu_ctxt, -EINVAL";
    NO_PV_CONTEXT = "HVM-14", "A vCPU with hardware assistance has no PV context", "Xen: arch_set_info_guest, arch_initialise_vcpu, -EINVAL";
    NO_EXCHANGE = "HVM-15", "Only PV domains exchange frames", "Xen: XENMEM_exchange, -EOPNOTSUPP";
    NO_GRANT_MAPPING = "HVM-16", "A guest with hardware assistance maps no grants; it copies them", "hv: no grant mappings in the physical map";
    NOTHING_THERE = "HVM-17", "The guest used an address that has neither memory nor a device", "AMD APM 2 §15.25.6";
    TRIPLE_FAULT = "HVM-18", "The guest's exception handlers failed (triple fault)", "Xen: SVM, VMEXIT_SHUTDOWN";
    NOT_EMULATED = "HVM-19", "The guest used what is not emulated (the exit's code is in the way)", "hv: docs/compat.md";
    STRING_IO = "HVM-20", "A string instruction on I/O ports must be readable, and 64- or 32-bit code", "hv: docs/compat.md";
    INSTRUCTION = "HVM-21", "An instruction that is emulated must be readable, and the one that the exit names", "Xen: svm_get_insn_len";
    APIC_INSTRUCTION = "HVM-22", "The registers of APICs in memory are read by parts of one, and written as a whole", "Intel SDM 3 §10.4.1";
    POOL = "HVM-23", "The pool for tables is whole pages, and no smaller than what the tables take", "Xen: hap_set_allocation, XEN_DOMCTL_set_paging_mempool_size";
    DEVICE_MODEL = "HVM-24", "An operation of a device model is about another domain, which has hardware assistance", "Xen: dm_op, -EPERM for the caller itself, -EINVAL for PV";
    BUFFERS = "HVM-25", "An operation of a device model has at most two buffers, of which the first holds it", "Xen: dm_op, -E2BIG, -EFAULT";
    DEVICE_MODEL_OPERATION = "HVM-26", "A device model may ask this of no domain here", "hv: docs/compat.md; Xen: dm_op, -EOPNOTSUPP for what it does not know";
    DEVICE_MODEL_ARGUMENT = "HVM-27", "What an operation names must be there, and its padding zero", "Xen: dm_op, -EINVAL";
    NO_SERVER = "HVM-28", "There must be a server of I/O requests of this number", "Xen: XEN_DMOP_*_ioreq_server, -ENOENT";
    SERVER_NOT_YOURS = "HVM-29", "A server of I/O requests is for the domain that made it", "Xen: XEN_DMOP_*_ioreq_server, -EPERM";
    SERVER_COUNT = "HVM-30", "A domain has at most 8 servers of I/O requests", "Xen: MAX_NR_IOREQ_SERVERS, -ENOSPC";
    SERVER_MEMORY = "HVM-31", "A server of I/O requests needs pages for them; a guest gives none", "Xen: ioreq_server_alloc_pages, ioreq_server_map_pages, -ENOMEM";
    RANGE = "HVM-32", "A range that a server is given overlaps none that it has, and one that is taken it has", "Xen: XEN_DMOP_map_io_range_to_ioreq_server, -EEXIST; unmap, -ENOENT";
    RANGE_COUNT = "HVM-33", "A server has at most 256 ranges of each kind", "Xen: MAX_NR_IO_RANGES, -ENOSPC";
    ANSWER = "HVM-34", "A device model answers in the place of the request, and makes it answered", "Xen: hvm_wait_for_io, domain_crash";
    EMULATION = "HVM-35", "A domain with hardware assistance has a local APIC alone, or all devices of a PC but the virtual PCI bus", "Xen: emulation_flags_ok, -EOPNOTSUPP";
    DEVICE_INSTRUCTION = "HVM-36", "Devices' registers in memory are used by moves, arithmetic, tests, exchanges and strings of 64- or 32-bit code", "hv: docs/compat.md";
    PAGING_MODE = "HVM-37", "Addresses of strings that are emulated are translated by four levels of tables, or none", "hv: docs/compat.md";
}
