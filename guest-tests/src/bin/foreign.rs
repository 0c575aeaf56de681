//! What one domain does with another: its tables, its ports, and a domain that is just being taken apart.
#![no_std]
#![no_main]

use core::sync::atomic::{AtomicBool, AtomicI64, AtomicU32, AtomicU64, Ordering};

use guest_tests::child::{Child, domctl, domctl_plain, info, usual};
use guest_tests::errno::{EACCES, EINVAL, ENOSPC, EPERM, ESRCH};
use guest_tests::{
    A, D, P, Page, RW, Shared, TrapFrame, about, entry_address, expect, guest_test, hypercall, map_shared_info,
    mmu_update_as, on_trap, operation, say, start_info, update_va_mapping,
};
use pv_abi::domctl::{
    DomctlMaxMem, XEN_DOMCTL_DESTROYDOMAIN, XEN_DOMCTL_MAX_MEM, XEN_DOMCTL_PAUSEDOMAIN, XEN_DOMCTL_UNPAUSEDOMAIN,
};
use pv_abi::event_channel::{
    EVTCHNOP_ALLOC_UNBOUND, EVTCHNOP_BIND_VIRQ, EVTCHNOP_RESET, EVTCHNOP_STATUS, EvtchnAllocUnbound, EvtchnBindVirq,
    EvtchnReset, EvtchnStatus,
};
use pv_abi::grant_table::{GNTMAP_HOST_MAP, GNTST_GENERAL_ERROR, GNTTABOP_MAP_GRANT_REF, GnttabMapGrantRef};
use pv_abi::memory::{MemoryReservation, XENMEM_POPULATE_PHYSMAP};
use pv_abi::xen::{
    DOMID_SELF, HYPERVISOR_EVENT_CHANNEL_OP, HYPERVISOR_GRANT_TABLE_OP, HYPERVISOR_MEMORY_OP, HYPERVISOR_MMUEXT_OP,
    HYPERVISOR_SET_TIMER_OP, MMUEXT_INVLPG_LOCAL, MMUEXT_NEW_BASEPTR, MMUEXT_NEW_USER_BASEPTR, MMUEXT_SET_LDT,
    MMUEXT_TLB_FLUSH_ALL, MmuextOp,
};

guest_test!(foreign);

const CHILD: u16 = 5;
const INVLPG: u64 = 2;
const UNCACHED: u64 = 1 << 4;
const TIMER: u32 = 0;
/// Frames of a domain that takes a while to be taken apart: blocks, and the order of each.
const BLOCKS: usize = 32;
const ORDER: u32 = 8;

static WINDOW: Page = Page::new();

fn foreign() {
    let shared = map_shared_info();
    let Some(child) = Child::new(CHILD) else {
        say!("guest-test: a domain is made: FAILED it was refused");
        return;
    };
    child.start();
    tables(&child);
    shared_frames();
    ports();
    expect("the domain is destroyed", child.destroy(), 0);
    dying(shared);
}

fn tables(child: &Child) {
    about("MMU_MACHPHYS_UPDATE");
    let others_tables = (u64::from(CHILD) + 1) << 16 | u64::from(DOMID_SELF);
    let frame = WINDOW.mfn() << 12;
    expect("a frame is placed without naming another's tables", mmu_update_as(frame | 1, 5, others_tables), EPERM);
    let pfn = (WINDOW.va() - guest_tests::VIRT_BASE) >> 12;
    expect("a frame of another's is placed", mmu_update_as(child.frames[7] << 12 | 1, 7, CHILD.into()), 0);
    expect("but not as its own", mmu_update_as(child.frames[7] << 12 | 1, 7, DOMID_SELF.into()), EINVAL);
    expect("nor an own one as another's", mmu_update_as(frame | 1, pfn, CHILD.into()), EINVAL);
    about("MMU_NORMAL_PT_UPDATE");
    let both = (u64::from(CHILD) + 1) << 16 | u64::from(CHILD);
    let entry = (child.frames[3] << 12) + 7 * 8;
    let own = child.frames[7] << 12 | P | A | D;
    expect("another's entry is changed", mmu_update_as(entry, own | RW, both), 0);
    expect("not to map an own frame as its", mmu_update_as(entry, frame | P, both) < 0, true);
    expect("an own table is not another's", mmu_update_as(entry_address(WINDOW.va()), own, both), EINVAL);
    expect("another's table is not an own one", mmu_update_as(entry, own, DOMID_SELF.into()), EINVAL);
    about("mmuext_op");
    for (name, cmd) in [
        ("a root is not set for another", MMUEXT_NEW_BASEPTR),
        ("nor a user's root", MMUEXT_NEW_USER_BASEPTR),
        ("nor a local descriptor table", MMUEXT_SET_LDT),
        ("nor are its translations forgotten", MMUEXT_TLB_FLUSH_ALL),
        ("nor one of them", MMUEXT_INVLPG_LOCAL),
    ] {
        let request = MmuextOp { cmd, arg1: child.frames[0], ..Default::default() };
        let result = hypercall(HYPERVISOR_MMUEXT_OP, [&raw const request as u64, 1, 0, CHILD.into(), 0]);
        expect(name, result, EPERM);
    }
}

