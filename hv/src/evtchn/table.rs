//! A domain's ports.

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;

use pv_abi::DomId;
use pv_abi::errno::Errno;
use pv_abi::event_channel::{EVTCHN_2L_NR_CHANNELS, EVTCHN_FIFO_NR_CHANNELS};
use pv_abi::xen::NR_VIRQS;

use super::own;
use crate::Hypervisor;
use crate::domain::Domain;
use crate::hardware::Machine;
use crate::heap::try_array;
use crate::refusal::{Evidence, Refusal};
use crate::rules;

/// Ports of the 2-level ABI.
pub const MAX_PORTS: u32 = EVTCHN_2L_NR_CHANNELS;

/// Ports that are allocated together.
pub(super) const CHUNK: usize = 64;

/// What a port is.
#[derive(Clone, Default)]
pub enum State {
    /// Nothing.
    #[default]
    Free,
    /// Port 0, which is never anything else.
    Reserved,
    /// Offered to a domain, which has not bound it.
    Unbound {
        /// Who may bind it.
        remote: DomId,
    },
    /// One end of a channel between domains (or within one).
    Interdomain {
        /// The far end's domain.
        domain: Arc<Domain>,
        /// The far end.
        port: u32,
        /// The vCPU that the far end notifies.
        vcpu: u32,
    },
    /// A physical interrupt, by its number in the domain.
    Pirq(u32),
    /// A virtual interrupt.
    Virq(u32),
    /// From a vCPU of the domain to another.
    Ipi,
    /// One end of a channel with the hypervisor.
    Own(own::End),
}

impl State {
    /// Its name in logs.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Free => "closed",
            Self::Reserved => "reserved",
            Self::Unbound { .. } => "unbound",
            Self::Interdomain { .. } => "interdomain",
            Self::Pirq(_) => "physical interrupt",
            Self::Virq(_) => "virtual interrupt",
            Self::Ipi => "IPI",
            Self::Own(end) => end.name(),
        }
    }
}

/// One port.
#[derive(Clone, Default)]
pub struct Channel {
    /// What it is.
    pub state: State,
    /// The vCPU it notifies.
    pub vcpu: u32,
}

/// The ports that a vCPU's virtual interrupts go to; 0 for none.
type Virqs = [u32; NR_VIRQS as usize];

/// A domain's event channels.
pub struct EventChannels {
    #[expect(clippy::vec_box, reason = "a table that grows moves pointers, not ports")]
    chunks: Vec<Box<[Channel; CHUNK]>>,
    /// No port below is free.
    lowest_free: u32,
    /// Ports below this may be taken as soon as they are free: all of the 2-level ABI, and none of the FIFO ABI, where
    /// a free port may still be on a queue.
    taken_at_once: u32,
    /// The highest port that its toolstack lets it have.
    max_port: u32,
    /// The domain is being taken apart: no port is opened any more.
    ended: bool,
    virqs: Vec<Virqs>,
    /// Where closing all of them goes on.
    pub(super) next_to_close: u32,
}

impl Default for EventChannels {
    fn default() -> Self {
        Self::new(MAX_PORTS - 1)
    }
}

impl EventChannels {
    /// None but the reserved port; `max_port` is the highest port that may be allocated.
    #[must_use]
    pub fn new(max_port: u32) -> Self {
        let mut first = new_chunk();
        first[0].state = State::Reserved;
        let taken_at_once = max_port.saturating_add(1).min(MAX_PORTS);
        Self {
            chunks: alloc::vec![first],
            lowest_free: 1,
            taken_at_once,
            max_port,
            ended: false,
            virqs: Vec::new(),
            next_to_close: 0,
        }
    }

    /// Lets no port be opened any more: the domain is being taken apart.
    pub(crate) const fn end(&mut self) {
        (self.ended, self.taken_at_once) = (true, 0);
    }

    /// Goes over to the FIFO ABI, with the ports that there are.
    pub(super) const fn use_fifo(&mut self) {
        self.taken_at_once = 0;
    }

    /// Goes back to the 2-level ABI; false where a port is open.
    pub(super) fn use_two_levels(&mut self) -> bool {
        let is_open = |channel: &Channel| !matches!(channel.state, State::Free | State::Reserved);
        if self.chunks.iter().any(|chunk| chunk.iter().any(is_open)) {
            return false;
        }
        self.chunks.truncate(1);
        (self.lowest_free, self.next_to_close) = (1, 0);
        self.taken_at_once = if self.ended { 0 } else { self.max_port.saturating_add(1).min(MAX_PORTS) };
        true
    }

    /// Ports it may have, counting port 0.
    fn limit(&self) -> u32 {
        let most = if self.taken_at_once == 0 { EVTCHN_FIFO_NR_CHANNELS } else { MAX_PORTS };
        self.max_port.saturating_add(1).min(most)
    }

    /// One port, if the table is that large.
    #[inline]
    pub(super) fn get(&self, port: u32) -> Option<&Channel> {
        self.chunks.get(port as usize / CHUNK).map(|chunk| &chunk[port as usize % CHUNK])
    }

    /// One port, if the table is that large.
    #[inline]
    pub(super) fn get_mut(&mut self, port: u32) -> Option<&mut Channel> {
        self.chunks.get_mut(port as usize / CHUNK).map(|chunk| &mut chunk[port as usize % CHUNK])
    }

    /// One port.
    ///
    /// # Errors
    /// `EINVAL` where the table is not that large.
    #[inline]
    pub(super) fn channel(&self, port: u32) -> Result<&Channel, Refusal> {
        self.get(port).ok_or_else(|| out_of_range(port))
    }

