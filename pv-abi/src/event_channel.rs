//! Event channels: one-bit notifications between domains, from the hypervisor and from hardware.
//!
//! A *port* is a domain's handle for one end of a channel. The 2-level ABI keeps a pending and a mask bit for each port in
//! [`SharedInfo`](crate::xen::SharedInfo); the FIFO ABI keeps one word for each port in pages the guest gives.
//!
//! `HYPERVISOR_event_channel_op(cmd, arg)`: `cmd` is an `EVTCHNOP_*`, `arg` the address of the struct that bears its name.
//! All return 0 or a negated errno; "out" fields are written back into the same struct.
//!
//! Xen: `public/event_channel.h`.

use crate::layout::{constants, structs};

constants! {
    header "event_channel.h";
    /// Connects to a port that another domain offered; see [`EvtchnBindInterdomain`].
    pub const EVTCHNOP_BIND_INTERDOMAIN [EVTCHNOP_bind_interdomain]: u32 = 0;
    /// Binds a virtual interrupt; see [`EvtchnBindVirq`].
    pub const EVTCHNOP_BIND_VIRQ [EVTCHNOP_bind_virq]: u32 = 1;
    /// Binds a physical interrupt; see [`EvtchnBindPirq`].
    pub const EVTCHNOP_BIND_PIRQ [EVTCHNOP_bind_pirq]: u32 = 2;
    /// Closes a port; the peer's end becomes unbound. See [`EvtchnClose`].
    pub const EVTCHNOP_CLOSE [EVTCHNOP_close]: u32 = 3;
    /// Sets the peer's port pending; see [`EvtchnSend`].
    pub const EVTCHNOP_SEND [EVTCHNOP_send]: u32 = 4;
    /// Tells a port's state; see [`EvtchnStatus`].
    pub const EVTCHNOP_STATUS [EVTCHNOP_status]: u32 = 5;
    /// Offers a port to another domain; see [`EvtchnAllocUnbound`].
    pub const EVTCHNOP_ALLOC_UNBOUND [EVTCHNOP_alloc_unbound]: u32 = 6;
    /// Binds a port for interrupts between vCPUs of one domain; see [`EvtchnBindIpi`].
    pub const EVTCHNOP_BIND_IPI [EVTCHNOP_bind_ipi]: u32 = 7;
    /// Chooses the vCPU a port notifies; see [`EvtchnBindVcpu`].
    pub const EVTCHNOP_BIND_VCPU [EVTCHNOP_bind_vcpu]: u32 = 8;
    /// Unmasks a port and delivers what was pending; see [`EvtchnUnmask`].
    pub const EVTCHNOP_UNMASK [EVTCHNOP_unmask]: u32 = 9;
    /// Closes all ports of a domain; see [`EvtchnReset`].
    pub const EVTCHNOP_RESET [EVTCHNOP_reset]: u32 = 10;
    /// Gives a vCPU its FIFO control block; see [`EvtchnInitControl`].
    pub const EVTCHNOP_INIT_CONTROL [EVTCHNOP_init_control]: u32 = 11;
    /// Adds a page to the FIFO event array; see [`EvtchnExpandArray`].
    pub const EVTCHNOP_EXPAND_ARRAY [EVTCHNOP_expand_array]: u32 = 12;
    /// Sets a port's FIFO priority; see [`EvtchnSetPriority`].
    pub const EVTCHNOP_SET_PRIORITY [EVTCHNOP_set_priority]: u32 = 13;

    /// In [`EvtchnBindPirq::flags`]: the interrupt may be shared with other domains.
    pub const BIND_PIRQ_WILL_SHARE [BIND_PIRQ__WILL_SHARE]: u32 = 1;

    /// The port is not in use.
    pub const EVTCHNSTAT_CLOSED [EVTCHNSTAT_closed]: u32 = 0;
    /// The port waits for a peer.
    pub const EVTCHNSTAT_UNBOUND [EVTCHNSTAT_unbound]: u32 = 1;
    /// The port is connected to a port of another domain (or its own).
    pub const EVTCHNSTAT_INTERDOMAIN [EVTCHNSTAT_interdomain]: u32 = 2;
    /// The port is bound to a physical interrupt.
    pub const EVTCHNSTAT_PIRQ [EVTCHNSTAT_pirq]: u32 = 3;
    /// The port is bound to a virtual interrupt.
    pub const EVTCHNSTAT_VIRQ [EVTCHNSTAT_virq]: u32 = 4;
    /// The port is bound for interrupts between vCPUs.
    pub const EVTCHNSTAT_IPI [EVTCHNSTAT_ipi]: u32 = 5;

    /// Number of ports of the 2-level ABI.
    pub const EVTCHN_2L_NR_CHANNELS: u32 = 4096;
    /// The most urgent FIFO priority.
    pub const EVTCHN_FIFO_PRIORITY_MAX: u32 = 0;
    /// The FIFO priority a port starts with.
    pub const EVTCHN_FIFO_PRIORITY_DEFAULT: u32 = 7;
    /// The least urgent FIFO priority.
    pub const EVTCHN_FIFO_PRIORITY_MIN: u32 = 15;
    /// Number of FIFO queues of a vCPU, one a priority.
    pub const EVTCHN_FIFO_MAX_QUEUES: u32 = EVTCHN_FIFO_PRIORITY_MIN + 1;
    /// Bit number in a FIFO event word: an event is pending.
    pub const EVTCHN_FIFO_PENDING: u32 = 31;
    /// Bit number in a FIFO event word: the guest wants no event now.
    pub const EVTCHN_FIFO_MASKED: u32 = 30;
    /// Bit number in a FIFO event word: the word is on a queue.
    pub const EVTCHN_FIFO_LINKED: u32 = 29;
    /// Bit number in a FIFO event word: the hypervisor is changing the link.
    pub const EVTCHN_FIFO_BUSY: u32 = 28;
    /// Width in bits of the link field (the next port) of a FIFO event word.
    pub const EVTCHN_FIFO_LINK_BITS: u32 = 17;
    /// Mask of the link field of a FIFO event word.
    pub const EVTCHN_FIFO_LINK_MASK: u32 = (1 << EVTCHN_FIFO_LINK_BITS) - 1;
    /// Number of ports of the FIFO ABI.
    pub const EVTCHN_FIFO_NR_CHANNELS: u32 = 1 << EVTCHN_FIFO_LINK_BITS;
}

