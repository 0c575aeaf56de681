//! One function a hypercall, with Rust's types.

use crate::arch::{TrapInfo, VcpuGuestContext};
use crate::callback::{CALLBACKOP_REGISTER, CALLBACKOP_UNREGISTER, CallbackRegister, CallbackUnregister};
use crate::domctl::Domctl;
use crate::errno::Errno;
use crate::event_channel::*;
use crate::grant_table::*;
use crate::memory::{
    MachphysMapping, MemoryDomain, MemoryExchange, MemoryReservation, XENMEM_CURRENT_RESERVATION,
    XENMEM_DECREASE_RESERVATION, XENMEM_EXCHANGE, XENMEM_INCREASE_RESERVATION, XENMEM_MACHPHYS_MAPPING,
    XENMEM_MAXIMUM_RAM_PAGE, XENMEM_MAXIMUM_RESERVATION, XENMEM_POPULATE_PHYSMAP,
};
use crate::physdev::{PHYSDEVOP_SET_IOPL, PhysdevSetIopl};
use crate::platform::PlatformOp;
use crate::sched::*;
use crate::sysctl::Sysctl;
use crate::vcpu::*;
use crate::version::*;
use crate::xen::*;
use crate::{DomId, GrantRef, Mfn, Port, VcpuId};

use super::raw::{raw0, raw1, raw2, raw3, raw4};

/// The address the hypervisor is told of a value it reads.
fn address<T: ?Sized>(value: &T) -> u64 {
    core::ptr::from_ref(value).cast::<u8>().expose_provenance() as u64
}

/// The address the hypervisor is told of a value it also writes.
fn address_mut<T: ?Sized>(value: &mut T) -> u64 {
    core::ptr::from_mut(value).cast::<u8>().expose_provenance() as u64
}

/// Calls with two arguments and splits the result.
///
/// # Safety
/// As [`raw2`].
unsafe fn call2(number: u64, a: u64, b: u64) -> Result<u64, Errno> {
    // SAFETY: passed on to the caller.
    Errno::result_of(unsafe { raw2(number, a, b) })
}

/// Calls with three arguments and splits the result.
///
/// # Safety
/// As [`raw3`].
unsafe fn call3(number: u64, a: u64, b: u64, c: u64) -> Result<u64, Errno> {
    // SAFETY: passed on to the caller.
    Errno::result_of(unsafe { raw3(number, a, b, c) })
}

// ---- what the hypervisor is ----

/// The version: major × 65536 + minor. The cheapest call there is; pending events are delivered on its way out.
///
/// # Errors
/// None from Xen.
pub fn xen_version() -> Result<u64, Errno> {
    // SAFETY: the command has no argument and changes nothing.
    unsafe { call2(HYPERVISOR_XEN_VERSION, XENVER_VERSION.into(), 0) }
}

/// What a `XENVER_*` command fills.
///
/// # Safety
/// The command fills no more than a `T`.
unsafe fn xen_version_into<T>(command: u32, out: &mut T) -> Result<u64, Errno> {
    // SAFETY: the caller says that the command fills no more than `out`.
    unsafe { call2(HYPERVISOR_XEN_VERSION, command.into(), address_mut(out)) }
}

/// Fills in the rest of the version's text.
///
/// # Errors
/// None from Xen.
pub fn xen_extraversion(out: &mut [u8; XEN_EXTRAVERSION_LEN]) -> Result<(), Errno> {
    // SAFETY: the command fills this many bytes.
    unsafe { xen_version_into(XENVER_EXTRAVERSION, out) }.map(drop)
}

/// Fills in the kinds of guests it runs, as text.
///
/// # Errors
/// None from Xen.
pub fn xen_capabilities(out: &mut [u8; XEN_CAPABILITIES_INFO_LEN]) -> Result<(), Errno> {
    // SAFETY: the command fills this many bytes.
    unsafe { xen_version_into(XENVER_CAPABILITIES, out) }.map(drop)
}

/// The first address of the hypervisor's hole.
///
/// # Errors
/// None from Xen.
pub fn xen_platform_parameters() -> Result<PlatformParameters, Errno> {
    let mut out = PlatformParameters::default();
    // SAFETY: the command fills this struct.
    unsafe { xen_version_into(XENVER_PLATFORM_PARAMETERS, &mut out) }.map(|_| out)
}

