//! `sysctl`: what a toolstack asks about the machine.
//!
//! Source: Xen's `public/sysctl.h`.

use alloc::format;
use alloc::string::String;

use pv_abi::DomId;
use pv_abi::domctl::XEN_SCHEDULER_CREDIT2;
use pv_abi::errno::Errno;
use pv_abi::sysctl::{self as abi, Sysctl, XEN_SYSCTL_INTERFACE_VERSION};

use super::crash::print;
use super::domctl::{describe_domain, write_leaves, write_msrs};
use crate::Hypervisor;
use crate::call::{Call, resume, resumed_at};
use crate::domain::Domain;
use crate::hardware::{CpuId, CpuSet, Machine};
use crate::hvm;
use crate::refusal::{Evidence, Refusal};
use crate::rules::{control as rule, core as core_rule};
use crate::sched;
use crate::traps::{cpuid, policy};

/// Debug keys that are looked at.
const MOST_KEYS: u32 = 64;
/// Bytes of the console copied at once.
const CHUNK: usize = 256;
/// The shortest time a vCPU runs before another may take its CPU, in microseconds, as it is shown.
const RATE_LIMIT_US: u32 = 1000;

/// `sysctl(operation*)`.
///
/// # Errors
/// `EPERM` for all but dom0, `EACCES` for another interface version, `EFAULT` for a bad pointer, `ENOSYS` for an unknown
/// command, and those of the operations.
pub fn sysctl<M: Machine>(call: &mut Call<'_, M>, args: [u64; 5]) -> Result<u64, Refusal> {
    call.privileged()?;
    let mut frame: Sysctl = call.read(args[0])?;
    if frame.interface_version != XEN_SYSCTL_INTERFACE_VERSION {
        let evidence = Evidence::Value(frame.interface_version.into());
        return Err(Refusal::errno(Errno::Access, rule::SYSCTL_VERSION).with(evidence));
    }
    match frame.cmd {
        abi::XEN_SYSCTL_READCONSOLE => read_console(call, &mut frame)?,
        abi::XEN_SYSCTL_PHYSINFO => frame.set_payload(&physical(call.hv)),
        abi::XEN_SYSCTL_SCHED_ID => frame.set_payload(&abi::SysctlSchedId { sched_id: XEN_SCHEDULER_CREDIT2 }),
        abi::XEN_SYSCTL_GETDOMAININFOLIST => list_domains(call, &mut frame, args)?,
        abi::XEN_SYSCTL_DEBUG_KEYS => debug_keys(call, &frame.payload(), args)?,
        abi::XEN_SYSCTL_GETCPUINFO => cpu_times(call, &mut frame)?,
        abi::XEN_SYSCTL_AVAILHEAP => {
            let wanted: abi::SysctlAvailheap = frame.payload();
            let avail_bytes = call.hv.allocator.lock().free_count() << 12;
            frame.set_payload(&abi::SysctlAvailheap { avail_bytes, ..wanted });
        }
        abi::XEN_SYSCTL_CPUTOPOINFO => cpu_topology(call, &mut frame)?,
        abi::XEN_SYSCTL_NUMAINFO => nodes(call, &mut frame)?,
        abi::XEN_SYSCTL_CPUPOOL_OP => cpu_pool(call, &mut frame)?,
        abi::XEN_SYSCTL_SCHEDULER_OP => scheduler(&mut frame)?,
        abi::XEN_SYSCTL_GET_CPU_LEVELLING_CAPS => frame.set_payload(&abi::SysctlCpuLevellingCaps { caps: 0 }),
        abi::XEN_SYSCTL_GET_CPU_FEATURESET => features(call, &mut frame)?,
        abi::XEN_SYSCTL_GET_CPU_POLICY => policy(call, &mut frame)?,
        command => {
            let evidence = Evidence::Value(command.into());
            return Err(Refusal::errno(Errno::NoSys, core_rule::UNKNOWN_OPERATION).with(evidence));
        }
    }
    call.write(args[0], &frame)?;
    Ok(0)
}

/// `XEN_SYSCTL_readconsole`.
fn read_console<M: Machine>(call: &Call<'_, M>, frame: &mut Sysctl) -> Result<(), Refusal> {
    let mut request: abi::SysctlReadconsole = frame.payload();
    let console = &call.hv.console;
    let mut from = (request.incremental != 0).then_some(request.index);
    let mut bytes = [0; CHUNK];
    let mut done = 0;
    while done < request.count {
        let room = CHUNK.min((request.count - done) as usize);
        let (next, count) = console.read(from, &mut bytes[..room]);
        from = Some(next);
        call.write(request.buffer + u64::from(done), &bytes[..count])?;
        done += count as u32;
        if count < room {
            break;
        }
    }
    request.index = from.unwrap_or_else(|| console.read(None, &mut []).0);
    request.count = done;
    if request.clear != 0 {
        console.clear(request.index);
    }
    frame.set_payload(&request);
    Ok(())
}

