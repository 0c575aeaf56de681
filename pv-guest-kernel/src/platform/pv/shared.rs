//! The two pages Xen hands over: start_info (copied once) and shared_info (mapped over `shared_info_page`).
//!
//! Source: Xen `public/xen.h`.
#![expect(unsafe_code, reason = "reaches memory that Xen shares with this domain")]

use pv_abi::xen::{self, SharedInfoAtomic, StartFlags, StartInfo, VcpuInfoAtomic};
use pv_abi::{DomId, Mfn, Port};

use super::paging;
use crate::mm::EntryFlags;
use crate::sync::IrqLock;

unsafe extern "C" {
    static shared_info_page: SharedInfoAtomic;
}

/// The page shared with the hypervisor.
#[inline]
pub(super) fn shared_info() -> &'static SharedInfoAtomic {
    // SAFETY: a page of the image that lives for ever; every field is atomic.
    unsafe { &shared_info_page }
}

/// The address at which it is mapped.
pub(in crate::platform) fn shared_info_addr() -> usize {
    (&raw const shared_info_page) as usize
}

/// This vCPU's part of it, which lies in its own block. Events are masked, or the caller does not mind another vCPU's.
#[inline]
pub(super) fn vcpu() -> &'static VcpuInfoAtomic {
    &super::percpu::this().vcpu_info
}

/// Maps the page that Xen shares with this domain, whichever it is now.
pub(in crate::platform) fn map_shared_info() {
    let bits = start_info().shared_info | EntryFlags::KERNEL_DATA.bits();
    paging::update_va_mapping(shared_info_addr(), bits, xen::UVMF_INVLPG).expect("shared_info can be mapped");
}

/// Takes the mapping away: nothing of this file may be used until it is there again.
pub(super) fn unmap_shared_info() {
    paging::update_va_mapping(shared_info_addr(), 0, xen::UVMF_INVLPG).expect("shared_info can be unmapped");
}

static START_INFO: IrqLock<Option<StartInfo>> = IrqLock::new(None);

/// Copies the start_info page, which is unmapped later.
///
/// # Safety
/// `start_info` is the address Xen passed in rsi, or of the page that a suspended domain named.
pub(in crate::platform) unsafe fn keep_start_info(start_info: *const StartInfo) {
    // SAFETY: the caller's promise.
    let copy = unsafe { start_info.read() };
    *START_INFO.lock() = Some(copy);
}

/// What Xen told this domain at its start.
///
/// # Panics
/// When the kernel did not start as a PV guest.
#[must_use]
pub fn start_info() -> StartInfo {
    START_INFO.lock().expect("started by Xen")
}

/// True for the first domain, the one that may build others.
#[must_use]
pub fn is_initial_domain() -> bool {
    StartFlags::from_bits_truncate(start_info().flags).contains(StartFlags::INITDOMAIN)
}

/// A ring page and the event channel that goes with it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RingPage {
    /// The machine frame of the ring.
    pub mfn: Mfn,
    /// The event channel.
    pub port: Port,
    /// The domain at the other end.
    pub peer: DomId,
}

/// The console ring; the first domain has none.
#[must_use]
pub fn console_ring() -> Option<RingPage> {
    let info = start_info();
    let there = !is_initial_domain() && info.console_domu_mfn != 0;
    there.then_some(RingPage { mfn: Mfn(info.console_domu_mfn), port: Port(info.console_domu_evtchn), peer: DomId(0) })
}

/// The xenstore ring; the first domain has none.
#[must_use]
pub fn store_ring() -> Option<RingPage> {
    let info = start_info();
    let there = !is_initial_domain() && info.store_mfn != 0;
    there.then_some(RingPage { mfn: Mfn(info.store_mfn), port: Port(info.store_evtchn), peer: DomId(0) })
}
