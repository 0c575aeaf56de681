//! The xenstore client: messages over the ring that the domain builder gave this domain.
//!
//! One thread (`xenstore`) reads the ring and hands each message to whom it concerns: an answer to the thread that asked, a
//! watch event to the [`RingStore`] that set the watch. Any number of [`RingStore`]s share the ring.
//!
//! Source: Xen `docs/misc/xenstore.txt`, `public/io/xs_wire.h`.
#![expect(unsafe_code, reason = "a ring shared with the xenstore daemon")]

use alloc::collections::{BTreeMap, VecDeque};
use alloc::format;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, AtomicPtr, AtomicU32, AtomicU64, Ordering};

use pv_abi::Port;
use pv_abi::io::xs_wire::{
    self as wire, XENSTORE_PAYLOAD_MAX, XENSTORE_RING_SIZE, XenstoreDomainInterfaceAtomic, XsdSockmsg,
};
use pv_bus::{Store, StoreError, Transaction, WatchEvent, WatchId};
use spin::LazyLock;
use zerocopy::{FromBytes, IntoBytes};

use super::{events, p2m, shared};
use crate::mm::direct;
use crate::sync::{IrqLock, SleepLock, SleepLockGuard};
use crate::task::{Signal, WaitQueue};
use crate::time::{SECOND_NS, now_ns};

/// A daemon that says nothing for this long is taken for dead.
const PATIENCE_NS: u64 = 30 * SECOND_NS;

static RING: AtomicPtr<XenstoreDomainInterfaceAtomic> = AtomicPtr::new(core::ptr::null_mut());
/// The ring's event channel.
static PORT: AtomicU32 = AtomicU32::new(0);
static STARTED: AtomicBool = AtomicBool::new(false);
/// Raised when the daemon has written something or made room.
static ARRIVED: LazyLock<Arc<Signal>> = LazyLock::new(Arc::default);
/// Bytes read before belong to a daemon that is gone.
static FORGET_INPUT: AtomicBool = AtomicBool::new(false);
/// One request is written at a time; it may take several turns of the ring.
static SENDING: SleepLock<()> = SleepLock::new(());
static ROOM: WaitQueue = WaitQueue::new();
static ANSWERED: WaitQueue = WaitQueue::new();
static ANSWERS: IrqLock<BTreeMap<u32, Option<Answer>>> = IrqLock::new(BTreeMap::new());
static WATCHES: IrqLock<BTreeMap<u64, Arc<Watcher>>> = IrqLock::new(BTreeMap::new());
static NEXT_REQUEST: AtomicU32 = AtomicU32::new(1);
static NEXT_TOKEN: AtomicU64 = AtomicU64::new(1);

/// What came back for a request.
#[derive(Debug)]
struct Answer {
    type_: u32,
    payload: Vec<u8>,
}

/// Where a store's watch events wait.
#[derive(Debug)]
struct Watcher {
    events: IrqLock<VecDeque<WatchEvent>>,
    signal: Arc<Signal>,
}

fn ring() -> Result<&'static XenstoreDomainInterfaceAtomic, StoreError> {
    // SAFETY: `connect` stored the direct-map address of the page that is this ring for ever; all fields are atomic.
    unsafe { RING.load(Ordering::Relaxed).as_ref() }.ok_or(StoreError::Io)
}

/// A connection to the xenstore daemon.
#[derive(Debug)]
pub struct RingStore {
    watcher: Arc<Watcher>,
}

impl RingStore {
    /// Opens a connection; `signal` is raised when a watch event waits. The first call starts the reading thread.
    ///
    /// # Errors
    /// [`StoreError::Io`] when this domain was given no store ring.
    pub fn connect(signal: Arc<Signal>) -> Result<Self, StoreError> {
        let given = shared::store_ring().ok_or(StoreError::Io)?;
        if !STARTED.swap(true, Ordering::AcqRel) {
            let pfn = p2m::pfn_of(given.mfn).ok_or(StoreError::Io)?;
            RING.store(direct(pfn) as *mut _, Ordering::Relaxed);
            listen(given.port);
            crate::task::spawn("xenstore", || read_for_ever(&ARRIVED));
        }
        let watcher = Arc::new(Watcher { events: IrqLock::new(VecDeque::new()), signal });
        Ok(Self { watcher })
    }
}

fn notify() {
    let _ = events::notify(Port(PORT.load(Ordering::Relaxed)));
}

fn listen(port: Port) {
    PORT.store(port.0, Ordering::Relaxed);
    events::raise(port, &ARRIVED);
    ARRIVED.raise();
}

/// Waits until every request has its answer; no other is made while the guard lives.
pub(super) fn quiesce() -> SleepLockGuard<'static, ()> {
    let turn = SENDING.lock();
    ANSWERED.wait_until_deadline(Some(now_ns() + PATIENCE_NS), || ANSWERS.lock().values().all(Option::is_some));
    turn
}

