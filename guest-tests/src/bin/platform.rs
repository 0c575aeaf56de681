//! What the first domain may ask of the machine and set on it (`platform_op`, `sysctl`).
#![no_std]
#![no_main]

use guest_tests::errno::{EACCES, EFAULT, EINVAL, ENOBUFS, ENOENT, ENOSYS, ESRCH};
use guest_tests::{HYPERVISOR_ADDRESS, about, differs, expect, guest_test, hypercall, map_shared_info};
use pv_abi::domctl::{DomctlGetdomaininfo, XEN_SCHEDULER_CREDIT2};
use pv_abi::platform::{
    PlatformOp, XENPF_ENTER_ACPI_SLEEP, XENPF_FIRMWARE_INFO, XENPF_GET_CPU_VERSION, XENPF_GET_CPUINFO,
    XENPF_GETIDLETIME, XENPF_INTERFACE_VERSION, XENPF_SETTIME32, XENPF_SETTIME64, XenpfEnterAcpiSleep,
    XenpfFirmwareInfo, XenpfGetidletime, XenpfPcpuVersion, XenpfPcpuinfo, XenpfSettime32, XenpfSettime64,
};
use pv_abi::sysctl::{
    Sysctl, SysctlAvailheap, SysctlCpuFeatureset, SysctlCpuLevellingCaps, SysctlCpuPolicy, SysctlCpupoolOp,
    SysctlCputopoinfo, SysctlGetcpuinfo, SysctlGetdomaininfolist, SysctlNumainfo, SysctlPhysinfo, SysctlReadconsole,
    SysctlSchedId, SysctlSchedulerOp, XEN_SYSCTL_AVAILHEAP, XEN_SYSCTL_CPUPOOL_OP, XEN_SYSCTL_CPUPOOL_OP_INFO,
    XEN_SYSCTL_CPUTOPOINFO, XEN_SYSCTL_DEBUG_KEYS, XEN_SYSCTL_GET_CPU_FEATURESET, XEN_SYSCTL_GET_CPU_LEVELLING_CAPS,
    XEN_SYSCTL_GET_CPU_POLICY, XEN_SYSCTL_GETCPUINFO, XEN_SYSCTL_GETDOMAININFOLIST, XEN_SYSCTL_INTERFACE_VERSION,
    XEN_SYSCTL_NUMAINFO, XEN_SYSCTL_PHYSINFO, XEN_SYSCTL_READCONSOLE, XEN_SYSCTL_SCHED_ID, XEN_SYSCTL_SCHEDOP_GETINFO,
    XEN_SYSCTL_SCHEDULER_OP,
};
use pv_abi::xen::{CtlBitmap, HYPERVISOR_PLATFORM_OP, HYPERVISOR_SYSCTL};
use zerocopy::{FromBytes, Immutable, IntoBytes};

guest_test!(platform);

fn platform() {
    frames();
    clock();
    firmware();
    cpus();
    machine();
    lists();
    policies();
}

fn platform_op<T: IntoBytes + FromBytes + Immutable>(cmd: u32, payload: &mut T) -> i64 {
    let mut frame = PlatformOp { cmd, interface_version: XENPF_INTERFACE_VERSION, ..Default::default() };
    let len = size_of::<T>();
    frame.u[..len].copy_from_slice(payload.as_bytes());
    let result = hypercall(HYPERVISOR_PLATFORM_OP, [&raw mut frame as u64, 0, 0, 0, 0]);
    if let Ok(answer) = T::read_from_bytes(&frame.u[..len]) {
        *payload = answer;
    }
    result
}

fn sysctl<T: IntoBytes + FromBytes + Immutable>(cmd: u32, payload: &mut T) -> i64 {
    let mut frame = Sysctl { cmd, interface_version: XEN_SYSCTL_INTERFACE_VERSION, ..Default::default() };
    let len = size_of::<T>();
    frame.u[..len].copy_from_slice(payload.as_bytes());
    let result = hypercall(HYPERVISOR_SYSCTL, [&raw mut frame as u64, 0, 0, 0, 0]);
    if let Ok(answer) = T::read_from_bytes(&frame.u[..len]) {
        *payload = answer;
    }
    result
}

