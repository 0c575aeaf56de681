//! Several vCPUs: their life, their areas, timers, calls and clocks.
//!
//! Four vCPUs run at the same time on four CPUs. What they do together is counted, and the counts are what a single one
//! would give.
#![no_std]
#![no_main]

use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use guest_tests::{
    Page, Shared, TrapFrame, UPCALLS, VCPUS, about, all_vcpus_are_there, begin, check, expect, guest_test, hypercall,
    initialise, map_shared_info, meet, on_trap, operation, peek, this_vcpu, time_of, vcpu_info_at, vcpu_op, vcpu_plain,
    verdict, work_through,
};
use pv_abi::event_channel::{
    EVTCHNOP_ALLOC_UNBOUND, EVTCHNOP_BIND_INTERDOMAIN, EVTCHNOP_BIND_IPI, EVTCHNOP_BIND_VCPU, EVTCHNOP_BIND_VIRQ,
    EVTCHNOP_CLOSE, EVTCHNOP_SEND, EVTCHNOP_STATUS, EvtchnAllocUnbound, EvtchnBindInterdomain, EvtchnBindIpi,
    EvtchnBindVcpu, EvtchnBindVirq, EvtchnClose, EvtchnSend, EvtchnStatus,
};
use pv_abi::platform::{PlatformOp, XENPF_GET_CPUINFO, XENPF_INTERFACE_VERSION, XenpfPcpuinfo};
use pv_abi::sched::{SCHEDOP_BLOCK, SCHEDOP_PIN_OVERRIDE, SCHEDOP_POLL, SCHEDOP_YIELD, SchedPinOverride, SchedPoll};
use pv_abi::vcpu::{
    RUNSTATE_OFFLINE, RUNSTATE_RUNNING, VCPUOP_DOWN, VCPUOP_GET_PHYSID, VCPUOP_GET_RUNSTATE_INFO, VCPUOP_IS_UP,
    VCPUOP_REGISTER_RUNSTATE_MEMORY_AREA, VCPUOP_REGISTER_VCPU_INFO, VCPUOP_REGISTER_VCPU_TIME_MEMORY_AREA,
    VCPUOP_SET_SINGLESHOT_TIMER, VCPUOP_STOP_PERIODIC_TIMER, VCPUOP_UP, VcpuGetPhysid, VcpuRegisterRunstateMemoryArea,
    VcpuRegisterTimeMemoryArea, VcpuRegisterVcpuInfo, VcpuRunstateInfo, VcpuSetSingleshotTimer,
};
use pv_abi::xen::{
    DOMID_SELF, HYPERVISOR_EVENT_CHANNEL_OP, HYPERVISOR_PLATFORM_OP, HYPERVISOR_SCHED_OP, VcpuInfoAtomic,
};

guest_test!(smp);

const ENOENT: i64 = -2;
const EBUSY: i64 = -16;
const EEXIST: i64 = -17;
const EINVAL: i64 = -22;
/// The virtual interrupt of a vCPU's timer.
const TIMER: u32 = 0;
/// How early a timer may fire (Xen: 50 µs).
const EARLY_NS: u64 = 50_000;
/// How far the clocks of two vCPUs may be apart where the hypervisor does not say that they are one.
const APART_NS: u64 = 20_000_000;
/// How often two vCPUs call each other.
const CALLS: u32 = 60;

static INFOS: [Page; 4] = [const { Page::new() }; 4];
static AREAS: [Page; 4] = [const { Page::new() }; 4];
static PORTS: [AtomicU32; 4] = [const { AtomicU32::new(0) }; 4];
static LATEST: AtomicU64 = AtomicU64::new(0);
static SHARED: AtomicU64 = AtomicU64::new(0);
static RESUMED: AtomicU32 = AtomicU32::new(0);

/// What all vCPUs do together, one after the other.
const TOGETHER: [fn(u32); 6] = [areas, clocks, timers, calls, blocks, bound];

fn smp() {
    SHARED.store(map_shared_info().va(), Ordering::SeqCst);
    about("VCPUOP_is_up");
    if !all_vcpus_are_there() {
        return;
    }
    on_trap(on_upcall);
    // It would be taken for the shots that are tested.
    vcpu_plain(VCPUOP_STOP_PERIODIC_TIMER, 0);
    life();
    work_through(0, &TOGETHER);
    pinning();
    after();
}

