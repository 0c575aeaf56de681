//! An ATA disk on the first channel of a PCI IDE controller, by bus-master DMA.
//!
//! One command at a time: its data go through a buffer of [`MAX_BYTES`], which the controller reaches page by page through a
//! table. The thread that gave the command sleeps until the channel's interrupt.
//!
//! Source: ATA/ATAPI-6 (T13 1410D); "Programming Interface for Bus Master IDE Controller", revision 1.0.

use core::arch::asm;
use core::fmt;

use spin::Once;
use x86_64::instructions::port::Port;

use super::{lines, pci};
use crate::mm::frames::FRAMES;
use crate::mm::{PAGE_SIZE, Pfn, phys};
use crate::sync::SleepLock;
use crate::task::Signal;
use crate::time::{SECOND_NS, now_ns};

/// Bytes in a sector.
pub const SECTOR_BYTES: usize = 512;
/// The most that one command moves.
pub const MAX_BYTES: usize = PAGES * PAGE_SIZE;
const PAGES: usize = 32;

/// Class of an IDE controller.
const IDE: u16 = 0x0101;
/// The first channel's registers, and its control register, where the controller has them by custom.
const CHANNEL: u16 = 0x1f0;
const CONTROL: u16 = 0x3f6;
const LINE: u8 = 14;

const COUNT: u16 = CHANNEL + 2;
const LBA: [u16; 3] = [CHANNEL + 3, CHANNEL + 4, CHANNEL + 5];
const DEVICE: u16 = CHANNEL + 6;
const COMMAND: u16 = CHANNEL + 7;

const BUSY: u8 = 0x80;
const DATA_READY: u8 = 0x08;
const FAILED: u8 = 0x21;
/// Device register: sectors are named by number.
const BY_NUMBER: u8 = 0x40;

const IDENTIFY: u8 = 0xec;
/// Identity, word 83: 48-bit numbers; word 86 repeats what is enabled.
const KNOWS_48_BITS: u16 = 1 << 10;

/// Bus master: start; the disk's data go to memory.
const START: u8 = 1;
const TO_MEMORY: u8 = 8;
/// Bus master status: error, interrupt; written back to clear them.
const MASTER_ERROR: u8 = 2;
const MASTER_INTERRUPT: u8 = 4;
/// The last entry of the table.
const LAST: u64 = 1 << 63;

/// How long a command may take.
const PATIENCE_NS: u64 = 10 * SECOND_NS;

/// Why the disk did not do it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AtaError {
    /// There is none.
    NoDisk,
    /// It did not answer in time.
    Silent,
    /// It said that it failed.
    Failed,
    /// The sectors are not all on the disk, or more than one command moves.
    Range,
}

impl fmt::Display for AtaError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoDisk => "this machine has no disk",
            Self::Silent => "the disk does not answer",
            Self::Failed => "the disk failed",
            Self::Range => "these sectors are not on the disk",
        })
    }
}

impl core::error::Error for AtaError {}

/// What a command is to do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Work {
    Read,
    Write,
    Flush,
}

struct Disk {
    sectors: u64,
    /// Knows commands with 48-bit numbers.
    large: bool,
    /// The bus master's ports.
    master: u16,
    /// The table of the buffer's pages.
    table: Pfn,
    buffer: [Pfn; PAGES],
}

static DISK: Once<SleepLock<Disk>> = Once::new();
static INTERRUPT: Signal = Signal::new();

fn write_port(port: u16, value: u8) {
    // SAFETY: called with the ports of the channel and of its bus master only, which reach memory only through the table.
    unsafe { Port::new(port).write(value) }
}

fn read_port(port: u16) -> u8 {
    // SAFETY: as above.
    unsafe { Port::new(port).read() }
}

/// Looks for the disk; true when there is one.
pub fn open() -> bool {
    let Some(controller) = pci::find(|function| function.class() == IDE) else { return false };
    controller.enable();
    let found = controller.ports(4).and_then(Disk::identify);
    let Some(disk) = found else { return false };
    DISK.call_once(|| SleepLock::new(disk));
    // What came before is taken back, or it would interrupt now.
    read_port(COMMAND);
    write_port(CONTROL, 0);
    lines::listen(LINE, &INTERRUPT)
}

fn disk() -> Result<&'static SleepLock<Disk>, AtaError> {
    DISK.get().ok_or(AtaError::NoDisk)
}

/// The disk's size in sectors.
///
/// # Errors
/// [`AtaError::NoDisk`].
pub fn sectors() -> Result<u64, AtaError> {
    Ok(disk()?.lock().sectors)
}

/// Reads whole sectors, at most [`MAX_BYTES`].
///
/// # Errors
/// [`AtaError`].
pub fn read(sector: u64, into: &mut [u8]) -> Result<(), AtaError> {
    let disk = disk()?.lock();
    disk.command(Work::Read, sector, into.len())?;
    for (page, part) in disk.buffer.iter().zip(into.chunks_mut(PAGE_SIZE)) {
        phys::copy_out(*page, 0, part);
    }
    Ok(())
}

/// Writes whole sectors, at most [`MAX_BYTES`].
///
/// # Errors
/// [`AtaError`].
pub fn write(sector: u64, data: &[u8]) -> Result<(), AtaError> {
    let disk = disk()?.lock();
    for (page, part) in disk.buffer.iter().zip(data.chunks(PAGE_SIZE)) {
        phys::copy_in(*page, 0, part);
    }
    disk.command(Work::Write, sector, data.len())
}

/// Returns when everything written before is durable.
///
/// # Errors
/// [`AtaError`].
pub fn flush() -> Result<(), AtaError> {
    disk()?.lock().command(Work::Flush, 0, 0)
}

