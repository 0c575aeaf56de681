//! Whole systems: hypervisor, dom0, guest, disk and network together.

mod refused;
mod survives;

use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::PathBuf;

use anyhow::{Context, Result, bail, ensure};

use super::Tally;
use crate::artifacts::Artifacts;
use crate::commands::run::{Hypervisor, Mode, Outcome, execute, execute_linux};
use crate::{image, linux, xen};

/// Runs them all.
pub(super) fn run(tally: &mut Tally, artifacts: &Artifacts) {
    for on in [Hypervisor::Hv, Hypervisor::Xen] {
        if on == Hypervisor::Xen && xen::image().is_err() {
            continue;
        }
        let name = if on == Hypervisor::Hv { "hv" } else { "Xen" };
        tally.test(&format!("the demo guest reads and writes its disk and fetches a page on {name}"), || {
            disk_and_network(artifacts, on)
        });
        tally.test(&format!("a failing command's status comes back on {name}"), || failing_command(artifacts, on));
    }
    match linux::get() {
        Ok(_) => linux_guests(tally, artifacts),
        Err(error) => println!("Debian's Linux is not tested as guest: {error:#}"),
    }
    refused::run(tally, artifacts);
    survives::run(tally, artifacts);
    tally.test("the demo kernel runs its shell natively on bare QEMU", || native_shell(artifacts));
}

fn linux_guests(tally: &mut Tally, artifacts: &Artifacts) {
    for (on, name) in [(Hypervisor::Hv, "hv"), (Hypervisor::Xen, "Xen")] {
        if on == Hypervisor::Xen && xen::image().is_err() {
            continue;
        }
        for cpus in [1, 2] {
            let title = format!("Debian's Linux has its root, network and {cpus} CPU(s) on {name} under our dom0");
            tally.test(&title, || linux_guest(artifacts, on, cpus));
        }
    }
}

fn linux_guest(artifacts: &Artifacts, on: Hypervisor, cpus: u32) -> Result<()> {
    let port = serve()?;
    let commands = format!(
        "uname -r; grep -c ^processor /proc/cpuinfo; mount; dd if=/dev/xvda of=/dev/null bs=1M; \
         wget -q -O- http://10.0.2.2:{port}/"
    );
    let outcome = execute_linux(artifacts, on, cpus, &commands)?;
    ensure!(outcome.status == 0, "status {}; it printed:\n{}", outcome.status, outcome.output);
    expect(&outcome, "-amd64")?;
    expect(&outcome, &format!("\n{cpus}\n"))?;
    expect(&outcome, "/dev/xvda on / type ext4 (rw")?;
    expect(&outcome, "128+0 records in")?;
    expect(&outcome, PAGE.trim_end())
}

/// What the page of the test's server says.
const PAGE: &str = "a page from the host\n";

/// Serves one page to any who ask, until the test ends.
fn serve() -> Result<u16> {
    let listener = TcpListener::bind("127.0.0.1:0").context("no port for the test's server")?;
    let port = listener.local_addr()?.port();
    std::thread::spawn(move || {
        for stream in listener.incoming().filter_map(Result::ok).take(64) {
            let mut stream = stream;
            let _ = stream.read(&mut [0; 1024]);
            let _ = write!(stream, "HTTP/1.0 200 OK\r\nContent-Length: {}\r\n\r\n{PAGE}", PAGE.len());
        }
    });
    Ok(port)
}

struct Disk {
    _folder: tempfile::TempDir,
    path: PathBuf,
}

fn disk() -> Result<Disk> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("disk.img");
    image::make_disk(&path, &[("hello.txt", b"hello, disk\n")])?;
    Ok(Disk { _folder: folder, path })
}

fn expect(outcome: &Outcome, part: &str) -> Result<()> {
    ensure!(outcome.output.contains(part), "the guest did not print \"{part}\" but:\n{}", outcome.output);
    Ok(())
}

fn disk_and_network(artifacts: &Artifacts, on: Hypervisor) -> Result<()> {
    let disk = disk()?;
    let port = serve()?;
    let commands = format!(
        "ls /disk; cat /disk/hello.txt; write /disk/new.txt hi; cat /disk/new.txt; fetch http://10.0.2.2:{port}/; ps"
    );
    let outcome = execute(artifacts, on, Mode::Pv, &disk.path, &commands)?;
    ensure!(outcome.status == 0, "status {}; it printed:\n{}", outcome.status, outcome.output);
    expect(&outcome, "hello.txt")?;
    expect(&outcome, "hello, disk")?;
    expect(&outcome, PAGE)?;
    let written = image::read_from_disk(&disk.path, "new.txt")?;
    if written.trim_ascii() != b"hi" {
        bail!("the host reads {:?} from the disk", String::from_utf8_lossy(&written));
    }
    Ok(())
}

fn failing_command(artifacts: &Artifacts, on: Hypervisor) -> Result<()> {
    let disk = disk()?;
    let outcome = execute(artifacts, on, Mode::Pv, &disk.path, "cat /disk/nothing.txt")?;
    ensure!(outcome.status != 0, "status 0; it printed:\n{}", outcome.output);
    Ok(())
}

fn native_shell(artifacts: &Artifacts) -> Result<()> {
    let disk = disk()?;
    let outcome = execute(artifacts, Hypervisor::Hv, Mode::Native, &disk.path, "ps; uptime")?;
    ensure!(outcome.status == 0, "status {}; it printed:\n{}", outcome.status, outcome.transcript);
    Ok(())
}
