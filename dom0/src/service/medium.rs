//! What can be behind a guest's disk.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;

use backends::block::memory::MemoryDisk;
use backends::block::{BlockDevice, DeviceCompletion, DeviceOperation, Geometry, Tag};

use crate::machine::disk::{DiskBuffer, VirtioDisk};

/// What is behind a guest's disk.
pub(super) enum Medium {
    /// A virtio disk, by its name here.
    Virtio(String, Box<VirtioDisk>),
    /// A copy of a file of the ramdisk.
    Memory(MemoryDisk),
}

impl Medium {
    /// The virtio disk, if it is one.
    pub(super) fn virtio_mut(&mut self) -> Option<&mut VirtioDisk> {
        match self {
            Self::Virtio(_, disk) => Some(disk),
            Self::Memory(_) => None,
        }
    }
}

/// Memory for a request of either kind of disk.
pub(super) enum MediumBuffer {
    Virtio(DiskBuffer),
    Memory(Vec<u8>),
}

impl AsRef<[u8]> for MediumBuffer {
    fn as_ref(&self) -> &[u8] {
        match self {
            Self::Virtio(buffer) => buffer.as_ref(),
            Self::Memory(buffer) => buffer,
        }
    }
}

impl AsMut<[u8]> for MediumBuffer {
    fn as_mut(&mut self) -> &mut [u8] {
        match self {
            Self::Virtio(buffer) => buffer.as_mut(),
            Self::Memory(buffer) => buffer,
        }
    }
}

/// The operation with its buffer taken out of the common type; none if the buffer is of another disk.
fn operation_for<B>(
    operation: DeviceOperation<MediumBuffer>,
    unwrap: impl FnOnce(MediumBuffer) -> Option<B>,
) -> Option<DeviceOperation<B>> {
    Some(match operation {
        DeviceOperation::Read { sector, buffer } => DeviceOperation::Read { sector, buffer: unwrap(buffer)? },
        DeviceOperation::Write { sector, buffer } => DeviceOperation::Write { sector, buffer: unwrap(buffer)? },
        DeviceOperation::Flush => DeviceOperation::Flush,
        DeviceOperation::Discard { sector, sectors, secure } => DeviceOperation::Discard { sector, sectors, secure },
    })
}

fn completion_of<B>(
    completion: DeviceCompletion<B>,
    wrap: impl FnOnce(B) -> MediumBuffer,
) -> DeviceCompletion<MediumBuffer> {
    DeviceCompletion { tag: completion.tag, result: completion.result, buffer: completion.buffer.map(wrap) }
}

impl BlockDevice for Medium {
    type Buffer = MediumBuffer;

    fn geometry(&self) -> Geometry {
        match self {
            Self::Virtio(_, disk) => disk.geometry(),
            Self::Memory(disk) => disk.geometry(),
        }
    }

    fn take_buffer(&mut self, len_bytes: usize) -> Option<MediumBuffer> {
        match self {
            Self::Virtio(_, disk) => disk.take_buffer(len_bytes).map(MediumBuffer::Virtio),
            Self::Memory(disk) => disk.take_buffer(len_bytes).map(MediumBuffer::Memory),
        }
    }

    fn give_back(&mut self, buffer: MediumBuffer) {
        match (self, buffer) {
            (Self::Virtio(_, disk), MediumBuffer::Virtio(buffer)) => disk.give_back(buffer),
            (Self::Memory(disk), MediumBuffer::Memory(buffer)) => disk.give_back(buffer),
            _ => {}
        }
    }

    fn can_submit(&self) -> bool {
        match self {
            Self::Virtio(_, disk) => disk.can_submit(),
            Self::Memory(disk) => disk.can_submit(),
        }
    }

    fn submit(&mut self, tag: Tag, operation: DeviceOperation<MediumBuffer>) {
        match self {
            Self::Virtio(_, disk) => {
                let unwrap = |buffer| match buffer {
                    MediumBuffer::Virtio(buffer) => Some(buffer),
                    MediumBuffer::Memory(_) => None,
                };
                operation_for(operation, unwrap).into_iter().for_each(|operation| disk.submit(tag, operation));
            }
            Self::Memory(disk) => {
                let unwrap = |buffer| match buffer {
                    MediumBuffer::Memory(buffer) => Some(buffer),
                    MediumBuffer::Virtio(_) => None,
                };
                operation_for(operation, unwrap).into_iter().for_each(|operation| disk.submit(tag, operation));
            }
        }
    }

    fn commit(&mut self) {
        match self {
            Self::Virtio(_, disk) => disk.commit(),
            Self::Memory(disk) => disk.commit(),
        }
    }

    fn is_quiet(&self) -> bool {
        match self {
            Self::Virtio(_, disk) => disk.is_quiet(),
            Self::Memory(disk) => disk.is_quiet(),
        }
    }

    fn next_completion(&mut self) -> Option<DeviceCompletion<MediumBuffer>> {
        match self {
            Self::Virtio(_, disk) => disk.next_completion().map(|done| completion_of(done, MediumBuffer::Virtio)),
            Self::Memory(disk) => disk.next_completion().map(|done| completion_of(done, MediumBuffer::Memory)),
        }
    }
}
