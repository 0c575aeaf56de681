//! Back ends that die and return, and disks that are pulled, while guests are at work.

use anyhow::Result;

use super::Running;

/// Number and name of the disk that comes and goes.
const NUMBER: u32 = 51728;
const DISK: &str = "file:/disks/big.img,xvdb,w";

/// Waits for a file and shows it in capitals, which the keys' echo does not hold.
fn show(file: &str) -> String {
    format!("while [ ! -s {file} ]; do sleep 0.1; done; tr a-z A-Z < {file}\r")
}

/// A guest that is writing does not notice that its disk's back end was replaced, and what it wrote is there.
pub(super) fn disk_returns(on: &mut Running) -> Result<()> {
    if !on.linux {
        return Ok(());
    }
    on.ask("create /xl/linux.toml")?;
    on.type_at("linux", "echo rea''dy\r", "ready")?;
    on.ask(&format!("block-attach linux {DISK}"))?;
    on.type_at("linux", "while [ ! -b /dev/xvdb ]; do sleep 0.1; done; echo the''re\r", "there")?;
    let work = "dd if=/dev/urandom of=/data bs=1M count=8 2>/dev/null; \
                (for i in 1 2 3 4 5 6 7 8; do dd if=/data of=/dev/xvdb bs=1M conv=fsync 2>/dev/null; done; \
                echo 3 > /proc/sys/vm/drop_caches; cmp -n 8388608 /data /dev/xvdb && echo equal > /result) & echo beg''un\r";
    on.type_at("linux", work, "begun")?;
    for _ in 0..6 {
        on.ask(&format!("backend-restart linux vbd {NUMBER}"))?;
    }
    on.type_at("linux", &show("/result"), "EQUAL")?;
    on.ask_until("block-list linux", |list| list.contains(&NUMBER.to_string()) && list.contains(" 4 "))?;
    Ok(())
}

/// A guest whose disk is pulled under load gets errors, goes on, and takes the disk again.
pub(super) fn disk_is_pulled(on: &mut Running) -> Result<()> {
    if !on.linux {
        return Ok(());
    }
    let load = "(echo round > /begun; while dd if=/dev/xvdb of=/dev/null bs=64k iflag=direct 2>/dev/null; do :; done; \
                echo failed > /pulled) &\r";
    on.type_at("linux", &format!("{load}{}", show("/begun")), "ROUND")?;
    on.ask(&format!("block-detach linux {NUMBER}"))?;
    on.type_at("linux", &show("/pulled"), "FAILED")?;
    on.ask(&format!("block-attach linux {DISK}"))?;
    on.type_at(
        "linux",
        "while ! dd if=/dev/xvdb of=/dev/null count=1 2>/dev/null; do sleep 0.1; done; echo ba''ck\r",
        "back",
    )?;
    on.ask("destroy linux")?;
    Ok(())
}

/// A guest's network goes on over a back end that was replaced.
pub(super) fn network_returns(on: &mut Running) -> Result<()> {
    on.ask("create /xl/demo.toml")?;
    on.type_at("demo", "ping 10.0.2.2\r", "3 of 3 answered")?;
    for _ in 0..3 {
        on.ask("backend-restart demo vif 0")?;
        on.type_at("demo", "ping 10.0.2.2\r", "3 of 3 answered")?;
    }
    on.ask("destroy demo")?;
    Ok(())
}
