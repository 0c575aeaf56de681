//! Event channels.

use super::raw::{address, address_mut, call2};
use crate::errno::Errno;
use crate::event_channel::{
    EVTCHNOP_ALLOC_UNBOUND, EVTCHNOP_BIND_INTERDOMAIN, EVTCHNOP_BIND_IPI, EVTCHNOP_BIND_PIRQ, EVTCHNOP_BIND_VCPU,
    EVTCHNOP_BIND_VIRQ, EVTCHNOP_CLOSE, EVTCHNOP_EXPAND_ARRAY, EVTCHNOP_INIT_CONTROL, EVTCHNOP_RESET, EVTCHNOP_SEND,
    EVTCHNOP_SET_PRIORITY, EVTCHNOP_STATUS, EVTCHNOP_UNMASK, EvtchnAllocUnbound, EvtchnBindInterdomain, EvtchnBindIpi,
    EvtchnBindPirq, EvtchnBindVcpu, EvtchnBindVirq, EvtchnClose, EvtchnExpandArray, EvtchnInitControl, EvtchnReset,
    EvtchnSend, EvtchnSetPriority, EvtchnStatus, EvtchnUnmask, PortState,
};
use crate::xen::HYPERVISOR_EVENT_CHANNEL_OP;
use crate::{DomId, Mfn, Port, VcpuId};

/// An operation on event channels that writes no memory but its own argument.
pub trait EventChannelOperation: private::Sealed {
    /// `EVTCHNOP_*`.
    const COMMAND: u32;
}

mod private {
    /// Keeps implementations inside this crate: [`super::event_channel_op`] relies on them.
    pub trait Sealed {}
}

macro_rules! event_channel_operations {
    ($( $argument:ty => $command:expr; )*) => { $(
        impl private::Sealed for $argument {}
        impl EventChannelOperation for $argument {
            const COMMAND: u32 = $command;
        }
    )* };
}

event_channel_operations! {
    EvtchnAllocUnbound => EVTCHNOP_ALLOC_UNBOUND;
    EvtchnBindInterdomain => EVTCHNOP_BIND_INTERDOMAIN;
    EvtchnBindVirq => EVTCHNOP_BIND_VIRQ;
    EvtchnBindPirq => EVTCHNOP_BIND_PIRQ;
    EvtchnBindIpi => EVTCHNOP_BIND_IPI;
    EvtchnBindVcpu => EVTCHNOP_BIND_VCPU;
    EvtchnClose => EVTCHNOP_CLOSE;
    EvtchnSend => EVTCHNOP_SEND;
    EvtchnStatus => EVTCHNOP_STATUS;
    EvtchnUnmask => EVTCHNOP_UNMASK;
    EvtchnReset => EVTCHNOP_RESET;
    EvtchnSetPriority => EVTCHNOP_SET_PRIORITY;
}

/// Performs the operation that belongs to the argument's type.
///
/// # Errors
/// Those of the operation.
pub fn event_channel_op<T: EventChannelOperation>(argument: &mut T) -> Result<(), Errno> {
    // SAFETY: the command belongs to `T` and writes nothing but its argument (and the event bits, which are atomic).
    unsafe { call2(HYPERVISOR_EVENT_CHANNEL_OP, T::COMMAND.into(), address_mut(argument)) }.map(drop)
}

/// Gives a vCPU its FIFO control block.
///
/// # Errors
/// `Inval`: no such vCPU or offset. `NoSys`: the FIFO ABI is not there.
///
/// # Safety
/// The frame belongs to this domain, nothing but event code uses the block, and it stays so.
pub unsafe fn evtchn_init_control(argument: &mut EvtchnInitControl) -> Result<(), Errno> {
    // SAFETY: the caller gives the block away.
    unsafe { call2(HYPERVISOR_EVENT_CHANNEL_OP, EVTCHNOP_INIT_CONTROL.into(), address_mut(argument)) }.map(drop)
}

