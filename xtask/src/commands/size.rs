//! `cargo xtask size`: the trusted base in lines of code, without blanks, comments and tests.

use std::path::{Path, PathBuf};

use anyhow::Result;
use clap::Args;

use crate::artifacts;

#[derive(Args)]
pub(crate) struct Options {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// The lines of one part.
#[derive(serde::Serialize)]
struct Part {
    name: &'static str,
    lines: usize,
    lines_with_unsafe: usize,
}

/// The most that hv may be with paravirtualization alone, its machine layer of that, and all of it (docs/adr/0005).
const HV_LIMIT: usize = 18_000;
const MACHINE_LIMIT: usize = 4_500;
const WHOLE_LIMIT: usize = 25_000;
/// What only guests with hardware assistance need: a folder, and files elsewhere.
const ASSISTANCE: [&str; 7] = [
    "hv/src/hvm",
    "hv/src/evtchn/own.rs",
    "hv/src/machine/svm.rs",
    "hv/src/machine/svm.s",
    "hv/src/rules/hvm.rs",
    "hv/src/decode/moves.rs",
    "hv/src/control/domctl/assisted.rs",
];

/// Prints the parts; status 1 where hv is over a limit.
pub(crate) fn run(options: &Options) -> Result<u8> {
    let root = artifacts::root();
    let mut parts = Vec::new();
    for (name, folder) in [
        ("hv, meaning (no unsafe)", "hv/src"),
        ("hv, machine", "hv/src/machine"),
        ("hv, hardware assistance", "hv/src/hvm"),
        ("pv-abi", "pv-abi/src"),
        ("pv-bus", "pv-bus/src"),
        ("frontends", "frontends/src"),
        ("backends", "backends/src"),
        ("pv-guest-kernel", "pv-guest-kernel/src"),
        ("dom0", "dom0/src"),
    ] {
        let mut part = Part { name, lines: 0, lines_with_unsafe: 0 };
        let apart = ASSISTANCE.iter().chain(&["hv/src/machine"]).filter(|apart| **apart != folder);
        let apart: Vec<_> = apart.map(|apart| root.join(apart)).collect();
        count_folder(&root.join(folder), &apart, &mut part)?;
        for file in ASSISTANCE.iter().filter(|file| folder == ASSISTANCE[0] && **file != folder) {
            count_text(&std::fs::read_to_string(root.join(file))?, &mut part);
        }
        parts.push(part);
    }
    let hv = parts[0].lines + parts[1].lines;
    let whole = hv + parts[2].lines;
    if options.json {
        println!(
            "{}",
            serde_json::json!({
                "parts": parts, "hv": hv, "limit": HV_LIMIT, "machine_limit": MACHINE_LIMIT,
                "whole": whole, "whole_limit": WHOLE_LIMIT,
            })
        );
    } else {
        for part in &parts {
            println!("{:>7} lines, {:>3} with unsafe  {}", part.lines, part.lines_with_unsafe, part.name);
        }
        println!("{hv:>7} lines of at most {HV_LIMIT}: the hypervisor; its machine layer at most {MACHINE_LIMIT}");
        println!("{whole:>7} lines of at most {WHOLE_LIMIT}: with guests with hardware assistance");
    }
    Ok(u8::from(hv > HV_LIMIT || parts[1].lines > MACHINE_LIMIT || whole > WHOLE_LIMIT))
}

fn count_folder(folder: &Path, apart: &[PathBuf], part: &mut Part) -> Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if apart.contains(&path) {
            continue;
        }
        if path.is_dir() {
            if path.file_name().is_some_and(|name| name != "tests" && name != "fake") {
                count_folder(&path, apart, part)?;
            }
        } else if is_code(&path) {
            count_text(&std::fs::read_to_string(&path)?, part);
        }
    }
    Ok(())
}

fn is_code(path: &Path) -> bool {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let extension = path.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
    matches!(extension, "rs" | "s" | "S") && name != "tests.rs"
}

/// Counts the lines of code before the file's tests.
fn count_text(text: &str, part: &mut Part) {
    for line in text.lines() {
        if line.starts_with("#[cfg(test)]") {
            return;
        }
        let line = line.trim();
        if line.is_empty() || line.starts_with("//") || line.starts_with("# ") {
            continue;
        }
        part.lines += 1;
        part.lines_with_unsafe += usize::from(line.contains("unsafe ") && !line.contains("_code"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_blanks_and_tests_are_no_code() {
        let mut part = Part { name: "", lines: 0, lines_with_unsafe: 0 };
        count_text("//! Idea\n\nfn a() {\n    unsafe { b() }\n}\n#[cfg(test)]\nmod tests {}\n", &mut part);
        assert_eq!((part.lines, part.lines_with_unsafe), (3, 1));
    }
}
