//! The machine itself.

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, VecDeque};
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use pv_abi::{MachineAddr, Mfn};
use spin::Mutex;

use super::Event;
use crate::domain::VcpuState;
use crate::hardware::{
    BadSelector, CpuId, CpuSet, CpuidResult, Flush, GuestFault, LineMode, Machine, PowerAction, TimeScale,
};

/// Words in a frame.
const WORDS: usize = 512;

/// Bits of page-table entries, and how to make them.
pub mod entry {
    use pv_abi::Mfn;

    /// Present.
    pub const PRESENT: u64 = 1 << 0;
    /// Writable.
    pub const WRITABLE: u64 = 1 << 1;
    /// For user mode.
    pub const USER: u64 = 1 << 2;
    /// The address field.
    pub const FRAME: u64 = 0x000f_ffff_ffff_f000;

    /// A present entry of user mode.
    #[must_use]
    pub const fn to(mfn: Mfn, writable: bool) -> u64 {
        mfn.0 << 12 | PRESENT | USER | if writable { WRITABLE } else { 0 }
    }
}

/// A machine for tests.
pub struct FakeMachine {
    memory: Box<[AtomicU64]>,
    m2p: Box<[AtomicU64]>,
    events: Mutex<Vec<Event>>,
    remember_writes: AtomicBool,
    console_output: Mutex<Vec<u8>>,
    console_input: Mutex<VecDeque<u8>>,
    now: AtomicU64,
    deadline: Mutex<Option<u64>>,
    root: AtomicU64,
    cpu: AtomicU32,
    cpus: u32,
    interrupt_in: AtomicU32,
    msrs: Mutex<BTreeMap<u32, u64>>,
    ports: Mutex<BTreeMap<u16, u32>>,
    device: Mutex<BTreeMap<u64, u32>>,
    config: Mutex<BTreeMap<u32, u32>>,
    config_address: AtomicU32,
    cpuid: Mutex<BTreeMap<(u32, u32), CpuidResult>>,
    slow_bytes: AtomicBool,
    debug: Mutex<[u64; 8]>,
    disturbance: Mutex<Option<Disturbance>>,
    beside: Mutex<Option<Beside>>,
}

/// What others do while the guest's memory is read.
type Beside = Box<dyn Fn() + Send>;

/// Somebody else who writes a word each time it is about to be exchanged.
struct Disturbance {
    place: (Mfn, usize),
    bits: u64,
    times: u32,
}

/// [`FakeMachine::interrupt_in`]: none will come.
const NEVER: u32 = u32::MAX;

impl FakeMachine {
    /// A machine of one CPU with this many frames, all zero.
    #[must_use]
    pub fn new(frames: usize) -> Self {
        Self::with_cpus(frames, 1)
    }

    /// A machine with this many frames and CPUs.
    #[must_use]
    pub fn with_cpus(frames: usize, cpus: u32) -> Self {
        Self {
            memory: (0..frames * WORDS).map(|_| AtomicU64::new(0)).collect(),
            m2p: (0..frames).map(|_| AtomicU64::new(u64::MAX)).collect(),
            events: Mutex::default(),
            remember_writes: AtomicBool::new(false),
            console_output: Mutex::default(),
            console_input: Mutex::default(),
            now: AtomicU64::new(1_000_000_000),
            deadline: Mutex::default(),
            root: AtomicU64::new(u64::MAX),
            cpu: AtomicU32::new(0),
            cpus,
            interrupt_in: AtomicU32::new(NEVER),
            msrs: Mutex::default(),
            ports: Mutex::default(),
            device: Mutex::default(),
            config: Mutex::default(),
            config_address: AtomicU32::new(0),
            cpuid: Mutex::default(),
            slow_bytes: AtomicBool::new(false),
            debug: Mutex::default(),
            disturbance: Mutex::default(),
            beside: Mutex::default(),
        }
    }

    /// What the machine was told to do since the last call, in order.
    pub fn take_events(&self) -> Vec<Event> {
        core::mem::take(&mut *self.events.lock())
    }

