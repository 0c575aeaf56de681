use std::vec;
use std::vec::Vec;

use backends::block::memory::MemoryDisk;
use proptest::prelude::*;

use super::*;
use crate::models::fake::{Flat, NoMemory};

const SECTORS: usize = 1000;

fn content() -> Vec<u8> {
    (0..SECTORS * 512).map(|at| (at / 512 * 7 + at % 512) as u8).collect()
}

fn channel() -> Channel<MemoryDisk> {
    let disk = MemoryDisk::new(content()).with_volatile_cache();
    Channel::new([Some(Drive::new(disk, "XL0001").unwrap()), None])
}

fn command(channel: &mut Channel<MemoryDisk>, command: u8, sector: u32, count: u8) {
    let [low, mid, high, top] = sector.to_le_bytes();
    for (register, value) in (2..).zip([count, low, mid, high, 0xe0 | top, command]) {
        channel.write(register, 1, value.into());
    }
    while channel.turn(&mut NoMemory) {}
}

fn status(channel: &mut Channel<MemoryDisk>) -> u8 {
    channel.read(7, 1) as u8
}

/// Reads blocks as long as there is data; counts the interrupts.
fn read_all(channel: &mut Channel<MemoryDisk>, block: usize) -> (Vec<u8>, usize) {
    let (mut bytes, mut interrupts) = (Vec::new(), 0);
    loop {
        interrupts += usize::from(channel.asks());
        if status(channel) & 8 == 0 {
            return (bytes, interrupts);
        }
        for _ in 0..block / 2 {
            bytes.extend((channel.read(0, 2) as u16).to_le_bytes());
        }
        while channel.turn(&mut NoMemory) {}
    }
}

fn write_all(channel: &mut Channel<MemoryDisk>, data: &[u8], block: usize) -> usize {
    let mut interrupts = 0;
    for block in data.chunks(block) {
        assert_eq!(channel.read_control() & 0x88, 8);
        interrupts += usize::from(channel.asks());
        status(channel);
        for word in block.chunks(4) {
            channel.write(0, 4, u32::from_le_bytes(word.try_into().unwrap()));
        }
        while channel.turn(&mut NoMemory) {}
    }
    interrupts + usize::from(channel.asks())
}

fn word(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[2 * at], bytes[2 * at + 1]])
}

#[test]
fn a_disk_says_what_it_is() {
    let mut channel = channel();
    command(&mut channel, 0xec, 0, 0);
    let (bytes, interrupts) = read_all(&mut channel, 512);
    assert_eq!((bytes.len(), interrupts), (512, 1));
    assert_eq!((word(&bytes, 0), word(&bytes, 60), word(&bytes, 61), word(&bytes, 100)), (0x40, 1000, 0, 1000));
    assert_eq!(word(&bytes, 83) & 0x0400, 0x0400);
    assert_eq!(&bytes[20..26], b"LX0010");
    assert_eq!(&bytes[54..66], b"eXonilhtd si");
    assert_eq!(status(&mut channel), 0x50);
}

#[test]
fn sectors_are_read_an_interrupt_each() {
    let mut channel = channel();
    command(&mut channel, 0x20, 5, 3);
    let (bytes, interrupts) = read_all(&mut channel, 512);
    assert_eq!(bytes, content()[5 * 512..8 * 512]);
    assert_eq!((interrupts, channel.asks(), status(&mut channel)), (3, false, 0x50));
}

#[test]
fn a_count_of_zero_is_256_and_goes_through_several_buffers() {
    let mut channel = channel();
    command(&mut channel, 0x20, 700, 0);
    let (bytes, interrupts) = read_all(&mut channel, 512);
    assert_eq!((bytes.len(), interrupts), (256 * 512, 256));
    assert_eq!(bytes, content()[700 * 512..956 * 512]);
}

#[test]
fn several_sectors_are_read_with_one_interrupt() {
    let mut channel = channel();
    command(&mut channel, 0xc4, 0, 20);
    assert_eq!((status(&mut channel), channel.read(1, 1)), (0x51, 4));
    command(&mut channel, 0xc6, 0, 8);
    assert_eq!(status(&mut channel), 0x50);
    command(&mut channel, 0xc4, 3, 20);
    let (bytes, interrupts) = read_all(&mut channel, 8 * 512);
    assert_eq!(interrupts, 3);
    assert_eq!(bytes[..20 * 512], content()[3 * 512..23 * 512]);
    command(&mut channel, 0xc6, 0, 9);
    assert_eq!(status(&mut channel) & 1, 1);
}

