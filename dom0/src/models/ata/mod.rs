//! An ATA channel with up to two disks, by programmed I/O or by its bus master.
//!
//! Both disks see what is written to the registers, the selected one carries commands out and answers. Data moves through
//! a buffer in blocks: at each the channel says that data is to be moved (DRQ) and raises its interrupt; in between it is
//! busy. What a buffer holds is one operation of the medium, which ends when it ends: [`Channel::turn`] looks.
//!
//! Invariants: one operation of a medium is under way at most, and a new one begins only when it has ended, also after a
//! reset; sectors that are asked of a medium are on it; no buffer is larger than [`BUFFER_SECTORS`].
//!
//! Source: ATA/ATAPI-6 (T13 1410D); the registers' places: ATA-1 through -6, "host controller".

mod commands;
mod identify;
mod master;
mod medium;
#[cfg(test)]
mod tests;

use alloc::boxed::Box;

use backends::block::BlockDevice;

use super::Memory;
use master::Master;

pub use medium::Drive;

/// The most sectors in one operation of the medium.
pub const BUFFER_SECTORS: usize = 128;
const SECTOR_BYTES: usize = 512;

/// Status register.
mod status {
    pub(super) const BUSY: u8 = 1 << 7;
    pub(super) const READY: u8 = 1 << 6;
    pub(super) const SEEKED: u8 = 1 << 4;
    pub(super) const DATA: u8 = 1 << 3;
    pub(super) const ERROR: u8 = 1 << 0;
}

/// Error register.
mod error {
    pub(super) const UNCORRECTABLE: u8 = 1 << 6;
    pub(super) const NOT_FOUND: u8 = 1 << 4;
    pub(super) const ABORTED: u8 = 1 << 2;
    /// After a reset and a diagnosis: nothing is wrong.
    pub(super) const GOOD: u8 = 1;
}

/// Device control register.
mod control {
    pub(super) const NO_INTERRUPT: u8 = 1 << 1;
    pub(super) const RESET: u8 = 1 << 2;
    pub(super) const PREVIOUS: u8 = 1 << 7;
}

/// Device register: addresses are block numbers; the second disk.
const LBA: u8 = 1 << 6;
const SECOND: u8 = 1 << 4;

/// Features, count and address: what was written last, and what before.
#[derive(Clone, Copy, Debug, Default)]
struct Registers {
    /// Features, count, LBA low, mid and high, registers 1 to 5.
    last: [u8; 5],
    before: [u8; 5],
    device: u8,
    control: u8,
    error: u8,
}

impl Registers {
    const COUNT: usize = 1;
    const LOW: usize = 2;

    fn features(&self) -> u8 {
        self.last[0]
    }

    fn set_address(&mut self, [low, mid, high]: [u8; 3]) {
        self.last[Self::LOW..].copy_from_slice(&[low, mid, high]);
    }
}

/// What a channel is about.
#[derive(Debug)]
enum Phase<B> {
    Idle,
    /// The guest reads `bytes` from `at` to `block_end`, of a command that may go on.
    ToGuest {
        bytes: Bytes<B>,
        at: usize,
        block_end: usize,
    },
    /// The guest writes them.
    FromGuest {
        bytes: Bytes<B>,
        at: usize,
        block_end: usize,
    },
    /// The bus master moves a buffer, as soon and as far as it is told to.
    Master {
        buffer: B,
        at: usize,
    },
    /// The medium works, or will when it has ended what came before.
    Working,
    /// In reset as long as the guest holds it there.
    Reset,
}

/// What data moves through.
#[derive(Debug)]
enum Bytes<B> {
    /// The channel's own: what a disk says of itself.
    Own(Box<[u8; SECTOR_BYTES]>),
    Medium(B),
}

impl<B: AsRef<[u8]> + AsMut<[u8]>> Bytes<B> {
    fn get(&self) -> &[u8] {
        match self {
            Self::Own(bytes) => &bytes[..],
            Self::Medium(buffer) => buffer.as_ref(),
        }
    }

