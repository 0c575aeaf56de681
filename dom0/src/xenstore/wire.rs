//! Messages: a header of four words and up to 4096 bytes.
//!
//! [`Assembler`] cuts a stream of bytes that arrives in any pieces into messages. A length above the limit cannot be
//! skipped over reliably, so it ends the connection: see [`TooLong`].
//!
//! Source: Xen `public/io/xs_wire.h`.

use alloc::vec::Vec;

use super::StoreError;

/// Most bytes after a header (`XENSTORE_PAYLOAD_MAX`).
pub const PAYLOAD_MAX: usize = 4096;
/// Bytes of a header.
pub const HEADER_BYTES: usize = 16;

macro_rules! kinds {
    ($($(#[$doc:meta])* $name:ident = $number:literal,)*) => {
        /// What a message asks or says.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(u32)]
        pub enum Kind {
            $($(#[$doc])* $name = $number,)*
        }

        impl Kind {
            /// The kind with this number.
            pub fn from_number(number: u32) -> Option<Self> {
                match number {
                    $($number => Some(Self::$name),)*
                    _ => None,
                }
            }
        }
    };
}

kinds! {
    /// Asks the server about itself.
    Control = 0,
    /// Lists children.
    Directory = 1,
    /// Reads a value.
    Read = 2,
    /// Reads permissions.
    GetPerms = 3,
    /// Registers a watch.
    Watch = 4,
    /// Ends a watch.
    Unwatch = 5,
    /// Opens a transaction.
    TransactionStart = 6,
    /// Commits or drops a transaction.
    TransactionEnd = 7,
    /// Connects a domain.
    Introduce = 8,
    /// Disconnects a domain.
    Release = 9,
    /// Names a domain's home.
    GetDomainPath = 10,
    /// Sets a value.
    Write = 11,
    /// Makes a node.
    Mkdir = 12,
    /// Removes a node and all below.
    Rm = 13,
    /// Sets permissions.
    SetPerms = 14,
    /// Server to client: a watch fired.
    WatchEvent = 15,
    /// Server to client: the request was refused.
    Error = 16,
    /// Asks whether a domain is connected.
    IsDomainIntroduced = 17,
    /// A domain runs again after a suspend that was cancelled.
    Resume = 18,
    /// Gives a domain the rights of another.
    SetTarget = 19,
    /// Drops the caller's watches and transactions.
    ResetWatches = 21,
    /// Lists children from an offset on.
    DirectoryPart = 22,
}

/// A message as it came or will go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// The number of the kind; a client may send any.
    pub kind: u32,
    /// Chosen by the client, echoed in the reply.
    pub request_id: u32,
    /// The transaction, or 0.
    pub transaction: u32,
    /// What follows the header.
    pub payload: Vec<u8>,
}

impl Message {
    /// A reply to this request with the same kind.
    pub fn reply(&self, payload: Vec<u8>) -> Self {
        Self { payload, ..*self }
    }

    /// A refusal of this request.
    pub fn refusal(&self, error: StoreError) -> Self {
        let mut payload = error.wire_name().as_bytes().to_vec();
        payload.push(0);
        Self { kind: Kind::Error as u32, payload, ..*self }
    }

    /// An event for a watch.
    pub fn watch_event(path: &str, token: &str) -> Self {
        let payload = alloc::format!("{path}\0{token}\0").into_bytes();
        Self { kind: Kind::WatchEvent as u32, request_id: 0, transaction: 0, payload }
    }

    /// Appends the message as bytes.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let len = u32::try_from(self.payload.len()).unwrap_or(u32::MAX);
        for word in [self.kind, self.request_id, self.transaction, len] {
            out.extend_from_slice(&word.to_le_bytes());
        }
        out.extend_from_slice(&self.payload);
    }
}

/// The payload of a request as NUL-terminated strings.
///
/// # Errors
/// `EINVAL`: the last string is not ended, or one is no UTF-8.
pub fn strings(payload: &[u8]) -> Result<Vec<&str>, StoreError> {
    let body = payload.strip_suffix(&[0]).ok_or(StoreError::Invalid)?;
    body.split(|byte| *byte == 0).map(|part| core::str::from_utf8(part).map_err(|_| StoreError::Invalid)).collect()
}

/// The payload of a request as exactly `N` NUL-terminated strings.
///
/// # Errors
/// `EINVAL`: another number of strings, or not strings.
pub fn exactly<const N: usize>(payload: &[u8]) -> Result<[&str; N], StoreError> {
    strings(payload)?.try_into().map_err(|_| StoreError::Invalid)
}

/// A string and the bytes behind its NUL.
///
/// # Errors
/// `EINVAL`: no NUL, or the string is no UTF-8.
pub fn string_and_rest(payload: &[u8]) -> Result<(&str, &[u8]), StoreError> {
    let end = payload.iter().position(|byte| *byte == 0).ok_or(StoreError::Invalid)?;
    let text = core::str::from_utf8(&payload[..end]).map_err(|_| StoreError::Invalid)?;
    Ok((text, &payload[end + 1..]))
}

/// A header announced more than a message may hold; the stream cannot be followed any further.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooLong(pub u32);

/// Cuts a stream into messages.
#[derive(Clone, Debug, Default)]
pub struct Assembler {
    bytes: Vec<u8>,
}

impl Assembler {
    /// Adds bytes that have arrived.
    pub fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// Bytes that wait for the rest of their message.
    pub fn waiting(&self) -> usize {
        self.bytes.len()
    }

    /// Takes the next whole message, if it is there.
    ///
    /// # Errors
    /// [`TooLong`], and again at each further call.
    pub fn next_message(&mut self) -> Result<Option<Message>, TooLong> {
        let Some(header) = self.bytes.first_chunk::<HEADER_BYTES>() else {
            return Ok(None);
        };
        let word = |at: usize| u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
        let (kind, request_id, transaction, len) = (word(0), word(4), word(8), word(12));
        let end = HEADER_BYTES + len as usize;
        if len as usize > PAYLOAD_MAX {
            return Err(TooLong(len));
        }
        if self.bytes.len() < end {
            return Ok(None);
        }
        let payload = self.bytes[HEADER_BYTES..end].to_vec();
        self.bytes.drain(..end);
        Ok(Some(Message { kind, request_id, transaction, payload }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn messages_come_out_as_they_went_in_however_the_stream_is_cut(
            payloads in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..200), 1..8),
            cut in 1_usize..50,
        ) {
            let sent: Vec<Message> = payloads.into_iter().zip(0..).map(|(payload, id)| {
                Message { kind: Kind::Write as u32, request_id: id, transaction: 0, payload }
            }).collect();
            let mut stream = Vec::new();
            sent.iter().for_each(|message| message.encode(&mut stream));
            let (mut assembler, mut got) = (Assembler::default(), Vec::new());
            for piece in stream.chunks(cut) {
                assembler.push(piece);
                while let Some(message) = assembler.next_message().expect("short enough") {
                    got.push(message);
                }
            }
            prop_assert_eq!(got, sent);
        }
    }

    #[test]
    fn a_length_above_the_limit_is_an_error_before_its_bytes_arrive() {
        let mut assembler = Assembler::default();
        let mut header = [0_u8; HEADER_BYTES];
        header[12..].copy_from_slice(&4097_u32.to_le_bytes());
        assembler.push(&header);
        assert_eq!(assembler.next_message(), Err(TooLong(4097)));
    }

    #[test]
    fn strings_must_end_with_nul() {
        assert_eq!(strings(b"a\0b\0"), Ok(alloc::vec!["a", "b"]));
        assert_eq!(strings(b"a\0b"), Err(StoreError::Invalid));
        assert_eq!(strings(b""), Err(StoreError::Invalid));
    }
}
