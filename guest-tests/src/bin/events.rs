//! Event channels, upcalls, timers and waiting.
//!
//! A port's life, when an upcall comes and when it waits, and what `block` and `poll` wait for.
#![no_std]
#![no_main]

use core::sync::atomic::Ordering;

use guest_tests::{Shared, UPCALLS, about, expect, guest_test, hypercall, map_shared_info, operation};
use pv_abi::event_channel::{
    EVTCHNOP_ALLOC_UNBOUND, EVTCHNOP_BIND_INTERDOMAIN, EVTCHNOP_BIND_IPI, EVTCHNOP_BIND_VCPU, EVTCHNOP_BIND_VIRQ,
    EVTCHNOP_CLOSE, EVTCHNOP_SEND, EVTCHNOP_STATUS, EVTCHNOP_UNMASK, EvtchnAllocUnbound, EvtchnBindInterdomain,
    EvtchnBindIpi, EvtchnBindVcpu, EvtchnBindVirq, EvtchnClose, EvtchnSend, EvtchnStatus, EvtchnUnmask,
};
use pv_abi::sched::{SCHEDOP_BLOCK, SCHEDOP_POLL, SCHEDOP_YIELD, SchedPoll};
use pv_abi::vcpu::{VCPUOP_SET_SINGLESHOT_TIMER, VCPUOP_STOP_PERIODIC_TIMER, VcpuSetSingleshotTimer};
use pv_abi::xen::{
    DOMID_SELF, HYPERVISOR_EVENT_CHANNEL_OP, HYPERVISOR_SCHED_OP, HYPERVISOR_SET_TIMER_OP, HYPERVISOR_VCPU_OP,
    HYPERVISOR_XEN_VERSION,
};

guest_test!(events);

const EEXIST: i64 = -17;
const EINVAL: i64 = -22;
/// States of a port (`EVTCHNSTAT_*`).
const CLOSED: u32 = 0;
const UNBOUND: u32 = 1;
const INTERDOMAIN: u32 = 2;
const VIRQ: u32 = 4;
const IPI: u32 = 5;
const TIMER: u32 = 0;
const CONSOLE: u32 = 2;
const ENOENT: i64 = -2;

fn events() {
    let shared = map_shared_info();
    ports(shared);
    upcalls(shared);
    timers(shared);
}

fn alloc() -> u32 {
    let mut request = EvtchnAllocUnbound { dom: DOMID_SELF, remote_dom: DOMID_SELF, ..Default::default() };
    operation(HYPERVISOR_EVENT_CHANNEL_OP, EVTCHNOP_ALLOC_UNBOUND, &mut request);
    request.port
}

fn bind(remote_port: u32) -> (i64, u32) {
    let mut request = EvtchnBindInterdomain { remote_dom: DOMID_SELF, remote_port, ..Default::default() };
    let result = operation(HYPERVISOR_EVENT_CHANNEL_OP, EVTCHNOP_BIND_INTERDOMAIN, &mut request);
    (result, request.local_port)
}

fn close(port: u32) -> i64 {
    operation(HYPERVISOR_EVENT_CHANNEL_OP, EVTCHNOP_CLOSE, &mut EvtchnClose { port })
}

fn move_to(port: u32, vcpu: u32) -> i64 {
    operation(HYPERVISOR_EVENT_CHANNEL_OP, EVTCHNOP_BIND_VCPU, &mut EvtchnBindVcpu { port, vcpu })
}

fn send(port: u32) -> i64 {
    operation(HYPERVISOR_EVENT_CHANNEL_OP, EVTCHNOP_SEND, &mut EvtchnSend { port })
}

fn state(port: u32) -> u32 {
    let mut status = EvtchnStatus { dom: DOMID_SELF, port, ..Default::default() };
    operation(HYPERVISOR_EVENT_CHANNEL_OP, EVTCHNOP_STATUS, &mut status);
    status.status
}

