//! Time on a PC: the TSC, measured against the PIT, tells it; PIT channel 0 counts down to the next timer interrupt; the
//! CMOS clock is asked once for the time of day.

use core::arch::x86_64::_rdtsc;
use core::sync::atomic::{AtomicU64, Ordering};

use x86_64::instructions::port::Port;

/// Ticks of the PIT in a second.
const PIT_HZ: u64 = 1_193_182;
/// The TSC is measured over this many PIT ticks (about 20 ms).
const MEASURE_TICKS: u16 = 23_864;
/// The longest one-shot of the PIT; a later deadline takes several.
const MAX_ONE_SHOT_NS: u64 = 50_000_000;

static START_TSC: AtomicU64 = AtomicU64::new(0);
/// Nanoseconds per TSC tick, times 2^32.
static NS_PER_TICK: AtomicU64 = AtomicU64::new(0);
/// Time of day at nanosecond 0.
static WALL_CLOCK_BASE_NS: AtomicU64 = AtomicU64::new(0);

fn tsc() -> u64 {
    // SAFETY: reading the counter has no effect.
    unsafe { _rdtsc() }
}

fn write_port(port: u16, value: u8) {
    // SAFETY: called with the ports of the PIT, its gate and the CMOS index only; none touches memory.
    unsafe { Port::new(port).write(value) }
}

fn read_port(port: u16) -> u8 {
    // SAFETY: called with the ports of the PIT's gate and the CMOS data only; none touches memory.
    unsafe { Port::new(port).read() }
}

/// Measures the TSC and reads the time of day.
pub(super) fn init() {
    let ticks = measure();
    let nanoseconds = u64::from(MEASURE_TICKS) * 1_000_000_000 / PIT_HZ;
    NS_PER_TICK.store((nanoseconds << 32) / ticks.max(1), Ordering::Relaxed);
    START_TSC.store(tsc(), Ordering::Relaxed);
    WALL_CLOCK_BASE_NS.store(read_cmos_clock() * 1_000_000_000, Ordering::Relaxed);
}

/// TSC ticks during one count of PIT channel 2.
fn measure() -> u64 {
    let gate = read_port(0x61) & 0xfc;
    write_port(0x61, gate);
    write_port(0x43, 0xb0); // channel 2, both bytes, count down once
    let [low, high] = MEASURE_TICKS.to_le_bytes();
    write_port(0x42, low);
    write_port(0x42, high);
    write_port(0x61, gate | 1);
    let start = tsc();
    while read_port(0x61) & 0x20 == 0 {
        core::hint::spin_loop();
    }
    tsc() - start
}

pub(super) fn now_ns() -> u64 {
    let ticks = tsc().saturating_sub(START_TSC.load(Ordering::Relaxed));
    let ns = u128::from(ticks) * u128::from(NS_PER_TICK.load(Ordering::Relaxed));
    (ns >> 32) as u64
}

pub(super) fn wall_clock_ns() -> u64 {
    WALL_CLOCK_BASE_NS.load(Ordering::Relaxed) + now_ns()
}

/// One interrupt on line 0 at `deadline_ns`, or earlier if that is far away.
pub(super) fn set_timer(deadline_ns: u64) {
    let wait = deadline_ns.saturating_sub(now_ns()).min(MAX_ONE_SHOT_NS);
    let ticks = (wait * PIT_HZ / 1_000_000_000).clamp(2, 0xffff) as u16;
    let [low, high] = ticks.to_le_bytes();
    write_port(0x43, 0x38); // channel 0, both bytes, a strobe when the count ends
    write_port(0x40, low);
    write_port(0x40, high);
}

fn cmos(register: u8) -> u8 {
    write_port(0x70, register);
    read_port(0x71)
}

/// Seconds since 1970 by the CMOS clock, which is taken to run in UTC.
fn read_cmos_clock() -> u64 {
    while cmos(0x0a) & 0x80 != 0 {
        core::hint::spin_loop();
    }
    let binary = cmos(0x0b) & 4 != 0;
    let [second, minute, hour, day, month, year] = [0, 2, 4, 7, 8, 9].map(|register| {
        let value = cmos(register);
        u64::from(if binary { value } else { (value >> 4) * 10 + (value & 15) })
    });
    days_since_1970(2000 + year, month, day) * 86_400 + hour * 3600 + minute * 60 + second
}

/// Days from 1970-01-01 to a date, by counting years from March so that the leap day is the last.
fn days_since_1970(year: u64, month: u64, day: u64) -> u64 {
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let days = 365 * year + year / 4 - year / 100 + year / 400 + (153 * month + 2) / 5 + day - 1;
    // 1970-01-01 in the same count.
    days - 719_468
}
