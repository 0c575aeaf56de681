//! `cargo xtask bench --guest linux`: what Debian's Linux costs as guest.
//!
//! Three kinds of figures. Counted: Linux's boot and its own operations, in instructions, on hv and on Xen under the same
//! dom0. They are taken twice: with the time-stamp counter that a domain has by default, which Xen emulates where the
//! machine's is not marked as reliable (QEMU's is not), and with the machine's own (`tsc_mode = "native"`). Throughput: how
//! fast the disk and the network bring bytes, on hv with our dom0 and on Xen with Linux as dom0, in real time and
//! therefore in turns. Memory: what an idle Linux guest takes from the hypervisor and from dom0 beyond its own.

mod memory;

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::ValueEnum;
use serde::Serialize;
use tabled::builder::Builder;
use tabled::settings::Style;

use crate::artifacts::Artifacts;
use crate::commands::run::{Dom0, Hypervisor, NATIVE_TSC, Options, Outcome, System};
use crate::{linux, tools, xen};

/// What is counted, the most that hv may take of what Xen takes, in the order of the table.
const COUNTED: [(&str, f64); 8] = [
    ("boot to init", 1.0),
    ("null system call", 0.8),
    ("fork and exit", 0.8),
    ("fork and exec", 0.8),
    ("page fault", 0.8),
    ("mmap", 0.8),
    ("context switch", 0.8),
    ("pipe latency", 0.8),
];
/// What is measured, in the order of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Part {
    /// Linux's boot and its operations, with the time-stamp counter that a domain has by default.
    Counted,
    /// The same with the machine's own counter.
    CountedNative,
    /// An idle guest's memory.
    Memory,
    /// Bytes a second.
    Throughput,
}

/// The least that hv must bring of what Xen with Linux as dom0 brings.
const LEAST_THROUGHPUT: f64 = 1.5;
/// Nanoseconds of virtual time an instruction.
const INSTRUCTION_NS: f64 = 32.0;
/// How often each side is measured, in turns.
const TURNS: usize = 3;
/// What each transfer brings, in MiB.
const DISK_MIB: usize = 96;
const NETWORK_MIB: usize = 64;

/// A figure of both sides.
#[derive(Serialize)]
struct Row {
    what: String,
    unit: &'static str,
    hv: Option<f64>,
    xen: Option<f64>,
    ratio: Option<f64>,
    /// What the ratio is held against, and whether it is kept.
    bound: f64,
    kept: bool,
}

impl Row {
    fn new(what: &str, unit: &'static str, hv: Option<f64>, xen: Option<f64>, bound: f64, at_least: bool) -> Self {
        let ratio = hv.zip(xen).map(|(hv, xen)| hv / xen);
        let kept = ratio.is_some_and(|ratio| if at_least { ratio >= bound } else { ratio <= bound });
        Self { what: what.to_owned(), unit, hv, xen, ratio, bound, kept }
    }
}

/// Measures and prints; status 2 where a figure could not be had or a bound is not kept.
pub(super) fn run(artifacts: &Artifacts, part: Option<Part>, json: bool) -> Result<u8> {
    tools::QEMU.ensure()?;
    linux::get()?;
    let mut rows = Vec::new();
    for part in Part::value_variants().iter().filter(|known| part.is_none_or(|part| part == **known)) {
        match part {
            Part::Counted => rows.extend(counted(artifacts, "default", "")?),
            Part::CountedNative => rows.extend(counted(artifacts, NATIVE_TSC, ", native TSC")?),
            Part::Memory => rows.push(memory::row(artifacts)?),
            Part::Throughput => rows.extend(throughput(artifacts)?),
        }
    }
    if json {
        println!("{}", serde_json::json!({ "rows": rows }));
    } else {
        print_table(&rows);
    }
    Ok(if rows.iter().all(|row| row.kept) { 0 } else { 2 })
}

type Figures = BTreeMap<String, f64>;

fn counted(artifacts: &Artifacts, tsc_mode: &str, suffix: &str) -> Result<Vec<Row>> {
    let hv = count(artifacts, Hypervisor::Hv, tsc_mode)?;
    let xen = if xen::image().is_ok() { count(artifacts, Hypervisor::Xen, tsc_mode)? } else { Figures::new() };
    let row = |(what, bound): &(&str, f64)| {
        let (hv, xen) = (hv.get(*what).copied(), xen.get(*what).copied());
        Row::new(&format!("{what}{suffix}"), "instructions", hv, xen, *bound, false)
    };
    Ok(COUNTED.iter().map(row).collect())
}

fn options(on: Hypervisor, exec: String) -> Options {
    Options { guest: Some("linux".to_owned()), exec: Some(exec), snapshot: true, timeout: 300, ..Options::usual(on) }
}

fn execute(artifacts: &Artifacts, options: &Options) -> Result<Outcome> {
    let outcome = System::prepare(artifacts, options)?.execute(Duration::from_secs(options.timeout))?;
    if outcome.status != 0 {
        bail!("status {}; it printed:\n{}", outcome.status, outcome.output);
    }
    Ok(outcome)
}

