//! What a toolstack chose for a domain.

use alloc::vec::Vec;

use pv_abi::arch::{CpuidLeaf, XEN_X86_MSR_RELAXED};
use pv_abi::domctl::DomctlCreatedomain;

/// How the domain's time-stamp counter behaves (`XEN_DOMCTL_settscinfo`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TscSettings {
    /// `TSC_MODE_*`; all are the native counter here.
    pub mode: u32,
    /// Counts up when the domain is restored.
    pub incarnation: u32,
    /// The frequency it was given, in kHz; 0 for the machine's.
    pub khz: u32,
    /// The nanoseconds that had passed for it when it was given them.
    pub elapsed_ns: u64,
}

/// The privileged domain's choices for a domain.
#[derive(Debug, Default)]
pub struct Settings {
    /// The leaves of its CPUID policy, in order; empty for what all PV guests see.
    pub cpu_policy: Vec<CpuidLeaf>,
    /// The highest of the hypervisor's leaves that it sees.
    pub hypervisor_leaves: Option<u32>,
    /// Whether reads of unknown registers give zero and writes are dropped (`XEN_X86_MSR_RELAXED`).
    pub relaxed_msrs: bool,
    /// Its time-stamp counter.
    pub tsc: TscSettings,
    /// How many vCPUs it was made for.
    pub max_vcpus: u32,
    /// It ran once: its policy stays as it is.
    pub started: bool,
    /// `XEN_DOMCTL_CDF_*` as it was made with.
    pub flags: u32,
    /// `XEN_X86_EMU_*` as it was made with.
    pub emulation_flags: u32,
    /// The security label, which nothing looks at.
    pub security_label: u32,
    /// Seconds that its wall clock is ahead of the machine's (`XEN_DOMCTL_settimeoffset`).
    pub time_offset_seconds: i64,
    /// Where the taking apart of it goes on.
    pub destroy_step: super::destroy::Step,
}

impl Settings {
    /// The settings that a toolstack makes a domain with.
    #[must_use]
    pub fn from_request(request: &DomctlCreatedomain) -> Self {
        Self {
            max_vcpus: request.max_vcpus,
            flags: request.flags,
            emulation_flags: request.arch.emulation_flags,
            relaxed_msrs: request.arch.misc_flags & XEN_X86_MSR_RELAXED != 0,
            security_label: request.ssidref,
            ..Self::default()
        }
    }
}
