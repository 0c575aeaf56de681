//! A guest's addresses: through its own page tables, as the CPU would walk them, then through the physical map.
//!
//! The guest changes its tables and its memory while they are read: each entry is read once, marked accessed by an exchange
//! of exactly what was read, and the physical map is locked meanwhile, so that each frame stays the guest's. Addresses in
//! hypercalls are used as its kernel would use them; those of instructions as whoever executes them. Source: AMD APM 2 §5.3.

use pv_abi::Mfn;
use spin::MutexGuard;

use super::physmap::PhysMap;
use super::vmcb::{EFER_LMA, Vmcb};
use crate::Hypervisor;
use crate::decode::LONGEST;
use crate::domain::{Domain, Running};
use crate::frames;
use crate::hardware::{GuestFault, Machine};
use crate::traps::is_canonical;

const CR0_PG: u64 = 1 << 31;
const CR0_WP: u64 = 1 << 16;
const CR4_LA57: u64 = 1 << 12;
const PRESENT: u64 = 1;
const WRITABLE: u64 = 1 << 1;
const USER: u64 = 1 << 2;
const ACCESSED: u64 = 1 << 5;
const DIRTY: u64 = 1 << 6;
const LARGE: u64 = 1 << 7;
const FRAME: u64 = 0x000f_ffff_ffff_f000;

/// Why an address leads nowhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Miss {
    /// The CPU would raise a page fault, with this address and error code.
    Fault(u64, u32),
    /// The tables are of another kind than four levels.
    Mode,
    /// The tables lead to a guest frame that has no memory.
    Nothing(u64),
}

/// How an address is used.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct How {
    pub(super) write: bool,
    /// By a program, which reaches only its own pages.
    pub(super) user: bool,
}

/// A frame of a domain that stays what it is while this exists.
pub(super) struct Held<'a, M: Machine> {
    hv: &'a Hypervisor<M>,
    pub(super) mfn: Mfn,
}

impl<M: Machine> Drop for Held<'_, M> {
    fn drop(&mut self) {
        frames::put(self.hv, self.mfn);
    }
}

/// Holds the frame behind a guest frame.
pub(super) fn hold<'a, M: Machine>(hv: &'a Hypervisor<M>, domain: &Domain, guest_frame: u64) -> Option<Held<'a, M>> {
    let hvm = domain.hvm.as_ref()?;
    let mfn = hvm.map.lock().find(&hv.machine, guest_frame)?;
    frames::try_get(hv, mfn.into(), domain.id).then_some(Held { hv, mfn })
}

/// A domain's memory while nothing is put into it or taken out: what the map leads to stays the domain's.
struct View<'a, M: Machine> {
    hv: &'a Hypervisor<M>,
    map: MutexGuard<'a, PhysMap>,
}

impl<'a, M: Machine> View<'a, M> {
    fn of(hv: &'a Hypervisor<M>, domain: &'a Domain) -> Option<Self> {
        domain.hvm.as_ref().map(|hvm| Self { hv, map: hvm.map.lock() })
    }

    fn frame(&self, guest_frame: u64) -> Option<Mfn> {
        self.map.find(&self.hv.machine, guest_frame)
    }

    /// Where an address of the guest lies in its memory.
    ///
    /// # Errors
    /// Where the tables do not lead anywhere, or not for this use; also in a paging mode other than four levels.
    fn translate(&self, block: &Vmcb, address: u64, how: How) -> Result<u64, Miss> {
        let How { write, user } = how;
        let fault = |present: bool| {
            let code = u32::from(present) | u32::from(write) << 1 | u32::from(user) << 2;
            Err(Miss::Fault(address, code))
        };
        if block.cr0 & CR0_PG == 0 {
            return Ok(address & 0xffff_ffff);
        }
        if block.efer & EFER_LMA == 0 || block.cr4 & CR4_LA57 != 0 {
            return Err(Miss::Mode);
        }
        if !is_canonical(address) {
            return fault(false);
        }
        let needs_writable = write && (user || block.cr0 & CR0_WP != 0);
        let mut table = (block.cr3 & FRAME) >> 12;
        for level in (1..=4_u32).rev() {
            let frame = self.frame(table).ok_or(Miss::Nothing(table))?;
            let shift = 12 + 9 * (level - 1);
            let index = (address >> shift & 511) as usize;
            let is_leaf = |entry: u64| level == 1 || matches!(level, 2 | 3) && entry & LARGE != 0;
            let entry = loop {
                let entry = self.hv.machine.read_word(frame, index);
                if entry & PRESENT == 0 {
                    return fault(false);
                }
                if needs_writable && entry & WRITABLE == 0 || user && entry & USER == 0 {
                    return fault(true);
                }
                let marked = entry | ACCESSED | if write && is_leaf(entry) { DIRTY } else { 0 };
                let written = || self.hv.machine.compare_exchange_word(frame, index, entry, marked).is_ok();
                if marked == entry || written() {
                    break entry;
                }
            };
            if is_leaf(entry) {
                let within = (1 << shift) - 1;
                return Ok(entry & FRAME & !within | address & within);
            }
            table = (entry & FRAME) >> 12;
        }
        fault(false)
    }
}