    /// From now on every write to memory is an event, or no longer is.
    pub fn remember_writes(&self, on: bool) {
        self.remember_writes.store(on, Ordering::Relaxed);
    }

    /// What was written to the console since the last call.
    pub fn take_console(&self) -> Vec<u8> {
        core::mem::take(&mut *self.console_output.lock())
    }

    /// Types on the console.
    pub fn type_on_console(&self, bytes: &[u8]) {
        self.console_input.lock().extend(bytes);
    }

    /// Sets the time.
    pub fn set_now(&self, ns: u64) {
        self.now.store(ns, Ordering::Relaxed);
    }

    /// Lets time pass.
    pub fn advance(&self, ns: u64) {
        self.now.fetch_add(ns, Ordering::Relaxed);
    }

    /// When the timer interrupt was last asked for.
    pub fn deadline(&self) -> Option<u64> {
        *self.deadline.lock()
    }

    /// Whether the timer interrupt that was asked for is due; it comes once.
    pub fn take_timer_interrupt(&self) -> bool {
        self.deadline.lock().take_if(|at| *at <= self.now()).is_some()
    }

    /// The CPU that the following calls run on.
    pub fn set_cpu(&self, cpu: u32) {
        self.cpu.store(cpu, Ordering::Relaxed);
    }

    /// The root table that is loaded.
    pub fn root(&self) -> Option<Mfn> {
        Some(Mfn(self.root.load(Ordering::Relaxed))).filter(|mfn| mfn.0 != u64::MAX)
    }

    /// The next `calls` questions whether an interrupt waits are answered with no, all later ones with yes; `None`: it
    /// never waits. A long operation that goes on asks again, so with 0 it makes one step at a time.
    pub fn interrupt_after(&self, calls: Option<u32>) {
        self.interrupt_in.store(calls.unwrap_or(NEVER), Ordering::Relaxed);
    }

    /// Lets another writer flip `bits` of a word before each of the next `times` exchanges of it.
    pub fn disturb(&self, mfn: Mfn, index: usize, bits: u64, times: u32) {
        *self.disturbance.lock() = Some(Disturbance { place: (mfn, index), bits, times });
    }

    /// From now on this happens before each time that guest memory is read.
    pub fn before_reads(&self, happens: impl Fn() + Send + 'static) {
        *self.beside.lock() = Some(Box::new(happens));
    }

    fn be_disturbed(&self, mfn: Mfn, index: usize) {
        if let Some(other) = &mut *self.disturbance.lock()
            && other.place == (mfn, index)
            && other.times > 0
        {
            other.times -= 1;
            self.word(mfn, index).fetch_xor(other.bits, Ordering::SeqCst);
        }
    }

    /// Sets what a model-specific register holds; one that was never set refuses.
    pub fn set_msr(&self, msr: u32, value: u64) {
        self.msrs.lock().insert(msr, value);
    }

    /// Sets what a port answers.
    pub fn set_port(&self, port: u16, value: u32) {
        self.ports.lock().insert(port, value);
    }

    /// Puts a dword into the PCI configuration space of a function, which from then on answers at the ports 0xcf8 and
    /// 0xcfc and keeps what is written.
    pub fn set_config(&self, bus: u8, devfn: u8, register: u8, value: u32) {
        let place = 1 << 31 | u32::from(bus) << 16 | u32::from(devfn) << 8 | u32::from(register & 0xfc);
        self.config.lock().insert(place, value);
    }

    fn read_config(&self, port: u16, bytes: u8) -> Option<u32> {
        let offset = port.checked_sub(0xcfc).filter(|offset| *offset < 4)?;
        let place = self.config_address.load(Ordering::Relaxed) & !3;
        let value = self.config.lock().get(&place).copied()? >> (offset * 8);
        Some(if bytes == 4 { value } else { value & ((1 << (u32::from(bytes) * 8)) - 1) })
    }

