//! What a domain without privilege is refused, and what it may do: asked from within one.
#![no_std]
#![no_main]

use guest_tests::child::{CRASH, Child, info};
use guest_tests::errno::{EACCES, EBUSY, EEXIST, EFAULT, EINVAL, EPERM, ESRCH};
use guest_tests::{HYPERVISOR_ADDRESS, P, RW, about, expect, guest_test, say};
use pv_abi::event_channel::{
    EVTCHNOP_ALLOC_UNBOUND, EVTCHNOP_BIND_VIRQ, EVTCHNOP_RESET, EVTCHNOP_STATUS, EvtchnAllocUnbound, EvtchnBindVirq,
    EvtchnReset, EvtchnStatus,
};
use pv_abi::grant_table::{GNTTABOP_QUERY_SIZE, GNTTABOP_SETUP_TABLE, GnttabQuerySize, GnttabSetupTable};
use pv_abi::memory::{
    MemoryDomain, MemoryMap, MemoryReservation, XENMEM_CLAIM_PAGES, XENMEM_CURRENT_RESERVATION,
    XENMEM_INCREASE_RESERVATION, XENMEM_MACHINE_MEMORY_MAP, XENMEM_MAXIMUM_RESERVATION,
};
use pv_abi::physdev::{PHYSDEVOP_SET_IOPL, PHYSDEVOP_SETUP_GSI, PhysdevSetIopl, PhysdevSetupGsi};
use pv_abi::sched::{
    SCHEDOP_PIN_OVERRIDE, SCHEDOP_REMOTE_SHUTDOWN, SCHEDOP_SHUTDOWN, SchedPinOverride, SchedRemoteShutdown,
    SchedShutdown,
};
use pv_abi::version::{FeatureInfo, XENVER_BUILD_ID, XENVER_GET_FEATURES, XENVER_VERSION};
use pv_abi::xen::{
    DOMID_IO, DOMID_SELF, DOMID_XEN, HYPERVISOR_CONSOLE_IO, HYPERVISOR_DOMCTL, HYPERVISOR_EVENT_CHANNEL_OP,
    HYPERVISOR_GRANT_TABLE_OP, HYPERVISOR_MEMORY_OP, HYPERVISOR_MMU_UPDATE, HYPERVISOR_MMUEXT_OP,
    HYPERVISOR_PHYSDEV_OP, HYPERVISOR_PLATFORM_OP, HYPERVISOR_SCHED_OP, HYPERVISOR_SYSCTL,
    HYPERVISOR_UPDATE_VA_MAPPING, HYPERVISOR_UPDATE_VA_MAPPING_OTHERDOMAIN, HYPERVISOR_VCPU_OP, HYPERVISOR_XEN_VERSION,
    MMUEXT_CLEAR_PAGE, MMUEXT_FLUSH_CACHE, MMUEXT_TLB_FLUSH_LOCAL, MmuUpdate, MmuextOp,
};

guest_test!(unprivileged);

fn unprivileged() {
    about("XEN_DOMCTL_createdomain XEN_DOMCTL_max_mem XEN_DOMCTL_max_vcpus XEN_DOMCTL_setvcpucontext");
    let Some(child) = Child::new(7) else {
        say!("guest-test: a domain is made: FAILED it was refused");
        return;
    };
    about("XEN_DOMCTL_unpausedomain");
    expect("a domain is let run", child.start(), 0);
    about("XENVER_version");
    expect(
        "it makes hypercalls",
        child.call(HYPERVISOR_XEN_VERSION, [XENVER_VERSION.into(), 0, 0, 0, 0]),
        Some(0x0004_0011),
    );
    control(&child);
    memory(&child);
    tables(&child);
    events(&child);
    ends(&child);
}

