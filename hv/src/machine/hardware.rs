//! The library's [`Machine`], done by the CPU and its board.
//!
//! RAM is reached through the map of all RAM ([`direct`]). A word of a frame is shared with guests, who may write it at
//! any time through mappings of their own; so words are atomic, and bytes are copied by instructions the compiler does
//! not look into.

use alloc::vec::Vec;
use core::arch::asm;
use core::arch::x86_64::__cpuid_count;
use core::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering};

use hv::Machine;
use hv::domain::VcpuState;
use hv::hardware::{BadSelector, CpuId, CpuSet, CpuidResult, Flush, GuestFault, LineMode, PowerAction, TimeScale};
use hv::orders::Order;
use pv_abi::{MachineAddr, Mfn};
use spin::Mutex;
use x86_64::instructions::interrupts;
use zerocopy::{FromBytes, IntoBytes};

use super::apic::{IoApics, LocalApic, Signal};
use super::clock::{self, Clock};
use super::cpu::{Cpu, direct};
use super::layout::{DIRECT_MAP, LARGE_PAGE, LDT_WINDOW, M2P_INVALID, PAGE, SLOTS, WINDOW};
use super::multiboot::MemoryRange;
use super::serial::Serial;
use super::vectors::{FIRST_MESSAGE, KICK, MESSAGES};
use super::{context, debug, fixup, fpu, port, power, smp, svm};

/// The serial console; a panic writes here too.
pub(crate) static CONSOLE: Serial = Serial::new();

/// The CPU and its board.
pub(crate) struct Hardware {
    pub(crate) frame_count: u64,
    /// The hypervisor's own root table.
    pub(crate) root: Mfn,
    /// First frame and frames of the machine-to-physical table.
    pub(crate) m2p: (Mfn, u64),
    /// The firmware's memory map.
    pub(crate) memory: Vec<MemoryRange>,
    /// The registers that are the hypervisor's alone: local APIC, I/O APICs.
    pub(crate) own_registers: Vec<u64>,
    /// Whether the CPU is Intel's.
    pub(crate) intel: bool,
    /// Whether copying by single bytes is as fast as CPUID says.
    pub(crate) fast_bytes: bool,
    /// How many bits a physical address has.
    pub(crate) address_bits: u32,
    pub(crate) clock: Clock,
    pub(crate) local_apic: &'static LocalApic,
    /// The CPUs that run: their local APIC's id, and ACPI's number.
    pub(crate) processors: Vec<[u8; 2]>,
    pub(crate) io_apics: IoApics,
    pub(crate) console: &'static Serial,
    /// The line on which the console interrupts.
    pub(crate) console_gsi: Option<u32>,
    pub(crate) device_window: Mutex<DeviceWindow>,
}

/// A page of the hypervisor's that shows one frame of device memory.
pub(crate) struct DeviceWindow {
    /// Where it is.
    pub(crate) address: u64,
    /// Where its page-table entry is.
    pub(crate) entry: u64,
}

impl DeviceWindow {
    fn show(&mut self, address: MachineAddr) -> u64 {
        // Present, writable, write-through, uncached, accessed, dirty, not executable.
        let value = address.0 & !(PAGE - 1) | 0x7b | 1 << 63;
        // SAFETY: the entry is of a table that only this value changes (boot.rs).
        unsafe { (self.entry as *mut u64).write_volatile(value) };
        context::flush_page(self.address);
        self.address + (address.0 & (PAGE - 1))
    }
}

impl Hardware {
    /// The line on which the console interrupts.
    pub(crate) const fn console_line(&self) -> Option<u32> {
        self.console_gsi
    }

    #[inline(always)]
    fn word(mfn: Mfn, index: usize) -> &'static AtomicU64 {
        debug_assert!(index < 512);
        // SAFETY: the trait's callers name frames of RAM and words below 512; all RAM is mapped, and guests' words are
        // only ever accessed atomically.
        unsafe { &*((direct(mfn) + index as u64 * 8) as *const AtomicU64) }
    }

    #[inline(always)]
    fn half(mfn: Mfn, index: usize) -> &'static AtomicU32 {
        debug_assert!(index < 1024);
        // SAFETY: as in `word`.
        unsafe { &*((direct(mfn) + index as u64 * 4) as *const AtomicU32) }
    }

    #[inline(always)]
    fn byte(mfn: Mfn, offset: usize) -> &'static AtomicU8 {
        debug_assert!(offset < 4096);
        // SAFETY: as in `word`.
        unsafe { &*((direct(mfn) + offset as u64) as *const AtomicU8) }
    }

    #[inline(always)]
    fn m2p_entry(&self, mfn: Mfn) -> Option<&'static AtomicU64> {
        let (first, frames) = self.m2p;
        // SAFETY: within the table, whose frames are RAM and used for nothing else.
        (mfn.0 < frames * 512).then(|| unsafe { &*((direct(first) + mfn.0 * 8) as *const AtomicU64) })
    }
}

