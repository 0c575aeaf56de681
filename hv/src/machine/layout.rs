//! The hypervisor's part of the address space: slots 256 to 271 of every L4 table.
//!
//! | slot | what | who may |
//! |---|---|---|
//! | 256 | machine-to-physical table | guests read |
//! | 257 | stacks and per-CPU data, with guard pages | |
//! | 258 | device registers, uncached | |
//! | 260 | windows onto the guest's descriptor tables | the CPU, on the guest's behalf |
//! | 261 | the image | |
//! | 262–271 | all RAM | |
//!
//! Source: Xen: public/arch-x86/xen-x86_64.h (`HYPERVISOR_VIRT_START`, `MACH2PHYS_VIRT_START`).

/// First and last slot.
pub(crate) const SLOTS: core::ops::RangeInclusive<usize> = 256..=271;
/// First address that guests may not use.
pub(crate) const HOLE_START: u64 = 0xffff_8000_0000_0000;
/// First address behind it that they may use again.
pub(crate) const HOLE_END: u64 = 0xffff_8800_0000_0000;
/// The machine-to-physical table.
pub(crate) const M2P: u64 = 0xffff_8000_0000_0000;
/// Blocks of stacks and data, one a CPU.
pub(crate) const CPU_BLOCKS: u64 = 0xffff_8080_0000_0000;
/// Device registers.
pub(crate) const DEVICES: u64 = 0xffff_8100_0000_0000;
/// Windows onto descriptor tables, one a CPU.
pub(crate) const WINDOWS: u64 = 0xffff_8200_0000_0000;
/// What is added to a physical address of the image to get its linked one.
pub(crate) const IMAGE_BASE: u64 = 0xffff_82d0_8000_0000;
/// What is added to a physical address of RAM to reach it.
pub(crate) const DIRECT_MAP: u64 = 0xffff_8300_0000_0000;

/// Bytes of a frame.
pub(crate) const PAGE: u64 = 4096;
/// Bytes of the middle page size.
pub(crate) const LARGE_PAGE: u64 = 0x20_0000;

/// Bytes of a CPU's block; a block is aligned to this, so that any address in it leads to the block.
pub(crate) const CPU_BLOCK: u64 = 0x2_0000;
/// Offset in the block of the CPU's data, which is also the top of its main stack.
pub(crate) const CPU_DATA: u64 = 0x1_e000;
/// The stacks of a block: first page, pages. Every other page of a block below [`CPU_DATA`] is a guard.
pub(crate) const STACKS: [(u64, u64); 5] = [(20, 10), (1, 2), (4, 2), (7, 2), (10, 2)];
/// Offset of the top of interrupt stack `index` (1 to 4).
pub(crate) const fn interrupt_stack_top(index: usize) -> u64 {
    let (first, pages) = STACKS[index];
    (first + pages) * PAGE
}

/// Bytes of a CPU's descriptor windows: 16 pages of global table, 16 of local table.
pub(crate) const WINDOW: u64 = 32 * PAGE;
/// Offset of the local table in it.
pub(crate) const LDT_WINDOW: u64 = 16 * PAGE;

/// The machine-to-physical table's entry of a frame that is nobody's.
pub(crate) const M2P_INVALID: u64 = u64::MAX;

/// Selectors of the hypervisor's part of the global table (pages 14 and 15).
pub(crate) mod selector {
    /// The hypervisor's code.
    pub(crate) const CODE: u16 = 0xe008;
    /// The hypervisor's stack.
    pub(crate) const STACK: u16 = 0xe010;
    /// Guests' 32-bit code (`FLAT_RING3_CS32`); `syscall`'s selectors count from here.
    pub(crate) const GUEST_CODE32: u16 = 0xe023;
    /// Guests' data (`FLAT_RING3_SS64`).
    pub(crate) const GUEST_STACK: u16 = 0xe02b;
    /// Guests' 64-bit code (`FLAT_RING3_CS64`).
    pub(crate) const GUEST_CODE64: u16 = 0xe033;
    /// The task state.
    pub(crate) const TASK: u16 = 0xe040;
    /// The local table.
    pub(crate) const LOCAL: u16 = 0xe050;
}
