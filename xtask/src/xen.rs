//! Real Xen 4.17, where Debian's package can be had.

use std::io::Read;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::{artifacts, tools};

const PACKAGE: &str = "xen-hypervisor-4.17-amd64";

/// The unpacked Xen image, from the package that is installed or downloaded (never installed).
///
/// # Errors
/// The package cannot be had; the error says why.
pub(crate) fn image() -> Result<PathBuf> {
    let folder = artifacts::work_folder()?.join("xen");
    let image = folder.join("xen-4.17");
    if image.exists() {
        return Ok(image);
    }
    std::fs::create_dir_all(&folder)?;
    let packed = match installed() {
        Some(packed) => packed,
        None => download(&folder)?,
    };
    let mut bytes = Vec::new();
    flate2::read::GzDecoder::new(std::fs::File::open(&packed)?)
        .read_to_end(&mut bytes)
        .with_context(|| format!("{} is not a gzip file", packed.display()))?;
    std::fs::write(&image, bytes)?;
    Ok(image)
}

fn installed() -> Option<PathBuf> {
    find_image(&PathBuf::from("/boot"))
}

fn find_image(folder: &PathBuf) -> Option<PathBuf> {
    std::fs::read_dir(folder).ok()?.filter_map(Result::ok).map(|entry| entry.path()).find(|path| {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        name.starts_with("xen-4.17") && name.ends_with(".gz")
    })
}

fn download(folder: &PathBuf) -> Result<PathBuf> {
    if !tools::on_path("apt-get") || !tools::on_path("dpkg-deb") {
        bail!("{PACKAGE} cannot be had: this is not a Debian machine");
    }
    tools::update_package_lists();
    let output = Command::new("apt-get")
        .current_dir(folder)
        .args(["download", "-qq", PACKAGE])
        .output()
        .context("apt-get cannot be started")?;
    let package = std::fs::read_dir(folder)?
        .filter_map(Result::ok)
        .map(|entry| entry.path())
        .find(|path| path.extension().is_some_and(|extension| extension == "deb"));
    let Some(package) = package else {
        bail!("{PACKAGE} cannot be had: {}", String::from_utf8_lossy(&output.stderr).trim());
    };
    let unpacked = folder.join("package");
    let status = Command::new("dpkg-deb").arg("-x").arg(&package).arg(&unpacked).status()?;
    if !status.success() {
        bail!("{} cannot be unpacked", package.display());
    }
    find_image(&unpacked.join("boot")).with_context(|| format!("{PACKAGE} holds no image"))
}