fn ports(shared: Shared) {
    about("EVTCHNOP_alloc_unbound EVTCHNOP_bind_interdomain EVTCHNOP_send EVTCHNOP_close EVTCHNOP_status");
    let first = alloc();
    expect("a new port waits for its peer", state(first), UNBOUND);
    expect("a port without a peer takes a notification in silence", send(first), 0);
    let (result, second) = bind(first);
    expect("a port is bound", result, 0);
    expect("both ends are bound", (state(first), state(second)), (INTERDOMAIN, INTERDOMAIN));
    expect("the end that was bound is pending at once", shared.is_pending(second), true);
    expect("a bound port is not bound again", bind(first).0, EINVAL);
    shared.clear(second);
    shared.set_mask(first, true);
    expect("a notification is sent", send(second), 0);
    expect("the other end is pending", (shared.is_pending(first), shared.is_pending(second)), (true, false));
    shared.clear(first);
    expect("one end is closed", close(first), 0);
    expect("the other waits for a peer again", (state(first), state(second)), (CLOSED, UNBOUND));
    expect("a closed port is not closed again", close(first), EINVAL);
    expect("the other end is closed", close(second), 0);
    about("EVTCHNOP_bind_virq");
    let mut virq = EvtchnBindVirq { virq: TIMER, vcpu: 0, ..Default::default() };
    let bind_virq = |virq: &mut EvtchnBindVirq| operation(HYPERVISOR_EVENT_CHANNEL_OP, EVTCHNOP_BIND_VIRQ, virq);
    expect("the timer is bound", bind_virq(&mut virq), 0);
    expect("its port says so", state(virq.port), VIRQ);
    let mut again = EvtchnBindVirq { virq: TIMER, vcpu: 0, ..Default::default() };
    expect("the timer is bound once", bind_virq(&mut again), EEXIST);
    expect("a virtual interrupt's port is not sent on", send(virq.port), EINVAL);
    let mut global = EvtchnBindVirq { virq: CONSOLE, vcpu: 1, ..Default::default() };
    expect("the console's interrupt is bound on the first vCPU", bind_virq(&mut global), EINVAL);
    let mut global = EvtchnBindVirq { virq: CONSOLE, vcpu: 0, ..Default::default() };
    expect("there it is", bind_virq(&mut global), 0);
    about("EVTCHNOP_bind_vcpu");
    expect("it is moved", move_to(global.port, 0), 0);
    expect("but not to a vCPU that is not", move_to(global.port, 1), ENOENT);
    expect("the timer is not moved", move_to(virq.port, 0), EINVAL);
    expect("nor is a port that is closed", (close(global.port), move_to(global.port, 0)), (0, EINVAL));
    expect("nor one that is not", move_to(100_000, 0), EINVAL);
    about("EVTCHNOP_close");
    expect("the timer's port is closed", close(virq.port), 0);
    about("EVTCHNOP_bind_ipi");
    let mut ipi = EvtchnBindIpi { vcpu: 0, ..Default::default() };
    expect("an IPI is bound", operation(HYPERVISOR_EVENT_CHANNEL_OP, EVTCHNOP_BIND_IPI, &mut ipi), 0);
    expect("its port says that", state(ipi.port), IPI);
    expect("it stays where it is", move_to(ipi.port, 0), EINVAL);
    shared.set_mask(ipi.port, true);
    expect("an IPI is sent", (send(ipi.port), shared.is_pending(ipi.port)), (0, true));
    shared.clear(ipi.port);
    expect("the IPI's port is closed", close(ipi.port), 0);
}

