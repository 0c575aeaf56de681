//! Two 8259A interrupt controllers, the second on line 2 of the first, and the registers that say which lines are levels.
//!
//! An edge is kept until it is acknowledged; a level asks as long as it is high. Of what asks and is not masked, the
//! highest priority wins, if none that is as high is in service. What a guest writes is never more than eight bits of
//! state, so every sequence is good; one that a data sheet does not know does what its bits say.
//!
//! Source: Intel 8259A data sheet (231468); Intel 82371SB (PIIX3) §4.2.5 for the level registers.

/// The line of the first chip that the second is on.
const CASCADE: u8 = 2;
/// Lines that can be levels, for each chip: not the timer, the keyboard, the cascade, the clock, and the coprocessor.
const CAN_BE_LEVEL: [u8; 2] = [0xf8, 0xde];

/// What the next write to the odd port means.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Expects {
    #[default]
    Mask,
    Base,
    Cascade,
    Mode,
}

/// What the next read of the even port gives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Reads {
    #[default]
    Requests,
    InService,
    /// An acknowledgement, once, and then this.
    Poll {
        in_service: bool,
    },
}

/// One chip. Bit `n` of a byte is line `n`.
#[derive(Clone, Copy, Debug, Default)]
struct Chip {
    lines: u8,
    requests: u8,
    in_service: u8,
    masked: u8,
    levels: u8,
    base: u8,
    /// The line with the highest priority.
    first: u8,
    expects: Expects,
    reads: Reads,
    single: bool,
    wants_mode: bool,
    auto_end: bool,
    rotates: bool,
    special_mask: bool,
    nested: bool,
}

impl Chip {
    /// The line of highest priority in a set, with its priority, 0 the highest.
    fn highest(&self, set: u8) -> Option<(u8, u8)> {
        let priority = set.rotate_right(self.first.into()).trailing_zeros() as u8;
        (set != 0).then_some(((priority + self.first) & 7, priority))
    }

    /// The line whose interrupt is to be delivered.
    fn due(&self) -> Option<u8> {
        let (line, priority) = self.highest(self.requests & !self.masked)?;
        let mut holds = self.in_service;
        if self.special_mask {
            holds &= !self.masked;
        }
        if self.nested {
            holds &= !(1 << CASCADE);
        }
        self.highest(holds).is_none_or(|(_, held)| priority < held).then_some(line)
    }

    fn set_line(&mut self, line: u8, level: bool) {
        let bit = 1 << line;
        let was = self.lines & bit != 0;
        self.lines = if level { self.lines | bit } else { self.lines & !bit };
        if level && (!was || self.levels & bit != 0) {
            self.requests |= bit;
        } else if !level && self.levels & bit != 0 {
            self.requests &= !bit;
        }
    }

    fn acknowledge(&mut self, line: u8) {
        let bit = 1 << line;
        if self.levels & bit == 0 {
            self.requests &= !bit;
        }
        if !self.auto_end {
            self.in_service |= bit;
        } else if self.rotates {
            self.first = (line + 1) & 7;
        }
    }

    /// The answer to a poll command.
    fn poll(&mut self) -> u8 {
        self.due().map_or(0, |line| {
            self.acknowledge(line);
            0x80 | line
        })
    }

    fn read(&mut self, odd: bool) -> u8 {
        if let Reads::Poll { in_service } = self.reads {
            self.reads = if in_service { Reads::InService } else { Reads::Requests };
            return self.poll();
        }
        match (odd, self.reads) {
            (true, _) => self.masked,
            (false, Reads::InService) => self.in_service,
            (false, _) => self.requests,
        }
    }

    fn write(&mut self, odd: bool, value: u8) {
        const START: u8 = 1 << 4;
        const READ_COMMAND: u8 = 1 << 3;
        match odd {
            true => self.write_word(value),
            false if value & START != 0 => self.start(value),
            false if value & READ_COMMAND != 0 => self.choose(value),
            false => self.end(value),
        }
    }

    /// The first word of the initialisation.
    fn start(&mut self, value: u8) {
        *self = Self {
            lines: self.lines,
            levels: self.levels,
            base: self.base,
            requests: self.lines & self.levels,
            expects: Expects::Base,
            single: value & 2 != 0,
            wants_mode: value & 1 != 0,
            ..Self::default()
        };
    }

    fn write_word(&mut self, value: u8) {
        match self.expects {
            Expects::Mask => self.masked = value,
            Expects::Base => {
                self.base = value & !7;
                self.expects = if self.single { self.after_cascade() } else { Expects::Cascade };
            }
            Expects::Cascade => self.expects = self.after_cascade(),
            Expects::Mode => {
                self.auto_end = value & 2 != 0;
                self.nested = value & 0x10 != 0;
                self.expects = Expects::Mask;
            }
        }
    }

