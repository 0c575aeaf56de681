//! The FIFO ABI's queues.
//!
//! The guest gives pages of *event words*, one word a port, and each vCPU a *control block*. A port that is pending and
//! not masked is *linked*: its number becomes the link of the word that is the *tail* of a queue, or, where that queue
//! is empty, the queue's *head* in the control block. Each vCPU has 16 queues, one a priority, and a word of *ready*
//! bits that say which queue got a new head. The guest takes words off from the head on.
//!
//! Invariants:
//! - the guest may write all of this at any moment, so only the tails are believed, which are kept here: no link is ever
//!   followed, and a word is exchanged a bounded number of times;
//! - a tail is a port of the array; whether its queue is empty is told by its word's LINKED bit. A guest that changes
//!   that bit loses events of its own, and nothing else;
//! - each page is referenced and typed writable from the operation that names it until the ports are reset.
//!
//! Xen: `public/event_channel.h`, the FIFO ABI.

use alloc::vec::Vec;
use core::mem::offset_of;
use core::sync::atomic::{AtomicBool, Ordering};

use pv_abi::Mfn;
use pv_abi::errno::Errno;
use pv_abi::event_channel::{
    EVTCHN_FIFO_BUSY, EVTCHN_FIFO_LINK_MASK, EVTCHN_FIFO_LINKED, EVTCHN_FIFO_MASKED, EVTCHN_FIFO_MAX_QUEUES,
    EVTCHN_FIFO_PENDING, EVTCHN_FIFO_PRIORITY_DEFAULT, EvtchnFifoControlBlock,
};
use spin::{Mutex, MutexGuard};

use crate::hardware::Machine;
use crate::refusal::{Evidence, Refusal};
use crate::rules;

/// Event words in a page.
pub(super) const WORDS: usize = 1024;

const PENDING: u32 = 1 << EVTCHN_FIFO_PENDING;
const MASKED: u32 = 1 << EVTCHN_FIFO_MASKED;
const LINKED: u32 = 1 << EVTCHN_FIFO_LINKED;
const BUSY: u32 = 1 << EVTCHN_FIFO_BUSY;

/// How often linking is tried while the guest changes the tail's word, which it has been told that it should not.
const TRIES: u32 = 4;

/// A domain's queues, where it uses the FIFO ABI.
#[derive(Default)]
pub struct Fifo {
    on: AtomicBool,
    queues: Mutex<Queues>,
}

impl Fifo {
    /// Whether the domain uses the FIFO ABI. Changes under the lock of its event channels.
    #[inline]
    pub(super) fn is_on(&self) -> bool {
        self.on.load(Ordering::Relaxed)
    }

    /// The queues, where the domain uses them.
    pub(super) fn queues(&self) -> Option<MutexGuard<'_, Queues>> {
        self.is_on().then(|| self.queues.lock())
    }

    /// The queues of a domain that goes over to the FIFO ABI; [`Fifo::turn_on`] ends that.
    pub(super) fn new_queues(&self) -> MutexGuard<'_, Queues> {
        self.queues.lock()
    }

    pub(super) fn turn_on(&self) {
        self.on.store(true, Ordering::Release);
    }

    /// Goes back to the 2-level ABI; gives the pages that were used.
    pub(super) fn turn_off(&self) -> Queues {
        self.on.store(false, Ordering::Release);
        core::mem::take(&mut *self.queues.lock())
    }
}

/// One queue of one vCPU.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Queue {
    vcpu: u16,
    priority: u8,
}

/// What is known of a port.
#[derive(Clone, Copy)]
struct Port {
    /// The queue that it was last linked into.
    last: Queue,
    /// The priority of its next event.
    priority: u8,
    /// Pending since before its word was there.
    early: bool,
}

impl Port {
    const NEW: Self = Self {
        last: Queue { vcpu: 0, priority: EVTCHN_FIFO_PRIORITY_DEFAULT as u8 },
        priority: EVTCHN_FIFO_PRIORITY_DEFAULT as u8,
        early: false,
    };
}

