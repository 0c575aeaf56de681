//! The page that a guest shares with the hypervisor.

use core::sync::atomic::{AtomicU64, Ordering};

use pv_abi::xen::{SharedInfoAtomic, VcpuInfoAtomic, VcpuTimeInfo, VcpuTimeInfoAtomic};

use crate::memory::{A, D, P, Page, RW, update_va_mapping};
use crate::runtime::{start_info, tsc};

/// The shared page, mapped.
#[derive(Clone, Copy, Debug)]
pub struct Shared(&'static SharedInfoAtomic);

static PLACE: Page = Page::new();

/// Maps the shared page.
///
/// # Panics
/// The hypervisor refuses it.
#[must_use]
pub fn map_shared_info() -> Shared {
    let va = PLACE.va();
    let result = update_va_mapping(va, start_info().shared_info | P | RW | A | D, 2);
    assert!(result == 0, "shared_info cannot be mapped: {result}");
    // The first vCPU's upcall_pending is the first byte of the page.
    crate::traps::UPCALL_PENDING.store(va, Ordering::Relaxed);
    // SAFETY: The page was just mapped for the test's life; all its fields are atomic.
    Shared(unsafe { &*(va as *const SharedInfoAtomic) })
}

impl Shared {
    /// What belongs to the first vCPU.
    #[must_use]
    pub fn vcpu(self) -> &'static VcpuInfoAtomic {
        &self.0.vcpu_info[0]
    }

    /// What belongs to a vCPU, one of the first 32, while it has not moved it.
    #[must_use]
    pub fn vcpu_info(self, vcpu: u32) -> &'static VcpuInfoAtomic {
        &self.0.vcpu_info[vcpu as usize]
    }

    /// Whether a port is pending.
    #[must_use]
    pub fn is_pending(self, port: u32) -> bool {
        word(&self.0.evtchn_pending, port).load(Ordering::SeqCst) & bit(port) != 0
    }

    /// Masks or unmasks a port by its bit.
    pub fn set_mask(self, port: u32, masked: bool) {
        let word = word(&self.0.evtchn_mask, port);
        if masked {
            word.fetch_or(bit(port), Ordering::SeqCst);
        } else {
            word.fetch_and(!bit(port), Ordering::SeqCst);
        }
    }

    /// Forgets that a port is pending, and that an upcall is due.
    pub fn clear(self, port: u32) {
        word(&self.0.evtchn_pending, port).fetch_and(!bit(port), Ordering::SeqCst);
        self.vcpu().evtchn_pending_sel.store(0, Ordering::SeqCst);
        self.vcpu().evtchn_upcall_pending.store(0, Ordering::SeqCst);
    }

    /// Forgets that a port is pending; whether it was.
    pub fn take(self, port: u32) -> bool {
        word(&self.0.evtchn_pending, port).fetch_and(!bit(port), Ordering::SeqCst) & bit(port) != 0
    }

    /// System time in ns, as the first vCPU reads it.
    #[must_use]
    pub fn now(self) -> u64 {
        time_of(&self.vcpu().time)
    }

    /// Where the page is mapped.
    #[must_use]
    pub fn va(self) -> u64 {
        core::ptr::from_ref(self.0) as u64
    }

    /// The page that another vCPU has mapped at this address.
    #[must_use]
    pub fn at(va: u64) -> Self {
        // SAFETY: The caller got the address from `va`; the page stays mapped.
        Self(unsafe { &*(va as *const SharedInfoAtomic) })
    }
}

/// A `vcpu_info` that was moved to a page of the test's own.
#[must_use]
pub fn vcpu_info_at(va: u64) -> &'static VcpuInfoAtomic {
    // SAFETY: The page is the test's for its life; all fields are atomic.
    unsafe { &*(va as *const VcpuInfoAtomic) }
}

/// System time in ns, by the time page of the vCPU that reads it. The counter is read while the page is known not to
/// change: a vCPU may move to another CPU at any moment.
#[must_use]
pub fn time_of(time: &VcpuTimeInfoAtomic) -> u64 {
    loop {
        let version = time.version.load(Ordering::SeqCst);
        let copy = VcpuTimeInfo {
            tsc_timestamp: time.tsc_timestamp.load(Ordering::SeqCst),
            system_time: time.system_time.load(Ordering::SeqCst),
            tsc_to_system_mul: time.tsc_to_system_mul.load(Ordering::SeqCst),
            tsc_shift: time.tsc_shift.load(Ordering::SeqCst),
            ..VcpuTimeInfo::default()
        };
        let now = copy.system_time_at(tsc());
        if version & 1 == 0 && version == time.version.load(Ordering::SeqCst) {
            return now;
        }
    }
}

fn word(words: &[AtomicU64; 64], port: u32) -> &AtomicU64 {
    &words[port as usize / 64]
}

const fn bit(port: u32) -> u64 {
    1 << (port % 64)
}