    fn after_cascade(&self) -> Expects {
        if self.wants_mode { Expects::Mode } else { Expects::Mask }
    }

    /// The command that chooses what is read.
    fn choose(&mut self, value: u8) {
        if value & 0x40 != 0 {
            self.special_mask = value & 0x20 != 0;
        }
        match value & 7 {
            2 => self.reads = Reads::Requests,
            3 => self.reads = Reads::InService,
            4.. => self.reads = Reads::Poll { in_service: self.reads == Reads::InService },
            _ => {}
        }
    }

    /// The commands that end an interrupt or turn priorities.
    fn end(&mut self, value: u8) {
        let named = value & 7;
        match value >> 5 {
            0 => self.rotates = false,
            4 => self.rotates = true,
            6 => self.first = (named + 1) & 7,
            command @ (1 | 5) => {
                // In special mask mode what is masked does not end by itself.
                let holds = if self.special_mask { self.in_service & !self.masked } else { self.in_service };
                if let Some((line, _)) = self.highest(holds) {
                    self.finish(line, command == 5);
                }
            }
            command @ (3 | 7) => self.finish(named, command == 7),
            _ => {}
        }
    }

    fn finish(&mut self, line: u8, rotate: bool) {
        self.in_service &= !(1 << line);
        if rotate {
            self.first = (line + 1) & 7;
        }
    }
}

/// Both chips.
#[derive(Clone, Debug, Default)]
pub struct Pic {
    chips: [Chip; 2],
}

impl Pic {
    /// Sets an input, 0 to 15; others, and the cascade's, are not there.
    pub fn set_line(&mut self, line: u8, level: bool) {
        if line < 16 && line != CASCADE {
            self.chips[usize::from(line >> 3)].set_line(line & 7, level);
        }
        self.connect();
    }

    /// Whether the pair asks the CPU for an interrupt.
    #[must_use]
    pub fn asks(&self) -> bool {
        self.chips[0].due().is_some()
    }

    /// The CPU takes the interrupt: its vector. Where none asks any more, it is line 7's and nothing is in service.
    pub fn acknowledge(&mut self) -> u8 {
        let [first, second] = &mut self.chips;
        let Some(line) = first.due() else {
            return first.base | 7;
        };
        first.acknowledge(line);
        let vector = if line == CASCADE && !first.single {
            let line = second.due();
            if let Some(line) = line {
                second.acknowledge(line);
            }
            second.base | line.unwrap_or(7)
        } else {
            first.base | line
        };
        self.connect();
        vector
    }

    /// Reads one of the ports 20h, 21h, A0h, A1h, 4D0h, 4D1h; none other is here.
    pub fn read(&mut self, port: u16) -> Option<u8> {
        let value = match port {
            0x20 | 0x21 => self.chips[0].read(port & 1 != 0),
            0xa0 | 0xa1 => self.chips[1].read(port & 1 != 0),
            0x4d0 | 0x4d1 => self.chips[usize::from(port & 1)].levels,
            _ => return None,
        };
        self.connect();
        Some(value)
    }

    /// Writes one of these ports; whether it is one.
    pub fn write(&mut self, port: u16, value: u8) -> bool {
        match port {
            0x20 | 0x21 => self.chips[0].write(port & 1 != 0, value),
            0xa0 | 0xa1 => self.chips[1].write(port & 1 != 0, value),
            0x4d0 | 0x4d1 => {
                let chip = usize::from(port & 1);
                self.chips[chip].levels = value & CAN_BE_LEVEL[chip];
            }
            _ => return false,
        }
        self.connect();
        true
    }

