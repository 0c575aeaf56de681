//! Debian's own Linux kernel, and a ramdisk with a shell for it.

use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::{artifacts, debian, image};

/// A kernel and its ramdisk.
pub(crate) struct Linux {
    pub(crate) kernel: PathBuf,
    pub(crate) ramdisk: PathBuf,
}

/// What runs as the first process: mounts, the front ends' modules, the network of QEMU's user mode, then the commands of
/// `exec="…"` between the marks that the host looks for, or a shell.
const INIT: &str = r#"#!/bin/busybox sh
/bin/busybox mkdir -p /proc /sys /dev /sbin /tmp
/bin/busybox --install -s /sbin
export PATH=/sbin:/bin
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
for module in xen-blkfront xen-netfront; do insmod /lib/$module.ko; done
tries=0
while [ ! -e /sys/class/net/eth0 ] && [ $tries -lt 20 ]; do sleep 0.1; tries=$((tries + 1)); done
ifconfig lo 127.0.0.1 up
ifconfig eth0 10.0.2.15 netmask 255.255.255.0 up 2>/dev/null && route add default gw 10.0.2.2
run=$(sed -n 's/.*exec="\([^"]*\)".*/\1/p' /proc/cmdline)
if [ -n "$run" ]; then
    printf '\036exec-begin\n'
    sh -c "$run"
    printf '\036exec-end %s\n' $?
else
    setsid cttyhack sh
fi
poweroff -f
"#;

/// Gets the kernel and builds the ramdisk, once.
pub(crate) fn get() -> Result<Linux> {
    let folder = artifacts::work_folder()?.join("linux");
    let linux = Linux { kernel: folder.join("vmlinuz"), ramdisk: folder.join("initrd.gz") };
    if linux.kernel.exists() && linux.ramdisk.exists() {
        return Ok(linux);
    }
    eprintln!("xtask: getting Debian's kernel and busybox");
    let packages = folder.join("packages");
    let kernel = debian::unpack(&debian::behind("linux-image-amd64", "linux-image-")?, &packages)?;
    let busybox = debian::unpack("busybox-static", &packages)?;
    let mut entries = Vec::new();
    for name in ["bin", "dev", "lib", "proc", "sbin", "sys", "tmp"] {
        entries.push((name.to_owned(), image::FOLDER, Vec::new()));
    }
    entries.push(("init".to_owned(), image::PROGRAM, INIT.as_bytes().to_vec()));
    entries.push(("bin/busybox".to_owned(), image::PROGRAM, read(&busybox.join("bin/busybox"))?));
    entries.push(("bin/sh".to_owned(), image::LINK, b"busybox".to_vec()));
    let modules = only_entry(&kernel.join("lib/modules"))?.join("kernel/drivers");
    for (place, name) in [("block", "xen-blkfront.ko"), ("net", "xen-netfront.ko")] {
        entries.push((format!("lib/{name}"), image::FILE, read(&modules.join(place).join(name))?));
    }
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    packed.write_all(&image::make_archive(&entries)?)?;
    std::fs::write(&linux.ramdisk, packed.finish()?)?;
    let boot = kernel.join("boot");
    let image = std::fs::read_dir(&boot)?
        .filter_map(Result::ok)
        .map(|entry| entry.path())
        .find(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("vmlinuz-")))
        .with_context(|| format!("{} holds no kernel", boot.display()))?;
    std::fs::copy(image, &linux.kernel)?;
    std::fs::remove_dir_all(&packages)?;
    Ok(linux)
}

fn read(path: &Path) -> Result<Vec<u8>> {
    std::fs::read(path).with_context(|| format!("{} cannot be read", path.display()))
}

fn only_entry(folder: &Path) -> Result<PathBuf> {
    let mut entries = std::fs::read_dir(folder).with_context(|| format!("{} cannot be read", folder.display()))?;
    Ok(entries.next().with_context(|| format!("{} is empty", folder.display()))??.path())
}
