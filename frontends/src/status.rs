//! How a device is, as its owner sees it.

use pv_bus::xenbus::Phase;

/// How a device is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Status {
    /// Waiting for the back end. What was asked of the device before waits with it.
    Connecting,
    /// Working.
    Ready,
    /// The back end is changing the device; requests wait.
    Paused,
    /// The device is being closed.
    Closing,
    /// The device is closed; it works again if its back end comes back.
    Closed,
}

impl Status {
    pub(crate) fn of(phase: Phase, paused: bool) -> Self {
        match phase {
            Phase::Start | Phase::Offered => Self::Connecting,
            Phase::Established if paused => Self::Paused,
            Phase::Established => Self::Ready,
            Phase::Leaving => Self::Closing,
            Phase::Closed => Self::Closed,
        }
    }
}
