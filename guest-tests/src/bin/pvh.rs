//! A PVH guest: made by the first domain, run with nested paging, watched from outside.
//!
//! The first domain is the toolstack: it makes a domain with hardware assistance, gives it memory by guest frames, maps
//! those to put a kernel there (`pvh.s`), sets the registers that the PVH boot protocol wants, and lets it run. The kernel
//! notes what it sees in its memory and powers off; then its results are read.
#![no_std]
#![no_main]
#![expect(unsafe_code, reason = "the other domain's memory is mapped, and its kernel is assembly")]

use core::arch::global_asm;

use guest_tests::assisted::{RESULTS, START_INFO, WINDOW, build, control, destroy, show, usual, wait};
use guest_tests::{about, expect, guest_test, read_at};
use pv_abi::arch::XEN_X86_EMU_LAPIC;
use pv_abi::domctl::{XEN_DOMCTL_CREATEDOMAIN, XEN_DOMCTL_UNPAUSEDOMAIN};
use pv_abi::features::{
    XENFEAT_AUTO_TRANSLATED_PHYSMAP, XENFEAT_HVM_CALLBACK_VECTOR, XENFEAT_HVM_SAFE_PVCLOCK,
    XENFEAT_WRITABLE_PAGE_TABLES,
};

guest_test!(pvh);

global_asm!(include_str!("pvh.s"));

unsafe extern "C" {
    static pvh_kernel: u8;
    static pvh_kernel_end: u8;
}

/// The words of the page of results.
const RESULT_WORDS: usize = 28;

fn pvh() {
    about("XEN_DOMCTL_createdomain");
    let (result, frame) = control(XEN_DOMCTL_CREATEDOMAIN, 0, &usual(XEN_X86_EMU_LAPIC));
    expect("a PVH domain is made, where the CPU has SVM", result, 0);
    if result != 0 {
        return;
    }
    let domain = frame.domain;
    let [from, end] = [&raw const pvh_kernel, &raw const pvh_kernel_end].map(|place| place as u64);
    build(domain, from, end);
    about("XEN_DOMCTL_unpausedomain");
    let started = control(XEN_DOMCTL_UNPAUSEDOMAIN, domain, &[0_u8; 1]).0;
    let reason = wait(domain, || {});
    // Now, since which of its rules it breaks before and which after this line depends on whose turn it is.
    expect("the domain starts", started, 0);
    about("SCHEDOP_shutdown");
    expect("it powers itself off", reason, 0);
    check(domain);
    destroy(domain);
}

/// Reads what the kernel noted.
fn check(domain: u16) {
    expect("its results are mapped", show(domain, RESULTS), 0);
    let seen: [u64; RESULT_WORDS] =
        core::array::from_fn(|word| read_at(WINDOW.va() + 8 * word as u64).unwrap_or(u64::MAX));
    about("boot");
    expect("CPUID in 32-bit mode names the hypervisor", seen[0], 0x6558_4d4d_566e_6558);
    expect("it was told its start info", seen[1], START_INFO);
    expect("long mode is active, and SVM is not seen", seen[2] & 0x1d00, 0x500);
    about("XENVER_version");
    expect("a hypercall answers by vmmcall", seen[3], 4 << 16 | 17);
    about("XENVER_get_features");
    expect("the hypercall page works", seen[4], 0);
    let needed = [
        XENFEAT_WRITABLE_PAGE_TABLES,
        XENFEAT_AUTO_TRANSLATED_PHYSMAP,
        XENFEAT_HVM_CALLBACK_VECTOR,
        XENFEAT_HVM_SAFE_PVCLOCK,
    ];
    expect("its features are those of PVH", needed.iter().all(|bit| seen[5] & 1 << bit != 0), true);
    about("mmu_update");
    expect("a hypercall about page tables is none of its", seen[6].cast_signed(), -38);
    about("XENMEM_add_to_physmap");
    expect("the shared page is put where it says", seen[7], 0);
    about("HVMOP_set_param");
    expect("it chooses a vector for upcalls", seen[8], 0);
    about("EVTCHNOP_bind_ipi");
    expect("it binds an event of its own", seen[9], 0);
    about("EVTCHNOP_send upcalls");
    expect("it sends it", seen[10], 0);
    expect("with interrupts off no upcall comes", seen[11], 0);
    expect("with interrupts on it comes once", seen[12], 1);
    about("EVTCHNOP_bind_virq");
    expect("it binds the timer", seen[13], 0);
    about("set_timer_op");
    expect("it sets the timer", seen[14], 0);
    expect("an event wakes it from hlt", seen[15] >= 2, true);
    about("emulated_instructions");
    expect("a register that is not there faults", seen[16], 1);
    expect("a port that is not there floats", seen[17], 0xff);
    about("XENMEM_decrease_reservation");
    expect("it gives a frame back", seen[18], 1);
    about("XENMEM_populate_physmap");
    expect("it takes a frame", seen[19], 1);
    expect("a frame that it takes is zero", seen[20], 0);
    check_apic(&seen);
}

/// What it noted of its local APIC.
fn check_apic(seen: &[u64; RESULT_WORDS]) {
    about("emulated_instructions");
    expect("its local APIC is on, and the first", seen[21], 0xfee0_0900);
    expect("its version is read in memory", seen[22] & 0xff, 0x14);
    expect("and in x2APIC mode", seen[23] & 0xff, 0x14);
    expect("an interrupt to itself waits with interrupts off", seen[24], 0);
    expect("and comes once with interrupts on", seen[25], 1);
    about("HVMOP_set_evtchn_upcall_vector");
    expect("it chooses a vector of its own for upcalls", seen[26], 0);
    expect("they come by it", seen[27], 1);
}
