//! The workloads, as the guest's `bench` has them.

/// One of them.
#[derive(Debug)]
pub(crate) struct Workload {
    /// The number of its window.
    pub(crate) window: u8,
    pub(crate) name: &'static str,
    pub(crate) title: &'static str,
    /// What one operation is.
    pub(crate) operation: &'static str,
    /// It is something that only a kernel that knows of Xen does.
    pub(crate) calls_xen: bool,
}

const fn row(window: u8, name: &'static str, title: &'static str, operation: &'static str) -> Workload {
    Workload { window, name, title, operation, calls_xen: false }
}

const fn xen(window: u8, name: &'static str, title: &'static str, operation: &'static str) -> Workload {
    Workload { calls_xen: true, ..row(window, name, title, operation) }
}

/// All of them, in the order of the report.
pub(crate) static WORKLOADS: [Workload; 23] = [
    row(1, "null_syscall", "null system call", "a getpid and back"),
    xen(13, "hypercall", "null hypercall", "a xen_version and back"),
    row(23, "cpuid", "CPUID", "the instruction, in the kernel"),
    row(2, "page_fault", "page fault", "the first touch of a page"),
    row(3, "mmap_munmap_1mib", "mmap, munmap of 1 MiB", "map 1 MiB, touch its 256 pages, unmap it"),
    row(4, "fork_exit", "fork + exit", "fork a process that ends, wait for it"),
    row(5, "fork_exec", "fork + exec", "fork a process that becomes another program, wait for it"),
    row(6, "context_switch_2", "context switch, 2 processes", "from one process to the next"),
    row(7, "context_switch_16", "context switch, 16 processes", "from one process to the next"),
    row(8, "timer_interrupt", "timer interrupt", "sleep 200 µs: program the timer, idle, wake"),
    row(14, "ipi", "interrupt to the CPU itself", "send it and take it"),
    xen(15, "event_ping_pong", "event ping-pong of two guests", "an event to another guest and one back"),
    row(16, "block_read_4k_random", "disk: read 4 KiB, random", "a request"),
    row(17, "block_write_4k_random", "disk: write 4 KiB, random", "a request"),
    row(18, "block_read_128k_sequential", "disk: read 128 KiB, sequential", "a request"),
    row(19, "block_write_128k_sequential", "disk: write 128 KiB, sequential", "a request"),
    row(20, "net_packets_64", "network: 64-byte packets", "a packet and its echo, eight in flight"),
    row(21, "net_tcp_stream", "network: TCP stream", "64 KiB received"),
    row(22, "net_round_trip", "network: round trip", "a packet and its echo"),
    row(9, "walk_few_misses", "memory walk, few TLB misses", "a read in one of 16 pages"),
    row(10, "walk_many_misses", "memory walk, many TLB misses", "a read in the next of 2,048 pages"),
    row(11, "arithmetic", "arithmetic", "a multiplication, an addition, a shift"),
    row(12, "compile_mix", "compile-like mix", "a process that grows, hashes and sorts 32 KiB of text"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_and_names_are_unique() {
        for workload in &WORKLOADS {
            let same = |other: &&Workload| other.window == workload.window || other.name == workload.name;
            assert_eq!(WORKLOADS.iter().filter(same).count(), 1, "{workload:?}");
        }
    }
}
