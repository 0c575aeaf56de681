//! [`pv_bus::Hal`] for this kernel: what split drivers run on.
//!
//! One [`PvHal`] belongs to one thread that runs drivers. All its event channels and watches raise one [`Signal`]
//! ([`PvHal::signal`]): the thread sleeps on it and then asks its drivers to look.
//!
//! The store is a parameter: the ring to the xenstore daemon ([`RingStore`]), or, in the service domain that *is* the
//! daemon, the store itself.
#![expect(unsafe_code, reason = "reaches pages that other domains write")]

use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use pv_abi::errno::Errno;
use pv_bus::{
    Access, Clock, CopyBuffer, DomId, EventError, Events, GrantCopy, GrantError, GrantRef, Grants, Memory, OutOfMemory,
    PAGE_SIZE, Port, SharedPage, Store, StoreError, Transaction, WatchEvent, WatchId,
};

use super::store::RingStore;
use super::{clock, events, foreign, grants, suspend};
use crate::mm::frames::Pages;
use crate::task::Signal;

/// A [`pv_bus::Hal`] with the store `S`.
#[derive(Debug)]
pub struct PvHal<S> {
    store: S,
    signal: Arc<Signal>,
    /// The life of the domain in which its ports were opened: in a later one their numbers are others'.
    life: u64,
}

impl PvHal<RingStore> {
    /// A hal whose store is the xenstore daemon.
    ///
    /// # Errors
    /// [`StoreError::IsConnected`] is never returned; [`StoreError::Io`] when this domain was given no store ring.
    pub fn connect() -> Result<Self, StoreError> {
        let signal = Arc::new(Signal::new());
        let store = RingStore::connect(signal.clone())?;
        suspend::on_resume(&signal);
        Ok(Self { store, signal, life: suspend::life() })
    }
}

impl<S: Store> PvHal<S> {
    /// A hal with another store, which raises `signal` when a watch event is waiting.
    pub fn with_store(store: S, signal: Arc<Signal>) -> Self {
        Self { store, signal, life: suspend::life() }
    }

    /// True once this kernel has come to a new domain: peers, event channels and grants of before are gone. The drivers are
    /// told to begin anew, and then [`settle_in`](Self::settle_in) is called.
    #[must_use]
    pub fn has_moved(&self) -> bool {
        self.life != suspend::life()
    }

    /// From here on ports are those of the domain as it is now.
    pub fn settle_in(&mut self) {
        self.life = suspend::life();
    }

    /// Raised when a port of this hal fired or a watch event is waiting.
    #[must_use]
    pub fn signal(&self) -> Arc<Signal> {
        self.signal.clone()
    }
}

/// A page at a kernel address that another domain may write at any moment.
trait RawPage {
    /// Where it is mapped, for as long as `self` lives.
    fn page_addr(&self) -> usize;
}

/// A page of this domain.
#[derive(Debug)]
pub struct OwnPage(Pages);

impl OwnPage {
    /// Its frame.
    #[must_use]
    pub fn pfn(&self) -> crate::mm::Pfn {
        self.0.first()
    }
}

impl RawPage for OwnPage {
    fn page_addr(&self) -> usize {
        self.0.addr()
    }
}

/// A page that a peer granted.
#[derive(Debug)]
pub struct PeerPage(grants::GrantMapping);

impl RawPage for PeerPage {
    fn page_addr(&self) -> usize {
        self.0.addr()
    }
}

fn checked(page: &impl RawPage, offset: usize, len: usize) -> usize {
    assert!(offset <= PAGE_SIZE && len <= PAGE_SIZE - offset, "access beyond a page");
    page.page_addr() + offset
}

fn word_u32(page: &impl RawPage, offset: usize) -> &AtomicU32 {
    assert!(offset.is_multiple_of(4), "an index word is aligned");
    let word = checked(page, offset, 4) as *const AtomicU32;
    // SAFETY: mapped while `page` lives, aligned, within the page; atomics may be shared with another domain.
    unsafe { &*word }
}

fn word_u64(page: &impl RawPage, offset: usize) -> &AtomicU64 {
    assert!(offset.is_multiple_of(8), "an index word is aligned");
    let word = checked(page, offset, 8) as *const AtomicU64;
    // SAFETY: mapped while `page` lives, aligned, within the page; atomics may be shared with another domain.
    unsafe { &*word }
}

