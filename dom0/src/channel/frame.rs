//! Frames on a line of bytes.
//!
//! - A frame begins and ends with [`END`]; inside of it `END` and `ESCAPE` are written as two bytes.
//! - It starts with the length of what it carries, so that one whose sender went away in its middle is noticed.
//! - Whatever came before an `END` can be dropped: whoever joins begins to understand with the next frame.
//!
//! Source: RFC 1055 (SLIP), with a length.

use alloc::vec::Vec;

/// Between frames.
const END: u8 = 0xc0;
/// Before a byte that would otherwise be one of the two.
const ESCAPE: u8 = 0xdb;
const ESCAPED_END: u8 = 0xdc;
const ESCAPED_ESCAPE: u8 = 0xdd;

/// Most bytes that one frame carries.
pub const FRAME_MAX: usize = 64 * 1024;

/// Appends a frame with `content`, at most [`FRAME_MAX`] bytes, to `out`.
pub fn encode(content: &[u8], out: &mut Vec<u8>) {
    let len = u32::try_from(content.len().min(FRAME_MAX)).unwrap_or(0).to_le_bytes();
    out.push(END);
    for byte in len.iter().chain(content.iter().take(FRAME_MAX)) {
        match *byte {
            END => out.extend([ESCAPE, ESCAPED_END]),
            ESCAPE => out.extend([ESCAPE, ESCAPED_ESCAPE]),
            other => out.push(other),
        }
    }
    out.push(END);
}

/// Finds the frames in what arrives.
#[derive(Debug, Default)]
pub struct Decoder {
    partial: Vec<u8>,
    escaped: bool,
    /// The frame is damaged or too long: it is passed over up to its end.
    dropped: bool,
}

impl Decoder {
    /// Takes bytes; returns what whole frames among them carry.
    pub fn take(&mut self, bytes: &[u8]) -> Vec<Vec<u8>> {
        bytes.iter().filter_map(|byte| self.byte(*byte)).collect()
    }

    fn byte(&mut self, byte: u8) -> Option<Vec<u8>> {
        match (core::mem::take(&mut self.escaped), byte) {
            (_, END) => return self.end(),
            (false, ESCAPE) => self.escaped = true,
            (false, other) => self.push(other),
            (true, ESCAPED_END) => self.push(END),
            (true, ESCAPED_ESCAPE) => self.push(ESCAPE),
            (true, _) => self.dropped = true,
        }
        None
    }

    fn push(&mut self, byte: u8) {
        self.dropped |= self.partial.len() >= FRAME_MAX + 4;
        if !self.dropped {
            self.partial.push(byte);
        }
    }

    fn end(&mut self) -> Option<Vec<u8>> {
        let whole = core::mem::take(&mut self.partial);
        let dropped = core::mem::take(&mut self.dropped);
        let (len, content) = whole.split_first_chunk::<4>()?;
        let same = usize::try_from(u32::from_le_bytes(*len)) == Ok(content.len());
        (same && !dropped).then(|| content.to_vec())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn frame(content: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        encode(content, &mut out);
        out
    }

    #[test]
    fn a_frame_whose_sender_went_away_does_not_spoil_the_next() {
        let whole = frame(b"destroy demo1");
        for cut in 0..whole.len() - 1 {
            let mut decoder = Decoder::default();
            assert!(decoder.take(&whole[..cut]).is_empty(), "cut at {cut}");
            assert_eq!(decoder.take(&frame(b"list")), [b"list".to_vec()], "cut at {cut}");
        }
    }

    #[test]
    fn a_frame_that_is_too_long_is_dropped_and_takes_no_memory() {
        let mut decoder = Decoder::default();
        decoder.take(&[END]);
        for _ in 0..64 {
            decoder.take(&[7; FRAME_MAX]);
        }
        assert!(decoder.partial.len() <= FRAME_MAX + 4);
        assert!(decoder.take(&[END]).is_empty());
        assert_eq!(decoder.take(&frame(b"ok")), [b"ok".to_vec()]);
    }

    proptest! {
        #[test]
        fn what_is_sent_arrives_however_it_is_cut(
            frames in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..200), 0..5),
            piece in 1_usize..50,
        ) {
            let line: Vec<u8> = frames.iter().flat_map(|content| frame(content)).collect();
            let mut decoder = Decoder::default();
            let arrived: Vec<Vec<u8>> = line.chunks(piece).flat_map(|bytes| decoder.take(bytes)).collect();
            prop_assert_eq!(arrived, frames);
        }

        #[test]
        fn any_noise_is_survived(noise in prop::collection::vec(any::<u8>(), 0..2000)) {
            let mut decoder = Decoder::default();
            decoder.take(&noise);
            prop_assert_eq!(decoder.take(&frame(b"ok")).pop(), Some(b"ok".to_vec()));
        }
    }
}