    fn write_config(&self, port: u16, bytes: u8, value: u32) {
        if port == 0xcf8 && bytes == 4 {
            return self.config_address.store(value, Ordering::Relaxed);
        }
        let Some(offset) = port.checked_sub(0xcfc).filter(|offset| *offset < 4) else {
            return;
        };
        let place = self.config_address.load(Ordering::Relaxed) & !3;
        if let Some(word) = self.config.lock().get_mut(&place) {
            let mask = (u32::MAX >> (32 - u32::from(bytes) * 8)) << (offset * 8);
            *word = *word & !mask | value << (offset * 8) & mask;
        }
    }

    /// Sets what `CPUID` answers.
    pub fn set_cpuid(&self, leaf: u32, subleaf: u32, result: CpuidResult) {
        self.cpuid.lock().insert((leaf, subleaf), result);
    }

    /// Makes copying by single bytes slow, as emulators do.
    pub fn slow_bytes_down(&self) {
        self.slow_bytes.store(true, Ordering::Relaxed);
    }

    fn word(&self, mfn: Mfn, index: usize) -> &AtomicU64 {
        assert!(index < WORDS, "word {index} of a frame");
        &self.memory[mfn.0 as usize * WORDS + index]
    }

    fn remember(&self, event: Event) {
        self.events.lock().push(event);
    }

    fn wrote(&self, mfn: Mfn, index: usize, value: u64) {
        if self.remember_writes.load(Ordering::Relaxed) {
            self.remember(Event::Write(mfn, index, value));
        }
    }

    /// Where a guest address lies, walking the loaded root.
    ///
    /// # Errors
    /// The address, where a level is not present, not for user mode, or not writable and `write` is asked.
    pub fn translate(&self, address: u64, write: bool) -> Result<(Mfn, usize), GuestFault> {
        let fault = GuestFault(address);
        let slot = address >> 39 & 0x1ff;
        let canonical = matches!(address >> 47, 0 | 0x1_ffff);
        if !canonical || (256..272).contains(&slot) {
            return Err(fault);
        }
        let mut table = self.root().ok_or(fault)?;
        for shift in [39, 30, 21, 12] {
            if table.0 >= self.frame_count() {
                return Err(fault);
            }
            let value = self.read_word(table, (address >> shift & 0x1ff) as usize);
            let needed = entry::PRESENT | entry::USER | if write { entry::WRITABLE } else { 0 };
            if value & needed != needed || (shift != 12 && value & 0x80 != 0) {
                return Err(fault);
            }
            table = Mfn((value & entry::FRAME) >> 12);
        }
        if table.0 >= self.frame_count() { Err(fault) } else { Ok((table, (address & 0xfff) as usize)) }
    }

    /// Calls `each` with frame, offset and the part of `0..len` for each piece of a guest range that lies in one frame.
    fn pieces(
        &self,
        address: u64,
        len: usize,
        write: bool,
        mut each: impl FnMut(Mfn, usize, core::ops::Range<usize>),
    ) -> Result<(), GuestFault> {
        let mut done = 0;
        while done < len {
            let (mfn, offset) = self.translate(address.wrapping_add(done as u64), write)?;
            let here = (4096 - offset).min(len - done);
            each(mfn, offset, done..done + here);
            done += here;
        }
        Ok(())
    }
}

