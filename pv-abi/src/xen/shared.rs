//! The page that the hypervisor shares with a domain: event bits, time, wall clock.
//!
//! Both sides write here while the other runs. The plain structs give the layout and serve for whole copies; the
//! `…Atomic` views have the same layout with atomic fields, and each field says who writes it.
//!
//! Xen: `public/xen.h`, `public/arch-x86/xen.h`.

use core::mem::{align_of, offset_of, size_of};
use core::sync::atomic::{AtomicI8, AtomicU8, AtomicU32, AtomicU64};

use crate::arch::{ArchSharedInfo, ArchVcpuInfo};
use crate::layout::{atomics, constants, structs};

constants! {
    header "xen.h";
    /// Number of `vcpu_info` in the shared page; further vCPUs register theirs elsewhere.
    pub const XEN_LEGACY_MAX_VCPUS: u32 = 32;
    /// In `flags` of [`VcpuTimeInfo`]: the time stamps of all vCPUs agree.
    pub const XEN_PVCLOCK_TSC_STABLE_BIT: u8 = 1;
    /// In `flags` of [`VcpuTimeInfo`]: the guest was stopped by its host.
    pub const XEN_PVCLOCK_GUEST_STOPPED: u8 = 2;
}

structs! {
    header "xen.h";

    /// How to turn a time stamp of the CPU into system time (ns since the machine started).
    ///
    /// `system_time + (((tsc - tsc_timestamp) << tsc_shift) * tsc_to_system_mul) >> 32`, with a negative shift to the right.
    /// Read `version`, then the rest, then `version` again; an odd or a changed number means to read anew.
    pub struct VcpuTimeInfo ["struct vcpu_time_info"] {
        /// Odd while the hypervisor is writing.
        pub version: u32,
        /// Padding.
        pub _pad0: u32,
        /// The CPU's time stamp counter at `system_time`.
        pub tsc_timestamp: u64,
        /// System time at `tsc_timestamp`, in ns.
        pub system_time: u64,
        /// ns for each (shifted) tick, as a fraction of 2^32.
        pub tsc_to_system_mul: u32,
        /// Shift applied to ticks first; negative is to the right.
        pub tsc_shift: i8,
        /// `XEN_PVCLOCK_*`.
        pub flags: u8,
        /// Padding.
        pub _pad1: [u8; 2],
    }

    /// What the hypervisor shares with one vCPU.
    pub struct VcpuInfo ["struct vcpu_info"] {
        /// Not zero: an event waits. Hypervisor sets, guest clears.
        pub evtchn_upcall_pending: u8,
        /// Not zero: no upcall now, the vCPU's interrupt flag negated. Guest writes; hypervisor sets it on an upcall.
        pub evtchn_upcall_mask: u8,
        /// Padding.
        pub _pad0: [u8; 6],
        /// One bit for each word of `evtchn_pending` that has a bit. Hypervisor sets, guest clears.
        pub evtchn_pending_sel: u64,
        /// The faulting address.
        pub arch: ArchVcpuInfo,
        /// The time. Hypervisor writes.
        pub time: VcpuTimeInfo,
    }

    /// The page the hypervisor shares with a domain. [`StartInfo::shared_info`](crate::xen::StartInfo) is its address.
    pub struct SharedInfo ["struct shared_info"] {
        /// One for each of the first 32 vCPUs.
        pub vcpu_info: [VcpuInfo; XEN_LEGACY_MAX_VCPUS as usize],
        /// One bit for each port: an event is pending. Hypervisor sets, guest clears.
        pub evtchn_pending: [u64; 64],
        /// One bit for each port: no notification now. Guest writes.
        pub evtchn_mask: [u64; 64],
        /// Odd while the wall clock is being written. Hypervisor writes.
        pub wc_version: u32,
        /// Wall clock at system time 0: seconds since 1970-01-01 UTC, low word. Hypervisor writes.
        pub wc_sec: u32,
        /// … and nanoseconds. Hypervisor writes.
        pub wc_nsec: u32,
        /// … and the seconds' high word. Hypervisor writes.
        pub wc_sec_hi: u32,
        /// The guest's frame lists.
        pub arch: ArchSharedInfo,
    }
}

