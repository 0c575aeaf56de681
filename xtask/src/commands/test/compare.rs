//! The comparison: its figures add up, and its page, opened in a browser, draws what they say.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use super::Tally;
use crate::artifacts::Artifacts;
use crate::commands::compare;
use crate::tools;

/// The modes that are run.
const MODES: [&str; 3] = ["native", "pv", "pvh"];

/// Runs them all.
pub(super) fn run(tally: &mut Tally, artifacts: &Artifacts) {
    tally.test("a comparison's figures add up and its page draws them", || compares(artifacts));
}

fn compares(artifacts: &Artifacts) -> Result<()> {
    tools::CHROMIUM.ensure()?;
    let folder = tempfile::tempdir()?;
    compare::write_quick(artifacts, &MODES, folder.path())?;
    let report: Value = serde_json::from_slice(&std::fs::read(folder.path().join("report.json"))?)?;
    let workloads = report["workloads"].as_array().context("the report has no workloads")?;
    let mut measured = 0;
    for workload in workloads {
        for mode in ["native", "pv", "pvh", "hvm", "xen_pv", "xen_pvh"] {
            let cell = &workload["modes"][mode];
            let has_reason = cell["unavailable"].as_str().is_some_and(|reason| !reason.is_empty());
            ensure!(has_reason || adds_up(cell), "{} {mode}: {cell}", workload["name"]);
            measured += usize::from(!has_reason);
        }
        for difference in workload["attribution"].as_array().context("no attribution")? {
            check_attribution(workload, difference)?;
        }
    }
    for mode in MODES {
        let missing = workloads.iter().filter(|workload| workload["modes"][mode].get("unavailable").is_some()).count();
        ensure!(missing <= 2, "{missing} workloads have no figures in the mode {mode}");
    }
    check_page(folder.path(), workloads, measured)
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or(f64::NAN)
}

/// The guest, the hypervisor and dom0 are all that there is, and the hypervisor's part is that of its ways in.
fn adds_up(cell: &Value) -> bool {
    let sum = |names: &[&str]| names.iter().map(|name| number(&cell[*name])).sum::<f64>();
    let total = number(&cell["total_instructions"]);
    let parts = sum(&["user_instructions", "kernel_instructions", "hypervisor_instructions", "service_instructions"]);
    let exits: f64 =
        cell["exit_instructions"].as_object().into_iter().flatten().map(|(_, figure)| number(figure)).sum();
    let near = |left: f64, right: f64| (left - right).abs() <= total / 1e6;
    total > 0.0 && near(total, parts) && near(exits, number(&cell["hypervisor_instructions"]))
}

fn check_attribution(workload: &Value, difference: &Value) -> Result<()> {
    let parts = difference["parts"].as_array().context("no parts")?;
    let sum: f64 = parts.iter().map(|part| number(&part["instructions"])).sum();
    let whole = number(&difference["difference"]);
    ensure!((sum - whole).abs() < 1e-3 + whole.abs() / 1e6, "{}: {sum} of {whole} attributed", workload["name"]);
    Ok(())
}

/// A bar as the browser drew it.
struct Drawn {
    workload: String,
    mode: String,
    part: String,
    figure: f64,
    left: f64,
    width: f64,
}

