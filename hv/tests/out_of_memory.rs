//! What a guest is told when the hypervisor's heap is used up, and that it may ask again later.
#![expect(unsafe_code, reason = "an allocator that fails on demand is an allocator")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use hv::fake::{Bed, Guest};
use hv::refusal::Refusal;
use hv::rules::evtchn as rule;
use hv::{Machine, evtchn, grant};
use pv_abi::DomId;
use pv_abi::errno::Errno;
use pv_abi::event_channel::EvtchnInitControl;
use pv_abi::grant_table::{
    GNTMAP_DEVICE_MAP, GNTMAP_READONLY, GNTST_GENERAL_ERROR, GNTST_NO_SPACE, GNTST_OKAY, GNTTABOP_MAP_GRANT_REF,
    GTF_PERMIT_ACCESS, GnttabMapGrantRef,
};
use pv_abi::xen::HYPERVISOR_GRANT_TABLE_OP;

thread_local! {
    /// How many bytes one allocation of this thread may have.
    static MOST: Cell<usize> = const { Cell::new(usize::MAX) };
}

struct Limited;

// SAFETY: What it gives is the system allocator's, or nothing.
unsafe impl GlobalAlloc for Limited {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if layout.size() > MOST.get() {
            return std::ptr::null_mut();
        }
        // SAFETY: The caller's promise about the layout.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, place: *mut u8, layout: Layout) {
        // SAFETY: The caller's promise; the memory is the system allocator's.
        unsafe { System.dealloc(place, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Limited = Limited;

/// Does something while no allocation of more than `bytes` can be made.
fn with_at_most<T>(bytes: usize, action: impl FnOnce() -> T) -> T {
    MOST.set(bytes);
    let result = action();
    MOST.set(usize::MAX);
    result
}

#[track_caller]
fn no_memory<T>(outcome: Result<T, Refusal>) {
    let refusal = outcome.err().expect("a refusal");
    assert_eq!((refusal.as_errno(), refusal.rule), (Some(Errno::NoMem), rule::NO_MEMORY));
}

#[test]
fn ports_need_memory() {
    let bed = Bed::new(64);
    let domain = bed.domain(1, 1);
    for _ in 1..64 {
        evtchn::bind_ipi(&bed.hv, &domain, 0).expect("a port");
    }
    let more = || evtchn::alloc_unbound(&bed.hv, &domain, DomId(0));
    no_memory(with_at_most(1024, more));
    assert_eq!(more(), Ok(64));
}

#[test]
fn queues_need_memory() {
    let bed = Bed::new(64);
    let guest = bed.guest(1, 2);
    let control_gfn = guest.frames[0].0;
    let init = || {
        let mut request = EvtchnInitControl { control_gfn, ..EvtchnInitControl::default() };
        evtchn::init_control(&bed.hv, &guest.domain, &mut request)
    };
    let expand = || evtchn::expand_array(&bed.hv, &guest.domain, guest.frames[1].0);
    no_memory(with_at_most(16, init));
    assert_eq!(init(), Ok(()));
    no_memory(with_at_most(1, expand));
    assert_eq!(expand(), Ok(()));
}

/// Maps one of the guest's own grants.
fn map(bed: &Bed, guest: &mut Guest, reference: u32) -> i16 {
    bed.hv.machine.take_events();
    let flags = GNTMAP_DEVICE_MAP | GNTMAP_READONLY;
    let mut request = GnttabMapGrantRef { flags, ref_: reference, dom: 1, ..GnttabMapGrantRef::default() };
    assert_eq!(guest.call_with(bed, HYPERVISOR_GRANT_TABLE_OP, GNTTABOP_MAP_GRANT_REF, &mut request), 0);
    request.status
}

#[test]
fn uses_of_grants_need_memory() {
    let bed = Bed::new(64);
    let mut guest = bed.guest(1, 2);
    let table = grant::frame(&bed.hv, &guest.domain, 0).expect("no interruption").expect("a frame");
    for reference in 0..64 {
        let entry = u64::from(GTF_PERMIT_ACCESS) | 1 << 16 | guest.frames[1].0 << 32;
        bed.hv.machine.write_word(table, reference, entry);
    }
    assert_eq!(with_at_most(1024, || map(&bed, &mut guest, 0)), GNTST_NO_SPACE, "handles");
    assert_eq!(map(&bed, &mut guest, 0), GNTST_OKAY);
    let refused = (1..60).find(|reference| with_at_most(1024, || map(&bed, &mut guest, *reference)) != GNTST_OKAY);
    let refused = refused.expect("there are not as many handles");
    assert_eq!(with_at_most(1024, || map(&bed, &mut guest, refused)), GNTST_GENERAL_ERROR, "GNT-36: notes of uses");
    assert_eq!(map(&bed, &mut guest, refused), GNTST_OKAY);
}
