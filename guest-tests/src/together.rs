//! What several vCPUs do at the same time, and how it is judged.
//!
//! Each vCPU is at the same point of the same list of works; they meet before and after each. What is wrong is counted by
//! whoever sees it, and the first vCPU says the verdict when all have counted.

use core::panic::Location;
use core::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use pv_abi::vcpu::{VCPUOP_DOWN, VCPUOP_IS_UP, VCPUOP_STOP_PERIODIC_TIMER, VCPUOP_UP};
use pv_abi::xen::HYPERVISOR_VCPU_OP;

use crate::runtime::{expect, hypercall};
use crate::traps::install_traps;
use crate::vcpus::{MAX_VCPUS, Meeting, initialise};

/// How many vCPUs do something together.
pub const VCPUS: u32 = MAX_VCPUS as u32;
/// What each vCPU does; its number is the argument.
pub type Work = fn(u32);

static MEETING: Meeting = Meeting::new();
static WRONG: AtomicU32 = AtomicU32::new(0);
static WHERE: AtomicU32 = AtomicU32::new(0);
static WINNERS: AtomicU32 = AtomicU32::new(0);
static OVER: AtomicBool = AtomicBool::new(false);

/// A `vcpu_op` without an argument.
pub fn vcpu_plain(command: u32, vcpu: u32) -> i64 {
    hypercall(HYPERVISOR_VCPU_OP, [u64::from(command), u64::from(vcpu), 0, 0, 0])
}

/// Whether the domain has all its vCPUs; says so where it has not.
#[must_use]
pub fn all_vcpus_are_there() -> bool {
    let last = vcpu_plain(VCPUOP_IS_UP, VCPUS - 1);
    expect("the domain has four vCPUs", last, 0);
    last == 0
}

/// Gives all other vCPUs `main` to begin with, and brings them up; whether each step was taken.
pub fn start_others(main: extern "C" fn(u32) -> !) -> bool {
    (1..VCPUS).all(|vcpu| initialise(vcpu, main) == 0 && vcpu_plain(VCPUOP_UP, vcpu) == 0)
}

/// What another vCPU does before its first work.
pub fn begin(vcpu: u32) {
    install_traps();
    vcpu_plain(VCPUOP_STOP_PERIODIC_TIMER, vcpu);
}

/// Does all works, together with the other vCPUs.
pub fn work_through(vcpu: u32, works: &[Work]) {
    for work in works {
        meet();
        work(vcpu);
        meet();
        if vcpu == 0 {
            OVER.store(false, Ordering::SeqCst);
        }
        meet();
    }
}

/// Goes down, for good.
pub fn end(vcpu: u32) -> ! {
    loop {
        vcpu_plain(VCPUOP_DOWN, vcpu);
    }
}

/// Waits for all others.
pub fn meet() {
    MEETING.wait(VCPUS);
}

/// Counts what is wrong, and remembers where that was seen first.
#[track_caller]
pub fn check(right: bool) {
    if !right && WRONG.fetch_add(1, Ordering::SeqCst) == 0 {
        WHERE.store(Location::caller().line(), Ordering::SeqCst);
    }
}

/// The first vCPU says, when all are here, whether nobody counted anything; else how often, and the line of the first.
pub fn verdict(vcpu: u32, name: &str) {
    meet();
    if vcpu == 0 {
        expect(name, (WRONG.swap(0, Ordering::SeqCst), WHERE.swap(0, Ordering::SeqCst)), (0, 0));
    }
    meet();
}

/// Counts something wrong unless one vCPU has won, or more where that is no harm.
pub fn one_wins(vcpu: u32, won: bool, or_more: bool) {
    if won {
        WINNERS.fetch_add(1, Ordering::SeqCst);
    }
    meet();
    if vcpu == 0 {
        let winners = WINNERS.swap(0, Ordering::SeqCst);
        check(winners == 1 || or_more && winners > 1);
    }
    meet();
}

/// Whether a work that others go on with until they are told is over.
#[must_use]
pub fn is_over() -> bool {
    OVER.load(Ordering::SeqCst)
}

/// Says that it is.
pub fn it_is_over() {
    OVER.store(true, Ordering::SeqCst);
}
