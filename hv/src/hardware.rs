//! The seam: all that the library asks of a machine.
//!
//! The binary implements [`Machine`] with the CPU; host tests implement it with [`crate::fake::FakeMachine`], whose
//! memory remembers. Nothing here decides anything about a guest: a method does what it is told, and every address it
//! is given was checked, except guest virtual addresses, which it checks itself and may find unmapped.

use pv_abi::{MachineAddr, Mfn};
use zerocopy::{FromBytes, IntoBytes};

use crate::domain::VcpuState;

/// Guest memory that could not be read or written at this virtual address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GuestFault(pub u64);

/// A CPU, counted from zero in the order they were started.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CpuId(pub u32);

/// How many CPUs there can be.
pub const MAX_CPUS: usize = 64;

/// Some CPUs, a bit each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CpuSet(pub u64);

impl CpuSet {
    /// All CPUs that there could be.
    pub const ALL: Self = Self(u64::MAX);

    /// One CPU.
    #[inline]
    #[must_use]
    pub const fn of(cpu: CpuId) -> Self {
        Self(1 << cpu.0)
    }

    /// The first `count` CPUs.
    #[must_use]
    pub const fn first(count: u32) -> Self {
        if count as usize >= MAX_CPUS { Self::ALL } else { Self((1 << count) - 1) }
    }

    /// Whether there are none.
    #[inline]
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Whether a CPU is among them.
    #[inline]
    #[must_use]
    pub const fn contains(self, cpu: CpuId) -> bool {
        self.0 >> cpu.0 & 1 != 0
    }

    /// All but one.
    #[must_use]
    pub const fn without(self, cpu: CpuId) -> Self {
        Self(self.0 & !Self::of(cpu).0)
    }

    /// Each of them, lowest first.
    pub fn iter(self) -> impl Iterator<Item = CpuId> {
        let mut left = self.0;
        core::iter::from_fn(move || {
            let cpu = (left != 0).then(|| CpuId(left.trailing_zeros()));
            left &= left.wrapping_sub(1);
            cpu
        })
    }
}

impl FromIterator<CpuId> for CpuSet {
    fn from_iter<T: IntoIterator<Item = CpuId>>(cpus: T) -> Self {
        cpus.into_iter().fold(Self::default(), |set, cpu| set | Self::of(cpu))
    }
}

impl core::ops::BitOr for CpuSet {
    type Output = Self;
    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl core::ops::BitAnd for CpuSet {
    type Output = Self;
    fn bitand(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }
}

/// What to forget of cached translations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flush {
    /// The page at this address, in the address space that is loaded.
    Page(u64),
    /// Everything, global translations included.
    All,
}

/// The system's time, as `vcpu_time_info` has it: `ns = (((tsc - start) << shift) * mul) >> 32` (a negative shift goes
/// right). It is the same on all CPUs and for ever.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimeScale {
    /// `tsc_to_system_mul`.
    pub mul: u32,
    /// `tsc_shift`.
    pub shift: i8,
    /// Ticks a millisecond.
    pub khz: u32,
    /// The time-stamp counter at system time zero.
    pub start: u64,
    /// No CPU's counter is behind another's, nor will be.
    pub stable: bool,
}

/// The results of `CPUID`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs, reason = "a register's name is its documentation")]
pub struct CpuidResult {
    pub eax: u32,
    pub ebx: u32,
    pub ecx: u32,
    pub edx: u32,
}

/// How a physical interrupt line is wired (ACPI MADT §5.2.12.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LineMode {
    /// Level-triggered rather than edge-triggered.
    pub level: bool,
    /// Active low rather than active high.
    pub low: bool,
}

/// What ends the machine's work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PowerAction {
    /// Switch off.
    Off,
    /// Start again.
    Reboot,
}

