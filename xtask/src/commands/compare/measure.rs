//! Runs the guest's `bench` in a mode and reads what it and the counting plugin say.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use elf::ElfBytes;
use elf::abi::PT_LOAD;
use elf::endian::LittleEndian;
use elf::segment::ProgramHeader;
use serde::Deserialize;

use super::modes::Column;
use crate::artifacts::{self, Artifacts};
use crate::commands::run::System;
use crate::console::{Console, Event};
use crate::monitor::Monitor;

/// A line of the guest's: `bench: WINDOW NAME OPERATIONS NANOSECONDS ENTRIES`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Line {
    pub(super) operations: u64,
    pub(super) nanoseconds: u64,
    /// Entries of page tables that the kernel wrote for processes.
    pub(super) entries: u64,
}

/// What the guest said of each workload, round by round: a line, or why there is none.
pub(super) type Lines = BTreeMap<String, Vec<Result<Line, String>>>;

/// A window, as the plugin writes it (`counter/src/ledger.rs`).
#[derive(Clone, Deserialize, Debug)]
pub(super) struct Record {
    pub(super) window: u8,
    pub(super) instructions: BTreeMap<String, u64>,
    pub(super) kinds: BTreeMap<String, BTreeMap<String, u64>>,
    pub(super) entries: Vec<Entry>,
}

/// A way into the hypervisor or the kernel.
#[derive(Clone, Deserialize, Debug)]
pub(super) struct Entry {
    pub(super) to: String,
    pub(super) from: String,
    pub(super) address: u64,
    pub(super) hypercall: Option<u64>,
    pub(super) cause: Option<String>,
    pub(super) count: u64,
    pub(super) instructions: u64,
}

/// The vector by the address of its first instruction: the hypervisor's, and those of the guest's own table.
pub(super) type Vectors = BTreeMap<u64, usize>;

/// All that a counted run gives.
pub(super) struct Counted {
    pub(super) lines: Lines,
    pub(super) records: Vec<Record>,
    /// Where the CPU goes for each vector.
    pub(super) vectors: Vectors,
}

/// Which workloads a run has.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Part {
    /// Those that never wait for the host: time stands still while the machine idles, and two runs are equal.
    Cpu,
    /// Those that do.
    Devices,
    All,
}

/// Counts every instruction of the workloads in a mode.
pub(super) fn count(artifacts: &Artifacts, column: Column, url: &str) -> Result<Counted> {
    let mut whole = count_part(artifacts, column, Part::Cpu, url)?;
    let devices = count_part(artifacts, column, Part::Devices, url)?;
    whole.lines.extend(devices.lines);
    whole.records.extend(devices.records);
    if whole.vectors != devices.vectors {
        bail!("two runs of one kernel have different interrupt tables");
    }
    Ok(whole)
}

fn count_part(artifacts: &Artifacts, column: Column, part: Part, url: &str) -> Result<Counted> {
    let folder = tempfile::tempdir()?;
    let (file, socket) = (folder.path().join("records"), folder.path().join("monitor"));
    let mut system = prepare(artifacts, column, 1, part, url)?;
    system.machine.deterministic = column.keeps_deadlines();
    system.machine.patient = part == Part::Devices;
    system.machine.plugin = Some(plugin(artifacts, &file)?);
    system.machine.monitor = Some(socket.clone());
    let mut vectors = guest_vectors(&artifacts.kernel("demo"))?;
    let mut console = system.start(PATIENCE)?;
    if column != Column::Native {
        let entries = Monitor::connect(&socket)?.hypervisors_entries()?;
        vectors.extend(entries.into_iter().zip(0..));
    }
    let lines = read_lines(&mut console)?;
    let text = std::fs::read_to_string(&file).context("the counting plugin wrote nothing")?;
    let records = text.lines().map(serde_json::from_str).collect::<Result<_, _>>().context("a record is broken")?;
    Ok(Counted { lines, records, vectors })
}

/// The entries of the guest's own interrupt table, where it has one: `entry.s` of its native platform names them.
fn guest_vectors(kernel: &Path) -> Result<Vectors> {
    let bytes = std::fs::read(kernel).with_context(|| format!("{} cannot be read", kernel.display()))?;
    let file = ElfBytes::<LittleEndian>::minimal_parse(&bytes).context("the guest's kernel is no ELF file")?;
    let mut vectors = Vectors::new();
    for (table, first, count) in [("native_exception_entries", 0, 20), ("native_interrupt_entries", 32, 17)] {
        let words = words_at(&file, table, count).with_context(|| format!("the guest's kernel has no {table}"))?;
        vectors.extend(words.into_iter().zip(first..).filter(|(address, _)| *address != 0));
    }
    Ok(vectors)
}

