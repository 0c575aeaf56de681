//! Physical interrupts and devices.
//!
//! A *line* is a global system interrupt, a *message* an MSI or MSI-X of a device, a *slot* the vector that a message
//! raises. A domain that was given an interrupt maps it to a number of its own, a *pirq*, and binds an event channel to
//! it. A level-triggered line is masked when it fires and stays so until every domain that got it has said that it is
//! done (`PHYSDEVOP_eoi`); edges and messages need no word.
//!
//! Invariants: a slot belongs to at most one pirq; a line that nobody has bound is masked; the table's lock is not held
//! while an event channel is made pending. Source: Xen's `public/physdev.h`, `public/event_channel.h`.

mod message;
mod operations;
#[cfg(test)]
mod tests;

use alloc::sync::Arc;
use alloc::vec::Vec;

use pv_abi::errno::Errno;
use pv_abi::{DomId, Mfn};
use spin::Mutex;

pub use operations::physdev_op;

use self::message::Message;
use super::pci::Function;
use crate::domain::Domain;
use crate::hardware::{LineMode, Machine};
use crate::refusal::{Evidence, Refusal};
use crate::rules::physdev as rule;
use crate::{Hypervisor, evtchn, frames};

/// Numbers a domain's pirqs are taken from.
pub(crate) const PIRQS: u32 = 256;
/// Vectors for messages, at most.
const SLOTS: u32 = 128;
/// Lines that are the old interrupt controllers' and edge-triggered if nobody said otherwise.
const LEGACY_LINES: u32 = 16;

/// Physical interrupts and who they go to.
#[derive(Default)]
pub struct Interrupts {
    table: Mutex<Table>,
    /// Held while an index and a data port are used together.
    pub(crate) shared_ports: Mutex<()>,
}

#[derive(Default)]
struct Table {
    pirqs: Vec<Pirq>,
    /// Lines whose wiring was set.
    lines: Vec<Line>,
    /// Numbers that were handed out but not yet mapped.
    reserved: Vec<(DomId, u32)>,
    eoi_maps: Vec<EoiMap>,
}

/// A line whose wiring was set.
#[derive(Clone, Copy, Debug)]
struct Line {
    gsi: u32,
    mode: LineMode,
    /// The hypervisor uses it itself, for its console: no domain can.
    own: bool,
}

/// An interrupt that a domain mapped.
#[derive(Clone, Copy, Debug)]
struct Pirq {
    domain: DomId,
    number: u32,
    source: Source,
    bound: Option<Bound>,
}

/// The port that an interrupt is bound to.
#[derive(Clone, Copy, Debug)]
struct Bound {
    port: u32,
    shares: bool,
    /// It fired and the domain has not said that it is done.
    in_service: bool,
}

/// What raises an interrupt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Source {
    Line { gsi: u32, level: bool },
    Message { slot: u32, message: Message },
}

/// The page in which a domain reads which of its interrupts need an EOI.
struct EoiMap {
    domain: DomId,
    frame: Mfn,
    /// An EOI unmasks the event channel as well.
    unmasks: bool,
}

impl Table {
    fn find(&self, domain: DomId, number: u32) -> Option<&Pirq> {
        self.pirqs.iter().find(|pirq| pirq.domain == domain && pirq.number == number)
    }

    fn find_mut(&mut self, domain: DomId, number: u32) -> Option<&mut Pirq> {
        self.pirqs.iter_mut().find(|pirq| pirq.domain == domain && pirq.number == number)
    }

    /// How a line is wired: as was said, or as is usual.
    fn mode(&self, gsi: u32) -> LineMode {
        let usual = LineMode { level: gsi >= LEGACY_LINES, low: gsi >= LEGACY_LINES };
        self.lines.iter().find(|line| line.gsi == gsi).map_or(usual, |line| line.mode)
    }

