//! `cargo xtask compare`: the same guest and the same workloads in every mode that this machine reaches.
//!
//! Counted figures come from one run a mode under a plugin of QEMU's translator (crate `counter`), in which time is counted
//! in instructions. Host time comes from other runs, without either, in pairs.

mod bounds;
mod figures;
mod html;
mod measure;
mod model;
mod modes;
mod published;
mod report;
mod serve;
mod table;
mod timing;
pub(crate) mod workloads;

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result, bail};
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};

use crate::artifacts::{self, Artifacts};
use crate::tools;
use figures::Cell;
use measure::{Counted, Lines};
use modes::Column;
use report::{Report, Row};
use timing::Ratio;
use workloads::{WORKLOADS, Workload};

#[derive(Args, Default)]
pub(crate) struct Options {
    /// Counted figures alone: no host time
    #[arg(long)]
    quick: bool,
    /// Print the report as JSON
    #[arg(long)]
    json: bool,
    /// Only workloads whose name holds this
    #[arg(long)]
    only: Option<String>,
    /// Only these modes, by their names in the JSON: native,pv,pvh,hvm,xen_pv,xen_pvh
    #[arg(long, value_delimiter = ',')]
    modes: Vec<String>,
}

impl Options {
    /// The modes, each with the reason why it is left out, if it is.
    fn columns(&self) -> Result<Vec<(Column, Option<String>)>> {
        if let Some(unknown) = self.modes.iter().find(|mode| Column::ALL.iter().all(|column| column.name() != *mode)) {
            bail!("there is no mode \"{unknown}\"");
        }
        let wanted = |column: Column| self.modes.is_empty() || self.modes.iter().any(|mode| mode == column.name());
        let reason =
            |column: Column| if wanted(column) { column.hindrance() } else { Some("not asked for".to_owned()) };
        Ok(Column::ALL.into_iter().map(|column| (column, reason(column))).collect())
    }
}

/// Pairs of runs for host time.
const PAIRS: usize = 10;
/// What the operations are multiplied by where time is measured.
const TIMED_SCALE: u64 = 4;

/// Measures, prints a table, writes the report; status 2 where a cell is missing.
pub(crate) fn run(options: &Options) -> Result<u8> {
    tools::QEMU.ensure()?;
    let artifacts = Artifacts::build()?;
    let folder = artifacts::target_folder().join("compare");
    let report = write(&artifacts, options, &folder)?;
    if options.json {
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        table::print(&report);
        println!("The report: {}", folder.join("report.html").display());
    }
    Ok(if report.is_complete() { 0 } else { 2 })
}

/// Writes a report of some modes without host time to a folder.
pub(crate) fn write_quick(artifacts: &Artifacts, modes: &[&str], folder: &Path) -> Result<()> {
    let modes = modes.iter().map(|&mode| mode.to_owned()).collect();
    write(artifacts, &Options { quick: true, modes, ..Options::default() }, folder).map(|_| ())
}

fn write(artifacts: &Artifacts, options: &Options, folder: &Path) -> Result<Report> {
    let report = measure_all(artifacts, options)?;
    std::fs::create_dir_all(folder).with_context(|| format!("{} cannot be made", folder.display()))?;
    std::fs::write(folder.join("report.json"), serde_json::to_string_pretty(&report)?)?;
    std::fs::write(folder.join("report.html"), html::page(&report)?)?;
    Ok(report)
}

