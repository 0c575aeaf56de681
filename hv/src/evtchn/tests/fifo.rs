//! The FIFO ABI, seen from a guest that keeps to it.

use pv_abi::Mfn;
use pv_abi::event_channel::{EVTCHN_FIFO_LINK_MASK, EVTCHN_FIFO_NR_CHANNELS};

use super::*;
use crate::fake::Guest;
use crate::frames;

pub(super) const PENDING: u32 = 1 << 31;
pub(super) const MASKED: u32 = 1 << 30;
pub(super) const LINKED: u32 = 1 << 29;

/// A domain's side of the FIFO ABI: where its words are, and how far it has read each queue.
pub(super) struct Side {
    pub(super) array: Vec<Mfn>,
    pub(super) controls: Vec<Mfn>,
    heads: Vec<[u32; 16]>,
}

/// Where control blocks begin in their frames.
pub(super) const OFFSET: u32 = 64;

impl Side {
    /// Gives each vCPU of a domain a control block.
    pub(super) fn new(bed: &Bed, domain: &Domain) -> Self {
        let vcpus = domain.vcpus.get().map_or(0, Vec::len) as u32;
        let frame = |vcpu| {
            let mfn = frames::allocate_domain_frame(&bed.hv, domain).expect("a free frame");
            let mut request = EvtchnInitControl { control_gfn: mfn.0, offset: OFFSET, vcpu, ..Default::default() };
            init_control(&bed.hv, domain, &mut request).expect("a control block that may be");
            assert_eq!(request.link_bits, 17);
            mfn
        };
        let controls: Vec<Mfn> = (0..vcpus).map(frame).collect();
        Self { array: Vec::new(), heads: alloc::vec![[0; 16]; controls.len()], controls }
    }

    pub(super) fn expand(&mut self, bed: &Bed, domain: &Domain) {
        let mfn = frames::allocate_domain_frame(&bed.hv, domain).expect("a free frame");
        expand_array(&bed.hv, domain, mfn.0).expect("a page that may be");
        self.array.push(mfn);
    }

    pub(super) fn word(&self, bed: &Bed, port: u32) -> u32 {
        let word = bed.hv.machine.read_word(self.array[port as usize / 1024], port as usize % 1024 / 2);
        (word >> (port % 2 * 32)) as u32
    }

    /// Changes a word as a guest does, with one exchange.
    pub(super) fn change(&self, bed: &Bed, port: u32, change: impl Fn(u32) -> u32) -> u32 {
        let (page, index) = (self.array[port as usize / 1024], port as usize % 1024);
        loop {
            let seen = self.word(bed, port);
            if bed.hv.machine.compare_exchange_half(page, index, seen, change(seen)).is_ok() {
                return seen;
            }
        }
    }

    /// Takes all events of a vCPU, most urgent first.
    pub(super) fn consume(&mut self, bed: &Bed, vcpu: usize) -> Vec<u32> {
        let machine = &bed.hv.machine;
        let (control, first) = (self.controls[vcpu], OFFSET as usize / 8);
        let mut ready = machine.fetch_and_word(control, first, !0xffff_ffff) as u32;
        let mut events = Vec::new();
        while ready != 0 {
            let priority = ready.trailing_zeros() as usize;
            let head = &mut self.heads[vcpu][priority];
            if *head == 0 {
                let heads = machine.read_word(control, first + 1 + priority / 2);
                *head = (heads >> (priority % 2 * 32)) as u32;
            }
            let port = *head;
            let seen = self.change(bed, port, |word| word & !(LINKED | EVTCHN_FIFO_LINK_MASK));
            self.heads[vcpu][priority] = seen & EVTCHN_FIFO_LINK_MASK;
            if self.heads[vcpu][priority] == 0 {
                ready &= !(1 << priority);
            }
            if seen & (PENDING | MASKED) == PENDING {
                self.change(bed, port, |word| word & !PENDING);
                events.push(port);
            }
        }
        events
    }
}

fn on_fifo(vcpus: u32) -> (Bed, Arc<Domain>, Side) {
    let bed = bed();
    let domain = bed.domain(1, vcpus);
    let mut side = Side::new(&bed, &domain);
    side.expand(&bed, &domain);
    (bed, domain, side)
}

fn prefer(domain: &Domain, port: u32, priority: u32) {
    set_priority(domain, &EvtchnSetPriority { port, priority }).unwrap();
}

