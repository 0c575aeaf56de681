//! The service domain's end of a guest's console.
//!
//! It drains what the guest writes and feeds it what somebody types. The page is mapped and the event channel bound by
//! the caller, who knows them from the builder of the domain.
//!
//! Invariant: one call takes at most one ring full, whatever the guest's index says.
//!
//! Source: Xen `public/io/console.h`.

use alloc::string::String;
use alloc::vec::Vec;

use pv_abi::io::console::OUT_RING_SIZE;
use pv_bus::console::{Consumer, IN, OUT, Producer};
use pv_bus::refusal::Refusals;
use pv_bus::{Clock, Events, Port, SharedPage};

/// What a guest must not do with its console.
pub mod rules {
    use pv_bus::rules;

    rules! {
        OUTPUT_OVERRUN = "console.out.overrun": "the ring of output holds at most 2048 bytes";
        INPUT_OVERRUN = "console.in.overrun": "the ring of input holds at most 1024 bytes";
    }
}

/// A guest's console.
pub struct ConsoleBack<P: SharedPage> {
    page: P,
    port: Port,
    output: Consumer,
    input: Producer,
    refusals: Refusals,
}

impl<P: SharedPage> ConsoleBack<P> {
    /// Takes over the console in this page, for the guest of this name.
    pub fn new(page: P, port: Port, guest: impl Into<String>) -> Self {
        let output = Consumer::attach(&page, OUT);
        let input = Producer::attach(&page, IN);
        Self { page, port, output, input, refusals: Refusals::new(guest) }
    }

    /// The event channel: it fires when there is output, and when the guest has taken input.
    #[must_use]
    pub fn port(&self) -> Port {
        self.port
    }

    /// What was refused so far.
    #[must_use]
    pub fn refusals(&self) -> &Refusals {
        &self.refusals
    }

    /// Appends what the guest wrote to `into` and gives how much that was, at most 2048 bytes. Drain whenever the event
    /// channel fires: a guest whose ring is full waits.
    pub fn drain<K: Events + Clock>(&mut self, kernel: &mut K, into: &mut Vec<u8>) -> usize {
        let start = into.len();
        into.resize(start + OUT_RING_SIZE, 0);
        let read = match self.output.read(&self.page, &mut into[start..]) {
            Ok(read) => read,
            Err(overrun) => {
                self.refusals.refuse(kernel.now_ns(), rules::OUTPUT_OVERRUN, format_args!("{overrun}"));
                self.output.resynchronise(&self.page);
                0
            }
        };
        into.truncate(start + read);
        if read > 0 {
            kernel.notify(self.port);
        }
        read
    }

    /// Gives the guest as much of `bytes` as fits and gives how much that was.
    pub fn feed<K: Events + Clock>(&mut self, kernel: &mut K, bytes: &[u8]) -> usize {
        match self.input.write(&self.page, bytes) {
            Ok(0) => 0,
            Ok(written) => {
                kernel.notify(self.port);
                written
            }
            Err(overrun) => {
                self.refusals.refuse(kernel.now_ns(), rules::INPUT_OVERRUN, format_args!("{overrun}"));
                0
            }
        }
    }

    /// Gives the page back.
    pub fn into_page(self) -> P {
        self.page
    }
}
