//! Making, filling, asking about and destroying domains (`domctl`), as the first domain's toolstack does.
#![no_std]
#![no_main]

use guest_tests::child::{Child, create, domctl, domctl_plain, info, usual};
use guest_tests::errno::{E2BIG, EACCES, EEXIST, EFAULT, EINVAL, ENOBUFS, ENOSYS, EOPNOTSUPP, EOVERFLOW, EPERM, ESRCH};
use guest_tests::{HYPERVISOR_ADDRESS, about, expect, guest_test, hypercall, mfn_of, say, start_info};
use pv_abi::arch::VcpuGuestContext;
use pv_abi::domctl::{
    Domctl, DomctlAddressSize, DomctlAssignDevice, DomctlCpuPolicy, DomctlCreatedomain, DomctlExtVcpucontext,
    DomctlGetDeviceGroup, DomctlGetpageframeinfo3, DomctlGetvcpuinfo, DomctlHypercallInit, DomctlIomemPermission,
    DomctlIoportPermission, DomctlIrqPermission, DomctlMaxMem, DomctlMaxVcpus, DomctlNodeaffinity, DomctlSchedulerOp,
    DomctlSendtrigger, DomctlSetVirqHandler, DomctlSetdebugging, DomctlSetdomainhandle, DomctlSettimeoffset,
    DomctlShadowOp, DomctlTscInfo, DomctlVcpuMsr, DomctlVcpuMsrs, DomctlVcpuaffinity, DomctlVcpucontext,
    DomctlVcpuextstate, XEN_DOMCTL_ASSIGN_DEVICE, XEN_DOMCTL_DEASSIGN_DEVICE, XEN_DOMCTL_DESTROYDOMAIN,
    XEN_DOMCTL_GET_ADDRESS_SIZE, XEN_DOMCTL_GET_CPU_POLICY, XEN_DOMCTL_GET_DEVICE_GROUP,
    XEN_DOMCTL_GET_EXT_VCPUCONTEXT, XEN_DOMCTL_GET_VCPU_MSRS, XEN_DOMCTL_GETDOMAININFO, XEN_DOMCTL_GETNODEAFFINITY,
    XEN_DOMCTL_GETPAGEFRAMEINFO3, XEN_DOMCTL_GETTSCINFO, XEN_DOMCTL_GETVCPUAFFINITY, XEN_DOMCTL_GETVCPUCONTEXT,
    XEN_DOMCTL_GETVCPUEXTSTATE, XEN_DOMCTL_GETVCPUINFO, XEN_DOMCTL_HYPERCALL_INIT, XEN_DOMCTL_IOMEM_PERMISSION,
    XEN_DOMCTL_IOPORT_PERMISSION, XEN_DOMCTL_IRQ_PERMISSION, XEN_DOMCTL_MAX_MEM, XEN_DOMCTL_MAX_VCPUS,
    XEN_DOMCTL_PAUSEDOMAIN, XEN_DOMCTL_RESUMEDOMAIN, XEN_DOMCTL_SCHEDOP_GETINFO, XEN_DOMCTL_SCHEDULER_OP,
    XEN_DOMCTL_SENDTRIGGER, XEN_DOMCTL_SET_ADDRESS_SIZE, XEN_DOMCTL_SET_CPU_POLICY, XEN_DOMCTL_SET_EXT_VCPUCONTEXT,
    XEN_DOMCTL_SET_VCPU_MSRS, XEN_DOMCTL_SET_VIRQ_HANDLER, XEN_DOMCTL_SETDEBUGGING, XEN_DOMCTL_SETDOMAINHANDLE,
    XEN_DOMCTL_SETNODEAFFINITY, XEN_DOMCTL_SETTIMEOFFSET, XEN_DOMCTL_SETTSCINFO, XEN_DOMCTL_SETVCPUAFFINITY,
    XEN_DOMCTL_SETVCPUCONTEXT, XEN_DOMCTL_SETVCPUEXTSTATE, XEN_DOMCTL_SHADOW_OP, XEN_DOMCTL_TEST_ASSIGN_DEVICE,
    XEN_DOMCTL_UNPAUSEDOMAIN, XEN_SCHEDULER_CREDIT2,
};
use pv_abi::xen::{CtlBitmap, HYPERVISOR_DOMCTL};

guest_test!(control);

const NOBODY: u16 = 99;
const CHILD: u16 = 5;