#[test]
fn events_come_by_priority_and_then_in_the_order_they_were_sent() {
    let (bed, domain, mut side) = on_fifo(1);
    let ports: Vec<u32> = (0..5).map(|_| bind_ipi(&bed.hv, &domain, 0).unwrap()).collect();
    prefer(&domain, ports[3], 0);
    prefer(&domain, ports[0], 15);
    for port in [0, 2, 1, 4, 3, 2] {
        send(&bed.hv, &domain, ports[port]).unwrap();
    }
    let expected = [3, 2, 1, 4, 0].map(|index| ports[index]);
    assert_eq!(side.consume(&bed, 0), expected);
    assert_eq!(side.consume(&bed, 0), []);
    send(&bed.hv, &domain, ports[4]).unwrap();
    assert_eq!(side.consume(&bed, 0), [ports[4]], "the queue that ended with it is empty and not broken");
}

#[test]
fn an_upcall_is_due_once_a_queue_has_a_new_head() {
    let (bed, domain, mut side) = on_fifo(2);
    let port = bind_ipi(&bed.hv, &domain, 1).unwrap();
    unmask_upcalls(&bed, &domain);
    send(&bed.hv, &domain, port).unwrap();
    assert_eq!((word(&bed, &domain, 0) & 0xff, word(&bed, &domain, 64) & 0xff), (0, 1));
    assert_eq!((side.consume(&bed, 0), side.consume(&bed, 1)), (Vec::new(), alloc::vec![port]));
    assert_eq!(word(&bed, &domain, 2048), 0, "the bitmap is not used");
}

#[test]
fn a_masked_port_is_queued_when_it_is_unmasked() {
    let (bed, domain, mut side) = on_fifo(1);
    let port = bind_ipi(&bed.hv, &domain, 0).unwrap();
    side.change(&bed, port, |word| word | MASKED);
    send(&bed.hv, &domain, port).unwrap();
    assert_eq!(side.word(&bed, port), PENDING | MASKED);
    assert!(is_pending(&bed.hv, &domain, port).unwrap());
    assert_eq!(side.consume(&bed, 0), []);
    unmask(&bed.hv, &domain, port).unwrap();
    assert_eq!(side.consume(&bed, 0), [port]);
    unmask(&bed.hv, &domain, port).unwrap();
    assert_eq!(side.consume(&bed, 0), []);
}

#[test]
fn what_was_pending_before_stays_pending() {
    let bed = bed();
    let (a, b) = (bed.domain(0, 1), bed.domain(1, 1));
    let (near, far) = connect(&bed, &a, &b);
    send(&bed.hv, &a, near).unwrap();
    let mut side = Side::new(&bed, &b);
    let late = bind_ipi(&bed.hv, &b, 0).unwrap();
    let closed = bind_ipi(&bed.hv, &b, 0).unwrap();
    send(&bed.hv, &b, late).unwrap();
    send(&bed.hv, &b, closed).unwrap();
    assert!(!is_pending(&bed.hv, &b, far).unwrap(), "it has no word yet");
    close(&bed.hv, &b, closed).unwrap();
    unmask(&bed.hv, &b, far).unwrap();
    side.expand(&bed, &b);
    assert_eq!(side.consume(&bed, 0), [far, late]);
    send(&bed.hv, &a, near).unwrap();
    assert_eq!(side.consume(&bed, 0), [far]);
}

#[test]
fn a_closed_port_is_not_given_out_while_it_is_on_a_queue() {
    let (bed, domain, mut side) = on_fifo(1);
    let port = bind_ipi(&bed.hv, &domain, 0).unwrap();
    prefer(&domain, port, 3);
    send(&bed.hv, &domain, port).unwrap();
    close(&bed.hv, &domain, port).unwrap();
    let other = bind_ipi(&bed.hv, &domain, 0).unwrap();
    assert_eq!(other, port + 1);
    assert_eq!(side.consume(&bed, 0), [], "it is no longer pending");
    assert_eq!(bind_ipi(&bed.hv, &domain, 0).unwrap(), port);
    send(&bed.hv, &domain, other).unwrap();
    send(&bed.hv, &domain, port).unwrap();
    assert_eq!(side.consume(&bed, 0), [other, port], "and has the usual priority again");
}

#[test]
fn a_port_that_was_moved_is_queued_for_its_new_vcpu() {
    let bed = bed();
    let (a, b) = (bed.domain(0, 1), bed.domain(1, 2));
    let mut side = Side::new(&bed, &b);
    side.expand(&bed, &b);
    let (near, far) = connect(&bed, &a, &b);
    send(&bed.hv, &a, near).unwrap();
    assert_eq!(side.consume(&bed, 0), [far]);
    bind_vcpu(&b, far, 1).unwrap();
    send(&bed.hv, &a, near).unwrap();
    assert_eq!((side.consume(&bed, 0), side.consume(&bed, 1)), (Vec::new(), alloc::vec![far]));
    bind_vcpu(&b, far, 0).unwrap();
    send(&bed.hv, &a, near).unwrap();
    assert_eq!(side.consume(&bed, 0), [far], "its old tail there did not lead astray");
}

