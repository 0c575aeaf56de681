//! Servers of I/O requests: device models of a guest in other domains.
//!
//! A server has ranges of ports, addresses or configuration spaces. Where the guest uses one, its vCPU's place in the
//! server's page of requests is filled in, the vCPU waits ([`stopped::ASKING`]), and the server's port for it is notified.
//! The answer comes to the same place and by the same port; the vCPU then goes on.
//!
//! - a vCPU waits for one answer at most, of a server that there is: a server that ends lets those that wait go on;
//! - the page is written by the server's domain too: of it, only the state and the data of an answer are believed, and they
//!   are the guest's trouble alone.
//!
//! Lock order: the servers of a domain before its event channels.
//!
//! Source: Xen: public/hvm/dm_op.h, public/hvm/ioreq.h, public/memory.h (`XENMEM_resource_ioreq_server`).

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::sync::atomic::Ordering;

use pv_abi::errno::Errno;
use pv_abi::hvm::ioreq::{Ioreq, STATE_IOREQ_INPROCESS, STATE_IOREQ_NONE, STATE_IOREQ_READY};
use pv_abi::{DomId, Mfn};
use zerocopy::{FromZeros, IntoBytes};

use super::HvmDomain;
use crate::Hypervisor;
use crate::domain::{Domain, Vcpu, stopped, work};
use crate::evtchn::own;
use crate::frames;
use crate::hardware::Machine;
use crate::refusal::{Evidence, Refusal};
use crate::rules::hvm as rule;
use crate::sched;

/// Servers of a domain at most.
const SERVERS: usize = 8;
/// Ranges of a kind at most.
const RANGES: usize = 256;
/// Frames of a server: buffered requests, and requests.
pub(crate) const FRAMES: u32 = 2;
/// Words of a request.
const WORDS: usize = size_of::<Ioreq>() / 8;

/// A range, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Range {
    pub(super) first: u64,
    pub(super) last: u64,
}

impl Range {
    const fn contains(&self, other: &Self) -> bool {
        self.first <= other.first && other.last <= self.last
    }

    const fn overlaps(&self, other: &Self) -> bool {
        self.first <= other.last && other.first <= self.last
    }
}

/// What ranges are of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Ports = 0,
    Memory = 1,
    Configuration = 2,
}

/// A server.
#[derive(Debug)]
pub(crate) struct Server {
    owner: DomId,
    enabled: bool,
    ranges: [Vec<Range>; 3],
    requests: Mfn,
    /// The page and the port of buffered requests, which nothing here makes.
    buffered: Option<(Mfn, u32)>,
    /// The port of each vCPU.
    ports: Vec<u32>,
}

/// A domain's servers, by their numbers.
#[derive(Debug, Default)]
pub(crate) struct Servers {
    list: [Option<Box<Server>>; SERVERS],
}

#[cold]
fn no_server(id: u32) -> Refusal {
    Refusal::errno(Errno::NoEnt, rule::NO_SERVER).with(Evidence::Value(id.into()))
}

impl Servers {
    /// A server of the domain that asks.
    fn of(&mut self, caller: DomId, id: u32) -> Result<&mut Server, Refusal> {
        let server = self.list.get_mut(id as usize).and_then(Option::as_deref_mut).ok_or_else(|| no_server(id))?;
        if server.owner != caller {
            return Err(Refusal::errno(Errno::Perm, rule::SERVER_NOT_YOURS).with(Evidence::Value(id.into())));
        }
        Ok(server)
    }

    /// The server that has all of a range, if one is switched on.
    pub(super) fn find(&self, kind: Kind, range: Range) -> Option<u16> {
        let has =
            |server: &Server| server.enabled && server.ranges[kind as usize].iter().any(|own| own.contains(&range));
        let found = self.list.iter().position(|server| server.as_deref().is_some_and(has))?;
        u16::try_from(found).ok()
    }
}

/// Makes a server; its number.
///
/// # Errors
/// `ENOSPC`, `ENOMEM`.
pub(super) fn create<M: Machine>(
    hv: &Hypervisor<M>,
    domain: &Domain,
    hvm: &HvmDomain,
    owner: DomId,
    buffered: bool,
) -> Result<u16, Refusal> {
    let mut servers = hvm.servers.lock();
    let full = || Refusal::errno(Errno::NoSpc, rule::SERVER_COUNT).with(Evidence::Value(SERVERS as u64));
    let id = servers.list.iter().position(Option::is_none).ok_or_else(full)?;
    let page = || {
        let no_memory = || Refusal::errno(Errno::NoMem, rule::SERVER_MEMORY);
        frames::allocate_shared(hv, domain).ok_or_else(no_memory)
    };
    let mut server = Server {
        owner,
        enabled: false,
        ranges: Default::default(),
        requests: page()?,
        buffered: None,
        ports: Vec::new(),
    };
    let outcome = fill(hv, domain, &mut server, buffered, page);
    if outcome.is_err() {
        take_apart(hv, domain, server);
        return outcome.map(|()| 0);
    }
    servers.list[id] = Some(Box::new(server));
    Ok(id as u16)
}