/// In each chart the bars are as long as their figures are large, and there is one for each figure.
fn check_page(folder: &Path, workloads: &[Value], measured: usize) -> Result<()> {
    let page = std::fs::read_to_string(folder.join("report.html"))?;
    for outside in ["src=", "href=", "@import", "url("] {
        ensure!(!page.contains(outside), "the page wants something from outside: {outside}");
    }
    let bars = draw(folder, &page)?;
    let mut seen = std::collections::BTreeSet::new();
    for workload in workloads {
        let name = workload["name"].as_str().unwrap_or_default();
        let drawn: Vec<&Drawn> = bars.iter().filter(|bar| bar.workload == name).collect();
        let scale = drawn.iter().map(|bar| bar.width / bar.figure).fold(0.0, f64::max);
        for bar in &drawn {
            let cell = &workload["modes"][&bar.mode];
            let figure = number(&cell[format!("{}_instructions", bar.part)]);
            ensure!(
                (figure - bar.figure).abs() <= figure / 1e9,
                "{name} {} {}: {figure} in the JSON",
                bar.mode,
                bar.part
            );
            ensure!((bar.width - figure * scale).abs() < 0.6, "{name} {} {}: {} wide", bar.mode, bar.part, bar.width);
            ensure!(seen.insert((name, &bar.mode, &bar.part)), "{name} {} {} is drawn twice", bar.mode, bar.part);
        }
        let rows: std::collections::BTreeMap<&str, f64> = drawn.iter().fold(Default::default(), |mut rows, bar| {
            let end = rows.entry(bar.mode.as_str()).or_insert(0.0_f64);
            *end = end.max(bar.left + bar.width);
            rows
        });
        let longest = |mode: &str| number(&workload["modes"][mode]["total_instructions"]);
        for (one, end) in &rows {
            for (other, other_end) in &rows {
                ensure!(longest(one) <= longest(other) || end + 0.6 >= *other_end, "{name}: {one} ends before {other}");
            }
        }
    }
    let modes: std::collections::BTreeSet<_> = bars.iter().map(|bar| (&bar.workload, &bar.mode)).collect();
    ensure!(modes.len() == measured, "{} cells are drawn, {measured} were measured", modes.len());
    Ok(())
}

/// What the browser is asked to note down.
const NOTE: &str = "<script>for (const bar of document.querySelectorAll('rect.bar')) {\
    const box = bar.getBoundingClientRect();\
    bar.setAttribute('data-left', box.left); bar.setAttribute('data-width', box.width); }</script>";

fn draw(folder: &Path, page: &str) -> Result<Vec<Drawn>> {
    let file = folder.join("noted.html");
    std::fs::write(&file, page.replace("</body>", &format!("{NOTE}</body>")))?;
    let output = Command::new("chromium")
        .args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--dump-dom"])
        .args(["--disable-background-networking", "--disable-component-update", "--disable-sync"])
        .arg(format!("--user-data-dir={}", folder.join("browser").display()))
        .arg(format!("file://{}", file.display()))
        .output()
        .context("chromium cannot be started")?;
    let page = String::from_utf8_lossy(&output.stdout);
    let bars: Result<Vec<Drawn>> = page.split("<rect class=\"bar").skip(1).map(read_bar).collect();
    let bars = bars?;
    if bars.is_empty() {
        bail!("the browser shows no bars: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(bars)
}

/// The attributes of a bar in the page as the browser has it.
fn read_bar(text: &str) -> Result<Drawn> {
    let tag = text.split('>').next().unwrap_or_default();
    let attribute = |name: &str| {
        let value = tag.split_once(&format!(" data-{name}=\"")).and_then(|(_, rest)| rest.split_once('"'));
        value.map(|(value, _)| value.to_owned()).with_context(|| format!("a bar without {name}: {tag}"))
    };
    Ok(Drawn {
        workload: attribute("workload")?,
        mode: attribute("mode")?,
        part: attribute("part")?,
        figure: attribute("figure")?.parse()?,
        left: attribute("left")?.parse()?,
        width: attribute("width")?.parse()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_is_read_from_its_attributes() {
        let text = " user\" data-workload=\"ipi\" data-mode=\"pv\" data-part=\"user\" data-figure=\"2.5\" x=\"0\" \
                    data-left=\"1\" data-width=\"40.5\"></rect>";
        let bar = read_bar(text).expect("a bar");
        assert_eq!((bar.workload.as_str(), bar.mode.as_str(), bar.figure, bar.width), ("ipi", "pv", 2.5, 40.5));
    }

    #[test]
    fn a_cell_whose_parts_are_less_than_the_whole_is_found() {
        let cell = serde_json::json!({
            "total_instructions": 10.0, "user_instructions": 1.0, "kernel_instructions": 2.0,
            "hypervisor_instructions": 3.0, "service_instructions": 4.0, "exit_instructions": { "iret": 3.0 }
        });
        assert!(adds_up(&cell));
        let mut less = cell.clone();
        less["service_instructions"] = 1.0.into();
        assert!(!adds_up(&less));
        let mut unexplained = cell;
        unexplained["exit_instructions"] = serde_json::json!({});
        assert!(!adds_up(&unexplained));
    }
}
