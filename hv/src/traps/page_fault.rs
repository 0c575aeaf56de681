//! Page faults of a guest.
//!
//! In order: a page of the local-descriptor-table window that was not used before is mapped; a kernel's write to one of
//! its page tables is checked and done ([`crate::paging::on_write_fault`]); a fault that its tables do not explain came
//! from an old translation, which is forgotten; all others go to the guest, with the address in its `vcpu_info`.
//! Source: abi-needs of Xen 4.17, §3.3.

use super::{inject_at_once, vector};
use crate::Hypervisor;
use crate::domain::Running;
use crate::entry::Exception;
use crate::hardware::{Flush, Machine};
use crate::paging;
use crate::registers::Registers;

/// Offset of `arch.cr2` in `vcpu_info`.
const CR2: usize = 16;

/// Bits of a page fault's error code (AMD APM 2 §8.4.2).
mod error {
    pub(super) const PRESENT: u32 = 1 << 0;
    pub(super) const WRITE: u32 = 1 << 1;
    pub(super) const USER: u32 = 1 << 2;
    pub(super) const RESERVED: u32 = 1 << 3;
    pub(super) const FETCH: u32 = 1 << 4;
}

/// Handles a page fault of the guest. Most are at pages that are not there, which is for the guest to see to.
#[inline(always)]
pub(super) fn on_page_fault<M: Machine>(
    hv: &Hypervisor<M>,
    running: &mut Running,
    registers: &mut Registers,
    exception: Exception,
) {
    let Exception { error_code, address, .. } = exception;
    let window = hv.machine.ldt_window();
    let in_window = address.wrapping_sub(window.start) < window.end - window.start;
    if in_window || error_code & error::PRESENT != 0 {
        return on_explained_fault(hv, running, registers, exception, in_window);
    }
    deliver(hv, running, registers, error_code, address);
}

/// A fault in the window of local descriptors, or one that the tables as they are may explain.
#[inline(never)]
fn on_explained_fault<M: Machine>(
    hv: &Hypervisor<M>,
    running: &mut Running,
    registers: &mut Registers,
    exception: Exception,
    in_window: bool,
) {
    let Exception { error_code, address, .. } = exception;
    if in_window {
        return on_ldt_fault(hv, running, registers, exception, address - hv.machine.ldt_window().start);
    }
    if error_code & error::RESERVED == 0 {
        let kernel_write = error_code & error::WRITE != 0 && running.state.kernel_mode;
        if kernel_write && paging::on_write_fault(hv, running, registers, exception) {
            return;
        }
        if tables_allow(hv, running, address, error_code) {
            return hv.machine.flush_tlb(Flush::Page(address));
        }
    }
    deliver(hv, running, registers, error_code, address);
}

/// Hands a page fault at `address` to the guest.
pub(super) fn deliver<M: Machine>(
    hv: &Hypervisor<M>,
    running: &mut Running,
    registers: &mut Registers,
    error_code: u32,
    address: u64,
) {
    let (frame, offset) = running.vcpu.info_place();
    hv.machine.write_word(frame, (offset + CR2) / 8, address);
    let user = if running.state.kernel_mode { 0 } else { error::USER };
    inject_at_once(hv, running, registers, vector::PAGE_FAULT, Some(error_code & !error::USER | user));
}

/// A fault in the window: the page of the guest's table is mapped there, or the guest gets the fault at the address
/// where its table should be.
#[cold]
fn on_ldt_fault<M: Machine>(
    hv: &Hypervisor<M>,
    running: &mut Running,
    registers: &mut Registers,
    exception: Exception,
    offset: u64,
) {
    if offset < u64::from(running.state.ldt.entries) * 8 {
        if paging::map_ldt_page(hv, running, (offset >> 12) as usize) {
            return;
        }
        let address = running.state.ldt.base.wrapping_add(offset);
        return deliver(hv, running, registers, exception.error_code, address);
    }
    deliver(hv, running, registers, exception.error_code, exception.address);
}

/// Whether the tables as they are now allow the access that faulted.
fn tables_allow<M: Machine>(hv: &Hypervisor<M>, running: &Running, address: u64, error_code: u32) -> bool {
    const PRESENT: u64 = 1 << 0;
    const WRITABLE: u64 = 1 << 1;
    const USER: u64 = 1 << 2;
    const NO_EXECUTE: u64 = 1 << 63;
    const FRAME: u64 = 0x000f_ffff_ffff_f000;
    let state = &running.state;
    let root = if state.kernel_mode { state.kernel_root } else { state.user_root };
    let Some(mut table) = root.filter(|_| !(256..272).contains(&(address >> 39 & 0x1ff))) else {
        return false;
    };
    let needed = PRESENT | USER | if error_code & error::WRITE != 0 { WRITABLE } else { 0 };
    for shift in [39, 30, 21, 12] {
        let entry = hv.machine.read_word(table, (address >> shift & 0x1ff) as usize);
        let forbidden = error_code & error::FETCH != 0 && entry & NO_EXECUTE != 0;
        if entry & needed != needed || forbidden {
            return false;
        }
        if shift > 12 {
            table = pv_abi::Mfn((entry & FRAME) >> 12);
        }
    }
    true
}
