//! The console's owner and its ring.

/// The console's owner and its ring.
#[derive(Debug, Default)]
pub struct Console;

/// Something was typed.
pub fn on_input<M: crate::Machine>(_hv: &crate::Hypervisor<M>) {}