fn control(child: &Child) {
    about("domctl");
    child.put(&[5_u64 | 0x15 << 32; 18]);
    expect("not even itself", child.call(HYPERVISOR_DOMCTL, [child.argument(), 0, 0, 0, 0]), Some(EPERM));
    about("sysctl");
    expect("nor the machine", child.call(HYPERVISOR_SYSCTL, [child.argument(), 0, 0, 0, 0]), Some(EPERM));
    about("platform_op");
    let platform = || child.call(HYPERVISOR_PLATFORM_OP, [child.argument(), 0, 0, 0, 0]);
    expect("of the platform it is told that it speaks another version", platform(), Some(EACCES));
    child.put(&[5_u64 | 0x0300_0001 << 32; 18]);
    expect("and where it speaks this one, that it may not", platform(), Some(EPERM));
    about("CONSOLEIO_write");
    let write = child.call(HYPERVISOR_CONSOLE_IO, [0, 4, child.argument(), 0, 0]);
    expect("it does not write to the console", write, Some(EPERM));
    about("CONSOLEIO_read");
    let read = child.call(HYPERVISOR_CONSOLE_IO, [1, 4, child.argument(), 0, 0]);
    expect("nor does it read what is typed", read, Some(EPERM));
    about("XENVER_get_features");
    let features = child.ask(HYPERVISOR_XEN_VERSION, XENVER_GET_FEATURES, &FeatureInfo::default());
    expect("it asks for its features", features, Some(0));
    let submap = guest_tests::read_at(child.argument_here()).unwrap_or(0) >> 32;
    expect("it is not the first domain", submap >> 11 & 1, 0);
    about("XENVER_build_id");
    let id = child.call(HYPERVISOR_XEN_VERSION, [XENVER_BUILD_ID.into(), 0, 0, 0, 0]);
    expect("it is not told the build id", id, Some(EPERM));
    about("PHYSDEVOP_setup_gsi");
    let gsi = PhysdevSetupGsi { gsi: 10, ..Default::default() };
    expect("it sets up no line", child.ask(HYPERVISOR_PHYSDEV_OP, PHYSDEVOP_SETUP_GSI, &gsi), Some(EPERM));
    about("PHYSDEVOP_set_iopl");
    let iopl = child.ask(HYPERVISOR_PHYSDEV_OP, PHYSDEVOP_SET_IOPL, &PhysdevSetIopl { iopl: 1 });
    expect("it may have I/O privilege, which gives it no ports", iopl, Some(0));
    about("SCHEDOP_remote_shutdown");
    let shutdown = SchedRemoteShutdown { domain_id: 0, reason: 0, ..Default::default() };
    let result = child.ask(HYPERVISOR_SCHED_OP, SCHEDOP_REMOTE_SHUTDOWN, &shutdown);
    expect("it does not shut the first domain down", result, Some(EPERM));
    about("SCHEDOP_pin_override");
    let pin = child.ask(HYPERVISOR_SCHED_OP, SCHEDOP_PIN_OVERRIDE, &SchedPinOverride { pcpu: 0 });
    expect("it does not pin itself", pin, Some(EPERM));
    about("vcpu_op");
    expect("its first vCPU is up", child.call(HYPERVISOR_VCPU_OP, [3, 0, 0, 0, 0]), Some(1));
}

fn memory(child: &Child) {
    let op = |command: u32, argument: &MemoryReservation| child.ask(HYPERVISOR_MEMORY_OP, command, argument);
    about("XENMEM_current_reservation");
    let own = child.ask(HYPERVISOR_MEMORY_OP, XENMEM_CURRENT_RESERVATION, &MemoryDomain { domid: DOMID_SELF });
    expect("it has eight frames", own, Some(8));
    let other = child.ask(HYPERVISOR_MEMORY_OP, XENMEM_CURRENT_RESERVATION, &MemoryDomain { domid: 0 });
    expect("it is not told how many another has", other, Some(EPERM));
    about("XENMEM_maximum_reservation");
    let own = child.ask(HYPERVISOR_MEMORY_OP, XENMEM_MAXIMUM_RESERVATION, &MemoryDomain { domid: DOMID_SELF });
    expect("it may have 64", own, Some(64));
    about("XENMEM_increase_reservation");
    let more = |frames: u64, order: u32| MemoryReservation {
        nr_extents: frames,
        extent_order: order,
        domid: DOMID_SELF,
        ..Default::default()
    };
    expect("it takes some", op(XENMEM_INCREASE_RESERVATION, &more(6, 0)), Some(6));
    expect("but not more than it may have", op(XENMEM_INCREASE_RESERVATION, &more(100, 0)), Some(50));
    expect("then no more", op(XENMEM_INCREASE_RESERVATION, &more(1, 0)), Some(0));
    let for_another = MemoryReservation { domid: 0, ..more(1, 0) };
    expect("it takes none for another", op(XENMEM_INCREASE_RESERVATION, &for_another), Some(0));
    about("XENMEM_claim_pages");
    expect("it claims nothing", op(XENMEM_CLAIM_PAGES, &MemoryReservation { domid: 7, ..more(1, 0) }), Some(EPERM));
    expect("nor by another name", op(XENMEM_CLAIM_PAGES, &more(1, 0)), Some(EINVAL));
    about("XENMEM_machine_memory_map");
    let map = child.ask(HYPERVISOR_MEMORY_OP, XENMEM_MACHINE_MEMORY_MAP, &MemoryMap::default());
    expect("it is not told the machine's memory", map, Some(EPERM));
}

