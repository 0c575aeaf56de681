//! Debian's own Linux: its kernel, a ramdisk that finds its root, and a disk that is its root.
//!
//! The package's parts that are used are kept below `target/xtask/linux`; what is made of them is made again when the
//! recipe for it has changed.

pub(crate) mod dom0;
pub(crate) mod grub;
mod modules;
mod root;

use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::{artifacts, debian, image};

/// The parts of Debian's packages that everything is made of.
pub(crate) struct Packages {
    folder: PathBuf,
}

/// A guest's kernel, its ramdisk, and the disk with its root.
pub(crate) struct Linux {
    pub(crate) kernel: PathBuf,
    pub(crate) ramdisk: PathBuf,
    pub(crate) disk: PathBuf,
}

/// The modules of a guest: the front ends, and the file system of its root.
const GUEST_MODULES: [&str; 5] = ["xen-blkfront", "xen-netfront", "crc32c_generic", "crc32c_intel", "ext4"];
/// Those of a guest with emulated devices: disk, network card, and the same file system.
const EMULATED_MODULES: [&str; 6] = ["ata_piix", "sd_mod", "ne2k-pci", "crc32c_generic", "crc32c_intel", "ext4"];
const INITRAMFS: &str = include_str!("linux/initramfs.sh");

impl Packages {
    /// Gets the kernel, its modules and busybox, once.
    pub(crate) fn get() -> Result<Self> {
        let packages = Self { folder: artifacts::work_folder()?.join("linux") };
        made(&packages.kernel(), &wanted_modules(), || packages.fetch())?;
        Ok(packages)
    }

    fn fetch(&self) -> Result<()> {
        eprintln!("xtask: getting Debian's kernel and busybox");
        let unpacked = self.folder.join("packages");
        let kernel = debian::unpack(&debian::behind("linux-image-amd64", "linux-image-")?, &unpacked)?;
        let busybox = debian::unpack("busybox-static", &unpacked)?;
        std::fs::copy(busybox.join("bin/busybox"), self.busybox())?;
        std::fs::create_dir_all(self.modules())?;
        for file in modules::in_order(&kernel.join("lib/modules"), &wanted_modules())? {
            std::fs::copy(&file, self.modules().join(file_name(&file)))?;
        }
        let boot = kernel.join("boot");
        let image = std::fs::read_dir(&boot)?
            .filter_map(Result::ok)
            .map(|entry| entry.path())
            .find(|path| file_name(path).starts_with("vmlinuz-"))
            .with_context(|| format!("{} holds no kernel", boot.display()))?;
        std::fs::copy(image, self.kernel())?;
        std::fs::remove_dir_all(&unpacked)?;
        Ok(())
    }

    pub(crate) fn kernel(&self) -> PathBuf {
        self.folder.join("vmlinuz")
    }

    fn busybox(&self) -> PathBuf {
        self.folder.join("busybox")
    }

    fn modules(&self) -> PathBuf {
        self.folder.join("modules")
    }

    /// Adds these modules to a ramdisk, with a list that says in which order they are loaded.
    fn add_modules(&self, wanted: &[&str], entries: &mut Vec<(String, u32, Vec<u8>)>) -> Result<()> {
        let mut order = String::new();
        for module in modules::in_order(&self.modules(), wanted)? {
            let name = file_name(&module);
            order.push_str(&format!("{name}\n"));
            entries.push((format!("modules/{name}"), image::FILE, read(&module)?));
        }
        entries.push(("modules/order".to_owned(), image::FILE, order.into_bytes()));
        Ok(())
    }
}

/// All modules that something made here has.
fn wanted_modules() -> Vec<&'static str> {
    GUEST_MODULES.into_iter().chain(EMULATED_MODULES).chain(dom0::MODULES).collect()
}

/// All that a Linux guest needs.
pub(crate) fn get() -> Result<Linux> {
    let packages = Packages::get()?;
    let linux = Linux {
        kernel: packages.kernel(),
        ramdisk: packages.folder.join("initrd.gz"),
        disk: packages.folder.join("root.img"),
    };
    made(&linux.ramdisk, &[INITRAMFS], || make_ramdisk(&packages, &GUEST_MODULES, &linux.ramdisk))?;
    let bench = artifacts::linux_bench()?;
    let stamp = std::fs::metadata(&bench)?.modified()?;
    let mut recipe = root::RECIPE.to_vec();
    let stamp = format!("{stamp:?}");
    recipe.push(&stamp);
    made(&linux.disk, &recipe, || root::make(&linux.disk, &packages.busybox(), &[&bench], &[]))?;
    Ok(linux)
}

/// The ramdisk of a guest that has emulated devices.
pub(crate) fn emulated_ramdisk() -> Result<PathBuf> {
    let packages = Packages::get()?;
    let file = packages.folder.join("initrd-emulated.gz");
    let recipe: Vec<_> = EMULATED_MODULES.into_iter().chain([INITRAMFS]).collect();
    made(&file, &recipe, || make_ramdisk(&packages, &EMULATED_MODULES, &file))?;
    Ok(file)
}

fn make_ramdisk(packages: &Packages, modules: &[&str], file: &Path) -> Result<()> {
    let mut entries = Vec::new();
    for name in ["bin", "dev", "modules", "mnt"] {
        entries.push((name.to_owned(), image::FOLDER, Vec::new()));
    }
    entries.push(("init".to_owned(), image::PROGRAM, INITRAMFS.as_bytes().to_vec()));
    entries.push(("bin/busybox".to_owned(), image::PROGRAM, read(&packages.busybox())?));
    packages.add_modules(modules, &mut entries)?;
    std::fs::write(file, packed(&image::make_archive(&entries)?)?)?;
    Ok(())
}

fn packed(archive: &[u8]) -> Result<Vec<u8>> {
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    packed.write_all(archive)?;
    Ok(packed.finish()?)
}

/// Makes `file` where it does not exist or was made by another recipe, which stands beside it.
fn made(file: &Path, recipe: &[&str], make: impl FnOnce() -> Result<()>) -> Result<()> {
    let mut hasher = DefaultHasher::new();
    recipe.hash(&mut hasher);
    let recipe = format!("{:016x}", hasher.finish());
    let note = file.with_extension("recipe");
    if file.exists() && std::fs::read_to_string(&note).is_ok_and(|known| known == recipe) {
        return Ok(());
    }
    if let Some(folder) = file.parent() {
        std::fs::create_dir_all(folder)?;
    }
    make()?;
    std::fs::write(note, recipe)?;
    Ok(())
}

fn read(path: &Path) -> Result<Vec<u8>> {
    std::fs::read(path).with_context(|| format!("{} cannot be read", path.display()))
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}
