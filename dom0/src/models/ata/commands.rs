//! The commands, and what follows when a block was moved or a medium has ended.
//!
//! Source: ATA/ATAPI-6 §8; the phases of programmed I/O: §9.5, §9.6.

use alloc::boxed::Box;

use backends::block::BlockDevice;

use super::identify::{MOST_MULTIPLE, identify};
use super::master::Moved;
use super::medium::{Drive, Operation, Outcome};
use super::{Bytes, Channel, Job, LBA, Phase, Registers, SECTOR_BYTES, error};
use crate::models::Memory;

/// Begins a command on the selected disk.
pub(super) fn begin<D: BlockDevice>(channel: &mut Channel<D>, command: u8) {
    channel.stop();
    channel.registers.error = 0;
    match command {
        0x20 | 0x21 => transfer(channel, Kind::default()),
        0x24 => transfer(channel, Kind { long: true, ..Kind::default() }),
        0x29 => transfer(channel, Kind { long: true, multiple: true, ..Kind::default() }),
        0xc4 => transfer(channel, Kind { multiple: true, ..Kind::default() }),
        0x30 | 0x31 => transfer(channel, Kind { write: true, ..Kind::default() }),
        0x34 => transfer(channel, Kind { write: true, long: true, ..Kind::default() }),
        0x39 => transfer(channel, Kind { write: true, long: true, multiple: true, ..Kind::default() }),
        0xc5 => transfer(channel, Kind { write: true, multiple: true, ..Kind::default() }),
        0x40 | 0x41 => transfer(channel, Kind { verify: true, ..Kind::default() }),
        0x42 => transfer(channel, Kind { verify: true, long: true, ..Kind::default() }),
        0xc8 | 0xc9 => transfer(channel, Kind { master: true, ..Kind::default() }),
        0x25 => transfer(channel, Kind { master: true, long: true, ..Kind::default() }),
        0xca | 0xcb => transfer(channel, Kind { master: true, write: true, ..Kind::default() }),
        0x35 => transfer(channel, Kind { master: true, write: true, long: true, ..Kind::default() }),
        0xe7 | 0xea => to_medium(channel, Operation::Flush),
        0xec => tell_identity(channel),
        0x90 => {
            channel.show_signature();
            finish(channel);
        }
        0x27 | 0xf8 => tell_size(channel, command == 0x27),
        // Power: it is always on.
        0x98 | 0xe5 => {
            channel.registers.last[Registers::COUNT] = 0xff;
            finish(channel);
        }
        0x10..=0x1f | 0x70 | 0x94..=0x97 | 0xe0..=0xe3 | 0xe6 => finish(channel),
        0x91 => set_geometry(channel),
        0xc6 => set_multiple(channel),
        0xef => set_features(channel),
        _ => fail(channel, error::ABORTED),
    }
}

/// How a command moves sectors.
#[derive(Clone, Copy, Default)]
struct Kind {
    write: bool,
    /// Numbers of 48 bits.
    long: bool,
    multiple: bool,
    verify: bool,
    /// By the bus master.
    master: bool,
}

fn transfer<D: BlockDevice>(channel: &mut Channel<D>, kind: Kind) {
    let Some(drive) = channel.drives[channel.index()].as_ref() else {
        return;
    };
    if kind.write && drive.is_read_only() || kind.multiple && drive.multiple == 0 {
        return fail(channel, error::ABORTED);
    }
    let left = count(&channel.registers, kind.long);
    let found = address(drive, &channel.registers, kind.long);
    let end = found.and_then(|sector| sector.checked_add(left.into()));
    let (Some(sector), true) = (found, end.is_some_and(|end| end <= drive.sectors())) else {
        return fail(channel, error::NOT_FOUND);
    };
    let block = if kind.multiple { drive.multiple.into() } else { 1 };
    let Kind { write, verify, master, .. } = kind;
    channel.job = Job { sector, left, block, write, verify, master, begun: false };
    next_buffer(channel);
}

/// Sectors that a command is for.
fn count(registers: &Registers, long: bool) -> u32 {
    let [last, before] = [registers.last, registers.before].map(|half| u32::from(half[Registers::COUNT]));
    match (long, before << 8 | last) {
        (false, _) => {
            if last == 0 {
                256
            } else {
                last
            }
        }
        (true, 0) => 0x1_0000,
        (true, count) => count,
    }
}

