//! `docs/abi.md` is made from the tables that the code is made from, and from what the guest tests checked. Run with
//! `UPDATE_DOCS=1` to write it anew.

mod host_tests;
mod operations;
mod verdicts;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use hv::{hypercall, rules};

use operations::{AREAS, Here, Hypercall, UNTOLD};
use verdicts::Check;

const HEAD: &str = "# The ABI, as hv implements it

Made by `hv/tests/abi_doc` from hv's tables, pv-abi's constants and `guest-tests/verdicts`; change those, not this.

*Here*: an operation is implemented, refused on purpose, or missing (it answers `-ENOSYS` and is logged).
*Rules*: those that hv named while the operation's checks ran; they are told below.
*Checks*: how many checks of which guest test (`guest-tests/src/bin`) are about the operation, good path and refusals.
*As Xen*: every one of these checks ends the same way on hv and on Xen 4.17, in the same test run; `no` where one
differs on purpose (`docs/compat.md`).
";

/// What the guest tests say about one operation.
#[derive(Default)]
struct Seen {
    tests: BTreeMap<String, usize>,
    rules: BTreeSet<String>,
    differs: bool,
}

fn seen(checks: &[Check], about: &str) -> Seen {
    let mut seen = Seen::default();
    for check in checks.iter().filter(|check| check.about.iter().any(|name| name == about)) {
        *seen.tests.entry(check.test.clone()).or_default() += 1;
        seen.rules.extend(check.rules.iter().cloned());
        seen.differs |= check.differs;
    }
    seen
}

impl Seen {
    /// The last three cells of a row.
    fn cells(&self) -> String {
        let tests: Vec<String> = self.tests.iter().map(|(test, count)| format!("{test} {count}")).collect();
        let rules: Vec<&str> = self.rules.iter().map(String::as_str).collect();
        let same = match (self.tests.is_empty(), self.differs) {
            (true, _) => "",
            (false, true) => "no",
            (false, false) => "yes",
        };
        format!("{} | {} | {same} |", rules.join(" "), tests.join(", "))
    }
}

fn document() -> String {
    let checks = verdicts::all();
    let mut text = HEAD.to_owned();
    let hypercalls = operations::all();
    table_of_hypercalls(&mut text, &hypercalls, &checks);
    for hypercall in hypercalls.iter().filter(|hypercall| hypercall.implemented && hypercall.has_operations()) {
        let _ = writeln!(
            text,
            "\n### {} `{}`\n\n| | operation | here | rules | checks | as Xen |\n|---|---|---|---|---|---|",
            hypercall.number, hypercall.name
        );
        for operation in &hypercall.operations[1..] {
            let here = describe(operation.here);
            let cells = seen(&checks, operation.name).cells();
            let _ = writeln!(text, "| {} | `{}` | {here} | {cells}", operation.number, operation.name);
        }
    }
    text.push_str("\n## What is no hypercall\n\n| | what | rules | checks | as Xen |\n|---|---|---|---|---|\n");
    for (name, what) in AREAS {
        let _ = writeln!(text, "| `{name}` | {what} | {}", seen(&checks, name).cells());
    }
    table_of_rules(&mut text, &checks);
    text
}

fn describe(here: Here) -> String {
    match here {
        Here::Implemented => "implemented".to_owned(),
        Here::Refused(reason) => format!("refused: {reason}"),
        Here::Missing => "missing".to_owned(),
    }
}

fn table_of_hypercalls(text: &mut String, hypercalls: &[Hypercall], checks: &[Check]) {
    text.push_str(
        "\n## Hypercalls of Xen 4.17\n\n| | hypercall | here | rules | checks | as Xen |\n|---|---|---|---|---|---|\n",
    );
    for hypercall in hypercalls {
        let here = match (hypercall.implemented, UNTOLD.iter().find(|(name, _)| *name == hypercall.name)) {
            (true, _) if hypercall.has_operations() => "implemented, see below".to_owned(),
            (true, _) => "implemented".to_owned(),
            (false, Some((_, operations))) => format!("missing ({operations})"),
            (false, None) if hypercall.has_operations() => {
                let names: Vec<&str> = hypercall.operations[1..].iter().map(|operation| operation.name).collect();
                format!("missing ({})", names.join(", "))
            }
            (false, None) => "missing".to_owned(),
        };
        let cells = seen(checks, hypercall.name).cells();
        let _ = writeln!(text, "| {} | `{}` | {here} | {cells}", hypercall.number, hypercall.name);
    }
}

