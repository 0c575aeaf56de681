use alloc::vec;

use super::*;
use proptest::prelude::*;

/// Data of a TCP connection in frames of at most `step` bytes, as a sender makes them.
fn stream(ipv6: bool, data: &[u8], step: usize, options: usize) -> Vec<Frame> {
    let mut bytes = vec![2; 12];
    let tcp_header = 20 + options * 4;
    if ipv6 {
        bytes.extend([0x86, 0xdd, 0x60, 0, 0, 0, 0, 0, TCP, 64]);
        bytes.extend([0x20; 32]);
    } else {
        bytes.extend([8, 0, 0x45, 0, 0, 0, 0x12, 0x34, 0x40, 0, 64, TCP, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
    }
    bytes.extend([
        0x12,
        0x34,
        0,
        80,
        0xff,
        0xff,
        0xff,
        0,
        0,
        0,
        0,
        9,
        (tcp_header as u8 / 4) << 4,
        ACK | PSH,
        1,
        0,
        0,
        0,
        0,
        0,
    ]);
    bytes.extend(vec![1; options * 4]);
    bytes.extend(data);
    let oversize = Some(Oversize { ipv6, segment_bytes: step as u16 });
    let frame = Frame { bytes, checksum: Checksum::Blank, oversize };
    let mut whole = frame.clone();
    let network = &mut whole.bytes;
    let length = if ipv6 { network.len() - 54 } else { network.len() - 14 };
    let field = if ipv6 { 18 } else { 16 };
    network[field..field + 2].copy_from_slice(&(length as u16).to_be_bytes());
    cut(whole).unwrap()
}

fn join(frames: Vec<Frame>) -> Vec<Frame> {
    let mut joiner = Joiner::default();
    let mut out = Vec::new();
    for frame in frames {
        joiner.add(&frame.bytes, |frame| out.push(frame));
    }
    joiner.finish(|frame| out.push(frame));
    out
}

#[test]
fn a_cut_segment_has_right_sums_and_its_flags_at_the_end() {
    let pieces = stream(false, &[7; 3000], 1448, 3);
    assert_eq!(pieces.iter().map(|piece| piece.bytes.len()).collect::<Vec<_>>(), [1514, 1514, 170]);
    for (number, piece) in pieces.iter().enumerate() {
        assert!(checksum::is_right(&piece.bytes));
        assert_eq!(fold(sum_of(&piece.bytes[14..34])), 0xffff);
        assert_eq!(piece.bytes[47] & PSH != 0, number == 2);
        assert_eq!(piece.bytes[19], 0x34 + number as u8, "each has an identification of its own");
        assert_eq!(be32(&piece.bytes, 38), 0xffff_ff00_u32.wrapping_add(1448 * number as u32));
    }
}

#[test]
fn what_is_no_tcp_segment_is_not_cut() {
    let oversize = Some(Oversize { ipv6: false, segment_bytes: 100 });
    let mut frame = stream(false, &[7; 100], 100, 0).remove(0);
    frame.oversize = oversize;
    for (at, value) in [(12, 9), (23, 17), (14, 0x65), (46, 0xf0), (46, 0x10), (20, 0x20)] {
        let mut broken = frame.clone();
        broken.bytes[at] = value;
        if at == 46 && value == 0xf0 {
            broken.bytes.truncate(80);
        }
        assert!(cut(broken).is_err(), "{at} {value:#x}");
    }
}

#[test]
fn frames_of_another_connection_or_out_of_order_are_not_joined() {
    let pieces = stream(false, &[7; 3000], 1000, 0);
    let swapped = vec![pieces[1].clone(), pieces[0].clone(), pieces[2].clone()];
    assert_eq!(join(swapped).len(), 3);
    let mut other = pieces.clone();
    other[1].bytes[35] ^= 1;
    checksum::complete(&mut other[1].bytes).unwrap();
    assert_eq!(join(other).len(), 3);
    let mut wrong = pieces;
    wrong[1].bytes[100] ^= 1;
    let out = join(wrong);
    assert_eq!(out.len(), 3, "a frame with a wrong sum stays alone");
    assert_eq!(out[1].checksum, Checksum::InFrame);
}

proptest! {
    #[test]
    fn cutting_what_was_joined_gives_the_frames_back(
        data in prop::collection::vec(any::<u8>(), 60..9000),
        step in 48..1461_usize,
        options in 0..4_usize,
        ipv6: bool,
    ) {
        let frames = stream(ipv6, &data, step, options);
        let joined = join(frames.clone());
        let count = joined.len();
        prop_assert!(count <= 2, "a short rest may stand alone");
        let again = joined.into_iter().flat_map(|frame| cut(frame).unwrap()).map(|frame| frame.bytes);
        prop_assert!(again.eq(frames.into_iter().map(|frame| frame.bytes)));
    }

    #[test]
    fn no_frame_makes_either_panic(
        mut bytes in prop::collection::vec(any::<u8>(), 0..160),
        kind in prop::sample::select(vec![[8, 0], [0x86, 0xdd]]),
        segment_bytes: u16,
    ) {
        if bytes.len() > 24 {
            bytes[12..14].copy_from_slice(&kind);
            bytes[14] = if kind[0] == 8 { 0x45 } else { 0x60 };
            bytes[if kind[0] == 8 { 23 } else { 20 }] = TCP;
        }
        let frame = Frame::new(bytes);
        join(vec![frame.clone(), frame.clone()]);
        let oversize = Some(Oversize { ipv6: false, segment_bytes });
        let _ = cut(Frame { oversize, ..frame });
    }
}
