//! A PVH guest: made by the first domain, run with nested paging, watched from outside.
//!
//! The first domain is the toolstack: it makes a domain with hardware assistance, gives it memory by guest frames, maps
//! those to put a kernel there (`pvh.s`), sets the registers that the PVH boot protocol wants, and lets it run. The kernel
//! notes what it sees in its memory and powers off; then its results are read.
#![no_std]
#![no_main]
#![expect(unsafe_code, reason = "the other domain's memory is mapped, and its kernel is assembly")]

use core::arch::global_asm;

use guest_tests::{
    A, D, P, Page, RW, about, entry_address, expect, guest_test, hypercall, mmu_update_as, mmuext, operation, read_at,
};
use pv_abi::arch::XEN_X86_EMU_LAPIC;
use pv_abi::domctl::{
    Domctl, DomctlCreatedomain, DomctlGetdomaininfo, DomctlHvmcontext, DomctlMaxMem, DomctlMaxVcpus, DomctlShadowOp,
    XEN_DOMCTL_CDF_HAP, XEN_DOMCTL_CDF_HVM, XEN_DOMCTL_CREATEDOMAIN, XEN_DOMCTL_DESTROYDOMAIN,
    XEN_DOMCTL_GETDOMAININFO, XEN_DOMCTL_MAX_MEM, XEN_DOMCTL_MAX_VCPUS, XEN_DOMCTL_SETHVMCONTEXT, XEN_DOMCTL_SHADOW_OP,
    XEN_DOMCTL_SHADOW_OP_SET_ALLOCATION, XEN_DOMCTL_UNPAUSEDOMAIN, XEN_DOMINF_HVM_GUEST, XEN_DOMINF_SHUTDOWN,
    XEN_DOMINF_SHUTDOWNMASK, XEN_DOMINF_SHUTDOWNSHIFT,
};
use pv_abi::features::{
    XENFEAT_AUTO_TRANSLATED_PHYSMAP, XENFEAT_HVM_CALLBACK_VECTOR, XENFEAT_HVM_SAFE_PVCLOCK,
    XENFEAT_WRITABLE_PAGE_TABLES,
};
use pv_abi::hvm::{HVM_FILE_MAGIC, HVM_FILE_VERSION, HvmHwCpu, HvmSaveDescriptor, HvmSaveHeader};
use pv_abi::memory::{MemoryReservation, XENMEM_POPULATE_PHYSMAP};
use pv_abi::xen::{DOMID_SELF, HYPERVISOR_DOMCTL, HYPERVISOR_MEMORY_OP, HYPERVISOR_SCHED_OP, MMUEXT_INVLPG_LOCAL};
use zerocopy::{Immutable, IntoBytes};

guest_test!(pvh);

global_asm!(include_str!("pvh.s"));

unsafe extern "C" {
    static pvh_kernel: u8;
    static pvh_kernel_end: u8;
}

/// Guest frames of the kernel and of its results, and how many it has from the kernel's on.
const KERNEL: u64 = 0x100;
const RESULTS: u64 = 0x104;
const FRAMES: u64 = 32;
/// Where the start info would be.
const START_INFO: u64 = 0x11_f000;
/// The words of the page of results.
const RESULT_WORDS: usize = 28;

static WINDOW: Page = Page::new();
static LIST: Page = Page::new();

fn control<T: IntoBytes + Immutable>(command: u32, domain: u16, payload: &T) -> (i64, Domctl) {
    let mut frame = Domctl::with(command, domain, payload);
    let result = hypercall(HYPERVISOR_DOMCTL, [core::ptr::from_mut(&mut frame) as u64, 0, 0, 0, 0]);
    (result, frame)
}

/// Maps a guest frame of the domain at the window.
fn show(domain: u16, guest_frame: u64) -> i64 {
    let place = entry_address(WINDOW.va());
    let result = mmu_update_as(place, guest_frame << 12 | P | RW | A | D, u64::from(domain));
    mmuext(MMUEXT_INVLPG_LOCAL, WINDOW.va(), 0);
    result
}

fn pvh() {
    let request = DomctlCreatedomain {
        flags: XEN_DOMCTL_CDF_HVM | XEN_DOMCTL_CDF_HAP,
        max_vcpus: 1,
        max_evtchn_port: 1023,
        max_grant_frames: 4,
        max_maptrack_frames: 4,
        grant_opts: 1,
        arch: pv_abi::arch::ArchDomainconfig { emulation_flags: XEN_X86_EMU_LAPIC, misc_flags: 0 },
        ..Default::default()
    };
    about("XEN_DOMCTL_createdomain");
    let (result, frame) = control(XEN_DOMCTL_CREATEDOMAIN, 0, &request);
    expect("a PVH domain is made, where the CPU has SVM", result, 0);
    if result != 0 {
        return;
    }
    let domain = frame.domain;
    build(domain);
    about("XEN_DOMCTL_unpausedomain");
    let started = control(XEN_DOMCTL_UNPAUSEDOMAIN, domain, &[0_u8; 1]).0;
    let reason = wait(domain);
    // Now, since which of its rules it breaks before and which after this line depends on whose turn it is.
    expect("the domain starts", started, 0);
    about("SCHEDOP_shutdown");
    expect("it powers itself off", reason, 0);
    check(domain);
    mmu_update_as(entry_address(WINDOW.va()), 0, DOMID_SELF.into());
    mmuext(MMUEXT_INVLPG_LOCAL, WINDOW.va(), 0);
    while control(XEN_DOMCTL_DESTROYDOMAIN, domain, &[0_u8; 1]).0 != 0 {}
    about("XEN_DOMCTL_destroydomain");
    expect("a destroyed domain is gone", gone(domain), true);
}