fn shared_frames() {
    about("update_va_mapping");
    let shared = start_info().shared_info | P | RW | A | D;
    expect("the shared page is mapped again", update_va_mapping(WINDOW.va(), shared, INVLPG), 0);
    expect("but not uncached", update_va_mapping(WINDOW.va(), shared | UNCACHED, INVLPG), EACCES);
    let back = WINDOW.mfn() << 12 | P | RW | A | D;
    expect("its window is a page again", update_va_mapping(WINDOW.va(), back, INVLPG), 0);
}

fn event<T>(command: u32, mut request: T) -> i64 {
    operation(HYPERVISOR_EVENT_CHANNEL_OP, command, &mut request)
}

fn ports() {
    about("EVTCHNOP_alloc_unbound");
    let offer =
        || event(EVTCHNOP_ALLOC_UNBOUND, EvtchnAllocUnbound { dom: CHILD, remote_dom: 0, ..Default::default() });
    let count = (0..1000).take_while(|_| offer() == 0).count();
    expect("a domain has the ports that it was made for", count, 127);
    expect("and no more", offer(), ENOSPC);
    about("EVTCHNOP_status");
    let status = |port: u32| event(EVTCHNOP_STATUS, EvtchnStatus { dom: CHILD, port, ..Default::default() });
    expect("each is there", (status(127), status(128)), (0, EINVAL));
    about("EVTCHNOP_reset");
    let reset = |dom: u16| event(EVTCHNOP_RESET, EvtchnReset { dom });
    expect("they are not closed while it runs", reset(CHILD), EINVAL);
    expect("nor are those of a domain that is not", reset(99), ESRCH);
    expect("it is paused", domctl_plain(XEN_DOMCTL_PAUSEDOMAIN, CHILD), 0);
    expect("then they are", reset(CHILD), 0);
    expect("it goes on", domctl_plain(XEN_DOMCTL_UNPAUSEDOMAIN, CHILD), 0);
    about("EVTCHNOP_alloc_unbound");
    expect("and has ports again", offer(), 0);
}

/// The domain that is being taken apart, or none.
static DYING: AtomicU32 = AtomicU32::new(0);
static SEEN: AtomicBool = AtomicBool::new(false);
static MAPPED: AtomicI64 = AtomicI64::new(0);
static POPULATED: AtomicI64 = AtomicI64::new(0);
static OFFERED: AtomicI64 = AtomicI64::new(0);
static SIZED: AtomicI64 = AtomicI64::new(0);
static FLAGS: AtomicU32 = AtomicU32::new(0);
/// Pages that the domain had.
static PAGES: AtomicU64 = AtomicU64::new(0);

