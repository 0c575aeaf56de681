//! `cargo xtask matrix`: hypervisor, dom0 and guest, each this project's or Xen's and Linux's, in every combination.
//!
//! A cell boots one system and looks from inside whether it is whole. A cell whose packages cannot be had is skipped,
//! with the reason.

mod cells;

use std::path::PathBuf;
use std::time::Instant;

use anyhow::Result;
use clap::Args;
use serde::Serialize;
use tabled::builder::Builder;
use tabled::settings::Style;

pub(crate) use cells::whole_linux;

use super::run::{Dom0, Hypervisor};
use super::test::guests;
use crate::artifacts::Artifacts;
use crate::{linux, tools, xen};

#[derive(Args, Default)]
pub(crate) struct Options {
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Only cells whose line, as the progress shows it, holds this
    #[arg(long)]
    only: Option<String>,
}

/// How a cell ended.
#[derive(Serialize)]
struct Row {
    hypervisor: &'static str,
    dom0: &'static str,
    guest: String,
    vcpus: u32,
    verdict: &'static str,
    seconds: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
}

/// What `--json` prints.
#[derive(Serialize)]
struct Report<'a> {
    cells: &'a [Row],
}

/// A whole system: hypervisor, dom0, guest.
pub(crate) struct Cell {
    on: Hypervisor,
    dom0: Dom0,
    guest: Guest,
    vcpus: u32,
}

/// What runs besides dom0.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Guest {
    /// Nothing: dom0 itself is looked at.
    Nothing,
    Demo,
    Linux,
    Grub,
}

impl Guest {
    fn name(self) -> &'static str {
        match self {
            Self::Nothing => "none",
            Self::Demo => "demo",
            Self::Linux => "linux-6.1",
            Self::Grub => "pv-grub, then linux-6.1",
        }
    }
}

fn hypervisor_name(on: Hypervisor) -> &'static str {
    match on {
        Hypervisor::Hv => "hv",
        Hypervisor::Xen => "xen-4.17",
    }
}

impl Cell {
    fn dom0_name(&self) -> &'static str {
        match self.dom0 {
            Dom0::Ours => "ours",
            Dom0::Linux => "linux",
        }
    }

    /// A sentence that is true where the cell passes.
    pub(crate) fn title(&self) -> String {
        let (on, dom0) = (hypervisor_name(self.on), self.dom0_name());
        match self.guest {
            Guest::Nothing => format!("dom0 {dom0} with {} vCPU(s) is whole on {on}", self.vcpus),
            guest => format!("guest {} with {} vCPU(s) is whole under dom0 {dom0} on {on}", guest.name(), self.vcpus),
        }
    }

    /// Why it cannot be tried here.
    pub(crate) fn hindrance(&self) -> Option<String> {
        let why = |result: Result<()>| result.err().map(|error| format!("{error:#}"));
        let xen = || if self.on == Hypervisor::Xen { why(xen::image().map(drop)) } else { None };
        let dom0 = || if self.dom0 == Dom0::Linux { why(linux::dom0::get().map(drop)) } else { None };
        let guest = || match self.guest {
            Guest::Nothing | Guest::Demo => None,
            Guest::Linux => why(linux::get().map(drop)),
            Guest::Grub => why(linux::grub::kernel().map(drop)),
        };
        xen().or_else(dom0).or_else(guest)
    }

    /// Boots it and looks at it.
    pub(crate) fn check(&self, artifacts: &Artifacts) -> Result<()> {
        cells::check(self, artifacts)
    }

    fn row(&self, artifacts: &Artifacts) -> Row {
        let hindrance = self.hindrance();
        let start = Instant::now();
        let (verdict, reason) = match hindrance {
            Some(reason) => ("skip", Some(reason)),
            None => verdict(self.check(artifacts)),
        };
        Row {
            hypervisor: hypervisor_name(self.on),
            dom0: self.dom0_name(),
            guest: self.guest.name().to_owned(),
            vcpus: self.vcpus,
            verdict,
            seconds: seconds_since(start),
            reason,
        }
    }
}

