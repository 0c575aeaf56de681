//! Links the kernel binaries at their fixed address and builds the user programs they carry.
use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Each is `user/NAME.rs`, a program of its own.
const PROGRAMS: [&str; 7] = ["bench", "float", "hello", "mix", "nothing", "selftest", "spin"];

fn main() {
    let folder = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets it"));
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets it"));
    println!("cargo::rerun-if-changed=kernel.ld");
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=user");
    if env::var("CARGO_CFG_TARGET_OS").as_deref() != Ok("none") {
        return;
    }
    println!("cargo::rustc-link-arg-bins=-T{}", folder.join("kernel.ld").display());
    for program in PROGRAMS {
        build_program(&folder.join("user"), program, &out);
    }
}

/// User programs are ordinary static ELF files for ring 3: linked low, without floating point, with their own entry.
fn build_program(sources: &Path, name: &str, out: &Path) {
    let rustc = env::var_os("RUSTC").expect("cargo sets it");
    let status = Command::new(rustc)
        .args(["--edition=2024", "--target=x86_64-unknown-none"])
        .args(["--crate-type=bin", "--crate-name", name])
        .args(["-Copt-level=s", "-Cpanic=abort", "-Clink-arg=--gc-sections"])
        .args(["-Crelocation-model=static"])
        .args(["-Clink-arg=--image-base=0x400000", "-Cstrip=symbols"])
        .args(["-Adead_code", "-o"])
        .arg(out.join(name))
        .arg(sources.join(name).with_extension("rs"))
        .status()
        .expect("rustc runs");
    assert!(status.success(), "the user program {name} does not build");
}
