//! Links the kernel binaries at their fixed address and builds the user programs they carry.
use std::env;
use std::path::PathBuf;

fn main() {
    let folder = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets it"));
    println!("cargo::rerun-if-changed=kernel.ld");
    println!("cargo::rerun-if-changed=build.rs");
    if env::var("CARGO_CFG_TARGET_OS").as_deref() == Ok("none") {
        println!(
            "cargo::rustc-link-arg-bins=-T{}",
            folder.join("kernel.ld").display()
        );
    }
}