/// The features of one submap, a bit each.
///
/// # Errors
/// `Inval`: there is no such submap.
pub fn xen_features(submap: u32) -> Result<u32, Errno> {
    let mut out = FeatureInfo { submap_idx: submap, submap: 0 };
    // SAFETY: the command reads and fills this struct.
    unsafe { xen_version_into(XENVER_GET_FEATURES, &mut out) }.map(|_| out.submap)
}

// ---- the emergency console ----

/// Writes to the emergency console; returns what the hypervisor returned (0).
///
/// # Errors
/// `Perm`: the console is not for this domain.
pub fn console_write(text: &[u8]) -> Result<u64, Errno> {
    // SAFETY: the hypervisor only reads `text`.
    unsafe { call3(HYPERVISOR_CONSOLE_IO, CONSOLEIO_WRITE.into(), text.len() as u64, address(text)) }
}

/// Reads from the emergency console; returns the number of bytes.
///
/// # Errors
/// `Perm`: the console is not for this domain.
pub fn console_read(buffer: &mut [u8]) -> Result<u64, Errno> {
    let (length, at) = (buffer.len() as u64, address_mut(buffer));
    // SAFETY: the hypervisor writes at most `length` bytes of `buffer`.
    unsafe { call3(HYPERVISOR_CONSOLE_IO, CONSOLEIO_READ.into(), length, at) }
}

// ---- scheduling ----

/// Calls `sched_op` with an argument that is only read.
fn sched_op<T>(command: u32, argument: &T) -> Result<u64, Errno> {
    // SAFETY: `sched_op` reads its argument and writes no memory.
    unsafe { call2(HYPERVISOR_SCHED_OP, command.into(), address(argument)) }
}

/// Lets another vCPU run.
pub fn sched_yield() {
    // The call cannot fail and has no result.
    let _ = sched_op(SCHEDOP_YIELD, &());
}

/// Unmasks events and sleeps until one is pending.
pub fn sched_block() {
    // The call cannot fail and has no result.
    let _ = sched_op(SCHEDOP_BLOCK, &());
}

/// Sleeps until one of `ports` is pending or the absolute system time `timeout_ns` is reached (0: no limit).
///
/// # Errors
/// `Inval`: more than 128 ports, or a port that does not exist.
pub fn sched_poll(ports: &[u32], timeout_ns: u64) -> Result<(), Errno> {
    let nr_ports = u32::try_from(ports.len()).map_err(|_| Errno::Inval)?;
    let poll = SchedPoll { ports: address(ports), nr_ports, _pad0: 0, timeout: timeout_ns };
    sched_op(SCHEDOP_POLL, &poll).map(drop)
}

/// Stops the domain. Returns only after a suspend, with 1 where that was cancelled.
///
/// # Errors
/// `Inval`: no such reason.
pub fn sched_shutdown(reason: ShutdownReason) -> Result<u64, Errno> {
    sched_op(SCHEDOP_SHUTDOWN, &SchedShutdown { reason: reason as u32 })
}

/// Arms the vCPU's timer for an absolute system time; 0 stops it.
///
/// # Errors
/// None from Xen.
pub fn set_timer_op(timeout_ns: u64) -> Result<(), Errno> {
    // SAFETY: the call takes a number and only raises an event later.
    Errno::result_of(unsafe { raw1(HYPERVISOR_SET_TIMER_OP, timeout_ns) }).map(drop)
}

// ---- event channels ----

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
    let mut argument =
        EvtchnBindInterdomain { remote_dom: remote.0, remote_port: remote_port.0, ..Default::default() };
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

// ---- virtual CPUs ----

/// Performs a `VCPUOP_*` with the address of its argument, or 0.
///
/// # Errors
/// Those of the operation.
///
/// # Safety
/// The argument is what the command takes, and any memory it registers stays given to the hypervisor.
pub unsafe fn vcpu_op(command: u32, vcpu: VcpuId, argument: u64) -> Result<u64, Errno> {
    // SAFETY: passed on to the caller.
    unsafe { call3(HYPERVISOR_VCPU_OP, command.into(), vcpu.0.into(), argument) }
}

/// Whether a vCPU is up.
///
/// # Errors
/// `NoEnt`: no such vCPU.
pub fn vcpu_is_up(vcpu: VcpuId) -> Result<bool, Errno> {
    // SAFETY: the command has no argument and changes nothing.
    unsafe { vcpu_op(VCPUOP_IS_UP, vcpu, 0) }.map(|up| up != 0)
}