/// Does `each` with the frame, the offset in it and the part of `0..len` for each piece of a range that lies in one frame.
fn pieces<M: Machine>(
    hv: &Hypervisor<M>,
    running: &Running,
    (address, len, how): (u64, usize, How),
    mut each: impl FnMut(Mfn, usize, core::ops::Range<usize>),
) -> Result<(), Miss> {
    let block = running.state.hvm.as_deref().ok_or(Miss::Mode)?;
    let view = View::of(hv, &running.vcpu.domain).ok_or(Miss::Mode)?;
    let mut done = 0;
    while done < len {
        let here = address.wrapping_add(done as u64);
        let physical = view.translate(block, here, how)?;
        let frame = view.frame(physical >> 12).ok_or(Miss::Nothing(physical >> 12))?;
        let offset = (physical & 0xfff) as usize;
        let count = (4096 - offset).min(len - done);
        each(frame, offset, done..done + count);
        done += count;
    }
    Ok(())
}

/// Where an address lies in the guest's memory, if there is memory behind it.
pub(super) fn physical<M: Machine>(hv: &Hypervisor<M>, running: &Running, at: u64, how: How) -> Result<u64, Miss> {
    let block = running.state.hvm.as_deref().ok_or(Miss::Mode)?;
    let view = View::of(hv, &running.vcpu.domain).ok_or(Miss::Mode)?;
    let physical = view.translate(block, at, how)?;
    view.frame(physical >> 12).map(|_| physical).ok_or(Miss::Nothing(physical >> 12))
}

/// Reads at most eight bytes as an instruction of the vCPU does.
pub(super) fn load<M: Machine>(
    hv: &Hypervisor<M>,
    running: &Running,
    (at, bytes): (u64, u8),
    user: bool,
) -> Result<u64, Miss> {
    let mut value = [0; 8];
    pieces(hv, running, (at, bytes.into(), How { write: false, user }), |mfn, offset, part| {
        hv.machine.read_bytes(mfn, offset, &mut value[part]);
    })?;
    Ok(u64::from_le_bytes(value))
}

/// Writes at most eight bytes so.
pub(super) fn store<M: Machine>(
    hv: &Hypervisor<M>,
    running: &Running,
    (at, bytes): (u64, u8),
    user: bool,
    value: u64,
) -> Result<(), Miss> {
    let value = value.to_le_bytes();
    pieces(hv, running, (at, bytes.into(), How { write: true, user }), |mfn, offset, part| {
        hv.machine.write_bytes(mfn, offset, &value[part]);
    })
}

/// The bytes of an instruction, as far as they can be read.
pub(super) struct Fetched {
    bytes: [u8; LONGEST],
    len: usize,
}

impl Fetched {
    /// Those that were read.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

/// Reads the instruction at an address, and what follows it.
pub(super) fn fetch<M: Machine>(hv: &Hypervisor<M>, running: &Running, address: u64) -> Fetched {
    let mut fetched = Fetched { bytes: [0; LONGEST], len: 0 };
    let first = LONGEST.min(4096 - (address & 0xfff) as usize);
    for part in [0..first, first..LONGEST] {
        let from = address.wrapping_add(part.start as u64);
        if copy_from(hv, running, from, &mut fetched.bytes[part.clone()]).is_err() {
            break;
        }
        fetched.len = part.end;
    }
    fetched
}

/// What a hypercall is told of an address that leads nowhere.
const fn at_fault(miss: Miss, first: u64) -> GuestFault {
    match miss {
        Miss::Fault(address, _) => GuestFault(address),
        Miss::Mode | Miss::Nothing(_) => GuestFault(first),
    }
}

/// Reads the memory of a vCPU with hardware assistance.
///
/// # Errors
/// The first address that could not be read.
#[cold]
pub fn copy_from<M: Machine>(
    hv: &Hypervisor<M>,
    running: &Running,
    from: u64,
    into: &mut [u8],
) -> Result<(), GuestFault> {
    let range = (from, into.len(), How::default());
    pieces(hv, running, range, |mfn, offset, part| hv.machine.read_bytes(mfn, offset, &mut into[part]))
        .map_err(|miss| at_fault(miss, from))
}

/// Writes the memory of a vCPU with hardware assistance.
///
/// # Errors
/// The first address that could not be written.
#[cold]
pub fn copy_to<M: Machine>(hv: &Hypervisor<M>, running: &Running, to: u64, from: &[u8]) -> Result<(), GuestFault> {
    let range = (to, from.len(), How { write: true, user: false });
    pieces(hv, running, range, |mfn, offset, part| hv.machine.write_bytes(mfn, offset, &from[part]))
        .map_err(|miss| at_fault(miss, to))
}
