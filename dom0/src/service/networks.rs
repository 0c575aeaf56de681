//! Networks: the cards this domain has, a bridge for each, and the back ends that plug guests in.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use backends::net::bridge::{Bridge, PortId};
use backends::net::{NetBack, NetPort};
use dom0::ids::DomId;
use dom0::toolstack::device::{DEFAULT_BRIDGE, Mac, Vif};
use dom0::toolstack::nodes::DevicePaths;
use pv_bus::WatchEvent;
use pv_bus::segment::Joiner;

use super::devices::DriverHal;
use super::hotplug::Leaving;
use crate::machine::net::VirtioCard;
use crate::machine::queries::machine;

/// Frames that wait for a guest.
const FRAMES_WAITING: usize = 512;
/// Frames that wait for a card: twice what comes in one turn, as oversize frames are cut before.
const FRAMES_FOR_CARD: usize = 2048;
/// Queues that one interface is offered, where there are as many CPUs.
const MAX_QUEUES: u32 = 4;
/// How long frames of a guest that sends many gather.
const PAUSE_NS: u64 = 150_000;
/// Frames taken from a card in one turn.
const FRAMES_A_TURN: usize = 128;

struct NetworkBack {
    domain: DomId,
    index: u32,
    back: NetBack<DriverHal>,
    leaving: Option<Leaving>,
    mac: Mac,
    network: usize,
    port: PortId,
    /// Frames that this guest had no room for when it had its turn.
    left_waiting: usize,
}

/// A bridge and the card that it is on.
struct Network {
    name: String,
    bridge: Bridge,
    card: Option<(VirtioCard, PortId)>,
}

impl Network {
    fn new(name: String) -> Self {
        Self { name, bridge: Bridge::new(), card: None }
    }

    fn plug(&mut self, card: VirtioCard) {
        let port = self.bridge.add_port(FRAMES_FOR_CARD, false);
        self.card = Some((card, port));
    }

    /// Moves frames from the card to the bridge; says whether there may be more.
    fn take_from_card(&mut self, now_ns: u64) -> bool {
        let Some((card, port)) = &mut self.card else {
            return false;
        };
        let mut joiner = Joiner::default();
        // What a guest has no room for is counted at its port.
        let mut send = |frame| {
            self.bridge.send(*port, frame, now_ns);
        };
        let more = card.take(FRAMES_A_TURN, now_ns, |frame| joiner.add(frame, &mut send));
        joiner.finish(&mut send);
        more
    }

    /// Moves frames from the bridge to the card. What does not fit waits for the card's next interrupt.
    fn give_to_card(&mut self) {
        let Some((card, port)) = &mut self.card else {
            return;
        };
        while card.can_send() {
            let Some(frame) = self.bridge.take(*port) else {
                break;
            };
            card.send(&frame.bytes);
        }
        card.commit();
    }
}

/// All networks.
pub(super) struct Networks {
    networks: Vec<Network>,
    cards: usize,
    backs: Vec<NetworkBack>,
}

impl Default for Networks {
    fn default() -> Self {
        Self { networks: alloc::vec![Network::new(DEFAULT_BRIDGE.to_string())], cards: 0, backs: Vec::new() }
    }
}

impl Networks {
    /// Puts a card that was found on a bridge of its own.
    pub(super) fn add(&mut self, card: Result<VirtioCard, virtio_drivers::Error>) {
        let number = self.cards;
        self.cards += 1;
        if self.networks.len() <= number {
            self.networks.push(Network::new(format!("xenbr{number}")));
        }
        match card {
            Ok(card) => self.networks[number].plug(card),
            Err(error) => log::warn!("{}: its card does not start: {error}", self.networks[number].name),
        }
    }

    /// Plugs a guest's interface in.
    pub(super) fn attach(&mut self, hal: &mut DriverHal, domain: DomId, index: u32, vif: &Vif) -> Result<(), String> {
        let network = self.named(index, &vif.bridge)?;
        let back = open(hal, domain, index)?;
        let port = self.networks[network].bridge.add_port(FRAMES_WAITING, true);
        self.backs.push(NetworkBack {
            domain,
            index,
            back,
            leaving: None,
            mac: vif.mac,
            network,
            port,
            left_waiting: 0,
        });
        Ok(())
    }

    fn named(&self, index: u32, bridge: &str) -> Result<usize, String> {
        let found = self.networks.iter().position(|network| network.name == bridge);
        found.ok_or_else(|| {
            let names: Vec<&str> = self.networks.iter().map(|network| network.name.as_str()).collect();
            format!("vif {index}: there is no bridge {bridge}: there are {}", names.join(", "))
        })
    }

    /// Plugs in a card that is no back end's: its bridge, and the port there.
    ///
    /// # Errors
    /// One line: there is no such bridge.
    pub(super) fn plug_in(&mut self, index: u32, vif: &Vif) -> Result<(usize, PortId), String> {
        let network = self.named(index, &vif.bridge)?;
        Ok((network, self.networks[network].bridge.add_port(FRAMES_WAITING, false)))
    }

    /// The bridge with this place.
    pub(super) fn bridge(&mut self, network: usize) -> Option<&mut Bridge> {
        self.networks.get_mut(network).map(|network| &mut network.bridge)
    }

    /// Unplugs such a card.
    pub(super) fn unplug(&mut self, network: usize, port: PortId) {
        if let Some(bridge) = self.bridge(network) {
            bridge.remove_port(port);
        }
    }

    /// Whether a guest has this interface.
    pub(super) fn has(&self, domain: DomId, index: u32) -> bool {
        self.backs.iter().any(|vif| vif.domain == domain && vif.index == index)
    }

