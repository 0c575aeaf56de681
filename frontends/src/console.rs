//! The guest's end of a console.
//!
//! The builder of a domain gives it a console page and an event channel; there is no handshake. Output goes to whoever
//! drains the ring in the service domain.
//!
//! Source: Xen `public/io/console.h`.

use pv_bus::console::{Consumer, IN, OUT, Producer};
use pv_bus::{Events, Port, SharedPage};

/// A console.
pub struct ConsoleFront<P: SharedPage> {
    page: P,
    port: Port,
    output: Producer,
    input: Consumer,
}

impl<P: SharedPage> ConsoleFront<P> {
    /// Takes over the console in this page. What an earlier stage of this kernel wrote stays in the ring.
    pub fn new(page: P, port: Port) -> Self {
        let output = Producer::attach(&page, OUT);
        let input = Consumer::attach(&page, IN);
        Self { page, port, output, input }
    }

    /// The event channel: it fires when there is input, and when there is room again.
    #[must_use]
    pub fn port(&self) -> Port {
        self.port
    }

    /// Writes as much of `bytes` as fits and gives how much that was. None fits while the service domain does not drain
    /// the ring: yield, or wait for the event, and try the rest again.
    pub fn write(&mut self, events: &mut impl Events, bytes: &[u8]) -> usize {
        let written = self.output.write(&self.page, bytes).unwrap_or(0);
        if written > 0 {
            events.notify(self.port);
        }
        written
    }

    /// Whether everything that was written has been drained.
    #[must_use]
    pub fn is_drained(&self) -> bool {
        self.output.room(&self.page).is_ok_and(|room| room == pv_abi::io::console::OUT_RING_SIZE)
    }

    /// Reads what was typed and gives how much that was.
    pub fn read(&mut self, events: &mut impl Events, into: &mut [u8]) -> usize {
        match self.input.read(&self.page, into) {
            Ok(0) => 0,
            Ok(read) => {
                events.notify(self.port);
                read
            }
            Err(overrun) => {
                self.input.resynchronise(&self.page);
                log::warn!("console.back.overrun: {overrun}; the input is thrown away");
                0
            }
        }
    }

    /// Gives the page back.
    pub fn into_page(self) -> P {
        self.page
    }
}