impl Machine for FakeMachine {
    fn frame_count(&self) -> u64 {
        self.m2p.len() as u64
    }
    fn read_word(&self, mfn: Mfn, index: usize) -> u64 {
        self.word(mfn, index).load(Ordering::Acquire)
    }
    fn write_word(&self, mfn: Mfn, index: usize, value: u64) {
        self.word(mfn, index).store(value, Ordering::Release);
        self.wrote(mfn, index, value);
    }
    fn compare_exchange_word(&self, mfn: Mfn, index: usize, current: u64, new: u64) -> Result<u64, u64> {
        self.be_disturbed(mfn, index);
        let result = self.word(mfn, index).compare_exchange(current, new, Ordering::SeqCst, Ordering::SeqCst);
        if result.is_ok() {
            self.wrote(mfn, index, new);
        }
        result
    }
    fn compare_exchange_half(&self, mfn: Mfn, index: usize, current: u32, new: u32) -> Result<u32, u32> {
        let shift = (index & 1) * 32;
        loop {
            let whole = self.read_word(mfn, index / 2);
            let half = (whole >> shift) as u32;
            if half != current {
                return Err(half);
            }
            let changed = whole & !(0xffff_ffff << shift) | u64::from(new) << shift;
            if self.compare_exchange_word(mfn, index / 2, whole, changed).is_ok() {
                return Ok(half);
            }
        }
    }
    fn write_half(&self, mfn: Mfn, index: usize, value: u32) {
        let shift = (index & 1) * 32;
        let with_half = |whole: u64| whole & !(0xffff_ffff << shift) | u64::from(value) << shift;
        let update = |whole| Some(with_half(whole));
        let old = self.word(mfn, index / 2).fetch_update(Ordering::SeqCst, Ordering::SeqCst, update);
        self.wrote(mfn, index / 2, old.map(with_half).unwrap_or_default());
    }
    fn fetch_or_word(&self, mfn: Mfn, index: usize, bits: u64) -> u64 {
        let old = self.word(mfn, index).fetch_or(bits, Ordering::SeqCst);
        self.wrote(mfn, index, old | bits);
        old
    }
    fn fetch_and_word(&self, mfn: Mfn, index: usize, bits: u64) -> u64 {
        let old = self.word(mfn, index).fetch_and(bits, Ordering::SeqCst);
        self.wrote(mfn, index, old & bits);
        old
    }
    fn read_byte(&self, mfn: Mfn, offset: usize) -> u8 {
        (self.read_word(mfn, offset / 8) >> (offset % 8 * 8)) as u8
    }
    fn swap_byte(&self, mfn: Mfn, offset: usize, value: u8) -> u8 {
        let shift = offset % 8 * 8;
        loop {
            let whole = self.read_word(mfn, offset / 8);
            let changed = whole & !(0xff << shift) | u64::from(value) << shift;
            if self.compare_exchange_word(mfn, offset / 8, whole, changed).is_ok() {
                return (whole >> shift) as u8;
            }
        }
    }
    fn read_bytes(&self, mfn: Mfn, offset: usize, into: &mut [u8]) {
        assert!(offset + into.len() <= 4096, "a read that leaves its frame");
        for (n, byte) in into.iter_mut().enumerate() {
            *byte = self.read_byte(mfn, offset + n);
        }
    }
    fn write_bytes(&self, mfn: Mfn, offset: usize, from: &[u8]) {
        assert!(offset + from.len() <= 4096, "a write that leaves its frame");
        for (n, byte) in from.iter().enumerate() {
            self.swap_byte(mfn, offset + n, *byte);
        }
    }
    fn clear_frame(&self, mfn: Mfn) {
        (0..WORDS).for_each(|index| self.word(mfn, index).store(0, Ordering::Release));
    }
    fn copy_bytes(&self, to: Mfn, to_offset: usize, from: Mfn, from_offset: usize, len: usize) {
        let mut bytes = [0; 4096];
        self.read_bytes(from, from_offset, &mut bytes[..len]);
        self.write_bytes(to, to_offset, &bytes[..len]);
    }

    fn copy_from_guest(&self, from: u64, into: &mut [u8]) -> Result<(), GuestFault> {
        if let Some(happens) = &*self.beside.lock() {
            happens();
        }
        self.pieces(from, into.len(), false, |mfn, offset, part| self.read_bytes(mfn, offset, &mut into[part]))
    }
    fn copy_to_guest(&self, to: u64, from: &[u8]) -> Result<(), GuestFault> {
        self.pieces(to, from.len(), true, |mfn, offset, part| self.write_bytes(mfn, offset, &from[part]))
    }

