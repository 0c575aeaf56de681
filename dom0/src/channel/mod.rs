//! The control channel: how the host talks to this domain's toolstack.
//!
//! A session is one request line, the files that it names, and what it answers. Each message travels in a frame of its
//! own ([`frame`]); what a message says is in [`message`]. The line between the two ends may lose its other end at any
//! byte, so a frame that is not whole is dropped, and a message of another session is not listened to.

pub mod frame;
pub mod message;