fn frames() {
    about("platform_op");
    let mut frame = PlatformOp { cmd: XENPF_GETIDLETIME, interface_version: 1, ..Default::default() };
    let ask = |frame: &mut PlatformOp| hypercall(HYPERVISOR_PLATFORM_OP, [&raw mut *frame as u64, 0, 0, 0, 0]);
    expect("another version of the platform's interface is EACCES", ask(&mut frame), EACCES);
    let at = hypercall(HYPERVISOR_PLATFORM_OP, [HYPERVISOR_ADDRESS, 0, 0, 0, 0]);
    expect("a platform operation in the hypervisor is EFAULT", at, EFAULT);
    expect("platform operation 99 is ENOSYS", platform_op(99, &mut 0_u64), ENOSYS);
    about("sysctl");
    let mut frame = Sysctl { cmd: XEN_SYSCTL_SCHED_ID, interface_version: 1, ..Default::default() };
    let ask = |frame: &mut Sysctl| hypercall(HYPERVISOR_SYSCTL, [&raw mut *frame as u64, 0, 0, 0, 0]);
    expect("another version of the machine's interface is EACCES", ask(&mut frame), EACCES);
    expect(
        "a sysctl in the hypervisor is EFAULT",
        hypercall(HYPERVISOR_SYSCTL, [HYPERVISOR_ADDRESS, 0, 0, 0, 0]),
        EFAULT,
    );
    expect("sysctl 99 is ENOSYS", sysctl(99, &mut 0_u64), ENOSYS);
}

fn clock() {
    let shared = map_shared_info();
    about("XENPF_settime64");
    let set = |secs: u64, nsecs: u32, mbz: u32| {
        platform_op(XENPF_SETTIME64, &mut XenpfSettime64 { secs, nsecs, mbz, system_time: shared.now() })
    };
    expect("the wall clock is set", set(1_600_000_000, 5, 0), 0);
    expect("nanoseconds carry into seconds", set(1_600_000_000, 1_000_000_000, 0), 0);
    expect("the padding is zero", set(1_600_000_000, 5, 1), EINVAL);
    about("XENPF_settime32");
    let mut old = XenpfSettime32 { secs: 1_600_000_000, nsecs: 7, system_time: shared.now() };
    expect("the wall clock is set in the old form", platform_op(XENPF_SETTIME32, &mut old), 0);
}

fn firmware() {
    about("XENPF_firmware_info");
    let ask = |type_: u32, index: u32| {
        platform_op(XENPF_FIRMWARE_INFO, &mut XenpfFirmwareInfo { type_, index, ..Default::default() })
    };
    expect("the keyboard's flags are told", ask(5, 0), 0);
    expect("of disk 99 nothing is known", ask(1, 99), ESRCH);
    expect("nor its signature", ask(2, 99), ESRCH);
    expect("an unknown kind of information is EINVAL", ask(99, 0), EINVAL);
    about("XENPF_enter_acpi_sleep");
    let mut sleep = XenpfEnterAcpiSleep { sleep_state: 9, ..Default::default() };
    expect("sleep state 9 is refused", platform_op(XENPF_ENTER_ACPI_SLEEP, &mut sleep) < 0, true);
}

fn cpus() {
    about("XENPF_get_cpuinfo");
    let mut info = XenpfPcpuinfo { xen_cpuid: 0, ..Default::default() };
    expect("a CPU is told", (platform_op(XENPF_GET_CPUINFO, &mut info), info.flags & 1), (0, 1));
    let mut info = XenpfPcpuinfo { xen_cpuid: 900, ..Default::default() };
    let result = platform_op(XENPF_GET_CPUINFO, &mut info);
    expect("one that is not is marked as such", (result, info.flags), (0, 2));
    about("XENPF_get_cpu_version");
    let mut version = XenpfPcpuVersion { xen_cpuid: 0, ..Default::default() };
    let result = platform_op(XENPF_GET_CPU_VERSION, &mut version);
    expect("a CPU's version is told", (result, &version.vendor_id), (0, b"AuthenticAMD"));
    about("XENPF_getidletime");
    let (mut bits, mut times) = ([1_u8; 8], [0_u64; 64]);
    let mut idle = XenpfGetidletime {
        cpumap_bitmap: bits.as_mut_ptr() as u64,
        cpumap_nr_cpus: 64,
        idletime: times.as_mut_ptr() as u64,
        ..Default::default()
    };
    differs("idle times are told", platform_op(XENPF_GETIDLETIME, &mut idle), 0, ENOSYS);
}

