//! An 8254 timer and port 61h, which opens its third counter and shows its output.
//!
//! Nothing ticks: a counter remembers when it was loaded, and what it shows is worked out from the time that has passed.
//! The first counter's output is interrupt line 0; of its rising edges, what nobody took counts as one. They are never
//! closer than [`SHORTEST_NS`], whatever is loaded.
//!
//! Source: Intel 8254 data sheet (231164); port 61h: IBM PC AT Technical Reference, Intel 82371SB (PIIX3) §2.5.

/// How often a counter counts in a second.
const HZ: u64 = 1_193_182;
/// The time between interrupts is at least this.
pub const SHORTEST_NS: u64 = 100_000;
const SECOND_NS: u64 = 1_000_000_000;

/// Counts in so long.
fn ticks(ns: u64) -> u64 {
    (u128::from(ns) * u128::from(HZ) / u128::from(SECOND_NS)) as u64
}

/// When so many counts have passed, rounded up.
fn after(ticks: u64) -> u64 {
    (u128::from(ticks) * u128::from(SECOND_NS)).div_ceil(u128::from(HZ)) as u64
}

/// Which bytes of a count are read and written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Access {
    Low,
    High,
    #[default]
    Both,
}

/// One counter.
#[derive(Clone, Copy, Debug, Default)]
struct Counter {
    mode: u8,
    bcd: bool,
    access: Access,
    /// What it counts down from; zero before it was loaded the first time.
    count: u64,
    /// A count that is loaded when the running period is over.
    next: Option<u64>,
    /// When it was loaded or triggered; none while it does not count.
    started_ns: Option<u64>,
    /// Counts it had made when its gate stopped it.
    held: u64,
    gate: bool,
    /// The low byte of a count whose high byte is still to be written.
    half: Option<u8>,
    /// The high byte of the count comes next.
    reads_high: bool,
    latched: Option<u16>,
    latched_status: Option<u8>,
}

impl Counter {
    const fn is_periodic(&self) -> bool {
        matches!(self.mode, 2 | 3)
    }

    const fn waits_for_gate(&self) -> bool {
        matches!(self.mode, 1 | 5)
    }

    /// Counts since it was loaded.
    fn passed(&self, now_ns: u64) -> u64 {
        self.held + self.started_ns.map_or(0, |start| ticks(now_ns.saturating_sub(start)))
    }

    /// Loads the count that waits, once the period is over.
    fn settle(&mut self, now_ns: u64) {
        let (Some(next), Some(start)) = (self.next, self.started_ns) else {
            return;
        };
        if self.passed(now_ns) >= self.count {
            self.started_ns = Some(start.saturating_add(after(self.count)).min(now_ns));
            self.count = next;
            self.next = None;
        }
    }

    /// What its output shows.
    fn output(&self, now_ns: u64) -> bool {
        let passed = self.passed(now_ns);
        if self.count == 0 {
            return self.mode != 0;
        }
        match self.mode {
            0 => passed >= self.count,
            1 => self.started_ns.is_none() || passed >= self.count,
            2 => !self.gate || passed % self.count != self.count - 1,
            3 => !self.gate || passed % self.count < self.count.div_ceil(2),
            _ => passed != self.count,
        }
    }

    /// What counting has come to.
    fn value(&self, now_ns: u64) -> u16 {
        let passed = self.passed(now_ns);
        let modulus = if self.bcd { 10_000 } else { 0x1_0000 };
        let value = match self.mode {
            _ if self.count == 0 => 0,
            2 => self.count - passed % self.count,
            3 => self.count - passed.wrapping_mul(2) % self.count,
            _ => (self.count + modulus - passed % modulus) % modulus,
        } % modulus;
        if self.bcd { to_bcd(value as u16) } else { value as u16 }
    }

