//! Taking, giving back and exchanging memory, and the maps of it (`memory_op`).
//!
//! What the hypervisor says that it did must be true of the tables as well: a frame that was given back cannot be mapped,
//! one that is in use cannot be taken away, and what is refused changes nothing.
#![no_std]
#![no_main]

use guest_tests::errno::{EACCES, EBUSY, EFAULT, EINVAL, ENOMEM, ENOSYS, EOPNOTSUPP, EPERM, ESRCH};
use guest_tests::{
    A, D, HYPERVISOR_ADDRESS, P, Page, RW, about, differs, expect, guest_test, hypercall, mmu_update, read_at, say,
    start_info, update_va_mapping, write_at,
};
use pv_abi::memory::{
    AddToPhysmap, AddToPhysmapBatch, ForeignMemoryMap, MachphysMapping, MachphysMfnList, MemAcquireResource,
    MemoryDomain, MemoryExchange, MemoryMap, MemoryReservation, PodTarget, RemoveFromPhysmap, ReservedDeviceMemoryMap,
    XENMEM_ACQUIRE_RESOURCE, XENMEM_ADD_TO_PHYSMAP, XENMEM_ADD_TO_PHYSMAP_BATCH, XENMEM_CLAIM_PAGES,
    XENMEM_CURRENT_RESERVATION, XENMEM_DECREASE_RESERVATION, XENMEM_EXCHANGE, XENMEM_GET_POD_TARGET,
    XENMEM_GET_SHARING_FREED_PAGES, XENMEM_GET_SHARING_SHARED_PAGES, XENMEM_GET_VNUMAINFO, XENMEM_INCREASE_RESERVATION,
    XENMEM_MACHINE_MEMORY_MAP, XENMEM_MACHPHYS_MAPPING, XENMEM_MACHPHYS_MFN_LIST, XENMEM_MAXIMUM_GPFN,
    XENMEM_MAXIMUM_RAM_PAGE, XENMEM_MAXIMUM_RESERVATION, XENMEM_MEMORY_MAP, XENMEM_POPULATE_PHYSMAP,
    XENMEM_REMOVE_FROM_PHYSMAP, XENMEM_RESERVED_DEVICE_MEMORY_MAP, XENMEM_SET_MEMORY_MAP, XENMEM_SET_POD_TARGET,
    xenmemf_address_bits,
};
use pv_abi::xen::{DOMID_SELF, HYPERVISOR_MEMORY_OP, MMU_MACHPHYS_UPDATE};

guest_test!(memory);

const INVLPG: u64 = 2;
const RWAD: u64 = P | RW | A | D;
/// A domain that there is not.
const NOBODY: u16 = 77;
static WINDOW: Page = Page::new();
static GIVEN: [Page; 4] = [const { Page::new() }; 4];

fn memory() {
    sizes();
    taking();
    giving();
    populating();
    exchanging();
    claims();
    maps();
    physical_maps();
}

fn op<T>(command: u32, argument: &mut T) -> i64 {
    hypercall(HYPERVISOR_MEMORY_OP, [u64::from(command), core::ptr::from_mut(argument) as u64, 0, 0, 0])
}

fn at(command: u32, argument: u64) -> i64 {
    hypercall(HYPERVISOR_MEMORY_OP, [u64::from(command), argument, 0, 0, 0])
}

fn of(domid: u16) -> MemoryDomain {
    MemoryDomain { domid }
}

fn list(frames: &mut [u64], order: u32) -> MemoryReservation {
    MemoryReservation {
        extent_start: frames.as_mut_ptr() as u64,
        nr_extents: frames.len() as u64,
        extent_order: order,
        domid: DOMID_SELF,
        ..Default::default()
    }
}

fn owned() -> i64 {
    op(XENMEM_CURRENT_RESERVATION, &mut of(DOMID_SELF))
}

