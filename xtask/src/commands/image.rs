//! `cargo xtask image`: a CD image that boots the whole system by GRUB, on a PC or in QEMU.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use clap::Args;

use super::run::{self, System};
use crate::artifacts::{Artifacts, work_folder};
use crate::qemu::Machine;
use crate::tools;

#[derive(Args)]
pub(crate) struct Options {
    /// Where the image goes
    #[arg(long)]
    output: Option<PathBuf>,
}

/// The way GRUB hands over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Protocol {
    /// Multiboot version 1.
    Multiboot,
    /// Multiboot version 2.
    Multiboot2,
}

/// Makes the image and says how to start it.
pub(crate) fn run(options: &Options) -> Result<u8> {
    let artifacts = Artifacts::build()?;
    let system = System::interactive(&artifacts)?;
    let output = match &options.output {
        Some(output) => output.clone(),
        None => work_folder()?.join("xenolith.iso"),
    };
    make(&system.machine, Protocol::Multiboot2, &output)?;
    println!("{}", output.display());
    println!(
        "start it with: qemu-system-x86_64 -m {} -serial mon:stdio -display none -cdrom {}",
        run::MEMORY_MIB,
        output.display()
    );
    Ok(0)
}

/// Puts what a machine would load onto a CD whose GRUB loads it.
pub(crate) fn make(machine: &Machine, protocol: Protocol, output: &Path) -> Result<()> {
    tools::GRUB.ensure()?;
    let folder = tempfile::tempdir()?;
    let boot = folder.path().join("boot");
    std::fs::create_dir_all(boot.join("grub"))?;
    let copy = |from: &Path, name: &str| {
        std::fs::copy(from, boot.join(name)).with_context(|| format!("{} cannot be copied", from.display()))
    };
    copy(&machine.kernel, "hv")?;
    let (load, module) = match protocol {
        Protocol::Multiboot => ("multiboot", "module"),
        Protocol::Multiboot2 => ("multiboot2", "module2"),
    };
    let mut menu = format!(
        "set timeout=0\nserial --unit=0 --speed=115200\nterminal_output serial\nmenuentry Xenolith {{\n\
         {load} /boot/hv {}\n",
        machine.command_line
    );
    for (index, (file, arguments)) in machine.modules.iter().enumerate() {
        copy(file, &format!("module{index}"))?;
        menu.push_str(&format!("{module} /boot/module{index} {arguments}\n"));
    }
    menu.push_str("}\n");
    std::fs::write(boot.join("grub/grub.cfg"), menu)?;
    let result = Command::new("grub-mkrescue")
        .arg("-o")
        .arg(output)
        .arg(folder.path())
        .output()
        .context("grub-mkrescue cannot be started")?;
    if !result.status.success() {
        let why = String::from_utf8_lossy(&result.stderr);
        bail!("the image cannot be made: {}", why.trim().lines().last().unwrap_or("no reason given"));
    }
    Ok(())
}
