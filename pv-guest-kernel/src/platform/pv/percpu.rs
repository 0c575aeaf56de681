//! What each vCPU has of its own, reached through the GS base.
//!
//! In kernel mode GS points to the vCPU's [`Block`]; user mode has a GS base of its own, and Xen exchanges the two as it
//! changes the mode. The block starts with the vCPU's vcpu_info, which Xen is told to keep there
//! (`VCPUOP_register_vcpu_info`): the event mask is then one instruction away (`mov byte ptr gs:[1], 1`), and the thread
//! that executes it cannot be moved to another vCPU in its midst. For vCPUs beyond the 32nd there is no other place.
#![expect(unsafe_code, reason = "reaches memory through GS")]

use core::arch::asm;
use core::cell::UnsafeCell;
use core::mem::offset_of;
use core::sync::atomic::{AtomicU64, Ordering};

use pv_abi::arch::SEGBASE_GS_KERNEL;
use pv_abi::errno::Errno;
use pv_abi::vcpu::{VCPUOP_REGISTER_VCPU_INFO, VcpuRegisterVcpuInfo};
use pv_abi::xen::{self, VcpuInfoAtomic};

use super::{hypercall, p2m};
use crate::cpus::MAX_CPUS;
use crate::mm::{IMAGE_BASE, PAGE_SIZE, Pfn};

/// Words of a vCPU mask: as many as Xen may read for the largest domain (8,192 vCPUs). Only the first is ever set.
const MASK_WORDS: usize = 128;

/// One vCPU's own.
#[repr(C, align(128))]
pub(in crate::platform) struct Block {
    /// Must be first: `entry.s` and the flag functions below know its offsets.
    pub(super) vcpu_info: VcpuInfoAtomic,
    /// This block's address.
    this: AtomicU64,
    /// The vCPU's number.
    number: AtomicU64,
    /// The user top-level table that Xen was told last, after it was told; 0 for none.
    pub(super) user_root: AtomicU64,
    /// Another vCPU wants this one to let go of its user table.
    pub(super) unload_wanted: AtomicU64,
    /// The mask of a flush that is being made.
    flush_mask: UnsafeCell<[u64; MASK_WORDS]>,
}

// SAFETY: all fields but `flush_mask` are atomic; that one is touched by its own vCPU only, with events masked.
unsafe impl Sync for Block {}

const _: () = assert!(offset_of!(Block, vcpu_info) == 0);
const _: () = assert!(PAGE_SIZE.is_multiple_of(align_of::<Block>()), "vcpu_info does not cross a page");
const THIS: usize = offset_of!(Block, this);
const NUMBER: usize = offset_of!(Block, number);

// SAFETY: a block is made of integers, for which zeros are good values.
static BLOCKS: [Block; MAX_CPUS] = [const { unsafe { core::mem::zeroed() } }; MAX_CPUS];

/// The block of a vCPU.
pub(in crate::platform) fn block(cpu: usize) -> &'static Block {
    &BLOCKS[cpu]
}

/// Where GS of a vCPU points in kernel mode.
pub(in crate::platform) fn prepare(cpu: usize) -> u64 {
    let block = block(cpu);
    let addr = core::ptr::from_ref(block) as u64;
    block.this.store(addr, Ordering::Relaxed);
    block.number.store(cpu as u64, Ordering::Relaxed);
    addr
}

/// Points GS of the first vCPU to its block. Nothing that asks for the current vCPU runs before.
pub(super) fn init_first() {
    // Masked until Xen's own vcpu_info takes this place.
    block(0).vcpu_info.evtchn_upcall_mask.store(1, Ordering::Relaxed);
    let args = [u64::from(SEGBASE_GS_KERNEL), prepare(0), 0, 0, 0];
    // SAFETY: the address is that of a block that lives for ever; nothing else uses GS.
    unsafe { hypercall::call(xen::HYPERVISOR_SET_SEGMENT_BASE, args) }.expect("xen sets the GS base");
}

/// Tells Xen to keep the vcpu_info of `cpu` in its block: this vCPU's, or that of one that is down.
///
/// # Errors
/// `EINVAL` when it was told before.
pub(in crate::platform) fn register(cpu: usize) -> Result<(), Errno> {
    let addr = core::ptr::from_ref(block(cpu)) as usize;
    let pfn = Pfn((addr - IMAGE_BASE) as u64 / PAGE_SIZE as u64);
    let info = VcpuRegisterVcpuInfo { mfn: p2m::mfn_of(pfn).0, offset: (addr % PAGE_SIZE) as u32, rsvd: 0 };
    let args = [u64::from(VCPUOP_REGISTER_VCPU_INFO), cpu as u64, core::ptr::from_ref(&info) as u64, 0, 0];
    // SAFETY: Xen writes to the block, all of whose shared fields are atomic.
    unsafe { hypercall::call(xen::HYPERVISOR_VCPU_OP, args) }.map(|_| ())
}

/// This vCPU's number. It stays so only while events are masked.
#[inline]
pub(in crate::platform) fn number() -> usize {
    let number: usize;
    // SAFETY: GS points to a block from the first moment on.
    unsafe { asm!("mov {}, gs:[{}]", out(reg) number, const NUMBER, options(nostack, readonly, preserves_flags)) };
    number
}

/// This vCPU's block. Events are masked, or the caller does not mind another vCPU's.
#[inline]
pub(super) fn this() -> &'static Block {
    let addr: *const Block;
    // SAFETY: as above.
    unsafe { asm!("mov {}, gs:[{}]", out(reg) addr, const THIS, options(nostack, readonly, preserves_flags)) };
    // SAFETY: `prepare` stored the address of a block, which lives for ever.
    unsafe { &*addr }
}

/// Masks events; says whether they were unmasked.
#[inline]
pub(super) fn mask_events() -> bool {
    let before: u8;
    // A thread that finds its events unmasked may be moved to another vCPU before it masks them; there they were
    // unmasked too.
    // SAFETY: GS points to this vCPU's vcpu_info; byte 1 is the mask.
    unsafe {
        asm!("mov {}, gs:[1]", "mov byte ptr gs:[1], 1", out(reg_byte) before, options(nostack, preserves_flags))
    };
    before == 0
}

/// Unmasks events; says whether one is pending, which only a hypercall delivers.
#[inline]
#[must_use]
pub(super) fn unmask_events() -> bool {
    let pending: u8;
    // SAFETY: GS points to this vCPU's vcpu_info; byte 1 is the mask, byte 0 says "pending".
    unsafe {
        asm!("mov byte ptr gs:[1], 0", "mov {}, gs:[0]", out(reg_byte) pending, options(nostack, preserves_flags))
    };
    pending != 0
}

/// Calls `action` with the address of a mask of vCPUs, as Xen wants it. Events are masked.
pub(super) fn with_mask<R>(cpus: u64, action: impl FnOnce(u64) -> R) -> R {
    let mask = this().flush_mask.get();
    // SAFETY: this vCPU's own, and events are masked.
    unsafe { (*mask)[0] = cpus };
    action(mask as u64)
}