    fn get_mut(&mut self) -> &mut [u8] {
        match self {
            Self::Own(bytes) => &mut bytes[..],
            Self::Medium(buffer) => buffer.as_mut(),
        }
    }
}

/// A command that moves sectors, as far as it is not done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Job {
    sector: u64,
    /// Sectors that have not been moved between the medium and a buffer.
    left: u32,
    /// Sectors from one interrupt to the next.
    block: usize,
    write: bool,
    /// Nothing is moved to the guest.
    verify: bool,
    /// The bus master moves what is moved.
    master: bool,
    /// The guest was asked for a block.
    begun: bool,
}

/// A channel.
pub struct Channel<D: BlockDevice> {
    drives: [Option<Drive<D>>; 2],
    registers: Registers,
    phase: Phase<D::Buffer>,
    job: Job,
    master: Master,
    /// An interrupt that was not acknowledged.
    interrupt: bool,
}

impl<D: BlockDevice> Channel<D> {
    /// A channel with these disks.
    #[must_use]
    pub fn new(drives: [Option<Drive<D>>; 2]) -> Self {
        let mut channel = Self {
            drives,
            registers: Registers::default(),
            phase: Phase::Idle,
            job: Job::default(),
            master: Master::default(),
            interrupt: false,
        };
        channel.show_signature();
        channel
    }

    /// Whether its interrupt line is high.
    #[must_use]
    pub fn asks(&self) -> bool {
        self.interrupt && self.registers.control & control::NO_INTERRUPT == 0 && self.selected().is_some()
    }

    /// Whether it has disks.
    #[must_use]
    pub fn has_drives(&self) -> bool {
        self.drives.iter().any(Option::is_some)
    }

    /// Their media, for whoever takes them back.
    pub fn into_media(mut self) -> impl Iterator<Item = D> {
        self.stop();
        self.drives.into_iter().flatten().map(Drive::into_medium)
    }

    /// The media.
    pub fn media_mut(&mut self) -> impl Iterator<Item = &mut D> {
        self.drives.iter_mut().flatten().map(Drive::medium_mut)
    }

    /// Looks whether a medium has ended its work, and moves what the bus master is to; whether something went on.
    pub fn turn(&mut self, memory: &mut dyn Memory) -> bool {
        let selected = self.index();
        // Of the other one nobody waits for anything; it only ends what a reset left behind.
        if let Some(other) = &mut self.drives[1 - selected] {
            other.turn();
        }
        let Some(outcome) = self.drives[selected].as_mut().and_then(Drive::turn) else {
            return commands::move_by_master(self, memory);
        };
        commands::after_medium(self, outcome);
        true
    }

    /// Reads a register of the command block, 0 to 7; the data register with 1, 2 or 4 bytes.
    pub fn read(&mut self, register: u16, size: u8) -> u32 {
        if self.selected().is_none() {
            return 0;
        }
        let registers = &self.registers;
        let previous = registers.control & control::PREVIOUS != 0;
        let shown = if previous { &registers.before } else { &registers.last };
        match register {
            0 => self.read_data(size),
            1 => registers.error.into(),
            at @ 2..=5 => shown[usize::from(at) - 1].into(),
            6 => (registers.device | 0xa0).into(),
            7 => {
                self.interrupt = false;
                self.status().into()
            }
            _ => 0xff,
        }
    }

    /// Writes a register of the command block.
    pub fn write(&mut self, register: u16, size: u8, value: u32) {
        let byte = value as u8;
        if register == 0 {
            return self.write_data(size, value);
        }
        self.registers.control &= !control::PREVIOUS;
        if self.is_busy() && register != 7 {
            return;
        }
        match register {
            at @ 1..=5 => {
                let at = usize::from(at) - 1;
                self.registers.before[at] = core::mem::replace(&mut self.registers.last[at], byte);
            }
            6 => self.registers.device = byte,
            7 if self.selected().is_some() && !self.is_busy() => {
                self.interrupt = false;
                commands::begin(self, byte);
            }
            _ => {}
        }
    }