fn physical<M: Machine>(hv: &Hypervisor<M>) -> abi::SysctlPhysinfo {
    const RAM: u32 = 1;
    let cpus = hv.machine.cpu_count();
    let total = (0..)
        .map_while(|n| hv.machine.memory_map(n))
        .filter(|range| range.2 == RAM)
        .map(|(_, len, _)| len >> 12)
        .sum::<u64>();
    let (free, unclaimed) = {
        let allocator = hv.allocator.lock();
        (allocator.free_count(), allocator.unclaimed_count())
    };
    let mut words = [0; 8];
    words.copy_from_slice(&feature_words(|leaf, subleaf| hv.machine.cpuid(leaf, subleaf))[..8]);
    let hvm = if hv.machine.has_hvm() { abi::XEN_SYSCTL_PHYSCAP_HVM | abi::XEN_SYSCTL_PHYSCAP_HAP } else { 0 };
    abi::SysctlPhysinfo {
        threads_per_core: 1,
        cores_per_socket: cpus,
        nr_cpus: cpus,
        max_cpu_id: cpus.saturating_sub(1),
        nr_nodes: 1,
        max_node_id: 0,
        cpu_khz: hv.machine.time_scale().khz,
        capabilities: abi::XEN_SYSCTL_PHYSCAP_PV
            | abi::XEN_SYSCTL_PHYSCAP_GNTTAB_V1
            | abi::XEN_SYSCTL_PHYSCAP_GNTTAB_V2
            | hvm,
        arch_capabilities: 0,
        pad: 0,
        total_pages: total,
        free_pages: free,
        scrub_pages: 0,
        outstanding_pages: free.saturating_sub(unclaimed),
        max_mfn: hv.machine.frame_count().saturating_sub(1),
        hw_cap: words,
    }
}

/// `XEN_SYSCTL_getdomaininfolist`. Where it stops in its middle, its second argument says how many were told of and which
/// was the last.
fn list_domains<M: Machine>(call: &mut Call<'_, M>, frame: &mut Sysctl, args: [u64; 5]) -> Result<(), Refusal> {
    let mut request: abi::SysctlGetdomaininfolist = frame.payload();
    let progress = resumed_at(args[1]);
    let mut told = progress >> 16;
    let mut first = if progress == 0 { request.first_domain } else { progress as u16 };
    while told < request.max_domains {
        let Some(domain) = call.hv.domains.first_from(DomId(first)) else { break };
        if told != progress >> 16 && call.should_stop() {
            return Err(call.again(resume(args[0], told << 16 | u32::from(domain.id.0))));
        }
        call.write_element(request.buffer, told.into(), &describe_domain(call.hv, &domain))?;
        told += 1;
        first = domain.id.0 + 1;
    }
    request.num_domains = told;
    frame.set_payload(&request);
    Ok(())
}

/// `XEN_SYSCTL_debug_keys`: `h` tells which there are, `q` lists the domains. Where it stops in its middle, its second
/// argument says how many keys were done and which domain is next.
fn debug_keys<M: Machine>(
    call: &mut Call<'_, M>,
    request: &abi::SysctlDebugKeys,
    args: [u64; 5],
) -> Result<(), Refusal> {
    let progress = resumed_at(args[1]);
    let mut next = DomId(progress as u16);
    for index in progress >> 16..request.nr_keys.min(MOST_KEYS) {
        let key: u8 = call.read_element(request.keys, index.into())?;
        while let Some(domain) = (key == b'q').then(|| call.hv.domains.first_from(next)).flatten() {
            print(call.hv, describe(&domain).as_bytes());
            next = DomId(domain.id.0 + 1);
            if call.should_stop() {
                return Err(call.again(resume(args[0], index << 16 | u32::from(next.0))));
            }
        }
        next = DomId(0);
        if key != b'q' {
            print(call.hv, b"(hv) debug keys: h shows this, q lists the domains\n");
        }
    }
    Ok(())
}

