//! A QEMU machine: what is on its board, what it boots.

use std::path::PathBuf;
use std::process::{Command, Stdio};

/// A machine to start.
#[derive(Clone, Default)]
pub(crate) struct Machine {
    /// A CD that boots, instead of the kernel and its modules.
    pub(crate) cd: Option<PathBuf>,
    /// The multiboot or PVH image that QEMU loads.
    pub(crate) kernel: PathBuf,
    /// Its command line.
    pub(crate) command_line: String,
    /// Multiboot modules: file and arguments.
    pub(crate) modules: Vec<(PathBuf, String)>,
    /// RAM in MiB.
    pub(crate) memory_mib: u32,
    /// The CPUs have no hardware assistance for guests.
    pub(crate) unassisted: bool,
    /// How many CPUs.
    pub(crate) cpus: u32,
    /// How they are arranged, as QEMU's `-smp` has it behind their number.
    pub(crate) topology: &'static str,
    /// A raw disk image behind virtio-blk.
    pub(crate) disk: Option<PathBuf>,
    /// Forget what is written to the disk.
    pub(crate) snapshot: bool,
    /// A user-mode network behind virtio-net.
    pub(crate) network: bool,
    /// Further devices, as QEMU's `-device` takes them.
    pub(crate) devices: &'static [&'static str],
    /// Where QEMU listens for dom0's control channel, which is a serial port behind virtio.
    pub(crate) control: Option<PathBuf>,
    /// Count time in instructions, 32 ns each, so that two runs are equal.
    pub(crate) deterministic: bool,
    /// Where time is counted and the machine idles, it waits for the host's time to pass: a disk of the host's is then as
    /// slow as it is, and the machine's deadlines are not reached before.
    pub(crate) patient: bool,
    /// Disk and network are an ATA disk and an NE2000, as a PC had them, not virtio devices.
    pub(crate) plain_devices: bool,
    /// A plugin for QEMU's translator, with its options.
    pub(crate) plugin: Option<String>,
    /// Where QEMU listens for commands (QMP).
    pub(crate) monitor: Option<PathBuf>,
}

impl Machine {
    /// The command that starts it, its serial port on standard input and output.
    pub(crate) fn command(&self) -> Command {
        let mut command = Command::new("qemu-system-x86_64");
        let cpu = if self.unassisted { "max,-smap,-svm" } else { "max,-smap" };
        command
            .args(["-accel", "tcg", "-cpu", cpu, "-nodefaults", "-display", "none", "-no-reboot"])
            .args(["-m", &self.memory_mib.to_string(), "-smp", &format!("{}{}", self.cpus.max(1), self.topology)])
            .args(["-device", "isa-debug-exit,iobase=0xf4,iosize=0x04"]);
        self.add_boot(&mut command);
        if let Some(disk) = &self.disk {
            let file = disk.display().to_string().replace(',', ",,");
            let keep = if self.snapshot { "snapshot=on" } else { "discard=unmap" };
            command.args(["-drive", &format!("file={file},if=none,id=disk0,format=raw,{keep}")]);
            command.args([
                "-device",
                if self.plain_devices { "ide-hd,drive=disk0,bus=ide.0" } else { "virtio-blk-pci,drive=disk0" },
            ]);
        }
        if self.network {
            let card = if self.plain_devices { "ne2k_pci" } else { "virtio-net-pci" };
            command.args(["-netdev", "user,id=net0", "-device", &format!("{card},netdev=net0,romfile=")]);
        }
        for device in self.devices {
            command.args(["-device", device]);
        }
        if let Some(socket) = &self.control {
            let socket = socket.display().to_string().replace(',', ",,");
            command.args(["-chardev", &format!("socket,id=control0,path={socket},server=on,wait=off")]);
            command.args(["-device", "virtio-serial-pci,max_ports=1", "-device", "virtconsole,chardev=control0"]);
        }
        if let Some(plugin) = &self.plugin {
            command.args(["-plugin", plugin]);
        }
        if let Some(socket) = &self.monitor {
            let socket = socket.display().to_string().replace(',', ",,");
            command.args(["-qmp", &format!("unix:{socket},server=on,wait=off")]);
        }
        if self.deterministic {
            let sleep = if self.patient { "on" } else { "off" };
            command.args(["-icount", &format!("shift=5,sleep={sleep}"), "-rtc", "clock=vm"]);
        }
        command
    }

    fn add_boot(&self, command: &mut Command) {
        if let Some(cd) = &self.cd {
            let file = cd.display().to_string().replace(',', ",,");
            command.args([
                "-vga",
                "std",
                "-boot",
                "d",
                "-drive",
                &format!("file={file},media=cdrom,format=raw,readonly=on"),
            ]);
            return;
        }
        command.arg("-kernel").arg(&self.kernel);
        if !self.command_line.is_empty() {
            command.args(["-append", &self.command_line]);
        }
        if !self.modules.is_empty() {
            command.args(["-initrd", &self.module_list()]);
        }
    }

    /// The command with a serial port that a program reads.
    pub(crate) fn piped(&self) -> Command {
        let mut command = self.command();
        command
            .args(["-serial", "stdio", "-monitor", "none"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    /// The command with a serial port that a person reads and types on.
    pub(crate) fn interactive(&self) -> Command {
        let mut command = self.command();
        command.args(["-serial", "mon:stdio"]);
        command
    }

    /// QEMU separates modules by commas; one that belongs to an argument is doubled.
    fn module_list(&self) -> String {
        let modules: Vec<String> = self
            .modules
            .iter()
            .map(|(file, arguments)| {
                let whole = format!("{} {arguments}", file.display());
                whole.trim_end().replace(',', ",,")
            })
            .collect();
        modules.join(",")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_comma_in_an_argument_does_not_end_the_module() {
        let machine = Machine {
            modules: vec![(PathBuf::from("/a"), "x=1,2".to_owned()), (PathBuf::from("/b"), String::new())],
            ..Machine::default()
        };
        assert_eq!(machine.module_list(), "/a x=1,,2,/b");
    }
}
