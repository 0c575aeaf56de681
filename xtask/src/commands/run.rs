//! `cargo xtask run`: hypervisor, service domain, guest, disk and network in one QEMU.

mod guest;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::{Args, ValueEnum};
use indicatif::{ProgressBar, ProgressStyle};

use crate::artifacts::Artifacts;
use crate::console::{Console, Event};
use crate::control::{Client, Registered};
use crate::qemu::Machine;
use crate::{image, linux, tools, xen};
use guest::Guest;

#[derive(Args)]
pub(crate) struct Options {
    /// The guest: `demo`, `linux` (Debian's own kernel), `grub` (PV-GRUB, which starts that Linux from its disk), or a
    /// kernel's file. Without this option demo under our dom0, and none under Linux
    #[arg(long)]
    pub(crate) guest: Option<String>,
    /// The service domain: this project's, or Debian's Linux with Xen's own toolstack
    #[arg(long, value_enum, default_value = "ours")]
    pub(crate) dom0: Dom0,
    /// What the guest runs on
    #[arg(long, value_enum, default_value = "hv")]
    pub(crate) on: Hypervisor,
    /// How the guest's kernel runs: paravirtualized, with hardware assistance, with emulated devices as well, or
    /// alone on the machine
    #[arg(long, value_enum, default_value = "pv")]
    pub(crate) mode: Mode,
    /// A guest's description (TOML with the keys of xl.cfg) instead of the usual one
    #[arg(long)]
    pub(crate) config: Option<PathBuf>,
    /// Run these shell commands in the guest, print their output alone, and exit with their status
    #[arg(long)]
    pub(crate) exec: Option<String>,
    /// The disk image; made, with hello.txt on it, where it does not exist. Without this option a guest has its own
    #[arg(long)]
    pub(crate) disk: Option<PathBuf>,
    /// Forget what is written to the disk
    #[arg(long)]
    pub(crate) snapshot: bool,
    /// What `cargo xtask ctl --system` calls it; else its process's number
    #[arg(long)]
    pub(crate) name: Option<String>,
    /// RAM of the machine in MiB
    #[arg(long, default_value_t = MEMORY_MIB)]
    pub(crate) memory: u32,
    /// CPUs of the machine, and of the guest, or of a Linux dom0 that is alone
    #[arg(long, default_value_t = 1)]
    pub(crate) cpus: u32,
    /// The guest's tsc_mode, as xl.cfg has it. Where the machine's counter is not marked as reliable (QEMU's is not), Xen
    /// emulates it by default, which the usual guest has no need of
    #[arg(long, default_value = NATIVE_TSC)]
    pub(crate) tsc_mode: String,
    /// Count time in instructions, so that two runs are equal
    #[arg(long)]
    pub(crate) deterministic: bool,
    /// Seconds after which a run with --exec is given up
    #[arg(long, default_value_t = 120)]
    pub(crate) timeout: u64,
    /// Options for the hypervisor's command line, as Xen has them
    #[arg(long, default_value = "")]
    pub(crate) hv_options: String,
    /// Options for our dom0's command line
    #[arg(long, default_value = "")]
    pub(crate) dom0_options: String,
    /// The description of a guest that our dom0 starts next, with the same kernel.
    #[arg(skip)]
    pub(crate) beside: Option<String>,
}

/// What a guest runs on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Hypervisor {
    /// This project's.
    Hv,
    /// Xen 4.17 from Debian's package.
    Xen,
}

/// What serves the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Dom0 {
    /// This project's.
    Ours,
    /// Debian's Linux.
    Linux,
}

/// How a kernel runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Mode {
    /// As a paravirtualized guest.
    Pv,
    /// As a guest with hardware assistance for CPU and memory, and paravirtual devices.
    Pvh,
    /// As a guest with hardware assistance and a PC's devices, all emulated.
    Hvm,
    /// As the kernel of the machine.
    Native,
}

