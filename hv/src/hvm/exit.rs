//! Why a guest stopped, and what is done about it.
//!
//! The CPU does not say how long an instruction was (QEMU's saves no next `rip`), so what is emulated is read again and
//! must be what the exit names. Source: AMD APM 2 §15.9 to §15.21, appendix C.

use alloc::format;
use core::sync::atomic::Ordering;

use pv_abi::errno::Errno;
use pv_abi::event_channel::EVTCHNOP_SEND;
use pv_abi::xen::HYPERVISOR_EVENT_CHANNEL_OP;

use super::vmcb::{event, intercept, interrupt};
use super::{Assisted, Vmcb, apic, may_call, mmio, platform, ports, registers, walk};
use crate::Hypervisor;
use crate::domain::{Running, VcpuState};
use crate::entry::{self, Next};
use crate::hardware::Machine;
use crate::refusal::{Evidence, Refusal};
use crate::registers::{Registers, flags};
use crate::rules::hvm as rule;
use crate::{control, evtchn, hypercall, sched};

/// Exit codes.
#[allow(missing_docs, reason = "the architecture's names")]
mod code {
    pub(super) const CR8_WRITE: u64 = 0x18;
    pub(super) const INTR: u64 = 0x60;
    pub(super) const NMI: u64 = 0x61;
    pub(super) const INIT: u64 = 0x63;
    pub(super) const VINTR: u64 = 0x64;
    pub(super) const RDPMC: u64 = 0x6f;
    pub(super) const CPUID: u64 = 0x72;
    pub(super) const INVD: u64 = 0x76;
    pub(super) const HLT: u64 = 0x78;
    pub(super) const INVLPGA: u64 = 0x7a;
    pub(super) const IOIO: u64 = 0x7b;
    pub(super) const MSR: u64 = 0x7c;
    pub(super) const SHUTDOWN: u64 = 0x7f;
    pub(super) const VMRUN: u64 = 0x80;
    pub(super) const VMMCALL: u64 = 0x81;
    pub(super) const VMLOAD: u64 = 0x82;
    pub(super) const RDTSCP: u64 = 0x87;
    pub(super) const WBINVD: u64 = 0x89;
    pub(super) const MONITOR: u64 = 0x8a;
    pub(super) const MWAIT: u64 = 0x8b;
    pub(super) const XSETBV: u64 = 0x8d;
    pub(super) const NPF: u64 = 0x400;
}

const INVALID_OPCODE: u8 = 6;
const PROTECTION: u8 = 13;
/// CR4: XSAVE is switched on.
const CR4_OSXSAVE: u64 = 1 << 18;

/// What an instruction that is emulated comes to.
enum Done {
    /// The guest goes on behind it.
    Next,
    /// The guest goes on where it is now.
    Here,
    /// The guest gets #GP.
    Fault,
}

/// A vCPU stopped; its general registers are in `registers`.
pub fn on_exit<M: Machine>(hv: &Hypervisor<M>, running: &mut Running, registers: &mut Registers) -> Next {
    if let Err(refusal) = handle(hv, running, registers) {
        end(hv, running, registers, &refusal);
    }
    entry::before_return(hv, running, registers)
}

/// Ends the guest, and says which instruction it was at.
#[cold]
#[inline(never)]
fn end<M: Machine>(hv: &Hypervisor<M>, running: &mut Running, registers: &mut Registers, refusal: &Refusal) {
    if let Some(block) = running.state.hvm.as_deref() {
        let address = code_address(block, registers);
        let (code, fetched) = (block.exit_code, walk::fetch(hv, running, address));
        let line = format!("(hv) at {address:#x}: {:02x?}, exit {code:#x}\n", fetched.bytes());
        hv.machine.console_write(line.as_bytes());
        hv.console.record(line.as_bytes());
    }
    control::crash(hv, running, registers, refusal);
}

fn block(running: &mut Running) -> Result<&mut Vmcb, Refusal> {
    running.state.hvm.as_deref_mut().ok_or_else(|| Refusal::crash(rule::NOT_HVM))
}