fn sizes() {
    about("XENMEM_maximum_ram_page");
    let most = at(XENMEM_MAXIMUM_RAM_PAGE, 0);
    expect("the machine's frames are counted", most > 0x8000 && most <= 0x10_0000, true);
    about("XENMEM_current_reservation");
    expect("the domain has what it was started with", owned(), start_info().nr_pages.cast_signed());
    expect("also by its number", op(XENMEM_CURRENT_RESERVATION, &mut of(0)), owned());
    expect("a domain that is not is ESRCH", op(XENMEM_CURRENT_RESERVATION, &mut of(NOBODY)), ESRCH);
    expect("a bad pointer is EFAULT", at(XENMEM_CURRENT_RESERVATION, HYPERVISOR_ADDRESS), EFAULT);
    about("XENMEM_maximum_reservation");
    let most = op(XENMEM_MAXIMUM_RESERVATION, &mut of(DOMID_SELF));
    expect("the first domain may have as many frames as 32 bits count", most, i64::from(u32::MAX));
    expect("a domain that is not may have none", op(XENMEM_MAXIMUM_RESERVATION, &mut of(NOBODY)), ESRCH);
    about("XENMEM_maximum_gpfn");
    expect("the last pseudo-physical frame is not said", op(XENMEM_MAXIMUM_GPFN, &mut of(DOMID_SELF)), 0);
    expect("nor of a domain that is not", op(XENMEM_MAXIMUM_GPFN, &mut of(NOBODY)), ESRCH);
    about("memory_op");
    expect("an unknown operation is ENOSYS", at(63, 0), ENOSYS);
    expect("operation 8 is no more", at(8, 0), ENOSYS);
    let bits = 5 << 6;
    expect("what is never continued has no upper bits", at(XENMEM_MAXIMUM_RAM_PAGE | bits, 0), EINVAL);
    expect("nor has the domain's size", op(XENMEM_CURRENT_RESERVATION | bits, &mut of(DOMID_SELF)), EINVAL);
    about("XENMEM_get_sharing_freed_pages XENMEM_get_sharing_shared_pages");
    expect("sharing freed nothing", at(XENMEM_GET_SHARING_FREED_PAGES, 0), 0);
    expect("nothing is shared", at(XENMEM_GET_SHARING_SHARED_PAGES, 0), 0);
}