structs! {
    header "event_channel.h";

    /// `EVTCHNOP_alloc_unbound`: allocates a port in `dom` that `remote_dom` may bind to.
    pub struct EvtchnAllocUnbound ["struct evtchn_alloc_unbound"] {
        /// In: the domain that gets the port; `DOMID_SELF`, or another one if the caller is privileged.
        pub dom: u16,
        /// In: the domain that may bind; `DOMID_SELF` for the caller.
        pub remote_dom: u16,
        /// Out: the new port.
        pub port: u32,
    }

    /// `EVTCHNOP_bind_interdomain`: connects a new local port to an unbound port of `remote_dom`.
    ///
    /// The new port starts out pending, since notifications may have been lost before.
    pub struct EvtchnBindInterdomain ["struct evtchn_bind_interdomain"] {
        /// In: the domain that offered.
        pub remote_dom: u16,
        /// Padding.
        pub _pad0: u16,
        /// In: its port.
        pub remote_port: u32,
        /// Out: the new local port.
        pub local_port: u32,
    }

    /// `EVTCHNOP_bind_virq`: binds a virtual interrupt of one vCPU to a new port.
    ///
    /// A global interrupt (see `VIRQ_*`) is bound on vCPU 0; a second binding is refused with `EEXIST`.
    pub struct EvtchnBindVirq ["struct evtchn_bind_virq"] {
        /// In: `VIRQ_*`.
        pub virq: u32,
        /// In: the vCPU.
        pub vcpu: u32,
        /// Out: the new port.
        pub port: u32,
    }

    /// `EVTCHNOP_bind_pirq`: binds a physical interrupt to a new port.
    pub struct EvtchnBindPirq ["struct evtchn_bind_pirq"] {
        /// In: the interrupt's number in the domain.
        pub pirq: u32,
        /// In: 0 or [`BIND_PIRQ_WILL_SHARE`].
        pub flags: u32,
        /// Out: the new port.
        pub port: u32,
    }

    /// `EVTCHNOP_bind_ipi`: allocates a port whose `send` notifies a vCPU of the caller's own domain.
    pub struct EvtchnBindIpi ["struct evtchn_bind_ipi"] {
        /// In: the vCPU to notify.
        pub vcpu: u32,
        /// Out: the new port.
        pub port: u32,
    }

    /// `EVTCHNOP_close`: closes a local port.
    pub struct EvtchnClose ["struct evtchn_close"] {
        /// In: the port.
        pub port: u32,
    }

    /// `EVTCHNOP_send`: sets the other end of the channel pending.
    pub struct EvtchnSend ["struct evtchn_send"] {
        /// In: the local port.
        pub port: u32,
    }

    /// `EVTCHNOP_status`: tells what a port is connected to.
    pub struct EvtchnStatus ["struct evtchn_status"] {
        /// In: the domain; another than `DOMID_SELF` needs privilege.
        pub dom: u16,
        /// Padding.
        pub _pad0: u16,
        /// In: the port.
        pub port: u32,
        /// Out: `EVTCHNSTAT_*`.
        pub status: u32,
        /// Out: the vCPU the port notifies.
        pub vcpu: u32,
        /// Out: depends on `status`; see [`EvtchnStatus::state`].
        pub u: [u32; 2],
    }

    /// `EVTCHNOP_bind_vcpu`: chooses the vCPU that a port notifies. Not for per-vCPU interrupts and IPIs.
    pub struct EvtchnBindVcpu ["struct evtchn_bind_vcpu"] {
        /// In: the port.
        pub port: u32,
        /// In: the vCPU.
        pub vcpu: u32,
    }

    /// `EVTCHNOP_unmask`: unmasks a port; an event that was pending is delivered now.
    pub struct EvtchnUnmask ["struct evtchn_unmask"] {
        /// In: the port.
        pub port: u32,
    }

    /// `EVTCHNOP_reset`: closes all event channels of a domain and returns to the 2-level ABI.
    pub struct EvtchnReset ["struct evtchn_reset"] {
        /// In: the domain; another than `DOMID_SELF` needs privilege.
        pub dom: u16,
    }

    /// `EVTCHNOP_init_control`: gives a vCPU its FIFO control block; the first call switches the domain to the FIFO ABI.
    pub struct EvtchnInitControl ["struct evtchn_init_control"] {
        /// In: the frame (PV: machine frame) that holds the control block.
        pub control_gfn: u64,
        /// In: its offset in that frame, in bytes, a multiple of 8.
        pub offset: u32,
        /// In: the vCPU.
        pub vcpu: u32,
        /// Out: number of bits in the link field.
        pub link_bits: u8,
        /// Padding.
        pub _pad0: [u8; 7],
    }

    /// `EVTCHNOP_expand_array`: adds a page to the FIFO event array.
    pub struct EvtchnExpandArray ["struct evtchn_expand_array"] {
        /// In: the frame (PV: machine frame).
        pub array_gfn: u64,
    }

    /// `EVTCHNOP_set_priority`: sets a port's FIFO priority.
    pub struct EvtchnSetPriority ["struct evtchn_set_priority"] {
        /// In: the port.
        pub port: u32,
        /// In: 0 (most urgent) to 15.
        pub priority: u32,
    }

    /// The argument of the retired hypercall `event_channel_op_compat`: command and payload in one.
    pub struct EvtchnOp ["struct evtchn_op"] {
        /// In: `EVTCHNOP_*`.
        pub cmd: u32,
        /// In and out: the struct of the command, in its first bytes.
        pub u: [u32; 6],
    }

    /// A vCPU's FIFO queue heads, shared with the hypervisor.
    pub struct EvtchnFifoControlBlock ["struct evtchn_fifo_control_block"] {
        /// One bit for each priority whose queue is not empty. Hypervisor sets, guest clears.
        pub ready: u32,
        /// Padding.
        pub _pad0: u32,
        /// The first port of each queue. Hypervisor sets on an empty queue, guest advances.
        pub head: [u32; EVTCHN_FIFO_MAX_QUEUES as usize],
    }
}