/// The sector that a command begins at.
fn address<D: BlockDevice>(drive: &Drive<D>, registers: &Registers, long: bool) -> Option<u64> {
    let bytes = |half: &[u8; 5]| half[Registers::LOW..].iter().rev().fold(0, |sum, byte| sum << 8 | u64::from(*byte));
    let (last, top) = (bytes(&registers.last), u64::from(registers.device & 0xf));
    if long {
        return Some(bytes(&registers.before) << 24 | last);
    }
    if registers.device & LBA != 0 {
        return Some(top << 24 | last);
    }
    let (cylinder, sector) = (last >> 8, last & 0xff);
    let in_track = sector.checked_sub(1).filter(|sector| *sector < drive.track.into())?;
    (top < drive.heads.into()).then(|| (cylinder * u64::from(drive.heads) + top) * u64::from(drive.track) + in_track)
}

/// Goes on with the job: reads the next buffer, or gets one to fill; ends where nothing is left.
fn next_buffer<D: BlockDevice>(channel: &mut Channel<D>) {
    let Job { sector, left, write, .. } = channel.job;
    if left == 0 {
        let caches = channel.selected().is_none_or(|drive| drive.caches);
        channel.job = Job::default();
        // Without a cache what is answered is durable.
        return if write && !caches { to_medium(channel, Operation::Flush) } else { finish(channel) };
    }
    let most = channel.selected().map_or(1, Drive::most_sectors);
    let sectors = most.min(left as usize);
    to_medium(channel, if write { Operation::Buffer { sectors } } else { Operation::Read { sector, sectors } });
}

fn to_medium<D: BlockDevice>(channel: &mut Channel<D>, operation: Operation<D::Buffer>) {
    channel.phase = Phase::Working;
    if let Some(drive) = &mut channel.drives[channel.index()] {
        drive.begin(operation);
    }
}

/// A medium has ended what the channel waits for.
pub(super) fn after_medium<D: BlockDevice>(channel: &mut Channel<D>, outcome: Outcome<D::Buffer>) {
    let Job { block, write, verify, master, .. } = channel.job;
    match outcome {
        Outcome::Failed(buffer) => {
            give_back(channel, buffer);
            fail(channel, error::UNCORRECTABLE);
        }
        Outcome::Buffer(buffer) if master => channel.phase = Phase::Master { buffer, at: 0 },
        Outcome::Buffer(buffer) => {
            let block_end = block.saturating_mul(SECTOR_BYTES).min(buffer.as_ref().len());
            channel.phase = Phase::FromGuest { bytes: Bytes::Medium(buffer), at: 0, block_end };
            // The first block is asked for without an interrupt.
            if core::mem::replace(&mut channel.job.begun, true) {
                channel.raise();
            }
        }
        Outcome::Done(Some(buffer)) if !write => {
            advance(channel, buffer.as_ref().len());
            if verify {
                give_back(channel, Some(buffer));
                return next_buffer(channel);
            }
            if master {
                channel.phase = Phase::Master { buffer, at: 0 };
                return;
            }
            let block_end = block.saturating_mul(SECTOR_BYTES).min(buffer.as_ref().len());
            channel.phase = Phase::ToGuest { bytes: Bytes::Medium(buffer), at: 0, block_end };
            channel.raise();
        }
        Outcome::Done(buffer) => {
            advance(channel, buffer.as_ref().map_or(0, |buffer| buffer.as_ref().len()));
            give_back(channel, buffer);
            next_buffer(channel);
        }
    }
}

fn advance<D: BlockDevice>(channel: &mut Channel<D>, bytes: usize) {
    let sectors = (bytes / SECTOR_BYTES) as u32;
    channel.job.sector += u64::from(sectors);
    channel.job.left = channel.job.left.saturating_sub(sectors);
}

fn give_back<D: BlockDevice>(channel: &mut Channel<D>, buffer: Option<D::Buffer>) {
    let index = channel.index();
    if let (Some(buffer), Some(drive)) = (buffer, &mut channel.drives[index]) {
        drive.medium_mut().give_back(buffer);
    }
}

/// Lets the bus master move what it is to; whether it did something.
pub(super) fn move_by_master<D: BlockDevice>(channel: &mut Channel<D>, memory: &mut dyn Memory) -> bool {
    let Job { sector, write, .. } = channel.job;
    let Phase::Master { buffer, at } = &mut channel.phase else {
        return false;
    };
    if !channel.master.is_active() {
        return false;
    }
    let moved = channel.master.transfer(memory, buffer.as_mut(), at, !write);
    if moved == Moved::Some {
        return true;
    }
    if let Phase::Master { buffer, .. } = core::mem::replace(&mut channel.phase, Phase::Idle) {
        if moved == Moved::All && write {
            to_medium(channel, Operation::Write { sector, buffer });
            return true;
        }
        give_back(channel, Some(buffer));
    }
    match moved {
        Moved::Failed => fail(channel, error::ABORTED),
        _ => next_buffer(channel),
    }
    true
}

