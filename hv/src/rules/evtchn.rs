//! Rules of the room `evtchn`.

crate::rules! {
    PORT_RANGE = "EVT-01", "The port must be one that the domain has been given",
        "Xen: -EINVAL where port_is_valid is false";
    NOT_SENDABLE = "EVT-02", "An event is sent only on an interdomain, IPI or unbound port",
        "Xen: evtchn_send, -EINVAL";
    NOT_OPEN = "EVT-03", "Only an open port can be closed", "Xen: evtchn_close, -EINVAL";
    NO_FREE_PORT = "EVT-04", "A domain has 4,095 ports, or fewer where its toolstack says so",
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
    NO_FIFO = "EVT-12", "Only the 2-level ABI is offered, not the FIFO ABI", "Xen: -ENOSYS where FIFO event channels are off";
    NO_MEMORY = "EVT-13", "There must be memory for more ports", "Xen: -ENOMEM of evtchn_allocate_port";
}
