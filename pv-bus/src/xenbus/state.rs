//! The states of a device, and what each side does about them.
//!
//! Each half of a device keeps one of nine states in the store, where the other half watches it. [`front_step`] and
//! [`back_step`] are the whole protocol: given one's own [`Phase`], what one wants, and the peer's state, they name the
//! one thing to do next. They are pure, so a test walks through every ordering of both sides.
//!
//! The usual way: the back publishes its features and waits (`InitWait`), the front offers its rings (`Initialised`,
//! or at once `Connected` for a network device), the back joins them (`Connected`), the front is done (`Connected`).
//!
//! Invariants:
//! - A front offers fresh rings only from [`Phase::Start`], and it gets there only when the old connection is gone on
//!   its own side. So a back that waits in `InitWait` and sees an offer sees a fresh one.
//! - A front that starts and finds that a predecessor left a state of its own ([`Intent::Restart`]) first makes the peer
//!   drop the old connection, of which it knows nothing, by closing.
//! - A back that finds that its predecessor was offering or connected ([`Intent::Resume`]) takes the rings over where they
//!   were left, without a word: fronts such as Linux's take any other state for the end of the device. It can, because
//!   back ends answer in the order of the ring: what is between the last response and the last request is unanswered.
//!   From any other state it makes the front drop the old connection by saying `Closed`.
//!
//! Source: Xen `public/io/xenbus.h`, `public/io/blkif.h` (state diagrams).

/// The state of one half of a device, as it stands in the store.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
#[repr(u8)]
pub enum XenbusState {
    /// There is no state, or none that this version knows.
    Unknown = 0,
    /// The toolstack made the device; the driver has not looked at it.
    Initialising = 1,
    /// Features are published; waiting for the peer's offer.
    InitWait = 2,
    /// Rings are offered; waiting for the peer to join them.
    Initialised = 3,
    /// The device works.
    Connected = 4,
    /// The device is being closed, because of an error or an unplug.
    Closing = 5,
    /// The device is closed.
    Closed = 6,
    /// The device is being changed while it is connected.
    Reconfiguring = 7,
    /// The change is made; the peer may look at it.
    Reconfigured = 8,
}

impl XenbusState {
    /// Every state, in the order of their numbers.
    pub const ALL: [Self; 9] = [
        Self::Unknown,
        Self::Initialising,
        Self::InitWait,
        Self::Initialised,
        Self::Connected,
        Self::Closing,
        Self::Closed,
        Self::Reconfiguring,
        Self::Reconfigured,
    ];

    /// The state with this number; [`XenbusState::Unknown`] for any other number.
    #[must_use]
    pub fn from_number(number: u32) -> Self {
        Self::ALL.into_iter().find(|state| *state as u32 == number).unwrap_or(Self::Unknown)
    }
}

/// How far one's own half is. What stands in the store follows from it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
pub enum Phase {
    /// Nothing is shared yet.
    Start,
    /// Front: rings are offered. Back: features are published.
    Offered,
    /// Both sides use the rings.
    Established,
    /// This side wants to close, or follows the peer in closing; rings are still there.
    Leaving,
    /// Nothing is shared any more.
    Closed,
}

impl Phase {
    /// What a front writes in this phase. An *eager* one (a network card) says `Connected` as soon as it offers.
    #[must_use]
    pub fn front_state(self, eager: bool) -> XenbusState {
        match self {
            Self::Start => XenbusState::Initialising,
            Self::Offered if eager => XenbusState::Connected,
            Self::Offered => XenbusState::Initialised,
            Self::Established => XenbusState::Connected,
            Self::Leaving => XenbusState::Closing,
            Self::Closed => XenbusState::Closed,
        }
    }

    /// What a back writes in this phase.
    #[must_use]
    pub fn back_state(self) -> XenbusState {
        match self {
            Self::Start => XenbusState::Initialising,
            Self::Offered => XenbusState::InitWait,
            Self::Established => XenbusState::Connected,
            Self::Leaving => XenbusState::Closing,
            Self::Closed => XenbusState::Closed,
        }
    }
}

/// What the owner of a driver wants of it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
pub enum Intent {
    /// Work.
    Run,
    /// Get rid of a connection that somebody before left behind, then work.
    Restart,
    /// Take over a connection that somebody before left behind; a back's only.
    Resume,
    /// Close for good.
    Leave,
}

/// What a front does next.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum FrontStep {
    /// Nothing, until the peer's state changes.
    Wait,
    /// Make rings and offer them; then [`Phase::Offered`].
    Offer,
    /// Read what the back says of the device; then [`Phase::Established`].
    Connect,
    /// Go on working; look again at what can change.
    Serve,
    /// Hold requests back: the device is being changed.
    Pause,
    /// Take no new requests, wait for the responses to the old ones, then drop the rings; then [`Phase::Closed`].
    Finish,
    /// Drop the rings at once, keep what was not answered; then [`Phase::Closed`].
    Disconnect,
    /// A predecessor's connection is still up: [`Intent::Restart`] from now on.
    Evict,
    /// Just go to this phase.
    Enter(Phase),
}

/// The next step of a front.
#[must_use]
pub fn front_step(phase: Phase, intent: Intent, back: XenbusState) -> FrontStep {
    match phase {
        Phase::Start => front_from_start(intent, back),
        Phase::Offered => front_from_offered(intent, back),
        Phase::Established => front_from_established(intent, back),
        Phase::Leaving => front_from_leaving(back),
        Phase::Closed => front_from_closed(intent, back),
    }
}

