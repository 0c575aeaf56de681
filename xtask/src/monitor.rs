//! What QEMU's monitor (QMP) says of a running machine.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

/// A connection to the monitor.
pub(crate) struct Monitor {
    reader: BufReader<UnixStream>,
    writer: UnixStream,
}

impl Monitor {
    /// Connects to a QEMU that was just started.
    pub(crate) fn connect(socket: &Path) -> Result<Self> {
        let until = Instant::now() + PATIENCE;
        let writer = loop {
            match UnixStream::connect(socket) {
                Err(_) if Instant::now() < until => std::thread::sleep(STEP),
                connected => break connected.context("QEMU's monitor does not answer")?,
            }
        };
        writer.set_read_timeout(Some(Duration::from_secs(10)))?;
        let reader = BufReader::new(writer.try_clone()?);
        let mut monitor = Self { reader, writer };
        monitor.execute(&json!({ "execute": "qmp_capabilities" }))?;
        Ok(monitor)
    }

    fn execute(&mut self, command: &Value) -> Result<Value> {
        writeln!(self.writer, "{command}")?;
        let mut line = String::new();
        loop {
            line.clear();
            if self.reader.read_line(&mut line).context("QEMU's monitor does not answer")? == 0 {
                bail!("QEMU's monitor closed the connection");
            }
            let mut answer: Value = serde_json::from_str(&line).context("QEMU's monitor does not speak JSON")?;
            if let Some(error) = answer.get("error") {
                bail!("QEMU's monitor refuses: {error}");
            }
            // A greeting or an event is no answer.
            if let Some(result) = answer.get_mut("return") {
                return Ok(result.take());
            }
        }
    }

    /// Has a command of the human monitor carried out; what it prints.
    fn human(&mut self, line: &str) -> Result<String> {
        let command = json!({ "execute": "human-monitor-command", "arguments": { "command-line": line } });
        Ok(self.execute(&command)?.as_str().unwrap_or_default().to_owned())
    }

    /// Where the CPU goes for each vector of the hypervisor's, as soon as its first domain runs: the table is whole by then,
    /// and no guest with hardware assistance has put its own in its place.
    pub(crate) fn hypervisors_entries(&mut self) -> Result<Vec<u64>> {
        let until = Instant::now() + PATIENCE;
        while Instant::now() < until {
            self.execute(&json!({ "execute": "stop" }))?;
            let registers = self.human("info registers")?;
            let table = idt_address(&registers).context("QEMU's monitor shows no interrupt table")?;
            let is_there = HYPERVISOR.contains(&table) && is_pv_kernel(&registers);
            let entries = is_there.then(|| self.entries(table));
            self.execute(&json!({ "execute": "cont" }))?;
            if let Some(entries) = entries {
                return entries;
            }
            std::thread::sleep(STEP);
        }
        bail!("the first domain never ran when QEMU's monitor looked");
    }

    fn entries(&mut self, table: u64) -> Result<Vec<u64>> {
        let memory = self.human(&format!("x/512gx {table:#x}"))?;
        let words = words(&memory);
        if words.len() != 512 {
            bail!("the interrupt table at {table:#x} cannot be read");
        }
        Ok(words.chunks_exact(2).map(|gate| gate_address(gate[0], gate[1])).collect())
    }
}

/// How long the monitor is waited for, or looks.
const PATIENCE: Duration = Duration::from_secs(60);
/// How often.
const STEP: Duration = Duration::from_millis(20);
/// L4 slots 256 to 271 are the hypervisor's.
const HYPERVISOR: std::ops::Range<u64> = 0xffff_8000_0000_0000..0xffff_8800_0000_0000;

/// The table's address in the output of `info registers`.
fn idt_address(registers: &str) -> Option<u64> {
    let rest = registers.split_once("IDT=")?.1;
    u64::from_str_radix(rest.split_whitespace().next()?, 16).ok()
}

/// Whether a kernel runs in ring 3, in the output of `info registers`.
fn is_pv_kernel(registers: &str) -> bool {
    let field = |name: &str| registers.split_once(name).and_then(|(_, rest)| rest.split_whitespace().next());
    field("CPL=") == Some("3") && field("RIP=").is_some_and(|address| address.starts_with("ffffffff8"))
}

/// The words in the output of `x/…gx`: lines `ADDRESS: 0xWORD 0xWORD`.
fn words(memory: &str) -> Vec<u64> {
    let word = |text: &str| u64::from_str_radix(text.strip_prefix("0x")?, 16).ok();
    memory
        .lines()
        .filter_map(|line| line.split_once(": "))
        .flat_map(|(_, rest)| rest.split_whitespace().filter_map(word))
        .collect()
}

/// The address in a 64-bit gate (AMD APM 2, figure 4-24).
fn gate_address(low: u64, high: u64) -> u64 {
    low & 0xffff | low >> 32 & 0xffff_0000 | high << 32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gates_address_is_put_together_from_three_parts() {
        assert_eq!(gate_address(0x8010_8e00_0008_1234, 0xffff_ffff), 0xffff_ffff_8010_1234);
    }

    #[test]
    fn a_kernel_in_ring_3_is_a_domains() {
        let registers = |rip: &str, cpl: u8| format!("RBP=0\nRIP={rip} RFL=00000246 [---Z-P-] CPL={cpl} II=0 A20=1\n");
        assert!(is_pv_kernel(&registers("ffffffff80101305", 3)));
        assert!(!is_pv_kernel(&registers("ffffffff80101305", 0)));
        assert!(!is_pv_kernel(&registers("0000000000401000", 3)));
    }

    #[test]
    fn the_monitors_text_is_read() {
        assert_eq!(idt_address("GDT= 0 0\nIDT=     ffff82d0404b4000 00000fff\n"), Some(0xffff_82d0_404b_4000));
        let memory = "ffff82d0404b4000: 0x0000000000000001 0x0000000000000002\nffff82d0404b4010: 0x03 0x04\n";
        assert_eq!(words(memory), [1, 2, 3, 4]);
    }
}
