//! What a guest's access is to its board: which port, how often, and where its bytes are.
//!
//! A repeated access moves elements one by one through a port, and all together between memory and here. Invariant: an
//! access makes at most [`MOST`] steps and takes no more memory than the elements of them, whatever it says of itself.
//!
//! Source: Xen `public/hvm/ioreq.h`.

use backends::block::BlockDevice;
use pv_abi::hvm::ioreq::{IOREQ_TYPE_PCI_CONFIG, IOREQ_TYPE_PIO, Ioreq};

use super::Memory;
use super::board::Board;
use super::pci::Place;

/// The most elements of a repeated access. The hypervisor's own bound is what fits in a page.
const MOST: u32 = 4096;

/// Makes the access; gives what is read, ones where nothing is.
pub fn make<D: BlockDevice>(board: &mut Board<D>, memory: &mut dyn Memory, request: &Ioreq) -> u64 {
    let Some(size) = u8::try_from(request.size).ok().filter(|size| matches!(size, 1 | 2 | 4)) else {
        return u64::MAX;
    };
    match request.type_ {
        IOREQ_TYPE_PIO => {
            let Ok(port) = u16::try_from(request.addr) else { return u64::MAX };
            let mut target = Target::Port(board, port);
            if request.data_is_ptr() { repeat(&mut target, memory, request, size) } else { target.once(request, size) }
        }
        IOREQ_TYPE_PCI_CONFIG => {
            let (function, offset) = (request.addr >> 32, request.addr as u32);
            // Other buses and segments are none.
            if function > 0xff || request.data_is_ptr() {
                return u64::MAX;
            }
            let place = Place { device: (function >> 3) as u8, function: (function & 7) as u8 };
            Target::Config(board, place, offset).once(request, size)
        }
        _ => u64::MAX,
    }
}

/// What is accessed.
enum Target<'a, D: BlockDevice> {
    Port(&'a mut Board<D>, u16),
    Config(&'a mut Board<D>, Place, u32),
}

impl<D: BlockDevice> Target<'_, D> {
    fn read(&mut self, size: u8) -> u32 {
        match self {
            Self::Port(board, port) => board.read(*port, size),
            Self::Config(board, place, offset) => board.read_config(*place, *offset, size),
        }
    }

    fn write(&mut self, size: u8, value: u32) {
        match self {
            Self::Port(board, port) => board.write(*port, size, value),
            Self::Config(board, place, offset) => board.write_config(*place, *offset, size, value),
        }
    }

    fn once(&mut self, request: &Ioreq, size: u8) -> u64 {
        if request.is_read() {
            return self.read(size).into();
        }
        self.write(size, request.data as u32);
        request.data
    }
}

/// Moves elements between memory and the target. What memory does not have is read as ones and not written.
fn repeat<D: BlockDevice>(target: &mut Target<'_, D>, memory: &mut dyn Memory, request: &Ioreq, size: u8) -> u64 {
    let width = usize::from(size);
    let count = request.count.min(MOST) as usize;
    let mut bytes = alloc::vec![0xff; count * width];
    // Downwards, the last element lies lowest.
    let below = if request.goes_down() { count.saturating_sub(1) * width } else { 0 };
    let start = request.data.wrapping_sub(below as u64);
    let place = |index: usize| if request.goes_down() { count - 1 - index } else { index } * width;
    if request.is_read() {
        for index in 0..count {
            bytes[place(index)..][..width].copy_from_slice(&target.read(size).to_le_bytes()[..width]);
        }
        memory.write(start, &bytes);
    } else {
        memory.read(start, &mut bytes);
        for index in 0..count {
            let mut value = [0; 4];
            value[..width].copy_from_slice(&bytes[place(index)..][..width]);
            target.write(size, u32::from_le_bytes(value));
        }
    }
    request.data
}

#[cfg(test)]
mod tests {
    use std::vec;
    use std::vec::Vec;

    use backends::block::memory::MemoryDisk;
    use proptest::prelude::*;
    use pv_abi::hvm::ioreq::{IOREQ_TYPE_COPY, STATE_IOREQ_READY};

    use super::super::ata::{Channel, Drive};
    use super::super::fake::Flat;
    use super::*;

    fn board() -> Board<MemoryDisk> {
        let disk = Drive::new(MemoryDisk::new(vec![7; 64 * 512]), "XL").unwrap();
        Board::new([Channel::new([Some(disk), None]), Channel::new([None, None])], None)
    }

    fn request(addr: u64, size: u32, read: bool) -> Ioreq {
        Ioreq { addr, size, count: 1, type_: IOREQ_TYPE_PIO, ..Ioreq::default() }
            .with_state(STATE_IOREQ_READY)
            .with_flags(read, false, false)
    }

    #[test]
    fn an_access_reaches_its_port_or_configuration_space() {
        let (mut board, mut memory) = (board(), Flat(Vec::new()));
        let address = Ioreq { data: 0x8000_0800, ..request(0xcf8, 4, false) };
        make(&mut board, &mut memory, &address);
        assert_eq!(make(&mut board, &mut memory, &request(0xcf8, 4, true)), 0x8000_0800);
        let bridge = Ioreq { type_: IOREQ_TYPE_PCI_CONFIG, ..request(0, 4, true) };
        assert_eq!(make(&mut board, &mut memory, &bridge), 0x1237_8086);
        let elsewhere = Ioreq { addr: 0x100 << 32, ..bridge };
        assert_eq!(make(&mut board, &mut memory, &elsewhere), u64::MAX);
    }

    #[test]
    fn a_repeated_read_of_a_disk_goes_to_memory_in_either_direction() {
        for down in [false, true] {
            let (mut board, mut memory) = (board(), Flat(vec![0; 1024]));
            make(&mut board, &mut memory, &Ioreq { data: 0xec, ..request(0x1f7, 1, false) });
            let start = if down { 510 } else { 0 };
            let words = Ioreq { data: start, count: 256, ..request(0x1f0, 2, true) }.with_flags(true, true, down);
            make(&mut board, &mut memory, &words);
            // The first word of an identity, and the one behind it.
            let at = if down { [510, 508] } else { [0, 2] };
            assert_eq!((memory.0[at[0]], memory.0[at[1]]), (0x40, 1), "down: {down}");
            assert!(memory.0[512..].iter().all(|byte| *byte == 0));
        }
    }

    #[test]
    fn a_repeated_write_comes_from_memory() {
        let (mut board, mut memory) = (board(), Flat(b"hello".to_vec()));
        let text = Ioreq { data: 0, count: 5, ..request(0x3f8, 1, false) }.with_flags(false, true, false);
        make(&mut board, &mut memory, &text);
        assert_eq!(board.uart.take_sent(), b"hello");
    }

    proptest! {
        #[test]
        fn whatever_an_access_says_it_ends(
            addr in prop_oneof![any::<u64>(), 0_u64..0x1000],
            data in any::<u64>(),
            count in any::<u32>(),
            size in prop_oneof![any::<u32>(), 0_u32..9],
            flags in any::<[bool; 3]>(),
            type_ in prop_oneof![Just(IOREQ_TYPE_PIO), Just(IOREQ_TYPE_PCI_CONFIG), Just(IOREQ_TYPE_COPY), any::<u8>()],
        ) {
            let (mut board, mut memory) = (board(), Flat(vec![0; 4096]));
            let request = Ioreq { addr, data, count, size, type_, ..Ioreq::default() };
            make(&mut board, &mut memory, &request.with_flags(flags[0], flags[1], flags[2]));
        }
    }
}