fn table_of_rules(text: &mut String, checks: &[Check]) {
    text.push_str(
        "\n## Rules\n\nEvery check that can refuse something, by the id that the log shows, and how many checks of the \
         guest tests broke it.\n",
    );
    for table in rules::tables() {
        let Some(first) = table.first() else { continue };
        let room = first.0.id.split('-').next().unwrap_or_default();
        let _ = writeln!(text, "\n### {room}\n\n| rule | what must hold | source | checks |\n|---|---|---|---|");
        for rule in table {
            let broken = checks.iter().filter(|check| check.rules.iter().any(|id| id == rule.0.id)).count();
            let broken = if broken == 0 { String::new() } else { broken.to_string() };
            let _ = writeln!(text, "| {} | {} | {} | {broken} |", rule.0.id, rule.0.sentence, rule.0.source);
        }
    }
}

#[test]
fn the_abi_document_says_what_the_tables_say() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/abi.md");
    let document = document();
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(path, &document).expect("docs/abi.md can be written");
    }
    let written = std::fs::read_to_string(path).unwrap_or_default();
    assert!(written == document, "docs/abi.md is stale; run: UPDATE_DOCS=1 cargo test -p hv --test abi_doc");
}

#[test]
fn every_implemented_hypercall_has_a_number_of_xens() {
    let hypercalls = operations::all();
    for (number, name) in hypercall::IMPLEMENTED {
        let known = hypercalls.iter().any(|hypercall| (hypercall.number, hypercall.name) == (*number, *name));
        assert!(known, "{name} is not number {number} in Xen");
    }
}

#[test]
fn no_two_operations_of_a_hypercall_share_a_number() {
    for hypercall in operations::all() {
        for pair in hypercall.operations[1..].windows(2) {
            assert_ne!(pair[0].number, pair[1].number, "{} and {}: is one no operation?", pair[0].name, pair[1].name);
        }
    }
}

#[test]
fn every_check_is_about_operations_that_there_are() {
    let hypercalls = operations::all();
    let known: BTreeSet<&str> = hypercalls
        .iter()
        .flat_map(|hypercall| hypercall.operations.iter().map(|operation| operation.name))
        .chain(AREAS.iter().map(|(name, _)| *name))
        .collect();
    for check in verdicts::all() {
        for name in &check.about {
            assert!(known.contains(name.as_str()), "guest test {} names {name}, which is no operation", check.test);
        }
    }
}

/// Fails where something is neither reached nor excused in the list of gaps, or both.
fn no_gaps(reached: impl Fn(&str) -> bool, all: impl Iterator<Item = &'static str>) {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/abi_doc/gaps.txt");
    let gaps = std::fs::read_to_string(path).expect("the list of gaps can be read");
    let excused: BTreeSet<&str> = gaps.lines().skip(1).filter_map(|line| Some(line.split_once(':')?.0)).collect();
    let (mut unreached, mut reached_after_all) = (Vec::new(), Vec::new());
    for name in all {
        match (reached(name), excused.contains(name)) {
            (false, false) => unreached.push(name),
            (true, true) => reached_after_all.push(name),
            _ => {}
        }
    }
    assert!(
        unreached.is_empty(),
        "no check of guest-tests reaches {unreached:?}: write one, or say in hv/tests/abi_doc/gaps.txt why not"
    );
    assert!(reached_after_all.is_empty(), "hv/tests/abi_doc/gaps.txt excuses what checks reach: {reached_after_all:?}");
}

#[test]
fn every_implemented_operation_has_a_check_on_hv_and_on_xen() {
    let checks = verdicts::all();
    let all = operations::all().into_iter().filter(|hypercall| hypercall.implemented).flat_map(|mut hypercall| {
        if hypercall.has_operations() {
            hypercall.operations.remove(0);
        }
        hypercall.operations.into_iter().filter(|operation| operation.here != Here::Missing).map(|one| one.name)
    });
    no_gaps(|name| !seen(&checks, name).tests.is_empty(), all);
}

#[test]
fn every_rule_is_broken_by_a_guest_test() {
    let checks = verdicts::all();
    let broken: BTreeSet<&str> = checks.iter().flat_map(|check| &check.rules).map(String::as_str).collect();
    let all = rules::tables().into_iter().flatten().map(|rule| rule.0.id);
    no_gaps(|id| broken.contains(id), all);
}

#[test]
fn every_rule_is_broken_by_a_test() {
    let checks = verdicts::all();
    let broken: BTreeSet<&str> = checks.iter().flat_map(|check| &check.rules).map(String::as_str).collect();
    let tests = host_tests::source();
    let rules = host_tests::rules();
    let untested: Vec<&str> = rules
        .iter()
        .filter(|(name, id)| {
            !broken.contains(id.as_str()) && !tests.contains(id.as_str()) && !host_tests::has_word(&tests, name)
        })
        .map(|(_, id)| id.as_str())
        .collect();
    assert!(untested.is_empty(), "no host test names {untested:?}, and no guest test breaks them");
}