fn shared() -> Shared {
    Shared::at(SHARED.load(Ordering::SeqCst))
}

/// A vCPU is initialised once, and goes up and down.
fn life() {
    expect("another vCPU is down", vcpu_plain(VCPUOP_IS_UP, 1), 0);
    about("VCPUOP_up");
    expect("it does not go up without a context", vcpu_plain(VCPUOP_UP, 1), EINVAL);
    let others = |work: fn(u32) -> i64| [1, 2, 3].map(work);
    about("VCPUOP_register_vcpu_info");
    expect("the vcpu_info of each is moved while it is down", others(move_info), [0; 3]);
    expect("but once only", others(move_info), [EINVAL; 3]);
    (1..VCPUS).for_each(|vcpu| info_of(vcpu).evtchn_upcall_mask.store(1, Ordering::SeqCst));
    about("VCPUOP_initialise");
    expect("each is given a context", others(|vcpu| initialise(vcpu, other)), [0; 3]);
    expect("but once only", others(|vcpu| initialise(vcpu, other)), [EEXIST; 3]);
    about("VCPUOP_get_runstate_info");
    let mut state = VcpuRunstateInfo::default();
    expect("its runstate is read", vcpu_op(VCPUOP_GET_RUNSTATE_INFO, 1, &mut state), 0);
    expect("it is offline", state.state, RUNSTATE_OFFLINE);
    about("VCPUOP_up");
    expect("each goes up", others(|vcpu| vcpu_plain(VCPUOP_UP, vcpu)), [0; 3]);
    meet();
    about("VCPUOP_is_up");
    expect("it is up", others(|vcpu| vcpu_plain(VCPUOP_IS_UP, vcpu)), [1; 3]);
    about("VCPUOP_up");
    expect("going up again is nothing", vcpu_plain(VCPUOP_UP, 1), 0);
}

fn move_info(vcpu: u32) -> i64 {
    let mut info = VcpuRegisterVcpuInfo { mfn: INFOS[vcpu as usize].mfn(), offset: 64, rsvd: 0 };
    vcpu_op(VCPUOP_REGISTER_VCPU_INFO, vcpu, &mut info)
}

/// Where a vCPU other than the first begins.
extern "C" fn other(vcpu: u32) -> ! {
    begin(vcpu);
    meet();
    work_through(vcpu, &TOGETHER);
    loop {
        vcpu_plain(VCPUOP_DOWN, vcpu);
        RESUMED.fetch_add(1, Ordering::SeqCst);
    }
}

/// A vCPU's `vcpu_info`: the first one's is in the shared page, the others' were moved.
fn info_of(vcpu: u32) -> &'static VcpuInfoAtomic {
    if vcpu == 0 { shared().vcpu() } else { vcpu_info_at(INFOS[vcpu as usize].va() + 64) }
}

fn now(vcpu: u32) -> u64 {
    time_of(&info_of(vcpu).time)
}

fn event_op<T>(command: u32, request: &mut T) -> i64 {
    operation(HYPERVISOR_EVENT_CHANNEL_OP, command, request)
}

fn close(port: u32) -> i64 {
    event_op(EVTCHNOP_CLOSE, &mut EvtchnClose { port })
}

fn send(port: u32) -> i64 {
    event_op(EVTCHNOP_SEND, &mut EvtchnSend { port })
}

fn poll(ports: &[u32], timeout: u64) -> i64 {
    let mut request =
        SchedPoll { ports: ports.as_ptr() as u64, nr_ports: ports.len() as u32, timeout, ..Default::default() };
    operation(HYPERVISOR_SCHED_OP, SCHEDOP_POLL, &mut request)
}

/// The event callback, on any vCPU: forgets that there is something to look at; ports stay pending.
fn on_upcall(frame: &mut TrapFrame) -> bool {
    if frame.vector != 256 {
        return false;
    }
    let info = info_of(this_vcpu() as u32);
    info.evtchn_upcall_pending.store(0, Ordering::SeqCst);
    info.evtchn_pending_sel.store(0, Ordering::SeqCst);
    true
}