fn taking() {
    about("XENMEM_increase_reservation");
    let before = owned();
    let mut frames = [0_u64; 3];
    expect("three frames are taken", op(XENMEM_INCREASE_RESERVATION, &mut list(&mut frames, 0)), 3);
    expect("they are told", frames.iter().all(|frame| *frame != 0), true);
    expect("they are the domain's", owned(), before + 3);
    let entry = frames[0] << 12 | RWAD;
    expect("a new frame is mapped", update_va_mapping(WINDOW.va(), entry, INVLPG), 0);
    expect("and is empty", (read_at(WINDOW.va()), read_at(WINDOW.va() + 4088)), (Ok(0), Ok(0)));
    about("XENMEM_decrease_reservation");
    expect("what is mapped is given back", op(XENMEM_DECREASE_RESERVATION, &mut list(&mut frames, 0)), 3);
    expect("but stays the domain's while it is mapped", write_at(WINDOW.va(), 1), Ok(()));
    expect("it is counted until then", owned(), before + 1);
    expect("giving it back twice does nothing", op(XENMEM_DECREASE_RESERVATION, &mut list(&mut frames[..1], 0)), 1);
    expect("when the mapping goes, it goes", update_va_mapping(WINDOW.va(), WINDOW.mfn() << 12 | RWAD, INVLPG), 0);
    expect("then it cannot be mapped", update_va_mapping(GIVEN[0].va(), entry, INVLPG), EBUSY);
    expect("the domain has what it had", owned(), before);
    about("XENMEM_increase_reservation");
    let mut one = [0];
    let mut asked = MemoryReservation { mem_flags: xenmemf_address_bits(12), ..list(&mut one, 0) };
    expect("a frame below 4 KiB cannot be had", op(XENMEM_INCREASE_RESERVATION, &mut asked), 0);
    let mut asked = MemoryReservation { mem_flags: xenmemf_address_bits(32), ..list(&mut one, 0) };
    expect("a frame below 4 GiB can", op(XENMEM_INCREASE_RESERVATION, &mut asked), 1);
    expect("it is given back", op(XENMEM_DECREASE_RESERVATION, &mut list(&mut one, 0)), 1);
    let mut blocks = [0_u64; 2];
    expect("two blocks of 8 are taken", op(XENMEM_INCREASE_RESERVATION, &mut list(&mut blocks, 3)), 2);
    expect("blocks lie at multiples of their size", blocks[0] % 8 + blocks[1] % 8, 0);
    expect("they count as 16", owned(), before + 16);
    expect("they are given back", op(XENMEM_DECREASE_RESERVATION, &mut list(&mut blocks, 3)), 2);
    let mut asked = MemoryReservation { domid: NOBODY, ..list(&mut one, 0) };
    expect("nothing is taken for a domain that is not", op(XENMEM_INCREASE_RESERVATION, &mut asked), 0);
    let mut asked = MemoryReservation { extent_order: 19, ..list(&mut one, 0) };
    expect("a block of 2 GiB cannot be had", op(XENMEM_INCREASE_RESERVATION, &mut asked), 0);
    let mut asked = MemoryReservation { extent_order: 64, ..list(&mut one, 0) };
    expect("a block of order 64 cannot be had", op(XENMEM_INCREASE_RESERVATION, &mut asked), 0);
    let mut asked = MemoryReservation { nr_extents: 1 << 26, ..list(&mut one, 0) };
    expect("a list longer than progress can be counted is not begun", op(XENMEM_INCREASE_RESERVATION, &mut asked), 0);
    expect("a list at a bad address is EFAULT or not begun", at(XENMEM_INCREASE_RESERVATION, HYPERVISOR_ADDRESS), 0);
    let mut asked = MemoryReservation { extent_start: HYPERVISOR_ADDRESS, ..list(&mut one, 0) };
    expect("frames that cannot be told are none", op(XENMEM_INCREASE_RESERVATION, &mut asked), 0);
    expect("the domain has what it had before", owned(), before);
    let mut asked = MemoryReservation { extent_start: 0, ..list(&mut one, 0) };
    expect("frames need not be told", op(XENMEM_INCREASE_RESERVATION, &mut asked), 1);
    expect("that one is the domain's for ever", owned(), before + 1);
}

fn giving() {
    about("XENMEM_decrease_reservation");
    let before = owned();
    let mut foreign = [0_u64, u64::MAX, 0xff_ffff_ffff];
    for frame in &mut foreign {
        let result = op(XENMEM_DECREASE_RESERVATION, &mut list(core::slice::from_mut(frame), 0));
        expect("a frame that is not the domain's is not given back", result, 0);
    }
    let mut shared = [start_info().shared_info >> 12];
    expect("the shared page is given back", op(XENMEM_DECREASE_RESERVATION, &mut list(&mut shared, 0)), 1);
    let again = update_va_mapping(WINDOW.va(), start_info().shared_info | RWAD, INVLPG);
    differs("it can still be mapped", again, 0, EBUSY);
    update_va_mapping(WINDOW.va(), WINDOW.mfn() << 12 | RWAD, INVLPG);
    let mut asked = MemoryReservation { extent_start: HYPERVISOR_ADDRESS, nr_extents: 1, ..list(&mut shared, 0) };
    expect("nor one at a bad address", op(XENMEM_DECREASE_RESERVATION, &mut asked), 0);
    let mut wraps = MemoryReservation { extent_start: u64::MAX - 7, nr_extents: 2, ..list(&mut shared, 0) };
    expect("nor a list that wraps", op(XENMEM_DECREASE_RESERVATION, &mut wraps), 0);
    let mut mixed = [GIVEN[3].mfn(), 0];
    let entry = GIVEN[3].mfn() << 12 | RWAD;
    expect("a list stops where it fails", op(XENMEM_DECREASE_RESERVATION, &mut list(&mut mixed, 0)), 1);
    expect("what was given before is mapped still", write_at(GIVEN[3].va(), 5), Ok(()));
    expect("and goes with its mapping", update_va_mapping(GIVEN[3].va(), 0, INVLPG), 0);
    expect("then the domain has one frame less", owned(), before - 1);
    expect("it cannot be mapped again", update_va_mapping(GIVEN[3].va(), entry, INVLPG), EBUSY);
}

