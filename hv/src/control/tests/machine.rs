//! What is asked of the machine, and how it ends.

use super::*;

#[test]
fn another_interface_version_is_refused() {
    let bed = Bed::new(256);
    let mut dom0 = bed.guest(0, 2);
    let place = dom0.address(0);
    dom0.write(&bed, place, &Domctl { interface_version: 0x14, ..Domctl::new(2, 1) });
    let domctl_version = dom0.refused(&bed, domctl, [place, 0, 0, 0, 0]);
    assert_eq!(domctl_version, (rule::DOMCTL_VERSION, Some(Errno::Access)));
    dom0.write(&bed, place, &Sysctl::default());
    assert_eq!(dom0.refused(&bed, sysctl, [place, 0, 0, 0, 0]), (rule::SYSCTL_VERSION, Some(Errno::Access)));
    dom0.write(&bed, place, &PlatformOp::default());
    let platform_version = dom0.refused(&bed, platform_op, [place, 0, 0, 0, 0]);
    assert_eq!(platform_version, (rule::PLATFORM_VERSION, Some(Errno::Access)));
}

#[test]
fn sysctl_tells_of_the_machine_and_its_domains() {
    let bed = Bed::new(256);
    let mut dom0 = bed.guest(0, 4);
    let _other = bed.domain(4, 1);
    let (result, frame) = ask_sysctl(&bed, &mut dom0, sys::XEN_SYSCTL_PHYSINFO, &[0_u8; 1]);
    let info: sys::SysctlPhysinfo = frame.payload();
    assert_eq!((result, info.nr_cpus, info.total_pages, info.max_mfn), (0, 1, 256, 255));
    let place = dom0.address(1);
    let list = sys::SysctlGetdomaininfolist { max_domains: 9, buffer: place, ..Default::default() };
    let (_, frame) = ask_sysctl(&bed, &mut dom0, sys::XEN_SYSCTL_GETDOMAININFOLIST, &list);
    assert_eq!(frame.payload::<sys::SysctlGetdomaininfolist>().num_domains, 2);
    let second: dom::DomctlGetdomaininfo = dom0.read(&bed, place + size_of::<dom::DomctlGetdomaininfo>() as u64);
    assert_eq!(second.domain, 4);
    let (_, frame) = ask_sysctl(&bed, &mut dom0, sys::XEN_SYSCTL_SCHED_ID, &[0_u8; 1]);
    assert_eq!(frame.payload::<sys::SysctlSchedId>().sched_id, 6);
    let (_, frame) = ask_sysctl(&bed, &mut dom0, sys::XEN_SYSCTL_CPUTOPOINFO, &sys::SysctlCputopoinfo::default());
    assert_eq!(frame.payload::<sys::SysctlCputopoinfo>().num_cpus, 1);
    let none = sys::SysctlCputopoinfo { cputopo: place, ..Default::default() };
    let refused = sysctl_refused(&bed, &mut dom0, sys::XEN_SYSCTL_CPUTOPOINFO, &none);
    assert_eq!(refused, (rule::BUFFER_SIZE, Some(Errno::NoBufs)));
    let nodes = sys::SysctlNumainfo { num_nodes: 1, meminfo: place, distance: place + 64, ..Default::default() };
    assert_eq!(ask_sysctl(&bed, &mut dom0, sys::XEN_SYSCTL_NUMAINFO, &nodes).0, 0);
    assert_eq!(dom0.read::<u64>(&bed, place), 256 << 12);
    let pool = sys::SysctlCpupoolOp { op: sys::XEN_SYSCTL_CPUPOOL_OP_INFO, ..Default::default() };
    let (_, frame) = ask_sysctl(&bed, &mut dom0, sys::XEN_SYSCTL_CPUPOOL_OP, &pool);
    assert_eq!(frame.payload::<sys::SysctlCpupoolOp>().n_dom, 2);
    let pool = sys::SysctlCpupoolOp { cpupool_id: 1, ..pool };
    let refused = sysctl_refused(&bed, &mut dom0, sys::XEN_SYSCTL_CPUPOOL_OP, &pool);
    assert_eq!(refused, (rule::NO_SUCH_POOL, Some(Errno::NoEnt)));
    let refused = sysctl_refused(&bed, &mut dom0, 99, &[0_u8; 1]);
    assert_eq!(refused, (crate::rules::core::UNKNOWN_OPERATION, Some(Errno::NoSys)));
}