    fn status(&self, now_ns: u64) -> u8 {
        let access = match self.access {
            Access::Low => 1,
            Access::High => 2,
            Access::Both => 3,
        };
        let not_loaded = self.count == 0 || self.next.is_some() || self.half.is_some();
        u8::from(self.output(now_ns)) << 7
            | u8::from(not_loaded) << 6
            | access << 4
            | self.mode << 1
            | u8::from(self.bcd)
    }

    fn read(&mut self, now_ns: u64) -> u8 {
        self.settle(now_ns);
        if let Some(status) = self.latched_status.take() {
            return status;
        }
        let value = self.latched.unwrap_or_else(|| self.value(now_ns)).to_le_bytes();
        let high = match self.access {
            Access::Low => false,
            Access::High => true,
            Access::Both => {
                self.reads_high = !self.reads_high;
                !self.reads_high
            }
        };
        if !self.reads_high {
            self.latched = None;
        }
        value[usize::from(high)]
    }

    fn write(&mut self, value: u8, now_ns: u64) {
        self.settle(now_ns);
        match (self.access, self.half.take()) {
            (Access::Low, _) => self.load(u16::from(value), now_ns),
            (Access::High, _) => self.load(u16::from(value) << 8, now_ns),
            (Access::Both, Some(low)) => self.load(u16::from_le_bytes([low, value]), now_ns),
            (Access::Both, None) => {
                self.half = Some(value);
                if self.mode == 0 {
                    self.held = self.passed(now_ns).min(self.count.saturating_sub(1));
                    self.started_ns = None;
                }
            }
        }
    }

    fn load(&mut self, value: u16, now_ns: u64) {
        let count = match (self.bcd, if self.bcd { from_bcd(value) } else { value.into() }) {
            (false, 0) => 0x1_0000,
            (true, 0) => 10_000,
            // A square wave and a rate need two counts.
            (_, 1) if self.is_periodic() => 2,
            (_, count) => count,
        };
        if self.waits_for_gate() {
            self.next = None;
            self.count = count;
        } else if self.is_periodic() && self.started_ns.is_some() {
            self.next = Some(count);
        } else {
            *self = Self { count, next: None, held: 0, started_ns: self.gate.then_some(now_ns), ..*self };
        }
    }

    fn set_mode(&mut self, control: u8) {
        let access = match control >> 4 & 3 {
            1 => Access::Low,
            2 => Access::High,
            _ => Access::Both,
        };
        let mode = match control >> 1 & 7 {
            mode @ 0..=5 => mode,
            other => other - 4,
        };
        *self = Self { mode, bcd: control & 1 != 0, access, gate: self.gate, ..Self::default() };
    }

    fn set_gate(&mut self, gate: bool, now_ns: u64) {
        self.settle(now_ns);
        let rises = gate && !self.gate;
        let falls = !gate && self.gate;
        if self.waits_for_gate() {
            if rises && self.count != 0 {
                (self.held, self.started_ns) = (0, Some(now_ns));
            }
        } else if rises && self.count != 0 {
            if self.is_periodic() {
                self.held = 0;
                self.count = self.next.take().unwrap_or(self.count);
            }
            self.started_ns = Some(now_ns);
        } else if falls {
            self.held = self.passed(now_ns);
            self.started_ns = None;
        }
        self.gate = gate;
    }

    /// The first rising edge of its output after a time.
    fn edge_after(&self, after_ns: u64) -> Option<u64> {
        let start = self.started_ns?;
        let at = |count: u64| start.saturating_add(after(count.saturating_sub(self.held)));
        match self.mode {
            0 | 1 => Some(at(self.count)),
            4 | 5 => Some(at(self.count + 1)),
            _ if self.count == 0 => None,
            _ => Some(at((self.passed(after_ns) / self.count + 1) * self.count)),
        }
        .filter(|edge| *edge > after_ns)
    }
}

fn from_bcd(value: u16) -> u64 {
    [12, 8, 4, 0].into_iter().fold(0, |sum, shift| sum * 10 + u64::from(value >> shift & 0xf).min(9))
}

