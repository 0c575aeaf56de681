//! A MC146818 clock with the 128 bytes of memory around it.
//!
//! It keeps how far its time is from the machine's; what its registers show is worked out when they are read. What a
//! guest writes into the time's registers counts from then on; while it holds the clock (SET), it stands.
//!
//! Source: Motorola MC146818A data sheet; Intel 82371SB (PIIX3) §2.7; the century: ACPI 6.5 §5.2.9.

/// When the clock may ask for an interrupt by its rate at the shortest.
pub const SHORTEST_NS: u64 = 100_000;
const SECOND_NS: u64 = 1_000_000_000;
/// For so long before a second is over the registers are not to be read.
const UPDATE_NS: u64 = 244_000;
const DAY_SECONDS: u64 = 86_400;
/// The length of the periodic interrupt at rate `n` is this shifted left by `n - 1`, in 1/32768 s.
const BASE_HZ: u64 = 32_768;
/// Register of the century.
const CENTURY: u8 = 0x32;

mod b {
    pub(super) const SET: u8 = 1 << 7;
    pub(super) const BINARY: u8 = 1 << 2;
    pub(super) const HOURS_24: u8 = 1 << 1;
}

mod c {
    pub(super) const REQUEST: u8 = 1 << 7;
    pub(super) const PERIODIC: u8 = 1 << 6;
    pub(super) const ALARM: u8 = 1 << 5;
    pub(super) const UPDATED: u8 = 1 << 4;
}

/// A date and time as the registers have it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Civil {
    year: u64,
    month: u64,
    day: u64,
    seconds: u64,
}

impl Civil {
    /// Of the seconds since 1970.
    fn of(epoch_seconds: u64) -> Self {
        // Days are counted from March of the year 0, so that the odd day ends a year.
        let days = epoch_seconds / DAY_SECONDS + 719_468;
        let (era, day_of_era) = (days / 146_097, days % 146_097);
        let year = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year + year / 4 - year / 100);
        let march_month = (5 * day_of_year + 2) / 153;
        let month = if march_month < 10 { march_month + 3 } else { march_month - 9 };
        Self {
            year: era * 400 + year + u64::from(month <= 2),
            month,
            day: day_of_year - (153 * march_month + 2) / 5 + 1,
            seconds: epoch_seconds % DAY_SECONDS,
        }
    }

    /// Seconds since 1970; what is out of range is carried on.
    fn epoch_seconds(self) -> u64 {
        let month = self.month.clamp(1, 12);
        let (year, month) = if month > 2 { (self.year, month - 3) } else { (self.year.saturating_sub(1), month + 9) };
        let days = year * 365 + year / 4 - year / 100 + year / 400 + (153 * month + 2) / 5 + self.day.max(1) - 1;
        days.saturating_sub(719_468) * DAY_SECONDS + self.seconds
    }
}

/// The clock.
#[derive(Clone, Debug)]
pub struct Rtc {
    index: u8,
    memory: [u8; 128],
    /// The time that is shown at `shown_ns`, in ns since 1970; it stands while the guest sets it.
    time_ns: u64,
    shown_ns: u64,
    /// What has happened until here is in register C.
    seen_ns: u64,
}

impl Rtc {
    /// A clock that shows a time, in ns since 1970.
    #[must_use]
    pub fn new(time_ns: u64, now_ns: u64) -> Self {
        let mut memory = [0; 128];
        memory[0x0a] = 0x26;
        memory[0x0b] = b::HOURS_24;
        memory[0x0d] = 0x80;
        Self { index: 0, memory, time_ns, shown_ns: now_ns, seen_ns: now_ns }
    }

    /// Puts a byte into its memory, behind its registers; what firmware would leave there.
    pub fn set_memory(&mut self, at: u8, value: u8) {
        if let Some(byte) = self.memory.get_mut(usize::from(at)).filter(|_| at >= 0x0e) {
            *byte = value;
        }
    }

    /// Whether line 8 is high.
    pub fn asks(&mut self, now_ns: u64) -> bool {
        self.look(now_ns);
        self.memory[0x0c] & c::REQUEST != 0
    }

    /// When line 8 may rise next; none while it is high or nothing makes it rise.
    #[must_use]
    pub fn next_interrupt(&self) -> Option<u64> {
        if self.memory[0x0c] & c::REQUEST != 0 {
            return None;
        }
        let wanted = self.memory[0x0b];
        let per_second = wanted & (c::ALARM | c::UPDATED) != 0 && self.runs();
        let second =
            per_second.then(|| self.seen_ns.saturating_add(SECOND_NS - self.time_at(self.seen_ns) % SECOND_NS));
        let period = self.period_ns().filter(|_| wanted & c::PERIODIC != 0);
        let period = period.map(|period| (self.seen_ns / period + 1).saturating_mul(period));
        let period = period.map(|at| at.max(self.seen_ns.saturating_add(SHORTEST_NS)));
        [second, period].into_iter().flatten().min()
    }

    /// Reads port 70h or 71h; none other is here.
    pub fn read(&mut self, port: u16, now_ns: u64) -> Option<u8> {
        match port {
            0x70 => Some(0xff),
            0x71 => Some(self.read_register(self.index, now_ns)),
            _ => None,
        }
    }

    /// Writes one of these ports; whether it is one.
    pub fn write(&mut self, port: u16, value: u8, now_ns: u64) -> bool {
        match port {
            0x70 => self.index = value & 0x7f,
            0x71 => self.write_register(self.index, value, now_ns),
            _ => return false,
        }
        true
    }

    fn runs(&self) -> bool {
        self.memory[0x0b] & b::SET == 0
    }