fn tables(child: &Child) {
    let va = 0xffff_ffff_8000_7000;
    let own = child.frames[7] << 12 | P | RW;
    let first = guest_tests::mfn_of(guest_tests::start_info().pt_base);
    let map = |entry: u64, flags: u64| child.call(HYPERVISOR_UPDATE_VA_MAPPING, [va, entry, flags, 0, 0]);
    about("update_va_mapping");
    expect("it maps its own frame", map(own, 2), Some(0));
    expect("but not another's", map(first << 12 | P, 2), Some(EBUSY));
    expect("nor one of the hypervisor's", map(0x20_0000 | P, 2), Some(EBUSY));
    expect("nor a device", map(0xb_8000 | P | RW, 2), Some(EPERM));
    expect("nor the local APIC", map(0xfee0_0000 | P | RW, 2), Some(EPERM));
    expect("nor its own tables for writing", map(child.frames[3] << 12 | P | RW, 2), Some(EBUSY));
    expect("write-through caching is without a device nothing", map(own | 1 << 3, 2), Some(EINVAL));
    expect("uncached memory is refused without a device", map(own | 1 << 4, 2), Some(EINVAL));
    about("update_va_mapping_otherdomain");
    let other =
        |entry: u64, domain: u64| child.call(HYPERVISOR_UPDATE_VA_MAPPING_OTHERDOMAIN, [va, entry, 2, domain, 0]);
    expect("it does not map the first domain's frame as its", other(first << 12 | P, 0), Some(EPERM));
    expect("nor the hypervisor's", other(0x20_0000 | P, DOMID_XEN.into()), Some(EPERM));
    expect("nor devices by their name", other(0xb_8000 | P, DOMID_IO.into()), Some(EPERM));
    about("mmu_update");
    let update = MmuUpdate { ptr: (child.frames[3] << 12) + 7 * 8, val: own };
    child.put(&update);
    let updates = |domain: u64| child.call(HYPERVISOR_MMU_UPDATE, [child.argument(), 1, 0, domain, 0]);
    expect("it updates its own tables", updates(DOMID_SELF.into()), Some(0));
    expect("it names no other domain", updates(0), Some(EPERM));
    expect("nor another's tables", updates(1 << 16 | u64::from(DOMID_SELF)), Some(EPERM));
    about("MMU_MACHPHYS_UPDATE");
    child.put(&MmuUpdate { ptr: first << 12 | 1, val: 5 });
    expect("it places no frame of another's", updates(DOMID_SELF.into()), Some(EINVAL));
    child.put(&MmuUpdate { ptr: child.frames[7] << 12 | 1, val: 5 });
    expect("it places its own", updates(DOMID_SELF.into()), Some(0));
    about("mmuext_op");
    let extended = |command: u32, first: u64, domain: u64| {
        child.put(&MmuextOp { cmd: command, arg1: first, ..Default::default() });
        child.call(HYPERVISOR_MMUEXT_OP, [child.argument(), 1, 0, domain, 0])
    };
    expect("it flushes its translations", extended(MMUEXT_TLB_FLUSH_LOCAL, 0, DOMID_SELF.into()), Some(0));
    expect("it does nothing for another", extended(MMUEXT_TLB_FLUSH_LOCAL, 0, 0), Some(EPERM));
    about("MMUEXT_FLUSH_CACHE");
    expect("it flushes no caches", extended(MMUEXT_FLUSH_CACHE, 0, DOMID_SELF.into()), Some(EACCES));
    about("MMUEXT_CLEAR_PAGE");
    expect("it clears no frame of another's", extended(MMUEXT_CLEAR_PAGE, first, DOMID_SELF.into()), Some(EINVAL));
    expect(
        "an argument in the hypervisor is EFAULT",
        child.call(HYPERVISOR_MMUEXT_OP, [HYPERVISOR_ADDRESS, 1, 0, DOMID_SELF.into(), 0]),
        Some(EFAULT),
    );
}

