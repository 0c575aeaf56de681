//! Whole systems: hypervisor, dom0, guest, disk and network together.

mod emulated;
mod refused;
mod survives;

use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::Tally;
use crate::artifacts::Artifacts;
use crate::commands::matrix;
use crate::commands::run::{Dom0, Hypervisor, Mode, Options, Outcome, System, execute};
use crate::{image, xen};

/// Runs them all.
pub(super) fn run(tally: &mut Tally, artifacts: &Artifacts) {
    for cell in matrix::systems() {
        match cell.hindrance() {
            Some(reason) => println!("not tested: {}: {reason}", cell.title()),
            None => tally.test(&cell.title(), || cell.check(artifacts)),
        }
    }
    for on in [Hypervisor::Hv, Hypervisor::Xen] {
        if on == Hypervisor::Xen && xen::image().is_err() {
            continue;
        }
        let name = if on == Hypervisor::Hv { "hv" } else { "Xen" };
        tally.test(&format!("a failing command's status comes back on {name}"), || failing_command(artifacts, on));
        tally.test(&format!("the demo kernel has disk and network as a PVH guest on {name}"), || {
            pvh_shell(artifacts, on)
        });
        tally.test(&format!("xl makes a PVH guest on {name}"), || pvh_by_xl(artifacts, on));
        for cpus in [1, 2] {
            let title = format!("Linux is whole as a PVH guest with {cpus} vCPU on {name}");
            tally.test(&title, || pvh_linux(artifacts, on, cpus));
        }
    }
    emulated::run(tally, artifacts);
    refused::run(tally, artifacts);
    survives::run(tally, artifacts);
    tally.test("the demo kernel runs natively on bare QEMU, with disk and network", || native_shell(artifacts));
}

/// What the page of the test's server says.
pub(crate) const PAGE: &str = "a page from the host\n";

/// Serves one page to any who ask, until the test ends.
pub(crate) fn serve() -> Result<u16> {
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

/// A disk with `hello.txt` that is gone when this is dropped.
pub(crate) struct Disk {
    _folder: tempfile::TempDir,
    pub(crate) path: PathBuf,
}

/// Makes one.
pub(crate) fn disk() -> Result<Disk> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("disk.img");
    image::make_disk(&path, &[("hello.txt", b"hello, disk\n")])?;
    Ok(Disk { _folder: folder, path })
}

/// That the guest printed this.
pub(crate) fn expect(outcome: &Outcome, part: &str) -> Result<()> {
    ensure!(outcome.output.contains(part), "the guest did not print \"{part}\" but:\n{}", outcome.output);
    Ok(())
}

fn failing_command(artifacts: &Artifacts, on: Hypervisor) -> Result<()> {
    let disk = disk()?;
    let outcome = execute(artifacts, on, Mode::Pv, &disk.path, "cat /disk/nothing.txt")?;
    ensure!(outcome.status != 0, "status 0; it printed:\n{}", outcome.output);
    Ok(())
}

/// The kernel with hardware assistance: user programs, memory given and taken, a file on the disk, a page of the network.
fn pvh_shell(artifacts: &Artifacts, on: Hypervisor) -> Result<()> {
    let (disk, port) = (disk()?, serve()?);
    let commands = format!(
        "run selftest; cat /disk/hello.txt; write /disk/new.txt kept; cat /disk/new.txt; memory 50; memory 64; events; \
         fetch http://10.0.2.2:{port}/"
    );
    let outcome = execute(artifacts, on, Mode::Pvh, &disk.path, &commands)?;
    ensure!(outcome.status == 0, "status {}; it printed:\n{}", outcome.status, outcome.transcript);
    ["hello, disk", "kept", "of 50 MiB free", PAGE.trim()].into_iter().try_for_each(|part| expect(&outcome, part))
}

/// Linux as dom0, whose toolstack is Xen's.
fn pvh_by_xl(artifacts: &Artifacts, on: Hypervisor) -> Result<()> {
    let disk = disk()?;
    let options = Options {
        guest: Some("demo".to_owned()),
        dom0: Dom0::Linux,
        mode: Mode::Pvh,
        disk: Some(disk.path.clone()),
        exec: Some("cat /disk/hello.txt; ifconfig".to_owned()),
        ..Options::usual(on)
    };
    let outcome = System::prepare(artifacts, &options)?.execute(Duration::from_secs(options.timeout))?;
    ensure!(outcome.status == 0, "status {}; it printed:\n{}", outcome.status, outcome.transcript);
    expect(&outcome, "hello, disk")
}

fn pvh_linux(artifacts: &Artifacts, on: Hypervisor, cpus: u32) -> Result<()> {
    let guest = Some("linux".to_owned());
    matrix::whole_linux(artifacts, Options { guest, mode: Mode::Pvh, snapshot: true, cpus, ..Options::usual(on) })
}

/// The same shell on an ATA disk and an NE2000 card; what it writes is on the disk afterwards.
fn native_shell(artifacts: &Artifacts) -> Result<()> {
    let (disk, port) = (disk()?, serve()?);
    let long = "x".repeat(600);
    let exec = format!(
        "ps; uptime; cat /disk/hello.txt; write /disk/new.txt {long}; cat /disk/new.txt; ping 10.0.2.2 2; \
         fetch http://10.0.2.2:{port}/"
    );
    let outcome = execute(artifacts, Hypervisor::Hv, Mode::Native, &disk.path, &exec)?;
    ensure!(outcome.status == 0, "status {}; it printed:\n{}", outcome.status, outcome.transcript);
    for part in ["hello, disk", &long, "2 of 2 answered", PAGE] {
        expect(&outcome, part)?;
    }
    let written = image::read_from_disk(&disk.path, "new.txt")?;
    ensure!(written == format!("{long}\n").as_bytes(), "the disk does not hold what was written");
    Ok(())
}
