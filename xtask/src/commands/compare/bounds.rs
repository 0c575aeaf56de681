//! What this project wants to hold between modes, and whether it does.

use serde::Serialize;

use super::figures::Measured;
use super::modes::Column;
use super::report::Row;

/// What is compared of a workload.
#[derive(Clone, Copy)]
enum Figure {
    /// The guest's kernel and the hypervisor together.
    KernelAndHypervisor,
    /// All that is not the guest's: the hypervisor and the service domain.
    Outside,
    /// The hypervisor's, from a CPUID that stops the guest until the guest goes on.
    CpuidExit,
}

impl Figure {
    fn of(self, measured: &Measured) -> f64 {
        match self {
            Self::KernelAndHypervisor => measured.kernel_instructions + measured.hypervisor_instructions,
            Self::Outside => measured.total_instructions - measured.guest_instructions,
            Self::CpuidExit => measured.exit_instructions.get("cpuid").copied().unwrap_or(f64::NAN),
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::KernelAndHypervisor => "kernel and hypervisor",
            Self::Outside => "outside of the guest",
            Self::CpuidExit => "CPUID exit and back",
        }
    }
}

/// A bound: of a workload one mode takes at most so much of what another takes.
struct Wanted {
    workload: &'static str,
    figure: Figure,
    modes: [Column; 2],
    limit: f64,
}

const fn wanted(workload: &'static str, figure: Figure, modes: [Column; 2], limit: f64) -> Wanted {
    Wanted { workload, figure, modes, limit }
}

const PVH_TO_HVM: [Column; 2] = [Column::Pvh, Column::Hvm];

static WANTED: [Wanted; 11] = [
    wanted("null_syscall", Figure::KernelAndHypervisor, [Column::Pv, Column::XenPv], 0.5),
    wanted("null_syscall", Figure::KernelAndHypervisor, [Column::Pvh, Column::Native], 1.02),
    wanted("cpuid", Figure::CpuidExit, [Column::Hvm, Column::XenPvh], 0.5),
    wanted("cpuid", Figure::CpuidExit, [Column::Pvh, Column::XenPvh], 0.5),
    wanted("block_read_4k_random", Figure::Outside, PVH_TO_HVM, 0.5),
    wanted("block_write_4k_random", Figure::Outside, PVH_TO_HVM, 0.5),
    wanted("block_read_128k_sequential", Figure::Outside, PVH_TO_HVM, 0.5),
    wanted("block_write_128k_sequential", Figure::Outside, PVH_TO_HVM, 0.5),
    wanted("net_packets_64", Figure::Outside, PVH_TO_HVM, 0.5),
    wanted("net_tcp_stream", Figure::Outside, PVH_TO_HVM, 0.5),
    wanted("net_round_trip", Figure::Outside, PVH_TO_HVM, 0.5),
];

/// A bound, with what was measured.
#[derive(Serialize, PartialEq, Debug)]
pub(super) struct Bound {
    pub(super) workload: &'static str,
    pub(super) title: &'static str,
    pub(super) figure: &'static str,
    pub(super) modes: [&'static str; 2],
    /// Instructions of an operation, in each mode.
    pub(super) instructions: [f64; 2],
    pub(super) ratio: f64,
    pub(super) limit: f64,
    pub(super) holds: bool,
}

/// The bounds of which both sides were measured.
pub(super) fn bounds(rows: &[Row]) -> Vec<Bound> {
    let bound = |wanted: &Wanted| {
        let row = rows.iter().find(|row| row.name == wanted.workload)?;
        let [left, right] = wanted.modes.map(|column| row.measured(column).map(|measured| wanted.figure.of(measured)));
        let instructions = [left?, right?];
        let ratio = instructions[0] / instructions[1];
        ratio.is_finite().then(|| Bound {
            workload: row.name,
            title: row.title,
            figure: wanted.figure.name(),
            modes: wanted.modes.map(Column::title),
            instructions,
            ratio,
            limit: wanted.limit,
            holds: ratio <= wanted.limit,
        })
    };
    WANTED.iter().filter_map(bound).collect()
}

#[cfg(test)]
mod tests {
    use super::super::figures::Cell;
    use super::super::workloads::WORKLOADS;
    use super::*;

    fn row(cells: &[(Column, f64)]) -> Row {
        let workload = WORKLOADS.iter().find(|workload| workload.name == "null_syscall").expect("a workload");
        let cell = |(column, kernel): &(Column, f64)| {
            let measured = Measured { kernel_instructions: *kernel, ..Measured::default() };
            (*column, Cell::Measured(Box::new(measured)))
        };
        Row::new(workload, cells.iter().map(cell).collect())
    }

    #[test]
    fn a_bound_holds_or_does_not() {
        let row = row(&[(Column::Pv, 60.0), (Column::XenPv, 100.0), (Column::Pvh, 101.0), (Column::Native, 100.0)]);
        let found: Vec<_> = bounds(&[row]).iter().map(|bound| (bound.ratio, bound.holds)).collect();
        assert_eq!(found, [(0.6, false), (1.01, true)]);
    }

    #[test]
    fn what_was_not_measured_is_bound_to_nothing() {
        assert_eq!(bounds(&[row(&[(Column::Pv, 60.0)])]), []);
    }

    #[test]
    fn every_bound_is_of_a_workload() {
        for wanted in &WANTED {
            assert!(WORKLOADS.iter().any(|workload| workload.name == wanted.workload), "{}", wanted.workload);
        }
    }
}