#[test]
fn what_is_written_can_be_read_and_is_durable_after_a_flush() {
    for (write, multiple) in [(0x30, 1), (0xc5, 16)] {
        let mut channel = channel();
        command(&mut channel, 0xc6, 0, 16);
        let data: Vec<u8> = (0..200 * 512).map(|at| (at / 3) as u8).collect();
        status(&mut channel);
        command(&mut channel, write, 100, 200);
        assert!(!channel.asks());
        let interrupts = write_all(&mut channel, &data, multiple * 512);
        // One a block, and one at the end instead of at the beginning. A buffer is filled before its first block's.
        assert_eq!(interrupts, 200_usize.div_ceil(multiple));
        assert_eq!(status(&mut channel), 0x50);
        assert_eq!(channel.media_mut().next().unwrap().medium()[100 * 512..300 * 512], content()[100 * 512..300 * 512]);
        command(&mut channel, 0xe7, 0, 0);
        assert!(channel.asks());
        assert_eq!(channel.media_mut().next().unwrap().medium()[100 * 512..300 * 512], data);
        command(&mut channel, 0x24, 100, 200);
        assert_eq!(read_all(&mut channel, 512).0, data);
    }
}

#[test]
fn without_its_cache_what_is_answered_is_durable() {
    let mut channel = channel();
    channel.write(1, 1, 0x82);
    command(&mut channel, 0xef, 0, 0);
    assert_eq!(status(&mut channel), 0x50);
    command(&mut channel, 0x30, 9, 1);
    write_all(&mut channel, &[9; 512], 512);
    assert_eq!(channel.media_mut().next().unwrap().medium()[9 * 512..10 * 512], [9; 512]);
}

#[test]
fn numbers_of_48_bits_take_both_halves() {
    let mut channel = channel();
    for (register, value) in [(2, 1), (3, 0), (4, 0), (5, 0)] {
        channel.write(register, 1, value);
    }
    command(&mut channel, 0x24, 744, 0);
    let (bytes, _) = read_all(&mut channel, 512);
    assert_eq!(bytes, content()[744 * 512..]);
    channel.write(3, 1, 1);
    command(&mut channel, 0x24, 0, 1);
    assert_eq!((status(&mut channel), channel.read(1, 1)), (0x51, 0x10));
    command(&mut channel, 0x27, 0, 0);
    let low: Vec<u32> = (3..6).map(|register| channel.read(register, 1)).collect();
    channel.write_control(0x80);
    let high: Vec<u32> = (3..6).map(|register| channel.read(register, 1)).collect();
    assert_eq!((low, high), (vec![0xe7, 3, 0], vec![0; 3]));
}

#[test]
fn cylinders_heads_and_sectors_are_counted_as_the_guest_wants() {
    let mut channel = channel();
    for (register, value) in [(2, 10), (6, 0xa3), (7, 0x91)] {
        channel.write(register, 1, value);
    }
    assert_eq!(status(&mut channel), 0x50);
    for (register, value) in [(2, 1), (3, 4), (4, 2), (5, 0), (6, 0xa1), (7, 0x20)] {
        channel.write(register, 1, value);
    }
    while channel.turn(&mut NoMemory) {}
    let sector = (2 * 4 + 1) * 10 + 3;
    assert_eq!(read_all(&mut channel, 512).0, content()[sector * 512..(sector + 1) * 512]);
    for (head, sector) in [(0xa4, 1), (0xa0, 0), (0xa0, 11)] {
        for (register, value) in [(3, sector), (6, head), (7, 0x20)] {
            channel.write(register, 1, value);
        }
        assert_eq!((status(&mut channel), channel.read(1, 1)), (0x51, 0x10));
    }
}

#[test]
fn what_is_not_on_the_disk_or_not_known_is_an_error() {
    let mut channel = channel();
    for (code, sector, count, error) in
        [(0x20, 1000, 1, 0x10), (0x20, 999, 2, 0x10), (0x30, 0x0fff_ffff, 1, 0x10), (0xa1, 0, 0, 4), (0x08, 0, 0, 4)]
    {
        command(&mut channel, code, sector, count);
        assert!(channel.asks());
        assert_eq!((status(&mut channel), channel.read(1, 1)), (0x51, error));
    }
    command(&mut channel, 0x40, 0, 0);
    assert_eq!((status(&mut channel), channel.read(1, 1)), (0x50, 0));
}

#[test]
fn a_disk_that_is_read_only_takes_no_writes() {
    let disk = MemoryDisk::new(content()).read_only();
    let mut channel = Channel::new([Some(Drive::new(disk, "").unwrap()), None]);
    command(&mut channel, 0x30, 0, 1);
    assert_eq!((status(&mut channel), channel.read(1, 1)), (0x51, 4));
}

#[test]
fn a_disk_that_is_not_there_answers_nothing() {
    let mut channel = channel();
    channel.write(6, 1, 0xb0);
    assert_eq!((status(&mut channel), channel.read(2, 1), channel.read_control()), (0, 0, 0));
    channel.write(7, 1, 0xec);
    assert!(!channel.asks());
    assert!(Drive::new(MemoryDisk::new(Vec::new()), "").is_err());
}

#[test]
fn a_reset_shows_a_disk_and_stops_what_was() {
    let mut channel = channel();
    command(&mut channel, 0x20, 0, 2);
    channel.read(0, 2);
    channel.write_control(4);
    assert_eq!(channel.read_control(), 0x80);
    channel.write(7, 1, 0xec);
    channel.write_control(0);
    assert_eq!(channel.read_control(), 0x50);
    assert_eq!([1, 2, 3, 4, 5].map(|register| channel.read(register, 1)), [1, 1, 1, 0, 0]);
    assert!(!channel.asks());
}