/// [`VcpuTimeInfo`] with atomic fields. The hypervisor writes all of it.
///
/// Xen: `struct vcpu_time_info` in `public/xen.h`.
#[repr(C)]
#[derive(Debug, Default)]
pub struct VcpuTimeInfoAtomic {
    /// Odd while the rest changes.
    pub version: AtomicU32,
    /// Padding.
    pub _pad0: AtomicU32,
    /// The time stamp counter at `system_time`.
    pub tsc_timestamp: AtomicU64,
    /// System time in ns.
    pub system_time: AtomicU64,
    /// ns for each shifted tick, as a fraction of 2^32.
    pub tsc_to_system_mul: AtomicU32,
    /// Shift applied to ticks first.
    pub tsc_shift: AtomicI8,
    /// `XEN_PVCLOCK_*`.
    pub flags: AtomicU8,
    /// Padding.
    pub _pad1: [AtomicU8; 2],
}

/// [`VcpuInfo`] with atomic fields.
///
/// Xen: `struct vcpu_info` in `public/xen.h`.
#[repr(C)]
#[derive(Debug, Default)]
pub struct VcpuInfoAtomic {
    /// Hypervisor sets to 1, guest clears.
    pub evtchn_upcall_pending: AtomicU8,
    /// Guest writes; hypervisor sets to 1 as it delivers an upcall.
    pub evtchn_upcall_mask: AtomicU8,
    /// Padding.
    pub _pad0: [AtomicU8; 6],
    /// Hypervisor sets bits, guest takes them by an exchange with 0.
    pub evtchn_pending_sel: AtomicU64,
    /// The faulting address. Hypervisor writes before it delivers a page fault; the guest may write.
    pub cr2: AtomicU64,
    /// Padding.
    pub _pad1: AtomicU64,
    /// Hypervisor writes.
    pub time: VcpuTimeInfoAtomic,
}

/// [`SharedInfo`] with atomic fields.
///
/// Xen: `struct shared_info` in `public/xen.h`.
#[repr(C)]
#[derive(Debug)]
pub struct SharedInfoAtomic {
    /// One for each of the first 32 vCPUs.
    pub vcpu_info: [VcpuInfoAtomic; XEN_LEGACY_MAX_VCPUS as usize],
    /// Hypervisor sets bits, guest clears them.
    pub evtchn_pending: [AtomicU64; 64],
    /// Guest writes.
    pub evtchn_mask: [AtomicU64; 64],
    /// Hypervisor writes; odd while the wall clock changes.
    pub wc_version: AtomicU32,
    /// Hypervisor writes.
    pub wc_sec: AtomicU32,
    /// Hypervisor writes.
    pub wc_nsec: AtomicU32,
    /// Hypervisor writes.
    pub wc_sec_hi: AtomicU32,
    /// Guest writes: number of frames in its map.
    pub max_pfn: AtomicU64,
    /// Guest writes: root of the frame lists, for tools.
    pub pfn_to_mfn_frame_list_list: AtomicU64,
    /// Hypervisor writes: `XEN_NMIREASON_*`.
    pub nmi_reason: AtomicU64,
    /// Guest writes: page table under which `p2m_vaddr` is valid.
    pub p2m_cr3: AtomicU64,
    /// Guest writes: address of its frame list.
    pub p2m_vaddr: AtomicU64,
    /// Guest writes: odd while the list's tables change.
    pub p2m_generation: AtomicU64,
}

impl Default for SharedInfoAtomic {
    /// All bytes zero.
    fn default() -> Self {
        let zero = || AtomicU64::new(0);
        SharedInfoAtomic {
            vcpu_info: Default::default(),
            evtchn_pending: [const { AtomicU64::new(0) }; 64],
            evtchn_mask: [const { AtomicU64::new(0) }; 64],
            wc_version: AtomicU32::new(0),
            wc_sec: AtomicU32::new(0),
            wc_nsec: AtomicU32::new(0),
            wc_sec_hi: AtomicU32::new(0),
            max_pfn: zero(),
            pfn_to_mfn_frame_list_list: zero(),
            nmi_reason: zero(),
            p2m_cr3: zero(),
            p2m_vaddr: zero(),
            p2m_generation: zero(),
        }
    }
}

impl VcpuInfo {
    /// Offset of `evtchn_upcall_pending`, for assembly.
    pub const UPCALL_PENDING_OFFSET: usize = offset_of!(VcpuInfo, evtchn_upcall_pending);
    /// Offset of `evtchn_upcall_mask`, for assembly.
    pub const UPCALL_MASK_OFFSET: usize = offset_of!(VcpuInfo, evtchn_upcall_mask);
    /// Offset of `evtchn_pending_sel`.
    pub const PENDING_SEL_OFFSET: usize = offset_of!(VcpuInfo, evtchn_pending_sel);
    /// Offset of the faulting address, `arch.cr2`.
    pub const CR2_OFFSET: usize = offset_of!(VcpuInfo, arch);
    /// Offset of `time`.
    pub const TIME_OFFSET: usize = offset_of!(VcpuInfo, time);
}

