//! What one vCPU may not do behind another's back.
//!
//! Four vCPUs do things at the same time that must exclude each other: the same thing, which only one can get; things to
//! one frame, one grant, one port; and writes through translations that another vCPU has just taken away.
#![no_std]
#![no_main]
#![expect(unsafe_code, reason = "the grant table is memory that the hypervisor writes")]

use core::sync::atomic::{AtomicI64, AtomicU32, AtomicU64, Ordering};

use guest_tests::{
    A, D, P, Page, RW, VCPUS, about, all_vcpus_are_there, begin, check, end, entry_of, guest_test, hypercall, is_over,
    it_is_over, map_shared_info, meet, mmu_update, mmuext, one_wins, operation, peek, start_others, update_va_mapping,
    verdict, work_through, write_at,
};
use pv_abi::event_channel::{
    EVTCHNOP_ALLOC_UNBOUND, EVTCHNOP_BIND_INTERDOMAIN, EVTCHNOP_BIND_VCPU, EVTCHNOP_BIND_VIRQ, EVTCHNOP_CLOSE,
    EVTCHNOP_SEND, EVTCHNOP_STATUS, EVTCHNOP_UNMASK, EvtchnAllocUnbound, EvtchnBindInterdomain, EvtchnBindVcpu,
    EvtchnBindVirq, EvtchnClose, EvtchnSend, EvtchnStatus, EvtchnUnmask,
};
use pv_abi::grant_table::{
    GNTTABOP_COPY, GNTTABOP_MAP_GRANT_REF, GNTTABOP_SETUP_TABLE, GNTTABOP_UNMAP_GRANT_REF, GnttabCopy,
    GnttabMapGrantRef, GnttabSetupTable, GnttabUnmapGrantRef,
};
use pv_abi::memory::{
    MemoryReservation, XENMEM_CURRENT_RESERVATION, XENMEM_DECREASE_RESERVATION, XENMEM_INCREASE_RESERVATION,
};
use pv_abi::xen::{
    DOMID_SELF, HYPERVISOR_EVENT_CHANNEL_OP, HYPERVISOR_GRANT_TABLE_OP, HYPERVISOR_MEMORY_OP, MMUEXT_PIN_L1_TABLE,
    MMUEXT_UNPIN_TABLE, UVMF_ALL, UVMF_INVLPG,
};

guest_test!(races);

const EBUSY: i64 = -16;
const EEXIST: i64 = -17;
const EINVAL: i64 = -22;
const GENERAL_ERROR: i64 = -1;
const BAD_HANDLE: i64 = -4;
/// A virtual interrupt that each vCPU has.
const DEBUG: u32 = 1;
/// The reference that is granted, and an entry's flags while it is and nobody uses it.
const GRANTED: u32 = 8;
const PERMIT: u32 = 1;
/// How often each contest is held, and how long things go on.
const ROUNDS: u32 = 40;
const TURNS: u32 = 300;

static TARGET: Page = Page::new();
static DATA: Page = Page::new();
static TABLE: Page = Page::new();
static WINDOWS: [Page; 4] = [const { Page::new() }; 4];
/// What a contest is about: a port, a handle, a frame.
static PRIZE: AtomicU64 = AtomicU64::new(0);
/// How many frames the domain has.
static RESERVED: AtomicI64 = AtomicI64::new(0);
/// How many pinned the target and mapped it writable.
static PINS: AtomicU32 = AtomicU32::new(0);
static MAPS: AtomicU32 = AtomicU32::new(0);

/// What all vCPUs do together, one after the other.
const TOGETHER: [fn(u32); 8] = [contests, either, flushed, retyped, given_back, tables, grants, ports];

fn races() {
    about("VCPUOP_is_up");
    if !all_vcpus_are_there() {
        return;
    }
    let shared = map_shared_info();
    (0..VCPUS).for_each(|vcpu| shared.vcpu_info(vcpu).evtchn_upcall_mask.store(1, Ordering::SeqCst));
    set_up_grants();
    RESERVED.store(reserved(), Ordering::SeqCst);
    check(update_va_mapping(TARGET.va(), target() | P | A, UVMF_INVLPG) == 0);
    (0..VCPUS).for_each(|vcpu| check(update_va_mapping(window(vcpu), 0, UVMF_INVLPG) == 0));
    check(start_others(other));
    work_through(0, &TOGETHER);
}