fn read_bytes(page: &impl RawPage, offset: usize, into: &mut [u8]) {
    let from = checked(page, offset, into.len()) as *const u8;
    // SAFETY: within the mapped page; `into` is this kernel's own memory.
    unsafe { core::ptr::copy_nonoverlapping(from, into.as_mut_ptr(), into.len()) }
}

fn write_bytes(page: &impl RawPage, offset: usize, from: &[u8]) {
    let to = checked(page, offset, from.len()) as *mut u8;
    // SAFETY: within the mapped page; `from` is this kernel's own memory.
    unsafe { core::ptr::copy_nonoverlapping(from.as_ptr(), to, from.len()) }
}

macro_rules! shared_page {
    ($page:ty) => {
        impl SharedPage for $page {
            fn read(&self, offset: usize, into: &mut [u8]) {
                read_bytes(self, offset, into);
            }
            fn write(&self, offset: usize, from: &[u8]) {
                write_bytes(self, offset, from);
            }
            fn load_u32(&self, offset: usize, order: Ordering) -> u32 {
                word_u32(self, offset).load(order)
            }
            fn store_u32(&self, offset: usize, value: u32, order: Ordering) {
                word_u32(self, offset).store(value, order);
            }
            fn compare_exchange_u32(&self, offset: usize, current: u32, new: u32) -> Result<u32, u32> {
                let word = word_u32(self, offset);
                word.compare_exchange(current, new, Ordering::SeqCst, Ordering::SeqCst)
            }
            fn load_u64(&self, offset: usize, order: Ordering) -> u64 {
                word_u64(self, offset).load(order)
            }
            fn store_u64(&self, offset: usize, value: u64, order: Ordering) {
                word_u64(self, offset).store(value, order);
            }
            fn compare_exchange_u64(&self, offset: usize, current: u64, new: u64) -> Result<u64, u64> {
                let word = word_u64(self, offset);
                word.compare_exchange(current, new, Ordering::SeqCst, Ordering::SeqCst)
            }
        }
    };
}

shared_page!(OwnPage);
shared_page!(PeerPage);

impl<S> Memory for PvHal<S> {
    type Page = OwnPage;

    fn alloc_page(&mut self) -> Result<OwnPage, OutOfMemory> {
        Pages::alloc(1).map(OwnPage).ok_or(OutOfMemory)
    }

    fn free_page(&mut self, page: OwnPage) {
        drop(page);
    }
}

fn access_of(access: Access) -> foreign::Access {
    match access {
        Access::ReadOnly => foreign::Access::Read,
        Access::ReadWrite => foreign::Access::ReadWrite,
    }
}

fn error_of(error: grants::GrantError) -> GrantError {
    match error {
        grants::GrantError::NoFreeEntry => GrantError::NoFreeEntry,
        grants::GrantError::InUse => GrantError::InUse,
        grants::GrantError::Status(status) => GrantError::Status(status),
        grants::GrantError::NoAddresses => GrantError::Status(pv_abi::grant_table::GNTST_NO_SPACE),
        grants::GrantError::Refused(_) => GrantError::Status(pv_abi::grant_table::GNTST_GENERAL_ERROR),
    }
}

impl<S> Grants for PvHal<S> {
    type Mapping = PeerPage;

    fn grant_access(&mut self, peer: DomId, page: &OwnPage, access: Access) -> Result<GrantRef, GrantError> {
        grants::grant_access(peer, page.pfn(), access_of(access)).map_err(error_of)
    }

    fn end_access(&mut self, grant: GrantRef) -> Result<(), GrantError> {
        grants::end_access(grant).map_err(error_of)
    }

    fn map_grants(
        &mut self,
        peer: DomId,
        access: Access,
        wanted: &[GrantRef],
        mapped: &mut Vec<Result<PeerPage, GrantError>>,
    ) {
        let results = grants::map(peer, access_of(access), wanted);
        mapped.extend(results.into_iter().map(|result| result.map(PeerPage).map_err(error_of)));
    }

    fn unmap_grants(&mut self, mappings: &mut Vec<PeerPage>) {
        grants::unmap(mappings.drain(..).map(|page| page.0).collect());
    }