fn describe(domain: &Domain) -> String {
    let vcpus = domain.vcpus.get().map_or(0, alloc::vec::Vec::len);
    let lifecycle = *domain.lifecycle.lock();
    let memory = domain.memory.lock();
    let id = domain.id;
    format!("(hv) {id}: {} of at most {} frames, {vcpus} vcpus, {lifecycle:?}\n", memory.total, memory.max)
}

fn cpu_times<M: Machine>(call: &Call<'_, M>, frame: &mut Sysctl) -> Result<(), Refusal> {
    let mut request: abi::SysctlGetcpuinfo = frame.payload();
    request.nr_cpus = call.hv.machine.cpu_count().min(request.max_cpus);
    for cpu in 0..request.nr_cpus {
        let info = abi::SysctlCpuinfo { idletime: sched::idle_time(call.hv, CpuId(cpu)) };
        call.write_element(request.info, cpu.into(), &info)?;
    }
    frame.set_payload(&request);
    Ok(())
}

#[cold]
fn too_small(room: u32, count: u32) -> Refusal {
    let evidence = Evidence::Limit { asked: room.into(), limit: count.into() };
    Refusal::errno(Errno::NoBufs, rule::BUFFER_SIZE).with(evidence)
}

fn cpu_topology<M: Machine>(call: &Call<'_, M>, frame: &mut Sysctl) -> Result<(), Refusal> {
    let mut request: abi::SysctlCputopoinfo = frame.payload();
    let cpus = call.hv.machine.cpu_count();
    if request.cputopo != 0 {
        if request.num_cpus < cpus {
            return Err(too_small(request.num_cpus, cpus));
        }
        for cpu in 0..cpus {
            call.write_element(request.cputopo, cpu.into(), &abi::SysctlCputopo { core: cpu, socket: 0, node: 0 })?;
        }
    }
    request.num_cpus = cpus;
    frame.set_payload(&request);
    Ok(())
}

/// `XEN_SYSCTL_numainfo`: one node, 10 away from itself.
fn nodes<M: Machine>(call: &Call<'_, M>, frame: &mut Sysctl) -> Result<(), Refusal> {
    let mut request: abi::SysctlNumainfo = frame.payload();
    if (request.meminfo != 0 || request.distance != 0) && request.num_nodes < 1 {
        return Err(too_small(request.num_nodes, 1));
    }
    if request.meminfo != 0 {
        let info = physical(call.hv);
        let node = abi::SysctlMeminfo { memsize: info.total_pages << 12, memfree: info.free_pages << 12 };
        call.write(request.meminfo, &node)?;
    }
    if request.distance != 0 {
        call.write(request.distance, &10_u32)?;
    }
    request.num_nodes = 1;
    frame.set_payload(&request);
    Ok(())
}

fn cpu_pool<M: Machine>(call: &Call<'_, M>, frame: &mut Sysctl) -> Result<(), Refusal> {
    let mut request: abi::SysctlCpupoolOp = frame.payload();
    let CpuSet(cpus) = CpuSet::first(call.hv.machine.cpu_count());
    match request.op {
        abi::XEN_SYSCTL_CPUPOOL_OP_INFO if request.cpupool_id == 0 => {
            request.sched_id = XEN_SCHEDULER_CREDIT2;
            request.n_dom = call.hv.domains.from(DomId(0)).len() as u32;
            super::domctl::write_bits(call, &request.cpumap, cpus)?;
        }
        abi::XEN_SYSCTL_CPUPOOL_OP_INFO => {
            let evidence = Evidence::Value(request.cpupool_id.into());
            return Err(Refusal::errno(Errno::NoEnt, rule::NO_SUCH_POOL).with(evidence));
        }
        abi::XEN_SYSCTL_CPUPOOL_OP_FREEINFO => super::domctl::write_bits(call, &request.cpumap, 0)?,
        other => {
            let evidence = Evidence::Value(other.into());
            return Err(Refusal::errno(Errno::NoSys, core_rule::UNKNOWN_OPERATION).with(evidence));
        }
    }
    frame.set_payload(&request);
    Ok(())
}

fn scheduler(frame: &mut Sysctl) -> Result<(), Refusal> {
    let mut request: abi::SysctlSchedulerOp = frame.payload();
    if request.cpupool_id != 0 {
        let evidence = Evidence::Value(request.cpupool_id.into());
        return Err(Refusal::errno(Errno::Srch, rule::NO_SUCH_POOL).with(evidence));
    }
    let shown = request.sched_id == XEN_SCHEDULER_CREDIT2 && request.cmd == abi::XEN_SYSCTL_SCHEDOP_GETINFO;
    if !shown {
        let evidence = Evidence::Value(request.sched_id.into());
        return Err(Refusal::errno(Errno::Inval, rule::SCHEDULER).with(evidence));
    }
    request.u[..4].copy_from_slice(&RATE_LIMIT_US.to_le_bytes());
    frame.set_payload(&request);
    Ok(())
}

