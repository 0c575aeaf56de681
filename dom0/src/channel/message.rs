//! What the two ends say.
//!
//! The host opens a session with a number that no earlier one had, sends the files that the request names, each in
//! pieces, and the request. This domain answers with output and, at last, with a status. A guest's console is a request
//! whose keys follow it.

use alloc::string::String;
use alloc::vec::Vec;

use super::frame::{self, FRAME_MAX};

/// A session of one client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Session(pub u32);

/// What is said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// To this domain: carry out this line.
    Request(String),
    /// To this domain: the next piece of a file that the request will name.
    File {
        /// Its name.
        name: String,
        /// The bytes behind those that came before.
        piece: Vec<u8>,
    },
    /// To this domain: keys for the console that the request attached to.
    Keys(Vec<u8>),
    /// To this domain: the client goes away.
    Leave,
    /// To the host: output, as it is.
    Output(Vec<u8>),
    /// To the host: the request is carried out.
    Done {
        /// 0, or 1 where it failed.
        status: u8,
        /// Why it failed, in one line.
        problem: String,
    },
}

/// Most bytes of the files that a session may bring.
pub const FILES_MAX: usize = 256 << 20;
/// Most bytes of a piece of a file, of output or of keys.
pub const PIECE_MAX: usize = FRAME_MAX - 1024;

impl Message {
    /// Appends the frame of this message to `out`.
    pub fn encode(&self, session: Session, out: &mut Vec<u8>) {
        let mut content = session.0.to_le_bytes().to_vec();
        let mut add = |kind: u8, parts: &[&[u8]]| {
            content.push(kind);
            parts.iter().for_each(|part| content.extend_from_slice(part));
        };
        match self {
            Self::Request(line) => add(1, &[line.as_bytes()]),
            Self::File { name, piece } => add(2, &[name.as_bytes(), &[0], piece]),
            Self::Keys(keys) => add(3, &[keys]),
            Self::Leave => add(4, &[]),
            Self::Output(bytes) => add(16, &[bytes]),
            Self::Done { status, problem } => add(17, &[&[*status], problem.as_bytes()]),
        }
        frame::encode(&content, out);
    }

    /// Reads what a frame carries; none if it is no message.
    pub fn decode(content: &[u8]) -> Option<(Session, Self)> {
        let (session, rest) = content.split_first_chunk::<4>()?;
        let (kind, body) = rest.split_first()?;
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).ok();
        let message = match kind {
            1 => Self::Request(text(body)?),
            2 => {
                let end = body.iter().position(|byte| *byte == 0)?;
                Self::File { name: text(&body[..end])?, piece: body[end + 1..].to_vec() }
            }
            3 => Self::Keys(body.to_vec()),
            4 => Self::Leave,
            16 => Self::Output(body.to_vec()),
            17 => Self::Done { status: *body.first()?, problem: text(&body[1..])? },
            _ => return None,
        };
        Some((Session(u32::from_le_bytes(*session)), message))
    }
}

#[cfg(test)]
mod tests {
    use super::super::frame::Decoder;
    use super::*;

    #[test]
    fn every_message_arrives_as_it_was_said() {
        let messages = [
            Message::Request("list --json".into()),
            Message::File { name: "/boot/demo".into(), piece: b"\x7fELF\0\xc0\xdb".to_vec() },
            Message::Keys(b"\x1d".to_vec()),
            Message::Leave,
            Message::Output(b"Name\n".to_vec()),
            Message::Done { status: 1, problem: "there is no guest \"a\"".into() },
        ];
        for message in messages {
            let mut line = Vec::new();
            message.encode(Session(0xc0db_0102), &mut line);
            let frames = Decoder::default().take(&line);
            let decoded = frames.first().and_then(|content| Message::decode(content));
            assert_eq!(decoded, Some((Session(0xc0db_0102), message)));
        }
    }

    #[test]
    fn what_is_no_message_is_none() {
        for content in [&b""[..], b"1234", b"1234\x09", b"1234\x02name without end", b"1234\x01\xff", b"1234\x11"] {
            assert_eq!(Message::decode(content), None, "{content:?}");
        }
    }
}
