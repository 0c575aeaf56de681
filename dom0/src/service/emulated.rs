//! Guests that know no paravirtual device: each has a board of emulated ones, on the same disks, bridges and consoles as
//! the back ends.
//!
//! A guest's access waits for this domain: it is made, what the board has to say of it is told, and only then is it
//! answered, so that a guest never goes on before its interrupt line has the level that its access gave it.

use alloc::collections::{BTreeMap, VecDeque};
use alloc::format;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;

use backends::net::bridge::PortId;
use dom0::ids::DomId;
use dom0::models::access;
use dom0::models::ata::{Channel, Drive};
use dom0::models::board::Board;
use dom0::models::ne2000::Ne2000;
use dom0::toolstack::config::GuestConfig;
use pv_abi::hvm::ioreq::IOREQ_TYPE_INVALIDATE;
use pv_bus::net::Frame;
use pv_guest_kernel::task::Signal;

use super::creation::File;
use super::disks::Disks;
use super::medium::Medium;
use super::networks::Networks;
use crate::machine::disk::VirtioDisk;
use crate::machine::ioreq::Server;
use crate::machine::view::View;

/// Disks that two ATA channels have.
const DISKS: usize = 4;
/// Keys that may wait for a guest that does not read.
const KEYS_WAITING: usize = 4096;

/// A guest's board, and what it is connected to.
struct Emulated {
    server: Server,
    view: View,
    board: Board<Medium>,
    /// The bridge and its port that the card is on.
    wire: Option<(usize, PortId)>,
    keys: VecDeque<u8>,
    /// What the guest has written to its serial port.
    text: Vec<u8>,
}

/// The boards of all guests.
#[derive(Default)]
pub(super) struct Boards(BTreeMap<DomId, Emulated>);

impl Boards {
    /// Gives a guest the devices that its description names.
    ///
    /// # Errors
    /// One line: what cannot be had. Nothing is kept then.
    pub(super) fn attach(
        &mut self,
        domain: DomId,
        config: &GuestConfig,
        (disks, networks): (&mut Disks, &mut Networks),
        signal: &Arc<Signal>,
        file: impl Fn(&str) -> Option<File>,
    ) -> Result<(), String> {
        let mut media = Vec::new();
        let all = config.disks.iter().try_for_each(|disk| {
            let medium = disks.take(disk, &file)?;
            let good = Drive::check(&medium).map_err(|problem| format!("disk {}: {problem}", disk.vdev));
            media.push(medium);
            good
        });
        let connected = all.and_then(|()| {
            let server = Server::new(domain, config.max_vcpus, signal).map_err(|error| error.to_string())?;
            let wire = config.vifs.first().map(|vif| networks.plug_in(0, vif)).transpose()?;
            Ok((server, wire))
        });
        let (server, wire) = match connected {
            Ok(connected) => connected,
            Err(problem) => {
                media.into_iter().for_each(|medium| disks.free_again(medium));
                return Err(problem);
            }
        };
        let card = config.vifs.first().map(|vif| Ne2000::new(vif.mac.0));
        let board = Board::new(channels(media)?, card);
        let (view, keys, text) = (View::new(domain), VecDeque::new(), Vec::new());
        let mut emulated = Emulated { server, view, board, wire, keys, text };
        let told = emulated.introduce();
        self.0.insert(domain, emulated);
        if told.is_err() {
            self.detach(domain, disks, networks);
        }
        told
    }

    /// Takes a guest's devices back.
    pub(super) fn detach(&mut self, domain: DomId, disks: &mut Disks, networks: &mut Networks) {
        let Some(Emulated { board, wire, .. }) = self.0.remove(&domain) else {
            return;
        };
        for medium in board.into_channels().into_iter().flat_map(Channel::into_media) {
            disks.free_again(medium);
        }
        if let Some((network, port)) = wire {
            networks.unplug(network, port);
        }
    }

    /// Makes the accesses that guests ask for, and moves what their devices move; says whether there was something.
    pub(super) fn turn(&mut self, networks: &mut Networks, now_ns: u64) -> bool {
        let mut busy = false;
        for emulated in self.0.values_mut() {
            busy |= emulated.serve();
            busy |= emulated.board.turn(&mut emulated.view);
            busy |= emulated.exchange_frames(networks, now_ns);
            emulated.move_text();
            emulated.tell();
        }
        busy
    }

