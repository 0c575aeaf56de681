//! The FIFO event channels: control blocks, the event array, priorities, and a guest that breaks its own.
//!
//! The guest reads its queues as the protocol says, so a word that is linked wrongly shows as an event that is lost, in
//! the wrong place or there twice.
#![no_std]
#![no_main]
#![expect(unsafe_code, reason = "event words and control blocks are memory that the hypervisor writes")]

use core::sync::atomic::{AtomicU32, Ordering};

use guest_tests::{
    A, D, P, Page, RW, Shared, about, expect, guest_test, map_shared_info, mfn_of, mmuext, operation, start_info,
    update_va_mapping,
};
use pv_abi::event_channel::{
    EVTCHN_FIFO_LINK_MASK, EVTCHNOP_BIND_IPI, EVTCHNOP_CLOSE, EVTCHNOP_EXPAND_ARRAY, EVTCHNOP_INIT_CONTROL,
    EVTCHNOP_RESET, EVTCHNOP_SEND, EVTCHNOP_SET_PRIORITY, EVTCHNOP_UNMASK, EvtchnBindIpi, EvtchnClose,
    EvtchnExpandArray, EvtchnInitControl, EvtchnReset, EvtchnSend, EvtchnSetPriority, EvtchnUnmask,
};
use pv_abi::sched::{SCHEDOP_POLL, SchedPoll};
use pv_abi::xen::{
    DOMID_SELF, HYPERVISOR_EVENT_CHANNEL_OP, HYPERVISOR_SCHED_OP, MMUEXT_PIN_L1_TABLE, MMUEXT_UNPIN_TABLE,
};

guest_test!(fifo);

const ENOENT: i64 = -2;
const EINVAL: i64 = -22;
const ENOSPC: i64 = -28;
const ENOSYS: i64 = -38;
const EOPNOTSUPP: i64 = -95;
const INVLPG: u64 = 2;

const PENDING: u32 = 1 << 31;
const MASKED: u32 = 1 << 30;
const LINKED: u32 = 1 << 29;
const BUSY: u32 = 1 << 28;
/// Where the control block begins in its page.
const OFFSET: u64 = 128;
/// Pages that the array gets, for ports below 8192.
const PAGES: usize = 8;

static CONTROL: Page = Page::new();
static ARRAY: [Page; PAGES] = [const { Page::new() }; PAGES];

fn fifo() {
    let shared = map_shared_info();
    before();
    let early = bind_ipi();
    shared.set_mask(early, true);
    expect("an event is sent in the 2-level ABI", send(early), 0);
    control_block();
    let mut queues = Queues { heads: [0; 16] };
    array(&mut queues, early);
    order(&mut queues);
    masks(&mut queues);
    linked_ports(&mut queues);
    polls(&mut queues);
    many_ports(&mut queues);
    broken_words();
    reset(shared);
}

fn op<T>(command: u32, mut request: T) -> i64 {
    operation(HYPERVISOR_EVENT_CHANNEL_OP, command, &mut request)
}

fn bind_ipi() -> u32 {
    let mut request = EvtchnBindIpi::default();
    let result = operation(HYPERVISOR_EVENT_CHANNEL_OP, EVTCHNOP_BIND_IPI, &mut request);
    if result == 0 { request.port } else { 0 }
}

fn send(port: u32) -> i64 {
    op(EVTCHNOP_SEND, EvtchnSend { port })
}

fn close(port: u32) -> i64 {
    op(EVTCHNOP_CLOSE, EvtchnClose { port })
}

fn unmask(port: u32) -> i64 {
    op(EVTCHNOP_UNMASK, EvtchnUnmask { port })
}

fn prefer(port: u32, priority: u32) -> i64 {
    op(EVTCHNOP_SET_PRIORITY, EvtchnSetPriority { port, priority })
}

fn init_control(control_gfn: u64, offset: u64, vcpu: u32) -> (i64, u8) {
    let mut request = EvtchnInitControl { control_gfn, offset: offset as u32, vcpu, ..Default::default() };
    (operation(HYPERVISOR_EVENT_CHANNEL_OP, EVTCHNOP_INIT_CONTROL, &mut request), request.link_bits)
}

