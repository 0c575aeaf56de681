use std::vec;

use backends::block::memory::MemoryDisk;
use proptest::prelude::*;

use super::super::ata::Drive;
use super::*;
use crate::models::fake::NoMemory;

fn board() -> Board<MemoryDisk> {
    let disk = Drive::new(MemoryDisk::new(vec![7; 64 * 512]), "XL").unwrap();
    let channels = [Channel::new([Some(disk), None]), Channel::new([None, None])];
    Board::new(channels, Some(Ne2000::new([2, 0, 0, 0, 0, 1])))
}

fn settled() -> Board<MemoryDisk> {
    let mut board = board();
    board.take_changes();
    board
}

#[test]
fn it_begins_by_saying_what_is_its_own() {
    let changes = board().take_changes();
    let maps = |first: u16, last: u16| changes.contains(&Change::Map(Ports { first, last }));
    assert!(maps(0x3f8, 0x3ff) && maps(0x1f0, 0x1f7) && maps(0x3f6, 0x3f6) && maps(0xcf8, 0xcfb));
    assert!(maps(0xc040, 0xc04f) && maps(0xc000, 0xc01f) && maps(0xb004, 0xb005) && maps(0x604, 0x605));
    assert!(changes.contains(&Change::Link { link: 3, line: 11 }));
    assert_eq!(board().places().count(), 4);
}

#[test]
fn a_disk_interrupts_by_its_line() {
    let mut board = settled();
    board.write(0x1f7, 1, 0xec);
    assert_eq!(board.take_changes(), [Change::Line { line: 14, level: true }]);
    assert_eq!(board.read(0x1f7, 1), 0x58);
    assert_eq!(board.take_changes(), [Change::Line { line: 14, level: false }]);
    assert_eq!(board.read(0x1f0, 2), 0x40);
    assert_eq!((board.read(0x3f6, 1), board.read(0x177, 1)), (0x58, 0));
}

#[test]
fn a_disk_reads_when_the_board_has_its_turn() {
    let mut board = settled();
    for (port, value) in [(0x1f2, 1), (0x1f3, 5), (0x1f6, 0xe0), (0x1f7, 0x20)] {
        board.write(port, 1, value);
    }
    assert_eq!(board.read(0x1f7, 1), 0x80);
    assert!(board.turn(&mut NoMemory));
    assert_eq!(board.take_changes(), [Change::Line { line: 14, level: true }]);
    assert_eq!(board.read(0x1f0, 4), 0x0707_0707);
}

#[test]
fn the_card_interrupts_by_its_pin_and_moves_where_the_guest_wants() {
    let mut board = settled();
    board.write(0xc00f, 1, 0x40);
    board.write(0xc000, 1, 0x0a);
    assert_eq!(board.take_changes(), [Change::Pin { device: 3, pin: 0, level: true }]);
    board.write_config(CARD, 0x10, 4, 0xd000);
    let moved =
        [Change::Unmap(Ports { first: 0xc000, last: 0xc01f }), Change::Map(Ports { first: 0xd000, last: 0xd01f })];
    assert_eq!(board.take_changes(), moved);
    assert_eq!((board.read(0xc00a, 1), board.read(0xd00a, 1)), (0xff, 0x50));
    board.write(0xd007, 1, 0x40);
    assert_eq!(board.take_changes(), [Change::Pin { device: 3, pin: 0, level: false }]);
}

#[test]
fn the_bridge_routes_links() {
    let mut board = settled();
    board.write_config(SOUTH, 0x63, 1, 5);
    board.write_config(SOUTH, 0x60, 1, 0x80);
    assert_eq!(board.take_changes(), [Change::Link { link: 3, line: 5 }, Change::Link { link: 0, line: 0 }]);
}

#[test]
fn what_is_sent_is_heard_and_what_comes_interrupts() {
    let mut board = settled();
    board.write(0x3f8, 1, b'x'.into());
    assert_eq!(board.uart.take_sent(), b"x");
    for (port, value) in [(0x3fc, 0x0b), (0x3f9, 1)] {
        board.write(port, 1, value);
    }
    board.uart.receive(b'y');
    board.turn(&mut NoMemory);
    assert_eq!(board.take_changes(), [Change::Line { line: 4, level: true }]);
    assert_eq!(board.read(0x3f8, 1), b'y'.into());
}

#[test]
fn the_machine_is_switched_off_and_reset() {
    let mut board = settled();
    board.write(0x604, 2, 0x2000);
    board.write(0xb004, 2, 0x0401);
    board.write(0xb004, 2, 0x2401);
    board.write(0xcf9, 1, 2);
    board.write(0xcf9, 1, 6);
    assert_eq!(board.take_changes(), [Change::PowerOff, Change::Reset]);
}

#[test]
fn the_address_port_keeps_its_value_and_nothing_floats() {
    let mut board = settled();
    board.write(0xcf8, 4, 0x8000_0000);
    assert_eq!(board.read(0xcf8, 4), 0x8000_0000);
    assert_eq!([1, 2, 4].map(|size| board.read(0x2f8, size)), [0xff, 0xffff, u32::MAX]);
    assert_eq!(board.read_config(Place { device: 2, function: 0 }, 0, 2), 0xffff);
    assert_eq!(board.read_config(Place { device: 1, function: 1 }, 0x40, 4), 0x8000);
}

proptest! {
    #[test]
    fn whatever_is_asked_it_goes_on(
        steps in proptest::collection::vec((any::<u16>(), any::<u32>(), 0_usize..3), 0..200)
    ) {
        let bases = [0x3f8, 0x1f0, 0x170, 0x3f0, 0xcf8, 0xc000, 0xc010, 0xb000];
        let mut board = settled();
        for (port, value, size) in steps {
            let size = [1, 2, 4][size];
            let port = bases[usize::from(port >> 13)] + (port & 0xf);
            board.write(port, size, value);
            prop_assert!(size == 4 || board.read(port, size) >> (8 * size) == 0);
            board.write_config(Place { device: (value >> 8) as u8 & 3, function: 0 }, value & 0xff, size, value >> 3);
            while board.turn(&mut NoMemory) {}
            board.take_changes();
        }
    }
}
