//! `cargo xtask run`: hypervisor, service domain, guest, disk and network in one QEMU.

mod guest;

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::{Args, ValueEnum};
use indicatif::{ProgressBar, ProgressStyle};

use crate::artifacts::Artifacts;
use crate::console::{Console, Event};
use crate::control::Registered;
use crate::qemu::Machine;
use crate::{image, tools, xen};
use guest::Guest;

#[derive(Args)]
pub(crate) struct Options {
    /// The guest: `demo`, `linux` (Debian's own kernel), or a kernel's file
    #[arg(long, default_value = "demo")]
    guest: String,
    /// What the guest runs on
    #[arg(long, value_enum, default_value = "hv")]
    on: Hypervisor,
    /// How the guest's kernel runs: paravirtualized, or alone on the machine
    #[arg(long, value_enum, default_value = "pv")]
    mode: Mode,
    /// A guest's description (TOML with the keys of xl.cfg) instead of the usual one
    #[arg(long)]
    config: Option<PathBuf>,
    /// Run these shell commands in the guest, print their output alone, and exit with their status
    #[arg(long)]
    exec: Option<String>,
    /// The disk image; made, with hello.txt on it, where it does not exist. Without this option a guest has its own
    #[arg(long)]
    disk: Option<PathBuf>,
    /// Forget what is written to the disk
    #[arg(long)]
    snapshot: bool,
    /// What `cargo xtask ctl --system` calls it; else its process's number
    #[arg(long)]
    name: Option<String>,
    /// RAM of the machine in MiB
    #[arg(long, default_value_t = MEMORY_MIB)]
    memory: u32,
    /// CPUs of the machine, and of the guest
    #[arg(long, default_value_t = 1)]
    cpus: u32,
    /// Count time in instructions, so that two runs are equal
    #[arg(long)]
    deterministic: bool,
    /// Seconds after which a run with --exec is given up
    #[arg(long, default_value_t = 120)]
    timeout: u64,
    /// Options for the hypervisor's command line, as Xen has them
    #[arg(long, default_value = "")]
    hv_options: String,
}

/// What a guest runs on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Hypervisor {
    /// This project's.
    Hv,
    /// Xen 4.17 from Debian's package.
    Xen,
}

/// How a kernel runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Mode {
    /// As a paravirtualized guest.
    Pv,
    /// As the kernel of the machine.
    Native,
}

/// RAM of the machine in MiB.
pub(crate) const MEMORY_MIB: u32 = 512;

/// Boots; gives the guest's status with `--exec`.
pub(crate) fn run(options: &Options) -> Result<u8> {
    tools::QEMU.ensure()?;
    let artifacts = Artifacts::build()?;
    let system = System::prepare(&artifacts, options)?;
    if options.exec.is_some() {
        let outcome = system.execute(Duration::from_secs(options.timeout))?;
        print!("{}", outcome.output);
        return Ok(outcome.status);
    }
    let status = system.machine.interactive().status().context("qemu-system-x86_64 cannot be started")?;
    Ok(u8::from(!status.success() && status.code() != Some(POWERED_OFF)))
}

/// The status of a QEMU that a guest ended through `isa-debug-exit` with value 0.
const POWERED_OFF: i32 = 1;

/// A machine ready to start, with the files that it needs.
pub(crate) struct System {
    pub(crate) machine: Machine,
    folder: tempfile::TempDir,
    _registered: Option<Registered>,
}

/// What commands in the guest printed and returned.
pub(crate) struct Outcome {
    pub(crate) output: String,
    pub(crate) status: u8,
    pub(crate) transcript: String,
}

impl System {
    /// The usual system with its shell on the terminal.
    pub(crate) fn interactive(artifacts: &Artifacts) -> Result<Self> {
        Self::prepare(artifacts, &Options::usual(Hypervisor::Hv))
    }

    /// The usual system with the demo guest and these commands.
    pub(crate) fn for_commands(artifacts: &Artifacts, disk: &Path, exec: &str) -> Result<Self> {
        let options = Options { exec: Some(exec.to_owned()), ..Options::for_test(Hypervisor::Hv, disk) };
        Self::prepare(artifacts, &options)
    }