/// Each vCPU has runstate and time areas of its own.
fn areas(vcpu: u32) {
    about_of(vcpu, "VCPUOP_register_runstate_memory_area VCPUOP_register_vcpu_time_memory_area");
    let page = AREAS[vcpu as usize].va();
    let mut runstate = VcpuRegisterRunstateMemoryArea { addr: page };
    check(vcpu_op(VCPUOP_REGISTER_RUNSTATE_MEMORY_AREA, vcpu, &mut runstate) == 0);
    let mut time = VcpuRegisterTimeMemoryArea { addr: page + 256 };
    check(vcpu_op(VCPUOP_REGISTER_VCPU_TIME_MEMORY_AREA, vcpu, &mut time) == 0);
    // A `VcpuRunstateInfo`: its state, and the times by state from offset 16 on.
    let (state, time) = (|| peek(page) as i32, |state: u64| peek(page + 16 + state * 8));
    check(state() == RUNSTATE_RUNNING);
    let (ran, slept) = (time(0), time(2));
    let mut asked = VcpuRunstateInfo::default();
    check(vcpu_op(VCPUOP_GET_RUNSTATE_INFO, vcpu, &mut asked) == 0);
    check(asked.state == RUNSTATE_RUNNING && asked.time[0] >= ran);
    // A sleep that begins late is none: the vCPU may have been kept from running before it.
    let sleeps = (0..100).any(|_| poll(&[], now(vcpu) + 2_000_000) == 0 && time(2) >= slept + 1_000_000);
    check(state() == RUNSTATE_RUNNING && sleeps);
    // A `VcpuTimeInfo`: its version, then the counter and the system time at one moment.
    check(peek(page + 256) as u32 & 1 == 0 && peek(page + 256 + 8) != 0);
    verdict(vcpu, "each vCPU has areas of its own, and its runstate counts how long it slept");
}

fn about_of(vcpu: u32, operations: &str) {
    if vcpu == 0 {
        about(operations);
    }
}

/// Each vCPU has a timer of its own.
fn timers(vcpu: u32) {
    about_of(vcpu, "VCPUOP_set_singleshot_timer");
    let shared = shared();
    let mut virq = EvtchnBindVirq { virq: TIMER, vcpu, ..Default::default() };
    check(event_op(EVTCHNOP_BIND_VIRQ, &mut virq) == 0);
    shared.set_mask(virq.port, true);
    for round in 1..20_u64 {
        let deadline = now(vcpu) + round * 100_000 + u64::from(vcpu) * 10_000;
        let mut shot = VcpuSetSingleshotTimer { timeout_abs_ns: deadline, ..Default::default() };
        check(vcpu_op(VCPUOP_SET_SINGLESHOT_TIMER, vcpu, &mut shot) == 0);
        while !shared.is_pending(virq.port) {
            check(poll(&[virq.port], 0) == 0);
        }
        check(now(vcpu) + EARLY_NS >= deadline);
        shared.take(virq.port);
    }
    verdict(vcpu, "each vCPU's timer fires for it, and not early");
    let mut shot = VcpuSetSingleshotTimer::default();
    check(vcpu_op(VCPUOP_SET_SINGLESHOT_TIMER, (vcpu + 1) % VCPUS, &mut shot) == EINVAL);
    check(close(virq.port) == 0);
    verdict(vcpu, "the timer of another vCPU is not set");
}

/// A port on which this vCPU is called, its own, and that of the other in its pair.
fn call_ports(vcpu: u32) -> (u32, u32) {
    let mut ipi = EvtchnBindIpi { vcpu, ..Default::default() };
    check(event_op(EVTCHNOP_BIND_IPI, &mut ipi) == 0);
    PORTS[vcpu as usize].store(ipi.port, Ordering::SeqCst);
    meet();
    (ipi.port, PORTS[(vcpu ^ 1) as usize].load(Ordering::SeqCst))
}

/// A vCPU and the other in its pair call each other by turns; `wait` waits for a call.
fn by_turns(vcpu: u32, other: u32, wait: impl Fn()) {
    for _ in 0..CALLS {
        if vcpu & 1 == 0 {
            check(send(other) == 0);
        }
        wait();
        if vcpu & 1 == 1 {
            check(send(other) == 0);
        }
    }
}

