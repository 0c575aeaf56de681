//! What each guest test checked, as the files of `guest-tests/verdicts` keep it.
//!
//! A file is one guest test, a line one check: its name, the operations that it is about, the rules that hv named while
//! it ran, and `differs` where hv and Xen answer differently on purpose, with ` | ` between them. `docs/abi.md` is made
//! from these files; the test run holds them against what was seen on hv and on Xen.

use std::path::PathBuf;

use anyhow::{Context, Result, bail};

use crate::artifacts::root;

const HEAD: &str = "# Made by `cargo xtask test --record`: check | operations | rules named by hv | differs from Xen\n";

/// How a check ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// As it should on both hypervisors.
    Ok,
    /// As it should on this one, which differs from the other.
    OkOn(String),
    /// Not.
    Failed(String),
}

/// One check of a guest test.
#[derive(Clone, Debug)]
pub(super) struct Check {
    pub(super) name: String,
    pub(super) about: String,
    pub(super) rules: Vec<String>,
    pub(super) verdict: Verdict,
}

impl Check {
    /// Fails where the check did, or ended as only the other hypervisor should have it.
    pub(super) fn judge(&self, on: &str) -> Result<()> {
        match &self.verdict {
            Verdict::Ok => Ok(()),
            Verdict::OkOn(seen) if seen == on => Ok(()),
            Verdict::OkOn(seen) => bail!("it answers as {seen}: the check and docs/compat.md say that they differ"),
            Verdict::Failed(why) => bail!("{why}"),
        }
    }

    fn line(&self) -> String {
        let differs = if matches!(self.verdict, Verdict::OkOn(_)) { "differs" } else { "" };
        format!("{} | {} | {} | {differs}", self.name, self.about, self.rules.join(" ")).trim_end().to_owned()
    }
}

/// Reads a guest test's console: gives its checks as they end.
#[derive(Default)]
pub(super) struct Reader {
    about: String,
    rules: Vec<String>,
    pub(super) checks: Vec<Check>,
}

impl Reader {
    /// Takes a line; whether it was the last.
    pub(super) fn take(&mut self, line: &str) -> Result<bool> {
        if let Some((_, operations)) = line.split_once("guest-test-about: ") {
            operations.trim().clone_into(&mut self.about);
        } else if let Some((_, report)) = line.split_once("guest-test: ") {
            if report.trim() == "done" {
                return Ok(true);
            }
            self.check(report.trim())?;
        } else if let Some(rule) = rule_of(line)
            && !self.rules.contains(&rule)
        {
            self.rules.push(rule);
        }
        Ok(false)
    }

    fn check(&mut self, report: &str) -> Result<()> {
        let (name, verdict) = match report.split_once(": FAILED ") {
            Some((name, why)) => (name, Verdict::Failed(why.to_owned())),
            None => {
                let (name, verdict) = report.rsplit_once(": ").context("a line of a guest test without a verdict")?;
                match verdict {
                    "ok" => (name, Verdict::Ok),
                    "ok as hv" => (name, Verdict::OkOn("hv".to_owned())),
                    "ok as Xen" => (name, Verdict::OkOn("Xen".to_owned())),
                    _ => bail!("a guest test says \"{verdict}\": neither ok nor FAILED"),
                }
            }
        };
        let rules = std::mem::take(&mut self.rules);
        self.checks.push(Check { name: name.to_owned(), about: self.about.clone(), rules, verdict });
        Ok(())
    }
}

/// The rule that a line of hv's log names: ` ABC-12: `.
fn rule_of(line: &str) -> Option<String> {
    line.contains("(hv) ").then_some(())?;
    line.split(' ').find_map(|word| {
        let id = word.strip_suffix(':')?;
        let (room, number) = id.split_once('-')?;
        let is_id = room.len() == 3 && room.bytes().all(|byte| byte.is_ascii_uppercase());
        (is_id && number.len() == 2 && number.bytes().all(|byte| byte.is_ascii_digit())).then(|| id.to_owned())
    })
}

fn path(name: &str) -> PathBuf {
    root().join("guest-tests/verdicts").join(name).with_extension("txt")
}

/// Writes down what a guest test checked on hv.
pub(super) fn record(name: &str, checks: &[Check]) -> Result<()> {
    let path = path(name);
    let text: String = checks.iter().map(|check| check.line() + "\n").collect();
    std::fs::create_dir_all(path.parent().context("the file is in a folder")?)?;
    std::fs::write(&path, HEAD.to_owned() + &text).with_context(|| format!("{} cannot be written", path.display()))
}

/// Fails where a guest test checked something else than is written down; the rules are known of hv alone.
pub(super) fn compare(name: &str, on: &str, checks: &[Check]) -> Result<()> {
    let written = std::fs::read_to_string(path(name)).unwrap_or_default();
    let mut written = written.lines().skip(1);
    for check in checks {
        let (line, seen) = (written.next().unwrap_or("nothing"), check.line());
        let same = if on == "hv" { line == seen } else { without_rules(line) == without_rules(&seen) };
        if !same {
            bail!("{} has\n{line}\nwhere was seen\n{seen}\nrun: cargo xtask test --record", path(name).display());
        }
    }
    if let Some(line) = written.next() {
        bail!("{} has\n{line}\nwhich was not seen; run: cargo xtask test --record", path(name).display());
    }
    Ok(())
}

fn without_rules(line: &str) -> Vec<&str> {
    let mut fields: Vec<&str> = line.split(" | ").map(|field| field.trim_end_matches(" |")).collect();
    fields.resize(4, "");
    fields[2] = "";
    fields
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(lines: &[&str]) -> Vec<Check> {
        let mut reader = Reader::default();
        for line in lines {
            assert!(!reader.take(line).unwrap());
        }
        assert!(reader.take("guest-test: done").unwrap());
        reader.checks
    }

    #[test]
    fn a_check_has_the_operations_and_rules_named_before_it() {
        let checks = read(&[
            "guest-test-about: EVTCHNOP_send",
            "(hv) warning: d0: event_channel_op[4, 0] = -22: EVT-01: The port must be",
            "guest-test: port 0: free: ok",
            "guest-test: a: b: FAILED saw x: y",
            "guest-test: c: ok as hv",
        ]);
        let lines: Vec<String> = checks.iter().map(Check::line).collect();
        assert_eq!(
            lines,
            ["port 0: free | EVTCHNOP_send | EVT-01 |", "a: b | EVTCHNOP_send |  |", "c | EVTCHNOP_send |  | differs"]
        );
        assert!(checks[0].judge("Xen").is_ok() && checks[1].judge("hv").is_err());
        assert!(checks[2].judge("hv").is_ok() && checks[2].judge("Xen").is_err());
    }

    #[test]
    fn rules_are_known_of_hv_alone() {
        assert_eq!(without_rules("a | b | EVT-01 |"), without_rules("a | b |  |"));
        assert_ne!(without_rules("a | b | EVT-01 | differs"), without_rules("a | b |  |"));
    }
}