/// The timer fired, perhaps while a domain is being taken apart: asks for all that it might still give.
fn on_timer(frame: &mut TrapFrame) -> bool {
    let number = DYING.load(Ordering::SeqCst) as u16;
    if frame.vector != 256 || number == 0 {
        return false;
    }
    let now = info(number).1;
    if now.domain != number || now.tot_pages >= PAGES.load(Ordering::SeqCst) {
        return true;
    }
    FLAGS.store(now.flags, Ordering::SeqCst);
    let mut grant = GnttabMapGrantRef {
        host_addr: WINDOW.va(),
        flags: GNTMAP_HOST_MAP,
        ref_: 8,
        dom: number,
        ..Default::default()
    };
    hypercall(HYPERVISOR_GRANT_TABLE_OP, [GNTTABOP_MAP_GRANT_REF.into(), &raw mut grant as u64, 1, 0, 0]);
    MAPPED.store(grant.status.into(), Ordering::SeqCst);
    let mut place = [0x5000_u64];
    let mut asked = MemoryReservation {
        extent_start: place.as_mut_ptr() as u64,
        nr_extents: 1,
        domid: number,
        ..Default::default()
    };
    let populated = operation(HYPERVISOR_MEMORY_OP, XENMEM_POPULATE_PHYSMAP, &mut asked);
    POPULATED.store(populated, Ordering::SeqCst);
    let offer = EvtchnAllocUnbound { dom: number, remote_dom: 0, ..Default::default() };
    OFFERED.store(event(EVTCHNOP_ALLOC_UNBOUND, offer), Ordering::SeqCst);
    SIZED.store(domctl(XEN_DOMCTL_MAX_MEM, number, &mut DomctlMaxMem { max_memkb: 4096 }), Ordering::SeqCst);
    SEEN.store(true, Ordering::SeqCst);
    true
}

/// Makes a large domain and takes it apart while a timer fires soon; whether that was seen from within.
fn taken_apart(shared: Shared, delay_ns: u64) -> bool {
    let Some(child) = Child::without_context(6, usual()) else {
        return false;
    };
    domctl(XEN_DOMCTL_MAX_MEM, 6, &mut DomctlMaxMem { max_memkb: 64 << 10 });
    let mut places: [u64; BLOCKS] = core::array::from_fn(|n| 0x1000 + ((n as u64) << ORDER));
    let mut asked = MemoryReservation {
        extent_start: places.as_mut_ptr() as u64,
        nr_extents: BLOCKS as u64,
        extent_order: ORDER,
        domid: 6,
        ..Default::default()
    };
    operation(HYPERVISOR_MEMORY_OP, XENMEM_POPULATE_PHYSMAP, &mut asked);
    for page in 0..guest_tests::child::FRAMES {
        child.unmap(page);
    }
    PAGES.store(info(6).1.tot_pages, Ordering::SeqCst);
    DYING.store(6, Ordering::SeqCst);
    hypercall(HYPERVISOR_SET_TIMER_OP, [shared.now() + delay_ns, 0, 0, 0, 0]);
    let destroyed = domctl_plain(XEN_DOMCTL_DESTROYDOMAIN, 6);
    DYING.store(0, Ordering::SeqCst);
    hypercall(HYPERVISOR_SET_TIMER_OP, [0; 5]);
    destroyed == 0 && SEEN.load(Ordering::SeqCst)
}

fn dying(shared: Shared) {
    about("XEN_DOMCTL_destroydomain");
    let mut timer = EvtchnBindVirq { virq: TIMER, vcpu: 0, ..Default::default() };
    let bound = operation(HYPERVISOR_EVENT_CHANNEL_OP, EVTCHNOP_BIND_VIRQ, &mut timer);
    expect("a timer is bound", bound, 0);
    on_trap(on_timer);
    shared.set_mask(timer.port, false);
    shared.vcpu().evtchn_upcall_mask.store(0, Ordering::SeqCst);
    let seen = (0..60).any(|n| {
        shared.clear(timer.port);
        taken_apart(shared, 20_000 << (n % 6))
    });
    shared.vcpu().evtchn_upcall_mask.store(1, Ordering::SeqCst);
    expect("a domain is seen while it is taken apart", seen, true);
    expect("it does not say yet that it is dead", FLAGS.load(Ordering::SeqCst) & 1, 0);
    let result = |of: &AtomicI64| of.load(Ordering::SeqCst);
    expect("it grants nothing any more", result(&MAPPED), GNTST_GENERAL_ERROR.into());
    expect("it gets no memory", result(&POPULATED), 0);
    expect("nor ports", result(&OFFERED), EINVAL);
    expect("its size is still set", result(&SIZED), 0);
    expect("in the end it is no more", info(6).1.domain == 6, false);
}