extern "C" fn other(vcpu: u32) -> ! {
    begin(vcpu);
    work_through(vcpu, &TOGETHER);
    end(vcpu);
}

/// The address of the target's frame, as a page-table entry has it. Its own page is read-only from the start.
fn target() -> u64 {
    TARGET.mfn() << 12
}

fn prize() -> u64 {
    PRIZE.load(Ordering::SeqCst)
}

fn window(vcpu: u32) -> u64 {
    WINDOWS[vcpu as usize].va()
}

/// Something that all vCPUs try at once, and exactly one of them gets.
struct Contest {
    name: &'static str,
    about: &'static str,
    /// The first vCPU makes what is contested: the prize.
    prepare: fn() -> u64,
    attempt: fn() -> i64,
    /// What who gets it sees, and the others.
    answers: [i64; 2],
    /// Others may see it as well, while the first still has the frame in its hands.
    or_more: bool,
    /// The first vCPU puts things back.
    finish: fn(),
}

const CONTESTS: [Contest; 7] = [
    Contest {
        name: "a port is closed once",
        about: "EVTCHNOP_close",
        prepare: offer,
        attempt: || close(prize() as u32),
        answers: [0, EINVAL],
        or_more: false,
        finish: || {},
    },
    Contest {
        name: "an offered port is bound once",
        about: "EVTCHNOP_bind_interdomain",
        prepare: offer,
        attempt: || bind(prize() as u32).0,
        answers: [0, EINVAL],
        or_more: false,
        finish: || {
            check(close(far_end(prize() as u32)) == 0 && close(prize() as u32) == 0);
        },
    },
    Contest {
        name: "a virtual interrupt is bound once",
        about: "EVTCHNOP_bind_virq",
        prepare: || 0,
        attempt: || {
            let mut virq = EvtchnBindVirq { virq: DEBUG, ..Default::default() };
            let answer = event_op(EVTCHNOP_BIND_VIRQ, &mut virq);
            if answer == 0 {
                PRIZE.store(virq.port.into(), Ordering::SeqCst);
            }
            answer
        },
        answers: [0, EEXIST],
        or_more: false,
        finish: || check(close(prize() as u32) == 0),
    },
    Contest {
        name: "a table is pinned once",
        about: "MMUEXT_PIN_L1_TABLE",
        prepare: || 0,
        attempt: || mmuext(MMUEXT_PIN_L1_TABLE, TARGET.mfn(), 0),
        answers: [0, EINVAL],
        or_more: false,
        finish: || check(mmuext(MMUEXT_UNPIN_TABLE, TARGET.mfn(), 0) == 0),
    },
    Contest {
        name: "a table is unpinned once",
        about: "MMUEXT_UNPIN_TABLE",
        prepare: || mmuext(MMUEXT_PIN_L1_TABLE, TARGET.mfn(), 0) as u64,
        attempt: || mmuext(MMUEXT_UNPIN_TABLE, TARGET.mfn(), 0),
        answers: [0, EINVAL],
        or_more: false,
        finish: || {},
    },
    Contest {
        name: "a grant is unmapped once",
        about: "GNTTABOP_unmap_grant_ref",
        prepare: || {
            grant(GRANTED);
            let (status, handle) = map(GRANTED, window(0));
            check(status == 0);
            handle.into()
        },
        attempt: || unmap(window(0), prize() as u32),
        answers: [0, BAD_HANDLE],
        or_more: false,
        finish: || check(revoke(GRANTED)),
    },
    Contest {
        name: "a frame is given back once",
        about: "XENMEM_decrease_reservation",
        prepare: || {
            let mut frame = 0;
            check(reservation(XENMEM_INCREASE_RESERVATION, &mut frame) == 1);
            frame
        },
        attempt: || reservation(XENMEM_DECREASE_RESERVATION, &mut prize()),
        answers: [1, 0],
        or_more: true,
        finish: || check(reserved() == RESERVED.load(Ordering::SeqCst)),
    },
];