    fn cpu(&self) -> CpuId {
        CpuId(self.cpu.load(Ordering::Relaxed))
    }
    fn cpu_count(&self) -> u32 {
        self.cpus
    }
    fn load_root(&self, l4: Mfn) {
        self.root.store(l4.0, Ordering::Relaxed);
        self.remember(Event::LoadRoot(l4));
    }
    fn fill_hypervisor_slots(&self, l4: Mfn) {
        (256..272).for_each(|slot| self.write_word(l4, slot, entry::PRESENT));
    }
    fn firmware_ids(&self, cpu: CpuId) -> [u32; 2] {
        if cpu.0 < self.cpus { [cpu.0 * 2, cpu.0 + 1] } else { [u32::MAX; 2] }
    }
    fn interrupt_cpu(&self, cpu: CpuId) {
        assert_ne!(cpu, self.cpu(), "a CPU does not interrupt itself");
        self.remember(Event::Interrupt(cpu));
    }
    fn leave_guest(&self) {
        self.root.store(u64::MAX, Ordering::Relaxed);
    }
    fn flush_tlb(&self, what: Flush) {
        self.remember(Event::Flush(what));
    }
    fn flush_tlb_on(&self, cpus: CpuSet, what: Flush) {
        if !cpus.is_empty() {
            self.remember(Event::Flush(what));
        }
    }
    fn flush_caches(&self) {}
    fn set_m2p(&self, mfn: Mfn, pfn: u64) {
        self.m2p[mfn.0 as usize].store(pfn, Ordering::Relaxed);
    }
    fn m2p(&self, mfn: Mfn) -> u64 {
        self.m2p[mfn.0 as usize].load(Ordering::Relaxed)
    }
    fn m2p_extent(&self, _n: usize) -> Option<Mfn> {
        None
    }

    fn save_context(&self, state: &mut VcpuState) {
        state.fpu_loaded = false;
    }
    fn load_context(&self, state: &mut VcpuState) -> Result<(), BadSelector> {
        let root = if state.kernel_mode { state.kernel_root } else { state.user_root };
        if let Some(root) = root {
            self.load_root(root);
        }
        state.fpu_loaded = true;
        Ok(())
    }
    fn load_gdt(&self, _state: &VcpuState) {
        self.remember(Event::LoadGdt);
    }
    fn reset_ldt(&self, entries: u32) {
        self.remember(Event::ResetLdt(entries));
    }
    fn map_ldt_page(&self, page: usize, frame: Mfn) {
        self.remember(Event::MapLdt(page, frame));
    }
    fn ldt_window(&self) -> core::ops::Range<u64> {
        0xffff_8280_0000_0000..0xffff_8280_0001_0000
    }
    fn toggle_mode(&self, state: &mut VcpuState) {
        let root = if state.kernel_mode { state.kernel_root } else { state.user_root };
        if let Some(root) = root {
            self.load_root(root);
        }
    }
    fn set_segment_base(&self, state: &mut VcpuState, which: u32, value: u64) {
        match which {
            pv_abi::arch::SEGBASE_FS => state.segments.fs_base = value,
            pv_abi::arch::SEGBASE_GS_USER => state.segments.gs_base_user = value,
            pv_abi::arch::SEGBASE_GS_KERNEL => state.segments.gs_base_kernel = value,
            _ => state.segments.gs = value as u16,
        }
        self.remember(Event::SegmentBase(which, value));
    }
    fn segment_bases(&self, state: &VcpuState) -> [u64; 3] {
        [state.segments.fs_base, state.segments.gs_base_kernel, state.segments.gs_base_user]
    }
    fn set_task_switched(&self, on: bool) {
        self.remember(Event::TaskSwitched(on));
    }
    fn set_debug_register(&self, index: usize, value: u64) {
        self.debug.lock()[index] = value;
        self.remember(Event::DebugRegister(index, value));
    }
    fn debug_register(&self, index: usize) -> u64 {
        self.debug.lock()[index]
    }
    fn set_xcr0(&self, _value: u64) {}
    fn set_guest_cr4(&self, _value: u64) {}
    fn fpu_state_size(&self, xcr0: u64) -> usize {
        if matches!(xcr0, 1 | 3) { 576 } else { 832 }
    }