/// RAM of the machine in MiB.
pub(crate) const MEMORY_MIB: u32 = 512;
/// The `tsc_mode` of the usual guest.
pub(crate) const NATIVE_TSC: &str = "native";

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

    pub(crate) fn prepare(artifacts: &Artifacts, options: &Options) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let guest = Guest::named(artifacts, options, folder.path())?;
        let disk = options.disk.as_ref().unwrap_or(&guest.disk).clone();
        if !disk.exists() {
            guest::make_disk(&disk)?;
        }
        let machine = match (options.mode, options.dom0) {
            (Mode::Native, _) => native(guest, options)?,
            (Mode::Hvm, Dom0::Linux) => {
                bail!("xl takes a device model of its own for HVM guests, which is not fetched: leave --dom0 linux out")
            }
            (_, Dom0::Ours) => with_our_dom0(artifacts, &guest, options, folder.path())?,
            (Mode::Pv | Mode::Pvh, Dom0::Linux) => with_linux_dom0(artifacts, &guest, options, folder.path())?,
        };
        let registered = match &machine.control {
            Some(control) => {
                let name = options.name.clone().unwrap_or_else(|| std::process::id().to_string());
                Some(Registered::new(&name, control)?)
            }
            None => None,
        };
        let machine = Machine {
            disk: Some(disk),
            snapshot: options.snapshot,
            network: true,
            cpus: options.cpus,
            deterministic: options.deterministic,
            ..machine
        };
        Ok(Self { machine, folder, _registered: registered })
    }

    /// Starts it for a test that reads its console itself.
    pub(crate) fn start(&self, limit: Duration) -> Result<Console> {
        Console::start(self.machine.piped(), limit)
    }

    /// Connects to dom0's control channel as soon as the machine has one.
    pub(crate) fn connect(&self, limit: Duration) -> Result<Client> {
        let until = Instant::now() + limit;
        let socket = self.folder.path().join("control");
        loop {
            match Client::connect(&socket) {
                Err(_) if Instant::now() < until => std::thread::sleep(Duration::from_millis(20)),
                connected => return connected,
            }
        }
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

fn native(guest: Guest, options: &Options) -> Result<Machine> {
    Ok(Machine {
        kernel: guest.kernel,
        command_line: guest::arguments(options.exec.as_deref())?,
        memory_mib: options.memory,
        plain_devices: true,
        ..Machine::default()
    })
}

fn with_our_dom0(artifacts: &Artifacts, guest: &Guest, options: &Options, folder: &Path) -> Result<Machine> {
    let description = match &options.config {
        Some(file) => std::fs::read(file).with_context(|| format!("{} cannot be read", file.display()))?,
        None => guest.describe(options)?.into_bytes(),
    };
    let mut files = guest.files()?;
    files.push(("guests/guest.toml".to_owned(), description));
    files.extend(options.beside.iter().map(|beside| ("guests/second.toml".to_owned(), beside.clone().into_bytes())));
    let ramdisk = folder.join("ramdisk");
    std::fs::write(&ramdisk, image::make_ramdisk(&files)?)?;
    let quiet = if options.exec.is_some() { "quiet " } else { "" };
    let arguments = format!("{quiet}{}", options.dom0_options).trim_end().to_owned();
    Ok(Machine {
        kernel: hypervisor(artifacts, options.on)?,
        command_line: hypervisor_options(options, guest.dom0_mib),
        modules: vec![(artifacts.kernel("dom0"), arguments), (ramdisk, String::new())],
        memory_mib: options.memory.max(guest.machine_mib),
        control: Some(folder.join("control")),
        ..Machine::default()
    })
}

/// RAM of a Linux dom0, which holds its ramdisk packed and unpacked.
const LINUX_DOM0_MIB: u32 = 768;

/// A guest, where one is asked for, is started by xl; else the commands are dom0's own.
fn with_linux_dom0(artifacts: &Artifacts, guest: &Guest, options: &Options, folder: &Path) -> Result<Machine> {
    let dom0 = linux::dom0::get()?;
    let mut ramdisk = std::fs::read(&dom0.ramdisk).context("the ramdisk of dom0 cannot be read")?;
    let mut arguments = "console=hvc0 quiet ".to_owned();
    let mut memory_mib = LINUX_DOM0_MIB + 128;
    if options.guest.is_some() {
        let mut files = guest.files()?;
        let description = guest.describe(options)?;
        files.push(("etc/xen/guest.cfg".to_owned(), description.into_bytes()));
        // A ramdisk may be several archives, one behind the other.
        ramdisk.resize(ramdisk.len().next_multiple_of(4), 0);
        ramdisk.extend(image::make_ramdisk(&files)?);
        memory_mib += guest.memory_mib;
    } else {
        arguments += &guest::arguments(options.exec.as_deref())?;
    }
    let file = folder.join("ramdisk");
    std::fs::write(&file, ramdisk)?;
    Ok(Machine {
        kernel: hypervisor(artifacts, options.on)?,
        command_line: hypervisor_options(options, LINUX_DOM0_MIB),
        modules: vec![(dom0.kernel, arguments.trim_end().to_owned()), (file, String::new())],
        memory_mib: options.memory.max(memory_mib),
        ..Machine::default()
    })
}

fn hypervisor(artifacts: &Artifacts, on: Hypervisor) -> Result<PathBuf> {
    match on {
        Hypervisor::Hv => Ok(artifacts.kernel("hv")),
        Hypervisor::Xen => xen::image(),
    }
}

fn hypervisor_options(options: &Options, dom0_mib: u32) -> String {
    let mut words = vec!["console=com1".to_owned(), format!("dom0_mem={dom0_mib}M"), "noreboot".to_owned()];
    if options.on == Hypervisor::Xen {
        let is_alone = options.dom0 == Dom0::Linux && options.guest.is_none();
        words.push(format!("com1=115200,8n1 dom0_max_vcpus={}", if is_alone { options.cpus } else { 1 }));
    }
    if options.exec.is_some() {
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

    /// The name of the guest.
    fn guest_name(&self) -> &str {
        self.guest.as_deref().unwrap_or("demo")
    }

    pub(crate) fn usual(on: Hypervisor) -> Self {
        Self {
            guest: None,
            dom0: Dom0::Ours,
            on,
            mode: Mode::Pv,
            config: None,
            exec: None,
            disk: None,
            snapshot: false,
            name: None,
            memory: MEMORY_MIB,
            cpus: 1,
            tsc_mode: NATIVE_TSC.to_owned(),
            deterministic: false,
            timeout: 120,
            hv_options: String::new(),
            dom0_options: String::new(),
            beside: None,
        }
    }
}
