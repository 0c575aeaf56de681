//! I/O ports, I/O memory and interrupts that a domain may use.

/// I/O ports, I/O memory and interrupts that a domain may use.
#[derive(Debug, Default)]
pub struct Permissions;