fn front_from_start(intent: Intent, back: XenbusState) -> FrontStep {
    use XenbusState as S;
    match (intent, back) {
        (Intent::Leave, _) => FrontStep::Enter(Phase::Closed),
        (Intent::Restart | Intent::Resume, S::Unknown | S::Initialising | S::Closed) => FrontStep::Enter(Phase::Start),
        (Intent::Restart | Intent::Resume, _) => FrontStep::Enter(Phase::Leaving),
        (Intent::Run, S::InitWait | S::Initialised) => FrontStep::Offer,
        (Intent::Run, S::Connected | S::Reconfiguring | S::Reconfigured) => FrontStep::Evict,
        (Intent::Run, S::Unknown | S::Initialising | S::Closing | S::Closed) => FrontStep::Wait,
    }
}

fn front_from_offered(intent: Intent, back: XenbusState) -> FrontStep {
    use XenbusState as S;
    match (intent, back) {
        (Intent::Leave, _) => FrontStep::Enter(Phase::Leaving),
        (_, S::Connected | S::Reconfigured) => FrontStep::Connect,
        (_, S::Unknown | S::Closing | S::Closed) => FrontStep::Disconnect,
        (_, S::Initialising | S::InitWait | S::Initialised | S::Reconfiguring) => FrontStep::Wait,
    }
}

fn front_from_established(intent: Intent, back: XenbusState) -> FrontStep {
    use XenbusState as S;
    match (intent, back) {
        (Intent::Leave, S::Connected | S::Reconfigured | S::Reconfiguring) | (_, S::Closing) => FrontStep::Finish,
        (_, S::Connected | S::Reconfigured) => FrontStep::Serve,
        (_, S::Reconfiguring) => FrontStep::Pause,
        (_, S::Unknown | S::Initialising | S::InitWait | S::Initialised | S::Closed) => FrontStep::Disconnect,
    }
}

fn front_from_leaving(back: XenbusState) -> FrontStep {
    use XenbusState as S;
    match back {
        // Only an answer counts. `InitWait` may be what was seen before the back joined the rings.
        S::Unknown | S::Closing | S::Closed => FrontStep::Disconnect,
        S::Initialising | S::InitWait | S::Initialised | S::Connected | S::Reconfiguring | S::Reconfigured => {
            FrontStep::Wait
        }
    }
}

fn front_from_closed(intent: Intent, back: XenbusState) -> FrontStep {
    use XenbusState as S;
    match (intent, back) {
        (Intent::Leave, _) => FrontStep::Wait,
        (_, S::Initialising | S::InitWait) | (Intent::Restart, S::Closed) => FrontStep::Enter(Phase::Start),
        _ => FrontStep::Wait,
    }
}

/// What a back does next.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum BackStep {
    /// Nothing, until the peer's state changes.
    Wait,
    /// Publish features; then [`Phase::Offered`].
    Publish,
    /// Join the front's rings and publish what the device is; then [`Phase::Established`].
    Connect,
    /// Go on working.
    Serve,
    /// Drop the rings; then [`Phase::Closed`].
    Disconnect,
    /// Just go to this phase.
    Enter(Phase),
}

/// The next step of a back.
#[must_use]
pub fn back_step(phase: Phase, intent: Intent, front: XenbusState) -> BackStep {
    match phase {
        Phase::Start => back_from_start(intent, front),
        Phase::Offered => back_from_offered(intent, front),
        Phase::Established => back_from_established(intent, front),
        Phase::Leaving => back_from_leaving(front),
        Phase::Closed => back_from_closed(intent, front),
    }
}

fn back_from_start(intent: Intent, front: XenbusState) -> BackStep {
    use XenbusState as S;
    match (intent, front) {
        (Intent::Leave, _) => BackStep::Enter(Phase::Closed),
        (Intent::Resume, S::Initialised | S::Connected) => BackStep::Connect,
        (
            Intent::Restart | Intent::Resume,
            S::Initialised | S::Connected | S::Closing | S::Reconfiguring | S::Reconfigured,
        ) => BackStep::Enter(Phase::Closed),
        _ => BackStep::Publish,
    }
}

fn back_from_offered(intent: Intent, front: XenbusState) -> BackStep {
    use XenbusState as S;
    match (intent, front) {
        (Intent::Leave, _) | (_, S::Closing) => BackStep::Enter(Phase::Leaving),
        (_, S::Initialised | S::Connected) => BackStep::Connect,
        _ => BackStep::Wait,
    }
}

fn back_from_established(intent: Intent, front: XenbusState) -> BackStep {
    use XenbusState as S;
    match (intent, front) {
        (_, S::Unknown | S::Initialising | S::InitWait | S::Closed) => BackStep::Disconnect,
        (Intent::Leave, _) | (_, S::Closing) => BackStep::Enter(Phase::Leaving),
        (_, S::Initialised | S::Connected | S::Reconfiguring | S::Reconfigured) => BackStep::Serve,
    }
}

fn back_from_leaving(front: XenbusState) -> BackStep {
    use XenbusState as S;
    match front {
        S::Unknown | S::Initialising | S::InitWait | S::Closed => BackStep::Disconnect,
        S::Initialised | S::Connected | S::Closing | S::Reconfiguring | S::Reconfigured => BackStep::Serve,
    }
}

fn back_from_closed(intent: Intent, front: XenbusState) -> BackStep {
    use XenbusState as S;
    match (intent, front) {
        (Intent::Leave, _) => BackStep::Wait,
        (_, S::Initialising) | (Intent::Restart | Intent::Resume, S::Closed | S::Unknown) => BackStep::Publish,
        _ => BackStep::Wait,
    }
}

#[cfg(test)]
mod tests;