/// Copies bytes that a guest may be changing.
///
/// # Safety
/// Both ranges are mapped RAM or the hypervisor's own memory, and the target may be written.
#[inline(always)]
unsafe fn copy(to: u64, from: u64, len: usize) {
    // SAFETY: the caller's promise; the instructions make no assumption about who else writes.
    unsafe {
        asm!("rep movsq", "mov rcx, {rest}", "rep movsb", rest = in(reg) len % 8,
            inout("rcx") len / 8 => _, inout("rdi") to => _, inout("rsi") from => _,
            options(nostack, preserves_flags));
    }
}

impl Machine for Hardware {
    fn frame_count(&self) -> u64 {
        self.frame_count
    }

    #[inline(always)]
    fn read_word(&self, mfn: Mfn, index: usize) -> u64 {
        Self::word(mfn, index).load(Ordering::Acquire)
    }

    #[inline(always)]
    fn write_word(&self, mfn: Mfn, index: usize, value: u64) {
        Self::word(mfn, index).store(value, Ordering::Release);
    }

    #[inline(always)]
    fn compare_exchange_word(&self, mfn: Mfn, index: usize, current: u64, new: u64) -> Result<u64, u64> {
        Self::word(mfn, index).compare_exchange(current, new, Ordering::SeqCst, Ordering::SeqCst)
    }

    #[inline(always)]
    fn compare_exchange_half(&self, mfn: Mfn, index: usize, current: u32, new: u32) -> Result<u32, u32> {
        Self::half(mfn, index).compare_exchange(current, new, Ordering::SeqCst, Ordering::SeqCst)
    }

    #[inline(always)]
    fn write_half(&self, mfn: Mfn, index: usize, value: u32) {
        Self::half(mfn, index).store(value, Ordering::Release);
    }

    #[inline(always)]
    fn fetch_or_word(&self, mfn: Mfn, index: usize, bits: u64) -> u64 {
        Self::word(mfn, index).fetch_or(bits, Ordering::SeqCst)
    }

    #[inline(always)]
    fn fetch_and_word(&self, mfn: Mfn, index: usize, bits: u64) -> u64 {
        Self::word(mfn, index).fetch_and(bits, Ordering::SeqCst)
    }

    #[inline(always)]
    fn read_byte(&self, mfn: Mfn, offset: usize) -> u8 {
        Self::byte(mfn, offset).load(Ordering::Acquire)
    }

    #[inline(always)]
    fn swap_byte(&self, mfn: Mfn, offset: usize, value: u8) -> u8 {
        Self::byte(mfn, offset).swap(value, Ordering::SeqCst)
    }

    #[inline]
    fn read_bytes(&self, mfn: Mfn, offset: usize, into: &mut [u8]) {
        assert!(offset + into.len() <= 4096, "a frame has 4096 bytes");
        // SAFETY: the range is within a frame of RAM; `into` may be written.
        unsafe { copy(into.as_mut_ptr() as u64, direct(mfn) + offset as u64, into.len()) };
    }

    #[inline]
    fn write_bytes(&self, mfn: Mfn, offset: usize, from: &[u8]) {
        assert!(offset + from.len() <= 4096, "a frame has 4096 bytes");
        // SAFETY: the range is within a frame of RAM.
        unsafe { copy(direct(mfn) + offset as u64, from.as_ptr() as u64, from.len()) };
    }

    fn clear_frame(&self, mfn: Mfn) {
        // SAFETY: a frame of RAM; the instruction makes no assumption about who else writes.
        unsafe {
            asm!("rep stosq", inout("rcx") 512_u64 => _, inout("rdi") direct(mfn) => _, in("rax") 0_u64,
                options(nostack, preserves_flags));
        }
    }

    fn copy_bytes(&self, to: Mfn, to_offset: usize, from: Mfn, from_offset: usize, len: usize) {
        assert!(to_offset + len <= 4096 && from_offset + len <= 4096, "a frame has 4096 bytes");
        // SAFETY: both ranges are within frames of RAM.
        unsafe { copy(direct(to) + to_offset as u64, direct(from) + from_offset as u64, len) };
    }

    #[inline(always)]
    fn copy_from_guest(&self, from: u64, into: &mut [u8]) -> Result<(), GuestFault> {
        fixup::copy_from_guest(from, into)
    }

    #[inline(always)]
    fn read_from_guest<T: FromBytes + IntoBytes>(&self, from: u64) -> Result<T, GuestFault> {
        fixup::read_from_guest(from)
    }

