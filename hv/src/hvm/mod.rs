//! Guests with hardware assistance: their own page tables and descriptor tables, in a memory that nested paging makes.
//!
//! Such a domain names its memory by *guest frames*; [`PhysMap`] says which machine frame is behind one. A vCPU runs in the
//! CPU's guest mode by what its [`Vmcb`] says, until something happens that is not its own: the machine comes back with
//! the reason, [`on_exit`] decides, [`before_entry`] delivers what is due. Its hypercalls are those of a PV guest, less the
//! ones about page and descriptor tables ([`may_call`]); its memory is reached by a walk of its page tables ([`walk`]).
//!
//! PVH guests have a local APIC inside, domains with emulated devices a chipset too; all others are emulated by device
//! models in other domains. What is not there is named and ends the guest alone.
//!
//! | file | what |
//! |---|---|
//! | [`physmap`] | guest frames |
//! | `memory` | what `memory_op` means for such a domain |
//! | [`walk`] | a guest's addresses |
//! | [`vmcb`], `exit`, `registers` | why a guest stopped, and what is done about it |
//! | `mmio`, `bus` | instructions on memory that is none, and whose registers are there |
//! | `apic` | the local APIC |
//! | [`asid`] | address-space numbers |
//! | `types` | memory types, which are kept and change nothing |
//! | [`devices`], `platform` | the emulated devices that are the hypervisor's, put together, and how a domain has them |
//! | `ports`, `ioreq`, `dm_op` | I/O ports, the requests to device models in other domains, and what those ask |
//! | `params`, `context` | what a toolstack and a kernel set |
//!
//! Source: AMD APM 2, chapter 15; Xen: public/hvm/hvm_op.h, public/hvm/params.h, public/arch-x86/cpuid.h.

mod apic;
pub mod asid;
mod bus;
mod context;
pub mod devices;
mod dm_op;
mod exit;
pub(crate) mod ioreq;
pub(crate) mod memory;
mod mmio;
mod params;
pub mod physmap;
mod platform;
mod ports;
mod registers;
#[cfg(test)]
mod tests;
mod types;
pub mod vmcb;
pub mod walk;

use alloc::boxed::Box;
use core::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering};

use pv_abi::errno::Errno;
use pv_abi::hvm::HVM_NR_PARAMS;
use pv_abi::{Mfn, features, xen as number};
use spin::Mutex;

pub(crate) use apic::on_timer as on_apic_timer;
pub use apic::{Apic, Inbox};
pub(crate) use context::{get as get_context, get_one as get_context_record, set as set_context};
pub use dm_op::dm_op;
pub use exit::{before_entry, on_exit};
pub use params::hvm_op;
pub use physmap::PhysMap;
pub use platform::Devices;
pub(crate) use platform::on_timer as on_chipset_timer;
pub(crate) use registers::visible_leaf;
pub use vmcb::Vmcb;

use crate::Hypervisor;
use crate::domain::Domain;
use crate::frames::{self, ClaimedMfn};
use crate::hardware::Machine;
use crate::refusal::{Evidence, Refusal};
use crate::rules::hvm as rule;

/// What a domain with hardware assistance has that others have not.
#[derive(Debug)]
pub struct HvmDomain {
    /// Its memory.
    pub map: Mutex<PhysMap>,
    /// How often something in it was taken away.
    pub changes: AtomicU64,
    /// Its parameters (`HVM_PARAM_*`).
    pub params: Mutex<[u64; HVM_NR_PARAMS as usize]>,
    /// Device models of it in other domains.
    pub(crate) servers: Mutex<ioreq::Servers>,
    /// Its chipset, if it has one.
    platform: Option<Box<platform::Platform>>,
    /// What it wrote to the port that says which configuration space is meant.
    pci_address: AtomicU32,
    /// The vector by which all its vCPUs' upcalls come, past their local APICs; 0 for none.
    callback: AtomicU8,
}

/// What a vCPU has beside its block.
#[derive(Clone, Debug)]
pub struct Assisted {
    /// Its local APIC.
    pub apic: Apic,
    /// Its address-space number.
    pub tag: asid::Tag,
    /// Its memory types.
    types: types::MemoryTypes,
    /// What it asked a device model and has not taken the answer of.
    asked: Option<ports::Asked>,
}

impl Assisted {
    /// After reset.
    #[must_use]
    pub fn new(vcpu: u32) -> Self {
        Self { apic: Apic::new(vcpu), tag: asid::Tag::default(), types: types::MemoryTypes::default(), asked: None }
    }

    /// Whether it has asked a device model.
    const fn waits(&self) -> bool {
        self.asked.is_some()
    }
}