/// What a port is connected to: [`EvtchnStatus`] with its union resolved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PortState {
    /// Not in use.
    Closed,
    /// Waits for a peer from this domain.
    Unbound {
        /// The domain that may bind.
        dom: u16,
    },
    /// Connected.
    Interdomain {
        /// The peer's domain.
        dom: u16,
        /// The peer's port.
        port: u32,
    },
    /// Bound to this physical interrupt.
    Pirq(u32),
    /// Bound to this `VIRQ_*`.
    Virq(u32),
    /// Bound for interrupts between vCPUs.
    Ipi,
}

impl EvtchnStatus {
    /// Resolves `status` and `u`; `None` where `status` is no `EVTCHNSTAT_*`.
    pub const fn state(&self) -> Option<PortState> {
        let [low, high] = self.u;
        Some(match self.status {
            EVTCHNSTAT_CLOSED => PortState::Closed,
            EVTCHNSTAT_UNBOUND => PortState::Unbound { dom: low as u16 },
            EVTCHNSTAT_INTERDOMAIN => PortState::Interdomain { dom: low as u16, port: high },
            EVTCHNSTAT_PIRQ => PortState::Pirq(low),
            EVTCHNSTAT_VIRQ => PortState::Virq(low),
            EVTCHNSTAT_IPI => PortState::Ipi,
            _ => return None,
        })
    }

    /// Sets `status` and `u`.
    pub const fn set_state(&mut self, state: PortState) {
        (self.status, self.u) = match state {
            PortState::Closed => (EVTCHNSTAT_CLOSED, [0, 0]),
            PortState::Unbound { dom } => (EVTCHNSTAT_UNBOUND, [dom as u32, 0]),
            PortState::Interdomain { dom, port } => (EVTCHNSTAT_INTERDOMAIN, [dom as u32, port]),
            PortState::Pirq(pirq) => (EVTCHNSTAT_PIRQ, [pirq, 0]),
            PortState::Virq(virq) => (EVTCHNSTAT_VIRQ, [virq, 0]),
            PortState::Ipi => (EVTCHNSTAT_IPI, [0, 0]),
        };
    }
}