fn expand(array_gfn: u64) -> i64 {
    op(EVTCHNOP_EXPAND_ARRAY, EvtchnExpandArray { array_gfn })
}

/// A 32-bit word of a page.
fn word_of(page: &Page, index: usize) -> &AtomicU32 {
    // SAFETY: The page is the test's for ever, and both sides use its words atomically.
    unsafe { &*((page.va() + index as u64 * 4) as *const AtomicU32) }
}

fn control(index: usize) -> &'static AtomicU32 {
    word_of(&CONTROL, OFFSET as usize / 4 + index)
}

fn word(port: u32) -> &'static AtomicU32 {
    word_of(&ARRAY[port as usize / 1024], port as usize % 1024)
}

fn bits(port: u32) -> u32 {
    word(port).load(Ordering::SeqCst)
}

/// How far the guest has read each queue.
struct Queues {
    heads: [u32; 16],
}

/// Events in the order they came; 0 where there were no more.
type Events = [u32; 6];

impl Queues {
    /// Takes up to six events.
    fn consume(&mut self) -> Events {
        let mut events = [0; 6];
        let mut count = 0;
        let mut ready = control(0).swap(0, Ordering::SeqCst);
        while ready != 0 && count < events.len() {
            let priority = ready.trailing_zeros() as usize;
            let head = &mut self.heads[priority];
            if *head == 0 {
                *head = control(2 + priority).load(Ordering::SeqCst);
            }
            let port = *head;
            let seen = word(port).fetch_and(!(LINKED | EVTCHN_FIFO_LINK_MASK), Ordering::SeqCst);
            *head = seen & EVTCHN_FIFO_LINK_MASK;
            if *head == 0 {
                ready &= !(1 << priority);
            }
            if seen & (PENDING | MASKED) == PENDING {
                word(port).fetch_and(!PENDING, Ordering::SeqCst);
                events[count] = port;
                count += 1;
            }
        }
        events
    }
}

fn before() {
    about("EVTCHNOP_init_control EVTCHNOP_expand_array EVTCHNOP_set_priority");
    expect("the array does not begin before a control block", expand(ARRAY[0].mfn()), EOPNOTSUPP);
    expect("there are no priorities in the 2-level ABI", prefer(0, 1), ENOSYS);
    let mfn = CONTROL.mfn();
    expect("a vCPU that is not has no control block", init_control(mfn, 0, 77).0, ENOENT);
    expect("a control block is at a multiple of 8", init_control(mfn, 4, 0).0, EINVAL);
    expect("a control block ends in its page", init_control(mfn, 4096 - 64, 0).0, EINVAL);
    expect("a control block is in memory", init_control(u64::MAX >> 12, 0, 0).0, EINVAL);
    expect("a control block is in the domain's memory", init_control(0, 0, 0).0, EINVAL);
    expect("a control block is in no page table", init_control(mfn_of(start_info().pt_base), 0, 0).0, EINVAL);
    expect("the domain still uses the 2-level ABI", prefer(0, 1), ENOSYS);
}

fn control_block() {
    about("EVTCHNOP_init_control");
    control(2 + 3).store(0x55, Ordering::SeqCst);
    expect("a control block is taken", init_control(CONTROL.mfn(), OFFSET, 0), (0, 17));
    expect("what is in it is left alone", control(2 + 3).load(Ordering::SeqCst), 0x55);
    control(2 + 3).store(0, Ordering::SeqCst);
    expect("a vCPU has one control block", init_control(CONTROL.mfn(), 0, 0).0, EINVAL);
    let readonly = update_va_mapping(CONTROL.va(), CONTROL.mfn() << 12 | P | A, INVLPG);
    let pin = mmuext(MMUEXT_PIN_L1_TABLE, CONTROL.mfn(), 0);
    expect("a control block cannot become a page table", (readonly, pin), (0, EINVAL));
    update_va_mapping(CONTROL.va(), CONTROL.mfn() << 12 | P | RW | A | D, INVLPG);
}

