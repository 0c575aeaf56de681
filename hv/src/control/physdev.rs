//! Physical interrupts and devices.

/// Physical interrupts and devices.
#[derive(Debug, Default)]
pub struct Interrupts;

/// A routed interrupt line fired.
pub fn on_line<M: crate::Machine>(_hv: &crate::Hypervisor<M>, _gsi: u32) {}

/// A message-signalled interrupt arrived.
pub fn on_message<M: crate::Machine>(_hv: &crate::Hypervisor<M>, _slot: u32) {}