#[test]
fn features_and_policies_are_of_the_host_or_of_pv() {
    let bed = Bed::new(256);
    bed.hv.machine.set_cpuid(1, 0, CpuidResult { edx: u32::MAX, ..Default::default() });
    let mut dom0 = bed.guest(0, 3);
    let place = dom0.address(1);
    let wanted = |index| sys::SysctlCpuFeatureset { index, nr_features: 19, features: place };
    let mut word = |index| {
        assert_eq!(ask_sysctl(&bed, &mut dom0, sys::XEN_SYSCTL_GET_CPU_FEATURESET, &wanted(index)).0, 0);
        dom0.read::<u32>(&bed, place)
    };
    assert_eq!(word(sys::XEN_SYSCTL_CPU_FEATURESET_HOST), u32::MAX);
    assert_eq!(word(sys::XEN_SYSCTL_CPU_FEATURESET_PV) & 1 << 13, 0);
    let hvm = wanted(sys::XEN_SYSCTL_CPU_FEATURESET_HVM);
    let refused = sysctl_refused(&bed, &mut dom0, sys::XEN_SYSCTL_GET_CPU_FEATURESET, &hvm);
    assert_eq!(refused, (rule::POLICY_INDEX, Some(Errno::OpNotSupp)));
    let policy = sys::SysctlCpuPolicy { index: sys::XEN_SYSCTL_CPU_POLICY_PV_DEFAULT, ..Default::default() };
    let (_, frame) = ask_sysctl(&bed, &mut dom0, sys::XEN_SYSCTL_GET_CPU_POLICY, &policy);
    assert_eq!(frame.payload::<sys::SysctlCpuPolicy>().nr_leaves, 128);
}

#[test]
fn the_console_is_read_and_written_by_dom0() {
    let bed = Bed::new(256);
    let mut dom0 = bed.guest(0, 3);
    let place = dom0.address(1);
    dom0.write(&bed, place, &[b'x'; 300]);
    bed.hv.machine.interrupt_after(Some(0));
    let written = dom0.call(&bed, number::HYPERVISOR_CONSOLE_IO, [0, 300, place, 0, 0]);
    bed.hv.machine.interrupt_after(None);
    assert_eq!((written, dom0.continued, bed.hv.machine.take_console().len()), (0, 2, 300));
    bed.hv.machine.type_on_console(b"hello");
    assert_eq!(dom0.call(&bed, number::HYPERVISOR_CONSOLE_IO, [1, 100, place, 0, 0]), 5);
    assert_eq!(dom0.read::<[u8; 5]>(&bed, place), *b"hello");
    let refused_count = dom0.refused(&bed, console_io, [1, 1 << 31, place, 0, 0]);
    assert_eq!(refused_count, (rule::CONSOLE_COUNT, Some(Errno::TooBig)));
    let ring = sys::SysctlReadconsole { clear: 1, buffer: dom0.address(2), count: 1000, ..Default::default() };
    let (_, frame) = ask_sysctl(&bed, &mut dom0, sys::XEN_SYSCTL_READCONSOLE, &ring);
    assert_eq!(frame.payload::<sys::SysctlReadconsole>().count, 300);
    let (_, frame) = ask_sysctl(&bed, &mut dom0, sys::XEN_SYSCTL_READCONSOLE, &ring);
    assert_eq!(frame.payload::<sys::SysctlReadconsole>().count, 0);
}

#[test]
fn a_list_of_domains_goes_on_after_an_interruption() {
    let bed = Bed::new(512);
    let mut dom0 = bed.guest(0, 3);
    let guests: Vec<_> = [3, 5, 9].map(|id| bed.guest(id, 2)).into();
    let asked =
        sys::SysctlGetdomaininfolist { first_domain: 1, max_domains: 2, buffer: dom0.address(1), ..Default::default() };
    bed.hv.machine.interrupt_after(Some(0));
    let (result, frame) = ask_sysctl(&bed, &mut dom0, sys::XEN_SYSCTL_GETDOMAININFOLIST, &asked);
    bed.hv.machine.interrupt_after(None);
    assert_eq!((result, dom0.continued), (0, 1));
    assert_eq!(frame.payload::<sys::SysctlGetdomaininfolist>().num_domains, 2);
    let told = [0, 1].map(|n| {
        let place = dom0.address(1) + n * size_of::<pv_abi::domctl::DomctlGetdomaininfo>() as u64;
        dom0.read::<pv_abi::domctl::DomctlGetdomaininfo>(&bed, place).domain
    });
    assert_eq!(told, [3, 5]);
    drop(guests);
}

