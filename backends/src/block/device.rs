//! The disk behind a back end.

/// What a disk is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Geometry {
    /// Its size in sectors of 512 bytes.
    pub sectors: u64,
    /// The unit of its requests in bytes: a power of two, at least 512.
    pub sector_size_bytes: u32,
    /// What the medium itself works in, a multiple of the unit.
    pub physical_sector_size_bytes: u32,
    /// It cannot be written.
    pub read_only: bool,
    /// It is a CD-ROM.
    pub cdrom: bool,
    /// It can make durable what it answered; without this, what it answers is durable.
    pub can_flush: bool,
    /// It can forget sectors.
    pub discard: Option<DiscardSupport>,
    /// The largest buffer [`BlockDevice::take_buffer`] can give.
    pub max_transfer_bytes: usize,
}

/// How a disk forgets sectors.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DiscardSupport {
    /// Unit in bytes.
    pub granularity_bytes: u32,
    /// Where the first unit starts, in bytes.
    pub alignment_bytes: u32,
    /// It can make them unrecoverable.
    pub secure: bool,
}

/// Names an operation that a device is at work on.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
pub struct Tag(pub u64);

/// What a device is to do. The buffer decides how many bytes.
#[derive(Debug)]
pub enum DeviceOperation<B> {
    /// Fill the buffer.
    Read {
        /// First sector, in units of 512 bytes.
        sector: u64,
        /// Where the data goes.
        buffer: B,
    },
    /// Write the buffer.
    Write {
        /// First sector, in units of 512 bytes.
        sector: u64,
        /// The data.
        buffer: B,
    },
    /// Make everything durable that was answered before.
    Flush,
    /// Forget sectors.
    Discard {
        /// First sector, in units of 512 bytes.
        sector: u64,
        /// How many.
        sectors: u64,
        /// Beyond recovery.
        secure: bool,
    },
}

/// How an operation of a device ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DeviceError {
    /// The device failed.
    Failed,
    /// The device does not know the operation.
    NotSupported,
}

/// An operation that a device has finished.
#[derive(Debug)]
pub struct DeviceCompletion<B> {
    /// Which one.
    pub tag: Tag,
    /// How it ended.
    pub result: Result<(), DeviceError>,
    /// The buffer that came with it.
    pub buffer: Option<B>,
}

/// A disk that takes operations and finishes them later, in any order.
///
/// A device gives out its own buffers, so that it can choose memory that its hardware reaches.
pub trait BlockDevice {
    /// Memory for the data of one operation.
    type Buffer: AsRef<[u8]> + AsMut<[u8]>;

    /// What the disk is. May change; the back end is told to look again by
    /// [`BlockBack::resize`](super::BlockBack::resize).
    fn geometry(&self) -> Geometry;

    /// A buffer of exactly this many bytes; none while there is no memory for it.
    fn take_buffer(&mut self, len_bytes: usize) -> Option<Self::Buffer>;

    /// Takes a buffer back.
    fn give_back(&mut self, buffer: Self::Buffer);

    /// Whether [`submit`](Self::submit) can be called now.
    fn can_submit(&self) -> bool;

    /// Starts an operation. The sectors are on the device, and whole; the tag is unique among the unfinished ones.
    fn submit(&mut self, tag: Tag, operation: DeviceOperation<Self::Buffer>);

    /// Called once after a series of submissions: a device that wants to be kicked kicks itself here.
    fn commit(&mut self) {}

    /// Whether nothing is under way that an earlier back end has started: what it left could land on top of what comes.
    fn is_quiet(&self) -> bool {
        true
    }

    /// The next operation that is finished.
    fn next_completion(&mut self) -> Option<DeviceCompletion<Self::Buffer>>;
}
