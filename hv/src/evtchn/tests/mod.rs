//! What event channels do, one behaviour a test.

mod fifo;
mod fifo_model;
mod model;

use alloc::vec::Vec;

use pv_abi::VcpuId;
use pv_abi::event_channel::{EVTCHNSTAT_CLOSED, EVTCHNSTAT_INTERDOMAIN, EVTCHNSTAT_UNBOUND};
use pv_abi::xen::{HYPERVISOR_EVENT_CHANNEL_OP as CALL, VIRQ_CONSOLE, VIRQ_DEBUG, VIRQ_DOM_EXC, VIRQ_TIMER};

use super::*;
use crate::fake::{Bed, broken_rules};
use crate::rules::{Rule, evtchn as rule};

fn bed() -> Bed {
    Bed::new(256)
}

fn word(bed: &Bed, domain: &Domain, byte: usize) -> u64 {
    bed.hv.machine.read_word(domain.shared_info, byte / 8)
}

fn pending(bed: &Bed, domain: &Domain, port: u32) -> bool {
    word(bed, domain, 2048 + port as usize / 64 * 8) >> (port % 64) & 1 != 0
}

fn mask(bed: &Bed, domain: &Domain, port: u32) {
    bed.hv.machine.fetch_or_word(domain.shared_info, 2560 / 8 + port as usize / 64, 1 << (port % 64));
}

/// Takes all that is pending, as a guest does: upcall, selector, then the bits.
fn consume(bed: &Bed, domain: &Domain) -> Vec<u32> {
    let machine = &bed.hv.machine;
    let mut ports = Vec::new();
    machine.swap_byte(domain.shared_info, 0, 0);
    let selector = machine.fetch_and_word(domain.shared_info, 1, 0);
    for index in (0..64).filter(|index| selector >> index & 1 != 0) {
        let masked = machine.read_word(domain.shared_info, 320 + index);
        let bits = machine.fetch_and_word(domain.shared_info, 256 + index, masked) & !masked;
        ports.extend((0..64).filter(|bit| bits >> bit & 1 != 0).map(|bit| index as u32 * 64 + bit));
    }
    ports
}

fn unmask_upcalls(bed: &Bed, domain: &Domain) {
    bed.hv.machine.swap_byte(domain.shared_info, 1, 0);
}

fn connect(bed: &Bed, from: &Arc<Domain>, to: &Arc<Domain>) -> (u32, u32) {
    let far = alloc_unbound(&bed.hv, to, from.id).expect("a port");
    (bind_interdomain(&bed.hv, from, to, far).expect("a port"), far)
}

#[track_caller]
fn refused<T: core::fmt::Debug>(outcome: Result<T, Refusal>, errno: Errno, rule: Rule) {
    let refusal = outcome.expect_err("a refusal");
    assert_eq!((refusal.as_errno(), refusal.rule), (Some(errno), rule));
}

#[test]
fn an_event_reaches_the_far_end_once() {
    let bed = bed();
    let (a, b) = (bed.domain(0, 1), bed.domain(1, 1));
    let (near, far) = connect(&bed, &a, &b);
    assert!(pending(&bed, &a, near), "the port that binds is pending at once");
    send(&bed.hv, &a, near).unwrap();
    send(&bed.hv, &a, near).unwrap();
    assert_eq!(consume(&bed, &b), [far]);
    assert_eq!(consume(&bed, &b), []);
}

#[test]
fn an_upcall_is_due_only_while_it_is_not_masked() {
    let bed = bed();
    let (a, b) = (bed.domain(0, 1), bed.domain(1, 1));
    let vcpu = b.vcpu(VcpuId(0)).unwrap();
    let (near, _) = connect(&bed, &a, &b);
    send(&bed.hv, &a, near).unwrap();
    assert!(!upcall_due(&bed.hv, vcpu), "a new vCPU masks events");
    unmask_upcalls(&bed, &b);
    assert!(upcall_due(&bed.hv, vcpu));
}

