//! FIFO event channels of several vCPUs: each reads queues of its own, while others send to them.
//!
//! Four vCPUs run at the same time. Whoever sends counts first what it sends for; whoever reads a queue takes what was
//! counted for the port that came. So an event that is lost, or linked into two queues, leaves a count that nobody took.
#![no_std]
#![no_main]
#![expect(unsafe_code, reason = "event words and control blocks are memory that the hypervisor writes")]

use core::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering};

use guest_tests::{
    Page, Shared, TrapFrame, VCPUS, about, all_vcpus_are_there, begin, check, end, expect, guest_test, hypercall,
    is_over, it_is_over, map_shared_info, meet, on_trap, operation, start_others, this_vcpu, vcpu_plain, verdict,
    work_through,
};
use pv_abi::event_channel::{
    EVTCHN_FIFO_LINK_MASK, EVTCHNOP_ALLOC_UNBOUND, EVTCHNOP_BIND_INTERDOMAIN, EVTCHNOP_BIND_IPI, EVTCHNOP_BIND_VCPU,
    EVTCHNOP_CLOSE, EVTCHNOP_EXPAND_ARRAY, EVTCHNOP_INIT_CONTROL, EVTCHNOP_SEND, EVTCHNOP_SET_PRIORITY,
    EVTCHNOP_UNMASK, EvtchnAllocUnbound, EvtchnBindInterdomain, EvtchnBindIpi, EvtchnBindVcpu, EvtchnClose,
    EvtchnExpandArray, EvtchnInitControl, EvtchnSend, EvtchnSetPriority, EvtchnUnmask,
};
use pv_abi::sched::SCHEDOP_BLOCK;
use pv_abi::vcpu::VCPUOP_STOP_PERIODIC_TIMER;
use pv_abi::xen::{DOMID_SELF, HYPERVISOR_EVENT_CHANNEL_OP, HYPERVISOR_SCHED_OP};

guest_test!(queues);

const EINVAL: i64 = -22;
const PENDING: u32 = 1 << 31;
const MASKED: u32 = 1 << 30;
const LINKED: u32 = 1 << 29;
/// Event words in a page.
const WORDS: u32 = 1024;
/// Pages that the array gets.
const PAGES: usize = 4;
/// Ports that are counted.
const PORTS: usize = 16;
/// How often each vCPU sends, calls, or moves something.
const TURNS: u32 = 400;

static CONTROLS: [Page; 4] = [const { Page::new() }; 4];
static ARRAY: [Page; PAGES] = [const { Page::new() }; PAGES];
static SHARED: AtomicU64 = AtomicU64::new(0);
/// The ports that a work is about, and those on which their events are sent.
static PORT: [AtomicU32; PORTS] = [const { AtomicU32::new(0) }; PORTS];
static FAR_END: [AtomicU32; PORTS] = [const { AtomicU32::new(0) }; PORTS];
/// What was counted for each of them, and not yet taken.
static COUNTED: [AtomicU32; PORTS] = [const { AtomicU32::new(0) }; PORTS];
/// What was taken of each.
static TAKEN: [AtomicU32; PORTS] = [const { AtomicU32::new(0) }; PORTS];

/// What all vCPUs do together, one after the other.
const TOGETHER: [fn(u32); 7] = [own_queues, priorities, storm, blocks, moved, unmasked_by_others, grown];

fn queues() {
    let shared = map_shared_info();
    SHARED.store(shared.va(), Ordering::SeqCst);
    about("VCPUOP_is_up");
    if !all_vcpus_are_there() {
        return;
    }
    on_trap(on_upcall);
    vcpu_plain(VCPUOP_STOP_PERIODIC_TIMER, 0);
    (0..VCPUS).for_each(|vcpu| shared.vcpu_info(vcpu).evtchn_upcall_mask.store(1, Ordering::SeqCst));
    about("EVTCHNOP_init_control");
    expect("each vCPU is given a control block", [0, 1, 2, 3].map(init_control), [0; 4]);
    expect("but once only", [0, 1, 2, 3].map(init_control), [EINVAL; 4]);
    about("EVTCHNOP_expand_array");
    expect("the array is given", expand(0), 0);
    check(start_others(other));
    work_through(0, &TOGETHER);
}

extern "C" fn other(vcpu: u32) -> ! {
    begin(vcpu);
    work_through(vcpu, &TOGETHER);
    end(vcpu);
}

fn op<T>(command: u32, mut request: T) -> i64 {
    operation(HYPERVISOR_EVENT_CHANNEL_OP, command, &mut request)
}

fn init_control(vcpu: u32) -> i64 {
    let control_gfn = CONTROLS[vcpu as usize].mfn();
    op(EVTCHNOP_INIT_CONTROL, EvtchnInitControl { control_gfn, vcpu, ..Default::default() })
}

