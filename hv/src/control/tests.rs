//! What dom0 asks of the hypervisor, and why it is refused, on a fake machine.

use alloc::boxed::Box;
use alloc::sync::Arc;
use core::sync::atomic::Ordering;

use pv_abi::arch::{
    CpuidLeaf, MsrEntry, VGCF_IN_KERNEL, VGCF_ONLINE, VcpuGuestContext, xen_pfn_to_cr3,
};
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

fn refused(
    bed: &Bed,
    guest: &mut Guest,
    handler: Handler,
    args: [u64; 5],
) -> (Rule, Option<Errno>) {
    guest.enter(bed);
    let mut call = Call {
        hv: &bed.hv,
        running: &mut guest.running,
        registers: &mut guest.registers,
        next_arguments: None,
        in_multicall: false,
    };
    let refusal = handler(&mut call, args).unwrap_err();
    (refusal.rule, refusal.as_errno())
}

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

fn ask_domctl<P>(
    bed: &Bed,
    guest: &mut Guest,
    command: u32,
    domain: u16,
    payload: &P,
) -> (i64, Domctl)
where
    P: IntoBytes + Immutable,
{
    ask(
        bed,
        guest,
        number::HYPERVISOR_DOMCTL,
        &Domctl::with(command, domain, payload),
    )
}

fn domctl_refused<P>(
    bed: &Bed,
    guest: &mut Guest,
    command: u32,
    domain: u16,
    payload: &P,
) -> (Rule, Option<Errno>)
where
    P: IntoBytes + Immutable,
{
    let place = guest.address(0);
    guest.write(bed, place, &Domctl::with(command, domain, payload));
    refused(bed, guest, domctl, [place, 0, 0, 0, 0])
}

fn sysctl_frame<P: IntoBytes + Immutable>(command: u32, payload: &P) -> Sysctl {
    let mut frame = Sysctl {
        cmd: command,
        interface_version: sys::XEN_SYSCTL_INTERFACE_VERSION,
        ..Default::default()
    };
    frame.set_payload(payload);
    frame
}

fn ask_sysctl<P: IntoBytes + Immutable>(
    bed: &Bed,
    guest: &mut Guest,
    command: u32,
    payload: &P,
) -> (i64, Sysctl) {
    ask(
        bed,
        guest,
        number::HYPERVISOR_SYSCTL,
        &sysctl_frame(command, payload),
    )
}

