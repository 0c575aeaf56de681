//! Where traps, events and system calls go, and the descriptors and registers that a guest kernel sets.
#![no_std]
#![no_main]

use core::sync::atomic::{AtomicU64, Ordering};

use guest_tests::errno::{EFAULT, EINVAL, ENODEV, ENOSYS, EPERM};
use guest_tests::{
    A, D, HYPERVISOR_ADDRESS, NON_CANONICAL, P, Page, RW, Trap, TrapFrame, about, attempt, expect, gate, guest_test,
    hypercall, on_trap, register, set_trap_table, update_va_mapping, write_at,
};
use pv_abi::arch::TrapInfo;
use pv_abi::callback::{
    CALLBACKOP_REGISTER, CALLBACKOP_UNREGISTER, CALLBACKTYPE_EVENT, CALLBACKTYPE_FAILSAFE, CALLBACKTYPE_NMI,
    CALLBACKTYPE_SYSCALL, CALLBACKTYPE_SYSCALL32, CALLBACKTYPE_SYSENTER, CallbackUnregister,
};
use pv_abi::xen::{
    HYPERVISOR_CALLBACK_OP, HYPERVISOR_FPU_TASKSWITCH, HYPERVISOR_GET_DEBUGREG, HYPERVISOR_NMI_OP,
    HYPERVISOR_SET_CALLBACKS, HYPERVISOR_SET_DEBUGREG, HYPERVISOR_SET_GDT, HYPERVISOR_SET_SEGMENT_BASE,
    HYPERVISOR_SET_TRAP_TABLE, HYPERVISOR_STACK_SWITCH, HYPERVISOR_UPDATE_DESCRIPTOR,
};

guest_test!(callbacks);

const INVLPG: u64 = 2;
const RWAD: u64 = P | RW | A | D;
const CODE_ADDRESS: u64 = 0xffff_ffff_8010_0000;
static GDT: Page = Page::new();
static OTHER: Page = Page::new();
static SEEN: AtomicU64 = AtomicU64::new(u64::MAX);

fn callbacks() {
    trap_table();
    callback_operations();
    old_operations();
    descriptors();
    segment_bases();
    debug_registers();
}

fn note(frame: &mut TrapFrame) -> bool {
    if frame.vector == 0x80 || frame.vector == 3 {
        SEEN.store(frame.vector, Ordering::Relaxed);
        return true;
    }
    false
}

/// Sends vector 0x80 elsewhere than to its handler, and back.
fn trap_table() {
    about("set_trap_table");
    on_trap(note);
    let end = TrapInfo::default();
    let int80 = || (attempt!("int 0x80").map(|trap| trap.vector), SEEN.swap(u64::MAX, Ordering::Relaxed));
    expect("a gate is used", int80(), (None, 0x80));
    let own = |vector: u8, dpl: u8| set_trap_table(&[gate(vector, dpl, guest_tests::int80_handler()), end]);
    expect("a gate of privilege 0 is set", (own(0x80, 0), own(0x81, 0)), (0, 0));
    expect("int 0x80 uses it all the same", int80(), (None, 0x80));
    expect(
        "others are not for the kernel, which is less privileged",
        attempt!("int 0x81").map(|trap| trap.vector),
        Some(13),
    );
    expect("an empty table is taken", set_trap_table(&[end]), 0);
    expect("it changes nothing", attempt!("ud2").map(|trap| trap.vector), Some(6));
    let hypervisor = set_trap_table(&[gate(0x81, 3, HYPERVISOR_ADDRESS), end]);
    expect("a handler in the hypervisor is taken", hypervisor, 0);
    expect("a handler that is not canonical is EINVAL", set_trap_table(&[gate(0x81, 3, NON_CANONICAL), end]), EINVAL);
    let at = |address: u64| hypercall(HYPERVISOR_SET_TRAP_TABLE, [address, 0, 0, 0, 0]);
    expect("a table in the hypervisor is EFAULT", at(HYPERVISOR_ADDRESS), EFAULT);
    expect("a table at a hole is EFAULT", at(0x1000), EFAULT);
    expect("no table takes all gates away", at(0), 0);
    guest_tests::install_traps();
    expect("the gates are set again", int80(), (None, 0x80));
    expect("a breakpoint's gate is used", attempt!("int3"), None);
}