#[test]
fn debug_keys_list_each_domain_once_although_interrupted() {
    let bed = Bed::new(512);
    let mut dom0 = bed.guest(0, 3);
    let _guests = [3, 5].map(|id| bed.guest(id, 2));
    dom0.write(&bed, dom0.address(1), b"qhq");
    let keys = sys::SysctlDebugKeys { keys: dom0.address(1), nr_keys: 3, ..Default::default() };
    bed.hv.machine.interrupt_after(Some(0));
    assert_eq!(ask_sysctl(&bed, &mut dom0, sys::XEN_SYSCTL_DEBUG_KEYS, &keys).0, 0);
    bed.hv.machine.interrupt_after(None);
    let said = String::from_utf8(bed.hv.machine.take_console()).unwrap();
    let firsts: Vec<_> = said.lines().map(|line| line.split(':').next().unwrap()).collect();
    assert_eq!(firsts, ["(hv) d0", "(hv) d3", "(hv) d5", "(hv) debug keys", "(hv) d0", "(hv) d3", "(hv) d5"]);
}

#[test]
fn guests_write_to_the_console_only_when_debugging() {
    let mut bed = Bed::new(256);
    let mut guest = bed.guest(1, 2);
    let place = guest.address(0);
    guest.write(&bed, place, b"hi");
    let refused = guest.refused(&bed, console_io, [0, 2, place, 0, 0]);
    assert_eq!(refused, (rule::CONSOLE_NOT_YOURS, Some(Errno::Perm)));
    bed.hv.options = options::Options::parse("guest_loglvl=debug").unwrap();
    assert_eq!(guest.call(&bed, number::HYPERVISOR_CONSOLE_IO, [0, 2, place, 0, 0]), 0);
    assert_eq!(bed.hv.machine.take_console(), b"hi");
}

#[test]
fn the_version_is_that_of_the_abi() {
    let mut bed = Bed::new(256);
    let mut guest = bed.guest(1, 2);
    let place = guest.address(0);
    let mut ask =
        |bed: &Bed, command: u32| guest.call(bed, number::HYPERVISOR_XEN_VERSION, [command.into(), place, 0, 0, 0]);
    assert_eq!(ask(&bed, version::XENVER_VERSION), 4 << 16 | 17);
    assert_eq!(ask(&bed, version::XENVER_CAPABILITIES), 0);
    let text: [u8; 14] = guest.read(&bed, place);
    assert_eq!(text, *b"xen-3.0-x86_64");
    guest.write(&bed, place, &version::FeatureInfo { submap_idx: 0, submap: 0 });
    assert_eq!(guest.call(&bed, number::HYPERVISOR_XEN_VERSION, [6, place, 0, 0, 0]), 0);
    let features = guest.read::<version::FeatureInfo>(&bed, place).submap;
    assert_eq!((features & (1 << 5 | 1 << 7), features & (1 << 2 | 1 << 8 | 1 << 11)), (1 << 5 | 1 << 7, 0));
    guest.write(&bed, place, &version::FeatureInfo { submap_idx: 1, submap: 0 });
    let submap = guest.refused(&bed, xen_version, [6, place, 0, 0, 0]);
    assert_eq!(submap, (rule::FEATURE_SUBMAP, Some(Errno::Inval)));
    let pagesize = guest.refused(&bed, xen_version, [7, place, 0, 0, 0]);
    assert_eq!(pagesize, (rule::PAGESIZE_TAKES_NO_ARGUMENT, Some(Errno::Inval)));
    assert_eq!(guest.call(&bed, number::HYPERVISOR_XEN_VERSION, [9, place, 0, 0, 0]), 0);
    assert_eq!(guest.read::<[u8; 8]>(&bed, place), *b"<denied>");
    let mut dom0 = bed.guest(0, 2);
    let place = dom0.address(0);
    assert_eq!(dom0.refused(&bed, xen_version, [10, place, 0, 0, 0]), (rule::NO_BUILD_ID, Some(Errno::NoData)));
    bed.hv.options.build_id = b"0123456789abcdef";
    assert_eq!(dom0.call(&bed, number::HYPERVISOR_XEN_VERSION, [10, 0, 0, 0, 0]), 16);
    dom0.write(&bed, place, &4_u32);
    let small = dom0.refused(&bed, xen_version, [10, place, 0, 0, 0]);
    assert_eq!(small, (rule::BUILD_ID_BUFFER, Some(Errno::NoBufs)));
}

