//! What the builder asks of the hypervisor, and of the memory of the guest it builds.
//!
//! The binary answers with hypercalls; tests answer with a fake that remembers.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use pv_abi::arch::VcpuGuestContext;
use pv_abi::memory::E820Entry;
use pv_abi::{Mfn, Pfn};

use crate::ids::{DomId, Port};

/// A refusal of the hypervisor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ControlError {
    /// What was asked.
    pub operation: &'static str,
    /// The positive errno.
    pub errno: i32,
}

impl fmt::Display for ControlError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self.errno {
            1 => "EPERM: this domain is not privileged",
            3 => "ESRCH: no such domain",
            12 => "ENOMEM: the machine has no memory left, end a guest or lower memory =",
            13 => "EACCES: the hypervisor speaks another version of the control interface",
            22 => "EINVAL",
            38 => "ENOSYS: the hypervisor does not have it",
            _ => {
                return write!(out, "{} was refused with errno {}", self.operation, self.errno);
            }
        };
        write!(out, "{} was refused with {name}", self.operation)
    }
}

impl core::error::Error for ControlError {}

/// What a guest is made as.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum GuestKind {
    /// Paravirtualized.
    #[default]
    Pv,
    /// With hardware assistance for CPU and memory, and no device but paravirtual ones.
    Pvh,
    /// The same with a PC's devices, which this domain and the hypervisor emulate, and no paravirtual one.
    Hvm,
}

impl GuestKind {
    /// The kind with this name in a description.
    ///
    /// # Errors
    /// One phrase with the names that there are.
    pub fn parse(text: &str) -> Result<Self, String> {
        match text {
            "pv" => Ok(Self::Pv),
            "pvh" => Ok(Self::Pvh),
            "hvm" => Ok(Self::Hvm),
            _ => Err(format!("\"{text}\" is not known: write \"pv\", \"pvh\" or \"hvm\"")),
        }
    }

    /// Whether its CPU and memory are the hardware's to virtualize.
    pub fn is_assisted(self) -> bool {
        self != Self::Pv
    }
}

/// What a new domain is allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Creation {
    /// A number that names it for ever.
    pub handle: [u8; 16],
    /// Virtual CPUs.
    pub max_vcpus: u32,
    /// What it is made as.
    pub kind: GuestKind,
}

/// How a domain's time-stamp counter behaves (`XEN_DOMCTL_settscinfo`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TscMode {
    /// The machine's where it is safe, else emulated.
    #[default]
    Default = 0,
    /// Always emulated.
    AlwaysEmulate = 1,
    /// Always the machine's.
    Native = 2,
}

/// Why a domain stopped by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StopReason {
    /// It powered off.
    Poweroff,
    /// It wants to start anew.
    Reboot,
    /// It was suspended.
    Suspend,
    /// It crashed.
    Crash,
    /// Its watchdog ran out.
    Watchdog,
    /// A reason that is not known.
    Other(u8),
}

impl StopReason {
    /// The reason with this number (`SHUTDOWN_*`).
    pub fn from_code(code: u8) -> Self {
        match code {
            0 => Self::Poweroff,
            1 => Self::Reboot,
            2 => Self::Suspend,
            3 => Self::Crash,
            4 => Self::Watchdog,
            other => Self::Other(other),
        }
    }
}

impl fmt::Display for StopReason {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Poweroff => out.write_str("poweroff"),
            Self::Reboot => out.write_str("reboot"),
            Self::Suspend => out.write_str("suspend"),
            Self::Crash => out.write_str("crash"),
            Self::Watchdog => out.write_str("watchdog"),
            Self::Other(code) => write!(out, "shutdown code {code}"),
        }
    }
}

/// What the hypervisor knows of a domain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DomainInfo {
    /// Its number.
    pub domain: DomId,
    /// It is being taken down.
    pub dying: bool,
    /// It stopped, and why.
    pub stopped: Option<StopReason>,
    /// Control software holds it.
    pub paused: bool,
    /// It waits for an event.
    pub blocked: bool,
    /// It is on a CPU.
    pub running: bool,
    /// Frames it has.
    pub pages: u64,
    /// Frames it may have.
    pub max_pages: u64,
    /// Virtual CPUs that are on line.
    pub vcpus: u32,
    /// The highest number of a virtual CPU of its.
    pub max_vcpu: u32,
    /// Frame of its shared page.
    pub shared_info: Mfn,
    /// CPU time it has used.
    pub cpu_time_ns: u64,
}

/// Reaches the frames of a domain that has not run yet, or will not again.
pub trait GuestMemory {
    /// Copies `bytes` to the run of `frames`, from byte `offset` of the first one on.
    ///
    /// # Errors
    /// The frames cannot be mapped.
    fn write(&mut self, domain: DomId, frames: &[Mfn], offset: usize, bytes: &[u8]) -> Result<(), ControlError>;

    /// Sets all bytes of `frames` to zero.
    ///
    /// # Errors
    /// The frames cannot be mapped.
    fn clear(&mut self, domain: DomId, frames: &[Mfn]) -> Result<(), ControlError>;
}

/// Xen's control operations, as far as PV guests need them.
pub trait Control {
    /// Makes an empty domain (`XEN_DOMCTL_createdomain`).
    ///
    /// # Errors
    /// The hypervisor's.
    fn create(&mut self, creation: &Creation) -> Result<DomId, ControlError>;

