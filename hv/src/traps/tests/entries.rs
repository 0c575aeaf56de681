//! How a guest kernel is entered and left.

use super::*;

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
    assert_eq!(frame, [2, 3, before.rip, cs, flags::IF | flags::ALWAYS, before.rsp, FLAT_KERNEL_SS.into()]);
    let [rcx, r11, rip, cs, rflags, rsp, ss] = frame;
    let back = IretContext { rax: 1, r11, rcx, flags: 0, rip, cs, rflags, rsp, ss };
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
    assert_eq!(guest.registers.rflags & (flags::TF | flags::NT | flags::RF | flags::AC), 0);
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
    guest.call(&bed, number::HYPERVISOR_STACK_SWITCH, [0xe02b, 0x1234, 0, 0, 0]);
    raise(&bed, &mut guest, 4, 0, 0);
    let console = String::from_utf8(bed.hv.machine.take_console()).unwrap();
    for part in ["d1 crashed", "TRP-01", "rip", "stack_switch(0xe02b, 0x1234, ..)"] {
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
    guest.write(&bed, place, &IretContext { cs: 0x33, ..IretContext::default() });
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
    assert_eq!(guest.registers.rflags, flags::IF | flags::DF | flags::ALWAYS);
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
fn a_page_fault_shows_its_address_and_whose_it_was() {
    let bed = Bed::new(64);
    let mut guest = ready(&bed, 1);
    raise(&bed, &mut guest, vector::PAGE_FAULT, 6, 0xdead_b000);
    let (frame, offset) = guest.running.vcpu.info_place();
    assert_eq!(bed.hv.machine.read_word(frame, (offset + 16) / 8), 0xdead_b000);
    let [_, _, code, ..] = stack::<8>(&bed, &guest);
    assert_eq!(code, 2, "the fault is the kernel's, though it came from ring 3");
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
    bed.hv.machine.write_word(l1, 6, entry::to(guest.frames[5], false));
    let address = guest.address(5);
    raise(&bed, &mut guest, vector::PAGE_FAULT, 7, address);
    assert_eq!(guest.registers.rip, HANDLER + 14);
}

#[test]
fn a_system_call_without_a_callback_does_not_exist() {
    let bed = Bed::new(64);
    let mut guest = ready(&bed, 1);
    guest.running.state.kernel_mode = false;
    guest.running.state.kernel_sp = guest.address(3) + 0x1000;
    let after = guest.registers.rip + 2;
    guest.registers.rip = after;
    enter_system_call(&bed.hv, &mut guest.running, &mut guest.registers, SystemCall::Syscall64);
    assert_eq!(guest.registers.rip, HANDLER + 6);
    let [_, _, rip, ..] = stack::<7>(&bed, &guest);
    assert_eq!(rip, after - 2);
    guest.running.state.kernel_mode = false;
    enter_system_call(&bed.hv, &mut guest.running, &mut guest.registers, SystemCall::Sysenter);
    assert_eq!(guest.registers.rip, HANDLER + 13);
}

#[test]
fn a_system_call_enters_the_callback_on_the_kernel_stack() {
    let bed = Bed::new(64);
    let mut guest = ready(&bed, 1);
    guest.running.state.callbacks.syscall = Callback { address: HANDLER, masks_events: true };
    guest.running.state.kernel_mode = false;
    guest.running.state.kernel_sp = guest.address(3) + 0x1000;
    enter_system_call(&bed.hv, &mut guest.running, &mut guest.registers, SystemCall::Syscall64);
    assert_eq!((guest.registers.rip, mask(&bed, &guest)), (HANDLER, 1));
}

#[test]
fn an_upcall_without_a_callback_crashes() {
    let bed = Bed::new(64);
    let mut guest = ready(&bed, 1);
    guest.running.state.callbacks.event = Callback { address: HANDLER, masks_events: true };
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
    guest.running.state.callbacks.failsafe = Callback { address: HANDLER, masks_events: true };
    let rip = guest.registers.rip;
    enter_failsafe(&bed.hv, &mut guest.running, &mut guest.registers, [1, 2, 3, 4]);
    assert_eq!(guest.registers.rip, HANDLER);
    let words = stack::<11>(&bed, &guest);
    assert_eq!(words[2..7], [1, 2, 3, 4, rip]);
    guest.running.state.callbacks.failsafe.address = 0;
    enter_failsafe(&bed.hv, &mut guest.running, &mut guest.registers, [1, 2, 3, 4]);
    assert_crashed(&bed, &guest, rule::BAD_SELECTOR);
}

#[test]
fn a_second_nmi_waits_for_the_iret_of_the_first() {
    let bed = Bed::new(64);
    let mut guest = ready(&bed, 1);
    let wanted = CallbackRegister { type_: CALLBACKTYPE_NMI, address: HANDLER, ..CallbackRegister::default() };
    assert_eq!(guest.call_with(&bed, number::HYPERVISOR_CALLBACK_OP, CALLBACKOP_REGISTER, &mut { wanted }), 0);
    let pend = |guest: &Guest| guest.running.vcpu.nmi_pending.store(1, core::sync::atomic::Ordering::Release);
    pend(&guest);
    guest.registers.rsp = guest.address(STACK) + 0x800;
    deliver_nmi(&bed.hv, &mut guest.running, &mut guest.registers);
    assert_eq!(guest.registers.rip, HANDLER);
    pend(&guest);
    guest.registers.rip = 0;
    deliver_nmi(&bed.hv, &mut guest.running, &mut guest.registers);
    assert_eq!(guest.registers.rip, 0);
    let place = guest.address(2);
    guest.write(&bed, place, &IretContext { cs: 0xe030, ..IretContext::default() });
    guest.registers.rsp = place;
    guest.call(&bed, number::HYPERVISOR_IRET, [0; 5]);
    assert!(guest.running.vcpu.work.load(core::sync::atomic::Ordering::Acquire) & work::NMI != 0);
}