/// The words that a symbol names.
fn words_at(file: &ElfBytes<'_, LittleEndian>, name: &str, count: usize) -> Option<Vec<u64>> {
    let (symbols, names) = file.symbol_table().ok()??;
    let symbol = symbols.iter().find(|symbol| names.get(symbol.st_name as usize).is_ok_and(|known| known == name))?;
    let holds = |header: &ProgramHeader| {
        header.p_type == PT_LOAD && (header.p_vaddr..header.p_vaddr + header.p_filesz).contains(&symbol.st_value)
    };
    let segment = file.segments()?.iter().find(holds)?;
    let start = usize::try_from(symbol.st_value - segment.p_vaddr).ok()?;
    let bytes = file.segment_data(&segment).ok()?.get(start..start + count * 8)?;
    Some(bytes.chunks_exact(8).filter_map(|word| Some(u64::from_le_bytes(word.try_into().ok()?))).collect())
}

/// Runs the workloads as fast as this machine goes.
pub(super) fn time(artifacts: &Artifacts, column: Column, scale: u64, url: &str) -> Result<Lines> {
    read_lines(&mut prepare(artifacts, column, scale, Part::All, url)?.start(PATIENCE)?)
}

fn prepare(artifacts: &Artifacts, column: Column, scale: u64, part: Part, url: &str) -> Result<System> {
    let part = match part {
        Part::Cpu => "cpu",
        Part::Devices => "devices",
        Part::All => "all",
    };
    System::prepare(artifacts, &column.options(format!("bench {scale} {part} {url} {SECOND_DOMAIN}")))
}

/// The domain in which `pong` answers events: dom0 starts the measured guest first.
const SECOND_DOMAIN: u32 = 2;

/// The plugin's option for QEMU.
fn plugin(artifacts: &Artifacts, file: &Path) -> Result<String> {
    let library = artifacts::counter_library();
    let (guest, service) = (artifacts.kernel("demo"), artifacts.kernel("dom0"));
    let path = |path: &Path| path.display().to_string().replace(',', ",,");
    Ok(format!("{},guest={},service={},out={}", path(&library), path(&guest), path(&service), path(file)))
}

/// How long a run may take: the longest takes a fifth of it.
const PATIENCE: Duration = Duration::from_secs(100);

/// Reads a machine's lines.
fn read_lines(console: &mut Console) -> Result<Lines> {
    let mut lines = Lines::new();
    loop {
        let line = next_line(console)?;
        let Some((_, said)) = line.split_once("bench: ") else { continue };
        match said.trim() {
            "done" => return Ok(lines),
            said => {
                if let Some((name, line)) = parse(said) {
                    lines.entry(name).or_default().push(line);
                }
            }
        }
    }
}

fn next_line(console: &mut Console) -> Result<String> {
    match console.next()? {
        Event::Line(line) => Ok(line),
        Event::Ended => bail!("the machine ended before its workloads did; its console's end:\n{}", console.tail()),
    }
}

/// `WINDOW NAME OPERATIONS NANOSECONDS ENTRIES`, or `WINDOW NAME - REASON`, or `WINDOW NAME failed`.
fn parse(said: &str) -> Option<(String, Result<Line, String>)> {
    let mut words = said.splitn(3, ' ');
    let (_window, name, rest) = (words.next()?.parse::<u8>().ok()?, words.next()?, words.next()?);
    if let Some(reason) = rest.strip_prefix("- ") {
        return Some((name.to_owned(), Err(reason.to_owned())));
    }
    let numbers: Option<Vec<u64>> = rest.split(' ').map(|word| word.parse().ok()).collect();
    let line = match numbers.as_deref() {
        Some(&[operations, nanoseconds, entries]) => Ok(Line { operations, nanoseconds, entries }),
        _ => Err(format!("it says \"{rest}\"")),
    };
    Some((name.to_owned(), line))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_a_figure_or_a_reason() {
        let line = Line { operations: 8, nanoseconds: 300, entries: 5 };
        assert_eq!(parse("4 fork_exit 8 300 5"), Some(("fork_exit".to_owned(), Ok(line))));
        assert_eq!(
            parse("13 hypercall - no one to call"),
            Some(("hypercall".to_owned(), Err("no one to call".to_owned())))
        );
        assert_eq!(parse("4 fork_exit failed"), Some(("fork_exit".to_owned(), Err("it says \"failed\"".to_owned()))));
        assert_eq!(parse("nonsense"), None);
    }
}
