//! Arguments that change while a hypercall reads them, and between its parts.
//!
//! The first vCPU makes hypercalls; the three others change what it handed over, from something that is allowed to
//! something that is not and back. Whatever a call answers, it has done what it answered, and nothing that is not allowed.
//! A call that stops and goes on reads its arguments again, so those of long calls change between its parts as well.
#![no_std]
#![no_main]
#![expect(unsafe_code, reason = "arguments are words that other vCPUs write")]

use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use guest_tests::{
    A, D, P, Page, RW, VCPUS, about, all_vcpus_are_there, begin, check, end, expect, guest_test, hypercall, is_over,
    it_is_over, map_shared_info, mfn_of, mmuext, operation, peek, start_info, start_others, update_va_mapping, verdict,
    work_through, write_at,
};
use pv_abi::event_channel::{
    EVTCHNOP_ALLOC_UNBOUND, EVTCHNOP_BIND_VCPU, EVTCHNOP_CLOSE, EVTCHNOP_STATUS, EvtchnAllocUnbound, EvtchnBindVcpu,
    EvtchnClose, EvtchnStatus,
};
use pv_abi::memory::{
    MemoryReservation, XENMEM_CURRENT_RESERVATION, XENMEM_DECREASE_RESERVATION, XENMEM_INCREASE_RESERVATION,
};
use pv_abi::xen::{
    DOMID_SELF, HYPERVISOR_EVENT_CHANNEL_OP, HYPERVISOR_GRANT_TABLE_OP, HYPERVISOR_MEMORY_OP, HYPERVISOR_MMU_UPDATE,
    HYPERVISOR_MULTICALL, HYPERVISOR_SET_GDT, HYPERVISOR_XEN_VERSION, MMUEXT_PIN_L1_TABLE, MMUEXT_UNPIN_TABLE,
    MmuUpdate, MulticallEntry,
};

guest_test!(arguments);

const ENOENT: i64 = -2;
const EBUSY: i64 = -16;
const EINVAL: i64 = -22;
const ENOSYS: i64 = -38;
const INVLPG: u64 = 2;
/// How often the first vCPU makes each call.
const TURNS: u32 = 300;
/// Requests of one call.
const REQUESTS: usize = 128;
/// Frames of one call.
const FRAMES: usize = 256;

static TABLE: Page = Page::new();
static DATA: Page = Page::new();
static GDT: Page = Page::new();
/// What the first vCPU hands over, and the others change.
static ARGUMENTS: Page = Page::new();
static LIST: Page = Page::new();
/// The word of the arguments that changes, and its two values.
static PLACE: AtomicU64 = AtomicU64::new(0);
static STEP: AtomicU64 = AtomicU64::new(0);
static COUNT: AtomicU32 = AtomicU32::new(0);
static VALUES: [AtomicU64; 2] = [const { AtomicU64::new(0) }; 2];

/// What all vCPUs do together, one after the other.
const TOGETHER: [fn(u32); 6] = [entries, pointers, descriptors, ports, calls, frames];

fn arguments() {
    about("VCPUOP_is_up");
    if !all_vcpus_are_there() {
        return;
    }
    let shared = map_shared_info();
    (0..VCPUS).for_each(|vcpu| shared.vcpu_info(vcpu).evtchn_upcall_mask.store(1, Ordering::SeqCst));
    forged();
    check(start_others(other));
    work_through(0, &TOGETHER);
}

extern "C" fn other(vcpu: u32) -> ! {
    begin(vcpu);
    work_through(vcpu, &TOGETHER);
    end(vcpu);
}

fn word(address: u64) -> &'static AtomicU64 {
    // SAFETY: The words of the arguments' page are the test's for ever, and all vCPUs use them atomically.
    unsafe { &*(address as *const AtomicU64) }
}

/// Says what the others change: `count` words, `step` bytes apart, from the argument page's `offset` on.
fn change(offset: u64, step: u64, count: usize, values: [u64; 2]) {
    (0..count as u64).for_each(|index| word(ARGUMENTS.va() + offset + index * step).store(values[0], Ordering::SeqCst));
    VALUES.iter().zip(values).for_each(|(place, value)| place.store(value, Ordering::SeqCst));
    STEP.store(step, Ordering::SeqCst);
    COUNT.store(count as u32, Ordering::SeqCst);
    PLACE.store(ARGUMENTS.va() + offset, Ordering::SeqCst);
}

/// The first vCPU does `turn` again and again, while the others change what was said.
fn raced(vcpu: u32, turn: impl FnMut(u32)) {
    if vcpu == 0 {
        (0..TURNS).for_each(turn);
        PLACE.store(0, Ordering::SeqCst);
        it_is_over();
        return;
    }
    let mut round = u64::from(vcpu);
    while !is_over() {
        let (place, count) = (PLACE.load(Ordering::SeqCst), COUNT.load(Ordering::SeqCst));
        if place == 0 {
            continue;
        }
        round = round.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let value = VALUES[(round >> 63) as usize].load(Ordering::SeqCst);
        let index = (round >> 32) % u64::from(count.max(1));
        word(place + index * STEP.load(Ordering::SeqCst)).store(value, Ordering::SeqCst);
    }
}

