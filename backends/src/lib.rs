//! The service halves of Xen's split drivers, for any kernel that implements [`pv_bus::Hal`].
//!
//! - [`console`]: the byte rings of a console page.
//! - [`block`]: a disk, over any [`block::BlockDevice`].
//! - [`net`]: a network card, over any [`net::NetPort`], and a learning bridge.
//!
//! Every field a guest can write is hostile. So, everywhere in this crate:
//! - a field is read once into a private copy, checked, and then only the copy is used;
//! - what is refused is answered as the protocol says, counted, and logged with the name of its rule;
//! - one call does a bounded amount of work, whatever the rings say;
//! - nothing is indexed with a number that was not checked, and no arithmetic on such a number can overflow.
//!
//! `no_std`, no `unsafe`.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

pub mod block;
pub mod console;
pub mod net;
mod shared;

/// Whether a back end has more to do right now.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Progress {
    /// Nothing until the next event.
    Idle,
    /// The call did its share and stopped; there is more.
    More,
}