fn to_bcd(value: u16) -> u16 {
    [1000, 100, 10, 1].into_iter().fold(0, |sum, unit| (sum << 4) | (value / unit % 10))
}

/// The timer.
#[derive(Clone, Debug)]
pub struct Pit {
    counters: [Counter; 3],
    /// Bits 1 to 3 of port 61h.
    speaker: u8,
    /// Edges of the first counter until here were seen.
    seen_ns: u64,
    /// One of them was not taken yet.
    rose: bool,
}

impl Default for Pit {
    fn default() -> Self {
        let open = Counter { gate: true, ..Counter::default() };
        Self { counters: [open, open, Counter::default()], speaker: 0, seen_ns: 0, rose: false }
    }
}

impl Pit {
    /// Whether line 0 has risen since this was asked last.
    pub fn take_edge(&mut self, now_ns: u64) -> bool {
        self.look(now_ns);
        core::mem::take(&mut self.rose)
    }

    fn look(&mut self, now_ns: u64) {
        let counter = &mut self.counters[0];
        self.rose |= counter.edge_after(self.seen_ns).is_some_and(|edge| edge <= now_ns);
        counter.settle(now_ns);
        self.seen_ns = self.seen_ns.max(now_ns);
    }

    /// When to ask the next time.
    #[must_use]
    pub fn next_edge(&self) -> Option<u64> {
        let edge = self.counters[0].edge_after(self.seen_ns)?;
        Some(if self.counters[0].is_periodic() { edge.max(self.seen_ns.saturating_add(SHORTEST_NS)) } else { edge })
    }

    /// Reads one of the ports 40h to 43h and 61h; none other is here.
    pub fn read(&mut self, port: u16, now_ns: u64) -> Option<u8> {
        /// How long the bit that shows memory being refreshed stays as it is.
        const REFRESH_NS: u64 = 15_085;
        self.look(now_ns);
        match port {
            0x40..=0x42 => Some(self.counters[usize::from(port & 3)].read(now_ns)),
            0x43 => Some(0xff),
            0x61 => {
                let counter = &mut self.counters[2];
                counter.settle(now_ns);
                let refresh = ((now_ns / REFRESH_NS) & 1) as u8;
                Some(u8::from(counter.gate) | self.speaker | refresh << 4 | u8::from(counter.output(now_ns)) << 5)
            }
            _ => None,
        }
    }

    /// Writes one of these ports; whether it is one.
    pub fn write(&mut self, port: u16, value: u8, now_ns: u64) -> bool {
        self.look(now_ns);
        match port {
            0x40..=0x42 => self.counters[usize::from(port & 3)].write(value, now_ns),
            0x43 => self.control(value, now_ns),
            0x61 => {
                self.speaker = value & 0x0e;
                self.counters[2].set_gate(value & 1 != 0, now_ns);
            }
            _ => return false,
        }
        true
    }

    fn control(&mut self, value: u8, now_ns: u64) {
        match (value >> 6, value >> 4 & 3) {
            (3, _) => {
                for (index, counter) in self.counters.iter_mut().enumerate() {
                    if value >> (index + 1) & 1 != 0 {
                        counter.settle(now_ns);
                        latch(counter, value & 0x20 == 0, value & 0x10 == 0, now_ns);
                    }
                }
            }
            (index, 0) => {
                let counter = &mut self.counters[usize::from(index)];
                counter.settle(now_ns);
                latch(counter, true, false, now_ns);
            }
            (index, _) => self.counters[usize::from(index)].set_mode(value),
        }
    }
}

/// Keeps what a counter shows until it is read; what is kept already stays.
fn latch(counter: &mut Counter, count: bool, status: bool, now_ns: u64) {
    if count && counter.latched.is_none() {
        counter.latched = Some(counter.value(now_ns));
    }
    if status && counter.latched_status.is_none() {
        counter.latched_status = Some(counter.status(now_ns));
    }
}

#[cfg(test)]
mod tests;