#[test]
fn platform_operations_answer_a_kernel() {
    let bed = Bed::new(256);
    let mut dom0 = bed.guest(0, 2);
    let mut ask_platform = |command, payload: &[u8]| {
        let mut bytes = [0; 64];
        bytes[..payload.len()].copy_from_slice(payload);
        ask(&bed, &mut dom0, number::HYPERVISOR_PLATFORM_OP, &platform_frame(command, &bytes))
    };
    let time = plat::XenpfSettime64 { secs: 1000, nsecs: 5, mbz: 0, system_time: 0 };
    assert_eq!(ask_platform(plat::XENPF_SETTIME64, time.as_bytes()).0, 0);
    let carried = plat::XenpfSettime64 { secs: 999, nsecs: 1_000_000_005, ..time };
    assert_eq!(ask_platform(plat::XENPF_SETTIME64, carried.as_bytes()).0, 0);
    assert_eq!(crate::time::wallclock(&bed.hv), (1000, 5));
    let bad = plat::XenpfSettime64 { mbz: 1, ..time };
    assert_eq!(ask_platform(plat::XENPF_SETTIME64, bad.as_bytes()).0, Errno::Inval.as_return());
    let (_, frame) = ask_platform(plat::XENPF_GET_CPUINFO, &[]);
    let told: plat::XenpfPcpuinfo = frame.payload();
    assert_eq!((told.flags, told.apic_id, told.acpi_id), (plat::XEN_PCPU_FLAGS_ONLINE, 0, 1));
    let firmware = |type_: u32| type_.to_le_bytes();
    assert_eq!(ask_platform(plat::XENPF_FIRMWARE_INFO, &firmware(5)).0, 0);
    assert_eq!(ask_platform(plat::XENPF_FIRMWARE_INFO, &firmware(1)).0, Errno::Srch.as_return());
    assert_eq!(ask_platform(plat::XENPF_FIRMWARE_INFO, &firmware(4)).0, Errno::NoSys.as_return());
    let place = dom0.address(0);
    let sleep = plat::XenpfEnterAcpiSleep { sleep_state: 3, ..Default::default() };
    dom0.write(&bed, place, &platform_frame(plat::XENPF_ENTER_ACPI_SLEEP, &sleep));
    let refused_sleep = dom0.refused(&bed, platform_op, [place, 0, 0, 0, 0]);
    assert_eq!(refused_sleep, (rule::SLEEP_STATE, Some(Errno::OpNotSupp)));
    dom0.write(&bed, place, &platform_frame(plat::XENPF_SETTIME64, &bad));
    assert_eq!(dom0.refused(&bed, platform_op, [place, 0, 0, 0, 0]).0, rule::WALL_CLOCK);
    dom0.write(&bed, place, &platform_frame(plat::XENPF_FIRMWARE_INFO, &1_u32));
    assert_eq!(dom0.refused(&bed, platform_op, [place, 0, 0, 0, 0]).0, rule::NO_FIRMWARE_INFO);
}

#[test]
#[should_panic(expected = "power Off")]
fn dom0_switches_the_machine_off() {
    let bed = Bed::new(256);
    let dom0 = bed.domain(0, 1);
    on_shutdown(&bed.hv, &dom0, pv_abi::sched::SHUTDOWN_POWEROFF);
}

#[test]
#[should_panic(expected = "power Reboot")]
fn a_crash_of_dom0_starts_the_machine_again() {
    let bed = Bed::new(256);
    let dom0 = bed.domain(0, 1);
    on_shutdown(&bed.hv, &dom0, pv_abi::sched::SHUTDOWN_CRASH);
}

#[test]
#[should_panic(expected = "power Off")]
fn noreboot_switches_off_instead() {
    let mut bed = Bed::new(256);
    bed.hv.options = options::Options::parse("noreboot").unwrap();
    let dom0 = bed.domain(0, 1);
    on_shutdown(&bed.hv, &dom0, pv_abi::sched::SHUTDOWN_REBOOT);
}

#[test]
fn a_guests_crash_leaves_the_machine_running() {
    let bed = Bed::new(256);
    let guest = bed.domain(3, 1);
    on_shutdown(&bed.hv, &guest, pv_abi::sched::SHUTDOWN_CRASH);
}

#[test]
fn a_guest_that_says_it_crashed_is_printed() {
    let bed = Bed::new(256);
    let mut guest = bed.guest(3, 2);
    let mut reason = pv_abi::sched::SchedShutdown { reason: pv_abi::sched::SHUTDOWN_CRASH };
    let shutdown = pv_abi::sched::SCHEDOP_SHUTDOWN;
    assert_eq!(guest.call_with(&bed, number::HYPERVISOR_SCHED_OP, shutdown, &mut reason), 0);
    let console = String::from_utf8(bed.hv.machine.take_console()).unwrap();
    assert!(console.contains(rule::GUEST_CRASHED.0.id) && console.contains("sched_op(0x2"), "{console}");
}
