//! Domains and their vCPUs.
//!
//! A domain's parts have a lock each, in the order that the crate's documentation gives; what is set once when the
//! domain is made has none. A vCPU's registers and tables, [`VcpuState`], are owned by whoever runs it: the CPU takes
//! the box out when it starts running the vCPU and puts it back when it stops, so a CPU can use its own without a lock
//! and nobody can touch another's while it runs.

pub mod context;
mod create;
mod state;
mod table;

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering};

use pv_abi::{DomId, Mfn, VcpuId};
use spin::{Mutex, Once};

pub use create::{DomainConfig, add_vcpus};
pub use state::{Callback, Callbacks, FPU_AREA_BYTES, FpuArea, Gdt, Ldt, RecentCalls, Segments, TrapGate, VcpuState};
pub use table::DomainTable;

use crate::control::permissions::Permissions;
use crate::evtchn::{EventChannels, Fifo};
use crate::frames::DomainMemory;
use crate::grant::GrantTable;
use crate::hardware::CpuSet;
use crate::hvm::{self, HvmDomain};
use crate::rules::Limiter;
use crate::sched::VcpuSchedule;
use crate::time::{Runstate, VcpuTimers};

/// A guest.
pub struct Domain {
    /// Its number.
    pub id: DomId,
    /// The toolstack's name for it, 16 bytes (a UUID).
    pub handle: Mutex<[u8; 16]>,
    /// Whether it may control other domains and the machine (dom0).
    pub privileged: bool,
    /// The frame of its `shared_info`.
    pub shared_info: Mfn,
    /// What it has by hardware assistance; nothing in a PV domain.
    pub hvm: Option<HvmDomain>,
    /// Frames it owns and may own.
    pub memory: Mutex<DomainMemory>,
    /// Its event channels.
    pub events: Mutex<EventChannels>,
    /// Its event queues, where it uses them.
    pub fifo: Fifo,
    /// Its grant table and what it has mapped of others'.
    pub grants: Mutex<GrantTable>,
    /// I/O ports, I/O memory and interrupts it may use.
    pub permissions: Mutex<Permissions>,
    /// What it wrote to the ports that are emulated for it.
    pub ports: Mutex<crate::traps::LegacyPorts>,
    /// Its vCPUs; set once when the toolstack says how many.
    pub vcpus: Once<Vec<Arc<Vcpu>>>,
    /// `vm_assist` bits that are on.
    pub assists: AtomicU64,
    /// Whether it runs, why it stopped, whether it is being taken apart.
    pub lifecycle: Mutex<Lifecycle>,
    /// CPUs on which an address space of one of its vCPUs is loaded, a bit each: set before that, unset afterwards.
    pub loaded: AtomicU64,
    /// How many have paused it; it runs only at zero.
    pub pause_count: AtomicU32,
    /// How many of its vCPUs wait in `SCHEDOP_poll`.
    pub polling: AtomicU32,
    /// Its share of the CPU, 1 to 65535; 256 is usual.
    pub weight: AtomicU32,
    /// Cuts what it makes the hypervisor print.
    pub limiter: Mutex<Limiter>,
    /// The privileged domain's choices that `getdomaininfo` and CPUID show.
    pub settings: Mutex<crate::control::Settings>,
}

/// Where a domain is between being made and being gone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lifecycle {
    /// Shut down, with the reason (`SHUTDOWN_*`).
    pub shutdown: Option<u32>,
    /// The reason that a later shutdown will have whatever it says (`SCHEDOP_shutdown_code`).
    pub latched: Option<u32>,
    /// Being taken apart.
    pub dying: bool,
    /// Its toolstack has paused it (`XEN_DOMCTL_pausedomain`); a new domain is.
    pub paused_by_control: bool,
    /// How many times more its toolstack has to unpause it.
    pub further_pauses: u32,
}

