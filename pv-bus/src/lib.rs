//! What both halves of a Xen split driver share.
//!
//! A split driver has a front end in a guest and a back end in a service domain. They meet through four things:
//! granted pages, event channels, the xenstore, and a handshake of states kept there. This crate has
//! - [`Hal`]: what a kernel provides to such a driver;
//! - [`SharedPage`]: memory that the peer may write at any moment;
//! - [`store`]: typed keys and transactions.
//!
//! It is `no_std` and has no `unsafe`.
#![no_std]
#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a failed step is a failed test"))]

extern crate alloc;

pub mod block;
pub mod checksum;
pub mod console;
pub mod error;
pub mod hal;
pub mod loopback;
pub mod net;
pub mod page;
pub mod refusal;
pub mod ring;
pub mod segment;
pub mod store;
pub mod xenbus;

pub use error::{EventError, GrantError, OutOfMemory, StoreError};
pub use hal::{
    Access, Clock, CopyBuffer, Events, GrantCopy, Grants, Hal, Memory, Store, Transaction, WatchEvent, WatchId,
};
pub use loopback::Loopback;
pub use page::{PAGE_SIZE, SharedPage};
pub use pv_abi::{DomId, GrantRef, Port};
