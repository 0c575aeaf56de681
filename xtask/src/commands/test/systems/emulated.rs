//! Guests with emulated devices alone.

use std::time::Duration;

use anyhow::{Result, bail, ensure};

use super::{PAGE, disk, expect, serve};
use crate::artifacts::Artifacts;
use crate::commands::run::{Hypervisor, Mode, Options, System, execute};
use crate::commands::test::Tally;
use crate::{image, xen};

pub(super) fn run(tally: &mut Tally, artifacts: &Artifacts) {
    let hvm = "name = \"demo\"\ntype = \"hvm\"\nkernel = \"/boot/demo\"\n";
    let read_only = format!("{hvm}disk = [\"phy:/dev/vda,hda,r\"]\n");
    let two_cards = format!("{hvm}vif = [\"\", \"\"]\n");
    tally.test("an HVM guest on a machine without hardware assistance is refused with the cure", || {
        refused(artifacts, hvm, true, "-cpu max")
    });
    tally.test("an HVM guest's disk that is to be read-only is refused", || {
        refused(artifacts, &read_only, false, "write access=rw")
    });
    tally.test("an HVM guest with two network cards is refused", || {
        refused(artifacts, &two_cards, false, "leave the others out")
    });
    for (on, name) in [(Hypervisor::Hv, "hv"), (Hypervisor::Xen, "Xen")] {
        if on == Hypervisor::Xen && xen::image().is_err() {
            continue;
        }
        let title = format!("the native kernel is an HVM guest on {name}, with disk and network");
        tally.test(&title, || shell(artifacts, on));
        tally.test(&format!("Linux is whole as an HVM guest on {name}"), || linux(artifacts, on));
    }
}

/// One line that says this, and no guest.
fn refused(artifacts: &Artifacts, description: &str, unassisted: bool, words: &str) -> Result<()> {
    let disk = disk()?;
    let mut system = System::for_guests(artifacts, &disk.path, &[description], Vec::new())?;
    system.machine.unassisted = unassisted;
    let Err(error) = system.execute(Duration::from_secs(30)) else {
        bail!("the guest ran");
    };
    let text = error.to_string();
    ensure!(text.contains(words) && text.lines().count() == 1, "not one line with \"{words}\":\n{text}");
    Ok(())
}

/// The kernel as it is on bare QEMU: it finds a PC, its disk and its card.
fn shell(artifacts: &Artifacts, on: Hypervisor) -> Result<()> {
    let (disk, port) = (disk()?, serve()?);
    let exec = format!(
        "run selftest; cat /disk/hello.txt; write /disk/new.txt kept; cat /disk/new.txt; ping 10.0.2.2 2; \
         fetch http://10.0.2.2:{port}/"
    );
    let outcome = execute(artifacts, on, Mode::Hvm, &disk.path, &exec)?;
    ensure!(outcome.status == 0, "status {}; it printed:\n{}", outcome.status, outcome.transcript);
    for part in ["exec: ok", "hello, disk", "kept", "2 of 2 answered", PAGE] {
        expect(&outcome, part)?;
    }
    let written = image::read_from_disk(&disk.path, "new.txt")?;
    ensure!(written == b"kept\n", "the disk does not hold what was written");
    Ok(())
}

/// A root on an ATA disk, that is written to as well, a page over an NE2000 card, and nothing of Xen in use.
fn linux(artifacts: &Artifacts, on: Hypervisor) -> Result<()> {
    let port = serve()?;
    let exec = format!(
        "uname -r; mount; cat /sys/class/net/eth0/address; dd if=/dev/sda of=/dev/null bs=1M count=8; \
         dd if=/bin/busybox of=/root/copy && sync && echo 3 >/proc/sys/vm/drop_caches && cmp /bin/busybox /root/copy && \
         echo the same; [ -e /sys/hypervisor/type ] || echo no hypervisor; wget -q -O- http://10.0.2.2:{port}/"
    );
    let options = Options {
        guest: Some("linux".to_owned()),
        mode: Mode::Hvm,
        snapshot: true,
        exec: Some(exec),
        ..Options::usual(on)
    };
    let outcome = System::prepare(artifacts, &options)?.execute(Duration::from_secs(options.timeout))?;
    ensure!(outcome.status == 0, "status {}; it printed:\n{}", outcome.status, outcome.transcript);
    let parts =
        ["-amd64", "/dev/sda on / type ext4 (rw", "00:16:3e:00:00:01", "8+0 records in", "the same", "no hypervisor"];
    parts.into_iter().chain([PAGE.trim_end()]).try_for_each(|part| expect(&outcome, part))
}
