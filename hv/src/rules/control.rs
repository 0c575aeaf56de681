//! Rules of the room `control`.

crate::rules! {
    CONSOLE_NOT_YOURS = "CTL-01", "Only dom0 uses the hypervisor's console, unless guest_loglvl=debug lets guests write",
        "Xen: XSM default policy, console_io; a release build";
    CONSOLE_COUNT = "CTL-02", "A console operation moves at most 2 GiB", "Xen: console_io, -E2BIG";
    FEATURE_SUBMAP = "CTL-03", "There is one word of features, number 0", "Xen: public/features.h, XENFEAT_NR_SUBMAPS";
    PAGESIZE_TAKES_NO_ARGUMENT = "CTL-04", "XENVER_pagesize takes a null argument", "Xen: xen_version";
    NO_BUILD_ID = "CTL-05", "This build of the hypervisor carries no build id", "Xen: XENVER_build_id, -ENODATA";
    BUILD_ID_BUFFER = "CTL-06", "The buffer must hold the whole build id", "Xen: XENVER_build_id, -ENOBUFS";
    DOMCTL_VERSION = "CTL-07", "The toolstack must speak interface version 0x15 of domctl", "Xen: public/domctl.h";
    SYSCTL_VERSION = "CTL-08", "The toolstack must speak interface version 0x15 of sysctl", "Xen: public/sysctl.h";
    PLATFORM_VERSION = "CTL-09", "The caller must speak interface version 0x03000001 of platform_op", "Xen: public/platform.h";
    GUEST_CRASHED = "CTL-10", "The guest asked to be crashed, or its kernel panicked", "Xen: SHUTDOWN_crash";
    NO_MEMORY_FOR_DOMAIN = "CTL-11", "A new domain needs a free frame of memory", "Xen: XEN_DOMCTL_createdomain, -ENOMEM";
    DOMAIN_EXISTS = "CTL-12", "A domain's number is used once", "Xen: XEN_DOMCTL_createdomain, -EEXIST";
    VCPU_COUNT = "CTL-13", "A domain has 1 to 32 vCPUs, as many as it was created for", "Xen: XEN_DOMCTL_max_vcpus";
    VCPU_RUNS = "CTL-14", "The vCPU must not be running (pause its domain)", "Xen: XEN_DOMCTL_setvcpucontext";
    CONTEXT = "CTL-15", "A vCPU's context must have canonical addresses, a page-aligned LDT of at most 8192 entries, and user tables where it starts in user mode",
        "Xen: XEN_DOMCTL_setvcpucontext, VCPUOP_initialise";
    CONTEXT_TABLES = "CTL-16", "A vCPU that has a context keeps its page and descriptor tables",
        "Xen: XEN_DOMCTL_setvcpucontext, -EOPNOTSUPP";
    DESTROY_SELF = "CTL-17", "A domain cannot destroy, pause or rebuild itself, and nobody destroys dom0",
        "Xen: XEN_DOMCTL_destroydomain, -EINVAL";
}