/// A CPU and its board, as the library sees them.
///
/// Frames: `mfn` is always below [`Machine::frame_count`]; words are 8 bytes and aligned; each word access is one
/// atomic access, sequentially consistent for read-modify-write and at least relaxed-with-acquire/release otherwise.
pub trait Machine: Sync + Sized + 'static {
    /// One more than the highest machine frame number that has a frame-table entry.
    fn frame_count(&self) -> u64;
    /// Reads word `index` (below 512) of a frame.
    fn read_word(&self, mfn: Mfn, index: usize) -> u64;
    /// Writes word `index` (below 512) of a frame.
    fn write_word(&self, mfn: Mfn, index: usize, value: u64);
    /// Compares and exchanges word `index` of a frame.
    ///
    /// # Errors
    /// The value that was there instead of `current`.
    fn compare_exchange_word(&self, mfn: Mfn, index: usize, current: u64, new: u64) -> Result<u64, u64>;
    /// Compares and exchanges the 32-bit half at `index` (below 1024) of a frame.
    ///
    /// # Errors
    /// The value that was there instead of `current`.
    fn compare_exchange_half(&self, mfn: Mfn, index: usize, current: u32, new: u32) -> Result<u32, u32>;
    /// Writes the 32-bit half at `index` (below 1024) of a frame.
    fn write_half(&self, mfn: Mfn, index: usize, value: u32);
    /// Sets `bits` in word `index`; gives the word as it was.
    fn fetch_or_word(&self, mfn: Mfn, index: usize, bits: u64) -> u64;
    /// Keeps only `bits` in word `index`; gives the word as it was.
    fn fetch_and_word(&self, mfn: Mfn, index: usize, bits: u64) -> u64;
    /// Reads the byte at `offset` (below 4096).
    fn read_byte(&self, mfn: Mfn, offset: usize) -> u8;
    /// Writes the byte at `offset`; gives the byte as it was (one atomic exchange).
    fn swap_byte(&self, mfn: Mfn, offset: usize, value: u8) -> u8;
    /// Copies out of a frame; `offset + into.len()` is at most 4096. Not atomic.
    fn read_bytes(&self, mfn: Mfn, offset: usize, into: &mut [u8]);
    /// Copies into a frame; `offset + from.len()` is at most 4096. Not atomic.
    fn write_bytes(&self, mfn: Mfn, offset: usize, from: &[u8]);
    /// Fills a frame with zeroes.
    fn clear_frame(&self, mfn: Mfn);
    /// Copies between frames; both ranges end at most at 4096. Not atomic.
    fn copy_bytes(&self, to: Mfn, to_offset: usize, from: Mfn, from_offset: usize, len: usize);

    /// Reads guest memory through the address space that is loaded.
    ///
    /// # Errors
    /// The first address that is not the guest's or not mapped.
    fn copy_from_guest(&self, from: u64, into: &mut [u8]) -> Result<(), GuestFault>;
    /// Reads a value from guest memory through the address space that is loaded.
    ///
    /// # Errors
    /// As [`Machine::copy_from_guest`].
    #[inline]
    fn read_from_guest<T: FromBytes + IntoBytes>(&self, from: u64) -> Result<T, GuestFault> {
        let mut value = T::new_zeroed();
        self.copy_from_guest(from, value.as_mut_bytes())?;
        Ok(value)
    }
    /// Writes guest memory through the address space that is loaded.
    ///
    /// # Errors
    /// The first address that is not the guest's, not mapped or not writable.
    fn copy_to_guest(&self, to: u64, from: &[u8]) -> Result<(), GuestFault>;

    /// The CPU this runs on.
    fn cpu(&self) -> CpuId;
    /// How many CPUs run.
    fn cpu_count(&self) -> u32;
    /// The numbers that the firmware has for a CPU, its local APIC's and ACPI's; all ones where there is no such CPU.
    fn firmware_ids(&self, cpu: CpuId) -> [u32; 2];
    /// Interrupts another CPU, so that it looks at what is due there ([`crate::entry::on_kick`]).
    fn interrupt_cpu(&self, cpu: CpuId);
    /// Loads an L4 table that carries the hypervisor's slots; forgets the non-global translations of the old one.
    fn load_root(&self, l4: Mfn);
    /// Loads a root table that is no guest's, and forgets all translations: this CPU has nobody to run, and guests' tables
    /// may go away.
    fn leave_guest(&self);
    /// Writes the hypervisor's own L4 slots (256–271) into a table that is about to become one.
    fn fill_hypervisor_slots(&self, l4: Mfn);
    /// Forgets translations on this CPU.
    fn flush_tlb(&self, what: Flush);
    /// Forgets translations on some CPUs, and comes back when all have. They answer whatever they do, also while they wait
    /// for a lock that the caller holds.
    fn flush_tlb_on(&self, cpus: CpuSet, what: Flush);
    /// Writes the caches of all CPUs back.
    fn flush_caches(&self);
    /// Records, for the guests to read, which pseudo-physical frame a machine frame is (the machine-to-physical table).
    fn set_m2p(&self, mfn: Mfn, pfn: u64);
    /// What the machine-to-physical table says.
    fn m2p(&self, mfn: Mfn) -> u64;
    /// The frames of the machine-to-physical table, 2 MiB each: frame `n` of the list.
    fn m2p_extent(&self, n: usize) -> Option<Mfn>;

    /// Saves what of `state` is still in the CPU (segments and their bases, FPU, debug registers), when its vCPU stops
    /// running here. General registers are the caller's.
    fn save_context(&self, state: &mut VcpuState);
    /// Loads all of `state` but the general registers into the CPU: root table by mode, descriptor tables, segments and
    /// bases, kernel stack, FPU, debug registers.
    ///
    /// # Errors
    /// A segment register whose selector could not be loaded and now is null.
    fn load_context(&self, state: &mut VcpuState) -> Result<(), BadSelector>;
    /// Loads the guest's descriptor-table frames (a prefix of `state.gdt`) where this vCPU runs.
    fn load_gdt(&self, state: &VcpuState);
    /// Takes all pages of the local-descriptor-table window away, and sets the table's length.
    fn reset_ldt(&self, entries: u32);
    /// Maps `frame` read-only as page `page` (below 16) of the local-descriptor-table window.
    fn map_ldt_page(&self, page: usize, frame: Mfn);
    /// The address range of the local-descriptor-table window of this CPU: a fault here asks for a page.
    fn ldt_window(&self) -> core::ops::Range<u64>;
    /// Switches the running vCPU between guest kernel and guest user: base of GS, root table. `state.kernel_mode` has
    /// just been changed.
    fn toggle_mode(&self, state: &mut VcpuState);
    /// Sets a segment base now: `which` is one of pv-abi's `SEGBASE_*`; for `SEGBASE_GS_USER_SEL` loads the selector.
    fn set_segment_base(&self, state: &mut VcpuState, which: u32, value: u64);
    /// Reads FS base, GS base as the kernel sees it, and GS base as user space sees it.
    fn segment_bases(&self, state: &VcpuState) -> [u64; 3];
    /// Lets the next floating-point instruction of the guest trap, or not (CR0.TS).
    fn set_task_switched(&self, on: bool);
    /// Loads debug register `index` (0–3, 6, 7).
    fn set_debug_register(&self, index: usize, value: u64);
    /// Reads debug register `index` (0–3, 6, 7).
    fn debug_register(&self, index: usize) -> u64;
    /// Loads XCR0; the value was checked.
    fn set_xcr0(&self, value: u64);
    /// Loads the guest-controlled bits of CR4 (TSD, DE, FSGSBASE, OSXSAVE); the value was checked.
    fn set_guest_cr4(&self, value: u64);
    /// Size in bytes of the FPU state area of the features in `xcr0`, 0 for all that this machine has.
    fn fpu_state_size(&self, xcr0: u64) -> usize;

    /// Nanoseconds since start.
    fn now(&self) -> u64;
    /// The time-stamp counter.
    fn tsc(&self) -> u64;
    /// How the counter scales to nanoseconds.
    fn time_scale(&self) -> TimeScale;
    /// Seconds and nanoseconds since 1970 at system time zero.
    fn wall_clock_base(&self) -> (u64, u32);
    /// Asks for a timer interrupt at this system time; `None` for none.
    fn set_deadline(&self, ns: Option<u64>);
    /// Waits, with interrupts on, until one came; returns with interrupts off.
    fn wait_for_interrupt(&self);
    /// Whether an interrupt waits for this CPU (long operations stop then).
    fn interrupt_waiting(&self) -> bool;

    /// `CPUID` of the CPU.
    fn cpuid(&self, leaf: u32, subleaf: u32) -> CpuidResult;
    /// Whether the CPU is Intel's, which has `sysenter` in 64-bit mode.
    fn is_intel(&self) -> bool {
        const GENU: u32 = u32::from_le_bytes(*b"Genu");
        self.cpuid(0, 0).ebx == GENU
    }
    /// Whether guests with hardware assistance can run: AMD SVM with nested paging.
    fn has_hvm(&self) -> bool {
        false
    }
    /// Whether the CPU copies by single bytes as fast as CPUID says (ERMS, FSRM). Emulators do not.
    fn copies_bytes_fast(&self) -> bool {
        true
    }
    /// Reads a model-specific register, unless the CPU refuses.
    fn read_msr(&self, msr: u32) -> Option<u64>;
    /// Writes a model-specific register, unless the CPU refuses.
    fn write_msr(&self, msr: u32, value: u64) -> Option<()>;
    /// Reads 1, 2 or 4 bytes of an I/O port.
    fn read_port(&self, port: u16, bytes: u8) -> u32;
    /// Writes 1, 2 or 4 bytes to an I/O port.
    fn write_port(&self, port: u16, bytes: u8, value: u32);

    /// Reads a dword of a device's memory (aligned; [`Machine::is_device_memory`] holds for it), uncached.
    fn read_device(&self, address: MachineAddr) -> u32;
    /// Writes a dword of a device's memory, uncached.
    fn write_device(&self, address: MachineAddr, value: u32);
    /// Whether a machine address is memory-mapped I/O: neither RAM nor the hypervisor's own registers.
    fn is_device_memory(&self, address: MachineAddr) -> bool;
    /// The machine's memory map: entry `n` as (start, length, E820 type).
    fn memory_map(&self, n: usize) -> Option<(u64, u64, u32)>;
    /// Routes a global system interrupt to this CPU as physical interrupt `gsi`, masked.
    fn route_line(&self, gsi: u32, mode: LineMode) -> bool;
    /// Masks or unmasks a routed global system interrupt.
    fn mask_line(&self, gsi: u32, masked: bool);
    /// Gives a vector for message-signalled interrupt `slot`: the (address, data) a device must write.
    fn route_message(&self, slot: u32) -> Option<(u64, u32)>;
    /// How many global system interrupts there are.
    fn line_count(&self) -> u32;

    /// Says something on the serial console. It may go out later, and what finds no room is lost.
    fn console_write(&self, bytes: &[u8]);
    /// Sends a bounded piece of what was written and has not gone out; whether nothing is left.
    fn console_send(&self) -> bool;
    /// Takes what was typed on the serial console.
    fn console_read(&self, into: &mut [u8]) -> usize;
    /// Ends the machine's work.
    fn power(&self, action: PowerAction) -> !;
}

/// A segment register of a vCPU that could not be loaded; the failsafe callback is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadSelector;
