//! A domain with hardware assistance, made by the first domain: its memory, its registers, its end.

use pv_abi::domctl::{
    Domctl, DomctlCreatedomain, DomctlGetdomaininfo, DomctlHvmcontext, DomctlMaxMem, DomctlMaxVcpus, DomctlShadowOp,
    XEN_DOMCTL_CDF_HAP, XEN_DOMCTL_CDF_HVM, XEN_DOMCTL_DESTROYDOMAIN, XEN_DOMCTL_GETDOMAININFO, XEN_DOMCTL_MAX_MEM,
    XEN_DOMCTL_MAX_VCPUS, XEN_DOMCTL_SETHVMCONTEXT, XEN_DOMCTL_SHADOW_OP, XEN_DOMCTL_SHADOW_OP_SET_ALLOCATION,
    XEN_DOMINF_HVM_GUEST, XEN_DOMINF_SHUTDOWN, XEN_DOMINF_SHUTDOWNMASK, XEN_DOMINF_SHUTDOWNSHIFT,
};
use pv_abi::hvm::{HVM_FILE_MAGIC, HVM_FILE_VERSION, HvmHwCpu, HvmSaveDescriptor, HvmSaveHeader};
use pv_abi::memory::{MemoryReservation, XENMEM_POPULATE_PHYSMAP};
use pv_abi::xen::{DOMID_SELF, HYPERVISOR_DOMCTL, HYPERVISOR_MEMORY_OP, HYPERVISOR_SCHED_OP, MMUEXT_INVLPG_LOCAL};
use zerocopy::{Immutable, IntoBytes};

use crate::{A, D, P, Page, RW, about, entry_address, expect, hypercall, mmu_update_as, mmuext, operation};

/// Guest frames of the kernel and of its results, and how many it has from the kernel's on.
pub const KERNEL: u64 = 0x100;
/// See [`KERNEL`].
pub const RESULTS: u64 = 0x104;
const FRAMES: u64 = 32;
/// Where the start info would be.
pub const START_INFO: u64 = 0x11_f000;

/// Shows a frame of the domain.
pub static WINDOW: Page = Page::new();
static LIST: Page = Page::new();

/// A control operation, with what it answers.
pub fn control<T: IntoBytes + Immutable>(command: u32, domain: u16, payload: &T) -> (i64, Domctl) {
    let mut frame = Domctl::with(command, domain, payload);
    let result = hypercall(HYPERVISOR_DOMCTL, [core::ptr::from_mut(&mut frame) as u64, 0, 0, 0, 0]);
    (result, frame)
}

/// Maps a guest frame of the domain at the window.
pub fn show(domain: u16, guest_frame: u64) -> i64 {
    let place = entry_address(WINDOW.va());
    let result = mmu_update_as(place, guest_frame << 12 | P | RW | A | D, u64::from(domain));
    mmuext(MMUEXT_INVLPG_LOCAL, WINDOW.va(), 0);
    result
}

/// What a domain with these devices inside is made by.
#[must_use]
pub fn usual(emulation_flags: u32) -> DomctlCreatedomain {
    DomctlCreatedomain {
        flags: XEN_DOMCTL_CDF_HVM | XEN_DOMCTL_CDF_HAP,
        max_vcpus: 1,
        max_evtchn_port: 1023,
        max_grant_frames: 4,
        max_maptrack_frames: 4,
        grant_opts: 1,
        arch: pv_abi::arch::ArchDomainconfig { emulation_flags, misc_flags: 0 },
        ..Default::default()
    }
}

/// Takes the window away, and destroys the domain.
pub fn destroy(domain: u16) {
    mmu_update_as(entry_address(WINDOW.va()), 0, DOMID_SELF.into());
    mmuext(MMUEXT_INVLPG_LOCAL, WINDOW.va(), 0);
    while control(XEN_DOMCTL_DESTROYDOMAIN, domain, &[0_u8; 1]).0 != 0 {}
    about("XEN_DOMCTL_destroydomain");
    expect("a destroyed domain is gone", gone(domain), true);
}

/// Gives a domain a vCPU, memory, and its kernel: what lies between two addresses.
pub fn build(domain: u16, from: u64, end: u64) {
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
pub fn set_registers(domain: u16) {
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
pub fn gone(domain: u16) -> bool {
    const NO_SUCH_DOMAIN: i64 = -3;
    (0..100_000).any(|_| {
        hypercall(HYPERVISOR_SCHED_OP, [0; 5]);
        control(XEN_DOMCTL_MAX_VCPUS, domain, &DomctlMaxVcpus { max: 1 }).0 == NO_SUCH_DOMAIN
    })
}

/// Waits until the domain shut down, and does something meanwhile; why it did.
pub fn wait(domain: u16, mut meanwhile: impl FnMut()) -> u32 {
    loop {
        meanwhile();
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