fn unregister(kind: u16) -> i64 {
    let callback = CallbackUnregister { type_: kind, ..Default::default() };
    hypercall(HYPERVISOR_CALLBACK_OP, [CALLBACKOP_UNREGISTER.into(), &raw const callback as u64, 0, 0, 0])
}

fn callback_operations() {
    about("CALLBACKOP_register");
    for (name, kind) in [
        ("a callback for system calls of 32 bits is registered", CALLBACKTYPE_SYSCALL32),
        ("a callback for sysenter is registered", CALLBACKTYPE_SYSENTER),
        ("a callback for NMIs is registered", CALLBACKTYPE_NMI),
    ] {
        expect(name, register(kind, CODE_ADDRESS), 0);
    }
    for (name, kind) in
        [("the first form of sysenter is ENOSYS", 3), ("callback 6 is ENOSYS", 6), ("callback 8 is ENOSYS", 8)]
    {
        expect(name, register(kind, CODE_ADDRESS), ENOSYS);
    }
    for (name, kind) in [
        ("an event callback that is not canonical is EINVAL", CALLBACKTYPE_EVENT),
        ("a failsafe callback that is not canonical is EINVAL", CALLBACKTYPE_FAILSAFE),
        ("a system-call callback that is not canonical is EINVAL", CALLBACKTYPE_SYSCALL),
    ] {
        expect(name, register(kind, NON_CANONICAL), EINVAL);
    }
    let at = |command: u32, address: u64| hypercall(HYPERVISOR_CALLBACK_OP, [command.into(), address, 0, 0, 0]);
    expect("a registration in the hypervisor is EFAULT", at(CALLBACKOP_REGISTER, HYPERVISOR_ADDRESS), EFAULT);
    about("CALLBACKOP_unregister");
    expect("the NMI callback is unregistered", unregister(CALLBACKTYPE_NMI), 0);
    expect("and again", unregister(CALLBACKTYPE_NMI), 0);
    for (name, kind) in [
        ("the event callback stays", CALLBACKTYPE_EVENT),
        ("the failsafe callback stays", CALLBACKTYPE_FAILSAFE),
        ("the system-call callback stays", CALLBACKTYPE_SYSCALL),
        ("the sysenter callback stays", CALLBACKTYPE_SYSENTER),
    ] {
        expect(name, unregister(kind), EINVAL);
    }
    expect("an unknown callback is ENOSYS to unregister", unregister(8), ENOSYS);
    expect("one in the hypervisor is EFAULT", at(CALLBACKOP_UNREGISTER, HYPERVISOR_ADDRESS), EFAULT);
    about("callback_op");
    expect("an unknown operation of callbacks is ENOSYS", at(2, 0), ENOSYS);
    about("XENNMI_register_callback");
    let nmi = |command: u64, argument: u64| hypercall(HYPERVISOR_NMI_OP, [command, argument, 0, 0, 0]);
    let handler = [CODE_ADDRESS];
    expect("an NMI handler is registered", nmi(0, handler.as_ptr() as u64), 0);
    expect("one in the hypervisor's memory is EFAULT", nmi(0, HYPERVISOR_ADDRESS), EFAULT);
    let strange = [NON_CANONICAL];
    expect("one that is not canonical is EINVAL", nmi(0, strange.as_ptr() as u64), EINVAL);
    about("XENNMI_unregister_callback");
    expect("the NMI handler is unregistered", nmi(1, 0), 0);
    about("nmi_op");
    expect("an unknown NMI operation is ENOSYS", nmi(2, 0), ENOSYS);
}