    /// Lets the first chip see whether the second asks.
    fn connect(&mut self) {
        let asks = self.chips[1].due().is_some();
        let first = &mut self.chips[0];
        first.set_line(CASCADE, asks);
        if !asks {
            first.requests &= !(1 << CASCADE);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// As Linux starts them, with vectors from 30h, all lines open.
    fn started() -> Pic {
        let mut pic = Pic::default();
        for (port, value) in
            [(0x20, 0x11), (0x21, 0x30), (0x21, 4), (0x21, 1), (0xa0, 0x11), (0xa1, 0x38), (0xa1, 2), (0xa1, 1)]
        {
            assert!(pic.write(port, value));
        }
        pic
    }

    #[test]
    fn an_edge_is_delivered_once() {
        let mut pic = started();
        pic.set_line(4, true);
        assert!(pic.asks());
        assert_eq!(pic.acknowledge(), 0x34);
        pic.write(0x20, 0x20);
        assert!(!pic.asks());
        pic.set_line(4, false);
        pic.set_line(4, true);
        assert!(pic.asks());
    }

    #[test]
    fn a_level_asks_until_it_is_low() {
        let mut pic = started();
        pic.write(0x4d1, 1 << 2);
        pic.set_line(10, true);
        assert_eq!(pic.acknowledge(), 0x3a);
        assert!(!pic.asks());
        pic.write(0xa0, 0x20);
        pic.write(0x20, 0x20);
        assert!(pic.asks());
        pic.set_line(10, false);
        assert!(!pic.asks());
    }

    #[test]
    fn the_higher_line_goes_first_and_holds_the_lower_back() {
        let mut pic = started();
        pic.set_line(5, true);
        pic.set_line(3, true);
        assert_eq!(pic.acknowledge(), 0x33);
        assert!(!pic.asks());
        pic.write(0x20, 0x63);
        assert_eq!(pic.acknowledge(), 0x35);
    }

    #[test]
    fn the_second_chip_comes_by_line_two() {
        let mut pic = started();
        pic.set_line(14, true);
        pic.write(0x20, 0x0b);
        pic.write(0xa0, 0x0b);
        assert_eq!(pic.acknowledge(), 0x3e);
        assert_eq!((pic.read(0x20), pic.read(0xa0)), (Some(4), Some(0x40)));
        pic.set_line(15, true);
        pic.set_line(9, true);
        pic.write(0x20, 0x20);
        assert_eq!(pic.acknowledge(), 0x39);
    }

    #[test]
    fn a_request_that_went_away_is_line_seven_and_not_in_service() {
        let mut pic = started();
        pic.set_line(1, true);
        pic.write(0x21, 0xff);
        assert_eq!(pic.acknowledge(), 0x37);
        pic.write(0x20, 0x0b);
        assert_eq!(pic.read(0x20), Some(0));
    }

    #[test]
    fn a_masked_line_waits() {
        let mut pic = started();
        pic.write(0x21, 0x10);
        pic.set_line(4, true);
        assert!(!pic.asks());
        assert_eq!((pic.read(0x20), pic.read(0x21)), (Some(0x10), Some(0x10)));
        pic.write(0x21, 0);
        assert_eq!(pic.acknowledge(), 0x34);
    }

    #[test]
    fn what_ends_by_itself_is_never_in_service() {
        let mut pic = started();
        for (port, value) in [(0x20, 0x11), (0x21, 0x30), (0x21, 4), (0x21, 3)] {
            pic.write(port, value);
        }
        pic.set_line(4, true);
        assert_eq!(pic.acknowledge(), 0x34);
        pic.write(0x20, 0x0b);
        assert_eq!(pic.read(0x20), Some(0));
    }

    #[test]
    fn a_poll_acknowledges() {
        let mut pic = started();
        pic.set_line(6, true);
        pic.write(0x20, 0x0c);
        assert_eq!(pic.read(0x20), Some(0x86));
        assert_eq!(pic.read(0x20), Some(0));
        pic.write(0x20, 0x0b);
        assert_eq!(pic.read(0x20), Some(0x40));
    }

    #[test]
    fn a_rotation_makes_the_served_line_the_last() {
        let mut pic = started();
        pic.set_line(3, true);
        pic.acknowledge();
        pic.write(0x20, 0xa0);
        pic.set_line(3, false);
        pic.set_line(3, true);
        pic.set_line(5, true);
        assert_eq!(pic.acknowledge(), 0x35);
    }

    #[test]
    fn a_special_mask_lets_lower_lines_through() {
        let mut pic = started();
        pic.set_line(3, true);
        pic.acknowledge();
        pic.write(0x21, 1 << 3);
        pic.set_line(6, true);
        assert!(!pic.asks());
        pic.write(0x20, 0x68);
        assert_eq!(pic.acknowledge(), 0x36);
    }

    proptest! {
        #[test]
        fn whatever_is_written_a_vector_is_of_one_of_the_chips(
            steps in proptest::collection::vec((0_u16..6, any::<u8>(), 0_u8..20, any::<bool>()), 0..200)
        ) {
            let mut pic = Pic::default();
            for (port, value, line, level) in steps {
                let port = [0x20, 0x21, 0xa0, 0xa1, 0x4d0, 0x4d1][usize::from(port)];
                pic.write(port, value);
                pic.set_line(line, level);
                prop_assert!(pic.read(port).is_some());
                let asked = pic.asks();
                let vector = pic.acknowledge();
                let bases = [pic.chips[0].base, pic.chips[1].base];
                prop_assert!(bases.contains(&(vector & !7)), "{vector:#x}");
                prop_assert!(asked || vector == bases[0] | 7);
            }
        }
    }
}