fn expand(page: usize) -> i64 {
    op(EVTCHNOP_EXPAND_ARRAY, EvtchnExpandArray { array_gfn: ARRAY[page].mfn() })
}

/// A port that is a vCPU's, and counted at a place.
fn open(place: usize, vcpu: u32) -> u32 {
    let mut request = EvtchnBindIpi { vcpu, ..Default::default() };
    check(operation(HYPERVISOR_EVENT_CHANNEL_OP, EVTCHNOP_BIND_IPI, &mut request) == 0);
    opened(place, request.port, request.port);
    request.port
}

fn opened(place: usize, port: u32, far_end: u32) {
    PORT[place].store(port, Ordering::SeqCst);
    FAR_END[place].store(far_end, Ordering::SeqCst);
    COUNTED[place].store(0, Ordering::SeqCst);
    TAKEN[place].store(0, Ordering::SeqCst);
}

/// A port that can move between vCPUs, and its far end, which is pending once when it is bound.
fn open_pair(place: usize) {
    let mut offer = EvtchnAllocUnbound { dom: DOMID_SELF, remote_dom: DOMID_SELF, ..Default::default() };
    check(operation(HYPERVISOR_EVENT_CHANNEL_OP, EVTCHNOP_ALLOC_UNBOUND, &mut offer) == 0);
    let mut bound = EvtchnBindInterdomain { remote_dom: DOMID_SELF, remote_port: offer.port, ..Default::default() };
    check(operation(HYPERVISOR_EVENT_CHANNEL_OP, EVTCHNOP_BIND_INTERDOMAIN, &mut bound) == 0);
    opened(place, offer.port, bound.local_port);
    check(Queues::of(0).next().is_none_or(|port| port == bound.local_port));
}

/// The first vCPU opens a port for each place, of the vCPU that is said.
fn open_all(vcpu: u32, of: fn(usize) -> u32) {
    if vcpu == 0 {
        (0..PORTS).for_each(|place| {
            open(place, of(place));
        });
    }
    meet();
}

/// The first vCPU closes all ports.
fn close_all(vcpu: u32) {
    meet();
    if vcpu == 0 {
        for (port, far_end) in PORT.iter().zip(&FAR_END).map(|(port, end)| (load(port), load(end))) {
            check(close(port) == 0 && (far_end == port || close(far_end) == 0));
        }
    }
}

fn close(port: u32) -> i64 {
    op(EVTCHNOP_CLOSE, EvtchnClose { port })
}

fn load(word: &AtomicU32) -> u32 {
    word.load(Ordering::SeqCst)
}

fn port(place: usize) -> u32 {
    load(&PORT[place])
}

fn raise(port: u32) -> i64 {
    op(EVTCHNOP_SEND, EvtchnSend { port })
}

/// Counts, and sends.
fn send(place: usize) {
    COUNTED[place].fetch_add(1, Ordering::SeqCst);
    check(raise(load(&FAR_END[place])) == 0);
}

fn unmask(port: u32) -> i64 {
    op(EVTCHNOP_UNMASK, EvtchnUnmask { port })
}

fn prefer(port: u32, priority: u32) -> i64 {
    op(EVTCHNOP_SET_PRIORITY, EvtchnSetPriority { port, priority })
}

fn bind_vcpu(port: u32, vcpu: u32) -> i64 {
    op(EVTCHNOP_BIND_VCPU, EvtchnBindVcpu { port, vcpu })
}

/// A 32-bit word of a page.
fn word_of(page: &Page, index: u32) -> &AtomicU32 {
    // SAFETY: The page is the test's for ever, and both sides use its words atomically.
    unsafe { &*((page.va() + u64::from(index) * 4) as *const AtomicU32) }
}

fn word(port: u32) -> &'static AtomicU32 {
    word_of(&ARRAY[(port / WORDS) as usize], port % WORDS)
}

fn upcall_pending(vcpu: u32) -> &'static AtomicU8 {
    &Shared::at(SHARED.load(Ordering::SeqCst)).vcpu_info(vcpu).evtchn_upcall_pending
}

/// How far a vCPU has read each of its queues.
struct Queues {
    control: &'static Page,
    heads: [u32; 16],
    ready: u32,
}

impl Queues {
    /// Those of a vCPU, which are empty.
    fn of(vcpu: u32) -> Self {
        Self { control: &CONTROLS[vcpu as usize], heads: [0; 16], ready: 0 }
    }

