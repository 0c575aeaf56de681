//! What a kernel registers, and what of it is refused.

use super::*;

#[test]
fn a_trap_table_is_taken_entry_by_entry_and_goes_on_after_an_interrupt() {
    let bed = Bed::new(64);
    let mut guest = ready(&bed, 1);
    let place = guest.address(4);
    let list =
        [TrapInfo::new(3, 3, true, 0x10, HANDLER), TrapInfo::new(14, 0, false, 0x10, HANDLER + 1), TrapInfo::default()];
    guest.write(&bed, place, list.as_bytes());
    bed.hv.machine.interrupt_after(Some(0));
    assert_eq!(guest.call(&bed, number::HYPERVISOR_SET_TRAP_TABLE, [place, 0, 0, 0, 0]), 0);
    assert_eq!(guest.continued, 2);
    let traps = &guest.running.state.traps;
    assert_eq!((traps[3].flags, traps[3].cs, traps[14].address), (7, 0x13, HANDLER + 1));
    assert_eq!(guest.call(&bed, number::HYPERVISOR_SET_TRAP_TABLE, [0; 5]), 0);
    assert_eq!(guest.running.state.traps[3].address, 0);
    let bad = [TrapInfo::new(3, 3, true, 0x10, 1 << 47), TrapInfo::default()];
    guest.write(&bed, place, bad.as_bytes());
    let refused = guest.refused(&bed, set_trap_table, [place, 0, 0, 0, 0]);
    assert_eq!(refused, (rule::NON_CANONICAL, Some(Errno::Inval)));
}

#[test]
fn callbacks_are_registered_by_type_and_only_the_nmis_goes_away() {
    let bed = Bed::new(64);
    let mut guest = ready(&bed, 1);
    for kind in [CALLBACKTYPE_EVENT, CALLBACKTYPE_FAILSAFE, CALLBACKTYPE_SYSCALL] {
        let wanted =
            CallbackRegister { type_: kind, flags: 1, address: HANDLER + u64::from(kind), ..Default::default() };
        assert_eq!(guest.call_with(&bed, number::HYPERVISOR_CALLBACK_OP, CALLBACKOP_REGISTER, &mut { wanted }), 0);
    }
    let callbacks = guest.running.state.callbacks;
    assert_eq!(callbacks.failsafe, Callback { address: HANDLER + 1, masks_events: true });
    let place = guest.address(4);
    let refused = |guest: &mut Guest, command: u32, type_: u16, address: u64| {
        guest.write(&bed, place, &CallbackRegister { type_, address, ..CallbackRegister::default() });
        guest.refused(&bed, callback_op, [command.into(), place, 0, 0, 0])
    };
    assert_eq!(refused(&mut guest, CALLBACKOP_REGISTER, 0, 1 << 47), (rule::NON_CANONICAL, Some(Errno::Inval)));
    assert_eq!(refused(&mut guest, CALLBACKOP_REGISTER, 6, 0), (rule::CALLBACK_TYPE, Some(Errno::NoSys)));
    assert_eq!(refused(&mut guest, CALLBACKOP_UNREGISTER, 0, 0), (rule::CALLBACK_STAYS, Some(Errno::Inval)));
    let nmi = CallbackUnregister { type_: CALLBACKTYPE_NMI, ..CallbackUnregister::default() };
    assert_eq!(guest.call_with(&bed, number::HYPERVISOR_CALLBACK_OP, CALLBACKOP_UNREGISTER, &mut { nmi }), 0);
    assert_eq!(guest.refused(&bed, nmi_op, [9, 0, 0, 0, 0]), (rule::NMI_COMMAND, Some(Errno::NoSys)));
}

#[test]
fn the_older_registration_takes_three_callbacks_at_once() {
    let bed = Bed::new(64);
    let mut guest = ready(&bed, 1);
    assert_eq!(guest.call(&bed, number::HYPERVISOR_SET_CALLBACKS, [HANDLER, HANDLER + 1, 0, 0, 0]), 0);
    let callbacks = guest.running.state.callbacks;
    assert_eq!((callbacks.event.address, callbacks.failsafe.address), (HANDLER, HANDLER + 1));
    assert!(callbacks.event.masks_events && !callbacks.failsafe.masks_events);
}