fn contests(vcpu: u32) {
    for contest in &CONTESTS {
        if vcpu == 0 {
            about(contest.about);
        }
        for _ in 0..ROUNDS {
            if vcpu == 0 {
                PRIZE.store((contest.prepare)(), Ordering::SeqCst);
            }
            meet();
            let answer = (contest.attempt)();
            check(contest.answers.contains(&answer));
            one_wins(vcpu, answer == contest.answers[0], contest.or_more);
            if vcpu == 0 {
                (contest.finish)();
            }
        }
        verdict(vcpu, contest.name);
    }
}

/// Two vCPUs pin a frame as a page table while two map it writable: never do both get it.
fn either(vcpu: u32) {
    if vcpu == 0 {
        about("MMUEXT_PIN_L1_TABLE update_va_mapping");
    }
    for _ in 0..ROUNDS {
        meet();
        let (answer, count) = if vcpu & 1 == 0 {
            (mmuext(MMUEXT_PIN_L1_TABLE, TARGET.mfn(), 0), &PINS)
        } else {
            (update_va_mapping(window(vcpu), target() | P | RW | A | D, 0), &MAPS)
        };
        check([0, EINVAL, EBUSY].contains(&answer));
        if answer == 0 {
            count.fetch_add(1, Ordering::SeqCst);
        }
        meet();
        let [pins, maps] = [&PINS, &MAPS].map(|count| count.load(Ordering::SeqCst));
        check(pins == 0 || maps == 0);
        check(pins <= 1);
        let wrote = write_at(window(vcpu), 0).is_ok();
        check(wrote == (vcpu & 1 == 1 && answer == 0));
        meet();
        if vcpu & 1 == 1 {
            check(update_va_mapping(window(vcpu), 0, UVMF_INVLPG | UVMF_ALL) == 0);
        } else if pins == 1 && vcpu == 0 {
            check(mmuext(MMUEXT_UNPIN_TABLE, TARGET.mfn(), 0) == 0);
        }
        meet();
        if vcpu == 0 {
            PINS.store(0, Ordering::SeqCst);
            MAPS.store(0, Ordering::SeqCst);
        }
    }
    verdict(vcpu, "a frame is never a page table and mapped writable, whoever comes first");
}

/// The other vCPUs write what are no present entries through the first window until told to stop; faults are passed over.
fn write_on(vcpu: u32) {
    let mut value = u64::from(vcpu) << 32;
    while !is_over() {
        value += 2;
        let _ = write_at(window(0) + u64::from(vcpu) * 8, value);
    }
}

/// Whether nobody writes what a page holds.
fn is_still(va: u64) -> bool {
    let words = || [1, 2, 3].map(|vcpu: u64| peek(va + vcpu * 8));
    let first = words();
    (0..100).all(|_| {
        core::hint::spin_loop();
        words() == first
    })
}

/// Lets the others write.
fn pass() {
    (0..100).for_each(|_| core::hint::spin_loop());
}

/// After a flush on all vCPUs none writes through a mapping that has gone.
fn flushed(vcpu: u32) {
    if vcpu == 0 {
        about("update_va_mapping");
        for _ in 0..TURNS / 3 {
            check(update_va_mapping(window(0), target() | P | RW | A | D, 0) == 0);
            pass();
            check(update_va_mapping(window(0), target() | P | A | D, UVMF_INVLPG | UVMF_ALL) == 0);
            check(is_still(TARGET.va()));
        }
        check(update_va_mapping(window(0), 0, UVMF_INVLPG | UVMF_ALL) == 0);
        it_is_over();
    } else {
        write_on(vcpu);
    }
    verdict(vcpu, "after a flush on all vCPUs none writes through an old translation");
}