fn measure_all(artifacts: &Artifacts, options: &Options) -> Result<Report> {
    let chosen: Vec<&Workload> = WORKLOADS
        .iter()
        .filter(|workload| options.only.as_ref().is_none_or(|only| workload.name.contains(only.as_str())))
        .collect();
    if chosen.is_empty() {
        let names: Vec<_> = WORKLOADS.iter().map(|workload| workload.name).collect();
        bail!("no workload's name holds \"{}\"; there are {}", options.only.as_deref().unwrap_or(""), names.join(", "));
    }
    let columns = options.columns()?;
    artifacts::build_counter()?;
    let url = serve::start()?;
    let runs = columns.iter().filter(|(_, hindrance)| hindrance.is_none()).count();
    let progress = progress(runs * if options.quick { 1 } else { 1 + PAIRS });
    let counted = count_all(artifacts, &columns, &url, &progress);
    let times = if options.quick { Vec::new() } else { time_all(artifacts, &counted, &url, &progress) };
    progress.finish_and_clear();
    let row = |workload: &&'static Workload| {
        let cells = counted.iter().map(|(column, counted)| (*column, cell(*column, counted, workload, &times)));
        Row::new(workload, cells.collect())
    };
    Ok(Report::new(chosen.iter().map(row).collect()))
}

/// A bar that counts runs.
fn progress(runs: usize) -> ProgressBar {
    let bar = ProgressBar::new(runs as u64);
    if let Ok(style) = ProgressStyle::with_template("{bar:30} {pos}/{len} {msg} {elapsed}") {
        bar.set_style(style);
    }
    bar.enable_steady_tick(std::time::Duration::from_millis(200));
    bar
}

/// Says what is being done: in the bar on a terminal, else in a line.
fn tell(progress: &ProgressBar, doing: &str) {
    progress.set_message(doing.to_owned());
    if progress.is_hidden() {
        eprintln!("{doing} ({} s)", progress.elapsed().as_secs());
    }
}

/// What each mode's counted run gave, or why there is none.
type CountedRuns = Vec<(Column, Result<Counted, String>)>;

fn count_all(
    artifacts: &Artifacts,
    columns: &[(Column, Option<String>)],
    url: &str,
    progress: &ProgressBar,
) -> CountedRuns {
    let count = |(column, hindrance): &(Column, Option<String>)| {
        let counted = match hindrance {
            Some(reason) => Err(reason.clone()),
            None => {
                tell(progress, &format!("counting {}", column.title()));
                let counted = measure::count(artifacts, *column, url).map_err(|error| format!("{error:#}"));
                progress.inc(1);
                counted
            }
        };
        (*column, counted)
    };
    columns.iter().map(count).collect()
}

/// One turn: what each mode's timed run said.
type Turn = BTreeMap<Column, Lines>;

fn time_all(artifacts: &Artifacts, counted: &CountedRuns, url: &str, progress: &ProgressBar) -> Vec<Turn> {
    let reached: Vec<Column> = counted.iter().filter(|(_, run)| run.is_ok()).map(|(column, _)| *column).collect();
    let one = |column: Column| {
        tell(progress, &format!("timing {}", column.title()));
        let lines = measure::time(artifacts, column, TIMED_SCALE, url);
        progress.inc(1);
        lines.ok().map(|lines| (column, lines))
    };
    (0..PAIRS).map(|_| reached.iter().filter_map(|column| one(*column)).collect()).collect()
}

fn cell(column: Column, counted: &Result<Counted, String>, workload: &Workload, times: &[Turn]) -> Cell {
    let mut cell = match counted {
        Ok(counted) => figures::cell(counted, workload),
        Err(reason) => Cell::missing(reason),
    };
    if let Cell::Measured(measured) = &mut cell {
        measured.host_time = Ratio::of(&pairs(column, workload, times));
    }
    cell
}

/// The times of a workload, native and in a mode, turn by turn.
fn pairs(column: Column, workload: &Workload, times: &[Turn]) -> Vec<(f64, f64)> {
    let time = |turn: &Turn, column: Column| {
        let rounds: Result<Vec<_>, _> = turn.get(&column)?.get(workload.name)?.iter().cloned().collect();
        Some(rounds.ok()?.iter().map(|line| line.nanoseconds as f64).sum())
    };
    times.iter().filter_map(|turn| Some((time(turn, Column::Native)?, time(turn, column)?))).collect()
}