    /// Makes its virtual CPUs (`XEN_DOMCTL_max_vcpus`).
    ///
    /// # Errors
    /// The hypervisor's.
    fn set_max_vcpus(&mut self, domain: DomId, vcpus: u32) -> Result<(), ControlError>;

    /// Bounds its memory (`XEN_DOMCTL_max_mem`).
    ///
    /// # Errors
    /// The hypervisor's.
    fn set_max_memory(&mut self, domain: DomId, kib: u64) -> Result<(), ControlError>;

    /// Chooses its time-stamp counter (`XEN_DOMCTL_settscinfo`).
    ///
    /// # Errors
    /// The hypervisor's.
    fn set_tsc(&mut self, domain: DomId, mode: TscMode) -> Result<(), ControlError>;

    /// Tells it what is where in its memory (`XENMEM_set_memory_map`).
    ///
    /// # Errors
    /// The hypervisor's.
    fn set_memory_map(&mut self, domain: DomId, map: &[E820Entry]) -> Result<(), ControlError>;

    /// Sets memory aside for the tables by which hardware assistance finds its memory
    /// (`XEN_DOMCTL_SHADOW_OP_SET_ALLOCATION`).
    ///
    /// # Errors
    /// The hypervisor's.
    fn set_paging_memory(&mut self, domain: DomId, mib: u32) -> Result<(), ControlError>;

    /// Sets a parameter of a domain with hardware assistance (`HVMOP_set_param`).
    ///
    /// # Errors
    /// The hypervisor's.
    fn set_parameter(&mut self, domain: DomId, index: u32, value: u64) -> Result<(), ControlError>;

    /// Takes the mark of a hypervisor from what CPUID tells it (`XEN_DOMCTL_set_cpu_policy`).
    ///
    /// # Errors
    /// The hypervisor's.
    fn hide_hypervisor(&mut self, domain: DomId) -> Result<(), ControlError>;

    /// Puts the first page of its grant table at a guest frame (`XENMEM_add_to_physmap`), where hardware assistance is.
    ///
    /// # Errors
    /// The hypervisor's.
    fn put_grant_table(&mut self, domain: DomId, frame: Pfn) -> Result<(), ControlError>;

    /// Takes away what is at a guest frame (`XENMEM_remove_from_physmap`).
    ///
    /// # Errors
    /// The hypervisor's.
    fn clear_frame(&mut self, domain: DomId, frame: Pfn) -> Result<(), ControlError>;

    /// Sets the state in which virtual CPUs with hardware assistance start, as records (`XEN_DOMCTL_sethvmcontext`).
    ///
    /// # Errors
    /// The hypervisor's.
    fn set_hvm_context(&mut self, domain: DomId, records: &[u8]) -> Result<(), ControlError>;

    /// Gives it memory for the guest frames from `first` on (`XENMEM_populate_physmap`).
    ///
    /// # Errors
    /// The hypervisor's; `ENOMEM` also when it gave less than asked.
    fn populate(&mut self, domain: DomId, first: Pfn, count: u64) -> Result<Vec<Mfn>, ControlError>;

    /// Checks and pins its page tables (`MMUEXT_PIN_L4_TABLE`).
    ///
    /// # Errors
    /// The hypervisor's.
    fn pin_root_table(&mut self, domain: DomId, root: Mfn) -> Result<(), ControlError>;

    /// Fills a page with hypercall stubs (`XEN_DOMCTL_hypercall_init`).
    ///
    /// # Errors
    /// The hypervisor's.
    fn fill_hypercall_page(&mut self, domain: DomId, frame: Mfn) -> Result<(), ControlError>;

    /// Makes a port of the domain that `remote` may bind to (`EVTCHNOP_alloc_unbound`).
    ///
    /// # Errors
    /// The hypervisor's.
    fn alloc_unbound(&mut self, domain: DomId, remote: DomId) -> Result<Port, ControlError>;

    /// Frame of the first page of its grant table (`GNTTABOP_setup_table`).
    ///
    /// # Errors
    /// The hypervisor's.
    fn grant_frame(&mut self, domain: DomId) -> Result<Mfn, ControlError>;

    /// Sets the state in which its virtual CPU 0 starts (`XEN_DOMCTL_setvcpucontext`).
    ///
    /// # Errors
    /// The hypervisor's.
    fn set_vcpu(&mut self, domain: DomId, context: &VcpuGuestContext) -> Result<(), ControlError>;

    /// What is known of a domain (`XEN_DOMCTL_getdomaininfo`).
    ///
    /// # Errors
    /// `ESRCH`: there is none with this number.
    fn info(&mut self, domain: DomId) -> Result<DomainInfo, ControlError>;

    /// Holds a domain (`XEN_DOMCTL_pausedomain`).
    ///
    /// # Errors
    /// The hypervisor's.
    fn pause(&mut self, domain: DomId) -> Result<(), ControlError>;

    /// Lets a domain run (`XEN_DOMCTL_unpausedomain`).
    ///
    /// # Errors
    /// The hypervisor's.
    fn unpause(&mut self, domain: DomId) -> Result<(), ControlError>;

    /// Takes a domain down (`XEN_DOMCTL_destroydomain`), to its end.
    ///
    /// # Errors
    /// The hypervisor's.
    fn destroy(&mut self, domain: DomId) -> Result<(), ControlError>;
}