fn handle<M: Machine>(hv: &Hypervisor<M>, running: &mut Running, registers: &mut Registers) -> Result<(), Refusal> {
    take_cr8(running);
    let vmcb = block(running)?;
    // An event whose delivery stopped in its middle comes again; a software one comes with its instruction.
    let interrupted = vmcb.exit_event;
    let comes_again = interrupted & event::VALID != 0 && interrupted & event::TYPE != event::SOFTWARE;
    vmcb.event = if comes_again { interrupted } else { 0 };
    let [info, info_2] = vmcb.exit_info;
    match vmcb.exit_code {
        code::INTR | code::NMI | code::INIT | code::VINTR => Ok(()),
        code::CPUID => emulate(hv, running, registers, &[0x0f, 0xa2], |running, registers| {
            registers::cpuid(hv, running, registers);
            Ok(Done::Next)
        }),
        code::VMMCALL => {
            emulate(hv, running, registers, &[0x0f, 0x01, 0xd9], |running, registers| hypercall(hv, running, registers))
        }
        code::HLT => emulate(hv, running, registers, &[0xf4], |running, registers| Ok(halt(hv, running, registers))),
        code::MSR if info == 0 => emulate(hv, running, registers, &[0x0f, 0x32], |running, registers| {
            Ok(registers::read_msr(hv, running, registers).map_or(Done::Fault, |()| Done::Next))
        }),
        code::MSR => emulate(hv, running, registers, &[0x0f, 0x30], |running, registers| {
            Ok(registers::write_msr(hv, running, registers).map_or(Done::Fault, |()| Done::Next))
        }),
        code::XSETBV => emulate(hv, running, registers, &[0x0f, 0x01, 0xd1], |running, registers| {
            Ok(set_xcr(hv, running, registers).map_or(Done::Fault, |()| Done::Next))
        }),
        code::WBINVD => emulate(hv, running, registers, &[0x0f, 0x09], |_, _| Ok(Done::Next)),
        code::INVD => emulate(hv, running, registers, &[0x0f, 0x08], |_, _| Ok(Done::Next)),
        code::IOIO => ports::access(hv, running, registers, (info, info_2)),
        code::RDPMC => {
            vmcb.raise(PROTECTION, Some(0));
            Ok(())
        }
        code::INVLPGA | code::VMRUN | code::VMLOAD..=code::RDTSCP | code::MONITOR | code::MWAIT => {
            vmcb.raise(INVALID_OPCODE, None);
            Ok(())
        }
        code::NPF => mmio::carry_out(hv, running, registers, (info, info_2)),
        code::CR8_WRITE => write_cr8(hv, running, registers),
        code::SHUTDOWN => Err(Refusal::crash(rule::TRIPLE_FAULT)),
        other => Err(Refusal::crash(rule::NOT_EMULATED).with(Evidence::Value(other))),
    }
}

/// Emulates the instruction at the guest's `rip`, which must be this one.
fn emulate<M: Machine>(
    hv: &Hypervisor<M>,
    running: &mut Running,
    registers: &mut Registers,
    opcode: &[u8],
    work: impl FnOnce(&mut Running, &mut Registers) -> Result<Done, Refusal>,
) -> Result<(), Refusal> {
    let length = length(hv, running, registers, opcode)?;
    let next = registers.rip.wrapping_add(length);
    let done = work(running, registers)?;
    let vmcb = block(running)?;
    match done {
        Done::Next => {
            registers.rip = if vmcb.is_long() { next } else { next & 0xffff_ffff };
            vmcb.interrupt_shadow = 0;
        }
        Done::Here => {}
        Done::Fault => vmcb.raise(PROTECTION, Some(0)),
    }
    Ok(())
}

/// Where the instruction at the guest's `rip` is.
pub(super) fn code_address(block: &Vmcb, registers: &Registers) -> u64 {
    if block.is_long() { registers.rip } else { block.cs.base.wrapping_add(registers.rip) & 0xffff_ffff }
}

/// How long the instruction at the guest's `rip` is, prefixes included.
fn length<M: Machine>(
    hv: &Hypervisor<M>,
    running: &mut Running,
    registers: &Registers,
    opcode: &[u8],
) -> Result<u64, Refusal> {
    let vmcb = block(running)?;
    let is_long = vmcb.is_long();
    let address = code_address(vmcb, registers);
    let fetched = walk::fetch(hv, running, address);
    let bytes = fetched.bytes();
    let prefixes = bytes.iter().take_while(|byte| is_prefix(**byte, is_long)).count();
    if bytes[prefixes..].starts_with(opcode) {
        return Ok((prefixes + opcode.len()) as u64);
    }
    Err(unreadable(address))
}

#[cold]
fn unreadable(address: u64) -> Refusal {
    Refusal::crash(rule::INSTRUCTION).with(Evidence::Value(address))
}

const fn is_prefix(byte: u8, is_long: bool) -> bool {
    matches!(byte, 0x66 | 0x67 | 0xf2 | 0xf3 | 0x26 | 0x2e | 0x36 | 0x3e | 0x64 | 0x65)
        || is_long && matches!(byte, 0x40..=0x4f)
}