fn control() {
    frames();
    creation();
    let Some(child) = Child::new(CHILD) else {
        say!("guest-test: a domain is made: FAILED it was refused");
        return;
    };
    pauses(&child);
    vcpu(&child);
    settings();
    permissions();
    refused();
    pages(&child);
    about("XEN_DOMCTL_destroydomain");
    expect("a domain is destroyed", child.destroy(), 0);
    expect("it is no more", domctl_plain(XEN_DOMCTL_DESTROYDOMAIN, CHILD), ESRCH);
}

fn frames() {
    about("domctl");
    let ask = |frame: &mut Domctl| hypercall(HYPERVISOR_DOMCTL, [&raw mut *frame as u64, 0, 0, 0, 0]);
    let mut frame = Domctl { cmd: XEN_DOMCTL_GETDOMAININFO, interface_version: 1, ..Default::default() };
    expect("another version of the interface is EACCES", ask(&mut frame), EACCES);
    let at = hypercall(HYPERVISOR_DOMCTL, [HYPERVISOR_ADDRESS, 0, 0, 0, 0]);
    expect("an operation in the hypervisor is EFAULT", at, EFAULT);
    expect("an unknown operation is ENOSYS", domctl_plain(999, 0), ENOSYS);
    expect("of a domain that is not it is ESRCH", domctl_plain(999, NOBODY), ESRCH);
    about("XEN_DOMCTL_getdomaininfo");
    let (result, first) = info(0);
    expect("the first domain is known", (result, first.domain), (0, 0));
    expect("with its memory", first.tot_pages, start_info().nr_pages);
    expect("after the last there is none", info(1).0, ESRCH);
}

fn creation() {
    about("XEN_DOMCTL_createdomain");
    for (name, config) in [
        ("a domain without vCPUs is EINVAL", DomctlCreatedomain { max_vcpus: 0, ..usual() }),
        ("a domain with unknown flags is EINVAL", DomctlCreatedomain { flags: 1 << 31, ..usual() }),
        ("a PV domain with nested paging is EINVAL", DomctlCreatedomain { flags: 2, ..usual() }),
        ("grant tables of version 9 are EINVAL", DomctlCreatedomain { grant_opts: 9, ..usual() }),
        ("unknown grant options are EINVAL", DomctlCreatedomain { grant_opts: 0x101, ..usual() }),
        ("an IOMMU that is not is EINVAL", DomctlCreatedomain { iommu_opts: 1, ..usual() }),
    ] {
        let mut config = config;
        expect(name, create(CHILD, &mut config), EINVAL);
    }
    expect("the first domain's number is taken or another is given", create(0, &mut usual()), 0);
    expect("then there is a domain 1", info(1).1.domain, 1);
    expect("a number is used once", create(1, &mut usual()), EEXIST);
    about("XEN_DOMCTL_max_vcpus");
    let vcpus = |max: u32| domctl(XEN_DOMCTL_MAX_VCPUS, 1, &mut DomctlMaxVcpus { max });
    expect("another number of vCPUs than it was made for is EINVAL", vcpus(2), EINVAL);
    expect("no vCPUs are EINVAL", vcpus(0), EINVAL);
    expect("its vCPUs are made", vcpus(1), 0);
    expect("twice is no error", vcpus(1), 0);
    about("XEN_DOMCTL_max_mem");
    expect("its size is set", domctl(XEN_DOMCTL_MAX_MEM, 1, &mut DomctlMaxMem { max_memkb: 64 }), 0);
    expect("and told", info(1).1.max_pages, 16);
    about("XEN_DOMCTL_unpausedomain");
    about("XEN_DOMCTL_destroydomain");
    expect("it is destroyed", domctl_plain(XEN_DOMCTL_DESTROYDOMAIN, 1), 0);
    expect("the caller is not", domctl_plain(XEN_DOMCTL_DESTROYDOMAIN, 0), EINVAL);
    expect("a domain that is not is not", domctl_plain(XEN_DOMCTL_DESTROYDOMAIN, NOBODY), ESRCH);
}