fn count(artifacts: &Artifacts, on: Hypervisor, tsc_mode: &str) -> Result<Figures> {
    let options = Options {
        deterministic: true,
        tsc_mode: tsc_mode.to_owned(),
        dom0_options: "loglevel=info".to_owned(),
        ..options(on, "linux-bench boot; linux-bench".to_owned())
    };
    let outcome = execute(artifacts, &options)?;
    let mut figures = figures(&outcome.output);
    if let Some(boot) = boot_ns(&outcome, &figures) {
        figures.insert("boot to init".to_owned(), (boot / INSTRUCTION_NS).round());
    }
    Ok(figures)
}

/// Reads lines `linux-bench: WHAT FIGURE`.
fn figures(output: &str) -> Figures {
    let figure = |line: &str| {
        let (what, figure) = line.strip_prefix("linux-bench: ")?.trim().rsplit_once(' ')?;
        Some((what.to_owned(), figure.parse().ok()?))
    };
    output.lines().filter_map(figure).collect()
}

/// Nanoseconds of virtual time from the first instruction, which dom0 let run, to the first process: both in the
/// hypervisor's time.
fn boot_ns(outcome: &Outcome, figures: &Figures) -> Option<f64> {
    let started = outcome.transcript.lines().find_map(|line| {
        line.split_once("guest linux started ")?.1.strip_suffix(" ns after the hypervisor")?.parse::<f64>().ok()
    })?;
    Some(figures.get("first process")? - started)
}

/// The disk's and the network's bytes a second, the middle of several turns.
fn throughput(artifacts: &Artifacts) -> Result<Vec<Row>> {
    let port = serve_stream()?;
    let exec = format!(
        "linux-bench time disk {DISK_MIB} dd if=/dev/xvda of=/dev/null bs=1M count={DISK_MIB} && \
         linux-bench time network {NETWORK_MIB} wget -q -O /dev/null http://10.0.2.2:{port}/"
    );
    let mut sides = [Vec::new(), Vec::new()];
    let comparable = xen::image().is_ok() && linux::dom0::get().is_ok();
    for _ in 0..TURNS {
        sides[0].push(figures(&execute(artifacts, &options(Hypervisor::Hv, exec.clone()))?.output));
        if comparable {
            let options = Options { dom0: Dom0::Linux, ..options(Hypervisor::Xen, exec.clone()) };
            sides[1].push(figures(&execute(artifacts, &options)?.output));
        }
    }
    let middle = |side: &[Figures], what: &str| {
        let mut rates: Vec<f64> = side.iter().filter_map(|figures| figures.get(what).copied()).collect();
        rates.sort_by(f64::total_cmp);
        rates.get(rates.len() / 2).copied()
    };
    let row =
        |what: &str| Row::new(what, "MiB/s", middle(&sides[0], what), middle(&sides[1], what), LEAST_THROUGHPUT, true);
    Ok(vec![row("disk"), row("network")])
}

/// Serves a long stream to any who ask, until the program ends.
fn serve_stream() -> Result<u16> {
    let listener = TcpListener::bind("127.0.0.1:0").context("no port for the stream")?;
    let port = listener.local_addr()?.port();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().filter_map(Result::ok) {
            let _ = stream.read(&mut [0; 1024]);
            let bytes = NETWORK_MIB << 20;
            let _ = write!(stream, "HTTP/1.0 200 OK\r\nContent-Length: {bytes}\r\n\r\n");
            let block = vec![0x5a; 1 << 20];
            for _ in 0..NETWORK_MIB {
                if stream.write_all(&block).is_err() {
                    break;
                }
            }
        }
    });
    Ok(port)
}

fn print_table(rows: &[Row]) {
    println!("Debian's Linux 6.1 as guest. Instructions: under the same dom0, ours. MiB/s: hv with our dom0, Xen with");
    println!("Linux as dom0, in the same QEMU in turns.");
    let mut table = Builder::default();
    table.push_record(["what", "unit", "hv", "Xen 4.17", "hv / Xen", "bound", ""]);
    for row in rows {
        let digits = usize::from(row.unit != "instructions");
        let figure = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), |value| format!("{value:.digits$}"));
        table.push_record([
            row.what.clone(),
            row.unit.to_owned(),
            figure(row.hv),
            figure(row.xen),
            row.ratio.map_or_else(|| "-".to_owned(), |ratio| format!("{ratio:.2}")),
            format!("{:.1}", row.bound),
            if row.kept { "kept" } else { "not kept" }.to_owned(),
        ]);
    }
    println!("{}", table.build().with(Style::rounded()));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_boot_is_what_lies_between_dom0s_mark_and_linuxs() {
        let outcome = Outcome {
            output: "linux-bench: first process 100002500000\n".to_owned(),
            status: 0,
            transcript: "INFO  x: guest linux started 100000000000 ns after the hypervisor\n".to_owned(),
        };
        assert_eq!(boot_ns(&outcome, &figures(&outcome.output)), Some(2_500_000.0));
    }

    #[test]
    fn figures_are_read_by_name() {
        let figures = figures("other\nlinux-bench: fork and exec 2185892\nlinux-bench: done\n");
        assert_eq!(figures.get("fork and exec"), Some(&2_185_892.0));
    }
}