fn fill<M: Machine>(
    hv: &Hypervisor<M>,
    domain: &Domain,
    server: &mut Server,
    buffered: bool,
    page: impl Fn() -> Result<Mfn, Refusal>,
) -> Result<(), Refusal> {
    if buffered {
        let page = page()?;
        let port = own::open(hv, domain, server.owner, 0).inspect_err(|_| frames::free_shared(hv, page))?;
        server.buffered = Some((page, port));
    }
    for vcpu in domain.vcpus.get().into_iter().flatten() {
        let port = own::open(hv, domain, server.owner, vcpu.id.0)?;
        server.ports.push(port);
        let request = Ioreq { vp_eport: port, ..Ioreq::default() };
        write(hv, server.requests, vcpu, &request);
    }
    Ok(())
}

fn take_apart<M: Machine>(hv: &Hypervisor<M>, domain: &Domain, server: Server) {
    server.ports.into_iter().chain(server.buffered.map(|(_, port)| port)).for_each(|port| own::end(hv, domain, port));
    [Some(server.requests), server.buffered.map(|(page, _)| page)]
        .into_iter()
        .flatten()
        .for_each(|page| frames::free_shared(hv, page));
}

/// Ends a server; what vCPUs asked it stays without an answer.
///
/// # Errors
/// `ENOENT`, `EPERM`.
pub(super) fn destroy<M: Machine>(
    hv: &Hypervisor<M>,
    domain: &Domain,
    hvm: &HvmDomain,
    caller: DomId,
    id: u16,
) -> Result<(), Refusal> {
    let mut servers = hvm.servers.lock();
    servers.of(caller, id.into())?;
    let server = servers.list[usize::from(id)].take();
    drop(servers);
    if let Some(server) = server {
        take_apart(hv, domain, *server);
    }
    domain.vcpus.get().into_iter().flatten().for_each(|vcpu| let_go_on(hv, vcpu));
    Ok(())
}

/// Ends all servers of a domain that is being taken apart.
pub(crate) fn end_all<M: Machine>(hv: &Hypervisor<M>, domain: &Domain) {
    let Some(hvm) = &domain.hvm else {
        return;
    };
    let servers = core::mem::take(&mut *hvm.servers.lock());
    servers.list.into_iter().flatten().for_each(|server| take_apart(hv, domain, *server));
}

/// Switches a server on or off.
///
/// # Errors
/// `ENOENT`, `EPERM`.
pub(super) fn enable(hvm: &HvmDomain, caller: DomId, id: u16, enabled: bool) -> Result<(), Refusal> {
    hvm.servers.lock().of(caller, id.into())?.enabled = enabled;
    Ok(())
}

/// Gives a server a range, or takes it.
///
/// # Errors
/// `ENOENT`, `EPERM`; `EEXIST`, `ENOSPC` for one that is given.
pub(super) fn set_range(
    hvm: &HvmDomain,
    caller: DomId,
    id: u16,
    kind: Kind,
    range: Range,
    give: bool,
) -> Result<(), Refusal> {
    let mut servers = hvm.servers.lock();
    let ranges = &mut servers.of(caller, id.into())?.ranges[kind as usize];
    let refuse = |errno| Err(Refusal::errno(errno, rule::RANGE).with(Evidence::Value(range.first)));
    if !give {
        let Some(at) = ranges.iter().position(|own| own.contains(&range)) else {
            return refuse(Errno::NoEnt);
        };
        let own = ranges.swap_remove(at);
        let before = range.first.checked_sub(1).map(|last| Range { first: own.first, last });
        let after = range.last.checked_add(1).map(|first| Range { first, last: own.last });
        ranges.extend(before.into_iter().chain(after).filter(|rest| rest.first <= rest.last));
        return Ok(());
    }
    if ranges.iter().any(|own| own.overlaps(&range)) {
        return refuse(Errno::Exist);
    }
    if ranges.len() >= RANGES || ranges.try_reserve(1).is_err() {
        return Err(Refusal::errno(Errno::NoSpc, rule::RANGE_COUNT).with(Evidence::Value(RANGES as u64)));
    }
    ranges.push(range);
    Ok(())
}

/// The port of a server's buffered requests.
///
/// # Errors
/// `ENOENT`, `EPERM`.
pub(super) fn buffered_port(hvm: &HvmDomain, caller: DomId, id: u16) -> Result<u32, Refusal> {
    Ok(hvm.servers.lock().of(caller, id.into())?.buffered.map_or(0, |(_, port)| port))
}

