//! Descriptor tables: which descriptors a guest may have, and how it installs them.
//!
//! A guest's part of the global table is up to 14 of its own frames, each typed as a descriptor page, so that no
//! writable mapping of them exists and every change comes through [`update_descriptor`]. What may stand in one is
//! decided by [`crate::frames::check_descriptor`].
//! Source: Xen's `public/arch-x86/xen.h`; AMD APM 2 §4.7.

use pv_abi::arch::{FIRST_RESERVED_GDT_ENTRY, FLAT_KERNEL_CS};
use pv_abi::errno::Errno;
use pv_abi::{DomId, MachineAddr, Mfn};

use crate::Hypervisor;
use crate::call::Call;
use crate::domain::{Gdt, VcpuState};
use crate::frames::{self, ClaimedMfn, PageType};
use crate::hardware::Machine;
use crate::refusal::{Evidence, Refusal};
use crate::rules::{paging as paging_rule, traps as rule};

/// Descriptors in a frame.
const PER_FRAME: u32 = 512;
/// `set_gdt(frames*, entries)`.
///
/// # Errors
/// `EFAULT` for a bad pointer, `EINVAL` for too many entries or a frame that may not be a descriptor page.
pub fn set_gdt<M: Machine>(call: &mut Call<'_, M>, args: [u64; 5]) -> Result<u64, Refusal> {
    let (list, entries) = (args[0], args[1] as u32);
    let count = frames_of(entries)?;
    let mut claimed = [0; 14];
    for (index, frame) in claimed[..count].iter_mut().enumerate() {
        *frame = call.read_element(list, index as u64)?;
    }
    let gdt = take(call.hv, call.domain().id, &claimed[..count], entries)?;
    let old = core::mem::replace(&mut call.state().gdt, gdt);
    call.hv.machine.load_gdt(&call.running.state);
    give_back(call.hv, &old);
    Ok(0)
}

/// How many frames a table of this many entries has.
///
/// # Errors
/// `EINVAL` where they are more than a guest may have.
pub(crate) fn frames_of(entries: u32) -> Result<usize, Refusal> {
    if entries > FIRST_RESERVED_GDT_ENTRY {
        let evidence = Evidence::Limit { asked: entries.into(), limit: FIRST_RESERVED_GDT_ENTRY.into() };
        return Err(Refusal::errno(Errno::Inval, rule::GDT_TOO_LONG).with(evidence));
    }
    Ok(entries.div_ceil(PER_FRAME) as usize)
}

/// Types the frames of `owner` as descriptor pages and makes a table of them.
///
/// # Errors
/// `EINVAL`, and no frame keeps its type.
pub(crate) fn take<M: Machine>(
    hv: &Hypervisor<M>,
    owner: DomId,
    claimed: &[u64],
    entries: u32,
) -> Result<Gdt, Refusal> {
    let mut gdt = Gdt { frames: [Mfn(0); 14], frame_count: 0, entries: entries as u16 };
    for frame in claimed {
        match frames::get_typed(hv, ClaimedMfn(*frame), owner, PageType::Descriptor) {
            Ok(mfn) => {
                gdt.frames[usize::from(gdt.frame_count)] = mfn;
                gdt.frame_count += 1;
            }
            Err(refusal) => {
                give_back(hv, &gdt);
                return Err(not_taken(hv, *frame, refusal));
            }
        }
    }
    Ok(gdt)
}

/// Why a frame is no descriptor page: what it holds, or what it is.
#[cold]
fn not_taken<M: Machine>(hv: &Hypervisor<M>, frame: u64, refusal: Refusal) -> Refusal {
    if refusal.rule == paging_rule::DESCRIPTOR {
        return refusal;
    }
    Refusal::errno(Errno::Inval, rule::GDT_FRAME).with(frames::evidence(hv, ClaimedMfn(frame)))
}

