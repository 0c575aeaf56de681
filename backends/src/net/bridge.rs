//! A learning bridge between guests and a card.
//!
//! Frames go to the port where their destination was last seen as a source, to all other ports while it is not known,
//! and always to all others if they are for many.
//!
//! Invariants:
//! - A port's queue is bounded; what does not fit is dropped and counted, and nobody else suffers.
//! - One port has a bounded number of addresses in the table: a guest that invents addresses forgets its own, never
//!   those of others.
//! - An address that was not heard of for five minutes is forgotten.
//!
//! Source: IEEE 802.1D §7.8, §7.9 (learning, ageing time 300 s).

use alloc::collections::{BTreeMap, VecDeque};
use alloc::vec::Vec;

use pv_bus::net::{Frame, MIN_FRAME_BYTES};
use pv_bus::segment;

use super::port::NetPort;

/// How long an address is remembered.
pub const AGEING_NS: u64 = 300 * 1_000_000_000;
/// Addresses that one port can have in the table.
pub const ADDRESSES_PER_PORT: usize = 64;

/// Bytes that wait for one port at most.
const QUEUE_BYTES: usize = 4 << 20;

type Mac = [u8; 6];

/// A port of a bridge.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
pub struct PortId(usize);

/// What a port has seen.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct PortCounters {
    /// Frames that came from this port.
    pub from: u64,
    /// Frames that were queued for this port.
    pub to: u64,
    /// Frames for this port that were dropped because its queue was full, or its checksum could not be filled in.
    pub dropped: u64,
}

struct Port {
    queue: VecDeque<Frame>,
    /// Of all frames in the queue.
    bytes: usize,
    limit: usize,
    offloads: bool,
    addresses: usize,
    counters: PortCounters,
}

impl Port {
    /// A card is to be waited for. A guest is not: it could make the others wait for ever.
    fn has_room(&self) -> bool {
        self.offloads || self.queue.len() * 2 <= self.limit
    }

    fn push(&mut self, frame: Frame) -> bool {
        let room = self.queue.len() < self.limit && self.bytes + frame.bytes.len() <= QUEUE_BYTES;
        if room {
            self.counters.to += 1;
            self.bytes += frame.bytes.len();
            self.queue.push_back(frame);
        } else {
            self.counters.dropped += 1;
        }
        room
    }
}

struct Seen {
    port: PortId,
    at_ns: u64,
}

/// A learning bridge.
#[derive(Default)]
pub struct Bridge {
    ports: Vec<Option<Port>>,
    table: BTreeMap<Mac, Seen>,
}

impl Bridge {
    /// A bridge without ports.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a port that keeps up to `limit` frames. One that is not known to offload gets no blank checksum and nothing
    /// oversize: frames are completed and cut for it.
    pub fn add_port(&mut self, limit: usize, offloads: bool) -> PortId {
        let port =
            Port { queue: VecDeque::new(), bytes: 0, limit, offloads, addresses: 0, counters: PortCounters::default() };
        match self.ports.iter().position(Option::is_none) {
            Some(free) => {
                self.ports[free] = Some(port);
                PortId(free)
            }
            None => {
                self.ports.push(Some(port));
                PortId(self.ports.len() - 1)
            }
        }
    }

    /// Removes a port with all that was learned of it.
    pub fn remove_port(&mut self, id: PortId) {
        self.table.retain(|_, seen| seen.port != id);
        if let Some(port) = self.ports.get_mut(id.0) {
            *port = None;
        }
    }

    /// What a port has seen.
    #[must_use]
    pub fn counters(&self, id: PortId) -> PortCounters {
        self.port(id).map(|port| port.counters).unwrap_or_default()
    }

    /// How many frames wait for a port.
    #[must_use]
    pub fn waiting(&self, id: PortId) -> usize {
        self.port(id).map_or(0, |port| port.queue.len())
    }

    /// Takes the next frame that waits for a port.
    pub fn take(&mut self, id: PortId) -> Option<Frame> {
        let port = self.port_mut(id)?;
        let frame = port.queue.pop_front()?;
        port.bytes -= frame.bytes.len();
        Some(frame)
    }

    /// Takes a frame that came from a port at this time. False when somebody's queue was too full for it.
    pub fn send(&mut self, from: PortId, frame: Frame, now_ns: u64) -> bool {
        let Some((destination, source)) = addresses(&frame) else {
            return true;
        };
        let Some(port) = self.port_mut(from) else {
            return true;
        };
        port.counters.from += 1;
        self.learn(source, from, now_ns);
        match self.find(destination, now_ns) {
            Some(to) if to == from => true,
            Some(to) => self.queue(to, frame),
            None => self.flood(from, frame),
        }
    }

