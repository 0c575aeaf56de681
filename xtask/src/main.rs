//! The one door for people and CI: `cargo xtask COMMAND`.
//!
//! Every command builds what it needs, gets the tools it lacks, shows progress on anything that takes long, and fails
//! with one line that names the cure.

mod artifacts;
mod commands;
mod console;
mod control;
mod debian;
mod image;
mod linux;
mod monitor;
mod qemu;
mod tools;
mod xen;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", about = "Build, run, test and measure Xenolith", version)]
struct Cli {
    /// Install missing tools without being root (through sudo) or being asked
    #[arg(long, global = true)]
    yes: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Boot hv, dom0 and a guest in QEMU; the guest's shell is on your terminal (Ctrl-a x ends QEMU)
    Run(commands::run::Options),
    /// Have dom0's toolstack carry out a command in the running system: list, create, console, …
    Ctl(commands::ctl::Options),
    /// Run every test: on the host, against the C headers, in guests on hv and on Xen, whole systems
    Test(commands::test::Options),
    /// Boot every combination of hypervisor, dom0 and guest, and print which are whole
    Matrix(commands::matrix::Options),
    /// Count instructions per operation on hv and on Xen
    Bench(commands::bench::Options),
    /// Run the same guest and workloads natively, as PV and PVH guest on hv and on Xen, and say what each costs and why
    Compare(commands::compare::Options),
    /// Make a CD image that boots the whole system by GRUB
    Image(commands::image::Options),
    /// Check formatting, lints and the size of things
    Lint,
    /// What CI runs: lint and test
    Ci,
    /// Print the size of the trusted base
    Size(commands::size::Options),
    /// Say what this machine lacks and how to get it
    Doctor,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    tools::allow_installing(cli.yes);
    let result = match cli.command {
        Command::Run(options) => commands::run::run(&options),
        Command::Ctl(options) => commands::ctl::run(&options),
        Command::Test(options) => commands::test::run(&options),
        Command::Matrix(options) => commands::matrix::run(&options),
        Command::Bench(options) => commands::bench::run(&options),
        Command::Compare(options) => commands::compare::run(&options),
        Command::Image(options) => commands::image::run(&options),
        Command::Lint => commands::lint::run(),
        Command::Ci => commands::ci::run(),
        Command::Size(options) => commands::size::run(&options),
        Command::Doctor => commands::doctor::run(),
    };
    match result {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::from(1)
        }
    }
}
