//! PV-GRUB: a boot loader that runs as a guest's kernel and starts Linux from the guest's disk.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::{Linux, Packages, made, read, root};
use crate::{artifacts, debian, tools};

/// What GRUB does first: all else stands on the disk.
const START: &str = "set root=(xen/xvda)\nset prefix=(xen/xvda)/boot/grub\nconfigfile /boot/grub/grub.cfg\n";
/// What the disk says.
const MENU: &str = "linux /boot/vmlinuz console=hvc0 quiet\ninitrd /boot/initrd.gz\nboot\n";
/// Without the unpackers it would not know a packed kernel for one.
const MODULES: [&str; 6] = ["ext2", "normal", "linux", "configfile", "gzio", "xzio"];

/// GRUB as a kernel, made once.
pub(crate) fn kernel() -> Result<PathBuf> {
    let packages = Packages::get()?;
    let kernel = packages.folder.join("grub-x86_64-xen.bin");
    let mut recipe = vec![START];
    recipe.extend(MODULES);
    made(&kernel, &recipe, || make(&packages, &kernel))?;
    Ok(kernel)
}

fn make(packages: &Packages, kernel: &Path) -> Result<()> {
    tools::GRUB_TOOLS.ensure()?;
    let unpacked = packages.folder.join("grub");
    let modules = debian::unpack("grub-xen-bin", &unpacked)?.join("usr/lib/grub/x86_64-xen");
    let start = unpacked.join("start.cfg");
    std::fs::write(&start, START)?;
    let output = Command::new("grub-mkimage")
        .args(["-O", "x86_64-xen", "-p", "(xen/xvda)/boot/grub", "-d"])
        .arg(&modules)
        .arg("-c")
        .arg(&start)
        .arg("-o")
        .arg(kernel)
        .args(MODULES)
        .output()
        .context("grub-mkimage cannot be started")?;
    if !output.status.success() {
        bail!("GRUB cannot be made: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    std::fs::remove_dir_all(&unpacked)?;
    Ok(())
}

/// A root that holds its own kernel, with these commands to run.
pub(crate) fn disk(linux: &Linux, image: &Path, exec: Option<&str>) -> Result<()> {
    let files = [
        ("boot/vmlinuz", read(&linux.kernel)?),
        ("boot/initrd.gz", read(&linux.ramdisk)?),
        ("boot/grub/grub.cfg", MENU.as_bytes().to_vec()),
        ("etc/exec", exec.unwrap_or_default().as_bytes().to_vec()),
    ];
    root::make(image, &Packages::get()?.busybox(), &[&artifacts::linux_bench()?], &files)
}
