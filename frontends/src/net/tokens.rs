//! Frames as tokens, in the shape that network stacks such as smoltcp ask for.
//!
//! A kernel wraps these: its `receive` gives [`NetFront::receive_tokens`], its `transmit` gives
//! [`NetFront::transmit_token`].

use alloc::vec;

use pv_bus::Hal;
use pv_bus::net::{Checksum, Frame};

use super::NetFront;

/// A frame that came in.
pub struct RxToken {
    frame: Frame,
}

/// The right to send one frame.
pub struct TxToken<'a, H: Hal> {
    front: &'a mut NetFront<H>,
    hal: &'a mut H,
}

impl RxToken {
    /// Hands out the frame.
    pub fn consume<R>(self, take: impl FnOnce(&[u8]) -> R) -> R {
        take(&self.frame.bytes)
    }

    /// What is known of the frame's checksum.
    #[must_use]
    pub fn checksum(&self) -> Checksum {
        self.frame.checksum
    }
}

impl<H: Hal> TxToken<'_, H> {
    /// Lets `fill` write a frame of this length, and sends it. A frame that cannot be sent is lost, as on a wire.
    pub fn consume<R>(self, len_bytes: usize, fill: impl FnOnce(&mut [u8]) -> R) -> R {
        self.consume_with(len_bytes, Checksum::InFrame, fill)
    }

    /// As [`consume`](Self::consume), and says what is known of the checksum.
    pub fn consume_with<R>(self, len_bytes: usize, checksum: Checksum, fill: impl FnOnce(&mut [u8]) -> R) -> R {
        let mut frame = vec![0; len_bytes];
        let filled = fill(&mut frame);
        if let Err(error) = self.front.transmit(self.hal, &frame, checksum) {
            log::debug!("net.front.frame_lost: {error}");
        }
        filled
    }
}

impl<H: Hal> NetFront<H> {
    /// A frame that came in and the right to answer it; none while nothing came or no answer could be sent.
    pub fn receive_tokens<'a>(&'a mut self, hal: &'a mut H) -> Option<(RxToken, TxToken<'a, H>)> {
        if !self.can_transmit() {
            self.poll(hal);
        }
        if !self.can_transmit() {
            return None;
        }
        let frame = self.receive(hal)?;
        Some((RxToken { frame }, TxToken { front: self, hal }))
    }

    /// The right to send a frame, while there is room for one.
    pub fn transmit_token<'a>(&'a mut self, hal: &'a mut H) -> Option<TxToken<'a, H>> {
        self.can_transmit().then_some(TxToken { front: self, hal })
    }
}
