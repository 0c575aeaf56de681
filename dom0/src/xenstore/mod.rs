//! The store: a small tree of names and values that every domain can see its part of.
//!
//! Split drivers find each other here. A domain speaks a request/reply protocol over one shared page; the server keeps
//! the tree, decides who may see what, and tells watchers about changes.
//!
//! One direction through the files: [`ring`] takes bytes out of a page the guest also writes, [`wire`] cuts them into
//! requests, [`service`] runs it for all guests, [`server`] decides, [`tree`] holds the nodes, [`transaction`] makes several changes one.
//!
//! Invariants
//! - every node's parent exists and lists it;
//! - a node's generation changes whenever its value, children or permissions change, and no two changes share one;
//! - a transaction that commits saw nothing that has changed since;
//! - nothing an unprivileged domain does makes the server use unbounded memory ([`quota`]).
//!
//! Source: Xen `docs/misc/xenstore.txt`, `public/io/xs_wire.h`.

pub mod local;
pub mod path;
pub mod perms;
pub mod quota;
pub mod ring;
pub mod server;
pub mod service;
pub mod session;
pub mod transaction;
pub mod tree;
pub mod watch;
pub mod wire;

pub use local::LocalStore;
pub use path::{Location, Path};
pub use perms::{Access, Permissions};
pub use pv_bus::StoreError;
pub use quota::Quota;
pub use server::{ConnectionId, Server};
pub use service::StoreService;