fn old_operations() {
    about("set_callbacks");
    let set =
        |event: u64, failsafe: u64, syscall: u64| hypercall(HYPERVISOR_SET_CALLBACKS, [event, failsafe, syscall, 0, 0]);
    expect("callbacks are set", set(CODE_ADDRESS, CODE_ADDRESS, CODE_ADDRESS), 0);
    expect("an event callback that is not canonical is passed over", set(NON_CANONICAL, CODE_ADDRESS, CODE_ADDRESS), 0);
    expect("a failsafe callback that is not, too", set(CODE_ADDRESS, NON_CANONICAL, CODE_ADDRESS), 0);
    expect("and a system-call callback", set(CODE_ADDRESS, CODE_ADDRESS, NON_CANONICAL), 0);
    guest_tests::install_traps();
    about("stack_switch");
    let switch = |ss: u64, sp: u64| hypercall(HYPERVISOR_STACK_SWITCH, [ss, sp, 0, 0, 0]);
    expect("a kernel stack is set", switch(0xe02b, OTHER.va() + 4096), 0);
    expect("its selector is made the guest's", switch(0, OTHER.va() + 4096), 0);
    expect("a stack that is not canonical is taken", switch(0xe02b, NON_CANONICAL), 0);
    expect("a stack in the hypervisor is taken", switch(0xe02b, HYPERVISOR_ADDRESS), 0);
    expect("the stack is set back", switch(0xe02b, OTHER.va() + 4096), 0);
    about("fpu_taskswitch");
    let task_switch = |set: u64| hypercall(HYPERVISOR_FPU_TASKSWITCH, [set, 0, 0, 0, 0]);
    expect("a task switch is noted", task_switch(1), 0);
    expect("and taken back", (task_switch(0), attempt!("fninit")), (0, None));
}

fn descriptors() {
    about("set_gdt");
    let (va, entry) = (GDT.va(), GDT.mfn() << 12 | RWAD);
    let _ = write_at(va + 8, 0x00af_fb00_0000_ffff);
    expect("a page of descriptors is made read-only", update_va_mapping(va, entry & !RW, INVLPG), 0);
    let set = |frames: u64, count: u64| hypercall(HYPERVISOR_SET_GDT, [frames, count, 0, 0, 0]);
    let frames = [GDT.mfn(); 14];
    let list = frames.as_ptr() as u64;
    expect("a descriptor table of one page is set", set(list, 512), 0);
    expect("the same page 14 times is a table as well", set(list, 7168), 0);
    expect("7169 entries are EINVAL", set(list, 7169), EINVAL);
    expect("a list of its frames in the hypervisor is EFAULT", set(HYPERVISOR_ADDRESS, 1), EFAULT);
    let none = [0xff_ffff_ffff_u64];
    expect("no frame is EINVAL", set(none.as_ptr() as u64, 1), EINVAL);
    expect("a refused table leaves the old one", attempt!("mov es, {x:x}"; x = in(reg) 0xe02b_u64), None);
    about("update_descriptor");
    let update = |place: u64, value: u64| hypercall(HYPERVISOR_UPDATE_DESCRIPTOR, [place, value, 0, 0, 0]);
    let place = (GDT.mfn() << 12) + 24;
    expect("a descriptor of data is set", update(place, 0x00cf_f300_0000_ffff), 0);
    expect("it can be loaded", attempt!("mov es, {x:x}"; x = in(reg) 0x1b_u64), None);
    expect("code of privilege 0 becomes the guest's", update(place - 8, 0x00af_9b00_0000_ffff), 0);
    expect("so does conforming code", update(place - 8, 0x00af_9f00_0000_ffff), 0);
    expect("no segment is left", attempt!("mov es, {x:x}"; x = in(reg) 0_u64), None);
    expect("it is taken away", update(place, 0), 0);
    let gone = attempt!("mov es, {x:x}"; x = in(reg) 0x1b_u64);
    expect("then it cannot be loaded", gone, Some(Trap { vector: 13, error_code: 0x18 }));
    expect("a misaligned place is EINVAL", update(place + 4, 0), EINVAL);
    expect("a place in no frame is EINVAL", update(0xff_ffff_f000, 0), EINVAL);
    expect("a place in the hypervisor's frame is EINVAL", update(0x1000, 0), EINVAL);
    expect("a place in a frame of data is written", update(OTHER.mfn() << 12, 0x00cf_f300_0000_ffff), 0);
    expect("a place in a page table is EINVAL", update(guest_tests::entry_address(va) & !0xfff, 0), EINVAL);
    for (name, value) in [
        ("an available task-state segment is EINVAL", 0x0000_e900_0000_0067_u64),
        ("a busy task-state segment is EINVAL", 0x0000_eb00_0000_0067),
        ("a trap gate is EINVAL", 0x0000_ef00_e030_0000),
        ("a task gate is EINVAL", 0x0000_e500_0000_0000),
    ] {
        expect(name, update(place, value), EINVAL);
    }
    about("set_gdt");
    expect("the table is taken away", set(0, 0), 0);
    expect("the page is a data page again", update_va_mapping(va, entry, INVLPG), 0);
}

