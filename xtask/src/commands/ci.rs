//! `cargo xtask ci`: what CI runs.

use anyhow::Result;

use super::{lint, test};

/// Lints, then tests; the last line counts the tests.
pub(crate) fn run() -> Result<u8> {
    let lint = lint::run()?;
    let test = test::run(&test::Options::default())?;
    Ok(lint.max(test))
}
