//! What a toolstack does with domains.

use super::*;

#[test]
fn only_dom0_controls() {
    let bed = Bed::new(256);
    let mut guest = bed.guest(1, 2);
    let place = guest.address(0);
    let interface_version = pv_abi::platform::XENPF_INTERFACE_VERSION;
    guest.write(&bed, place, &pv_abi::platform::PlatformOp { interface_version, ..Default::default() });
    for handler in [domctl as Handler, sysctl, platform_op] {
        let (rule, errno) = guest.refused(&bed, handler, [place, 0, 0, 0, 0]);
        assert_eq!((rule, errno), (crate::rules::core::PRIVILEGED, Some(Errno::Perm)));
    }
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
    let info: dom::DomctlGetdomaininfo =
        ask_domctl(&bed, &mut dom0, dom::XEN_DOMCTL_GETDOMAININFO, 1, &[0_u8; 1]).1.payload();
    assert_eq!((info.domain, info.handle, info.nr_online_vcpus, info.max_vcpu_id), (1, [7; 16], 1, 1));
    assert!(info.flags & dom::XEN_DOMINF_PAUSED != 0);
    assert_eq!(ask_domctl(&bed, &mut dom0, dom::XEN_DOMCTL_UNPAUSEDOMAIN, id, &[0_u8; 1]).0, 0);
    assert!(domain.vcpu(VcpuId(0)).unwrap().is_runnable());
    drop(domain);
    assert_eq!(ask_domctl(&bed, &mut dom0, dom::XEN_DOMCTL_DESTROYDOMAIN, id, &[0_u8; 1]).0, 0);
    assert!(bed.hv.domains.get(DomId(1)).is_none());
    assert_eq!(bed.hv.allocator.lock().free_count(), before);
    let gone = domctl_refused(&bed, &mut dom0, dom::XEN_DOMCTL_DESTROYDOMAIN, id, &[0_u8; 1]);
    assert_eq!(gone, (crate::rules::core::NO_SUCH_DOMAIN, Some(Errno::Srch)));
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
    assert_eq!(ask_domctl(&bed, &mut dom0, dom::XEN_DOMCTL_DESTROYDOMAIN, 1, &[0_u8; 1]).0, 0);
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
        ask_domctl(&bed, &mut dom0, dom::XEN_DOMCTL_DESTROYDOMAIN, expected, &[0_u8; 1]);
    }
    let (_, frame) = ask_domctl(&bed, &mut dom0, dom::XEN_DOMCTL_CREATEDOMAIN, 77, &request());
    assert_eq!(frame.domain, 77);
    let taken = domctl_refused(&bed, &mut dom0, dom::XEN_DOMCTL_CREATEDOMAIN, 77, &request());
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
    let hvm = (crate::rules::hvm::NO_HARDWARE, Some(Errno::Inval));
    assert_eq!(create(|request| request.flags = dom::XEN_DOMCTL_CDF_HVM), hvm);
    assert_eq!(create(|request| request.cpupool_id = 1), kind);
    assert_eq!(create(|request| request.arch.emulation_flags = 1), kind);
    assert_eq!(create(|request| request.max_vcpus = 33), (rule::VCPU_COUNT, Some(Errno::Inval)));
    assert_eq!(create(|request| request.grant_opts = 3), (rule::GRANT_VERSION, Some(Errno::Inval)));
    while frames::allocate(&bed.hv, 0).is_some() {}
    assert_eq!(create(|_| ()), (rule::NO_MEMORY_FOR_DOMAIN, Some(Errno::NoMem)));
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
    let refused = domctl_refused(&bed, &mut dom0, dom::XEN_DOMCTL_UNPAUSEDOMAIN, 1, &[0_u8; 1]);
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
    for command in [dom::XEN_DOMCTL_DESTROYDOMAIN, dom::XEN_DOMCTL_PAUSEDOMAIN, dom::XEN_DOMCTL_RESUMEDOMAIN] {
        let refused = domctl_refused(&bed, &mut dom0, command, 0, &[0_u8; 1]);
        assert_eq!(refused, (rule::DESTROY_SELF, Some(Errno::Inval)));
    }
}

