//! The report: rows of cells, and what the differences between them are due to.

use std::collections::BTreeMap;

use serde::Serialize;

use super::bounds::{Bound, bounds};
use super::figures::{Cell, Measured, Share, attribute};
use super::modes::Column;
use super::workloads::Workload;

/// A workload in all modes.
#[derive(Serialize)]
pub(super) struct Row {
    pub(super) name: &'static str,
    pub(super) title: &'static str,
    pub(super) operation: &'static str,
    /// It is something that only a kernel that knows of Xen does.
    pub(super) calls_xen: bool,
    /// By the mode's name.
    pub(super) modes: BTreeMap<&'static str, Cell>,
    pub(super) attribution: Vec<Attribution>,
}

/// What the difference between two modes is due to.
#[derive(Serialize)]
pub(super) struct Attribution {
    pub(super) from: &'static str,
    pub(super) to: &'static str,
    /// Instructions for one operation, all parts together.
    pub(super) difference: f64,
    pub(super) parts: Vec<Share>,
}

/// The pairs of modes whose difference is told.
const PAIRS: [(Column, Column); 7] = [
    (Column::Native, Column::Pv),
    (Column::Native, Column::Pvh),
    (Column::Native, Column::Hvm),
    (Column::Native, Column::XenPv),
    (Column::Pv, Column::XenPv),
    (Column::Pvh, Column::Hvm),
    (Column::Pvh, Column::XenPvh),
];

impl Row {
    pub(super) fn new(workload: &'static Workload, cells: Vec<(Column, Cell)>) -> Self {
        let modes: BTreeMap<&'static str, Cell> =
            cells.into_iter().map(|(column, cell)| (column.name(), cell)).collect();
        let attribution = PAIRS
            .into_iter()
            .filter_map(|(from, to)| {
                let (before, after) = (modes.get(from.name())?.measured()?, modes.get(to.name())?.measured()?);
                let difference = after.total_instructions - before.total_instructions;
                Some(Attribution { from: from.name(), to: to.name(), difference, parts: attribute(before, after) })
            })
            .collect();
        let Workload { name, title, operation, calls_xen, .. } = *workload;
        Self { name, title, operation, calls_xen, modes, attribution }
    }

    /// The figures of a mode, if it has any.
    pub(super) fn measured(&self, column: Column) -> Option<&Measured> {
        self.modes.get(column.name())?.measured()
    }
}

/// All that was measured.
#[derive(Serialize)]
pub(super) struct Report {
    pub(super) workloads: Vec<Row>,
    pub(super) bounds: Vec<Bound>,
}

impl Report {
    pub(super) fn new(workloads: Vec<Row>) -> Self {
        let bounds = bounds(&workloads);
        Self { workloads, bounds }
    }

    /// Whether every cell has figures that can have some: a kernel that knows of no hypervisor calls none.
    pub(super) fn is_complete(&self) -> bool {
        let has_all = |row: &Row| {
            let needed = |column: &Column| !(row.calls_xen && column.is_unmodified());
            Column::ALL.iter().filter(|column| needed(column)).all(|column| row.measured(*column).is_some())
        };
        self.workloads.iter().all(has_all)
    }
}