impl SharedInfo {
    /// Offset of the `vcpu_info` of a vCPU below [`XEN_LEGACY_MAX_VCPUS`].
    pub const fn vcpu_info_offset(vcpu: usize) -> usize {
        offset_of!(SharedInfo, vcpu_info) + vcpu * size_of::<VcpuInfo>()
    }

    /// Offset of `evtchn_pending`.
    pub const EVTCHN_PENDING_OFFSET: usize = offset_of!(SharedInfo, evtchn_pending);
    /// Offset of `evtchn_mask`.
    pub const EVTCHN_MASK_OFFSET: usize = offset_of!(SharedInfo, evtchn_mask);
    /// Offset of `wc_version`; `wc_sec`, `wc_nsec`, `wc_sec_hi` follow, 4 bytes each.
    pub const WC_VERSION_OFFSET: usize = offset_of!(SharedInfo, wc_version);
    /// Offset of `arch`.
    pub const ARCH_OFFSET: usize = offset_of!(SharedInfo, arch);
}

impl VcpuTimeInfo {
    /// System time, in ns, at the time stamp `tsc`; stamps before `tsc_timestamp` count as equal to it.
    ///
    /// Stamps wrap: where Xen emulates a domain's counter, the first `tsc_timestamp` lies before the counter's zero.
    pub const fn system_time_at(&self, tsc: u64) -> u64 {
        let difference = tsc.wrapping_sub(self.tsc_timestamp).cast_signed();
        let ticks = if difference < 0 { 0 } else { difference.cast_unsigned() };
        let shifted = if self.tsc_shift < 0 {
            ticks >> (self.tsc_shift.unsigned_abs() & 63)
        } else {
            ticks << (self.tsc_shift as u32 & 63)
        };
        let ns = (shifted as u128 * self.tsc_to_system_mul as u128) >> 32;
        self.system_time.wrapping_add(ns as u64)
    }
}

atomics! {
    VcpuTimeInfoAtomic ["struct vcpu_time_info"] {
        version, tsc_timestamp, system_time, tsc_to_system_mul, tsc_shift, flags,
    }
    VcpuInfoAtomic ["struct vcpu_info"] {
        evtchn_upcall_pending, evtchn_upcall_mask, evtchn_pending_sel, cr2 ["arch.cr2"], time,
    }
    SharedInfoAtomic ["struct shared_info"] {
        vcpu_info, evtchn_pending, evtchn_mask, wc_version, wc_sec, wc_nsec, wc_sec_hi, max_pfn ["arch.max_pfn"],
        pfn_to_mfn_frame_list_list ["arch.pfn_to_mfn_frame_list_list"], nmi_reason ["arch.nmi_reason"],
        p2m_cr3 ["arch.p2m_cr3"], p2m_vaddr ["arch.p2m_vaddr"], p2m_generation ["arch.p2m_generation"],
    }
}

macro_rules! same_layout {
    ($plain:ty, $atomic:ty; $($field:ident / $other:ident),*) => {
        const _: () = {
            assert!(size_of::<$plain>() == size_of::<$atomic>());
            assert!(align_of::<$plain>() == align_of::<$atomic>());
            $( assert!(offset_of!($plain, $field) == offset_of!($atomic, $other)); )*
        };
    };
}

same_layout!(VcpuTimeInfo, VcpuTimeInfoAtomic; version / version, tsc_timestamp / tsc_timestamp,
    system_time / system_time, tsc_to_system_mul / tsc_to_system_mul, tsc_shift / tsc_shift, flags / flags);
same_layout!(VcpuInfo, VcpuInfoAtomic; evtchn_upcall_pending / evtchn_upcall_pending,
    evtchn_upcall_mask / evtchn_upcall_mask, evtchn_pending_sel / evtchn_pending_sel, arch / cr2, time / time);
same_layout!(SharedInfo, SharedInfoAtomic; vcpu_info / vcpu_info, evtchn_pending / evtchn_pending,
    evtchn_mask / evtchn_mask, wc_version / wc_version, wc_sec / wc_sec, wc_nsec / wc_nsec, wc_sec_hi / wc_sec_hi,
    arch / max_pfn);
same_layout!(ArchVcpuInfo, [AtomicU64; 2];);
same_layout!(ArchSharedInfo, [AtomicU64; 6];);
