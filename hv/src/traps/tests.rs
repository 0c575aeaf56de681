//! The room's rules, on guests of a fake machine.

use pv_abi::arch::{
    FLAT_KERNEL_CS, FLAT_KERNEL_SS, HYPERVISOR_VIRT_START, IretContext, SEGBASE_FS, TrapInfo,
    VGCF_IN_SYSCALL,
};
use pv_abi::callback::{
    CALLBACKOP_REGISTER, CALLBACKOP_UNREGISTER, CALLBACKTYPE_EVENT, CALLBACKTYPE_FAILSAFE,
    CALLBACKTYPE_NMI, CALLBACKTYPE_SYSCALL, CallbackRegister, CallbackUnregister,
};
use pv_abi::errno::Errno;
use pv_abi::sched::SHUTDOWN_CRASH;
use pv_abi::xen as number;
use zerocopy::IntoBytes;

use super::*;
use crate::call::Call;
use crate::domain::{Callback, work};
use crate::entry::Exception;
use crate::fake::{Bed, Event, FakeMachine, Guest, entry};
use crate::hardware::CpuidResult;
use crate::refusal::Refusal;
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
    let exception = Exception {
        vector,
        error_code,
        address,
    };
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

fn refusal(
    bed: &Bed,
    guest: &mut Guest,
    handler: impl FnOnce(&mut Call<'_, FakeMachine>, [u64; 5]) -> Result<u64, Refusal>,
    args: [u64; 5],
) -> (Rule, Option<Errno>) {
    guest.enter(bed);
    let mut call = Call {
        hv: &bed.hv,
        running: &mut guest.running,
        registers: &mut guest.registers,
        next_arguments: None,
        in_multicall: false,
    };
    let refusal = handler(&mut call, args).unwrap_err();
    (refusal.rule, refusal.as_errno())
}

/// Asserts that the domain was crashed and its console says by which rule.
fn assert_crashed(bed: &Bed, guest: &Guest, rule: Rule) {
    assert_eq!(guest.domain.lifecycle.lock().shutdown, Some(SHUTDOWN_CRASH));
    assert!(!guest.running.vcpu.is_runnable());
    let console = String::from_utf8(bed.hv.machine.take_console()).unwrap();
    assert!(console.contains(rule.0.id), "{console}");
}

#[test]
fn an_exception_and_its_iret_leave_the_guest_as_it_was() {
    let bed = Bed::new(64);
    let mut guest = ready(&bed, 1);
    guest.registers.rax = 1;
    guest.registers.rcx = 2;
    guest.registers.r11 = 3;
    guest.write(&bed, guest.address(CODE), &[0x0f_u8, 0x0b]);
    let before = guest.registers;
    raise(&bed, &mut guest, vector::INVALID_OPCODE, 0, 0);
    assert_eq!(guest.registers.rip, HANDLER + 6);
    assert_eq!(guest.registers.rsp % 16, 8);
    let cs = u64::from(FLAT_KERNEL_CS & !3);
    let frame = stack::<7>(&bed, &guest);
    assert_eq!(
        frame,
        [
            2,
            3,
            before.rip,
            cs,
            flags::IF | flags::ALWAYS,
            before.rsp,
            FLAT_KERNEL_SS.into()
        ]
    );
    let [rcx, r11, rip, cs, rflags, rsp, ss] = frame;
    let back = IretContext {
        rax: 1,
        r11,
        rcx,
        flags: 0,
        rip,
        cs,
        rflags,
        rsp,
        ss,
    };
    let place = guest.address(2);
    guest.write(&bed, place, &back);
    guest.registers.rsp = place;
    guest.call(&bed, number::HYPERVISOR_IRET, [0; 5]);
    let mut expected = before;
    expected.entry_vector = ENTRY_FULL;
    let arguments = guest.registers;
    expected.rdi = arguments.rdi;
    expected.rsi = arguments.rsi;
    expected.rdx = arguments.rdx;
    expected.r10 = arguments.r10;
    expected.r8 = arguments.r8;
    assert_eq!(guest.registers, expected);
}

#[test]
fn an_error_code_lies_below_rip_and_the_mask_beside_cs() {
    let bed = Bed::new(64);
    let mut guest = ready(&bed, 1);
    set_mask(&bed, &guest, 1);
    raise(&bed, &mut guest, 11, 0x18, 0);
    assert_crashed(&bed, &guest, rule::NO_HANDLER);
    let mut guest = ready(&bed, 2);
    guest.running.state.traps[11].address = HANDLER;
    set_mask(&bed, &guest, 1);
    raise(&bed, &mut guest, 11, 0x18, 0);
    let [_, _, code, _, cs, rflags, ..] = stack::<8>(&bed, &guest);
    assert_eq!((code, cs), (0x18, u64::from(FLAT_KERNEL_CS & !3) | 1 << 32));
    assert_eq!(rflags & flags::IF, 0);
    assert_eq!(guest.registers.rsp % 16, 0);
}

#[test]
fn a_gate_that_masks_events_masks_them() {
    let bed = Bed::new(64);
    let mut guest = ready(&bed, 1);
    guest.running.state.traps[3].flags = 4;
    raise(&bed, &mut guest, 3, 0, 0);
    assert_eq!(mask(&bed, &guest), 1);
    let [_, _, _, cs, ..] = stack::<7>(&bed, &guest);
    assert_eq!(cs >> 32, 0, "the frame shows the mask as it was");
}

#[test]
fn an_entry_clears_the_flags_that_would_trip_the_kernel() {
    let bed = Bed::new(64);
    let mut guest = ready(&bed, 1);
    guest.registers.rflags |= flags::TF | flags::NT | flags::RF | flags::AC;
    raise(&bed, &mut guest, 3, 0, 0);
    assert_eq!(
        guest.registers.rflags & (flags::TF | flags::NT | flags::RF | flags::AC),
        0
    );
    assert_eq!(guest.registers.entry_vector, ENTRY_SYSCALL);
}

#[test]
fn a_users_exception_enters_the_kernel_on_its_own_stack() {
    let bed = Bed::new(64);
    let mut guest = ready(&bed, 1);
    guest.running.state.kernel_mode = false;
    guest.running.state.kernel_sp = guest.address(3) + 0x1000;
    guest.registers.cs = 0x33;
    raise(&bed, &mut guest, 3, 0, 0);
    assert!(guest.running.state.kernel_mode);
    assert_eq!(guest.registers.rsp, guest.address(3) + 0x1000 - 56);
    let [_, _, _, cs, ..] = stack::<7>(&bed, &guest);
    assert_eq!(cs, 0x33);
}

#[test]
fn a_stack_that_cannot_be_written_crashes_its_domain_alone() {
    let bed = Bed::new(64);
    let other = ready(&bed, 2);
    let mut guest = ready(&bed, 1);
    guest.registers.rsp = 0x5555_0000_0000;
    raise(&bed, &mut guest, 3, 0, 0);
    assert_crashed(&bed, &guest, rule::FRAME_PUSH);
    assert!(other.running.vcpu.is_runnable());
    let mut guest = ready(&bed, 3);
    guest.registers.rsp = HYPERVISOR_VIRT_START + 0x1000;
    raise(&bed, &mut guest, 3, 0, 0);
    assert_crashed(&bed, &guest, rule::STACK_IN_HYPERVISOR);
}

#[test]
fn a_crash_prints_registers_and_the_last_hypercalls() {
    let bed = Bed::new(64);
    let mut guest = ready(&bed, 1);
    guest.call(
        &bed,
        number::HYPERVISOR_STACK_SWITCH,
        [0xe02b, 0x1234, 0, 0, 0],
    );
    raise(&bed, &mut guest, 4, 0, 0);
    let console = String::from_utf8(bed.hv.machine.take_console()).unwrap();
    for part in [
        "d1 crashed",
        "TRP-01",
        "rip",
        "stack_switch(0xe02b, 0x1234, ..)",
    ] {
        assert!(console.contains(part), "{part} in {console}");
    }
}

#[test]
fn iret_without_a_frame_or_without_user_tables_crashes() {
    let bed = Bed::new(64);
    let mut guest = ready(&bed, 1);
    guest.registers.rsp = 0x5555_0000_0000;
    guest.call(&bed, number::HYPERVISOR_IRET, [0; 5]);
    assert_crashed(&bed, &guest, rule::IRET_FRAME);
    let mut guest = ready(&bed, 2);
    let place = guest.address(2);
    guest.write(
        &bed,
        place,
        &IretContext {
            cs: 0x33,
            ..IretContext::default()
        },
    );
    guest.registers.rsp = place;
    guest.call(&bed, number::HYPERVISOR_IRET, [0; 5]);
    assert_crashed(&bed, &guest, rule::IRET_TO_USER_WITHOUT_TABLES);
}

#[test]
fn iret_sets_the_mask_and_never_the_real_privileges() {
    let bed = Bed::new(64);
    let mut guest = ready(&bed, 1);
    let place = guest.address(2);
    let frame = IretContext {
        flags: VGCF_IN_SYSCALL,
        cs: 0xe030,
        rflags: flags::IOPL | flags::VM | flags::DF,
        ..IretContext::default()
    };
    guest.write(&bed, place, &frame);
    guest.registers.rsp = place;
    guest.call(&bed, number::HYPERVISOR_IRET, [0; 5]);
    assert_eq!(mask(&bed, &guest), 1);
    assert_eq!(
        guest.registers.rflags,
        flags::IF | flags::DF | flags::ALWAYS
    );
    assert_eq!((guest.registers.cs, guest.registers.ss), (0xe033, 3));
    assert_eq!(guest.registers.entry_vector, ENTRY_SYSCALL);
}

#[test]
fn int_n_is_read_from_the_instruction() {
    let bed = Bed::new(64);
    let mut guest = ready(&bed, 1);
    guest.running.state.traps[0x80].address = HANDLER + 0x80;
    guest.running.state.traps[0x80].flags = 3;
    guest.write(&bed, guest.address(CODE), &[0xcd_u8, 0x80]);
    raise(&bed, &mut guest, vector::PROTECTION, 0x80 * 16 + 2, 0);
    assert_eq!(guest.registers.rip, HANDLER + 0x80);
    let [_, _, rip, ..] = stack::<7>(&bed, &guest);
    assert_eq!(rip, guest.address(CODE) + 2);
}

#[test]
fn int_n_that_the_guest_does_not_allow_is_a_protection_fault() {
    let bed = Bed::new(64);
    let mut guest = ready(&bed, 1);
    guest.running.state.traps[0x20].address = HANDLER + 0x20;
    guest.write(&bed, guest.address(CODE), &[0xcd_u8, 0x20]);
    raise(&bed, &mut guest, vector::PROTECTION, 0x20 * 8 + 2, 0);
    assert_eq!(guest.registers.rip, HANDLER + 13);
    let [_, _, code, rip, ..] = stack::<8>(&bed, &guest);
    assert_eq!((code, rip), (0x20 * 8 + 2, guest.address(CODE)));
}

#[test]
fn an_interrupt_with_its_own_gate_is_checked_as_well() {
    let bed = Bed::new(64);
    let mut guest = ready(&bed, 1);
    let after = guest.registers.rip + 2;
    guest.registers.rip = after;
    raise(&bed, &mut guest, 0x80, 0, 0);
    let [_, _, code, rip, ..] = stack::<8>(&bed, &guest);
    assert_eq!((code, rip), (0x402, after - 2));
}

#[test]
fn the_forced_prefix_executes_cpuid_in_kernel_and_user() {
    let bed = Bed::new(64);
    let mut guest = ready(&bed, 1);
    let bytes = [0x0f_u8, 0x0b, 0x78, 0x65, 0x6e, 0x0f, 0xa2];
    guest.write(&bed, guest.address(CODE), &bytes);
    for kernel_mode in [true, false] {
        guest.running.state.kernel_mode = kernel_mode;
        guest.registers.rip = guest.address(CODE);
        guest.registers.rax = 0x4000_0000;
        raise(&bed, &mut guest, vector::INVALID_OPCODE, 0, 0);
        assert!(emulated(&guest, 7));
        let r = &guest.registers;
        assert_eq!(
            [r.rax, r.rbx, r.rcx, r.rdx],
            [0x4000_0005, 0x566e_6558, 0x6558_4d4d, 0x4d4d_566e]
        );
    }
}

#[test]
fn the_prefix_at_the_end_of_memory_is_just_an_invalid_opcode() {
    let bed = Bed::new(64);
    let mut guest = ready(&bed, 1);
    let last = guest.address(7) + 0xffe;
    guest.write(&bed, last, &[0x0f_u8, 0x0b]);
    guest.registers.rip = last;
    raise(&bed, &mut guest, vector::INVALID_OPCODE, 0, 0);
    assert_eq!(guest.registers.rip, HANDLER + 6);
}

#[test]
fn osxsave_follows_the_guest_but_for_the_prefix_in_its_kernel() {
    let bed = Bed::new(64);
    let mut guest = ready(&bed, 1);
    bed.hv.machine.set_cpuid(
        1,
        0,
        CpuidResult {
            ecx: 1 << 26 | 1 << 27,
            ..Default::default()
        },
    );
    let osxsave = |guest: &Guest, forced| {
        cpuid::guest_cpuid(&bed.hv, &guest.running, 1, 0, forced).ecx & 1 << 27 != 0
    };
    assert!(osxsave(&guest, true) && !osxsave(&guest, false));
    execute(&bed, &mut guest, &[0x0f, 0x22, 0xe0]);
    guest.registers.rax = 1 << 18;
    execute(&bed, &mut guest, &[0x0f, 0x22, 0xe0]);
    assert!(osxsave(&guest, false));
}

#[test]
fn control_registers_read_as_a_kernel_expects() {
    let bed = Bed::new(64);
    let mut guest = ready(&bed, 1);
    execute(&bed, &mut guest, &[0x0f, 0x20, 0xc0]);
    assert_eq!(guest.registers.rax, 0x8005_0033);
    execute(&bed, &mut guest, &[0x0f, 0x20, 0xdb]);
    assert_eq!(guest.registers.rbx, guest.tables[0].0 << 12);
    execute(&bed, &mut guest, &[0x0f, 0x20, 0xe1]);
    assert_eq!(guest.registers.rcx & 1 << 5, 1 << 5);
    execute(&bed, &mut guest, &[0x44, 0x0f, 0x20, 0xc0]);
    assert_eq!(guest.registers.rip, HANDLER + 13, "CR8 is not there");
}

#[test]
fn only_ts_of_cr0_can_change() {
    let bed = Bed::new(64);
    let mut guest = ready(&bed, 1);
    guest.registers.rax = 0x8005_0033 | 8;
    execute(&bed, &mut guest, &[0x0f, 0x22, 0xc0]);
    assert!(emulated(&guest, 3) && guest.running.state.task_switched);
    execute(&bed, &mut guest, &[0x0f, 0x06]);
    assert!(emulated(&guest, 2) && !guest.running.state.task_switched);
    let told: Vec<Event> = bed
        .hv
        .machine
        .take_events()
        .into_iter()
        .filter(|event| matches!(event, Event::TaskSwitched(_)))
        .collect();
    assert_eq!(
        told,
        [Event::TaskSwitched(true), Event::TaskSwitched(false)]
    );
    guest.registers.rax = 0x8005_0033 & !(1 << 16);
    execute(&bed, &mut guest, &[0x0f, 0x22, 0xc0]);
    assert_eq!(guest.registers.rip, HANDLER + 13);
}

#[test]
fn cr4_takes_what_it_may_and_drops_the_rest() {
    let bed = Bed::new(64);
    let mut guest = ready(&bed, 1);
    guest.registers.rax = u64::MAX;
    execute(&bed, &mut guest, &[0x0f, 0x22, 0xe0]);
    assert!(emulated(&guest, 3));
    assert_eq!(guest.running.state.cr4, 1 << 2 | 1 << 3);
}

#[test]
fn users_execute_nothing_privileged() {
    for bytes in [
        &[0x0f, 0x20, 0xc0][..],
        &[0x0f, 0x32],
        &[0x0f, 0x06],
        &[0xfa],
        &[0xec],
    ] {
        let bed = Bed::new(64);
        let mut guest = ready(&bed, 1);
        guest.running.state.kernel_mode = false;
        guest.running.state.kernel_sp = guest.address(3) + 0x1000;
        guest.running.state.iopl = 1;
        execute(&bed, &mut guest, bytes);
        assert_eq!(guest.registers.rip, HANDLER + 13, "{bytes:x?}");
    }
}

#[test]
fn a_kernel_sets_its_gs_base_before_it_has_any_handler() {
    let bed = Bed::new(64);
    let mut guest = ready(&bed, 1);
    guest.running.state.traps.fill(Default::default());
    guest.registers.rcx = 0xc000_0101;
    guest.registers.rax = 0x8123_4000;
    guest.registers.rdx = 0xffff_ffff;
    execute(&bed, &mut guest, &[0x0f, 0x30]);
    assert!(emulated(&guest, 2));
    assert_eq!(
        guest.running.state.segments.gs_base_kernel,
        0xffff_ffff_8123_4000
    );
    guest.registers.rcx = 0x1234;
    bed.hv.machine.set_msr(0x1234, 7);
    execute(&bed, &mut guest, &[0x0f, 0x32]);
    assert!(
        emulated(&guest, 2),
        "a read before there is a handler gives zero"
    );
    assert_eq!((guest.registers.rax, guest.registers.rdx), (0, 0));
}

#[test]
fn registers_outside_of_the_policy_fault() {
    let bed = Bed::new(64);
    let mut guest = ready(&bed, 1);
    bed.hv.machine.set_msr(0x1234, 7);
    bed.hv.machine.set_msr(0xc000_0080, 0x1d01);
    for (msr, value) in [
        (0x277, 0x0000_0501_0007_0406),
        (0x1b, 0xfee0_0900),
        (0xc000_0080, 0x0d01),
        (0x179, 2),
    ] {
        guest.registers.rcx = msr;
        execute(&bed, &mut guest, &[0x0f, 0x32]);
        assert_eq!(
            guest.registers.rdx << 32 | guest.registers.rax,
            value,
            "{msr:x}"
        );
    }
    for bytes in [[0x0f, 0x32], [0x0f, 0x30]] {
        guest.registers.rcx = 0x1234;
        guest.registers.rsp = guest.address(STACK) + 0x800;
        execute(&bed, &mut guest, &bytes);
        assert_eq!(guest.registers.rip, HANDLER + 13);
    }
    guest.registers.rcx = 0xc000_0100;
    guest.registers.rdx = 0x8000_0000;
    guest.registers.rsp = guest.address(STACK) + 0x800;
    execute(&bed, &mut guest, &[0x0f, 0x30]);
    assert_eq!(
        guest.registers.rip,
        HANDLER + 13,
        "a base that is not canonical"
    );
}

#[test]
fn ports_need_privilege_and_read_as_ones_where_nobody_answers() {
    let bed = Bed::new(64);
    let mut guest = ready(&bed, 1);
    guest.registers.rdx = 0x3f9;
    execute(&bed, &mut guest, &[0xec]);
    assert_eq!(guest.registers.rip, HANDLER + 13);
    guest.running.state.iopl = 1;
    guest.registers.rax = 0x1234;
    execute(&bed, &mut guest, &[0xec]);
    assert!(emulated(&guest, 1));
    assert_eq!(guest.registers.rax, 0x12ff);
    guest.registers.rdx = 0xcf8;
    guest.registers.rax = 0x8000_1000;
    execute(&bed, &mut guest, &[0xef]);
    guest.registers.rax = 0;
    execute(&bed, &mut guest, &[0xed]);
    assert_eq!(
        guest.registers.rax, 0x8000_1000,
        "the address register is a latch of the domain"
    );
    guest.registers.rdx = 0xcfc;
    execute(&bed, &mut guest, &[0xed]);
    assert_eq!(guest.registers.rax, 0xffff_ffff, "and leads nowhere");
    let reached = bed.hv.machine.take_events();
    assert!(
        !reached
            .iter()
            .any(|event| matches!(event, Event::PortRead(..) | Event::PortWrite(..))),
        "{reached:?}"
    );
}

#[test]
fn an_io_bitmap_opens_single_ports_to_users() {
    let bed = Bed::new(64);
    let mut guest = ready(&bed, 1);
    guest.running.state.kernel_mode = false;
    guest.running.state.kernel_sp = guest.address(3) + 0x1000;
    let mut bitmap = [0xff_u8; 64];
    bitmap[0x60 / 8] = !1;
    guest.write(&bed, guest.address(4), &bitmap);
    guest.running.state.io_bitmap = (guest.address(4), 512);
    execute(&bed, &mut guest, &[0xe4, 0x60]);
    assert!(emulated(&guest, 2));
    execute(&bed, &mut guest, &[0xe4, 0x61]);
    assert_eq!(guest.registers.rip, HANDLER + 13);
}

#[test]
fn dom0_reaches_configuration_space_and_devices() {
    let bed = Bed::new(64);
    let mut guest = ready(&bed, 0);
    guest.running.state.iopl = 1;
    bed.hv.machine.set_port(0xcfe, 0x1af4);
    guest.registers.rdx = 0xcf8;
    guest.registers.rax = 0x8000_1004;
    execute(&bed, &mut guest, &[0xef]);
    guest.registers.rdx = 0xcfe;
    execute(&bed, &mut guest, &[0x66, 0xed]);
    assert_eq!(guest.registers.rax & 0xffff, 0x1af4);
    let expected = [
        Event::PortWrite(0xcf8, 4, 0x8000_1004),
        Event::PortRead(0xcfe, 2),
    ];
    let events = bed.hv.machine.take_events();
    assert!(events.ends_with(&expected), "{events:?}");
    bed.hv.machine.set_port(0xc010, 7);
    guest.registers.rdx = 0xc010;
    execute(&bed, &mut guest, &[0xec]);
    assert_eq!(guest.registers.rax & 0xff, 7);
}

#[test]
fn string_output_goes_on_in_batches_and_faults_where_memory_ends() {
    let bed = Bed::new(64);
    let mut guest = ready(&bed, 0);
    guest.running.state.iopl = 1;
    guest.registers.rdx = 0x2f8;
    guest.registers.rsi = guest.address(4);
    guest.registers.rcx = 100;
    execute(&bed, &mut guest, &[0xf3, 0x6e]);
    assert_eq!(
        (guest.registers.rcx, guest.registers.rip),
        (36, guest.address(CODE))
    );
    execute(&bed, &mut guest, &[0xf3, 0x6e]);
    assert!(emulated(&guest, 2));
    assert_eq!(guest.registers.rsi, guest.address(4) + 100);
    guest.registers.rsi = guest.address(7) + 0xfff;
    guest.registers.rcx = 2;
    execute(&bed, &mut guest, &[0xf3, 0x6e]);
    assert_eq!(
        (guest.registers.rip, guest.registers.rcx),
        (HANDLER + 14, 1)
    );
}

#[test]
fn cli_does_nothing_where_the_guest_may_input_and_output() {
    let bed = Bed::new(64);
    let mut guest = ready(&bed, 1);
    execute(&bed, &mut guest, &[0xfa]);
    assert_eq!(guest.registers.rip, HANDLER + 13);
    guest.running.state.iopl = 1;
    execute(&bed, &mut guest, &[0xfa]);
    assert!(emulated(&guest, 1));
    assert_eq!(mask(&bed, &guest), 0);
}

#[test]
fn a_page_fault_shows_its_address_and_whose_it_was() {
    let bed = Bed::new(64);
    let mut guest = ready(&bed, 1);
    raise(&bed, &mut guest, vector::PAGE_FAULT, 6, 0xdead_b000);
    let (frame, offset) = guest.running.vcpu.info_place();
    assert_eq!(
        bed.hv.machine.read_word(frame, (offset + 16) / 8),
        0xdead_b000
    );
    let [_, _, code, ..] = stack::<8>(&bed, &guest);
    assert_eq!(
        code, 2,
        "the fault is the kernel's, though it came from ring 3"
    );
}

#[test]
fn a_fault_that_the_tables_do_not_explain_is_not_the_guests() {
    let bed = Bed::new(64);
    let mut guest = ready(&bed, 1);
    let before = guest.registers;
    guest.running.state.kernel_mode = false;
    guest.running.state.user_root = guest.running.state.kernel_root;
    let address = guest.address(5);
    raise(&bed, &mut guest, vector::PAGE_FAULT, 7, address);
    assert_eq!(guest.registers, before);
    guest.running.state.user_root = None;
    guest.running.state.kernel_mode = true;
    let l1 = guest.tables[3];
    bed.hv
        .machine
        .write_word(l1, 6, entry::to(guest.frames[5], false));
    let address = guest.address(5);
    raise(&bed, &mut guest, vector::PAGE_FAULT, 7, address);
    assert_eq!(guest.registers.rip, HANDLER + 14);
}

#[test]
fn the_floating_point_trap_comes_once() {
    let bed = Bed::new(64);
    let mut guest = ready(&bed, 1);
    guest.call(&bed, number::HYPERVISOR_FPU_TASKSWITCH, [1, 0, 0, 0, 0]);
    raise(&bed, &mut guest, vector::NO_DEVICE, 0, 0);
    assert_eq!(guest.registers.rip, HANDLER + 7);
    assert!(!guest.running.state.task_switched);
}

#[test]
fn a_system_call_without_a_callback_does_not_exist() {
    let bed = Bed::new(64);
    let mut guest = ready(&bed, 1);
    guest.running.state.kernel_mode = false;
    guest.running.state.kernel_sp = guest.address(3) + 0x1000;
    let after = guest.registers.rip + 2;
    guest.registers.rip = after;
    enter_system_call(
        &bed.hv,
        &mut guest.running,
        &mut guest.registers,
        SystemCall::Syscall64,
    );
    assert_eq!(guest.registers.rip, HANDLER + 6);
    let [_, _, rip, ..] = stack::<7>(&bed, &guest);
    assert_eq!(rip, after - 2);
    guest.running.state.kernel_mode = false;
    enter_system_call(
        &bed.hv,
        &mut guest.running,
        &mut guest.registers,
        SystemCall::Sysenter,
    );
    assert_eq!(guest.registers.rip, HANDLER + 13);
}

#[test]
fn a_system_call_enters_the_callback_on_the_kernel_stack() {
    let bed = Bed::new(64);
    let mut guest = ready(&bed, 1);
    guest.running.state.callbacks.syscall = Callback {
        address: HANDLER,
        masks_events: true,
    };
    guest.running.state.kernel_mode = false;
    guest.running.state.kernel_sp = guest.address(3) + 0x1000;
    enter_system_call(
        &bed.hv,
        &mut guest.running,
        &mut guest.registers,
        SystemCall::Syscall64,
    );
    assert_eq!((guest.registers.rip, mask(&bed, &guest)), (HANDLER, 1));
}

#[test]
fn an_upcall_without_a_callback_crashes() {
    let bed = Bed::new(64);
    let mut guest = ready(&bed, 1);
    guest.running.state.callbacks.event = Callback {
        address: HANDLER,
        masks_events: true,
    };
    deliver_upcall(&bed.hv, &mut guest.running, &mut guest.registers);
    assert_eq!((guest.registers.rip, mask(&bed, &guest)), (HANDLER, 1));
    guest.running.state.callbacks.event.address = 0;
    deliver_upcall(&bed.hv, &mut guest.running, &mut guest.registers);
    assert_crashed(&bed, &guest, rule::NO_EVENT_CALLBACK);
}

#[test]
fn a_bad_segment_enters_the_failsafe_callback_with_all_four() {
    let bed = Bed::new(64);
    let mut guest = ready(&bed, 1);
    guest.running.state.callbacks.failsafe = Callback {
        address: HANDLER,
        masks_events: true,
    };
    let rip = guest.registers.rip;
    enter_failsafe(
        &bed.hv,
        &mut guest.running,
        &mut guest.registers,
        [1, 2, 3, 4],
    );
    assert_eq!(guest.registers.rip, HANDLER);
    let words = stack::<11>(&bed, &guest);
    assert_eq!(words[2..7], [1, 2, 3, 4, rip]);
    guest.running.state.callbacks.failsafe.address = 0;
    enter_failsafe(
        &bed.hv,
        &mut guest.running,
        &mut guest.registers,
        [1, 2, 3, 4],
    );
    assert_crashed(&bed, &guest, rule::BAD_SELECTOR);
}

#[test]
fn a_second_nmi_waits_for_the_iret_of_the_first() {
    let bed = Bed::new(64);
    let mut guest = ready(&bed, 1);
    let wanted = CallbackRegister {
        type_: CALLBACKTYPE_NMI,
        address: HANDLER,
        ..CallbackRegister::default()
    };
    assert_eq!(
        guest.call_with(
            &bed,
            number::HYPERVISOR_CALLBACK_OP,
            CALLBACKOP_REGISTER,
            &mut { wanted }
        ),
        0
    );
    let pend = |guest: &Guest| {
        guest
            .running
            .vcpu
            .nmi_pending
            .store(1, core::sync::atomic::Ordering::Release)
    };
    pend(&guest);
    guest.registers.rsp = guest.address(STACK) + 0x800;
    deliver_nmi(&bed.hv, &mut guest.running, &mut guest.registers);
    assert_eq!(guest.registers.rip, HANDLER);
    pend(&guest);
    guest.registers.rip = 0;
    deliver_nmi(&bed.hv, &mut guest.running, &mut guest.registers);
    assert_eq!(guest.registers.rip, 0);
    let place = guest.address(2);
    guest.write(
        &bed,
        place,
        &IretContext {
            cs: 0xe030,
            ..IretContext::default()
        },
    );
    guest.registers.rsp = place;
    guest.call(&bed, number::HYPERVISOR_IRET, [0; 5]);
    assert!(
        guest
            .running
            .vcpu
            .work
            .load(core::sync::atomic::Ordering::Acquire)
            & work::NMI
            != 0
    );
}

#[test]
fn a_trap_table_is_taken_entry_by_entry_and_goes_on_after_an_interrupt() {
    let bed = Bed::new(64);
    let mut guest = ready(&bed, 1);
    let place = guest.address(4);
    let list = [
        TrapInfo::new(3, 3, true, 0x10, HANDLER),
        TrapInfo::new(14, 0, false, 0x10, HANDLER + 1),
        TrapInfo::default(),
    ];
    guest.write(&bed, place, list.as_bytes());
    bed.hv.machine.interrupt_after(Some(0));
    assert_eq!(
        guest.call(&bed, number::HYPERVISOR_SET_TRAP_TABLE, [place, 0, 0, 0, 0]),
        0
    );
    assert_eq!(guest.continued, 2);
    let traps = &guest.running.state.traps;
    assert_eq!(
        (traps[3].flags, traps[3].cs, traps[14].address),
        (7, 0x13, HANDLER + 1)
    );
    assert_eq!(
        guest.call(&bed, number::HYPERVISOR_SET_TRAP_TABLE, [0; 5]),
        0
    );
    assert_eq!(guest.running.state.traps[3].address, 0);
    let bad = [
        TrapInfo::new(3, 3, true, 0x10, 1 << 47),
        TrapInfo::default(),
    ];
    guest.write(&bed, place, bad.as_bytes());
    let refused = refusal(&bed, &mut guest, set_trap_table, [place, 0, 0, 0, 0]);
    assert_eq!(refused, (rule::NON_CANONICAL, Some(Errno::Inval)));
}

#[test]
fn callbacks_are_registered_by_type_and_only_the_nmis_goes_away() {
    let bed = Bed::new(64);
    let mut guest = ready(&bed, 1);
    for kind in [
        CALLBACKTYPE_EVENT,
        CALLBACKTYPE_FAILSAFE,
        CALLBACKTYPE_SYSCALL,
    ] {
        let wanted = CallbackRegister {
            type_: kind,
            flags: 1,
            address: HANDLER + u64::from(kind),
            ..Default::default()
        };
        assert_eq!(
            guest.call_with(
                &bed,
                number::HYPERVISOR_CALLBACK_OP,
                CALLBACKOP_REGISTER,
                &mut { wanted }
            ),
            0
        );
    }
    let callbacks = guest.running.state.callbacks;
    assert_eq!(
        callbacks.failsafe,
        Callback {
            address: HANDLER + 1,
            masks_events: true
        }
    );
    let place = guest.address(4);
    let refused = |guest: &mut Guest, command: u32, type_: u16, address: u64| {
        guest.write(
            &bed,
            place,
            &CallbackRegister {
                type_,
                address,
                ..CallbackRegister::default()
            },
        );
        refusal(&bed, guest, callback_op, [command.into(), place, 0, 0, 0])
    };
    assert_eq!(
        refused(&mut guest, CALLBACKOP_REGISTER, 0, 1 << 47),
        (rule::NON_CANONICAL, Some(Errno::Inval))
    );
    assert_eq!(
        refused(&mut guest, CALLBACKOP_REGISTER, 6, 0),
        (rule::CALLBACK_TYPE, Some(Errno::NoSys))
    );
    assert_eq!(
        refused(&mut guest, CALLBACKOP_UNREGISTER, 0, 0),
        (rule::CALLBACK_STAYS, Some(Errno::Inval))
    );
    let nmi = CallbackUnregister {
        type_: CALLBACKTYPE_NMI,
        ..CallbackUnregister::default()
    };
    assert_eq!(
        guest.call_with(
            &bed,
            number::HYPERVISOR_CALLBACK_OP,
            CALLBACKOP_UNREGISTER,
            &mut { nmi }
        ),
        0
    );
    assert_eq!(
        refusal(&bed, &mut guest, nmi_op, [9, 0, 0, 0, 0]),
        (rule::NMI_COMMAND, Some(Errno::NoSys))
    );
}

#[test]
fn the_older_registration_takes_three_callbacks_at_once() {
    let bed = Bed::new(64);
    let mut guest = ready(&bed, 1);
    assert_eq!(
        guest.call(
            &bed,
            number::HYPERVISOR_SET_CALLBACKS,
            [HANDLER, HANDLER + 1, 0, 0, 0]
        ),
        0
    );
    let callbacks = guest.running.state.callbacks;
    assert_eq!(
        (callbacks.event.address, callbacks.failsafe.address),
        (HANDLER, HANDLER + 1)
    );
    assert!(callbacks.event.masks_events && !callbacks.failsafe.masks_events);
}

#[test]
fn segment_bases_are_canonical_and_one_of_four() {
    let bed = Bed::new(64);
    let mut guest = ready(&bed, 1);
    let mut refused = |args| refusal(&bed, &mut guest, set_segment_base, args);
    assert_eq!(
        refused([0, 1 << 47, 0, 0, 0]),
        (rule::NON_CANONICAL, Some(Errno::Inval))
    );
    assert_eq!(
        refused([4, 0, 0, 0, 0]),
        (rule::SEGMENT_BASE_WHICH, Some(Errno::Inval))
    );
    assert_eq!(
        guest.call(
            &bed,
            number::HYPERVISOR_SET_SEGMENT_BASE,
            [SEGBASE_FS.into(), 0x7000, 0, 0, 0]
        ),
        0
    );
    assert_eq!(guest.running.state.segments.fs_base, 0x7000);
}

#[test]
fn assists_are_those_of_a_64_bit_guest() {
    let bed = Bed::new(64);
    let mut guest = ready(&bed, 1);
    assert_eq!(
        guest.call(&bed, number::HYPERVISOR_VM_ASSIST, [0, 2, 0, 0, 0]),
        0
    );
    assert_eq!(
        guest
            .domain
            .assists
            .load(core::sync::atomic::Ordering::Relaxed),
        4
    );
    assert_eq!(
        guest.call(&bed, number::HYPERVISOR_VM_ASSIST, [1, 2, 0, 0, 0]),
        0
    );
    assert_eq!(
        guest
            .domain
            .assists
            .load(core::sync::atomic::Ordering::Relaxed),
        0
    );
    for kind in [6, 31, 33, 64, 1 << 40] {
        let refused = refusal(&bed, &mut guest, vm_assist, [0, kind, 0, 0, 0]);
        if kind as u32 != 0 {
            assert_eq!(refused, (rule::ASSIST_TYPE, Some(Errno::Inval)), "{kind}");
        }
        if kind == 64 {
            break;
        }
    }
}

#[test]
fn debug_registers_are_checked_and_loaded() {
    let bed = Bed::new(64);
    let mut guest = ready(&bed, 1);
    assert_eq!(
        guest.call(&bed, number::HYPERVISOR_SET_DEBUGREG, [0, 0x1000, 0, 0, 0]),
        0
    );
    assert_eq!(
        guest.call(&bed, number::HYPERVISOR_GET_DEBUGREG, [0, 0, 0, 0, 0]),
        0x1000
    );
    assert!(
        bed.hv
            .machine
            .take_events()
            .contains(&Event::DebugRegister(0, 0x1000))
    );
    let cases = [
        (
            [0, HYPERVISOR_VIRT_START],
            rule::BREAKPOINT_ADDRESS,
            Errno::Perm,
        ),
        ([7, 1 << 40], rule::DEBUG_RESERVED, Errno::Inval),
        ([7, 1 << 13], rule::DEBUG_CONTROL, Errno::Perm),
        ([9, 0], rule::DEBUG_REGISTER_NUMBER, Errno::NoDev),
    ];
    for ([register, value], rule, errno) in cases {
        let refused = refusal(&bed, &mut guest, set_debugreg, [register, value, 0, 0, 0]);
        assert_eq!(refused, (rule, Some(errno)));
    }
}

#[test]
fn a_descriptor_table_takes_frames_that_are_mapped_writable_nowhere() {
    let bed = Bed::new(64);
    let mut guest = ready(&bed, 1);
    let place = guest.address(4);
    guest.write(&bed, place, &guest.frames[5].0);
    let refused = refusal(&bed, &mut guest, set_gdt, [place, 16, 0, 0, 0]);
    assert_eq!(refused, (rule::GDT_FRAME, Some(Errno::Inval)));
    let refused = refusal(&bed, &mut guest, set_gdt, [place, 7169, 0, 0, 0]);
    assert_eq!(refused, (rule::GDT_TOO_LONG, Some(Errno::Inval)));
    let free = crate::frames::allocate_domain_frame(&bed.hv, &guest.domain).unwrap();
    guest.write(&bed, place, &free.0);
    assert_eq!(
        guest.call(&bed, number::HYPERVISOR_SET_GDT, [place, 16, 0, 0, 0]),
        0
    );
    assert_eq!(guest.running.state.gdt.entries, 16);
    let code = 0x00af_9b00_0000_ffff_u64;
    assert_eq!(
        guest.call(
            &bed,
            number::HYPERVISOR_UPDATE_DESCRIPTOR,
            [free.0 << 12 | 16, code, 0, 0, 0]
        ),
        0
    );
    assert_eq!(bed.hv.machine.read_word(free, 2), code | 3 << 45);
    let cases = [
        ([free.0 << 12, 0x0000_8e00_0000_0000], rule::DESCRIPTOR_KIND),
        ([free.0 << 12 | 4, 0], rule::DESCRIPTOR_PLACE),
        ([guest.tables[3].0 << 12, 0], rule::DESCRIPTOR_PLACE),
        ([60 << 12, 0], rule::DESCRIPTOR_PLACE),
    ];
    for ([address, descriptor], rule) in cases {
        let refused = refusal(
            &bed,
            &mut guest,
            update_descriptor,
            [address, descriptor, 0, 0, 0],
        );
        assert_eq!(refused, (rule, Some(Errno::Inval)));
    }
    assert_eq!(
        guest.call(&bed, number::HYPERVISOR_SET_GDT, [place, 0, 0, 0, 0]),
        0
    );
    assert_eq!(guest.running.state.gdt.frame_count, 0);
}