    fn time_at(&self, now_ns: u64) -> u64 {
        let passed = if self.runs() { now_ns.saturating_sub(self.shown_ns) } else { 0 };
        self.time_ns.saturating_add(passed)
    }

    fn period_ns(&self) -> Option<u64> {
        let shift = match self.memory[0x0a] & 0xf {
            0 => return None,
            rate @ (1 | 2) => rate + 6,
            rate => rate - 1,
        };
        Some(SECOND_NS * (1 << shift) / BASE_HZ)
    }

    /// Enters in register C what has happened since it was looked at last.
    fn look(&mut self, now_ns: u64) {
        let (before, now) = (self.seen_ns, now_ns.max(self.seen_ns));
        self.seen_ns = now;
        if self.period_ns().is_some_and(|period| before / period != now / period) {
            self.memory[0x0c] |= c::PERIODIC;
        }
        let (from, to) = (self.time_at(before) / SECOND_NS, self.time_at(now) / SECOND_NS);
        if from != to {
            self.memory[0x0c] |= c::UPDATED;
            // A day has every alarm.
            if (from + 1..=to).take(DAY_SECONDS as usize).any(|second| self.is_alarm(second)) {
                self.memory[0x0c] |= c::ALARM;
            }
        }
        if self.memory[0x0b] & self.memory[0x0c] & (c::PERIODIC | c::ALARM | c::UPDATED) != 0 {
            self.memory[0x0c] |= c::REQUEST;
        }
    }

    fn is_alarm(&self, epoch_seconds: u64) -> bool {
        let seconds = epoch_seconds % DAY_SECONDS;
        let matches =
            |register: usize, shown: u8| self.memory[register] & 0xc0 == 0xc0 || self.memory[register] == shown;
        matches(1, self.encode(seconds % 60))
            && matches(3, self.encode(seconds / 60 % 60))
            && matches(5, self.encode_hour(seconds / 3600))
    }

    fn encode(&self, value: u64) -> u8 {
        let value = value as u8;
        if self.memory[0x0b] & b::BINARY != 0 { value } else { ((value / 10) << 4) | (value % 10) }
    }

    fn decode(&self, value: u8) -> u64 {
        u64::from(if self.memory[0x0b] & b::BINARY != 0 { value } else { (value >> 4) * 10 + (value & 0xf) })
    }

    fn encode_hour(&self, hour: u64) -> u8 {
        if self.memory[0x0b] & b::HOURS_24 != 0 {
            return self.encode(hour);
        }
        let shown = if hour.is_multiple_of(12) { 12 } else { hour % 12 };
        self.encode(shown) | if hour >= 12 { 0x80 } else { 0 }
    }

    fn decode_hour(&self, value: u8) -> u64 {
        if self.memory[0x0b] & b::HOURS_24 != 0 {
            return self.decode(value);
        }
        self.decode(value & 0x7f) % 12 + if value & 0x80 != 0 { 12 } else { 0 }
    }

    fn read_register(&mut self, register: u8, now_ns: u64) -> u8 {
        self.look(now_ns);
        let time = self.time_at(now_ns);
        let civil = Civil::of(time / SECOND_NS);
        match register {
            0 => self.encode(civil.seconds % 60),
            2 => self.encode(civil.seconds / 60 % 60),
            4 => self.encode_hour(civil.seconds / 3600),
            6 => self.encode((time / SECOND_NS / DAY_SECONDS + 4) % 7 + 1),
            7 => self.encode(civil.day),
            8 => self.encode(civil.month),
            9 => self.encode(civil.year % 100),
            CENTURY => self.encode(civil.year / 100 % 100),
            0x0a => {
                let updates = self.runs() && time % SECOND_NS >= SECOND_NS - UPDATE_NS;
                self.memory[0x0a] & 0x7f | u8::from(updates) << 7
            }
            0x0c => core::mem::take(&mut self.memory[0x0c]),
            _ => self.memory[usize::from(register & 0x7f)],
        }
    }

    fn write_register(&mut self, register: u8, value: u8, now_ns: u64) {
        self.look(now_ns);
        match register {
            0 | 2 | 4 | 7 | 8 | 9 | CENTURY => self.set_time(register, value, now_ns),
            // The day of the week follows from the date; the rest is the clock's own.
            6 | 0x0c | 0x0d => {}
            0x0a => self.memory[0x0a] = value & 0x7f,
            0x0b => {
                (self.time_ns, self.shown_ns) = (self.time_at(now_ns), now_ns);
                self.memory[0x0b] = value;
                if value & b::SET != 0 {
                    self.memory[0x0b] &= !c::UPDATED;
                }
                self.look(now_ns);
            }
            _ => self.memory[usize::from(register & 0x7f)] = value,
        }
    }

    fn set_time(&mut self, register: u8, value: u8, now_ns: u64) {
        let time = self.time_at(now_ns);
        let mut civil = Civil::of(time / SECOND_NS);
        let (hour, minute, second) = (civil.seconds / 3600, civil.seconds / 60 % 60, civil.seconds % 60);
        let plain = self.decode(value);
        match register {
            0 => civil.seconds = hour * 3600 + minute * 60 + plain,
            2 => civil.seconds = hour * 3600 + plain * 60 + second,
            4 => civil.seconds = self.decode_hour(value) * 3600 + minute * 60 + second,
            7 => civil.day = plain,
            8 => civil.month = plain,
            9 => civil.year = civil.year / 100 * 100 + plain,
            _ => civil.year = plain * 100 + civil.year % 100,
        }
        let fraction = if register == 0 { 0 } else { time % SECOND_NS };
        self.time_ns = civil.epoch_seconds().saturating_mul(SECOND_NS).saturating_add(fraction);
        self.shown_ns = now_ns;
    }
}

#[cfg(test)]
mod tests;
