//! Interrupt controllers: the local APIC with its timer, and the I/O APICs.
//!
//! Source: AMD APM 2 §16 (local APIC), Intel 82093AA data sheet (I/O APIC).

use alloc::vec::Vec;
use core::sync::atomic::{AtomicU32, Ordering};

use hv::hardware::LineMode;
use spin::Mutex;

use super::acpi::Override;
use super::fixup::{read_msr, write_msr};
use super::port;
use super::vectors::{FIRST_LINE, LINES, SPURIOUS, TIMER, msr};

/// A CPU's local APIC: all CPUs find theirs at the same address.
pub(crate) struct LocalApic {
    access: LocalAccess,
    /// Timer ticks a millisecond, 0 where the time-stamp counter's deadline is used.
    timer_khz: AtomicU32,
}

#[derive(Clone, Copy)]
enum LocalAccess {
    /// Registers in memory, where they are mapped.
    Memory(u64),
    /// Registers by `wrmsr`: the firmware left it so.
    Registers,
}

/// Registers, by their offset in memory.
mod local {
    pub(super) const ID: u32 = 0x20;
    pub(super) const TASK_PRIORITY: u32 = 0x80;
    pub(super) const END: u32 = 0xb0;
    pub(super) const SPURIOUS: u32 = 0xf0;
    pub(super) const REQUESTS: u32 = 0x200;
    pub(super) const COMMAND: u32 = 0x300;
    pub(super) const TARGET: u32 = 0x310;
    pub(super) const TIMER: u32 = 0x320;
    pub(super) const LINT0: u32 = 0x350;
    pub(super) const LINT1: u32 = 0x360;
    pub(super) const ERROR: u32 = 0x370;
    pub(super) const INITIAL: u32 = 0x380;
    pub(super) const COUNT: u32 = 0x390;
    pub(super) const DIVIDE: u32 = 0x3e0;
}

/// An interrupt that one CPU sends another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Signal {
    /// A vector of the hypervisor's.
    Vector(u8),
    /// Non-maskable.
    Nmi,
    /// Stop, and wait for the next.
    Init,
    /// Start at this page.
    Start(u8),
}

/// The command is being sent.
const BUSY: u32 = 1 << 12;
/// To all but the one that sends.
const OTHERS: u32 = 3 << 18;

impl Signal {
    const fn command(self) -> u32 {
        const ASSERT: u32 = 1 << 14;
        match self {
            Self::Vector(vector) => ASSERT | vector as u32,
            Self::Nmi => ASSERT | NMI,
            Self::Init => ASSERT | 5 << 8,
            Self::Start(page) => ASSERT | 6 << 8 | page as u32,
        }
    }
}

const MASKED: u32 = 1 << 16;
const DEADLINE: u32 = 2 << 17;
const NMI: u32 = 4 << 8;
const BY_16: u32 = 3;

impl LocalApic {
    /// The local APIC whose registers, if they are in memory, are mapped at `registers`.
    pub(crate) fn new(registers: u64) -> Self {
        let extended = read_msr(msr::APIC_BASE).unwrap_or(0) & 1 << 10 != 0;
        let access = if extended { LocalAccess::Registers } else { LocalAccess::Memory(registers) };
        Self { access, timer_khz: AtomicU32::new(0) }
    }

    #[inline]
    fn read(&self, register: u32) -> u32 {
        match self.access {
            // SAFETY: `registers` is a device page, and the offset one of its registers.
            LocalAccess::Memory(base) => unsafe { ((base + u64::from(register)) as *const u32).read_volatile() },
            LocalAccess::Registers => read_msr(msr::X2APIC + (register >> 4)).unwrap_or(0) as u32,
        }
    }

    #[inline]
    fn write(&self, register: u32, value: u32) {
        match self.access {
            // SAFETY: as in `read`.
            LocalAccess::Memory(base) => unsafe { ((base + u64::from(register)) as *mut u32).write_volatile(value) },
            LocalAccess::Registers => {
                let _ = write_msr(msr::X2APIC + (register >> 4), value.into());
            }
        }
    }