/// What a vCPU has done with its time.
///
/// # Errors
/// `NoEnt`: no such vCPU.
pub fn vcpu_runstate_info(vcpu: VcpuId) -> Result<VcpuRunstateInfo, Errno> {
    let mut out = VcpuRunstateInfo::default();
    // SAFETY: the command fills this struct.
    unsafe { vcpu_op(VCPUOP_GET_RUNSTATE_INFO, vcpu, address_mut(&mut out)) }.map(|_| out)
}

/// Sets the periodic timer of a vCPU, in ns.
///
/// # Errors
/// `Inval`: less than 1 ms.
pub fn vcpu_set_periodic_timer(vcpu: VcpuId, period_ns: u64) -> Result<(), Errno> {
    let argument = VcpuSetPeriodicTimer { period_ns };
    // SAFETY: the command only reads its argument.
    unsafe { vcpu_op(VCPUOP_SET_PERIODIC_TIMER, vcpu, address(&argument)) }.map(drop)
}

/// Stops the periodic timer of a vCPU.
///
/// # Errors
/// `NoEnt`: no such vCPU.
pub fn vcpu_stop_periodic_timer(vcpu: VcpuId) -> Result<(), Errno> {
    // SAFETY: the command has no argument.
    unsafe { vcpu_op(VCPUOP_STOP_PERIODIC_TIMER, vcpu, 0) }.map(drop)
}

/// Sets the single-shot timer of a vCPU, for an absolute system time in ns.
///
/// # Errors
/// `Time`: with `VCPU_SSHOTTMR_FUTURE`, a time in the past. `Inval`: another vCPU than the caller's.
pub fn vcpu_set_singleshot_timer(vcpu: VcpuId, timeout_abs_ns: u64, flags: u32) -> Result<(), Errno> {
    let argument = VcpuSetSingleshotTimer { timeout_abs_ns, flags, _pad0: 0 };
    // SAFETY: the command only reads its argument.
    unsafe { vcpu_op(VCPUOP_SET_SINGLESHOT_TIMER, vcpu, address(&argument)) }.map(drop)
}

/// Stops the single-shot timer of a vCPU.
///
/// # Errors
/// `Inval`: another vCPU than the caller's.
pub fn vcpu_stop_singleshot_timer(vcpu: VcpuId) -> Result<(), Errno> {
    // SAFETY: the command has no argument.
    unsafe { vcpu_op(VCPUOP_STOP_SINGLESHOT_TIMER, vcpu, 0) }.map(drop)
}

/// Moves a vCPU's `vcpu_info` to memory of the guest.
///
/// # Errors
/// `Inval`: it was moved before. `Nxio`: it would cross a page.
///
/// # Safety
/// The memory holds a [`VcpuInfoAtomic`], and nothing uses it as anything else from now on.
pub unsafe fn vcpu_register_vcpu_info(vcpu: VcpuId, frame: Mfn, offset: u32) -> Result<(), Errno> {
    let argument = VcpuRegisterVcpuInfo { mfn: frame.0, offset, rsvd: 0 };
    // SAFETY: the caller gives the memory away.
    unsafe { vcpu_op(VCPUOP_REGISTER_VCPU_INFO, vcpu, address(&argument)) }.map(drop)
}

/// Gives a vCPU its first state.
///
/// # Errors
/// `Exist`: it has one. `Inval`: the state is not allowed.
///
/// # Safety
/// What runs from that state may run.
pub unsafe fn vcpu_initialise(vcpu: VcpuId, context: &VcpuGuestContext) -> Result<(), Errno> {
    // SAFETY: the command only reads its argument; the caller answers for what then runs.
    unsafe { vcpu_op(VCPUOP_INITIALISE, vcpu, address(context)) }.map(drop)
}

// ---- page tables ----

/// The last argument of `mmu_update`: who owns the frames that entries name, and whose tables are changed.
fn foreign(frames: DomId, tables: Option<DomId>) -> u64 {
    let high = tables.map_or(0, |domid| u64::from(domid.0) + 1);
    u64::from(frames.0) | high << 16
}

