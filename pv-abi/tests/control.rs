//! The frames of control operations and the structs in their unions.

use pv_abi::domctl::{
    DomainInfoFlags, Domctl, DomctlCreatedomain, DomctlGetdomaininfo, DomctlMaxMem, DomctlSchedCredit,
    DomctlSchedulerOp, XEN_DOMCTL_GETDOMAININFO, XEN_DOMCTL_INTERFACE_VERSION, XEN_DOMCTL_MAX_MEM,
    XEN_DOMCTL_SCHEDOP_PUTINFO, XEN_DOMCTL_SCHEDULER_OP, XEN_SCHEDULER_CREDIT,
};
use pv_abi::mca::{McFetch, XEN_MC_NONURGENT};
use pv_abi::platform::{PlatformOp, XENPF_INTERFACE_VERSION, XENPF_SETTIME64, XenpfSettime64};
use pv_abi::sched::SHUTDOWN_CRASH;
use pv_abi::sysctl::{Sysctl, SysctlPhysinfo, XEN_SYSCTL_INTERFACE_VERSION, XEN_SYSCTL_PHYSINFO};

#[test]
fn a_payload_is_read_as_it_was_written() {
    let request = DomctlCreatedomain { max_vcpus: 3, handle: [7; 16], ..Default::default() };
    let mut frame = Domctl::default();
    frame.set_payload(&request);
    assert_eq!(frame.payload::<DomctlCreatedomain>(), request);
}

#[test]
fn a_payload_begins_at_the_unions_first_byte() {
    let frame = Domctl::with(XEN_DOMCTL_MAX_MEM, 5, &DomctlMaxMem { max_memkb: 0x0102_0304_0506_0708 });
    assert_eq!(frame.u[..8], [8, 7, 6, 5, 4, 3, 2, 1]);
    assert_eq!(frame.u[8..], [0; 120]);
    assert_eq!((frame.cmd, frame.domain), (XEN_DOMCTL_MAX_MEM, 5));
}

#[test]
fn a_payload_leaves_the_rest_of_the_union_alone() {
    let mut frame = Domctl { u: [0xaa; 128], ..Default::default() };
    frame.set_payload(&DomctlMaxMem { max_memkb: 0 });
    assert_eq!(frame.u[..8], [0; 8]);
    assert_eq!(frame.u[8..], [0xaa; 120]);
}

#[test]
fn a_union_within_a_payload_has_payloads_too() {
    let mut operation =
        DomctlSchedulerOp { sched_id: XEN_SCHEDULER_CREDIT, cmd: XEN_DOMCTL_SCHEDOP_PUTINFO, ..Default::default() };
    operation.set_payload(&DomctlSchedCredit { weight: 512, cap: 50 });
    let frame = Domctl::with(XEN_DOMCTL_SCHEDULER_OP, 1, &operation);
    let read: DomctlSchedulerOp = frame.payload();
    assert_eq!(read.payload::<DomctlSchedCredit>(), DomctlSchedCredit { weight: 512, cap: 50 });
}

#[test]
fn frames_carry_the_version_of_their_interface() {
    assert_eq!(Domctl::new(XEN_DOMCTL_GETDOMAININFO, 0).interface_version, XEN_DOMCTL_INTERFACE_VERSION);
    assert_eq!(Sysctl::new(XEN_SYSCTL_PHYSINFO).interface_version, XEN_SYSCTL_INTERFACE_VERSION);
    assert_eq!(PlatformOp::new(XENPF_SETTIME64).interface_version, XENPF_INTERFACE_VERSION);
}

#[test]
fn sysctl_and_platform_frames_have_payloads() {
    let info = SysctlPhysinfo { nr_cpus: 2, hw_cap: [9; 8], ..Default::default() };
    assert_eq!(Sysctl::with(XEN_SYSCTL_PHYSINFO, &info).payload::<SysctlPhysinfo>(), info);
    let time = XenpfSettime64 { secs: 1 << 33, nsecs: 5, mbz: 0, system_time: 77 };
    assert_eq!(PlatformOp::with(XENPF_SETTIME64, &time).payload::<XenpfSettime64>(), time);
}

#[test]
fn a_machine_check_frame_has_payloads() {
    let mut frame = pv_abi::mca::Mc::default();
    frame.set_payload(&McFetch { flags: XEN_MC_NONURGENT, fetch_id: 3, ..Default::default() });
    assert_eq!(frame.payload::<McFetch>().fetch_id, 3);
}

#[test]
fn a_domain_that_runs_has_no_shutdown_reason() {
    let mut info = DomctlGetdomaininfo::default();
    info.set_state(DomainInfoFlags::RUNNING, 0);
    assert_eq!(info.shutdown_reason(), None);
    assert_eq!(info.state(), DomainInfoFlags::RUNNING);
}

#[test]
fn a_crashed_domain_says_so() {
    let mut info = DomctlGetdomaininfo::default();
    info.set_state(DomainInfoFlags::SHUTDOWN | DomainInfoFlags::PAUSED, SHUTDOWN_CRASH);
    assert_eq!(info.flags, 0x3_000c);
    assert_eq!(info.shutdown_reason(), Some(SHUTDOWN_CRASH));
    assert_eq!(info.state(), DomainInfoFlags::SHUTDOWN | DomainInfoFlags::PAUSED);
}
