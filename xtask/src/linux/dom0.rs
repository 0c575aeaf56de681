//! Debian's Linux as dom0, with Xen's own toolstack: the other half of the comparisons.
//!
//! The kernel is unpacked, as hv takes it; the ramdisk holds xenstored, xenconsoled, xl and what they are linked to.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use dom0::toolstack::unpack::unpack;

use super::{Packages, made, packed, read};
use crate::{debian, image};

/// A kernel that is an ELF file, and its ramdisk.
pub(crate) struct LinuxDom0 {
    pub(crate) kernel: PathBuf,
    pub(crate) ramdisk: PathBuf,
}

/// The toolstack and the libraries that it is linked to.
const PACKAGES: [&str; 28] = [
    "xen-utils-4.17",
    "xenstore-utils",
    "libaio1",
    "libbz2-1.0",
    "libc6",
    "libfdt1",
    "libgcc-s1",
    "liblzma5",
    "liblzo2-2",
    "libncurses6",
    "libnl-3-200",
    "libnl-route-3-200",
    "libtinfo6",
    "libuuid1",
    "libxencall1",
    "libxendevicemodel1",
    "libxenevtchn1",
    "libxenforeignmemory1",
    "libxengnttab1",
    "libxenhypfs1",
    "libxenmisc4.17",
    "libxenstore4",
    "libxentoolcore1",
    "libxentoollog1",
    "libxml2",
    "libyajl2",
    "libzstd1",
    "zlib1g",
];
/// Drivers of the machine's devices, the ways to the hypervisor, back ends.
pub(super) const MODULES: [&str; 11] = [
    "virtio_pci",
    "virtio_blk",
    "virtio_net",
    "bridge",
    "xen-evtchn",
    "xen-gntdev",
    "xen-gntalloc",
    "xen-privcmd",
    "xenfs",
    "xen-blkback",
    "xen-netback",
];
const INIT: &str = include_str!("dom0-init.sh");
const BLOCK: &str = include_str!("block.sh");
const VIF: &str = include_str!("vif.sh");

/// Folders of the packages that are taken over, and where they go.
const TAKEN: [(&str, &str); 5] = [
    ("lib/x86_64-linux-gnu", "lib/x86_64-linux-gnu"),
    ("usr/lib/x86_64-linux-gnu", "usr/lib/x86_64-linux-gnu"),
    ("usr/lib/xen-4.17/bin", "usr/lib/xen-4.17/bin"),
    ("usr/lib/xen-4.17/lib", "usr/lib/xen-4.17/lib"),
    ("usr/bin", "usr/bin"),
];
/// What a guest that runs PV kernels has no use for, and is large.
const LEFT_OUT: [&str; 3] = ["qemu-system-i386", "xenalyze", "xentrace"];

/// Gets and makes it, once.
pub(crate) fn get() -> Result<LinuxDom0> {
    let packages = Packages::get()?;
    let dom0 = LinuxDom0 { kernel: packages.folder.join("vmlinux"), ramdisk: packages.folder.join("dom0.gz") };
    made(&dom0.kernel, &[], || {
        let unpacked = read(&packages.kernel())?;
        std::fs::write(&dom0.kernel, unpack(&unpacked)?)?;
        Ok(())
    })?;
    let mut recipe = vec![INIT, BLOCK, VIF];
    recipe.extend(PACKAGES);
    recipe.extend(LEFT_OUT);
    recipe.extend(MODULES);
    made(&dom0.ramdisk, &recipe, || make(&packages, &dom0.ramdisk))?;
    Ok(dom0)
}

type Entry = (String, u32, Vec<u8>);

fn make(packages: &Packages, file: &Path) -> Result<()> {
    eprintln!("xtask: getting Xen's toolstack for a Linux dom0");
    let unpacked = packages.folder.join("dom0");
    let mut entries: Vec<Entry> = Vec::new();
    for folder in FOLDERS {
        entries.push((folder.to_owned(), image::FOLDER, Vec::new()));
    }
    for package in PACKAGES {
        let root = debian::unpack(package, &unpacked)?;
        for (from, to) in TAKEN {
            take(&root.join(from), to, &mut entries)?;
        }
    }
    let loader = unpacked.join("libc6/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2");
    entries.push(("lib64/ld-linux-x86-64.so.2".to_owned(), image::PROGRAM, read(&loader)?));
    entries.push(("init".to_owned(), image::PROGRAM, INIT.as_bytes().to_vec()));
    entries.push(("bin/busybox".to_owned(), image::PROGRAM, read(&packages.busybox())?));
    entries.push(("bin/sh".to_owned(), image::LINK, b"busybox".to_vec()));
    entries.push(("etc/xen/scripts/block".to_owned(), image::PROGRAM, BLOCK.as_bytes().to_vec()));
    entries.push(("etc/xen/scripts/vif-bridge".to_owned(), image::PROGRAM, VIF.as_bytes().to_vec()));
    entries.push(("etc/udhcpc.sh".to_owned(), image::PROGRAM, super::root::UDHCPC.as_bytes().to_vec()));
    entries.push(("etc/xen/xl.conf".to_owned(), image::FILE, Vec::new()));
    entries.push(("var/run".to_owned(), image::LINK, b"/run".to_vec()));
    packages.add_modules(&MODULES, &mut entries)?;
    std::fs::write(file, packed(&image::make_archive(&entries)?)?)?;
    std::fs::remove_dir_all(&unpacked)?;
    Ok(())
}

const FOLDERS: [&str; 30] = [
    "bin",
    "boot",
    "dev",
    "etc",
    "etc/xen",
    "etc/xen/scripts",
    "lib",
    "lib/x86_64-linux-gnu",
    "lib64",
    "modules",
    "proc",
    "root",
    "run",
    "run/xen",
    "run/xenstored",
    "sbin",
    "sys",
    "tmp",
    "usr",
    "usr/bin",
    "usr/lib",
    "usr/lib/x86_64-linux-gnu",
    "usr/lib/xen-4.17",
    "usr/lib/xen-4.17/bin",
    "usr/lib/xen-4.17/lib",
    "var",
    "var/lib",
    "var/lib/xen",
    "var/lib/xenstored",
    "var/lock",
];

/// Takes the files of one folder, and its links, over into another.
fn take(from: &Path, to: &str, entries: &mut Vec<Entry>) -> Result<()> {
    let Ok(folder) = std::fs::read_dir(from) else {
        return Ok(());
    };
    for entry in folder {
        let path = entry?.path();
        let name = super::file_name(&path);
        if LEFT_OUT.iter().any(|left| name.starts_with(left)) {
            continue;
        }
        let place = format!("{to}/{name}");
        let kind = std::fs::symlink_metadata(&path)?.file_type();
        if kind.is_symlink() {
            let target = std::fs::read_link(&path)?;
            let target = target.to_str().with_context(|| format!("{} leads nowhere", path.display()))?;
            entries.push((place, image::LINK, target.as_bytes().to_vec()));
        } else if kind.is_file() {
            entries.push((place, image::PROGRAM, read(&path)?));
        }
    }
    Ok(())
}
