//! The operations of Xen 4.17's PV ABI: every hypercall, and below it each operation that the public headers name.
//!
//! The operations come from pv-abi's tables of constants (which are compared with the C headers), by prefix. What hv does
//! with one is derived: refused where [`REFUSED`] says why, implemented where hv's source names the constant, else
//! missing.

use std::collections::BTreeSet;
use std::path::Path;

use hv::hypercall;
use pv_abi::layout::{Constant, MODULES};

/// Every hypercall number of Xen 4.17 that a 64-bit PV guest can issue (Xen: public/xen.h, `__HYPERVISOR_*`), and where
/// the header's constants begin that are its operations; those after `!` are not.
const HYPERCALLS: &[(u64, &str, &str)] = &[
    (0, "set_trap_table", ""),
    (1, "mmu_update", "MMU_ !MMU_UPDATE_PREEMPTED"),
    (2, "set_gdt", ""),
    (3, "stack_switch", ""),
    (4, "set_callbacks", ""),
    (5, "fpu_taskswitch", ""),
    (6, "sched_op_compat", ""),
    (7, "platform_op", "XENPF_ !XENPF_INTERFACE_VERSION !XENPF_ACPI_SLEEP_EXTENDED"),
    (8, "set_debugreg", ""),
    (9, "get_debugreg", ""),
    (10, "update_descriptor", ""),
    (
        12,
        "memory_op",
        "XENMEM_ !XENMEM_paging_op_ !XENMEM_access_op_ !XENMEM_access_n !XENMEM_access_r !XENMEM_access_w \
         !XENMEM_access_x !XENMEM_access_default !XENMEM_sharing_op_ !XENMEM_SHARING !XENMEM_FORK !XENMEM_RDM \
         !XENMEM_resource_",
    ),
    (13, "multicall", ""),
    (14, "update_va_mapping", ""),
    (15, "set_timer_op", ""),
    (16, "event_channel_op_compat", ""),
    (17, "xen_version", "XENVER_"),
    (18, "console_io", "CONSOLEIO_"),
    (19, "physdev_op_compat", ""),
    (20, "grant_table_op", "GNTTABOP_"),
    (21, "vm_assist", "VMASST_TYPE_"),
    (22, "update_va_mapping_otherdomain", ""),
    (23, "iret", ""),
    (24, "vcpu_op", "VCPUOP_"),
    (25, "set_segment_base", "SEGBASE_"),
    (26, "mmuext_op", "MMUEXT_"),
    (27, "xsm_op", ""),
    (28, "nmi_op", "XENNMI_"),
    (29, "sched_op", "SCHEDOP_"),
    (30, "callback_op", "CALLBACKOP_"),
    (31, "xenoprof_op", ""),
    (32, "event_channel_op", "EVTCHNOP_"),
    (33, "physdev_op", "PHYSDEVOP_ !PHYSDEVOP_IRQ_ !PHYSDEVOP_DBGP_ !PHYSDEVOP_pirq_eoi_gmfn="),
    (34, "hvm_op", "HVMOP_ !HVMOP_ALTP2M"),
    (
        35,
        "sysctl",
        "XEN_SYSCTL_ !XEN_SYSCTL_INTERFACE !XEN_SYSCTL_TBUFOP !XEN_SYSCTL_PERFCOP !XEN_SYSCTL_LOCKPROF \
         !XEN_SYSCTL_COVERAGE !XEN_SYSCTL_PHYSCAP !XEN_SYSCTL_CPUPOOL !XEN_SYSCTL_SCHED !XEN_SYSCTL_CSCHED \
         !XEN_SYSCTL_CPU_ !XEN_SYSCTL_pm_op_ !XEN_SYSCTL_CX_ !XEN_SYSCTL_cpu_featureset_ !XEN_SYSCTL_cpu_policy_",
    ),
    (
        36,
        "domctl",
        "XEN_DOMCTL_ !XEN_DOMCTL_INTERFACE !XEN_DOMCTL_DEV_ !XEN_DOMCTL_VMSI !XEN_DOMCTL_CDF !XEN_DOMCTL_IOMMU \
         !XEN_DOMCTL_GRANT !XEN_DOMCTL_SENDTRIGGER !XEN_DOMCTL_MEM_ !XEN_DOMCTL_DELETE !XEN_DOMCTL_PFINFO \
         !XEN_DOMCTL_SHADOW !XEN_DOMCTL_VM_EVENT !XEN_DOMCTL_PSR !XEN_DOMCTL_MONITOR !XEN_DOMCTL_vmtrace_enable \
         !XEN_DOMCTL_vmtrace_disable !XEN_DOMCTL_vmtrace_reset !XEN_DOMCTL_vmtrace_output !XEN_DOMCTL_vmtrace_get \
         !XEN_DOMCTL_vmtrace_set !XEN_DOMCTL_SCHED !XEN_DOMCTL_DEBUG !XEN_DOMCTL_VUART",
    ),
    (37, "kexec_op", ""),
    (38, "tmem_op", ""),
    (39, "argo_op", ""),
    (40, "xenpmu_op", ""),
    (41, "dm_op", "XEN_DMOP_ !XEN_DMOP_no_gfns !XEN_DMOP_IO_RANGE_"),
    (42, "hypfs_op", ""),
    (
        48,
        "mca",
        "XEN_MC_ !XEN_MC_NON !XEN_MC_UR !XEN_MC_A !XEN_MC_OK !XEN_MC_FE !XEN_MC_NO !XEN_MC_C !XEN_MC_V !XEN_MC_I",
    ),
    (49, "paging_domctl_cont", ""),
];

