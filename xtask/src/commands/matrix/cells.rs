//! What makes a system whole, seen from inside: its disk, its network, its processors, its tools.

use std::time::Duration;

use anyhow::{Result, bail, ensure};

use super::{Cell, Guest};
use crate::artifacts::Artifacts;
use crate::commands::run::{Dom0, Options, Outcome, System};
use crate::commands::test::systems::{PAGE, disk, expect, serve};
use crate::image;

/// Several vCPUs on fewer processors of the host take their time on Xen.
const LIMIT_SECONDS: u64 = 240;

pub(super) fn check(cell: &Cell, artifacts: &Artifacts) -> Result<()> {
    match cell.guest {
        Guest::Nothing => linux_dom0(cell, artifacts),
        Guest::Demo => demo(cell, artifacts),
        Guest::Linux | Guest::Grub => linux(cell, artifacts),
    }
}

fn options(cell: &Cell, guest: Option<&str>, exec: String) -> Options {
    Options {
        guest: guest.map(str::to_owned),
        dom0: cell.dom0,
        exec: Some(exec),
        snapshot: true,
        cpus: cell.vcpus,
        timeout: LIMIT_SECONDS,
        ..Options::usual(cell.on)
    }
}

fn execute(artifacts: &Artifacts, options: &Options) -> Result<Outcome> {
    let outcome = System::prepare(artifacts, options)?.execute(Duration::from_secs(options.timeout))?;
    ensure!(outcome.status == 0, "status {}; it printed:\n{}", outcome.status, outcome.output);
    Ok(outcome)
}

/// Disk both ways, network, processes.
fn demo(cell: &Cell, artifacts: &Artifacts) -> Result<()> {
    let disk = disk()?;
    let port = serve()?;
    let commands = format!(
        "ls /disk; cat /disk/hello.txt; write /disk/new.txt hi; cat /disk/new.txt; fetch http://10.0.2.2:{port}/; ps"
    );
    let options = Options { disk: Some(disk.path.clone()), snapshot: false, ..options(cell, Some("demo"), commands) };
    let outcome = execute(artifacts, &options)?;
    expect(&outcome, "hello.txt")?;
    expect(&outcome, "hello, disk")?;
    expect(&outcome, PAGE.trim_end())?;
    let written = image::read_from_disk(&disk.path, "new.txt")?;
    if written.trim_ascii() != b"hi" {
        bail!("the host reads {:?} from the disk", String::from_utf8_lossy(&written));
    }
    Ok(())
}

/// Its root on an ext4 disk, all its processors, the whole disk's content, a page from the network.
fn linux(cell: &Cell, artifacts: &Artifacts) -> Result<()> {
    let guest = if cell.guest == Guest::Grub { "grub" } else { "linux" };
    whole_linux(artifacts, options(cell, Some(guest), String::new()))
}

/// The Linux guest that these options name.
pub(crate) fn whole_linux(artifacts: &Artifacts, options: Options) -> Result<()> {
    let port = serve()?;
    let commands = format!(
        "uname -r; grep -c ^processor /proc/cpuinfo; mount; dd if=/dev/xvda of=/dev/null bs=1M; \
         wget -q -O- http://10.0.2.2:{port}/"
    );
    let cpus = options.cpus;
    let outcome = execute(artifacts, &Options { exec: Some(commands), ..options })?;
    expect(&outcome, "-amd64")?;
    expect(&outcome, &format!("\n{cpus}\n"))?;
    expect(&outcome, "/dev/xvda on / type ext4 (rw")?;
    expect(&outcome, "128+0 records in")?;
    expect(&outcome, PAGE.trim_end())
}

/// All its processors, the devices of the PC, the store, Xen's toolstack.
fn linux_dom0(cell: &Cell, artifacts: &Artifacts) -> Result<()> {
    assert!(cell.dom0 == Dom0::Linux, "only Linux has a shell as dom0");
    let port = serve()?;
    let commands = format!(
        "uname -r; grep -c ^processor /proc/cpuinfo; cat /sys/block/vda/size; dd if=/dev/vda of=/dev/null bs=1M count=16; \
         until grep up /sys/class/net/eth0/operstate; do sleep 0.1; done; xenstore-read domid; xl info; xl list; udhcpc -i xenbr0 -n -q -s /etc/udhcpc.sh -t 10 -T 1; \
         wget -q -O- http://10.0.2.2:{port}/"
    );
    let outcome = execute(artifacts, &options(cell, None, commands))?;
    expect(&outcome, &format!("-amd64\n{}\n", cell.vcpus))?;
    expect(&outcome, "16+0 records in")?;
    expect(&outcome, "\nup\n0\n")?;
    expect(&outcome, "xen_version            : 4.17")?;
    expect(&outcome, "Domain-0")?;
    expect(&outcome, PAGE.trim_end())
}