fn at<T>(offset: u64) -> &'static mut T {
    // SAFETY: The page holds arguments of the kind that is asked for; what others write at the same time is read by the
    // hypervisor alone.
    unsafe { &mut *((ARGUMENTS.va() + offset) as *mut T) }
}

fn address() -> u64 {
    ARGUMENTS.va()
}

/// The frame in a page-table entry.
fn frame_in(entry: u64) -> u64 {
    peek(entry) >> 12 & 0xff_ffff_ffff
}

/// An answer, or one of some refusals.
fn is_one_of(answer: i64, allowed: &[i64]) -> bool {
    allowed.contains(&answer)
}

/// A call that says itself how much of it is done.
fn forged() {
    about("memory_op");
    let mut frame = 0_u64;
    let mut request = MemoryReservation {
        extent_start: core::ptr::from_mut(&mut frame) as u64,
        nr_extents: 1,
        domid: DOMID_SELF,
        ..Default::default()
    };
    let before = reserved();
    let from = |extent: u32, request: &mut MemoryReservation| {
        operation(HYPERVISOR_MEMORY_OP, XENMEM_INCREASE_RESERVATION | extent << 6, request)
    };
    expect("a call that says it is over is over", from(1, &mut request), 1);
    expect("beyond its end, too", from(77, &mut request), 77);
    expect("and nothing happened", reserved(), before);
    about("mmu_update");
    let mut done = 5_u32;
    let requests = [MmuUpdate::default(); 1];
    let count = |count: u64, requests: u64, done: &mut u32| {
        hypercall(HYPERVISOR_MMU_UPDATE, [requests, count, core::ptr::from_mut(done) as u64, u64::from(DOMID_SELF), 0])
    };
    expect("a call of which nothing is left answers what it says", count(1 << 31, 0, &mut done), DOMID_SELF.into());
    let refused = count(1 << 31 | 1, requests.as_ptr() as u64, &mut done);
    expect("what is left is checked", refused < 0, true);
    about("grant_table_op");
    let forged = hypercall(HYPERVISOR_GRANT_TABLE_OP, [1 << 12 | 5, address(), 1, 0, 0]);
    expect("a grant operation that has no parts does not go on", forged, EINVAL);
}

/// Entries that are written change between a page of data, writable, and a page table, writable.
fn entries(vcpu: u32) {
    if vcpu == 0 {
        about("mmu_update");
        check(update_va_mapping(TABLE.va(), TABLE.mfn() << 12 | P | A, INVLPG) == 0);
        check(mmuext(MMUEXT_PIN_L1_TABLE, TABLE.mfn(), 0) == 0);
        for index in 0..REQUESTS as u64 {
            at::<MmuUpdate>(index * 16).ptr = (TABLE.mfn() << 12) + index * 8;
        }
        let values = [DATA.mfn(), TABLE.mfn()].map(|mfn| mfn << 12 | P | RW | A | D);
        change(8, 16, REQUESTS, values);
    }
    raced(vcpu, |_| {
        let mut done = 0_u32;
        let arguments = [address(), REQUESTS as u64, &raw mut done as u64, u64::from(DOMID_SELF), 0];
        let answer = hypercall(HYPERVISOR_MMU_UPDATE, arguments);
        check(is_one_of(answer, &[0, EBUSY, EINVAL]) && (answer != 0 || done == REQUESTS as u32));
        let wrong = (0..512).filter(|entry| ![0, DATA.mfn()].contains(&frame_in(TABLE.va() + entry * 8)));
        check(wrong.count() == 0);
    });
    verdict(vcpu, "no entry that was not checked is written, whoever changes the request");
}

/// The places of entries change between a page table and where there is none.
fn pointers(vcpu: u32) {
    if vcpu == 0 {
        about("mmu_update");
        for index in 0..REQUESTS as u64 {
            at::<MmuUpdate>(index * 16).val = 0;
        }
        change(0, 16, REQUESTS, [(TABLE.mfn() << 12) + 8, (1 << 45) + 8]);
    }
    raced(vcpu, |_| {
        let mut done = 0_u32;
        let arguments = [address(), REQUESTS as u64, &raw mut done as u64, u64::from(DOMID_SELF), 0];
        let answer = hypercall(HYPERVISOR_MMU_UPDATE, arguments);
        check((answer == 0) == (done == REQUESTS as u32) && is_one_of(answer, &[0, EINVAL]));
    });
    if vcpu == 0 {
        (0..512).for_each(|entry| check([0, DATA.mfn()].contains(&frame_in(TABLE.va() + entry * 8))));
        check(mmuext(MMUEXT_UNPIN_TABLE, TABLE.mfn(), 0) == 0);
        check(update_va_mapping(TABLE.va(), TABLE.mfn() << 12 | P | RW | A | D, INVLPG) == 0);
    }
    verdict(vcpu, "requests are counted as done up to the first that is refused");
}

