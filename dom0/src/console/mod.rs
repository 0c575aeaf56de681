//! One terminal, several guests.
//!
//! [`multiplexer`] decides where each byte goes; [`line`] edits what is typed at this domain's own prompt, and
//! [`command`] reads it: a row of the table of verbs each.

pub mod command;
pub mod line;
pub mod multiplexer;
mod verbs;
pub mod words;