#[test]
fn a_masked_port_is_delivered_when_it_is_unmasked() {
    let bed = bed();
    let (a, b) = (bed.domain(0, 1), bed.domain(1, 1));
    let (near, far) = connect(&bed, &a, &b);
    mask(&bed, &b, far);
    send(&bed.hv, &a, near).unwrap();
    assert!(pending(&bed, &b, far));
    assert_eq!(consume(&bed, &b), []);
    unmask(&bed.hv, &b, far).unwrap();
    assert_eq!(consume(&bed, &b), [far]);
}

#[test]
fn closing_one_end_offers_the_other_again() {
    let bed = bed();
    let (a, b) = (bed.domain(0, 1), bed.domain(1, 1));
    let (near, far) = connect(&bed, &a, &b);
    close(&bed.hv, &a, near).unwrap();
    let mut answer = EvtchnStatus { port: far, ..EvtchnStatus::default() };
    status(&b, &mut answer).unwrap();
    assert_eq!((answer.status, answer.u[0]), (EVTCHNSTAT_UNBOUND, 0));
    send(&bed.hv, &b, far).unwrap();
    assert_eq!(bind_interdomain(&bed.hv, &a, &b, far).unwrap(), near, "the lowest free port is taken");
    status(&b, &mut answer).unwrap();
    assert_eq!((answer.status, answer.u), (EVTCHNSTAT_INTERDOMAIN, [0, near]));
}

#[test]
fn a_port_that_is_closed_forgets_that_it_was_pending() {
    let bed = bed();
    let (a, b) = (bed.domain(0, 1), bed.domain(1, 1));
    let (near, far) = connect(&bed, &a, &b);
    send(&bed.hv, &a, near).unwrap();
    close(&bed.hv, &b, far).unwrap();
    assert!(!pending(&bed, &b, far));
}

#[test]
fn a_domain_can_talk_to_itself() {
    let bed = bed();
    let a = bed.domain(3, 1);
    let (near, far) = connect(&bed, &a, &a);
    consume(&bed, &a);
    send(&bed.hv, &a, near).unwrap();
    assert_eq!(consume(&bed, &a), [far]);
    send(&bed.hv, &a, far).unwrap();
    assert_eq!(consume(&bed, &a), [near]);
    close(&bed.hv, &a, near).unwrap();
    close(&bed.hv, &a, far).unwrap();
}

#[test]
fn a_port_that_was_moved_notifies_its_new_vcpu() {
    let bed = bed();
    let (a, b) = (bed.domain(0, 1), bed.domain(1, 2));
    let (near, far) = connect(&bed, &a, &b);
    bind_vcpu(&b, far, 1).unwrap();
    send(&bed.hv, &a, near).unwrap();
    assert_eq!(word(&bed, &b, 64) & 0xff, 1, "vCPU 1 has an upcall pending");
    assert_eq!(word(&bed, &b, 0) & 0xff, 0);
    let moved_before = alloc_unbound(&bed.hv, &b, a.id).unwrap();
    bind_vcpu(&b, moved_before, 1).unwrap();
    bed.hv.machine.write_word(b.shared_info, 8, 0);
    bed.hv.machine.write_word(b.shared_info, 9, 0);
    let near = bind_interdomain(&bed.hv, &a, &b, moved_before).unwrap();
    send(&bed.hv, &a, near).unwrap();
    assert_eq!(word(&bed, &b, 64) & 0xff, 1, "a port that was moved before it was bound as well");
}

#[test]
fn an_event_wakes_a_vcpu_that_blocks() {
    let bed = bed();
    let (a, b) = (bed.domain(0, 1), bed.domain(1, 1));
    let vcpu = b.vcpu(VcpuId(0)).unwrap();
    let (near, _) = connect(&bed, &a, &b);
    crate::sched::block(&bed.hv, vcpu);
    assert!(!vcpu.is_runnable());
    assert_eq!(word(&bed, &b, 0) & 0xff00, 0, "blocking unmasks events");
    send(&bed.hv, &a, near).unwrap();
    assert!(vcpu.is_runnable());
    crate::sched::block(&bed.hv, vcpu);
    assert!(vcpu.is_runnable(), "an event is pending already");
}

