//! What a toolstack does with vCPUs.

use super::*;

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
    let payload = dom::DomctlVcpucontext { vcpu: 0, ctxt: place, ..Default::default() };
    assert_eq!(ask_domctl(&bed, &mut dom0, dom::XEN_DOMCTL_GETVCPUCONTEXT, 1, &payload).0, 0);
    let back: Box<VcpuGuestContext> = Box::new(dom0.read(&bed, place));
    assert_eq!((back.user_regs.rax, back.user_regs.rip, back.user_regs.cs), (0x1122, 0x1000, 0xe033));
    assert_eq!((back.ctrlreg[3], back.trap_ctxt[14].address), (context.ctrlreg[3], 0x7000));
    assert_eq!(back.user_regs.rflags & 0x3200, 0x1200, "interrupts on, the guest's privilege level shown");
    assert_eq!((back.fs_base, back.event_callback_eip, back.ctrlreg[0]), (0x8000, 0x9000, 0x8005_0033));
    assert!(domain.vcpu(VcpuId(0)).unwrap().initialised.load(Ordering::Acquire));
    context.user_regs.rax = 1;
    assert_eq!(set_context_by_domctl(&bed, &mut dom0, 1, 0, &context), 0, "the same tables may be set again");
    context.ctrlreg[3] = 0;
    assert_eq!(set_context_by_domctl(&bed, &mut dom0, 1, 0, &context), Errno::OpNotSupp.as_return());
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
    assert_eq!(refuse(|context| context.trap_ctxt[3].address = 1 << 47), bad);
    assert_eq!(refuse(|context| context.ldt_ents = 8193), bad);
    assert_eq!(refuse(|context| context.flags = 0), bad);
    assert_eq!(refuse(|context| context.gdt_ents = 7169).0, crate::rules::traps::GDT_TOO_LONG);
    assert_eq!(refuse(|context| context.debugreg[7] = 1 << 13).0, crate::rules::traps::DEBUG_CONTROL);
    assert_eq!(refuse(|context| context.ctrlreg[3] = xen_pfn_to_cr3(400)).1, Some(Errno::Inval));
    assert!(!vcpu.initialised.load(Ordering::Acquire));
    assert!(vcpu.state.lock().as_ref().unwrap().kernel_root.is_none());
    let state = vcpu.state.lock().take();
    assert_eq!(set_context(&bed.hv, vcpu, &good).unwrap_err().rule, rule::VCPU_RUNS);
    *vcpu.state.lock() = state;
}

#[test]
fn a_vcpu_without_a_context_has_none_to_give() {
    let bed = Bed::new(256);
    let mut dom0 = bed.guest(0, 2);
    made(&bed, &mut dom0);
    let payload = dom::DomctlVcpucontext { vcpu: 0, ctxt: dom0.address(1), ..Default::default() };
    let refused = domctl_refused(&bed, &mut dom0, dom::XEN_DOMCTL_GETVCPUCONTEXT, 1, &payload);
    assert_eq!(refused, (rule::VCPU_WITHOUT_CONTEXT, Some(Errno::NoData)));
    let payload = dom::DomctlVcpucontext { vcpu: 2, ..payload };
    let refused = domctl_refused(&bed, &mut dom0, dom::XEN_DOMCTL_GETVCPUCONTEXT, 1, &payload);
    assert_eq!(refused, (rule::NO_SUCH_VCPU, Some(Errno::Inval)));
}

#[test]
fn an_affinity_keeps_to_cpus_that_there_are() {
    let bed = Bed::new(256);
    let mut dom0 = bed.guest(0, 2);
    made(&bed, &mut dom0);
    let place = dom0.address(1);
    let map = CtlBitmap { bitmap: place, nr_bits: 64, ..Default::default() };
    let payload = dom::DomctlVcpuaffinity { flags: dom::XEN_VCPUAFFINITY_HARD, cpumap_hard: map, ..Default::default() };
    dom0.write(&bed, place, &0x5_u64);
    assert_eq!(ask_domctl(&bed, &mut dom0, dom::XEN_DOMCTL_SETVCPUAFFINITY, 1, &payload).0, 0);
    assert_eq!(dom0.read::<u64>(&bed, place), 1);
    assert_eq!(ask_domctl(&bed, &mut dom0, dom::XEN_DOMCTL_GETVCPUAFFINITY, 1, &payload).0, 0);
    assert_eq!(dom0.read::<u64>(&bed, place), 5);
    dom0.write(&bed, place, &0x4_u64);
    let refused = domctl_refused(&bed, &mut dom0, dom::XEN_DOMCTL_SETVCPUAFFINITY, 1, &payload);
    assert_eq!(refused, (rule::AFFINITY, Some(Errno::Inval)));
}

