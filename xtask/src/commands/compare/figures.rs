//! From a counted run to figures for one operation.
//!
//! Invariant: user, kernel, hypervisor and service instructions of a cell add up to its total, and the parts of the
//! hypervisor's (by exit) to the hypervisor's.

use std::collections::BTreeMap;

use serde::Serialize;

use super::measure::{Counted, Entry, Line, Record, Vectors};
use super::workloads::Workload;

/// Figures by name, for one operation.
pub(super) type Figures = BTreeMap<String, f64>;

/// What is known of a workload in a mode.
#[derive(Clone, Serialize, Debug)]
#[serde(untagged)]
pub(super) enum Cell {
    Measured(Box<Measured>),
    Missing {
        /// Why.
        unavailable: String,
    },
}

impl Cell {
    pub(super) fn missing(reason: &str) -> Self {
        Self::Missing { unavailable: reason.to_owned() }
    }

    pub(super) fn measured(&self) -> Option<&Measured> {
        match self {
            Self::Measured(measured) => Some(measured),
            Self::Missing { .. } => None,
        }
    }
}

/// The figures of one operation.
#[derive(Clone, Default, Serialize, Debug)]
pub(super) struct Measured {
    /// Operations in the window.
    pub(super) operations: u64,
    /// User programs and the kernel of the guest.
    pub(super) guest_instructions: f64,
    pub(super) user_instructions: f64,
    pub(super) kernel_instructions: f64,
    pub(super) hypervisor_instructions: f64,
    /// The service domain: dom0.
    pub(super) service_instructions: f64,
    pub(super) total_instructions: f64,
    /// Ways into the hypervisor, by kind.
    pub(super) exits: Figures,
    /// What the hypervisor executed for each kind.
    pub(super) exit_instructions: Figures,
    /// Ways from user mode into the guest's kernel that no hypervisor saw.
    pub(super) traps: Figures,
    pub(super) page_table_updates: f64,
    /// Instructions that make a TLB forget: CR3 and CR4 written, INVLPG and its like.
    pub(super) tlb_flushes: f64,
    /// Privileged instructions that were executed, whoever did.
    pub(super) privileged: Figures,
    pub(super) serializing: f64,
    /// Returns by `iret`.
    pub(super) irets: f64,
    /// Time by the machine's clock, idle time included: 32 ns an instruction where it counts them.
    pub(super) virtual_ns: f64,
    /// Host time against the native mode's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) host_time: Option<super::timing::Ratio>,
    /// Cycles of the crossings on CPUs that others have measured: a model, not a measurement.
    pub(super) model: Vec<super::model::Modelled>,
}

const TLB_FLUSHES: [&str; 5] = ["mov_to_cr3", "mov_to_cr4", "invlpg", "invpcid", "invlpga"];
/// Those that wait until all before them is done (AMD APM 3, "serializing").
const SERIALIZING: [&str; 13] = [
    "mov_to_cr0",
    "mov_to_cr3",
    "mov_to_cr4",
    "mov_dr",
    "wrmsr",
    "invlpg",
    "invpcid",
    "invlpga",
    "load_table",
    "cpuid",
    "iret",
    "vmrun",
    "wbinvd",
];
/// Counted, but allowed in ring 3.
const UNPRIVILEGED: [&str; 2] = ["cpuid", "iret"];

/// The cell of a workload: the round in which the machine did least beside it.
pub(super) fn cell(counted: &Counted, workload: &Workload) -> Cell {
    let Some(lines) = counted.lines.get(workload.name) else {
        return Cell::missing("the guest has no such workload");
    };
    if let Some(reason) = lines.iter().find_map(|line| line.as_ref().err()) {
        return Cell::missing(reason);
    }
    let records = counted.records.iter().filter(|record| record.window == workload.window);
    let rounds = lines.iter().flatten().zip(records);
    match rounds.min_by_key(|(_, record)| record.instructions.values().sum::<u64>()) {
        Some((line, record)) => Cell::Measured(Box::new(measured(record, line, &counted.vectors))),
        None => Cell::missing("the counting plugin saw no such window"),
    }
}