#[test]
fn an_event_wakes_only_those_who_poll_its_port() {
    let bed = bed();
    let (a, mut b) = (bed.domain(0, 1), bed.guest(1, 4));
    let (near, far) = connect(&bed, &a, &b.domain);
    let (other, other_far) = connect(&bed, &a, &b.domain);
    mask(&bed, &b.domain, far);
    mask(&bed, &b.domain, other_far);
    b.write(&bed, b.address(1), &far);
    let mut poll = pv_abi::sched::SchedPoll { ports: b.address(1), nr_ports: 1, ..Default::default() };
    let number = pv_abi::xen::HYPERVISOR_SCHED_OP;
    assert_eq!(b.call_with(&bed, number, pv_abi::sched::SCHEDOP_POLL, &mut poll), 0);
    assert!(!b.running.vcpu.is_runnable());
    send(&bed.hv, &a, other).unwrap();
    assert!(!b.running.vcpu.is_runnable(), "it does not poll that port");
    send(&bed.hv, &a, near).unwrap();
    assert!(b.running.vcpu.is_runnable());
    assert_eq!(b.domain.polling.load(core::sync::atomic::Ordering::SeqCst), 0);
    assert_eq!(b.call_with(&bed, number, pv_abi::sched::SCHEDOP_POLL, &mut poll), 0);
    assert!(b.running.vcpu.is_runnable(), "the port is pending already");
}

#[test]
fn an_ipi_goes_to_its_vcpu() {
    let bed = bed();
    let a = bed.domain(1, 2);
    let port = bind_ipi(&bed.hv, &a, 1).unwrap();
    send(&bed.hv, &a, port).unwrap();
    assert_eq!(word(&bed, &a, 64) & 0xff, 1);
}

#[test]
fn a_virtual_interrupt_goes_to_its_port_and_nowhere_without_one() {
    let bed = bed();
    let a = bed.domain(0, 2);
    let (first, second) = (a.vcpu(VcpuId(0)).unwrap(), a.vcpu(VcpuId(1)).unwrap());
    raise_virq(&bed.hv, second, VIRQ_TIMER);
    let port = bind_virq(&bed.hv, &a, VIRQ_TIMER, 1).unwrap();
    assert!(!pending(&bed, &a, port));
    raise_virq(&bed.hv, first, VIRQ_TIMER);
    assert!(!pending(&bed, &a, port), "each vCPU has its own");
    raise_virq(&bed.hv, second, VIRQ_TIMER);
    assert!(pending(&bed, &a, port));
    close(&bed.hv, &a, port).unwrap();
    raise_virq(&bed.hv, second, VIRQ_TIMER);
    assert!(!pending(&bed, &a, port));
}

#[test]
fn a_global_virtual_interrupt_can_be_moved() {
    let bed = bed();
    let a = bed.domain(0, 2);
    let port = bind_virq(&bed.hv, &a, VIRQ_DOM_EXC, 0).unwrap();
    bind_vcpu(&a, port, 1).unwrap();
    raise_global_virq(&bed.hv, VIRQ_DOM_EXC);
    assert_eq!(word(&bed, &a, 64) & 0xff, 1);
    let own = bind_virq(&bed.hv, &a, VIRQ_DEBUG, 0).unwrap();
    refused(bind_vcpu(&a, own, 1), Errno::Inval, rule::VCPU_FIXED);
}

#[test]
fn reset_closes_all_and_goes_on_where_it_stopped() {
    let bed = bed();
    let (other, mut guest) = (bed.domain(0, 1), bed.guest(1, 2));
    let ports: Vec<u32> = (0..200).map(|_| alloc_unbound(&bed.hv, &guest.domain, other.id).unwrap()).collect();
    let (near, _) = connect(&bed, &other, &guest.domain);
    bed.hv.machine.interrupt_after(Some(0));
    let mut request = EvtchnReset { dom: pv_abi::xen::DOMID_SELF };
    assert_eq!(guest.call_with(&bed, CALL, EVTCHNOP_RESET, &mut request), 0);
    assert!(guest.continued >= 3, "{} continuations", guest.continued);
    for port in ports {
        let mut answer = EvtchnStatus { port, ..EvtchnStatus::default() };
        status(&guest.domain, &mut answer).unwrap();
        assert_eq!(answer.status, EVTCHNSTAT_CLOSED);
    }
    let mut answer = EvtchnStatus { port: near, ..EvtchnStatus::default() };
    status(&other, &mut answer).unwrap();
    assert_eq!((answer.status, answer.u[0]), (EVTCHNSTAT_UNBOUND, 1));
}