fn sysctl_refused<P: IntoBytes + Immutable>(
    bed: &Bed,
    guest: &mut Guest,
    command: u32,
    payload: &P,
) -> (Rule, Option<Errno>) {
    let place = guest.address(0);
    guest.write(bed, place, &sysctl_frame(command, payload));
    refused(bed, guest, sysctl, [place, 0, 0, 0, 0])
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
    assert_eq!(
        ask_domctl(
            bed,
            dom0,
            dom::XEN_DOMCTL_MAX_VCPUS,
            id,
            &dom::DomctlMaxVcpus { max: 2 }
        )
        .0,
        0
    );
    assert_eq!(
        ask_domctl(
            bed,
            dom0,
            dom::XEN_DOMCTL_MAX_MEM,
            id,
            &dom::DomctlMaxMem { max_memkb: 4096 }
        )
        .0,
        0
    );
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

fn set_context_by_domctl(
    bed: &Bed,
    dom0: &mut Guest,
    id: u16,
    vcpu: u32,
    context: &VcpuGuestContext,
) -> i64 {
    let place = dom0.address(2);
    dom0.write(bed, place, context);
    let payload = dom::DomctlVcpucontext {
        vcpu,
        ctxt: place,
        ..Default::default()
    };
    ask_domctl(bed, dom0, dom::XEN_DOMCTL_SETVCPUCONTEXT, id, &payload).0
}

#[test]
fn only_dom0_controls() {
    let bed = Bed::new(256);
    let mut guest = bed.guest(1, 2);
    let place = guest.address(0);
    for handler in [domctl as Handler, sysctl, platform_op] {
        let (rule, errno) = refused(&bed, &mut guest, handler, [place, 0, 0, 0, 0]);
        assert_eq!(
            (rule, errno),
            (crate::rules::core::PRIVILEGED, Some(Errno::Perm))
        );
    }
}

#[test]
fn another_interface_version_is_refused() {
    let bed = Bed::new(256);
    let mut dom0 = bed.guest(0, 2);
    let place = dom0.address(0);
    dom0.write(
        &bed,
        place,
        &Domctl {
            interface_version: 0x14,
            ..Domctl::new(2, 1)
        },
    );
    let domctl_version = refused(&bed, &mut dom0, domctl, [place, 0, 0, 0, 0]);
    assert_eq!(domctl_version, (rule::DOMCTL_VERSION, Some(Errno::Access)));
    dom0.write(&bed, place, &Sysctl::default());
    assert_eq!(
        refused(&bed, &mut dom0, sysctl, [place, 0, 0, 0, 0]),
        (rule::SYSCTL_VERSION, Some(Errno::Access))
    );
    dom0.write(&bed, place, &PlatformOp::default());
    let platform_version = refused(&bed, &mut dom0, platform_op, [place, 0, 0, 0, 0]);
    assert_eq!(
        platform_version,
        (rule::PLATFORM_VERSION, Some(Errno::Access))
    );
}

#[test]
fn a_domain_is_made_filled_started_and_destroyed() {
    let bed = Bed::new(512);
    let mut dom0 = bed.guest(0, 6);
    let before = bed.hv.allocator.lock().free_count();
    let domain = made(&bed, &mut dom0);
    let id = domain.id.0;
    assert_eq!((id, domain.vcpus.get().unwrap().len()), (1, 2));
    let context = context(&bed, &domain);
    assert_eq!(set_context_by_domctl(&bed, &mut dom0, id, 0, &context), 0);
    let info: dom::DomctlGetdomaininfo = ask_domctl(
        &bed,
        &mut dom0,
        dom::XEN_DOMCTL_GETDOMAININFO,
        1,
        &[0_u8; 1],
    )
    .1
    .payload();
    assert_eq!(
        (
            info.domain,
            info.handle,
            info.nr_online_vcpus,
            info.max_vcpu_id
        ),
        (1, [7; 16], 1, 1)
    );
    assert!(info.flags & dom::XEN_DOMINF_PAUSED != 0);
    assert_eq!(
        ask_domctl(
            &bed,
            &mut dom0,
            dom::XEN_DOMCTL_UNPAUSEDOMAIN,
            id,
            &[0_u8; 1]
        )
        .0,
        0
    );
    assert!(domain.vcpu(VcpuId(0)).unwrap().is_runnable());
    drop(domain);
    assert_eq!(
        ask_domctl(
            &bed,
            &mut dom0,
            dom::XEN_DOMCTL_DESTROYDOMAIN,
            id,
            &[0_u8; 1]
        )
        .0,
        0
    );
    assert!(bed.hv.domains.get(DomId(1)).is_none());
    assert_eq!(bed.hv.allocator.lock().free_count(), before);
    let gone = domctl_refused(
        &bed,
        &mut dom0,
        dom::XEN_DOMCTL_DESTROYDOMAIN,
        id,
        &[0_u8; 1],
    );
    assert_eq!(
        gone,
        (crate::rules::core::NO_SUCH_DOMAIN, Some(Errno::Srch))
    );
}

#[test]
fn destroying_goes_on_after_each_interrupt() {
    let bed = Bed::new(512);
    let mut dom0 = bed.guest(0, 6);
    let before = bed.hv.allocator.lock().free_count();
    let domain = made(&bed, &mut dom0);
    let context = context(&bed, &domain);
    assert_eq!(set_context_by_domctl(&bed, &mut dom0, 1, 0, &context), 0);
    for _ in 0..20 {
        frames::allocate_domain_frame(&bed.hv, &domain).unwrap();
    }
    bed.hv.machine.interrupt_after(Some(0));
    assert_eq!(
        ask_domctl(
            &bed,
            &mut dom0,
            dom::XEN_DOMCTL_DESTROYDOMAIN,
            1,
            &[0_u8; 1]
        )
        .0,
        0
    );
    assert!(dom0.continued > 20, "{}", dom0.continued);
    assert_eq!(bed.hv.allocator.lock().free_count(), before);
}

#[test]
fn numbers_are_given_out_in_turn() {
    let bed = Bed::new(256);
    let mut dom0 = bed.guest(0, 4);
    for expected in 1..4 {
        let (_, frame) = ask_domctl(&bed, &mut dom0, dom::XEN_DOMCTL_CREATEDOMAIN, 0, &request());
        assert_eq!(frame.domain, expected);
        ask_domctl(
            &bed,
            &mut dom0,
            dom::XEN_DOMCTL_DESTROYDOMAIN,
            expected,
            &[0_u8; 1],
        );
    }
    let (_, frame) = ask_domctl(
        &bed,
        &mut dom0,
        dom::XEN_DOMCTL_CREATEDOMAIN,
        77,
        &request(),
    );
    assert_eq!(frame.domain, 77);
    let taken = domctl_refused(
        &bed,
        &mut dom0,
        dom::XEN_DOMCTL_CREATEDOMAIN,
        77,
        &request(),
    );
    assert_eq!(taken, (rule::DOMAIN_EXISTS, Some(Errno::Exist)));
}

#[test]
fn domains_that_cannot_be_are_not_made() {
    let bed = Bed::new(64);
    let mut dom0 = bed.guest(0, 2);
    let mut create = |change: fn(&mut dom::DomctlCreatedomain)| {
        let mut request = request();
        change(&mut request);
        domctl_refused(&bed, &mut dom0, dom::XEN_DOMCTL_CREATEDOMAIN, 0, &request)
    };
    let kind = (rule::DOMAIN_KIND, Some(Errno::Inval));
    assert_eq!(
        create(|request| request.flags = dom::XEN_DOMCTL_CDF_HVM),
        kind
    );
    assert_eq!(create(|request| request.cpupool_id = 1), kind);
    assert_eq!(create(|request| request.arch.emulation_flags = 1), kind);
    assert_eq!(
        create(|request| request.max_vcpus = 33),
        (rule::VCPU_COUNT, Some(Errno::Inval))
    );
    assert_eq!(
        create(|request| request.grant_opts = 2),
        (rule::GRANT_VERSION, Some(Errno::Inval))
    );
    while frames::allocate(&bed.hv, 0).is_some() {}
    assert_eq!(
        create(|_| ()),
        (rule::NO_MEMORY_FOR_DOMAIN, Some(Errno::NoMem))
    );
}

#[test]
fn a_domain_keeps_the_number_of_vcpus_it_was_made_for() {
    let bed = Bed::new(256);
    let mut dom0 = bed.guest(0, 2);
    made(&bed, &mut dom0);
    let payload = dom::DomctlMaxVcpus { max: 1 };
    let refused = domctl_refused(&bed, &mut dom0, dom::XEN_DOMCTL_MAX_VCPUS, 1, &payload);
    assert_eq!(refused, (rule::VCPU_COUNT, Some(Errno::Inval)));
}

#[test]
fn pauses_are_counted() {
    let bed = Bed::new(256);
    let mut dom0 = bed.guest(0, 2);
    let domain = made(&bed, &mut dom0);
    let mut ask = |command| ask_domctl(&bed, &mut dom0, command, 1, &[0_u8; 1]).0;
    assert_eq!(ask(dom::XEN_DOMCTL_PAUSEDOMAIN), 0);
    assert_eq!(ask(dom::XEN_DOMCTL_UNPAUSEDOMAIN), 0);
    assert_eq!(domain.pause_count.load(Ordering::Acquire), 1);
    assert_eq!(ask(dom::XEN_DOMCTL_UNPAUSEDOMAIN), 0);
    assert_eq!(domain.pause_count.load(Ordering::Acquire), 0);
    let refused = domctl_refused(
        &bed,
        &mut dom0,
        dom::XEN_DOMCTL_UNPAUSEDOMAIN,
        1,
        &[0_u8; 1],
    );
    assert_eq!(refused, (rule::NOT_PAUSED, Some(Errno::Inval)));
    domain.lifecycle.lock().paused_by_control = true;
    domain.lifecycle.lock().further_pauses = 254;
    let refused = domctl_refused(&bed, &mut dom0, dom::XEN_DOMCTL_PAUSEDOMAIN, 1, &[0_u8; 1]);
    assert_eq!(refused.0, rule::TOO_MANY_PAUSES);
}

#[test]
fn dom0_neither_destroys_nor_pauses_itself() {
    let bed = Bed::new(256);
    let mut dom0 = bed.guest(0, 2);
    for command in [
        dom::XEN_DOMCTL_DESTROYDOMAIN,
        dom::XEN_DOMCTL_PAUSEDOMAIN,
        dom::XEN_DOMCTL_RESUMEDOMAIN,
    ] {
        let refused = domctl_refused(&bed, &mut dom0, command, 0, &[0_u8; 1]);
        assert_eq!(refused, (rule::DESTROY_SELF, Some(Errno::Inval)));
    }
}

#[test]
fn getdomaininfo_gives_the_next_domain_there_is() {
    let bed = Bed::new(256);
    let mut dom0 = bed.guest(0, 4);
    let _five = bed.domain(5, 1);
    let (_, frame) = ask_domctl(
        &bed,
        &mut dom0,
        dom::XEN_DOMCTL_GETDOMAININFO,
        3,
        &[0_u8; 1],
    );
    assert_eq!(frame.domain, 5);
    let none = domctl_refused(
        &bed,
        &mut dom0,
        dom::XEN_DOMCTL_GETDOMAININFO,
        6,
        &[0_u8; 1],
    );
    assert_eq!(
        none,
        (crate::rules::core::NO_SUCH_DOMAIN, Some(Errno::Srch))
    );
}

#[test]
fn a_context_comes_back_as_it_was_set() {
    let bed = Bed::new(512);
    let mut dom0 = bed.guest(0, 6);
    let domain = made(&bed, &mut dom0);
    let mut context = context(&bed, &domain);
    context.user_regs.rax = 0x1122;
    context.trap_ctxt[14].address = 0x7000;
    context.fs_base = 0x8000;
    context.event_callback_eip = 0x9000;
    assert_eq!(set_context_by_domctl(&bed, &mut dom0, 1, 0, &context), 0);
    let place = dom0.address(2);
    let payload = dom::DomctlVcpucontext {
        vcpu: 0,
        ctxt: place,
        ..Default::default()
    };
    assert_eq!(
        ask_domctl(&bed, &mut dom0, dom::XEN_DOMCTL_GETVCPUCONTEXT, 1, &payload).0,
        0
    );
    let back: Box<VcpuGuestContext> = Box::new(dom0.read(&bed, place));
    assert_eq!(
        (back.user_regs.rax, back.user_regs.rip, back.user_regs.cs),
        (0x1122, 0x1000, 0xe033)
    );
    assert_eq!(
        (back.ctrlreg[3], back.trap_ctxt[14].address),
        (context.ctrlreg[3], 0x7000)
    );
    assert_eq!(
        back.user_regs.rflags & 0x3200,
        0x1200,
        "interrupts on, the guest's privilege level shown"
    );
    assert_eq!(
        (back.fs_base, back.event_callback_eip, back.ctrlreg[0]),
        (0x8000, 0x9000, 0x8005_0033)
    );
    assert!(
        domain
            .vcpu(VcpuId(0))
            .unwrap()
            .initialised
            .load(Ordering::Acquire)
    );
    context.user_regs.rax = 1;
    assert_eq!(
        set_context_by_domctl(&bed, &mut dom0, 1, 0, &context),
        0,
        "the same tables may be set again"
    );
    context.ctrlreg[3] = 0;
    assert_eq!(
        set_context_by_domctl(&bed, &mut dom0, 1, 0, &context),
        Errno::OpNotSupp.as_return()
    );
}

#[test]
fn contexts_that_cannot_be_are_refused_whole() {
    let bed = Bed::new(512);
    let mut dom0 = bed.guest(0, 6);
    let domain = made(&bed, &mut dom0);
    let good = context(&bed, &domain);
    let vcpu = domain.vcpu(VcpuId(1)).unwrap();
    let refuse = |change: fn(&mut VcpuGuestContext)| {
        let mut context = good.clone();
        change(&mut context);
        let refusal = set_context(&bed.hv, vcpu, &context).unwrap_err();
        (refusal.rule, refusal.as_errno())
    };
    let bad = (rule::CONTEXT, Some(Errno::Inval));
    assert_eq!(refuse(|context| context.user_regs.rip = 1 << 47), bad);
    assert_eq!(refuse(|context| context.gs_base_kernel = 1 << 47), bad);
    assert_eq!(
        refuse(|context| context.trap_ctxt[3].address = 1 << 47),
        bad
    );
    assert_eq!(refuse(|context| context.ldt_ents = 8193), bad);
    assert_eq!(refuse(|context| context.flags = 0), bad);
    assert_eq!(
        refuse(|context| context.gdt_ents = 7169).0,
        crate::rules::traps::GDT_TOO_LONG
    );
    assert_eq!(
        refuse(|context| context.debugreg[7] = 1 << 13).0,
        crate::rules::traps::DEBUG_CONTROL
    );
    assert_eq!(
        refuse(|context| context.ctrlreg[3] = xen_pfn_to_cr3(400)).1,
        Some(Errno::Inval)
    );
    assert!(!vcpu.initialised.load(Ordering::Acquire));
    assert!(vcpu.state.lock().as_ref().unwrap().kernel_root.is_none());
    let state = vcpu.state.lock().take();
    assert_eq!(
        set_context(&bed.hv, vcpu, &good).unwrap_err().rule,
        rule::VCPU_RUNS
    );
    *vcpu.state.lock() = state;
}

#[test]
fn a_vcpu_without_a_context_has_none_to_give() {
    let bed = Bed::new(256);
    let mut dom0 = bed.guest(0, 2);
    made(&bed, &mut dom0);
    let payload = dom::DomctlVcpucontext {
        vcpu: 0,
        ctxt: dom0.address(1),
        ..Default::default()
    };
    let refused = domctl_refused(&bed, &mut dom0, dom::XEN_DOMCTL_GETVCPUCONTEXT, 1, &payload);
    assert_eq!(refused, (rule::VCPU_WITHOUT_CONTEXT, Some(Errno::NoData)));
    let payload = dom::DomctlVcpucontext { vcpu: 2, ..payload };
    let refused = domctl_refused(&bed, &mut dom0, dom::XEN_DOMCTL_GETVCPUCONTEXT, 1, &payload);
    assert_eq!(refused, (rule::NO_SUCH_VCPU, Some(Errno::Inval)));
}

#[test]
fn small_operations_answer_as_toolstacks_expect() {
    let bed = Bed::new(256);
    let mut dom0 = bed.guest(0, 2);
    let domain = made(&bed, &mut dom0);
    let size = dom::DomctlAddressSize { size: 32 };
    let refused = domctl_refused(&bed, &mut dom0, dom::XEN_DOMCTL_SET_ADDRESS_SIZE, 1, &size);
    assert_eq!(refused, (rule::ADDRESS_SIZE, Some(Errno::Inval)));
    let (_, frame) = ask_domctl(&bed, &mut dom0, dom::XEN_DOMCTL_GET_ADDRESS_SIZE, 1, &size);
    assert_eq!(frame.payload::<dom::DomctlAddressSize>().size, 64);
    let shadow = dom::DomctlShadowOp::default();
    let refused = domctl_refused(&bed, &mut dom0, dom::XEN_DOMCTL_SHADOW_OP, 1, &shadow);
    assert_eq!(refused, (rule::LOG_DIRTY, Some(Errno::Inval)));
    let refused = domctl_refused(
        &bed,
        &mut dom0,
        dom::XEN_DOMCTL_ASSIGN_DEVICE,
        1,
        &[0_u8; 1],
    );
    assert_eq!(refused, (rule::NO_IOMMU, Some(Errno::OpNotSupp)));
    let trigger = dom::DomctlSendtrigger {
        trigger: 2,
        vcpu: 0,
    };
    let refused = domctl_refused(&bed, &mut dom0, dom::XEN_DOMCTL_SENDTRIGGER, 1, &trigger);
    assert_eq!(refused, (rule::TRIGGER, Some(Errno::NoSys)));
    let handler = dom::DomctlSetVirqHandler { virq: 3 };
    let refused = domctl_refused(
        &bed,
        &mut dom0,
        dom::XEN_DOMCTL_SET_VIRQ_HANDLER,
        1,
        &handler,
    );
    assert_eq!(refused, (rule::VIRQ_HANDLER, Some(Errno::Inval)));
    let page = dom::DomctlHypercallInit { gmfn: 3 };
    let refused = domctl_refused(&bed, &mut dom0, dom::XEN_DOMCTL_HYPERCALL_INIT, 1, &page);
    assert_eq!(refused, (rule::HYPERCALL_PAGE_FRAME, Some(Errno::Access)));
    let own = frames::allocate_domain_frame(&bed.hv, &domain).unwrap();
    let page = dom::DomctlHypercallInit { gmfn: own.0 };
    assert_eq!(
        ask_domctl(&bed, &mut dom0, dom::XEN_DOMCTL_HYPERCALL_INIT, 1, &page).0,
        0
    );
    assert_eq!(bed.hv.machine.read_byte(own, 0), 0x51);
}

#[test]
fn weights_are_credit2s() {
    let bed = Bed::new(256);
    let mut dom0 = bed.guest(0, 2);
    let domain = made(&bed, &mut dom0);
    let mut put = dom::DomctlSchedulerOp {
        sched_id: 6,
        cmd: 0,
        ..Default::default()
    };
    put.u[..2].copy_from_slice(&512_u16.to_le_bytes());
    assert_eq!(
        ask_domctl(&bed, &mut dom0, dom::XEN_DOMCTL_SCHEDULER_OP, 1, &put).0,
        0
    );
    assert_eq!(domain.weight.load(Ordering::Relaxed), 512);
    let get = dom::DomctlSchedulerOp {
        sched_id: 6,
        cmd: 1,
        ..Default::default()
    };
    let (_, frame) = ask_domctl(&bed, &mut dom0, dom::XEN_DOMCTL_SCHEDULER_OP, 1, &get);
    assert_eq!(
        frame.payload::<dom::DomctlSchedulerOp>().u[..4],
        [0, 2, 0, 0]
    );
    let other = dom::DomctlSchedulerOp { sched_id: 5, ..get };
    let refused = domctl_refused(&bed, &mut dom0, dom::XEN_DOMCTL_SCHEDULER_OP, 1, &other);
    assert_eq!(refused, (rule::SCHEDULER, Some(Errno::Inval)));
}

#[test]
fn an_affinity_keeps_to_cpus_that_there_are() {
    let bed = Bed::new(256);
    let mut dom0 = bed.guest(0, 2);
    made(&bed, &mut dom0);
    let place = dom0.address(1);
    let map = CtlBitmap {
        bitmap: place,
        nr_bits: 64,
        ..Default::default()
    };
    let payload = dom::DomctlVcpuaffinity {
        flags: dom::XEN_VCPUAFFINITY_HARD,
        cpumap_hard: map,
        ..Default::default()
    };
    dom0.write(&bed, place, &0x5_u64);
    assert_eq!(
        ask_domctl(
            &bed,
            &mut dom0,
            dom::XEN_DOMCTL_SETVCPUAFFINITY,
            1,
            &payload
        )
        .0,
        0
    );
    assert_eq!(dom0.read::<u64>(&bed, place), 1);
    assert_eq!(
        ask_domctl(
            &bed,
            &mut dom0,
            dom::XEN_DOMCTL_GETVCPUAFFINITY,
            1,
            &payload
        )
        .0,
        0
    );
    assert_eq!(dom0.read::<u64>(&bed, place), 5);
    dom0.write(&bed, place, &0x4_u64);
    let refused = domctl_refused(
        &bed,
        &mut dom0,
        dom::XEN_DOMCTL_SETVCPUAFFINITY,
        1,
        &payload,
    );
    assert_eq!(refused, (rule::AFFINITY, Some(Errno::Inval)));
}

#[test]
fn permissions_are_given_from_what_dom0_has() {
    let bed = Bed::new(256);
    let mut dom0 = bed.guest(0, 2);
    let domain = made(&bed, &mut dom0);
    let ports = |first_port, nr_ports| dom::DomctlIoportPermission {
        first_port,
        nr_ports,
        allow_access: 1,
        ..Default::default()
    };
    assert_eq!(
        ask_domctl(
            &bed,
            &mut dom0,
            dom::XEN_DOMCTL_IOPORT_PERMISSION,
            1,
            &ports(0x2f8, 8)
        )
        .0,
        0
    );
    assert!(domain.permissions.lock().allows_ports(0x2f8, 4));
    let refused = domctl_refused(
        &bed,
        &mut dom0,
        dom::XEN_DOMCTL_IOPORT_PERMISSION,
        1,
        &ports(0xffff, 2),
    );
    assert_eq!(refused, (rule::PERMISSION_RANGE, Some(Errno::Inval)));
    let refused = domctl_refused(
        &bed,
        &mut dom0,
        dom::XEN_DOMCTL_IOPORT_PERMISSION,
        1,
        &ports(0x20, 1),
    );
    assert_eq!(refused, (rule::PERMISSION_OWN, Some(Errno::Perm)));
    let memory = dom::DomctlIomemPermission {
        first_mfn: 0xfebf0,
        nr_mfns: 1,
        allow_access: 1,
        ..Default::default()
    };
    assert_eq!(
        ask_domctl(
            &bed,
            &mut dom0,
            dom::XEN_DOMCTL_IOMEM_PERMISSION,
            1,
            &memory
        )
        .0,
        0
    );
    let memory = dom::DomctlIomemPermission {
        nr_mfns: u64::MAX,
        ..memory
    };
    let refused = domctl_refused(
        &bed,
        &mut dom0,
        dom::XEN_DOMCTL_IOMEM_PERMISSION,
        1,
        &memory,
    );
    assert_eq!(refused.0, rule::PERMISSION_RANGE);
    let line = dom::DomctlIrqPermission {
        pirq: 5,
        allow_access: 1,
        ..Default::default()
    };
    assert_eq!(
        ask_domctl(&bed, &mut dom0, dom::XEN_DOMCTL_IRQ_PERMISSION, 1, &line).0,
        0
    );
    assert!(domain.permissions.lock().interrupts.contains(5, 5));
}

#[test]
fn extended_contexts_and_states_are_checked() {
    let bed = Bed::new(256);
    bed.hv.machine.set_cpuid(
        1,
        0,
        CpuidResult {
            ecx: 1 << 26,
            ..Default::default()
        },
    );
    bed.hv.machine.set_cpuid(
        0xd,
        0,
        CpuidResult {
            eax: 7,
            ..Default::default()
        },
    );
    let mut dom0 = bed.guest(0, 3);
    let domain = made(&bed, &mut dom0);
    let extended = dom::DomctlExtVcpucontext {
        size: 64,
        syscall32_callback_eip: 0x5000,
        ..Default::default()
    };
    assert_eq!(
        ask_domctl(
            &bed,
            &mut dom0,
            dom::XEN_DOMCTL_SET_EXT_VCPUCONTEXT,
            1,
            &extended
        )
        .0,
        0
    );
    let (_, frame) = ask_domctl(
        &bed,
        &mut dom0,
        dom::XEN_DOMCTL_GET_EXT_VCPUCONTEXT,
        1,
        &extended,
    );
    assert_eq!(
        frame
            .payload::<dom::DomctlExtVcpucontext>()
            .syscall32_callback_eip,
        0x5000
    );
    let short = dom::DomctlExtVcpucontext {
        size: 8,
        ..extended
    };
    let refused = domctl_refused(
        &bed,
        &mut dom0,
        dom::XEN_DOMCTL_SET_EXT_VCPUCONTEXT,
        1,
        &short,
    );
    assert_eq!(refused, (rule::EXTENDED_CONTEXT, Some(Errno::Inval)));
    let (_, frame) = ask_domctl(
        &bed,
        &mut dom0,
        dom::XEN_DOMCTL_GETVCPUEXTSTATE,
        1,
        &dom::DomctlVcpuextstate::default(),
    );
    let size = frame.payload::<dom::DomctlVcpuextstate>().size;
    assert_eq!(size, 16 + 576);
    let place = dom0.address(1);
    let state = dom::DomctlVcpuextstate {
        size,
        buffer: place,
        ..Default::default()
    };
    assert_eq!(
        ask_domctl(&bed, &mut dom0, dom::XEN_DOMCTL_GETVCPUEXTSTATE, 1, &state).0,
        0
    );
    assert_eq!(dom0.read::<u64>(&bed, place), 3);
    assert_eq!(
        ask_domctl(&bed, &mut dom0, dom::XEN_DOMCTL_SETVCPUEXTSTATE, 1, &state).0,
        0
    );
    for (at, value) in [
        (0, 2_u64),
        (0, 1 << 9),
        (16 + 512, 4),
        (16 + 520, 1 << 63),
        (16 + 24, 1 << 31),
    ] {
        assert_eq!(
            ask_domctl(&bed, &mut dom0, dom::XEN_DOMCTL_GETVCPUEXTSTATE, 1, &state).0,
            0
        );
        dom0.write(&bed, place + at, &value);
        let refused = domctl_refused(&bed, &mut dom0, dom::XEN_DOMCTL_SETVCPUEXTSTATE, 1, &state);
        assert_eq!(
            refused,
            (rule::EXTENDED_STATE, Some(Errno::Inval)),
            "{value:#x} at {at}"
        );
    }
    assert_eq!(
        domain
            .vcpu(VcpuId(0))
            .unwrap()
            .state
            .lock()
            .as_ref()
            .unwrap()
            .xcr0,
        VcpuState::default().xcr0
    );
}

#[test]
fn model_specific_registers_of_a_vcpu_are_none() {
    let bed = Bed::new(256);
    let mut dom0 = bed.guest(0, 2);
    made(&bed, &mut dom0);
    let place = dom0.address(1);
    let msrs = dom::DomctlVcpuMsrs {
        vcpu: 0,
        msr_count: 1,
        msrs: place,
    };
    dom0.write(
        &bed,
        place,
        &dom::DomctlVcpuMsr {
            index: 0xc000_0103,
            reserved: 0,
            value: 0,
        },
    );
    assert_eq!(
        ask_domctl(&bed, &mut dom0, dom::XEN_DOMCTL_SET_VCPU_MSRS, 1, &msrs).0,
        0
    );
    dom0.write(
        &bed,
        place,
        &dom::DomctlVcpuMsr {
            index: 0xc000_0103,
            reserved: 0,
            value: 1,
        },
    );
    let refused = domctl_refused(&bed, &mut dom0, dom::XEN_DOMCTL_SET_VCPU_MSRS, 1, &msrs);
    assert_eq!(refused, (rule::VCPU_MSRS, Some(Errno::Inval)));
    let (_, frame) = ask_domctl(&bed, &mut dom0, dom::XEN_DOMCTL_GET_VCPU_MSRS, 1, &msrs);
    assert_eq!(frame.payload::<dom::DomctlVcpuMsrs>().msr_count, 0);
}

#[test]
fn page_tables_are_told_from_other_frames() {
    let bed = Bed::new(256);
    let mut dom0 = bed.guest(0, 2);
    let guest = bed.guest(3, 2);
    let place = dom0.address(1);
    let [l4, l3, _, l1] = guest.tables;
    dom0.write(
        &bed,
        place,
        &[l4.0, l3.0, l1.0, guest.frames[0].0, 5_000_000],
    );
    let payload = dom::DomctlGetpageframeinfo3 {
        num: 5,
        array: place,
    };
    assert_eq!(
        ask_domctl(
            &bed,
            &mut dom0,
            dom::XEN_DOMCTL_GETPAGEFRAMEINFO3,
            3,
            &payload
        )
        .0,
        0
    );
    let kinds: [u64; 5] = dom0.read(&bed, place);
    let expected = [
        dom::XEN_DOMCTL_PFINFO_L4TAB | dom::XEN_DOMCTL_PFINFO_LPINTAB,
        dom::XEN_DOMCTL_PFINFO_L3TAB,
        dom::XEN_DOMCTL_PFINFO_L1TAB,
        dom::XEN_DOMCTL_PFINFO_NOTAB,
        dom::XEN_DOMCTL_PFINFO_XTAB,
    ];
    assert_eq!(kinds, expected.map(u64::from));
    let payload = dom::DomctlGetpageframeinfo3 {
        num: 1025,
        array: place,
    };
    let refused = domctl_refused(
        &bed,
        &mut dom0,
        dom::XEN_DOMCTL_GETPAGEFRAMEINFO3,
        3,
        &payload,
    );
    assert_eq!(refused, (rule::PAGE_INFO_COUNT, Some(Errno::TooBig)));
}

#[test]
fn a_cpu_policy_is_read_and_set_before_the_domain_runs() {
    let bed = Bed::new(256);
    bed.hv.machine.set_cpuid(
        0,
        0,
        CpuidResult {
            eax: 1,
            ..Default::default()
        },
    );
    bed.hv.machine.set_cpuid(
        1,
        0,
        CpuidResult {
            ecx: 3,
            ..Default::default()
        },
    );
    let mut dom0 = bed.guest(0, 3);
    let domain = made(&bed, &mut dom0);
    let (leaves, msrs) = (dom0.address(1), dom0.address(2));
    let payload = dom::DomctlCpuPolicy {
        nr_leaves: 64,
        nr_msrs: 2,
        leaves,
        msrs,
        ..Default::default()
    };
    let (result, frame) = ask_domctl(&bed, &mut dom0, dom::XEN_DOMCTL_GET_CPU_POLICY, 1, &payload);
    let got: dom::DomctlCpuPolicy = frame.payload();
    assert_eq!((result, got.nr_msrs), (0, 1));
    let small = dom::DomctlCpuPolicy {
        nr_leaves: 1,
        ..payload
    };
    let refused = domctl_refused(&bed, &mut dom0, dom::XEN_DOMCTL_GET_CPU_POLICY, 1, &small);
    assert_eq!(refused, (rule::POLICY_SIZE, Some(Errno::NoBufs)));
    let mut leaf: CpuidLeaf = dom0.read(&bed, leaves + size_of::<CpuidLeaf>() as u64);
    assert_eq!((leaf.leaf, leaf.c & 3), (1, 3));
    leaf.c &= !1;
    dom0.write(&bed, leaves, &leaf);
    let one = dom::DomctlCpuPolicy {
        nr_leaves: 1,
        nr_msrs: 0,
        ..payload
    };
    assert_eq!(
        ask_domctl(&bed, &mut dom0, dom::XEN_DOMCTL_SET_CPU_POLICY, 1, &one).0,
        0
    );
    assert_eq!(
        domain
            .settings
            .lock()
            .cpu_policy
            .iter()
            .find(|entry| entry.leaf == 1)
            .unwrap()
            .c
            & 3,
        2
    );
    dom0.write(
        &bed,
        msrs,
        &MsrEntry {
            idx: 0xce,
            flags: 0,
            val: 1,
        },
    );
    let with_msr = dom::DomctlCpuPolicy { nr_msrs: 1, ..one };
    let refused = domctl_refused(
        &bed,
        &mut dom0,
        dom::XEN_DOMCTL_SET_CPU_POLICY,
        1,
        &with_msr,
    );
    assert_eq!(refused, (rule::POLICY_MSR, Some(Errno::Inval)));
    domain.settings.lock().started = true;
    let refused = domctl_refused(&bed, &mut dom0, dom::XEN_DOMCTL_SET_CPU_POLICY, 1, &one);
    assert_eq!(refused, (rule::POLICY_STAYS, Some(Errno::Exist)));
}

#[test]
fn the_time_of_a_domain_is_shown() {
    let bed = Bed::new(256);
    let mut dom0 = bed.guest(0, 2);
    made(&bed, &mut dom0);
    let set = dom::DomctlTscInfo {
        tsc_mode: 2,
        incarnation: 3,
        ..Default::default()
    };
    assert_eq!(
        ask_domctl(&bed, &mut dom0, dom::XEN_DOMCTL_SETTSCINFO, 1, &set).0,
        0
    );
    let (_, frame) = ask_domctl(&bed, &mut dom0, dom::XEN_DOMCTL_GETTSCINFO, 1, &set);
    let got: dom::DomctlTscInfo = frame.payload();
    assert_eq!(
        (got.tsc_mode, got.incarnation, got.gtsc_khz),
        (2, 3, 1_000_000)
    );
}

#[test]
fn sysctl_tells_of_the_machine_and_its_domains() {
    let bed = Bed::new(256);
    let mut dom0 = bed.guest(0, 4);
    let _other = bed.domain(4, 1);
    let (result, frame) = ask_sysctl(&bed, &mut dom0, sys::XEN_SYSCTL_PHYSINFO, &[0_u8; 1]);
    let info: sys::SysctlPhysinfo = frame.payload();
    assert_eq!(
        (result, info.nr_cpus, info.total_pages, info.max_mfn),
        (0, 1, 256, 255)
    );
    let place = dom0.address(1);
    let list = sys::SysctlGetdomaininfolist {
        max_domains: 9,
        buffer: place,
        ..Default::default()
    };
    let (_, frame) = ask_sysctl(&bed, &mut dom0, sys::XEN_SYSCTL_GETDOMAININFOLIST, &list);
    assert_eq!(
        frame.payload::<sys::SysctlGetdomaininfolist>().num_domains,
        2
    );
    let second: dom::DomctlGetdomaininfo =
        dom0.read(&bed, place + size_of::<dom::DomctlGetdomaininfo>() as u64);
    assert_eq!(second.domain, 4);
    let (_, frame) = ask_sysctl(&bed, &mut dom0, sys::XEN_SYSCTL_SCHED_ID, &[0_u8; 1]);
    assert_eq!(frame.payload::<sys::SysctlSchedId>().sched_id, 6);
    let (_, frame) = ask_sysctl(
        &bed,
        &mut dom0,
        sys::XEN_SYSCTL_CPUTOPOINFO,
        &sys::SysctlCputopoinfo::default(),
    );
    assert_eq!(frame.payload::<sys::SysctlCputopoinfo>().num_cpus, 1);
    let none = sys::SysctlCputopoinfo {
        cputopo: place,
        ..Default::default()
    };
    let refused = sysctl_refused(&bed, &mut dom0, sys::XEN_SYSCTL_CPUTOPOINFO, &none);
    assert_eq!(refused, (rule::BUFFER_SIZE, Some(Errno::NoBufs)));
    let nodes = sys::SysctlNumainfo {
        num_nodes: 1,
        meminfo: place,
        distance: place + 64,
        ..Default::default()
    };
    assert_eq!(
        ask_sysctl(&bed, &mut dom0, sys::XEN_SYSCTL_NUMAINFO, &nodes).0,
        0
    );
    assert_eq!(dom0.read::<u64>(&bed, place), 256 << 12);
    let pool = sys::SysctlCpupoolOp {
        op: sys::XEN_SYSCTL_CPUPOOL_OP_INFO,
        ..Default::default()
    };
    let (_, frame) = ask_sysctl(&bed, &mut dom0, sys::XEN_SYSCTL_CPUPOOL_OP, &pool);
    assert_eq!(frame.payload::<sys::SysctlCpupoolOp>().n_dom, 2);
    let pool = sys::SysctlCpupoolOp {
        cpupool_id: 1,
        ..pool
    };
    let refused = sysctl_refused(&bed, &mut dom0, sys::XEN_SYSCTL_CPUPOOL_OP, &pool);
    assert_eq!(refused, (rule::NO_SUCH_POOL, Some(Errno::NoEnt)));
    let refused = sysctl_refused(&bed, &mut dom0, 99, &[0_u8; 1]);
    assert_eq!(
        refused,
        (crate::rules::core::UNKNOWN_OPERATION, Some(Errno::NoSys))
    );
}

#[test]
fn features_and_policies_are_of_the_host_or_of_pv() {
    let bed = Bed::new(256);
    bed.hv.machine.set_cpuid(
        1,
        0,
        CpuidResult {
            edx: u32::MAX,
            ..Default::default()
        },
    );
    let mut dom0 = bed.guest(0, 3);
    let place = dom0.address(1);
    let wanted = |index| sys::SysctlCpuFeatureset {
        index,
        nr_features: 19,
        features: place,
    };
    let mut word = |index| {
        assert_eq!(
            ask_sysctl(
                &bed,
                &mut dom0,
                sys::XEN_SYSCTL_GET_CPU_FEATURESET,
                &wanted(index)
            )
            .0,
            0
        );
        dom0.read::<u32>(&bed, place)
    };
    assert_eq!(word(sys::XEN_SYSCTL_CPU_FEATURESET_HOST), u32::MAX);
    assert_eq!(word(sys::XEN_SYSCTL_CPU_FEATURESET_PV) & 1 << 13, 0);
    let hvm = wanted(sys::XEN_SYSCTL_CPU_FEATURESET_HVM);
    let refused = sysctl_refused(&bed, &mut dom0, sys::XEN_SYSCTL_GET_CPU_FEATURESET, &hvm);
    assert_eq!(refused, (rule::POLICY_INDEX, Some(Errno::OpNotSupp)));
    let policy = sys::SysctlCpuPolicy {
        index: sys::XEN_SYSCTL_CPU_POLICY_PV_DEFAULT,
        ..Default::default()
    };
    let (_, frame) = ask_sysctl(&bed, &mut dom0, sys::XEN_SYSCTL_GET_CPU_POLICY, &policy);
    assert_eq!(frame.payload::<sys::SysctlCpuPolicy>().nr_leaves, 128);
}

#[test]
fn the_console_is_read_and_written_by_dom0() {
    let bed = Bed::new(256);
    let mut dom0 = bed.guest(0, 3);
    let place = dom0.address(1);
    dom0.write(&bed, place, &[b'x'; 300]);
    bed.hv.machine.interrupt_after(Some(0));
    let written = dom0.call(&bed, number::HYPERVISOR_CONSOLE_IO, [0, 300, place, 0, 0]);
    bed.hv.machine.interrupt_after(None);
    assert_eq!(
        (written, dom0.continued, bed.hv.machine.take_console().len()),
        (0, 2, 300)
    );
    bed.hv.machine.type_on_console(b"hello");
    assert_eq!(
        dom0.call(&bed, number::HYPERVISOR_CONSOLE_IO, [1, 100, place, 0, 0]),
        5
    );
    assert_eq!(dom0.read::<[u8; 5]>(&bed, place), *b"hello");
    let refused_count = refused(&bed, &mut dom0, console_io, [0, 1 << 31, place, 0, 0]);
    assert_eq!(refused_count, (rule::CONSOLE_COUNT, Some(Errno::TooBig)));
    let ring = sys::SysctlReadconsole {
        clear: 1,
        buffer: dom0.address(2),
        count: 1000,
        ..Default::default()
    };
    let (_, frame) = ask_sysctl(&bed, &mut dom0, sys::XEN_SYSCTL_READCONSOLE, &ring);
    assert_eq!(frame.payload::<sys::SysctlReadconsole>().count, 300);
    let (_, frame) = ask_sysctl(&bed, &mut dom0, sys::XEN_SYSCTL_READCONSOLE, &ring);
    assert_eq!(frame.payload::<sys::SysctlReadconsole>().count, 0);
}

#[test]
fn guests_write_to_the_console_only_when_debugging() {
    let mut bed = Bed::new(256);
    let mut guest = bed.guest(1, 2);
    let place = guest.address(0);
    guest.write(&bed, place, b"hi");
    let refused = refused(&bed, &mut guest, console_io, [0, 2, place, 0, 0]);
    assert_eq!(refused, (rule::CONSOLE_NOT_YOURS, Some(Errno::Perm)));
    bed.hv.options = options::Options::parse("guest_loglvl=debug").unwrap();
    assert_eq!(
        guest.call(&bed, number::HYPERVISOR_CONSOLE_IO, [0, 2, place, 0, 0]),
        0
    );
    assert_eq!(bed.hv.machine.take_console(), b"hi");
}

#[test]
fn the_version_is_that_of_the_abi() {
    let mut bed = Bed::new(256);
    let mut guest = bed.guest(1, 2);
    let place = guest.address(0);
    let mut ask = |bed: &Bed, command: u32| {
        guest.call(
            bed,
            number::HYPERVISOR_XEN_VERSION,
            [command.into(), place, 0, 0, 0],
        )
    };
    assert_eq!(ask(&bed, version::XENVER_VERSION), 4 << 16 | 17);
    assert_eq!(ask(&bed, version::XENVER_CAPABILITIES), 0);
    let text: [u8; 14] = guest.read(&bed, place);
    assert_eq!(text, *b"xen-3.0-x86_64");
    guest.write(
        &bed,
        place,
        &version::FeatureInfo {
            submap_idx: 0,
            submap: 0,
        },
    );
    assert_eq!(
        guest.call(&bed, number::HYPERVISOR_XEN_VERSION, [6, place, 0, 0, 0]),
        0
    );
    let features = guest.read::<version::FeatureInfo>(&bed, place).submap;
    assert_eq!(
        (
            features & (1 << 5 | 1 << 7),
            features & (1 << 2 | 1 << 8 | 1 << 11)
        ),
        (1 << 5 | 1 << 7, 0)
    );
    guest.write(
        &bed,
        place,
        &version::FeatureInfo {
            submap_idx: 1,
            submap: 0,
        },
    );
    let submap = refused(&bed, &mut guest, xen_version, [6, place, 0, 0, 0]);
    assert_eq!(submap, (rule::FEATURE_SUBMAP, Some(Errno::Inval)));
    let pagesize = refused(&bed, &mut guest, xen_version, [7, place, 0, 0, 0]);
    assert_eq!(
        pagesize,
        (rule::PAGESIZE_TAKES_NO_ARGUMENT, Some(Errno::Inval))
    );
    assert_eq!(
        guest.call(&bed, number::HYPERVISOR_XEN_VERSION, [9, place, 0, 0, 0]),
        0
    );
    assert_eq!(guest.read::<[u8; 8]>(&bed, place), *b"<denied>");
    let mut dom0 = bed.guest(0, 2);
    let place = dom0.address(0);
    assert_eq!(
        refused(&bed, &mut dom0, xen_version, [10, place, 0, 0, 0]),
        (rule::NO_BUILD_ID, Some(Errno::NoData))
    );
    bed.hv.options.build_id = b"0123456789abcdef";
    assert_eq!(
        dom0.call(&bed, number::HYPERVISOR_XEN_VERSION, [10, 0, 0, 0, 0]),
        16
    );
    dom0.write(&bed, place, &4_u32);
    let small = refused(&bed, &mut dom0, xen_version, [10, place, 0, 0, 0]);
    assert_eq!(small, (rule::BUILD_ID_BUFFER, Some(Errno::NoBufs)));
}

fn platform_frame<P: IntoBytes + Immutable>(command: u32, payload: &P) -> PlatformOp {
    let mut frame = PlatformOp {
        cmd: command,
        interface_version: plat::XENPF_INTERFACE_VERSION,
        ..Default::default()
    };
    frame.set_payload(payload);
    frame
}

#[test]
fn platform_operations_answer_a_kernel() {
    let bed = Bed::new(256);
    let mut dom0 = bed.guest(0, 2);
    let mut ask_platform = |command, payload: &[u8]| {
        let mut bytes = [0; 64];
        bytes[..payload.len()].copy_from_slice(payload);
        ask(
            &bed,
            &mut dom0,
            number::HYPERVISOR_PLATFORM_OP,
            &platform_frame(command, &bytes),
        )
    };
    let time = plat::XenpfSettime64 {
        secs: 1000,
        nsecs: 5,
        mbz: 0,
        system_time: 0,
    };
    assert_eq!(ask_platform(plat::XENPF_SETTIME64, time.as_bytes()).0, 0);
    let bad = plat::XenpfSettime64 { mbz: 1, ..time };
    assert_eq!(
        ask_platform(plat::XENPF_SETTIME64, bad.as_bytes()).0,
        Errno::Inval.as_return()
    );
    let (_, frame) = ask_platform(plat::XENPF_GET_CPUINFO, &[]);
    assert_eq!(
        frame.payload::<plat::XenpfPcpuinfo>().flags,
        plat::XEN_PCPU_FLAGS_ONLINE
    );
    let firmware = |type_: u32| type_.to_le_bytes();
    assert_eq!(ask_platform(plat::XENPF_FIRMWARE_INFO, &firmware(5)).0, 0);
    assert_eq!(
        ask_platform(plat::XENPF_FIRMWARE_INFO, &firmware(1)).0,
        Errno::Srch.as_return()
    );
    assert_eq!(
        ask_platform(plat::XENPF_FIRMWARE_INFO, &firmware(4)).0,
        Errno::NoSys.as_return()
    );
    let place = dom0.address(0);
    let sleep = plat::XenpfEnterAcpiSleep {
        sleep_state: 3,
        ..Default::default()
    };
    dom0.write(
        &bed,
        place,
        &platform_frame(plat::XENPF_ENTER_ACPI_SLEEP, &sleep),
    );
    let refused_sleep = refused(&bed, &mut dom0, platform_op, [place, 0, 0, 0, 0]);
    assert_eq!(refused_sleep, (rule::SLEEP_STATE, Some(Errno::OpNotSupp)));
    dom0.write(&bed, place, &platform_frame(plat::XENPF_SETTIME64, &bad));
    assert_eq!(
        refused(&bed, &mut dom0, platform_op, [place, 0, 0, 0, 0]).0,
        rule::WALL_CLOCK
    );
    dom0.write(
        &bed,
        place,
        &platform_frame(plat::XENPF_FIRMWARE_INFO, &1_u32),
    );
    assert_eq!(
        refused(&bed, &mut dom0, platform_op, [place, 0, 0, 0, 0]).0,
        rule::NO_FIRMWARE_INFO
    );
}

#[test]
#[should_panic(expected = "power Off")]
fn dom0_switches_the_machine_off() {
    let bed = Bed::new(256);
    let dom0 = bed.domain(0, 1);
    on_shutdown(&bed.hv, &dom0, pv_abi::sched::SHUTDOWN_POWEROFF);
}

#[test]
#[should_panic(expected = "power Reboot")]
fn a_crash_of_dom0_starts_the_machine_again() {
    let bed = Bed::new(256);
    let dom0 = bed.domain(0, 1);
    on_shutdown(&bed.hv, &dom0, pv_abi::sched::SHUTDOWN_CRASH);
}

#[test]
#[should_panic(expected = "power Off")]
fn noreboot_switches_off_instead() {
    let mut bed = Bed::new(256);
    bed.hv.options = options::Options::parse("noreboot").unwrap();
    let dom0 = bed.domain(0, 1);
    on_shutdown(&bed.hv, &dom0, pv_abi::sched::SHUTDOWN_REBOOT);
}

#[test]
fn a_guests_crash_leaves_the_machine_running() {
    let bed = Bed::new(256);
    let guest = bed.domain(3, 1);
    on_shutdown(&bed.hv, &guest, pv_abi::sched::SHUTDOWN_CRASH);
}