/// Whether a domain may have the frames of a server.
///
/// # Errors
/// `ENOENT`, `EPERM`.
pub(crate) fn check(domain: &Domain, caller: DomId, id: u32) -> Result<(), Refusal> {
    let hvm = domain.hvm.as_ref().ok_or_else(|| no_server(id))?;
    hvm.servers.lock().of(caller, id).map(drop)
}

/// A frame of a server, none beyond its last.
///
/// # Errors
/// `ENOENT` for that of buffered requests where there are none.
pub(crate) fn frame(domain: &Domain, id: u32, number: u32) -> Result<Option<Mfn>, Refusal> {
    let servers = domain.hvm.as_ref().map(|hvm| hvm.servers.lock());
    let server = servers.as_ref().and_then(|servers| servers.list.get(id as usize)?.as_deref());
    let server = server.ok_or_else(|| no_server(id))?;
    match number {
        0 => server.buffered.map(|(page, _)| Some(page)).ok_or_else(|| no_server(id)),
        1 => Ok(Some(server.requests)),
        _ => Ok(None),
    }
}

fn write<M: Machine>(hv: &Hypervisor<M>, page: Mfn, vcpu: &Vcpu, request: &Ioreq) {
    let (words, _) = request.as_bytes().as_chunks::<8>();
    for (at, word) in (vcpu.id.0 as usize * WORDS..).zip(words) {
        hv.machine.write_word(page, at, u64::from_ne_bytes(*word));
    }
}

fn read<M: Machine>(hv: &Hypervisor<M>, page: Mfn, vcpu: &Vcpu) -> Ioreq {
    let mut request = Ioreq::new_zeroed();
    let (words, _) = request.as_mut_bytes().as_chunks_mut::<8>();
    // The word with the state first: what comes before it in time is seen by the others.
    for (at, word) in words.iter_mut().enumerate().rev() {
        *word = hv.machine.read_word(page, vcpu.id.0 as usize * WORDS + at).to_ne_bytes();
    }
    request
}

/// Has a vCPU wait until a server has answered; false where the server is gone.
pub(super) fn ask<M: Machine>(hv: &Hypervisor<M>, hvm: &HvmDomain, vcpu: &Vcpu, id: u16, request: Ioreq) -> bool {
    let servers = hvm.servers.lock();
    let server = servers.list.get(usize::from(id)).and_then(Option::as_deref);
    let Some((server, port)) = server.and_then(|server| Some((server, *server.ports.get(vcpu.id.0 as usize)?))) else {
        return false;
    };
    vcpu.stopped.fetch_or(stopped::ASKING, Ordering::SeqCst);
    vcpu.raise(work::RESCHEDULE);
    // The words are written in order, the one with the state last.
    write(hv, server.requests, vcpu, &Ioreq { vp_eport: port, ..request }.with_state(STATE_IOREQ_READY));
    drop(servers);
    own::ask(hv, &vcpu.domain, port);
    true
}

/// The answer that a vCPU has of a server, taken out of its place; none where the server is gone.
pub(super) fn take_answer<M: Machine>(hv: &Hypervisor<M>, hvm: &HvmDomain, vcpu: &Vcpu, id: u16) -> Option<Ioreq> {
    let servers = hvm.servers.lock();
    let server = servers.list.get(usize::from(id)).and_then(Option::as_deref)?;
    let answer = read(hv, server.requests, vcpu);
    write(hv, server.requests, vcpu, &answer.with_state(STATE_IOREQ_NONE));
    Some(answer)
}

/// A server notifies a port of [`ask`]: the vCPU goes on, unless its request is not worked on or not done with.
pub(crate) fn on_answer<M: Machine>(hv: &Hypervisor<M>, domain: &Domain, port: u32) {
    let Some(hvm) = &domain.hvm else {
        return;
    };
    let servers = hvm.servers.lock();
    let of_port = |server: &Server| {
        let at = server.ports.iter().position(|own| *own == port)?;
        Some((server.requests, domain.vcpus.get()?.get(at)?))
    };
    let Some((page, vcpu)) = servers.list.iter().flatten().find_map(|server| of_port(server)) else {
        return;
    };
    let state = read(hv, page, vcpu).state();
    drop(servers);
    if !matches!(state, STATE_IOREQ_READY | STATE_IOREQ_INPROCESS) {
        let_go_on(hv, vcpu);
    }
}

fn let_go_on<M: Machine>(hv: &Hypervisor<M>, vcpu: &Vcpu) {
    if vcpu.stopped.fetch_and(!stopped::ASKING, Ordering::SeqCst) & stopped::ASKING != 0 {
        sched::wake(hv, vcpu);
    }
}