#[test]
fn hypercalls_answer_with_the_port() {
    let bed = bed();
    let (mut a, mut b) = (bed.guest(0, 2), bed.guest(1, 2));
    let mut offer = EvtchnAllocUnbound { dom: 1, remote_dom: pv_abi::xen::DOMID_SELF, port: 0 };
    assert_eq!(a.call_with(&bed, CALL, EVTCHNOP_ALLOC_UNBOUND, &mut offer), 0, "a privileged domain offers for others");
    let mut bind = EvtchnBindInterdomain { remote_dom: 1, remote_port: offer.port, ..Default::default() };
    assert_eq!(a.call_with(&bed, CALL, EVTCHNOP_BIND_INTERDOMAIN, &mut bind), 0);
    let mut event = EvtchnSend { port: offer.port };
    assert_eq!(b.call_with(&bed, CALL, EVTCHNOP_SEND, &mut event), 0);
    assert_eq!(consume(&bed, &a.domain), [bind.local_port]);
    let mut answer = EvtchnStatus { dom: 1, port: offer.port, ..Default::default() };
    assert_eq!(a.call_with(&bed, CALL, EVTCHNOP_STATUS, &mut answer), 0);
    assert_eq!((answer.status, answer.u), (EVTCHNSTAT_INTERDOMAIN, [0, bind.local_port]));
}

#[test]
fn each_rule_is_enforced() {
    let bed = bed();
    let (a, b) = (bed.domain(0, 1), bed.domain(1, 1));
    refused(send(&bed.hv, &a, 64), Errno::Inval, rule::PORT_RANGE);
    refused(unmask(&bed.hv, &a, 4096), Errno::Inval, rule::PORT_RANGE);
    let timer = bind_virq(&bed.hv, &a, VIRQ_TIMER, 0).unwrap();
    refused(send(&bed.hv, &a, timer), Errno::Inval, rule::NOT_SENDABLE);
    refused(send(&bed.hv, &a, 0), Errno::Inval, rule::NOT_SENDABLE);
    refused(close(&bed.hv, &a, 9), Errno::Inval, rule::NOT_OPEN);
    refused(close(&bed.hv, &a, 0), Errno::Inval, rule::NOT_OPEN);
    let offered = alloc_unbound(&bed.hv, &b, DomId(7)).unwrap();
    refused(bind_interdomain(&bed.hv, &a, &b, offered), Errno::Inval, rule::NOT_OFFERED);
    refused(bind_virq(&bed.hv, &a, 24, 0), Errno::Inval, rule::VIRQ_RANGE);
    refused(bind_virq(&bed.hv, &a, VIRQ_CONSOLE, 1), Errno::Inval, rule::GLOBAL_VIRQ_VCPU);
    refused(bind_virq(&bed.hv, &a, VIRQ_TIMER, 0), Errno::Exist, rule::VIRQ_BOUND);
    refused(bind_virq(&bed.hv, &a, VIRQ_TIMER, 1), Errno::NoEnt, rule::NO_SUCH_VCPU);
    refused(bind_ipi(&bed.hv, &a, 1), Errno::NoEnt, rule::NO_SUCH_VCPU);
    let ipi = bind_ipi(&bed.hv, &a, 0).unwrap();
    refused(bind_vcpu(&a, ipi, 0), Errno::Inval, rule::VCPU_FIXED);
    refused(bind_vcpu(&a, 9, 0), Errno::Inval, rule::VCPU_FIXED);
}

