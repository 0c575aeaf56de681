//! What the toolstack's commands ask of the hypervisor, beyond building domains.
//!
//! Source: Xen `public/domctl.h`, `public/sysctl.h`, `public/version.h`.
#![expect(unsafe_code, reason = "control operations read and write memory that their arguments name")]

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use dom0::ids::DomId;
use dom0::toolstack::control::{Control, ControlError, DomainInfo};
use dom0::toolstack::cpus::CpuSet;
use dom0::toolstack::report::VcpuRow;
use pv_abi::arch::VcpuGuestContext;
use pv_abi::domctl::{self as abi, XEN_VCPUAFFINITY_HARD, XEN_VCPUAFFINITY_SOFT};
use pv_abi::sysctl::{self, SysctlPhysinfo};
use pv_abi::version::{self, CompileInfo};
use pv_abi::xen::{CtlBitmap, HYPERVISOR_XEN_VERSION};
use pv_guest_kernel::platform::pv::hypercall;
use zerocopy::{FromZeros, IntoBytes};

use super::control::{Xen, domctl, simple, sysctl};

/// The machine (`XEN_SYSCTL_physinfo`).
pub(crate) fn machine() -> Result<SysctlPhysinfo, ControlError> {
    let payload = SysctlPhysinfo::new_zeroed();
    // SAFETY: the payload names no memory.
    unsafe { sysctl("asking about the machine", sysctl::XEN_SYSCTL_PHYSINFO, payload) }
}

/// The highest version of the grant tables that the hypervisor has for guests.
pub(super) fn grant_version() -> u32 {
    let has_second = machine().is_ok_and(|machine| machine.capabilities & sysctl::XEN_SYSCTL_PHYSCAP_GNTTAB_V2 != 0);
    if has_second { 2 } else { 1 }
}

/// Whether the machine has hardware assistance, for memory too.
pub(crate) fn has_assistance() -> bool {
    const BOTH: u32 = sysctl::XEN_SYSCTL_PHYSCAP_HVM | sysctl::XEN_SYSCTL_PHYSCAP_HAP;
    machine().is_ok_and(|machine| machine.capabilities & BOTH == BOTH)
}

/// Sends the hypervisor keys (`XEN_SYSCTL_debug_keys`).
pub(crate) fn debug_keys(keys: &str) -> Result<(), ControlError> {
    let mut payload = sysctl::SysctlDebugKeys::new_zeroed();
    payload.keys = keys.as_ptr() as u64;
    payload.nr_keys = u32::try_from(keys.len()).unwrap_or(0);
    // SAFETY: Xen reads the `nr_keys` bytes of `keys`.
    unsafe { sysctl("sending keys", sysctl::XEN_SYSCTL_DEBUG_KEYS, payload) }.map(drop)
}

impl Xen {
    /// A domain's virtual CPUs.
    pub(crate) fn vcpus(&self, name: &str, info: &DomainInfo) -> Result<Vec<VcpuRow>, ControlError> {
        (0..=info.max_vcpu).map(|vcpu| vcpu_row(name, info.domain, vcpu)).collect()
    }

    /// Says where a virtual CPU may run, and where it likes to (`XEN_DOMCTL_setvcpuaffinity`).
    pub(crate) fn pin(
        &mut self,
        domain: DomId,
        vcpu: u32,
        hard: Option<CpuSet>,
        soft: Option<CpuSet>,
    ) -> Result<(), ControlError> {
        let flag = |set: Option<CpuSet>, flag| if set.is_some() { flag } else { 0 };
        let flags = flag(hard, XEN_VCPUAFFINITY_HARD) | flag(soft, XEN_VCPUAFFINITY_SOFT);
        let mut bits = [hard.unwrap_or(CpuSet::ALL).0, soft.unwrap_or(CpuSet::ALL).0];
        affinity("pinning a virtual CPU", abi::XEN_DOMCTL_SETVCPUAFFINITY, (domain, vcpu), flags, &mut bits)
    }

    /// Sends a virtual CPU a non-maskable interrupt (`XEN_DOMCTL_sendtrigger`).
    pub(crate) fn send_nmi(&mut self, domain: DomId, vcpu: u32) -> Result<(), ControlError> {
        let mut payload = abi::DomctlSendtrigger::new_zeroed();
        payload.trigger = abi::XEN_DOMCTL_SENDTRIGGER_NMI;
        payload.vcpu = vcpu;
        domctl("sending an interrupt", abi::XEN_DOMCTL_SENDTRIGGER, domain, payload).map(drop)
    }

    /// Lets a domain that suspended go on where it was: its `SCHEDOP_shutdown` returns 1 (`XEN_DOMCTL_resumedomain`).
    pub(crate) fn resume_cancelled(&mut self, domain: DomId) -> Result<(), ControlError> {
        let mut context = alloc::boxed::Box::new(VcpuGuestContext::new_zeroed());
        let mut payload = abi::DomctlVcpucontext::new_zeroed();
        payload.ctxt = &raw mut *context as u64;
        domctl("reading a virtual CPU", abi::XEN_DOMCTL_GETVCPUCONTEXT, domain, payload)?;
        context.user_regs.rax = 1;
        self.set_vcpu(domain, &context)?;
        simple("resuming a domain", abi::XEN_DOMCTL_RESUMEDOMAIN, domain)
    }
}

