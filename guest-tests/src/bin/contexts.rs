//! A vCPU's context and policy as a toolstack gives them: what is refused, when, and what stays.
#![no_std]
#![no_main]

use guest_tests::child::{Child, domctl, usual};
use guest_tests::errno::{EINVAL, ENODATA, EOPNOTSUPP, ESRCH};
use guest_tests::{NON_CANONICAL, about, expect, guest_test, say};
use pv_abi::arch::{MsrEntry, VGCF_IN_KERNEL, VcpuGuestContext, xen_pfn_to_cr3};
use pv_abi::domctl::{
    DomctlCpuPolicy, DomctlExtVcpucontext, DomctlVcpuMsrs, DomctlVcpucontext, DomctlVcpuextstate,
    XEN_DOMCTL_GET_EXT_VCPUCONTEXT, XEN_DOMCTL_GET_VCPU_MSRS, XEN_DOMCTL_GETVCPUCONTEXT, XEN_DOMCTL_GETVCPUEXTSTATE,
    XEN_DOMCTL_SET_CPU_POLICY, XEN_DOMCTL_SET_EXT_VCPUCONTEXT, XEN_DOMCTL_SETVCPUEXTSTATE,
};

guest_test!(contexts);

const CHILD: u16 = 5;

fn contexts() {
    let Some(child) = Child::without_context(CHILD, usual()) else {
        say!("guest-test: a domain is made: FAILED it was refused");
        return;
    };
    policy();
    about("XEN_DOMCTL_getvcpucontext");
    let mut context = VcpuGuestContext::default();
    let ctxt = &raw mut context as u64;
    let mut request = DomctlVcpucontext { vcpu: 0, ctxt, ..Default::default() };
    let none = domctl(XEN_DOMCTL_GETVCPUCONTEXT, CHILD, &mut request);
    expect("a vCPU that was given no context has none", none, ENODATA);
    first(&child);
    extended();
    later(&child);
    expect("the domain is destroyed", child.destroy(), 0);
}

fn policy() {
    about("XEN_DOMCTL_set_cpu_policy");
    let set = |entry: MsrEntry| {
        let entries = [entry];
        let mut policy = DomctlCpuPolicy { nr_msrs: 1, msrs: entries.as_ptr() as u64, ..Default::default() };
        domctl(XEN_DOMCTL_SET_CPU_POLICY, CHILD, &mut policy)
    };
    expect("a register of a policy has no flags", set(MsrEntry { idx: 0xce, flags: 1, val: 0 }), EINVAL);
    expect("nothing of it may be set", set(MsrEntry { idx: 0xce, flags: 0, val: u64::MAX }) < 0, true);
    let same = domctl(XEN_DOMCTL_SET_CPU_POLICY, CHILD, &mut DomctlCpuPolicy::default());
    expect("a policy is left as it is", same, 0);
}