#[test]
fn getdomaininfo_gives_the_next_domain_there_is() {
    let bed = Bed::new(256);
    let mut dom0 = bed.guest(0, 4);
    let _five = bed.domain(5, 1);
    let (_, frame) = ask_domctl(&bed, &mut dom0, dom::XEN_DOMCTL_GETDOMAININFO, 3, &[0_u8; 1]);
    assert_eq!(frame.domain, 5);
    let none = domctl_refused(&bed, &mut dom0, dom::XEN_DOMCTL_GETDOMAININFO, 6, &[0_u8; 1]);
    assert_eq!(none, (crate::rules::core::NO_SUCH_DOMAIN, Some(Errno::Srch)));
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
    let refused = domctl_refused(&bed, &mut dom0, dom::XEN_DOMCTL_ASSIGN_DEVICE, 1, &[0_u8; 1]);
    assert_eq!(refused, (rule::NO_IOMMU, Some(Errno::OpNotSupp)));
    let trigger = dom::DomctlSendtrigger { trigger: 2, vcpu: 0 };
    let refused = domctl_refused(&bed, &mut dom0, dom::XEN_DOMCTL_SENDTRIGGER, 1, &trigger);
    assert_eq!(refused, (rule::TRIGGER, Some(Errno::NoSys)));
    let handler = dom::DomctlSetVirqHandler { virq: 3 };
    let refused = domctl_refused(&bed, &mut dom0, dom::XEN_DOMCTL_SET_VIRQ_HANDLER, 1, &handler);
    assert_eq!(refused, (rule::VIRQ_HANDLER, Some(Errno::Inval)));
    let page = dom::DomctlHypercallInit { gmfn: 3 };
    let refused = domctl_refused(&bed, &mut dom0, dom::XEN_DOMCTL_HYPERCALL_INIT, 1, &page);
    assert_eq!(refused, (rule::HYPERCALL_PAGE_FRAME, Some(Errno::Inval)));
    let own = frames::allocate_domain_frame(&bed.hv, &domain).unwrap();
    let page = dom::DomctlHypercallInit { gmfn: own.0 };
    assert_eq!(ask_domctl(&bed, &mut dom0, dom::XEN_DOMCTL_HYPERCALL_INIT, 1, &page).0, 0);
    assert_eq!(bed.hv.machine.read_byte(own, 0), 0x51);
}

#[test]
fn weights_are_credit2s() {
    let bed = Bed::new(256);
    let mut dom0 = bed.guest(0, 2);
    let domain = made(&bed, &mut dom0);
    let mut put = dom::DomctlSchedulerOp { sched_id: 6, cmd: 0, ..Default::default() };
    put.u[..2].copy_from_slice(&512_u16.to_le_bytes());
    assert_eq!(ask_domctl(&bed, &mut dom0, dom::XEN_DOMCTL_SCHEDULER_OP, 1, &put).0, 0);
    assert_eq!(domain.weight.load(Ordering::Relaxed), 512);
    let get = dom::DomctlSchedulerOp { sched_id: 6, cmd: 1, ..Default::default() };
    let (_, frame) = ask_domctl(&bed, &mut dom0, dom::XEN_DOMCTL_SCHEDULER_OP, 1, &get);
    assert_eq!(frame.payload::<dom::DomctlSchedulerOp>().u[..4], [0, 2, 0, 0]);
    let other = dom::DomctlSchedulerOp { sched_id: 5, ..get };
    let refused = domctl_refused(&bed, &mut dom0, dom::XEN_DOMCTL_SCHEDULER_OP, 1, &other);
    assert_eq!(refused, (rule::SCHEDULER, Some(Errno::Inval)));
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
    assert_eq!(ask_domctl(&bed, &mut dom0, dom::XEN_DOMCTL_IOPORT_PERMISSION, 1, &ports(0x2f8, 8)).0, 0);
    assert!(domain.permissions.lock().allows_ports(0x2f8, 4));
    let refused = domctl_refused(&bed, &mut dom0, dom::XEN_DOMCTL_IOPORT_PERMISSION, 1, &ports(0xffff, 2));
    assert_eq!(refused, (rule::PERMISSION_RANGE, Some(Errno::Inval)));
    let refused = domctl_refused(&bed, &mut dom0, dom::XEN_DOMCTL_IOPORT_PERMISSION, 1, &ports(0x20, 1));
    assert_eq!(refused, (rule::PERMISSION_OWN, Some(Errno::Perm)));
    let memory = dom::DomctlIomemPermission { first_mfn: 0xfebf0, nr_mfns: 1, allow_access: 1, ..Default::default() };
    assert_eq!(ask_domctl(&bed, &mut dom0, dom::XEN_DOMCTL_IOMEM_PERMISSION, 1, &memory).0, 0);
    let memory = dom::DomctlIomemPermission { nr_mfns: u64::MAX, ..memory };
    let refused = domctl_refused(&bed, &mut dom0, dom::XEN_DOMCTL_IOMEM_PERMISSION, 1, &memory);
    assert_eq!(refused.0, rule::PERMISSION_RANGE);
    let line = dom::DomctlIrqPermission { pirq: 5, allow_access: 1, ..Default::default() };
    assert_eq!(ask_domctl(&bed, &mut dom0, dom::XEN_DOMCTL_IRQ_PERMISSION, 1, &line).0, 0);
    assert!(domain.permissions.lock().interrupts.contains(5, 5));
}