#[test]
fn an_event_of_a_vcpu_without_a_control_block_waits_for_its_unmask() {
    let bed = bed();
    let domain = bed.domain(1, 2);
    let control = frames::allocate_domain_frame(&bed.hv, &domain).unwrap();
    let mut request = EvtchnInitControl { control_gfn: control.0, ..Default::default() };
    init_control(&bed.hv, &domain, &mut request).unwrap();
    let page = frames::allocate_domain_frame(&bed.hv, &domain).unwrap();
    expand_array(&bed.hv, &domain, page.0).unwrap();
    let port = bind_ipi(&bed.hv, &domain, 1).unwrap();
    send(&bed.hv, &domain, port).unwrap();
    assert!(is_pending(&bed.hv, &domain, port).unwrap());
    let second = frames::allocate_domain_frame(&bed.hv, &domain).unwrap();
    request = EvtchnInitControl { control_gfn: second.0, offset: OFFSET, vcpu: 1, ..Default::default() };
    init_control(&bed.hv, &domain, &mut request).unwrap();
    unmask(&bed.hv, &domain, port).unwrap();
    let mut side =
        Side { array: alloc::vec![page], controls: alloc::vec![control, second], heads: alloc::vec![[0; 16]; 2] };
    assert_eq!(side.consume(&bed, 1), [port]);
}

#[test]
fn an_event_wakes_who_polls_its_port() {
    let bed = bed();
    let mut guest = bed.guest(1, 4);
    let mut side = Side::new(&bed, &guest.domain);
    side.expand(&bed, &guest.domain);
    let port = bind_ipi(&bed.hv, &guest.domain, 0).unwrap();
    side.change(&bed, port, |word| word | MASKED);
    guest.write(&bed, guest.address(1), &port);
    let mut poll = pv_abi::sched::SchedPoll { ports: guest.address(1), nr_ports: 1, ..Default::default() };
    let number = pv_abi::xen::HYPERVISOR_SCHED_OP;
    assert_eq!(guest.call_with(&bed, number, pv_abi::sched::SCHEDOP_POLL, &mut poll), 0);
    assert!(!guest.running.vcpu.is_runnable());
    send(&bed.hv, &guest.domain, port).unwrap();
    assert!(guest.running.vcpu.is_runnable());
}

fn counts(bed: &Bed, mfn: Mfn) -> (u32, u32) {
    let record = bed.hv.frames.record(mfn);
    (record.count_word().count(), record.type_word().count())
}

#[test]
fn pages_are_held_until_reset_goes_back_to_two_levels() {
    let bed = bed();
    let mut guest = bed.guest(1, 6);
    let before = counts(&bed, guest.frames[1]);
    let mut control = EvtchnInitControl { control_gfn: guest.frames[1].0, ..Default::default() };
    assert_eq!(guest.call_with(&bed, CALL, EVTCHNOP_INIT_CONTROL, &mut control), 0);
    assert_eq!(control.link_bits, 17);
    let mut array = EvtchnExpandArray { array_gfn: guest.frames[2].0 };
    assert_eq!(guest.call_with(&bed, CALL, EVTCHNOP_EXPAND_ARRAY, &mut array), 0);
    assert_eq!(counts(&bed, guest.frames[1]), (before.0 + 1, before.1 + 1));
    let old = bind_ipi(&bed.hv, &guest.domain, 0).unwrap();
    let mut reset = EvtchnReset { dom: pv_abi::xen::DOMID_SELF };
    assert_eq!(guest.call_with(&bed, CALL, EVTCHNOP_RESET, &mut reset), 0);
    assert_eq!([1, 2].map(|index| counts(&bed, guest.frames[index])), [before; 2]);
    refused(send(&bed.hv, &guest.domain, old), Errno::Inval, rule::NOT_SENDABLE);
    let port = bind_ipi(&bed.hv, &guest.domain, 0).unwrap();
    send(&bed.hv, &guest.domain, port).unwrap();
    assert!(pending(&bed, &guest.domain, port), "in the bitmap");
    assert_eq!(guest.call_with(&bed, CALL, EVTCHNOP_INIT_CONTROL, &mut control), 0, "and over again");
    while !relinquish(&bed.hv, &guest.domain) {}
    assert_eq!(counts(&bed, guest.frames[1]), before, "the pages of a domain that goes are let go as well");
}

