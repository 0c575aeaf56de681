//! Other vCPUs of the guest, each on a stack of its own.

use core::cell::UnsafeCell;
use core::sync::atomic::{AtomicU32, Ordering};

use pv_abi::arch::{FLAT_KERNEL_CS, FLAT_KERNEL_SS64, VGCF_IN_KERNEL, VcpuGuestContext, xen_pfn_to_cr3};
use pv_abi::vcpu::{VCPUOP_INITIALISE, VCPUOP_UP};
use pv_abi::xen::HYPERVISOR_VCPU_OP;

use crate::{hypercall, mfn_of, start_info};

/// vCPUs that a test can have.
pub const MAX_VCPUS: usize = 4;
const STACK: usize = 16 << 10;

#[repr(C, align(4096))]
struct Stacks(UnsafeCell<[[u8; STACK]; MAX_VCPUS]>);
// SAFETY: Each vCPU uses its own part.
unsafe impl Sync for Stacks {}
static STACKS: Stacks = Stacks(UnsafeCell::new([[0; STACK]; MAX_VCPUS]));

struct Context(UnsafeCell<Option<VcpuGuestContext>>);
// SAFETY: Only the first vCPU starts others, one after the other.
unsafe impl Sync for Context {}
static CONTEXT: Context = Context(UnsafeCell::new(None));

/// The number of the vCPU that asks, by the stack that it is on.
#[inline(always)]
#[must_use]
pub fn this_vcpu() -> usize {
    let here = 0_u8;
    let offset = (&raw const here as u64).wrapping_sub(STACKS.0.get() as u64);
    let index = offset / STACK as u64;
    if index < MAX_VCPUS as u64 { index as usize } else { 0 }
}

/// `vcpu_op`.
pub fn vcpu_op<T>(command: u32, vcpu: u32, argument: &mut T) -> i64 {
    hypercall(HYPERVISOR_VCPU_OP, [u64::from(command), u64::from(vcpu), core::ptr::from_mut(argument) as u64, 0, 0])
}

/// Gives a vCPU a context in which it calls `main` with its number.
pub fn initialise(vcpu: u32, main: extern "C" fn(u32) -> !) -> i64 {
    // SAFETY: Only the first vCPU does this.
    let context = unsafe { &mut *CONTEXT.0.get() }.insert(VcpuGuestContext::default());
    context.flags = VGCF_IN_KERNEL;
    context.user_regs.rip = main as *const () as u64;
    context.user_regs.rdi = vcpu.into();
    context.user_regs.rsp = STACKS.0.get() as u64 + (STACK * (vcpu as usize + 1)) as u64 - 8;
    context.user_regs.cs = FLAT_KERNEL_CS;
    context.user_regs.ss = FLAT_KERNEL_SS64;
    context.user_regs.rflags = 0x202;
    context.kernel_ss = FLAT_KERNEL_SS64.into();
    context.kernel_sp = context.user_regs.rsp;
    context.ctrlreg[3] = xen_pfn_to_cr3(mfn_of(start_info().pt_base));
    vcpu_op(VCPUOP_INITIALISE, vcpu, context)
}

/// Lets a vCPU run.
pub fn bring_up(vcpu: u32) -> i64 {
    hypercall(HYPERVISOR_VCPU_OP, [u64::from(VCPUOP_UP), u64::from(vcpu), 0, 0, 0])
}

/// A line that vCPUs cross together.
#[derive(Debug)]
pub struct Meeting(AtomicU32);

impl Meeting {
    /// Nobody is there.
    #[must_use]
    pub const fn new() -> Self {
        Self(AtomicU32::new(0))
    }

    /// Waits until `count` vCPUs are there.
    pub fn wait(&self, count: u32) {
        let own = self.0.fetch_add(1, Ordering::SeqCst);
        let all = (own / count + 1) * count;
        while self.0.load(Ordering::SeqCst) < all {
            core::hint::spin_loop();
        }
    }
}

impl Default for Meeting {
    fn default() -> Self {
        Self::new()
    }
}