#[test]
fn segment_bases_are_canonical_and_one_of_four() {
    let bed = Bed::new(64);
    let mut guest = ready(&bed, 1);
    let mut refused = |args| guest.refused(&bed, set_segment_base, args);
    assert_eq!(refused([0, 1 << 47, 0, 0, 0]), (rule::NON_CANONICAL, Some(Errno::Inval)));
    assert_eq!(refused([4, 0, 0, 0, 0]), (rule::SEGMENT_BASE_WHICH, Some(Errno::Inval)));
    assert_eq!(guest.call(&bed, number::HYPERVISOR_SET_SEGMENT_BASE, [SEGBASE_FS.into(), 0x7000, 0, 0, 0]), 0);
    assert_eq!(guest.running.state.segments.fs_base, 0x7000);
}

#[test]
fn assists_are_those_of_a_64_bit_guest() {
    let bed = Bed::new(64);
    let mut guest = ready(&bed, 1);
    assert_eq!(guest.call(&bed, number::HYPERVISOR_VM_ASSIST, [0, 2, 0, 0, 0]), 0);
    assert_eq!(guest.domain.assists.load(core::sync::atomic::Ordering::Relaxed), 4);
    assert_eq!(guest.call(&bed, number::HYPERVISOR_VM_ASSIST, [1, 2, 0, 0, 0]), 0);
    assert_eq!(guest.domain.assists.load(core::sync::atomic::Ordering::Relaxed), 0);
    for kind in [6, 31, 33, 64, 1 << 40] {
        let refused = guest.refused(&bed, vm_assist, [0, kind, 0, 0, 0]);
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
    assert_eq!(guest.call(&bed, number::HYPERVISOR_SET_DEBUGREG, [0, 0x1000, 0, 0, 0]), 0);
    assert_eq!(guest.call(&bed, number::HYPERVISOR_GET_DEBUGREG, [0, 0, 0, 0, 0]), 0x1000);
    assert!(bed.hv.machine.take_events().contains(&Event::DebugRegister(0, 0x1000)));
    let cases = [
        ([0, HYPERVISOR_VIRT_START], rule::BREAKPOINT_ADDRESS, Errno::Perm),
        ([7, 1 << 40], rule::DEBUG_RESERVED, Errno::Inval),
        ([7, 1 << 13], rule::DEBUG_CONTROL, Errno::Perm),
        ([9, 0], rule::DEBUG_REGISTER_NUMBER, Errno::NoDev),
    ];
    for ([register, value], rule, errno) in cases {
        let refused = guest.refused(&bed, set_debugreg, [register, value, 0, 0, 0]);
        assert_eq!(refused, (rule, Some(errno)));
    }
}

#[test]
fn a_descriptor_table_takes_frames_that_are_mapped_writable_nowhere() {
    let bed = Bed::new(64);
    let mut guest = ready(&bed, 1);
    let place = guest.address(4);
    guest.write(&bed, place, &guest.frames[5].0);
    let refused = guest.refused(&bed, set_gdt, [place, 16, 0, 0, 0]);
    assert_eq!(refused, (rule::GDT_FRAME, Some(Errno::Inval)));
    let refused = guest.refused(&bed, set_gdt, [place, 7169, 0, 0, 0]);
    assert_eq!(refused, (rule::GDT_TOO_LONG, Some(Errno::Inval)));
    let free = crate::frames::allocate_domain_frame(&bed.hv, &guest.domain).unwrap();
    guest.write(&bed, place, &free.0);
    assert_eq!(guest.call(&bed, number::HYPERVISOR_SET_GDT, [place, 16, 0, 0, 0]), 0);
    assert_eq!(guest.running.state.gdt.entries, 16);
    let code = 0x00af_9b00_0000_ffff_u64;
    assert_eq!(guest.call(&bed, number::HYPERVISOR_UPDATE_DESCRIPTOR, [free.0 << 12 | 16, code, 0, 0, 0]), 0);
    assert_eq!(bed.hv.machine.read_word(free, 2), code | 3 << 45);
    let cases = [
        ([free.0 << 12, 0x0000_8e00_0000_0000], rule::DESCRIPTOR_KIND),
        ([free.0 << 12 | 4, 0], rule::DESCRIPTOR_PLACE),
        ([guest.tables[3].0 << 12, 0], rule::DESCRIPTOR_PLACE),
        ([60 << 12, 0], rule::DESCRIPTOR_PLACE),
    ];
    for ([address, descriptor], rule) in cases {
        let refused = guest.refused(&bed, update_descriptor, [address, descriptor, 0, 0, 0]);
        assert_eq!(refused, (rule, Some(Errno::Inval)));
    }
    assert_eq!(guest.call(&bed, number::HYPERVISOR_SET_GDT, [place, 0, 0, 0, 0]), 0);
    assert_eq!(guest.running.state.gdt.frame_count, 0);
}