fn array(queues: &mut Queues, early: u32) {
    about("EVTCHNOP_expand_array");
    expect("an event without a word is sent", send(early), 0);
    expect("a page of the array is in the domain's memory", expand(0), EINVAL);
    expect("a page of the array is no page table", expand(mfn_of(start_info().pt_base)), EINVAL);
    expect("the array grows", expand(ARRAY[0].mfn()), 0);
    expect("what was pending in the bitmap is queued", bits(early), PENDING | LINKED);
    expect("and comes once", queues.consume(), [early, 0, 0, 0, 0, 0]);
    expect("the port is closed", close(early), 0);
}

fn order(queues: &mut Queues) {
    about("EVTCHNOP_set_priority EVTCHNOP_send");
    let ports: [u32; 5] = core::array::from_fn(|_| bind_ipi());
    expect("a priority is 15 at most", prefer(ports[0], 16), EINVAL);
    expect("a priority is of a port", prefer(100_000, 1), EINVAL);
    expect("a port is made urgent", prefer(ports[3], 0), 0);
    expect("a port is made less urgent", prefer(ports[0], 15), 0);
    for index in [0, 2, 1, 4, 3, 2] {
        send(ports[index]);
    }
    expect("an event is ready in three queues", control(0).load(Ordering::SeqCst), 1 << 0 | 1 << 7 | 1 << 15);
    let expected = [ports[3], ports[2], ports[1], ports[4], ports[0], 0];
    expect("events come by priority, then in order", queues.consume(), expected);
    send(ports[4]);
    send(ports[1]);
    expect("a queue that was emptied is used again", queues.consume(), [ports[4], ports[1], 0, 0, 0, 0]);
    send(ports[1]);
    prefer(ports[1], 2);
    send(ports[1]);
    expect("a port that is queued stays where it is", control(0).load(Ordering::SeqCst), 1 << 7);
    expect("and comes once", queues.consume(), [ports[1], 0, 0, 0, 0, 0]);
    send(ports[1]);
    expect("later it is where it was put", control(0).load(Ordering::SeqCst), 1 << 2);
    queues.consume();
    expect("all are closed", ports.map(close), [0; 5]);
}

fn masks(queues: &mut Queues) {
    about("EVTCHNOP_unmask EVTCHNOP_send");
    let port = bind_ipi();
    word(port).fetch_or(MASKED, Ordering::SeqCst);
    send(port);
    expect("a masked port is pending and not linked", bits(port), PENDING | MASKED);
    expect("it is unmasked", unmask(port), 0);
    expect("then it is linked", bits(port), PENDING | LINKED);
    expect("and comes", queues.consume(), [port, 0, 0, 0, 0, 0]);
    expect("a port that is not pending is unmasked", (unmask(port), bits(port)), (0, 0));
    send(port);
    word(port).fetch_or(MASKED, Ordering::SeqCst);
    expect("a port that is masked while it is queued does not come", queues.consume(), [0; 6]);
    expect("unmasking it", unmask(port), 0);
    expect("queues it again", queues.consume(), [port, 0, 0, 0, 0, 0]);
    close(port);
}

fn linked_ports(queues: &mut Queues) {
    about("EVTCHNOP_close EVTCHNOP_bind_ipi");
    let port = bind_ipi();
    send(port);
    expect("a port is closed while it is queued", close(port), 0);
    expect("it is no longer pending, but linked", bits(port), LINKED);
    let other = bind_ipi();
    expect("it is not given out while it is linked", other != port, true);
    expect("it does not come", queues.consume(), [0; 6]);
    expect("then it is given out", bind_ipi(), port);
    close(port);
    close(other);
}

fn polls(queues: &mut Queues) {
    about("SCHEDOP_poll");
    let port = bind_ipi();
    word(port).fetch_or(MASKED, Ordering::SeqCst);
    send(port);
    let ports = [port];
    let mut poll = SchedPoll { ports: ports.as_ptr() as u64, nr_ports: 1, ..Default::default() };
    expect("a poll sees an event word", operation(HYPERVISOR_SCHED_OP, SCHEDOP_POLL, &mut poll), 0);
    unmask(port);
    queues.consume();
    close(port);
}

