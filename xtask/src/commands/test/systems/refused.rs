//! Bad input: one clear line that names the thing and the cure, and nothing half-started.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Result, bail, ensure};

use crate::artifacts::Artifacts;
use crate::commands::run::{self, Hypervisor, Mode};
use crate::commands::test::Tally;
use crate::console::{Console, Event};
use crate::qemu::Machine;

/// What a machine is started with, and the words of the one line that must come.
struct Case {
    title: &'static str,
    options: &'static str,
    module: Option<&'static str>,
    words: &'static [&'static str],
}

const MACHINES: &[Case] = &[
    Case {
        title: "hv without a module says what is missing",
        options: "console=com1",
        module: None,
        words: &["no kernel for dom0", "-initrd"],
    },
    Case {
        title: "hv names an unknown option",
        options: "console=com1 colour=red",
        module: Some("bench"),
        words: &["colour", "remove it"],
    },
    Case {
        title: "hv names a value that cannot be read",
        options: "console=com1 dom0_mem=much",
        module: Some("bench"),
        words: &["dom0_mem"],
    },
    Case {
        title: "hv refuses a kernel without notes",
        options: "console=com1",
        module: Some("hv"),
        words: &["no Xen ELF notes"],
    },
    Case {
        title: "hv refuses a kernel that is larger than its memory",
        options: "console=com1 dom0_mem=1M",
        module: Some("dom0"),
        words: &["dom0_mem", "MiB"],
    },
    Case {
        title: "hv refuses to give dom0 more than there is",
        options: "console=com1 dom0_mem=9999M",
        module: Some("bench"),
        words: &["missing for dom0"],
    },
];

/// Runs them all.
pub(super) fn run(tally: &mut Tally, artifacts: &Artifacts) {
    for case in MACHINES {
        tally.test(case.title, || refused_machine(artifacts, case));
    }
    tally.test("hv refuses a module that is no ELF file", || {
        let folder = tempfile::tempdir()?;
        let file = folder.path().join("text");
        std::fs::write(&file, "this is no kernel\n")?;
        expect_error(artifacts, "console=com1", Some(file), &["ELF"])
    });
    tally.test("a guest's description with an unknown key is refused by name", || {
        refused_guest(artifacts, "name = \"demo\"\nkernel = \"/boot/demo\"\nmemory = 64\ncolour = \"red\"\n", "colour")
    });
    tally.test("a guest whose kernel is not there is refused by its file's name", || {
        refused_guest(artifacts, "name = \"demo\"\nkernel = \"/boot/nothing\"\nmemory = 64\n", "/boot/nothing")
    });
    tally.test("a guest whose kernel is larger than its memory is refused", || {
        refused_guest(artifacts, "name = \"demo\"\nkernel = \"/boot/demo\"\nmemory = 1\n", "memory")
    });
    tally.test("a damaged disk gives one line and a status, and the guest lives", || damaged_disk(artifacts));
}

fn refused_machine(artifacts: &Artifacts, case: &Case) -> Result<()> {
    expect_error(artifacts, case.options, case.module.map(|name| artifacts.kernel(name)), case.words)
}

fn expect_error(artifacts: &Artifacts, options: &str, module: Option<PathBuf>, words: &[&str]) -> Result<()> {
    let machine = Machine {
        kernel: artifacts.kernel("hv"),
        command_line: options.to_owned(),
        modules: module.into_iter().map(|file| (file, String::new())).collect(),
        memory_mib: 256,
        cpus: 1,
        ..Machine::default()
    };
    let mut console = Console::start(machine.piped(), Duration::from_secs(20))?;
    while let Event::Line(_) = console.next()? {}
    let errors: Vec<&str> = console.transcript.lines().filter(|line| line.contains("(hv) error: ")).collect();
    let [error] = errors[..] else {
        bail!("{} error lines instead of one; the console:\n{}", errors.len(), console.transcript);
    };
    for word in words {
        ensure!(error.contains(word), "\"{error}\" does not say \"{word}\"");
    }
    let status = console.status()?;
    ensure!(status == Some(1), "QEMU's status is {status:?}, not 1");
    Ok(())
}

fn refused_guest(artifacts: &Artifacts, description: &str, word: &str) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("demo.toml");
    std::fs::write(&file, description)?;
    let disk = super::disk()?;
    match run::execute_described(artifacts, Hypervisor::Hv, &disk.path, &file) {
        Ok(outcome) => bail!("it ran and printed:\n{}", outcome.output),
        Err(error) => {
            let text = error.to_string();
            ensure!(text.contains(word), "\"{text}\" does not say \"{word}\"");
            ensure!(text.lines().count() == 1, "it takes more than one line:\n{text}");
            Ok(())
        }
    }
}

fn damaged_disk(artifacts: &Artifacts) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("damaged.img");
    let file = std::fs::File::create(&path)?;
    file.set_len(64 << 20)?;
    let outcome = execute_on(artifacts, &path, "ls /disk; ps")?;
    ensure!(outcome.status != 0, "a damaged disk is no error:\n{}", outcome.output);
    ensure!(outcome.output.contains("NAME"), "the guest did not go on to ps:\n{}", outcome.output);
    Ok(())
}

fn execute_on(artifacts: &Artifacts, disk: &Path, commands: &str) -> Result<run::Outcome> {
    run::execute(artifacts, Hypervisor::Hv, Mode::Pv, disk, commands)
}
