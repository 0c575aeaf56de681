//! `domctl`: making, filling, starting, asking about and destroying domains.
//!
//! The frame of an operation is read once; each operation takes its own struct out of it, and where it answers puts it
//! back, which is then written to the caller. Source: Xen's `public/domctl.h`.

mod assisted;
mod info;
mod lifecycle;
mod permissions;
mod policy;
mod vcpu;

use alloc::sync::Arc;

use pv_abi::DomId;
use pv_abi::domctl::{self as abi, Domctl, XEN_DOMCTL_INTERFACE_VERSION};
use pv_abi::errno::Errno;

use crate::call::Call;
use crate::domain::Domain;
use crate::hardware::Machine;
use crate::refusal::{Evidence, Refusal};
use crate::rules::{control as rule, core as core_rule};

pub(super) use info::describe as describe_domain;
pub(super) use policy::{write_leaves, write_msrs};

/// What an operation did to its frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answer {
    /// Nothing.
    Done,
    /// It holds the answer, for the caller.
    Changed,
}

/// `domctl(operation*)`.
///
/// # Errors
/// `EPERM` for all but dom0, `EACCES` for another interface version, `EFAULT` for a bad pointer, `ESRCH` for a domain that
/// there is not, `ENOSYS` for an unknown command, and those of the operations.
pub fn domctl<M: Machine>(call: &mut Call<'_, M>, args: [u64; 5]) -> Result<u64, Refusal> {
    call.privileged()?;
    let mut frame: Domctl = call.read(args[0])?;
    if frame.interface_version != XEN_DOMCTL_INTERFACE_VERSION {
        let evidence = Evidence::Value(frame.interface_version.into());
        return Err(Refusal::errno(Errno::Access, rule::DOMCTL_VERSION).with(evidence));
    }
    let answer = match frame.cmd {
        abi::XEN_DOMCTL_CREATEDOMAIN => lifecycle::create(call, &mut frame)?,
        abi::XEN_DOMCTL_GETDOMAININFO => info::get(call, &mut frame)?,
        abi::XEN_DOMCTL_GETPAGEFRAMEINFO3 => {
            let domain = named(call, &frame)?;
            info::page_frames(call, &domain, &frame.payload(), args)?
        }
        _ => {
            let domain = named(call, &frame)?;
            on_domain(call, &mut frame, &domain)?
        }
    };
    if answer == Answer::Changed {
        call.write(args[0], &frame)?;
    }
    Ok(0)
}

/// The domain that the frame names: its number, or that of the caller.
fn named<M: Machine>(call: &Call<'_, M>, frame: &Domctl) -> Result<Arc<Domain>, Refusal> {
    let id = DomId(frame.domain);
    call.hv
        .domains
        .get(id)
        .ok_or_else(|| Refusal::errno(Errno::Srch, core_rule::NO_SUCH_DOMAIN).with(Evidence::Value(id.0.into())))
}

fn on_domain<M: Machine>(call: &mut Call<'_, M>, frame: &mut Domctl, domain: &Arc<Domain>) -> Result<Answer, Refusal> {
    match frame.cmd {
        abi::XEN_DOMCTL_DESTROYDOMAIN => lifecycle::destroy(call, domain),
        abi::XEN_DOMCTL_PAUSEDOMAIN => lifecycle::pause(call, domain),
        abi::XEN_DOMCTL_UNPAUSEDOMAIN => lifecycle::unpause(call, domain),
        abi::XEN_DOMCTL_RESUMEDOMAIN => lifecycle::resume(call, domain),
        abi::XEN_DOMCTL_MAX_MEM => Ok(lifecycle::max_memory(domain, &frame.payload())),
        abi::XEN_DOMCTL_MAX_VCPUS => lifecycle::max_vcpus(call, domain, &frame.payload()),
        abi::XEN_DOMCTL_SETDOMAINHANDLE => Ok(lifecycle::set_handle(domain, &frame.payload())),
        abi::XEN_DOMCTL_SETDEBUGGING => lifecycle::not_own(call, domain).map(|()| Answer::Done),
        abi::XEN_DOMCTL_SETTIMEOFFSET => Ok(lifecycle::set_time_offset(call, domain, &frame.payload())),
        abi::XEN_DOMCTL_HYPERCALL_INIT => lifecycle::hypercall_page(call, domain, &frame.payload()),
        abi::XEN_DOMCTL_SET_ADDRESS_SIZE => lifecycle::set_address_size(&frame.payload()),
        abi::XEN_DOMCTL_GET_ADDRESS_SIZE => {
            frame.set_payload(&abi::DomctlAddressSize { size: 64 });
            Ok(Answer::Changed)
        }
        abi::XEN_DOMCTL_SENDTRIGGER => vcpu::send_trigger(call, domain, &frame.payload()),
        abi::XEN_DOMCTL_SETVCPUCONTEXT => vcpu::set_context(call, domain, &frame.payload()),
        abi::XEN_DOMCTL_GETVCPUCONTEXT => vcpu::get_context(call, domain, &frame.payload()),
        abi::XEN_DOMCTL_GETVCPUINFO => vcpu::get_info(call, domain, frame),
        abi::XEN_DOMCTL_SETVCPUAFFINITY => vcpu::set_affinity(call, domain, &frame.payload()),
        abi::XEN_DOMCTL_GETVCPUAFFINITY => vcpu::get_affinity(call, domain, &frame.payload()),
        abi::XEN_DOMCTL_SET_EXT_VCPUCONTEXT => vcpu::set_extended(call, domain, &frame.payload()),
        abi::XEN_DOMCTL_GET_EXT_VCPUCONTEXT => vcpu::get_extended(call, domain, frame),
        abi::XEN_DOMCTL_SETVCPUEXTSTATE => vcpu::set_state(call, domain, &frame.payload()),
        abi::XEN_DOMCTL_GETVCPUEXTSTATE => vcpu::get_state(call, domain, frame),
        abi::XEN_DOMCTL_GET_VCPU_MSRS => vcpu::get_msrs(call, domain, frame),
        abi::XEN_DOMCTL_SET_VCPU_MSRS => vcpu::set_msrs(call, domain, &frame.payload()),
        _ => other(call, frame, domain),
    }
}

