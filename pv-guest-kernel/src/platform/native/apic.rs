//! The local APIC: how this CPU interrupts another, or itself. Everything else comes through the PICs, which it lets pass.
//!
//! Source: Intel SDM 3, chapter 11; AMD APM 2, chapter 16.

use core::arch::x86_64::__cpuid;
use core::sync::atomic::{AtomicUsize, Ordering};

use x86_64::registers::model_specific::Msr;

use crate::mm::kernel_map::AddressRange;
use crate::mm::{Entry, EntryFlags, EntryUpdate, Pfn};
use crate::platform;

/// The vector of a call, behind those of the PICs' lines.
pub(super) const CALL_VECTOR: u8 = 48;
const SPURIOUS_VECTOR: u32 = 0xff;

const APIC_BASE: Msr = Msr::new(0x1b);
const BASE_ENABLED: u64 = 1 << 11;

const EOI: usize = 0xb0;
const SPURIOUS: usize = 0xf0;
const COMMAND: usize = 0x300;
const LINT0: usize = 0x350;

const SOFTWARE_ENABLE: u32 = 1 << 8;
/// LINT0: the PICs' interrupts pass.
const EXTERNAL: u32 = 7 << 8;
/// Command: to this CPU.
const TO_SELF: u32 = 1 << 18;
const IN_FLIGHT: u32 = 1 << 12;

/// Where the registers are mapped; 0 without an APIC.
static REGISTERS: AtomicUsize = AtomicUsize::new(0);

/// Maps and enables it, if there is one.
pub(super) fn init() {
    if __cpuid(1).edx & 1 << 9 == 0 {
        return;
    }
    // SAFETY: the CPU has an APIC, hence this register.
    let base = unsafe { APIC_BASE.read() };
    if base & BASE_ENABLED == 0 {
        return;
    }
    let Some(addr) = map(base >> 12 & 0xff_ffff_ffff) else { return };
    REGISTERS.store(addr, Ordering::Relaxed);
    // First this: the pins of one that is off stay masked.
    write(SPURIOUS, SOFTWARE_ENABLE | SPURIOUS_VECTOR);
    write(LINT0, EXTERNAL);
}

/// Maps a page of registers, for ever.
fn map(frame: u64) -> Option<usize> {
    let range = AddressRange::reserve(1)?;
    let (table, index) = AddressRange::slot(range.addr())?;
    let flags = EntryFlags::KERNEL_DATA | EntryFlags::UNCACHED | EntryFlags::WRITE_THROUGH;
    platform::current().write_entries(&[EntryUpdate { table, index, entry: Entry::new(Pfn(frame), flags) }]);
    let addr = range.addr();
    core::mem::forget(range);
    Some(addr)
}

fn register(offset: usize) -> Option<*mut u32> {
    let base = REGISTERS.load(Ordering::Relaxed);
    (base != 0).then_some((base + offset) as *mut u32)
}

fn write(offset: usize, value: u32) {
    if let Some(register) = register(offset) {
        // SAFETY: a register of the APIC, mapped by `init`; the ones written here do not touch memory.
        unsafe { register.write_volatile(value) };
    }
}

/// Interrupts this CPU, which then looks whether it has something to do.
pub(super) fn call_self() {
    let Some(command) = register(COMMAND) else { return };
    // SAFETY: a register of the APIC, mapped by `init`; reading it changes nothing.
    while unsafe { command.read_volatile() } & IN_FLIGHT != 0 {
        core::hint::spin_loop();
    }
    write(COMMAND, TO_SELF | u32::from(CALL_VECTOR));
}

/// A call was taken.
pub(super) fn end_of_interrupt() {
    write(EOI, 0);
}
