//! Rules of the rooms `sched` and `time`.

crate::rules! {
    NO_SUCH_VCPU = "SCH-01", "The vCPU must exist", "Xen: do_vcpu_op, -ENOENT";
    NOT_INITIALISED = "SCH-02", "A vCPU is brought up only after it got a context", "Xen: VCPUOP_up, -EINVAL";
    INITIALISED_TWICE = "SCH-03", "A vCPU gets its first context once", "Xen: VCPUOP_initialise, -EEXIST";
    OWN_TIMER_ONLY = "SCH-04", "A vCPU sets only its own single-shot timer", "Xen: VCPUOP_set_singleshot_timer, -EINVAL";
    PERIOD_RANGE = "SCH-05", "A period is at least 1 ms and at most 2^61 ns", "Xen: VCPUOP_set_periodic_timer, -EINVAL";
    INFO_OFFSET = "SCH-06", "vcpu_info lies at a multiple of 8 and ends in its page",
        "Xen: VCPUOP_register_vcpu_info, -ENXIO";
    INFO_ONCE = "SCH-07", "vcpu_info is registered once", "Xen: public/vcpu.h, VCPUOP_register_vcpu_info";
    INFO_RUNNING = "SCH-08", "vcpu_info is registered by the vCPU itself or while it is down",
        "Xen: map_vcpu_info, -EINVAL";
    AREA_ADDRESS = "SCH-09", "An area that is registered lies in the guest's part of the address space",
        "Xen: guest_handle_okay, -EFAULT";
    NMI_ARGUMENT = "SCH-10", "send_nmi has no argument", "Xen: VCPUOP_send_nmi, -EINVAL";
    NOT_PINNED = "SCH-11", "Only a vCPU of dom0 that is pinned has a physical id", "Xen: VCPUOP_get_physid, -EINVAL";
    POLL_COUNT = "SCH-12", "At most 128 ports are polled", "Xen: do_poll, -EINVAL";
    WATCHDOG_UNKNOWN = "SCH-14", "The watchdog must be one that is in use", "Xen: domain_watchdog, -EINVAL";
    WATCHDOG_SPACE = "SCH-15", "A domain has two watchdogs", "Xen: domain_watchdog, -ENOSPC";
    PIN_CPU = "SCH-16", "The CPU to pin to must run", "Xen: SCHEDOP_pin_override, -EINVAL";
    PIN_DOM0 = "SCH-17", "Only dom0 pins its vCPUs", "Xen: SCHEDOP_pin_override, -EPERM";
    INFO_FRAME = "SCH-18", "vcpu_info lies in a frame of the domain that may be written",
        "Xen: map_vcpu_info, -EINVAL";
    PINNED = "SCH-19", "A vCPU that is pinned is not pinned again before the pin is taken away",
        "Xen: SCHEDOP_pin_override, -EBUSY";
    UNPINNED = "SCH-20", "A pin that is taken away must be there", "Xen: SCHEDOP_pin_override, -EINVAL";
}