    #[inline(always)]
    fn copy_to_guest(&self, to: u64, from: &[u8]) -> Result<(), GuestFault> {
        fixup::copy_to_guest(to, from)
    }

    #[inline(always)]
    fn cpu(&self) -> CpuId {
        CpuId(Cpu::current().id)
    }

    #[inline]
    fn cpu_count(&self) -> u32 {
        self.processors.len() as u32
    }

    fn firmware_ids(&self, cpu: CpuId) -> [u32; 2] {
        self.processors.get(cpu.0 as usize).map_or([u32::MAX; 2], |ids| ids.map(u32::from))
    }

    fn interrupt_cpu(&self, cpu: CpuId) {
        self.local_apic.send(self.processors[cpu.0 as usize][0], Signal::Vector(KICK));
    }

    fn load_root(&self, l4: Mfn) {
        context::load_root(l4);
    }

    fn fill_hypervisor_slots(&self, l4: Mfn) {
        for slot in SLOTS {
            self.write_word(l4, slot, self.read_word(self.root, slot));
        }
    }

    fn leave_guest(&self) {
        context::load_root(self.root);
    }

    fn flush_caches(&self) {
        smp::order(self, CpuSet::first(self.cpu_count()), Order::WriteBack);
    }

    fn flush_tlb_on(&self, cpus: CpuSet, what: Flush) {
        smp::order(self, cpus, Order::Forget(what));
    }

    fn flush_tlb(&self, what: Flush) {
        match what {
            Flush::Page(address) => context::flush_page(address),
            Flush::All => context::flush_all(),
        }
    }

    #[inline]
    fn set_m2p(&self, mfn: Mfn, pfn: u64) {
        if let Some(entry) = self.m2p_entry(mfn) {
            entry.store(pfn, Ordering::Relaxed);
        }
    }

    #[inline]
    fn m2p(&self, mfn: Mfn) -> u64 {
        self.m2p_entry(mfn).map_or(M2P_INVALID, |entry| entry.load(Ordering::Relaxed))
    }

    fn m2p_extent(&self, n: usize) -> Option<Mfn> {
        let offset = n as u64 * (LARGE_PAGE / PAGE);
        (offset < self.m2p.1).then_some(Mfn(self.m2p.0.0 + offset))
    }

    fn save_context(&self, state: &mut VcpuState) {
        if state.hvm.is_some() {
            return svm::save(state);
        }
        context::save(state);
    }

    fn load_context(&self, state: &mut VcpuState) -> Result<(), BadSelector> {
        if state.hvm.is_some() {
            context::load_root(self.root);
            svm::load(state);
            return Ok(());
        }
        context::load(state)
    }

    fn load_gdt(&self, state: &VcpuState) {
        context::load_gdt(state);
    }

    fn reset_ldt(&self, entries: u32) {
        context::reset_ldt(entries);
    }

    fn map_ldt_page(&self, page: usize, frame: Mfn) {
        Cpu::current().set_window(16 + page, Some(frame));
    }

    fn ldt_window(&self) -> core::ops::Range<u64> {
        let windows = Cpu::windows(Cpu::current().id);
        windows + LDT_WINDOW..windows + WINDOW
    }

    #[inline]
    fn toggle_mode(&self, state: &mut VcpuState) {
        context::toggle_mode(state);
    }

    fn set_segment_base(&self, state: &mut VcpuState, which: u32, value: u64) {
        context::set_base(state, which, value);
    }

    fn segment_bases(&self, state: &VcpuState) -> [u64; 3] {
        context::bases(state.kernel_mode)
    }

    fn set_task_switched(&self, on: bool) {
        context::set_task_switched(on);
    }

    fn set_debug_register(&self, index: usize, value: u64) {
        debug::write(index, value);
        if index == 7 {
            Cpu::current().debugging.set(value & 0xff != 0);
        }
    }

    fn debug_register(&self, index: usize) -> u64 {
        debug::read(index)
    }

    fn set_xcr0(&self, value: u64) {
        fpu::set_xcr0(value & fpu::features());
    }

    fn set_guest_cr4(&self, value: u64) {
        context::set_guest_cr4(value);
    }

    fn fpu_state_size(&self, xcr0: u64) -> usize {
        fpu::size(xcr0)
    }

    #[inline]
    fn now(&self) -> u64 {
        self.clock.now()
    }

    #[inline(always)]
    fn tsc(&self) -> u64 {
        clock::tsc()
    }

    fn time_scale(&self) -> TimeScale {
        self.clock.scale()
    }

    fn wall_clock_base(&self) -> (u64, u32) {
        (self.clock.wall(), 0)
    }

