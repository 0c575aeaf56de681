//! A machine without free memory: what needs some is refused, all else goes on, and in the end the memory is back.
#![no_std]
#![no_main]
#![expect(unsafe_code, reason = "a list of frames is memory that the hypervisor reads")]

use core::cell::UnsafeCell;

use guest_tests::child::{create, domctl, domctl_plain, usual};
use guest_tests::errno::{ENOMEM, ENOSPC};
use guest_tests::{P, Page, RW, about, differs, expect, guest_test, hypercall, operation, update_va_mapping, write_at};
use pv_abi::domctl::{DomctlMaxMem, XEN_DOMCTL_DESTROYDOMAIN, XEN_DOMCTL_MAX_MEM};
use pv_abi::event_channel::{EVTCHNOP_BIND_IPI, EVTCHNOP_RESET, EVTCHNOP_SEND, EvtchnBindIpi, EvtchnReset, EvtchnSend};
use pv_abi::grant_table::{
    GNTMAP_DEVICE_MAP, GNTMAP_READONLY, GNTST_GENERAL_ERROR, GNTST_NO_SPACE, GNTST_OKAY, GNTTABOP_MAP_GRANT_REF,
    GNTTABOP_SET_VERSION, GNTTABOP_SETUP_TABLE, GTF_PERMIT_ACCESS, GnttabMapGrantRef, GnttabSetVersion,
    GnttabSetupTable,
};
use pv_abi::memory::{MemoryReservation, XENMEM_INCREASE_RESERVATION, XENMEM_POPULATE_PHYSMAP};
use pv_abi::xen::{
    DOMID_SELF, HYPERVISOR_EVENT_CHANNEL_OP, HYPERVISOR_GRANT_TABLE_OP, HYPERVISOR_MEMORY_OP, HYPERVISOR_XEN_VERSION,
};

guest_test!(exhausted);

/// The domain that takes all the memory there is.
const EATER: u16 = 5;
const AT_ONCE: usize = 256;

struct List(UnsafeCell<[u64; AT_ONCE]>);
// SAFETY: A guest test has one vCPU.
unsafe impl Sync for List {}

static PLACES: List = List(UnsafeCell::new([0; AT_ONCE]));
static DATA: Page = Page::new();
static TABLE: Page = Page::new();

fn exhausted() {
    expect("a grant table has a frame", table_of(1), (0, GNTST_OKAY));
    about("XENMEM_populate_physmap");
    let made = create(EATER, &mut usual());
    let sized = domctl(XEN_DOMCTL_MAX_MEM, EATER, &mut DomctlMaxMem { max_memkb: 1 << 30 });
    expect("a domain may take all memory", (made, sized), (0, 0));
    let mut taken = 0;
    for order in [8, 4, 0] {
        taken += eat(order);
    }
    expect("it takes more than 100 MiB", taken > 25_600, true);
    expect("then there is none", eat(0), 0);
    refused();
    going_on();
    about("XEN_DOMCTL_destroydomain");
    expect("it is destroyed", domctl_plain(XEN_DOMCTL_DESTROYDOMAIN, EATER), 0);
    afterwards();
}

/// Gives the domain blocks of `1 << order` frames while there are any; how many frames.
fn eat(order: u32) -> u64 {
    let mut taken = 0;
    loop {
        // SAFETY: One vCPU, and nobody else uses the list.
        let places = unsafe { &mut *PLACES.0.get() };
        for (n, place) in places.iter_mut().enumerate() {
            *place = (n as u64) << order;
        }
        let mut asked = MemoryReservation {
            extent_start: places.as_mut_ptr() as u64,
            nr_extents: AT_ONCE as u64,
            extent_order: order,
            domid: EATER,
            ..Default::default()
        };
        let got = operation(HYPERVISOR_MEMORY_OP, XENMEM_POPULATE_PHYSMAP, &mut asked);
        taken += got.max(0).cast_unsigned() << order;
        if got < AT_ONCE as i64 {
            return taken;
        }
    }
}

fn bind_ipi() -> (i64, u32) {
    let mut request = EvtchnBindIpi::default();
    (operation(HYPERVISOR_EVENT_CHANNEL_OP, EVTCHNOP_BIND_IPI, &mut request), request.port)
}

fn grant_op<T>(command: u32, request: &mut T) -> i64 {
    hypercall(HYPERVISOR_GRANT_TABLE_OP, [command.into(), core::ptr::from_mut(request) as u64, 1, 0, 0])
}