fn populating() {
    about("XENMEM_populate_physmap");
    let before = owned();
    let pfn = 0x1_2345;
    let mut frames = [pfn];
    expect("a frame is placed", op(XENMEM_POPULATE_PHYSMAP, &mut list(&mut frames, 0)), 1);
    expect("it is told", frames[0] != pfn && frames[0] != 0, true);
    let place = 0xffff_8000_0000_0000 + frames[0] * 8;
    expect("the machine-to-physical table says where", read_at(place), Ok(pfn));
    let mut asked = MemoryReservation { domid: NOBODY, ..list(&mut frames, 0) };
    expect("nothing is placed for a domain that is not", op(XENMEM_POPULATE_PHYSMAP, &mut asked), 0);
    let mut asked = MemoryReservation { mem_flags: 1 << 16, ..list(&mut frames, 0) };
    expect("nothing is placed on demand", op(XENMEM_POPULATE_PHYSMAP, &mut asked), 0);
    let mut asked = MemoryReservation { extent_order: 19, ..list(&mut frames, 0) };
    expect("no block of 2 GiB is placed", op(XENMEM_POPULATE_PHYSMAP, &mut asked), 0);
    let mut asked = MemoryReservation { extent_start: HYPERVISOR_ADDRESS, ..list(&mut frames, 0) };
    expect("nothing is placed by a list at a bad address", op(XENMEM_POPULATE_PHYSMAP, &mut asked), 0);
    expect("the placed frame is given back", op(XENMEM_DECREASE_RESERVATION, &mut list(&mut frames, 0)), 1);
    expect("the domain has what it had at first", owned(), before);
}

fn exchange(given: &mut [u64], order: u32, taken: &mut [u64], taken_order: u32, bits: u32) -> (i64, u64) {
    let mut asked = MemoryExchange {
        in_: list(given, order),
        out: MemoryReservation { mem_flags: xenmemf_address_bits(bits), ..list(taken, taken_order) },
        nr_exchanged: 0,
    };
    (op(XENMEM_EXCHANGE, &mut asked), asked.nr_exchanged)
}

