//! From a slot a front end wrote to a job that is safe to do.
//!
//! A [`Job`] proves: its sectors are on the device and whole, its segments lie within their pages, and its operation
//! is one that was offered. What it does not prove is that the grants are good; using them says that.

use alloc::vec;
use alloc::vec::Vec;

use pv_bus::GrantRef;
use pv_bus::block::{
    Body, MAX_DIRECT_SEGMENTS, Request, SECTOR_BYTES, SECTORS_PER_PAGE, SEGMENT_BYTES, SEGMENTS_PER_INDIRECT_PAGE,
    Segment, op,
};
use pv_bus::refusal::Rule;

use super::connection::Ticket;
use super::device::Geometry;
use super::rules;

/// Something to do for a front end.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Job {
    pub(super) ticket: Ticket,
    /// The front's number for it.
    pub(super) id: u64,
    pub(super) work: Work,
    pub(super) sector: u64,
    pub(super) pieces: Vec<Piece>,
    pub(super) len_bytes: usize,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Work {
    Read,
    Write,
    /// Everything before is done and durable before this is, and this is durable before anything after starts.
    Barrier,
    Flush,
    Discard {
        sectors: u64,
        secure: bool,
    },
}

/// Bytes within one granted page.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Piece {
    pub(super) grant: GrantRef,
    pub(super) offset: usize,
    pub(super) len_bytes: usize,
}

/// A request that is not done, and why.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Refused {
    pub(super) rule: Rule,
    /// The number that broke the rule.
    pub(super) value: u64,
}

/// What a request is checked against.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    pub(super) geometry: Geometry,
    pub(super) max_indirect_segments: usize,
}

/// The pages of segments of an indirect request.
pub(super) struct Descriptors {
    pub(super) pages: Vec<Piece>,
    /// What was in them, once they were read.
    pub(super) bytes: Vec<u8>,
}

impl Descriptors {
    /// What is to be read before this request can be checked; none if it needs nothing or is to be refused.
    pub(super) fn of(limits: &Limits, request: &Request) -> Option<Self> {
        let Body::Indirect { count, pages, .. } = &request.body else {
            return None;
        };
        let count = Some(usize::from(*count)).filter(|count| *count <= limits.max_indirect_segments)?;
        let bytes = vec![0; count * SEGMENT_BYTES];
        let lengths = bytes.chunks(SEGMENTS_PER_INDIRECT_PAGE * SEGMENT_BYTES).map(<[u8]>::len);
        let pages = pages.iter().zip(lengths).map(|(grant, len_bytes)| Piece { grant: *grant, offset: 0, len_bytes });
        Some(Self { pages: pages.collect(), bytes })
    }
}

/// Checks a request. With an indirect one come its segments, or the page of them that could not be read.
pub(super) fn check(
    limits: &Limits,
    ticket: Ticket,
    request: &Request,
    described: Option<Result<Vec<u8>, GrantRef>>,
) -> Result<Job, Refused> {
    let refuse = |rule, value| Err(Refused { rule, value });
    match &request.body {
        Body::Discard { flag, sectors } => check_discard(limits, ticket, request, *flag, *sectors),
        Body::Indirect { operation, count, .. } => {
            if !matches!(*operation, op::READ | op::WRITE) {
                return refuse(rules::INDIRECT_OPERATION, u64::from(*operation));
            }
            match described {
                Some(Ok(bytes)) if !bytes.is_empty() => {
                    let (segments, _) = bytes.as_chunks::<SEGMENT_BYTES>();
                    let segments: Vec<_> = segments.iter().map(Segment::decode).collect();
                    check_data(limits, ticket, request, *operation, &segments)
                }
                Some(Err(grant)) => refuse(rules::INDIRECT_GRANT, u64::from(grant.0)),
                _ => refuse(rules::SEGMENT_COUNT, u64::from(*count)),
            }
        }
        Body::Direct { operation, count, segments } => {
            if !matches!(*operation, op::READ | op::WRITE | op::WRITE_BARRIER | op::FLUSH) {
                return refuse(rules::OPERATION_UNKNOWN, u64::from(*operation));
            }
            let may_be_empty = matches!(*operation, op::WRITE_BARRIER | op::FLUSH);
            let count = usize::from(*count);
            if count > MAX_DIRECT_SEGMENTS || (count == 0 && !may_be_empty) {
                return refuse(rules::SEGMENT_COUNT, count as u64);
            }
            check_data(limits, ticket, request, *operation, &segments[..count])
        }
    }
}