fn upcalls(shared: Shared) {
    about("upcalls");
    let mut ipi = EvtchnBindIpi { vcpu: 0, ..Default::default() };
    operation(HYPERVISOR_EVENT_CHANNEL_OP, EVTCHNOP_BIND_IPI, &mut ipi);
    let port = ipi.port;
    let count = || UPCALLS.swap(0, Ordering::SeqCst);
    shared.set_mask(port, false);
    shared.vcpu().evtchn_upcall_mask.store(1, Ordering::SeqCst);
    count();
    send(port);
    expect(
        "masked events make no upcall",
        (count(), shared.vcpu().evtchn_upcall_pending.load(Ordering::SeqCst)),
        (0, 1),
    );
    shared.vcpu().evtchn_upcall_mask.store(0, Ordering::SeqCst);
    hypercall(HYPERVISOR_XEN_VERSION, [0; 5]);
    expect("unmasked events make one at the next hypercall", count(), 1);
    expect("the handler's return unmasks events", shared.vcpu().evtchn_upcall_mask.load(Ordering::SeqCst), 0);
    shared.vcpu().evtchn_upcall_mask.store(1, Ordering::SeqCst);
    shared.clear(port);
    shared.set_mask(port, true);
    send(port);
    expect("a masked port makes its bit pending", shared.is_pending(port), true);
    expect("but no upcall", shared.vcpu().evtchn_upcall_pending.load(Ordering::SeqCst), 0);
    about("EVTCHNOP_unmask");
    let unmask = || operation(HYPERVISOR_EVENT_CHANNEL_OP, EVTCHNOP_UNMASK, &mut EvtchnUnmask { port });
    expect("a port is unmasked", unmask(), 0);
    expect("then its upcall is due", shared.vcpu().evtchn_upcall_pending.load(Ordering::SeqCst), 1);
    shared.clear(port);
    close(port);
}

fn timers(shared: Shared) {
    hypercall(HYPERVISOR_VCPU_OP, [u64::from(VCPUOP_STOP_PERIODIC_TIMER), 0, 0, 0, 0]);
    let mut virq = EvtchnBindVirq { virq: TIMER, vcpu: 0, ..Default::default() };
    operation(HYPERVISOR_EVENT_CHANNEL_OP, EVTCHNOP_BIND_VIRQ, &mut virq);
    let port = virq.port;
    shared.set_mask(port, false);
    shared.clear(port);
    about("time");
    let start = shared.now();
    hypercall(HYPERVISOR_XEN_VERSION, [0; 5]);
    expect("time goes on", shared.now() > start, true);

    about("set_timer_op SCHEDOP_block");
    let deadline = shared.now() + 5_000_000;
    UPCALLS.store(0, Ordering::SeqCst);
    expect("a timer is set", hypercall(HYPERVISOR_SET_TIMER_OP, [deadline, 0, 0, 0, 0]), 0);
    expect("block ends", hypercall(HYPERVISOR_SCHED_OP, [u64::from(SCHEDOP_BLOCK), 0, 0, 0, 0]), 0);
    expect("not before the timer", shared.now() >= deadline, true);
    expect("block unmasks events, and the timer's upcall came", UPCALLS.load(Ordering::SeqCst), 1);
    expect("the timer's port is pending", shared.is_pending(port), true);
    shared.vcpu().evtchn_upcall_mask.store(1, Ordering::SeqCst);
    shared.clear(port);

    about("VCPUOP_set_singleshot_timer SCHEDOP_poll");
    let mut shot = VcpuSetSingleshotTimer { timeout_abs_ns: shared.now() - 1, ..Default::default() };
    let single = |shot: &mut VcpuSetSingleshotTimer| {
        let place = core::ptr::from_mut(shot) as u64;
        hypercall(HYPERVISOR_VCPU_OP, [u64::from(VCPUOP_SET_SINGLESHOT_TIMER), 0, place, 0, 0])
    };
    expect("a timer in the past is set", single(&mut shot), 0);
    expect("a poll for it ends", poll(&[port], 0), 0);
    expect("because it fired", shared.is_pending(port), true);
    expect("events are still masked", shared.vcpu().evtchn_upcall_mask.load(Ordering::SeqCst), 1);
    shared.clear(port);

    about("SCHEDOP_poll");
    let deadline = shared.now() + 3_000_000;
    expect("a poll for nothing ends at its time-out", poll(&[port], deadline), 0);
    expect("and not before", shared.now() >= deadline, true);
    about("SCHEDOP_yield");
    expect(
        "yield gives the CPU and comes back",
        hypercall(HYPERVISOR_SCHED_OP, [u64::from(SCHEDOP_YIELD), 0, 0, 0, 0]),
        0,
    );
}

fn poll(ports: &[u32], timeout: u64) -> i64 {
    let mut request =
        SchedPoll { ports: ports.as_ptr() as u64, nr_ports: ports.len() as u32, timeout, ..Default::default() };
    operation(HYPERVISOR_SCHED_OP, SCHEDOP_POLL, &mut request)
}
