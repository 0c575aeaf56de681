//! Guest tests: small kernels that say what a hypervisor must do, each as the first domain on hv and on real Xen.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::Tally;
use super::verdicts::{self, Check, Reader};
use crate::artifacts::Artifacts;
use crate::console::{Console, Event};
use crate::qemu::Machine;
use crate::xen;

/// Kernels in the folder that are no tests.
const NO_TESTS: [&str; 1] = ["bench"];

/// `guest_loglvl=warning`: hv names the rule of every refusal, however many there are.
const COMMAND_LINE: &str = "console=com1 com1=115200,8n1 dom0_mem=64M noreboot guest_loglvl=warning";

/// Tests of several vCPUs, and what more stands on their hypervisor's command line. Which rules a race breaks is not the
/// same each time, so hv does not name them.
const OF_SEVERAL: [(&str, &str); 4] =
    [("smp", ""), ("races", " guest_loglvl=none"), ("queues", ""), ("arguments", " guest_loglvl=none")];
const CPUS_OF_SEVERAL: u32 = 4;
/// Three cores a package, which leaves a gap in the local APICs' numbers. Xen 4.17 does not start on such a machine of QEMU's.
const TOPOLOGY_OF_SEVERAL: &str = ",maxcpus=6,sockets=2,cores=3,threads=1";

/// What the test of devices' interrupts drives: one has MSI and raises it on demand, the other MSI-X.
const DEVICES: &[&str] = &["edu,addr=5", "virtio-serial-pci,addr=6"];

/// The names of the tests.
pub(crate) fn names(artifacts: &Artifacts) -> Result<Vec<String>> {
    Ok(artifacts.guest_tests()?.into_iter().filter(|name| !NO_TESTS.contains(&name.as_str())).collect())
}

fn of_several(name: &str) -> Option<&'static (&'static str, &'static str)> {
    OF_SEVERAL.iter().find(|(several, _)| *several == name)
}

/// How many vCPUs a test has.
pub(crate) fn vcpus(name: &str) -> u32 {
    of_several(name).map_or(1, |_| CPUS_OF_SEVERAL)
}

/// Runs each on each hypervisor that can be had.
pub(super) fn run(tally: &mut Tally, artifacts: &Artifacts) -> Result<()> {
    let xen = match xen::image() {
        Ok(image) => Some(image),
        Err(error) => {
            println!("guest tests run on hv alone: {error:#}");
            None
        }
    };
    for name in names(artifacts)? {
        one(tally, artifacts, &name, "hv", artifacts.kernel("hv"));
        if let Some(xen) = &xen {
            one(tally, artifacts, &name, "Xen", xen.clone());
        }
    }
    Ok(())
}

/// Each check counts as a test.
fn one(tally: &mut Tally, artifacts: &Artifacts, name: &str, on: &str, kernel: PathBuf) {
    let mut checks = Vec::new();
    let title = format!("{name} on {on}");
    let record = tally.record && on == "hv";
    tally.test(&title, || {
        checks = seen(artifacts, name, kernel)?;
        if record { verdicts::record(name, &checks) } else { verdicts::compare(name, on, &checks) }
    });
    for check in checks {
        tally.test(&format!("{name} on {on}: {}", check.name), || check.judge(on));
    }
}

/// Runs one; fails where it does not end check by check as is written down, which is the same for both hypervisors.
pub(crate) fn whole(artifacts: &Artifacts, name: &str, on: &str, kernel: PathBuf) -> Result<()> {
    let checks = seen(artifacts, name, kernel)?;
    checks.iter().try_for_each(|check| check.judge(on).context(check.name.clone()))?;
    verdicts::compare(name, on, &checks)
}

/// Runs a test as the first domain. It prints `guest-test: NAME: ok` or `…: FAILED why` a check, and `guest-test: done` at
/// the end.
fn seen(artifacts: &Artifacts, name: &str, kernel: PathBuf) -> Result<Vec<Check>> {
    let mut machine = Machine {
        kernel,
        command_line: COMMAND_LINE.to_owned(),
        modules: vec![(artifacts.kernel(name), String::new())],
        memory_mib: 256,
        cpus: 1,
        devices: DEVICES,
        ..Machine::default()
    };
    if let Some((_, options)) = of_several(name) {
        machine.cpus = CPUS_OF_SEVERAL;
        machine.topology = if machine.kernel == artifacts.kernel("hv") { TOPOLOGY_OF_SEVERAL } else { "" };
        machine.command_line += &format!(" dom0_max_vcpus={CPUS_OF_SEVERAL}{options}");
    }
    let mut console = Console::start(machine.piped(), Duration::from_secs(60))?;
    let checks = read_checks(&mut console)?;
    if checks.is_empty() {
        bail!("it checked nothing; the console's end:\n{}", console.tail());
    }
    Ok(checks)
}

fn read_checks(console: &mut Console) -> Result<Vec<Check>> {
    let mut reader = Reader::default();
    loop {
        let Event::Line(line) = console.next()? else {
            bail!("it ended before it was done; the console's end:\n{}", console.tail());
        };
        if reader.take(&line)? {
            return Ok(reader.checks);
        }
    }
}