/// Changes page-table entries; `domid` owns the frames they name. Returns how many were done, which is all of them.
///
/// # Errors
/// That of the first request which failed; those before it are done.
///
/// # Safety
/// The mappings that result keep every promise Rust code relies on.
pub unsafe fn mmu_update(requests: &[MmuUpdate], domid: DomId) -> Result<u64, Errno> {
    // SAFETY: passed on to the caller.
    unsafe { mmu_update_for(requests, domid, None) }
}

/// As [`mmu_update`], on the tables of another domain.
///
/// # Errors
/// As [`mmu_update`].
///
/// # Safety
/// As [`mmu_update`].
pub unsafe fn mmu_update_for(requests: &[MmuUpdate], frames: DomId, tables: Option<DomId>) -> Result<u64, Errno> {
    let mut done = 0u32;
    let (at, count, out) = (address(requests), requests.len() as u64, address_mut(&mut done));
    // SAFETY: the call reads `requests` and writes `done`; the caller answers for the mappings.
    let result = unsafe { raw4(HYPERVISOR_MMU_UPDATE, at, count, out, foreign(frames, tables)) };
    Errno::result_of(result).map(|_| done.into())
}

/// Changes the L1 entry of an address; `flags` are `UVMF_*`.
///
/// # Errors
/// `Inval`: no L1 table there, or an entry that is not allowed.
///
/// # Safety
/// As [`mmu_update`].
pub unsafe fn update_va_mapping(va: u64, entry: u64, flags: u64) -> Result<(), Errno> {
    // SAFETY: the caller answers for the mapping.
    unsafe { call3(HYPERVISOR_UPDATE_VA_MAPPING, va, entry, flags) }.map(drop)
}

/// As [`update_va_mapping`], where `domid` owns the frame.
///
/// # Errors
/// As [`update_va_mapping`]; `Perm`: the frame is not for this domain.
///
/// # Safety
/// As [`mmu_update`].
pub unsafe fn update_va_mapping_otherdomain(va: u64, entry: u64, flags: u64, domid: DomId) -> Result<(), Errno> {
    // SAFETY: the caller answers for the mapping.
    let result = unsafe { raw4(HYPERVISOR_UPDATE_VA_MAPPING_OTHERDOMAIN, va, entry, flags, domid.0.into()) };
    Errno::result_of(result).map(drop)
}

/// Pins, switches, flushes. Returns how many were done, which is all of them.
///
/// # Errors
/// That of the first operation which failed; those before it are done.
///
/// # Safety
/// As [`mmu_update`].
pub unsafe fn mmuext_op(operations: &[MmuextOp], domid: DomId) -> Result<u64, Errno> {
    let mut done = 0u32;
    let (at, count, out) = (address(operations), operations.len() as u64, address_mut(&mut done));
    // SAFETY: the call reads `operations` and writes `done`; the caller answers for the mappings.
    let result = unsafe { raw4(HYPERVISOR_MMUEXT_OP, at, count, out, domid.0.into()) };
    Errno::result_of(result).map(|_| done.into())
}

/// Flushes this vCPU's TLB.
///
/// # Errors
/// None from Xen.
pub fn tlb_flush_local() -> Result<(), Errno> {
    let operation = MmuextOp { cmd: MMUEXT_TLB_FLUSH_LOCAL, ..Default::default() };
    // SAFETY: a flush changes no mapping.
    unsafe { mmuext_op(&[operation], DomId::SELF) }.map(drop)
}

/// Flushes one address on this vCPU.
///
/// # Errors
/// None from Xen.
pub fn invlpg_local(va: u64) -> Result<(), Errno> {
    let operation = MmuextOp { cmd: MMUEXT_INVLPG_LOCAL, arg1: va, ..Default::default() };
    // SAFETY: a flush changes no mapping.
    unsafe { mmuext_op(&[operation], DomId::SELF) }.map(drop)
}

// ---- descriptors, entries, registers ----

/// Installs a descriptor table of `entries` descriptors in `frames`.
///
/// # Errors
/// `Inval`: a frame is writable somewhere, or a descriptor is not allowed.
///
/// # Safety
/// The selectors in use stay valid.
pub unsafe fn set_gdt(frames: &[u64], entries: u32) -> Result<(), Errno> {
    // SAFETY: the call reads `frames`; the caller answers for the selectors.
    unsafe { call2(HYPERVISOR_SET_GDT, address(frames), entries.into()) }.map(drop)
}