    /// Turns it on: nothing but non-maskable interrupts from its pins.
    pub(crate) fn start(&self) {
        if let Some(base) = read_msr(msr::APIC_BASE) {
            let _ = write_msr(msr::APIC_BASE, base | 1 << 11);
        }
        self.write(local::TASK_PRIORITY, 0);
        self.write(local::LINT0, MASKED);
        self.write(local::LINT1, NMI);
        self.write(local::ERROR, MASKED);
        self.write(local::TIMER, MASKED);
        self.write(local::SPURIOUS, 1 << 8 | u32::from(SPURIOUS));
    }

    /// Its id.
    pub(crate) fn id(&self) -> u8 {
        let id = self.read(local::ID);
        if matches!(self.access, LocalAccess::Memory(_)) { (id >> 24) as u8 } else { id as u8 }
    }

    /// Interrupts the CPU with this APIC id.
    pub(crate) fn send(&self, apic_id: u8, signal: Signal) {
        self.command(u32::from(apic_id), signal.command());
    }

    /// Sends every other CPU a non-maskable interrupt.
    pub(crate) fn alarm_others(&self) {
        self.command(0, OTHERS | Signal::Nmi.command());
    }

    fn command(&self, target: u32, command: u32) {
        match self.access {
            LocalAccess::Memory(_) => {
                while self.read(local::COMMAND) & BUSY != 0 {
                    core::hint::spin_loop();
                }
                self.write(local::TARGET, target << 24);
                self.write(local::COMMAND, command);
            }
            LocalAccess::Registers => {
                let _ = write_msr(msr::X2APIC + (local::COMMAND >> 4), u64::from(target) << 32 | u64::from(command));
            }
        }
    }

    /// Says that the interrupt was handled.
    #[inline]
    pub(crate) fn end_of_interrupt(&self) {
        self.write(local::END, 0);
    }

    /// Whether one of the hypervisor's vectors waits.
    #[inline]
    pub(crate) fn is_waiting(&self) -> bool {
        (u32::from(FIRST_LINE) / 32..=u32::from(TIMER) / 32).any(|word| self.read(local::REQUESTS + word * 16) != 0)
    }

    /// Lets the timer run from its highest count, to be measured.
    pub(crate) fn start_measuring(&self) {
        self.write(local::DIVIDE, BY_16);
        self.write(local::TIMER, MASKED);
        self.write(local::INITIAL, u32::MAX);
    }

    /// Ticks since [`Self::start_measuring`].
    pub(crate) fn measured(&self) -> u32 {
        u32::MAX - self.read(local::COUNT)
    }

    /// Makes the timer raise its vector; `khz` is its rate, or `None` to use the time-stamp counter's deadline.
    pub(crate) fn start_timer(&self, khz: Option<u32>) {
        self.timer_khz.store(khz.unwrap_or(0), Ordering::Relaxed);
        self.write(local::INITIAL, 0);
        self.write(local::DIVIDE, BY_16);
        self.write(local::TIMER, u32::from(TIMER) | if khz.is_none() { DEADLINE } else { 0 });
    }

    /// Raises the timer's vector once, `ns` from now, or when the time-stamp counter is at `tsc`.
    pub(crate) fn set_timer(&self, ns: u64, tsc: u64) {
        let khz = self.timer_khz.load(Ordering::Relaxed);
        if khz == 0 {
            let _ = write_msr(msr::TSC_DEADLINE, tsc);
        } else {
            // A wait longer than the counter ends early, and the one who waits asks again.
            let ticks = u128::from(ns) * u128::from(khz) / 1_000_000;
            self.write(local::INITIAL, u32::try_from(ticks).unwrap_or(u32::MAX).max(1));
        }
    }

    /// Raises nothing.
    pub(crate) fn stop_timer(&self) {
        if self.timer_khz.load(Ordering::Relaxed) == 0 {
            let _ = write_msr(msr::TSC_DEADLINE, 0);
        } else {
            self.write(local::INITIAL, 0);
        }
    }
}

