//! `cargo xtask lint`: formatting and clippy.

use std::process::Command;

use anyhow::{Context, Result};

use crate::artifacts;

/// Checks formatting and lints on the host and for the bare metal; status 1 where something is found.
pub(crate) fn run() -> Result<u8> {
    let mut clean = cargo(&["fmt", "--all", "--check"])?;
    clean &=
        cargo(&["clippy", "--quiet", "--workspace", "--features=hv/fake", "--all-targets", "--", "-D", "warnings"])?;
    for packages in artifacts::KERNELS {
        let named = artifacts::bare_metal(packages);
        let mut bare = vec!["clippy", "--quiet", "--release", "--target", artifacts::TARGET];
        bare.extend(named.iter().map(String::as_str));
        bare.extend(["--", "-D", "warnings"]);
        clean &= cargo(&bare)?;
    }
    println!("{}", if clean { "lint: clean" } else { "lint: see above" });
    Ok(u8::from(!clean))
}

fn cargo(arguments: &[&str]) -> Result<bool> {
    let status = Command::new(env!("CARGO"))
        .current_dir(artifacts::root())
        .args(arguments)
        .status()
        .with_context(|| format!("cargo {} cannot be started", arguments[0]))?;
    Ok(status.success())
}