/// Two pairs of vCPUs call each other, and poll for the call.
fn calls(vcpu: u32) {
    about_of(vcpu, "EVTCHNOP_bind_ipi EVTCHNOP_send SCHEDOP_poll");
    let (own, other) = call_ports(vcpu);
    shared().set_mask(own, true);
    meet();
    by_turns(vcpu, other, || {
        while !shared().take(own) {
            check(poll(&[own], 0) == 0);
        }
    });
    verdict(vcpu, "calls and answers between two pairs of vCPUs that poll all arrive");
    check(close(own) == 0);
}

/// Two pairs of vCPUs call each other, and block until an event comes.
fn blocks(vcpu: u32) {
    about_of(vcpu, "EVTCHNOP_bind_ipi EVTCHNOP_send SCHEDOP_block");
    let (own, other) = call_ports(vcpu);
    shared().set_mask(own, false);
    let upcalls = UPCALLS.load(Ordering::SeqCst);
    meet();
    by_turns(vcpu, other, || {
        let mask = &info_of(vcpu).evtchn_upcall_mask;
        loop {
            // Looked at with events masked, so none comes between the look and the block, which takes the mask away.
            mask.store(1, Ordering::SeqCst);
            if shared().take(own) {
                break;
            }
            check(hypercall(HYPERVISOR_SCHED_OP, [u64::from(SCHEDOP_BLOCK), 0, 0, 0, 0]) == 0);
        }
    });
    info_of(vcpu).evtchn_upcall_mask.store(1, Ordering::SeqCst);
    check(UPCALLS.load(Ordering::SeqCst) > upcalls);
    verdict(vcpu, "calls and answers between two pairs of vCPUs that block all arrive");
    check(close(own) == 0);
}

/// A port that is bound to a vCPU notifies that vCPU and no other.
fn bound(vcpu: u32) {
    about_of(vcpu, "EVTCHNOP_bind_vcpu EVTCHNOP_status");
    let pending = |vcpu: u32| info_of(vcpu).evtchn_upcall_pending.load(Ordering::SeqCst) != 0;
    info_of(vcpu).evtchn_upcall_mask.store(1, Ordering::SeqCst);
    let (mut offer, mut end) = (
        EvtchnAllocUnbound { dom: DOMID_SELF, remote_dom: DOMID_SELF, ..Default::default() },
        EvtchnBindInterdomain { remote_dom: DOMID_SELF, ..Default::default() },
    );
    if vcpu == 0 {
        check(event_op(EVTCHNOP_ALLOC_UNBOUND, &mut offer) == 0);
        end.remote_port = offer.port;
        check(event_op(EVTCHNOP_BIND_INTERDOMAIN, &mut end) == 0);
        shared().set_mask(end.local_port, false);
        PORTS[0].store(offer.port, Ordering::SeqCst);
    }
    for target in 0..VCPUS {
        info_of(vcpu).evtchn_upcall_pending.store(0, Ordering::SeqCst);
        info_of(vcpu).evtchn_pending_sel.store(0, Ordering::SeqCst);
        if vcpu == 0 {
            shared().take(end.local_port);
            check(event_op(EVTCHNOP_BIND_VCPU, &mut EvtchnBindVcpu { port: end.local_port, vcpu: target }) == 0);
            let mut status = EvtchnStatus { dom: DOMID_SELF, port: end.local_port, ..Default::default() };
            check(event_op(EVTCHNOP_STATUS, &mut status) == 0 && status.vcpu == target);
        }
        meet();
        if vcpu == (target + 1) % VCPUS {
            check(send(PORTS[0].load(Ordering::SeqCst)) == 0);
        }
        meet();
        check(pending(vcpu) == (vcpu == target));
    }
    if vcpu == 0 {
        let mut nobody = EvtchnBindVcpu { port: end.local_port, vcpu: VCPUS };
        check(event_op(EVTCHNOP_BIND_VCPU, &mut nobody) == ENOENT);
        check(close(end.local_port) == 0 && close(offer.port) == 0);
        shared().take(end.local_port);
    }
    info_of(vcpu).evtchn_upcall_pending.store(0, Ordering::SeqCst);
    verdict(vcpu, "an event comes to the vCPU that its port is bound to, and to no other");
}