/// In a new domain: the ring is the same page, the daemon and the event channel are others. Events are masked.
pub(super) fn settle_in() {
    if let (Ok(ring), Some(given)) = (ring(), shared::store_ring()) {
        ring.rsp_cons.store(ring.rsp_prod.load(Ordering::Acquire), Ordering::Release);
        FORGET_INPUT.store(true, Ordering::Release);
        listen(given.port);
    }
}

/// Asks a daemon that has not heard of them for all watches.
pub(super) fn watch_again() {
    let watches: Vec<_> = PATHS.lock().iter().map(|(token, path)| format!("{path}\0{token}\0")).collect();
    for watch in watches {
        if let Err(error) = command(wire::XS_WATCH, Transaction::NONE, watch.as_bytes()) {
            log::error!("a watch is lost: {error}");
        }
    }
}

/// The reading thread.
fn read_for_ever(arrived: &Signal) {
    let mut input = Vec::new();
    loop {
        if FORGET_INPUT.swap(false, Ordering::AcqRel) {
            input.clear();
        }
        take_bytes(&mut input);
        ROOM.wake_all();
        while let Some(message) = take_message(&mut input) {
            dispatch(message);
        }
        arrived.wait();
    }
}

/// Moves what the daemon wrote from the ring to `input`.
fn take_bytes(input: &mut Vec<u8>) {
    let Ok(ring) = ring() else { return };
    loop {
        let produced = ring.rsp_prod.load(Ordering::Acquire);
        let consumed = ring.rsp_cons.load(Ordering::Relaxed);
        let waiting = produced.wrapping_sub(consumed).min(XENSTORE_RING_SIZE as u32);
        if waiting == 0 {
            return;
        }
        for step in 0..waiting {
            let at = consumed.wrapping_add(step) as usize % XENSTORE_RING_SIZE;
            input.push(ring.rsp[at].load(Ordering::Relaxed));
        }
        ring.rsp_cons.store(consumed.wrapping_add(waiting), Ordering::Release);
        notify();
    }
}

/// Takes the first complete message.
fn take_message(input: &mut Vec<u8>) -> Option<(XsdSockmsg, Vec<u8>)> {
    let (header, rest) = XsdSockmsg::read_from_prefix(input).ok()?;
    let len = (header.len as usize).min(XENSTORE_PAYLOAD_MAX);
    if rest.len() < len {
        return None;
    }
    let payload = rest[..len].to_vec();
    input.drain(..size_of::<XsdSockmsg>() + len);
    Some((header, payload))
}

fn dispatch((header, payload): (XsdSockmsg, Vec<u8>)) {
    if header.type_ == wire::XS_WATCH_EVENT {
        on_watch_event(&payload);
        return;
    }
    if let Some(place) = ANSWERS.lock().get_mut(&header.req_id) {
        *place = Some(Answer { type_: header.type_, payload });
    }
    ANSWERED.wake_all();
}

fn on_watch_event(payload: &[u8]) {
    let mut parts = payload.split(|byte| *byte == 0).map(|part| core::str::from_utf8(part).unwrap_or(""));
    let path = parts.next().unwrap_or("");
    let token = parts.next().and_then(|token| token.parse().ok());
    let watcher = token.and_then(|token: u64| WATCHES.lock().get(&token).cloned());
    if let (Some(token), Some(watcher)) = (token, watcher) {
        watcher.events.lock().push_back(WatchEvent { watch: WatchId(token), path: path.to_string() });
        watcher.signal.raise();
    }
}

/// Writes bytes into the ring; sleeps while it is full.
fn put_bytes(mut bytes: &[u8]) -> Result<(), StoreError> {
    let ring = ring()?;
    while !bytes.is_empty() {
        let room = || {
            let used = ring.req_prod.load(Ordering::Relaxed).wrapping_sub(ring.req_cons.load(Ordering::Acquire));
            XENSTORE_RING_SIZE.saturating_sub(used as usize)
        };
        if !ROOM.wait_until_deadline(Some(now_ns() + PATIENCE_NS), || room() > 0) {
            return Err(StoreError::Io);
        }
        let count = room().min(bytes.len());
        let produced = ring.req_prod.load(Ordering::Relaxed);
        for (step, byte) in bytes[..count].iter().enumerate() {
            let at = produced.wrapping_add(step as u32) as usize % XENSTORE_RING_SIZE;
            ring.req[at].store(*byte, Ordering::Relaxed);
        }
        ring.req_prod.store(produced.wrapping_add(count as u32), Ordering::Release);
        notify();
        bytes = &bytes[count..];
    }
    Ok(())
}