/// The guest has read a block.
pub(super) fn block_read<D: BlockDevice>(channel: &mut Channel<D>) {
    let block_bytes = channel.job.block * SECTOR_BYTES;
    match core::mem::replace(&mut channel.phase, Phase::Idle) {
        Phase::ToGuest { bytes, at, .. } if at < bytes.get().len() => {
            let block_end = (at + block_bytes).min(bytes.get().len());
            channel.phase = Phase::ToGuest { bytes, at, block_end };
            channel.raise();
        }
        Phase::ToGuest { bytes: Bytes::Medium(buffer), .. } => {
            give_back(channel, Some(buffer));
            // The last block ends without an interrupt.
            if channel.job.left > 0 {
                next_buffer(channel);
            }
        }
        _ => {}
    }
}

/// The guest has written a block.
pub(super) fn block_written<D: BlockDevice>(channel: &mut Channel<D>) {
    let Job { sector, block, .. } = channel.job;
    match core::mem::replace(&mut channel.phase, Phase::Idle) {
        Phase::FromGuest { bytes, at, .. } if at < bytes.get().len() => {
            let block_end = (at + block * SECTOR_BYTES).min(bytes.get().len());
            channel.phase = Phase::FromGuest { bytes, at, block_end };
            channel.raise();
        }
        Phase::FromGuest { bytes: Bytes::Medium(buffer), .. } => {
            to_medium(channel, Operation::Write { sector, buffer })
        }
        _ => {}
    }
}

fn finish<D: BlockDevice>(channel: &mut Channel<D>) {
    channel.phase = Phase::Idle;
    channel.master.end();
    channel.raise();
}

fn fail<D: BlockDevice>(channel: &mut Channel<D>, error: u8) {
    channel.job = Job::default();
    channel.registers.error = error;
    finish(channel);
}

fn tell_identity<D: BlockDevice>(channel: &mut Channel<D>) {
    if let Some(drive) = channel.selected() {
        let bytes = Bytes::Own(Box::new(identify(drive)));
        channel.phase = Phase::ToGuest { bytes, at: 0, block_end: SECTOR_BYTES };
        channel.raise();
    }
}

fn tell_size<D: BlockDevice>(channel: &mut Channel<D>, long: bool) {
    let last = channel.selected().map_or(0, Drive::sectors).saturating_sub(1);
    let last = if long { last } else { last.min(0x0fff_ffff) };
    let [a, b, c, d, e, f, ..] = last.to_le_bytes();
    channel.registers.set_address([a, b, c]);
    if long {
        channel.registers.before[Registers::LOW..].copy_from_slice(&[d, e, f]);
    } else {
        channel.registers.device = channel.registers.device & 0xf0 | d;
    }
    finish(channel);
}

fn set_geometry<D: BlockDevice>(channel: &mut Channel<D>) {
    let (track, heads) = (channel.registers.last[Registers::COUNT], (channel.registers.device & 0xf) + 1);
    let index = channel.index();
    match &mut channel.drives[index] {
        Some(drive) if track != 0 => {
            (drive.track, drive.heads) = (track, heads);
            finish(channel);
        }
        _ => fail(channel, error::ABORTED),
    }
}

fn set_multiple<D: BlockDevice>(channel: &mut Channel<D>) {
    let count = channel.registers.last[Registers::COUNT];
    let good = count == 0 || count.is_power_of_two() && count <= MOST_MULTIPLE;
    let index = channel.index();
    if let Some(drive) = &mut channel.drives[index] {
        drive.multiple = if good { count } else { 0 };
    }
    if good { finish(channel) } else { fail(channel, error::ABORTED) }
}

fn set_features<D: BlockDevice>(channel: &mut Channel<D>) {
    let (feature, value) = (channel.registers.features(), channel.registers.last[Registers::COUNT]);
    let index = channel.index();
    let Some(drive) = &mut channel.drives[index] else {
        return;
    };
    match (feature, value) {
        (0x02, _) => drive.caches = true,
        (0x82, _) => {
            drive.caches = false;
            // What is in the cache is to be durable before this is answered.
            return to_medium(channel, Operation::Flush);
        }
        // A mode of the bus master's.
        (0x03, 0x20..=0x22) => drive.mode = value & 7,
        // A mode of programmed I/O; reading ahead; settings across a reset.
        (0x03, 0x00 | 0x01 | 0x08..=0x0c) | (0x55 | 0xaa | 0x66 | 0xcc, _) => {}
        _ => return fail(channel, error::ABORTED),
    }
    finish(channel);
}