/// A frame that becomes a page table is written by nobody any more, though no guest asked for a flush.
fn retyped(vcpu: u32) {
    if vcpu == 0 {
        about("MMUEXT_PIN_L1_TABLE MMUEXT_UNPIN_TABLE");
        for _ in 0..TURNS {
            check(update_va_mapping(window(0), target() | P | RW | A | D, 0) == 0);
            pass();
            check(update_va_mapping(window(0), 0, 0) == 0);
            check(mmuext(MMUEXT_PIN_L1_TABLE, TARGET.mfn(), 0) == 0);
            check(is_still(TARGET.va()));
            check(mmuext(MMUEXT_UNPIN_TABLE, TARGET.mfn(), 0) == 0);
        }
        it_is_over();
    } else {
        write_on(vcpu);
    }
    verdict(vcpu, "a frame that became a page table is not written through an old translation");
}

fn reservation(command: u32, frame: &mut u64) -> i64 {
    let mut request = MemoryReservation {
        extent_start: core::ptr::from_mut(frame) as u64,
        nr_extents: 1,
        domid: DOMID_SELF,
        ..Default::default()
    };
    operation(HYPERVISOR_MEMORY_OP, command, &mut request)
}

fn reserved() -> i64 {
    operation(HYPERVISOR_MEMORY_OP, XENMEM_CURRENT_RESERVATION, &mut DOMID_SELF.clone())
}

/// A frame that was given back, and got again, is written by nobody who had it mapped before.
fn given_back(vcpu: u32) {
    if vcpu == 0 {
        about("XENMEM_decrease_reservation XENMEM_increase_reservation");
        let (mut frame, mut next) = (0, 0);
        check(reservation(XENMEM_INCREASE_RESERVATION, &mut frame) == 1);
        for _ in 0..TURNS {
            check(update_va_mapping(window(0), frame << 12 | P | RW | A | D, 0) == 0);
            pass();
            check(update_va_mapping(window(0), 0, 0) == 0);
            check(reservation(XENMEM_DECREASE_RESERVATION, &mut frame) == 1);
            check(reservation(XENMEM_INCREASE_RESERVATION, &mut next) == 1);
            check(update_va_mapping(WINDOWS[1].va(), next << 12 | P | RW | A | D, UVMF_INVLPG) == 0);
            check(is_still(WINDOWS[1].va()));
            check(update_va_mapping(WINDOWS[1].va(), 0, UVMF_INVLPG) == 0);
            frame = next;
        }
        check(reservation(XENMEM_DECREASE_RESERVATION, &mut frame) == 1);
        check(reserved() == RESERVED.load(Ordering::SeqCst));
        it_is_over();
    } else {
        write_on(vcpu);
    }
    verdict(vcpu, "a frame that was given back is not written through an old translation");
}

/// All vCPUs do the same to the same table at once: each answer is one that a vCPU alone can get, and no count is off.
fn tables(vcpu: u32) {
    if vcpu == 0 {
        about("MMUEXT_PIN_L1_TABLE MMUEXT_UNPIN_TABLE MMU_NORMAL_PT_UPDATE update_va_mapping");
    }
    let place = target() + 512;
    let data = DATA.mfn() << 12 | P | RW | A | D;
    for round in 0..TURNS {
        let answers = [
            mmuext(MMUEXT_PIN_L1_TABLE, TARGET.mfn(), 0),
            mmu_update(place, if (round + vcpu) & 1 == 0 { data } else { 0 }),
            update_va_mapping(window(vcpu), target() | P | if round & 2 == 0 { RW | A } else { 0 }, UVMF_INVLPG),
            mmuext(MMUEXT_UNPIN_TABLE, TARGET.mfn(), 0),
            update_va_mapping(window(vcpu), 0, UVMF_INVLPG),
        ];
        check(answers.iter().all(|answer| [0, EINVAL, EBUSY].contains(answer)));
    }
    meet();
    if vcpu == 0 {
        while mmuext(MMUEXT_UNPIN_TABLE, TARGET.mfn(), 0) == 0 {}
        is_nobodys_any_more(&TARGET);
        is_nobodys_any_more(&DATA);
    }
    verdict(vcpu, "vCPUs that change one table at once get answers that one alone gets, and no count is off");
}