/// Operations of hypercalls that hv and pv-abi do not have (Xen: public/{pmu,kexec,argo,hypfs,xenoprof,tmem}.h,
/// public/xsm/flask_op.h).
pub(crate) const UNTOLD: &[(&str, &str)] = &[
    ("xsm_op", "FLASK_*, 25 operations"),
    ("xenoprof_op", "XENOPROF_*, 18 operations"),
    ("kexec_op", "KEXEC_CMD_kexec, …_get_range, …_load, …_unload, …_status"),
    ("tmem_op", "removed from Xen before 4.17"),
    ("argo_op", "XEN_ARGO_OP_register_ring, …_unregister_ring, …_sendv, …_notify"),
    ("xenpmu_op", "XENPMU_mode_get, …_mode_set, …_feature_get, …_feature_set, …_init, …_finish, …_lvtpc_set, …_flush"),
    ("hypfs_op", "XEN_HYPFS_OP_get_version, …_read, …_write_contents"),
];

/// Operations that hv knows and refuses on purpose, with the reason.
const REFUSED: &[(&str, &str)] = &[
    ("XENMEM_set_pod_target", "a PV domain has no memory on demand; Xen refuses too"),
    ("XENMEM_get_pod_target", "a PV domain has no memory on demand; Xen refuses too"),
    ("XENMEM_get_vnumainfo", "no domain has virtual memory nodes"),
    ("MMUEXT_MARK_SUPER", "PV guests have no superpages; Xen refuses too"),
    ("MMUEXT_UNMARK_SUPER", "PV guests have no superpages; Xen refuses too"),
    ("GNTTABOP_transfer", "frames are not transferred"),
    ("XEN_DOMCTL_assign_device", "there is no IOMMU"),
    ("XEN_DOMCTL_test_assign_device", "there is no IOMMU"),
    ("XEN_DOMCTL_deassign_device", "there is no IOMMU"),
    ("XEN_DOMCTL_get_device_group", "there is no IOMMU"),
];

/// What is no hypercall and is checked, too.
pub(crate) const AREAS: &[(&str, &str)] = &[
    ("boot", "what a domain finds at its first instruction"),
    ("exceptions", "exceptions and interrupts by software: vector, error code, frame"),
    ("emulated_instructions", "privileged instructions that are carried out for the guest, and those that are not"),
    ("page_table_writes", "plain writes to page tables, carried out for the guest"),
    ("upcalls", "when the event callback is entered"),
    ("time", "system time in the shared page"),
];

/// What hv does with an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Here {
    Implemented,
    Refused(&'static str),
    Missing,
}

/// An operation: of a hypercall, or the hypercall itself.
#[derive(Clone, Debug)]
pub(crate) struct Operation {
    pub(crate) name: &'static str,
    pub(crate) number: i128,
    pub(crate) here: Here,
}

/// A hypercall and its operations; the first is the hypercall itself.
pub(crate) struct Hypercall {
    pub(crate) number: u64,
    pub(crate) name: &'static str,
    pub(crate) implemented: bool,
    pub(crate) operations: Vec<Operation>,
}

impl Hypercall {
    /// Whether it has operations of its own.
    pub(crate) fn has_operations(&self) -> bool {
        self.operations.len() > 1
    }
}

/// All hypercalls.
pub(crate) fn all() -> Vec<Hypercall> {
    let named = names_in_source();
    HYPERCALLS.iter().map(|(number, name, prefixes)| hypercall(*number, name, prefixes, &named)).collect()
}

fn hypercall(number: u64, name: &'static str, prefixes: &str, named: &BTreeSet<String>) -> Hypercall {
    let implemented = hypercall::IMPLEMENTED.contains(&(number, name));
    let here = if implemented { Here::Implemented } else { Here::Missing };
    let mut operations = vec![Operation { name, number: number.into(), here }];
    for constant in MODULES.iter().flat_map(|module| module.constants).filter(|constant| is_one(constant, prefixes)) {
        let here = match REFUSED.iter().find(|(refused, _)| *refused == constant.c_name) {
            Some((_, reason)) => Here::Refused(reason),
            None if implemented && named.contains(constant.name) => Here::Implemented,
            None => Here::Missing,
        };
        operations.push(Operation { name: constant.c_name, number: constant.value, here });
    }
    operations[1..].sort_by_key(|operation| operation.number);
    Hypercall { number, name, implemented, operations }
}

/// Whether a constant is an operation: it begins as one of the prefixes, and not as one with `!` (`=` ends a whole name).
fn is_one(constant: &Constant, prefixes: &str) -> bool {
    let name = format!("{}=", constant.c_name);
    let begins = |exclude: bool| {
        prefixes.split_whitespace().any(|prefix| match prefix.strip_prefix('!') {
            Some(excluded) => exclude && name.starts_with(excluded),
            None => !exclude && name.starts_with(prefix),
        })
    };
    begins(false) && !begins(true)
}

/// The words in hv's source that could be constants, but for its tests.
fn names_in_source() -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    collect(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/src")), &mut names);
    names
}

fn collect(folder: &Path, names: &mut BTreeSet<String>) {
    for entry in std::fs::read_dir(folder).expect("hv's source can be read") {
        let path = entry.expect("hv's source can be read").path();
        if path.file_stem().is_some_and(|stem| stem == "tests" || stem == "fake") {
            continue;
        }
        if path.is_dir() {
            collect(&path, names);
        } else {
            let text = std::fs::read_to_string(&path).expect("hv's source can be read");
            let code = text.split("#[cfg(test)]").next().unwrap_or_default();
            let words = code.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
            names.extend(words.filter(|word| word.len() > 4 && !word.contains(char::is_lowercase)).map(str::to_owned));
        }
    }
}
