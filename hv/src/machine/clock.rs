//! Time: the time-stamp counter, measured once against the interval timer, and the battery-backed clock.
//!
//! The system's time is nanoseconds since the clock was started; it is the counter times a scale, and so are the times
//! that guests compute from their time pages.
//!
//! Source: Intel 8254 data sheet; MC146818 data sheet; AMD APM 2 §13.2.4.

use core::arch::x86_64::{__cpuid, _rdtsc};
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use hv::hardware::TimeScale;

use super::apic::LocalApic;
use super::port;

/// The interval timer's rate.
const PIT_HZ: u64 = 1_193_182;
/// How long is measured, in ticks of the interval timer: about 10 ms.
const MEASURED_TICKS: u16 = 11_932;
/// How often.
const ROUNDS: u32 = 4;
const NS_PER_SECOND: u64 = 1_000_000_000;

/// The system's time.
pub(crate) struct Clock {
    scale: TimeScale,
    wall: u64,
    /// Timer ticks of the local APIC a millisecond, where its count-down is used.
    pub(crate) apic_khz: Option<u32>,
}

/// The highest value that any CPU has read, and whether one has read a lower one later.
static HIGHEST: AtomicU64 = AtomicU64::new(0);
static BEHIND: AtomicBool = AtomicBool::new(false);

/// Compares this CPU's counter with those of all others that do so.
pub(crate) fn compare_counters() {
    let highest = HIGHEST.load(Ordering::SeqCst);
    // The counter is not read before all this is done.
    __cpuid(0);
    let own = tsc();
    BEHIND.fetch_or(own < highest, Ordering::SeqCst);
    HIGHEST.fetch_max(own, Ordering::SeqCst);
}

/// The time-stamp counter.
#[inline(always)]
pub(crate) fn tsc() -> u64 {
    // SAFETY: every CPU in long mode has it.
    unsafe { _rdtsc() }
}

impl Clock {
    /// Measures the counter and the local APIC's timer, and starts the system's time.
    pub(crate) fn start(apic: &LocalApic) -> Self {
        let (tsc_hz, apic_hz) = measure(apic);
        let deadline = __cpuid(1).ecx & 1 << 24 != 0;
        Self { scale: scale(tsc_hz), wall: wall_clock(), apic_khz: (!deadline).then_some((apic_hz / 1000) as u32) }
    }

    /// Nanoseconds since the start.
    #[inline]
    pub(crate) fn now(&self) -> u64 {
        let (ticks, shift) = (tsc().wrapping_sub(self.scale.start), self.scale.shift);
        let ticks = if shift < 0 { ticks >> -shift } else { ticks << shift };
        ((u128::from(ticks) * u128::from(self.scale.mul)) >> 32) as u64
    }

    /// The counter's value at a system time, about.
    pub(crate) fn tsc_at(&self, ns: u64) -> u64 {
        self.scale.start + (u128::from(ns) * u128::from(self.scale.khz) / 1_000_000) as u64
    }

    /// The scale, and what is known by now of the CPUs' counters.
    pub(crate) fn scale(&self) -> TimeScale {
        TimeScale { stable: self.scale.stable && !BEHIND.load(Ordering::SeqCst), ..self.scale }
    }

    /// Seconds since 1970 at system time zero.
    pub(crate) const fn wall(&self) -> u64 {
        self.wall
    }
}

/// Measures both rates in ticks a second. Whatever disturbs a measurement makes it longer, so the shortest counts.
fn measure(apic: &LocalApic) -> (u64, u64) {
    let (tsc, timer) = (0..ROUNDS)
        .map(|_| measure_once(apic))
        .reduce(|best, next| (best.0.min(next.0), best.1.min(next.1)))
        .unwrap_or_default();
    let rate = |ticks: u64| (u128::from(ticks) * u128::from(PIT_HZ) / u128::from(MEASURED_TICKS)) as u64;
    (rate(tsc).max(1_000_000), rate(timer).max(1000))
}

/// Ticks of both while the interval timer counts [`MEASURED_TICKS`].
fn measure_once(apic: &LocalApic) -> (u64, u64) {
    // Channel 2, gate on, speaker off; mode 0: the output goes up when the count is over.
    port::write8(0x61, port::read8(0x61) & !2 | 1);
    port::write8(0x43, 0xb0);
    port::write8(0x42, MEASURED_TICKS as u8);
    apic.start_measuring();
    port::write8(0x42, (MEASURED_TICKS >> 8) as u8);
    let (from, apic_from) = (tsc(), apic.measured());
    while port::read8(0x61) & 1 << 5 == 0 {
        core::hint::spin_loop();
    }
    let (to, apic_to) = (tsc(), apic.measured());
    (to - from, u64::from(apic_to.wrapping_sub(apic_from)))
}

/// The multiplier with 32 bits behind the point and the shift that keeps it between one half and one. Time begins now.
fn scale(hz: u64) -> TimeScale {
    let mut shift = 0_i8;
    let mut rate = hz;
    while rate > 2 * NS_PER_SECOND {
        rate >>= 1;
        shift -= 1;
    }
    while rate <= NS_PER_SECOND {
        rate <<= 1;
        shift += 1;
    }
    let mul = ((u128::from(NS_PER_SECOND) << 32) / u128::from(rate)) as u64;
    let (mul, khz) = (u32::try_from(mul).unwrap_or(u32::MAX), (hz / 1000) as u32);
    // That the rate never changes CPUID says; of an emulated counter it is taken for granted.
    let stable = __cpuid(0x8000_0007).edx & 1 << 8 != 0 || __cpuid(1).ecx & 1 << 31 != 0;
    TimeScale { mul, shift, khz, start: tsc(), stable }
}

/// Seconds since 1970, from the battery-backed clock.
fn wall_clock() -> u64 {
    let mut last = read_clock();
    loop {
        while cmos(0x0a) & 0x80 != 0 {
            core::hint::spin_loop();
        }
        let again = read_clock();
        if again == last {
            return seconds(last);
        }
        last = again;
    }
}

fn cmos(register: u8) -> u8 {
    port::write8(0x70, register);
    port::read8(0x71)
}

/// Second, minute, hour, day, month, year, status B.
fn read_clock() -> [u8; 7] {
    [0, 2, 4, 7, 8, 9, 0x0b].map(cmos)
}

fn seconds(raw: [u8; 7]) -> u64 {
    let status = raw[6];
    let number = |value: u8| u64::from(if status & 4 != 0 { value } else { (value >> 4) * 10 + (value & 15) });
    let mut hour = number(raw[2] & 0x7f);
    if status & 2 == 0 {
        hour = hour % 12 + if raw[2] & 0x80 != 0 { 12 } else { 0 };
    }
    let year = 2000 + number(raw[5]);
    let days = days_since_1970(year, number(raw[4]), number(raw[3]));
    ((days * 24 + hour) * 60 + number(raw[1])) * 60 + number(raw[0])
}

/// Days from 1970-01-01 to a date of the Gregorian calendar.
const fn days_since_1970(year: u64, month: u64, day: u64) -> u64 {
    // Years that begin in March, so that the leap day is the last.
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    year * 365 + year / 4 - year / 100 + year / 400 + (month * 153 + 2) / 5 + day - 1 - 719_468
}

const _: () = assert!(days_since_1970(1970, 1, 1) == 0 && days_since_1970(2000, 3, 1) == 11_017);
