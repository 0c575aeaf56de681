//! Real Xen 4.17, where Debian's package can be had.

use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::{artifacts, debian};

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
    find_image(Path::new("/boot"))
}

fn find_image(folder: &Path) -> Option<PathBuf> {
    std::fs::read_dir(folder).ok()?.filter_map(Result::ok).map(|entry| entry.path()).find(|path| {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        name.starts_with("xen-4.17") && name.ends_with(".gz")
    })
}

fn download(folder: &Path) -> Result<PathBuf> {
    let unpacked = debian::unpack(PACKAGE, folder)?;
    find_image(&unpacked.join("boot")).with_context(|| format!("{PACKAGE} holds no image"))
}