fn table_of(nr_frames: u32) -> (i64, i16) {
    let mut frames = [0_u64; 64];
    let frame_list = frames.as_mut_ptr() as u64;
    let mut setup = GnttabSetupTable { dom: DOMID_SELF, nr_frames, frame_list, ..Default::default() };
    let result = (grant_op(GNTTABOP_SETUP_TABLE, &mut setup), setup.status);
    if result.1 == GNTST_OKAY {
        update_va_mapping(TABLE.va(), frames[0] << 12 | P | RW, 2);
    }
    result
}

/// Maps a grant for devices as often as it goes: each use takes memory of the hypervisor.
fn use_up() -> i16 {
    for reference in 8..512 {
        let _ = write_at(TABLE.va() + reference * 8, u64::from(GTF_PERMIT_ACCESS) | DATA.mfn() << 32);
    }
    let mut uses = 0;
    loop {
        let (flags, ref_) = (GNTMAP_DEVICE_MAP | GNTMAP_READONLY, 8 + uses / 600);
        uses += 1;
        let mut request = GnttabMapGrantRef { flags, ref_, ..Default::default() };
        grant_op(GNTTABOP_MAP_GRANT_REF, &mut request);
        if request.status != GNTST_OKAY {
            return request.status;
        }
    }
}

fn refused() {
    about("XENMEM_increase_reservation");
    let mut asked = MemoryReservation { nr_extents: 1, domid: DOMID_SELF, ..Default::default() };
    expect("a domain gets no frame", operation(HYPERVISOR_MEMORY_OP, XENMEM_INCREASE_RESERVATION, &mut asked), 0);
    about("XEN_DOMCTL_createdomain");
    expect("no domain is made", create(6, &mut usual()), ENOMEM);
    expect("nor half of one", domctl_plain(XEN_DOMCTL_DESTROYDOMAIN, 6) < 0, true);
    about("GNTTABOP_setup_table");
    expect("a grant table does not grow", table_of(64), (0, GNTST_GENERAL_ERROR));
    about("GNTTABOP_set_version");
    let version = grant_op(GNTTABOP_SET_VERSION, &mut GnttabSetVersion { version: 2 });
    expect("nor does it get status frames", version, ENOMEM);
    about("GNTTABOP_map_grant_ref");
    expect("there is no room for mappings", use_up(), GNTST_NO_SPACE);
    about("EVTCHNOP_bind_ipi");
    let last = (0..5000).map(|_| bind_ipi().0).find(|result| *result != 0).unwrap_or(0);
    differs("ports end by their number, or by memory", last, ENOSPC, ENOMEM);
}

fn going_on() {
    about("EVTCHNOP_send");
    expect("a port is sent to", operation(HYPERVISOR_EVENT_CHANNEL_OP, EVTCHNOP_SEND, &mut EvtchnSend { port: 1 }), 0);
    about("update_va_mapping");
    let entry = DATA.mfn() << 12 | P | RW;
    let again = (update_va_mapping(DATA.va(), 0, 2), update_va_mapping(DATA.va(), entry, 2));
    expect("a page is unmapped and mapped", again, (0, 0));
    expect("and written", write_at(DATA.va(), 1), Ok(()));
    about("xen_version");
    expect("the version is told", hypercall(HYPERVISOR_XEN_VERSION, [0; 5]), 0x0004_0011);
    about("EVTCHNOP_reset");
    let reset = operation(HYPERVISOR_EVENT_CHANNEL_OP, EVTCHNOP_RESET, &mut EvtchnReset { dom: DOMID_SELF });
    expect("all ports are closed", reset, 0);
    about("EVTCHNOP_bind_ipi");
    expect("and opened again", bind_ipi().0, 0);
}

fn afterwards() {
    about("XEN_DOMCTL_createdomain");
    expect("a domain is made again", create(6, &mut usual()), 0);
    expect("and destroyed", domctl_plain(XEN_DOMCTL_DESTROYDOMAIN, 6), 0);
    about("GNTTABOP_setup_table");
    expect("the grant table grows", table_of(2), (0, GNTST_OKAY));
    expect("a grant table has a frame", table_of(1), (0, GNTST_OKAY));
    about("XENMEM_populate_physmap");
    let made = create(EATER, &mut usual());
    let sized = domctl(XEN_DOMCTL_MAX_MEM, EATER, &mut DomctlMaxMem { max_memkb: 1 << 30 });
    expect("another domain takes the memory", (made, sized, eat(8) > 25_600), (0, 0, true));
    expect("and gives it back", domctl_plain(XEN_DOMCTL_DESTROYDOMAIN, EATER), 0);
}