#[test]
fn a_domain_has_only_so_many_ports() {
    let bed = bed();
    let a = bed.domain(0, 1);
    *a.events.lock() = EventChannels::new(100);
    for expected in 1..=100 {
        assert_eq!(alloc_unbound(&bed.hv, &a, DomId(1)).unwrap(), expected);
    }
    refused(alloc_unbound(&bed.hv, &a, DomId(1)), Errno::NoSpc, rule::NO_FREE_PORT);
    close(&bed.hv, &a, 50).unwrap();
    assert_eq!(alloc_unbound(&bed.hv, &a, DomId(1)).unwrap(), 50);
    let b = bed.domain(1, 1);
    for _ in 1..MAX_PORTS {
        alloc_unbound(&bed.hv, &b, DomId(0)).unwrap();
    }
    refused(alloc_unbound(&bed.hv, &b, DomId(0)), Errno::NoSpc, rule::NO_FREE_PORT);
}

#[test]
fn who_may_not_touch_anothers_ports_learns_so() {
    broken_rules();
    let bed = bed();
    let (mut a, mut b) = (bed.guest(0, 2), bed.guest(1, 2));
    let mut offer = EvtchnAllocUnbound { dom: 0, remote_dom: 1, port: 0 };
    assert_eq!(b.call_with(&bed, CALL, EVTCHNOP_ALLOC_UNBOUND, &mut offer), Errno::Perm.as_return());
    offer.dom = 9;
    assert_eq!(b.call_with(&bed, CALL, EVTCHNOP_ALLOC_UNBOUND, &mut offer), Errno::Srch.as_return());
    let mut reset = EvtchnReset { dom: 1 };
    assert_eq!(a.call_with(&bed, CALL, EVTCHNOP_RESET, &mut reset), Errno::Inval.as_return(), "it runs");
    b.domain.lifecycle.lock().paused_by_control = true;
    assert_eq!(a.call_with(&bed, CALL, EVTCHNOP_RESET, &mut reset), 0);
    assert_eq!(b.call(&bed, CALL, [EVTCHNOP_SEND.into(), 0x5000_0000, 0, 0, 0]), Errno::Fault.as_return());
    assert_eq!(b.call(&bed, CALL, [99, 0, 0, 0, 0]), Errno::NoSys.as_return());
    assert_eq!(broken_rules(), ["HYP-05", "HYP-08", "EVT-11", "HYP-04", "HYP-03"]);
}

#[test]
fn a_new_vcpu_info_misses_nothing() {
    let bed = bed();
    let mut guest = bed.guest(1, 3);
    let (info, offset) = (guest.frames[2], 64);
    let mut request = pv_abi::vcpu::VcpuRegisterVcpuInfo { mfn: info.0, offset, ..Default::default() };
    let place = guest.address(0);
    guest.write(&bed, place, &request);
    let arguments = [pv_abi::vcpu::VCPUOP_REGISTER_VCPU_INFO.into(), 0, place, 0, 0];
    assert_eq!(guest.call(&bed, pv_abi::xen::HYPERVISOR_VCPU_OP, arguments), 0);
    assert_eq!(guest.running.vcpu.info_place(), (info, offset as usize));
    assert_eq!(bed.hv.machine.read_word(info, 8), 0x0101, "pending, and masked as it was");
    assert_eq!(bed.hv.machine.read_word(info, 9), u64::MAX);
    request.offset = 0;
    guest.write(&bed, place, &request);
    assert_eq!(guest.call(&bed, pv_abi::xen::HYPERVISOR_VCPU_OP, arguments), Errno::Inval.as_return());
}

#[test]
fn two_cpus_that_bind_and_close_do_not_wait_for_each_other() {
    let bed = bed();
    let domains = [bed.domain(0, 1), bed.domain(1, 1)];
    std::thread::scope(|threads| {
        for n in 0..2 {
            let (bed, near, far) = (&bed, &domains[n], &domains[1 - n]);
            threads.spawn(move || {
                for _ in 0..500 {
                    let (port, offered) = connect(bed, near, far);
                    send(&bed.hv, near, port).unwrap();
                    let _ = bind_vcpu(near, port, 0);
                    close(&bed.hv, near, port).unwrap();
                    close(&bed.hv, far, offered).unwrap();
                }
            });
        }
    });
}
