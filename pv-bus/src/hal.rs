//! What a split driver asks of the kernel it runs in.
//!
//! A kernel implements five small traits, [`Memory`], [`Grants`], [`Events`], [`Store`] and [`Clock`]; whoever has all
//! five is a [`Hal`]. Front ends and back ends are state machines over `&mut impl Hal`:
//! - they are called when something may have happened (an event channel fired, a watch fired, a timer ran out);
//! - they do what can be done now and return. No driver waits for its peer inside a call.
//!
//! So the same driver serves a kernel that sleeps in threads and one that polls in a loop. Only [`Store`] operations
//! are round trips to the xenstore daemon: a kernel may sleep or poll inside them, and they always end.
//!
//! Nothing here is static: a test can run two domains in one process (see `Loopback`).
//!
//! Source: Xen `public/grant_table.h`, `public/event_channel.h`, `public/io/xs_wire.h`.

use alloc::string::String;
use alloc::vec::Vec;

use pv_abi::{DomId, GrantRef, Port};

use crate::SharedPage;
use crate::error::{EventError, GrantError, OutOfMemory, StoreError};

/// Everything a split driver needs. Implemented by whoever implements the five parts.
pub trait Hal: Memory + Grants + Events + Store + Clock {}

impl<T: Memory + Grants + Events + Store + Clock> Hal for T {}

/// Pages that can be shared with another domain.
pub trait Memory {
    /// A page of this domain's own memory.
    type Page: SharedPage;

    /// Takes a zeroed page, so that a peer never sees what was in it before.
    ///
    /// # Errors
    /// [`OutOfMemory`] when the domain has no free page.
    fn alloc_page(&mut self) -> Result<Self::Page, OutOfMemory>;

    /// Gives a page back. Its grants must have ended.
    fn free_page(&mut self, page: Self::Page);
}

/// What a grantee may do with a granted page.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Access {
    /// Only read it.
    ReadOnly,
    /// Read and write it.
    ReadWrite,
}

/// Which way one [`GrantCopy`] goes, and the bytes at this end of it.
#[derive(Debug)]
pub enum CopyBuffer<'a> {
    /// Copy from the peer's page into these bytes.
    FromPeer(&'a mut [u8]),
    /// Copy these bytes into the peer's page.
    ToPeer(&'a [u8]),
}

impl CopyBuffer<'_> {
    /// How many bytes are copied.
    #[must_use]
    pub fn len_bytes(&self) -> usize {
        match self {
            Self::FromPeer(bytes) => bytes.len(),
            Self::ToPeer(bytes) => bytes.len(),
        }
    }
}

/// One copy between local bytes and a page that a peer granted.
#[derive(Debug)]
pub struct GrantCopy<'a> {
    /// The peer's page.
    pub grant: GrantRef,
    /// Where in that page the copy starts. `offset + length` stays within one page.
    pub offset: usize,
    /// The local bytes, and the direction. They may cross page borders: the kernel splits them.
    pub buffer: CopyBuffer<'a>,
    /// How it ended; written by [`Grants::copy_grants`].
    pub result: Result<(), GrantError>,
}

impl<'a> GrantCopy<'a> {
    /// A copy out of the peer's page.
    pub fn from_peer(grant: GrantRef, offset: usize, into: &'a mut [u8]) -> Self {
        Self { grant, offset, buffer: CopyBuffer::FromPeer(into), result: Ok(()) }
    }

    /// A copy into the peer's page.
    #[must_use]
    pub fn to_peer(grant: GrantRef, offset: usize, from: &'a [u8]) -> Self {
        Self { grant, offset, buffer: CopyBuffer::ToPeer(from), result: Ok(()) }
    }
}

/// Grant tables: sharing one's own pages, and reaching the pages of a peer.
pub trait Grants: Memory {
    /// A peer's page that is mapped here.
    type Mapping: SharedPage;

    /// Lets `peer` map or copy `page`.
    ///
    /// # Errors
    /// [`GrantError::NoFreeEntry`] when the grant table is full.
    fn grant_access(&mut self, peer: DomId, page: &Self::Page, access: Access) -> Result<GrantRef, GrantError>;

    /// Ends a grant if the peer is not using it at this moment. Never waits.
    ///
    /// # Errors
    /// [`GrantError::InUse`] while the peer has the page mapped: the grant and the page must be kept, try again later.
    fn end_access(&mut self, grant: GrantRef) -> Result<(), GrantError>;