fn pauses(child: &Child) {
    about("XEN_DOMCTL_pausedomain");
    let pause = || domctl_plain(XEN_DOMCTL_PAUSEDOMAIN, CHILD);
    let unpause = || domctl_plain(XEN_DOMCTL_UNPAUSEDOMAIN, CHILD);
    expect("a domain that is not is not paused", domctl_plain(XEN_DOMCTL_PAUSEDOMAIN, NOBODY), ESRCH);
    expect("the caller does not pause itself", domctl_plain(XEN_DOMCTL_PAUSEDOMAIN, 0), EINVAL);
    expect("a new domain runs when its first pause ends", child.start(), 0);
    about("XEN_DOMCTL_unpausedomain");
    expect("one that is not paused is EINVAL", unpause(), EINVAL);
    expect("nor is one that is not", domctl_plain(XEN_DOMCTL_UNPAUSEDOMAIN, NOBODY), ESRCH);
    about("XEN_DOMCTL_pausedomain");
    expect("it is paused twice", (pause(), pause()), (0, 0));
    expect("it says so", info(CHILD).1.flags >> 3 & 1, 1);
    expect("the first unpause is not enough", (unpause(), info(CHILD).1.flags >> 3 & 1), (0, 1));
    expect("the second is", (unpause(), info(CHILD).1.flags >> 3 & 1), (0, 0));
    let many = (0..255).map(|_| pause()).filter(|result| *result == 0).count();
    expect("it is paused 255 times", many, 255);
    expect("not more often", pause(), EOVERFLOW);
    expect("and unpaused as often", (0..255).all(|_| unpause() == 0), true);
    about("XEN_DOMCTL_resumedomain");
    expect("a domain that did not suspend is resumed", domctl_plain(XEN_DOMCTL_RESUMEDOMAIN, CHILD), 0);
    expect("the caller is not", domctl_plain(XEN_DOMCTL_RESUMEDOMAIN, 0), EINVAL);
}

