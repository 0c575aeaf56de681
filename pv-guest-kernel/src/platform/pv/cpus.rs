//! More vCPUs than the first: up and down.
//!
//! A vCPU that the domain was given is down until a running one describes its state (`VCPUOP_initialise`: registers, page
//! table, trap table, callbacks) and says `VCPUOP_up`. It then runs `pv_cpu_entry` on its idle thread's stack. One that
//! went down (`VCPUOP_down`) keeps its state: `VCPUOP_up` lets it go on behind the hypercall.
//!
//! Source: Xen `public/vcpu.h`, `struct vcpu_guest_context` in `public/arch-x86/xen.h`.
#![expect(unsafe_code, reason = "starts vCPUs at an address")]

use alloc::boxed::Box;
use core::sync::atomic::{AtomicU32, Ordering};

use pv_abi::Port;
use pv_abi::arch::{
    FLAT_KERNEL_CS, FLAT_KERNEL_SS, VGCF_FAILSAFE_DISABLES_EVENTS, VGCF_IN_KERNEL, VGCF_SYSCALL_DISABLES_EVENTS,
    VcpuGuestContext, xen_pfn_to_cr3,
};
use pv_abi::errno::Errno;
use pv_abi::vcpu::{VCPUOP_DOWN, VCPUOP_INITIALISE, VCPUOP_IS_UP, VCPUOP_UP};
use pv_abi::xen;

use super::{clock, events, hypercall, p2m, paging, percpu, traps};
use crate::cpus::{MAX_CPUS, online, set_online};
use crate::sync::SleepLock;
use crate::task::{self, scheduler};
use crate::time::MILLISECOND_NS;

/// One change at a time.
static CHANGING: SleepLock<()> = SleepLock::new(());
/// The port on which others call a vCPU; 0 before it has one.
static CALLS: [AtomicU32; MAX_CPUS] = [const { AtomicU32::new(0) }; MAX_CPUS];

fn vcpu_op(operation: u32, cpu: usize, argument: u64) -> Result<u64, Errno> {
    let args = [u64::from(operation), cpu as u64, argument, 0, 0];
    // SAFETY: callers pass the argument of their operation.
    unsafe { hypercall::call(xen::HYPERVISOR_VCPU_OP, args) }
}

/// The vCPUs that the domain has, as far as this kernel can use them.
#[must_use]
pub fn count() -> usize {
    if !crate::platform::is_pv() {
        return 1;
    }
    let is_there = |cpu: &usize| vcpu_op(VCPUOP_IS_UP, *cpu, 0).is_ok();
    (0..MAX_CPUS).take_while(is_there).count()
}

/// Starts all vCPUs; says how many run.
pub fn start_all() -> usize {
    for cpu in 1..count() {
        if let Err(errno) = start(cpu) {
            log::error!("vcpu {cpu} does not start: {errno:?}");
        }
    }
    online().len()
}

/// Starts a vCPU that is down, and sleeps until it runs. One that is up is left as it is.
///
/// # Errors
/// `ENOENT` when the domain has no such vCPU; whatever else Xen says.
pub fn start(cpu: usize) -> Result<(), Errno> {
    let _turn = CHANGING.lock();
    if cpu >= count().min(MAX_CPUS) {
        return Err(Errno::NoEnt);
    }
    if vcpu_op(VCPUOP_IS_UP, cpu, 0)? != 0 {
        return Ok(());
    }
    let stack_top = scheduler::prepare_cpu(cpu);
    // One that was up before has its state, and goes on where it went down.
    if CALLS[cpu].load(Ordering::Acquire) == 0 {
        set_up_events(cpu)?;
        let context = context(cpu, stack_top);
        vcpu_op(VCPUOP_INITIALISE, cpu, core::ptr::from_ref(&*context) as u64)?;
    }
    vcpu_op(VCPUOP_UP, cpu, 0)?;
    while !online().contains(cpu) {
        task::sleep_ns(MILLISECOND_NS);
    }
    Ok(())
}

/// Takes a vCPU down, and sleeps until it is. Its threads run elsewhere.
///
/// # Errors
/// `EBUSY` for the first one, which this kernel cannot do without; `ENOENT`.
pub fn stop(cpu: usize) -> Result<(), Errno> {
    let _turn = CHANGING.lock();
    if cpu == 0 {
        return Err(Errno::Busy);
    }
    if vcpu_op(VCPUOP_IS_UP, cpu, 0)? == 0 {
        return Ok(());
    }
    scheduler::ask_to_leave(cpu);
    while vcpu_op(VCPUOP_IS_UP, cpu, 0)? != 0 {
        task::sleep_ns(MILLISECOND_NS);
    }
    Ok(())
}

/// Gives the first vCPU the port on which others call it.
pub(in crate::platform) fn init_first() {
    bind_calls(0).expect("a port for calls between vCPUs");
}

/// In a new domain only the first vCPU knows where it is.
pub(super) fn settle_in() {
    CALLS.iter().for_each(|port| port.store(0, Ordering::Release));
    init_first();
}

fn bind_calls(cpu: usize) -> Result<(), Errno> {
    let port = events::bind_ipi(cpu)?;
    CALLS[cpu].store(port.0, Ordering::Release);
    events::on(port, on_call);
    Ok(())
}

/// Once for each vCPU: what it hears of.
fn set_up_events(cpu: usize) -> Result<(), Errno> {
    percpu::prepare(cpu);
    percpu::register(cpu)?;
    percpu::block(cpu).vcpu_info.evtchn_upcall_mask.store(1, Ordering::Relaxed);
    clock::bind_timer(cpu)?;
    bind_calls(cpu)
}

/// Makes `cpu` look whether it has something to do.
pub(in crate::platform) fn call(cpu: usize) {
    let port = Port(CALLS[cpu].load(Ordering::Acquire));
    if port.0 != 0 {
        // The port of a vCPU of this domain takes every event.
        let _ = events::notify(port);
    }
}

fn on_call() {
    paging::unload_if_wanted();
    scheduler::on_kick();
}

/// The state in which a vCPU starts: in the kernel, on `stack_top`, with events masked.
fn context(cpu: usize, stack_top: usize) -> Box<VcpuGuestContext> {
    let mut context = Box::new(VcpuGuestContext::default());
    context.flags = VGCF_IN_KERNEL | VGCF_FAILSAFE_DISABLES_EVENTS | VGCF_SYSCALL_DISABLES_EVENTS;
    context.user_regs.rip = traps::cpu_entry();
    context.user_regs.rsp = stack_top as u64;
    context.user_regs.cs = FLAT_KERNEL_CS;
    context.user_regs.ss = FLAT_KERNEL_SS;
    context.user_regs.rflags = 0x202;
    context.kernel_ss = FLAT_KERNEL_SS.into();
    context.kernel_sp = stack_top as u64;
    context.ctrlreg[3] = xen_pfn_to_cr3(p2m::mfn_of(paging::kernel_root()).0);
    context.gs_base_kernel = percpu::prepare(cpu);
    traps::describe(&mut context);
    context
}

/// Where a vCPU starts.
#[unsafe(no_mangle)]
extern "C" fn pv_cpu_main() -> ! {
    clock::stop_tick();
    scheduler::join()
}

/// This vCPU goes down, and comes back when another one starts it again. Events are masked, before and after.
pub(super) fn go_down() {
    let cpu = percpu::number();
    paging::unload_user();
    clock::stop_timer();
    set_online(cpu, false);
    let _ = vcpu_op(VCPUOP_DOWN, cpu, 0);
    set_online(cpu, true);
}
