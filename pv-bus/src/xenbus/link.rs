//! A driver's hold on the store: who the peer is, where it writes, and what state each side is in.
//!
//! Invariants:
//! - The peer's state is read when its watch fired, not at every event: the data path never touches the store.
//! - This side's state is private memory; the store is only told. Nobody else can move this driver by writing its key.

use alloc::format;
use alloc::string::String;
use core::fmt::{self, Display};

use super::{Intent, Phase, XenbusState};
use crate::StoreError;
use crate::hal::{Store, Transaction, WatchEvent, WatchId};
use crate::store::{self, join};
use pv_abi::DomId;

/// Which half a driver is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Side {
    /// The guest's half; its directory names `backend` and `backend-id`.
    Front,
    /// The service half; its directory names `frontend` and `frontend-id`.
    Back,
}

impl Side {
    fn peer_key(self) -> &'static str {
        match self {
            Self::Front => "backend",
            Self::Back => "frontend",
        }
    }

    /// What a half wants whose predecessor left this state.
    fn intent_after(self, left_behind: XenbusState) -> Intent {
        use XenbusState as S;
        match (self, left_behind) {
            (_, S::Unknown | S::Initialising) => Intent::Run,
            (Self::Back, S::InitWait | S::Connected | S::Reconfiguring | S::Reconfigured) => Intent::Resume,
            _ => Intent::Restart,
        }
    }

    fn peer_id_key(self) -> &'static str {
        match self {
            Self::Front => "backend-id",
            Self::Back => "frontend-id",
        }
    }
}

/// Why there is no device here.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LinkError {
    /// The key that could not be used.
    pub key: String,
    /// What the store said.
    pub error: StoreError,
}

impl fmt::Display for LinkError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.key, self.error)
    }
}

/// One half's hold on the store.
#[derive(Debug)]
pub struct Link {
    side: Side,
    path: String,
    peer_path: String,
    peer: DomId,
    watch: WatchId,
    peer_changed: bool,
    peer_state: XenbusState,
    phase: Phase,
    intent: Intent,
}

impl Link {
    /// Opens the device whose own directory is `path` (`device/vbd/51712` for a front,
    /// `/local/domain/0/backend/vbd/3/51712` for a back) and watches the peer's state.
    ///
    /// A state left behind by a predecessor makes the intent [`Intent::Restart`] or [`Intent::Resume`].
    ///
    /// # Errors
    /// [`LinkError`] with the key that is missing or malformed.
    pub fn open<S: Store>(store: &mut S, side: Side, path: &str) -> Result<Self, LinkError> {
        let none = Transaction::NONE;
        let key = join(path, side.peer_key());
        let peer_path = store::read_text(store, none, &key).map_err(|error| LinkError { key, error })?;
        let key = join(path, side.peer_id_key());
        let peer = store::read_number(store, none, &key).map_err(|error| LinkError { key, error })?;
        let left_behind = read_state(store, &join(path, "state"));
        let key = join(&peer_path, "state");
        let watch = store.watch(&key).map_err(|error| LinkError { key, error })?;
        Ok(Self {
            side,
            path: path.into(),
            peer_path,
            peer: DomId(peer),
            watch,
            peer_changed: true,
            peer_state: XenbusState::Unknown,
            phase: Phase::Start,
            intent: side.intent_after(left_behind),
        })
    }

    /// Begins anew with the peer that the store names now: the domain has come to a new host, and what was agreed with the old
    /// peer is void.
    ///
    /// # Errors
    /// As [`open`](Self::open); this link is as it was.
    pub fn reopen<S: Store>(&mut self, store: &mut S) -> Result<(), LinkError> {
        let fresh = Self::open(store, self.side, &self.path)?;
        store.unwatch(self.watch);
        *self = fresh;
        Ok(())
    }

    /// The other domain.
    #[must_use]
    pub fn peer(&self) -> DomId {
        self.peer
    }

    /// This half's directory.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The peer's directory.
    #[must_use]
    pub fn peer_path(&self) -> &str {
        &self.peer_path
    }

    /// How far this half is.
    #[must_use]
    pub fn phase(&self) -> Phase {
        self.phase
    }

    /// What this half's owner wants.
    #[must_use]
    pub fn intent(&self) -> Intent {
        self.intent
    }

    /// Changes what this half's owner wants.
    pub fn set_intent(&mut self, intent: Intent) {
        self.intent = intent;
    }

    /// The peer's state as it was last read.
    #[must_use]
    pub fn peer_state(&self) -> XenbusState {
        self.peer_state
    }

    /// Takes note of a watch event. True when it was this link's.
    pub fn on_watch(&mut self, event: &WatchEvent) -> bool {
        let mine = event.watch == self.watch;
        self.peer_changed |= mine;
        mine
    }

