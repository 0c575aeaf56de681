//! `cargo xtask bench`: counted instructions per operation, on hv and on Xen.
//!
//! The guest kernel `bench` runs as the first domain. Under `-icount shift=5` each instruction lasts 32 ns of virtual
//! time and `rdtsc` counts nanoseconds, so a difference of two readings over 32 is a number of instructions.

mod linux;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::{Args, ValueEnum};
use serde::Serialize;
use tabled::builder::Builder;
use tabled::settings::Style;

use super::run::spinner;
use crate::artifacts::Artifacts;
use crate::console::{Console, Event};
use crate::qemu::Machine;
use crate::{tools, xen};

#[derive(Args, Default)]
pub(crate) struct Options {
    /// What is measured: hypercalls by the guest `bench`, or Debian's Linux from inside
    #[arg(long, value_enum, default_value = "bench")]
    guest: Measured,
    /// With --guest linux, measure only this
    #[arg(long, value_enum)]
    part: Option<linux::Part>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// What is measured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Measured {
    /// A kernel that does nothing but hypercalls.
    #[default]
    Bench,
    /// Debian's Linux.
    Linux,
}

/// The operations, in the order of the table.
const OPERATIONS: [&str; 11] = [
    "xen_version",
    "evtchn_send",
    "evtchn_alloc_close",
    "multicall_32",
    "update_va_mapping_same",
    "update_va_mapping_ro_rw",
    "update_va_mapping_unmap_map",
    "ud_bounce_iret",
    "cpuid_forced",
    "cr0_read",
    "yield",
];

/// One operation's figures.
#[derive(Serialize)]
struct Row {
    operation: &'static str,
    hv: Option<u64>,
    xen: Option<u64>,
}

/// Measures and prints; status 2 where an operation could not be measured on hv.
pub(crate) fn run(options: &Options) -> Result<u8> {
    tools::QEMU.ensure()?;
    let artifacts = Artifacts::build()?;
    if options.guest == Measured::Linux {
        return linux::run(&artifacts, options.part, options.json);
    }
    let (hv, hv_latencies) = measure(&artifacts, artifacts.kernel("hv"), "measuring hv")?;
    let (xen, xen_latencies) = match xen::image() {
        Ok(image) => measure(&artifacts, image, "measuring Xen 4.17")?,
        Err(error) => {
            eprintln!("xtask: no figures of Xen: {error:#}");
            Default::default()
        }
    };
    let rows: Vec<Row> = OPERATIONS
        .iter()
        .map(|&operation| Row { operation, hv: hv.get(operation).copied(), xen: xen.get(operation).copied() })
        .collect();
    if options.json {
        println!("{}", serde_json::json!({ "rows": rows }));
    } else {
        print_table(&rows);
        print_latencies(&hv_latencies, &xen_latencies);
    }
    Ok(if rows.iter().all(|row| row.hv.is_some()) { 0 } else { 2 })
}

fn print_table(rows: &[Row]) {
    let mut table = Builder::default();
    table.push_record(["operation", "hv", "Xen 4.17", "hv / Xen"]);
    let number = |value: Option<u64>| value.map_or_else(|| "-".to_owned(), |value| value.to_string());
    for row in rows {
        let ratio = match (row.hv, row.xen) {
            (Some(hv), Some(xen)) => format!("{:.2}", hv as f64 / xen as f64),
            _ => "-".to_owned(),
        };
        table.push_record([row.operation.to_owned(), number(row.hv), number(row.xen), ratio]);
    }
    println!("Instructions, from the guest and back:");
    println!("{}", table.build().with(Style::rounded()));
}

/// The most that an operation may keep interrupts off, in instructions: 1 ms of 32 ns each.
const LONGEST: u64 = 31_250;

fn print_latencies(hv: &Figures, xen: &Figures) {
    println!("Latest upcall of a timer during a long operation (at most {LONGEST} on hv):");
    let mut table = Builder::default();
    table.push_record(["operation", "hv", "Xen 4.17"]);
    for (name, instructions) in hv {
        let xen = xen.get(name).map_or_else(|| "-".to_owned(), u64::to_string);
        table.push_record([name.clone(), instructions.to_string(), xen]);
    }
    println!("{}", table.build().with(Style::rounded()));
}

/// Instructions by the name of what took them.
type Figures = BTreeMap<String, u64>;

fn measure(artifacts: &Artifacts, kernel: PathBuf, message: &'static str) -> Result<(Figures, Figures)> {
    let machine = Machine {
        kernel,
        command_line: "console=com1 com1=115200,8n1 dom0_mem=64M noreboot".to_owned(),
        modules: vec![(artifacts.kernel("bench"), String::new())],
        memory_mib: 256,
        cpus: 1,
        deterministic: true,
        ..Machine::default()
    };
    let progress = spinner(message);
    let mut console = Console::start(machine.piped(), Duration::from_secs(120))?;
    let figures = read_figures(&mut console).context(message);
    progress.finish_and_clear();
    figures
}

/// Reads lines `bench: OPERATION INSTRUCTIONS` and `latency: INSTRUCTIONS WHAT`, up to `bench: done`.
fn read_figures(console: &mut Console) -> Result<(Figures, Figures)> {
    let (mut figures, mut latencies) = (Figures::new(), Figures::new());
    loop {
        let Event::Line(line) = console.next()? else {
            bail!("the bench guest ended early; the console's end:\n{}", console.tail());
        };
        if let Some((_, figure)) = line.split_once("bench: ") {
            match figure.trim().split_once(' ') {
                Some((operation, instructions)) => {
                    figures.insert(operation.to_owned(), instructions.parse()?);
                }
                None => return Ok((figures, latencies)),
            }
        } else if let Some((_, figure)) = line.split_once("latency: ")
            && let Some((instructions, what)) = figure.trim().split_once(' ')
        {
            latencies.insert(what.to_owned(), instructions.parse()?);
        }
    }
}
