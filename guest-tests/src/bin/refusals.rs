//! What is refused, and with which errno.
//!
//! A guest that asks for what it may not have gets Xen's errno and goes on; nothing changes.
#![no_std]
#![no_main]

use guest_tests::{
    P, Page, RW, about, expect, guest_test, hypercall, mmu_update, mmuext, operation, start_info, update_va_mapping,
};
use pv_abi::event_channel::{
    EVTCHNOP_BIND_VIRQ, EVTCHNOP_CLOSE, EVTCHNOP_SEND, EVTCHNOP_STATUS, EvtchnBindVirq, EvtchnClose, EvtchnSend,
    EvtchnStatus,
};
use pv_abi::sched::SCHEDOP_POLL;
use pv_abi::vcpu::VCPUOP_IS_UP;
use pv_abi::xen::{
    DOMID_SELF, HYPERVISOR_EVENT_CHANNEL_OP, HYPERVISOR_MMU_UPDATE, HYPERVISOR_MULTICALL, HYPERVISOR_SCHED_OP,
    HYPERVISOR_SET_GDT, HYPERVISOR_SET_SEGMENT_BASE, HYPERVISOR_VCPU_OP, HYPERVISOR_XEN_VERSION, MMUEXT_NEW_BASEPTR,
    MMUEXT_PIN_L1_TABLE, MMUEXT_PIN_L4_TABLE, MMUEXT_UNPIN_TABLE,
};

guest_test!(refusals);

const ENOENT: i64 = -2;
const EFAULT: i64 = -14;
const EINVAL: i64 = -22;
const ENOSYS: i64 = -38;
/// An address in the hypervisor's part of the address space.
const HYPERVISOR_ADDRESS: u64 = 0xffff_8300_0000_0000;
/// A non-canonical address.
const NON_CANONICAL: u64 = 0x8000_0000_0000_0000;

static PAGE: Page = Page::new();

fn refusals() {
    numbers();
    pointers();
    frames();
    tables();
    events();
    others();
}

fn numbers() {
    about("xen_version");
    expect("an unknown hypercall is ENOSYS", hypercall(63, [0; 5]), ENOSYS);
    expect("a hypercall number of 64 bits is ENOSYS", hypercall(u64::MAX, [0; 5]), ENOSYS);
    expect("an unknown xen_version is ENOSYS", hypercall(HYPERVISOR_XEN_VERSION, [99, 0, 0, 0, 0]), ENOSYS);
    expect("the version is 4.17", hypercall(HYPERVISOR_XEN_VERSION, [0; 5]), 0x0004_0011);
}

fn pointers() {
    about("XENVER_extraversion");
    let version_into = |address| hypercall(HYPERVISOR_XEN_VERSION, [1, address, 0, 0, 0]);
    expect("a null pointer is EFAULT", version_into(0), EFAULT);
    expect("the hypervisor's memory is EFAULT", version_into(HYPERVISOR_ADDRESS), EFAULT);
    expect("the last page of the guest's lower half is EFAULT", version_into(0x7fff_ffff_f000), EFAULT);
    expect("the machine-to-physical table is EFAULT to write", version_into(0xffff_8000_0000_0000), EFAULT);
    about("multicall");
    expect(
        "a multicall at a bad address is EFAULT",
        hypercall(HYPERVISOR_MULTICALL, [HYPERVISOR_ADDRESS, 1, 0, 0, 0]),
        EFAULT,
    );
}

fn frames() {
    about("update_va_mapping MMU_NORMAL_PT_UPDATE");
    let va = PAGE.va();
    let own = PAGE.mfn() << 12;
    expect("a frame beyond memory is EINVAL to map", update_va_mapping(va, 0xf_ffff_ffff_f000 | P | RW, 0), EINVAL);
    expect("an update at a virtual address is EINVAL", mmu_update(start_info().pt_base, own | P | RW), EINVAL);
    expect("a mapping of one's own frame stands", update_va_mapping(va, own | P | RW | 0x60, 2), 0);
    expect("a non-canonical address is EINVAL to map", update_va_mapping(NON_CANONICAL, own | P | RW, 0), EINVAL);
    expect("an address without a table is EINVAL to map", update_va_mapping(0x4000_0000_0000, own | P | RW, 0), EINVAL);
    expect("an update of a frame beyond memory is EINVAL", mmu_update(0xf_ffff_ffff_f000, 0), EINVAL);
    expect("an unknown kind of update is ENOSYS", mmu_update(own | 4 | 3, 0), ENOSYS);
}