fn vcpu(child: &Child) {
    about("XEN_DOMCTL_setvcpucontext");
    let _ = domctl_plain(XEN_DOMCTL_PAUSEDOMAIN, CHILD);
    let mut context = VcpuGuestContext::default();
    let at = |vcpu: u32, ctxt: u64| DomctlVcpucontext { vcpu, ctxt, ..Default::default() };
    let place = &raw mut context as u64;
    expect(
        "a vCPU that is not has no context to set",
        domctl(XEN_DOMCTL_SETVCPUCONTEXT, CHILD, &mut at(9, place)),
        EINVAL,
    );
    expect(
        "a context in the hypervisor is EFAULT",
        domctl(XEN_DOMCTL_SETVCPUCONTEXT, CHILD, &mut at(0, HYPERVISOR_ADDRESS)),
        EFAULT,
    );
    expect("the caller's own is EINVAL", domctl(XEN_DOMCTL_SETVCPUCONTEXT, 0, &mut at(0, place)), EINVAL);
    about("XEN_DOMCTL_getvcpucontext");
    expect("a context is read", domctl(XEN_DOMCTL_GETVCPUCONTEXT, CHILD, &mut at(0, place)), 0);
    expect("it is where the domain was", context.user_regs.rip >> 12, 0xf_ffff_fff8_0004);
    expect("its root is the domain's", context.ctrlreg[3] >> 12, child.frames[0]);
    expect("a context is set again", domctl(XEN_DOMCTL_SETVCPUCONTEXT, CHILD, &mut at(0, place)) <= 0, true);
    expect(
        "a vCPU that is not has no context to read",
        domctl(XEN_DOMCTL_GETVCPUCONTEXT, CHILD, &mut at(9, place)),
        EINVAL,
    );
    expect(
        "into the hypervisor is EFAULT",
        domctl(XEN_DOMCTL_GETVCPUCONTEXT, CHILD, &mut at(0, HYPERVISOR_ADDRESS)),
        EFAULT,
    );
    about("XEN_DOMCTL_getvcpuinfo");
    let mut one = DomctlGetvcpuinfo::default();
    expect("a vCPU is told", (domctl(XEN_DOMCTL_GETVCPUINFO, CHILD, &mut one), one.online), (0, 1));
    expect(
        "one that is not is EINVAL",
        domctl(XEN_DOMCTL_GETVCPUINFO, CHILD, &mut DomctlGetvcpuinfo { vcpu: 9, ..Default::default() }),
        EINVAL,
    );
    about("XEN_DOMCTL_getvcpuaffinity XEN_DOMCTL_setvcpuaffinity");
    let mut bits = [1_u64];
    let cpumap = CtlBitmap { bitmap: bits.as_mut_ptr() as u64, nr_bits: 64, ..Default::default() };
    let affinity = |flags: u32, vcpu: u32| DomctlVcpuaffinity { vcpu, flags, cpumap_hard: cpumap, cpumap_soft: cpumap };
    expect("where a vCPU may run is told", domctl(XEN_DOMCTL_GETVCPUAFFINITY, CHILD, &mut affinity(1, 0)), 0);
    expect("and set", domctl(XEN_DOMCTL_SETVCPUAFFINITY, CHILD, &mut affinity(1, 0)), 0);
    expect("neither of the two is EINVAL", domctl(XEN_DOMCTL_SETVCPUAFFINITY, CHILD, &mut affinity(0, 0)), EINVAL);
    expect("of a vCPU that is not is EINVAL", domctl(XEN_DOMCTL_SETVCPUAFFINITY, CHILD, &mut affinity(1, 9)), EINVAL);
    let _ = guest_tests::write_at(bits.as_ptr() as u64, 0);
    expect("nowhere is EINVAL", domctl(XEN_DOMCTL_SETVCPUAFFINITY, CHILD, &mut affinity(1, 0)), EINVAL);
    about("XEN_DOMCTL_get_ext_vcpucontext XEN_DOMCTL_set_ext_vcpucontext");
    let mut extended = DomctlExtVcpucontext::default();
    expect("the rest of a context is read", domctl(XEN_DOMCTL_GET_EXT_VCPUCONTEXT, CHILD, &mut extended), 0);
    expect("and set", domctl(XEN_DOMCTL_SET_EXT_VCPUCONTEXT, CHILD, &mut extended), 0);
    extended.vcpu = 9;
    expect("of a vCPU that is not is ESRCH", domctl(XEN_DOMCTL_GET_EXT_VCPUCONTEXT, CHILD, &mut extended), ESRCH);
    about("XEN_DOMCTL_getvcpuextstate XEN_DOMCTL_setvcpuextstate");
    let mut state = DomctlVcpuextstate::default();
    expect(
        "the size of extended state is told",
        (domctl(XEN_DOMCTL_GETVCPUEXTSTATE, CHILD, &mut state), state.size > 0),
        (0, true),
    );
    let mut state = DomctlVcpuextstate { vcpu: 9, ..Default::default() };
    expect("of a vCPU that is not it is not", domctl(XEN_DOMCTL_GETVCPUEXTSTATE, CHILD, &mut state) < 0, true);
    let mut state = DomctlVcpuextstate { size: 8, buffer: place, ..Default::default() };
    expect("8 bytes of it are EINVAL to set", domctl(XEN_DOMCTL_SETVCPUEXTSTATE, CHILD, &mut state), EINVAL);
    about("XEN_DOMCTL_get_vcpu_msrs XEN_DOMCTL_set_vcpu_msrs");
    let mut msrs = DomctlVcpuMsrs::default();
    expect("the number of registers is told", domctl(XEN_DOMCTL_GET_VCPU_MSRS, CHILD, &mut msrs), 0);
    let mut list = [DomctlVcpuMsr { index: 0x10, value: 5, ..Default::default() }];
    let mut msrs = DomctlVcpuMsrs { msr_count: 1, msrs: list.as_mut_ptr() as u64, ..Default::default() };
    expect("the time-stamp counter is not one of them", domctl(XEN_DOMCTL_SET_VCPU_MSRS, CHILD, &mut msrs), EINVAL);
    about("XEN_DOMCTL_sendtrigger");
    let mut trigger = DomctlSendtrigger { trigger: 0, vcpu: 9 };
    expect("a vCPU that is not gets no trigger", domctl(XEN_DOMCTL_SENDTRIGGER, CHILD, &mut trigger), ESRCH);
    let mut trigger = DomctlSendtrigger { trigger: 3, vcpu: 0 };
    expect("a PV domain has no power button", domctl(XEN_DOMCTL_SENDTRIGGER, CHILD, &mut trigger), EINVAL);
}