/// Adds a page to the FIFO event array.
///
/// # Errors
/// `NoSpc`: the array is full.
///
/// # Safety
/// The frame belongs to this domain, nothing but event code uses it, and it stays so.
pub unsafe fn evtchn_expand_array(frame: Mfn) -> Result<(), Errno> {
    let argument = EvtchnExpandArray { array_gfn: frame.0 };
    // SAFETY: the caller gives the page away.
    unsafe { call2(HYPERVISOR_EVENT_CHANNEL_OP, EVTCHNOP_EXPAND_ARRAY.into(), address(&argument)) }.map(drop)
}

/// Notifies the other end of a channel.
///
/// # Errors
/// `Inval`: the port is not connected.
pub fn evtchn_send(port: Port) -> Result<(), Errno> {
    event_channel_op(&mut EvtchnSend { port: port.0 })
}

/// Unmasks a port and delivers what was pending.
///
/// # Errors
/// `Inval`: no such port.
pub fn evtchn_unmask(port: Port) -> Result<(), Errno> {
    event_channel_op(&mut EvtchnUnmask { port: port.0 })
}

/// Closes a port.
///
/// # Errors
/// `Inval`: no such port.
pub fn evtchn_close(port: Port) -> Result<(), Errno> {
    event_channel_op(&mut EvtchnClose { port: port.0 })
}

/// Offers a new port of `dom` to `remote`.
///
/// # Errors
/// `NoSpc`: no port is free. `Perm`: `dom` is not for this caller.
pub fn evtchn_alloc_unbound(dom: DomId, remote: DomId) -> Result<Port, Errno> {
    let mut argument = EvtchnAllocUnbound { dom: dom.0, remote_dom: remote.0, port: 0 };
    event_channel_op(&mut argument)?;
    Ok(Port(argument.port))
}

/// Connects a new port to one that `remote` offers.
///
/// # Errors
/// `Inval`: the port is not offered to this domain. `NoSpc`: no port is free.
pub fn evtchn_bind_interdomain(remote: DomId, remote_port: Port) -> Result<Port, Errno> {
    let mut argument = EvtchnBindInterdomain { remote_dom: remote.0, remote_port: remote_port.0, ..Default::default() };
    event_channel_op(&mut argument)?;
    Ok(Port(argument.local_port))
}

/// Binds a `VIRQ_*` of a vCPU.
///
/// # Errors
/// `Exist`: it is bound already. `Inval`: no such interrupt, or a global one not on vCPU 0.
pub fn evtchn_bind_virq(virq: u32, vcpu: VcpuId) -> Result<Port, Errno> {
    let mut argument = EvtchnBindVirq { virq, vcpu: vcpu.0, port: 0 };
    event_channel_op(&mut argument)?;
    Ok(Port(argument.port))
}

/// Binds a physical interrupt.
///
/// # Errors
/// `Perm`: not for this domain. `Exist`: it is bound already.
pub fn evtchn_bind_pirq(pirq: u32, flags: u32) -> Result<Port, Errno> {
    let mut argument = EvtchnBindPirq { pirq, flags, port: 0 };
    event_channel_op(&mut argument)?;
    Ok(Port(argument.port))
}

/// Allocates a port whose `send` notifies a vCPU of this domain.
///
/// # Errors
/// `NoEnt`: no such vCPU.
pub fn evtchn_bind_ipi(vcpu: VcpuId) -> Result<Port, Errno> {
    let mut argument = EvtchnBindIpi { vcpu: vcpu.0, port: 0 };
    event_channel_op(&mut argument)?;
    Ok(Port(argument.port))
}

/// Chooses the vCPU that a port notifies.
///
/// # Errors
/// `Inval`: the port's kind is bound to its vCPU. `NoEnt`: no such vCPU.
pub fn evtchn_bind_vcpu(port: Port, vcpu: VcpuId) -> Result<(), Errno> {
    event_channel_op(&mut EvtchnBindVcpu { port: port.0, vcpu: vcpu.0 })
}

/// Tells what a port is connected to.
///
/// # Errors
/// `Inval`: no such port, or a state this ABI does not know.
pub fn evtchn_status(dom: DomId, port: Port) -> Result<PortState, Errno> {
    let mut argument = EvtchnStatus { dom: dom.0, port: port.0, ..Default::default() };
    event_channel_op(&mut argument)?;
    argument.state().ok_or(Errno::Inval)
}