    /// Maps pages that `peer` granted, all in one batch, and appends one result for each to `mapped`, in order.
    fn map_grants(
        &mut self,
        peer: DomId,
        access: Access,
        grants: &[GrantRef],
        mapped: &mut Vec<Result<Self::Mapping, GrantError>>,
    );

    /// Unmaps all of `mappings` in one batch and leaves the vector empty.
    fn unmap_grants(&mut self, mappings: &mut Vec<Self::Mapping>);

    /// Copies to and from pages that `peer` granted, all in one batch; each entry gets its own result.
    fn copy_grants(&mut self, peer: DomId, batch: &mut [GrantCopy<'_>]);
}

/// Event channels. A new port is masked: it delivers from its first [`unmask`](Events::unmask) on.
pub trait Events {
    /// Makes a port that `remote` may bind to.
    ///
    /// # Errors
    /// [`EventError`] when there is no free port or no such domain.
    fn alloc_unbound(&mut self, remote: DomId) -> Result<Port, EventError>;

    /// Connects a new local port to a port that `remote` made for this domain.
    ///
    /// # Errors
    /// [`EventError`] when `remote_port` is not open to this domain.
    fn bind_interdomain(&mut self, remote: DomId, remote_port: Port) -> Result<Port, EventError>;

    /// Makes the other end of `port` pending. A port without another end swallows it.
    fn notify(&mut self, port: Port);

    /// Lets `port` deliver. An event that came while it was masked is delivered now.
    fn unmask(&mut self, port: Port);

    /// Closes `port`; the other end becomes unbound.
    fn close(&mut self, port: Port);
}

/// A xenstore transaction, or none.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub struct Transaction(pub u32);

impl Transaction {
    /// Outside any transaction: the operation takes effect at once.
    pub const NONE: Self = Self(0);
}

/// One watch. The kernel chooses the number and puts it on the wire as the token.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
pub struct WatchId(pub u64);

/// A watch that fired.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct WatchEvent {
    /// Which watch.
    pub watch: WatchId,
    /// The node that changed: the watched one or one below it.
    pub path: String,
}

/// Xenstore. Paths are absolute (`/local/domain/3/…`) or relative to this domain's home (`device/vbd/51712`).
pub trait Store {
    /// Reads a node.
    ///
    /// # Errors
    /// [`StoreError::NoEntry`] when it is not there; any other answer of the store.
    fn read(&mut self, transaction: Transaction, path: &str) -> Result<Vec<u8>, StoreError>;

    /// Writes a node, making it and its parents where they are missing.
    ///
    /// # Errors
    /// The answer of the store.
    fn write(&mut self, transaction: Transaction, path: &str, value: &[u8]) -> Result<(), StoreError>;

    /// Makes an empty node if there is none.
    ///
    /// # Errors
    /// The answer of the store.
    fn mkdir(&mut self, transaction: Transaction, path: &str) -> Result<(), StoreError>;

    /// Removes a node and all below it. A node that is not there under a parent that is counts as removed.
    ///
    /// # Errors
    /// The answer of the store.
    fn rm(&mut self, transaction: Transaction, path: &str) -> Result<(), StoreError>;

    /// The names of a node's children.
    ///
    /// # Errors
    /// [`StoreError::NoEntry`] when the node is not there; any other answer of the store.
    fn directory(&mut self, transaction: Transaction, path: &str) -> Result<Vec<String>, StoreError>;

    /// Starts a transaction. Prefer [`store::transaction`](crate::store::transaction), which retries.
    ///
    /// # Errors
    /// The answer of the store.
    fn transaction_start(&mut self) -> Result<Transaction, StoreError>;

    /// Ends a transaction; `commit` makes its writes take effect together.
    ///
    /// # Errors
    /// [`StoreError::Again`] when another change came in between: nothing took effect, start over.
    fn transaction_end(&mut self, transaction: Transaction, commit: bool) -> Result<(), StoreError>;

    /// Watches a node and all below it. The watch fires once at once, and then for each change.
    ///
    /// # Errors
    /// The answer of the store.
    fn watch(&mut self, path: &str) -> Result<WatchId, StoreError>;

    /// Ends a watch. Events of it that are still queued are dropped.
    fn unwatch(&mut self, watch: WatchId);

    /// The next watch event of this domain, if any came. The kernel's dispatcher calls this and hands the event to the
    /// driver that owns the watch.
    fn next_watch_event(&mut self) -> Option<WatchEvent>;
}

/// Time.
pub trait Clock {
    /// Nanoseconds since some fixed moment; never goes back.
    fn now_ns(&self) -> u64;
}
