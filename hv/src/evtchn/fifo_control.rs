//! Going over to the FIFO ABI, growing its array, and going back.

use pv_abi::Mfn;
use pv_abi::errno::Errno;
use pv_abi::event_channel::{
    EVTCHN_FIFO_LINK_BITS, EVTCHN_FIFO_NR_CHANNELS, EVTCHN_FIFO_PRIORITY_MIN, EvtchnFifoControlBlock,
    EvtchnInitControl, EvtchnSetPriority,
};

use super::bind::existing_vcpu;
use super::deliver::{PENDING, make_pending};
use super::fifo::WORDS;
use super::table::{EventChannels, MAX_PORTS, State};
use crate::Hypervisor;
use crate::domain::Domain;
use crate::frames::{self, PageType};
use crate::hardware::Machine;
use crate::hvm;
use crate::refusal::{Evidence, Refusal};
use crate::rules::evtchn as rule;

/// Pages of the event array.
const MOST_PAGES: usize = EVTCHN_FIFO_NR_CHANNELS as usize / WORDS;

/// `EVTCHNOP_init_control`: gives a vCPU its control block. The first one takes the domain over to the FIFO ABI, with
/// the ports it has; what of them is pending stays so.
///
/// # Errors
/// `ENOENT` where there is no such vCPU; `EINVAL` for an offset that is no multiple of 8 or too near the frame's end,
/// for a frame that is not the domain's to write, and where the vCPU has a control block; `ENOMEM`.
pub fn init_control<M: Machine>(
    hv: &Hypervisor<M>,
    domain: &Domain,
    request: &mut EvtchnInitControl,
) -> Result<(), Refusal> {
    existing_vcpu(domain, request.vcpu)?;
    let offset = request.offset as usize;
    if offset > 4096 - size_of::<EvtchnFifoControlBlock>() || !offset.is_multiple_of(8) {
        return Err(Refusal::errno(Errno::Inval, rule::CONTROL_PLACE).with(Evidence::Value(offset as u64)));
    }
    let frame = take_page(hv, domain, request.control_gfn)?;
    add_control(hv, domain, request.vcpu, (frame, offset)).inspect_err(|_| frames::put_typed(hv, frame))?;
    request.link_bits = EVTCHN_FIFO_LINK_BITS as u8;
    Ok(())
}

fn add_control<M: Machine>(hv: &Hypervisor<M>, domain: &Domain, vcpu: u32, place: (Mfn, usize)) -> Result<(), Refusal> {
    let mut events = domain.events.lock();
    let is_on = domain.fifo.is_on();
    let mut queues = domain.fifo.new_queues();
    queues.open(0, events.size())?;
    if !queues.add_control(vcpu, place)? {
        return Err(Refusal::errno(Errno::Inval, rule::CONTROL_TWICE).with(Evidence::Value(vcpu.into())));
    }
    drop(queues);
    if !is_on {
        events.use_fifo();
        domain.fifo.turn_on();
        keep_pending(hv, domain, &events);
    }
    Ok(())
}

/// What was pending in the bitmap is pending in the FIFO ABI.
fn keep_pending<M: Machine>(hv: &Hypervisor<M>, domain: &Domain, events: &EventChannels) {
    for port in 1..events.size().min(MAX_PORTS) {
        let bits = hv.machine.read_word(domain.shared_info, PENDING + port as usize / 64);
        if let Some(channel) = events.get(port)
            && bits >> (port % 64) & 1 != 0
            && !matches!(channel.state, State::Free)
        {
            make_pending(hv, domain, channel.vcpu, port);
        }
    }
}

/// `EVTCHNOP_expand_array`: adds a page to the event array; what was pending without a word is delivered.
///
/// # Errors
/// `EOPNOTSUPP` before `init_control`; `ENOSPC` for more pages than the ABI has; `EINVAL` for a frame that is not the
/// domain's to write; `ENOMEM`.
pub fn expand_array<M: Machine>(hv: &Hypervisor<M>, domain: &Domain, frame: u64) -> Result<(), Refusal> {
    if !domain.fifo.is_on() {
        return Err(Refusal::errno(Errno::OpNotSupp, rule::NO_CONTROL));
    }
    let frame = take_page(hv, domain, frame)?;
    let events = domain.events.lock();
    let first = match add_page(domain, frame) {
        Ok(first) => first,
        Err(refusal) => {
            drop(events);
            frames::put_typed(hv, frame);
            return Err(refusal);
        }
    };
    for port in first..(first + WORDS as u32).min(events.size()) {
        let is_early = domain.fifo.queues().is_some_and(|mut queues| queues.take_early(port));
        if is_early && let Some(channel) = events.get(port) {
            make_pending(hv, domain, channel.vcpu, port);
        }
    }
    Ok(())
}

/// Adds a page to the array; gives the first port whose word is in it.
fn add_page(domain: &Domain, frame: Mfn) -> Result<u32, Refusal> {
    let Some(mut queues) = domain.fifo.queues() else {
        return Err(Refusal::errno(Errno::OpNotSupp, rule::NO_CONTROL));
    };
    let pages = queues.array_len();
    if pages >= MOST_PAGES {
        let evidence = Evidence::Limit { asked: pages as u64 + 1, limit: MOST_PAGES as u64 };
        return Err(Refusal::errno(Errno::NoSpc, rule::ARRAY_FULL).with(evidence));
    }
    queues.add_page(frame)?;
    Ok((pages * WORDS) as u32)
}

/// `EVTCHNOP_set_priority`: chooses the queue of a port's next events.
///
/// # Errors
/// `EINVAL` where there is no such port or priority; `ENOSYS` in the 2-level ABI.
pub fn set_priority(domain: &Domain, request: &EvtchnSetPriority) -> Result<(), Refusal> {
    let events = domain.events.lock();
    events.channel(request.port)?;
    let Some(mut queues) = domain.fifo.queues() else {
        return Err(Refusal::errno(Errno::NoSys, rule::NO_PRIORITIES));
    };
    if request.priority > EVTCHN_FIFO_PRIORITY_MIN {
        let evidence = Evidence::Limit { asked: request.priority.into(), limit: EVTCHN_FIFO_PRIORITY_MIN.into() };
        return Err(Refusal::errno(Errno::Inval, rule::PRIORITY_RANGE).with(evidence));
    }
    queues.set_priority(request.port, request.priority as u8);
    Ok(())
}

/// Goes back to the 2-level ABI, once all ports are closed, and gives the pages back.
///
/// # Errors
/// `EAGAIN` where a port was opened meanwhile.
pub(super) fn leave<M: Machine>(hv: &Hypervisor<M>, domain: &Domain) -> Result<(), Refusal> {
    let left = {
        let mut events = domain.events.lock();
        if !domain.fifo.is_on() {
            return Ok(());
        }
        if !events.use_two_levels() {
            return Err(Refusal::errno(Errno::Again, rule::OPENED_AGAIN));
        }
        domain.fifo.turn_off()
    };
    left.pages().for_each(|mfn| frames::put_typed(hv, mfn));
    Ok(())
}

/// Takes references on a page of the domain that the hypervisor will write.
fn take_page<M: Machine>(hv: &Hypervisor<M>, domain: &Domain, frame: u64) -> Result<Mfn, Refusal> {
    frames::get_typed(hv, hvm::named(hv, domain, frame), domain.id, PageType::Writable)
        .map_err(|refusal| Refusal::errno(Errno::Inval, rule::FIFO_FRAME).with(refusal.evidence))
}