/// What is known of a vCPU.
#[derive(Clone, Copy, Default)]
struct Control {
    /// Frame and offset in bytes of its control block.
    place: Option<(Mfn, usize)>,
    /// Of each queue, the port that was linked last, or 0.
    tails: [u32; EVTCHN_FIFO_MAX_QUEUES as usize],
}

/// What an event leads to.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Outcome {
    /// The port was not pending before.
    pub(super) is_new: bool,
    /// The vCPU is to look at its control block.
    pub(super) is_ready: bool,
}

/// A domain's event array and queues.
#[derive(Default)]
pub(super) struct Queues {
    array: Vec<Mfn>,
    controls: Vec<Control>,
    ports: Vec<Port>,
}

impl Queues {
    /// All pages, in no order.
    pub(super) fn pages(&self) -> impl Iterator<Item = Mfn> {
        let controls = self.controls.iter().filter_map(|control| control.place);
        self.array.iter().copied().chain(controls.map(|(mfn, _)| mfn))
    }

    /// How many pages the array has.
    pub(super) const fn array_len(&self) -> usize {
        self.array.len()
    }

    /// Adds a page to the array.
    pub(super) fn add_page(&mut self, mfn: Mfn) -> Result<(), Refusal> {
        self.array.try_reserve(1).map_err(no_memory)?;
        self.array.push(mfn);
        Ok(())
    }

    /// Gives a vCPU its control block; false where it has one.
    pub(super) fn add_control(&mut self, vcpu: u32, place: (Mfn, usize)) -> Result<bool, Refusal> {
        let vcpu = vcpu as usize;
        if self.controls.len() <= vcpu {
            self.controls.try_reserve(vcpu + 1 - self.controls.len()).map_err(no_memory)?;
            self.controls.resize(vcpu + 1, Control::default());
        }
        let control = &mut self.controls[vcpu];
        let is_first = control.place.is_none();
        if is_first {
            control.place = Some(place);
        }
        Ok(is_first)
    }

    /// Makes room for all ports below `count`, and gives `port` the usual priority: it is about to be something new.
    pub(super) fn open(&mut self, port: u32, count: u32) -> Result<(), Refusal> {
        let count = count as usize;
        if self.ports.len() < count {
            self.ports.try_reserve(count - self.ports.len()).map_err(no_memory)?;
            self.ports.resize(count, Port::NEW);
        }
        self.set_priority(port, Port::NEW.priority);
        Ok(())
    }

    /// Chooses the queue of a port's next events.
    pub(super) fn set_priority(&mut self, port: u32, priority: u8) {
        if let Some(known) = self.ports.get_mut(port as usize) {
            known.priority = priority;
        }
    }

    /// Whether a port was pending before its word was there; forgets it.
    pub(super) fn take_early(&mut self, port: u32) -> bool {
        self.ports.get_mut(port as usize).is_some_and(|known| core::mem::take(&mut known.early))
    }

    fn word(&self, port: u32) -> Option<Word> {
        let page = *self.array.get(port as usize / WORDS)?;
        Some(Word { page, index: port as usize % WORDS })
    }

    /// Whether a port is pending.
    pub(super) fn is_pending<M: Machine>(&self, machine: &M, port: u32) -> bool {
        self.word(port).is_some_and(|word| word.read(machine) & PENDING != 0)
    }

    /// Whether a port is on a queue, for all that its word says.
    pub(super) fn is_linked<M: Machine>(&self, machine: &M, port: u32) -> bool {
        self.word(port).is_some_and(|word| word.read(machine) & LINKED != 0)
    }

    /// Makes a port pending that notifies `vcpu`.
    pub(super) fn set_pending<M: Machine>(&mut self, machine: &M, vcpu: u32, port: u32) -> Outcome {
        let Some(word) = self.word(port) else {
            if let Some(known) = self.ports.get_mut(port as usize) {
                known.early = true;
            }
            return Outcome::default();
        };
        let is_new = word.set(machine, PENDING) & PENDING == 0;
        Outcome { is_new, is_ready: self.link(machine, vcpu, port, word) }
    }