    /// Queues keys for a guest's serial port, and takes what the guest has written there.
    pub(super) fn console(&mut self, domain: DomId, keys: &mut VecDeque<u8>) -> Vec<u8> {
        let Some(emulated) = self.0.get_mut(&domain) else {
            return Vec::new();
        };
        if !keys.is_empty() {
            let room = KEYS_WAITING.saturating_sub(emulated.keys.len()).min(keys.len());
            emulated.keys.extend(keys.drain(..).take(room));
            emulated.move_text();
            emulated.board.turn(&mut emulated.view);
            emulated.tell();
        }
        core::mem::take(&mut emulated.text)
    }

    /// The virtio disks behind them.
    pub(super) fn virtio(&mut self) -> impl Iterator<Item = &mut VirtioDisk> {
        let media = self.0.values_mut().flat_map(|emulated| emulated.board.media_mut());
        media.filter_map(Medium::virtio_mut)
    }
}

/// Checks that a board has room for what a description names.
///
/// # Errors
/// One line with the cure.
pub(super) fn check(config: &GuestConfig) -> Result<(), String> {
    if config.disks.len() > DISKS {
        return Err(format!("it has {} disks, an emulated board takes {DISKS}: leave some out", config.disks.len()));
    }
    if config.vifs.len() > 1 {
        return Err("it has several network interfaces, an emulated board takes one: leave the others out".to_string());
    }
    match config.disks.iter().find(|disk| !disk.writable) {
        Some(disk) => Err(format!("disk {}: an ATA disk cannot be read-only: write access=rw", disk.vdev)),
        None => Ok(()),
    }
}

/// Disks in their order: first and second of the first channel, then of the second.
fn channels(media: Vec<Medium>) -> Result<[Channel<Medium>; 2], String> {
    let mut media = media.into_iter().enumerate();
    let mut drive = || {
        let (index, medium) = media.next()?;
        Some(Drive::new(medium, &format!("XL{index:04}")))
    };
    let mut channel = || Ok::<_, String>(Channel::new([drive().transpose()?, drive().transpose()?]));
    Ok([channel()?, channel()?])
}

impl Emulated {
    /// Tells the hypervisor what is the board's.
    fn introduce(&mut self) -> Result<(), String> {
        let mut places = self.board.places();
        places.try_for_each(|place| self.server.take_place(place)).map_err(|error| error.to_string())?;
        drop(places);
        let mut changes = self.board.take_changes().into_iter();
        changes.try_for_each(|change| self.server.tell(change)).map_err(|error| error.to_string())
    }

    fn serve(&mut self) -> bool {
        let mut busy = false;
        for vcpu in 0..self.server.vcpus() {
            let Some(request) = self.server.asked(vcpu) else { continue };
            if request.type_ == IOREQ_TYPE_INVALIDATE {
                self.view.forget();
            }
            let data = access::make(&mut self.board, &mut self.view, &request);
            self.tell();
            self.server.answer(vcpu, request, data);
            busy = true;
        }
        busy
    }

    fn tell(&mut self) {
        for change in self.board.take_changes() {
            if let Err(error) = self.server.tell(change) {
                log::warn!("{change:?}: {error}");
            }
        }
    }

    fn exchange_frames(&mut self, networks: &mut Networks, now_ns: u64) -> bool {
        let (Some(card), Some((network, port))) = (&mut self.board.card, self.wire) else {
            return false;
        };
        let Some(bridge) = networks.bridge(network) else {
            return false;
        };
        let sent = card.take_sent();
        let mut busy = !sent.is_empty();
        for bytes in sent {
            bridge.send(port, Frame::new(bytes), now_ns);
        }
        while card.has_room() {
            let Some(frame) = bridge.take(port) else { break };
            card.receive(&frame.bytes);
            busy = true;
        }
        if busy {
            // Its line may have another level now.
            self.board.turn(&mut self.view);
        }
        busy
    }

    fn move_text(&mut self) {
        let uart = &mut self.board.uart;
        self.text.extend(uart.take_sent());
        let room = uart.room().min(self.keys.len());
        self.keys.drain(..room).for_each(|key| uart.receive(key));
    }
}