    /// The usual system with these guests, each by its description, all with the demo kernel, and with more files in
    /// dom0's ramdisk.
    pub(crate) fn for_guests(
        artifacts: &Artifacts,
        disk: &Path,
        guests: &[&str],
        mut files: Vec<(String, Vec<u8>)>,
    ) -> Result<Self> {
        let mut system = Self::for_commands(artifacts, disk, "")?;
        files.push(("boot/demo".to_owned(), std::fs::read(artifacts.kernel("demo"))?));
        for (index, description) in guests.iter().enumerate() {
            files.push((format!("guests/{index}.toml"), description.as_bytes().to_vec()));
        }
        let ramdisk = system.folder.path().join("guests");
        std::fs::write(&ramdisk, image::make_ramdisk(&files)?)?;
        system.machine.modules[1].0 = ramdisk;
        Ok(system)
    }

    fn prepare(artifacts: &Artifacts, options: &Options) -> Result<Self> {
        let guest = Guest::named(artifacts, &options.guest, !options.snapshot)?;
        let disk = options.disk.as_ref().unwrap_or(&guest.disk).clone();
        if !disk.exists() {
            guest::make_disk(&disk)?;
        }
        let mut system = match options.mode {
            Mode::Pv => Self::paravirtual(artifacts, &guest, options)?,
            Mode::Native => Self::native(guest, options)?,
        };
        system.machine.disk = Some(disk);
        system.machine.snapshot = options.snapshot;
        system.machine.network = true;
        system.machine.cpus = options.cpus;
        system.machine.deterministic = options.deterministic;
        Ok(system)
    }

    fn native(guest: Guest, options: &Options) -> Result<Self> {
        let machine = Machine {
            kernel: guest.kernel,
            command_line: guest::arguments(options.exec.as_deref())?,
            memory_mib: options.memory,
            ..Machine::default()
        };
        Ok(Self { machine, folder: tempfile::tempdir()?, _registered: None })
    }

    fn paravirtual(artifacts: &Artifacts, guest: &Guest, options: &Options) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let read = |path: &Path| std::fs::read(path).with_context(|| format!("{} cannot be read", path.display()));
        let description = match &options.config {
            Some(file) => read(file)?,
            None => guest.describe(options.exec.as_deref(), options.cpus)?.into_bytes(),
        };
        let mut files =
            vec![("guests/guest.toml".to_owned(), description), ("boot/demo".to_owned(), read(&guest.kernel)?)];
        if let Some(initrd) = &guest.ramdisk {
            files.push(("boot/initrd".to_owned(), read(initrd)?));
        }
        let ramdisk = image::make_ramdisk(&files)?;
        let ramdisk_file = folder.path().join("ramdisk");
        std::fs::write(&ramdisk_file, ramdisk)?;
        let quiet = options.exec.is_some();
        let dom0_arguments = if quiet { "quiet" } else { "" };
        let machine = Machine {
            kernel: match options.on {
                Hypervisor::Hv => artifacts.kernel("hv"),
                Hypervisor::Xen => xen::image()?,
            },
            command_line: hypervisor_options(options, guest.dom0_mib, quiet),
            modules: vec![(artifacts.kernel("dom0"), dom0_arguments.to_owned()), (ramdisk_file, String::new())],
            memory_mib: options.memory.max(guest.machine_mib),
            control: Some(folder.path().join("control")),
            ..Machine::default()
        };
        let name = options.name.clone().unwrap_or_else(|| std::process::id().to_string());
        let registered = Registered::new(&name, &folder.path().join("control"))?;
        Ok(Self { machine, folder, _registered: Some(registered) })
    }

    /// Starts it for a test that reads its console itself.
    pub(crate) fn start(&self, limit: Duration) -> Result<Console> {
        Console::start(self.machine.piped(), limit)
    }

    /// Starts it and reads what the guest's commands print, until the machine ends.
    pub(crate) fn execute(&self, limit: Duration) -> Result<Outcome> {
        let progress = spinner("booting");
        let mut console = Console::start(self.machine.piped(), limit)?;
        let outcome = read_execution(&mut console, &progress);
        progress.finish_and_clear();
        console.finish(Duration::from_secs(if outcome.is_ok() { 3 } else { 0 }));
        outcome
    }
}