/// XSA-212 wrote results through a list that was not checked: any number of frames "exchanged", any address.
fn exchanging() {
    about("XENMEM_exchange");
    let before = owned();
    let mut frames = [0_u64; 4];
    expect("four frames are taken", op(XENMEM_INCREASE_RESERVATION, &mut list(&mut frames, 0)), 4);
    let mut block = [0x2_0000_u64];
    expect("four frames become one block", exchange(&mut frames, 0, &mut block, 2, 0), (0, 4));
    expect("the block lies at a multiple of its size", block[0] % 4, 0);
    expect("the table says where it is", read_at(0xffff_8000_0000_0000 + (block[0] + 3) * 8), Ok(0x2_0003));
    let mut singles = [1, 2, 3, 4];
    expect("the block becomes four frames", exchange(&mut block, 2, &mut singles, 0, 32), (0, 1));
    expect("the domain has as much as it took", owned(), before + 4);
    expect("what is mapped is not exchanged", exchange(&mut [GIVEN[1].mfn()], 0, &mut [1], 0, 0), (EINVAL, 0));
    expect("what is another's is not", exchange(&mut [0], 0, &mut [1], 0, 0), (EINVAL, 0));
    expect("one frame is not exchanged for two", exchange(&mut singles[..1], 0, &mut [1, 2], 0, 0), (EINVAL, 0));
    let mut asked = MemoryExchange { in_: list(&mut singles, 0), out: list(&mut frames, 0), nr_exchanged: 5 };
    expect("more is not done than asked", op(XENMEM_EXCHANGE, &mut asked), EINVAL);
    let mut asked = MemoryExchange { in_: list(&mut singles, 0), out: list(&mut frames, 0), nr_exchanged: 4 };
    expect("what is done already is done", op(XENMEM_EXCHANGE, &mut asked), 0);
    let at_hypervisor = MemoryReservation { extent_start: HYPERVISOR_ADDRESS, ..list(&mut singles, 0) };
    let mut asked = MemoryExchange { in_: at_hypervisor, out: list(&mut frames, 0), nr_exchanged: 0 };
    expect("a list in the hypervisor is EFAULT", op(XENMEM_EXCHANGE, &mut asked), EFAULT);
    let mut asked = MemoryExchange { in_: list(&mut singles, 0), out: at_hypervisor, nr_exchanged: 0 };
    expect("results into the hypervisor are EFAULT", op(XENMEM_EXCHANGE, &mut asked), EFAULT);
    let far = MemoryReservation { extent_start: 0x10_0000, nr_extents: u64::MAX >> 4, ..list(&mut singles, 0) };
    let mut asked = MemoryExchange { in_: far, out: far, nr_exchanged: (u64::MAX >> 4) - 1 };
    expect("a list so long that its end wraps is refused", op(XENMEM_EXCHANGE, &mut asked) < 0, true);
    let other = MemoryReservation { domid: NOBODY, ..list(&mut singles, 0) };
    let mut asked = MemoryExchange { in_: other, out: other, nr_exchanged: 0 };
    expect("nothing is exchanged for a domain that is not", op(XENMEM_EXCHANGE, &mut asked), ESRCH);
    let mut asked = MemoryExchange { in_: other, out: list(&mut frames, 0), nr_exchanged: 0 };
    expect("nor between two domains", op(XENMEM_EXCHANGE, &mut asked), EINVAL);
    let large = MemoryReservation { extent_order: 20, ..list(&mut singles, 0) };
    let mut asked = MemoryExchange { in_: large, out: large, nr_exchanged: 0 };
    expect("nor blocks of 4 GiB", op(XENMEM_EXCHANGE, &mut asked), EPERM);
    expect("nothing is below 4 KiB", exchange(&mut singles[..1], 0, &mut [1], 0, 12), (ENOMEM, 0));
    let mut twice = [singles[0], singles[0], singles[1], singles[2]];
    expect("a frame is not given twice", exchange(&mut twice, 0, &mut block, 2, 0), (EINVAL, 0));
    let kept = singles.map(|frame| update_va_mapping(WINDOW.va(), frame << 12 | RWAD, INVLPG));
    expect("after all that the frames are the domain's", kept, [0; 4]);
    update_va_mapping(WINDOW.va(), WINDOW.mfn() << 12 | RWAD, INVLPG);
    expect("and can be given back", op(XENMEM_DECREASE_RESERVATION, &mut list(&mut singles, 0)), 4);
    expect("the domain has what it had", owned(), before);
}

fn claims() {
    about("XENMEM_claim_pages");
    let claim = |frames: u64| {
        let mut asked = MemoryReservation { nr_extents: frames, ..Default::default() };
        op(XENMEM_CLAIM_PAGES, &mut asked)
    };
    let more = owned().cast_unsigned() + 16;
    expect("more than the domain has is claimed", claim(more), 0);
    expect("a second claim is refused", claim(more), EINVAL);
    expect("the claim is given up", claim(0), 0);
    expect("a claim below what the domain has is refused", claim(1), EINVAL);
    expect("a claim of more than there is is refused", claim(1 << 30), ENOMEM);
    let mut asked = MemoryReservation { extent_order: 1, nr_extents: more, ..Default::default() };
    expect("blocks are not claimed", op(XENMEM_CLAIM_PAGES, &mut asked), EINVAL);
    let mut asked = MemoryReservation { nr_extents: 1, domid: NOBODY, ..Default::default() };
    expect("nothing is claimed for a domain that is not", op(XENMEM_CLAIM_PAGES, &mut asked), EINVAL);
    asked.domid = DOMID_SELF;
    expect("a domain is claimed for by its number", op(XENMEM_CLAIM_PAGES, &mut asked), EINVAL);
}