#[test]
fn page_tables_are_told_from_other_frames() {
    let bed = Bed::new(256);
    let mut dom0 = bed.guest(0, 2);
    let guest = bed.guest(3, 2);
    let place = dom0.address(1);
    let [l4, l3, _, l1] = guest.tables;
    dom0.write(&bed, place, &[l4.0, l3.0, l1.0, guest.frames[0].0, 5_000_000]);
    let payload = dom::DomctlGetpageframeinfo3 { num: 5, array: place };
    assert_eq!(ask_domctl(&bed, &mut dom0, dom::XEN_DOMCTL_GETPAGEFRAMEINFO3, 3, &payload).0, 0);
    let kinds: [u64; 5] = dom0.read(&bed, place);
    let expected = [
        dom::XEN_DOMCTL_PFINFO_L4TAB | dom::XEN_DOMCTL_PFINFO_LPINTAB,
        dom::XEN_DOMCTL_PFINFO_L3TAB,
        dom::XEN_DOMCTL_PFINFO_L1TAB,
        dom::XEN_DOMCTL_PFINFO_NOTAB,
        dom::XEN_DOMCTL_PFINFO_XTAB,
    ];
    assert_eq!(kinds, expected.map(u64::from));
    let payload = dom::DomctlGetpageframeinfo3 { num: 1025, array: place };
    let refused = domctl_refused(&bed, &mut dom0, dom::XEN_DOMCTL_GETPAGEFRAMEINFO3, 3, &payload);
    assert_eq!(refused, (rule::PAGE_INFO_COUNT, Some(Errno::TooBig)));
}

#[test]
fn the_time_of_a_domain_is_shown() {
    let bed = Bed::new(256);
    let mut dom0 = bed.guest(0, 2);
    made(&bed, &mut dom0);
    let set = dom::DomctlTscInfo { tsc_mode: 2, incarnation: 3, ..Default::default() };
    assert_eq!(ask_domctl(&bed, &mut dom0, dom::XEN_DOMCTL_SETTSCINFO, 1, &set).0, 0);
    let (_, frame) = ask_domctl(&bed, &mut dom0, dom::XEN_DOMCTL_GETTSCINFO, 1, &set);
    let got: dom::DomctlTscInfo = frame.payload();
    assert_eq!((got.tsc_mode, got.incarnation, got.gtsc_khz), (2, 3, 1_000_000));
}

#[test]
fn a_long_question_about_frames_goes_on_where_it_stopped() {
    let bed = Bed::new(256);
    let mut dom0 = bed.guest(0, 4);
    let guest = bed.guest(3, 1);
    let place = dom0.address(1);
    for index in 0..1000 {
        dom0.write(&bed, place + index * 8, &guest.tables[0].0);
    }
    bed.hv.machine.interrupt_after(Some(0));
    let payload = dom::DomctlGetpageframeinfo3 { num: 1000, array: place };
    let (result, _) = ask_domctl(&bed, &mut dom0, dom::XEN_DOMCTL_GETPAGEFRAMEINFO3, 3, &payload);
    assert_eq!((result, dom0.continued), (0, 31));
    let expected = u64::from(dom::XEN_DOMCTL_PFINFO_L4TAB | dom::XEN_DOMCTL_PFINFO_LPINTAB);
    for index in [0, 31, 32, 500, 999] {
        assert_eq!(dom0.read::<u64>(&bed, place + index * 8), expected, "{index}");
    }
}
