//! Rules of the room `evtchn`.

crate::rules! {
    PORT_RANGE = "EVT-01", "The port must be one that the domain has been given",
        "Xen: -EINVAL where port_is_valid is false";
    NOT_SENDABLE = "EVT-02", "An event is sent only on an interdomain, IPI or unbound port",
        "Xen: evtchn_send, -EINVAL";
    NOT_OPEN = "EVT-03", "Only an open port can be closed", "Xen: evtchn_close, -EINVAL";
    NO_FREE_PORT = "EVT-04", "A domain has 4,095 ports, 131,071 in the FIFO ABI, or fewer where its toolstack says so",
        "Xen: -ENOSPC of every operation that allocates a port";
    NOT_OFFERED = "EVT-05", "The remote port must be unbound and offered to the domain that binds",
        "Xen: evtchn_bind_interdomain, -EINVAL";
    VIRQ_RANGE = "EVT-06", "The virtual interrupt must be below NR_VIRQS", "Xen: evtchn_bind_virq, -EINVAL";
    GLOBAL_VIRQ_VCPU = "EVT-07", "A global virtual interrupt is bound on vCPU 0, and moved from there with bind_vcpu",
        "Xen: public/event_channel.h, EVTCHNOP_bind_virq";
    VIRQ_BOUND = "EVT-08", "A virtual interrupt is bound to one port only", "Xen: evtchn_bind_virq, -EEXIST";
    NO_SUCH_VCPU = "EVT-09", "The vCPU must exist", "Xen: -ENOENT where domain_vcpu finds none";
    VCPU_FIXED = "EVT-10", "A closed port, an IPI and a per-vCPU virtual interrupt cannot be moved to another vCPU",
        "Xen: public/event_channel.h, EVTCHNOP_bind_vcpu";
    RESET_RUNNING = "EVT-11", "Another domain's ports are reset only while its toolstack has paused it",
        "Xen: evtchn_reset, -EINVAL";
    NO_MEMORY = "EVT-13", "There must be memory for more ports", "Xen: -ENOMEM of evtchn_allocate_port";
    CONTROL_PLACE = "EVT-14", "A control block lies in one frame, at a multiple of 8", "Xen: EVTCHNOP_init_control, -EINVAL";
    CONTROL_TWICE = "EVT-15", "A vCPU keeps its control block until the domain's ports are reset",
        "Xen: EVTCHNOP_init_control, -EINVAL";
    FIFO_FRAME = "EVT-16", "A control block and a page of the event array are the domain's own to write",
        "Xen: EVTCHNOP_init_control and EVTCHNOP_expand_array, -EINVAL";
    NO_CONTROL = "EVT-17", "The event array begins after the first control block",
        "Xen: EVTCHNOP_expand_array, -EOPNOTSUPP";
    ARRAY_FULL = "EVT-18", "The event array has at most 128 pages", "Xen: EVTCHNOP_expand_array, -ENOSPC";
    NO_PRIORITIES = "EVT-19", "Only the FIFO ABI has priorities", "Xen: EVTCHNOP_set_priority, -ENOSYS";
    PRIORITY_RANGE = "EVT-20", "A priority is 0 to 15", "Xen: EVTCHNOP_set_priority, -EINVAL";
    OPENED_AGAIN = "EVT-21", "No port is opened while all are being closed", "Xen: EVTCHNOP_reset, -EAGAIN";
    ENDED = "EVT-22", "A domain that is being taken apart opens no ports", "Xen: get_free_port, -EINVAL";
    HYPERVISORS = "EVT-23", "A port by which the hypervisor asks another domain is not its domain's to close", "Xen: EVTCHNOP_close, consumer_is_xen, -EINVAL";
}
