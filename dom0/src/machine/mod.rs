//! What the service domain runs on: hypercalls, mapped memory, devices.

pub(crate) mod control;
pub(crate) mod tmp_abi;