/// Changes the descriptor at a machine address.
///
/// # Errors
/// `Inval`: the descriptor is not allowed.
///
/// # Safety
/// The selectors in use stay valid.
pub unsafe fn update_descriptor(at: crate::MachineAddr, descriptor: u64) -> Result<(), Errno> {
    // SAFETY: the caller answers for the selectors.
    unsafe { call2(HYPERVISOR_UPDATE_DESCRIPTOR, at.0, descriptor) }.map(drop)
}

/// Registers exception handlers. The last of `traps` has address 0.
///
/// # Errors
/// `Inval`: a handler's address is not canonical.
///
/// # Safety
/// The handlers are handlers.
pub unsafe fn set_trap_table(traps: &[TrapInfo]) -> Result<(), Errno> {
    debug_assert!(traps.last().is_none_or(|last| last.address == 0));
    // SAFETY: the call reads up to the entry with address 0; the caller answers for the handlers.
    Errno::result_of(unsafe { raw1(HYPERVISOR_SET_TRAP_TABLE, address(traps)) }).map(drop)
}

/// Registers an entry.
///
/// # Errors
/// `Inval`: no such type, or an address that is not canonical. `NoSys`: the CPU has no such entry.
///
/// # Safety
/// The entry is one.
pub unsafe fn callback_register(callback: &CallbackRegister) -> Result<(), Errno> {
    // SAFETY: the call reads its argument; the caller answers for the entry.
    unsafe { call2(HYPERVISOR_CALLBACK_OP, CALLBACKOP_REGISTER.into(), address(callback)) }.map(drop)
}

/// Unregisters an entry.
///
/// # Errors
/// `Inval`: that entry cannot be unregistered.
pub fn callback_unregister(callback: &CallbackUnregister) -> Result<(), Errno> {
    // SAFETY: the call reads its argument.
    unsafe { call2(HYPERVISOR_CALLBACK_OP, CALLBACKOP_UNREGISTER.into(), address(callback)) }.map(drop)
}

/// Registers the event, failsafe and syscall entries; the older form of [`callback_register`].
///
/// # Errors
/// `Inval`: an address is not canonical.
///
/// # Safety
/// The entries are entries.
pub unsafe fn set_callbacks(event: u64, failsafe: u64, syscall: u64) -> Result<(), Errno> {
    // SAFETY: the caller answers for the entries.
    unsafe { call3(HYPERVISOR_SET_CALLBACKS, event, failsafe, syscall) }.map(drop)
}

/// Sets the stack for entries from user mode.
///
/// # Errors
/// None from Xen.
///
/// # Safety
/// The stack is mapped and used by nothing else.
pub unsafe fn stack_switch(ss: u16, sp: u64) -> Result<(), Errno> {
    // SAFETY: the caller answers for the stack.
    unsafe { call2(HYPERVISOR_STACK_SWITCH, ss.into(), sp) }.map(drop)
}

/// Sets FS or GS base; `which` is a `SEGBASE_*`.
///
/// # Errors
/// `Inval`: no such base, or an address that is not canonical.
///
/// # Safety
/// What is reached through that base stays valid.
pub unsafe fn set_segment_base(which: u32, base: u64) -> Result<(), Errno> {
    // SAFETY: the caller answers for what is reached.
    unsafe { call2(HYPERVISOR_SET_SEGMENT_BASE, which.into(), base) }.map(drop)
}

/// Sets (or clears) CR0.TS, so that the next FPU instruction raises an exception (or does not).
///
/// # Errors
/// None from Xen.
pub fn fpu_taskswitch(set: bool) -> Result<(), Errno> {
    // SAFETY: the call takes a number and changes a flag of the vCPU.
    Errno::result_of(unsafe { raw1(HYPERVISOR_FPU_TASKSWITCH, set.into()) }).map(drop)
}

/// Writes a debug register.
///
/// # Errors
/// `Inval` or `Perm`: no such register, or a value that is not allowed.
pub fn set_debugreg(number: u32, value: u64) -> Result<(), Errno> {
    // SAFETY: a breakpoint raises an exception and changes no memory.
    unsafe { call2(HYPERVISOR_SET_DEBUGREG, number.into(), value) }.map(drop)
}

