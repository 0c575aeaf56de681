//! The commands, a file each.

pub(crate) mod bench;
pub(crate) mod ci;
pub(crate) mod compare;
pub(crate) mod ctl;
pub(crate) mod doctor;
pub(crate) mod image;
pub(crate) mod lint;
pub(crate) mod matrix;
pub(crate) mod run;
pub(crate) mod size;
pub(crate) mod test;
