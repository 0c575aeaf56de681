//! Guests: how they are described, made, watched and ended.
//!
//! [`config`] reads a description, [`unpack`] and [`image`] a kernel, [`layout`] places everything in the guest's memory, [`tables`]
//! makes its first page tables, [`build`] carries it all out through [`control`] ([`pvh`], [`firmware`] and [`linux`] for
//! a guest with hardware assistance), and [`nodes`] lists what the store
//! says about the guest. What happens when a guest stops is in [`lifecycle`], what commands
//! print in [`report`].
//!
//! The order of operations and their arguments are those of Xen's own toolstack, so that any hypervisor that serves
//! `xl` serves this one.

pub mod build;
pub mod config;
pub mod control;
pub mod cpus;
pub mod device;
pub mod firmware;
pub mod image;
pub mod layout;
pub mod lifecycle;
pub mod linux;
pub mod nodes;
pub mod notes;
pub mod pvh;
pub mod report;
pub mod tables;
pub mod unpack;