    /// Routes a line, unless it is already.
    fn route<M: Machine>(&mut self, hv: &Hypervisor<M>, gsi: u32, mode: LineMode) -> Result<(), Refusal> {
        if self.lines.iter().any(|line| line.gsi == gsi) {
            return Ok(());
        }
        if gsi >= hv.machine.line_count() {
            return Err(no_such_line(hv, gsi));
        }
        let own = !hv.machine.route_line(gsi, mode);
        self.lines.push(Line { gsi, mode, own });
        Ok(())
    }

    /// Whether a domain has yet to say that it is done with this line.
    fn in_service(&self, wanted: u32) -> bool {
        self.pirqs.iter().any(|pirq| {
            matches!(pirq.source, Source::Line { gsi, .. } if gsi == wanted)
                && pirq.bound.is_some_and(|bound| bound.in_service)
        })
    }

    /// Whether a number is free for a domain.
    fn is_free(&self, domain: DomId, number: u32) -> bool {
        self.find(domain, number).is_none() && !self.reserved.contains(&(domain, number))
    }

    /// Writes for the domain to read whether an interrupt of its needs an EOI.
    fn publish<M: Machine>(&self, hv: &Hypervisor<M>, domain: DomId, number: u32, needs_eoi: bool) {
        let Some(map) = self.eoi_maps.iter().find(|map| map.domain == domain) else {
            return;
        };
        let (word, bit) = (number as usize / 64, 1 << (number % 64));
        if needs_eoi {
            hv.machine.fetch_or_word(map.frame, word, bit);
        } else {
            hv.machine.fetch_and_word(map.frame, word, !bit);
        }
    }
}

#[cold]
fn no_such_line<M: Machine>(hv: &Hypervisor<M>, gsi: u32) -> Refusal {
    let limit = u64::from(hv.machine.line_count()).saturating_sub(1);
    Refusal::errno(Errno::Inval, rule::NO_SUCH_LINE).with(Evidence::Limit { asked: gsi.into(), limit })
}

#[cold]
fn no_such_pirq(number: u32) -> Refusal {
    Refusal::errno(Errno::Inval, rule::NO_SUCH_PIRQ).with(Evidence::Value(number.into()))
}

/// An interrupt to bind is one that there could be, and was not mapped.
#[cold]
fn not_mapped(number: u32) -> Refusal {
    if number < PIRQS {
        return Refusal::errno(Errno::Perm, rule::PIRQ_NOT_PERMITTED).with(Evidence::Value(number.into()));
    }
    no_such_pirq(number)
}

/// A routed interrupt line fired.
pub fn on_line<M: Machine>(hv: &Hypervisor<M>, gsi: u32) {
    let mut due = Due::default();
    {
        let mut table = hv.interrupts.table.lock();
        if table.mode(gsi).level {
            hv.machine.mask_line(gsi, true);
        }
        for pirq in &mut table.pirqs {
            if let (Source::Line { gsi: line, level }, Some(bound)) = (pirq.source, &mut pirq.bound)
                && line == gsi
            {
                bound.in_service = level;
                due.add(pirq.domain, bound.port);
            }
        }
    }
    due.deliver(hv);
}

/// A message-signalled interrupt arrived.
pub fn on_message<M: Machine>(hv: &Hypervisor<M>, slot: u32) {
    let mut due = Due::default();
    for pirq in &hv.interrupts.table.lock().pirqs {
        if let (Source::Message { slot: raised, .. }, Some(bound)) = (pirq.source, pirq.bound)
            && raised == slot
        {
            due.add(pirq.domain, bound.port);
        }
    }
    due.deliver(hv);
}

/// Ports to make pending when the table's lock is free again.
#[derive(Default)]
struct Due(arrayvec::ArrayVec<(DomId, u32), 8>);

impl Due {
    fn add(&mut self, domain: DomId, port: u32) {
        let _ = self.0.try_push((domain, port));
    }

    fn deliver<M: Machine>(self, hv: &Hypervisor<M>) {
        for (domain, port) in self.0 {
            if let Some(domain) = hv.domains.get(domain) {
                evtchn::set_pending(hv, &domain, port);
            }
        }
    }
}

