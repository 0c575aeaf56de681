//! What others have published, to stand beside our figures. Microseconds unless the unit says otherwise.

use serde::Serialize;

/// A figure of two systems.
#[derive(Serialize)]
pub(super) struct Published {
    /// Our workload that is most like it, if there is one.
    pub(super) workload: &'static str,
    pub(super) what: &'static str,
    pub(super) unit: &'static str,
    /// Who, and the figure.
    pub(super) left: (&'static str, f64),
    pub(super) right: (&'static str, f64),
    pub(super) source: &'static str,
}

const SOSP03: &str = "Barham et al., Xen and the Art of Virtualization, SOSP 2003, tables 3 to 5";
const PVM: &str = "Huang et al., PVM, SOSP 2023";

const fn xen(workload: &'static str, what: &'static str, xen: f64, linux: f64) -> Published {
    Published { workload, what, unit: "µs", left: ("Xen PV", xen), right: ("native Linux", linux), source: SOSP03 }
}

const fn pvm(
    workload: &'static str,
    what: &'static str,
    left: (&'static str, f64),
    right: (&'static str, f64),
) -> Published {
    Published { workload, what, unit: "µs", left, right, source: PVM }
}

/// All of them.
pub(super) static PUBLISHED: [Published; 14] = [
    xen("null_syscall", "null call", 0.46, 0.45),
    xen("fork_exit", "fork", 198.0, 110.0),
    xen("fork_exec", "exec", 768.0, 530.0),
    xen("", "sh", 4800.0, 4000.0),
    xen("context_switch_2", "context switch, 2 processes", 1.97, 0.77),
    xen("mmap_munmap_1mib", "mmap", 139.0, 68.0),
    xen("", "protection fault", 1.40, 1.06),
    xen("page_fault", "page fault", 2.73, 1.42),
    Published { unit: "Mb/s", ..xen("net_tcp_stream", "TCP at an MTU of 1500", 897.0, 897.0) },
    pvm("hypercall", "hypercall", ("PVM", 0.54), ("KVM", 0.46)),
    pvm("hypercall", "hypercall, nested", ("PVM", 0.48), ("KVM", 7.43)),
    pvm("null_syscall", "system call", ("PVM", 0.29), ("KVM", 0.22)),
    pvm("fork_exit", "fork", ("PVM", 437.0), ("KVM", 82.0)),
    pvm("page_fault", "page fault", ("PVM", 0.88), ("KVM", 0.15)),
];
