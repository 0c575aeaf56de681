//! A vCPU's life, its timers and areas (`vcpu_op`), and what `sched_op` does to a domain.
//!
//! All of it with one vCPU.
#![no_std]
#![no_main]
#![expect(unsafe_code, reason = "areas that the hypervisor writes")]

use core::cell::UnsafeCell;

use guest_tests::errno::{EBUSY, EEXIST, EFAULT, EINVAL, ENOENT, ENOSPC, ENOSYS, ESRCH};
use guest_tests::{
    HYPERVISOR_ADDRESS, NON_CANONICAL, Page, about, differs, expect, guest_test, hypercall, map_shared_info, mfn_of,
    on_trap, operation, read_at, start_info,
};
use pv_abi::arch::VcpuGuestContext;
use pv_abi::sched::{
    SCHEDOP_PIN_OVERRIDE, SCHEDOP_REMOTE_SHUTDOWN, SCHEDOP_SHUTDOWN_CODE, SCHEDOP_WATCHDOG, SCHEDOP_YIELD,
    SchedPinOverride, SchedRemoteShutdown, SchedShutdown, SchedWatchdog,
};
use pv_abi::vcpu::{
    VCPUOP_DOWN, VCPUOP_GET_PHYSID, VCPUOP_GET_RUNSTATE_INFO, VCPUOP_INITIALISE, VCPUOP_IS_UP,
    VCPUOP_REGISTER_RUNSTATE_MEMORY_AREA, VCPUOP_REGISTER_VCPU_INFO, VCPUOP_REGISTER_VCPU_TIME_MEMORY_AREA,
    VCPUOP_SEND_NMI, VCPUOP_SET_PERIODIC_TIMER, VCPUOP_SET_SINGLESHOT_TIMER, VCPUOP_STOP_PERIODIC_TIMER,
    VCPUOP_STOP_SINGLESHOT_TIMER, VCPUOP_UP, VcpuGetPhysid, VcpuRegisterRunstateMemoryArea, VcpuRegisterTimeMemoryArea,
    VcpuRegisterVcpuInfo, VcpuRunstateInfo, VcpuSetPeriodicTimer, VcpuSetSingleshotTimer,
};
use pv_abi::xen::{HYPERVISOR_SCHED_OP, HYPERVISOR_SCHED_OP_COMPAT, HYPERVISOR_VCPU_OP, VcpuTimeInfo};

guest_test!(vcpus);

const ENXIO: i64 = -6;
const MS: u64 = 1_000_000;
/// A vCPU that there is not.
const NOBODY: u64 = 99;

struct Shared<T>(UnsafeCell<T>);
// SAFETY: One vCPU fills it in before another, or the hypervisor, reads it.
unsafe impl<T> Sync for Shared<T> {}

static AREA: Page = Page::new();
static CONTEXT: Shared<Option<VcpuGuestContext>> = Shared(UnsafeCell::new(None));

fn vcpus() {
    life();
    timers();
    areas();
    others();
    domain();
}

fn op<T>(command: u32, vcpu: u64, argument: &mut T) -> i64 {
    at(command, vcpu, core::ptr::from_mut(argument) as u64)
}

fn at(command: u32, vcpu: u64, argument: u64) -> i64 {
    hypercall(HYPERVISOR_VCPU_OP, [command.into(), vcpu, argument, 0, 0])
}

fn life() {
    on_trap(|frame| frame.vector == 2);
    about("VCPUOP_is_up");
    expect("the first vCPU is up", at(VCPUOP_IS_UP, 0, 0), 1);
    expect("there is no vCPU 99", at(VCPUOP_IS_UP, NOBODY, 0), ENOENT);
    expect("nor 2^32", at(VCPUOP_IS_UP, u64::from(u32::MAX), 0), ENOENT);
    about("VCPUOP_up");
    expect("what is up is brought up", at(VCPUOP_UP, 0, 0), 0);
    expect("what is not is ENOENT", at(VCPUOP_UP, NOBODY, 0), ENOENT);
    about("VCPUOP_initialise");
    expect("the calling vCPU has its context", op(VCPUOP_INITIALISE, 0, context()), EEXIST);
    expect("a context at a bad address is EFAULT", at(VCPUOP_INITIALISE, 0, HYPERVISOR_ADDRESS), EFAULT);
    expect("a vCPU that is not gets none", op(VCPUOP_INITIALISE, NOBODY, context()), ENOENT);
    about("VCPUOP_down");
    expect("a vCPU that is not is not taken down", at(VCPUOP_DOWN, NOBODY, 0), ENOENT);
    about("VCPUOP_send_nmi");
    expect("an NMI without a handler is sent", at(VCPUOP_SEND_NMI, 0, 0), 0);
    expect("it has no argument", at(VCPUOP_SEND_NMI, 0, 8), EINVAL);
    expect("a vCPU that is not gets no NMI", at(VCPUOP_SEND_NMI, NOBODY, 0), ENOENT);
    about("VCPUOP_get_physid");
    let mut id = VcpuGetPhysid::default();
    let told = op(VCPUOP_GET_PHYSID, 0, &mut id);
    expect("a vCPU is told its physical number where it has but one", matches!(told, 0 | EINVAL), true);
    expect("a vCPU that is not has none", op(VCPUOP_GET_PHYSID, NOBODY, &mut id), ENOENT);
    about("vcpu_op");
    expect("an unknown operation of a vCPU is ENOSYS", at(99, 0, 0), ENOSYS);
    expect("of one that is not it is ENOENT", at(99, NOBODY, 0), ENOENT);
}