/// Binds a physical interrupt of a domain to one of its ports, and lets it come.
///
/// # Errors
/// `EINVAL` where there is no such interrupt, `EPERM` where it is not mapped or was taken from the domain, `EEXIST` where it is bound, `EBUSY` where
/// it is a line of another domain and one of the two does not share, or of the hypervisor.
pub fn bind<M: Machine>(
    hv: &Hypervisor<M>,
    domain: &Domain,
    number: u32,
    port: u32,
    shares: bool,
) -> Result<(), Refusal> {
    let mut table = hv.interrupts.table.lock();
    let pirq = *table.find(domain.id, number).ok_or_else(|| not_mapped(number))?;
    if pirq.bound.is_some() {
        return Err(Refusal::errno(Errno::Exist, rule::PIRQ_BOUND).with(Evidence::Value(number.into())));
    }
    if let Source::Line { gsi, .. } = pirq.source {
        permitted(domain, gsi)?;
        share(&table, gsi, shares)?;
        let mode = table.mode(gsi);
        table.route(hv, gsi, mode)?;
        if table.lines.iter().any(|line| line.gsi == gsi && line.own) {
            return Err(Refusal::errno(Errno::Busy, rule::LINE_OF_CONSOLE).with(Evidence::Value(gsi.into())));
        }
    }
    if let Some(pirq) = table.find_mut(domain.id, number) {
        pirq.bound = Some(Bound { port, shares, in_service: false });
    }
    match pirq.source {
        Source::Line { gsi, level } => {
            table.publish(hv, domain.id, number, level);
            if !table.in_service(gsi) {
                hv.machine.mask_line(gsi, false);
            }
        }
        Source::Message { message, .. } => message.mask(hv, false),
    }
    Ok(())
}

fn permitted(domain: &Domain, gsi: u32) -> Result<(), Refusal> {
    if domain.permissions.lock().interrupts.contains(gsi.into(), gsi.into()) {
        Ok(())
    } else {
        Err(Refusal::errno(Errno::Perm, rule::PIRQ_NOT_PERMITTED).with(Evidence::Value(gsi.into())))
    }
}

fn share(table: &Table, line: u32, shares: bool) -> Result<(), Refusal> {
    let conflict = table.pirqs.iter().any(|other| {
        matches!(other.source, Source::Line { gsi, .. } if gsi == line)
            && other.bound.is_some_and(|bound| !(bound.shares && shares))
    });
    if conflict {
        return Err(Refusal::errno(Errno::Busy, rule::PIRQ_NOT_SHARED).with(Evidence::Value(line.into())));
    }
    Ok(())
}

/// The port of a physical interrupt was closed: it no longer comes.
pub fn unbind<M: Machine>(hv: &Hypervisor<M>, domain: &Domain, number: u32) {
    let mut table = hv.interrupts.table.lock();
    let Some(pirq) = table.find_mut(domain.id, number) else {
        return;
    };
    let source = pirq.source;
    if pirq.bound.take().is_some() {
        quiet(hv, &table, source);
        table.publish(hv, domain.id, number, false);
    }
}

/// Masks what raises an interrupt that was just unbound; a line goes on for those who share it.
fn quiet<M: Machine>(hv: &Hypervisor<M>, table: &Table, source: Source) {
    match source {
        Source::Message { message, .. } => message.mask(hv, true),
        Source::Line { gsi, .. } => {
            let others = table.pirqs.iter().any(|pirq| {
                matches!(pirq.source, Source::Line { gsi: line, .. } if line == gsi) && pirq.bound.is_some()
            });
            hv.machine.mask_line(gsi, !others || table.in_service(gsi));
        }
    }
}

