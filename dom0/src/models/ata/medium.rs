//! A disk of a channel: its medium, and the one operation that is under way there.

use alloc::string::String;

use backends::block::{BlockDevice, DeviceError, DeviceOperation, Tag};

use super::SECTOR_BYTES;

/// An operation that is to begin.
#[derive(Debug)]
pub(super) enum Operation<B> {
    Read {
        sector: u64,
        sectors: usize,
    },
    /// A buffer to fill for a write.
    Buffer {
        sectors: usize,
    },
    Write {
        sector: u64,
        buffer: B,
    },
    Flush,
}

/// What came of one.
#[derive(Debug)]
pub(super) enum Outcome<B> {
    /// A buffer that the guest is to fill.
    Buffer(B),
    /// The medium has done it; what was read is in the buffer.
    Done(Option<B>),
    Failed(Option<B>),
}

/// A disk.
pub struct Drive<D: BlockDevice> {
    medium: D,
    /// What it calls itself.
    pub(super) serial: String,
    /// Sectors between interrupts in commands that move several; zero for none.
    pub(super) multiple: u8,
    /// Heads and sectors of a track, as the guest wants to count.
    pub(super) heads: u8,
    pub(super) track: u8,
    /// Its cache is on: what is answered may not be durable.
    pub(super) caches: bool,
    /// Which of the bus master's modes is set.
    pub(super) mode: u8,
    waiting: Option<Operation<D::Buffer>>,
    /// The operation that the medium works on; whether anybody wants to hear how it ended.
    under_way: Option<bool>,
    tag: u64,
}

impl<D: BlockDevice> Drive<D> {
    /// Whether a medium can be one.
    ///
    /// # Errors
    /// One line: what keeps it from being one.
    pub fn check(medium: &D) -> Result<(), String> {
        let geometry = medium.geometry();
        if geometry.sector_size_bytes as usize != SECTOR_BYTES {
            return Err(alloc::format!("an ATA disk has sectors of 512 bytes, not {}", geometry.sector_size_bytes));
        }
        if geometry.sectors == 0 {
            return Err(String::from("an ATA disk has at least one sector"));
        }
        Ok(())
    }

    /// A disk on a medium.
    ///
    /// # Errors
    /// One line: what keeps the medium from being one.
    pub fn new(medium: D, serial: &str) -> Result<Self, String> {
        Self::check(&medium)?;
        let mut drive = Self {
            medium,
            serial: String::from(serial),
            multiple: 0,
            heads: 0,
            track: 0,
            caches: true,
            mode: 0,
            waiting: None,
            under_way: None,
            tag: 0,
        };
        drive.reset();
        Ok(drive)
    }

    /// The medium.
    pub fn medium_mut(&mut self) -> &mut D {
        &mut self.medium
    }

    /// Its medium back.
    pub fn into_medium(self) -> D {
        self.medium
    }

    pub(super) fn reset(&mut self) {
        (self.multiple, self.heads, self.track, self.caches, self.mode) = (0, 16, 63, true, 2);
    }

    pub(super) fn sectors(&self) -> u64 {
        self.medium.geometry().sectors
    }

    pub(super) fn physical_sector_bytes(&self) -> u32 {
        self.medium.geometry().physical_sector_size_bytes
    }

    pub(super) fn is_read_only(&self) -> bool {
        self.medium.geometry().read_only
    }

    /// The most sectors of one operation.
    pub(super) fn most_sectors(&self) -> usize {
        (self.medium.geometry().max_transfer_bytes / SECTOR_BYTES).clamp(1, super::BUFFER_SECTORS)
    }

    /// Begins an operation, now or when the one before has ended.
    pub(super) fn begin(&mut self, operation: Operation<D::Buffer>) {
        self.waiting = Some(operation);
    }

    /// What has not begun never does, and nobody hears of what has.
    pub(super) fn forget_waiting(&mut self) {
        if let Some(Operation::Write { buffer, .. }) = self.waiting.take() {
            self.medium.give_back(buffer);
        }
        self.under_way = self.under_way.map(|_| false);
    }

    /// Starts what waits, if it can be; an operation's outcome, if one has ended.
    pub(super) fn turn(&mut self) -> Option<Outcome<D::Buffer>> {
        if self.under_way.is_none()
            && let Some(operation) = self.waiting.take()
            && let Some(outcome) = self.start(operation)
        {
            return Some(outcome);
        }
        let wanted = self.under_way?;
        let completion = self.medium.next_completion()?;
        self.under_way = None;
        let outcome = match completion.result {
            Err(DeviceError::Failed | DeviceError::NotSupported) => Outcome::Failed(completion.buffer),
            Ok(()) => Outcome::Done(completion.buffer),
        };
        if wanted {
            return Some(outcome);
        }
        if let Outcome::Done(Some(buffer)) | Outcome::Failed(Some(buffer)) = outcome {
            self.medium.give_back(buffer);
        }
        // What waited for this can begin.
        self.turn()
    }

    fn start(&mut self, operation: Operation<D::Buffer>) -> Option<Outcome<D::Buffer>> {
        let buffer_of = |medium: &mut D, sectors: usize| medium.take_buffer(sectors * SECTOR_BYTES);
        let operation = match operation {
            Operation::Buffer { sectors } => match buffer_of(&mut self.medium, sectors) {
                Some(buffer) => return Some(Outcome::Buffer(buffer)),
                None => return self.wait(operation),
            },
            operation if !self.medium.can_submit() => return self.wait(operation),
            Operation::Read { sector, sectors } => match buffer_of(&mut self.medium, sectors) {
                Some(buffer) => DeviceOperation::Read { sector, buffer },
                None => return self.wait(operation),
            },
            Operation::Write { sector, buffer } => DeviceOperation::Write { sector, buffer },
            Operation::Flush => DeviceOperation::Flush,
        };
        self.tag += 1;
        self.medium.submit(Tag(self.tag), operation);
        self.medium.commit();
        self.under_way = Some(true);
        None
    }

    fn wait(&mut self, operation: Operation<D::Buffer>) -> Option<Outcome<D::Buffer>> {
        self.waiting = Some(operation);
        None
    }
}