fn machine() {
    about("XEN_SYSCTL_physinfo");
    let mut info = SysctlPhysinfo::default();
    expect("the machine is told", sysctl(XEN_SYSCTL_PHYSINFO, &mut info), 0);
    expect("it has one CPU and one node", (info.nr_cpus, info.nr_nodes, info.max_cpu_id), (1, 1, 0));
    expect("PV guests, both forms of grants", info.capabilities & 0x102, 0x102);
    about("XEN_SYSCTL_sched_id");
    let mut id = SysctlSchedId::default();
    expect("the scheduler is told", (sysctl(XEN_SYSCTL_SCHED_ID, &mut id), id.sched_id), (0, XEN_SCHEDULER_CREDIT2));
    about("XEN_SYSCTL_availheap");
    let mut heap = SysctlAvailheap { node: -1, ..Default::default() };
    expect("free memory is told", (sysctl(XEN_SYSCTL_AVAILHEAP, &mut heap), heap.avail_bytes > 0), (0, true));
    about("XEN_SYSCTL_debug_keys");
    let mut keys = [0_u64; 2];
    expect("no debug keys are pressed", sysctl(XEN_SYSCTL_DEBUG_KEYS, &mut keys), 0);
    about("XEN_SYSCTL_readconsole");
    let mut text = [0_u8; 64];
    let mut read = SysctlReadconsole { buffer: text.as_mut_ptr() as u64, count: 64, ..Default::default() };
    expect("the log is read", (sysctl(XEN_SYSCTL_READCONSOLE, &mut read), read.count), (0, 64));
    let mut read = SysctlReadconsole { buffer: HYPERVISOR_ADDRESS, count: 64, ..Default::default() };
    expect("into the hypervisor is EFAULT", sysctl(XEN_SYSCTL_READCONSOLE, &mut read), EFAULT);
    about("XEN_SYSCTL_scheduler_op");
    let ask = |sched_id: u32, cpupool_id: u32| {
        let mut op = SysctlSchedulerOp { sched_id, cpupool_id, cmd: XEN_SYSCTL_SCHEDOP_GETINFO, ..Default::default() };
        sysctl(XEN_SYSCTL_SCHEDULER_OP, &mut op)
    };
    expect("the scheduler's settings are told", ask(XEN_SCHEDULER_CREDIT2, 0), 0);
    expect("those of another scheduler are not", ask(5, 0), EINVAL);
    expect("nor those of a pool that is not", ask(XEN_SCHEDULER_CREDIT2, 7), ESRCH);
    about("XEN_SYSCTL_cpupool_op");
    let mut bits = [0_u8; 8];
    let cpumap = CtlBitmap { bitmap: bits.as_mut_ptr() as u64, nr_bits: 64, ..Default::default() };
    let pool = |cpupool_id: u32, op: u32| {
        sysctl(XEN_SYSCTL_CPUPOOL_OP, &mut SysctlCpupoolOp { op, cpupool_id, cpumap, ..Default::default() })
    };
    expect("the CPU pool is told", pool(0, XEN_SYSCTL_CPUPOOL_OP_INFO), 0);
    expect("there is no other", pool(5, XEN_SYSCTL_CPUPOOL_OP_INFO), ENOENT);
    expect("an unknown operation of pools is ENOSYS", pool(0, 99), ENOSYS);
}