/// The domain is done with an interrupt: a line that all are done with may come again.
///
/// # Errors
/// `EINVAL` where it is not mapped.
pub(crate) fn end<M: Machine>(hv: &Hypervisor<M>, domain: &Domain, number: u32) -> Result<(), Refusal> {
    let unmask = {
        let mut table = hv.interrupts.table.lock();
        let unmasks = table.eoi_maps.iter().any(|map| map.domain == domain.id && map.unmasks);
        let pirq = table.find_mut(domain.id, number).ok_or_else(|| no_such_pirq(number))?;
        let port = pirq.bound.map(|bound| bound.port);
        let was_in_service = pirq.bound.as_mut().is_some_and(|bound| core::mem::replace(&mut bound.in_service, false));
        if let Source::Line { gsi, .. } = pirq.source
            && was_in_service
            && !table.in_service(gsi)
        {
            hv.machine.mask_line(gsi, false);
        }
        port.filter(|_| unmasks)
    };
    if let Some(port) = unmask {
        let _ = evtchn::unmask(hv, domain, port);
    }
    Ok(())
}

/// Takes an interrupt from a domain, bound or not; of a line also the permission to have it.
///
/// # Errors
/// `EINVAL` where it is not mapped.
pub(crate) fn unmap<M: Machine>(hv: &Hypervisor<M>, domain: &Domain, number: u32) -> Result<(), Refusal> {
    let mut table = hv.interrupts.table.lock();
    let place = table
        .pirqs
        .iter()
        .position(|pirq| pirq.domain == domain.id && pirq.number == number)
        .ok_or_else(|| no_such_pirq(number))?;
    let pirq = table.pirqs.swap_remove(place);
    if let Source::Line { gsi, .. } = pirq.source {
        domain.permissions.lock().interrupts.remove(gsi.into(), gsi.into());
    }
    if pirq.bound.is_some() {
        quiet(hv, &table, pirq.source);
        table.publish(hv, domain.id, number, false);
    }
    if let Source::Message { message, .. } = pirq.source {
        message.mask(hv, true);
        if !sends_more(&table, message.function) {
            message.switch_off(hv);
        }
    }
    Ok(())
}

fn sends_more(table: &Table, function: Function) -> bool {
    table
        .pirqs
        .iter()
        .any(|pirq| matches!(pirq.source, Source::Message { message, .. } if message.function == function))
}

/// Takes all interrupts from a domain that is going away.
pub(crate) fn release_all<M: Machine>(hv: &Hypervisor<M>, domain: &Domain) {
    loop {
        let next =
            hv.interrupts.table.lock().pirqs.iter().find(|pirq| pirq.domain == domain.id).map(|pirq| pirq.number);
        match next {
            Some(number) => drop(unmap(hv, domain, number)),
            None => break,
        }
    }
    let mut table = hv.interrupts.table.lock();
    table.reserved.retain(|reserved| reserved.0 != domain.id);
    if let Some(place) = table.eoi_maps.iter().position(|map| map.domain == domain.id) {
        let map = table.eoi_maps.swap_remove(place);
        frames::put_typed(hv, map.frame);
    }
}

/// Maps a line to a number of the domain, the one asked for or the line's own, and lets the domain have it.
///
/// # Errors
/// `EINVAL` where the line or the number does not exist or the number is another interrupt's, `EPERM` where the caller
/// was not given the line, `ENOSPC` where no number is left.
fn map_line<M: Machine>(
    hv: &Hypervisor<M>,
    caller: &Domain,
    domain: &Arc<Domain>,
    gsi: u32,
    wanted: Option<u32>,
) -> Result<u32, Refusal> {
    if gsi >= hv.machine.line_count() {
        return Err(no_such_line(hv, gsi));
    }
    permitted(caller, gsi)?;
    let mut table = hv.interrupts.table.lock();
    let level = table.mode(gsi).level;
    let same =
        |pirq: &&Pirq| pirq.domain == domain.id && matches!(pirq.source, Source::Line { gsi: line, .. } if line == gsi);
    if let Some(pirq) = table.pirqs.iter().find(same)
        && wanted.is_none_or(|wanted| wanted == pirq.number)
    {
        return Ok(pirq.number);
    }
    let number = match wanted {
        Some(number) => usable(&table, domain.id, number)?,
        None if table.is_free(domain.id, gsi) => gsi,
        None => free_number(hv, &table, domain.id)?,
    };
    add(&mut table, domain.id, number, Source::Line { gsi, level });
    drop(table);
    domain.permissions.lock().interrupts.add(gsi.into(), gsi.into());
    Ok(number)
}

