//! What a toolstack and dom0 may ask; how dom0 is built.
//!
//! | file | what is decided there |
//! |---|---|
//! | `options` | the command line |
//! | `build` | dom0: its kernel, its memory, its first vCPU |
//! | `version`, `console` | what any guest asks of the hypervisor as such |
//! | `domctl`, `sysctl`, `platform` | the operations of a toolstack and of dom0 |
//! | `destroy`, `crash` | how a domain ends |
//! | `physdev`, `pci`, `permissions` | devices and their interrupts |

pub mod build;
pub mod console;
mod crash;
pub(crate) mod destroy;
mod domctl;
pub mod options;
pub(crate) mod pci;
pub mod permissions;
pub mod physdev;
mod platform;
mod settings;
mod sysctl;
#[cfg(test)]
mod tests;
mod version;

pub use build::{Dom0, Ramdisk, build_dom0, start};
pub use console::console_io;
pub use crash::{crash, on_shutdown, report_guest_crash};
pub use domctl::domctl;
pub use physdev::physdev_op;
pub use platform::platform_op;
pub use settings::{Settings, TscSettings};
pub use sysctl::sysctl;
pub use version::{VERSION, xen_version};

pub use crate::domain::context::apply as set_context;

use crate::call::Call;
use crate::hardware::Machine;

/// Whether the calling vCPU may not go on now (its domain shut down or paused, it blocked).
#[must_use]
#[inline]
pub fn must_stop<M: Machine>(call: &Call<'_, M>) -> bool {
    !call.vcpu().is_runnable()
}