    /// Reads the alternate status, which acknowledges nothing.
    #[must_use]
    pub fn read_control(&self) -> u8 {
        self.status()
    }

    /// Writes the device control register.
    pub fn write_control(&mut self, value: u8) {
        let held = self.registers.control & control::RESET != 0;
        self.registers.control = value;
        if value & control::RESET != 0 {
            self.stop();
            self.phase = Phase::Reset;
        } else if held {
            self.phase = Phase::Idle;
            self.show_signature();
            self.drives.iter_mut().flatten().for_each(Drive::reset);
        }
    }

    /// Reads a register of its bus master, 0 to 7.
    #[must_use]
    pub fn read_master(&self, register: u16) -> u8 {
        self.master.read(register)
    }

    /// Writes one.
    pub fn write_master(&mut self, register: u16, value: u8) {
        self.master.write(register, value);
    }

    fn raise(&mut self) {
        self.interrupt = true;
        self.master.note_interrupt();
    }

    fn index(&self) -> usize {
        usize::from(self.registers.device & SECOND != 0)
    }

    fn selected(&self) -> Option<&Drive<D>> {
        self.drives[self.index()].as_ref()
    }

    fn is_busy(&self) -> bool {
        matches!(self.phase, Phase::Master { .. } | Phase::Working | Phase::Reset)
    }

    fn status(&self) -> u8 {
        if self.selected().is_none() {
            return 0;
        }
        let wrong = if self.registers.error & !error::GOOD != 0 { status::ERROR } else { 0 };
        match self.phase {
            Phase::Master { .. } | Phase::Working | Phase::Reset => status::BUSY,
            Phase::ToGuest { .. } | Phase::FromGuest { .. } => status::READY | status::SEEKED | status::DATA | wrong,
            Phase::Idle => status::READY | status::SEEKED | wrong,
        }
    }

    /// What registers show after a reset and a diagnosis.
    fn show_signature(&mut self) {
        let control = self.registers.control;
        self.registers = Registers { last: [0, 1, 1, 0, 0], control, error: error::GOOD, ..Registers::default() };
        self.interrupt = false;
    }

    /// Stops what is under way; what a medium works on ends without anybody hearing.
    fn stop(&mut self) {
        let phase = core::mem::replace(&mut self.phase, Phase::Idle);
        let index = self.index();
        if let (
            Phase::ToGuest { bytes: Bytes::Medium(buffer), .. }
            | Phase::FromGuest { bytes: Bytes::Medium(buffer), .. }
            | Phase::Master { buffer, .. },
            Some(drive),
        ) = (phase, &mut self.drives[index])
        {
            drive.medium_mut().give_back(buffer);
        }
        self.drives.iter_mut().flatten().for_each(Drive::forget_waiting);
        self.job = Job::default();
    }

    fn read_data(&mut self, size: u8) -> u32 {
        let mut value = [0; 4];
        let Phase::ToGuest { bytes, at, block_end } = &mut self.phase else {
            return 0;
        };
        let end = (*at + usize::from(size)).min(*block_end);
        value.iter_mut().zip(&bytes.get()[*at..end]).for_each(|(to, from)| *to = *from);
        *at = end;
        if end == *block_end {
            commands::block_read(self);
        }
        u32::from_le_bytes(value)
    }

    fn write_data(&mut self, size: u8, value: u32) {
        let Phase::FromGuest { bytes, at, block_end } = &mut self.phase else {
            return;
        };
        let end = (*at + usize::from(size)).min(*block_end);
        bytes.get_mut()[*at..end].iter_mut().zip(value.to_le_bytes()).for_each(|(to, from)| *to = from);
        *at = end;
        if end == *block_end {
            commands::block_written(self);
        }
    }
}
