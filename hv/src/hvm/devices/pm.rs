//! ACPI's timer and the events beside it (PM1a event block).
//!
//! The timer counts 3.579545 MHz in 32 bits. Its status bit is set whenever the top bit changes; with its enable bit it
//! is interrupt line 9, a level.
//!
//! Source: ACPI 6.5 §4.8.3; where the registers are: Xen: public/hvm/ioreq.h (`ACPI_PM*_ADDRESS_V*`).

/// Where the events are, before and since the version of the map that toolstacks choose now.
pub const BASES: [u16; 2] = [0x1f40, 0xb000];
const HZ: u128 = 3_579_545;
const SECOND_NS: u128 = 1_000_000_000;
/// Status and enable: the timer's top bit has changed.
const TIMER: u16 = 1 << 0;
/// Status: bits that exist: timer, bus master, lock, two buttons, clock, wake.
const STATUS: u16 = 0x8731;
/// Enable: bits that exist.
const ENABLE: u16 = 0x0721;

/// The timer and the events.
#[derive(Clone, Debug, Default)]
pub struct PowerManagement {
    status: u16,
    enable: u16,
    seen_ns: u64,
}

fn count(now_ns: u64) -> u64 {
    (u128::from(now_ns) * HZ / SECOND_NS) as u64
}

impl PowerManagement {
    fn look(&mut self, now_ns: u64) {
        if count(self.seen_ns) >> 31 != count(now_ns.max(self.seen_ns)) >> 31 {
            self.status |= TIMER;
        }
        self.seen_ns = self.seen_ns.max(now_ns);
    }

    /// Whether line 9 is high.
    pub fn asks(&mut self, now_ns: u64) -> bool {
        self.look(now_ns);
        self.status & self.enable != 0
    }

    /// When line 9 may rise.
    #[must_use]
    pub fn next_interrupt(&self) -> Option<u64> {
        let next = u128::from((count(self.seen_ns) >> 31) + 1) << 31;
        let at = (next * SECOND_NS).div_ceil(HZ);
        (self.enable & TIMER != 0 && self.status & TIMER == 0).then(|| u64::try_from(at).unwrap_or(u64::MAX))
    }

    /// Reads the byte at an offset from the base.
    pub fn read(&mut self, offset: u16, now_ns: u64) -> Option<u8> {
        self.look(now_ns);
        match offset {
            0 | 1 => Some(self.status.to_le_bytes()[usize::from(offset)]),
            2 | 3 => Some(self.enable.to_le_bytes()[usize::from(offset - 2)]),
            8..=11 => Some((count(now_ns) as u32).to_le_bytes()[usize::from(offset - 8)]),
            _ => None,
        }
    }

    /// Writes the byte at an offset from the base; whether there is one. A status is taken back by writing it.
    pub fn write(&mut self, offset: u16, value: u8, now_ns: u64) -> bool {
        self.look(now_ns);
        let shifted = |at: u16| u16::from(value) << (8 * at);
        match offset {
            0 | 1 => self.status &= !(shifted(offset) & STATUS),
            2 | 3 => {
                let kept = self.enable & !(0xff << (8 * (offset - 2)));
                self.enable = kept | shifted(offset - 2) & ENABLE;
            }
            8..=11 => {}
            _ => return false,
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HALF_NS: u64 = ((1_u128 << 31) * SECOND_NS / HZ) as u64 + 1;

    fn timer(pm: &mut PowerManagement, now: u64) -> u32 {
        u32::from_le_bytes([8, 9, 10, 11].map(|at| pm.read(at, now).unwrap()))
    }

    #[test]
    fn the_timer_counts_its_frequency() {
        let mut pm = PowerManagement::default();
        assert_eq!(timer(&mut pm, 1_000_000_000), 3_579_545);
        assert!(timer(&mut pm, 2 * HALF_NS) < 8);
    }

    #[test]
    fn the_top_bit_interrupts_until_it_is_taken_back() {
        let mut pm = PowerManagement::default();
        assert_eq!(pm.next_interrupt(), None);
        pm.write(2, 1, 0);
        let next = pm.next_interrupt().unwrap();
        assert!(next.abs_diff(HALF_NS) < 2);
        assert!(!pm.asks(next - 1));
        assert!(pm.asks(next));
        pm.write(0, 0xfe, next);
        assert!(pm.asks(next));
        pm.write(0, 1, next);
        assert!(!pm.asks(next));
        assert!(pm.next_interrupt().unwrap() > next);
    }

    #[test]
    fn only_bits_that_exist_are_enabled() {
        let mut pm = PowerManagement::default();
        for at in [2, 3] {
            assert!(pm.write(at, 0xff, 0));
        }
        assert_eq!((pm.read(2, 0), pm.read(3, 0)), (Some(0x21), Some(0x07)));
        assert_eq!((pm.read(4, 0), pm.read(12, 0), pm.write(5, 0, 0)), (None, None, false));
    }
}