fn events(child: &Child) {
    let op = |command: u32| child.call(HYPERVISOR_EVENT_CHANNEL_OP, [command.into(), child.argument(), 0, 0, 0]);
    about("EVTCHNOP_alloc_unbound");
    child.put(&EvtchnAllocUnbound { dom: DOMID_SELF, remote_dom: 0, ..Default::default() });
    expect("it offers a port to the first domain", op(EVTCHNOP_ALLOC_UNBOUND), Some(0));
    child.put(&EvtchnAllocUnbound { dom: 0, remote_dom: DOMID_SELF, ..Default::default() });
    expect("but none of the first domain's", op(EVTCHNOP_ALLOC_UNBOUND), Some(EPERM));
    child.put(&EvtchnAllocUnbound { dom: 99, remote_dom: DOMID_SELF, ..Default::default() });
    expect("nor of one that is not", op(EVTCHNOP_ALLOC_UNBOUND), Some(ESRCH));
    about("EVTCHNOP_status");
    child.put(&EvtchnStatus { dom: 0, port: 1, ..Default::default() });
    expect("it is not told of another's port", op(EVTCHNOP_STATUS), Some(EPERM));
    about("EVTCHNOP_reset");
    child.put(&EvtchnReset { dom: 0 });
    expect("it resets no other's ports", op(EVTCHNOP_RESET), Some(EPERM));
    about("EVTCHNOP_bind_virq");
    child.put(&EvtchnBindVirq { virq: 3, vcpu: 0, ..Default::default() });
    expect("it binds the console's interrupt, which never comes", op(EVTCHNOP_BIND_VIRQ), Some(0));
    expect("once", op(EVTCHNOP_BIND_VIRQ), Some(EEXIST));
    about("GNTTABOP_query_size");
    child.put(&GnttabQuerySize { dom: DOMID_SELF, ..Default::default() });
    let grants = |command: u32| child.call(HYPERVISOR_GRANT_TABLE_OP, [command.into(), child.argument(), 1, 0, 0]);
    expect("it asks for the size of its grant table", grants(GNTTABOP_QUERY_SIZE), Some(0));
    let sizes = guest_tests::read_at(child.argument_here() + 8).unwrap_or(0);
    expect("it may have the four frames that it was made with", sizes & 0xffff_ffff, 4);
    child.put(&GnttabQuerySize { dom: 0, ..Default::default() });
    expect("it asks for another's", grants(GNTTABOP_QUERY_SIZE), Some(0));
    let status = guest_tests::read_at(child.argument_here() + 8).unwrap_or(0) >> 32 & 0xffff;
    expect("and is denied", status as u16 as i16, -8);
    about("GNTTABOP_setup_table");
    child.put(&GnttabSetupTable { dom: DOMID_SELF, nr_frames: 5, ..Default::default() });
    expect("it sets up more frames than it may have", grants(GNTTABOP_SETUP_TABLE), Some(0));
    let status = guest_tests::read_at(child.argument_here() + 8).unwrap_or(0) & 0xffff;
    expect("and is refused", status as u16 as i16, -1);
}

fn ends(child: &Child) {
    about("SCHEDOP_shutdown XEN_DOMCTL_getdomaininfo");
    let _ = child.ask(HYPERVISOR_SCHED_OP, SCHEDOP_SHUTDOWN, &SchedShutdown { reason: 2 });
    let flags = info(child.number).1.flags;
    expect("it suspends itself, and the first domain is told", flags & 4 != 0 && flags >> 16 & 0xff == 2, true);
    about("XEN_DOMCTL_destroydomain");
    expect("it is destroyed", child.destroy(), 0);
    expect("then it is no more", info(child.number).1.domain == child.number, false);
    about("exceptions");
    let Some(child) = Child::new(8) else {
        say!("guest-test: another domain is made: FAILED it was refused");
        return;
    };
    child.start();
    expect("a domain whose exception nobody handles does not go on", child.call(CRASH, [0; 5]), None);
    let flags = info(8).1.flags;
    expect("it is crashed, and the first domain lives", (flags >> 2 & 1, flags >> 16 & 0xff), (1, 3));
    expect("it is destroyed, too", child.destroy(), 0);
}