fn usable(table: &Table, domain: DomId, number: u32) -> Result<u32, Refusal> {
    if number >= PIRQS || table.find(domain, number).is_some() {
        return Err(Refusal::errno(Errno::Inval, rule::PIRQ_TAKEN).with(Evidence::Value(number.into())));
    }
    Ok(number)
}

fn add(table: &mut Table, domain: DomId, number: u32, source: Source) {
    table.reserved.retain(|reserved| *reserved != (domain, number));
    table.pirqs.push(Pirq { domain, number, source, bound: None });
}

/// A free number that is not a line's, the highest first.
fn free_number<M: Machine>(hv: &Hypervisor<M>, table: &Table, domain: DomId) -> Result<u32, Refusal> {
    (hv.machine.line_count().max(LEGACY_LINES)..PIRQS)
        .rev()
        .find(|number| table.is_free(domain, *number))
        .ok_or_else(|| Refusal::errno(Errno::NoSpc, rule::NO_FREE_PIRQ))
}

/// Maps a message of a device to a number of the domain and writes it into the device.
///
/// # Errors
/// Those of finding the message; `EEXIST` where it is mapped, `EINVAL` where the number is another interrupt's, `ENOSPC`
/// without a number or a vector.
fn map_message<M: Machine>(
    hv: &Hypervisor<M>,
    domain: &Arc<Domain>,
    message: Message,
    wanted: Option<u32>,
) -> Result<u32, Refusal> {
    let mut table = hv.interrupts.table.lock();
    let known = |pirq: &Pirq| matches!(pirq.source, Source::Message { message: mapped, .. } if mapped == message);
    if table.pirqs.iter().any(known) {
        return Err(Refusal::errno(Errno::Exist, rule::MESSAGE_TAKEN));
    }
    let number = match wanted {
        Some(number) => usable(&table, domain.id, number)?,
        None => free_number(hv, &table, domain.id)?,
    };
    let used = |slot: u32| {
        table.pirqs.iter().any(|pirq| matches!(pirq.source, Source::Message { slot: taken, .. } if taken == slot))
    };
    let slot = (0..SLOTS).find(|slot| !used(*slot)).ok_or_else(no_vector)?;
    let (address, data) = hv.machine.route_message(slot).ok_or_else(no_vector)?;
    message.write(hv, address, data);
    add(&mut table, domain.id, number, Source::Message { slot, message });
    Ok(number)
}

#[cold]
fn no_vector() -> Refusal {
    Refusal::errno(Errno::NoSpc, rule::NO_FREE_PIRQ)
}

/// Writes the messages of a device into it again, after it was reset.
fn restore_messages<M: Machine>(hv: &Hypervisor<M>, function: Function) {
    let table = hv.interrupts.table.lock();
    for pirq in &table.pirqs {
        if let Source::Message { slot, message } = pirq.source
            && message.function == function
            && let Some((address, data)) = hv.machine.route_message(slot)
        {
            message.write(hv, address, data);
            message.mask(hv, pirq.bound.is_none());
        }
    }
}

/// Sets the wiring of a line, once.
///
/// # Errors
/// `EINVAL` for a line that there is not, `EEXIST` where it was set.
fn set_up_line<M: Machine>(hv: &Hypervisor<M>, gsi: u32, mode: LineMode) -> Result<(), Refusal> {
    let mut table = hv.interrupts.table.lock();
    if table.lines.iter().any(|line| line.gsi == gsi) {
        return Err(Refusal::errno(Errno::Exist, rule::LINE_SET_UP).with(Evidence::Value(gsi.into())));
    }
    table.route(hv, gsi, mode)?;
    for pirq in &mut table.pirqs {
        if let Source::Line { gsi: line, level } = &mut pirq.source
            && *line == gsi
        {
            *level = mode.level;
        }
    }
    Ok(())
}