/// Waits, without an interrupt, until the disk is not busy; its status.
fn status() -> Result<u8, AtaError> {
    let deadline = now_ns() + PATIENCE_NS;
    while now_ns() < deadline {
        let status = read_port(CONTROL);
        if status & BUSY == 0 {
            return if status & FAILED == 0 { Ok(status) } else { Err(AtaError::Failed) };
        }
        core::hint::spin_loop();
    }
    Err(AtaError::Silent)
}

impl Disk {
    fn identify(master: u16) -> Option<Self> {
        write_port(CONTROL, 2); // no interrupt
        write_port(DEVICE, BY_NUMBER);
        // A channel without a device reads as ones, or stays silent.
        if matches!(read_port(COMMAND), 0 | 0xff) {
            return None;
        }
        write_port(COMMAND, IDENTIFY);
        if status().ok()? & DATA_READY == 0 {
            return None;
        }
        let identity: [u16; 256] = core::array::from_fn(|_| {
            // SAFETY: the data register of the channel.
            unsafe { Port::new(CHANNEL).read() }
        });
        let number = |word: usize| u64::from(identity[word]);
        let large = identity[83] & KNOWS_48_BITS != 0;
        let sectors = if large {
            number(100) | number(101) << 16 | number(102) << 32 | number(103) << 48
        } else {
            number(60) | number(61) << 16
        };
        let frame = || FRAMES.lock().alloc().filter(|pfn| pfn.0 < 1 << 20);
        let (table, mut buffer) = (frame()?, [Pfn(0); PAGES]);
        for (index, page) in buffer.iter_mut().enumerate() {
            *page = frame()?;
            let last = if index + 1 == PAGES { LAST } else { 0 };
            phys::write_u64(table, index, page.0 << 12 | (PAGE_SIZE as u64) << 32 | last);
        }
        Some(Self { sectors, large, master, table, buffer })
    }

    /// Gives the command and sleeps until it is done.
    fn command(&self, work: Work, sector: u64, len_bytes: usize) -> Result<(), AtaError> {
        let count = (len_bytes / SECTOR_BYTES) as u64;
        let fits = len_bytes <= MAX_BYTES && sector.checked_add(count).is_some_and(|end| end <= self.sectors);
        if !fits || (count == 0 && work != Work::Flush) {
            return Err(AtaError::Range);
        }
        INTERRUPT.take();
        status()?;
        let direction = if work == Work::Read { TO_MEMORY } else { 0 };
        if work != Work::Flush {
            self.prepare(direction);
        }
        self.name_sectors(sector, count);
        write_port(COMMAND, self.code(work));
        if work != Work::Flush {
            write_port(self.master, direction | START);
        }
        let done = self.wait();
        if work != Work::Flush {
            write_port(self.master, direction);
        }
        done
    }

    fn prepare(&self, direction: u8) {
        write_port(self.master, direction);
        write_port(self.master + 2, MASTER_ERROR | MASTER_INTERRUPT);
        // SAFETY: the bus master's table register: the table names the buffer's pages, which are this driver's.
        unsafe { Port::new(self.master + 4).write((self.table.0 << 12) as u32) };
    }

    fn name_sectors(&self, sector: u64, count: u64) {
        let bytes = sector.to_le_bytes();
        if self.large {
            // The upper halves first: each register remembers two.
            write_port(COUNT, (count >> 8) as u8);
            LBA.iter().zip(&bytes[3..]).for_each(|(port, byte)| write_port(*port, *byte));
        }
        write_port(COUNT, count as u8);
        LBA.iter().zip(&bytes).for_each(|(port, byte)| write_port(*port, *byte));
        write_port(DEVICE, BY_NUMBER | if self.large { 0 } else { bytes[3] & 15 });
    }

    fn code(&self, work: Work) -> u8 {
        match (work, self.large) {
            (Work::Read, true) => 0x25,
            (Work::Read, false) => 0xc8,
            (Work::Write, true) => 0x35,
            (Work::Write, false) => 0xca,
            (Work::Flush, true) => 0xea,
            (Work::Flush, false) => 0xe7,
        }
    }

    /// Sleeps until the disk has interrupted and is done.
    fn wait(&self) -> Result<(), AtaError> {
        let deadline = now_ns() + PATIENCE_NS;
        loop {
            let came = INTERRUPT.wait_until(deadline);
            // Reading the status takes the interrupt back.
            let status = read_port(COMMAND);
            let master = read_port(self.master + 2);
            write_port(self.master + 2, master | MASTER_INTERRUPT);
            lines::rearm(LINE);
            if status & BUSY == 0 {
                return if status & FAILED == 0 && master & MASTER_ERROR == 0 { Ok(()) } else { Err(AtaError::Failed) };
            }
            if !came {
                return Err(AtaError::Silent);
            }
        }
    }
}

/// Reads words from a port into `into`.
pub(super) fn read_words(port: u16, into: &mut [u16]) {
    // SAFETY: writes the words of the slice; the port is a device's data register.
    unsafe {
        asm!("rep insw", in("dx") port, inout("rdi") into.as_mut_ptr() => _, inout("rcx") into.len() => _,
            options(nostack, preserves_flags));
    }
}

/// Writes words to a port.
pub(super) fn write_words(port: u16, from: &[u16]) {
    // SAFETY: reads the words of the slice; the port is a device's data register.
    unsafe {
        asm!("rep outsw", in("dx") port, inout("rsi") from.as_ptr() => _, inout("rcx") from.len() => _,
            options(nostack, preserves_flags, readonly));
    }
}
