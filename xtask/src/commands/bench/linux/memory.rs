//! What an idle Linux guest takes beyond the memory that it is given: of the hypervisor, and of dom0.
//!
//! dom0 starts without a guest and says what is free of the machine and of its own memory (`info`); then the guest is
//! created, comes to rest, and dom0 is asked again. What is missing, less what the guest owns, is the cost.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::Row;
use crate::artifacts::Artifacts;
use crate::commands::run::{Hypervisor, Options, System};
use crate::xen;

/// What a guest may take beyond its own: this, and a part of its own.
const FIXED_KIB: f64 = 1024.0;
const PART: f64 = 0.008;
/// How long the guest may take to come to rest, and how long it must rest.
const LIMIT: Duration = Duration::from_secs(120);
const REST: Duration = Duration::from_secs(3);

/// The row of the table.
pub(super) fn row(artifacts: &Artifacts) -> Result<Row> {
    let hv = measure(artifacts, Hypervisor::Hv)?;
    let xen = if xen::image().is_ok() { Some(measure(artifacts, Hypervisor::Xen)?) } else { None };
    let bound = FIXED_KIB + PART * hv.own;
    Ok(Row {
        what: "memory of an idle guest beyond its own".to_owned(),
        unit: "KiB",
        hv: Some(hv.cost),
        xen: xen.as_ref().map(|xen| xen.cost),
        ratio: xen.as_ref().map(|xen| hv.cost / xen.cost),
        bound: bound.round(),
        kept: hv.cost <= bound,
    })
}

/// A guest's memory in KiB: what it was given, and what it takes besides.
struct Memory {
    own: f64,
    cost: f64,
}

fn measure(artifacts: &Artifacts, on: Hypervisor) -> Result<Memory> {
    let options = Options {
        guest: Some("linux".to_owned()),
        snapshot: true,
        dom0_options: "stay guest=none".to_owned(),
        ..Options::usual(on)
    };
    let system = System::prepare(artifacts, &options)?;
    let _machine = system.start(LIMIT * 3)?;
    let before = free(&system)?;
    ask(&system, "create /guests/guest.toml")?;
    wait_for_rest(&system)?;
    let own = own(&system)?;
    Ok(Memory { own, cost: before - free(&system)? - own })
}

fn ask(system: &System, line: &str) -> Result<String> {
    let (output, status, problem) = system.connect(LIMIT)?.request(line, LIMIT)?;
    ensure!(status == 0, "\"{line}\" failed: {problem}");
    Ok(output)
}

/// What is free of the machine and of dom0.
fn free(system: &System) -> Result<f64> {
    let info = ask(system, "info")?;
    let figure = |name: &str| {
        let line = info.lines().find_map(|line| line.split_once(':').filter(|(key, _)| key.trim() == name));
        line.and_then(|(_, value)| value.trim().parse::<f64>().ok()).with_context(|| format!("info without {name}"))
    };
    Ok(figure("free_memory_kib")? + figure("dom0_free_memory_kib")?)
}

/// A number of the guest's in dom0's list.
fn listed(system: &System, key: &str) -> Result<f64> {
    let list: serde_json::Value = serde_json::from_str(&ask(system, "list --json")?)?;
    let rows = list.as_array().context("list --json is no list")?;
    let guest = rows.iter().find(|row| row["name"] == "linux").context("the guest is gone")?;
    guest[key].as_f64().with_context(|| format!("list --json without {key}"))
}

fn own(system: &System) -> Result<f64> {
    Ok(listed(system, "memory_mib")? * 1024.0)
}

/// Waits until the guest has used no tenth of a second of a CPU for a while.
fn wait_for_rest(system: &System) -> Result<()> {
    let until = Instant::now() + LIMIT;
    let (mut used, mut since) = (0.0, Instant::now());
    while since.elapsed() < REST || used == 0.0 {
        ensure!(Instant::now() < until, "the guest does not come to rest");
        std::thread::sleep(Duration::from_millis(250));
        let now = listed(system, "cpu_seconds")?;
        if now > used {
            (used, since) = (now, Instant::now());
        }
    }
    Ok(())
}
