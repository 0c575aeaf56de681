//! The report as one HTML file: charts drawn as SVG, nothing fetched from anywhere.
//!
//! The geometry of the charts is made here, the page in `report.html`. A bar has its workload, mode, part and figure as
//! attributes, so that whoever checks the page can compare them with the JSON that it carries.

use anyhow::{Context, Result};
use minijinja::{AutoEscape, Environment, context};
use serde::Serialize;

use super::figures::{Cell, Measured};
use super::model::CPUS;
use super::modes::Column;
use super::published::{PUBLISHED, Published};
use super::report::{Report, Row};

/// Width of the longest bar of a chart, and height of a bar's row.
const BAR_WIDTH: f64 = 520.0;
const ROW_HEIGHT: f64 = 22.0;

#[derive(Serialize)]
struct Chart {
    title: &'static str,
    operation: &'static str,
    name: &'static str,
    height: f64,
    rows: Vec<Bars>,
}

/// The bars of a mode, one behind the other.
#[derive(Serialize)]
struct Bars {
    mode: &'static str,
    title: &'static str,
    y: f64,
    bars: Vec<Bar>,
    /// Behind the bars.
    text: String,
    text_x: f64,
}

#[derive(Serialize)]
struct Bar {
    part: &'static str,
    figure: f64,
    x: f64,
    width: f64,
}

/// A table of the model or the exits.
#[derive(Serialize)]
struct Line {
    title: &'static str,
    mode: &'static str,
    entries: Vec<(String, f64, f64)>,
}

/// A published figure, and what our most similar workload took on hv against native.
#[derive(Serialize)]
struct Beside {
    published: &'static Published,
    ours: Option<f64>,
}

fn beside(published: &'static Published, report: &Report) -> Beside {
    let row = report.workloads.iter().find(|row| row.name == published.workload);
    let total = |row: &Row, column: Column| Some(row.modes.get(column.name())?.measured()?.total_instructions);
    let ours = row.and_then(|row| Some(total(row, Column::Pv)? / total(row, Column::Native)?));
    Beside { published, ours }
}

/// Makes the page.
pub(super) fn page(report: &Report) -> Result<String> {
    let mut environment = Environment::new();
    environment.set_auto_escape_callback(|_| AutoEscape::Html);
    environment.add_filter("figure", figure);
    environment.add_template("report", include_str!("report.html"))?;
    // In a script element nothing ends the text but "</".
    let json = serde_json::to_string(report)?.replace("</", "<\\/");
    let template = environment.get_template("report")?;
    let charts: Vec<Chart> = report.workloads.iter().map(chart).collect();
    let exits: Vec<Line> = report.workloads.iter().flat_map(exits).collect();
    let models: Vec<Line> = report.workloads.iter().flat_map(models).collect();
    let published: Vec<Beside> = PUBLISHED.iter().map(|published| beside(published, report)).collect();
    let columns = Column::ALL.map(|column| (column.name(), column.title()));
    let page = template.render(context! {
        charts, exits, models, columns, json, report, cpus => &CPUS, published, bar_width => BAR_WIDTH
    });
    page.context("the report's page cannot be made")
}

/// A number as people read it.
fn figure(number: f64) -> String {
    let digits = if number.abs() >= 100.0 || number.fract().abs() < 1e-9 { 0 } else { 2 };
    let text = format!("{number:.digits$}");
    let (whole, fraction) = text.split_once('.').map_or((text.as_str(), ""), |(whole, fraction)| (whole, fraction));
    let (sign, whole) = whole.strip_prefix('-').map_or(("", whole), |whole| ("−", whole));
    let groups: Vec<&str> =
        whole.as_bytes().rchunks(3).rev().filter_map(|group| std::str::from_utf8(group).ok()).collect();
    let dot = if fraction.is_empty() { "" } else { "." };
    format!("{sign}{}{dot}{fraction}", groups.join(","))
}

fn parts(measured: &Measured) -> [(&'static str, f64); 4] {
    [
        ("user", measured.user_instructions),
        ("kernel", measured.kernel_instructions),
        ("hypervisor", measured.hypervisor_instructions),
        ("service", measured.service_instructions),
    ]
}

fn chart(row: &Row) -> Chart {
    let total = |measured: &Measured| parts(measured).iter().map(|(_, figure)| figure).sum::<f64>();
    let largest = row.modes.values().filter_map(|cell| cell.measured().map(total)).fold(0.0, f64::max);
    let scale = if largest > 0.0 { BAR_WIDTH / largest } else { 0.0 };
    let bars = |(index, column): (usize, Column)| {
        let y = index as f64 * ROW_HEIGHT;
        let mut bars = Vec::new();
        let mut x = 0.0;
        let text = match row.modes.get(column.name()) {
            Some(Cell::Measured(measured)) => {
                for (part, figure) in parts(measured).into_iter().filter(|(_, figure)| *figure > 0.0) {
                    bars.push(Bar { part, figure, x, width: figure * scale });
                    x += figure * scale;
                }
                figure(total(measured))
            }
            Some(Cell::Missing { unavailable }) => format!("not available: {unavailable}"),
            None => String::new(),
        };
        Bars { mode: column.name(), title: column.title(), y, bars, text, text_x: x + 6.0 }
    };
    let rows: Vec<Bars> = Column::ALL.into_iter().enumerate().map(bars).collect();
    let height = rows.len() as f64 * ROW_HEIGHT;
    Chart { title: row.title, operation: row.operation, name: row.name, height, rows }
}

/// How often and for how long the hypervisor was entered, mode by mode.
fn exits(row: &Row) -> Vec<Line> {
    lines(row, |measured| {
        let instructions = |kind: &str| measured.exit_instructions.get(kind).copied().unwrap_or(0.0);
        measured.exits.iter().map(|(kind, count)| (kind.clone(), *count, instructions(kind))).collect()
    })
}

fn models(row: &Row) -> Vec<Line> {
    lines(row, |measured| {
        measured.model.iter().map(|modelled| (modelled.cpu.to_owned(), modelled.cycles, 0.0)).collect()
    })
}

fn lines(row: &Row, entries: impl Fn(&Measured) -> Vec<(String, f64, f64)>) -> Vec<Line> {
    let line = |column: Column| {
        let entries = entries(row.modes.get(column.name())?.measured()?);
        (!entries.is_empty()).then_some(Line { title: row.title, mode: column.title(), entries })
    };
    Column::ALL.into_iter().filter_map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_have_commas_and_few_digits() {
        let shown = [0.0, 1.5, 62.0, 1234.5, -1_234_567.0].map(figure);
        assert_eq!(shown, ["0", "1.50", "62", "1,234", "−1,234,567"]);
    }
}
