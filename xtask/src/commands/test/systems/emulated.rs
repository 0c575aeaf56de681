//! Guests with emulated devices alone.

use std::time::Duration;

use anyhow::{Result, ensure};

use super::{PAGE, expect, serve};
use crate::artifacts::Artifacts;
use crate::commands::run::{Hypervisor, Mode, Options, System};
use crate::commands::test::Tally;
use crate::xen;

pub(super) fn run(tally: &mut Tally, artifacts: &Artifacts) {
    if xen::image().is_err() {
        return;
    }
    tally.test("Linux is whole as an HVM guest on Xen", || linux(artifacts, Hypervisor::Xen));
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
