//! The protocols of split drivers: a front end in one domain, a back end in another, a shared ring between them.

pub mod blkif;
pub mod console;
pub mod netif;
pub mod protocols;
pub mod ring;
pub mod xenbus;
pub mod xs_wire;