/// System time, read on all vCPUs.
fn clocks(vcpu: u32) {
    about_of(vcpu, "VCPUOP_register_vcpu_time_memory_area");
    let slack = if info_of(vcpu).time.flags.load(Ordering::SeqCst) & 1 != 0 { 0 } else { APART_NS };
    let mut last = 0;
    for round in 0..20_000 {
        let latest = LATEST.load(Ordering::SeqCst);
        let own = now(vcpu);
        check(own >= last && own + slack >= latest);
        last = own;
        LATEST.fetch_max(own, Ordering::SeqCst);
        if round % 1_000 == 0 {
            hypercall(HYPERVISOR_SCHED_OP, [u64::from(SCHEDOP_YIELD), 0, 0, 0, 0]);
        }
    }
    verdict(vcpu, "system time does not run backwards, on one vCPU or from one to another");
}

/// What the hypervisor says of a CPU.
fn cpu_info(xen_cpuid: u32) -> XenpfPcpuinfo {
    let interface_version = XENPF_INTERFACE_VERSION;
    let mut frame = PlatformOp { cmd: XENPF_GET_CPUINFO, interface_version, ..Default::default() };
    frame.set_payload(&XenpfPcpuinfo { xen_cpuid, ..Default::default() });
    check(hypercall(HYPERVISOR_PLATFORM_OP, [&raw mut frame as u64, 0, 0, 0, 0]) == 0);
    frame.payload()
}

/// The hardware domain may pin a vCPU to a CPU.
fn pinning() {
    about("SCHEDOP_pin_override");
    let pin = |pcpu| operation(HYPERVISOR_SCHED_OP, SCHEDOP_PIN_OVERRIDE, &mut SchedPinOverride { pcpu });
    expect("a pin that there is not is not taken away", pin(-1), EINVAL);
    let pinned = [1, 0, 3].map(|pcpu| {
        let answers = [pin(pcpu), pin(2)];
        hypercall(HYPERVISOR_SCHED_OP, [u64::from(SCHEDOP_YIELD), 0, 0, 0, 0]);
        (answers, pin(-1))
    });
    expect("a vCPU is pinned to a CPU, but once only, and the pin is taken away", pinned, [([0, EBUSY], 0); 3]);
    expect("it is not pinned to a CPU that there is not", pin(4_000), EINVAL);
    about("XENPF_get_cpuinfo SCHEDOP_pin_override");
    let told = [0, 1, 2, 3].map(cpu_info);
    let seen = [0, 1, 2, 3].map(|pcpu| {
        let pinned = pin(pcpu);
        hypercall(HYPERVISOR_SCHED_OP, [u64::from(SCHEDOP_YIELD), 0, 0, 0, 0]);
        // The instruction itself, which the hypervisor does not see: the id of the APIC is in the upper byte.
        (pinned, core::arch::x86_64::__cpuid(1).ebx >> 24, pin(-1))
    });
    expect("the numbers of the local APICs are those of the CPUs", told.map(|cpu| (0, cpu.apic_id, 0)), seen);
    expect("ACPI's numbers are others", told.map(|cpu| cpu.acpi_id), [0, 1, 2, 3]);
    about("VCPUOP_get_physid");
    let mut id = VcpuGetPhysid::default();
    let answers = (pin(1), vcpu_op(VCPUOP_GET_PHYSID, 0, &mut id), pin(-1));
    let first = u64::from(told[0].apic_id) | u64::from(told[0].acpi_id) << 32;
    expect("a vCPU that is pinned is told of the CPU of its number", (answers, id.phys_id), ((0, 0, 0), first));
    expect("one that is not pinned is told nothing", vcpu_op(VCPUOP_GET_PHYSID, 0, &mut id), EINVAL);
}

/// The others have gone down; one that comes up again goes on where it was.
fn after() {
    about("VCPUOP_down VCPUOP_up VCPUOP_is_up");
    let wait = |vcpu: u32| {
        while vcpu_plain(VCPUOP_IS_UP, vcpu) != 0 {
            core::hint::spin_loop();
        }
    };
    (1..VCPUS).for_each(wait);
    expect("a vCPU takes itself down", vcpu_plain(VCPUOP_IS_UP, 1), 0);
    let mut ups = 0;
    for round in 0..90 {
        let vcpu = round % 3 + 1;
        ups += vcpu_plain(VCPUOP_UP, vcpu);
        wait(vcpu);
    }
    expect("it goes up and down many times", ups, 0);
    let resumed = RESUMED.load(Ordering::SeqCst);
    expect("each time it goes on where it was", (87..=90).contains(&resumed), true);
}
