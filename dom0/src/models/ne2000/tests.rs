use std::vec;

use proptest::prelude::*;

use super::*;

const MAC: [u8; 6] = [0x00, 0x16, 0x3e, 1, 2, 3];

/// A card as drivers start it: a ring from 4Ch to 80h, the transmit buffer at 40h.
fn started() -> Ne2000 {
    let mut card = Ne2000::new(MAC);
    let steps = [
        (0x00, 0x21),
        (0x0e, 0x49),
        (0x0c, 0x04),
        (0x0d, 0),
        (0x04, 0x40),
        (0x01, 0x4c),
        (0x03, 0x4c),
        (0x02, 0x80),
        (0x07, 0xff),
        (0x0f, 0x5b),
        (0x00, 0x61),
        (0x07, 0x4d),
        (0x00, 0x22),
    ];
    for (register, value) in steps {
        card.write(register, 1, value);
    }
    card
}

fn remote(card: &mut Ne2000, address: u16, len: u16, write: bool) {
    for (register, value) in [0x0a, 0x0b].into_iter().zip(len.to_le_bytes()) {
        card.write(register, 1, value.into());
    }
    for (register, value) in [0x08, 0x09].into_iter().zip(address.to_le_bytes()) {
        card.write(register, 1, value.into());
    }
    card.write(0, 1, if write { 0x12 } else { 0x0a });
}

fn get(card: &mut Ne2000, address: u16, len: u16) -> Vec<u8> {
    remote(card, address, len, false);
    (0..len / 2).flat_map(|_| (card.read(0x10, 2) as u16).to_le_bytes()).collect()
}

fn frame(destination: [u8; 6], len: usize) -> Vec<u8> {
    let mut frame = vec![0; len];
    frame.iter_mut().zip(0_usize..).for_each(|(byte, at)| *byte = at as u8);
    frame[..6].copy_from_slice(&destination);
    frame
}

#[test]
fn the_prom_has_the_address_each_byte_twice() {
    let mut card = started();
    let prom = get(&mut card, 0, 32);
    assert_eq!(prom[..12], [0, 0, 0x16, 0x16, 0x3e, 0x3e, 1, 1, 2, 2, 3, 3]);
    assert_eq!(prom[28..], [0x57; 4]);
    assert_eq!(card.read(7, 1) & 0x40, 0x40);
}

#[test]
fn in_word_mode_a_byte_takes_a_word() {
    let mut card = started();
    remote(&mut card, 0, 32, false);
    let bytes: Vec<u8> = (0..6).map(|_| card.read(0x10, 1) as u8).collect();
    assert_eq!(bytes, MAC);
}

#[test]
fn a_reset_shows_itself() {
    let mut card = started();
    assert_eq!(card.read(7, 1), 0);
    card.read(0x1f, 1);
    assert_eq!(card.read(7, 1), 0x80);
    assert_eq!((card.read(0x0a, 1), card.read(0x0b, 1)), (0x50, 0x43));
}

#[test]
fn a_frame_is_sent_from_its_page() {
    let mut card = started();
    let sent = frame([0xff; 6], 100);
    remote(&mut card, 0x4000, 100, true);
    for word in sent.chunks(2) {
        card.write(0x10, 2, u16::from_le_bytes([word[0], word[1]]).into());
    }
    assert_eq!(card.read(7, 1), 0x40);
    for (register, value) in [(7, 0x40), (5, 100), (6, 0), (0, 0x26)] {
        card.write(register, 1, value);
    }
    assert_eq!(card.take_sent(), [sent]);
    assert!(card.asks());
    assert_eq!((card.read(7, 1), card.read(4, 1), card.read(0, 1) & 4), (2, 1, 0));
    card.write(7, 1, 2);
    assert!(!card.asks());
}

