//! What dom0 asks of the hypervisor, and why it is refused, on a fake machine.

mod domains;
mod machine;
mod vcpus;

use alloc::boxed::Box;
use alloc::sync::Arc;
use core::sync::atomic::Ordering;

use pv_abi::arch::{CpuidLeaf, MsrEntry, VGCF_IN_KERNEL, VGCF_ONLINE, VcpuGuestContext, xen_pfn_to_cr3};
use pv_abi::domctl::{self as dom, Domctl};
use pv_abi::errno::Errno;
use pv_abi::platform::{self as plat, PlatformOp};
use pv_abi::sysctl::{self as sys, Sysctl};
use pv_abi::version;
use pv_abi::xen::{self as number, CtlBitmap};
use pv_abi::{DomId, VcpuId};
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes};

use super::*;
use crate::domain::{Domain, VcpuState};
use crate::fake::{Bed, FakeMachine, Guest};
use crate::frames;
use crate::hardware::CpuidResult;
use crate::refusal::Refusal;
use crate::rules::Rule;
use crate::rules::control as rule;

type Handler = fn(&mut Call<'_, FakeMachine>, [u64; 5]) -> Result<u64, Refusal>;

/// Puts an operation into dom0's first frame and asks for it; gives the operation as it is afterwards.
fn ask<T>(bed: &Bed, guest: &mut Guest, hypercall: u64, operation: &T) -> (i64, T)
where
    T: FromBytes + IntoBytes + Immutable,
{
    let place = guest.address(0);
    guest.write(bed, place, operation);
    let result = guest.call(bed, hypercall, [place, 0, 0, 0, 0]);
    (result, guest.read(bed, place))
}

fn ask_domctl<P>(bed: &Bed, guest: &mut Guest, command: u32, domain: u16, payload: &P) -> (i64, Domctl)
where
    P: IntoBytes + Immutable,
{
    ask(bed, guest, number::HYPERVISOR_DOMCTL, &Domctl::with(command, domain, payload))
}

fn domctl_refused<P>(bed: &Bed, guest: &mut Guest, command: u32, domain: u16, payload: &P) -> (Rule, Option<Errno>)
where
    P: IntoBytes + Immutable,
{
    let place = guest.address(0);
    guest.write(bed, place, &Domctl::with(command, domain, payload));
    guest.refused(bed, domctl, [place, 0, 0, 0, 0])
}

fn sysctl_frame<P: IntoBytes + Immutable>(command: u32, payload: &P) -> Sysctl {
    let mut frame = Sysctl { cmd: command, interface_version: sys::XEN_SYSCTL_INTERFACE_VERSION, ..Default::default() };
    frame.set_payload(payload);
    frame
}

fn ask_sysctl<P: IntoBytes + Immutable>(bed: &Bed, guest: &mut Guest, command: u32, payload: &P) -> (i64, Sysctl) {
    ask(bed, guest, number::HYPERVISOR_SYSCTL, &sysctl_frame(command, payload))
}

fn sysctl_refused<P: IntoBytes + Immutable>(
    bed: &Bed,
    guest: &mut Guest,
    command: u32,
    payload: &P,
) -> (Rule, Option<Errno>) {
    let place = guest.address(0);
    guest.write(bed, place, &sysctl_frame(command, payload));
    guest.refused(bed, sysctl, [place, 0, 0, 0, 0])
}

fn request() -> dom::DomctlCreatedomain {
    dom::DomctlCreatedomain {
        handle: [7; 16],
        max_vcpus: 2,
        max_evtchn_port: 1023,
        max_grant_frames: -1,
        max_maptrack_frames: -1,
        grant_opts: 1,
        ..Default::default()
    }
}

/// Lets dom0 make a domain with two vCPUs and room for frames.
fn made(bed: &Bed, dom0: &mut Guest) -> Arc<Domain> {
    let (result, frame) = ask_domctl(bed, dom0, dom::XEN_DOMCTL_CREATEDOMAIN, 0, &request());
    assert_eq!(result, 0);
    let id = frame.domain;
    assert_eq!(ask_domctl(bed, dom0, dom::XEN_DOMCTL_MAX_VCPUS, id, &dom::DomctlMaxVcpus { max: 2 }).0, 0);
    assert_eq!(ask_domctl(bed, dom0, dom::XEN_DOMCTL_MAX_MEM, id, &dom::DomctlMaxMem { max_memkb: 4096 }).0, 0);
    bed.hv.domains.get(DomId(id)).unwrap()
}

/// A context that starts in kernel mode on a fresh root table of the domain.
fn context(bed: &Bed, domain: &Domain) -> Box<VcpuGuestContext> {
    let root = frames::allocate_domain_frame(&bed.hv, domain).unwrap();
    let mut context = Box::new(VcpuGuestContext::new_zeroed());
    context.flags = VGCF_IN_KERNEL | VGCF_ONLINE;
    context.ctrlreg[3] = xen_pfn_to_cr3(root.0);
    context.user_regs.rip = 0x1000;
    context.user_regs.rflags = 0x1000;
    context.user_regs.cs = 0xe030;
    context
}

fn set_context_by_domctl(bed: &Bed, dom0: &mut Guest, id: u16, vcpu: u32, context: &VcpuGuestContext) -> i64 {
    let place = dom0.address(2);
    dom0.write(bed, place, context);
    let payload = dom::DomctlVcpucontext { vcpu, ctxt: place, ..Default::default() };
    ask_domctl(bed, dom0, dom::XEN_DOMCTL_SETVCPUCONTEXT, id, &payload).0
}

fn platform_frame<P: IntoBytes + Immutable>(command: u32, payload: &P) -> PlatformOp {
    let mut frame = PlatformOp { cmd: command, interface_version: plat::XENPF_INTERFACE_VERSION, ..Default::default() };
    frame.set_payload(payload);
    frame
}