/// Reads a debug register.
///
/// A value and an error cannot be told apart in the highest 4095 values, so the register's bits come back as they are.
pub fn get_debugreg(number: u32) -> u64 {
    // SAFETY: the call takes a number and changes nothing.
    (unsafe { raw1(HYPERVISOR_GET_DEBUGREG, number.into()) }) as u64
}

/// Switches an emulation aid (`VMASST_TYPE_*`) on or off.
///
/// # Errors
/// `Inval` or `NoSys`: no such aid.
pub fn vm_assist(enable: bool, aid: u32) -> Result<(), Errno> {
    let command = if enable { VMASST_CMD_ENABLE } else { VMASST_CMD_DISABLE };
    // SAFETY: the call takes numbers; aids change how faulting instructions are handled, not memory.
    unsafe { call2(HYPERVISOR_VM_ASSIST, command.into(), aid.into()) }.map(drop)
}

// ---- memory ----

/// Performs a `XENMEM_*` with its argument; returns what it returned.
///
/// # Errors
/// Those of the operation.
///
/// # Safety
/// The argument is what the command takes, and pages the domain loses are in no use.
pub unsafe fn memory_op<T>(command: u32, argument: &mut T) -> Result<u64, Errno> {
    // SAFETY: passed on to the caller.
    unsafe { call2(HYPERVISOR_MEMORY_OP, command.into(), address_mut(argument)) }
}

/// Where the machine-to-physical table is.
///
/// # Errors
/// None from Xen.
pub fn machphys_mapping() -> Result<MachphysMapping, Errno> {
    let mut out = MachphysMapping::default();
    // SAFETY: the command fills this struct.
    unsafe { memory_op(XENMEM_MACHPHYS_MAPPING, &mut out) }.map(|_| out)
}

/// The highest machine frame.
///
/// # Errors
/// None from Xen.
pub fn maximum_ram_page() -> Result<u64, Errno> {
    // SAFETY: the command has no argument and changes nothing.
    unsafe { memory_op(XENMEM_MAXIMUM_RAM_PAGE, &mut ()) }
}

/// The number of pages a domain has.
///
/// # Errors
/// `Srch`: no such domain. `Perm`: not for this caller.
pub fn current_reservation(domid: DomId) -> Result<u64, Errno> {
    // SAFETY: the command reads its argument and changes nothing.
    unsafe { memory_op(XENMEM_CURRENT_RESERVATION, &mut MemoryDomain { domid: domid.0 }) }
}

/// The number of pages a domain may have.
///
/// # Errors
/// `Srch`: no such domain. `Perm`: not for this caller.
pub fn maximum_reservation(domid: DomId) -> Result<u64, Errno> {
    // SAFETY: the command reads its argument and changes nothing.
    unsafe { memory_op(XENMEM_MAXIMUM_RESERVATION, &mut MemoryDomain { domid: domid.0 }) }
}

/// Gets memory for the frames of a list, and writes the machine frames into it. Returns how many extents were done.
///
/// # Errors
/// Those of the arguments; too little memory only makes the number smaller.
///
/// # Safety
/// `extent_start` is the address of a list of `nr_extents` frames, which may be written.
pub unsafe fn populate_physmap(reservation: &mut MemoryReservation) -> Result<u64, Errno> {
    // SAFETY: passed on to the caller.
    unsafe { memory_op(XENMEM_POPULATE_PHYSMAP, reservation) }
}

/// Gets memory, and writes the machine frames into the list. Returns how many extents were done.
///
/// # Errors
/// Those of the arguments.
///
/// # Safety
/// As [`populate_physmap`].
pub unsafe fn increase_reservation(reservation: &mut MemoryReservation) -> Result<u64, Errno> {
    // SAFETY: passed on to the caller.
    unsafe { memory_op(XENMEM_INCREASE_RESERVATION, reservation) }
}

/// Gives memory back. Returns how many extents were done.
///
/// # Errors
/// Those of the arguments.
///
/// # Safety
/// `extent_start` is the address of a list of `nr_extents` frames, and nothing uses them.
pub unsafe fn decrease_reservation(reservation: &mut MemoryReservation) -> Result<u64, Errno> {
    // SAFETY: passed on to the caller.
    unsafe { memory_op(XENMEM_DECREASE_RESERVATION, reservation) }
}

