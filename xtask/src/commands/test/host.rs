//! Tests that run on the host: `cargo test` over the workspace.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use anyhow::{Context, Result};

use super::Tally;
use crate::artifacts;

/// Runs them, shows cargo's output, adds its counts.
pub(super) fn run(tally: &mut Tally) -> Result<()> {
    let mut child = Command::new(env!("CARGO"))
        .current_dir(artifacts::root())
        .args(["test", "--workspace", "--features=hv/fake", "--no-fail-fast", "--color=never"])
        .stdout(Stdio::piped())
        .spawn()
        .context("cargo cannot be started")?;
    let output = child.stdout.take().context("cargo's output is not piped")?;
    let (passed, failed) = (tally.passed, tally.failed);
    for line in BufReader::new(output).lines() {
        let line = line?;
        if let Some(counts) = line.strip_prefix("test result: ") {
            tally.passed += count(counts, " passed");
            tally.failed += count(counts, " failed");
        } else if line.ends_with("... FAILED") {
            tally.failures.push(line.clone());
        }
        // A crate without tests is no news.
        if !line.is_empty() && !line.ends_with("... ok") {
            println!("{line}");
        }
    }
    let status = child.wait()?;
    if !status.success() && tally.failed == failed {
        tally.failed += 1;
        tally.failures.push("the host tests do not build or ended early".to_owned());
    }
    println!("host: {} passed, {} failed", tally.passed - passed, tally.failed - failed);
    Ok(())
}

/// The number before `what` in a line of libtest's.
fn count(line: &str, what: &str) -> usize {
    line.split(what)
        .next()
        .and_then(|before| before.rsplit(' ').next())
        .and_then(|number| number.parse().ok())
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::count;

    #[test]
    fn libtest_counts_are_read() {
        let line = "ok. 12 passed; 3 failed; 0 ignored; 0 measured; 0 filtered out";
        assert_eq!((count(line, " passed"), count(line, " failed")), (12, 3));
    }
}
