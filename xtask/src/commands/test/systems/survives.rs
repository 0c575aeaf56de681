//! What survives: other guests when one crashes, a disk when the power goes; and the other ways to boot.

use std::time::Duration;

use anyhow::{Result, bail, ensure};

use crate::artifacts::Artifacts;
use crate::commands::image::{self as cd, Protocol};
use crate::commands::run::System;
use crate::commands::test::Tally;
use crate::console::{Console, Event};
use crate::image;

/// Runs them all.
pub(super) fn run(tally: &mut Tally, artifacts: &Artifacts) {
    tally.test("a guest that crashes is told why and stops alone", || crash_alone(artifacts));
    tally.test("a disk that is a file in dom0's ramdisk is read and written", || file_disk(artifacts));
    tally.test("what was written stays when the machine is killed", || killed(artifacts));
    for (protocol, name) in [(Protocol::Multiboot, "multiboot"), (Protocol::Multiboot2, "multiboot2")] {
        tally.test(&format!("GRUB boots the whole system by {name}"), || grub(artifacts, protocol));
    }
}

fn guest(name: &str, exec: &str, rest: &str) -> String {
    format!("name = \"{name}\"\nkernel = \"/boot/demo\"\nextra = 'exec=\"{exec}\"'\nmemory = 32\n{rest}")
}

/// Waits for a line that holds this.
fn wait_for(console: &mut Console, part: &str) -> Result<()> {
    loop {
        match console.next()? {
            Event::Line(line) if line.contains(part) => return Ok(()),
            Event::Line(_) => {}
            Event::Ended => bail!("the machine ended before \"{part}\"; its console's end:\n{}", console.tail()),
        }
    }
}

fn crash_alone(artifacts: &Artifacts) -> Result<()> {
    let disk = super::disk()?;
    let crasher = guest("crasher", "crash", "");
    let other = guest("other", "write /disk/alive.txt yes", "disk = [\"phy:/dev/vda,xvda,w\"]\n");
    let mut system = System::for_guests(artifacts, &disk.path, &[&crasher, &other], Vec::new())?;
    system.machine.command_line = system.machine.command_line.replace("loglvl=none guest_loglvl=none", "");
    let mut console = system.start(Duration::from_secs(60))?;
    wait_for(&mut console, "guest other: poweroff")?;
    console.finish(Duration::from_secs(3));
    let transcript = &console.transcript;
    for part in ["crashed on vcpu", "rip ", "last 16 of", "sched_op", "guest crasher: crash"] {
        ensure!(transcript.contains(part), "no \"{part}\" in:\n{transcript}");
    }
    let alive = image::read_from_disk(&disk.path, "alive.txt")?;
    ensure!(alive.trim_ascii() == b"yes", "the other guest's file holds {:?}", String::from_utf8_lossy(&alive));
    Ok(())
}

fn file_disk(artifacts: &Artifacts) -> Result<()> {
    let disk = super::disk()?;
    let commands = "cat /disk/hello.txt; write /disk/new.txt kept; cat /disk/new.txt";
    let description = guest("filed", commands, "disk = [\"file:/disks/a.img,xvda,w\"]\n");
    let files = vec![("disks/a.img".to_owned(), std::fs::read(&disk.path)?)];
    let mut system = System::for_guests(artifacts, &disk.path, &[&description], files)?;
    system.machine.command_line = system.machine.command_line.replace("dom0_mem=128M", "dom0_mem=256M");
    system.machine.disk = None;
    let outcome = system.execute(Duration::from_secs(60))?;
    ensure!(outcome.status == 0, "status {}; it printed:\n{}", outcome.status, outcome.output);
    ensure!(outcome.output == "hello, disk\nkept\n", "it printed:\n{}", outcome.output);
    Ok(())
}

/// How many files the guest has written when the machine is killed.
const KEPT: usize = 6;

fn killed(artifacts: &Artifacts) -> Result<()> {
    let disk = super::disk()?;
    let commands: Vec<String> =
        (0..2 * KEPT).map(|n| format!("write /disk/file{n}.txt text{n}; cat /disk/file{n}.txt")).collect();
    let system = System::for_commands(artifacts, &disk.path, &commands.join("; "))?;
    let mut console = system.start(Duration::from_secs(60))?;
    wait_for(&mut console, &format!("text{}", KEPT - 1))?;
    console.kill();
    for n in 0..KEPT {
        let text = image::read_from_disk(&disk.path, &format!("file{n}.txt"))?;
        ensure!(
            text.trim_ascii() == format!("text{n}").as_bytes(),
            "file {n} holds {:?}",
            String::from_utf8_lossy(&text)
        );
    }
    Ok(())
}

fn grub(artifacts: &Artifacts, protocol: Protocol) -> Result<()> {
    let disk = super::disk()?;
    let mut system = System::for_commands(artifacts, &disk.path, "cat /disk/hello.txt")?;
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("boot.iso");
    cd::make(&system.machine, protocol, &file)?;
    system.machine.cd = Some(file);
    let outcome = system.execute(Duration::from_secs(120))?;
    ensure!(outcome.output.contains("hello, disk"), "it printed:\n{}", outcome.output);
    Ok(())
}