/// A hypercall. It is executed again where it stopped in its middle.
fn hypercall<M: Machine>(
    hv: &Hypervisor<M>,
    running: &mut Running,
    registers: &mut Registers,
) -> Result<Done, Refusal> {
    let vmcb = block(running)?;
    if vmcb.privilege != 0 {
        registers.rax = Errno::Perm.as_return().cast_unsigned();
        return Ok(Done::Next);
    }
    if !vmcb.is_long() {
        return Ok(refuse(hv, running, registers, rule::HYPERCALL_MODE));
    }
    if !may_call(registers.rax) {
        return Ok(refuse(hv, running, registers, rule::HYPERCALL));
    }
    if registers.rax == HYPERVISOR_EVENT_CHANNEL_OP && send_at_once(hv, running, registers) {
        return Ok(Done::Next);
    }
    let rip = registers.rip;
    // Where it is executed again, it goes back over the two bytes of a PV guest's `syscall`.
    registers.rip = rip.wrapping_add(2);
    hypercall::dispatch_assisted(hv, running, registers);
    let again = registers.rip == rip;
    registers.rip = rip;
    Ok(if again { Done::Here } else { Done::Next })
}

/// `EVTCHNOP_send`, which guests make most often, by a shorter way.
fn send_at_once<M: Machine>(hv: &Hypervisor<M>, running: &mut Running, registers: &mut Registers) -> bool {
    let mut port = [0; 4];
    let sent = registers.rdi as u32 == EVTCHNOP_SEND
        && walk::copy_from(hv, running, registers.rsi, &mut port).is_ok()
        && evtchn::try_send(hv, &running.vcpu.domain, u32::from_le_bytes(port));
    if sent {
        running.state.recent.push(registers.rax, registers.rdi, registers.rsi);
        registers.rax = 0;
    }
    sent
}

fn refuse<M: Machine>(
    hv: &Hypervisor<M>,
    running: &Running,
    registers: &mut Registers,
    rule: crate::rules::Rule,
) -> Done {
    let refusal = Refusal::errno(Errno::NoSys, rule).with(Evidence::Value(registers.rax));
    hypercall::explain(hv, running, registers.rax, registers.hypercall_arguments(), &refusal);
    registers.rax = Errno::NoSys.as_return().cast_unsigned();
    Done::Next
}

/// `hlt`: waits for an event; with interrupts off nothing can wake the vCPU, so it goes down.
fn halt<M: Machine>(hv: &Hypervisor<M>, running: &Running, registers: &Registers) -> Done {
    if registers.rflags & flags::IF == 0 {
        sched::down(hv, &running.vcpu);
        return Done::Next;
    }
    sched::block(hv, &running.vcpu);
    let (domain, inbox) = (running.vcpu.domain.hvm.as_ref(), running.vcpu.inbox.as_deref());
    let pic = domain.zip(inbox).is_some_and(|(hvm, inbox)| platform::pic_waits(hvm, &running.vcpu, inbox));
    if pic || apic::is_due(running) {
        sched::unblock(hv, &running.vcpu);
    }
    Done::Next
}

/// The guest's CR8 is its APIC's task priority.
fn take_cr8(running: &mut Running) {
    if let (Some(vmcb), Some(own)) = (running.state.hvm.as_deref(), running.state.assisted.as_deref_mut()) {
        own.apic.set_cr8(vmcb.interrupt_control as u8 & 15);
    }
}

/// `mov cr8, register`, which stops a guest only while an interrupt waits for it.
fn write_cr8<M: Machine>(hv: &Hypervisor<M>, running: &mut Running, registers: &mut Registers) -> Result<(), Refusal> {
    const OPCODE: [u8; 2] = [0x0f, 0x22];
    let length = length(hv, running, registers, &OPCODE)?;
    let at = registers.rip.wrapping_add(length);
    // The operands, and the prefix before the opcode, which extends them.
    let (mut operands, mut prefix) = ([0], [0]);
    let prefix_at = registers.rip.wrapping_add(length - OPCODE.len() as u64).wrapping_sub(1);
    walk::copy_from(hv, running, at, &mut operands).map_err(|_| unreadable(at))?;
    walk::copy_from(hv, running, prefix_at, &mut prefix).map_err(|_| unreadable(prefix_at))?;
    let extension = if prefix[0] & 0xf1 == 0x41 { 8 } else { 0 };
    let value = crate::decode::get_register(registers, operands[0] & 7 | extension);
    let vmcb = block(running)?;
    if value > 15 {
        vmcb.raise(PROTECTION, Some(0));
        return Ok(());
    }
    registers.rip = at.wrapping_add(1);
    vmcb.interrupt_shadow = 0;
    vmcb.interrupt_control = vmcb.interrupt_control & !0xff | value;
    take_cr8(running);
    Ok(())
}

