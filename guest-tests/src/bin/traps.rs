//! What a trap looks like to a guest kernel.
//!
//! The frame that the hypervisor pushes, the error codes, what is emulated and what is not: all of it as on Xen.
#![no_std]
#![no_main]

use core::sync::atomic::{AtomicU64, Ordering};

use guest_tests::{
    A, D, P, Page, RW, Trap, TrapFrame, about, attempt, expect, guest_test, hypercall, last_trap, map_shared_info,
    on_trap, read_at, update_va_mapping, write_at,
};
use pv_abi::xen::{HYPERVISOR_FPU_TASKSWITCH, HYPERVISOR_GET_DEBUGREG, HYPERVISOR_SET_DEBUGREG};

guest_test!(traps);

static PAGE: Page = Page::new();
static SOFT: AtomicU64 = AtomicU64::new(0);
const INVLPG: u64 = 2;
const GP: Option<Trap> = Some(Trap { vector: 13, error_code: 0 });

fn traps() {
    frames();
    page_faults();
    software();
    privileged();
    registers();
}

fn frames() {
    about("exceptions");
    let trap = attempt!("ud2");
    expect("ud2 raises vector 6", trap, Some(Trap { vector: 6, error_code: 0 }));
    let frame = last_trap();
    expect("the code selector reads as kernel", frame.cs & 0xffff, 0xe030);
    expect("the stack selector reads as kernel", frame.ss & 0xffff, 0xe02b);
    expect("the events of the interrupted code are in the selector's upper half", frame.cs >> 32 & 0xff, 1);
    expect("interrupts read as the opposite of the mask", frame.rflags >> 9 & 1, 0);
    let trap = attempt!("xor eax, eax", "div eax"; out("eax") _, out("edx") _);
    expect("a division by zero raises vector 0", trap, Some(Trap { vector: 0, error_code: 0 }));
    let trap = attempt!("mov ds, {x:x}"; x = in(reg) 0x1234_u64);
    expect("a selector that is not raises vector 13 with it", trap, Some(Trap { vector: 13, error_code: 0x1234 }));
}

fn page_faults() {
    let va = PAGE.va();
    let entry = PAGE.mfn() << 12 | P | RW | A | D;
    expect("a page is unmapped", update_va_mapping(va, 0, INVLPG), 0);
    expect("a read of nothing is a kernel's page fault", read_at(va), Err(Trap { vector: 14, error_code: 0 }));
    let shared = map_shared_info();
    let cr2 = shared.vcpu().cr2.load(Ordering::SeqCst);
    expect("its address is in vcpu_info", cr2, va);
    expect("a write to nothing says so", write_at(va, 1), Err(Trap { vector: 14, error_code: 2 }));
    expect("a page is mapped read-only", update_va_mapping(va, entry & !RW, INVLPG), 0);
    expect("a write to a read-only page says so", write_at(va, 1), Err(Trap { vector: 14, error_code: 3 }));
    expect("a page is mapped writable", update_va_mapping(va, entry, INVLPG), 0);
    expect("a write to a writable page works", write_at(va, 1), Ok(()));
    expect("what was written is read", read_at(va), Ok(1));
    let own = read_at(0xffff_8300_0000_0000).map(|_| ());
    expect("the hypervisor's memory faults as a kernel's fault", own.map_err(|trap| trap.vector), Err(14));
    let low = read_at(0xffff_8000_0000_0000).map(|_| ());
    expect("the machine-to-physical table is readable", low, Ok(()));
    let table = write_at(0xffff_8000_0000_0000, 0).map_err(|trap| trap.vector);
    expect("the machine-to-physical table is not writable", table, Err(14));
    let strange = read_at(0x8000_0000_0000_0000).map_err(|trap| trap.vector);
    expect("a non-canonical address is a general-protection fault", strange, Err(13));
}

fn note_software_interrupt(frame: &mut TrapFrame) -> bool {
    if frame.vector == 0x80 || frame.vector == 3 {
        SOFT.store(frame.vector, Ordering::Relaxed);
        return true;
    }
    false
}

fn software() {
    on_trap(note_software_interrupt);
    let trap = attempt!("int 0x80");
    expect("int 0x80 is delivered", (trap, SOFT.swap(0, Ordering::Relaxed)), (None, 0x80));
    let trap = attempt!("int3");
    expect("a breakpoint is delivered", (trap, SOFT.swap(0, Ordering::Relaxed)), (None, 3));
    let trap = attempt!("int 0x81");
    expect("int without a gate is a general-protection fault", trap.map(|trap| trap.vector), Some(13));
}

fn privileged() {
    about("emulated_instructions");
    expect("hlt is a general-protection fault", attempt!("hlt"), GP);
    expect("lgdt is a general-protection fault", attempt!("lgdt [rsp]"), GP);
    expect("invlpg is a general-protection fault", attempt!("invlpg [rsp]"), GP);
    expect(
        "wrmsr to an unknown register is a general-protection fault",
        attempt!("wrmsr"; in("ecx") 0x4444, in("eax") 0, in("edx") 0),
        GP,
    );
    expect(
        "rdmsr of an unknown register is a general-protection fault",
        attempt!("rdmsr"; in("ecx") 0x4444, out("eax") _, out("edx") _),
        GP,
    );
    let (low, high): (u32, u32);
    let trap = attempt!("rdmsr"; in("ecx") 0xc000_0080_u32, out("eax") low, out("edx") high);
    expect("EFER is readable and says long mode", (trap, low & 0x500, high), (None, 0x500, 0));
    let cr0: u64;
    let trap = attempt!("mov {x}, cr0"; x = out(reg) cr0);
    expect("CR0 is readable and says protected mode with paging", (trap, cr0 & 0x8000_0001), (None, 0x8000_0001));
    let cr3: u64;
    let trap = attempt!("mov {x}, cr3"; x = out(reg) cr3);
    expect(
        "CR3 is readable and is the root table",
        (trap, cr3 >> 12),
        (None, guest_tests::mfn_of(guest_tests::start_info().pt_base)),
    );
    expect("cli is a general-protection fault without I/O privilege", attempt!("cli"), GP);
    expect(
        "a port is a general-protection fault without I/O privilege",
        attempt!("in al, dx"; in("dx") 0x80_u16, out("al") _),
        GP,
    );
    expect(
        "a write to CR0 of what may not change is a general-protection fault",
        attempt!("mov cr0, {x}"; x = in(reg) 0_u64),
        GP,
    );
}

fn registers() {
    let set = |index: u64, value: u64| hypercall(HYPERVISOR_SET_DEBUGREG, [index, value, 0, 0, 0]);
    let get = |index: u64| hypercall(HYPERVISOR_GET_DEBUGREG, [index, 0, 0, 0, 0]);
    about("set_debugreg get_debugreg");
    expect("a breakpoint address is taken", set(0, 0x1234_5000), 0);
    expect("a breakpoint address is given back", get(0), 0x1234_5000);
    expect("a breakpoint in the hypervisor is EPERM", set(1, 0xffff_8300_0000_0000), -1);
    expect("the upper half of the debug control must be zero", set(7, 1 << 32), -22);
    expect("debug register 9 is ENODEV", set(9, 0), -19);
    expect("breakpoint 0 is cleared", set(0, 0), 0);
    about("fpu_taskswitch");
    hypercall(HYPERVISOR_FPU_TASKSWITCH, [1, 0, 0, 0, 0]);
    let trap = attempt!("fninit");
    expect("a floating-point instruction traps after a task switch", trap, Some(Trap { vector: 7, error_code: 0 }));
    expect("and only once", attempt!("fninit"), None);
}