#[test]
fn extended_contexts_are_checked() {
    let bed = Bed::new(256);
    let mut dom0 = bed.guest(0, 3);
    made(&bed, &mut dom0);
    let extended = dom::DomctlExtVcpucontext { size: 64, syscall32_callback_eip: 0x5000, ..Default::default() };
    assert_eq!(ask_domctl(&bed, &mut dom0, dom::XEN_DOMCTL_SET_EXT_VCPUCONTEXT, 1, &extended).0, 0);
    let (_, frame) = ask_domctl(&bed, &mut dom0, dom::XEN_DOMCTL_GET_EXT_VCPUCONTEXT, 1, &extended);
    assert_eq!(frame.payload::<dom::DomctlExtVcpucontext>().syscall32_callback_eip, 0x5000);
    let short = dom::DomctlExtVcpucontext { size: 8, ..extended };
    let refused = domctl_refused(&bed, &mut dom0, dom::XEN_DOMCTL_SET_EXT_VCPUCONTEXT, 1, &short);
    assert_eq!(refused, (rule::EXTENDED_CONTEXT, Some(Errno::Inval)));
}

#[test]
fn extended_states_are_checked_to_the_last_byte() {
    let bed = Bed::new(256);
    let machine = &bed.hv.machine;
    let (xsave, components) = (1 << 26, 7);
    machine.set_cpuid(1, 0, CpuidResult { ecx: xsave, ..Default::default() });
    machine.set_cpuid(0xd, 0, CpuidResult { eax: components, ..Default::default() });
    let mut dom0 = bed.guest(0, 3);
    let domain = made(&bed, &mut dom0);
    let (_, frame) =
        ask_domctl(&bed, &mut dom0, dom::XEN_DOMCTL_GETVCPUEXTSTATE, 1, &dom::DomctlVcpuextstate::default());
    let size = frame.payload::<dom::DomctlVcpuextstate>().size;
    assert_eq!(size, 16 + 576);
    let place = dom0.address(1);
    let state = dom::DomctlVcpuextstate { size, buffer: place, ..Default::default() };
    assert_eq!(ask_domctl(&bed, &mut dom0, dom::XEN_DOMCTL_GETVCPUEXTSTATE, 1, &state).0, 0);
    assert_eq!(dom0.read::<u64>(&bed, place), 3);
    assert_eq!(ask_domctl(&bed, &mut dom0, dom::XEN_DOMCTL_SETVCPUEXTSTATE, 1, &state).0, 0);
    for (at, value) in [(0, 2_u64), (0, 1 << 9), (16 + 512, 4), (16 + 520, 1 << 63), (16 + 24, 1 << 31)] {
        assert_eq!(ask_domctl(&bed, &mut dom0, dom::XEN_DOMCTL_GETVCPUEXTSTATE, 1, &state).0, 0);
        dom0.write(&bed, place + at, &value);
        let refused = domctl_refused(&bed, &mut dom0, dom::XEN_DOMCTL_SETVCPUEXTSTATE, 1, &state);
        assert_eq!(refused, (rule::EXTENDED_STATE, Some(Errno::Inval)), "{value:#x} at {at}");
    }
    assert_eq!(domain.vcpu(VcpuId(0)).unwrap().state.lock().as_ref().unwrap().xcr0, VcpuState::default().xcr0);
}