/// Ports beyond those of the 2-level ABI.
fn many_ports(queues: &mut Queues) {
    about("EVTCHNOP_expand_array EVTCHNOP_bind_ipi");
    let grown: [i64; PAGES - 1] = core::array::from_fn(|index| expand(ARRAY[index + 1].mfn()));
    expect("the array grows seven times", grown, [0; PAGES - 1]);
    let last = (0..5000).fold(0, |_, _| bind_ipi());
    expect("there are more than 4096 ports", last, 5000);
    send(last);
    expect("the last one's event comes", queues.consume(), [last, 0, 0, 0, 0, 0]);
    let pages = (PAGES..200).take_while(|_| expand(ARRAY[0].mfn()) == 0).count();
    expect("the array ends at 128 pages", (PAGES + pages, expand(ARRAY[0].mfn())), (128, ENOSPC));
}

/// What the guest writes into its own words harms only itself.
fn broken_words() {
    about("EVTCHNOP_send EVTCHNOP_unmask");
    send(1);
    word(1).store(PENDING | LINKED | BUSY | 1, Ordering::SeqCst);
    expect("an event is sent after one that links to itself", send(2), 0);
    expect("its tail's link is changed all the same", bits(1) & (BUSY | EVTCHN_FIFO_LINK_MASK), 2);
    word(2).store(LINKED | EVTCHN_FIFO_LINK_MASK, Ordering::SeqCst);
    expect("an event is sent after a link out of the array", (send(3), bits(2) & EVTCHN_FIFO_LINK_MASK), (0, 3));
    word(3).store(0, Ordering::SeqCst);
    send(4);
    expect("a tail that is not linked begins its queue anew", control(2 + 7).load(Ordering::SeqCst), 4);
    let mut random = 0x1234_5678_9abc_def1_u64;
    let mut results = 0;
    for _ in 0..20_000 {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        let port = (random >> 32) as u32 % 16 + 1;
        word(port).store(random as u32, Ordering::SeqCst);
        control(random as usize % 18).store((random >> 20) as u32, Ordering::SeqCst);
        results |= if random & 1 == 0 { send(port % 7 + 1) } else { unmask(port) };
        results |= prefer(port, (random >> 8) as u32 % 16);
    }
    expect("a guest that writes anything is served all the same", results, 0);
}

fn reset(shared: Shared) {
    about("EVTCHNOP_reset EVTCHNOP_init_control");
    expect("all ports are closed", op(EVTCHNOP_RESET, EvtchnReset { dom: DOMID_SELF }), 0);
    expect("the array is gone", expand(ARRAY[0].mfn()), EOPNOTSUPP);
    expect("the last port is closed", send(5000), EINVAL);
    let port = bind_ipi();
    shared.clear(port);
    shared.set_mask(port, true);
    expect("an event is sent in the 2-level ABI again", (send(port), shared.is_pending(port)), (0, true));
    shared.clear(port);
    (0..1024).for_each(|index| word_of(&CONTROL, index).store(0, Ordering::SeqCst));
    update_va_mapping(CONTROL.va(), CONTROL.mfn() << 12 | P | A, INVLPG);
    expect("what was a control block can become a page table", mmuext(MMUEXT_PIN_L1_TABLE, CONTROL.mfn(), 0), 0);
    expect("which it ends to be", mmuext(MMUEXT_UNPIN_TABLE, CONTROL.mfn(), 0), 0);
    update_va_mapping(CONTROL.va(), CONTROL.mfn() << 12 | P | RW | A | D, INVLPG);
    expect("the FIFO ABI is taken again", init_control(CONTROL.mfn(), OFFSET, 0), (0, 17));
    expect("all ports are closed again", op(EVTCHNOP_RESET, EvtchnReset { dom: DOMID_SELF }), 0);
}