    /// Takes the most urgent event.
    fn next(&mut self) -> Option<u32> {
        loop {
            self.ready |= word_of(self.control, 0).swap(0, Ordering::SeqCst);
            if self.ready == 0 {
                return None;
            }
            let priority = self.ready.trailing_zeros();
            let head = &mut self.heads[priority as usize];
            if *head == 0 {
                *head = word_of(self.control, 2 + priority).load(Ordering::SeqCst);
            }
            let port = *head;
            let seen = word(port).fetch_and(!(LINKED | EVTCHN_FIFO_LINK_MASK), Ordering::SeqCst);
            *head = seen & EVTCHN_FIFO_LINK_MASK;
            if *head == 0 {
                self.ready &= !(1 << priority);
            }
            if seen & (PENDING | MASKED) == PENDING {
                word(port).fetch_and(!PENDING, Ordering::SeqCst);
                return Some(port);
            }
        }
    }

    /// Takes all events, and what was counted for them; `each` is told the place of each.
    fn take_all(&mut self, mut each: impl FnMut(usize)) {
        while let Some(found) = self.next() {
            let place = (0..PORTS).find(|place| port(*place) == found);
            check(place.is_some());
            if let Some(place) = place {
                let counted = COUNTED[place].swap(0, Ordering::SeqCst);
                TAKEN[place].fetch_add(counted, Ordering::SeqCst);
                each(place);
            }
        }
    }
}

/// When all have sent, each vCPU takes what is left, and at the end so much was taken of each place.
fn all_taken(vcpu: u32, queues: &mut Queues, of_each: impl Fn(usize) -> u32) {
    meet();
    queues.take_all(|_| {});
    meet();
    if vcpu == 0 {
        (0..PORTS).for_each(|place| check(load(&TAKEN[place]) == of_each(place)));
        (0..PORTS).for_each(|place| check(load(word(port(place))) == 0));
    }
}

/// The event callback, on any vCPU: forgets that there is something to look at.
fn on_upcall(frame: &mut TrapFrame) -> bool {
    if frame.vector != 256 {
        return false;
    }
    upcall_pending(this_vcpu() as u32).store(0, Ordering::SeqCst);
    true
}

/// An event is in the queues of its port's vCPU alone, and that vCPU is told.
fn own_queues(vcpu: u32) {
    if vcpu == 0 {
        about("EVTCHNOP_bind_ipi EVTCHNOP_send");
    }
    open_all(vcpu, |place| place as u32 % VCPUS);
    upcall_pending(vcpu).store(0, Ordering::SeqCst);
    let mut queues = Queues::of(vcpu);
    meet();
    (0..PORTS).filter(|place| *place as u32 / 4 == vcpu).for_each(send);
    meet();
    check(upcall_pending(vcpu).swap(0, Ordering::SeqCst) == 1);
    let mut count = 0;
    queues.take_all(|place| {
        count += 1;
        check(place as u32 % VCPUS == vcpu);
    });
    check(count == 4);
    all_taken(vcpu, &mut queues, |_| 1);
    close_all(vcpu);
    verdict(vcpu, "an event is queued for the vCPU of its port, and for no other");
}

/// The priority of a place's port.
const fn priority(place: usize) -> u32 {
    [9, 0, 15, 4][place / 4]
}

/// Each vCPU takes the most urgent first, whoever sent and when.
fn priorities(vcpu: u32) {
    if vcpu == 0 {
        about("EVTCHNOP_set_priority EVTCHNOP_send");
    }
    open_all(vcpu, |place| place as u32 % VCPUS);
    if vcpu == 1 {
        (0..PORTS).for_each(|place| check(prefer(port(place), priority(place)) == 0));
    }
    let mut queues = Queues::of(vcpu);
    for round in 0..TURNS / 4 {
        meet();
        let of_others = (0..PORTS).filter(|place| (*place as u32 + round) / 4 % VCPUS == vcpu);
        of_others.for_each(send);
        meet();
        let mut last = 0;
        queues.take_all(|place| {
            check(priority(place) >= last);
            last = priority(place);
        });
        check(last == 15);
    }
    all_taken(vcpu, &mut queues, |_| TURNS / 4);
    close_all(vcpu);
    verdict(vcpu, "each vCPU takes the most urgent event first, whichever vCPU sent it");
}

/// All send to all, and change priorities, while each takes what comes.
fn storm(vcpu: u32) {
    if vcpu == 0 {
        about("EVTCHNOP_send EVTCHNOP_set_priority");
    }
    open_all(vcpu, |place| place as u32 % VCPUS);
    let mut queues = Queues::of(vcpu);
    for round in 0..TURNS {
        for place in 0..PORTS {
            send(place);
            if place as u32 / 4 == vcpu {
                check(prefer(port(place), (round + vcpu) % 16) == 0);
            }
        }
        queues.take_all(|_| {});
    }
    all_taken(vcpu, &mut queues, |_| TURNS * VCPUS);
    close_all(vcpu);
    verdict(vcpu, "of events that all vCPUs send to all none is lost, and none comes twice");
}

