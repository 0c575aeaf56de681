//! The machine's disk: the block front end made blocking, or natively the ATA disk.
//!
//! Of the front end a thread (`disk`) lets the driver work whenever its back end or the store says something, also when
//! nobody uses the disk: a back end that goes away or comes back is answered at once. Whoever uses the disk submits a
//! request and sleeps until the thread has brought its answer.

use core::fmt;

use frontends::block::{BlockError, BlockFront, Completion, Operation, Options, RequestId, SubmitError};
use pv_bus::Store;
use pv_guest_kernel::platform::is_xen;
use pv_guest_kernel::platform::native::ata::{self, AtaError};
use pv_guest_kernel::sync::SleepLock;
use pv_guest_kernel::task::{self, Signal};
use pv_guest_kernel::time::{SECOND_NS, now_ns};

use crate::driver::{self, Hal};

/// How long a request may take, a back end's restart included.
const PATIENCE_NS: u64 = 30 * SECOND_NS;

/// Bytes in a sector.
pub(crate) const SECTOR_BYTES: usize = 512;

struct Disk {
    hal: Hal,
    front: BlockFront<Hal>,
}

static DISK: SleepLock<Option<Disk>> = SleepLock::new(None);
/// One request at a time.
static TURN: SleepLock<()> = SleepLock::new(());
/// Raised when the driver has worked.
static PROGRESS: Signal = Signal::new();

/// Why the disk did not do it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum DiskError {
    /// The domain was given no disk.
    NoDisk,
    /// The back end does not answer.
    Silent,
    /// The request was not taken.
    Refused(SubmitError),
    /// The request failed.
    Failed(BlockError),
    /// The ATA disk did not do it.
    Ata(AtaError),
}

impl From<AtaError> for DiskError {
    fn from(error: AtaError) -> Self {
        if error == AtaError::NoDisk { Self::NoDisk } else { Self::Ata(error) }
    }
}

impl fmt::Display for DiskError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoDisk => f.write_str("this machine has no disk"),
            Self::Silent => f.write_str("the disk's back end does not answer"),
            Self::Refused(error) => write!(f, "the disk does not take the request: {error}"),
            Self::Failed(error) => write!(f, "the disk failed: {error}"),
            Self::Ata(error) => error.fmt(f),
        }
    }
}

impl core::error::Error for DiskError {}

/// Opens the disk whose directory in the store is `path`. The handshake goes on in the background.
pub(crate) fn open(path: &str) {
    let Some(mut hal) = driver::connect() else {
        return;
    };
    let signal = hal.signal();
    match BlockFront::open(&mut hal, path, Options::default()) {
        Ok(front) => {
            *DISK.lock() = Some(Disk { hal, front });
            task::spawn("disk", move || serve(&signal));
        }
        Err(error) => log::error!("{path}: {error}"),
    }
}

/// The thread.
fn serve(signal: &Signal) {
    loop {
        let _ = with(|disk| {
            disk.work();
            Ok(())
        });
        PROGRESS.raise();
        signal.wait();
    }
}

/// The disk's size in sectors, as its back end or the disk itself says.
///
/// # Errors
/// [`DiskError::NoDisk`], or [`DiskError::Silent`] when it says nothing.
pub(crate) fn sectors() -> Result<u64, DiskError> {
    if !is_xen() {
        return Ok(ata::sectors()?);
    }
    wait_for(|disk| disk.front.device().map(|device| device.sectors))
}

/// Sleeps until `look` finds what it looks for.
fn wait_for<R>(mut look: impl FnMut(&mut Disk) -> Option<R>) -> Result<R, DiskError> {
    let deadline = now_ns() + PATIENCE_NS;
    loop {
        if let Some(found) = with(|disk| Ok(look(disk)))? {
            return Ok(found);
        }
        if !PROGRESS.wait_until(deadline) {
            return Err(DiskError::Silent);
        }
    }
}

fn with<R>(action: impl FnOnce(&mut Disk) -> Result<R, DiskError>) -> Result<R, DiskError> {
    action(DISK.lock().as_mut().ok_or(DiskError::NoDisk)?)
}

/// Reads whole sectors.
///
/// # Errors
/// [`DiskError`].
pub(crate) fn read(sector: u64, into: &mut [u8]) -> Result<(), DiskError> {
    if !is_xen() {
        return in_parts(sector, into.chunks_mut(ata::MAX_BYTES), ata::read);
    }
    let operation = Operation::Read { sector, len_bytes: into.len() };
    transfer(operation, into)
}

/// Writes whole sectors.
///
/// # Errors
/// [`DiskError`].
pub(crate) fn write(sector: u64, data: &[u8]) -> Result<(), DiskError> {
    if !is_xen() {
        return in_parts(sector, data.chunks(ata::MAX_BYTES), ata::write);
    }
    transfer(Operation::Write { sector, data }, &mut [])
}

/// The ATA disk takes so much at a time.
fn in_parts<P: AsRef<[u8]>>(
    first: u64,
    parts: impl Iterator<Item = P>,
    transfer: impl Fn(u64, P) -> Result<(), AtaError>,
) -> Result<(), DiskError> {
    let mut sector = first;
    for part in parts {
        let count = (part.as_ref().len() / SECTOR_BYTES) as u64;
        transfer(sector, part)?;
        sector += count;
    }
    Ok(())
}

/// Returns when everything written before is durable.
///
/// # Errors
/// [`DiskError`]; a disk without a cache that could be flushed counts as durable.
pub(crate) fn flush() -> Result<(), DiskError> {
    if !is_xen() {
        return Ok(ata::flush()?);
    }
    match transfer(Operation::Flush, &mut []) {
        Err(DiskError::Failed(BlockError::NotSupported)) => Ok(()),
        other => other,
    }
}

fn transfer(operation: Operation<'_>, into: &mut [u8]) -> Result<(), DiskError> {
    let _turn = TURN.lock();
    sectors()?;
    let id = with(|disk| disk.submit(operation))?;
    let completion = wait_for(|disk| disk.completion(into).filter(|done| done.id == id))?;
    completion.result.map_err(DiskError::Failed)
}

impl Disk {
    fn submit(&mut self, operation: Operation<'_>) -> Result<RequestId, DiskError> {
        let id = self.front.submit(&mut self.hal, operation).map_err(DiskError::Refused)?;
        self.front.kick(&mut self.hal);
        Ok(id)
    }

    /// The next answer; a successful read's bytes go to `into`.
    fn completion(&mut self, into: &mut [u8]) -> Option<Completion> {
        self.front.next_completion(&mut self.hal, |completion, data| {
            let len = into.len().min(data.len_bytes());
            if completion.result.is_ok() {
                data.copy_to(0, &mut into[..len]);
            }
            completion
        })
    }

    fn work(&mut self) {
        if self.hal.has_moved() {
            if let Err(error) = self.front.resume(&mut self.hal) {
                log::error!("the disk did not come along: {error}");
            }
            self.hal.settle_in();
        }
        while let Some(event) = self.hal.next_watch_event() {
            self.front.on_watch(&mut self.hal, &event);
        }
        self.front.poll(&mut self.hal);
    }
}