fn settings() {
    about("XEN_DOMCTL_setdomainhandle");
    expect(
        "a handle is set",
        domctl(XEN_DOMCTL_SETDOMAINHANDLE, CHILD, &mut DomctlSetdomainhandle { handle: [7; 16] }),
        0,
    );
    expect("and told", info(CHILD).1.handle, [7; 16]);
    about("XEN_DOMCTL_setdebugging");
    expect("debugging is set", domctl(XEN_DOMCTL_SETDEBUGGING, CHILD, &mut DomctlSetdebugging { enable: 0 }), 0);
    expect("not the caller's", domctl(XEN_DOMCTL_SETDEBUGGING, 0, &mut DomctlSetdebugging { enable: 0 }), EINVAL);
    about("XEN_DOMCTL_settimeoffset");
    expect(
        "a wall clock is moved",
        domctl(XEN_DOMCTL_SETTIMEOFFSET, CHILD, &mut DomctlSettimeoffset { time_offset_seconds: 5 }),
        0,
    );
    about("XEN_DOMCTL_get_address_size XEN_DOMCTL_set_address_size");
    let mut size = DomctlAddressSize::default();
    expect("a guest has 64 bits", (domctl(XEN_DOMCTL_GET_ADDRESS_SIZE, CHILD, &mut size), size.size), (0, 64));
    expect("they are set", domctl(XEN_DOMCTL_SET_ADDRESS_SIZE, CHILD, &mut size), 0);
    expect(
        "16 bits are EINVAL",
        domctl(XEN_DOMCTL_SET_ADDRESS_SIZE, CHILD, &mut DomctlAddressSize { size: 16 }),
        EINVAL,
    );
    about("XEN_DOMCTL_scheduler_op");
    let mut weight =
        DomctlSchedulerOp { sched_id: XEN_SCHEDULER_CREDIT2, cmd: XEN_DOMCTL_SCHEDOP_GETINFO, ..Default::default() };
    expect(
        "a weight is told",
        (domctl(XEN_DOMCTL_SCHEDULER_OP, CHILD, &mut weight), weight.u[..2].to_owned_pair()),
        (0, (0, 1)),
    );
    let mut other = DomctlSchedulerOp { sched_id: 5, ..weight };
    expect("not that of another scheduler", domctl(XEN_DOMCTL_SCHEDULER_OP, CHILD, &mut other), EINVAL);
    let mut other = DomctlSchedulerOp { cmd: 99, ..weight };
    expect("an unknown operation of it is EINVAL", domctl(XEN_DOMCTL_SCHEDULER_OP, CHILD, &mut other), EINVAL);
    about("XEN_DOMCTL_getnodeaffinity XEN_DOMCTL_setnodeaffinity");
    let mut bits = [1_u64];
    let mut nodes = DomctlNodeaffinity {
        nodemap: CtlBitmap { bitmap: bits.as_mut_ptr() as u64, nr_bits: 64, ..Default::default() },
    };
    expect("a domain's nodes are told", domctl(XEN_DOMCTL_GETNODEAFFINITY, CHILD, &mut nodes), 0);
    expect("and set", domctl(XEN_DOMCTL_SETNODEAFFINITY, CHILD, &mut nodes), 0);
    about("XEN_DOMCTL_gettscinfo XEN_DOMCTL_settscinfo");
    let mut tsc = DomctlTscInfo::default();
    expect(
        "its time-stamp counter is told",
        (domctl(XEN_DOMCTL_GETTSCINFO, CHILD, &mut tsc), tsc.gtsc_khz > 0),
        (0, true),
    );
    expect("and set", domctl(XEN_DOMCTL_SETTSCINFO, CHILD, &mut tsc), 0);
    about("XEN_DOMCTL_get_cpu_policy XEN_DOMCTL_set_cpu_policy");
    let mut policy = DomctlCpuPolicy::default();
    expect(
        "the size of its policy is told",
        (domctl(XEN_DOMCTL_GET_CPU_POLICY, CHILD, &mut policy), policy.nr_leaves > 0),
        (0, true),
    );
    let mut leaves = [0_u32; 6];
    let mut policy = DomctlCpuPolicy { nr_leaves: 1, leaves: leaves.as_mut_ptr() as u64, ..Default::default() };
    expect("one leaf is too small for it", domctl(XEN_DOMCTL_GET_CPU_POLICY, CHILD, &mut policy), ENOBUFS);
    let mut policy = DomctlCpuPolicy { nr_leaves: 10_000, leaves: leaves.as_mut_ptr() as u64, ..Default::default() };
    expect("the policy of a domain that ran stays", domctl(XEN_DOMCTL_SET_CPU_POLICY, CHILD, &mut policy) < 0, true);
    about("XEN_DOMCTL_set_virq_handler");
    expect(
        "the first domain handles a global interrupt",
        domctl(XEN_DOMCTL_SET_VIRQ_HANDLER, 0, &mut DomctlSetVirqHandler { virq: 3 }),
        0,
    );
    expect(
        "interrupt 99 is EINVAL",
        domctl(XEN_DOMCTL_SET_VIRQ_HANDLER, 0, &mut DomctlSetVirqHandler { virq: 99 }),
        EINVAL,
    );
}

trait Pair {
    fn to_owned_pair(&self) -> (u8, u8);
}