/// Gives memory back and gets other memory for it.
///
/// # Errors
/// Those of the arguments; `NoMem`.
///
/// # Safety
/// As [`decrease_reservation`] and [`populate_physmap`].
pub unsafe fn memory_exchange(exchange: &mut MemoryExchange) -> Result<u64, Errno> {
    // SAFETY: passed on to the caller.
    unsafe { memory_op(XENMEM_EXCHANGE, exchange) }
}

// ---- grants ----

/// Performs a `GNTTABOP_*` on each element, which then holds its own status.
///
/// # Errors
/// `NoSys`: no such command. `Fault`: the array cannot be accessed.
///
/// # Safety
/// `T` is what the command takes, and the mappings and copies that result keep every promise Rust code relies on.
pub unsafe fn grant_table_op<T>(command: u32, operations: &mut [T]) -> Result<(), Errno> {
    let (count, at) = (operations.len() as u64, address_mut(operations));
    // SAFETY: passed on to the caller.
    unsafe { call3(HYPERVISOR_GRANT_TABLE_OP, command.into(), at, count) }.map(drop)
}

/// Maps granted pages.
///
/// # Errors
/// As [`grant_table_op`].
///
/// # Safety
/// What is mapped at each address may be replaced, and is treated as memory that others change.
pub unsafe fn grant_map(operations: &mut [GnttabMapGrantRef]) -> Result<(), Errno> {
    // SAFETY: the struct belongs to the command; the caller answers for the mappings.
    unsafe { grant_table_op(GNTTABOP_MAP_GRANT_REF, operations) }
}

/// Unmaps granted pages.
///
/// # Errors
/// As [`grant_table_op`].
///
/// # Safety
/// Nothing refers to the mappings.
pub unsafe fn grant_unmap(operations: &mut [GnttabUnmapGrantRef]) -> Result<(), Errno> {
    // SAFETY: the struct belongs to the command; the caller answers for the mappings.
    unsafe { grant_table_op(GNTTABOP_UNMAP_GRANT_REF, operations) }
}

/// Copies between pages.
///
/// # Errors
/// As [`grant_table_op`].
///
/// # Safety
/// Own frames among the destinations may be written.
pub unsafe fn grant_copy(operations: &mut [GnttabCopy]) -> Result<(), Errno> {
    // SAFETY: the struct belongs to the command; the caller answers for the destinations.
    unsafe { grant_table_op(GNTTABOP_COPY, operations) }
}

/// Makes the table as large as `frames` and fills them in; returns `GNTST_*`.
///
/// # Errors
/// As [`grant_table_op`].
pub fn grant_setup_table(frames: &mut [u64]) -> Result<i16, Errno> {
    let nr_frames = u32::try_from(frames.len()).map_err(|_| Errno::Inval)?;
    let mut operation = GnttabSetupTable {
        dom: DomId::SELF.0,
        nr_frames,
        frame_list: address_mut(frames),
        ..Default::default()
    };
    // SAFETY: the command writes its argument and `nr_frames` words of `frames`.
    unsafe { grant_table_op(GNTTABOP_SETUP_TABLE, core::slice::from_mut(&mut operation)) }?;
    Ok(operation.status)
}

/// How large the table is and may become.
///
/// # Errors
/// As [`grant_table_op`].
pub fn grant_query_size(domid: DomId) -> Result<GnttabQuerySize, Errno> {
    let mut operation = GnttabQuerySize { dom: domid.0, ..Default::default() };
    // SAFETY: the command writes nothing but its argument.
    unsafe { grant_table_op(GNTTABOP_QUERY_SIZE, core::slice::from_mut(&mut operation)) }?;
    Ok(operation)
}

/// Exchanges the contents of two of one's own entries; returns `GNTST_*`.
///
/// # Errors
/// As [`grant_table_op`].
///
/// # Safety
/// Whoever keeps track of the table knows.
pub unsafe fn grant_swap(a: GrantRef, b: GrantRef) -> Result<i16, Errno> {
    let mut operation = GnttabSwapGrantRef { ref_a: a.0, ref_b: b.0, ..Default::default() };
    // SAFETY: the struct belongs to the command.
    unsafe { grant_table_op(GNTTABOP_SWAP_GRANT_REF, core::slice::from_mut(&mut operation)) }?;
    Ok(operation.status)
}

// ---- devices and control ----