    /// Reads the peer's state if it may have changed. True when it was read.
    pub fn refresh<S: Store>(&mut self, store: &mut S) -> bool {
        if !self.peer_changed {
            return false;
        }
        self.peer_changed = false;
        self.peer_state = read_state(store, &join(&self.peer_path, "state"));
        true
    }

    /// Moves this half to a phase whose state is already written.
    pub fn advance(&mut self, phase: Phase) {
        self.phase = phase;
    }

    /// Moves this half to `phase` and writes `state`. A fresh offer ends a restart; a connection that cannot be taken
    /// over has to be made anew.
    pub fn enter<S: Store>(&mut self, store: &mut S, phase: Phase, state: XenbusState) {
        self.intent = match (self.side, self.intent, phase) {
            (Side::Front, Intent::Restart, Phase::Start) => Intent::Run,
            (Side::Back, Intent::Restart | Intent::Resume, Phase::Offered) => Intent::Run,
            (Side::Back, Intent::Resume, Phase::Established) => Intent::Run,
            (Side::Back, Intent::Resume, Phase::Closed) => Intent::Restart,
            (_, intent, _) => intent,
        };
        self.phase = phase;
        self.announce(store, state);
    }

    /// Writes `state` without changing the phase.
    pub fn announce<S: Store>(&self, store: &mut S, state: XenbusState) {
        log::debug!("{}: {:?}, peer {:?}", self.path, state, self.peer_state);
        let path = join(&self.path, "state");
        if let Err(error) = store::write_value(store, Transaction::NONE, &path, state as u8) {
            log::warn!("{}: store.state_not_written: {state:?}: {error}", self.path);
        }
    }

    /// Writes one of this half's keys.
    ///
    /// # Errors
    /// The store's answer.
    pub fn write<S: Store>(
        &self,
        store: &mut S,
        transaction: Transaction,
        key: &str,
        value: impl Display,
    ) -> Result<(), StoreError> {
        store::write_value(store, transaction, &join(&self.path, key), value)
    }

    /// Removes one of this half's keys; a key that is not there is as good as removed.
    pub fn remove<S: Store>(&self, store: &mut S, key: &str) {
        match store.rm(Transaction::NONE, &join(&self.path, key)) {
            Ok(()) | Err(StoreError::NoEntry) => {}
            Err(error) => log::warn!("{}: store.key_not_removed: {key}: {error}", self.path),
        }
    }

    /// Reads a number from the peer's directory.
    ///
    /// # Errors
    /// The store's answer; [`StoreError::Invalid`] when it is no such number.
    pub fn read_peer<S: Store, N: core::str::FromStr>(&self, store: &mut S, key: &str) -> Result<N, StoreError> {
        store::read_number(store, Transaction::NONE, &join(&self.peer_path, key))
    }

    /// Reads an optional number from the peer's directory.
    pub fn read_peer_or<S: Store, N: core::str::FromStr>(&self, store: &mut S, key: &str, default: N) -> N {
        store::read_number_or(store, &join(&self.peer_path, key), default)
    }

    /// Reads a feature flag from the peer's directory.
    pub fn peer_has<S: Store>(&self, store: &mut S, key: &str) -> bool {
        store::read_flag(store, &join(&self.peer_path, key))
    }

    /// Reads text from the peer's directory.
    ///
    /// # Errors
    /// The store's answer; [`StoreError::Invalid`] when it is not UTF-8.
    pub fn read_peer_text<S: Store>(&self, store: &mut S, key: &str) -> Result<String, StoreError> {
        store::read_text(store, Transaction::NONE, &join(&self.peer_path, key))
    }

    /// Tells the toolstack why this device does not work, where Linux tells it: `error/<path>/error`.
    ///
    /// A front also logs it. A back does not: what a guest causes is logged where it is counted, at a bounded rate
    /// ([`Refusals`](crate::refusal::Refusals)).
    pub fn report<S: Store>(&self, store: &mut S, message: fmt::Arguments<'_>) {
        if self.side == Side::Front {
            log::warn!("{}: {message}", self.path);
        }
        let path = match self.path.strip_prefix('/') {
            Some(_) => join(&self.path, "error"),
            None => format!("error/{}/error", self.path),
        };
        if let Err(error) = store::write_value(store, Transaction::NONE, &path, message) {
            log::debug!("{}: store.error_not_written: {error}", self.path);
        }
    }

    /// Stops watching the peer. The link is of no use afterwards.
    pub fn release<S: Store>(self, store: &mut S) {
        store.unwatch(self.watch);
    }
}

fn read_state<S: Store>(store: &mut S, path: &str) -> XenbusState {
    match store::read_number::<S, u32>(store, Transaction::NONE, path) {
        Ok(number) => XenbusState::from_number(number),
        Err(StoreError::NoEntry) => XenbusState::Unknown,
        Err(error) => {
            log::warn!("store.state_not_read: {path}: {error}");
            XenbusState::Unknown
        }
    }
}
