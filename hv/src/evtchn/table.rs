//! A domain's ports.

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;

use pv_abi::DomId;
use pv_abi::errno::Errno;
use pv_abi::xen::NR_VIRQS;

use crate::domain::Domain;
use crate::refusal::{Evidence, Refusal};
use crate::rules;

/// Ports of the 2-level ABI.
pub const MAX_PORTS: u32 = 4096;

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
type Virqs = [u16; NR_VIRQS as usize];

/// A domain's event channels.
pub struct EventChannels {
    #[expect(clippy::vec_box, reason = "a table that grows moves pointers, not ports")]
    chunks: Vec<Box<[Channel; CHUNK]>>,
    /// No port below is free.
    lowest_free: u32,
    /// Ports it may have, counting port 0.
    limit: u32,
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
        let limit = max_port.saturating_add(1).min(MAX_PORTS);
        let mut first = new_chunk();
        first[0].state = State::Reserved;
        Self { chunks: alloc::vec![first], lowest_free: 1, limit, virqs: Vec::new(), next_to_close: 0 }
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

    /// Makes the lowest free port something.
    ///
    /// # Errors
    /// `ENOSPC` where the domain has all it may have, `ENOMEM`.
    #[inline]
    pub(super) fn allocate(&mut self, state: State, vcpu: u32) -> Result<u32, Refusal> {
        let port = self.lowest_free;
        let limit = self.limit;
        match self.get_mut(port) {
            Some(channel) if matches!(channel.state, State::Free) && port < limit => {
                *channel = Channel { state, vcpu };
                self.lowest_free = port + 1;
                Ok(port)
            }
            _ => self.allocate_beyond(state, vcpu),
        }
    }

    /// Makes the lowest free port something, which is not the one where free ports may begin.
    #[inline(never)]
    fn allocate_beyond(&mut self, state: State, vcpu: u32) -> Result<u32, Refusal> {
        let size = self.size();
        let port = self.first_free().unwrap_or(size);
        self.lowest_free = port;
        if port >= self.limit {
            return Err(no_free_port(self.limit));
        }
        if port >= size {
            self.grow()?;
        }
        self.lowest_free = port + 1;
        if let Some(channel) = self.get_mut(port) {
            *channel = Channel { state, vcpu };
        }
        Ok(port)
    }

    /// The lowest free port.
    fn first_free(&self) -> Option<u32> {
        let from = self.lowest_free as usize / CHUNK;
        let chunks = self.chunks.iter().enumerate().skip(from);
        let free = |chunk: &[Channel; CHUNK]| {
            let mut channels = chunk.iter();
            channels.position(|channel| matches!(channel.state, State::Free))
        };
        let mut places = chunks.filter_map(|(n, chunk)| Some(n * CHUNK + free(chunk)?));
        places.next().map(|port| port as u32)
    }

    #[cold]
    fn grow(&mut self) -> Result<(), Refusal> {
        let no_memory = |_| Refusal::errno(Errno::NoMem, rules::evtchn::NO_MEMORY);
        self.chunks.try_reserve(1).map_err(no_memory)?;
        self.chunks.push(new_chunk());
        Ok(())
    }

    /// Makes a port free that nothing else knows of: unbound, or an IPI.
    #[inline]
    pub(super) fn free_if_alone(&mut self, port: u32) -> bool {
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
        self.virqs.get(vcpu as usize).map_or(0, |ports| ports[virq as usize].into())
    }

    /// Notes the port of a vCPU's virtual interrupt.
    pub(super) fn set_virq_port(&mut self, vcpu: u32, virq: u32, port: u32) {
        if self.virqs.len() <= vcpu as usize {
            self.virqs.resize(vcpu as usize + 1, [0; NR_VIRQS as usize]);
        }
        self.virqs[vcpu as usize][virq as usize] = port as u16;
    }

    /// Forgets that a virtual interrupt goes to this port.
    pub(super) fn forget_virq(&mut self, virq: u32, port: u32) {
        for ports in &mut self.virqs {
            if u32::from(ports[virq as usize]) == port {
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