    /// A view of one port, as the back end of a card wants it.
    pub fn handle(&mut self, id: PortId, now_ns: u64) -> BridgeHandle<'_> {
        BridgeHandle { bridge: self, id, now_ns }
    }

    fn port(&self, id: PortId) -> Option<&Port> {
        self.ports.get(id.0)?.as_ref()
    }

    fn port_mut(&mut self, id: PortId) -> Option<&mut Port> {
        self.ports.get_mut(id.0)?.as_mut()
    }

    fn learn(&mut self, source: Mac, from: PortId, now_ns: u64) {
        if is_group(source) {
            return;
        }
        if let Some(seen) = self.table.get_mut(&source) {
            seen.at_ns = now_ns;
            if seen.port == from {
                return;
            }
        }
        if self.port(from).is_some_and(|port| port.addresses >= ADDRESSES_PER_PORT) {
            self.forget_oldest_of(from);
        }
        if let Some(old) = self.table.insert(source, Seen { port: from, at_ns: now_ns })
            && let Some(port) = self.port_mut(old.port)
        {
            port.addresses -= 1;
        }
        if let Some(port) = self.port_mut(from) {
            port.addresses += 1;
        }
    }

    fn forget_oldest_of(&mut self, id: PortId) {
        let own = self.table.iter().filter(|(_, seen)| seen.port == id);
        let oldest = own.min_by_key(|(_, seen)| seen.at_ns).map(|(mac, _)| *mac);
        if let Some(mac) = oldest {
            self.forget(mac);
        }
    }

    fn forget(&mut self, mac: Mac) {
        if let Some(seen) = self.table.remove(&mac)
            && let Some(port) = self.port_mut(seen.port)
        {
            port.addresses -= 1;
        }
    }

    fn find(&mut self, destination: Mac, now_ns: u64) -> Option<PortId> {
        let seen = self.table.get(&destination)?;
        if now_ns.saturating_sub(seen.at_ns) >= AGEING_NS {
            self.forget(destination);
            return None;
        }
        Some(seen.port)
    }

    fn flood(&mut self, from: PortId, frame: Frame) -> bool {
        let others = (0..self.ports.len()).map(PortId).filter(|id| *id != from);
        let others: Vec<_> = others.filter(|id| self.port(*id).is_some()).collect();
        let Some((last, rest)) = others.split_last() else {
            return true;
        };
        let mut all = true;
        for id in rest {
            all &= self.queue(*id, frame.clone());
        }
        self.queue(*last, frame) && all
    }

    fn queue(&mut self, to: PortId, frame: Frame) -> bool {
        let Some(port) = self.port_mut(to) else {
            return true;
        };
        if port.offloads {
            return port.push(frame);
        }
        let Ok(frames) = segment::cut(frame) else {
            port.counters.dropped += 1;
            return false;
        };
        frames.into_iter().fold(true, |all, mut frame| {
            let fit = frame.complete_checksum().is_ok();
            port.counters.dropped += u64::from(!fit);
            fit && port.push(frame) && all
        })
    }
}

/// One port of a bridge, borrowed for as long as a back end is at work.
pub struct BridgeHandle<'a> {
    bridge: &'a mut Bridge,
    id: PortId,
    now_ns: u64,
}

impl NetPort for BridgeHandle<'_> {
    fn accepts_blank_checksums(&self) -> bool {
        true
    }

    fn accepts_oversize(&self) -> bool {
        true
    }

    fn has_room(&self) -> bool {
        self.bridge.ports.iter().flatten().all(Port::has_room)
    }

    fn transmit(&mut self, frame: Frame) -> bool {
        self.bridge.send(self.id, frame, self.now_ns)
    }

    fn receive(&mut self) -> Option<Frame> {
        self.bridge.take(self.id)
    }
}

fn is_group(mac: Mac) -> bool {
    mac[0] & 1 != 0
}