impl Pair for [u8] {
    fn to_owned_pair(&self) -> (u8, u8) {
        (self[0], self[1])
    }
}

fn permissions() {
    about("XEN_DOMCTL_ioport_permission");
    let port = |first_port: u32, nr_ports: u32| {
        domctl(
            XEN_DOMCTL_IOPORT_PERMISSION,
            CHILD,
            &mut DomctlIoportPermission { first_port, nr_ports, allow_access: 1, ..Default::default() },
        )
    };
    expect("ports are given", port(0x3f0, 4), 0);
    expect("no ports are EINVAL", port(0x3f0, 0), EINVAL);
    expect("ports beyond all are EINVAL", port(0xfffe, 4), EINVAL);
    expect("ports that wrap are EINVAL", port(u32::MAX, 2), EINVAL);
    about("XEN_DOMCTL_iomem_permission");
    let memory = |first_mfn: u64, nr_mfns: u64| {
        domctl(
            XEN_DOMCTL_IOMEM_PERMISSION,
            CHILD,
            &mut DomctlIomemPermission { first_mfn, nr_mfns, allow_access: 1, ..Default::default() },
        )
    };
    expect("device memory is given", memory(0xb8, 1), 0);
    expect("memory that wraps is EINVAL", memory(u64::MAX, 2), EINVAL);
    expect("the local APIC is not given", memory(0xfee00, 1), EPERM);
    about("XEN_DOMCTL_irq_permission");
    let line = |pirq: u32| {
        domctl(
            XEN_DOMCTL_IRQ_PERMISSION,
            CHILD,
            &mut DomctlIrqPermission { pirq, allow_access: 1, ..Default::default() },
        )
    };
    expect("an interrupt beyond all is EINVAL", line(100_000), EINVAL);
    about("XEN_DOMCTL_hypercall_init");
    let init = |gmfn: u64| domctl(XEN_DOMCTL_HYPERCALL_INIT, CHILD, &mut DomctlHypercallInit { gmfn });
    expect("no frame is EINVAL for the hypercall page", init(0xff_ffff_ffff), EINVAL);
    expect("another's frame is EINVAL for it", init(mfn_of(start_info().pt_base)), EINVAL);
}

fn refused() {
    about("XEN_DOMCTL_shadow_op");
    // What Xen has of them depends on how much memory is free at that moment.
    let mut shadow = DomctlShadowOp { op: 77, ..Default::default() };
    expect("no such operation on shadow tables is EINVAL", domctl(XEN_DOMCTL_SHADOW_OP, CHILD, &mut shadow), EINVAL);
    about("XEN_DOMCTL_assign_device XEN_DOMCTL_test_assign_device XEN_DOMCTL_deassign_device");
    for command in [XEN_DOMCTL_ASSIGN_DEVICE, XEN_DOMCTL_TEST_ASSIGN_DEVICE, XEN_DOMCTL_DEASSIGN_DEVICE] {
        let result = domctl(command, CHILD, &mut DomctlAssignDevice::default());
        expect("no device is assigned without an IOMMU", result, EOPNOTSUPP);
    }
    about("XEN_DOMCTL_get_device_group");
    let group = domctl(XEN_DOMCTL_GET_DEVICE_GROUP, CHILD, &mut DomctlGetDeviceGroup::default());
    expect("nor grouped", group, EOPNOTSUPP);
}

fn pages(child: &Child) {
    about("XEN_DOMCTL_getpageframeinfo3");
    let mut frames = [child.frames[0], child.frames[3], child.frames[7], 0];
    let mut ask = DomctlGetpageframeinfo3 { num: 4, array: frames.as_mut_ptr() as u64 };
    expect("frames are asked about", domctl(XEN_DOMCTL_GETPAGEFRAMEINFO3, CHILD, &mut ask), 0);
    expect("they are a pinned root, a table, data, and another's", frames, [0xc000_0000, 0x1000_0000, 0, 0xf000_0000]);
    let mut ask = DomctlGetpageframeinfo3 { num: 1025, array: frames.as_mut_ptr() as u64 };
    expect("1025 at once are too many", domctl(XEN_DOMCTL_GETPAGEFRAMEINFO3, CHILD, &mut ask), E2BIG);
    let mut ask = DomctlGetpageframeinfo3 { num: 1, array: HYPERVISOR_ADDRESS };
    expect("a list in the hypervisor is EFAULT", domctl(XEN_DOMCTL_GETPAGEFRAMEINFO3, CHILD, &mut ask), EFAULT);
}