fn vcpu_row(name: &str, domain: DomId, vcpu: u32) -> Result<VcpuRow, ControlError> {
    let mut payload = abi::DomctlGetvcpuinfo::new_zeroed();
    payload.vcpu = vcpu;
    let (_, info) = domctl("asking about a virtual CPU", abi::XEN_DOMCTL_GETVCPUINFO, domain, payload)?;
    let mut bits = [0; 2];
    let flags = XEN_VCPUAFFINITY_HARD | XEN_VCPUAFFINITY_SOFT;
    let what = "asking where a virtual CPU may run";
    affinity(what, abi::XEN_DOMCTL_GETVCPUAFFINITY, (domain, vcpu), flags, &mut bits)?;
    Ok(VcpuRow {
        name: name.into(),
        domain,
        vcpu,
        cpu: info.cpu,
        online: info.online != 0,
        blocked: info.blocked != 0,
        running: info.running != 0,
        cpu_time_ns: info.cpu_time,
        affinity: (CpuSet(bits[0]), CpuSet(bits[1])),
    })
}

/// Sets or gets where a virtual CPU may run (`bits[0]`) and likes to (`bits[1]`).
fn affinity(
    what: &'static str,
    command: u32,
    (domain, vcpu): (DomId, u32),
    flags: u32,
    bits: &mut [u64; 2],
) -> Result<(), ControlError> {
    let mut map =
        |place: usize| CtlBitmap { bitmap: &raw mut bits[place] as u64, nr_bits: 64, ..CtlBitmap::new_zeroed() };
    let mut payload = abi::DomctlVcpuaffinity::new_zeroed();
    payload.vcpu = vcpu;
    payload.flags = flags;
    payload.cpumap_hard = map(0);
    payload.cpumap_soft = map(1);
    domctl(what, command, domain, payload).map(drop)
}

fn ask(command: u32, out: u64) -> u64 {
    let args = [u64::from(command), out, 0, 0, 0];
    // SAFETY: each caller names an array or struct of the length that its command fills, or none.
    unsafe { hypercall::call(HYPERVISOR_XEN_VERSION, args) }.unwrap_or(0)
}

fn text(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end]).trim_end().into()
}

fn ask_text<const N: usize>(command: u32) -> String {
    let mut bytes = [0_u8; N];
    ask(command, bytes.as_mut_ptr() as u64);
    text(&bytes)
}

/// What the machine and the hypervisor are, with the names of `xl info`; at the end what is free exactly, of the machine and
/// of this domain.
pub(crate) fn info() -> Result<String, ControlError> {
    let machine = machine()?;
    let number = ask(version::XENVER_VERSION, 0);
    let (major, minor) = (number >> 16, number & 0xffff);
    let extra = ask_text::<{ version::XEN_EXTRAVERSION_LEN }>(version::XENVER_EXTRAVERSION);
    let mut compiled = CompileInfo::new_zeroed();
    ask(version::XENVER_COMPILE_INFO, &raw mut compiled as u64);
    let mut hole = version::PlatformParameters::new_zeroed();
    ask(version::XENVER_PLATFORM_PARAMETERS, &raw mut hole as u64);
    let words: Vec<String> = machine.hw_cap.iter().map(|word| format!("{word:08x}")).collect();
    let mib = |pages: u64| format!("{}", pages >> 8);
    let kinds = [(sysctl::XEN_SYSCTL_PHYSCAP_PV, "pv"), (sysctl::XEN_SYSCTL_PHYSCAP_HVM, "hvm")];
    let kinds = kinds.iter().filter(|(bit, _)| machine.capabilities & bit != 0).map(|(_, name)| *name);
    let rows = [
        ("machine", "x86_64".into()),
        ("nr_cpus", format!("{}", machine.nr_cpus)),
        ("max_cpu_id", format!("{}", machine.max_cpu_id)),
        ("nr_nodes", format!("{}", machine.nr_nodes)),
        ("cores_per_socket", format!("{}", machine.cores_per_socket)),
        ("threads_per_core", format!("{}", machine.threads_per_core)),
        ("cpu_mhz", format!("{}.{:03}", machine.cpu_khz / 1000, machine.cpu_khz % 1000)),
        ("hw_caps", words.join(":")),
        ("virt_caps", kinds.collect::<Vec<_>>().join(" ")),
        ("total_memory", mib(machine.total_pages)),
        ("free_memory", mib(machine.free_pages)),
        ("outstanding_claims", format!("{}", machine.outstanding_pages)),
        ("xen_major", format!("{major}")),
        ("xen_minor", format!("{minor}")),
        ("xen_extra", extra.clone()),
        ("xen_version", format!("{major}.{minor}{extra}")),
        ("xen_caps", ask_text::<{ version::XEN_CAPABILITIES_INFO_LEN }>(version::XENVER_CAPABILITIES)),
        ("xen_pagesize", format!("{}", ask(version::XENVER_PAGESIZE, 0))),
        ("platform_params", format!("virt_start={:#x}", hole.virt_start)),
        ("xen_changeset", ask_text::<{ version::XEN_CHANGESET_INFO_LEN }>(version::XENVER_CHANGESET)),
        ("xen_commandline", ask_text::<{ version::XEN_COMMANDLINE_LEN }>(version::XENVER_COMMANDLINE)),
        ("cc_compiler", text(compiled.compiler.as_bytes())),
        ("cc_compile_by", text(compiled.compile_by.as_bytes())),
        ("cc_compile_domain", text(compiled.compile_domain.as_bytes())),
        ("cc_compile_date", text(compiled.compile_date.as_bytes())),
        ("free_memory_kib", format!("{}", machine.free_pages << 2)),
        ("dom0_free_memory_kib", format!("{}", pv_guest_kernel::mm::available_bytes() >> 10)),
    ];
    let lines: Vec<String> = rows.iter().map(|(name, value)| format!("{name:<23}: {value}")).collect();
    Ok(lines.join("\n"))
}
