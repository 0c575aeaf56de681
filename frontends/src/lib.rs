//! The guest halves of Xen's split drivers, for any kernel that implements [`pv_bus::Hal`].
//!
//! - [`console`]: the byte rings of a console page.
//! - [`block`]: a disk.
//! - [`net`]: a network card.
//!
//! Each driver is a state machine. The kernel calls `on_watch` with store events, `on_event` when an event channel
//! fires, and may call `poll` at any time; every call does what can be done now and returns. The device comes and goes
//! as its back end does: a driver reconnects, and sends again what was not answered.
//!
//! `no_std`, no `unsafe`. A back end is not trusted with this kernel's memory: every index and id it writes is checked,
//! and it is given access to driver pages only, never to a caller's buffer.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

pub mod block;
pub mod console;
mod graveyard;
pub mod net;
mod shared;
mod status;