    /// Asks a guest to give an interface back; false when it has none of this number.
    pub(super) fn begin_detach(&mut self, hal: &mut DriverHal, domain: DomId, index: u32, leaving: Leaving) -> bool {
        let Some(at) = self.position(domain, index) else { return false };
        let vif = &mut self.backs[at];
        vif.leaving.get_or_insert(leaving);
        let bridge = &mut self.networks[vif.network].bridge;
        vif.back.close(hal, &mut bridge.handle(vif.port, pv_guest_kernel::time::now_ns()));
        true
    }

    /// Unplugs the next interface that its guest has let go of, or that it was asked for long enough ago.
    pub(super) fn take_detached(&mut self, hal: &mut DriverHal, now_ns: u64) -> Option<(DomId, u32, Mac)> {
        let left = |vif: &NetworkBack| vif.leaving.is_some_and(|leaving| leaving.is_over(now_ns, vif.back.is_closed()));
        let vif = self.backs.swap_remove(self.backs.iter().position(left)?);
        self.networks[vif.network].bridge.remove_port(vif.port);
        vif.back.release(hal);
        Some((vif.domain, vif.index, vif.mac))
    }

    /// Ends a back end without a word to its guest and starts another one in its place.
    pub(super) fn restart(&mut self, hal: &mut DriverHal, domain: DomId, index: u32) -> Result<(), String> {
        let at = self.position(domain, index).ok_or_else(|| format!("the guest has no interface {index}"))?;
        let old = self.backs.swap_remove(at);
        let NetworkBack { network, port, mac, .. } = old;
        old.back.release(hal);
        let back = open(hal, domain, index).inspect_err(|_| self.networks[network].bridge.remove_port(port))?;
        self.backs.push(NetworkBack { domain, index, back, leaving: None, mac, network, port, left_waiting: 0 });
        Ok(())
    }

    /// Bytes that a guest has sent and got by the interfaces that it has.
    pub(super) fn bytes_of(&self, domain: DomId) -> (u64, u64) {
        let counters = self.backs.iter().filter(|vif| vif.domain == domain).map(|vif| vif.back.counters());
        counters.fold((0, 0), |(sent, got), one| (sent + one.from_guest_bytes, got + one.to_guest_bytes))
    }

    fn position(&self, domain: DomId, index: u32) -> Option<usize> {
        self.backs.iter().position(|vif| vif.domain == domain && vif.index == index)
    }

    /// Unplugs a guest's interfaces.
    pub(super) fn detach(&mut self, hal: &mut DriverHal, domain: DomId) {
        let (gone, kept): (Vec<_>, Vec<_>) =
            core::mem::take(&mut self.backs).into_iter().partition(|vif| vif.domain == domain);
        self.backs = kept;
        for vif in gone {
            self.networks[vif.network].bridge.remove_port(vif.port);
            vif.back.release(hal);
        }
    }

    /// Hands a store event to the back end that it is for; says whether there is one.
    pub(super) fn on_watch(&mut self, event: &WatchEvent) -> bool {
        self.backs.iter_mut().any(|vif| vif.back.on_watch(event))
    }

    /// Moves frames between cards, bridges and guests; says whether there is more to move.
    pub(super) fn turn(&mut self, hal: &mut DriverHal) -> bool {
        let now_ns = pv_guest_kernel::time::now_ns();
        let mut busy = false;
        for network in &mut self.networks {
            busy |= network.take_from_card(now_ns);
        }
        for vif in &mut self.backs {
            let bridge = &mut self.networks[vif.network].bridge;
            let progress = vif.back.poll(hal, &mut bridge.handle(vif.port, now_ns));
            vif.left_waiting = bridge.waiting(vif.port);
            busy |= progress == backends::Progress::More;
        }
        self.networks.iter_mut().for_each(Network::give_to_card);
        busy | self.frames_wait() | self.has_room_again()
    }

    /// Whether a guest's frames waited for room that there is now.
    fn has_room_again(&mut self) -> bool {
        let networks = &mut self.networks;
        let again =
            |vif: &NetworkBack| vif.back.is_held_up() && networks[vif.network].bridge.handle(vif.port, 0).has_room();
        self.backs.iter().any(again)
    }

    /// Whether frames came for a guest after it had its turn.
    fn frames_wait(&self) -> bool {
        let waiting = |vif: &NetworkBack| self.networks[vif.network].bridge.waiting(vif.port);
        self.backs.iter().any(|vif| waiting(vif) > vif.left_waiting)
    }

    /// When a card or a guest's ring is to be looked at though neither tells of anything.
    pub(super) fn next_look_ns(&self) -> Option<u64> {
        let cards = self.networks.iter().filter_map(|network| network.card.as_ref());
        let cards = cards.filter_map(|(card, _)| card.next_look_ns());
        cards.chain(self.backs.iter().filter_map(|vif| vif.back.next_look_ns())).min()
    }

    /// All cards.
    pub(super) fn cards(&mut self) -> impl Iterator<Item = &mut VirtioCard> {
        self.networks.iter_mut().filter_map(|network| network.card.as_mut()).map(|(card, _)| card)
    }
}

fn open(hal: &mut DriverHal, domain: DomId, index: u32) -> Result<NetBack<DriverHal>, String> {
    let path = DevicePaths::new(domain, "vif", index).back;
    let queues = machine().map_or(1, |machine| machine.nr_cpus).min(MAX_QUEUES);
    let back = NetBack::open(hal, &path, queues).map_err(|error| format!("vif {index}: {error}"))?;
    Ok(back.with_pauses(PAUSE_NS))
}
