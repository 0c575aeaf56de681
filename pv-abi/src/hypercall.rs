//! The guest's side of the hypercalls: the `syscall` instruction, and one function for each call.
//!
//! A 64-bit PV kernel calls the hypervisor by `syscall`: number in rax, arguments in rdi, rsi, rdx, r10, r8, result in rax.
//! rcx and r11 are lost to the instruction, and Xen may change the registers of the arguments. An event may be delivered
//! before the next instruction, on the current stack.
//!
//! Functions are safe where the call cannot change memory that Rust knows of, beyond what it is given by reference. The
//! others are `unsafe` and say what the caller owes. All return the value, or the error it stands for.
//!
//! These work in kernel mode of a PV guest only; anywhere else `syscall` means something else. That is the one thing the
//! safe functions take for granted, so a crate with the feature `hypercall` belongs into a PV kernel.

// UNSAFETY: the hypervisor is reached only through an instruction, and what it does to memory follows from arguments that
// the compiler cannot check.
#![allow(unsafe_code, reason = "this module is the system-call instruction and what follows from it")]

mod control;
mod cpu;
mod events;
mod info;
mod memory;
mod mmu;
mod raw;
mod vcpus;

pub use control::{dm_op, domctl, hvm_op, multicall, physdev_op, physdev_set_iopl, platform_op, sysctl};
pub use cpu::{
    callback_register, callback_unregister, fpu_taskswitch, get_debugreg, iret, set_callbacks, set_debugreg, set_gdt,
    set_segment_base, set_trap_table, stack_switch, update_descriptor, vm_assist,
};
pub use events::{
    EventChannelOperation, event_channel_op, evtchn_alloc_unbound, evtchn_bind_interdomain, evtchn_bind_ipi,
    evtchn_bind_pirq, evtchn_bind_vcpu, evtchn_bind_virq, evtchn_close, evtchn_expand_array, evtchn_init_control,
    evtchn_send, evtchn_status, evtchn_unmask,
};
pub use info::{
    console_read, console_write, sched_block, sched_poll, sched_shutdown, sched_yield, set_timer_op, xen_capabilities,
    xen_extraversion, xen_features, xen_platform_parameters, xen_version,
};
pub use memory::{
    current_reservation, decrease_reservation, grant_copy, grant_map, grant_query_size, grant_setup_table, grant_swap,
    grant_table_op, grant_unmap, increase_reservation, machphys_mapping, maximum_ram_page, maximum_reservation,
    memory_exchange, memory_op, populate_physmap,
};
pub use mmu::{
    invlpg_local, mmu_update, mmu_update_for, mmuext_op, tlb_flush_local, update_va_mapping,
    update_va_mapping_otherdomain,
};
pub use raw::{raw0, raw1, raw2, raw3, raw4, raw5};
pub use vcpus::{
    vcpu_initialise, vcpu_is_up, vcpu_op, vcpu_register_vcpu_info, vcpu_runstate_info, vcpu_set_periodic_timer,
    vcpu_set_singleshot_timer, vcpu_stop_periodic_timer, vcpu_stop_singleshot_timer,
};