fn set_xcr<M: Machine>(hv: &Hypervisor<M>, running: &mut Running, registers: &Registers) -> Option<()> {
    let value = registers.rdx << 32 | registers.rax & 0xffff_ffff;
    let vmcb = running.state.hvm.as_deref()?;
    let allowed = vmcb.privilege == 0 && vmcb.cr4 & CR4_OSXSAVE != 0 && registers.rcx as u32 == 0;
    if !allowed || !crate::traps::privileged::valid_xcr0(value, crate::traps::cpuid::xcr0_mask(&hv.machine)) {
        return None;
    }
    running.state.xcr0 = value;
    hv.machine.set_xcr0(value);
    Some(())
}

/// Delivers what is due as far as the guest takes it now: an upcall as an interrupt, or a stop as soon as it takes one.
///
/// An upcall is due as long as the guest has not taken its pending flag back, so it comes again where it was not. Before
/// that, what a device model answered is taken; where it answered wrong, the guest does not go on.
pub fn before_entry<M: Machine>(hv: &Hypervisor<M>, running: &mut Running, registers: &mut Registers) -> Next {
    while running.state.assisted.as_deref().is_some_and(Assisted::waits) {
        if let Err(refusal) = ports::complete(hv, running, registers) {
            end(hv, running, registers, &refusal);
            return entry::before_return(hv, running, registers);
        }
        // What it asks now, it waits for elsewhere.
        let waits = running.state.assisted.as_deref().is_some_and(Assisted::waits);
        if waits && entry::before_return(hv, running, registers) == Next::Switch {
            return Next::Switch;
        }
    }
    deliver(hv, running, registers);
    Next::Guest
}

fn deliver<M: Machine>(hv: &Hypervisor<M>, running: &mut Running, registers: &Registers) {
    let due = evtchn::upcall_due(hv, &running.vcpu);
    let Running { vcpu, state } = running;
    let VcpuState { hvm: Some(vmcb), assisted: Some(own), .. } = &mut **state else {
        return;
    };
    let (Some(hvm), Some(inbox)) = (vcpu.domain.hvm.as_ref(), vcpu.inbox.as_deref()) else {
        return;
    };
    let apic = &mut own.apic;
    vmcb.interrupt_control = vmcb.interrupt_control & !(interrupt::WINDOW | 0xff) | u64::from(apic.cr8());
    vmcb.intercepts[0] &= !intercept::VIRTUAL_INTERRUPT;
    vmcb.control_register_intercepts &= !intercept::CR8_WRITE;
    // A non-maskable interrupt waits while another event is being delivered.
    if vmcb.event == 0
        && vcpu.nmi_pending.load(Ordering::Relaxed) != 0
        && vcpu.nmi_pending.swap(0, Ordering::SeqCst) != 0
    {
        vmcb.event = event::VALID | event::NMI;
    }
    let takes_any = registers.rflags & flags::IF != 0 && vmcb.interrupt_shadow & 1 == 0 && vmcb.event == 0;
    apic.upcall(inbox, due);
    // What comes past the APIC knows no priority.
    let past = hvm.callback_vector().filter(|_| due);
    let pic = past.is_none() && platform::pic_waits(hvm, vcpu, inbox);
    let own = if past.is_some() || pic { None } else { apic.next(inbox) };
    if past.is_none() && !pic && own.is_none() {
        return;
    }
    let wait_for_window = |vmcb: &mut Vmcb| {
        vmcb.interrupt_control |= interrupt::WINDOW;
        vmcb.intercepts[0] |= intercept::VIRTUAL_INTERRUPT;
    };
    if own.is_some_and(|vector| !apic.lets(vector)) {
        vmcb.control_register_intercepts |= intercept::CR8_WRITE;
        return;
    }
    if !takes_any {
        return wait_for_window(vmcb);
    }
    if let Some(vector) = own {
        apic.serve(inbox, vector);
    }
    let of_pic = || if pic { platform::acknowledge(hv, &vcpu.domain) } else { None };
    let Some(vector) = past.or(own).or_else(of_pic) else {
        return;
    };
    vmcb.event = event::VALID | u64::from(vector);
    // Another one may come behind it.
    let behind = apic.next(inbox).is_some_and(|behind| apic.lets(behind));
    if behind || platform::pic_waits(hvm, vcpu, inbox) {
        wait_for_window(vmcb);
    }
}