fn check_data(
    limits: &Limits,
    ticket: Ticket,
    request: &Request,
    operation: u8,
    segments: &[Segment],
) -> Result<Job, Refused> {
    let refuse = |rule, value| Refused { rule, value };
    let mut pieces = Vec::with_capacity(segments.len());
    for segment in segments {
        pieces.push(check_segment(segment).map_err(|(rule, value)| refuse(rule, value))?);
    }
    let len_bytes: usize = pieces.iter().map(|piece| piece.len_bytes).sum();
    let work = match operation {
        op::READ => Work::Read,
        op::WRITE => Work::Write,
        op::FLUSH if pieces.is_empty() => Work::Flush,
        _ => Work::Barrier,
    };
    if work != Work::Read && work != Work::Flush && limits.geometry.read_only {
        return Err(refuse(rules::WRITE_READ_ONLY, request.sector));
    }
    if work != Work::Read && work != Work::Write && !limits.geometry.can_flush {
        return Err(refuse(rules::OPERATION_NOT_OFFERED, u64::from(operation)));
    }
    if !pieces.is_empty() {
        check_sectors(limits, request.sector, (len_bytes / SECTOR_BYTES) as u64)
            .map_err(|(rule, value)| refuse(rule, value))?;
    }
    Ok(Job { ticket, id: request.id, work, sector: request.sector, pieces, len_bytes })
}

fn check_segment(segment: &Segment) -> Result<Piece, (Rule, u64)> {
    if segment.last >= SECTORS_PER_PAGE {
        return Err((rules::SEGMENT_LAST, u64::from(segment.last)));
    }
    if segment.first > segment.last {
        return Err((rules::SEGMENT_BACKWARDS, u64::from(segment.first)));
    }
    let sectors = usize::from(segment.last - segment.first) + 1;
    let offset = usize::from(segment.first) * SECTOR_BYTES;
    Ok(Piece { grant: segment.grant, offset, len_bytes: sectors * SECTOR_BYTES })
}

fn check_sectors(limits: &Limits, sector: u64, sectors: u64) -> Result<(), (Rule, u64)> {
    let end = sector.checked_add(sectors);
    if end.is_none_or(|end| end > limits.geometry.sectors) {
        return Err((rules::SECTOR_RANGE, sector));
    }
    let unit = u64::from(limits.geometry.sector_size_bytes) / SECTOR_BYTES as u64;
    if !sector.is_multiple_of(unit.max(1)) || !sectors.is_multiple_of(unit.max(1)) {
        return Err((rules::SECTOR_ALIGNMENT, sector));
    }
    Ok(())
}

fn check_discard(limits: &Limits, ticket: Ticket, request: &Request, flag: u8, sectors: u64) -> Result<Job, Refused> {
    let refuse = |(rule, value)| Refused { rule, value };
    let Some(support) = limits.geometry.discard else {
        return Err(refuse((rules::OPERATION_NOT_OFFERED, u64::from(op::DISCARD))));
    };
    if limits.geometry.read_only {
        return Err(refuse((rules::WRITE_READ_ONLY, request.sector)));
    }
    check_sectors(limits, request.sector, sectors).map_err(refuse)?;
    let secure = flag & pv_bus::block::DISCARD_SECURE != 0 && support.secure;
    let work = Work::Discard { sectors, secure };
    Ok(Job { ticket, id: request.id, work, sector: request.sector, pieces: Vec::new(), len_bytes: 0 })
}

impl Refused {
    /// What the response says: an operation nobody offered is not supported, anything else is an error.
    pub(super) fn status(&self) -> i16 {
        let unsupported = [rules::OPERATION_UNKNOWN, rules::OPERATION_NOT_OFFERED];
        if unsupported.contains(&self.rule) {
            pv_bus::block::status::NOT_SUPPORTED
        } else {
            pv_bus::block::status::ERROR
        }
    }
}
