//! The report on a terminal.

use std::collections::BTreeMap;

use tabled::builder::Builder;
use tabled::settings::Style;

use super::figures::{Cell, Measured};
use super::modes::Column;
use super::report::Report;

/// Prints it.
pub(super) fn print(report: &Report) {
    println!("Instructions for one operation: guest + hypervisor + service domain.");
    let mut table = Builder::default();
    let titles = Column::ALL.map(|column| column.title().to_owned());
    table.push_record(std::iter::once("workload".to_owned()).chain(titles));
    let mut reasons = BTreeMap::<String, usize>::new();
    for row in &report.workloads {
        let cells = Column::ALL.map(|column| match row.modes.get(column.name()) {
            Some(Cell::Measured(measured)) => counts(measured),
            Some(Cell::Missing { unavailable }) => {
                let next = reasons.len() + 1;
                format!("({})", reasons.entry(format!("{}: {unavailable}", column.title())).or_insert(next))
            }
            None => String::new(),
        });
        table.push_record(std::iter::once(row.title.to_owned()).chain(cells));
    }
    println!("{}", table.build().with(Style::rounded()));
    for bound in &report.bounds {
        let [left, right] = bound.modes;
        let [left_figure, right_figure] = bound.instructions;
        let verdict = if bound.holds { "holds" } else { "DOES NOT HOLD" };
        println!(
            "{}, {}: {left} {left_figure:.0} : {right} {right_figure:.0} = {:.2}, at most {:.2}: {verdict}",
            bound.title, bound.figure, bound.ratio, bound.limit
        );
    }
    let mut reasons: Vec<_> = reasons.into_iter().collect();
    reasons.sort_by_key(|(_, number)| *number);
    for (reason, number) in reasons {
        println!("({number}) {reason}");
    }
}

fn counts(measured: &Measured) -> String {
    let hypervisor =
        if measured.exits.is_empty() { String::new() } else { format!(" + {:.0}", measured.hypervisor_instructions) };
    let service = if measured.service_instructions > 0.0 {
        format!(" + {:.0}", measured.service_instructions)
    } else {
        String::new()
    };
    let time = measured.host_time.map(|ratio| format!("\n{:.2} × ({:.2}–{:.2})", ratio.mean, ratio.low, ratio.high));
    format!("{:.0}{hypervisor}{service}{}", measured.guest_instructions, time.unwrap_or_default())
}
