//! The table of hypercalls.
//!
//! One row is a hypercall: its number, its name in logs and docs, the handler. A handler decodes its arguments, calls the
//! room that owns the state and gives what goes into `rax`; what an operation means is never decided here.

use alloc::string::String;
use core::fmt::Write;

use pv_abi::errno::Errno;
use pv_abi::version::XENVER_VERSION;
use pv_abi::xen as number;

use crate::call::Call;
use crate::domain::Running;
use crate::hardware::Machine;
use crate::refusal::{Consequence, Evidence, Refusal};
use crate::registers::Registers;
use crate::rules;
use crate::{Hypervisor, control, evtchn, grant, hvm, memory, paging, sched, traps};

mod multicall;
#[cfg(test)]
mod tests;

macro_rules! hypercalls {
    ($($number:path, $name:literal => $handler:path;)*) => {
        /// The name of a hypercall.
        #[must_use]
        pub fn name(number: u64) -> &'static str {
            match number {
                $($number => $name,)*
                _ => "unknown hypercall",
            }
        }

        /// All hypercalls that have a handler: number and name.
        pub const IMPLEMENTED: &[(u64, &str)] = &[$(($number, $name)),*];

        /// Each handler is a function of its own, so that what one needs of stack and registers the others do not pay.
        #[inline(always)]
        fn handle<M: Machine>(call: &mut Call<'_, M>, number: u64, arguments: [u64; 5]) -> Result<u64, Refusal> {
            match number {
                $($number => {
                    #[inline(never)]
                    fn alone<M: Machine>(call: &mut Call<'_, M>, arguments: [u64; 5]) -> Result<u64, Refusal> {
                        $handler(call, arguments)
                    }
                    alone(call, arguments)
                })*
                _ => Err(unknown(number)),
            }
        }
    };
}

hypercalls! {
    number::HYPERVISOR_SET_TRAP_TABLE, "set_trap_table" => traps::set_trap_table;
    number::HYPERVISOR_MMU_UPDATE, "mmu_update" => paging::mmu_update;
    number::HYPERVISOR_SET_GDT, "set_gdt" => traps::set_gdt;
    number::HYPERVISOR_STACK_SWITCH, "stack_switch" => traps::stack_switch;
    number::HYPERVISOR_SET_CALLBACKS, "set_callbacks" => traps::set_callbacks;
    number::HYPERVISOR_FPU_TASKSWITCH, "fpu_taskswitch" => traps::fpu_taskswitch;
    number::HYPERVISOR_SCHED_OP_COMPAT, "sched_op_compat" => sched::sched_op_compat;
    number::HYPERVISOR_PLATFORM_OP, "platform_op" => control::platform_op;
    number::HYPERVISOR_SET_DEBUGREG, "set_debugreg" => traps::set_debugreg;
    number::HYPERVISOR_GET_DEBUGREG, "get_debugreg" => traps::get_debugreg;
    number::HYPERVISOR_UPDATE_DESCRIPTOR, "update_descriptor" => traps::update_descriptor;
    number::HYPERVISOR_MEMORY_OP, "memory_op" => memory::memory_op;
    number::HYPERVISOR_MULTICALL, "multicall" => multicall::multicall;
    number::HYPERVISOR_UPDATE_VA_MAPPING, "update_va_mapping" => paging::update_va_mapping;
    number::HYPERVISOR_SET_TIMER_OP, "set_timer_op" => sched::set_timer_op;
    number::HYPERVISOR_XEN_VERSION, "xen_version" => control::xen_version;
    number::HYPERVISOR_CONSOLE_IO, "console_io" => control::console_io;
    number::HYPERVISOR_GRANT_TABLE_OP, "grant_table_op" => grant::grant_table_op;
    number::HYPERVISOR_VM_ASSIST, "vm_assist" => traps::vm_assist;
    number::HYPERVISOR_UPDATE_VA_MAPPING_OTHERDOMAIN, "update_va_mapping_otherdomain" => paging::update_va_mapping_otherdomain;
    number::HYPERVISOR_IRET, "iret" => traps::iret;
    number::HYPERVISOR_VCPU_OP, "vcpu_op" => sched::vcpu_op;
    number::HYPERVISOR_SET_SEGMENT_BASE, "set_segment_base" => traps::set_segment_base;
    number::HYPERVISOR_MMUEXT_OP, "mmuext_op" => paging::mmuext_op;
    number::HYPERVISOR_NMI_OP, "nmi_op" => traps::nmi_op;
    number::HYPERVISOR_SCHED_OP, "sched_op" => sched::sched_op;
    number::HYPERVISOR_CALLBACK_OP, "callback_op" => traps::callback_op;
    number::HYPERVISOR_EVENT_CHANNEL_OP, "event_channel_op" => evtchn::event_channel_op;
    number::HYPERVISOR_PHYSDEV_OP, "physdev_op" => control::physdev_op;
    number::HYPERVISOR_HVM_OP, "hvm_op" => hvm::hvm_op;
    number::HYPERVISOR_SYSCTL, "sysctl" => control::sysctl;
    number::HYPERVISOR_DOMCTL, "domctl" => control::domctl;
    number::HYPERVISOR_DM_OP, "dm_op" => hvm::dm_op;
}