/// An I/O APIC.
struct IoApic {
    registers: u64,
    first_gsi: u32,
    inputs: u32,
}

impl IoApic {
    fn read(&self, register: u32) -> u32 {
        // SAFETY: `registers` is a mapped device page; this is its index register.
        unsafe { (self.registers as *mut u32).write_volatile(register) };
        // SAFETY: as above; this is its data register.
        unsafe { ((self.registers + 0x10) as *const u32).read_volatile() }
    }

    fn write(&self, register: u32, value: u32) {
        // SAFETY: as in `read`.
        unsafe { (self.registers as *mut u32).write_volatile(register) };
        // SAFETY: as in `read`.
        unsafe { ((self.registers + 0x10) as *mut u32).write_volatile(value) };
    }
}

/// All I/O APICs.
pub(crate) struct IoApics(Mutex<Vec<IoApic>>);

const LEVEL: u32 = 1 << 15;
const LOW: u32 = 1 << 13;

impl IoApics {
    /// The I/O APICs, each by where its registers are mapped and its first interrupt, with all inputs masked.
    pub(crate) fn new(entries: impl Iterator<Item = (u64, u32)>) -> Self {
        let chips = entries.map(|(registers, first_gsi)| {
            let mut chip = IoApic { registers, first_gsi, inputs: 0 };
            chip.inputs = (chip.read(1) >> 16 & 0xff) + 1;
            for input in 0..chip.inputs {
                chip.write(0x10 + input * 2, MASKED);
            }
            chip
        });
        Self(Mutex::new(chips.collect()))
    }

    /// One more than the highest global system interrupt that can be routed.
    pub(crate) fn line_count(&self) -> u32 {
        self.0.lock().iter().map(|chip| chip.first_gsi + chip.inputs).max().unwrap_or(0).min(LINES)
    }

    fn with<T>(&self, gsi: u32, work: impl FnOnce(&IoApic, u32) -> T) -> Option<T> {
        let chips = self.0.lock();
        let chip = chips.iter().find(|chip| gsi >= chip.first_gsi && gsi - chip.first_gsi < chip.inputs)?;
        Some(work(chip, 0x10 + (gsi - chip.first_gsi) * 2))
    }

    /// Routes a line, masked, to the CPU with this APIC id.
    pub(crate) fn route(&self, gsi: u32, mode: LineMode, apic_id: u8) -> bool {
        let vector = u32::from(FIRST_LINE) + gsi;
        let low = MASKED | vector | if mode.level { LEVEL } else { 0 } | if mode.low { LOW } else { 0 };
        gsi < LINES
            && self
                .with(gsi, |chip, register| {
                    chip.write(register, low);
                    chip.write(register + 1, u32::from(apic_id) << 24);
                })
                .is_some()
    }

    /// Masks or unmasks a line.
    pub(crate) fn mask(&self, gsi: u32, masked: bool) {
        self.with(gsi, |chip, register| {
            let low = chip.read(register) & !MASKED;
            chip.write(register, if masked { low | MASKED } else { low });
        });
    }
}

/// Where an ISA interrupt arrives, and how.
pub(crate) fn isa_line(overrides: &[Override], isa: u8) -> (u32, LineMode) {
    overrides
        .iter()
        .find(|entry| entry.isa == isa)
        .map_or((isa.into(), LineMode { level: false, low: false }), |entry| (entry.gsi, entry.mode))
}

/// Masks the two old interrupt controllers, after moving what they may still raise away from the exceptions.
pub(crate) fn silence_old_controllers() {
    for (command, data, vector) in [(0x20, 0x21, 0x20), (0xa0, 0xa1, 0x28)] {
        port::write8(command, 0x11);
        port::write8(data, vector);
        port::write8(data, if command == 0x20 { 4 } else { 2 });
        port::write8(data, 1);
        port::write8(data, 0xff);
    }
}