fn other<M: Machine>(call: &mut Call<'_, M>, frame: &mut Domctl, domain: &Arc<Domain>) -> Result<Answer, Refusal> {
    match frame.cmd {
        abi::XEN_DOMCTL_SCHEDULER_OP => info::scheduler(domain, frame),
        abi::XEN_DOMCTL_SETNODEAFFINITY => Ok(Answer::Done),
        abi::XEN_DOMCTL_GETNODEAFFINITY => {
            let nodes: abi::DomctlNodeaffinity = frame.payload();
            write_bits(call, &nodes.nodemap, 1)?;
            Ok(Answer::Done)
        }
        abi::XEN_DOMCTL_GETTSCINFO => Ok(info::get_tsc(call, domain, frame)),
        abi::XEN_DOMCTL_SETTSCINFO => Ok(info::set_tsc(domain, &frame.payload())),
        abi::XEN_DOMCTL_SETHVMCONTEXT
        | abi::XEN_DOMCTL_GETHVMCONTEXT
        | abi::XEN_DOMCTL_GETHVMCONTEXT_PARTIAL
        | abi::XEN_DOMCTL_SHADOW_OP
        | abi::XEN_DOMCTL_SET_PAGING_MEMPOOL_SIZE
        | abi::XEN_DOMCTL_GET_PAGING_MEMPOOL_SIZE => assisted::operate(call, domain, frame),
        abi::XEN_DOMCTL_IRQ_PERMISSION => permissions::interrupt(call, domain, &frame.payload()),
        abi::XEN_DOMCTL_IOMEM_PERMISSION => permissions::memory(call, domain, &frame.payload()),
        abi::XEN_DOMCTL_IOPORT_PERMISSION => permissions::ports(call, domain, &frame.payload()),
        abi::XEN_DOMCTL_SET_VIRQ_HANDLER => info::set_virq_handler(domain, &frame.payload()),
        abi::XEN_DOMCTL_GET_CPU_POLICY => policy::get(call, domain, frame),
        abi::XEN_DOMCTL_SET_CPU_POLICY => policy::set(call, domain, frame),
        abi::XEN_DOMCTL_ASSIGN_DEVICE
        | abi::XEN_DOMCTL_TEST_ASSIGN_DEVICE
        | abi::XEN_DOMCTL_DEASSIGN_DEVICE
        | abi::XEN_DOMCTL_GET_DEVICE_GROUP => Err(Refusal::errno(Errno::OpNotSupp, rule::NO_IOMMU)),
        command => {
            Err(Refusal::errno(Errno::NoSys, core_rule::UNKNOWN_OPERATION).with(Evidence::Value(command.into())))
        }
    }
}

/// Writes a bitmap of at most 64 bits; the caller's further bits are zero.
pub(super) fn write_bits<M: Machine>(
    call: &Call<'_, M>,
    to: &pv_abi::xen::CtlBitmap,
    bits: u64,
) -> Result<(), Refusal> {
    let bits = if to.nr_bits < 64 { bits & !(u64::MAX << to.nr_bits) } else { bits };
    let len = to.nr_bits.div_ceil(8).min(8192) as usize;
    let known = bits.to_le_bytes();
    call.write(to.bitmap, &known[..len.min(8)])?;
    for n in 8..len {
        call.write(to.bitmap + n as u64, &0_u8)?;
    }
    Ok(())
}

/// Reads the first 64 bits of a bitmap.
fn read_bits<M: Machine>(call: &Call<'_, M>, from: &pv_abi::xen::CtlBitmap) -> Result<u64, Refusal> {
    let mut bytes = [0; 8];
    let bits = from.nr_bits.min(64);
    call.read_bytes(from.bitmap, &mut bytes[..bits.div_ceil(8) as usize])?;
    let mask = if bits == 64 { u64::MAX } else { !(u64::MAX << bits) };
    Ok(u64::from_le_bytes(bytes) & mask)
}
