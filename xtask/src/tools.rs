//! Tools that are not there yet, and how to get them.
//!
//! A tool is a Debian package, or several, with a way to see that it is there. As root, or where the user said `--yes`
//! or `CI=true`, a missing one is installed; else the line to run is the error.

use std::path::Path;
use std::process::Command;
use std::sync::OnceLock;

use anyhow::{Context, Result, bail};

/// Something that a command needs of the machine.
pub(crate) struct Tool {
    /// What it is for, as `doctor` says.
    pub(crate) purpose: &'static str,
    /// The Debian packages that bring it.
    pub(crate) packages: &'static [&'static str],
    present: fn() -> bool,
}

/// The emulator.
pub(crate) const QEMU: Tool =
    Tool { purpose: "boots everything", packages: &["qemu-system-x86"], present: || on_path("qemu-system-x86_64") };
/// Xen's public headers, against which `pv-abi` is checked, and the compiler that reads them.
pub(crate) const XEN_HEADERS: Tool = Tool {
    purpose: "the C headers that pv-abi's layouts are compared with",
    packages: &["libxen-dev", "gcc", "libc6-dev"],
    present: || Path::new("/usr/include/xen/xen.h").exists() && on_path("cc"),
};

/// Makes CD images that boot.
pub(crate) const GRUB: Tool = Tool {
    purpose: "makes bootable CD images",
    packages: &["grub-pc-bin", "grub-common", "xorriso", "mtools"],
    present: || {
        on_path("grub-mkrescue")
            && on_path("xorriso")
            && on_path("mformat")
            && Path::new("/usr/lib/grub/i386-pc").exists()
    },
};

/// Makes the root file system of a Linux guest.
pub(crate) const E2FSPROGS: Tool = Tool {
    purpose: "makes the root file system of a Linux guest",
    packages: &["e2fsprogs"],
    present: || administrative("mke2fs").get_program() != "mke2fs" || on_path("mke2fs"),
};

/// Makes GRUB as a guest's kernel.
pub(crate) const GRUB_TOOLS: Tool =
    Tool { purpose: "makes PV-GRUB", packages: &["grub-common"], present: || on_path("grub-mkimage") };

/// Opens the comparison's page in the tests.
pub(crate) const CHROMIUM: Tool = Tool {
    purpose: "opens the comparison's page in the tests",
    packages: &["chromium"],
    present: || on_path("chromium"),
};

/// All tools, for `doctor`.
pub(crate) const ALL: [&Tool; 6] = [&QEMU, &XEN_HEADERS, &GRUB, &E2FSPROGS, &GRUB_TOOLS, &CHROMIUM];

static MAY_INSTALL: OnceLock<bool> = OnceLock::new();

/// Records whether the user allowed installing.
pub(crate) fn allow_installing(yes: bool) {
    let ci = std::env::var("CI").is_ok_and(|value| value == "true");
    let _ = MAY_INSTALL.set(yes || ci || is_root());
}

impl Tool {
    /// Whether it is there.
    pub(crate) fn is_present(&self) -> bool {
        (self.present)()
    }

    /// The line that installs it.
    pub(crate) fn cure(&self) -> String {
        format!("apt-get install -y {}", self.packages.join(" "))
    }

    /// Makes sure that it is there.
    pub(crate) fn ensure(&self) -> Result<()> {
        if self.is_present() {
            return Ok(());
        }
        if !MAY_INSTALL.get().copied().unwrap_or(false) {
            bail!("{} is missing ({}); run: sudo {}", self.packages[0], self.purpose, self.cure());
        }
        eprintln!("xtask: installing {} ({})", self.packages.join(" "), self.purpose);
        update_package_lists();
        let mut arguments = vec!["install", "-y", "-qq", "--no-install-recommends"];
        arguments.extend(self.packages);
        apt(&arguments)?;
        if !self.is_present() {
            bail!("{} was installed but is still not usable; see: {}", self.packages[0], self.cure());
        }
        Ok(())
    }
}

/// Refreshes the package lists once; an old list is better than none, so failing is not an error here.
pub(crate) fn update_package_lists() {
    static ONCE: OnceLock<()> = OnceLock::new();
    ONCE.get_or_init(|| {
        let _ = apt(&["update", "-qq"]);
    });
}

fn apt(arguments: &[&str]) -> Result<()> {
    let mut command = if is_root() { Command::new("apt-get") } else { Command::new("sudo") };
    if !is_root() {
        command.args(["-n", "apt-get"]);
    }
    let output = command
        .args(arguments)
        .env("DEBIAN_FRONTEND", "noninteractive")
        .output()
        .context("apt-get cannot be started; this machine needs Debian's packages")?;
    if !output.status.success() {
        let why = String::from_utf8_lossy(&output.stderr);
        bail!("apt-get {} failed: {}", arguments.join(" "), why.trim().lines().last().unwrap_or("no reason given"));
    }
    Ok(())
}

/// Whether the bare-metal target is there; rustup brings it by itself from `rust-toolchain.toml`, where there is rustup.
pub(crate) fn ensure_target() -> Result<()> {
    let output = Command::new("rustc").args(["--print", "sysroot"]).output().context("rustc cannot be started")?;
    let sysroot = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    if Path::new(&sysroot).join("lib/rustlib/x86_64-unknown-none").exists() {
        return Ok(());
    }
    eprintln!("xtask: adding the target x86_64-unknown-none");
    let status = Command::new("rustup").args(["target", "add", "x86_64-unknown-none"]).status();
    if !status.is_ok_and(|status| status.success()) {
        bail!("the target x86_64-unknown-none is missing; run: rustup target add x86_64-unknown-none");
    }
    Ok(())
}

/// Whether a program can be found.
pub(crate) fn on_path(program: &str) -> bool {
    std::env::var_os("PATH")
        .is_some_and(|paths| std::env::split_paths(&paths).any(|folder| folder.join(program).is_file()))
}

/// A program for administrators, which lies where others' `PATH` may not lead.
pub(crate) fn administrative(program: &str) -> Command {
    let place = Path::new("/usr/sbin").join(program);
    if place.is_file() { Command::new(place) } else { Command::new(program) }
}

fn is_root() -> bool {
    Command::new("id").arg("-u").output().is_ok_and(|output| output.stdout.trim_ascii() == b"0")
}