/// Destination and source; none for a frame too short to have them.
fn addresses(frame: &Frame) -> Option<(Mac, Mac)> {
    let header = frame.bytes.get(..MIN_FRAME_BYTES)?;
    let mut destination = [0; 6];
    let mut source = [0; 6];
    destination.copy_from_slice(&header[..6]);
    source.copy_from_slice(&header[6..12]);
    Some((destination, source))
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;

    const BROADCAST: Mac = [255; 6];

    fn mac(number: u8) -> Mac {
        [0, 0x16, 0x3e, 0, 0, number]
    }

    fn frame(to: Mac, from: Mac) -> Frame {
        let mut bytes = vec![0; 60];
        bytes[..6].copy_from_slice(&to);
        bytes[6..12].copy_from_slice(&from);
        Frame::new(bytes)
    }

    fn three() -> (Bridge, [PortId; 3]) {
        let mut bridge = Bridge::new();
        let ports = [0; 3].map(|_| bridge.add_port(4, true));
        (bridge, ports)
    }

    #[test]
    fn an_unknown_destination_is_flooded_and_a_known_one_is_not() {
        let (mut bridge, [a, b, c]) = three();
        bridge.send(a, frame(mac(2), mac(1)), 0);
        assert!(bridge.take(a).is_none());
        assert!(bridge.take(b).is_some() && bridge.take(c).is_some());
        bridge.send(b, frame(mac(1), mac(2)), 1);
        assert!(bridge.take(a).is_some());
        assert!(bridge.take(c).is_none());
    }

    #[test]
    fn a_frame_for_many_goes_to_all_others() {
        let (mut bridge, [a, b, c]) = three();
        bridge.send(b, frame(BROADCAST, mac(2)), 0);
        assert!(bridge.take(a).is_some() && bridge.take(c).is_some() && bridge.take(b).is_none());
    }

    #[test]
    fn an_address_is_forgotten_after_five_minutes_and_moves_with_its_owner() {
        let (mut bridge, [a, b, c]) = three();
        bridge.send(a, frame(BROADCAST, mac(1)), 0);
        bridge.take(b);
        bridge.take(c);
        bridge.send(b, frame(mac(1), mac(2)), AGEING_NS);
        assert!(bridge.take(c).is_some(), "forgotten, so flooded");
        bridge.send(c, frame(BROADCAST, mac(1)), AGEING_NS);
        bridge.take(b);
        bridge.send(b, frame(mac(1), mac(2)), AGEING_NS + 1);
        assert!(bridge.take(c).is_some());
    }

    #[test]
    fn a_full_queue_drops_for_itself_only() {
        let (mut bridge, [a, b, c]) = three();
        for turn in 0..6 {
            let all = bridge.send(a, frame(BROADCAST, mac(1)), 0);
            assert_eq!(all, turn < 4);
            bridge.take(c);
        }
        assert_eq!(bridge.waiting(b), 4);
        assert_eq!(bridge.counters(b).dropped, 2);
        assert_eq!(bridge.counters(c).dropped, 0);
    }

    #[test]
    fn a_card_that_is_behind_holds_senders_up_and_a_guest_does_not() {
        let mut bridge = Bridge::new();
        let [guest, other, card] = [true, true, false].map(|offloads| bridge.add_port(4, offloads));
        for turn in 0..4 {
            assert_eq!(bridge.handle(guest, 0).has_room(), turn < 3, "{turn}");
            bridge.send(guest, frame(BROADCAST, mac(1)), 0);
        }
        while bridge.take(card).is_some() {}
        assert_eq!(bridge.waiting(other), 4);
        assert!(bridge.handle(guest, 0).has_room());
    }

    #[test]
    fn a_port_that_invents_addresses_forgets_only_its_own() {
        let (mut bridge, [a, b, c]) = three();
        bridge.send(b, frame(BROADCAST, mac(2)), 0);
        for number in 0..1000_u32 {
            let [low, high, ..] = number.to_le_bytes();
            bridge.send(a, frame(BROADCAST, [2, 2, 2, 2, high, low]), u64::from(number));
        }
        assert_eq!(bridge.table.len(), ADDRESSES_PER_PORT + 1);
        while bridge.take(c).is_some() || bridge.take(b).is_some() {}
        bridge.send(a, frame(mac(2), [2; 6]), 1001);
        assert!(bridge.take(b).is_some() && bridge.take(c).is_none());
    }

    #[test]
    fn a_removed_port_is_forgotten_and_its_place_used_again() {
        let (mut bridge, [a, b, c]) = three();
        bridge.send(a, frame(BROADCAST, mac(1)), 0);
        bridge.remove_port(a);
        bridge.send(b, frame(mac(1), mac(2)), 0);
        assert!(bridge.take(c).is_some());
        assert_eq!(bridge.add_port(1, true), a);
        assert_eq!(bridge.waiting(a), 0);
    }

    #[test]
    fn a_frame_without_addresses_is_nobodys() {
        let (mut bridge, [a, b, _]) = three();
        bridge.send(a, Frame::new(vec![1; 13]), 0);
        assert_eq!(bridge.waiting(b), 0);
    }
}