fn maps() {
    about("XENMEM_machphys_mapping");
    let mut mapping = MachphysMapping::default();
    expect("the table's place is told", op(XENMEM_MACHPHYS_MAPPING, &mut mapping), 0);
    expect("it is where it always is", mapping.v_start, 0xffff_8000_0000_0000);
    expect("a bad pointer to it is EFAULT", at(XENMEM_MACHPHYS_MAPPING, HYPERVISOR_ADDRESS), EFAULT);
    about("XENMEM_machphys_mfn_list");
    let mut frames = [0_u64; 4];
    let mut asked = MachphysMfnList { max_extents: 4, extent_start: frames.as_mut_ptr() as u64, ..Default::default() };
    expect("the table's frames are told", op(XENMEM_MACHPHYS_MFN_LIST, &mut asked), 0);
    expect("there is one for 256 MiB and more", asked.nr_extents >= 1 && frames[0] != 0, true);
    let mut asked = MachphysMfnList { max_extents: 1, extent_start: HYPERVISOR_ADDRESS, ..Default::default() };
    expect("a bad list of them is EFAULT", op(XENMEM_MACHPHYS_MFN_LIST, &mut asked), EFAULT);
    about("XENMEM_memory_map");
    let mut entries = [0_u8; 20 * 64];
    let mut map = MemoryMap { nr_entries: 64, buffer: entries.as_mut_ptr() as u64, ..Default::default() };
    expect("nobody made a map for the first domain", op(XENMEM_MEMORY_MAP, &mut map), ENOSYS);
    about("XENMEM_set_memory_map");
    let mut set = ForeignMemoryMap { domid: DOMID_SELF, map: MemoryMap { nr_entries: 2, ..map }, ..Default::default() };
    entries[8] = 0x10;
    entries[16] = 1;
    expect("a map is made", op(XENMEM_SET_MEMORY_MAP, &mut set), 0);
    expect("and read", (op(XENMEM_MEMORY_MAP, &mut map), map.nr_entries), (0, 2));
    map.nr_entries = 1;
    expect("as much of it as fits", (op(XENMEM_MEMORY_MAP, &mut map), map.nr_entries), (0, 1));
    set.map.nr_entries = 1025;
    expect("a map of 1025 entries is EINVAL", op(XENMEM_SET_MEMORY_MAP, &mut set), EINVAL);
    set.map = MemoryMap { nr_entries: 1, buffer: HYPERVISOR_ADDRESS, ..Default::default() };
    expect("a map at a bad address is EFAULT", op(XENMEM_SET_MEMORY_MAP, &mut set), EFAULT);
    set.domid = NOBODY;
    expect("nobody has no map", op(XENMEM_SET_MEMORY_MAP, &mut set), ESRCH);
    about("XENMEM_machine_memory_map");
    let mut map = MemoryMap { nr_entries: 64, buffer: entries.as_mut_ptr() as u64, ..Default::default() };
    expect("the machine's map is told to the first domain", op(XENMEM_MACHINE_MEMORY_MAP, &mut map), 0);
    expect("it has several entries", map.nr_entries > 3 && map.nr_entries < 64, true);
    let mut small = MemoryMap { nr_entries: 1, buffer: entries.as_mut_ptr() as u64, ..Default::default() };
    expect("not in part", op(XENMEM_MACHINE_MEMORY_MAP, &mut small), EINVAL);
    let mut map = MemoryMap { nr_entries: 64, buffer: HYPERVISOR_ADDRESS, ..Default::default() };
    expect("not into the hypervisor", op(XENMEM_MACHINE_MEMORY_MAP, &mut map), EFAULT);
    about("XENMEM_reserved_device_memory_map");
    let mut map = ReservedDeviceMemoryMap { flags: 1, ..Default::default() };
    expect("devices have no memory reserved", op(XENMEM_RESERVED_DEVICE_MEMORY_MAP, &mut map), 0);
    map.flags = 2;
    expect("an unknown flag is EINVAL", op(XENMEM_RESERVED_DEVICE_MEMORY_MAP, &mut map), EINVAL);
}

