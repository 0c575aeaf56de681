//! The bus master of a channel: it moves a disk's bytes to memory and from there, by a table that the guest has made.
//!
//! An entry of the table is an address, a count of bytes (0 for 64 KiB) and the mark of the last one. Invariant: it moves
//! no more than the disk has for it, and reads one entry for at least one byte.
//!
//! Source: "Programming Interface for Bus Master IDE Controller", revision 1.0.

use crate::models::Memory;

/// Command register.
mod command {
    pub(super) const START: u8 = 1 << 0;
    pub(super) const TO_MEMORY: u8 = 1 << 3;
}

/// Status register.
mod status {
    pub(super) const ACTIVE: u8 = 1 << 0;
    pub(super) const ERROR: u8 = 1 << 1;
    pub(super) const INTERRUPT: u8 = 1 << 2;
    /// What firmware says of the disks.
    pub(super) const CAPABLE: u8 = 3 << 5;
}

const ENTRY_BYTES: u32 = 8;

/// What came of moving bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Moved {
    All,
    /// The table ended before the bytes did.
    Some,
    /// There is no memory where the table is, or where it says; or the direction is another.
    Failed,
}

/// The registers, and how far it is.
#[derive(Debug, Default)]
pub(super) struct Master {
    command: u8,
    status: u8,
    table: u32,
    /// Address of the next entry.
    next: u32,
    /// What is left of the entry before.
    address: u32,
    left: u32,
    last: bool,
}

impl Master {
    pub(super) fn read(&self, register: u16) -> u8 {
        match register {
            0 => self.command,
            2 => self.status,
            at @ 4..8 => self.table.to_le_bytes()[usize::from(at) - 4],
            _ => 0,
        }
    }

    pub(super) fn write(&mut self, register: u16, value: u8) {
        match register {
            0 => self.set_command(value & (command::START | command::TO_MEMORY)),
            2 => {
                let cleared = value & (status::ERROR | status::INTERRUPT);
                self.status = self.status & !cleared & !status::CAPABLE | value & status::CAPABLE;
            }
            at @ 4..8 => {
                let shift = 8 * (u32::from(at) - 4);
                self.table = (self.table & !(0xff << shift) | u32::from(value) << shift) & !3;
            }
            _ => {}
        }
    }

    fn set_command(&mut self, value: u8) {
        let was_on = self.command & command::START != 0;
        self.command = value;
        match (was_on, value & command::START != 0) {
            (false, true) => {
                self.status |= status::ACTIVE;
                (self.next, self.left, self.last) = (self.table, 0, false);
            }
            (true, false) => self.status &= !status::ACTIVE,
            _ => {}
        }
    }

    /// Whether it moves bytes now.
    pub(super) fn is_active(&self) -> bool {
        self.status & status::ACTIVE != 0
    }

    /// The disk has raised its interrupt.
    pub(super) fn note_interrupt(&mut self) {
        self.status |= status::INTERRUPT;
    }

    /// The disk has nothing more to move.
    pub(super) fn end(&mut self) {
        self.status &= !status::ACTIVE;
    }

    /// Moves bytes of the disk's from `at` on, to memory or from there.
    pub(super) fn transfer(
        &mut self,
        memory: &mut dyn Memory,
        bytes: &mut [u8],
        at: &mut usize,
        to_memory: bool,
    ) -> Moved {
        if to_memory != (self.command & command::TO_MEMORY != 0) {
            return self.fail();
        }
        while *at < bytes.len() {
            if self.left == 0 && self.last {
                self.end();
                return Moved::Some;
            }
            if self.left == 0 && !self.take_entry(memory) {
                return self.fail();
            }
            let count = (self.left as usize).min(bytes.len() - *at);
            let part = &mut bytes[*at..*at + count];
            let place = self.address.into();
            let done = if to_memory { memory.write(place, part) } else { memory.read(place, part) };
            if !done {
                return self.fail();
            }
            *at += count;
            self.left -= count as u32;
            self.address = self.address.wrapping_add(count as u32);
        }
        Moved::All
    }

    fn take_entry(&mut self, memory: &mut dyn Memory) -> bool {
        let mut entry = [0; ENTRY_BYTES as usize];
        if !memory.read(self.next.into(), &mut entry) {
            return false;
        }
        let [a, b, c, d, low, high, _, flags] = entry;
        self.next = self.next.wrapping_add(ENTRY_BYTES);
        self.address = u32::from_le_bytes([a & !1, b, c, d]);
        self.left = match u16::from_le_bytes([low & !1, high]) {
            0 => 1 << 16,
            count => count.into(),
        };
        self.last = flags & 1 << 7 != 0;
        true
    }

    fn fail(&mut self) -> Moved {
        self.status = self.status & !status::ACTIVE | status::ERROR;
        Moved::Failed
    }
}