    fn set_deadline(&self, ns: Option<u64>) {
        match ns {
            Some(ns) => self.local_apic.set_timer(ns.saturating_sub(self.clock.now()), self.clock.tsc_at(ns)),
            None => self.local_apic.stop_timer(),
        }
    }

    fn wait_for_interrupt(&self) {
        interrupts::enable_and_hlt();
        interrupts::disable();
    }

    #[inline]
    fn interrupt_waiting(&self) -> bool {
        self.local_apic.is_waiting()
    }

    fn cpuid(&self, leaf: u32, subleaf: u32) -> CpuidResult {
        let result = __cpuid_count(leaf, subleaf);
        CpuidResult { eax: result.eax, ebx: result.ebx, ecx: result.ecx, edx: result.edx }
    }

    #[inline]
    fn is_intel(&self) -> bool {
        self.intel
    }

    fn has_hvm(&self) -> bool {
        svm::is_on()
    }

    fn copies_bytes_fast(&self) -> bool {
        self.fast_bytes
    }

    fn read_msr(&self, msr: u32) -> Option<u64> {
        fixup::read_msr(msr)
    }

    fn write_msr(&self, msr: u32, value: u64) -> Option<()> {
        fixup::write_msr(msr, value)
    }

    fn read_port(&self, port: u16, bytes: u8) -> u32 {
        match bytes {
            1 => port::read8(port).into(),
            2 => port::read16(port).into(),
            _ => port::read32(port),
        }
    }

    fn write_port(&self, port: u16, bytes: u8, value: u32) {
        match bytes {
            1 => port::write8(port, value as u8),
            2 => port::write16(port, value as u16),
            _ => port::write32(port, value),
        }
    }

    fn is_device_memory(&self, address: MachineAddr) -> bool {
        /// Firmware and its data; none of it is given to guests as RAM.
        const LOW_MEMORY: u64 = 1 << 20;
        let page = address.0 & !(PAGE - 1);
        if page >> self.address_bits != 0 {
            return false;
        }
        let is_ram =
            |range: &MemoryRange| range.kind == MemoryRange::RAM && page < range.end() && page + PAGE > range.start;
        address.0 >> self.address_bits == 0
            && !self.own_registers.contains(&page)
            && (page < LOW_MEMORY || !self.memory.iter().any(is_ram))
    }

    fn read_device(&self, address: MachineAddr) -> u32 {
        let mut window = self.device_window.lock();
        let place = window.show(address);
        // SAFETY: the window shows the device, whose registers may be read by who may map them.
        unsafe { (place as *const u32).read_volatile() }
    }

    fn write_device(&self, address: MachineAddr, value: u32) {
        let mut window = self.device_window.lock();
        let place = window.show(address);
        // SAFETY: the window shows the device, and device memory is not RAM.
        unsafe { (place as *mut u32).write_volatile(value) };
    }

    fn memory_map(&self, n: usize) -> Option<(u64, u64, u32)> {
        self.memory.get(n).map(|range| (range.start, range.length, range.kind))
    }

    fn route_line(&self, gsi: u32, mode: LineMode) -> bool {
        self.console_gsi != Some(gsi) && self.io_apics.route(gsi, mode, Cpu::current().apic_id.get())
    }

    fn mask_line(&self, gsi: u32, masked: bool) {
        if self.console_gsi != Some(gsi) {
            self.io_apics.mask(gsi, masked);
        }
    }

    fn route_message(&self, slot: u32) -> Option<(u64, u32)> {
        let vector = u32::from(FIRST_MESSAGE) + slot;
        let address = 0xfee0_0000 | u64::from(Cpu::current().apic_id.get()) << 12;
        (slot < MESSAGES).then_some((address, vector))
    }

    fn line_count(&self) -> u32 {
        self.io_apics.line_count()
    }

    fn console_write(&self, bytes: &[u8]) {
        self.console.write(bytes);
    }

    fn console_send(&self) -> bool {
        self.console.send()
    }

    fn console_read(&self, into: &mut [u8]) -> usize {
        self.console.read(into)
    }

    fn power(&self, action: PowerAction) -> ! {
        self.console.finish();
        smp::stop_others();
        match action {
            PowerAction::Off => power::off(),
            PowerAction::Reboot => power::reboot(),
        }
    }
}

/// A slice of the RAM that is mapped for the hypervisor.
///
/// # Safety
/// The range is RAM that nobody writes while the slice is used.
pub(crate) unsafe fn bytes(start: u64, len: u64) -> &'static [u8] {
    // SAFETY: all RAM is mapped at `DIRECT_MAP`; the rest is the caller's promise.
    unsafe { core::slice::from_raw_parts((DIRECT_MAP + start) as *const u8, len as usize) }
}