impl HvmDomain {
    /// With nothing in its memory and all parameters zero.
    #[must_use]
    pub fn new<M: Machine>(hv: &Hypervisor<M>, devices: Devices) -> Option<Self> {
        PhysMap::new(hv).map(|map| Self {
            map: Mutex::new(map),
            changes: AtomicU64::new(0),
            params: Mutex::new([0; HVM_NR_PARAMS as usize]),
            servers: Mutex::default(),
            platform: (devices == Devices::All).then(|| platform::Platform::new(hv)),
            pci_address: AtomicU32::new(0),
            callback: AtomicU8::new(0),
        })
    }

    /// The vector by which events come, if any.
    fn callback_vector(&self) -> Option<u8> {
        let vector = self.callback.load(Ordering::Relaxed);
        (vector != 0).then_some(vector)
    }
}

/// A vCPU's block.
#[must_use]
pub fn new_vcpu(domain: &HvmDomain) -> Box<Vmcb> {
    Box::new(Vmcb::new(domain.map.lock().root().address().0))
}

/// The features of such a domain (`XENVER_get_features`).
pub(crate) const FEATURES: u32 = 1 << features::XENFEAT_WRITABLE_PAGE_TABLES
    | 1 << features::XENFEAT_AUTO_TRANSLATED_PHYSMAP
    | 1 << features::XENFEAT_HVM_CALLBACK_VECTOR
    | 1 << features::XENFEAT_HVM_SAFE_PVCLOCK
    | 1 << features::XENFEAT_MEMORY_OP_VNODE_SUPPORTED
    | 1 << features::XENFEAT_NOT_DIRECT_MAPPED;

/// Whether a guest with hardware assistance may make a hypercall.
#[must_use]
pub const fn may_call(hypercall: u64) -> bool {
    matches!(
        hypercall,
        number::HYPERVISOR_MEMORY_OP
            | number::HYPERVISOR_MULTICALL
            | number::HYPERVISOR_SET_TIMER_OP
            | number::HYPERVISOR_XEN_VERSION
            | number::HYPERVISOR_CONSOLE_IO
            | number::HYPERVISOR_GRANT_TABLE_OP
            | number::HYPERVISOR_VM_ASSIST
            | number::HYPERVISOR_VCPU_OP
            | number::HYPERVISOR_SCHED_OP
            | number::HYPERVISOR_EVENT_CHANNEL_OP
            | number::HYPERVISOR_HVM_OP
    )
}

/// The machine frame that a domain means by a frame's number: in a domain with hardware assistance the one behind the
/// guest frame, and none that exists where there is nothing.
#[inline]
#[must_use]
pub fn named<M: Machine>(hv: &Hypervisor<M>, domain: &Domain, frame: u64) -> ClaimedMfn {
    match &domain.hvm {
        None => ClaimedMfn(frame),
        Some(hvm) => behind(hv, hvm, frame),
    }
}

#[cold]
fn behind<M: Machine>(hv: &Hypervisor<M>, hvm: &HvmDomain, frame: u64) -> ClaimedMfn {
    hvm.map.lock().find(&hv.machine, frame).unwrap_or(Mfn(u64::MAX)).into()
}

fn with_pool(domain: &Domain) -> Result<&HvmDomain, Refusal> {
    let refusal = || Refusal::errno(Errno::OpNotSupp, rule::NOT_HVM).with(Evidence::Value(domain.id.0.into()));
    domain.hvm.as_ref().ok_or_else(refusal)
}

/// `XEN_DOMCTL_get_paging_mempool_size`: bytes that the tables of a domain's memory may take.
///
/// # Errors
/// `EOPNOTSUPP` for a PV domain.
pub(crate) fn pool(domain: &Domain) -> Result<u64, Refusal> {
    Ok(with_pool(domain)?.map.lock().limit() << 12)
}

/// `XEN_DOMCTL_set_paging_mempool_size`, `XEN_DOMCTL_SHADOW_OP_SET_ALLOCATION`.
///
/// # Errors
/// `EOPNOTSUPP` for a PV domain, `EINVAL` for a part of a page, `ENOMEM` where the tables take more already.
pub(crate) fn set_pool(domain: &Domain, bytes: u64) -> Result<(), Refusal> {
    let hvm = with_pool(domain)?;
    let refuse = |errno| Err(Refusal::errno(errno, rule::POOL).with(Evidence::Value(bytes)));
    if !bytes.is_multiple_of(1 << 12) {
        return refuse(Errno::Inval);
    }
    if !hvm.map.lock().set_limit(bytes >> 12) {
        return refuse(Errno::NoMem);
    }
    Ok(())
}

/// Frees the map of a domain that does not come to be.
pub(crate) fn discard<M: Machine>(hv: &Hypervisor<M>, hvm: Option<HvmDomain>) {
    if let Some(hvm) = hvm {
        frames::free(hv, hvm.map.lock().root(), 0);
    }
}

/// Takes the memory of a domain apart that is being destroyed; whether nothing is left of it.
pub(crate) fn relinquish<M: Machine>(hv: &Hypervisor<M>, domain: &Domain) -> bool {
    domain.hvm.as_ref().is_none_or(|hvm| hvm.map.lock().take_apart(hv))
}
