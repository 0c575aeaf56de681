//! Rules of the room `control`.

crate::rules! {
    CONSOLE_NOT_YOURS = "CTL-01", "Only dom0 uses the hypervisor's console, unless guest_loglvl=debug lets guests write",
        "Xen: XSM default policy, console_io; a release build";
    CONSOLE_COUNT = "CTL-02", "At most 2 GiB are read from the console, so that their number is no errno", "Xen: console_io, -E2BIG";
    FEATURE_SUBMAP = "CTL-03", "There is one word of features, number 0", "Xen: public/features.h, XENFEAT_NR_SUBMAPS";
    PAGESIZE_TAKES_NO_ARGUMENT = "CTL-04", "XENVER_pagesize takes a null argument", "Xen: xen_version";
    NO_BUILD_ID = "CTL-05", "This build of the hypervisor carries no build id", "Xen: XENVER_build_id, -ENODATA";
    BUILD_ID_BUFFER = "CTL-06", "The buffer must hold the whole build id", "Xen: XENVER_build_id, -ENOBUFS";
    DOMCTL_VERSION = "CTL-07", "The toolstack must speak interface version 0x15 of domctl", "Xen: public/domctl.h";
    SYSCTL_VERSION = "CTL-08", "The toolstack must speak interface version 0x15 of sysctl", "Xen: public/sysctl.h";
    PLATFORM_VERSION = "CTL-09", "The caller must speak interface version 0x03000001 of platform_op", "Xen: public/platform.h";
    GUEST_CRASHED = "CTL-10", "The guest asked to be crashed, or its kernel panicked", "Xen: SHUTDOWN_crash";
    NO_MEMORY_FOR_DOMAIN = "CTL-11", "A new domain needs a free number and a free frame of memory", "Xen: XEN_DOMCTL_createdomain, -ENOMEM";
    DOMAIN_EXISTS = "CTL-12", "A domain's number is used once", "Xen: XEN_DOMCTL_createdomain, -EEXIST";
    VCPU_COUNT = "CTL-13", "A domain has 1 to 32 vCPUs, as many as it was created for", "Xen: XEN_DOMCTL_max_vcpus";
    VCPU_RUNS = "CTL-14", "The vCPU must not be running (pause its domain)", "Xen: XEN_DOMCTL_setvcpucontext";
    CONTEXT = "CTL-15", "A vCPU's context must have canonical addresses, a page-aligned LDT of at most 8192 entries, and user tables where it starts in user mode",
        "Xen: XEN_DOMCTL_setvcpucontext, VCPUOP_initialise";
    CONTEXT_TABLES = "CTL-16", "A vCPU that has a context keeps its page and descriptor tables",
        "Xen: XEN_DOMCTL_setvcpucontext, -EOPNOTSUPP";
    DESTROY_SELF = "CTL-17", "A domain cannot destroy, pause or rebuild itself, and nobody destroys dom0",
        "Xen: XEN_DOMCTL_destroydomain, -EINVAL";
    DOMAIN_KIND = "CTL-18", "A domain is PV, without IOMMU, device models or tracing, in CPU pool 0",
        "Xen: XEN_DOMCTL_createdomain, -EINVAL";
    GRANT_VERSION = "CTL-19", "A domain is made for grant tables up to version 1 or 2", "Xen: XEN_DOMCTL_createdomain, grant_opts";
    NOT_PAUSED = "CTL-21", "Only a domain that its toolstack paused can be unpaused", "Xen: XEN_DOMCTL_unpausedomain, -EINVAL";
    TOO_MANY_PAUSES = "CTL-22", "A toolstack pauses a domain at most 255 times at once", "Xen: XEN_DOMCTL_pausedomain, -EOVERFLOW";
    NO_SUCH_VCPU = "CTL-23", "The vCPU must be one of the domain's", "Xen: domctl, -EINVAL or -ESRCH";
    VCPU_WITHOUT_CONTEXT = "CTL-24", "The vCPU must have been given a context", "Xen: XEN_DOMCTL_getvcpucontext, -ENODATA";
    ADDRESS_SIZE = "CTL-25", "PV guests are 64-bit", "Xen: XEN_DOMCTL_set_address_size, -EINVAL";
    AFFINITY = "CTL-26", "A vCPU must be allowed to run on a CPU that there is", "Xen: XEN_DOMCTL_setvcpuaffinity, -EINVAL";
    SCHEDULER = "CTL-27", "The scheduler is credit2, with weights of 1 to 65535", "Xen: XEN_DOMCTL_scheduler_op, -EINVAL";
    PERMISSION_RANGE = "CTL-28", "A range of ports, frames or interrupts must exist and not wrap",
        "Xen: XEN_DOMCTL_ioport_permission and kin, -EINVAL";
    PERMISSION_OWN = "CTL-29", "A domain can only be given what its giver has", "Xen: XEN_DOMCTL_iomem_permission, -EPERM";
    EXTENDED_CONTEXT = "CTL-30", "An extended context must have its size and canonical callbacks",
        "Xen: XEN_DOMCTL_set_ext_vcpucontext, -EINVAL";
    EXTENDED_STATE = "CTL-31", "Extended state must have XCR0 first, with components that guests have, and their size",
        "Xen: XEN_DOMCTL_setvcpuextstate, -EINVAL";
    VCPU_MSRS = "CTL-32", "PV guests have no model-specific registers to restore but zero ones",
        "Xen: XEN_DOMCTL_set_vcpu_msrs, -EINVAL";
    PAGE_INFO_COUNT = "CTL-33", "At most 1024 frames are asked about at once", "Xen: XEN_DOMCTL_getpageframeinfo3, -E2BIG";
    LOG_DIRTY = "CTL-34", "PV guests run on their own page tables: there is no shadow and no log of writes",
        "Xen: XEN_DOMCTL_shadow_op in a build without shadow paging, -EINVAL";
    VIRQ_HANDLER = "CTL-35", "A global virtual interrupt goes to dom0", "Xen: XEN_DOMCTL_set_virq_handler";
    POLICY_SIZE = "CTL-36", "The buffer must hold the whole policy, and a policy no more than there is",
        "Xen: XEN_DOMCTL_get_cpu_policy, -ENOBUFS; set_cpu_policy, -E2BIG";
    POLICY_STAYS = "CTL-37", "The policy of a domain that ran stays", "Xen: XEN_DOMCTL_set_cpu_policy, -EEXIST";
    POLICY_MSR = "CTL-38", "A policy's model-specific registers are zero", "Xen: XEN_DOMCTL_set_cpu_policy, -EINVAL";
    NO_IOMMU = "CTL-39", "Devices are passed to guests only behind an IOMMU, which is not used", "Xen: -EOPNOTSUPP of iommu_do_domctl";
    TRIGGER = "CTL-40", "PV guests can be sent NMIs only", "Xen: XEN_DOMCTL_sendtrigger, -EINVAL or -ENOSYS";
    HYPERCALL_PAGE_FRAME = "CTL-41", "The hypercall page must be a frame of the domain that is not in use as a table",
        "Xen: XEN_DOMCTL_hypercall_init, -EINVAL";
    BUFFER_SIZE = "CTL-42", "The buffer must hold an entry for each CPU or node", "Xen: sysctl, -ENOBUFS";
    NO_SUCH_POOL = "CTL-43", "There is one CPU pool, number 0", "Xen: XEN_SYSCTL_cpupool_op, -ENOENT";
    POLICY_INDEX = "CTL-44", "The policy asked for must be of the host or of PV guests", "Xen: XEN_SYSCTL_get_cpu_policy, -EINVAL or -EOPNOTSUPP";
    NO_FIRMWARE_INFO = "CTL-45", "The firmware left no such information", "Xen: XENPF_firmware_info, -ESRCH";
    SLEEP_STATE = "CTL-46", "The machine can be switched off (S5) but does not sleep", "Xen: XENPF_enter_acpi_sleep";
    WALL_CLOCK = "CTL-47", "The padding of a wall-clock time is zero", "Xen: XENPF_settime64, -EINVAL";
}
