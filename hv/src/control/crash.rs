//! When a domain has done what cannot go on: it stops, alone, and says why.
//!
//! Its console gets the rule that was broken, the registers, and the last hypercalls of the vCPU; its toolstack learns of
//! it by `VIRQ_DOM_EXC`. dom0 is the exception: the machine has no one to run it any more, so it stops or starts again.

use alloc::format;
use alloc::vec::Vec;

use pv_abi::Mfn;
use pv_abi::sched::{SHUTDOWN_CRASH, SHUTDOWN_POWEROFF, SHUTDOWN_REBOOT, SHUTDOWN_SUSPEND, SHUTDOWN_WATCHDOG};

use crate::Hypervisor;
use crate::domain::{Domain, Running, work};
use crate::hardware::{Machine, PowerAction};
use crate::hypercall;
use crate::refusal::Refusal;
use crate::registers::Registers;
use crate::sched;

/// Bytes that a report has room for at first.
const REPORT: usize = 2 << 10;

/// Crashes the calling domain alone: prints its registers, the reason and its last hypercalls; its toolstack is told.
#[cold]
pub fn crash<M: Machine>(hv: &Hypervisor<M>, running: &mut Running, registers: &mut Registers, refusal: &Refusal) {
    if running.vcpu.domain.lifecycle.lock().shutdown.is_none() {
        print(hv, &describe(running, registers, refusal));
    }
    running.vcpu.raise(work::RESCHEDULE);
    sched::shutdown(hv, &running.vcpu.domain, SHUTDOWN_CRASH);
}

/// Prints what the running vCPU was doing, without crashing it: the guest says that it crashed.
#[cold]
pub fn report_guest_crash<M: Machine>(hv: &Hypervisor<M>, running: &Running, registers: &Registers) {
    let refusal = Refusal::crash(crate::rules::control::GUEST_CRASHED);
    print(hv, &describe(running, registers, &refusal));
}

/// Says something on the console, and keeps it in the console's ring.
pub(super) fn print<M: Machine>(hv: &Hypervisor<M>, report: &[u8]) {
    hv.machine.console_write(report);
    hv.console.record(report);
}

/// What the domain's vCPU was doing. Interrupts are off, and formatting in the general way takes long: numbers of the
/// rows that are always there are written by hand.
fn describe(running: &Running, registers: &Registers, refusal: &Refusal) -> Vec<u8> {
    let (vcpu, state) = (&running.vcpu, &running.state);
    let (domain, id, rule) = (vcpu.domain.id, vcpu.id, refusal.rule);
    let mode = if state.kernel_mode { "kernel" } else { "user" };
    let mut out = Vec::with_capacity(REPORT);
    out.extend_from_slice(format!("(hv) domain {domain} crashed on vcpu {id} in {mode} mode: {rule}\n").as_bytes());
    if refusal.evidence != crate::refusal::Evidence::None {
        out.extend_from_slice(format!("(hv)   in the way: {:x?}\n", refusal.evidence).as_bytes());
    }
    let r = registers;
    let root = |root: Option<Mfn>| root.map_or(0, |mfn| mfn.0);
    let rows: [[(&[u8], u64); 4]; 6] = [
        [(b"   rip ", r.rip), (b"   rsp ", r.rsp), (b"rflags ", r.rflags), (b"    cs ", r.cs)],
        [(b"   rax ", r.rax), (b"   rbx ", r.rbx), (b"   rcx ", r.rcx), (b"   rdx ", r.rdx)],
        [(b"   rsi ", r.rsi), (b"   rdi ", r.rdi), (b"   rbp ", r.rbp), (b"    ss ", r.ss)],
        [(b"    r8 ", r.r8), (b"    r9 ", r.r9), (b"   r10 ", r.r10), (b"   r11 ", r.r11)],
        [(b"   r12 ", r.r12), (b"   r13 ", r.r13), (b"   r14 ", r.r14), (b"   r15 ", r.r15)],
        [
            (b"kernel root ", root(state.kernel_root)),
            (b"user root ", root(state.user_root)),
            (b"kernel stack ", state.kernel_sp),
            (b"calls ", state.recent.count),
        ],
    ];
    for row in rows {
        out.extend_from_slice(b"(hv)  ");
        for (name, value) in row {
            out.push(b' ');
            out.extend_from_slice(name);
            push_hex(&mut out, value, 16);
        }
        out.push(b'\n');
    }
    recent_calls(&mut out, running);
    out
}

/// The last hypercalls, the latest last.
fn recent_calls(out: &mut Vec<u8>, running: &Running) {
    let recent = &running.state.recent;
    let shown = recent.count.min(16);
    let title = format!("(hv)   last {shown} of {} hypercalls, the latest last:\n", recent.count);
    out.extend_from_slice(title.as_bytes());
    for back in (1..=shown).rev() {
        let (number, first, second) = recent.calls[((recent.count - back) % 16) as usize];
        out.extend_from_slice(b"(hv)     ");
        out.extend_from_slice(hypercall::name(number).as_bytes());
        out.extend_from_slice(b"(0x");
        push_hex(out, first, 1);
        out.extend_from_slice(b", 0x");
        push_hex(out, second, 1);
        out.extend_from_slice(b", ..)\n");
    }
}

/// Adds a number of at least `digits` digits.
fn push_hex(out: &mut Vec<u8>, value: u64, digits: u32) {
    let needed = (16 - value.leading_zeros() / 4).max(digits);
    let all: [u8; 16] = core::array::from_fn(|n| b"0123456789abcdef"[(value >> (60 - 4 * n)) as usize & 15]);
    out.extend_from_slice(&all[16 - needed as usize..]);
}

/// dom0 shut down: the machine does what it asked for. Call with no lock held; does not return for dom0.
pub fn on_shutdown<M: Machine>(hv: &Hypervisor<M>, domain: &Domain, reason: u32) {
    if !domain.privileged {
        return;
    }
    let (what, action) = match reason {
        SHUTDOWN_POWEROFF | SHUTDOWN_SUSPEND => ("halted: switching off", PowerAction::Off),
        SHUTDOWN_REBOOT => ("asked for a reboot", PowerAction::Reboot),
        SHUTDOWN_CRASH => ("crashed", PowerAction::Reboot),
        SHUTDOWN_WATCHDOG => ("was stopped by its watchdog", PowerAction::Reboot),
        _ => ("shut down for an unknown reason", PowerAction::Reboot),
    };
    let stays = hv.options.no_reboot && action == PowerAction::Reboot;
    let cure = if stays { "; switching off instead (noreboot)" } else { "" };
    print(hv, format!("(hv) dom0 {what}{cure}\n").as_bytes());
    hv.machine.power(if stays { PowerAction::Off } else { action });
}
