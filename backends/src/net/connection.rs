//! The queues of a connection, each of a ring for either direction.

use alloc::collections::VecDeque;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use pv_bus::net::flow;
use pv_bus::refusal::{Refusals, Rule};
use pv_bus::ring::BackRing;
use pv_bus::xenbus::Link;
use pv_bus::{GrantRef, Hal, Port};

use super::groups::Groups;
use super::port::NetPort;
use super::receive::{Receive, Takes};
use super::transmit::{Fatal, Pace, Transmit};
use super::{Counters, rules};

struct Queue<H: Hal> {
    transmit: Transmit<H>,
    receive: Receive<H>,
}

/// A front end's queues.
pub(super) struct Connection<H: Hal> {
    queues: Vec<Queue<H>>,
    groups: Groups,
    /// The port had no room for what may be on the rings.
    pub(super) held_up: bool,
}

impl<H: Hal> Connection<H> {
    /// Joins the rings that the front end describes, to be looked at with pauses so long.
    pub(super) fn open(hal: &mut H, link: &Link, max_queues: u32, pause_ns: u64) -> Result<Self, (Rule, String)> {
        if !link.peer_has(hal, "request-rx-copy") {
            return Err((rules::CONNECT_RX_COPY, "request-rx-copy is not 1".into()));
        }
        let count =
            crate::shared::queue_count(hal, link, max_queues).map_err(|found| (rules::CONNECT_QUEUES, found))?;
        let takes = Takes {
            scatter_gather: link.peer_has(hal, "feature-sg"),
            blank_checksums: !link.peer_has(hal, "feature-no-csum-offload"),
            oversize: [link.peer_has(hal, "feature-gso-tcpv4"), link.peer_has(hal, "feature-gso-tcpv6")],
        };
        let controlled = link.peer_has(hal, "request-multicast-control");
        let mut connection = Self { queues: Vec::new(), groups: Groups::new(controlled), held_up: false };
        for number in 0..count {
            match Queue::open(hal, link, &crate::shared::queue_folder(count, number), takes) {
                Ok(mut queue) => {
                    queue.transmit.pace.pause_ns = pause_ns;
                    connection.queues.push(queue);
                }
                Err(refused) => {
                    connection.end(hal);
                    return Err(refused);
                }
            }
        }
        Ok(connection)
    }

    /// The event channels; one may serve both directions of a queue.
    pub(super) fn ports(&self) -> impl Iterator<Item = Port> {
        self.queues.iter().flat_map(Queue::ports)
    }

    /// When a ring is to be looked at though the guest tells of nothing. Not while the port has no room for what is there.
    pub(super) fn next_look_ns(&self) -> Option<u64> {
        if self.held_up {
            return None;
        }
        self.queues.iter().filter_map(|queue| queue.transmit.pace.next_look_ns).min()
    }

    /// Moves a round of frames both ways. True when there was something.
    pub(super) fn round(
        &mut self,
        hal: &mut H,
        port: &mut impl NetPort,
        refusals: &mut Refusals,
        counters: &mut Counters,
    ) -> Result<bool, Fatal> {
        let mut any = false;
        self.held_up = false;
        for queue in &mut self.queues {
            if port.has_room() {
                any |= queue.transmit.round(hal, port, &mut self.groups, refusals, counters)?;
            } else {
                self.held_up = true;
            }
        }
        self.spread(port, counters);
        for queue in &mut self.queues {
            any |= queue.receive.round(hal, refusals, counters).map_err(Fatal::Ring)?;
        }
        Ok(any)
    }

    /// Gives the port's frames to the queues. A queue that is full loses what is for it, unless it is the only one: then
    /// the frames wait in the port.
    fn spread(&mut self, port: &mut impl NetPort, counters: &mut Counters) {
        while self.queues.iter().any(|queue| queue.receive.has_room()) {
            let Some(frame) = port.receive() else { break };
            let which = flow(&frame.bytes) as usize % self.queues.len();
            let receive = &mut self.queues[which].receive;
            if self.groups.want(&frame) && receive.has_room() {
                receive.add(frame, counters);
            } else {
                counters.dropped += 1;
            }
        }
    }

    /// Leaves the rings.
    pub(super) fn end(self, hal: &mut H) {
        let mut pages = Vec::new();
        for queue in self.queues {
            queue.ports().for_each(|port| hal.close(port));
            pages.append(&mut queue.transmit.ring.into_pages());
            pages.append(&mut queue.receive.ring.into_pages());
        }
        hal.unmap_grants(&mut pages);
    }
}

impl<H: Hal> Queue<H> {
    fn open(hal: &mut H, link: &Link, folder: &str, takes: Takes) -> Result<Self, (Rule, String)> {
        let transmit_ref = number(hal, link, folder, "tx-ring-ref")?;
        let receive_ref = number(hal, link, folder, "rx-ring-ref")?;
        let remote = remote_ports(hal, link, folder)?;
        let grants = [GrantRef(transmit_ref), GrantRef(receive_ref)];
        let mut pages = crate::shared::map_all(hal, link.peer(), &grants)
            .map_err(|(grant, error)| (rules::RING_GRANT, format!("grant {grant}: {error}")))?;
        let (transmit_port, receive_port) = match bind(hal, link, remote) {
            Ok(ports) => ports,
            Err(failure) => {
                hal.unmap_grants(&mut pages);
                return Err(failure);
            }
        };
        let ring = BackRing::attach(pages.split_off(1));
        let receive = Receive { ring, port: receive_port, peer: link.peer(), takes, waiting: VecDeque::new() };
        let ring = BackRing::attach(pages);
        let transmit = Transmit { ring, port: transmit_port, peer: link.peer(), pace: Pace::default() };
        Ok(Self { transmit, receive })
    }

    fn ports(&self) -> impl Iterator<Item = Port> + use<H> {
        let (transmit, receive) = (self.transmit.port, self.receive.port);
        core::iter::once(transmit).chain((receive != transmit).then_some(receive))
    }
}

fn number<H: Hal>(hal: &mut H, link: &Link, folder: &str, key: &str) -> Result<u32, (Rule, String)> {
    link.read_peer(hal, &format!("{folder}{key}"))
        .map_err(|error| (rules::CONNECT_KEYS, format!("{folder}{key}: {error}")))
}

/// The guest's ports: one for each direction, or one for both.
fn remote_ports<H: Hal>(hal: &mut H, link: &Link, folder: &str) -> Result<(Port, Option<Port>), (Rule, String)> {
    match number(hal, link, folder, "event-channel-tx") {
        Ok(transmit) => Ok((Port(transmit), Some(Port(number(hal, link, folder, "event-channel-rx")?)))),
        Err(_) => Ok((Port(number(hal, link, folder, "event-channel")?), None)),
    }
}

/// Binds the guest's port or ports.
fn bind<H: Hal>(hal: &mut H, link: &Link, remote: (Port, Option<Port>)) -> Result<(Port, Port), (Rule, String)> {
    let refused = |port: Port, error| (rules::EVENT_CHANNEL, format!("port {port}: {error}"));
    let transmit = hal.bind_interdomain(link.peer(), remote.0).map_err(|error| refused(remote.0, error))?;
    let Some(remote_receive) = remote.1 else {
        return Ok((transmit, transmit));
    };
    match hal.bind_interdomain(link.peer(), remote_receive) {
        Ok(receive) => Ok((transmit, receive)),
        Err(error) => {
            hal.close(transmit);
            Err(refused(remote_receive, error))
        }
    }
}
