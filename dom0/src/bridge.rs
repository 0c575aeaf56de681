//! A learning bridge: a frame goes where its destination was last heard, or everywhere.
//!
//! Invariants
//! - a frame never goes back to the port it came from;
//! - what is learnt is bounded, and forgotten after five minutes of silence.
//!
//! Source: IEEE 802.1D, 7.8 and 7.9.

use alloc::collections::BTreeMap;

use crate::toolstack::device::Mac;

/// A place where something is plugged in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BridgePort(pub u32);

/// Where a frame goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Destination {
    /// To one port.
    One(BridgePort),
    /// To every port but the one it came from.
    Others,
    /// Nowhere.
    Dropped,
}

const FORGET_AFTER_NS: u64 = 300 * 1_000_000_000;
const KNOWN_MAX: usize = 1024;

#[derive(Clone, Copy, Debug)]
struct Heard {
    port: BridgePort,
    at_ns: u64,
}

/// What the bridge has learnt.
#[derive(Debug, Default)]
pub struct Bridge {
    known: BTreeMap<Mac, Heard>,
}

impl Bridge {
    /// Takes a frame that came in at `port`: learns where its sender is, and says where it goes.
    pub fn forward(&mut self, port: BridgePort, frame: &[u8], now_ns: u64) -> Destination {
        let Some((to, from)) = addresses(frame) else {
            return Destination::Dropped;
        };
        if from.is_group() {
            return Destination::Dropped;
        }
        self.learn(from, port, now_ns);
        if to.is_group() {
            return Destination::Others;
        }
        match self.known.get(&to) {
            Some(heard) if now_ns.saturating_sub(heard.at_ns) > FORGET_AFTER_NS => {
                Destination::Others
            }
            Some(heard) if heard.port == port => Destination::Dropped,
            Some(heard) => Destination::One(heard.port),
            None => Destination::Others,
        }
    }

    /// Forgets everything heard at a port that was unplugged.
    pub fn unplug(&mut self, port: BridgePort) {
        self.known.retain(|_, heard| heard.port != port);
    }

    fn learn(&mut self, from: Mac, port: BridgePort, now_ns: u64) {
        if self.known.len() >= KNOWN_MAX && !self.known.contains_key(&from) {
            self.known
                .retain(|_, heard| now_ns.saturating_sub(heard.at_ns) <= FORGET_AFTER_NS);
        }
        if self.known.len() < KNOWN_MAX || self.known.contains_key(&from) {
            self.known.insert(
                from,
                Heard {
                    port,
                    at_ns: now_ns,
                },
            );
        }
    }
}

/// Destination and source of an Ethernet frame.
fn addresses(frame: &[u8]) -> Option<(Mac, Mac)> {
    let to = frame.first_chunk::<6>()?;
    let from = frame.get(6..14)?.first_chunk::<6>()?;
    Some((Mac(*to), Mac(*from)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec::Vec;

    const ONE: BridgePort = BridgePort(1);
    const TWO: BridgePort = BridgePort(2);

    fn frame(to: u8, from: u8) -> Vec<u8> {
        let mut frame = std::vec![0; 60];
        frame[..6].copy_from_slice(&[2, 0, 0, 0, 0, to]);
        frame[6..12].copy_from_slice(&[2, 0, 0, 0, 0, from]);
        frame
    }

    #[test]
    fn an_answer_goes_only_where_the_question_came_from() {
        let mut bridge = Bridge::default();
        assert_eq!(bridge.forward(ONE, &frame(2, 1), 0), Destination::Others);
        assert_eq!(bridge.forward(TWO, &frame(1, 2), 0), Destination::One(ONE));
        assert_eq!(bridge.forward(ONE, &frame(2, 1), 0), Destination::One(TWO));
    }

    #[test]
    fn a_frame_to_its_own_side_is_dropped_and_a_group_frame_goes_to_all_others() {
        let mut bridge = Bridge::default();
        bridge.forward(ONE, &frame(9, 1), 0);
        assert_eq!(bridge.forward(ONE, &frame(1, 2), 0), Destination::Dropped);
        let mut broadcast = frame(0, 1);
        broadcast[..6].fill(0xff);
        assert_eq!(bridge.forward(ONE, &broadcast, 0), Destination::Others);
    }

    #[test]
    fn frames_that_are_too_short_or_come_from_a_group_are_dropped() {
        let mut bridge = Bridge::default();
        assert_eq!(bridge.forward(ONE, &[0; 13], 0), Destination::Dropped);
        let mut lie = frame(2, 1);
        lie[6] = 1;
        assert_eq!(bridge.forward(ONE, &lie, 0), Destination::Dropped);
    }

    #[test]
    fn what_moved_fell_silent_or_was_unplugged_is_learnt_anew() {
        let mut bridge = Bridge::default();
        bridge.forward(ONE, &frame(9, 1), 0);
        bridge.forward(TWO, &frame(9, 1), 0);
        assert_eq!(bridge.forward(ONE, &frame(1, 2), 0), Destination::One(TWO));
        assert_eq!(
            bridge.forward(ONE, &frame(1, 2), FORGET_AFTER_NS + 1),
            Destination::Others
        );
        bridge.unplug(TWO);
        assert_eq!(bridge.forward(ONE, &frame(1, 2), 0), Destination::Others);
    }

    #[test]
    fn a_guest_that_makes_up_senders_fills_a_bounded_table() {
        let mut bridge = Bridge::default();
        for n in 0..5000_u32 {
            let mut made_up = frame(9, 1);
            made_up[8..12].copy_from_slice(&n.to_be_bytes());
            bridge.forward(ONE, &made_up, 0);
        }
        assert!(bridge.known.len() <= KNOWN_MAX);
    }
}