    /// How many ports the table holds, free ones included.
    #[must_use]
    pub fn size(&self) -> u32 {
        (self.chunks.len() * CHUNK) as u32
    }

    /// Makes the lowest free port of `domain`, whose ports these are, something.
    ///
    /// # Errors
    /// `ENOSPC` where the domain has all it may have, `ENOMEM`, `EINVAL` where it is being taken apart.
    #[inline]
    pub(super) fn allocate<M: Machine>(
        &mut self,
        hv: &Hypervisor<M>,
        domain: &Domain,
        state: State,
        vcpu: u32,
    ) -> Result<u32, Refusal> {
        let port = self.lowest_free;
        let limit = self.taken_at_once;
        match self.get_mut(port) {
            Some(channel) if matches!(channel.state, State::Free) && port < limit => {
                *channel = Channel { state, vcpu };
                self.lowest_free = port + 1;
                Ok(port)
            }
            _ => self.allocate_beyond(hv, domain, state, vcpu),
        }
    }

    /// Makes the lowest free port something, which is not the one where free ports may begin.
    #[inline(never)]
    fn allocate_beyond<M: Machine>(
        &mut self,
        hv: &Hypervisor<M>,
        domain: &Domain,
        state: State,
        vcpu: u32,
    ) -> Result<u32, Refusal> {
        if self.ended {
            return Err(Refusal::errno(Errno::Inval, rules::evtchn::ENDED).with(Evidence::Value(domain.id.0.into())));
        }
        let size = self.size();
        let mut fifo = domain.fifo.queues();
        let mut free = self.free_ports();
        let lowest = free.next().unwrap_or(size);
        let is_linked = |port: &u32| fifo.as_ref().is_some_and(|queues| queues.is_linked(&hv.machine, *port));
        let port = if is_linked(&lowest) { free.find(|port| !is_linked(port)).unwrap_or(size) } else { lowest };
        drop(free);
        self.lowest_free = lowest;
        if port >= self.limit() {
            return Err(no_free_port(self.limit()));
        }
        if port >= size {
            self.grow()?;
        }
        if let Some(queues) = &mut fifo {
            queues.open(port, self.size())?;
        }
        if port == lowest {
            self.lowest_free = port + 1;
        }
        if let Some(channel) = self.get_mut(port) {
            *channel = Channel { state, vcpu };
        }
        Ok(port)
    }

    /// The free ports, in order.
    fn free_ports(&self) -> impl Iterator<Item = u32> {
        let from = self.lowest_free as usize / CHUNK;
        let channels = self.chunks[from.min(self.chunks.len())..].iter().flat_map(|chunk| chunk.iter());
        let free = channels.enumerate().filter(|(_, channel)| matches!(channel.state, State::Free));
        free.map(move |(index, _)| (from * CHUNK + index) as u32)
    }

    #[cold]
    fn grow(&mut self) -> Result<(), Refusal> {
        let no_memory = || Refusal::errno(Errno::NoMem, rules::evtchn::NO_MEMORY);
        self.chunks.try_reserve(1).map_err(|_| no_memory())?;
        self.chunks.push(try_array(|_| Channel::default()).ok_or_else(no_memory)?);
        Ok(())
    }

    /// Makes a port free that nothing else knows of, no queue either: unbound, or an IPI.
    #[inline]
    pub(super) fn free_if_alone(&mut self, port: u32) -> bool {
        if self.taken_at_once == 0 {
            return false;
        }
        let alone = self.get_mut(port).filter(|channel| matches!(channel.state, State::Unbound { .. } | State::Ipi));
        let Some(channel) = alone else {
            return false;
        };
        *channel = Channel::default();
        self.lowest_free = self.lowest_free.min(port);
        true
    }

    /// Makes a port free; gives what it was.
    pub(super) fn free(&mut self, port: u32) -> State {
        let Some(channel) = self.get_mut(port) else {
            return State::Free;
        };
        let old = core::mem::take(channel).state;
        self.lowest_free = self.lowest_free.min(port);
        old
    }

    /// The port of a vCPU's virtual interrupt; 0 for none.
    #[inline]
    pub(super) fn virq_port(&self, vcpu: u32, virq: u32) -> u32 {
        self.virqs.get(vcpu as usize).map_or(0, |ports| ports[virq as usize])
    }

    /// Notes the port of a vCPU's virtual interrupt.
    pub(super) fn set_virq_port(&mut self, vcpu: u32, virq: u32, port: u32) {
        if self.virqs.len() <= vcpu as usize {
            self.virqs.resize(vcpu as usize + 1, [0; NR_VIRQS as usize]);
        }
        self.virqs[vcpu as usize][virq as usize] = port;
    }

    /// Forgets that a virtual interrupt goes to this port.
    pub(super) fn forget_virq(&mut self, virq: u32, port: u32) {
        for ports in &mut self.virqs {
            if ports[virq as usize] == port {
                ports[virq as usize] = 0;
            }
        }
    }
}

fn new_chunk() -> Box<[Channel; CHUNK]> {
    Box::new(core::array::from_fn(|_| Channel::default()))
}

#[cold]
pub(super) fn out_of_range(port: u32) -> Refusal {
    Refusal::errno(Errno::Inval, rules::evtchn::PORT_RANGE).with(Evidence::Value(port.into()))
}

#[cold]
fn no_free_port(limit: u32) -> Refusal {
    Refusal::errno(Errno::NoSpc, rules::evtchn::NO_FREE_PORT).with(Evidence::Value(limit.into()))
}