    /// Makes a port not pending. Its word stays where it is linked; the guest passes over it.
    pub(super) fn clear_pending<M: Machine>(&mut self, machine: &M, port: u32) {
        self.take_early(port);
        if let Some(word) = self.word(port) {
            word.clear(machine, PENDING);
        }
    }

    /// Takes a port's mask away and links it if it is pending; whether the vCPU is to look.
    pub(super) fn unmask<M: Machine>(&mut self, machine: &M, vcpu: u32, port: u32) -> bool {
        let Some(word) = self.word(port) else {
            return false;
        };
        word.clear(machine, MASKED);
        word.read(machine) & PENDING != 0 && self.link(machine, vcpu, port, word)
    }

    /// Puts a port at the end of a queue, unless it is masked or on a queue; whether the queue's vCPU is to look.
    fn link<M: Machine>(&mut self, machine: &M, vcpu: u32, port: u32, word: Word) -> bool {
        let Some(Control { place: Some((frame, offset)), .. }) = self.controls.get(vcpu as usize).copied() else {
            return false;
        };
        let Some(known) = self.ports.get_mut(port as usize) else {
            return false;
        };
        if word.read(machine) & (MASKED | LINKED) != 0 {
            return false;
        }
        // The guest has taken the port off: a queue that ended with it is empty, and the port's link is its to use.
        let queue = Queue { vcpu: vcpu as u16, priority: known.priority };
        let last = core::mem::replace(&mut known.last, queue);
        if let Some(tail) = self.tail(last)
            && *tail == port
        {
            *tail = 0;
        }
        if word.set(machine, LINKED) & LINKED != 0 {
            return false;
        }
        let tail = self.tail(queue).map_or(0, |tail| core::mem::replace(tail, port));
        if tail != 0 && self.word(tail).is_some_and(|word| word.link_to(machine, port)) {
            return false;
        }
        let head = offset_of!(EvtchnFifoControlBlock, head) / 4 + usize::from(queue.priority);
        machine.write_half(frame, offset / 4 + head, port);
        let ready = 1 << queue.priority;
        machine.fetch_or_word(frame, offset / 8, ready) & ready == 0
    }

    fn tail(&mut self, queue: Queue) -> Option<&mut u32> {
        self.controls.get_mut(usize::from(queue.vcpu))?.tails.get_mut(usize::from(queue.priority))
    }
}

/// Where an event word is.
#[derive(Clone, Copy)]
struct Word {
    page: Mfn,
    index: usize,
}

impl Word {
    const fn shift(self) -> usize {
        self.index % 2 * 32
    }

    fn read<M: Machine>(self, machine: &M) -> u32 {
        (machine.read_word(self.page, self.index / 2) >> self.shift()) as u32
    }

    /// Sets bits; gives the word as it was.
    fn set<M: Machine>(self, machine: &M, bits: u32) -> u32 {
        (machine.fetch_or_word(self.page, self.index / 2, u64::from(bits) << self.shift()) >> self.shift()) as u32
    }

    fn clear<M: Machine>(self, machine: &M, bits: u32) {
        machine.fetch_and_word(self.page, self.index / 2, !(u64::from(bits) << self.shift()));
    }

    /// Makes `port` the link of a word that is on a queue; false where it is on none. BUSY asks the guest to leave the
    /// word alone meanwhile; of one that does not, the link is lost.
    fn link_to<M: Machine>(self, machine: &M, port: u32) -> bool {
        let mut seen = self.read(machine);
        for attempt in 0..=TRIES {
            if seen & LINKED == 0 {
                if attempt != 0 {
                    self.clear(machine, BUSY);
                }
                return false;
            }
            let linked = seen & !(BUSY | EVTCHN_FIFO_LINK_MASK) | port;
            match machine.compare_exchange_half(self.page, self.index, seen, linked) {
                Ok(_) => return true,
                Err(_) => seen = self.set(machine, BUSY) | BUSY,
            }
        }
        self.clear(machine, BUSY);
        true
    }
}

#[cold]
fn no_memory(_: alloc::collections::TryReserveError) -> Refusal {
    Refusal::errno(Errno::NoMem, rules::evtchn::NO_MEMORY).with(Evidence::None)
}
