//! A guest's root: a raw disk image that is one ext4 file system, with busybox and the program that measures Linux.

use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::tools;

const SIZE: &str = "128M";
const INIT: &str = include_str!("root-init.sh");
/// What udhcpc calls.
pub(super) const UDHCPC: &str = include_str!("udhcpc.sh");

/// What decides what is in the image, besides the programs.
pub(super) const RECIPE: [&str; 3] = [SIZE, INIT, UDHCPC];

/// Makes the image, with these programs and files (path without the leading slash, content).
pub(super) fn make(image: &Path, busybox: &Path, programs: &[&Path], files: &[(&str, Vec<u8>)]) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let root = folder.path();
    for name in ["bin", "boot", "dev", "etc", "mnt", "proc", "root", "sbin", "sys", "tmp"] {
        std::fs::create_dir(root.join(name))?;
    }
    program(&root.join("sbin/init"), INIT.as_bytes())?;
    program(&root.join("etc/udhcpc.sh"), UDHCPC.as_bytes())?;
    std::fs::write(root.join("etc/passwd"), "root::0:0:root:/root:/bin/sh\n")?;
    for file in programs.iter().chain([&busybox]) {
        let name = file.file_name().with_context(|| format!("{} is no file", file.display()))?;
        program(&root.join("bin").join(name), &super::read(file)?)?;
    }
    for name in applets(busybox)? {
        let place = root.join("bin").join(name);
        if !place.exists() {
            symlink("busybox", place)?;
        }
    }
    for (path, content) in files {
        let place = root.join(path);
        if let Some(folder) = place.parent() {
            std::fs::create_dir_all(folder)?;
        }
        std::fs::write(place, content)?;
    }
    format(image, root)
}

fn program(path: &Path, content: &[u8]) -> Result<()> {
    std::fs::write(path, content).with_context(|| format!("{} cannot be written", path.display()))?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755))?;
    Ok(())
}

fn applets(busybox: &Path) -> Result<Vec<String>> {
    let output = Command::new(busybox).arg("--list").output().context("busybox cannot be started")?;
    Ok(String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect())
}

/// Makes a file system of what lies in `root`.
fn format(image: &Path, root: &Path) -> Result<()> {
    tools::E2FSPROGS.ensure()?;
    if image.exists() {
        std::fs::remove_file(image)?;
    }
    let output = tools::administrative("mke2fs")
        .args(["-q", "-t", "ext4", "-L", "root", "-E", "root_owner=0:0", "-d"])
        .args([root, image])
        .arg(SIZE)
        .output()
        .context("mke2fs cannot be started")?;
    if !output.status.success() {
        bail!("the root file system cannot be made: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}