fn verdict(result: Result<()>) -> (&'static str, Option<String>) {
    match result {
        Ok(()) => ("pass", None),
        Err(error) => ("fail", Some(format!("{error:#}"))),
    }
}

fn seconds_since(start: Instant) -> f64 {
    (start.elapsed().as_secs_f64() * 10.0).round() / 10.0
}

/// All whole systems.
pub(crate) fn systems() -> Vec<Cell> {
    let mut cells = Vec::new();
    for on in [Hypervisor::Hv, Hypervisor::Xen] {
        let cell = |dom0, guest, vcpus| Cell { on, dom0, guest, vcpus };
        cells.extend([
            cell(Dom0::Ours, Guest::Demo, 1),
            cell(Dom0::Ours, Guest::Demo, 2),
            cell(Dom0::Ours, Guest::Linux, 1),
            cell(Dom0::Ours, Guest::Linux, 2),
            cell(Dom0::Ours, Guest::Linux, 4),
            cell(Dom0::Ours, Guest::Grub, 1),
            cell(Dom0::Linux, Guest::Nothing, 1),
            cell(Dom0::Linux, Guest::Nothing, 2),
            cell(Dom0::Linux, Guest::Demo, 1),
            cell(Dom0::Linux, Guest::Linux, 1),
        ]);
    }
    cells
}

/// Runs the cells and prints their table; status 1 where one fails.
pub(crate) fn run(options: &Options) -> Result<u8> {
    tools::QEMU.ensure()?;
    let artifacts = Artifacts::build()?;
    let wanted = |line: &str| options.only.as_ref().is_none_or(|only| line.contains(only.as_str()));
    let mut rows = Vec::new();
    for cell in systems() {
        if wanted(&cell.title()) {
            eprintln!("{} …", cell.title());
            rows.push(told(cell.row(&artifacts)));
        }
    }
    for name in guests::names(&artifacts)? {
        if wanted(&format!("guest test {name}")) {
            eprintln!("guest test {name} as the first domain …");
            let rows_of_test = guest_test(&artifacts, &name);
            rows.extend(rows_of_test.into_iter().map(told));
        }
    }
    if options.json {
        println!("{}", serde_json::to_string(&Report { cells: rows.as_slice() })?);
    } else {
        print_table(&rows);
    }
    Ok(u8::from(rows.is_empty() || rows.iter().any(|row| row.verdict == "fail")))
}

fn told(row: Row) -> Row {
    eprintln!("  {} {:.1} s  {}", row.verdict, row.seconds, row.reason.as_deref().unwrap_or_default());
    row
}

/// One guest test as the first domain of each hypervisor.
fn guest_test(artifacts: &Artifacts, name: &str) -> [Row; 2] {
    let one = |on, seen_as: &str, kernel: Result<PathBuf>| {
        let start = Instant::now();
        let (verdict, reason) = match kernel {
            Ok(kernel) => verdict(guests::whole(artifacts, name, seen_as, kernel)),
            Err(error) => ("skip", Some(format!("{error:#}"))),
        };
        let (hypervisor, guest, seconds) = (hypervisor_name(on), format!("guest test {name}"), seconds_since(start));
        Row { hypervisor, dom0: "none", guest, vcpus: guests::vcpus(name), verdict, seconds, reason }
    };
    [one(Hypervisor::Hv, "hv", Ok(artifacts.kernel("hv"))), one(Hypervisor::Xen, "Xen", xen::image())]
}

fn print_table(rows: &[Row]) {
    let mut table = Builder::default();
    table.push_record(["hypervisor", "dom0", "guest", "vCPUs", "verdict", "seconds", "reason"]);
    for row in rows {
        let reason = row.reason.as_deref().unwrap_or_default().lines().next().unwrap_or_default();
        table.push_record([
            row.hypervisor,
            row.dom0,
            &row.guest,
            &row.vcpus.to_string(),
            row.verdict,
            &format!("{:.1}", row.seconds),
            reason,
        ]);
    }
    println!("{}", table.build().with(Style::rounded()));
}