    fn now(&self) -> u64 {
        self.now.load(Ordering::Relaxed)
    }
    fn tsc(&self) -> u64 {
        self.now()
    }
    fn time_scale(&self) -> TimeScale {
        TimeScale { mul: 0x8000_0000, shift: 1, khz: 1_000_000, start: 0, stable: true }
    }
    fn wall_clock_base(&self) -> (u64, u32) {
        (1_700_000_000, 500)
    }
    fn set_deadline(&self, ns: Option<u64>) {
        *self.deadline.lock() = ns;
        self.remember(Event::Deadline(ns));
    }
    /// Lets time pass until the deadline.
    ///
    /// # Panics
    /// With no deadline: the test would wait for ever.
    fn wait_for_interrupt(&self) {
        self.remember(Event::Wait);
        let deadline = self.deadline.lock().take().expect("the CPU waits and nothing will wake it");
        self.now.fetch_max(deadline, Ordering::Relaxed);
    }
    fn interrupt_waiting(&self) -> bool {
        let left = self.interrupt_in.load(Ordering::Relaxed);
        if left != NEVER && left > 0 {
            self.interrupt_in.store(left - 1, Ordering::Relaxed);
        }
        left == 0
    }

    fn cpuid(&self, leaf: u32, subleaf: u32) -> CpuidResult {
        self.cpuid.lock().get(&(leaf, subleaf)).copied().unwrap_or_default()
    }
    fn has_hvm(&self) -> bool {
        self.cpuid(0x8000_0001, 0).ecx & 1 << 2 != 0
    }
    fn copies_bytes_fast(&self) -> bool {
        !self.slow_bytes.load(Ordering::Relaxed)
    }
    fn read_msr(&self, msr: u32) -> Option<u64> {
        self.msrs.lock().get(&msr).copied()
    }
    fn write_msr(&self, msr: u32, value: u64) -> Option<()> {
        *self.msrs.lock().get_mut(&msr)? = value;
        self.remember(Event::MsrWrite(msr, value));
        Some(())
    }
    fn read_port(&self, port: u16, bytes: u8) -> u32 {
        self.remember(Event::PortRead(port, bytes));
        if let Some(value) = self.read_config(port, bytes) {
            return value;
        }
        let mask = if bytes == 4 { u32::MAX } else { (1 << (u32::from(bytes) * 8)) - 1 };
        self.ports.lock().get(&port).copied().unwrap_or(u32::MAX) & mask
    }
    fn write_port(&self, port: u16, bytes: u8, value: u32) {
        self.remember(Event::PortWrite(port, bytes, value));
        self.write_config(port, bytes, value);
    }

    fn read_device(&self, address: MachineAddr) -> u32 {
        self.device.lock().get(&address.0).copied().unwrap_or(u32::MAX)
    }
    fn write_device(&self, address: MachineAddr, value: u32) {
        self.device.lock().insert(address.0, value);
        self.remember(Event::DeviceWrite(address, value));
    }
    fn is_device_memory(&self, address: MachineAddr) -> bool {
        address.0 >> 12 >= self.frame_count()
    }
    fn memory_map(&self, n: usize) -> Option<(u64, u64, u32)> {
        (n == 0).then(|| (0, self.frame_count() << 12, 1))
    }
    fn route_line(&self, gsi: u32, mode: LineMode) -> bool {
        self.remember(Event::RouteLine(gsi, mode));
        gsi < self.line_count()
    }
    fn mask_line(&self, gsi: u32, masked: bool) {
        self.remember(Event::MaskLine(gsi, masked));
    }
    fn route_message(&self, slot: u32) -> Option<(u64, u32)> {
        (slot < 64).then(|| (0xfee0_0000, 0x40 + slot))
    }
    fn line_count(&self) -> u32 {
        24
    }

    fn console_write(&self, bytes: &[u8]) {
        self.console_output.lock().extend_from_slice(bytes);
    }
    fn console_send(&self) -> bool {
        true
    }
    fn console_read(&self, into: &mut [u8]) -> usize {
        let mut input = self.console_input.lock();
        let count = input.len().min(into.len());
        into.iter_mut().zip(input.drain(..count)).for_each(|(to, byte)| *to = byte);
        count
    }
    fn power(&self, action: PowerAction) -> ! {
        panic!("power {action:?}");
    }
}