/// Sends a request and sleeps until its answer is there.
fn request(type_: u32, transaction: Transaction, payload: &[u8]) -> Result<Vec<u8>, StoreError> {
    if payload.len() > XENSTORE_PAYLOAD_MAX {
        return Err(StoreError::TooBig);
    }
    let id = NEXT_REQUEST.fetch_add(1, Ordering::Relaxed);
    let header = XsdSockmsg { type_, req_id: id, tx_id: transaction.0, len: payload.len() as u32 };
    let sent = {
        let _turn = SENDING.lock();
        ANSWERS.lock().insert(id, None);
        put_bytes(header.as_bytes()).and_then(|()| put_bytes(payload))
    };
    let answered = sent.is_ok()
        && ANSWERED
            .wait_until_deadline(Some(now_ns() + PATIENCE_NS), || ANSWERS.lock().get(&id).is_some_and(Option::is_some));
    let answer = ANSWERS.lock().remove(&id).flatten();
    sent?;
    if !answered {
        log::error!("the xenstore daemon does not answer");
    }
    let answer = answer.ok_or(StoreError::Io)?;
    if answer.type_ == wire::XS_ERROR {
        let name = core::str::from_utf8(&answer.payload).unwrap_or("");
        return Err(StoreError::from_wire(name.trim_end_matches('\0')));
    }
    Ok(answer.payload)
}

/// Sends a request whose answer does not matter.
fn command(type_: u32, transaction: Transaction, payload: &[u8]) -> Result<(), StoreError> {
    request(type_, transaction, payload).map(|_| ())
}

fn terminated(path: &str) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(path.len() + 1);
    bytes.extend_from_slice(path.as_bytes());
    bytes.push(0);
    bytes
}

impl Store for RingStore {
    fn read(&mut self, transaction: Transaction, path: &str) -> Result<Vec<u8>, StoreError> {
        request(wire::XS_READ, transaction, &terminated(path))
    }

    fn write(&mut self, transaction: Transaction, path: &str, value: &[u8]) -> Result<(), StoreError> {
        let mut payload = terminated(path);
        payload.extend_from_slice(value);
        command(wire::XS_WRITE, transaction, &payload)
    }

    fn mkdir(&mut self, transaction: Transaction, path: &str) -> Result<(), StoreError> {
        command(wire::XS_MKDIR, transaction, &terminated(path))
    }

    fn rm(&mut self, transaction: Transaction, path: &str) -> Result<(), StoreError> {
        command(wire::XS_RM, transaction, &terminated(path))
    }

    fn directory(&mut self, transaction: Transaction, path: &str) -> Result<Vec<String>, StoreError> {
        let names = request(wire::XS_DIRECTORY, transaction, &terminated(path))?;
        let text = String::from_utf8(names).map_err(|_| StoreError::Invalid)?;
        Ok(text.split_terminator('\0').map(ToString::to_string).collect())
    }

    fn transaction_start(&mut self) -> Result<Transaction, StoreError> {
        let answer = request(wire::XS_TRANSACTION_START, Transaction::NONE, b"\0")?;
        let text = core::str::from_utf8(&answer).map_err(|_| StoreError::Io)?;
        let id = text.trim_end_matches('\0').parse().map_err(|_| StoreError::Io)?;
        Ok(Transaction(id))
    }

    fn transaction_end(&mut self, transaction: Transaction, commit: bool) -> Result<(), StoreError> {
        let payload: &[u8] = if commit { b"T\0" } else { b"F\0" };
        command(wire::XS_TRANSACTION_END, transaction, payload)
    }

    fn watch(&mut self, path: &str) -> Result<WatchId, StoreError> {
        let token = NEXT_TOKEN.fetch_add(1, Ordering::Relaxed);
        WATCHES.lock().insert(token, self.watcher.clone());
        let payload = format!("{path}\0{token}\0");
        match command(wire::XS_WATCH, Transaction::NONE, payload.as_bytes()) {
            Ok(()) => {
                PATHS.lock().insert(token, path.to_string());
                Ok(WatchId(token))
            }
            Err(error) => {
                WATCHES.lock().remove(&token);
                Err(error)
            }
        }
    }

    fn unwatch(&mut self, watch: WatchId) {
        let path = PATHS.lock().remove(&watch.0).unwrap_or_default();
        WATCHES.lock().remove(&watch.0);
        let payload = format!("{path}\0{}\0", watch.0);
        // The daemon drops a watch that it does not know as well.
        let _ = command(wire::XS_UNWATCH, Transaction::NONE, payload.as_bytes());
        self.watcher.events.lock().retain(|event| event.watch != watch);
    }

    fn next_watch_event(&mut self) -> Option<WatchEvent> {
        self.watcher.events.lock().pop_front()
    }
}

/// The path of each watch: the daemon wants it back when the watch ends.
static PATHS: IrqLock<BTreeMap<u64, String>> = IrqLock::new(BTreeMap::new());