/// Nothing but its own page maps a frame: it can be a page table, but only once that page is read-only.
fn is_nobodys_any_more(page: &Page) {
    let (va, entry, restore) = (page.va(), page.mfn() << 12 | P | A, entry_of(page.va()));
    check(update_va_mapping(va, entry | RW | D, UVMF_INVLPG) == 0);
    (0..512).for_each(|word| check(write_at(va + word * 8, 0).is_ok()));
    check(mmuext(MMUEXT_PIN_L1_TABLE, page.mfn(), 0) == EINVAL);
    check(update_va_mapping(va, entry, UVMF_INVLPG) == 0);
    check(mmuext(MMUEXT_PIN_L1_TABLE, page.mfn(), 0) == 0);
    check(mmuext(MMUEXT_UNPIN_TABLE, page.mfn(), 0) == 0);
    check(update_va_mapping(va, restore, UVMF_INVLPG) == 0);
}

/// A granted reference's entry: flags and domain, then the frame.
fn entry(reference: u32) -> &'static [AtomicU32; 2] {
    let place = TABLE.va() + u64::from(reference) * 8;
    // SAFETY: The table's first page is mapped at TABLE, and its words are shared with the hypervisor.
    unsafe { &*(place as *const [AtomicU32; 2]) }
}

fn grant_op<T>(command: u32, request: &mut T) -> i64 {
    hypercall(HYPERVISOR_GRANT_TABLE_OP, [u64::from(command), core::ptr::from_mut(request) as u64, 1, 0, 0])
}

fn set_up_grants() {
    let mut frames = [0_u64; 1];
    let list = frames.as_mut_ptr() as u64;
    let mut setup = GnttabSetupTable { dom: DOMID_SELF, nr_frames: 1, frame_list: list, ..Default::default() };
    check(grant_op(GNTTABOP_SETUP_TABLE, &mut setup) == 0);
    check(update_va_mapping(TABLE.va(), frames[0] << 12 | P | RW | A | D, UVMF_INVLPG) == 0);
}

/// Grants the data page to the domain itself.
fn grant(reference: u32) {
    let [flags, frame] = entry(reference);
    frame.store(DATA.mfn() as u32, Ordering::SeqCst);
    flags.store(PERMIT, Ordering::SeqCst);
}

/// Takes a grant back; false where it is in use.
fn revoke(reference: u32) -> bool {
    entry(reference)[0].compare_exchange(PERMIT, 0, Ordering::SeqCst, Ordering::SeqCst).is_ok()
}

/// The status, and the handle.
fn map(reference: u32, address: u64) -> (i64, u32) {
    let mut request = GnttabMapGrantRef { host_addr: address, flags: 2, ref_: reference, ..Default::default() };
    check(grant_op(GNTTABOP_MAP_GRANT_REF, &mut request) == 0);
    (request.status.into(), request.handle)
}

fn unmap(address: u64, handle: u32) -> i64 {
    let mut request = GnttabUnmapGrantRef { host_addr: address, handle, ..Default::default() };
    check(grant_op(GNTTABOP_UNMAP_GRANT_REF, &mut request) == 0);
    request.status.into()
}

/// Copies a word of the target's page into the granted one.
fn copy_into(reference: u32, offset: u16) -> i64 {
    let mut copy = GnttabCopy { len: 8, flags: 2, ..Default::default() };
    (copy.source.domid, copy.source.u) = (DOMID_SELF, TARGET.mfn());
    (copy.dest.u, copy.dest.offset) = (reference.into(), offset);
    check(grant_op(GNTTABOP_COPY, &mut copy) == 0);
    copy.status.into()
}