fn build(domain: u16) {
    about("XEN_DOMCTL_max_vcpus");
    expect("it gets a vCPU", control(XEN_DOMCTL_MAX_VCPUS, domain, &DomctlMaxVcpus { max: 1 }).0, 0);
    about("XEN_DOMCTL_max_mem");
    expect("it may have memory", control(XEN_DOMCTL_MAX_MEM, domain, &DomctlMaxMem { max_memkb: 4096 }).0, 0);
    let pool = DomctlShadowOp { op: XEN_DOMCTL_SHADOW_OP_SET_ALLOCATION, mb: 4, ..Default::default() };
    while control(XEN_DOMCTL_SHADOW_OP, domain, &pool).0 != 0 {}
    for n in 0..FRAMES {
        let place = (LIST.va() + 8 * n) as *mut u64;
        // SAFETY: the page is this test's, and it has one vCPU.
        unsafe { place.write(KERNEL + n) };
    }
    let mut asked =
        MemoryReservation { extent_start: LIST.va(), nr_extents: FRAMES, domid: domain, ..Default::default() };
    about("XENMEM_populate_physmap");
    expect("it gets memory", operation(HYPERVISOR_MEMORY_OP, XENMEM_POPULATE_PHYSMAP, &mut asked), FRAMES as i64);
    about("MMU_NORMAL_PT_UPDATE");
    expect("its memory is mapped by guest frames", show(domain, KERNEL), 0);
    let [from, end] = [&raw const pvh_kernel, &raw const pvh_kernel_end].map(|place| place as u64);
    // SAFETY: the window shows a page of the domain that is not running; the kernel is shorter than a page.
    unsafe { core::ptr::copy_nonoverlapping(from as *const u8, WINDOW.va() as *mut u8, (end - from) as usize) };
    expect("where it has no memory, nothing is mapped", show(domain, 0x90000) < 0, true);
    set_registers(domain);
}

#[repr(C)]
#[derive(Clone, Copy, IntoBytes, Immutable)]
struct Saved {
    header_descriptor: HvmSaveDescriptor,
    header: HvmSaveHeader,
    cpu_descriptor: HvmSaveDescriptor,
    cpu: HvmHwCpu,
    end: HvmSaveDescriptor,
}

/// The state that the PVH boot protocol wants: 32-bit mode without paging, flat segments.
fn set_registers(domain: u16) {
    let cpu = HvmHwCpu {
        rip: KERNEL << 12,
        rbx: START_INFO,
        cr0: 0x11,
        rflags: 2,
        cs_limit: u32::MAX,
        ds_limit: u32::MAX,
        es_limit: u32::MAX,
        ss_limit: u32::MAX,
        tr_limit: 0x67,
        cs_arbytes: 0xc9b,
        ds_arbytes: 0xc93,
        es_arbytes: 0xc93,
        ss_arbytes: 0xc93,
        tr_arbytes: 0x8b,
        ..Default::default()
    };
    let descriptor = |typecode, length: usize| HvmSaveDescriptor { typecode, instance: 0, length: length as u32 };
    let saved = Saved {
        header_descriptor: descriptor(1, size_of::<HvmSaveHeader>()),
        header: HvmSaveHeader { magic: HVM_FILE_MAGIC, version: HVM_FILE_VERSION, ..Default::default() },
        cpu_descriptor: descriptor(2, size_of::<HvmHwCpu>()),
        cpu,
        end: descriptor(0, 0),
    };
    let request = DomctlHvmcontext { size: size_of::<Saved>() as u32, buffer: &raw const saved as u64, _pad0: 0 };
    about("XEN_DOMCTL_sethvmcontext");
    expect("its registers are set", control(XEN_DOMCTL_SETHVMCONTEXT, domain, &request).0, 0);
}

/// Whether nothing is left of a domain soon.
fn gone(domain: u16) -> bool {
    const NO_SUCH_DOMAIN: i64 = -3;
    (0..100_000).any(|_| {
        hypercall(HYPERVISOR_SCHED_OP, [0; 5]);
        control(XEN_DOMCTL_MAX_VCPUS, domain, &DomctlMaxVcpus { max: 1 }).0 == NO_SUCH_DOMAIN
    })
}

/// Waits until the domain shut down; why it did.
fn wait(domain: u16) -> u32 {
    loop {
        let (result, frame) = control(XEN_DOMCTL_GETDOMAININFO, domain, &[0_u8; 1]);
        let info: DomctlGetdomaininfo = frame.payload();
        if result != 0 || info.flags & XEN_DOMINF_HVM_GUEST == 0 {
            return u32::MAX;
        }
        if info.flags & XEN_DOMINF_SHUTDOWN != 0 {
            return info.flags >> XEN_DOMINF_SHUTDOWNSHIFT & XEN_DOMINF_SHUTDOWNMASK;
        }
        hypercall(HYPERVISOR_SCHED_OP, [0; 5]);
    }
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
