//! From the PVH entry to the portable kernel.
//!
//! The entry is `native`'s, and so are the page tables. Before them the hypervisor's stubs and the shared page are there;
//! behind them everything else that a PV guest has. What start_info says to a PV guest is asked for as parameters.

use core::arch::global_asm;
use core::arch::x86_64::__cpuid;

use pv_abi::hvm::{
    HVM_PARAM_CALLBACK_IRQ, HVM_PARAM_CALLBACK_TYPE_VECTOR, HVM_PARAM_CONSOLE_EVTCHN, HVM_PARAM_CONSOLE_PFN,
    HVM_PARAM_STORE_EVTCHN, HVM_PARAM_STORE_PFN, HVMOP_GET_PARAM, HVMOP_SET_PARAM, HvmParam,
};
use pv_abi::memory::{AddToPhysmap, XENMAPSPACE_SHARED_INFO, XENMEM_ADD_TO_PHYSMAP};
use pv_abi::xen::{self, StartInfo};
use x86_64::VirtAddr;
use x86_64::registers::model_specific::{GsBase, Msr};

use crate::mm::IMAGE_BASE;
use crate::platform::native::boot::{self as native, Layout};
use crate::platform::native::traps;
use crate::platform::pv::{clock, console, cpus, events, grants, hypercall, p2m, percpu, shared};

global_asm!(include_str!("entry.s"));

unsafe extern "C" {
    static pvh_stubs: u8;
}

/// The hypervisor's place in CPUID; guests look for it in steps of 256 (other hypervisors' interfaces come first).
const LEAVES: core::ops::Range<u32> = 0x4000_0000..0x4001_0000;

/// A hypervisor with Xen's interface.
pub(in crate::platform) struct Below {
    /// The register that fills a page with stubs.
    stubs_register: u32,
}

/// Finds the hypervisor below, if there is one with Xen's interface.
pub(in crate::platform) fn find_hypervisor() -> Option<Below> {
    let is_there = |leaf: &u32| {
        let found = __cpuid(*leaf);
        let name = [found.ebx, found.ecx, found.edx].map(u32::to_le_bytes);
        name.as_flattened() == b"XenVMMXenVMM"
    };
    // CPUID.1:ECX bit 31: a hypervisor is there.
    let base = LEAVES.step_by(0x100).find(is_there).filter(|_| __cpuid(1).ecx >> 31 != 0)?;
    Some(Below { stubs_register: __cpuid(base + 2).ebx })
}

/// Called by `native_main`.
pub(in crate::platform) fn main(below: &Below, start_info: u64) -> ! {
    fill_stubs(below);
    GsBase::write(VirtAddr::new(percpu::prepare(0)));
    crate::platform::select_pvh();
    let info = native::start_info_at(start_info);
    let rings = rings();
    let layout = Layout::of(&info, start_info, &[rings.store_mfn, rings.console_domu_mfn]);
    let frames = layout.ram.iter().map(|range| range.end - range.start).sum();
    p2m::init(0, frames, u64::MAX);
    // SAFETY: the address is that of the structure.
    unsafe { shared::keep_start_info(&StartInfo { nr_pages: frames, ..rings }) };
    put_shared_info();
    events::init();
    percpu::register(0).expect("vcpu_info can be moved");
    traps::init();
    set_parameter(HVM_PARAM_CALLBACK_IRQ, HVM_PARAM_CALLBACK_TYPE_VECTOR << 56 | u64::from(traps::FIRST_LINE));
    native::set_up_memory(&layout);
    console::init();
    grants::init();
    clock::init();
    cpus::init_first();
    crate::boot::finish(native::handover(&info), console::start)
}

/// Has the hypervisor fill the page of stubs.
fn fill_stubs(below: &Below) {
    let page = (&raw const pvh_stubs) as usize;
    // SAFETY: the register fills the page that it is given, which is kept for that.
    unsafe { Msr::new(below.stubs_register).write((page - IMAGE_BASE) as u64) };
    hypercall::use_stubs(page);
}

fn parameter_operation(command: u32, index: u32, value: u64) -> Option<u64> {
    let mut argument = HvmParam { domid: xen::DOMID_SELF, index, value, ..HvmParam::default() };
    // SAFETY: the struct of both operations.
    let result = unsafe { hypercall::operation(xen::HYPERVISOR_HVM_OP, command, &mut argument) };
    result.ok().map(|_| argument.value)
}

fn set_parameter(index: u32, value: u64) {
    parameter_operation(HVMOP_SET_PARAM, index, value).expect("the hypervisor takes the parameter");
}

/// What start_info says of the rings, from the parameters.
fn rings() -> StartInfo {
    let parameter = |index| parameter_operation(HVMOP_GET_PARAM, index, 0).unwrap_or(0);
    StartInfo {
        store_mfn: parameter(HVM_PARAM_STORE_PFN),
        store_evtchn: parameter(HVM_PARAM_STORE_EVTCHN) as u32,
        console_domu_mfn: parameter(HVM_PARAM_CONSOLE_PFN),
        console_domu_evtchn: parameter(HVM_PARAM_CONSOLE_EVTCHN) as u32,
        ..StartInfo::default()
    }
}

/// Puts the shared page in place of a page of the image.
fn put_shared_info() {
    let mut argument = AddToPhysmap {
        domid: xen::DOMID_SELF,
        space: XENMAPSPACE_SHARED_INFO,
        gpfn: ((shared::shared_info_addr() - IMAGE_BASE) >> 12) as u64,
        ..AddToPhysmap::default()
    };
    // SAFETY: the page is kept for this purpose, and nothing is in it.
    let put = unsafe { hypercall::operation(xen::HYPERVISOR_MEMORY_OP, XENMEM_ADD_TO_PHYSMAP, &mut argument) };
    put.expect("the shared page can be put");
}