    fn copy_grants(&mut self, peer: DomId, batch: &mut [GrantCopy<'_>]) {
        let mut copies = Vec::with_capacity(batch.len() * 2);
        let mut owners = Vec::with_capacity(batch.len() * 2);
        for (owner, entry) in batch.iter_mut().enumerate() {
            entry.result = Ok(());
            split(peer, entry, &mut copies);
            owners.resize(copies.len(), owner);
        }
        for (owner, result) in owners.iter().zip(grants::copy(&copies)) {
            if let Err(error) = result {
                batch[*owner].result = Err(error_of(error));
            }
        }
    }
}

/// One copy for each local page that an entry's bytes touch.
fn split(peer: DomId, entry: &mut GrantCopy<'_>, copies: &mut Vec<grants::Copy>) {
    let (start, len, to_peer) = match &entry.buffer {
        CopyBuffer::FromPeer(bytes) => (bytes.as_ptr() as usize, bytes.len(), false),
        CopyBuffer::ToPeer(bytes) => (bytes.as_ptr() as usize, bytes.len(), true),
    };
    if entry.offset + len > PAGE_SIZE {
        entry.result = Err(GrantError::Status(pv_abi::grant_table::GNTST_BAD_COPY_ARG));
        return;
    }
    let mut done = 0;
    while done < len {
        let addr = start + done;
        let local_offset = addr % PAGE_SIZE;
        let step = (len - done).min(PAGE_SIZE - local_offset);
        let Some(pfn) = crate::mm::translate(addr) else {
            entry.result = Err(GrantError::Status(pv_abi::grant_table::GNTST_BAD_PAGE));
            return;
        };
        let local = (grants::CopyEnd::Local(pfn), local_offset as u16);
        let remote = (grants::CopyEnd::Granted(peer, entry.grant), (entry.offset + done) as u16);
        let (source, dest) = if to_peer { (local, remote) } else { (remote, local) };
        copies.push(grants::Copy {
            source: source.0,
            source_offset: source.1,
            dest: dest.0,
            dest_offset: dest.1,
            len: step as u16,
        });
        done += step;
    }
}

fn event_error(errno: Errno) -> EventError {
    EventError(errno as i32)
}

impl<S> Events for PvHal<S> {
    fn alloc_unbound(&mut self, remote: DomId) -> Result<Port, EventError> {
        events::alloc_unbound(remote).map_err(event_error)
    }

    fn bind_interdomain(&mut self, remote: DomId, remote_port: Port) -> Result<Port, EventError> {
        events::bind_interdomain(remote, remote_port).map_err(event_error)
    }

    fn notify(&mut self, port: Port) {
        if self.life == suspend::life() {
            // A port whose other end is gone has nobody to tell.
            let _ = events::notify(port);
        }
    }

    fn unmask(&mut self, port: Port) {
        events::raise(port, &self.signal);
    }

    fn close(&mut self, port: Port) {
        if self.life == suspend::life() {
            let _ = events::close(port);
        }
    }
}

impl<S> Clock for PvHal<S> {
    fn now_ns(&self) -> u64 {
        clock::now_ns()
    }
}

impl<S: Store> Store for PvHal<S> {
    fn read(&mut self, transaction: Transaction, path: &str) -> Result<Vec<u8>, StoreError> {
        self.store.read(transaction, path)
    }
    fn write(&mut self, transaction: Transaction, path: &str, value: &[u8]) -> Result<(), StoreError> {
        self.store.write(transaction, path, value)
    }
    fn mkdir(&mut self, transaction: Transaction, path: &str) -> Result<(), StoreError> {
        self.store.mkdir(transaction, path)
    }
    fn rm(&mut self, transaction: Transaction, path: &str) -> Result<(), StoreError> {
        self.store.rm(transaction, path)
    }
    fn directory(&mut self, transaction: Transaction, path: &str) -> Result<Vec<String>, StoreError> {
        self.store.directory(transaction, path)
    }
    fn transaction_start(&mut self) -> Result<Transaction, StoreError> {
        self.store.transaction_start()
    }
    fn transaction_end(&mut self, transaction: Transaction, commit: bool) -> Result<(), StoreError> {
        self.store.transaction_end(transaction, commit)
    }
    fn watch(&mut self, path: &str) -> Result<WatchId, StoreError> {
        self.store.watch(path)
    }
    fn unwatch(&mut self, watch: WatchId) {
        self.store.unwatch(watch);
    }
    fn next_watch_event(&mut self) -> Option<WatchEvent> {
        self.store.next_watch_event()
    }
}