/// Two pairs of vCPUs call each other by turns, and block until the call comes.
fn blocks(vcpu: u32) {
    if vcpu == 0 {
        about("EVTCHNOP_send SCHEDOP_block");
    }
    open_all(vcpu, |place| place as u32 % VCPUS);
    let mut queues = Queues::of(vcpu);
    let (own, others) = (vcpu as usize, vcpu as usize ^ 1);
    let mask = &Shared::at(SHARED.load(Ordering::SeqCst)).vcpu_info(vcpu).evtchn_upcall_mask;
    upcall_pending(vcpu).store(0, Ordering::SeqCst);
    meet();
    for _ in 0..TURNS / 4 {
        if vcpu & 1 == 0 {
            send(others);
        }
        let mut came = false;
        while !came {
            // Looked at with events masked, so none comes between the look and the block, which takes the mask away.
            mask.store(1, Ordering::SeqCst);
            upcall_pending(vcpu).store(0, Ordering::SeqCst);
            queues.take_all(|place| came |= place == own);
            if !came {
                check(hypercall(HYPERVISOR_SCHED_OP, [u64::from(SCHEDOP_BLOCK), 0, 0, 0, 0]) == 0);
            }
        }
        if vcpu & 1 == 1 {
            send(others);
        }
    }
    mask.store(1, Ordering::SeqCst);
    all_taken(vcpu, &mut queues, |place| if place < 4 { TURNS / 4 } else { 0 });
    close_all(vcpu);
    verdict(vcpu, "vCPUs that block wake for a queue that got a head");
}

/// Ports move from vCPU to vCPU while they are pending, linked, and sent to.
fn moved(vcpu: u32) {
    if vcpu == 0 {
        about("EVTCHNOP_bind_vcpu EVTCHNOP_send");
    }
    if vcpu == 0 {
        (0..PORTS).for_each(open_pair);
    }
    meet();
    let mut queues = Queues::of(vcpu);
    for round in 0..TURNS {
        for place in 0..PORTS {
            send(place);
            if place as u32 % VCPUS == vcpu {
                check(bind_vcpu(port(place), round % VCPUS) == 0);
            }
        }
        queues.take_all(|_| {});
    }
    all_taken(vcpu, &mut queues, |_| TURNS * VCPUS);
    close_all(vcpu);
    verdict(vcpu, "ports that move between vCPUs while they are pending lose no event");
}

/// Whoever takes an event masks its port; another vCPU takes the mask away.
fn unmasked_by_others(vcpu: u32) {
    if vcpu == 0 {
        about("EVTCHNOP_unmask EVTCHNOP_send");
    }
    open_all(vcpu, |place| place as u32 % VCPUS);
    let mut queues = Queues::of(vcpu);
    for _ in 0..TURNS {
        for place in 0..PORTS {
            send(place);
            if (place as u32 + 1) % VCPUS == vcpu {
                check(unmask(port(place)) == 0);
            }
        }
        queues.take_all(|place| {
            word(port(place)).fetch_or(MASKED, Ordering::SeqCst);
        });
    }
    meet();
    (0..PORTS).filter(|place| (*place as u32 + 2) % VCPUS == vcpu).for_each(|place| check(unmask(port(place)) == 0));
    all_taken(vcpu, &mut queues, |_| TURNS * VCPUS);
    close_all(vcpu);
    verdict(vcpu, "what came while a port was masked is queued when another vCPU takes the mask away");
}

/// Ports whose words are not there yet are sent to while the array grows.
fn grown(vcpu: u32) {
    if vcpu == 0 {
        about("EVTCHNOP_expand_array EVTCHNOP_send");
        // Each place has a port of the last page.
        let first = WORDS * (PAGES as u32 - 1);
        let mut place = 0;
        while place < PORTS {
            place += usize::from(open(place, place as u32 % VCPUS) >= first);
        }
    }
    meet();
    let own = || (0..PORTS).filter(|place| *place as u32 / 4 == vcpu).for_each(|place| check(raise(port(place)) == 0));
    own();
    if vcpu == 0 {
        (1..PAGES).for_each(|page| check(expand(page) == 0));
        it_is_over();
    }
    while !is_over() {
        own();
    }
    own();
    meet();
    let mut queues = Queues::of(vcpu);
    let mut count = 0;
    queues.take_all(|place| {
        count += 1;
        check(place as u32 % VCPUS == vcpu);
    });
    check(count == 4);
    check(load(word_of(queues.control, 0)) == 0);
    verdict(vcpu, "ports that are sent to while the array grows are queued once it has their words");
}
