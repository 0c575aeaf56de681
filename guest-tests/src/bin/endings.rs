//! What ends a domain, and only it: each a second domain that does what cannot go on, and the first sees it crashed.
#![no_std]
#![no_main]

use guest_tests::child::{CODE, Child};
use guest_tests::{HYPERVISOR_ADDRESS, about, expect, guest_test, say};
use pv_abi::arch::{IretContext, VcpuGuestContext};
use pv_abi::event_channel::{EVTCHNOP_BIND_IPI, EVTCHNOP_SEND, EvtchnBindIpi, EvtchnSend};
use pv_abi::sched::{SCHEDOP_BLOCK, SCHEDOP_SHUTDOWN, SHUTDOWN_CRASH, SchedShutdown};
use pv_abi::version::XENVER_VERSION;
use pv_abi::xen::{
    HYPERVISOR_EVENT_CHANNEL_OP, HYPERVISOR_IRET, HYPERVISOR_SCHED_OP, HYPERVISOR_SET_TRAP_TABLE,
    HYPERVISOR_XEN_VERSION,
};

guest_test!(endings);

/// An address that the child has not mapped.
const UNMAPPED: u64 = 0xffff_ffff_8010_0000;
/// A 64-bit code segment of a guest's user.
const USER_CS: u64 = 0xe033;
/// A selector of an empty descriptor.
const EMPTY: u16 = 0x0b;

fn endings() {
    stacks();
    irets();
    callbacks();
    segments();
    own_wish();
}

/// Makes a domain, has it do something, and expects that it crashes without the other.
fn dies(name: &str, change: impl Fn(&Child, &mut VcpuGuestContext), act: impl Fn(&Child)) {
    let Some(child) = Child::without_context(5, guest_tests::child::usual()) else {
        say!("guest-test: {name}: FAILED no domain could be made");
        return;
    };
    let mut context = child.context();
    change(&child, &mut context);
    let started = (child.set_context(&context), child.start());
    act(&child);
    let end = child.end();
    let destroyed = child.destroy();
    expect(name, (started, end, destroyed), ((0, 0), Some(SHUTDOWN_CRASH), 0));
}

fn nothing(child: &Child) {
    let _ = child.call(HYPERVISOR_XEN_VERSION, [XENVER_VERSION.into(), 0, 0, 0, 0]);
}

/// Raises #UD, which has a handler.
fn trap(child: &Child) {
    let _ = child.call(guest_tests::child::CRASH, [0; 5]);
}

fn with_handler(child: &Child, context: &mut VcpuGuestContext) {
    context.trap_ctxt[6].vector = 6;
    context.trap_ctxt[6].cs = USER_CS as u16;
    context.trap_ctxt[6].address = child.page(CODE);
}

fn stacks() {
    about("exceptions");
    let with_stack = |stack: u64| {
        move |child: &Child, context: &mut VcpuGuestContext| {
            with_handler(child, context);
            context.user_regs.rsp = stack;
        }
    };
    dies("a trap without a stack ends the domain", with_stack(UNMAPPED), trap);
    dies("a trap with its stack in the code does, too", with_stack(0xffff_ffff_8000_5000), trap);
    dies("a trap with its stack at address 0 does, too", with_stack(0), trap);
    dies("a trap with its stack in the hypervisor does, too", with_stack(HYPERVISOR_ADDRESS + 0x1000), trap);
    dies("a trap with its stack at the hypervisor's end does, too", with_stack(0xffff_8800_0000_0000), trap);
    dies("a trap that nobody handles does, too", |_, _| {}, trap);
}

fn irets() {
    about("iret");
    let iret = |child: &Child| {
        let _ = child.call(HYPERVISOR_IRET, [0; 5]);
    };
    let with_stack = |stack: u64| move |_: &Child, context: &mut VcpuGuestContext| context.user_regs.rsp = stack;
    dies("an iret without a stack ends the domain", with_stack(UNMAPPED), iret);
    dies("an iret from the hypervisor's memory does, too", with_stack(HYPERVISOR_ADDRESS), iret);
    dies(
        "an iret to a user without tables does, too",
        |child, context| context.user_regs.rsp = child.argument(),
        |child| {
            child.put(&IretContext { rip: child.page(CODE), cs: USER_CS, rflags: 0x200, ..Default::default() });
            iret(child);
        },
    );
    dies(
        "an iret to where nothing is does, too",
        |child, context| context.user_regs.rsp = child.argument(),
        |child| {
            let frame = IretContext { rip: UNMAPPED, cs: 0xe030, rflags: 0x200, ss: 0xe02b, ..Default::default() };
            child.put(&frame);
            iret(child);
        },
    );
}

fn callbacks() {
    about("upcalls");
    dies(
        "an event without a callback ends the domain",
        |_, _| {},
        |child| {
            let bound = child.ask(HYPERVISOR_EVENT_CHANNEL_OP, EVTCHNOP_BIND_IPI, &EvtchnBindIpi::default());
            expect("it has a port", bound, Some(0));
            let _ = child.ask(HYPERVISOR_EVENT_CHANNEL_OP, EVTCHNOP_SEND, &EvtchnSend { port: 1 });
            // Waiting unmasks events.
            let _ = child.call(HYPERVISOR_SCHED_OP, [SCHEDOP_BLOCK.into(), 0, 0, 0, 0]);
        },
    );
    about("set_trap_table");
    dies("a handler that is taken away does, too", with_handler, |child| {
        child.put(&[0_u64; 2]);
        let taken = child.call(HYPERVISOR_SET_TRAP_TABLE, [0; 5]);
        expect("it gives all of its handlers back", taken, Some(0));
        trap(child);
    });
}

fn segments() {
    about("XEN_DOMCTL_setvcpucontext");
    dies(
        "a segment that is not there ends a domain without a failsafe callback",
        |_, context| {
            context.user_regs.ds = EMPTY;
        },
        nothing,
    );
    dies("so does another", |_, context| context.user_regs.gs = EMPTY, nothing);
}

fn own_wish() {
    about("SCHEDOP_shutdown");
    dies(
        "a domain that says that it crashed is ended",
        |_, _| {},
        |child| {
            let _ = child.ask(HYPERVISOR_SCHED_OP, SCHEDOP_SHUTDOWN, &SchedShutdown { reason: SHUTDOWN_CRASH });
        },
    );
}
