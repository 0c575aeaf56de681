//! The room's rules, on guests of a fake machine.

mod emulation;
mod entries;
mod registrations;

use pv_abi::arch::{
    FLAT_KERNEL_CS, FLAT_KERNEL_SS, HYPERVISOR_VIRT_START, IretContext, SEGBASE_FS, TrapInfo, VGCF_IN_SYSCALL,
};
use pv_abi::callback::{
    CALLBACKOP_REGISTER, CALLBACKOP_UNREGISTER, CALLBACKTYPE_EVENT, CALLBACKTYPE_FAILSAFE, CALLBACKTYPE_NMI,
    CALLBACKTYPE_SYSCALL, CallbackRegister, CallbackUnregister,
};
use pv_abi::errno::Errno;
use pv_abi::sched::SHUTDOWN_CRASH;
use pv_abi::xen as number;
use zerocopy::IntoBytes;

use super::*;
use crate::domain::{Callback, work};
use crate::entry::Exception;
use crate::fake::{Bed, Event, Guest, entry};
use crate::hardware::CpuidResult;
use crate::registers::{ENTRY_FULL, ENTRY_SYSCALL, flags};
use crate::rules::Rule;

const HANDLER: u64 = 0x40_0000;
const CODE: usize = 0;
const STACK: usize = 1;

/// A guest with code in its first frame and a stack at the end of its second, about to run at the code's start.
fn ready(bed: &Bed, id: u16) -> Guest {
    let mut guest = bed.guest(id, 8);
    guest.registers.rip = guest.address(CODE);
    guest.registers.rsp = guest.address(STACK) + 0x800;
    guest.registers.cs = FLAT_KERNEL_CS.into();
    guest.registers.ss = FLAT_KERNEL_SS.into();
    guest.registers.rflags = flags::IF | flags::ALWAYS;
    for trap in [1, 3, 6, 7, 13, 14] {
        guest.running.state.traps[trap].address = HANDLER + trap as u64;
    }
    set_mask(bed, &guest, 0);
    guest.enter(bed);
    guest
}

fn set_mask(bed: &Bed, guest: &Guest, mask: u8) {
    let (frame, offset) = guest.running.vcpu.info_place();
    bed.hv.machine.swap_byte(frame, offset + 1, mask);
}

fn mask(bed: &Bed, guest: &Guest) -> u8 {
    let (frame, offset) = guest.running.vcpu.info_place();
    bed.hv.machine.read_byte(frame, offset + 1)
}

fn raise(bed: &Bed, guest: &mut Guest, vector: u8, error_code: u32, address: u64) {
    let exception = Exception { vector, error_code, address };
    on_exception(&bed.hv, &mut guest.running, &mut guest.registers, exception);
}

/// Executes the bytes as an instruction that raises #GP.
fn execute(bed: &Bed, guest: &mut Guest, bytes: &[u8]) {
    let at = guest.address(CODE);
    guest.write(bed, at, bytes);
    guest.registers.rip = at;
    raise(bed, guest, vector::PROTECTION, 0, 0);
}

/// Whether the last instruction was emulated, rather than handed to the guest.
fn emulated(guest: &Guest, bytes: usize) -> bool {
    guest.registers.rip == guest.address(CODE) + bytes as u64
}

/// The words on the guest's stack.
fn stack<const N: usize>(bed: &Bed, guest: &Guest) -> [u64; N] {
    guest.read(bed, guest.registers.rsp)
}

/// Asserts that the domain was crashed and its console says by which rule.
fn assert_crashed(bed: &Bed, guest: &Guest, rule: Rule) {
    assert_eq!(guest.domain.lifecycle.lock().shutdown, Some(SHUTDOWN_CRASH));
    assert!(!guest.running.vcpu.is_runnable());
    let console = String::from_utf8(bed.hv.machine.take_console()).unwrap();
    assert!(console.contains(rule.0.id), "{console}");
}
