//! The numbers by which domains and what they share are named.

pub use pv_bus::{DomId, GrantRef, Port};
