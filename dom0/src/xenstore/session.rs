//! One connection: what the server remembers about a client between two requests.

use alloc::collections::{BTreeMap, VecDeque};
use alloc::vec::Vec;

use super::transaction::Transaction;
use super::tree::Caller;
use super::watch::WatchList;
use super::wire::Message;

/// The server's side of a client.
#[derive(Clone, Debug)]
pub struct Session {
    /// Whose requests these are.
    pub caller: Caller,
    /// What the client watches.
    pub watches: WatchList,
    /// Transactions that are open.
    pub transactions: BTreeMap<u32, Transaction>,
    outbox: VecDeque<Message>,
    waiting_bytes: usize,
}

impl Session {
    /// A client that has asked nothing yet.
    pub fn new(caller: Caller) -> Self {
        Self {
            caller,
            watches: WatchList::default(),
            transactions: BTreeMap::new(),
            outbox: VecDeque::new(),
            waiting_bytes: 0,
        }
    }

    /// Queues a reply. Replies are bounded by the requests, which are not read while many replies wait.
    pub fn reply(&mut self, message: Message) {
        self.waiting_bytes += message.payload.len();
        self.outbox.push_back(message);
    }

    /// Queues a watch event, unless the same one waits already or the client lets `limit` bytes wait.
    pub fn tell(&mut self, message: Message, limit: Option<usize>) {
        let over = limit.is_some_and(|limit| self.waiting_bytes + message.payload.len() > limit);
        if !over && !self.outbox.contains(&message) {
            self.reply(message);
        }
    }

    /// Takes the next message for the client.
    pub fn take(&mut self) -> Option<Message> {
        let message = self.outbox.pop_front()?;
        self.waiting_bytes -= message.payload.len();
        Some(message)
    }

    /// Payload bytes that wait for the client.
    pub fn waiting_bytes(&self) -> usize {
        self.waiting_bytes
    }

    /// Drops watches, transactions and everything that waits.
    pub fn reset(&mut self) {
        self.watches.clear();
        self.transactions.clear();
        self.outbox.clear();
        self.waiting_bytes = 0;
    }

    /// Takes every message for the client.
    pub fn take_all(&mut self) -> Vec<Message> {
        core::iter::from_fn(|| self.take()).collect()
    }
}