fn read_execution(console: &mut Console, progress: &ProgressBar) -> Result<Outcome> {
    let mut output: Option<String> = None;
    loop {
        let line = match console.next()? {
            Event::Line(line) => line,
            Event::Ended => {
                let complaint = console.complaint();
                bail!(
                    "the machine ended before the guest's commands did; its console's end:\n{}\n{complaint}",
                    console.tail()
                );
            }
        };
        if output.is_none()
            && let Some(problem) = problem_in(&line)
        {
            bail!("{problem}");
        }
        if line.ends_with("\x1eexec-begin") {
            progress.set_message("running the guest's commands");
            output = Some(String::new());
        } else if let Some((last, status)) = line.split_once("\x1eexec-end ") {
            let mut output = output.context("the guest's commands ended before they began")?;
            output.push_str(last);
            let status = status.trim().parse().with_context(|| format!("\"{status}\" is no exit status"))?;
            return Ok(Outcome { output, status, transcript: console.transcript.clone() });
        } else if let Some(output) = &mut output {
            output.push_str(&line);
            output.push('\n');
        }
    }
}

/// What hv or dom0 say on the console instead of starting the guest.
fn problem_in(line: &str) -> Option<&str> {
    line.split_once("(hv) error: ").map(|(_, problem)| problem).or_else(|| line.strip_prefix("dom0: "))
}

/// A spinner with the time since it began, on a terminal only.
pub(crate) fn spinner(message: &'static str) -> ProgressBar {
    let bar = ProgressBar::new_spinner().with_message(message);
    if let Ok(style) = ProgressStyle::with_template("{spinner} {msg} {elapsed}") {
        bar.set_style(style);
    }
    bar.enable_steady_tick(Duration::from_millis(120));
    bar
}

fn hypervisor_options(options: &Options, dom0_mib: u32, quiet: bool) -> String {
    let mut words = vec!["console=com1".to_owned(), format!("dom0_mem={dom0_mib}M"), "noreboot".to_owned()];
    if options.on == Hypervisor::Xen {
        words.push("com1=115200,8n1 dom0_max_vcpus=1".to_owned());
    }
    if quiet {
        words.push("loglvl=none guest_loglvl=none".to_owned());
    }
    words.push(options.hv_options.clone());
    words.join(" ").trim_end().to_owned()
}

/// What a test runs: the demo guest with these commands on this hypervisor and disk.
pub(crate) fn execute(artifacts: &Artifacts, on: Hypervisor, mode: Mode, disk: &Path, exec: &str) -> Result<Outcome> {
    let options = Options { mode, exec: Some(exec.to_owned()), ..Options::for_test(on, disk) };
    System::prepare(artifacts, &options)?.execute(Duration::from_secs(options.timeout))
}

/// What a test runs: Debian's Linux with these commands on this hypervisor, with so many CPUs; its disk is its root, and
/// what it writes is forgotten.
pub(crate) fn execute_linux(artifacts: &Artifacts, on: Hypervisor, cpus: u32, exec: &str) -> Result<Outcome> {
    let options = Options {
        guest: "linux".to_owned(),
        exec: Some(exec.to_owned()),
        disk: None,
        snapshot: true,
        cpus,
        ..Options::usual(on)
    };
    System::prepare(artifacts, &options)?.execute(Duration::from_secs(options.timeout))
}

/// What a test runs: a guest with this description.
pub(crate) fn execute_described(artifacts: &Artifacts, on: Hypervisor, disk: &Path, config: &Path) -> Result<Outcome> {
    let options = Options {
        config: Some(config.to_owned()),
        exec: Some(String::new()),
        timeout: 30,
        ..Options::for_test(on, disk)
    };
    System::prepare(artifacts, &options)?.execute(Duration::from_secs(options.timeout))
}

impl Options {
    fn for_test(on: Hypervisor, disk: &Path) -> Self {
        Self { disk: Some(disk.to_owned()), ..Self::usual(on) }
    }

    fn usual(on: Hypervisor) -> Self {
        Self {
            guest: "demo".to_owned(),
            on,
            mode: Mode::Pv,
            config: None,
            exec: None,
            disk: None,
            snapshot: false,
            name: None,
            memory: MEMORY_MIB,
            cpus: 1,
            deterministic: false,
            timeout: 120,
            hv_options: String::new(),
        }
    }
}