#[test]
fn a_guest_that_wants_no_interrupts_gets_none() {
    let mut channel = channel();
    channel.write_control(2);
    command(&mut channel, 0xec, 0, 0);
    assert!(!channel.asks());
    channel.write_control(0);
    assert!(channel.asks());
    assert_eq!(channel.read_control() & 8, 8);
    assert!(channel.asks());
    status(&mut channel);
    assert!(!channel.asks());
}

proptest! {
    #[test]
    fn whatever_is_written_the_disk_goes_on(
        steps in proptest::collection::vec((0_u16..10, any::<u32>(), 0_usize..600), 0..200)
    ) {
        let mut channel = channel();
        let mut memory = Flat(vec![0x11; 0x2000]);
        let commands =
            [0x20, 0x24, 0xc4, 0x30, 0x34, 0xc5, 0xec, 0xe7, 0xc6, 0x91, 0xef, 0x40, 0x90, 0x27, 0xc8, 0xca, 0x25, 0x35];
        for (register, value, repeat) in steps {
            match register {
                0 => (0..repeat).for_each(|_| channel.write(0, 2, value)),
                7 => channel.write(7, 1, commands[value as usize % commands.len()]),
                8 => channel.write_control(value as u8),
                9 => channel.write_master(repeat as u16 & 7, value as u8),
                register => channel.write(register, 1, value & 3),
            }
            for _ in 0..repeat {
                channel.read(0, 2);
            }
            while channel.turn(&mut memory) {}
            channel.read(register & 7, 1);
        }
        channel.write_control(4);
        channel.write_control(0);
        command(&mut channel, 0xec, 0, 0);
        prop_assert_eq!(read_all(&mut channel, 512).0.len(), 512);
    }
}

/// Gives a command that the bus master is to carry out, by these entries of the table at 0.
fn command_by_master(channel: &mut Channel<MemoryDisk>, memory: &mut Flat, command: u8, entries: &[(u32, u16)]) {
    for (index, (address, count)) in entries.iter().enumerate() {
        let last = if index + 1 == entries.len() { 0x8000_0000_u32 } else { 0 };
        memory.0[index * 8..][..4].copy_from_slice(&address.to_le_bytes());
        memory.0[index * 8 + 4..][..4].copy_from_slice(&(u32::from(*count) | last).to_le_bytes());
    }
    for (register, value) in [(2, 2), (3, 1), (4, 0), (5, 0), (6, 0xe0), (7, command)] {
        channel.write(register, 1, value.into());
    }
    let direction = if command == 0xc8 { 8 } else { 0 };
    channel.write_master(0, direction);
    channel.write_master(0, direction | 1);
    while channel.turn(memory) {}
}

#[test]
fn the_bus_master_moves_by_its_table() {
    let mut channel = channel();
    let mut memory = Flat(vec![0; 8192]);
    command_by_master(&mut channel, &mut memory, 0xc8, &[(0x800, 1000), (0x1000, 24)]);
    let expected = content();
    assert_eq!(
        (&memory.0[0x800..0x800 + 1000], &memory.0[0x1000..0x1018]),
        (&expected[512..1512], &expected[1512..1536])
    );
    assert!(channel.asks());
    assert_eq!((channel.read_master(2), channel.read(7, 1)), (4, 0x50));
    channel.write_master(2, 4);
    assert_eq!(channel.read_master(2), 0);
    memory.0[0x800..0xc00].fill(0x5a);
    channel.write_master(0, 0);
    command_by_master(&mut channel, &mut memory, 0xca, &[(0x800, 1024)]);
    channel.write_master(0, 0);
    command_by_master(&mut channel, &mut memory, 0xc8, &[(0x1000, 1024)]);
    assert_eq!(memory.0[0x1000..0x1400], [0x5a; 1024]);
}

#[test]
fn what_the_bus_master_cannot_reach_is_an_error_and_the_channel_goes_on() {
    let mut channel = channel();
    let mut memory = Flat(vec![0; 4096]);
    command_by_master(&mut channel, &mut memory, 0xc8, &[(0xffff_0000, 1024)]);
    assert_eq!((channel.read_master(2), channel.read(7, 1), channel.read(1, 1)), (6, 0x51, 4));
    channel.write_master(0, 0);
    channel.write_master(2, 6);
    // A table that ends too early leaves it waiting, until it is reset.
    command_by_master(&mut channel, &mut memory, 0xc8, &[(0x800, 512)]);
    assert_eq!((channel.read_master(2), channel.read(7, 1)), (0, 0x80));
    channel.write_control(4);
    channel.write_control(0);
    channel.write_master(0, 0);
    command_by_master(&mut channel, &mut memory, 0xc8, &[(0x800, 1024)]);
    assert_eq!(channel.read(7, 1), 0x50);
}