fn measured(record: &Record, line: &Line, vectors: &Vectors) -> Measured {
    let each = |count: u64| count as f64 / line.operations as f64;
    let place = |name: &str| each(record.instructions.get(name).copied().unwrap_or(0));
    let (mut exits, mut exit_instructions, mut traps) = (Figures::new(), Figures::new(), Figures::new());
    for entry in &record.entries {
        let kind = kind_of(entry, vectors);
        if entry.to == "hypervisor" {
            *exits.entry(kind.clone()).or_default() += each(entry.count);
            *exit_instructions.entry(kind).or_default() += each(entry.instructions);
        } else {
            *traps.entry(kind).or_default() += each(entry.count);
        }
    }
    let mut kinds = Figures::new();
    for (kind, count) in record.kinds.values().flatten() {
        *kinds.entry(kind.clone()).or_default() += each(*count);
    }
    let sum = |names: &[&str]| names.iter().filter_map(|name| kinds.get(*name)).fold(0.0, |sum, count| sum + count);
    let (tlb_flushes, serializing) = (sum(&TLB_FLUSHES), sum(&SERIALIZING));
    let irets = sum(&["iret"]);
    kinds.retain(|kind, _| !UNPRIVILEGED.contains(&kind.as_str()));
    let mut measured = Measured {
        operations: line.operations,
        guest_instructions: place("user") + place("kernel"),
        user_instructions: place("user"),
        kernel_instructions: place("kernel"),
        hypervisor_instructions: place("hypervisor"),
        service_instructions: place("service"),
        total_instructions: each(record.instructions.values().sum()),
        exits,
        exit_instructions,
        traps,
        page_table_updates: each(line.entries),
        tlb_flushes,
        privileged: kinds,
        serializing,
        irets,
        virtual_ns: each(line.nanoseconds),
        host_time: None,
        model: Vec::new(),
    };
    measured.model = super::model::cycles(&measured);
    measured
}

/// What a way in is called.
fn kind_of(entry: &Entry, vectors: &Vectors) -> String {
    let kind = match (vectors.get(&entry.address), entry.from.as_str(), entry.hypercall) {
        _ if entry.cause.is_some() && entry.hypercall.is_none() => entry.cause.as_deref().unwrap_or_default(),
        (Some(vector), _, _) => exception(*vector),
        (None, "kernel", Some(number)) => hypercall(number),
        (None, "kernel" | "service", _) => "hypercall",
        _ => "syscall",
    };
    if entry.from == "service" { format!("service: {kind}") } else { kind.to_owned() }
}

fn exception(vector: usize) -> &'static str {
    match vector {
        0 => "divide_error",
        1 => "debug",
        2 => "nmi",
        3 => "breakpoint",
        6 => "invalid_opcode",
        7 => "device_not_available",
        8 => "double_fault",
        13 => "general_protection",
        14 => "page_fault",
        16 | 19 => "floating_point",
        17 => "alignment_check",
        18 => "machine_check",
        32.. => "interrupt",
        _ => "exception",
    }
}

/// A hypercall's name by its number (Xen `public/xen.h`).
fn hypercall(number: u64) -> &'static str {
    match number {
        1 => "mmu_update",
        3 => "stack_switch",
        5 => "fpu_taskswitch",
        12 => "memory_op",
        13 => "multicall",
        14 => "update_va_mapping",
        15 => "set_timer_op",
        17 => "xen_version",
        18 => "console_io",
        20 => "grant_table_op",
        23 => "iret",
        24 => "vcpu_op",
        25 => "set_segment_base",
        26 => "mmuext_op",
        29 => "sched_op",
        32 => "event_channel_op",
        33 => "physdev_op",
        34 => "hvm_op",
        _ => "other_hypercall",
    }
}

/// What a part of a difference is due to.
#[derive(Clone, Serialize, PartialEq, Debug)]
pub(super) struct Share {
    /// `user code`, `guest kernel`, `service domain`, `other`, or a kind of exit.
    pub(super) part: String,
    pub(super) instructions: f64,
}