/// Operations on the physical map that PV domains do not have.
fn physical_maps() {
    about("XENMEM_add_to_physmap");
    for (space, what) in [(0, "the shared page"), (1, "a grant frame"), (2, "a frame"), (4, "another's frame")] {
        let mut add = AddToPhysmap { domid: DOMID_SELF, space, gpfn: 0x5000, ..Default::default() };
        let result = op(XENMEM_ADD_TO_PHYSMAP, &mut add);
        say!("{what}: {result}");
        expect("nothing is added to a physical map", result == EACCES || result == ENOSYS, true);
    }
    let mut add = AddToPhysmap { domid: NOBODY, ..Default::default() };
    expect("nor to nobody's", op(XENMEM_ADD_TO_PHYSMAP, &mut add), ESRCH);
    about("XENMEM_add_to_physmap_batch");
    let mut batch = AddToPhysmapBatch { domid: DOMID_SELF, size: 1, ..Default::default() };
    expect("nor in batches", op(XENMEM_ADD_TO_PHYSMAP_BATCH, &mut batch) < 0, true);
    about("XENMEM_remove_from_physmap");
    let mut remove = RemoveFromPhysmap { domid: DOMID_SELF, gpfn: 0x5000, ..Default::default() };
    expect("nothing is removed from one", op(XENMEM_REMOVE_FROM_PHYSMAP, &mut remove), EACCES);
    about("XENMEM_set_pod_target XENMEM_get_pod_target");
    let mut target = PodTarget { domid: DOMID_SELF, target_pages: 10, ..Default::default() };
    expect("there is no memory on demand to set", op(XENMEM_SET_POD_TARGET, &mut target), EINVAL);
    expect("nor to ask for", op(XENMEM_GET_POD_TARGET, &mut target), EINVAL);
    about("XENMEM_get_vnumainfo");
    let mut nodes = [0_u64; 6];
    nodes[0] = u64::from(DOMID_SELF);
    expect("there are no virtual nodes", op(XENMEM_GET_VNUMAINFO, &mut nodes), EOPNOTSUPP);
    about("XENMEM_acquire_resource");
    let mut resource = MemAcquireResource { domid: DOMID_SELF, type_: 1, ..Default::default() };
    expect("a resource's domain is named by its number", op(XENMEM_ACQUIRE_RESOURCE, &mut resource), ESRCH);
    let mut resource = MemAcquireResource { domid: 0, type_: 1, ..Default::default() };
    expect("nobody acquires from itself", op(XENMEM_ACQUIRE_RESOURCE, &mut resource), EPERM);
    let mut resource = MemAcquireResource { domid: NOBODY, type_: 1, ..Default::default() };
    expect("nor from nobody", op(XENMEM_ACQUIRE_RESOURCE, &mut resource), ESRCH);
    let mut resource = MemAcquireResource { domid: NOBODY, type_: 1, pad: 1, ..Default::default() };
    expect("the padding is zero", op(XENMEM_ACQUIRE_RESOURCE, &mut resource), EINVAL);
    about("MMU_MACHPHYS_UPDATE");
    let own = WINDOW.mfn() << 12 | MMU_MACHPHYS_UPDATE;
    let place = 0xffff_8000_0000_0000 + WINDOW.mfn() * 8;
    let was = read_at(place).unwrap_or(0);
    expect("the table's entry of an own frame is set", (mmu_update(own, 0x77), read_at(place)), (0, Ok(0x77)));
    expect("and set back", (mmu_update(own, was), read_at(place)), (0, Ok(was)));
    expect("that of another's frame is not", mmu_update(0x1000 | MMU_MACHPHYS_UPDATE, 0x77), EINVAL);
    expect("that of no frame is not", mmu_update(0xff_ffff_f000 | MMU_MACHPHYS_UPDATE, 0x77), EINVAL);
}
