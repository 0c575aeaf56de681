//! The guests that there are: what each is made of, and the memory it takes.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::artifacts::{self, Artifacts};
use crate::{image, linux};

use super::{Mode, Options};

/// A guest: files and sizes.
pub(super) struct Guest {
    name: &'static str,
    pub(super) kernel: PathBuf,
    pub(super) ramdisk: Option<PathBuf>,
    /// What its kernel's command line begins with.
    arguments: &'static str,
    pub(super) memory_mib: u32,
    /// What the dom0 that builds it takes, in MiB: a compressed kernel is unpacked there.
    pub(super) dom0_mib: u32,
    /// The least RAM of the machine that holds both, in MiB.
    pub(super) machine_mib: u32,
    /// The disk that it has where none is named.
    pub(super) disk: PathBuf,
    /// The commands stand on the disk.
    told_by_disk: bool,
}

/// What the default disk holds.
const HELLO: &str = "Hello from a disk behind a shared ring.\n";
/// A kernel's command line, with its end (Xen: MAX_GUEST_CMDLINE).
const MAX_COMMAND_LINE: usize = 1023;

impl Guest {
    /// The guest that the options name. Files that are made for this run alone go to `folder`.
    pub(super) fn named(artifacts: &Artifacts, options: &Options, folder: &Path) -> Result<Self> {
        match options.guest_name() {
            "linux" => Self::linux(!options.snapshot, options.mode),
            "grub" if options.mode == Mode::Hvm => bail!("PV-GRUB is a PV guest: leave --mode hvm out"),
            "grub" => Self::grub(&folder.join("root.img"), options.exec.as_deref()),
            name => Ok(Self {
                name: "demo",
                kernel: kernel(artifacts, name)?,
                ramdisk: None,
                arguments: "",
                memory_mib: 64,
                dom0_mib: 128,
                machine_mib: 0,
                disk: demo_disk()?,
                told_by_disk: false,
            }),
        }
    }

    fn linux(keep: bool, mode: Mode) -> Result<Self> {
        let linux = linux::get()?;
        // Without `nopv` it finds Xen by itself and looks for front ends.
        let (ramdisk, arguments) = match mode {
            Mode::Hvm => (linux::emulated_ramdisk()?, "nopv console=ttyS0 quiet "),
            _ => (linux.ramdisk, "console=hvc0 quiet "),
        };
        Ok(Self {
            name: "linux",
            kernel: linux.kernel,
            ramdisk: Some(ramdisk),
            arguments,
            memory_mib: 256,
            dom0_mib: 512,
            machine_mib: 1024,
            disk: if keep { own_copy(&linux.disk)? } else { linux.disk },
            told_by_disk: false,
        })
    }

    /// PV-GRUB, which finds Linux and the commands on the disk.
    fn grub(disk: &Path, exec: Option<&str>) -> Result<Self> {
        let linux = linux::get()?;
        linux::grub::disk(&linux, disk, exec)?;
        Ok(Self {
            name: "grub",
            kernel: linux::grub::kernel()?,
            ramdisk: None,
            arguments: "",
            memory_mib: 256,
            dom0_mib: 128,
            machine_mib: 640,
            disk: disk.to_owned(),
            told_by_disk: true,
        })
    }

    /// Its kernel's command line.
    fn extra(&self, exec: Option<&str>) -> Result<String> {
        Ok(format!("{}{}", self.arguments, arguments(exec.filter(|_| !self.told_by_disk))?))
    }

    /// Its description for dom0, as `xl.cfg` has it, in TOML.
    pub(super) fn describe(&self, options: &Options) -> Result<String> {
        let extra = serde_json::to_string(&self.extra(options.exec.as_deref())?)?;
        let (name, memory) = (self.name, self.memory_mib);
        let (vcpus, tsc_mode) = (options.cpus, &options.tsc_mode);
        let (kind, disk) = match options.mode {
            Mode::Pvh => ("type = \"pvh\"\n", "xvda"),
            Mode::Hvm => ("type = \"hvm\"\n", "hda"),
            _ => ("", "xvda"),
        };
        let ramdisk = if self.ramdisk.is_some() { "ramdisk = \"/boot/initrd\"\n" } else { "" };
        Ok(format!(
            "name = \"{name}\"\n{kind}kernel = \"/boot/demo\"\n{ramdisk}extra = {extra}\nmemory = {memory}\nvcpus = {vcpus}\n\
             tsc_mode = \"{tsc_mode}\"\n\
             disk = [\"phy:/dev/vda,{disk},w\"]\nvif = [\"mac=00:16:3e:00:00:01,bridge=xenbr0\"]\n"
        ))
    }

    /// What the ramdisk of the dom0 that builds it holds for it.
    pub(super) fn files(&self) -> Result<Vec<(String, Vec<u8>)>> {
        let read = |path: &Path| std::fs::read(path).with_context(|| format!("{} cannot be read", path.display()));
        let mut files = vec![("boot/demo".to_owned(), read(&self.kernel)?)];
        if let Some(initrd) = &self.ramdisk {
            files.push(("boot/initrd".to_owned(), read(initrd)?));
        }
        Ok(files)
    }
}

/// The file of a kernel of this project or of another.
fn kernel(artifacts: &Artifacts, name: &str) -> Result<PathBuf> {
    if name == "demo" {
        return Ok(artifacts.kernel("demo"));
    }
    let path = PathBuf::from(name);
    if !path.is_file() {
        bail!("there is no guest and no file \"{name}\"; give --guest demo, linux, grub or the path of a kernel");
    }
    Ok(path)
}

/// The command line that makes a guest run these commands.
pub(super) fn arguments(exec: Option<&str>) -> Result<String> {
    let Some(exec) = exec else {
        return Ok(String::new());
    };
    if exec.contains('"') {
        bail!("--exec cannot hold a double quote; the guest's shell has single quotes");
    }
    let arguments = format!("exec=\"{exec}\"");
    if arguments.len() > MAX_COMMAND_LINE {
        bail!(
            "--exec is {} bytes too long for a kernel's command line; run it in parts",
            arguments.len() - MAX_COMMAND_LINE
        );
    }
    Ok(arguments)
}

/// The usual disk, made where it does not exist.
fn demo_disk() -> Result<PathBuf> {
    let disk = artifacts::work_folder()?.join("disk.img");
    if !disk.exists() {
        make_disk(&disk)?;
    }
    Ok(disk)
}

/// Makes a disk as the demo has it.
pub(super) fn make_disk(disk: &Path) -> Result<()> {
    image::make_disk(disk, &[("hello.txt", HELLO.as_bytes())])
}

/// A copy of a disk that keeps what is written to it, until its pattern is newer.
fn own_copy(pattern: &Path) -> Result<PathBuf> {
    let copy = artifacts::work_folder()?.join("linux.img");
    let made = |path: &Path| std::fs::metadata(path).and_then(|known| known.modified());
    if !copy.exists() || made(&copy)? < made(pattern)? {
        std::fs::copy(pattern, &copy).with_context(|| format!("{} cannot be made", copy.display()))?;
    }
    Ok(copy)
}