#[test]
fn a_frame_that_arrives_is_in_the_ring_behind_a_header() {
    let mut card = started();
    card.receive(&frame(MAC, 200));
    assert!(card.asks());
    assert_eq!(card.read(7, 1), 1);
    let header = get(&mut card, 0x4d00, 4);
    assert_eq!(header, [1, 0x4e, 204, 0]);
    assert_eq!(get(&mut card, 0x4d04, 200), frame(MAC, 200));
    card.write(0, 1, 0x62);
    assert_eq!(card.read(7, 1), 0x4e);
}

#[test]
fn a_short_frame_is_padded_and_one_for_many_says_so() {
    let mut card = started();
    card.receive(&frame([0xff; 6], 20));
    assert_eq!(get(&mut card, 0x4d00, 4), [0x21, 0x4e, 64, 0]);
}

#[test]
fn frames_go_round_the_ring() {
    let mut card = started();
    let mut next = 0x4d_u8;
    for n in 0..50 {
        let sent = frame(MAC, 600 + n * 10);
        assert!(card.has_room());
        card.receive(&sent);
        let header = get(&mut card, u16::from(next) << 8, 4);
        let len = u16::from_le_bytes([header[2], header[3]]);
        assert_eq!(usize::from(len), sent.len() + 4);
        assert_eq!(get(&mut card, (u16::from(next) << 8) + 4, len - 4), sent);
        next = header[1];
        assert!((0x4c..0x80).contains(&next));
        card.write(3, 1, if next == 0x4c { 0x7f } else { u32::from(next) - 1 });
    }
}

#[test]
fn a_full_ring_takes_no_more() {
    let mut card = started();
    let mut kept = 0;
    while card.has_room() {
        card.receive(&frame(MAC, 1514));
        kept += 1;
        assert!(kept < 100);
    }
    assert_eq!(kept, 8);
    let before = card.memory.clone();
    card.receive(&frame(MAC, 1514));
    assert_eq!(card.memory, before);
}

#[test]
fn only_what_is_for_it_is_taken() {
    let mut card = started();
    let group = [1, 0, 0x5e, 0, 0, 1];
    for other in [[2, 2, 2, 2, 2, 2], group] {
        card.receive(&frame(other, 100));
        assert_eq!(card.read(7, 1), 0);
    }
    card.write(0x0c, 1, 0x0c);
    card.receive(&frame(group, 100));
    assert_eq!(card.read(7, 1), 0);
    // The upper six bits of this address's checksum are 1Fh.
    card.write(0, 1, 0x62);
    card.write(0x0b, 1, 0x80);
    card.write(0, 1, 0x22);
    card.receive(&frame(group, 100));
    assert_eq!(card.read(7, 1), 1);
    card.write(7, 1, 1);
    card.write(0x0c, 1, 0x10);
    card.receive(&frame([2; 6], 100));
    assert_eq!(card.read(7, 1), 1);
}

#[test]
fn a_frame_that_is_no_frame_is_an_error() {
    let mut card = started();
    for (page, len) in [(0x40, 5000_u16), (0x10, 64), (0xbf, 300), (0x40, 0)] {
        for (register, value) in [(4, page), (5, u32::from(len) & 0xff), (6, u32::from(len) >> 8), (0, 0x26)] {
            card.write(register, 1, value);
        }
        assert_eq!((card.read(7, 1), card.read(4, 1)), (8, 8), "{page:#x} {len}");
        card.write(7, 1, 0xff);
    }
    assert!(card.take_sent().is_empty());
}

proptest! {
    #[test]
    fn whatever_is_written_a_frame_ends(
        steps in proptest::collection::vec((0_u16..32, any::<u32>(), any::<bool>()), 0..300),
        len in 0_usize..2000,
    ) {
        let mut card = started();
        for (register, value, receive) in steps {
            let size = [1, 2, 4][value as usize % 3];
            card.write(register, size, value);
            card.read(register, size);
            if receive && len >= 6 {
                card.receive(&frame(MAC, len));
            }
            card.take_sent();
        }
        prop_assert_eq!(card.memory.len(), MEMORY.len());
    }
}
