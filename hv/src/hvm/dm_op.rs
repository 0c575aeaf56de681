//! `dm_op`: what a device model asks for the domain whose devices it emulates.
//!
//! Xen: public/hvm/dm_op.h.

use alloc::sync::Arc;

use pv_abi::DomId;
use pv_abi::errno::Errno;
use pv_abi::hvm::dm_op::{
    DmOp, DmOpBuf, DmOpCreateIoreqServer, DmOpDestroyIoreqServer, DmOpGetIoreqServerInfo, DmOpInjectMsi,
    DmOpIoreqServerRange, DmOpNrVcpus, DmOpRemoteShutdown, DmOpSetIoreqServerState, DmOpSetIsaIrqLevel,
    DmOpSetPciIntxLevel, DmOpSetPciLinkRoute, XEN_DMOP_CREATE_IOREQ_SERVER, XEN_DMOP_DESTROY_IOREQ_SERVER,
    XEN_DMOP_GET_IOREQ_SERVER_INFO, XEN_DMOP_INJECT_MSI, XEN_DMOP_IO_RANGE_MEMORY, XEN_DMOP_IO_RANGE_PCI,
    XEN_DMOP_IO_RANGE_PORT, XEN_DMOP_MAP_IO_RANGE_TO_IOREQ_SERVER, XEN_DMOP_NO_GFNS, XEN_DMOP_NR_VCPUS,
    XEN_DMOP_REMOTE_SHUTDOWN, XEN_DMOP_SET_IOREQ_SERVER_STATE, XEN_DMOP_SET_ISA_IRQ_LEVEL, XEN_DMOP_SET_PCI_INTX_LEVEL,
    XEN_DMOP_SET_PCI_LINK_ROUTE, XEN_DMOP_UNMAP_IO_RANGE_FROM_IOREQ_SERVER,
};
use pv_abi::hvm::{HVM_IOREQSRV_BUFIOREQ_ATOMIC, HVM_IOREQSRV_BUFIOREQ_OFF};

use super::ioreq::{self, Kind, Range};
use super::{HvmDomain, apic, platform};
use crate::call::Call;
use crate::domain::Domain;
use crate::hardware::Machine;
use crate::refusal::{Evidence, Refusal};
use crate::rules::{core as core_rules, hvm as rule};
use crate::sched;

/// The most buffers of an operation.
const BUFFERS: u64 = 2;

/// `dm_op(domain, count, buffers*)`.
///
/// # Errors
/// `E2BIG` for too many buffers, `EFAULT` for one that cannot be read or is too short; `ESRCH`, `EPERM`, `EINVAL` for a
/// domain that has no device model, an argument that names nothing; `EOPNOTSUPP` for an operation that there is not; those
/// of the operation.
pub fn dm_op<M: Machine>(call: &mut Call<'_, M>, args: [u64; 5]) -> Result<u64, Refusal> {
    let [named, count, buffers, ..] = args;
    if count & 0xffff_ffff > BUFFERS {
        return Err(Refusal::errno(Errno::TooBig, rule::BUFFERS).with(Evidence::Limit { asked: count, limit: BUFFERS }));
    }
    let domain = target(call, DomId(named as u16))?;
    let hvm = domain.hvm.as_ref();
    let not_hvm = || Refusal::errno(Errno::Inval, rule::DEVICE_MODEL).with(Evidence::Value(named));
    let hvm = hvm.ok_or_else(not_hvm)?;
    call.privileged()?;
    let buffer: DmOpBuf = if count as u32 == 0 { DmOpBuf::default() } else { call.read_element(buffers, 0)? };
    if buffer.size < size_of::<DmOp>() as u64 {
        return Err(Refusal::errno(Errno::Fault, rule::BUFFERS).with(Evidence::Value(buffer.size)));
    }
    let mut operation: DmOp = call.read(buffer.h)?;
    check(operation.pad == 0, u64::from(operation.pad))?;
    carry_out(call, (&domain, hvm), &mut operation)?;
    if matches!(operation.op, XEN_DMOP_CREATE_IOREQ_SERVER | XEN_DMOP_GET_IOREQ_SERVER_INFO | XEN_DMOP_NR_VCPUS) {
        call.write(buffer.h, &operation)?;
    }
    Ok(0)
}

/// The domain that is named, which is not the caller.
fn target<M: Machine>(call: &Call<'_, M>, named: DomId) -> Result<Arc<Domain>, Refusal> {
    let found = call.hv.domains.get(named);
    let missing = || Refusal::errno(Errno::Srch, core_rules::NO_SUCH_DOMAIN).with(Evidence::Value(named.0.into()));
    let domain = found.ok_or_else(missing)?;
    if domain.id == call.domain().id {
        return Err(Refusal::errno(Errno::Perm, rule::DEVICE_MODEL).with(Evidence::Value(named.0.into())));
    }
    Ok(domain)
}

fn check(holds: bool, value: u64) -> Result<(), Refusal> {
    let refusal = || Refusal::errno(Errno::Inval, rule::DEVICE_MODEL_ARGUMENT).with(Evidence::Value(value));
    if holds { Ok(()) } else { Err(refusal()) }
}