/// The words of a feature set, in the order of Xen's `public/arch-x86/cpufeatureset.h`; the two of the
/// architectural-capabilities register are empty.
fn feature_words(cpuid: impl Fn(u32, u32) -> crate::hardware::CpuidResult) -> [u32; 19] {
    let extended = cpuid(0x8000_0001, 0);
    let (one, seven) = (cpuid(1, 0), cpuid(7, 0));
    [
        one.edx,
        one.ecx,
        extended.edx,
        extended.ecx,
        cpuid(0xd, 1).eax,
        seven.ebx,
        seven.ecx,
        cpuid(0x8000_0007, 0).edx,
        cpuid(0x8000_0008, 0).ebx,
        seven.edx,
        cpuid(7, 1).eax,
        cpuid(0x8000_0021, 0).eax,
        cpuid(7, 1).ebx,
        cpuid(7, 2).edx,
        cpuid(7, 1).ecx,
        cpuid(7, 1).edx,
        0,
        0,
        cpuid(0x8000_0021, 0).ecx,
    ]
}

/// `XEN_SYSCTL_get_cpu_featureset`.
fn features<M: Machine>(call: &Call<'_, M>, frame: &mut Sysctl) -> Result<(), Refusal> {
    let mut request: abi::SysctlCpuFeatureset = frame.payload();
    let machine = &call.hv.machine;
    let words = match request.index {
        abi::XEN_SYSCTL_CPU_FEATURESET_RAW | abi::XEN_SYSCTL_CPU_FEATURESET_HOST => {
            feature_words(|leaf, subleaf| machine.cpuid(leaf, subleaf))
        }
        abi::XEN_SYSCTL_CPU_FEATURESET_PV | abi::XEN_SYSCTL_CPU_FEATURESET_PV_MAX => {
            feature_words(|leaf, subleaf| cpuid::visible_leaf(machine, leaf, subleaf))
        }
        abi::XEN_SYSCTL_CPU_FEATURESET_HVM | abi::XEN_SYSCTL_CPU_FEATURESET_HVM_MAX if machine.has_hvm() => {
            feature_words(|leaf, subleaf| hvm::visible_leaf(machine, leaf, subleaf))
        }
        other => return Err(no_policy(other)),
    };
    if request.features != 0 {
        if (request.nr_features as usize) < words.len() {
            return Err(too_small(request.nr_features, words.len() as u32));
        }
        call.write(request.features, &words)?;
    }
    request.nr_features = words.len() as u32;
    frame.set_payload(&request);
    Ok(())
}

#[cold]
fn no_policy(index: u32) -> Refusal {
    let errno = if index <= abi::XEN_SYSCTL_CPU_POLICY_HVM_DEFAULT { Errno::OpNotSupp } else { Errno::Inval };
    Refusal::errno(errno, rule::POLICY_INDEX).with(Evidence::Value(index.into()))
}

/// `XEN_SYSCTL_get_cpu_policy`.
fn policy<M: Machine>(call: &Call<'_, M>, frame: &mut Sysctl) -> Result<(), Refusal> {
    let mut request: abi::SysctlCpuPolicy = frame.payload();
    let machine = &call.hv.machine;
    let leaves = match request.index {
        _ if request.rsvd != 0 => {
            let evidence = Evidence::Value(request.rsvd.into());
            return Err(Refusal::errno(Errno::Inval, rule::POLICY_INDEX).with(evidence));
        }
        abi::XEN_SYSCTL_CPU_POLICY_RAW | abi::XEN_SYSCTL_CPU_POLICY_HOST => policy::host(machine),
        abi::XEN_SYSCTL_CPU_POLICY_PV_MAX | abi::XEN_SYSCTL_CPU_POLICY_PV_DEFAULT => policy::visible(machine, false),
        abi::XEN_SYSCTL_CPU_POLICY_HVM_MAX | abi::XEN_SYSCTL_CPU_POLICY_HVM_DEFAULT if machine.has_hvm() => {
            policy::visible(machine, true)
        }
        other => return Err(no_policy(other)),
    };
    request.nr_leaves = write_leaves(call, &leaves, request.leaves, request.nr_leaves)?;
    request.nr_msrs = write_msrs(call, request.msrs, request.nr_msrs)?;
    frame.set_payload(&request);
    Ok(())
}