/// Performs a `PHYSDEVOP_*` with its argument.
///
/// # Errors
/// Those of the operation.
///
/// # Safety
/// The argument is what the command takes, and what the device then does is allowed.
pub unsafe fn physdev_op<T>(command: u32, argument: &mut T) -> Result<u64, Errno> {
    // SAFETY: passed on to the caller.
    unsafe { call2(HYPERVISOR_PHYSDEV_OP, command.into(), address_mut(argument)) }
}

/// Sets the I/O privilege level: 1 lets the kernel reach the ports it may, 3 user mode too.
///
/// # Errors
/// `Inval`: more than 3.
pub fn physdev_set_iopl(iopl: u32) -> Result<(), Errno> {
    // SAFETY: the command reads its argument; a privilege level changes no memory.
    unsafe { physdev_op(PHYSDEVOP_SET_IOPL, &mut PhysdevSetIopl { iopl }) }.map(drop)
}

/// Performs a domain-control operation.
///
/// # Errors
/// Those of the operation; `Access`: the interface version is not the hypervisor's.
///
/// # Safety
/// Addresses in the payload are of memory that may be written as the operation says.
pub unsafe fn domctl(operation: &mut Domctl) -> Result<u64, Errno> {
    // SAFETY: passed on to the caller.
    Errno::result_of(unsafe { raw1(HYPERVISOR_DOMCTL, address_mut(operation)) })
}

/// Performs a system-control operation.
///
/// # Errors
/// Those of the operation; `Access`: the interface version is not the hypervisor's.
///
/// # Safety
/// Addresses in the payload are of memory that may be written as the operation says.
pub unsafe fn sysctl(operation: &mut Sysctl) -> Result<u64, Errno> {
    // SAFETY: passed on to the caller.
    Errno::result_of(unsafe { raw1(HYPERVISOR_SYSCTL, address_mut(operation)) })
}

/// Performs a platform operation.
///
/// # Errors
/// Those of the operation; `Access`: the interface version is not the hypervisor's.
///
/// # Safety
/// Addresses in the payload are of memory that may be written as the operation says.
pub unsafe fn platform_op(operation: &mut PlatformOp) -> Result<u64, Errno> {
    // SAFETY: passed on to the caller.
    Errno::result_of(unsafe { raw1(HYPERVISOR_PLATFORM_OP, address_mut(operation)) })
}

/// Performs an `HVMOP_*` with its argument.
///
/// # Errors
/// Those of the operation.
///
/// # Safety
/// The argument is what the command takes.
pub unsafe fn hvm_op<T>(command: u32, argument: &mut T) -> Result<u64, Errno> {
    // SAFETY: passed on to the caller.
    unsafe { call2(HYPERVISOR_HVM_OP, command.into(), address_mut(argument)) }
}

/// Performs several calls in one; each entry then holds its own result.
///
/// # Errors
/// `Inval` or `Fault`: the array cannot be accessed. The calls' own errors are in the entries.
///
/// # Safety
/// That of each call.
pub unsafe fn multicall(calls: &mut [MulticallEntry]) -> Result<(), Errno> {
    let (count, at) = (calls.len() as u64, address_mut(calls));
    // SAFETY: passed on to the caller.
    unsafe { call2(HYPERVISOR_MULTICALL, at, count) }.map(drop)
}

/// Returns from a handler: takes an [`IretContext`](crate::arch::IretContext) from the stack.
///
/// A kernel ends its handlers in assembly; this is for those that have the frame's address at hand.
///
/// # Safety
/// `frame` is such a frame on the current stack, and where it leads may run.
pub unsafe fn iret(frame: *const crate::arch::IretContext) -> ! {
    // SAFETY: the stack pointer is moved to the frame, which the caller vouches for; the call does not come back.
    unsafe {
        core::arch::asm!(
            "mov rsp, {frame}",
            "mov eax, {number}",
            "syscall",
            "ud2",
            frame = in(reg) frame,
            number = const HYPERVISOR_IRET,
            options(noreturn),
        )
    }
}

/// Calls `number` without arguments and splits the result; for calls this module has no function for.
///
/// # Errors
/// Those of the call.
///
/// # Safety
/// As [`raw0`].
pub unsafe fn call0(number: u64) -> Result<u64, Errno> {
    // SAFETY: passed on to the caller.
    Errno::result_of(unsafe { raw0(number) })
}