fn tables() {
    about("MMUEXT_PIN_L1_TABLE MMUEXT_PIN_L4_TABLE MMUEXT_UNPIN_TABLE MMUEXT_NEW_BASEPTR");
    let mfn = PAGE.mfn();
    expect("a writable frame is EINVAL to pin as a table", mmuext(MMUEXT_PIN_L1_TABLE, mfn, 0), EINVAL);
    expect("a frame beyond memory is EINVAL to pin", mmuext(MMUEXT_PIN_L4_TABLE, 0xff_ffff_ffff, 0), EINVAL);
    expect("a frame that is not pinned is EINVAL to unpin", mmuext(MMUEXT_UNPIN_TABLE, mfn, 0), EINVAL);
    expect("a data frame is EINVAL as root", mmuext(MMUEXT_NEW_BASEPTR, mfn, 0), EINVAL);
    expect("an unknown extended operation is ENOSYS", mmuext(99, 0, 0), ENOSYS);
    about("set_gdt");
    let frames = [mfn];
    let set_gdt = |entries: u64| hypercall(HYPERVISOR_SET_GDT, [frames.as_ptr() as u64, entries, 0, 0, 0]);
    expect("a writable frame is EINVAL as descriptor table", set_gdt(8), EINVAL);
    expect("a descriptor table of 7169 entries is EINVAL", set_gdt(7169), EINVAL);
    about("mmu_update");
    let done = hypercall(HYPERVISOR_MMU_UPDATE, [0, 0, 0, u64::from(DOMID_SELF), 0]);
    expect("no updates are no error", done, 0);
}

fn events() {
    about("EVTCHNOP_send");
    let send = |port| operation(HYPERVISOR_EVENT_CHANNEL_OP, EVTCHNOP_SEND, &mut EvtchnSend { port });
    expect("port 0 is EINVAL to send on", send(0), EINVAL);
    expect("a free port is EINVAL to send on", send(900), EINVAL);
    expect("a port beyond all is EINVAL to send on", send(u32::MAX), EINVAL);
    about("EVTCHNOP_close");
    let close = |port| operation(HYPERVISOR_EVENT_CHANNEL_OP, EVTCHNOP_CLOSE, &mut EvtchnClose { port });
    expect("a free port is EINVAL to close", close(900), EINVAL);
    about("EVTCHNOP_status");
    let mut status = EvtchnStatus { dom: DOMID_SELF, port: 5000, ..Default::default() };
    let result = operation(HYPERVISOR_EVENT_CHANNEL_OP, EVTCHNOP_STATUS, &mut status);
    expect("the status of a port beyond all is EINVAL", result, EINVAL);
    about("EVTCHNOP_bind_virq");
    let mut bind = EvtchnBindVirq { virq: 24, vcpu: 0, ..Default::default() };
    let result = operation(HYPERVISOR_EVENT_CHANNEL_OP, EVTCHNOP_BIND_VIRQ, &mut bind);
    expect("virtual interrupt 24 is EINVAL", result, EINVAL);
    let mut bind = EvtchnBindVirq { virq: 0, vcpu: 99, ..Default::default() };
    let result = operation(HYPERVISOR_EVENT_CHANNEL_OP, EVTCHNOP_BIND_VIRQ, &mut bind);
    expect("a virtual interrupt for a vCPU that is not is ENOENT", result, ENOENT);
    about("event_channel_op");
    expect(
        "an unknown event-channel operation is ENOSYS",
        hypercall(HYPERVISOR_EVENT_CHANNEL_OP, [99, 0, 0, 0, 0]),
        ENOSYS,
    );
}

fn others() {
    about("VCPUOP_is_up");
    let is_up = |vcpu: u64| hypercall(HYPERVISOR_VCPU_OP, [u64::from(VCPUOP_IS_UP), vcpu, 0, 0, 0]);
    expect("the first vCPU is up", is_up(0), 1);
    expect("a vCPU beyond all is ENOENT", is_up(4000), ENOENT);
    about("SEGBASE_FS");
    expect(
        "a non-canonical segment base is EINVAL",
        hypercall(HYPERVISOR_SET_SEGMENT_BASE, [0, NON_CANONICAL, 0, 0, 0]),
        EINVAL,
    );
    about("set_segment_base");
    expect("an unknown segment base is EINVAL", hypercall(HYPERVISOR_SET_SEGMENT_BASE, [9, 0, 0, 0, 0]), EINVAL);
    about("sched_op");
    expect("an unknown scheduler operation is ENOSYS", hypercall(HYPERVISOR_SCHED_OP, [99, 0, 0, 0, 0]), ENOSYS);
    about("SCHEDOP_poll");
    let mut poll = pv_abi::sched::SchedPoll { nr_ports: 129, ..Default::default() };
    expect("a poll of 129 ports is EINVAL", operation(HYPERVISOR_SCHED_OP, SCHEDOP_POLL, &mut poll), EINVAL);
}
