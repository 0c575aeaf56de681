//! The version, the emergency console, giving up the CPU.

use super::raw::{address, address_mut, call1, call2, call3};
use crate::errno::Errno;
use crate::sched::{
    SCHEDOP_BLOCK, SCHEDOP_POLL, SCHEDOP_SHUTDOWN, SCHEDOP_YIELD, SchedPoll, SchedShutdown, ShutdownReason,
};
use crate::version::{
    FeatureInfo, PlatformParameters, XEN_CAPABILITIES_INFO_LEN, XEN_EXTRAVERSION_LEN, XENVER_CAPABILITIES,
    XENVER_EXTRAVERSION, XENVER_GET_FEATURES, XENVER_PLATFORM_PARAMETERS, XENVER_VERSION,
};
use crate::xen::{
    CONSOLEIO_READ, CONSOLEIO_WRITE, HYPERVISOR_CONSOLE_IO, HYPERVISOR_SCHED_OP, HYPERVISOR_SET_TIMER_OP,
    HYPERVISOR_XEN_VERSION,
};

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
    unsafe { call1(HYPERVISOR_SET_TIMER_OP, timeout_ns) }.map(drop)
}
