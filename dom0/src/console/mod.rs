//! One terminal, several guests.
//!
//! [`guest`] is the other end of a guest's console, [`multiplexer`] decides where each byte goes; [`line`] edits what is typed at this domain's own prompt, and
//! [`command`] reads it.

pub mod command;
pub mod guest;
pub mod line;
pub mod multiplexer;