/// The answer of a hypercall that is the same for everyone at any time. Such a one is how a guest looks for events that
/// are due (Linux: `xen_force_evtchn_callback`), so it is to cost little.
#[inline(always)]
#[must_use]
pub const fn immediate(number: u64, first_argument: u64) -> Option<u64> {
    if number == number::HYPERVISOR_XEN_VERSION && first_argument as u32 == XENVER_VERSION {
        Some(control::VERSION)
    } else {
        None
    }
}

#[cold]
fn unknown(number: u64) -> Refusal {
    Refusal::errno(Errno::NoSys, rules::core::UNKNOWN_HYPERCALL).with(Evidence::Value(number))
}

/// Does what the guest's registers ask: the number in `rax`, the result goes there too.
///
/// Leaves the registers ready to go on, or to execute the hypercall again.
#[inline(always)]
pub fn dispatch<M: Machine>(hv: &Hypervisor<M>, running: &mut Running, registers: &mut Registers) {
    let (number, arguments) = (registers.rax, registers.hypercall_arguments());
    running.state.recent.push(number, arguments[0], arguments[1]);
    let mut call = Call { hv, running, registers, next_arguments: None, in_multicall: false };
    match handle(&mut call, number, arguments) {
        Ok(value) => call.registers.rax = value,
        Err(refusal) => refuse(&mut call, &refusal),
    }
}

/// [`dispatch`] for a guest with hardware assistance, apart from the one that is part of a PV guest's way.
#[inline(never)]
pub(crate) fn dispatch_assisted<M: Machine>(hv: &Hypervisor<M>, running: &mut Running, registers: &mut Registers) {
    if registers.rax != number::HYPERVISOR_MULTICALL {
        return dispatch(hv, running, registers);
    }
    let arguments = registers.hypercall_arguments();
    running.state.recent.push(registers.rax, arguments[0], arguments[1]);
    let mut call = Call { hv, running, registers, next_arguments: None, in_multicall: false };
    match multicall::assisted(&mut call, arguments) {
        Ok(value) => call.registers.rax = value,
        Err(refusal) => refuse(&mut call, &refusal),
    }
}

/// The hypercall `iret`, which each return of a guest kernel from an exception is.
#[inline(always)]
pub fn iret<M: Machine>(hv: &Hypervisor<M>, running: &mut Running, registers: &mut Registers) {
    match traps::go_back(hv, running, registers) {
        Ok(value) => registers.rax = value,
        Err(refusal) => {
            refuse(&mut Call { hv, running, registers, next_arguments: None, in_multicall: false }, &refusal);
        }
    }
}

/// Applies a refusal; the registers still are as the guest gave them.
#[cold]
fn refuse<M: Machine>(call: &mut Call<'_, M>, refusal: &Refusal) {
    let next = call.next_arguments;
    let Call { hv, running, registers, .. } = call;
    explain(hv, running, registers.rax, registers.hypercall_arguments(), refusal);
    match refusal.consequence {
        Consequence::Errno(errno) => registers.rax = errno.as_return().cast_unsigned(),
        Consequence::Status(status) => registers.rax = i64::from(status).cast_unsigned(),
        Consequence::Continue => execute_again(registers, next),
        Consequence::Crash => control::crash(hv, running, registers, refusal),
    }
}

/// Prints a refusal, unless its domain has printed enough.
#[cold]
pub fn explain<M: Machine>(hv: &Hypervisor<M>, running: &Running, number: u64, arguments: [u64; 5], refusal: &Refusal) {
    let domain = &running.vcpu.domain;
    if refusal.consequence == Consequence::Continue {
        return;
    }
    let Some(left_out) = rules::admit(hv, domain) else {
        return;
    };
    let mut operation = String::new();
    if left_out > 0 {
        let _ = write!(operation, "({left_out} refusals not shown) ");
    }
    operation.push_str(name(number));
    rules::report(domain.id, &operation, &arguments, refusal);
}

/// Length of the `syscall` instruction (0f 05).
const SYSCALL_BYTES: u64 = 2;

fn execute_again(registers: &mut Registers, next: Option<[u64; 5]>) {
    registers.rip = registers.rip.wrapping_sub(SYSCALL_BYTES);
    if let Some([rdi, rsi, rdx, r10, r8]) = next {
        registers.rdi = rdi;
        registers.rsi = rsi;
        registers.rdx = rdx;
        registers.r10 = r10;
        registers.r8 = r8;
    }
}