/// A first context, of which all is checked before any is taken.
fn first(child: &Child) {
    about("XEN_DOMCTL_setvcpucontext");
    let refused = |name: &str, change: &dyn Fn(&mut VcpuGuestContext)| {
        let mut context = child.context();
        change(&mut context);
        expect(name, child.set_context(&context), EINVAL);
    };
    refused("code at no address is EINVAL", &|context| context.user_regs.rip = NON_CANONICAL);
    refused("so is a stack", &|context| context.user_regs.rsp = NON_CANONICAL);
    refused("so is the kernel's stack", &|context| context.kernel_sp = NON_CANONICAL);
    refused("so is a local table", &|context| (context.ldt_base, context.ldt_ents) = (NON_CANONICAL, 1));
    refused("so is an event callback", &|context| context.event_callback_eip = NON_CANONICAL);
    refused("so is a failsafe callback", &|context| context.failsafe_callback_eip = NON_CANONICAL);
    refused("so is a system-call callback", &|context| context.syscall_callback_eip = NON_CANONICAL);
    refused("so is a trap's handler", &|context| context.trap_ctxt[3].address = NON_CANONICAL);
    refused("so is the base of fs", &|context| context.fs_base = NON_CANONICAL);
    refused("so is that of gs", &|context| context.gs_base_kernel = NON_CANONICAL);
    refused("so is that of the user's gs", &|context| context.gs_base_user = NON_CANONICAL);
    refused("a local table of 8,193 entries is EINVAL", &|context| context.ldt_ents = 8193);
    refused("one that begins in a page is EINVAL", &|context| {
        (context.ldt_base, context.ldt_ents) = (0x1008, 1);
    });
    refused("user mode without user tables is EINVAL", &|context| context.flags &= !VGCF_IN_KERNEL);
    refused("a descriptor table of 7,169 entries is EINVAL", &|context| context.gdt_ents = 7169);
    refused("one of a frame that is not is EINVAL", &|context| {
        (context.gdt_ents, context.gdt_frames[0]) = (1, 1 << 40);
    });
    refused("one in a page table is EINVAL", &|context| {
        (context.gdt_ents, context.gdt_frames[0]) = (1, child.frames[3]);
    });
    refused("a root that is not is EINVAL", &|context| context.ctrlreg[3] = xen_pfn_to_cr3(1 << 40));
    refused("a root that is a page of data is EINVAL", &|context| context.ctrlreg[3] = xen_pfn_to_cr3(child.frames[7]));
    refused("a root that is a lower table is EINVAL", &|context| context.ctrlreg[3] = xen_pfn_to_cr3(child.frames[1]));
    refused("so is such a root for the user", &|context| context.ctrlreg[1] = xen_pfn_to_cr3(child.frames[2]));
    refused("even where it has no entries", &|context| context.ldt_base = NON_CANONICAL);
    expect("a context that can be is taken", child.set_context(&child.context()), 0);
}

fn later(child: &Child) {
    about("XEN_DOMCTL_setvcpucontext");
    let refused = |name: &str, change: &dyn Fn(&mut VcpuGuestContext)| {
        let mut context = child.context();
        change(&mut context);
        expect(name, child.set_context(&context), EOPNOTSUPP);
    };
    refused("a vCPU keeps its root", &|context| context.ctrlreg[3] = xen_pfn_to_cr3(child.frames[1]));
    refused("and its descriptor table", &|context| context.gdt_ents = 1);
    refused("and its local one", &|context| context.ldt_ents = 1);
    expect("all else is taken", child.set_context(&child.context()), 0);
}

fn extended() {
    about("XEN_DOMCTL_get_ext_vcpucontext XEN_DOMCTL_set_ext_vcpucontext");
    let mut now = DomctlExtVcpucontext::default();
    expect("the rest of a context is read", domctl(XEN_DOMCTL_GET_EXT_VCPUCONTEXT, CHILD, &mut now), 0);
    let set = |change: &dyn Fn(&mut DomctlExtVcpucontext)| {
        let mut rest = now;
        change(&mut rest);
        domctl(XEN_DOMCTL_SET_EXT_VCPUCONTEXT, CHILD, &mut rest)
    };
    expect("and set", set(&|_| {}), 0);
    expect("one that is too short is EINVAL", set(&|rest| rest.size = 8), EINVAL);
    expect("so is a callback at no address", set(&|rest| rest.syscall32_callback_eip = NON_CANONICAL), EINVAL);
    expect("so is the other", set(&|rest| rest.sysenter_callback_eip = NON_CANONICAL), EINVAL);
    let own = domctl(XEN_DOMCTL_GET_EXT_VCPUCONTEXT, 0, &mut DomctlExtVcpucontext::default());
    expect("the caller's own is not read while it runs", own, ESRCH);
    let own = domctl(XEN_DOMCTL_SET_EXT_VCPUCONTEXT, 0, &mut DomctlExtVcpucontext { ..now });
    expect("nor set", own, ESRCH);
    about("XEN_DOMCTL_getvcpuextstate XEN_DOMCTL_setvcpuextstate");
    let own = domctl(XEN_DOMCTL_GETVCPUEXTSTATE, 0, &mut DomctlVcpuextstate::default());
    expect("nor is its own extended state", own, EINVAL);
    let own = domctl(XEN_DOMCTL_SETVCPUEXTSTATE, 0, &mut DomctlVcpuextstate { size: 600, ..Default::default() });
    expect("which is not set either", own < 0, true);
    about("XEN_DOMCTL_get_vcpu_msrs");
    let own = domctl(XEN_DOMCTL_GET_VCPU_MSRS, 0, &mut DomctlVcpuMsrs::default());
    expect("nor are its own registers told", own, EINVAL);
}
