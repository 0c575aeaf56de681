//! The kernels: hv, dom0, the guests.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::tools;

/// The target of everything without an operating system.
pub(crate) const TARGET: &str = "x86_64-unknown-none";

/// The crates of the kernels, by what is built together: cargo gives all of one build the same features of what they
/// share, and hv is to have no more than it asks for.
pub(crate) const KERNELS: [&[&str]; 3] = [&["hv"], &["pv-guest-kernel", "dom0"], &["guest-tests"]];

/// Cargo's arguments that name these crates and say that they are for the bare metal.
pub(crate) fn bare_metal(packages: &[&str]) -> Vec<String> {
    let mut arguments = Vec::new();
    for package in packages {
        arguments.extend(["-p".to_owned(), (*package).to_owned()]);
    }
    let features: Vec<String> = packages.iter().map(|package| format!("{package}/bare-metal")).collect();
    arguments.extend(["--features".to_owned(), features.join(",")]);
    arguments
}

/// The built kernels.
pub(crate) struct Artifacts {
    folder: PathBuf,
}

/// The root of the workspace.
pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask lies in the workspace")
}

/// Where files that are no build products of cargo's go.
pub(crate) fn work_folder() -> Result<PathBuf> {
    let folder = target_folder().join("xtask");
    std::fs::create_dir_all(&folder).with_context(|| format!("{} cannot be made", folder.display()))?;
    Ok(folder)
}

/// Cargo's folder for what it builds.
pub(crate) fn target_folder() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from)
}

/// Builds the program that measures Linux from inside: static, so that it runs in a Linux with nothing else.
pub(crate) fn linux_bench() -> Result<PathBuf> {
    const TARGET: &str = "x86_64-unknown-linux-gnu";
    let flags = format!(
        "target.{TARGET}.rustflags=['-C','target-feature=+crt-static','-C','relocation-model=static','-C','strip=symbols']"
    );
    let status = Command::new(env!("CARGO"))
        .current_dir(root())
        .args(["build", "--quiet", "--release", "-p", "linux-bench", "--target", TARGET, "--config", &flags])
        .status()
        .context("cargo cannot be started")?;
    if !status.success() {
        bail!("linux-bench does not build; cargo's message is above");
    }
    Ok(target_folder().join(TARGET).join("release/linux-bench"))
}

/// Builds the plugin that counts instructions.
pub(crate) fn build_counter() -> Result<()> {
    let status = Command::new(env!("CARGO"))
        .current_dir(root())
        .args(["build", "--quiet", "--release", "-p", "counter"])
        .status()
        .context("cargo cannot be started")?;
    if !status.success() {
        bail!("the counting plugin does not build; cargo's message is above");
    }
    Ok(())
}

/// The file of the plugin that counts instructions.
pub(crate) fn counter_library() -> PathBuf {
    target_folder().join("release/libcounter.so")
}

impl Artifacts {
    /// Builds all kernels; says so on the terminal only where there is something to do.
    pub(crate) fn build() -> Result<Self> {
        tools::ensure_target()?;
        for packages in KERNELS {
            let status = Command::new(env!("CARGO"))
                .current_dir(root())
                .args(["build", "--quiet", "--release", "--target", TARGET])
                .args(bare_metal(packages))
                .status()
                .context("cargo cannot be started")?;
            if !status.success() {
                bail!("the kernels do not build; cargo's message is above");
            }
        }
        Ok(Self { folder: target_folder().join(TARGET).join("release") })
    }

    /// The file of one kernel.
    pub(crate) fn kernel(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// The kernels of the crate `guest-tests`, in order of their names.
    pub(crate) fn guest_tests(&self) -> Result<Vec<String>> {
        let folder = root().join("guest-tests/src/bin");
        let mut names = Vec::new();
        for entry in std::fs::read_dir(&folder).with_context(|| format!("{} cannot be read", folder.display()))? {
            let path = entry?.path();
            if let Some(name) = path.file_stem().and_then(|stem| stem.to_str()) {
                names.push(name.to_owned());
            }
        }
        names.sort();
        Ok(names)
    }
}