impl Domain {
    /// One of its vCPUs.
    #[must_use]
    pub fn vcpu(&self, id: VcpuId) -> Option<&Arc<Vcpu>> {
        self.vcpus.get()?.get(id.0 as usize)
    }

    /// The CPUs on which its address spaces may be loaded.
    #[inline]
    #[must_use]
    pub fn loaded(&self) -> CpuSet {
        CpuSet(self.loaded.load(Ordering::SeqCst))
    }

    /// Whether it is being taken apart.
    #[must_use]
    pub fn is_dying(&self) -> bool {
        self.lifecycle.lock().dying
    }
}

/// A guest's CPU.
pub struct Vcpu {
    /// Its number in its domain.
    pub id: VcpuId,
    /// Its domain.
    pub domain: Arc<Domain>,
    /// Machine address of its `vcpu_info`; changed once at most, by `VCPUOP_register_vcpu_info`.
    pub info: AtomicU64,
    /// What is due before it goes on, [`work`] bits.
    pub work: AtomicU32,
    /// Why it does not run, [`stopped`] bits; zero for runnable.
    pub stopped: AtomicU32,
    /// Whether `VCPUOP_initialise` or `setvcpucontext` gave it a context.
    pub initialised: AtomicBool,
    /// The CPU it runs or last ran on.
    pub cpu: AtomicU32,
    /// Whether a non-maskable interrupt waits for it.
    pub nmi_pending: AtomicU8,
    /// Where it stands in its run queue.
    pub schedule: VcpuSchedule,
    /// Its timers.
    pub timers: Mutex<VcpuTimers>,
    /// How long it spent in which state.
    pub runstate: Mutex<Runstate>,
    /// What others want of its local APIC, which hardware assistance comes with.
    pub inbox: Option<Box<hvm::Inbox>>,
    /// Registers and tables; empty while a CPU runs it.
    pub state: Mutex<Option<Box<VcpuState>>>,
}

/// Why a vCPU does not run; bits of [`Vcpu::stopped`].
pub mod stopped {
    /// Taken down, or never up (Xen: `VPF_down`).
    pub const DOWN: u32 = 1 << 0;
    /// Waits for an event (Xen: `VPF_blocked`).
    pub const BLOCKED: u32 = 1 << 1;
    /// Waits in `SCHEDOP_poll`.
    pub const POLLING: u32 = 1 << 2;
    /// Waits for a device model's answer.
    pub const ASKING: u32 = 1 << 3;
}

/// What is due before a vCPU goes on; bits of [`Vcpu::work`].
pub mod work {
    /// Its CPU should choose again who runs.
    pub const RESCHEDULE: u32 = 1 << 0;
    /// An event became pending, or the guest unmasked events: look whether an upcall is due.
    pub const EVENTS: u32 = 1 << 1;
    /// A non-maskable interrupt is due.
    pub const NMI: u32 = 1 << 2;
    /// Its time page and runstate area are to be written.
    pub const TIME: u32 = 1 << 3;
}

impl Vcpu {
    /// Its `vcpu_info` as frame and offset in bytes.
    #[inline]
    #[must_use]
    pub fn info_place(&self) -> (Mfn, usize) {
        let address = self.info.load(Ordering::Relaxed);
        (Mfn(address >> 12), (address & 0xfff) as usize)
    }

    /// Whether nothing keeps it from running.
    #[inline]
    #[must_use]
    pub fn is_runnable(&self) -> bool {
        self.stopped.load(Ordering::Acquire) == 0 && self.domain.pause_count.load(Ordering::Acquire) == 0
    }

    /// Makes something due before it goes on.
    #[inline]
    pub fn raise(&self, bits: u32) {
        self.work.fetch_or(bits, Ordering::Release);
    }
}

/// A vCPU that this CPU runs, with its state.
pub struct Running {
    /// Which.
    pub vcpu: Arc<Vcpu>,
    /// Its registers and tables, taken out of [`Vcpu::state`].
    pub state: Box<VcpuState>,
}