#[test]
fn model_specific_registers_of_a_vcpu_are_none() {
    let bed = Bed::new(256);
    let mut dom0 = bed.guest(0, 2);
    made(&bed, &mut dom0);
    let place = dom0.address(1);
    let msrs = dom::DomctlVcpuMsrs { vcpu: 0, msr_count: 1, msrs: place };
    dom0.write(&bed, place, &dom::DomctlVcpuMsr { index: 0xc000_0103, reserved: 0, value: 0 });
    assert_eq!(ask_domctl(&bed, &mut dom0, dom::XEN_DOMCTL_SET_VCPU_MSRS, 1, &msrs).0, 0);
    dom0.write(&bed, place, &dom::DomctlVcpuMsr { index: 0xc000_0103, reserved: 0, value: 1 });
    let refused = domctl_refused(&bed, &mut dom0, dom::XEN_DOMCTL_SET_VCPU_MSRS, 1, &msrs);
    assert_eq!(refused, (rule::VCPU_MSRS, Some(Errno::Inval)));
    let (_, frame) = ask_domctl(&bed, &mut dom0, dom::XEN_DOMCTL_GET_VCPU_MSRS, 1, &msrs);
    assert_eq!(frame.payload::<dom::DomctlVcpuMsrs>().msr_count, 0);
}

#[test]
fn a_cpu_policy_is_read_and_set_before_the_domain_runs() {
    let bed = Bed::new(256);
    bed.hv.machine.set_cpuid(0, 0, CpuidResult { eax: 1, ..Default::default() });
    bed.hv.machine.set_cpuid(1, 0, CpuidResult { ecx: 3, ..Default::default() });
    let mut dom0 = bed.guest(0, 3);
    let domain = made(&bed, &mut dom0);
    let (leaves, msrs) = (dom0.address(1), dom0.address(2));
    let payload = dom::DomctlCpuPolicy { nr_leaves: 64, nr_msrs: 2, leaves, msrs, ..Default::default() };
    let (result, frame) = ask_domctl(&bed, &mut dom0, dom::XEN_DOMCTL_GET_CPU_POLICY, 1, &payload);
    let got: dom::DomctlCpuPolicy = frame.payload();
    assert_eq!((result, got.nr_msrs), (0, 1));
    let small = dom::DomctlCpuPolicy { nr_leaves: 1, ..payload };
    let refused = domctl_refused(&bed, &mut dom0, dom::XEN_DOMCTL_GET_CPU_POLICY, 1, &small);
    assert_eq!(refused, (rule::POLICY_SIZE, Some(Errno::NoBufs)));
    let mut leaf: CpuidLeaf = dom0.read(&bed, leaves + size_of::<CpuidLeaf>() as u64);
    assert_eq!((leaf.leaf, leaf.c & 3), (1, 3));
    leaf.c &= !1;
    dom0.write(&bed, leaves, &leaf);
    let one = dom::DomctlCpuPolicy { nr_leaves: 1, nr_msrs: 0, ..payload };
    assert_eq!(ask_domctl(&bed, &mut dom0, dom::XEN_DOMCTL_SET_CPU_POLICY, 1, &one).0, 0);
    assert_eq!(domain.settings.lock().cpu_policy.iter().find(|entry| entry.leaf == 1).unwrap().c & 3, 2);
    dom0.write(&bed, msrs, &MsrEntry { idx: 0xce, flags: 0, val: 1 });
    let with_msr = dom::DomctlCpuPolicy { nr_msrs: 1, ..one };
    let refused = domctl_refused(&bed, &mut dom0, dom::XEN_DOMCTL_SET_CPU_POLICY, 1, &with_msr);
    assert_eq!(refused, (rule::POLICY_MSR, Some(Errno::Inval)));
    domain.settings.lock().started = true;
    let refused = domctl_refused(&bed, &mut dom0, dom::XEN_DOMCTL_SET_CPU_POLICY, 1, &one);
    assert_eq!(refused, (rule::POLICY_STAYS, Some(Errno::Exist)));
}

#[test]
fn other_tables_are_not_taken_a_second_time() {
    let bed = Bed::new(512);
    let mut dom0 = bed.guest(0, 6);
    let domain = made(&bed, &mut dom0);
    let mut context = context(&bed, &domain);
    let vcpu = domain.vcpu(VcpuId(0)).unwrap();
    set_context(&bed.hv, vcpu, &context).unwrap();
    context.gdt_ents = 8;
    let refusal = set_context(&bed.hv, vcpu, &context).unwrap_err();
    assert_eq!((refusal.rule, refusal.as_errno()), (rule::CONTEXT_TABLES, Some(Errno::OpNotSupp)));
}