/// One vCPU grants a frame and takes it back while the others map it, write it, copy into it and unmap it.
fn grants(vcpu: u32) {
    if vcpu == 0 {
        about("GNTTABOP_map_grant_ref GNTTABOP_unmap_grant_ref GNTTABOP_copy");
        for _ in 0..TURNS / 3 {
            grant(GRANTED);
            pass();
            while !revoke(GRANTED) {
                core::hint::spin_loop();
            }
            check(is_still(DATA.va()));
        }
        it_is_over();
    } else {
        use_grants(vcpu);
    }
    meet();
    if vcpu == 0 {
        check(entry(GRANTED)[0].load(Ordering::SeqCst) == 0);
        is_nobodys_any_more(&DATA);
    }
    verdict(vcpu, "a grant that was taken back is used by nobody, and no count is off");
}

fn use_grants(vcpu: u32) {
    let mut value = 0;
    while !is_over() {
        value += 2;
        if vcpu == 3 {
            check([0, GENERAL_ERROR].contains(&copy_into(GRANTED, 24)));
            continue;
        }
        let (status, handle) = map(GRANTED, window(vcpu));
        check([0, GENERAL_ERROR].contains(&status));
        if status == 0 {
            check(write_at(window(vcpu) + u64::from(vcpu) * 8, value).is_ok());
            check(unmap(window(vcpu), handle) == 0);
        }
        check(write_at(window(vcpu), value).is_err());
    }
}

fn event_op<T>(command: u32, request: &mut T) -> i64 {
    operation(HYPERVISOR_EVENT_CHANNEL_OP, command, request)
}

/// Offers a port to the domain itself.
fn offer() -> u64 {
    let mut request = EvtchnAllocUnbound { dom: DOMID_SELF, remote_dom: DOMID_SELF, ..Default::default() };
    check(event_op(EVTCHNOP_ALLOC_UNBOUND, &mut request) == 0);
    request.port.into()
}

/// Binds a new port to an offered one; the answer, and the new port.
fn bind(remote_port: u32) -> (i64, u32) {
    let mut request = EvtchnBindInterdomain { remote_dom: DOMID_SELF, remote_port, ..Default::default() };
    (event_op(EVTCHNOP_BIND_INTERDOMAIN, &mut request), request.local_port)
}

fn close(port: u32) -> i64 {
    event_op(EVTCHNOP_CLOSE, &mut EvtchnClose { port })
}

/// The port that a bound one is connected with.
fn far_end(port: u32) -> u32 {
    let mut status = EvtchnStatus { dom: DOMID_SELF, port, ..Default::default() };
    check(event_op(EVTCHNOP_STATUS, &mut status) == 0);
    status.u[1]
}

/// All vCPUs offer, bind and close ports, and send on, move and unmask those of the others.
fn ports(vcpu: u32) {
    if vcpu == 0 {
        about("EVTCHNOP_alloc_unbound EVTCHNOP_bind_interdomain EVTCHNOP_send EVTCHNOP_bind_vcpu EVTCHNOP_close");
        PRIZE.store(offer(), Ordering::SeqCst);
        check(close(prize() as u32) == 0);
    }
    meet();
    for round in 0..TURNS {
        let offered = offer() as u32;
        let (bound, end) = bind(offered);
        let other = (offered + round) % 10 + 1;
        let answers = [
            event_op(EVTCHNOP_SEND, &mut EvtchnSend { port: other }),
            event_op(EVTCHNOP_BIND_VCPU, &mut EvtchnBindVcpu { port: other, vcpu: round % VCPUS }),
            event_op(EVTCHNOP_UNMASK, &mut EvtchnUnmask { port: other }),
            event_op(EVTCHNOP_SEND, &mut EvtchnSend { port: offered }),
        ];
        check(answers.iter().all(|answer| [0, EINVAL].contains(answer)));
        check(answers[3] == 0 && bound == 0);
        let order = if round & 1 == 0 { [end, offered] } else { [offered, end] };
        check(order.map(close) == [0; 2]);
    }
    meet();
    if vcpu == 0 {
        let again = offer();
        check(again == prize() && close(again as u32) == 0);
    }
    verdict(vcpu, "ports that vCPUs make, use and close at once are all there, and all gone at the end");
}