fn lists() {
    about("XEN_SYSCTL_getdomaininfolist");
    let mut infos = [DomctlGetdomaininfo::default(); 2];
    let mut list = SysctlGetdomaininfolist { max_domains: 2, buffer: infos.as_mut_ptr() as u64, ..Default::default() };
    expect("the domains are listed", (sysctl(XEN_SYSCTL_GETDOMAININFOLIST, &mut list), list.num_domains), (0, 1));
    list.first_domain = 1;
    expect("from a number on", (sysctl(XEN_SYSCTL_GETDOMAININFOLIST, &mut list), list.num_domains), (0, 0));
    let mut list = SysctlGetdomaininfolist { max_domains: 2, buffer: HYPERVISOR_ADDRESS, ..Default::default() };
    expect("into the hypervisor is EFAULT", sysctl(XEN_SYSCTL_GETDOMAININFOLIST, &mut list), EFAULT);
    about("XEN_SYSCTL_getcpuinfo");
    let mut times = [0_u64; 4];
    let mut cpus = SysctlGetcpuinfo { max_cpus: 4, info: times.as_mut_ptr() as u64, ..Default::default() };
    expect("the CPUs' idle times are listed", (sysctl(XEN_SYSCTL_GETCPUINFO, &mut cpus), cpus.nr_cpus), (0, 1));
    about("XEN_SYSCTL_cputopoinfo");
    let mut places = [0_u32; 12];
    let mut cpus = SysctlCputopoinfo { num_cpus: 4, cputopo: places.as_mut_ptr() as u64, ..Default::default() };
    expect("where the CPUs are is listed", (sysctl(XEN_SYSCTL_CPUTOPOINFO, &mut cpus), cpus.num_cpus), (0, 1));
    let mut cpus = SysctlCputopoinfo::default();
    expect("without a list their number is told", (sysctl(XEN_SYSCTL_CPUTOPOINFO, &mut cpus), cpus.num_cpus), (0, 1));
    about("XEN_SYSCTL_numainfo");
    let mut nodes = SysctlNumainfo::default();
    let result = sysctl(XEN_SYSCTL_NUMAINFO, &mut nodes);
    expect("without a list the number of nodes is told", (result, nodes.num_nodes), (0, 1));
}

fn policies() {
    about("XEN_SYSCTL_get_cpu_levelling_caps");
    expect(
        "what can be masked of CPUID is told",
        sysctl(XEN_SYSCTL_GET_CPU_LEVELLING_CAPS, &mut SysctlCpuLevellingCaps::default()),
        0,
    );
    about("XEN_SYSCTL_get_cpu_featureset");
    let mut words = [0_u32; 32];
    let features = |index: u32, nr_features: u32, features: u64| {
        let mut set = SysctlCpuFeatureset { index, nr_features, features };
        (sysctl(XEN_SYSCTL_GET_CPU_FEATURESET, &mut set), set.nr_features)
    };
    let place = words.as_mut_ptr() as u64;
    let count = features(0, 0, 0).1;
    expect("the number of words of features is told", count >= 15, true);
    expect("the machine's features are told", features(1, 32, place).0, 0);
    expect("those of PV guests", features(2, 32, place).0, 0);
    expect("a short buffer is ENOBUFS", features(1, 3, place).0, ENOBUFS);
    expect("set 99 is EINVAL", features(99, 32, place).0, EINVAL);
    about("XEN_SYSCTL_get_cpu_policy");
    let policy = |index: u32, nr_leaves: u32, leaves: u64| {
        let mut policy = SysctlCpuPolicy { index, nr_leaves, leaves, ..Default::default() };
        sysctl(XEN_SYSCTL_GET_CPU_POLICY, &mut policy)
    };
    expect("the size of a policy is told", policy(1, 0, 0), 0);
    expect("one leaf is too small for it", policy(1, 1, place), ENOBUFS);
    expect("policy 99 is EINVAL", policy(99, 0, 0), EINVAL);
    let mut rest = SysctlCpuPolicy { index: 1, rsvd: 1, ..Default::default() };
    expect("the rest is zero", sysctl(XEN_SYSCTL_GET_CPU_POLICY, &mut rest), EINVAL);
    expect("HVM guests have a policy", policy(3, 0, 0), 0);
}