/// The difference in instructions between two modes, part by part; the parts add up to it.
pub(super) fn attribute(from: &Measured, to: &Measured) -> Vec<Share> {
    let mut shares = vec![
        share("user code", from.user_instructions, to.user_instructions),
        share("guest kernel", from.kernel_instructions, to.kernel_instructions),
        share("service domain", from.service_instructions, to.service_instructions),
    ];
    let (rest_from, rest_to) = (from.unattributed(), to.unattributed());
    shares.push(share("other", rest_from, rest_to));
    let kinds: std::collections::BTreeSet<&String> =
        from.exit_instructions.keys().chain(to.exit_instructions.keys()).collect();
    let figure = |figures: &Figures, kind: &str| figures.get(kind).copied().unwrap_or(0.0);
    for kind in kinds {
        shares.push(share(kind, figure(&from.exit_instructions, kind), figure(&to.exit_instructions, kind)));
    }
    shares.retain(|share| share.instructions.abs() > 1e-9);
    shares.sort_by(|left, right| right.instructions.abs().total_cmp(&left.instructions.abs()));
    shares
}

fn share(part: &str, from: f64, to: f64) -> Share {
    Share { part: part.to_owned(), instructions: to - from }
}

impl Measured {
    /// Firmware's, and what the hypervisor did without an exit that ended in the window.
    fn unattributed(&self) -> f64 {
        let exits: f64 = self.exit_instructions.values().sum();
        self.total_instructions - self.guest_instructions - self.service_instructions - exits
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(from: &str, address: u64, hypercall: Option<u64>) -> Entry {
        let (to, from) = ("hypervisor".to_owned(), from.to_owned());
        Entry { to, from, address, hypercall, cause: None, count: 10, instructions: 700 }
    }

    fn record() -> Record {
        let instructions = [("user", 50), ("kernel", 100), ("hypervisor", 2100), ("service", 30), ("other", 0)];
        Record {
            window: 1,
            instructions: instructions.map(|(name, count)| (name.to_owned(), count)).into(),
            kinds: [("hypervisor".to_owned(), [("mov_to_cr3".to_owned(), 20), ("iret".to_owned(), 5)].into())].into(),
            entries: vec![entry("user", 0x500, None), entry("kernel", 0x500, Some(23)), entry("user", 14, None)],
        }
    }

    fn vectors() -> Vectors {
        (0..256).zip(0..).collect()
    }

    fn cell() -> Measured {
        measured(&record(), &Line { operations: 10, nanoseconds: 100, entries: 40 }, &vectors())
    }

    #[test]
    fn figures_are_for_one_operation() {
        let cell = cell();
        assert_eq!(
            (cell.guest_instructions, cell.hypervisor_instructions, cell.total_instructions),
            (15.0, 210.0, 228.0)
        );
        assert_eq!((cell.page_table_updates, cell.tlb_flushes, cell.serializing), (4.0, 2.0, 2.5));
        assert_eq!(cell.privileged, [("mov_to_cr3".to_owned(), 2.0)].into());
    }

    #[test]
    fn a_way_in_is_named_by_its_vector_or_its_hypercall() {
        let names: Vec<_> = cell().exits.into_keys().collect();
        assert_eq!(names, ["iret", "page_fault", "syscall"]);
        assert_eq!(kind_of(&entry("service", 33, None), &vectors()), "service: interrupt");
        assert_eq!(kind_of(&entry("service", 0x500, None), &vectors()), "service: hypercall");
        let stopped = Entry { cause: Some("hlt".to_owned()), ..entry("kernel", 0x500, None) };
        assert_eq!(kind_of(&stopped, &vectors()), "hlt");
    }

    #[test]
    fn an_attribution_adds_up_to_the_difference() {
        let native = Measured {
            kernel_instructions: 8.0,
            guest_instructions: 8.0,
            total_instructions: 8.0,
            ..Measured::default()
        };
        let pv = cell();
        let sum: f64 = attribute(&native, &pv).iter().map(|share| share.instructions).sum();
        assert!((sum - (pv.total_instructions - native.total_instructions)).abs() < 1e-9, "{sum}");
    }
}
