//! When a domain has done what cannot go on: it stops, alone, and says why.
//!
//! Its console gets the rule that was broken, the registers, and the last hypercalls of the vCPU; its toolstack learns of
//! it by `VIRQ_DOM_EXC`. dom0 is the exception: the machine has no one to run it any more, so it stops or starts again.

use alloc::string::String;
use core::fmt::Write;

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
        let mut report = String::with_capacity(REPORT);
        let _ = describe(&mut report, running, registers, refusal);
        print(hv, &report);
    }
    running.vcpu.raise(work::RESCHEDULE);
    sched::shutdown(hv, &running.vcpu.domain, SHUTDOWN_CRASH);
}

/// Prints what the running vCPU was doing, without crashing it: the guest says that it crashed.
#[cold]
pub fn report_guest_crash<M: Machine>(hv: &Hypervisor<M>, running: &Running, registers: &Registers) {
    let mut report = String::with_capacity(REPORT);
    let refusal = Refusal::crash(crate::rules::control::GUEST_CRASHED);
    let _ = describe(&mut report, running, registers, &refusal);
    print(hv, &report);
}

/// Says something on the console, and keeps it in the console's ring.
pub(super) fn print<M: Machine>(hv: &Hypervisor<M>, report: &str) {
    hv.machine.console_write(report.as_bytes());
    hv.console.record(report.as_bytes());
}

fn describe(out: &mut String, running: &Running, registers: &Registers, refusal: &Refusal) -> core::fmt::Result {
    let vcpu = &running.vcpu;
    let state = &running.state;
    let mode = if state.kernel_mode { "kernel" } else { "user" };
    writeln!(out, "(hv) domain {} crashed on vcpu {} in {mode} mode: {}", vcpu.domain.id, vcpu.id, refusal.rule)?;
    if refusal.evidence != crate::refusal::Evidence::None {
        writeln!(out, "(hv)   in the way: {:x?}", refusal.evidence)?;
    }
    let r = registers;
    let rows = [
        [("rip", r.rip), ("rsp", r.rsp), ("rflags", r.rflags), ("cs", r.cs)],
        [("rax", r.rax), ("rbx", r.rbx), ("rcx", r.rcx), ("rdx", r.rdx)],
        [("rsi", r.rsi), ("rdi", r.rdi), ("rbp", r.rbp), ("ss", r.ss)],
        [("r8", r.r8), ("r9", r.r9), ("r10", r.r10), ("r11", r.r11)],
        [("r12", r.r12), ("r13", r.r13), ("r14", r.r14), ("r15", r.r15)],
    ];
    for row in rows {
        out.push_str("(hv)  ");
        for (name, value) in row {
            write!(out, " {name:>6} ")?;
            push_hex(out, value, 16);
        }
        out.push('\n');
    }
    let roots = [state.kernel_root, state.user_root].map(|root| root.map_or(0, |mfn| mfn.0));
    writeln!(
        out,
        "(hv)   root tables: kernel {:#x}, user {:#x}; kernel stack {:#x}",
        roots[0], roots[1], state.kernel_sp
    )?;
    recent_calls(out, running)
}

fn recent_calls(out: &mut String, running: &Running) -> core::fmt::Result {
    let recent = &running.state.recent;
    let shown = recent.count.min(16);
    writeln!(out, "(hv)   last {shown} of {} hypercalls, the latest last:", recent.count)?;
    for back in (1..=shown).rev() {
        let (number, first, second) = recent.calls[((recent.count - back) % 16) as usize];
        out.extend(["(hv)     ", hypercall::name(number), "(0x"]);
        push_hex(out, first, 1);
        out.push_str(", 0x");
        push_hex(out, second, 1);
        out.push_str(", ..)\n");
    }
    Ok(())
}

/// Adds a number of at least `digits` digits. A report has too many of them for the general way: interrupts are off.
fn push_hex(out: &mut String, value: u64, digits: usize) {
    let needed = (16 - value.leading_zeros() as usize / 4).max(digits);
    for place in (0..needed).rev() {
        out.push(char::from(b"0123456789abcdef"[(value >> (4 * place)) as usize & 15]));
    }
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
    let mut line = String::new();
    let cure = if stays { "; switching off instead (noreboot)" } else { "" };
    let _ = writeln!(line, "(hv) dom0 {what}{cure}");
    print(hv, &line);
    hv.machine.power(if stays { PowerAction::Off } else { action });
}