fn context() -> &'static mut VcpuGuestContext {
    // SAFETY: Only the first vCPU uses it, and in one place at a time.
    unsafe { &mut *CONTEXT.0.get() }.get_or_insert_default()
}

fn timers() {
    let shared = map_shared_info();
    about("VCPUOP_set_periodic_timer");
    let set = |vcpu: u64, period_ns: u64| op(VCPUOP_SET_PERIODIC_TIMER, vcpu, &mut VcpuSetPeriodicTimer { period_ns });
    expect("a period of 10 ms is set", set(0, 10 * MS), 0);
    expect("a period below 1 ms is EINVAL", set(0, MS - 1), EINVAL);
    expect("no period is EINVAL", set(0, 0), EINVAL);
    expect("a period of centuries is EINVAL", set(0, u64::MAX), EINVAL);
    expect("a vCPU that is not has no period", set(NOBODY, 10 * MS), ENOENT);
    expect("a period at a bad address is EFAULT", at(VCPUOP_SET_PERIODIC_TIMER, 0, HYPERVISOR_ADDRESS), EFAULT);
    about("VCPUOP_stop_periodic_timer");
    expect("the periodic timer is stopped", at(VCPUOP_STOP_PERIODIC_TIMER, 0, 0), 0);
    about("VCPUOP_set_singleshot_timer");
    let shot = |vcpu: u64, timeout_abs_ns: u64, flags: u32| {
        let mut shot = VcpuSetSingleshotTimer { timeout_abs_ns, flags, ..Default::default() };
        op(VCPUOP_SET_SINGLESHOT_TIMER, vcpu, &mut shot)
    };
    expect("a shot is set", shot(0, shared.now() + 1000 * MS, 0), 0);
    expect("a shot in the past that must be in the future", shot(0, 1, 1), 0);
    expect("a shot at a bad address is EFAULT", at(VCPUOP_SET_SINGLESHOT_TIMER, 0, HYPERVISOR_ADDRESS), EFAULT);
    about("VCPUOP_stop_singleshot_timer");
    expect("the shot is stopped", at(VCPUOP_STOP_SINGLESHOT_TIMER, 0, 0), 0);
}

fn areas() {
    about("VCPUOP_get_runstate_info");
    let mut info = VcpuRunstateInfo::default();
    expect("the state of the caller is told", op(VCPUOP_GET_RUNSTATE_INFO, 0, &mut info), 0);
    expect("it runs, and did before", (info.state, info.time[0] > 0), (0, true));
    expect("into the hypervisor is EFAULT", at(VCPUOP_GET_RUNSTATE_INFO, 0, HYPERVISOR_ADDRESS), EFAULT);
    expect("of a vCPU that is not is ENOENT", op(VCPUOP_GET_RUNSTATE_INFO, NOBODY, &mut info), ENOENT);
    about("VCPUOP_register_runstate_memory_area");
    let register =
        |addr: u64| op(VCPUOP_REGISTER_RUNSTATE_MEMORY_AREA, 0, &mut VcpuRegisterRunstateMemoryArea { addr });
    expect("an area for the state is registered", register(AREA.va()), 0);
    // SAFETY: The area lies in this page.
    let area = unsafe { &*(AREA.va() as *const VcpuRunstateInfo) };
    expect("it is written at once", (area.state, area.state_entry_time > 0), (0, true));
    expect("an area in the hypervisor is EFAULT", register(HYPERVISOR_ADDRESS), EFAULT);
    expect("one that is not canonical is EFAULT", register(NON_CANONICAL), EFAULT);
    expect("one at a hole is taken", register(0x1000), 0);
    about("VCPUOP_register_vcpu_time_memory_area");
    let register = |addr: u64| op(VCPUOP_REGISTER_VCPU_TIME_MEMORY_AREA, 0, &mut VcpuRegisterTimeMemoryArea { addr });
    expect("an area for the time is registered", register(AREA.va() + 256), 0);
    hypercall(HYPERVISOR_SCHED_OP, [SCHEDOP_YIELD.into(), 0, 0, 0, 0]);
    // SAFETY: The area lies in this page.
    let time = unsafe { core::ptr::read_volatile((AREA.va() + 256) as *const VcpuTimeInfo) };
    expect("it has the scale of the time", time.tsc_to_system_mul != 0, true);
    expect("an area in the hypervisor is EFAULT for the time", register(HYPERVISOR_ADDRESS), EFAULT);
}