#[test]
fn the_fifo_abi_has_more_ports_as_far_as_the_toolstack_lets() {
    let (bed, domain, mut side) = on_fifo(1);
    let size = 5_000;
    for expected in 1..size {
        assert_eq!(bind_ipi(&bed.hv, &domain, 0).unwrap(), expected);
    }
    (1..5).for_each(|_| side.expand(&bed, &domain));
    send(&bed.hv, &domain, size - 1).unwrap();
    assert_eq!(side.consume(&bed, 0), [size - 1]);
    let other = bed.domain(2, 1);
    *other.events.lock() = EventChannels::new(100);
    let _other_side = Side::new(&bed, &other);
    for _ in 0..100 {
        bind_ipi(&bed.hv, &other, 0).unwrap();
    }
    refused(bind_ipi(&bed.hv, &other, 0), Errno::NoSpc, rule::NO_FREE_PORT);
    let most = bed.domain(3, 1);
    let _most_side = Side::new(&bed, &most);
    for _ in 1..EVTCHN_FIFO_NR_CHANNELS {
        bind_ipi(&bed.hv, &most, 0).unwrap();
    }
    refused(bind_ipi(&bed.hv, &most, 0), Errno::NoSpc, rule::NO_FREE_PORT);
}

#[test]
fn a_guest_that_keeps_changing_a_word_only_loses_its_own_events() {
    let (bed, domain, side) = on_fifo(1);
    let (first, second) = (bind_ipi(&bed.hv, &domain, 0).unwrap(), bind_ipi(&bed.hv, &domain, 0).unwrap());
    send(&bed.hv, &domain, first).unwrap();
    bed.hv.machine.disturb(side.array[0], 0, 1 << 32 << 20, 100);
    send(&bed.hv, &domain, second).unwrap();
    assert_eq!(side.word(&bed, first) & 1 << 28, 0, "nothing is left busy");
    assert_eq!(side.word(&bed, second), PENDING | LINKED);
}

fn ask<T>(bed: &Bed, guest: &mut Guest, operation: u32, mut request: T) -> i64
where
    T: zerocopy::FromBytes + zerocopy::IntoBytes + zerocopy::Immutable,
{
    guest.call_with(bed, CALL, operation, &mut request)
}

#[test]
fn each_rule_of_the_fifo_abi_is_enforced() {
    broken_rules();
    let bed = bed();
    let mut guest = bed.guest(1, 6);
    let (own, foreign, table) = (guest.frames[1].0, bed.guest(2, 1).frames[0].0, guest.tables[3].0);
    let control = |control_gfn, offset, vcpu| EvtchnInitControl { control_gfn, offset, vcpu, ..Default::default() };
    let inval = Errno::Inval.as_return();
    let array = |array_gfn| EvtchnExpandArray { array_gfn };
    assert_eq!(ask(&bed, &mut guest, EVTCHNOP_EXPAND_ARRAY, array(own)), Errno::OpNotSupp.as_return());
    let priority = |port, priority| EvtchnSetPriority { port, priority };
    assert_eq!(ask(&bed, &mut guest, EVTCHNOP_SET_PRIORITY, priority(1, 1)), Errno::NoSys.as_return());
    let mut init = |gfn, offset, vcpu| ask(&bed, &mut guest, EVTCHNOP_INIT_CONTROL, control(gfn, offset, vcpu));
    assert_eq!(init(own, 0, 1), Errno::NoEnt.as_return());
    assert_eq!(init(own, 4096 - 64, 0), inval, "it leads out of the frame");
    assert_eq!(init(own, 4, 0), inval);
    assert_eq!(init(foreign, 0, 0), inval);
    assert_eq!(init(table, 0, 0), inval);
    assert_eq!(init(u64::MAX, 0, 0), inval);
    assert_eq!(init(own, 4096 - 72, 0), 0);
    assert_eq!(init(own, 0, 0), inval);
    assert_eq!(ask(&bed, &mut guest, EVTCHNOP_EXPAND_ARRAY, array(table)), inval);
    for _ in 0..128 {
        assert_eq!(ask(&bed, &mut guest, EVTCHNOP_EXPAND_ARRAY, array(own)), 0);
    }
    assert_eq!(ask(&bed, &mut guest, EVTCHNOP_EXPAND_ARRAY, array(own)), Errno::NoSpc.as_return());
    assert_eq!(ask(&bed, &mut guest, EVTCHNOP_SET_PRIORITY, priority(1, 16)), inval);
    assert_eq!(ask(&bed, &mut guest, EVTCHNOP_SET_PRIORITY, priority(64, 1)), inval);
    bind_ipi(&bed.hv, &guest.domain, 0).unwrap();
    refused(fifo_control::leave(&bed.hv, &guest.domain), Errno::Again, rule::OPENED_AGAIN);
    assert_eq!(
        broken_rules(),
        [
            "EVT-17", "EVT-19", "EVT-09", "EVT-14", "EVT-14", "EVT-16", "EVT-16", "EVT-16", "EVT-15", "EVT-16",
            "EVT-18", "EVT-20", "EVT-01"
        ]
    );
}
