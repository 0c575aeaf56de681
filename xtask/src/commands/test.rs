//! `cargo xtask test`: everything that can be tested, and one count at the end.

mod compare;
mod ctl;
pub(crate) mod guests;
mod host;
pub(crate) mod systems;
mod verdicts;

use anyhow::Result;
use clap::Args;

use crate::artifacts::Artifacts;
use crate::tools;

#[derive(Args, Default)]
pub(crate) struct Options {
    /// Leave out what needs QEMU
    #[arg(long)]
    quick: bool,
    /// Only whole-system and guest tests whose name holds this
    #[arg(long)]
    only: Option<String>,
    /// Write down what the guest tests checked (guest-tests/verdicts), rather than compare with it
    #[arg(long)]
    record: bool,
}

/// Counts and prints what passed and what did not.
#[derive(Default)]
pub(crate) struct Tally {
    passed: usize,
    failed: usize,
    failures: Vec<String>,
    only: Option<String>,
    record: bool,
}

impl Tally {
    /// Runs one test and prints its line; `name` is a sentence that is true where the test passes.
    pub(crate) fn test(&mut self, name: &str, body: impl FnOnce() -> Result<()>) {
        if self.only.as_ref().is_some_and(|only| !name.contains(only.as_str())) {
            return;
        }
        let start = std::time::Instant::now();
        let result = body();
        let seconds = start.elapsed().as_secs_f64();
        match result {
            Ok(()) => {
                self.passed += 1;
                println!("ok    {seconds:5.1} s  {name}");
            }
            Err(error) => {
                self.failed += 1;
                println!("FAIL  {seconds:5.1} s  {name}\n{error:#}");
                self.failures.push(name.to_owned());
            }
        }
    }
}

/// Runs the tests; the last line is `N passed, N failed`.
pub(crate) fn run(options: &Options) -> Result<u8> {
    tools::XEN_HEADERS.ensure()?;
    let mut tally = Tally { only: options.only.clone(), record: options.record, ..Tally::default() };
    if options.only.is_none() {
        host::run(&mut tally)?;
    }
    if !options.quick {
        tools::QEMU.ensure()?;
        let artifacts = Artifacts::build()?;
        guests::run(&mut tally, &artifacts)?;
        systems::run(&mut tally, &artifacts);
        ctl::run(&mut tally, &artifacts);
        compare::run(&mut tally, &artifacts);
    }
    for failure in &tally.failures {
        println!("failed: {failure}");
    }
    println!("{} passed, {} failed", tally.passed, tally.failed);
    Ok(u8::from(tally.failed > 0 || tally.passed == 0))
}