/// The frame of a descriptor table changes between one that can be one, and a page table.
fn descriptors(vcpu: u32) {
    if vcpu == 0 {
        about("set_gdt");
        check(update_va_mapping(GDT.va(), GDT.mfn() << 12 | P | A, INVLPG) == 0);
        change(0, 8, 1, [GDT.mfn(), mfn_of(start_info().pt_base)]);
    }
    raced(vcpu, |_| {
        let set = hypercall(HYPERVISOR_SET_GDT, [address(), 512, 0, 0, 0]);
        let writable = update_va_mapping(GDT.va(), GDT.mfn() << 12 | P | RW | A | D, INVLPG);
        check(matches!((set, writable), (0, EBUSY) | (EINVAL, 0)));
        check(hypercall(HYPERVISOR_SET_GDT, [0; 5]) == 0);
        check(update_va_mapping(GDT.va(), GDT.mfn() << 12 | P | A, INVLPG) == 0);
    });
    if vcpu == 0 {
        check(update_va_mapping(GDT.va(), GDT.mfn() << 12 | P | RW | A | D, INVLPG) == 0);
    }
    verdict(vcpu, "a descriptor table is of the frame that was checked");
}

/// The vCPU that a port is bound to changes between one that there is and one that there is not.
fn ports(vcpu: u32) {
    let mut offer = EvtchnAllocUnbound { dom: DOMID_SELF, remote_dom: DOMID_SELF, ..Default::default() };
    if vcpu == 0 {
        about("EVTCHNOP_bind_vcpu");
        check(operation(HYPERVISOR_EVENT_CHANNEL_OP, EVTCHNOP_ALLOC_UNBOUND, &mut offer) == 0);
        *at(0) = EvtchnBindVcpu { port: offer.port, vcpu: 0 };
        let request = |vcpu: u64| u64::from(offer.port) | vcpu << 32;
        change(0, 8, 1, [request(2), request(77)]);
    }
    raced(vcpu, |_| {
        let answer = operation(HYPERVISOR_EVENT_CHANNEL_OP, EVTCHNOP_BIND_VCPU, at::<EvtchnBindVcpu>(0));
        let mut status = EvtchnStatus { dom: DOMID_SELF, port: offer.port, ..Default::default() };
        check(operation(HYPERVISOR_EVENT_CHANNEL_OP, EVTCHNOP_STATUS, &mut status) == 0);
        check(is_one_of(answer, &[0, ENOENT]) && [0, 2].contains(&status.vcpu));
    });
    if vcpu == 0 {
        check(operation(HYPERVISOR_EVENT_CHANNEL_OP, EVTCHNOP_CLOSE, &mut EvtchnClose { port: offer.port }) == 0);
    }
    verdict(vcpu, "a port is bound to a vCPU that there is");
}

/// The calls of a multicall change between one that there is and one that there is not.
fn calls(vcpu: u32) {
    const CALLS: u64 = 32;
    if vcpu == 0 {
        about("multicall");
        (0..CALLS).for_each(|index| *at(index * 64) = MulticallEntry::default());
        change(0, 64, CALLS as usize, [HYPERVISOR_XEN_VERSION, 63]);
    }
    raced(vcpu, |_| {
        check(hypercall(HYPERVISOR_MULTICALL, [address(), CALLS, 0, 0, 0]) == 0);
        let results = (0..CALLS).map(|index| word(address() + index * 64 + 8).load(Ordering::SeqCst).cast_signed());
        check(results.into_iter().all(|result| is_one_of(result, &[4 << 16 | 17, ENOSYS])));
    });
    verdict(vcpu, "a call of several is the one that it was when it was read");
}

fn reserved() -> i64 {
    operation(HYPERVISOR_MEMORY_OP, XENMEM_CURRENT_RESERVATION, &mut DOMID_SELF.clone())
}

fn reservation(command: u32, count: u64) -> i64 {
    let request: &mut MemoryReservation = at(0);
    *request =
        MemoryReservation { extent_start: LIST.va(), nr_extents: count, domid: DOMID_SELF, ..Default::default() };
    operation(HYPERVISOR_MEMORY_OP, command, request)
}

/// The number of frames that a long call takes changes while it goes on.
fn frames(vcpu: u32) {
    let count_at = core::mem::offset_of!(MemoryReservation, nr_extents) as u64;
    if vcpu == 0 {
        about("XENMEM_increase_reservation XENMEM_decrease_reservation");
        change(count_at, 8, 1, [FRAMES as u64, 3]);
    }
    let before = reserved();
    raced(vcpu, |round| {
        if round % 4 != 0 {
            return;
        }
        let taken = reservation(XENMEM_INCREASE_RESERVATION, FRAMES as u64);
        check((1..=FRAMES as i64).contains(&taken) && reserved() == before + taken);
        let mut left = taken;
        while left > 0 {
            let given = reservation(XENMEM_DECREASE_RESERVATION, left.unsigned_abs());
            check(given > 0);
            if given <= 0 {
                return;
            }
            left -= given;
            (0..left.unsigned_abs()).for_each(|index| {
                let frame = peek(LIST.va() + (index + given.unsigned_abs()) * 8);
                check(write_at(LIST.va() + index * 8, frame).is_ok());
            });
        }
        check(reserved() == before);
    });
    verdict(vcpu, "as many frames are taken and given as the call says");
}