fn carry_out<M: Machine>(
    call: &Call<'_, M>,
    (domain, hvm): (&Arc<Domain>, &HvmDomain),
    operation: &mut DmOp,
) -> Result<(), Refusal> {
    let (hv, caller) = (call.hv, call.domain().id);
    match operation.op {
        XEN_DMOP_CREATE_IOREQ_SERVER => {
            let mut asked: DmOpCreateIoreqServer = operation.payload();
            check(asked.pad == [0; 3] && asked.handle_bufioreq <= HVM_IOREQSRV_BUFIOREQ_ATOMIC, 0)?;
            let buffered = asked.handle_bufioreq != HVM_IOREQSRV_BUFIOREQ_OFF;
            asked.id = ioreq::create(hv, domain, hvm, caller, buffered)?;
            operation.set_payload(&asked);
            Ok(())
        }
        XEN_DMOP_GET_IOREQ_SERVER_INFO => {
            let mut asked: DmOpGetIoreqServerInfo = operation.payload();
            check(asked.flags & !XEN_DMOP_NO_GFNS == 0, asked.flags.into())?;
            asked.bufioreq_port = ioreq::buffered_port(hvm, caller, asked.id)?;
            if asked.flags & XEN_DMOP_NO_GFNS == 0 {
                return Err(Refusal::errno(Errno::NoMem, rule::SERVER_MEMORY));
            }
            operation.set_payload(&asked);
            Ok(())
        }
        XEN_DMOP_MAP_IO_RANGE_TO_IOREQ_SERVER | XEN_DMOP_UNMAP_IO_RANGE_FROM_IOREQ_SERVER => {
            let asked: DmOpIoreqServerRange = operation.payload();
            let kind = match asked.type_ {
                XEN_DMOP_IO_RANGE_PORT => Some(Kind::Ports),
                XEN_DMOP_IO_RANGE_MEMORY => Some(Kind::Memory),
                XEN_DMOP_IO_RANGE_PCI => Some(Kind::Configuration),
                _ => None,
            };
            check(asked.pad == 0 && kind.is_some() && asked.start <= asked.end, asked.type_.into())?;
            let give = operation.op == XEN_DMOP_MAP_IO_RANGE_TO_IOREQ_SERVER;
            let range = Range { first: asked.start, last: asked.end };
            ioreq::set_range(hvm, caller, asked.id, kind.unwrap_or(Kind::Ports), range, give)
        }
        XEN_DMOP_SET_IOREQ_SERVER_STATE => {
            let asked: DmOpSetIoreqServerState = operation.payload();
            check(asked.pad == 0, asked.pad.into())?;
            ioreq::enable(hvm, caller, asked.id, asked.enabled != 0)
        }
        XEN_DMOP_DESTROY_IOREQ_SERVER => {
            let asked: DmOpDestroyIoreqServer = operation.payload();
            check(asked.pad == 0, asked.pad.into())?;
            ioreq::destroy(hv, domain, hvm, caller, asked.id)
        }
        XEN_DMOP_SET_ISA_IRQ_LEVEL => {
            let asked: DmOpSetIsaIrqLevel = operation.payload();
            check(asked.level <= 1 && asked.isa_irq <= 15, asked.isa_irq.into())?;
            platform::with(hv, domain, |chipset, _, send| chipset.set_isa_line(asked.isa_irq, asked.level != 0, send));
            Ok(())
        }
        XEN_DMOP_SET_PCI_INTX_LEVEL => {
            let DmOpSetPciIntxLevel { domain: segment, bus, device, intx, level } = operation.payload();
            check(segment == 0 && bus == 0 && device < 32 && intx < 4 && level <= 1, device.into())?;
            platform::with(hv, domain, |chipset, _, send| chipset.set_pci_pin(device, intx, level != 0, send));
            Ok(())
        }
        XEN_DMOP_SET_PCI_LINK_ROUTE => {
            let asked: DmOpSetPciLinkRoute = operation.payload();
            check(asked.link < 4 && asked.isa_irq <= 15, asked.link.into())?;
            platform::with(hv, domain, |chipset, _, send| chipset.set_link(asked.link, asked.isa_irq, send));
            Ok(())
        }
        XEN_DMOP_INJECT_MSI => {
            let asked: DmOpInjectMsi = operation.payload();
            check(asked.pad == 0, asked.pad.into())?;
            apic::message(hv, domain, asked.addr, asked.data);
            Ok(())
        }
        XEN_DMOP_REMOTE_SHUTDOWN => {
            let asked: DmOpRemoteShutdown = operation.payload();
            sched::shutdown(hv, domain, asked.reason);
            Ok(())
        }
        XEN_DMOP_NR_VCPUS => {
            let vcpus = domain.vcpus.get().map_or(0, |vcpus| vcpus.len() as u32);
            operation.set_payload(&DmOpNrVcpus { vcpus });
            Ok(())
        }
        other => {
            Err(Refusal::errno(Errno::OpNotSupp, rule::DEVICE_MODEL_OPERATION).with(Evidence::Value(other.into())))
        }
    }
}