fn others() {
    about("VCPUOP_register_vcpu_info");
    let register = |vcpu: u64, mfn: u64, offset: u32| {
        op(VCPUOP_REGISTER_VCPU_INFO, vcpu, &mut VcpuRegisterVcpuInfo { mfn, offset, ..Default::default() })
    };
    expect("an offset that is no multiple of 8 is ENXIO", register(0, AREA.mfn(), 1028), ENXIO);
    expect("one over the frame's end is ENXIO", register(0, AREA.mfn(), 4096 - 56), ENXIO);
    expect("no frame is EINVAL", register(0, 0xff_ffff_ffff, 1024), EINVAL);
    expect("the hypervisor's frame is EINVAL", register(0, 0, 1024), EINVAL);
    expect("a page table is EINVAL", register(0, mfn_of(start_info().pt_base), 1024), EINVAL);
    expect("a vCPU that is not has no vcpu_info", register(NOBODY, AREA.mfn(), 1024), ENOENT);
    expect("a vCPU gets its vcpu_info", register(0, AREA.mfn(), 1024), 0);
    expect("once", register(0, AREA.mfn(), 2048), EINVAL);
    let word = |offset: u64| read_at(AREA.va() + 1024 + offset);
    expect("its events are masked as before", word(0).map(|word| word >> 8 & 0xff), Ok(1));
    expect("every port counts as pending", word(8), Ok(u64::MAX));
}

fn domain() {
    about("SCHEDOP_watchdog");
    let watch =
        |id: u32, timeout: u32| operation(HYPERVISOR_SCHED_OP, SCHEDOP_WATCHDOG, &mut SchedWatchdog { id, timeout });
    expect("a watchdog is started", watch(0, 1000), 1);
    expect("another is started", watch(0, 1000), 2);
    differs("a third is not", watch(0, 1000), ENOSPC, ENOSPC & 0xffff_ffff);
    expect("a watchdog is moved", watch(1, 2000), 0);
    expect("a watchdog is stopped", (watch(1, 0), watch(2, 0)), (0, 0));
    expect("one that is stopped is EINVAL", watch(1, 5), EINVAL);
    expect("there is no watchdog 3", watch(3, 5), EINVAL);
    about("SCHEDOP_pin_override");
    let pin = |pcpu: i32| operation(HYPERVISOR_SCHED_OP, SCHEDOP_PIN_OVERRIDE, &mut SchedPinOverride { pcpu });
    expect("the caller is pinned", pin(0), 0);
    expect("a second pin is EBUSY", pin(0), EBUSY);
    expect("a CPU that is not is EINVAL", pin(99), EINVAL);
    expect("the caller is free again", pin(-1), 0);
    expect("freeing it twice is EINVAL", pin(-1), EINVAL);
    about("SCHEDOP_remote_shutdown");
    let mut request = SchedRemoteShutdown { domain_id: 77, reason: 0, ..Default::default() };
    let remote = operation(HYPERVISOR_SCHED_OP, SCHEDOP_REMOTE_SHUTDOWN, &mut request);
    expect("a domain that is not is not shut down", remote, ESRCH);
    about("SCHEDOP_shutdown_code");
    let mut code = SchedShutdown { reason: 0 };
    expect("a reason is set for later", operation(HYPERVISOR_SCHED_OP, SCHEDOP_SHUTDOWN_CODE, &mut code), 0);
    about("SCHEDOP_shutdown");
    let bad = hypercall(HYPERVISOR_SCHED_OP, [2, HYPERVISOR_ADDRESS, 0, 0, 0]);
    expect("a shutdown whose reason is at a bad address is EFAULT", bad, EFAULT);
    about("sched_op_compat");
    let compat = |command: u64| hypercall(HYPERVISOR_SCHED_OP_COMPAT, [command, 0, 0, 0, 0]);
    expect("the old form yields", compat(0), 0);
    expect("the old form does not poll", compat(3), ENOSYS);
}
