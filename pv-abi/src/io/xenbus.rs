//! The states that the two halves of a split driver go through, each in its node `state`.
//!
//! Xen: `public/io/xenbus.h`.

use crate::layout::constants;

constants! {
    header "io/xenbus.h";
    /// Not known; also what a missing node stands for.
    pub const XENBUS_STATE_UNKNOWN [XenbusStateUnknown]: u32 = 0;
    /// The half exists.
    pub const XENBUS_STATE_INITIALISING [XenbusStateInitialising]: u32 = 1;
    /// The half has written what it offers and waits for the other.
    pub const XENBUS_STATE_INIT_WAIT [XenbusStateInitWait]: u32 = 2;
    /// The half has written all the other needs to connect.
    pub const XENBUS_STATE_INITIALISED [XenbusStateInitialised]: u32 = 3;
    /// In operation.
    pub const XENBUS_STATE_CONNECTED [XenbusStateConnected]: u32 = 4;
    /// The half is being closed, for an error or an unplug.
    pub const XENBUS_STATE_CLOSING [XenbusStateClosing]: u32 = 5;
    /// Closed.
    pub const XENBUS_STATE_CLOSED [XenbusStateClosed]: u32 = 6;
    /// The device changes.
    pub const XENBUS_STATE_RECONFIGURING [XenbusStateReconfiguring]: u32 = 7;
    /// The device has changed.
    pub const XENBUS_STATE_RECONFIGURED [XenbusStateReconfigured]: u32 = 8;
}

/// A half's state.
///
/// ```
/// use pv_abi::io::xenbus::XenbusState;
/// assert_eq!(XenbusState::parse(b"4"), XenbusState::Connected);
/// assert_eq!(XenbusState::parse(b"junk"), XenbusState::Unknown);
/// ```
///
/// Xen: `enum xenbus_state` in `public/io/xenbus.h`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
#[repr(u32)]
pub enum XenbusState {
    /// Not known.
    #[default]
    Unknown = 0,
    /// The half exists.
    Initialising = 1,
    /// It has written what it offers.
    InitWait = 2,
    /// It has written all the other needs.
    Initialised = 3,
    /// In operation.
    Connected = 4,
    /// Being closed.
    Closing = 5,
    /// Closed.
    Closed = 6,
    /// The device changes.
    Reconfiguring = 7,
    /// The device has changed.
    Reconfigured = 8,
}

impl XenbusState {
    /// The state with this number; [`XenbusState::Unknown`] for any that is none.
    pub const fn from_raw(state: u32) -> XenbusState {
        match state {
            1 => XenbusState::Initialising,
            2 => XenbusState::InitWait,
            3 => XenbusState::Initialised,
            4 => XenbusState::Connected,
            5 => XenbusState::Closing,
            6 => XenbusState::Closed,
            7 => XenbusState::Reconfiguring,
            8 => XenbusState::Reconfigured,
            _ => XenbusState::Unknown,
        }
    }

    /// The state that a node's text stands for.
    pub const fn parse(text: &[u8]) -> XenbusState {
        match text {
            [digit @ b'0'..=b'8'] => XenbusState::from_raw((*digit - b'0') as u32),
            _ => XenbusState::Unknown,
        }
    }

    /// The text for the node.
    pub const fn as_str(self) -> &'static str {
        match self {
            XenbusState::Unknown => "0",
            XenbusState::Initialising => "1",
            XenbusState::InitWait => "2",
            XenbusState::Initialised => "3",
            XenbusState::Connected => "4",
            XenbusState::Closing => "5",
            XenbusState::Closed => "6",
            XenbusState::Reconfiguring => "7",
            XenbusState::Reconfigured => "8",
        }
    }
}