fn segment_bases() {
    let set = |which: u64, base: u64| hypercall(HYPERVISOR_SET_SEGMENT_BASE, [which, base, 0, 0, 0]);
    about("SEGBASE_FS");
    let va = OTHER.va();
    let _ = write_at(va, 0x5566);
    let value: u64;
    expect("FS's base is set", set(0, va), 0);
    let trap = attempt!("mov {x}, fs:[0]"; x = out(reg) value);
    expect("memory is read through it", (trap, value), (None, 0x5566));
    expect("a base that is not canonical is EINVAL for FS", set(0, NON_CANONICAL), EINVAL);
    expect("a base in the hypervisor is taken for FS", set(0, HYPERVISOR_ADDRESS), 0);
    expect("it does not help", attempt!("mov {x}, fs:[0]"; x = out(reg) _).map(|trap| trap.vector), Some(14));
    expect("FS's base is zero again", set(0, 0), 0);
    about("SEGBASE_GS_KERNEL");
    let value: u64;
    expect("the kernel's base of GS is set", set(2, va), 0);
    let trap = attempt!("mov {x}, gs:[0]"; x = out(reg) value);
    expect("memory is read through GS", (trap, value), (None, 0x5566));
    expect("a base that is not canonical is EINVAL for GS", set(2, NON_CANONICAL), EINVAL);
    about("SEGBASE_GS_USER");
    expect("the user's base of GS is set", set(1, va), 0);
    expect("a base that is not canonical is EINVAL for the user's GS", set(1, NON_CANONICAL), EINVAL);
    about("SEGBASE_GS_USER_SEL");
    expect("the user's GS is loaded", set(3, 0xe02b), 0);
    expect("no selector is loaded", set(3, 0), 0);
    expect("a selector that is not becomes none", set(3, 0x1234), 0);
    let still: u64;
    let trap = attempt!("mov {x}, gs:[0]"; x = out(reg) still);
    expect("the kernel's base stays", (trap, still), (None, 0x5566));
    about("set_segment_base");
    expect("there is no base 4", set(4, 0), EINVAL);
}

fn debug_registers() {
    about("set_debugreg");
    let set = |index: u64, value: u64| hypercall(HYPERVISOR_SET_DEBUGREG, [index, value, 0, 0, 0]);
    for index in 0..4 {
        expect("a breakpoint's address is set", set(index, 0x1000 * (index + 1)), 0);
    }
    expect("an address that is not canonical is EPERM", set(0, NON_CANONICAL), EPERM);
    expect("register 4 is 6 under another name, or there is none", matches!(set(4, 0), 0 | ENODEV), true);
    expect("register 8 is ENODEV", set(8, 0), ENODEV);
    expect("the status is set", set(6, 0), 0);
    expect("its upper half is zero", set(6, 1 << 32), EINVAL);
    expect("general detect is EPERM", set(7, 1 << 13), EPERM);
    expect("a breakpoint on I/O is EPERM without debugging extensions", set(7, 0x0002_0001), EPERM);
    expect("a breakpoint is armed", set(7, 1), 0);
    about("get_debugreg");
    let get = |index: u64| hypercall(HYPERVISOR_GET_DEBUGREG, [index, 0, 0, 0, 0]);
    expect("an address is read", get(3), 0x4000);
    expect("the control is read", get(7) & 0xff, 1);
    expect("register 8 is not read", get(8), ENODEV);
    expect("the breakpoint is disarmed", set(7, 0), 0);
}
