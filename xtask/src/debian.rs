//! Debian packages that are looked into, not installed.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::tools;

/// Downloads a package and unpacks it below `folder`; gives the folder that holds its files.
///
/// # Errors
/// The package cannot be had; the error says why.
pub(crate) fn unpack(package: &str, folder: &Path) -> Result<PathBuf> {
    if !tools::on_path("apt-get") || !tools::on_path("dpkg-deb") {
        bail!("{package} cannot be had: this is not a Debian machine");
    }
    std::fs::create_dir_all(folder)?;
    tools::update_package_lists();
    let output = Command::new("apt-get")
        .current_dir(folder)
        .args(["download", "-qq", package])
        .output()
        .context("apt-get cannot be started")?;
    let prefix = format!("{package}_");
    let file = std::fs::read_dir(folder)?.filter_map(Result::ok).map(|entry| entry.path()).find(|path| {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        name.starts_with(&prefix) && name.ends_with(".deb")
    });
    let Some(file) = file else {
        bail!("{package} cannot be had: {}", String::from_utf8_lossy(&output.stderr).trim());
    };
    let unpacked = folder.join(package);
    let status = Command::new("dpkg-deb").arg("-x").arg(&file).arg(&unpacked).status()?;
    if !status.success() {
        bail!("{} cannot be unpacked", file.display());
    }
    std::fs::remove_file(&file)?;
    Ok(unpacked)
}

/// The package that a meta package stands for today, for example the kernel behind `linux-image-amd64`.
pub(crate) fn behind(meta: &str, prefix: &str) -> Result<String> {
    tools::update_package_lists();
    let output = Command::new("apt-cache").args(["depends", meta]).output().context("apt-cache cannot be started")?;
    String::from_utf8_lossy(&output.stdout)
        .split_whitespace()
        .find(|word| word.starts_with(prefix) && word.as_bytes().get(prefix.len()).is_some_and(u8::is_ascii_digit))
        .map(str::to_owned)
        .with_context(|| format!("no package stands behind {meta}; is this Debian?"))
}