/// Gives the frames of a table back; nothing may use it any more.
pub(crate) fn give_back<M: Machine>(hv: &Hypervisor<M>, gdt: &Gdt) {
    for mfn in &gdt.frames[..usize::from(gdt.frame_count)] {
        frames::put_typed(hv, *mfn);
    }
}

/// Takes the descriptor tables of a vCPU that does not run away: the domain is going.
pub(crate) fn drop_tables<M: Machine>(hv: &Hypervisor<M>, state: &mut VcpuState) {
    give_back(hv, &core::mem::take(&mut state.gdt));
    for page in &mut state.ldt.mapped {
        if let Some(mfn) = page.take() {
            frames::put_typed(hv, mfn);
        }
    }
    state.ldt.entries = 0;
}

/// `update_descriptor(machine address, descriptor)`.
///
/// # Errors
/// `EINVAL` for an address that is not aligned or not in a frame of the domain that may hold a descriptor, and for a
/// descriptor that a guest may not have.
pub fn update_descriptor<M: Machine>(call: &mut Call<'_, M>, args: [u64; 5]) -> Result<u64, Refusal> {
    let (address, descriptor) = (MachineAddr(args[0]), args[1]);
    let Some(descriptor) = frames::check_descriptor(descriptor) else {
        return Err(Refusal::errno(Errno::Inval, rule::DESCRIPTOR_KIND).with(Evidence::Value(descriptor)));
    };
    if address.0 % 8 != 0 {
        return Err(Refusal::errno(Errno::Inval, rule::DESCRIPTOR_PLACE).with(Evidence::Value(address.0)));
    }
    let claimed = ClaimedMfn(address.0 >> 12);
    let mfn = writable_place(call.hv, claimed, call.domain().id)
        .ok_or_else(|| Refusal::errno(Errno::Inval, rule::DESCRIPTOR_PLACE).with(frames::evidence(call.hv, claimed)))?;
    call.hv.machine.write_word(mfn, (address.0 & 0xfff) as usize / 8, descriptor);
    frames::put_typed(call.hv, mfn);
    Ok(0)
}

/// A frame of `owner` that may be written as plain memory, or that is a descriptor page.
fn writable_place<M: Machine>(hv: &Hypervisor<M>, claimed: ClaimedMfn, owner: DomId) -> Option<Mfn> {
    let descriptor_page = || frames::get_typed(hv, claimed, owner, PageType::Descriptor).ok();
    frames::get_typed(hv, claimed, owner, PageType::Writable).ok().or_else(descriptor_page)
}

/// Whether a code selector names a 64-bit segment, and the segment's base where it does not.
pub(super) fn code_segment<M: Machine>(hv: &Hypervisor<M>, state: &VcpuState, selector: u16) -> (bool, u64) {
    let index = selector >> 3;
    if selector & 4 == 0 && u32::from(index) >= FIRST_RESERVED_GDT_ENTRY {
        return (selector | 3 == FLAT_KERNEL_CS, 0);
    }
    let Some(descriptor) = descriptor(hv, state, selector) else {
        return (true, 0);
    };
    let base = descriptor >> 16 & 0xff_ffff | descriptor >> 32 & 0xff00_0000;
    (descriptor & 1 << 53 != 0, base)
}

/// The descriptor that a selector of the guest names.
pub(super) fn descriptor<M: Machine>(hv: &Hypervisor<M>, state: &VcpuState, selector: u16) -> Option<u64> {
    let index = u32::from(selector >> 3);
    if selector & 4 == 0 {
        if index >= state.gdt.entries.into() {
            return None;
        }
        let frame = state.gdt.frames[(index / PER_FRAME) as usize];
        return Some(hv.machine.read_word(frame, (index % PER_FRAME) as usize));
    }
    if index >= state.ldt.entries {
        return None;
    }
    let mut bytes = [0; 8];
    hv.machine.copy_from_guest(state.ldt.base.wrapping_add(u64::from(index) * 8), &mut bytes).ok()?;
    Some(u64::from_le_bytes(bytes))
}
