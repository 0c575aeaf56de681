//! Instructions that are executed for a guest.

use super::*;

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
        assert_eq!([r.rax, r.rbx, r.rcx, r.rdx], [0x4000_0005, 0x566e_6558, 0x6558_4d4d, 0x4d4d_566e]);
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
    bed.hv.machine.set_cpuid(1, 0, CpuidResult { ecx: 1 << 26 | 1 << 27, ..Default::default() });
    let osxsave = |guest: &Guest, forced| cpuid::guest_cpuid(&bed.hv, &guest.running, 1, 0, forced).ecx & 1 << 27 != 0;
    assert!(osxsave(&guest, true) && !osxsave(&guest, false));
    execute(&bed, &mut guest, &[0x0f, 0x22, 0xe0]);
    guest.registers.rax = 1 << 18;
    execute(&bed, &mut guest, &[0x0f, 0x22, 0xe0]);
    assert!(osxsave(&guest, false));
}

#[test]
fn fast_copies_by_bytes_are_shown_only_where_they_are_fast() {
    let bed = Bed::new(64);
    bed.hv.machine.set_cpuid(7, 0, CpuidResult { ebx: 1 << 9 | 1 << 3, edx: 1 << 4 | 1 << 10, ..Default::default() });
    let shown = || {
        let leaf = cpuid::visible_leaf(&bed.hv.machine, 7, 0);
        (leaf.ebx, leaf.edx)
    };
    assert_eq!(shown(), (1 << 9 | 1 << 3, 1 << 4 | 1 << 10));
    bed.hv.machine.slow_bytes_down();
    assert_eq!(shown(), (1 << 3, 1 << 10));
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
    let told: Vec<Event> =
        bed.hv.machine.take_events().into_iter().filter(|event| matches!(event, Event::TaskSwitched(_))).collect();
    assert_eq!(told, [Event::TaskSwitched(true), Event::TaskSwitched(false)]);
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
    for bytes in [&[0x0f, 0x20, 0xc0][..], &[0x0f, 0x32], &[0x0f, 0x06], &[0xfa], &[0xec]] {
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
    assert_eq!(guest.running.state.segments.gs_base_kernel, 0xffff_ffff_8123_4000);
    guest.registers.rcx = 0x1234;
    bed.hv.machine.set_msr(0x1234, 7);
    execute(&bed, &mut guest, &[0x0f, 0x32]);
    assert!(emulated(&guest, 2), "a read before there is a handler gives zero");
    assert_eq!((guest.registers.rax, guest.registers.rdx), (0, 0));
}

#[test]
fn registers_outside_of_the_policy_fault() {
    let bed = Bed::new(64);
    let mut guest = ready(&bed, 1);
    bed.hv.machine.set_msr(0x1234, 7);
    bed.hv.machine.set_msr(0xc000_0080, 0x1d01);
    for (msr, value) in [(0x277, 0x0000_0501_0007_0406), (0x1b, 0xfee0_0900), (0xc000_0080, 0x0d01), (0x179, 2)] {
        guest.registers.rcx = msr;
        execute(&bed, &mut guest, &[0x0f, 0x32]);
        assert_eq!(guest.registers.rdx << 32 | guest.registers.rax, value, "{msr:x}");
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
    assert_eq!(guest.registers.rip, HANDLER + 13, "a base that is not canonical");
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
    assert_eq!(guest.registers.rax, 0x8000_1000, "the address register is a latch of the domain");
    guest.registers.rdx = 0xcfc;
    execute(&bed, &mut guest, &[0xed]);
    assert_eq!(guest.registers.rax, 0xffff_ffff, "and leads nowhere");
    let reached = bed.hv.machine.take_events();
    assert!(!reached.iter().any(|event| matches!(event, Event::PortRead(..) | Event::PortWrite(..))), "{reached:?}");
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
    let expected = [Event::PortWrite(0xcf8, 4, 0x8000_1004), Event::PortRead(0xcfe, 2)];
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
    guest.registers.rcx = 60;
    execute(&bed, &mut guest, &[0xf3, 0x6e]);
    assert_eq!((guest.registers.rcx, guest.registers.rip), (28, guest.address(CODE)));
    execute(&bed, &mut guest, &[0xf3, 0x6e]);
    assert!(emulated(&guest, 2));
    assert_eq!(guest.registers.rsi, guest.address(4) + 60);
    guest.registers.rsi = guest.address(7) + 0xfff;
    guest.registers.rcx = 2;
    execute(&bed, &mut guest, &[0xf3, 0x6e]);
    assert_eq!((guest.registers.rip, guest.registers.rcx), (HANDLER + 14, 1));
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
fn the_floating_point_trap_comes_once() {
    let bed = Bed::new(64);
    let mut guest = ready(&bed, 1);
    guest.call(&bed, number::HYPERVISOR_FPU_TASKSWITCH, [1, 0, 0, 0, 0]);
    raise(&bed, &mut guest, vector::NO_DEVICE, 0, 0);
    assert_eq!(guest.registers.rip, HANDLER + 7);
    assert!(!guest.running.state.task_switched);
}
